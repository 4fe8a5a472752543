//! Predictions by the network of a checkpoint.

use std::io::{self, Write};
use std::path::Path;

use gemmprop::{
    Model,
    checkpoint::{Checkpoints, Stored},
};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use ndarray_npy::WriteNpyExt;

use crate::arguments::{LossKind, Predict};
use crate::output::{check_output, replace};
use crate::report::{counted, score};
use crate::samples::{Asked, Task, check_columns};
use crate::{Result, say};

pub(crate) enum Predicted {
    /// The most probable class of each sample, with its probability.
    Classes(Vec<(usize, f32)>),
    Numbers(Array2<f64>),
}

pub(crate) fn predicted(task: &Task, model: &Model<f32>, x: ArrayView2<f32>) -> Result<Predicted> {
    let y_hat = model.predict(x)?;
    if let Some(found) = y_hat.iter().find(|y| !y.is_finite()) {
        return Err(format!("expected finite outputs of the network, found {found}").into());
    }
    if task.loss == LossKind::Squared {
        return Ok(Predicted::Numbers(task.unscaled(y_hat)));
    }
    let probability = |(y_hat, class): (ArrayView1<f32>, usize)| match task.loss {
        LossKind::Logistic => (class, 1.0 / (1.0 + (-y_hat[0].abs()).exp())),
        _ => (class, 1.0 / y_hat.iter().map(|y| (y - y_hat[class]).exp()).sum::<f32>()),
    };
    Ok(Predicted::Classes(y_hat.outer_iter().zip(model.classify(x)?).map(probability).collect()))
}

/// The task and the network of a checkpoint file, or of the newest checkpoint in a folder.
fn network(path: &Path) -> Result<(Task, Model<f32>)> {
    let stored = if path.is_file() {
        Stored::load(path)?
    } else {
        let stored = Checkpoints::open(path)?.read()?;
        if let [damaged, ..] = &stored.damaged[..] {
            let whole = stored.path.display();
            return Err(format!(
                "{damaged}; the newest intact checkpoint is {whole}; --checkpoint {whole} predicts with it"
            )
            .into());
        }
        stored
    };
    let task = crate::task(&stored.notes)?;
    // The network of the best epoch so far; when a run ends, its network already is that one.
    let (model, best) = (stored.value.model()?, stored.value.best_model()?);
    if let Some(best) = best.filter(|best| *best != model) {
        say("note: the run has not ended; predicting with the network of its best epoch so far");
        return Ok((task, best));
    }
    Ok((task, model))
}

pub(crate) fn predict(arguments: &Predict) -> Result {
    let Predict { checkpoint, source, output } = arguments;
    if let Some(path) = output {
        check_output(path, &[&source.data, &source.csv, &Some(checkpoint.clone())])?;
    }
    let (task, model) = network(checkpoint)?;
    let Asked { x, known, origin } = task.asked(source)?;
    check_columns(&origin, model.mlp.widths()[0], x.ncols())?;
    let predicted = predicted(&task, &model, x.view()).map_err(|error| {
        let alone = |row: usize| predicted(&task, &model, x.slice(s![row..=row, ..])).err();
        // The error of the row alone, which names no other row.
        let found = (0..x.nrows()).find_map(|row| Some(format!("{}: {}", origin.row(row), alone(row)?)));
        found.unwrap_or_else(|| format!("{origin}: {error}"))
    })?;
    match &arguments.output {
        None => {
            match write_csv(&task, &predicted, io::stdout().lock()) {
                // The reader has closed the pipe because it has read enough.
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
                    let own: Vec<Option<i64>> = task.classes.iter().map(|name| name.parse().ok()).collect();
                    let own = own.into_iter().collect::<Option<Vec<i64>>>();
                    let label = |&(class, _): &(usize, f32)| own.as_ref().map_or(class as i64, |own| own[class]);
                    classes.iter().map(label).collect::<Array1<i64>>().write_npy(&mut bytes)?;
                }
                Predicted::Numbers(y_hat) => y_hat.write_npy(&mut bytes)?,
            }
            replace(path, &bytes)?;
        }
    }
    let Some((known, y)) = known else { return Ok(()) };
    let rows = counted(x.nrows(), "sample");
    match score(&predicted.select(&known), &y)? {
        Some(score) if known.len() == x.nrows() => say(format!("{score} of {rows}")),
        Some(score) => {
            let known = counted(known.len(), "sample");
            say(format!("{score} of {known}; of {}, the others have no known answer", x.nrows()));
        }
        None => say(format!("0 of {rows} scored, as none has a known answer")),
    }
    Ok(())
}

impl Predicted {
    fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(rows.iter().map(|&row| classes[row]).collect()),
            Self::Numbers(y_hat) => Self::Numbers(y_hat.select(Axis(0), rows)),
        }
    }
}

/// The shortest text of the number: as an f32 if it is one, as the network's outputs are.
fn text(number: f64) -> String {
    let single = number as f32;
    if f64::from(single) == number { single.to_string() } else { number.to_string() }
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
                .and_then(|()| rows.try_for_each(|row| writer.write_record(row.iter().copied().map(text))))
        }
    };
    match written.map_err(csv::Error::into_kind) {
        Ok(()) => writer.flush(),
        Err(csv::ErrorKind::Io(error)) => Err(error),
        Err(other) => Err(io::Error::other(format!("{other:?}"))),
    }
}
