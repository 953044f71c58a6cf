//! Names of files in a maildir that no other delivery uses, on this machine or another one that shares the folder.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Makes names after the maildir specification: `seconds.MmicrosecondsPpidQcounter.hostname`.
#[derive(Debug)]
pub(super) struct UniqueNames {
    host: String,
    pid: u32,
    counter: AtomicU64,
}

impl UniqueNames {
    /// Names made by this process on a machine of this name.
    pub(super) fn new(hostname: &str, pid: u32) -> Self {
        Self { host: hostname.replace('/', "\\057").replace(':', "\\072"), pid, counter: AtomicU64::new(0) }
    }

    /// The next name, at a time since 1970.
    pub(super) fn next(&self, now: Duration) -> String {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}.M{}P{}Q{counter}.{}", now.as_secs(), now.subsec_micros(), self.pid, self.host)
    }
}

/// The name of a message whose size is known.
pub(super) fn with_size(name: &str, bytes: u64) -> String {
    format!("{name},S={bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_hold_no_slash_or_colon() {
        let names = UniqueNames::new("a/b:c", 7);
        let now = Duration::new(1_700_000_000, 5_000);
        assert_eq!(names.next(now), "1700000000.M5P7Q0.a\\057b\\072c");
        assert_eq!(with_size(&names.next(now), 12), "1700000000.M5P7Q1.a\\057b\\072c,S=12");
    }
}
