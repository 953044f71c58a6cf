//! How long a unit waits for others to go into the same commit: pure.
//!
//! | what waits | how long |
//! |---|---|
//! | one message, after a commit with one message | not at all: its sender is alone and waits for the answer |
//! | several messages, or one where there were several before | until as many have come as lately, or nothing more for [`QUIET`]; at most [`MESSAGES_MAX`] |
//! | only what became of deliveries, for which nobody waits | [`RESULTS_MAX`], or until a message comes |
//!
//! With many senders a commit costs each of them less than it would alone, so waiting a little makes all of them faster.

use std::time::{Duration, Instant};

/// Senders that come at all come within so long.
const QUIET: Duration = Duration::from_micros(600);
/// But no message waits longer than this.
const MESSAGES_MAX: Duration = Duration::from_millis(4);
/// A crash within this time delivers a message again.
const RESULTS_MAX: Duration = Duration::from_millis(10);

/// What gathers for one commit.
#[derive(Debug, Default)]
pub(super) struct Company {
    messages: usize,
    /// As many as lately came together: a few fewer after each commit that had fewer.
    expected: usize,
    began: Option<Instant>,
    last: Option<Instant>,
}

impl Company {
    /// The first unit of a commit.
    pub(super) fn begin(&mut self, now: Instant, is_message: bool) {
        // Commits of results alone say nothing about the senders.
        if self.messages > 0 {
            let missing = self.expected.saturating_sub(self.messages);
            self.expected = self.messages.max(self.expected - missing.div_ceil(4));
        }
        self.messages = 0;
        self.began = Some(now);
        self.join(now, is_message);
    }

    /// One more.
    pub(super) fn join(&mut self, now: Instant, is_message: bool) {
        if is_message && self.messages == 0 {
            self.began = Some(now);
        }
        self.messages += usize::from(is_message);
        self.last = Some(now);
    }

    /// Until when it pays to wait for the next one; `None` if it does not.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        let (began, last) = (self.began?, self.last?);
        let until = match (self.messages, self.expected) {
            (0, _) => began + RESULTS_MAX,
            (1, 0 | 1) => return None,
            (messages, expected) if expected > 1 && messages >= expected => return None,
            _ => (last + QUIET).min(began + MESSAGES_MAX),
        };
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_alone_does_not_wait() {
        let mut company = Company::default();
        let now = Instant::now();
        company.begin(now, true);
        assert_eq!(company.wait_until(now), None);
        company.join(now, false);
        assert_eq!(company.wait_until(now), None, "results are welcome and not waited for");
    }

    #[test]
    fn messages_in_company_wait_for_a_quiet_moment_and_not_for_ever() {
        let mut company = Company::default();
        let start = Instant::now();
        company.begin(start, true);
        company.join(start, true);
        assert_eq!(company.wait_until(start), Some(start + QUIET));
        let mut now = start;
        while now < start + MESSAGES_MAX {
            company.join(now, true);
            now += QUIET / 2;
        }
        assert_eq!(company.wait_until(now), None);
        company.begin(now, true);
        assert!(company.wait_until(now).is_some(), "there were several before");
    }

    #[test]
    fn when_all_have_come_nobody_waits_longer() {
        let mut company = Company::default();
        let now = Instant::now();
        company.begin(now, true);
        (0..9).for_each(|_| company.join(now, true));
        company.begin(now, true);
        (0..8).for_each(|_| company.join(now, true));
        assert!(company.wait_until(now).is_some(), "one is missing");
        company.join(now, true);
        assert_eq!(company.wait_until(now), None);
        for _ in 0..20 {
            company.begin(now, true);
        }
        assert_eq!(company.wait_until(now), None, "who has gone is forgotten");
    }

    #[test]
    fn results_wait_for_a_message() {
        let mut company = Company::default();
        let now = Instant::now();
        company.begin(now, false);
        assert_eq!(company.wait_until(now), Some(now + RESULTS_MAX));
        company.join(now + QUIET, true);
        assert_eq!(company.wait_until(now + QUIET), None);
    }
}
