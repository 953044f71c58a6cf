//! Whether the configured hosts can be reached, as the status row says it.
//!
//! ```text
//!              no host gives a session: row offline, text why
//!   online ───────────────────────────────────────────────────▶ offline ──┐ tries again by itself, ever less often;
//!      ▲                                                            │     │ a delivery that gets through counts too
//!      └──────────── a session: row online ─────────────────────────┘◀────┘
//! ```
//!
//! The spooler may hold messages back while a provider is offline, so waiting for the next delivery to find out would be waiting for
//! ever. Delivery by MX is never offline by itself: one domain says nothing about the next. Told to make no connections, the provider
//! is offline and tries nothing until it is told otherwise.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use spooler_protocol::from_worker::RowUpdate;
use spooler_protocol::outcome::Cause;

use super::Client;
use super::dial::NoSession;
use crate::support::Support;

const FIRST_TRY: Duration = Duration::from_secs(1);
const LAST_TRY: Duration = Duration::from_secs(60);

/// A server that does not like our password is not asked often: it might lock the account.
const AUTH_TRY: Duration = Duration::from_secs(300);

/// What the row says while no connection may be made.
pub(super) const STAYS_OFFLINE: &str = "No connections are made: it was told to stay offline";

/// What the row says.
#[derive(Debug)]
pub(super) struct Health {
    support: Support,
    offline: Cell<bool>,
    probed: Cell<bool>,
    /// Whether it was told to make no connections.
    told_off: Cell<bool>,
}

impl Health {
    /// Online, until something else is known.
    pub(super) fn new(support: Support) -> Self {
        Self { support, offline: Cell::new(false), probed: Cell::new(false), told_off: Cell::new(false) }
    }

    /// There is a session.
    pub(super) fn good(&self, remote: &str) {
        if !self.told_off.get() && self.offline.replace(false) {
            self.show(false, format!("Connected to {remote}"));
        }
    }

    /// No connection may be made from now on.
    pub(super) fn stay_offline(&self) {
        self.told_off.set(true);
        self.offline.set(true);
        self.show(true, STAYS_OFFLINE.to_owned());
    }

    /// Connections may be made again.
    pub(super) fn may_connect(&self) {
        if self.told_off.replace(false) {
            self.offline.set(false);
            self.show(false, String::new());
        }
    }

    /// Whether no connection may be made.
    pub(super) fn stays_offline(&self) -> bool {
        self.told_off.get()
    }

    fn show(&self, offline: bool, text: String) {
        self.support.modify_status_row(RowUpdate { text: Some(text), offline: Some(offline), ..RowUpdate::default() });
    }
}

/// No host gives a session. If none can be reached, or none believes our password, says so once, and tries until one does. A host
/// that answers but is busy is not offline: other sessions with it may be doing well.
pub(super) fn bad(client: &Rc<Client>, why: &NoSession) {
    let (reply, first_try) = match why {
        NoSession::Temporary(reply) if reply.cause == Cause::Connect => (reply, FIRST_TRY),
        NoSession::Auth(reply) => (reply, AUTH_TRY),
        NoSession::Permanent(_) | NoSession::Temporary(_) => return,
    };
    if client.by_domain() || client.health.offline.replace(true) {
        return;
    }
    client.health.show(true, reply.to_string());
    if matches!(why, NoSession::Auth(_)) {
        tracing::warn!(
            "the server does not accept the login, and mail waits: {reply}; correct username and password, then reload"
        );
    }
    if !client.health.probed.replace(true) {
        client.support.spawn(probe(Rc::clone(client), first_try));
    }
}

async fn probe(client: Rc<Client>, first_try: Duration) {
    let mut pause = first_try;
    loop {
        let jitter = pause.mul_f64(fastrand::f64() / 4.0);
        tokio::time::sleep(pause + jitter).await;
        if !client.health.offline.get() || client.health.stays_offline() {
            break;
        }
        match client.dialer.dial("", &|_| {}).await {
            Ok(connection) => {
                client.health.good(&connection.remote);
                client.pool.put("", connection);
                break;
            }
            Err(NoSession::Auth(_)) => pause = AUTH_TRY,
            Err(NoSession::Permanent(_) | NoSession::Temporary(_)) => pause = (pause * 2).min(LAST_TRY),
        }
    }
    client.health.probed.set(false);
}
