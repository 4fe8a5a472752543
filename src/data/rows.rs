//! Rows of `.npy` and IDX files that are read when they are needed, for data larger than memory.
//!
//! The files are read and not mapped into memory: of a mapped file that another program makes
//! shorter, the system lets a page vanish and kills the process that reads it. A read returns an
//! error, and goes through the same cache of the system.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use ndarray::{ArrayViewMut1, ArrayViewMut2};

use super::idx::idx_header;
use super::npy::{Dtype, label, npy_rows};
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
    /// Whether numbers are bytes of an image, which stand for 0 … 1.
    image: bool,
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
        let Header { shape, dtype, start, image } = header(path, &file)?;
        let columns = shape[1..].iter().try_fold(1_usize, |columns, &d| columns.checked_mul(d));
        let columns = columns.ok_or_else(|| bad_shape(path, &shape))?;
        // Without numbers, the length of the file does not say how many rows there are.
        if columns == 0 {
            return Err(content(path, "shape", "at least one number in a row", format!("{shape:?}")));
        }
        let opened = Self { path: path.to_owned(), file, rows: shape[0], columns, dtype, start, image };
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
        self.dtype.whole && !self.image
    }

    /// The bytes that the file should have.
    fn len(&self) -> Option<u64> {
        let numbers = (self.rows as u64).checked_mul(self.columns as u64)?;
        numbers.checked_mul(self.dtype.size as u64)?.checked_add(self.start)
    }

    /// Reads these rows, which are in ascending order, and hands on the number of each in the list
    /// with its numbers.
    fn read(&self, rows: &[usize], mut take: impl FnMut(usize, &[f64]) -> Result<()>) -> Result<()> {
        let Dtype { size, big_endian, append, .. } = self.dtype;
        let width = self.columns * size;
        let most = (READ_AT_ONCE / width.max(1)).max(1);
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        let mut next = 0;
        // Neighbouring rows are read together.
        for together in rows.chunk_by(|&row, &following| following == row + 1).flat_map(|run| run.chunks(most)) {
            bytes.resize(together.len() * width, 0);
            let at = self.start + together[0] as u64 * width as u64;
            read_exact_at(&self.file, &mut bytes, at).map_err(|error| self.error(error))?;
            if big_endian {
                bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            }
            for i in 0..together.len() {
                numbers.clear();
                append(&bytes[i * width..][..width], &mut numbers);
                take(next, &numbers)?;
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

    fn read_into<F: Scalar>(&self, rows: &[usize], mut into: ArrayViewMut2<F>) -> Result<()> {
        self.check_width(into.ncols())?;
        let divisor = if self.image { 255.0 } else { 1.0 };
        self.read(rows, |i, numbers| {
            let row = into.row_mut(i).into_iter().zip(numbers);
            row.for_each(|(into, &number)| *into = F::from_f64(number / divisor));
            Ok(())
        })
    }

    fn read_labels(&self, rows: &[usize], mut into: ArrayViewMut2<usize>) -> Result<()> {
        self.check_width(into.ncols())?;
        self.read(rows, |i, numbers| {
            for (into, &found) in into.row_mut(i).into_iter().zip(numbers) {
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
    image: bool,
}

/// Reads the header of either kind of file.
fn header(path: &Path, file: &File) -> Result<Header> {
    let mut magic = [0; 2];
    read_exact_at(file, &mut magic, 0).map_err(io_error(path))?;
    let mut bytes = Bytes { path, reader: Box::new(BufReader::new(file)), position: 0 };
    match magic {
        [0x93, b'N'] => {
            let (shape, dtype, start) = npy_rows(bytes)?;
            Ok(Header { shape, dtype, start, image: false })
        }
        [0, 0] => {
            let shape = idx_header(&mut bytes, 1..=255, "1 dimension or more")?;
            let dtype = Dtype { whole: true, size: 1, big_endian: false, append: append_bytes };
            Ok(Header { start: bytes.position, dtype, image: shape.len() > 1, shape })
        }
        [0x1f, 0x8b] => Err(content(path, "compression", "none, to read parts of it", "gzip")),
        _ => Err(content(path, "kind of file", "a .npy or an IDX file", quoted(magic))),
    }
}

fn append_bytes(bytes: &[u8], numbers: &mut Vec<f64>) {
    numbers.extend(bytes.iter().map(|&byte| f64::from(byte)));
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
/// use gemmprop::{Bias, Mlp, Optimizer, SoftmaxCrossEntropy, Trainer, Training};
///
/// let data = FileSource::new(RowsFile::open("x.npy")?, RowsFile::open("labels.npy")?)?;
/// let mlp = Mlp::<f32>::he(&[data.x().columns(), 512, 512, 10], Bias::EveryLayer, 1)?;
/// let optimizer = Optimizer::adam();
/// let training = Training { optimizer, shuffle_block: Some(1024), ..Training::default() };
/// let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training)?;
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

    fn read_weights<F: Scalar>(&self, rows: &[usize], into: ArrayViewMut1<F>) -> Result<()> {
        let Some(weights) = &self.weights else { return Ok(()) };
        weights.read_into(rows, into.insert_axis(ndarray::Axis(1)))
    }
}

impl<F: Scalar> Source<F, F> for FileSource {
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
        y: ArrayViewMut2<'_, F>,
        weights: ArrayViewMut1<'_, F>,
    ) -> Result<()> {
        self.x.read_into(rows, x)?;
        self.y.read_into(rows, y)?;
        self.read_weights(rows, weights)
    }
}

impl<F: Scalar> Source<F, usize> for FileSource {
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
        y: ArrayViewMut2<'_, usize>,
        weights: ArrayViewMut1<'_, F>,
    ) -> Result<()> {
        self.x.read_into(rows, x)?;
        self.y.read_labels(rows, y)?;
        self.read_weights(rows, weights)
    }
}
