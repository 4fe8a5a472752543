//! Why a file could not be read.

use std::io;
use std::path::PathBuf;

/// A file that cannot be read. For an array in an `.npz`, the path ends with the array's name in
/// it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be opened or read, or its compression is broken.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file has fewer or more bytes than its header says; in compressed files, after
    /// decompression.
    #[error("{}: expected {expected} bytes, found {found}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The length by the header; for a file that ends within its header, the least it could be.
        expected: u64,
        /// The length of the file.
        found: u64,
    },
    /// The file is of another kind than was asked for, or something is missing in it.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// The part of it that is wrong.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What was found; text from the file is in quotes.
        found: String,
    },
    /// A number in an array of labels that is not a class label.
    #[error("{}: label {row}: expected a whole number from 0 to below 2^53, found {found:?}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The sample, counted from 0.
        row: usize,
        /// The number.
        found: f64,
    },
    /// Something is wrong with a line of a CSV file.
    #[error("{}:{line}: {}expected {expected}, found {found}", path.display(), in_column(column))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line of the file, counted from 1; the first one for a row of several lines.
        line: usize,
        /// The name of the column, if the error is in one column.
        column: Option<String>,
        /// What was expected there.
        expected: String,
        /// What was found; text from the file is in quotes.
        found: String,
    },
}

fn in_column(column: &Option<String>) -> String {
    column.as_ref().map_or_else(String::new, |name| format!("column {name:?}: "))
}
