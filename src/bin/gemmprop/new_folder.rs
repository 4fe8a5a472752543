//! The folder of a new run.

use std::fs;
use std::path::{Path, PathBuf};

use gemmprop::checkpoint::{CheckpointError, Checkpoints};

/// A folder for checkpoints. If none gets there, what was made of it is removed again.
#[derive(Debug)]
pub(crate) struct NewFolder {
    /// A clone, so that the lock is held until the folder is gone.
    checkpoints: Checkpoints,
    /// The folders that did not exist, the innermost first.
    made: Vec<PathBuf>,
    /// Whether the lock's file did not exist.
    made_lock: bool,
}

const LOCK: &str = ".lock";

impl NewFolder {
    pub(crate) fn create(path: &Path) -> Result<(Checkpoints, Self), CheckpointError> {
        let lacking = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made: Vec<PathBuf> = lacking.map(Path::to_owned).collect();
        let made_lock = !path.join(LOCK).exists();
        match Checkpoints::create(path) {
            Ok(checkpoints) => Ok((checkpoints.clone(), Self { checkpoints, made, made_lock })),
            Err(error) => {
                remove(&made);
                Err(error)
            }
        }
    }
}

/// Removes those of the folders that are there and empty.
fn remove(folders: &[PathBuf]) {
    for folder in folders {
        _ = fs::remove_dir(folder);
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        let folder = self.checkpoints.directory();
        let Ok(mut entries) = fs::read_dir(folder) else { return };
        let is_none = |entry: fs::DirEntry| entry.path().extension().is_none_or(|ending| ending != "safetensors");
        if !entries.all(|entry| entry.is_ok_and(is_none)) {
            return;
        }
        if self.made_lock {
            _ = fs::remove_file(folder.join(LOCK));
        }
        remove(&self.made);
    }
}
