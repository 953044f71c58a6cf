#!/usr/bin/env python3
"""A person's job: a fixed amount of computing on every core, and a loop of 60 frames a second that counts those that come late.

Started in a session of its own, as a terminal would. Prints one line of JSON: how long the computing took, how much CPU the machine
gave meanwhile for each second that the job got of it, frames, and late ones."""

import hashlib
import json
import os
import sys
import time

FRAME_S = 1 / 60
PIECE = 2000
"""Rounds of hashing in one piece of computing, below a millisecond."""
FRAME_PIECES = 3
"""Pieces in the work of a frame."""


def piece():
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", PIECE)


def pieces_a_second(seconds=0.5):
    """How fast this machine is, on one core that nobody else uses."""
    end, done = time.process_time() + seconds, 0
    while time.process_time() < end:
        piece()
        done += 1
    return done / seconds


def compute(pieces):
    """Starts a process that computes."""
    pid = os.fork()
    if pid == 0:
        for _ in range(pieces):
            piece()
        os._exit(0)
    return pid


def frames(tell):
    """Draws frames until the other end of the pipe is closed; tells how many there were, and how many were late."""
    count = late = 0
    due = time.perf_counter()
    while os.getppid() == PARENT and not STOPPED:
        for _ in range(FRAME_PIECES):
            piece()
        due += FRAME_S
        now = time.perf_counter()
        count += 1
        if now > due:
            late += 1
            due = now
        else:
            time.sleep(due - now)
    os.write(tell, json.dumps([count, late]).encode())
    os._exit(0)


def cpu_s(pid):
    """What a child of ours has used when it ends."""
    usage = os.wait4(pid, 0)[2]
    return usage.ru_utime + usage.ru_stime


def unused_s():
    """Of all cores: idle, waiting for disks, or not given by the host."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:]]
    return (ticks[3] + ticks[4] + ticks[7]) / os.sysconf("SC_CLK_TCK")


def stop(*_):
    STOPPED.append(True)


def main():
    global PARENT, STOPPED
    import signal

    PARENT, STOPPED = os.getpid(), []
    pieces, cores = int(sys.argv[1]), os.cpu_count()
    hear, tell = os.pipe()
    signal.signal(signal.SIGTERM, stop)
    drawing = os.fork()
    if drawing == 0:
        frames(tell)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    start = time.perf_counter()
    unused_before = unused_s()
    used = [cpu_s(pid) for pid in [compute(pieces) for _ in range(cores)]]
    seconds = time.perf_counter() - start
    given = seconds * cores - (unused_s() - unused_before)
    os.kill(drawing, signal.SIGTERM)
    used.append(cpu_s(drawing))
    count, late = json.loads(os.read(hear, 1000))
    print(json.dumps({"seconds": seconds, "stretch": given / sum(used), "frames": count, "late": late}))


if __name__ == "__main__":
    main()
