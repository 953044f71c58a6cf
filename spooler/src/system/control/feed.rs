//! Lines for all who watch the status table: made once by the loop, read by each at its own pace.
//!
//! The loop never waits for a reader. Who falls behind by more than [`LINES_KEPT`] lines has lost some, and asks for a snapshot instead.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use spooler_protocol::watching::StatusUpdate;
use tokio::sync::broadcast;

use super::desk::json_line;
use super::refusal::Refusal;

/// Lines that a slow reader may be behind.
pub const LINES_KEPT: usize = 64;

/// One line; turned into JSON by the first who reads it, not by the loop.
#[derive(Debug)]
pub struct Line {
    update: StatusUpdate,
    text: OnceLock<Bytes>,
}

impl Line {
    /// A line that brings this.
    #[must_use]
    pub fn new(update: StatusUpdate) -> Self {
        Self { update, text: OnceLock::new() }
    }

    pub(super) fn text(&self) -> Result<Bytes, Refusal> {
        if let Some(text) = self.text.get() {
            return Ok(text.clone());
        }
        let mut text = Vec::new();
        json_line(&self.update, &mut text)?;
        Ok(self.text.get_or_init(|| Bytes::from(text)).clone())
    }
}

/// What a client that begins to watch gets: the table now, and every change from here on.
#[derive(Debug)]
pub struct Subscription {
    /// The table.
    pub snapshot: Line,
    /// What changes.
    pub changes: broadcast::Receiver<Arc<Line>>,
}

/// The loop's end.
#[derive(Debug)]
pub struct Feed {
    lines: broadcast::Sender<Arc<Line>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { lines: broadcast::Sender::new(LINES_KEPT) }
    }
}

impl Feed {
    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    /// Somebody more watches, from this snapshot on.
    #[must_use]
    pub fn subscribe(&self, snapshot: StatusUpdate) -> Subscription {
        Subscription { snapshot: Line::new(snapshot), changes: self.lines.subscribe() }
    }

    /// Hands a line to everybody who watches.
    pub fn publish(&self, update: StatusUpdate) {
        // Whoever has just left does not miss it.
        let _ = self.lines.send(Arc::new(Line::new(update)));
    }
}
