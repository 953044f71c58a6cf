//! Addresses on their way in: an unqualified one gets its domain, rewriting follows, then aliases; routing comes after that. Pure.
//!
//! ```text
//!  envelope ─▶ qualify ─▶ rewrite (submissions) ─▶ always_bcc ─▶ aliases ─▶ duplicates away ─▶ route
//!  header   ─▶ qualify ─▶ rewrite (both: submissions only)
//! ```
//!
//! | an address | is |
//! |---|---|
//! | without a domain | local: it gets `@origin` |
//! | at `origin`, `hostname` or `localhost` | local: it may be an alias |
//! | of another type than SMTP | never touched |

// What a local name stands for.
pub mod aliases;
// Addresses in place of others.
pub mod rewrite;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use spooler_protocol::limits::RECIPIENTS_MAX;
use spooler_protocol::message::{Address, Envelope, Notify, Recipient, SMTP, has_domain};

use aliases::Aliases;
use rewrite::{Place, Rewrite, Role};

/// The domain that is this machine whatever it is called.
const LOCALHOST: &str = "localhost";

/// What is done with addresses on their way in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressing {
    /// The domain of an address without one; empty leaves it as it is.
    pub origin: String,
    /// The name of this machine in mail.
    pub hostname: String,
    /// Addresses in place of others.
    pub rewrite: Rewrite,
    /// What a local name stands for.
    pub aliases: Aliases,
    /// Gets a copy of every message.
    pub always_bcc: Vec<Address>,
}

/// The aliases of a message's recipients make too many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "With its aliases expanded the message has more than {RECIPIENTS_MAX} recipients; send it to fewer at once"
        )
    }
}

impl Addressing {
    /// The same with other aliases.
    #[must_use]
    pub fn with_aliases(&self, aliases: Aliases) -> Self {
        Self {
            origin: self.origin.clone(),
            hostname: self.hostname.clone(),
            rewrite: self.rewrite.clone(),
            aliases,
            always_bcc: self.always_bcc.clone(),
        }
    }

    /// An address with the origin as its domain if it has none. An empty one is the null sender, and stays so.
    #[must_use]
    pub fn qualified<'a>(&self, address: &'a str) -> Cow<'a, str> {
        if address.is_empty() || self.origin.is_empty() || has_domain(address) {
            Cow::Borrowed(address)
        } else {
            Cow::Owned(format!("{address}@{}", self.origin))
        }
    }

    /// The local part of an address that this machine decides on.
    #[must_use]
    pub fn local_part<'a>(&self, address: &'a str) -> Option<&'a str> {
        if !has_domain(address) {
            return Some(address);
        }
        let (local, domain) = address.rsplit_once('@')?;
        self.local_domains().any(|own| own.eq_ignore_ascii_case(domain)).then_some(local)
    }

    /// The domains of addresses that may be aliases.
    pub fn local_domains(&self) -> impl Iterator<Item = &str> {
        [self.origin.as_str(), self.hostname.as_str(), LOCALHOST].into_iter().filter(|domain| !domain.is_empty())
    }

    /// The address that stands in a header for this one; `None` if it stays as it is. Qualifying is not the business of this function.
    #[must_use]
    pub fn in_header(&self, role: Role, address: &str) -> Option<String> {
        self.rewrite.address(role, Place::Header, &self.qualified(address))
    }

    /// Completes an envelope: every address qualified, a submission rewritten, aliases expanded, each recipient once.
    ///
    /// # Errors
    /// If the aliases make too many recipients of it.
    pub fn admit(&self, envelope: &mut Envelope, submission: bool) -> Result<(), TooMany> {
        let rewritten = |role, address: &str| {
            let qualified = self.qualified(address);
            let changed = if submission { self.rewrite.address(role, Place::Envelope, &qualified) } else { None };
            changed.or_else(|| matches!(qualified, Cow::Owned(_)).then(|| qualified.into_owned()))
        };
        if let Some(sender) = rewritten(Role::Sender, &envelope.sender) {
            envelope.sender = sender;
        }
        if let [only] = envelope.recipients.as_slice()
            && self.always_bcc.is_empty()
            && self.goes_through(only, submission)
        {
            return Ok(());
        }
        let mut settled = Settled::default();
        let copies = self
            .always_bcc
            .iter()
            .map(|address| Recipient { notify: Some(Notify::NEVER), ..Recipient::new(address.clone()) });
        for mut recipient in std::mem::take(&mut envelope.recipients).into_iter().chain(copies) {
            if recipient.address.kind() == SMTP
                && let Some(text) = rewritten(Role::Recipient, recipient.address.text())
                && let Ok(address) = Address::smtp(&text)
            {
                let qualified = self.qualified(recipient.address.text()).into_owned();
                if text != qualified {
                    note_original(&mut recipient, &qualified);
                }
                recipient.address = address;
            }
            self.settle(recipient, &mut settled)?;
        }
        envelope.recipients = settled.recipients;
        Ok(())
    }

    /// Whether a recipient needs nothing at all, which is the common case.
    fn goes_through(&self, recipient: &Recipient, submission: bool) -> bool {
        let address = recipient.address.text();
        recipient.address.kind() != SMTP
            || (has_domain(address)
                && (self.aliases.is_empty() || self.local_part(address).is_none())
                && !(submission && self.rewrite.concerns(Role::Recipient)))
    }

    /// Adds a recipient, or those for whom it stands.
    fn settle(&self, recipient: Recipient, settled: &mut Settled) -> Result<(), TooMany> {
        let finals = match recipient.address.kind() == SMTP {
            true => self.aliases.expand(recipient.address.text(), self),
            false => None,
        };
        let Some(finals) = finals else { return settled.add(recipient) };
        let original = recipient.address.text().to_owned();
        for address in finals {
            let mut member = Recipient { address, ..recipient.clone() };
            note_original(&mut member, &original);
            settled.add(member)?;
        }
        Ok(())
    }
}

/// Recipients, each once. A domain is the same in any case; a local part may not be.
#[derive(Default)]
struct Settled {
    recipients: Vec<Recipient>,
    known: HashSet<String>,
}

impl Settled {
    fn add(&mut self, recipient: Recipient) -> Result<(), TooMany> {
        let mut key = recipient.address.to_string();
        if let Some(at) = key.rfind('@').and_then(|at| key.get_mut(at..)) {
            at.make_ascii_lowercase();
        }
        if self.known.insert(key) {
            if self.recipients.len() >= RECIPIENTS_MAX {
                return Err(TooMany);
            }
            self.recipients.push(recipient);
        }
        Ok(())
    }
}

/// Keeps the address that the sender gave for reports (RFC 3461 5.2.1), if there is none yet. One that is not ASCII would need another
/// form (RFC 6533 3), and is left out.
fn note_original(recipient: &mut Recipient, original: &str) {
    if recipient.orcpt.is_none() && original.is_ascii() {
        recipient.orcpt = Some(format!("rfc822;{}", xtext(original)));
    }
}

/// xtext (RFC 3461 4).
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | 0..=b' ' | 0x7f.. => out.push_str(&format!("+{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests;
