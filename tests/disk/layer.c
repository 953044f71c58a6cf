/*
 * A layer between the supervisor and its file system: it records what is done to the spool, and lets calls fail on demand.
 *
 * Built by the tests and loaded with LD_PRELOAD; awake only in a program named `spooler`, and only for paths below $LAYER_ROOT.
 *
 *   $LAYER_TRACE     every change of the file system is appended here, in the order in which it happened (trace.rs reads it)
 *   $LAYER_FAULTS    a page that the test writes: which calls fail, and how (layer.rs)
 *   $LAYER_SYNC_US   syncs take so long instead of being done: nothing of the test depends on the real disk
 *
 * One mutex makes the order of the trace the order of the calls. A sync is two records, its beginning and its end: what was written
 * before the beginning is what it promises.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op { OPEN = 1, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_OK, SYNC_FAILED, RENAME, UNLINK, MKDIR, RMDIR, LINK };
/* Bits of `struct faults.calls`. */
enum call { C_OPEN = 1, C_WRITE = 2, C_TRUNCATE = 4, C_SYNC = 8, C_RENAME = 16, C_UNLINK = 32, C_READ = 64, C_ALLOCATE = 128 };

struct record {
    uint32_t op;
    uint32_t is_folder;
    uint64_t inode, offset, length;
    uint32_t path_length, other_length;
};

struct faults {
    uint32_t calls;     /* which calls may fail */
    int32_t error;      /* what they say */
    int32_t skip;       /* so many are let through first */
    int32_t count;      /* so many fail then; -1: all */
    uint32_t hits;      /* so many have failed */
    uint32_t torn;      /* writes: half of it is written, then the error comes */
    uint32_t die;       /* the program is killed at this call from now on; 0: it is not */
    uint32_t deadly;    /* so many calls after one that failed the program is killed; 0: it is not */
    char match[64];     /* only paths that contain this */
};

#define FDS 65536
static char *names[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int awake, trace_fd = -1;
static size_t root_length;
static const char *root;
static useconds_t sync_us;
static uint64_t syncs;
static struct faults *faults;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(int, close, int);
REAL(ssize_t, read, int, void *, size_t);
REAL(ssize_t, pread, int, void *, size_t, off_t);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(int, ftruncate, int, off_t);
REAL(int, fallocate, int, int, off_t, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, rename, const char *, const char *);
REAL(int, link, const char *, const char *);
REAL(int, unlink, const char *);
REAL(int, mkdir, const char *, mode_t);
REAL(int, rmdir, const char *);

static void find_all(void) {
#define FIND(name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
    FIND(open); FIND(openat); FIND(close); FIND(read); FIND(pread); FIND(write); FIND(pwrite); FIND(writev); FIND(ftruncate);
    FIND(fallocate); FIND(fsync); FIND(fdatasync); FIND(rename); FIND(link); FIND(unlink); FIND(mkdir); FIND(rmdir);
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) return;
    program[length] = 0;
    const char *base = strrchr(program, '/');
    root = getenv("LAYER_ROOT");
    if (!root || !base || strcmp(base, "/spooler")) return;
    root_length = strlen(root);
    if (getenv("LAYER_SYNC_US")) sync_us = atoi(getenv("LAYER_SYNC_US"));
    if (getenv("LAYER_TRACE")) trace_fd = real_open(getenv("LAYER_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (getenv("LAYER_FAULTS")) {
        int fd = real_open(getenv("LAYER_FAULTS"), O_RDWR | O_CLOEXEC);
        void *page = mmap(NULL, sizeof(struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) faults = page;
        real_close(fd);
    }
    awake = 1;
}

static int ours(const char *path) {
    pthread_once(&once, find_all);
    return awake && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static const char *name_of(int fd) {
    pthread_once(&once, find_all);
    return awake && fd >= 0 && fd < FDS ? names[fd] : NULL;
}

/* A program that is killed here has recorded all that it has done. */
static void enter(void) {
    pthread_mutex_lock(&lock);
    if (faults && faults->die && !--faults->die) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}
static void leave(void) { int kept = errno; pthread_mutex_unlock(&lock); errno = kept; }

/* Whether this call is to fail; errno says how. With the lock. */
static int fails(unsigned call, const char *path) {
    if (!faults || !(faults->calls & call) || !strstr(path, faults->match)) return 0;
    if (faults->skip > 0) { faults->skip--; return 0; }
    if (!faults->count) return 0;
    if (faults->count > 0) faults->count--;
    faults->hits++;
    if (!faults->die) faults->die = faults->deadly;
    errno = faults->error;
    return 1;
}

static void put(const void *bytes, size_t length) {
    while (length) {
        ssize_t done = real_write(trace_fd, bytes, length);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done;
        length -= done;
    }
}

static void record(enum op op, int fd, const char *path, const char *other, uint64_t offset, uint64_t length, const void *data) {
    if (trace_fd < 0) return;
    int kept = errno;
    struct record head = { .op = op, .offset = offset, .length = length };
    struct stat found;
    if (fd >= 0 && !fstat(fd, &found)) { head.inode = found.st_ino; head.is_folder = S_ISDIR(found.st_mode); }
    head.path_length = path ? strlen(path) : 0;
    head.other_length = other ? strlen(other) : 0;
    put(&head, sizeof head);
    put(path, head.path_length);
    put(other, head.other_length);
    if (data) put(data, length);
    errno = kept;
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    if (at != AT_FDCWD || !ours(path)) return real_openat(at, path, flags, mode);
    enter();
    int fd = -1;
    if (!fails(C_OPEN, path)) fd = real_openat(at, path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        free(names[fd]);
        names[fd] = strdup(path);
        if (flags & (O_CREAT | O_TRUNC)) record(OPEN, fd, path, NULL, flags & O_TRUNC ? 1 : 0, 0, NULL);
    }
    leave();
    return fd;
}

#define MODE(flags, last) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags, flags) pthread_once(&once, find_all); return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) pthread_once(&once, find_all); return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, flags) pthread_once(&once, find_all); return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, flags) pthread_once(&once, find_all); return opened(at, path, flags | O_LARGEFILE, mode); }

int close(int fd) {
    if (name_of(fd)) { enter(); free(names[fd]); names[fd] = NULL; leave(); }
    return real_close(fd);
}

static int read_fails(int fd) {
    const char *name = name_of(fd);
    if (!name) return 0;
    enter();
    int failed = names[fd] && fails(C_READ, name);
    leave();
    return failed;
}

ssize_t read(int fd, void *to, size_t length) { return read_fails(fd) ? -1 : real_read(fd, to, length); }
ssize_t pread(int fd, void *to, size_t length, off_t at) { return read_fails(fd) ? -1 : real_pread(fd, to, length, at); }
ssize_t pread64(int fd, void *to, size_t length, off_t at) { return pread(fd, to, length, at); }

static ssize_t written(int fd, const void *from, size_t length, off_t at, int moves) {
    enter();
    ssize_t done = -1;
    int failed = fails(C_WRITE, names[fd]);
    int error = errno;
    if (failed && faults->torn) length /= 2;
    if (!failed || faults->torn) {
        if (moves) at = lseek(fd, 0, SEEK_CUR);
        done = moves ? real_write(fd, from, length) : real_pwrite(fd, from, length, at);
        if (done > 0) record(WRITE, fd, NULL, NULL, at, done, from);
        if (failed) done = -1;
    }
    if (failed) errno = error;
    leave();
    return done;
}

ssize_t write(int fd, const void *from, size_t length) { return name_of(fd) ? written(fd, from, length, 0, 1) : real_write(fd, from, length); }
ssize_t pwrite(int fd, const void *from, size_t length, off_t at) { return name_of(fd) ? written(fd, from, length, at, 0) : real_pwrite(fd, from, length, at); }
ssize_t pwrite64(int fd, const void *from, size_t length, off_t at) { return pwrite(fd, from, length, at); }
/* The first piece only: the caller goes on by itself. */
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    return name_of(fd) && count ? written(fd, pieces->iov_base, pieces->iov_len, 0, 1) : real_writev(fd, pieces, count);
}

int ftruncate(int fd, off_t length) {
    if (!name_of(fd)) return real_ftruncate(fd, length);
    enter();
    int done = fails(C_TRUNCATE, names[fd]) ? -1 : real_ftruncate(fd, length);
    if (!done) record(TRUNCATE, fd, NULL, NULL, 0, length, NULL);
    leave();
    return done;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int fallocate(int fd, int mode, off_t at, off_t length) {
    if (!name_of(fd)) return real_fallocate(fd, mode, at, length);
    enter();
    int done = fails(C_ALLOCATE, names[fd]) ? -1 : real_fallocate(fd, mode, at, length);
    leave();
    return done;
}
int fallocate64(int fd, int mode, off_t at, off_t length) { return fallocate(fd, mode, at, length); }

static int synced(int fd, int (*real)(int)) {
    enter();
    uint64_t number = ++syncs;
    int failed = fails(C_SYNC, names[fd]);
    int error = errno;
    record(SYNC_BEGIN, fd, names[fd], NULL, number, 0, NULL);
    leave();
    int done = failed ? -1 : 0;
    if (!failed && sync_us) usleep(sync_us);
    else if (!failed) done = real(fd);
    enter();
    record(done ? SYNC_FAILED : SYNC_OK, fd, NULL, NULL, number, 0, NULL);
    leave();
    if (failed) errno = error;
    return done;
}
int fsync(int fd) { return name_of(fd) ? synced(fd, real_fsync) : real_fsync(fd); }
int fdatasync(int fd) { return name_of(fd) ? synced(fd, real_fdatasync) : real_fdatasync(fd); }

int rename(const char *from, const char *to) {
    if (!ours(from) && !ours(to)) return real_rename(from, to);
    enter();
    int done = fails(C_RENAME, from) ? -1 : real_rename(from, to);
    if (!done) record(RENAME, -1, from, to, 0, 0, NULL);
    leave();
    return done;
}

int link(const char *from, const char *to) {
    if (!ours(to)) return real_link(from, to);
    enter();
    int done = fails(C_RENAME, from) ? -1 : real_link(from, to);
    if (!done) record(LINK, -1, from, to, 0, 0, NULL);
    leave();
    return done;
}

static int on_path(const char *path, enum op op, unsigned call, int done_by(const char *)) {
    if (!ours(path)) return done_by(path);
    enter();
    int done = fails(call, path) ? -1 : done_by(path);
    if (!done) record(op, -1, path, NULL, 0, 0, NULL);
    leave();
    return done;
}
static int do_unlink(const char *path) { return real_unlink(path); }
static int do_rmdir(const char *path) { return real_rmdir(path); }
static int do_mkdir(const char *path) { return real_mkdir(path, 0700); }
int unlink(const char *path) { pthread_once(&once, find_all); return on_path(path, UNLINK, C_UNLINK, do_unlink); }
int rmdir(const char *path) { pthread_once(&once, find_all); return on_path(path, RMDIR, C_UNLINK, do_rmdir); }
int mkdir(const char *path, mode_t mode) {
    return ours(path) ? on_path(path, MKDIR, C_OPEN, do_mkdir) : real_mkdir(path, mode);
}
