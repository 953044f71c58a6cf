//! How many slots background work may have, from what the foreground leaves.
//!
//! What counts is how much of the machine *others* use: all use less that of the supervisor and its workers. Pressure alone would not
//! do, because work of our own makes it as well; it only tells when to look (see `system/idle_probe.rs`).
//!
//! ```text
//!            others need the CPU, twice in a row
//!   open ─────────────────────────────────────────▶ closed ── a trickle goes on: one slot, as long as background work stays
//!  (1..=cores) ◀───────────────────────────────────   │  ▲    below `trickle` thousandths of the machine
//!            the need is over for `idle_required`      └──┘
//! ```
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
/// Debt beyond this is forgiven: CPU seconds that one slice burnt must not stop everything for hours.
const DEBT_MS_MAX: i64 = 10_000;

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
    pub recheck_ms: i64,
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
    last: Option<Observation>,
    idle_hint: Option<bool>,
    /// Whether background work wanted to run since the last look.
    wanted: bool,
    looking: bool,
    /// CPU used while closed and not yet made good, microseconds.
    debt_us: i64,
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
            last: None,
            idle_hint: None,
            wanted: false,
            looking: false,
            debt_us: 0,
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
        if possible < self.open {
            self.rising = None;
            self.falling += 1;
            if self.falling >= LOOKS_TO_CLOSE {
                self.falling = 0;
                self.open = possible;
                self.debt_us = 0;
                self.paid_ms = now_ms;
            }
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

    /// Background work has used so much CPU, microseconds.
    pub fn charge(&mut self, used_us: u64, now_ms: i64) {
        self.pay(now_ms);
        if self.is_closed() {
            self.debt_us += i64::try_from(used_us).unwrap_or(i64::MAX / 2);
            self.debt_us = self.debt_us.min(DEBT_MS_MAX * self.pay_us_per_ms());
        }
    }

    fn pay(&mut self, now_ms: i64) {
        let paid_us = (now_ms - self.paid_ms).max(0).saturating_mul(self.pay_us_per_ms());
        self.debt_us = self.debt_us.saturating_sub(paid_us).max(0);
        self.paid_ms = now_ms;
    }

    /// What the trickle may use in each millisecond, microseconds of CPU.
    fn pay_us_per_ms(&self) -> i64 {
        let cores = self.last.map_or(1, |seen| (seen.capacity / 1000).max(1));
        i64::from(self.plan.trickle) * cores
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
            Mode::Auto if self.open > 0 => self.open,
            Mode::Auto => {
                self.pay(now_ms);
                u32::from(self.plan.trickle > 0 && self.debt_us == 0)
            }
        }
    }

    /// When the number of slots changes by itself.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        let pay_us = self.pay_us_per_ms();
        let pays = self.is_trickling() && self.debt_us > 0;
        pays.then(|| self.paid_ms + (self.debt_us + pay_us - 1) / pay_us)
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
        let often = if self.falling > 0 { SECOND_LOOK_MS.min(self.plan.recheck_ms) } else { self.plan.recheck_ms };
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
mod tests {
    use super::*;

    const PLAN: Plan =
        Plan { mode: Mode::Auto, idle_required_ms: 2000, recheck_ms: 2000, force_after_ms: 300_000, trickle: 5 };

    fn seen(others: i64) -> Observation {
        Observation { over_ms: 250, capacity: 2000, others }
    }

    /// A gate that was closed at 0.
    fn closed(plan: Plan) -> IdleGate {
        let mut gate = IdleGate::new(plan, 2, 0);
        gate.observe(seen(1950), -250);
        gate.observe(seen(1950), 0);
        gate
    }

    #[test]
    fn slots_are_what_others_leave() {
        let cases = [(0, 2), (600, 2), (650, 1), (1000, 1), (1600, 1), (1650, 0), (2000, 0), (2100, 0)];
        for (others, slots) in cases {
            assert_eq!(possible(seen(others), 2), slots, "others use {others}");
        }
        assert_eq!(possible(Observation { over_ms: 1, capacity: 64_000, others: 10_000 }, 4), 4);
        assert_eq!(possible(Observation { over_ms: 1, capacity: 1000, others: 500 }, 1), 1);
    }

    #[test]
    fn one_look_does_not_close_it_and_the_second_comes_soon() {
        let mut gate = IdleGate::new(PLAN, 2, 0);
        gate.on_demand();
        assert_eq!(gate.look_every_ms(), Some(2000));
        gate.on_demand();
        gate.observe(seen(2000), 100);
        assert_eq!((gate.slots(100), gate.look_every_ms()), (2, Some(250)));
        gate.observe(seen(0), 350);
        gate.observe(seen(2000), 600);
        assert_eq!(gate.slots(600), 2, "not in a row");
        gate.observe(seen(2000), 850);
        assert!(gate.is_trickling());
    }

    #[test]
    fn it_opens_only_after_the_time_that_is_required() {
        let mut gate = closed(Plan { trickle: 0, ..PLAN });
        assert_eq!(gate.slots(0), 0);
        gate.observe(seen(100), 1000);
        gate.observe(seen(900), 2000);
        assert_eq!(gate.slots(2000), 0);
        gate.observe(seen(100), 2750);
        assert_eq!(gate.slots(2750), 1, "as much as was left all the time");
        gate.observe(Observation { over_ms: 2000, ..seen(100) }, 4750);
        assert_eq!(gate.slots(4750), 2);
    }

    #[test]
    fn who_comes_back_while_it_opens_is_waited_for_anew() {
        let mut gate = closed(Plan { trickle: 0, ..PLAN });
        gate.observe(seen(100), 1000);
        gate.observe(seen(2000), 1900);
        gate.observe(seen(100), 3000);
        assert_eq!(gate.slots(3000), 0);
    }

    #[test]
    fn nobody_at_the_session_need_not_be_waited_for() {
        let mut gate = closed(PLAN);
        gate.set_idle_hint(Some(true));
        gate.observe(seen(1900), 250);
        assert!(gate.is_trickling(), "what others compute still counts");
        gate.observe(seen(0), 500);
        assert_eq!(gate.slots(500), 2);
    }

    #[test]
    fn the_trickle_stays_below_its_share() {
        let mut gate = closed(PLAN);
        let (mut now_ms, mut used_us) = (0, 0);
        while now_ms < 100_000 {
            if gate.slots(now_ms) == 1 {
                gate.charge(20_000, now_ms);
                used_us += 20_000;
            }
            now_ms = gate.deadline_ms().expect("a debt is paid some day");
        }
        // 5 thousandths of two cores in 100 s.
        assert!((980_000..=1_020_000).contains(&used_us), "{used_us}");
    }

    #[test]
    fn a_great_debt_is_forgiven() {
        let mut gate = closed(PLAN);
        gate.charge(u64::MAX, 0);
        assert_eq!(gate.slots(0), 0);
        assert_eq!(gate.deadline_ms(), Some(DEBT_MS_MAX));
        assert_eq!(gate.slots(DEBT_MS_MAX), 1);
    }

    #[test]
    fn it_looks_only_while_something_wants_to_run() {
        let mut gate = IdleGate::new(PLAN, 2, 0);
        assert_eq!(gate.look_every_ms(), None);
        gate.on_demand();
        assert_eq!(gate.look_every_ms(), Some(2000));
        gate.observe(seen(0), 100);
        assert_eq!(gate.look_every_ms(), Some(2000), "something wanted to run meanwhile");
        gate.observe(seen(0), 2100);
        assert_eq!(gate.look_every_ms(), None);
    }

    #[test]
    fn off_and_fixed_do_not_look() {
        for (mode, slots, words) in
            [(Mode::Off, 2, "off"), (Mode::Fixed(0), 0, "fixed at 0"), (Mode::Fixed(9), 2, "fixed at 9")]
        {
            let mut gate = closed(Plan { mode, ..PLAN });
            gate.on_demand();
            assert_eq!((gate.slots(0), gate.look_every_ms(), gate.describe().as_str()), (slots, None, words));
        }
    }

    #[test]
    fn its_state_is_said_with_the_reason() {
        let mut gate = IdleGate::new(PLAN, 2, 0);
        assert_eq!(gate.describe(), "open");
        for (others, words) in [
            (120, "open: others use 0.1 of 2 cores"),
            (2000, "open: others use 2.0 of 2 cores"),
            (1950, "closed, a trickle goes on: others use 2.0 of 2 cores"),
        ] {
            gate.on_demand();
            gate.observe(seen(others), 0);
            assert_eq!(gate.describe(), words);
        }
        gate.observe(seen(1950), 2000);
        assert_eq!(gate.describe(), "closed, a trickle goes on when it was last asked");
    }
}
