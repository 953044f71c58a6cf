//! Where the log goes: to the journal with fields where systemd has started us, else to stderr.
//!
//! ```text
//!  tracing ──SPOOLER_LOG──▶ ┐                      ┌▶ journal, native protocol: priority, MESSAGE_ID and SPOOLER_… fields
//!                           ├─ is stderr a stream ─┤
//!  mail log ───────────────▶┘  to the journal?     └▶ stderr: text or JSON; <N> in front where the journal reads it
//! ```
//!
//! `SPOOLER_LOG` is for what the programs say of themselves. The mail log is no matter of taste: every line of it is written.

mod journal;
mod stderr;

use std::io::Write;
use std::sync::Arc;

use spooler_protocol::plain::plain;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::mail_log::{Format, Line, Priority};
use journal::{Journal, JournalLayer};
use stderr::StderrLines;

/// Where and how lines are written.
#[derive(Clone)]
enum Target {
    Journal(Arc<Journal>),
    Stderr {
        /// A journal reads it, which wants the priority in front (sd-daemon(3)) and has the time.
        journal_reads: bool,
    },
}

/// The mail log. Lines for stderr gather until [`MailLog::flush`]: one call of the kernel for many.
pub struct MailLog {
    target: Target,
    format: Format,
    gathered: String,
}

/// Opens the log of this process, for everything that it has to say from now on. To be called once.
#[must_use]
pub fn start(format: Format) -> MailLog {
    let journal_reads = journal::reads_stderr();
    let target = match Journal::open().filter(|_| journal_reads) {
        Some(journal) => Target::Journal(Arc::new(journal)),
        None => Target::Stderr { journal_reads },
    };
    let filter = EnvFilter::try_from_env("SPOOLER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let fmt = tracing_subscriber::fmt::layer().with_target(false);
    let layer = match (&target, format) {
        (Target::Journal(journal), _) => JournalLayer::new(Arc::clone(journal)).boxed(),
        (Target::Stderr { journal_reads }, Format::Json) => fmt
            .json()
            .flatten_event(true)
            .with_writer(StderrLines { journal_reads: *journal_reads, colour: false })
            .boxed(),
        (Target::Stderr { journal_reads: true }, Format::Logfmt) => {
            let lines = StderrLines { journal_reads: true, colour: false };
            fmt.with_ansi(false).without_time().with_writer(lines).boxed()
        }
        (Target::Stderr { journal_reads: false }, Format::Logfmt) => {
            fmt.with_ansi(terminal).with_writer(StderrLines { journal_reads: false, colour: terminal }).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    MailLog { target, format, gathered: String::new() }
}

/// Says why this program ends, on stderr, with the priority of an error where a journal reads it.
pub fn complain(text: &str) {
    let mut line = String::new();
    if journal::reads_stderr() {
        stderr::push_priority(Priority::Error, &mut line);
    }
    line.push_str(&plain(text));
    line.push('\n');
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

impl MailLog {
    /// Changes how lines are written from now on.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Writes a line; to stderr with the next [`MailLog::flush`].
    pub fn write(&mut self, line: &Line<'_>) {
        if let Target::Journal(journal) = &self.target {
            let mut message = String::new();
            self.format_into(line, None, &mut message);
            let fields = line.journal_fields().chain([("MESSAGE_ID".to_owned(), line.kind.into())]);
            if journal.send(line.priority, &message, fields).is_ok() {
                return;
            }
        }
        // A journal that takes no fields now may still read stderr.
        let journal_reads = !matches!(self.target, Target::Stderr { journal_reads: false });
        let mut out = std::mem::take(&mut self.gathered);
        let time = (!journal_reads).then(|| format!("{:.6}", jiff::Timestamp::now()));
        if journal_reads {
            stderr::push_priority(line.priority, &mut out);
        }
        self.format_into(line, time.as_deref(), &mut out);
        out.push('\n');
        self.gathered = out;
    }

    fn format_into(&self, line: &Line<'_>, time: Option<&str>, out: &mut String) {
        match self.format {
            Format::Json => line.json(time, out),
            Format::Logfmt => {
                if let Some(time) = time {
                    out.push_str(time);
                    out.push(' ');
                }
                line.logfmt(out);
            }
        }
    }

    /// Brings out what has gathered.
    pub fn flush(&mut self) {
        if !self.gathered.is_empty() {
            // There is nobody to tell that the log cannot be written.
            let _ = std::io::stderr().lock().write_all(self.gathered.as_bytes());
            self.gathered.clear();
        }
    }
}

impl Drop for MailLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How urgent a line of tracing is.
fn priority_of(level: &tracing::Level) -> Priority {
    match *level {
        tracing::Level::ERROR => Priority::Error,
        tracing::Level::WARN => Priority::Warning,
        tracing::Level::INFO => Priority::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Priority::Debug,
    }
}
