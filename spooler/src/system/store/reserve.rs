//! Space that is kept free, so that what was accepted can still be worked off when the disk is nearly full.
//!
//! Recording a delivery needs space, too. So new messages are refused while there is less than the reserve, long before the disk
//! is really full. It is a soft border: the disk is asked now and then, not for each message.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::StoreError;
use super::failure::full;

/// How long an answer of the disk holds.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// After so many bytes the disk is asked again, however recent its answer.
const CHECK_AFTER_BYTES: u64 = 4 << 20;

/// Watches how much space is left.
pub struct Reserve {
    folder: Box<Path>,
    min_free_bytes: u64,
    free_bytes: Box<dyn FnMut() -> Option<u64> + Send>,
    checked: Option<Instant>,
    bytes_since: u64,
    low: bool,
}

impl Reserve {
    /// Keeps `min_free_bytes` free on the file system of a folder; 0 is no reserve.
    #[must_use]
    pub fn of(folder: &Path, min_free_bytes: u64) -> Self {
        let asked = folder.to_owned();
        Self::with_probe(folder, min_free_bytes, move || free_bytes(&asked))
    }

    /// The same with another way to learn how many bytes are free; `None` if that cannot be known, and nothing is refused then.
    #[must_use]
    pub fn with_probe(
        folder: &Path,
        min_free_bytes: u64,
        free_bytes: impl FnMut() -> Option<u64> + Send + 'static,
    ) -> Self {
        let free_bytes = Box::new(free_bytes);
        Self { folder: folder.into(), min_free_bytes, free_bytes, checked: None, bytes_since: 0, low: false }
    }

    /// Whether a message of about so many bytes may come in.
    ///
    /// # Errors
    /// [`StoreError::Full`] if it would live on the reserve.
    pub(super) fn admit(&mut self, now: Instant, bytes: u64) -> Result<(), StoreError> {
        if self.min_free_bytes == 0 {
            return Ok(());
        }
        self.bytes_since = self.bytes_since.saturating_add(bytes);
        let recent = self.checked.is_some_and(|at| now.saturating_duration_since(at) < CHECK_EVERY);
        if !recent || self.bytes_since >= CHECK_AFTER_BYTES {
            self.low = (self.free_bytes)().is_some_and(|free| free < self.min_free_bytes);
            self.checked = Some(now);
            self.bytes_since = 0;
        }
        if self.low { Err(self.refusal()) } else { Ok(()) }
    }

    /// What a message is told for which there is no space.
    pub(super) fn refusal(&self) -> StoreError {
        full(&self.folder)
    }
}

/// Bytes that this user may still write to the file system of a folder.
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    Some(found.blocks_available().saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_disk_is_asked_after_a_time_or_after_many_bytes() {
        let free = Arc::new(AtomicU64::new(1000));
        let probe = Arc::clone(&free);
        let mut reserve = Reserve::with_probe(Path::new("/x"), 500, move || Some(probe.load(Ordering::Relaxed)));
        let start = Instant::now();
        reserve.admit(start, 1).unwrap();
        free.store(499, Ordering::Relaxed);
        reserve.admit(start + CHECK_EVERY / 2, 1).unwrap();
        assert!(matches!(reserve.admit(start + CHECK_EVERY, 1), Err(StoreError::Full { .. })));
        free.store(500, Ordering::Relaxed);
        assert!(reserve.admit(start + CHECK_EVERY, 1).is_err());
        reserve.admit(start + CHECK_EVERY, CHECK_AFTER_BYTES).unwrap();
    }

    #[test]
    fn a_real_folder_has_some_space_but_not_all_of_it() {
        let home = tempfile::tempdir().unwrap();
        let now = Instant::now();
        Reserve::of(home.path(), 1).admit(now, 1).unwrap();
        assert!(Reserve::of(home.path(), u64::MAX).admit(now, 1).is_err());
        Reserve::of(&home.path().join("missing"), u64::MAX).admit(now, 1).unwrap();
    }
}
