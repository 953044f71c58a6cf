//! The configuration as it is in effect, as TOML that could be used in its place, but for the secrets.

use spooler_protocol::settings::Effective;
use toml::{Table, Value};

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
        let own_table = own_table(config, section);
        for value in &config.effective {
            let (of, key) = split(value);
            if of == section {
                let key = free_key(section, key).unwrap_or_else(|| written_key(key, &own_table));
                text.push_str(&format!("{key} = {}\n", value.value));
            }
        }
    }
    text
}

/// What a provider has of its kind; an empty table for other sections.
fn own_table(config: &Config, section: &str) -> Table {
    let name = section.strip_prefix("provider.").unwrap_or_default();
    let provider = config.providers.iter().find(|provider| provider.name == name);
    provider.and_then(|provider| provider.settings.parse().ok()).unwrap_or_default()
}

/// The table that a value stands in, and its key in there.
fn split(value: &Effective) -> (&str, &str) {
    let dots = if value.key.starts_with("provider.") { 2 } else { 1 };
    let at = value.key.match_indices('.').nth(dots - 1).map_or(0, |(at, _)| at);
    let (section, key) = value.key.split_at(at);
    (section, key.trim_start_matches('.'))
}

/// A key of a table in which users choose the names: dots are theirs.
fn free_key(section: &str, key: &str) -> Option<String> {
    match section {
        "aliases" => Some(quoted(key)),
        "rewrite" => key.split_once('.').map(|(map, address)| format!("{map}.{}", quoted(address))),
        _ => None,
    }
}

/// A dotted key with quotes where they are needed. Names that users choose may have dots of their own; which dots are theirs, the table
/// tells.
fn written_key(key: &str, table: &Table) -> String {
    if table.contains_key(key) {
        return quoted(key);
    }
    let mut splits = key.match_indices('.').filter_map(|(at, _)| key.split_at_checked(at));
    let inner = splits.find_map(|(name, rest)| match table.get(name) {
        Some(Value::Table(inner)) => Some((name, rest.trim_start_matches('.'), inner)),
        _ => None,
    });
    match inner {
        Some((name, rest, inner)) => format!("{}.{}", quoted(name), written_key(rest, inner)),
        None => key.split('.').map(quoted).collect::<Vec<_>>().join("."),
    }
}

fn quoted(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { Value::from(name).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_quoted_where_it_must_be() {
        let table: Table = "users = { 'a.b@c.d' = 'x', e = { f = 1 } }".parse().unwrap();
        for (key, written) in [
            ("retry.first", "retry.first"),
            ("users.a.b@c.d", "users.\"a.b@c.d\""),
            ("users.e.f", "users.e.f"),
            ("users.other name", "users.\"other name\""),
        ] {
            assert_eq!(written_key(key, &table), written);
        }
    }

    #[test]
    fn a_provider_has_a_table_of_its_own() {
        let value = |key: &str| Effective { key: key.to_owned(), value: String::new() };
        assert_eq!(split(&value("spool.path")), ("spool", "path"));
        assert_eq!(split(&value("provider.relay.retry.first")), ("provider.relay", "retry.first"));
    }
}
