//! Samples from files, and what a run has to remember of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use gemmprop::Generator;
use gemmprop::data::{self, Table};
use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::arguments::{LossKind, Source, Train};

/// What is learned, kept with each checkpoint: what `predict` and --resume need beside the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) loss: LossKind,
    /// Class i is called so; none where the target is a number.
    pub(crate) classes: Vec<String>,
    /// Of a CSV file: the inputs in order, and the target.
    pub(crate) columns: Vec<String>,
    pub(crate) target: Option<String>,
    /// Mean and deviation of each target, by which they are standardised.
    pub(crate) scale: Vec<(f64, f64)>,
    pub(crate) validation: Option<f64>,
    pub(crate) seed: u64,
    /// Of all numbers that are learned from and validated with, by which a resumed run knows them again.
    pub(crate) checksum: u32,
}

#[derive(Debug)]
pub(crate) enum Target {
    Labels(Array1<usize>),
    Numbers(Array2<f32>),
}

#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) x: Array2<f32>,
    pub(crate) y: Option<Target>,
    /// The rows that y is of, if it is not of all.
    pub(crate) answered: Option<Vec<usize>>,
}

/// What becomes of a row whose target is empty or none that the run knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Refused,
    LeftOut,
}

impl Samples {
    fn new(x: Array2<f32>, y: Target) -> Result<Self> {
        let (rows, targets) = (x.nrows(), y.len());
        if rows != targets {
            return Err(format!("targets: expected {rows}, one for each row of the data, found {targets}").into());
        }
        Ok(Self { x, y: Some(y), answered: None })
    }

    fn select(&self, rows: &[usize]) -> Self {
        let y = self.y.as_ref().map(|y| match y {
            Target::Labels(y) => Target::Labels(y.select(Axis(0), rows)),
            Target::Numbers(y) => Target::Numbers(y.select(Axis(0), rows)),
        });
        Self { x: self.x.select(Axis(0), rows), y, answered: None }
    }
}

impl Target {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Labels(y) => y.len(),
            Self::Numbers(y) => y.nrows(),
        }
    }

    pub(crate) fn labels(&self) -> Array2<usize> {
        match self {
            Self::Labels(y) => y.clone().insert_axis(Axis(1)),
            Self::Numbers(y) => y.mapv(|y| (y >= 0.5).into()),
        }
    }

    pub(crate) fn numbers(&self) -> Array2<f32> {
        match self {
            Self::Labels(y) => y.mapv(|label| label as f32).insert_axis(Axis(1)),
            Self::Numbers(y) => y.clone(),
        }
    }
}

/// Training data and a validation set, if there is one.
pub(crate) type Both = (Samples, Option<Samples>);

/// CRC-32 of all their numbers.
fn checksum(train: &Samples, validation: Option<&Samples>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for Samples { x, y, .. } in [train].into_iter().chain(validation) {
        x.iter().for_each(|x| crc.update(&x.to_le_bytes()));
        match y {
            Some(Target::Labels(y)) => y.iter().for_each(|&label| crc.update(&(label as u64).to_le_bytes())),
            Some(Target::Numbers(y)) => y.iter().for_each(|y| crc.update(&y.to_le_bytes())),
            None => {}
        }
    }
    crc.finalize()
}

/// The data of a new run. It says which loss was chosen, if that was left open.
pub(crate) fn first(arguments: &Train, say: impl Fn(String)) -> Result<(Task, Both)> {
    let Train { source, settings, .. } = arguments;
    let mut task = Task {
        loss: LossKind::Softmax,
        classes: Vec::new(),
        columns: Vec::new(),
        target: arguments.target.clone(),
        scale: Vec::new(),
        validation: settings.validation,
        seed: settings.seed,
        checksum: 0,
    };
    let open = |loss: LossKind, why: &str| {
        settings.loss.unwrap_or_else(|| {
            say(format!("loss: {}, as {why}; --loss chooses another", format!("{loss:?}").to_lowercase()));
            loss
        })
    };
    let mut test = None;
    let train = if let Some(path) = &source.csv {
        let target = task.target.as_deref().expect("required with --csv");
        let table = data::csv_classes(path, target)?;
        let classes = table.y.names;
        task.loss = match are_numbers(&classes) {
            true => open(LossKind::Squared, &format!("{target:?} has numbers")),
            false => open(LossKind::Softmax, &format!("{target:?} has {} classes", classes.len())),
        };
        task.columns = table.columns;
        let y = if task.loss == LossKind::Squared {
            Target::Numbers(data::csv_numbers(path, target)?.y)
        } else {
            task.classes = classes;
            Target::Labels(table.y.labels)
        };
        Samples::new(table.x, y)?
    } else if let Some(folder) = &source.idx {
        task.loss = open(LossKind::Softmax, "the images have labels");
        let folder = data::idx_folder(folder)?;
        test = folder.test.map(|test| Samples::new(test.x, Target::Labels(test.labels))).transpose()?;
        Samples::new(folder.train.x, Target::Labels(folder.train.labels))?
    } else {
        let path = source.data.as_deref().expect("one of the three");
        let targets = arguments.targets.as_deref().expect("required with --data");
        task.loss = match has_floats(targets)? {
            true => open(LossKind::Squared, "the targets are floating-point numbers"),
            false => open(LossKind::Softmax, "the targets are whole numbers"),
        };
        Samples::new(data::npy(path)?, npy_target(targets, task.loss)?)?
    };
    if task.loss != LossKind::Squared && task.classes.is_empty() {
        let labels = [Some(&train), test.as_ref()].into_iter().flatten().flat_map(|samples| &samples.y);
        let most = labels.flat_map(Target::labels).max().unwrap_or(0);
        task.classes = (0..=most).map(|class| class.to_string()).collect();
    }
    match (task.loss, task.classes.len()) {
        (LossKind::Logistic, found) if found != 2 => {
            return Err(format!("--loss logistic: expected 2 classes, found {found}; softmax takes any number").into());
        }
        (LossKind::Softmax, 1) => return Err("target: expected 2 classes or more, found 1".into()),
        _ => {}
    }
    let (train, validation) = task.divide(train, test)?;
    task.checksum = checksum(&train, validation.as_ref());
    if let (LossKind::Squared, Some(y), true) = (task.loss, &train.y, arguments.standardizes()) {
        let scale = |y: ndarray::ArrayView1<f32>| {
            let y = y.mapv(f64::from);
            let deviation = y.std(0.0);
            (y.mean().unwrap_or(0.0), if deviation > 0.0 { deviation } else { 1.0 })
        };
        task.scale = y.numbers().columns().into_iter().map(scale).collect();
    }
    Ok((task, (train, validation)))
}

impl Task {
    /// The data of a run that is resumed. It says so if they are other ones.
    pub(crate) fn again(&self, arguments: &Train, say: impl Fn(String)) -> Result<Both> {
        if let (Some(expected), Some(found)) = (&self.target, &arguments.target)
            && expected != found
        {
            return Err(format!("--target: expected {expected:?}, as the run began, found {found:?}").into());
        }
        let (train, test) = self.read(&arguments.source, arguments.targets.as_deref(), Unknown::Refused)?;
        if train.y.is_none() {
            return Err(match &self.target {
                Some(target) => format!("expected a column {target:?} to learn from").into(),
                None => "expected the targets to learn from; --targets names their file".into(),
            });
        }
        let (train, validation) = self.divide(train, test)?;
        if checksum(&train, validation.as_ref()) != self.checksum {
            say("warning: these are not the samples that the run began with; it goes on with them".to_owned());
        }
        Ok((train, validation))
    }

    /// Samples in the form that this run has, and a test set where the format has one. Targets are read if they are there.
    pub(crate) fn read(&self, source: &Source, targets: Option<&Path>, unknown: Unknown) -> Result<Both> {
        if let Some(path) = &source.csv {
            if self.columns.is_empty() {
                return Err("the run has not learned from a table: expected --data or --idx".into());
            }
            return Ok((self.table(path, unknown)?, None));
        }
        if !self.columns.is_empty() {
            return Err("the run has learned from a table: expected --csv, with its columns".into());
        }
        if let Some(folder) = &source.idx {
            let folder = data::idx_folder(folder)?;
            let test = folder.test.map(|test| Samples::new(test.x, Target::Labels(test.labels))).transpose()?;
            return Ok((Samples::new(folder.train.x, Target::Labels(folder.train.labels))?, test));
        }
        let x = data::npy(source.data.as_deref().expect("one of the three"))?;
        match targets {
            Some(targets) => Ok((Samples::new(x, npy_target(targets, self.loss)?)?, None)),
            None => Ok((Samples { x, y: None, answered: None }, None)),
        }
    }

    /// The columns of this run, found by name; others do not matter.
    fn table(&self, path: &Path, unknown: Unknown) -> Result<Samples> {
        if self.loss == LossKind::Squared {
            let numbers = |y| Target::Numbers(Array1::from(y).insert_axis(Axis(1)));
            self.columns(path, unknown, data::number, numbers)
        } else {
            self.columns(path, unknown, data::class_of(&self.classes), |y| Target::Labels(y.into()))
        }
    }

    fn columns<T>(
        &self,
        path: &Path,
        unknown: Unknown,
        read: impl Fn(&str) -> std::result::Result<T, &'static str>,
        target: impl Fn(Vec<T>) -> Target,
    ) -> Result<Samples> {
        let read = |text: &str| match read(text) {
            Err(_) if unknown == Unknown::LeftOut => Ok(None),
            value => value.map(Some),
        };
        let name = self.target.as_deref().ok_or("the checkpoint's note names no target")?;
        let Table { x, y, .. } = data::csv_columns(path, &self.columns, name, read)?;
        let Some(y) = y else { return Ok(Samples { x, y: None, answered: None }) };
        let rows: Vec<usize> = y.iter().enumerate().filter(|(_, y)| y.is_some()).map(|(row, _)| row).collect();
        let answered = (rows.len() < y.len()).then_some(rows);
        Ok(Samples { x, y: Some(target(y.into_iter().flatten().collect())), answered })
    }

    /// Splits off what --validation asks for, always the same; without it the test set is for validation.
    fn divide(&self, train: Samples, test: Option<Samples>) -> Result<Both> {
        let Some(part) = self.validation else { return Ok((train, test)) };
        let samples = train.x.nrows();
        let kept = ((samples as f64 * part).round() as usize).max(1);
        if kept >= samples {
            return Err(format!("--validation {part}: nothing is left to train on, of {samples} samples").into());
        }
        let mut rows: Vec<usize> = (0..samples).collect();
        let mut generator = Generator::seed_from_u64(self.seed);
        // Where the library's own splits come from, too: the shuffles and the weights have other streams.
        generator.set_stream(1);
        rows.shuffle(&mut generator);
        let validation = rows.split_off(samples - kept);
        Ok((train.select(&rows), Some(train.select(&validation))))
    }

    /// Numbers as the network learns them.
    pub(crate) fn scaled(&self, mut y: Array2<f32>) -> Array2<f32> {
        for (mut column, (mean, deviation)) in y.columns_mut().into_iter().zip(&self.scale) {
            column.mapv_inplace(|y| ((f64::from(y) - mean) / deviation) as f32);
        }
        y
    }

    /// And back.
    pub(crate) fn unscaled(&self, mut y: Array2<f32>) -> Array2<f32> {
        for (mut column, (mean, deviation)) in y.columns_mut().into_iter().zip(&self.scale) {
            column.mapv_inplace(|y| (f64::from(y) * deviation + mean) as f32);
        }
        y
    }
}

/// Are these no classes? Numbers are, if they are few and whole.
fn are_numbers(classes: &[String]) -> bool {
    const FEW: usize = 20;
    let finite = |text: &String| text.parse::<f64>().is_ok_and(f64::is_finite);
    let whole = |text: &String| text.parse::<i64>().is_ok();
    classes.iter().all(finite) && !(classes.len() <= FEW && classes.iter().all(whole))
}

/// As the header of a `.npy` file says. What is wrong with the file, its reader says better.
fn has_floats(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.take(256).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).contains("'<f"))
}

fn npy_target(path: &Path, loss: LossKind) -> Result<Target> {
    Ok(match loss {
        LossKind::Squared => Target::Numbers(data::npy(path)?),
        _ => Target::Labels(data::npy_labels(path)?),
    })
}
