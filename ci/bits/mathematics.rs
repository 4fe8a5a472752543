//! The files of the suite whose tests compute a gradient, a step or a product with the Hessian, as
//! a program that builds quickly: `ci/mutants` builds it once for each fault that it makes.

#[allow(unexpected_cfgs, reason = "this package has no feature `blas`")]
#[path = "../../tests/suite/common/mod.rs"]
mod common;

#[path = "../../tests/suite/bounds.rs"]
mod bounds;

#[path = "../../tests/suite/bounds_digests.rs"]
mod bounds_digests;

#[path = "../../tests/suite/central_differences.rs"]
mod central_differences;

#[path = "../../tests/suite/chains.rs"]
mod chains;

#[path = "../../tests/suite/counts.rs"]
mod counts;

#[path = "../../tests/suite/counts_of_losses.rs"]
mod counts_of_losses;

#[path = "../../tests/suite/errors.rs"]
mod errors;

#[path = "../../tests/suite/hessian.rs"]
mod hessian;

#[path = "../../tests/suite/hessian_chains.rs"]
mod hessian_chains;

#[path = "../../tests/suite/hessian_runs.rs"]
mod hessian_runs;

#[path = "../../tests/suite/hessian_trained.rs"]
mod hessian_trained;

#[path = "../../tests/suite/learning_rates.rs"]
mod learning_rates;

#[path = "../../tests/suite/losses.rs"]
mod losses;

#[path = "../../tests/suite/losses_precision.rs"]
mod losses_precision;

#[path = "../../tests/suite/model.rs"]
mod model;

#[path = "../../tests/suite/optimizers.rs"]
mod optimizers;

#[path = "../../tests/suite/rungs_agree.rs"]
mod rungs_agree;

#[path = "../../tests/suite/sam.rs"]
mod sam;

#[path = "../../tests/suite/same_bits.rs"]
mod same_bits;

#[path = "../../tests/suite/trainer/mod.rs"]
mod trainer;

#[path = "../../tests/suite/unbiased.rs"]
mod unbiased;

#[path = "../../tests/suite/wide_and_tall.rs"]
mod wide_and_tall;
