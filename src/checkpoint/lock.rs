//! The lock on a directory, which one writer at a time holds.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::error::CheckpointError;

pub(crate) const LOCK: &str = ".lock";

/// Asks for the lock again if a signal has ended the call.
fn lock(file: &File) -> Result<(), TryLockError> {
    loop {
        match file.try_lock() {
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a file system has no locks. Any other error may be one of a lock that somebody holds.
fn lacks_locks(error: &io::Error) -> bool {
    // What a network file system returns whose server has no locks.
    const ENOLCK: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 37 } else { 77 };
    error.kind() == ErrorKind::Unsupported || cfg!(unix) && error.raw_os_error() == Some(ENOLCK)
}

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
    /// Succeeds without a lock where the file system has none.
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
        let file = made.or_else(|error| File::open(&path).map_err(|_| error)).map_err(CheckpointError::at(&path))?;
        match lock(&file) {
            Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { directory: directory.to_owned() }),
            Err(TryLockError::Error(error)) if lacks_locks(&error) => Ok(held),
            Err(TryLockError::Error(error)) => Err(CheckpointError::at(&path)(error)),
            Ok(()) => {
                // Under the lock, nobody else writes it.
                _ = fs::remove_file(leftover);
                *held = Some(file);
                Ok(held)
            }
        }
    }
}
