//! The lock on a directory, which one writer at a time holds.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::error::CheckpointError;

pub(crate) const LOCK: &str = ".lock";

/// A lock on a directory. Once acquired, it is held until this value and its clones are gone, or
/// the process is, however it ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriterLock {
    /// The locked file, once it is locked.
    file: Arc<Mutex<Option<File>>>,
}

impl WriterLock {
    /// Acquires the lock, unless this value or a clone has it already, and removes `leftover`, a
    /// file that a killed writer may have left. While the guard lives, no other thread acquires the
    /// lock through a clone.
    ///
    /// Succeeds without a lock where the file system has none, and where the directory may not be
    /// written to: writing will fail there.
    pub(crate) fn acquire(
        &self,
        directory: &Path,
        leftover: &Path,
    ) -> Result<MutexGuard<'_, Option<File>>, CheckpointError> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(held);
        }
        let path = directory.join(LOCK);
        let made = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        // To lock the file of another user, it is enough to read it.
        let file = match made.or_else(|error| File::open(&path).map_err(|_| error)) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                return Ok(held);
            }
            Err(e) => return Err(CheckpointError::at(&path)(e)),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { directory: directory.to_owned() }),
            Err(TryLockError::Error(_)) => Ok(held),
            Ok(()) => {
                // Under the lock, nobody else writes it.
                _ = fs::remove_file(leftover);
                *held = Some(file);
                Ok(held)
            }
        }
    }
}
