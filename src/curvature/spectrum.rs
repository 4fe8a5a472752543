//! The spectrum of a Hessian, by its own methods.

use crate::curvature::hessian::Hessian;
use crate::curvature::lanczos::{self, Density, Estimate, Extremes, Options};
use crate::curvature::sharpness::operator;
use crate::error::Result;
use crate::linalg::scalar::Scalar;
use crate::network::loss::TwiceDifferentiable;

/// What [`lanczos`](crate::curvature::lanczos) computes of the
/// [`operator`](crate::curvature::sharpness::operator) v ↦ H v, where equations, bounds and errors
/// are. An eigenvector becomes a direction among parameters by
/// [`Parameters::set_vector`](crate::Parameters::set_vector).
///
/// ```
/// use gemmprop::curvature::{Hessian, Options};
/// use gemmprop::{Bias, Dataset, Mlp, SoftmaxCrossEntropy};
/// use gemmprop::ndarray::array;
///
/// let mlp = Mlp::<f64>::he(&[2, 16, 2], Bias::Input, 1)?;
/// let (x, labels) = (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![0, 1, 1, 0]);
/// let mut hessian = Hessian::new(&mlp, Dataset::new(&x, &labels), &SoftmaxCrossEntropy)?;
/// let top = &hessian.extremes(&Options::default())?.largest[0];
///
/// let (mut v, mut hv) = (mlp.zero_gradient(), mlp.zero_gradient());
/// v.set_vector(&top.vector)?;
/// hessian.apply(&v, &mut hv)?; // H v = λ v
/// assert!((&hv.to_vector() - &(top.value * &top.vector)).iter().all(|d| d.abs() < 1e-5));
/// # Ok::<(), gemmprop::Error>(())
/// ```
impl<F: Scalar, L: TwiceDifferentiable<F>> Hessian<'_, F, L> {
    /// The largest and the smallest eigenvalues of H with their eigenvectors, by
    /// [`lanczos::extremes`].
    ///
    /// # Errors
    /// As [`lanczos::extremes`].
    pub fn extremes(&mut self, options: &Options) -> Result<Extremes> {
        lanczos::extremes(&mut operator(self), options)
    }

    /// The trace of H from `probes` random vectors, by [`lanczos::trace`].
    ///
    /// # Errors
    /// As [`lanczos::trace`].
    pub fn trace(&mut self, probes: usize, seed: u64) -> Result<Estimate> {
        lanczos::trace(&mut operator(self), probes, seed)
    }

    /// The density of the eigenvalues of H from `probes` random vectors and `steps` products with
    /// each, by [`lanczos::density`].
    ///
    /// # Errors
    /// As [`lanczos::density`].
    pub fn density(&mut self, probes: usize, steps: usize, seed: u64) -> Result<Density> {
        lanczos::density(&mut operator(self), probes, steps, seed)
    }
}
