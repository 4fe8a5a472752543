//! NumPy's `.npy` and `.npz`.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use py_literal::Value;
use zip::ZipArchive;

use super::{Bytes, ReadError, Result, check_dimensions, content, io_error, open, quoted, samples};
use crate::linalg::scalar::Scalar;

/// An array as it stands in a file, for a caller that decides by its type whether it holds labels
/// or numbers: the file is read once, so that it may be a pipe.
#[derive(Debug, Clone, PartialEq)]
pub struct NpyArray {
    path: PathBuf,
    shape: Vec<usize>,
    /// Its numbers, of shape (n, d), or (n), which becomes (n, 1). Whole numbers of 8 bytes beyond
    /// 2^53 are rounded.
    pub numbers: Array2<f64>,
    /// Is its dtype one of whole numbers, or bool?
    pub whole: bool,
}

impl NpyArray {
    /// Its numbers as class labels.
    ///
    /// # Errors
    /// [`ReadError::Label`] for the first that is none; [`ReadError::Content`] for more than 1
    /// dimension.
    pub fn labels(&self) -> Result<Array1<usize>> {
        check_dimensions(&self.path, &self.shape, 1..=1, "1 dimension")?;
        // From 2^53 on, whole numbers have been rounded; no network has as many outputs.
        let label = |(row, &found): (usize, &f64)| {
            let whole = found.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&found);
            if whole { Ok(found as usize) } else { Err(ReadError::Label { path: self.path.clone(), row, found }) }
        };
        self.numbers.iter().enumerate().map(label).collect()
    }
}

/// Reals from a `.npy` file, of shape (n, d), or (n), which becomes (n, 1). Their dtype is any of
/// f2, f4, f8, i1 … i8, u1 … u8 and bool, little or big endian.
///
/// # Errors
/// [`ReadError::Content`] for another dtype or number of dimensions; [`ReadError::Length`] for a
/// damaged file.
pub fn npy<F: Scalar>(path: impl AsRef<Path>) -> Result<Array2<F>> {
    Ok(npy_array(npy_file(path.as_ref())?)?.numbers)
}

/// Class labels from a `.npy` file, of shape (n): whole numbers, of any dtype that [`npy`] reads. A
/// label may be any number; [`label_classes`](super::label_classes) numbers those that occur.
///
/// # Errors
/// As [`npy`], and [`ReadError::Label`].
pub fn npy_labels(path: impl AsRef<Path>) -> Result<Array1<usize>> {
    npy_any(path)?.labels()
}

/// Coefficients or labels from a `.npy` file, whichever they are.
///
/// # Errors
/// As [`npy`].
pub fn npy_any(path: impl AsRef<Path>) -> Result<NpyArray> {
    any(npy_file(path.as_ref())?)
}

/// The array `name` of an `.npz` file, compressed or not; otherwise as [`npy`].
///
/// # Errors
/// As [`npy`], and [`ReadError::Content`] if no array has this name.
pub fn npz<F: Scalar>(path: impl AsRef<Path>, name: &str) -> Result<Array2<F>> {
    with_member(path.as_ref(), name, |bytes| Ok(npy_array(bytes)?.numbers))
}

/// Class labels from the array `name` of an `.npz` file; otherwise as [`npy_labels`].
///
/// # Errors
/// As [`npz`], and [`ReadError::Label`].
pub fn npz_labels(path: impl AsRef<Path>, name: &str) -> Result<Array1<usize>> {
    with_member(path.as_ref(), name, |bytes| any(bytes)?.labels())
}

fn any(bytes: Bytes) -> Result<NpyArray> {
    let path = bytes.path.to_owned();
    let Parts { shape, whole, numbers } = npy_array(bytes)?;
    Ok(NpyArray { path, shape, numbers, whole })
}

fn npy_file(path: &Path) -> Result<Bytes<'_>> {
    Ok(Bytes { path, reader: Box::new(open(path)?), position: 0 })
}

fn with_member<T>(path: &Path, name: &str, read: impl FnOnce(Bytes) -> Result<T>) -> Result<T> {
    let zip_error = |error: zip::result::ZipError| io_error(path)(error.into());
    // Its directory stands at the end, and a pipe cannot be gone back in.
    let bytes = fs::read(path).map_err(io_error(path))?;
    check_directory(path, &bytes)?;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(zip_error)?;
    let file_name = format!("{name}.npy");
    let Some(index) = archive.index_for_name(&file_name) else {
        let names: Vec<_> =
            archive.file_names().map(|name| quoted(name.strip_suffix(".npy").unwrap_or(name))).collect();
        return Err(content(path, "array", quoted(name), names.join(", ")));
    };
    let member = archive.by_index(index).map_err(zip_error)?;
    read(Bytes { path: &path.join(file_name), reader: Box::new(member), position: 0 })
}

/// Refuses a zip directory that claims more files than there is room for before it; zip 6 would
/// allocate for 65,535 of them.
///
/// A directory's end is its signature, two numbers of disks, and the number of files on this disk
/// and in all, all of two bytes. Coefficients that contradict each other are left to zip, which
/// does not believe them, unless none in all is said, which it does not check.
fn check_directory(path: &Path, bytes: &[u8]) -> Result<()> {
    const ENTRY: usize = 46;
    for at in bytes.windows(4).enumerate().filter(|(_, four)| *four == b"PK\x05\x06").map(|(at, _)| at) {
        let Some(&[a, b, c, d]) = bytes.get(at + 8..at + 12).and_then(|count| count.first_chunk()) else { break };
        let [here, all] = [[a, b], [c, d]].map(|count| usize::from(u16::from_le_bytes(count)));
        // The largest count stands for one in zip's 64-bit extension, which is checked there.
        if here > 0 && here * ENTRY > at && (all == 0 || all == here && all < usize::from(u16::MAX)) {
            let expected = format!("a directory of at most {} files", at / ENTRY);
            return Err(content(path, "archive", expected, here.to_string()));
        }
    }
    Ok(())
}

/// What stands before an array's numbers: its dtype, whether it is in Fortran order, its shape. Not
/// by ndarray-npy 0.10, which allocates what a header says and panics on a shape of (0,
/// usize::MAX).
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
    // SingleStep dictionary and one tuple. More make structures, and the parser's time doubles with
    // each that is nested.
    if text.matches(['(', '[', '{']).count() > 2 {
        return None;
    }
    let value: Value = without_long(text).parse().ok()?;
    let get = |name| value.as_dict()?.iter().find(|(key, _)| key.as_string().is_some_and(|key| key == name));
    let length = |d: &Value| usize::try_from(d.as_integer()?).ok();
    let shape = get("shape")?.1.as_tuple()?.iter().map(length).collect::<Option<_>>()?;
    Some((get("descr")?.1.as_string()?.clone(), get("fortran_order")?.1.as_boolean()?, shape))
}

/// Without the L that Python 2 has behind its long integers, as NumPy leaves it out. No digit
/// stands before an L in a name or dtype that is read.
fn without_long(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for character in text.chars() {
        if character != 'L' || !kept.ends_with(|before: char| before.is_ascii_digit()) {
            kept.push(character);
        }
    }
    kept
}

/// IEEE 754's half precision, of which Rust has no stable type.
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

/// An array, and what its header says of it.
struct Parts<F> {
    shape: Vec<usize>,
    whole: bool,
    numbers: Array2<F>,
}

fn npy_array<F: Scalar>(mut bytes: Bytes) -> Result<Parts<F>> {
    /// Is it a type of whole numbers, the size of one, and its value.
    type Kind = (bool, usize, fn(&[u8]) -> f64);
    macro_rules! number {
        ($whole:literal, $t:ty) => {
            number!($whole, $t, |number| number as f64)
        };
        ($whole:literal, $t:ty, $value:expr) => {
            ($whole, size_of::<$t>(), |bytes| {
                let value: fn($t) -> f64 = $value;
                value(<$t>::from_le_bytes(bytes.try_into().expect("chunks are of this size")))
            })
        };
    }
    let (dtype, fortran_order, shape) = npy_header(&mut bytes)?;
    let path = bytes.path;
    // The order of bytes, if it matters, and the type: `<f4`, `|u1`.
    let (big_endian, kind) = match dtype.strip_prefix(['<', '>', '|', '=']) {
        Some(kind) => (dtype.starts_with('>'), kind),
        None => (false, dtype.as_str()),
    };
    let (whole, size, number): Kind = match kind {
        "f2" => number!(false, u16, half),
        "f4" => number!(false, f32),
        "f8" => number!(false, f64),
        "i1" => number!(true, i8),
        "i2" => number!(true, i16),
        "i4" => number!(true, i32),
        "i8" => number!(true, i64),
        "u1" => number!(true, u8),
        "u2" => number!(true, u16),
        "u4" => number!(true, u32),
        "u8" => number!(true, u64),
        "b1" => number!(true, u8, |byte| if byte == 0 { 0.0 } else { 1.0 }),
        _ => {
            let expected = "f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 or b1";
            let found = format!("{}; x.astype('<f4') makes one of them", quoted(&dtype));
            return Err(content(path, "dtype", expected, found));
        }
    };
    check_dimensions(path, &shape, 1..=2, "1 or 2 dimensions")?;
    let mut bytes = bytes.array(&shape, size)?;
    if big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    let values = bytes.chunks_exact(size).map(|bytes| F::from_f64(number(bytes))).collect();
    let array = samples(path, &shape, fortran_order, values)?;
    // Samples in rows, each in one piece, as training reads them.
    let numbers = if fortran_order { array.as_standard_layout().into_owned() } else { array };
    Ok(Parts { shape, whole, numbers })
}
