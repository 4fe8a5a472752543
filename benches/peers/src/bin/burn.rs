//! burn on its backend Flex.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::loss::{MseLoss, Reduction};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::ArrayView2;
use peers::{Peer, Result, Task, serve, version_of};

struct Burn {
    /// The linear layers, without the ReLU between them.
    layers: Vec<Linear>,
    sgd: ModuleOptimizer,
    eta: f64,
    batches: Vec<(Tensor<2>, Tensor<2>)>,
}

fn data(matrix: ArrayView2<f32>) -> TensorData {
    TensorData::new(matrix.iter().copied().collect(), [matrix.nrows(), matrix.ncols()])
}

impl Peer for Burn {
    fn load(task: Task) -> Result<Self> {
        let device = Device::flex();
        let learning = device.clone().autodiff();
        let layer = |(w, c): &(ndarray::Array2<f32>, ndarray::Array1<f32>)| Linear {
            // It keeps its weights as (d_in, d_out).
            weight: Param::from_data(data(w.t()), &learning),
            bias: Some(Param::from_data(TensorData::new(c.to_vec(), [c.len()]), &learning)),
        };
        let batch = |(x, y)| (Tensor::from_data(data(x), &learning), Tensor::from_data(data(y), &learning));
        Ok(Self {
            layers: task.layers.iter().map(layer).collect(),
            sgd: SgdConfig::new().init(),
            eta: task.eta,
            batches: task.batches().map(batch).collect(),
        })
    }

    fn step(&mut self, i: usize) -> Result<f64> {
        let (x, y) = self.batches[i].clone();
        let (head, hidden) = self.layers.split_last().expect("a layer");
        let z = hidden.iter().fold(x, |z, layer| relu(layer.forward(z)));
        let loss = MseLoss::new().forward(head.forward(z), y, Reduction::Mean).mul_scalar(0.5);
        let gradient = GradientsParams::from_grads(loss.backward(), &self.layers);
        self.layers = self.sgd.step(self.eta, std::mem::take(&mut self.layers), gradient);
        Ok(loss.into_scalar::<f32>().into())
    }
}

fn main() -> Result {
    serve::<Burn>(&format!("burn {} (Flex)", version_of("burn")))
}
