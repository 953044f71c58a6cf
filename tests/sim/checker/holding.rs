//! What a worker holds, wants and is in, as far as tokens go.

use std::collections::BTreeSet;

use spooler::policy::priority_plan::Level;
use spooler::supervisor::event::WorkerId;
use spooler_protocol::calls::FlushFlags;
use spooler_protocol::ids::Token;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Idle,
    Wanting {
        /// Since when somebody may say that it waits too long.
        since_ms: i64,
        /// When it asked.
        asked_ms: i64,
    },
    Holding {
        token: Token,
        recalled_ms: Option<i64>,
        /// It may have got its token beside the slots, because it had waited so long: until then.
        forced_until_ms: Option<i64>,
        /// There was no slot for it for sure.
        beside_slots: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Those that are open, by number.
    pub(super) open: BTreeSet<u64>,
    pub(super) since_ms: i64,
    /// The priority was refused: nobody else gets a token.
    pub(super) alone: bool,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) interactive: bool,
    /// It logs on or off.
    pub(super) passing: bool,
    pub(super) logs_off: bool,
    /// It is told that the machine is about to go.
    pub(super) told: bool,
    /// In which directions it is flushed.
    pub(super) flushing: FlushFlags,
    pub(super) hold: Hold,
    pub(super) section: Option<Section>,
    pub(super) level: Option<Level>,
    pub(super) cpu_us: u64,
    /// When it gave its last token back.
    pub(super) idle_ms: i64,
}
