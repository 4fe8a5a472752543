//! Weights of samples by their classes.

use std::collections::BTreeMap;

use ndarray::{Array1, ArrayView1};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;

/// The weight of each sample: that of its class, `of_class[label]`. For
/// [`Dataset::weights`](crate::Dataset::weights).
///
/// # Errors
/// [`Error::Label`] for a label without a weight.
pub fn class_weights<'y, F: Scalar>(labels: impl Into<ArrayView1<'y, usize>>, of_class: &[F]) -> Result<Array1<F>> {
    let classes = of_class.len();
    let weight = |(row, &label): (usize, &usize)| {
        of_class.get(label).copied().ok_or(Error::Label { row: Some(row), classes, found: label })
    };
    labels.into().iter().enumerate().map(weight).collect()
}

/// Weights with which every class counts alike, however many samples it has: n / (k n_c) for a
/// sample of class c, of which there are `n_c`, where n is the number of samples and k that of the
/// classes that occur. Their mean is 1, so the learning rate keeps its meaning.
///
/// ```
/// use gemmprop::balanced_class_weights;
/// use ndarray::array;
///
/// let weights = balanced_class_weights::<f64>(&[0, 0, 0, 2]);
/// assert_eq!(weights, array![4.0 / 6.0, 4.0 / 6.0, 4.0 / 6.0, 2.0]);
/// ```
#[must_use]
pub fn balanced_class_weights<'y, F: Scalar>(labels: impl Into<ArrayView1<'y, usize>>) -> Array1<F> {
    let labels = labels.into();
    // A map, since a label may be any number.
    let mut counts = BTreeMap::new();
    labels.iter().for_each(|&label| *counts.entry(label).or_insert(0_usize) += 1);
    let (n, k) = (labels.len() as f64, counts.len() as f64);
    labels.map(|label| F::from_f64(n / (k * counts[label] as f64)))
}
