//! The bytes of a checkpoint: a [safetensors](https://huggingface.co/docs/safetensors) file with a
//! checksum.
//!
//! The checksum is one of the facts (safetensors' `__metadata__`), so any reader of safetensors can
//! open the file. Equal contents make equal bytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

pub(crate) use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

use crate::checkpoint::error::Fault;
use crate::linalg::scalar::Scalar;

/// The longest header that readers of safetensors accept.
const LONGEST_HEADER: u64 = 100_000_000;
pub(crate) const CHECKSUM: &str = "checksum";
/// A fact of all files of this crate. It tells a file that has lost its checksum from one that
/// another program has written.
pub(crate) const OURS: &str = "gemmprop";

/// The contents of one file. No fact is called `checksum`, no tensor `__metadata__`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) facts: BTreeMap<String, String>,
}

/// An array in row-major order. In contents that were read, `bytes` is as long as `dtype` and
/// `shape` say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Little endian.
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn new<'a, F: Scalar>(numbers: impl Iterator<Item = &'a F>, shape: Vec<usize>) -> Self {
        let dtype = dtype::<F>();
        let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size_of::<F>());
        for number in numbers {
            // Exact both ways.
            match dtype {
                Dtype::F32 => bytes.extend((number.to_f64() as f32).to_le_bytes()),
                _ => bytes.extend(number.to_f64().to_le_bytes()),
            }
        }
        Self { dtype, shape, bytes }
    }

    /// The numbers of a tensor of `f32` or `f64`.
    pub(crate) fn numbers<F: Scalar>(&self) -> Vec<F> {
        match self.dtype {
            Dtype::F32 => {
                let (numbers, _) = self.bytes.as_chunks::<4>();
                numbers.iter().map(|&bytes| F::from_f64(f64::from(f32::from_le_bytes(bytes)))).collect()
            }
            _ => {
                let (numbers, _) = self.bytes.as_chunks::<8>();
                numbers.iter().map(|&bytes| F::from_f64(f64::from_le_bytes(bytes))).collect()
            }
        }
    }
}

/// Numbers of 4 bytes are stored as `f32`, all others as `f64`.
pub(crate) fn dtype<F: Scalar>() -> Dtype {
    if size_of::<F>() == 4 { Dtype::F32 } else { Dtype::F64 }
}

/// What a file holds, with the bytes of the tensors still in it.
#[derive(Debug)]
pub(crate) struct Decoded<'a> {
    facts: BTreeMap<String, String>,
    entries: Entries<'a>,
}

impl Decoded<'_> {
    pub(crate) fn into_contents(self) -> Contents {
        let owned = |(name, (info, bytes)): (String, (TensorInfo, &[u8]))| {
            (name, Tensor { dtype: info.dtype, shape: info.shape, bytes: bytes.to_vec() })
        };
        Contents { tensors: self.entries.into_iter().map(owned).collect(), facts: self.facts }
    }
}

/// Name, description and bytes of each tensor.
type Entries<'a> = BTreeMap<String, (TensorInfo, &'a [u8])>;

/// The header of a file. Its keys are in order, which safetensors' own writer leaves to chance.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    facts: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, &'a TensorInfo>,
}

fn format(error: serde_json::Error) -> Fault {
    Fault::Format { found: error.to_string() }
}

pub(crate) fn encode(contents: &Contents) -> Result<Vec<u8>, Fault> {
    // The widest numbers first, so that all are aligned.
    let mut order: Vec<_> = contents.tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| Reverse(tensor.dtype));
    let mut entries = Entries::new();
    let mut end = 0;
    for &(name, tensor) in &order {
        let data_offsets = (end, end + tensor.bytes.len());
        end = data_offsets.1;
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets };
        entries.insert(name.clone(), (info, &tensor.bytes));
    }
    let mut facts = contents.facts.clone();
    facts.insert(CHECKSUM.into(), checksum(&contents.facts, &entries));
    let tensors = entries.iter().map(|(name, (info, _))| (name.as_str(), info)).collect();
    let mut header = serde_json::to_vec(&Header { facts, tensors }).map_err(format)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    order.iter().for_each(|(_, tensor)| bytes.extend(&tensor.bytes));
    Ok(bytes)
}

/// Refuses all that is not whole.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded<'_>, Fault> {
    let Decoded { mut facts, entries } = decode_any(bytes)?;
    let expected = facts.remove(CHECKSUM).ok_or_else(|| match facts.contains_key(OURS) {
        true => Fault::Format { found: "no checksum".into() },
        false => Fault::Foreign,
    })?;
    let found = checksum(&facts, &entries);
    if found == expected { Ok(Decoded { facts, entries }) } else { Err(Fault::Checksum { expected, found }) }
}

/// The contents of any safetensors file, with the checksum, if it has one, among the facts. No
/// number is trusted before it is checked against the length. (Safetensors' own entry point adds
/// the lengths unchecked, and a header that claims all memory makes it overflow.)
pub(crate) fn decode_any(bytes: &[u8]) -> Result<Decoded<'_>, Fault> {
    let length = |expected: u64| Fault::Length { expected, found: bytes.len() as u64 };
    let header = u64::from_le_bytes(*bytes.first_chunk().ok_or(length(8))?);
    if header > LONGEST_HEADER {
        return Err(Fault::Format { found: format!("a header of {header} bytes, more than {LONGEST_HEADER}") });
    }
    let (header, data) = bytes[8..].split_at_checked(header as usize).ok_or(length(8 + header))?;
    // This checks that the tensors lie end to end and are as long as their shapes say.
    let metadata: Metadata = serde_json::from_slice(header).map_err(format)?;
    if metadata.data_len() != data.len() {
        return Err(length((8 + header.len() as u64).saturating_add(metadata.data_len() as u64)));
    }
    let facts = metadata.metadata().iter().flatten();
    let facts = facts.map(|(key, value)| (key.clone(), value.clone())).collect();
    let entry = |info: &TensorInfo| (info.clone(), &data[info.data_offsets.0..info.data_offsets.1]);
    let entries = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
    Ok(Decoded { facts, entries })
}

/// CRC-32, in hexadecimal digits.
fn checksum(facts: &BTreeMap<String, String>, entries: &Entries) -> String {
    let mut crc = crc32fast::Hasher::new();
    // Each piece after its length, so that no two contents run together into the same bytes.
    let mut piece = |bytes: &[u8]| {
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    };
    piece(facts.len().to_string().as_bytes());
    for (key, value) in facts {
        piece(key.as_bytes());
        piece(value.as_bytes());
    }
    for (name, (info, bytes)) in entries {
        piece(name.as_bytes());
        piece(info.dtype.to_string().as_bytes());
        piece(format!("{:?}", info.shape).as_bytes());
        piece(bytes);
    }
    format!("{:08x}", crc.finalize())
}
