//! Standardisation of the inputs: each column of x with mean 0 and standard deviation 1.
//!
//! ```text
//! mean_j = (1/n) Σ x_ij      s_j² = (1/n) Σ (x_ij − mean_j)²      z_ij = (x_ij − mean_j) · (1/s_j)
//! ```
//!
//! Everything is computed in double precision, and only z is rounded to the network's type: a mean
//! rounded to `f32` would shift a column of large numbers by more than they differ. A column is
//! constant if its largest and smallest numbers are equal; it is shifted and not scaled.
//!
//! Mean and deviation are those of the data that it was fitted on, the training part, and stay the
//! same for all later data.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::not_finite;

/// Mean and scale of each column.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardizer {
    pub(crate) mean: Array1<f64>,
    /// The factor 1/s of each column.
    pub(crate) factor: Array1<f64>,
}

/// A sum and what rounding has taken from it (Knuth's TwoSum, without a branch): good to one
/// rounding of the sum, and to n² roundings of roundings of Σ |x|.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        let of_x = sum - self.sum;
        self.lost += (self.sum - (sum - of_x)) + (x - of_x);
        self.sum = sum;
    }

    /// Adds a sum of other numbers.
    fn merge(&mut self, other: Self) {
        self.add(other.sum);
        self.lost += other.lost;
    }

    fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// The first pass of a fit over the rows: the mean of each column, and how far its numbers reach.
pub(crate) struct Means {
    n: f64,
    sums: Vec<Sum>,
    ranges: Vec<(f64, f64)>,
}

/// What ranks send each other of their passes: for each part of the rows its sums as numbers.
impl Means {
    /// The number of rows, and of each column its sum in two parts, its least and its largest
    /// number.
    pub(crate) fn to_numbers(&self) -> Vec<f64> {
        let columns = self.sums.iter().zip(&self.ranges);
        let columns = columns.flat_map(|(sum, &(least, most))| [sum.sum, sum.lost, least, most]);
        std::iter::once(self.n).chain(columns).collect()
    }

    /// What has these numbers.
    pub(crate) fn from_numbers(numbers: &[f64]) -> Self {
        let (columns, _) = numbers[1..].as_chunks::<4>();
        Self {
            n: numbers[0],
            sums: columns.iter().map(|&[sum, lost, ..]| Sum { sum, lost }).collect(),
            ranges: columns.iter().map(|&[.., least, most]| (least, most)).collect(),
        }
    }

    /// Adds the rows of another part.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| sum.merge(*other));
        for ((least, most), &(other_least, other_most)) in self.ranges.iter_mut().zip(&other.ranges) {
            (*least, *most) = (least.min(other_least), most.max(other_most));
        }
    }
}

impl Scales {
    /// Of each column its sum in two parts.
    pub(crate) fn sums(&self) -> Vec<f64> {
        self.sums.iter().flat_map(|sum| [sum.sum, sum.lost]).collect()
    }

    /// The same pass with these sums.
    pub(crate) fn with_sums(&self, numbers: &[f64]) -> Self {
        let (columns, _) = numbers.as_chunks::<2>();
        let sums = columns.iter().map(|&[sum, lost]| Sum { sum, lost }).collect();
        Self { n: self.n, mean: self.mean.clone(), units: self.units.clone(), sums }
    }

    /// Adds the rows of another part.
    pub(crate) fn merge(&mut self, numbers: &[f64]) {
        let (columns, _) = numbers.as_chunks::<2>();
        self.sums.iter_mut().zip(columns).for_each(|(sum, &[of, lost])| sum.merge(Sum { sum: of, lost }));
    }
}

/// A column whose sum is not finite.
pub(crate) struct BadColumn {
    pub(crate) column: usize,
    sum: f64,
}

impl BadColumn {
    /// The error if all numbers of the column are finite.
    pub(crate) fn error(&self) -> Error {
        Error::NotFinite { what: "mean and scale", row: None, column: self.column, found: self.sum }
    }
}

impl Means {
    pub(crate) fn new(columns: usize) -> Self {
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        Self { n: 0.0, sums: vec![Sum::default(); columns], ranges: vec![nothing; columns] }
    }

    pub(crate) fn add<F: Scalar>(&mut self, row: ArrayView1<F>) {
        self.n += 1.0;
        for ((&x, sum), (least, most)) in row.iter().zip(&mut self.sums).zip(&mut self.ranges) {
            let x = x.to_f64();
            sum.add(x);
            (*least, *most) = (least.min(x), most.max(x));
        }
    }

    /// The second pass. Without a row, every column would be constant: [`Scales::end`] refuses
    /// that.
    pub(crate) fn end(self) -> Result<Scales, BadColumn> {
        let Self { n, sums, ranges } = self;
        if let Some(column) = sums.iter().position(|sum| !sum.value().is_finite()) {
            return Err(BadColumn { column, sum: sums[column].sum });
        }
        if n == 0.0 {
            return Ok(Scales { n, mean: Array1::zeros(sums.len()), units: vec![0.0; sums.len()], sums });
        }
        // The mean of equal numbers is exactly that number.
        let mean = sums.iter().zip(&ranges).map(|(sum, &(least, most))| (sum.value() / n).clamp(least, most));
        let mean: Array1<f64> = mean.collect();
        // The largest distance from the mean: relative to it no square overflows, and the sum is at
        // least 1.
        let units = ranges.iter().zip(&mean).map(|(&(least, most), &mean)| (most - mean).max(mean - least)).collect();
        Ok(Scales { n, mean, units, sums: vec![Sum::default(); sums.len()] })
    }
}

/// The second pass of a fit, over the same rows in the same order. It subtracts the mean, which
/// loses no digits.
pub(crate) struct Scales {
    n: f64,
    mean: Array1<f64>,
    units: Vec<f64>,
    sums: Vec<Sum>,
}

impl Scales {
    pub(crate) fn add<F: Scalar>(&mut self, row: ArrayView1<F>) {
        for (((&x, sum), &mean), &unit) in row.iter().zip(&mut self.sums).zip(&self.mean).zip(&self.units) {
            let distance = (x.to_f64() - mean) / unit;
            sum.add(distance * distance);
        }
    }

    pub(crate) fn end(self) -> Result<Standardizer> {
        let Self { n, mean, units, sums } = self;
        if n == 0.0 {
            return Err(Error::NoSamples);
        }
        let factor = sums.iter().zip(&units).map(|(sum, &unit)| match unit {
            0.0 => 1.0,
            unit => 1.0 / (unit * (sum.value() / n).sqrt()),
        });
        let fitted = Standardizer { factor: factor.collect(), mean };
        for (column, &found) in fitted.factor.iter().enumerate() {
            if !found.is_finite() {
                return Err(Error::NotFinite { what: "mean and scale", row: None, column, found });
            }
        }
        Ok(fitted)
    }
}

impl Standardizer {
    /// Fits a standardiser on all rows of x.
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::NotFinite`] for a column with a NaN or an infinity, or whose
    /// sum or scale is beyond double precision.
    pub fn fit<'x, F: Scalar>(x: impl Into<ArrayView2<'x, F>>) -> Result<Self> {
        let x = x.into();
        Self::of_rows(x, 0..x.nrows())
    }

    /// A standardiser with this mean and factor 1/s of each column.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of factors than of means; [`Error::NotFinite`] for a
    /// number that is not finite.
    pub fn from_parts(mean: Array1<f64>, factor: Array1<f64>) -> Result<Self> {
        if mean.len() != factor.len() {
            return Err(Error::Shape { what: "factor", expected: vec![mean.len()], found: vec![factor.len()] });
        }
        for (what, numbers) in [("mean", &mean), ("factor", &factor)] {
            if let Some((column, &found)) = numbers.iter().enumerate().find(|(_, number)| !number.is_finite()) {
                return Err(Error::NotFinite { what, row: None, column, found });
            }
        }
        Ok(Self { mean, factor })
    }

    /// Fits a standardiser on some rows of x, in two passes.
    pub(crate) fn of_rows<F: Scalar>(x: ArrayView2<F>, rows: impl Iterator<Item = usize> + Clone) -> Result<Self> {
        let mut means = Means::new(x.ncols());
        rows.clone().for_each(|i| means.add(x.row(i)));
        let mut scales = means.end().map_err(|bad| {
            let mut of_column = rows.clone().map(|row| (row, x[(row, bad.column)].to_f64()));
            match of_column.find(|(_, x)| !x.is_finite()) {
                Some((row, x)) => Error::NotFinite { what: "x", row: Some(row), column: bad.column, found: x },
                None => bad.error(),
            }
        })?;
        rows.for_each(|i| scales.add(x.row(i)));
        scales.end()
    }

    /// The mean of each column.
    #[must_use]
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// The factor 1/s that each column is multiplied by.
    #[must_use]
    pub fn factor(&self) -> ArrayView1<'_, f64> {
        self.factor.view()
    }

    /// Standardises rows of x: each number is rounded once to `f64` where its mean is subtracted,
    /// once where it is multiplied, and then to F.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of columns; [`Error::NotFinite`] for an x that is not
    /// finite, and [`Error::Standardized`] for one whose z is not.
    pub fn transform<'x, F: Scalar>(&self, x: impl Into<ArrayView2<'x, F>>) -> Result<Array2<F>> {
        let x = x.into();
        if x.ncols() != self.mean.len() {
            let expected = vec![x.nrows(), self.mean.len()];
            return Err(Error::Shape { what: "x", expected, found: x.shape().to_vec() });
        }
        let mut z = Array2::from_elem(x.dim(), F::ZERO);
        self.transform_into(x, z.view_mut(), 0)?;
        Ok(z)
    }

    /// [`transform`](Self::transform), written to z, for an x with the right number of columns.
    /// Errors count its rows from `first`.
    pub(crate) fn transform_into<F: Scalar>(
        &self,
        x: ArrayView2<F>,
        mut z: ArrayViewMut2<F>,
        first: usize,
    ) -> Result<()> {
        for (x, mut z) in x.outer_iter().zip(z.outer_iter_mut()) {
            let columns = z.iter_mut().zip(x).zip(self.mean.iter().zip(&self.factor));
            columns.for_each(|((z, x), (mean, factor))| *z = F::from_f64((x.to_f64() - mean) * factor));
        }
        let Some((row, column, becomes)) = not_finite(z.view()) else { return Ok(()) };
        let (found, row) = (x[(row, column)].to_f64(), first + row);
        Err(if found.is_finite() {
            Error::Standardized { row, column, found, becomes }
        } else {
            Error::NotFinite { what: "x", row: Some(row), column, found }
        })
    }

    pub(crate) fn slices(&self) -> (&[f64], &[f64]) {
        (self.mean.as_slice().expect("made in one piece"), self.factor.as_slice().expect("made in one piece"))
    }
}
