//! Observers of a run: they are told of each batch and epoch, and may stop the run.

use std::ops::ControlFlow;

use crate::linalg::scalar::Scalar;
use crate::train::history::Record;
use crate::train::model::Model;

/// A batch of a run, after its step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchEnd {
    /// The number of its epoch, from 1.
    pub epoch: usize,
    /// The number of epochs the run is to have: [`Training::epochs`](crate::Training::epochs).
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
/// `()` observes nothing; a pair of observers is an observer.
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
