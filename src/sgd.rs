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

use ndarray::ArrayView2;
use rand::seq::SliceRandom;
use rand_chacha::rand_core::SeedableRng;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::loss::{Loss, Targets, check_targets};
use crate::network::{Generator, Mlp};
use crate::scalar::Scalar;
use crate::threads::one_blas_thread;

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
    generator: Generator,
    epochs_done: usize,
    order: Vec<usize>,
    engine: Option<Engine<F>>,
}

impl<F: Scalar> Sgd<F> {
    /// # Errors
    /// [`Error::EmptyBatch`] for a batch of 0; [`Error::Hyperparameter`] unless η is finite and positive.
    pub fn new(batch: usize, eta: f64, seed: u64) -> Result<Self> {
        if batch == 0 {
            return Err(Error::EmptyBatch);
        }
        if !(eta.is_finite() && eta > 0.0) {
            return Err(Error::Hyperparameter { name: "eta", expected: "a finite, positive number", found: eta });
        }
        let generator = Generator::seed_from_u64(seed);
        Ok(Self { batch, eta, generator, epochs_done: 0, order: Vec::new(), engine: None })
    }

    /// Trains for some epochs. Returns each one's loss: the mean of ℓ over its samples, each taken when its batch came, that
    /// is before the update with it. Two calls of 5 epochs are one of 10, bit for bit.
    ///
    /// # Errors
    /// What does not fit in x or y is refused before anything is changed. [`Error::Diverged`] when a batch's loss is not
    /// finite: the network is then as it was before that batch.
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
        let y = y.as_standard_layout();
        let _one = one_blas_thread()?;
        let samples = x.nrows();
        let capacity = self.batch.min(samples);
        let mut engine = match self.engine.take() {
            Some(engine) if engine.fits(mlp, capacity) => engine,
            _ => Engine::new(mlp, capacity),
        };
        let mut history = Vec::with_capacity(epochs);
        let mut outcome = Ok(());
        while history.len() < epochs && outcome.is_ok() {
            self.shuffle(samples);
            let mut sum = 0.0;
            for (step, batch) in self.order.chunks(self.batch).enumerate() {
                let batch_sum = engine.forward_and_deltas(
                    mlp.parameters(),
                    x,
                    batch.len(),
                    |i| batch[i],
                    |i, y_hat, dy| {
                        loss.value_and_derivative(y_hat, y.row(i).to_slice().expect("row-major"), dy).to_f64()
                    },
                );
                if !batch_sum.is_finite() {
                    outcome = Err(Error::Diverged { epoch: self.epochs_done, step, found: batch_sum });
                    break;
                }
                let a = F::from_f64(-self.eta / batch.len() as f64);
                engine.gradient(batch.len(), a, F::ONE, mlp.parameters_mut());
                sum += batch_sum;
            }
            history.push(sum / samples as f64);
            self.epochs_done += 1;
        }
        self.engine = Some(engine);
        outcome.map(|()| history)
    }

    /// A fresh order for the next epoch, from the identity, so that it depends on the generator alone.
    fn shuffle(&mut self, samples: usize) {
        self.order.clear();
        self.order.extend(0..samples);
        self.order.shuffle(&mut self.generator);
    }
}
