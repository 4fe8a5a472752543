//! The forward pass that keeps the inputs and outputs of all neurons, computed neuron by neuron.
//!
//! Each u is a chain of fused multiply-adds: it starts from c, or from 0 where there is no
//! constant, and then u ← fma(w_ij, z_j, u) for ascending j.

use ndarray::{Array, Array1, ArrayView1, ArrayView2, Axis, Dimension, Ix1};

use crate::error::{Error, Result};
use crate::kernels::number::relu;
use crate::linalg::fused::fused;
use crate::linalg::layout::copied;
use crate::linalg::scalar::Scalar;
use crate::network::mlp::{Mlp, check_outputs};

/// u and z of all neurons: for one sample (`Ix1`), or for a batch with samples in rows (`Ix2`).
#[derive(Debug, Clone, PartialEq)]
pub struct Trace<F, D: Dimension> {
    /// `u[1]`, …, `u[T]`, at 0 … T−1.
    pub(crate) u: Vec<Array<F, D>>,
    /// `z[0]`, …, `z[T]`.
    pub(crate) z: Vec<Array<F, D>>,
    /// The output ŷ.
    pub(crate) y_hat: Array<F, D>,
}

impl<F, D: Dimension> Trace<F, D> {
    /// The inputs of the neurons of hidden layer t, 1 ≤ t ≤ T: `u[t] = w[t−1] z[t−1] + c[t−1]`.
    ///
    /// # Panics
    /// If t is not in 1 … T.
    #[must_use]
    #[track_caller]
    pub fn u(&self, t: usize) -> &Array<F, D> {
        assert!((1..=self.u.len()).contains(&t), "u[t] exists for t = 1 … {}, asked for {t}", self.u.len());
        &self.u[t - 1]
    }

    /// The outputs of layer t, 0 ≤ t ≤ T: `z[0]` = x, `z[t] = ReLU(u[t])`.
    ///
    /// # Panics
    /// If t exceeds T.
    #[must_use]
    #[track_caller]
    pub fn z(&self, t: usize) -> &Array<F, D> {
        assert!(t < self.z.len(), "z[t] exists for t = 0 … {}, asked for {t}", self.z.len() - 1);
        &self.z[t]
    }

    /// `ŷ = alpha z[T] + b`
    #[must_use]
    pub fn y_hat(&self) -> &Array<F, D> {
        &self.y_hat
    }
}

impl<F: Scalar> Trace<F, Ix1> {
    /// The forward pass of one sample, by plain loops: `d[0]d[1] + … + m d[T]` multiplications.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) or [`Error::NotFinite`](crate::Error::NotFinite) for
    /// an x that does not fit; [`Error::Output`] for a ŷ that is not finite.
    pub fn new<'x>(mlp: &Mlp<F>, x: impl Into<ArrayView1<'x, F>>) -> Result<Self> {
        let x = x.into();
        mlp.check_sample(x)?;
        let theta = mlp.parameters();
        let mut z = vec![copied(x)];
        let mut u = Vec::with_capacity(mlp.depth());
        for t in 0..mlp.depth() {
            u.push(neuron_inputs(theta.w[t].view(), theta.c[t].view(), &z[t]));
            z.push(u[t].mapv(relu));
        }
        let y_hat = neuron_inputs(theta.alpha(), theta.b(), &z[mlp.depth()]);
        check_output(&y_hat)?;
        Ok(Self { u, z, y_hat })
    }
}

/// Refuses the output of one sample if it is not finite.
pub(crate) fn check_output<F: Scalar>(y_hat: &Array1<F>) -> Result<()> {
    check_outputs(y_hat.view().insert_axis(Axis(0))).map_err(Error::of_one_sample)
}

/// u_i = c_i + Σ_j w_ij z_j; c is empty where there is no constant.
pub(crate) fn neuron_inputs<F: Scalar>(w: ArrayView2<F>, c: ArrayView1<F>, z: &Array1<F>) -> Array1<F> {
    let mut u = if c.is_empty() { vec![F::ZERO; w.nrows()] } else { c.to_vec() };
    fused(chains, (w.to_slice().expect("row-major"), z.as_slice().expect("in one piece"), &mut u));
    u.into()
}

/// u_i ← fma(w_ij, z_j, u_i) for ascending j.
#[inline(always)]
fn chains<F: Scalar>((w, z, u): (&[F], &[F], &mut [F])) {
    for (w_i, u_i) in w.chunks_exact(z.len()).zip(u) {
        for (&w_ij, &z_j) in w_i.iter().zip(z) {
            *u_i = w_ij.mul_add(z_j, *u_i);
        }
    }
}
