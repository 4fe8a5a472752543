//! Who is told of a run while it goes on, and may stop it.

use std::ops::ControlFlow;

use crate::linalg::scalar::Scalar;
use crate::train::history::Record;
use crate::train::model::Model;

/// A batch that has been learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// Its epoch, from 1, and how many the run is to have.
    pub epoch: usize,
    /// See [`Training::epochs`](crate::Training::epochs).
    pub epochs: usize,
    /// Its number in the epoch, from 1, and how many there are.
    pub batch: usize,
    /// Batches of an epoch.
    pub batches: usize,
    /// Its samples.
    pub samples: usize,
    /// Its mean ℓ, before the update with it.
    pub loss: f64,
    /// η of the update.
    pub learning_rate: f64,
}

/// Is told of each batch and each epoch. `Break` stops the run there; a next call goes on from that
/// point as if nothing had been.
///
/// `()` observes nothing; a pair of observers is one.
pub trait Observer<F: Scalar> {
    /// After a batch. The helpers of the run wait meanwhile, so what takes long should stop the run
    /// and be done after it.
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        let _ = batch;
        ControlFlow::Continue(())
    }

    /// After an epoch.
    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        let _ = (record, model);
        ControlFlow::Continue(())
    }
}

impl<F: Scalar> Observer<F> for () {}

impl<F: Scalar, O: Observer<F> + ?Sized> Observer<F> for &mut O {
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        (**self).batch(batch)
    }

    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        (**self).epoch(record, model)
    }
}

/// Both are told; either can stop.
impl<F: Scalar, A: Observer<F>, B: Observer<F>> Observer<F> for (A, B) {
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        let (a, b) = (self.0.batch(batch), self.1.batch(batch));
        if a.is_break() { a } else { b }
    }

    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        let (a, b) = (self.0.epoch(record, model), self.1.epoch(record, model));
        if a.is_break() { a } else { b }
    }
}
