//! How large tiles are: fixed sizes that depend on shapes alone.
//!
//! BLAS copies both operands into an order of its own at each call. Tiles of rows (samples) repeat
//! that for all of w[t], tiles of columns (neurons) repeat it for all of Z[t]. w[t] is the larger
//! one and costs more, so the product of a wide layer is cut by columns, unless the batch is so
//! tall that w[t] is small beside the samples of a tile.

use std::ops::Range;

use crate::steps::blocks::ranges;

/// The largest product, in multiplications, that is cut by rows whatever the batch. OpenBLAS's
/// kernels for AVX-512 compute products of up to 100³ without copying their operands; its kernels
/// for AVX2, which always copy, copy little here.
pub(crate) const NARROW: usize = 500_000;

/// The largest product of a matrix and a vector that is cut by rows.
pub(crate) const NARROW_VECTOR: usize = 100_000;

/// A batch is tall beside a layer with at least this many samples for each neuron of the layer's
/// wider side.
const TALL: usize = 4;

/// Whether the batch is tall beside a layer this wide: then copying or reading w[t] once more costs
/// little beside the samples of a tile.
pub(crate) fn is_tall(samples: usize, width: usize) -> bool {
    samples >= TALL * width
}

/// The numbers of one layer in a tile of a tall batch, roughly: with those of the next layer they
/// stay in a core's cache.
const TALL_TILE: usize = 32 * 1024;

/// The largest number of tiles of a tall batch, since a tile table compares them in pairs.
pub(crate) const MOST_TALL_TILES: usize = 1024;

/// The rows of a tile of a tall batch, in a phase whose widest layer has `width` neurons.
pub(crate) fn tall_rows(width: usize) -> usize {
    (TALL_TILE / width).max(TALL * width).next_multiple_of(16)
}

/// The cost of copying, masking or gathering one number, in floating-point operations of a product.
pub(crate) const PER_NUMBER: usize = 16;

/// The number of tiles for work of `flops` floating-point operations. Two tiles serve two cores.
/// More tiles serve more cores, but each costs another copy of an operand, so their number grows
/// with the work that hides it. A tile below 150,000 operations is not worth handing over.
pub(crate) fn tile_count(flops: usize) -> usize {
    match flops {
        0..300_000 => 1,
        300_000..400_000_000 => 2,
        400_000_000..4_000_000_000 => 4,
        _ => 8,
    }
}

/// 0 … len in `count` ranges of about equal length: whole multiples of what a kernel takes at once,
/// where that is small beside them.
pub(crate) fn split(len: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let size = len.div_ceil(count);
    let unit = match size {
        0..16 => 1,
        16..64 => 4,
        _ => 16,
    };
    ranges(len, size.next_multiple_of(unit))
}

/// The largest number of elements of the gradient that an optimiser takes at once: they stay in a
/// core's cache, and have enough rows for BLAS to copy Z once for many of them.
const CHUNK: usize = 128 * 1024;

/// The smallest number of rows of a chunk, as many as a kernel takes at once. Wider matrices are
/// cut by columns too.
const CHUNK_ROWS: usize = 16;

/// Rows and columns of a chunk of a gradient with this many columns.
pub(crate) fn chunk(columns: usize) -> (usize, usize) {
    let columns = columns.min(CHUNK / CHUNK_ROWS);
    let rows = CHUNK / columns;
    (rows - rows % CHUNK_ROWS, columns)
}
