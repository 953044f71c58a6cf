//! What every step ends with: deliveries, calls, flushes and tokens follow what has changed, and the supervisor ends when all is done.

use spooler_protocol::ids::Token;
use spooler_protocol::to_worker::ToWorker;

use super::event::Action;
use super::{Pending, Supervisor};
use crate::policy::Now;
use crate::policy::scheduler::Decision;

impl Supervisor {
    /// What every step ends with: tokens and deliveries follow what has changed.
    pub(super) fn follow_up(&mut self, now: Now, actions: &mut Vec<Action>) {
        loop {
            while let Some(provider) = self.touched.pop_first() {
                self.note_change(provider);
                self.dispatch(provider, now, actions);
                self.receive(provider, now, actions);
            }
            if !self.advance_flushes(now, actions) && self.touched.is_empty() {
                break;
            }
        }
        self.tell_postmaster(now, actions);
        self.settle(now, actions);
        // A worker that kept its token needs no new one for new work, but somebody has to look at the machine.
        let unseen = self.look_every_ms.is_none() && self.gate.looks() && !self.flights.is_empty();
        if !self.machine.is_asleep() && (std::mem::take(&mut self.tokens_touched) || unseen) {
            self.ask_gate(now, actions);
            for decision in self.scheduler.decide(now.mono_ms) {
                self.send_decision(decision, actions);
                if let Some(recall) = self.note_decision(decision, now) {
                    self.send_decision(recall, actions);
                }
            }
        }
        let owed = |pending: &Pending| match pending {
            Pending::Accept(..) | Pending::Upload(..) | Pending::Command(..) => true,
            Pending::Report(..) | Pending::Notice => true,
            // It is with the writer, who ends when it has written everything.
            Pending::Kept(_) | Pending::Quarantined(_) => false,
        };
        let all_gone = self.stopping.is_some()
            && self.providers.values().all(|provider| !provider.life.is_alive())
            && !self.pending.values().any(owed);
        if let Some(stopping) = &mut self.stopping
            && all_gone
            && !stopping.exited
        {
            stopping.exited = true;
            actions.push(Action::Exit);
        }
    }

    /// Tells a worker what was decided about its token.
    pub(super) fn send_decision(&mut self, decision: Decision, actions: &mut Vec<Action>) {
        let slice_ms = self.slice_ms();
        let (provider, word) = match decision {
            Decision::Grant(provider, token) => (provider, ToWorker::Grant { token, slice_ms, recalled: false }),
            Decision::Recall(_, token) if recall_with_grant(token, actions) => return,
            Decision::Recall(provider, token) => (provider, ToWorker::Recall { token }),
        };
        self.note_change(provider);
        self.say(provider, word, actions);
    }
}

/// A token that is given and asked back in one step, because others wait, is one word and not two. False if it was given earlier.
fn recall_with_grant(token: Token, actions: &mut [Action]) -> bool {
    for action in actions.iter_mut().rev() {
        if let Action::Send(_, ToWorker::Grant { token: granted, recalled, .. }) = action
            && *granted == token
        {
            *recalled = true;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use spooler_protocol::ids::Generation;

    use super::*;
    use crate::policy::ProviderId;
    use crate::supervisor::event::WorkerId;

    #[test]
    fn a_token_asked_back_as_it_is_given_is_one_word() {
        let worker = WorkerId { provider: ProviderId(1), generation: Generation(1) };
        let grant =
            |token, recalled| Action::Send(worker, ToWorker::Grant { token: Token(token), slice_ms: 200, recalled });
        let mut actions = vec![grant(1, false), grant(2, false)];
        assert!(recall_with_grant(Token(1), &mut actions));
        assert!(!recall_with_grant(Token(3), &mut actions), "given in an earlier step");
        assert_eq!(actions, [grant(1, true), grant(2, false)]);
    }
}
