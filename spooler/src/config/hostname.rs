//! The name that the spooler goes by if the configuration gives none.
//!
//! RFC 5321 2.3.5 wants a fully qualified one. No name server is asked: a start must not wait for the network.

use std::fs;

/// The longest name (RFC 1035 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// The name of this machine, with its domain if `/etc/hosts` knows it; `localhost` if it has none.
pub(crate) fn of_this_machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    qualified(name.trim(), &hosts)
}

/// The name in `/etc/mailname`, where Debian keeps the domain of unqualified addresses.
pub(crate) fn mail_name() -> Option<String> {
    first_name(&fs::read_to_string("/etc/mailname").ok()?)
}

fn first_name(text: &str) -> Option<String> {
    text.lines().next()?.split_whitespace().next().filter(|name| is_host_name(name)).map(str::to_owned)
}

fn qualified(name: &str, hosts: &str) -> String {
    let known = if name.contains('.') { None } else { canonical(name, hosts) };
    let best = known.unwrap_or(name);
    if is_host_name(best) { best.to_owned() } else { "localhost".to_owned() }
}

/// The first qualified name on the first line of `hosts` that has `name`, as `hostname --fqdn` would find it.
fn canonical<'a>(name: &str, hosts: &'a str) -> Option<&'a str> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut names = lines.map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let line = names.find(|names| names.contains(&name))?;
    line.into_iter().find(|known| known.contains('.') && is_host_name(known))
}

/// Whether a text is a name that can be said in EHLO: letters, digits and hyphens between dots.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1\tmoon.example.org moon # ours\n10.0.0.1 sun\n";

    #[test]
    fn the_domain_comes_from_the_hosts_file() {
        assert_eq!(qualified("moon", HOSTS), "moon.example.org");
        assert_eq!(qualified("sun", HOSTS), "sun");
        assert_eq!(qualified("mars", HOSTS), "mars");
        assert_eq!(qualified("moon.other.net", HOSTS), "moon.other.net");
        assert_eq!(qualified("ours", HOSTS), "ours");
    }

    #[test]
    fn the_mail_name_is_the_first_line() {
        assert_eq!(first_name("example.org\nother.test\n").as_deref(), Some("example.org"));
        assert_eq!([first_name(""), first_name("\nx"), first_name("my_host\n")], [None, None, None]);
    }

    #[test]
    fn what_cannot_be_said_is_not_used() {
        assert_eq!(qualified("", HOSTS), "localhost");
        assert_eq!(qualified("my_machine", HOSTS), "localhost");
        assert!(is_host_name(&of_this_machine()));
    }

    #[test]
    fn host_names_are_letters_digits_and_hyphens() {
        for good in ["a", "a-1.b", "1.2", &"a".repeat(63)] {
            assert!(is_host_name(good), "{good:?}");
        }
        for bad in ["", ".", "a.", "-a", "a-", "a b", "ä", "a_b", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
    }
}
