//! What must hold of the schedule between steps, whatever happened: its indexes and its messages say the same. It is only looked at by
//! tests and by the simulator; nothing is repaired here.

use std::collections::BTreeSet;

use super::{Part, Queue, Standing, Waiting};

impl Queue {
    /// Checks what must hold between steps; for tests and the simulator.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        let (mut deferred, mut callbacks) = (0, 0);
        let stopped = self.messages.values().filter(|entry| entry.standing != Standing::Active).count();
        assert_eq!(stopped as u64, self.stopped, "held and quarantined messages are counted");
        let quarantined = self.messages.values().filter(|entry| entry.standing == Standing::Quarantined).count();
        assert_eq!(quarantined as u64, self.quarantined, "quarantined messages are counted");
        for (id, entry) in &self.messages {
            // All recipients of a delivery may be settled before it ends.
            let empty =
                |part: &Part| part.recipients.as_slice().is_empty() && !matches!(part.waiting, Waiting::InFlight(_));
            assert!(!entry.parts.as_slice().iter().any(empty), "{id} has an empty part");
            let mut ways = BTreeSet::new();
            for part in entry.parts.as_slice().iter().filter(|part| !matches!(part.waiting, Waiting::InFlight(_))) {
                assert!(
                    part.route.is_none() || ways.insert(part.route),
                    "{id} has two parts that wait to go the same way"
                );
            }
            for part in entry.parts.as_slice() {
                let declined = part.not_me.as_ref().map_or(&[][..], |not_me| not_me.as_slice());
                let distinct: BTreeSet<_> = declined.iter().collect();
                assert_eq!(distinct.len(), declined.len(), "{id}: who declined it is noted once");
            }
            if entry.standing == Standing::Active {
                let parts = entry.parts.as_slice().iter();
                deferred += parts.clone().filter(|part| matches!(part.waiting, Waiting::Deferred { .. })).count();
                callbacks += parts.filter(|part| part.waiting == Waiting::Callback).count();
            }
        }
        assert_eq!(deferred, self.due.len(), "every deferred part is due some time, and nothing else is");
        assert_eq!(
            callbacks,
            self.callbacks.len(),
            "every part that a provider keeps can be asked for, and nothing else can"
        );
    }
}
