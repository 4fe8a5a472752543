//! Trains a network on files and predicts with it; see `--help`.
//!
//! ```text
//! cargo run --release --features progress --example train -- --help
//! ```

mod arguments;
mod guess;
mod origin;
mod output;
mod predict;
mod report;
mod samples;
mod signals;

use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use gemmprop::BatchEnd;
use gemmprop::{
    Dataset, History, Logistic, Loss, Mlp, Observer, Products, ProgressBar, Record, SoftmaxCrossEntropy, SquaredError,
    StopReason, Trainer, blas_description,
    checkpoint::{Checkpoints, Notes, Saved, Stored},
};
use ndarray::Array2;

use crate::arguments::{Cli, Command, LossKind, Train, YesNo};
use crate::report::{Lines, counted, short};
use crate::samples::{Both, Samples, Target, Task, check_columns};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How often the state of a run is saved.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// The name of the checkpoint note that holds the [`Task`].
const TASK: &str = "task";

/// Writes a line to stderr, which may be closed.
fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", line.as_ref());
}

fn main() -> ExitCode {
    let cli = Cli::read();
    let ended = match &cli.command {
        Some(Command::Predict(arguments)) => predict::predict(arguments).map(|()| ExitCode::SUCCESS),
        None => {
            check_usage(&cli.train);
            train(&cli.train)
        }
    };
    ended.unwrap_or_else(|error| {
        say(format!("error: {}", chain(&*error)));
        ExitCode::FAILURE
    })
}

/// The error and its causes in one line, without the causes that the error states itself.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

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
    Cli::whole().error(ErrorKind::MissingRequiredArgument, missing).exit()
}

impl Train {
    /// Whether inputs are standardised; by default, all but images, whose pixels already have one
    /// scale.
    pub(crate) fn standardizes(&self) -> bool {
        self.settings.standardize.map_or(self.source.idx.is_none(), |answer| answer == YesNo::Yes)
    }
}

fn train(arguments: &Train) -> Result<ExitCode> {
    let Train { source, targets, history, plot, .. } = arguments;
    for path in [history, plot].into_iter().flatten() {
        output::check_output(path, &[&source.data, &source.csv, targets])?;
    }
    // Before the data are read, so that a folder in use is reported at once.
    let (checkpoints, stored, task, both) = match (&arguments.checkpoint, arguments.resume) {
        (Some(folder), true) => {
            let checkpoints = Checkpoints::open(folder)?;
            checkpoints.lock()?;
            let stored = checkpoints.read()?;
            for damaged in &stored.damaged {
                say(format!("warning: {damaged}; using {} instead", stored.path.display()));
            }
            let task = task(&stored.notes)?;
            let both = task.again(arguments, say)?;
            (Some(checkpoints), Some(stored), task, both)
        }
        (folder, _) => {
            let checkpoints = folder.as_ref().map(Checkpoints::create).transpose();
            let checkpoints = checkpoints.map_err(|error| match error {
                error @ gemmprop::checkpoint::CheckpointError::Used { .. } => {
                    format!("{error} (--resume continues the run)").into()
                }
                error => Box::<dyn Error>::from(error),
            })?;
            let (task, both) = samples::first(arguments, say)?;
            (checkpoints, None, task, both)
        }
    };
    let run = Run { arguments, task, checkpoints };
    match run.task.loss {
        LossKind::Softmax => run.run(SoftmaxCrossEntropy, Target::labels, &both, stored),
        LossKind::Logistic => run.run(Logistic, |y| y.numbers().mapv(|y| y as f32), &both, stored),
        LossKind::Squared => run.run(SquaredError, |y| run.task.scaled(y.numbers()), &both, stored),
    }
}

/// The task that a checkpoint records for its run.
pub(crate) fn task(notes: &Notes) -> Result<Task> {
    let note =
        notes.get(TASK).ok_or("the checkpoint was written by another program: it has no note of what is learned")?;
    Ok(serde_json::from_str(note)?)
}

struct Run<'a> {
    arguments: &'a Train,
    task: Task,
    checkpoints: Option<Checkpoints>,
}

impl Run<'_> {
    fn run<L: Loss<f32>>(
        &self,
        loss: L,
        target: impl Fn(&Target) -> Array2<L::Target>,
        (train, validation): &Both,
        stored: Option<Saved<Stored>>,
    ) -> Result<ExitCode> {
        let y = target(&train.y);
        let mut trainer = match stored {
            Some(stored) => self.resumed(loss, stored)?,
            None => self.begun(loss, &train.x, y.ncols())?,
        };
        let inputs = trainer.model().mlp.widths()[0];
        check_columns(&self.arguments.source.path().display(), inputs, train.x.ncols())?;
        let validation_y = validation.as_ref().map(|samples| target(&samples.y));
        let validation_set = validation.as_ref().zip(validation_y.as_ref());
        let validation_set = validation_set.map(|(samples, y)| Dataset::new(samples.x.view(), y.view()));

        let widths: Vec<String> = trainer.model().mlp.widths().iter().map(usize::to_string).collect();
        let validated = validation.as_ref().map_or(String::new(), |v| format!(", {} to validate with", v.x.nrows()));
        say(format!("{} to train on{validated}; network {}", counted(train.x.nrows(), "sample"), widths.join("-")));
        let (start, before) = (Instant::now(), trainer.steps());
        let mut bar = ProgressBar::new();
        let mut lines = Lines::new(&self.task, validation.as_ref());
        let observer: &mut dyn Observer<f32> = if bar.is_hidden() { &mut lines } else { &mut bar };
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
            let mut observer = (Stop { until }, &mut *observer);
            match trainer.fit(Dataset::new(train.x.view(), y.view()), validation_set, &mut observer) {
                // Nothing has been learned that could be lost.
                Err(error) if trainer.steps() == before => return Err(error.into()),
                Err(error) => {
                    // The parameters from before the failed step are good.
                    keeper.keep(&trainer, true)?;
                    break Err(error);
                }
                Ok(ended) => {
                    let over = ended != StopReason::Observer || signals::received().is_some();
                    keeper.keep(&trainer, over)?;
                    if over {
                        break Ok(ended);
                    }
                }
            }
            pause = SAVE_EVERY;
        };
        drop(bar);

        // If one of these fails, the others are still written.
        let mut failures: Vec<String> = Vec::new();
        failures.extend(keeper.failure.map(|failure| format!("the run's last state could not be kept: {failure}")));
        let written = [
            report::write_history(trainer.history(), self.arguments),
            report::write_plot(trainer.history(), self.arguments, &self.task),
        ];
        failures.extend(written.into_iter().filter_map(Result::err).map(|error| chain(&*error)));
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                failures.iter().for_each(|failure| say(format!("warning: {failure}")));
                let diverged = matches!(error, gemmprop::Error::Diverged { .. });
                let hint = if diverged { "; a new run with a smaller --rate may help" } else { "" };
                return Err(format!("{error}{hint}").into());
            }
        };
        say(self.summary(&trainer, ended, before, start.elapsed(), validation.as_ref()));
        if !failures.is_empty() {
            return Err(failures.join("; ").into());
        }
        let stopped = signals::received().filter(|_| ended == StopReason::Observer);
        Ok(stopped.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code())))
    }

    fn summary<L: Loss<f32>>(
        &self,
        trainer: &Trainer<f32, L>,
        ended: StopReason,
        steps_before: u64,
        time: Duration,
        validation: Option<&Samples>,
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
        let score = validation.and_then(|samples| report::validated(&self.task, trainer.model(), samples));
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

    fn begun<L: Loss<f32>>(&self, loss: L, x: &Array2<f32>, targets: usize) -> Result<Trainer<f32, L>> {
        let Train { settings, epochs, .. } = self.arguments;
        let outputs = if self.task.loss == LossKind::Softmax { self.task.classes.len() } else { targets };
        let widths: Vec<usize> = [x.ncols()].into_iter().chain(settings.widths.0.clone()).chain([outputs]).collect();
        let epochs =
            epochs.unwrap_or_else(|| 2000_usize.div_ceil(x.nrows().div_ceil(settings.batch).max(1)).clamp(20, 200));
        let training = settings.training(epochs);
        let mlp = Mlp::he(&widths, settings.bias(), settings.seed)?;
        Ok(Trainer::new(mlp, loss, training)?)
    }
}

/// The epoch with the smallest loss, on the validation set if there is one.
pub(crate) fn best(history: &History) -> Option<&Record> {
    let watched = |record: &Record| record.validation_loss.unwrap_or(record.loss);
    let finite = history.records.iter().filter(|record| watched(record).is_finite());
    finite.min_by(|a, b| watched(a).total_cmp(&watched(b)))
}

/// Writes checkpoints. Once one has been written, a failure does not end the run, since the next
/// save tries again.
struct Keeper<'a> {
    checkpoints: Option<&'a Checkpoints>,
    notes: Notes,
    /// Whether a checkpoint has been written.
    kept: bool,
    /// Why the last one could not be written.
    failure: Option<String>,
}

impl Keeper<'_> {
    fn keep<L: Loss<f32>>(&mut self, trainer: &Trainer<f32, L>, last: bool) -> Result {
        let Some(checkpoints) = self.checkpoints else { return Ok(()) };
        match checkpoints.save(trainer, &self.notes) {
            Ok(_) => {
                if self.failure.take().is_some() {
                    say("checkpoints can be written again");
                }
                self.kept = true;
            }
            // Nothing would be lost by ending the run here.
            Err(error) if !self.kept && !last => return Err(error.into()),
            Err(error) => {
                let failure = Some(chain(&error));
                // The warning is given once for each failure, not at every attempt.
                if !last && self.failure != failure {
                    let failure = failure.as_deref().unwrap_or_default();
                    say(format!("warning: {failure}; the run goes on and tries to keep its state again"));
                }
                self.failure = failure;
            }
        }
        Ok(())
    }
}

/// Stops a run for a checkpoint, or for good.
struct Stop {
    until: Option<Instant>,
}

impl Observer<f32> for Stop {
    fn batch(&mut self, _batch: &BatchEnd) -> ControlFlow<()> {
        let stop = signals::received().is_some() || self.until.is_some_and(|until| Instant::now() >= until);
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
