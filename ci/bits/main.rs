//! The files of the suite whose tests compare bits with the oracle, as a program that builds
//! quickly.

// This program uses only a part of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/suite/common/mod.rs"]
mod common;

#[path = "../../tests/suite/rungs_agree.rs"]
mod rungs_agree;
