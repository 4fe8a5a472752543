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
use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Ix2, s};

use crate::engine::engine::{Engine, Forward, Samples};
use crate::engine::plan::tiles;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::{copied, row_major};
use crate::linalg::rows;
use crate::linalg::scalar::{Scalar, relu};
use crate::network::loss::{Loss, SampleLoss, Targets, check_targets, sample_loss};
use crate::network::mlp::{Mlp, Parameters, check_outputs};
use crate::parallel::team::{ActiveTeam, with_team};
use crate::parallel::tiles::{SharedTiles, Tile, TileTable};
use crate::parallel::workload::workload;
use crate::rungs::trace::Trace;

/// The forward pass of a batch that keeps u and z of all neurons.
///
/// # Errors
/// [`Error::Shape`], [`Error::NoSamples`] or [`Error::NotFinite`] for an x that does not fit; [`Error::Output`] for a ŷ that is not
/// finite; [`Error::BlasThreads`].
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
/// As [`output_gradient`]; [`Error::Length`], [`Error::Outputs`], [`Error::Label`] or [`Error::Target`] for a y that does not fit;
/// [`Error::Diverged`] for a loss of NaN.
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
/// [`Error::Output`] for the first row whose ŷ is not finite, and [`Error::Diverged`] for a loss of NaN; `g` is unchanged then.
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
    let sum = Engine::new(mlp, x.nrows()).gradient(mlp.parameters(), x.nrows(), &data, a, g);
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((row, output, found)) => Err(Error::Output { row: Some(row), output, found }),
        None if sum.is_nan() => Err(Error::Diverged { what: "loss", at: None, found: sum, last: None }),
        None => Ok(sum),
    }
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
    /// [`Error::Shape`], [`Error::NoSamples`] or [`Error::NotFinite`] for an x that does not fit; [`Error::Output`] for a ŷ that is not
    /// finite; [`Error::BlasThreads`].
    pub fn predict(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
        self.check_batch(x)?;
        let _one = one_blas_thread()?;
        let samples = x.nrows();
        if samples <= PREDICT_ROWS {
            // The layers are shared out one by one, as in a step.
            let mut forward = Forward::new(self, samples);
            let y_hat = with_team(forward.workload(), |team| forward.run(team, self, x, 0).to_owned());
            check_outputs(y_hat.view())?;
            return Ok(y_hat);
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
                let of_block = forward.run(&ActiveTeam::alone(), self, x, start + block.start);
                y_hat.slice_mut(s![block, ..]).assign(&of_block);
            }
        };
        let flops = 2 * samples * self.parameters().count();
        with_team(workload(table.len(), flops), |team| team.for_each_tile(table.len(), flops, &task));
        check_outputs(y_hat.view())?;
        Ok(y_hat)
    }

    /// ŷ for each row of x of a network with one output: (samples), in the shape of targets that are one number a sample. (Beside
    /// those, the (samples, 1) of [`predict`](Self::predict) would be broadcast to (samples, samples).)
    ///
    /// # Errors
    /// [`Error::OneOutput`] for a network with more; as [`predict`](Self::predict).
    pub fn predict_one(&self, x: ArrayView2<F>) -> Result<Array1<F>> {
        if self.outputs() != 1 {
            return Err(Error::OneOutput { found: self.outputs() });
        }
        Ok(self.predict(x)?.remove_axis(Axis(1)))
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
