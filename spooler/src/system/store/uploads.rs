//! Large contents on their way in: chunks become a file, the file gets its final name.
//!
//! ```text
//!  append ──▶ incoming/KEY ──finish: fsync──▶ bodies/ID, fsync of the folder ──▶ the caller commits the row
//!                 │ abandon, too large, or an error
//!                 ▼
//!              removed
//! ```
//!
//! One thread writes chunks, a second one waits for the disk at the end, so that the fsync of one large file does not hold up the others.
//! How many chunks may wait is the caller's business (`UPLOAD_CHUNKS_UNACKNOWLEDGED_MAX`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use crc32fast::Hasher;
use crossbeam_channel::{Receiver, Sender, unbounded};
use spooler_protocol::ids::MessageId;

use super::StoreError;
use super::body_files::{BodyFolder, remove, trailer};
use super::failure::{failed, of_io};

/// What is called when a chunk is written (not synced).
pub type Appended = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What is called when a content is synced under its final name, with its size in bytes.
pub type Finished = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

enum Request {
    Append { key: u64, chunk: Bytes, done: Appended },
    Finish { key: u64, id: MessageId, done: Finished },
    Abandon { key: u64 },
    Discard { id: MessageId },
}

/// The way in for large contents. No call blocks; calls for one key are carried out in order.
pub struct Uploads {
    requests: Option<Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
}

impl Uploads {
    /// Starts the threads. The spool must be open: that makes the folder, and removes what earlier uploads left.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(bodies: &BodyFolder, bytes_max: u64) -> Result<Self, StoreError> {
        let (to_writer, requests) = unbounded();
        let (to_syncer, complete) = unbounded();
        let mut receiver =
            UploadWriter { bodies: bodies.clone(), bytes_max, open: HashMap::new(), complete: to_syncer };
        let syncer = Syncer { bodies: bodies.clone() };
        let fail = |error: std::io::Error| of_io(&bodies.incoming(), "start a thread", &error);
        let write =
            Builder::new().name("store-upload".to_owned()).spawn(move || receiver.run(&requests)).map_err(fail)?;
        let sync = Builder::new().name("store-sync".to_owned()).spawn(move || syncer.run(&complete)).map_err(fail)?;
        Ok(Self { requests: Some(to_writer), threads: vec![write, sync] })
    }

    /// Appends to the upload `key`, and begins it if it is new. After an error the upload takes nothing more, until it is abandoned
    /// or finished in vain.
    pub fn append(&self, key: u64, chunk: Bytes, done: Appended) {
        self.ask(Request::Append { key, chunk, done });
    }

    /// Makes the upload the content of a message: synced, with its final name. The commit that names it may come then.
    pub fn finish(&self, key: u64, id: MessageId, done: Finished) {
        self.ask(Request::Finish { key, id, done });
    }

    /// Forgets an upload that is not finished.
    pub fn abandon(&self, key: u64) {
        self.ask(Request::Abandon { key });
    }

    /// Forgets a finished upload whose message was not accepted after all. A message that was, is removed with
    /// [`super::Change::Remove`] instead.
    pub fn discard(&self, id: MessageId) {
        self.ask(Request::Discard { id });
    }

    fn ask(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // If the thread is gone, `done` is dropped uncalled: whoever waits for it sees that.
            let _ = requests.send(request);
        }
    }
}

impl Drop for Uploads {
    /// Finishes what was asked.
    fn drop(&mut self) {
        drop(self.requests.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// An upload that is not finished.
enum Upload {
    Open {
        file: File,
        size: u64,
        sum: Hasher,
    },
    /// Something went wrong; what came in is removed.
    Broken,
}

/// What the second thread does.
enum Complete {
    Sync { file: File, incoming: PathBuf, size: u64, sum: Hasher, id: MessageId, done: Finished },
    Discard { id: MessageId },
}

struct UploadWriter {
    bodies: BodyFolder,
    bytes_max: u64,
    open: HashMap<u64, Upload>,
    complete: Sender<Complete>,
}

impl UploadWriter {
    fn run(&mut self, requests: &Receiver<Request>) {
        for request in requests {
            match request {
                Request::Append { key, chunk, done } => done(self.append(key, &chunk)),
                Request::Finish { key, id, done } => self.finish(key, id, done),
                Request::Abandon { key } => {
                    if self.open.remove(&key).is_some() {
                        self.clear(key);
                    }
                }
                // In line behind the `Finish` that it undoes.
                Request::Discard { id } => self.pass_on(Complete::Discard { id }),
            }
        }
    }

    fn append(&mut self, key: u64, chunk: &[u8]) -> Result<(), StoreError> {
        let written = self.try_append(key, chunk);
        if written.is_err() && matches!(self.open.insert(key, Upload::Broken), Some(Upload::Open { .. })) {
            self.clear(key);
        }
        written
    }

    fn try_append(&mut self, key: u64, chunk: &[u8]) -> Result<(), StoreError> {
        let path = self.incoming(key);
        let upload = match self.open.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let mut options = OpenOptions::new();
                let created = options.write(true).create_new(true).mode(0o600).open(&path);
                let file = created.map_err(|error| of_io(&path, "begin the upload", &error))?;
                new.insert(Upload::Open { file, size: 0, sum: Hasher::new() })
            }
        };
        let Upload::Open { file, size, sum } = upload else { return Err(broken(&path)) };
        let grown = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if grown > self.bytes_max {
            return Err(StoreError::TooLarge { bytes_max: self.bytes_max });
        }
        file.write_all(chunk).map_err(|error| of_io(&path, "write the upload", &error))?;
        sum.update(chunk);
        *size = grown;
        Ok(())
    }

    fn finish(&mut self, key: u64, id: MessageId, done: Finished) {
        let incoming = self.incoming(key);
        match self.open.remove(&key) {
            Some(Upload::Open { file, size, sum }) => {
                self.pass_on(Complete::Sync { file, incoming, size, sum, id, done });
            }
            Some(Upload::Broken) => done(Err(broken(&incoming))),
            None => done(Err(failed(&incoming, "there is no such upload"))),
        }
    }

    fn pass_on(&self, complete: Complete) {
        // The second thread ends only after this one.
        let _ = self.complete.send(complete);
    }

    fn incoming(&self, key: u64) -> PathBuf {
        self.bodies.incoming().join(key.to_string())
    }

    fn clear(&self, key: u64) {
        warn_if_left(remove(&self.incoming(key)));
    }
}

fn broken(path: &Path) -> StoreError {
    failed(path, "the upload has failed before; begin it again")
}

fn warn_if_left(removed: Result<(), StoreError>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "A file of an upload is left; it is removed at the next start");
    }
}

struct Syncer {
    bodies: BodyFolder,
}

impl Syncer {
    fn run(&self, complete: &Receiver<Complete>) {
        for complete in complete {
            match complete {
                Complete::Sync { file, incoming, size, sum, id, done } => {
                    let synced = self.sync(&file, &sum, &incoming, id);
                    if synced.is_err() {
                        warn_if_left(remove(&incoming));
                        warn_if_left(self.bodies.remove(id));
                    }
                    done(synced.map(|()| size));
                }
                Complete::Discard { id } => warn_if_left(self.bodies.remove(id)),
            }
        }
    }

    fn sync(&self, mut file: &File, sum: &Hasher, incoming: &Path, id: MessageId) -> Result<(), StoreError> {
        let target = self.bodies.file(id);
        file.write_all(&trailer(sum))
            .and_then(|()| file.sync_all())
            .map_err(|error| of_io(incoming, "write the content to disk", &error))?;
        fs::rename(incoming, &target).map_err(|error| of_io(&target, "give the content its name", &error))?;
        self.bodies.sync_names().map_err(|error| of_io(&target, "write the name of the content to disk", &error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver as Answers, channel};

    use super::*;

    struct Fixture {
        home: tempfile::TempDir,
        bodies: BodyFolder,
    }

    impl Fixture {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let bodies = BodyFolder::of_spool(home.path());
            bodies.make().unwrap();
            Self { home, bodies }
        }

        fn incoming(&self) -> usize {
            fs::read_dir(self.bodies.incoming()).unwrap().count()
        }

        fn contents(&self) -> usize {
            fs::read_dir(self.home.path().join("bodies")).unwrap().count() - 1
        }
    }

    fn append(uploads: &Uploads, key: u64, chunk: &'static [u8]) -> Result<(), StoreError> {
        let (sender, answer) = channel();
        uploads.append(key, Bytes::from_static(chunk), Box::new(move |done| sender.send(done).unwrap()));
        answer.recv().unwrap()
    }

    fn finish(uploads: &Uploads, key: u64, id: u64) -> Answers<Result<u64, StoreError>> {
        let (sender, answer) = channel();
        uploads.finish(key, MessageId(id), Box::new(move |done| sender.send(done).unwrap()));
        answer
    }

    #[test]
    fn chunks_of_several_uploads_become_their_files() {
        let fixture = Fixture::new();
        let uploads = Uploads::start(&fixture.bodies, 100).unwrap();
        for (key, chunk) in [(1, b"one ".as_slice()), (2, b"two"), (1, b"more")] {
            append(&uploads, key, chunk).unwrap();
        }
        assert_eq!(finish(&uploads, 1, 11).recv().unwrap().unwrap(), 8);
        assert_eq!(finish(&uploads, 2, 12).recv().unwrap().unwrap(), 3);
        assert_eq!(fixture.bodies.read(MessageId(11), 8, 0, 100).unwrap(), "one more");
        assert_eq!(fixture.bodies.read(MessageId(11), 8, 4, 2).unwrap(), "mo");
        assert_eq!(fixture.bodies.read(MessageId(12), 3, 9, 2).unwrap(), "");
        assert_eq!((fixture.incoming(), fixture.contents()), (0, 2));
    }

    #[test]
    fn one_byte_too_many_ends_an_upload_for_good() {
        let fixture = Fixture::new();
        let uploads = Uploads::start(&fixture.bodies, 8).unwrap();
        append(&uploads, 1, b"12345678").unwrap();
        let refused = append(&uploads, 1, b"9").unwrap_err();
        assert!(matches!(refused, StoreError::TooLarge { bytes_max: 8 }), "{refused}");
        assert!(append(&uploads, 1, b"").is_err());
        assert!(finish(&uploads, 1, 5).recv().unwrap().is_err());
        assert_eq!((fixture.incoming(), fixture.contents()), (0, 0));
        append(&uploads, 1, b"anew").unwrap();
    }

    #[test]
    fn abandoned_and_discarded_uploads_leave_nothing() {
        let fixture = Fixture::new();
        let uploads = Uploads::start(&fixture.bodies, 100).unwrap();
        append(&uploads, 1, b"one").unwrap();
        uploads.abandon(1);
        append(&uploads, 2, b"two").unwrap();
        let finished = finish(&uploads, 2, 7);
        uploads.discard(MessageId(7));
        drop(uploads);
        assert_eq!(finished.recv().unwrap().unwrap(), 3);
        assert_eq!((fixture.incoming(), fixture.contents()), (0, 0));
    }

    #[test]
    fn an_unknown_upload_cannot_be_finished() {
        let fixture = Fixture::new();
        let uploads = Uploads::start(&fixture.bodies, 100).unwrap();
        assert!(finish(&uploads, 1, 1).recv().unwrap().is_err());
    }
}
