//! An input of libFuzzer as a file.

#[path = "formats.rs"]
mod formats;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use formats::{FILE, FORMATS};

/// A folder in memory, if there is such a place, of each process its own.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = place.join(format!("gemmprop-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
});

pub(crate) fn read(name: &str, bytes: &[u8]) {
    let format = FORMATS.iter().find(|format| format.name == name).expect("a format");
    let path = FOLDER.join(FILE);
    fs::write(&path, bytes).expect("a file can be written");
    (format.read)(&path, bytes);
}
