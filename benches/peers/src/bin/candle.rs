//! candle on its CPU backend.

use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module, Optimizer, SGD, Sequential, loss::mse, seq};
use ndarray::ArrayView2;
use peers::{Peer, Result, Task, serve, version_of};

struct Candle {
    model: Sequential,
    sgd: SGD,
    batches: Vec<(Tensor, Tensor)>,
}

fn tensor(matrix: ArrayView2<f32>) -> candle_core::Result<Tensor> {
    Tensor::from_iter(matrix.iter().copied(), &Device::Cpu)?.reshape(matrix.dim())
}

impl Peer for Candle {
    fn load(task: Task) -> Result<Self> {
        let mut model = seq();
        let mut parameters = Vec::new();
        for (t, (w, c)) in task.layers.iter().enumerate() {
            let w = Var::from_tensor(&tensor(w.view())?)?;
            let c = Var::from_tensor(&Tensor::from_iter(c.iter().copied(), &Device::Cpu)?)?;
            model = model.add(Linear::new(w.as_tensor().clone(), Some(c.as_tensor().clone())));
            if t + 1 < task.layers.len() {
                model = model.add_fn(Tensor::relu);
            }
            parameters.extend([w, c]);
        }
        let batches = task.batches().map(|(x, y)| Ok((tensor(x)?, tensor(y)?)));
        Ok(Self { model, sgd: SGD::new(parameters, task.eta)?, batches: batches.collect::<Result<_>>()? })
    }

    fn step(&mut self, i: usize) -> Result<f64> {
        let (x, y) = &self.batches[i];
        let loss = (0.5 * mse(&self.model.forward(x)?, y)?)?;
        self.sgd.backward_step(&loss)?;
        Ok(loss.to_scalar::<f32>()?.into())
    }
}

fn main() -> Result {
    serve::<Candle>(&format!("candle {}", version_of("candle-core")))
}
