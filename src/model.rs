//! A network with what its inputs go through first: what training makes and prediction needs.

use ndarray::{Array1, Array2, ArrayView2};

use crate::error::Result;
use crate::network::Mlp;
use crate::scalar::Scalar;
use crate::standardizer::Standardizer;

/// A network, and the standardisation of its inputs if it was trained with one.
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

/// A model that is only looked at: made of `&Model`, or of `&Mlp` for a network that reads its inputs as they are.
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
    /// As [`Mlp::predict`].
    pub fn predict(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
        match &self.standardizer {
            Some(standardizer) => self.mlp.predict(standardizer.transform(x)?.view()),
            None => self.mlp.predict(x),
        }
    }

    /// The class of each row of x, as [`Mlp::classify`] has it.
    ///
    /// # Errors
    /// As [`Mlp::predict`].
    pub fn classify(&self, x: ArrayView2<F>) -> Result<Array1<usize>> {
        match &self.standardizer {
            Some(standardizer) => self.mlp.classify(standardizer.transform(x)?.view()),
            None => self.mlp.classify(x),
        }
    }
}
