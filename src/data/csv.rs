//! CSV with a line of column names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use ndarray::{Array1, Array2};

use super::{ReadError, Result, content, io_error, quoted, samples};
use crate::scalar::Scalar;

/// A CSV file: features, and a target of type Y.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<F, Y> {
    /// Names of the features, in the order of x's columns.
    pub columns: Vec<String>,
    /// The features, a sample a row.
    pub x: Array2<F>,
    /// The target.
    pub y: Y,
}

/// A target that is one of some classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The classes' names: label i stands for the i-th.
    pub names: Vec<String>,
    /// The samples' labels.
    pub labels: Array1<usize>,
}

/// The classes that occur among labels, in the order of their numbers: names are these numbers' texts, and the labels are numbered
/// anew from 0, without gaps. A network needs an output for each class that occurs, not for each number up to the largest.
///
/// ```
/// use gemmprop::data::label_classes;
/// use ndarray::array;
///
/// let classes = label_classes(&array![7, 3, 1_000_000_000_000, 3]);
/// assert_eq!(classes.names, ["3", "7", "1000000000000"]);
/// assert_eq!(classes.labels, array![1, 0, 2, 0]);
/// ```
#[must_use]
pub fn label_classes(labels: &Array1<usize>) -> Classes {
    let occurring: BTreeSet<usize> = labels.iter().copied().collect();
    let numbers: BTreeMap<usize, usize> = occurring.iter().enumerate().map(|(i, &label)| (label, i)).collect();
    Classes {
        names: occurring.iter().map(usize::to_string).collect(),
        labels: labels.iter().map(|label| numbers[label]).collect(),
    }
}

/// A CSV file with a line of column names, numbers in all columns; the column `target` becomes y, of shape (n, 1).
///
/// # Errors
/// [`ReadError::Line`] for what is no finite number, a row of another length, a name that occurs twice, or text that is not
/// UTF-8; [`ReadError::Content`] for a file without that column or without rows.
pub fn csv_numbers<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Array2<F>>> {
    let path = path.as_ref();
    let Table { columns, x, y } = table(path, |names| all_but(names, target), number::<F>)?;
    Ok(Table { columns, x, y: samples(path, &[y.len()], false, y)? })
}

/// A CSV file with a line of column names, numbers in all columns but `target`, whose texts are the classes. Sorted (by value
/// if all are whole numbers, else as text), they are numbered from 0; files with other classes give other numbers.
///
/// # Errors
/// As [`csv_numbers`]; a target may be any text but the empty one.
pub fn csv_classes<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Classes>> {
    let class = |text: &str| if text.is_empty() { Err("a class") } else { Ok(text.to_owned()) };
    let Table { columns, x, y } = table(path.as_ref(), |names| all_but(names, target), class)?;
    let mut names: Vec<String> = y.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let value = |name: &String| name.parse::<i128>().ok();
    if names.iter().all(|name| value(name).is_some()) {
        names.sort_by_key(value);
    }
    let numbers: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let labels = y.iter().map(|name| numbers[name.as_str()]).collect();
    Ok(Table { columns, x, y: Classes { names, labels } })
}

/// Some columns of a CSV file with a line of column names, as a network that was trained before needs them: its features, in
/// their order, and `target`, if the file has it. What stands in other columns does not matter. `read` makes a value of the
/// target's text or says what belongs there, as [`number`] and [`class_of`] do.
///
/// # Errors
/// As [`csv_numbers`], for these columns; one of the features that is not there is a [`ReadError::Content`].
pub fn csv_columns<F: Scalar, T>(
    path: impl AsRef<Path>,
    features: &[impl AsRef<str>],
    target: &str,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Option<Vec<T>>>> {
    let choose = |names: &[String]| {
        let find = |name: &str| names.iter().position(|other| other == name);
        let found = features.iter().map(AsRef::as_ref).map(|name| find(name).ok_or(name));
        Ok((found.collect::<std::result::Result<_, _>>()?, find(target)))
    };
    let Table { columns, x, y } = table(path.as_ref(), choose, read)?;
    // There are rows, so without targets there is no such column.
    Ok(Table { columns, x, y: (!y.is_empty()).then_some(y) })
}

/// A finite number, rounded once to F.
///
/// # Errors
/// What belongs there.
pub fn number<F: Scalar>(text: &str) -> std::result::Result<F, &'static str> {
    let number = F::from_f64(text.parse().map_err(|_| "a number")?);
    if number.is_finite() { Ok(number) } else { Err("a finite number") }
}

/// A reader of labels: i for the i-th of these names, and for other texts an error.
pub fn class_of(names: &[impl AsRef<str>]) -> impl Fn(&str) -> std::result::Result<usize, &'static str> {
    let numbers: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_ref(), i)).collect();
    move |text| numbers.get(text).copied().ok_or("a known class")
}

/// Where the features and the target stand, or which name is missing.
type Chosen<'a> = std::result::Result<(Vec<usize>, Option<usize>), &'a str>;

fn all_but<'a>(names: &[String], target: &'a str) -> Chosen<'a> {
    let at = names.iter().position(|name| name == target).ok_or(target)?;
    Ok(((0..names.len()).filter(|&i| i != at).collect(), Some(at)))
}

/// `choose` picks from the columns' names; `read` makes a target of a text, or says what was expected.
fn table<'a, F: Scalar, T>(
    path: &Path,
    choose: impl FnOnce(&[String]) -> Chosen<'a>,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Vec<T>>> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    // Lengths of rows are checked here, for an error that knows the line.
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(bytes.as_slice());
    let mut record = ByteRecord::new();
    let mut next =
        |record: &mut ByteRecord| reader.read_byte_record(record).map_err(|error| io_error(path)(error.into()));
    let error = |record: &ByteRecord, column: Option<&String>, expected: &str, found: String| {
        // The reader's own count stops before blank lines and between \r and \n.
        let start = record.position().map_or(0, |position| position.byte() as usize).min(bytes.len());
        let blank = bytes[start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let line = 1 + bytes[..start + blank].iter().filter(|&&byte| byte == b'\n').count();
        ReadError::Line { path: path.to_owned(), line, column: column.cloned(), expected: expected.to_owned(), found }
    };

    if !next(&mut record)? {
        return Err(content(path, "file", "a line of column names", "an empty file"));
    }
    let (mut columns, mut names) = (Vec::new(), BTreeSet::new());
    for name in &record {
        let name = str::from_utf8(name).map_err(|_| error(&record, None, "UTF-8", quoted(name)))?.to_owned();
        if !names.insert(name.clone()) {
            return Err(error(&record, Some(&name), "a name for one column", "it twice".to_owned()));
        }
        columns.push(name);
    }
    let (features, target) = choose(&columns).map_err(|missing| {
        let names: Vec<_> = columns.iter().map(quoted).collect();
        content(path, "column", quoted(missing), names.join(", "))
    })?;

    let (mut x, mut y, mut rows) = (Vec::new(), Vec::new(), 0);
    while next(&mut record)? {
        if record.len() != columns.len() {
            let expected = format!("{} fields, as many as column names", columns.len());
            return Err(error(&record, None, &expected, record.len().to_string()));
        }
        let refused = |i: usize, expected| error(&record, Some(&columns[i]), expected, quoted(&record[i]));
        let text = |i: usize| str::from_utf8(&record[i]).map_err(|_| refused(i, "UTF-8"));
        for &i in &features {
            x.push(number(text(i)?).map_err(|expected| refused(i, expected))?);
        }
        if let Some(i) = target {
            y.push(read(text(i)?).map_err(|expected| refused(i, expected))?);
        }
        rows += 1;
    }
    if rows == 0 {
        return Err(content(path, "rows", "at least one", "none"));
    }
    let x = samples(path, &[rows, features.len()], false, x)?;
    Ok(Table { columns: features.iter().map(|&i| columns[i].clone()).collect(), x, y })
}
