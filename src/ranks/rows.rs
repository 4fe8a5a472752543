//! The samples of a rank, in memory or read when they are needed.

use std::fmt::Display;
use std::ops::{ControlFlow, Range};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::train::dataset::Dataset;
use crate::train::from_source::{ReadAhead, chunk_samples};
use crate::train::source::{FitError, Source};

/// The samples of a rank.
pub(crate) trait Rows<F: Scalar, T> {
    type Error: Display + From<Error>;

    /// The number of samples.
    fn samples(&self) -> usize;

    /// How many of these samples are to be asked for at a time, in multiples of `unit`.
    fn at_a_time(&self, unit: usize) -> usize;

    /// Calls `take(range, data, rows)` for the samples `order[range]` of each range in turn, where
    /// sample i of the range is row `rows[i]` of the data.
    fn for_each<L: Loss<F, Target = T>>(
        &self,
        order: &[usize],
        ranges: impl Iterator<Item = Range<usize>> + Clone + Send,
        of: (&L, usize),
        take: impl FnMut(Range<usize>, &Dataset<F, T>, &[usize]) -> Result<ControlFlow<()>>,
    ) -> Result<(), Self::Error>;
}

/// Samples in memory, which were checked.
impl<F: Scalar, T: Copy + Send + Sync> Rows<F, T> for Dataset<'_, F, T> {
    type Error = Error;

    fn samples(&self) -> usize {
        Dataset::samples(self)
    }

    fn at_a_time(&self, _unit: usize) -> usize {
        usize::MAX
    }

    fn for_each<L: Loss<F, Target = T>>(
        &self,
        order: &[usize],
        ranges: impl Iterator<Item = Range<usize>> + Clone + Send,
        _of: (&L, usize),
        mut take: impl FnMut(Range<usize>, &Dataset<F, T>, &[usize]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        for range in ranges {
            if take(range.clone(), self, &order[range])?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Samples of a source, which are read ahead.
impl<F: Scalar, T: Copy + Default + Send + Sync, S: Source<F, T>> Rows<F, T> for ReadAhead<'_, S> {
    type Error = FitError<S::Error>;

    fn samples(&self) -> usize {
        self.source.samples()
    }

    fn at_a_time(&self, unit: usize) -> usize {
        chunk_samples(unit.max(1), self.inputs)
    }

    fn for_each<L: Loss<F, Target = T>>(
        &self,
        order: &[usize],
        ranges: impl Iterator<Item = Range<usize>> + Clone + Send,
        of: (&L, usize),
        mut take: impl FnMut(Range<usize>, &Dataset<F, T>, &[usize]) -> Result<ControlFlow<()>>,
    ) -> Result<(), Self::Error> {
        self.for_each_part(|i| order[i], ranges, of, |range, chunk| take(range, &chunk.dataset(), &chunk.order))
    }
}
