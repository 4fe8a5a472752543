//! The engine: buffers made once, and a step as two phases over fixed tiles.
//!
//! **Phase 1, over tiles of the batch**: a tile gathers its samples and runs forward, loss and the whole Δ chain for its
//! rows. No tile waits for another, and its activations stay in cache.
//!
//! **Phase 2, over tiles of rows of all w[t]**: w ← a Δᵀ Z + β w, one product. With a = −η/B and β = 1 it is the SGD update
//! itself: no gradient is stored and nothing is reduced across threads. With a = 1/B and β = 0 it is the gradient.
//!
//! Tiles depend on widths and batch alone, so the bits do not depend on threads.

use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{Array2, ArrayView2, s};

use crate::blas::{SharedRows, Tile, TileTable};
use crate::network::{Mlp, Parameters};
use crate::rows;
use crate::scalar::Scalar;
use crate::threads::{PARALLEL_FLOPS, for_each_tile};

/// Where an array lies in [`Engine::layers`].
#[derive(Debug, Clone, Copy)]
struct Layers {
    depth: usize,
}

impl Layers {
    /// Z[t], t = 0 … T; and Ŷ for t = T+1.
    fn z(self, t: usize) -> usize {
        t
    }
    /// Δ[t], t = 1 … T; and ∂ℓ/∂Ŷ for t = T+1.
    fn delta(self, t: usize) -> usize {
        self.depth + 1 + t
    }
}

/// The tiles of a batch of one size.
#[derive(Debug)]
struct Batch {
    samples: usize,
    table: TileTable,
    /// Σ ℓ of each tile, the bits of an f64.
    losses: Vec<AtomicU64>,
}

/// Buffers for all batches up to a capacity, for networks of one shape.
#[derive(Debug)]
pub(crate) struct Engine<F> {
    widths: Vec<usize>,
    capacity: usize,
    /// Z[0], …, Z[T], Ŷ, Δ[1], …, Δ[T], ∂ℓ/∂Ŷ, each with `capacity` rows.
    layers: Vec<Array2<F>>,
    /// One entry for each batch size met so far: the full one, and a ragged last one.
    batches: Vec<Batch>,
    /// Tiles of the w, and beside them those of the c, which are empty where there is no constant.
    w_tiles: TileTable,
    c_tiles: TileTable,
}

/// Rows of a batch tile: half of the batch, as whole kernel tiles of 8, from 16 (below, the products lose a third of their
/// speed) to 256 (above, a tile's activations leave the cache). A batch without enough work to share is one tile.
fn batch_tile_rows(samples: usize, flops: usize) -> usize {
    if flops < PARALLEL_FLOPS {
        return samples;
    }
    samples.div_ceil(2).next_multiple_of(8).clamp(16, 256)
}

/// Rows of a tile of w[t]: a quarter of the matrix, from 64 to 512. Too little work is one tile.
fn weight_tile_rows(rows: usize, flops: usize) -> usize {
    if flops < PARALLEL_FLOPS {
        return rows;
    }
    rows.div_ceil(4).next_multiple_of(8).clamp(64, 512)
}

/// 0 … len in tiles of `rows`, the last one smaller.
pub(crate) fn tiles(len: usize, rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..len).step_by(rows.max(1)).map(move |start| start..(start + rows).min(len))
}

/// Multiply–adds count 2: forward and Δ of phase 1, for one sample.
fn phase_1_flops(widths: &[usize]) -> usize {
    let edges: usize = widths.windows(2).map(|d| d[0] * d[1]).sum();
    4 * edges - 2 * widths[0] * widths[1]
}

impl<F: Scalar> Engine<F> {
    /// Buffers for batches of up to `capacity` samples of this network.
    pub(crate) fn new(mlp: &Mlp<F>, capacity: usize) -> Self {
        let widths = mlp.widths().to_vec();
        let layer = |&d: &usize| Array2::from_elem((capacity, d), F::ZERO);
        let layers = widths.iter().chain(&widths[1..]).map(layer).collect();
        let edges: usize = widths.windows(2).map(|d| d[0] * d[1]).sum();
        let theta = mlp.parameters();
        let (mut w_tiles, mut c_tiles) = (Vec::new(), Vec::new());
        for (t, (w, c)) in theta.w.iter().zip(&theta.c).enumerate() {
            for rows in tiles(w.nrows(), weight_tile_rows(w.nrows(), 2 * capacity * edges)) {
                let c_rows = if c.is_empty() { 0..0 } else { rows.clone() };
                w_tiles.push(Tile { arrays: t..t + 1, rows });
                c_tiles.push(Tile { arrays: t..t + 1, rows: c_rows });
            }
        }
        let (w_tiles, c_tiles) = (TileTable::new(w_tiles), TileTable::new(c_tiles));
        Self { widths, capacity, layers, batches: Vec::new(), w_tiles, c_tiles }
    }

    /// Can this engine run such batches of this network?
    pub(crate) fn fits(&self, mlp: &Mlp<F>, samples: usize) -> bool {
        self.widths == mlp.widths()
            && samples <= self.capacity
            && (0..self.c_tiles.len()).all(|tile| {
                let c = &self.c_tiles.tile(tile);
                mlp.parameters().c[c.arrays.start].is_empty() == c.rows.is_empty()
            })
    }

    fn names(&self) -> Layers {
        Layers { depth: self.widths.len() - 2 }
    }

    /// The tiles for a batch of `samples`: found, or made when such a batch comes for the first time.
    fn batch(&mut self, samples: usize) -> usize {
        assert!(samples <= self.capacity, "a batch of {samples} in an engine for {}", self.capacity);
        if let Some(known) = self.batches.iter().position(|b| b.samples == samples) {
            return known;
        }
        let rows = batch_tile_rows(samples, samples * phase_1_flops(&self.widths));
        let arrays = 0..self.layers.len();
        let table = TileTable::new(tiles(samples, rows).map(|rows| Tile { arrays: arrays.clone(), rows }).collect());
        let losses = (0..table.len()).map(|_| AtomicU64::new(0)).collect();
        self.batches.push(Batch { samples, table, losses });
        self.batches.len() - 1
    }

    /// Phase 1 for the samples `x[row(0)], …, x[row(samples − 1)]`: fills Z, Ŷ, ∂ℓ/∂Ŷ and Δ. Returns Σ ℓ.
    ///
    /// `seed(i, ŷ, ∂)` writes ∂ℓ/∂ŷ of sample x[i] into ∂ and returns ℓ.
    pub(crate) fn forward_and_deltas(
        &mut self,
        theta: &Parameters<F>,
        x: ArrayView2<F>,
        samples: usize,
        row: impl Fn(usize) -> usize + Sync + Send,
        seed: impl Fn(usize, &[F], &mut [F]) -> f64 + Sync + Send,
    ) -> f64 {
        let (names, flops, batch) = (self.names(), samples * phase_1_flops(&self.widths), self.batch(samples));
        let Batch { table, losses, .. } = &self.batches[batch];
        let layers = SharedRows::new(&mut self.layers, table);
        for_each_tile(table.len(), flops, |index| {
            let mut tile = layers.write(index);
            let first = table.tile(index).rows.start;
            for (r, mut z) in tile.rows_mut(names.z(0)).outer_iter_mut().enumerate() {
                z.assign(&x.row(row(first + r)));
            }
            for t in 0..=names.depth {
                let (z, mut u) = tile.pair(names.z(t), names.z(t + 1));
                rows::weighted_inputs(z, theta.w[t].view(), u.view_mut());
                if t < names.depth {
                    rows::add_constant_relu(theta.c[t].view(), u);
                } else {
                    rows::add_constant(theta.c[t].view(), u);
                }
            }
            let (y_hat, mut dy) = tile.pair(names.z(names.depth + 1), names.delta(names.depth + 1));
            let mut sum = 0.0;
            for (r, (y_hat, mut dy)) in y_hat.outer_iter().zip(dy.outer_iter_mut()).enumerate() {
                let (y_hat, dy) = (y_hat.to_slice().expect("row-major"), dy.as_slice_mut().expect("row-major"));
                sum += seed(row(first + r), y_hat, dy);
            }
            losses[index].store(sum.to_bits(), Ordering::Relaxed);
            for t in (1..=names.depth).rev() {
                let (above, delta) = tile.pair(names.delta(t + 1), names.delta(t));
                rows::weighted_deltas(above, theta.w[t].view(), delta);
                let (z, delta) = tile.pair(names.z(t), names.delta(t));
                rows::mask(z, delta);
            }
        });
        losses.iter().map(|sum| f64::from_bits(sum.load(Ordering::Relaxed))).sum()
    }

    /// Phase 2 after [`forward_and_deltas`](Self::forward_and_deltas) for as many samples:
    /// w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t] and c[t] ← a Δ[t+1]ᵀ 1 + β c[t] in `into`.
    pub(crate) fn gradient(&self, samples: usize, a: F, beta: F, into: &mut Parameters<F>) {
        let names = self.names();
        let edges: usize = self.widths.windows(2).map(|d| d[0] * d[1]).sum();
        let w = SharedRows::new(&mut into.w, &self.w_tiles);
        let c = SharedRows::new(&mut into.c, &self.c_tiles);
        for_each_tile(self.w_tiles.len(), 2 * samples * edges, |index| {
            let Tile { arrays, rows: w_rows } = self.w_tiles.tile(index);
            let t = arrays.start;
            let delta = self.layers[names.delta(t + 1)].slice(s![..samples, w_rows.clone()]);
            let z = self.layers[names.z(t)].slice(s![..samples, ..]);
            let (mut w, mut c) = (w.write(index), c.write(index));
            rows::gradient(a, delta, z, beta, w.rows_mut(t), c.rows_mut(t));
        });
    }
}
