//! The private folder of a message, and contents in files of it. What a filter writes gets CRLF line ends, as everything in the queue
//! has; a CR or a NUL in the middle of a line becomes a space.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use spooler_protocol::limits::BODY_CHUNK_BYTES_MAX;
use spooler_protocol::to_worker::Refusal;
use tempfile::TempDir;

use super::refusal;
use crate::provider::smtp::dot::WireForm;
use crate::scratch::{Draft, Scratch};

/// Bytes of what a filter wrote that are looked at together.
const PIECE_BYTES: usize = 64 * 1024;

/// A content in a file that nobody else knows.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
    size: u64,
}

impl Content {
    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The content from `offset`: as much as travels at once; empty at its end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn chunk(&self, offset: u64) -> Result<Bytes, String> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut chunk = vec![0; rest.min(BODY_CHUNK_BYTES_MAX)];
        self.file
            .read_exact_at(&mut chunk, offset)
            .map_err(|error| format!("a filtered message cannot be read: {error}"))?;
        Ok(chunk.into())
    }

    /// What a filter wrote, made of CRLF lines as everything that goes out ([`WireForm`]); `None` if it wrote nothing.
    pub(super) fn of_output(output: &File, scratch: &Scratch) -> std::io::Result<Option<Self>> {
        if output.metadata()?.len() == 0 {
            return Ok(None);
        }
        let mut from = output.try_clone()?;
        std::io::Seek::rewind(&mut from)?;
        let mut to = scratch.draft()?;
        let (mut form, mut piece, mut clean) = (WireForm::for_bdat(), vec![0; PIECE_BYTES], Vec::new());
        loop {
            let count = from.read(&mut piece)?;
            form.push(piece.get(..count).unwrap_or_default(), &mut clean);
            if count == 0 {
                form.finish(&mut clean);
            }
            to.write(&clean)?;
            clean.clear();
            if count == 0 {
                return Self::of(to.finish()?).map(Some);
            }
        }
    }

    fn of(file: File) -> std::io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

/// A message on its way in, until the hooks have seen it.
#[derive(Debug)]
pub(crate) struct Held {
    scratch: Scratch,
    draft: Option<Draft>,
}

impl Held {
    /// Nothing yet.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        Self { scratch: scratch.clone(), draft: None }
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.draft.as_ref().map_or(0, Draft::bytes)
    }

    /// Adds to the content.
    ///
    /// # Errors
    /// If there is no space for it.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.try_write(data).map_err(|error| refusal(&format!("The message cannot be kept for the hooks: {error}")))
    }

    fn try_write(&mut self, data: &[u8]) -> std::io::Result<()> {
        let draft = match &mut self.draft {
            Some(draft) => draft,
            none => none.insert(self.scratch.draft()?),
        };
        draft.write(data)
    }

    pub(super) fn into_content(self) -> std::io::Result<Content> {
        Content::of(self.draft.map_or_else(|| self.scratch.draft(), Ok)?.finish()?)
    }
}

/// The folder of one message, removed with everything in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
}

impl Folder {
    /// A folder that only this user can enter.
    pub(super) fn new(scratch: &Scratch) -> std::io::Result<Self> {
        Ok(Self { folder: scratch.folder(None)? })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file that a filter left here; a name that leads elsewhere is none.
    pub(super) fn left_behind(&self, name: &str) -> std::io::Result<File> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        let path = self.path().join(if plain { name } else { return Err(std::io::ErrorKind::InvalidInput.into()) });
        if !path.symlink_metadata()?.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        File::open(path)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_a_filter_writes_gets_the_line_ends_of_the_queue() {
        let place = tempfile::tempdir().unwrap();
        let scratch = Scratch::below(place.path());
        let mut output = scratch.file().unwrap();
        assert!(Content::of_output(&output, &scratch).unwrap().is_none());
        output.write_all(b"a\nb\r\n\n\rc\0").unwrap();
        let content = Content::of_output(&output, &scratch).unwrap().unwrap();
        assert_eq!(content.chunk(0).unwrap().as_ref(), b"a\r\nb\r\n\r\n c \r\n");
        assert_eq!(
            (content.chunk(9).unwrap().as_ref(), content.chunk(content.size()).unwrap().len()),
            (b"c \r\n".as_slice(), 0)
        );
    }

    #[test]
    fn only_plain_files_in_the_folder_are_taken() {
        let place = tempfile::tempdir().unwrap();
        let scratch = Scratch::below(place.path());
        let folder = Folder::new(&scratch).unwrap();
        std::fs::write(folder.path().join("good"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(folder.left_behind("good").is_ok());
        for bad in ["link", "../x", "/etc/passwd", "", ".", "missing"] {
            assert!(folder.left_behind(bad).is_err(), "{bad}");
        }
    }
}
