//! Blocks of samples.

use std::ops::Range;

/// 0 … len in ranges of `size`, the last one smaller.
pub(crate) fn ranges(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(size.max(1)).map(move |start| start..(start + size).min(len))
}

/// The largest number of samples whose losses are computed together where there is no step: enough
/// for two cores to share even narrow layers.
const LOSS_ROWS: usize = 512;

/// The length of the blocks in which the losses of this many samples are computed: about equal
/// ones, so that the last is not a short one.
pub(crate) fn loss_block(samples: usize) -> usize {
    samples.div_ceil(samples.div_ceil(LOSS_ROWS))
}
