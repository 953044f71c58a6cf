//! Who runs the program: what a sender address is made of when none is given.

use std::fs;

use nix::unistd::{User, gethostname, getuid};

/// Who runs the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Login name.
    pub(crate) user: String,
    /// Full name from the user database; may be empty.
    pub(crate) full_name: String,
    /// What `-bs` calls itself. Addresses get their domain from the spooler, which knows its configuration.
    pub(crate) host: String,
}

impl Identity {
    /// As the system knows it.
    pub(crate) fn of_this_process() -> Self {
        let uid = getuid();
        let entry = User::from_uid(uid).ok().flatten();
        let user = entry.as_ref().map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
        let gecos = entry.map(|user| user.gecos.to_string_lossy().into_owned()).unwrap_or_default();
        let full_name = full_name(&gecos, &user);
        Self { user, full_name, host: mail_name() }
    }
}

/// The name in a GECOS field: up to the first comma, with `&` for the capitalised login name.
fn full_name(gecos: &str, user: &str) -> String {
    let name = gecos.split(',').next().unwrap_or_default().trim();
    let mut letters = user.chars();
    let capitalised: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    name.replace('&', &capitalised).chars().filter(|c| !c.is_control()).collect()
}

/// `/etc/mailname` as on Debian, else the host name; with its domain if `/etc/hosts` knows it.
fn mail_name() -> String {
    let first_word = |text: String| text.split_whitespace().next().filter(|name| is_host(name)).map(str::to_owned);
    let configured = fs::read_to_string("/etc/mailname").ok().and_then(first_word);
    configured.unwrap_or_else(|| {
        let host = gethostname().ok().and_then(|name| name.into_string().ok()).filter(|name| is_host(name));
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        let hosts =
            if host.contains('.') { String::new() } else { fs::read_to_string("/etc/hosts").unwrap_or_default() };
        fully_qualified(&host, &hosts).unwrap_or(host)
    })
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The first name of the line of `/etc/hosts` that names the host, if it has a domain.
fn fully_qualified(host: &str, hosts: &str) -> Option<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut found = lines.filter_map(|line| {
        let names: Vec<&str> = line.split_whitespace().skip(1).collect();
        let prefix = format!("{host}.");
        let full = names.iter().find(|name| name.starts_with(&prefix) && is_host(name))?;
        names.contains(&host).then(|| (*full).to_owned())
    });
    found.find(|name| name != "localhost.localdomain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_database_gives_the_name() {
        assert_eq!(full_name("Ann Other,Room 1,,", "ann"), "Ann Other");
        assert_eq!(full_name("& Other", "ann"), "Ann Other");
        assert_eq!(full_name("", "ann"), "");
    }

    #[test]
    fn the_hosts_file_gives_the_domain() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 box.example.org box # here\n";
        assert_eq!(fully_qualified("box", hosts).as_deref(), Some("box.example.org"));
        assert_eq!(fully_qualified("other", hosts), None);
        assert_eq!(fully_qualified("box", "127.0.1.1 box\n"), None);
    }
}
