//! A training run, with all that the crate computes at the steps where the page can stop.
//!
//! Every number of the page is one that the crate returned. δ[t] is the derivative of ℓ by the
//! inputs u[t], thus by a constant that is added to them: the crate gives it as the gradient of
//! `c[t−1]`, on every layer, in the same network with constants of 0 where the model has none.

use gemmprop::rungs::count::Counted;
use gemmprop::rungs::{Trace as Forward, batched, matrix_vector, naive, per_neuron};
use gemmprop::{Bias, Generator, Loss, Mlp, Parameters, Products, Result, Sgd};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::counts::{Counts, counts};
use crate::problem::Problem;

type Vector = Vec<f32>;
type Matrix = Vec<Vector>;

/// w[0], …, w[T−1], alpha, and c[0], …, c[T−1], b; empty where a layer has no constant.
#[derive(Serialize)]
struct Theta {
    w: Vec<Matrix>,
    c: Vec<Vector>,
}

/// What one sample has on each layer. Index t − 1 is layer t.
#[derive(Serialize)]
struct Sample {
    /// The number of its row in the data.
    row: usize,
    y: f32,
    /// z[0], …, z[T].
    z: Vec<Vector>,
    /// u[1], …, u[T].
    u: Vec<Vector>,
    /// 1[z[t] > 0] for t = 1 … T.
    mask: Vec<Vec<u8>>,
    y_hat: f32,
    loss: f32,
    /// ∂ℓ/∂ŷ
    dy: f32,
    /// δ[1], …, δ[T].
    delta: Vec<Vector>,
}

/// The naive method on the first sample of the batch.
#[derive(Serialize)]
struct EdgeByEdge {
    /// ∂u[2]_k/∂w for each k, of the edges of w[0] and c[0].
    du: Vec<Theta>,
    /// ∂ŷ/∂θ and ∂ℓ/∂θ.
    dy: Theta,
    gradient: Theta,
}

/// A training step, from the batch to the parameters after it.
#[derive(Serialize)]
struct Stop {
    /// Training steps made before this one.
    step: usize,
    /// Mean ℓ over all samples, and how many of them are classified rightly.
    loss: f64,
    right: usize,
    /// What the network makes of the plane, as levels; see [`map`].
    map: String,
    theta: Theta,
    batch: Vec<Sample>,
    /// ∂ℓ/∂θ of the first sample.
    gradient: Theta,
    naive: EdgeByEdge,
    /// Mean ℓ over the batch, G = (1/B) Σ ∂ℓ/∂θ, and θ after the step.
    mean_loss: f64,
    mean_gradient: Theta,
    theta_after: Theta,
}

/// All that the page knows about a problem.
#[derive(Serialize)]
pub(crate) struct Trace {
    name: &'static str,
    title: &'static str,
    loss: String,
    widths: Vec<usize>,
    eta: f64,
    x: Matrix,
    y: Vector,
    extent: [f32; 2],
    /// The map has `cells`² levels.
    cells: usize,
    counts: Counts,
    /// (steps made, mean ℓ over all samples).
    curve: Vec<(usize, f64)>,
    stops: Vec<Stop>,
}

const CELLS: usize = 33;

fn rows(a: &Array2<f32>) -> Matrix {
    a.outer_iter().map(|row| row.to_vec()).collect()
}

impl From<&Parameters<f32>> for Theta {
    fn from(theta: &Parameters<f32>) -> Self {
        let (w, c) = theta.layers().map(|(w, c)| (rows(&w.to_owned()), c.to_vec())).unzip();
        Self { w, c }
    }
}

/// The first layers of a network, as a network whose outputs are u[layers].
fn cut(mlp: &Mlp<f32>, layers: usize) -> Result<Mlp<f32>> {
    let widths = &mlp.widths()[..=layers];
    let mut theta = Parameters::zeros(widths, Bias::Input)?;
    for ((mut w, mut c), (from_w, from_c)) in theta.layers_mut().zip(mlp.parameters().layers()) {
        w.assign(&from_w);
        if !from_c.is_empty() {
            c.assign(&from_c);
        }
    }
    Mlp::from_parameters(widths, Bias::Input, theta)
}

/// The same function with a constant on every layer, 0 where the model has none.
fn with_constants(mlp: &Mlp<f32>) -> Result<Mlp<f32>> {
    let mut theta = Parameters::zeros(mlp.widths(), Bias::EveryLayer)?;
    for ((mut w, mut c), (from_w, from_c)) in theta.layers_mut().zip(mlp.parameters().layers()) {
        w.assign(&from_w);
        if !from_c.is_empty() {
            c.assign(&from_c);
        }
    }
    Mlp::from_parameters(mlp.widths(), Bias::EveryLayer, theta)
}

/// A network in training.
struct Run<'a, L> {
    problem: &'a Problem,
    loss: &'a L,
    mlp: Mlp<f32>,
    sgd: Sgd<f32>,
    generator: Generator,
    /// What is left of the epoch's order of the samples.
    left: Vec<usize>,
}

impl<L: Loss<f32, Target = f32>> Run<'_, L> {
    /// The rows of the next batch; the samples are shuffled for each epoch.
    fn next_batch(&mut self) -> Vec<usize> {
        if self.left.is_empty() {
            self.left = (0..self.problem.x.nrows()).collect();
            self.left.shuffle(&mut self.generator);
        }
        self.left.split_off(self.left.len() - self.problem.batch)
    }

    fn batch(&self, rows: &[usize]) -> (Array2<f32>, Array1<f32>) {
        (self.problem.x.select(Axis(0), rows), self.problem.y.select(Axis(0), rows))
    }

    fn step(&mut self, rows: &[usize]) -> Result<f64> {
        let (x, y) = self.batch(rows);
        self.sgd.step(&mut self.mlp, x.view(), y.view(), self.loss)
    }

    fn mean_loss(&self) -> Result<f64> {
        let (x, y) = (self.problem.x.view(), self.problem.y.view());
        batched::loss_gradient(&self.mlp, x, y, self.loss, &mut self.mlp.zero_gradient())
    }

    /// ŷ as a number from 0 to 1, for the map and to classify: the probability of class 1 for the
    /// logistic loss, whose derivative with y = 0 it is, and ŷ itself for the squared error.
    fn share(&self, y_hat: f32) -> f32 {
        let mut share = [0.0];
        self.loss.value_and_derivative(&[y_hat], &[0.0], &mut share);
        share[0]
    }

    fn right(&self) -> Result<usize> {
        let y_hat = self.mlp.predict(self.problem.x.view())?;
        let classified = y_hat.iter().map(|&y_hat| self.share(y_hat) > 0.5);
        Ok(classified.zip(&self.problem.y).filter(|&(one, &y)| one == (y > 0.5)).count())
    }

    /// [`share`](Self::share) on a grid over the plane, from its top left, row by row: each as one
    /// of 64² levels, two letters of base64.
    fn map(&self) -> Result<String> {
        const LEVELS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let [from, to] = self.problem.extent;
        let at = |cell: usize| from + (to - from) * cell as f32 / (CELLS - 1) as f32;
        let x = Array2::from_shape_fn((CELLS * CELLS, 2), |(cell, axis)| match axis {
            0 => at(cell % CELLS),
            _ => at(CELLS - 1 - cell / CELLS),
        });
        let letters = |&y_hat: &f32| {
            let level = (self.share(y_hat) * 4096.0).clamp(0.0, 4095.0) as usize;
            [level / 64, level % 64].map(|digit| char::from(LEVELS[digit]))
        };
        Ok(self.mlp.predict(x.view())?.iter().flat_map(letters).collect())
    }

    fn sample(&self, row: usize) -> Result<Sample> {
        let (x, y) = (self.problem.x.row(row), self.problem.y[row]);
        let mlp = with_constants(&self.mlp)?;
        let forward = Forward::new(&mlp, x)?;
        let mut g = mlp.zero_gradient();
        let loss = per_neuron::loss_gradient(&mlp, x, &[y], self.loss, &mut g)?;
        let depth = mlp.depth();
        let z: Vec<Vector> = (0..=depth).map(|t| forward.z(t).to_vec()).collect();
        Ok(Sample {
            row,
            y,
            u: (1..=depth).map(|t| forward.u(t).to_vec()).collect(),
            mask: z[1..].iter().map(|z| z.iter().map(|&z| u8::from(z > 0.0)).collect()).collect(),
            z,
            y_hat: forward.y_hat()[0],
            loss,
            dy: g.b()[0],
            delta: g.c().iter().map(|c| c.to_vec()).collect(),
        })
    }

    fn edge_by_edge(&self, x: ArrayView1<f32>, y: f32) -> Result<EdgeByEdge> {
        let cut = cut(&self.mlp, 2)?;
        let mut of_u = cut.zero_gradient();
        let du = |k| {
            naive::output_gradient(&cut, x, k, &mut of_u)?;
            let mut first = Theta::from(&of_u);
            first.w.truncate(1);
            first.c.truncate(1);
            Ok(first)
        };
        let du = (0..cut.outputs()).map(du).collect::<Result<_>>()?;
        let mut g = self.mlp.zero_gradient();
        naive::output_gradient(&self.mlp, x, 0, &mut g)?;
        let dy = Theta::from(&g);
        naive::loss_gradient(&self.mlp, x, &[y], self.loss, &mut g)?;
        Ok(EdgeByEdge { du, dy, gradient: Theta::from(&g) })
    }

    /// The gradient of one sample by rungs 2 and 3, which must have the same bits.
    fn gradient(&self, x: ArrayView1<f32>, y: f32) -> Result<Theta> {
        let (mut by_neuron, mut by_matrix) = (self.mlp.zero_gradient(), self.mlp.zero_gradient());
        per_neuron::loss_gradient(&self.mlp, x, &[y], self.loss, &mut by_neuron)?;
        matrix_vector::loss_gradient(&self.mlp, x, &[y], self.loss, &mut by_matrix)?;
        assert_eq!(by_neuron, by_matrix, "rungs 2 and 3 have the same bits");
        Ok(Theta::from(&by_neuron))
    }

    /// Records the next step, and makes it.
    fn stop(&mut self, step: usize) -> Result<Stop> {
        let rows = self.next_batch();
        let (x, y) = self.batch(&rows);
        let batch: Vec<Sample> = rows.iter().map(|&row| self.sample(row)).collect::<Result<_>>()?;
        self.check_rows(&batch, &x)?;
        let mut g = self.mlp.zero_gradient();
        let mean_loss = batched::loss_gradient(&self.mlp, x.view(), y.view(), self.loss, &mut g)?;
        Ok(Stop {
            step,
            loss: self.mean_loss()?,
            right: self.right()?,
            map: self.map()?,
            theta: self.mlp.parameters().into(),
            batch,
            gradient: self.gradient(x.row(0), y[0])?,
            naive: self.edge_by_edge(x.row(0), y[0])?,
            mean_loss,
            mean_gradient: Theta::from(&g),
            theta_after: {
                self.step(&rows)?;
                self.mlp.parameters().into()
            },
        })
    }

    /// The batched forward pass has the bits of each sample alone.
    fn check_rows(&self, batch: &[Sample], x: &Array2<f32>) -> Result<()> {
        let forward = batched::forward(&self.mlp, x.view())?;
        for (row, sample) in batch.iter().enumerate() {
            for t in 0..self.mlp.depth() {
                assert_eq!(forward.u(t + 1).row(row).to_vec(), sample.u[t], "u[{}] of row {row}", t + 1);
            }
            assert_eq!(forward.y_hat()[(row, 0)], sample.y_hat, "ŷ of row {row}");
        }
        Ok(())
    }
}

/// Trains, and records the steps at which the page can stop, and the loss at these and between.
pub(crate) fn record<L>(problem: &Problem, loss: &L) -> Result<Trace>
where
    L: Loss<f32, Target = f32> + Loss<Counted, Target = Counted>,
{
    assert_eq!(problem.x.nrows() % problem.batch, 0, "all batches are full");
    let mut run = Run {
        problem,
        loss,
        mlp: Mlp::he(problem.widths, Bias::Input, problem.seed)?.with_products(Products::Native)?,
        sgd: Sgd::new(problem.batch, problem.eta, problem.seed)?,
        generator: Generator::seed_from_u64(problem.seed),
        left: Vec::new(),
    };
    let (mut stops, mut curve) = (Vec::new(), Vec::new());
    for (from, to) in problem.stops.iter().zip(problem.stops.iter().skip(1).chain([&usize::MAX])) {
        let stop = run.stop(*from)?;
        curve.push((*from, stop.loss));
        stops.push(stop);
        if *to == usize::MAX {
            break;
        }
        // Some points of the curve lie between two stops.
        let between = (to - from).div_ceil(8);
        for step in from + 1..*to {
            if (step - from).is_multiple_of(between) {
                curve.push((step, run.mean_loss()?));
            }
            let rows = run.next_batch();
            run.step(&rows)?;
        }
    }
    Ok(Trace {
        name: problem.name,
        title: problem.title,
        loss: Loss::<f32>::name(loss).into_owned(),
        widths: problem.widths.to_vec(),
        eta: problem.eta,
        x: rows(&problem.x),
        y: problem.y.to_vec(),
        extent: problem.extent,
        cells: CELLS,
        counts: counts(problem.widths, problem.batch, loss)?,
        curve,
        stops,
    })
}
