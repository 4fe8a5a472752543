//! The function that is learned: a network, the standardisation of its inputs, and the losses.

pub(crate) mod loss;
pub(crate) mod mlp;
pub(crate) mod parameters;
pub(crate) mod probabilities;
pub(crate) mod products;
pub(crate) mod standardizer;
