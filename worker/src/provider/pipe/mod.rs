//! Provider kind `pipe`: hands each message to a program.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `command` | required | program and arguments, with `{sender}`, `{recipient}`, `{local}`, `{domain}`, `{id}`, `{size}` |
//! | `shell` | `false` | `command` is one text for `/bin/sh -c`; values come in the environment only |
//! | `user`, `group` | none | run as, the worker and its programs; needs root |
//! | `environment` | none | a table of variables; there are no others but those below |
//! | `directory` | `"/"` | where the program runs |
//! | `timeout` | `"5m"` | then SIGTERM, 5 s later SIGKILL, to its whole process group |
//! | `per_recipient` | `true` | one run for each recipient; else one for up to 100 of them |
//! | `credit` | 4 | messages, and programs, at once |
//! | `line_ends` | `"lf"` | `"lf"` or `"crlf"` |
//! | `from_line` | `false` | `From sender date` in front and an empty line at the end, as in an mbox file; lines that begin with `From ` get a `>` (mboxrd) |
//! | `return_path`, `delivered_to` | `true` | those headers in front, and no other `Return-Path`; the second only for a single recipient |
//! | `null_sender` | `"MAILER-DAEMON"` | what `{sender}` is for the null sender |
//!
//! Variables: `PATH`, `PROVIDER`, `HOSTNAME`, `MESSAGE_ID` (the number in the queue), `MESSAGE_SIZE`, `SENDER`, `RECIPIENT` (several
//! are separated by line feeds), and for a single recipient `RECIPIENT_TYPE`, `LOCAL` and `DOMAIN`. `TMPDIR` is a folder of the run, removed
//! after it.
//!
//! Standard input is the whole message, read-only and seekable; a program need not read it. Its exit code says what became of it, see the table in `verdict`; the
//! last lines that it wrote to standard error, or else to standard output, say why.

mod command;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
// Runs a program without holding up others; the filters use it, too.
pub(crate) mod run;
mod tail;
// How a program ended, and what that means.
pub(crate) mod verdict;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use spooler_protocol::from_worker::LogonError;
use spooler_protocol::message::Recipient;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::settings::{Referent, Settings};
use tokio::sync::Semaphore;

use self::command::{CommandLine, Values};
use self::run::{Program, not_kept};
use crate::contract::{Capacity, Provider};
use crate::delivery::Delivery;
use crate::probe::{Probe, Probed};
use crate::provider::local::account::Account;
use crate::provider::local::form::{Front, LineEnds};
use crate::provider::local::last_form::{LastForm, Rules};
use crate::provider::local::parts::Parts;
use crate::sandbox::{Identity, Needs};
use crate::scratch::Draft;
use crate::support::Support;

/// Recipients of one run. Keeps the command line and the variable `RECIPIENT` far below what the kernel takes.
const RECIPIENTS_PER_RUN_MAX: usize = 100;

/// Programs at once. Each takes a thread that waits for its end; tokio has 512 of them.
const PROGRAMS_MAX: u32 = 256;

const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The settings of a [`Pipe`].
#[derive(Debug)]
pub struct PipeSettings {
    command: Option<CommandLine>,
    user: Option<String>,
    group: Option<String>,
    environment: Vec<(String, String)>,
    directory: String,
    timeout: Duration,
    per_recipient: bool,
    credit: u32,
    ends: LineEnds,
    from_line: bool,
    return_path: bool,
    delivered_to: bool,
    null_sender: String,
}

/// The provider.
#[derive(Debug)]
pub struct Pipe {
    command: CommandLine,
    account: Option<Account>,
    settings: PipeSettings,
    provider: String,
    hostname: String,
    programs: Semaphore,
}

impl Provider for Pipe {
    type Settings = PipeSettings;

    fn settings(settings: &mut Settings) -> PipeSettings {
        let command = read_command(settings);
        let environment = read_environment(settings);
        let directory = settings.string("directory", "/");
        if !directory.starts_with('/') || directory.contains('\0') {
            settings.mistake("directory", format!("is {directory:?}; give an absolute path"));
        }
        let timeouts = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
        let ends = settings.choice("line_ends", "lf", &[("lf", LineEnds::Lf), ("crlf", LineEnds::Crlf)]);
        PipeSettings {
            command,
            user: settings.optional_string("user"),
            group: settings.optional_string("group"),
            environment,
            directory,
            timeout: settings.silence("timeout", "5m", timeouts),
            per_recipient: settings.boolean("per_recipient", true),
            credit: settings.integer("credit", 4, 1..=PROGRAMS_MAX),
            ends: ends.unwrap_or(LineEnds::Lf),
            from_line: settings.boolean("from_line", false),
            return_path: settings.boolean("return_path", true),
            delivered_to: settings.boolean("delivered_to", true),
            null_sender: settings.string("null_sender", "MAILER-DAEMON"),
        }
    }

    fn usual_types() -> Option<&'static [&'static str]> {
        Some(&[])
    }

    fn needs(settings: &PipeSettings) -> Needs {
        // The worker becomes the user of its programs. What is wrong with the user is said at the logon.
        let account = Account::of_settings(settings.user.as_deref(), settings.group.as_deref()).ok().flatten();
        let of = |account: Account| Identity::User { uid: account.uid.as_raw(), gid: account.gid.as_raw() };
        Needs { programs: true, identity: account.map_or(Identity::Own, of), ..Needs::default() }
    }

    async fn probe(settings: PipeSettings, probe: Rc<Probe>) -> Probed {
        match &settings.command {
            Some(command) => probe.program(command.program()),
            None => Probed::Nothing("it has no command"),
        }
    }

    async fn logon(support: Support, mut settings: PipeSettings) -> Result<Self, LogonError> {
        let missing = || LogonError::Unconfigured("command is missing".to_owned());
        let command = settings.command.take().ok_or_else(missing)?;
        let account = Account::of_settings(settings.user.as_deref(), settings.group.as_deref())
            .map_err(|error| LogonError::Unconfigured(error.to_string()))?;
        Ok(Self {
            command,
            account: account.filter(|account| !account.is_ours()),
            provider: support.provider_name().to_owned(),
            hostname: support.hostname().to_owned(),
            programs: Semaphore::new(usize::try_from(settings.credit).unwrap_or(1)),
            settings,
        })
    }

    fn address_types(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> String {
        self.command.program().to_owned()
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: self.settings.credit, ..Capacity::default() }
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let values = self.values(delivery);
        if let Err(error) = self.command.check_sender(&values) {
            delivery.settle_all(&Outcome::Failed(Reply::local(553, "5.1.7", format!("Sender: {error}"))));
            return SubmitResult::Done;
        }
        let mut to_serve = Vec::new();
        for (index, recipient) in delivery.recipients().iter().enumerate() {
            match self.command.check(&values, recipient) {
                Ok(()) => to_serve.push((index, recipient)),
                Err(error) => delivery.settle(index, Outcome::Failed(Reply::local(553, "5.1.3", error.to_string()))),
            }
        }
        let left_out = Cell::new(false);
        let serve = async |group: &[(usize, &Recipient)]| {
            let _program = self.programs.acquire().await;
            if delivery.is_cancelled() {
                left_out.set(true);
                return;
            }
            let recipients: Vec<&Recipient> = group.iter().map(|(_, recipient)| *recipient).collect();
            let outcome = self.run(delivery, &values, &recipients).await;
            for (index, _) in group {
                delivery.settle(*index, outcome.clone());
            }
        };
        let per_run = if self.settings.per_recipient { 1 } else { RECIPIENTS_PER_RUN_MAX };
        join_all(to_serve.chunks(per_run).map(serve)).await;
        if left_out.get() { SubmitResult::Cancelled } else { SubmitResult::Done }
    }
}

impl Pipe {
    fn values(&self, delivery: &Delivery) -> Values {
        let submission = delivery.submission();
        let sender = if submission.sender.is_empty() { &self.settings.null_sender } else { &submission.sender };
        Values { sender: sender.clone(), id: submission.message.to_string(), size: submission.size.to_string() }
    }

    async fn run(&self, delivery: &Delivery, values: &Values, recipients: &[&Recipient]) -> Outcome {
        // A program that needs temporary files of its own finds room for them, whatever is closed to it.
        let temporary = delivery.support().scratch().folder(self.account).ok();
        let mut environment = self.environment(delivery, recipients);
        if let Some(folder) = temporary.as_ref().filter(|_| !environment.iter().any(|(name, _)| *name == "TMPDIR")) {
            environment.push(("TMPDIR", folder.path().to_string_lossy().into_owned()));
        }
        let program = Program {
            path: self.command.program(),
            arguments: self.command.arguments(values, recipients),
            environment,
            directory: &self.settings.directory,
            account: self.account,
            limit: self.settings.timeout,
            output: None,
            support: delivery.support(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let front = Front {
            from_line: self.settings.from_line.then(|| i64::try_from(now.as_secs()).unwrap_or_default()),
            return_path: self.settings.return_path,
            delivered_to: self.settings.delivered_to,
        };
        let ends = self.settings.ends;
        let front = front.lines(delivery.submission(), recipients, ends);
        let rules = Rules { drop_return_path: self.settings.return_path, quote_from: self.settings.from_line };
        let form = LastForm::new(ends, rules);
        let ran = run::run(&program, async |input| feed(delivery, &front, form, input).await).await;
        verdict::outcome(&ran.ending, &ran.said, self.command.program())
    }

    fn environment(&self, delivery: &Delivery, recipients: &[&Recipient]) -> Vec<(&str, String)> {
        let submission = delivery.submission();
        let mut all = vec![("PATH", DEFAULT_PATH.to_owned())];
        all.extend(self.settings.environment.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let addresses: Vec<&str> = recipients.iter().map(|recipient| recipient.address.text()).collect();
        all.extend([
            ("PROVIDER", self.provider.clone()),
            ("HOSTNAME", self.hostname.clone()),
            ("MESSAGE_ID", submission.message.to_string()),
            ("MESSAGE_SIZE", submission.size.to_string()),
            ("SENDER", submission.sender.clone()),
            ("RECIPIENT", addresses.join("\n")),
        ]);
        if let [only] = recipients {
            let Parts { local, domain } = Parts::of(&only.address);
            all.extend([("RECIPIENT_TYPE", only.address.kind().to_owned()), ("LOCAL", local), ("DOMAIN", domain)]);
        }
        all
    }
}

fn read_command(settings: &mut Settings) -> Option<CommandLine> {
    let given = settings.has("command");
    let words = settings.strings("command", &[]);
    let shell = settings.boolean("shell", false);
    let command = CommandLine::parse(&words, shell);
    if let Ok(command) = &command
        && !shell
    {
        settings.refer("command", Referent::Program(command.program().into()));
    }
    if let Err(error) = &command {
        let missing = "is missing; give a list such as [\"/usr/bin/program\", \"{recipient}\"]";
        settings.mistake("command", if given { error.to_string() } else { missing.to_owned() });
    }
    command.ok()
}

fn read_environment(settings: &mut Settings) -> Vec<(String, String)> {
    let environment = settings.string_map("environment");
    for (name, value) in &environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            settings.mistake("environment", format!("holds {name:?}, which cannot be a variable"));
        }
    }
    environment
}

/// Writes the message that a program will read.
async fn feed(delivery: &Delivery, front: &[u8], mut form: LastForm, input: &mut Draft) -> Result<(), String> {
    input.write(front).map_err(not_kept)?;
    let (mut offset, mut out) = (0, Vec::new());
    while offset < delivery.submission().size {
        let piece = delivery.content(offset).await?;
        if piece.is_empty() {
            return Err(format!("the content ends at byte {offset}"));
        }
        offset += piece.len() as u64;
        form.convert(&piece, &mut out);
        input.write(&out).map_err(not_kept)?;
        delivery.progress("writing", offset);
    }
    out.clear();
    form.finish(&mut out);
    input.write(&out).map_err(not_kept)
}
