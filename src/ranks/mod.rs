//! Training on several ranks: processes that may be on several machines, each with a part of the
//! data.
//!
//! ```text
//! each rank:      g[c] = (1/B) Σ ∇θ ℓ over the samples of its chunks c       `step`
//! between ranks:  g = Σ g[c], in the tree of all chunks                      `reduce`, `tree`
//! each rank:      θ ← rule(θ, g)                                             `update`
//! ```
//!
//! [`DataParallel`] is a [`Trainer`](crate::Trainer) on the ranks of a [`Group`]; with the feature
//! `mpi`, that is a `World`, the ranks of a program that `mpirun` has started. Which samples a
//! chunk has is in `deal`, and how the ranks end together if one of them fails in `agree`.

pub(crate) mod agree;
pub(crate) mod data_parallel;
pub(crate) mod deal;
#[cfg(test)]
mod failure_tests;
pub(crate) mod group;
pub(crate) mod parts;
#[cfg(test)]
mod ranks_tests;
pub(crate) mod reduce;
pub(crate) mod rows;
pub(crate) mod step;
#[cfg(test)]
mod threads_tests;
pub(crate) mod together;
pub(crate) mod tree;
pub(crate) mod update;
#[cfg(feature = "mpi")]
pub(crate) mod world;

pub use data_parallel::{DataParallel, part_of_rank};
pub use group::{Alone, Group};
#[cfg(feature = "mpi")]
pub use world::{CommunicationTimes, World};
