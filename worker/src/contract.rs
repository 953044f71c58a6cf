//! The trait that a provider implements: one method for each call of IXPLogon that the spooler makes.

use spooler_protocol::from_worker::{Destinations, LogonError};
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::settings::Settings;
use spooler_protocol::to_worker::Notification;

use crate::delivery::Delivery;
use crate::support::Support;

/// How much a provider takes at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capacity {
    /// Deliveries that may be in flight at once; 0 for a provider that only receives.
    pub credit: u32,
    /// How they are grouped and limited.
    pub destinations: Destinations,
}

/// A transport provider.
///
/// All methods run on one thread and only while the worker holds a token. A method that waits for the network or a timer gives the
/// token back by itself; one that computes for long calls [`Support::spooler_yield`] in between. Blocking system calls belong into
/// `tokio::task::spawn_blocking`.
#[expect(async_fn_in_trait, reason = "providers run on one thread; their futures need not be Send")]
pub trait Provider: Sized + 'static {
    /// The settings after reading.
    type Settings: 'static;

    /// Reads the provider's table of the configuration. Does nothing else: `spooler check` calls it too. Mistakes are noted in
    /// `settings`; a value that could not be read takes its default.
    fn settings(settings: &mut Settings) -> Self::Settings;

    /// Begins a session (IXPProvider::TransportLogon). There is no person to ask.
    ///
    /// # Errors
    /// [`LogonError::Unconfigured`] if only a change of settings helps, [`LogonError::Failed`] if it is worth trying again.
    async fn logon(support: Support, settings: Self::Settings) -> Result<Self, LogonError>;

    /// The address types that are served where the configuration says nothing else (IXPLogon::AddressTypes).
    fn address_types(&self) -> Vec<String>;

    /// What the status row shows as identity: a relay, a folder, listening addresses.
    fn identity(&self) -> String;

    /// How much is taken at once.
    fn capacity(&self) -> Capacity {
        Capacity::default()
    }

    /// Delivers one message to the recipients of `delivery` (IXPLogon::SubmitMessage), saying of each with
    /// [`Delivery::settle`] what became of it. Several calls run side by side, as many as [`Provider::capacity`] allows.
    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let _ = delivery;
        SubmitResult::NotMe
    }

    /// News that the provider may have to act on (IXPLogon::TransportNotify). May arrive while deliveries run.
    async fn notify(&self, notification: Notification) {
        let _ = notification;
    }

    /// Ends the session (IXPLogon::TransportLogoff). Deliveries in flight have ended, or are dropped if `hurry`.
    async fn logoff(&self, hurry: bool) {
        let _ = hurry;
    }
}
