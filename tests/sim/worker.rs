//! A simulated worker process around the real [`Session`]: its channel, its CPU clock, and the executor that runs provider code only
//! while there is a token, as `worker/src/runtime.rs` does.
//!
//! Each task (logon, one for each delivery, logoff) works off a script. A task that can go on is *runnable*; one at a time runs, and
//! what it does takes effect when its time is over.

use std::collections::{BTreeMap, VecDeque};

use spooler::supervisor::event::WorkerId;
use spooler_protocol::calls::EndMessage;
use spooler_protocol::from_worker::{FromWorker, RowUpdate};
use spooler_protocol::ids::{AcceptId, DeliveryId, MessageId};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::ToWorker;
use spooler_worker::session::{Say, Session};

use crate::agenda::Happening;
use crate::answering;
use crate::plan::ProviderPlan;
use crate::script::{self, Act, ENDLESS_MS, Script};
use crate::stage::Stage;

#[derive(Debug)]
struct Task {
    script: Script,
    runnable: bool,
    delivery: Option<(DeliveryId, MessageId)>,
    cancelled: bool,
    outcomes: Vec<(u32, Outcome)>,
}

/// What a worker computes now.
#[derive(Clone, Copy, Debug)]
struct Running {
    task: u64,
    since_ms: i64,
    run_ms: i64,
}

/// A word on its way out.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// For the supervisor as it is.
    Said(FromWorker),
    /// A message that is handed in.
    Accept(AcceptId),
    /// A piece of a body is asked for.
    Reads(DeliveryId),
    /// A piece of a message is handed in.
    Uploads,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Who it is.
    pub(crate) id: WorkerId,
    pub(crate) plan: ProviderPlan,
    session: Session,
    inbox: VecDeque<ToWorker>,
    /// What it has said and the supervisor has not heard.
    pub(crate) outbox: VecDeque<Outgoing>,
    tasks: BTreeMap<u64, Task>,
    running: Option<Running>,
    next: u64,
    /// Its CPU clock, but for what runs now.
    cpu_us: u64,
    /// Stopped by a signal since then: neither reads nor runs.
    hung_ms: Option<i64>,
    /// The process is there no more.
    pub(crate) dead: bool,
    logged_on: bool,
    logging_off: bool,
    hurry: bool,
    /// Changes of its row so far.
    rows: u64,
    /// Its open sections, the task of each, and whether that waits for it.
    sections: BTreeMap<u64, (u64, bool)>,
}

impl Worker {
    /// A process that has just been started.
    pub(crate) fn new(id: WorkerId, plan: ProviderPlan) -> Self {
        Self {
            id,
            plan,
            session: Session::new(),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            tasks: BTreeMap::new(),
            running: None,
            next: 1,
            cpu_us: 0,
            hung_ms: None,
            dead: false,
            logged_on: false,
            logging_off: false,
            hurry: false,
            rows: 0,
            sections: BTreeMap::new(),
        }
    }

    /// Whether the kernel refuses to raise its priority.
    pub(crate) fn cannot_raise(&self) -> bool {
        self.plan.cannot_raise
    }

    /// The supervisor has said something; it arrives after a while, in order.
    pub(crate) fn post(&mut self, word: ToWorker, stage: &mut Stage) {
        self.inbox.push_back(word);
        let hop_ms = stage.hop_ms();
        stage.after(hop_ms, Happening::Word(self.id));
    }

    /// The next word has arrived.
    pub(crate) fn read(&mut self, stage: &mut Stage) {
        if self.is_hung() || self.dead {
            return;
        }
        if let Some(word) = self.inbox.pop_front() {
            self.take(word, stage);
            self.go_on(stage);
        }
    }

    fn take(&mut self, word: ToWorker, stage: &mut Stage) {
        match word {
            ToWorker::Welcome(welcome) => {
                let person = answering::ask_person(&self.plan, &welcome);
                let script = script::logon(&self.plan, person, stage);
                self.spawn(script);
            }
            ToWorker::Grant { token, slice_ms, recalled } => {
                self.session.on_grant(token, slice_ms);
                if recalled {
                    self.take(ToWorker::Recall { token }, stage);
                }
            }
            ToWorker::Recall { token } => {
                let idle = self.running.is_none() && !self.tasks.values().any(|task| task.runnable);
                let said = self.session.on_recall(token, idle);
                self.say(said, stage);
            }
            ToWorker::Submit(submission) => {
                let recipients = u32::try_from(submission.recipients.len()).unwrap_or_default();
                let script = script::delivery(&self.plan, submission.delivery, recipients, stage);
                self.begin(script, Some((submission.delivery, submission.message)));
                if stage.mishap(stage.plan.troubles.offline) {
                    let while_ms = stage.rng.between(10, 5000);
                    self.spawn(Script::from([Act::Offline(true), Act::Sleep(while_ms), Act::Offline(false)]));
                }
                if stage.mishap(self.plan.inbound) {
                    self.spawn(Script::from([Act::Compute(1), Act::HandIn]));
                }
            }
            ToWorker::Notify(notification) => self.be_told(&notification),
            ToWorker::CriticalGranted { section, .. } => {
                if let Some((task, waits)) = self.sections.get_mut(&section) {
                    let task = std::mem::take(waits).then(|| self.tasks.get_mut(task)).flatten();
                    task.into_iter().for_each(|task| task.runnable = true);
                }
            }
            ToWorker::CriticalEnded { up_to, .. } => {
                let later = self.sections.split_off(&(up_to + 1));
                for (task, waits) in std::mem::replace(&mut self.sections, later).into_values() {
                    self.session.on_critical(false);
                    let task = self.tasks.get_mut(&task).filter(|_| waits);
                    task.into_iter().for_each(|task| task.runnable = true);
                }
            }
            ToWorker::Logoff { hurry } => {
                self.hurry |= hurry;
                if !self.logging_off {
                    self.logging_off = true;
                    self.spawn(Script::from([Act::LogOff]));
                }
            }
            ToWorker::Body { .. } | ToWorker::UploadCredit { .. } | ToWorker::Accepted { .. } | ToWorker::Claims(_) => {
            }
            call @ (ToWorker::Announce
            | ToWorker::Poll
            | ToWorker::StartMessage
            | ToWorker::Idle
            | ToWorker::FlushQueues(_)
            | ToWorker::ValidateState { .. }) => self.be_called(&call, stage),
        }
    }

    fn be_told(&mut self, notification: &Notification) {
        match notification {
            Notification::CancelMessage(delivery) => {
                let is_its = |task: &&mut Task| task.delivery.is_some_and(|(id, _)| id == *delivery);
                if let Some(task) = self.tasks.values_mut().find(is_its) {
                    task.cancelled = true;
                }
            }
            Notification::BeginOutboundFlush | Notification::BeginInboundFlush => self.session.on_flush(true),
            // One way follows the other, and is begun anew.
            Notification::EndOutboundFlush | Notification::EndInboundFlush => self.session.on_flush(false),
            _ => {}
        }
    }

    /// Begins something that is no delivery.
    pub(crate) fn spawn(&mut self, script: Script) {
        self.begin(script, None);
    }

    fn begin(&mut self, script: Script, delivery: Option<(DeliveryId, MessageId)>) {
        let task = Task { script, runnable: true, delivery, cancelled: false, outcomes: Vec::new() };
        self.tasks.insert(self.next, task);
        self.next += 1;
    }

    /// A task has waited long enough.
    pub(crate) fn wake(&mut self, task: u64, stage: &mut Stage) {
        if let Some(task) = self.tasks.get_mut(&task) {
            task.runnable = true;
        }
        self.go_on(stage);
    }

    /// The process is stopped.
    pub(crate) fn hang(&mut self, now_ms: i64) {
        self.hung_ms.get_or_insert(now_ms);
    }

    /// Whether it is stopped.
    pub(crate) fn is_hung(&self) -> bool {
        self.hung_ms.is_some()
    }

    /// What its CPU clock says, microseconds.
    pub(crate) fn clock_us(&self, now_ms: i64) -> u64 {
        let until_ms = self.hung_ms.unwrap_or(now_ms);
        let ran = |running: Running| self.used_us((until_ms - running.since_ms).clamp(0, running.run_ms));
        self.cpu_us + self.running.map_or(0, ran)
    }

    /// CPU that it uses in so long.
    fn used_us(&self, run_ms: i64) -> u64 {
        micros(run_ms) * u64::from(self.plan.cpu_percent) / 100
    }

    /// Whether it computes without end.
    pub(crate) fn is_lost(&self) -> bool {
        self.running.is_some_and(|running| running.run_ms >= ENDLESS_MS)
    }

    /// The process goes on.
    pub(crate) fn unhang(&mut self, stage: &mut Stage) {
        if self.dead || self.hung_ms.take().is_none() {
            return;
        }
        while let Some(word) = self.inbox.pop_front() {
            self.take(word, stage);
        }
        if self.running.is_some() && !self.is_lost() {
            stage.after(0, Happening::Ran(self.id));
        }
        self.go_on(stage);
    }

    /// Runs a task if one can go on and there is a token; asks for one if there is none.
    fn go_on(&mut self, stage: &mut Stage) {
        if self.running.is_some() || self.is_hung() || self.dead {
            return;
        }
        let runnable: Vec<u64> = self.tasks.iter().filter(|(_, task)| task.runnable).map(|(id, _)| *id).collect();
        let Some(&chosen) = stage.rng.pick(&runnable) else { return };
        if !self.session.may_run() {
            let said = self.session.on_work();
            self.say(said, stage);
            return;
        }
        let act = self.tasks.get(&chosen).and_then(|task| task.script.front());
        let run_ms = if let Some(Act::Compute(ms)) = act { *ms } else { 0 };
        self.session.on_run(micros(stage.mono_ms));
        self.running = Some(Running { task: chosen, since_ms: stage.mono_ms, run_ms });
        stage.after(run_ms, Happening::Ran(self.id));
    }

    /// A task has run until its next act takes effect.
    pub(crate) fn ran(&mut self, stage: &mut Stage) {
        if self.is_hung() || self.dead {
            return;
        }
        let Some(Running { task, run_ms, .. }) = self.running.take() else { return };
        self.cpu_us += self.used_us(run_ms) + 20;
        let act = self.tasks.get_mut(&task).and_then(|task| task.script.pop_front());
        if let Some(act) = act {
            self.perform(task, act, stage);
        }
        if self.dead {
            return;
        }
        if self.tasks.get(&task).is_some_and(|task| task.script.is_empty()) {
            self.tasks.remove(&task);
        }
        let more = self.tasks.values().any(|task| task.runnable);
        let said = self.session.on_ran(micros(stage.mono_ms), more);
        self.say(said, stage);
        self.go_on(stage);
    }

    fn perform(&mut self, number: u64, act: Act, stage: &mut Stage) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        if task.cancelled && !matches!(act, Act::End | Act::Finish(..)) {
            let keep = |act: &Act| matches!(act, Act::End | Act::Finish(..));
            task.script.retain(keep);
            return;
        }
        match act {
            Act::Compute(_) => {}
            Act::Sleep(ms) => {
                task.runnable = false;
                stage.after(ms, Happening::Wake(self.id, number));
            }
            Act::Yield => {
                let said = self.session.on_explicit_yield();
                self.say(said, stage);
            }
            Act::Begin => {
                task.runnable = false;
                self.next += 1;
                let section = self.next;
                self.sections.insert(section, (number, true));
                self.session.on_critical(true);
                self.send(FromWorker::CriticalBegin { section, reason: "real time".to_owned() }, stage);
            }
            Act::End => {
                // One that the supervisor has ended is over already.
                let mine = self.sections.iter().rev().find(|(_, (task, _))| *task == number);
                if let Some(section) = mine.map(|(section, _)| *section) {
                    self.sections.remove(&section);
                    self.session.on_critical(false);
                    self.send(FromWorker::CriticalEnd { section }, stage);
                }
            }
            Act::Serve(place, outcome) => task.outcomes.push((place, outcome)),
            Act::Tell => self.tell(number, stage),
            Act::Finish(result, end) => self.finish(number, result, end, stage),
            Act::Report(place, report) => {
                if let Some((delivery, _)) = task.delivery {
                    self.send(FromWorker::StatusRecips { delivery, reports: vec![(place, report)] }, stage);
                }
            }
            Act::LogOn(result) => self.log_on(result, stage),
            Act::LogOff => self.log_off(number, stage),
            Act::HandIn => {
                self.next += 1;
                self.put_out(Outgoing::Accept(AcceptId(self.next)), stage);
            }
            Act::Upload => self.put_out(Outgoing::Uploads, stage),
            Act::ReadBody => {
                let reads = task.delivery.map(|(delivery, _)| Outgoing::Reads(delivery));
                if let Some(reads) = reads {
                    self.put_out(reads, stage);
                }
            }
            Act::Offline(offline) => {
                let update = RowUpdate { offline: Some(offline), ..RowUpdate::default() };
                self.say_row(update, stage);
            }
            Act::Answer(word) => self.send(*word, stage),
            Act::Say(word) => {
                if !stage.healed {
                    self.send(*word, stage);
                }
            }
            Act::Die => {
                if !stage.healed {
                    stage.after(0, Happening::Dies(self.id, "signal 11"));
                }
            }
            Act::Hang(while_ms) => self.be_stopped(while_ms, stage),
        }
    }

    fn be_stopped(&mut self, while_ms: Option<i64>, stage: &mut Stage) {
        if stage.healed {
            return;
        }
        stage.after(0, Happening::Hangs(self.id));
        if let Some(ms) = while_ms {
            stage.after(ms, Happening::GoesOn(self.id));
        }
    }

    fn tell(&mut self, number: u64, stage: &mut Stage) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        let outcomes = std::mem::take(&mut task.outcomes);
        if let Some((delivery, _)) = task.delivery.filter(|_| !outcomes.is_empty()) {
            self.send(FromWorker::Settled { delivery, outcomes }, stage);
        }
    }

    fn finish(&mut self, number: u64, result: SubmitResult, end: EndMessage, stage: &mut Stage) {
        let Some(task) = self.tasks.remove(&number) else { return };
        let result = if task.cancelled { SubmitResult::Cancelled } else { result };
        let Some((delivery, message)) = task.delivery else { return };
        if (&result, end) == (&SubmitResult::Done, EndMessage::Deferred) {
            self.keep(message, stage);
        }
        self.send(FromWorker::Finished { delivery, result, end, outcomes: task.outcomes }, stage);
    }

    fn log_on(&mut self, result: Result<(), spooler_protocol::from_worker::LogonError>, stage: &mut Stage) {
        match result {
            Ok(()) => {
                self.logged_on = true;
                let said = answering::announcement(&self.plan);
                self.send(FromWorker::LoggedOn(said), stage);
                if self.plan.inbound > 0 && !stage.healed {
                    self.spawn(Script::from([Act::Sleep(20), Act::HandIn, Act::Sleep(500), Act::HandIn]));
                }
            }
            Err(error) => {
                self.send(FromWorker::LogonFailed(error), stage);
                stage.after(1, Happening::Dies(self.id, "exit code 1"));
            }
        }
    }

    /// The provider ends when its deliveries have; in a hurry at once.
    fn log_off(&mut self, number: u64, stage: &mut Stage) {
        let busy = !self.logged_on || self.tasks.values().any(|task| task.delivery.is_some());
        if busy && !self.hurry {
            let Some(task) = self.tasks.get_mut(&number) else { return };
            task.script.push_front(Act::LogOff);
            task.runnable = false;
            stage.after(10, Happening::Wake(self.id, number));
            return;
        }
        self.send(FromWorker::LoggedOff, stage);
        stage.after(0, Happening::Dies(self.id, "exit code 0"));
    }

    fn say(&mut self, said: Option<Say>, stage: &mut Stage) {
        match said {
            None => {}
            Some(Say::Want) => self.send(FromWorker::Want, stage),
            Some(Say::Yield { token, more }) => self.send(FromWorker::Yield { token, more }, stage),
        }
    }

    /// Says something of its own row.
    pub(crate) fn say_row(&mut self, update: RowUpdate, stage: &mut Stage) {
        self.rows += 1;
        let row = FromWorker::Row { sequence: 1000 + self.rows, row: String::new(), update: Box::new(update) };
        self.send(row, stage);
    }

    /// Says something to the supervisor.
    pub(crate) fn send(&mut self, word: FromWorker, stage: &mut Stage) {
        self.put_out(Outgoing::Said(word), stage);
    }

    fn put_out(&mut self, word: Outgoing, stage: &mut Stage) {
        self.outbox.push_back(word);
        let hop_ms = stage.hop_ms();
        stage.after(hop_ms, Happening::Mail(self.id));
    }
}

fn micros(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or_default() * 1000
}
