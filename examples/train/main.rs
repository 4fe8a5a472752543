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
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use gemmprop::observer::Batch;
use gemmprop::{
    Checkpoints, Dataset, Ended, Logistic, Loss, Mlp, Notes, Observer, ProgressBar, Record, SoftmaxCrossEntropy,
    SquaredError, Trainer, blas_description,
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
    let (checkpoints, task, both) = match (&arguments.checkpoint, arguments.resume) {
        (Some(folder), true) => {
            let (checkpoints, task) = reopen(folder)?;
            let both = task.again(arguments)?;
            (Some(checkpoints), task, both)
        }
        (folder, _) => {
            // Before the data are read: a folder in use is to be known at once.
            let checkpoints = folder.as_ref().map(Checkpoints::create).transpose();
            let checkpoints = checkpoints.map_err(|error| match error {
                error @ gemmprop::CheckpointError::Used { .. } => format!("{error} (--resume goes on)").into(),
                error => Box::<dyn Error>::from(error),
            })?;
            let (task, both) = samples::first(arguments, say)?;
            (checkpoints, task, both)
        }
    };
    let run = Run { arguments, task, checkpoints };
    match run.task.loss {
        LossKind::Softmax => run.run(SoftmaxCrossEntropy, Target::labels, &both),
        LossKind::Logistic => run.run(Logistic, Target::numbers, &both),
        LossKind::Squared => run.run(SquaredError, |y| run.task.scaled(y.numbers()), &both),
    }
}

/// The run in a folder, and what it learns.
fn reopen(folder: &Path) -> Result<(Checkpoints, Task)> {
    let checkpoints = Checkpoints::open(folder)?;
    let saved = checkpoints.model::<f32>()?;
    for damaged in &saved.damaged {
        say(format!("warning: {damaged}; using {} instead", saved.path.display()));
    }
    let task = task(&saved.notes)?;
    Ok((checkpoints, task))
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
    ) -> Result<ExitCode> {
        let of = |samples: &Samples| target(samples.y.as_ref().expect("data to learn from have targets"));
        let y = of(train);
        let mut trainer = self.trainer(loss, &train.x, y.ncols())?;
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
        let ended = loop {
            let until = self.checkpoints.is_some().then(|| Instant::now() + SAVE_EVERY);
            let ended = trainer
                .fit(Dataset::new(train.x.view(), y.view()), validation_set, &mut (Stop { until }, &mut *observer))
                .map_err(|error| match error {
                    error @ gemmprop::Error::Diverged { .. } => format!("{error}; a smaller --rate may help").into(),
                    error => Box::<dyn Error>::from(error),
                })?;
            if let Some(checkpoints) = &self.checkpoints {
                checkpoints.save(&trainer, &notes)?;
            }
            if ended != Ended::Observer || INTERRUPTED.load(Ordering::Relaxed) {
                break ended;
            }
        };
        drop(bar);

        report::write(trainer.history(), self.arguments, &self.task)?;
        let (records, epochs) = (&trainer.history().records, trainer.training().epochs);
        let (done, seconds) = (records.len(), start.elapsed().as_secs_f64());
        let mut summary = match ended {
            Ended::Done if trainer.steps() == before => {
                format!("nothing to do, {done} epochs were done before and --epochs N goes on to N")
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
        let best = records.iter().min_by(|a, b| watched(a).total_cmp(&watched(b)));
        let takes_best = trainer.training().early_stopping.is_some() && ended != Ended::Observer;
        if let Some(record) = if takes_best { best } else { records.last() } {
            let epoch = if takes_best { format!("best epoch {}, ", record.epoch) } else { String::new() };
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

    /// A new run, or the one in the checkpoint.
    fn trainer<L: Loss<f32>>(&self, loss: L, x: &Array2<f32>, targets: usize) -> Result<Trainer<f32, L>> {
        let Train { settings, epochs, resume, .. } = self.arguments;
        if let (Some(checkpoints), true) = (&self.checkpoints, resume) {
            let saved = checkpoints.resume(loss)?;
            let (blas, mut trainer) = (blas_description(), saved.value);
            if saved.blas != blas {
                say(format!("note: the run began with {}, this is {blas}; roundings will differ", saved.blas));
            }
            trainer.set_epochs(epochs.unwrap_or(trainer.training().epochs));
            return Ok(trainer);
        }
        let outputs = if self.task.loss == LossKind::Softmax { self.task.classes.len() } else { targets };
        let widths: Vec<usize> = [x.ncols()].into_iter().chain(settings.widths.0.clone()).chain([outputs]).collect();
        let epochs =
            epochs.unwrap_or_else(|| 2000_usize.div_ceil(x.nrows().div_ceil(settings.batch).max(1)).clamp(20, 200));
        let training = settings.training(epochs, self.arguments.standardizes());
        Ok(Trainer::new(Mlp::he(&widths, settings.constant(), settings.seed)?, loss, training)?)
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
