//! The files of the suite whose tests compare bits with the oracle, and the kernels with their own
//! tests, as a program that builds quickly.

#[path = "../../tests/suite/common/mod.rs"]
mod common;

#[path = "../../tests/suite/rungs_agree.rs"]
mod rungs_agree;

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/kernels/mod.rs"]
mod kernels;
