//! A network with the standardisation of its inputs: the result of training, and what prediction
//! needs.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, CowArray, Ix2};

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::engine::predictor::Predictor;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::mlp::Mlp;
use crate::network::probabilities::Probabilities;
use crate::network::standardizer::Standardizer;
use crate::steps::blocks::loss_block;
use crate::train::dataset::Dataset;

/// A network, and the standardisation of its inputs if it was trained with one.
///
/// ```
/// use gemmprop::{Bias, Dataset, Mlp, Model, SquaredError};
/// use ndarray::array;
///
/// let model = Model::from(Mlp::<f64>::he(&[1, 8, 1], Bias::EveryLayer, 0)?);
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// let residuals = model.predict_one(&x)? - &y; // one number for each sample, as in y
/// let loss = model.evaluate(Dataset::new(&x, &y), &SquaredError)?;
/// assert!((loss - residuals.mapv(|r| r * r / 2.0).sum() / 3.0).abs() < 1e-12);
/// # Ok::<(), gemmprop::Error>(())
/// ```
// The constructor from a checkpoint, `Model::load`, stands in `checkpoint`, which is above this
// file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model<F> {
    /// The network. It reads standardised inputs if there is a standardizer.
    pub mlp: Mlp<F>,
    /// The standardisation that is applied to x before the network.
    pub standardizer: Option<Standardizer>,
}

/// A model that does not standardise its inputs, unless a trainer adds that.
impl<F> From<Mlp<F>> for Model<F> {
    fn from(mlp: Mlp<F>) -> Self {
        Self { mlp, standardizer: None }
    }
}

/// A borrowed model, made from `&Model`, or from `&Mlp` for a network without standardisation.
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
    /// ŷ for each row of x: (n, `d[0]`). Returns (n, m).
    ///
    /// # Errors
    /// As [`Mlp::predict`]; [`Error::Standardized`] for a number of x that is too large to be
    /// standardised; [`Error::Shape`] for a standardisation with another number of inputs than the
    /// network.
    pub fn predict<'x>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array2<F>> {
        self.mlp.predict(&self.inputs(x.into())?)
    }

    /// ŷ for each row of x, of a network with one output, as by [`Mlp::predict_one`]. Returns (n).
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and [`Error::OneOutput`] for a network with more outputs.
    pub fn predict_one<'x>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array1<F>> {
        self.mlp.predict_one(&self.inputs(x.into())?)
    }

    /// The class of each row of x, as by [`Mlp::classify`]. Returns (n).
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn classify<'x>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array1<usize>> {
        self.mlp.classify(&self.inputs(x.into())?)
    }

    /// The probability of each class for each row of x, as the loss that the model was trained with
    /// reads ŷ: (n, 2) with [`Logistic`](crate::Logistic), (n, m) with
    /// [`SoftmaxCrossEntropy`](crate::SoftmaxCrossEntropy).
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and [`Error::Outputs`] for a loss that has no meaning for the
    /// network's outputs.
    pub fn predict_proba<'x, L: Probabilities<F>>(
        &self,
        x: impl Into<ArrayView2<'x, F>>,
        loss: &L,
    ) -> Result<Array2<F>> {
        let x = x.into();
        loss.target_len(self.mlp.outputs())?;
        let y_hat = self.predict(x)?;
        let mut p = Array2::from_elem((x.nrows(), loss.classes(self.mlp.outputs())), F::ZERO);
        let (mut of_row, mut p_of_row) = (vec![F::ZERO; y_hat.ncols()], vec![F::ZERO; p.ncols()]);
        for (y_hat, mut p) in y_hat.outer_iter().zip(p.outer_iter_mut()) {
            of_row.iter_mut().zip(y_hat).for_each(|(to, &y_hat)| *to = y_hat);
            loss.probabilities(&of_row, &mut p_of_row);
            p.iter_mut().zip(&p_of_row).for_each(|(p, &of_row)| *p = of_row);
        }
        Ok(p)
    }

    /// A [`Predictor`] of this model for calls of about so many rows.
    ///
    /// # Errors
    /// [`Error::NoSamples`] for no rows; [`Error::BlasThreads`]; [`Error::Shape`] for a
    /// standardisation with another number of inputs than the network.
    pub fn predictor(&self, rows: usize) -> Result<Predictor<F>> {
        self.check()?;
        Predictor::new(&self.mlp, self.standardizer.as_ref(), rows)
    }

    /// The share of rows of x whose [class](Self::classify) is their label, from 0 to 1.
    ///
    /// # Errors
    /// As [`predict`](Self::predict); [`Error::Length`] for another number of labels than of rows.
    pub fn accuracy<'x, 'y>(
        &self,
        x: impl Into<ArrayView2<'x, F>>,
        labels: impl Into<ArrayView1<'y, usize>>,
    ) -> Result<f64> {
        self.mlp.accuracy(&self.inputs(x.into())?, labels)
    }

    /// The mean loss over data, (1/n) Σ wᵢ ℓ(ŷᵢ, yᵢ), with wᵢ = 1 unless the data have weights. A
    /// [`Trainer`](crate::Trainer) records this as the validation loss. Its bits do not depend on
    /// the number of threads. It is infinite if a loss exceeds the range of the number type.
    ///
    /// # Errors
    /// As [`predict`](Self::predict); targets that the loss refuses; [`Error::Length`] or
    /// [`Error::Weight`] for weights that do not fit.
    pub fn evaluate<L: Loss<F>>(&self, data: Dataset<'_, F, L::Target>, loss: &L) -> Result<f64> {
        ModelRef::from(self).evaluate(data, loss)
    }

    /// Refuses a standardisation with another number of inputs than the network.
    pub(crate) fn check(&self) -> Result<()> {
        ModelRef::from(self).check()
    }

    /// x as the network reads it.
    fn inputs<'a>(&self, x: ArrayView2<'a, F>) -> Result<CowArray<'a, F, Ix2>> {
        let Some(standardizer) = &self.standardizer else { return Ok(x.into()) };
        self.check()?;
        self.mlp.check_batch(x)?;
        Ok(standardizer.transform(x)?.into())
    }
}

impl<F: Scalar> Mlp<F> {
    /// The mean loss over data, as by [`Model::evaluate`].
    ///
    /// # Errors
    /// As [`Model::evaluate`].
    pub fn evaluate<L: Loss<F>>(&self, data: Dataset<'_, F, L::Target>, loss: &L) -> Result<f64> {
        ModelRef::from(self).evaluate(data, loss)
    }
}

impl<F: Scalar> ModelRef<'_, F> {
    /// [`Model::evaluate`]
    fn evaluate<L: Loss<F>>(&self, data: Dataset<'_, F, L::Target>, loss: &L) -> Result<f64> {
        let Self { mlp, standardizer } = *self;
        self.check()?;
        data.check(mlp, loss)?;
        let _one_blas_thread = one_blas_thread()?;
        let (samples, block) = (data.samples(), loss_block(data.samples()));
        let prepared = data.prepared();
        let read = prepared.samples(None, standardizer, loss);
        let mut engine = Engine::new(mlp, block, is_native(mlp, block, samples));
        let sum = engine.loss(mlp.parameters(), samples, block, &read);
        if !sum.is_finite() {
            // If an output is not finite, predict returns an error that says where. Samples of
            // weight 0 do not count.
            let mut x = data.x.to_owned();
            for (row, _) in data.weights.into_iter().flatten().enumerate().filter(|&(_, &weight)| weight == F::ZERO) {
                x.row_mut(row).fill(F::ZERO);
            }
            match standardizer {
                Some(standardizer) => mlp.predict(&standardizer.transform(&x)?)?,
                None => mlp.predict(&x)?,
            };
        }
        if sum.is_nan() {
            return Err(Error::Diverged { what: "loss", at: None, found: sum, last: None });
        }
        Ok(sum / samples as f64)
    }

    /// Refuses a standardisation with another number of inputs than the network.
    pub(crate) fn check(&self) -> Result<()> {
        match self.standardizer {
            Some(standardizer) if standardizer.mean.len() != self.mlp.inputs() => Err(Error::Shape {
                what: "standardizer",
                expected: vec![self.mlp.inputs()],
                found: vec![standardizer.mean.len()],
            }),
            _ => Ok(()),
        }
    }
}
