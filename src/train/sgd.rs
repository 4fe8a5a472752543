//! Mini-batch stochastic gradient descent, as the lecture writes it.
//!
//! ```text
//! for each epoch:
//!     shuffle the samples, split them into n/B batches
//!     for each batch:
//!         g = (1/B) Σ ∇θ ℓ(h_θ(x), y)
//!         θ ← θ − η g
//! ```
//!
//! A last, smaller batch is averaged over its own size.

use std::ops::ControlFlow;

use ndarray::ArrayView2;
use rand::seq::SliceRandom;

use crate::engine::samples::Samples;
use crate::engine::step::{Batches, Diverged, Engine, StepPolicy, StepReport};
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, Targets, check_targets, sample_loss};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::optim::optimizer::{Decay, Moments, Optimizer, Rule, check_not_0};
use crate::random::{Generator, Stream, generator};

/// A run of stochastic gradient descent: batch size B, learning rate η, the generator of the shuffles, and the buffers of a
/// step, made at the first one.
///
/// ```
/// use gemmprop::{Constant, Mlp, Sgd, SquaredError};
/// use ndarray::array;
///
/// let mut mlp = Mlp::<f64>::he(&[1, 1], Constant::Absent, 0)?;
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// Sgd::new(2, 0.1, 0)?.train(&mut mlp, x.view(), y.view(), &SquaredError, 500)?;
/// assert!((mlp.parameters().alpha()[(0, 0)] - 2.0).abs() < 1e-6);
/// assert!((mlp.parameters().b()[0] - 1.0).abs() < 1e-6);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Sgd<F> {
    batch: usize,
    eta: f64,
    lambda: f64,
    /// Weight decay that is still to be applied.
    decay: f64,
    generator: Generator,
    epochs_done: usize,
    order: Vec<usize>,
    engine: Option<Engine<F>>,
    /// θ as it was some steps before.
    before: Option<Parameters<F>>,
    /// The mean loss of the last step.
    last: Option<f64>,
}

impl<F: Scalar> Sgd<F> {
    /// # Errors
    /// [`Error::EmptyBatch`] for a batch of 0; [`Error::Hyperparameter`] unless η is finite and
    /// positive, in F as well.
    pub fn new(batch: usize, eta: f64, seed: u64) -> Result<Self> {
        if batch == 0 {
            return Err(Error::EmptyBatch);
        }
        if !(eta.is_finite() && eta > 0.0) {
            return Err(Error::Hyperparameter { name: "eta", expected: "a finite, positive number", found: eta });
        }
        check_not_0::<F>("eta", eta)?;
        Ok(Self {
            batch,
            eta,
            lambda: 0.0,
            decay: 0.0,
            generator: generator(seed, Stream::Shuffles),
            epochs_done: 0,
            order: Vec::new(),
            engine: None,
            before: None,
            last: None,
        })
    }

    /// With weight decay λ: θ ← (1 − ηλ) θ − ηg for all of θ, constants included. It is gradient
    /// descent on ℓ + (λ/2) ‖θ‖² (Krogh and Hertz 1991, *A simple weight decay can improve
    /// generalization*), and costs nothing: the factor is the β of the product that makes the
    /// update. Exact however small ηλ is: [`Optimizer`](crate::Optimizer) has the equations. The
    /// losses given back are those without the penalty.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless 0 ≤ λ < 1/η.
    pub fn weight_decay(self, lambda: f64) -> Result<Self> {
        if lambda >= 0.0 && self.eta * lambda < 1.0 {
            Ok(Self { lambda, ..self })
        } else {
            Err(Error::Hyperparameter { name: "lambda", expected: "a number from 0 to below 1/eta", found: lambda })
        }
    }

    /// Trains for some epochs. Returns each one's loss: the mean of ℓ over its samples, each taken when its batch came, that
    /// is before the update with it. Two calls of 5 epochs are one of 10, bit for bit.
    ///
    /// # Errors
    /// What does not fit in x or y is refused before anything is changed. [`Error::Diverged`] when
    /// a batch's loss is not finite, or the parameters after it would not be: the network is then
    /// as it was before that batch. (An infinity that the caller has put among them may be found only
    /// where it reaches the loss, or after some steps.)
    pub fn train<'y, L: Loss<F>>(
        &mut self,
        mlp: &mut Mlp<F>,
        x: ArrayView2<F>,
        y: impl Targets<'y, L::Target>,
        loss: &L,
        epochs: usize,
    ) -> Result<Vec<f64>>
    where
        L::Target: 'y,
    {
        mlp.check_batch(x)?;
        let y = y.rows();
        check_targets(loss, y, x.nrows(), mlp.outputs())?;
        let _one = one_blas_thread()?;
        let (samples, y) = (x.nrows(), row_major(y));
        let batch = self.batch.min(samples);
        let mut history = Vec::with_capacity(epochs);
        for _ in 0..epochs {
            self.shuffle(samples);
            let epoch = self.epochs_done;
            self.epochs_done += 1;
            let (loss, order) = (sample_loss(loss, y.view()), Some(self.order.as_slice()));
            let data = Samples { x, order, standardize: None, weights: None, loss };
            let mut steps = Plain::of(self.eta, self.lambda, self.decay, self.last);
            let engine = Engine::kept(&mut self.engine, mlp, batch);
            let batches = Batches { samples, batch, steps: 0..samples.div_ceil(batch) };
            let made = descend(engine, mlp.theta_mut(), &mut self.before, batches, &data, &mut steps);
            (self.last, self.decay) = (steps.last, steps.decay);
            made.map_err(|diverged| diverged.error(Some(epoch), steps.last))?;
            history.push(steps.sum / samples as f64);
        }
        Ok(history)
    }

    /// SingleStep step with the batch x, of any size: θ ← θ − η (1/B) Σ ∇θ ℓ. Returns the mean ℓ before it. Allocates nothing once a
    /// batch of that size, or of that size and a larger one, has been seen. (Without the feature `blas`, the products do; and
    /// rayon boxes a job when a helper has to be called.)
    ///
    /// # Errors
    /// As [`train`](Self::train); the network is unchanged then.
    pub fn step<'y, L: Loss<F>>(
        &mut self,
        mlp: &mut Mlp<F>,
        x: ArrayView2<F>,
        y: impl Targets<'y, L::Target>,
        loss: &L,
    ) -> Result<f64>
    where
        L::Target: 'y,
    {
        mlp.check_batch(x)?;
        let y = y.rows();
        check_targets(loss, y, x.nrows(), mlp.outputs())?;
        let _one = one_blas_thread()?;
        let (samples, y) = (x.nrows(), row_major(y));
        let data = Samples { x, order: None, standardize: None, weights: None, loss: sample_loss(loss, y.view()) };
        let mut steps = Plain::of(self.eta, self.lambda, self.decay, self.last);
        let engine = Engine::kept(&mut self.engine, mlp, samples);
        let batches = Batches { samples, batch: samples, steps: 0..1 };
        let made = descend(engine, mlp.theta_mut(), &mut self.before, batches, &data, &mut steps);
        (self.last, self.decay) = (steps.last, steps.decay);
        made.map_err(|diverged| diverged.error(None, steps.last))?;
        Ok(steps.sum / samples as f64)
    }

    /// A fresh order for the next epoch, from the identity, so that it depends on the generator alone.
    fn shuffle(&mut self, samples: usize) {
        self.order.clear();
        self.order.extend(0..samples);
        self.order.shuffle(&mut self.generator);
    }
}

/// StepPolicy after which θ is looked at.
const LOOK: usize = 256;

/// StepPolicy after which θ is finite, if it was before: it is as before the first step after which it would not be.
///
/// The engine watches for that, and sums up the squares of all z and δ of each step, which is no trifle beside the products of a small
/// network. A copy of θ now and then, and a look at it later, cost less where there are steps enough; in the one case in a million
/// in which it is not finite then, the steps since are made again, watched.
fn descend<F: Scalar, L: SampleLoss<F>>(
    engine: &mut Engine<F>,
    theta: &mut Parameters<F>,
    before: &mut Option<Parameters<F>>,
    Batches { samples, batch, steps }: Batches,
    data: &Samples<F, L>,
    plain: &mut Plain,
) -> std::result::Result<(), Diverged> {
    // The copy and the look, beside what the steps until then would sum up.
    if 2 * theta.count() > engine.numbers(batch).saturating_mul(steps.len().min(LOOK)) {
        return engine.descend(theta, &mut Moments::none(), Batches { samples, batch, steps }, data, plain);
    }
    let before = before.get_or_insert_with(|| theta.clone());
    if !before.has_shape_of(theta) {
        before.clone_from(theta);
    }
    for first in steps.clone().step_by(LOOK) {
        let steps = first..(first + LOOK).min(steps.end);
        before.assign(theta);
        let plain_before = *plain;
        let mut made = engine.descend(
            theta,
            &mut Moments::unwatched(),
            Batches { samples, batch, steps: steps.clone() },
            data,
            plain,
        );
        if !theta.all_finite() {
            theta.assign(before);
            *plain = plain_before;
            let mut moments = Moments::none();
            if !theta.all_finite() {
                // The caller's, and not of these steps: the first of them says so.
                moments.reset_bounds(theta);
            }
            made = engine.descend(theta, &mut moments, Batches { samples, batch, steps }, data, plain);
        }
        made?;
    }
    Ok(())
}

/// The same rule at every step; the sum of the losses.
#[derive(Debug, Clone, Copy)]
struct Plain {
    eta: f64,
    lambda: f64,
    /// Pending, after the last step and after the one that is being made.
    decay: f64,
    next: f64,
    sum: f64,
    last: Option<f64>,
}

impl Plain {
    fn of(eta: f64, lambda: f64, decay: f64, last: Option<f64>) -> Self {
        Self { eta, lambda, decay, next: decay, sum: 0.0, last }
    }
}

impl<F: Scalar> StepPolicy<F> for Plain {
    fn rule(&mut self, _step: usize) -> Rule {
        let decay = Decay::next::<F>(self.eta, self.lambda, self.decay);
        self.next = decay.pending;
        Rule { optimizer: Optimizer::Sgd, eta: self.eta, decay, step: 1, clip: None, sam: None, norm: false }
    }

    fn step_done(&mut self, made: &StepReport) -> ControlFlow<()> {
        self.decay = self.next;
        self.sum += made.sum;
        self.last = Some(made.sum / made.samples as f64);
        ControlFlow::Continue(())
    }
}
