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

    /// What FlushQueues is called with. `person`: somebody wants it now, whatever it costs; `watched`: somebody looks on. ASYNC_OK is a
    /// client's word to the spooler and never goes to a provider.
    pub(super) fn flags(self, person: bool, watched: bool) -> FlushFlags {
        let flag = |on: bool, flag| if on { flag } else { FlushFlags::default() };
        flag(self.outbound, FlushFlags::OUTBOUND)
            | flag(self.inbound, FlushFlags::INBOUND)
            | flag(person, FlushFlags::FORCE)
            | flag(!watched, FlushFlags::NO_UI)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_who_wants_it_and_who_looks_on_and_nothing_of_clients() {
        let said = |person, watched| Ways::BOTH.flags(person, watched).0;
        assert_eq!((said(true, true), said(true, false), said(false, false)), (0x0e, 0x1e, 0x16));
        assert_eq!(Ways::OUTBOUND.flags(true, true), FlushFlags::OUTBOUND | FlushFlags::FORCE);
    }
}
