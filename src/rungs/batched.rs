//! Rung 4, a mini-batch at once: the product.
//!
//! ```text
//! Z[0] = X                                        X: (B, d[0]), samples in rows
//! U[t+1] = Z[t] w[t]ᵀ + 1 c[t]ᵀ                   gemm
//! Z[t+1] = ReLU(U[t+1])
//! Ŷ = Z[T] alphaᵀ + 1 bᵀ                          gemm; gemv for one output
//! Δ[t] = (Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]              gemm
//! G[t] = Δ[t+1]ᵀ Z[t]                             gemm
//! ```
//!
//! The functions here allocate their buffers on each call; [`Sgd`](crate::Sgd) keeps them.

use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, ArrayView2, Ix2};

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::kernels::number::relu;
use crate::linalg::array_products::ArrayProducts;
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::{copied, row_major};
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, Targets, check_targets, sample_loss};
use crate::network::mlp::{Mlp, check_outputs};
use crate::network::parameters::Parameters;
use crate::rungs::trace::Trace;
use crate::steps::samples::Samples;

/// The forward pass of a batch that keeps u and z of all neurons.
///
/// # Errors
/// [`Error::Shape`], [`Error::NoSamples`] or [`Error::NotFinite`] for an x that does not fit;
/// [`Error::Output`] for a ŷ that is not finite; [`Error::BlasThreads`].
pub fn forward<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Result<Trace<F, Ix2>> {
    mlp.check_batch(x)?;
    let _one = one_blas_thread()?;
    let products = ArrayProducts::new(is_native(mlp, x.nrows(), x.nrows()));
    let theta = mlp.parameters();
    let affine = |t: usize, z: &Array2<F>| products.affine_rows(z.view(), theta.w[t].view(), theta.c[t].view());
    let mut z = vec![copied(x)];
    let mut u = Vec::with_capacity(mlp.depth());
    for t in 0..mlp.depth() {
        u.push(affine(t, &z[t]));
        z.push(u[t].mapv(relu));
    }
    let y_hat = affine(mlp.depth(), &z[mlp.depth()]);
    check_outputs(y_hat.view())?;
    Ok(Trace { u, z, y_hat })
}

/// `g` = Σ over the batch of ∂ŷ_k/∂θ.
///
/// # Errors
/// As [`forward`], and [`Error::Shape`] for a `g` of another network.
///
/// # Panics
/// If there is no output k.
pub fn output_gradient<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>, k: usize, g: &mut Parameters<F>) -> Result<()> {
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.parameters().check_same_shape(g)?;
    mlp.check_batch(x)?;
    let _one = one_blas_thread()?;
    let selected = |_, _: &[F], dy: &mut [F]| {
        dy.fill(F::ZERO);
        dy[k] = F::ONE;
        0.0
    };
    sum_of_gradients(mlp, x, selected, F::ONE, g).map(drop)
}

/// `g` = (1/B) Σ ∇θ ℓ(ŷ, y), the mean over the batch. Returns the mean ℓ.
///
/// # Errors
/// As [`output_gradient`]; [`Error::Length`], [`Error::Outputs`], [`Error::Label`] or
/// [`Error::Target`] for a y that does not fit; [`Error::Diverged`] for a loss of NaN.
pub fn loss_gradient<'y, F: Scalar, L: Loss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: impl Targets<'y, L::Target>,
    loss: &L,
    g: &mut Parameters<F>,
) -> Result<f64>
where
    L::Target: 'y,
{
    mlp.parameters().check_same_shape(g)?;
    mlp.check_batch(x)?;
    let y = y.rows();
    check_targets(loss, y, x.nrows(), mlp.outputs())?;
    let _one = one_blas_thread()?;
    let (samples, y) = (x.nrows(), row_major(y));
    let mean = F::from_f64(1.0 / samples as f64);
    Ok(sum_of_gradients(mlp, x, sample_loss(loss, y.view()), mean, g)? / samples as f64)
}

/// `g` = a Σ ∂ℓ/∂θ over the batch. Returns Σ ℓ.
///
/// # Errors
/// [`Error::Output`] for the first row whose ŷ is not finite, and [`Error::Diverged`] for a loss of
/// NaN; `g` is unchanged then.
fn sum_of_gradients<F: Scalar>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    loss: impl SampleLoss<F>,
    a: F,
    g: &mut Parameters<F>,
) -> Result<f64> {
    // Tiles come in any order.
    let first: Mutex<Option<(usize, usize, f64)>> = Mutex::new(None);
    let checked = |row: usize, y_hat: &[F], dy: &mut [F]| match y_hat.iter().position(|y_hat| !y_hat.is_finite()) {
        None => loss(row, y_hat, dy),
        Some(output) => {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none_or(|(first, ..)| row < first) {
                *first = Some((row, output, y_hat[output].to_f64()));
            }
            f64::NAN
        }
    };
    let data = Samples { x, order: None, standardize: None, weights: None, loss: checked };
    let sum = Engine::new(mlp, x.nrows(), is_native(mlp, x.nrows(), x.nrows())).gradient(
        mlp.parameters(),
        x.nrows(),
        &data,
        a,
        g,
    );
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((row, output, found)) => Err(Error::Output { row: Some(row), output, found }),
        None if sum.is_nan() => Err(Error::Diverged { what: "loss", at: None, found: sum, last: None }),
        None => Ok(sum),
    }
}
