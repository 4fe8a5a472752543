//! The operations of a gradient pass: forward, loss and backward on a tile.

use ndarray::{ArrayView2, Axis};

use crate::engine::plan::{LayerSlots, LayerTile, Operations, Plan};
use crate::linalg::rows::{self, slice_range};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::steps::samples::{AnySamples, Outputs};

/// What all tiles of a pass read beside the layers.
pub(crate) struct GradientPass<'a, 's, F> {
    theta: &'a Parameters<F>,
    samples: &'a AnySamples<'s, F>,
    /// The batch's first sample.
    first: usize,
    /// Z[0], if it is read in place.
    z_0: Option<ArrayView2<'a, F>>,
    watched: bool,
    slots: LayerSlots,
}

impl<'a, 's, F: Scalar> GradientPass<'a, 's, F> {
    /// A pass at θ over the samples from `first` on. If it is `watched`, [`Plan::squares`] is known
    /// afterwards.
    pub(crate) fn new(
        plan: &Plan,
        theta: &'a Parameters<F>,
        samples: &'a AnySamples<'s, F>,
        first: usize,
        watched: bool,
    ) -> Self {
        let z_0 = samples.in_place(first..first + plan.size.samples);
        Self { theta, samples, first, z_0, watched, slots: LayerSlots { depth: theta.depth() } }
    }

    /// The tile's rows of Z[0] where they lie in x, if they are read there.
    fn rows_in_place(&self, tile: &LayerTile<F>) -> Option<ArrayView2<'_, F>> {
        self.z_0.as_ref().map(|z_0| slice_range(z_0, Axis(0), &Some(tile.rows.clone())))
    }
}

impl<F: Scalar> Operations<F> for GradientPass<'_, '_, F> {
    const PRODUCTS: usize = 1;

    fn gathers(&self) -> bool {
        // A watched pass looks at the tiles of Z[0] also where they are not written.
        self.z_0.is_none() || self.watched
    }

    /// Z[0] = the rows of x, standardised
    fn gather(&self, tile: &mut LayerTile<F>) {
        if self.z_0.is_none() {
            let (samples, first) = (self.samples, self.first + tile.rows.start);
            let row = |r| Some(samples.row(first + r)).filter(|&row| samples.is_present(row));
            rows::gather(samples.x, row, samples.standardize, tile.write(self.slots.z(0)));
        }
    }

    /// Z[t+1] = ReLU(Z[t] w[t]ᵀ + 1 c[t]ᵀ); Ŷ, for t = T, without ReLU
    fn forward(&self, t: usize, tile: &mut LayerTile<F>) {
        let (slots, theta) = (self.slots, self.theta);
        let neurons = tile.columns.clone();
        let (w, c) = (slice_range(&theta.w[t], Axis(0), &neurons), &theta.c[t]);
        let c = if c.is_empty() { c.view() } else { slice_range(c, Axis(0), &neurons) };
        let in_place = if t == 0 { self.rows_in_place(tile) } else { None };
        let (z, mut u) = match in_place {
            Some(z) => (z, tile.write(slots.z(1))),
            None => {
                let ([z], u) = tile.read_and_write([slots.z(t)], slots.z(t + 1));
                (z, u)
            }
        };
        rows::weighted_inputs(z, w, u.view_mut());
        if t < slots.depth {
            rows::add_bias_relu(c, u);
        } else {
            rows::add_bias(c, u);
        }
    }

    /// ∂ℓ/∂Ŷ
    fn loss(&self, tile: &mut LayerTile<F>) -> f64 {
        let samples = tile.rows.clone();
        let ([y_hat], mut dy) = tile.read_and_write([self.slots.y_hat()], self.slots.d_y_hat());
        let outputs = y_hat.ncols();
        let y_hat = y_hat.to_slice().expect("whole rows");
        let d = dy.as_slice_mut().expect("whole rows");
        let of = Outputs { samples, y_hat, d, stride: outputs, outputs, scale: F::ONE };
        self.samples.loss.loss(self.first, of)
    }

    /// Δ[t] = (Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
    fn backward(&self, t: usize, tile: &mut LayerTile<F>) {
        let (slots, neurons) = (self.slots, tile.columns.clone());
        let ([above, z], delta) = tile.read_and_write([slots.delta(t + 1), slots.z(t)], slots.delta(t));
        let (w, z) = (slice_range(&self.theta.w[t], Axis(1), &neurons), slice_range(&z, Axis(1), &neurons));
        rows::deltas(above, w, z, delta);
    }

    fn squares(&self, tile: &mut LayerTile<F>) -> Option<f64> {
        if !self.watched {
            return None;
        }
        let arrays = tile.arrays.clone();
        let of_array = |slot: usize| match self.rows_in_place(tile) {
            Some(z) if slot == self.slots.z(0) => rows::squares_of(z),
            _ => rows::squares_of(tile.write(slot).view()),
        };
        Some(arrays.map(of_array).sum())
    }
}
