//! What the server says to each command, and what the connection has to do next. Pure: lines in, replies out; no I/O, no clock.
//!
//! ```text
//!   greeted ──EHLO──▶ ready ──MAIL──▶ transaction ──DATA/BDAT──▶ content ──▶ ready
//!      ▲                │  ▲               │ RSET, EHLO, end
//!      │                │  └───────────────┘
//!      └── STARTTLS: everything is forgotten (RFC 3207 4.2)
//! ```
//!
//! A command that must be the last of a group (RFC 2920 3.1) and is not ends the connection: what follows it cannot be told from
//! what somebody put there.

use std::net::IpAddr;
use std::rc::Rc;

use spooler_protocol::from_worker::Arrival;
use spooler_protocol::message::{Address, Envelope};

use super::auth::{self, Exchange, Turn, Users};
use super::command::{self, Command, Rejected, Syntax};
use super::parameters::{MailParameters, RcptParameters};
use super::received::{self, Trace};
use super::reply::Reply;
use super::transaction::Transaction;

const OK: Reply = Reply::new(250, "2.0.0", "Ok");
const HELLO_FIRST: Reply = Reply::new(503, "5.5.1", "Send EHLO first");
const MAIL_FIRST: Reply = Reply::new(503, "5.5.1", "Need MAIL command first");
const MAIL_TWICE: Reply = Reply::new(503, "5.5.1", "Nested MAIL command; send RSET first");
const OUT_OF_STEP: Reply =
    Reply::new(554, "5.5.0", "SMTP synchronization error: wait for the reply before you send more");
const AUTH_REQUIRED: Reply = Reply::new(530, "5.7.0", "Authentication required");
const TOO_MANY_ERRORS: Reply = Reply::new(421, "4.7.0", "Too many errors");

/// What holds for all sessions of a provider.
#[derive(Debug)]
pub(super) struct Rules {
    /// What the server calls itself.
    pub(super) hostname: String,
    /// Largest message, bytes.
    pub(super) message_bytes_max: u64,
    /// Most recipients of one message.
    pub(super) recipients_max: usize,
    /// Errors that one client may make.
    pub(super) errors_max: u32,
    /// Whether STARTTLS is offered.
    pub(super) offers_tls: bool,
    /// Who may submit with a password.
    pub(super) users: Users,
    /// Whether nobody may without.
    pub(super) auth_required: bool,
    /// Whether its clients submit messages, rather than passing on what others have submitted.
    pub(super) submission: bool,
}

/// What the connection does after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read the next command.
    Command,
    /// Read content up to its dot.
    Data,
    /// Read so many bytes of content.
    Chunk {
        /// Bytes.
        size: u64,
        /// Whether they end the message.
        last: bool,
    },
    /// Read so many bytes and throw them away.
    Discard(u64),
    /// Shake hands for TLS.
    StartTls,
    /// End: the client is done.
    Quit,
    /// End, although the client may still be sending.
    Close,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    rules: Rc<Rules>,
    peer: IpAddr,
    may_relay: bool,
    tls: bool,
    name: String,
    extended: bool,
    user: Option<String>,
    exchange: Option<Exchange>,
    transaction: Option<Transaction>,
    errors: u32,
}

type Answer = Result<Next, Rejected>;

impl Session {
    /// A client has connected. `may_relay`: it may submit without a password.
    pub(super) fn new(rules: Rc<Rules>, peer: IpAddr, may_relay: bool) -> Self {
        Self {
            rules,
            peer,
            may_relay,
            tls: false,
            name: String::new(),
            extended: false,
            user: None,
            exchange: None,
            transaction: None,
            errors: 0,
        }
    }

    /// The first line. `behind`: the client spoke before it.
    pub(super) fn greet(&self, behind: bool, out: &mut Vec<u8>) -> Next {
        if behind {
            OUT_OF_STEP.write(out);
            return Next::Close;
        }
        Reply::with_text(220, "", format!("{} ESMTP", self.rules.hostname)).write(out);
        Next::Command
    }

    /// A line came. `behind`: more input came with it.
    pub(super) fn on_line(
        &mut self,
        line: &[u8],
        behind: bool,
        may_serve: impl FnOnce(&Address) -> bool,
        out: &mut Vec<u8>,
    ) -> Next {
        let answer = match self.exchange.take() {
            Some(exchange) => {
                let turn = auth::go_on(&self.rules.users, exchange, line);
                self.turn(turn, out)
            }
            None => {
                let syntax = if self.may_relay { Syntax::Tolerant } else { Syntax::Strict };
                command::parse(line, syntax).and_then(|command| self.on_command(command, behind, may_serve, out))
            }
        };
        match answer {
            Ok(next) => next,
            Err(Rejected::Reply(reply)) => self.answer(&reply, out),
            Err(Rejected::Fatal(reply)) => {
                reply.write(out);
                Next::Close
            }
        }
    }

    /// Says something, and counts it if it is an error: a client that does nothing but err is sent away.
    pub(super) fn answer(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Next {
        self.exchange = None;
        if reply.is_error() {
            self.errors += 1;
            if self.errors > self.rules.errors_max {
                TOO_MANY_ERRORS.write(out);
                return Next::Close;
            }
        }
        reply.write(out);
        Next::Command
    }

    fn on_command(
        &mut self,
        command: Command<'_>,
        behind: bool,
        may_serve: impl FnOnce(&Address) -> bool,
        out: &mut Vec<u8>,
    ) -> Answer {
        match command {
            Command::Hello { .. } | Command::Data if behind => return Err(Rejected::Fatal(OUT_OF_STEP)),
            Command::Hello { name, extended } => self.hello(name, extended, out),
            Command::Mail { sender, parameters } => return self.mail(sender, parameters, out),
            Command::Rcpt { recipient, parameters } => return self.rcpt(recipient, parameters, may_serve, out),
            Command::Data => return self.data(out),
            Command::Chunk { size, last } => return Ok(self.chunk(size, last, out)),
            Command::StartTls => return self.start_tls(behind, out),
            Command::Auth { mechanism, initial } => return self.auth(mechanism, initial, out),
            Command::Reset => {
                self.transaction = None;
                OK.write(out);
            }
            Command::Noop => OK.write(out),
            Command::Verify => Reply::new(252, "2.0.0", "Cannot verify the user; send a message").write(out),
            Command::Help => Reply::new(214, "2.0.0", "See RFC 5321").write(out),
            Command::Quit => {
                Reply::new(221, "2.0.0", "Bye").write(out);
                return Ok(Next::Quit);
            }
        }
        Ok(Next::Command)
    }

    fn hello(&mut self, name: &str, extended: bool, out: &mut Vec<u8>) {
        self.transaction = None;
        name.clone_into(&mut self.name);
        self.extended = extended;
        let rules = &self.rules;
        if !extended {
            Reply::with_text(250, "", rules.hostname.clone()).write(out);
            return;
        }
        let mut lines = format!("250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n", rules.hostname, rules.message_bytes_max);
        lines.push_str("250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n");
        if rules.offers_tls && !self.tls {
            lines.push_str("250-STARTTLS\r\n");
        }
        if self.offers_auth() {
            lines = lines + "250-AUTH " + auth::MECHANISMS + "\r\n";
        }
        lines.push_str("250 ENHANCEDSTATUSCODES\r\n");
        out.extend_from_slice(lines.as_bytes());
    }

    fn offers_auth(&self) -> bool {
        self.tls && !self.rules.users.is_empty()
    }

    fn mail(&mut self, sender: &str, parameters: MailParameters, out: &mut Vec<u8>) -> Answer {
        if self.name.is_empty() {
            return Err(HELLO_FIRST.into());
        }
        if self.rules.auth_required && self.user.is_none() {
            return Err(AUTH_REQUIRED.into());
        }
        if self.transaction.is_some() {
            return Err(MAIL_TWICE.into());
        }
        if parameters.auth && !self.offers_auth() {
            return Err(Reply::new(555, "5.5.4", "Parameter AUTH is not supported here").into());
        }
        self.transaction = Some(Transaction::begin(sender, parameters, self.rules.message_bytes_max)?);
        Reply::new(250, "2.1.0", "Ok").write(out);
        Ok(Next::Command)
    }

    /// A recipient that is refused is no error of the client: lists have dead members.
    fn rcpt(
        &mut self,
        recipient: &str,
        parameters: RcptParameters,
        may_serve: impl FnOnce(&Address) -> bool,
        out: &mut Vec<u8>,
    ) -> Answer {
        let Some(transaction) = &mut self.transaction else { return Err(MAIL_FIRST.into()) };
        let added = if self.may_relay || self.user.is_some() {
            transaction.recipient(recipient, parameters, self.rules.recipients_max, may_serve)
        } else {
            transaction.refuse_recipient();
            let text = format!("Relaying is not allowed from {} without authentication", self.peer);
            Err(Reply::with_text(550, "5.7.1", text))
        };
        added.err().unwrap_or(Reply::new(250, "2.1.5", "Ok")).write(out);
        Ok(Next::Command)
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Answer {
        let Some(transaction) = &self.transaction else { return Err(MAIL_FIRST.into()) };
        transaction.data()?;
        Reply::new(354, "", "End with <CR><LF>.<CR><LF>").write(out);
        Ok(Next::Data)
    }

    /// Whatever is said about a chunk, its bytes come and have to be read.
    fn chunk(&mut self, size: u64, last: bool, out: &mut Vec<u8>) -> Next {
        let checked = match &mut self.transaction {
            Some(transaction) => transaction.chunk(size, self.rules.message_bytes_max),
            None => Err(MAIL_FIRST),
        };
        let Err(reply) = checked else { return Next::Chunk { size, last } };
        if last {
            self.transaction = None;
        }
        match self.answer(&reply, out) {
            Next::Command => Next::Discard(size),
            close => close,
        }
    }

    fn start_tls(&mut self, behind: bool, out: &mut Vec<u8>) -> Answer {
        if !self.rules.offers_tls {
            return Err(Reply::new(502, "5.5.1", "STARTTLS is not offered").into());
        }
        if self.tls {
            return Err(Reply::new(503, "5.5.1", "TLS is already active").into());
        }
        if behind {
            return Err(Rejected::Fatal(OUT_OF_STEP));
        }
        Reply::new(220, "2.0.0", "Go ahead").write(out);
        Ok(Next::StartTls)
    }

    /// The handshake is done: nothing that was said before counts (RFC 3207 4.2), except errors.
    pub(super) fn on_tls(&mut self) {
        let errors = self.errors;
        *self = Self::new(Rc::clone(&self.rules), self.peer, self.may_relay);
        self.errors = errors;
        self.tls = true;
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>, out: &mut Vec<u8>) -> Answer {
        let refusal = if self.rules.users.is_empty() {
            Some(Reply::new(502, "5.5.1", "AUTH is not offered"))
        } else if !self.tls {
            Some(Reply::new(538, "5.7.11", "Encryption required for authentication; send STARTTLS first"))
        } else if self.name.is_empty() {
            Some(HELLO_FIRST)
        } else if self.user.is_some() {
            Some(Reply::new(503, "5.5.1", "Already authenticated"))
        } else {
            self.transaction.is_some().then_some(MAIL_TWICE)
        };
        match refusal {
            Some(reply) => Err(reply.into()),
            None => {
                let turn = auth::begin(&self.rules.users, mechanism, initial);
                self.turn(turn, out)
            }
        }
    }

    fn turn(&mut self, turn: Turn, out: &mut Vec<u8>) -> Answer {
        match turn {
            Turn::Ask(exchange, challenge) => {
                self.exchange = Some(exchange);
                Reply::new(334, "", challenge).write(out);
            }
            Turn::Known(user) => {
                self.user = Some(user);
                Reply::new(235, "2.7.0", "Authentication successful").write(out);
            }
            Turn::Refused(reply) => return Err(reply.into()),
        }
        Ok(Next::Command)
    }

    /// Whether chunks of a message are being put together.
    pub(super) fn takes_chunks(&self) -> bool {
        self.transaction.as_ref().is_some_and(Transaction::takes_chunks)
    }

    /// The trace header of the message that begins.
    pub(super) fn trace(&self, date: &str) -> String {
        let envelope = self.transaction.as_ref().map(Transaction::envelope);
        let recipient = match envelope.map(|envelope| envelope.recipients.as_slice()) {
            Some([only]) => Some(only.address.text()),
            _ => None,
        };
        let utf8 = envelope.is_some_and(|envelope| envelope.smtputf8);
        let protocol = received::protocol(self.extended, utf8, self.tls, self.user.is_some());
        let trace =
            Trace { name: &self.name, peer: self.peer, hostname: &self.rules.hostname, protocol, recipient, date };
        trace.header()
    }

    /// How the message that begins came. Only clients that may submit get so far (RFC 6409).
    pub(super) fn arrival(&self, trace: &str) -> Arrival {
        let sender = self.transaction.as_ref().map(|transaction| transaction.envelope().sender.clone());
        Arrival {
            submission: self.rules.submission && (self.may_relay || self.user.is_some()),
            trace_bytes: u32::try_from(trace.len()).unwrap_or(u32::MAX),
            sender: sender.unwrap_or_default(),
            client: format!("{}[{}]", self.name, self.peer),
        }
    }

    /// A chunk that is not the last was read: taken, or refused with a reason.
    pub(super) fn on_chunk(&mut self, size: u64, refusal: Option<Reply>, out: &mut Vec<u8>) -> Next {
        match (refusal, &mut self.transaction) {
            (None, _) => {
                Reply::with_text(250, "2.0.0", format!("{size} bytes received")).write(out);
                Next::Command
            }
            (Some(reply), transaction) => {
                transaction.iter_mut().for_each(Transaction::chunk_failed);
                self.answer(&reply, out)
            }
        }
    }

    /// The content is complete: the transaction ends and its envelope is handed over.
    pub(super) fn end_transaction(&mut self) -> Envelope {
        self.transaction.take().map(Transaction::into_envelope).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
