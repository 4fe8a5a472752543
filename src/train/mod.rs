//! Training runs: data in memory, the loops over batches and epochs, and what they leave behind.

pub(crate) mod adjust;
pub(crate) mod class_weights;
pub(crate) mod dataset;
pub(crate) mod epoch;
pub(crate) mod from_source;
pub(crate) mod gradients;
pub(crate) mod history;
pub(crate) mod in_memory;
pub(crate) mod model;
pub(crate) mod observer;
pub(crate) mod position;
#[cfg(feature = "progress")]
pub(crate) mod progress;
pub(crate) mod settings;
pub(crate) mod sgd;
pub(crate) mod source;
pub(crate) mod stream;
#[cfg(feature = "internals")]
pub(crate) mod tile_times;
pub(crate) mod trainer;
