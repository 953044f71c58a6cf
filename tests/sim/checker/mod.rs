//! What must hold, checked from outside: a second bookkeeping that knows nothing of the supervisor's, made of what it hears and wants.
//!
//! | file | rules |
//! |---|---|
//! | `mail` | no accepted message is lost, none is delivered again without a reason, none twice at once, senders are told |
//! | `reports` | what a report quotes is there until it is on disk, and what settles it waits |
//! | `calls` | one call at a time, nothing after a critical error, nothing for ever |
//! | `hangs` | who hangs is made to go |
//! | `silence` | who is silent, or computes without end, is made to go |
//! | `gate` | how many slots the idle gate gives at most, and for how long it may be in the way |
//! | `machine` | without its device nobody gets anything to do; nothing begins before sleep, nobody runs in it |
//! | `tokens` | tokens and slots, nobody starves, priority only in sections |
//! | `agreement` | the schedule in RAM and the disk say the same |
//! | `table` | status rows are true and do not go back |

// The schedule in RAM and the disk say the same.
pub(crate) mod agreement;
// What providers are called for.
pub(crate) mod calls;
// How many slots there can be.
pub(crate) mod gate;
// Workers that are stopped.
pub(crate) mod hangs;
// What workers hold.
mod holding;
// What happens to the machine.
pub(crate) mod machine;
// What becomes of messages.
pub(crate) mod mail;
// Reports are made in time.
pub(crate) mod reports;
// Workers that live and do not get on.
pub(crate) mod silence;
// Status rows are true.
pub(crate) mod table;
// Tokens, slots and priorities.
pub(crate) mod tokens;

use std::collections::BTreeSet;

use spooler::policy::Now;
use spooler::record::Change;
use spooler::supervisor::Supervisor;
use spooler::supervisor::event::{Action, Event, Reading, Ticket, WorkerId, WorkerNews};

use crate::disk::Disk;
use crate::plan::Plan;

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Its name.
    pub(crate) rule: &'static str,
    /// What was seen.
    pub(crate) what: String,
}

impl Broken {
    /// What was seen, as far as it fits into a line.
    pub(crate) fn shortened(&self) -> &str {
        self.what.get(..self.what.floor_char_boundary(200)).unwrap_or_default()
    }
}

/// Whether a rule holds.
pub(crate) type Verdict = Result<(), Broken>;

/// Whether a rule holds; `what` says what was seen if not.
pub(crate) fn demand(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Broken { rule, what: what() }) }
}

/// The second bookkeeping.
#[derive(Debug)]
pub(crate) struct Checker {
    /// Workers that are alive as far as the supervisor can know.
    alive: BTreeSet<WorkerId>,
    pub(crate) mail: mail::Mail,
    pub(crate) tokens: tokens::Tokens,
    pub(crate) table: table::Table,
    pub(crate) machine: machine::Machine,
    pub(crate) hangs: hangs::Hangs,
    pub(crate) silence: silence::Silence,
    calls: calls::Calls,
    reports: reports::Reports,
    agreement: agreement::Agreement,
    /// Reports that could not be built, because the disk could not be read: they are ordered again, as the same.
    unread: BTreeSet<Ticket>,
    stopping: bool,
}

impl Checker {
    /// Before the first moment.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            alive: BTreeSet::new(),
            mail: mail::Mail::default(),
            tokens: tokens::Tokens::new(plan),
            table: table::Table::default(),
            machine: machine::Machine::new(plan.tick_late_ms_max + 2),
            hangs: hangs::Hangs::new(plan.tick_late_ms_max + 2),
            silence: silence::Silence::new(plan, plan.tick_late_ms_max + 2),
            calls: calls::Calls::new(plan.tick_late_ms_max + 2),
            reports: reports::Reports::default(),
            agreement: agreement::Agreement::default(),
            unread: BTreeSet::new(),
            stopping: false,
        }
    }

    /// Whether the supervisor knows this worker as alive.
    pub(crate) fn is_alive(&self, worker: WorkerId) -> bool {
        self.alive.contains(&worker)
    }

    /// The supervisor is started.
    pub(crate) fn starts(&mut self) {
        self.stopping = false;
    }

    /// The supervisor is told to stop.
    pub(crate) fn stops(&mut self) {
        self.stopping = true;
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether nothing is on its way anywhere.
    pub(crate) fn is_settled(&self, disk: &Disk) -> bool {
        self.agreement.is_settled() && self.reports.is_settled() && disk.is_quiet() && self.mail.flights() == 0
    }

    /// The supervisor is about to hear something.
    pub(crate) fn hears(&mut self, now: Now, event: &Event) {
        self.agreement.hears(event);
        self.reports.hears(event);
        if let Event::NotRead(Reading::Report(order), _) = event {
            self.unread.insert(order.ticket);
        }
        if let Event::Worker(worker, news) = event {
            if !self.alive.contains(worker) {
                return;
            }
            self.tokens.hears(*worker, news, now);
            self.mail.hears_worker(*worker, news);
            self.silence.hears(*worker, news);
            self.calls.hears_worker(*worker, news);
            if matches!(news, WorkerNews::Died(_) | WorkerNews::StartFailed(_)) {
                self.alive.remove(worker);
                self.hangs.goes_on(*worker);
            }
        } else {
            self.mail.hears(event);
            self.machine.hears(now, event);
            self.calls.hears(now, event);
            self.table.hears(event);
            self.tokens.hears_other(event, now);
        }
    }

    /// The supervisor wants something done.
    pub(crate) fn wants(&mut self, now: Now, action: &Action, disk: &mut Disk) -> Verdict {
        if let Action::Report(order) = action
            && self.unread.remove(&order.ticket)
        {
            return Ok(());
        }
        self.agreement.wants(action);
        match action {
            Action::Spawn(worker) => {
                let another = self.alive.iter().find(|other| other.provider == worker.provider);
                demand(another.is_none(), "one worker a provider", || format!("{worker:?} beside {another:?}"))?;
                self.alive.insert(*worker);
            }
            Action::Exit => {
                demand(self.alive.is_empty(), "no worker outlives the supervisor", || format!("{:?}", self.alive))?;
            }
            _ => {}
        }
        self.machine.wants(now, action)?;
        self.calls.wants(action)?;
        self.tokens.wants(now, action)?;
        self.reports.wants(action)?;
        self.mail.wants(action, disk)?;
        self.table.wants(action)
    }

    /// A step is over: everything that was wanted in it is being done.
    pub(crate) fn stepped(&mut self, now: Now, supervisor: &Supervisor, disk: &mut Disk) -> Verdict {
        supervisor.check_invariants();
        self.machine.stepped(now)?;
        self.calls.stepped(now)?;
        let (asleep, tokens, mail, calls) = (self.machine.is_asleep(), &self.tokens, &self.mail, &self.calls);
        self.hangs.stepped(now, tokens.bound_ms(), |worker| {
            !asleep && tokens.could_answer(worker) && (mail.has_flights(worker) || calls.is_called(worker))
        })?;
        let awake = self.alive.iter().copied().filter(|worker| !asleep && tokens.could_answer(*worker));
        let owing = awake.flat_map(|worker| {
            let deliveries = mail.has_flights(worker).then_some((worker, silence::Owed::Deliveries));
            let calls = calls.is_called(worker).then_some((worker, silence::Owed::Calls));
            deliveries.into_iter().chain(calls)
        });
        self.silence.stepped(now, tokens.bound_ms(), owing, |worker| asleep || !tokens.could_be_lost(worker))?;
        self.tokens.stepped(now, self.machine.is_asleep())?;
        self.reports.stepped()?;
        let reports = &self.reports;
        self.mail.stepped(|id| reports.is_open(id))?;
        self.agreement.stepped(supervisor, disk, &self.mail)
    }

    /// A unit is on disk, or was refused.
    pub(crate) fn committed(&mut self, unit: &[Change], on_disk: bool) {
        self.agreement.committed(unit);
        self.mail.committed(unit, on_disk);
    }

    /// The supervisor is gone, and everything that only it knew.
    pub(crate) fn supervisor_gone(&mut self) {
        self.alive.clear();
        self.mail.supervisor_gone();
        self.tokens.supervisor_gone();
        self.table.supervisor_gone();
        self.machine.supervisor_gone();
        self.hangs.supervisor_gone();
        self.silence.supervisor_gone();
        self.calls.supervisor_gone();
        self.agreement = agreement::Agreement::default();
        self.reports = reports::Reports::default();
        self.unread.clear();
        self.stopping = false;
    }
}
