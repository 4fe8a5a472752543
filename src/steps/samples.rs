//! The samples of a step, where the caller keeps them.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use ndarray::ArrayView2;
#[cfg(feature = "blas")]
use ndarray::{Axis, Slice};

use crate::linalg::scalar::Scalar;
use crate::network::loss::SampleLoss;
use crate::parallel::per_tile::store;

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
    /// What the loss of a sample costs, in floating-point operations.
    pub(crate) cost: usize,
}

/// What a pass is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSize {
    pub(crate) samples: usize,
    /// What the loss of a sample costs, in floating-point operations.
    pub(crate) cost: usize,
}

impl BatchSize {
    /// Floating-point operations of all losses.
    pub(crate) fn loss_flops(self) -> usize {
        // So that plans can add up and multiply what the caller says.
        self.samples.saturating_mul(self.cost).min(usize::MAX >> 8)
    }
}

/// A batch whose loss costs nothing beside its layers.
impl From<usize> for BatchSize {
    fn from(samples: usize) -> Self {
        Self { samples, cost: 0 }
    }
}

impl<F: Scalar, L> Samples<'_, F, L> {
    /// A batch of so many of them.
    pub(crate) fn size(&self, samples: usize) -> BatchSize {
        BatchSize { samples, cost: self.cost }
    }

    /// The row of x that is sample i.
    pub(crate) fn row(&self, i: usize) -> usize {
        self.order.map_or(i, |order| order[i])
    }

    /// Whether this row of x takes part: its weight is not 0.
    pub(crate) fn is_present(&self, row: usize) -> bool {
        self.weights.is_none_or(|weights| weights[row] != F::ZERO)
    }

    /// Z[0] of some samples without gathering them, if they lie in x as they are needed.
    #[cfg(feature = "blas")]
    pub(crate) fn in_place(&self, samples: Range<usize>) -> Option<ArrayView2<'_, F>> {
        let as_they_are = self.order.is_none() && self.standardize.is_none() && self.weights.is_none();
        (as_they_are && self.x.is_standard_layout()).then(|| self.x.slice_axis(Axis(0), Slice::from(samples)))
    }
}

/// Samples whose losses are added up first: their sum does not depend on how a batch is cut, if
/// tiles of samples are whole groups.
pub(crate) const GROUP: usize = 16;

/// ŷ and s ∂ℓ/∂ŷ of some samples of a batch.
pub(crate) struct Outputs<'a, F> {
    /// The samples, counted from the first of the batch.
    pub(crate) samples: Range<usize>,
    /// ŷ of each, `stride` numbers apart.
    pub(crate) y_hat: &'a [F],
    /// s ∂ℓ/∂ŷ, likewise; to be written.
    pub(crate) d: &'a mut [F],
    pub(crate) stride: usize,
    /// m
    pub(crate) outputs: usize,
    /// s
    pub(crate) scale: F,
}

/// The losses of a batch, whatever the loss and its targets: so that an engine is compiled once and
/// not for each of them.
pub(crate) trait BatchLoss<F>: Sync {
    /// Writes s ∂ℓ/∂ŷ, and Σ ℓ of each group of the batch, as the bits of an f64. The batch begins
    /// with sample `first`.
    fn losses(&self, first: usize, of: Outputs<F>, groups: &[AtomicU64]);
    /// Writes s ∂ℓ/∂ŷ. Returns Σ ℓ, added in the order of the samples.
    #[cfg(feature = "blas")]
    fn loss(&self, first: usize, of: Outputs<F>) -> f64;
}

/// Samples whose loss is an object.
pub(crate) type AnySamples<'a, F> = Samples<'a, F, &'a dyn BatchLoss<F>>;

impl<F: Scalar, L: SampleLoss<F>> Samples<'_, F, L> {
    /// The same samples, whose loss is an object.
    pub(crate) fn any(&self) -> AnySamples<'_, F> {
        let Self { x, order, standardize, weights, cost, .. } = *self;
        Samples { x, order, standardize, weights, loss: self, cost }
    }
}

impl<F: Scalar, L: SampleLoss<F>> BatchLoss<F> for Samples<'_, F, L> {
    fn losses(&self, first: usize, of: Outputs<F>, groups: &[AtomicU64]) {
        let mut group = 0.0;
        let (end, mut r) = (of.samples.end, of.samples.start);
        self.for_each_loss(first, of, |loss| {
            group += loss;
            r += 1;
            if r % GROUP == 0 || r == end {
                store(&groups[(r - 1) / GROUP], group);
                group = 0.0;
            }
        });
    }

    #[cfg(feature = "blas")]
    fn loss(&self, first: usize, of: Outputs<F>) -> f64 {
        let mut sum = 0.0;
        self.for_each_loss(first, of, |loss| sum += loss);
        sum
    }
}

impl<F: Scalar, L: SampleLoss<F>> Samples<'_, F, L> {
    /// Writes s ∂ℓ/∂ŷ, and calls `take(ℓ)` for sample after sample.
    #[inline]
    fn for_each_loss(&self, first: usize, of: Outputs<F>, mut take: impl FnMut(f64)) {
        let Outputs { samples, y_hat, d, stride, outputs, scale } = of;
        let rows = y_hat.chunks_exact(stride).zip(d.chunks_exact_mut(stride));
        for ((y_hat, d), r) in rows.zip(samples) {
            let (y_hat, d) = (&y_hat[..outputs], &mut d[..outputs]);
            let loss = (self.loss)(self.row(first + r), y_hat, d);
            if scale != F::ONE {
                d.iter_mut().for_each(|d| *d = scale * *d);
            }
            take(loss);
        }
    }
}
