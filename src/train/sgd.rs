//! Mini-batch stochastic gradient descent.
//!
//! ```text
//! for each epoch:
//!     shuffle the samples, split them into n/B batches
//!     for each batch:
//!         g = (1/B) Σ ∇θ ℓ(h_θ(x), y)
//!         θ ← θ − η g
//! ```
//!
//! If the last batch is smaller, it is averaged over its own size.

use std::ops::ControlFlow;

use ndarray::ArrayView2;
use rand::seq::SliceRandom;

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, Targets, check_targets, sample_loss};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::optim::hyperparameter::{check, check_not_0, check_positive};
use crate::optim::moments::Moments;
use crate::optim::optimizer::Optimizer;
use crate::optim::rule::{Rule, WeightDecay};
use crate::random::{Generator, Stream, generator};
use crate::steps::policy::{Batches, Diverged, StepPolicy, StepReport};
use crate::steps::samples::Samples;

/// A run of stochastic gradient descent: batch size B, learning rate η, the generator of the
/// shuffles, and the buffers of a step, which are allocated at the first one.
///
/// ```
/// use gemmprop::{Bias, Mlp, Sgd, SquaredError};
/// use ndarray::array;
///
/// let mut mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// Sgd::new(2, 0.1, 0)?.train(&mut mlp, &x, &y, &SquaredError, 500)?;
/// assert!((mlp.parameters().alpha()[(0, 0)] - 2.0).abs() < 1e-6);
/// assert!((mlp.parameters().b()[0] - 1.0).abs() < 1e-6);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Sgd<F: Scalar> {
    batch: usize,
    generator: Generator,
    epochs_done: usize,
    order: Vec<usize>,
    descent: Descent<F>,
}

/// A clone goes on with the same bits; it has buffers of its own, made at its first step.
impl<F: Scalar> Clone for Sgd<F> {
    fn clone(&self) -> Self {
        let Self { batch, generator, epochs_done, order: _, descent } = self;
        let descent = Descent { steps: descent.steps, engine: None, snapshot: None };
        Self { batch: *batch, generator: generator.clone(), epochs_done: *epochs_done, order: Vec::new(), descent }
    }
}

impl<F: Scalar> Sgd<F> {
    /// A run with batches of B = `batch` samples and learning rate η = `eta`, without weight decay.
    /// The shuffles are drawn from `seed`.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] for a batch of 0; [`Error::Hyperparameter`] unless η is finite and
    /// positive, in F as well.
    pub fn new(batch: usize, eta: f64, seed: u64) -> Result<Self> {
        if batch == 0 {
            return Err(Error::EmptyBatch);
        }
        check_positive("eta", eta)?;
        check_not_0::<F>("eta", eta)?;
        let steps = SgdSteps { eta, decay_biases: true, ..SgdSteps::default() };
        Ok(Self {
            batch,
            generator: generator(seed, Stream::Shuffles),
            epochs_done: 0,
            order: Vec::new(),
            descent: Descent { steps, engine: None, snapshot: None },
        })
    }

    /// Adds weight decay λ: θ ← (1 − ηλ) θ − ηg for all of θ, constants included. This is gradient
    /// descent on ℓ + (λ/2) ‖θ‖² (Krogh and Hertz 1991, *A simple weight decay can improve
    /// generalization*). It costs nothing, as the factor is the β of the product that makes the
    /// update, and it is exact however small ηλ is ([`Optimizer`](crate::Optimizer) has the
    /// equations). The returned losses are those without the penalty.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless 0 ≤ λ < 1/η.
    pub fn weight_decay(mut self, lambda: f64) -> Result<Self> {
        let is_valid = WeightDecay::is_valid(self.descent.steps.eta, lambda);
        check(is_valid, "lambda", "a number from 0 to below 1/eta", lambda)?;
        self.descent.steps.lambda = lambda;
        Ok(self)
    }

    /// Whether the weight decay acts on c and b too; by default it does. Otherwise it acts on the
    /// matrices w and alpha alone.
    #[must_use]
    pub fn decay_biases(mut self, decay_biases: bool) -> Self {
        self.descent.steps.decay_biases = decay_biases;
        self
    }

    /// Changes η from the next step on.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless η is finite and positive, in F as well, and below 1/λ;
    /// nothing is changed then.
    pub fn set_learning_rate(&mut self, eta: f64) -> Result<()> {
        check_positive("eta", eta)?;
        check_not_0::<F>("eta", eta)?;
        check(WeightDecay::is_valid(eta, self.descent.steps.lambda), "eta", "a number below 1/lambda", eta)?;
        self.descent.steps.eta = eta;
        Ok(())
    }

    /// Trains for `epochs` epochs on samples x: (n, `d[0]`) with n targets y. Returns the loss of
    /// each epoch: the mean of ℓ over its samples, each evaluated before the step with its batch.
    /// Two calls of 5 epochs are one of 10, bit for bit.
    ///
    /// # Errors
    /// Data that do not fit are refused before anything is changed. [`Error::Diverged`] when the
    /// loss of a batch is not finite, or the parameters after its step would not be: the network is
    /// then as it was before that step. (An infinity that the caller has put among the parameters
    /// may be found only where it reaches the loss, or after some steps.)
    pub fn train<'x, 'y, L: Loss<F>>(
        &mut self,
        mlp: &mut Mlp<F>,
        x: impl Into<ArrayView2<'x, F>>,
        y: impl Targets<'y, L::Target>,
        loss: &L,
        epochs: usize,
    ) -> Result<Vec<f64>>
    where
        L::Target: 'y,
    {
        let (x, y) = (x.into(), y.rows());
        mlp.check_batch(x)?;
        check_targets(loss, y, x.nrows(), mlp.outputs())?;
        let _one_blas_thread = one_blas_thread()?;
        let (samples, y) = (x.nrows(), row_major(y));
        let batch = self.batch.min(samples);
        let mut history = Vec::with_capacity(epochs);
        for _ in 0..epochs {
            self.shuffle(samples);
            let epoch = self.epochs_done;
            self.epochs_done += 1;
            let (order, cost) = (Some(self.order.as_slice()), loss.cost());
            let loss = sample_loss(loss, y.view());
            let data = Samples { x, order, standardize: None, weights: None, loss, cost };
            history.push(self.descent.run(mlp, &data, Batches { samples, batch }, Some(epoch))?);
        }
        Ok(history)
    }

    /// Makes one step with a batch x of any size: θ ← (1 − ηλ) θ − η (1/B) Σ ∇θ ℓ. Returns the mean
    /// ℓ before it. It allocates nothing once a batch of that size, or of that size and a larger
    /// one, has been seen. (But rayon boxes a job when a helper has to be called.)
    ///
    /// # Errors
    /// As [`train`](Self::train); the network is unchanged then.
    pub fn step<'x, 'y, L: Loss<F>>(
        &mut self,
        mlp: &mut Mlp<F>,
        x: impl Into<ArrayView2<'x, F>>,
        y: impl Targets<'y, L::Target>,
        loss: &L,
    ) -> Result<f64>
    where
        L::Target: 'y,
    {
        let (x, y) = (x.into(), y.rows());
        mlp.check_batch(x)?;
        check_targets(loss, y, x.nrows(), mlp.outputs())?;
        let _one_blas_thread = one_blas_thread()?;
        let (samples, y) = (x.nrows(), row_major(y));
        let (cost, loss) = (loss.cost(), sample_loss(loss, y.view()));
        let data = Samples { x, order: None, standardize: None, weights: None, loss, cost };
        self.descent.run(mlp, &data, Batches { samples, batch: samples }, None)
    }

    /// Makes the order of the next epoch, starting from the identity, so that it depends on the
    /// generator alone.
    fn shuffle(&mut self, samples: usize) {
        self.order.clear();
        self.order.extend(0..samples);
        self.order.shuffle(&mut self.generator);
    }
}

/// The number of steps after which a run looks at θ.
const STEPS_BETWEEN_LOOKS: usize = 256;

/// What makes the steps: their rule, the engine that is kept between calls, and a way back.
///
/// θ must be finite after each step, or be as it was before the first step that would make it
/// otherwise. The engine can prove that for each step in advance, from the sum of the squares of
/// all z and δ, which takes a noticeable part of the time of a small network's step. Where there
/// are enough steps, it is cheaper to copy θ, to make the steps without that proof, and to look at
/// θ afterwards; in the rare case that it is not finite then, the steps are made again from the
/// copy, with the proof.
#[derive(Debug)]
struct Descent<F: Scalar> {
    steps: SgdSteps,
    engine: Option<Engine<F>>,
    snapshot: Option<Parameters<F>>,
}

impl<F: Scalar> Descent<F> {
    /// Makes a step with each batch of `data`. Returns the mean ℓ. `epoch` is named in errors, and
    /// is none for a single step.
    fn run<L: SampleLoss<F>>(
        &mut self,
        mlp: &mut Mlp<F>,
        data: &Samples<F, L>,
        batches: Batches,
        epoch: Option<usize>,
    ) -> Result<f64> {
        self.steps.loss_sum = 0.0;
        let engine = Engine::kept(&mut self.engine, mlp, batches.batch, is_native(mlp, batches.batch, batches.samples));
        let theta = mlp.theta_mut();
        let copy_and_look = 2 * theta.count();
        let sums_of_squares = engine.numbers(batches.batch).saturating_mul(batches.count().min(STEPS_BETWEEN_LOOKS));
        let made = if copy_and_look > sums_of_squares {
            let range = 0..batches.count();
            engine.descend(theta, &mut Moments::none(), batches, range, data, &mut self.steps)
        } else {
            let snapshot = self.snapshot.get_or_insert_with(|| theta.clone());
            if !snapshot.has_shape_of(theta) {
                snapshot.clone_from(theta);
            }
            descend_and_look(engine, theta, snapshot, data, batches, &mut self.steps)
        };
        made.map_err(|diverged| diverged.error(epoch, self.steps.last_loss))?;
        Ok(self.steps.loss_sum / batches.samples as f64)
    }
}

/// Makes the steps without a proof that they are finite, and makes those before a look again if it
/// finds θ otherwise.
fn descend_and_look<F: Scalar, L: SampleLoss<F>>(
    engine: &mut Engine<F>,
    theta: &mut Parameters<F>,
    snapshot: &mut Parameters<F>,
    data: &Samples<F, L>,
    batches: Batches,
    steps: &mut SgdSteps,
) -> std::result::Result<(), Diverged> {
    for first in (0..batches.count()).step_by(STEPS_BETWEEN_LOOKS) {
        let range = first..(first + STEPS_BETWEEN_LOOKS).min(batches.count());
        // Copy.
        snapshot.assign(theta);
        let steps_before = *steps;
        let made = engine.descend(theta, &mut Moments::unwatched(), batches, range.clone(), data, steps);
        // Look.
        if theta.all_finite() {
            made?;
            continue;
        }
        // Redo, with a proof for each step.
        theta.assign(snapshot);
        *steps = steps_before;
        let mut moments = Moments::none();
        if !theta.all_finite() {
            // The caller has put an infinity there, which the first step is to report.
            moments.reset_bounds(theta);
        }
        engine.descend(theta, &mut moments, batches, range, data, steps)?;
    }
    Ok(())
}

/// The steps of plain descent: one rule for all, and what it carries from step to step.
#[derive(Debug, Clone, Copy, Default)]
struct SgdSteps {
    eta: f64,
    lambda: f64,
    decay_biases: bool,
    /// Weight decay that is still to be applied.
    pending_decay: f64,
    /// Weight decay that will be pending after the step that is being made.
    next_pending_decay: f64,
    /// Σ ℓ over the samples of the running epoch or single step.
    loss_sum: f64,
    /// Mean ℓ of the last step.
    last_loss: Option<f64>,
}

impl<F: Scalar> StepPolicy<F> for SgdSteps {
    fn rule(&mut self, _step: usize) -> Rule {
        let decay = WeightDecay::next::<F>(self.eta, self.lambda, self.pending_decay);
        self.next_pending_decay = decay.pending;
        Rule {
            optimizer: Optimizer::Sgd,
            eta: self.eta,
            decay,
            decay_biases: self.decay_biases,
            step: 1,
            clip: None,
            sam: None,
            norm: false,
        }
    }

    fn step_done(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.pending_decay = self.next_pending_decay;
        self.loss_sum += report.sum;
        self.last_loss = Some(report.sum / report.samples as f64);
        ControlFlow::Continue(())
    }
}
