//! Threads that read: each with a reading end of its own, all taking jobs from one queue.
//!
//! A job that panics costs itself: whoever waits for its answer sees that none comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::failure::of_io;
use super::{StoreError, StoreReader};

/// What a thread is to read.
pub type ReadJob = Box<dyn FnOnce(&mut dyn StoreReader) + Send>;

/// The threads.
pub struct Readers {
    jobs: Sender<ReadJob>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts so many threads, at least one, each with what `make` gives.
    ///
    /// # Errors
    /// If a reading end or a thread cannot be made.
    pub fn start(
        mut make: impl FnMut() -> Result<Box<dyn StoreReader>, StoreError>,
        threads: usize,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = unbounded();
        let mut started = Self { jobs, threads: Vec::new() };
        for number in 0..threads.max(1) {
            let mut reader = make()?;
            let queue = queue.clone();
            let spawned = Builder::new().name(format!("store-read-{number}")).spawn(move || work(&mut *reader, &queue));
            let thread = spawned.map_err(|error| of_io(Path::new("store-read"), "start a thread", &error))?;
            started.threads.push(thread);
        }
        Ok(started)
    }

    /// Has a job done by the next thread that is free. Never blocks.
    pub fn run(&self, job: ReadJob) {
        // The threads end only after this sender.
        let _ = self.jobs.send(job);
    }

    /// Does all jobs that wait, and ends the threads.
    pub fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn work(reader: &mut dyn StoreReader, jobs: &Receiver<ReadJob>) {
    for job in jobs {
        // A reader holds nothing across calls but a connection, which ends its own transactions.
        if catch_unwind(AssertUnwindSafe(|| job(reader))).is_err() {
            tracing::error!("A reading job of the store panicked; the reader goes on with the next one");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::system::store::Store;
    use crate::system::store::memory::MemoryStore;

    #[test]
    fn a_slow_job_does_not_hold_up_the_others_and_a_panic_costs_only_itself() {
        let store = MemoryStore::new();
        let readers = Readers::start(|| store.reader(), 2).unwrap();
        let (release, blocked) = channel::<()>();
        readers.run(Box::new(move |_| blocked.recv().unwrap()));
        readers.run(Box::new(|_| panic!("on purpose")));
        let (sender, answer) = channel();
        readers.run(Box::new(move |reader| sender.send(reader.get(Default::default()).unwrap().is_none()).unwrap()));
        assert!(answer.recv().unwrap());
        release.send(()).unwrap();
        readers.stop();
    }

    #[test]
    fn a_reader_that_cannot_be_made_is_an_error_at_the_start() {
        let failing = || Err(StoreError::Full { path: "/x".to_owned() });
        assert!(Readers::start(failing, 2).is_err());
    }
}
