//! Who gets a place where there are fewer places than visitors: shared out fairly, so that no flood keeps others out. Pure.
//!
//! Each visitor belongs to somebody (an address, a user), and nobody has more than a share. When all places are taken, a newcomer gets the
//! place of a visitor that has got nowhere for a while: one whose owner has more than the newcomer's, or one that has got nowhere for
//! long. Getting somewhere means a whole request, or a good piece of one; bytes that trickle are nothing.
//!
//! Time is milliseconds on any clock that does not go back.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hash;

/// A visitor that got nowhere for so long gives its place to somebody with fewer places, milliseconds.
pub const IDLE_MS: i64 = 1000;
/// A visitor that got nowhere for so long gives its place to anybody, milliseconds.
pub const STALLED_MS: i64 = 10_000;

/// Names a place that is taken.
pub type Ticket = u64;

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It has this place.
    Free(Ticket),
    /// It has this place, and the holder of the other one has to go.
    InPlaceOf(Ticket, Ticket),
    /// There is none: those of its owner have all that one owner may have.
    ShareIsUsedUp,
    /// There is none at all.
    Full,
}

#[derive(Debug)]
struct Visitor<K> {
    owner: K,
    /// Since when it has got nowhere; `None` while it waits for us and not we for it.
    idle_since_ms: Option<i64>,
}

/// A bounded number of places.
#[derive(Debug)]
pub struct Places<K> {
    visitors: BTreeMap<Ticket, Visitor<K>>,
    counts: HashMap<K, usize>,
    next: Ticket,
    places: usize,
    share: usize,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// So many places, of which one owner has at most a share.
    #[must_use]
    pub fn new(places: usize, share: usize) -> Self {
        Self { visitors: BTreeMap::new(), counts: HashMap::new(), next: 0, places, share: share.min(places) }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.visitors.len()
    }

    /// Somebody comes. The place of the one that has to go is free for the newcomer at once; it is not to be left again.
    pub fn enter(&mut self, owner: &K, now_ms: i64) -> Entry {
        let own = self.count(owner);
        let leaving = if own >= self.share {
            match self.idlest(now_ms, |visitor, idle_ms| visitor == owner && idle_ms >= IDLE_MS) {
                Some(leaving) => Some(leaving),
                None => return Entry::ShareIsUsedUp,
            }
        } else if self.visitors.len() >= self.places {
            let gives_way = |visitor: &K, idle_ms: i64| {
                idle_ms >= STALLED_MS || (idle_ms >= IDLE_MS && self.count(visitor) > own + 1)
            };
            match self.idlest(now_ms, gives_way) {
                Some(leaving) => Some(leaving),
                None => return Entry::Full,
            }
        } else {
            None
        };
        if let Some(leaving) = leaving {
            self.leave(leaving);
        }
        self.next += 1;
        let ticket = self.next;
        self.visitors.insert(ticket, Visitor { owner: owner.clone(), idle_since_ms: Some(now_ms) });
        *self.counts.entry(owner.clone()).or_default() += 1;
        leaving.map_or(Entry::Free(ticket), |leaving| Entry::InPlaceOf(ticket, leaving))
    }

    /// A visitor has got somewhere, and we wait for it again.
    pub fn progress(&mut self, ticket: Ticket, now_ms: i64) {
        if let Some(visitor) = self.visitors.get_mut(&ticket) {
            visitor.idle_since_ms = Some(now_ms);
        }
    }

    /// A visitor waits for us: it keeps its place meanwhile.
    pub fn busy(&mut self, ticket: Ticket) {
        if let Some(visitor) = self.visitors.get_mut(&ticket) {
            visitor.idle_since_ms = None;
        }
    }

    /// A visitor goes. One that has lost its place before is gone already.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(visitor) = self.visitors.remove(&ticket) else { return };
        if let Some(count) = self.counts.get_mut(&visitor.owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&visitor.owner);
            }
        }
    }

    fn count(&self, owner: &K) -> usize {
        self.counts.get(owner).copied().unwrap_or_default()
    }

    /// Of those who may be asked to go, one of the owner with the most places, and of these the one that got nowhere for the longest.
    fn idlest(&self, now_ms: i64, may: impl Fn(&K, i64) -> bool) -> Option<Ticket> {
        let candidates = self.visitors.iter().filter_map(|(ticket, visitor)| {
            let idle_ms = now_ms - visitor.idle_since_ms?;
            may(&visitor.owner, idle_ms).then(|| (self.count(&visitor.owner), idle_ms, *ticket))
        });
        candidates
            .max_by_key(|(count, idle_ms, ticket)| (*count, *idle_ms, Reverse(*ticket)))
            .map(|(_, _, ticket)| ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(places: &mut Places<u8>, owner: u8, count: usize, now_ms: i64) -> Vec<Ticket> {
        let enter = |_| match places.enter(&owner, now_ms) {
            Entry::Free(ticket) => ticket,
            other => panic!("{other:?}"),
        };
        (0..count).map(enter).collect()
    }

    #[test]
    fn one_owner_has_no_more_than_a_share() {
        let mut places = Places::new(10, 4);
        let tickets = fill(&mut places, 1, 4, 0);
        assert_eq!(places.enter(&1, 0), Entry::ShareIsUsedUp);
        assert!(matches!(places.enter(&2, 0), Entry::Free(_)));
        places.leave(tickets[0]);
        assert!(matches!(places.enter(&1, 0), Entry::Free(_)));
    }

    #[test]
    fn an_owner_that_stalls_gives_way_to_itself() {
        let mut places = Places::new(10, 2);
        let tickets = fill(&mut places, 1, 2, 0);
        places.progress(tickets[0], 900);
        let Entry::InPlaceOf(third, left) = places.enter(&1, 1000) else { panic!() };
        assert_eq!(left, tickets[1]);
        assert_eq!(places.enter(&1, 1000), Entry::ShareIsUsedUp, "nobody else has been idle for long");
        places.leave(left);
        assert_eq!(places.taken(), 2, "it had gone already");
        places.leave(third);
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn who_has_many_gives_way_to_who_has_few() {
        let mut places = Places::new(4, 3);
        let many = fill(&mut places, 1, 3, 0);
        fill(&mut places, 2, 1, 0);
        assert_eq!(places.enter(&3, 999), Entry::Full, "a moment is not idle");
        assert!(matches!(places.enter(&3, 1000), Entry::InPlaceOf(_, left) if left == many[0]));
        assert_eq!(places.enter(&4, 1000 + IDLE_MS), Entry::InPlaceOf(6, many[1]));
        assert_eq!(places.enter(&5, 1000 + IDLE_MS), Entry::Full, "all have one");
    }

    #[test]
    fn who_stalls_gives_way_to_anybody_and_who_is_served_to_nobody() {
        let mut places = Places::new(2, 2);
        let first = fill(&mut places, 1, 1, 0)[0];
        let second = fill(&mut places, 2, 1, 0)[0];
        places.busy(first);
        assert_eq!(places.enter(&3, STALLED_MS), Entry::InPlaceOf(3, second));
        assert_eq!(places.enter(&4, STALLED_MS), Entry::Full);
        places.progress(first, STALLED_MS + 1);
        assert_eq!(places.enter(&4, 2 * STALLED_MS), Entry::InPlaceOf(4, 3));
    }

    #[test]
    fn a_flood_from_many_leaves_a_place_for_one_more() {
        let mut places = Places::new(200, 100);
        let mut now_ms = 0;
        for number in 0..10_000_u32 {
            now_ms += 1;
            let _ = places.enter(&u8::try_from(number % 40).unwrap(), now_ms);
            assert!(places.taken() <= 200);
        }
        assert!(matches!(places.enter(&77, now_ms + IDLE_MS), Entry::InPlaceOf(..)));
    }
}
