//! Those who watch the status table: they get a snapshot from the loop, and then what has changed, at most so often.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Driver;
use crate::supervisor::event::{Event, WorkerId, WorkerNews};
use crate::system::control::{Feed, Subscription};

/// The least time between two lines.
const LINES_EVERY_MS: i64 = 50;

/// What the loop keeps for those who watch.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    feed: Feed,
    next_ms: i64,
}

impl Driver {
    /// Somebody begins to watch. The others hear first what has changed, so that one number stands for one table.
    pub(super) fn subscribe(&mut self, answer: oneshot::Sender<Subscription>) {
        self.read_cpu_clocks();
        self.publish_now();
        let snapshot = self.supervisor.snapshot(self.equipment.clock.now());
        let _ = answer.send(self.watchers.feed.subscribe(snapshot));
    }

    /// Tells what has changed, if somebody watches and it is time.
    pub(super) fn publish(&mut self) {
        if !self.watchers.feed.is_watched() {
            self.supervisor.forget_watchers();
        } else if self.supervisor.has_changes() && self.equipment.clock.now().mono_ms >= self.watchers.next_ms {
            self.publish_now();
        }
    }

    /// How long the loop may sleep before there is something to tell.
    pub(super) fn until_publishing(&self) -> Option<Duration> {
        let wait_ms = self.watchers.next_ms - self.equipment.clock.now().mono_ms;
        self.supervisor.has_changes().then(|| Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default()))
    }

    fn publish_now(&mut self) {
        let now = self.equipment.clock.now();
        self.watchers.next_ms = now.mono_ms + LINES_EVERY_MS;
        if let Some(update) = self.supervisor.changes(now) {
            self.watchers.feed.publish(update);
        }
    }

    /// Reads the CPU clocks of all workers, for a table that is about to be made.
    pub(super) fn read_cpu_clocks(&mut self) {
        let live: Vec<WorkerId> = self.supervisor.live_workers().collect();
        for worker in live {
            self.hear_of_programs(worker);
            let cpu_us = self.cpu_us(worker);
            self.hear(Event::Worker(worker, WorkerNews::Cpu(cpu_us)));
        }
    }
}
