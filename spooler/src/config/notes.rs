//! What is wrong with a configuration, collected while it is read.

use std::fmt;
use std::path::PathBuf;

use spooler_protocol::settings::{Effective, Findings};

use super::places::Places;

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; `None` if it is about the file as a whole.
    pub line: Option<usize>,
    /// What, and what is allowed.
    pub message: String,
    /// Whether it is this machine's trouble and may pass, rather than a mistake in the file.
    pub may_pass: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// Why a configuration cannot be used: everything that is wrong with it, in the order of the file, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// An error about a file as a whole.
    pub(super) fn whole_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let problem = Problem { file: file.into(), line: None, message: message.into(), may_pass: false };
        Self { problems: vec![problem] }
    }

    /// Whether the same file may do at another time: nothing in it is known to be wrong.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.problems.iter().all(|problem| problem.may_pass)
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// Mistakes and warnings of one file, with their lines.
#[derive(Debug)]
pub(super) struct Notes {
    file: PathBuf,
    places: Places,
    mistakes: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Notes {
    /// Nothing is wrong so far.
    pub(super) fn new(file: PathBuf, places: Places) -> Self {
        Self { file, places, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// Where the keys stand.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Notes a mistake at a key. The message goes on from the key (`is 5; allowed are …`) or stands for itself.
    pub(super) fn mistake(&mut self, key: &str, message: &str) {
        let problem = self.problem(key, about(key, message));
        self.mistakes.push(problem);
    }

    /// Notes that something could not be checked, which may be possible later.
    pub(super) fn trouble(&mut self, key: &str, message: &str) {
        let problem = self.problem(key, about(key, message));
        self.mistakes.push(Problem { may_pass: true, ..problem });
    }

    /// Notes a mistake in one value of a list.
    pub(super) fn mistake_in_list(&mut self, key: &str, index: usize, message: &str) {
        let problem = self.problem(&format!("{key}.{index}"), about(key, message));
        self.mistakes.push(problem);
    }

    /// Notes something that works, but perhaps not as it is meant.
    pub(super) fn warn(&mut self, key: &str, message: String) {
        let problem = self.problem(key, message);
        self.warnings.push(problem);
    }

    /// Takes the mistakes of a table whose name is `prefix` (with its dot; empty for the whole file), and gives back its values with
    /// their whole names.
    pub(super) fn take(&mut self, prefix: &str, findings: Findings) -> Vec<Effective> {
        for mistake in findings.mistakes {
            self.mistake(&format!("{prefix}{}", mistake.key), &mistake.message);
        }
        let named = |value: Effective| Effective { key: format!("{prefix}{}", value.key), ..value };
        findings.effective.into_iter().map(named).collect()
    }

    fn problem(&self, key: &str, message: String) -> Problem {
        Problem { file: self.file.clone(), line: self.places.line(key), message, may_pass: false }
    }

    /// Ends collecting: the warnings, or the error if there was any mistake.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, ConfigError> {
        self.warnings.sort_by_key(|problem| problem.line);
        self.mistakes.sort_by_key(|problem| problem.line);
        if self.mistakes.is_empty() { Ok(self.warnings) } else { Err(ConfigError { problems: self.mistakes }) }
    }
}

/// `retry.first is "x"` if the message is the rest of a sentence; `retry.first: "x" is no duration` if it is one.
fn about(key: &str, message: &str) -> String {
    if key.is_empty() {
        return message.to_owned();
    }
    let goes_on = message.starts_with(|c: char| c.is_lowercase());
    if goes_on { format!("{key} {message}") } else { format!("{key}: {message}") }
}
