//! The disk: units wait, are committed together, and are reported, as `system/store/writer.rs` does it, over the store in memory. What
//! is not committed when the supervisor dies is lost.

use std::collections::{BTreeSet, VecDeque};

use spooler::record::Change;
use spooler::supervisor::event::Ticket;
use spooler::system::store::memory::MemoryStore;
use spooler::system::store::{Store, StoreError, StoreReader};
use spooler_protocol::history::HistoryFilter;
use spooler_protocol::ids::MessageId;
use spooler_protocol::to_worker::Refusal;

use crate::stage::Stage;

/// What became of a unit.
pub(crate) type Report = (Ticket, Vec<Change>, Result<(), Refusal>);

/// What the supervisor is told, in order.
#[derive(Debug)]
pub(crate) enum Told {
    /// What became of a unit.
    Commit(Ticket, Result<(), Refusal>),
    /// What becomes of deliveries does not come to disk, and why; or it does again.
    Stuck(Option<String>),
}

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What is on it.
    pub(crate) store: MemoryStore,
    ids: BTreeSet<MessageId>,
    waiting: VecDeque<(Ticket, Vec<Change>)>,
    /// What the supervisor has not heard yet.
    pub(crate) reports: VecDeque<Told>,
    /// No room for new messages.
    pub(crate) full: bool,
    /// Even what became of deliveries waits for room, or for the disk to work again.
    stuck: bool,
    /// The supervisor was told so.
    told_stuck: bool,
    /// Every commit takes so much longer, milliseconds.
    pub(crate) slow_ms: i64,
}

impl Disk {
    /// A unit is to be committed.
    pub(crate) fn submit(&mut self, ticket: Ticket, unit: Vec<Change>) {
        self.waiting.push_back((ticket, unit));
    }

    /// The messages on it.
    pub(crate) fn ids(&self) -> &BTreeSet<MessageId> {
        &self.ids
    }

    /// Whether nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.reports.is_empty()
    }

    /// Whether something waits to be committed.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// One commit: of some of what waits, in order. Gives what became of each.
    pub(crate) fn turn(&mut self, stage: &mut Stage) -> Vec<Report> {
        if self.full {
            let reports = self.refuse_accepts();
            self.stuck = self.has_work();
            return reports;
        }
        self.stuck = false;
        let most = self.waiting.len() as u64;
        let count = usize::try_from(stage.rng.below(most) + 1).unwrap_or(1).min(self.waiting.len());
        let batch: Vec<(Ticket, Vec<Change>)> = self.waiting.drain(..count).collect();
        let mut reports = Vec::new();
        let mut batch = batch.into_iter();
        while let Some((ticket, unit)) = batch.next() {
            let result = match stage.mishap(stage.plan.troubles.disk_error) {
                true if accepts(&unit) => Err(refusal("the disk failed")),
                // What became of deliveries waits until the disk takes it, in its order.
                true => {
                    let rest: Vec<(Ticket, Vec<Change>)> = std::iter::once((ticket, unit)).chain(batch).collect();
                    rest.into_iter().rev().for_each(|unit| self.waiting.push_front(unit));
                    self.stuck = true;
                    return reports;
                }
                false => self.commit(&unit),
            };
            reports.push((ticket, unit, result));
        }
        reports
    }

    /// Whether it is stuck, if that is news.
    pub(crate) fn take_news(&mut self) -> Option<Option<String>> {
        let news = self.stuck != self.told_stuck;
        self.told_stuck = self.stuck;
        news.then(|| self.stuck.then(|| "the disk is full".to_owned()))
    }

    /// New messages are refused, everything else waits for room.
    fn refuse_accepts(&mut self) -> Vec<Report> {
        let (accepts, others): (VecDeque<_>, VecDeque<_>) = self.waiting.drain(..).partition(|(_, unit)| accepts(unit));
        self.waiting = others;
        accepts.into_iter().map(|(ticket, unit)| (ticket, unit, Err(refusal("the disk is full")))).collect()
    }

    fn commit(&mut self, unit: &Vec<Change>) -> Result<(), Refusal> {
        self.store.commit(std::slice::from_ref(unit)).map_err(|error: StoreError| refusal(&error.to_string()))?;
        for change in unit {
            match change {
                Change::Accept(message) => {
                    self.ids.insert(message.id);
                }
                Change::Remove { id, ending } => {
                    let known = self.ids.remove(id);
                    let of_it = HistoryFilter { id: Some(id.0), ..HistoryFilter::default() };
                    let page = self.store.history(&of_it, None, u64::MAX);
                    let times = page.map_or(0, |page| page.found.len());
                    assert!(ending.is_some(), "message {id} is removed and nothing is kept of it");
                    assert_eq!(times, usize::from(known), "message {id} in the history");
                }
                Change::Recipients { .. } | Change::State { .. } | Change::Marks { .. } => {}
            }
        }
        Ok(())
    }

    /// The supervisor dies: a part of what waits reached the disk, the rest is lost. Gives what was committed.
    pub(crate) fn crash(&mut self, stage: &mut Stage) -> Vec<Vec<Change>> {
        let count = usize::try_from(stage.rng.below(self.waiting.len() as u64 + 1)).unwrap_or_default();
        self.keep(count)
    }

    /// The supervisor ends as it should: everything that waits is committed first.
    pub(crate) fn drain(&mut self) -> Vec<Vec<Change>> {
        let count = if self.full { 0 } else { self.waiting.len() };
        self.keep(count)
    }

    fn keep(&mut self, count: usize) -> Vec<Vec<Change>> {
        let units: Vec<Vec<Change>> = self.waiting.drain(..).take(count).map(|(_, unit)| unit).collect();
        self.reports.clear();
        (self.stuck, self.told_stuck) = (false, false);
        units.into_iter().filter(|unit| self.commit(unit).is_ok()).collect()
    }
}

/// What is told if the disk does not do it.
pub(crate) fn refusal(why: &str) -> Refusal {
    Refusal { temporary: true, enhanced: "4.3.0".to_owned(), text: why.to_owned() }
}

/// Whether a unit takes in a message that can come again later.
fn accepts(unit: &[Change]) -> bool {
    unit.iter().any(|change| matches!(change, Change::Accept(message) if !message.is_report()))
}

/// Which message a change is about.
pub(crate) fn message_of(change: &Change) -> MessageId {
    match change {
        Change::Accept(message) => message.id,
        Change::Recipients { id, .. }
        | Change::State { id, .. }
        | Change::Marks { id, .. }
        | Change::Remove { id, .. } => *id,
    }
}
