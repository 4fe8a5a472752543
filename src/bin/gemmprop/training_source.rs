//! Samples in a file, as a trainer reads them.

use gemmprop::data::{ReadError, RowsFile};
use gemmprop::{Dataset, FitError, Loss, Observer, Source, StopReason, Trainer};
use ndarray::{Array1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

use crate::task::{Samples, Scale, X, read_scaled};

/// What a run is trained on.
pub(crate) enum Training<'a, T> {
    Memory(Dataset<'a, f32, T>),
    File(InFile<'a, T>),
}

/// Samples whose inputs are in a file, and their targets and weights in memory.
pub(crate) struct InFile<'a, T> {
    file: &'a RowsFile,
    scales: &'a [Scale],
    y: ArrayView2<'a, T>,
    weights: Option<&'a Array1<f32>>,
}

impl<'a, T: Copy> Training<'a, T> {
    /// Samples with these targets, in the form that the network learns.
    pub(crate) fn new(samples: &'a Samples, y: ArrayView2<'a, T>, weights: Option<&'a Array1<f32>>) -> Self {
        match &samples.x {
            X::File { file, scales } => Self::File(InFile { file, scales, y, weights }),
            X::Memory(x) => {
                let data = Dataset::new(x, y);
                Self::Memory(weights.map_or(data, |weights| data.weights(weights)))
            }
        }
    }
}

impl<'a, T: Copy + Default + Send + Sync> Training<'a, T> {
    /// Trains on them, with this test set if there is one.
    pub(crate) fn fit<L: Loss<f32, Target = T>>(
        &'a self,
        trainer: &mut Trainer<f32, L>,
        test: Option<Dataset<'a, f32, T>>,
        observer: impl Observer<f32>,
    ) -> Result<StopReason, FitError<ReadError>> {
        match self {
            Self::Memory(samples) => trainer.fit(*samples, test, observer).map_err(FitError::Training),
            Self::File(samples) => trainer.fit_source(samples, test, observer),
        }
    }
}

impl<T: Copy + Sync> Source<f32, T> for InFile<'_, T> {
    type Error = ReadError;

    fn samples(&self) -> usize {
        self.file.rows()
    }

    fn has_weights(&self) -> bool {
        self.weights.is_some()
    }

    fn read(
        &self,
        rows: &[usize],
        x: ArrayViewMut2<f32>,
        mut y: ArrayViewMut2<T>,
        mut weights: ArrayViewMut1<f32>,
    ) -> Result<(), ReadError> {
        read_scaled(self.file, self.scales, rows, x)?;
        for (i, &row) in rows.iter().enumerate() {
            y.row_mut(i).assign(&self.y.row(row));
            if let Some(all) = self.weights {
                weights[i] = all[row];
            }
        }
        Ok(())
    }
}
