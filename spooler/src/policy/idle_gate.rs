//! How many slots background work may have, from what the foreground leaves.
//!
//! What counts is how much of the machine *others* use: all use less that of the supervisor and its workers. Pressure alone would not
//! do, because work of our own makes it as well; it only tells when to look (see `system/idle_probe.rs`).
//!
//! ```text
//!            others need the CPU, twice in a row
//!   open ─────────────────────────────────────────▶ closed ── a trickle goes on: one slot, as long as background work stays
//!  (1..=cores) ◀───────────────────────────────────   │  ▲    below `closed_gate_cpu_permille` thousandths of the machine
//!            the need is over for `idle_required`      └──┘
//! ```
//!
//! What others use is not all that they want: on a machine without an idle moment, work of ours may be what keeps them from it. So when
//! such a look comes, background work pauses until the next one, which shows what others use without it. That counts for
//! [`PROVEN_MS`], or until they use noticeably more.
//!
//! Fewer slots are taken away at the second look in a row that demands it: a single look may be wrong by its grain. More are given
//! only after [`Plan::idle_required_ms`]. The defaults are those of MS Mail's spooler (`IdleRequiredInterval` 2 s, `ScanAgainInterval`
//! 2 s, `ForceScanInterval` 300 s); forcing is the scheduler's business, because it knows who waits.
//!
//! Listening providers, flushes and critical sections need no slot and so do not come here.

/// A core counts as free for us if others leave so much of it, thousandths.
const FREE_CORE: i64 = 400;
/// The look after one that demands fewer slots comes so soon.
const SECOND_LOOK_MS: i64 = 250;
/// Looks that have to demand fewer slots, one after another.
const LOOKS_TO_CLOSE: u32 = 2;
/// What others use is worth a pause of ours from here on, thousandths of a core; and so is a change by as much.
const NOTICEABLE: i64 = 200;
/// So long does it count what others used while we paused.
pub const PROVEN_MS: i64 = 10_000;
/// A pause is over after so long, whether anybody has looked or not.
const PAUSE_MS_MAX: i64 = 1000;
/// Debt beyond this is forgiven: CPU seconds that one slice burnt must not stop everything for hours.
const DEBT_MS_MAX: i64 = 10_000;
/// Workers that run programs may use so many times the trickle, because a program cannot be cut into slices. With the default trickle
/// that is 1.4 % of the machine, so that a light program (20 ms of CPU on two cores) is made good within a second.
const PROGRAMS_TIMES: i64 = 7;
/// So long a rest of workers that run programs is saved up: messages that come one by one find it, and need not wait at all.
const SAVED_MS_MAX: i64 = 5_000;

/// What the gate goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What others use.
    Auto,
    /// Nothing: it is always open.
    Off,
    /// Nothing: there are so many slots.
    Fixed(u32),
}

/// How the gate works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it goes by.
    pub mode: Mode,
    /// How long others must have left a core alone before it is used, milliseconds.
    pub idle_required_ms: i64,
    /// How often to look while background work wants to run, milliseconds.
    pub poll_every_ms: i64,
    /// A background worker that got no token for so long gets one regardless, milliseconds.
    pub force_after_ms: i64,
    /// What goes on while it is closed, in thousandths of the whole machine; 0 for nothing.
    pub trickle: u32,
}

/// What was seen of the machine since the look before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// How long the look lasted, milliseconds.
    pub over_ms: i64,
    /// The whole machine, thousandths of a core.
    pub capacity: i64,
    /// What others used of it, thousandths of a core.
    pub others: i64,
    /// What nobody used of it, thousandths of a core.
    pub unused: i64,
}

/// CPU that background work has used, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By workers that run no programs.
    pub sliced_us: u64,
    /// By programs, and by the workers that run them.
    pub programs_us: u64,
}

/// CPU used while the gate is closed and not yet made good.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    /// Microseconds; below 0 what is saved up.
    owed_us: i64,
}

impl Debt {
    fn charge(&mut self, used_us: u64, most_us: i64) {
        self.owed_us = self.owed_us.saturating_add_unsigned(used_us).min(most_us);
    }

    fn pay(&mut self, paid_us: i64, saved_us_max: i64) {
        self.owed_us = self.owed_us.saturating_sub(paid_us).max(-saved_us_max);
    }

    /// Milliseconds until it is paid.
    fn rest_ms(self, pay_us_per_ms: i64) -> i64 {
        (self.owed_us.max(0) + pay_us_per_ms - 1) / pay_us_per_ms
    }
}

/// What others used while nothing of ours was in their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proven {
    others: i64,
    until_ms: i64,
}

/// More slots than now may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rising {
    since_ms: i64,
    /// The least that was possible since.
    slots: u32,
}

/// The gate.
#[derive(Debug)]
pub struct IdleGate {
    plan: Plan,
    /// Slots when nobody else wants anything.
    most: u32,
    open: u32,
    rising: Option<Rising>,
    /// Looks in a row that demanded fewer slots.
    falling: u32,
    /// Background work pauses until the next look, or until then.
    pause_ends_ms: Option<i64>,
    proven: Option<Proven>,
    last: Option<Observation>,
    idle_hint: Option<bool>,
    /// Whether background work wanted to run since the last look.
    wanted: bool,
    looking: bool,
    sliced: Debt,
    programs: Debt,
    paid_ms: i64,
}

impl IdleGate {
    /// An open gate with so many slots.
    #[must_use]
    pub fn new(plan: Plan, most: u32, now_ms: i64) -> Self {
        Self {
            plan,
            most,
            open: most,
            rising: None,
            falling: 0,
            pause_ends_ms: None,
            proven: None,
            last: None,
            idle_hint: None,
            wanted: false,
            looking: false,
            sliced: Debt::default(),
            programs: Debt::default(),
            paid_ms: now_ms,
        }
    }

    /// Changes how it works.
    pub fn configure(&mut self, plan: Plan, most: u32) {
        if plan != self.plan || most != self.most {
            *self = Self { idle_hint: self.idle_hint, looking: self.looking, ..Self::new(plan, most, self.paid_ms) };
        }
    }

    /// What the session says of itself: `Some(true)` if nobody sits there, `None` where nothing says so. Nobody has to be waited for
    /// then before slots are given back; what others compute still counts.
    pub fn set_idle_hint(&mut self, hint: Option<bool>) {
        self.idle_hint = hint;
    }

    /// Background work runs or wants to.
    pub fn on_demand(&mut self) {
        self.wanted = true;
    }

    /// Somebody has looked.
    pub fn observe(&mut self, seen: Observation, now_ms: i64) {
        if self.plan.mode != Mode::Auto {
            return;
        }
        self.last = Some(seen);
        // Looks stop when one is over in which nothing wanted to run.
        self.looking = std::mem::take(&mut self.wanted);
        let possible = possible(seen, self.most);
        if self.pause_ends_ms.take().is_some() {
            self.proven = Some(Proven { others: seen.others, until_ms: now_ms + PROVEN_MS });
            if possible < self.open {
                self.close(possible, now_ms);
                return;
            }
        } else if self.open > 0 && self.is_in_doubt(seen, now_ms) {
            self.pause_ends_ms = Some(now_ms + PAUSE_MS_MAX);
            return;
        }
        if possible < self.open {
            self.falling += 1;
            if self.falling >= LOOKS_TO_CLOSE {
                self.close(possible, now_ms);
            }
            self.rising = None;
            return;
        }
        self.falling = 0;
        if possible == self.open {
            self.rising = None;
            return;
        }
        let begun = Rising { since_ms: now_ms - seen.over_ms, slots: possible };
        let rising = self.rising.map_or(begun, |rising| Rising { slots: rising.slots.min(possible), ..rising });
        let long_enough = now_ms - rising.since_ms >= self.plan.idle_required_ms;
        if long_enough || self.idle_hint == Some(true) {
            self.open = rising.slots;
            self.rising = None;
        } else {
            self.rising = Some(rising);
        }
    }

    /// Fewer slots from now on.
    fn close(&mut self, slots: u32, now_ms: i64) {
        self.open = slots;
        (self.rising, self.falling) = (None, 0);
        (self.sliced, self.paid_ms) = (Debt::default(), now_ms);
        self.programs = Debt { owed_us: -SAVED_MS_MAX * self.programs_pay_us_per_ms() };
    }

    /// Whether others may want more than they use.
    fn is_in_doubt(&self, seen: Observation, now_ms: i64) -> bool {
        let proven = |proven: Proven| now_ms < proven.until_ms && seen.others <= proven.others + NOTICEABLE;
        seen.unused < FREE_CORE && seen.others >= NOTICEABLE && !self.proven.is_some_and(proven)
    }

    /// Background work has used so much CPU.
    pub fn charge(&mut self, used: Used, now_ms: i64) {
        self.pay(now_ms);
        if self.is_closed() {
            self.sliced.charge(used.sliced_us, DEBT_MS_MAX * self.pay_us_per_ms());
            self.programs.charge(used.programs_us, DEBT_MS_MAX * self.programs_pay_us_per_ms());
        }
    }

    fn pay(&mut self, now_ms: i64) {
        let passed_ms = (now_ms - self.paid_ms).max(0);
        self.sliced.pay(passed_ms.saturating_mul(self.pay_us_per_ms()), 0);
        let programs_us = self.programs_pay_us_per_ms();
        self.programs.pay(passed_ms.saturating_mul(programs_us), SAVED_MS_MAX * programs_us);
        self.paid_ms = now_ms;
    }

    /// What the trickle may use in each millisecond, microseconds of CPU.
    fn pay_us_per_ms(&self) -> i64 {
        let cores = self.last.map_or(1, |seen| (seen.capacity / 1000).max(1));
        i64::from(self.plan.trickle) * cores
    }

    /// The same for workers that run programs.
    fn programs_pay_us_per_ms(&self) -> i64 {
        PROGRAMS_TIMES * self.pay_us_per_ms()
    }

    /// Milliseconds until all is made good, if the trickle makes anything good.
    fn rest_ms(&self) -> Option<i64> {
        let (sliced_us, programs_us) = (self.pay_us_per_ms(), self.programs_pay_us_per_ms());
        (sliced_us > 0).then(|| self.sliced.rest_ms(sliced_us).max(self.programs.rest_ms(programs_us)))
    }

    fn is_closed(&self) -> bool {
        self.plan.mode == Mode::Auto && self.open == 0
    }

    /// Whether all that there is may be used, as far as somebody has looked.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.plan.mode != Mode::Auto || self.open >= self.most
    }

    /// Whether only a trickle goes on.
    #[must_use]
    pub fn is_trickling(&self) -> bool {
        self.is_closed() && self.plan.trickle > 0
    }

    /// Tokens that may be out for background work now.
    pub fn slots(&mut self, now_ms: i64) -> u32 {
        match self.plan.mode {
            Mode::Off => self.most,
            Mode::Fixed(slots) => slots.min(self.most),
            Mode::Auto if self.pause_ends_ms.is_some_and(|ends| now_ms < ends) => 0,
            Mode::Auto if self.open > 0 => self.open,
            Mode::Auto => {
                self.pay(now_ms);
                u32::from(self.rest_ms() == Some(0))
            }
        }
    }

    /// When the number of slots changes by itself.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        let rest_ms = self.rest_ms().filter(|rest_ms| self.is_closed() && *rest_ms > 0);
        self.pause_ends_ms.or_else(|| Some(self.paid_ms + rest_ms?))
    }

    /// Whether it goes by what is seen of the machine at all.
    #[must_use]
    pub fn looks(&self) -> bool {
        self.plan.mode == Mode::Auto
    }

    /// How often somebody has to look at the machine, milliseconds; `None`: not now. Ask after [`Self::on_demand`] and
    /// [`Self::observe`].
    pub fn look_every_ms(&mut self) -> Option<i64> {
        if self.plan.mode != Mode::Auto {
            self.looking = false;
            return None;
        }
        self.looking |= self.wanted;
        let soon = self.falling > 0 || self.pause_ends_ms.is_some();
        let often = if soon { SECOND_LOOK_MS.min(self.plan.poll_every_ms) } else { self.plan.poll_every_ms };
        self.looking.then_some(often)
    }

    /// Its state and the reason, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let seen = |seen: &Observation| {
            format!("others use {} of {} cores", tenths(seen.others), tenths(seen.capacity).trim_end_matches(".0"))
        };
        // What was seen when nothing has wanted to run for a while is no reason any more.
        let because = match &self.last {
            Some(last) if self.looking => format!(": {}", seen(last)),
            Some(_) if self.open < self.most => " when it was last asked".to_owned(),
            Some(_) | None => String::new(),
        };
        match self.plan.mode {
            Mode::Off => "off".to_owned(),
            Mode::Fixed(slots) => format!("fixed at {slots}"),
            Mode::Auto if self.open >= self.most => format!("open{because}"),
            Mode::Auto if self.open > 0 => format!("partly open{because}"),
            Mode::Auto if self.plan.trickle > 0 => format!("closed, a trickle goes on{because}"),
            Mode::Auto => format!("closed{because}"),
        }
    }
}

/// How many slots an observation allows.
fn possible(seen: Observation, most: u32) -> u32 {
    let free = (seen.capacity - seen.others).max(0);
    let cores = (free + 1000 - FREE_CORE) / 1000;
    // With fewer slots than cores all of them are given as long as there are cores for them.
    u32::try_from(cores).unwrap_or(u32::MAX).min(most)
}

fn tenths(thousandths: i64) -> String {
    let tenths = (thousandths + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
