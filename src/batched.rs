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
//! The functions here make their buffers anew on each call; [`Sgd`](crate::Sgd) keeps them.

use ndarray::{Array2, ArrayView2, Ix2, s};

use crate::blas::{SharedTiles, Tile, TileTable};
use crate::engine::{Engine, Samples, tiles};
use crate::error::Result;
use crate::loss::{Loss, Targets, check_targets, seed};
use crate::network::{Mlp, Parameters};
use crate::rows;
use crate::scalar::{Scalar, relu};
use crate::threads::{Crew, one_blas_thread};
use crate::trace::Trace;

/// The forward pass of a batch that keeps u and z of all neurons.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
/// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit; [`Error::BlasThreads`](crate::Error::BlasThreads).
pub fn forward<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Result<Trace<F, Ix2>> {
    mlp.check_batch(x)?;
    let _one = one_blas_thread()?;
    let theta = mlp.parameters();
    let affine = |t: usize, z: &Array2<F>| {
        let mut u = Array2::from_elem((x.nrows(), mlp.widths()[t + 1]), F::ZERO);
        rows::weighted_inputs(z.view(), theta.w[t].view(), u.view_mut());
        rows::add_constant(theta.c[t].view(), u.view_mut());
        u
    };
    let mut z = vec![x.as_standard_layout().into_owned()];
    let mut u = Vec::with_capacity(mlp.depth());
    for t in 0..mlp.depth() {
        u.push(affine(t, &z[t]));
        z.push(u[t].mapv(relu));
    }
    let y_hat = affine(mlp.depth(), &z[mlp.depth()]);
    Ok(Trace { u, z, y_hat })
}

/// `g` = Σ over the batch of ∂ŷ_k/∂θ.
///
/// # Errors
/// As [`forward`], and [`Error::Shape`](crate::Error::Shape) for a `g` of another network.
///
/// # Panics
/// If there is no output k.
pub fn output_gradient<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>, k: usize, g: &mut Parameters<F>) -> Result<()> {
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.parameters().check_same_shape(g)?;
    mlp.check_batch(x)?;
    let _one = one_blas_thread()?;
    let seed = |_, _: &[F], dy: &mut [F]| {
        dy.fill(F::ZERO);
        dy[k] = F::ONE;
        0.0
    };
    let data = Samples { x, row: |i| i, seed };
    Engine::new(mlp, x.nrows()).gradient(mlp.parameters(), x.nrows(), &data, F::ONE, g);
    Ok(())
}

/// `g` = (1/B) Σ ∇θ ℓ(ŷ, y), the mean over the batch. Returns the mean ℓ.
///
/// # Errors
/// As [`output_gradient`], and [`Error::Length`](crate::Error::Length), [`Error::Outputs`](crate::Error::Outputs),
/// [`Error::Label`](crate::Error::Label) or [`Error::Target`](crate::Error::Target) for a y that does not fit.
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
    let (samples, y) = (x.nrows(), y.as_standard_layout());
    let data = Samples { x, row: |i| i, seed: seed(loss, y.view()) };
    let mean = F::from_f64(1.0 / samples as f64);
    let sum = Engine::new(mlp, samples).gradient(mlp.parameters(), samples, &data, mean, g);
    Ok(sum / samples as f64)
}

/// Samples that go through the layers of [`Mlp::predict`] together: enough for full speed of a product, few enough that
/// their activations stay in cache.
const PREDICT_ROWS: usize = 128;

impl<F: Scalar> Mlp<F> {
    /// ŷ for each row of x: (samples, m). Keeps nothing of the layers between.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
    /// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit; [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn predict(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
        self.check_batch(x)?;
        let _one = one_blas_thread()?;
        let x = x.as_standard_layout();
        let samples = x.nrows();
        let mut y_hat = Array2::from_elem((samples, self.outputs()), F::ZERO);
        let row_tiles = tiles(samples, PREDICT_ROWS).map(|rows| Tile { arrays: 0..1, rows, columns: None });
        let table = TileTable::new(vec![y_hat.dim()], row_tiles.collect());
        let shared = SharedTiles::new(std::slice::from_mut(&mut y_hat), &table);
        let widest = self.widths()[1..self.depth() + 1].iter().max().copied().unwrap_or(0);
        let flops = 2 * samples * self.parameters().count();
        let predict_tile = |index: usize| {
            let rows = table.tile(index).rows.clone();
            let x = x.slice(s![rows.clone(), ..]);
            // Two buffers in turn: the layer below, and the one above it.
            let mut buffers = [(); 2].map(|()| Array2::from_elem((rows.len(), widest), F::ZERO));
            let theta = self.parameters();
            for t in 0..self.depth() {
                let [below, above] = &mut buffers;
                let z = if t == 0 { x } else { below.slice(s![.., ..self.widths()[t]]) };
                let mut u = above.slice_mut(s![.., ..self.widths()[t + 1]]);
                rows::weighted_inputs(z, theta.w[t].view(), u.view_mut());
                rows::add_constant_relu(theta.c[t].view(), u);
                buffers.swap(0, 1);
            }
            let z = if self.depth() == 0 { x } else { buffers[0].slice(s![.., ..self.widths()[self.depth()]]) };
            let mut tile = shared.claim(index);
            rows::weighted_inputs(z, theta.alpha(), tile.write(0));
            rows::add_constant(theta.b(), tile.write(0));
        };
        Crew::new().assemble(flops, |crew| crew.for_each_tile(table.len(), flops, &predict_tile));
        Ok(y_hat)
    }
}
