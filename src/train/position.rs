//! Where a run stands: what changes from batch to batch and from epoch to epoch, beside θ and the
//! moments.

use crate::optim::learning_rate::SchedulePoint;
use crate::train::settings::TrainingSettings;

/// The lowest loss of the epochs so far, and a count of epochs without a new one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct LowestLoss {
    #[cfg_attr(feature = "files", serde(with = "crate::train::history::exact_or_none", default))]
    pub(crate) loss: Option<f64>,
    pub(crate) since: usize,
}

impl LowestLoss {
    /// Takes the loss of the next epoch. Returns whether it is a new lowest one; a NaN is not.
    pub(crate) fn update(&mut self, loss: f64) -> bool {
        let improves = self.loss.map_or(loss < f64::INFINITY, |lowest| loss < lowest);
        (self.loss, self.since) = if improves { (Some(loss), 0) } else { (self.loss, self.since + 1) };
        improves
    }
}

/// What the record of an epoch has of its last step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct LastStep {
    pub(crate) learning_rate: f64,
    #[cfg_attr(feature = "files", serde(with = "crate::train::history::exact"))]
    pub(crate) gradient_norm: f64,
}

/// Where a run stands. The names of the fields in files are those of the first version.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Position {
    /// Epochs finished.
    pub(crate) epoch: usize,
    /// Batches finished in the running epoch; 0 between epochs.
    pub(crate) batch: usize,
    /// The last step of the running epoch once all batches are finished: what follows, an observer
    /// or a validation, may fail, and is then done by the next call.
    #[cfg_attr(feature = "files", serde(default, skip_serializing_if = "Option::is_none"))]
    pub(crate) last_step: Option<LastStep>,
    /// Samples that the running epoch trains on; 0 between epochs.
    pub(crate) samples: usize,
    /// Rows of the data of the running or last epoch, including those kept for validation.
    pub(crate) rows: usize,
    /// The parts that the data of the running epoch are cut into, if it trains part by part; none
    /// between epochs.
    #[cfg_attr(feature = "files", serde(default, skip_serializing_if = "Option::is_none"))]
    pub(crate) chunks: Option<usize>,
    /// Σ ℓ over the finished batches of the running epoch; infinite if the losses are finite and
    /// their sum is not.
    #[cfg_attr(feature = "files", serde(rename = "sum", with = "crate::train::history::exact"))]
    pub(crate) loss_sum: f64,
    /// Steps made by the trainer, single ones included.
    pub(crate) steps: u64,
    /// Mean ℓ of the last step.
    #[cfg_attr(feature = "files", serde(rename = "last", with = "crate::train::history::exact_or_none", default))]
    pub(crate) last_loss: Option<f64>,
    /// Wall time spent in calls.
    pub(crate) seconds: f64,
    /// The lowest loss, with a count of epochs that begins anew at each plateau.
    pub(crate) plateau: LowestLoss,
    /// Plateaus so far, each of which has lowered the learning rate.
    pub(crate) plateaus: u32,
    /// Weight decay that is still to be applied, as in
    /// [`WeightDecay::pending`](crate::optim::rule::WeightDecay::pending).
    #[cfg_attr(feature = "files", serde(rename = "decay", default))] // an older version did not have it
    pub(crate) pending_decay: f64,
    /// The lowest loss, with the count of epochs that early stopping compares with its patience.
    #[cfg_attr(feature = "files", serde(rename = "least"))]
    pub(crate) lowest: LowestLoss,
    pub(crate) stopped_early: bool,
}

impl Position {
    /// The point at which the schedule is evaluated for the next step, in an epoch of `batches`
    /// batches.
    pub(crate) fn schedule_point(&self, training: &TrainingSettings, batches: usize) -> SchedulePoint {
        SchedulePoint {
            steps: self.steps,
            epoch: self.epoch,
            fraction: self.batch as f64 / batches as f64,
            epochs: training.epochs,
            plateaus: self.plateaus,
        }
    }

    /// Ends the running epoch. Its loss decides on plateaus and early stopping. Returns whether it
    /// is the lowest so far.
    pub(crate) fn end_epoch(&mut self, loss: f64, training: &TrainingSettings) -> bool {
        (self.epoch, self.batch, self.samples, self.loss_sum) = (self.epoch + 1, 0, 0, 0.0);
        (self.chunks, self.last_step) = (None, None);
        let patience = training.learning_rate.patience();
        if !self.plateau.update(loss) && patience.is_some_and(|patience| self.plateau.since > patience) {
            self.plateaus += 1;
            self.plateau.since = 0;
        }
        let improves = self.lowest.update(loss);
        self.stopped_early = training.early_stopping.is_some_and(|patience| self.lowest.since >= patience);
        improves
    }
}
