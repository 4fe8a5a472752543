//! The native engine: a set of matrices that is made once, and steps that run on it.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicU64;

use crate::kernels::panels::Panels;
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::pass::Pass;
use crate::native::plan::{Operation, Plan, Until, UpdateTiles};
use crate::native::update::{Sink, Update};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::optim::moments::Moments;
use crate::optim::optimizer::Optimizer;
use crate::optim::overflow::OverflowBounds;
use crate::optim::rule::Rule;
use crate::optim::uphill;
use crate::parallel::panel_set::{PanelSet, RegionTable};
use crate::parallel::per_tile::{sum, zeros};
use crate::parallel::team::{ActiveTeam, Team};
use crate::parallel::workload::Workload;
use crate::steps::policy::{Batches, Diverged, NotFinite, StepPolicy, StepReport};
use crate::steps::samples::{AnySamples, BatchSize};
use crate::steps::top_down::TopDown;

/// Matrices for all batches up to a capacity, for networks of one shape.
#[derive(Debug)]
pub(crate) struct NativeEngine<F: Scalar> {
    widths: Vec<usize>,
    biases: Vec<bool>,
    capacity: usize,
    set: PanelSet<F>,
    layers: Layers,
    theta: Theta,
    /// Whatever else is shaped like θ, made when it is first needed.
    others: Others,
    /// What is cut for each batch size met so far.
    batches: Vec<Batch>,
    loss_plans: Vec<Plan>,
    team: Team,
}

/// Matrices shaped like θ.
#[derive(Debug, Default)]
struct Others {
    moments: Vec<Theta>,
    gradient: Option<Theta>,
    /// The point uphill of sharpness-aware minimisation.
    uphill: Option<Theta>,
}

/// What is cut for batches of one size.
#[derive(Debug)]
struct Batch {
    plan: Plan,
    tiles: UpdateTiles,
    /// Tables of the tiles that write θ and some moments; the gradient; the point uphill.
    of_theta: [Option<RegionTable>; 3],
    of_gradient: Option<RegionTable>,
    /// The tiles of a gradient that is used from the head down, and their table.
    top_down: Option<(UpdateTiles, RegionTable)>,
    of_uphill: Option<RegionTable>,
    /// Σ g² of each tile, as the bits of an f64.
    squares: Vec<AtomicU64>,
}

/// The largest number of batch sizes that are kept.
const MOST_BATCHES: usize = 32;

impl Batch {
    fn workload(&self) -> Workload {
        self.plan.workload() + self.tiles.workload()
    }
}

/// The biases that a network has.
fn biases<F: Scalar>(theta: &Parameters<F>) -> impl Iterator<Item = bool> {
    theta.c.iter().map(|c| !c.is_empty())
}

impl<F: Scalar> NativeEngine<F> {
    /// Matrices for batches of up to `capacity` samples of this network.
    pub(crate) fn new(mlp: &Mlp<F>, capacity: usize) -> Self {
        let mut set = PanelSet::new(Vec::new());
        let layers = Layers::push(&mut set, mlp.widths(), capacity);
        let theta = Theta::push(&mut set, mlp.parameters());
        Self {
            widths: mlp.widths().to_vec(),
            biases: biases(mlp.parameters()).collect(),
            capacity,
            set,
            layers,
            theta,
            others: Others::default(),
            batches: Vec::new(),
            loss_plans: Vec::new(),
            team: Team::default(),
        }
    }

    /// Whether this engine can run such batches of this network.
    pub(crate) fn fits(&self, mlp: &Mlp<F>, samples: usize) -> bool {
        let same_biases = self.biases.iter().copied().eq(biases(mlp.parameters()));
        self.widths == mlp.widths() && same_biases && samples <= self.capacity
    }

    /// The number of all z and δ of a batch.
    pub(crate) fn numbers(&self, samples: usize) -> usize {
        samples * (2 * self.widths.iter().sum::<usize>() - self.widths[0])
    }

    /// The index of what is cut for batches of this size.
    fn batch(&mut self, size: BatchSize) -> usize {
        let samples = size.samples;
        assert!(samples <= self.capacity, "a batch of {samples} in an engine for {}", self.capacity);
        if let Some(found) = self.batches.iter().position(|batch| batch.plan.samples() == samples) {
            self.batches[found].plan.follow(&self.set, size.cost);
            return found;
        }
        let tiles = UpdateTiles::new::<F>(&self.widths, &self.biases, samples);
        self.batches.push(Batch {
            plan: Plan::new(&self.set, self.layers, &self.widths, size, Until::Gradient),
            squares: zeros(tiles.tiles.len()),
            tiles,
            of_theta: [None, None, None],
            of_gradient: None,
            top_down: None,
            of_uphill: None,
        });
        self.batches.len() - 1
    }

    /// The index of the loss plan for batches of this size.
    fn loss_plan(&mut self, size: BatchSize) -> usize {
        assert!(size.samples <= self.capacity, "a batch of {} in an engine for {}", size.samples, self.capacity);
        let of = (self.layers, &self.widths[..]);
        Plan::find_or_push(&mut self.loss_plans, &self.set, of, size, Until::Loss)
    }

    /// Makes the matrices and tables that a step by this rule needs, unless they are there.
    fn prepare(&mut self, batch: usize, theta: &Parameters<F>, rule: &Rule) {
        let plain = rule.optimizer == Optimizer::Sgd && rule.clip.is_none();
        let stored = rule.clip.is_some() || rule.sam.is_some() || plain && rule.norm;
        let moments = rule.optimizer.moments();
        let Self { set, others, batches, .. } = self;
        let Batch { tiles, of_theta, of_uphill, .. } = &mut batches[batch];
        if of_theta[moments].is_none() {
            let written = [&[self.theta], &others.moments[..moments]].concat();
            of_theta[moments] = Some(tiles.table(set, &written));
        }
        if rule.sam.is_some() && of_uphill.is_none() {
            let uphill = *others.uphill.get_or_insert_with(|| Theta::push(set, theta));
            *of_uphill = Some(tiles.table(set, &[uphill]));
        }
        if stored {
            self.prepare_gradient(batch, theta);
        }
    }

    /// Makes the matrices of the gradient and their table, unless they are there.
    fn prepare_gradient(&mut self, batch: usize, theta: &Parameters<F>) {
        let Self { set, others, batches, .. } = self;
        let Batch { tiles, of_gradient, .. } = &mut batches[batch];
        let gradient = *others.gradient.get_or_insert_with(|| Theta::push(set, theta));
        of_gradient.get_or_insert_with(|| tiles.table(set, &[gradient]));
    }

    /// The same for a gradient that is used from the head down.
    fn prepare_top_down(&mut self, batch: usize, theta: &Parameters<F>) {
        let Self { widths, biases, set, others, batches, .. } = self;
        let Batch { plan, top_down, .. } = &mut batches[batch];
        let gradient = *others.gradient.get_or_insert_with(|| Theta::push(set, theta));
        top_down.get_or_insert_with(|| {
            let tiles = UpdateTiles::top_down::<F>(widths, biases, plan.samples());
            let table = tiles.table(set, &[gradient]);
            (tiles, table)
        });
    }

    /// `into` = a Σ ∂ℓ/∂θ over `samples` samples. Returns Σ ℓ; if that is NaN, nothing has been
    /// written.
    pub(crate) fn gradient(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &AnySamples<F>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64 {
        let batch = self.batch(data.size(samples));
        self.prepare_gradient(batch, theta);
        self.theta.load(&mut self.set, theta);
        let Self { set, layers, batches, others, team, .. } = self;
        let (batch, gradient) = (&batches[batch], others.gradient.expect("prepared"));
        let pass = Pass { layers: *layers, theta: self.theta, samples: data, first: 0, scale: a, watched: false };
        let sum = team.enter(batch.workload(), |team| {
            team.step(batch.workload(), || {
                let sum = pass.run(&batch.plan, team, set);
                if !sum.is_nan() {
                    let update = Update { layers: *layers, tiles: &batch.tiles, samples };
                    let table = batch.of_gradient.as_ref().expect("prepared");
                    update.run(team, set, table, &Sink::Store { into: gradient, add: false }, None);
                }
                sum
            })
        });
        if !sum.is_nan() {
            gradient.store(set, into);
        }
        sum
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
        let batch = self.batch(data.size(samples));
        self.prepare_top_down(batch, theta);
        self.theta.load(&mut self.set, theta);
        let Self { set, layers, batches, others, team, .. } = self;
        let (Batch { plan, top_down: prepared, .. }, gradient) = (&batches[batch], others.gradient.expect("prepared"));
        let (tiles, table) = prepared.as_ref().expect("prepared");
        let pass = Pass { layers: *layers, theta: self.theta, samples: data, first: 0, scale: a, watched: false };
        let update = Update { layers: *layers, tiles, samples };
        let workload = batches[batch].workload();
        team.enter(workload, |team| {
            team.step(workload, || {
                let mut done = plan.phases_until(Operation::Loss);
                pass.run_phases(0..done, plan, team, set, || ());
                let sum = sum(&plan.losses);
                if !team.wait_for(|| top_down.passed(sum)) {
                    return sum;
                }
                for t in (0..=theta.depth()).rev() {
                    if t < theta.depth() {
                        let until = plan.phases_until(Operation::Backward(t + 1));
                        pass.run_phases(done..until, plan, team, set, || top_down.meanwhile());
                        done = until;
                    }
                    update.layer_top_down(t, team, set, table, (gradient, into), top_down);
                }
                sum
            })
        })
    }

    /// Σ ℓ over `samples` samples, `batch` of them at a time.
    pub(crate) fn loss(&mut self, theta: &Parameters<F>, samples: usize, batch: usize, data: &AnySamples<F>) -> f64 {
        let rest = samples % batch;
        let full = self.loss_plan(data.size(batch));
        let ragged = if rest > 0 { self.loss_plan(data.size(rest)) } else { full };
        self.theta.load(&mut self.set, theta);
        let Self { set, layers, theta, loss_plans, team, .. } = self;
        let (full, ragged) = (&loss_plans[full], &loss_plans[ragged]);
        team.enter((samples / batch) * full.workload(), |team| {
            let mut sum = 0.0;
            for first in (0..samples).step_by(batch) {
                let plan = if first + batch <= samples { full } else { ragged };
                let pass = Pass { layers: *layers, theta: *theta, samples: data, first, scale: F::ONE, watched: false };
                sum += team.step(plan.workload(), || pass.run(plan, team, set));
            }
            sum
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
        if self.batches.len() > MOST_BATCHES {
            self.batches.clear();
        }
        let full = self.batch(data.size(batch));
        let ragged = if rest > 0 { self.batch(data.size(rest)) } else { full };
        self.load(theta, moments);
        let total = steps.len() * self.batches[full].workload();
        let mut team = std::mem::take(&mut self.team);
        // A loss or an observer may panic. The steps before that have been made, and θ has to show
        // them.
        let made = catch_unwind(AssertUnwindSafe(|| {
            team.enter(total, |team| {
                for step in steps {
                    let rule = policy.rule(step);
                    let index = if step < whole { full } else { ragged };
                    self.prepare(index, theta, &rule);
                    let samples = self.batches[index].plan.samples();
                    let workload = self.batches[index].workload();
                    let mut run = Step { engine: self, team, batch: index, data, first: step * batch, rule: &rule };
                    let made = team.step(workload, || run.make(&mut moments.bounds));
                    let (sum, norm) = made.map_err(|cause| Diverged { step, cause })?;
                    if policy.step_done(&StepReport { step, samples, sum, norm }).is_break() {
                        break;
                    }
                }
                Ok(())
            })
        }));
        self.team = team;
        self.store(theta, moments);
        made.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Copies θ and the moments into the set.
    fn load(&mut self, theta: &Parameters<F>, moments: &Moments<F>) {
        self.theta.load(&mut self.set, theta);
        while self.others.moments.len() < moments.arrays.len() {
            self.others.moments.push(Theta::push(&mut self.set, theta));
        }
        for (of, array) in self.others.moments.iter().zip(&moments.arrays) {
            of.load(&mut self.set, array);
        }
    }

    /// Copies θ and the moments out of the set.
    fn store(&self, theta: &mut Parameters<F>, moments: &mut Moments<F>) {
        self.theta.store(&self.set, theta);
        for (of, array) in self.others.moments.iter().zip(&mut moments.arrays) {
            of.store(&self.set, array);
        }
    }
}

/// One step, about to be made.
struct Step<'a, 's, F: Scalar> {
    engine: &'a mut NativeEngine<F>,
    team: &'a ActiveTeam<'a>,
    batch: usize,
    data: &'a AnySamples<'s, F>,
    /// The batch's first sample.
    first: usize,
    rule: &'a Rule,
}

impl<F: Scalar> Step<'_, '_, F> {
    /// Runs the pass, or both of SAM's, and the update. Returns Σ ℓ before the update, and ‖g‖ if
    /// the rule has it. `bounds` are there if overflow is watched.
    fn make(&mut self, bounds: &mut Option<OverflowBounds>) -> Result<(f64, Option<f64>), NotFinite> {
        let (watched, theta) = (bounds.is_some(), self.engine.theta);
        let scale = self.rule_scale();
        let sum = match self.rule.sam {
            None => NotFinite::check("loss", self.pass(theta, scale, watched))?,
            Some(rho) => {
                let sum = NotFinite::check("loss", self.pass(theta, self.mean(), false))?;
                self.pass_uphill(rho, scale, watched)?;
                sum
            }
        };
        let after = match bounds {
            None => return Ok((sum, self.update())),
            Some(bounds) => bounds.after::<F>(self.rule, self.samples(), self.squares(scale)),
        };
        if after.is_some() {
            *bounds = after;
            return Ok((sum, self.update()));
        }
        Ok((sum, self.update_watched(bounds)?))
    }

    fn samples(&self) -> usize {
        self.engine.batches[self.batch].plan.samples()
    }

    /// Whether the update is one product.
    fn is_plain(&self) -> bool {
        self.rule.optimizer == Optimizer::Sgd && self.rule.clip.is_none()
    }

    /// 1/B
    fn mean(&self) -> F {
        F::from_f64(1.0 / self.samples() as f64)
    }

    /// s, the factor on the derivative of the loss.
    fn rule_scale(&self) -> F {
        if self.is_plain() { F::from_f64(-self.rule.eta / self.samples() as f64) } else { self.mean() }
    }

    /// Fills the layers at θ, or at the point uphill. Returns Σ ℓ.
    fn pass(&mut self, theta: Theta, scale: F, watched: bool) -> f64 {
        let NativeEngine { set, layers, batches, .. } = &mut *self.engine;
        let pass = Pass { layers: *layers, theta, samples: self.data, first: self.first, scale, watched };
        pass.run(&batches[self.batch].plan, self.team, set)
    }

    /// Fills the layers at θ + ρ g/‖g‖, from the layers at θ.
    fn pass_uphill(&mut self, rho: f64, scale: F, watched: bool) -> Result<(), NotFinite> {
        let norm = NotFinite::check("gradient's norm", self.gradient_norm())?;
        let fine = uphill::is_in_range::<F>(rho, norm);
        let gradient = self.engine.others.gradient.expect("prepared");
        let length = if fine { norm } else { gradient.scale_to_1(&mut self.engine.set) };
        let step = uphill::step::<F>(rho, length);
        let uphill = self.engine.others.uphill.expect("prepared");
        let theta = self.engine.theta;
        let team = self.team;
        self.updates(|update, set, batch| {
            let table = batch.of_uphill.as_ref().expect("prepared");
            update.move_uphill(team, set, table, (theta, gradient, uphill), step);
        });
        NotFinite::check("loss at the point uphill", self.pass(uphill, scale, watched))?;
        Ok(())
    }

    /// Calls `work` with an update of this batch.
    fn updates<R>(&mut self, work: impl FnOnce(Update, &mut PanelSet<F>, &Batch) -> R) -> R {
        let NativeEngine { set, layers, batches, .. } = &mut *self.engine;
        let batch = &batches[self.batch];
        let samples = batch.plan.samples();
        work(Update { layers: *layers, tiles: &batch.tiles, samples }, set, batch)
    }

    /// Stores the gradient, multiplied by s B, and returns its norm.
    fn gradient_norm(&mut self) -> f64 {
        let into = self.engine.others.gradient.expect("prepared");
        let team = self.team;
        self.updates(|update, set, batch| {
            let table = batch.of_gradient.as_ref().expect("prepared");
            update.run(team, set, table, &Sink::Store { into, add: false }, Some(&batch.squares));
            sum(&batch.squares).sqrt()
        })
    }

    /// The sum of the squares of all z and δ of the last watched pass, with δ as it is without the
    /// factor s.
    fn squares(&self, scale: F) -> f64 {
        self.engine.batches[self.batch].plan.squares(scale.to_f64())
    }

    /// θ and the moments ← the rule. Returns ‖g‖ if the rule has it.
    fn update(&mut self) -> Option<f64> {
        let theta = self.engine.theta;
        let moments = self.rule.optimizer.moments();
        if self.is_plain() {
            let [beta, beta_of_biases] = [self.rule.decay.beta, self.rule.beta_of_biases()].map(F::from_f64);
            let sink = Sink::Plain { theta, beta, beta_of_biases };
            // The layers have the factor −η.
            let norm = self.rule.norm.then(|| self.gradient_norm() / self.rule.eta);
            let gradient = self.engine.others.gradient;
            let team = self.team;
            self.updates(|update, set, batch| {
                let table = batch.of_theta[0].as_ref().expect("prepared");
                match (norm, gradient) {
                    // The gradient is there already, with the bits that the product would add.
                    (Some(_), Some(gradient)) => update.take_stored(team, set, table, gradient, &sink),
                    _ => update.run(team, set, table, &sink, None),
                }
            });
            return norm;
        }
        let norm = self.rule.clip.is_some().then(|| self.gradient_norm());
        let clip = match (norm, self.rule.clip) {
            (Some(norm), Some(limit)) if norm > limit => limit / norm,
            _ => 1.0,
        };
        let mut of = self.engine.others.moments[..moments].iter().copied();
        let moment_matrices = [of.next(), of.next()];
        let of_w = self.rule.coefficients(clip);
        let coefficients = [of_w, of_w.of_biases()];
        let sink = Sink::Rule { theta, moments: moment_matrices, coefficients };
        let gradient = self.engine.others.gradient;
        let asked = self.rule.norm;
        let team = self.team;
        self.updates(|update, set, batch| {
            let table = batch.of_theta[moments].as_ref().expect("prepared");
            match (norm, gradient) {
                (Some(norm), Some(gradient)) => {
                    update.take_stored(team, set, table, gradient, &sink);
                    Some(norm)
                }
                _ => {
                    update.run(team, set, table, &sink, asked.then_some(&batch.squares[..]));
                    asked.then(|| sum(&batch.squares).sqrt())
                }
            }
        })
    }

    /// An update that may overflow: θ and the moments are put back if it has.
    fn update_watched(&mut self, bounds: &mut Option<OverflowBounds>) -> Result<Option<f64>, NotFinite> {
        let moments = self.rule.optimizer.moments();
        let all = [&[self.engine.theta], &self.engine.others.moments[..moments]].concat();
        let before: Vec<Vec<Panels<F>>> = all.iter().map(|of| of.copied(&self.engine.set)).collect();
        let norm = self.update();
        let set = &mut self.engine.set;
        let check = || {
            norm.map_or(Ok(0.0), |norm| NotFinite::check("gradient's norm", norm))?;
            for (i, of) in all.iter().enumerate() {
                let what = if i == 0 { "parameters" } else { "optimizer's moments" };
                of.find_not_finite(set).map_or(Ok(0.0), |found| NotFinite::check(what, found))?;
            }
            Ok(())
        };
        if let Err(not_finite) = check() {
            all.iter().zip(before).for_each(|(of, before)| of.put_back(set, before));
            return Err(not_finite);
        }
        let largest: Vec<f64> = all.iter().map(|of| of.largest(set)).collect();
        *bounds = Some(OverflowBounds::of_largest(largest[0], &largest[1..]));
        Ok(norm)
    }
}
