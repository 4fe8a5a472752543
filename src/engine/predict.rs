//! Predictions of a network.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

#[cfg(feature = "blas")]
use crate::engine::blas_predict;
use crate::engine::choice::is_native;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::native::predict::NativePredictor;
use crate::network::mlp::{Mlp, check_outputs};

impl<F: Scalar> Mlp<F> {
    /// ŷ for each row of x: (samples, m), as the loss reads it: before a softmax or a logistic
    /// function. Keeps nothing of the layers between.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NoSamples`] or [`Error::NotFinite`] for an x that does not fit;
    /// [`Error::Output`] for a ŷ that is not finite; [`Error::BlasThreads`].
    pub fn predict<'x>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array2<F>> {
        let x = x.into();
        self.check_batch(x)?;
        let _one = one_blas_thread()?;
        let y_hat = match is_native(self, x.nrows(), x.nrows()) {
            true => {
                let mut y_hat = Array2::from_elem((x.nrows(), self.outputs()), F::ZERO);
                NativePredictor::new(self, x.nrows()).predict(x, y_hat.view_mut());
                y_hat
            }
            #[cfg(feature = "blas")]
            false => blas_predict::predict(self, x),
            #[cfg(not(feature = "blas"))]
            false => unreachable!("without BLAS, all is native"),
        };
        check_outputs(y_hat.view())?;
        Ok(y_hat)
    }

    /// ŷ for each row of x of a network with one output: (samples), in the shape of targets with
    /// one number per sample. (Beside those, the (samples, 1) of [`predict`](Self::predict) would
    /// be broadcast to (samples, samples).)
    ///
    /// # Errors
    /// [`Error::OneOutput`] for a network with more; as [`predict`](Self::predict).
    pub fn predict_one<'x>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array1<F>> {
        if self.outputs() != 1 {
            return Err(Error::OneOutput { found: self.outputs() });
        }
        Ok(self.predict(x)?.remove_axis(Axis(1)))
    }

    /// The class of each row of x: the index of the largest ŷ, the most probable one by softmax (of
    /// equal ones the first); of a network with one output, 1 where ŷ ≥ 0 and else 0, the more
    /// probable one by the logistic function.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn classify<'x>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array1<usize>> {
        let class = |y_hat: ArrayView1<F>| match y_hat.len() {
            1 => usize::from(y_hat[0] >= F::ZERO),
            outputs => (1..outputs).fold(0, |best, i| if y_hat[i] > y_hat[best] { i } else { best }),
        };
        Ok(self.predict(x)?.outer_iter().map(class).collect())
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
        share_of_equal(self.classify(x)?.view(), labels.into())
    }
}

/// The share of rows whose class is their label.
pub(crate) fn share_of_equal(classes: ArrayView1<usize>, labels: ArrayView1<usize>) -> Result<f64> {
    if labels.len() != classes.len() {
        return Err(Error::Length { what: "labels", expected: classes.len(), found: labels.len() });
    }
    let equal = classes.iter().zip(labels).filter(|(class, label)| class == label).count();
    Ok(equal as f64 / classes.len() as f64)
}
