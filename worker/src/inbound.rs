//! One message on its way in.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use spooler_protocol::from_worker::{Arrival, Content, FromWorker};
use spooler_protocol::ids::{AcceptId, MessageId};
use spooler_protocol::limits::{BODY_CHUNK_BYTES_MAX, BODY_INLINE_BYTES_MAX, UPLOAD_CHUNKS_UNACKNOWLEDGED_MAX};
use spooler_protocol::message::Envelope;
use spooler_protocol::to_worker::Refusal;
use tokio::sync::Notify;

use crate::filter::{self, Held};
use crate::support::Support;

/// One message on its way in (what IXPLogon::StartMessage fills). Small ones travel with their envelope; a large one is on the
/// supervisor's disk, chunk by chunk, before it is accepted. Dropping it drops the message.
#[derive(Debug)]
pub struct Inbound {
    support: Support,
    accept: AcceptId,
    buffer: BytesMut,
    uploaded: u64,
    unacknowledged: u32,
    call: Rc<InboundCall>,
    /// Kept here until the inbound hooks have seen it.
    held: Option<Held>,
    arrival: Arrival,
}

/// What the runtime and the provider share about the message of one `start_message`.
///
/// ```text
///   open ──cancel──▶ cancelled       in both: accept ──▶ refused
///     ├───return───▶ over
///     └───accept───▶ handed over ──its answer──▶ saved, or as before
///                     └─discarded by a hook──▶ saved: the source is done with it
/// ```
#[derive(Debug, Default)]
pub(crate) struct InboundCall {
    cancelled: Cell<bool>,
    over: Cell<bool>,
    saved: Cell<bool>,
    cancel: Notify,
}

impl InboundCall {
    /// Nothing more is to be received.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        self.cancel.notify_waiters();
    }

    /// `start_message` has returned: what was not handed over never is. Whether a message is on disk.
    pub(crate) fn end(&self) -> bool {
        self.over.set(true);
        self.saved.get()
    }

    fn check(&self) -> Result<(), Refusal> {
        let text = match (self.cancelled.get(), self.over.get()) {
            (true, _) => "Receiving was cancelled; the source keeps the message",
            (false, true) => "The call that received it is over; the source keeps the message",
            (false, false) => return Ok(()),
        };
        Err(Refusal { temporary: true, enhanced: "4.3.0".to_owned(), text: text.to_owned() })
    }
}

impl Inbound {
    pub(crate) fn new(support: Support, accept: AcceptId) -> Self {
        let held = support.filters().has_inbound_hooks().then(|| Held::new(support.scratch()));
        let call = Rc::default();
        let arrival = Arrival::default();
        Self { support, accept, buffer: BytesMut::new(), uploaded: 0, unacknowledged: 0, call, held, arrival }
    }

    /// Says how the message came, before anything of it is written. Without this, it is passed on as it is: right for a message that was
    /// fetched. A submission is completed by the supervisor: unqualified addresses, `Date`, `Message-ID` (RFC 6409 8).
    #[must_use]
    pub fn arrived(mut self, arrival: Arrival) -> Self {
        self.arrival = arrival;
        self
    }

    /// What the runtime has in common with it.
    pub(crate) fn call(&self) -> Rc<InboundCall> {
        Rc::clone(&self.call)
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.held.as_ref().map_or(self.uploaded + self.buffer.len() as u64, Held::size)
    }

    /// Whether it should not be received any more. The provider then returns as soon as it can; its source keeps the message.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.call.cancelled.get()
    }

    /// Waits for the cancellation.
    pub async fn cancelled(&self) {
        loop {
            let cancelled = self.call.cancel.notified();
            if self.is_cancelled() {
                return;
            }
            cancelled.await;
        }
    }

    /// Adds to the content.
    ///
    /// # Errors
    /// If receiving was cancelled, or if the supervisor refused a chunk (disk full, too large): the message is refused as a whole
    /// then.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.call.check()?;
        if let Some(held) = &mut self.held {
            return held.write(data);
        }
        self.buffer.extend_from_slice(data);
        if self.uploaded == 0 && self.buffer.len() <= BODY_INLINE_BYTES_MAX {
            return Ok(());
        }
        while self.buffer.len() >= BODY_CHUNK_BYTES_MAX {
            let chunk = self.buffer.split_to(BODY_CHUNK_BYTES_MAX).freeze();
            self.upload(chunk).await?;
        }
        Ok(())
    }

    async fn upload(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        while self.unacknowledged >= UPLOAD_CHUNKS_UNACKNOWLEDGED_MAX {
            self.support.upload_credit(self.accept).await?;
            self.unacknowledged -= 1;
        }
        if self.uploaded == 0 {
            self.support.send(&FromWorker::UploadBegins { accept: self.accept, arrival: self.arrival.clone() });
        }
        self.unacknowledged += 1;
        self.uploaded += chunk.len() as u64;
        self.support.send(&FromWorker::Upload { accept: self.accept, data: chunk });
        Ok(())
    }

    /// Hands the message over (SaveChanges). When this returns `Ok` it is on disk, synced, and the source may be deleted; or an inbound
    /// hook discarded it, which is message 0.
    ///
    /// # Errors
    /// The refusal of the supervisor or of an inbound hook, or that receiving was cancelled; nothing of the message is kept then.
    pub async fn accept(mut self, envelope: Envelope) -> Result<MessageId, Refusal> {
        let Some(held) = self.held.take() else { return self.hand_over(envelope).await };
        let filters = self.support.filters().clone();
        let Some((envelope, content)) = filters.receive(&self.support, envelope, held).await? else {
            self.call.check()?;
            // As if it were on disk: there may be another one.
            self.call.saved.set(true);
            return Ok(MessageId(0));
        };
        let mut offset = 0;
        while offset < content.size() {
            let chunk = content.chunk(offset).map_err(|why| filter::refusal(&why))?;
            offset += chunk.len() as u64;
            self.write(&chunk).await?;
        }
        self.hand_over(envelope).await
    }

    async fn hand_over(mut self, envelope: Envelope) -> Result<MessageId, Refusal> {
        let content = if self.uploaded == 0 {
            Content::Inline(self.buffer.split().freeze())
        } else {
            let rest = self.buffer.split().freeze();
            if !rest.is_empty() {
                self.upload(rest).await?;
            }
            Content::Uploaded { size: self.uploaded }
        };
        self.call.check()?;
        let (accept, arrival) = (self.accept, std::mem::take(&mut self.arrival));
        let answer = self.support.accepted(accept, FromWorker::Accept { accept, envelope, arrival, content });
        self.uploaded = 0; // handed over: nothing to abandon
        let result = answer.await;
        self.call.saved.set(result.is_ok());
        result
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.support.forget_upload(self.accept);
        if self.uploaded > 0 {
            self.support.send(&FromWorker::UploadAbandoned { accept: self.accept });
        }
    }
}
