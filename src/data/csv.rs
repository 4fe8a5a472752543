//! CSV with a line of column names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, Trim};
use ndarray::{Array1, Array2};

use super::{ReadError, Result, content, io_error, quoted, samples};
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
/// Fields are separated by commas and may be enclosed in double quotes, as in RFC 4180. Blanks
/// around fields and empty lines are ignored.
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
    names.iter().position(|other| other == name).ok_or_else(|| {
        let mut found = names.iter().map(quoted).collect::<Vec<_>>().join(", ");
        if let ([only], Some(separator)) =
            (names, [";", "\t"].into_iter().find(|&separator| names[0].contains(separator)))
            && !only.contains(',')
        {
            found += &format!(", one column: its parts are separated by {separator:?} instead of commas");
        }
        content(path, "column", quoted(name), found)
    })
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

/// The number of line ends in a range of the text: \n, \r\n, or \r alone.
fn line_ends(bytes: &[u8], range: Range<usize>) -> usize {
    range.filter(|&i| bytes[i] == b'\n' || bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n')).count()
}

fn line_error(path: &Path, line: usize, column: Option<&str>, expected: &str, found: String) -> ReadError {
    let column = column.map(str::to_owned);
    ReadError::Line { path: path.to_owned(), line, column, expected: expected.to_owned(), found }
}

/// Refuses misplaced quotes, which the csv crate accepts although they are most likely mistakes: a
/// quote that is never closed would make one field of the rest of the file.
fn check_quotes(path: &Path, bytes: &[u8]) -> Result<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        /// After a quote in a quoted field, which ends the field or is the first of an escaped
        /// pair.
        Quote,
        /// In blanks after the quote that ended a field.
        AfterQuoted,
    }
    let mut state = At::Start;
    // The position of the quote that opened the last quoted field.
    let mut opened = 0;
    let error = |at: usize, expected: &str, found: String| {
        Err(line_error(path, 1 + line_ends(bytes, 0..at), None, expected, found))
    };
    let rest = |at: usize| {
        let end = bytes[at..].iter().position(|byte| b"\r\n".contains(byte)).map_or(bytes.len(), |end| at + end);
        quoted(&bytes[at..end])
    };
    for (at, &byte) in bytes.iter().enumerate() {
        state = match (state, byte) {
            (_, 0) => return error(at, "text", "a byte of 0".to_owned()),
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) => At::Quoted,
            (At::Quote, b'"') => At::Quoted,
            (_, b',' | b'\r' | b'\n') => At::Start,
            (At::Start, b'"') => {
                opened = at;
                At::Quoted
            }
            (At::Quote | At::AfterQuoted, b' ' | b'\t') => At::AfterQuoted,
            (At::Quote | At::AfterQuoted, _) => {
                return error(opened, "a field that ends with its second quote", format!("{} behind it", rest(at)));
            }
            (_, b'"') => {
                return error(at, "quotes around a whole field or none, and two in it for one", rest(at));
            }
            _ => At::Plain,
        };
    }
    if state == At::Quoted {
        return error(
            opened,
            "a quote at the end of a field that begins with one",
            format!("no other after {}", rest(opened)),
        );
    }
    Ok(())
}

/// A reader of the rows of a file, which knows the line of each.
struct Rows<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    reader: csv::Reader<&'a [u8]>,
    record: ByteRecord,
    /// The position at which the record begins.
    at: usize,
    /// The line of that position.
    line: usize,
}

impl<'a> Rows<'a> {
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        check_quotes(path, bytes)?;
        // The caller checks the lengths of rows, because its error names the line.
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(bytes);
        Ok(Self { path, bytes, reader, record: ByteRecord::new(), at: 0, line: 1 })
    }

    /// Reads the next record. Returns whether there is one.
    fn next(&mut self) -> Result<bool> {
        let more = self.reader.read_byte_record(&mut self.record).map_err(|error| io_error(self.path)(error.into()))?;
        // The reader counts only \n as a line end, and its position is before blank lines and
        // between \r and \n.
        let start =
            self.record.position().map_or(0, |position| position.byte() as usize).clamp(self.at, self.bytes.len());
        let blank = self.bytes[start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        self.line += line_ends(self.bytes, self.at..start + blank);
        self.at = start + blank;
        Ok(more)
    }

    fn error(&self, column: Option<&str>, expected: &str, found: String) -> ReadError {
        line_error(self.path, self.line, column, expected, found)
    }
}

/// Reads a table of the columns that `choose` picks from the names. `read` turns a text of the
/// target into a value, or says what was expected.
fn table<F: Scalar, T>(
    path: &Path,
    choose: impl FnOnce(&[String]) -> Result<ChosenColumns>,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Vec<T>>> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(content(path, "file", "UTF-8", "UTF-16"));
    }
    let mut rows = Rows::new(path, bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))?;
    if !rows.next()? {
        return Err(content(path, "file", "a line of column names", "an empty file"));
    }
    let (mut columns, mut names) = (Vec::new(), BTreeSet::new());
    for name in &rows.record {
        let name = str::from_utf8(name).map_err(|_| rows.error(None, "UTF-8", quoted(name)))?.to_owned();
        if !names.insert(name.clone()) {
            return Err(rows.error(Some(&name), "a name for one column", "it twice".to_owned()));
        }
        columns.push(name);
    }
    let ChosenColumns { features, target } = choose(&columns)?;

    let (mut x, mut y, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    while rows.next()? {
        let record = &rows.record;
        if record.len() != columns.len() {
            let expected = format!("{} fields, as many as column names", columns.len());
            return Err(rows.error(None, &expected, record.len().to_string()));
        }
        let refused = |i: usize, expected| rows.error(Some(&columns[i]), expected, quoted(&record[i]));
        let text = |i: usize| str::from_utf8(&record[i]).map_err(|_| refused(i, "UTF-8"));
        for &i in &features {
            x.push(number(text(i)?).map_err(|expected| refused(i, expected))?);
        }
        if let Some(i) = target {
            y.push(read(text(i)?).map_err(|expected| refused(i, expected))?);
        }
        lines.push(rows.line);
    }
    if lines.is_empty() {
        return Err(content(path, "rows", "at least one", "none"));
    }
    let x = samples(path, &[lines.len(), features.len()], false, x)?;
    Ok(Table { columns: features.iter().map(|&i| columns[i].clone()).collect(), x, y, lines })
}
