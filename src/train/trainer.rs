//! Training runs: epochs of steps by an optimiser, with a learning-rate schedule, validation, early
//! stopping and a history. A run can be stopped after any batch and resumed.
//!
//! ```text
//! for epoch in 0..E:
//!     shuffle the training samples, split them into batches
//!     for each batch:  g = (1/B) Σ wᵢ ∇θ ℓ(h_θ(xᵢ), yᵢ)      wᵢ = 1 unless given
//!                      g ← g · min(1, c / ‖g‖)                if clipped
//!                      θ ← rule(θ, g, η(k))                    the optimiser's
//!     validate; record; stop if nothing has improved for too long
//! ```
//!
//! With plain descent, this gives the bits of [`Sgd::train`](crate::Sgd::train). The history
//! records the norm of the gradient of an epoch's last step. Most steps yield that norm at no cost;
//! the exception is plain descent, whose gradient is otherwise never stored. Of that one step, the
//! native engine stores it; BLAS computes it a second time, if the batch is small (fewer than 256
//! samples, or fewer than four times the widest layer).

use std::fmt::{self, Display};
use std::ops::ControlFlow;
use std::time::Instant;

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::parameters::Parameters;
use crate::network::standardizer::Standardizer;
use crate::optim::hyperparameter::check_not_0;
use crate::optim::learning_rate::SchedulePoint;
use crate::optim::moments::Moments;
use crate::random::{Generator, Stream, generator};
use crate::steps::blocks::loss_block;
use crate::steps::policy::Batches;
use crate::train::dataset::{Dataset, Subset, TrainValidation};
use crate::train::epoch::{EpochOrder, SingleStep, check_learning_rates};
use crate::train::history::{History, Record};
use crate::train::model::Model;
use crate::train::observer::Observer;
use crate::train::position::{LastStep, Position};
use crate::train::settings::TrainingSettings;

/// Why a call has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// All requested epochs are done.
    Completed,
    /// The patience of early stopping is exhausted.
    EarlyStopping,
    /// An observer has stopped the run; the next call resumes it there.
    Observer,
}

impl Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "all epochs are done",
            Self::EarlyStopping => "the patience of early stopping is exhausted",
            Self::Observer => "an observer has stopped the run",
        })
    }
}

/// A training run: the model, how it is trained, and where it stands.
///
/// ```
/// use gemmprop::{Bias, Dataset, Mlp, SquaredError, Trainer, TrainingSettings};
/// use ndarray::array;
///
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// let mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
/// let training = TrainingSettings { epochs: 500, batch: 2, ..TrainingSettings::default() };
/// let mut trainer = Trainer::new(mlp, SquaredError, training)?;
/// trainer.fit(Dataset::new(&x, &y), None, ())?; // no validation set, no observer
/// assert!((trainer.model().predict_one(&x)?[2] - 5.0).abs() < 1e-5);
/// assert_eq!(trainer.history().records.len(), 500);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Trainer<F: Scalar, L> {
    pub(crate) model: Model<F>,
    pub(crate) loss: L,
    pub(crate) training: TrainingSettings,
    pub(crate) moments: Moments<F>,
    /// The generator before the shuffle of the running epoch, or of the next one between epochs.
    pub(crate) generator: Generator,
    pub(crate) position: Position,
    pub(crate) history: History,
    /// θ of the epoch with the lowest loss, with early stopping.
    pub(crate) best: Option<Parameters<F>>,
    /// The order of the running epoch, which follows from `generator`.
    pub(crate) order: Option<EpochOrder>,
    pub(crate) engine: Option<Engine<F>>,
}

/// What the epochs of a run read.
pub(crate) trait EpochData<F: Scalar, L: Loss<F>> {
    type Error: From<Error>;

    /// The number of samples to train on.
    fn samples(&self) -> usize;
    /// The number of rows, including those kept for validation.
    fn rows(&self) -> usize;
    /// The rows to train on, if that is not all of them.
    fn train_rows(&self) -> Option<&[usize]>;
    /// The parts that the data are cut into, if training goes on part by part.
    fn chunks(&self) -> Option<usize> {
        None
    }
    /// The number of samples in the order of an epoch.
    fn ordered(&self) -> usize {
        self.samples()
    }
    /// The order of an epoch. `buffer` is overwritten.
    fn order(&self, training: &TrainingSettings, generator: Generator, buffer: Vec<usize>) -> EpochOrder {
        EpochOrder::new(self.samples(), self.train_rows(), training, generator, buffer)
    }
    /// Makes the steps that are left of the running epoch, in batches of `batch` samples, until the
    /// observer stops them.
    fn descend(
        &self,
        trainer: &mut Trainer<F, L>,
        batch: usize,
        observer: &mut impl Observer<F>,
    ) -> Result<ControlFlow<()>, Self::Error>;
    /// The mean ℓ over the samples to validate with, if there are any. `native` is what the
    /// training is.
    fn validation_loss(&self, trainer: &mut Trainer<F, L>, native: bool) -> Result<Option<f64>, Self::Error>;
}

impl<F: Scalar, L: Loss<F>> Trainer<F, L> {
    /// A new run of a network, or of a model with the standardisation that it was trained with,
    /// which is kept.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] or [`Error::EmptyBatch`] for a setting that is out of its range;
    /// [`Error::Outputs`] if loss and network do not fit; [`Error::Shape`] if standardisation and
    /// network do not fit.
    pub fn new(model: impl Into<Model<F>>, loss: L, training: TrainingSettings) -> Result<Self> {
        training.check()?;
        training.check_in::<F>()?;
        let model = model.into();
        model.check()?;
        loss.target_len(model.mlp.outputs())?;
        let moments = Moments::new(training.optimizer, model.mlp.parameters());
        Ok(Self {
            model,
            loss,
            moments,
            generator: generator(training.seed, Stream::Shuffles),
            training,
            position: Position::default(),
            history: History::default(),
            best: None,
            order: None,
            engine: None,
        })
    }

    /// Trains until [`TrainingSettings::epochs`] are done, or stops early. Resumes a run that was
    /// stopped. With early stopping, the model is that of the best epoch when this returns
    /// [`StopReason::Completed`] or [`StopReason::EarlyStopping`].
    ///
    /// # Errors
    /// Data that do not fit are refused before anything is changed. [`Error::Diverged`] for a step
    /// that makes a NaN or an infinity: the model is then as it was before that step.
    /// [`Error::Hyperparameter`] before an epoch in which the learning rate is 0 in the network's
    /// type, so that its steps would do nothing; the epochs before it have been made.
    pub fn fit<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        mut observer: impl Observer<F>,
    ) -> Result<StopReason> {
        self.run(|trainer| trainer.prepare(train, validation), &mut observer)
    }

    /// Runs all epochs that are left, on the data that are prepared first.
    pub(crate) fn run<D: EpochData<F, L>>(
        &mut self,
        prepare: impl FnOnce(&mut Self) -> Result<D, D::Error>,
        observer: &mut impl Observer<F>,
    ) -> Result<StopReason, D::Error> {
        let attempt = Attempt::on(self);
        let trainer = &mut *attempt.trainer;
        let data = prepare(trainer)?;
        while trainer.has_epochs_left() {
            let flow = trainer.epoch(&data, observer)?;
            // A run that is stopped at its very end is over.
            if flow.is_break() && trainer.has_epochs_left() {
                return Ok(StopReason::Observer);
            }
        }
        trainer.restore_best();
        let ended = if trainer.position.stopped_early { StopReason::EarlyStopping } else { StopReason::Completed };
        attempt.succeed();
        Ok(ended)
    }

    /// Trains to the end of one epoch, which is the one that was stopped or a new one, whatever
    /// [`TrainingSettings::epochs`] says (beyond it, a [cosine
    /// schedule](crate::LearningRate::cosine) stays at its lowest rate). Each new epoch may have
    /// other data. Returns [`StopReason::EarlyStopping`] when the patience of early stopping is
    /// exhausted; the parameters remain those of this epoch, and another call continues from them.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn partial_fit<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        mut observer: impl Observer<F>,
    ) -> Result<StopReason> {
        self.run_epoch(|trainer| trainer.prepare(train, validation), &mut observer)
    }

    /// Runs one epoch on the data that are prepared first.
    pub(crate) fn run_epoch<D: EpochData<F, L>>(
        &mut self,
        prepare: impl FnOnce(&mut Self) -> Result<D, D::Error>,
        observer: &mut impl Observer<F>,
    ) -> Result<StopReason, D::Error> {
        let attempt = Attempt::on(self);
        let trainer = &mut *attempt.trainer;
        let data = prepare(trainer)?;
        let ended = match trainer.epoch(&data, observer)? {
            ControlFlow::Break(()) => StopReason::Observer,
            ControlFlow::Continue(()) if trainer.position.stopped_early => StopReason::EarlyStopping,
            ControlFlow::Continue(()) => StopReason::Completed,
        };
        attempt.succeed();
        Ok(ended)
    }

    /// Makes one step with a batch of any size. It counts as a step of the optimiser and of the
    /// learning rate, but belongs to no epoch: it advances warm-up and inverse scaling, and leaves
    /// step, cosine and plateau schedules where they are (see
    /// [`LearningRate`](crate::LearningRate)). Returns the mean ℓ before the step.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn step(&mut self, batch: Dataset<'_, F, L::Target>) -> Result<f64> {
        self.check(&batch)?;
        let attempt = Attempt::on(self);
        let trainer = &mut *attempt.trainer;
        trainer.standardize(&Subset { data: batch, rows: None })?;
        // The schedule is at the position in the running epoch, if there is one.
        let batches = trainer.position.samples.div_ceil(trainer.training.batch).max(1);
        let point = trainer.position.schedule_point(&trainer.training, batches);
        let loss = trainer.single_step(&batch, &point, false)?.loss;
        attempt.succeed();
        Ok(loss)
    }

    /// The network as it is now, with its standardisation.
    #[must_use]
    pub fn model(&self) -> &Model<F> {
        &self.model
    }

    /// Ends the run and returns its model.
    #[must_use]
    pub fn into_model(self) -> Model<F> {
        self.model
    }

    /// With early stopping, the model of the epoch with the lowest loss so far, whether or not the
    /// run has ended.
    #[must_use]
    pub fn best(&self) -> Option<Model<F>> {
        let Model { mlp, standardizer } = &self.model;
        let mut best = mlp.clone();
        best.theta_mut().clone_from(self.best.as_ref()?);
        Some(Model { mlp: best, standardizer: standardizer.clone() })
    }

    /// The record of each epoch so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The settings of this run.
    #[must_use]
    pub fn training(&self) -> &TrainingSettings {
        &self.training
    }

    /// The number of steps made so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.position.steps
    }

    fn has_epochs_left(&self) -> bool {
        self.position.epoch < self.training.epochs && !self.position.stopped_early
    }

    /// Checks the data, splits them into those to train on and those to validate with, and fits the
    /// standardisation if that is still to be done.
    fn prepare<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
    ) -> Result<TrainValidation<'a, F, L::Target>> {
        self.check(&train)?;
        validation.as_ref().map_or(Ok(()), |validation| self.check(validation))?;
        let TrainingSettings { validation_fraction, seed, .. } = self.training;
        let data = TrainValidation::new(train, validation, validation_fraction, seed)?;
        self.check_unfinished(data.train.samples(), data.train.data.samples(), None)?;
        self.standardize(&data.train)?;
        Ok(data)
    }

    /// Refuses other data than those that the running epoch began with: samples to train on, rows
    /// in all, and parts that they are cut into.
    pub(crate) fn check_unfinished(&self, samples: usize, rows: usize, chunks: Option<usize>) -> Result<()> {
        let (expected, found) = ((self.position.samples, self.position.rows), (samples, rows));
        if self.position.batch > 0 && expected != found {
            return Err(Error::UnfinishedEpoch { expected, found });
        }
        if self.position.batch > 0 && self.position.chunks != chunks {
            let [expected, found] = [self.position.chunks, chunks].map(|chunks| chunks.unwrap_or(1));
            return Err(Error::UnfinishedChunks { expected, found });
        }
        Ok(())
    }

    pub(crate) fn check(&self, data: &Dataset<F, L::Target>) -> Result<()> {
        data.check(&self.model.mlp, &self.loss)
    }

    /// Fits the standardisation, if the run has one and it is not fitted yet.
    pub(crate) fn standardize(&mut self, train: &Subset<'_, F, L::Target>) -> Result<()> {
        if self.training.standardize && self.model.standardizer.is_none() {
            self.model.standardizer = Some(Standardizer::of_rows(train.data.x, train.present())?);
        }
        Ok(())
    }

    /// Runs the rest of the running epoch, or a new one; then validates and records it.
    fn epoch<D: EpochData<F, L>>(
        &mut self,
        data: &D,
        observer: &mut impl Observer<F>,
    ) -> Result<ControlFlow<()>, D::Error> {
        let (start, seconds_before) = (Instant::now(), self.position.seconds);
        let _one_blas_thread = one_blas_thread()?;
        let samples = data.samples();
        let batch = self.training.batch.min(samples);
        let batches = samples.div_ceil(batch);
        let is_over = self.position.last_step.is_some();
        if !is_over {
            check_learning_rates::<F>(&self.training, &self.position, batches)?;
        }
        (self.position.samples, self.position.rows) = (samples, data.rows());
        self.position.chunks = data.chunks();
        self.order_samples(data);

        let flow = if is_over { Ok(ControlFlow::Continue(())) } else { data.descend(self, batch, observer) };
        self.position.seconds = seconds_before + start.elapsed().as_secs_f64();
        let mut flow = flow?;

        if let Some(LastStep { learning_rate, gradient_norm }) = self.position.last_step {
            // The engine that is kept from the training.
            let native = is_native(&self.model.mlp, batch, samples);
            let validation_loss = data.validation_loss(self, native)?;
            let position = &mut self.position;
            position.seconds = seconds_before + start.elapsed().as_secs_f64();
            let record = Record {
                epoch: position.epoch + 1,
                steps: position.steps,
                loss: position.loss_sum / samples as f64,
                validation_loss,
                learning_rate,
                gradient_norm,
                seconds: position.seconds,
            };
            self.end_epoch(record);
            if observer.epoch(&record, &self.model).is_break() {
                flow = ControlFlow::Break(());
            }
        }
        Ok(flow)
    }

    /// Makes the order of a new epoch, or of one that was stopped in another process.
    fn order_samples(&mut self, data: &impl EpochData<F, L>) {
        if self.position.batch > 0 && self.order.as_ref().is_some_and(|order| order.rows.len() == data.ordered()) {
            return;
        }
        let buffer = self.order.take().map_or_else(Vec::new, |order| order.rows);
        self.order = Some(data.order(&self.training, self.generator.clone(), buffer));
    }

    /// Makes one step by itself, with a batch that was checked, at a point of the schedule. Returns
    /// what was made of it; `norm` asks for ‖g‖.
    pub(crate) fn single_step(
        &mut self,
        batch: &Dataset<'_, F, L::Target>,
        point: &SchedulePoint,
        norm: bool,
    ) -> Result<SingleStep> {
        let samples = batch.samples();
        let rule = self.training.rule::<F>(point, self.position.pending_decay, norm);
        check_not_0::<F>("learning_rate", rule.eta)?;
        let _one_blas_thread = one_blas_thread()?;
        let Self { model: Model { mlp, standardizer }, loss, moments, engine, position, .. } = self;
        let prepared = batch.prepared();
        let data = prepared.samples(None, standardizer.as_ref(), loss);
        let mut step = SingleStep { rule, loss: 0.0, sum: 0.0, norm: None };
        let engine = Engine::kept(engine, mlp, samples, is_native(mlp, samples, samples));
        let made =
            engine.descend(mlp.theta_mut(), moments, Batches { samples, batch: samples }, 0..1, &data, &mut step);
        made.map_err(|diverged| diverged.error(None, position.last_loss))?;
        position.steps += 1;
        position.last_loss = Some(step.loss);
        position.pending_decay = rule.decay.pending;
        Ok(step)
    }

    /// The mean ℓ over a data set, or some of its rows, in blocks whose size is independent of the
    /// batches of training. `native` is what the training is.
    pub(crate) fn mean_loss(&mut self, subset: &Subset<'_, F, L::Target>, native: bool) -> f64 {
        let Self { model: Model { mlp, standardizer }, loss, engine, .. } = self;
        let prepared = subset.data.prepared();
        let data = prepared.samples(subset.rows.as_deref(), standardizer.as_ref(), loss);
        let samples = subset.samples();
        let block = loss_block(samples);
        Engine::kept(engine, mlp, block, native).loss(mlp.parameters(), samples, block, &data) / samples as f64
    }

    /// Moves the run on to the point between this epoch and the next.
    pub(crate) fn end_epoch(&mut self, record: Record) {
        if let Some(order) = &self.order {
            self.generator = order.generator.clone();
        }
        let loss = record.validation_loss.unwrap_or(record.loss);
        let improves = self.position.end_epoch(loss, &self.training);
        if improves && self.training.early_stopping.is_some() {
            let theta = self.model.mlp.parameters();
            self.best.get_or_insert_with(|| theta.zeros_like()).clone_from(theta);
        }
        self.history.records.push(record);
    }

    /// Puts the parameters of the best epoch back, unless an epoch is running: that of a run which
    /// was stopped and then given fewer epochs.
    fn restore_best(&mut self) {
        if let (Some(best), 0) = (&self.best, self.position.batch) {
            self.model.mlp.theta_mut().clone_from(best);
            self.moments.reset_bounds(best);
        }
    }
}

/// A call that may fit the standardisation. If it is dropped before it has made a step and without
/// [`succeed`](Self::succeed), it removes that fit again, so that the next call may have other
/// data.
pub(crate) struct Attempt<'t, F: Scalar, L> {
    pub(crate) trainer: &'t mut Trainer<F, L>,
    was_fitted: bool,
    steps_before: u64,
    succeeded: bool,
}

impl<'t, F: Scalar, L> Attempt<'t, F, L> {
    pub(crate) fn on(trainer: &'t mut Trainer<F, L>) -> Self {
        let (was_fitted, steps_before) = (trainer.model.standardizer.is_some(), trainer.position.steps);
        Self { trainer, was_fitted, steps_before, succeeded: false }
    }

    /// Keeps the fit, even if no step was made.
    pub(crate) fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl<F: Scalar, L> Drop for Attempt<'_, F, L> {
    fn drop(&mut self) {
        let made_no_step = self.trainer.position.steps == self.steps_before;
        if !self.succeeded && !self.was_fitted && made_no_step {
            self.trainer.model.standardizer = None;
        }
    }
}
