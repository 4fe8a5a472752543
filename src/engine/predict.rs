//! Prediction: a forward pass that keeps nothing of the layers between.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use crate::engine::cut::ranges;
use crate::engine::pass::GradientPass;
use crate::engine::plan::Plan;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::mlp::{Mlp, check_outputs};
use crate::parallel::team::{ActiveTeam, with_team};
use crate::parallel::tiles::{SharedTiles, Tile, TileTable};
use crate::parallel::workload::{Workload, workload};
use crate::steps::samples::Samples;

/// Buffers and plan of a forward pass over a fixed number of samples: samples × (d[0] + … + m)
/// numbers.
struct Forward<F> {
    layers: Vec<Array2<F>>,
    plan: Plan,
}

impl<F: Scalar> Forward<F> {
    fn new(mlp: &Mlp<F>, samples: usize) -> Self {
        let layers: Vec<_> = mlp.widths().iter().map(|&d| Array2::from_elem((samples, d), F::ZERO)).collect();
        let shapes: Vec<_> = layers.iter().map(Array2::dim).collect();
        Self { layers, plan: Plan::forward(mlp.widths(), &shapes, samples) }
    }

    fn workload(&self) -> Workload {
        self.plan.workload()
    }

    fn samples(&self) -> usize {
        self.plan.samples
    }

    /// Ŷ of the rows of x from `first` on, as many as there are samples.
    fn run(&mut self, team: &ActiveTeam, mlp: &Mlp<F>, x: ArrayView2<F>, first: usize) -> ArrayView2<'_, F> {
        let no_loss = |_, _: &[F], _: &mut [F]| 0.0;
        let data = Samples { x, order: None, standardize: None, weights: None, loss: no_loss };
        let Self { layers, plan } = self;
        let pass = GradientPass::new(plan, mlp.parameters(), &data, first, false);
        team.step(plan.workload(), || plan.run(team, layers, &pass));
        layers[mlp.depth() + 1].view()
    }
}

/// Samples that go through all layers of [`Mlp::predict`] together: enough for full speed of a
/// product, few enough that their activations stay in cache.
const PREDICT_ROWS: usize = 128;

/// The largest number of tasks that a prediction is divided into: enough for 16 cores.
const PREDICT_TASKS: usize = 16;

impl<F: Scalar> Mlp<F> {
    /// ŷ for each row of x: (samples, m), as the loss reads it: before a softmax or a logistic
    /// function. Keeps nothing of the layers between.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NoSamples`] or [`Error::NotFinite`] for an x that does not fit;
    /// [`Error::Output`] for a ŷ that is not finite; [`Error::BlasThreads`].
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
        // Each task takes some of the samples through all layers, block by block, without waiting
        // for others.
        let mut y_hat = Array2::from_elem((samples, self.outputs()), F::ZERO);
        let blocks = samples.div_ceil(PREDICT_ROWS);
        // The blocks have about equal lengths, so that no short one is left for last.
        let block = samples.div_ceil(blocks).next_multiple_of(8);
        let rows_of_task = blocks.div_ceil(PREDICT_TASKS) * block;
        let tasks = ranges(samples, rows_of_task).map(|rows| Tile { arrays: 0..1, rows, columns: None });
        let table = TileTable::new(vec![y_hat.dim()], tasks.collect());
        let shared = SharedTiles::new(std::slice::from_mut(&mut y_hat), &table);
        let task = |index: usize| {
            let mut tile = shared.claim(index);
            let Range { start, end } = tile.tile().rows.clone();
            let mut y_hat = tile.write(0);
            let mut forward: Option<Forward<F>> = None;
            for block in ranges(end - start, block) {
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

    /// ŷ for each row of x of a network with one output: (samples), in the shape of targets with
    /// one number per sample. (Beside those, the (samples, 1) of [`predict`](Self::predict) would
    /// be broadcast to (samples, samples).)
    ///
    /// # Errors
    /// [`Error::OneOutput`] for a network with more; as [`predict`](Self::predict).
    pub fn predict_one(&self, x: ArrayView2<F>) -> Result<Array1<F>> {
        if self.outputs() != 1 {
            return Err(Error::OneOutput { found: self.outputs() });
        }
        Ok(self.predict(x)?.remove_axis(Axis(1)))
    }

    /// The class of each row of x: the index of the largest ŷ, the most probable one by softmax (of
    /// equal ones the first); of a network with one output, 1 where ŷ ≥ 0 and else 0, the more
    /// probable one by the logistic function.
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
