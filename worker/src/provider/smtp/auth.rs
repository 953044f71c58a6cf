//! Logging in: AUTH with PLAIN (RFC 4616) or LOGIN, over a connection that may carry a password.
//!
//! A server that refuses one mechanism may take another (RFC 4954 4). The next one is tried after every refusal for good but 535: that
//! is about the password, and a second try would count against the account. For servers that mean the mechanism and say 535 there is
//! the setting `auth`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spooler_protocol::outcome::Reply;

use super::extensions::Extensions;
use super::reply::ServerReply;
use super::wire::{Broken, Wire};

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 4616.
    Plain,
    /// What has no RFC, and every server.
    Login,
}

/// The credentials are invalid (RFC 4954 6).
const INVALID: u16 = 535;

/// Name and password, ready to be sent.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
    /// Whether the password may travel without TLS.
    pub(super) without_tls: bool,
    /// What may be used, in the order of preference.
    pub(super) mechanisms: Vec<Mechanism>,
}

/// Why nobody is logged in.
pub(super) enum AuthFailure {
    /// The server said no, or offers no way.
    Refused(Reply),
    /// The connection broke.
    Broken(Broken),
}

impl From<Broken> for AuthFailure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Login {
    /// Logs in by the first mechanism that is offered and not refused.
    ///
    /// # Errors
    /// If the server refuses, or the password would have to go in the clear.
    pub(super) async fn run(
        &self,
        wire: &mut Wire,
        offered: &Extensions,
        remote: &str,
        patience: Duration,
    ) -> Result<(), AuthFailure> {
        let refused = |text: &str| {
            let reply = Reply { remote: remote.to_owned(), ..Reply::local(454, "4.7.0", text) };
            Err(AuthFailure::Refused(reply))
        };
        if !wire.is_secure() && !self.without_tls {
            return refused(
                "There is no TLS, so the password is not sent; set tls = \"required\", or auth_without_tls = true",
            );
        }
        let usable = self.mechanisms.iter().filter(|mechanism| mechanism.is_offered(offered));
        let mut refusal: Option<ServerReply> = None;
        for mechanism in usable {
            let reply = match (self.try_mechanism(*mechanism, wire, patience).await, &refusal) {
                (Ok(reply), _) => reply,
                // The server hung up on another try: its refusal is the reason.
                (Err(_), Some(_)) => break,
                (Err(broken), None) => return Err(broken.into()),
            };
            if reply.is_positive() {
                return Ok(());
            }
            let final_word = !reply.is_permanent() || reply.code == INVALID;
            refusal = Some(reply);
            if final_word {
                break;
            }
        }
        match refusal {
            Some(refusal) => Err(AuthFailure::Refused(self.without_secrets(refusal.from(remote)))),
            None => {
                let known: Vec<&str> = self.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
                refused(&format!("The server does not offer AUTH {}", known.join(" or ")))
            }
        }
    }

    /// A reply of the server without the password, which some servers repeat.
    fn without_secrets(&self, mut reply: Reply) -> Reply {
        let plain = STANDARD.encode(format!("\0{}\0{}", self.username, self.password));
        for secret in [plain, STANDARD.encode(&self.password), self.password.clone()] {
            if !secret.is_empty() {
                reply.text = reply.text.replace(&secret, "[password]");
            }
        }
        reply
    }

    async fn try_mechanism(
        &self,
        mechanism: Mechanism,
        wire: &mut Wire,
        patience: Duration,
    ) -> Result<ServerReply, Broken> {
        let (first, answers) = match mechanism {
            Mechanism::Plain => {
                let initial = STANDARD.encode(format!("\0{}\0{}", self.username, self.password));
                (format!("AUTH PLAIN {initial}"), vec![initial])
            }
            Mechanism::Login => {
                ("AUTH LOGIN".to_owned(), [&self.username, &self.password].map(|text| STANDARD.encode(text)).to_vec())
            }
        };
        // A server that does not know initial responses asks for PLAIN's once more.
        let mut reply = wire.command(first.as_bytes(), patience).await?;
        for answer in answers {
            if reply.code != 334 {
                break;
            }
            reply = wire.command(answer.as_bytes(), patience).await?;
        }
        Ok(reply)
    }
}

impl Mechanism {
    fn is_offered(self, offered: &Extensions) -> bool {
        match self {
            Self::Plain => offered.auth_plain,
            Self::Login => offered.auth_login,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_password_is_masked_in_replies() {
        let login = Login {
            username: "me".to_owned(),
            password: "hunter2".to_owned(),
            without_tls: false,
            mechanisms: vec![Mechanism::Plain],
        };
        for secret in ["hunter2", "aHVudGVyMg==", "AG1lAGh1bnRlcjI="] {
            let reply = login.without_secrets(Reply::local(535, "5.7.8", format!("bad: AUTH PLAIN {secret}!")));
            assert_eq!(reply.text, "bad: AUTH PLAIN [password]!");
        }
    }
}
