//! Where the test messages are: small ones of our own beside this file, and a corpus of real ones outside the repository.

use std::path::{Path, PathBuf};

/// Our own messages, with the oddities of real ones.
#[allow(dead_code, reason = "not every test program reads messages")]
pub(crate) fn own_messages() -> Vec<PathBuf> {
    let files = eml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data"));
    assert!(files.len() >= 10, "test messages are missing: {files:?}");
    files
}

/// The corpus of real messages below `$SPOOLER_SHARED` (default `../shared` of the repository), or a word on standard error and nothing.
#[allow(dead_code, reason = "not every test program reads messages")]
pub(crate) fn corpus() -> Vec<PathBuf> {
    let shared = std::env::var_os("SPOOLER_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let files = eml_files(&shared.join("corpus"));
    if files.is_empty() {
        eprintln!("skipped: no corpus in {} (set SPOOLER_SHARED)", shared.display());
    }
    files
}

fn eml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    files
}
