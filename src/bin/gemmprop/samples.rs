//! The samples of a new run, and what it is to remember about them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use gemmprop::Standardizer;
use ndarray::{ArrayView2, Axis};

use crate::arguments::{ClassWeight, LossKind, Train, YesNo};
use crate::message::{Result, say};
use crate::reading::Division;
use crate::rows::Rows;
use crate::table::Learned;
use crate::task::{Both, Scale, Task};

impl Train {
    /// Whether inputs are standardised; by default, all but images, whose pixels already have one
    /// scale.
    fn standardizes(&self) -> bool {
        self.settings.standardize.map_or(self.source.idx.is_none(), |answer| answer == YesNo::Yes)
    }
}

/// The task and data of a new run. Reports the loss if it was chosen by the program.
pub(crate) fn first(arguments: &Train) -> Result<(Task, Both)> {
    let settings = &arguments.settings;
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
        seed: settings.seed,
        checksum: 0,
    };
    let (train, test) = read(arguments, &mut task)?;
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
    let division = task.divide(train.x.nrows())?;
    if arguments.standardizes() {
        standardize(&mut task, &train, &division)?;
    }
    let (both, checksum) = task.both(&train, test.as_ref(), division)?;
    task.checksum = checksum;
    Ok((task, both))
}

/// The rows of a new run, and a test set if the format has one.
fn read(arguments: &Train, task: &mut Task) -> Result<(Rows, Option<Rows>)> {
    let source = &arguments.source;
    if let Some(path) = &source.csv {
        let table = Learned::read(path, arguments)?;
        let rows = task.divide(table.samples())?.map_or_else(|| (0..table.samples()).collect(), |(rows, _)| rows);
        task.encodings = table.encodings(arguments, &rows)?;
        task.columns.clone_from(&table.columns);
        Ok((table.rows(&task.encodings)?, None))
    } else if let Some(folder) = &source.idx {
        Rows::images(folder)
    } else {
        let path = source.data.as_deref().expect("one of the three");
        Ok((Rows::arrays(path, arguments.targets.as_deref())?, None))
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
    let mut inputs = fitted(train.x.view(), &|column| train.origin.column(column))?;
    for (scale, indicator) in inputs.iter_mut().zip(task.table_inputs().indicators()) {
        if indicator {
            *scale = (0.0, 1.0);
        }
    }
    task.inputs = Some(inputs);
    if task.loss == LossKind::Squared {
        task.scale = fitted(train.numbers()?.view(), &|_| train.origin.targets())?;
    }
    Ok(())
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
