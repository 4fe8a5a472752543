//! Work sharing: whose threads compute the tiles of a call, how many, and when sharing pays.

pub(crate) mod cores;
pub(crate) mod fork_join;
#[cfg(test)]
mod fork_join_tests;
pub(crate) mod pace;
pub(crate) mod sync;
pub(crate) mod team;
pub(crate) mod tiles;
