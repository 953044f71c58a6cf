//! Receiving everything that waits, within a flush: one message after another, until there is none.

use spooler_protocol::calls::StartResult;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::{Supervisor, log};
use crate::policy::flush::Flush;
use crate::policy::{Now, ProviderId};

impl Supervisor {
    /// Begins to receive what waits; [`Supervisor::on_all_received`] is called when that is done.
    pub(super) fn receive_all(&mut self, id: ProviderId, actions: &mut Vec<Action>) {
        self.say(id, ToWorker::StartMessage, actions);
    }

    /// A call of StartMessage is over: another one follows as long as there are messages.
    pub(super) fn on_start_ended(
        &mut self,
        worker: WorkerId,
        result: StartResult,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let id = worker.provider;
        if !self.flushing.running.get(&id).is_some_and(Flush::is_inbound) {
            // Nobody asked for it.
            return;
        }
        let more = result == StartResult::Saved;
        match result {
            StartResult::Saved => {
                self.flushing.note_received(id);
                if self.may_receive_more(id, now) {
                    return self.receive_all(id, actions);
                }
            }
            StartResult::NotSaved => {}
            StartResult::Failed(why) => {
                let text = format!("provider {}: a message was not received: {why}", self.name(id));
                log(actions, Loudness::Warn, text);
            }
        }
        self.on_all_received(id, more, now, actions);
    }
}
