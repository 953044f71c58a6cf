//! Content between workers and the store. None of it passes through the supervisor.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use spooler_protocol::ids::{DeliveryId, MessageId, RequestId};
use spooler_protocol::limits::{BODY_CHUNK_BYTES_MAX, BODY_INLINE_BYTES_MAX};
use spooler_protocol::message::Envelope;
use spooler_protocol::to_worker::{Submission, ToWorker};

use super::Driver;
use super::debts::Debt;
use crate::mail_log::Line;
use crate::record::{Change, Scanned, StoredContent};
use crate::supervisor::event::{Event, SubmitOrder, WorkerId, WorkerNews};
use crate::supervisor::mail::MailEvent;
use crate::system::mailbox::Letter;
use crate::system::store::{StoreError, StoreReader};
use crate::system::worker_link::Link;

/// Bytes of messages just accepted that are kept in memory, because they will be delivered in a moment.
const FRESH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages just accepted.
#[derive(Default)]
pub(super) struct Fresh {
    messages: HashMap<MessageId, (Arc<Envelope>, Bytes)>,
    order: VecDeque<(MessageId, usize)>,
    bytes: usize,
}

impl Fresh {
    /// Follows what goes to disk: keeps what comes in, forgets what goes.
    pub(super) fn note(&mut self, unit: &[Change]) {
        for change in unit {
            match change {
                Change::Accept(message) => {
                    if let StoredContent::Inline(content) = &message.content {
                        let bytes = content.len() + 256 * message.envelope.recipients.len();
                        let kept = (Arc::new(message.envelope.clone()), content.clone());
                        self.messages.insert(message.id, kept);
                        self.order.push_back((message.id, bytes));
                        self.bytes += bytes;
                    }
                }
                Change::Remove { id, .. } => {
                    self.messages.remove(id);
                }
                Change::Recipients { .. } | Change::State { .. } | Change::Marks { .. } => {}
            }
        }
        while self.bytes > FRESH_BYTES_MAX || self.order.front().is_some_and(|(id, _)| !self.messages.contains_key(id))
        {
            let Some((id, bytes)) = self.order.pop_front() else { break };
            self.bytes -= bytes;
            self.messages.remove(&id);
        }
    }
}

/// A delivery in the hands of a worker.
pub(super) struct InHand {
    worker: WorkerId,
    id: MessageId,
    /// Set before the worker can say anything about it.
    envelope: Arc<OnceLock<Arc<Envelope>>>,
}

impl Driver {
    /// Writes a line of the mail log; with the addresses, for an attempt.
    pub(super) fn log_mail(&mut self, event: &MailEvent) {
        let in_hand = match event {
            MailEvent::Attempt(attempt) => self.flights.get(&attempt.delivery),
            MailEvent::Accepted(_) | MailEvent::Changed(_) => None,
        };
        let envelope = in_hand.and_then(|in_hand| in_hand.envelope.get());
        self.equipment.mail_log.write(&Line::new(event, envelope.map(AsRef::as_ref)));
    }

    /// Hands a delivery to a worker: from memory if it is fresh, else by way of a reader's thread.
    pub(super) fn submit(&mut self, order: SubmitOrder) {
        let known: Arc<OnceLock<Arc<Envelope>>> = Arc::default();
        let in_hand = InHand { worker: order.worker, id: order.id, envelope: Arc::clone(&known) };
        self.flights.insert(order.delivery, in_hand);
        if let Some((envelope, content)) = self.fresh.messages.get(&order.id) {
            let _ = known.set(Arc::clone(envelope));
            let size = content.len() as u64;
            let submission = submission(&order, envelope, size, Some(content.clone()));
            self.say(order.worker, ToWorker::Submit(Box::new(submission)));
            return;
        }
        let Some(link) = self.workers.get(&order.worker).and_then(|known| known.link.as_ref()) else { return };
        let (link, mailbox) = (link.share(), self.equipment.mailbox.clone());
        self.equipment.readers.run(Box::new(move |reader| match load(reader, &order) {
            // If its outbox is full the worker does not read, which the loop finds out by itself.
            Ok((submission, envelope)) => {
                let _ = known.set(Arc::new(envelope));
                let _ = link.say(ToWorker::Submit(Box::new(submission)));
            }
            Err(Unread::Now(why)) => mailbox.put(Letter::Event(Event::ReadFailed(order.delivery, why))),
            Err(Unread::Ever(why)) => mailbox.put(Letter::Event(Event::Unreadable(order.delivery, why))),
        }));
    }

    /// A worker asks for a piece of a body; it gets pieces of what it has in its hands and of nothing else.
    pub(super) fn read_body(&mut self, worker: WorkerId, request: RequestId, delivery: DeliveryId, offset: u64) {
        let message = self.flights.get(&delivery).filter(|held| held.worker == worker).map(|held| held.id);
        let Some(id) = message else {
            let data = Err("the delivery is not in this worker's hands".to_owned());
            self.say(worker, ToWorker::Body { request, data });
            return;
        };
        self.hear(Event::Worker(worker, WorkerNews::Reads(delivery)));
        let Some((link, debt)) = self.owe(worker, BODY_CHUNK_BYTES_MAX) else { return };
        self.equipment.readers.run(Box::new(move |reader| {
            let data = reader.content(id, offset, BODY_CHUNK_BYTES_MAX).map_err(|error| error.to_string());
            let _ = link.say_and_hold(ToWorker::Body { request, data }, debt);
        }));
    }

    /// A hand that can answer a worker, and what is under way until then.
    pub(super) fn owe(&self, worker: WorkerId, bytes: usize) -> Option<(Link, Debt)> {
        let known = self.workers.get(&worker)?;
        Some((known.link.as_ref()?.share(), known.debts.owe(bytes)))
    }
}

/// Why a message cannot be read.
pub(super) enum Unread {
    /// It may be read later.
    Now(String),
    Ever(String),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        if error.is_passing() { Self::Now(error.to_string()) } else { Self::Ever(error.to_string()) }
    }
}

fn load(reader: &mut dyn StoreReader, order: &SubmitOrder) -> Result<(Submission, Envelope), Unread> {
    let message = match reader.get(order.id)? {
        Some(Scanned::Message(message)) => message,
        Some(Scanned::Damaged { why, .. }) => return Err(Unread::Ever(why)),
        None => return Err(Unread::Ever("it is not in the store".to_owned())),
    };
    let inline = usize::try_from(message.size).ok().filter(|size| *size <= BODY_INLINE_BYTES_MAX);
    // A large one is asked for in pieces: whether it is whole has to be known before the first of them.
    if inline.is_none() {
        reader.check_content(order.id)?;
    }
    let content = inline.map(|size| reader.content(order.id, 0, size)).transpose()?;
    Ok((submission(order, &message.envelope, message.size, content), message.envelope))
}

fn submission(order: &SubmitOrder, envelope: &Envelope, size: u64, content: Option<Bytes>) -> Submission {
    let recipient = |index: &u32| envelope.recipients.get(usize::try_from(*index).ok()?).cloned();
    let others = envelope.recipients.iter().zip(0_u32..).filter(|(_, index)| !order.recipients.contains(index));
    let others = others.map(|(recipient, _)| recipient);
    Submission {
        delivery: order.delivery,
        message: order.id,
        sender: envelope.sender.clone(),
        recipients: order.recipients.iter().filter_map(recipient).collect(),
        others: if order.sees_others { others.cloned().collect() } else { Vec::new() },
        deferred_before: order.deferred_before,
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        priority: envelope.priority,
        attempt: order.attempt,
        size,
        content,
    }
}
