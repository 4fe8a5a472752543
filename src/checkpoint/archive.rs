//! A directory of numbered files, of which the newest whole one can be read back whatever happens
//! to the process or the machine while another is written. The archive does not look into their
//! contents.
//!
//! A file is written under another name, synced and renamed, and the directory is synced, before an
//! older file is removed. A writer holds a lock on the directory; a reader needs none, because
//! every file that it can see is whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::checkpoint::durable::{replace, sync};
use crate::checkpoint::error::{CheckpointError, Damaged, Fault};
use crate::checkpoint::format::{Contents, decode, encode};
use crate::checkpoint::lock::WriterLock;

/// The name of a file that is being written.
const WRITING: &str = ".writing";
/// The number of whole files that are kept: the newest, and the one before in case the newest is
/// damaged on the disk.
const KEPT: usize = 2;

/// A directory of files, numbered by step.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    /// An absolute path, so that a later change of the working directory does not matter.
    directory: PathBuf,
    lock: WriterLock,
}

/// The newest whole file.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) contents: Contents,
    pub(crate) path: PathBuf,
    /// Newer files that cannot be used, newest first.
    pub(crate) damaged: Vec<Damaged>,
}

impl Archive {
    /// A new archive. The directory is made if it does not exist, and locked.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made or read, if another run writes there, and if it has files
    /// already.
    pub(crate) fn create(directory: &Path) -> Result<Self, CheckpointError> {
        let archive = Self::at(directory)?;
        fs::create_dir_all(&archive.directory).map_err(CheckpointError::at(&archive.directory))?;
        // A new directory is durable once its parent is synced. One that is not new may be of a
        // call that failed, or of a process that ended, before that was done.
        archive.directory.ancestors().skip(1).try_for_each(|parent| match sync(parent) {
            // Who may enter a parent but not read it has no way to sync it.
            Err((_, error)) if may_not_write(&error) => Ok(()),
            result => result.map_err(CheckpointError::refused),
        })?;
        archive.lock()?;
        match archive.numbered()?.pop_last() {
            Some((_, found)) => Err(CheckpointError::Used { directory: archive.directory, found }),
            None => Ok(archive),
        }
    }

    /// An archive that has files.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read, and if it has no file.
    pub(crate) fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let archive = Self::at(directory)?;
        match archive.numbered()?.is_empty() {
            true => Err(CheckpointError::NoneWhole { directory: archive.directory, damaged: Vec::new() }),
            false => Ok(archive),
        }
    }

    fn at(directory: &Path) -> Result<Self, CheckpointError> {
        let directory = std::path::absolute(directory).map_err(CheckpointError::at(directory))?;
        Ok(Self { directory, lock: WriterLock::default() })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Acquires the lock for this value and its clones, and removes what a killed writer has left.
    /// Succeeds without a lock where its file may not be opened; [`write`](Self::write) fails
    /// there.
    pub(crate) fn lock(&self) -> Result<(), CheckpointError> {
        match self.lock.acquire(&self.directory, &self.directory.join(WRITING)) {
            Err(CheckpointError::Io { source, .. }) if may_not_write(&source) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Writes the file of a step, replacing an earlier one of the same step, and removes those that
    /// are older than the two newest whole ones. Once this returns, a power failure cannot undo it.
    /// An older file that cannot be removed stays until a later call can remove it.
    ///
    /// # Errors
    ///
    /// If another run writes here; if the system refuses; if the directory has a whole file of a
    /// later step, which would be taken for the newest, or one that cannot be read; and if the
    /// contents make no valid file.
    pub(crate) fn write(&self, step: u64, contents: &Contents) -> Result<PathBuf, CheckpointError> {
        let path = self.directory.join(name(step));
        // What cannot be read back must not displace what can.
        let bytes = encode(contents).and_then(|bytes| decode(&bytes).map(drop).map(|()| bytes));
        let bytes = bytes.map_err(|fault| CheckpointError::Damaged(Damaged { path: path.clone(), fault }))?;
        let writing = self.directory.join(WRITING);
        let _guard = self.lock.acquire(&self.directory, &writing)?;
        self.refuse_later(step)?;
        replace(&path, &writing, &bytes).map_err(CheckpointError::refused)?;

        let mut kept = 0;
        for (number, older) in self.numbered().into_iter().flatten().rev() {
            if kept < KEPT {
                kept += usize::from(number == step || is_whole(&older).unwrap_or(false));
            } else {
                _ = fs::remove_file(&older);
            }
        }
        Ok(path)
    }

    /// Refuses a directory that has a whole file of a later step, or one that may be whole and
    /// cannot be read just now.
    fn refuse_later(&self, step: u64) -> Result<(), CheckpointError> {
        for (_, later) in self.numbered()?.range((Bound::Excluded(step), Bound::Unbounded)).rev() {
            if is_whole(later).map_err(CheckpointError::at(later))? {
                let what = format!("checkpoint {}", later.display());
                let expected = format!("none after step {step}, which is to be written");
                return Err(CheckpointError::Mismatch { what, expected, found: "a whole one".into() });
            }
        }
        Ok(())
    }

    /// The newest whole file.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read, and if no file is whole.
    pub(crate) fn newest(&self) -> Result<Newest, CheckpointError> {
        let mut damaged = Vec::new();
        let mut files = self.numbered()?;
        while let Some((number, path)) = files.pop_last() {
            let fault = match load(&path) {
                Ok(contents) => return Ok(Newest { contents, path, damaged }),
                Err(fault) => fault,
            };
            if matches!(&fault, Fault::Io(error) if error.kind() == io::ErrorKind::NotFound) {
                let now = self.numbered()?;
                if !now.contains_key(&number) {
                    // A writer has removed it in the meantime, so there are newer ones.
                    (files, damaged) = (now, Vec::new());
                    continue;
                }
            }
            damaged.push(Damaged { path, fault });
        }
        Err(CheckpointError::NoneWhole { directory: self.directory.clone(), damaged })
    }

    /// The paths of the files by step.
    fn numbered(&self) -> Result<BTreeMap<u64, PathBuf>, CheckpointError> {
        let number = |path: &Path| {
            let file = path.file_name()?.to_str()?;
            let number = file.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()?;
            (name(number) == file).then_some(number)
        };
        let entries = fs::read_dir(&self.directory)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>());
        let entries = entries.map_err(CheckpointError::at(&self.directory))?;
        Ok(entries.into_iter().filter_map(|path| Some((number(&path)?, path))).collect())
    }
}

fn name(step: u64) -> String {
    format!("step-{step:012}.safetensors")
}

/// Reads one file.
///
/// # Errors
///
/// If it cannot be read, or is not whole.
pub(crate) fn read(path: &Path) -> Result<Contents, CheckpointError> {
    load(path).map_err(|fault| match fault {
        Fault::Io(source) => CheckpointError::Io { path: path.to_owned(), source },
        Fault::Foreign => CheckpointError::Foreign { path: path.to_owned() },
        fault => CheckpointError::Damaged(Damaged { path: path.to_owned(), fault }),
    })
}

fn load(path: &Path) -> Result<Contents, Fault> {
    let bytes = fs::read(path).map_err(Fault::Io)?;
    Ok(decode(&bytes)?.into_contents())
}

/// Whether a file is whole, if it can be read. What is gone or is no file is not.
fn is_whole(path: &Path) -> io::Result<bool> {
    match fs::read(path) {
        Ok(bytes) => Ok(decode(&bytes).is_ok()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

fn may_not_write(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
