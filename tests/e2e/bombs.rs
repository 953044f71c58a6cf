//! Messages that are too large, too deep, or for too many: taken or refused with a clear reply, in bounded memory, while others are
//! served.
//!
//! `SPOOLER_GIANT` is the size of the giant, bytes: 1073741824 is the full figure, the checks are content with less.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

use crate::floods::check_memory;
use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: hello\r\n\r\nbody\r\n";
const MIB: usize = 1 << 20;

fn config(max: &str, rest: &str) -> String {
    format!(
        "{IN}max_message_size = \"{max}\"\n\
         [provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{{dir}}/mail/local\"\n{rest}"
    )
}

fn transaction(client: &mut smtp::Client, to: &str) {
    for line in ["MAIL FROM:<a@local.test>", &format!("RCPT TO:<{to}>")] {
        let reply = client.command(line).unwrap();
        assert!(reply.starts_with("250"), "{line}: {reply}");
    }
    assert!(client.command("DATA").unwrap().starts_with("354"));
}

fn files(world: &World) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(world.path("mail/local/new")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn a_giant_is_streamed_and_others_are_served_meanwhile() {
    let size: usize = std::env::var("SPOOLER_GIANT").map_or(96 * MIB, |text| text.parse().unwrap());
    let mut world = World::new(&config("2G", ""));
    let text = fs::read_to_string(world.path("spooler.toml")).unwrap();
    let text = text.replace("[spool]\n", "[spool]\nmax_message_size = \"2G\"\n");
    fs::write(world.path("spooler.toml"), text).unwrap();
    world.start();
    let port = world.port("submission");
    let mut giant = smtp::Client::connect(port).unwrap();
    transaction(&mut giant, "giant@local.test");
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let piece = line.repeat(MIB / line.len());
    let mut sent = 0;
    while sent < size {
        giant.write(&piece).unwrap();
        sent += piece.len();
        if sent % (size / 4) < piece.len() {
            smtp::send(port, "a@b.test", &["small@local.test"], MAIL);
        }
    }
    let reply = giant.command(".").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    world.wait_empty();
    let largest = files(&world).into_iter().map(|path| fs::metadata(path).unwrap().len()).max().unwrap();
    let lines = (sent / line.len()) as u64;
    // In a maildir, lines end with LF; the header is a few lines more.
    let expected = lines * (line.len() as u64 - 1);
    assert!((expected..expected + 2000).contains(&largest), "{largest} of {expected} bytes");
    println!("{} MiB in one message", sent / MIB);
    check_memory(&world, &["submission", "local"]);
}

#[test]
fn what_is_larger_than_allowed_is_refused_as_early_as_it_can_be() {
    let world = World::running(&config("1M", ""));
    let port = world.port("submission");
    let mut client = smtp::Client::connect(port).unwrap();
    let reply = client.command("MAIL FROM:<a@b.test> SIZE=1073741824").unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    // One that does not say so beforehand is read to its end, so that it can be told …
    transaction(&mut client, "x@local.test");
    let piece = [&[b'x'; 76][..], b"\r\n"].concat().repeat(MIB / 78);
    for _ in 0..3 {
        client.write(&piece).unwrap();
    }
    let reply = client.command(".").unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    // … but not for ever.
    transaction(&mut client, "x@local.test");
    let pieces = (0..200).take_while(|_| client.write(&piece).is_some()).count();
    let reply = client.reply();
    println!("hung up on after {pieces} MiB: {reply:?}");
    assert!(pieces < 200 && reply.is_none_or(|reply| reply.starts_with("552 5.3.4")));
    smtp::send(port, "a@b.test", &["x@local.test"], MAIL);
    world.wait_empty();
    check_memory(&world, &["submission"]);
}

#[test]
fn a_hundred_thousand_recipients_are_too_many_and_the_first_thousand_get_it() {
    const RECIPIENTS: usize = 100_000;
    let world = World::running(&config("1M", ""));
    let port = world.port("submission");
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        (reader.read_line(&mut line).unwrap() > 0).then_some(line)
    });
    assert!(lines.next().unwrap().starts_with("220"));
    (&stream).write_all(b"EHLO x\r\n").unwrap();
    assert!(lines.find(|line| line.starts_with("250 ")).is_some());
    let replies = std::thread::scope(|scope| {
        let mut stream = &stream;
        scope.spawn(move || {
            stream.write_all(b"MAIL FROM:<a@b.test>\r\n").unwrap();
            for number in 0..RECIPIENTS {
                stream.write_all(format!("RCPT TO:<u{number}@local.test>\r\n").as_bytes()).unwrap();
            }
        });
        lines.by_ref().take(RECIPIENTS + 1).collect::<Vec<String>>()
    });
    let count = |code: &str| replies.iter().filter(|reply| reply.starts_with(code)).count();
    println!("{} recipients taken, {} refused", count("250 2.1.5"), count("452 4.5.3"));
    assert_eq!((count("250 2.1.5"), count("452 4.5.3")), (1000, RECIPIENTS - 1000));
    (&stream).write_all(b"DATA\r\n").unwrap();
    assert!(lines.next().unwrap().starts_with("354"));
    (&stream).write_all(b"Subject: x\r\n\r\nx\r\n.\r\n").unwrap();
    assert!(lines.next().unwrap().starts_with("250"));
    world.wait_empty();
    assert_eq!(files(&world).len(), 1000);

    for (recipients, status) in [(RECIPIENTS, 413), (1001, 400)] {
        let envelope = serde_json::json!({ "envelope": { "sender": "a@b.test", "recipients":
            (0..recipients).map(|number| serde_json::json!({ "address": format!("u{number}@local.test") })).collect::<Vec<_>>() } });
        let body = format!("{envelope}\nSubject: x\n\nx\n");
        let (found, text) = world.control().post("/v1/messages", body.as_bytes()).unwrap();
        assert_eq!(found, status, "{text}");
    }
    check_memory(&world, &["submission", "local"]);
}

/// Messages that are hard on whoever looks into them.
/// A bomb behind the fields that would be added.
fn complete(bomb: &str) -> String {
    format!("From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\n{bomb}")
}

fn bombs() -> Vec<(&'static str, String)> {
    let mut nested = String::from("MIME-Version: 1.0\r\n");
    for depth in 0..10_000 {
        nested += &format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n");
    }
    vec![
        ("nested", nested + "\r\nthe core\r\n"),
        ("lines", "X-Bomb: a line of a header that has many of them\r\n".repeat(100_000) + "\r\nbody\r\n"),
        ("line", format!("X-Bomb: {}\r\n\r\nbody\r\n", "x".repeat(10 * MIB))),
        ("folded", format!("X-Bomb: x\r\n{}\r\nbody\r\n", "\tand on\r\n".repeat(500_000))),
        ("colons", format!("{}\r\n\r\nbody\r\n", ":".repeat(MIB))),
        ("addresses", format!("To: {}\r\n\r\nbody\r\n", "<a@b>, ".repeat(100_000))),
    ]
}

#[test]
fn header_bombs_and_nested_parts_go_through_as_they_are_and_bounce_in_bounded_memory() {
    let sink = Sink::scripted(|line| line.starts_with("RCPT").then(|| "550 5.1.1 nobody here".to_owned()));
    let world = World::running(&config("50M", &relay(sink.port)));
    let port = world.port("submission");
    let bombs = bombs();
    for (name, bomb) in &bombs {
        let bomb = complete(bomb);
        for to in ["x@local.test", "x@remote.test"] {
            // The report about the one that the relay refuses comes back here.
            smtp::send(port, "a@local.test", &[to], bomb.as_bytes());
            smtp::send(port, "a@local.test", &["small@local.test"], MAIL);
        }
        println!("{name}: {} KiB", bomb.len() >> 10);
    }
    world.wait_empty();
    let found: Vec<Vec<u8>> = files(&world).iter().map(|path| fs::read(path).unwrap()).collect();
    for (name, bomb) in &bombs {
        let end = bomb.replace("\r\n", "\n");
        assert!(found.iter().any(|content| content.ends_with(end.as_bytes())), "{name} came as it was");
    }
    let reports = found
        .iter()
        .filter(|content| content.windows(20).take(4096).any(|words| words == b"Mail Delivery System"))
        .count();
    assert_eq!(reports, bombs.len(), "each that was refused is reported");
    check_memory(&world, &["submission", "local", "relay"]);

    let mut client = smtp::Client::connect(port).unwrap();
    let hops = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n".repeat(10_000) + "\r\nx\r\n";
    let reply = client.send("a@b.test", &["x@local.test"], hops.as_bytes()).unwrap();
    assert!(reply.starts_with("554 5.4.6") || reply.starts_with("550 5.4.6"), "{reply}");
    let refused = world.client("sendmail", &["-i", "-f", "a@b.test", "x@local.test"], hops.as_bytes());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("goes round in circles"), "{refused:?}");
}

#[test]
fn a_flood_of_the_pickup_folder_is_worked_off_and_rubbish_is_set_aside() {
    let count: usize = std::env::var("SPOOLER_FLOOD").map_or(2000, |text| text.parse().unwrap());
    let mut world = World::new(&config("1M", ""));
    let pickup = world.path("spool/pickup");
    world.start();
    world.stop();
    let file =
        b"{\"envelope\":{\"sender\":\"a@b.test\",\"recipients\":[{\"address\":\"x@local.test\"}]}}\nSubject: x\n\nx\n";
    for number in 0..count {
        fs::write(pickup.join(format!("good{number}")), file).unwrap();
    }
    let rubbish = ["garbage", "endless", "sparse", "link", "pipe", "circles"];
    let hops = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\n".repeat(10_000);
    let envelope = file.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    fs::write(pickup.join("circles"), [envelope, hops.as_bytes(), b"\nx\n"].concat()).unwrap();
    fs::write(pickup.join("garbage"), b"\0\xff{{{\n").unwrap();
    fs::write(pickup.join("endless"), vec![b'{'; 4 * MIB]).unwrap();
    fs::File::create(pickup.join("sparse")).unwrap().set_len(10 << 30).unwrap();
    symlink("/etc/passwd", pickup.join("link")).unwrap();
    nix::unistd::mkfifo(&pickup.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.start();
    smtp::send(world.port("submission"), "a@b.test", &["x@local.test"], MAIL);
    world.wait_for("all that is good", |world| (files(world).len() == count + 1).then_some(()));
    world.wait_for("the folder to be empty", |_| {
        let left = fs::read_dir(&pickup).unwrap().flatten().filter(|entry| entry.file_name() != "bad").count();
        (left == 0).then_some(())
    });
    for name in rubbish {
        assert!(pickup.join("bad").join(name).symlink_metadata().is_ok(), "{name} is set aside");
    }
    check_memory(&world, &["submission", "local"]);
}

#[test]
fn a_head_without_end_on_the_control_socket_is_refused() {
    let world = World::running(&config("1M", ""));
    let mut stream = UnixStream::connect(world.path("control.sock")).unwrap();
    let line = format!("X-Bomb: {}\r\n", "x".repeat(1000));
    stream.write_all(b"GET /v1/status HTTP/1.1\r\n").unwrap();
    let lines = (0..100_000).take_while(|_| stream.write_all(line.as_bytes()).is_ok()).count();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    println!("after {lines} lines: {answer:?}");
    assert!(lines < 100_000, "it is not read for ever");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(world.status().is_some());
    check_memory(&world, &[]);
}
