//! Messages of workers on their way in: each is looked at, and completed, before it is kept.
//!
//! ```text
//!  Upload … Upload, Accept ─▶ Admission ─▶ upload ─▶ the supervisor
//!  Accept with its content ─▶ Admission ─▶ inline ─▶ the supervisor
//! ```

use bytes::Bytes;
use spooler_protocol::from_worker::{Arrival, Content};
use spooler_protocol::ids::AcceptId;
use spooler_protocol::limits::BODY_INLINE_BYTES_MAX;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use super::Driver;
use super::acting::refusal;
use crate::admission::{Admission, stamp};
use crate::supervisor::event::{Event, Incoming, UploadKey, WorkerId, WorkerNews};
use crate::supervisor::mail::message_id;
use crate::system::store::StoreError;

/// Large messages that one worker may have half way in: each has a file open.
const UPLOADS_MAX: usize = 512;

/// A large message that has come in part of the way.
pub(super) struct Arriving {
    key: UploadKey,
    admission: Admission,
    /// Bytes in the upload.
    size: u64,
    /// Nothing of it is kept any more.
    refused: Option<Refusal>,
}

impl Driver {
    /// A large message begins.
    pub(super) fn upload_begins(&mut self, worker: WorkerId, accept: AcceptId, arrival: Arrival) {
        if self.arriving.keys().filter(|(of, _)| *of == worker).count() >= UPLOADS_MAX {
            return self.say(worker, ToWorker::Accepted { accept, result: Err(too_many_uploads()) });
        }
        let admission = Admission::of_worker(self.equipment.addressing.get(), arrival, stamp);
        let arriving = Arriving { key: self.new_key(), admission, size: 0, refused: None };
        if let Some(before) = self.arriving.insert((worker, accept), arriving) {
            self.equipment.uploads.abandon(before.key.0);
        }
    }

    fn new_key(&mut self) -> UploadKey {
        self.next_upload += 1;
        UploadKey(self.next_upload)
    }

    /// A chunk of a large message comes in: it is acknowledged when it is written.
    pub(super) fn upload(&mut self, worker: WorkerId, accept: AcceptId, data: Bytes) {
        if !self.arriving.contains_key(&(worker, accept)) {
            self.upload_begins(worker, accept, Arrival::default());
        }
        let Some(arriving) = self.arriving.get_mut(&(worker, accept)) else { return };
        let bytes = data.len();
        let (key, kept) = (arriving.key, arriving.take(data));
        if kept.is_empty() {
            // Held or thrown away; a refusal comes when the message is complete.
            return self.say(worker, ToWorker::UploadCredit { accept });
        }
        self.hear(Event::Worker(worker, WorkerNews::Uploads));
        let Some((link, debt)) = self.owe(worker, bytes) else { return };
        let done = move |result: Result<(), StoreError>| {
            let answer = match result {
                Ok(()) => ToWorker::UploadCredit { accept },
                Err(error) => ToWorker::Accepted { accept, result: Err(refusal(&error)) },
            };
            let _ = link.say(answer);
            drop(debt);
        };
        self.equipment.uploads.append(key.0, kept, Box::new(done));
    }

    /// A large message will not be complete.
    pub(super) fn upload_abandoned(&mut self, worker: WorkerId, accept: AcceptId) {
        if let Some(arriving) = self.arriving.remove(&(worker, accept)) {
            self.equipment.uploads.abandon(arriving.key.0);
        }
    }

    /// A worker has gone, and what it had half way in.
    pub(super) fn forget_arriving(&mut self, worker: WorkerId) {
        let uploads = &self.equipment.uploads;
        self.arriving.retain(|(of, _), arriving| {
            if *of == worker {
                uploads.abandon(arriving.key.0);
            }
            *of != worker
        });
    }

    /// A message is complete: what is to be kept of it, or the refusal.
    pub(super) fn arrived(
        &mut self,
        worker: WorkerId,
        accept: AcceptId,
        arrival: Arrival,
        content: Content,
    ) -> Result<Incoming, Refusal> {
        let bytes = match content {
            Content::Inline(bytes) => bytes,
            Content::Uploaded { .. } => return self.uploaded(worker, accept),
        };
        let bytes = Admission::of_worker(self.equipment.addressing.get(), arrival, stamp).whole(bytes)?;
        if bytes.len() <= BODY_INLINE_BYTES_MAX {
            return Ok(Incoming::Inline(bytes));
        }
        // It has grown too large on its way.
        let (key, size, message_id) = (self.new_key(), bytes.len() as u64, message_id(&bytes));
        self.append_rest(key, bytes);
        Ok(Incoming::Upload { key, size, message_id })
    }

    fn uploaded(&mut self, worker: WorkerId, accept: AcceptId) -> Result<Incoming, Refusal> {
        let Some(mut arriving) = self.arriving.remove(&(worker, accept)) else {
            // Never begun: the store finds no such upload.
            return Ok(Incoming::Upload { key: self.new_key(), size: 0, message_id: None });
        };
        let rest = arriving.finish();
        let key = arriving.key;
        if let Some(refusal) = arriving.refused {
            self.equipment.uploads.abandon(key.0);
            return Err(refusal);
        }
        if !rest.is_empty() {
            self.append_rest(key, rest);
        }
        Ok(Incoming::Upload { key, size: arriving.size, message_id: arriving.admission.message_id() })
    }

    /// If this fails, the upload cannot be finished, which is when the worker hears of it.
    fn append_rest(&self, key: UploadKey, rest: Bytes) {
        self.equipment.uploads.append(key.0, rest, Box::new(|_| {}));
    }
}

impl Arriving {
    /// What is to be kept now that this piece is here.
    fn take(&mut self, data: Bytes) -> Bytes {
        if self.refused.is_some() {
            return Bytes::new();
        }
        let kept = self.admission.feed(data);
        self.keep(kept)
    }

    fn finish(&mut self) -> Bytes {
        if self.refused.is_some() {
            return Bytes::new();
        }
        let kept = self.admission.finish();
        self.keep(kept)
    }

    fn keep(&mut self, kept: Result<Bytes, Refusal>) -> Bytes {
        match kept {
            Ok(kept) => {
                self.size += kept.len() as u64;
                kept
            }
            Err(refusal) => {
                self.refused = Some(refusal);
                Bytes::new()
            }
        }
    }
}

fn too_many_uploads() -> Refusal {
    let text = "Too many large messages are on their way in at once; try again later".to_owned();
    Refusal { temporary: true, enhanced: "4.3.2".to_owned(), text }
}
