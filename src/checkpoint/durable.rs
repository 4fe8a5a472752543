//! Writing a file such that under its name there is always a whole one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// The path that the system refused, and its error.
pub(crate) type Refused = (PathBuf, io::Error);

/// Writes a file under another name in the same directory, syncs it, renames it and syncs the
/// directory. Once this returns, a power failure cannot undo it.
///
/// # Errors
///
/// If the system refuses; what was there before is as it was, unless only the last sync failed.
pub(crate) fn replace(path: &Path, writing: &Path, bytes: &[u8]) -> Result<(), Refused> {
    let put = || {
        let mut file = File::create(writing)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    put()
        .map_err(at(writing))
        .and_then(|()| fs::rename(writing, path).map_err(at(path)))
        // On a full disk its space is needed. Where it cannot be removed, it does no harm.
        .inspect_err(|_| drop(fs::remove_file(writing)))?;
    // A name without a directory in front stands in the working directory.
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    sync(directory.unwrap_or(Path::new(".")))
}

/// [`replace`]s a file, written under a name that no other writer has at the same time.
///
/// # Errors
///
/// As [`replace`], and for a path that does not end in a name.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Refused> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in the name of a file");
        return Err((path.to_owned(), source));
    };
    let mut name = name.to_owned();
    name.push(format!(".{}-{}.writing", process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    replace(path, &path.with_file_name(name), bytes)
}

/// Makes the names in a directory durable, as syncing a file does for its bytes.
pub(crate) fn sync(directory: &Path) -> Result<(), Refused> {
    // Other systems cannot open a directory for that, and some network file systems cannot sync it.
    match cfg!(unix).then(|| File::open(directory)?.sync_all()) {
        Some(Err(e)) if !matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Err(at(directory)(e))
        }
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Refused {
    |source| (path.to_owned(), source)
}
