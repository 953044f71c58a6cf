//! Status rows are true, and do not go back.

use std::collections::BTreeMap;

use spooler::supervisor::event::{Action, Answer, Event};
use spooler_protocol::ids::Generation;
use spooler_protocol::status::{StatusCode, StatusTable};

use super::{Verdict, demand};

#[derive(Clone, Copy, Debug)]
struct Row {
    generation: Generation,
    /// Since when it is in this state, at the earliest, milliseconds.
    since_ms: i64,
    deaths: u64,
    cpu_ms: u64,
}

/// What was shown last.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, Row>,
    counters: (u64, u64, u64),
    /// The latest table, for what the simulated persons decide.
    pub(crate) latest: Option<StatusTable>,
}

impl Table {
    pub(super) fn wants(&mut self, action: &Action) -> Verdict {
        let Action::Answer(_, Answer::Status(table)) = action else { return Ok(()) };
        let supervisor = &table.supervisor;
        let counters = (supervisor.accepted, supervisor.sent, supervisor.failed);
        let (before, after) = (self.counters, counters);
        let grow = before.0 <= after.0 && before.1 <= after.1 && before.2 <= after.2;
        demand(grow, "counters grow", || format!("{before:?}, then {after:?}"))?;
        self.counters = counters;
        for row in &table.providers {
            let seen = Row {
                generation: row.generation,
                since_ms: row.since_ms - supervisor.started_ms,
                deaths: row.deaths,
                cpu_ms: row.cpu_ms,
            };
            if let Some(last) = self.rows.insert(row.name.clone(), seen) {
                let same = last.generation == seen.generation;
                let forward = last.generation <= seen.generation
                    && last.deaths <= seen.deaths
                    && (!same || last.cpu_ms <= seen.cpu_ms || seen.cpu_ms == 0)
                    && (!same || last.since_ms <= seen.since_ms + 1000);
                demand(forward, "rows do not go back", || format!("{}: {last:?}, then {seen:?}", row.name))?;
            }
        }
        self.rows.retain(|name, _| table.providers.iter().any(|row| row.name == *name));
        self.latest = Some((**table).clone());
        Ok(())
    }

    /// A provider that leaves the configuration has no row, and begins anew if it comes back.
    pub(super) fn hears(&mut self, event: &Event) {
        if let Event::Reload(config) = event {
            self.rows.retain(|name, _| config.providers.iter().any(|provider| provider.name == *name));
        }
    }

    /// What the latest table says is what is known otherwise.
    pub(crate) fn compare(&self, tokens_out: usize, flights: usize) -> Verdict {
        let Some(table) = &self.latest else { return Ok(()) };
        let row = &table.supervisor;
        demand(u64::from(row.tokens_out) == tokens_out as u64, "the row of the supervisor is true", || {
            format!("{} tokens are shown, {tokens_out} are out", row.tokens_out)
        })?;
        demand(table.messages.len() == flights.min(200), "every message in flight has a row", || {
            format!("{} rows, {flights} deliveries", table.messages.len())
        })
    }

    /// Who lacks a device is shown to be offline.
    pub(crate) fn demand_offline(&self, lacking: &[String]) -> Verdict {
        let rows = self.latest.iter().flat_map(|table| &table.providers);
        let online = rows.filter(|row| lacking.contains(&row.name) && !row.code.contains(StatusCode::OFFLINE));
        let online: Vec<&String> = online.map(|row| &row.name).collect();
        demand(online.is_empty(), "who lacks a device is shown offline", || format!("{online:?}"))
    }

    pub(super) fn supervisor_gone(&mut self) {
        *self = Self::default();
    }
}
