//! Weights from PyTorch.

use std::fs;
use std::path::Path;

use crate::checkpoint::error::Fault;
use crate::checkpoint::format::{Contents, OURS, decode_any, dtype};
use crate::checkpoint::state::layer_names;
use crate::data::error::ReadError;
use crate::exchange::error::ExchangeError;
use crate::exchange::layers::{Naming, Tensor, network, plain_number};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;

const NAMING: Naming = Naming {
    of_layer: |t| layer_names("", t),
    number: |name| {
        let (number, part) = name.split_once('.')?;
        plain_number(number).filter(|_| ["weight", "bias"].contains(&part))
    },
    numbering: "0, 2, 4, … with a ReLU between",
    transposed: false,
    bias_is_optional: true,
};

impl<F: Scalar> Mlp<F> {
    /// Reads the weights of PyTorch's `nn.Sequential(nn.Linear, nn.ReLU, …, nn.Linear)` from a
    /// [safetensors](https://huggingface.co/docs/safetensors) file, as these lines write it:
    ///
    /// ```python
    /// from safetensors.torch import save_file
    ///
    /// save_file(net.state_dict(), "net.safetensors")
    /// ```
    ///
    /// ```text
    /// in the file            in the network
    /// 0.weight, 2.weight, …  w[0], w[1], …, alpha, each (d[t+1], d[t])
    /// 0.bias, 2.bias, …      c[0], c[1], …, b
    /// ```
    ///
    /// A file does not say what is between the layers: that it is ReLU, and that nothing follows
    /// the last layer, is for the caller to know.
    ///
    /// Layers may have `bias=False`. The network has the [`Bias`](crate::Bias) with the fewest
    /// biases that it can compute the same function with: [`None`](crate::Bias::None) if no hidden
    /// layer has a bias, [`Input`](crate::Bias::Input) if the first alone has one, otherwise
    /// [`EveryLayer`](crate::Bias::EveryLayer). Those of them that the file lacks are 0, and so is
    /// b.
    ///
    /// The type of the tensors has to be F; `net.double()` or `net.float()` changes it in PyTorch.
    /// Checkpoints of this crate are read by [`Model::load`](crate::Model::load).
    ///
    /// # Errors
    /// [`ExchangeError`], for a file that cannot be read or is damaged; for weights that are
    /// missing, tensors that are not of such a network, and layers without a ReLU between them; for
    /// shapes that do not fit together, other number types than F, and numbers that are not finite.
    pub fn from_safetensors(path: impl AsRef<Path>) -> Result<Self, ExchangeError> {
        let path = path.as_ref();
        let Contents { tensors, facts } = contents(path)?;
        if facts.contains_key(OURS) {
            let found = "a checkpoint of this crate, which Model::load reads".to_owned();
            let expected = "the state_dict of a network".to_owned();
            return Err(ReadError::Content { path: path.to_owned(), what: "tensors", expected, found }.into());
        }
        let names = tensors.keys().cloned().collect();
        network(path, &NAMING, &names, |name| {
            let tensor = &tensors[name];
            let expected = if size_of::<F>() == 4 { "F32" } else { "F64" };
            if tensor.dtype != dtype::<F>() {
                let (path, found) = (path.to_owned(), format!("{:?}", tensor.dtype));
                return Err(ExchangeError::Dtype { path, tensor: name.to_owned(), expected, found });
            }
            Ok(Tensor { shape: tensor.shape.clone(), numbers: tensor.numbers() })
        })
    }
}

fn contents(path: &Path) -> Result<Contents, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(io)?;
    let decoded = decode_any(&bytes).map_err(|fault| match fault {
        Fault::Io(source) => io(source),
        Fault::Length { expected, found } => ReadError::Length { path: path.to_owned(), expected, found },
        fault => {
            let found = if let Fault::Format { found } = fault { found } else { fault.to_string() };
            let expected = "a safetensors file".to_owned();
            ReadError::Content { path: path.to_owned(), what: "format", expected, found }
        }
    })?;
    Ok(decoded.into_contents())
}
