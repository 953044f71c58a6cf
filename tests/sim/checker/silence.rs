//! Workers that live and do not get on do not keep for ever what they have: those whose deliveries say nothing, those that do not answer
//! a call, and those that compute without end, are made to go. Those that are stopped are in `hangs`.

use std::collections::BTreeMap;

use spooler::policy::Now;
use spooler::supervisor::event::{WorkerId, WorkerNews};
use spooler_protocol::from_worker::FromWorker;

use super::{Verdict, demand};
use crate::plan::{OVERRUN_MS, Plan};

/// From the moment at which a worker is found to be lost until it is dead: it is looked at every second, asked to go, and sent two
/// signals, each with its own patience.
const MADE_TO_GO_MS: i64 = 2 * 1000 + 4000 + 2000 + 1000;

#[derive(Clone, Copy, Debug)]
struct Computing {
    since_ms: i64,
    /// How much of the time it really has the CPU.
    percent: u32,
}

/// What a worker owes a word about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owed {
    Deliveries,
    Calls,
}

/// Since when workers say nothing of what they owe, and since when they compute.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    silent: BTreeMap<(WorkerId, Owed), i64>,
    computing: BTreeMap<WorkerId, Computing>,
    patience_ms: i64,
    slice_ms: i64,
    slack_ms: i64,
}

impl Silence {
    pub(super) fn new(plan: &Plan, slack_ms: i64) -> Self {
        Self {
            patience_ms: i64::from(plan.patience_s) * 1000,
            slice_ms: i64::from(plan.slice_ms),
            slack_ms,
            ..Self::default()
        }
    }

    pub(super) fn hears(&mut self, worker: WorkerId, news: &WorkerNews) {
        match news {
            WorkerNews::Reads(_)
            | WorkerNews::Said {
                said:
                    FromWorker::Settled { .. }
                    | FromWorker::Finished { .. }
                    | FromWorker::Progress { .. }
                    | FromWorker::StatusRecips { .. },
                ..
            } => drop(self.silent.remove(&(worker, Owed::Deliveries))),
            WorkerNews::Uploads
            | WorkerNews::Accept { .. }
            | WorkerNews::Said {
                said:
                    FromWorker::Polled { .. }
                    | FromWorker::StartEnded(_)
                    | FromWorker::Idled
                    | FromWorker::Announced(_)
                    | FromWorker::Row { .. },
                ..
            } => drop(self.silent.remove(&(worker, Owed::Calls))),
            WorkerNews::Said { said: FromWorker::Yield { more: true, .. }, .. } => {
                self.silent.retain(|(of, _), _| *of != worker);
            }
            WorkerNews::Died(_) => {
                self.silent.retain(|(of, _), _| *of != worker);
                self.computing.remove(&worker);
            }
            _ => {}
        }
    }

    /// A worker begins to compute, and does not stop by itself.
    pub(crate) fn computes(&mut self, worker: WorkerId, percent: u32, now_ms: i64) {
        self.computing.entry(worker).or_insert(Computing { since_ms: now_ms, percent });
    }

    /// A step is over. `token_ms`: how long a worker may wait for the token that it is then asked for; `owing`: who has a delivery or an open
    /// call, and nothing that excuses its silence; `excused` who may compute as long as it likes.
    pub(super) fn stepped(
        &mut self,
        now: Now,
        token_ms: i64,
        owing: impl Iterator<Item = (WorkerId, Owed)>,
        excused: impl Fn(WorkerId) -> bool,
    ) -> Verdict {
        let before = std::mem::take(&mut self.silent);
        let since = |owed: (WorkerId, Owed)| (owed, before.get(&owed).copied().unwrap_or(now.mono_ms));
        self.silent = owing.map(since).collect();
        let slack_ms = MADE_TO_GO_MS + token_ms + 10 * self.slack_ms;
        let bound_ms = self.patience_ms + slack_ms;
        let lost = self.silent.iter().find(|(_, since_ms)| now.mono_ms - **since_ms > bound_ms);
        demand(lost.is_none(), "who is silent is made to go", || {
            format!("{lost:?}, now {}; the bound is {bound_ms} ms", now.mono_ms)
        })?;
        let overrun_ms = OVERRUN_MS + 2 * self.slice_ms;
        for (worker, Computing { since_ms, percent }) in &mut self.computing {
            if excused(*worker) {
                *since_ms = now.mono_ms;
            }
            let bound_ms = overrun_ms * 100 / i64::from(*percent) + slack_ms;
            demand(now.mono_ms - *since_ms <= bound_ms, "who computes without end is made to go", || {
                format!("{worker:?} since {} ms; the bound is {bound_ms} ms", now.mono_ms - *since_ms)
            })?;
        }
        Ok(())
    }

    pub(super) fn supervisor_gone(&mut self) {
        self.silent.clear();
        self.computing.clear();
    }
}
