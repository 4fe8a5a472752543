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
//! The functions here allocate their buffers on each call; [`Gradients`](crate::Gradients) and
//! [`Sgd`](crate::Sgd) keep them.

use ndarray::{Array2, ArrayView2, Ix2};

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::engine::gradient::sum_of_gradients;
use crate::error::Result;
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
/// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
/// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit;
/// [`Error::Output`](crate::Error::Output) for a ŷ that is not finite;
/// [`Error::BlasThreads`](crate::Error::BlasThreads).
pub fn forward<'x, F: Scalar>(mlp: &Mlp<F>, x: impl Into<ArrayView2<'x, F>>) -> Result<Trace<F, Ix2>> {
    let x = x.into();
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
/// As [`forward`], and [`Error::Shape`](crate::Error::Shape) for a `g` of another network.
///
/// # Panics
/// If there is no output k.
pub fn output_gradient<'x, F: Scalar>(
    mlp: &Mlp<F>,
    x: impl Into<ArrayView2<'x, F>>,
    k: usize,
    g: &mut Parameters<F>,
) -> Result<()> {
    let x = x.into();
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.parameters().check_same_shape(g)?;
    mlp.check_batch(x)?;
    let _one = one_blas_thread()?;
    let selected = |_, _: &[F], dy: &mut [F]| {
        dy.fill(F::ZERO);
        dy[k] = F::ONE;
        0.0
    };
    in_new_buffers(mlp, x, (selected, 0), F::ONE, g).map(drop)
}

/// `g` = (1/B) Σ ∇θ ℓ(ŷ, y), the mean over the batch. Returns the mean ℓ.
///
/// # Errors
/// As [`output_gradient`]; [`Error::Length`](crate::Error::Length),
/// [`Error::Outputs`](crate::Error::Outputs), [`Error::Label`](crate::Error::Label) or
/// [`Error::Target`](crate::Error::Target) for a y that does not fit;
/// [`Error::Diverged`](crate::Error::Diverged) for a loss of NaN.
pub fn loss_gradient<'x, 'y, F: Scalar, L: Loss<F>>(
    mlp: &Mlp<F>,
    x: impl Into<ArrayView2<'x, F>>,
    y: impl Targets<'y, L::Target>,
    loss: &L,
    g: &mut Parameters<F>,
) -> Result<f64>
where
    L::Target: 'y,
{
    let (x, y) = (x.into(), y.rows());
    mlp.parameters().check_same_shape(g)?;
    mlp.check_batch(x)?;
    check_targets(loss, y, x.nrows(), mlp.outputs())?;
    let _one = one_blas_thread()?;
    let (samples, y) = (x.nrows(), row_major(y));
    let mean = F::from_f64(1.0 / samples as f64);
    let (cost, loss) = (loss.cost(), sample_loss(loss, y.view()));
    Ok(in_new_buffers(mlp, x, (loss, cost), mean, g)? / samples as f64)
}

/// `g` = a Σ ∂ℓ/∂θ over the batch, in buffers of this call, for a loss and what it costs. Returns
/// Σ ℓ.
fn in_new_buffers<F: Scalar>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    (loss, cost): (impl SampleLoss<F>, usize),
    a: F,
    g: &mut Parameters<F>,
) -> Result<f64> {
    let samples = x.nrows();
    let data = Samples { x, order: None, standardize: None, weights: None, loss, cost };
    sum_of_gradients(&mut Engine::new(mlp, samples, is_native(mlp, samples, samples)), mlp, samples, &data, a, g)
}
