//! The samples of a step, where the caller keeps them.

use std::ops::Range;

use ndarray::{ArrayView2, Axis, Slice};

use crate::linalg::scalar::Scalar;

/// The samples of a step. Sample i is x[order[i]], or x[i], shifted and scaled if that is asked
/// for; `loss` counts the rows of x.
pub(crate) struct Samples<'a, F, L> {
    pub(crate) x: ArrayView2<'a, F>, // (n, d[0])
    pub(crate) order: Option<&'a [usize]>,
    /// The mean and the factor of each column.
    pub(crate) standardize: Option<(&'a [f64], &'a [f64])>,
    /// The weight of each row of x, if some are 0: such rows are read as 0, since their z could be
    /// infinite, and ∞ · 0 is NaN.
    pub(crate) weights: Option<&'a [F]>,
    pub(crate) loss: L,
}

impl<F: Scalar, L> Samples<'_, F, L> {
    /// The row of x that is sample i.
    pub(crate) fn row(&self, i: usize) -> usize {
        self.order.map_or(i, |order| order[i])
    }

    /// Whether this row of x takes part: its weight is not 0.
    pub(crate) fn is_present(&self, row: usize) -> bool {
        self.weights.is_none_or(|weights| weights[row] != F::ZERO)
    }

    /// Z[0] of some samples without gathering them, if they lie in x as they are needed.
    pub(crate) fn in_place(&self, samples: Range<usize>) -> Option<ArrayView2<'_, F>> {
        let as_they_are = self.order.is_none() && self.standardize.is_none() && self.weights.is_none();
        (as_they_are && self.x.is_standard_layout()).then(|| self.x.slice_axis(Axis(0), Slice::from(samples)))
    }
}
