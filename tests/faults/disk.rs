//! What may be on a disk after a power failure, by the least that POSIX promises: the bytes of a
//! file are there once the file is synced, and the names in a directory once the directory is. Of
//! what has not been synced any part may be there, whatever the order in which it was done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::calls::Change;

#[derive(Debug, Default, Clone)]
struct File {
    synced: Vec<u8>,
    written: Vec<u8>,
}

/// The index of a file, or a directory.
type Entry = Option<usize>;

#[derive(Debug, Clone)]
enum Name {
    Add(PathBuf, Entry),
    Rename(PathBuf, PathBuf, Entry),
    Remove(PathBuf),
}

impl Name {
    fn path(&self) -> &Path {
        match self {
            Self::Add(path, _) | Self::Rename(_, path, _) | Self::Remove(path) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            Self::Add(path, entry) => drop(names.insert(path.clone(), *entry)),
            Self::Rename(from, to, entry) => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
            Self::Remove(path) => drop(names.remove(path)),
        }
    }
}

/// Paths with the bytes of files, or `None` for a directory.
pub(crate) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A disk on which nothing is but what the changes say.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    now: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Those that are not durable yet, in order.
    pending: Vec<Name>,
}

impl Disk {
    fn name(&mut self, change: Name) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path) => match self.now.get(path) {
                Some(&entry) => self.files[entry.expect("a file")].written.clear(),
                None => {
                    self.files.push(File::default());
                    self.name(Name::Add(path.clone(), Some(self.files.len() - 1)));
                }
            },
            Change::Write(path, bytes) => {
                let file = self.now[path].expect("a file");
                self.files[file].written.extend(bytes);
            }
            Change::Sync(path) => match self.now.get(path) {
                Some(&Some(file)) => self.files[file].synced = self.files[file].written.clone(),
                // A directory, which may have been there before.
                _ => self.pending.retain(|change| {
                    let here = change.path().parent() == Some(path);
                    if here {
                        change.apply(&mut self.durable);
                    }
                    !here
                }),
            },
            Change::Rename(from, to) => self.name(Name::Rename(from.clone(), to.clone(), self.now[from])),
            Change::Remove(path) => self.name(Name::Remove(path.clone())),
            Change::MakeDirectory(path) => self.name(Name::Add(path.clone(), None)),
        }
    }

    /// All that may be there if the power fails now.
    pub(crate) fn after_a_power_failure(&self) -> BTreeSet<Tree> {
        // As it was synced; as it was written; half of that; and as long as that, without its
        // bytes.
        let bytes = |file: &File, way: usize| match way {
            0 => file.synced.clone(),
            1 => file.written.clone(),
            2 => file.written[..file.written.len() / 2].to_vec(),
            _ => vec![0; file.written.len()],
        };
        let unsynced = self.files.iter().any(|file| file.synced != file.written);
        let mut trees = BTreeSet::new();
        assert!(self.pending.len() < 12, "too many ways");
        for subset in 0..1_usize << self.pending.len() {
            let mut names = self.durable.clone();
            let part = self.pending.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1);
            part.for_each(|(_, change)| change.apply(&mut names));
            for way in 0..if unsynced { 4 } else { 1 } {
                let of = |entry: &Entry| {
                    entry.map(|file| {
                        let file = &self.files[file];
                        bytes(file, if file.synced == file.written { 0 } else { way })
                    })
                };
                trees.insert(names.iter().map(|(path, entry)| (path.clone(), of(entry))).collect());
            }
        }
        trees
    }
}

/// Makes the tree, whose paths are below `from`, below `to`. What stands in a directory that is
/// lost is lost.
pub(crate) fn lay(tree: &Tree, from: &Path, to: &Path) {
    for (path, content) in tree {
        let place = to.join(path.strip_prefix(from).expect("a path below"));
        if !place.parent().is_some_and(Path::is_dir) {
            continue;
        }
        match content {
            Some(bytes) => fs::write(place, bytes).expect("an empty place"),
            None => fs::create_dir(place).expect("an empty place"),
        }
    }
}
