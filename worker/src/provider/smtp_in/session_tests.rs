use super::*;

fn rules() -> Rules {
    Rules {
        hostname: "spooler.test".to_owned(),
        message_bytes_max: 1000,
        recipients_max: 3,
        errors_max: 3,
        offers_tls: true,
        users: Users::new(vec![("ann".to_owned(), "sesame".to_owned())]),
        auth_required: false,
        submission: true,
    }
}

/// A session and the talk with it: each line is answered by its replies and what the connection does next.
struct Talk {
    session: Session,
    last: Next,
}

impl Talk {
    fn with(rules: Rules, may_relay: bool) -> Self {
        let session = Session::new(Rc::new(rules), "192.0.2.9".parse().unwrap(), may_relay);
        Self { session, last: Next::Command }
    }

    fn new() -> Self {
        Self::with(rules(), true)
    }

    fn say(&mut self, line: &str) -> String {
        self.say_with(line, false)
    }

    fn say_with(&mut self, line: &str, behind: bool) -> String {
        let mut out = Vec::new();
        let may_serve = |address: &Address| !address.text().contains("nowhere");
        self.last = self.session.on_line(line.as_bytes(), behind, may_serve, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn codes(&mut self, lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| self.say(line).chars().take(9).collect()).collect()
    }
}

#[test]
fn a_message_goes_through_its_steps() {
    let mut talk = Talk::new();
    assert_eq!(talk.codes(&["EHLO me", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]), ["250-spool", "250 2.1.0", "250 2.1.5"]);
    assert_eq!(talk.say("DATA"), "354 End with <CR><LF>.<CR><LF>\r\n");
    assert_eq!(talk.last, Next::Data);
    let envelope = talk.session.end_transaction();
    assert_eq!((envelope.sender.as_str(), envelope.recipients.len()), ("a@b", 1));
    assert_eq!(
        talk.codes(&["DATA", "MAIL FROM:<>", "RSET", "QUIT"]),
        ["503 5.5.1", "250 2.1.0", "250 2.0.0", "221 2.0.0"]
    );
    assert_eq!(talk.last, Next::Quit);
}

#[test]
fn order_is_kept() {
    let mut talk = Talk::with(Rules { errors_max: 100, ..rules() }, true);
    let early = ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "AUTH PLAIN", "STARTTLS now"];
    assert!(talk.codes(&early).iter().all(|code| code.starts_with("50") || code.starts_with("538")));
    assert_eq!(
        talk.codes(&["HELO me", "MAIL FROM:<a@b>", "MAIL FROM:<a@b>", "DATA", "RCPT TO:<x@nowhere>", "DATA"]),
        ["250 spool", "250 2.1.0", "503 5.5.1", "503 5.5.1", "550 5.1.2", "554 5.5.1"]
    );
}

#[test]
fn limits_are_told_and_kept() {
    let mut talk = Talk::new();
    assert!(talk.say("EHLO me").contains("250-SIZE 1000\r\n"));
    assert_eq!(talk.codes(&["MAIL FROM:<a@b> SIZE=1001", "MAIL FROM:<a@b> SIZE=1000"]), ["552 5.3.4", "250 2.1.0"]);
    for _ in 0..3 {
        assert_eq!(talk.codes(&["RCPT TO:<c@d>"]), ["250 2.1.5"]);
    }
    assert_eq!(talk.codes(&["RCPT TO:<c@d>"]), ["452 4.5.3"]);
    assert_eq!(talk.codes(&["DATA"]), ["354 End w"], "the recipients within the limit are served");
}

#[test]
fn a_client_that_only_errs_is_sent_away() {
    let mut talk = Talk::new();
    assert_eq!(talk.codes(&["FOO", "BAR", "BAZ"]), ["500 5.5.2"; 3]);
    assert_eq!(talk.last, Next::Command);
    assert_eq!(talk.codes(&["NOOP", "FOO"]), ["250 2.0.0", "421 4.7.0"]);
    assert_eq!(talk.last, Next::Close);
}

#[test]
fn strangers_do_not_relay() {
    let mut talk = Talk::with(rules(), false);
    talk.codes(&["EHLO me", "MAIL FROM:<a@b>"]);
    let refusal = talk.say("RCPT TO:<c@d>");
    assert_eq!(refusal, "550 5.7.1 Relaying is not allowed from 192.0.2.9 without authentication\r\n");
    assert_eq!(talk.codes(&["DATA"]), ["554 5.5.1"]);
}

#[test]
fn commands_that_end_a_group_must_end_it() {
    for line in ["EHLO me", "HELO me", "DATA", "STARTTLS"] {
        let mut talk = Talk::new();
        assert!(talk.say_with(line, true).starts_with("554 5.5.0"), "{line}");
        assert_eq!(talk.last, Next::Close, "{line}");
    }
    let mut talk = Talk::new();
    assert!(talk.say("EHLO me").starts_with("250"));
    assert!(talk.say_with("MAIL FROM:<a@b>", true).starts_with("250"));
    assert!(talk.say_with("RSET", true).starts_with("250"));
}

#[test]
fn one_who_speaks_before_the_greeting_is_not_greeted() {
    let talk = Talk::new();
    let mut out = Vec::new();
    assert_eq!(talk.session.greet(true, &mut out), Next::Close);
    assert!(out.starts_with(b"554 5.5.0"));
}

#[test]
fn tls_forgets_everything() {
    let mut talk = Talk::new();
    assert!(talk.say("EHLO me").contains("250-STARTTLS\r\n"));
    talk.codes(&["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "STARTTLS"]);
    assert_eq!(talk.last, Next::StartTls);
    talk.session.on_tls();
    assert_eq!(talk.codes(&["DATA", "MAIL FROM:<a@b>"]), ["503 5.5.1"; 2]);
    let greeting = talk.say("EHLO me");
    assert!(greeting.contains("250-AUTH PLAIN LOGIN\r\n") && !greeting.contains("STARTTLS"));
    assert_eq!(talk.codes(&["STARTTLS"]), ["503 5.5.1"]);
}

#[test]
fn a_password_opens_the_door_but_only_inside_tls() {
    let mut talk = Talk::with(Rules { auth_required: true, ..rules() }, true);
    assert!(!talk.say("EHLO me").contains("AUTH"));
    assert_eq!(talk.codes(&["AUTH PLAIN AGFubgBzZXNhbWU=", "MAIL FROM:<a@b>"]), ["538 5.7.1", "530 5.7.0"]);
    talk.session.on_tls();
    talk.say("EHLO me");
    assert_eq!(talk.codes(&["AUTH LOGIN", "YW5u", "c2VzYW1l"]), ["334 VXNlc", "334 UGFzc", "235 2.7.0"]);
    assert_eq!(
        talk.codes(&["AUTH PLAIN", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]),
        ["503 5.5.1", "250 2.1.0", "250 2.1.5"]
    );
    assert!(talk.session.trace("now").contains(" with ESMTPSA\r\n\tfor <c@d>;"));
}

#[test]
fn a_refused_line_ends_an_auth_dialogue() {
    let mut talk = Talk::new();
    talk.session.on_tls();
    assert_eq!(talk.codes(&["EHLO me", "AUTH PLAIN"]), ["250-spool", "334 \r\n"]);
    let mut out = Vec::new();
    talk.session.answer(&Reply::new(500, "5.5.2", "Line too long"), &mut out);
    assert_eq!(talk.codes(&["NOOP"]), ["250 2.0.0"]);
}

#[test]
fn chunks_of_a_failed_message_are_thrown_away() {
    let mut talk = Talk::with(Rules { errors_max: 100, ..rules() }, true);
    assert_eq!(talk.codes(&["BDAT 5"]), ["503 5.5.1"]);
    assert_eq!(talk.last, Next::Discard(5));
    talk.codes(&["EHLO me", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]);
    assert_eq!(talk.say("BDAT 600"), "");
    assert_eq!(talk.last, Next::Chunk { size: 600, last: false });
    assert_eq!(talk.codes(&["DATA", "RCPT TO:<c@d>"]), ["503 5.5.1"; 2]);
    assert_eq!(talk.codes(&["BDAT 401", "BDAT 7"]), ["552 5.3.4", "503 5.5.1"]);
    assert_eq!(talk.last, Next::Discard(7));
    assert_eq!(talk.codes(&["BDAT 0 LAST"]), ["503 5.5.1"]);
    assert_eq!(talk.codes(&["MAIL FROM:<a@b>"]), ["250 2.1.0"], "the last chunk ended the transaction");
    assert_eq!(talk.codes(&["BDAT many"]), ["501 5.5.4"]);
    assert_eq!(talk.last, Next::Close);
}

#[test]
fn utf8_addresses_need_the_parameter() {
    let mut talk = Talk::new();
    talk.say("EHLO me");
    assert_eq!(talk.codes(&["MAIL FROM:<ä@exämple.org>"]), ["553 5.6.7"]);
    assert_eq!(talk.codes(&["MAIL FROM:<ä@b> SMTPUTF8", "RCPT TO:<ö@c>"]), ["250 2.1.0", "250 2.1.5"]);
    assert!(talk.session.trace("now").contains(" with UTF8SMTP\r\n\tfor <ö@c>;"));
}
