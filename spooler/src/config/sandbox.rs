//! The sandbox of a provider's worker, as far as the configuration has a say in it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use spooler_protocol::settings::Settings;

use super::provider::Provider;

/// User ids that are given to providers, one each, when the spooler is root. systemd's table of ids calls them unused, and they are so
/// many that two spoolers on one machine do not meet.
pub const OWN_UIDS: RangeInclusive<u32> = 1_900_000_000..=1_916_777_215;
/// The same for containers that have no user ids beyond 65,535.
const OWN_UIDS_IN_CONTAINERS: RangeInclusive<u32> = 60_706..=61_183;

/// The keys about the sandbox in `[provider.NAME]`. What is `None` is as the provider declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The user to run as.
    pub run_as: Option<String>,
    /// User ids of its own: the one to have, and the one to have where that cannot be had.
    pub own_uids: [u32; 2],
    /// Files and folders that it may read besides what it needs.
    pub may_read: Vec<String>,
    /// Files and folders that it may write besides what it needs.
    pub may_write: Vec<String>,
    /// Bytes of memory of one process.
    pub memory_bytes_max: Option<u64>,
    /// Open descriptors.
    pub descriptors_max: Option<u64>,
    /// Processes and threads.
    pub processes_max: Option<u64>,
    /// Bytes of the largest file.
    pub file_bytes_max: Option<u64>,
    /// CPU of one process.
    pub cpu_max: Option<Duration>,
}

/// Reads the keys; `None` if the sandbox is switched off.
pub(super) fn read(settings: &mut Settings) -> Option<Sandbox> {
    let on = settings.boolean("sandbox", true);
    let given: Vec<&str> =
        ["run_as", "may_read", "may_write", "memory_max", "files_max", "processes_max", "file_size_max", "cpu_max"]
            .into_iter()
            .filter(|key| settings.has(key))
            .collect();
    if let Some(key) = given.first().filter(|_| !on) {
        settings.mistake(key, "has no meaning with sandbox = false");
    }
    let sandbox = Sandbox {
        run_as: read_user(settings),
        own_uids: [0; 2],
        may_read: read_paths(settings, "may_read"),
        may_write: read_paths(settings, "may_write"),
        memory_bytes_max: read_size(settings, "memory_max", MEMORY_BYTES_MIN),
        descriptors_max: read_count(settings, "files_max", 32..=1_000_000),
        processes_max: read_count(settings, "processes_max", 1..=1_000_000),
        file_bytes_max: read_size(settings, "file_size_max", 1),
        cpu_max: read_cpu(settings),
    };
    on.then_some(sandbox)
}

/// A worker with less could not even start.
const MEMORY_BYTES_MIN: u64 = 32 << 20;

fn read_user(settings: &mut Settings) -> Option<String> {
    let user = settings.optional_string("run_as")?;
    if user.is_empty() || user.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':') {
        settings.mistake("run_as", format!("is {user:?}; give the name or the number of a system user"));
    }
    Some(user)
}

fn read_paths(settings: &mut Settings, key: &str) -> Vec<String> {
    let paths = settings.strings(key, &[]);
    for path in &paths {
        if !path.starts_with('/') || path.contains('\0') {
            settings.mistake(key, format!("has {path:?}; give absolute paths"));
        }
    }
    paths
}

fn read_size(settings: &mut Settings, key: &str, least: u64) -> Option<u64> {
    if !settings.has(key) {
        settings.ignore(key);
        return None;
    }
    let bytes = settings.size(key, "1G");
    if bytes < least {
        settings.mistake(key, format!("is {bytes} bytes; allowed is {least} and more"));
    }
    Some(bytes)
}

fn read_count(settings: &mut Settings, key: &str, range: RangeInclusive<u32>) -> Option<u64> {
    if !settings.has(key) {
        settings.ignore(key);
        return None;
    }
    let least = *range.start();
    Some(u64::from(settings.integer(key, least, range)))
}

fn read_cpu(settings: &mut Settings) -> Option<Duration> {
    if !settings.has("cpu_max") {
        settings.ignore("cpu_max");
        return None;
    }
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400 * 365);
    Some(settings.duration("cpu_max", "1h", range))
}

/// Gives each provider user ids of its own: from its name and its spool, so that they stay the same whatever comes and goes beside it, or
/// the next ones if somebody before it in the file has those.
pub(super) fn give_uids(providers: &mut [Provider], spool: &Path) {
    let mut taken = BTreeSet::new();
    let mut choose = |range: &RangeInclusive<u32>, hash: u32| {
        let count = range.end() - range.start() + 1;
        let nth = |step: u32| range.start() + (hash % count + step) % count;
        let uid = (0..count).map(nth).find(|uid| !taken.contains(uid)).unwrap_or(nth(0));
        taken.insert(uid);
        uid
    };
    for provider in providers {
        let hash = hash(&format!("{}\0{}", spool.display(), provider.name));
        let own_uids = [choose(&OWN_UIDS, hash), choose(&OWN_UIDS_IN_CONTAINERS, hash)];
        if let Some(sandbox) = &mut provider.sandbox {
            sandbox.own_uids = own_uids;
        }
    }
}

/// FNV-1a: the same on every machine and in every version.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Option<Sandbox>, Vec<String>) {
        let mut settings = Settings::new(text.parse().unwrap());
        let sandbox = read(&mut settings);
        (sandbox, settings.finish().mistakes.into_iter().map(|mistake| mistake.key).collect())
    }

    #[test]
    fn it_is_on_and_as_the_provider_declares() {
        assert_eq!(read_text(""), (Some(Sandbox::default()), Vec::new()));
        assert_eq!(read_text("sandbox = false"), (None, Vec::new()));
        let (sandbox, mistakes) = read_text("memory_max = '64M'\ncpu_max = '10m'\nfiles_max = 100\nrun_as = 'fax'");
        let sandbox = sandbox.unwrap();
        assert!(mistakes.is_empty());
        assert_eq!((sandbox.memory_bytes_max, sandbox.descriptors_max), (Some(64 << 20), Some(100)));
        assert_eq!((sandbox.cpu_max, sandbox.run_as.as_deref()), (Some(Duration::from_secs(600)), Some("fax")));
    }

    #[test]
    fn what_cannot_be_is_a_mistake() {
        for (text, key) in [
            ("memory_max = '1M'", "memory_max"),
            ("may_write = ['tmp']", "may_write"),
            ("run_as = 'a b'", "run_as"),
            ("files_max = 1", "files_max"),
            ("sandbox = false\nrun_as = 'fax'", "run_as"),
        ] {
            assert_eq!(read_text(text).1, [key], "{text}");
        }
    }

    #[test]
    fn each_provider_has_a_uid_that_stays() {
        let uids = |names: &[String]| {
            let text: String = names.iter().map(|name| format!("[provider.{name}]\nkind = 'smtp'\n")).collect();
            let config = crate::config::parse(&text, std::path::Path::new("x.toml")).unwrap();
            config.providers.into_iter().map(|provider| provider.sandbox.unwrap().own_uids[0]).collect::<Vec<u32>>()
        };
        let names: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
        let all = uids(&names);
        assert!(all.iter().all(|uid| OWN_UIDS.contains(uid)));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 100, "nobody shares one");
        assert_eq!(uids(&["relay".to_owned()]), uids(&["relay".to_owned()]));
    }
}
