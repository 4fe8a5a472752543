//! Rung 3, matrix–vector, for one sample.
//!
//! ```text
//! u[t+1] = w[t] z[t] + c[t]                      gemv
//! δ[t] = (w[t]ᵀ δ[t+1]) ⊙ 1[z[t] > 0]            gemv
//! ∂/∂w[t] = δ[t+1] z[t]ᵀ                         ger
//! ```
//!
//! With native products each number is the chain that rung 2 computes, so both have the same bits.

use ndarray::{Array1, ArrayView1, Ix1};

use crate::engine::choice::is_native;
use crate::error::Result;
use crate::kernels::number::{masked, relu};
use crate::linalg::array_products::ArrayProducts;
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::copied;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, checked_target};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::rungs::trace::{Trace, check_output};

/// The forward pass of one sample, layer by layer.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::NotFinite`](crate::Error::NotFinite) for an x
/// that does not fit; [`Error::Output`](crate::Error::Output) for a ŷ that is not finite;
/// [`Error::BlasThreads`](crate::Error::BlasThreads).
pub fn forward<'x, F: Scalar>(mlp: &Mlp<F>, x: impl Into<ArrayView1<'x, F>>) -> Result<Trace<F, Ix1>> {
    let x = x.into();
    mlp.check_sample(x)?;
    let _one = one_blas_thread()?;
    let theta = mlp.parameters();
    let products = ArrayProducts::new(is_native(mlp, 1, 1));
    let affine = |t: usize, z: &Array1<F>| products.affine(theta.w[t].view(), z.view(), theta.c[t].view());
    let mut z = vec![copied(x)];
    let mut u = Vec::with_capacity(mlp.depth());
    for t in 0..mlp.depth() {
        u.push(affine(t, &z[t]));
        z.push(u[t].mapv(relu));
    }
    let y_hat = affine(mlp.depth(), &z[mlp.depth()]);
    check_output(&y_hat)?;
    Ok(Trace { u, z, y_hat })
}

/// `g` = ∂ŷ_k/∂θ at one sample x. Returns the trace of the forward pass.
///
/// # Errors
/// As [`forward`], and [`Error::Shape`](crate::Error::Shape) for a `g` of another network.
///
/// # Panics
/// If there is no output k.
pub fn output_gradient<'x, F: Scalar>(
    mlp: &Mlp<F>,
    x: impl Into<ArrayView1<'x, F>>,
    k: usize,
    g: &mut Parameters<F>,
) -> Result<Trace<F, Ix1>> {
    let x = x.into();
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.parameters().check_same_shape(g)?;
    let trace = forward(mlp, x)?;
    let mut dy = Array1::from_elem(mlp.outputs(), F::ZERO);
    dy[k] = F::ONE;
    backward(mlp, &trace, dy, g)?;
    Ok(trace)
}

/// `g` = ∇θ ℓ(ŷ, y) at one sample. Returns ℓ.
///
/// # Errors
/// As [`output_gradient`], and what the loss refuses in y.
pub fn loss_gradient<'x, F: Scalar, L: Loss<F>>(
    mlp: &Mlp<F>,
    x: impl Into<ArrayView1<'x, F>>,
    y: &[L::Target],
    loss: &L,
    g: &mut Parameters<F>,
) -> Result<F> {
    let x = x.into();
    checked_target(loss, y, mlp.outputs())?;
    mlp.parameters().check_same_shape(g)?;
    let trace = forward(mlp, x)?;
    let mut dy = vec![F::ZERO; mlp.outputs()];
    let value = loss.value_and_derivative(&trace.y_hat.to_vec(), y, &mut dy);
    backward(mlp, &trace, dy.into(), g)?;
    Ok(value)
}

/// `g` = Σ_k seed_k ∂ŷ_k/∂θ
fn backward<F: Scalar>(mlp: &Mlp<F>, trace: &Trace<F, Ix1>, dy: Array1<F>, g: &mut Parameters<F>) -> Result<()> {
    let _one = one_blas_thread()?;
    let products = ArrayProducts::new(is_native(mlp, 1, 1));
    let mut delta = dy;
    for t in (0..=mlp.depth()).rev() {
        let z = &trace.z[t];
        products.outer(delta.view(), z.view(), g.w[t].view_mut());
        // 0 + δ, as every other sum of one gradient starts from 0.
        g.c[t].iter_mut().zip(&delta).for_each(|(g, &delta)| *g = F::ZERO + delta);
        if t > 0 {
            let mut below = products.transposed(mlp.parameters().w[t].view(), delta.view());
            below.zip_mut_with(z, |delta, &z| *delta = masked(*delta, z));
            delta = below;
        }
    }
    Ok(())
}
