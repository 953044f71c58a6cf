//! Who may use a scarce resource, such as a modem: one provider at a time, in the order in which they asked.
//!
//! ```text
//!           ask                first in line, free            release, death
//!   nobody ─────▶ in the line ─────────────────────▶ holder ─────────────────▶ nobody
//! ```
//!
//! Nothing is taken away from a holder: that it comes to an end when others wait is the flush's business, which asks
//! [`Leases::wanted_since_ms`].

use std::collections::{BTreeMap, VecDeque};

use crate::policy::ProviderId;

#[derive(Debug, Default)]
struct Lease {
    holder: Option<(ProviderId, i64)>,
    line: VecDeque<ProviderId>,
}

/// Every resource that somebody holds or waits for. A provider has to do with one resource at most.
#[derive(Debug, Default)]
pub struct Leases {
    resources: BTreeMap<String, Lease>,
}

impl Leases {
    /// A provider wants a resource, and gets it if nobody else has it or has waited for it longer. True if it holds it now. Asked
    /// again, it keeps its place.
    pub fn ask(&mut self, resource: &str, id: ProviderId, now_ms: i64) -> bool {
        let lease = self.resources.entry(resource.to_owned()).or_default();
        if lease.holder.is_some_and(|(holder, _)| holder == id) {
            return true;
        }
        if !lease.line.contains(&id) {
            lease.line.push_back(id);
        }
        if lease.holder.is_none() && lease.line.front() == Some(&id) {
            lease.line.pop_front();
            lease.holder = Some((id, now_ms));
            return true;
        }
        false
    }

    /// A provider has no more use for what it holds or waits for. Gives whoever is first in the line of what became free.
    pub fn release(&mut self, id: ProviderId) -> Option<ProviderId> {
        let mut next = None;
        for lease in self.resources.values_mut() {
            lease.line.retain(|waiting| *waiting != id);
            if lease.holder.is_some_and(|(holder, _)| holder == id) {
                lease.holder = None;
            }
            if lease.holder.is_none() {
                next = next.or(lease.line.front().copied());
            }
        }
        self.resources.retain(|_, lease| lease.holder.is_some() || !lease.line.is_empty());
        next
    }

    /// Whether a provider holds its resource.
    #[must_use]
    pub fn is_held_by(&self, id: ProviderId) -> bool {
        self.resources.values().any(|lease| lease.holder.is_some_and(|(holder, _)| holder == id))
    }

    /// Who holds a resource.
    #[must_use]
    pub fn holder(&self, resource: &str) -> Option<ProviderId> {
        self.resources.get(resource)?.holder.map(|(holder, _)| holder)
    }

    /// Since when a provider has held what others wait for; `None` if nobody does.
    #[must_use]
    pub fn wanted_since_ms(&self, id: ProviderId) -> Option<i64> {
        self.resources.values().find_map(|lease| {
            let (_, since_ms) = lease.holder.filter(|(holder, _)| *holder == id)?;
            (!lease.line.is_empty()).then_some(since_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProviderId = ProviderId(1);
    const B: ProviderId = ProviderId(2);
    const C: ProviderId = ProviderId(3);

    #[test]
    fn one_holds_it_and_the_others_wait_in_their_order() {
        let mut leases = Leases::default();
        assert!(leases.ask("modem0", A, 0) && leases.ask("modem0", A, 1), "a holder may ask again");
        assert!(!leases.ask("modem0", B, 2) && !leases.ask("modem0", C, 3) && !leases.ask("modem0", B, 4));
        assert!(leases.ask("modem1", ProviderId(9), 5), "another resource is another matter");
        assert_eq!((leases.holder("modem0"), leases.wanted_since_ms(A)), (Some(A), Some(0)));
        assert_eq!(leases.release(A), Some(B));
        assert!(!leases.ask("modem0", A, 6), "whoever had it goes to the end of the line");
        assert!(!leases.ask("modem0", C, 6), "not out of turn");
        assert!(leases.ask("modem0", B, 7));
        assert_eq!(leases.release(B), Some(C));
    }

    #[test]
    fn whoever_dies_in_the_line_holds_up_nobody() {
        let mut leases = Leases::default();
        leases.ask("modem0", A, 0);
        leases.ask("modem0", B, 0);
        leases.ask("modem0", C, 0);
        assert_eq!(leases.release(B), None);
        assert_eq!(leases.release(A), Some(C));
        assert!(leases.ask("modem0", C, 1) && leases.wanted_since_ms(C).is_none());
        assert_eq!(leases.release(C), None);
        assert!(leases.resources.is_empty(), "nothing is left behind");
    }
}
