//! A message stays as it is on disk until the reports that quote it are there.
//!
//! ```text
//!   ordered ──▶ being built ──▶ on its way to disk, with what it reports ──▶ on disk ──▶ what waits behind it
//!                   │  ▲
//!                   ▼  │ later
//!             cannot be read
//! ```
//!
//! A report is built on another thread, from the message on disk, and that may take its time. Until it is on disk itself, whatever settles
//! recipients of this message waits behind it in a line: further reports, each with what it reports, and the removal of the message. So no
//! report finds its message gone, and a crash leaves on disk nothing that is settled and not told: whoever was not told yet is tried
//! again, and so told again. What settles nothing (a deferral, a death, a hold) does not wait.
//!
//! If the spooler ends before a report could be built, or a report can never be kept, the line is left: nothing of it goes to disk any
//! more.

use std::collections::VecDeque;

use spooler_protocol::control::ApiError;
use spooler_protocol::ids::MessageId;

use super::event::{Action, Answer, Loudness, ReportKind, ReportOrder, ReportedRecipient, Ticket};
use super::{Pending, Supervisor, log};
use crate::record::Change;

/// What waits for the report about a message that is being made.
#[derive(Debug)]
pub(super) enum Line {
    /// In this order.
    Open(VecDeque<Next>),
    /// The report cannot be made: what became of the message stays off the disk.
    Left,
}

/// One thing that waits in line.
#[derive(Debug)]
pub(super) enum Next {
    /// A report, and what goes to disk with it.
    Report(ReportKind, Vec<ReportedRecipient>, Vec<Change>),
    /// Changes without a report.
    Unit(Vec<Change>, Pending),
}

impl Supervisor {
    /// Has a report made, in its turn. `unit` goes to disk with it; without it if nobody wants the report.
    pub(super) fn report(
        &mut self,
        id: MessageId,
        kind: ReportKind,
        recipients: Vec<ReportedRecipient>,
        unit: Vec<Change>,
        actions: &mut Vec<Action>,
    ) {
        match self.telling.get_mut(&id) {
            Some(Line::Open(line)) => line.push_back(Next::Report(kind, recipients, unit)),
            Some(Line::Left) => self.leave_out(unit, None, actions),
            None => {
                self.telling.insert(id, Line::Open(VecDeque::new()));
                self.order_report(id, kind, recipients, unit, actions);
            }
        }
    }

    fn order_report(
        &mut self,
        id: MessageId,
        kind: ReportKind,
        recipients: Vec<ReportedRecipient>,
        unit: Vec<Change>,
        actions: &mut Vec<Action>,
    ) {
        let ticket = Ticket(self.next_number());
        self.pending.insert(ticket, Pending::Report(id, unit));
        actions.push(Action::Report(ReportOrder { ticket, id, kind, recipients }));
    }

    /// The report about a message is on disk, or nobody wants it: what waits behind it goes on.
    pub(super) fn report_is_over(&mut self, id: MessageId, actions: &mut Vec<Action>) {
        let Some(Line::Open(mut line)) = self.telling.remove(&id) else { return };
        while let Some(next) = line.pop_front() {
            match next {
                Next::Report(kind, recipients, unit) => {
                    self.telling.insert(id, Line::Open(line));
                    self.order_report(id, kind, recipients, unit, actions);
                    return;
                }
                // It may be about another message, too, and have to wait for that one.
                Next::Unit(unit, pending) => self.commit(unit, pending, actions),
            }
        }
    }

    /// The message whose report these changes have to wait for, if there is one.
    pub(super) fn waits_behind(&self, unit: &[Change], pending: &Pending) -> Option<MessageId> {
        let commanded = matches!(pending, Pending::Command(..));
        let mut settling = unit.iter().filter(|change| change.settles()).map(Change::message);
        settling.find(|id| match self.telling.get(id) {
            None => false,
            Some(Line::Open(_)) => true,
            // What is damaged can be deleted.
            Some(Line::Left) => self.stopping.is_some() || !commanded,
        })
    }

    /// These changes wait until the report about a message is on disk.
    pub(super) fn wait_behind(
        &mut self,
        id: MessageId,
        unit: Vec<Change>,
        pending: Pending,
        actions: &mut Vec<Action>,
    ) {
        match self.telling.get_mut(&id) {
            Some(Line::Open(line)) => line.push_back(Next::Unit(unit, pending)),
            Some(Line::Left) | None => self.leave_out(unit, Some(pending), actions),
        }
    }

    /// The report about a message will not be made: what was to go to disk with it, and behind it, does not go there.
    pub(super) fn leave_line(&mut self, id: MessageId, unit: Vec<Change>, actions: &mut Vec<Action>) {
        self.leave_out(unit, None, actions);
        let Some(Line::Open(line)) = self.telling.insert(id, Line::Left) else { return };
        for next in line {
            match next {
                Next::Report(_, _, unit) => self.leave_out(unit, None, actions),
                Next::Unit(unit, pending) => self.leave_out(unit, Some(pending), actions),
            }
        }
    }

    /// These changes do not go to disk. Whoever waits for them is told.
    fn leave_out(&mut self, unit: Vec<Change>, pending: Option<Pending>, actions: &mut Vec<Action>) {
        if let Some(Pending::Command(ask_id, _)) = pending {
            let error = "A report about the message cannot be made now; try again later".to_owned();
            actions.push(Action::Answer(ask_id, Answer::Queue(Err(ApiError { error, temporary: true }))));
        }
        if unit.iter().any(Change::settles) {
            let text = "what became of recipients is not on disk: they will be tried again".to_owned();
            log(actions, Loudness::Warn, text);
        }
    }
}
