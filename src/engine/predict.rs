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
    pub fn predict(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
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
    pub fn predict_one(&self, x: ArrayView2<F>) -> Result<Array1<F>> {
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
    pub fn classify(&self, x: ArrayView2<F>) -> Result<Array1<usize>> {
        let class = |y_hat: ArrayView1<F>| match y_hat.len() {
            1 => usize::from(y_hat[0] >= F::ZERO),
            outputs => (1..outputs).fold(0, |best, i| if y_hat[i] > y_hat[best] { i } else { best }),
        };
        Ok(self.predict(x)?.outer_iter().map(class).collect())
    }
}
