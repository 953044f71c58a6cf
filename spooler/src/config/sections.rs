//! The sections of the configuration that are not providers: what they are called, what they default to, what is allowed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spooler_protocol::message::{Address, SMTP, has_domain};
use spooler_protocol::settings::Settings;
use spooler_protocol::units;

use super::hostname;
use crate::mail_log::Format;
use crate::policy::idle_gate::{Mode, Plan};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Bytes of the path of a Unix socket: `sun_path` of unix(7) without its NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The smallest limit of a message that makes sense: RFC 5321 4.5.3.1.7 asks for 64 KiB.
const MESSAGE_BYTES_MIN: u64 = 64 << 10;

/// The smallest limit of the history that makes sense.
const HISTORY_BYTES_MIN: u64 = 1 << 20;

/// `[mail]`: who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mail {
    pub(super) hostname: String,
    pub(super) origin: String,
    pub(super) postmaster: Option<Address>,
    pub(super) always_bcc: Vec<Address>,
}

/// `[spool]`: where messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The folder of the store.
    pub path: PathBuf,
    /// The folder from which messages are picked up.
    pub pickup: PathBuf,
    /// Bytes that must stay free on its file system; below that, nothing is accepted.
    pub min_free: u64,
    /// Bytes of the largest message that is accepted.
    pub max_message_size: u64,
}

/// `[control]`: the socket of the client tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The group whose members may submit even if not anyone may.
    pub submit_group: Option<String>,
    /// The group whose members may see the whole queue, but no content.
    pub monitor_group: Option<String>,
    /// Whether every user of this machine may submit, as with sendmail.
    pub anyone_may_submit: bool,
}

/// `[scheduler]`: the CPU time of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// How many tokens may be out at once; `None` for as many as there are cores.
    pub slots: Option<u32>,
    /// How long a token is good for.
    pub slice: Duration,
    /// When background work may run.
    pub gate: Plan,
}

/// `[retry]`, and `[provider.NAME.retry]` on top of it: when a delivery is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// The wait after the first attempt.
    pub first: Duration,
    /// By what each wait is longer than the one before.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// The age at which a message that could not be delivered goes back to its sender.
    pub max_age: Duration,
    /// The age at which its sender is told of the delay; `None` for never.
    pub delay_warning: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: 60 * SECOND, factor: 2.0, max: HOUR, max_age: 5 * DAY, delay_warning: Some(4 * HOUR) }
    }
}

/// `[routing]`: who serves whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// The transport order: every provider once. `None` for the order of the file, with those last that wish to be.
    pub order: Option<Vec<String>>,
}

/// `[log]`: how the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The form of its lines.
    pub format: Format,
}

/// `[history]`: what is kept of messages that have left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// For how long; zero for nothing at all.
    pub keep: Duration,
    /// Bytes at most, about.
    pub max: u64,
}

/// `[reports]`: what senders are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reports {
    /// Bytes up to which a message is returned whole with the report of its failure; of a longer one, only the header is.
    pub max_returned_size: u64,
}

/// `[worker]`: the worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) program: PathBuf,
    pub(super) stop_timeout: Duration,
}

pub(super) fn read_mail(settings: &mut Settings) -> Mail {
    let hostname = settings.string("hostname", &hostname::of_this_machine());
    if !hostname::is_host_name(&hostname) {
        settings.mistake("hostname", format!("is {hostname:?}; must be a host name, such as \"mail.example.org\""));
    }
    let given = settings.has("origin");
    let origin = settings.string("origin", &hostname::mail_name().unwrap_or_else(|| hostname.clone()));
    if given && !hostname::is_host_name(&origin) {
        settings.mistake("origin", format!("is {origin:?}; must be a domain, such as \"example.org\""));
    }
    let postmaster =
        settings.optional_string("postmaster").and_then(|text| address(settings, "postmaster", &text, &origin));
    let always_bcc = settings.strings("always_bcc", &[]);
    let always_bcc = always_bcc.iter().filter_map(|text| address(settings, "always_bcc", text, &origin)).collect();
    Mail { hostname, origin, postmaster, always_bcc }
}

/// An address, with the origin as its domain if it has none.
fn address(settings: &mut Settings, key: &str, text: &str, origin: &str) -> Option<Address> {
    let parsed = text.parse::<Address>().and_then(|address| {
        let lacks = address.kind() == SMTP && !has_domain(address.text());
        if lacks { Address::smtp(&format!("{}@{origin}", address.text())) } else { Ok(address) }
    });
    if let Err(error) = &parsed {
        settings.mistake(key, format!("is {text:?}; must be an address. {error}"));
    }
    parsed.ok()
}

pub(super) fn read_spool(settings: &mut Settings) -> Spool {
    let path = absolute_path(settings, "path", "/var/spool/spooler");
    let pickup = absolute_path(settings, "pickup", &path.join("pickup").to_string_lossy());
    if path.starts_with(&pickup) {
        settings.mistake("pickup", format!("is {pickup:?}; the spool itself cannot be inside of it"));
    }
    let min_free = settings.size("min_free", "64M");
    let max_message_size = settings.size("max_message_size", "50M");
    if max_message_size < MESSAGE_BYTES_MIN {
        settings.mistake("max_message_size", "is too small; allowed is \"64K\" and more");
    }
    Spool { path, pickup, min_free, max_message_size }
}

pub(super) fn read_control(settings: &mut Settings) -> Control {
    let socket = absolute_path(settings, "socket", "/run/spooler/control.sock");
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        settings
            .mistake("socket", format!("is {length} bytes long; a socket's path has at most {SOCKET_PATH_BYTES_MAX}"));
    }
    Control {
        socket,
        submit_group: settings.optional_string("submit_group"),
        monitor_group: settings.optional_string("monitor_group"),
        anyone_may_submit: settings.boolean("anyone_may_submit", true),
    }
}

pub(super) fn read_scheduler(settings: &mut Settings) -> Scheduler {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let given = settings.has("slots");
    let slots = settings.integer("slots", cores, 1..=1024);
    let slice = settings.duration("slice", "200ms", 10 * MS..=10 * SECOND);
    let mut wait = |key: &str, default: &str, range| {
        i64::try_from(settings.duration(key, default, range).as_millis()).unwrap_or(i64::MAX)
    };
    let idle_required_ms = wait("idle_required", "2s", Duration::ZERO..=HOUR);
    let poll_every_ms = wait("poll_every", "2s", 100 * MS..=60 * SECOND);
    let force_after_ms = wait("force_after", "300s", SECOND..=DAY);
    let trickle = settings.integer("closed_gate_cpu_permille", 2, 0..=1000);
    let mode = read_gate(settings);
    Scheduler {
        slots: given.then_some(slots),
        slice,
        gate: Plan { mode, idle_required_ms, poll_every_ms, force_after_ms, trickle },
    }
}

/// `gate`: a word, or a number of slots.
fn read_gate(settings: &mut Settings) -> Mode {
    if settings.has_integer("gate") {
        return Mode::Fixed(settings.integer("gate", 0, 0..=1024));
    }
    match settings.string("gate", "auto").as_str() {
        "auto" => Mode::Auto,
        "off" => Mode::Off,
        other => {
            let message = format!("is {other:?}; allowed is \"auto\", \"off\" or a number of slots");
            settings.mistake("gate", message);
            Mode::Auto
        }
    }
}

pub(super) fn read_routing(settings: &mut Settings) -> Routing {
    if !settings.has("order") {
        settings.ignore("order");
        return Routing::default();
    }
    Routing { order: Some(settings.strings("order", &[])) }
}

/// Reads a table of retry times; what is missing is as in `base`.
pub(super) fn read_retry(settings: &mut Settings, base: &Retry) -> Retry {
    let [max_given, max_age_given] = ["max", "max_age"].map(|key| settings.has(key));
    let mut duration = |key: &str, base: Duration, least: Duration| {
        settings.duration(key, &units::show_duration(base), least..=90 * DAY)
    };
    let first = duration("first", base.first, 10 * MS);
    let max = duration("max", base.max, 10 * MS);
    let max_age = duration("max_age", base.max_age, 10 * MS);
    let delay_warning = duration("delay_warning", base.delay_warning.unwrap_or_default(), Duration::ZERO);
    let factor = settings.factor("factor", base.factor, 1.0..=100.0);
    in_order(settings, ("first", first), ("max", max), max_given);
    in_order(settings, ("max", max), ("max_age", max_age), max_age_given);
    Retry { first, factor, max, max_age, delay_warning: (!delay_warning.is_zero()).then_some(delay_warning) }
}

/// Notes a mistake if the first of two waits is the longer one: at the second if the table has it.
fn in_order(
    settings: &mut Settings,
    (low_key, low): (&str, Duration),
    (high_key, high): (&str, Duration),
    high_given: bool,
) {
    if low <= high {
        return;
    }
    let (low, high) = (units::show_duration(low), units::show_duration(high));
    if high_given {
        settings.mistake(high_key, format!("is {high:?}; allowed is no less than {low_key}, which is {low:?}"));
    } else {
        settings.mistake(low_key, format!("is {low:?}; allowed is no more than {high_key}, which is {high:?}"));
    }
}

pub(super) fn read_log(settings: &mut Settings) -> Log {
    let format = match settings.string("format", "logfmt").as_str() {
        "logfmt" => Format::Logfmt,
        "json" => Format::Json,
        other => {
            settings.mistake("format", format!("is {other:?}; allowed is \"logfmt\" or \"json\""));
            Format::Logfmt
        }
    };
    Log { format }
}

pub(super) fn read_history(settings: &mut Settings) -> History {
    let keep = settings.duration("keep", "14d", Duration::ZERO..=3660 * DAY);
    let max = settings.size("max", "256M");
    if max < HISTORY_BYTES_MIN && !keep.is_zero() {
        settings.mistake("max", "is too small; allowed is \"1M\" and more, and keep = \"0\" for no history");
    }
    History { keep, max }
}

pub(super) fn read_reports(settings: &mut Settings) -> Reports {
    Reports { max_returned_size: settings.size("max_returned_size", "100K") }
}

/// `own_program` is who we are: the worker program is expected beside it.
pub(super) fn read_worker(settings: &mut Settings, own_program: Option<&Path>) -> Worker {
    let beside = own_program.unwrap_or(Path::new("/usr/bin/spooler")).with_file_name("spooler-worker");
    Worker {
        program: absolute_path(settings, "program", &beside.to_string_lossy()),
        stop_timeout: settings.duration("stop_timeout", "30s", 100 * MS..=HOUR),
    }
}

fn absolute_path(settings: &mut Settings, key: &str, default: &str) -> PathBuf {
    let text = settings.string(key, default);
    if text.starts_with('/') && !text.contains('\0') {
        return PathBuf::from(text);
    }
    settings.mistake(key, format!("is {text:?}; must be a path that starts with /"));
    PathBuf::from(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(text: &str) -> (Retry, Vec<String>) {
        let mut settings = Settings::new(text.parse().unwrap());
        let retry = read_retry(&mut settings, &Retry::default());
        let mistakes = settings.finish().mistakes;
        (retry, mistakes.into_iter().map(|mistake| format!("{} {}", mistake.key, mistake.message)).collect())
    }

    #[test]
    fn an_empty_table_gives_what_it_is_based_on() {
        assert_eq!(retry(""), (Retry::default(), Vec::new()));
    }

    #[test]
    fn no_warning_of_delays_if_set_to_zero() {
        assert_eq!(retry("delay_warning = '0'").0.delay_warning, None);
    }

    #[test]
    fn waits_are_in_order() {
        assert_eq!(retry("first = '2h'").1, ["first is \"2h\"; allowed is no more than max, which is \"1h\""]);
        assert_eq!(retry("max = '30s'").1, ["max is \"30s\"; allowed is no less than first, which is \"1m\""]);
        assert_eq!(retry("max_age = '5m'").1, ["max_age is \"5m\"; allowed is no less than max, which is \"1h\""]);
        assert_eq!(retry("first = '1s'\nmax = '1s'\nmax_age = '1s'").1, [""; 0]);
    }

    #[test]
    fn the_worker_is_beside_us_unless_told_otherwise() {
        let program = |text: &str| {
            let mut settings = Settings::new(text.parse().unwrap());
            read_worker(&mut settings, Some(Path::new("/opt/bin/spooler"))).program
        };
        assert_eq!(program(""), Path::new("/opt/bin/spooler-worker"));
        assert_eq!(program("program = '/x/w'"), Path::new("/x/w"));
    }
}
