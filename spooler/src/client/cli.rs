//! The command line of `spoolctl`: what there is, with its help. What it does is in [`super::commands`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde::de::DeserializeOwned;
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{Filter, MessageState};
use spooler_protocol::history::{Fate, HistoryFilter};
use spooler_protocol::message::Priority;
use spooler_protocol::units;

use super::commands;

const EXAMPLES: &str = "Examples:
  spoolctl status --watch                       what every provider and message is doing, live
  spoolctl queue list --state deferred          which messages wait, and why
  spoolctl log --to admin@example.org           what became of messages, newest first
  spoolctl queue retry 42                       try one message now
  spoolctl queue count --json                   the numbers for monitoring
  spoolctl queue delete --to spam.example --older 3d
  spoolctl flush relay                          deliver what waits for one provider now
  spoolctl logon relay                          enter a password that a provider needs
  spoolctl submit --from me@x --to FAX:+15551212 letter.eml

Installed as sendmail, mailq and newaliases, it behaves like them; so does `spoolctl sendmail ARGUMENTS`.
Exit codes follow sysexits.h: 64 usage, 65 data, 69 spooler not running, 75 try again later, 77 not permitted.";

const FLUSH_HELP: &str = "\
Flushes both directions unless one is given: outbound first, then inbound. Recipients that fail or are deferred are named, and the \
exit code is then 75. Ctrl-C stops the flush; queued messages are then delivered in the background as usual.";

/// Manage the spooler: its queue, its providers, its messages.
#[derive(Debug, Parser)]
#[command(name = "spoolctl", version, after_help = EXAMPLES)]
pub(super) struct Cli {
    /// The control socket [default: $SPOOLER_SOCKET, or /run/spooler/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Submit a message
    Submit(Submit),
    /// List and manage messages
    #[command(subcommand, after_help = "Options select messages; a message must match all of them.")]
    Queue(Queue),
    /// Show what became of messages that have left the queue, newest first
    Log(Log),
    /// Show the status of the spooler, its providers and its messages
    Status {
        /// Update continuously until Ctrl-C
        #[arg(long)]
        watch: bool,
        /// Print JSON; with --watch one document per line
        #[arg(long)]
        json: bool,
    },
    /// Deliver and fetch everything now, regardless of retry times, and show progress
    #[command(after_help = FLUSH_HELP)]
    Flush(Flush),
    /// List and manage providers
    #[command(subcommand)]
    Provider(Provider),
    /// Log a provider on and answer its questions; answers are kept in memory only. Ctrl-D cancels
    Logon {
        /// The provider
        name: String,
    },
    /// Check the state of all providers; failed ones are logged on again
    Validate {
        #[command(flatten)]
        how: ValidateOptions,
    },
    /// Stop delivering a message and remove its remaining recipients, without a bounce
    Cancel {
        /// Message number
        id: u64,
    },
    /// Show where the mail of a local name goes, alias by alias, with file and line
    Alias {
        /// A local name, or an address
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script: `spoolctl completions bash > /etc/bash_completion.d/spoolctl`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write manual pages
    Man {
        /// The folder to write to
        folder: PathBuf,
    },
    /// Behave like sendmail: `spoolctl sendmail -t < message`
    #[command(disable_help_flag = true)]
    Sendmail {
        /// Arguments of sendmail
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// The queues to flush, and whether to wait.
#[derive(Debug, Args)]
pub(super) struct Flush {
    /// Only this provider's queues
    pub(super) provider: Option<String>,
    /// Outbound only
    #[arg(long)]
    pub(super) outbound: bool,
    /// Inbound only
    #[arg(long)]
    pub(super) inbound: bool,
    /// Start the flush and return at once
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Stop all running flushes
    #[arg(long, conflicts_with = "no_wait")]
    pub(super) stop: bool,
}

#[derive(Debug, Args)]
pub(super) struct Submit {
    /// The return path; `<>` for none [default: you]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Option<String>,
    /// A recipient, with its type if it is not mail: FAX:+15551212; may be given more than once
    #[arg(long, value_name = "ADDRESS", required_unless_present = "read_recipients")]
    pub(super) to: Vec<String>,
    /// Take recipients from To, Cc and Bcc
    #[arg(short = 't', long)]
    pub(super) read_recipients: bool,
    /// How urgent it is
    #[arg(long, value_parser = word::<Priority>(&["urgent", "normal", "non-urgent"]), default_value = "normal")]
    pub(super) priority: Priority,
    /// Pass the message on with its header unchanged
    #[arg(long)]
    pub(super) as_is: bool,
    /// The message; `-` is standard input
    #[arg(default_value = "-")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum Queue {
    /// List messages, oldest first
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// Show at most COUNT messages
        #[arg(long, value_name = "COUNT")]
        limit: Option<u64>,
        /// Print JSON, one document per line
        #[arg(long)]
        json: bool,
    },
    /// Count messages by state
    Count {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one message in detail
    Show {
        /// Message number
        id: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the content of a message
    Cat {
        /// Message number
        id: u64,
    },
    /// Hold messages until they are released
    Hold(Action),
    /// Release messages that are held or in quarantine
    Release(Action),
    /// Try messages now, regardless of retry times and of an offline provider
    Retry(Action),
    /// Delete messages, without a bounce
    Delete(Action),
}

#[derive(Debug, Args)]
pub(super) struct Action {
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Every message
    #[arg(long)]
    pub(super) all: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The messages to select.
#[derive(Clone, Debug, Args)]
pub(super) struct Chosen {
    /// Message numbers
    ids: Vec<u64>,
    /// Messages of this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Messages with TEXT in a recipient
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// Messages with TEXT in the sender; `<>` is the null sender
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// Messages in this state
    #[arg(long, value_parser = word::<MessageState>(&["ready", "in-flight", "deferred", "held", "quarantined"]))]
    state: Option<MessageState>,
    /// Messages older than SPAN, such as 90s, 2h or 5d
    #[arg(long, value_name = "SPAN", value_parser = units::duration)]
    older: Option<Duration>,
}

impl Chosen {
    /// The filter; `None` if nothing restricts it.
    pub(super) fn filter(&self) -> Option<Filter> {
        let ids: Vec<String> = self.ids.iter().map(u64::to_string).collect();
        let filter = Filter {
            ids: (!ids.is_empty()).then(|| ids.join(",")),
            provider: self.provider.clone(),
            to: self.to.clone(),
            from: self.from.clone(),
            state: self.state,
            older_s: self.older.map(|older| older.as_secs()),
            limit: None,
        };
        (filter != Filter::default()).then_some(filter)
    }
}

/// Which messages that have left the queue; all options that are given hold together.
#[derive(Debug, Args)]
pub(super) struct Log {
    /// The message with this number
    #[arg(long, value_name = "NUMBER")]
    id: Option<u64>,
    /// With this text in a recipient, as it is or as the sender had written it
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// With this text in the sender; `<>` for none
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// This became of a recipient
    #[arg(long, value_parser = word::<Fate>(&["delivered", "relayed", "failed", "cancelled", "discarded"]))]
    state: Option<Fate>,
    /// A recipient was served, or tried last, by this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Ended no longer ago than this, such as 90s, 2h or 5d
    #[arg(long, value_name = "SPAN", value_parser = units::duration)]
    since: Option<Duration>,
    /// At most so many [default: 50; with --follow 10; with --json all]
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Then show each message that ends, oldest first, until Ctrl-C
    #[arg(long)]
    pub(super) follow: bool,
    /// As JSON, one document a line
    #[arg(long)]
    pub(super) json: bool,
}

impl Log {
    /// What is asked for at this time.
    pub(super) fn filter(&self, now_ms: i64) -> HistoryFilter {
        let ago_ms = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        HistoryFilter {
            id: self.id,
            to: self.to.clone(),
            from: self.from.clone(),
            state: self.state,
            provider: self.provider.clone(),
            since_ms: self.since.map(|since| now_ms.saturating_sub(ago_ms(since))),
            after: None,
            limit: self.limit,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Provider {
    /// List providers
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restart the worker of a provider, even one that has failed
    Restart {
        /// The provider
        name: String,
    },
    /// Show one provider in detail: state, sandbox, resources, limits
    Show {
        /// The provider
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Pause a provider: it finishes its deliveries and gets no more
    Pause {
        /// The provider
        name: String,
    },
    /// Resume a paused provider
    Resume {
        /// The provider
        name: String,
    },
    /// Check the state of a provider; a failed one is logged on again
    Validate {
        /// The provider
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// Every provider
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        how: ValidateOptions,
    },
}

/// What else a provider does while its state is checked.
#[derive(Debug, Args)]
pub(super) struct ValidateOptions {
    /// Its external settings have changed: ask again which addresses it serves
    #[arg(long)]
    config_changed: bool,
    /// Connect, even if `no_connect` is set
    #[arg(long, conflicts_with = "disconnect")]
    connect: bool,
    /// Close the connection, and make no more
    #[arg(long)]
    disconnect: bool,
    /// Fetch the headers of remote messages again
    #[arg(long)]
    refresh_headers: bool,
    /// Process what is marked in the headers
    #[arg(long)]
    process_headers: bool,
    /// Stop processing headers
    #[arg(long)]
    abort_headers: bool,
}

impl ValidateOptions {
    /// The flags of ValidateState. There is nobody whom a provider could ask.
    pub(super) fn flags(&self) -> ValidateFlags {
        let wishes = [
            (self.config_changed, ValidateFlags::CONFIG_CHANGED),
            (self.connect, ValidateFlags::CONNECT),
            (self.disconnect, ValidateFlags::DISCONNECT),
            (self.refresh_headers, ValidateFlags::REFRESH_HEADERS),
            (self.process_headers, ValidateFlags::PROCESS_HEADERS),
            (self.abort_headers, ValidateFlags::ABORT_HEADERS),
        ];
        wishes.iter().filter(|(on, _)| *on).fold(ValidateFlags::SUPPRESS_UI, |flags, (_, flag)| flags | *flag)
    }
}

/// Reads one of a few words as the type that has them in JSON.
fn word<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value::<T>(word.into()))
}

/// The command line for completions and manual pages.
pub(super) fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs the command.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => commands::run(cli).map_or_else(|failure| failure.report("spoolctl"), |()| ExitCode::SUCCESS),
        Err(error) => {
            // Help and version are not errors.
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("spoolctl").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn filters_come_from_options() {
        let Command::Queue(Queue::List { chosen, limit, .. }) =
            parse("queue list 3 4 --provider relay --state in-flight --older 1h30m --limit 5").unwrap().command
        else {
            panic!("not a listing");
        };
        let expected = Filter {
            ids: Some("3,4".to_owned()),
            provider: Some("relay".to_owned()),
            state: Some(MessageState::InFlight),
            older_s: Some(5400),
            ..Filter::default()
        };
        assert_eq!((chosen.filter(), limit), (Some(expected), Some(5)));
    }

    #[test]
    fn nothing_chosen_is_no_filter() {
        let Command::Queue(Queue::Delete(action)) = parse("queue delete").unwrap().command else {
            panic!("not a delete")
        };
        assert_eq!(action.chosen.filter(), None);
    }

    #[test]
    fn validating_takes_one_provider_or_all() {
        let Command::Provider(Provider::Validate { name, how, .. }) =
            parse("provider validate line --connect --refresh-headers").unwrap().command
        else {
            panic!("not a validation");
        };
        let flags = ValidateFlags::SUPPRESS_UI | ValidateFlags::CONNECT | ValidateFlags::REFRESH_HEADERS;
        assert_eq!((name.as_deref(), how.flags()), (Some("line"), flags));
        for line in ["provider validate", "provider validate x --all", "validate --connect --disconnect"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("provider validate --all").is_ok() && parse("validate").is_ok());
    }

    #[test]
    fn mistakes_are_refused() {
        for line in
            ["", "submit --from a@b", "queue list --state odd", "queue list --older 5", "queue show x", "cancel"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("submit -t").is_ok());
    }
}
