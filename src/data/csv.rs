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
    /// The features, a sample a row.
    pub x: Array2<F>,
    /// The target.
    pub y: Y,
    /// The line of the file that each row begins in, counted from 1: for what is found to be wrong
    /// with a row later.
    pub lines: Vec<usize>,
}

/// A target that is one of some classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The classes' names: label i stands for the i-th.
    pub names: Vec<String>,
    /// The samples' labels.
    pub labels: Array1<usize>,
}

/// The classes that occur among labels, in the order of their numbers: names are these numbers'
/// texts, and the labels are numbered anew from 0, without gaps. A network needs an output for each
/// class that occurs, not for each number up to the largest.
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

/// A target as text, which may become classes or numbers once it is known which of them it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    path: PathBuf,
    column: String,
    /// The line of the file that each row begins in.
    lines: Vec<usize>,
    texts: Vec<String>,
}

impl Texts {
    /// The text of each row.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.texts
    }

    /// As numbers, of shape (n, 1).
    ///
    /// # Errors
    /// [`ReadError::Line`] for the first that is no finite number.
    pub fn numbers<F: Scalar>(&self) -> Result<Array2<F>> {
        let read = |(row, text): (usize, &String)| number(text).map_err(|expected| self.error(row, expected));
        let numbers: Vec<F> = self.texts.iter().enumerate().map(read).collect::<Result<_>>()?;
        samples(&self.path, &[numbers.len()], false, numbers)
    }

    /// As classes. Sorted (by value if all are whole numbers, else as text), they are numbered from
    /// 0; files with other classes give other numbers.
    ///
    /// # Errors
    /// [`ReadError::Line`] for the first that is empty.
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

    /// That something else belongs into a row of it, with file, line and column.
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

/// A CSV file with a line of column names, numbers in all columns; the column `target` becomes y,
/// of shape (n, 1).
///
/// Fields are separated by commas and may stand in double quotes, as RFC 4180 has it; blanks around
/// them do not count, nor do empty lines.
///
/// # Errors
/// [`ReadError::Line`] for what is no finite number, a row of another length, a name that occurs
/// twice, text that is not UTF-8, and quotes that do not enclose a field; [`ReadError::Content`]
/// for a file without that column, without another, with one that has no name, or without rows.
pub fn csv_numbers<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Array2<F>>> {
    let path = path.as_ref();
    let Table { columns, x, y, lines } = table(path, |names| all_but(path, names, target, &[""; 0]), number::<F>)?;
    Ok(Table { columns, x, y: samples(path, &[y.len()], false, y)?, lines })
}

/// A CSV file with a line of column names, numbers in all columns but `target`, whose texts are the
/// [classes](Texts::classes).
///
/// # Errors
/// As [`csv_numbers`]; a target may be any text but the empty one.
pub fn csv_classes<F: Scalar>(path: impl AsRef<Path>, target: &str) -> Result<Table<F, Classes>> {
    let Table { columns, x, y, lines } = csv_texts(path, target, &[""; 0])?;
    Ok(Table { columns, x, y: y.classes()?, lines })
}

/// A CSV file with a line of column names, numbers in all columns but `target` and those that are
/// left out: `without` names these, and `""` is the name of the index that pandas writes. The
/// target stays text, for a caller that decides by it whether there are classes or numbers to
/// learn: the file is read once, so that it may be a pipe.
///
/// # Errors
/// As [`csv_numbers`], and [`ReadError::Content`] if there is none of a name in `without`; a target
/// may be any text.
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

/// Some columns of a CSV file with a line of column names, as a network that was trained before
/// needs them: its features, in their order, and `target`, if the file has it. What stands in other
/// columns does not matter. `read` makes a value of the target's text or says what belongs there,
/// as [`number`] and [`class_of`] do.
///
/// # Errors
/// As [`csv_numbers`], for these columns; one of the features that is not there is a
/// [`ReadError::Content`].
pub fn csv_columns<F: Scalar, T>(
    path: impl AsRef<Path>,
    features: &[impl AsRef<str>],
    target: &str,
    read: impl Fn(&str) -> std::result::Result<T, &'static str>,
) -> Result<Table<F, Option<Vec<T>>>> {
    let path = path.as_ref();
    let choose = |names: &[String]| {
        let found = features.iter().map(|feature| find(path, names, feature.as_ref()));
        Ok((found.collect::<Result<_>>()?, names.iter().position(|name| name == target)))
    };
    let Table { columns, x, y, lines } = table(path, choose, read)?;
    // There are rows, so without targets there is no such column.
    Ok(Table { columns, x, y: (!y.is_empty()).then_some(y), lines })
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

/// Where the features and the target stand.
type Chosen = (Vec<usize>, Option<usize>);

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

fn all_but(path: &Path, names: &[String], target: &str, without: &[impl AsRef<str>]) -> Result<Chosen> {
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
    Ok((features, Some(at)))
}

/// Line ends in a part of the text: \n, \r\n, or \r alone.
fn line_ends(bytes: &[u8], part: Range<usize>) -> usize {
    part.filter(|&i| bytes[i] == b'\n' || bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n')).count()
}

fn line_error(path: &Path, line: usize, column: Option<&str>, expected: &str, found: String) -> ReadError {
    let column = column.map(str::to_owned);
    ReadError::Line { path: path.to_owned(), line, column, expected: expected.to_owned(), found }
}

/// Refuses what the csv crate makes something of, though it is most likely a mistake: a quote that
/// never closes would make one field of the whole rest of the file.
fn check_quotes(path: &Path, bytes: &[u8]) -> Result<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        /// After a quote in a quoted field: the end of it, or the first of two that stand for one.
        Quote,
        /// In blanks after it.
        Behind,
    }
    let mut state = At::Start;
    // Where the last quoted field begins.
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
            (At::Quote | At::Behind, b' ' | b'\t') => At::Behind,
            (At::Quote | At::Behind, _) => {
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

/// The rows of a file, one after the other.
struct Rows<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    reader: csv::Reader<&'a [u8]>,
    record: ByteRecord,
    /// Where the record begins, and the line that this is in.
    at: usize,
    line: usize,
}

impl<'a> Rows<'a> {
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        check_quotes(path, bytes)?;
        // Lengths of rows are checked by the caller, for an error that knows the line.
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(bytes);
        Ok(Self { path, bytes, reader, record: ByteRecord::new(), at: 0, line: 1 })
    }

    fn next(&mut self) -> Result<bool> {
        let more = self.reader.read_byte_record(&mut self.record).map_err(|error| io_error(self.path)(error.into()))?;
        // The reader counts lines by \n alone, and its position stands before blank lines and
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

/// `choose` picks from the columns' names; `read` makes a target of a text, or says what was
/// expected.
fn table<F: Scalar, T>(
    path: &Path,
    choose: impl FnOnce(&[String]) -> Result<Chosen>,
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
    let (features, target) = choose(&columns)?;

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
