//! What the connections of one provider share.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::input::Spare;
use super::networks::Network;
use super::received::DateCache;
use super::session::Rules;
use crate::support::Support;

/// Shared by all connections of a provider.
pub(super) struct Service {
    /// The spooler.
    pub(super) support: Support,
    /// What holds for each session.
    pub(super) rules: Rc<Rules>,
    /// How long a client may say nothing.
    pub(super) timeout: Duration,
    /// Who may submit without a password.
    pub(super) relay_from: Vec<Network>,
    /// For STARTTLS.
    pub(super) tls: Option<TlsAcceptor>,
    /// Connections at once.
    pub(super) connections_max: u32,
    /// Input buffers between two uses.
    pub(super) spare: RefCell<Spare>,
    /// For trace headers.
    pub(super) dates: RefCell<DateCache>,
    /// Connections now.
    pub(super) connections: Cell<u32>,
    /// The last connection has ended.
    pub(super) emptied: Notify,
}

impl Service {
    /// A place for one more connection, if there is one.
    pub(super) fn slot(self: &Rc<Self>) -> Option<Slot> {
        let connections = self.connections.get();
        if connections >= self.connections_max {
            return None;
        }
        self.connections.set(connections + 1);
        Some(Slot(Rc::clone(self)))
    }

    /// Whether an address may submit without a password.
    pub(super) fn may_relay(&self, peer: IpAddr) -> bool {
        self.relay_from.iter().any(|network| network.contains(peer))
    }

    /// Waits until there is no connection.
    pub(super) async fn until_empty(&self) {
        while self.connections.get() > 0 {
            self.emptied.notified().await;
        }
    }
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Slot(Rc<Service>);

impl Slot {
    /// Whose place it is.
    pub(super) fn service(&self) -> &Rc<Service> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let connections = self.0.connections.get().saturating_sub(1);
        self.0.connections.set(connections);
        if connections == 0 {
            self.0.emptied.notify_one();
        }
    }
}
