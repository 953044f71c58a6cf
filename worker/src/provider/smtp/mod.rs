//! Sends messages by SMTP (RFC 5321) or LMTP (RFC 2033).
//!
//! ```text
//!   submit_message ─▶ groups by destination ─▶ pool ──── a session ────▶ transaction ─▶ outcome per recipient
//!                                                └─ none: dial ─▶ health      └─ session back to the pool
//! ```
//!
//! | setting | default | |
//! |---|---|---|
//! | `host` | by MX | `"name-or-address[:port]"`, or a list of them, tried in this order |
//! | `socket` | | path of a Unix socket, for LMTP |
//! | `port` | 25; 465 with `tls = "implicit"`; 24 for LMTP | where `host` does not say |
//! | `protocol` | `"smtp"` | or `"lmtp"` |
//! | `tls` | `"opportunistic"`; `"required"` with a password | `"none"`, `"opportunistic"`, `"required"`, `"implicit"` |
//! | `tls_verify` | true for required and implicit | whether the certificate must be good |
//! | `tls_ca_file` | those of the machine | whose certificates are believed (PEM): authorities, or exactly the server's own |
//! | `tls_server_name` | the host's name | for whom the certificate must be |
//! | `username`, `password` or `password_file` | | AUTH PLAIN or LOGIN, over TLS only … A password that is missing is asked for at logon |
//! | `auth` | `["plain", "login"]` | mechanisms that may be used; the next one is tried after a refusal other than 535 |
//! | `auth_without_tls` | false | … unless this is true |
//! | `hostname` | the machine's | for EHLO |
//! | `connections` | 20 | deliveries at once |
//! | `destination_concurrency` | 20 | deliveries at once to one domain, or to the host; 0 for no limit |
//! | `destination_rate` | `"0s"` | least time between two deliveries to one destination |
//! | `connect_timeout` | `"30s"` | for a connection, and for its TLS handshake |
//! | `greeting_timeout`, `command_timeout` | `"5m"` | for the greeting; for the reply to a command |
//! | `data_timeout` | `"10m"` | for 32 KiB to go out, and for the reply at the end |
//! | `connection_idle` | `"5s"` | how long an unused session is kept |
//! | `messages_per_connection` | 100 | |
//! | `chunking` | false | BDAT where it is offered |
//! | `source_address` | | from which address connections go out |
//! | `dns_server` | those of the machine | `"address:port"` |
//!
//! An 8-bit message goes out as it is where 8BITMIME is not offered: nothing is lost on any server of today, and recoding would
//! break signatures. Where SMTPUTF8 is not offered, the recipients that need it fail and the others are served. It is needed by an
//! address whose local part is not ASCII, and by a message whose sender has such an address or that has such a header; the client's
//! word alone does not count.
//!
//! While it is told to make no connections (NO_CONNECT at logon, or ValidateState with DISCONNECT) its row is offline; ValidateState
//! with CONNECT ends that.

mod attempts;
mod auth;
mod command;
mod connection;
mod dial;
pub(crate) mod dot;
mod extensions;
mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod header_scan;
mod health;
mod opening;
mod pool;
mod probe;
mod reply;
mod settings;
mod target;
mod tls;
mod tls_trouble;
mod transaction;
mod wire;

use std::path::Path;
use std::rc::Rc;

use spooler_protocol::calls::{CallError, LogonFlags, ValidateFlags};
use spooler_protocol::from_worker::{Destinations, LogonError};
use spooler_protocol::message::SMTP;
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};
use spooler_protocol::settings::Settings;

use self::auth::Login;
use self::connection::Connection;
use self::dial::{Dialer, NoSession, Say};
use self::health::Health;
use self::opening::Opening;
use self::pool::Pool;
use self::settings::{Credentials, Password, Protocol, Route, SmtpSettings};
use self::target::Dns;
use self::tls::Trust;
use self::transaction::{Ended, Manner, Transaction};
use crate::contract::{Capacity, Provider};
use crate::delivery::Delivery;
use crate::probe::{Probe, Probed};
use crate::sandbox::Needs;
use crate::support::Support;

/// How long a message waits that came while no connection may be made, milliseconds.
const OFFLINE_WAIT_MS: u64 = 60_000;

/// The provider.
pub struct Smtp {
    client: Rc<Client>,
    capacity: Capacity,
}

/// What deliveries and background tasks share.
struct Client {
    support: Support,
    dialer: Dialer,
    pool: Rc<Pool>,
    health: Health,
    manner: Manner,
}

/// Some recipients of a delivery, by their places in it, and where they are served.
struct Group {
    /// The domain in lower case; empty where all go the same way.
    destination: String,
    recipients: Vec<usize>,
}

impl Group {
    fn settle(&self, delivery: &Delivery, outcome: &Outcome) {
        for &index in &self.recipients {
            delivery.settle(index, outcome.clone());
        }
    }
}

impl Provider for Smtp {
    type Settings = SmtpSettings;

    fn settings(settings: &mut Settings) -> SmtpSettings {
        SmtpSettings::read(settings)
    }

    fn usual_types() -> Option<&'static [&'static str]> {
        Some(&[SMTP])
    }

    fn needs(settings: &SmtpSettings) -> Needs {
        settings.needs()
    }

    async fn logon(support: Support, settings: SmtpSettings) -> Result<Self, LogonError> {
        let mut settings = settings;
        let login = match settings.credentials.take() {
            Some(credentials) => Some(login(&support, credentials, &settings)?),
            None => None,
        };
        let interval_ms = u64::try_from(settings.destination_rate.as_millis()).unwrap_or(u64::MAX);
        let by_domain = settings.route == Route::Mx;
        let concurrency = settings.destination_concurrency;
        let destinations = Destinations { by_domain, concurrency, interval_ms };
        let lmtp = settings.protocol == Protocol::Lmtp;
        let credit = settings.connections;
        let client = Client {
            pool: Pool::new(settings.connection_idle, settings.messages_per_connection, support.clone()),
            health: Health::new(support.clone()),
            manner: Manner { lmtp, chunking: settings.chunking, timeouts: settings.timeouts },
            dialer: dialer(settings, login, support.hostname(), &|path| support.file(path))
                .map_err(LogonError::Unconfigured)?,
            support,
        };
        if client.support.logon_flags().contains(LogonFlags::NO_CONNECT) {
            client.health.stay_offline();
        }
        Ok(Self { client: Rc::new(client), capacity: Capacity { credit, destinations } })
    }

    async fn probe(settings: SmtpSettings, probe: Rc<Probe>) -> Probed {
        probe::run(settings, probe).await
    }

    fn address_types(&self) -> Vec<String> {
        vec![SMTP.to_owned()]
    }

    fn identity(&self) -> String {
        let dialer = &self.client.dialer;
        let protocol = if self.client.manner.lmtp { "lmtp" } else { "smtp" };
        match &dialer.route {
            Route::Mx => format!("{protocol} by MX"),
            Route::Socket(path) => format!("{protocol} to {}", path.display()),
            Route::Hosts(hosts) => {
                let shown: Vec<String> = hosts.iter().map(|host| host.with_port(dialer.port)).collect();
                format!("{protocol} to {}", shown.join(", "))
            }
        }
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        if self.client.health.stays_offline() {
            let reply = Reply { cause: Cause::Connect, ..Reply::local(0, "4.4.1", health::STAYS_OFFLINE) };
            return SubmitResult::NetworkError { after_ms: OFFLINE_WAIT_MS, reply: Box::new(reply) };
        }
        let opening = match Opening::read(delivery).await {
            Ok(opening) => opening,
            Err(why) => return SubmitResult::Error(unreadable(&why)),
        };
        let groups = self.client.group(delivery);
        let alone = groups.len() == 1;
        for group in groups {
            match self.client.serve(delivery, &opening, &group).await {
                SubmitResult::Done => {}
                // The other groups may fare better.
                SubmitResult::Error(reply) if !alone => group.settle(delivery, &Outcome::Deferred(reply)),
                result => return result,
            }
        }
        SubmitResult::Done
    }

    async fn validate_state(&self, support: &Support, flags: ValidateFlags) -> Result<(), CallError> {
        let connection = ValidateFlags::CONNECT | ValidateFlags::DISCONNECT;
        let known = ValidateFlags::SUPPRESS_UI | ValidateFlags::CONFIG_CHANGED | connection;
        if !known.contains(flags) || flags.contains(connection) {
            return Err(CallError::NoSupport);
        }
        if flags.contains(ValidateFlags::CONFIG_CHANGED) {
            support.configuration_changed();
        }
        if flags.contains(ValidateFlags::DISCONNECT) {
            self.client.health.stay_offline();
            self.client.pool.close().await;
        }
        if flags.contains(ValidateFlags::CONNECT) {
            self.client.health.may_connect();
        }
        Ok(())
    }

    async fn logoff(&self, hurry: bool) {
        if !hurry {
            self.client.pool.close().await;
        }
    }
}

impl Client {
    fn by_domain(&self) -> bool {
        self.dialer.route == Route::Mx
    }

    /// Shares the recipients out, and settles those that no server could be asked about.
    fn group(&self, delivery: &Delivery) -> Vec<Group> {
        if !command::is_path(&delivery.submission().sender) {
            let text = "The sender's address cannot be used in SMTP";
            delivery.settle_all(&Outcome::Failed(Reply::local(553, "5.1.7", text)));
            return Vec::new();
        }
        let mut groups: Vec<Group> = Vec::new();
        for (index, recipient) in delivery.recipients().iter().enumerate() {
            if !command::is_path(recipient.address.text()) {
                let text = "The recipient's address cannot be used in SMTP";
                delivery.settle(index, Outcome::Failed(Reply::local(553, "5.1.3", text)));
                continue;
            }
            let domain = if self.by_domain() { recipient.address.local_and_domain() } else { None };
            let destination = domain.map_or("", |(_, domain)| domain);
            match groups.iter_mut().find(|group| group.destination.eq_ignore_ascii_case(destination)) {
                Some(group) => group.recipients.push(index),
                None => groups.push(Group { destination: destination.to_ascii_lowercase(), recipients: vec![index] }),
            }
        }
        groups
    }

    /// Sends the message to one destination. A session that was closed while it waited is replaced, once, by a new one.
    async fn serve(self: &Rc<Self>, delivery: &Delivery, opening: &Opening, group: &Group) -> SubmitResult {
        let mut recipients = group.recipients.clone();
        let mut waiting = self.pool.take(&group.destination);
        loop {
            let mut connection = match waiting.take() {
                Some(connection) => connection,
                None => match self.connect_for(delivery, &group.destination).await {
                    None => return SubmitResult::Cancelled,
                    Some(Ok(connection)) => connection,
                    Some(Err(NoSession::Permanent(reply))) => {
                        group.settle(delivery, &Outcome::Failed(reply));
                        return SubmitResult::Done;
                    }
                    Some(Err(NoSession::Temporary(reply) | NoSession::Auth(reply))) => {
                        return SubmitResult::Error(reply);
                    }
                },
            };
            recipients = opening.takeable(delivery, &recipients, &connection);
            if recipients.is_empty() {
                self.pool.put(&group.destination, connection);
                return SubmitResult::Done;
            }
            match Transaction::new(&mut connection, delivery, &recipients, opening, self.manner).run().await {
                Ended::InStep { again } if again.is_empty() => {
                    self.pool.put(&group.destination, connection);
                    return SubmitResult::Done;
                }
                Ended::InStep { again } => {
                    connection.reused = false;
                    recipients = again;
                    waiting = Some(connection);
                }
                Ended::Over => return SubmitResult::Done,
                Ended::Stale => {}
                Ended::Cancelled => return SubmitResult::Cancelled,
                Ended::Unreadable(why) => return SubmitResult::Error(unreadable(&why)),
            }
        }
    }

    /// A new session for a delivery; `None` if that is cancelled meanwhile.
    async fn connect_for(
        self: &Rc<Self>,
        delivery: &Delivery,
        destination: &str,
    ) -> Option<Result<Connection, NoSession>> {
        let say = |step| delivery.phase(step);
        tokio::select! {
            biased;
            result = self.connect(destination, &say) => Some(result),
            () = delivery.cancelled() => None,
        }
    }

    async fn connect(self: &Rc<Self>, destination: &str, say: Say<'_>) -> Result<Connection, NoSession> {
        let result = self.dialer.dial(destination, say).await;
        match &result {
            Ok(connection) => self.health.good(&connection.remote),
            Err(why) => health::bad(self, why),
        }
        result
    }
}

fn unreadable(why: &str) -> Reply {
    Reply::local(451, "4.3.0", format!("The message cannot be read: {why}"))
}

/// How files are read: those of a session before its sandbox closes.
type ReadFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>;

fn dialer(settings: SmtpSettings, login: Option<Login>, hostname: &str, read: ReadFile<'_>) -> Result<Dialer, String> {
    Ok(Dialer {
        trust: Trust::new(settings.tls_verify, settings.tls_ca_file.as_deref(), read)?,
        route: settings.route,
        port: settings.port,
        protocol: settings.protocol,
        tls: settings.tls,
        tls_server_name: settings.tls_server_name,
        login,
        hostname: settings.hostname.unwrap_or_else(|| hostname.to_owned()),
        timeouts: settings.timeouts,
        source: settings.source_address,
        dns: Dns::new(settings.dns_server),
        witness: None,
    })
}

fn login(support: &Support, credentials: Credentials, settings: &SmtpSettings) -> Result<Login, LogonError> {
    let Credentials { username, password } = credentials;
    let password = match password {
        Password::Here(password) => password,
        Password::File(path) => read_password(&|path| support.file(path), &path).map_err(LogonError::Unconfigured)?,
        Password::Asked => support.prompt("password", &format!("Password of {username}"), true)?,
    };
    login_with(username, password, settings).map_err(LogonError::Unconfigured)
}

fn login_with(username: String, password: String, settings: &SmtpSettings) -> Result<Login, String> {
    if username.contains('\0') || password.contains('\0') {
        return Err("The username or the password holds a NUL character".to_owned());
    }
    let (without_tls, mechanisms) = (settings.auth_without_tls, settings.auth.clone());
    Ok(Login { username, password, without_tls, mechanisms })
}

fn read_password(read: ReadFile<'_>, path: &Path) -> Result<String, String> {
    let content = read(path).and_then(|content| String::from_utf8(content).map_err(std::io::Error::other));
    let text = content.map_err(|error| format!("Cannot read the password from {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
