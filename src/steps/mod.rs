//! What the engines have in common: the samples that a step reads, and what a run decides and is
//! told.

pub(crate) mod blocks;
pub(crate) mod policy;
pub(crate) mod samples;
pub(crate) mod top_down;
