//! The layer below the supervisor (`layer.c`): built once, switched on for a supervisor, and told which calls shall fail.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::errno::Errno;

/// Calls that can fail, as bits.
pub(crate) const OPEN: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const TRUNCATE: u32 = 4;
pub(crate) const SYNC: u32 = 8;
pub(crate) const RENAME: u32 = 16;
pub(crate) const UNLINK: u32 = 32;
pub(crate) const READ: u32 = 64;
pub(crate) const ALLOCATE: u32 = 128;

/// Where the fields are in the page that the layer shares with us.
const HITS_AT: u64 = 16;
const DIE_AT: u64 = 24;
const MATCH_AT: u64 = 32;
const PAGE_BYTES: u64 = 4096;

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) calls: u32,
    pub(crate) error: Errno,
    /// So many are let through first.
    pub(crate) skip: i32,
    /// So many fail then; -1: all.
    pub(crate) count: i32,
    /// A write writes one half before it fails.
    pub(crate) torn: bool,
    /// So many calls after one that failed the supervisor is killed; 0: it is not.
    pub(crate) deadly: i32,
    /// Only files whose path contains this.
    pub(crate) of: &'static str,
}

impl Fault {
    /// All calls of a kind fail.
    pub(crate) fn all(calls: u32, error: Errno, of: &'static str) -> Self {
        Self { calls, error, skip: 0, count: -1, torn: false, deadly: 0, of }
    }
}

/// The layer of one supervisor.
pub(crate) struct Layer {
    root: PathBuf,
    page: File,
}

impl Layer {
    /// A layer whose files are in this folder; it sees what happens below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
        let page = options.open(root.join("faults")).unwrap();
        page.set_len(PAGE_BYTES).unwrap();
        fs::write(root.join("trace"), b"").unwrap();
        Self { root: root.to_owned(), page }
    }

    /// What has to stand in front of the supervisor's command line. Without a trace nothing is recorded; with `sync_us`, syncs only take
    /// time.
    pub(crate) fn wrap(&self, traced: bool, sync_us: Option<u32>) -> Vec<String> {
        let root = self.root.display();
        let mut words = vec!["env".to_owned(), format!("LD_PRELOAD={}", library().display())];
        words.push(format!("LAYER_ROOT={root}"));
        words.push(format!("LAYER_FAULTS={root}/faults"));
        if traced {
            words.push(format!("LAYER_TRACE={root}/trace"));
        }
        words.extend(sync_us.map(|us| format!("LAYER_SYNC_US={us}")));
        words
    }

    /// From now on, calls fail like this.
    pub(crate) fn set(&self, fault: Fault) {
        self.heal();
        self.page.write_all_at(&u32::to_ne_bytes(0), HITS_AT).unwrap();
        let mut name = [0; 64];
        name[..fault.of.len()].copy_from_slice(fault.of.as_bytes());
        self.page.write_all_at(&name, MATCH_AT).unwrap();
        for (at, number) in [
            (4, fault.error as i32),
            (8, fault.skip),
            (12, fault.count),
            (20, i32::from(fault.torn)),
            (28, fault.deadly),
        ] {
            self.page.write_all_at(&number.to_ne_bytes(), at).unwrap();
        }
        self.page.write_all_at(&fault.calls.to_ne_bytes(), 0).unwrap();
    }

    /// From now on, no call fails.
    pub(crate) fn heal(&self) {
        self.page.write_all_at(&u32::to_ne_bytes(0), 0).unwrap();
    }

    /// So many calls have failed since [`Layer::set`].
    pub(crate) fn hits(&self) -> u32 {
        let mut bytes = [0; 4];
        self.page.read_exact_at(&mut bytes, HITS_AT).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// The supervisor is killed at its `call`th call from now on; between two calls, so that the trace is whole.
    pub(crate) fn kill_at(&self, call: u32) {
        self.page.write_all_at(&call.to_ne_bytes(), DIE_AT).unwrap();
    }

    /// The trace so far.
    pub(crate) fn trace(&self) -> PathBuf {
        self.root.join("trace")
    }
}

/// The shared library, built from `layer.c` once for each run of the tests.
fn library() -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = BUILT.get_or_init(|| tempfile::tempdir().unwrap());
        let (source, library) = (folder.path().join("layer.c"), folder.path().join("layer.so"));
        fs::write(&source, include_str!("layer.c")).unwrap();
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let built = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .output()
            .unwrap_or_else(|error| panic!("{compiler} is needed to build layer.c: {error}"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    })
}
