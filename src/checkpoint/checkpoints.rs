//! The checkpoints of a run: a directory of files, each of which has all of the run.

use std::path::{Path, PathBuf};

use crate::checkpoint::archive::Archive;
use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::state::{Notes, contents};
use crate::checkpoint::stored::{Saved, Stored};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::train::model::Model;
use crate::train::trainer::Trainer;

/// A directory of checkpoints, numbered by step; the two newest are kept.
///
/// Only one run at a time may write there: the first call of [`create`](Self::create),
/// [`lock`](Self::lock), [`resume`](Self::resume) or [`save`](Self::save) locks the directory. The
/// lock is held until this value and its clones are gone, or the process is, however it ends.
/// Meanwhile the directory is [`InUse`](CheckpointError::InUse) for any other value, in this
/// process as in others. Reading needs no lock.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    archive: Archive,
}

impl Checkpoints {
    /// A directory for a new run, made if it does not exist, and [locked](Self::lock).
    ///
    /// # Errors
    /// [`CheckpointError`] if it cannot be made or read, if another run writes there, or if it has
    /// checkpoints already.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Ok(Self { archive: Archive::create(directory.as_ref())? })
    }

    /// The directory of an earlier run, to read or to resume from.
    ///
    /// # Errors
    /// [`CheckpointError`] if it cannot be read, or has no checkpoint.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Ok(Self { archive: Archive::open(directory.as_ref())? })
    }

    /// The directory as an absolute path.
    pub fn directory(&self) -> &Path {
        self.archive.directory()
    }

    /// Locks the directory for this value and its clones, which may have the lock already. Call
    /// this before reading a run in order to resume it, so that no two processes resume the same
    /// one. An unfinished file that a killed writer has left is removed.
    ///
    /// Succeeds without a lock where the file system has none, and where the lock's file may not be
    /// opened, as in a directory that may not be written to: [`save`](Self::save) fails there.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`] if another value holds the lock, and [`CheckpointError::Io`] if
    /// the system refuses to make its file, `.lock`.
    pub fn lock(&self) -> Result<(), CheckpointError> {
        self.archive.lock()
    }

    /// Writes the run as it is now. The file is written under another name, synced and renamed, so
    /// that a file with its final name is whole. The checkpoint before is kept.
    ///
    /// # Errors
    /// [`CheckpointError`]; checkpoints of earlier steps are as they were. The new one is there,
    /// and whole, if all that failed was to sync the directory.
    pub fn save<F: Scalar, L: Loss<F>>(
        &self,
        trainer: &Trainer<F, L>,
        notes: &Notes,
    ) -> Result<PathBuf, CheckpointError> {
        self.archive.write(trainer.position.steps, &contents(trainer, notes))
    }

    /// The newest whole checkpoint, for a caller that chooses the loss by the notes; otherwise
    /// [`resume`](Self::resume) is enough. To continue the run, call [`lock`](Self::lock) first.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn read(&self) -> Result<Saved<Stored>, CheckpointError> {
        Stored::newest(self.archive.newest()?)
    }

    /// Locks the directory and reads the run of the newest whole checkpoint. The caller provides
    /// the loss, which is code, and the data.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found; [`CheckpointError::Mismatch`] for a
    /// loss whose [name](Loss::name) is not that of the loss the run was trained with.
    pub fn resume<F: Scalar, L: Loss<F>>(&self, loss: L) -> Result<Saved<Trainer<F, L>>, CheckpointError> {
        self.lock()?;
        self.read()?.with(|stored| stored.trainer(loss))
    }

    /// The model of the newest checkpoint. If that is damaged, the one before is not taken in its
    /// place, as its network may have hardly been trained; [`Model::load`] reads the file it is
    /// given.
    ///
    /// # Errors
    /// [`CheckpointError::NewestDamaged`] if only an older one is whole; otherwise
    /// [`CheckpointError`], with what was expected and found.
    pub fn model<F: Scalar>(&self) -> Result<Saved<Model<F>>, CheckpointError> {
        let saved = self.read()?;
        if !saved.damaged.is_empty() {
            return Err(CheckpointError::NewestDamaged { damaged: saved.damaged, whole: saved.path });
        }
        saved.with(|stored| stored.model())
    }
}
