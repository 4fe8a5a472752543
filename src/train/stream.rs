//! Training on batches as they come, from an iterator of the caller's own.

use std::time::Instant;

use ndarray::ArrayView2;

use crate::engine::choice::is_native;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, Targets};
use crate::train::dataset::{Dataset, Subset};
use crate::train::history::Record;
use crate::train::observer::{BatchEnd, Observer};
use crate::train::trainer::{Attempt, StopReason, Trainer};

/// A batch that an iterator gives to [`Trainer::fit_batches`]: what owns or borrows its x and y.
///
/// A pair (x, y) is one, where `&x` is a matrix with samples in rows and `&y` are their
/// [`Targets`]: arrays, views or shared arrays, and for y also a vector.
pub trait Batch<F: Scalar, T> {
    /// The samples and targets of the batch.
    fn dataset(&self) -> Dataset<'_, F, T>;
}

impl<F: Scalar, T, X, Y> Batch<F, T> for (X, Y)
where
    for<'a> &'a X: Into<ArrayView2<'a, F>>,
    for<'a> &'a Y: Targets<'a, T>,
{
    fn dataset(&self) -> Dataset<'_, F, T> {
        Dataset::new(&self.0, &self.1)
    }
}

impl<F: Scalar, T> Batch<F, T> for Dataset<'_, F, T> {
    fn dataset(&self) -> Dataset<'_, F, T> {
        Dataset { x: self.x.view(), y: self.y.view(), weights: self.weights.as_ref().map(|weights| weights.view()) }
    }
}

impl<F: Scalar, L: Loss<F>> Trainer<F, L> {
    /// Trains one epoch on the batches of an iterator, one step each, in their order: on data that
    /// do not fit into memory, are made on the way, or are batched by the caller. The epoch ends
    /// with the iterator, and is then validated and recorded like any other. Returns
    /// [`StopReason::EarlyStopping`] when the patience of early stopping is exhausted.
    ///
    /// ```
    /// use gemmprop::{Bias, Mlp, SquaredError, Trainer, TrainingSettings};
    /// use gemmprop::ndarray::{Array1, Array2};
    ///
    /// let mlp = Mlp::<f64>::he(&[2, 16, 1], Bias::EveryLayer, 1)?;
    /// let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default())?;
    /// for epoch in 0..20 {
    ///     let batches = (0..50).map(|batch| {
    ///         let number = |i, j| ((batch * 8 + i) * (7 + 4 * j) % 100) as f64 / 100.0;
    ///         let x = Array2::from_shape_fn((8, 2), |(i, j)| number(i, j));
    ///         let y: Array1<f64> = x.outer_iter().map(|x| x[0] * x[1]).collect();
    ///         (x, y)
    ///     });
    ///     trainer.fit_batches(batches, None, ())?;
    /// }
    /// let records = &trainer.history().records;
    /// assert!(records[19].loss < records[0].loss);
    /// # Ok::<(), gemmprop::Error>(())
    /// ```
    ///
    /// Batches may differ in size; [`TrainingSettings::batch`](crate::TrainingSettings::batch) and
    /// [`shuffle`](crate::TrainingSettings::shuffle) have no effect, and nothing is kept for
    /// validation. The loss of the record is the mean over all samples.
    /// [Standardisation](crate::TrainingSettings::standardize) that is still to be fitted is fitted
    /// on the first batch. In a schedule, the fraction of the epoch that is done is known if the
    /// iterator [knows its length](Iterator::size_hint), and otherwise 0 throughout the epoch. Each
    /// batch is a call of its own, which natively copies the parameters into panels and back:
    /// batches of a few hundred samples make up for that. The iterator is asked for a batch before
    /// the step with the one before it, since the last step of an epoch records the norm of its
    /// gradient.
    ///
    /// If the observer stops the run after a batch, or an error ends it, the steps so far have been
    /// made and count as [single steps](Self::step): the epoch has no record, and the next call
    /// begins it anew. This returns [`StopReason::Observer`] then.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), where rows are counted from the first of their batch;
    /// [`Error::NoSamples`] for an iterator without a batch; [`Error::UnfinishedEpoch`] while an
    /// epoch of [`fit`](Self::fit) or [`partial_fit`](Self::partial_fit) is to be finished.
    pub fn fit_batches<B: Batch<F, L::Target>>(
        &mut self,
        batches: impl IntoIterator<Item = B>,
        validation: Option<Dataset<'_, F, L::Target>>,
        mut observer: impl Observer<F>,
    ) -> Result<StopReason> {
        if self.position.batch > 0 {
            let expected = (self.position.samples, self.position.rows);
            return Err(Error::UnfinishedEpoch { expected, found: (0, 0) });
        }
        validation.as_ref().map_or(Ok(()), |validation| self.check(validation))?;
        let attempt = Attempt::on(self);
        let trainer = &mut *attempt.trainer;
        let (start, seconds_before) = (Instant::now(), trainer.position.seconds);
        let streamed = trainer.stream(batches.into_iter(), &mut observer);
        trainer.position.seconds = seconds_before + start.elapsed().as_secs_f64();
        let Some(streamed) = streamed? else {
            attempt.succeed();
            return Ok(StopReason::Observer);
        };
        let validation = validation.map(|data| Subset { data, rows: None });
        let validation_loss = match &validation {
            Some(validation) => Some(trainer.validate(validation, streamed.largest)?),
            None => None,
        };
        let position = &mut trainer.position;
        position.seconds = seconds_before + start.elapsed().as_secs_f64();
        let record = Record {
            epoch: position.epoch + 1,
            steps: position.steps,
            loss: streamed.sum / streamed.samples as f64,
            validation_loss,
            learning_rate: streamed.learning_rate,
            gradient_norm: streamed.gradient_norm,
            seconds: position.seconds,
        };
        trainer.order = None;
        trainer.end_epoch(record);
        let flow = observer.epoch(&record, &trainer.model);
        let ended = match (flow.is_break(), trainer.position.stopped_early) {
            (true, _) => StopReason::Observer,
            (false, true) => StopReason::EarlyStopping,
            (false, false) => StopReason::Completed,
        };
        attempt.succeed();
        Ok(ended)
    }

    /// The mean ℓ over a validation set, on the engine of steps with batches of `batch`: the other
    /// would take its place, and be replaced by the next step.
    fn validate(&mut self, validation: &Subset<'_, F, L::Target>, batch: usize) -> Result<f64> {
        let _one_blas_thread = one_blas_thread()?;
        let native = is_native(&self.model.mlp, batch, batch);
        Ok(self.mean_loss(validation, native))
    }

    /// Makes a step with each batch. Returns nothing if the observer stops the run.
    fn stream<B: Batch<F, L::Target>>(
        &mut self,
        batches: impl Iterator<Item = B>,
        observer: &mut impl Observer<F>,
    ) -> Result<Option<Streamed>> {
        let count = match batches.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        let mut streamed = Streamed::default();
        let mut batches = batches.enumerate().peekable();
        while let Some((index, batch)) = batches.next() {
            let is_last = batches.peek().is_none();
            let data = batch.dataset();
            self.check(&data)?;
            self.standardize(&Subset { data, rows: None })?;
            let mut point = self.position.schedule_point(&self.training, 1);
            // An iterator may be longer than it says.
            point.fraction = count.map_or(0.0, |count| (index as f64 / count as f64).min(1.0));
            let step = self.single_step(&data, &point, is_last)?;
            streamed.sum += step.sum;
            streamed.samples += data.samples();
            streamed.largest = streamed.largest.max(data.samples());
            (streamed.learning_rate, streamed.gradient_norm) = (step.rule.eta, step.norm.unwrap_or(0.0));
            let end = BatchEnd {
                epoch: self.position.epoch + 1,
                epochs: self.training.epochs,
                batch: index + 1,
                batches: count.unwrap_or(0).max(index + 1),
                samples: data.samples(),
                loss: step.loss,
                learning_rate: step.rule.eta,
            };
            if observer.batch(&end).is_break() {
                return Ok(None);
            }
        }
        if streamed.samples == 0 { Err(Error::NoSamples) } else { Ok(Some(streamed)) }
    }
}

/// What the steps of a streamed epoch leave for its record.
#[derive(Default)]
struct Streamed {
    /// Σ ℓ
    sum: f64,
    samples: usize,
    /// The number of samples of the largest batch.
    largest: usize,
    /// η and ‖g‖ of the last step.
    learning_rate: f64,
    gradient_norm: f64,
}
