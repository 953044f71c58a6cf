//! When the supervisor hears of rows and of how far deliveries are. What lasts only for a moment is told to nobody.

use std::time::{Duration, Instant};

use super::Support;
use crate::delivery::PROGRESS_INTERVAL;

impl Support {
    /// How far some delivery is has changed.
    pub(crate) fn tell_progress_soon(&self) {
        if self.inner.progress_due.get().is_none() {
            self.inner.progress_due.set(Some(Instant::now() + PROGRESS_INTERVAL));
        }
    }

    /// Tells how far deliveries are when it is time to, and says in how long it is time next.
    pub(crate) fn tell_progress(&self) -> Option<Duration> {
        let left = self.inner.progress_due.get()?.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Some(left);
        }
        self.inner.progress_due.set(None);
        for (&delivery, state) in &*self.inner.deliveries.borrow() {
            state.tell_progress(delivery, |said| self.send(said));
        }
        None
    }

    /// Sends the words about rows that are due, and says in how long the next one is.
    pub(crate) fn tell_rows(&self) -> Option<Duration> {
        let now_us = self.now_us();
        loop {
            let due = self.inner.rows.borrow_mut().due(now_us);
            match due {
                Some((row, update)) => self.send_row(row, update),
                None => break,
            }
        }
        let next_us = self.inner.rows.borrow().next_us()?;
        Some(Duration::from_micros(next_us.saturating_sub(now_us)))
    }
}
