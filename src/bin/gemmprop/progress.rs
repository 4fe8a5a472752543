//! The progress of a run where there is no terminal, and as JSON.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gemmprop::{BatchEnd, Model, Observer, Record};

use crate::message::{print_json, say, short};
use crate::score::validated;
use crate::task::{Task, Validation};

/// Writes the record of each epoch to stdout.
#[derive(Debug)]
pub(crate) struct JsonLines;

impl Observer<f32> for JsonLines {
    fn epoch(&mut self, record: &Record, _model: &Model<f32>) -> ControlFlow<()> {
        // That nobody reads it is no reason to end the run.
        let _ = print_json(record);
        ControlFlow::Continue(())
    }
}

/// Writes a line for each epoch where there is no terminal: for some of many short epochs, and
/// every few seconds within long ones.
pub(crate) struct Lines<'a> {
    task: &'a Task,
    validation: Option<Validation<'a>>,
    epochs: usize,
    samples: usize,
    since: Instant,
}

impl<'a> Lines<'a> {
    const EVERY: Duration = Duration::from_secs(5);

    pub(crate) fn new(task: &'a Task, validation: Option<Validation<'a>>) -> Self {
        Self { task, validation, epochs: 0, samples: 0, since: Instant::now() }
    }

    /// Samples per second since the last line.
    fn speed(&mut self) -> String {
        let speed = self.samples as f64 / self.since.elapsed().as_secs_f64();
        (self.samples, self.since) = (0, Instant::now());
        format!("{speed:.0} samples/s")
    }
}

impl Observer<f32> for Lines<'_> {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        self.epochs = batch.epochs;
        self.samples += batch.samples;
        if batch.batch < batch.batches && self.since.elapsed() >= Self::EVERY {
            let BatchEnd { epoch, epochs, batch, batches, loss, .. } = batch;
            let speed = self.speed();
            say(format!(
                "epoch {epoch}/{epochs}, batch {batch}/{batches}: loss of the batch {}, {speed}",
                short(*loss)
            ));
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, record: &Record, model: &Model<f32>) -> ControlFlow<()> {
        let Record { epoch, loss, validation_loss, learning_rate, .. } = record;
        let some = if self.epochs > 100 { self.epochs.div_ceil(50) } else { 1 };
        let due = self.since.elapsed() >= Self::EVERY;
        if epoch % some == 0 || *epoch == 1 || *epoch >= self.epochs || due {
            let mut line = format!("epoch {epoch}/{}: loss {}", self.epochs, short(*loss));
            line += &validation_loss.map_or(String::new(), |loss| format!(", validation loss {}", short(loss)));
            let score = self.validation.and_then(|samples| validated(self.task, model, samples));
            line += &score.map_or(String::new(), |score| format!(", {score}"));
            say(format!("{line}, rate {learning_rate:.3e}, {}", self.speed()));
        }
        ControlFlow::Continue(())
    }
}
