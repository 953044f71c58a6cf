//! Tries a server without a message: from its name to the reply to AUTH, and QUIT.

use std::rc::Rc;

use spooler_protocol::outcome::Reply;

use super::dial::NoSession;
use super::settings::{Credentials, Password, Route, SmtpSettings};
use super::{dialer, login_with, read_password};
use crate::probe::{Probe, Probed};

/// Tries the hosts in their order, as a delivery would.
pub(super) async fn run(settings: SmtpSettings, probe: Rc<Probe>) -> Probed {
    if settings.route == Route::Mx {
        return Probed::Nothing(
            "it delivers to the mail exchangers of each recipient's domain, so there is no server of its own to try",
        );
    }
    let mut settings = settings;
    let read = |path: &std::path::Path| std::fs::read(path);
    let login = match settings.credentials.take() {
        None => None,
        Some(Credentials { password: Password::Asked, .. }) => {
            probe.step("AUTH", "not tried: the password is asked for by `spoolctl logon`");
            None
        }
        Some(Credentials { username, password }) => {
            let password = match password {
                Password::File(path) => read_password(&read, &path),
                Password::Here(password) => Ok(password),
                Password::Asked => Ok(String::new()),
            };
            match password.and_then(|password| login_with(username, password, &settings)) {
                Ok(login) => Some(login),
                Err(why) => {
                    return fails(
                        why,
                        "write the password into the file that password_file names, readable for the spooler's user",
                    );
                }
            }
        }
    };
    let patience = settings.timeouts.command;
    let hostname = probe.hostname.clone();
    let dialer = match dialer(settings, login, &hostname, &read) {
        Ok(dialer) => dialer.witnessed_by(Rc::clone(&probe)),
        Err(why) => return fails(why, "correct tls_ca_file"),
    };
    match dialer.dial("", &|_| {}).await {
        Ok(connection) => {
            connection.wire.quit(patience).await;
            probe.step("QUIT", "sent");
            Probed::Works
        }
        Err(why) => failure(&why),
    }
}

fn fails(why: String, remedy: &str) -> Probed {
    Probed::Fails { why, remedy: remedy.to_owned() }
}

fn failure(why: &NoSession) -> Probed {
    let (reply, remedy) = match why {
        NoSession::Auth(reply) => (
            reply,
            "check username and password; some servers want a password made for this program, or the whole address as username",
        ),
        NoSession::Permanent(reply) | NoSession::Temporary(reply) => (reply, remedy(reply)),
    };
    fails(reply.to_string(), remedy)
}

/// What to do about a server that cannot be used, by the enhanced code of the reason (RFC 3463).
fn remedy(reply: &Reply) -> &'static str {
    match reply.enhanced.as_str() {
        "4.4.3" | "4.4.4" | "5.4.4" => {
            "check the name in host; `getent hosts NAME` shows what this machine knows of it"
        }
        "4.4.1" => {
            "check host and port, and whether a firewall lets this machine out; many networks close port 25, so try 587, or 465 with tls = \"implicit\""
        }
        "4.4.2" => {
            "check the port: 465 needs tls = \"implicit\", 587 and 25 need tls = \"required\" or \"opportunistic\""
        }
        "4.7.5" => {
            "check host against the names in the certificate, and tls_ca_file for a certificate of your own authority"
        }
        "4.7.0" => "do what the reason says",
        _ => "the server says why; its operator can help",
    }
}
