//! The gradient of a batch, with everything refused that is not finite.

use std::sync::{Mutex, PoisonError};

use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::loss::SampleLoss;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::steps::samples::Samples;

/// `g` = a Σ ∂ℓ/∂θ over `samples` samples. Returns Σ ℓ.
///
/// # Errors
/// [`Error::Output`] for the first row whose ŷ is not finite, and [`Error::Diverged`] for a loss of
/// NaN; `g` is unchanged then.
pub(crate) fn sum_of_gradients<F: Scalar, L: SampleLoss<F>>(
    engine: &mut Engine<F>,
    mlp: &Mlp<F>,
    samples: usize,
    data: &Samples<F, L>,
    a: F,
    g: &mut Parameters<F>,
) -> Result<f64> {
    // Tiles come in any order.
    let first: Mutex<Option<(usize, usize, f64)>> = Mutex::new(None);
    let loss = |row: usize, y_hat: &[F], dy: &mut [F]| match y_hat.iter().position(|y_hat| !y_hat.is_finite()) {
        None => (data.loss)(row, y_hat, dy),
        Some(output) => {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none_or(|(first, ..)| row < first) {
                *first = Some((row, output, y_hat[output].to_f64()));
            }
            f64::NAN
        }
    };
    let Samples { x, order, standardize, weights, cost, .. } = *data;
    let checked = Samples { x, order, standardize, weights, loss, cost };
    let sum = engine.gradient(mlp.parameters(), samples, &checked, a, g);
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((row, output, found)) => Err(Error::Output { row: Some(row), output, found }),
        None if sum.is_nan() => Err(Error::Diverged { what: "loss", at: None, found: sum, last: None }),
        None => Ok(sum),
    }
}
