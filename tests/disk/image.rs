//! A disk, and what is on it after the power was cut: only what was synced is sure.
//!
//! ```text
//!  file    what is sure ◀──sync── what was written since ◀──write, truncate──
//!  folder  names that are sure ◀──sync of the folder── names made, changed and removed since
//! ```
//!
//! Stricter than any file system: a sync of a file does not make its name sure, and what was not synced comes to disk in any
//! order, whole, torn at any sector, or not at all. After a sync that failed, what it should have brought to disk never comes there, though
//! it can still be read: only a page that is written again gets another chance (as with Linux's page cache).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::trace::Step;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: u64 = 4096;

/// What a disk promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// What was synced is sure.
    Kept,
    /// Syncs of files do nothing.
    FilesBroken,
    /// Syncs of folders do nothing.
    FoldersBroken,
}

/// How what is not sure fares in a cut.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Nothing,
    Everything,
    /// Everything that happened before this, and a part of what happened then.
    Until(u64),
    /// Some of it.
    Some,
}

#[derive(Debug, Default)]
struct File {
    sure: Vec<u8>,
    /// Since the last sync.
    unsure: Vec<(u64, Edit)>,
    /// What a program reads.
    visible: Vec<u8>,
    /// Pages that a failed sync has dropped and nobody has written since.
    dropped: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Edit {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Debug, Default)]
struct Folder {
    sure: BTreeMap<String, Node>,
    unsure: Vec<(u64, Names)>,
    visible: BTreeMap<String, Node>,
}

/// Names that change together, and what they name then.
type Names = Vec<(String, Option<Node>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder(usize),
}

/// A disk with one folder on it, which is sure from the beginning.
#[derive(Debug)]
pub(crate) struct Disk {
    top: String,
    promise: Promise,
    files: Vec<File>,
    folders: Vec<Folder>,
    inodes: HashMap<u64, usize>,
    syncs: HashMap<u64, (u64, Node)>,
    /// Changes so far.
    time: u64,
}

impl Disk {
    pub(crate) fn new(top: &Path, promise: Promise) -> Self {
        let top = top.to_str().unwrap().to_owned();
        let folders = vec![Folder::default()];
        Self { top, promise, files: Vec::new(), folders, inodes: HashMap::new(), syncs: HashMap::new(), time: 0 }
    }

    pub(crate) fn take(&mut self, step: &Step<'_>) {
        self.time += 1;
        match *step {
            Step::Open { inode, path, truncates } => self.open(inode, path, truncates),
            Step::Write { inode, offset, data } => {
                if let Some(file) = self.inodes.get(&inode) {
                    self.files[*file].write(self.time, offset, data);
                }
            }
            Step::Truncate { inode, length } => {
                if let Some(file) = self.inodes.get(&inode) {
                    self.files[*file].edit(self.time, Edit::Truncate(length));
                }
            }
            Step::SyncBegin { number, inode, path, is_folder } => {
                let file = || self.inodes.get(&inode).map(|file| Node::File(*file));
                let node = if is_folder { self.find(path) } else { file() };
                self.syncs.extend(node.map(|node| (number, (self.time, node))));
            }
            Step::SyncEnd { number, ok } => self.end_sync(number, ok),
            Step::Rename { from, to } => {
                let node = self.find(from);
                self.name(&[(from, None), (to, node)]);
            }
            Step::Link { from, to } => self.name(&[(to, self.find(from))]),
            Step::Unlink { path } | Step::RemoveFolder { path } => self.name(&[(path, None)]),
            Step::MakeFolder { path } => {
                self.folders.push(Folder::default());
                self.name(&[(path, Some(Node::Folder(self.folders.len() - 1)))]);
            }
        }
    }

    fn open(&mut self, inode: u64, path: &str, truncates: bool) {
        let file = match self.find(path) {
            Some(Node::File(file)) => file,
            Some(Node::Folder(_)) => return,
            None => {
                self.files.push(File::default());
                self.name(&[(path, Some(Node::File(self.files.len() - 1)))]);
                self.files.len() - 1
            }
        };
        self.inodes.insert(inode, file);
        if truncates {
            self.files[file].edit(self.time, Edit::Truncate(0));
        }
    }

    fn end_sync(&mut self, number: u64, ok: bool) {
        let Some((until, node)) = self.syncs.remove(&number) else { return };
        match node {
            Node::File(_) if self.promise == Promise::FilesBroken => {}
            Node::File(file) if ok => self.files[file].keep(until),
            Node::File(file) => self.files[file].drop_unsure(until),
            Node::Folder(_) if !ok || self.promise == Promise::FoldersBroken => {}
            Node::Folder(folder) => self.folders[folder].keep(until),
        }
    }

    /// Changes names in one go, in a folder or two.
    fn name(&mut self, changes: &[(&str, Option<Node>)]) {
        let mut by_folder: BTreeMap<usize, Names> = BTreeMap::new();
        for (path, node) in changes {
            let Some((parent, name)) = path.rsplit_once('/') else { continue };
            if let Some(Node::Folder(folder)) = self.find(parent) {
                by_folder.entry(folder).or_default().push((name.to_owned(), *node));
            }
        }
        for (folder, names) in by_folder {
            apply_names(&mut self.folders[folder].visible, &names);
            self.folders[folder].unsure.push((self.time, names));
        }
    }

    fn find(&self, path: &str) -> Option<Node> {
        let below = path.strip_prefix(&self.top)?;
        below.split('/').filter(|name| !name.is_empty()).try_fold(Node::Folder(0), |node, name| match node {
            Node::Folder(folder) => self.folders[folder].visible.get(name).copied(),
            Node::File(_) => None,
        })
    }

    /// Cuts the power and writes what is on the disk then, of one folder of it, to `target`. What a seed decides is as it was with that
    /// seed.
    pub(crate) fn cut(&self, folder: &str, seed: u64, target: &Path) {
        let mut chance = fastrand::Rng::with_seed(seed);
        let fate = match chance.u8(0..10) {
            0..3 => Fate::Nothing,
            3 => Fate::Everything,
            4..6 => Fate::Until(self.time.saturating_sub(chance.u64(0..40))),
            _ => Fate::Some,
        };
        let cut = Cut { disk: self, fate, seed };
        if let Some(Node::Folder(folder)) = cut.names(0).get(folder) {
            cut.write_folder(*folder, target);
        }
    }
}

impl File {
    fn write(&mut self, time: u64, offset: u64, data: &[u8]) {
        let pages = pages(offset, data.len());
        let again: Vec<u64> = pages.filter(|page| self.dropped.remove(page)).collect();
        self.edit(time, Edit::Write(offset, data.to_vec()));
        // The whole page is dirty, with what could be read in it before.
        for page in again {
            let from = usize::try_from(page * PAGE_BYTES).unwrap();
            let to = self.visible.len().min(usize::try_from((page + 1) * PAGE_BYTES).unwrap());
            let whole = self.visible[from.min(to)..to].to_vec();
            self.unsure.push((time, Edit::Write(page * PAGE_BYTES, whole)));
        }
    }

    fn edit(&mut self, time: u64, edit: Edit) {
        edit.apply(&mut self.visible);
        self.unsure.push((time, edit));
    }

    fn keep(&mut self, until: u64) {
        let (kept, rest): (Vec<_>, Vec<_>) = self.unsure.drain(..).partition(|(time, _)| *time < until);
        self.unsure = rest;
        kept.iter().for_each(|(_, edit)| edit.apply(&mut self.sure));
    }

    fn drop_unsure(&mut self, until: u64) {
        let (dropped, rest): (Vec<_>, Vec<_>) = self.unsure.drain(..).partition(|(time, _)| *time < until);
        self.unsure = rest;
        for (_, edit) in dropped {
            match edit {
                Edit::Write(offset, data) => self.dropped.extend(pages(offset, data.len())),
                // Lengths go through the journal, which does not fail unseen.
                Edit::Truncate(_) => edit.apply(&mut self.sure),
            }
        }
    }
}

impl Folder {
    fn keep(&mut self, until: u64) {
        let (kept, rest): (Vec<_>, Vec<_>) = self.unsure.drain(..).partition(|(time, _)| *time < until);
        self.unsure = rest;
        kept.iter().for_each(|(_, names)| apply_names(&mut self.sure, names));
    }
}

impl Edit {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let from = usize::try_from(*offset).unwrap();
                let end = from + data.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[from..end].copy_from_slice(data);
            }
            Self::Truncate(length) => to.resize(usize::try_from(*length).unwrap(), 0),
        }
    }
}

/// A disk whose power is cut.
struct Cut<'a> {
    disk: &'a Disk,
    fate: Fate,
    seed: u64,
}

impl Cut<'_> {
    fn names(&self, folder: usize) -> BTreeMap<String, Node> {
        let folder = &self.disk.folders[folder];
        let mut names = folder.sure.clone();
        // Of a rename from one folder to another, both or neither: whether it is kept depends on its time alone.
        for (_, changes) in folder.unsure.iter().filter(|(time, _)| self.survives(*time, 0)) {
            apply_names(&mut names, changes);
        }
        names
    }

    fn content(&self, file: usize) -> Vec<u8> {
        let file = &self.disk.files[file];
        let mut content = file.sure.clone();
        for (time, edit) in &file.unsure {
            match edit {
                Edit::Truncate(_) if self.survives(*time, 0) => edit.apply(&mut content),
                Edit::Truncate(_) => {}
                Edit::Write(offset, data) => {
                    let mut at = 0;
                    while at < data.len() {
                        let sector = (usize::try_from(*offset).unwrap() + at) / SECTOR_BYTES;
                        let end = data.len().min((sector + 1) * SECTOR_BYTES - usize::try_from(*offset).unwrap());
                        if self.survives(*time, sector as u64 + 1) {
                            Edit::Write(offset + at as u64, data[at..end].to_vec()).apply(&mut content);
                        }
                        at = end;
                    }
                }
            }
        }
        content
    }

    /// Whether a sector (from 1) of a write, or a change (0), came to disk.
    fn survives(&self, time: u64, sector: u64) -> bool {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ (time << 20) ^ sector);
        let mut change = fastrand::Rng::with_seed(self.seed ^ (time << 20));
        match self.fate {
            Fate::Nothing => false,
            Fate::Everything => true,
            Fate::Until(until) => time < until || (time == until && chance.bool()),
            // Most writes come whole or not at all, as they do.
            Fate::Some if change.u8(0..4) > 0 => change.bool(),
            Fate::Some => chance.bool(),
        }
    }

    fn write_folder(&self, folder: usize, target: &Path) {
        DirBuilder::new().recursive(true).mode(0o700).create(target).unwrap();
        for (name, node) in self.names(folder) {
            match node {
                Node::Folder(below) => self.write_folder(below, &target.join(name)),
                // Shared memory of processes that are gone.
                Node::File(_) if name.ends_with("-shm") => {}
                Node::File(file) => {
                    let path = target.join(name);
                    fs::write(&path, self.content(file)).unwrap();
                    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
                }
            }
        }
    }
}

fn apply_names(names: &mut BTreeMap<String, Node>, changes: &[(String, Option<Node>)]) {
    for (name, node) in changes {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

fn pages(offset: u64, length: usize) -> impl Iterator<Item = u64> {
    offset / PAGE_BYTES..(offset + length as u64).div_ceil(PAGE_BYTES)
}
