//! What a step does with a gradient: the rules of the optimisers, and the learning rate over the steps.

pub(crate) mod learning_rate;
pub(crate) mod optimizer;
