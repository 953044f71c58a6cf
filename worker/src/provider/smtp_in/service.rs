//! What the connections of one provider share, and who gets a connection.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use spooler_protocol::from_worker::RowUpdate;
use spooler_protocol::places::{Entry, Places, Ticket};
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
    /// How long a client may say nothing, and how long a command may take.
    pub(super) timeout: Duration,
    /// Bytes a second below which content does not come in time; 0: whatever it takes.
    pub(super) rate_min: u64,
    /// Who may submit without a password.
    pub(super) relay_from: Vec<Network>,
    /// For STARTTLS.
    pub(super) tls: Option<TlsAcceptor>,
    /// Input buffers between two uses.
    pub(super) spare: RefCell<Spare>,
    /// For trace headers.
    pub(super) dates: RefCell<DateCache>,
    /// Who is connected.
    pub(super) connections: RefCell<Connections>,
    /// The last connection has ended.
    pub(super) emptied: Notify,
    /// Addresses that cannot be listened on, and why.
    pub(super) troubles: RefCell<BTreeMap<SocketAddr, String>>,
}

impl Service {
    /// A place for one more connection from an address; if there is none, the reason.
    pub(super) fn slot(self: &Rc<Self>, peer: IpAddr) -> Result<Slot, NoPlace> {
        let ticket = self.connections.borrow_mut().enter(peer)?;
        Ok(Slot { service: Rc::clone(self), ticket })
    }

    /// Whether an address may submit without a password.
    pub(super) fn may_relay(&self, peer: IpAddr) -> bool {
        self.relay_from.iter().any(|network| network.contains(peer))
    }

    /// Shows in the row, and once in the log, that an address cannot be listened on; or that it can again.
    pub(super) fn show_trouble(&self, address: SocketAddr, trouble: Option<String>) {
        let mut troubles = self.troubles.borrow_mut();
        if troubles.get(&address) == trouble.as_ref() {
            return;
        }
        match trouble {
            Some(trouble) => {
                tracing::warn!("{trouble}");
                troubles.insert(address, trouble);
            }
            None => {
                tracing::info!("listening on {address} now");
                troubles.remove(&address);
            }
        }
        let text: Vec<&str> = troubles.values().map(String::as_str).collect();
        let (text, offline) = (Some(text.join(". ")), Some(!troubles.is_empty()));
        self.support.modify_status_row(RowUpdate { text, offline, ..RowUpdate::default() });
    }

    /// Waits until there is no connection.
    pub(super) async fn until_empty(&self) {
        while self.connections.borrow().count() > 0 {
            self.emptied.notified().await;
        }
    }
}

/// Why there is no place for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Its host has all that one host may have.
    ShareIsUsedUp,
    /// There is none at all.
    Full,
}

/// Who is connected, and whom to tell that its place is somebody else's.
#[derive(Debug)]
pub(super) struct Connections {
    places: Places<IpAddr>,
    /// Every connection, also those that have lost their place and are saying goodbye.
    leaving: HashMap<Ticket, Rc<Notify>>,
    begun: Instant,
}

impl Connections {
    /// So many at once, and so many from one host.
    pub(super) fn new(connections_max: u32, per_host_max: u32) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let places = Places::new(count(connections_max), count(per_host_max));
        Self { places, leaving: HashMap::new(), begun: Instant::now() }
    }

    /// Connections now, with those that are saying goodbye.
    pub(super) fn count(&self) -> usize {
        self.leaving.len()
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn enter(&mut self, peer: IpAddr) -> Result<Ticket, NoPlace> {
        let ticket = match self.places.enter(&host(peer), self.now_ms()) {
            Entry::Free(ticket) => ticket,
            Entry::InPlaceOf(ticket, leaving) => {
                if let Some(leaving) = self.leaving.get(&leaving) {
                    leaving.notify_one();
                }
                ticket
            }
            Entry::ShareIsUsedUp => return Err(NoPlace::ShareIsUsedUp),
            Entry::Full => return Err(NoPlace::Full),
        };
        self.leaving.insert(ticket, Rc::default());
        Ok(ticket)
    }
}

/// What counts as one host: an IPv4 address, or a network of 64 bits (RFC 4291 2.5.4), in which one machine has all addresses.
fn host(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Slot {
    service: Rc<Service>,
    ticket: Ticket,
}

impl Slot {
    /// Whose place it is.
    pub(super) fn service(&self) -> &Rc<Service> {
        &self.service
    }

    /// The client has got somewhere: it has said a whole command, or sent a good piece of content.
    pub(super) fn progress(&self) {
        let mut connections = self.service.connections.borrow_mut();
        let now_ms = connections.now_ms();
        connections.places.progress(self.ticket, now_ms);
    }

    /// The client waits for us.
    pub(super) fn busy(&self) {
        self.service.connections.borrow_mut().places.busy(self.ticket);
    }

    /// Waits until its place is somebody else's.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + use<> {
        let leaving = self.service.connections.borrow().leaving.get(&self.ticket).cloned();
        async move {
            match leaving {
                Some(leaving) => leaving.notified().await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut connections = self.service.connections.borrow_mut();
        connections.places.leave(self.ticket);
        connections.leaving.remove(&self.ticket);
        if connections.count() == 0 {
            self.service.emptied.notify_one();
        }
    }
}
