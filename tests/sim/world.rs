//! The simulated world: one real supervisor, and everything around it. What `driver.rs` does with threads and system calls, this does
//! with an agenda.

use std::collections::{BTreeMap, VecDeque};

use spooler::policy::ProviderId;
use spooler::supervisor::event::{Action, Event, WorkerId, WorkerNews};
use spooler::supervisor::{Supervisor, Surroundings};
use spooler::system::store::Store;

use crate::agenda::Happening;
use crate::census::{self, Census};
use crate::checker::{Broken, Checker, Verdict, demand};
use crate::client::Clients;
use crate::disk::Disk;
use crate::machine::Machine;
use crate::mutations::{Mutant, Mutation};
use crate::stage::Stage;
use crate::trace::Trace;
use crate::worker::{Outgoing, Worker};

/// After all is well, everything that waits is through within so long besides the age at which it is given up, milliseconds.
const HEALED_MS_MAX: i64 = 400_000;
/// Steps of one seed: more means that something goes round in circles.
const STEPS_MAX: u64 = 200_000;

/// Things that are going to happen at once: more means the same.
const AGENDA_MAX: usize = 50_000;
/// Events that the supervisor hears in one millisecond: more means the same.
const BURST_MAX: u64 = 20_000;
/// What the supervisor may want in one step.
const ACTIONS_MAX: usize = 10_000;

/// The simulated world.
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) disk: Disk,
    pub(crate) clients: Clients,
    pub(crate) machine: Machine,
    pub(crate) checker: Checker,
    pub(crate) mutant: Mutant,
    pub(crate) trace: Trace,
    /// The names of providers, as this run of the supervisor numbers them.
    pub(crate) names: BTreeMap<ProviderId, String>,
    pub(crate) disk_turns: bool,
    /// The supervisor has ended by itself.
    pub(crate) exited: bool,
    /// What the supervisor was stopped by: how often.
    pub(crate) steps: u64,
    /// What the supervisor hears as soon as everything is done that it wants so far.
    pub(crate) heard: VecDeque<Event>,
    /// What the supervisor has heard.
    pub(crate) census: Census,
    /// The present millisecond, and the steps before it.
    burst: (i64, u64),
    healed_ms: i64,
    restarted_at_end: bool,
    /// Runs of the supervisor.
    pub(crate) lives: u64,
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>, trace: Trace) -> Self {
        let stage = Stage::new(seed);
        let checker = Checker::new(&stage.plan);
        Self {
            stage,
            supervisor: None,
            workers: BTreeMap::new(),
            disk: Disk::default(),
            clients: Clients::default(),
            machine: Machine::default(),
            checker,
            mutant: Mutant::new(mutation),
            trace,
            names: BTreeMap::new(),
            disk_turns: false,
            exited: false,
            steps: 0,
            heard: VecDeque::new(),
            census: Census::new(),
            burst: (0, 0),
            healed_ms: 0,
            restarted_at_end: false,
            lives: 0,
        }
    }

    /// Lives through everything: first things go wrong, then they do not, and everything has to come to its end.
    pub(crate) fn run(&mut self) -> Verdict {
        self.start()?;
        self.begin_load();
        let trouble_ms = self.stage.plan.trouble_ms;
        self.stage.always_after(trouble_ms, Happening::Heal);
        while !self.is_over()? {
            let (steps, ahead) = (self.steps, self.stage.agenda.len());
            demand(steps < STEPS_MAX && ahead < AGENDA_MAX, "nothing goes round in circles", || {
                format!("{steps} steps, {ahead} things are going to happen")
            })?;
            self.turn()?;
        }
        Ok(())
    }

    /// One thing happens, or time has come for the supervisor.
    fn turn(&mut self) -> Verdict {
        let deadline_ms = self.supervisor.as_ref().and_then(Supervisor::deadline_ms);
        let next_ms = self.stage.agenda.next_ms();
        if let Some(deadline_ms) = deadline_ms
            && next_ms.is_none_or(|next_ms| deadline_ms <= next_ms)
        {
            let late_ms = self.stage.rng.between(0, self.stage.plan.tick_late_ms_max);
            let until_ms = next_ms.unwrap_or(i64::MAX).max(self.stage.mono_ms);
            self.stage.mono_ms = (deadline_ms + late_ms).clamp(self.stage.mono_ms, until_ms.max(deadline_ms));
            self.hear(Event::Tick)?;
            let due_ms = self.supervisor.as_ref().and_then(Supervisor::deadline_ms);
            let now_ms = self.stage.mono_ms;
            let past = due_ms.filter(|due_ms| *due_ms <= now_ms);
            return demand(past.is_none(), "after a tick nothing is due", || format!("{past:?} at {now_ms}"));
        }
        let Some((at_ms, life, what)) = self.stage.agenda.take() else {
            return demand(false, "the world goes on", || "nothing is going to happen".to_owned());
        };
        self.stage.mono_ms = self.stage.mono_ms.max(at_ms);
        if life.is_some_and(|life| life != self.stage.life) {
            return Ok(());
        }
        self.happen(what)
    }

    fn happen(&mut self, what: Happening) -> Verdict {
        match what {
            Happening::Hear(event) => self.hear(*event)?,
            Happening::DiskReport => self.disk_report()?,
            Happening::DiskTurn => self.disk_turn(),
            Happening::Mail(id) => self.mail(id)?,
            Happening::Word(id) => self.with_worker(id, Worker::read),
            Happening::Handed(id, word) => self.with_worker(id, |worker, stage| worker.post(*word, stage)),
            Happening::Hello(id) => self.hello(id)?,
            Happening::Ran(id) => self.with_worker(id, Worker::ran),
            Happening::Wake(id, task) => self.with_worker(id, |worker, stage| worker.wake(task, stage)),
            Happening::Dies(id, why) => self.dies(id, why),
            Happening::Hangs(id) => {
                self.with_worker(id, |worker, stage| worker.hang(stage.mono_ms));
                self.checker.hangs.stops(id, self.stage.mono_ms);
            }
            Happening::GoesOn(id) => {
                self.with_worker(id, Worker::unhang);
                self.checker.hangs.goes_on(id);
            }
            Happening::Buried(id, why) => self.buried(id, why)?,
            Happening::Scan(up_to) => self.scan(up_to),
            Happening::Lookup(id) => self.look_up(id),
            Happening::Report(order) => self.build_report(&order)?,
            Happening::Load => self.load()?,
            Happening::Command => self.command()?,
            Happening::Look => self.look()?,
            Happening::FlushLook(number) => self.flush_look(number)?,
            Happening::Foreground => self.foreground(),
            Happening::Probe(order) => self.probe(order)?,
            Happening::Mishap => self.mishap()?,
            Happening::Start => self.start()?,
            Happening::Heal => self.heal()?,
        }
        Ok(())
    }

    fn with_worker(&mut self, id: WorkerId, act: impl FnOnce(&mut Worker, &mut Stage)) {
        if let Some(worker) = self.workers.get_mut(&id) {
            act(worker, &mut self.stage);
            if worker.is_lost() {
                self.checker.silence.computes(id, worker.plan.cpu_percent, self.stage.mono_ms);
            }
        }
    }

    /// The supervisor hears an event, and what it wants is done; and then what was heard meanwhile.
    pub(crate) fn hear(&mut self, event: Event) -> Verdict {
        self.heard.push_back(event);
        self.hear_all()
    }

    fn hear_all(&mut self) -> Verdict {
        while let Some(event) = self.heard.pop_front() {
            self.hear_one(event)?;
        }
        Ok(())
    }

    fn hear_one(&mut self, mut event: Event) -> Verdict {
        let Some(supervisor) = self.supervisor.as_mut() else { return Ok(()) };
        let now = self.stage.now();
        self.steps += 1;
        *self.census.entry(census::kind(&event)).or_default() += 1;
        if self.burst.0 != now.mono_ms {
            self.burst = (now.mono_ms, self.steps);
        }
        let heard = self.steps - self.burst.1;
        demand(heard < BURST_MAX, "nothing goes round in circles", || format!("{heard} events at {}", now.mono_ms))?;
        self.trace.note(self.steps, now.mono_ms, "->", &event);
        let late = matches!(&event, Event::Worker(worker, _) if !self.checker.is_alive(*worker));
        self.checker.hears(now, &event);
        let mut actions = Vec::new();
        if self.mutant.hears(&mut event) {
            supervisor.step(now, event, &mut actions);
        }
        let wanted = actions.len();
        demand(wanted < ACTIONS_MAX, "nothing goes round in circles", || format!("{wanted} actions in one step"))?;
        demand(!late || actions.is_empty(), "the dead are not heard", || format!("{actions:?}"))?;
        self.mutant.corrupt(&mut actions);
        self.act_all(actions)?;
        for extra in self.mutant.extra() {
            self.stage.after(1, Happening::Hear(Box::new(extra)));
        }
        Ok(())
    }

    fn act_all(&mut self, actions: Vec<Action>) -> Verdict {
        let now = self.stage.now();
        for action in actions {
            self.trace.note(self.steps, now.mono_ms, "  <-", &action);
            self.checker.wants(now, &action, &mut self.disk)?;
            self.act(action);
        }
        if let Some(supervisor) = &self.supervisor {
            self.checker.stepped(now, supervisor, &mut self.disk)?;
        }
        if self.exited { self.ended() } else { Ok(()) }
    }

    /// The next word of a worker reaches the supervisor.
    fn mail(&mut self, id: WorkerId) -> Verdict {
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        let Some(word) = worker.outbox.pop_front() else { return Ok(()) };
        let cpu_us = worker.clock_us(self.stage.mono_ms);
        self.heard(id, word, cpu_us)
    }

    fn heard(&mut self, id: WorkerId, word: Outgoing, cpu_us: u64) -> Verdict {
        use spooler_protocol::from_worker::FromWorker;
        let news = match word {
            Outgoing::Accept(accept) => {
                let (envelope, content) = self.clients.message(&mut self.stage);
                let content = spooler::supervisor::event::Incoming::Inline(content);
                WorkerNews::Accept { accept, envelope, submission: false, client: String::new(), content }
            }
            Outgoing::Reads(delivery) => WorkerNews::Reads(delivery),
            Outgoing::Uploads => WorkerNews::Uploads,
            Outgoing::Said(said @ (FromWorker::Want | FromWorker::Yield { .. })) => {
                WorkerNews::Said { said, cpu_us: Some(cpu_us) }
            }
            Outgoing::Said(said) => WorkerNews::Said { said, cpu_us: None },
        };
        self.hear(Event::Worker(id, news))
    }

    /// The supervisor hears of a worker's death, mostly after its last words.
    fn buried(&mut self, id: WorkerId, why: &'static str) -> Verdict {
        let Some(mut worker) = self.workers.remove(&id) else { return Ok(()) };
        let late = self.stage.mishap(self.stage.plan.troubles.late_words);
        if late {
            self.hear(Event::Worker(id, WorkerNews::Died(why.into())))?;
        }
        while let Some(word) = worker.outbox.pop_front() {
            self.heard(id, word, worker.clock_us(self.stage.mono_ms))?;
        }
        if late { Ok(()) } else { self.hear(Event::Worker(id, WorkerNews::Died(why.into()))) }
    }

    /// A run of the supervisor begins.
    fn start(&mut self) -> Verdict {
        let last_id = self.disk.store.last_id().map_err(|error| Broken { rule: "start", what: error.to_string() })?;
        let seed = self.stage.rng.next();
        let surroundings = Surroundings { cores: 2, pid: 1, reload: String::new(), seed, last_id };
        let config = self.stage.plan.config();
        self.checker.starts();
        self.checker.tokens.configure(&self.stage.plan);
        self.lives += 1;
        self.trace.note(self.steps, self.stage.mono_ms, "**", &"the supervisor starts");
        let (supervisor, mut actions) = Supervisor::new(config, surroundings, self.stage.now());
        self.supervisor = Some(supervisor);
        self.mutant.corrupt(&mut actions);
        self.act_all(actions)?;
        self.hear_all()
    }

    /// The supervisor dies, and its workers with it.
    pub(crate) fn crash(&mut self) {
        self.trace.note(self.steps, self.stage.mono_ms, "**", &"the supervisor dies");
        for unit in self.disk.crash(&mut self.stage) {
            self.checker.committed(&unit, true);
        }
        self.gone();
        let pause_ms = self.stage.rng.between(1, 3000);
        self.stage.always_after(pause_ms, Happening::Start);
    }

    /// The supervisor has ended as it should.
    fn ended(&mut self) -> Verdict {
        self.exited = false;
        let lost = self.checker.mail.unanswered();
        demand(lost == 0, "everybody is answered before the end", || format!("{lost} are not"))?;
        for unit in self.disk.drain() {
            self.checker.committed(&unit, true);
        }
        self.gone();
        let pause_ms = self.stage.rng.between(1, 3000);
        self.stage.always_after(pause_ms, Happening::Start);
        Ok(())
    }

    fn gone(&mut self) {
        self.supervisor = None;
        self.heard.clear();
        self.stage.life += 1;
        self.workers.clear();
        self.names.clear();
        self.disk_turns = false;
        self.machine_unseen();
        self.clients.supervisor_gone();
        self.checker.supervisor_gone();
        self.checker.mail.recover(&mut self.disk);
    }

    /// Nothing goes wrong from now on.
    fn heal(&mut self) -> Verdict {
        self.trace.note(self.steps, self.stage.mono_ms, "**", &"all is well from here on");
        self.stage.healed = true;
        self.healed_ms = self.stage.mono_ms;
        self.disk.full = false;
        self.disk.slow_ms = 0;
        self.stage.plan.mend();
        self.heal_machine();
        if !self.stage.plan.stays_hung {
            for worker in self.workers.values_mut() {
                worker.unhang(&mut self.stage);
                self.checker.hangs.goes_on(worker.id);
            }
        }
        if self.disk.has_work() && !self.disk_turns {
            self.disk_soon();
        }
        self.reload()?;
        self.mend_providers()?;
        self.stage.always_after(1000, Happening::Look);
        Ok(())
    }

    /// Whether everything has come to its end; it has to in time.
    fn is_over(&mut self) -> Result<bool, Broken> {
        if !self.stage.healed {
            return Ok(false);
        }
        let bound_ms = HEALED_MS_MAX + i64::from(self.stage.plan.give_up_s) * 1000;
        let late = self.stage.mono_ms - self.healed_ms > bound_ms;
        let Some(supervisor) = &self.supervisor else { return Ok(false) };
        let active =
            supervisor.queue().iter().filter(|(_, entry)| entry.standing == spooler::policy::queue::Standing::Active);
        let left = active.map(|(id, _)| id).min();
        let (asked, wanting) = (self.checker.mail.unanswered(), self.checker.tokens.wanting());
        let done = left.is_none() && asked == 0 && wanting == 0 && self.checker.is_settled(&self.disk);
        demand(done || !late, "everything comes to its end", || {
            let row = self.checker.table.latest.as_ref().map(|table| &table.providers);
            format!("message {left:?} is left, {asked} are not answered, {wanting} want a token; {row:?}")
        })?;
        if done && !self.restarted_at_end && self.checker.mail.anything_ahead() {
            // What the disk did not take is done again by the next run.
            self.restarted_at_end = true;
            self.healed_ms = self.stage.mono_ms;
            self.crash();
            return Ok(false);
        }
        if done {
            self.check_end()?;
        }
        Ok(done)
    }
}
