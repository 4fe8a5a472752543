//! A network from the named tensors of another program, with everything refused that is not a chain
//! of linear layers with a ReLU between each two.

use std::collections::BTreeSet;
use std::path::Path;

use ndarray::{Array1, Array2};

use crate::exchange::error::ExchangeError;
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::parameters::{Bias, Parameters};

/// How a program names the tensors of its linear layers, and lays them out.
#[derive(Debug)]
pub(super) struct Naming {
    /// The names of weight and bias of layer t.
    pub(super) of_layer: fn(usize) -> [String; 2],
    /// The number in a name of such a form.
    pub(super) number: fn(&str) -> Option<usize>,
    /// The numbers of layers, for messages.
    pub(super) numbering: &'static str,
    /// Whether weights are `(d[t], d[t+1])`, transposed to those of this crate.
    pub(super) transposed: bool,
    /// Whether a layer may have no bias.
    pub(super) bias_is_optional: bool,
}

/// A tensor of the network's type, row by row.
#[derive(Debug)]
pub(super) struct Tensor<F> {
    pub(super) shape: Vec<usize>,
    pub(super) numbers: Vec<F>,
}

/// The number that a text stands for, if it is written as this crate would.
pub(super) fn plain_number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number: &usize| number.to_string() == text)
}

/// Reads the network of all tensors of a file. `read` gives a tensor of the network's type.
pub(super) fn network<F: Scalar>(
    path: &Path,
    naming: &Naming,
    names: &BTreeSet<String>,
    mut read: impl FnMut(&str) -> Result<Tensor<F>, ExchangeError>,
) -> Result<Mlp<F>, ExchangeError> {
    let layers = count_layers(path, naming, names)?;
    let mut widths = Vec::new();
    let (mut w, mut c) = (Vec::new(), Vec::new());
    for t in 0..layers {
        let [weight, bias] = (naming.of_layer)(t);
        let matrix = matrix(path, naming, &weight, widths.last().copied(), read(&weight)?)?;
        if t == 0 {
            widths.push(matrix.ncols());
        }
        widths.push(matrix.nrows());
        c.push(match names.contains(&bias) {
            true => Some(vector(path, &bias, matrix.nrows(), read(&bias)?)?),
            false if naming.bias_is_optional => None,
            false => return Err(missing(path, bias, names)),
        });
        w.push(matrix);
    }
    // The fewest biases with which the network can compute the same. The others are 0.
    let with_bias: Vec<usize> = (0..layers - 1).filter(|&t| c[t].is_some()).collect();
    let bias = match with_bias.as_slice() {
        [] => Bias::None,
        [0] => Bias::Input,
        _ => Bias::EveryLayer,
    };
    let filled = c.into_iter().enumerate().map(|(t, c)| {
        let length = if t + 1 == layers || bias.at(t) { widths[t + 1] } else { 0 };
        c.unwrap_or_else(|| Array1::from_elem(length, F::ZERO))
    });
    let c = filled.collect();
    Ok(Mlp::from_parameters(&widths, bias, Parameters { w, c })?)
}

/// The number of layers, if the tensors are theirs and no others.
fn count_layers(path: &Path, naming: &Naming, names: &BTreeSet<String>) -> Result<usize, ExchangeError> {
    let weight = |t| {
        let [weight, _] = (naming.of_layer)(t);
        weight
    };
    let layers = (0..).take_while(|&t| names.contains(&weight(t))).count();
    let known: BTreeSet<String> = (0..layers).flat_map(naming.of_layer).collect();
    let others: Vec<&String> = names.difference(&known).collect();
    let numbered = others.iter().filter_map(|name| Some(((naming.number)(name)?, *name))).min();
    let next = weight(layers);
    match numbered {
        // It is the bias of the weights that are missing.
        Some((number, _)) if Some(number) == (naming.number)(&next) => Err(missing(path, next, names)),
        Some((_, found)) => Err(ExchangeError::Numbering {
            path: path.to_owned(),
            expected: next,
            numbering: naming.numbering,
            found: found.clone(),
        }),
        None if layers == 0 => Err(missing(path, next, names)),
        None if others.is_empty() => Ok(layers),
        None => Err(ExchangeError::Extra { path: path.to_owned(), found: others.into_iter().cloned().collect() }),
    }
}

fn missing(path: &Path, tensor: String, names: &BTreeSet<String>) -> ExchangeError {
    ExchangeError::Missing { path: path.to_owned(), tensor, found: names.iter().cloned().collect() }
}

/// The weights of a layer that reads `inputs` numbers, or any number if it is the first.
fn matrix<F: Scalar>(
    path: &Path,
    naming: &Naming,
    name: &str,
    inputs: Option<usize>,
    tensor: Tensor<F>,
) -> Result<Array2<F>, ExchangeError> {
    let columns = usize::from(!naming.transposed);
    let fits = tensor.shape.len() == 2
        && !tensor.shape.contains(&0)
        && inputs.is_none_or(|inputs| tensor.shape[columns] == inputs);
    if !fits {
        let mut expected = ["n".to_owned(), "n".to_owned()];
        expected[columns] = inputs.map_or("d".to_owned(), |inputs| inputs.to_string());
        let expected = format!("[{}]", expected.join(", "));
        return Err(ExchangeError::Shape { path: path.to_owned(), tensor: name.into(), expected, found: tensor.shape });
    }
    let dim = (tensor.shape[0], tensor.shape[1]);
    let numbers = finite(path, name, tensor)?;
    let matrix = Array2::from_shape_vec(dim, numbers).expect("as many numbers as the shape has");
    Ok(if naming.transposed { matrix.reversed_axes().as_standard_layout().into_owned() } else { matrix })
}

/// The bias of a layer with `outputs` neurons.
fn vector<F: Scalar>(path: &Path, name: &str, outputs: usize, tensor: Tensor<F>) -> Result<Array1<F>, ExchangeError> {
    if tensor.shape != [outputs] {
        let expected = format!("[{outputs}]");
        return Err(ExchangeError::Shape { path: path.to_owned(), tensor: name.into(), expected, found: tensor.shape });
    }
    Ok(finite(path, name, tensor)?.into())
}

fn finite<F: Scalar>(path: &Path, name: &str, Tensor { shape, numbers }: Tensor<F>) -> Result<Vec<F>, ExchangeError> {
    let Some(at) = numbers.iter().position(|number| !number.is_finite()) else { return Ok(numbers) };
    let index = if let [_, columns] = *shape { vec![at / columns, at % columns] } else { vec![at] };
    let found = numbers[at].to_f64();
    Err(ExchangeError::NotFinite { path: path.to_owned(), tensor: name.into(), index, found })
}
