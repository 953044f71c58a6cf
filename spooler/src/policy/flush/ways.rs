//! Which way mail goes in a flush: out, in, or both; and the bits and flags that stand for it.

use spooler_protocol::calls::FlushFlags;
use spooler_protocol::status::StatusCode;

/// Which queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// What goes out.
    pub outbound: bool,
    /// What comes in.
    pub inbound: bool,
}

impl Ways {
    /// Both.
    pub const BOTH: Self = Self { outbound: true, inbound: true };
    /// What goes out.
    pub const OUTBOUND: Self = Self { outbound: true, inbound: false };
    /// What comes in.
    pub const INBOUND: Self = Self { outbound: false, inbound: true };

    /// The ways whose flush bits are set.
    #[must_use]
    pub fn of(code: StatusCode) -> Self {
        Self { outbound: code.contains(StatusCode::OUTBOUND_FLUSH), inbound: code.contains(StatusCode::INBOUND_FLUSH) }
    }

    /// The flush bits of these ways.
    #[must_use]
    pub fn bits(self) -> StatusCode {
        StatusCode::OUTBOUND_FLUSH.when(self.outbound) | StatusCode::INBOUND_FLUSH.when(self.inbound)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// These and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { outbound: self.outbound || other.outbound, inbound: self.inbound || other.inbound }
    }

    /// These without others.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self { outbound: self.outbound && !other.outbound, inbound: self.inbound && !other.inbound }
    }

    /// What FlushQueues is called with; `watched`: a person waits.
    pub(super) fn flags(self, watched: bool) -> FlushFlags {
        let mut flags = FlushFlags::default();
        if self.outbound {
            flags |= FlushFlags::OUTBOUND;
        }
        if self.inbound {
            flags |= FlushFlags::INBOUND;
        }
        // A person wants it now; otherwise nobody looks.
        flags | if watched { FlushFlags::FORCE } else { FlushFlags::NO_UI | FlushFlags::ASYNC_OK }
    }
}
