//! Weights from scikit-learn.

use std::path::Path;

use crate::data::npy::Npz;
use crate::exchange::error::ExchangeError;
use crate::exchange::layers::{Naming, Tensor, network, plain_number};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;

const NAMING: Naming = Naming {
    of_layer: |t| [format!("coefs_{t}"), format!("intercepts_{t}")],
    number: |name| plain_number(["coefs_", "intercepts_"].iter().find_map(|part| name.strip_prefix(part))?),
    numbering: "0, 1, 2, …",
    transposed: true,
    bias_is_optional: false,
};

impl<F: Scalar> Mlp<F> {
    /// Reads the weights of scikit-learn's `MLPClassifier` or `MLPRegressor` with
    /// `activation="relu"`, its default, from an `.npz` file, as these lines write it:
    ///
    /// ```python
    /// import numpy as np
    /// assert net.activation == "relu"
    /// arrays = {f"coefs_{t}": w for t, w in enumerate(net.coefs_)}
    /// arrays |= {f"intercepts_{t}": c for t, c in enumerate(net.intercepts_)}
    /// np.savez("net.npz", **arrays)
    /// ```
    ///
    /// ```text
    /// in the file                      in the network
    /// coefs_0, coefs_1, …              w[0], w[1], …, alpha, each transposed: (d[t], d[t+1])
    /// intercepts_0, intercepts_1, …    c[0], c[1], …, b
    /// ```
    ///
    /// The network has [`Bias::EveryLayer`](crate::Bias::EveryLayer), or where one or no hidden
    /// layer makes them the same, [`Bias::Input`](crate::Bias::Input) or
    /// [`Bias::None`](crate::Bias::None). [`predict`](Self::predict) gives ŷ: what a regressor
    /// predicts (with `loss="poisson"`, the logarithm of that), and what a classifier applies
    /// softmax to, or the logistic function if it has two classes. [`classify`](Self::classify)
    /// gives positions in the classifier's `classes_`.
    ///
    /// The type of the arrays has to be F: f8 unless the classifier was trained on f4.
    ///
    /// # Errors
    /// [`ExchangeError`], for a file that cannot be read or is damaged; for arrays that are missing
    /// or not of such a network; for shapes that do not fit together, other number types than F,
    /// and numbers that are not finite.
    pub fn from_npz(path: impl AsRef<Path>) -> Result<Self, ExchangeError> {
        let path = path.as_ref();
        let mut file = Npz::open(path)?;
        let names = file.names().map(str::to_owned).collect();
        network(path, &NAMING, &names, |name| {
            let array = file.array::<F>(name)?;
            let expected = if size_of::<F>() == 4 { "f4" } else { "f8" };
            if array.kind != expected {
                let (path, tensor) = (path.to_owned(), name.to_owned());
                return Err(ExchangeError::Dtype { path, tensor, expected, found: array.kind });
            }
            Ok(Tensor { shape: array.shape, numbers: array.numbers.into_iter().collect() })
        })
    }
}
