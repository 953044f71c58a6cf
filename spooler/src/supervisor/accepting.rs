//! Messages come in, and come back from the store at start.

use spooler_protocol::control::{MessageState, RecipientState};
use spooler_protocol::ids::MessageId;
use spooler_protocol::limits::COMPLETION_BYTES_MAX;
use spooler_protocol::message::{Address, Envelope};
use spooler_protocol::outcome::Reply;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use super::event::{Action, Answer, Incoming, Loudness, Ticket, UploadKey};
use super::mail::{self, Accepted, MailEvent};
use super::{Acceptor, Pending, Scan, Supervisor, abandon, log};
use crate::policy::addressing::TooMany;
use crate::policy::few::Few;
use crate::policy::queue::{Again, Entry, Part, Standing, Waiting};
use crate::policy::retry::RetryPlan;
use crate::policy::routing::{Route, Routed, Routing};
use crate::policy::{Now, ProviderId};
use crate::record::{Change, NewMessage, Scanned, ScannedMessage, StoredContent};

/// A queue that could not be read is read again after so long, and after twice as long each time from then on.
const SCAN_AGAIN_MS: i64 = 2000;
/// But at least so often.
const SCAN_AGAIN_MAX_MS: i64 = 300_000;

/// A recipient whose way is to be found: its place, its attempts, what it waits for, and who does not serve it.
struct Wayfarer<'a> {
    index: u32,
    address: &'a Address,
    attempts: u32,
    waiting: Waiting,
    not_me: &'a [ProviderId],
    /// Whether, and for whom, this was kept or asked for; void on another way.
    before: Option<(Route, Again)>,
    /// The last provider that serves it has just declined it: it does not wait for another one.
    declined: bool,
}

/// A message as it was handed in.
pub(super) struct HandedIn {
    /// For whom, as the sender wrote it.
    pub(super) envelope: Envelope,
    /// Whether its sender hands it in here for the first time.
    pub(super) submission: bool,
    /// The client that it comes from; empty if there is none.
    pub(super) client: String,
    /// What.
    pub(super) content: Incoming,
    /// Who hands it in, for people.
    pub(super) origin: String,
    /// Who may see it.
    pub(super) owner_uid: Option<u32>,
}

impl Supervisor {
    /// A message comes in. It is answered when it is on disk, or at once if it is refused.
    pub(super) fn accept(&mut self, acceptor: Acceptor, handed_in: HandedIn, now: Now, actions: &mut Vec<Action>) {
        let HandedIn { mut envelope, submission, client, content, origin, owner_uid } = handed_in;
        let key = upload_of(&content);
        let size = match &content {
            Incoming::Upload { size, .. } => *size,
            Incoming::Inline(bytes) => bytes.len() as u64,
        };
        let addressed = self.config.addressing.admit(&mut envelope, submission).map_err(|why| too_many(&why));
        if let Err(refusal) = addressed.and_then(|()| self.admit(&envelope, size)) {
            abandon(key, actions);
            answer(acceptor, Err(refusal), actions);
            return;
        }
        self.last_id = MessageId(self.last_id.0 + 1);
        let id = self.last_id;
        let entry = new_entry(&self.routing, &envelope, size, now);
        let (stored, message_id) = match content {
            Incoming::Inline(bytes) => {
                let message_id = mail::message_id(&bytes);
                (StoredContent::Inline(bytes), message_id)
            }
            Incoming::Upload { size, message_id, .. } => (StoredContent::File(size), message_id),
        };
        let message = NewMessage { id, envelope, submitted_ms: now.wall_ms, origin, owner_uid, content: stored };
        let (client, message_id) = (mail::cut(client), message_id.map(mail::cut));
        let note = Box::new(Accepted { client, message_id, ..Accepted::of(&message) });
        match key {
            None => {
                let pending = Pending::Accept(acceptor, note, entry);
                self.commit(vec![Change::Accept(Box::new(message))], pending, actions);
            }
            Some(key) => {
                let ticket = Ticket(self.next_number());
                self.pending.insert(ticket, Pending::Upload(acceptor, Box::new(message), note, entry));
                actions.push(Action::FinishUpload(ticket, key, id));
            }
        }
    }

    /// Whether a message may come in.
    fn admit(&self, envelope: &Envelope, size: u64) -> Result<(), Refusal> {
        let refusal =
            |temporary, enhanced: &str, text: String| Refusal { temporary, enhanced: enhanced.to_owned(), text };
        if self.stopping.is_some() {
            return Err(refusal(true, "4.3.2", "The spooler is shutting down; try again later".to_owned()));
        }
        envelope.check().map_err(|error| refusal(false, "5.5.0", error.to_string()))?;
        let max = self.config.spool.max_message_size;
        if size > max.saturating_add(COMPLETION_BYTES_MAX) {
            return Err(refusal(false, "5.3.4", format!("The message has {size} bytes; {max} are allowed")));
        }
        let unserved = |recipient: &&spooler_protocol::message::Recipient| {
            self.routing.route(&recipient.address, &[]) == Routed::Nobody
        };
        match envelope.recipients.iter().find(unserved) {
            None => Ok(()),
            Some(recipient) => Err(refusal(
                false,
                "5.1.2",
                format!(
                    "No provider serves {}; a provider's \"claims\" or \"address_types\" must cover it",
                    recipient.address
                ),
            )),
        }
    }

    pub(super) fn on_upload_finished(
        &mut self,
        ticket: Ticket,
        result: Result<u64, Refusal>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Pending::Upload(acceptor, message, mut note, mut entry)) = self.pending.remove(&ticket) else {
            return;
        };
        match result {
            Err(refusal) => {
                self.astray.remove(&message.id);
                answer(acceptor, Err(refusal), actions);
            }
            Ok(size) => {
                (entry.size, note.size) = (size, size);
                let message = NewMessage { content: StoredContent::File(size), ..*message };
                let pending = Pending::Accept(acceptor, note, entry);
                self.commit(vec![Change::Accept(Box::new(message))], pending, actions);
            }
        }
    }

    pub(super) fn on_committed(&mut self, ticket: Ticket, result: Result<(), Refusal>, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        match (pending, result) {
            (Pending::Accept(acceptor, note, mut entry), Ok(())) => {
                let id = note.id;
                self.accepted += 1;
                actions.push(Action::Mail(MailEvent::Accepted(note)));
                if self.astray.remove(&id) {
                    entry.parts.as_mut_slice().iter_mut().for_each(|part| part.route = None);
                    actions.push(Action::Lookup(id));
                }
                self.touched.extend(entry.parts.as_slice().iter().filter_map(|part| Some(part.route?.provider)));
                self.queue.add(id, entry);
                answer(acceptor, Ok(id), actions);
                if let Acceptor::Report(about) = acceptor {
                    self.report_is_over(about, actions);
                }
            }
            (Pending::Accept(acceptor, note, _), Err(refusal)) => {
                let id = note.id;
                self.astray.remove(&id);
                actions.push(Action::DiscardContent(id));
                log(actions, Loudness::Warn, format!("message refused: {}", refusal.text));
                if let Acceptor::Report(about) = acceptor {
                    self.leave_line(about, Vec::new(), actions);
                    self.on_not_kept(Few::One(about), &refusal, actions);
                }
                answer(acceptor, Err(refusal), actions);
            }
            (Pending::Command(ask_id, done), result) => {
                let result = result.map(|()| done).map_err(|refusal| spooler_protocol::control::ApiError {
                    error: refusal.text,
                    temporary: refusal.temporary,
                });
                actions.push(Action::Answer(ask_id, Answer::Queue(result)));
            }
            (Pending::Quarantined(id), Ok(())) => self.on_quarantined(id),
            (Pending::Quarantined(id), Err(refusal)) => self.on_not_kept([id].into_iter().collect(), &refusal, actions),
            (Pending::Kept(ids), Err(refusal)) => self.on_not_kept(ids, &refusal, actions),
            (Pending::Kept(_), Ok(())) | (Pending::Upload(..) | Pending::Report(..) | Pending::Notice, _) => {}
        }
    }

    /// Begins to read the store as soon as every provider has said what it serves, or could not.
    pub(super) fn scan_if_all_have_spoken(&mut self, actions: &mut Vec<Action>) {
        let silent = |id: &ProviderId| {
            self.providers.get(id).is_some_and(|provider| {
                provider.config.enabled && provider.announced.is_none() && provider.life.is_alive()
            })
        };
        if matches!(self.scan, Scan::Due { .. }) && !self.order.iter().any(silent) {
            self.begin_scan(actions);
        }
    }

    pub(super) fn begin_scan(&mut self, actions: &mut Vec<Action>) {
        self.scan = Scan::Running { restoring: true, again: false };
        // What was accepted in this run is in the schedule by itself, but may have to find its way again.
        actions.push(Action::Scan(self.last_id));
    }

    /// Reads every message again, because what is served has changed.
    pub(super) fn reroute(&mut self, actions: &mut Vec<Action>) {
        self.scan = Scan::Running { restoring: false, again: false };
        actions.push(Action::Scan(self.last_id));
    }

    pub(super) fn on_scanned(&mut self, batch: Vec<Scanned>, now: Now, actions: &mut Vec<Action>) {
        for scanned in batch {
            match scanned {
                Scanned::Message(message) if self.queue.get(message.id).is_some() => self.find_ways(&message, actions),
                Scanned::Message(message) if self.comes_back(message.id) => self.restore(&message, now, actions),
                Scanned::Damaged { id, why } if self.comes_back(id) => {
                    log(actions, Loudness::Warn, format!("message {id} is damaged and was set aside: {why}"));
                    self.queue.add(
                        id,
                        Entry { born_ms: now.mono_ms, standing: Standing::Quarantined, ..self.unknown_entry() },
                    );
                }
                Scanned::Message(_) | Scanned::Damaged { .. } => {}
            }
        }
    }

    /// A message of which nothing is known but its number.
    pub(super) fn unknown_entry(&self) -> Entry {
        let now = Now { mono_ms: self.ticked_ms, wall_ms: 0 };
        Entry { parts: Few::default(), ..new_entry(&self.routing, &Envelope::default(), 0, now) }
    }

    /// Whether a message that was read is one of the last run that comes back now. What is read may be older than what is known: a
    /// message that came in, or came back, in this run and is gone since must not come again.
    fn comes_back(&mut self, id: MessageId) -> bool {
        let restoring = matches!(self.scan, Scan::Running { restoring: true, .. });
        let (read, last) = self.unread;
        let back = restoring && id > read && id <= last;
        if back {
            self.unread = (id, last);
        }
        back
    }

    pub(super) fn on_scan_ended(&mut self, result: Result<(), String>, now: Now, actions: &mut Vec<Action>) {
        match (result, self.scan) {
            (Err(why), _) => {
                // What was read until then is in the schedule; the next one goes on behind it.
                let before = self.scan_failure.take().map_or(0, |(_, count)| count);
                let wait_ms = (SCAN_AGAIN_MS << before.min(16)).min(SCAN_AGAIN_MAX_MS);
                let text = format!("the queue could not be read, and is read again in {} s: {why}", wait_ms / 1000);
                log(actions, Loudness::Warn, text);
                self.scan_failure = Some((why, before + 1));
                self.scan = Scan::Due { at_ms: now.mono_ms + wait_ms };
            }
            (Ok(()), Scan::Running { again: true, .. }) => self.reroute(actions),
            (Ok(()), Scan::Running { .. } | Scan::Due { .. } | Scan::Done) => {
                self.scan_failure = None;
                self.scan = Scan::Done;
            }
        }
        self.touched.extend(self.order.iter().copied());
    }

    /// A message of the last run comes back into the schedule.
    fn restore(&mut self, message: &ScannedMessage, now: Now, actions: &mut Vec<Action>) {
        let mut entry = new_entry(&self.routing, &message.envelope, message.size, now);
        entry.born_ms = now.mono_ms - (now.wall_ms - message.submitted_ms).max(0);
        entry.deaths = message.deaths;
        entry.delay_reported = message.delay_reported;
        entry.standing = match message.state {
            MessageState::Held => Standing::Held,
            MessageState::Quarantined => Standing::Quarantined,
            MessageState::Ready | MessageState::InFlight | MessageState::Deferred => Standing::Active,
        };
        if entry.standing == Standing::Quarantined {
            self.note_quarantined(message.id);
        }
        let longest_ms = self.providers.values().map(|provider| provider.retry.max_ms).max().unwrap_or_default();
        let pending: Vec<Wayfarer<'_>> = message
            .recipients
            .iter()
            .filter(|recipient| recipient.state == RecipientState::Pending)
            .filter_map(|recipient| {
                let address = &message.envelope.recipients.get(usize::try_from(recipient.index).ok()?)?.address;
                // A clock that was set back must not make it wait longer than any plan does.
                let wait_ms = (recipient.next_try_ms - now.wall_ms).min(longest_ms * 5 / 4);
                let waiting =
                    if wait_ms > 0 { Waiting::Deferred { due_ms: now.mono_ms + wait_ms } } else { Waiting::Ready };
                Some(Wayfarer {
                    index: recipient.index,
                    address,
                    attempts: recipient.attempts,
                    waiting,
                    not_me: &[],
                    before: None,
                    declined: false,
                })
            })
            .collect();
        if pending.is_empty() {
            self.keep(vec![self.remove_settled(message.id, Vec::new())], actions);
            return;
        }
        entry.parts = parts(&self.routing, pending).0;
        self.queue.add(message.id, entry);
    }

    /// A message in the schedule finds its way again. What is in flight stays so.
    fn find_ways(&mut self, message: &ScannedMessage, actions: &mut Vec<Action>) {
        let declined = self.declined.remove(&message.id).unwrap_or_default();
        let declined = &declined;
        let Some(entry) = self.queue.get(message.id) else { return };
        let (flying, waiting): (Vec<Part>, Vec<Part>) =
            entry.parts.as_slice().iter().cloned().partition(|part| matches!(part.waiting, Waiting::InFlight(_)));
        let wayfarers = waiting.iter().flat_map(|part| {
            let not_me = part.not_me.as_ref().map_or(&[][..], |not_me| not_me.as_slice());
            part.recipients.as_slice().iter().filter_map(move |index| {
                let address = &message.envelope.recipients.get(usize::try_from(*index).ok()?)?.address;
                Some(Wayfarer {
                    index: *index,
                    address,
                    attempts: part.attempts,
                    waiting: part.waiting,
                    not_me,
                    before: part.route.map(|route| (route, part.again)),
                    declined: declined.contains(index),
                })
            })
        });
        let (mut found, unwanted) = parts(&self.routing, wayfarers.collect());
        flying.into_iter().for_each(|part| found.push(part));
        self.touched.extend(found.as_slice().iter().filter_map(|part| Some(part.route?.provider)));
        let kept_before = entry.kept_by();
        self.queue.change(message.id, |entry| entry.parts = found);
        let kept_now = self.queue.get(message.id).map(Entry::kept_by).unwrap_or_default();
        for id in kept_before.into_iter().filter(|id| !kept_now.contains(id)) {
            self.abort_kept(id, message.id, actions);
        }
        self.fail_declined(message.id, unwanted, actions);
    }

    /// Recipients that every provider in question has declined fail, with a report. A change of the configuration alone makes none fail.
    fn fail_declined(&mut self, id: MessageId, unwanted: Vec<u32>, actions: &mut Vec<Action>) {
        if unwanted.is_empty() {
            return;
        }
        let reply = Reply::local(550, "5.1.2", "Every provider that serves this address has declined the message");
        let failed = unwanted.into_iter().map(|index| (index, reply.clone())).collect();
        self.fail(id, failed, mail::Change::Declined, actions);
    }

    /// How recipients of a provider are retried.
    pub(super) fn retry_plan(&self, id: ProviderId) -> Option<RetryPlan> {
        self.providers.get(&id).map(|provider| provider.retry)
    }
}

/// Groups recipients by their way; those that no provider serves wait for one that does. Gives apart those that nobody wants. Of
/// recipients that go the same way the least patient decides.
fn parts(routing: &Routing, wayfarers: Vec<Wayfarer<'_>>) -> (Few<Part>, Vec<u32>) {
    let mut parts: Few<Part> = Few::default();
    let mut unwanted = Vec::new();
    for wayfarer in wayfarers {
        let routed = routing.route(wayfarer.address, wayfarer.not_me);
        let route: Option<Route> = match routed {
            Routed::To(route) => Some(route),
            Routed::Nobody if wayfarer.declined => {
                unwanted.push(wayfarer.index);
                continue;
            }
            Routed::Unknown | Routed::Nobody => None,
        };
        let same_way = wayfarer.before.filter(|(before, _)| Some(*before) == route);
        let waiting = match wayfarer.waiting {
            // Another provider, or nobody, does not keep it.
            Waiting::Callback if same_way.is_none() => Waiting::Ready,
            // It waits for a provider, not for a time: it goes as soon as one serves it.
            _ if routed == Routed::Nobody => Waiting::Ready,
            waiting => waiting,
        };
        match parts.as_mut_slice().iter_mut().find(|part| part.route == route) {
            Some(part) => {
                part.declined_by(wayfarer.not_me);
                part.recipients.push(wayfarer.index);
                part.attempts = part.attempts.max(wayfarer.attempts);
                part.waiting = part.waiting.sooner(waiting);
            }
            None => parts.push(Part {
                route,
                recipients: Few::One(wayfarer.index),
                attempts: wayfarer.attempts,
                waiting,
                again: same_way.map(|(_, again)| again).unwrap_or_default(),
                not_me: (!wayfarer.not_me.is_empty()).then(|| Box::new(wayfarer.not_me.to_vec())),
            }),
        }
    }
    (parts, unwanted)
}

/// What the schedule knows of a message that was just submitted.
fn new_entry(routing: &Routing, envelope: &Envelope, size: u64, now: Now) -> Entry {
    let all = envelope.recipients.iter().zip(0_u32..).map(|(recipient, index)| Wayfarer {
        index,
        address: &recipient.address,
        attempts: 0,
        waiting: Waiting::Ready,
        not_me: &[],
        before: None,
        declined: false,
    });
    Entry {
        born_ms: now.mono_ms,
        size,
        priority: envelope.priority,
        standing: Standing::Active,
        deaths: 0,
        delay_reported: false,
        null_sender: envelope.sender.is_empty(),
        wants_success: envelope
            .recipients
            .iter()
            .any(|recipient| recipient.notify.is_some_and(|notify| notify.success)),
        parts: parts(routing, all.collect()).0,
    }
}

/// Makes the schedule's entry of a report of our own.
pub(super) fn report_entry(routing: &Routing, message: &NewMessage, size: u64, now: Now) -> Entry {
    new_entry(routing, &message.envelope, size, now)
}

fn upload_of(content: &Incoming) -> Option<UploadKey> {
    match content {
        Incoming::Upload { key, .. } => Some(*key),
        Incoming::Inline(_) => None,
    }
}

/// X.2.4 of RFC 3463: a list cannot be expanded.
fn too_many(why: &TooMany) -> Refusal {
    Refusal { temporary: false, enhanced: "5.2.4".to_owned(), text: why.to_string() }
}

fn answer(acceptor: Acceptor, result: Result<MessageId, Refusal>, actions: &mut Vec<Action>) {
    match acceptor {
        Acceptor::Worker(worker, accept) => actions.push(Action::Send(worker, ToWorker::Accepted { accept, result })),
        Acceptor::Client(ask_id) => actions.push(Action::Answer(ask_id, Answer::Submitted(result))),
        Acceptor::Report(_) | Acceptor::Nobody => {}
    }
}
