//! What became of a delivery, per recipient and per message.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{HOP_TEXT_BYTES_MAX, REPLY_BYTES_MAX};
use crate::plain::plain;

/// Where a reply came from: what tells a refusal from a broken line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The remote said it; the text is verbatim.
    Remote,
    /// This machine decided it (an address that cannot be served, a program's exit code, a full disk).
    Local,
    /// No connection could be made.
    Connect,
    /// The connection was lost in the middle.
    Lost,
    /// The remote stopped answering.
    Stalled,
}

/// How a remote was reached: what the mail log tells besides the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hop {
    /// Where the connection went, with its port: `192.0.2.1:25`, `[2001:db8::1]:25`; the path of a Unix socket; empty if there was none.
    pub peer: String,
    /// The version of TLS, such as `TLSv1.3`; empty without TLS.
    pub tls: String,
    /// The cipher suite of TLS, such as `TLS_AES_256_GCM_SHA384`; empty without TLS.
    pub cipher: String,
    /// Milliseconds until the session could take the message: connection, greeting, TLS and AUTH. 0 for a session that was open before.
    pub connecting_ms: u64,
    /// Milliseconds from then to the reply.
    pub transfer_ms: u64,
}

impl Hop {
    fn cap(&mut self) {
        for text in [&mut self.peer, &mut self.tls, &mut self.cipher] {
            let end = text.floor_char_boundary(HOP_TEXT_BYTES_MAX);
            text.truncate(end);
        }
    }
}

/// The last word about a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Where it came from.
    pub cause: Cause,
    /// The three-digit code of SMTP, 0 if there is none.
    pub code: u16,
    /// The enhanced status code (RFC 3463), such as `5.1.1`; empty if the remote gave none.
    pub enhanced: String,
    /// The remote's text verbatim, lines joined by `\n`; or what this machine found. Without the codes.
    pub text: String,
    /// Who said it: a host name or address, a program, a path; empty if nobody.
    pub remote: String,
    /// How the remote was reached, where the provider says so.
    #[serde(default)]
    pub hop: Option<Box<Hop>>,
}

impl Reply {
    /// A reply of this machine.
    #[must_use]
    pub fn local(code: u16, enhanced: &str, text: impl Into<String>) -> Self {
        let (enhanced, text) = (enhanced.to_owned(), text.into());
        Self { cause: Cause::Local, code, enhanced, text, remote: String::new(), hop: None }
    }

    /// The same reply, with how its remote was reached.
    #[must_use]
    pub fn by(self, hop: Hop) -> Self {
        Self { hop: Some(Box::new(hop)), ..self }
    }

    /// Cuts over-long texts, for a reply that comes from outside. What was found here loses the numbers of the system; what a remote
    /// has said stays as it is.
    #[must_use]
    pub fn capped(mut self) -> Self {
        if self.cause != Cause::Remote {
            self.text = plain(&self.text);
        }
        for text in [&mut self.enhanced, &mut self.text, &mut self.remote] {
            let end = text.floor_char_boundary(REPLY_BYTES_MAX);
            text.truncate(end);
        }
        if let Some(hop) = &mut self.hop {
            hop.cap();
        }
        self
    }
}

impl fmt::Display for Reply {
    /// As in a log line: `550 5.1.1 no such user (mx.example)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code != 0 {
            write!(f, "{} ", self.code)?;
        }
        if !self.enhanced.is_empty() {
            write!(f, "{} ", self.enhanced)?;
        }
        f.write_str(&self.text.replace('\n', " / "))?;
        // A text that names the place needs no second mention.
        if !self.remote.is_empty() && !self.text.contains(&self.remote) {
            write!(f, " ({})", self.remote)?;
        }
        Ok(())
    }
}

/// What became of one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is where it belongs: nobody forwards it further.
    Delivered(Reply),
    /// A next hop took it.
    Relayed {
        /// What the next hop said.
        reply: Reply,
        /// Whether the next hop also took over the duty to report (it offers DSN, RFC 3461 5.2.1).
        reports: bool,
    },
    /// It can never be delivered.
    Failed(Reply),
    /// Not now; later perhaps.
    Deferred(Reply),
}

impl Outcome {
    /// The reply inside.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply) | Self::Relayed { reply, .. } | Self::Failed(reply) | Self::Deferred(reply) => reply,
        }
    }

    /// Whether this settles the recipient (PR_RESPONSIBILITY becomes TRUE).
    #[must_use]
    pub fn settles(&self) -> bool {
        match self {
            Self::Delivered(_) | Self::Relayed { .. } | Self::Failed(_) => true,
            Self::Deferred(_) => false,
        }
    }

    /// The same outcome with its texts cut to what is kept.
    #[must_use]
    pub fn capped(self) -> Self {
        self.map(Reply::capped)
    }

    /// The same outcome, with how its remote was reached.
    #[must_use]
    pub fn by(self, hop: Hop) -> Self {
        self.map(|reply| reply.by(hop))
    }

    fn map(self, change: impl FnOnce(Reply) -> Reply) -> Self {
        match self {
            Self::Delivered(reply) => Self::Delivered(change(reply)),
            Self::Relayed { reply, reports } => Self::Relayed { reply: change(reply), reports },
            Self::Failed(reply) => Self::Failed(change(reply)),
            Self::Deferred(reply) => Self::Deferred(change(reply)),
        }
    }
}

/// How a provider ends `submit_message` (IXPLogon::SubmitMessage).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubmitResult {
    /// The provider is through with the message; what it did not settle is offered again (S_OK).
    Done,
    /// Nothing was done; offer it again a little later (MAPI_E_BUSY, 0x8004010B).
    Busy,
    /// Nothing was done; it is for another provider (MAPI_E_NOT_ME, 0x80040502).
    NotMe,
    /// Offer what is left after so many milliseconds (MAPI_E_WAIT, 0x80040500).
    Wait {
        /// Milliseconds.
        after_ms: u64,
    },
    /// Stopped for a cancellation; what was not settled stays as it was (MAPI_E_USER_CANCEL, 0x80040113).
    Cancelled,
    /// The whole delivery failed for now, for one reason (any other error).
    Error(Reply),
    /// The network failed; offer what is left after so many milliseconds (MAPI_E_NETWORK_ERROR, 0x80040115).
    NetworkError {
        /// Milliseconds.
        after_ms: u64,
        /// What happened.
        reply: Box<Reply>,
    },
    /// The provider asked for a deferred message and does not want it any more: it stays deferred (MAPI_E_CANCEL, 0x80040501).
    NotWanted,
}
