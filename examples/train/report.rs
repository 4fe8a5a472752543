//! What a run tells: lines, scores, its history, its curve.

use std::fmt::{self, Display};
use std::fs;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use gemmprop::observer::Batch;
use gemmprop::{History, Model, Observer, Record};

use crate::arguments::Train;
use crate::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};
use crate::predict::{Predicted, predicted};
use crate::samples::{Samples, Task};
use crate::{Result, say};

/// How good predictions are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Score {
    Accuracy(f64),
    Rmse(f64),
}

impl Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Accuracy(share) => write!(f, "accuracy {share:.4}"),
            // Five digits, whatever the unit of the target.
            Self::Rmse(error) => write!(f, "RMSE {error:.*}", (4.0 - error.log10().floor()).clamp(0.0, 12.0) as usize),
        }
    }
}

/// None where the answers are not known.
pub(crate) fn score(task: &Task, model: &Model<f32>, samples: &Samples) -> Result<Option<Score>> {
    let Some(y) = samples.y.as_ref().filter(|y| y.len() > 0) else { return Ok(None) };
    let answered = samples.answered.as_ref().map(|rows| samples.x.select(ndarray::Axis(0), rows));
    let x = answered.as_ref().unwrap_or(&samples.x);
    Ok(Some(match predicted(task, model, x.view())? {
        Predicted::Classes(classes) => {
            let right = classes.iter().zip(&y.labels()).filter(|((class, _), label)| class == *label).count();
            Score::Accuracy(right as f64 / classes.len() as f64)
        }
        Predicted::Numbers(y_hat) => {
            let y = y.numbers();
            if y.dim() != y_hat.dim() {
                return Err(format!("targets: expected shape {:?}, found {:?}", y_hat.shape(), y.shape()).into());
            }
            let squares = (y_hat.mapv(f64::from) - y.mapv(f64::from)).mapv(|error| error * error);
            Score::Rmse(squares.mean().unwrap_or(0.0).sqrt())
        }
    }))
}

/// A line for each epoch, where there is no terminal; of many short epochs, for some; in long ones, every few seconds.
pub(crate) struct Lines<'a> {
    task: &'a Task,
    validation: Option<&'a Samples>,
    epochs: usize,
    samples: usize,
    since: Instant,
}

impl<'a> Lines<'a> {
    const EVERY: Duration = Duration::from_secs(5);

    pub(crate) fn new(task: &'a Task, validation: Option<&'a Samples>) -> Self {
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
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.epochs = batch.epochs;
        self.samples += batch.samples;
        if batch.batch < batch.batches && self.since.elapsed() >= Self::EVERY {
            let Batch { epoch, epochs, batch, batches, loss, .. } = batch;
            let speed = self.speed();
            say(format!("epoch {epoch}/{epochs}, batch {batch}/{batches}: loss of the batch {loss:.4}, {speed}"));
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, record: &Record, model: &Model<f32>) -> ControlFlow<()> {
        let Record { epoch, loss, validation_loss, learning_rate, .. } = record;
        let some = if self.epochs > 100 { self.epochs.div_ceil(50) } else { 1 };
        let due = self.since.elapsed() >= Self::EVERY;
        if epoch % some == 0 || *epoch == 1 || *epoch >= self.epochs || due {
            let mut line = format!("epoch {epoch}/{}: loss {loss:.4}", self.epochs);
            line += &validation_loss.map_or(String::new(), |loss| format!(", validation loss {loss:.4}"));
            let score = self.validation.and_then(|samples| score(self.task, model, samples).ok().flatten());
            line += &score.map_or(String::new(), |score| format!(", {score}"));
            say(format!("{line}, rate {learning_rate:.3e}, {}", self.speed()));
        }
        ControlFlow::Continue(())
    }
}

/// Before hours of training, not after.
pub(crate) fn check_folder(path: &Path) -> Result {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(()) } else { Err(format!("{}: there is no such folder", folder.display()).into()) }
}

/// Whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    written.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// The files that were asked for.
pub(crate) fn write(history: &History, arguments: &Train, task: &Task) -> Result {
    if let Some(path) = &arguments.history {
        let json = path.extension().is_some_and(|ending| ending == "json");
        replace(path, if json { history.to_json() } else { history.to_csv() }.as_bytes())?;
    }
    if let Some(path) = &arguments.plot {
        if history.records.is_empty() {
            say(format!("{}: not drawn, as no epoch is complete", path.display()));
            return Ok(());
        }
        let figure = figure(history, task);
        if path.extension().is_some_and(|ending| ending == "png") {
            let mut bytes = Cursor::new(Vec::new());
            figure.png()?.write_to(&mut bytes, image::ImageOutputFormat::Png)?;
            replace(path, bytes.get_ref())?;
        } else {
            replace(path, figure.svg()?.as_bytes())?;
        }
    }
    Ok(())
}

fn figure(history: &History, task: &Task) -> Figure {
    let training = history.records.iter().map(|record| (record.epoch as f64, record.loss)).collect();
    let validation = history.records.iter().filter_map(|record| Some((record.epoch as f64, record.validation_loss?)));
    let few = history.records.len() <= 40;
    let series = |label: &str, colour, marker, stroke, line: Vec<(f64, f64)>| {
        let marks = if few { line.clone() } else { Vec::new() };
        Series { label: label.to_owned(), colour, marker, marks, stroke, line, ..Series::default() }
    };
    let mut all = vec![
        series("training, mean over the epoch", colour::BLUE, Marker::Circle, Stroke::Solid, training),
        series("validation, after the epoch", colour::VERMILION, Marker::Diamond, Stroke::Dashed, validation.collect()),
    ];
    all.retain(|series| !series.line.is_empty());
    let positive = all.iter().flat_map(|series| &series.line).all(|&(_, loss)| loss > 0.0);
    let of = task.target.as_ref().map_or(String::new(), |target| format!(" of {target:?}"));
    let units =
        if task.scale.is_empty() { "" } else { " The target is standardised: a loss of 0.5 is that of its mean." };
    Figure {
        name: "curve",
        title: "Learning curve".to_owned(),
        panels: vec![Panel {
            title: format!("{:?} loss{of}", task.loss),
            x: Axis { label: "epoch", scale: Scale::Whole },
            y: Axis { label: "loss", scale: if positive { Scale::Log } else { Scale::Linear } },
            series: all,
        }],
        caption: format!(
            "Mean loss of a sample. In training each batch is measured before its update, so the first epochs look worse than they end.{units}"
        ),
    }
}
