//! All rows of a source: numbers for the network, and answers as the file has them.

use std::borrow::Cow;
use std::error::Error;
use std::path::Path;

use bytesize::ByteSize;
use gemmprop::data::{self, IdxFiles, ImageFiles, ReadError};
use ndarray::{Array1, Array2, Axis};

use crate::guess::{Guess, guess, has_decimal_comma, number};
use crate::inputs::Numbers;
use crate::message::{Result, counted};
use crate::origin::Origin;
use crate::values::LossKind;

/// All rows of a source.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) x: Numbers,
    pub(crate) answers: Option<Answers>,
    pub(crate) origin: Origin,
}

/// Targets as the file has them.
#[derive(Debug)]
pub(crate) enum Answers {
    Texts(Vec<String>),
    Numbers {
        numbers: Array2<f64>,
        /// Whether their type has whole numbers only.
        whole: bool,
    },
}

impl Rows {
    /// Refuses other than one answer for each row, and numbers in memory that are not finite.
    pub(crate) fn new(x: Numbers, answers: Option<Answers>, origin: Origin) -> Result<Self> {
        if x.columns() == 0 {
            return Err(format!("{origin}: expected columns to learn from, found none").into());
        }
        if let Some(found) = answers.as_ref().map(Answers::len)
            && found != x.rows()
        {
            let (expected, targets) = (counted(x.rows(), "row"), counted(found, "target"));
            return Err(format!(
                "{}: expected a target for each of the {expected} of {origin}, found {targets}",
                origin.targets()
            )
            .into());
        }
        let rows = Self { x, answers, origin };
        if let Numbers::Memory(x) = &rows.x {
            rows.check_finite(x, |row| row)?;
        }
        Ok(rows)
    }

    /// Some rows of the inputs, all of them finite.
    pub(crate) fn part(&self, rows: &[usize]) -> Result<Array2<f64>> {
        let x = self.x.part(rows)?;
        if let Numbers::File(_) = self.x {
            self.check_finite(&x, |row| rows[row])?;
        }
        Ok(x)
    }

    fn check_finite(&self, x: &Array2<f64>, row: impl Fn(usize) -> usize) -> Result {
        match x.indexed_iter().find(|(_, x)| !x.is_finite()) {
            Some(((at, column), &x)) => Err(self.not_finite(row(at), column, x)),
            None => Ok(()),
        }
    }

    /// The error for an input that is not finite.
    pub(crate) fn not_finite(&self, row: usize, column: usize, x: f64) -> Box<dyn Error> {
        format!("{}: expected a finite number, found {x}", self.origin.x(row, column)).into()
    }

    /// The images of a folder, and those of its test set if it has one. Images that would take more
    /// memory than `most` are read a part at a time.
    pub(crate) fn images(folder: &Path, most: ByteSize) -> Result<(Self, Option<Self>)> {
        let rows = |ImageFiles { images, labels }: ImageFiles, part| {
            let x = Numbers::of(&images, most, |path| data::idx_images(path))?;
            let numbers = data::idx_labels(&labels)?.mapv(|label| label as f64).insert_axis(Axis(1));
            let (expected, found) = (format!("{}, one for each image", x.rows()), numbers.nrows());
            if found != x.rows() {
                let found = found.to_string();
                return Err(ReadError::Content { path: labels, what: "labels", expected, found }.into());
            }
            let origin = Origin::Images { folder: folder.to_owned(), part };
            Self::new(x, Some(Answers::Numbers { numbers, whole: true }), origin)
        };
        let IdxFiles { train, test } = data::idx_files(folder)?;
        let part = if test.is_some() { "training " } else { "" };
        Ok((rows(train, part)?, test.map(|test| rows(test, "test ")).transpose()?))
    }

    /// Arrays of NumPy. Inputs that would take more memory than `most` are read a part at a time.
    pub(crate) fn arrays(x: &Path, targets: Option<&Path>, most: ByteSize) -> Result<Self> {
        let origin = Origin::Arrays { x: x.to_owned(), y: targets.map_or_else(Default::default, Path::to_owned) };
        let x = Numbers::of(x, most, |path| Ok(data::npy_any(path)?.numbers))?;
        let answers = targets.map(data::npy_any).transpose()?;
        let answers = answers.map(|array| Answers::Numbers { numbers: array.numbers, whole: array.whole });
        Self::new(x, answers, origin)
    }

    pub(crate) fn answers(&self) -> &Answers {
        self.answers.as_ref().expect("data to learn from have targets")
    }

    /// The class name of a row, if its answer can be a class.
    pub(crate) fn class(&self, row: usize) -> Option<Cow<'_, str>> {
        match self.answers() {
            Answers::Texts(texts) => Some(texts[row].as_str().into()).filter(|_| !texts[row].is_empty()),
            Answers::Numbers { numbers, .. } => {
                let number = numbers[(row, 0)];
                // Whole numbers from 2^53 on may have been rounded. Adding 0.0 removes the sign of
                // a zero.
                (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0)
                    .then(|| (number + 0.0).to_string().into())
            }
        }
    }

    /// The class of each row.
    pub(crate) fn classes(&self) -> Result<Vec<Cow<'_, str>>> {
        match self.answers() {
            Answers::Numbers { numbers, .. } if numbers.ncols() != 1 => {
                let (targets, found) = (self.origin.targets(), counted(numbers.ncols(), "number"));
                Err(format!("{targets}: expected one class for each row, found {found}").into())
            }
            _ => (0..self.x.rows()).map(|row| self.class(row).ok_or_else(|| self.refused(row, 0, "a class"))).collect(),
        }
    }

    /// The targets as numbers.
    pub(crate) fn numbers(&self) -> Result<Array2<f64>> {
        match self.answers() {
            Answers::Texts(texts) => {
                let number =
                    |(row, text): (usize, &String)| number(text).ok_or_else(|| self.refused(row, 0, "a number"));
                Ok(Array1::from(texts.iter().enumerate().map(number).collect::<Result<Vec<_>>>()?).insert_axis(Axis(1)))
            }
            Answers::Numbers { numbers, .. } => match numbers.indexed_iter().find(|(_, number)| !number.is_finite()) {
                Some(((row, column), _)) => Err(self.refused(row, column, "a finite number")),
                None => Ok(numbers.clone()),
            },
        }
    }

    /// The error for a target that is not what was expected.
    pub(crate) fn refused(&self, row: usize, column: usize, expected: &str) -> Box<dyn Error> {
        let found = match self.answers() {
            Answers::Texts(texts) => format!("{:?}", texts[row]),
            Answers::Numbers { numbers, .. } => numbers[(row, column)].to_string(),
        };
        format!("{}: expected {expected}, found {found}", self.origin.y(row, column)).into()
    }

    /// Rounds to f32, as older runs did before they standardised. Those do not standardise here, so
    /// the inputs of a file are rounded where they are read.
    pub(crate) fn round(&mut self) {
        if let Numbers::Memory(x) = &mut self.x {
            x.mapv_inplace(|x| f64::from(x as f32));
        }
        if let Some(Answers::Numbers { numbers, .. }) = &mut self.answers {
            numbers.mapv_inplace(|number| f64::from(number as f32));
        }
    }

    /// The loss for these targets and the reason for it, or an error that says what is doubtful
    /// about them.
    pub(crate) fn loss(&self) -> Result<(LossKind, String)> {
        let (origin, subject) = (&self.origin, self.origin.subject());
        let of_texts = |texts: &[Cow<str>]| match guess(texts) {
            Guess::Classes(classes) => Ok((LossKind::Softmax, format!("{subject} {}", counted(classes, "class")))),
            Guess::Numbers => Ok((LossKind::Squared, format!("{subject} numbers"))),
            Guess::Whole(values) => Ok((
                LossKind::Squared,
                format!("{subject} whole numbers of {} in {}", counted(values, "value"), counted(texts.len(), "row")),
            )),
            Guess::TooMany(found) => {
                let (targets, found, rows) = (origin.targets(), counted(found, "text"), counted(texts.len(), "row"));
                Err(format!(
                    "{targets}: expected classes, of 2 rows or more on average, found {found} in {rows}; if it is the \
                     column to learn, --loss softmax takes them all the same"
                )
                .into())
            }
            Guess::Odd(row) => {
                let (text, at) = (&texts[row], origin.y(row, 0));
                let point = if has_decimal_comma(text) { " with a decimal point" } else { "" };
                Err(format!(
                    "{at}: expected a number{point}, as it is a column of numbers, found {text:?}; mend it or leave the \
                     row out, or --loss softmax takes all texts of the column as classes"
                )
                .into())
            }
        };
        match self.answers() {
            Answers::Numbers { .. } if matches!(origin, Origin::Images { .. }) => {
                Ok((LossKind::Softmax, format!("{subject} labels")))
            }
            Answers::Texts(texts) => of_texts(&texts.iter().map(|text| text.as_str().into()).collect::<Vec<_>>()),
            Answers::Numbers { whole: false, .. } => {
                Ok((LossKind::Squared, format!("{subject} floating-point numbers")))
            }
            Answers::Numbers { numbers, .. } if numbers.ncols() != 1 => {
                Ok((LossKind::Squared, format!("{subject} {} for each row", counted(numbers.ncols(), "number"))))
            }
            Answers::Numbers { .. } => of_texts(&self.classes()?),
        }
    }
}

impl Answers {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers { numbers, .. } => numbers.nrows(),
        }
    }
}
