//! Predictions of a network in a checkpoint.

use std::io::{self, Write};

use gemmprop::{Checkpoints, Model};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use ndarray_npy::WriteNpyExt;

use crate::arguments::{LossKind, Predict};
use crate::report::{check_folder, replace, score};
use crate::samples::{Task, Unknown};
use crate::{Result, say, warn};

pub(crate) enum Predicted {
    /// Each sample's most probable class, and how probable that is.
    Classes(Vec<(usize, f32)>),
    Numbers(Array2<f32>),
}

pub(crate) fn predicted(task: &Task, model: &Model<f32>, x: ArrayView2<f32>) -> Result<Predicted> {
    let y_hat = model.predict(x)?;
    Ok(match task.loss {
        LossKind::Squared => Predicted::Numbers(task.unscaled(y_hat)),
        LossKind::Logistic => {
            let class = |y: &f32| (usize::from(*y >= 0.0), 1.0 / (1.0 + (-y.abs()).exp()));
            Predicted::Classes(y_hat.iter().map(class).collect())
        }
        LossKind::Softmax => Predicted::Classes(y_hat.axis_iter(Axis(0)).map(most_probable).collect()),
    })
}

/// The largest output's class, and its share of the softmax.
fn most_probable(y_hat: ArrayView1<f32>) -> (usize, f32) {
    let largest = y_hat.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let (class, &largest) = largest.expect("a network has an output");
    (class, 1.0 / y_hat.iter().map(|y| (y - largest).exp()).sum::<f32>())
}

pub(crate) fn predict(arguments: &Predict) -> Result {
    if let Some(path) = &arguments.output {
        check_folder(path)?;
    }
    let saved = Checkpoints::open(&arguments.checkpoint)?.model::<f32>()?;
    warn(&saved);
    let task = crate::task(&saved.notes)?;
    let (train, test) = task.read(&arguments.source, None, Unknown::LeftOut)?;
    let samples = test.unwrap_or(train);
    let predicted = predicted(&task, &saved.value, samples.x.view())?;
    match &arguments.output {
        None => {
            match write_csv(&task, &predicted, io::stdout().lock()) {
                // Whoever reads it has read enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        Some(path) => {
            let mut bytes = Vec::new();
            match &predicted {
                _ if path.extension().is_some_and(|ending| ending == "csv") => {
                    write_csv(&task, &predicted, &mut bytes)?;
                }
                Predicted::Classes(classes) => {
                    let labels: Array1<i64> = classes.iter().map(|&(class, _)| class as i64).collect();
                    labels.write_npy(&mut bytes)?;
                }
                Predicted::Numbers(y_hat) => y_hat.write_npy(&mut bytes)?,
            }
            replace(path, &bytes)?;
        }
    }
    let rows = samples.x.nrows();
    match (score(&task, &saved.value, &samples)?, &samples.answered) {
        (Some(score), None) => say(format!("{score} of {rows} samples")),
        (Some(score), Some(answered)) => {
            say(format!("{score} of {} samples; of {rows}, the others have no known answer", answered.len()));
        }
        (None, Some(_)) => say(format!("0 of {rows} samples scored, as none has a known answer")),
        (None, None) => {}
    }
    Ok(())
}

fn write_csv(task: &Task, predicted: &Predicted, to: impl Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    let target = task.target.as_deref();
    let written = match predicted {
        Predicted::Classes(classes) => {
            let mut rows = classes.iter().map(|&(class, probability)| {
                let name = task.classes.get(class).map_or_else(|| class.to_string(), Clone::clone);
                [name, probability.to_string()]
            });
            writer
                .write_record([target.unwrap_or("class"), "probability"])
                .and_then(|()| rows.try_for_each(|row| writer.write_record(row)))
        }
        Predicted::Numbers(y_hat) => {
            let names = (0..y_hat.ncols()).map(|i| match target {
                Some(target) => target.to_owned(),
                None if y_hat.ncols() == 1 => "y".to_owned(),
                None => format!("y{i}"),
            });
            let mut rows = y_hat.outer_iter();
            writer
                .write_record(names)
                .and_then(|()| rows.try_for_each(|row| writer.write_record(row.iter().map(f32::to_string))))
        }
    };
    match written.map_err(csv::Error::into_kind) {
        Ok(()) => writer.flush(),
        Err(csv::ErrorKind::Io(error)) => Err(error),
        Err(other) => Err(io::Error::other(format!("{other:?}"))),
    }
}
