//! Rung 1, edge by edge: the oracle.
//!
//! For each weight `w[t]_ij` on its own, the chain rule forward to the output:
//!
//! ```text
//! ∂u[t+1]_i/∂w = z[t]_j            (the constant's edge: 1)
//! ∂z/∂w = ∂u/∂w where z > 0, else 0
//! ∂u[s+1]/∂w = w[s] ∂z[s]/∂w       s = t+1 … T−1
//! ∂ŷ_k/∂w = alpha_k ∂z[T]/∂w
//! ```
//!
//! Each weight costs a pass over the layers above it, O((size of the graph)²) in all. Plain loops
//! and no BLAS, so simple that it is unlikely to be wrong. The only zeros skipped are structural:
//! one neuron alone feels `w[t]_ij` directly.

use ndarray::{Array1, ArrayView1};

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
pub fn output_gradient<'x, F: Scalar>(
    mlp: &Mlp<F>,
    x: impl Into<ArrayView1<'x, F>>,
    k: usize,
    g: &mut Parameters<F>,
) -> Result<Trace<F, ndarray::Ix1>> {
    let x = x.into();
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.parameters().check_same_shape(g)?;
    let trace = Trace::new(mlp, x)?;
    let depth = mlp.depth();
    for t in 0..depth {
        for i in 0..mlp.widths()[t + 1] {
            for j in 0..mlp.widths()[t] {
                g.w[t][(i, j)] = chain_to_output(mlp, &trace, t, i, F::ONE * trace.z[t][j], k);
            }
            if !g.c[t].is_empty() {
                g.c[t][i] = chain_to_output(mlp, &trace, t, i, F::ONE, k);
            }
        }
    }
    // ŷ_k is linear in its own weights and feels no other output's.
    for row in 0..mlp.outputs() {
        let own = row == k;
        for (g, &z) in g.w[depth].row_mut(row).iter_mut().zip(&trace.z[depth]) {
            *g = if own { z } else { F::ZERO };
        }
        g.c[depth][row] = if own { F::ONE } else { F::ZERO };
    }
    Ok(trace)
}

/// ∂ŷ_k/∂w for an edge into neuron i of layer t+1, given du = `∂u[t+1]_i/∂w`.
fn chain_to_output<F: Scalar>(mlp: &Mlp<F>, trace: &Trace<F, ndarray::Ix1>, t: usize, i: usize, du: F, k: usize) -> F {
    let theta = mlp.parameters();
    let alpha = theta.alpha();
    let dz_i = masked(du, trace.z[t + 1][i]);
    if t + 1 == mlp.depth() {
        return alpha[(k, i)] * dz_i;
    }
    // One layer up, only neuron i carries a derivative: column i of w[t+1].
    let mut dz: Array1<F> = theta.w[t + 1].column(i).mapv(|w| w * dz_i);
    mask(&mut dz, &trace.z[t + 2]);
    // From there on every neuron does.
    for s in t + 2..mlp.depth() {
        let mut next = Array1::from_elem(mlp.widths()[s + 1], F::ZERO);
        for (next, w_row) in next.iter_mut().zip(theta.w[s].outer_iter()) {
            for (&w, &dz) in w_row.iter().zip(&dz) {
                *next += w * dz;
            }
        }
        mask(&mut next, &trace.z[s + 1]);
        dz = next;
    }
    let mut dy = F::ZERO;
    for (&alpha, &dz) in alpha.row(k).iter().zip(&dz) {
        dy += alpha * dz;
    }
    dy
}

/// dz ← dz ⊙ 1[z > 0]
fn mask<F: Scalar>(dz: &mut Array1<F>, z: &Array1<F>) {
    dz.zip_mut_with(z, |dz, &z| *dz = masked(*dz, z));
}

/// `g` = ∇θ ℓ(ŷ, y) = Σ_k ∂ℓ/∂ŷ_k ∂ŷ_k/∂θ at one sample. Returns ℓ.
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
    let mut dy = vec![F::ZERO; mlp.outputs()];
    let trace = output_gradient(mlp, x, 0, g)?;
    let value = loss.value_and_derivative(&trace.y_hat.to_vec(), y, &mut dy);
    g.iter_mut().for_each(|g| *g = dy[0] * *g);
    let mut g_k = mlp.zero_gradient();
    for (k, &dy) in dy.iter().enumerate().skip(1) {
        output_gradient(mlp, x, k, &mut g_k)?;
        g.scaled_add(dy, &g_k)?;
    }
    Ok(value)
}
