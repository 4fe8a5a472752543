//! CSV with a line of column names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use ndarray::{Array1, Array2};

use super::csv_rows::{self, Rows};
use super::{ReadError, Result, content, quoted, samples};
use crate::linalg::scalar::Scalar;

/// A CSV file: features, and a target of type Y.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<F, Y> {
    /// Names of the features, in the order of x's columns.
    pub columns: Vec<String>,
    /// The features, with a sample in each row.
    pub x: Array2<F>,
    /// The target.
    pub y: Y,
    /// The line of the file at which each row begins, counted from 1, for errors about a row that
    /// are found later.
    pub lines: Vec<usize>,
}

/// Class labels and the names of the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The name of each class: label i stands for `names[i]`.
    pub names: Vec<String>,
    /// The label of each sample.
    pub labels: Array1<usize>,
}

/// The classes that occur among labels, in ascending order. Their names are the labels as text, and
/// the new labels are numbered from 0 without gaps. A network needs an output for each class that
/// occurs, not for each number up to the largest.
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

/// A target as text, which a caller can turn into classes or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    path: PathBuf,
    column: String,
    /// The line of the file at which each row begins.
    lines: Vec<usize>,
    texts: Vec<String>,
}

impl Texts {
    /// The text of each row.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.texts
    }

    /// The texts as numbers, of shape (n, 1).
    ///
    /// # Errors
    /// [`ReadError::Line`] for the first text that is not a finite number.
    pub fn numbers<F: Scalar>(&self) -> Result<Array2<F>> {
        let read = |(row, text): (usize, &String)| number(text).map_err(|expected| self.error(row, expected));
        let numbers: Vec<F> = self.texts.iter().enumerate().map(read).collect::<Result<_>>()?;
        samples(&self.path, &[numbers.len()], false, numbers)
    }

    /// The texts as classes, sorted (by value if all are whole numbers, otherwise as text) and
    /// numbered from 0. Files in which other classes occur number them differently.
    ///
    /// # Errors
    /// [`ReadError::Line`] for the first text that is empty.
    pub fn classes(&self) -> Result<Classes> {
        if let Some(row) = self.texts.iter().position(String::is_empty) {
            return Err(self.error(row, "a class"));
        }
        let mut names: Vec<&str> = self.texts.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let value = |name: &&str| name.parse::<i128>().ok();
        if names.iter().all(|name| value(name).is_some()) {
            names.sort_by_key(value);
        }
        let numbers: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, &name)| (name, i)).collect();
        let labels = self.texts.iter().map(|text| numbers[text.as_str()]).collect();
        Ok(Classes { names: names.into_iter().map(str::to_owned).collect(), labels })
    }

    /// An error that says what was expected in a row, with file, line and column.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn error(&self, row: usize, expected: &str) -> ReadError {
        ReadError::Line {
            path: self.path.clone(),
            line: self.lines[row],
            column: Some(self.column.clone()),
            expected: expected.to_owned(),
            found: quoted(&self.texts[row]),
        }
    }
}

/// Reads a CSV file with a line of column names and numbers in all columns. The column `target`
/// becomes y, of shape (n, 1).
///
/// Fields are separated by commas, semicolons or tabs, whichever the line of names and the line
/// after it have, and may be enclosed in double quotes, as in RFC 4180. Blanks around fields, a
/// mark of the byte order, and empty lines are ignored. Lines end in `\n`, `\r\n` or `\r`.
///
/// # Errors
/// [`ReadError::Line`] for a field that is not a finite number, a row of another length, a name
/// that occurs twice, text that is not UTF-8, and quotes that do not enclose a field;
/// [`ReadError::Content`] for a file without that column, without any other, with a column that has
/// no name, or without rows.
pub fn csv_numbers<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Array2<F>>> {
    let path = path.as_ref();
    let Table { columns, x, y, lines } = table(path, |names| all_but(path, names, target, &[""; 0]), number::<F>)?;
    Ok(Table { columns, x, y: samples(path, &[y.len()], false, y)?, lines })
}

/// Reads a CSV file with a line of column names and numbers in all columns but `target`, whose
/// texts become [classes](Texts::classes).
///
/// # Errors
/// As [`csv_numbers`]; a target may be any text but the empty one.
pub fn csv_classes<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Classes>> {
    let Table { columns, x, y, lines } = csv_texts(path, target, &[""; 0])?;
    Ok(Table { columns, x, y: y.classes()?, lines })
}

/// Reads a CSV file with a line of column names and numbers in all columns but `target` and those
/// named in `without`, which are left out (`""` is the name of the index that pandas writes). The
/// target stays text, so that a caller can look at it and then choose classes or numbers. The file
/// is read only once, so it may be a pipe.
///
/// # Errors
/// As [`csv_numbers`], and [`ReadError::Content`] if a column named in `without` does not exist; a
/// target may be any text.
pub fn csv_texts<F: Scalar>(
    path: impl AsRef<Path>,
    target: &str,
    without: &[impl AsRef<str>],
) -> Result<Table<F, Texts>> {
    let path = path.as_ref();
    let Table { columns, x, y: texts, lines } =
        table(path, |names| all_but(path, names, target, without), |text| Ok(text.to_owned()))?;
    let y = Texts { path: path.to_owned(), column: target.to_owned(), lines: lines.clone(), texts };
    Ok(Table { columns, x, y, lines })
}

/// Reads the columns of a CSV file that a trained network needs: its features, in its order, and
/// `target`, if the file has it. Other columns are ignored. `read` turns a text of the target into
/// a value or says what was expected, as [`number`] and [`class_of`] do.
///
/// # Errors
/// As [`csv_numbers`], for these columns; [`ReadError::Content`] if a feature does not exist.
pub fn csv_columns<F: Scalar, T>(
    path: impl AsRef<Path>,
    features: &[impl AsRef<str>],
    target: &str,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Option<Vec<T>>>> {
    let path = path.as_ref();
    let choose = |names: &[String]| {
        let found = features.iter().map(|feature| find(path, names, feature.as_ref()));
        let features = found.collect::<Result<_>>()?;
        Ok(ChosenColumns { features, target: names.iter().position(|name| name == target) })
    };
    let Table { columns, x, y, lines } = table(path, choose, read)?;
    // There is at least one row, so without values there is no such column.
    Ok(Table { columns, x, y: (!y.is_empty()).then_some(y), lines })
}

/// The finite number that a text stands for, rounded once to F.
///
/// # Errors
/// What was expected, if it is not one.
pub fn number<F: Scalar>(text: &str) -> std::result::Result<F, &'static str> {
    let number = F::from_f64(text.parse().map_err(|_| "a number")?);
    if number.is_finite() { Ok(number) } else { Err("a finite number") }
}

/// A CSV file as texts, for a caller that decides by them what each column is.
#[derive(Debug, Clone)]
pub struct TextTable {
    path: PathBuf,
    columns: Vec<String>,
    /// The fields of a row in one buffer.
    rows: Vec<ByteRecord>,
    lines: Vec<usize>,
}

/// Reads a CSV file with a line of column names, of which every field is kept as text. `separator`
/// stands between fields; without it, it is found as [`csv_numbers`] finds it.
///
/// # Errors
/// As [`csv_numbers`] where the file is no table of texts: [`ReadError::Line`] for a row of another
/// length, a name that occurs twice, text that is not UTF-8, and quotes that do not enclose a
/// field; [`ReadError::Content`] for a file without rows, and for a separator that cannot be one.
pub fn csv_table(path: impl AsRef<Path>, separator: Option<char>) -> Result<TextTable> {
    let path = path.as_ref();
    let byte = |separator: char| match u8::try_from(separator) {
        Ok(byte) if byte.is_ascii() && !b"\"\r\n\0".contains(&byte) => Ok(byte),
        _ => Err(content(
            path,
            "separator",
            "an ASCII character that is no quote and ends no line",
            format!("{separator:?}"),
        )),
    };
    let separator = separator.map(byte).transpose()?;
    let bytes = csv_rows::read(path)?;
    let mut reader = Rows::new(path, &bytes, separator)?;
    let columns = reader.names()?;
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    while reader.next_row(&columns)? {
        (0..columns.len()).try_for_each(|i| reader.text(&columns, i).map(drop))?;
        rows.push(reader.record.clone());
        lines.push(reader.line);
    }
    if lines.is_empty() {
        return Err(content(path, "rows", "at least one", "none"));
    }
    Ok(TextTable { path: path.to_owned(), columns, rows, lines })
}

impl TextTable {
    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The line of the file at which each row begins, counted from 1.
    #[must_use]
    pub fn lines(&self) -> &[usize] {
        &self.lines
    }

    /// The index of the column of this name.
    ///
    /// # Errors
    /// [`ReadError::Content`] with the names that there are, if there is no such column.
    pub fn column(&self, name: &str) -> Result<usize> {
        find(&self.path, &self.columns, name)
    }

    /// The text of a field, without the quotes and blanks around it.
    ///
    /// # Panics
    /// If there is no such row or column.
    #[must_use]
    pub fn text(&self, row: usize, column: usize) -> &str {
        str::from_utf8(&self.rows[row][column]).expect("checked when it was read")
    }

    /// An error that says what was expected in a field, with file, line and column.
    ///
    /// # Panics
    /// If there is no such row or column.
    #[must_use]
    pub fn error(&self, row: usize, column: usize, expected: &str) -> ReadError {
        ReadError::Line {
            path: self.path.clone(),
            line: self.lines[row],
            column: Some(self.columns[column].clone()),
            expected: expected.to_owned(),
            found: quoted(self.text(row, column)),
        }
    }
}

/// A function that maps `names[i]` to the label i, and any other text to an error.
pub fn class_of(names: &[impl AsRef<str>]) -> impl Fn(&str) -> std::result::Result<usize, &'static str> {
    let numbers: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_ref(), i)).collect();
    move |text| numbers.get(text).copied().ok_or("a known class")
}

/// The indices of the columns that are read.
struct ChosenColumns {
    features: Vec<usize>,
    target: Option<usize>,
}

/// The index of a column.
fn find(path: &Path, names: &[String], name: &str) -> Result<usize> {
    names
        .iter()
        .position(|other| other == name)
        .ok_or_else(|| content(path, "column", quoted(name), names.iter().map(quoted).collect::<Vec<_>>().join(", ")))
}

/// All columns as features, but the target and those named in `without`.
fn all_but(path: &Path, names: &[String], target: &str, without: &[impl AsRef<str>]) -> Result<ChosenColumns> {
    let at = find(path, names, target)?;
    let mut out: Vec<usize> = without.iter().map(|name| find(path, names, name.as_ref())).collect::<Result<_>>()?;
    out.push(at);
    let features: Vec<usize> = (0..names.len()).filter(|i| !out.contains(i)).collect();
    if features.is_empty() {
        return Err(content(path, "columns", format!("features beside {}", quoted(target)), "none"));
    }
    if let Some(nameless) = features.iter().find(|&&i| names[i].is_empty()) {
        let found = format!(
            "none for column {}; is it an index that pandas wrote? to_csv(…, index=False) leaves it out",
            nameless + 1
        );
        return Err(content(path, "columns", "a name for each", found));
    }
    Ok(ChosenColumns { features, target: Some(at) })
}

/// Reads a table of the columns that `choose` picks from the names. `read` turns a text of the
/// target into a value, or says what was expected.
fn table<F: Scalar, T>(
    path: &Path,
    choose: impl FnOnce(&[String]) -> Result<ChosenColumns>,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Vec<T>>> {
    let bytes = csv_rows::read(path)?;
    let mut rows = Rows::new(path, &bytes, None)?;
    let columns = rows.names()?;
    let ChosenColumns { features, target } = choose(&columns)?;

    let (mut x, mut y, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    while rows.next_row(&columns)? {
        let refused = |i: usize, expected| rows.error(Some(&columns[i]), expected, quoted(&rows.record[i]));
        for &i in &features {
            x.push(number(rows.text(&columns, i)?).map_err(|expected| refused(i, expected))?);
        }
        if let Some(i) = target {
            y.push(read(rows.text(&columns, i)?).map_err(|expected| refused(i, expected))?);
        }
        lines.push(rows.line);
    }
    if lines.is_empty() {
        return Err(content(path, "rows", "at least one", "none"));
    }
    let x = samples(path, &[lines.len(), features.len()], false, x)?;
    Ok(Table { columns: features.iter().map(|&i| columns[i].clone()).collect(), x, y, lines })
}
