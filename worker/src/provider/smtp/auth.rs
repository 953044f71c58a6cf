//! Logging in: AUTH with PLAIN (RFC 4616) or LOGIN, over a connection that may carry a password.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spooler_protocol::outcome::Reply;

use super::extensions::Extensions;
use super::wire::{Broken, Wire};

/// Name and password, ready to be sent.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
    /// Whether the password may travel without TLS.
    pub(super) without_tls: bool,
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
    /// Logs in by the first of PLAIN and LOGIN that is offered.
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
                "There is no TLS, so the password is not sent; offer STARTTLS or set auth_without_tls = true",
            );
        }
        if !offered.auth_plain && !offered.auth_login {
            return refused("The server offers neither AUTH PLAIN nor AUTH LOGIN");
        }
        let reply = if offered.auth_plain {
            let initial = STANDARD.encode(format!("\0{}\0{}", self.username, self.password));
            wire.command(format!("AUTH PLAIN {initial}").as_bytes(), patience).await?
        } else {
            let mut reply = wire.command(b"AUTH LOGIN", patience).await?;
            for answer in [&self.username, &self.password] {
                if reply.code != 334 {
                    break;
                }
                reply = wire.command(STANDARD.encode(answer).as_bytes(), patience).await?;
            }
            reply
        };
        if reply.is_positive() { Ok(()) } else { Err(AuthFailure::Refused(reply.from(remote))) }
    }
}
