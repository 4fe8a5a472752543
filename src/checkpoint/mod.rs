//! A training run as files.

mod archive;
mod state;

pub use archive::{CheckpointError, Checkpoints, Damaged, Fault};
pub use state::{Notes, Saved, Stored};
