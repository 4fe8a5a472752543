//! Samples from files: NumPy's `.npy` and `.npz`, CSV, and the IDX format of MNIST.
//!
//! Nothing that a file says of itself is trusted before it is verified: buffers grow with the bytes
//! that are there, and a file that is shorter or longer than its header says is refused. Each file
//! is opened and read once, so it may be a pipe, but for a [`RowsFile`], which is read in parts.
//! Training checks that numbers are finite and lengths fit; for CSV, where an error can name the
//! line of a bad number, that is checked here.
//!
//! ```no_run
//! use gemmprop::data;
//!
//! let flowers = data::csv_classes::<f32>("iris.csv", "species")?;
//! println!("{} flowers, {} species", flowers.x.nrows(), flowers.y.names.len());
//! // The same columns and the same labels from another file.
//! let label = data::class_of(&flowers.y.names);
//! let more = data::csv_columns::<f32, usize>("more.csv", &flowers.columns, "species", label)?;
//! # Ok::<(), data::ReadError>(())
//! ```

mod csv;
mod csv_rows;
pub(crate) mod error;
mod idx;
pub(crate) mod npy;
mod rows;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use ndarray::{Array2, ShapeBuilder};

pub use csv::{
    Classes, Table, TextTable, Texts, class_of, csv_classes, csv_columns, csv_numbers, csv_table, csv_texts,
    label_classes, number,
};
pub use error::ReadError;
pub use idx::{IdxFiles, IdxFolder, ImageFiles, Images, idx_files, idx_folder, idx_images, idx_labels};
pub use npy::{NpyArray, npy, npy_any, npy_labels, npz, npz_labels};
pub use rows::{FileSource, RowsFile};

type Result<T> = std::result::Result<T, ReadError>;

fn io_error(path: &Path) -> impl Fn(io::Error) -> ReadError {
    move |source| ReadError::Io { path: path.to_owned(), source }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).map_err(io_error(path))?))
}

fn content(path: &Path, what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> ReadError {
    ReadError::Content { path: path.to_owned(), what, expected: expected.into(), found: found.into() }
}

/// Text from a file for a message: in quotes, and shortened.
fn quoted(text: impl AsRef<[u8]>) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(text.as_ref());
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A file as it is read and decompressed.
struct Bytes<'a> {
    path: &'a Path,
    reader: Box<dyn Read + 'a>,
    /// The number of bytes read so far.
    position: u64,
}

impl Bytes<'_> {
    /// The next `count` bytes. The buffer grows with the bytes that are there, so `count` may be
    /// anything.
    fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(count).read_to_end(&mut bytes).map_err(io_error(self.path))?;
        let expected = self.position.saturating_add(count);
        self.position += bytes.len() as u64;
        self.check(expected, self.position)?;
        Ok(bytes)
    }

    /// All bytes to the end of the file, which must be numbers of `size` bytes in this shape.
    fn array(mut self, shape: &[usize], size: usize) -> Result<Vec<u8>> {
        let count = shape.iter().try_fold(size as u64, |count, &d| count.checked_mul(d as u64));
        let bytes = self.take(count.ok_or_else(|| bad_shape(self.path, shape))?)?;
        // Reads to the very end, where compressed files have their checksum.
        let surplus = io::copy(&mut self.reader, &mut io::sink()).map_err(io_error(self.path))?;
        self.check(self.position, self.position + surplus)?;
        Ok(bytes)
    }

    fn check(&self, expected: u64, found: u64) -> Result<()> {
        if expected == found { Ok(()) } else { Err(ReadError::Length { path: self.path.to_owned(), expected, found }) }
    }
}

fn bad_shape(path: &Path, shape: &[usize]) -> ReadError {
    content(path, "shape", "an array that fits into memory", format!("{shape:?}"))
}

/// Samples in rows: (n, the product of the other dimensions), which may overflow if n is 0.
fn samples<F>(path: &Path, shape: &[usize], fortran_order: bool, values: Vec<F>) -> Result<Array2<F>> {
    let columns = shape[1..].iter().try_fold(1_usize, |columns, &d| columns.checked_mul(d));
    let dim = columns.map(|columns| (shape[0], columns).set_f(fortran_order));
    dim.and_then(|dim| Array2::from_shape_vec(dim, values).ok()).ok_or_else(|| bad_shape(path, shape))
}

/// Refuses a shape with another number of dimensions.
fn check_dimensions(path: &Path, shape: &[usize], dimensions: RangeInclusive<usize>, text: &str) -> Result<()> {
    if dimensions.contains(&shape.len()) {
        return Ok(());
    }
    Err(content(path, "shape", text, format!("{} in {shape:?}", shape.len())))
}
