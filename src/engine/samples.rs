//! What a step reads: samples where the caller keeps them, and the layers of a batch once a pass
//! has filled them.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, Slice, s};

use crate::engine::plan::LayerSlots;
use crate::linalg::rows::slice_range;
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

/// The layers of a batch after a pass, from which its gradient is computed: Z and Δ in the first
/// rows of the engine's buffers, and Z[0] in place if it was not gathered.
pub(crate) struct BatchLayers<'a, F> {
    pub(crate) layers: &'a [Array2<F>],
    pub(crate) z_0: Option<ArrayView2<'a, F>>, // (samples, d[0])
    pub(crate) samples: usize,
}

impl<F: Scalar> BatchLayers<'_, F> {
    /// The columns `neurons` of Δ[t+1], and Z[t]: Δᵀ Z is the gradient of those rows of w[t].
    pub(crate) fn operands(&self, t: usize, neurons: Range<usize>) -> (ArrayView2<'_, F>, ArrayView2<'_, F>) {
        let slots = LayerSlots { depth: self.layers.len() / 2 - 1 };
        let batch = Some(0..self.samples);
        let delta = &self.layers[slots.delta(t + 1)];
        let z = match &self.z_0 {
            Some(z) if t == 0 => z.view(),
            _ => slice_range(&self.layers[slots.z(t)], Axis(0), &batch),
        };
        if neurons.len() == delta.ncols() {
            (slice_range(delta, Axis(0), &batch), z)
        } else {
            (delta.slice(s![..self.samples, neurons]), z)
        }
    }
}
