//! The providers of the configuration: what is common to all kinds. What is left of a table goes to the worker as it is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use spooler_protocol::claims::{ANY_TYPE, Pattern};
use spooler_protocol::confinement::Privilege;
use spooler_protocol::limits::CLAIMS_MAX;
use spooler_protocol::message::Address;
use spooler_protocol::settings::{Effective, PROVIDER_KEYS, Settings};
use toml::{Table, Value};

use super::notes::Notes;
use super::sandbox::{self, Sandbox};
use super::sections::{Retry, read_retry};
use crate::policy::priority_plan::{Io, Sched};

/// Characters of a provider's name, and of a resource's.
const NAME_CHARS_MAX: usize = 32;
/// Bytes of a device's name.
const DEVICE_BYTES_MAX: usize = 255;
/// What names may be.
const NAME_RULE: &str = "allowed are up to 32 of a-z, 0-9, _ and -, the first a letter or digit";

/// `[provider.NAME]`: one transport.
#[derive(Clone, PartialEq)]
pub struct Provider {
    /// Its name: up to 32 lower case letters, digits, `-` and `_`.
    pub name: String,
    /// Its kind, such as `smtp`.
    pub kind: String,
    /// Which recipients it serves before all others.
    pub claims: Vec<Pattern>,
    /// The address types that it serves; `None` for those that its worker announces.
    pub address_types: Option<Vec<String>>,
    /// The address types of its kind, as its worker program says for a check; `None` if only a running worker knows, or none was asked.
    pub usual_types: Option<Vec<String>>,
    /// When deliveries are tried again.
    pub retry: Retry,
    /// Its share of CPU time, 1 to 10,000.
    pub weight: u32,
    /// The nice value of its worker.
    pub nice: i32,
    /// The scheduling class of its worker.
    pub sched: Sched,
    /// The I/O priority of its worker.
    pub io: Io,
    /// Whether somebody waits for it, so that it need not wait until the machine is idle.
    pub interactive: bool,
    /// The nice value of its worker in a critical section.
    pub critical_nice: i32,
    /// Whether its worker has a real-time class in a critical section, where that is permitted.
    pub critical_realtime: bool,
    /// The longest critical section.
    pub critical_max: Duration,
    /// CPU that its worker may use past its slices, or without a token, before it is asked to go.
    pub cpu_overrun_limit: Duration,
    /// How long its worker may leave a recall unanswered without using CPU, before it is asked to go.
    pub response_timeout: Duration,
    /// How long all its deliveries may say nothing, before its worker is asked to go.
    pub stall_timeout: Duration,
    /// How long its worker may take to start and log on.
    pub start_timeout: Duration,
    /// The device that it works with, as its name below `/dev` or that of a network interface: without it, it is offline.
    pub needs_device: Option<String>,
    /// Whether it makes no connections until somebody has it connect.
    pub no_connect: bool,
    /// Between two looks whether messages wait to be received, where the provider wishes to be asked.
    pub poll_interval: Duration,
    /// The scarce thing that it needs, such as a modem: of all providers that name the same, only one works at a time.
    pub resource: Option<String>,
    /// The sandbox of its worker; `None` if it is switched off.
    pub sandbox: Option<Sandbox>,
    /// The rights of root's that it declares to need.
    pub privileges: Vec<Privilege>,
    /// Files that it reads at its start and that not everybody can read.
    pub secret_files: Vec<PathBuf>,
    /// Whether it declares to run programs: pipes, filters, hooks.
    pub programs: bool,
    /// Those that it needs and the supervisor has given up, in words. Known to who reads the configuration again.
    pub lacks: Option<String>,
    /// Whether it runs.
    pub enabled: bool,
    /// The keys of its kind, as TOML. May hold secrets.
    pub settings: String,
}

impl Provider {
    /// The address types that the configuration gives it: none if it has claims and no `address_types`, because then the claims are
    /// all it serves. `None` if the worker says what it serves.
    #[must_use]
    pub fn address_types(&self) -> Option<&[String]> {
        match &self.address_types {
            Some(types) => Some(types),
            None if !self.claims.is_empty() => Some(&[]),
            None => None,
        }
    }

    /// The address types that it serves, as far as that is known without its worker.
    pub(super) fn serves(&self) -> Option<&[String]> {
        self.address_types().or(self.usual_types.as_deref())
    }

    /// Whether it is there to deliver; an entrance is not.
    pub(super) fn delivers(&self) -> bool {
        self.kind != "smtp-in"
    }
}

impl fmt::Debug for Provider {
    /// Leaves out the settings: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("claims", &self.claims)
            .field("address_types", &self.address_types)
            .field("usual_types", &self.usual_types)
            .field("retry", &self.retry)
            .field("weight", &self.weight)
            .field("nice", &self.nice)
            .field("sched", &self.sched)
            .field("io", &self.io)
            .field("interactive", &self.interactive)
            .field("critical_nice", &self.critical_nice)
            .field("critical_realtime", &self.critical_realtime)
            .field("critical_max", &self.critical_max)
            .field("cpu_overrun_limit", &self.cpu_overrun_limit)
            .field("response_timeout", &self.response_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("start_timeout", &self.start_timeout)
            .field("needs_device", &self.needs_device)
            .field("no_connect", &self.no_connect)
            .field("poll_interval", &self.poll_interval)
            .field("resource", &self.resource)
            .field("sandbox", &self.sandbox)
            .field("privileges", &self.privileges)
            .field("secret_files", &self.secret_files)
            .field("programs", &self.programs)
            .field("lacks", &self.lacks)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// Reads all providers, in the order of the file, with the effective values of their common keys.
pub(super) fn read_all(value: Option<Value>, base: &Retry, notes: &mut Notes) -> (Vec<Provider>, Vec<Effective>) {
    let tables = match value {
        None => Table::new(),
        Some(Value::Table(tables)) => tables,
        Some(_) => {
            notes.mistake("provider", "must be tables, one for each provider: [provider.NAME]");
            Table::new()
        }
    };
    let mut tables: Vec<(String, Value)> = tables.into_iter().collect();
    tables.sort_by_key(|(name, _)| notes.places().offset(&format!("provider.{name}")));
    let (mut providers, mut effective) = (Vec::new(), Vec::new());
    for (name, value) in tables {
        let place = format!("provider.{name}");
        if !is_name(&name) {
            notes.mistake(&place, &format!("has a name that is not allowed; {NAME_RULE}"));
        }
        match value {
            Value::Table(table) => {
                let (provider, values) = read(name, table, base, notes);
                providers.push(provider);
                effective.extend(values);
            }
            other => notes.mistake(&place, &format!("must be a table, not {}", other.type_str())),
        }
    }
    for provider in providers.iter().filter(|provider| provider.sandbox.is_none()) {
        let key = format!("provider.{}.sandbox", provider.name);
        notes.warn(&key, format!("{key} is false: its worker has every right that the spooler has"));
    }
    (providers, effective)
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn read(name: String, mut own: Table, base: &Retry, notes: &mut Notes) -> (Provider, Vec<Effective>) {
    let place = format!("provider.{name}");
    let mut common = Table::new();
    for key in PROVIDER_KEYS {
        if let Some(value) = own.remove(*key) {
            common.insert((*key).to_owned(), value);
        }
    }
    let mut settings = Settings::new(common);
    let kind = settings.required_string("kind", "the kind of transport, such as \"smtp\"");
    let claims = settings.strings("claims", &[]);
    let provider = read_common(name, kind, &mut settings, base);
    let effective = notes.take(&format!("{place}."), settings.finish());
    let claims = parse_claims(&place, &claims, notes);
    (Provider { claims, settings: own.to_string(), ..provider }, effective)
}

/// Everything but the claims and the keys of the kind.
fn read_common(name: String, kind: String, settings: &mut Settings, base: &Retry) -> Provider {
    // A line that cannot wait must not wait for a slot before its section can begin either.
    let interactive = settings.boolean("interactive", kind == "smtp-in" || kind == "serial");
    let nice = settings.signed("nice", if interactive { 0 } else { 10 }, -20..=19);
    let critical_nice = settings.signed("critical_nice", nice.min(-10), -20..=19);
    if critical_nice > nice {
        settings.mistake("critical_nice", format!("is {critical_nice}; allowed is no more than nice, which is {nice}"));
    }
    // A line that cannot wait drops what is not read in a millisecond, which no nice value can promise.
    let class = if kind == "serial" { "rr" } else { "nice" };
    let critical_class = settings.choice("critical_class", class, &[("nice", false), ("rr", true)]);
    let (seconds, milliseconds) = (Duration::from_secs, Duration::from_millis);
    Provider {
        name,
        kind,
        claims: Vec::new(),
        address_types: read_address_types(settings),
        usual_types: None,
        retry: settings.table("retry", |table| read_retry(table, base)),
        weight: settings.integer("weight", 100, 1..=10_000),
        nice,
        sched: read_sched(settings, interactive),
        io: read_io(settings, interactive),
        interactive,
        critical_nice,
        critical_realtime: critical_class.unwrap_or(false),
        critical_max: settings.duration("critical_max", "120s", seconds(1)..=seconds(3600)),
        cpu_overrun_limit: settings.duration("cpu_overrun_limit", "30s", milliseconds(300)..=seconds(3600)),
        response_timeout: settings.duration("response_timeout", "60s", milliseconds(400)..=seconds(3600)),
        stall_timeout: settings.duration("stall_timeout", "15m", milliseconds(400)..=seconds(7 * 86_400)),
        start_timeout: settings.duration("start_timeout", "10s", milliseconds(100)..=seconds(600)),
        needs_device: read_device(settings),
        no_connect: settings.boolean("no_connect", false),
        poll_interval: settings.duration("poll_interval", "10m", seconds(1)..=seconds(7 * 86_400)),
        resource: read_resource(settings),
        sandbox: sandbox::read(settings),
        privileges: Vec::new(),
        secret_files: Vec::new(),
        programs: false,
        lacks: None,
        enabled: settings.boolean("enabled", true),
        settings: String::new(),
    }
}

/// Nobody waits for background work, so it need not interrupt anybody.
fn read_sched(settings: &mut Settings, interactive: bool) -> Sched {
    let text = settings.string("sched", if interactive { "other" } else { "batch" });
    let found = [Sched::Other, Sched::Batch, Sched::Idle].into_iter().find(|sched| sched.word() == text);
    found.unwrap_or_else(|| {
        settings.mistake("sched", format!("is {text:?}; allowed is \"other\", \"batch\" or \"idle\""));
        Sched::default()
    })
}

fn read_io(settings: &mut Settings, interactive: bool) -> Io {
    let text = settings.string("io", if interactive { "best-effort:4" } else { "best-effort:7" });
    Io::parse(&text).unwrap_or_else(|| {
        settings.mistake(
            "io",
            format!("is {text:?}; allowed is \"idle\", or \"best-effort:0\" (first) to \"best-effort:7\""),
        );
        Io::BestEffort(7)
    })
}

/// `ttyUSB0`, `/dev/ttyUSB0`, `/dev/serial/by-id/…` or a network interface.
fn read_device(settings: &mut Settings) -> Option<String> {
    let text = settings.optional_string("needs_device")?;
    let name = text.strip_prefix("/dev/").unwrap_or(&text);
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.len() > DEVICE_BYTES_MAX || name.contains(char::is_control) || !name.split('/').all(good) {
        settings.mistake(
            "needs_device",
            format!(
                "is {text:?}; give a name below /dev such as \"ttyUSB0\", or a network interface such as \"wwan0\""
            ),
        );
        return None;
    }
    Some(name.to_owned())
}

fn read_resource(settings: &mut Settings) -> Option<String> {
    let resource = settings.optional_string("resource")?;
    if !is_name(&resource) {
        settings.mistake("resource", format!("is {resource:?}; {NAME_RULE}"));
    }
    Some(resource)
}

fn read_address_types(settings: &mut Settings) -> Option<Vec<String>> {
    if !settings.has("address_types") {
        settings.ignore("address_types");
        return None;
    }
    let kinds = settings.strings("address_types", &[]);
    for kind in &kinds {
        if !is_address_type(kind) {
            settings.mistake("address_types", format!("has {kind:?}; allowed are types such as \"SMTP\" or \"FAX\""));
        }
    }
    Some(kinds)
}

/// Whether an address can have this type: whether it is read back as one. `*` is any type.
fn is_address_type(kind: &str) -> bool {
    kind == ANY_TYPE
        || format!("{kind}:x").parse().is_ok_and(|address: Address| address.kind() == kind && address.text() == "x")
}

fn parse_claims(place: &str, claims: &[String], notes: &mut Notes) -> Vec<Pattern> {
    let key = format!("{place}.claims");
    if claims.len() > CLAIMS_MAX {
        notes.mistake(&key, &format!("has {} entries; allowed are up to {CLAIMS_MAX}", claims.len()));
        return Vec::new();
    }
    let mut patterns = Vec::with_capacity(claims.len());
    for (index, claim) in claims.iter().enumerate() {
        match Pattern::parse(claim) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => notes.mistake_in_list(&key, index, &error.to_string()),
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> (Option<String>, usize) {
        let mut settings = Settings::new(format!("needs_device = {text:?}").parse().unwrap());
        let device = read_device(&mut settings);
        (device, settings.finish().mistakes.len())
    }

    #[test]
    fn a_device_is_named_with_or_without_its_folder() {
        for text in ["ttyUSB0", "/dev/ttyUSB0"] {
            assert_eq!(device(text), (Some("ttyUSB0".to_owned()), 0));
        }
        assert_eq!(device("/dev/serial/by-id/x-1"), (Some("serial/by-id/x-1".to_owned()), 0));
        for text in ["", "/etc/passwd", "../x", "/dev/", "a//b"] {
            assert_eq!(device(text), (None, 1), "{text}");
        }
    }
}
