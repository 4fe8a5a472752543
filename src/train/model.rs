//! A network with what its inputs go through first: what training makes and prediction needs.

use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};

use crate::engine::engine::{Engine, loss_block};
use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::linalg::threads::one_blas_thread;
use crate::network::loss::Loss;
use crate::network::mlp::Mlp;
use crate::network::standardizer::Standardizer;
use crate::train::dataset::Dataset;

/// A network, and the standardisation of its inputs if it was trained with one.
///
/// ```
/// use gemmprop::{Constant, Dataset, Mlp, Model, SquaredError};
/// use ndarray::array;
///
/// let model = Model::from(Mlp::<f64>::he(&[1, 8, 1], Constant::EveryLayer, 0)?);
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// let residuals = model.predict_one(x.view())? - &y; // one number a sample, as y has
/// let loss = model.loss(Dataset::new(x.view(), y.view()), &SquaredError)?;
/// assert!((loss - residuals.mapv(|r| r * r / 2.0).sum() / 3.0).abs() < 1e-12);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Model<F> {
    /// The network, which reads standardised inputs.
    pub mlp: Mlp<F>,
    /// What is done to x before.
    pub standardizer: Option<Standardizer>,
}

/// A network that reads its inputs as they are, until a trainer standardises them.
impl<F> From<Mlp<F>> for Model<F> {
    fn from(mlp: Mlp<F>) -> Self {
        Self { mlp, standardizer: None }
    }
}

/// A model that is only looked at: made of `&Model`, or of `&Mlp` for a network that reads its
/// inputs as they are.
#[derive(Debug)]
pub struct ModelRef<'a, F> {
    pub(crate) mlp: &'a Mlp<F>,
    pub(crate) standardizer: Option<&'a Standardizer>,
}

impl<'a, F> From<&'a Model<F>> for ModelRef<'a, F> {
    fn from(model: &'a Model<F>) -> Self {
        Self { mlp: &model.mlp, standardizer: model.standardizer.as_ref() }
    }
}

impl<'a, F> From<&'a Mlp<F>> for ModelRef<'a, F> {
    fn from(mlp: &'a Mlp<F>) -> Self {
        Self { mlp, standardizer: None }
    }
}

impl<F: Scalar> Model<F> {
    /// ŷ for each row of x: (samples, m).
    ///
    /// # Errors
    /// As [`Mlp::predict`], and [`Error::Standardized`] for a number of x that is too large to be
    /// standardised; [`Error::Shape`] for a standardisation of other inputs than the network's.
    pub fn predict(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
        self.mlp.predict(self.inputs(x)?.view())
    }

    /// ŷ for each row of x of a network with one output: (samples), as [`Mlp::predict_one`] has it.
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and [`Error::OneOutput`] for a network with more.
    pub fn predict_one(&self, x: ArrayView2<F>) -> Result<Array1<F>> {
        self.mlp.predict_one(self.inputs(x)?.view())
    }

    /// The class of each row of x, as [`Mlp::classify`] has it.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn classify(&self, x: ArrayView2<F>) -> Result<Array1<usize>> {
        self.mlp.classify(self.inputs(x)?.view())
    }

    /// The mean loss over data, (1/n) Σ wᵢ ℓ(ŷᵢ, yᵢ) with wᵢ = 1 unless the data have weights: what
    /// a [`Trainer`](crate::Trainer) records as the validation loss. Its bits do not depend on the
    /// number of threads. Infinite if a loss is beyond the number type.
    ///
    /// # Errors
    /// As [`predict`](Self::predict); what the loss refuses in y; [`Error::Length`] or
    /// [`Error::Weight`] for weights that do not fit.
    pub fn loss<L: Loss<F>>(&self, data: Dataset<'_, F, L::Target>, loss: &L) -> Result<f64> {
        self.check()?;
        data.check(&self.mlp, loss)?;
        let _one = one_blas_thread()?;
        let (samples, block) = (data.samples(), loss_block(data.samples()));
        let prepared = data.prepared();
        let read = prepared.samples(None, self.standardizer.as_ref(), loss);
        let sum = Engine::new(&self.mlp, block).loss(self.mlp.parameters(), (samples, block), &read);
        if !sum.is_finite() {
            // Is it that of an output which is not finite? That has a place. Samples of weight 0
            // have no part in the sum.
            let mut x = data.x.to_owned();
            for (row, _) in data.weights.into_iter().flatten().enumerate().filter(|&(_, &weight)| weight == F::ZERO) {
                x.row_mut(row).fill(F::ZERO);
            }
            self.predict(x.view())?;
        }
        if sum.is_nan() {
            return Err(Error::Diverged { what: "loss", at: None, found: sum, last: None });
        }
        Ok(sum / samples as f64)
    }

    /// Refuses a standardisation of other inputs than the network's.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.standardizer {
            Some(standardizer) if standardizer.mean.len() != self.mlp.inputs() => Err(Error::Shape {
                what: "standardizer",
                expected: vec![self.mlp.inputs()],
                found: vec![standardizer.mean.len()],
            }),
            _ => Ok(()),
        }
    }

    /// x as the network reads it.
    fn inputs<'a>(&self, x: ArrayView2<'a, F>) -> Result<CowArray<'a, F, Ix2>> {
        let Some(standardizer) = &self.standardizer else { return Ok(x.into()) };
        self.check()?;
        self.mlp.check_batch(x)?;
        Ok(standardizer.transform(x)?.into())
    }
}
