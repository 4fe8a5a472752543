//! Training as people do it: epochs of steps by an optimiser, with a learning-rate schedule, validation, early stopping and a history,
//! in calls that go on where the last one stopped.
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
//! With plain descent these are the bits of [`Sgd::train`](crate::Sgd::train). The norm of the last
//! step's gradient, which the history records, comes with the step, but for plain descent with
//! batches that are not much taller than the layers are wide (of 256 samples, or four times the
//! widest layer, the greater of both): there, that one gradient of an epoch is made a second time.

use std::ops::ControlFlow;
use std::time::Instant;

use rand::seq::SliceRandom;

use crate::engine::cut::loss_block;
use crate::engine::step::{Batches, Engine, StepPolicy, StepReport};
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::parameters::Parameters;
use crate::network::standardizer::Standardizer;
use crate::optim::learning_rate::Now;
use crate::optim::optimizer::{Moments, Rule, check_not_0};
use crate::random::{Generator, Stream, generator};
use crate::train::dataset::{Dataset, Subset, TrainValidation, split};
use crate::train::history::{History, Record};
use crate::train::model::Model;
use crate::train::observer::{Batch, Observer};
use crate::train::position::Position;
use crate::train::training::Training;

/// Why a call has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All that was asked for is done.
    Done,
    /// Nothing had improved for too long.
    Early,
    /// An observer stopped it; the next call goes on from there.
    Observer,
}

/// A training run: the model, how it is trained, and where it stands.
///
/// ```
/// use gemmprop::{Constant, Dataset, Mlp, SquaredError, Trainer, Training};
/// use ndarray::array;
///
/// let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// let mlp = Mlp::<f64>::he(&[1, 1], Constant::Absent, 0)?;
/// let training = Training { epochs: 500, batch: 2, ..Training::default() };
/// let mut trainer = Trainer::new(mlp, SquaredError, training)?;
/// trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ())?;
/// assert!((trainer.model().predict_one(x.view())?[2] - 5.0).abs() < 1e-5);
/// assert_eq!(trainer.history().records.len(), 500);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Trainer<F, L> {
    pub(crate) model: Model<F>,
    pub(crate) loss: L,
    pub(crate) training: Training,
    pub(crate) moments: Moments<F>,
    /// As it was before the shuffle of the epoch that runs or comes next.
    pub(crate) generator: Generator,
    pub(crate) position: Position,
    pub(crate) history: History,
    /// θ of the epoch with the least loss, kept for early stopping.
    pub(crate) best: Option<Parameters<F>>,
    /// The order of the running epoch, and the generator after its shuffle; made again in another process.
    order: Option<(Vec<usize>, Generator)>,
    engine: Option<Engine<F>>,
}

impl<F: Scalar, L: Loss<F>> Trainer<F, L> {
    /// A run that has not begun, of a network, or of a model with the standardisation that it was trained with, which stays.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] or [`Error::EmptyBatch`] for a setting out of its range; [`Error::Outputs`] if loss and network do not
    /// fit, [`Error::Shape`] if standardisation and network do not.
    pub fn new(model: impl Into<Model<F>>, loss: L, training: Training) -> Result<Self> {
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

    /// Trains until [`Training::epochs`] are done, or stops early; a run that was stopped goes on where it was. With early stopping
    /// the model is that of the best epoch when this returns [`Ended::Done`] or [`Ended::Early`].
    ///
    /// # Errors
    /// What does not fit in the data is refused before anything is changed. [`Error::Diverged`] for
    /// a step that makes a NaN or an infinity: the model is then as it was before that step.
    /// [`Error::Hyperparameter`] before an epoch in which the schedule's rate is 0 in the network's
    /// type, so that its steps would do nothing; the epochs before it have been made.
    pub fn fit<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: &mut impl Observer<F>,
    ) -> Result<Ended> {
        let goes_on = |run: &Self| run.position.epoch < run.training.epochs && !run.position.stopped_early;
        self.with_parts(train, validation, |run, train, validation| {
            while goes_on(run) {
                // Stopped at the very end, it is over.
                if run.epoch(train, validation, observer)?.is_break() && goes_on(run) {
                    return Ok(Ended::Observer);
                }
            }
            // Not while an epoch runs, of a run that has been given fewer epochs meanwhile.
            if let (Some(best), 0) = (&run.best, run.position.batch) {
                run.model.mlp.theta_mut().clone_from(best);
                run.moments.reset_bounds(best);
            }
            Ok(if run.position.stopped_early { Ended::Early } else { Ended::Done })
        })
    }

    /// Trains to the end of an epoch: of the one that was stopped, or of a new one, whatever
    /// [`Training::epochs`] says (beyond them, a [cosine schedule](crate::LearningRate::cosine) is
    /// at its least rate). The data may be others at each new epoch. Returns [`Ended::Early`] when
    /// the patience of early stopping is at its end; the parameters stay those of this epoch, and
    /// another call goes on.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn partial_fit<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: &mut impl Observer<F>,
    ) -> Result<Ended> {
        self.with_parts(train, validation, |run, train, validation| {
            Ok(match run.epoch(train, validation, observer)? {
                ControlFlow::Break(()) => Ended::Observer,
                ControlFlow::Continue(()) if run.position.stopped_early => Ended::Early,
                ControlFlow::Continue(()) => Ended::Done,
            })
        })
    }

    /// SingleStep step with a batch of any size; it counts as a step of the optimiser and of the learning
    /// rate and belongs to no epoch. So warm-up and inverse scaling go on with it, and a step,
    /// cosine or plateau schedule, which goes by epochs, stands where they are: see
    /// [`LearningRate`](crate::LearningRate). Returns the mean ℓ before it.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn step(&mut self, batch: Dataset<'_, F, L::Target>) -> Result<f64> {
        self.check(&batch)?;
        self.undone_if_nothing_was(|run| {
            let batch = Subset { data: batch, rows: None };
            run.standardize(&batch)?;
            run.one_step(&batch.data)
        })
    }

    fn one_step(&mut self, batch: &Dataset<'_, F, L::Target>) -> Result<f64> {
        let samples = batch.x.nrows();
        // Of the epoch that runs, if one does.
        let batches = self.position.samples.div_ceil(self.training.batch).max(1);
        let now = self.position.now(&self.training, batches);
        let rule = self.training.rule::<F>(&now, false);
        check_not_0::<F>("learning_rate", rule.eta)?;
        let mut one = SingleStep { rule, mean: 0.0 };
        let _one = one_blas_thread()?;
        let Self { model, loss, moments, engine, position, .. } = self;
        let Model { mlp, standardizer } = model;
        let ready = batch.ready();
        let data = ready.samples(None, standardizer.as_ref(), loss);
        let made = Engine::kept(engine, mlp, samples).descend(
            mlp.theta_mut(),
            moments,
            Batches { samples, batch: samples, steps: 0..1 },
            &data,
            &mut one,
        );
        made.map_err(|diverged| diverged.error(None, position.last))?;
        position.steps += 1;
        position.last = Some(one.mean);
        position.decay = rule.decay.pending;
        Ok(one.mean)
    }

    /// The network as it is now, with its standardisation.
    #[must_use]
    pub fn model(&self) -> &Model<F> {
        &self.model
    }

    /// The same, at the end of a run.
    #[must_use]
    pub fn into_model(self) -> Model<F> {
        self.model
    }

    /// The model of the epoch with the least loss so far, with early stopping: however the run has ended, or while it stands still.
    #[must_use]
    pub fn best(&self) -> Option<Model<F>> {
        let Model { mlp, standardizer } = &self.model;
        let mut best = mlp.clone();
        best.theta_mut().clone_from(self.best.as_ref()?);
        Some(Model { mlp: best, standardizer: standardizer.clone() })
    }

    /// The epochs so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How this run is trained.
    #[must_use]
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// Changes the number of epochs in all, to go on after the last one. With early stopping it
    /// goes on from the best epoch's parameters. A run that has stopped early has new patience, and
    /// goes on, if these are more epochs than it has done. A cosine schedule stretches to the new
    /// number.
    pub fn set_epochs(&mut self, epochs: usize) {
        if self.position.stopped_early && epochs > self.position.epoch {
            self.position.stopped_early = false;
            self.position.least.since = 0;
        }
        self.training.epochs = epochs;
    }

    /// StepPolicy made so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.position.steps
    }

    fn check(&self, data: &Dataset<F, L::Target>) -> Result<()> {
        data.check(&self.model.mlp, &self.loss)
    }

    /// Checks the data, and says what is whose. Fits the standardisation if it is still to be fitted.
    fn parts<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
    ) -> Result<TrainValidation<'a, F, L::Target>> {
        self.check(&train)?;
        validation.as_ref().map_or(Ok(()), |validation| self.check(validation))?;
        let (train, validation) = match (validation, self.training.validation_fraction) {
            (None, Some(fraction)) => {
                let (rows, kept) = split(train.x.nrows(), fraction, self.training.seed)?;
                (Subset { data: train, rows: Some(rows) }, Some(Subset { data: train, rows: Some(kept) }))
            }
            (validation, _) => (Subset { data: train, rows: None }, validation.map(|data| Subset { data, rows: None })),
        };
        let (expected, found) = ((self.position.samples, self.position.rows), (train.samples(), train.data.samples()));
        if self.position.batch > 0 && expected != found {
            return Err(Error::Rest { expected, found });
        }
        self.standardize(&train)?;
        Ok((train, validation))
    }

    /// A call on data that are checked and divided.
    fn with_parts<'a, R>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        call: impl FnOnce(&mut Self, &Subset<'a, F, L::Target>, Option<&Subset<'a, F, L::Target>>) -> Result<R>,
    ) -> Result<R> {
        self.undone_if_nothing_was(|run| {
            let (train, validation) = run.parts(train, validation)?;
            call(run, &train, validation.as_ref())
        })
    }

    /// A call that leaves no standardisation behind if it fails before its first step: other data may follow.
    fn undone_if_nothing_was<R>(&mut self, call: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let (unfitted, steps) = (self.model.standardizer.is_none(), self.position.steps);
        let result = call(self);
        if result.is_err() && unfitted && self.position.steps == steps {
            self.model.standardizer = None;
        }
        result
    }

    fn standardize(&mut self, train: &Subset<'_, F, L::Target>) -> Result<()> {
        if self.training.standardize && self.model.standardizer.is_none() {
            self.model.standardizer = Some(Standardizer::of_rows(train.data.x, train.present())?);
        }
        Ok(())
    }

    /// The rest of the running epoch, or a new one.
    fn epoch(
        &mut self,
        train: &Subset<'_, F, L::Target>,
        validation: Option<&Subset<'_, F, L::Target>>,
        observer: &mut impl Observer<F>,
    ) -> Result<ControlFlow<()>> {
        let (start, before) = (Instant::now(), self.position.seconds);
        let _one = one_blas_thread()?;
        let samples = train.samples();
        let batch = self.training.batch.min(samples);
        let batches = samples.div_ceil(batch);
        self.check_rates(batches)?;
        (self.position.samples, self.position.rows) = (samples, train.data.samples());
        self.shuffle(train);

        let (made, rate, norm, mut flow) = self.batches(train, batch, observer);
        self.position.seconds = before + start.elapsed().as_secs_f64();
        made?;

        if let (true, Some(gradient_norm)) = (self.position.batch == batches, norm) {
            let validation_loss = validation.map(|validation| self.mean_loss(validation));
            let position = &mut self.position;
            position.seconds = before + start.elapsed().as_secs_f64();
            let record = Record {
                epoch: position.epoch + 1,
                steps: position.steps,
                loss: position.sum / samples as f64,
                validation_loss,
                learning_rate: rate,
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

    /// Refuses an epoch whose rate becomes 0 in the network's type. Within an epoch a rate only
    /// falls, or grows by the warm-up, or grows and then falls: it is least at an end.
    fn check_rates(&self, batches: usize) -> Result<()> {
        let first = self.position.now(&self.training, batches);
        let left = (batches - 1).saturating_sub(self.position.batch);
        let part = (batches - 1) as f64 / batches as f64;
        let last = Now { steps: first.steps + left as u64, part, ..first };
        let rates = [first, last].map(|now| self.training.learning_rate.at(&now));
        rates.into_iter().try_for_each(|rate| check_not_0::<F>("learning_rate", rate))
    }

    /// The batches of the running epoch that are still to come. Returns η and ‖g‖ of the last one, too.
    fn batches(
        &mut self,
        train: &Subset<'_, F, L::Target>,
        batch: usize,
        observer: &mut impl Observer<F>,
    ) -> (Result<()>, f64, Option<f64>, ControlFlow<()>) {
        let samples = train.samples();
        let batches = samples.div_ceil(batch);
        let Self { model, loss, training, moments, position, order, engine, .. } = self;
        let in_order = !training.shuffle && train.rows.is_none();
        let order = order.as_ref().filter(|_| !in_order).map(|(order, _)| order.as_slice());
        let ready = train.data.ready();
        let data = ready.samples(order, model.standardizer.as_ref(), loss);
        let first = position.batch;
        let tell = |batch: &Batch| observer.batch(batch);
        let (decay, flow) = (position.decay, ControlFlow::Continue(()));
        let mut pilot = EpochSteps { training, position, tell, batches, rate: 0.0, decay, norm: None, flow };
        let engine = Engine::kept(engine, &model.mlp, batch);
        let made = engine.descend(
            model.mlp.theta_mut(),
            moments,
            Batches { samples, batch, steps: first..batches },
            &data,
            &mut pilot,
        );
        let EpochSteps { position, rate, norm, flow, .. } = pilot;
        (made.map_err(|diverged| diverged.error(Some(position.epoch), position.last)), rate, norm, flow)
    }

    /// The order of the running epoch: of all samples or of the training part.
    fn shuffle(&mut self, train: &Subset<'_, F, L::Target>) {
        if self.order.as_ref().is_some_and(|(order, _)| order.len() == train.samples()) && self.position.batch > 0 {
            return;
        }
        let mut order = self.order.take().map_or_else(Vec::new, |(order, _)| order);
        order.clear();
        match &train.rows {
            Some(rows) => order.extend(rows),
            None => order.extend(0..train.samples()),
        }
        let mut generator = self.generator.clone();
        if self.training.shuffle {
            order.shuffle(&mut generator);
        }
        self.order = Some((order, generator));
    }

    /// The mean ℓ over a data set, or some rows of it, in blocks that have nothing to do with the
    /// batches of training.
    fn mean_loss(&mut self, part: &Subset<'_, F, L::Target>) -> f64 {
        let Self { model: Model { mlp, standardizer }, loss, engine, .. } = self;
        let ready = part.data.ready();
        let data = ready.samples(part.rows.as_deref(), standardizer.as_ref(), loss);
        let samples = part.samples();
        let block = loss_block(samples);
        Engine::kept(engine, mlp, block).loss(mlp.parameters(), samples, block, &data) / samples as f64
    }

    /// Everything that changes between two epochs.
    fn end_epoch(&mut self, record: Record) {
        let position = &mut self.position;
        (position.epoch, position.batch, position.samples, position.sum) = (position.epoch + 1, 0, 0, 0.0);
        if let Some((_, generator)) = &self.order {
            self.generator = generator.clone();
        }
        let watched = record.validation_loss.unwrap_or(record.loss);
        let plateau = &mut position.plateau;
        if !plateau.improves(watched) && self.training.learning_rate.patience().is_some_and(|n| plateau.since > n) {
            position.plateaus += 1;
            plateau.since = 0;
        }
        let improves = position.least.improves(watched);
        let patience = self.training.early_stopping;
        position.stopped_early = patience.is_some_and(|patience| position.least.since >= patience);
        if improves && patience.is_some() {
            let theta = self.model.mlp.parameters();
            self.best.get_or_insert_with(|| theta.zeros_like()).clone_from(theta);
        }
        self.history.records.push(record);
    }
}

/// A step by itself.
struct SingleStep {
    rule: Rule,
    mean: f64,
}

impl<F> StepPolicy<F> for SingleStep {
    fn rule(&mut self, _step: usize) -> Rule {
        self.rule
    }

    fn step_done(&mut self, made: &StepReport) -> ControlFlow<()> {
        self.mean = made.sum / made.samples as f64;
        ControlFlow::Continue(())
    }
}

/// The steps of an epoch.
struct EpochSteps<'a, O> {
    training: &'a Training,
    position: &'a mut Position,
    tell: O,
    batches: usize,
    /// Of the last step.
    rate: f64,
    /// The weight decay that is pending after it.
    decay: f64,
    norm: Option<f64>,
    flow: ControlFlow<()>,
}

impl<F: Scalar, O: FnMut(&Batch) -> ControlFlow<()>> StepPolicy<F> for EpochSteps<'_, O> {
    fn rule(&mut self, step: usize) -> Rule {
        let now = self.position.now(self.training, self.batches);
        let rule = self.training.rule::<F>(&now, step + 1 == self.batches);
        (self.rate, self.decay) = (rule.eta, rule.decay.pending);
        rule
    }

    fn step_done(&mut self, made: &StepReport) -> ControlFlow<()> {
        let mean = made.sum / made.samples as f64;
        self.norm = made.norm;
        let position = &mut *self.position;
        position.batch = made.step + 1;
        position.steps += 1;
        position.decay = self.decay;
        position.sum += made.sum;
        position.last = Some(mean);
        self.flow = (self.tell)(&Batch {
            epoch: position.epoch + 1,
            epochs: self.training.epochs,
            batch: position.batch,
            batches: self.batches,
            samples: made.samples,
            loss: mean,
            learning_rate: self.rate,
        });
        self.flow
    }
}
