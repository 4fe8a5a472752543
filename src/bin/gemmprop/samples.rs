//! The samples of a new run, and what it is to remember about them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytesize::ByteSize;
use gemmprop::data::ReadError;
use gemmprop::{Bias, FitError, Mlp, Source, SquaredError, Standardizer, Trainer, TrainingSettings};
use ndarray::{ArrayViewMut1, ArrayViewMut2, Axis};

use crate::arguments::Train;
use crate::inputs::Numbers;
use crate::message::{Result, say};
use crate::rows::Rows;
use crate::table::Learned;
use crate::task::{Division, Scale, Task, TrainingData};
use crate::values::{ClassWeight, LossKind, YesNo};

impl Train {
    /// Whether inputs are standardised; by default, all but images, whose pixels already have one
    /// scale.
    fn standardizes(&self) -> bool {
        self.settings.standardize.map_or(self.source.idx.is_none(), |answer| answer == YesNo::Yes)
    }
}

/// The task and data of a new run. Reports the loss if it was chosen by the program.
pub(crate) fn first(arguments: &Train) -> Result<(Task, TrainingData)> {
    let (settings, most) = (&arguments.settings, arguments.memory_for_samples());
    let mut task = Task {
        loss: LossKind::Squared,
        classes: Vec::new(),
        columns: Vec::new(),
        target: arguments.target.clone(),
        inputs: Some(Vec::new()),
        scale: Vec::new(),
        encodings: Vec::new(),
        dropped: Some(arguments.source.drop.clone()),
        balanced: settings.class_weight == ClassWeight::Balanced,
        validation: settings.validation,
        split_by_trainer: true,
        seed: settings.seed,
        checksum: 0,
    };
    let (train, test) = read(arguments, &mut task, most)?;
    task.loss = match settings.loss {
        Some(loss) => loss,
        None => {
            let (loss, why) = train.loss()?;
            say(format!("loss: {}, as {why}; --loss chooses another", format!("{loss:?}").to_lowercase()));
            loss
        }
    };
    if task.loss != LossKind::Squared {
        task.classes = classes(&train, test.as_ref(), task.loss)?;
    } else if task.balanced {
        return Err(format!("--class-weight balanced: expected classes, and {} numbers", train.origin.subject()).into());
    }
    let division = task.divide(train.x.rows())?;
    if arguments.standardizes() {
        standardize(&mut task, &train, &division)?;
    }
    let (data, checksum) = task.data(train, test, division, most)?;
    task.checksum = checksum;
    Ok((task, data))
}

/// The rows of a new run, and a test set if the format has one.
fn read(arguments: &Train, task: &mut Task, most: ByteSize) -> Result<(Rows, Option<Rows>)> {
    let source = &arguments.source;
    if let Some(path) = &source.csv {
        let table = Learned::read(path, arguments)?;
        let rows = task.divide(table.samples())?.map_or_else(|| (0..table.samples()).collect(), |(rows, _)| rows);
        task.encodings = table.encodings(arguments, &rows)?;
        task.columns.clone_from(&table.columns);
        Ok((table.rows(&task.encodings)?, None))
    } else if let Some(folder) = &source.idx {
        Rows::images(folder, most)
    } else {
        let path = source.data.as_deref().expect("one of the three");
        Ok((Rows::arrays(path, arguments.targets.as_deref(), most)?, None))
    }
}

/// The names of the classes of both sets.
fn classes(train: &Rows, test: Option<&Rows>, loss: LossKind) -> Result<Vec<String>> {
    let mut classes = train.classes()?;
    if let Some(test) = test {
        classes.extend(test.classes()?);
    }
    let classes = in_order(classes);
    let (targets, found) = (train.origin.targets(), classes.len());
    if loss == LossKind::Logistic && found != 2 {
        return Err(
            format!("{targets}: --loss logistic: expected 2 classes, found {found}; softmax takes any number").into()
        );
    }
    if found < 2 {
        return Err(format!("{targets}: expected 2 classes or more, found 1: {:?}", classes[0]).into());
    }
    Ok(classes)
}

/// Fits how inputs and numeric targets are standardised, on the rows that are trained on. Inputs
/// that are 1 or 0 stay as they are.
fn standardize(task: &mut Task, train: &Rows, division: &Division) -> Result {
    let chosen = division.as_ref().map(|(rows, _)| rows.as_slice());
    let fit = |numbers: &Numbers| match (numbers, chosen) {
        (Numbers::Memory(x), None) => Standardizer::fit(x).map_err(FitError::Training),
        (Numbers::Memory(x), Some(rows)) => Standardizer::fit(&x.select(Axis(0), rows)).map_err(FitError::Training),
        (Numbers::File(_), _) => fit_in_parts(&Chosen { numbers, chosen }),
    };
    let fitted = |numbers: &Numbers, name: &dyn Fn(usize) -> String| -> Result<Vec<Scale>> {
        let fitted = fit(numbers).map_err(|error| match error {
            FitError::Training(gemmprop::Error::NotFinite { what: "x", row: Some(row), column, found }) => {
                train.not_finite(chosen.map_or(row, |rows| rows[row]), column, found)
            }
            FitError::Training(gemmprop::Error::NotFinite { column, found, .. }) => {
                format!("{}: expected a mean and a deviation that are finite, found {found}", name(column)).into()
            }
            error => error.into(),
        })?;
        Ok(fitted.mean().iter().zip(fitted.factor()).map(|(&mean, &factor)| (mean, 1.0 / factor)).collect())
    };
    let mut inputs = fitted(&train.x, &|column| train.origin.column(column))?;
    for (scale, indicator) in inputs.iter_mut().zip(task.table_inputs().indicators()) {
        if indicator {
            *scale = (0.0, 1.0);
        }
    }
    task.inputs = Some(inputs);
    if task.loss == LossKind::Squared {
        task.scale = fitted(&Numbers::Memory(train.numbers()?), &|_| train.origin.targets())?;
    }
    Ok(())
}

/// Some rows of the inputs, in double precision.
struct Chosen<'a> {
    numbers: &'a Numbers,
    chosen: Option<&'a [usize]>,
}

impl Source<f64, f64> for Chosen<'_> {
    type Error = ReadError;

    fn samples(&self) -> usize {
        self.chosen.map_or(self.numbers.rows(), <[usize]>::len)
    }

    fn read(
        &self,
        rows: &[usize],
        mut x: ArrayViewMut2<f64>,
        mut y: ArrayViewMut2<f64>,
        _weights: ArrayViewMut1<f64>,
    ) -> std::result::Result<(), ReadError> {
        let rows: Vec<usize> = rows.iter().map(|&row| self.chosen.map_or(row, |chosen| chosen[row])).collect();
        x.assign(&self.numbers.part(&rows)?);
        y.fill(0.0);
        Ok(())
    }
}

/// What a run of no epochs standardises by, which is fitted in two passes over the samples.
fn fit_in_parts(samples: &Chosen) -> std::result::Result<Standardizer, FitError<ReadError>> {
    let mlp = Mlp::<f64>::he(&[samples.numbers.columns(), 1], Bias::None, 0)?;
    let training = TrainingSettings { epochs: 0, standardize: true, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training)?;
    trainer.fit_source(samples, None, ())?;
    Ok(trainer.into_model().standardizer.expect("fitted before the first epoch"))
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
