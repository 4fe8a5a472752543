//! NumPy's `.npy` and `.npz`.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use py_literal::Value;
use zip::ZipArchive;

use super::{Bytes, ReadError, Result, check_dimensions, content, io_error, open, quoted, samples};
use crate::linalg::scalar::Scalar;

/// An array of a file, with its kind of numbers, so that a caller can look at it and then choose
/// labels or real numbers. The file is read only once, so it may be a pipe.
#[derive(Debug, Clone, PartialEq)]
pub struct NpyArray {
    path: PathBuf,
    shape: Vec<usize>,
    /// The numbers, of shape (n, d); a shape of (n) becomes (n, 1). Whole numbers of 8 bytes are
    /// rounded beyond 2^53.
    pub numbers: Array2<f64>,
    /// Whether the dtype is one of whole numbers, or bool.
    pub whole: bool,
}

/// From 2^53 on, whole numbers have been rounded. No network has so many outputs.
pub(super) fn label(found: f64) -> Option<usize> {
    (found.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&found)).then_some(found as usize)
}

impl NpyArray {
    /// The numbers as class labels.
    ///
    /// # Errors
    /// [`ReadError::Label`] for the first number that is not a label; [`ReadError::Content`] for
    /// more than 1 dimension.
    pub fn labels(&self) -> Result<Array1<usize>> {
        check_dimensions(&self.path, &self.shape, 1..=1, "1 dimension")?;
        let label = |(row, &found): (usize, &f64)| {
            label(found).ok_or_else(|| ReadError::Label { path: self.path.clone(), row, found })
        };
        self.numbers.iter().enumerate().map(label).collect()
    }
}

/// Reads numbers from a `.npy` file, of shape (n, d); a shape of (n) becomes (n, 1). The dtype may
/// be any of f2, f4, f8, i1 … i8, u1 … u8 and bool, little or big endian.
///
/// # Errors
/// [`ReadError::Content`] for another dtype or number of dimensions; [`ReadError::Length`] for a
/// damaged file.
pub fn npy<F: Scalar>(path: impl AsRef<Path>) -> Result<Array2<F>> {
    Ok(npy_array(npy_file(path.as_ref())?)?.numbers)
}

/// Reads class labels from a `.npy` file, of shape (n): whole numbers of any dtype that [`npy`]
/// reads. Labels need not be consecutive; [`label_classes`](super::label_classes) numbers those
/// that occur.
///
/// # Errors
/// As [`npy`], and [`ReadError::Label`].
pub fn npy_labels(path: impl AsRef<Path>) -> Result<Array1<usize>> {
    npy_any(path)?.labels()
}

/// Reads an array of real numbers or of labels from a `.npy` file.
///
/// # Errors
/// As [`npy`].
pub fn npy_any(path: impl AsRef<Path>) -> Result<NpyArray> {
    any(npy_file(path.as_ref())?)
}

/// Reads the array `name` of an `.npz` file, compressed or not, as [`npy`] does.
///
/// # Errors
/// As [`npy`], and [`ReadError::Content`] if no array has this name.
pub fn npz<F: Scalar>(path: impl AsRef<Path>, name: &str) -> Result<Array2<F>> {
    with_member(path.as_ref(), name, |bytes| Ok(npy_array(bytes)?.numbers))
}

/// Reads class labels from the array `name` of an `.npz` file, as [`npy_labels`] does.
///
/// # Errors
/// As [`npz`], and [`ReadError::Label`].
pub fn npz_labels(path: impl AsRef<Path>, name: &str) -> Result<Array1<usize>> {
    with_member(path.as_ref(), name, |bytes| any(bytes)?.labels())
}

fn any(bytes: Bytes) -> Result<NpyArray> {
    let path = bytes.path.to_owned();
    let NpyContent { shape, whole, numbers, .. } = npy_array(bytes)?;
    Ok(NpyArray { path, shape, numbers, whole })
}

fn npy_file(path: &Path) -> Result<Bytes<'_>> {
    Ok(Bytes { path, reader: Box::new(open(path)?), position: 0 })
}

fn with_member<T>(path: &Path, name: &str, read: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
    Npz::open(path)?.with(name, read)
}

/// An `.npz` file, for reading several of its arrays.
pub(crate) struct Npz<'a> {
    path: &'a Path,
    archive: ZipArchive<Cursor<Vec<u8>>>,
}

impl<'a> Npz<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self> {
        // The directory of a zip file is at its end, and a pipe cannot be rewound.
        let bytes = fs::read(path).map_err(io_error(path))?;
        check_directory(path, &bytes)?;
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| io_error(path)(error.into()))?;
        Ok(Self { path, archive })
    }

    /// The names of the arrays.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.archive.file_names().map(|name| name.strip_suffix(".npy").unwrap_or(name))
    }

    /// An array with its shape and dtype.
    pub(crate) fn array<F: Scalar>(&mut self, name: &str) -> Result<NpyContent<F>> {
        self.with(name, npy_array)
    }

    fn with<T>(&mut self, name: &str, read: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
        let file_name = format!("{name}.npy");
        let Some(index) = self.archive.index_for_name(&file_name) else {
            let names: Vec<_> = self.names().map(quoted).collect();
            return Err(content(self.path, "array", quoted(name), names.join(", ")));
        };
        let member = self.archive.by_index(index).map_err(|error| io_error(self.path)(error.into()))?;
        read(Bytes { path: &self.path.join(file_name), reader: Box::new(member), position: 0 })
    }
}

/// Refuses a zip directory that claims more files than could precede it. For 65,535 of them, zip 6
/// would allocate memory.
///
/// The end record of a directory has a signature, two disk numbers, and the number of files on this
/// disk and in total, each of two bytes. zip itself refuses counts that contradict each other,
/// unless the total is 0, which it does not check.
fn check_directory(path: &Path, bytes: &[u8]) -> Result<()> {
    const ENTRY: usize = 46;
    for at in bytes.windows(4).enumerate().filter(|(_, four)| *four == b"PK\x05\x06").map(|(at, _)| at) {
        let Some(&[a, b, c, d]) = bytes.get(at + 8..at + 12).and_then(|count| count.first_chunk()) else { break };
        let [here, all] = [[a, b], [c, d]].map(|count| usize::from(u16::from_le_bytes(count)));
        // The largest count refers to zip's 64-bit extension, which zip checks.
        if here > 0 && here * ENTRY > at && (all == 0 || all == here && all < usize::from(u16::MAX)) {
            let expected = format!("a directory of at most {} files", at / ENTRY);
            return Err(content(path, "archive", expected, here.to_string()));
        }
    }
    Ok(())
}

/// The header of a `.npy` file.
struct NpyHeader {
    dtype: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Reads a header. ndarray-npy 0.10 is no alternative: it allocates what a header says, and panics
/// on a shape of (0, usize::MAX).
fn npy_header(bytes: &mut Bytes) -> Result<NpyHeader> {
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

fn parse_header(text: &str) -> Option<NpyHeader> {
    // A header has one dictionary and one tuple. More would be a structured dtype, and each nested
    // one doubles the time of the parser.
    if text.matches(['(', '[', '{']).count() > 2 {
        return None;
    }
    let value: Value = without_long(text).parse().ok()?;
    let get = |name| value.as_dict()?.iter().find(|(key, _)| key.as_string().is_some_and(|key| key == name));
    let length = |d: &Value| usize::try_from(d.as_integer()?).ok();
    let dtype = get("descr")?.1.as_string()?.clone();
    let fortran_order = get("fortran_order")?.1.as_boolean()?;
    let shape = get("shape")?.1.as_tuple()?.iter().map(length).collect::<Option<_>>()?;
    Some(NpyHeader { dtype, fortran_order, shape })
}

/// The text without the L that Python 2 writes after long integers, which NumPy ignores too. In the
/// names and dtypes that are read, no digit precedes an L.
fn without_long(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for character in text.chars() {
        if character != 'L' || !kept.ends_with(|before: char| before.is_ascii_digit()) {
            kept.push(character);
        }
    }
    kept
}

/// The value of an IEEE 754 number of half precision, for which Rust has no stable type.
#[expect(clippy::disallowed_methods, reason = "powers of two are exact, however they are multiplied")]
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    }
}

/// The content of a `.npy` file.
pub(crate) struct NpyContent<F> {
    pub(crate) shape: Vec<usize>,
    /// NumPy's name of the type, without the byte order.
    pub(crate) kind: String,
    whole: bool,
    /// Of shape (n, d); a shape of (n) becomes (n, 1).
    pub(crate) numbers: Array2<F>,
}

/// How the numbers of a dtype lie in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dtype {
    pub(super) number: Number,
    pub(super) big_endian: bool,
}

/// A type of numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F2,
    F4,
    F8,
    I1,
    I2,
    I4,
    I8,
    U1,
    U2,
    U4,
    U8,
    B1,
    /// A byte of an image, which stands for 0 … 1.
    Pixel,
}

impl Number {
    /// The bytes of a number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::I1 | Self::U1 | Self::B1 | Self::Pixel => 1,
            Self::F2 | Self::I2 | Self::U2 => 2,
            Self::F4 | Self::I4 | Self::U4 => 4,
            Self::F8 | Self::I8 | Self::U8 => 8,
        }
    }

    /// Whether the type has whole numbers only.
    pub(super) fn is_whole(self) -> bool {
        !matches!(self, Self::F2 | Self::F4 | Self::F8 | Self::Pixel)
    }
}

impl Dtype {
    /// Writes the numbers in these bytes, each rounded once to F. The bytes of big-endian numbers
    /// are turned around.
    pub(super) fn convert<F: Scalar>(self, bytes: &mut [u8], to: &mut [F]) {
        // A loop for each type, which the compiler turns into vector instructions; from f4 to f32
        // it copies.
        macro_rules! each {
            ($t:ty) => {
                each!($t, |number| number as f64)
            };
            ($t:ty, $value:expr) => {{
                let value: fn($t) -> f64 = $value;
                let (each, _) = bytes.as_chunks();
                to.iter_mut().zip(each).for_each(|(to, &bytes)| *to = F::from_f64(value(<$t>::from_le_bytes(bytes))));
            }};
        }
        if self.big_endian {
            bytes.chunks_exact_mut(self.number.size()).for_each(<[u8]>::reverse);
        }
        match self.number {
            Number::F2 => each!(u16, half),
            Number::F4 => each!(f32),
            Number::F8 => each!(f64),
            Number::I1 => each!(i8),
            Number::I2 => each!(i16),
            Number::I4 => each!(i32),
            Number::I8 => each!(i64),
            Number::U1 => each!(u8),
            Number::U2 => each!(u16),
            Number::U4 => each!(u32),
            Number::U8 => each!(u64),
            Number::B1 => each!(u8, |byte| if byte == 0 { 0.0 } else { 1.0 }),
            Number::Pixel => each!(u8, |byte| f64::from(byte) / 255.0),
        }
    }
}

/// The type of a dtype such as `<f4` or `|u1`, without the byte order, and how its numbers lie in a
/// file.
fn parse_dtype<'d>(path: &Path, dtype: &'d str) -> Result<(&'d str, Dtype)> {
    // The byte order, if there is one, and the type.
    let (big_endian, kind) = match dtype.strip_prefix(['<', '>', '|', '=']) {
        Some(kind) => (dtype.starts_with('>'), kind),
        None => (false, dtype),
    };
    let number = match kind {
        "f2" => Number::F2,
        "f4" => Number::F4,
        "f8" => Number::F8,
        "i1" => Number::I1,
        "i2" => Number::I2,
        "i4" => Number::I4,
        "i8" => Number::I8,
        "u1" => Number::U1,
        "u2" => Number::U2,
        "u4" => Number::U4,
        "u8" => Number::U8,
        "b1" => Number::B1,
        _ => {
            let expected = "f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 or b1";
            let found = format!("{}; x.astype('<f4') makes one of them", quoted(dtype));
            return Err(content(path, "dtype", expected, found));
        }
    };
    Ok((kind, Dtype { number, big_endian }))
}

/// Where the rows of a `.npy` file are: its shape, its dtype and the bytes before the first number.
pub(super) fn npy_rows(mut bytes: Bytes) -> Result<(Vec<usize>, Dtype, u64)> {
    let NpyHeader { dtype, fortran_order, shape } = npy_header(&mut bytes)?;
    let (_, dtype) = parse_dtype(bytes.path, &dtype)?;
    check_dimensions(bytes.path, &shape, 1..=2, "1 or 2 dimensions")?;
    if fortran_order && shape.get(1).is_some_and(|&columns| columns > 1) {
        let found = "columns; np.ascontiguousarray(x) has rows";
        return Err(content(bytes.path, "order", "samples in rows, to read some of them", found));
    }
    Ok((shape, dtype, bytes.position))
}

fn npy_array<F: Scalar>(mut bytes: Bytes) -> Result<NpyContent<F>> {
    let NpyHeader { dtype, fortran_order, shape } = npy_header(&mut bytes)?;
    let path = bytes.path;
    let (kind, dtype) = parse_dtype(path, &dtype)?;
    check_dimensions(path, &shape, 1..=2, "1 or 2 dimensions")?;
    let (whole, size) = (dtype.number.is_whole(), dtype.number.size());
    let mut bytes = bytes.array(&shape, size)?;
    let mut values = vec![F::ZERO; bytes.len() / size];
    dtype.convert(&mut bytes, &mut values);
    let array = samples(path, &shape, fortran_order, values)?;
    // Training reads each sample as contiguous numbers.
    let numbers = if fortran_order { array.as_standard_layout().into_owned() } else { array };
    Ok(NpyContent { shape, kind: kind.to_owned(), whole, numbers })
}
