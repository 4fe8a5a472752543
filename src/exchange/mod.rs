//! Networks for other programs, and from them.
//!
//! | format | written | read |
//! |---|---|---|
//! | ONNX, for inference elsewhere | `Model::write_onnx`, with the feature `onnx` | |
//! | safetensors, as PyTorch's `Sequential` names its tensors | by a [checkpoint](crate::checkpoint) | [`Mlp::from_safetensors`](crate::Mlp::from_safetensors) |
//! | `.npz` with the arrays of scikit-learn's `MLPClassifier` or `MLPRegressor` | | [`Mlp::from_npz`](crate::Mlp::from_npz) |
//!
//! A network that was read computes the same function as where it comes from. Its products round in
//! an order of their own, so that ŷ may differ in the last bits.

mod error;
mod layers;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod onnx_graph;
#[cfg(feature = "onnx")]
mod onnx_proto;
mod pytorch;
mod scikit_learn;

pub use error::ExchangeError;
#[cfg(feature = "onnx")]
pub use onnx::{OnnxExport, OutputFunction};
