//! Programs get their messages and have room for temporary files wherever spool, socket and configuration lie, whoever runs the spooler, and
//! whatever the kernel knows of Landlock.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::IN;
use crate::smtp;
use crate::unprivileged::{SOMEBODY, as_somebody, can_become_others};
use crate::world::World;

/// A hook, a preprocessor and a program, each of which needs its input whole and a file of its own. The local part is the size of the body.
const PROVIDERS: &str = r#"
[[provider.submission.inbound_hook]]
command = ["/bin/sh", "-c", "cat > $FOLDER/seen && grep -q '^Subject: ' $FOLDER/seen && mktemp > $FOLDER/made"]
[provider.program]
kind = "pipe"
claims = ["@program.test"]
command = ["/bin/sh", "-c", "file=$(mktemp) && cat > $file && grep -q '^X-Seen: yes' $file && test $(sed '1,/^$/d' $file | wc -c) = $LOCAL"]
[[provider.program.preprocess]]
command = ["/bin/sh", "-c", "cat > $FOLDER/old && { echo 'X-Seen: yes'; cat $FOLDER/old; }"]
undo = ["/bin/sh", "-c", "test -s $FOLDER/old"]
[[provider.program.outbound_hook]]
command = ["/bin/sh", "-c", "cat > $FOLDER/after"]
"#;
/// Bytes of the body of a message that is kept in memory, and of one that is not.
const SIZES: [usize; 2] = [100, 3 << 20];

/// Where the spooler's folder lies.
struct Place {
    above: &'static str,
    /// In a folder that only its owner enters.
    private: bool,
    /// As a file system of its own.
    mounted: bool,
}

const PLACES: [Place; 6] = [
    Place { above: "/tmp", private: false, mounted: false },
    Place { above: "/var/tmp", private: false, mounted: false },
    Place { above: "/dev/shm", private: false, mounted: false },
    Place { above: "/home", private: true, mounted: false },
    Place { above: "/var/lib", private: false, mounted: false },
    Place { above: "/tmp", private: false, mounted: true },
];

/// What `strace` makes a worker believe of Landlock, and what its sandbox then says.
struct Kernel {
    inject: Option<&'static str>,
    said: &'static str,
}

const KERNEL: Kernel = Kernel { inject: None, said: "" };
const KERNELS: [Kernel; 4] = [
    Kernel { inject: Some("retval=1"), said: "Landlock ABI 1 " },
    Kernel { inject: Some("retval=4"), said: "Landlock ABI 4 " },
    Kernel { inject: Some("retval=6"), said: "Landlock ABI 6," },
    Kernel { inject: Some("error=ENOSYS"), said: "no Landlock " },
];

impl Kernel {
    /// `strace` that answers the question for the version, which is the first call of each process.
    fn seen(&self) -> Vec<String> {
        let Some(answer) = self.inject else { return Vec::new() };
        let inject = format!("inject=landlock_create_ruleset:{answer}:when=1");
        let words =
            ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-e", "trace=landlock_create_ruleset"];
        words
            .iter()
            .map(|word| (*word).to_owned())
            .chain(["-e".to_owned(), inject, "-o".to_owned(), "/dev/null".to_owned()])
            .collect()
    }
}

/// A shell that mounts a folder onto itself, for what it runs.
fn mounting(folder: &Path) -> Vec<String> {
    let script = "mount --bind \"$0\" \"$0\" && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-c", script, folder.to_str().unwrap()];
    words.map(str::to_owned).to_vec()
}

/// Messages of each size pass a hook, a preprocessor and a program, run by root or by another user.
fn check(place: &Place, user: Option<u32>, kernel: &Kernel) {
    let above = tempfile::Builder::new().prefix("spooler-place").tempdir_in(place.above).unwrap();
    let mode = if place.private { 0o700 } else { 0o755 };
    fs::set_permissions(above.path(), Permissions::from_mode(mode)).unwrap();
    let mut world = World::below(above.path(), &format!("{IN}{PROVIDERS}"));
    let mut wrap = if place.mounted { mounting(&world.path("")) } else { Vec::new() };
    wrap.extend(kernel.seen());
    if let Some(uid) = user {
        chown(above.path(), Some(uid), Some(uid)).unwrap();
        world.give_to(uid);
        wrap.extend(as_somebody(&[]));
    }
    world.run_under(wrap);
    world.start();
    let level = world.provider("program").unwrap()["sandbox"].as_str().unwrap().to_owned();
    let case = format!("below {} (mounted: {}), user {user:?}, {level}", place.above, place.mounted);
    assert!(level.contains(kernel.said), "{case}");
    for size in SIZES {
        let content = format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(size - 1));
        smtp::send(world.port("submission"), "a@b.test", &[&format!("{size}@program.test")], content.as_bytes());
    }
    world.wait_for(&format!("all to be delivered {case}"), |world| {
        let listed = world.control().get("/v1/messages")?;
        assert!(!listed.contains("deferred"), "{case}: {listed}");
        (world.queued()? == 0).then_some(())
    });
    assert_eq!(world.status().unwrap()["supervisor"]["failed"], 0, "{case}: {}", world.log());
    world.stop();
    let log = world.log();
    assert!(!log.contains("had trouble") && log.contains("program"), "{case}: {log}");
    check_clean(&world, &case);
}

/// Nothing of a message is left where temporary files were.
fn check_clean(world: &World, case: &str) {
    let below = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let places = below(&world.path("spool/tmp"));
    assert_eq!(places.len(), 1, "{case}");
    for worker in below(&places[0]) {
        assert_eq!(below(&worker), Vec::<std::path::PathBuf>::new(), "{case}");
    }
}

fn is_there(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

#[test]
fn programs_run_wherever_the_spool_lies() {
    let root = can_become_others("programs_run_wherever_the_spool_lies: as another user");
    for place in PLACES {
        let writable = tempfile::tempdir_in(place.above).is_ok();
        let mounts = !place.mounted || is_there("unshare", "--mount") && root;
        if !(writable && mounts) {
            eprintln!(
                "programs_run_wherever_the_spool_lies: skipped below {} (mounted: {})",
                place.above, place.mounted
            );
            continue;
        }
        check(&place, None, &KERNEL);
        if root {
            check(&place, Some(SOMEBODY), &KERNEL);
        }
    }
}

#[test]
fn programs_run_on_every_kernel() {
    if !is_there("strace", "-V") {
        eprintln!("programs_run_on_every_kernel: skipped, it needs strace");
        return;
    }
    let root = can_become_others("programs_run_on_every_kernel: as another user");
    for kernel in KERNELS {
        check(&PLACES[0], None, &kernel);
        if root {
            check(&PLACES[0], Some(SOMEBODY), &kernel);
        }
    }
}
