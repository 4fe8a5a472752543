//! Work sharing: disjoint tiles, whose threads compute them, how many, and when sharing pays.

pub(crate) mod cores;
pub(crate) mod fork_join;
#[cfg(test)]
mod fork_join_tests;
pub(crate) mod helper;
pub(crate) mod pace;
pub(crate) mod panel_set;
#[cfg(test)]
mod panel_set_tests;
pub(crate) mod per_tile;
pub(crate) mod pool;
pub(crate) mod sync;
pub(crate) mod team;
#[cfg(feature = "blas")]
pub(crate) mod tiles;
pub(crate) mod workload;
