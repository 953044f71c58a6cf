//! The calls of the provider contract that are not deliveries: their flags and their answers, with MAPI's values where it has some.

use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident { $($(#[$bit_doc:meta])* $bit:ident = $value:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)*

            /// All bits that mean something.
            pub const ALL: Self = Self(0 $(| $value)*);

            /// Whether all bits of `other` are set.
            #[must_use]
            pub fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }
    };
}

bits! {
    /// How a session begins (flags of IXPProvider::TransportLogon).
    LogonFlags {
        /// There is nobody to ask (LOGON_NO_DIALOG).
        NO_DIALOG = 0x0000_0001;
        /// Make no connection to the outside (LOGON_NO_CONNECT).
        NO_CONNECT = 0x0000_0004;
        /// Do not receive before [`crate::notification::Notification::BeginInbound`] (LOGON_NO_INBOUND).
        NO_INBOUND = 0x0000_0008;
        /// Nothing is sent before [`crate::notification::Notification::BeginOutbound`] (LOGON_NO_OUTBOUND).
        NO_OUTBOUND = 0x0000_0010;
    }
}

bits! {
    /// What a provider wishes for its session (flags that TransportLogon gives back).
    Wishes {
        /// To be called when the machine is idle (LOGON_SP_IDLE).
        IDLE = 0x0001_0000;
        /// To be asked from time to time whether messages wait (LOGON_SP_POLL).
        POLL = 0x0002_0000;
        /// To see the recipients that others serve, too (LOGON_SP_RESOLVE).
        RESOLVE = 0x0004_0000;
    }
}

bits! {
    /// What can be done with a provider's row (PR_RESOURCE_METHODS, 0x3E02).
    Methods {
        /// ValidateState.
        VALIDATE_STATE = 0x1;
        /// SettingsDialog.
        SETTINGS_DIALOG = 0x2;
        /// ChangePassword.
        CHANGE_PASSWORD = 0x4;
        /// FlushQueues.
        FLUSH_QUEUES = 0x8;
    }
}

bits! {
    /// What is to be flushed and how (flags of IXPLogon::FlushQueues).
    FlushFlags {
        /// What goes out (FLUSH_UPLOAD).
        OUTBOUND = 0x02;
        /// What comes in (FLUSH_DOWNLOAD).
        INBOUND = 0x04;
        /// Whatever it costs (FLUSH_FORCE).
        FORCE = 0x08;
        /// Without showing progress (FLUSH_NO_UI).
        NO_UI = 0x10;
        /// The client need not wait for the end (FLUSH_ASYNC_OK). Said to the spooler only, never to a provider.
        ASYNC_OK = 0x20;
    }
}

bits! {
    /// What is to be validated (flags of IXPLogon::ValidateState).
    ValidateFlags {
        /// Ask nobody (SUPPRESS_UI).
        SUPPRESS_UI = 0x0000_0001;
        /// Read the headers of what waits at the remote again (REFRESH_XP_HEADER_CACHE).
        REFRESH_HEADERS = 0x0001_0000;
        /// Do what was marked in the headers (PROCESS_XP_HEADER_CACHE).
        PROCESS_HEADERS = 0x0002_0000;
        /// Connect at the next flush (FORCE_XP_CONNECT).
        CONNECT = 0x0004_0000;
        /// Let the connection go (FORCE_XP_DISCONNECT).
        DISCONNECT = 0x0008_0000;
        /// The settings have changed (CONFIG_CHANGED).
        CONFIG_CHANGED = 0x0010_0000;
        /// Stop what runs because of the headers (ABORT_XP_HEADER_OPERATION).
        ABORT_HEADERS = 0x0020_0000;
        /// Show the connection (SHOW_XP_SESSION_UI).
        SHOW_SESSION = 0x0040_0000;
    }
}

/// Why a call did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CallError {
    /// Another operation runs, or a critical section (MAPI_E_BUSY, 0x8004010B).
    #[error("it is busy; try again in a moment")]
    Busy,
    /// The provider cannot do this (MAPI_E_NO_SUPPORT, 0x80040102).
    #[error("the provider cannot do this")]
    NoSupport,
    /// A flag that means nothing (MAPI_E_UNKNOWN_FLAGS, 0x80040106).
    #[error("a flag means nothing to the provider")]
    UnknownFlags,
    /// It failed; why.
    #[error("{0}")]
    Failed(String),
}

/// What the provider wants done with a message whose `submit_message` went well (flags of IXPLogon::EndMessage).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndMessage {
    /// Nothing more: what was settled is settled (0).
    #[default]
    Done,
    /// The same message again, at once (END_RESEND_NOW, 0x10000). Recipients that were settled are not offered again.
    ResendNow,
    /// The same message again, later (END_RESEND_LATER, 0x20000).
    ResendLater,
    /// The provider keeps what it needs and says so when it wants the message again: [`SpoolerNotify::SentDeferred`]
    /// (END_DONT_RESEND, 0x40000).
    Deferred,
}

/// How a call of `start_message` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartResult {
    /// A message was handed over and is on disk, or an inbound hook has discarded it: its source need not keep it.
    Saved,
    /// Nothing was handed over: there was nothing to receive.
    NotSaved,
    /// It failed. What was handed over of the message is forgotten; the source keeps it.
    Failed(String),
}

/// What a provider tells the spooler at any time of its session (IMAPISupport::SpoolerNotify).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpoolerNotify {
    /// Messages wait to be received (NOTIFY_NEWMAIL, 0x1). Not heard while inbound has not begun.
    NewMail,
    /// It can send (again) (NOTIFY_READYTOSEND, 0x2). Not heard while outbound has not begun.
    ReadyToSend,
    /// It wants a deferred message again (NOTIFY_SENTDEFERRED, 0x4).
    SentDeferred(crate::ids::MessageId),
    /// Address types, credit, identity or wishes have changed (NOTIFY_CONFIG_CHANGE, 0x4000).
    ConfigChange,
    /// It cannot go on; nothing more is called until it is validated or started anew (NOTIFY_CRITICAL_ERROR, 0x10000000).
    CriticalError(String),
}

/// What a provider wants its message's sender to be told about a recipient (IMAPISupport::StatusRecips).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatusReport {
    /// It was delivered: a delivery report, even if none was asked for.
    Delivered(crate::outcome::Reply),
    /// It could not be delivered: a non-delivery report.
    Failed(crate::outcome::Reply),
}

/// A question that a provider has at logon, for a person to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Names the answer: the key of the setting that is missing.
    pub key: String,
    /// What the person is asked.
    pub label: String,
    /// Whether the answer must not be shown.
    pub secret: bool,
}
