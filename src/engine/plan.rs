//! The plan of a step: which operations share a phase, and the tiles that each phase is cut into.
//!
//! **Tiles.** BLAS copies both operands into its own order at each call. Tiles of rows (samples) repeat that for all of
//! w[t], tiles of columns (neurons) for all of Z[t]; w[t] is the larger and the dearer. So the product of a wide layer is split by
//! columns, and waits for the whole layer below it: one phase each. Consecutive layers whose w[t] is nothing beside the rows
//! of a tile run as one phase, in which a tile of rows goes through all of them: narrow layers, and layers of any width under
//! a batch that is much taller. There the rows of a tile are few enough to stay in cache from layer to layer.
//!
//! **Update.** Tiles of rows of all w[t], one product each. With a = −η/B and β = 1 − ηλ it is the SGD update itself, weight
//! decay included: no gradient is stored and nothing is reduced across threads. With a = 1/B and β = 0 it is the gradient. Other
//! optimisers take the gradient of a tile in chunks that stay in cache, and pass over the parameters once.
//!
//! Tiles depend on shapes alone, so the bits do not depend on threads.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::Array2;

use crate::linalg::scalar::Scalar;
use crate::network::mlp::Parameters;
use crate::parallel::tiles::{Tile, TileTable};
use crate::parallel::workload::{Workload, workload};

/// Where an array lies in the engine's list of layers: Z[0], …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], …, Δ[1], in the order in which a step
/// writes them, so that consecutive operations write neighbours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSlots {
    pub(crate) depth: usize,
}

impl LayerSlots {
    /// Z[t], t = 0 … T; and Ŷ for t = T+1.
    pub(crate) fn z(self, t: usize) -> usize {
        t
    }
    /// Δ[t], t = 1 … T; and ∂ℓ/∂Ŷ for t = T+1.
    pub(crate) fn delta(self, t: usize) -> usize {
        2 * self.depth + 3 - t
    }
    /// The columns of all arrays in their order, for a network with these widths.
    pub(crate) fn columns(widths: &[usize]) -> impl Iterator<Item = usize> {
        widths.iter().chain(widths[1..].iter().rev()).copied()
    }
}

/// SingleStep operation on a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Gather,
    Forward(usize),
    Loss,
    Backward(usize),
}

impl Op {
    /// The forward pass of a network of this depth.
    fn forward(depth: usize) -> impl Iterator<Item = Self> {
        [Self::Gather].into_iter().chain((0..=depth).map(Self::Forward))
    }
}

/// Operations that a tile goes through without waiting for another.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) ops: Vec<Op>,
    pub(crate) tiles: TileTable,
    pub(crate) flops: usize,
    /// The sum of the squares of all that each tile has written: the bits of an f64.
    pub(crate) squares: Vec<AtomicU64>,
}

/// How the tiles of a phase are cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// By the columns of the one array that the phase writes: the number of its columns.
    Columns(usize),
    /// By rows, in tiles that stay in cache if the batch is tall beside a layer: the widest of these.
    Rows { tall: Option<usize> },
}

/// Tiles of a tall batch at the most: their table is checked in pairs.
const MOST_TALL_TILES: usize = 1024;

/// The phases up to the update, for a batch of one size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) samples: usize,
    pub(crate) phases: Vec<Phase>,
    /// Σ ℓ of each tile of the phase with the loss, the bits of an f64.
    pub(crate) losses: Vec<AtomicU64>,
}

/// The tiles of the update: rows of w[t], and beside them those of c[t], which are empty where there is no constant.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) w: TileTable,
    pub(crate) c: TileTable,
    /// Of one sample.
    pub(crate) flops: usize,
}

/// Coefficients of the gradient that an optimiser takes at once, at the most: they stay in a core's cache, and there are rows enough in
/// them for BLAS to copy Z once for many.
const CHUNK: usize = 128 * 1024;

/// Rows of a chunk, at the least: as many as a kernel takes at once. Wider matrices are cut by columns too.
const CHUNK_ROWS: usize = 16;

/// Rows and columns of a chunk of a gradient with this many columns.
pub(crate) fn chunk(columns: usize) -> (usize, usize) {
    let columns = columns.min(CHUNK / CHUNK_ROWS);
    let rows = CHUNK / columns;
    (rows - rows % CHUNK_ROWS, columns)
}

/// A product up to this many multiplications is cut by rows: OpenBLAS's kernels for AVX-512 make products of up to 100³ without
/// copying their operands, and its kernels for AVX2, which do copy, copy little here.
const NARROW: usize = 500_000;

/// The same for a product of a matrix and a vector.
const NARROW_VECTOR: usize = 100_000;

/// Samples for each neuron of the wider side of a layer from which a batch is tall.
const TALL: usize = 4;

/// Is the batch tall beside a layer that is this wide? Then to copy or to read w[t] once more is nothing beside its samples.
pub(crate) fn is_tall(samples: usize, wide: usize) -> bool {
    samples >= TALL * wide
}

/// Coefficients of one layer that a tile of rows of a tall batch has, about: with those of the next layer they stay in a core's cache.
const TALL_TILE: usize = 32 * 1024;

/// Rows of a tile of a tall batch, in a phase whose widest layer has this many neurons.
fn tall_rows(width: usize) -> usize {
    (TALL_TILE / width).max(TALL * width).next_multiple_of(16)
}

/// What copying, masking or gathering a number costs, in floating-point operations of a product.
pub(crate) const PER_NUMBER: usize = 16;

/// Into how many tiles to split work of so many floating-point operations. Two serve two cores; more tiles serve more cores, and
/// each costs another copy of an operand, so they come with work enough to hide it. A tile below 150,000 is not worth handing over.
fn tile_count(flops: usize) -> usize {
    match flops {
        0..300_000 => 1,
        300_000..400_000_000 => 2,
        400_000_000..4_000_000_000 => 4,
        _ => 8,
    }
}

/// 0 … len in so many parts of about equal length, whole multiples of what the kernels take at once where that is small
/// beside them.
fn split(len: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let part = len.div_ceil(parts);
    let unit = match part {
        0..16 => 1,
        16..64 => 4,
        _ => 16,
    };
    tiles(len, part.next_multiple_of(unit))
}

/// 0 … len in tiles of `rows`, the last one smaller.
pub(crate) fn tiles(len: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(rows.max(1)).map(move |start| start..(start + rows).min(len))
}

impl Plan {
    /// Of a step, up to its update.
    pub(crate) fn step(widths: &[usize], shapes: &[(usize, usize)], samples: usize) -> Self {
        let depth = widths.len() - 2;
        let backward = (1..=depth).rev().map(Op::Backward);
        Self::new(widths, shapes, samples, Op::forward(depth).chain([Op::Loss]).chain(backward))
    }

    /// Of a forward pass with its loss.
    pub(crate) fn loss(widths: &[usize], shapes: &[(usize, usize)], samples: usize) -> Self {
        Self::new(widths, shapes, samples, Op::forward(widths.len() - 2).chain([Op::Loss]))
    }

    /// Of a forward pass alone.
    pub(crate) fn forward(widths: &[usize], shapes: &[(usize, usize)], samples: usize) -> Self {
        Self::new(widths, shapes, samples, Op::forward(widths.len() - 2))
    }

    /// What can be shared of the work.
    pub(crate) fn workload(&self) -> Workload {
        self.phases.iter().map(|phase| workload(phase.tiles.len(), phase.flops)).sum()
    }

    fn new(widths: &[usize], shapes: &[(usize, usize)], samples: usize, ops: impl Iterator<Item = Op>) -> Self {
        let slots = LayerSlots { depth: widths.len() - 2 };
        let product = |t: usize| samples * widths[t] * widths[t + 1];
        // Of one sample, a matrix is read and not copied, so its size alone tells whether two cores read it faster.
        let narrow = |t: usize| product(t) <= if samples == 1 { NARROW_VECTOR } else { NARROW };
        // What a layer is cut by: its columns, if it is wide and the batch is not tall beside it.
        let cut = |t: usize, columns: usize| {
            let wide = widths[t].max(widths[t + 1]);
            match (narrow(t), is_tall(samples, wide)) {
                (true, _) => Cut::Rows { tall: None },
                (false, true) => Cut::Rows { tall: Some(wide) },
                (false, false) => Cut::Columns(columns),
            }
        };
        // A product that is split by columns stands alone; the others join the phase before them.
        let mut phases: Vec<(Vec<Op>, usize, Cut)> = Vec::new();
        for op in ops {
            let numbers = |columns: usize| PER_NUMBER * samples * columns;
            let (flops, cut) = match op {
                Op::Gather => (numbers(widths[0]), Cut::Rows { tall: None }),
                Op::Forward(t) if t < slots.depth => (2 * product(t), cut(t, widths[t + 1])),
                // The head, whose columns are few.
                Op::Forward(t) => (2 * product(t), Cut::Rows { tall: None }),
                Op::Loss => (0, Cut::Rows { tall: None }),
                // An outer product, in one pass.
                Op::Backward(t) if widths[t + 1] == 1 => (2 * product(t), Cut::Rows { tall: None }),
                Op::Backward(t) => (2 * product(t), cut(t, widths[t])),
            };
            // Tiles of rows have the constants, the masks and the like to themselves.
            let flops = match (op, cut) {
                (Op::Forward(t), Cut::Rows { .. }) => flops + numbers(widths[t + 1]),
                (Op::Backward(t), Cut::Rows { .. }) => flops + numbers(widths[t]),
                _ => flops,
            };
            match (phases.last_mut(), cut) {
                (Some((ops, all_flops, Cut::Rows { tall })), Cut::Rows { tall: further }) => {
                    ops.push(op);
                    *all_flops += flops;
                    *tall = further.max(*tall);
                }
                _ => phases.push((vec![op], flops, cut)),
            }
        }
        let mut losses = 0;
        let phases = phases
            .into_iter()
            .map(|(ops, flops, cut)| {
                let written = |op: &Op| match *op {
                    Op::Gather => slots.z(0),
                    Op::Forward(t) => slots.z(t + 1),
                    Op::Loss => slots.delta(slots.depth + 1),
                    Op::Backward(t) => slots.delta(t),
                };
                // Neighbours in the list.
                let (first, last) = (ops.iter().map(written).min(), ops.iter().map(written).max());
                let arrays = first.unwrap_or(0)..last.map_or(0, |last| last + 1);
                let row_tile = |rows| Tile { arrays: arrays.clone(), rows, columns: None };
                let tiles: Vec<Tile> = match cut {
                    Cut::Columns(columns) => split(columns, tile_count(flops))
                        .map(|columns| Tile { arrays: arrays.clone(), rows: 0..samples, columns: Some(columns) })
                        .collect(),
                    // A row of 8 samples is the least that a kernel takes at once.
                    Cut::Rows { tall: None } => {
                        split(samples, tile_count(flops).min(samples.div_ceil(8))).map(row_tile).collect()
                    }
                    Cut::Rows { tall: Some(width) } => {
                        let rows = tall_rows(width).max(samples.div_ceil(MOST_TALL_TILES));
                        split(samples, samples.div_ceil(rows).max(tile_count(flops))).map(row_tile).collect()
                    }
                };
                if ops.contains(&Op::Loss) {
                    losses = tiles.len();
                }
                let squares = zeros(tiles.len());
                Phase { ops, tiles: TileTable::new(shapes.to_vec(), tiles), flops, squares }
            })
            .collect();
        Self { samples, phases, losses: zeros(losses) }
    }
}

/// SingleStep number for each of so many tiles.
pub(crate) fn zeros(tiles: usize) -> Vec<AtomicU64> {
    (0..tiles).map(|_| AtomicU64::new(0)).collect()
}

/// The sum of what tiles have stored as the bits of an f64, in their order, whoever ran them.
pub(crate) fn sum(of_tiles: &[AtomicU64]) -> f64 {
    of_tiles.iter().map(|number| f64::from_bits(number.load(Ordering::Relaxed))).sum()
}

impl Update {
    pub(crate) fn new<F: Scalar>(theta: &Parameters<F>) -> Self {
        let mut tiles = Vec::new();
        for (t, (w, c)) in theta.w.iter().zip(&theta.c).enumerate() {
            // The batch has no say, so that a ragged one leaves the tiles as they are; 32 samples stand for it.
            for rows in split(w.nrows(), tile_count(64 * w.len()).min(w.nrows().div_ceil(16))) {
                let c_rows = if c.is_empty() { 0..0 } else { rows.clone() };
                let tile = |rows| Tile { arrays: t..t + 1, rows, columns: None };
                tiles.push((rows.start as f64 / w.nrows() as f64, tile(rows), tile(c_rows)));
            }
        }
        // First the upper rows of all layers, then the lower ones: the order in which forward tiles have been claimed, so that
        // a core meets the weights that it has in cache.
        tiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (w_tiles, c_tiles) = tiles.into_iter().map(|(_, w, c)| (w, c)).unzip();
        Self::of(theta, w_tiles, c_tiles)
    }

    /// With given tiles.
    pub(crate) fn of<F: Scalar>(theta: &Parameters<F>, w_tiles: Vec<Tile>, c_tiles: Vec<Tile>) -> Self {
        let flops = 2 * theta.w.iter().map(Array2::len).sum::<usize>();
        let w = TileTable::new(theta.w.iter().map(Array2::dim).collect(), w_tiles);
        let c = TileTable::new(theta.c.iter().map(|c| (c.len(), 1)).collect(), c_tiles);
        Self { w, c, flops }
    }

    /// Tiles of the same rows of further arrays like θ.
    pub(crate) fn like(&self) -> Self {
        Self { w: self.w.like(), c: self.c.like(), flops: self.flops }
    }

    /// What can be shared of the work with so many samples.
    pub(crate) fn workload(&self, samples: usize) -> Workload {
        workload(self.w.len(), samples * self.flops)
    }

    /// Was this made for parameters of this shape?
    pub(crate) fn fits<F: Scalar>(&self, theta: &Parameters<F>) -> bool {
        (0..self.c.len()).all(|tile| {
            let Tile { arrays, rows, .. } = self.c.tile(tile);
            theta.c[arrays.start].is_empty() == rows.is_empty()
        })
    }
}
