//! Scenarios of preprocessors and hooks: they behave the same around every provider.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spooler_protocol::ids::DeliveryId;
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::ToWorker;
use tempfile::TempDir;

use crate::peer::{Peer, shown};
use crate::smtp_in::client::{Client, serving, while_serving, without_trace};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// A filter that runs a script of `/bin/sh`; `$DIR` is the folder of the test.
fn filter(kind: &str, dir: &TempDir, script: &str, more: &str) -> String {
    let script = script.replace("$DIR", dir.path().to_str().unwrap());
    format!(
        "[[{kind}]]\ncommand = ['/bin/sh', '-c', '''{script}''']\n{}\n",
        more.replace("$DIR", dir.path().to_str().unwrap())
    )
}

/// A preprocessor that is undone by a script, too.
fn undone(dir: &TempDir, script: &str, undo: &str) -> String {
    filter("preprocess", dir, script, &format!("undo = ['/bin/sh', '-c', '''{undo}''']"))
}

/// A provider that writes what it delivers to `delivered`, or does something else instead.
fn worker(dir: &TempDir, script: &str, filters: &str) -> Peer {
    let script = script.replace("$DIR", dir.path().to_str().unwrap());
    let head = "line_ends = 'crlf'\nreturn_path = false\ndelivered_to = false";
    Peer::logged_on("pipe", &format!("{head}\ncommand = '''{script}'''\nshell = true\n{filters}")).0
}

const DELIVER: &str = "cat >$DIR/delivered; echo delivered >>$DIR/order";

fn read(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap_or_default()
}

fn deliver(peer: &mut Peer) -> Outcome {
    let (result, mut outcomes) = peer.deliver("s@example.org", &["bob@d.test"], MESSAGE);
    assert_eq!(result, SubmitResult::Done);
    outcomes.remove(&0).unwrap()
}

#[test]
fn preprocessors_run_in_order_and_are_undone_in_reverse() {
    let dir = TempDir::new().unwrap();
    let first = undone(
        &dir,
        "echo one >>$DIR/order; echo \"X-One: $SENDER to $RECIPIENT\"; cat; touch $FOLDER/artifact; echo $FOLDER >$DIR/folder; stat -c %a $FOLDER >$DIR/mode",
        "echo undo one >>$DIR/order; ls $FOLDER >>$DIR/order",
    );
    let second = undone(&dir, "echo two >>$DIR/order; echo X-Two: 2; cat", "echo undo two >>$DIR/order; exit 1");
    let third = filter("preprocess", &dir, "echo three >>$DIR/order", "for = ['@d.test']");
    let other = filter("preprocess", &dir, "echo other >>$DIR/order", "for = ['@other.test']");
    let hooks = filter("outbound_hook", &dir, "echo hook $RECIPIENT >>$DIR/order; cat >$DIR/kept", "");
    let mut peer = worker(&dir, DELIVER, &[first, second, third, other, hooks].concat());
    assert!(shown(&deliver(&mut peer)).starts_with("delivered"));
    let wanted = "X-Two: 2\r\nX-One: s@example.org to bob@d.test\r\nSubject: hello\r\n\r\nbody\r\n";
    assert_eq!(read(&dir, "delivered"), wanted);
    let order = "one\ntwo\nthree\ndelivered\nundo two\nundo one\nartifact\nhook bob@d.test\n";
    assert_eq!(read(&dir, "order"), order);
    assert_eq!(read(&dir, "kept"), wanted.replace('\r', ""), "a hook sees what was sent");
    assert_eq!(read(&dir, "mode"), "700\n");
    assert!(!Path::new(read(&dir, "folder").trim()).exists(), "nothing is left behind");
    peer.log_off();
}

#[test]
fn a_large_message_goes_through_a_filter_whole() {
    let dir = TempDir::new().unwrap();
    let mut peer = worker(&dir, DELIVER, &filter("preprocess", &dir, "cat", ""));
    let content: Vec<u8> = (0..40_000).flat_map(|line| format!("line {line} of many\r\n").into_bytes()).collect();
    let (result, outcomes) = peer.deliver("s@example.org", &["bob@d.test"], &content);
    assert_eq!(result, SubmitResult::Done);
    assert!(matches!(outcomes[&0], Outcome::Delivered(_)));
    assert!(fs::read(dir.path().join("delivered")).unwrap() == content);
    peer.log_off();
}

#[test]
fn a_veto_fails_the_recipients_and_a_failure_defers_them() {
    for (exit, wanted) in [
        ("echo not this >&2; exit 77", "failed 5.7.1 not this"),
        ("echo first >&2; echo last >&2; exit 100", "failed 5.7.1 last"),
        ("echo later >&2; exit 75", "deferred 4.3.0 later"),
        ("exit 3", "deferred 4.3.0 /bin/sh ended with exit code 3"),
        ("kill -9 $$", "deferred 4.3.0 /bin/sh was killed by signal 9"),
    ] {
        let dir = TempDir::new().unwrap();
        let filters = undone(&dir, &format!("echo half; {exit}"), "echo undone >>$DIR/order")
            + &filter("preprocess", &dir, "echo never >>$DIR/order", "")
            + &filter("outbound_hook", &dir, "echo hook >>$DIR/order", "");
        let mut peer = worker(&dir, DELIVER, &filters);
        assert_eq!(shown(&deliver(&mut peer)), wanted);
        assert_eq!(read(&dir, "order"), "undone\n", "{exit}: what began is undone, and nothing else runs");
        peer.log_off();
    }
}

#[test]
fn a_filter_that_takes_too_long_is_stopped_with_its_children() {
    let dir = TempDir::new().unwrap();
    let more = "timeout = '200ms'\nundo = ['/bin/sh', '-c', 'echo undone >>$DIR/order']";
    let mut peer = worker(&dir, DELIVER, &filter("preprocess", &dir, "sleep 1000 & echo $! >$DIR/child; wait", more));
    assert_eq!(shown(&deliver(&mut peer)), "deferred 4.3.0 /bin/sh still ran after 200ms and was stopped");
    assert_eq!(read(&dir, "order"), "undone\n");
    let stat = format!("/proc/{}/stat", read(&dir, "child").trim());
    let dead = fs::read_to_string(stat).map_or(true, |text| text.contains(") Z "));
    assert!(dead, "its child lives on");
    peer.log_off();
}

#[test]
fn a_cancelled_delivery_is_undone_and_does_not_reach_the_provider() {
    let dir = TempDir::new().unwrap();
    // The filter says that it runs, and never ends.
    let pipe = dir.path().join("runs");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let filters = undone(&dir, "echo >$DIR/runs; exec sleep 1000", "echo undone >>$DIR/order");
    let mut peer = worker(&dir, DELIVER, &filters);
    peer.grant(u32::MAX);
    peer.submit(7, "s@example.org", &["bob@d.test"], MESSAGE);
    fs::read_to_string(pipe).unwrap();
    peer.say(&ToWorker::Notify(Notification::CancelMessage(DeliveryId(7))));
    let (result, outcomes) = peer.finished(7);
    assert_eq!((result, outcomes.len()), (SubmitResult::Cancelled, 0));
    assert_eq!(read(&dir, "order"), "undone\n");
    peer.log_off();
}

#[test]
fn undoing_and_hooks_follow_a_provider_that_fails() {
    let dir = TempDir::new().unwrap();
    let filters =
        undone(&dir, "cat", "echo undone >>$DIR/order") + &filter("outbound_hook", &dir, "echo hook >>$DIR/order", "");
    let mut peer = worker(&dir, "exit 75", &filters);
    assert!(shown(&deliver(&mut peer)).starts_with("deferred"));
    assert_eq!(read(&dir, "order"), "undone\n", "nobody was served, so no hook runs");
    peer.log_off();
}

/// What a sender is answered, and what came in.
fn receive(hooks: &str, wanted: usize) -> (String, Option<(Vec<String>, String)>) {
    let (mut peer, address) = serving(hooks);
    let answer = while_serving(&mut peer, wanted, move || {
        let mut client = Client::greeted(address);
        client.expect(&[("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<c@d.test>", "250"), ("DATA", "354")]);
        client.send("Subject: t\r\n\r\nbody\r\n.\r\n");
        client.reply()
    });
    let received = peer.received.pop().map(|message| {
        let to = message.envelope.recipients.iter().map(|recipient| recipient.address.to_string()).collect();
        let (_, content) = without_trace(&message.content);
        (to, String::from_utf8_lossy(content).into_owned())
    });
    (answer, received)
}

#[test]
fn inbound_hooks_run_in_order_until_one_is_final() {
    let dir = TempDir::new().unwrap();
    let hooks = filter("inbound_hook", &dir, "echo one >>$DIR/order; cat >$DIR/seen", "")
        + &filter(
            "inbound_hook",
            &dir,
            r#"echo two >>$DIR/order; echo "{\"recipients\":[\"x@y.test\",\"c@d.test\"]}""#,
            "",
        )
        + &filter(
            "inbound_hook",
            &dir,
            r#"echo three $RECIPIENT >>$DIR/order; echo "{\"final\":true}""#,
            "for = ['@y.test']",
        )
        + &filter("inbound_hook", &dir, "echo four >>$DIR/order; exit 77", "");
    let (answer, received) = receive(&hooks, 1);
    assert!(answer.starts_with("250 2.0.0 Queued as 1"), "{answer}");
    let (to, content) = received.unwrap();
    assert_eq!(to, ["x@y.test", "c@d.test"]);
    assert_eq!(content, "Subject: t\r\n\r\nbody\r\n");
    assert!(read(&dir, "seen").ends_with("Subject: t\n\nbody\n"));
    assert_eq!(read(&dir, "order"), "one\ntwo\nthree x@y.test c@d.test\n");
}

#[test]
fn an_inbound_hook_puts_another_content_in_its_place() {
    let dir = TempDir::new().unwrap();
    let script = r#"{ sed -n "/^Received/,/^	[A-Z]/p" >/dev/null; printf "Subject: other\n\nnew\n" >$FOLDER/new; echo "{\"content\":\"new\"}"; }"#;
    let hooks = filter("inbound_hook", &dir, script, "");
    let (mut peer, address) = serving(&hooks);
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        client.expect(&[("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<c@d.test>", "250"), ("DATA", "354")]);
        client.send("Subject: t\r\n\r\nbody\r\n.\r\n");
        assert!(client.reply().starts_with("250"));
    });
    assert_eq!(peer.received[0].content, b"Subject: other\r\n\r\nnew\r\n");
}

#[test]
fn an_inbound_hook_discards_or_refuses() {
    let dir = TempDir::new().unwrap();
    let odd = "451 4.3.0 A filter of this host failed";
    for (script, wanted) in [
        (r#"echo "{\"action\":\"discard\"}""#, "250 2.0.0"),
        (r#"echo "{\"action\":\"refuse\",\"reason\":\"no thanks\"}""#, "554 5.7.1 no thanks"),
        (r#"echo "{\"action\":\"refuse-temporarily\"}""#, "451 4.7.1"),
        ("echo spam >&2; exit 77", "554 5.7.1 spam"),
        ("exit 75", odd),
        ("echo not json", odd),
        (r#"echo "{\"content\":\"../../etc/passwd\"}""#, odd),
        (r#"echo "{\"recipients\":[]}""#, odd),
        (r#"echo "{\"recipients\":[\"\"]}""#, odd),
    ] {
        let (answer, received) = receive(&filter("inbound_hook", &dir, script, ""), 0);
        assert!(answer.starts_with(wanted), "{script}: {answer}");
        assert!(received.is_none(), "{script}: nothing comes into the queue");
    }
}

#[test]
fn a_filter_that_is_no_program_is_a_temporary_matter() {
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("program");
    fs::write(&program, "x").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o600)).unwrap();
    let mut peer = worker(&dir, DELIVER, &format!("[[preprocess]]\ncommand = [{program:?}]\n"));
    assert!(shown(&deliver(&mut peer)).starts_with("deferred 4.3.0"));
    peer.log_off();
}
