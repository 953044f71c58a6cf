//! One command line, read. Pure: the line without its CR LF in, a command or a refusal out.
//!
//! `smtp-proto` reads requests too, but unquotes local parts, decodes xtext, skips stray CRs and takes parameters that are not
//! offered here; a server that must hand on what it was given, and refuse what it cannot honour, needs the line as it is.

use super::parameters::{self, MailParameters, RcptParameters};
use super::path;
use super::reply::Reply;

/// Bytes of the name in HELO and EHLO.
const NAME_BYTES_MAX: usize = 255;

/// What the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// `HELO name`, or `EHLO name`.
    Hello {
        /// What the client calls itself: printable, without spaces.
        name: &'a str,
        /// Whether it was EHLO.
        extended: bool,
    },
    /// `MAIL FROM:<…>`
    Mail {
        /// Empty for the null sender.
        sender: &'a str,
        /// Checked.
        parameters: MailParameters,
    },
    /// `RCPT TO:<…>`
    Rcpt {
        /// Never empty.
        recipient: &'a str,
        /// Checked.
        parameters: RcptParameters,
    },
    /// `DATA`
    Data,
    /// `BDAT size [LAST]`
    Chunk {
        /// Bytes that follow the command.
        size: u64,
        /// Whether they end the message.
        last: bool,
    },
    /// `RSET`
    Reset,
    /// `NOOP`
    Noop,
    /// `QUIT`
    Quit,
    /// `VRFY`
    Verify,
    /// `HELP`
    Help,
    /// `STARTTLS`
    StartTls,
    /// `AUTH mechanism [initial]`
    Auth {
        /// As it was written.
        mechanism: &'a str,
        /// The initial response, in base64.
        initial: Option<&'a str>,
    },
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// The client may go on.
    Reply(Reply),
    /// Client and server can no longer agree on where commands begin: the connection has to end.
    Fatal(Reply),
}

impl From<Reply> for Rejected {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// How closely a command has to follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// RFC 5321 to the letter.
    Strict,
    /// As printers, cameras and old programs write it: addresses without angle brackets or with a pair too many, spaces or a tab behind
    /// the colon, a name with spaces in EHLO. Each of these can be read in one way only. Postfix takes the same by default
    /// (`strict_rfc821_envelopes = no`).
    Tolerant,
}

/// Reads a command line.
pub(super) fn parse(line: &[u8], syntax: Syntax) -> Result<Command<'_>, Rejected> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Err(Reply::new(500, "5.5.2", "The command is not UTF-8").into());
    };
    let tolerant = syntax == Syntax::Tolerant;
    if line.chars().any(|c| c.is_control() && !(tolerant && c == '\t')) {
        return Err(Reply::new(500, "5.5.2", "The command holds a control character").into());
    }
    let line = line.trim_end_matches(' ');
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    let argument = argument.trim_start_matches(' ');
    match verb.to_ascii_uppercase().as_str() {
        "HELO" => hello(argument, false, syntax),
        "EHLO" => hello(argument, true, syntax),
        "MAIL" => mail(argument, syntax),
        "RCPT" => rcpt(argument, syntax),
        "DATA" => alone(argument, Command::Data),
        "BDAT" => chunk(argument),
        "RSET" => alone(argument, Command::Reset),
        "NOOP" => Ok(Command::Noop),
        "QUIT" => alone(argument, Command::Quit),
        "VRFY" if argument.is_empty() => Err(Reply::new(501, "5.5.4", "Syntax: VRFY address").into()),
        "VRFY" => Ok(Command::Verify),
        "HELP" => Ok(Command::Help),
        "STARTTLS" => alone(argument, Command::StartTls),
        "AUTH" => auth(argument),
        "EXPN" | "ETRN" | "TURN" | "LHLO" | "BURL" => Err(Reply::new(502, "5.5.1", "Command not implemented").into()),
        // A web page can make a browser speak to this port; its request line comes before anything that the page can choose.
        "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" | "DELETE" => {
            Err(Rejected::Fatal(Reply::new(554, "5.5.1", "This is not a web server")))
        }
        _ => Err(Reply::new(500, "5.5.2", "Command not recognized").into()),
    }
}

fn alone<'a>(argument: &str, command: Command<'a>) -> Result<Command<'a>, Rejected> {
    if argument.is_empty() { Ok(command) } else { Err(Reply::new(501, "5.5.4", "No argument is allowed here").into()) }
}

fn hello(name: &str, extended: bool, syntax: Syntax) -> Result<Command<'_>, Rejected> {
    let odd = name.contains(char::is_whitespace) && syntax == Syntax::Strict;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || odd {
        return Err(Reply::new(501, "5.5.4", "Syntax: EHLO name").into());
    }
    Ok(Command::Hello { name, extended })
}

/// The argument behind `FROM:` or `TO:`. A space behind the colon is against the grammar and common.
fn after_keyword<'a>(argument: &'a str, keyword: &str, syntax: Syntax) -> Option<&'a str> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    let space = |c: char| c == ' ' || c == '\t' && syntax == Syntax::Tolerant;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches(space)).filter(|rest| !rest.contains('\t'))
}

/// The address and the parameters behind it.
fn split(path: &str, syntax: Syntax) -> Option<(&str, &str)> {
    match syntax {
        Syntax::Strict => path::split(path),
        Syntax::Tolerant => path::split(path).or_else(|| path::split_tolerant(path)),
    }
}

fn mail(argument: &str, syntax: Syntax) -> Result<Command<'_>, Rejected> {
    let path = after_keyword(argument, "FROM:", syntax).ok_or(Reply::new(
        501,
        "5.5.4",
        "Syntax: MAIL FROM:<address> [parameters]",
    ))?;
    let (sender, rest) =
        split(path, syntax).ok_or(Reply::new(501, "5.1.7", "Bad sender address; write MAIL FROM:<user@domain>"))?;
    Ok(Command::Mail { sender, parameters: parameters::mail(rest)? })
}

fn rcpt(argument: &str, syntax: Syntax) -> Result<Command<'_>, Rejected> {
    let path = after_keyword(argument, "TO:", syntax).ok_or(Reply::new(
        501,
        "5.5.4",
        "Syntax: RCPT TO:<address> [parameters]",
    ))?;
    let (recipient, rest) = split(path, syntax).filter(|(recipient, _)| !recipient.is_empty()).ok_or(Reply::new(
        501,
        "5.1.3",
        "Bad recipient address; write RCPT TO:<user@domain>",
    ))?;
    Ok(Command::Rcpt { recipient, parameters: parameters::rcpt(rest)? })
}

/// Without the size nobody knows where the next command begins.
fn chunk(argument: &str) -> Result<Command<'_>, Rejected> {
    let (size, last) = argument.split_once(' ').unwrap_or((argument, ""));
    let last = match last.trim_start_matches(' ') {
        "" => Some(false),
        word => word.eq_ignore_ascii_case("LAST").then_some(true),
    };
    let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
    match (size.parse(), last) {
        (Ok(size), Some(last)) if digits => Ok(Command::Chunk { size, last }),
        _ => Err(Rejected::Fatal(Reply::new(501, "5.5.4", "Syntax: BDAT size [LAST]"))),
    }
}

fn auth(argument: &str) -> Result<Command<'_>, Rejected> {
    let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
    let initial = initial.trim_start_matches(' ');
    if mechanism.is_empty() || initial.contains(' ') {
        return Err(Reply::new(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]").into());
    }
    Ok(Command::Auth { mechanism, initial: (!initial.is_empty()).then_some(initial) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        assert_eq!(parse(b"ehlo m.txt", Syntax::Strict), Ok(Command::Hello { name: "m.txt", extended: true }));
        assert_eq!(parse(b"HELO host ", Syntax::Strict), Ok(Command::Hello { name: "host", extended: false }));
        let mail = Command::Mail { sender: "a@b", parameters: MailParameters::default() };
        for line in ["MAIL FROM:<a@b>", "mail from:<a@b>", "MAIL FROM: <a@b>", "MAIL  FROM:<a@b>  "] {
            assert_eq!(parse(line.as_bytes(), Syntax::Strict), Ok(mail.clone()), "{line}");
        }
        assert_eq!(
            parse(b"Rcpt To:<root>", Syntax::Strict),
            Ok(Command::Rcpt { recipient: "root", parameters: RcptParameters::default() })
        );
        assert_eq!(parse(b"BDAT 0 last", Syntax::Strict), Ok(Command::Chunk { size: 0, last: true }));
        assert_eq!(parse(b"BDAT 86400", Syntax::Strict), Ok(Command::Chunk { size: 86400, last: false }));
        assert_eq!(
            parse(b"AUTH PLAIN AGEAYg==", Syntax::Strict),
            Ok(Command::Auth { mechanism: "PLAIN", initial: Some("AGEAYg==") })
        );
        assert_eq!(
            parse(b"AUTH  PLAIN  AGEAYg==", Syntax::Strict),
            Ok(Command::Auth { mechanism: "PLAIN", initial: Some("AGEAYg==") })
        );
        assert_eq!(parse(b"NOOP anything", Syntax::Strict), Ok(Command::Noop));
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_right_code() {
        let cases: [(&[u8], u16); 16] = [
            (b"", 500),
            (b"FOO", 500),
            (b"MAILFROM:<a@b>", 500),
            (b"MAIL <a@b>", 501),
            (b"MAIL FROM:a@b", 501),
            (b"MAIL FROM:<a@b>SIZE=1", 501),
            (b"MAIL FROM:<a@b> FOO=1", 555),
            (b"RCPT TO:<>", 501),
            (b"RCPT TO:<a@b> NOTIFY=x", 501),
            (b"DATA now", 501),
            (b"RSET x", 501),
            (b"EHLO", 501),
            (b"EHLO a b", 501),
            (b"EXPN list", 502),
            (b"MAIL FROM:<\xff@b>", 500),
            (b"NOOP \x1b[31m", 500),
        ];
        for (line, code) in cases {
            match parse(line, Syntax::Strict) {
                Err(Rejected::Reply(reply)) => assert_eq!(reply.code, code, "{line:?}"),
                other => panic!("{line:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn tolerant_syntax_takes_what_devices_write() {
        let mail = Command::Mail { sender: "a@b", parameters: MailParameters::default() };
        for line in ["MAIL FROM:a@b", "MAIL FROM: a@b", "MAIL FROM:< a@b >", "MAIL FROM:<<a@b>>", "MAIL FROM:\t<a@b>"] {
            assert_eq!(parse(line.as_bytes(), Syntax::Tolerant), Ok(mail.clone()), "{line}");
            assert!(parse(line.as_bytes(), Syntax::Strict).is_err() || line == "MAIL FROM:<a@b>", "{line}");
        }
        let sized = parse(b"MAIL FROM:a@b SIZE=7", Syntax::Tolerant);
        assert!(
            matches!(&sized, Ok(Command::Mail { sender: "a@b", parameters }) if parameters.size == Some(7)),
            "{sized:?}"
        );
        let name = "HP LaserJet 4000";
        assert_eq!(parse(b"EHLO HP LaserJet 4000", Syntax::Tolerant), Ok(Command::Hello { name, extended: true }));
    }

    #[test]
    fn tolerant_syntax_refuses_two_readings() {
        for line in [
            "MAIL FROM:a b@c",
            "MAIL FROM:<a@b> <c@d>",
            "MAIL FROM:<a@b>\tSIZE=1",
            "MAIL FROM:a@b>",
            "MAIL FROM:<<a@b>",
            "RCPT TO:",
            "RCPT TO:<<>>",
            "RCPT TO:< >",
            "RCPT TO:a@b,c@d",
            "RCPT TO:a@b\x07",
        ] {
            assert!(parse(line.as_bytes(), Syntax::Tolerant).is_err(), "{line}");
        }
    }

    #[test]
    fn after_a_chunk_of_unknown_size_nothing_can_follow() {
        for line in
            ["BDAT", "BDAT x", "BDAT -1", "BDAT +1", "BDAT 99999999999999999999", "BDAT 1 FIRST", "POST / HTTP/1.1"]
        {
            assert!(matches!(parse(line.as_bytes(), Syntax::Strict), Err(Rejected::Fatal(_))), "{line}");
        }
    }
}
