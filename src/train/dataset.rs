//! Samples as they are handed to a [`Trainer`](crate::Trainer), and the split into those to train
//! on and those to validate with.

use ndarray::{ArrayView1, ArrayView2, CowArray, Ix1, Ix2};
use rand::seq::SliceRandom;

use crate::error::{Error, Result};
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, Targets, check_targets, sample_loss};
use crate::network::mlp::{Mlp, check_inputs};
use crate::network::standardizer::Standardizer;
use crate::random::{Generator, Stream, generator};
use crate::steps::samples::Samples;

/// Samples in rows, their targets, and optionally a weight for each.
#[derive(Debug, Clone, Copy)]
pub struct Dataset<'a, F, T> {
    pub(crate) x: ArrayView2<'a, F>,
    pub(crate) y: ArrayView2<'a, T>,
    pub(crate) weights: Option<ArrayView1<'a, F>>,
}

impl<'a, F: Scalar, T> Dataset<'a, F, T> {
    /// Samples x: (n, d\[0\]), and n targets y: (n), or (n, m). Arrays are borrowed, as `&x` or as
    /// views.
    pub fn new(x: impl Into<ArrayView2<'a, F>>, y: impl Targets<'a, T>) -> Self {
        Self { x: x.into(), y: y.rows(), weights: None }
    }

    /// Adds a weight for each sample, which multiplies ℓ and its gradient. Means still divide by
    /// the number of samples, so weights with a mean of 1 leave the learning rate its meaning. A
    /// sample of weight 0 is absent: as long as its numbers are finite, they do not affect losses,
    /// steps or standardisation; the sample is only counted.
    #[must_use]
    pub fn weights(self, weights: impl Into<ArrayView1<'a, F>>) -> Self {
        Self { weights: Some(weights.into()), ..self }
    }

    /// n, the number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.x.nrows()
    }
}

/// A data set as the engine reads it: targets and weights contiguous.
pub(crate) struct PreparedData<'a, F, T> {
    x: ArrayView2<'a, F>,
    y: CowArray<'a, T, Ix2>,
    weights: Option<CowArray<'a, F, Ix1>>,
    /// Whether any sample has the weight 0.
    some_are_absent: bool,
}

impl<'a, F: Scalar, T: Copy> Dataset<'a, F, T> {
    /// Refuses data that do not fit the network or the loss, and invalid weights.
    pub(crate) fn check<L: Loss<F, Target = T>>(&self, mlp: &Mlp<F>, loss: &L) -> Result<()> {
        self.check_for(mlp.inputs(), mlp.outputs(), loss)
    }

    /// [`check`](Self::check) for a network with so many inputs and outputs.
    pub(crate) fn check_for<L: Loss<F, Target = T>>(&self, inputs: usize, outputs: usize, loss: &L) -> Result<()> {
        check_inputs(self.x, inputs)?;
        check_targets(loss, self.y, self.x.nrows(), outputs)?;
        check_weights(self.weights, self.x.nrows())
    }

    /// The data as the engine reads them: copied only where they are not contiguous.
    pub(crate) fn prepared(&self) -> PreparedData<'a, F, T> {
        let Self { x, y, weights } = *self;
        let is_absent = |&weight: &F| weight == F::ZERO;
        let some_are_absent = weights.is_some_and(|weights| weights.iter().any(is_absent));
        PreparedData { x, y: row_major(y), weights: weights.map(row_major), some_are_absent }
    }
}

impl<F: Scalar, T: Copy + Send + Sync> PreparedData<'_, F, T> {
    /// The samples in an order, standardised, with the weighted loss of each.
    pub(crate) fn samples<'s, L: Loss<F, Target = T>>(
        &'s self,
        order: Option<&'s [usize]>,
        standardizer: Option<&'s Standardizer>,
        loss: &'s L,
    ) -> Samples<'s, F, impl SampleLoss<F> + 's> {
        let weights = self.weights.as_ref().map(|weights| weights.as_slice().expect("row-major weights"));
        Samples {
            x: self.x,
            order,
            standardize: standardizer.map(Standardizer::slices),
            weights: weights.filter(|_| self.some_are_absent),
            loss: weighted(sample_loss(loss, self.y.view()), weights),
            cost: loss.cost(),
        }
    }
}

/// A data set, or some of its rows.
pub(crate) struct Subset<'a, F, T> {
    pub(crate) data: Dataset<'a, F, T>,
    pub(crate) rows: Option<Vec<usize>>,
}

impl<F: Scalar, T> Subset<'_, F, T> {
    /// The number of samples.
    pub(crate) fn samples(&self) -> usize {
        self.rows.as_ref().map_or(self.data.x.nrows(), Vec::len)
    }

    /// The rows whose weight is not 0.
    pub(crate) fn present(&self) -> impl Iterator<Item = usize> + Clone {
        let weights = self.data.weights;
        let rows = self.rows.as_deref();
        let row = move |i: usize| rows.map_or(i, |rows| rows[i]);
        (0..self.samples()).map(row).filter(move |&i| weights.is_none_or(|weights| weights[i] != F::ZERO))
    }
}

/// The samples to train on and those to validate with.
pub(crate) struct TrainValidation<'a, F, T> {
    pub(crate) train: Subset<'a, F, T>,
    pub(crate) validation: Option<Subset<'a, F, T>>,
}

impl<'a, F: Scalar, T: Copy> TrainValidation<'a, F, T> {
    /// Without a validation set, `fraction` of the training samples, if given, is kept for
    /// validation.
    pub(crate) fn new(
        train: Dataset<'a, F, T>,
        validation: Option<Dataset<'a, F, T>>,
        fraction: Option<f64>,
        seed: u64,
    ) -> Result<Self> {
        let whole = |data| Subset { data, rows: None };
        let (None, Some(fraction)) = (&validation, fraction) else {
            return Ok(Self { train: whole(train), validation: validation.map(whole) });
        };
        let SplitRows { train: rows, validation: kept } =
            split_rows(train.samples(), fraction, generator(seed, Stream::Split))?;
        let subset = |rows| Subset { data: train, rows: Some(rows) };
        Ok(Self { train: subset(rows), validation: Some(subset(kept)) })
    }
}

/// Rows to train on and rows to validate with, each in the order of the data.
pub(crate) struct SplitRows {
    pub(crate) train: Vec<usize>,
    pub(crate) validation: Vec<usize>,
}

/// Keeps a random fraction of the rows for validation, rounded to at least one.
pub(crate) fn split_rows(samples: usize, fraction: f64, mut generator: Generator) -> Result<SplitRows> {
    let kept = ((samples as f64 * fraction).round() as usize).max(1);
    if kept >= samples {
        return Err(Error::Split { samples, kept });
    }
    let mut train: Vec<usize> = (0..samples).collect();
    train.shuffle(&mut generator);
    let mut validation = train.split_off(samples - kept);
    // Rows are read fastest in the order of the data.
    train.sort_unstable();
    validation.sort_unstable();
    Ok(SplitRows { train, validation })
}

/// Refuses weights that are negative or not finite, or not one for each sample.
fn check_weights<F: Scalar>(weights: Option<ArrayView1<F>>, samples: usize) -> Result<()> {
    let Some(weights) = weights else { return Ok(()) };
    if weights.len() != samples {
        return Err(Error::Length { what: "weights", expected: samples, found: weights.len() });
    }
    match weights.iter().position(|&w| !(w.is_finite() && w >= F::ZERO)) {
        Some(row) => Err(Error::Weight { row, found: weights[row].to_f64() }),
        None => Ok(()),
    }
}

/// A loss whose ℓ and ∂ℓ/∂ŷ are multiplied by the sample's weight.
pub(crate) fn weighted<'a, F: Scalar>(
    loss: impl SampleLoss<F> + 'a,
    weights: Option<&'a [F]>,
) -> impl SampleLoss<F> + 'a {
    move |i, y_hat, d| {
        let Some(weights) = weights else { return loss(i, y_hat, d) };
        if weights[i] == F::ZERO {
            // Its loss may be infinite, and 0 · ∞ is NaN.
            d.fill(F::ZERO);
            return 0.0;
        }
        let value = loss(i, y_hat, d);
        d.iter_mut().for_each(|d| *d = *d * weights[i]);
        value * weights[i].to_f64()
    }
}
