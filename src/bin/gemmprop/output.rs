//! Files that are written completely or not at all.

use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Refuses an output that cannot be written or that is one of the inputs, before hours of training
/// and not after them.
pub(crate) fn check_output(path: &Path, inputs: &[&Option<PathBuf>]) -> Result {
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(format!("{}: there is no such folder", folder.display()).into());
    }
    if path.is_dir() {
        return Err(format!("{}: expected a file to write, found a folder", path.display()).into());
    }
    // Files are compared after resolving links. A name that does not resolve is not an input.
    let file = path.canonicalize().ok();
    if file.is_some() && inputs.iter().filter_map(|input| input.as_ref()).any(|input| input.canonicalize().ok() == file)
    {
        return Err(
            format!("{}: expected a file to write, found one to read, which would be lost", path.display()).into()
        );
    }
    beside(path).map(drop)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file in the same folder, which is removed unless it is renamed.
fn beside(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // The usual permissions of a new file, not those of a private temporary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let partial = builder.prefix(".").suffix(".partial").tempfile_in(folder(path));
    partial.map_err(|error| {
        // The message without the name of the temporary file.
        let cause = error.get_ref().and_then(Error::source).map_or_else(|| error.to_string(), ToString::to_string);
        format!("{}: {cause}", path.display()).into()
    })
}

/// A file that gets its name when it is complete.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: NamedTempFile,
}

impl Partial {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: beside(path)? })
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Whether its name ends so.
    pub(crate) fn ends_in(&self, ending: &str) -> bool {
        self.path.extension().is_some_and(|found| found == ending)
    }

    /// An error of writing it, with its name.
    pub(crate) fn error(&self, error: impl Display) -> Box<dyn Error> {
        format!("{}: {error}", self.path.display()).into()
    }

    /// Gives it its name. The bytes are on the disk before that, also if the power fails.
    pub(crate) fn finish(self) -> Result {
        let Self { path, file } = self;
        let named = file.as_file().sync_all().and_then(|()| Ok(file.persist(&path)?));
        named.map(drop).map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

/// Writes the file completely or not at all, also if the power fails.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result {
    let partial = Partial::new(path)?;
    partial.file().write_all(bytes).map_err(|error| partial.error(error))?;
    partial.finish()
}
