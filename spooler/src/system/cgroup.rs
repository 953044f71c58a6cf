//! A cgroup for each worker, where the spooler has a branch of the tree of its own (systemd: `Delegate=yes`).
//!
//! ```text
//!   spooler.service           delegated: `+cpu` for what is below it
//!    ├─ supervisor            we; inner nodes may not hold processes
//!    ├─ worker-1234           cpu.weight.nice = nice of its level, cpu.idle = 1 in the class `idle`
//!    └─ worker-1235
//! ```
//!
//! Shares inside the branch only: what the whole branch gets beside other services is `CPUWeight=` of the unit, which is not ours to
//! change. A branch that nobody delegated to us is left alone, even where we could write to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::policy::priority_plan::{Level, Sched};

/// Set by systemd on what it delegates.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The branch.
#[derive(Debug)]
pub struct Cgroups {
    top: PathBuf,
}

impl Cgroups {
    /// The branch that was delegated to us, made ready for workers; `None` if there is none or it is of no use.
    #[must_use]
    pub fn find() -> Option<Self> {
        let own = own_folder(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        let (top, inner) = if is_delegated(&own) {
            (own.clone(), false)
        } else {
            // DelegateSubgroup= has put us one below.
            (own.parent().filter(|parent| is_delegated(parent))?.to_owned(), true)
        };
        match Self::prepare(&top, inner) {
            Ok(()) => Some(Self { top }),
            Err(error) => {
                tracing::info!("{}: delegated, but workers get no cgroups of their own: {error}", top.display());
                None
            }
        }
    }

    /// Makes `top` give CPU to what is below it. `inner`: we are below it already.
    fn prepare(top: &Path, inner: bool) -> io::Result<()> {
        let controllers = fs::read_to_string(top.join("cgroup.controllers"))?;
        if !controllers.split_ascii_whitespace().any(|controller| controller == "cpu") {
            return Err(io::Error::other("it has no cpu controller"));
        }
        if !inner {
            let ours = top.join("supervisor");
            make(&ours)?;
            fs::write(ours.join("cgroup.procs"), std::process::id().to_string())?;
        }
        fs::write(top.join("cgroup.subtree_control"), "+cpu")
    }

    /// Gives a worker what its level says; says what it has then.
    #[must_use]
    pub fn set(&self, pid: u32, level: Level) -> String {
        self.try_set(pid, level).unwrap_or_else(|error| format!("refused ({error})"))
    }

    fn try_set(&self, pid: u32, level: Level) -> io::Result<String> {
        let folder = self.folder(pid);
        if !folder.is_dir() {
            make(&folder)?;
            fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        let idle = level.sched() == Sched::Idle;
        fs::write(folder.join("cpu.idle"), if idle { "1" } else { "0" })?;
        if idle {
            return Ok("idle".to_owned());
        }
        fs::write(folder.join("cpu.weight.nice"), level.nice().to_string())?;
        Ok(format!("weight {}", fs::read_to_string(folder.join("cpu.weight"))?.trim()))
    }

    /// A worker is gone. If a program that it started lives on, its cgroup does so too.
    pub fn forget(&self, pid: u32) {
        let _ = fs::remove_dir(self.folder(pid));
    }

    fn folder(&self, pid: u32) -> PathBuf {
        self.top.join(format!("worker-{pid}"))
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn is_delegated(folder: &Path) -> bool {
    MARKS.iter().any(|mark| {
        let mut value = [0_u8; 2];
        rustix::fs::getxattr(folder, *mark, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// The folder of our own cgroup, from /proc/self/cgroup and /proc/self/mountinfo.
fn own_folder(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        kind.starts_with("cgroup2 ").then(|| Path::new(mount).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::priority_plan::Io;

    const MOUNTS: &str =
        "30 25 0:26 / /proc rw - proc proc rw\n35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn our_folder_is_found() {
        let found = own_folder("0::/system.slice/spooler.service\n", MOUNTS);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/system.slice/spooler.service")));
        let hybrid = "9:cpu:/x\n0::/\n";
        assert_eq!(own_folder(hybrid, MOUNTS), Some(PathBuf::from("/sys/fs/cgroup/")));
        assert_eq!(own_folder("9:cpu:/x\n", MOUNTS), None);
        assert_eq!(own_folder("0::/a\n", "30 25 0:26 / /proc rw - proc proc rw\n"), None);
        let contained = "35 25 0:30 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_folder("0::/box/a\n", contained), Some(PathBuf::from("/sys/fs/cgroup/a")));
    }

    #[test]
    fn what_nobody_delegated_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_delegated(folder.path()));
    }

    /// Plain files stand for the kernel's: what is written can be read.
    fn branch(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        folder
    }

    #[test]
    fn a_branch_without_the_cpu_is_of_no_use() {
        let folder = branch("memory pids\n");
        assert!(Cgroups::prepare(folder.path(), false).is_err());
        assert!(!folder.path().join("supervisor").exists());
    }

    #[test]
    fn we_move_out_of_the_way_and_each_worker_has_its_own() {
        let folder = branch("cpuset cpu io\n");
        let file = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        Cgroups::prepare(folder.path(), false).unwrap();
        assert_eq!(file("supervisor/cgroup.procs"), std::process::id().to_string());
        assert_eq!(file("cgroup.subtree_control"), "+cpu");
        let cgroups = Cgroups { top: folder.path().to_owned() };
        fs::create_dir(folder.path().join("worker-5")).unwrap();
        fs::write(folder.path().join("worker-5/cpu.weight"), "110\n").unwrap();
        let base = Level::Base { nice: 10, sched: Sched::Batch, io: Io::Idle };
        assert_eq!(cgroups.set(5, base), "weight 110");
        assert_eq!((file("worker-5/cpu.idle").as_str(), file("worker-5/cpu.weight.nice").as_str()), ("0", "10"));
        assert_eq!(cgroups.set(6, Level::Demoted { nice: 19 }), "idle");
        assert_eq!((file("worker-6/cgroup.procs").as_str(), file("worker-6/cpu.idle").as_str()), ("6", "1"));
    }
}
