//! Prediction over BLAS: a forward pass that keeps nothing of the layers between.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use crate::engine::pass::GradientPass;
use crate::engine::plan::Plan;
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::parallel::team::{ActiveTeam, with_team};
use crate::parallel::tiles::{SharedTiles, Tile, TileTable};
use crate::parallel::workload::{Workload, workload};
use crate::steps::blocks::{even_block, ranges};
use crate::steps::samples::Samples;

/// Buffers and plan of a forward pass over a fixed number of samples: samples × (d[0] + … + m)
/// numbers.
#[derive(Debug)]
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
        self.plan.size.samples
    }

    /// Ŷ of the rows of x from `first` on, as many as there are samples.
    fn run(&mut self, team: &ActiveTeam, mlp: &Mlp<F>, x: ArrayView2<F>, first: usize) -> ArrayView2<'_, F> {
        let no_loss = |_, _: &[F], _: &mut [F]| 0.0;
        let data = Samples { x, order: None, standardize: None, weights: None, loss: no_loss, cost: 0 };
        let (any, Self { layers, plan }) = (data.any(), self);
        let pass = GradientPass::new(plan, mlp.parameters(), &any, first, false);
        team.step(plan.workload(), || plan.run(team, layers, &pass));
        layers[mlp.depth() + 1].view()
    }
}

/// Samples that go through all layers of a prediction together: enough for full speed of a
/// product, few enough that their activations stay in cache.
const PREDICT_ROWS: usize = 128;

/// The largest number of tasks that a prediction is divided into: enough for 16 cores.
const PREDICT_TASKS: usize = 16;

/// ŷ for each row of x.
pub(crate) fn predict<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Array2<F> {
    let samples = x.nrows();
    if samples <= PREDICT_ROWS {
        // The layers are shared out one by one, as in a step.
        let mut forward = Forward::new(mlp, samples);
        let y_hat = with_team(forward.workload(), |team| forward.run(team, mlp, x, 0).to_owned());
        return y_hat;
    }
    // Each task takes some of the samples through all layers, block by block, without waiting
    // for others.
    let mut y_hat = Array2::from_elem((samples, mlp.outputs()), F::ZERO);
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
                other => other.insert(Forward::new(mlp, block.len())),
            };
            let of_block = forward.run(&ActiveTeam::alone(), mlp, x, start + block.start);
            y_hat.slice_mut(s![block, ..]).assign(&of_block);
        }
    };
    let flops = 2 * samples * mlp.parameters().count();
    with_team(workload(table.len(), flops), |team| team.for_each_tile(table.len(), flops, &task));
    y_hat
}

/// Forward passes again and again, with a copy of the network.
#[derive(Debug)]
pub(crate) struct BlasPredictor<F: Scalar> {
    mlp: Mlp<F>,
    /// The largest number of rows that pass through the layers together.
    capacity: usize,
    /// One for each number of rows met so far.
    forwards: Vec<Forward<F>>,
}

/// The number of forward passes above which all are made anew. Those of one call are at most two.
const MOST_FORWARDS: usize = 16;

impl<F: Scalar> BlasPredictor<F> {
    /// For calls of about so many rows.
    pub(crate) fn new(mlp: &Mlp<F>, rows: usize) -> Self {
        Self { mlp: mlp.clone(), capacity: even_block(rows, PREDICT_ROWS), forwards: Vec::new() }
    }

    /// ŷ for each row of x.
    pub(crate) fn predict(&mut self, x: ArrayView2<F>, mut y_hat: ArrayViewMut2<F>) {
        let Self { mlp, capacity, forwards } = self;
        let (samples, block) = (x.nrows(), even_block(x.nrows(), *capacity));
        if forwards.len() > MOST_FORWARDS {
            forwards.clear();
        }
        let mut of_rows = |rows| {
            forwards.iter().position(|forward| forward.samples() == rows).unwrap_or_else(|| {
                forwards.push(Forward::new(mlp, rows));
                forwards.len() - 1
            })
        };
        let full = of_rows(block);
        let ragged = if samples.is_multiple_of(block) { full } else { of_rows(samples % block) };
        with_team(samples.div_ceil(block) * forwards[full].workload(), |team| {
            for rows in ranges(samples, block) {
                let forward = &mut forwards[if rows.len() == block { full } else { ragged }];
                y_hat.slice_mut(s![rows.clone(), ..]).assign(&forward.run(team, mlp, x, rows.start));
            }
        });
    }
}
