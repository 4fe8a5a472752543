#![doc = include_str!("../README.md")]
pub mod batched;
mod blas;
pub mod count;
mod engine;
mod error;
pub mod loss;
pub mod matrix_vector;
pub mod naive;
mod network;
pub mod per_neuron;
mod rows;
mod scalar;
mod sgd;
mod threads;
mod trace;

pub use error::{Error, Result};
pub use loss::{Logistic, Loss, SoftmaxCrossEntropy, SquaredError, Targets};
pub use network::{Constant, Generator, Mlp, Parameters};
pub use scalar::Scalar;
pub use sgd::Sgd;
pub use threads::blas_description;
pub use trace::Trace;
