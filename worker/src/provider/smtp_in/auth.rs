//! AUTH PLAIN (RFC 4616) and LOGIN: who may submit. Pure.
//!
//! All users and whole passwords are compared whatever the outcome, so that the time of an answer says little about who exists.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use super::reply::Reply;

/// The mechanisms, as EHLO names them.
pub(super) const MECHANISMS: &str = "PLAIN LOGIN";

const CANCELLED: Reply = Reply::new(501, "5.7.0", "Authentication cancelled");
const NOT_BASE64: Reply = Reply::new(501, "5.5.2", "Invalid base64 data");
const WRONG: Reply = Reply::new(535, "5.7.8", "Authentication credentials invalid");

/// Names and passwords. Never shown.
#[derive(Clone, Default)]
pub(super) struct Users(Vec<(String, String)>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

impl Users {
    /// These users, each with a password.
    pub(super) fn new(users: Vec<(String, String)>) -> Self {
        Self(users)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Passwords are bytes: a client that sends Latin-1 is wrong by its password, not by its encoding.
    fn know(&self, name: &[u8], password: &[u8]) -> bool {
        let mut known = Choice::from(0);
        for (user, secret) in &self.0 {
            known |= user.as_bytes().ct_eq(name) & secret.as_bytes().ct_eq(password);
        }
        known.into()
    }
}

/// A dialogue that waits for the client's next line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// PLAIN without an initial response.
    Plain,
    /// LOGIN: the name comes.
    LoginName,
    /// LOGIN: the password of this user comes.
    LoginPassword(String),
}

/// Where a dialogue stands after a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ask this and wait.
    Ask(Exchange, &'static str),
    /// This user is in.
    Known(String),
    /// Nobody is.
    Refused(Reply),
}

/// Begins a dialogue.
pub(super) fn begin(users: &Users, mechanism: &str, initial: Option<&str>) -> Turn {
    let (exchange, challenge) = match mechanism.to_ascii_uppercase().as_str() {
        "PLAIN" => (Exchange::Plain, ""),
        "LOGIN" => (Exchange::LoginName, "VXNlcm5hbWU6"), // "Username:"
        _ => return Turn::Refused(Reply::new(504, "5.5.4", "Mechanism not supported; use PLAIN or LOGIN")),
    };
    match initial {
        None => Turn::Ask(exchange, challenge),
        Some("=") => go_on(users, exchange, b""),
        Some(text) => go_on(users, exchange, text.as_bytes()),
    }
}

/// Takes the client's next line.
pub(super) fn go_on(users: &Users, exchange: Exchange, line: &[u8]) -> Turn {
    if line == b"*" {
        return Turn::Refused(CANCELLED);
    }
    let Ok(bytes) = STANDARD.decode(line) else { return Turn::Refused(NOT_BASE64) };
    let found = match exchange {
        Exchange::LoginName => {
            let name = String::from_utf8_lossy(&bytes).into_owned();
            return Turn::Ask(Exchange::LoginPassword(name), "UGFzc3dvcmQ6"); // "Password:"
        }
        Exchange::LoginPassword(name) => users.know(name.as_bytes(), &bytes).then_some(name),
        Exchange::Plain => plain(users, &bytes),
    };
    found.map_or(Turn::Refused(WRONG), Turn::Known)
}

/// `[identity] NUL name NUL password`; acting for somebody else is not possible.
fn plain(users: &Users, response: &[u8]) -> Option<String> {
    let mut parts = response.split(|byte| *byte == 0);
    let (identity, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && (identity.is_empty() || identity == name);
    (users.know(name, password) && whole).then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::new(vec![("ann".to_owned(), "sesame".to_owned()), ("bob".to_owned(), "s3cret".to_owned())])
    }

    fn plain_with(text: &str) -> Turn {
        begin(&users(), "plain", Some(&STANDARD.encode(text)))
    }

    #[test]
    fn plain_knows_its_users() {
        assert_eq!(plain_with("\0bob\0s3cret"), Turn::Known("bob".to_owned()));
        assert_eq!(plain_with("ann\0ann\0sesame"), Turn::Known("ann".to_owned()));
        for wrong in ["\0bob\0sesame", "\0bob\0", "\0\0", "", "\0bob\0s3cret\0", "ann\0bob\0s3cret", "\0eve\0s3cret"] {
            assert_eq!(plain_with(wrong), Turn::Refused(WRONG), "{wrong:?}");
        }
        assert_eq!(begin(&users(), "PLAIN", None), Turn::Ask(Exchange::Plain, ""));
        assert_eq!(begin(&users(), "PLAIN", Some("=")), Turn::Refused(WRONG));
    }

    #[test]
    fn passwords_are_compared_as_bytes() {
        let latin1 = STANDARD.encode(b"\0bob\0s\xe9cret");
        assert_eq!(begin(&users(), "PLAIN", Some(&latin1)), Turn::Refused(WRONG));
        let asked = Exchange::LoginPassword("bob".to_owned());
        assert_eq!(go_on(&users(), asked, STANDARD.encode(b"s\xe9cret").as_bytes()), Turn::Refused(WRONG));
    }

    #[test]
    fn login_asks_twice() {
        let Turn::Ask(exchange, "VXNlcm5hbWU6") = begin(&users(), "LOGIN", None) else { panic!("no question") };
        let Turn::Ask(exchange, "UGFzc3dvcmQ6") = go_on(&users(), exchange, STANDARD.encode("ann").as_bytes()) else {
            panic!("no second question")
        };
        let right = go_on(&users(), exchange.clone(), STANDARD.encode("sesame").as_bytes());
        assert_eq!(right, Turn::Known("ann".to_owned()));
        assert_eq!(go_on(&users(), exchange, STANDARD.encode("Sesame").as_bytes()), Turn::Refused(WRONG));
    }

    #[test]
    fn a_dialogue_can_be_cancelled_and_garbled() {
        assert_eq!(go_on(&users(), Exchange::Plain, b"*"), Turn::Refused(CANCELLED));
        assert_eq!(go_on(&users(), Exchange::Plain, b"!!"), Turn::Refused(NOT_BASE64));
        assert!(matches!(begin(&users(), "CRAM-MD5", None), Turn::Refused(Reply { code: 504, .. })));
    }

    #[test]
    fn users_do_not_show_their_passwords() {
        assert_eq!(format!("{:?}", users()), "Users(2)");
    }
}
