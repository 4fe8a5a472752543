//! A progress bar for programs, with the feature `progress`.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use indicatif::{
    HumanCount, HumanDuration, ProgressBar as Bar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle,
};

use crate::linalg::scalar::Scalar;
use crate::train::history::Record;
use crate::train::model::Model;
use crate::train::observer::{BatchEnd, Observer};

/// An [`Observer`] that shows the progress of a run on stderr: its epoch, the mean loss of the
/// epoch so far, the last validation loss, samples per second and the time left. It only draws on a
/// terminal.
///
/// For a resumed run, the bar begins where the run was stopped; speed and time left are those of
/// the batches that this observer has received. When it is dropped, its last state stays on the
/// screen.
///
/// ```
/// # use gemmprop::{Bias, Dataset, Mlp, ProgressBar, SquaredError, Trainer, TrainingSettings};
/// # use ndarray::array;
/// # let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
/// # let mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
/// # let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default())?;
/// trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ProgressBar::new())?;
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct ProgressBar {
    /// The bar, from the first batch on, and its length, which the bar only gives under a lock.
    bar: Option<SizedBar>,
    seen: Arc<Mutex<Seen>>,
}

/// A bar and its length.
#[derive(Debug)]
struct SizedBar {
    bar: Bar,
    length: u64,
}

/// What the text of the bar shows.
#[derive(Debug, Default)]
struct Seen {
    epoch: usize,
    epochs: usize,
    /// Σ ℓ over the samples of the epoch so far.
    loss_sum: f64,
    /// Samples of the epoch so far.
    samples: usize,
    validation_loss: Option<f64>,
    /// The time of the first batch.
    start: Option<Instant>,
    /// Samples and batches since then.
    all_samples: usize,
    all_batches: usize,
}

impl ProgressBar {
    /// A bar that appears with the first batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing will be drawn because stderr is not a terminal.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        ProgressDrawTarget::stderr().is_hidden()
    }

    fn begin(&self, position: u64, length: u64) -> Bar {
        let seen = Arc::clone(&self.seen);
        // Called when the bar is drawn, a few times a second.
        let text = move |state: &ProgressState, text: &mut dyn Write| {
            let _ = seen.lock().expect("no holder panics").write(state, text);
        };
        let time = |state: &ProgressState, text: &mut dyn Write| {
            let _ = match state.is_finished() {
                true => write!(text, "in {:#}", HumanDuration(state.elapsed())),
                false => write!(text, "ETA {:#}", HumanDuration(state.eta())),
            };
        };
        let style = ProgressStyle::with_template("{text} {wide_bar} {percent}% {time}");
        let style = style.expect("a valid template").with_key("text", text).with_key("time", time);
        let bar = Bar::new(length).with_style(style).with_finish(ProgressFinish::Abandon).with_position(position);
        // Otherwise indicatif counts the batches before `position` as work of this moment.
        bar.tick();
        bar.reset_eta();
        bar
    }
}

impl<F: Scalar> Observer<F> for ProgressBar {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        self.seen.lock().expect("no holder panics").add(batch);
        let position = ((batch.epoch - 1) * batch.batches + batch.batch) as u64;
        // `partial_fit` may exceed the planned epochs.
        let length = (batch.epochs.max(batch.epoch) * batch.batches) as u64;
        match &mut self.bar {
            Some(drawn) => {
                if drawn.length != length {
                    drawn.length = length;
                    drawn.bar.set_length(length);
                }
                drawn.bar.set_position(position);
            }
            None => self.bar = Some(SizedBar { bar: self.begin(position, length), length }),
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, record: &Record, _model: &Model<F>) -> ControlFlow<()> {
        self.seen.lock().expect("no holder panics").validation_loss = record.validation_loss;
        ControlFlow::Continue(())
    }
}

impl Seen {
    fn add(&mut self, batch: &BatchEnd) {
        if batch.epoch != self.epoch {
            (self.loss_sum, self.samples) = (0.0, 0);
        }
        (self.epoch, self.epochs) = (batch.epoch, batch.epochs);
        self.loss_sum += batch.loss * batch.samples as f64;
        self.samples += batch.samples;
        match self.start {
            Some(_) => (self.all_samples, self.all_batches) = (self.all_samples + batch.samples, self.all_batches + 1),
            None => self.start = Some(Instant::now()),
        }
    }

    fn write(&self, state: &ProgressState, text: &mut dyn Write) -> std::fmt::Result {
        write!(text, "epoch {}/{}  loss {:.4}", self.epoch, self.epochs, self.loss_sum / self.samples as f64)?;
        if let Some(loss) = self.validation_loss {
            write!(text, "  validation {loss:.4}")?;
        }
        let speed = match self.start {
            // At the end, indicatif's speed includes the batches before this observer's.
            Some(start) if state.is_finished() => self.all_samples as f64 / start.elapsed().as_secs_f64(),
            _ => state.per_sec() * self.all_samples as f64 / self.all_batches.max(1) as f64,
        };
        if speed >= 1.0 && speed.is_finite() {
            write!(text, "  {} samples/s", HumanCount(speed as u64))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
