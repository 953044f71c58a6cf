//! All fuzz targets, and their corpus.
//!
//! ```text
//!   fuzz/fuzz_targets/NAME.rs   libFuzzer, by scripts/fuzz           ─┐
//!   tests/fuzzing/src/main.rs   mutations without a fuzzer, likewise ─┼─▶ run(NAME, bytes) ─▶ the target, beside the code that it tries
//!   tests/fuzzing/tests/        each file of fuzz/corpus, by the tests ─┘
//! ```

use std::fs;
use std::io;
use std::path::PathBuf;

use spooler_protocol::fuzzing::Target;

/// All targets, by name.
#[must_use]
pub fn targets() -> Vec<Target> {
    let crates = [spooler_protocol::fuzzing::TARGETS, spooler_worker::fuzzing::TARGETS, spooler::fuzzing::TARGETS];
    let mut targets = crates.concat();
    targets.sort_by_key(|(name, _)| *name);
    targets
}

/// Runs a target.
///
/// # Panics
/// If there is none of this name, or if something does not hold that has to.
pub fn run(name: &str, input: &[u8]) {
    let all = targets();
    let (_, target) =
        all.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("there is no target {name}"));
    target(input);
}

/// The folder `fuzz/` of the repository.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"))
}

/// The inputs of a target that are kept, with their paths, in the order of their names.
///
/// # Errors
/// If the folder, or a file in it, cannot be read.
pub fn corpus(name: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let entries = fs::read_dir(folder().join("corpus").join(name))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
}
