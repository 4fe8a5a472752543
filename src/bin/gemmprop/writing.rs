//! Predictions in files and on standard output, written as they come.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use ndarray_npy::{WritableElement, write_zeroed_npy};
use serde_json::{Map, Value};

use crate::message::Result;
use crate::predicted::Predicted;
use crate::task::Task;

/// Writes predictions, part by part.
pub(crate) trait PredictionWriter {
    fn write(&mut self, predicted: &Predicted) -> Result;

    /// To be called after the last part.
    fn end(&mut self) -> Result;
}

/// A line for each sample, under a line of names.
pub(crate) struct CsvWriter<'a, W: Write> {
    task: &'a Task,
    writer: csv::Writer<W>,
    begun: bool,
}

impl<'a, W: Write> CsvWriter<'a, W> {
    pub(crate) fn new(task: &'a Task, to: W) -> Self {
        Self { task, writer: csv::Writer::from_writer(to), begun: false }
    }
}

/// The shortest text of the number: as an f32 if it is one, as the network's outputs are.
fn text(number: f64) -> String {
    let single = number as f32;
    if f64::from(single) == number { single.to_string() } else { number.to_string() }
}

fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

impl<W: Write> PredictionWriter for CsvWriter<'_, W> {
    fn write(&mut self, predicted: &Predicted) -> Result {
        let Self { task, writer, begun } = self;
        let is_first = !std::mem::replace(begun, true);
        let written = match predicted {
            Predicted::Classes(classes) => {
                let mut rows = classes.iter().map(|&(class, probability)| [task.class(class), probability.to_string()]);
                let header = [task.target.as_deref().unwrap_or("class"), "probability"];
                let begun = if is_first { writer.write_record(header) } else { Ok(()) };
                begun.and_then(|()| rows.try_for_each(|row| writer.write_record(row)))
            }
            Predicted::Numbers(y_hat) => {
                let mut rows = y_hat.outer_iter();
                let begun = if is_first { writer.write_record(task.outputs(y_hat.ncols())) } else { Ok(()) };
                begun.and_then(|()| rows.try_for_each(|row| writer.write_record(row.iter().copied().map(text))))
            }
        };
        Ok(written.map_err(plain)?)
    }

    fn end(&mut self) -> Result {
        Ok(self.writer.flush()?)
    }
}

/// An object for each sample, with the names of the CSV's columns.
pub(crate) struct JsonWriter<'a, W: Write> {
    task: &'a Task,
    to: W,
}

impl<'a, W: Write> JsonWriter<'a, W> {
    pub(crate) fn new(task: &'a Task, to: W) -> Self {
        Self { task, to }
    }
}

impl<W: Write> PredictionWriter for JsonWriter<'_, W> {
    fn write(&mut self, predicted: &Predicted) -> Result {
        let Self { task, to } = self;
        let mut write = |object: Map<String, Value>| writeln!(to, "{}", Value::Object(object));
        let written = match predicted {
            Predicted::Classes(classes) => classes.iter().try_for_each(|&(class, probability)| {
                let name = task.target.clone().unwrap_or_else(|| "class".to_owned());
                // By way of its text, which has the digits of an f32 and not those of its f64.
                let probability = probability.to_string().parse::<f64>().map_err(io::Error::other)?;
                let class = task.class(class).into();
                write([("probability".to_owned(), probability.into()), (name, class)].into_iter().collect())
            }),
            Predicted::Numbers(y_hat) => y_hat.outer_iter().try_for_each(|row| {
                let values = task.outputs(row.len()).into_iter().zip(row.iter().map(|&y| y.into()));
                write(values.collect())
            }),
        };
        Ok(written?)
    }

    fn end(&mut self) -> Result {
        Ok(self.to.flush()?)
    }
}

/// An array of NumPy with the numbers that were predicted, or with the classes as whole numbers.
pub(crate) struct NpyWriter<'a> {
    /// The number of each class.
    labels: Vec<i64>,
    file: &'a File,
    /// What the header says.
    rows: usize,
    to: BufWriter<&'a File>,
    begun: bool,
}

impl<'a> NpyWriter<'a> {
    pub(crate) fn new(task: &Task, file: &'a File, rows: usize) -> Self {
        let own = task.classes.iter().map(|name| name.parse().ok()).collect::<Option<Vec<i64>>>();
        let labels = own.unwrap_or_else(|| (0..task.classes.len() as i64).collect());
        Self { labels, file, rows, to: BufWriter::new(file), begun: false }
    }
}

impl PredictionWriter for NpyWriter<'_> {
    fn write(&mut self, predicted: &Predicted) -> Result {
        let is_first = !std::mem::replace(&mut self.begun, true);
        match predicted {
            Predicted::Classes(classes) => {
                if is_first {
                    write_zeroed_npy::<i64, _>(self.file, self.rows)?;
                }
                let labels: Vec<i64> = classes.iter().map(|&(class, _)| self.labels[class]).collect();
                i64::write_slice(&labels, &mut self.to)?;
            }
            Predicted::Numbers(y_hat) => {
                if is_first {
                    write_zeroed_npy::<f64, _>(self.file, (self.rows, y_hat.ncols()))?;
                }
                f64::write_slice(y_hat.as_standard_layout().as_slice().expect("in rows"), &mut self.to)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result {
        Ok(self.to.flush()?)
    }
}
