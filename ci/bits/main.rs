//! The files of the suite whose tests compare bits, with the oracle or with constants, and the
//! kernels with their own tests, as a program that builds quickly.

#[allow(unexpected_cfgs, reason = "this package has no feature `blas`")]
#[path = "../../tests/suite/common/mod.rs"]
mod common;

#[path = "../../tests/suite/chains.rs"]
mod chains;

#[path = "../../tests/suite/rungs_agree.rs"]
mod rungs_agree;

#[path = "../../tests/suite/same_bits.rs"]
mod same_bits;

// For x86-64, ci/test has them among the library's own tests.
#[cfg(not(target_arch = "x86_64"))]
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/kernels/mod.rs"]
mod kernels;
