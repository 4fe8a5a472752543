//! The hot path: a training step as phases of batched products over fixed tiles.

#[expect(clippy::module_inception, reason = "split in the next commits")]
pub(crate) mod engine;
pub(crate) mod plan;
pub(crate) mod update;
