//! What clients that watch the status table get: a snapshot first, then every change in order, as JSON lines.
//!
//! ```text
//! {"seq":17,"snapshot":{"supervisor":{…},"providers":[…],"added":[…],"messages":[…]}}
//! {"seq":18,"changes":[{"provider":{…}},{"message":{…}},{"gone":{"message":4711}}]}
//! {"seq":19,"changes":[…]}
//! ```
//!
//! Numbers follow each other without a gap. A client that reads too slowly gets another snapshot instead of what it has missed, and goes
//! on from its number. [`StatusTable::apply`] is how a client keeps its table.

use serde::{Deserialize, Serialize};

use crate::ids::DeliveryId;
use crate::status::{AddedRow, MessageRow, ProviderRow, StatusTable, SupervisorRow};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// Its number.
    pub seq: u64,
    /// What it brings.
    #[serde(flatten)]
    pub news: StatusNews,
}

/// What a line brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatusNews {
    /// The whole table; what was known before is void.
    Snapshot(Box<StatusTable>),
    /// Rows that are new or have changed, and rows that have gone.
    Changes(Vec<RowChange>),
}

/// One row that is new or has changed, whole, or one that has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowChange {
    /// The supervisor.
    Supervisor(Box<SupervisorRow>),
    /// A provider.
    Provider(Box<ProviderRow>),
    /// A row that a provider has added.
    Added(Box<AddedRow>),
    /// A message in flight.
    Message(Box<MessageRow>),
    /// A row has gone.
    Gone(RowKey),
}

/// Names a row that has gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowKey {
    /// A provider, by its name.
    Provider(String),
    /// A row that a provider has added: the provider's name and the row's.
    Added(String, String),
    /// A message in flight.
    Message(DeliveryId),
}

impl StatusTable {
    /// Brings the table up to date. Rows that are new go where a snapshot would have them; new providers go last.
    pub fn apply(&mut self, change: RowChange) {
        match change {
            RowChange::Supervisor(row) => self.supervisor = *row,
            RowChange::Provider(row) => match self.providers.iter_mut().find(|old| old.name == row.name) {
                Some(old) => *old = *row,
                None => self.providers.push(*row),
            },
            RowChange::Added(row) => {
                let place =
                    self.added.binary_search_by(|old| (&old.provider, &old.row).cmp(&(&row.provider, &row.row)));
                put(&mut self.added, place, *row);
            }
            RowChange::Message(row) => {
                let place = self.messages.binary_search_by_key(&row.delivery, |old| old.delivery);
                put(&mut self.messages, place, *row);
            }
            RowChange::Gone(RowKey::Provider(name)) => self.providers.retain(|row| row.name != name),
            RowChange::Gone(RowKey::Added(provider, name)) => {
                self.added.retain(|row| row.provider != provider || row.row != name);
            }
            RowChange::Gone(RowKey::Message(delivery)) => {
                if let Ok(place) = self.messages.binary_search_by_key(&delivery, |old| old.delivery) {
                    self.messages.remove(place);
                }
            }
        }
    }
}

fn put<T>(rows: &mut Vec<T>, place: Result<usize, usize>, row: T) {
    match place {
        Ok(place) => {
            if let Some(old) = rows.get_mut(place) {
                *old = row;
            }
        }
        Err(place) => rows.insert(place, row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MessageId;
    use crate::status::StatusCode;

    fn added(row: &str, text: &str) -> AddedRow {
        AddedRow {
            provider: "fax".to_owned(),
            row: row.to_owned(),
            code: StatusCode::AVAILABLE,
            text: text.to_owned(),
            progress: None,
            progress_text: None,
        }
    }

    fn message(delivery: u64) -> MessageRow {
        MessageRow {
            delivery: DeliveryId(delivery),
            id: MessageId(1),
            provider: "fax".to_owned(),
            code: StatusCode::OUTBOUND_ACTIVE,
            phase: String::new(),
            phase_since_ms: 0,
            progress: 0,
            bytes: 0,
            size: 1,
            recipients: 1,
            since_ms: 0,
        }
    }

    fn empty() -> StatusTable {
        let supervisor = SupervisorRow {
            pid: 1,
            version: String::new(),
            code: StatusCode::AVAILABLE,
            text: String::new(),
            started_ms: 0,
            slots: 1,
            gate: String::new(),
            tokens_out: 0,
            queued: 0,
            ready: 0,
            in_flight: 0,
            deferred: 0,
            held: 0,
            quarantined: 0,
            quarantine: None,
            accepted: 0,
            sent: 0,
            failed: 0,
        };
        StatusTable { supervisor, providers: Vec::new(), added: Vec::new(), messages: Vec::new() }
    }

    #[test]
    fn a_table_follows_its_changes() {
        let mut table = empty();
        for change in [
            RowChange::Added(Box::new(added("line2", "free"))),
            RowChange::Added(Box::new(added("line1", "free"))),
            RowChange::Added(Box::new(added("line2", "dialling"))),
            RowChange::Message(Box::new(message(7))),
            RowChange::Message(Box::new(message(3))),
            RowChange::Gone(RowKey::Message(DeliveryId(7))),
            RowChange::Gone(RowKey::Message(DeliveryId(8))),
        ] {
            table.apply(change);
        }
        assert_eq!(table.added, [added("line1", "free"), added("line2", "dialling")]);
        assert_eq!(table.messages, [message(3)]);
        table.apply(RowChange::Gone(RowKey::Added("fax".to_owned(), "line1".to_owned())));
        assert_eq!(table.added, [added("line2", "dialling")]);
    }
}
