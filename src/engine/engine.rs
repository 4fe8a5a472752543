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
//! Which tiles an operation runs on, and which operations share a phase, is [`schedule`](crate::engine::schedule)'s; the update, with other
//! rules as well, is [`update`](crate::engine::update)'s.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use ndarray::{Array2, ArrayView2, Axis, Slice};

use crate::engine::schedule::{Names, Op, Schedule, Update, sum};
use crate::engine::update::{Batch, Scratch};
use crate::error::Error;
use crate::linalg::blas::{SharedTiles, Tile};
use crate::linalg::rows::{self, part};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::{Mlp, Parameters};
use crate::optim::optimizer::{Moments, Rule};
use crate::parallel::crew::{Assembled, Crew, Shareable};

/// Buffers for all batches up to a capacity, for networks of one shape.
///
/// In numbers: capacity × (d[0] + 2 (d[1] + … + d[T] + m)); for plain descent no gradient and no copy of θ.
#[derive(Debug)]
pub(crate) struct Engine<F> {
    widths: Vec<usize>,
    capacity: usize,
    /// Z[0], …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], …, Δ[1], each with `capacity` rows.
    layers: Vec<Array2<F>>,
    /// One for each batch size met so far: the full one, and a ragged last one.
    schedules: Vec<Schedule>,
    /// The same of passes that end with the loss.
    losses: Vec<Schedule>,
    update: Update,
    /// Made when a rule first needs it.
    scratch: Option<Scratch<F>>,
    crew: Crew,
}

/// Schedules kept, of batches of different sizes.
const MOST_SCHEDULES: usize = 32;

/// Samples whose losses are made together where there is no step, at the most: enough for two cores to share even narrow layers.
const LOSS_ROWS: usize = 512;

/// As many blocks as that takes for this many samples, of about equal length, so that the last is not a short one: how long each is.
pub(crate) fn loss_block(samples: usize) -> usize {
    samples.div_ceil(samples.div_ceil(LOSS_ROWS))
}

/// What a step reads: sample i of it is x[order[i]], or x[i], shifted and scaled if that is asked for. `seed(j, ŷ, ∂)` writes ∂ℓ/∂ŷ of
/// x[j] into ∂ and returns its ℓ.
pub(crate) struct Samples<'a, F, Seed> {
    pub(crate) x: ArrayView2<'a, F>,
    pub(crate) order: Option<&'a [usize]>,
    /// Mean and factor of each column.
    pub(crate) standardize: Option<(&'a [f64], &'a [f64])>,
    /// The weight of each row of x, if some are 0: those rows are read as 0, since their z could be
    /// infinite and ∞ · 0 is NaN.
    pub(crate) weights: Option<&'a [F]>,
    pub(crate) seed: Seed,
}

impl<F: Scalar, Seed> Samples<'_, F, Seed> {
    fn row(&self, i: usize) -> usize {
        self.order.map_or(i, |order| order[i])
    }

    /// Z[0] of some samples without gathering them, if they lie in x as they are needed.
    fn in_place(&self, samples: Range<usize>) -> Option<ArrayView2<'_, F>> {
        let as_they_are = self.order.is_none() && self.standardize.is_none() && self.weights.is_none();
        (as_they_are && self.x.is_standard_layout()).then(|| self.x.slice_axis(Axis(0), Slice::from(samples)))
    }
}

/// Who decides on the steps of a run, and is told of them.
pub(crate) trait Steps<F> {
    /// How step `step` of the epoch, the next one, updates.
    fn rule(&mut self, step: usize) -> Rule;
    /// It has been made.
    fn made(&mut self, made: &Made) -> ControlFlow<()>;
}

/// A step that has been made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) step: usize,
    pub(crate) samples: usize,
    /// Σ ℓ over the batch, before the update.
    pub(crate) sum: f64,
    /// ‖g‖, if the rule asked for it or needed it.
    pub(crate) norm: Option<f64>,
}

/// A step that was not made, since something in it or after it is not finite; θ and the moments are as before it.
#[derive(Debug)]
pub(crate) struct Diverged {
    pub(crate) step: usize,
    pub(crate) what: &'static str,
    pub(crate) found: f64,
}

impl Diverged {
    /// In an epoch, counted from 0, or in a step by itself; with the loss of the step before.
    pub(crate) fn error(&self, epoch: Option<usize>, last: Option<f64>) -> Error {
        let Self { step, what, found } = *self;
        Error::Diverged { what, at: epoch.map(|epoch| (epoch + 1, step + 1)), found, last }
    }
}

impl<F: Scalar> Engine<F> {
    /// Buffers for batches of up to `capacity` samples of this network.
    pub(crate) fn new(mlp: &Mlp<F>, capacity: usize) -> Self {
        let widths = mlp.widths().to_vec();
        let layers = Names::columns(&widths).map(|d| Array2::from_elem((capacity, d), F::ZERO)).collect();
        Self {
            widths,
            capacity,
            layers,
            schedules: Vec::new(),
            losses: Vec::new(),
            update: Update::new(mlp.parameters()),
            scratch: None,
            crew: Crew::default(),
        }
    }

    /// The engine kept from the last call, or a new one if that does not fit the network or the batch.
    pub(crate) fn kept<'e>(kept: &'e mut Option<Self>, mlp: &Mlp<F>, batch: usize) -> &'e mut Self {
        match kept {
            Some(engine) if engine.fits(mlp, batch) => {}
            _ => *kept = Some(Self::new(mlp, batch)),
        }
        kept.as_mut().expect("just made")
    }

    /// Can this engine run such batches of this network?
    fn fits(&self, mlp: &Mlp<F>, samples: usize) -> bool {
        self.widths == mlp.widths() && self.update.fits(mlp.parameters()) && samples <= self.capacity
    }

    /// Numbers of all z and δ of a batch.
    pub(crate) fn numbers(&self, samples: usize) -> usize {
        samples * self.layers.iter().map(Array2::ncols).sum::<usize>()
    }

    /// The schedule of a batch of `samples`: found, or made when such a batch comes for the first time.
    fn schedule(&mut self, samples: usize) -> usize {
        Self::find(&mut self.schedules, samples, self.capacity, &self.layers, |shapes| {
            Schedule::step(&self.widths, shapes, samples)
        })
    }

    fn find(
        schedules: &mut Vec<Schedule>,
        samples: usize,
        capacity: usize,
        layers: &[Array2<F>],
        make: impl FnOnce(&[(usize, usize)]) -> Schedule,
    ) -> usize {
        assert!(samples <= capacity, "a batch of {samples} in an engine for {capacity}");
        schedules.iter().position(|schedule| schedule.samples == samples).unwrap_or_else(|| {
            let shapes: Vec<_> = layers.iter().map(Array2::dim).collect();
            schedules.push(make(&shapes));
            schedules.len() - 1
        })
    }

    /// `into` ← a Σ ∂/∂θ over `samples` samples. Returns Σ ℓ; if that is NaN, nothing has been written.
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
                let sum = schedule.run(crew, layers, theta, data, 0, false);
                if !sum.is_nan() {
                    let batch = Batch { layers, z_0: data.in_place(0..samples), samples };
                    update.run(crew, &batch, (a, F::ZERO), into);
                }
                sum
            })
        })
    }

    /// Σ ℓ over `samples` samples, `batch` of them at a time: by the caller's word and not by the capacity, which depends on what came
    /// before.
    pub(crate) fn loss<Seed>(
        &mut self,
        theta: &Parameters<F>,
        (samples, batch): (usize, usize),
        data: &Samples<F, Seed>,
    ) -> f64
    where
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let rest = samples % batch;
        let Self { widths, capacity, layers, losses, crew, .. } = self;
        let mut find = |samples| {
            let make = |shapes: &[(usize, usize)]| Schedule::loss(widths, shapes, samples);
            Self::find(losses, samples, *capacity, layers, make)
        };
        let full = find(batch);
        let ragged = if rest > 0 { find(rest) } else { full };
        crew.assemble((samples / batch) * losses[full].shareable(), |crew| {
            let firsts = (0..samples).step_by(batch);
            firsts
                .map(|first| {
                    let schedule = &losses[if first + batch <= samples { full } else { ragged }];
                    crew.step(schedule.shareable(), || schedule.run(crew, layers, theta, data, first, false))
                })
                .sum()
        })
    }

    /// The steps `range` of an epoch of `samples` samples in batches of `batch` (the last one may be smaller), each followed by an
    /// update of θ as `steps` says, for as long as it says so.
    ///
    /// # Errors
    /// The first step whose Σ ℓ is not finite, or, if the moments are watched, after which θ or they would not be.
    pub(crate) fn descend<Seed>(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        (samples, batch, range): (usize, usize, Range<usize>),
        data: &Samples<F, Seed>,
        steps: &mut impl Steps<F>,
    ) -> Result<(), Diverged>
    where
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let (whole, rest) = (samples / batch, samples % batch);
        // A caller with batches of ever new sizes.
        if self.schedules.len() > MOST_SCHEDULES {
            self.schedules.clear();
        }
        let full = if whole > 0 { self.schedule(batch) } else { 0 };
        let ragged = if rest > 0 { self.schedule(rest) } else { full };
        let Self { layers, schedules, update, scratch, crew, .. } = self;
        let shareable = |schedule: &Schedule| schedule.shareable() + update.shareable(schedule.samples);
        let work = range.len() * shareable(&schedules[if whole > 0 { full } else { ragged }]);
        crew.assemble(work, |crew| {
            for step in range {
                let schedule = &schedules[if step < whole { full } else { ragged }];
                let (first, samples) = (step * batch, schedule.samples);
                let rule = steps.rule(step);
                let (sum, norm) = crew.step(shareable(schedule), || {
                    // The pass that the update follows is the one to watch.
                    let watch = moments.watch.is_some();
                    let sum = schedule.run(crew, layers, theta, data, first, watch && rule.sam.is_none());
                    if !sum.is_finite() {
                        return Err(Diverged { step, what: "loss", found: sum });
                    }
                    if let Some(rho) = rule.sam {
                        let batch = Batch { layers, z_0: data.in_place(first..first + samples), samples };
                        let (norm, uphill) = update.uphill(crew, &batch, (&rule, rho), theta, scratch);
                        if !norm.is_finite() {
                            return Err(Diverged { step, what: "gradient's norm", found: norm });
                        }
                        let found = schedule.run(crew, layers, uphill, data, first, watch);
                        if !found.is_finite() {
                            return Err(Diverged { step, what: "loss at the point uphill", found });
                        }
                    }
                    let batch = Batch { layers, z_0: data.in_place(first..first + samples), samples };
                    let watched = moments.watch.map(|watch| watch.after::<F>(&rule, samples, schedule.squares()));
                    if let Some(None) = watched {
                        let norm = step_on_a_copy(update, crew, &batch, &rule, theta, moments, scratch);
                        return norm.map(|norm| (sum, norm)).map_err(|(what, found)| Diverged { step, what, found });
                    }
                    moments.watch = watched.flatten();
                    let norm = update.step(crew, &batch, &rule, theta, moments, scratch);
                    Ok((sum, norm))
                })?;
                if steps.made(&Made { step, samples, sum, norm }).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// A step that may overflow, on copies of θ and the moments, which they replace if it has not. Returns ‖g‖ as other steps do.
///
/// # Errors
/// What is not finite after it.
fn step_on_a_copy<F: Scalar>(
    update: &Update,
    crew: &Assembled,
    batch: &Batch<F>,
    rule: &Rule,
    theta: &mut Parameters<F>,
    moments: &mut Moments<F>,
    scratch: &mut Option<Scratch<F>>,
) -> Result<Option<f64>, (&'static str, f64)> {
    let (mut theta_after, mut moments_after) = (theta.clone(), moments.clone());
    let norm = update.step(crew, batch, rule, &mut theta_after, &mut moments_after, scratch);
    let infinite = |p: &Parameters<F>| p.iter().find(|p| !p.is_finite()).map(|p| p.to_f64());
    if let Some(norm) = norm.filter(|norm| !norm.is_finite()) {
        return Err(("gradient's norm", norm));
    }
    if let Some(found) = infinite(&theta_after) {
        return Err(("parameters", found));
    }
    if let Some(found) = moments_after.arrays.iter().find_map(infinite) {
        return Err(("optimizer's moments", found));
    }
    moments_after.watch_again(&theta_after);
    (*theta, *moments) = (theta_after, moments_after);
    Ok(norm)
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

    pub(crate) fn shareable(&self) -> Shareable {
        self.schedule.shareable()
    }

    pub(crate) fn samples(&self) -> usize {
        self.schedule.samples
    }

    /// Ŷ of as many rows of x as there are samples, from `first` on.
    pub(crate) fn run(&mut self, crew: &Assembled, mlp: &Mlp<F>, x: ArrayView2<F>, first: usize) -> ArrayView2<'_, F> {
        let data = Samples { x, order: None, standardize: None, weights: None, seed: |_, _: &[F], _: &mut [F]| 0.0 };
        let Self { layers, schedule } = self;
        crew.step(schedule.shareable(), || schedule.run(crew, layers, mlp.parameters(), &data, first, false));
        self.layers[self.layers.len() - 1].view()
    }
}

impl Schedule {
    /// The sum of the squares of all z and δ of the last run that was watched.
    fn squares(&self) -> f64 {
        self.phases.iter().map(|phase| sum(&phase.squares)).sum()
    }

    /// Runs all phases for the samples from `first` on: fills Z, Ŷ, ∂ℓ/∂Ŷ and Δ. Returns Σ ℓ.
    pub(crate) fn run<F: Scalar, Seed>(
        &self,
        crew: &Assembled,
        layers: &mut [Array2<F>],
        theta: &Parameters<F>,
        data: &Samples<F, Seed>,
        first: usize,
        watch: bool,
    ) -> f64
    where
        Seed: Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    {
        let names = Names { depth: theta.depth() };
        let in_place = data.in_place(first..first + self.samples);
        for phase in &self.phases {
            if in_place.is_some() && phase.ops == [Op::Gather] && !watch {
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
                        Op::Gather => {
                            let present = |row: usize| data.weights.is_none_or(|weights| weights[row] != F::ZERO);
                            let row = |r| Some(data.row(first + r)).filter(|&row| present(row));
                            rows::gather(data.x, row, data.standardize, tile.write(names.z(0)));
                        }
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
                if watch {
                    let mut squares = 0.0;
                    for array in tile.tile().arrays.clone() {
                        squares += match &in_place {
                            Some(z) if array == names.z(0) => rows::squares_of(part(z, Axis(0), &Some(rows.clone()))),
                            _ => rows::squares_of(tile.write(array).view()),
                        };
                    }
                    phase.squares[index].store(squares.to_bits(), Ordering::Relaxed);
                }
            });
        }
        sum(&self.losses)
    }
}
