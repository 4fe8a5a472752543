//! Why a network could not be handed to another program, or taken from one.

use std::io;
use std::path::PathBuf;

use crate::data::error::ReadError;
use crate::error::Error;

/// Why a network could not be handed to another program, or taken from one. No file has been
/// changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that the system refused, or its directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be read, is damaged, or is of another format.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A tensor is missing.
    #[error("{}: expected the tensor {tensor:?}, found {}", path.display(), list(found))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// The names of all tensors in the file.
        found: Vec<String>,
    },
    /// The numbers of the layers have a gap, or one that no ReLU precedes.
    #[error("{}: expected {expected:?} next, since layers are numbered {numbering}; found {found:?}", path.display())]
    Numbering {
        /// The file.
        path: PathBuf,
        /// The name of the weights that would be next.
        expected: String,
        /// The numbers of layers.
        numbering: &'static str,
        /// The tensor with the lowest of the other numbers.
        found: String,
    },
    /// There are tensors that are not weights or biases of the layers.
    #[error("{}: expected only weights and biases of linear layers, found also {}", path.display(), list(found))]
    Extra {
        /// The file.
        path: PathBuf,
        /// The names of the other tensors.
        found: Vec<String>,
    },
    /// A tensor has a shape that does not fit the network.
    #[error("{}: {tensor}: expected shape {expected}, found {found:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// The shape by the layer before, with letters for lengths that may be anything but 0.
        expected: String,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has other numbers than those of the network's type. Rounding them would make
    /// another network.
    #[error("{}: {tensor}: expected numbers of type {expected}, found {found}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// The type of the network, as the format calls it.
        expected: &'static str,
        /// The type in the file, as the format calls it.
        found: String,
    },
    /// A tensor has a NaN or an infinity.
    #[error("{}: {tensor}{index:?}: expected a finite number, found {found}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// Where in the tensor: row and column, or the position in a bias.
        index: Vec<usize>,
        /// The value.
        found: f64,
    },
    /// The model cannot be written as it is.
    #[error(transparent)]
    Model(#[from] Error),
    /// Softmax of one output would always be 1.
    #[error("output: expected a network with 2 outputs or more for softmax, found {found}")]
    Softmax {
        /// The number of the network's outputs.
        found: usize,
    },
    /// The number of class names does not fit the outputs.
    #[error("classes: expected {expected} names, one for each class of the output, found {found}")]
    Classes {
        /// The number of outputs; 2 for a network with one output.
        expected: usize,
        /// The number of names.
        found: usize,
    },
    /// The model does not fit into a file of the format.
    #[error("model: expected at most {limit} bytes, the limit of Protocol Buffers, found {found}")]
    TooLarge {
        /// The largest length of a file.
        limit: usize,
        /// The length that this model would need at least.
        found: usize,
    },
}

fn list(names: &[String]) -> String {
    // What is not a model can have thousands of tensors.
    const MOST: usize = 12;
    let shown: Vec<_> = names.iter().take(MOST).map(|name| format!("{name:?}")).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > MOST => format!("{} and {} more", shown.join(", "), count - MOST),
        _ => shown.join(", "),
    }
}
