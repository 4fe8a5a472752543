//! The engine: buffers made once, and a step as phases over fixed tiles. The hot path.
//!
//! A step is the list of operations gather, F[0] … F[T], loss, B[T] … B[1], and then the gradient with its update:
//!
//! ```text
//! F[t]      Z[t+1] = ReLU(Z[t] w[t]ᵀ + 1 c[t]ᵀ)              the head, t = T, without ReLU
//! B[t]      Δ[t] = (Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
//! update    w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t]                   all t at once
//! ```
//!
//! **Tiles.** BLAS copies both operands into its own order at each call. Tiles of rows (samples) repeat that for all of
//! w[t], tiles of columns (neurons) for all of Z[t]; w[t] is the larger and the dearer. So the product of a wide layer is split by
//! columns, and waits for the whole layer below it: one phase each. A narrow layer is not copied at all (BLAS multiplies small
//! matrices in place), so consecutive narrow layers run as one phase, in which a tile of rows goes through all of them.
//!
//! **Update.** Tiles of rows of all w[t], one product each. With a = −η/B and β = 1 − ηλ it is the SGD update itself, weight decay included: no gradient
//! is stored and nothing is reduced across threads. With a = 1/B and β = 0 it is the gradient.
//!
//! Tiles depend on shapes alone, so the bits do not depend on threads.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{Array2, ArrayRef, ArrayView, ArrayView2, Axis, Dimension, Ix1, Ix2, Slice};

use crate::blas::{SharedTiles, Tile, TileTable};
use crate::network::{Mlp, Parameters};
use crate::rows;
use crate::scalar::Scalar;
use crate::threads::{Assembled, Crew};

/// Buffers for all batches up to a capacity, for networks of one shape.
///
/// In numbers: capacity × (d[0] + 2 (d[1] + … + d[T] + m)); no gradient and no copy of θ.
#[derive(Debug)]
pub(crate) struct Engine<F> {
    widths: Vec<usize>,
    capacity: usize,
    /// Z[0], …, Z[T], Ŷ, Δ[1], …, Δ[T], ∂ℓ/∂Ŷ, each with `capacity` rows.
    layers: Vec<Array2<F>>,
    /// One for each batch size met so far: the full one, and a ragged last one.
    schedules: Vec<Schedule>,
    update: Update,
    crew: Crew,
}

/// Where an array lies in [`Engine::layers`].
#[derive(Debug, Clone, Copy)]
struct Names {
    depth: usize,
}

impl Names {
    /// Z[t], t = 0 … T; and Ŷ for t = T+1.
    fn z(self, t: usize) -> usize {
        t
    }
    /// Δ[t], t = 1 … T; and ∂ℓ/∂Ŷ for t = T+1.
    fn delta(self, t: usize) -> usize {
        self.depth + 1 + t
    }
}

/// One operation on a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Gather,
    Forward(usize),
    Loss,
    Backward(usize),
}

/// Operations that a tile goes through without waiting for another.
#[derive(Debug)]
struct Phase {
    ops: Vec<Op>,
    tiles: TileTable,
    flops: usize,
}

/// The phases up to the update, for a batch of one size.
#[derive(Debug)]
struct Schedule {
    samples: usize,
    phases: Vec<Phase>,
    /// Σ ℓ of each tile of the phase with the loss, the bits of an f64.
    losses: Vec<AtomicU64>,
}

/// The tiles of the update: rows of w[t], and beside them those of c[t], which are empty where there is no constant.
#[derive(Debug)]
struct Update {
    w: TileTable,
    c: TileTable,
    /// Of one sample.
    flops: usize,
}

/// What a step reads: sample i of it is x[row(i)], and `seed(row(i), ŷ, ∂)` writes ∂ℓ/∂ŷ into ∂ and returns ℓ.
pub(crate) struct Samples<'a, F, Row, Seed> {
    pub(crate) x: ArrayView2<'a, F>,
    pub(crate) row: Row,
    pub(crate) seed: Seed,
}

/// A product up to this many multiplications BLAS makes without copying its operands first (in OpenBLAS's kernels for
/// AVX-512 the limit is 100³), and then a tile of rows costs no more than its share.
const NARROW: usize = 500_000;

/// The same for a product of a matrix and a vector.
const NARROW_VECTOR: usize = 100_000;

/// What copying, masking or gathering a number costs, in floating-point operations of a product.
const PER_NUMBER: usize = 16;

/// Into how many tiles to split work of so many floating-point operations. Two serve two cores; more tiles serve more cores, and
/// each costs another copy of an operand, so they come with work enough to hide it. A tile below 150,000 is not worth handing over.
fn parts(flops: usize) -> usize {
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

impl Schedule {
    fn new(widths: &[usize], shapes: &[(usize, usize)], samples: usize) -> Self {
        let names = Names { depth: widths.len() - 2 };
        let product = |t: usize| samples * widths[t] * widths[t + 1];
        // Of one sample, a matrix is read and not copied, so its size alone tells whether two cores read it faster.
        let narrow = |t: usize| product(t) <= if samples == 1 { NARROW_VECTOR } else { NARROW };
        let forward = (0..=names.depth).map(Op::Forward);
        let backward = (1..=names.depth).rev().map(Op::Backward);
        let ops = [Op::Gather].into_iter().chain(forward).chain([Op::Loss]).chain(backward);
        // A product that is split by columns stands alone; the others join the phase before them.
        let mut phases: Vec<(Vec<Op>, usize, Option<usize>)> = Vec::new();
        for op in ops {
            let (flops, columns) = match op {
                Op::Forward(t) if t < names.depth && !narrow(t) => (2 * product(t), Some(widths[t + 1])),
                Op::Backward(t) if !narrow(t) && widths[t + 1] > 1 => (2 * product(t), Some(widths[t])),
                Op::Forward(t) => (2 * product(t) + PER_NUMBER * samples * widths[t + 1], None),
                Op::Backward(t) => (2 * product(t) + PER_NUMBER * samples * widths[t], None),
                Op::Gather => (PER_NUMBER * samples * widths[0], None),
                Op::Loss => (0, None),
            };
            match (phases.last_mut(), columns) {
                (Some((ops, all_flops, None)), None) => {
                    ops.push(op);
                    *all_flops += flops;
                }
                _ => phases.push((vec![op], flops, columns)),
            }
        }
        let mut losses = 0;
        let phases = phases
            .into_iter()
            .map(|(ops, flops, columns)| {
                let written = |op: &Op| match *op {
                    Op::Gather => names.z(0),
                    Op::Forward(t) => names.z(t + 1),
                    Op::Loss => names.delta(names.depth + 1),
                    Op::Backward(t) => names.delta(t),
                };
                // A chain of operations writes Z[t], Z[t+1], … upwards and then Δ downwards: neighbours in the list.
                let (first, last) = (ops.iter().map(written).min(), ops.iter().map(written).max());
                let arrays = first.unwrap_or(0)..last.map_or(0, |last| last + 1);
                // A row of 8 samples is the least that a kernel takes at once.
                let row_parts = parts(flops).min(samples.div_ceil(8));
                let tiles: Vec<Tile> = match columns {
                    Some(columns) => split(columns, parts(flops))
                        .map(|columns| Tile { arrays: arrays.clone(), rows: 0..samples, columns: Some(columns) })
                        .collect(),
                    None => split(samples, row_parts)
                        .map(|rows| Tile { arrays: arrays.clone(), rows, columns: None })
                        .collect(),
                };
                if ops.contains(&Op::Loss) {
                    losses = tiles.len();
                }
                Phase { ops, tiles: TileTable::new(shapes.to_vec(), tiles), flops }
            })
            .collect();
        Self { samples, phases, losses: (0..losses).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Update {
    fn new<F: Scalar>(theta: &Parameters<F>) -> Self {
        let mut tiles = Vec::new();
        for (t, (w, c)) in theta.w.iter().zip(&theta.c).enumerate() {
            // The batch has no say, so that a ragged one leaves the tiles as they are; 32 samples stand for it.
            for rows in split(w.nrows(), parts(64 * w.len()).min(w.nrows().div_ceil(16))) {
                let c_rows = if c.is_empty() { 0..0 } else { rows.clone() };
                let tile = |rows| Tile { arrays: t..t + 1, rows, columns: None };
                tiles.push((rows.start as f64 / w.nrows() as f64, tile(rows), tile(c_rows)));
            }
        }
        // First the upper rows of all layers, then the lower ones: the order in which forward tiles have been claimed, so that
        // a core meets the weights that it has in cache.
        tiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (w_tiles, c_tiles) = tiles.into_iter().map(|(_, w, c)| (w, c)).unzip();
        let flops = 2 * theta.w.iter().map(Array2::len).sum::<usize>();
        let w = TileTable::new(theta.w.iter().map(Array2::dim).collect(), w_tiles);
        let c = TileTable::new(theta.c.iter().map(|c| (c.len(), 1)).collect(), c_tiles);
        Self { w, c, flops }
    }
}

impl<F: Scalar> Engine<F> {
    /// Buffers for batches of up to `capacity` samples of this network.
    pub(crate) fn new(mlp: &Mlp<F>, capacity: usize) -> Self {
        let widths = mlp.widths().to_vec();
        let layer = |&d: &usize| Array2::from_elem((capacity, d), F::ZERO);
        let layers = widths.iter().chain(&widths[1..]).map(layer).collect();
        Self {
            widths,
            capacity,
            layers,
            schedules: Vec::new(),
            update: Update::new(mlp.parameters()),
            crew: Crew::new(),
        }
    }

    /// Can this engine run such batches of this network?
    pub(crate) fn fits(&self, mlp: &Mlp<F>, samples: usize) -> bool {
        self.widths == mlp.widths() && self.update.fits(mlp.parameters()) && samples <= self.capacity
    }

    /// The schedule of a batch of `samples`: found, or made when such a batch comes for the first time.
    fn schedule(&mut self, samples: usize) -> usize {
        assert!(samples <= self.capacity, "a batch of {samples} in an engine for {}", self.capacity);
        if let Some(known) = self.schedules.iter().position(|schedule| schedule.samples == samples) {
            return known;
        }
        let shapes: Vec<_> = self.layers.iter().map(Array2::dim).collect();
        self.schedules.push(Schedule::new(&self.widths, &shapes, samples));
        self.schedules.len() - 1
    }

    /// `into` ← a Σ ∂/∂θ over `samples` samples. Returns Σ ℓ.
    pub(crate) fn gradient<Row, Seed>(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &Samples<F, Row, Seed>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64
    where
        Row: Fn(usize) -> usize + Sync,
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let schedule = self.schedule(samples);
        let Self { layers, schedules, update, crew, .. } = self;
        let schedule = &schedules[schedule];
        crew.assemble(schedule.flops() + samples * update.flops, |crew| {
            let sum = schedule.run(crew, layers, theta, data, 0);
            update.run(crew, layers, samples, a, F::ZERO, into);
            sum
        })
    }

    /// One pass over `samples` samples in batches of `batch` (the last one may be smaller), each followed by
    /// θ ← (1 − ηλ) θ − (η/B) Σ ∇θ ℓ. Returns Σ ℓ, each sample's taken before the update with it.
    ///
    /// # Errors
    /// The number of the batch whose Σ ℓ is not finite, and that sum; θ is as before that batch.
    pub(crate) fn descend<Row, Seed>(
        &mut self,
        theta: &mut Parameters<F>,
        samples: usize,
        batch: usize,
        data: &Samples<F, Row, Seed>,
        (eta, lambda): (f64, f64),
    ) -> Result<f64, (usize, f64)>
    where
        Row: Fn(usize) -> usize + Sync,
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let (whole, rest) = (samples / batch, samples % batch);
        let full = self.schedule(batch);
        let ragged = if rest > 0 { self.schedule(rest) } else { full };
        let Self { layers, schedules, update, crew, .. } = self;
        let beta = F::from_f64(1.0 - eta * lambda);
        let flops = whole * schedules[full].flops() + samples * update.flops;
        crew.assemble(flops, |crew| {
            let mut sum = 0.0;
            for (step, first) in (0..samples).step_by(batch).enumerate() {
                let schedule = &schedules[if step < whole { full } else { ragged }];
                let batch_sum = schedule.run(crew, layers, theta, data, first);
                if !batch_sum.is_finite() {
                    return Err((step, batch_sum));
                }
                let a = F::from_f64(-eta / schedule.samples as f64);
                update.run(crew, layers, schedule.samples, a, beta, theta);
                sum += batch_sum;
            }
            Ok(sum)
        })
    }
}

/// A range along one axis; all of it for `None`. (Slicing costs 10 ns even if it leaves everything, and a step of a small
/// network has a dozen slices and two microseconds.)
fn part<'a, F, D: Dimension>(
    array: &'a ArrayRef<F, D>,
    axis: Axis,
    range: &Option<Range<usize>>,
) -> ArrayView<'a, F, D> {
    match range {
        Some(range) if *range != (0..array.len_of(axis)) => array.slice_axis(axis, Slice::from(range.clone())),
        _ => array.view(),
    }
}

impl Schedule {
    /// Of the whole batch.
    fn flops(&self) -> usize {
        self.phases.iter().map(|phase| phase.flops).sum()
    }

    /// Runs all phases for the samples from `first` on: fills Z, Ŷ, ∂ℓ/∂Ŷ and Δ. Returns Σ ℓ.
    fn run<F: Scalar, Row, Seed>(
        &self,
        crew: &Assembled,
        layers: &mut [Array2<F>],
        theta: &Parameters<F>,
        data: &Samples<F, Row, Seed>,
        first: usize,
    ) -> f64
    where
        Row: Fn(usize) -> usize + Sync,
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let names = Names { depth: layers.len() / 2 - 1 };
        for phase in &self.phases {
            let layers = SharedTiles::new(layers, &phase.tiles);
            crew.for_each_tile(phase.tiles.len(), phase.flops, &|index| {
                let mut tile = layers.claim(index);
                let Tile { rows, columns, .. } = tile.tile().clone();
                let first = first + rows.start;
                for &op in &phase.ops {
                    match op {
                        Op::Gather => rows::gather(data.x, |r| (data.row)(first + r), tile.write(names.z(0))),
                        Op::Forward(t) => {
                            let ([z], mut u) = tile.read_and_write([names.z(t)], names.z(t + 1));
                            let (w, c) = (part(&theta.w[t], Axis(0), &columns), &theta.c[t]);
                            rows::weighted_inputs(z, w, u.view_mut());
                            let c = if c.is_empty() { c.view() } else { part(c, Axis(0), &columns) };
                            if t < names.depth {
                                rows::add_constant_relu(c, u);
                            } else {
                                rows::add_constant(c, u);
                            }
                        }
                        Op::Loss => {
                            let ([y_hat], dy) =
                                tile.read_and_write([names.z(names.depth + 1)], names.delta(names.depth + 1));
                            let sum =
                                rows::seeds(y_hat, dy, |r, y_hat, dy| (data.seed)((data.row)(first + r), y_hat, dy));
                            self.losses[index].store(sum.to_bits(), Ordering::Relaxed);
                        }
                        Op::Backward(t) => {
                            let from = [names.delta(t + 1), names.z(t)];
                            let ([above, z], delta) = tile.read_and_write(from, names.delta(t));
                            let (w, z) = (part(&theta.w[t], Axis(1), &columns), part(&z, Axis(1), &columns));
                            rows::deltas(above, w, z, delta);
                        }
                    }
                }
            });
        }
        self.losses.iter().map(|sum| f64::from_bits(sum.load(Ordering::Relaxed))).sum()
    }
}

impl Update {
    /// Was this made for parameters of this shape?
    fn fits<F: Scalar>(&self, theta: &Parameters<F>) -> bool {
        (0..self.c.len()).all(|tile| {
            let Tile { arrays, rows, .. } = self.c.tile(tile);
            theta.c[arrays.start].is_empty() == rows.is_empty()
        })
    }

    /// w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t] and c[t] ← a Δ[t+1]ᵀ 1 + β c[t], from the first `samples` rows of the layers.
    fn run<F: Scalar>(
        &self,
        crew: &Assembled,
        layers: &[Array2<F>],
        samples: usize,
        a: F,
        beta: F,
        into: &mut Parameters<F>,
    ) {
        let names = Names { depth: layers.len() / 2 - 1 };
        let w: SharedTiles<F, Ix2> = SharedTiles::new(&mut into.w, &self.w);
        let c: SharedTiles<F, Ix1> = SharedTiles::new(&mut into.c, &self.c);
        crew.for_each_tile(self.w.len(), samples * self.flops, &|index| {
            let (mut w, mut c) = (w.claim(index), c.claim(index));
            let Tile { arrays, rows: neurons, .. } = w.tile().clone();
            let t = arrays.start;
            let batch = Some(0..samples);
            let delta = part(&layers[names.delta(t + 1)], Axis(0), &batch);
            let delta = part(&delta, Axis(1), &Some(neurons));
            let z = part(&layers[names.z(t)], Axis(0), &batch);
            rows::gradient(a, delta, z, beta, w.write(t), c.write(t));
        });
    }
}
