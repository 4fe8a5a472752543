//! Range checks of the numbers that steer a training run.

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;

/// Refuses `found` unless it is in its range, which `expected` describes.
pub(crate) fn check(in_range: bool, name: &'static str, expected: &'static str, found: f64) -> Result<()> {
    if in_range { Ok(()) } else { Err(Error::Hyperparameter { name, expected, found }) }
}

/// Refuses a number that is not finite or not positive.
pub(crate) fn check_positive(name: &'static str, found: f64) -> Result<()> {
    check(found.is_finite() && found > 0.0, name, "a finite, positive number", found)
}

/// Refuses a number that is rounded to 0 in the network's type.
pub(crate) fn check_not_0<F: Scalar>(name: &'static str, found: f64) -> Result<()> {
    check(F::from_f64(found) != F::ZERO, name, "a number that the network's type can tell from 0", found)
}

/// Refuses a number that is rounded to 1 in the network's type.
pub(crate) fn check_not_1<F: Scalar>(name: &'static str, found: f64) -> Result<()> {
    check(F::from_f64(found) != F::ONE, name, "a number that the network's type can tell from 1", found)
}
