//! Rung 2, neuron by neuron: the lecture's backpropagation.
//!
//! With u and z of all neurons stored, one sweep from the output to the input; each edge is met
//! once:
//!
//! ```text
//! δ_ŷ = dy: e_k for ∂ŷ_k/∂θ, ∂ℓ/∂ŷ for ∇θ ℓ
//! ∂/∂w[t]_ij = δ[t+1]_i z[t]_j
//! δ[t]_j = Σ_i w[t]_ij δ[t+1]_i where z[t]_j > 0, else 0
//! ```
//!
//! Each sum is a chain of fused multiply-adds that starts from 0, for ascending i.
//!
//! O(edges + nodes). Plain loops and no BLAS.

use ndarray::{ArrayView1, Ix1};

use crate::error::Result;
use crate::kernels::number::masked;
use crate::linalg::fused::fused;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, checked_target};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::rungs::trace::Trace;

/// `g` = ∂ŷ_k/∂θ at one sample x. Returns the trace of the forward pass.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::NotFinite`](crate::Error::NotFinite) for an x
/// or a `g` that does not fit; [`Error::Output`](crate::Error::Output) for a ŷ that is not finite.
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
    let trace = Trace::new(mlp, x)?;
    let mut dy = vec![F::ZERO; mlp.outputs()];
    dy[k] = F::ONE;
    backward(mlp, &trace, dy, g);
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
    let trace = Trace::new(mlp, x)?;
    let mut dy = vec![F::ZERO; mlp.outputs()];
    let value = loss.value_and_derivative(&trace.y_hat.to_vec(), y, &mut dy);
    backward(mlp, &trace, dy, g);
    Ok(value)
}

/// `g` = Σ_k seed_k ∂ŷ_k/∂θ: `2(d[0]d[1] + … + m d[T]) − d[0]d[1]` multiplications.
fn backward<F: Scalar>(mlp: &Mlp<F>, trace: &Trace<F, Ix1>, dy: Vec<F>, g: &mut Parameters<F>) {
    let mut delta_above = dy;
    for t in (0..=mlp.depth()).rev() {
        let w = mlp.parameters().w[t].as_slice().expect("row-major");
        let z = trace.z[t].as_slice().expect("in one piece");
        // The gradient of the input itself is not needed.
        let mut delta = vec![F::ZERO; if t > 0 { z.len() } else { 0 }];
        let g_w = g.w[t].as_slice_mut().expect("row-major");
        fused(edges, Layer { w, z, delta_above: &delta_above, delta: &mut delta, g: g_w });
        // The edges from the constant; 0 + δ, as every other sum of one gradient starts from 0.
        g.c[t].iter_mut().zip(&delta_above).for_each(|(g, &delta_i)| *g = F::ZERO + delta_i);
        delta.iter_mut().zip(z).for_each(|(delta, &z)| *delta = masked(*delta, z));
        delta_above = delta;
    }
}

/// The edges of a layer, matrices row by row. `delta` is empty if it is not asked for.
struct Layer<'a, F> {
    w: &'a [F],
    z: &'a [F],
    delta_above: &'a [F],
    delta: &'a mut [F],
    g: &'a mut [F],
}

/// Meets each edge of a layer once: g_ij = fma(δ_i, z_j, 0), and δ_j ← fma(w_ij, δ_i, δ_j) for
/// ascending i.
#[inline(always)]
fn edges<F: Scalar>(Layer { w, z, delta_above, delta, g }: Layer<F>) {
    let rows = w.chunks_exact(z.len()).zip(g.chunks_exact_mut(z.len()));
    for ((w_i, g_i), &delta_i) in rows.zip(delta_above) {
        for (g, &z) in g_i.iter_mut().zip(z) {
            *g = delta_i.mul_add(z, F::ZERO);
        }
        for (delta, &w) in delta.iter_mut().zip(w_i) {
            *delta = w.mul_add(delta_i, *delta);
        }
    }
}
