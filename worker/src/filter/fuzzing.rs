//! What filters write: an answer of any kind, and a content of any kind.

use std::io::Write;

use spooler_protocol::fuzzing::{assert_clean, sections};
use spooler_protocol::message::{Address, Envelope, Recipient};
use tempfile::TempDir;

use super::artifacts::{Content, Folder};
use super::inbound::judge;
use crate::provider::smtp_in::fuzzing::one_line;
use crate::scratch::Scratch;

thread_local! {
    /// One folder for all inputs: making one takes longer than an input does.
    static PLACE: TempDir = tempfile::tempdir().expect("a folder");
    static SCRATCH: Scratch = PLACE.with(|place| Scratch::below(place.path()));
}

/// Input: the answer of an inbound hook, then what a preprocessor wrote.
pub(crate) fn output(input: &[u8]) {
    let [said, written] = sections(input);
    answer(&String::from_utf8_lossy(said));
    let scratch = SCRATCH.with(Scratch::clone);
    let mut file = scratch.file().expect("a file");
    file.write_all(written).expect("it can be written");
    let content = Content::of_output(&file, &scratch).expect("it can be read");
    assert_eq!(content.is_none(), written.is_empty());
    let Some(content) = content else { return };
    let mut all = Vec::new();
    while (all.len() as u64) < content.size() {
        all.extend_from_slice(&content.chunk(all.len() as u64).expect("it can be read"));
    }
    assert_clean("what a filter wrote", &all);
    assert!(all.len() <= 2 * written.len() + 2);
}

fn answer(said: &str) {
    let present = [Recipient::new(Address::smtp("a@x.test").expect("an address"))];
    match judge(said, &present) {
        Ok(recipients) => {
            let envelope = Envelope { recipients, ..Envelope::default() };
            envelope.check().expect("recipients that can be some");
        }
        Err(refusal) => {
            let line = one_line(refusal.temporary, &refusal.enhanced, &refusal.text);
            assert!(line.len() <= 512 && line.ends_with("\r\n"), "{line:?}");
            assert_eq!(line.matches(char::is_control).count(), 2, "{line:?}");
        }
    }
    // A name that a hook gives leads nowhere but to a file that it left itself.
    let folder = SCRATCH.with(Folder::new).expect("a folder");
    assert!(folder.left_behind(said).is_err(), "there is no such file: {said:?}");
}
