//! The layers of a batch once a pass has filled them.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};

use crate::engine::plan::LayerSlots;
use crate::linalg::rows::slice_range;
use crate::linalg::scalar::Scalar;

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
