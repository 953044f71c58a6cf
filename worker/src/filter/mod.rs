//! Programs that look at messages before and after the provider does: preprocessors (IMAPISupport::RegisterPreprocessor,
//! PreprocessMessage, RemovePreprocessInfo) and hooks (ISpoolerHook). They run in the worker, so they are as isolated as it is.
//!
//! ```text
//!   preprocess 1 ▸ preprocess 2 ▸ submit_message ▸ undo 2 ▸ undo 1 ▸ outbound hooks     (a delivery)
//!   inbound hook 1 ▸ inbound hook 2 ▸ accepted into the queue                           (a message that comes in)
//! ```
//!
//! | key of `[[preprocess]]`, `[[inbound_hook]]`, `[[outbound_hook]]` | default | meaning |
//! |---|---|---|
//! | `command` | required | program (absolute path) and arguments, as they are |
//! | `undo` | none | for `preprocess` only: what runs after the delivery, whatever came of it |
//! | `timeout` | `"30s"` | then SIGTERM, 5 s later SIGKILL, to its whole process group; counts as a temporary failure |
//! | `for` | all | patterns as in `claims`; it runs if one of the recipients fits |
//!
//! Order is that of the configuration. The message is on standard input, lines ended by LF. Each message has a private folder, which
//! is the working directory of all its programs, is named in `FOLDER`, and is removed at the end. Other variables: `PATH`, `PROVIDER`,
//! `HOSTNAME`, `MESSAGE_ID` (not on the way in), `SENDER`, `RECIPIENT` (several are separated by line feeds).
//!
//! A worker that is killed, or has to log off in a hurry, undoes nothing: what a filter keeps outside of its folder has to stand that.

// The private folder of a message, and contents in files.
mod artifacts;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
// On the way in.
mod inbound;
// Around a delivery.
mod outbound;
// Runs one program.
mod run;

use std::rc::Rc;
use std::time::Duration;

use spooler_protocol::claims::Pattern;
use spooler_protocol::message::Recipient;
use spooler_protocol::settings::{Referent, Settings};
use spooler_protocol::to_worker::Refusal;

pub(crate) use artifacts::{Content, Held};

/// One program.
#[derive(Clone, Debug)]
struct Filter {
    command: Vec<String>,
    undo: Vec<String>,
    timeout: Duration,
    patterns: Option<Vec<Pattern>>,
}

impl Filter {
    /// Whether it is to see a message to these recipients.
    fn is_for(&self, recipients: &[Recipient]) -> bool {
        let Some(patterns) = &self.patterns else { return true };
        recipients.iter().any(|recipient| patterns.iter().any(|pattern| pattern.matches(&recipient.address)))
    }
}

#[derive(Debug, Default)]
struct Lists {
    preprocess: Vec<Filter>,
    inbound: Vec<Filter>,
    outbound: Vec<Filter>,
}

/// The filters of a provider. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    lists: Rc<Lists>,
}

impl Filters {
    /// Reads the filters out of a provider's table.
    pub fn read(settings: &mut Settings) -> Self {
        let lists = Lists {
            preprocess: settings.tables("preprocess", |table| read(table, true)),
            inbound: settings.tables("inbound_hook", |table| read(table, false)),
            outbound: settings.tables("outbound_hook", |table| read(table, false)),
        };
        Self { lists: Rc::new(lists) }
    }

    /// Whether there are any.
    pub(crate) fn run_programs(&self) -> bool {
        let Lists { preprocess, inbound, outbound } = &*self.lists;
        !(preprocess.is_empty() && inbound.is_empty() && outbound.is_empty())
    }

    pub(crate) fn has_inbound_hooks(&self) -> bool {
        !self.lists.inbound.is_empty()
    }
}

fn read(settings: &mut Settings, can_undo: bool) -> Filter {
    let patterns = settings.has("for").then(|| settings.strings("for", &[]));
    if patterns.is_none() {
        settings.ignore("for");
    }
    let command = read_command(settings, "command");
    if command.is_empty() {
        settings.mistake("command", "is missing; give a list such as [\"/usr/bin/program\", \"--option\"]");
    }
    Filter {
        command,
        undo: if can_undo { read_command(settings, "undo") } else { Vec::new() },
        timeout: settings.silence("timeout", "30s", Duration::from_millis(100)..=Duration::from_secs(86_400)),
        patterns: patterns.map(|texts| read_patterns(settings, &texts)),
    }
}

fn read_patterns(settings: &mut Settings, texts: &[String]) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for text in texts {
        match Pattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => settings.mistake("for", error.to_string()),
        }
    }
    patterns
}

fn read_command(settings: &mut Settings, key: &str) -> Vec<String> {
    if !settings.has(key) {
        settings.ignore(key);
        return Vec::new();
    }
    let words = settings.strings(key, &[]);
    if let Some(program) = words.first() {
        settings.refer(key, Referent::Program(program.into()));
    }
    if !words.first().is_some_and(|program| program.starts_with('/')) || words.iter().any(|word| word.contains('\0')) {
        settings.mistake(key, "must begin with the absolute path of a program; arguments follow as further texts");
    }
    words
}

/// What a sender is told when a message cannot be kept for the hooks.
pub(crate) fn refusal(why: &str) -> Refusal {
    Refusal { temporary: true, enhanced: "4.3.1".to_owned(), text: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> (Filters, Vec<String>) {
        let mut settings = Settings::new(text.parse().unwrap());
        let filters = Filters::read(&mut settings);
        let mistakes = settings.finish().mistakes.into_iter().map(|mistake| mistake.key).collect();
        (filters, mistakes)
    }

    #[test]
    fn filters_are_read_in_order_with_every_mistake() {
        let (filters, mistakes) = read_all(
            "[[preprocess]]\ncommand = ['/a', 'x']\nundo = '/b'\nfor = '@x.test'\n[[preprocess]]\ncommand = ['/c']\n\
             [[inbound_hook]]\ncommand = 'relative'\nundo = '/x'\n[[outbound_hook]]\ntimeout = '0s'\n",
        );
        let first = filters.lists.preprocess.first().unwrap();
        assert_eq!(
            (first.command.as_slice(), first.undo.as_slice()),
            (["/a".into(), "x".into()].as_slice(), ["/b".into()].as_slice())
        );
        assert_eq!((filters.lists.preprocess.len(), filters.has_inbound_hooks()), (2, true));
        assert_eq!(
            mistakes,
            ["inbound_hook.0.command", "inbound_hook.0.undo", "outbound_hook.0.command", "outbound_hook.0.timeout"]
        );
    }

    #[test]
    fn a_filter_is_for_whom_it_says() {
        let (filters, _) = read_all("[[preprocess]]\ncommand = ['/a']\nfor = ['@x.test', '@.y.test']");
        let to = |texts: &[&str]| {
            let recipients: Vec<Recipient> = texts.iter().map(|text| Recipient::new(text.parse().unwrap())).collect();
            filters.lists.preprocess[0].is_for(&recipients)
        };
        assert!(to(&["a@z.test", "b@X.test"]) && to(&["b@a.y.test"]) && !to(&["a@z.test"]));
    }
}
