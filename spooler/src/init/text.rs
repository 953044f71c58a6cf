//! The text of a new configuration, with comments for the person who will change it. Pure but for the names of this machine.

use toml::Value;

use super::place::Place;
use super::{InitError, Options};
use crate::config::hostname;

/// The port where TLS begins with the first byte (RFC 8314 3.3).
const IMPLICIT_TLS_PORT: u16 = 465;
/// The port for mail clients that log in (RFC 6409 3.1).
const SUBMISSION_PORT: u16 = 587;

/// Everything that is in the text.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    relay: String,
    tls: Option<&'static str>,
    user: Option<String>,
    root: Option<String>,
    hostname: String,
    place: Place,
}

impl Plan {
    pub(super) fn new(options: &Options, place: &Place) -> Result<Self, InitError> {
        let logs_in = options.user.is_some();
        let (relay, port) = relay(&options.relay, logs_in)?;
        let tls = match port {
            Some(IMPLICIT_TLS_PORT) => Some("implicit"),
            _ if logs_in => Some("required"),
            _ => None,
        };
        let hostname = options.hostname.clone().unwrap_or_else(hostname::of_this_machine);
        Ok(Self { relay, tls, user: options.user.clone(), root: options.root.clone(), hostname, place: place.clone() })
    }

    pub(super) fn text(&self) -> String {
        let parts =
            [Some(self.head()), self.own_places(), Some(self.aliases()), Some(self.provider()), Some(entrance())];
        parts.into_iter().flatten().collect::<Vec<String>>().join("\n")
    }

    fn head(&self) -> String {
        let origin = hostname::mail_name().unwrap_or_else(|| self.hostname.clone());
        let postmaster = self
            .root
            .as_ref()
            .map(|root| format!("postmaster = {}    # hears of messages that were set aside\n", quoted(root)));
        format!(
            "# Written by `spooler init`. `spooler check` finds mistakes; `systemctl reload spooler` makes changes take effect.\n\n\
             [mail]\n\
             hostname = {}    # this machine, as other mail servers know it\n\
             origin = {}    # the domain of addresses without one, as in \"mail root\"\n{}",
            quoted(&self.hostname),
            quoted(&origin),
            postmaster.unwrap_or_default()
        )
    }

    /// For a spooler that is not the machine's.
    fn own_places(&self) -> Option<String> {
        let (spool, socket) = (self.place.own_spool.as_ref()?, self.place.own_socket()?);
        let [spool, socket] = [spool, &socket].map(|path| quoted(&path.to_string_lossy()));
        Some(format!("[spool]\npath = {spool}\n\n[control]\nsocket = {socket}\n"))
    }

    fn aliases(&self) -> String {
        let root = match &self.root {
            Some(root) => format!("root = {}", quoted(root)),
            None => "#root = \"you@example.org\"".to_owned(),
        };
        format!("[aliases]    # who gets mail for users of this machine\n{root}\n#files = [\"/etc/aliases\"]\n")
    }

    fn provider(&self) -> String {
        let mut text = format!(
            "[provider.relay]    # all mail goes to this mail server, which delivers it\nkind = \"smtp\"\nhost = {}\n",
            quoted(&self.relay)
        );
        if let Some(tls) = self.tls {
            text.push_str(&format!("tls = \"{tls}\"\n"));
        }
        if let Some(user) = &self.user {
            let password = quoted(&self.place.password.to_string_lossy());
            text.push_str(&format!("username = {}\npassword_file = {password}\n", quoted(user)));
        }
        text
    }
}

/// Programs that know no `sendmail` may want this.
fn entrance() -> String {
    "# Programs hand their mail to `sendmail`, which needs nothing here. Those that speak SMTP need this:\n\
     #[provider.submission]\n#kind = \"smtp-in\"\n#listen = [\"127.0.0.1:25\"]\n"
        .to_owned()
}

/// The relay with its port, where it has to be given.
fn relay(text: &str, logs_in: bool) -> Result<(String, Option<u16>), InitError> {
    let wrong = || {
        let text =
            format!("--relay is {text:?}; give a host name with or without a port, such as mail.example.net:587");
        InitError::Usage(text)
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
    if text.is_empty() || !text.chars().all(fits) {
        return Err(wrong());
    }
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let port = match text.rsplit_once(':') {
        Some((_, port)) if !is_address && !text.ends_with(']') => Some(port.parse().map_err(|_| wrong())?),
        _ => None,
    };
    match port {
        None if logs_in && text.contains(':') && !text.starts_with('[') => {
            Ok((format!("[{text}]:{SUBMISSION_PORT}"), Some(SUBMISSION_PORT)))
        }
        None if logs_in => Ok((format!("{text}:{SUBMISSION_PORT}"), Some(SUBMISSION_PORT))),
        port => Ok((text.to_owned(), port)),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn text(options: &Options) -> String {
        let place = Place::of(Some(Path::new("/nowhere/spooler.toml"))).unwrap();
        Plan::new(options, &place).unwrap().text()
    }

    fn options(relay: &str) -> Options {
        Options { relay: relay.to_owned(), hostname: Some("host.example.org".to_owned()), ..Options::default() }
    }

    #[test]
    fn relay_with_a_login_is_secure() {
        let options = Options {
            user: Some("me".to_owned()),
            root: Some("admin@example.org".to_owned()),
            ..options("mail.example.net")
        };
        let text = text(&options);
        for line in [
            "hostname = \"host.example.org\"",
            "postmaster = \"admin@example.org\"",
            "root = \"admin@example.org\"",
            "host = \"mail.example.net:587\"",
            "tls = \"required\"",
            "username = \"me\"",
            "password_file = \"/nowhere/relay-password\"",
        ] {
            assert!(text.lines().any(|written| written.starts_with(line)), "{line} in {text}");
        }
        let config = config::parse(&text, Path::new("x.toml")).unwrap();
        assert_eq!((config.hostname.as_str(), config.providers.len()), ("host.example.org", 1));
    }

    #[test]
    fn port_decides_about_tls() {
        let [plain, implicit] = ["relay.example.net", "relay.example.net:465"].map(|relay| text(&options(relay)));
        assert!(
            plain.contains("host = \"relay.example.net\"\n") && !plain.contains("tls =") && !plain.contains("username")
        );
        assert!(implicit.contains("tls = \"implicit\"\n"));
        let login = |host: &str| relay(host, true).unwrap().0;
        assert_eq!(
            [login("192.0.2.1"), login("::1"), login("[::1]"), login("h:25")],
            ["192.0.2.1:587", "[::1]:587", "[::1]:587", "h:25"]
        );
    }

    #[test]
    fn strange_relays_are_refused() {
        for strange in ["", "smtp://mail.example.net", "a b", "mail.example.net:smtp", "h:99999"] {
            assert!(matches!(relay(strange, true), Err(InitError::Usage(_))), "{strange}");
        }
    }

    #[test]
    fn what_users_give_cannot_leave_its_quotes() {
        let options = Options { user: Some("me\"\nport = 1 # \\".to_owned()), ..options("h") };
        let config = config::parse(&text(&options), Path::new("x.toml")).unwrap();
        let settings: toml::Table = config.providers[0].settings.parse().unwrap();
        assert_eq!(settings["username"].as_str(), options.user.as_deref());
        assert!(!settings.contains_key("port"));
    }
}
