//! Reports are made in time: what they quote is there until they are on disk, and what settles it goes to disk with them or later.

use std::collections::BTreeMap;

use spooler::record::Change;
use spooler::supervisor::event::{Action, Event, Ticket};
use spooler_protocol::ids::MessageId;

use super::{Verdict, demand};

/// Reports that are wanted and not on disk.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// About which message.
    open: BTreeMap<Ticket, MessageId>,
    /// Built, and heard of in this step.
    built: Option<Ticket>,
    /// On its way to the disk, as part of this unit, until that is heard to be there.
    on_its_way: BTreeMap<Ticket, Ticket>,
}

impl Reports {
    /// Whether a report about this message is being made.
    pub(super) fn is_open(&self, id: MessageId) -> bool {
        self.open.values().any(|about| *about == id)
    }

    /// Whether every report that was wanted is on disk.
    pub(super) fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn hears(&mut self, event: &Event) {
        match event {
            // Nobody wants it.
            Event::ReportBuilt(ticket, None) => drop(self.open.remove(ticket)),
            Event::ReportBuilt(ticket, Some(_)) => {
                self.built = Some(*ticket).filter(|_| self.open.contains_key(ticket))
            }
            Event::Committed(unit, result) => {
                let kept = self.on_its_way.remove(unit).filter(|_| result.is_ok());
                kept.map(|ticket| self.open.remove(&ticket));
            }
            _ => {}
        }
    }

    pub(super) fn wants(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Report(order) => drop(self.open.insert(order.ticket, order.id)),
            Action::Commit(ticket, unit) => return self.keeps(*ticket, unit),
            Action::Log(_, text) if text.contains("nowhere to go") => {
                let lost = self.built.take();
                lost.map(|ticket| self.open.remove(&ticket));
            }
            _ => {}
        }
        Ok(())
    }

    fn keeps(&mut self, ticket: Ticket, unit: &[Change]) -> Verdict {
        let own = self.built.take_if(|_| unit.iter().any(is_report));
        self.on_its_way.extend(own.map(|own| (ticket, own)));
        for id in unit.iter().filter(|change| settles(change)).map(Change::message) {
            let open = self.open.iter().find(|(ticket, about)| **about == id && Some(**ticket) != own);
            demand(open.is_none(), "what is settled waits for its reports", || format!("message {id}: {open:?}"))?;
        }
        Ok(())
    }

    pub(super) fn stepped(&self) -> Verdict {
        demand(self.built.is_none(), "a report that is built is kept", || format!("{:?} is not", self.built))
    }
}

fn is_report(change: &Change) -> bool {
    matches!(change, Change::Accept(message) if message.is_report())
}

/// Whether this ends something for a recipient.
fn settles(change: &Change) -> bool {
    use spooler_protocol::control::RecipientState;
    match change {
        Change::Recipients { updates, .. } => updates.iter().any(|update| update.state != RecipientState::Pending),
        Change::Remove { .. } => true,
        Change::Accept(_) | Change::State { .. } | Change::Marks { .. } => false,
    }
}
