//! A store in memory: the same promises as the one on disk, as long as the process lives. For simulations and tests.
//!
//! A clone is another handle of the same store, so that a simulated crash can drop one and go on with the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use spooler_protocol::control::{Filter, MessageDetail, MessageState, MessageSummary};
use spooler_protocol::history::{Finished, HistoryFilter};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Envelope;

use super::failure::{failed, full};
use super::listing::{Selection, Stored, StoredMessage};
use super::{
    Change, HistoryPage, NewMessage, RecipientUpdate, Scanned, ScannedMessage, Store, StoreError, StoreReader,
    StoredContent,
};
use crate::record::{Ending, Leaving};

/// What stands for a path in errors.
const PLACE: &str = "(memory)";

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    messages: BTreeMap<MessageId, StoredMessage>,
    contents: BTreeMap<MessageId, Bytes>,
    history: VecDeque<(Finished, Option<u32>)>,
    history_bytes: u64,
    places: u64,
    last_id: MessageId,
    full: bool,
    commits: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the content of a message where the commit of a [`StoredContent::File`] of that number looks for it.
    pub fn put_file(&self, id: MessageId, content: Bytes) {
        self.lock().contents.insert(id, content);
    }

    /// Whether the disk is full: then every commit is refused that does more than remove.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Commits that went well so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing below panics half-way through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, units: &[Vec<Change>]) -> Result<(), StoreError> {
        let mut shared = self.lock();
        if shared.full && units.iter().flatten().any(|change| !matches!(change, Change::Remove { .. })) {
            return Err(full(Path::new(PLACE)));
        }
        shared.check(units)?;
        units.iter().flatten().for_each(|change| shared.apply(change));
        shared.commits += 1;
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(self.clone()))
    }

    fn last_id(&mut self) -> Result<MessageId, StoreError> {
        Ok(self.lock().last_id)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Shared {
    /// Everything that a commit can fail for, before anything is changed.
    fn check(&self, units: &[Vec<Change>]) -> Result<(), StoreError> {
        let mut accepted = BTreeSet::new();
        for change in units.iter().flatten() {
            let Change::Accept(message) = change else { continue };
            if self.messages.contains_key(&message.id) || !accepted.insert(message.id) {
                return Err(failed(Path::new(PLACE), format!("there is a message {} already", message.id)));
            }
            let StoredContent::File(size) = message.content else { continue };
            let found = self.contents.get(&message.id).map(length);
            if found != Some(size) {
                return Err(failed(Path::new(PLACE), format!("the content of message {} is missing", message.id)));
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Accept(message) => self.accept(message),
            Change::Recipients { id, updates } => {
                let Some(message) = self.messages.get_mut(id) else { return };
                for update in updates {
                    let known = message.scanned.recipients.iter_mut().find(|known| known.index == update.index);
                    known.into_iter().for_each(|known| *known = update.clone());
                }
            }
            Change::State { id, state, why } => {
                let Some(message) = self.messages.get_mut(id) else { return };
                message.scanned.state = match state {
                    MessageState::Held | MessageState::Quarantined => *state,
                    MessageState::Ready | MessageState::InFlight | MessageState::Deferred => MessageState::Ready,
                };
                message.why.clone_from(why);
            }
            Change::Marks { id, deaths, delay_reported, death } => {
                let Some(message) = self.messages.get_mut(id) else { return };
                message.scanned.deaths = *deaths;
                message.scanned.delay_reported = *delay_reported;
                if *deaths == 0 {
                    message.died.clear();
                }
                message.died.extend(death.as_deref().cloned());
            }
            Change::Remove { id, ending } => {
                self.contents.remove(id);
                if let (Some(message), Some(ending)) = (self.messages.remove(id), ending) {
                    self.finish(message, ending);
                }
            }
        }
    }

    fn finish(&mut self, message: StoredMessage, ending: &Ending) {
        let StoredMessage { scanned, origin, owner_uid, .. } = message;
        let Envelope { sender, recipients, .. } = scanned.envelope;
        let leaving = Leaving { sender, size: scanned.size, submitted_ms: scanned.submitted_ms, origin };
        let finished = ending.finish(scanned.id, leaving, recipients.into_iter().zip(scanned.recipients).collect());
        self.places += 1;
        let finished = Finished { place: self.places, ..finished };
        let keep = ending.keep;
        let length = |finished: &Finished| serde_json::to_vec(finished).map_or(0, |entry| entry.len() as u64);
        self.history_bytes += length(&finished);
        self.history.push_back((finished, owner_uid));
        while let Some((oldest, _)) = self.history.front()
            && (oldest.ended_ms < keep.since_ms || self.history_bytes > keep.bytes_max)
        {
            self.history_bytes -= length(oldest);
            self.history.pop_front();
        }
    }

    fn accept(&mut self, message: &NewMessage) {
        let size = match &message.content {
            StoredContent::Inline(content) => {
                self.contents.insert(message.id, content.clone());
                length(content)
            }
            StoredContent::File(size) => *size,
        };
        let scanned = ScannedMessage {
            id: message.id,
            envelope: message.envelope.clone(),
            state: MessageState::Ready,
            submitted_ms: message.submitted_ms,
            size,
            deaths: 0,
            delay_reported: false,
            recipients: (0..)
                .zip(&message.envelope.recipients)
                .map(|(index, _)| RecipientUpdate::untried(index))
                .collect(),
        };
        let origin = message.origin.clone();
        let (why, owner_uid) = (String::new(), message.owner_uid);
        let stored = StoredMessage { scanned, why, origin, owner_uid, died: Vec::new() };
        self.messages.insert(message.id, stored);
        self.last_id = self.last_id.max(message.id);
    }
}

fn length(content: &Bytes) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

impl MemoryStore {
    /// The first message after `last`, or the very first one. Nothing stays locked while a visitor looks at it.
    fn after(&self, last: Option<MessageId>) -> Option<Stored> {
        let start = last.map_or(Bound::Unbounded, Bound::Excluded);
        let shared = self.lock();
        let (_, message) = shared.messages.range((start, Bound::Unbounded)).next()?;
        Some(Stored::Message(Box::new(message.clone())))
    }

    fn one(&self, id: MessageId) -> Option<Stored> {
        self.lock().messages.get(&id).map(|message| Stored::Message(Box::new(message.clone())))
    }
}

impl StoreReader for MemoryStore {
    fn scan(&mut self, visit: &mut dyn FnMut(Scanned) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut last = None;
        while let Some(stored) = self.after(last) {
            last = Some(stored.id());
            if visit(stored.into_scanned()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn get(&mut self, id: MessageId) -> Result<Option<Scanned>, StoreError> {
        Ok(self.one(id).map(Stored::into_scanned))
    }

    fn content(&mut self, id: MessageId, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let shared = self.lock();
        let content = shared.messages.get(&id).and_then(|_| shared.contents.get(&id));
        let content = content.ok_or_else(|| failed(Path::new(PLACE), format!("there is no message {id}")))?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let to = from.saturating_add(length).min(content.len());
        Ok(content.slice(from..to))
    }

    fn list(
        &mut self,
        filter: &Filter,
        now_ms: i64,
        owner_uid: Option<u32>,
        visit: &mut dyn FnMut(MessageSummary) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let selection = Selection::new(filter, now_ms, owner_uid).map_err(|why| failed(Path::new(PLACE), why))?;
        let mut left = selection.limit.unwrap_or(u64::MAX);
        let mut last = None;
        while left > 0
            && let Some(stored) = self.after(last)
        {
            last = Some(stored.id());
            if !selection.matches(&stored) {
                continue;
            }
            left -= 1;
            if visit(stored.summary(now_ms)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn history(
        &mut self,
        filter: &HistoryFilter,
        owner_uid: Option<u32>,
        before: u64,
    ) -> Result<HistoryPage, StoreError> {
        let shared = self.lock();
        let asked_for = |(finished, owner): &&(Finished, Option<u32>)| {
            finished.place < before
                && finished.place > filter.after.unwrap_or(0)
                && owner_uid.is_none_or(|uid| *owner == Some(uid))
                && filter.id.is_none_or(|id| finished.id.0 == id)
                && filter.since_ms.is_none_or(|since_ms| finished.ended_ms >= since_ms)
                && filter.matches(finished)
        };
        let found = shared.history.iter().rev().filter(asked_for).map(|(finished, _)| finished.clone());
        Ok(HistoryPage { found: found.collect(), next: None })
    }

    fn finished(&mut self, id: MessageId, owner_uid: Option<u32>) -> Result<Option<Finished>, StoreError> {
        let filter = HistoryFilter { id: Some(id.0), ..HistoryFilter::default() };
        Ok(self.history(&filter, owner_uid, u64::MAX)?.found.into_iter().next())
    }

    fn detail(&mut self, id: MessageId, now_ms: i64) -> Result<Option<(MessageDetail, Option<u32>)>, StoreError> {
        Ok(self.one(id).map(|stored| (stored.detail(now_ms), stored.owner_uid())))
    }
}
