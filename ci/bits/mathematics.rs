//! The files of the suite whose tests compute a gradient, a step or a product with the Hessian, as
//! a program that builds quickly: `ci/mutants` builds it once for each fault that it makes.

#[allow(unexpected_cfgs, reason = "this package has no feature `blas`")]
#[path = "../../tests/suite/common/mod.rs"]
mod common;

#[path = "../../tests/suite/central_differences.rs"]
mod central_differences;

#[path = "../../tests/suite/chains.rs"]
mod chains;

#[path = "../../tests/suite/counts_of_losses.rs"]
mod counts_of_losses;

#[path = "../../tests/suite/hessian.rs"]
mod hessian;

#[path = "../../tests/suite/hessian_chains.rs"]
mod hessian_chains;

#[path = "../../tests/suite/losses.rs"]
mod losses;

#[path = "../../tests/suite/optimizers.rs"]
mod optimizers;

#[path = "../../tests/suite/rungs_agree.rs"]
mod rungs_agree;

#[path = "../../tests/suite/sam.rs"]
mod sam;

#[path = "../../tests/suite/same_bits.rs"]
mod same_bits;

#[path = "../../tests/suite/unbiased.rs"]
mod unbiased;
