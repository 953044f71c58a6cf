//! What is on its way to the disk, and what happens when it is there.
//!
//! Nothing is promised to anybody before: a unit of changes is ordered with a ticket, and what waits for it is found again by that.

use spooler_protocol::control::QueueDone;
use spooler_protocol::ids::{AcceptId, MessageId};

use super::Supervisor;
use super::event::{Action, AskId, Ticket, WorkerId};
use super::mail::Accepted;
use crate::policy::few::Few;
use crate::policy::queue::Entry;
use crate::record::{Change, NewMessage};

/// Who waits for a message to be accepted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Acceptor {
    Worker(WorkerId, AcceptId),
    Client(AskId),
    /// A report of our own about this message.
    Report(MessageId),
    /// A notice to the postmaster.
    Nobody,
}

/// What happens when something is on disk.
#[derive(Debug)]
pub(super) enum Pending {
    /// The content gets its final name first.
    Upload(Acceptor, Box<NewMessage>, Box<Accepted>, Entry),
    /// The message joins the queue, and is logged.
    Accept(Acceptor, Box<Accepted>, Entry),
    /// A report about this message is being built; these changes go to disk with it.
    Report(MessageId, Vec<Change>),
    /// A notice to the postmaster is being built.
    Notice,
    /// A message is in quarantine.
    Quarantined(MessageId),
    /// A client is told.
    Command(AskId, QueueDone),
    /// Nobody waits; what is kept is about these messages.
    Kept(Few<MessageId>),
}

impl Pending {
    /// The message that joins the queue.
    pub(super) fn accepts(&self) -> Option<MessageId> {
        match self {
            Self::Upload(_, message, ..) => Some(message.id),
            Self::Accept(_, note, _) => Some(note.id),
            Self::Report(..) | Self::Notice | Self::Quarantined(_) | Self::Command(..) | Self::Kept(_) => None,
        }
    }
}

impl Supervisor {
    /// Whether a worker waits for our word about a message that it handed over.
    pub(super) fn owes_answer(&self, worker: WorkerId) -> bool {
        let waits = |acceptor: &Acceptor| matches!(acceptor, Acceptor::Worker(waiting, _) if *waiting == worker);
        self.pending.values().any(|pending| match pending {
            Pending::Upload(acceptor, ..) | Pending::Accept(acceptor, ..) => waits(acceptor),
            Pending::Report(..)
            | Pending::Notice
            | Pending::Quarantined(_)
            | Pending::Command(..)
            | Pending::Kept(_) => false,
        })
    }

    /// Brings a unit to disk, as soon as no report stands in its way.
    pub(super) fn commit(&mut self, unit: Vec<Change>, pending: Pending, actions: &mut Vec<Action>) {
        match self.waits_behind(&unit, &pending) {
            Some(id) => self.wait_behind(id, unit, pending, actions),
            None => self.commit_now(unit, pending, actions),
        }
    }

    /// Brings a unit to disk.
    pub(super) fn commit_now(&mut self, unit: Vec<Change>, pending: Pending, actions: &mut Vec<Action>) {
        let ticket = Ticket(self.next_number());
        self.pending.insert(ticket, pending);
        actions.push(Action::Commit(ticket, unit));
    }

    /// Brings a unit to disk for which nobody waits.
    pub(super) fn keep(&mut self, unit: Vec<Change>, actions: &mut Vec<Action>) {
        let pending = Pending::Kept(messages_of(&unit));
        self.commit(unit, pending, actions);
    }
}

/// Which messages a unit is about.
pub(super) fn messages_of(unit: &[Change]) -> Few<MessageId> {
    let mut ids = Few::default();
    for id in unit.iter().map(Change::message) {
        if !ids.as_slice().contains(&id) {
            ids.push(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Now;
    use crate::supervisor::Surroundings;
    use crate::supervisor::event::Event;

    #[test]
    fn it_does_not_end_while_a_report_is_being_built() {
        let config = crate::config::parse("[spool]\n", std::path::Path::new("x.toml")).unwrap();
        let surroundings = Surroundings { cores: 1, pid: 1, reload: String::new(), seed: 1, last_id: MessageId(0) };
        let now = Now { mono_ms: 0, wall_ms: 0 };
        let (mut supervisor, mut actions) = Supervisor::new(config, surroundings, now);
        // What became of recipients goes to disk with the report: without it they would be served again.
        supervisor
            .pending
            .insert(Ticket(0), Pending::Report(MessageId(1), vec![Change::Remove { id: MessageId(1), ending: None }]));
        supervisor.step(now, Event::Stop, &mut actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Exit)));
        supervisor.step(now, Event::ReportBuilt(Ticket(0), None), &mut actions);
        assert!(actions.iter().any(|action| matches!(action, Action::Commit(..))));
        assert!(actions.iter().any(|action| matches!(action, Action::Exit)));
    }
}
