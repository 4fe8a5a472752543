//! Predictions again and again, as a server makes them.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Slice};

#[cfg(feature = "blas")]
use crate::engine::blas_predict::BlasPredictor;
use crate::engine::choice::is_native;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::native::predict::NativePredictor;
use crate::network::mlp::{Mlp, check_inputs, check_outputs};
use crate::network::standardizer::Standardizer;
use crate::steps::blocks::{even_block, ranges};

/// Predictions into the caller's memory: with the parameters that a network had when this was made,
/// in buffers that are made once.
///
/// A call allocates nothing after the first one with its number of rows, as long as there are at
/// most 8 such numbers, except to call a helper. It copies no parameters: natively,
/// [`Mlp::predict`] copies them into panels first, which costs more than the products where the
/// rows are few.
///
/// ```
/// use gemmprop::{Bias, Mlp};
/// use ndarray::{Array2, array};
///
/// let mlp = Mlp::<f32>::he(&[2, 8, 3], Bias::EveryLayer, 1)?;
/// let mut predictor = mlp.predictor(64)?;
/// let mut y_hat = Array2::zeros((1, 3));
/// for x in [[1.0, 2.0], [3.0, 4.0]] {
///     predictor.predict_into(&array![x], &mut y_hat)?; // y_hat = ŷ
///     assert!(y_hat.iter().all(|y| y.is_finite()));
/// }
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Predictor<F: Scalar> {
    inputs: usize,
    outputs: usize,
    engine: Engine<F>,
    /// The standardisation, and room for the rows that it is applied to.
    standardized: Option<(Standardizer, Array2<F>)>,
}

/// The largest number of rows that are standardised together: as many as either engine's blocks
/// have, or more.
const STANDARDIZED_ROWS: usize = 512;

#[derive(Debug)]
enum Engine<F: Scalar> {
    #[cfg(feature = "blas")]
    Blas(BlasPredictor<F>),
    Native(NativePredictor<F>),
}

impl<F: Scalar> Mlp<F> {
    /// A [`Predictor`] of this network for calls of about so many rows: more are computed block by
    /// block, as are more than a few hundred.
    ///
    /// # Errors
    /// [`Error::NoSamples`] for no rows; [`Error::BlasThreads`].
    pub fn predictor(&self, rows: usize) -> Result<Predictor<F>> {
        Predictor::new(self, None, rows)
    }
}

impl<F: Scalar> Predictor<F> {
    pub(crate) fn new(mlp: &Mlp<F>, standardizer: Option<&Standardizer>, rows: usize) -> Result<Self> {
        if rows == 0 {
            return Err(Error::NoSamples);
        }
        let _one = one_blas_thread()?;
        // θ is copied once and for all, so the call in which that pays is a long one.
        let engine = match is_native(mlp, rows, usize::MAX) {
            true => Engine::Native(NativePredictor::new(mlp, rows)),
            #[cfg(feature = "blas")]
            false => Engine::Blas(BlasPredictor::new(mlp, rows)),
            #[cfg(not(feature = "blas"))]
            false => unreachable!("without BLAS, all is native"),
        };
        let standardized = standardizer
            .map(|by| (by.clone(), Array2::from_elem((even_block(rows, STANDARDIZED_ROWS), mlp.inputs()), F::ZERO)));
        Ok(Self { inputs: mlp.inputs(), outputs: mlp.outputs(), engine, standardized })
    }

    /// `y_hat` = ŷ for each row of x: (n, `d[0]`), (n, m). As [`Mlp::predict`] computes it, and of
    /// a [`Model`](crate::Model) with its standardisation; over BLAS the last bits may differ.
    ///
    /// # Errors
    /// As [`Mlp::predict`]; [`Error::Shape`] for a `y_hat` of another shape;
    /// [`Error::Standardized`] for a number of x that is too large to be standardised. If an error
    /// is found on the way, some rows of `y_hat` have been written.
    pub fn predict_into<'x, 'y>(
        &mut self,
        x: impl Into<ArrayView2<'x, F>>,
        y_hat: impl Into<ArrayViewMut2<'y, F>>,
    ) -> Result<()> {
        self.predict_views(x.into(), y_hat.into())
    }

    fn predict_views(&mut self, x: ArrayView2<F>, mut y_hat: ArrayViewMut2<F>) -> Result<()> {
        check_inputs(x, self.inputs)?;
        if y_hat.dim() != (x.nrows(), self.outputs) {
            let expected = vec![x.nrows(), self.outputs];
            return Err(Error::Shape { what: "y_hat", expected, found: y_hat.shape().to_vec() });
        }
        let _one = one_blas_thread()?;
        match &mut self.standardized {
            None => self.engine.predict(x, y_hat.view_mut()),
            Some((standardizer, z)) => {
                for rows in ranges(x.nrows(), even_block(x.nrows(), z.nrows())) {
                    let of_rows = Slice::from(rows.clone());
                    let mut z = z.slice_axis_mut(Axis(0), Slice::from(0..rows.len()));
                    standardizer.transform_into(x.slice_axis(Axis(0), of_rows), z.view_mut(), rows.start)?;
                    self.engine.predict(z.view(), y_hat.slice_axis_mut(Axis(0), of_rows));
                }
            }
        }
        check_outputs(y_hat.view())
    }
}

impl<F: Scalar> Engine<F> {
    fn predict(&mut self, x: ArrayView2<F>, y_hat: ArrayViewMut2<F>) {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas(predictor) => predictor.predict(x, y_hat),
            Self::Native(predictor) => predictor.predict(x, y_hat),
        }
    }
}
