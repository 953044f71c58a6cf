//! What a seed means: which providers there are, how much there is to do, and what goes wrong. Each kind of trouble is on in some
//! seeds only, so that each is also seen alone.

use std::fmt::Write as _;
use std::path::Path;

use spooler::config::Config;

use crate::rng::Rng;

/// A worker that does not answer a recall for so long is made to go, milliseconds.
pub(crate) const ANSWER_MS: i64 = 2000;

/// A worker may compute for so long past its slices, milliseconds.
pub(crate) const OVERRUN_MS: i64 = 2000;

/// How often in a thousand a provider wants a message again that wants it again and again at once.
pub(crate) const STUBBORN: u32 = 980;

/// One provider of the simulated configuration.
#[derive(Clone, Debug)]
pub(crate) struct ProviderPlan {
    /// Its name.
    pub(crate) name: String,
    /// The domain that it claims, if it claims one.
    pub(crate) claims: Option<String>,
    /// The address type that its worker announces, if it announces one.
    pub(crate) kind: Option<&'static str>,
    /// Its share.
    pub(crate) weight: u32,
    /// Whether it needs no slot.
    pub(crate) interactive: bool,
    /// Deliveries at once.
    pub(crate) credit: u32,
    /// How deliveries are grouped and limited.
    pub(crate) destinations: spooler_protocol::from_worker::Destinations,
    /// Messages that it hands in, in a thousand runs of its code.
    pub(crate) inbound: u32,
    /// Deliveries with a critical section, of a thousand.
    pub(crate) critical: u32,
    /// Whether its priority cannot be raised.
    pub(crate) cannot_raise: bool,
    /// Milliseconds of computing in one go, at most.
    pub(crate) compute_ms_max: i64,
    /// How much of that it really has the CPU: it may wait for the disk meanwhile.
    pub(crate) cpu_percent: u32,
    /// Milliseconds of waiting for the network, at most.
    pub(crate) wait_ms_max: i64,
    /// What it wants to be called for.
    pub(crate) wishes: spooler_protocol::calls::Wishes,
    /// Whether it can be asked to be flushed.
    pub(crate) flushable: bool,
    /// Whether it asks a person something at logon.
    pub(crate) asks: bool,
    /// The device without which it is offline.
    pub(crate) device: Option<String>,
    /// Whether it is in the configuration.
    pub(crate) present: bool,
    /// Whether it is switched on.
    pub(crate) enabled: bool,
    /// A setting of its kind: another value means another worker.
    pub(crate) setting: u32,
}

/// What background work goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing.
    Off,
    /// A number of slots.
    Fixed {
        /// How many.
        slots: u32,
        /// After so long one gets a token regardless, milliseconds.
        force_after_ms: i64,
    },
    /// What others leave of the machine.
    Auto {
        /// For so long they have to leave it alone, milliseconds.
        idle_required_ms: i64,
        /// Between two looks, milliseconds.
        poll_every_ms: i64,
        /// After so long one gets a token regardless, milliseconds.
        force_after_ms: i64,
        /// How much of what is too much for the machine others go without, because we run; of a hundred.
        pressed: u32,
        /// What goes on meanwhile, thousandths of the machine.
        trickle: u32,
        /// Whether others use the machine to the end, and everything has to come to its end all the same.
        stays_busy: bool,
    },
}

impl Gate {
    fn draw(rng: &mut Rng) -> Self {
        let force_after_ms = *rng.pick(&[1000, 3000, 10_000]).unwrap_or(&1000);
        match rng.below(10) {
            0..=5 => Self::Off,
            6 => Self::Fixed { slots: rng.count(0, 2), force_after_ms },
            _ => Self::Auto {
                idle_required_ms: *rng.pick(&[0, 500, 2000]).unwrap_or(&500),
                poll_every_ms: *rng.pick(&[200, 2000]).unwrap_or(&2000),
                force_after_ms,
                pressed: *rng.pick(&[0, 30, 100]).unwrap_or(&30),
                trickle: *rng.pick(&[0, 2, 50]).unwrap_or(&2),
                stays_busy: rng.chance(300),
            },
        }
    }

    /// After so long somebody gets a token regardless, milliseconds.
    pub(crate) fn force_after_ms(self) -> i64 {
        match self {
            Self::Off => 300_000,
            Self::Fixed { force_after_ms, .. } | Self::Auto { force_after_ms, .. } => force_after_ms,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Off => "gate = \"off\"\n".to_owned(),
            Self::Fixed { slots, force_after_ms } => {
                format!("gate = {slots}\nforce_after = \"{force_after_ms}ms\"\n")
            }
            Self::Auto { idle_required_ms, poll_every_ms, force_after_ms, trickle, .. } => format!(
                "gate = \"auto\"\nidle_required = \"{idle_required_ms}ms\"\npoll_every = \"{poll_every_ms}ms\"\n\
                 force_after = \"{force_after_ms}ms\"\nclosed_gate_cpu_permille = {trickle}\n"
            ),
        }
    }
}

/// How often things go wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    /// A process dies before it says hello.
    pub(crate) no_hello: u32,
    /// A logon fails, or never ends.
    pub(crate) logon: u32,
    /// A worker dies somewhere in its work.
    pub(crate) death: u32,
    /// A worker is stopped somewhere in its work.
    pub(crate) hang: u32,
    /// A delivery never ends: it waits for ever, or computes.
    pub(crate) endless: u32,
    /// A worker says what is not so.
    pub(crate) lie: u32,
    /// A delivery does not end well.
    pub(crate) refusal: u32,
    /// A commit is refused.
    pub(crate) disk_error: u32,
    /// The disk becomes full, or slow, for a while.
    pub(crate) disk_state: u32,
    /// The wall clock jumps.
    pub(crate) clock: u32,
    /// The configuration changes.
    pub(crate) reload: u32,
    /// The supervisor is stopped.
    pub(crate) stop: u32,
    /// The supervisor dies.
    pub(crate) crash: u32,
    /// The last words of the dead come late.
    pub(crate) late_words: u32,
    /// Something happens to the machine.
    pub(crate) machine: u32,
    /// A call is answered wrongly, or never.
    pub(crate) answer: u32,
    /// A provider says that it is offline, for a while.
    pub(crate) offline: u32,
    /// A provider wants a message again, at once or later.
    pub(crate) end: u32,
    /// A provider wants the sender to be told of a recipient.
    pub(crate) report: u32,
}

/// What a seed means.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// All providers that ever are.
    pub(crate) providers: Vec<ProviderPlan>,
    /// Tokens at once.
    pub(crate) slots: u32,
    /// What background work goes by.
    pub(crate) gate: Gate,
    /// Milliseconds of a slice.
    pub(crate) slice_ms: u32,
    /// Milliseconds between two submissions, on average.
    pub(crate) load_ms: i64,
    /// Most recipients of a message.
    pub(crate) recipients_max: u32,
    /// Milliseconds between two commands of a person; none if `None`.
    pub(crate) command_ms: Option<i64>,
    /// How long things go wrong, milliseconds.
    pub(crate) trouble_ms: i64,
    /// What goes wrong.
    pub(crate) troubles: Troubles,
    /// The longest way between two processes or threads, milliseconds.
    pub(crate) hop_ms_max: i64,
    /// The longest commit, milliseconds.
    pub(crate) commit_ms_max: i64,
    /// How late a tick may be, milliseconds.
    pub(crate) tick_late_ms_max: i64,
    /// Age at which a message is given up, seconds.
    pub(crate) give_up_s: u32,
    /// Age at which a delay is reported, seconds; 0 for never.
    pub(crate) delay_warning_s: u32,
    /// Whether workers that were stopped stay so, even when all else is well: they have to be replaced.
    pub(crate) stays_hung: bool,
    /// How long deliveries may say nothing, seconds.
    pub(crate) patience_s: u32,
    /// The longest critical section, seconds.
    pub(crate) critical_max_s: u32,
}

impl Plan {
    /// Draws a plan.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let equal = rng.chance(600);
        let count = rng.count(1, 6);
        let providers = (0..count).map(|number| ProviderPlan::draw(number, equal, rng)).collect();
        let busy = rng.chance(250);
        Self {
            providers,
            slots: rng.count(1, 3),
            gate: Gate::draw(rng),
            slice_ms: *rng.pick(&[20, 50, 200, 200, 500]).unwrap_or(&200),
            load_ms: if busy { rng.between(50, 200) } else { rng.between(300, 3000) },
            recipients_max: if rng.chance(200) { 40 } else { rng.count(1, 6) },
            command_ms: rng.chance(700).then(|| rng.between(400, 4000)),
            trouble_ms: if busy { rng.between(3_000, 11_000) } else { rng.between(6_000, 32_000) },
            troubles: Troubles::draw(rng),
            hop_ms_max: *rng.pick(&[3, 20, 100]).unwrap_or(&3),
            commit_ms_max: *rng.pick(&[2, 30, 30, 400]).unwrap_or(&30),
            tick_late_ms_max: *rng.pick(&[0, 5, 50]).unwrap_or(&5),
            give_up_s: *rng.pick(&[8, 60, 600]).unwrap_or(&60),
            delay_warning_s: *rng.pick(&[0, 2, 30]).unwrap_or(&0),
            stays_hung: rng.chance(400),
            patience_s: *rng.pick(&[4, 20]).unwrap_or(&20),
            critical_max_s: rng.count(1, 4),
        }
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> Config {
        let text = self.text();
        match spooler::config::parse(&text, Path::new("sim.toml")) {
            Ok(config) => config,
            Err(error) => panic!("the simulated configuration is wrong: {error}\n{text}"),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "[mail]\nhostname = \"sim.test\"\n[scheduler]\nslots = {}\nslice = \"{}ms\"\n{}[worker]\nprogram = \"/worker\"\n\
             stop_timeout = \"4s\"\n[retry]\nfirst = \"500ms\"\nfactor = 2.0\nmax = \"8s\"\nmax_age = \"{}s\"\n\
             delay_warning = \"{}s\"\n",
            self.slots,
            self.slice_ms,
            self.gate.text(),
            self.give_up_s,
            self.delay_warning_s
        );
        for provider in self.providers.iter().filter(|provider| provider.present) {
            let claims = provider.claims.as_ref().map(|domain| format!("\"@{domain}\"")).unwrap_or_default();
            let _ = write!(
                text,
                "[provider.{}]\nkind = \"sim\"\nclaims = [{claims}]\nweight = {}\ninteractive = {}\nenabled = {}\n\
                 start_timeout = \"3s\"\nresponse_timeout = \"{ANSWER_MS}ms\"\npoll_interval = \"2s\"\n\
                 stall_timeout = \"{}s\"\ncpu_overrun_limit = \"{OVERRUN_MS}ms\"\ncritical_max = \"{}s\"\n\
                 value = {}\n",
                provider.name,
                provider.weight,
                provider.interactive,
                provider.enabled,
                self.patience_s,
                self.critical_max_s,
                provider.setting,
            );
            let device = provider.device.as_ref();
            text.extend(device.map(|device| format!("needs_device = \"{device}\"\n")));
        }
        text
    }

    /// A domain: mostly one that somebody claims.
    pub(crate) fn domain(&self, rng: &mut Rng) -> String {
        let claimed = rng.pick(&self.providers).and_then(|provider| provider.claims.clone());
        claimed.filter(|_| !rng.chance(150)).unwrap_or_else(|| format!("other{}.test", rng.below(3)))
    }

    /// Changes something of the configuration.
    pub(crate) fn vary(&mut self, rng: &mut Rng) {
        let place = usize::try_from(rng.below(self.providers.len() as u64)).unwrap_or_default();
        let more = rng.count(1, 3);
        let Some(provider) = self.providers.get_mut(place) else { return };
        match rng.below(7) {
            0 => provider.enabled = !provider.enabled,
            1 => provider.present = !provider.present,
            2 => provider.setting += 1,
            3 => provider.interactive = !provider.interactive,
            4 => provider.weight = if provider.weight == 100 { 100 } else { provider.weight + more },
            5 => self.slots = more,
            _ => self.providers.rotate_left(place),
        }
    }

    /// Everything is there and switched on.
    pub(crate) fn mend(&mut self) {
        for provider in &mut self.providers {
            provider.present = true;
            provider.enabled = true;
        }
    }
}

impl ProviderPlan {
    fn draw(number: u32, equal: bool, rng: &mut Rng) -> Self {
        let claims = rng.chance(800).then(|| format!("d{number}.test"));
        let limited = rng.chance(300);
        let destinations = spooler_protocol::from_worker::Destinations {
            by_domain: rng.chance(300),
            concurrency: if limited { rng.count(1, 3) } else { 0 },
            interval_ms: if limited && rng.chance(300) { 200 } else { 0 },
        };
        let slow = rng.chance(300);
        Self {
            name: format!("p{number}"),
            kind: (claims.is_none() || rng.chance(500)).then_some("SMTP"),
            claims,
            weight: if equal { 100 } else { rng.count(1, 400) },
            interactive: rng.chance(200),
            credit: rng.count(1, 8),
            destinations,
            inbound: if rng.chance(400) { 100 } else { 0 },
            critical: if rng.chance(300) { 200 } else { 0 },
            cannot_raise: rng.chance(300),
            compute_ms_max: if slow { 400 } else { 5 },
            cpu_percent: *rng.pick(&[100, 100, 100, 5]).unwrap_or(&100),
            wait_ms_max: *rng.pick(&[5, 50, 500, 3000]).unwrap_or(&50),
            wishes: rng.pick(&crate::answering::WISHES).copied().unwrap_or_default(),
            flushable: rng.chance(300),
            asks: rng.chance(80),
            device: rng.chance(300).then(|| format!("dev{}", rng.below(2))),
            present: true,
            enabled: true,
            setting: 0,
        }
    }
}

impl Troubles {
    fn draw(rng: &mut Rng) -> Self {
        let mut some = |of: u32, rate: u32| if rng.chance(of) { rate } else { 0 };
        Self {
            no_hello: some(250, 200),
            logon: some(250, 250),
            death: some(500, 25),
            hang: some(250, 10),
            endless: some(200, 8),
            lie: some(400, 60),
            refusal: some(700, 300),
            disk_error: some(200, 40),
            disk_state: some(250, 120),
            clock: some(250, 120),
            reload: some(300, 120),
            stop: some(200, 30),
            crash: some(350, 60),
            late_words: some(400, 300),
            machine: some(300, 120),
            answer: some(300, 200),
            offline: some(200, 60),
            end: if some(150, 1) > 0 { STUBBORN } else { some(250, 150) },
            report: some(200, 100),
        }
    }
}
