//! What has changed in the status table, for those who watch it.
//!
//! Nothing is kept and nothing is compared unless somebody watches. While somebody does, each step notes which providers it may have
//! changed; the rows of these are made anew when changes are asked for, and only what differs from what was said last is said. Messages
//! in flight come and go faster than anybody can read: only those are told of that are there at such a moment.

use std::collections::{BTreeMap, BTreeSet};

use spooler_protocol::ids::DeliveryId;
use spooler_protocol::status::{AddedRow, MessageRow, ProviderRow, SupervisorRow};
use spooler_protocol::watching::{RowChange, RowKey, StatusNews, StatusUpdate};

use super::event::{Ask, Event};
use super::table::MESSAGE_ROWS_MAX;
use super::{Flight, Supervisor};
use crate::policy::{Now, ProviderId};

/// What those who watch were told last.
#[derive(Debug)]
pub(super) struct Watch {
    supervisor: SupervisorRow,
    providers: BTreeMap<ProviderId, (ProviderRow, Vec<AddedRow>)>,
    messages: BTreeMap<DeliveryId, MessageRow>,
    /// Providers whose rows may have changed since.
    changed: BTreeSet<ProviderId>,
    /// The order of providers has changed, or every time in the table, because a clock was set: only a new table can say it.
    anew: bool,
    /// Whether anything has happened since.
    stale: bool,
}

impl Supervisor {
    /// The whole table for somebody who begins to watch; from here on changes are kept for [`Supervisor::changes`]. Whoever watches
    /// already has to be told of changes before.
    pub fn snapshot(&mut self, now: Now) -> StatusUpdate {
        let table = self.status_table(now);
        let providers = self.order.iter().filter_map(|id| Some((*id, self.provider_rows(*id)?)));
        self.watch = Some(Watch {
            supervisor: table.supervisor.clone(),
            providers: providers.collect(),
            messages: table.messages.iter().map(|row| (row.delivery, row.clone())).collect(),
            changed: BTreeSet::new(),
            anew: false,
            stale: false,
        });
        StatusUpdate { seq: self.watch_seq, news: StatusNews::Snapshot(Box::new(table)) }
    }

    /// Nobody watches any more.
    pub fn forget_watchers(&mut self) {
        self.watch = None;
    }

    /// Whether something may have changed for those who watch.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.stale)
    }

    /// What has changed since the last time, or since the last snapshot; `None` if nothing has.
    pub fn changes(&mut self, now: Now) -> Option<StatusUpdate> {
        self.follow_clock(now);
        if self.watch.as_ref()?.anew {
            self.watch_seq += 1;
            return Some(self.snapshot(now));
        }
        let mut watch = self.watch.take()?;
        let mut changes = Vec::new();
        let supervisor = self.supervisor_row(now);
        if supervisor != watch.supervisor {
            watch.supervisor = supervisor.clone();
            changes.push(RowChange::Supervisor(Box::new(supervisor)));
        }
        for id in std::mem::take(&mut watch.changed) {
            self.provider_changes(id, &mut watch, &mut changes);
        }
        self.message_changes(&mut watch, &mut changes);
        watch.stale = false;
        self.watch = Some(watch);
        if changes.is_empty() {
            return None;
        }
        self.watch_seq += 1;
        Some(StatusUpdate { seq: self.watch_seq, news: StatusNews::Changes(changes) })
    }

    fn provider_changes(&self, id: ProviderId, watch: &mut Watch, changes: &mut Vec<RowChange>) {
        let old = watch.providers.remove(&id);
        // A provider that was taken out of the configuration may live a little longer.
        let Some((row, added)) = self.provider_rows(id).filter(|_| self.order.contains(&id)) else {
            if let Some((row, added)) = old {
                changes.extend(added.into_iter().map(|row| RowChange::Gone(RowKey::Added(row.provider, row.row))));
                changes.push(RowChange::Gone(RowKey::Provider(row.name)));
            }
            return;
        };
        let (old_row, old_added) = old.map_or((None, Vec::new()), |(row, added)| (Some(row), added));
        if old_row.as_ref() != Some(&row) {
            changes.push(RowChange::Provider(Box::new(row.clone())));
        }
        for old in &old_added {
            if !added.iter().any(|new| new.row == old.row) {
                changes.push(RowChange::Gone(RowKey::Added(old.provider.clone(), old.row.clone())));
            }
        }
        let new = added.iter().filter(|new| !old_added.contains(new));
        changes.extend(new.map(|row| RowChange::Added(Box::new(row.clone()))));
        watch.providers.insert(id, (row, added));
    }

    fn message_changes(&self, watch: &mut Watch, changes: &mut Vec<RowChange>) {
        watch.messages.retain(|delivery, _| {
            let flies = self.flights.contains_key(delivery);
            if !flies {
                changes.push(RowChange::Gone(RowKey::Message(*delivery)));
            }
            flies
        });
        for (delivery, flight) in self.flights.iter().take(MESSAGE_ROWS_MAX) {
            if watch.messages.get(delivery).is_none_or(|row| has_moved(flight, row)) {
                let row = self.message_row(*delivery, flight);
                changes.push(RowChange::Message(Box::new(row.clone())));
                watch.messages.insert(*delivery, row);
            }
        }
    }

    /// An event may change rows: notes which.
    pub(super) fn note_what_may_change(&mut self, event: &Event) {
        let Some(watch) = &mut self.watch else { return };
        watch.stale = true;
        match event {
            Event::Worker(worker, _) => {
                watch.changed.insert(worker.provider);
            }
            // What they change is noted when the providers concerned are looked after.
            Event::Committed(..)
            | Event::UploadFinished(..)
            | Event::ReportBuilt(..)
            | Event::NotRead(..)
            | Event::Unreadable(..) => {}
            Event::Asked(_, Ask::Submit { .. } | Ask::Status | Ask::Overlay(..) | Ask::FlushProgress(_)) => {}
            // Only the supervisor's row shows them.
            Event::Observed(_) | Event::IdleHint(_) | Event::DevicesUncertain => {}
            Event::Asked(..)
            | Event::Scanned(_)
            | Event::ScanEnded(_)
            | Event::StoreStuck(_)
            | Event::ReadFailed(..)
            | Event::Stop
            | Event::Tick => {
                watch.changed.extend(self.providers.keys());
            }
            Event::System(_) | Event::DevicePresent(..) => watch.changed.extend(self.providers.keys()),
            Event::Reload(_) => watch.anew = true,
        }
    }

    /// Every time in the table has changed.
    pub(super) fn note_clock(&mut self) {
        if let Some(watch) = &mut self.watch {
            (watch.anew, watch.stale) = (true, true);
        }
    }

    /// A provider's row may have changed.
    pub(super) fn note_change(&mut self, id: ProviderId) {
        if let Some(watch) = &mut self.watch {
            watch.changed.insert(id);
        }
    }

    /// Every row of providers that are flushed may have changed.
    pub(super) fn note_flushes(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.changed.extend(self.flushing.running.keys().chain(&self.flushing.sections));
        }
    }
}

/// Whether a message's row is out of date.
fn has_moved(flight: &Flight, row: &MessageRow) -> bool {
    flight.bytes != row.bytes || flight.phase != row.phase || flight.open_recipients() != row.recipients
}
