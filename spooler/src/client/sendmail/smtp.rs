//! `sendmail -bs`: SMTP on standard input and output, for programs that would rather speak than call.
//!
//! ```text
//!  Greeted ──HELO, EHLO──▶ Ready ──MAIL──▶ Sender ──RCPT──▶ Recipients ──DATA──▶ message ──CRLF.CRLF──▶ Ready
//!                            ▲────────────── RSET, HELO, EHLO ───────┘
//! ```
//!
//! Line ends are strict: a command or message with a bare CR, a bare LF or a NUL is refused, and only CRLF.CRLF ends a message
//! (RFC 5321 4.1.1.4), so nothing can hide a second message in a first. No TLS and no AUTH: the user at the other end is known.

mod commands;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use std::io::{BufRead, Read, Write};

use commands::{Command, Fault};
use spooler_protocol::control::Submit;
use spooler_protocol::limits::RECIPIENTS_MAX;
use spooler_protocol::message::{Envelope, Recipient};

use super::compose::{Author, complete, declared};
use crate::client::connection::Control;
use crate::client::failure::Failure;
use crate::client::handover::{Handed, hand_over};
use crate::client::header;
use crate::client::identity::Identity;

/// Bytes of a command line; RFC 5321 4.5.3.1.4 asks for 512, its extensions for more.
const COMMAND_BYTES_MAX: usize = 4096;
/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Serves one client until QUIT or the end of the input.
pub(crate) fn serve(control: &Control, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<(), Failure> {
    let deliver = |submit: &Submit, content: &[u8]| hand_over(control, submit, content);
    Session { identity: Identity::of_this_process(), greeted: false, envelope: None, deliver: &deliver }
        .run(input, output)
}

type Deliver<'a> = &'a dyn Fn(&Submit, &[u8]) -> Result<Handed, Failure>;

struct Session<'a> {
    identity: Identity,
    greeted: bool,
    /// Since MAIL.
    envelope: Option<Envelope>,
    deliver: Deliver<'a>,
}

impl Session<'_> {
    fn run(&mut self, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<(), Failure> {
        reply(output, &format!("220 {} ESMTP spooler", self.identity.host))?;
        while let Some(line) = command_line(input)? {
            let command = line.and_then(|line| commands::parse(&line));
            match command {
                Ok(Command::Quit) => {
                    reply(output, "221 2.0.0 Bye")?;
                    return Ok(());
                }
                Ok(Command::Data) => match self.may_send_data() {
                    Ok(()) => {
                        reply(output, "354 End the message with CRLF.CRLF")?;
                        let Some(message) = message(input)? else { return Ok(()) };
                        reply(output, &self.submit(message))?;
                    }
                    Err(fault) => reply(output, &fault.0)?,
                },
                Ok(command) => reply(output, &self.answer(command).unwrap_or_else(|fault| fault.0))?,
                Err(fault) => reply(output, &fault.0)?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, command: Command) -> Result<String, Fault> {
        match command {
            Command::Hello { extended } => {
                self.greeted = true;
                self.envelope = None;
                let host = &self.identity.host;
                Ok(if extended {
                    format!(
                        "250-{host}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES"
                    )
                } else {
                    format!("250 {host}")
                })
            }
            Command::Mail(envelope) => self.mail(*envelope),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Reset => {
                self.envelope = None;
                Ok("250 2.0.0 Ok".to_owned())
            }
            Command::Nothing => Ok("250 2.0.0 Ok".to_owned()),
            Command::Verify => Ok("252 2.0.0 Cannot verify the user; send a message".to_owned()),
            Command::Data | Command::Quit => Err(Fault::new("503 5.5.1 Bad sequence of commands")),
        }
    }

    fn mail(&mut self, envelope: Envelope) -> Result<String, Fault> {
        if !self.greeted {
            return Err(Fault::new("503 5.5.1 Send HELO or EHLO first"));
        }
        if self.envelope.is_some() {
            return Err(Fault::new("503 5.5.1 Nested MAIL command; send RSET first"));
        }
        self.envelope = Some(envelope);
        Ok("250 2.1.0 Ok".to_owned())
    }

    fn rcpt(&mut self, recipient: Recipient) -> Result<String, Fault> {
        let Some(envelope) = &mut self.envelope else { return Err(Fault::new("503 5.5.1 Need MAIL command first")) };
        if envelope.recipients.len() >= RECIPIENTS_MAX {
            return Err(Fault(format!("452 4.5.3 Too many recipients; {RECIPIENTS_MAX} are allowed")));
        }
        envelope.recipients.push(recipient);
        Ok("250 2.1.5 Ok".to_owned())
    }

    fn may_send_data(&self) -> Result<(), Fault> {
        match &self.envelope {
            Some(envelope) if !envelope.recipients.is_empty() => Ok(()),
            _ => Err(Fault::new("503 5.5.1 Need MAIL and RCPT commands first")),
        }
    }

    /// Hands the message over; the reply says how that went.
    fn submit(&mut self, message: Result<Vec<u8>, Fault>) -> String {
        let envelope = self.envelope.take().unwrap_or_default();
        let message = match message {
            Ok(message) => message,
            Err(fault) => return fault.0,
        };
        let (fields, body) = header::split(&message);
        let author = Author { identity: &self.identity, full_name: None, sender: &envelope.sender };
        let content = complete(&fields, body, &author);
        let submit = Submit { envelope: declared(envelope, &content, false), as_is: false };
        match (self.deliver)(&submit, &content) {
            Ok(handed) => format!("250 2.0.0 {}", one_line(&handed.to_string())),
            Err(failure) if failure.is_temporary() => format!("451 4.3.0 {}", one_line(&failure.to_string())),
            Err(failure) => format!("554 5.6.0 {}", one_line(&failure.to_string())),
        }
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || !c.is_ascii() { ' ' } else { c }).take(400).collect()
}

fn reply(output: &mut dyn Write, text: &str) -> Result<(), Failure> {
    output.write_all(text.as_bytes())?;
    output.write_all(b"\r\n")?;
    Ok(output.flush()?)
}

/// Reads a line of at most `max` bytes with its LF; what is longer is read to its end and not kept.
fn line(input: &mut dyn BufRead, max: usize) -> Result<Option<(Vec<u8>, bool)>, Failure> {
    let failed = |error| Failure::Input("Standard input".to_owned(), error);
    let mut line = Vec::new();
    input.take(max as u64).read_until(b'\n', &mut line).map_err(failed)?;
    let mut whole = line.ends_with(b"\n");
    while !whole && line.len() >= max {
        let mut more = Vec::new();
        let count = input.take(max as u64).read_until(b'\n', &mut more).map_err(failed)?;
        if more.ends_with(b"\n") || count == 0 {
            return Ok(Some((line, false)));
        }
        whole = false;
    }
    Ok(whole.then_some((line, true)))
}

/// The next command; `None` at the end of the input.
fn command_line(input: &mut dyn BufRead) -> Result<Option<Result<String, Fault>>, Failure> {
    let Some((line, whole)) = line(input, COMMAND_BYTES_MAX)? else { return Ok(None) };
    if !whole {
        return Ok(Some(Err(Fault::new("500 5.5.2 The line is too long"))));
    }
    let bare = || Fault::new("500 5.5.2 Lines end with CRLF and hold no other control character");
    let text = line.strip_suffix(b"\r\n").and_then(|line| String::from_utf8(line.to_vec()).ok());
    Ok(Some(text.filter(|text| !text.chars().any(char::is_control)).ok_or_else(bare)))
}

/// Reads a message to CRLF.CRLF, dots unstuffed; `None` if the input ends before, and nothing is queued then.
fn message(input: &mut dyn BufRead) -> Result<Option<Result<Vec<u8>, Fault>>, Failure> {
    let failed = |error| Failure::Input("The message on standard input".to_owned(), error);
    let (mut message, mut fault, mut after_crlf) = (Vec::new(), None, true);
    loop {
        let mut line = Vec::new();
        let room = MESSAGE_BYTES_MAX as u64 + 3;
        if input.take(room).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(None);
        }
        if after_crlf && line == b".\r\n" {
            return Ok(Some(fault.map_or(Ok(message), Err)));
        }
        let text = line.strip_suffix(b"\r\n");
        if text.is_none_or(|text| memchr::memchr2(b'\r', 0, text).is_some()) {
            fault = Some(Fault::new("550 5.5.2 The message holds a bare CR, a bare LF or a NUL; lines end with CRLF"));
        }
        if message.len() + line.len() > MESSAGE_BYTES_MAX {
            fault = Some(Fault::new("552 5.3.4 The message is too large"));
        }
        if fault.is_none() {
            let unstuffed = if after_crlf { line.strip_prefix(b".") } else { None };
            message.extend_from_slice(unstuffed.unwrap_or(&line));
        }
        after_crlf = text.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use spooler_protocol::control::ApiError;
    use spooler_protocol::ids::MessageId;

    use super::*;

    /// Runs a dialogue; gives the reply codes and what was handed over.
    fn talk(input: &str, answer: fn() -> Result<Handed, Failure>) -> (Vec<String>, Vec<(Envelope, String)>) {
        let taken = RefCell::new(Vec::new());
        let deliver = |submit: &Submit, content: &[u8]| {
            taken.borrow_mut().push((submit.envelope.clone(), String::from_utf8(content.to_vec()).unwrap()));
            answer()
        };
        let identity = Identity { user: "ann".to_owned(), full_name: String::new(), host: "box.test".to_owned() };
        let mut output = Vec::new();
        let mut session = Session { identity, greeted: false, envelope: None, deliver: &deliver };
        session.run(&mut input.as_bytes(), &mut output).unwrap();
        let replies = String::from_utf8(output).unwrap();
        assert!(replies.ends_with("\r\n"));
        let last_lines = replies.split_terminator("\r\n").filter(|line| line.as_bytes()[3] == b' ');
        (last_lines.map(|line| line[..3].to_owned()).collect(), taken.into_inner())
    }

    fn queued() -> Result<Handed, Failure> {
        Ok(Handed::Queued(MessageId(7)))
    }

    #[test]
    fn a_message_goes_through_with_its_wishes() {
        let (codes, taken) = talk(
            "EHLO me\r\nMAIL FROM:<a@x> BODY=8BITMIME RET=HDRS ENVID=e1\r\nRCPT TO:<b@x> NOTIFY=NEVER ORCPT=rfc822;b@x\r\n\
             RCPT TO:<root>\r\nDATA\r\nSubject: s\r\n\r\n..dot\r\nend\r\n.\r\nQUIT\r\nNOOP\r\n",
            queued,
        );
        assert_eq!(codes, ["220", "250", "250", "250", "250", "354", "250", "221"]);
        let (envelope, content) = &taken[0];
        assert_eq!((envelope.sender.as_str(), envelope.envid.as_deref()), ("a@x", Some("e1")));
        assert_eq!(envelope.recipients[0].orcpt.as_deref(), Some("rfc822;b@x"));
        assert!(envelope.recipients[0].notify.unwrap().is_never());
        assert_eq!(envelope.recipients[1].address.text(), "root");
        assert!(content.ends_with("Subject: s\r\n\n.dot\r\nend\r\n"), "{content:?}");
    }

    #[test]
    fn order_is_kept_and_nonsense_refused() {
        let (codes, taken) = talk(
            "MAIL FROM:<a@x>\r\nHELO me\r\nRCPT TO:<b@x>\r\nDATA\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\nRCPT TO:<>\r\n\
             RCPT TO:<a@x\r\nRSET\r\nDATA\r\nVRFY x\r\nFOO\r\nAUTH PLAIN\r\nMAIL FROM:<a@x> FOO=1\r\nNOOP\n\r\nNO\0OP\r\n",
            queued,
        );
        let expected = [
            "220", "503", "250", "503", "503", "250", "503", "501", "501", "250", "503", "252", "500", "502", "555",
            "500", "500", "500",
        ];
        assert_eq!(codes, expected);
        assert!(taken.is_empty());
    }

    #[test]
    fn no_line_end_smuggles_a_message() {
        for end in ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n\0.\r\n"] {
            let input = format!(
                "HELO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx{end}MAIL FROM:<evil@x>\r\nRCPT TO:<c@x>\r\nDATA\r\ny\r\n.\r\nQUIT\r\n"
            );
            let (codes, taken) = talk(&input, queued);
            assert_eq!(codes, ["220", "250", "250", "250", "354", "550", "221"], "{end:?}");
            assert!(taken.is_empty(), "{end:?}");
        }
    }

    #[test]
    fn a_message_that_breaks_off_is_not_handed_over() {
        let (codes, taken) = talk("HELO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx\r\n", queued);
        assert_eq!(codes.last().map(String::as_str), Some("354"));
        assert!(taken.is_empty());
    }

    #[test]
    fn failures_are_temporary_or_not() {
        let dialogue = "HELO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx\r\n.\r\n";
        let (codes, _) = talk(dialogue, || Err(Failure::Temporary("disk\u{e4}\r\n".to_owned())));
        assert_eq!(codes.last().map(String::as_str), Some("451"));
        let error = ApiError { error: "no".to_owned(), temporary: false };
        assert_eq!(Failure::Refused { status: 422, error }.code(), 65);
        let (codes, _) = talk(dialogue, || Err(Failure::Data("no".to_owned())));
        assert_eq!(codes.last().map(String::as_str), Some("554"));
    }

    #[test]
    fn long_lines_cost_one_reply() {
        let input = format!("NOOP {}\r\nNOOP\r\n", "x".repeat(100_000));
        assert_eq!(talk(&input, queued).0, ["220", "500", "250"]);
    }
}
