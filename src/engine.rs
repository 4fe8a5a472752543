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
//! Which tiles an operation runs on, and which operations share a phase, is [`schedule`](crate::schedule)'s.

use std::ops::Range;
use std::sync::atomic::Ordering;

use ndarray::{Array2, ArrayRef, ArrayView, ArrayView2, Axis, Dimension, Ix1, Ix2, Slice};

use crate::blas::{SharedTiles, Tile};
use crate::network::{Mlp, Parameters};
use crate::rows;
use crate::scalar::Scalar;
use crate::schedule::{Names, Op, Schedule, Update};
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

/// What a step reads: sample i of it is x[order[i]], or x[i]. `seed(j, ŷ, ∂)` writes ∂ℓ/∂ŷ of x[j] into ∂ and returns its ℓ.
pub(crate) struct Samples<'a, F, Seed> {
    pub(crate) x: ArrayView2<'a, F>,
    pub(crate) order: Option<&'a [usize]>,
    pub(crate) seed: Seed,
}

impl<F, Seed> Samples<'_, F, Seed> {
    fn row(&self, i: usize) -> usize {
        self.order.map_or(i, |order| order[i])
    }

    /// Z[0] of some samples without gathering them, if they lie in x as they are needed.
    fn in_place(&self, samples: Range<usize>) -> Option<ArrayView2<'_, F>> {
        let lie = self.order.is_none() && self.x.is_standard_layout();
        lie.then(|| self.x.slice_axis(Axis(0), Slice::from(samples)))
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
            crew: Crew::default(),
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
        self.schedules.push(Schedule::step(&self.widths, &shapes, samples));
        self.schedules.len() - 1
    }

    /// `into` ← a Σ ∂/∂θ over `samples` samples. Returns Σ ℓ.
    pub(crate) fn gradient<Seed>(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &Samples<F, Seed>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64
    where
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let schedule = self.schedule(samples);
        let Self { layers, schedules, update, crew, .. } = self;
        let schedule = &schedules[schedule];
        let shareable = schedule.shareable() + update.shareable(samples);
        crew.assemble(shareable, |crew| {
            crew.step(shareable, || {
                let sum = schedule.run(crew, layers, theta, data, 0);
                update.run(crew, layers, data.in_place(0..samples), samples, (a, F::ZERO), into);
                sum
            })
        })
    }

    /// One pass over `samples` samples in batches of `batch` (the last one may be smaller), each followed by
    /// θ ← (1 − ηλ) θ − (η/B) Σ ∇θ ℓ. Returns Σ ℓ, each sample's taken before the update with it.
    ///
    /// # Errors
    /// The number of the batch whose Σ ℓ is not finite, and that sum; θ is as before that batch.
    pub(crate) fn descend<Seed>(
        &mut self,
        theta: &mut Parameters<F>,
        samples: usize,
        batch: usize,
        data: &Samples<F, Seed>,
        (eta, lambda): (f64, f64),
    ) -> Result<f64, (usize, f64)>
    where
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let (whole, rest) = (samples / batch, samples % batch);
        let full = self.schedule(batch);
        let ragged = if rest > 0 { self.schedule(rest) } else { full };
        let Self { layers, schedules, update, crew, .. } = self;
        let beta = F::from_f64(1.0 - eta * lambda);
        let shareable = |schedule: &Schedule| schedule.shareable() + update.shareable(schedule.samples);
        crew.assemble(whole * shareable(&schedules[full]), |crew| {
            let mut sum = 0.0;
            for (step, first) in (0..samples).step_by(batch).enumerate() {
                let schedule = &schedules[if step < whole { full } else { ragged }];
                let samples = schedule.samples;
                let batch_sum = crew.step(shareable(schedule), || {
                    let batch_sum = schedule.run(crew, layers, theta, data, first);
                    if batch_sum.is_finite() {
                        let a = F::from_f64(-eta / samples as f64);
                        update.run(crew, layers, data.in_place(first..first + samples), samples, (a, beta), theta);
                    }
                    batch_sum
                });
                if !batch_sum.is_finite() {
                    return Err((step, batch_sum));
                }
                sum += batch_sum;
            }
            Ok(sum)
        })
    }
}

/// Buffers and plan of forward passes over so many samples at once. In numbers: samples × (d[0] + … + m).
pub(crate) struct Forward<F> {
    layers: Vec<Array2<F>>,
    schedule: Schedule,
}

impl<F: Scalar> Forward<F> {
    pub(crate) fn new(mlp: &Mlp<F>, samples: usize) -> Self {
        let layers: Vec<_> = mlp.widths().iter().map(|&d| Array2::from_elem((samples, d), F::ZERO)).collect();
        let shapes: Vec<_> = layers.iter().map(Array2::dim).collect();
        Self { layers, schedule: Schedule::forward(mlp.widths(), &shapes, samples) }
    }

    pub(crate) fn shareable(&self) -> usize {
        self.schedule.shareable()
    }

    pub(crate) fn samples(&self) -> usize {
        self.schedule.samples
    }

    /// Ŷ of as many rows of x as there are samples, from `first` on.
    pub(crate) fn run(&mut self, crew: &Assembled, mlp: &Mlp<F>, x: ArrayView2<F>, first: usize) -> ArrayView2<'_, F> {
        let data = Samples { x, order: None, seed: |_, _: &[F], _: &mut [F]| 0.0 };
        let Self { layers, schedule } = self;
        crew.step(schedule.shareable(), || schedule.run(crew, layers, mlp.parameters(), &data, first));
        self.layers[self.layers.len() - 1].view()
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
    /// Runs all phases for the samples from `first` on: fills Z, Ŷ, ∂ℓ/∂Ŷ and Δ. Returns Σ ℓ.
    fn run<F: Scalar, Seed>(
        &self,
        crew: &Assembled,
        layers: &mut [Array2<F>],
        theta: &Parameters<F>,
        data: &Samples<F, Seed>,
        first: usize,
    ) -> f64
    where
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let names = Names { depth: theta.depth() };
        let in_place = data.in_place(first..first + self.samples);
        for phase in &self.phases {
            if in_place.is_some() && phase.ops == [Op::Gather] {
                continue;
            }
            let layers = SharedTiles::new(layers, &phase.tiles);
            crew.for_each_tile(phase.tiles.len(), phase.flops, &|index| {
                let mut tile = layers.claim(index);
                let Tile { rows, columns, .. } = tile.tile().clone();
                let first = first + rows.start;
                for &op in &phase.ops {
                    match op {
                        Op::Gather if in_place.is_some() => {}
                        Op::Gather => rows::gather(data.x, |r| data.row(first + r), tile.write(names.z(0))),
                        Op::Forward(t) => {
                            let (z, mut u) = match &in_place {
                                Some(z) if t == 0 => (part(z, Axis(0), &Some(rows.clone())), tile.write(names.z(1))),
                                _ => {
                                    let ([z], u) = tile.read_and_write([names.z(t)], names.z(t + 1));
                                    (z, u)
                                }
                            };
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
                                rows::seeds(y_hat, dy, |r, y_hat, dy| (data.seed)(data.row(first + r), y_hat, dy));
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
    /// w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t] and c[t] ← a Δ[t+1]ᵀ 1 + β c[t], from the first `samples` rows of the layers,
    /// or from Z[0] where it lies.
    fn run<F: Scalar>(
        &self,
        crew: &Assembled,
        layers: &[Array2<F>],
        z_0: Option<ArrayView2<F>>,
        samples: usize,
        (a, beta): (F, F),
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
            let z = match &z_0 {
                Some(z) if t == 0 => z.view(),
                _ => part(&layers[names.z(t)], Axis(0), &batch),
            };
            rows::gradient(a, delta, z, beta, w.write(t), c.write(t));
        });
    }
}
