//! When to try again, and when to give up.

use std::time::Duration;

use crate::policy::jitter::Jitter;

/// How a provider's deliveries are retried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPlan {
    /// Until the second attempt, milliseconds.
    pub first_ms: i64,
    /// Each further wait is so many times longer.
    pub factor: f64,
    /// But never longer than this, milliseconds.
    pub max_ms: i64,
    /// A recipient is given up at this age of the message, milliseconds.
    pub max_age_ms: i64,
    /// The sender is told of the delay at this age, milliseconds; never if `None`.
    pub delay_warning_ms: Option<i64>,
}

impl RetryPlan {
    /// From durations.
    #[must_use]
    pub fn new(
        first: Duration,
        factor: f64,
        max: Duration,
        max_age: Duration,
        delay_warning: Option<Duration>,
    ) -> Self {
        Self {
            first_ms: ms(first),
            factor,
            max_ms: ms(max),
            max_age_ms: ms(max_age),
            delay_warning_ms: delay_warning.map(ms),
        }
    }

    /// The wait after so many attempts (from 1), with jitter of a quarter.
    #[must_use]
    pub fn wait_ms(&self, attempts: u32, jitter: &mut Jitter) -> i64 {
        let exponent = attempts.saturating_sub(1).min(64);
        let mut wait = self.first_ms as f64;
        for _ in 0..exponent {
            wait = (wait * self.factor).min(self.max_ms as f64);
        }
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and max_ms, which is an i64")]
        let wait_ms = wait.min(self.max_ms as f64) as i64;
        jitter.around_ms(wait_ms)
    }
}

/// Milliseconds of a duration, as far as 64 bits reach.
#[must_use]
pub fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let minute = Duration::from_secs(60);
        let plan = RetryPlan::new(minute, 2.0, minute * 60, minute * 7200, None);
        let mut jitter = Jitter::new(7);
        for (attempts, expected) in [(1, 60_000), (2, 120_000), (3, 240_000), (7, 3_600_000), (1000, 3_600_000)] {
            let wait = plan.wait_ms(attempts, &mut jitter);
            assert!((expected * 3 / 4..=expected * 5 / 4).contains(&wait), "after {attempts}: {wait}");
        }
    }
}
