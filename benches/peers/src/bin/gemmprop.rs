//! gemmprop by single steps, or with the argument `epoch` by calls of `train`, which also shuffles;
//! over BLAS, or with the argument `native` in its own kernels.

use gemmprop::{Bias, Mlp, Products, Sgd, SquaredError};
use ndarray::{Array2, s};
use peers::{Peer, Result, Task, serve, version_of};

struct Single {
    mlp: Mlp<f32>,
    sgd: Sgd<f32>,
    x: Array2<f32>,
    y: Array2<f32>,
    batch: usize,
}

fn network(task: &Task) -> Result<Mlp<f32>> {
    let products = if told("native") { Products::Native } else { Products::Blas };
    let mut mlp = Mlp::he(&task.widths, Bias::EveryLayer, 1)?.with_products(products)?;
    for ((mut w, mut c), layer) in mlp.parameters_mut().layers_mut().zip(&task.layers) {
        w.assign(&layer.0);
        c.assign(&layer.1);
    }
    Ok(mlp)
}

impl Peer for Single {
    fn load(task: Task) -> Result<Self> {
        let sgd = Sgd::new(task.batch, task.eta, 1)?;
        Ok(Self { mlp: network(&task)?, sgd, x: task.x, y: task.y, batch: task.batch })
    }

    fn step(&mut self, i: usize) -> Result<f64> {
        let rows = i * self.batch..(i + 1) * self.batch;
        let (x, y) = (self.x.slice(s![rows.clone(), ..]), self.y.slice(s![rows, ..]));
        Ok(self.sgd.step(&mut self.mlp, x, y, &SquaredError)?)
    }
}

struct Epochs(Single);

impl Peer for Epochs {
    fn load(task: Task) -> Result<Self> {
        Single::load(task).map(Self)
    }

    fn step(&mut self, i: usize) -> Result<f64> {
        self.0.step(i)
    }

    /// One call of `train`: epochs over all batches, or one epoch over as many batches as there are
    /// steps.
    fn run(&mut self, steps: usize, batches: usize) -> Result {
        let Single { mlp, sgd, x, y, batch } = &mut self.0;
        let batches = batches.min(steps);
        let (x, y) = (x.slice(s![..batches * *batch, ..]), y.slice(s![..batches * *batch, ..]));
        assert!(steps.is_multiple_of(batches), "{steps} steps are no number of epochs of {batches}");
        sgd.train(mlp, x, y, &SquaredError, steps / batches)?;
        Ok(())
    }
}

/// Whether this is among the program's arguments.
fn told(argument: &str) -> bool {
    std::env::args().skip(1).any(|told| told == argument)
}

fn main() -> Result {
    let (blas, kernels) = (gemmprop::blas_description(), gemmprop::native_kernels());
    let version = format!("gemmprop {}, {blas}, native kernels {kernels}", version_of("gemmprop"));
    if told("epoch") { serve::<Epochs>(&version) } else { serve::<Single>(&version) }
}
