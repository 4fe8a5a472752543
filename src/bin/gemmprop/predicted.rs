//! What a network predicts, in the terms of its data.

use std::ops::Range;

use gemmprop::Model;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};

use crate::inputs::parts;
use crate::message::Result;
use crate::rows::Rows;
use crate::task::Task;
use crate::values::LossKind;

#[derive(Debug)]
pub(crate) enum Predicted {
    /// The most probable class of each sample, with its probability.
    Classes(Vec<(usize, f32)>),
    Numbers(Array2<f64>),
}

impl Predicted {
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(rows.iter().map(|&row| classes[row]).collect()),
            Self::Numbers(y_hat) => Self::Numbers(y_hat.select(Axis(0), rows)),
        }
    }

    /// Adds those of the next rows.
    pub(crate) fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Classes(classes), Self::Classes(more)) => classes.extend(more),
            (Self::Numbers(y_hat), Self::Numbers(more)) => {
                y_hat.append(Axis(0), more.view()).expect("as many numbers in each row");
            }
            _ => unreachable!("a network predicts either classes or numbers"),
        }
    }
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

/// Predicts all rows of a file, and hands them on part by part. An error names the row.
pub(crate) fn of_file(
    task: &Task,
    model: &Model<f32>,
    rows: &Rows,
    mut take: impl FnMut(Range<usize>, Predicted) -> Result,
) -> Result {
    let origin = &rows.origin;
    for part in parts(rows.x.rows(), rows.x.columns()) {
        let of_part: Vec<usize> = part.clone().collect();
        let x = task.inputs_of(origin, &of_part, &rows.part(&of_part)?)?;
        let predicted_part = predicted(task, model, x.view()).map_err(|error| {
            let alone = |row: usize| predicted(task, model, x.slice(s![row..=row, ..])).err();
            // The error of the row alone, which names no other row.
            let found = (0..x.nrows()).find_map(|row| Some((part.start + row, alone(row)?)));
            found.map_or_else(|| format!("{origin}: {error}"), |(row, error)| format!("{}: {error}", origin.row(row)))
        });
        take(part, predicted_part?)?;
    }
    Ok(())
}
