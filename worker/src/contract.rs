//! The trait that a provider implements: one method for each call of IXPLogon that the spooler makes.

use std::rc::Rc;

use spooler_protocol::calls::{CallError, EndMessage, FlushFlags, Methods, ValidateFlags, Wishes};
use spooler_protocol::from_worker::{Destinations, LogonError};
use spooler_protocol::ids::DeliveryId;
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::settings::Settings;

use crate::delivery::Delivery;
use crate::inbound::Inbound;
use crate::probe::{Probe, Probed};
use crate::sandbox::Needs;
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
///
/// Calls run side by side: as many deliveries as [`Provider::capacity`] allows, and beside them one each of `poll`, `start_message`,
/// `idle` and `flush_queues`, validations, and news, one word after another. When the session ends softly, what is under way is
/// finished before [`Provider::logoff`], but for `idle`; in a hurry everything is dropped.
#[expect(async_fn_in_trait, reason = "providers run on one thread; their futures need not be Send")]
pub trait Provider: Sized + 'static {
    /// The settings after reading.
    type Settings: 'static;

    /// Reads the provider's table of the configuration. Does nothing else: `spooler check` calls it too. Mistakes are noted in
    /// `settings`; a value that could not be read takes its default.
    fn settings(settings: &mut Settings) -> Self::Settings;

    /// The address types that every provider of this kind serves where the configuration says nothing else, for `spooler check`; `None`
    /// if only a running one knows ([`Provider::address_types`]).
    #[must_use]
    fn usual_types() -> Option<&'static [&'static str]> {
        None
    }

    /// What the provider needs of the machine with these settings: the worker closes its sandbox around that before the logon, and
    /// nothing else can be done from then on. Does nothing but look at the settings, and at what they name.
    fn needs(settings: &Self::Settings) -> Needs;

    /// Begins a session (IXPProvider::TransportLogon). [`Support::logon_flags`] says what is allowed, [`Support::prompt`] asks a
    /// person where there is one.
    ///
    /// # Errors
    /// [`LogonError::Unconfigured`] if only a change of settings helps, [`LogonError::Failed`] if it is worth trying again; see there
    /// for the rest.
    async fn logon(support: Support, settings: Self::Settings) -> Result<Self, LogonError>;

    /// Tries whether it works with these settings, without a message and without a session, saying each step (`spooler probe`). The files,
    /// folders and devices that it needs are looked at where a kind does nothing else.
    async fn probe(settings: Self::Settings, probe: Rc<Probe>) -> Probed {
        probe.needs(&Self::needs(&settings))
    }

    /// The address types that are served where the configuration says nothing else (IXPLogon::AddressTypes); `*` is any type. Asked
    /// again after [`Support::configuration_changed`], like everything else that the provider says of itself.
    fn address_types(&self) -> Vec<String>;

    /// What the status row shows as identity: a relay, a folder, listening addresses.
    fn identity(&self) -> String;

    /// How much is taken at once.
    fn capacity(&self) -> Capacity {
        Capacity::default()
    }

    /// Which calls the provider wishes to get (LOGON_SP_IDLE, LOGON_SP_POLL, LOGON_SP_RESOLVE).
    fn wishes(&self) -> Wishes {
        Wishes::default()
    }

    /// What can be done with its row.
    fn methods(&self) -> Methods {
        Methods::VALIDATE_STATE | Methods::FLUSH_QUEUES
    }

    /// Whether it wishes to be tried after all others (STATUS_XP_PREFER_LAST).
    fn prefer_last(&self) -> bool {
        false
    }

    /// Delivers one message to the recipients of `delivery` (IXPLogon::SubmitMessage), saying of each with
    /// [`Delivery::settle`] what became of it. Several calls run side by side, as many as [`Provider::capacity`] allows.
    /// [`SubmitResult::Busy`] and [`SubmitResult::NotMe`] promise that nothing was done: what was settled all the same is not heard.
    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let _ = delivery;
        SubmitResult::NotMe
    }

    /// A delivery whose `submit_message` returned [`SubmitResult::Done`] is over (IXPLogon::EndMessage): what was opened for it is
    /// released, and the answer says whether the message is wanted again. Not called after any other result. What was settled goes
    /// to disk together with the answer.
    async fn end_message(&self, delivery: DeliveryId) -> EndMessage {
        let _ = delivery;
        EndMessage::Done
    }

    /// Whether a message waits to be received (IXPLogon::Poll). Called at the provider's `poll_interval` if it wishes
    /// [`Wishes::POLL`], while inbound has begun and outside critical sections.
    async fn poll(&self) -> bool {
        false
    }

    /// Receives one message into `message` and hands it over with [`Inbound::accept`] (IXPLogon::StartMessage). Returning without
    /// that means that there was nothing. The source may be deleted only after `accept` has returned; after a cancellation
    /// ([`Inbound::cancelled`]) it refuses. The row shows that it is being received (STATUS_INBOUND_ACTIVE).
    ///
    /// # Errors
    /// What went wrong, for the row; what was written of the message is forgotten and the source has to keep it.
    async fn start_message(&self, message: Inbound) -> Result<(), String> {
        drop(message);
        Ok(())
    }

    /// The machine is idle: time for housekeeping (IXPLogon::Idle). Called only if it wishes [`Wishes::IDLE`], at no promised rate.
    async fn idle(&self) {}

    /// A flush begins (IXPLogon::FlushQueues): connect to what is needed and set the flush bits of the row that stand for `flags`.
    /// Without a method of its own, a provider has them set for it.
    ///
    /// # Errors
    /// If there can be no flush now.
    async fn flush_queues(&self, support: &Support, flags: FlushFlags) -> Result<(), CallError> {
        support.set_flush_bits(flags);
        Ok(())
    }

    /// Looks after the provider's state (IXPLogon::ValidateState), mostly by setting bits that ask for work later. In a critical
    /// section it is not called: the answer is [`CallError::Busy`].
    ///
    /// # Errors
    /// Why it does not.
    async fn validate_state(&self, support: &Support, flags: ValidateFlags) -> Result<(), CallError> {
        if flags.contains(ValidateFlags::CONFIG_CHANGED) {
            support.configuration_changed();
        }
        let known = ValidateFlags::SUPPRESS_UI | ValidateFlags::CONFIG_CHANGED;
        if known.contains(flags) { Ok(()) } else { Err(CallError::NoSupport) }
    }

    /// News that the provider may have to act on (IXPLogon::TransportNotify). Arrives while deliveries run, in its order: the next word
    /// waits until this call is over, so it should not take long. What can be seen from [`Support`], [`Delivery`] and [`Inbound`]
    /// (inbound ended, a flush, a cancellation) is already so. That a flush runs shows by itself: a bit of the row that is set when it is
    /// over already asks for another one. After its end the bit is cleared, if the provider has not done that here.
    async fn notify(&self, notification: &Notification) {
        let _ = notification;
    }

    /// Ends the session (IXPLogon::TransportLogoff). What was under way has ended, or was dropped if `hurry`. A hurry that comes while
    /// a soft logoff waits drops that call and makes a second one, which may take three seconds.
    async fn logoff(&self, hurry: bool) {
        let _ = hurry;
    }
}
