//! `[rewrite]` and `[aliases]`.

use std::path::Path;

use spooler_protocol::message::Address;
use spooler_protocol::settings::Settings;

use crate::policy::addressing::aliases::{Aliases, Spot};
use crate::policy::addressing::rewrite::{self, Map, Rewrite, Scope};

/// Where a map applies.
const SCOPES: [(&str, Scope); 3] = [("both", Scope::Both), ("envelope", Scope::Envelope), ("header", Scope::Header)];

pub(super) fn read_rewrite(settings: &mut Settings, origin: &str) -> Rewrite {
    let mut masquerade = settings.strings("masquerade", &[]);
    masquerade.iter_mut().for_each(|domain| domain.make_ascii_lowercase());
    Rewrite {
        sender: map(settings, "sender", origin),
        recipient: map(settings, "recipient", origin),
        masquerade,
        masquerade_except: settings.strings("masquerade_except", &[]),
        masquerade_scope: scope(settings, "masquerade_scope"),
    }
}

fn map(settings: &mut Settings, key: &str, origin: &str) -> Map {
    let pairs = settings.string_map(key);
    for (from, to) in &pairs {
        if let Some(why) = rewrite::check(from, to) {
            settings.mistake(key, why);
        }
    }
    Map::new(pairs, origin, scope(settings, &format!("{key}_scope")))
}

fn scope(settings: &mut Settings, key: &str) -> Scope {
    settings.choice(key, "both", &SCOPES).unwrap_or_default()
}

/// The aliases that stand in the configuration itself.
pub(super) fn read_aliases(settings: &mut Settings, source: &Path) -> Aliases {
    let mut aliases = Aliases::default();
    let entries = settings.lists(&["files"]);
    let number = if entries.is_empty() { 0 } else { aliases.add_source(source.display().to_string(), entries.len()) };
    for (name, targets) in entries {
        if targets.is_empty() || name.contains('@') || name.is_empty() {
            settings.mistake(&name, "must be a local name without \"@\", with at least one address for it");
            continue;
        }
        let mut addresses = Vec::new();
        for target in targets {
            match target.parse::<Address>() {
                Ok(address) if !target.starts_with(['|', '/', ':']) => addresses.push(address),
                _ => settings.mistake(&name, format!("holds {target:?}, which is no address")),
            }
        }
        aliases.add(&name, &addresses, Spot { source: number, line: 0 });
    }
    aliases
}
