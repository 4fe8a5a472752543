//! What a run has to remember about its data, and the data in the form that its network reads.

use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::arguments::LossKind;
use crate::origin::Origin;
use crate::table::{Encoding, Inputs};

/// What is learned. It is saved with each checkpoint and has all that `predict` and --resume need
/// besides the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) loss: LossKind,
    /// The name of each class i; empty if the target is a number.
    pub(crate) classes: Vec<String>,
    /// The names of the columns of a CSV file that are inputs, in order.
    pub(crate) columns: Vec<String>,
    pub(crate) target: Option<String>,
    /// How each input is standardised; empty if the inputs stay as they are. Absent in runs that
    /// began when the model standardised them, in f32.
    #[serde(default)]
    pub(crate) inputs: Option<Vec<Scale>>,
    /// How each target is standardised.
    pub(crate) scale: Vec<Scale>,
    /// How each of these columns becomes inputs; empty if all are numbers, as in older runs.
    #[serde(default)]
    pub(crate) encodings: Vec<Encoding>,
    /// The columns that were left out, which may be there later; older runs did not record them.
    #[serde(default)]
    pub(crate) dropped: Option<Vec<String>>,
    /// Whether each class counts alike in training, however many samples it has.
    #[serde(default)]
    pub(crate) balanced: bool,
    pub(crate) validation: Option<f64>,
    pub(crate) seed: u64,
    /// Checksum of all numbers used for training and validation, by which a resumed run recognises
    /// them.
    pub(crate) checksum: u32,
}

/// Mean and deviation of a column.
pub(crate) type Scale = (f64, f64);

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Labels(Array1<usize>),
    Numbers(Array2<f64>),
}

/// Samples as the network reads them.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) x: Array2<f32>,
    /// The targets of all rows.
    pub(crate) y: Target,
}

/// Training data and a validation set, if there is one.
pub(crate) type Both = (Samples, Option<Samples>);

/// Samples to predict.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) x: Array2<f32>,
    /// The rows whose answers are known, and the answers; none if the data have no column of
    /// answers.
    pub(crate) known: Option<(Vec<usize>, Target)>,
    pub(crate) origin: Origin,
}

impl Target {
    pub(crate) fn labels(&self) -> Array2<usize> {
        match self {
            Self::Labels(y) => y.clone().insert_axis(Axis(1)),
            Self::Numbers(y) => y.mapv(|y| (y >= 0.5).into()),
        }
    }

    pub(crate) fn numbers(&self) -> Array2<f64> {
        match self {
            Self::Labels(y) => y.mapv(|label| label as f64).insert_axis(Axis(1)),
            Self::Numbers(y) => y.clone(),
        }
    }

    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Labels(y) => Self::Labels(y.select(Axis(0), rows)),
            Self::Numbers(y) => Self::Numbers(y.select(Axis(0), rows)),
        }
    }
}

impl Task {
    /// The name of a class.
    pub(crate) fn class(&self, class: usize) -> String {
        self.classes.get(class).map_or_else(|| class.to_string(), Clone::clone)
    }

    /// The names of numeric targets.
    pub(crate) fn outputs(&self, count: usize) -> Vec<String> {
        let name = |i: usize| match &self.target {
            Some(target) => target.clone(),
            None if count == 1 => "y".to_owned(),
            None => format!("y{i}"),
        };
        (0..count).map(name).collect()
    }

    /// The columns of a table that the network reads, and how.
    pub(crate) fn table_inputs(&self) -> Inputs<'_> {
        Inputs { columns: &self.columns, encodings: &self.encodings }
    }
}
