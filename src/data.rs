//! Samples from files: NumPy's `.npy` and `.npz`, CSV, and the IDX format of MNIST.
//!
//! Nothing that a file says of itself is believed before it is seen: buffers grow with the bytes that are there, and a file that
//! is shorter or longer than its header says is refused. Whether numbers are finite and lengths fit is what training checks;
//! in CSV, where a bad number has a line, it is checked here.
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

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, Trim};
use flate2::bufread::MultiGzDecoder;
use ndarray::{Array1, Array2, ShapeBuilder};
use py_literal::Value;
use zip::ZipArchive;

use crate::scalar::Scalar;

/// A file that cannot be read. For an array in an `.npz`, the path goes on with the array's name in it.
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
    /// The file has fewer or more bytes than its header says; in compressed files, after decompression.
    #[error("{}: expected {expected} bytes, found {found}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// By the header; for a file that ends within its header, as far as that goes.
        expected: u64,
        /// The bytes there are.
        found: u64,
    },
    /// The file is another kind than was asked for, or lacks something.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// Which part of it.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What is there; text from the file is in quotes.
        found: String,
    },
    /// A number in an array that is no class label.
    #[error("{}: label {row}: expected a whole number from 0 to below 2^53, found {found}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Sample, counted from 0.
        row: usize,
        /// The number.
        found: f64,
    },
    /// A line of a CSV file.
    #[error("{}:{line}: {}expected {expected}, found {found}", path.display(), in_column(column))]
    Line {
        /// The file.
        path: PathBuf,
        /// Line of the file, counted from 1; for a row of several lines, its first.
        line: usize,
        /// The column's name, if it is a matter of one column.
        column: Option<String>,
        /// What belongs there.
        expected: String,
        /// What is there; text from the file is in quotes.
        found: String,
    },
}

type Result<T> = std::result::Result<T, ReadError>;

fn in_column(column: &Option<String>) -> String {
    column.as_ref().map_or_else(String::new, |name| format!("column {name:?}: "))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> ReadError {
    move |source| ReadError::Io { path: path.to_owned(), source }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).map_err(io_error(path))?))
}

fn content(path: &Path, what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> ReadError {
    ReadError::Content { path: path.to_owned(), what, expected: expected.into(), found: found.into() }
}

/// Text from a file, for a message: in quotes, and no page of it.
fn quoted(text: impl AsRef<[u8]>) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(text.as_ref());
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A file, decompressed, and how much of it has been read.
struct Bytes<'a> {
    path: &'a Path,
    reader: Box<dyn Read + 'a>,
    position: u64,
}

impl Bytes<'_> {
    /// The next `count` bytes. The buffer grows with the bytes there are: `count` may be anything.
    fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(count).read_to_end(&mut bytes).map_err(io_error(self.path))?;
        let expected = self.position.saturating_add(count);
        self.position += bytes.len() as u64;
        self.check(expected, self.position)?;
        Ok(bytes)
    }

    /// All bytes to the end, which have to be numbers of `size` bytes in this shape.
    fn array(mut self, shape: &[usize], size: usize) -> Result<Vec<u8>> {
        let count = shape.iter().try_fold(size as u64, |count, &d| count.checked_mul(d as u64));
        let bytes = self.take(count.ok_or_else(|| bad_shape(self.path, shape))?)?;
        // To the very end, where compressed files have their checksum.
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

/// Samples in rows, each laid flat. If one dimension is 0, the product of the others can overflow.
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

/// Reals from a `.npy` file, of shape (n, d), or (n), which becomes (n, 1). Their dtype is any of f4, f8, i1 … i8, u1 … u8 and
/// bool, little endian.
///
/// # Errors
/// [`ReadError::Content`] for another dtype or number of dimensions; [`ReadError::Length`] for a damaged file.
pub fn npy<F: Scalar>(path: impl AsRef<Path>) -> Result<Array2<F>> {
    reals(npy_file(path.as_ref())?)
}

/// Class labels from a `.npy` file, of shape (n): whole numbers, of any dtype that [`npy`] reads.
///
/// # Errors
/// As [`npy`], and [`ReadError::Label`].
pub fn npy_labels(path: impl AsRef<Path>) -> Result<Array1<usize>> {
    labels(npy_file(path.as_ref())?)
}

/// The array `name` of an `.npz` file, compressed or not; otherwise as [`npy`].
///
/// # Errors
/// As [`npy`], and [`ReadError::Content`] if no array has this name.
pub fn npz<F: Scalar>(path: impl AsRef<Path>, name: &str) -> Result<Array2<F>> {
    with_member(path.as_ref(), name, reals)
}

/// Class labels from the array `name` of an `.npz` file; otherwise as [`npy_labels`].
///
/// # Errors
/// As [`npz`], and [`ReadError::Label`].
pub fn npz_labels(path: impl AsRef<Path>, name: &str) -> Result<Array1<usize>> {
    with_member(path.as_ref(), name, labels)
}

fn npy_file(path: &Path) -> Result<Bytes<'_>> {
    Ok(Bytes { path, reader: Box::new(open(path)?), position: 0 })
}

fn with_member<T>(path: &Path, name: &str, read: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
    let zip_error = |error: zip::result::ZipError| io_error(path)(error.into());
    let mut archive = ZipArchive::new(open(path)?).map_err(zip_error)?;
    let file_name = format!("{name}.npy");
    let Some(index) = archive.index_for_name(&file_name) else {
        let names: Vec<_> =
            archive.file_names().map(|name| quoted(name.strip_suffix(".npy").unwrap_or(name))).collect();
        return Err(content(path, "array", quoted(name), names.join(", ")));
    };
    let member = archive.by_index(index).map_err(zip_error)?;
    read(Bytes { path: &path.join(file_name), reader: Box::new(member), position: 0 })
}

/// What stands before an array's numbers: its dtype, whether it is in Fortran order, its shape. Not by ndarray-npy 0.10, which
/// allocates what a header says and panics on a shape of (0, usize::MAX).
fn npy_header(bytes: &mut Bytes) -> Result<(String, bool, Vec<usize>)> {
    const MAGIC: &[u8] = b"\x93NUMPY";
    // NumPy's own limit.
    const LONGEST: u64 = 10_000;
    let start = bytes.take(8)?;
    if !start.starts_with(MAGIC) {
        return Err(content(bytes.path, "magic number", r#""\x93NUMPY""#, quoted(&start[..MAGIC.len()])));
    }
    let length = bytes.take(match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(content(bytes.path, "version", "1, 2 or 3", version.to_string())),
    })?;
    let length = length.iter().rev().fold(0, |length, &byte| length << 8 | u64::from(byte));
    if length > LONGEST {
        return Err(content(bytes.path, "header", format!("at most {LONGEST} bytes"), length.to_string()));
    }
    let text = bytes.take(length)?;
    let text = String::from_utf8_lossy(&text);
    parse_header(text.trim_end()).ok_or_else(|| {
        content(bytes.path, "header", "dtype, order and shape of plain numbers", quoted(text.as_bytes()))
    })
}

fn parse_header(text: &str) -> Option<(String, bool, Vec<usize>)> {
    // One dictionary and one tuple. More make structures, and the parser's time doubles with each that is nested.
    if text.matches(['(', '[', '{']).count() > 2 {
        return None;
    }
    let value: Value = text.parse().ok()?;
    let get = |name| value.as_dict()?.iter().find(|(key, _)| key.as_string().is_some_and(|key| key == name));
    let length = |d: &Value| usize::try_from(d.as_integer()?).ok();
    let shape = get("shape")?.1.as_tuple()?.iter().map(length).collect::<Option<_>>()?;
    Some((get("descr")?.1.as_string()?.clone(), get("fortran_order")?.1.as_boolean()?, shape))
}

fn reals<F: Scalar>(bytes: Bytes) -> Result<Array2<F>> {
    npy_array(bytes, 1..=2, "1 or 2 dimensions")
}

fn labels(bytes: Bytes) -> Result<Array1<usize>> {
    let path = bytes.path;
    // From 2^53 on, whole numbers have been rounded; no network has as many outputs.
    let label = |(row, found): (usize, f64)| {
        let whole = found.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&found);
        if whole { Ok(found as usize) } else { Err(ReadError::Label { path: path.to_owned(), row, found }) }
    };
    npy_array::<f64>(bytes, 1..=1, "1 dimension")?.into_iter().enumerate().map(label).collect()
}

fn npy_array<F: Scalar>(mut bytes: Bytes, dimensions: RangeInclusive<usize>, text: &str) -> Result<Array2<F>> {
    /// Size of a number, and its value.
    macro_rules! number {
        ($t:ty) => {
            (size_of::<$t>(), |bytes| <$t>::from_le_bytes(bytes.try_into().expect("chunks are of this size")) as f64)
        };
    }
    let (dtype, fortran_order, shape) = npy_header(&mut bytes)?;
    let path = bytes.path;
    let (size, number): (usize, fn(&[u8]) -> f64) = match dtype.as_str() {
        "<f4" => number!(f32),
        "<f8" => number!(f64),
        "|i1" => number!(i8),
        "<i2" => number!(i16),
        "<i4" => number!(i32),
        "<i8" => number!(i64),
        "|u1" => number!(u8),
        "<u2" => number!(u16),
        "<u4" => number!(u32),
        "<u8" => number!(u64),
        "|b1" => (1, |bytes| if bytes == [0] { 0.0 } else { 1.0 }),
        _ => {
            let expected = "one of <f4, <f8, |i1, <i2, <i4, <i8, |u1, <u2, <u4, <u8, |b1";
            return Err(content(path, "dtype", expected, quoted(&dtype)));
        }
    };
    check_dimensions(path, &shape, dimensions, text)?;
    let bytes = bytes.array(&shape, size)?;
    let values = bytes.chunks_exact(size).map(|bytes| F::from_f64(number(bytes))).collect();
    let array = samples(path, &shape, fortran_order, values)?;
    // Samples in rows, each in one piece, as training reads them.
    Ok(if fortran_order { array.as_standard_layout().into_owned() } else { array })
}

/// A CSV file: features, and a target of type Y.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<F, Y> {
    /// Names of the features, in the order of x's columns.
    pub columns: Vec<String>,
    /// The features, a sample a row.
    pub x: Array2<F>,
    /// The target.
    pub y: Y,
}

/// A target that is one of some classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The classes' names: label i stands for the i-th.
    pub names: Vec<String>,
    /// The samples' labels.
    pub labels: Array1<usize>,
}

/// A CSV file with a line of column names, numbers in all columns; the column `target` becomes y, of shape (n, 1).
///
/// # Errors
/// [`ReadError::Line`] for what is no finite number, a row of another length, a name that occurs twice, or text that is not
/// UTF-8; [`ReadError::Content`] for a file without that column or without rows.
pub fn csv_numbers<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Array2<F>>> {
    let path = path.as_ref();
    let Table { columns, x, y } = table(path, |names| all_but(names, target), number::<F>)?;
    Ok(Table { columns, x, y: samples(path, &[y.len()], false, y)? })
}

/// A CSV file with a line of column names, numbers in all columns but `target`, whose texts are the classes. Sorted (by value
/// if all are whole numbers, else as text), they are numbered from 0; files with other classes give other numbers.
///
/// # Errors
/// As [`csv_numbers`]; a target may be any text but the empty one.
pub fn csv_classes<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Classes>> {
    let class = |text: &str| if text.is_empty() { Err("a class") } else { Ok(text.to_owned()) };
    let Table { columns, x, y } = table(path.as_ref(), |names| all_but(names, target), class)?;
    let mut names: Vec<String> = y.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let value = |name: &String| name.parse::<i128>().ok();
    if names.iter().all(|name| value(name).is_some()) {
        names.sort_by_key(value);
    }
    let numbers: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let labels = y.iter().map(|name| numbers[name.as_str()]).collect();
    Ok(Table { columns, x, y: Classes { names, labels } })
}

/// Some columns of a CSV file with a line of column names, as a network that was trained before needs them: its features, in
/// their order, and `target`, if the file has it. What stands in other columns does not matter. `read` makes a value of the
/// target's text or says what belongs there, as [`number`] and [`class_of`] do.
///
/// # Errors
/// As [`csv_numbers`], for these columns; one of the features that is not there is a [`ReadError::Content`].
pub fn csv_columns<F: Scalar, T>(
    path: impl AsRef<Path>,
    features: &[impl AsRef<str>],
    target: &str,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Option<Vec<T>>>> {
    let choose = |names: &[String]| {
        let find = |name: &str| names.iter().position(|other| other == name);
        let found = features.iter().map(AsRef::as_ref).map(|name| find(name).ok_or(name));
        Ok((found.collect::<std::result::Result<_, _>>()?, find(target)))
    };
    let Table { columns, x, y } = table(path.as_ref(), choose, read)?;
    // There are rows, so without targets there is no such column.
    Ok(Table { columns, x, y: (!y.is_empty()).then_some(y) })
}

/// A finite number, rounded once to F.
///
/// # Errors
/// What belongs there.
pub fn number<F: Scalar>(text: &str) -> std::result::Result<F, &'static str> {
    let number = F::from_f64(text.parse().map_err(|_| "a number")?);
    if number.is_finite() { Ok(number) } else { Err("a finite number") }
}

/// A reader of labels: i for the i-th of these names, and for other texts an error.
pub fn class_of(names: &[impl AsRef<str>]) -> impl Fn(&str) -> std::result::Result<usize, &'static str> {
    let numbers: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_ref(), i)).collect();
    move |text| numbers.get(text).copied().ok_or("a known class")
}

/// Where the features and the target stand, or which name is missing.
type Chosen<'a> = std::result::Result<(Vec<usize>, Option<usize>), &'a str>;

fn all_but<'a>(names: &[String], target: &'a str) -> Chosen<'a> {
    let at = names.iter().position(|name| name == target).ok_or(target)?;
    Ok(((0..names.len()).filter(|&i| i != at).collect(), Some(at)))
}

/// `choose` picks from the columns' names; `read` makes a target of a text, or says what was expected.
fn table<'a, F: Scalar, T>(
    path: &Path,
    choose: impl FnOnce(&[String]) -> Chosen<'a>,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Vec<T>>> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    // Lengths of rows are checked here, for an error that knows the line.
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(bytes.as_slice());
    let mut record = ByteRecord::new();
    let mut next =
        |record: &mut ByteRecord| reader.read_byte_record(record).map_err(|error| io_error(path)(error.into()));
    let error = |record: &ByteRecord, column: Option<&String>, expected: &str, found: String| {
        // The reader's own count stops before blank lines and between \r and \n.
        let start = record.position().map_or(0, |position| position.byte() as usize).min(bytes.len());
        let blank = bytes[start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let line = 1 + bytes[..start + blank].iter().filter(|&&byte| byte == b'\n').count();
        ReadError::Line { path: path.to_owned(), line, column: column.cloned(), expected: expected.to_owned(), found }
    };

    if !next(&mut record)? {
        return Err(content(path, "file", "a line of column names", "an empty file"));
    }
    let (mut columns, mut names) = (Vec::new(), BTreeSet::new());
    for name in &record {
        let name = str::from_utf8(name).map_err(|_| error(&record, None, "UTF-8", quoted(name)))?.to_owned();
        if !names.insert(name.clone()) {
            return Err(error(&record, Some(&name), "a name for one column", "it twice".to_owned()));
        }
        columns.push(name);
    }
    let (features, target) = choose(&columns).map_err(|missing| {
        let names: Vec<_> = columns.iter().map(quoted).collect();
        content(path, "column", quoted(missing), names.join(", "))
    })?;

    let (mut x, mut y, mut rows) = (Vec::new(), Vec::new(), 0);
    while next(&mut record)? {
        if record.len() != columns.len() {
            let expected = format!("{} fields, as many as column names", columns.len());
            return Err(error(&record, None, &expected, record.len().to_string()));
        }
        let refused = |i: usize, expected| error(&record, Some(&columns[i]), expected, quoted(&record[i]));
        let text = |i: usize| str::from_utf8(&record[i]).map_err(|_| refused(i, "UTF-8"));
        for &i in &features {
            x.push(number(text(i)?).map_err(|expected| refused(i, expected))?);
        }
        if let Some(i) = target {
            y.push(read(text(i)?).map_err(|expected| refused(i, expected))?);
        }
        rows += 1;
    }
    if rows == 0 {
        return Err(content(path, "rows", "at least one", "none"));
    }
    let x = samples(path, &[rows, features.len()], false, x)?;
    Ok(Table { columns: features.iter().map(|&i| columns[i].clone()).collect(), x, y })
}

/// Images from an IDX file of unsigned bytes, plain or compressed by gzip: a sample a row, its bytes scaled to 0 … 1.
///
/// # Errors
/// [`ReadError::Content`] for another type or fewer than 2 dimensions; [`ReadError::Length`] for a damaged file.
pub fn idx_images<F: Scalar>(path: impl AsRef<Path>) -> Result<Array2<F>> {
    let path = path.as_ref();
    let (shape, bytes) = idx(path, 2..=255, "2 dimensions or more")?;
    let scaled: [F; 256] = std::array::from_fn(|byte| F::from_f64(byte as f64 / 255.0));
    samples(path, &shape, false, bytes.iter().map(|&byte| scaled[usize::from(byte)]).collect())
}

/// Class labels from an IDX file of unsigned bytes, plain or compressed by gzip.
///
/// # Errors
/// [`ReadError::Content`] for another type or number of dimensions; [`ReadError::Length`] for a damaged file.
pub fn idx_labels(path: impl AsRef<Path>) -> Result<Array1<usize>> {
    Ok(idx(path.as_ref(), 1..=1, "1 dimension")?.1.into_iter().map(usize::from).collect())
}

/// By hand, since no crate does it that is kept up and gives errors for damaged files instead of panics: mnist, mnist_read,
/// rust-mnist and idx_parser were looked at.
fn idx(path: &Path, dimensions: RangeInclusive<usize>, text: &str) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut file = open(path)?;
    let gzip = file.fill_buf().map_err(io_error(path))?.starts_with(b"\x1f\x8b");
    let reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut bytes = Bytes { path, reader, position: 0 };
    let magic = bytes.take(4)?;
    if !magic.starts_with(&[0, 0, 0x08]) {
        let expected = "00 00 08 (unsigned bytes) and the number of dimensions";
        return Err(content(path, "magic number", expected, format!("{magic:02x?}")));
    }
    let shape = bytes.take(4 * u64::from(magic[3]))?;
    let shape: Vec<_> = shape.as_chunks::<4>().0.iter().map(|&d| u32::from_be_bytes(d) as usize).collect();
    check_dimensions(path, &shape, dimensions, text)?;
    let bytes = bytes.array(&shape, 1)?;
    Ok((shape, bytes))
}

/// Images and their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Images<F> {
    /// An image a row, its bytes scaled to 0 … 1.
    pub x: Array2<F>,
    /// As many labels.
    pub labels: Array1<usize>,
}

/// What a folder in MNIST's layout holds.
#[derive(Debug, Clone, PartialEq)]
pub struct IdxFolder<F> {
    /// `train-*`, or the only pair there is.
    pub train: Images<F>,
    /// `t10k-*`, if `train-*` is there too.
    pub test: Option<Images<F>>,
}

/// Finds and reads MNIST's files in a folder: `*-images-idx3-ubyte` and `*-labels-idx1-ubyte` (also `*.idx3-ubyte`; with or
/// without `.gz`, and of both, the one without), either `train-*` and `t10k-*`, or a single pair with any name.
///
/// # Errors
/// [`ReadError::Content`] if the folder holds neither, if a file lacks its partner, or if images and labels are not equally many;
/// otherwise as [`idx_images`].
pub fn idx_folder<F: Scalar>(folder: impl AsRef<Path>) -> Result<IdxFolder<F>> {
    let folder = folder.as_ref();
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    // In order, so that `a` comes before `a.gz`.
    let paths: BTreeSet<PathBuf> = entries.map_err(io_error(folder))?;
    let mut pairs = BTreeMap::<_, [Option<&PathBuf>; 2]>::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        for (i, ending) in [["idx3-ubyte", "images"], ["idx1-ubyte", "labels"]].iter().enumerate() {
            let stem = name.strip_suffix(ending[0]).and_then(|name| name.strip_suffix(['-', '.']));
            if let Some(prefix) = stem.and_then(|stem| stem.strip_suffix(ending[1])) {
                pairs.entry(prefix.trim_end_matches(['-', '.']).to_owned()).or_default()[i].get_or_insert(path);
            }
        }
    }
    let pick = match (pairs.get("train"), pairs.get("t10k"), pairs.first_key_value()) {
        (Some(train), Some(test), _) => Some((train, Some(test))),
        (_, _, Some((_, only))) if pairs.len() == 1 => Some((only, None)),
        _ => None,
    };
    let unfit = || {
        let expected =
            "images and labels (*-images-idx3-ubyte, *-labels-idx1-ubyte) of train and t10k, or one such pair";
        let names = pairs.values().flatten().flatten().filter_map(|path| path.file_name());
        let names: Vec<_> = names.map(|name| quoted(name.as_encoded_bytes())).collect();
        content(folder, "files", expected, if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    };
    let read = |pair: &[Option<&PathBuf>; 2]| {
        let [Some(images), Some(labels)] = *pair else { return Err(unfit()) };
        let samples = Images { x: idx_images(images)?, labels: idx_labels(labels)? };
        let (expected, found) = (samples.x.nrows(), samples.labels.len());
        if expected != found {
            return Err(content(labels, "labels", format!("{expected}, one for each image"), found.to_string()));
        }
        Ok(samples)
    };
    let (train, test) = pick.ok_or_else(unfit)?;
    Ok(IdxFolder { train: read(train)?, test: test.map(read).transpose()? })
}
