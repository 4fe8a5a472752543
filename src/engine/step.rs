//! The engine over BLAS: buffers that are made once, and steps that run on them.

use std::ops::Range;

use ndarray::Array2;

use crate::engine::layers::BatchLayers;
use crate::engine::parameter_tiles::ParameterTiles;
use crate::engine::pass::GradientPass;
use crate::engine::plan::{LayerSlots, Operation, Plan};
use crate::engine::update::{Scratch, Update};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::optim::moments::Moments;
use crate::optim::overflow::OverflowBounds;
use crate::optim::rule::Rule;
use crate::parallel::team::{ActiveTeam, Team, max_threads};
use crate::steps::policy::{Batches, Diverged, NotFinite, StepPolicy, StepReport};
use crate::steps::samples::{AnySamples, BatchSize};
use crate::steps::top_down::TopDown;

/// Buffers for all batches up to a capacity, for networks of one shape.
///
/// It holds capacity × (d[0] + 2 (d[1] + … + d[T] + m)) numbers; for plain descent, no gradient and
/// no copy of θ.
#[derive(Debug)]
pub(crate) struct BlasEngine<F> {
    widths: Vec<usize>,
    capacity: usize,
    /// Z[0], …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], …, Δ[1], each with `capacity` rows.
    layers: Vec<Array2<F>>,
    /// A plan for each batch size met so far: the full one, and a smaller last one.
    plans: Vec<Plan>,
    /// Plans of passes that end with the loss.
    loss_plans: Vec<Plan>,
    tiles: ParameterTiles,
    /// Those of a gradient that is used from the head down, for so many threads.
    tiles_top_down: Option<(usize, ParameterTiles)>,
    scratch: Scratch<F>,
    team: Team,
}

/// The largest number of plans that are kept.
const MOST_PLANS: usize = 32;

impl<F: Scalar> BlasEngine<F> {
    /// Buffers for batches of up to `capacity` samples of this network.
    pub(crate) fn new(mlp: &Mlp<F>, capacity: usize) -> Self {
        let widths = mlp.widths().to_vec();
        let layers = LayerSlots::columns(&widths).map(|d| Array2::from_elem((capacity, d), F::ZERO)).collect();
        Self {
            widths,
            capacity,
            layers,
            plans: Vec::new(),
            loss_plans: Vec::new(),
            tiles: ParameterTiles::new(mlp.parameters()),
            tiles_top_down: None,
            scratch: Scratch::default(),
            team: Team::default(),
        }
    }

    /// Whether this engine can run such batches of this network.
    pub(crate) fn fits(&self, mlp: &Mlp<F>, samples: usize) -> bool {
        self.widths == mlp.widths() && self.tiles.fits(mlp.parameters()) && samples <= self.capacity
    }

    /// The number of all z and δ of a batch.
    pub(crate) fn numbers(&self, samples: usize) -> usize {
        samples * self.layers.iter().map(Array2::ncols).sum::<usize>()
    }

    /// The index of the plan for batches of this size, which is made when such a batch comes for
    /// the first time.
    fn plan(&mut self, size: BatchSize) -> usize {
        let Self { widths, capacity, layers, plans, .. } = self;
        find_or_make(plans, size, *capacity, layers, |shapes| Plan::gradient(widths, shapes, size))
    }

    /// The index of the loss plan for batches of this size.
    fn loss_plan(&mut self, size: BatchSize) -> usize {
        let Self { widths, capacity, layers, loss_plans, .. } = self;
        find_or_make(loss_plans, size, *capacity, layers, |shapes| Plan::loss(widths, shapes, size))
    }

    /// `into` ← a Σ ∂ℓ/∂θ over `samples` samples. Returns Σ ℓ; if that is NaN, nothing has been
    /// written.
    pub(crate) fn gradient(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &AnySamples<F>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64 {
        let plan = self.plan(data.size(samples));
        let Self { layers, plans, tiles, team, .. } = self;
        let plan = &plans[plan];
        let workload = plan.workload() + tiles.workload(samples);
        team.enter(workload, |team| {
            team.step(workload, || {
                let sum = plan.run(team, layers, &GradientPass::new(plan, theta, data, 0, false));
                if !sum.is_nan() {
                    let batch = BatchLayers { layers, z_0: data.in_place(0..samples), samples };
                    Update { tiles, team, batch: &batch }.product(a, [F::ZERO; 2], into);
                }
                sum
            })
        })
    }

    /// The same for a gradient that is used while it is computed. `top_down` decides whether it is
    /// written.
    pub(crate) fn gradient_top_down(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &AnySamples<F>,
        a: F,
        into: &mut Parameters<F>,
        top_down: &mut dyn TopDown<F>,
    ) -> f64 {
        let plan = self.plan(data.size(samples));
        let Self { layers, plans, tiles_top_down, team, .. } = self;
        let (plan, threads) = (&plans[plan], max_threads());
        if tiles_top_down.as_ref().is_none_or(|(of, _)| *of != threads) {
            *tiles_top_down = Some((threads, ParameterTiles::top_down(theta, threads)));
        }
        let (_, tiles) = tiles_top_down.as_ref().expect("just made");
        let pass = GradientPass::new(plan, theta, data, 0, false);
        let workload = plan.workload() + tiles.workload(samples);
        team.enter(workload, |team| {
            team.step(workload, || {
                let mut done = plan.phases_until(Operation::Loss);
                plan.run_phases(0..done, team, layers, &pass, || ());
                let sum = plan.loss_sum();
                if !team.wait_for(|| top_down.passed(sum)) {
                    return sum;
                }
                for t in (0..=theta.depth()).rev() {
                    if t < theta.depth() {
                        let until = plan.phases_until(Operation::Backward(t + 1));
                        plan.run_phases(done..until, team, layers, &pass, || top_down.meanwhile());
                        done = until;
                    }
                    let batch = BatchLayers { layers, z_0: data.in_place(0..samples), samples };
                    Update { tiles, team, batch: &batch }.layer_top_down(t, a, into, top_down);
                }
                sum
            })
        })
    }

    /// Σ ℓ over `samples` samples, `batch` of them at a time. The caller says how many, since the
    /// capacity depends on what came before.
    pub(crate) fn loss(&mut self, theta: &Parameters<F>, samples: usize, batch: usize, data: &AnySamples<F>) -> f64 {
        let rest = samples % batch;
        let full = self.loss_plan(data.size(batch));
        let ragged = if rest > 0 { self.loss_plan(data.size(rest)) } else { full };
        let Self { layers, loss_plans, team, .. } = self;
        let (full, ragged) = (&loss_plans[full], &loss_plans[ragged]);
        team.enter((samples / batch) * full.workload(), |team| {
            let of_batch = |first: usize| {
                let plan = if first + batch <= samples { full } else { ragged };
                let pass = GradientPass::new(plan, theta, data, first, false);
                team.step(plan.workload(), || plan.run(team, layers, &pass))
            };
            (0..samples).step_by(batch).map(of_batch).sum()
        })
    }

    /// Makes the steps `steps` of an epoch, counted from 0, with the batches of these numbers. Each
    /// is followed by an update of θ as the policy says, for as long as it says so.
    ///
    /// # Errors
    /// The first step whose Σ ℓ is not finite, or, if overflow is watched, after which θ or the
    /// moments would not be.
    pub(crate) fn descend(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        Batches { samples, batch }: Batches,
        steps: Range<usize>,
        data: &AnySamples<F>,
        policy: &mut dyn StepPolicy<F>,
    ) -> Result<(), Diverged> {
        let (whole, rest) = (samples / batch, samples % batch);
        // A caller may come with batches of ever new sizes.
        if self.plans.len() > MOST_PLANS {
            self.plans.clear();
        }
        let full = if whole > 0 { self.plan(data.size(batch)) } else { 0 };
        let ragged = if rest > 0 { self.plan(data.size(rest)) } else { full };
        let Self { layers, plans, tiles, scratch, team, .. } = self;
        let workload = |plan: &Plan| plan.workload() + tiles.workload(plan.size.samples);
        let total = steps.len() * workload(&plans[if whole > 0 { full } else { ragged }]);
        team.enter(total, |team| {
            for step in steps {
                let plan = &plans[if step < whole { full } else { ragged }];
                let rule = policy.rule(step);
                let mut run = Step { team, plan, tiles, layers, data, first: step * batch, rule: &rule };
                let made = team.step(workload(plan), || run.make(theta, moments, scratch));
                let (sum, norm) = made.map_err(|cause| Diverged { step, cause })?;
                let report = StepReport { step, samples: plan.size.samples, sum, norm };
                if policy.step_done(&report).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// The index of the plan for batches of this size.
fn find_or_make<F>(
    plans: &mut Vec<Plan>,
    size: BatchSize,
    capacity: usize,
    layers: &[Array2<F>],
    make: impl FnOnce(&[(usize, usize)]) -> Plan,
) -> usize {
    assert!(size.samples <= capacity, "a batch of {} in an engine for {capacity}", size.samples);
    let shapes = || layers.iter().map(Array2::dim).collect::<Vec<_>>();
    let Some(found) = plans.iter().position(|plan| plan.size.samples == size.samples) else {
        plans.push(make(&shapes()));
        return plans.len() - 1;
    };
    // A loss may say anything, each time: there is one plan for so many samples.
    if plans[found].size != size {
        plans[found] = make(&shapes());
    }
    found
}

/// One step, about to be made.
struct Step<'a, 's, F> {
    team: &'a ActiveTeam<'a>,
    plan: &'a Plan,
    tiles: &'a ParameterTiles,
    layers: &'a mut [Array2<F>],
    data: &'a AnySamples<'s, F>,
    /// The batch's first sample.
    first: usize,
    rule: &'a Rule,
}

/// Whether an update can overflow. If it does, it leaves an infinity in θ, and θ before it is gone.
enum Overflow {
    /// The caller looks at θ itself.
    Unwatched,
    /// The bounds after the update prove that it cannot.
    Impossible(OverflowBounds),
    /// The bounds fail.
    Possible,
}

impl<F: Scalar> Step<'_, '_, F> {
    /// Runs the pass, or both of SAM's, and the update. Returns Σ ℓ before the update, and ‖g‖ if
    /// the rule has it.
    fn make(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        scratch: &mut Scratch<F>,
    ) -> Result<(f64, Option<f64>), NotFinite> {
        let watched = moments.bounds.is_some();
        // With SAM, the update follows the second pass, and that is the one to watch.
        let sum = NotFinite::check("loss", self.pass(theta, watched && self.rule.sam.is_none()))?;
        if let Some(rho) = self.rule.sam {
            self.pass_uphill(rho, theta, scratch, watched)?;
        }
        match self.overflow(moments) {
            Overflow::Unwatched => Ok((sum, self.update(theta, moments, scratch))),
            Overflow::Impossible(bounds) => {
                moments.bounds = Some(bounds);
                Ok((sum, self.update(theta, moments, scratch)))
            }
            Overflow::Possible => Ok((sum, self.update_copies(theta, moments, scratch)?)),
        }
    }

    /// Fills the layers at θ. Returns Σ ℓ.
    fn pass(&mut self, theta: &Parameters<F>, watched: bool) -> f64 {
        let pass = GradientPass::new(self.plan, theta, self.data, self.first, watched);
        self.plan.run(self.team, self.layers, &pass)
    }

    /// Fills the layers at θ + ρ g/‖g‖.
    fn pass_uphill(
        &mut self,
        rho: f64,
        theta: &Parameters<F>,
        scratch: &mut Scratch<F>,
        watched: bool,
    ) -> Result<(), NotFinite> {
        let batch = self.batch();
        let (norm, uphill) = self.updater(&batch).uphill(rho, self.rule, theta, scratch);
        NotFinite::check("gradient's norm", norm)?;
        NotFinite::check("loss at the point uphill", self.pass(uphill, watched))?;
        Ok(())
    }

    /// The layers as the last pass has filled them.
    fn batch(&self) -> BatchLayers<'_, F> {
        let samples = self.plan.size.samples;
        let z_0 = self.data.in_place(self.first..self.first + samples);
        BatchLayers { layers: self.layers, z_0, samples }
    }

    fn updater<'b>(&'b self, batch: &'b BatchLayers<'b, F>) -> Update<'b, F> {
        Update { tiles: self.tiles, team: self.team, batch }
    }

    fn overflow(&self, moments: &Moments<F>) -> Overflow {
        let Some(bounds) = moments.bounds else { return Overflow::Unwatched };
        match bounds.after::<F>(self.rule, self.plan.size.samples, self.plan.squares()) {
            Some(bounds) => Overflow::Impossible(bounds),
            None => Overflow::Possible,
        }
    }

    /// θ and the moments ← the rule. Returns ‖g‖ if the rule has it.
    fn update(&self, theta: &mut Parameters<F>, moments: &mut Moments<F>, scratch: &mut Scratch<F>) -> Option<f64> {
        self.updater(&self.batch()).step(self.rule, theta, moments, scratch)
    }

    /// An update that may overflow, on copies of θ and the moments. They replace these if it has
    /// not.
    fn update_copies(
        &self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        scratch: &mut Scratch<F>,
    ) -> Result<Option<f64>, NotFinite> {
        let (mut theta_after, mut moments_after) = (theta.clone(), moments.clone());
        let norm = self.update(&mut theta_after, &mut moments_after, scratch);
        norm.map_or(Ok(0.0), |norm| NotFinite::check("gradient's norm", norm))?;
        NotFinite::check_all("parameters", &theta_after)?;
        moments_after.arrays.iter().try_for_each(|array| NotFinite::check_all("optimizer's moments", array))?;
        moments_after.reset_bounds(&theta_after);
        (*theta, *moments) = (theta_after, moments_after);
        Ok(norm)
    }
}
