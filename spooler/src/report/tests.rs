use std::io::Write;
use std::process::{Command, Stdio};

use spooler_protocol::outcome::Cause;

use super::*;

const HEADER: &[u8] = b"From: ada@example.org\r\nSubject: hello\r\nMessage-ID: <1@example.org>\r\n";

fn recipient(address: &str, text: &str) -> ReportedRecipient {
    ReportedRecipient {
        address: address.parse().unwrap(),
        orcpt: Some("rfc822;Bob+2Bx@example.net".to_owned()),
        action: Action::Failed,
        reply: Reply {
            cause: Cause::Remote,
            code: 550,
            enhanced: "5.1.1".to_owned(),
            text: text.to_owned(),
            remote: "mx.example.net".to_owned(),
            hop: None,
        },
        attempts: 3,
        last_attempt_ms: Some(1_793_000_000_000),
    }
}

fn failed() -> ReportInput {
    ReportInput {
        hostname: "spooler.example".to_owned(),
        sender: "ada@example.org".to_owned(),
        envid: Some("QQ+2B314159".to_owned()),
        ret: None,
        message: MessageId(42),
        submitted_ms: 1_792_900_000_000,
        now_ms: 1_793_000_001_000,
        kind: ReportKind::Failed,
        recipients: vec![recipient("bob@example.net", "no such user\nask the postmaster")],
        header: Bytes::from_static(HEADER),
        body: Some(Bytes::from_static(b"the body\r\n")),
        original_smtputf8: false,
    }
}

/// What must be true of every report, whatever went into it.
fn checked(input: &ReportInput) -> String {
    let report = build(input);
    assert!(report.ends_with(b"--\r\n"));
    assert!(!report.contains(&0));
    let mut lines: Vec<&[u8]> = report.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]));
    for line in lines {
        assert!(line.ends_with(b"\r") && line.len() <= 999, "{}", String::from_utf8_lossy(line));
        assert!(!line[..line.len() - 1].contains(&b'\r'), "{}", String::from_utf8_lossy(line));
    }
    String::from_utf8_lossy(&report).into_owned()
}

/// The report as Python's email package sees it, or nothing without Python.
fn python(test: &str, report: &[u8]) -> Option<String> {
    let script = "
import email, email.policy, sys
m = email.message_from_bytes(sys.stdin.buffer.read())
print([d for p in m.walk() for d in p.defects])
print(m.get_content_type(), m.get_param('report-type'), m['To'], m['Auto-Submitted'])
a, b, c = m.get_payload()
print(a.get_content_type(), b.get_content_type(), c.get_content_type())
blocks = b.get_payload()
print(len(blocks), sorted(blocks[0].keys()))
for block in blocks[1:]:
    print({k: ' '.join(v.split()) for k, v in block.items()})
inner = c.get_payload()[0] if c.is_multipart() else email.message_from_bytes(c.get_payload(decode=True))
print(ascii(inner['Subject']), repr(inner.get_payload())[:60])
";
    let child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env("PYTHONIOENCODING", "utf-8")
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: {test} needs python3");
        return None;
    };
    child.stdin.take().unwrap().write_all(report).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_failure_says_everything_that_programs_want_to_know() {
    let report = checked(&failed());
    for line in [
        "From: Mail Delivery System <MAILER-DAEMON@spooler.example>",
        "To: <ada@example.org>",
        "Date: Mon, 26 Oct 2026 07:33:21 +0000",
        "Message-ID: <report.42.1793000001000@spooler.example>",
        "In-Reply-To: <1@example.org>",
        "Auto-Submitted: auto-replied",
        "Reporting-MTA: dns; spooler.example",
        "Original-Envelope-Id: QQ+314159",
        "Original-Recipient: rfc822; Bob+x@example.net",
        "Final-Recipient: rfc822; bob@example.net",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.example.net",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user",
        " ask the postmaster",
        "Last-Attempt-Date: Mon, 26 Oct 2026 07:33:20 +0000",
        "<bob@example.net>: failed after 3 attempts.",
        "        550 5.1.1 no such user",
        "the body",
    ] {
        assert!(report.lines().any(|found| found == line), "{line:?} in\n{report}");
    }
    assert!(report.is_ascii() && !report.contains("Will-Retry-Until"));
}

#[test]
fn python_takes_a_failure_apart() {
    let Some(seen) = python("python_takes_a_failure_apart", &build(&failed())) else { return };
    let wanted = "[]
multipart/report delivery-status <ada@example.org> auto-replied
text/plain message/delivery-status message/rfc822
2 ['Arrival-Date', 'Original-Envelope-Id', 'Reporting-MTA']
{'Original-Recipient': 'rfc822; Bob+x@example.net', 'Final-Recipient': 'rfc822; bob@example.net', 'Action': 'failed', \
'Status': '5.1.1', 'Remote-MTA': 'dns; mx.example.net', 'Diagnostic-Code': 'smtp; 550 5.1.1 no such user ask the postmaster', \
'Last-Attempt-Date': 'Mon, 26 Oct 2026 07:33:20 +0000'}
'hello' 'the body\\r\\n'
";
    assert_eq!(seen, wanted);
}

/// Everything that can be hostile is.
fn hostile() -> ReportInput {
    let evil = "x\r\n\r\n--=_report_42_1793000001000_0--\r\nInjected: yes\0\n\n--=_report_42_1793000001000_1\u{e9}\r";
    let mut input = failed();
    input.hostname = "host\r\nInjected: yes".to_owned();
    input.sender = "ada\r\nInjected: yes@example.org".to_owned();
    input.envid = Some("A+0D+0AInjected:+20yes+00".to_owned());
    let mut one = recipient("b\u{f6}b@example.net", evil);
    one.orcpt = Some("rfc822;a+0D+0A+0D+0AInjected:+20yes".to_owned());
    one.reply.enhanced = "5.1.1\r\nInjected: yes".to_owned();
    one.reply.remote = "mx\r\nInjected: yes".to_owned();
    let mut two = one.clone();
    two.reply.text = format!("{} \n \n\t\n{}", "long ".repeat(2000), "x".repeat(5000));
    input.recipients = vec![one, two];
    let header = [b"Subject: gr\xfc\xdfe\r\nX: ".as_slice(), &[b'h'; 4000], evil.as_bytes(), b"\n"].concat();
    input.header = Bytes::from(header);
    input.body = Some(Bytes::from([evil.as_bytes(), b"\xff\r.\r", &[b'b'; 2500]].concat()));
    input
}

#[test]
fn nothing_hostile_breaks_out_of_its_place() {
    for body in [true, false] {
        let mut input = hostile();
        if !body {
            input.body = None;
        }
        let report = checked(&input);
        let (head, _) = report.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Injected")), "{head}");
        assert!(head.contains("boundary=\"=_report_42_1793000001000_2\""), "{head}");
        let (_, status) = report.split_once("Content-Type: message/delivery-status\r\n").unwrap();
        let (status, _) = status.split_once("\r\n--=_report_42_1793000001000_2\r\n").unwrap();
        assert!(status.is_ascii() && !status.lines().any(|line| line.starts_with("Injected")), "{status}");
        assert_eq!(status.split("\r\n\r\n").filter(|block| !block.trim().is_empty()).count(), 4, "{status}");
        assert_eq!(report.is_ascii(), !body, "8-bit only where the body is");
        let Some(seen) = python("nothing_hostile_breaks_out_of_its_place", &build(&input)) else { continue };
        let lines: Vec<&str> = seen.lines().collect();
        let third = if body { "message/rfc822" } else { "text/rfc822-headers" };
        assert!(lines[2].ends_with(third) && lines[3].starts_with("3 ["), "{seen}");
        assert!(lines[4].contains("'Final-Recipient': 'utf-8; b\\\\x{F6}b@example.net'"), "{seen}");
        assert!(!seen.contains("'Injected':"), "{seen}");
    }
}

#[test]
fn how_much_goes_back_follows_the_sender_and_the_kind() {
    let kind = |change: fn(&mut ReportInput)| {
        let mut input = failed();
        change(&mut input);
        let report = checked(&input);
        (report.contains("message/rfc822"), report.contains("text/rfc822-headers"), report.contains("the body"))
    };
    assert_eq!(kind(|_| ()), (true, false, true));
    assert_eq!(kind(|input| input.ret = Some(Ret::Full)), (true, false, true));
    assert_eq!(kind(|input| input.ret = Some(Ret::Headers)), (false, true, false));
    assert_eq!(kind(|input| input.body = None), (false, true, false));
    assert_eq!(kind(|input| input.kind = ReportKind::Delivered), (false, true, false));
    assert_eq!(kind(|input| input.kind = ReportKind::Delayed { max_age_ms: 0 }), (false, true, false));
}

#[test]
fn a_delay_says_until_when_and_what_not_to_do() {
    let mut input = failed();
    input.kind = ReportKind::Delayed { max_age_ms: 1_793_432_000_000 };
    input.recipients[0].action = Action::Delayed;
    input.recipients[0].reply =
        Reply { cause: Cause::Connect, code: 0, enhanced: String::new(), ..input.recipients[0].reply.clone() };
    let report = checked(&input);
    for text in [
        "Action: delayed\r\nStatus: 4.4.1\r\n",
        "Will-Retry-Until: Sat, 31 Oct 2026 07:33:20 +0000\r\n",
        "Diagnostic-Code: x-spooler; no such user\r\n",
        "You need not send it again",
        "mx.example.net could not be reached:",
    ] {
        assert!(report.contains(text), "{text:?} in\n{report}");
    }
}

#[test]
fn a_report_about_utf8_speaks_utf8() {
    let mut input = failed();
    input.original_smtputf8 = true;
    input.sender = "j\u{f6}rg@b\u{fc}cher.example".to_owned();
    input.recipients = vec![recipient("\u{7528}\u{6237}@\u{4f8b}.example", "kein Postfach f\u{fc}r Sie")];
    input.ret = Some(Ret::Headers);
    input.header = Bytes::from_static("Subject: gr\u{fc}n\r\n".as_bytes());
    let report = checked(&input);
    for text in [
        "To: <j\u{f6}rg@b\u{fc}cher.example>\r\n",
        "Content-Type: message/global-delivery-status\r\n",
        "Content-Type: message/global-headers\r\n",
        "Final-Recipient: utf-8; \u{7528}\u{6237}@\u{4f8b}.example\r\n",
        "f\u{fc}r Sie\r\n",
    ] {
        assert!(report.contains(text), "{text:?} in\n{report}");
    }
}

#[test]
fn report_to_ascii_address_is_ascii() {
    let mut input = failed();
    input.original_smtputf8 = true;
    input.recipients = vec![recipient("j\u{f6}rg\\x@ex\u{e4}mple.example", "kein Postfach f\u{fc}r Sie")];
    input.header = Bytes::from_static("Subject: gr\u{fc}n\r\n".as_bytes());
    let report = checked(&input);
    assert!(report.is_ascii() && !report.contains("global"), "{report}");
    for text in [
        "Content-Type: message/delivery-status\r\n",
        "Final-Recipient: utf-8; j\\x{F6}rg\\x{5C}x@ex\\x{E4}mple.example\r\n",
        "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSubject: gr=C3=BCn\r\n",
        "f\\x{FC}r Sie\r\n",
    ] {
        assert!(report.contains(text), "{text:?} in\n{report}");
    }
    // A message whose header is ASCII goes back as a whole, though its recipient was not.
    input.header = Bytes::from_static(HEADER);
    let report = checked(&input);
    assert!(report.contains("Content-Type: message/rfc822\r\n") && report.contains("the body\r\n"), "{report}");
}

#[test]
fn who_wants_which_report() {
    let delayed = ReportKind::Delayed { max_age_ms: 0 };
    let only = |text: &str| Some(text.parse::<Notify>().unwrap());
    for (kind, notify, by_default, expected) in [
        (ReportKind::Failed, None, false, true),
        (ReportKind::Failed, only("NEVER"), true, false),
        (ReportKind::Failed, only("SUCCESS,DELAY"), true, false),
        (ReportKind::Failed, only("FAILURE"), false, true),
        (delayed, None, true, true),
        (delayed, None, false, false),
        (delayed, only("DELAY"), false, true),
        (delayed, only("FAILURE"), true, false),
        (ReportKind::Delivered, None, true, false),
        (ReportKind::Delivered, only("SUCCESS"), false, true),
        (ReportKind::Delivered, only("NEVER"), true, false),
    ] {
        assert_eq!(wanted(kind, notify, false, by_default), expected, "{kind:?} {notify:?} {by_default}");
        assert!(!wanted(kind, notify, true, by_default), "nothing is reported to the null sender");
    }
}
