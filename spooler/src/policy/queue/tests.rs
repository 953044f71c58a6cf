//! What leaves and enters the schedule.

use super::*;
use crate::policy::routing::Destination;

const GENERATION: Generation = Generation(7);
const ROUTE: Route = Route { provider: ProviderId(1), destination: Destination(0) };

fn entry(recipients: &[u32]) -> Entry {
    Entry {
        born_ms: 0,
        size: 1,
        priority: Priority::Normal,
        standing: Standing::Active,
        deaths: 0,
        delay_reported: false,
        null_sender: false,
        wants_success: false,
        parts: Few::One(Part {
            route: Some(ROUTE),
            recipients: recipients.iter().copied().collect(),
            attempts: 0,
            waiting: Waiting::Ready,
            not_me: None,
            again: Again::default(),
        }),
    }
}

#[test]
fn a_message_departs_once_and_is_gone_when_all_are_settled() {
    let mut queue = Queue::default();
    queue.add(MessageId(1), entry(&[0, 1]));
    let departure = queue.depart(ProviderId(1), DeliveryId(9), 0).unwrap();
    assert_eq!((departure.recipients.as_slice(), departure.attempt), ([0, 1].as_slice(), 1));
    assert_eq!(queue.depart(ProviderId(1), DeliveryId(10), 0), None);
    queue.settle(MessageId(1), DeliveryId(9), &[1]);
    assert!(queue.arrive(MessageId(1), ROUTE, DeliveryId(9), &[0], Some((Waiting::Ready, true))));
    assert!(queue.is_empty());
    queue.check_invariants();
}

#[test]
fn what_is_deferred_comes_back_when_it_is_due() {
    let mut queue = Queue::default();
    queue.add(MessageId(1), entry(&[0]));
    queue.depart(ProviderId(1), DeliveryId(1), 0).unwrap();
    assert!(!queue.arrive(MessageId(1), ROUTE, DeliveryId(1), &[], Some((Waiting::Deferred { due_ms: 50 }, true))));
    queue.check_invariants();
    assert_eq!(queue.next_due_ms(0), Some(50));
    assert!(queue.wake(49).is_empty());
    assert_eq!(queue.wake(50).len(), 1);
    assert_eq!(queue.depart(ProviderId(1), DeliveryId(2), 50).unwrap().attempt, 2);
    queue.check_invariants();
}

#[test]
fn a_held_message_stays_where_it_is() {
    let mut queue = Queue::default();
    queue.add(MessageId(1), entry(&[0]));
    queue.change(MessageId(1), |entry| entry.standing = Standing::Held);
    assert_eq!(queue.depart(ProviderId(1), DeliveryId(1), 0), None);
    queue.change(MessageId(1), |entry| entry.standing = Standing::Active);
    assert!(queue.depart(ProviderId(1), DeliveryId(1), 0).is_some());
    queue.check_invariants();
}

#[test]
fn what_a_provider_keeps_comes_back_when_it_asks() {
    let mut queue = Queue::default();
    queue.add(MessageId(1), entry(&[0]));
    queue.depart(ProviderId(1), DeliveryId(1), 0).unwrap();
    assert!(!queue.arrive(MessageId(1), ROUTE, DeliveryId(1), &[], Some((Waiting::Callback, false))));
    queue.check_invariants();
    assert_eq!((queue.next_due_ms(0), queue.lane_of(ProviderId(1)).unwrap().deferred), (None, 1));
    assert_eq!(queue.callbacks(ProviderId(1)).collect::<Vec<_>>(), [(MessageId(1), ROUTE)]);
    assert!(!queue.call_back(MessageId(1), ProviderId(2), GENERATION), "it is not that one's message");
    assert!(
        queue.call_back(MessageId(1), ProviderId(1), GENERATION)
            && !queue.call_back(MessageId(1), ProviderId(1), GENERATION)
    );
    queue.check_invariants();
    let departure = queue.depart(ProviderId(1), DeliveryId(2), 0).unwrap();
    assert_eq!((departure.again.asked_by, departure.attempt), (Some(GENERATION), 1));
}

#[test]
fn what_a_provider_keeps_is_free_again_when_it_has_gone() {
    let mut queue = Queue::default();
    for id in 1..=2 {
        queue.add(MessageId(id), entry(&[0]));
        queue.depart(ProviderId(1), DeliveryId(id), 0).unwrap();
        queue.arrive(MessageId(id), ROUTE, DeliveryId(id), &[], Some((Waiting::Callback, false)));
    }
    queue.change(MessageId(2), |entry| entry.standing = Standing::Held);
    queue.check_invariants();
    queue.free_callbacks(ProviderId(1));
    queue.check_invariants();
    assert_eq!(queue.depart(ProviderId(1), DeliveryId(3), 0).unwrap().again, Again::default());
    assert_eq!(queue.depart(ProviderId(1), DeliveryId(4), 0), None, "the other one is held");
    queue.change(MessageId(2), |entry| {
        entry.standing = Standing::Active;
        entry.free(None);
    });
    queue.check_invariants();
    assert!(queue.depart(ProviderId(1), DeliveryId(4), 0).is_some());
}

#[test]
fn a_delivery_and_what_waits_for_the_same_way_are_kept_apart_and_go_on_together() {
    let mut queue = Queue::default();
    queue.add(MessageId(1), entry(&[0]));
    queue.depart(ProviderId(1), DeliveryId(1), 0).unwrap();
    queue.change(MessageId(1), |entry| {
        let mut waiting = entry.parts.as_slice()[0].clone();
        (waiting.recipients, waiting.waiting) = (Few::One(1), Waiting::Ready);
        entry.parts.push(waiting);
    });
    assert!(!queue.arrive(MessageId(1), ROUTE, DeliveryId(1), &[], Some((Waiting::Deferred { due_ms: 9 }, true))));
    queue.check_invariants();
    let together = queue.depart(ProviderId(1), DeliveryId(2), 0).unwrap();
    assert_eq!((together.recipients.as_slice(), together.attempt), ([1, 0].as_slice(), 2));
    assert!(queue.arrive(MessageId(1), ROUTE, DeliveryId(2), &[0, 1], None));
    queue.check_invariants();
}
