//! Why checkpoints could not be written or read.

use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::durable::Refused;

/// Why checkpoints could not be written or read. After a failed write, checkpoints of earlier steps
/// are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A new run was to begin in a directory that has checkpoints of another.
    #[error("{directory}: expected no checkpoints, found {found:?}; resume from them or choose another directory")]
    Used {
        /// The directory as an absolute path.
        directory: PathBuf,
        /// Its newest checkpoint.
        found: PathBuf,
    },
    /// Another run writes to the directory.
    #[error("{directory}: expected no run that writes here, found one; wait for its end or choose another directory")]
    InUse {
        /// The directory as an absolute path.
        directory: PathBuf,
    },
    /// One file cannot be used.
    #[error(transparent)]
    Damaged(Damaged),
    /// The file is sound, but this crate has not written it.
    #[error("{path}: {}", Fault::Foreign)]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The newest checkpoint is damaged, and an older one is only used if the caller names it.
    #[error("{}; the newest whole checkpoint is {whole}, for a caller that names it", list(damaged))]
    NewestDamaged {
        /// All that are newer than the whole one, newest first.
        damaged: Vec<Damaged>,
        /// The newest that is whole.
        whole: PathBuf,
    },
    /// There is nothing to resume from.
    #[error("{directory}: expected a whole checkpoint, found {}", list(damaged))]
    NoneWhole {
        /// The directory as an absolute path.
        directory: PathBuf,
        /// All its checkpoints, newest first.
        damaged: Vec<Damaged>,
    },
    /// A checkpoint does not fit the request, or contradicts itself.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// Which property.
        what: String,
        /// What it had to be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl CheckpointError {
    /// Adds the path to an error of the system.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { path: path.to_owned(), source }
    }

    /// The same, where it comes with its path.
    pub(crate) fn refused((path, source): Refused) -> Self {
        Self::Io { path, source }
    }
}

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// It was cut off, or something was appended.
    #[error("expected {expected} bytes by its header, found {found}")]
    Length {
        /// The length by the header, as far as there is one.
        expected: u64,
        /// The length of the file.
        found: u64,
    },
    /// It is a sound safetensors file without a checksum, so another program has written it.
    #[error("expected a checkpoint of this crate, found a safetensors file that another program wrote")]
    Foreign,
    /// It breaks the rules of safetensors.
    #[error("expected a safetensors file with a checksum, found {found}")]
    Format {
        /// How it breaks them.
        found: String,
    },
    /// The contents have changed since they were written.
    #[error("expected the checksum {expected}, found {found}")]
    Checksum {
        /// The checksum in the file.
        expected: String,
        /// The checksum of the contents.
        found: String,
    },
}

fn list(damaged: &[Damaged]) -> String {
    match damaged {
        [] => "none".into(),
        _ => damaged.iter().map(Damaged::to_string).collect::<Vec<_>>().join("; "),
    }
}
