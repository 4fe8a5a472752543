//! A table's columns as inputs: numbers as they are, texts as an input for each, and what stands
//! for a missing value. All of it is chosen in training and remembered with the checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use gemmprop::data::{self, ReadError, TextTable};
use ndarray::{Array2, ArrayViewMut1};
use serde::{Deserialize, Serialize};

use crate::arguments::{Source, Train};
use crate::guess::{has_decimal_comma, is_missing};
use crate::inputs::Numbers;
use crate::message::{Result, counted, quoted, short};
use crate::origin::Origin;
use crate::rows::{Answers, Rows};
use crate::values::Missing;

/// How a column becomes inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Encoding {
    /// One input. Where the number is missing, it is the mean; without one, that is refused.
    Number { mean: Option<f64> },
    /// An input for each of these texts: 1 where it stands, otherwise 0. Where there is none, these
    /// shares; without them, that is refused.
    OneHot { texts: Vec<String>, shares: Option<Vec<f64>> },
}

/// The columns of a table that a network reads, and how.
#[derive(Debug, Clone)]
pub(crate) struct Inputs<'a> {
    pub(crate) columns: &'a [String],
    pub(crate) encodings: &'a [Encoding],
}

impl Encoding {
    /// The number of inputs.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Number { .. } => 1,
            Self::OneHot { texts, .. } => texts.len(),
        }
    }

    /// The encoding of numbers, with the mean over these rows if missing ones are to become it.
    fn of_numbers(table: &TextTable, at: usize, rows: &[usize], missing: Missing) -> Result<Self> {
        if missing == Missing::Refuse {
            return Ok(Self::Number { mean: None });
        }
        let there = rows.iter().filter(|&&row| !is_missing(table.text(row, at)));
        let numbers = there.map(|&row| read_number(table, row, at, missing)).collect::<Result<Vec<f64>>>()?;
        if numbers.is_empty() {
            return Err(no_value(table, at, "number"));
        }
        // Each share alone, so that no sum overflows.
        let count = numbers.len() as f64;
        Ok(Self::Number { mean: Some(numbers.iter().map(|number| number / count).sum()) })
    }

    /// The encoding of the texts of all rows, with their shares of these rows if missing ones are
    /// to become them.
    fn of_texts(table: &TextTable, at: usize, rows: &[usize], missing: Missing) -> Result<Self> {
        let count = |rows: &mut dyn Iterator<Item = usize>| {
            let mut counts = BTreeMap::new();
            let texts = rows.map(|row| table.text(row, at)).filter(|text| !text.is_empty());
            texts.for_each(|text| *counts.entry(text).or_insert(0_usize) += 1);
            counts
        };
        let (all, chosen) = (count(&mut (0..table.lines().len())), count(&mut rows.iter().copied()));
        let there: usize = chosen.values().sum();
        if there == 0 {
            return Err(no_value(table, at, "text"));
        }
        let share = |text: &&str| chosen.get(text).map_or(0.0, |&count| count as f64 / there as f64);
        let shares = (missing == Missing::Mean).then(|| all.keys().map(share).collect());
        Ok(Self::OneHot { texts: all.into_keys().map(str::to_owned).collect(), shares })
    }

    /// Writes the inputs of one row.
    fn write(&self, table: &TextTable, row: usize, at: usize, mut inputs: ArrayViewMut1<f64>) -> Result {
        let text = table.text(row, at);
        match self {
            Self::Number { mean: Some(mean) } if is_missing(text) => inputs[0] = *mean,
            Self::Number { mean } => {
                let missing = if mean.is_some() { Missing::Mean } else { Missing::Refuse };
                inputs[0] = read_number(table, row, at, missing)?;
            }
            Self::OneHot { shares: Some(shares), .. } if text.is_empty() => {
                inputs.iter_mut().zip(shares).for_each(|(input, &share)| *input = share);
            }
            Self::OneHot { texts, .. } => match texts.binary_search_by(|known| known.as_str().cmp(text)) {
                Ok(known) => inputs[known] = 1.0,
                Err(_) => {
                    let known = counted(texts.len(), "text");
                    let error = table.error(row, at, &format!("one of the {known} that are known"));
                    let cure = if text.is_empty() { "; --missing mean takes a row without one" } else { "" };
                    return Err(format!("{error}{cure}").into());
                }
            },
        }
        Ok(())
    }
}

/// The number of a field; the error says what helps.
fn read_number(table: &TextTable, row: usize, at: usize, missing: Missing) -> Result<f64> {
    let text = table.text(row, at);
    data::number(text).map_err(|expected| {
        let name = &table.columns()[at];
        if has_decimal_comma(text) {
            return table.error(row, at, &format!("{expected} with a decimal point")).into();
        }
        let cure = match missing {
            Missing::Refuse if is_missing(text) => {
                "--missing mean takes the column's mean where it has none".to_owned()
            }
            _ => format!(
                "--drop {name:?} leaves the column out, and --one-hot {name:?} makes an input of each of its texts"
            ),
        };
        format!("{}; {cure}", table.error(row, at, expected)).into()
    })
}

/// The place of a column; the error says what helps where the whole line was taken for one name.
fn column(table: &TextTable, name: &str) -> Result<usize> {
    table.column(name).map_err(|error| match table.columns() {
        [_] => format!("{error}; --separator tells what separates the fields").into(),
        _ => error.into(),
    })
}

fn no_value(table: &TextTable, at: usize, of: &str) -> Box<dyn std::error::Error> {
    let name = &table.columns()[at];
    format!("column {name:?}: expected a {of} in a row that is trained on, found none; --drop {name:?} leaves it out")
        .into()
}

impl Inputs<'_> {
    /// The encoding of each column; without any, all of them are numbers.
    fn encoding(&self, column: usize) -> &Encoding {
        self.encodings.get(column).unwrap_or(&Encoding::Number { mean: None })
    }

    /// The name of each input: of its column, and behind it of its text.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.columns.iter().enumerate().flat_map(|(i, name)| match self.encoding(i) {
            Encoding::Number { .. } => vec![name.clone()],
            Encoding::OneHot { texts, .. } => texts.iter().map(|text| format!("{name}={text}")).collect(),
        });
        names.collect()
    }

    /// A line for each column that says how it is read.
    pub(crate) fn described(&self) -> Vec<String> {
        let line = |(i, name): (usize, &String)| match self.encoding(i) {
            Encoding::Number { mean: None } => format!("column {name:?}: a number"),
            Encoding::Number { mean: Some(mean) } => {
                format!("column {name:?}: a number, {} where it is missing", short(*mean))
            }
            Encoding::OneHot { texts, shares } => {
                let missing = if shares.is_some() { "; the share of each where it is missing" } else { "" };
                format!("column {name:?}: one of {}{missing}", quoted(texts))
            }
        };
        self.columns.iter().enumerate().map(line).collect()
    }

    /// Whether each input is 1 or 0.
    pub(crate) fn indicators(&self) -> Vec<bool> {
        let of = |i: usize| vec![matches!(self.encoding(i), Encoding::OneHot { .. }); self.encoding(i).width()];
        (0..self.columns.len()).flat_map(of).collect()
    }

    /// The rows of a table as inputs, with their answers if it has the target.
    pub(crate) fn rows(&self, path: &Path, table: &TextTable, target: &str) -> Result<Rows> {
        let found = self.columns.iter().map(|name| column(table, name)).collect::<Result<Vec<_>>>()?;
        let names = self.names();
        let mut x = Array2::zeros((table.lines().len(), names.len()));
        for (row, mut inputs) in x.outer_iter_mut().enumerate() {
            let mut from = 0;
            for (column, &at) in found.iter().enumerate() {
                let to = from + self.encoding(column).width();
                self.encoding(column).write(table, row, at, inputs.slice_mut(ndarray::s![from..to]))?;
                from = to;
            }
        }
        let answers = table
            .column(target)
            .ok()
            .map(|at| Answers::Texts((0..table.lines().len()).map(|row| table.text(row, at).to_owned()).collect()));
        let (path, target, lines) = (path.to_owned(), target.to_owned(), table.lines().to_vec());
        Rows::new(Numbers::Memory(x), answers, Origin::Table { path, lines, columns: names, target })
    }
}

/// A table that is to be learned from.
#[derive(Debug)]
pub(crate) struct Learned<'a> {
    path: &'a Path,
    table: TextTable,
    target: &'a str,
    /// The names of the columns that are inputs.
    pub(crate) columns: Vec<String>,
}

impl<'a> Learned<'a> {
    /// A table with all columns but the target and those that are dropped as inputs.
    pub(crate) fn read(path: &'a Path, arguments: &'a Train) -> Result<Self> {
        let target = arguments.target.as_deref().ok_or("--csv needs --target")?;
        let Source { separator, drop, .. } = &arguments.source;
        let table = data::csv_table(path, *separator)?;
        for name in [target].into_iter().chain(drop.iter().chain(&arguments.one_hot).map(String::as_str)) {
            column(&table, name)?;
        }
        let columns: Vec<String> =
            table.columns().iter().filter(|name| *name != target && !drop.contains(name)).cloned().collect();
        let refused = |text: String| Err(format!("{}: {text}", path.display()).into());
        if columns.is_empty() {
            return refused(format!("columns: expected inputs beside {target:?}, found none"));
        }
        if let Some(name) = arguments.one_hot.iter().find(|name| !columns.contains(name)) {
            return refused(format!("--one-hot {name:?}: expected an input, found the target or a column left out"));
        }
        if columns.iter().any(String::is_empty) {
            return refused(
                "columns: expected a name for each, found one without; is it an index that pandas wrote? \
                 to_csv(…, index=False) leaves it out, and --drop \"\" does here"
                    .to_owned(),
            );
        }
        // The name that pandas gives the index of a table that it has written and read again.
        let index = |name: &&String| name.strip_prefix("Unnamed: ").is_some_and(|number| number.parse::<u32>().is_ok());
        if let Some(name) = columns.iter().find(index) {
            return refused(format!(
                "column {name:?}: expected a column to learn from, found the name of an index that pandas wrote; \
                 --drop {name:?} leaves it out"
            ));
        }
        Ok(Self { path, table, target, columns })
    }

    /// The number of rows.
    pub(crate) fn samples(&self) -> usize {
        self.table.lines().len()
    }

    /// How each column becomes inputs. Means and shares are those of the rows that are trained on.
    pub(crate) fn encodings(&self, arguments: &Train, rows: &[usize]) -> Result<Vec<Encoding>> {
        let encoding = |name: &String| {
            let at = self.table.column(name)?;
            let of = if arguments.one_hot.contains(name) { Encoding::of_texts } else { Encoding::of_numbers };
            of(&self.table, at, rows, arguments.missing)
        };
        let named = |error: Box<dyn std::error::Error>| match error.to_string() {
            text if text.starts_with("column ") => format!("{}: {text}", self.path.display()).into(),
            _ => error,
        };
        self.columns.iter().map(encoding).collect::<Result<_>>().map_err(named)
    }

    pub(crate) fn rows(&self, encodings: &[Encoding]) -> Result<Rows> {
        Inputs { columns: &self.columns, encodings }.rows(self.path, &self.table, self.target)
    }
}

/// A table for a network that has learned from these inputs: they are found by name, and columns
/// that are none of them, nor the target nor left out, are refused. Runs that have not recorded
/// what they left out ignore other columns.
pub(crate) fn known(source: &Source, inputs: &Inputs, target: &str, dropped: Option<&[String]>) -> Result<Rows> {
    let path = source.csv.as_deref().ok_or("expected --csv")?;
    let table = data::csv_table(path, source.separator)?;
    for name in &source.drop {
        if inputs.columns.contains(name) {
            return Err(format!("--drop {name:?}: expected a column that the run has not learned from").into());
        }
        column(&table, name)?;
    }
    let rows = inputs.rows(path, &table, target)?;
    let is_known = |name: &String| inputs.columns.contains(name) || name == target;
    if let Some(dropped) = dropped
        && let Some(name) = table
            .columns()
            .iter()
            .find(|name| !is_known(name) && !dropped.contains(name) && !source.drop.contains(name))
    {
        let what = "column";
        let (expected, found) = ("only those that the run has learned from".to_owned(), format!("{name:?}"));
        let error = ReadError::Content { path: path.to_owned(), what, expected, found };
        return Err(format!("{error}; --drop {name:?} leaves it out").into());
    }
    Ok(rows)
}
