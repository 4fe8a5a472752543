//! The command `train`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gemmprop::{
    Dataset, FitError, History, Logistic, Loss, Mlp, Observer, Products, ProgressBar, Record, SoftmaxCrossEntropy,
    SquaredError, StopReason, Trainer, balanced_class_weights, blas_description,
    checkpoint::{CheckpointError, Checkpoints, Notes, Saved, Stored},
    data::ReadError,
};
use ndarray::{Array1, Array2, Axis};
use serde_json::json;

use crate::arguments::{Cli, Train};
use crate::figures;
use crate::inputs::in_memory;
use crate::keeper::{Keeper, Stop};
use crate::message::{Result, chain, counted, is_quiet, print_json, say, short, warn};
use crate::network::{TASK, task};
use crate::new_folder::NewFolder;
use crate::output::check_output;
use crate::progress::{JsonLines, Lines};
use crate::samples;
use crate::scale::check_columns;
use crate::score::{Score, validated};
use crate::signals;
use crate::task::{Target, Task, TrainingData, Validation, X};
use crate::training_source::Training;
use crate::values::LossKind;

/// How often the state of a run is saved.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Bytes of a block of samples that are shuffled together, where they are read from a file: enough
/// that a disk reads it as fast as a whole file.
const READ_AT_ONCE: usize = 1 << 20;
/// Bytes of a number, as most files have it.
const NUMBER: usize = 4;

/// Checks what clap cannot: a new run has to know what to learn.
fn check_usage(arguments: &Train) {
    let missing = match (&arguments.source, arguments.resume) {
        (source, false) if source.csv.is_some() && arguments.target.is_none() => {
            "--csv needs --target COLUMN, the name of the column to learn"
        }
        (source, _) if source.data.is_some() && arguments.targets.is_none() => {
            "--data needs --targets Y.npy, the targets to learn"
        }
        _ => return,
    };
    Cli::lacks("train", missing)
}

pub(crate) fn train(arguments: &Train, json: bool) -> Result<ExitCode> {
    check_usage(arguments);
    let Train { source, targets, history, plot, .. } = arguments;
    for path in [history, plot].into_iter().flatten() {
        check_output(path, &[&source.data, &source.csv, targets])?;
    }
    let Begun { task, data, checkpoints, new_folder: _new_folder, stored } = begin(arguments)?;
    let run = Run { arguments, task, checkpoints, json };
    match run.task.loss {
        LossKind::Softmax => run.run(SoftmaxCrossEntropy, Target::labels, &data, stored),
        LossKind::Logistic => run.run(Logistic, |y| y.numbers().mapv(|y| y as f32), &data, stored),
        LossKind::Squared => run.run(SquaredError, |y| run.task.scaled(y.numbers()), &data, stored),
    }
}

/// How the training of a run has ended.
type Ended = std::result::Result<StopReason, FitError<ReadError>>;

struct Begun {
    task: Task,
    data: TrainingData,
    checkpoints: Option<Checkpoints>,
    /// Of a run that is new.
    new_folder: Option<NewFolder>,
    /// The checkpoint that the run resumes from.
    stored: Option<Saved<Stored>>,
}

fn begin(arguments: &Train) -> Result<Begun> {
    // Before the data are read, so that a folder in use is reported at once.
    if let (Some(folder), true) = (&arguments.checkpoint, arguments.resume) {
        let checkpoints = Checkpoints::open(folder)?;
        checkpoints.lock()?;
        let stored = checkpoints.read()?;
        for damaged in &stored.damaged {
            warn(format!("warning: {damaged}; using {} instead", stored.path.display()));
        }
        let task = task(&stored.notes)?;
        let data = task.again(arguments)?;
        return Ok(Begun { task, data, checkpoints: Some(checkpoints), new_folder: None, stored: Some(stored) });
    }
    let made = arguments.checkpoint.as_deref().map(NewFolder::create).transpose();
    let made = made.map_err(|error| match error {
        error @ CheckpointError::Used { .. } => format!("{error} (--resume continues the run)").into(),
        error => Box::<dyn Error>::from(error),
    })?;
    let (task, data) = samples::first(arguments)?;
    let (checkpoints, new_folder) = made.unzip();
    Ok(Begun { task, data, checkpoints, new_folder, stored: None })
}

struct Run<'a> {
    arguments: &'a Train,
    task: Task,
    checkpoints: Option<Checkpoints>,
    /// Whether the records and the summary are written to stdout.
    json: bool,
}

/// What a run learns from, and the test set if that validates.
type Learned<'a, T> = (Training<'a, T>, Option<Dataset<'a, f32, T>>);

impl Run<'_> {
    fn run<L: Loss<f32, Target: Default>>(
        &self,
        loss: L,
        target: impl Fn(&Target) -> Array2<L::Target>,
        data: &TrainingData,
        stored: Option<Saved<Stored>>,
    ) -> Result<ExitCode> {
        let TrainingData { samples, test, .. } = data;
        let y = target(&samples.y);
        let mut trainer = match stored {
            Some(stored) => self.resumed(loss, stored)?,
            None => self.begun(loss, data, y.ncols())?,
        };
        let inputs = trainer.model().mlp.widths()[0];
        check_columns(&self.arguments.source.path().display(), inputs, samples.x.columns())?;
        let weights = self.weights(data);
        let test_y = test.as_ref().map(|samples| target(&samples.y));
        let test = test.as_ref().zip(test_y.as_ref()).and_then(|(samples, y)| match &samples.x {
            X::Memory(x) => Some(Dataset::new(x, y)),
            X::File { .. } => None,
        });

        self.say_what_begins(data, &trainer);
        let validation = data.validation();
        let (start, before) = (Instant::now(), trainer.steps());
        let learned = (Training::new(samples, y.view(), weights.as_ref()), test);
        let (ended, mut failures) = self.fit(&mut trainer, &learned, validation)?;

        // If one of these fails, the others are still written.
        let written = [
            figures::write_history(trainer.history(), self.arguments),
            figures::write_plot(trainer.history(), self.arguments, &self.task),
        ];
        failures.extend(written.into_iter().filter_map(Result::err).map(|error| chain(&*error)));
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                failures.iter().for_each(|failure| warn(format!("warning: {failure}")));
                let diverged = matches!(error, FitError::Training(gemmprop::Error::Diverged { .. }));
                let hint = if diverged { "; a new run with a smaller --rate may help" } else { "" };
                return Err(format!("{error}{hint}").into());
            }
        };
        self.report(&trainer, ended, before, start.elapsed(), validation)?;
        if !failures.is_empty() {
            return Err(failures.join("; ").into());
        }
        let stopped = signals::received().filter(|_| ended == StopReason::Observer);
        Ok(stopped.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code())))
    }

    /// Trains to the end, to a signal, or to an error, and keeps checkpoints. Returns how the run
    /// ended, and what could not be kept.
    fn fit<'a, L: Loss<f32, Target: Default>>(
        &self,
        trainer: &mut Trainer<f32, L>,
        (train, test): &'a Learned<'a, L::Target>,
        validation: Option<Validation>,
    ) -> Result<(Ended, Vec<String>)> {
        let before = trainer.steps();
        let mut bar = ProgressBar::new();
        let mut lines = Lines::new(&self.task, validation);
        let progress: &mut dyn Observer<f32> = match (is_quiet(), bar.is_hidden()) {
            (true, _) => &mut (),
            (false, true) => &mut lines,
            (false, false) => &mut bar,
        };
        let records: &mut dyn Observer<f32> = if self.json { &mut JsonLines } else { &mut () };
        let mut keeper = Keeper {
            checkpoints: self.checkpoints.as_ref(),
            notes: Notes::from([(TASK.to_owned(), serde_json::to_string(&self.task)?)]),
            kept: false,
            failure: None,
        };
        // Before this point, a signal may end the program, since nothing would be lost.
        signals::watch()?;
        // The first checkpoint is written after the first batch and not before it, because that
        // batch checks the data.
        let mut pause = Duration::ZERO;
        let ended = loop {
            let until = self.checkpoints.is_some().then(|| Instant::now() + pause);
            let mut observer = (Stop { until }, (&mut *records, &mut *progress));
            match train.fit(trainer, *test, &mut observer) {
                // Nothing has been learned that could be lost.
                Err(error) if trainer.steps() == before => return Err(error.into()),
                Err(error) => {
                    // The parameters from before the failed step are good.
                    keeper.keep(trainer, true)?;
                    break Err(error);
                }
                Ok(ended) => {
                    let over = ended != StopReason::Observer || signals::received().is_some();
                    keeper.keep(trainer, over)?;
                    if over {
                        break Ok(ended);
                    }
                }
            }
            pause = SAVE_EVERY;
        };
        let failure = keeper.failure.map(|failure| format!("the run's last state could not be kept: {failure}"));
        Ok((ended, failure.into_iter().collect()))
    }

    /// Reports the end of the run.
    fn report<L: Loss<f32>>(
        &self,
        trainer: &Trainer<f32, L>,
        ended: StopReason,
        before: u64,
        time: Duration,
        validation: Option<Validation>,
    ) -> Result {
        let score = validation.and_then(|validation| validated(&self.task, trainer.model(), validation));
        say(self.summary(trainer, ended, before, time, score));
        if !self.json {
            return Ok(());
        }
        let (accuracy, rmse) = match score {
            Some(Score::Accuracy(accuracy)) => (Some(accuracy), None),
            Some(Score::Rmse(rmse)) => (None, Some(rmse)),
            None => (None, None),
        };
        print_json(&json!({
            "ended": match ended {
                StopReason::Completed => "completed",
                StopReason::EarlyStopping => "early stopping",
                StopReason::Observer => "signal",
            },
            "epochs": trainer.history().records.len(),
            "steps": trainer.steps(),
            "seconds": time.as_secs_f64(),
            "best_epoch": best(trainer.history()).map(|record| record.epoch),
            "accuracy": accuracy,
            "rmse": rmse,
            "checkpoint": self.checkpoints.as_ref().map(Checkpoints::directory),
        }))
    }

    fn summary<L: Loss<f32>>(
        &self,
        trainer: &Trainer<f32, L>,
        ended: StopReason,
        steps_before: u64,
        time: Duration,
        score: Option<Score>,
    ) -> String {
        let (records, epochs) = (&trainer.history().records, trainer.training().epochs);
        let (done, steps, seconds) = (records.len(), counted(trainer.steps() as usize, "step"), time.as_secs_f64());
        let (were, of) = (if done == 1 { "was" } else { "were" }, format!("{done} of {}", counted(epochs, "epoch")));
        let done = counted(done, "epoch");
        let mut summary = match ended {
            StopReason::Completed if trainer.steps() == steps_before => {
                format!("nothing to do, {done} {were} done before; --epochs N continues to epoch N")
            }
            StopReason::EarlyStopping if trainer.steps() == steps_before => {
                format!("nothing to do, nothing had got better after {done}; --epochs N continues to epoch N")
            }
            StopReason::Completed => format!("{of} in {seconds:.1} s"),
            StopReason::EarlyStopping => format!("{of} in {seconds:.1} s, then nothing had got better"),
            StopReason::Observer => {
                let signal = signals::received().map_or("a signal", signals::Signal::name);
                format!("stopped by {signal} after {seconds:.1} s, {of} and {steps}")
            }
        };
        // The epoch that the network comes from.
        let best = best(trainer.history()).filter(|_| trainer.training().early_stopping.is_some());
        let taken = best.filter(|_| ended != StopReason::Observer);
        if let Some(record) = taken.or(records.last()) {
            let epoch = taken.map_or(String::new(), |best| format!("best epoch {}, ", best.epoch));
            summary += &format!(": {epoch}loss {}", short(record.loss));
            summary +=
                &record.validation_loss.map_or(String::new(), |loss| format!(", validation loss {}", short(loss)));
        }
        summary += &score.map_or(String::new(), |score| format!(", {score}"));
        summary += &match &self.checkpoints {
            Some(checkpoints) => format!("; checkpoint in {}", checkpoints.directory().display()),
            None => "; the network is not saved, --checkpoint FOLDER would save it".to_owned(),
        };
        if let (StopReason::Observer, Some(best), Some(_)) = (ended, best, &self.checkpoints) {
            summary += &format!("; predict takes the network of the best epoch, {}", best.epoch);
        }
        summary
    }

    fn resumed<L: Loss<f32>>(&self, loss: L, stored: Saved<Stored>) -> Result<Trainer<f32, L>> {
        let (mut trainer, blas) = (stored.value.trainer(loss)?, blas_description());
        // The native engine has the same bits beside any BLAS.
        if stored.blas != blas && trainer.model().mlp.products() != Products::Native {
            say(format!("note: the run began with {}, this is {blas}; roundings will differ", stored.blas));
        }
        // Only on request, so that a run that stopped early does not continue by accident.
        if let Some(epochs) = self.arguments.epochs {
            trainer.set_epochs(epochs);
        }
        Ok(trainer)
    }

    fn begun<L: Loss<f32>>(&self, loss: L, data: &TrainingData, targets: usize) -> Result<Trainer<f32, L>> {
        let Train { settings, epochs, .. } = self.arguments;
        let (inputs, steps) = (data.samples.x.columns(), data.trained().div_ceil(settings.batch).max(1));
        let outputs = if self.task.loss == LossKind::Softmax { self.task.classes.len() } else { targets };
        let widths: Vec<usize> = [inputs].into_iter().chain(settings.widths.0.clone()).chain([outputs]).collect();
        let mut training = settings.training(epochs.unwrap_or_else(|| 2000_usize.div_ceil(steps).clamp(20, 200)));
        if let (X::File { .. }, true, None) = (&data.samples.x, training.shuffle, training.shuffle_block) {
            training.shuffle_block = Some((READ_AT_ONCE / (NUMBER * inputs)).max(1));
        }
        let mlp = Mlp::he(&widths, settings.bias(), settings.seed)?;
        Ok(Trainer::new(mlp, loss, training)?)
    }

    /// Weights with which each class counts alike in training, if that was asked for. Those that
    /// validate have 1.
    fn weights(&self, data: &TrainingData) -> Option<Array1<f32>> {
        let Target::Labels(labels) = &data.samples.y else { return None };
        if !self.task.balanced {
            return None;
        }
        let Some((rows, _)) = &data.division else { return Some(balanced_class_weights(labels.view())) };
        let mut weights = Array1::ones(labels.len());
        let balanced: Array1<f32> = balanced_class_weights(labels.select(Axis(0), rows).view());
        rows.iter().zip(balanced).for_each(|(&row, weight)| weights[row] = weight);
        Some(weights)
    }

    /// Says what is trained on what; if the samples are read a part at a time, also what is
    /// different then.
    fn say_what_begins<L: Loss<f32>>(&self, data: &TrainingData, trainer: &Trainer<f32, L>) {
        if let X::File { file, .. } = &data.samples.x {
            let path = self.arguments.source.path().display();
            let found = in_memory((file.rows() * file.columns()) as u64);
            let order = match trainer.training().shuffle_block {
                _ if !trainer.training().shuffle => "in the order of the file".to_owned(),
                Some(block) => format!("shuffled in blocks of {block}, 64 blocks at a time (--shuffle-block)"),
                None => "shuffled all at once".to_owned(),
            };
            say(format!(
                "{path}: read a part at a time, since the samples would take {found} in memory, more than {} \
                 (--memory); {order}",
                data.most
            ));
        }
        let widths: Vec<String> = trainer.model().mlp.widths().iter().map(usize::to_string).collect();
        let validated = data.validation().map_or(String::new(), |v| format!(", {} to validate with", v.len()));
        say(format!("{} to train on{validated}; network {}", counted(data.trained(), "sample"), widths.join("-")));
    }
}

/// The epoch with the smallest loss, on the validation set if there is one.
pub(crate) fn best(history: &History) -> Option<&Record> {
    let watched = |record: &Record| record.validation_loss.unwrap_or(record.loss);
    let finite = history.records.iter().filter(|record| watched(record).is_finite());
    finite.min_by(|a, b| watched(a).total_cmp(&watched(b)))
}
