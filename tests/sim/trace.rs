//! What happened, in lines; kept only when somebody wants to read it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 600;

/// The last lines of what happened.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Lines kept; 0 for none, which costs nothing.
    keep: usize,
    lines: VecDeque<String>,
    print: bool,
    hash: u64,
}

impl Trace {
    /// A trace that keeps so many lines, and prints them all as they come.
    pub(crate) fn new(keep: usize, print: bool) -> Self {
        Self { keep, lines: VecDeque::new(), print, hash: 0 }
    }

    /// Notes something.
    pub(crate) fn note(&mut self, step: u64, now_ms: i64, sign: &str, what: &dyn Debug) {
        if self.keep == 0 && !self.print {
            return;
        }
        let mut text = format!("{what:?}");
        let mut hasher = DefaultHasher::new();
        (self.hash, now_ms, sign, &text).hash(&mut hasher);
        self.hash = hasher.finish();
        text.truncate(text.floor_char_boundary(LINE_CHARS_MAX));
        let line = format!("{step:>6} {:>9.3} {sign} {text}", (now_ms - 1_000_000) as f64 / 1000.0);
        if self.print {
            println!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > self.keep {
            self.lines.pop_front();
        }
    }

    /// The last lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }

    /// One number for everything that was noted.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
