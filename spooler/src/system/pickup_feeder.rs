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
use spooler_protocol::to_worker::Refusal;
use tokio::sync::oneshot;

use crate::admission::{Admission, stamp};
use crate::supervisor::mail::message_id;
use crate::system::control::{Access, Bridge, Operation, Request, SubmitContent, identify_absent, may};
use crate::system::pickup::{self, Opened, PickupError};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(30);
/// Uploads of this thread have keys far away from those of the control socket.
const UPLOAD_BASE: u64 = 1 << 62;

/// Prepares the folder and starts the thread.
///
/// # Errors
/// If the folder or the thread cannot be made.
pub fn start(
    spool: &Path,
    folder: &Path,
    content_bytes_max: u64,
    access: Access,
    bridge: Arc<dyn Bridge>,
) -> std::io::Result<()> {
    pickup::prepare(folder)?;
    if folder.starts_with(spool) {
        // Senders have to get through the spool's folder, without being able to look around in it.
        std::fs::set_permissions(spool, Permissions::from_mode(0o711))?;
    }
    let folder = folder.to_owned();
    let feed = move || {
        let mut feeder = Feeder { access, bridge, next_upload: UPLOAD_BASE };
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
    access: Access,
    bridge: Arc<dyn Bridge>,
    next_upload: u64,
}

impl Feeder {
    /// Hands in everything that is there.
    fn empty(&mut self, folder: &Path, content_bytes_max: u64) -> std::io::Result<()> {
        let mut last = None;
        loop {
            let found = pickup::scan(folder, last.as_ref())?;
            for file in &found {
                if !self.take(&file.path, content_bytes_max)? {
                    return Ok(());
                }
            }
            last = found.into_iter().next_back();
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Hands one file in; false if it is of no use to go on now.
    fn take(&mut self, path: &Path, content_bytes_max: u64) -> std::io::Result<bool> {
        let submitted =
            pickup::open(path, content_bytes_max).map_err(Refused::ByUs).and_then(|opened| self.submit(opened));
        match submitted {
            // It is in the store, synced. A crash before the file is gone makes a second copy, never a loss.
            Ok(()) => std::fs::remove_file(path)?,
            Err(Refused::ByUs(error)) if error.is_temporary() => {
                tracing::warn!(%error, file = %path.display(), "pick-up file cannot be read, will retry");
            }
            Err(Refused::ByUs(error)) => drop(pickup::set_aside(path, &error)?),
            Err(Refused::BySpooler(error)) if error.temporary => {
                tracing::warn!(file = %path.display(), "pick-up file not accepted, will retry: {}", error.error);
                return Ok(false);
            }
            Err(Refused::BySpooler(error)) => drop(pickup::set_aside(path, &error.error)?),
        }
        Ok(true)
    }

    fn submit(&mut self, opened: Opened) -> Result<(), Refused> {
        let Opened { submit, owner_uid, content } = opened;
        may(&self.access, identify_absent(&self.access, owner_uid), Operation::Submit)
            .map_err(|denied| Refused::ByUs(denied.into()))?;
        self.next_upload += 1;
        let upload = self.next_upload;
        let admission = Admission::local(self.bridge.addressing(), &submit, owner_uid, stamp);
        let content = self.upload(upload, content, admission).inspect_err(|_| self.bridge.abandon_upload(upload))?;
        let (answer, accepted) = oneshot::channel();
        let origin = format!("uid {owner_uid}");
        self.bridge.ask(Request::Submit {
            envelope: submit.envelope,
            submission: !submit.as_is,
            origin,
            owner_uid,
            content,
            answer,
        });
        accepted.blocking_recv().map_err(|_| gone())?.map(drop).map_err(Refused::BySpooler)
    }

    /// Reads the message: into memory if it is small, else into an upload, a piece at a time.
    fn upload(
        &self,
        key: u64,
        mut content: pickup::Content,
        mut admission: Admission,
    ) -> Result<SubmitContent, Refused> {
        let refused = |refusal: Refusal| Refused::BySpooler(refusal.into());
        let (mut held, mut upload, mut more) = (Vec::new(), None, true);
        while more {
            more = content.next(&mut held).map_err(Refused::ByUs)?;
            if upload.is_none() && held.len() <= BODY_INLINE_BYTES_MAX {
                continue;
            }
            let upload = upload.get_or_insert(Upload { bridge: self.bridge.as_ref(), key, size: 0 });
            let mut rest = Bytes::from(std::mem::take(&mut held));
            while rest.len() >= BODY_CHUNK_BYTES_MAX || !more && !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(BODY_CHUNK_BYTES_MAX));
                upload.write(admission.feed(piece).map_err(refused)?)?;
            }
            held.extend_from_slice(&rest);
        }
        if let Some(mut upload) = upload {
            upload.write(admission.finish().map_err(refused)?)?;
            return Ok(upload.complete(admission.message_id()));
        }
        let message = admission.whole(held.into()).map_err(refused)?;
        if message.len() <= BODY_INLINE_BYTES_MAX {
            return Ok(SubmitContent::Inline(message));
        }
        // It has grown too large on its way.
        let mut upload = Upload { bridge: self.bridge.as_ref(), key, size: 0 };
        let message_id = message_id(&message);
        upload.write(message)?;
        Ok(upload.complete(message_id))
    }
}

/// A large message on its way into the store.
struct Upload<'a> {
    bridge: &'a dyn Bridge,
    key: u64,
    /// Bytes written.
    size: u64,
}

impl Upload<'_> {
    fn write(&mut self, chunk: Bytes) -> Result<(), Refused> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.size += chunk.len() as u64;
        let (answer, written) = oneshot::channel();
        self.bridge.upload(self.key, chunk, answer);
        written.blocking_recv().map_err(|_| gone())?.map_err(Refused::BySpooler)
    }

    fn complete(self, message_id: Option<String>) -> SubmitContent {
        SubmitContent::Uploaded { upload: self.key, size: self.size, message_id }
    }
}

/// Why a file is not handed in.
enum Refused {
    /// It cannot be.
    ByUs(PickupError),
    /// The spooler does not want it.
    BySpooler(ApiError),
}

fn gone() -> Refused {
    Refused::BySpooler(ApiError { error: "the spooler is shutting down".to_owned(), temporary: true })
}
