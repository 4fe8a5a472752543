//! The files of the suite whose tests compare bits with the oracle, as a program that builds
//! quickly.

#[path = "../../tests/suite/common/mod.rs"]
mod common;

#[path = "../../tests/suite/rungs_agree.rs"]
mod rungs_agree;
