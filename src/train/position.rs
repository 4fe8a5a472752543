//! Where a run stands: what changes from batch to batch and epoch to epoch beside the numbers of the network.

use crate::optim::learning_rate::Now;
use crate::train::training::Training;

/// The least loss so far and the epochs since.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Least {
    #[cfg_attr(feature = "files", serde(with = "crate::train::history::exact_or_none", default))]
    pub(crate) loss: Option<f64>,
    pub(crate) since: usize,
}

impl Least {
    /// Is this loss, of the next epoch, a new least one? A NaN is not.
    pub(crate) fn improves(&mut self, loss: f64) -> bool {
        let improves = self.loss.map_or(loss < f64::INFINITY, |least| loss < least);
        (self.loss, self.since) = if improves { (Some(loss), 0) } else { (self.loss, self.since + 1) };
        improves
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Position {
    /// Epochs done.
    pub(crate) epoch: usize,
    /// Batches done of the one that runs, and the samples that it trains on, if it has begun.
    pub(crate) batch: usize,
    pub(crate) samples: usize,
    /// Rows of its data in all, with those that are kept for validation.
    pub(crate) rows: usize,
    /// Σ ℓ over them; infinite if the losses are finite and their sum is not.
    #[cfg_attr(feature = "files", serde(with = "crate::train::history::exact"))]
    pub(crate) sum: f64,
    /// StepPolicy over the life of the trainer.
    pub(crate) steps: u64,
    /// Mean ℓ of the last one.
    #[cfg_attr(feature = "files", serde(with = "crate::train::history::exact_or_none", default))]
    pub(crate) last: Option<f64>,
    /// Wall time inside of calls.
    pub(crate) seconds: f64,
    /// Of the current learning rate, and how often it has been lowered.
    pub(crate) plateau: Least,
    pub(crate) plateaus: u32,
    /// Weight decay that is still to be applied, as [`Decay`](crate::optim::optimizer::Decay) has it.
    #[cfg_attr(feature = "files", serde(default))] // an older version did not have it
    pub(crate) decay: f64,
    /// Over all epochs.
    pub(crate) least: Least,
    pub(crate) stopped_early: bool,
}

impl Position {
    pub(crate) fn now(&self, training: &Training, batches: usize) -> Now {
        Now {
            steps: self.steps,
            epoch: self.epoch,
            part: self.batch as f64 / batches as f64,
            epochs: training.epochs,
            plateaus: self.plateaus,
            decay: self.decay,
        }
    }
}
