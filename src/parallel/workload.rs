//! How much work there is to share: what decides whether helpers are called and phases shared.

use std::iter::Sum;
use std::ops::{Add, Mul};

use crate::parallel::fork_join::ForkJoin;

/// Floating-point operations of a phase below which it is not shared: to hand a tile to a helper
/// that is awake costs two cache misses each way, under 1 µs.
const SHARE_FLOPS: usize = 150_000;

/// The work of those phases of a step, or of a call, that are worth sharing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Workload {
    /// Floating-point operations of all phases.
    pub(crate) flops: usize,
    /// The largest number of tiles that a phase has.
    pub(crate) tiles: usize,
}

/// Returns the workload of one phase: zero if it is not worth sharing.
pub(crate) fn workload(tiles: usize, flops: usize) -> Workload {
    let shared = tiles > 1 && tiles <= ForkJoin::MAX_TILES && flops >= SHARE_FLOPS;
    if shared { Workload { flops, tiles } } else { Workload::default() }
}

/// The workload of two pieces of work, one after the other.
impl Add for Workload {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { flops: self.flops.saturating_add(other.flops), tiles: self.tiles.max(other.tiles) }
    }
}

/// The workload of a piece of work that is repeated.
impl Mul<Workload> for usize {
    type Output = Workload;
    fn mul(self, work: Workload) -> Workload {
        Workload { flops: work.flops.saturating_mul(self), ..work }
    }
}

impl Sum for Workload {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}
