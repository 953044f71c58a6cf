//! Reading a table of settings so that every mistake is found at once.
//!
//! A reader asks for each key by name and type; what is missing takes the default that stands in the call. Mistakes are collected
//! instead of returned, and at the end every key that nobody asked for is one, with the keys that are allowed. The effective
//! values are collected too, without secrets, for `spooler check --print`.

mod findings;
mod suggestions;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use findings::{Effective, Findings, Mistake, Reference, Referent, Silence};
use toml::{Table, Value};

use crate::units;

/// The keys of a provider's table that mean the same for every kind. The supervisor reads them and keeps them to itself; a kind must not
/// use these names for settings of its own.
pub const PROVIDER_KEYS: &[&str] = &[
    "address_types",
    "response_timeout",
    "claims",
    "cpu_max",
    "critical_class",
    "critical_max",
    "critical_nice",
    "enabled",
    "file_size_max",
    "files_max",
    "interactive",
    "io",
    "kind",
    "may_read",
    "may_write",
    "memory_max",
    "needs_device",
    "nice",
    "no_connect",
    "cpu_overrun_limit",
    "stall_timeout",
    "poll_interval",
    "processes_max",
    "resource",
    "retry",
    "run_as",
    "sandbox",
    "sched",
    "start_timeout",
    "weight",
];

/// The keys of a provider's table that mean the same for every kind and that its worker reads: programs that look at messages. A kind must
/// not use these names either.
pub const FILTER_KEYS: &[&str] = &["inbound_hook", "outbound_hook", "preprocess"];

/// A table of settings being read.
#[derive(Debug)]
pub struct Settings {
    table: Table,
    prefix: String,
    known: Vec<String>,
    findings: Findings,
}

impl Settings {
    /// Starts to read a table.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self { table, prefix: String::new(), known: Vec::new(), findings: Findings::default() }
    }

    /// Takes a key that somebody else reads.
    pub fn ignore(&mut self, key: &str) {
        let _ = self.take(key);
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.table.remove(key)
    }

    /// Notes a mistake at a key.
    pub fn mistake(&mut self, key: &str, message: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.findings.mistakes.push(Mistake { key, message: message.into() });
    }

    fn effective(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into().to_string();
        self.findings.effective.push(Effective { key: format!("{}{key}", self.prefix), value });
    }

    fn wrong_type(&mut self, key: &str, wanted: &str, found: &Value) {
        self.mistake(key, format!("must be {wanted}, not {}", found.type_str()));
    }

    /// Notes what the value of a key refers to outside of the configuration.
    pub fn refer(&mut self, key: &str, to: Referent) {
        self.findings.references.push(Reference { key: format!("{}{key}", self.prefix), to });
    }

    /// A text that may be absent.
    pub fn optional_string(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => {
                self.effective(key, text.clone());
                Some(text)
            }
            other => {
                self.wrong_type(key, "a text in quotes", &other);
                None
            }
        }
    }

    /// A text.
    pub fn string(&mut self, key: &str, default: &str) -> String {
        if !self.table.contains_key(key) {
            self.effective(key, default);
        }
        self.optional_string(key).unwrap_or_else(|| default.to_owned())
    }

    /// A text that must be there; `what` says what it is, for the mistake.
    pub fn required_string(&mut self, key: &str, what: &str) -> String {
        let present = self.table.contains_key(key);
        match self.optional_string(key) {
            Some(text) if text.is_empty() => {
                self.mistake(key, format!("is empty; give {what}"));
                text
            }
            Some(text) => text,
            None => {
                if !present {
                    self.mistake(key, format!("is missing; give {what}"));
                }
                String::new()
            }
        }
    }

    /// A text that is never shown.
    pub fn secret(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => {
                self.effective(key, "(secret)");
                Some(text)
            }
            other => {
                self.wrong_type(key, "a text in quotes", &other);
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Clone>(&mut self, key: &str, default: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key, default);
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        if found.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.mistake(key, format!("is {text:?}; allowed are {}", words.join(", ")));
        }
        found.or_else(|| choices.iter().find(|(word, _)| *word == default).map(|(_, value)| value.clone()))
    }

    /// A list of texts; one text stands for a list of one.
    pub fn strings(&mut self, key: &str, default: &[&str]) -> Vec<String> {
        let default: Vec<String> = default.iter().map(|&text| text.to_owned()).collect();
        let list = match self.take(key) {
            None => default,
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(values)) => {
                let mut list = Vec::new();
                for value in values {
                    match value {
                        Value::String(text) => list.push(text),
                        other => self.wrong_type(key, "a list of texts in quotes", &other),
                    }
                }
                list
            }
            Some(other) => {
                self.wrong_type(key, "a list of texts in quotes", &other);
                default
            }
        };
        self.effective(key, list.clone());
        list
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str, default: bool) -> bool {
        let value = match self.take(key) {
            None => default,
            Some(Value::Boolean(value)) => value,
            Some(other) => {
                self.wrong_type(key, "true or false", &other);
                default
            }
        };
        self.effective(key, value);
        value
    }

    /// A whole number in a range.
    pub fn integer(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> u32 {
        self.whole(key, default, &range)
    }

    /// A whole number that may be negative, such as a nice value.
    pub fn signed(&mut self, key: &str, default: i32, range: RangeInclusive<i32>) -> i32 {
        self.whole(key, default, &range)
    }

    fn whole<N>(&mut self, key: &str, default: N, range: &RangeInclusive<N>) -> N
    where
        N: TryFrom<i64> + Into<i64> + PartialOrd + Copy + Display,
    {
        let value = match self.take(key) {
            None => default,
            Some(Value::Integer(value)) => match N::try_from(value) {
                Ok(value) if range.contains(&value) => value,
                _ => {
                    self.mistake(key, format!("is {value}; allowed is {} to {}", range.start(), range.end()));
                    default
                }
            },
            Some(other) => {
                self.wrong_type(key, "a whole number", &other);
                default
            }
        };
        let shown: i64 = value.into();
        self.effective(key, shown);
        value
    }

    /// A factor such as 2 or 1.5.
    pub fn factor(&mut self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let found = match self.take(key) {
            None => Some(default),
            Some(Value::Float(value)) => Some(value),
            Some(Value::Integer(value)) => i32::try_from(value).ok().map(f64::from),
            Some(other) => {
                self.wrong_type(key, "a number", &other);
                Some(default)
            }
        };
        let value = found.filter(|value| range.contains(value)).unwrap_or_else(|| {
            self.mistake(key, format!("is out of range; allowed is {} to {}", range.start(), range.end()));
            default
        });
        self.effective(key, value);
        value
    }

    /// A duration such as `"90s"`.
    pub fn duration(&mut self, key: &str, default: &str, range: RangeInclusive<Duration>) -> Duration {
        let text = self.string(key, default);
        match units::duration(&text) {
            Ok(value) if range.contains(&value) => value,
            Ok(_) => {
                let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
                self.mistake(key, format!("is {text:?}; allowed is {least} to {most}"));
                units::duration(default).unwrap_or(*range.start())
            }
            Err(error) => {
                self.mistake(key, error.to_string());
                units::duration(default).unwrap_or(*range.start())
            }
        }
    }

    /// A duration for which a delivery may wait without a sign of progress. Whoever watches over deliveries must have more patience.
    pub fn silence(&mut self, key: &str, default: &str, range: RangeInclusive<Duration>) -> Duration {
        let duration = self.duration(key, default, range);
        self.findings.add_silence(Some(Silence { key: format!("{}{key}", self.prefix), duration }));
        duration
    }

    /// A size such as `"25M"`, or a number of bytes.
    pub fn size(&mut self, key: &str, default: &str) -> u64 {
        let text = match self.table.get(key) {
            Some(Value::Integer(bytes)) => {
                let text = bytes.to_string();
                self.ignore(key);
                self.effective(key, text.clone());
                text
            }
            _ => self.string(key, default),
        };
        match units::size(&text) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.mistake(key, error.to_string());
                units::size(default).unwrap_or_default()
            }
        }
    }

    /// A table inside this one, read by `read`; an empty one if it is absent. Mistakes in it carry its name.
    pub fn table<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong_type(key, "a table", &other);
                Table::new()
            }
        };
        let mut inner = Self::new(table);
        inner.prefix = format!("{}{key}.", self.prefix);
        let value = read(&mut inner);
        let findings = inner.finish();
        self.findings.mistakes.extend(findings.mistakes);
        self.findings.effective.extend(findings.effective);
        self.findings.references.extend(findings.references);
        self.findings.add_silence(findings.silence);
        value
    }

    /// A list of tables, each read by `read`; an empty list if it is absent. Mistakes in it carry its name and their place.
    pub fn tables<T>(&mut self, key: &str, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let tables = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(tables)) => tables,
            Some(other) => {
                self.wrong_type(key, &format!("a list of tables, each [[{key}]]"), &other);
                return Vec::new();
            }
        };
        let (mut read_ones, mut shown) = (Vec::new(), Vec::new());
        for (place, table) in tables.into_iter().enumerate() {
            let Value::Table(table) = table else {
                self.wrong_type(key, "a list of tables", &table);
                continue;
            };
            let mut inner = Self::new(table);
            read_ones.push(read(&mut inner));
            let mut findings = inner.finish();
            let named =
                |silence: Silence| Silence { key: format!("{}{key}.{place}.{}", self.prefix, silence.key), ..silence };
            let silence = findings.silence.take().map(named);
            self.findings.add_silence(silence);
            let own =
                |mistake: Mistake| Mistake { key: format!("{}{key}.{place}.{}", self.prefix, mistake.key), ..mistake };
            self.findings.mistakes.extend(findings.mistakes.into_iter().map(own));
            let own = |reference: Reference| Reference {
                key: format!("{}{key}.{place}.{}", self.prefix, reference.key),
                ..reference
            };
            self.findings.references.extend(findings.references.into_iter().map(own));
            let values: Vec<String> =
                findings.effective.into_iter().map(|one| format!("{} = {}", one.key, one.value)).collect();
            shown.push(format!("{{ {} }}", values.join(", ")));
        }
        let value = format!("[{}]", shown.join(", "));
        self.findings.effective.push(Effective { key: format!("{}{key}", self.prefix), value });
        read_ones
    }

    /// A table of texts with free keys, such as an environment.
    pub fn string_map(&mut self, key: &str) -> Vec<(String, String)> {
        self.table(key, |inner| {
            let keys: Vec<String> = inner.table.keys().cloned().collect();
            keys.into_iter().filter_map(|key| inner.optional_string(&key).map(|value| (key, value))).collect()
        })
    }

    /// Every key that is left as a list of texts; one text stands for a list of one.
    pub fn lists(&mut self) -> Vec<(String, Vec<String>)> {
        let keys: Vec<String> = self.table.keys().cloned().collect();
        keys.into_iter().map(|key| (key.clone(), self.strings(&key, &[]))).collect()
    }

    /// A table of texts with free keys that are never shown, such as users with their passwords.
    pub fn secret_map(&mut self, key: &str) -> Vec<(String, String)> {
        self.table(key, |inner| {
            let keys: Vec<String> = inner.table.keys().cloned().collect();
            keys.into_iter().filter_map(|key| inner.secret(&key).map(|value| (key, value))).collect()
        })
    }

    /// Whether a key is given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether a key is given as a whole number, where it may be something else as well.
    #[must_use]
    pub fn has_integer(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Value::is_integer)
    }

    /// Ends reading: what is left over is a mistake.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        self.known.sort();
        self.known.dedup();
        let (unknown, known) = (std::mem::take(&mut self.table), std::mem::take(&mut self.known));
        unknown.keys().for_each(|key| self.mistake(key, suggestions::unknown(key, &known)));
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::new(text.parse().unwrap())
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let mut settings =
            settings("tls = 'maybe'\nport = 99999\nauth = { user = 1 }\nhots = 'x'\nretry = '5 parsecs'");
        assert_eq!(settings.choice("tls", "none", &[("none", 0), ("required", 1)]), Some(0));
        assert_eq!(settings.integer("port", 25, 1..=65535), 25);
        assert_eq!(settings.table("auth", |auth| auth.optional_string("user")), None);
        assert_eq!(settings.string("host", "h"), "h");
        assert_eq!(
            settings.duration("retry", "1m", Duration::ZERO..=Duration::from_secs(3600)),
            Duration::from_secs(60)
        );
        let keys: Vec<String> = settings.finish().mistakes.into_iter().map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["tls", "port", "auth.user", "retry", "hots"]);
    }

    #[test]
    fn a_list_of_tables_is_read_in_order_and_shown_as_it_could_be_written() {
        let mut settings = settings("hook = [{ a = 1 }, { a = 2, b = 3 }]");
        assert_eq!(settings.tables("hook", |hook| hook.integer("a", 0, 0..=9)), [1, 2]);
        let findings = settings.finish();
        assert_eq!(
            findings.effective,
            [Effective { key: "hook".to_owned(), value: "[{ a = 1 }, { a = 2 }]".to_owned() }]
        );
        assert_eq!(findings.mistakes.iter().map(|mistake| mistake.key.as_str()).collect::<Vec<_>>(), ["hook.1.b"]);
    }

    #[test]
    fn secrets_do_not_show() {
        let mut settings = settings("password = 'sesame'\nusers = { ann = 'sesame2' }");
        assert_eq!(settings.secret("password").as_deref(), Some("sesame"));
        assert_eq!(settings.secret_map("users"), [("ann".to_owned(), "sesame2".to_owned())]);
        assert!(settings.finish().effective.iter().all(|setting| !setting.value.contains("sesame")));
    }

    #[test]
    fn the_longest_silence_is_found_with_its_key_wherever_it_is() {
        let text = "timeout = '2m'\n[[hook]]\ntimeout = '1m'\n[[hook]]\ntimeout = '9m'\n[line]\nwait = '3m'";
        let mut settings = settings(text);
        let any = Duration::ZERO..=Duration::from_secs(3600);
        settings.silence("timeout", "5m", any.clone());
        settings.tables("hook", |hook| hook.silence("timeout", "30s", any.clone()));
        settings.table("line", |line| line.silence("wait", "1s", any.clone()));
        let silence = settings.finish().silence.unwrap();
        assert_eq!((silence.key.as_str(), silence.duration.as_secs()), ("hook.1.timeout", 540));
    }
}
