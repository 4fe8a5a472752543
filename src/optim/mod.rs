//! What a step does with a gradient: the rules of the optimisers, and the learning rate over the
//! steps.

pub(crate) mod hyperparameter;
pub(crate) mod learning_rate;
pub(crate) mod moments;
pub(crate) mod optimizer;
pub(crate) mod overflow;
pub(crate) mod rule;
pub(crate) mod uphill;
