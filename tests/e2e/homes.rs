//! Maildirs in home folders: of system users only, where the user database says. The users are a test's own, in a mount namespace.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::getuid;

use crate::world::World;
use crate::{IN, smtp};

const ANN: u32 = 1000;

/// A world of root's with users of its own.
fn world(test: &str, path: &str) -> Option<World> {
    let unshared = Command::new("unshare").args(["--mount", "true"]).output();
    if !getuid().is_root() || !unshared.is_ok_and(|output| output.status.success()) {
        eprintln!("{test}: skipped, it needs root and unshare");
        return None;
    }
    let mut world = World::new(&format!(
        "{IN}[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{path}\"\nrecipient_delimiter = \"+\"\n"
    ));
    let at = |name: &str| world.path(name);
    let (homes, root, www) = (at("homes"), at("root"), at("www"));
    for folder in [&homes, &homes.join("ann"), &root, &www] {
        fs::create_dir(folder).unwrap();
    }
    chown(homes.join("ann"), Some(ANN), Some(ANN)).unwrap();
    let passwd = format!(
        "root:x:0:0::{}:/bin/sh\nwww-data:x:33:33::{}:/bin/sh\nann:x:{ANN}:{ANN}::{homes}/ann:/bin/sh\nnew:x:1001:1001::{homes}/new:/bin/sh\n",
        root.display(),
        www.display(),
        homes = homes.display()
    );
    fs::write(at("passwd"), passwd).unwrap();
    let script = "mount --bind \"$0\" /etc/passwd && mount --bind \"$1\" /home && shift && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-c", script].map(str::to_owned);
    let arguments = [at("passwd"), homes].map(|path| path.display().to_string());
    world.run_under(words.into_iter().chain(arguments));
    world.start();
    Some(world)
}

fn new_files(world: &World, maildir: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(world.path(maildir).join("new"));
    found.map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
}

fn send(world: &World, to: &str) {
    smtp::send(world.port("submission"), "ann@local.test", &[to], b"Subject: x\r\n\r\nx\r\n");
}

#[test]
fn maildir_is_in_the_home_of_the_user() {
    let Some(world) = world("maildir_is_in_the_home_of_the_user", "{home}/Maildir") else { return };
    for to in ["ann+tag@local.test", "Root@local.test"] {
        send(&world, to);
    }
    world.wait_empty();
    for (maildir, uid) in [("homes/ann/Maildir", ANN), ("root/Maildir", 0)] {
        let files = new_files(&world, maildir);
        assert_eq!(files.len(), 1, "{maildir}");
        for path in [&world.path(maildir), &files[0]] {
            assert_eq!(fs::metadata(path).unwrap().uid(), uid, "{}", path.display());
        }
    }
    // Users who do not exist, and system users: the sender hears of it, and nothing is made.
    for (to, status) in [("typo@local.test", "5.1.1"), ("www-data@local.test", "5.2.1")] {
        let before = new_files(&world, "homes/ann/Maildir");
        send(&world, to);
        world.wait_empty();
        let reports: Vec<PathBuf> =
            new_files(&world, "homes/ann/Maildir").into_iter().filter(|path| !before.contains(path)).collect();
        assert_eq!(reports.len(), 1, "{to}");
        let report = fs::read_to_string(&reports[0]).unwrap();
        assert!(report.contains(&format!("Status: {status}")) && report.contains(to), "{report}");
    }
    assert!(!world.path("homes/typo").exists() && !world.path("www/Maildir").exists());
    // A home folder that is not there yet is waited for, not made.
    send(&world, "new@local.test");
    world.wait_for("the deferral", |world| {
        let listed = world.control().get("/v1/messages?to=new@")?;
        listed.contains("homes/new: No such file or directory").then_some(())
    });
    assert!(!world.path("homes/new").exists());
}

#[test]
fn folders_below_home_are_for_users_only() {
    let Some(world) = world("folders_below_home_are_for_users_only", "/home/{local}/Maildir") else { return };
    send(&world, "ann@local.test");
    world.wait_empty();
    assert_eq!(new_files(&world, "homes/ann/Maildir").len(), 1);
    send(&world, "typo@local.test");
    world.wait_empty();
    assert_eq!(new_files(&world, "homes/ann/Maildir").len(), 2, "the report");
    assert!(!world.path("homes/typo").exists());
}
