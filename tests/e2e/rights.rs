//! Other users of the machine may send, and have to do with their own messages only. Skipped where nobody can become another user.

use std::fs::{Permissions, set_permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Output, Stdio};

use crate::sink::Sink;
use crate::tools::{bad, good, relay, send};
use crate::world::World;

const SOMEBODY: u32 = 65_533;
const MAIL: &[u8] = b"Subject: hello\n\nbody\n";

/// A world that others can reach; `None` and a word on standard error if there are no others.
fn open(config: &str) -> Option<World> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return None;
    }
    let world = World::new(config);
    set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
    // A copy: the folder that the program was built in may be closed to others.
    for name in ["sendmail", "spoolctl"] {
        std::fs::copy(env!("CARGO_BIN_EXE_spoolctl"), world.path(name)).unwrap();
    }
    Some(world)
}

fn as_somebody(world: &World, name: &str, arguments: &[&str]) -> Output {
    let mut command = world.command(world.path(name));
    command.args(arguments).uid(SOMEBODY).gid(SOMEBODY);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A client that refuses early does not read to the end.
    let _ = child.stdin.take().unwrap().write_all(MAIL);
    child.wait_with_output().unwrap()
}

#[test]
fn another_user_sends_and_sees_only_its_own() {
    let sink = Sink::start();
    let Some(mut world) = open(&relay("relay", sink.port, "x.test")) else { return };
    world.start();
    good(&world.spoolctl(&["provider", "pause", "relay"]));
    send(&world, "root@b.test", "one@x.test");
    good(&as_somebody(&world, "sendmail", &["-f", "me@b.test", "two@x.test"]));
    let own = good(&as_somebody(&world, "spoolctl", &["queue", "list", "--json"]));
    assert!(own.lines().count() == 1 && own.contains("two@x.test"), "{own}");
    assert_eq!(good(&world.spoolctl(&["queue", "list", "--json"])).lines().count(), 2);
    for (arguments, code) in [
        (&["queue", "cat", "1"][..], 65),
        (&["queue", "hold", "2"], 77),
        (&["provider", "resume", "relay"], 77),
        (&["flush"], 77),
    ] {
        let (found, text) = bad(&as_somebody(&world, "spoolctl", arguments));
        assert_eq!(found, code, "{arguments:?}: {text}");
    }
    assert_eq!(good(&as_somebody(&world, "spoolctl", &["queue", "delete", "--all"])), "1 message deleted: 2\n");
    good(&world.spoolctl(&["provider", "resume", "relay"]));
    assert_eq!(sink.wait(1)[0].to, ["one@x.test"]);
    world.wait_empty();
}

#[test]
fn another_user_sends_while_the_spooler_is_away() {
    let sink = Sink::start();
    let Some(mut world) = open(&relay("relay", sink.port, "x.test")) else { return };
    world.start();
    world.stop();
    let said = good(&as_somebody(&world, "sendmail", &["-v", "-f", "me@b.test", "two@x.test"]));
    assert!(said.contains("left in"), "{said}");
    world.start();
    assert_eq!(sink.wait(1)[0].to, ["two@x.test"]);
    world.wait_empty();
}

#[test]
fn where_not_everybody_may_send_others_find_no_way_in() {
    let sink = Sink::start();
    let Some(mut world) = open(&relay("relay", sink.port, "x.test")) else { return };
    let config = std::fs::read_to_string(world.path("spooler.toml")).unwrap();
    let closed = config.replace("[control]\n", "[control]\nanyone_may_submit = false\n");
    std::fs::write(world.path("spooler.toml"), closed).unwrap();
    world.start();
    let (code, text) = bad(&as_somebody(&world, "sendmail", &["two@x.test"]));
    assert!(code == 77 && text.contains("submit group"), "{code} {text}");
    world.stop();
    // Nobody is there to say so.
    good(&as_somebody(&world, "sendmail", &["-f", "me@b.test", "two@x.test"]));
    good(&world.client("sendmail", &["-f", "root@b.test", "three@x.test"], MAIL));
    world.start();
    assert_eq!(sink.wait(1)[0].to, ["three@x.test"]);
    world.wait_empty();
    assert_eq!(std::fs::read_dir(world.path("spool/pickup/bad")).unwrap().count(), 1);
    let expected = format!("User {SOMEBODY} may not use this spooler");
    assert!(world.log().contains(&expected), "{}", world.log());
    assert_eq!(sink.arrived().len(), 1);
}
