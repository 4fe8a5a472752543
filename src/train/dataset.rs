//! Samples as they are handed to a [`Trainer`](crate::Trainer), and their division into a part to train on and one to validate with.

use ndarray::{ArrayView1, ArrayView2, CowArray, Ix1, Ix2};
use rand::seq::SliceRandom;

use crate::engine::samples::Samples;
use crate::error::{Error, Result};
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, Targets, check_targets, sample_loss};
use crate::network::mlp::Mlp;
use crate::network::standardizer::Standardizer;
use crate::random::{Stream, generator};

/// Samples in rows, their targets, and perhaps a weight for each.
#[derive(Debug, Clone, Copy)]
pub struct Dataset<'a, F, T> {
    pub(crate) x: ArrayView2<'a, F>,
    pub(crate) y: ArrayView2<'a, T>,
    pub(crate) weights: Option<ArrayView1<'a, F>>,
}

impl<'a, F: Scalar, T> Dataset<'a, F, T> {
    /// x: (samples, d\[0\]), and as many targets.
    pub fn new(x: ArrayView2<'a, F>, y: impl Targets<'a, T>) -> Self {
        Self { x, y: y.rows(), weights: None }
    }

    /// With a weight for each sample: it multiplies ℓ and its gradient. The means stay those over
    /// the number of samples, so weights with a mean of 1 leave the learning rate its meaning. A
    /// sample of weight 0 is absent: whatever its numbers are, as long as they are finite, it has
    /// no part in losses, steps and standardisation, and is only counted.
    #[must_use]
    pub fn weights(self, weights: ArrayView1<'a, F>) -> Self {
        Self { weights: Some(weights), ..self }
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.x.nrows()
    }
}

/// A data set as the engine reads it: targets and weights one beside the other.
pub(crate) struct PreparedData<'a, F, T> {
    x: ArrayView2<'a, F>,
    y: CowArray<'a, T, Ix2>,
    weights: Option<CowArray<'a, F, Ix1>>,
    /// Does some sample have the weight 0?
    some_are_absent: bool,
}

impl<'a, F: Scalar, T: Copy> Dataset<'a, F, T> {
    /// Refuses what does not fit the network or the loss, and weights that are none.
    pub(crate) fn check<L: Loss<F, Target = T>>(&self, mlp: &Mlp<F>, loss: &L) -> Result<()> {
        mlp.check_batch(self.x)?;
        check_targets(loss, self.y, self.x.nrows(), mlp.outputs())?;
        check_weights(self.weights, self.x.nrows())
    }

    pub(crate) fn ready(&self) -> PreparedData<'a, F, T> {
        let Self { x, y, weights } = *self;
        let some_are_absent = weights.is_some_and(|weights| weights.iter().any(|&weight| weight == F::ZERO));
        PreparedData { x, y: row_major(y), weights: weights.map(row_major), some_are_absent }
    }
}

impl<F: Scalar, T: Copy + Send + Sync> PreparedData<'_, F, T> {
    /// Its samples in an order, standardised, with what this loss and the weights make of them.
    pub(crate) fn samples<'s, L: Loss<F, Target = T>>(
        &'s self,
        order: Option<&'s [usize]>,
        standardizer: Option<&'s Standardizer>,
        loss: &'s L,
    ) -> Samples<'s, F, impl SampleLoss<F> + 's> {
        let weights = self.weights.as_ref().map(|weights| weights.as_slice().expect("made so"));
        Samples {
            x: self.x,
            order,
            standardize: standardizer.map(Standardizer::slices),
            weights: weights.filter(|_| self.some_are_absent),
            loss: weighted(sample_loss(loss, self.y.view()), weights),
        }
    }
}

/// A data set, or some rows of one.
pub(crate) struct Subset<'a, F, T> {
    pub(crate) data: Dataset<'a, F, T>,
    pub(crate) rows: Option<Vec<usize>>,
}

impl<F: Scalar, T> Subset<'_, F, T> {
    pub(crate) fn samples(&self) -> usize {
        self.rows.as_ref().map_or(self.data.x.nrows(), Vec::len)
    }

    /// Its rows that are not of weight 0.
    pub(crate) fn present(&self) -> impl Iterator<Item = usize> + Clone {
        let weights = self.data.weights;
        let rows = self.rows.as_deref();
        let row = move |i: usize| rows.map_or(i, |rows| rows[i]);
        (0..self.samples()).map(row).filter(move |&i| weights.is_none_or(|weights| weights[i] != F::ZERO))
    }
}

/// What is trained on, and what is validated with.
pub(crate) type TrainValidation<'a, F, T> = (Subset<'a, F, T>, Option<Subset<'a, F, T>>);

/// Rows to train on and rows to validate with.
pub(crate) fn split(samples: usize, part: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let kept = ((samples as f64 * part).round() as usize).max(1);
    if kept >= samples {
        return Err(Error::Split { samples, kept });
    }
    let mut rows: Vec<usize> = (0..samples).collect();
    rows.shuffle(&mut generator(seed, Stream::Split));
    let mut kept = rows.split_off(samples - kept);
    // In the order of the data, in which they are read fastest.
    rows.sort_unstable();
    kept.sort_unstable();
    Ok((rows, kept))
}

/// Refuses weights that are none, or not one for each sample.
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

/// ℓ and ∂ℓ/∂ŷ times the sample's weight.
pub(crate) fn weighted<'a, F: Scalar>(
    loss: impl SampleLoss<F> + 'a,
    weights: Option<&'a [F]>,
) -> impl SampleLoss<F> + 'a {
    move |i, y_hat, d| {
        let Some(weights) = weights else { return loss(i, y_hat, d) };
        if weights[i] == F::ZERO {
            // Not a product: its loss may be infinite.
            d.fill(F::ZERO);
            return 0.0;
        }
        let value = loss(i, y_hat, d);
        d.iter_mut().for_each(|d| *d = *d * weights[i]);
        value * weights[i].to_f64()
    }
}
