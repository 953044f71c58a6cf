//! The thread that commits: everything that waits goes into one synced commit.
//!
//! While one commit waits for the disk, the next ones gather behind it. How long a unit waits for company besides is decided in
//! `company.rs`; a message that comes alone never does.
//!
//! ```text
//!            commit ──ok──▶ report
//!  waiting ──▶  │
//!     ▲         ├──full──▶ report units that accept as refused; commit the others ──ok──▶ report
//!     │         │                                                        │ full
//!     └─────────┼──── again after a pause, in the same order ◀───────────┘
//!               └──other error──▶ each unit alone, once ──▶ report each
//! ```
//!
//! What was accepted must be able to go on: a full disk refuses new messages, and never drops what became of the old ones.

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

/// How long to wait for space on a full disk.
const FULL_PAUSE: Duration = Duration::from_millis(100);

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
    /// Starts the thread. `report` is called on it, once for each ticket.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        store: Box<dyn Store>,
        reserve: Reserve,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (sender, jobs) = unbounded();
        let mut committer = Committer {
            store,
            reserve,
            report: Box::new(report),
            waiting: VecDeque::new(),
            full: false,
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

struct Committer {
    store: Box<dyn Store>,
    reserve: Reserve,
    report: Box<dyn FnMut(Report) + Send>,
    /// In the order of submission: those of the next commit, and on a full disk all that is kept.
    waiting: VecDeque<Job>,
    /// The last commit failed for want of space, and it accepted nothing.
    full: bool,
    company: Company,
}

impl Committer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut open = true;
        while open || !self.waiting.is_empty() || !jobs.is_empty() {
            if open && self.full {
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
            if !open && self.full {
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
        let until = Instant::now() + FULL_PAUSE;
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
            let refused = Err(self.reserve.refusal());
            (self.report)(vec![(job.ticket, refused)]);
        } else {
            self.waiting.push_back(job);
        }
    }

    /// The next units, in order. On a full disk a single one: a small commit may still fit.
    fn gather(&mut self, jobs: &Receiver<Job>) -> Batch {
        let units_max = if self.full { 1 } else { COMMIT_UNITS_MAX };
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
        match self.store.commit(&batch.units) {
            Ok(()) => self.committed(batch.tickets),
            Err(StoreError::Full { path }) => self.commit_without_accepts(batch, &path),
            Err(error) => self.commit_each(batch, error),
        }
    }

    fn commit_without_accepts(&mut self, batch: Batch, path: &str) {
        let mut others = Batch::default();
        let mut refused = Vec::new();
        for job in batch.into_jobs() {
            if accepts(&job.unit) {
                refused.push((job.ticket, Err(StoreError::Full { path: path.to_owned() })));
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
        match self.store.commit(&others.units) {
            Ok(()) => self.committed(others.tickets),
            Err(StoreError::Full { .. }) => self.put_back(others.into_jobs()),
            Err(error) => self.commit_each(others, error),
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
            match self.store.commit(std::slice::from_ref(&job.unit)) {
                Err(StoreError::Full { .. }) if !accepts(&job.unit) => {
                    return self.put_back_or_refuse(job, jobs);
                }
                result => self.tell(vec![(job.ticket, result)]),
            }
        }
    }

    fn put_back_or_refuse(&mut self, first: Job, rest: impl DoubleEndedIterator<Item = Job>) {
        let (refused, mut others): (Vec<Job>, Vec<Job>) = rest.partition(|job| accepts(&job.unit));
        others.insert(0, first);
        let refused = refused.into_iter().map(|job| (job.ticket, Err(self.reserve.refusal()))).collect();
        self.tell(refused);
        self.put_back(others.into_iter());
    }

    /// In front of all that came later.
    fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = Job>) {
        if !self.full {
            tracing::warn!(
                "The disk of the spool is full: new messages are refused, results wait until there is space"
            );
        }
        self.full = true;
        jobs.rev().for_each(|job| self.waiting.push_front(job));
    }

    fn committed(&mut self, tickets: Vec<Ticket>) {
        if self.full {
            tracing::info!("The disk of the spool has space again");
        }
        self.full = false;
        self.tell(tickets.into_iter().map(|ticket| (ticket, Ok(()))).collect());
    }

    /// Nobody submits any more, and there is no space.
    fn give_up(&mut self, jobs: &Receiver<Job>) {
        let left = self.waiting.drain(..).chain(jobs.try_iter());
        let refused = left.map(|job| (job.ticket, Err(self.reserve.refusal()))).collect();
        self.tell(refused);
    }

    fn tell(&mut self, report: Report) {
        if !report.is_empty() {
            (self.report)(report);
        }
    }

    fn tidy(&mut self) {
        if let Err(error) = self.store.tidy()
            && !self.full
        {
            tracing::warn!(%error, "Housekeeping of the store failed; it is tried again after the next commit");
        }
    }
}

/// Whether a unit takes in a message: such a unit is refused when the disk is full, all others are kept.
fn accepts(unit: &[Change]) -> bool {
    unit.iter().any(|change| matches!(change, Change::Accept(_)))
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
        Change::State { .. } | Change::Marks { .. } | Change::Remove { .. } => 256,
    };
    u64::try_from(unit.iter().map(bytes).sum::<usize>()).unwrap_or(u64::MAX)
}
