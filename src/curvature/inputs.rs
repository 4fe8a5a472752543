//! The data of a Hessian or of a landscape, checked, standardised and weighted.

use std::ops::Range;

use ndarray::{Axis, CowArray, Ix1, Ix2};

use crate::error::Result;
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, TwiceDifferentiable, curvature, sample_loss};
use crate::steps::samples::Samples;
use crate::train::dataset::{Dataset, weighted};
use crate::train::model::ModelRef;

/// The largest number of samples that go through a product together, which is the number of rows of
/// R Z and R Δ.
pub(crate) const BLOCK: usize = 2048;

/// Data as a network reads them.
#[derive(Debug)]
pub(crate) struct Inputs<'a, F, T> {
    pub(crate) x: CowArray<'a, F, Ix2>,    // (n, d[0]), row-major, standardised
    y: CowArray<'a, T, Ix2>,               // (n, targets of a sample), row-major
    weights: Option<CowArray<'a, F, Ix1>>, // (n), in one piece
}

impl<'a, F: Scalar, T: Copy + Send + Sync> Inputs<'a, F, T> {
    /// Checks the data, and standardises them as the model does.
    pub(crate) fn new<L: Loss<F, Target = T>>(model: &ModelRef<F>, data: Dataset<'a, F, T>, loss: &L) -> Result<Self> {
        data.check(model.mlp, loss)?;
        let Dataset { x, y, weights } = data;
        let mut x = match model.standardizer {
            Some(standardizer) => standardizer.transform(x)?.into(),
            None => row_major(x),
        };
        // Absent samples: their z could be infinite, and ∞ · 0 is NaN.
        for (row, _) in weights.into_iter().flatten().enumerate().filter(|&(_, &weight)| weight == F::ZERO) {
            x.row_mut(row).fill(F::ZERO);
        }
        Ok(Self { x, y: row_major(y), weights: weights.map(row_major) })
    }

    pub(crate) fn len(&self) -> usize {
        self.x.nrows()
    }

    fn weights(&self) -> Option<&[F]> {
        self.weights.as_ref().map(|weights| weights.as_slice().expect("in one piece"))
    }

    /// A block of the samples, counted from its first.
    pub(crate) fn samples<'s, L: Loss<F, Target = T>>(
        &'s self,
        rows: Range<usize>,
        loss: &'s L,
    ) -> Samples<'s, F, impl SampleLoss<F> + 's> {
        let y = self.y.slice_axis(Axis(0), rows.clone().into());
        let weights = self.weights().map(|weights| &weights[rows.clone()]);
        let x = self.x.slice_axis(Axis(0), rows.into());
        let (cost, loss) = (loss.cost(), weighted(sample_loss(loss, y), weights));
        Samples { x, order: None, standardize: None, weights: None, loss, cost }
    }

    /// Writes w_i (∂²ℓ/∂ŷ²) v of sample i.
    pub(crate) fn curvature<'s, L: TwiceDifferentiable<F, Target = T>>(
        &'s self,
        loss: &'s L,
    ) -> impl Fn(usize, &[F], &[F], &mut [F]) + Sync + 's {
        let (curvature, weights) = (curvature(loss, self.y.view()), self.weights());
        move |i, y_hat, v, hv| match weights.map(|weights| weights[i]) {
            // Assigned and not multiplied by 0, as in the gradient.
            Some(weight) if weight == F::ZERO => hv.fill(F::ZERO),
            weight => {
                curvature(i, y_hat, v, hv);
                if let Some(weight) = weight {
                    hv.iter_mut().for_each(|hv| *hv = weight * *hv);
                }
            }
        }
    }
}
