//! A training run as files.

mod archive;
mod checkpoints;
pub(crate) mod durable;
pub(crate) mod error;
pub(crate) mod format;
mod lock;
mod model_file;
pub(crate) mod state;
mod stored;

pub use checkpoints::Checkpoints;
pub use error::{CheckpointError, Damaged, Fault};
pub use state::Notes;
pub use stored::{Saved, Stored};
