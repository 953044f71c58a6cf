//! `[rewrite]` and `[aliases]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spooler_protocol::message::Address;
use spooler_protocol::settings::Settings;

use super::Config;
use super::alias_files::AliasSources;
use super::notes::Notes;
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

/// The aliases that stand in the configuration itself, and the files of others.
pub(super) fn read_aliases(settings: &mut Settings, source: &Path) -> AliasSources {
    let files = settings.strings("files", &[]);
    for file in files.iter().filter(|file| !file.starts_with('/')) {
        settings.mistake("files", format!("holds {file:?}; write paths that start with /"));
    }
    let files = files.into_iter().map(PathBuf::from).collect();
    let mut aliases = Aliases::default();
    let entries = settings.lists();
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
    AliasSources { own: aliases, files, postmaster: None }
}

/// Reads the files of aliases. One that cannot be used is a mistake, so that the aliases in effect stay; what is wrong in one is warned of.
pub(super) fn read_alias_files(config: &mut Config, notes: &mut Notes) {
    if config.aliases.files.is_empty() {
        return;
    }
    let (aliases, files) = config.aliases.read();
    for file in &files {
        if let Some(failure) = &file.failure {
            notes.mistake("aliases.files", &format!("names {}, but {failure}", file.path));
        } else {
            file.problems().into_iter().for_each(|problem| notes.warn("aliases.files", problem));
        }
    }
    config.addressing = Arc::new(config.addressing.with_aliases(aliases));
}
