//! Rows of `.npy` and IDX files that are read when they are needed, for data larger than memory.
//!
//! The files are read and not mapped into memory: of a mapped file that another program makes
//! shorter, the system lets a page vanish and kills the process that reads it. A read returns an
//! error, and goes through the same cache of the system.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use ndarray::{ArrayViewMut1, ArrayViewMut2, Axis};

use super::idx::idx_header;
use super::npy::{Dtype, Number, label, npy_rows};
use super::{Bytes, ReadError, Result, bad_shape, content, io_error, quoted};
use crate::linalg::scalar::Scalar;
use crate::train::source::Source;

/// An array in a `.npy` or IDX file, of which rows are read when they are needed: of a `.npy` file
/// of shape (n) or (n, d), of any dtype that [`npy`](super::npy()) reads, whose rows are contiguous
/// (NumPy's default); of an IDX file of unsigned bytes that is not compressed, with all dimensions
/// but the first in a row.
#[derive(Debug)]
pub struct RowsFile {
    path: PathBuf,
    file: File,
    rows: usize,
    columns: usize,
    dtype: Dtype,
    /// Bytes before the first row.
    start: u64,
}

/// The bytes that are read at once at most, but at least one row.
const READ_AT_ONCE: usize = 1 << 20;

impl RowsFile {
    /// Opens a file and reads its header. Later changes of the file are not looked for: its bytes
    /// are those of the time at which they are read.
    ///
    /// # Errors
    /// [`ReadError::Content`] for another kind of file, for columns in place of rows, and for
    /// compressed files, which cannot be read in parts; [`ReadError::Length`] for a file that has
    /// fewer or more bytes than its header says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(io_error(path))?;
        let Header { shape, dtype, start } = header(path, &file)?;
        let columns = shape[1..].iter().try_fold(1_usize, |columns, &d| columns.checked_mul(d));
        let columns = columns.ok_or_else(|| bad_shape(path, &shape))?;
        // Without numbers, the length of the file does not say how many rows there are.
        if columns == 0 {
            return Err(content(path, "shape", "at least one number in a row", format!("{shape:?}")));
        }
        let opened = Self { path: path.to_owned(), file, rows: shape[0], columns, dtype, start };
        let expected = opened.len().ok_or_else(|| bad_shape(path, &shape))?;
        let found = opened.file.metadata().map_err(io_error(path))?.len();
        if expected != found {
            return Err(ReadError::Length { path: opened.path, expected, found });
        }
        Ok(opened)
    }

    /// n, the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// d, the numbers in a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the numbers are whole, as those of labels are.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.dtype.number.is_whole()
    }

    /// The bytes that the file should have.
    fn len(&self) -> Option<u64> {
        let numbers = (self.rows as u64).checked_mul(self.columns as u64)?;
        numbers.checked_mul(self.dtype.number.size() as u64)?.checked_add(self.start)
    }

    /// Reads these rows, in any order, each into the next row of `into`: (`rows.len()`, d), rounded
    /// once to F. Neighbouring rows that follow each other are read together.
    ///
    /// # Errors
    /// [`ReadError::Content`] if `into` has another number of columns; [`ReadError::Io`], or
    /// [`ReadError::Length`] for a file that has become shorter.
    ///
    /// # Panics
    /// If there is no such row, or if `into` has another number of rows.
    pub fn read<'a, F: Scalar>(&self, rows: &[usize], into: impl Into<ArrayViewMut2<'a, F>>) -> Result<()> {
        let mut into = into.into();
        assert_eq!(rows.len(), into.nrows(), "a row for each that is read");
        self.check_width(into.ncols())?;
        let mut of_row = Vec::new();
        self.read_bytes(rows, |i, bytes| {
            let mut row = into.row_mut(i);
            match row.as_slice_mut() {
                Some(row) => self.dtype.convert(bytes, row),
                None => {
                    of_row.resize(row.len(), F::ZERO);
                    self.dtype.convert(bytes, &mut of_row);
                    row.iter_mut().zip(&of_row).for_each(|(into, &number)| *into = number);
                }
            }
            Ok(())
        })
    }

    /// Reads these rows, and hands on the number of each in the list with its bytes.
    fn read_bytes(&self, rows: &[usize], mut take: impl FnMut(usize, &mut [u8]) -> Result<()>) -> Result<()> {
        let width = self.columns * self.dtype.number.size();
        let most = (READ_AT_ONCE / width).max(1);
        let mut bytes = Vec::new();
        let mut next = 0;
        for together in rows.chunk_by(|&row, &following| following == row + 1).flat_map(|run| run.chunks(most)) {
            assert!(together[together.len() - 1] < self.rows, "a row of the file");
            bytes.resize(together.len() * width, 0);
            let at = self.start + together[0] as u64 * width as u64;
            read_exact_at(&self.file, &mut bytes, at).map_err(|error| self.error(error))?;
            for bytes in bytes.chunks_exact_mut(width) {
                take(next, bytes)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// The error of a read that has failed. A file may have become shorter.
    fn error(&self, error: io::Error) -> ReadError {
        match (error.kind(), self.file.metadata(), self.len()) {
            (ErrorKind::UnexpectedEof, Ok(metadata), Some(expected)) => {
                ReadError::Length { path: self.path.clone(), expected, found: metadata.len() }
            }
            _ => io_error(&self.path)(error),
        }
    }

    fn read_labels(&self, rows: &[usize], mut into: ArrayViewMut2<usize>) -> Result<()> {
        self.check_width(into.ncols())?;
        let mut numbers = vec![0.0; self.columns];
        self.read_bytes(rows, |i, bytes| {
            self.dtype.convert(bytes, &mut numbers);
            for (into, &found) in into.row_mut(i).into_iter().zip(&numbers) {
                *into =
                    label(found).ok_or_else(|| ReadError::Label { path: self.path.clone(), row: rows[i], found })?;
            }
            Ok(())
        })
    }

    fn check_width(&self, expected: usize) -> Result<()> {
        if expected == self.columns {
            return Ok(());
        }
        Err(content(&self.path, "columns", expected.to_string(), self.columns.to_string()))
    }

    /// Refuses another number of rows than x has.
    fn check_rows(&self, x: &Self, what: &'static str) -> Result<()> {
        if self.rows == x.rows {
            return Ok(());
        }
        let expected = format!("{}, one for each row of {}", x.rows, x.path.display());
        Err(content(&self.path, what, expected, self.rows.to_string()))
    }
}

struct Header {
    shape: Vec<usize>,
    dtype: Dtype,
    /// Bytes before the first number.
    start: u64,
}

/// Reads the header of either kind of file.
fn header(path: &Path, file: &File) -> Result<Header> {
    let mut magic = [0; 2];
    read_exact_at(file, &mut magic, 0).map_err(io_error(path))?;
    let mut bytes = Bytes { path, reader: Box::new(BufReader::new(file)), position: 0 };
    match magic {
        [0x93, b'N'] => {
            let (shape, dtype, start) = npy_rows(bytes)?;
            Ok(Header { shape, dtype, start })
        }
        [0, 0] => {
            let shape = idx_header(&mut bytes, 1..=255, "1 dimension or more")?;
            let number = if shape.len() > 1 { Number::Pixel } else { Number::U1 };
            Ok(Header { shape, dtype: Dtype { number, big_endian: false }, start: bytes.position })
        }
        [0x1f, 0x8b] => Err(content(path, "compression", "none, to read parts of it", "gzip")),
        _ => Err(content(path, "kind of file", "a .npy or an IDX file", quoted(magic))),
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
}

/// Nobody else uses the position of the file.
#[cfg(not(unix))]
fn read_exact_at(mut file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(into)
}

/// Samples in files, for [`Trainer::fit_source`](crate::Trainer::fit_source): only those of a few
/// batches are in memory. Targets are labels or numbers, as the loss asks for.
///
/// ```no_run
/// use gemmprop::data::{FileSource, RowsFile};
/// use gemmprop::{Bias, Mlp, Optimizer, SoftmaxCrossEntropy, Trainer, TrainingSettings};
///
/// let data = FileSource::new(RowsFile::open("x.npy")?, RowsFile::open("labels.npy")?)?;
/// let mlp = Mlp::<f32>::he(&[data.x().columns(), 512, 512, 10], Bias::EveryLayer, 1)?;
/// let optimizer = Optimizer::adam();
/// let settings = TrainingSettings { optimizer, shuffle_block: Some(1024), ..Default::default() };
/// let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, settings)?;
/// trainer.fit_source(&data, None, ())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileSource {
    x: RowsFile,
    y: RowsFile,
    weights: Option<RowsFile>,
}

impl FileSource {
    /// Samples x, and a target for each.
    ///
    /// # Errors
    /// [`ReadError::Content`] if the files have different numbers of rows.
    pub fn new(x: RowsFile, y: RowsFile) -> Result<Self> {
        y.check_rows(&x, "targets")?;
        Ok(Self { x, y, weights: None })
    }

    /// Adds a weight for each sample, as [`Dataset::weights`](crate::Dataset::weights) does.
    ///
    /// # Errors
    /// [`ReadError::Content`] for another number of rows than x has, or more than one column.
    pub fn weights(self, weights: RowsFile) -> Result<Self> {
        weights.check_rows(&self.x, "weights")?;
        weights.check_width(1)?;
        Ok(Self { weights: Some(weights), ..self })
    }

    /// The file of x.
    #[must_use]
    pub fn x(&self) -> &RowsFile {
        &self.x
    }

    /// The file of the targets.
    #[must_use]
    pub fn y(&self) -> &RowsFile {
        &self.y
    }
}

/// A source of targets of this type, which this method of [`RowsFile`] reads.
macro_rules! source_of {
    ($target:ty, $read:ident) => {
        impl<F: Scalar> Source<F, $target> for FileSource {
            type Error = ReadError;

            fn samples(&self) -> usize {
                self.x.rows
            }

            fn has_weights(&self) -> bool {
                self.weights.is_some()
            }

            fn read(
                &self,
                rows: &[usize],
                x: ArrayViewMut2<'_, F>,
                y: ArrayViewMut2<'_, $target>,
                weights: ArrayViewMut1<'_, F>,
            ) -> Result<()> {
                self.x.read(rows, x)?;
                self.y.$read(rows, y)?;
                match &self.weights {
                    Some(file) => file.read(rows, weights.insert_axis(Axis(1))),
                    None => Ok(()),
                }
            }
        }
    };
}

source_of!(F, read);
source_of!(usize, read_labels);
