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

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Ix2, s};

use crate::blas::{SharedTiles, Tile, TileTable};
use crate::crew::{Assembled, assemble, shareable};
use crate::engine::{Engine, Forward, Samples};
use crate::error::Result;
use crate::loss::{Loss, Targets, check_targets, seed};
use crate::network::{Mlp, Parameters};
use crate::rows;
use crate::scalar::{Scalar, relu};
use crate::schedule::tiles;
use crate::threads::one_blas_thread;
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
    let data = Samples { x, order: None, standardize: None, weights: None, seed };
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
    let data = Samples { x, order: None, standardize: None, weights: None, seed: seed(loss, y.view()) };
    let mean = F::from_f64(1.0 / samples as f64);
    let sum = Engine::new(mlp, samples).gradient(mlp.parameters(), samples, &data, mean, g);
    Ok(sum / samples as f64)
}

/// Samples that go through all layers of [`Mlp::predict`] together: enough for full speed of a product, few enough that
/// their activations stay in cache.
const PREDICT_ROWS: usize = 128;

/// Into how many tasks, at the most, a prediction is divided: enough for 16 cores.
const PREDICT_TASKS: usize = 16;

impl<F: Scalar> Mlp<F> {
    /// ŷ for each row of x: (samples, m), as the loss reads it: before a softmax or a logistic function. Keeps nothing of the layers between.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
    /// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit; [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn predict(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
        self.check_batch(x)?;
        let _one = one_blas_thread()?;
        let samples = x.nrows();
        if samples <= PREDICT_ROWS {
            // The layers are shared out one by one, as in a step.
            let mut forward = Forward::new(self, samples);
            return Ok(assemble(forward.shareable(), |crew| forward.run(crew, self, x, 0).to_owned()));
        }
        // Each task takes some of the samples through all layers, block by block, and waits for nobody.
        let mut y_hat = Array2::from_elem((samples, self.outputs()), F::ZERO);
        let blocks = samples.div_ceil(PREDICT_ROWS);
        // Of about equal length, so that the last is no straggler.
        let block = samples.div_ceil(blocks).next_multiple_of(8);
        let rows_of_task = blocks.div_ceil(PREDICT_TASKS) * block;
        let tasks = tiles(samples, rows_of_task).map(|rows| Tile { arrays: 0..1, rows, columns: None });
        let table = TileTable::new(vec![y_hat.dim()], tasks.collect());
        let shared = SharedTiles::new(std::slice::from_mut(&mut y_hat), &table);
        let task = |index: usize| {
            let mut tile = shared.claim(index);
            let Range { start, end } = tile.tile().rows.clone();
            let mut y_hat = tile.write(0);
            let mut forward: Option<Forward<F>> = None;
            for block in tiles(end - start, block) {
                let forward = match &mut forward {
                    Some(forward) if forward.samples() == block.len() => forward,
                    other => other.insert(Forward::new(self, block.len())),
                };
                let of_block = forward.run(&Assembled::alone(), self, x, start + block.start);
                y_hat.slice_mut(s![block, ..]).assign(&of_block);
            }
        };
        let flops = 2 * samples * self.parameters().count();
        assemble(shareable(table.len(), flops), |crew| crew.for_each_tile(table.len(), flops, &task));
        Ok(y_hat)
    }

    /// The class of each row of x: the index of the largest ŷ, the most probable one by softmax (of equal ones the first); of a network with
    /// one output, 1 where ŷ ≥ 0 and else 0, the more probable one by the logistic function.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn classify(&self, x: ArrayView2<F>) -> Result<Array1<usize>> {
        let class = |y_hat: ArrayView1<F>| match y_hat.len() {
            1 => usize::from(y_hat[0] >= F::ZERO),
            outputs => (1..outputs).fold(0, |best, i| if y_hat[i] > y_hat[best] { i } else { best }),
        };
        Ok(self.predict(x)?.outer_iter().map(class).collect())
    }
}
