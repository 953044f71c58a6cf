//! Envelopes, recipients and addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{ADDRESS_BYTES_MAX, ADDRESS_TYPE_BYTES_MAX, DSN_PARAMETER_BYTES_MAX, RECIPIENTS_MAX};

/// The address type of mail: what an address without a type is.
pub const SMTP: &str = "SMTP";

/// An address with its type: `SMTP:a@b`, `FAX:+15551212`, `FILE:/dir`; a bare `a@b` is `SMTP`.
///
/// Holds no control character, so it can stand in a command line, a log line or a protocol dialogue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    kind: String,
    text: String,
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is nothing behind the type.
    #[error("The address is empty")]
    Empty,
    /// Longer than [`ADDRESS_BYTES_MAX`].
    #[error("The address is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    /// A control character, which could break out of a dialogue or a log line.
    #[error("The address holds a control character")]
    Control,
}

impl Address {
    /// An address of type [`SMTP`].
    ///
    /// # Errors
    /// As [`AddressError`] says.
    pub fn smtp(text: &str) -> Result<Self, AddressError> {
        Self::new(SMTP, text)
    }

    /// An address of any type; the type is upper case letters and digits.
    ///
    /// # Errors
    /// As [`AddressError`] says.
    pub fn new(kind: &str, text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        Ok(Self { kind: kind.to_owned(), text: text.to_owned() })
    }

    /// The type, such as `SMTP`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The address without its type.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The local part and the domain of an address with an `@`, split at the last one. The domain has no trailing dot.
    #[must_use]
    pub fn local_and_domain(&self) -> Option<(&str, &str)> {
        let (local, domain) = self.text.rsplit_once('@')?;
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        (!domain.is_empty()).then_some((local, domain))
    }
}

/// Whether a mail address has a domain: an `@` outside a quoted local part.
#[must_use]
pub fn has_domain(address: &str) -> bool {
    let behind_quotes = match address.strip_prefix('"') {
        Some(_) => address.rsplit_once('"').map_or("", |(_, behind)| behind),
        None => address,
    };
    behind_quotes.contains('@')
}

fn is_address_type(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ADDRESS_TYPE_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some((kind, rest)) if is_address_type(kind) => Self::new(kind, rest),
            _ => Self::new(SMTP, text),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    /// The type is left out where parsing puts it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads_as_typed = self.text.split_once(':').is_some_and(|(kind, _)| is_address_type(kind));
        if self.kind == SMTP && !reads_as_typed {
            f.write_str(&self.text)
        } else {
            write!(f, "{}:{}", self.kind, self.text)
        }
    }
}

/// Which reports a sender wants about a recipient (RFC 3461 4.1, `NOTIFY`).
///
/// `None` in a [`Recipient`] means that the parameter was not given: failures are reported, and delays if the spooler is set so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Report delivery.
    #[serde(default)]
    pub success: bool,
    /// Report failure.
    #[serde(default)]
    pub failure: bool,
    /// Report delay.
    #[serde(default)]
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// Whether nothing is to be reported.
    #[must_use]
    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    /// The value of the parameter in SMTP.
    #[must_use]
    pub fn keywords(self) -> String {
        let words: Vec<&str> = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")]
            .into_iter()
            .filter_map(|(on, word)| on.then_some(word))
            .collect();
        if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }
    }
}

/// Why a `NOTIFY` value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NOTIFY takes NEVER alone, or a list of SUCCESS, FAILURE and DELAY")]
pub struct NotifyError;

impl FromStr for Notify {
    type Err = NotifyError;

    fn from_str(text: &str) -> Result<Self, NotifyError> {
        if text.eq_ignore_ascii_case("never") {
            return Ok(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in text.split(',') {
            match word.trim().to_ascii_lowercase().as_str() {
                "success" => notify.success = true,
                "failure" => notify.failure = true,
                "delay" => notify.delay = true,
                _ => return Err(NotifyError),
            }
        }
        Ok(notify)
    }
}

/// How much of the message a failure report returns (RFC 3461 4.3, `RET`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// What the body is declared as (RFC 6152, `BODY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyType {
    /// Not declared, or `7BIT`.
    #[default]
    #[serde(rename = "7bit")]
    SevenBit,
    /// `8BITMIME`.
    #[serde(rename = "8bit")]
    EightBit,
}

/// How urgent a message is (`PR_PRIORITY`: urgent 1, normal 0, non-urgent -1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Before all others of its provider.
    Urgent,
    /// In order of submission.
    #[default]
    Normal,
    /// After all others of its provider.
    NonUrgent,
}

/// One recipient of a message, as its sender named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where to.
    pub address: Address,
    /// Which reports are wanted; `None` if the sender did not say.
    #[serde(default)]
    pub notify: Option<Notify>,
    /// The original recipient, `type;address` in xtext as it came (RFC 3461 4.2).
    #[serde(default)]
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without report wishes.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, notify: None, orcpt: None }
    }
}

/// Everything about a message that is not its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The return path without angle brackets; empty is the null sender of reports.
    pub sender: String,
    /// At least one.
    pub recipients: Vec<Recipient>,
    /// What the body is declared as.
    #[serde(default)]
    pub body: BodyType,
    /// Whether addresses or header need RFC 6531.
    #[serde(default)]
    pub smtputf8: bool,
    /// How much a failure report returns; `None` if the sender did not say.
    #[serde(default)]
    pub ret: Option<Ret>,
    /// The sender's identifier for the envelope, in xtext as it came (RFC 3461 4.4).
    #[serde(default)]
    pub envid: Option<String>,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
}

/// Why an [`Envelope`] is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// No recipient.
    #[error("The message has no recipient")]
    NoRecipient,
    /// More than [`RECIPIENTS_MAX`].
    #[error("The message has {0} recipients; {RECIPIENTS_MAX} are allowed")]
    TooManyRecipients(usize),
    /// The sender cannot be one.
    #[error("The sender {0:?} holds a control character or is longer than {ADDRESS_BYTES_MAX} bytes")]
    Sender(String),
    /// ENVID or ORCPT cannot be one.
    #[error("{0} holds a character outside xtext or is longer than {DSN_PARAMETER_BYTES_MAX} bytes")]
    DsnParameter(&'static str),
}

impl Envelope {
    /// Checks what decoding cannot: counts, lengths and characters.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), EnvelopeError> {
        if self.recipients.is_empty() {
            return Err(EnvelopeError::NoRecipient);
        }
        if self.recipients.len() > RECIPIENTS_MAX {
            return Err(EnvelopeError::TooManyRecipients(self.recipients.len()));
        }
        if self.sender.len() > ADDRESS_BYTES_MAX || self.sender.chars().any(char::is_control) {
            return Err(EnvelopeError::Sender(self.sender.chars().take(80).collect()));
        }
        if self.envid.as_deref().is_some_and(|text| !is_dsn_parameter(text)) {
            return Err(EnvelopeError::DsnParameter("ENVID"));
        }
        let orcpt_ok = |r: &Recipient| r.orcpt.as_deref().is_none_or(is_dsn_parameter);
        if !self.recipients.iter().all(orcpt_ok) {
            return Err(EnvelopeError::DsnParameter("ORCPT"));
        }
        Ok(())
    }
}

/// Whether a text can stand as an ENVID or ORCPT value: printable, no space, not too long. UTF-8 is let through for RFC 6533.
#[must_use]
pub fn is_dsn_parameter(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= DSN_PARAMETER_BYTES_MAX
        && text.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_is_smtp_and_prints_bare() {
        let address: Address = "a@b".parse().unwrap();
        assert_eq!((address.kind(), address.text()), ("SMTP", "a@b"));
        assert_eq!(address.to_string(), "a@b");
    }

    #[test]
    fn an_at_sign_in_quotes_is_no_domain() {
        for (address, expected) in
            [("root", false), ("a@b", true), ("\"a@b\"", false), ("\"a@b\"@c", true), ("\"a", false), ("", false)]
        {
            assert_eq!(has_domain(address), expected, "{address}");
        }
    }

    #[test]
    fn a_typed_address_keeps_its_type() {
        let address: Address = "FAX:+15551212".parse().unwrap();
        assert_eq!((address.kind(), address.text()), ("FAX", "+15551212"));
        assert_eq!(address.to_string(), "FAX:+15551212");
    }

    #[test]
    fn an_smtp_address_that_looks_typed_survives_a_round_trip() {
        let address = Address::smtp("FAX:x@y").unwrap();
        assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
    }

    #[test]
    fn control_characters_are_refused() {
        assert_eq!("a\r\n@b".parse::<Address>(), Err(AddressError::Control));
        assert_eq!("SMTP:".parse::<Address>(), Err(AddressError::Empty));
    }

    #[test]
    fn notify_reads_and_writes_its_keywords() {
        assert_eq!("NEVER".parse(), Ok(Notify::NEVER));
        let both: Notify = "SUCCESS,DELAY".parse().unwrap();
        assert_eq!(both.keywords(), "SUCCESS,DELAY");
        assert!("SUCCESS,NEVER".parse::<Notify>().is_err());
    }
}
