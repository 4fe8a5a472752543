//! Where numbers come from: names for rows and columns that the user recognises, in the order of
//! the file.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// One source of samples.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A table, with the line of each row and the names of the inputs and of the target.
    Table { path: PathBuf, lines: Vec<usize>, columns: Vec<String>, target: String },
    /// Arrays of NumPy, whose rows count from 0.
    Arrays { x: PathBuf, y: PathBuf },
    /// Images, numbered from 0, and the part of the folder that they form.
    Images { folder: PathBuf, part: &'static str },
}

/// Writes the file of the inputs.
impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Table { path, .. } | Self::Arrays { x: path, .. } => path.display().fmt(f),
            Self::Images { folder, .. } => folder.display().fmt(f),
        }
    }
}

impl Origin {
    /// The place of a row.
    pub(crate) fn row(&self, row: usize) -> String {
        match self {
            Self::Table { lines, .. } => format!("{self}:{}", lines[row]),
            Self::Arrays { .. } => format!("{self}[{row}]"),
            Self::Images { part, .. } => format!("{self}: {part}image {row}"),
        }
    }

    /// The place of one number of the inputs.
    pub(crate) fn x(&self, row: usize, column: usize) -> String {
        match self {
            Self::Table { columns, .. } => format!("{}: column {:?}", self.row(row), columns[column]),
            Self::Arrays { .. } => format!("{self}[{row}, {column}]"),
            Self::Images { .. } => format!("{}, byte {column}", self.row(row)),
        }
    }

    /// The place of a column of the inputs.
    pub(crate) fn column(&self, column: usize) -> String {
        match self {
            Self::Table { columns, .. } => format!("{self}: column {:?}", columns[column]),
            Self::Arrays { .. } => format!("{self}[:, {column}]"),
            Self::Images { part, .. } => format!("{self}: byte {column} of the {part}images"),
        }
    }

    /// The place of one target.
    pub(crate) fn y(&self, row: usize, column: usize) -> String {
        match self {
            Self::Table { target, .. } => format!("{}: column {target:?}", self.row(row)),
            Self::Arrays { y, .. } if column == 0 => format!("{}[{row}]", y.display()),
            Self::Arrays { y, .. } => format!("{}[{row}, {column}]", y.display()),
            Self::Images { part, .. } => format!("{self}: {part}label {row}"),
        }
    }

    /// The place of all targets.
    pub(crate) fn targets(&self) -> String {
        match self {
            Self::Table { target, .. } => format!("{self}: column {target:?}"),
            Self::Arrays { y, .. } => y.display().to_string(),
            Self::Images { part, .. } => format!("{self}: {part}labels"),
        }
    }

    /// The beginning of a sentence whose end says what the targets are.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::Table { target, .. } => format!("{target:?} has"),
            Self::Arrays { .. } => "the targets are".to_owned(),
            Self::Images { .. } => "the images have".to_owned(),
        }
    }
}
