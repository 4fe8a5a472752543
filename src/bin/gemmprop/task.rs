//! What a run has to remember about its data, and the data in the form that its network reads.

use std::ops::Range;

use bytesize::ByteSize;
use gemmprop::data::{ReadError, RowsFile};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::inputs::parts;
use crate::rows::Rows;
use crate::table::{Encoding, Inputs};
use crate::values::LossKind;

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
    /// Whether the trainer itself keeps the rows to validate with. In older runs the program did,
    /// and trained on the others in the order in which it had drawn them.
    #[serde(default)]
    pub(crate) split_by_trainer: bool,
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

/// The inputs of samples as the network reads them.
#[derive(Debug)]
pub(crate) enum X {
    Memory(Array2<f32>),
    File { file: RowsFile, scales: Vec<Scale> },
}

/// Samples with their targets.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) x: X,
    pub(crate) y: Target,
}

/// Rows to train on and rows to validate with, if some of them are kept for that.
pub(crate) type Division = Option<(Vec<usize>, Vec<usize>)>;

/// The data of a run: samples, some of which may be there to validate with, or others for that.
#[derive(Debug)]
pub(crate) struct TrainingData {
    pub(crate) samples: Samples,
    pub(crate) division: Division,
    pub(crate) test: Option<Samples>,
    /// The most memory that samples may take.
    pub(crate) most: ByteSize,
}

/// Samples to validate with: some rows, or all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validation<'a> {
    pub(crate) samples: &'a Samples,
    pub(crate) rows: Option<&'a [usize]>,
}

/// Rows to predict.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) rows: Rows,
    /// The rows whose answers are known, in order, and the answers; none if the data have no column
    /// of answers.
    pub(crate) known: Option<(Vec<usize>, Target)>,
}

impl X {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Memory(x) => x.nrows(),
            Self::File { file, .. } => file.rows(),
        }
    }

    pub(crate) fn columns(&self) -> usize {
        match self {
            Self::Memory(x) => x.ncols(),
            Self::File { file, .. } => file.columns(),
        }
    }

    /// Some rows.
    pub(crate) fn part(&self, rows: &[usize]) -> Result<Array2<f32>, ReadError> {
        match self {
            Self::Memory(x) => Ok(x.select(Axis(0), rows)),
            Self::File { file, scales } => {
                let mut x = Array2::zeros((rows.len(), file.columns()));
                read_scaled(file, scales, rows, x.view_mut())?;
                Ok(x)
            }
        }
    }
}

impl Samples {
    /// Some rows, in memory.
    pub(crate) fn select(&self, rows: &[usize]) -> Result<Self, ReadError> {
        Ok(Self { x: X::Memory(self.x.part(rows)?), y: self.y.select(rows) })
    }
}

/// Reads rows of a file, standardised and rounded for the network.
pub(crate) fn read_scaled(
    file: &RowsFile,
    scales: &[Scale],
    rows: &[usize],
    mut into: ArrayViewMut2<f32>,
) -> Result<(), ReadError> {
    if scales.is_empty() {
        return file.read(rows, into);
    }
    for part in parts(rows.len(), file.columns()) {
        let mut numbers = Array2::<f64>::zeros((part.len(), file.columns()));
        file.read(&rows[part.clone()], &mut numbers)?;
        scale(scales, numbers.view(), into.slice_mut(s![part, ..]));
    }
    Ok(())
}

/// Standardises in double precision, if there are scales, and rounds.
pub(crate) fn scale(scales: &[Scale], x: ArrayView2<f64>, mut into: ArrayViewMut2<f32>) {
    for (x, mut into) in x.outer_iter().zip(into.outer_iter_mut()) {
        for (column, (into, &x)) in into.iter_mut().zip(x).enumerate() {
            *into = match scales.get(column) {
                Some((mean, deviation)) => ((x - mean) / deviation) as f32,
                None => x as f32,
            };
        }
    }
}

impl TrainingData {
    /// The number of samples to train on.
    pub(crate) fn trained(&self) -> usize {
        self.division.as_ref().map_or(self.samples.x.rows(), |(rows, _)| rows.len())
    }

    pub(crate) fn validation(&self) -> Option<Validation<'_>> {
        let part = self.division.as_ref().map(|(_, rows)| Validation { samples: &self.samples, rows: Some(rows) });
        part.or(self.test.as_ref().map(|samples| Validation { samples, rows: None }))
    }
}

impl Validation<'_> {
    pub(crate) fn len(&self) -> usize {
        self.rows.map_or(self.samples.x.rows(), <[usize]>::len)
    }

    /// The rows of a part.
    pub(crate) fn part(&self, part: Range<usize>) -> Vec<usize> {
        self.rows.map_or_else(|| part.clone().collect(), |rows| rows[part.clone()].to_vec())
    }
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
