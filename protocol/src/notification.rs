//! News for a provider: what the spooler begins and ends, and what happens to the machine.

use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, MessageId};

/// News that the provider may have to act on (IXPLogon::TransportNotify and the system messages), delivered between slices, also
/// while deliveries run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notification {
    /// Inbound may begin (NOTIFY_BEGIN_INBOUND, 0x1).
    BeginInbound,
    /// Inbound must stop; what is being received is finished (NOTIFY_END_INBOUND, 0x10000).
    EndInbound,
    /// Outbound may begin (NOTIFY_BEGIN_OUTBOUND, 0x2).
    BeginOutbound,
    /// No new deliveries come; those that run are finished (NOTIFY_END_OUTBOUND, 0x20000).
    EndOutbound,
    /// Receive everything that waits, now (NOTIFY_BEGIN_INBOUND_FLUSH, 0x4).
    BeginInboundFlush,
    /// The inbound flush is over (NOTIFY_END_INBOUND_FLUSH, 0x40000).
    EndInboundFlush,
    /// Everything that waits is sent, now (NOTIFY_BEGIN_OUTBOUND_FLUSH, 0x8).
    BeginOutboundFlush,
    /// The outbound flush is over (NOTIFY_END_OUTBOUND_FLUSH, 0x80000).
    EndOutboundFlush,
    /// Stop this delivery for recipients not served yet (NOTIFY_CANCEL_MESSAGE, 0x80000000).
    CancelMessage(DeliveryId),
    /// Stop receiving the message of `start_message`; its source keeps it (NOTIFY_CANCEL_MESSAGE with MAPI's inbound reference 1).
    CancelInbound,
    /// A deferred message is not waited for any more (NOTIFY_ABORT_DEFERRED, 0x40000000).
    AbortDeferred {
        /// Which.
        message: MessageId,
        /// Whether somebody gave it up (with NOTIFY_CANCEL_MESSAGE); otherwise the spooler logs off while it is queued.
        cancelled: bool,
    },
    /// Something happens to the machine.
    System(SystemMessage),
}

/// Something that happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemMessage {
    /// The machine, or the spooler, shuts down.
    Shutdown,
    /// Power fails: what can be saved should be saved now.
    PowerFailure,
    /// The machine is about to sleep.
    Suspend,
    /// The machine has woken up.
    Resume,
    /// A device appeared.
    DeviceAdded(Device),
    /// A device has gone.
    DeviceRemoved(Device),
    /// A network interface can be used.
    LinkUp {
        /// Its name, such as `eth0`.
        interface: String,
    },
    /// A network interface cannot be used any more.
    LinkDown {
        /// Its name, such as `eth0`.
        interface: String,
    },
}

/// A device of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The kernel's subsystem, such as `tty`, `usb` or `net`.
    pub subsystem: String,
    /// The name below `/dev` if it has one, such as `ttyUSB0`; else the last part of its path in sysfs.
    pub name: String,
}
