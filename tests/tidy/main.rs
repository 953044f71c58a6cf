//! House rules as tests: what reviewers would otherwise have to remember. A rule that is wrong for a good reason is changed here, with
//! the reason.

use std::fs;
use std::path::{Path, PathBuf};

// What documents say of tests and examples is so.
mod contract;
// Which package may depend on which.
mod manifests;
// The rules for files.
mod rules;
// Reading Rust, as far as the rules need it.
mod source;

use rules::{File, Rule};

/// What is looked at, below the top of the repository.
const PLACES: [&str; 16] = [
    ".ci",
    "Cargo.toml",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "dist",
    "docs",
    "protocol",
    "rustfmt.toml",
    "scripts",
    "spooler",
    "tests",
    "worker",
    "examples",
    "fuzz/Cargo.toml",
    "fuzz/fuzz_targets",
];

/// Bytes of a file that is still looked at: test data may be large.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files of the repository.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    for place in PLACES {
        collect(&top().join(place), place, &mut files);
    }
    for known in ["protocol/src/codec.rs", "spooler/src/lib.rs", "tests/tidy/rules.rs", "worker/src/lib.rs"] {
        assert!(files.iter().any(|file| file.path == known), "{known} was not found");
    }
    files
}

fn collect(place: &Path, name: &str, files: &mut Vec<File>) {
    let Ok(metadata) = fs::symlink_metadata(place) else { return };
    if metadata.is_dir() {
        for entry in fs::read_dir(place).expect("a folder of the repository can be read") {
            let entry = entry.expect("a folder of the repository can be read");
            let entry_name = entry.file_name().to_string_lossy().into_owned();
            if entry_name != "target" && entry_name != ".git" {
                collect(&entry.path(), &format!("{name}/{entry_name}"), files);
            }
        }
    } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX && !name.ends_with(".eml") {
        // What is not text has no rules.
        if let Ok(text) = fs::read_to_string(place) {
            files.push(File { path: name.to_owned(), text });
        }
    }
}

fn assert_kept(rule: Rule) {
    let mut broken = Vec::new();
    for file in files() {
        broken.extend(rule(&file).into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn deciding_is_pure() {
    assert_kept(rules::deciding_is_pure);
}

#[test]
fn unsafe_stays_in_its_rooms() {
    assert_kept(rules::unsafe_stays_in_its_rooms);
}

#[test]
fn the_codec_is_one_file() {
    assert_kept(rules::the_codec_is_one_file);
}

#[test]
fn the_channel_is_one_file_a_side() {
    assert_kept(rules::the_channel_is_one_file_a_side);
}

#[test]
fn files_are_short() {
    assert_kept(rules::files_are_short);
}

#[test]
fn nothing_is_left_over() {
    assert_kept(rules::nothing_is_left_over);
}

#[test]
fn no_lint_is_off_everywhere() {
    assert_kept(rules::no_lint_is_off_everywhere);
}

#[test]
fn no_path_of_a_workplace() {
    assert_kept(rules::no_path_of_a_workplace);
}

#[test]
fn packages_depend_in_one_direction() {
    for folder in ["protocol", "worker", "spooler"] {
        let manifest = fs::read_to_string(top().join(folder).join("Cargo.toml")).expect("every package has a manifest");
        assert_eq!(manifests::wrong_arrows(folder, &manifest), [""; 0], "in {folder}/Cargo.toml");
    }
}
