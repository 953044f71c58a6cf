//! The critical sections of this worker: which are open, and which the supervisor has ended.
//!
//! ```text
//!   begin ──▶ waiting ── CriticalGranted ──▶ in force ── dropped: CriticalEnd ──▶ gone
//!                │                              │
//!                └──────── CriticalEnded ───────┴──▶ void: dropping it says nothing
//! ```
//!
//! Every section has a number. So the end of a section whose time was up is never taken for that of a later one, on either side.

use std::collections::BTreeMap;

use tokio::sync::{oneshot, watch};

/// What a section waits for: whether the priority was raised, or why not.
type Granted = oneshot::Sender<Result<(), String>>;

/// The sections of a worker.
#[derive(Debug)]
pub(crate) struct Sections {
    /// Those that are open, with who waits for them to be in force.
    open: BTreeMap<u64, Option<Granted>>,
    /// The last one that the supervisor has ended.
    ended: watch::Sender<u64>,
}

impl Default for Sections {
    fn default() -> Self {
        Self { open: BTreeMap::new(), ended: watch::channel(0).0 }
    }
}

impl Sections {
    /// A section is asked for.
    pub(crate) fn begin(&mut self, section: u64) -> oneshot::Receiver<Result<(), String>> {
        let (sender, receiver) = oneshot::channel();
        self.open.insert(section, Some(sender));
        receiver
    }

    /// The supervisor has granted a section.
    pub(crate) fn granted(&mut self, section: u64, raised: Result<(), String>) {
        if let Some(waiting) = self.open.get_mut(&section).and_then(Option::take) {
            let _ = waiting.send(raised);
        }
    }

    /// The worker ends a section; whether the supervisor has to be told.
    pub(crate) fn end(&mut self, section: u64) -> bool {
        self.open.remove(&section).is_some()
    }

    /// The supervisor has ended sections; how many of ours.
    pub(crate) fn ended(&mut self, up_to: u64, why: &str) -> usize {
        let later = self.open.split_off(&up_to.saturating_add(1));
        let over = std::mem::replace(&mut self.open, later);
        self.ended.send_modify(|ended| *ended = up_to.max(*ended));
        let count = over.len();
        for waiting in over.into_values().flatten() {
            let _ = waiting.send(Err(why.to_owned()));
        }
        count
    }

    /// Tells of ends.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_supervisor_has_ended_is_not_ended_again() {
        let mut sections = Sections::default();
        let mut waiting = sections.begin(1);
        sections.granted(1, Ok(()));
        assert_eq!(waiting.try_recv(), Ok(Ok(())));
        drop((sections.begin(2), sections.begin(5)));
        assert_eq!(sections.ended(2, "time is up"), 2);
        assert!(!sections.end(1) && !sections.end(2), "those are void");
        assert!(sections.end(5), "this one is not");
        assert_eq!(*sections.watch().borrow(), 2);
    }

    #[test]
    fn who_waits_for_an_ended_section_hears_why() {
        let mut sections = Sections::default();
        let mut waiting = sections.begin(7);
        assert_eq!(sections.ended(7, "time is up"), 1);
        assert_eq!(waiting.try_recv(), Ok(Err("time is up".to_owned())));
        sections.granted(7, Ok(()));
    }
}
