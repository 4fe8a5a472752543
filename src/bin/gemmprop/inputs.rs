//! The inputs of samples, in memory or in a file that is read a part at a time.

use std::fs::{self, Metadata};
use std::ops::Range;
use std::path::Path;

use bytesize::ByteSize;
use gemmprop::data::{ReadError, RowsFile};
use ndarray::{Array2, Axis};

use crate::memory::BYTES_OF_NUMBER;
use crate::message::{Result, warn};

/// Numbers in rows, as a file has them.
#[derive(Debug)]
pub(crate) enum Numbers {
    Memory(Array2<f64>),
    File(RowsFile),
}

impl Numbers {
    /// The numbers of a file. It is read a part at a time if it would take more memory than this
    /// and can be; otherwise `read` reads all of it, and so all but such a file is opened once.
    pub(crate) fn of(
        path: &Path,
        most: ByteSize,
        read: impl FnOnce(&Path) -> std::result::Result<Array2<f64>, ReadError>,
    ) -> Result<Self> {
        let file = fs::metadata(path).ok().filter(Metadata::is_file);
        // A number takes a byte or more of the file.
        if file.is_some_and(|file| in_memory(file.len()) > most) {
            match RowsFile::open(path) {
                Ok(file) if in_memory(file.rows() as u64 * file.columns() as u64) > most => {
                    return Ok(Self::File(file));
                }
                Err(error @ ReadError::Length { .. }) => return Err(error.into()),
                // Nothing was said against reading all of it.
                Err(error) if most.as_u64() > 0 => warn(format!("warning: {error}; all of it is read into memory")),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Self::Memory(read(path)?))
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Memory(x) => x.nrows(),
            Self::File(file) => file.rows(),
        }
    }

    pub(crate) fn columns(&self) -> usize {
        match self {
            Self::Memory(x) => x.ncols(),
            Self::File(file) => file.columns(),
        }
    }

    /// Some rows.
    pub(crate) fn part(&self, rows: &[usize]) -> std::result::Result<Array2<f64>, ReadError> {
        match self {
            Self::Memory(x) => Ok(x.select(Axis(0), rows)),
            Self::File(file) => {
                let mut x = Array2::zeros((rows.len(), file.columns()));
                file.read(rows, &mut x)?;
                Ok(x)
            }
        }
    }
}

/// What so many numbers take in memory.
pub(crate) fn in_memory(numbers: u64) -> ByteSize {
    ByteSize(numbers.saturating_mul(BYTES_OF_NUMBER))
}

/// Numbers of a part.
const PART: usize = 1 << 20;
/// Rows of a part, of which a network may make more numbers than they have.
const MOST_ROWS: usize = 1 << 14;
/// Blocks in which predictions are computed have at most so many rows.
const BLOCK: usize = 512;

/// Rows in parts that are read, predicted or checked together. Their lengths depend on the shape
/// alone, so that results are the same bits wherever the rows are. There is at least one part,
/// which may be empty.
pub(crate) fn parts(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let len = (PART / columns.max(1)).clamp(1, MOST_ROWS);
    let len = if len > BLOCK { len - len % BLOCK } else { len };
    (0..rows.max(1)).step_by(len).map(move |start| start..(start + len).min(rows))
}
