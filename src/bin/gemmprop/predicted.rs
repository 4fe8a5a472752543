//! What a network predicts, in the terms of its data.

use gemmprop::Model;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};

use crate::arguments::LossKind;
use crate::message::Result;
use crate::origin::Origin;
use crate::task::Task;

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

/// The predictions for rows of a file; an error names the row.
pub(crate) fn of_file(task: &Task, model: &Model<f32>, x: ArrayView2<f32>, origin: &Origin) -> Result<Predicted> {
    predicted(task, model, x).map_err(|error| {
        let alone = |row: usize| predicted(task, model, x.slice(s![row..=row, ..])).err();
        // The error of the row alone, which names no other row.
        let found = (0..x.nrows()).find_map(|row| Some(format!("{}: {}", origin.row(row), alone(row)?)));
        found.unwrap_or_else(|| format!("{origin}: {error}")).into()
    })
}
