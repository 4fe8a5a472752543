//! Results as files: rows as CSV, and beside them `facts.csv`, which records for each on what
//! machine, at which commit and when it was measured.
//!
//! Figures are drawn from these files alone, right after a measurement or at any time later
//! (`--draw FOLDER`), so that a redrawn figure keeps the caption of its measurement.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A folder of results.
#[derive(Debug)]
pub struct Results {
    directory: PathBuf,
    facts: BTreeMap<String, String>,
}

impl Results {
    /// The results that lie in a folder, which is created if it does not exist.
    pub fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut results = Self { directory: directory.canonicalize()?, facts: BTreeMap::new() };
        if results.csv("facts").exists() {
            results.facts = results.read::<(String, String)>("facts")?.into_iter().collect();
        }
        Ok(results)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn csv(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("csv")
    }

    /// Saves the rows of a measurement.
    pub fn keep(&mut self, name: &str, rows: &[impl Serialize], facts: &str) -> Result {
        let mut writer = csv::Writer::from_path(self.csv(name))?;
        rows.iter().try_for_each(|row| writer.serialize(row))?;
        writer.flush()?;
        self.facts.insert(name.to_owned(), facts.to_owned());
        let mut writer = csv::Writer::from_path(self.csv("facts"))?;
        writer.write_record(["results", "facts"])?;
        self.facts.iter().try_for_each(|entry| writer.serialize(entry))?;
        Ok(writer.flush()?)
    }

    pub fn read<R: DeserializeOwned>(&self, name: &str) -> Result<Vec<R>> {
        let path = self.csv(name);
        let rows = csv::Reader::from_path(&path)?.into_deserialize().collect::<csv::Result<_>>();
        Ok(rows.map_err(|error| format!("{}: {error}", path.display()))?)
    }

    /// The names that have been measured, out of these.
    pub fn measured<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|&name| self.facts.contains_key(name)).collect()
    }

    /// The facts that the rows do not contain.
    pub fn facts(&self, name: &str) -> &str {
        self.facts.get(name).map_or("", String::as_str)
    }
}

/// Rows that are saved one by one, as they are measured: a run of half an hour that was ended goes
/// on where it was.
#[derive(Debug)]
pub struct Journal(Mutex<csv::Writer<File>>);

impl Journal {
    /// Opens or begins a journal, and returns the rows that it has. A line that was not finished is
    /// dropped.
    pub fn open<R: Serialize + DeserializeOwned>(path: &Path) -> Result<(Self, Vec<R>)> {
        let mut rows: Vec<R> = Vec::new();
        if path.exists() {
            rows.extend(csv::Reader::from_path(path)?.into_deserialize().map_while(csv::Result::ok));
        }
        let mut writer = csv::Writer::from_path(path)?;
        rows.iter().try_for_each(|row| writer.serialize(row))?;
        writer.flush()?;
        Ok((Self(Mutex::new(writer)), rows))
    }

    /// Saves a row.
    pub fn keep(&self, row: &impl Serialize) -> csv::Result<()> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.serialize(row)?;
        Ok(writer.flush()?)
    }
}

/// A folder of this name in the directory that cargo builds into; a relative one is taken from the
/// repository's folder.
pub fn directory(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(crate::ROOT).join(target).join(name)
}
