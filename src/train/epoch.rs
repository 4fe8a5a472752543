//! The steps of a [`Trainer`](crate::Trainer), in an epoch and by themselves: their order, their
//! learning rates, and what is noted after each.

use std::ops::ControlFlow;

use rand::seq::SliceRandom;

use crate::error::Result;
use crate::linalg::scalar::Scalar;
use crate::optim::hyperparameter::check_not_0;
use crate::optim::learning_rate::SchedulePoint;
use crate::optim::rule::Rule;
use crate::random::Generator;
use crate::steps::blocks::ranges;
use crate::steps::policy::{StepPolicy, StepReport};
use crate::train::observer::{BatchEnd, Observer};
use crate::train::position::{LastStep, Position};
use crate::train::settings::TrainingSettings;

/// The order in which an epoch takes its samples.
#[derive(Debug, Clone)]
pub(crate) struct EpochOrder {
    pub(crate) rows: Vec<usize>,
    /// The generator after the shuffle.
    pub(crate) generator: Generator,
}

/// The number of blocks whose samples are shuffled together. Where a block has samples of one kind
/// only, the number of samples of a kind in a batch of B has 1 + (B − 1)/64 times the variance that
/// a shuffle of all samples gives.
const SHUFFLED_TOGETHER: usize = 64;

impl EpochOrder {
    /// These rows, or all of so many samples, shuffled if that is asked for. The shuffle starts
    /// from the rows in the order of the data, so that it depends on the generator alone. `buffer`
    /// is overwritten.
    pub(crate) fn new(
        samples: usize,
        rows: Option<&[usize]>,
        training: &TrainingSettings,
        mut generator: Generator,
        mut buffer: Vec<usize>,
    ) -> Self {
        let row = |i: usize| rows.map_or(i, |rows| rows[i]);
        buffer.clear();
        if !training.shuffle {
            buffer.extend((0..samples).map(row));
            return Self { rows: buffer, generator };
        }
        let block = training.shuffle_block.unwrap_or(samples).min(samples);
        let mut blocks: Vec<_> = ranges(samples, block).collect();
        blocks.shuffle(&mut generator);
        buffer.extend(blocks.into_iter().flatten().map(row));
        for together in buffer.chunks_mut(block.saturating_mul(SHUFFLED_TOGETHER)) {
            together.shuffle(&mut generator);
        }
        Self { rows: buffer, generator }
    }
}

/// Refuses an epoch of `batches` batches in which the learning rate becomes 0 in the network's
/// type. Within an epoch the rate only falls, or grows during the warm-up, or grows and then falls,
/// so it is lowest at the first or the last step.
pub(crate) fn check_learning_rates<F: Scalar>(
    training: &TrainingSettings,
    position: &Position,
    batches: usize,
) -> Result<()> {
    let first = position.schedule_point(training, batches);
    let steps_left = (batches - 1).saturating_sub(position.batch);
    let fraction = (batches - 1) as f64 / batches as f64;
    let last = SchedulePoint { steps: first.steps + steps_left as u64, fraction, ..first };
    for point in [first, last] {
        check_not_0::<F>("learning_rate", training.learning_rate.at(&point))?;
    }
    Ok(())
}

/// A step that belongs to no epoch.
pub(crate) struct SingleStep {
    pub(crate) rule: Rule,
    /// Mean ℓ of the batch, once the step is made.
    pub(crate) loss: f64,
    /// Σ ℓ of the batch.
    pub(crate) sum: f64,
    /// ‖g‖, if the rule asks for it or needs it.
    pub(crate) norm: Option<f64>,
}

impl<F> StepPolicy<F> for SingleStep {
    fn rule(&mut self, _step: usize) -> Rule {
        self.rule
    }

    fn step_done(&mut self, report: &StepReport) -> ControlFlow<()> {
        (self.loss, self.sum, self.norm) = (report.sum / report.samples as f64, report.sum, report.norm);
        ControlFlow::Continue(())
    }
}

/// The steps of an epoch: each takes its rule from the settings and the position, moves the
/// position on, and is reported to the observer.
pub(crate) struct EpochSteps<'a, O> {
    training: &'a TrainingSettings,
    position: &'a mut Position,
    observer: &'a mut O,
    /// Batches of the epoch.
    batches: usize,
    learning_rate: f64,
    /// Weight decay that is pending after the step.
    pending_decay: f64,
    /// `Break` if the observer has stopped the run.
    flow: ControlFlow<()>,
}

impl<'a, O> EpochSteps<'a, O> {
    pub(crate) fn new(
        training: &'a TrainingSettings,
        position: &'a mut Position,
        observer: &'a mut O,
        batches: usize,
    ) -> Self {
        let pending_decay = position.pending_decay;
        let flow = ControlFlow::Continue(());
        Self { training, position, observer, batches, learning_rate: 0.0, pending_decay, flow }
    }

    /// Mean ℓ of the last step.
    pub(crate) fn last_loss(&self) -> Option<f64> {
        self.position.last_loss
    }

    /// `Break` if the observer has stopped the run.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        self.flow
    }
}

impl<F: Scalar, O: Observer<F>> StepPolicy<F> for EpochSteps<'_, O> {
    fn rule(&mut self, step: usize) -> Rule {
        let point = self.position.schedule_point(self.training, self.batches);
        let is_last = step + 1 == self.batches;
        let rule = self.training.rule::<F>(&point, self.position.pending_decay, is_last);
        (self.learning_rate, self.pending_decay) = (rule.eta, rule.decay.pending);
        rule
    }

    fn step_done(&mut self, report: &StepReport) -> ControlFlow<()> {
        let loss = report.sum / report.samples as f64;
        let position = &mut *self.position;
        position.batch = report.step + 1;
        position.steps += 1;
        position.pending_decay = self.pending_decay;
        position.loss_sum += report.sum;
        position.last_loss = Some(loss);
        position.last_step = (position.batch == self.batches).then(|| LastStep {
            learning_rate: self.learning_rate,
            gradient_norm: report.norm.expect("the rule of the last step asks for it"),
        });
        self.flow = self.observer.batch(&BatchEnd {
            epoch: position.epoch + 1,
            epochs: self.training.epochs,
            batch: position.batch,
            batches: self.batches,
            samples: report.samples,
            loss,
            learning_rate: self.learning_rate,
        });
        self.flow
    }
}

/// The steps of a part of an epoch, which begins with step `first` and whose engine counts them
/// from 0.
pub(crate) struct FromStep<'a, P> {
    pub(crate) first: usize,
    pub(crate) steps: &'a mut P,
}

impl<F, P: StepPolicy<F>> StepPolicy<F> for FromStep<'_, P> {
    fn rule(&mut self, step: usize) -> Rule {
        self.steps.rule(self.first + step)
    }

    fn step_done(&mut self, report: &StepReport) -> ControlFlow<()> {
        let StepReport { step, samples, sum, norm } = *report;
        self.steps.step_done(&StepReport { step: self.first + step, samples, sum, norm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, generator};

    /// Sorted data of ten classes, in blocks of 20 of one class each. The samples of the first
    /// class in a batch are drawn in two stages: 64 of the blocks, then B of their samples.
    #[test]
    fn batches_of_shuffled_blocks_vary_as_the_docs_say() {
        let (samples, block, batch, seeds) = (64_000, 20, 32, 40);
        let training = TrainingSettings { shuffle_block: Some(block), ..TrainingSettings::default() };
        let found: Vec<f64> = (0..seeds)
            .map(|seed| {
                let order = EpochOrder::new(samples, None, &training, generator(seed, Stream::Shuffles), vec![]);
                let counts =
                    order.rows.chunks(batch).map(|rows| rows.iter().filter(|&&row| row < samples / 10).count());
                let squares: f64 = counts.map(|count| (count as f64 - batch as f64 / 10.0).powi(2)).sum();
                squares / (samples / batch) as f64
            })
            .collect();
        let mean = found.iter().sum::<f64>() / seeds as f64;
        let deviation = found.iter().map(|found| (found - mean).powi(2)).sum::<f64>() / (seeds - 1) as f64;
        // Of a stage that draws k of n without repetition: (n − k)/(n − 1) times the variance of
        // independent draws.
        let without_repetition = |k: usize, n: usize| (n - k) as f64 / (n - 1) as f64;
        let (together, b) = (SHUFFLED_TOGETHER, batch as f64);
        let of_windows = 0.1 * 0.9 / together as f64 * without_repetition(together, samples / block);
        let in_window = b * (0.1 * 0.9 - of_windows) * without_repetition(batch, together * block);
        let expected = b * b * of_windows + in_window;
        let rough = b * 0.1 * 0.9 * (1.0 + (b - 1.0) / together as f64);
        assert!((expected / rough - 1.0).abs() < 0.03, "what the docs say: {rough}, exactly {expected}");
        let error = (deviation / seeds as f64).sqrt();
        assert!((mean - expected).abs() < 5.0 * error, "{mean} ± {error}, expected {expected}");
    }
}
