//! Blocks of samples.

use std::ops::Range;

/// 0 … len in ranges of `size`, the last one smaller.
pub(crate) fn ranges(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..len).step_by(size.max(1)).map(move |start| start..(start + size).min(len))
}

/// The largest number of samples whose losses are computed together where there is no step: enough
/// for two cores to share even narrow layers.
const LOSS_ROWS: usize = 512;

/// The length of the blocks in which the losses of this many samples are computed.
pub(crate) fn loss_block(samples: usize) -> usize {
    even_block(samples, LOSS_ROWS)
}

/// The length of at most `most` of blocks that are about equal, so that the last is not a short
/// one.
pub(crate) fn even_block(samples: usize, most: usize) -> usize {
    samples.div_ceil(samples.div_ceil(most))
}
