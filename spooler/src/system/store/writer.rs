//! The thread that commits: everything that waits goes into one synced commit.
//!
//! While one commit waits for the disk, the next ones gather behind it. How long a unit waits for company besides is decided in
//! `company.rs`; a message that comes alone never does.
//!
//! ```text
//!            commit ──ok──▶ report
//!  waiting ──▶  │
//!     ▲         ├──full, failing──▶ report units that accept as refused; commit the others ──ok──▶ report
//!     │         │                                                                 │ full, failing
//!     └─────────┼──── again after a pause, in the same order ◀────────────────────┘  (stuck)
//!               └──other error──▶ each unit alone, once ──▶ report each
//! ```
//!
//! What was accepted must be able to go on: a disk that is full or fails refuses new messages, and never drops what became of the old
//! ones. As long as it does not even take that, the writer is stuck, and says so: nothing should be delivered then that cannot be recorded.

use std::collections::VecDeque;
use std::path::Path;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use super::company::Company;
use super::failure::of_io;
use super::reserve::Reserve;
use super::{Change, Store, StoreError, StoredContent};

/// Units in one commit.
const COMMIT_UNITS_MAX: usize = 512;

/// Bytes in one commit, about.
const COMMIT_BYTES_MAX: u64 = 8 << 20;

/// How long to wait for a disk that is full or fails.
const STUCK_PAUSE: Duration = Duration::from_millis(100);

/// Names a unit in the report; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of units, in the order in which they were submitted, as far as they went the same way.
pub type Report = Vec<(Ticket, Result<(), StoreError>)>;

/// The way to the committing thread.
pub struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    ticket: Ticket,
    unit: Vec<Change>,
}

impl Writer {
    /// Starts the thread. `report` is called on it, once for each ticket; `stuck` when not even what became of deliveries comes to disk
    /// any more, with the reason, and when it does again.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        store: Box<dyn Store>,
        reserve: Reserve,
        report: impl FnMut(Report) + Send + 'static,
        tell_stuck: impl FnMut(Option<String>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (sender, jobs) = unbounded();
        let mut committer = Committer {
            store,
            reserve,
            report: Box::new(report),
            waiting: VecDeque::new(),
            stuck: None,
            tell_stuck: Box::new(tell_stuck),
            company: Company::default(),
        };
        let spawned = Builder::new().name("store-write".to_owned()).spawn(move || committer.run(&jobs));
        let thread = spawned.map_err(|error| of_io(Path::new("store-write"), "start a thread", &error))?;
        Ok(Self { jobs: Some(sender), thread: Some(thread) })
    }

    /// Has a unit committed: all of its changes or none. Units are applied in the order in which they are submitted. Never blocks.
    pub fn submit(&self, ticket: Ticket, unit: Vec<Change>) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after this sender.
            let _ = jobs.send(Job { ticket, unit });
        }
    }

    /// Commits all that waits, and ends the thread. What cannot be committed because the disk is full is reported so.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Units on their way into one commit.
#[derive(Default)]
struct Batch {
    tickets: Vec<Ticket>,
    units: Vec<Vec<Change>>,
}

impl Batch {
    fn push(&mut self, job: Job) {
        self.tickets.push(job.ticket);
        self.units.push(job.unit);
    }

    fn into_jobs(self) -> impl DoubleEndedIterator<Item = Job> + ExactSizeIterator {
        self.tickets.into_iter().zip(self.units).map(|(ticket, unit)| Job { ticket, unit })
    }

    fn is_empty(&self) -> bool {
        self.units.is_empty()
    }
}

/// Why nothing comes to disk, for now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stuck {
    Full { path: String },
    Failing { path: String, why: String },
}

impl Stuck {
    fn of(error: StoreError) -> Result<Self, StoreError> {
        match error {
            StoreError::Full { path } => Ok(Self::Full { path }),
            StoreError::Failing { path, why } => Ok(Self::Failing { path, why }),
            other => Err(other),
        }
    }

    /// What whoever waits is told.
    fn refusal(&self) -> StoreError {
        match self.clone() {
            Self::Full { path } => StoreError::Full { path },
            Self::Failing { path, why } => StoreError::Failing { path, why },
        }
    }
}

struct Committer {
    store: Box<dyn Store>,
    reserve: Reserve,
    report: Box<dyn FnMut(Report) + Send>,
    /// In the order of submission: those of the next commit, and while stuck all that is kept.
    waiting: VecDeque<Job>,
    /// Why the last commit failed, which accepted nothing.
    stuck: Option<Stuck>,
    tell_stuck: Box<dyn FnMut(Option<String>) + Send>,
    company: Company,
}

impl Committer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut open = true;
        while open || !self.waiting.is_empty() || !jobs.is_empty() {
            if open && self.stuck.is_some() {
                open = self.pause(jobs);
            } else if open && self.waiting.is_empty() {
                match jobs.recv() {
                    Ok(job) => open = self.await_company(job, jobs),
                    Err(_) => open = false,
                }
            }
            let batch = self.gather(jobs);
            if !batch.is_empty() {
                self.commit(batch);
                self.tidy();
            }
            if self.waiting.is_empty() {
                // Nothing is left that could show that the disk is well, or is not.
                self.go_on();
            }
            if !open && self.stuck.is_some() {
                return self.give_up(jobs);
            }
        }
    }

    /// Waits as long as it pays that more units go into the same commit; false if nobody submits any more.
    fn await_company(&mut self, first: Job, jobs: &Receiver<Job>) -> bool {
        self.company.begin(Instant::now(), awaited(&first.unit));
        self.waiting.push_back(first);
        while self.waiting.len() < COMMIT_UNITS_MAX {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => {
                    let Some(until) = self.company.wait_until(Instant::now()) else { return true };
                    match jobs.recv_deadline(until) {
                        Ok(job) => job,
                        Err(RecvTimeoutError::Timeout) => return true,
                        Err(RecvTimeoutError::Disconnected) => return false,
                    }
                }
            };
            self.company.join(Instant::now(), awaited(&job.unit));
            self.waiting.push_back(job);
        }
        true
    }

    /// Waits for space, or for nobody submitting any more (`false`). New messages are refused meanwhile.
    fn pause(&mut self, jobs: &Receiver<Job>) -> bool {
        let until = Instant::now() + STUCK_PAUSE;
        loop {
            match jobs.recv_deadline(until) {
                Ok(job) => self.wait_or_refuse(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn wait_or_refuse(&mut self, job: Job) {
        if accepts(&job.unit) {
            let refused = Err(self.refusal());
            (self.report)(vec![(job.ticket, refused)]);
        } else {
            self.waiting.push_back(job);
        }
    }

    /// The next units, in order. While stuck a single one: a small commit may still fit.
    fn gather(&mut self, jobs: &Receiver<Job>) -> Batch {
        let units_max = if self.stuck.is_some() { 1 } else { COMMIT_UNITS_MAX };
        let now = Instant::now();
        let mut batch = Batch::default();
        let mut refused = Vec::new();
        let mut bytes = 0_u64;
        while batch.units.len() < units_max && bytes < COMMIT_BYTES_MAX {
            let Some(job) = self.waiting.pop_front().or_else(|| jobs.try_recv().ok()) else { break };
            let weight = weight(&job.unit);
            let admitted = if accepts(&job.unit) { self.reserve.admit(now, weight) } else { Ok(()) };
            match admitted {
                Ok(()) => {
                    bytes = bytes.saturating_add(weight);
                    batch.push(job);
                }
                Err(error) => refused.push((job.ticket, Err(error))),
            }
        }
        self.tell(refused);
        batch
    }

    fn commit(&mut self, batch: Batch) {
        match self.store.commit(&batch.units).map_err(Stuck::of) {
            Ok(()) => self.committed(batch.tickets),
            Err(Ok(stuck)) => self.commit_without_accepts(batch, &stuck),
            Err(Err(error)) => self.commit_each(batch, error),
        }
    }

    fn commit_without_accepts(&mut self, batch: Batch, stuck: &Stuck) {
        let mut others = Batch::default();
        let mut refused = Vec::new();
        for job in batch.into_jobs() {
            if accepts(&job.unit) {
                refused.push((job.ticket, Err(stuck.refusal())));
            } else {
                others.push(job);
            }
        }
        self.tell(refused);
        if others.is_empty() {
            return;
        }
        // The store can often make room within its own files.
        self.tidy();
        match self.store.commit(&others.units).map_err(Stuck::of) {
            Ok(()) => self.committed(others.tickets),
            Err(Ok(stuck)) => self.put_back(others.into_jobs(), stuck),
            Err(Err(error)) => self.commit_each(others, error),
        }
    }

    /// One bad unit must not take the others with it.
    fn commit_each(&mut self, batch: Batch, error: StoreError) {
        let mut jobs = batch.into_jobs();
        if jobs.len() == 1 {
            let failed = jobs.next().map(|job| (job.ticket, Err(error)));
            return self.tell(failed.into_iter().collect());
        }
        while let Some(job) = jobs.next() {
            match self.store.commit(std::slice::from_ref(&job.unit)).map_err(Stuck::of) {
                Ok(()) => self.committed(vec![job.ticket]),
                Err(Ok(stuck)) if !accepts(&job.unit) => return self.put_back_or_refuse(job, jobs, stuck),
                Err(Ok(stuck)) => self.tell(vec![(job.ticket, Err(stuck.refusal()))]),
                Err(Err(error)) => self.tell(vec![(job.ticket, Err(error))]),
            }
        }
    }

    fn put_back_or_refuse(&mut self, first: Job, rest: impl DoubleEndedIterator<Item = Job>, stuck: Stuck) {
        let (refused, mut others): (Vec<Job>, Vec<Job>) = rest.partition(|job| accepts(&job.unit));
        others.insert(0, first);
        let refused = refused.into_iter().map(|job| (job.ticket, Err(stuck.refusal()))).collect();
        self.tell(refused);
        self.put_back(others.into_iter(), stuck);
    }

    /// In front of all that came later.
    fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = Job>, stuck: Stuck) {
        if self.stuck.as_ref() != Some(&stuck) {
            let why = stuck.refusal().to_string();
            tracing::warn!("{why}: new messages are refused, deliveries and their results wait");
            (self.tell_stuck)(Some(why));
        }
        self.stuck = Some(stuck);
        jobs.rev().for_each(|job| self.waiting.push_front(job));
    }

    fn committed(&mut self, tickets: Vec<Ticket>) {
        self.go_on();
        self.tell(tickets.into_iter().map(|ticket| (ticket, Ok(()))).collect());
    }

    /// New messages are taken again.
    fn go_on(&mut self) {
        if self.stuck.take().is_some() {
            tracing::info!("The disk of the spool is tried again with all that comes");
            (self.tell_stuck)(None);
        }
    }

    /// What is told to whoever waits.
    fn refusal(&self) -> StoreError {
        self.stuck.as_ref().map_or_else(|| self.reserve.refusal(), Stuck::refusal)
    }

    /// Nobody submits any more, and nothing comes to disk.
    fn give_up(&mut self, jobs: &Receiver<Job>) {
        let left: Vec<Job> = self.waiting.drain(..).chain(jobs.try_iter()).collect();
        if !left.is_empty() {
            tracing::warn!(
                "{} results of deliveries are not on disk: these messages will be delivered again",
                left.len()
            );
        }
        let refused = left.into_iter().map(|job| (job.ticket, Err(self.refusal()))).collect();
        self.tell(refused);
    }

    fn tell(&mut self, report: Report) {
        if !report.is_empty() {
            (self.report)(report);
        }
    }

    fn tidy(&mut self) {
        if let Err(error) = self.store.tidy()
            && self.stuck.is_none()
        {
            tracing::warn!(%error, "Housekeeping of the store failed; it is tried again after the next commit");
        }
    }
}

/// Whether a unit takes in a message that can come again later: such a unit is refused when the disk is full or fails, all others are
/// kept.
fn accepts(unit: &[Change]) -> bool {
    unit.iter().any(|change| matches!(change, Change::Accept(message) if !message.is_report()))
}

/// Whether somebody waits for a unit: a sender for a message, a person for a change of its state.
fn awaited(unit: &[Change]) -> bool {
    unit.iter().any(|change| matches!(change, Change::Accept(_) | Change::State { .. }))
}

/// Bytes that a unit comes to on disk, about.
fn weight(unit: &[Change]) -> u64 {
    let bytes = |change: &Change| match change {
        Change::Accept(message) => match &message.content {
            StoredContent::Inline(content) => 512 + content.len() + 128 * message.envelope.recipients.len(),
            StoredContent::File(_) => 512 + 128 * message.envelope.recipients.len(),
        },
        Change::Recipients { updates, .. } => 256 * updates.len(),
        Change::Marks { death: Some(_), .. } => 8 * 1024,
        Change::Remove { ending, .. } => 512 + ending.as_ref().map_or(0, |ending| 512 * ending.updates.len()),
        Change::State { .. } | Change::Marks { .. } => 256,
    };
    u64::try_from(unit.iter().map(bytes).sum::<usize>()).unwrap_or(u64::MAX)
}
