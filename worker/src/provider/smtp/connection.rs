//! A session with a server that is ready for the next message.

use std::rc::Rc;

use spooler_protocol::outcome::Hop;

use super::extensions::Extensions;
use super::wire::Wire;

/// A session that can take messages, one after another.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    /// What the server offered last.
    pub(super) offered: Extensions,
    /// Who it is: `host[address]`, or the path of a socket.
    pub(super) remote: Rc<str>,
    /// How it was reached.
    pub(super) hop: Hop,
    /// Messages that went over it.
    pub(super) served: u32,
    /// It waited in the pool, so the server may have closed it meanwhile.
    pub(super) reused: bool,
    /// The server may still be in the middle of the last message: RSET comes first.
    pub(super) needs_reset: bool,
}

impl Connection {
    pub(super) fn new(wire: Wire, offered: Extensions, remote: Rc<str>) -> Self {
        Self { wire, offered, remote, hop: Hop::default(), served: 0, reused: false, needs_reset: false }
    }
}
