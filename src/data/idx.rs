//! The IDX format of MNIST.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Cursor, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ndarray::{Array1, Array2};

use super::{Bytes, Result, check_dimensions, content, io_error, open, quoted, samples};
use crate::linalg::scalar::Scalar;

/// Reads images from an IDX file of unsigned bytes, plain or compressed by gzip: a sample in each
/// row, with its bytes scaled to 0 … 1.
///
/// # Errors
/// [`ReadError::Content`](super::ReadError::Content) for another type or fewer than 2 dimensions;
/// [`ReadError::Length`](super::ReadError::Length) for a damaged file.
pub fn idx_images<F: Scalar>(path: impl AsRef<Path>) -> Result<Array2<F>> {
    let path = path.as_ref();
    let (shape, bytes) = idx(path, 2..=255, "2 dimensions or more")?;
    let scaled: [F; 256] = std::array::from_fn(|byte| F::from_f64(byte as f64 / 255.0));
    samples(path, &shape, false, bytes.iter().map(|&byte| scaled[usize::from(byte)]).collect())
}

/// Reads class labels from an IDX file of unsigned bytes, plain or compressed by gzip.
///
/// # Errors
/// [`ReadError::Content`](super::ReadError::Content) for another type or number of dimensions;
/// [`ReadError::Length`](super::ReadError::Length) for a damaged file.
pub fn idx_labels(path: impl AsRef<Path>) -> Result<Array1<usize>> {
    Ok(idx(path.as_ref(), 1..=1, "1 dimension")?.1.into_iter().map(usize::from).collect())
}

/// Shape and bytes of an IDX file. Of the crates mnist, mnist_read, rust-mnist and idx_parser, none
/// is maintained and returns errors for damaged files instead of panicking.
fn idx(path: &Path, dimensions: RangeInclusive<usize>, text: &str) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut file = open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start).map_err(io_error(path))?;
    let gzip = start == b"\x1f\x8b";
    let file = Cursor::new(start).chain(file);
    let reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut bytes = Bytes { path, reader, position: 0 };
    let shape = idx_header(&mut bytes, dimensions, text)?;
    let bytes = bytes.array(&shape, 1)?;
    Ok((shape, bytes))
}

/// The shape of an IDX file.
pub(super) fn idx_header(bytes: &mut Bytes, dimensions: RangeInclusive<usize>, text: &str) -> Result<Vec<usize>> {
    let magic = bytes.take(4)?;
    if !magic.starts_with(&[0, 0, 0x08]) {
        let expected = "00 00 08 (unsigned bytes) and the number of dimensions";
        return Err(content(bytes.path, "magic number", expected, format!("{magic:02x?}")));
    }
    let shape = bytes.take(4 * u64::from(magic[3]))?;
    let shape: Vec<_> = shape.as_chunks::<4>().0.iter().map(|&d| u32::from_be_bytes(d) as usize).collect();
    check_dimensions(bytes.path, &shape, dimensions, text)?;
    Ok(shape)
}

/// Images and their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Images<F> {
    /// The images, one in each row, with their bytes scaled to 0 … 1.
    pub x: Array2<F>,
    /// The label of each image.
    pub labels: Array1<usize>,
}

/// A file of images and the file of their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFiles {
    /// The images.
    pub images: PathBuf,
    /// The label of each image.
    pub labels: PathBuf,
}

/// The files of a folder in MNIST's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxFiles {
    /// `train-*`, or the only pair of files.
    pub train: ImageFiles,
    /// `t10k-*`, if there is `train-*` too.
    pub test: Option<ImageFiles>,
}

/// The images and labels of a folder in MNIST's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct IdxFolder<F> {
    /// `train-*`, or the only pair of files.
    pub train: Images<F>,
    /// `t10k-*`, if there is `train-*` too.
    pub test: Option<Images<F>>,
}

/// Finds MNIST's files in a folder: `*-images-idx3-ubyte` and `*-labels-idx1-ubyte`, either
/// `train-*` and `t10k-*`, or a single pair with any name. The names may also end in `.idx3-ubyte`
/// and `.idx1-ubyte`, and in `.gz`; a file without `.gz` is preferred to one with it. Their
/// contents are not looked at.
///
/// # Errors
/// [`ReadError::Content`](super::ReadError::Content) if the folder has no such files, or if a file
/// lacks its partner; [`ReadError::Io`](super::ReadError::Io) if the folder cannot be read.
pub fn idx_files(folder: impl AsRef<Path>) -> Result<IdxFiles> {
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
    let both = |pair: &[Option<&PathBuf>; 2]| match *pair {
        [Some(images), Some(labels)] => Ok(ImageFiles { images: images.clone(), labels: labels.clone() }),
        _ => Err(unfit()),
    };
    let (train, test) = pick.ok_or_else(unfit)?;
    Ok(IdxFiles { train: both(train)?, test: test.map(both).transpose()? })
}

/// Reads the images and labels that [`idx_files`] finds in a folder.
///
/// # Errors
/// As [`idx_files`] and [`idx_images`], and
/// [`ReadError::Content`](super::ReadError::Content) if images and labels differ in number.
pub fn idx_folder<F: Scalar>(folder: impl AsRef<Path>) -> Result<IdxFolder<F>> {
    let read = |ImageFiles { images, labels }: &ImageFiles| {
        let samples = Images { x: idx_images(images)?, labels: idx_labels(labels)? };
        let (expected, found) = (samples.x.nrows(), samples.labels.len());
        if expected != found {
            return Err(content(labels, "labels", format!("{expected}, one for each image"), found.to_string()));
        }
        Ok(samples)
    };
    let IdxFiles { train, test } = idx_files(folder)?;
    Ok(IdxFolder { train: read(&train)?, test: test.as_ref().map(read).transpose()? })
}
