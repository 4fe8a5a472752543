//! The data of a run that goes on or predicts.
//!
//! Each file is opened once, and its numbers are kept in f64 until they are standardised: if they
//! were rounded to f32 before, a column like 1700000000 + i would become constant.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use gemmprop::Generator;
use ndarray::{Array1, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::arguments::{LossKind, Source, Train};
use crate::guess::number;
use crate::message::{Result, counted, warn};
use crate::origin::Origin;
use crate::rows::{Answers, Rows};
use crate::table;
use crate::task::{Asked, Both, Samples, Target, Task};

/// Rows to train on and rows to validate with; none where all rows of the first file are trained
/// on.
pub(crate) type Division = Option<(Vec<usize>, Vec<usize>)>;

impl Task {
    /// The data of a resumed run, with a warning if they differ from those that it began with.
    pub(crate) fn again(&self, arguments: &Train) -> Result<Both> {
        if let (Some(expected), Some(found)) = (&self.target, &arguments.target)
            && expected != found
        {
            return Err(format!("--target: expected {expected:?}, as the run began, found {found:?}").into());
        }
        let (train, test) = self.read(&arguments.source, arguments.targets.as_deref())?;
        self.check_answers(&train, "to learn from")?;
        let division = self.divide(train.x.nrows())?;
        let (both, checksum) = self.both(&train, test.as_ref(), division)?;
        if checksum != self.checksum {
            warn("warning: these are not the samples that the run began with; it continues with them");
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

    /// The samples to evaluate with, each of which has to have a valid answer: the test set if the
    /// source has one.
    pub(crate) fn answered(&self, source: &Source, targets: Option<&Path>) -> Result<(Samples, Origin)> {
        let (train, test) = self.read(source, targets)?;
        let rows = test.unwrap_or(train);
        self.check_answers(&rows, "to compare with")?;
        let y = self.target_of(&rows)?;
        Ok((Samples { x: self.inputs(&rows, &(0..rows.x.nrows()).collect::<Vec<_>>())?, y }, rows.origin))
    }

    fn check_answers(&self, rows: &Rows, purpose: &str) -> Result {
        if rows.answers.is_some() {
            return Ok(());
        }
        let target = self.target.as_ref();
        let target = target.map_or("targets".to_owned(), |target| format!("a column {target:?}"));
        Err(format!("{}: expected {target} {purpose}, found none", rows.origin).into())
    }

    /// The rows in the form that this run uses, and a test set if the format has one. Targets are
    /// read if they are present.
    fn read(&self, source: &Source, targets: Option<&Path>) -> Result<(Rows, Option<Rows>)> {
        let (mut rows, mut test) = if source.csv.is_some() {
            if self.columns.is_empty() {
                return Err("the run was not trained on a table: expected --data or --idx".into());
            }
            let target = self.target.as_deref().ok_or("the checkpoint's note names no target")?;
            (table::known(source, &self.table_inputs(), target, self.dropped.as_deref())?, None)
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
    pub(crate) fn divide(&self, samples: usize) -> Result<Division> {
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
    pub(crate) fn both(&self, train: &Rows, test: Option<&Rows>, division: Division) -> Result<(Both, u32)> {
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
            self.warn_of_unseen(y, validated);
        }
        Ok(((train, validation), crc.finalize()))
    }

    /// Warns of classes of which no sample is left to train on.
    fn warn_of_unseen(&self, trained: &Array1<usize>, validated: &Array1<usize>) {
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
            warn(format!(
                "warning: there is no sample to train on of {}: {listed}{more}",
                if unseen.len() == 1 { "the class" } else { "the classes" }
            ));
        }
    }
}

/// A function from the name of a class to its index.
fn label_of(classes: &[String]) -> impl Fn(&str) -> Option<usize> {
    let labels: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(i, class)| (class.as_str(), i)).collect();
    move |class| labels.get(class).copied()
}
