//! One message over a session: MAIL, RCPT, DATA or BDAT, and what each reply means for whom.
//!
//! ```text
//!   pipelined (RFC 2920)      [RSET] MAIL RCPT… DATA ▶ ◀ replies   content, dot ▶ ◀ reply
//!   not offered               [RSET] ▶ ◀  MAIL ▶ ◀  RCPT ▶ ◀ …  DATA ▶ ◀  content, dot ▶ ◀ reply
//!   BDAT (RFC 3030, if set)   [RSET] MAIL RCPT… ▶ ◀ replies   BDAT n content ▶ ◀ reply  BDAT n LAST content ▶ ◀ reply
//! ```
//!
//! At the end SMTP gives one reply for all recipients, LMTP one for each that was accepted (RFC 2033 4.2). If the connection breaks
//! between the last byte of the message and its reply, nobody knows whether the message arrived: it is sent again, perhaps twice.
//! Not done: another host after a refusal of MAIL or RCPT. What is refused for now is tried again later, by the spooler.

/// From the reply to DATA, or to the last RCPT, to the end of the message.
mod content;

use bytes::Bytes;
use spooler_protocol::outcome::{Hop, Outcome, Reply};
use tokio::time::Instant;

use super::command;
use super::connection::Connection;
use super::opening::Opening;
use super::reply::ServerReply;
use super::settings::Timeouts;
use super::wire::Broken;
use crate::delivery::Delivery;

/// Bytes of commands that are sent before their replies are read: the kernels take that much whether or not the server reads, so
/// that the two sides can never wait for each other.
const BATCH_BYTES: usize = 8 * 1024;
const BATCH_COMMANDS: usize = 100;

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// One reply for each recipient at the end, and delivery there is final.
    pub(super) lmtp: bool,
    /// BDAT where it is offered.
    pub(super) chunking: bool,
    pub(super) timeouts: Timeouts,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// All recipients are settled, but for those for which the server wants a transaction of their own.
    InStep {
        /// Places of these in the delivery.
        again: Vec<usize>,
    },
    /// All recipients are settled; the session is over.
    Over,
    /// Nothing was done: the server had closed the session while it waited in the pool.
    Stale,
    /// Stopped before the message went out; the session is over.
    Cancelled,
    /// The content cannot be read; the session is over.
    Unreadable(String),
}

/// Why a transaction does not go on.
enum Stop {
    Broken(Broken),
    Cancelled,
    Unreadable(String),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

#[derive(Clone, Copy)]
enum Command {
    Reset,
    Mail,
    /// By place in the group.
    Rcpt(usize),
    Data,
}

/// One message on its way over a session.
pub(super) struct Transaction<'a> {
    connection: &'a mut Connection,
    delivery: &'a Delivery,
    /// Places in the delivery of those to serve.
    group: &'a [usize],
    /// The first piece of the content.
    first: &'a Bytes,
    manner: Manner,
    smtputf8: bool,
    /// How many of the group have their answer to RCPT.
    answered: usize,
    /// Places in the delivery of those that were accepted and not settled yet.
    accepted: Vec<usize>,
    /// Those that were one too many for one transaction, and what the server said.
    too_many: Vec<(usize, ServerReply)>,
    mail_refusal: Option<ServerReply>,
    /// The server took a recipient after it refused the sender; it is not to be believed.
    contradicts: bool,
    data: Option<ServerReply>,
    /// The server has answered to something.
    heard: bool,
    /// The message itself is on its way.
    sending: bool,
    phase: &'static str,
    begun: Instant,
    /// The session was made for this message.
    is_first: bool,
}

impl<'a> Transaction<'a> {
    /// Prepares to send the message to a group of its recipients.
    pub(super) fn new(
        connection: &'a mut Connection,
        delivery: &'a Delivery,
        group: &'a [usize],
        opening: &'a Opening,
        manner: Manner,
    ) -> Self {
        let first = &opening.first;
        let smtputf8 = group.iter().any(|&index| opening.needs_smtputf8(delivery, index));
        let is_first = connection.served == 0 && !connection.reused && !connection.needs_reset;
        Self {
            connection,
            delivery,
            group,
            first,
            manner,
            smtputf8,
            answered: 0,
            accepted: Vec::with_capacity(group.len()),
            too_many: Vec::new(),
            mail_refusal: None,
            contradicts: false,
            data: None,
            heard: false,
            sending: false,
            phase: "at MAIL",
            begun: Instant::now(),
            is_first,
        }
    }

    /// Sends it, settling recipients as their answers come.
    pub(super) async fn run(mut self) -> Ended {
        if let Some(refusal) = self.refuse_here() {
            self.settle_rest(&Outcome::Failed(refusal));
            return Ended::InStep { again: Vec::new() };
        }
        if self.delivery.is_cancelled() {
            return Ended::Cancelled;
        }
        let (was_reused, delivery) = (self.connection.reused, self.delivery);
        let envelope = tokio::select! {
            biased;
            result = self.envelope() => result,
            // Nothing of the message is out yet: to hang up is enough, however long the server thinks.
            () = delivery.cancelled() => Err(Stop::Cancelled),
        };
        let result = match envelope {
            Ok(()) => self.content().await,
            Err(stop) => Err(stop),
        };
        match result {
            Ok(()) => {
                let again = std::mem::take(&mut self.too_many);
                Ended::InStep { again: again.into_iter().map(|(index, _)| index).collect() }
            }
            Err(Stop::Broken(_)) if was_reused && !self.heard => Ended::Stale,
            Err(Stop::Broken(broken)) => {
                let reply = broken.into_reply(&self.connection.remote, self.phase);
                // Only what is said about the message itself can be the last word about it.
                let final_word = self.sending && reply.code / 100 == 5;
                let outcome = if final_word { Outcome::Failed(reply) } else { Outcome::Deferred(reply) };
                self.settle_rest(&outcome);
                Ended::Over
            }
            Err(Stop::Cancelled) => Ended::Cancelled,
            Err(Stop::Unreadable(why)) => Ended::Unreadable(why),
        }
    }

    /// What this server cannot take, by its own offers.
    fn refuse_here(&self) -> Option<Reply> {
        let offered = &self.connection.offered;
        let size = self.delivery.submission().size;
        let here = |code, enhanced, text: String| {
            let remote = self.connection.remote.to_string();
            Some(Reply { remote, ..Reply::local(code, enhanced, text) })
        };
        if let Some(limit) = offered.size.filter(|limit| (1..size).contains(limit)) {
            let text = format!("The message has {size} bytes; the server takes {limit}");
            return here(552, "5.3.4", text);
        }
        None
    }

    /// MAIL, RCPT and DATA, up to the reply to DATA.
    async fn envelope(&mut self) -> Result<(), Stop> {
        let mut sent = usize::from(!self.connection.needs_reset);
        let mut replied = sent;
        self.connection.needs_reset = true;
        loop {
            while let Some(command) = self.next_command(sent, sent - replied) {
                self.write(command);
                sent += 1;
            }
            if sent == replied {
                return Ok(());
            }
            self.connection.wire.send(self.manner.timeouts.command).await?;
            while replied < sent {
                let Some(command) = self.command(replied) else { break };
                self.phase = command.phase();
                self.delivery.phase(command.waiting());
                let reply = self.connection.wire.reply(self.manner.timeouts.command).await?;
                self.take(command, reply)?;
                replied += 1;
            }
        }
    }

    /// The command number `sent`, if it may go out with `outstanding` commands not yet answered.
    fn next_command(&self, sent: usize, outstanding: usize) -> Option<Command> {
        let room = outstanding == 0
            || self.connection.offered.pipelining
                && outstanding < BATCH_COMMANDS
                && self.connection.wire.output.len() < BATCH_BYTES;
        let command = self.command(sent).filter(|_| room && self.mail_refusal.is_none())?;
        let pointless = matches!(command, Command::Data) && outstanding == 0 && self.accepted.is_empty();
        (!pointless).then_some(command)
    }

    fn command(&self, number: usize) -> Option<Command> {
        match number {
            0 => Some(Command::Reset),
            1 => Some(Command::Mail),
            _ if number - 2 < self.group.len() => Some(Command::Rcpt(number - 2)),
            _ if number - 2 == self.group.len() && !self.uses_bdat() => Some(Command::Data),
            _ => None,
        }
    }

    fn uses_bdat(&self) -> bool {
        self.manner.chunking && self.connection.offered.chunking
    }

    fn write(&mut self, command: Command) {
        let Connection { wire, offered, .. } = &mut *self.connection;
        match command {
            Command::Reset => wire.output.extend_from_slice(b"RSET\r\n"),
            Command::Mail => command::mail(self.delivery.submission(), self.smtputf8, offered, &mut wire.output),
            Command::Rcpt(place) => {
                let recipient = self.group.get(place).and_then(|&index| self.delivery.recipients().get(index));
                if let Some(recipient) = recipient {
                    command::rcpt(recipient, offered, &mut wire.output);
                }
            }
            Command::Data => wire.output.extend_from_slice(b"DATA\r\n"),
        }
    }

    fn take(&mut self, command: Command, reply: ServerReply) -> Result<(), Stop> {
        if reply.is_closing() {
            return Err(Broken::Closing(reply).into());
        }
        self.heard = true;
        match command {
            Command::Data => self.data = Some(reply),
            Command::Reset if reply.is_positive() => {}
            Command::Mail if reply.is_positive() => {}
            Command::Mail if reply.is_negative() => self.mail_refusal = Some(reply),
            Command::Rcpt(_) if self.mail_refusal.is_some() => self.contradicts |= reply.is_positive(),
            Command::Rcpt(place) if reply.is_positive() || reply.is_negative() => self.take_rcpt(place, reply),
            Command::Reset | Command::Mail | Command::Rcpt(_) => return Err(Broken::OutOfTurn(reply.code).into()),
        }
        Ok(())
    }

    fn take_rcpt(&mut self, place: usize, reply: ServerReply) {
        let Some(&index) = self.group.get(place) else { return };
        self.answered = place + 1;
        if reply.is_positive() {
            self.accepted.push(index);
        } else if reply.is_too_many() && !self.accepted.is_empty() {
            // It goes out at once, in a transaction of its own.
            self.too_many.push((index, reply));
        } else {
            let outcome = self.refused(reply);
            self.settle(index, outcome);
        }
    }

    /// Settles a recipient, and notes how its server was reached.
    fn settle(&self, index: usize, outcome: Outcome) {
        let connecting_ms = if self.is_first { self.connection.hop.connecting_ms } else { 0 };
        let transfer_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.delivery.settle(index, outcome.by(Hop { connecting_ms, transfer_ms, ..self.connection.hop.clone() }));
    }

    fn answer(&self, reply: ServerReply) -> Outcome {
        if !reply.is_positive() {
            return self.refused(reply);
        }
        let reply = reply.from(&self.connection.remote);
        if self.manner.lmtp {
            Outcome::Delivered(reply)
        } else {
            Outcome::Relayed { reply, reports: self.connection.offered.dsn }
        }
    }

    fn refused(&self, reply: ServerReply) -> Outcome {
        let permanent = reply.is_permanent();
        let reply = reply.from(&self.connection.remote);
        if permanent { Outcome::Failed(reply) } else { Outcome::Deferred(reply) }
    }

    /// Settles everybody in the group who is not.
    fn settle_rest(&mut self, outcome: &Outcome) {
        let unanswered = self.group.get(self.answered..).unwrap_or_default();
        for &index in self.accepted.iter().chain(unanswered) {
            self.settle(index, outcome.clone());
        }
        self.accepted.clear();
        self.answered = self.group.len();
        for (index, reply) in std::mem::take(&mut self.too_many) {
            let outcome = Outcome::Deferred(reply.from(&self.connection.remote));
            self.settle(index, outcome);
        }
    }
}

impl Command {
    fn phase(self) -> &'static str {
        match self {
            Self::Reset => "at RSET",
            Self::Mail => "at MAIL",
            Self::Rcpt(_) => "at RCPT",
            Self::Data => "at DATA",
        }
    }

    fn waiting(self) -> &'static str {
        match self {
            Self::Reset => "waiting for the reply to RSET",
            Self::Mail => "waiting for the reply to MAIL",
            Self::Rcpt(_) => "waiting for the reply to RCPT",
            Self::Data => "waiting for the reply to DATA",
        }
    }
}
