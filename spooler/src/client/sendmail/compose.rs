//! From what a program wrote to what is submitted: recipients out of the header, `Date` and `From` added if they are missing.
//!
//! Everything else goes through byte by byte. Addresses without a domain stay so: the spooler completes them, and removes `Bcc`, for every
//! entrance alike. With `-t`,
//! recipients on the command line are added to those of the header, as Postfix does; historical Sendmail took them away.

use jiff::Zoned;
use spooler_protocol::control::Submit;
use spooler_protocol::message::{Address, BodyType, Envelope, Recipient, SMTP};

use super::argv::Options;
use crate::client::address_list::{self, ListError};
use crate::client::failure::Failure;
use crate::client::header::{self, Field};
use crate::client::identity::Identity;

/// What is submitted.
pub(crate) struct Composed {
    pub(crate) submit: Submit,
    pub(crate) content: Vec<u8>,
    /// Addresses beside the good ones that cannot be read. They get nothing.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// An address that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// As it was written.
    pub(crate) text: String,
    /// A sentence that names it and its place.
    pub(crate) why: String,
}

/// Addresses out of lists, good and bad.
#[derive(Debug, Default)]
struct Addresses {
    good: Vec<Address>,
    unreadable: Vec<Unreadable>,
}

impl Addresses {
    /// Adds a list. If it cannot be read as a whole, the parts that can be read count.
    fn add(&mut self, text: &str, what: &str) {
        if let Ok(good) = listed(text, what) {
            self.good.extend(good);
            return;
        }
        for part in address_list::parts(text) {
            match listed(part, what) {
                Ok(good) => self.good.extend(good),
                Err(failure) => {
                    self.unreadable.push(Unreadable { text: part.trim().to_owned(), why: failure.to_string() });
                }
            }
        }
    }
}

/// Makes a submission of a message as a program wrote it.
pub(crate) fn compose(options: &Options, identity: &Identity, message: &[u8]) -> Result<Composed, Failure> {
    let (fields, body) = header::split(message);
    let mut found = addresses(&options.recipients)?;
    if options.read_recipients {
        add_header_recipients(&mut found, &fields);
    }
    let Addresses { good: mut recipients, unreadable } = found;
    let mut known = std::collections::HashSet::new();
    recipients.retain(|address| known.insert(address.clone()));
    if recipients.is_empty() {
        let why = unreadable.into_iter().next().map(|first| Failure::Data(first.why));
        return Err(why.unwrap_or_else(|| Failure::Usage(nobody(options))));
    }
    let sender = match &options.sender {
        Some(given) => sender(given)?,
        None => identity.user.clone(),
    };
    let notify = options.notify;
    let envelope = Envelope {
        recipients: recipients.into_iter().map(|address| Recipient { notify, ..Recipient::new(address) }).collect(),
        ret: options.ret,
        envid: options.envid.clone(),
        ..envelope_of(sender)
    };
    let author = Author { identity, full_name: options.full_name.as_deref(), sender: &envelope.sender };
    let content = complete(&fields, body, &author);
    let submit = Submit { envelope: declared(envelope, &content, options.eight_bit), as_is: false };
    Ok(Composed { submit, content, unreadable })
}

fn envelope_of(sender: String) -> Envelope {
    Envelope { sender, ..Envelope::default() }
}

/// Declares what the message needs of those who pass it on.
pub(crate) fn declared(mut envelope: Envelope, content: &[u8], eight_bit: bool) -> Envelope {
    if eight_bit || !content.is_ascii() {
        envelope.body = BodyType::EightBit;
    }
    envelope.smtputf8 |=
        !envelope.sender.is_ascii() || envelope.recipients.iter().any(|r| !r.address.text().is_ascii());
    envelope
}

fn nobody(options: &Options) -> String {
    let text = if options.read_recipients {
        "The message has no recipient in To, Cc or Bcc, and none is on the command line"
    } else {
        "No recipient is given; name one on the command line, or use -t to take them from the header"
    };
    text.to_owned()
}

/// Recipients of the command line, every one of them readable.
pub(crate) fn arguments(arguments: &[String]) -> Result<Vec<Address>, Failure> {
    let found = addresses(arguments)?;
    found.unreadable.into_iter().next().map_or(Ok(found.good), |first| Err(Failure::Data(first.why)))
}

/// Recipients of the command line: typed addresses such as `FAX:+15551212` as they are, all others as address lists.
fn addresses(arguments: &[String]) -> Result<Addresses, Failure> {
    let mut found = Addresses::default();
    for argument in arguments {
        no_control("The recipient", argument)?;
        match argument.parse::<Address>() {
            Ok(address) if address.kind() != SMTP => found.good.push(address),
            _ => found.add(argument, "The recipient"),
        }
    }
    Ok(found)
}

/// A field of a header may be folded; an argument is one line.
fn no_control(what: &str, argument: &str) -> Result<(), Failure> {
    if argument.trim().contains(char::is_control) {
        return Err(Failure::Data(format!("{what} {argument:?} holds a control character")));
    }
    Ok(())
}

fn listed(text: &str, what: &str) -> Result<Vec<Address>, Failure> {
    let shown = text.trim();
    let wrong = |error: &dyn std::fmt::Display| Failure::Data(format!("{what} {shown:?} cannot be read: {error}"));
    let addresses = address_list::parse(text).map_err(|error: ListError| wrong(&error))?;
    addresses.iter().map(|address| Address::smtp(address)).collect::<Result<_, _>>().map_err(|error| wrong(&error))
}

/// The recipients of the header; of its `Resent-` fields if it has any (RFC 5322 3.6.6).
fn add_header_recipients(found: &mut Addresses, fields: &[Field<'_>]) {
    const PLAIN: [&str; 3] = ["To", "Cc", "Bcc"];
    const RESENT: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    let one_of = |names: [&str; 3], field: &Field<'_>| names.iter().any(|name| field.is(name));
    let names = if fields.iter().any(|field| one_of(RESENT, field)) { RESENT } else { PLAIN };
    for field in fields.iter().filter(|field| one_of(names, field)) {
        found.add(&String::from_utf8_lossy(field.value), &format!("The field {}:", field.name));
    }
}

/// The return path that `-f` names; empty is the null sender.
fn sender(given: &str) -> Result<String, Failure> {
    let given = given.trim();
    if given.is_empty() || given == "<>" {
        return Ok(String::new());
    }
    no_control("The sender", given)?;
    let mut found = listed(given, "The sender")?;
    match (found.pop(), found.is_empty()) {
        (Some(address), true) => Ok(address.text().to_owned()),
        _ => Err(Failure::Data(format!("The sender {given:?} is not one address"))),
    }
}

/// Whom missing fields name.
pub(crate) struct Author<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) full_name: Option<&'a str>,
    pub(crate) sender: &'a str,
}

/// The message with the fields that were missing and that only its author's side knows.
pub(crate) fn complete(fields: &[Field<'_>], body: &[u8], author: &Author<'_>) -> Vec<u8> {
    let has = |name: &str| fields.iter().any(|field| field.is(name));
    let mut out = Vec::with_capacity(body.len() + 4096);
    if !has("Date") {
        push_field(&mut out, "Date", &rfc5322_date());
    }
    if !has("From") {
        push_field(&mut out, "From", &author.mailbox());
    }
    for field in fields {
        out.extend_from_slice(field.raw);
        if !field.raw.ends_with(b"\n") {
            // Not LF alone: behind a bare CR it would make a line end of what is none.
            out.extend_from_slice(b"\r\n");
        }
    }
    out.push(b'\n');
    out.extend_from_slice(body);
    out
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(format!("{name}: {value}\n").as_bytes());
}

fn rfc5322_date() -> String {
    let now = Zoned::now();
    jiff::fmt::rfc2822::to_string(&now).unwrap_or_else(|_| now.strftime("%a, %d %b %Y %H:%M:%S %z").to_string())
}

impl Author<'_> {
    fn mailbox(&self) -> String {
        let address = if self.sender.is_empty() { &self.identity.user } else { self.sender };
        let name = self.full_name.unwrap_or(&self.identity.full_name);
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        if name.trim().is_empty() { address.to_owned() } else { format!("{} <{address}>", display_name(name.trim())) }
    }
}

/// A display name that RFC 5322 allows: words as they are, a quoted string, or encoded words (RFC 2047).
fn display_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    if name.chars().all(plain) && !name.contains("=?") {
        return name.to_owned();
    }
    if name.is_ascii() {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    // At most 75 characters each: 12 of frame, and 3 for each of up to 4 bytes of a character.
    let mut words = vec![String::new()];
    for c in name.chars() {
        let mut encoded = String::new();
        for byte in c.to_string().bytes() {
            match byte {
                b' ' => encoded.push('_'),
                b if b.is_ascii_alphanumeric() => encoded.push(char::from(b)),
                b => encoded.push_str(&format!("={b:02X}")),
            }
        }
        match words.last_mut() {
            Some(word) if word.len() + encoded.len() <= 60 => word.push_str(&encoded),
            _ => words.push(encoded),
        }
    }
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?Q?{word}?=")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { user: "ann".to_owned(), full_name: "Ann Other".to_owned(), host: "box.test".to_owned() }
    }

    fn composed(arguments: &[&str], message: &str) -> Result<(Envelope, String), Failure> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let options = super::super::argv::parse(&arguments)?;
        let composed = compose(&options, &identity(), message.as_bytes())?;
        Ok((composed.submit.envelope, String::from_utf8(composed.content).unwrap()))
    }

    fn recipients(envelope: &Envelope) -> Vec<String> {
        envelope.recipients.iter().map(|r| r.address.to_string()).collect()
    }

    #[test]
    fn with_t_the_header_names_the_recipients() {
        let message = "From: a@x\nTo: b@x,\n c@x (C)\nBCC : d@x\nCc: G: e@x;\nSubject: s\n\nhi\n";
        let (envelope, content) = composed(&["-t", "f@x", "b@x"], message).unwrap();
        assert_eq!(recipients(&envelope), ["f@x", "b@x", "c@x", "d@x", "e@x"]);
        assert!(content.ends_with(message));
    }

    #[test]
    fn resent_fields_come_before_plain_ones() {
        let message = "To: old@x\nResent-To: new@x\nResent-Bcc: hid@x\n\n";
        let (envelope, _) = composed(&["-t"], message).unwrap();
        assert_eq!(recipients(&envelope), ["new@x", "hid@x"]);
    }

    #[test]
    fn without_t_the_header_is_not_read() {
        let (envelope, content) = composed(&["root", "FAX:+1"], "To: nobody at all@\nBcc: k@x\n\n").unwrap();
        assert_eq!(recipients(&envelope), ["root", "FAX:+1"]);
        assert!(content.contains("Bcc: k@x"));
    }

    #[test]
    fn missing_fields_are_added_and_present_ones_are_not() {
        let (envelope, content) = composed(&["a@x"], "just text\n").unwrap();
        assert_eq!(envelope.sender, "ann");
        assert!(content.contains("From: Ann Other <ann>\n") && content.contains("Date: "));
        assert!(content.ends_with("\n\njust text\n"));
        let whole = "date: d\nFROM: a@x\nmessage-id: <i@x>\n\nx";
        assert_eq!(composed(&["a@x"], whole).unwrap().1, whole);
    }

    #[test]
    fn a_bare_cr_at_the_end_of_a_header_stays_one() {
        let whole = "Date: d\nFrom: a@x\nMessage-ID: <i@x>\nSubject: s\r";
        let (_, content) = composed(&["a@x"], whole).unwrap();
        assert!(content.ends_with("Subject: s\r\r\n\n"), "{content:?}");
    }

    #[test]
    fn the_sender_is_what_f_says() {
        for (given, expected) in [("", ""), ("<>", ""), ("bob", "bob"), ("B <b@x>", "b@x"), ("\"a b\"@x", "\"a b\"@x")]
        {
            let (envelope, _) = composed(&["-f", given, "a@x"], "x\n").unwrap();
            assert_eq!(envelope.sender, expected, "{given:?}");
        }
        let (_, content) = composed(&["-FCron Daemon, Inc.", "-f", "<>", "a@x"], "x\n").unwrap();
        assert!(content.contains("From: \"Cron Daemon, Inc.\" <ann>\n"), "{content}");
    }

    #[test]
    fn names_are_made_legal() {
        assert_eq!(display_name("Ann Other"), "Ann Other");
        assert_eq!(display_name("A. \"B\""), "\"A. \\\"B\\\"\"");
        assert_eq!(display_name("J\u{f6}rg X"), "=?utf-8?Q?J=C3=B6rg_X?=");
        let long = display_name(&"\u{f6}".repeat(40));
        assert!(long.split(' ').all(|word| word.len() <= 75), "{long}");
    }

    #[test]
    fn bytes_and_addresses_declare_what_they_need() {
        let plain = composed(&["a@x"], "x\n").unwrap().0;
        assert_eq!((plain.body, plain.smtputf8), (BodyType::SevenBit, false));
        let eight = composed(&["a@x"], "\u{e4}\n").unwrap().0;
        assert_eq!((eight.body, eight.smtputf8), (BodyType::EightBit, false));
        assert!(composed(&["\u{e4}@x"], "x\n").unwrap().0.smtputf8);
    }

    #[test]
    fn dsn_wishes_reach_the_envelope() {
        let arguments = ["-N", "never", "-R", "full", "-V", "id", "a@x"];
        let (envelope, _) = composed(&arguments, "x\n").unwrap();
        assert!(envelope.recipients[0].notify.unwrap().is_never());
        assert_eq!((envelope.ret, envelope.envid.as_deref()), (Some(spooler_protocol::message::Ret::Full), Some("id")));
    }

    #[test]
    fn good_addresses_stand_beside_unreadable_ones() {
        let options = Options { read_recipients: true, recipients: vec!["c@x, d@".to_owned()], ..Options::default() };
        let composed = compose(&options, &identity(), b"To: a@x, b@, \"open <e@x>\n\n").unwrap();
        assert_eq!(recipients(&composed.submit.envelope), ["c@x", "a@x"]);
        let texts: Vec<&str> = composed.unreadable.iter().map(|unreadable| unreadable.text.as_str()).collect();
        assert_eq!(texts, ["d@", "b@", "\"open <e@x>"]);
        assert!(
            composed.unreadable[1].why.starts_with("The field To: \"b@\" cannot be read: "),
            "{:?}",
            composed.unreadable
        );
    }

    #[test]
    fn faults_have_their_codes() {
        for (arguments, message, code) in [
            (&["-t"][..], "Subject: x\n\n", 64),
            (&[], "x", 64),
            (&["a@x c@x"], "x", 65),
            (&["-t"], "To: <a@x\n\n", 65),
            (&["-f", "a@x, b@x", "c@x"], "x", 65),
            (&["a\r\nRCPT TO:<b>@x"], "x", 65),
            (&["a\r\nRCPT TO:<b@x>"], "x", 65),
            (&["-f", "a\r\nRCPT TO:<b@x>", "c@x"], "x", 65),
        ] {
            assert_eq!(composed(arguments, message).unwrap_err().code(), code, "{arguments:?}");
        }
    }
}
