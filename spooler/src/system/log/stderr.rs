//! Lines of tracing on stderr: one line stays one line, and a journal that reads them finds the priority in front.

use std::fmt::Write as _;
use std::io::{self, Write};

use spooler_protocol::plain::plain;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::priority_of;
use crate::mail_log::Priority;
use crate::mail_log::text::printable;

/// Makes writers of lines.
#[derive(Clone, Copy)]
pub(super) struct StderrLines {
    pub(super) journal_reads: bool,
    /// Escape sequences of our own are in the lines.
    pub(super) colour: bool,
}

/// Writes one line: `tracing_subscriber` hands it over whole.
pub(super) struct StderrLine {
    priority: Option<Priority>,
    colour: bool,
}

/// Adds a priority as journals read it (sd-daemon(3)).
pub(super) fn push_priority(priority: Priority, out: &mut String) {
    let _ = write!(out, "<{}>", priority.number());
}

impl<'a> MakeWriter<'a> for StderrLines {
    type Writer = StderrLine;

    fn make_writer(&'a self) -> StderrLine {
        StderrLine { priority: self.journal_reads.then_some(Priority::Info), colour: self.colour }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> StderrLine {
        let priority = self.journal_reads.then(|| priority_of(metadata.level()));
        StderrLine { priority, colour: self.colour }
    }
}

impl StderrLine {
    fn line(&self, bytes: &[u8]) -> String {
        let text = plain(String::from_utf8_lossy(bytes));
        let (line, end) = text.strip_suffix('\n').map_or((text.as_str(), ""), |line| (line, "\n"));
        let mut out = String::with_capacity(line.len() + 8);
        if let Some(priority) = self.priority {
            push_priority(priority, &mut out);
        }
        if self.colour {
            out.push_str(&line.replace('\n', "\\n"));
        } else {
            out.push_str(printable(line).trim_start());
        }
        out.push_str(end);
        out
    }
}

impl Write for StderrLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(self.line(bytes).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracing_lines_stay_lines_with_priorities() {
        let line = |priority| StderrLine { priority, colour: false };
        assert_eq!(line(Some(Priority::Error)).line(b"ERROR a\nb\x1b[2J\n"), "<3>ERROR a\\u000ab\\u001b[2J\n");
        assert_eq!(line(None).line(b" WARN plain\n"), "WARN plain\n");
    }
}
