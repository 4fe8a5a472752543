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
}

impl NewFolder {
    pub(crate) fn create(path: &Path) -> Result<(Checkpoints, Self), CheckpointError> {
        let lacking = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made: Vec<PathBuf> = lacking.map(Path::to_owned).collect();
        match Checkpoints::create(path) {
            Ok(checkpoints) => Ok((checkpoints.clone(), Self { checkpoints, made })),
            Err(error) => {
                remove(&made);
                Err(error)
            }
        }
    }
}

/// Removes those of the folders that are empty.
fn remove(folders: &[PathBuf]) {
    _ = folders.iter().try_for_each(fs::remove_dir);
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        let folder = self.checkpoints.directory();
        let lock = folder.join(".lock");
        let Ok(mut entries) = fs::read_dir(folder) else { return };
        if entries.all(|entry| entry.is_ok_and(|entry| entry.path() == lock)) {
            _ = fs::remove_file(lock);
            remove(&self.made);
        }
    }
}
