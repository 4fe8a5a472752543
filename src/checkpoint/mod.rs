//! A training run as files.

mod archive;
mod checkpoints;
mod error;
mod format;
mod lock;
mod state;
mod stored;

pub use checkpoints::Checkpoints;
pub use error::{CheckpointError, Damaged, Fault};
pub use state::Notes;
pub use stored::{Saved, Stored};
