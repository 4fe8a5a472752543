//! A model as an [ONNX](https://onnx.ai) file.

use std::path::Path;

use prost::Message;

use crate::checkpoint::durable::write;
use crate::checkpoint::format::{Dtype, Tensor, dtype};
use crate::checkpoint::state::json;
use crate::error::Error;
use crate::exchange::error::ExchangeError;
use crate::exchange::onnx_graph::Chain;
use crate::exchange::onnx_proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::network::standardizer::Standardizer;
use crate::train::model::Model;

/// The first operator set in which softmax has its present meaning; ONNX 1.8, of 2020, has it.
const OPSET: i64 = 13;
/// The version of the format in ONNX 1.8.
const IR_VERSION: i64 = 7;
/// Protocol Buffers count bytes in 31 bits.
const LARGEST: usize = i32::MAX as usize;

/// What is applied to ŷ at the end of an exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputFunction {
    /// Nothing: y = ŷ, as [`Model::predict`] gives it.
    #[default]
    Identity,
    /// yₖ = e^ŷₖ / Σⱼ e^ŷⱼ: the probabilities of a network that was trained with
    /// [`SoftmaxCrossEntropy`](crate::SoftmaxCrossEntropy).
    Softmax,
    /// y = 1/(1 + e^−ŷ) of each output: the probability of class 1 of a network that was trained
    /// with [`Logistic`](crate::Logistic).
    Sigmoid,
}

/// What an ONNX file has beside the model.
///
/// ```
/// use gemmprop::exchange::{OnnxExport, OutputFunction};
///
/// let classes = vec!["setosa".into(), "versicolor".into(), "virginica".into()];
/// let export = OnnxExport { output: OutputFunction::Softmax, classes };
/// # _ = export;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OnnxExport {
    /// What is applied to ŷ.
    pub output: OutputFunction,
    /// The names of the classes, in the order of the outputs, and of classes 0 and 1 for a network
    /// with one output; empty for none. They become the entry `classes` of the file's metadata, as
    /// an array in JSON.
    pub classes: Vec<String>,
}

impl<F: Scalar> Model<F> {
    /// The bytes of an ONNX file with this model, standardisation included, of operator set 13 in
    /// IR version 7 (ONNX 1.8). A network alone is a model by `Model::from(mlp)`.
    ///
    /// ```text
    /// x: (batch, d[0])    the input, in the type of the network
    ///   Cast, Sub, Mul, Cast           (x − mean) · factor in double precision, if it standardises
    ///   Gemm (transB), Relu            for each hidden layer, w_0, c_0, w_1, …
    ///   Gemm (transB)                  alpha, b
    ///   Softmax (axis −1) or Sigmoid   if that is asked for
    /// y: (batch, m)       the output
    /// ```
    ///
    /// `batch` is any number. The file names this crate and its version as producer. ŷ differs from
    /// that of [`predict`](Self::predict) by the rounding of products in another order; what is
    /// standardised has the same bits.
    ///
    /// # Errors
    /// [`ExchangeError::Model`] for parameters that are not finite, or a standardisation with
    /// another number of inputs than the network; [`ExchangeError::Softmax`] for a softmax of one
    /// output; [`ExchangeError::Classes`] for another number of names than of classes;
    /// [`ExchangeError::TooLarge`] for more than 2 GiB.
    pub fn to_onnx(&self, export: &OnnxExport) -> Result<Vec<u8>, ExchangeError> {
        self.check_export(export)?;
        let classes = StringStringEntryProto { key: "classes".into(), value: json(&export.classes) };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: format!("A fully connected ReLU network with the widths {:?}.", self.mlp.widths()),
            graph: self.graph(export.output),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: OPSET }],
            metadata_props: if export.classes.is_empty() { Vec::new() } else { vec![classes] },
        };
        check_size(model.encoded_len())?;
        Ok(model.encode_to_vec())
    }

    /// Writes [`to_onnx`](Self::to_onnx) to a file: under another name, synced and renamed, so that
    /// a file with its final name is whole. A file of this name is replaced.
    ///
    /// ```no_run
    /// use gemmprop::checkpoint::Checkpoints;
    /// use gemmprop::exchange::{OnnxExport, OutputFunction};
    ///
    /// let model = Checkpoints::open("run")?.model::<f32>()?.value;
    /// let export = OnnxExport { output: OutputFunction::Softmax, ..OnnxExport::default() };
    /// model.write_onnx("digits.onnx", &export)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`to_onnx`](Self::to_onnx), and [`ExchangeError::Io`].
    pub fn write_onnx(&self, path: impl AsRef<Path>, export: &OnnxExport) -> Result<(), ExchangeError> {
        let written = write(path.as_ref(), &self.to_onnx(export)?);
        written.map_err(|(path, source)| ExchangeError::Io { path, source })
    }

    fn check_export(&self, export: &OnnxExport) -> Result<(), ExchangeError> {
        self.check()?;
        check_finite(self.mlp.parameters())?;
        let outputs = self.mlp.outputs();
        if export.output == OutputFunction::Softmax && outputs == 1 {
            return Err(ExchangeError::Softmax { found: outputs });
        }
        let (expected, found) = (outputs.max(2), export.classes.len());
        if found != 0 && found != expected {
            return Err(ExchangeError::Classes { expected, found });
        }
        // Before they are copied.
        check_size(self.mlp.parameters().count().saturating_mul(size_of::<F>()))
    }

    fn graph(&self, output: OutputFunction) -> GraphProto {
        let (dtype, head) = (dtype::<F>(), self.mlp.depth());
        let mut chain = Chain::default();
        if let Some(standardizer) = &self.standardizer {
            standardize(&mut chain, standardizer, dtype);
        }
        for (t, (w, c)) in self.mlp.parameters().layers().enumerate() {
            let names = if t == head { ["alpha".into(), "b".into()] } else { [format!("w_{t}"), format!("c_{t}")] };
            let tensors = [Tensor::new(w.iter(), w.shape().to_vec()), Tensor::new(c.iter(), vec![c.len()])];
            let constants = names.into_iter().zip(tensors).filter(|(_, tensor)| !tensor.bytes.is_empty()).collect();
            chain.node("Gemm", constants, Some(("transB", 1)));
            if t < head {
                chain.node("Relu", Vec::new(), None);
            }
        }
        let meaning = match output {
            OutputFunction::Identity => "ŷ",
            OutputFunction::Softmax => {
                chain.node("Softmax", Vec::new(), Some(("axis", -1)));
                "softmax(ŷ)"
            }
            OutputFunction::Sigmoid => {
                chain.node("Sigmoid", Vec::new(), None);
                "1/(1 + exp(−ŷ))"
            }
        };
        chain.into_graph(self.mlp.inputs(), self.mlp.outputs(), dtype, meaning)
    }
}

/// z = (x − mean) · factor, with the roundings of [`Standardizer::transform`].
fn standardize(chain: &mut Chain, standardizer: &Standardizer, dtype: Dtype) {
    let Standardizer { mean, factor } = standardizer;
    let is_double = dtype == Dtype::F64;
    if !is_double {
        chain.cast(Dtype::F64);
    }
    for (operator, name, numbers) in [("Sub", "mean", mean), ("Mul", "factor", factor)] {
        chain.node(operator, vec![(name.to_owned(), Tensor::new(numbers.iter(), vec![numbers.len()]))], None);
    }
    if !is_double {
        chain.cast(dtype);
    }
}

/// Refuses parameters that are not finite, since other programs would compute with them.
fn check_finite<F: Scalar>(theta: &Parameters<F>) -> Result<(), Error> {
    match theta.iter().enumerate().find(|(_, p)| !p.is_finite()) {
        Some((column, p)) => Err(Error::NotFinite { what: "parameters", row: None, column, found: p.to_f64() }),
        None => Ok(()),
    }
}

fn check_size(found: usize) -> Result<(), ExchangeError> {
    if found <= LARGEST { Ok(()) } else { Err(ExchangeError::TooLarge { limit: LARGEST, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this length would need the memory of a large machine.
    #[test]
    fn more_than_protocol_buffers_can_count_is_refused() {
        assert!(check_size(LARGEST).is_ok());
        let error = check_size(LARGEST + 1).unwrap_err();
        let text = "model: expected at most 2147483647 bytes, the limit of Protocol Buffers, found 2147483648";
        assert_eq!(error.to_string(), text);
    }
}
