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
//! Which tiles an operation runs on, and which operations share a phase, is [`plan`](crate::engine::plan)'s; the update, with other
//! rules as well, is [`update`](crate::engine::update)'s.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use ndarray::{Array2, ArrayView2, Axis, Slice};

use crate::engine::plan::{LayerSlots, Op, Plan, Update, sum};
use crate::engine::update::{BatchLayers, Scratch};
use crate::error::Error;
use crate::linalg::blas::{SharedTiles, Tile};
use crate::linalg::rows::{self, slice_range};
use crate::linalg::scalar::Scalar;
use crate::network::loss::SampleLoss;
use crate::network::mlp::{Mlp, Parameters};
use crate::optim::moments::Moments;
use crate::optim::rule::Rule;
use crate::parallel::team::{ActiveTeam, Team, Workload};

/// Buffers for all batches up to a capacity, for networks of one shape.
///
/// In numbers: capacity × (d[0] + 2 (d[1] + … + d[T] + m)); for plain descent no gradient and no copy of θ.
#[derive(Debug)]
pub(crate) struct Engine<F> {
    widths: Vec<usize>,
    capacity: usize,
    /// Z[0], …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], …, Δ[1], each with `capacity` rows.
    layers: Vec<Array2<F>>,
    /// SingleStep for each batch size met so far: the full one, and a ragged last one.
    plans: Vec<Plan>,
    /// The same of passes that end with the loss.
    losses: Vec<Plan>,
    update: Update,
    /// StepReport when a rule first needs it.
    scratch: Option<Scratch<F>>,
    team: Team,
}

/// Schedules kept, of batches of different sizes.
const MOST_PLANS: usize = 32;

/// Samples whose losses are made together where there is no step, at the most: enough for two cores to share even narrow layers.
const LOSS_ROWS: usize = 512;

/// As many blocks as that takes for this many samples, of about equal length, so that the last is not a short one: how long each is.
pub(crate) fn loss_block(samples: usize) -> usize {
    samples.div_ceil(samples.div_ceil(LOSS_ROWS))
}

/// What a step reads: sample i of it is x[order[i]], or x[i], shifted and scaled if that is asked for. `loss` is
/// that of the rows of x.
pub(crate) struct Samples<'a, F, L> {
    pub(crate) x: ArrayView2<'a, F>,
    pub(crate) order: Option<&'a [usize]>,
    /// Mean and factor of each column.
    pub(crate) standardize: Option<(&'a [f64], &'a [f64])>,
    /// The weight of each row of x, if some are 0: those rows are read as 0, since their z could be
    /// infinite and ∞ · 0 is NaN.
    pub(crate) weights: Option<&'a [F]>,
    pub(crate) loss: L,
}

impl<F: Scalar, L> Samples<'_, F, L> {
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
pub(crate) trait StepPolicy<F> {
    /// How step `step` of the epoch, the next one, updates.
    fn rule(&mut self, step: usize) -> Rule;
    /// It has been made.
    fn made(&mut self, made: &StepReport) -> ControlFlow<()>;
}

/// A step that has been made.
#[derive(Debug)]
pub(crate) struct StepReport {
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
        let layers = LayerSlots::columns(&widths).map(|d| Array2::from_elem((capacity, d), F::ZERO)).collect();
        Self {
            widths,
            capacity,
            layers,
            plans: Vec::new(),
            losses: Vec::new(),
            update: Update::new(mlp.parameters()),
            scratch: None,
            team: Team::default(),
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

    /// Coefficients of all z and δ of a batch.
    pub(crate) fn numbers(&self, samples: usize) -> usize {
        samples * self.layers.iter().map(Array2::ncols).sum::<usize>()
    }

    /// The plan of a batch of `samples`: found, or made when such a batch comes for the first time.
    fn plan(&mut self, samples: usize) -> usize {
        Self::find(&mut self.plans, samples, self.capacity, &self.layers, |shapes| {
            Plan::step(&self.widths, shapes, samples)
        })
    }

    fn find(
        plans: &mut Vec<Plan>,
        samples: usize,
        capacity: usize,
        layers: &[Array2<F>],
        make: impl FnOnce(&[(usize, usize)]) -> Plan,
    ) -> usize {
        assert!(samples <= capacity, "a batch of {samples} in an engine for {capacity}");
        plans.iter().position(|plan| plan.samples == samples).unwrap_or_else(|| {
            let shapes: Vec<_> = layers.iter().map(Array2::dim).collect();
            plans.push(make(&shapes));
            plans.len() - 1
        })
    }

    /// `into` ← a Σ ∂/∂θ over `samples` samples. Returns Σ ℓ; if that is NaN, nothing has been written.
    pub(crate) fn gradient<L: SampleLoss<F>>(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &Samples<F, L>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64 {
        let plan = self.plan(samples);
        let Self { layers, plans, update, team, .. } = self;
        let plan = &plans[plan];
        let workload = plan.workload() + update.workload(samples);
        team.enter(workload, |team| {
            team.step(workload, || {
                let sum = plan.run(team, layers, theta, data, 0, false);
                if !sum.is_nan() {
                    let batch = BatchLayers { layers, z_0: data.in_place(0..samples), samples };
                    update.run(team, &batch, (a, F::ZERO), into);
                }
                sum
            })
        })
    }

    /// Σ ℓ over `samples` samples, `batch` of them at a time: by the caller's word and not by the capacity, which depends on what came
    /// before.
    pub(crate) fn loss<L: SampleLoss<F>>(
        &mut self,
        theta: &Parameters<F>,
        (samples, batch): (usize, usize),
        data: &Samples<F, L>,
    ) -> f64 {
        let rest = samples % batch;
        let Self { widths, capacity, layers, losses, team, .. } = self;
        let mut find = |samples| {
            let make = |shapes: &[(usize, usize)]| Plan::loss(widths, shapes, samples);
            Self::find(losses, samples, *capacity, layers, make)
        };
        let full = find(batch);
        let ragged = if rest > 0 { find(rest) } else { full };
        team.enter((samples / batch) * losses[full].workload(), |team| {
            let firsts = (0..samples).step_by(batch);
            firsts
                .map(|first| {
                    let plan = &losses[if first + batch <= samples { full } else { ragged }];
                    team.step(plan.workload(), || plan.run(team, layers, theta, data, first, false))
                })
                .sum()
        })
    }

    /// The steps `range` of an epoch of `samples` samples in batches of `batch` (the last one may be smaller), each followed by an
    /// update of θ as `steps` says, for as long as it says so.
    ///
    /// # Errors
    /// The first step whose Σ ℓ is not finite, or, if the moments are watched, after which θ or they would not be.
    pub(crate) fn descend<L: SampleLoss<F>>(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        (samples, batch, range): (usize, usize, Range<usize>),
        data: &Samples<F, L>,
        steps: &mut impl StepPolicy<F>,
    ) -> Result<(), Diverged> {
        let (whole, rest) = (samples / batch, samples % batch);
        // A caller with batches of ever new sizes.
        if self.plans.len() > MOST_PLANS {
            self.plans.clear();
        }
        let full = if whole > 0 { self.plan(batch) } else { 0 };
        let ragged = if rest > 0 { self.plan(rest) } else { full };
        let Self { layers, plans, update, scratch, team, .. } = self;
        let workload = |plan: &Plan| plan.workload() + update.workload(plan.samples);
        let work = range.len() * workload(&plans[if whole > 0 { full } else { ragged }]);
        team.enter(work, |team| {
            for step in range {
                let plan = &plans[if step < whole { full } else { ragged }];
                let (first, samples) = (step * batch, plan.samples);
                let rule = steps.rule(step);
                let (sum, norm) = team.step(workload(plan), || {
                    // The pass that the update follows is the one to watch.
                    let watch = moments.bounds.is_some();
                    let sum = plan.run(team, layers, theta, data, first, watch && rule.sam.is_none());
                    if !sum.is_finite() {
                        return Err(Diverged { step, what: "loss", found: sum });
                    }
                    if let Some(rho) = rule.sam {
                        let batch = BatchLayers { layers, z_0: data.in_place(first..first + samples), samples };
                        let (norm, uphill) = update.uphill(team, &batch, (&rule, rho), theta, scratch);
                        if !norm.is_finite() {
                            return Err(Diverged { step, what: "gradient's norm", found: norm });
                        }
                        let found = plan.run(team, layers, uphill, data, first, watch);
                        if !found.is_finite() {
                            return Err(Diverged { step, what: "loss at the point uphill", found });
                        }
                    }
                    let batch = BatchLayers { layers, z_0: data.in_place(first..first + samples), samples };
                    let watched = moments.bounds.map(|watch| watch.after::<F>(&rule, samples, plan.squares()));
                    if let Some(None) = watched {
                        let norm = step_on_a_copy(update, team, &batch, &rule, theta, moments, scratch);
                        return norm.map(|norm| (sum, norm)).map_err(|(what, found)| Diverged { step, what, found });
                    }
                    moments.bounds = watched.flatten();
                    let norm = update.step(team, &batch, &rule, theta, moments, scratch);
                    Ok((sum, norm))
                })?;
                if steps.made(&StepReport { step, samples, sum, norm }).is_break() {
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
    team: &ActiveTeam,
    batch: &BatchLayers<F>,
    rule: &Rule,
    theta: &mut Parameters<F>,
    moments: &mut Moments<F>,
    scratch: &mut Option<Scratch<F>>,
) -> Result<Option<f64>, (&'static str, f64)> {
    let (mut theta_after, mut moments_after) = (theta.clone(), moments.clone());
    let norm = update.step(team, batch, rule, &mut theta_after, &mut moments_after, scratch);
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
    moments_after.reset_bounds(&theta_after);
    (*theta, *moments) = (theta_after, moments_after);
    Ok(norm)
}

/// Buffers and plan of forward passes over so many samples at once. In numbers: samples × (d[0] + … + m).
pub(crate) struct Forward<F> {
    layers: Vec<Array2<F>>,
    plan: Plan,
}

impl<F: Scalar> Forward<F> {
    pub(crate) fn new(mlp: &Mlp<F>, samples: usize) -> Self {
        let layers: Vec<_> = mlp.widths().iter().map(|&d| Array2::from_elem((samples, d), F::ZERO)).collect();
        let shapes: Vec<_> = layers.iter().map(Array2::dim).collect();
        Self { layers, plan: Plan::forward(mlp.widths(), &shapes, samples) }
    }

    pub(crate) fn workload(&self) -> Workload {
        self.plan.workload()
    }

    pub(crate) fn samples(&self) -> usize {
        self.plan.samples
    }

    /// Ŷ of as many rows of x as there are samples, from `first` on.
    pub(crate) fn run(&mut self, team: &ActiveTeam, mlp: &Mlp<F>, x: ArrayView2<F>, first: usize) -> ArrayView2<'_, F> {
        let data = Samples { x, order: None, standardize: None, weights: None, loss: |_, _: &[F], _: &mut [F]| 0.0 };
        let Self { layers, plan } = self;
        team.step(plan.workload(), || plan.run(team, layers, mlp.parameters(), &data, first, false));
        self.layers[self.layers.len() - 1].view()
    }
}

impl Plan {
    /// The sum of the squares of all z and δ of the last run that was watched.
    fn squares(&self) -> f64 {
        self.phases.iter().map(|phase| sum(&phase.squares)).sum()
    }

    /// Runs all phases for the samples from `first` on: fills Z, Ŷ, ∂ℓ/∂Ŷ and Δ. Returns Σ ℓ.
    pub(crate) fn run<F: Scalar, L: SampleLoss<F>>(
        &self,
        team: &ActiveTeam,
        layers: &mut [Array2<F>],
        theta: &Parameters<F>,
        data: &Samples<F, L>,
        first: usize,
        watch: bool,
    ) -> f64 {
        let slots = LayerSlots { depth: theta.depth() };
        let in_place = data.in_place(first..first + self.samples);
        for phase in &self.phases {
            if in_place.is_some() && phase.ops == [Op::Gather] && !watch {
                continue;
            }
            let layers = SharedTiles::new(layers, &phase.tiles);
            team.for_each_tile(phase.tiles.len(), phase.flops, &|index| {
                let mut tile = layers.claim(index);
                let Tile { rows, columns, .. } = tile.tile().clone();
                let first = first + rows.start;
                for &op in &phase.ops {
                    match op {
                        Op::Gather if in_place.is_some() => {}
                        Op::Gather => {
                            let present = |row: usize| data.weights.is_none_or(|weights| weights[row] != F::ZERO);
                            let row = |r| Some(data.row(first + r)).filter(|&row| present(row));
                            rows::gather(data.x, row, data.standardize, tile.write(slots.z(0)));
                        }
                        Op::Forward(t) => {
                            let (z, mut u) = match &in_place {
                                Some(z) if t == 0 => {
                                    (slice_range(z, Axis(0), &Some(rows.clone())), tile.write(slots.z(1)))
                                }
                                _ => {
                                    let ([z], u) = tile.read_and_write([slots.z(t)], slots.z(t + 1));
                                    (z, u)
                                }
                            };
                            let (w, c) = (slice_range(&theta.w[t], Axis(0), &columns), &theta.c[t]);
                            rows::weighted_inputs(z, w, u.view_mut());
                            let c = if c.is_empty() { c.view() } else { slice_range(c, Axis(0), &columns) };
                            if t < slots.depth {
                                rows::add_constant_relu(c, u);
                            } else {
                                rows::add_constant(c, u);
                            }
                        }
                        Op::Loss => {
                            let ([y_hat], dy) =
                                tile.read_and_write([slots.z(slots.depth + 1)], slots.delta(slots.depth + 1));
                            let sum =
                                rows::losses(y_hat, dy, |r, y_hat, dy| (data.loss)(data.row(first + r), y_hat, dy));
                            self.losses[index].store(sum.to_bits(), Ordering::Relaxed);
                        }
                        Op::Backward(t) => {
                            let from = [slots.delta(t + 1), slots.z(t)];
                            let ([above, z], delta) = tile.read_and_write(from, slots.delta(t));
                            let (w, z) =
                                (slice_range(&theta.w[t], Axis(1), &columns), slice_range(&z, Axis(1), &columns));
                            rows::deltas(above, w, z, delta);
                        }
                    }
                }
                if watch {
                    let mut squares = 0.0;
                    for array in tile.tile().arrays.clone() {
                        squares += match &in_place {
                            Some(z) if array == slots.z(0) => {
                                rows::squares_of(slice_range(z, Axis(0), &Some(rows.clone())))
                            }
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
