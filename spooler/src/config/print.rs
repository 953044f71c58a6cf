//! The configuration as it is in effect, as TOML that could be used in its place, but for the secrets.

use spooler_protocol::settings::Effective;

use super::Config;

/// Every key with its value, defaults included. Secrets are left out; the keys of a provider's kind are there only if the configuration
/// was checked ([`super::load`]).
#[must_use]
pub fn print_effective(config: &Config) -> String {
    let mut text = String::new();
    let mut sections: Vec<&str> = Vec::new();
    for value in &config.effective {
        let (section, _) = split(value);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    for section in sections {
        let separator = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{separator}[{section}]\n"));
        for value in &config.effective {
            let (of, key) = split(value);
            if of == section {
                text.push_str(&format!("{} = {}\n", written_key(key), value.value));
            }
        }
    }
    text
}

/// The table that a value stands in, and its key in there.
fn split(value: &Effective) -> (&str, &str) {
    let dots = if value.key.starts_with("provider.") { 2 } else { 1 };
    let at = value.key.match_indices('.').nth(dots - 1).map_or(0, |(at, _)| at);
    let (section, key) = value.key.split_at(at);
    (section, key.trim_start_matches('.'))
}

/// A dotted key with quotes where they are needed.
fn written_key(key: &str) -> String {
    let is_bare = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let quoted = |part: &str| toml::Value::from(part).to_string();
    let parts: Vec<String> =
        key.split('.').map(|part| if is_bare(part) { part.to_owned() } else { quoted(part) }).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_quoted_where_it_must_be() {
        assert_eq!(written_key("retry.first"), "retry.first");
        assert_eq!(written_key("env.MY VAR"), "env.\"MY VAR\"");
    }

    #[test]
    fn a_provider_has_a_table_of_its_own() {
        let value = |key: &str| Effective { key: key.to_owned(), value: String::new() };
        assert_eq!(split(&value("spool.path")), ("spool", "path"));
        assert_eq!(split(&value("provider.relay.retry.first")), ("provider.relay", "retry.first"));
    }
}
