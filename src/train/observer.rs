//! Observers of a run: they are told of each batch and epoch, and may stop the run.

use std::ops::ControlFlow;

use crate::linalg::scalar::Scalar;
use crate::train::history::Record;
use crate::train::model::Model;

/// A batch of a run, after its step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BatchEnd {
    /// The number of its epoch, from 1.
    pub epoch: usize,
    /// The number of epochs the run is to have:
    /// [`TrainingSettings::epochs`](crate::TrainingSettings::epochs).
    pub epochs: usize,
    /// The number of the batch in its epoch, from 1.
    pub batch: usize,
    /// The number of batches in an epoch.
    pub batches: usize,
    /// The number of samples in the batch.
    pub samples: usize,
    /// The mean ℓ over the batch, before its step.
    pub loss: f64,
    /// η of the step.
    pub learning_rate: f64,
}

/// Receives each batch and each epoch of a run. `Break` stops the run there; the next call resumes
/// it as if it had not been stopped.
///
/// `()` observes nothing; [`on_epoch`] and [`on_batch`] make an observer of a closure; a pair of
/// observers is an observer.
pub trait Observer<F: Scalar> {
    /// Called after each batch. The helper threads of the run wait in the meantime, so an observer
    /// with much to do should stop the run and do it afterwards.
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        let _ = batch;
        ControlFlow::Continue(())
    }

    /// Called after each epoch.
    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        let _ = (record, model);
        ControlFlow::Continue(())
    }
}

impl<F: Scalar> Observer<F> for () {}

impl<F: Scalar, O: Observer<F> + ?Sized> Observer<F> for &mut O {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        (**self).batch(batch)
    }

    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        (**self).epoch(record, model)
    }
}

/// Both observers are called; either can stop the run.
impl<F: Scalar, A: Observer<F>, B: Observer<F>> Observer<F> for (A, B) {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        let (a, b) = (self.0.batch(batch), self.1.batch(batch));
        if a.is_break() { a } else { b }
    }

    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        let (a, b) = (self.0.epoch(record, model), self.1.epoch(record, model));
        if a.is_break() { a } else { b }
    }
}

/// What a closure of an observer returns: nothing, and the run goes on; or a [`ControlFlow`].
pub trait Flow {
    /// Whether the run goes on.
    fn flow(self) -> ControlFlow<()>;
}

impl Flow for () {
    fn flow(self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Flow for ControlFlow<()> {
    fn flow(self) -> Self {
        self
    }
}

/// An [`Observer`] that calls `call(record, model)` after each epoch.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use gemmprop::ndarray::array;
/// use gemmprop::{Bias, Dataset, Mlp, SquaredError, StopReason};
/// use gemmprop::{Trainer, TrainingSettings, on_epoch};
///
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// let mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
/// let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default())?;
/// let mut losses = Vec::new();
/// let stop_at_4 = on_epoch(|record, _model| {
///     losses.push(record.loss);
///     if record.epoch == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
/// });
/// assert_eq!(trainer.fit(Dataset::new(&x, &y), None, stop_at_4)?, StopReason::Observer);
/// assert_eq!(losses.len(), 4);
/// # Ok::<(), gemmprop::Error>(())
/// ```
pub fn on_epoch<F: Scalar, R: Flow>(call: impl FnMut(&Record, &Model<F>) -> R) -> impl Observer<F> {
    OnEpoch(call)
}

/// An [`Observer`] that calls `call(batch)` after each batch.
pub fn on_batch<F: Scalar, R: Flow>(call: impl FnMut(&BatchEnd) -> R) -> impl Observer<F> {
    OnBatch(call)
}

struct OnEpoch<C>(C);

impl<F: Scalar, R: Flow, C: FnMut(&Record, &Model<F>) -> R> Observer<F> for OnEpoch<C> {
    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        (self.0)(record, model).flow()
    }
}

struct OnBatch<C>(C);

impl<F: Scalar, R: Flow, C: FnMut(&BatchEnd) -> R> Observer<F> for OnBatch<C> {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        (self.0)(batch).flow()
    }
}
