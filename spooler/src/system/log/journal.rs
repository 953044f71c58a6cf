//! journald's native protocol: one datagram a line, each with its fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! The crates for it fit either tracing or nothing else: none takes a `MESSAGE_ID` for each line, or another socket for tests. What is
//! needed of the protocol is the dozen lines of [`push_field`].

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::stat::fstat;
use spooler_protocol::plain::plain;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{priority_of, stderr};
use crate::mail_log::Priority;
use crate::mail_log::journal_name;
use crate::mail_log::text::printable;

/// The socket of journald.
const SOCKET: &str = "/run/systemd/journal/socket";
/// For tests: another socket.
const SOCKET_VARIABLE: &str = "SPOOLER_JOURNAL_SOCKET";
/// Bytes of a field. With it every line fits into a datagram, whose default limit is 208 KiB.
const FIELD_BYTES_MAX: usize = 8 * 1024;

/// The way to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

/// Whether stderr is a stream that the journal reads: systemd tells by `JOURNAL_STREAM` which one it has opened (systemd.exec(5)).
pub(super) fn reads_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr().as_fd()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

impl Journal {
    /// `None` where there is no socket.
    pub(super) fn open() -> Option<Self> {
        let path = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
        let socket = UnixDatagram::unbound().ok().filter(|_| path.exists())?;
        Some(Self { socket, path })
    }

    /// Sends a line. The address is looked up each time: journald may have been started anew.
    ///
    /// # Errors
    /// If journald does not take it.
    pub(super) fn send<V: AsRef<str>>(
        &self,
        priority: Priority,
        message: &str,
        fields: impl IntoIterator<Item = (String, V)>,
    ) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(1024);
        push_field("MESSAGE", message, &mut datagram);
        push_field("PRIORITY", &priority.number().to_string(), &mut datagram);
        push_field("SYSLOG_IDENTIFIER", "spooler", &mut datagram);
        for (name, value) in fields {
            push_field(&name, value.as_ref(), &mut datagram);
        }
        self.socket.send_to(&datagram, &self.path).map(drop)
    }
}

/// `NAME=value` and the end of the line; a value of several lines goes with its length.
fn push_field(name: &str, value: &str, out: &mut Vec<u8>) {
    let value = value.get(..value.floor_char_boundary(FIELD_BYTES_MAX)).unwrap_or_default();
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// Brings lines of tracing to the journal.
pub(super) struct JournalLayer {
    journal: Arc<Journal>,
}

impl JournalLayer {
    pub(super) fn new(journal: Arc<Journal>) -> Self {
        Self { journal }
    }
}

/// What a line of tracing says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut message = said.message;
        for (name, value) in &said.fields {
            let space = if message.is_empty() { "" } else { " " };
            let _ = write!(message, "{space}{name}={value}");
        }
        let message = plain(printable(&message));
        let priority = priority_of(event.metadata().level());
        let fields = said.fields.iter().map(|(name, value)| (journal_name(name), plain(printable(value))));
        if self.journal.send(priority, &message, fields).is_err() {
            let mut line = String::new();
            stderr::push_priority(priority, &mut line);
            eprintln!("{line}{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_lines_or_carry_their_length() {
        let mut out = Vec::new();
        push_field("A", "x=y", &mut out);
        push_field("B", "1\n2", &mut out);
        push_field("C", &"é".repeat(FIELD_BYTES_MAX), &mut out);
        assert!(out.starts_with(b"A=x=y\nB\n\x03\0\0\0\0\0\0\x001\n2\nC="));
        assert!(out.len() < FIELD_BYTES_MAX + 40 && std::str::from_utf8(&out).is_ok());
    }
}
