//! One number for each tile of a phase, written by whichever thread runs the tile.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places for `count` numbers.
pub(crate) fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// Keeps a number, as the bits of an f64. The end of the phase publishes it.
pub(crate) fn store(place: &AtomicU64, number: f64) {
    place.store(number.to_bits(), Ordering::Relaxed);
}

/// The sum of what was [stored](store), in order, whichever thread stored it.
pub(crate) fn sum(places: &[AtomicU64]) -> f64 {
    places.iter().map(|number| f64::from_bits(number.load(Ordering::Relaxed))).sum()
}
