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
  spoolctl queue list --state deferred          what waits, and why
  spoolctl log --to admin@example.org            what became of messages, newest first
  spoolctl queue delete --to spam.example --older 3d
  spoolctl flush relay                          work the queue of one provider off now
  spoolctl logon relay                          answer what a provider asks, such as a password
  spoolctl submit --from me@x --to FAX:+15551212 letter.eml

Also answers to the names sendmail, mailq and newaliases, and to `spoolctl sendmail ARGUMENTS`.
Exit codes are those of sysexits.h: 64 usage, 65 data, 69 no spooler, 75 try again later, 77 not allowed.";

const FLUSH_HELP: &str = "\
Without a direction both are meant: first what goes out, then what comes in. Ctrl-C ends a flush that is waited for; what is \
queued is then delivered in the background as ever.";

/// Look after the spooler: its queue, its providers, its messages.
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
    /// Hand a message over
    Submit(Submit),
    /// See messages and do something with them
    #[command(
        subcommand,
        after_help = "Without a number, options choose the messages; all that are given hold together."
    )]
    Queue(Queue),
    /// What became of messages that have left the queue, newest first
    Log(Log),
    /// What the spooler, its providers and its messages are doing
    Status {
        /// Go on showing it until Ctrl-C
        #[arg(long)]
        watch: bool,
        /// As JSON; with --watch one document a line
        #[arg(long)]
        json: bool,
    },
    /// Work queues off now, whatever the schedule says, and show how far it is until it is done
    #[command(after_help = FLUSH_HELP)]
    Flush(Flush),
    /// See providers and do something with them
    #[command(subcommand)]
    Provider(Provider),
    /// Log a provider on and answer what it asks; answers are kept in the spooler's memory only. Ctrl-D gives up
    Logon {
        /// The provider
        name: String,
    },
    /// Have all providers look after their state; those that have failed are logged on again
    Validate {
        #[command(flatten)]
        how: ValidateOptions,
    },
    /// Stop what is under way with a message and give up on recipients not served yet, without a report
    Cancel {
        /// Its number
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
        /// For which shell
        shell: Shell,
    },
    /// Write manual pages
    Man {
        /// Into this folder
        folder: PathBuf,
    },
    /// Be sendmail: `spoolctl sendmail -t < message`
    #[command(disable_help_flag = true)]
    Sendmail {
        /// What sendmail takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Which queues, and whether to wait.
#[derive(Debug, Args)]
pub(super) struct Flush {
    /// Only this provider's queues
    pub(super) provider: Option<String>,
    /// Only what goes out
    #[arg(long)]
    pub(super) outbound: bool,
    /// Only what comes in
    #[arg(long)]
    pub(super) inbound: bool,
    /// Begin it and leave; it goes on until it is done
    #[arg(long)]
    pub(super) no_wait: bool,
    /// End flushes that run, whoever began them
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
    /// Pass the message on with its header as it is: nothing is added, completed or removed
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
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u64>,
        /// As JSON, one document a line
        #[arg(long)]
        json: bool,
    },
    /// Everything about one message
    Show {
        /// Its number
        id: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// The message itself, as it is
    Cat {
        /// Its number
        id: u64,
    },
    /// Do not deliver until released
    Hold(Action),
    /// Deliver again what was held or set aside
    Release(Action),
    /// Try now, whatever the schedule says
    Retry(Action),
    /// Forget, without a report
    Delete(Action),
}

#[derive(Debug, Args)]
pub(super) struct Action {
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Every message
    #[arg(long)]
    pub(super) all: bool,
    /// Say how it went as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Which messages.
#[derive(Clone, Debug, Args)]
pub(super) struct Chosen {
    /// Numbers of messages
    ids: Vec<u64>,
    /// That go through this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// With this text in a recipient
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// With this text in the sender; `<>` for none
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// In this state
    #[arg(long, value_parser = word::<MessageState>(&["ready", "in-flight", "deferred", "held", "quarantined"]))]
    state: Option<MessageState>,
    /// Submitted longer ago than this, such as 90s, 2h or 5d
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
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Log its worker off and start another; also lifts a bar
    Restart {
        /// The provider
        name: String,
    },
    /// Everything about one: its row, its sandbox, what it needs of the machine, its limits
    Show {
        /// The provider
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let it finish what it has and give it nothing more
    Pause {
        /// The provider
        name: String,
    },
    /// Go on after a pause
    Resume {
        /// The provider
        name: String,
    },
    /// Have it look after its state; if it has failed, it is logged on again
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

/// What a provider is to do with its state, besides looking after it.
#[derive(Debug, Args)]
pub(super) struct ValidateOptions {
    /// Its settings outside have changed: it says again what it serves
    #[arg(long)]
    config_changed: bool,
    /// Connect at the next flush
    #[arg(long, conflicts_with = "disconnect")]
    connect: bool,
    /// Let the connection go
    #[arg(long)]
    disconnect: bool,
    /// Read the headers of what waits at the remote again
    #[arg(long)]
    refresh_headers: bool,
    /// Do what was marked in the headers
    #[arg(long)]
    process_headers: bool,
    /// Stop what runs because of the headers
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

/// Does what the command line says.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => commands::run(cli).map_or_else(|failure| failure.report("spoolctl"), |()| ExitCode::SUCCESS),
        Err(error) => {
            // Help and version are no mistakes.
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
