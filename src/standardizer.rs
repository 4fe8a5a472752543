//! Standardisation of the inputs: each column of x with mean 0 and standard deviation 1.
//!
//! ```text
//! mean_j = (1/n) Σ x_ij      s_j² = (1/n) Σ (x_ij − mean_j)²      z_ij = (x_ij − mean_j) · (1/s_j)
//! ```
//!
//! Mean and deviation are those of the data it was fitted on, the training part, and stay the same for all data after.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::error::{Error, Result};
use crate::network::not_finite;
use crate::scalar::Scalar;

/// Mean and scale of each column.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardizer<F> {
    pub(crate) mean: Array1<F>,
    /// 1/s
    pub(crate) factor: Array1<F>,
}

impl<F: Scalar> Standardizer<F> {
    /// Fitted on all rows of x. A column whose numbers are all the same is shifted and not scaled.
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::NotFinite`] for a column whose mean or deviation is beyond the number type.
    pub fn fit(x: ArrayView2<F>) -> Result<Self> {
        Self::of_rows(x, 0..x.nrows())
    }

    /// Fitted on some rows of x. Sums in double precision, in two passes: subtracting the mean first loses no digits to it.
    pub(crate) fn of_rows(x: ArrayView2<F>, rows: impl ExactSizeIterator<Item = usize> + Clone) -> Result<Self> {
        if rows.len() == 0 {
            return Err(Error::NoSamples);
        }
        let n = rows.len() as f64;
        let mut mean = Array1::from_elem(x.ncols(), 0.0);
        let mut square = mean.clone();
        rows.clone().for_each(|i| mean.iter_mut().zip(x.row(i)).for_each(|(sum, &x)| *sum += x.to_f64()));
        mean.map_inplace(|sum| *sum /= n);
        for i in rows {
            for ((sum, &mean), &x) in square.iter_mut().zip(&mean).zip(x.row(i)) {
                *sum += (x.to_f64() - mean) * (x.to_f64() - mean);
            }
        }
        let mut fitted = Self { mean: mean.mapv(F::from_f64), factor: Array1::from_elem(x.ncols(), F::ONE) };
        for (column, (&sum, &mean)) in square.iter().zip(&mean).enumerate() {
            let deviation = (sum / n).sqrt();
            // The mean of equal numbers is rounded; what is left of them is no deviation.
            let rounding = mean.abs() * n.sqrt() * f64::EPSILON;
            if deviation > rounding {
                fitted.factor[column] = F::from_f64(1.0 / deviation);
            }
            let numbers = [fitted.mean[column].to_f64(), deviation, fitted.factor[column].to_f64()];
            if let Some(&found) = numbers.iter().find(|number| !number.is_finite()) {
                return Err(Error::NotFinite { what: "mean and scale", row: None, column, found });
            }
        }
        Ok(fitted)
    }

    /// The mean of each column.
    #[must_use]
    pub fn mean(&self) -> ArrayView1<'_, F> {
        self.mean.view()
    }

    /// What each column is multiplied by: 1/s.
    #[must_use]
    pub fn factor(&self) -> ArrayView1<'_, F> {
        self.factor.view()
    }

    /// z for other rows.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of columns; [`Error::NotFinite`] for an x that is not finite, and [`Error::Standardized`] for
    /// one whose z is not.
    pub fn transform(&self, x: ArrayView2<F>) -> Result<Array2<F>> {
        if x.ncols() != self.mean.len() {
            let expected = vec![x.nrows(), self.mean.len()];
            return Err(Error::Shape { what: "x", expected, found: x.shape().to_vec() });
        }
        let mut z = Array2::from_elem(x.dim(), F::ZERO);
        if z.is_empty() {
            return Ok(z);
        }
        crate::rows::gather(x, |row| row, Some(self.slices()), z.view_mut());
        let Some((row, column, becomes)) = not_finite(z.view()) else { return Ok(z) };
        let found = x[(row, column)].to_f64();
        Err(if found.is_finite() {
            Error::Standardized { row, column, found, becomes }
        } else {
            Error::NotFinite { what: "x", row: Some(row), column, found }
        })
    }

    pub(crate) fn slices(&self) -> (&[F], &[F]) {
        (self.mean.as_slice().expect("made in one piece"), self.factor.as_slice().expect("made in one piece"))
    }
}
