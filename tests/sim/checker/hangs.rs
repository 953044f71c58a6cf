//! Workers that are stopped for ever do not keep for ever what they have: they are made to go.

use std::collections::BTreeMap;

use spooler::policy::Now;
use spooler::supervisor::event::WorkerId;

use super::{Verdict, demand};
use crate::plan::ANSWER_MS;

/// From the moment at which somebody waits for a worker that is stopped until it is killed: it is asked for its token in half the time
/// that it has for an answer, looked at every half second, asked to go, and sent a signal, each with its own patience.
const REPLACED_MS_MAX: i64 = ANSWER_MS / 2 + ANSWER_MS + 500 + 3000 + 2000 + 1000;

/// Workers that are stopped, and since when somebody waits for each.
#[derive(Debug, Default)]
pub(crate) struct Hangs {
    stopped: BTreeMap<WorkerId, i64>,
    slack_ms: i64,
}

impl Hangs {
    pub(super) fn new(slack_ms: i64) -> Self {
        Self { stopped: BTreeMap::new(), slack_ms }
    }

    /// A process is stopped.
    pub(crate) fn stops(&mut self, worker: WorkerId, now_ms: i64) {
        self.stopped.entry(worker).or_insert(now_ms);
    }

    /// It goes on.
    pub(crate) fn goes_on(&mut self, worker: WorkerId) {
        self.stopped.remove(&worker);
    }

    /// A step is over. `token_ms`: how long it may take until it gets the token that it is then asked for. `waits`: whether anybody waits for a worker, and nothing excuses it.
    pub(super) fn stepped(&mut self, now: Now, token_ms: i64, waits: impl Fn(WorkerId) -> bool) -> Verdict {
        let bound_ms = REPLACED_MS_MAX + token_ms + 10 * self.slack_ms;
        for (worker, since_ms) in &mut self.stopped {
            if !waits(*worker) {
                *since_ms = now.mono_ms;
            }
            demand(now.mono_ms - *since_ms <= bound_ms, "who hangs is made to go", || {
                format!("{worker:?} is stopped, and waited for since {} ms", now.mono_ms - *since_ms)
            })?;
        }
        Ok(())
    }

    pub(super) fn supervisor_gone(&mut self) {
        self.stopped.clear();
    }
}
