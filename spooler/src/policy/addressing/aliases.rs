//! What a local name stands for, and how far that leads.
//!
//! ```text
//!  root ─▶ ann, admin@example.org ─▶ ann@origin, admin@example.org
//!            └▶ ann (itself): stays, delivered as the local address that it is
//! ```
//!
//! A name is looked up in any case, as a whole first and then without its `+extension`. What stands for a name may be local again, down to
//! [`DEPTH_MAX`] steps. A name that comes back to itself ends there, as the local address that it is: a circle loses no mail.

use std::collections::{HashMap, HashSet};

use spooler_protocol::message::{Address, SMTP};

use super::Addressing;

/// Steps from one alias to the next. Where they end, the name stays as it is.
pub const DEPTH_MAX: usize = 20;
/// Between the targets of an entry: no address has control characters.
const BETWEEN: char = '\n';

/// Where an alias is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Which of the sources.
    pub source: u16,
    /// The line there, from 1; 0 if it is not known.
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    targets: Box<str>,
    spot: Spot,
}

/// Local names, and what they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    entries: HashMap<Box<str>, Entry>,
    sources: Vec<String>,
}

/// One step on the way of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many aliases led here.
    pub depth: usize,
    /// The address.
    pub address: String,
    /// Where its alias is written, `file:line`; `None` for an address that is none.
    pub written: Option<String>,
    /// It is a name that led here already, and stays.
    pub circle: bool,
}

impl Aliases {
    /// Room for so many more, and a source that they come from.
    pub fn add_source(&mut self, source: String, count: usize) -> u16 {
        self.entries.reserve(count);
        self.sources.push(source);
        u16::try_from(self.sources.len() - 1).unwrap_or(u16::MAX)
    }

    /// Adds an alias; false if there is one of this name, which stays.
    pub fn add(&mut self, name: &str, targets: &[Address], spot: Spot) -> bool {
        let mut joined = String::new();
        for target in targets {
            if !joined.is_empty() {
                joined.push(BETWEEN);
            }
            joined.push_str(&target.to_string());
        }
        let name = name.to_lowercase().into_boxed_str();
        match self.entries.entry(name) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(Entry { targets: joined.into(), spot });
                true
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Their names in order; `None` if they have more bytes.
    #[must_use]
    pub fn names(&self, bytes_max: usize) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let mut bytes = 0;
        for name in self.entries.keys() {
            bytes += name.len() + 16;
            if bytes > bytes_max {
                return None;
            }
            names.push(name.to_string());
        }
        names.sort_unstable();
        Some(names)
    }

    fn find(&self, local: &str) -> Option<&Entry> {
        let name = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(local).to_lowercase();
        let without_extension = || name.split_once('+').and_then(|(user, _)| self.entries.get(user));
        self.entries.get(name.as_str()).or_else(without_extension)
    }

    /// The addresses for which an address stands; `None` if it is no alias. Some may come more than once.
    pub(super) fn expand(&self, address: &str, addressing: &Addressing) -> Option<Vec<Address>> {
        if self.is_empty() {
            return None;
        }
        self.find(addressing.local_part(address)?)?;
        let mut finals = Vec::new();
        self.walk(address, addressing, &mut |seen| {
            if seen.is_final {
                finals.push(seen.address.clone());
            }
        });
        Some(finals)
    }

    /// The way of an address, step by step, in the order in which it is walked.
    #[must_use]
    pub fn trace(&self, address: &str, addressing: &Addressing) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        self.walk(&addressing.qualified(address), addressing, &mut |seen| {
            let written = seen.entry.filter(|_| !seen.is_final).map(|entry| self.written(entry.spot));
            let circle = seen.is_final && seen.entry.is_some();
            steps.push(Step { depth: seen.depth, address: seen.address.to_string(), written, circle });
        });
        steps
    }

    fn written(&self, spot: Spot) -> String {
        let source = self.sources.get(usize::from(spot.source)).map_or("?", String::as_str);
        if spot.line == 0 { source.to_owned() } else { format!("{source}:{}", spot.line) }
    }

    fn walk<'a>(&'a self, address: &str, addressing: &Addressing, tell: &mut dyn FnMut(&Seen<'_>)) {
        let mut walk = Walk { aliases: self, addressing, path: Vec::new(), known: HashSet::new(), tell };
        walk.step(address);
    }
}

/// An address on the way.
struct Seen<'a> {
    depth: usize,
    address: &'a Address,
    /// What it stands for, if it is an alias.
    entry: Option<&'a Entry>,
    /// The way ends here.
    is_final: bool,
}

/// A walk from one address to all those for which it stands. Each alias is followed once.
struct Walk<'a, 'b> {
    aliases: &'a Aliases,
    addressing: &'b Addressing,
    path: Vec<*const Entry>,
    known: HashSet<*const Entry>,
    tell: &'b mut dyn FnMut(&Seen<'_>),
}

impl Walk<'_, '_> {
    fn step(&mut self, address: &str) {
        let Ok(address) = address.parse::<Address>() else { return };
        let address = if address.kind() == SMTP {
            Address::smtp(&self.addressing.qualified(address.text())).unwrap_or(address)
        } else {
            address
        };
        let local = if address.kind() == SMTP { self.addressing.local_part(address.text()) } else { None };
        let aliases = self.aliases;
        let entry = local.and_then(|local| aliases.find(local));
        let depth = self.path.len();
        let circle = |entry: &&Entry| depth >= DEPTH_MAX || self.path.contains(&std::ptr::from_ref(*entry));
        let is_final = entry.as_ref().is_none_or(circle);
        (self.tell)(&Seen { depth, address: &address, entry, is_final });
        let Some(entry) = entry.filter(|_| !is_final) else { return };
        if self.known.insert(entry) {
            self.path.push(entry);
            entry.targets.split(BETWEEN).for_each(|target| self.step(target));
            self.path.pop();
        }
    }
}
