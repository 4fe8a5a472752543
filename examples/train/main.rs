//! Trains a network on files, and predicts with it; `--help` says how.
//!
//! ```text
//! cargo run --release --features progress --example train -- --help
//! ```

mod arguments;
#[path = "../../benches/figures/font.rs"]
mod font;
#[allow(dead_code, reason = "the benches draw more")]
#[path = "../../benches/figures/plot.rs"]
mod plot;
mod predict;
mod report;
mod samples;

use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use gemmprop::observer::Batch;
use gemmprop::{
    Checkpoints, Dataset, Ended, Logistic, Loss, Mlp, Notes, Observer, ProgressBar, Record, Saved, SoftmaxCrossEntropy,
    SquaredError, Stored, Trainer, blas_description,
};
use ndarray::Array2;

use crate::arguments::{Cli, Command, LossKind, Train, YesNo};
use crate::report::{Lines, score};
use crate::samples::{Both, Samples, Target, Task};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How often a run is kept.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// The note of a checkpoint that has the [`Task`].
const TASK: &str = "task";

/// Set by Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// To stderr, which may be closed.
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

/// The error and its causes, in one line; many say their cause themselves.
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

/// What clap cannot check: a new run has to know what to learn.
fn check_usage(arguments: &Train) {
    let missing = match (&arguments.source, arguments.resume) {
        (source, false) if source.csv.is_some() && arguments.target.is_none() => {
            "--csv needs --target COLUMN, the name of the column to learn"
        }
        (source, _) if source.data.is_some() && arguments.targets.is_none() => {
            "--data needs --targets Y.npy, what to learn"
        }
        _ => return,
    };
    Cli::whole().error(ErrorKind::MissingRequiredArgument, missing).exit()
}

impl Train {
    /// Pixels have one scale already.
    pub(crate) fn standardizes(&self) -> bool {
        self.settings.standardize.map_or(self.source.idx.is_none(), |answer| answer == YesNo::Yes)
    }
}

fn train(arguments: &Train) -> Result<ExitCode> {
    for path in [&arguments.history, &arguments.plot].into_iter().flatten() {
        report::check_folder(path)?;
    }
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    let (checkpoints, stored, task, both) = match (&arguments.checkpoint, arguments.resume) {
        (Some(folder), true) => {
            let checkpoints = Checkpoints::open(folder)?;
            let stored = checkpoints.read()?;
            warn(&stored);
            let task = task(&stored.notes)?;
            let both = task.again(arguments, say)?;
            (Some(checkpoints), Some(stored), task, both)
        }
        (folder, _) => {
            // Before the data are read: a folder in use is to be known at once.
            let checkpoints = folder.as_ref().map(Checkpoints::create).transpose();
            let checkpoints = checkpoints.map_err(|error| match error {
                error @ gemmprop::CheckpointError::Used { .. } => format!("{error} (--resume goes on)").into(),
                error => Box::<dyn Error>::from(error),
            })?;
            let (task, both) = samples::first(arguments, say)?;
            (checkpoints, None, task, both)
        }
    };
    let run = Run { arguments, task, checkpoints };
    match run.task.loss {
        LossKind::Softmax => run.run(SoftmaxCrossEntropy, Target::labels, &both, stored),
        LossKind::Logistic => run.run(Logistic, Target::numbers, &both, stored),
        LossKind::Squared => run.run(SquaredError, |y| run.task.scaled(y.numbers()), &both, stored),
    }
}

/// Of newer checkpoints that are damaged.
pub(crate) fn warn<T>(saved: &Saved<T>) {
    for damaged in &saved.damaged {
        say(format!("warning: {damaged}; using {} instead", saved.path.display()));
    }
}

/// What a checkpoint says of its run.
pub(crate) fn task(notes: &Notes) -> Result<Task> {
    let note = notes.get(TASK).ok_or("the checkpoint is of another program: it has no note of what is learned")?;
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
        let of = |samples: &Samples| target(samples.y.as_ref().expect("data to learn from have targets"));
        let y = of(train);
        let mut trainer = match stored {
            Some(stored) => self.resumed(loss, stored)?,
            None => self.begun(loss, &train.x, y.ncols())?,
        };
        let validation_y = validation.as_ref().map(of);
        let validation_set = validation.as_ref().zip(validation_y.as_ref());
        let validation_set = validation_set.map(|(samples, y)| Dataset::new(samples.x.view(), y.view()));

        let widths: Vec<String> = trainer.model().mlp.widths().iter().map(usize::to_string).collect();
        let validated = validation.as_ref().map_or(String::new(), |v| format!(", {} to validate with", v.x.nrows()));
        say(format!("{} samples to train on{validated}; network {}", train.x.nrows(), widths.join("-")));
        let (start, before) = (Instant::now(), trainer.steps());
        let mut bar = ProgressBar::new();
        let mut lines = Lines::new(&self.task, validation.as_ref());
        let observer: &mut dyn Observer<f32> = if bar.is_hidden() { &mut lines } else { &mut bar };
        let notes = Notes::from([(TASK.to_owned(), serde_json::to_string(&self.task)?)]);
        let keep = |trainer: &Trainer<f32, L>| match &self.checkpoints {
            Some(checkpoints) => checkpoints.save(trainer, &notes).map(drop),
            None => Ok(()),
        };
        // After the first batch, so that there is something to resume from, and not before: it checks the data.
        let mut pause = Duration::ZERO;
        let ended = loop {
            let until = self.checkpoints.is_some().then(|| Instant::now() + pause);
            let mut observer = (Stop { until }, &mut *observer);
            match trainer.fit(Dataset::new(train.x.view(), y.view()), validation_set, &mut observer) {
                Err(error @ gemmprop::Error::Diverged { .. }) => break Err(error),
                fitted => {
                    let ended = fitted?;
                    keep(&trainer)?;
                    if ended != Ended::Observer || INTERRUPTED.load(Ordering::Relaxed) {
                        break Ok(ended);
                    }
                }
            }
            pause = SAVE_EVERY;
        };
        drop(bar);

        let ended = match ended {
            Ok(ended) => ended,
            Err(diverged) => {
                // The parameters before that step are good.
                let kept = keep(&trainer).map_err(Into::into);
                if let Err(error) = kept.and_then(|()| report::write(trainer.history(), self.arguments, &self.task)) {
                    say(format!("warning: {}", chain(&*error)));
                }
                return Err(format!("{diverged}; a new run with a smaller --rate may help").into());
            }
        };
        report::write(trainer.history(), self.arguments, &self.task)?;
        let (records, epochs) = (&trainer.history().records, trainer.training().epochs);
        let (done, seconds) = (records.len(), start.elapsed().as_secs_f64());
        let mut summary = match ended {
            Ended::Done if trainer.steps() == before => {
                format!("nothing to do, {done} epochs were done before and --epochs N goes on to N")
            }
            Ended::Early if trainer.steps() == before => {
                format!("nothing to do, nothing had got better after {done} epochs; --epochs N goes on to N")
            }
            Ended::Done => format!("{done} of {epochs} epochs in {seconds:.1} s"),
            Ended::Early => format!("{done} of {epochs} epochs in {seconds:.1} s, then nothing had got better"),
            Ended::Observer => {
                format!(
                    "stopped by Ctrl-C after {seconds:.1} s, {done} of {epochs} epochs and {} steps",
                    trainer.steps()
                )
            }
        };
        // The epoch that the network is of.
        let watched = |record: &&Record| record.validation_loss.unwrap_or(record.loss);
        let best = records.iter().filter(|record| watched(record).is_finite());
        let best = best.min_by(|a, b| watched(a).total_cmp(&watched(b)));
        let best = best.filter(|_| trainer.training().early_stopping.is_some() && ended != Ended::Observer);
        if let Some(record) = best.or(records.last()) {
            let epoch = best.map_or(String::new(), |best| format!("best epoch {}, ", best.epoch));
            summary += &format!(": {epoch}loss {:.4}", record.loss);
            summary += &record.validation_loss.map_or(String::new(), |loss| format!(", validation loss {loss:.4}"));
        }
        if let Some(samples) = validation {
            let score = score(&self.task, trainer.model(), samples)?;
            summary += &score.map_or(String::new(), |score| format!(", {score}"));
        }
        summary += &match &self.checkpoints {
            Some(checkpoints) => format!("; checkpoint in {}", checkpoints.directory().display()),
            None => "; the network is not kept, --checkpoint FOLDER would".to_owned(),
        };
        say(summary);
        Ok(if ended == Ended::Observer { ExitCode::from(130) } else { ExitCode::SUCCESS })
    }

    fn resumed<L: Loss<f32>>(&self, loss: L, stored: Saved<Stored>) -> Result<Trainer<f32, L>> {
        let (mut trainer, blas) = (stored.value.trainer(loss)?, blas_description());
        if stored.blas != blas {
            say(format!("note: the run began with {}, this is {blas}; roundings will differ", stored.blas));
        }
        // Not without being asked to, lest a run that has stopped early go on.
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
        let training = settings.training(epochs, self.arguments.standardizes());
        let mlp = Mlp::he(&widths, settings.constant(), settings.seed)?;
        Ok(Trainer::new(mlp, loss, training)?)
    }
}

/// Stops a run for a checkpoint, or for good.
struct Stop {
    until: Option<Instant>,
}

impl Observer<f32> for Stop {
    fn batch(&mut self, _batch: &Batch) -> ControlFlow<()> {
        let stop = INTERRUPTED.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until);
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
