//! A directory of numbered [safetensors](https://huggingface.co/docs/safetensors) files, of which the newest whole one can be
//! read back whatever happens to the process or the machine while another is written. What they hold is not its business.
//!
//! A file is written under another name, synced, renamed, and the directory synced, before an older one goes. Its checksum
//! stands among the facts (safetensors' `__metadata__`), so any reader of safetensors can open it. Equal contents make equal
//! files. Who writes holds a lock on the directory, and who reads needs none: what it can see is whole.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

/// The most that readers of safetensors accept.
const LONGEST_HEADER: u64 = 100_000_000;
const CHECKSUM: &str = "checksum";
/// A fact of all files of this crate, by which one that has lost its checksum is told from one of another program.
pub(crate) const OURS: &str = "gemmprop";
/// Of a file that is being written, and of the lock.
const WRITING: &str = ".writing";
const LOCK: &str = ".lock";
/// Whole files kept: should the newest be damaged on the disk, there is the one before.
const KEPT: usize = 2;

/// What one file holds. No fact is called `checksum`, no tensor `__metadata__`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) facts: BTreeMap<String, String>,
}

/// Coefficients in row-major order. In what was read, `bytes` is as long as `dtype` and `shape` say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Little endian.
    pub(crate) bytes: Vec<u8>,
}

/// A directory of checkpoints, numbered by step; the two newest are kept.
///
/// SingleStep run at a time may write there: the first call of [`create`](Self::create), [`lock`](Self::lock), `resume` or `save` takes a lock on
/// the directory, and it is held until this value and its clones are gone, or the process is, however it ends. For another value the
/// directory is [`InUse`](CheckpointError::InUse) meanwhile, in this process as in others. Reading needs no lock.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    directory: PathBuf,
    /// The file whose lock is held, once it is.
    lock: Arc<Mutex<Option<File>>>,
}

/// Why checkpoints could not be written or read. After a failed write, those written before are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A new run in a directory that has checkpoints of another.
    #[error("{directory}: expected no checkpoints, found {found:?}; resume from them or choose another directory")]
    Used {
        /// The directory as an absolute path.
        directory: PathBuf,
        /// The newest.
        found: PathBuf,
    },
    /// Another run writes here.
    #[error("{directory}: expected no run that writes here, found one; wait for its end or choose another directory")]
    InUse {
        /// The directory as an absolute path.
        directory: PathBuf,
    },
    /// SingleStep file cannot be used.
    #[error(transparent)]
    Damaged(Damaged),
    /// A sound file that this crate has not written.
    #[error("{path}: {}", Fault::Foreign)]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The newest checkpoint is damaged, and nobody has asked for an older one.
    #[error("{}; the newest whole checkpoint is {whole}, for a caller that names it", list(damaged))]
    NewestDamaged {
        /// All that are newer than the whole one, newest first.
        damaged: Vec<Damaged>,
        /// The newest that is whole.
        whole: PathBuf,
    },
    /// There is nothing to resume from.
    #[error("{directory}: expected a whole checkpoint, found {}", list(damaged))]
    NoneWhole {
        /// The directory as an absolute path.
        directory: PathBuf,
        /// All that there are, newest first.
        damaged: Vec<Damaged>,
    },
    /// A checkpoint does not fit to what it meets.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// Which property.
        what: String,
        /// What it had to be.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// It was cut off, or something was appended.
    #[error("expected {expected} bytes by its header, found {found}")]
    Length {
        /// What the header asks for, as far as there is one.
        expected: u64,
        /// The length of the file.
        found: u64,
    },
    /// Nothing is wrong with it, but it is of other origin: it has no checksum.
    #[error("expected a checkpoint of this crate, found a safetensors file that another program wrote")]
    Foreign,
    /// It breaks the rules of safetensors.
    #[error("expected a safetensors file with a checksum, found {found}")]
    Format {
        /// What tells.
        found: String,
    },
    /// The contents have changed since they were written.
    #[error("expected the checksum {expected}, found {found}")]
    Checksum {
        /// The one in the file.
        expected: String,
        /// That of the contents.
        found: String,
    },
}

fn list(damaged: &[Damaged]) -> String {
    match damaged {
        [] => "none".into(),
        _ => damaged.iter().map(Damaged::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    |source| CheckpointError::Io { path: path.to_owned(), source }
}

impl Checkpoints {
    /// A directory for a new run, made if it does not exist, and [locked](Self::lock).
    ///
    /// # Errors
    ///
    /// If it cannot be made or read, if another run writes there, and if it has checkpoints already.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let this = Self::at(directory.as_ref())?;
        let ancestors: Vec<&Path> = this.directory.ancestors().collect();
        let new = ancestors.iter().take_while(|ancestor| !ancestor.exists()).count();
        fs::create_dir_all(&this.directory).map_err(at(&this.directory))?;
        // A new directory is safe once the one that it stands in is.
        ancestors.iter().skip(1).take(new).try_for_each(|parent| sync(parent))?;
        this.lock()?;
        match this.numbered()?.pop_last() {
            Some((_, found)) => Err(CheckpointError::Used { directory: this.directory, found }),
            None => Ok(this),
        }
    }

    /// The directory of an earlier run, to read or to resume from.
    ///
    /// # Errors
    ///
    /// If it cannot be read, and if it has no checkpoint.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let this = Self::at(directory.as_ref())?;
        match this.numbered()?.is_empty() {
            true => Err(CheckpointError::NoneWhole { directory: this.directory, damaged: Vec::new() }),
            false => Ok(this),
        }
    }

    /// The directory as an absolute path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes this value the one that may write here, until it and its clones are gone; it may be so already. Who reads a run to go on with it
    /// does this first, so that no two go on with the same one. What a killed writer has left half written is removed.
    ///
    /// Nothing is locked, and all goes on, where the file system has no locks, and where the directory may not be written to:
    /// [`save`](Self::save) will say so.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::InUse`] if another value holds the lock, and if the system refuses to make its file, `.lock`.
    pub fn lock(&self) -> Result<(), CheckpointError> {
        self.locked().map(drop)
    }

    /// The same, and no other thread with a clone of this value writes while the guard lives.
    fn locked(&self) -> Result<MutexGuard<'_, Option<File>>, CheckpointError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(held);
        }
        let path = self.directory.join(LOCK);
        let made = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        // Another user's may be read at least, which is enough to lock it.
        let file = match made.or_else(|error| File::open(&path).map_err(|_| error)) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                return Ok(held);
            }
            Err(e) => return Err(at(&path)(e)),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { directory: self.directory.clone() }),
            Err(TryLockError::Error(_)) => Ok(held),
            Ok(()) => {
                // Nobody writes it now.
                _ = fs::remove_file(self.directory.join(WRITING));
                *held = Some(file);
                Ok(held)
            }
        }
    }

    /// Absolute, lest a later change of the working directory lead elsewhere.
    fn at(directory: &Path) -> Result<Self, CheckpointError> {
        let directory = std::path::absolute(directory).map_err(at(directory))?;
        Ok(Self { directory, lock: Arc::default() })
    }

    /// Writes the file of a step, in place of an earlier one of the same step, and removes those that are older than the two
    /// newest whole ones. Once it returns, a failure of power cannot undo it. An older file that cannot be removed stays until a later
    /// call can.
    ///
    /// # Errors
    ///
    /// If another run writes here; if the system refuses; if the directory has a whole file of a later step, which would be taken for
    /// the newest; and if the contents would make no valid file.
    pub(crate) fn write(&self, step: u64, contents: &Contents) -> Result<PathBuf, CheckpointError> {
        let path = self.directory.join(name(step));
        // What cannot be read back must not displace what can.
        let bytes = encode(contents).and_then(|bytes| decode(&bytes).map(drop).map(|()| bytes));
        let bytes = bytes.map_err(|fault| CheckpointError::Damaged(Damaged { path: path.clone(), fault }))?;
        let _guard = self.locked()?;
        let numbered = self.numbered()?;
        let mut later = numbered.range((Bound::Excluded(step), Bound::Unbounded));
        if let Some((_, later)) = later.rfind(|(_, later)| whole(later)) {
            let what = format!("checkpoint {}", later.display());
            let expected = format!("none after step {step}, which is to be written");
            return Err(CheckpointError::Mismatch { what, expected, found: "a whole one".into() });
        }

        let writing = self.directory.join(WRITING);
        let put = || {
            let mut file = File::create(&writing)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        put()
            .map_err(at(&writing))
            .and_then(|()| fs::rename(&writing, &path).map_err(at(&path)))
            // On a full disk its space is needed; and where it stays, no one minds.
            .inspect_err(|_| drop(fs::remove_file(&writing)))?;
        sync(&self.directory)?;

        let mut kept = 0;
        for (number, older) in self.numbered().into_iter().flatten().rev() {
            if kept < KEPT {
                kept += usize::from(number == step || whole(&older));
            } else {
                _ = fs::remove_file(&older);
            }
        }
        Ok(path)
    }

    /// The newest whole file, where it stands, and the newer ones that are damaged.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read, and if no file is whole.
    pub(crate) fn newest(&self) -> Result<(Contents, PathBuf, Vec<Damaged>), CheckpointError> {
        let mut damaged = Vec::new();
        let mut files = self.numbered()?;
        while let Some((number, path)) = files.pop_last() {
            let fault = match load(&path) {
                Ok(contents) => return Ok((contents, path, damaged)),
                Err(fault) => fault,
            };
            if matches!(&fault, Fault::Io(error) if error.kind() == io::ErrorKind::NotFound) {
                let now = self.numbered()?;
                if !now.contains_key(&number) {
                    // Somebody who writes has removed it meanwhile, so there are newer ones.
                    (files, damaged) = (now, Vec::new());
                    continue;
                }
            }
            damaged.push(Damaged { path, fault });
        }
        Err(CheckpointError::NoneWhole { directory: self.directory.clone(), damaged })
    }

    fn numbered(&self) -> Result<BTreeMap<u64, PathBuf>, CheckpointError> {
        let number = |path: &Path| {
            let file = path.file_name()?.to_str()?;
            let number = file.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()?;
            (name(number) == file).then_some(number)
        };
        let entries = fs::read_dir(&self.directory)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>());
        let entries = entries.map_err(at(&self.directory))?;
        Ok(entries.into_iter().filter_map(|path| Some((number(&path)?, path))).collect())
    }
}

fn name(step: u64) -> String {
    format!("step-{step:012}.safetensors")
}

/// SingleStep file of the caller's choice.
///
/// # Errors
///
/// If it cannot be read, or is not whole.
pub(crate) fn read(path: &Path) -> Result<Contents, CheckpointError> {
    load(path).map_err(|fault| match fault {
        Fault::Io(source) => CheckpointError::Io { path: path.to_owned(), source },
        Fault::Foreign => CheckpointError::Foreign { path: path.to_owned() },
        fault => CheckpointError::Damaged(Damaged { path: path.to_owned(), fault }),
    })
}

fn load(path: &Path) -> Result<Contents, Fault> {
    let bytes = fs::read(path).map_err(Fault::Io)?;
    let (facts, tensors) = decode(&bytes)?;
    let own = |(name, (info, bytes)): (String, (TensorInfo, &[u8]))| {
        (name, Tensor { dtype: info.dtype, shape: info.shape, bytes: bytes.to_vec() })
    };
    Ok(Contents { tensors: tensors.into_iter().map(own).collect(), facts })
}

fn whole(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| decode(&bytes).is_ok())
}

/// Makes the names in a directory last, as syncing a file does its bytes.
fn sync(directory: &Path) -> Result<(), CheckpointError> {
    // Elsewhere a directory cannot be opened for that; and some network file systems cannot do it.
    match cfg!(unix).then(|| File::open(directory)?.sync_all()) {
        Some(Err(e)) if !matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Err(at(directory)(e))
        }
        _ => Ok(()),
    }
}

/// Description and bytes of each tensor.
type Parts<'a> = BTreeMap<String, (TensorInfo, &'a [u8])>;

/// Its keys are in order, which safetensors' own writer leaves to chance.
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

fn encode(contents: &Contents) -> Result<Vec<u8>, Fault> {
    // The wide numbers first, so that all are aligned.
    let mut order: Vec<_> = contents.tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| Reverse(tensor.dtype));
    let mut parts = Parts::new();
    let mut end = 0;
    for &(name, tensor) in &order {
        let data_offsets = (end, end + tensor.bytes.len());
        end = data_offsets.1;
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets };
        parts.insert(name.clone(), (info, &tensor.bytes));
    }
    let mut facts = contents.facts.clone();
    facts.insert(CHECKSUM.into(), checksum(&contents.facts, &parts));
    let tensors = parts.iter().map(|(name, (info, _))| (name.as_str(), info)).collect();
    let mut header = serde_json::to_vec(&Header { facts, tensors }).map_err(format)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    order.iter().for_each(|(_, tensor)| bytes.extend(&tensor.bytes));
    Ok(bytes)
}

/// Refuses all that is not whole; believes no number before it is checked against the length. (Safetensors' own entry adds the
/// lengths unchecked, and a header that claims all memory makes it overflow.)
fn decode(bytes: &[u8]) -> Result<(BTreeMap<String, String>, Parts<'_>), Fault> {
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
    let mut facts: BTreeMap<_, _> = facts.map(|(key, value)| (key.clone(), value.clone())).collect();
    let expected = facts.remove(CHECKSUM).ok_or_else(|| match facts.contains_key(OURS) {
        true => Fault::Format { found: "no checksum".into() },
        false => Fault::Foreign,
    })?;
    let part = |info: &TensorInfo| (info.clone(), &data[info.data_offsets.0..info.data_offsets.1]);
    let parts = metadata.tensors().into_iter().map(|(name, info)| (name, part(info))).collect();
    let found = checksum(&facts, &parts);
    if found == expected { Ok((facts, parts)) } else { Err(Fault::Checksum { expected, found }) }
}

/// CRC-32, in hexadecimal digits.
fn checksum(facts: &BTreeMap<String, String>, parts: &Parts) -> String {
    let mut crc = crc32fast::Hasher::new();
    // Each piece behind its length, so that no two contents run together into the same bytes.
    let mut piece = |bytes: &[u8]| {
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    };
    piece(facts.len().to_string().as_bytes());
    for (key, value) in facts {
        piece(key.as_bytes());
        piece(value.as_bytes());
    }
    for (name, (info, bytes)) in parts {
        piece(name.as_bytes());
        piece(info.dtype.to_string().as_bytes());
        piece(format!("{:?}", info.shape).as_bytes());
        piece(bytes);
    }
    format!("{:08x}", crc.finalize())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
