//! What a run reports: progress lines, scores, the history and the learning curve.

use std::fmt::{self, Display};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gemmprop::BatchEnd;
use gemmprop::{History, Model, Observer, Record};

use crate::arguments::Train;
use crate::output::replace;
use crate::predict::{Predicted, predicted};
use crate::samples::{Samples, Target, Task};
use crate::{Result, say};
use ::report::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};

/// A number with its noun, such as "1 sample" or "2 samples".
pub(crate) fn counted(number: usize, thing: &str) -> String {
    let plural = if thing.ends_with('s') { "es" } else { "s" };
    format!("{number} {thing}{}", if number == 1 { "" } else { plural })
}

/// A loss for a progress line: four decimals, with an exponent where they would otherwise be zeros.
pub(crate) fn short(loss: f64) -> String {
    let plain = loss == 0.0 || !loss.is_finite() || (1e-3..1e9).contains(&loss.abs());
    if plain { format!("{loss:.4}") } else { format!("{loss:.4e}") }
}

/// The quality of predictions.
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
            Self::Rmse(error) if *error < 1e16 => {
                write!(f, "RMSE {error:.*}", (4.0 - error.log10().floor()).clamp(0.0, 12.0) as usize)
            }
            Self::Rmse(error) => write!(f, "RMSE {error:.4e}"),
        }
    }
}

/// The score of predictions with the answers y; none if there are no predictions.
pub(crate) fn score(predicted: &Predicted, y: &Target) -> Result<Option<Score>> {
    Ok(match predicted {
        Predicted::Classes(classes) => {
            let right = classes.iter().zip(&y.labels()).filter(|((class, _), label)| class == *label).count();
            (!classes.is_empty()).then(|| Score::Accuracy(right as f64 / classes.len() as f64))
        }
        Predicted::Numbers(y_hat) => {
            let y = y.numbers();
            if y.dim() != y_hat.dim() {
                return Err(format!("targets: expected shape {:?}, found {:?}", y_hat.shape(), y.shape()).into());
            }
            (y_hat - y).mapv(|error| error * error).mean().map(|mean| Score::Rmse(mean.sqrt()))
        }
    })
}

/// The score of a validation set; none for a network whose outputs are not finite.
pub(crate) fn validated(task: &Task, model: &Model<f32>, samples: &Samples) -> Option<Score> {
    score(&predicted(task, model, samples.x.view()).ok()?, &samples.y).ok().flatten()
}

/// Writes a line for each epoch where there is no terminal: for some of many short epochs, and
/// every few seconds within long ones.
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

/// The history, if it was asked for.
pub(crate) fn write_history(history: &History, arguments: &Train) -> Result {
    let Some(path) = &arguments.history else { return Ok(()) };
    let json = path.extension().is_some_and(|ending| ending == "json");
    replace(path, if json { history.to_json() } else { history.to_csv() }.as_bytes())
}

/// The learning curve, if it was asked for.
pub(crate) fn write_plot(history: &History, arguments: &Train, task: &Task) -> Result {
    let Some(path) = &arguments.plot else { return Ok(()) };
    if history.records.is_empty() {
        say(format!("{}: not drawn, as no epoch is complete", path.display()));
        return Ok(());
    }
    let figure = figure(history, task);
    if path.extension().is_some_and(|ending| ending == "png") {
        replace(path, &figure.png()?)
    } else {
        replace(path, figure.svg()?.as_bytes())
    }
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
    // The figure leaves out what is not finite.
    let points = || all.iter().flat_map(|series| &series.line);
    let positive = points().all(|&(_, loss)| loss > 0.0 || !loss.is_finite());
    let left_out = points().filter(|(_, loss)| !loss.is_finite()).count();
    let left_out = match left_out {
        0 => String::new(),
        1 => " 1 loss that is infinite or NaN is left out.".to_owned(),
        more => format!(" {more} losses that are infinite or NaN are left out."),
    };
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
            "Mean loss of a sample. In training each batch is measured before its update, so the first epochs look worse than they end.{units}{left_out}"
        ),
    }
}
