//! The schedule in RAM and the disk say the same, whenever nothing is on its way between them.

use std::collections::BTreeSet;

use spooler::policy::queue::Standing;
use spooler::record::{Change, Scanned, ScannedMessage};
use spooler::supervisor::Supervisor;
use spooler::supervisor::event::{Action, Event};
use spooler::system::store::StoreReader;
use spooler_protocol::control::{MessageState, RecipientState};
use spooler_protocol::ids::MessageId;

use super::mail::Mail;
use super::{Broken, Verdict, demand};
use crate::disk::{Disk, message_of};

/// Everything is compared once in so many quiet moments; otherwise what has changed on disk.
const ALL_EVERY: u64 = 16;

/// What is on its way.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    scanned_once: bool,
    under_way: i64,
    changed: bool,
    touched: BTreeSet<MessageId>,
    moments: u64,
}

impl Agreement {
    pub(super) fn hears(&mut self, event: &Event) {
        match event {
            Event::ScanEnded(_) => self.under_way -= 1,
            Event::ReportBuilt(..) | Event::UploadFinished(..) => self.under_way -= 1,
            Event::Committed(..) => {}
            _ => return,
        }
        self.changed = true;
    }

    pub(super) fn wants(&mut self, action: &Action) {
        match action {
            Action::Scan(_) => {
                self.under_way += 1;
                self.scanned_once = true;
            }
            Action::Report(_) | Action::FinishUpload(..) => self.under_way += 1,
            _ => {}
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.scanned_once && self.under_way == 0
    }

    pub(super) fn stepped(&mut self, supervisor: &Supervisor, disk: &mut Disk, mail: &Mail) -> Verdict {
        if !self.scanned_once || !self.changed || self.under_way > 0 || !disk.is_quiet() {
            return Ok(());
        }
        self.changed = false;
        self.moments += 1;
        let mut touched = std::mem::take(&mut self.touched);
        if self.moments.is_multiple_of(ALL_EVERY) {
            touched.extend(disk.ids().iter().copied());
        }
        for id in touched {
            let kept =
                disk.store.get(id).map_err(|error| Broken { rule: "the disk is read", what: error.to_string() })?;
            if let Some(Scanned::Message(kept)) = kept {
                compare(supervisor, &kept, mail)?;
            }
        }
        let unscheduled = disk.ids().iter().find(|id| supervisor.queue().get(**id).is_none() && !mail.is_ahead(**id));
        demand(unscheduled.is_none(), "what is on disk is scheduled", || format!("{unscheduled:?}"))?;
        let extra = supervisor.queue().iter().map(|(id, _)| id).filter(|id| !disk.ids().contains(id)).min();
        demand(extra.is_none_or(|id| mail.is_ahead(id)), "what is scheduled is on disk", || format!("{extra:?}"))
    }

    /// A unit is on disk, or was refused.
    pub(super) fn committed(&mut self, unit: &[Change]) {
        self.touched.extend(unit.iter().map(message_of));
    }
}

fn compare(supervisor: &Supervisor, kept: &ScannedMessage, mail: &Mail) -> Verdict {
    let id: MessageId = kept.id;
    if mail.is_ahead(id) {
        return Ok(());
    }
    let Some(entry) = supervisor.queue().get(id) else {
        return demand(false, "what is on disk is scheduled", || format!("message {id}: {kept:?}"));
    };
    let pending = kept.recipients.iter().filter(|recipient| recipient.state == RecipientState::Pending);
    let pending: BTreeSet<u32> = pending.map(|recipient| recipient.index).collect();
    let scheduled: Vec<u32> =
        entry.parts.as_slice().iter().flat_map(|part| part.recipients.as_slice().iter().copied()).collect();
    let distinct: BTreeSet<u32> = scheduled.iter().copied().collect();
    demand(distinct.len() == scheduled.len(), "a recipient is scheduled once", || format!("{id}: {entry:?}"))?;
    demand(pending == distinct, "the pending on disk are the scheduled ones", || {
        format!("message {id}: {pending:?} are pending on disk, {distinct:?} are scheduled")
    })?;
    let standing = match kept.state {
        MessageState::Held => Standing::Held,
        MessageState::Quarantined => Standing::Quarantined,
        MessageState::Ready | MessageState::InFlight | MessageState::Deferred => Standing::Active,
    };
    demand(standing == entry.standing, "who is held is held on disk", || {
        format!("message {id}: {:?} on disk, {:?} in the schedule", kept.state, entry.standing)
    })?;
    demand(kept.deaths == entry.deaths, "deaths are counted on disk", || {
        format!("message {id}: {} on disk, {} in the schedule", kept.deaths, entry.deaths)
    })
}
