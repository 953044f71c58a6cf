//! One message on its way from a client to the supervisor: counted, and dropped as soon as it cannot be accepted any more.

use spooler_protocol::message::Envelope;

use super::reply::Reply;
use super::transaction::TOO_LARGE;
use crate::inbound::Inbound;

/// So much more may come of a message that is larger than allowed, so that its sender can be told at its end. Then the connection ends.
pub(super) const OVERRUN_BYTES_MAX: u64 = 64 << 20;

/// The content of one message. Memory is bounded by what [`Inbound`] keeps back, whatever the client sends.
#[derive(Debug)]
pub(super) struct Incoming {
    /// `None` once the message is refused.
    inbound: Option<Inbound>,
    refusal: Option<Reply>,
    bytes: u64,
    bytes_max: u64,
}

impl Incoming {
    /// Begins a message; its trace header does not count against the limit.
    pub(super) async fn begin(mut inbound: Inbound, bytes_max: u64, header: &str) -> Self {
        let refusal = inbound.write(header.as_bytes()).await.err().map(Reply::from_refusal);
        Self { inbound: Some(inbound), refusal, bytes: 0, bytes_max }
    }

    /// Adds text.
    pub(super) async fn add(&mut self, text: &[u8]) {
        self.bytes = self.bytes.saturating_add(text.len() as u64);
        if self.bytes > self.bytes_max {
            self.refuse(TOO_LARGE);
        }
        if let Some(inbound) = &mut self.inbound
            && let Err(refusal) = inbound.write(text).await
        {
            self.refuse(Reply::from_refusal(refusal));
        }
    }

    /// Refuses the message. The first reason stands.
    pub(super) fn refuse(&mut self, reply: Reply) {
        self.inbound = None;
        self.refusal.get_or_insert(reply);
    }

    /// Whether more comes of it than anybody would send who is going to listen.
    pub(super) fn is_hopeless(&self) -> bool {
        self.bytes > self.bytes_max.saturating_add(OVERRUN_BYTES_MAX)
    }

    /// Why the message is refused, if it is.
    pub(super) fn refusal(&self) -> Option<Reply> {
        self.refusal.clone()
    }

    /// Hands the message over, unless it is refused, and says what became of it. A 250 means that it is on disk, synced.
    pub(super) async fn accept(self, envelope: Envelope) -> Reply {
        match (self.refusal, self.inbound) {
            (None, Some(inbound)) => match inbound.accept(envelope).await {
                Ok(id) => Reply::with_text(250, "2.0.0", format!("Queued as {id}")),
                Err(refusal) => Reply::from_refusal(refusal),
            },
            (Some(reply), _) => reply,
            (None, None) => Reply::new(451, "4.3.0", "Message not received completely; try again"),
        }
    }
}
