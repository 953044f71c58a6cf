//! What the spooler has begun and not ended: inbound, outbound, flushes.
//!
//! ```text
//!   logon with NO_INBOUND ──▶ ended ◀──EndInbound── begun ◀── logon without
//!                               └────BeginInbound────▶┘           (outbound alike)
//! ```

use std::cell::Cell;

use spooler_protocol::calls::{FlushFlags, LogonFlags};
use spooler_protocol::from_worker::RowUpdate;
use spooler_protocol::notification::Notification;
use tokio::sync::Notify;

use super::Support;

/// The spooler's last word about each direction.
#[derive(Debug)]
pub(crate) struct Directions {
    inbound: Cell<bool>,
    outbound: Cell<bool>,
    flushing: Cell<FlushFlags>,
    changed: Notify,
}

impl Directions {
    /// As a session begins.
    pub(crate) fn new(flags: LogonFlags) -> Self {
        Self {
            inbound: Cell::new(!flags.contains(LogonFlags::NO_INBOUND)),
            outbound: Cell::new(!flags.contains(LogonFlags::NO_OUTBOUND)),
            flushing: Cell::default(),
            changed: Notify::new(),
        }
    }

    /// Whether inbound has begun and not ended.
    pub(crate) fn inbound(&self) -> bool {
        self.inbound.get()
    }

    /// Whether outbound has begun and not ended.
    pub(crate) fn outbound(&self) -> bool {
        self.outbound.get()
    }

    /// What is being flushed: [`FlushFlags::INBOUND`], [`FlushFlags::OUTBOUND`], both or nothing.
    pub(crate) fn flushing(&self) -> FlushFlags {
        self.flushing.get()
    }

    /// Hears news that begins or ends something.
    pub(crate) fn on_notification(&self, notification: &Notification) {
        match notification {
            Notification::BeginInbound => self.set_inbound(true),
            Notification::EndInbound => self.set_inbound(false),
            Notification::BeginOutbound => self.outbound.set(true),
            Notification::EndOutbound => self.outbound.set(false),
            Notification::BeginInboundFlush => self.set_flushing(FlushFlags::INBOUND, true),
            Notification::EndInboundFlush => self.set_flushing(FlushFlags::INBOUND, false),
            Notification::BeginOutboundFlush => self.set_flushing(FlushFlags::OUTBOUND, true),
            Notification::EndOutboundFlush => self.set_flushing(FlushFlags::OUTBOUND, false),
            Notification::CancelMessage(_)
            | Notification::CancelInbound
            | Notification::AbortDeferred { .. }
            | Notification::System(_) => {}
        }
    }

    /// Everything ends: the session does.
    pub(crate) fn end(&self) {
        self.set_inbound(false);
        self.outbound.set(false);
    }

    /// Waits until inbound has begun (`true`) or ended.
    pub(crate) async fn until_inbound(&self, begun: bool) {
        loop {
            let changed = self.changed.notified();
            if self.inbound.get() == begun {
                return;
            }
            changed.await;
        }
    }

    fn set_inbound(&self, begun: bool) {
        self.inbound.set(begun);
        self.changed.notify_waiters();
    }

    fn set_flushing(&self, what: FlushFlags, on: bool) {
        let FlushFlags(before) = self.flushing.get();
        self.flushing.set(FlushFlags(if on { before | what.0 } else { before & !what.0 }));
    }
}

impl Support {
    /// Hears what the spooler begins and ends.
    pub(crate) fn hear(&self, notification: &Notification) {
        self.hear_cancellation(notification);
        self.inner.directions.on_notification(notification);
        let flushing = self.flushing() != FlushFlags::default();
        self.inner.session.borrow_mut().on_flush(flushing);
    }

    /// Hears a cancellation: at once when it comes, and again in its turn, for what was still waiting to begin.
    pub(crate) fn hear_cancellation(&self, notification: &Notification) {
        match notification {
            Notification::CancelMessage(delivery) => {
                if let Some(state) = self.inner.deliveries.borrow().get(delivery)
                    && state.cancel()
                {
                    self.inner.cancelled.borrow_mut().push(*delivery);
                }
            }
            Notification::CancelInbound => self.inner.receiving.borrow().cancel(),
            _ => {}
        }
    }

    /// A flush has ended, and the provider knows it: bits of its row that still stand for it are cleared.
    pub(crate) fn clear_flush_bits(&self, ended: FlushFlags) {
        let FlushFlags(set) = self.inner.rows.borrow().flushing();
        let off = |flag: FlushFlags| (set & ended.0 & flag.0 != 0).then_some(false);
        let (inbound_flush, outbound_flush) = (off(FlushFlags::INBOUND), off(FlushFlags::OUTBOUND));
        if inbound_flush.is_some() || outbound_flush.is_some() {
            self.modify_status_row(RowUpdate { inbound_flush, outbound_flush, ..RowUpdate::default() });
        }
    }
}
