//! Commands of SMTP, read strictly (RFC 5321 4.1.1, RFC 3461 4, RFC 6152, RFC 6531).

use spooler_protocol::message::{Address, BodyType, Envelope, Recipient, Ret, is_dsn_parameter};

use crate::client::address_list;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// HELO, EHLO
    Hello { extended: bool },
    /// MAIL; without recipients.
    Mail(Box<Envelope>),
    /// RCPT
    Rcpt(Recipient),
    /// DATA
    Data,
    /// RSET
    Reset,
    /// NOOP, HELP
    Nothing,
    /// VRFY, EXPN
    Verify,
    /// QUIT
    Quit,
}

/// A reply that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

impl Fault {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Reads a command without its line end.
pub(super) fn parse(line: &str) -> Result<Command, Fault> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    match verb.to_ascii_uppercase().as_str() {
        "HELO" | "EHLO" if rest.is_empty() => Err(Fault::new("501 5.5.4 Syntax: EHLO name")),
        "HELO" => Ok(Command::Hello { extended: false }),
        "EHLO" => Ok(Command::Hello { extended: true }),
        "MAIL" => mail(rest),
        "RCPT" => rcpt(rest),
        "DATA" if rest.is_empty() => Ok(Command::Data),
        "RSET" if rest.is_empty() => Ok(Command::Reset),
        "QUIT" if rest.is_empty() => Ok(Command::Quit),
        "DATA" | "RSET" | "QUIT" => Err(Fault::new("501 5.5.4 No argument is allowed here")),
        "NOOP" | "HELP" => Ok(Command::Nothing),
        "VRFY" | "EXPN" => Ok(Command::Verify),
        "AUTH" | "STARTTLS" | "BDAT" => Err(Fault::new("502 5.5.1 Not offered here")),
        _ => Err(Fault::new("500 5.5.2 Command not recognized")),
    }
}

fn mail(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = path(rest, "FROM:")?;
    let mut envelope = Envelope::default();
    if !path.is_empty() {
        envelope.sender = one_address(path)?;
    }
    for parameter in parameters.split_ascii_whitespace() {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let upper = value.to_ascii_uppercase();
        match (key.to_ascii_uppercase().as_str(), upper.as_str()) {
            ("SIZE", size) if size.parse::<u64>().is_ok() => {}
            ("BODY", "7BIT") => envelope.body = BodyType::SevenBit,
            ("BODY", "8BITMIME") => envelope.body = BodyType::EightBit,
            ("SMTPUTF8", "") => envelope.smtputf8 = true,
            ("RET", "FULL") => envelope.ret = Some(Ret::Full),
            ("RET", "HDRS") => envelope.ret = Some(Ret::Headers),
            ("ENVID", _) if is_dsn_parameter(value) => envelope.envid = Some(value.to_owned()),
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => return Err(bad_value(key)),
            _ => return Err(unknown(key)),
        }
    }
    Ok(Command::Mail(Box::new(envelope)))
}

fn rcpt(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = path(rest, "TO:")?;
    let wrong = |error: &dyn std::fmt::Display| Fault(format!("501 5.1.3 {error}"));
    let address = Address::smtp(&one_address(path)?).map_err(|error| wrong(&error))?;
    let mut recipient = Recipient::new(address);
    for parameter in parameters.split_ascii_whitespace() {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key.to_ascii_uppercase().as_str() {
            "NOTIFY" => recipient.notify = Some(value.parse().map_err(|_| bad_value(key))?),
            "ORCPT" if is_dsn_parameter(value) && value.contains(';') => recipient.orcpt = Some(value.to_owned()),
            "ORCPT" => return Err(bad_value(key)),
            _ => return Err(unknown(key)),
        }
    }
    Ok(Command::Rcpt(recipient))
}

fn bad_value(key: &str) -> Fault {
    Fault(format!("501 5.5.4 Invalid value for parameter {key}"))
}

fn unknown(key: &str) -> Fault {
    Fault(format!("555 5.5.4 Parameter {key} is not supported"))
}

/// The text between the angle brackets, and the parameters behind them.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(&'a str, &'a str), Fault> {
    let wrong = || Fault(format!("501 5.5.4 Syntax: {keyword}<address>"));
    let head = rest.get(..keyword.len()).filter(|head| head.eq_ignore_ascii_case(keyword)).ok_or_else(wrong)?;
    let text = rest.get(head.len()..).unwrap_or_default().trim_start().strip_prefix('<').ok_or_else(wrong)?;
    let end = closing_bracket(text).ok_or_else(wrong)?;
    let (path, behind) = text.split_at(end);
    let behind = behind.strip_prefix('>').unwrap_or_default();
    if behind.is_empty() || behind.starts_with(' ') { Ok((path, behind)) } else { Err(wrong()) }
}

/// Where the `>` stands that no quotes enclose.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn one_address(path: &str) -> Result<String, Fault> {
    let found = address_list::parse(&format!("<{path}>"));
    let mut found = found.map_err(|error| Fault(format!("501 5.1.3 Bad address: {error}")))?;
    match (found.pop(), found.is_empty()) {
        (Some(address), true) => Ok(address),
        _ => Err(Fault::new("501 5.1.3 Exactly one address is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_kinds_are_read() {
        for (given, expected) in [
            ("FROM:<a@x>", "a@x"),
            ("from: <a@x>", "a@x"),
            ("FROM:<>", ""),
            ("FROM:<\"a>b\"@x>", "\"a>b\"@x"),
            ("FROM:<@r1,@r2:a@x>", "a@x"),
            ("FROM:<p\u{e4}ul@x> SMTPUTF8", "p\u{e4}ul@x"),
        ] {
            let Ok(Command::Mail(envelope)) = parse(&format!("MAIL {given}")) else { panic!("{given}") };
            assert_eq!(envelope.sender, expected, "{given}");
        }
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for given in ["FROM:a@x", "FROM:<a@x", "FROM:<a@x>x", "FROM:<a@x, b@x>", "TO:<a@x>", "", "FROM:<a@x> BODY=9BIT"]
        {
            assert!(parse(&format!("MAIL {given}")).unwrap_err().0.starts_with("501"), "{given}");
        }
    }
}
