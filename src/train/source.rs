//! Samples that are read when they are needed: from files, or from wherever a caller has them.

use std::convert::Infallible;
use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut1, ArrayViewMut2};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::train::dataset::Dataset;

/// Samples that [`Trainer::fit_source`](crate::Trainer::fit_source) reads a few batches at a time,
/// so that they need not fit into memory.
///
/// ```
/// use std::convert::Infallible;
/// use gemmprop::ndarray::{ArrayViewMut1, ArrayViewMut2, Axis};
/// use gemmprop::{Bias, Mlp, Source, SquaredError, Trainer, TrainingSettings};
///
/// /// Sample i has x = i/1000 and y = x².
/// struct Squares;
///
/// impl Source<f64, f64> for Squares {
///     type Error = Infallible;
///
///     fn samples(&self) -> usize {
///         1000
///     }
///
///     fn read(
///         &self,
///         rows: &[usize],
///         mut x: ArrayViewMut2<f64>,
///         mut y: ArrayViewMut2<f64>,
///         _weights: ArrayViewMut1<f64>,
///     ) -> Result<(), Infallible> {
///         for (i, &row) in rows.iter().enumerate() {
///             x[[i, 0]] = row as f64 / 1000.0;
///             y[[i, 0]] = x[[i, 0]] * x[[i, 0]];
///         }
///         Ok(())
///     }
/// }
///
/// let mlp = Mlp::he(&[1, 16, 1], Bias::EveryLayer, 1)?;
/// let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default())?;
/// trainer.fit_source(&Squares, None, ())?; // no validation set, no observer
/// assert!(trainer.history().records[9].loss < 0.01);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Source<F: Scalar, T>: Sync {
    /// Why samples could not be read.
    type Error: std::error::Error + Send;

    /// n, the number of samples, which stays the same during a run.
    fn samples(&self) -> usize;

    /// Whether the samples have [weights](Dataset::weights). By default they have none.
    fn has_weights(&self) -> bool {
        false
    }

    /// Writes the samples `rows`, which are in ascending order and without repetition, each to the
    /// next row of x: (`rows.len()`, `d[0]`) and of y: (`rows.len()`, numbers of a target), and its
    /// weight to `weights`, which is empty if there are none. Called on a thread of its own, while
    /// the samples before are trained on.
    ///
    /// # Errors
    /// For samples that cannot be read, or that have other widths than x or y.
    fn read(
        &self,
        rows: &[usize],
        x: ArrayViewMut2<'_, F>,
        y: ArrayViewMut2<'_, T>,
        weights: ArrayViewMut1<'_, F>,
    ) -> Result<(), Self::Error>;
}

/// The samples of a data set in memory, which has the widths of the network and the loss.
///
/// # Panics
/// [`read`](Source::read) panics for other widths.
impl<F: Scalar, T: Copy + Sync> Source<F, T> for Dataset<'_, F, T> {
    type Error = Infallible;

    fn samples(&self) -> usize {
        self.x.nrows()
    }

    fn has_weights(&self) -> bool {
        self.weights.is_some()
    }

    fn read(
        &self,
        rows: &[usize],
        mut x: ArrayViewMut2<'_, F>,
        mut y: ArrayViewMut2<'_, T>,
        mut weights: ArrayViewMut1<'_, F>,
    ) -> Result<(), Infallible> {
        for (i, &row) in rows.iter().enumerate() {
            x.row_mut(i).assign(&self.x.row(row));
            y.row_mut(i).assign(&self.y.row(row));
            if let Some(all) = self.weights {
                weights[i] = all[row];
            }
        }
        Ok(())
    }
}

/// Some neighbouring samples of a source: the part of a rank, of a file that all ranks can read.
/// Errors count rows from the first of them.
#[derive(Debug, Clone)]
pub struct SourcePart<'a, S> {
    source: &'a S,
    rows: Range<usize>,
}

impl<'a, S> SourcePart<'a, S> {
    /// These rows of a source.
    ///
    /// # Panics
    /// Unless the source has these rows.
    pub fn new<F: Scalar, T>(source: &'a S, rows: Range<usize>) -> Self
    where
        S: Source<F, T>,
    {
        let samples = source.samples();
        assert!(rows.start <= rows.end && rows.end <= samples, "rows {rows:?} of a source of {samples} samples");
        Self { source, rows }
    }
}

impl<F: Scalar, T, S: Source<F, T>> Source<F, T> for SourcePart<'_, S> {
    type Error = S::Error;

    fn samples(&self) -> usize {
        self.rows.len()
    }

    fn has_weights(&self) -> bool {
        self.source.has_weights()
    }

    fn read(
        &self,
        rows: &[usize],
        x: ArrayViewMut2<'_, F>,
        y: ArrayViewMut2<'_, T>,
        weights: ArrayViewMut1<'_, F>,
    ) -> Result<(), S::Error> {
        let rows: Vec<usize> = rows.iter().map(|row| self.rows.start + row).collect();
        self.source.read(&rows, x, y, weights)
    }
}

/// Why training on a [`Source`] has failed.
#[derive(Debug, thiserror::Error)]
pub enum FitError<E: std::error::Error> {
    /// Samples could not be read. The steps before have been made.
    #[error(transparent)]
    Source(E),
    /// As in [`Trainer::fit`](crate::Trainer::fit). Samples are checked when they are read, so the
    /// steps before have been made; rows are those of the source.
    #[error(transparent)]
    Training(#[from] Error),
}

/// Samples that have been read: some steps of an epoch, say.
pub(crate) struct Chunk<F, T> {
    /// The rows of the source in ascending order.
    rows: Vec<usize>,
    /// Sample i is row `order[i]` of the buffers.
    pub(crate) order: Vec<usize>,
    x: Vec<F>,
    y: Vec<T>,
    weights: Vec<F>,
    inputs: usize,
    targets: usize,
}

impl<F: Scalar, T: Copy + Default> Chunk<F, T> {
    /// An empty one, for samples with so many inputs and numbers of a target.
    pub(crate) fn new(inputs: usize, targets: usize) -> Self {
        Self { rows: vec![], order: vec![], x: vec![], y: vec![], weights: vec![], inputs, targets }
    }

    /// Reads the samples `wanted` in place of those that were here, and checks them.
    pub(crate) fn read<S: Source<F, T>>(
        &mut self,
        source: &S,
        wanted: impl ExactSizeIterator<Item = usize>,
        check: impl Fn(&Dataset<F, T>) -> Result<()>,
    ) -> Result<(), FitError<S::Error>> {
        let len = wanted.len();
        let mut sorted: Vec<(usize, usize)> = wanted.enumerate().map(|(i, row)| (row, i)).collect();
        sorted.sort_unstable();
        self.rows.clear();
        self.rows.extend(sorted.iter().map(|&(row, _)| row));
        self.order.resize(len, 0);
        sorted.iter().enumerate().for_each(|(at, &(_, i))| self.order[i] = at);
        self.x.resize(len * self.inputs, F::ZERO);
        self.y.resize(len * self.targets, T::default());
        self.weights.resize(if source.has_weights() { len } else { 0 }, F::ZERO);
        let x = ArrayViewMut2::from_shape((len, self.inputs), &mut self.x).expect("resized");
        let y = ArrayViewMut2::from_shape((len, self.targets), &mut self.y).expect("resized");
        let weights = ArrayViewMut1::from(&mut self.weights);
        if len == 0 {
            return Ok(());
        }
        source.read(&self.rows, x, y, weights).map_err(FitError::Source)?;
        check(&self.dataset()).map_err(|error| FitError::Training(error.at_row(|row| self.rows[row])))
    }

    /// The samples, in the order of their rows.
    pub(crate) fn dataset(&self) -> Dataset<'_, F, T> {
        let len = self.rows.len();
        let view = |width, all| ArrayView2::from_shape((len, width), all).expect("as it was read");
        let y = ArrayView2::from_shape((len, self.targets), &self.y).expect("as it was read");
        let weights = (!self.weights.is_empty()).then(|| self.weights.as_slice().into());
        Dataset { x: view(self.inputs, &self.x), y, weights }
    }
}
