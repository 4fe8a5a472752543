//! Products of the Hessian of a mean loss with a direction, exact and without the Hessian: the
//! R-operator.
//!
//! ```text
//! L(θ) = (1/n) Σ w_i ℓ(ŷ_i, y_i)                  w_i = 1 unless given
//! R f = d/ds f(θ + s v) at s = 0                  v = [v[0], v_c[0], …], shaped like θ
//! R Z[0] = 0
//! R Z[t+1] = (Z[t] v[t]ᵀ + R Z[t] w[t]ᵀ + 1 v_c[t]ᵀ) ⊙ 1[Z[t+1] > 0]   R Ŷ (t = T) has no mask
//! R ∂ℓ/∂ŷ = w_i (∂²ℓ/∂ŷ²) R ŷ                             each sample's, the last row of the R Δ
//! R Δ[t] = (Δ[t+1] v[t] + R Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
//! (H v)[t] = (1/n) (R Δ[t+1]ᵀ Z[t] + Δ[t+1]ᵀ R Z[t])       (H v)_c[t] = (1/n) R Δ[t+1]ᵀ 1
//! ```
//!
//! Pearlmutter 1994, *Fast exact multiplication by the Hessian*. The masks stay, for ReLU″ = 0
//! almost everywhere: where a u is exactly 0, H is that of the side which ReLU′(0) = 0 chooses.
//!
//! Z and Δ are made once and kept. A product then costs 6E − 4 d\[0\] d\[1\] multiplications a
//! sample, E = Σ d\[t\] d\[t+1\] with the head's; a gradient costs 3E − d\[0\] d\[1\]. R Z and R Δ
//! are laid out as Z and Δ are, so both run on the same tiles. Which engine does it, the network's
//! [`Products`](crate::Products) say.

#[cfg(feature = "blas")]
use crate::curvature::inputs::BLOCK;
use crate::curvature::inputs::Inputs;
use crate::curvature::native_tangents::NativePasses;
#[cfg(feature = "blas")]
use crate::curvature::tangents::BlasPasses;
#[cfg(feature = "blas")]
use crate::engine::choice::is_native;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, TwiceDifferentiable};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::train::dataset::Dataset;
use crate::train::model::ModelRef;

/// The Hessian of the mean loss of a model over data, as an operator; the loss and the gradient
/// come with it.
///
/// The loss is the one that a [`Trainer`](crate::Trainer) minimises: with inputs standardised by
/// the model, and with the weights of the data. It borrows the model, so θ cannot change under it.
/// In memory, beside what it borrows: Z and Δ of all samples, 2 (d\[1\] + … + d\[T\] + m) numbers
/// each, and as much again for up to 2048 of them. Native products keep x as well, and Z twice for
/// layers with more than half as many neurons as 2048 or all samples, whichever are fewer.
///
/// ```
/// use gemmprop::{Bias, Dataset, Mlp, SoftmaxCrossEntropy, curvature::Hessian};
/// use ndarray::array;
///
/// let mlp = Mlp::<f64>::he(&[2, 16, 2], Bias::Input, 1)?;
/// let (x, labels) = (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![0, 1, 1, 0]);
/// let data = Dataset::new(&x, &labels);
/// let mut hessian = Hessian::new(&mlp, data, &SoftmaxCrossEntropy)?;
/// // gᵀ H g: how the loss bends along its gradient.
/// let (g, mut hg) = (hessian.gradient().clone(), mlp.zero_gradient());
/// hessian.apply(&g, &mut hg)?;
/// let bend: f64 = g.iter().zip(hg.iter()).map(|(g, hg)| g * hg).sum();
/// assert!(bend.is_finite() && hessian.loss() > 0.0);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Hessian<'a, F, L: Loss<F>>
where
    F: Scalar,
{
    mlp: &'a Mlp<F>,
    inputs: Inputs<'a, F, L::Target>,
    loss: &'a L,
    passes: Passes<F>,
    value: f64,
    gradient: Parameters<F>,
}

/// The forward and backward passes that all products share, on the engine of the network.
#[derive(Debug)]
enum Passes<F: Scalar> {
    #[cfg(feature = "blas")]
    Blas(BlasPasses<F>),
    Native(NativePasses<F>),
}

impl<'a, F: Scalar, L: TwiceDifferentiable<F>> Hessian<'a, F, L> {
    /// Makes the forward and backward passes that all products share. The model is a
    /// [`&Model`](crate::Model), or an [`&Mlp`](Mlp) that reads x as it is.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
    /// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit;
    /// [`Error::Length`](crate::Error::Length), [`Error::Outputs`](crate::Error::Outputs),
    /// [`Error::Label`](crate::Error::Label) or [`Error::Target`](crate::Error::Target) for such a
    /// y; [`Error::Length`](crate::Error::Length) or [`Error::Weight`](crate::Error::Weight) for
    /// such weights; [`Error::Undefined`] for a loss that is not finite;
    /// [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn new(model: impl Into<ModelRef<'a, F>>, data: Dataset<'a, F, L::Target>, loss: &'a L) -> Result<Self> {
        let model = model.into();
        let (mlp, inputs) = (model.mlp, Inputs::new(&model, data, loss)?);
        let _one = one_blas_thread()?;
        let (samples, mut gradient) = (inputs.len(), mlp.zero_gradient());
        let mut passes = Passes::new(mlp, samples);
        let (data, mean) = (inputs.samples(0..samples, loss), F::from_f64(1.0 / samples as f64));
        let sum = match &mut passes {
            #[cfg(feature = "blas")]
            Passes::Blas(passes) => passes.gradient(mlp.parameters(), &data, mean, &mut gradient),
            Passes::Native(passes) => passes.gradient(&data.any(), mean, &mut gradient),
        };
        drop(data);
        let value = sum / samples as f64;
        if value.is_finite() {
            Ok(Self { mlp, inputs, loss, passes, value, gradient })
        } else {
            Err(Error::Undefined { what: "loss", at: "the parameters", found: value })
        }
    }

    /// The network whose parameters are θ.
    #[must_use]
    pub fn mlp(&self) -> &'a Mlp<F> {
        self.mlp
    }

    /// L(θ), the mean w ℓ.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.value
    }

    /// The gradient ∇L(θ).
    #[must_use]
    pub fn gradient(&self) -> &Parameters<F> {
        &self.gradient
    }

    /// `hv` = H v.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a `v` or `hv` of another network;
    /// [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn apply(&mut self, v: &Parameters<F>, hv: &mut Parameters<F>) -> Result<()> {
        let theta = self.mlp.parameters();
        theta.check_shape_of("v", v)?;
        theta.check_shape_of("hv", hv)?;
        let _one = one_blas_thread()?;
        let Self { inputs, loss, passes, .. } = self;
        let (curvature, mean) = (inputs.curvature(*loss), F::from_f64(1.0 / inputs.len() as f64));
        match passes {
            #[cfg(feature = "blas")]
            Passes::Blas(passes) => passes.apply(theta, v, inputs.x.view(), curvature, mean, hv),
            Passes::Native(passes) => passes.apply(v, &curvature, mean, hv),
        }
        Ok(())
    }
}

impl<F: Scalar> Passes<F> {
    fn new(mlp: &Mlp<F>, samples: usize) -> Self {
        #[cfg(feature = "blas")]
        if !is_native(mlp, samples.min(BLOCK), samples) {
            return Self::Blas(BlasPasses::new(mlp, samples));
        }
        Self::Native(NativePasses::new(mlp.widths(), mlp.parameters(), samples))
    }
}
