//! Who holds the token and for how long: pure, no clock and no I/O.
//!
//! ```text
//!            work turns up: Want            Grant
//!   without ────────────────────▶ wanting ────────▶ holding ──┐ keeps the token while asleep,
//!      ▲                             ▲                 │      │ as long as nobody recalls it
//!      │   nothing to do: Yield      │ more to do:     │◀─────┘
//!      └─────────────────────────────┴─ Yield ◀────────┘ slice used up, or recalled
//! ```

use spooler_protocol::ids::Token;

/// What the worker has to say after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Ask for a token.
    Want,
    /// Give the token back.
    Yield {
        /// Which.
        token: Token,
        /// Whether there is more to do at once.
        more: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Held {
    token: Token,
    slice_us: u64,
    /// What was used of the slice before the last sleep.
    used_us: u64,
    /// Since when it is being used without a sleep.
    since_us: Option<u64>,
    recalled: bool,
}

/// The token side of a worker.
#[derive(Debug, Default)]
pub struct Session {
    held: Option<Held>,
    wanting: bool,
    /// Critical sections that are open: the token is then given back only explicitly.
    critical: u32,
    /// Whether a flush runs: an explicit yield then keeps the token.
    flushing: bool,
}

impl Session {
    /// A worker without a token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether provider code may run.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.held.is_some()
    }

    /// Work turned up. Asks for a token once, if there is none.
    pub fn on_work(&mut self) -> Option<Say> {
        if self.held.is_some() || self.wanting {
            return None;
        }
        self.wanting = true;
        Some(Say::Want)
    }

    /// A token came.
    pub fn on_grant(&mut self, token: Token, slice_ms: u32) {
        self.wanting = false;
        self.held =
            Some(Held { token, slice_us: u64::from(slice_ms) * 1000, used_us: 0, since_us: None, recalled: false });
    }

    /// The token is asked back. `idle`: nothing could go on right now.
    pub fn on_recall(&mut self, token: Token, idle: bool) -> Option<Say> {
        let held = self.held.as_mut().filter(|held| held.token == token)?;
        held.recalled = true;
        if idle && self.critical == 0 { self.give_back(false) } else { None }
    }

    /// Provider code is about to run.
    pub fn on_run(&mut self, now_us: u64) {
        if let Some(held) = &mut self.held {
            held.since_us.get_or_insert(now_us);
        }
    }

    /// Provider code ran. `more`: it could go on at once.
    pub fn on_ran(&mut self, now_us: u64, more: bool) -> Option<Say> {
        let held = self.held.as_mut()?;
        let used_us = held.used_us + held.since_us.map_or(0, |since| now_us.saturating_sub(since));
        if self.critical > 0 {
            return None;
        }
        if used_us >= held.slice_us || (held.recalled && !more) {
            return self.give_back(more);
        }
        if !more {
            held.used_us = used_us;
            held.since_us = None;
        }
        None
    }

    /// The provider yields by itself. Gives the token back, also within a critical section, but not in a flush: there it need not
    /// yield, and the slice alone says for how long it may go on.
    pub fn on_explicit_yield(&mut self) -> Option<Say> {
        if self.flushing && self.critical == 0 { None } else { self.give_back(true) }
    }

    /// A flush begins (`true`), or none runs any more.
    pub fn on_flush(&mut self, begin: bool) {
        self.flushing = begin;
    }

    /// Whether a critical section is open.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.critical > 0
    }

    /// A critical section begins (`true`) or ends.
    pub fn on_critical(&mut self, begin: bool) {
        self.critical = if begin { self.critical + 1 } else { self.critical.saturating_sub(1) };
    }

    fn give_back(&mut self, more: bool) -> Option<Say> {
        let held = self.held.take()?;
        self.wanting = more;
        Some(Say::Yield { token: held.token, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE_MS: u32 = 200;

    fn holding() -> Session {
        let mut session = Session::new();
        assert_eq!(session.on_work(), Some(Say::Want));
        session.on_grant(Token(1), SLICE_MS);
        session
    }

    #[test]
    fn a_token_is_wanted_once() {
        let mut session = Session::new();
        assert_eq!(session.on_work(), Some(Say::Want));
        assert_eq!(session.on_work(), None);
        assert!(!session.may_run());
    }

    #[test]
    fn a_sleeping_worker_keeps_its_token_until_it_is_recalled() {
        let mut session = holding();
        session.on_run(0);
        assert_eq!(session.on_ran(10, false), None);
        assert!(session.may_run());
        assert_eq!(session.on_recall(Token(1), true), Some(Say::Yield { token: Token(1), more: false }));
        assert!(!session.may_run());
        assert_eq!(session.on_work(), Some(Say::Want));
    }

    #[test]
    fn the_slice_ends_at_its_length_and_sleep_does_not_count() {
        let mut session = holding();
        session.on_run(0);
        assert_eq!(session.on_ran(100_000, true), None);
        assert_eq!(session.on_ran(150_000, false), None);
        session.on_run(900_000);
        assert_eq!(session.on_ran(949_999, true), None);
        assert_eq!(session.on_ran(950_000, true), Some(Say::Yield { token: Token(1), more: true }));
        assert_eq!(session.on_work(), None, "a yield with more to do asks again by itself");
    }

    #[test]
    fn a_recalled_worker_gives_back_as_soon_as_it_waits() {
        let mut session = holding();
        session.on_run(0);
        assert_eq!(session.on_recall(Token(1), false), None);
        assert_eq!(session.on_ran(10, true), None);
        assert_eq!(session.on_ran(20, false), Some(Say::Yield { token: Token(1), more: false }));
    }

    #[test]
    fn the_recall_of_an_old_token_is_nothing() {
        let mut session = holding();
        assert_eq!(session.on_recall(Token(0), true), None);
        assert!(session.may_run());
    }

    #[test]
    fn in_a_critical_section_only_an_explicit_yield_gives_the_token_back() {
        let mut session = holding();
        session.on_critical(true);
        session.on_run(0);
        assert_eq!(session.on_ran(900_000, true), None);
        assert_eq!(session.on_recall(Token(1), true), None);
        assert_eq!(session.on_explicit_yield(), Some(Say::Yield { token: Token(1), more: true }));
    }

    #[test]
    fn in_a_flush_an_explicit_yield_keeps_the_token_and_the_slice_still_ends() {
        let mut session = holding();
        session.on_flush(true);
        assert_eq!(session.on_explicit_yield(), None);
        session.on_critical(true);
        assert_eq!(session.on_explicit_yield(), Some(Say::Yield { token: Token(1), more: true }));
        session.on_critical(false);
        session.on_grant(Token(2), SLICE_MS);
        session.on_run(0);
        assert_eq!(session.on_ran(200_000, true), Some(Say::Yield { token: Token(2), more: true }));
        session.on_grant(Token(3), SLICE_MS);
        session.on_flush(false);
        assert_eq!(session.on_explicit_yield(), Some(Say::Yield { token: Token(3), more: true }));
    }
}
