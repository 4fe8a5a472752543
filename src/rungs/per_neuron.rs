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
//! O(edges + nodes). Plain loops and no BLAS.

use ndarray::{Array1, ArrayView1, Ix1};

use crate::error::Result;
use crate::kernels::number::masked;
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
pub fn output_gradient<F: Scalar>(
    mlp: &Mlp<F>,
    x: ArrayView1<F>,
    k: usize,
    g: &mut Parameters<F>,
) -> Result<Trace<F, Ix1>> {
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.parameters().check_same_shape(g)?;
    let trace = Trace::new(mlp, x)?;
    let mut dy = Array1::from_elem(mlp.outputs(), F::ZERO);
    dy[k] = F::ONE;
    backward(mlp, &trace, dy, g);
    Ok(trace)
}

/// `g` = ∇θ ℓ(ŷ, y) at one sample. Returns ℓ.
///
/// # Errors
/// As [`output_gradient`], and what the loss refuses in y.
pub fn loss_gradient<F: Scalar, L: Loss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView1<F>,
    y: &[L::Target],
    loss: &L,
    g: &mut Parameters<F>,
) -> Result<F> {
    checked_target(loss, y, mlp.outputs())?;
    mlp.parameters().check_same_shape(g)?;
    let trace = Trace::new(mlp, x)?;
    let mut dy = vec![F::ZERO; mlp.outputs()];
    let value = loss.value_and_derivative(&trace.y_hat.to_vec(), y, &mut dy);
    backward(mlp, &trace, dy.into(), g);
    Ok(value)
}

/// `g` = Σ_k seed_k ∂ŷ_k/∂θ: `2(d[0]d[1] + … + m d[T]) − d[0]d[1]` multiplications.
fn backward<F: Scalar>(mlp: &Mlp<F>, trace: &Trace<F, Ix1>, dy: Array1<F>, g: &mut Parameters<F>) {
    let theta = mlp.parameters();
    let mut delta_above = dy;
    for t in (0..=mlp.depth()).rev() {
        let z = &trace.z[t];
        let mut delta = Array1::from_elem(z.len(), F::ZERO);
        for (i, &delta_i) in delta_above.iter().enumerate() {
            for (g, &z) in g.w[t].row_mut(i).iter_mut().zip(z) {
                *g = delta_i * z;
            }
            if !g.c[t].is_empty() {
                g.c[t][i] = delta_i;
            }
            // The gradient of the input itself is not needed.
            if t > 0 {
                for (delta, &w) in delta.iter_mut().zip(theta.w[t].row(i)) {
                    *delta += w * delta_i;
                }
            }
        }
        delta.zip_mut_with(z, |delta, &z| *delta = masked(*delta, z));
        delta_above = delta;
    }
}
