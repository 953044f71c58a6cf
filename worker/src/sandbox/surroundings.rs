//! Everything but a few places. Landlock can only allow, so what surrounds a hidden place is allowed piece by piece:
//!
//! ```text
//!   /            hidden: /var/spool/spooler
//!   ├─ etc       allowed
//!   ├─ usr       allowed
//!   └─ var       passed
//!      ├─ lib    allowed
//!      └─ spool  passed
//!         ├─ cron     allowed
//!         └─ spooler  hidden
//! ```
//!
//! In a folder that is only passed nothing can be made or removed, and what comes into being there later cannot be opened.

use std::path::{Path, PathBuf};

/// The largest set of paths that, with everything below them, leaves the hidden ones out.
pub(super) fn of(hidden: &[PathBuf]) -> Vec<PathBuf> {
    // Behind a symbolic link is what counts.
    let hidden: Vec<PathBuf> = hidden.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
    let mut around = Vec::new();
    surround(Path::new("/"), &hidden, &mut around);
    around
}

fn surround(folder: &Path, hidden: &[PathBuf], around: &mut Vec<PathBuf>) {
    if !hidden.iter().any(|path| path.starts_with(folder)) {
        around.push(folder.to_owned());
        return;
    }
    if hidden.iter().any(|path| path == folder) {
        return;
    }
    // What this user cannot list is beyond its reach.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // A link allows what it leads to, which may be what is hidden.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            surround(&entry.path(), hidden, around);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_what_is_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a/store/x", "a/other", "b"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("a/secret"), "").unwrap();
        std::os::unix::fs::symlink(at("a/store"), at("link")).unwrap();
        let around = of(&[at("a/store"), at("a/secret"), at("a/socket")]);
        assert!(around.contains(&at("a/other")) && around.contains(&at("b")) && around.contains(&"/usr".into()));
        for path in &around {
            assert!(!at("a/store").starts_with(path) && !at("a/secret").starts_with(path), "{}", path.display());
            assert!(!path.starts_with(at("a/store")) && *path != at("link"), "{}", path.display());
        }
        assert_eq!(of(&[]), [PathBuf::from("/")]);
    }
}
