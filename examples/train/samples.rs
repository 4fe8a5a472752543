//! Samples from files in the form that the network reads, and what a run has to remember about
//! them.
//!
//! Each file is opened once, and its numbers are kept in f64 until they are standardised: if they
//! were rounded to f32 before, a column like 1700000000 + i would become constant.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Display;
use std::path::Path;

use gemmprop::data::{self, ReadError, Table};
use gemmprop::{Generator, Standardizer};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::arguments::{LossKind, Source, Train};
use crate::guess::{Guess, guess, has_decimal_comma, number};
use crate::origin::Origin;
use crate::report::counted;

/// What is learned. It is saved with each checkpoint and has all that `predict` and --resume need
/// besides the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) loss: LossKind,
    /// The name of each class i; empty if the target is a number.
    pub(crate) classes: Vec<String>,
    /// The names of the input columns of a CSV file, in order.
    pub(crate) columns: Vec<String>,
    pub(crate) target: Option<String>,
    /// How each input is standardised; empty if the inputs stay as they are. Absent in runs that
    /// began when the model standardised them, in f32.
    #[serde(default)]
    pub(crate) inputs: Option<Vec<Scale>>,
    /// How each target is standardised.
    pub(crate) scale: Vec<Scale>,
    pub(crate) validation: Option<f64>,
    pub(crate) seed: u64,
    /// Checksum of all numbers used for training and validation, by which a resumed run recognises
    /// them.
    pub(crate) checksum: u32,
}

/// Mean and deviation of a column.
type Scale = (f64, f64);

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Labels(Array1<usize>),
    Numbers(Array2<f64>),
}

/// All rows of a source.
#[derive(Debug)]
struct Rows {
    x: Array2<f64>,
    answers: Option<Answers>,
    origin: Origin,
}

/// Targets as the file has them.
#[derive(Debug)]
enum Answers {
    Texts(Vec<String>),
    Numbers {
        numbers: Array2<f64>,
        /// Whether their type has whole numbers only.
        whole: bool,
    },
}

/// Samples as the network reads them.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) x: Array2<f32>,
    /// The targets of all rows.
    pub(crate) y: Target,
}

/// Training data and a validation set, if there is one.
pub(crate) type Both = (Samples, Option<Samples>);

/// Samples to predict.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) x: Array2<f32>,
    /// The rows whose answers are known, and the answers; none if the data have no column of
    /// answers.
    pub(crate) known: Option<(Vec<usize>, Target)>,
    pub(crate) origin: Origin,
}

impl Target {
    pub(crate) fn labels(&self) -> Array2<usize> {
        match self {
            Self::Labels(y) => y.clone().insert_axis(Axis(1)),
            Self::Numbers(y) => y.mapv(|y| (y >= 0.5).into()),
        }
    }

    pub(crate) fn numbers(&self) -> Array2<f64> {
        match self {
            Self::Labels(y) => y.mapv(|label| label as f64).insert_axis(Axis(1)),
            Self::Numbers(y) => y.clone(),
        }
    }

    fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Labels(y) => Self::Labels(y.select(Axis(0), rows)),
            Self::Numbers(y) => Self::Numbers(y.select(Axis(0), rows)),
        }
    }
}

impl Rows {
    fn new(x: Array2<f64>, answers: Option<Answers>, origin: Origin) -> Result<Self> {
        if x.ncols() == 0 {
            return Err(format!("{origin}: expected columns to learn from, found none").into());
        }
        if let Some(found) = answers.as_ref().map(Answers::len)
            && found != x.nrows()
        {
            let (expected, targets) = (counted(x.nrows(), "row"), counted(found, "target"));
            return Err(format!(
                "{}: expected a target for each of the {expected} of {origin}, found {targets}",
                origin.targets()
            )
            .into());
        }
        match x.indexed_iter().find(|(_, x)| !x.is_finite()) {
            Some(((row, column), x)) => {
                Err(format!("{}: expected a finite number, found {x}", origin.x(row, column)).into())
            }
            None => Ok(Self { x, answers, origin }),
        }
    }

    /// The images of a folder, and those of its test set if it has one.
    fn images(folder: &Path) -> Result<(Self, Option<Self>)> {
        let rows = |images: data::Images<f64>, part| {
            let numbers = images.labels.mapv(|label| label as f64).insert_axis(Axis(1));
            let origin = Origin::Images { folder: folder.to_owned(), part };
            Self::new(images.x, Some(Answers::Numbers { numbers, whole: true }), origin)
        };
        let data::IdxFolder { train, test } = data::idx_folder(folder)?;
        let part = if test.is_some() { "training " } else { "" };
        Ok((rows(train, part)?, test.map(|test| rows(test, "test ")).transpose()?))
    }

    /// Arrays of NumPy.
    fn arrays(x: &Path, targets: Option<&Path>) -> Result<Self> {
        let origin = Origin::Arrays { x: x.to_owned(), y: targets.map_or_else(Default::default, Path::to_owned) };
        let x = data::npy_any(x)?.numbers;
        let answers = targets.map(data::npy_any).transpose()?;
        let answers = answers.map(|array| Answers::Numbers { numbers: array.numbers, whole: array.whole });
        Self::new(x, answers, origin)
    }

    fn answers(&self) -> &Answers {
        self.answers.as_ref().expect("data to learn from have targets")
    }

    /// The class name of a row, if its answer can be a class.
    fn class(&self, row: usize) -> Option<Cow<'_, str>> {
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
    fn classes(&self) -> Result<Vec<Cow<'_, str>>> {
        match self.answers() {
            Answers::Numbers { numbers, .. } if numbers.ncols() != 1 => {
                let (targets, found) = (self.origin.targets(), counted(numbers.ncols(), "number"));
                Err(format!("{targets}: expected one class for each row, found {found}").into())
            }
            _ => {
                (0..self.x.nrows()).map(|row| self.class(row).ok_or_else(|| self.refused(row, 0, "a class"))).collect()
            }
        }
    }

    /// The targets as numbers.
    fn numbers(&self) -> Result<Array2<f64>> {
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
    fn refused(&self, row: usize, column: usize, expected: &str) -> Box<dyn Error> {
        let found = match self.answers() {
            Answers::Texts(texts) => format!("{:?}", texts[row]),
            Answers::Numbers { numbers, .. } => numbers[(row, column)].to_string(),
        };
        format!("{}: expected {expected}, found {found}", self.origin.y(row, column)).into()
    }

    /// Rounds to f32, as older runs did before they standardised.
    fn round(&mut self) {
        self.x.mapv_inplace(|x| f64::from(x as f32));
        if let Some(Answers::Numbers { numbers, .. }) = &mut self.answers {
            numbers.mapv_inplace(|number| f64::from(number as f32));
        }
    }

    /// The loss for these targets and the reason for it, or an error that says what is doubtful
    /// about them.
    fn loss(&self) -> Result<(LossKind, String)> {
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

/// Rows to train on and rows to validate with; none where all rows of the first file are trained
/// on.
type Division = Option<(Vec<usize>, Vec<usize>)>;

/// The task and data of a new run. Reports the loss if it was chosen by the program.
pub(crate) fn first(arguments: &Train, say: impl Fn(String)) -> Result<(Task, Both)> {
    let Train { source, settings, .. } = arguments;
    let (train, test) = if let Some(path) = &source.csv {
        let target = arguments.target.as_deref().expect("required with --csv");
        (learned_table(path, target, &arguments.drop)?, None)
    } else if let Some(folder) = &source.idx {
        Rows::images(folder)?
    } else {
        let path = source.data.as_deref().expect("one of the three");
        (Rows::arrays(path, arguments.targets.as_deref())?, None)
    };
    let loss = match settings.loss {
        Some(loss) => loss,
        None => {
            let (loss, why) = train.loss()?;
            say(format!("loss: {}, as {why}; --loss chooses another", format!("{loss:?}").to_lowercase()));
            loss
        }
    };
    let mut task = Task {
        loss,
        classes: Vec::new(),
        columns: train.origin.names().to_vec(),
        target: arguments.target.clone(),
        inputs: Some(Vec::new()),
        scale: Vec::new(),
        validation: settings.validation,
        seed: settings.seed,
        checksum: 0,
    };
    if loss != LossKind::Squared {
        let mut classes = train.classes()?;
        if let Some(test) = &test {
            classes.extend(test.classes()?);
        }
        task.classes = in_order(classes);
        let (targets, found) = (train.origin.targets(), task.classes.len());
        if loss == LossKind::Logistic && found != 2 {
            return Err(format!(
                "{targets}: --loss logistic: expected 2 classes, found {found}; softmax takes any number"
            )
            .into());
        }
        if found < 2 {
            return Err(format!("{targets}: expected 2 classes or more, found 1: {:?}", task.classes[0]).into());
        }
    }
    let division = task.divide(train.x.nrows())?;
    let fitted = |numbers: ArrayView2<f64>, name: &dyn Fn(usize) -> String| -> Result<Vec<Scale>> {
        let chosen = division.as_ref().map(|(rows, _)| numbers.select(Axis(0), rows));
        let fitted = Standardizer::fit(chosen.as_ref().map_or(numbers, |chosen| chosen.view()));
        let fitted = fitted.map_err(|error| match error {
            gemmprop::Error::NotFinite { column, found, .. } => {
                format!("{}: expected a mean and a deviation that are finite, found {found}", name(column))
            }
            error => error.to_string(),
        })?;
        Ok(fitted.mean().iter().zip(fitted.factor()).map(|(&mean, &factor)| (mean, 1.0 / factor)).collect())
    };
    if arguments.standardizes() {
        task.inputs = Some(fitted(train.x.view(), &|column| train.origin.column(column))?);
        if loss == LossKind::Squared {
            task.scale = fitted(train.numbers()?.view(), &|_| train.origin.targets())?;
        }
    }
    let (both, checksum) = task.both(&train, test.as_ref(), division, say)?;
    task.checksum = checksum;
    Ok((task, both))
}

impl Task {
    /// The data of a resumed run, with a warning if they differ from those that it began with.
    pub(crate) fn again(&self, arguments: &Train, say: impl Fn(String)) -> Result<Both> {
        if let (Some(expected), Some(found)) = (&self.target, &arguments.target)
            && expected != found
        {
            return Err(format!("--target: expected {expected:?}, as the run began, found {found:?}").into());
        }
        let (train, test) = self.read(&arguments.source, arguments.targets.as_deref())?;
        if train.answers.is_none() {
            let target = self.target.as_ref();
            let target = target.map_or("targets".to_owned(), |target| format!("a column {target:?}"));
            return Err(format!("{}: expected {target} to learn from, found none", train.origin).into());
        }
        let division = self.divide(train.x.nrows())?;
        let (both, checksum) = self.both(&train, test.as_ref(), division, &say)?;
        if checksum != self.checksum {
            say("warning: these are not the samples that the run began with; it continues with them".to_owned());
        }
        Ok(both)
    }

    /// The samples to predict: the test set if the source has one.
    pub(crate) fn asked(&self, source: &Source) -> Result<Asked> {
        let (train, test) = self.read(source, None)?;
        let rows = test.unwrap_or(train);
        let known = rows.answers.is_some().then(|| self.known(&rows)).transpose()?;
        Ok(Asked { x: self.inputs(&rows, &(0..rows.x.nrows()).collect::<Vec<_>>())?, known, origin: rows.origin })
    }

    /// The rows in the form that this run uses, and a test set if the format has one. Targets are
    /// read if they are present.
    fn read(&self, source: &Source, targets: Option<&Path>) -> Result<(Rows, Option<Rows>)> {
        let (mut rows, mut test) = if let Some(path) = &source.csv {
            if self.columns.is_empty() {
                return Err("the run was not trained on a table: expected --data or --idx".into());
            }
            let target = self.target.as_deref().ok_or("the checkpoint's note names no target")?;
            (known_table(path, &self.columns, target)?, None)
        } else if !self.columns.is_empty() {
            return Err("the run was trained on a table: expected --csv, with the same columns".into());
        } else if let Some(folder) = &source.idx {
            Rows::images(folder)?
        } else {
            (Rows::arrays(source.data.as_deref().expect("one of the three"), targets)?, None)
        };
        if self.inputs.is_none() {
            for rows in [Some(&mut rows), test.as_mut()].into_iter().flatten() {
                rows.round();
            }
        }
        Ok((rows, test))
    }

    /// The target of each row. Every row has to have a valid answer.
    fn target_of(&self, rows: &Rows) -> Result<Target> {
        if self.loss == LossKind::Squared {
            return rows.numbers().map(Target::Numbers);
        }
        let label = label_of(&self.classes);
        let labels = rows
            .classes()?
            .into_iter()
            .enumerate()
            .map(|(row, class)| label(&class).ok_or_else(|| rows.refused(row, 0, "a known class")));
        labels.collect::<Result<_>>().map(Target::Labels)
    }

    /// The rows with a valid answer, and their answers.
    fn known(&self, rows: &Rows) -> Result<(Vec<usize>, Target)> {
        let all = 0..rows.x.nrows();
        if self.loss != LossKind::Squared {
            let label = label_of(&self.classes);
            let known = all.filter_map(|row| Some((row, label(&rows.class(row)?)?)));
            let (known, labels): (_, Vec<_>) = known.unzip();
            return Ok((known, Target::Labels(labels.into())));
        }
        match rows.answers() {
            Answers::Texts(texts) => {
                let (known, numbers): (_, Vec<_>) = all.filter_map(|row| Some((row, number(&texts[row])?))).unzip();
                Ok((known, Target::Numbers(Array1::from(numbers).insert_axis(Axis(1)))))
            }
            Answers::Numbers { .. } => Ok((all.collect(), Target::Numbers(rows.numbers()?))),
        }
    }

    /// Splits off the part for --validation, which depends on the seed alone.
    fn divide(&self, samples: usize) -> Result<Division> {
        let Some(part) = self.validation else { return Ok(None) };
        let kept = ((samples as f64 * part).round() as usize).max(1);
        if kept >= samples {
            let samples = counted(samples, "sample");
            return Err(format!("--validation {part}: of {samples}, none is left to train on").into());
        }
        let mut rows: Vec<usize> = (0..samples).collect();
        let mut generator = Generator::seed_from_u64(self.seed);
        // The stream of the library's own splits, which is not that of the shuffles or of the
        // weights.
        generator.set_stream(1);
        rows.shuffle(&mut generator);
        let validation = rows.split_off(samples - kept);
        Ok(Some((rows, validation)))
    }

    /// The training data, the validation data and the checksum of both. Without a division, the
    /// test set is used for validation.
    fn both(&self, train: &Rows, test: Option<&Rows>, division: Division, say: impl Fn(String)) -> Result<(Both, u32)> {
        let y = self.target_of(train)?;
        let (rows, validation) = match division {
            Some((rows, validation)) => (Some(rows), Some((train, y.clone(), Some(validation)))),
            None => (None, test.map(|test| Ok::<_, Box<dyn Error>>((test, self.target_of(test)?, None))).transpose()?),
        };
        let mut crc = crc32fast::Hasher::new();
        let mut part = |all: &Rows, y: Target, rows: Option<Vec<usize>>| -> Result<Samples> {
            let rows = rows.unwrap_or_else(|| (0..all.x.nrows()).collect());
            let y = y.select(&rows);
            self.check_scaled(all, &rows, &y)?;
            self.add_to_checksum(&mut crc, all, &rows, &y);
            Ok(Samples { x: self.inputs(all, &rows)?, y })
        };
        let train = part(train, y, rows)?;
        let validation = validation.map(|(all, y, rows)| part(all, y, rows)).transpose()?;
        if let (Target::Labels(y), Some(Samples { y: Target::Labels(validated), .. })) = (&train.y, &validation) {
            self.warn_of_unseen(y, validated, say);
        }
        Ok(((train, validation), crc.finalize()))
    }

    /// Warns of classes of which no sample is left to train on.
    fn warn_of_unseen(&self, trained: &Array1<usize>, validated: &Array1<usize>, say: impl Fn(String)) {
        const MOST: usize = 10;
        let count = |labels: &Array1<usize>| {
            let mut counts = vec![0_usize; self.classes.len()];
            labels.iter().for_each(|&label| counts[label] += 1);
            counts
        };
        let (trained, validated) = (count(trained), count(validated));
        let unseen = (0..self.classes.len()).filter(|&class| trained[class] == 0 && validated[class] > 0);
        let unseen: Vec<String> =
            unseen.map(|class| format!("{:?} ({} to validate with)", self.classes[class], validated[class])).collect();
        if !unseen.is_empty() {
            let more = unseen.len().saturating_sub(MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let listed = unseen[..unseen.len().min(MOST)].join(", ");
            say(format!(
                "warning: there is no sample to train on of {}: {listed}{more}",
                if unseen.len() == 1 { "the class" } else { "the classes" }
            ));
        }
    }

    /// Adds all numbers, before they are standardised.
    fn add_to_checksum(&self, crc: &mut crc32fast::Hasher, all: &Rows, rows: &[usize], y: &Target) {
        // Older runs rounded the numbers before taking the checksum.
        let single = self.inputs.is_none();
        let mut add = |number: f64| match single {
            true => crc.update(&(number as f32).to_le_bytes()),
            false => crc.update(&number.to_le_bytes()),
        };
        rows.iter().for_each(|&row| all.x.row(row).iter().for_each(|&x| add(x)));
        match y {
            Target::Labels(y) => y.iter().for_each(|&label| crc.update(&(label as u64).to_le_bytes())),
            Target::Numbers(y) => y.iter().for_each(|&y| add(y)),
        }
    }

    /// The given rows of x, standardised and rounded for the network.
    fn inputs(&self, all: &Rows, rows: &[usize]) -> Result<Array2<f32>> {
        let scales = self.inputs.as_deref().unwrap_or_default();
        if !scales.is_empty() {
            check_columns(&all.origin, scales.len(), all.x.ncols())?;
        }
        let mut x = Array2::zeros((rows.len(), all.x.ncols()));
        for (mut to, &row) in x.outer_iter_mut().zip(rows) {
            for (column, (to, &x)) in to.iter_mut().zip(all.x.row(row)).enumerate() {
                *to = match scales.get(column) {
                    Some((mean, deviation)) => ((x - mean) / deviation) as f32,
                    None => x as f32,
                };
                if !to.is_finite() {
                    let at = all.origin.x(row, column);
                    return Err(format!("{at}: expected a number that the network's f32 can hold, found {x:?}").into());
                }
            }
        }
        Ok(x)
    }

    fn check_scaled(&self, all: &Rows, rows: &[usize], y: &Target) -> Result {
        let Target::Numbers(numbers) = y else { return Ok(()) };
        match self.scaled(numbers.clone()).indexed_iter().find(|(_, y)| !y.is_finite()) {
            Some(((at, column), _)) => Err(all.refused(rows[at], column, "a number that the network's f32 can hold")),
            None => Ok(()),
        }
    }

    /// Standardises targets for the network.
    pub(crate) fn scaled(&self, mut y: Array2<f64>) -> Array2<f32> {
        for (mut column, (mean, deviation)) in y.columns_mut().into_iter().zip(&self.scale) {
            column.mapv_inplace(|y| (y - mean) / deviation);
        }
        y.mapv(|y| y as f32)
    }

    /// Converts outputs of the network back to the scale of the targets.
    pub(crate) fn unscaled(&self, y: Array2<f32>) -> Array2<f64> {
        let mut y = y.mapv(f64::from);
        for (mut column, (mean, deviation)) in y.columns_mut().into_iter().zip(&self.scale) {
            column.mapv_inplace(|y| y * deviation + mean);
        }
        y
    }
}

/// Refuses data whose number of columns is not that of the network's inputs.
pub(crate) fn check_columns(of: &impl Display, expected: usize, found: usize) -> Result {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (counted(expected, "column"), counted(found, "column"));
    Err(format!("{of}: expected {expected}, as the run has learned from, found {found}").into())
}

/// The names of the classes that occur, sorted by value if all are whole numbers, else as texts.
fn in_order(classes: Vec<Cow<str>>) -> Vec<String> {
    let classes: BTreeSet<Cow<str>> = classes.into_iter().collect();
    let mut classes: Vec<String> = classes.into_iter().map(Cow::into_owned).collect();
    let value = |class: &String| class.parse::<i128>().ok();
    if classes.iter().all(|class| value(class).is_some()) {
        classes.sort_by_key(value);
    }
    classes
}

/// A function from the name of a class to its index.
fn label_of(classes: &[String]) -> impl Fn(&str) -> Option<usize> {
    let labels: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(i, class)| (class.as_str(), i)).collect();
    move |class| labels.get(class).copied()
}

/// A table with all columns but the target and those in `dropped` as inputs.
fn learned_table(path: &Path, target: &str, dropped: &[String]) -> Result<Rows> {
    let Table { columns, x, y, lines } = data::csv_texts(path, target, dropped).map_err(|error| match &error {
        ReadError::Line { column: Some(column), expected, .. } if expected.contains("number") => {
            format!("{error}; --drop {column:?} leaves the column out")
        }
        ReadError::Content { what: "columns", found, .. } if found.contains("index") => {
            format!(r#"{error}, and --drop "" does here"#)
        }
        _ => error.to_string(),
    })?;
    // The name that pandas gives the index of a table that it has written and read again.
    let index = |name: &&String| name.strip_prefix("Unnamed: ").is_some_and(|number| number.parse::<u32>().is_ok());
    if let Some(name) = columns.iter().find(index) {
        return Err(format!(
            "{}: column {name:?}: expected a column to learn from, found the name of an index that pandas wrote; \
             --drop {name:?} leaves it out",
            path.display()
        )
        .into());
    }
    table(path, target, columns, x, lines, Some(y.as_slice().to_vec()))
}

/// A table with these columns as inputs, found by name; other columns are ignored.
fn known_table(path: &Path, columns: &[String], target: &str) -> Result<Rows> {
    let Table { columns, x, y, lines } = data::csv_columns(path, columns, target, |text| Ok(text.to_owned()))?;
    table(path, target, columns, x, lines, y)
}

fn table(
    path: &Path,
    target: &str,
    columns: Vec<String>,
    x: Array2<f64>,
    lines: Vec<usize>,
    texts: Option<Vec<String>>,
) -> Result<Rows> {
    let (path, target) = (path.to_owned(), target.to_owned());
    let origin = Origin::Table { path, lines, columns, target };
    Rows::new(x, texts.map(Answers::Texts), origin)
}
