//! A type for each identity, so that no two can be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A message in the store. Never used twice in one spool; ascending in order of acceptance.
    MessageId
}
id! {
    /// Which incarnation of a worker speaks. Grows over the life of the supervisor, across all providers.
    Generation
}
id! {
    /// One grant of the CPU to one worker. A token of an older number is void.
    Token
}
id! {
    /// One delivery in the hands of one worker: what MAPI calls the message reference.
    DeliveryId
}
id! {
    /// One message on its way in from a worker, chosen by the worker.
    AcceptId
}
id! {
    /// One request of a worker for a piece of a body, chosen by the worker.
    RequestId
}
