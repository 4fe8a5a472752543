//! NumPy's `.npy` and `.npz`.

use std::ops::RangeInclusive;
use std::path::Path;

use ndarray::{Array1, Array2};
use py_literal::Value;
use zip::ZipArchive;

use super::{Bytes, ReadError, Result, check_dimensions, content, io_error, open, quoted, samples};
use crate::scalar::Scalar;

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
