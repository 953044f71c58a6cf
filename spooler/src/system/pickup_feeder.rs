//! Empties the pick-up folder: at start, and every now and then, for a message that was left there a moment before the control socket
//! was there.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spooler_protocol::control::ApiError;
use spooler_protocol::limits::{BODY_CHUNK_BYTES_MAX, BODY_INLINE_BYTES_MAX};
use tokio::sync::oneshot;

use crate::system::control::{Bridge, Request, SubmitContent};
use crate::system::pickup::{self, Picked};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(30);
/// Uploads of this thread have keys far away from those of the control socket.
const UPLOAD_BASE: u64 = 1 << 62;

/// Prepares the folder and starts the thread.
///
/// # Errors
/// If the folder or the thread cannot be made.
pub fn start(spool: &Path, folder: &Path, content_bytes_max: u64, bridge: Arc<dyn Bridge>) -> std::io::Result<()> {
    pickup::prepare(folder)?;
    if folder.starts_with(spool) {
        // Senders have to get through the spool's folder, without being able to look around in it.
        std::fs::set_permissions(spool, Permissions::from_mode(0o711))?;
    }
    let folder = folder.to_owned();
    let feed = move || {
        let mut feeder = Feeder { bridge, next_upload: UPLOAD_BASE };
        loop {
            if let Err(error) = feeder.empty(&folder, content_bytes_max) {
                tracing::warn!(%error, "the pick-up folder {} cannot be read", folder.display());
            }
            std::thread::sleep(INTERVAL);
        }
    };
    std::thread::Builder::new().name("pickup".to_owned()).spawn(feed)?;
    Ok(())
}

struct Feeder {
    bridge: Arc<dyn Bridge>,
    next_upload: u64,
}

impl Feeder {
    fn empty(&mut self, folder: &Path, content_bytes_max: u64) -> std::io::Result<()> {
        for path in pickup::scan(folder)? {
            let picked = match pickup::read(&path, content_bytes_max) {
                Ok(picked) => picked,
                Err(error) if error.is_temporary() => {
                    tracing::warn!(%error, file = %path.display(), "cannot be read; it stays for the next look");
                    continue;
                }
                Err(error) => {
                    pickup::set_aside(&path, &error)?;
                    continue;
                }
            };
            match self.submit(picked) {
                // It is in the store, synced. A crash before the file is gone makes a second copy, never a loss.
                Ok(()) => std::fs::remove_file(&path)?,
                Err(error) => {
                    tracing::warn!(file = %path.display(), "not accepted, it stays for the next look: {}", error.error);
                    if error.temporary {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn submit(&mut self, picked: Picked) -> Result<(), ApiError> {
        let gone = |_| ApiError { error: "the spooler is shutting down".to_owned(), temporary: true };
        let size = picked.content.len() as u64;
        let content = Bytes::from(picked.content);
        let content = if content.len() <= BODY_INLINE_BYTES_MAX {
            SubmitContent::Inline(content)
        } else {
            self.next_upload += 1;
            let upload = self.next_upload;
            for at in (0..content.len()).step_by(BODY_CHUNK_BYTES_MAX) {
                let (answer, written) = oneshot::channel();
                let end = content.len().min(at + BODY_CHUNK_BYTES_MAX);
                self.bridge.upload(upload, content.slice(at..end), answer);
                if let Err(error) = written.blocking_recv().map_err(gone)? {
                    self.bridge.abandon_upload(upload);
                    return Err(error);
                }
            }
            SubmitContent::Uploaded { upload, size }
        };
        let (answer, accepted) = oneshot::channel();
        let origin = format!("uid {}", picked.owner_uid);
        let envelope = picked.submit.envelope;
        self.bridge.ask(Request::Submit { envelope, origin, owner_uid: picked.owner_uid, content, answer });
        accepted.blocking_recv().map_err(gone)?.map(|_| ())
    }
}
