//! The configuration: one TOML file, read as a whole, so that every mistake in it is reported at once, with its line and with what is
//! allowed.
//!
//! ```text
//! text ─▶ places (line of every key) ─┐
//!      └▶ tables ─▶ sections, provider ─▶ notes (mistakes, warnings) ─▶ Config or ConfigError
//!                   provider_check: the worker program reads the keys of its kinds ─┘
//! ```
//!
//! Nothing here acts on what is configured: a folder need not be there, a port need not be free. What a key of a provider's kind means,
//! only the worker knows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spooler_protocol::limits::{CLAIM_EXTRA_BYTES, CLAIMS_BYTES_MAX};
use spooler_protocol::message::Address;
use spooler_protocol::settings::{Effective, Settings};
use toml::de::DeTable;
use toml::{Table, Value};

// Aliases and rewriting.
mod addressing;
// Files of aliases.
mod alias_files;
// `spooler check`.
mod command;
// Finding and reading the file.
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod hostname;
mod notes;
// What settings refer to outside of the file.
mod outside;
mod places;
// The configuration as it is in effect, as TOML.
mod print;
mod probe;
mod provider;
// Asking the worker program about the keys of its kinds.
mod provider_check;
// Routes that are not what they seem.
mod routes;
// The sandbox of a worker.
mod sandbox;
mod sections;

pub use alias_files::AliasSources;
pub use command::{Eyes, check_command};
pub use file::{find, load, load_unchecked};
pub use notes::{ConfigError, Problem};
pub use print::print_effective;
pub use probe::probe_command;
pub use provider::Provider;
pub use sandbox::{OWN_UIDS, Sandbox};
pub use sections::{Control, History, Log, Reports, Retry, Routing, Scheduler, Spool};

use notes::Notes;
use places::Places;

use crate::policy::addressing::Addressing;

/// A configuration without mistakes.
///
/// README.md has all keys with their defaults.
///
/// The environment variable `SPOOLER_WORKER` names the worker program whatever the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file.
    pub source: PathBuf,
    /// The name that we go by towards other hosts.
    pub hostname: String,
    /// What is done with addresses on their way in.
    pub addressing: Arc<Addressing>,
    /// Where its aliases come from.
    pub aliases: AliasSources,
    /// Who is told of what no sender can be told.
    pub postmaster: Option<Address>,
    /// Where messages are kept.
    pub spool: Spool,
    /// The control socket.
    pub control: Control,
    /// The CPU time of workers.
    pub scheduler: Scheduler,
    /// When deliveries are tried again, unless their provider says otherwise.
    pub retry: Retry,
    /// Who serves whom.
    pub routing: Routing,
    /// How the log is written.
    pub log: Log,
    /// What is kept of messages that have left the queue.
    pub history: History,
    /// What senders are told.
    pub reports: Reports,
    /// How long deliveries in flight may take to end when the supervisor stops.
    pub stop_timeout: Duration,
    /// The worker program.
    pub worker: PathBuf,
    /// The providers in the order of the file, which is the transport order.
    pub providers: Vec<Provider>,
    /// What works, but perhaps not as it is meant.
    pub warnings: Vec<Problem>,
    /// The value of every key, defaults and checked providers included, secrets left out.
    pub effective: Vec<Effective>,
}

/// Reads the text of a configuration; `source` is the file that it came from. The keys of the providers' kinds are not checked.
///
/// # Errors
/// If there is any mistake in it; all of them are named.
pub fn parse(text: &str, source: &Path) -> Result<Config, ConfigError> {
    let (config, notes) = read(text, source)?;
    Ok(Config { warnings: notes.finish()?, ..config })
}

/// Reads a text as far as that goes: mistakes are in the notes, except for those after which there is nothing to read.
fn read(text: &str, source: &Path) -> Result<(Config, Notes), ConfigError> {
    let (places, mut root) = parse_toml(text, source)?;
    override_worker(&mut root, std::env::var("SPOOLER_WORKER").ok());
    let mut notes = Notes::new(source.to_owned(), places);
    let providers = root.remove("provider");
    let mut settings = Settings::new(root);
    settings.ignore("provider");
    let mut config = read_sections(&mut settings, source);
    config.effective = notes.take("", settings.finish());
    let (providers, effective) = provider::read_all(providers, &config.retry, &mut notes);
    config.providers = providers;
    sandbox::give_uids(&mut config.providers, &config.spool.path);
    config.effective.extend(effective);
    check_order(&config, &mut notes);
    check_claims(&config, &mut notes);
    warn(&config, &mut notes);
    Ok((config, notes))
}

fn read_sections(settings: &mut Settings, source: &Path) -> Config {
    let mail = settings.table("mail", sections::read_mail);
    let rewrite = settings.table("rewrite", |table| addressing::read_rewrite(table, &mail.origin));
    let aliases = settings.table("aliases", |table| addressing::read_aliases(table, source));
    let aliases = AliasSources { postmaster: mail.postmaster.clone(), ..aliases };
    let addressing = Addressing {
        origin: mail.origin,
        hostname: mail.hostname.clone(),
        rewrite,
        aliases: aliases.without_files(),
        always_bcc: mail.always_bcc,
    };
    let spool = settings.table("spool", sections::read_spool);
    let control = settings.table("control", sections::read_control);
    let scheduler = settings.table("scheduler", sections::read_scheduler);
    let retry = settings.table("retry", |table| sections::read_retry(table, &Retry::default()));
    let routing = settings.table("routing", sections::read_routing);
    let log = settings.table("log", sections::read_log);
    let history = settings.table("history", sections::read_history);
    let reports = settings.table("reports", sections::read_reports);
    let own_program = std::env::current_exe().ok();
    let worker = settings.table("worker", |table| sections::read_worker(table, own_program.as_deref()));
    Config {
        source: source.to_owned(),
        hostname: mail.hostname,
        addressing: Arc::new(addressing),
        aliases,
        postmaster: mail.postmaster,
        spool,
        control,
        scheduler,
        retry,
        routing,
        log,
        history,
        reports,
        stop_timeout: worker.stop_timeout,
        worker: worker.program,
        providers: Vec::new(),
        warnings: Vec::new(),
        effective: Vec::new(),
    }
}

/// What the environment says of the worker program stands above the file. A `worker` that is no table stays: it is a mistake.
fn override_worker(root: &mut Table, program: Option<String>) {
    let Some(program) = program else { return };
    if let Value::Table(worker) = root.entry("worker").or_insert_with(|| Value::Table(Table::new())) {
        worker.insert("program".to_owned(), Value::String(program));
    }
}

/// A transport order names every provider once, or it would not be clear when the others have their turn.
/// Each worker is told the claims of all providers: together they must fit into one word.
fn check_claims(config: &Config, notes: &mut Notes) {
    let claims = config.providers.iter().flat_map(|provider| &provider.claims);
    let bytes: usize = claims.map(|claim| claim.to_string().len() + CLAIM_EXTRA_BYTES).sum();
    if bytes > CLAIMS_BYTES_MAX {
        let text =
            format!("the claims of all providers take {bytes} bytes together; allowed are up to {CLAIMS_BYTES_MAX}");
        notes.mistake("provider", &text);
    }
}

fn check_order(config: &Config, notes: &mut Notes) {
    let Some(order) = &config.routing.order else { return };
    let is_provider = |name: &String| config.providers.iter().any(|provider| provider.name == *name);
    for (index, name) in order.iter().enumerate() {
        if !is_provider(name) {
            notes.mistake_in_list(
                "routing.order",
                index,
                &format!("names {name:?}, but there is no [provider.{name}]"),
            );
        } else if order.iter().take(index).any(|before| before == name) {
            notes.mistake_in_list("routing.order", index, &format!("names {name:?} twice"));
        }
    }
    let left_out: Vec<String> = config
        .providers
        .iter()
        .filter(|provider| !order.contains(&provider.name))
        .map(|provider| format!("{:?}", provider.name))
        .collect();
    if !left_out.is_empty() {
        let message = format!("leaves out {}; it must name every provider", left_out.join(", "));
        notes.mistake("routing.order", &message);
    }
}

fn warn(config: &Config, notes: &mut Notes) {
    if !config.providers.iter().any(|provider| provider.enabled) {
        notes.warn("provider", "nothing can be delivered: there is no [provider.NAME] that is enabled".to_owned());
    }
    if config.control.anyone_may_submit && config.control.submit_group.is_some() {
        let message = "control.submit_group has no effect while control.anyone_may_submit is true";
        notes.warn("control.submit_group", message.to_owned());
    }
}

fn parse_toml(text: &str, source: &Path) -> Result<(Places, Table), ConfigError> {
    let (spanned, errors) = DeTable::parse_recoverable(text);
    let places = Places::new(text, spanned.get_ref());
    let table = text.parse::<Table>();
    let errors = if errors.is_empty() { table.as_ref().err().cloned().into_iter().collect() } else { errors };
    let mut problems: Vec<Problem> = errors.iter().map(|error| syntax_problem(error, text, source)).collect();
    problems.sort_by_key(|problem| problem.line);
    problems.dedup_by_key(|problem| problem.line);
    table.map(|table| (places, table)).map_err(|_| ConfigError { problems })
}

fn syntax_problem(error: &toml::de::Error, text: &str, source: &Path) -> Problem {
    let line = error.span().map(|span| places::line_of(text, span.start));
    Problem { file: source.to_owned(), line, message: format!("is not TOML: {}", error.message()), may_pass: false }
}

#[cfg(test)]
mod tests;
