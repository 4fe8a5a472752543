//! Gradients for a training loop of the caller's own.

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::engine::gradient::sum_of_gradients;
use crate::error::Result;
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::train::dataset::Dataset;
use crate::train::model::ModelRef;

/// The gradient of the mean loss of a batch, for a training loop of one's own: in buffers that are
/// made once, on the engine that trains.
///
/// ```
/// use gemmprop::{Bias, Dataset, Gradients, Mlp, SquaredError};
/// use gemmprop::ndarray::array;
///
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// let mut mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
/// let mut gradients = Gradients::new(&mlp);
/// for _ in 0..500 {
///     gradients.compute(&mlp, Dataset::new(&x, &y), &SquaredError)?; // returns the mean loss
///     mlp.parameters_mut().scaled_add(-0.3, gradients.get())?; // θ ← θ − 0.3 g
/// }
/// assert!((mlp.predict_one(&x)?[2] - 5.0).abs() < 1e-6);
/// # Ok::<(), gemmprop::Error>(())
/// ```
///
/// A call allocates nothing once a batch of its size, or of its size and a larger one, has been
/// seen, as long as there are at most 16 sizes, except to call a helper.
#[derive(Debug)]
pub struct Gradients<F: Scalar> {
    engine: Option<Engine<F>>,
    /// The sizes of the batches that the engine has plans for.
    sizes: Vec<usize>,
    g: Parameters<F>,
}

/// The number of sizes of batches above which the engine, which has a plan for each, is made anew.
const MOST_SIZES: usize = 16;

impl<F: Scalar> Gradients<F> {
    /// A gradient of 0 for networks of this shape.
    #[must_use]
    pub fn new(mlp: &Mlp<F>) -> Self {
        Self { engine: None, sizes: Vec::with_capacity(MOST_SIZES), g: mlp.zero_gradient() }
    }

    /// g = (1/B) Σ wᵢ ∇θ ℓ(ŷᵢ, yᵢ) over a batch of any size B, with wᵢ = 1 unless the data have
    /// weights. The model is a [`&Model`](crate::Model), whose standardisation is applied to x, or
    /// an [`&Mlp`](Mlp) that reads x as it is. Returns the mean w ℓ, which is infinite if a loss
    /// exceeds the range of the number type.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a network of another shape; data that do not fit,
    /// as in [`Trainer::fit`](crate::Trainer::fit); [`Error::Output`](crate::Error::Output) for a ŷ
    /// that is not finite; [`Error::Diverged`](crate::Error::Diverged) for a loss of NaN. The
    /// gradient is unchanged then.
    pub fn compute<'m, L: Loss<F>>(
        &mut self,
        model: impl Into<ModelRef<'m, F>>,
        data: Dataset<'_, F, L::Target>,
        loss: &L,
    ) -> Result<f64> {
        let model = model.into();
        let ModelRef { mlp, standardizer } = model;
        model.check()?;
        mlp.parameters().check_same_shape(&self.g)?;
        data.check(mlp, loss)?;
        let _one_blas_thread = one_blas_thread()?;
        let samples = data.samples();
        if !self.sizes.contains(&samples) {
            if self.sizes.len() == MOST_SIZES {
                (self.engine, self.sizes) = (None, Vec::with_capacity(MOST_SIZES));
            }
            self.sizes.push(samples);
        }
        let engine = Engine::kept(&mut self.engine, mlp, samples, is_native(mlp, samples, samples));
        let prepared = data.prepared();
        let read = prepared.samples(None, standardizer, loss);
        let mean = F::from_f64(1.0 / samples as f64);
        Ok(sum_of_gradients(engine, mlp, samples, &read, mean, &mut self.g)? / samples as f64)
    }

    /// The gradient that was computed last.
    #[must_use]
    pub fn get(&self) -> &Parameters<F> {
        &self.g
    }
}
