//! The rows of a CSV file, each with its line, and what separates their fields.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::{ReadError, Result, content, io_error, quoted};

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
fn check_quotes(path: &Path, bytes: &[u8], separator: u8) -> Result<()> {
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
            (_, b'\r' | b'\n') => At::Start,
            (_, byte) if byte == separator => At::Start,
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

/// The separators that are looked for, the usual one first.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The separator of a file: what its first line names, as in `sep=;`; otherwise the one that stands
/// as often in the line of names as in the line after it, or else the most frequent one of the line
/// of names. Separators within quotes do not count.
fn separator_of(bytes: &[u8]) -> u8 {
    if let Some(named) = named_separator(bytes) {
        return named;
    }
    let mut lines = unquoted_lines(bytes);
    let (names, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let count = |line: &[u8], separator: u8| line.iter().filter(|&&byte| byte == separator).count();
    let rank = |separator: u8| {
        let found = count(&names, separator);
        (found > 0 && found == count(&row, separator), found)
    };
    // Of equals, the first.
    SEPARATORS.into_iter().rev().max_by_key(|&separator| rank(separator)).unwrap_or(b',')
}

/// The separator that Excel's first line names.
fn named_separator(bytes: &[u8]) -> Option<u8> {
    match bytes.strip_prefix(b"sep=")? {
        &[separator] | &[separator, b'\r' | b'\n', ..] if SEPARATORS.contains(&separator) => Some(separator),
        _ => None,
    }
}

/// The lines that are not empty, without what is quoted in them.
fn unquoted_lines(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut bytes = bytes.iter();
    let mut quoted = false;
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        for &byte in bytes.by_ref() {
            match byte {
                b'"' => quoted = !quoted,
                b'\r' | b'\n' if !quoted && !line.is_empty() => return Some(line),
                b'\r' | b'\n' => {}
                _ if quoted => {}
                _ => line.push(byte),
            }
        }
        (!line.is_empty()).then_some(line)
    })
}

/// The bytes of a file, without a mark of their order.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(path).map_err(io_error(path))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(content(path, "file", "UTF-8", "UTF-16"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// A reader of the rows of a file, which knows the line of each.
pub(crate) struct Rows<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    reader: csv::Reader<&'a [u8]>,
    pub(crate) record: ByteRecord,
    /// The position at which the record begins.
    at: usize,
    /// The line of that position.
    pub(crate) line: usize,
}

impl<'a> Rows<'a> {
    /// A reader of these bytes, whose fields are separated by this byte, or by the one that is
    /// found.
    pub(crate) fn new(path: &'a Path, bytes: &'a [u8], separator: Option<u8>) -> Result<Self> {
        let separator = separator.unwrap_or_else(|| separator_of(bytes));
        check_quotes(path, bytes, separator)?;
        let mut builder = ReaderBuilder::new();
        // The caller checks the lengths of rows, because its error names the line.
        let reader = builder.has_headers(false).flexible(true).trim(Trim::All).delimiter(separator).from_reader(bytes);
        let mut rows = Self { path, bytes, reader, record: ByteRecord::new(), at: 0, line: 1 };
        if named_separator(bytes) == Some(separator) {
            rows.next()?;
        }
        Ok(rows)
    }

    /// The names of the columns, which the first record has.
    pub(crate) fn names(&mut self) -> Result<Vec<String>> {
        if !self.next()? {
            return Err(content(self.path, "file", "a line of column names", "an empty file"));
        }
        let (mut columns, mut names) = (Vec::new(), BTreeSet::new());
        for name in &self.record {
            let name = str::from_utf8(name).map_err(|_| self.error(None, "UTF-8", quoted(name)))?.to_owned();
            if !names.insert(name.clone()) {
                return Err(self.error(Some(&name), "a name for one column", "it twice".to_owned()));
            }
            columns.push(name);
        }
        Ok(columns)
    }

    /// Reads the next record, which must have a field for each column. Returns whether there is
    /// one.
    pub(crate) fn next_row(&mut self, columns: &[String]) -> Result<bool> {
        let more = self.next()?;
        if more && self.record.len() != columns.len() {
            let expected = format!("{} fields, as many as column names", columns.len());
            return Err(self.error(None, &expected, self.record.len().to_string()));
        }
        Ok(more)
    }

    /// The text of a field.
    pub(crate) fn text(&self, columns: &[String], i: usize) -> Result<&str> {
        str::from_utf8(&self.record[i]).map_err(|_| self.error(Some(&columns[i]), "UTF-8", quoted(&self.record[i])))
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

    pub(crate) fn error(&self, column: Option<&str>, expected: &str, found: String) -> ReadError {
        line_error(self.path, self.line, column, expected, found)
    }
}
