//! The data of a run that goes on or predicts.
//!
//! Each file is opened once, and its numbers are kept in f64 until they are standardised: if they
//! were rounded to f32 before, a column like 1700000000 + i would become constant.

use std::collections::BTreeMap;
use std::path::Path;

use bytesize::ByteSize;
use gemmprop::Generator;
use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::arguments::{Source, Train};
use crate::guess::number;
use crate::inputs::{Numbers, parts};
use crate::message::{Result, counted, warn};
use crate::rows::{Answers, Rows};
use crate::table;
use crate::task::{Asked, Division, Samples, Target, Task, TrainingData, X};
use crate::values::LossKind;

/// Prediction needs no more than a part of the samples at a time.
const A_PART_AT_A_TIME: ByteSize = ByteSize(0);

impl Task {
    /// The data of a resumed run, with a warning if they differ from those that it began with.
    pub(crate) fn again(&self, arguments: &Train) -> Result<TrainingData> {
        if let (Some(expected), Some(found)) = (&self.target, &arguments.target)
            && expected != found
        {
            return Err(format!("--target: expected {expected:?}, as the run began, found {found:?}").into());
        }
        // The order of older runs needs all samples in memory.
        let in_order = self.split_by_trainer || self.validation.is_none();
        let most = if in_order { arguments.memory_for_samples() } else { ByteSize(u64::MAX) };
        let (train, test) = self.read(&arguments.source, arguments.targets.as_deref(), most)?;
        self.check_answers(&train, "to learn from")?;
        let division = self.divide(train.x.rows())?;
        let (data, checksum) = self.data(train, test, division, most)?;
        if checksum != self.checksum {
            warn("warning: these are not the samples that the run began with; it continues with them");
        }
        Ok(data)
    }

    /// The samples to predict: the test set if the source has one.
    pub(crate) fn asked(&self, source: &Source) -> Result<Asked> {
        let (train, test) = self.read(source, None, A_PART_AT_A_TIME)?;
        let rows = test.unwrap_or(train);
        let known = rows.answers.is_some().then(|| self.known(&rows)).transpose()?;
        Ok(Asked { rows, known })
    }

    /// The samples to evaluate with, each of which has to have a valid answer: the test set if the
    /// source has one.
    pub(crate) fn answered(&self, source: &Source, targets: Option<&Path>) -> Result<(Rows, Target)> {
        let (train, test) = self.read(source, targets, A_PART_AT_A_TIME)?;
        let rows = test.unwrap_or(train);
        self.check_answers(&rows, "to compare with")?;
        let y = self.target_of(&rows)?;
        Ok((rows, y))
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
    fn read(&self, source: &Source, targets: Option<&Path>, most: ByteSize) -> Result<(Rows, Option<Rows>)> {
        let (mut rows, mut test) = if source.csv.is_some() {
            if self.columns.is_empty() {
                return Err("the run was not trained on a table: expected --data or --idx".into());
            }
            let target = self.target.as_deref().ok_or("the checkpoint's note names no target")?;
            (table::known(source, &self.table_inputs(), target, self.dropped.as_deref())?, None)
        } else if !self.columns.is_empty() {
            return Err("the run was trained on a table: expected --csv, with the same columns".into());
        } else if let Some(folder) = &source.idx {
            Rows::images(folder, most)?
        } else {
            (Rows::arrays(source.data.as_deref().expect("one of the three"), targets, most)?, None)
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
        let all = 0..rows.x.rows();
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

    /// Splits off the part for --validation, which depends on the seed alone, as the trainer does.
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
        let mut validation = rows.split_off(samples - kept);
        if self.split_by_trainer {
            rows.sort_unstable();
            validation.sort_unstable();
        }
        Ok(Some((rows, validation)))
    }

    /// The data of a run and their checksum. Without a division, the test set is used for
    /// validation, and is then read into memory.
    pub(crate) fn data(
        &self,
        train: Rows,
        test: Option<Rows>,
        division: Division,
        most: ByteSize,
    ) -> Result<(TrainingData, u32)> {
        let mut crc = crc32fast::Hasher::new();
        let all = |rows: &Rows| vec![(0..rows.x.rows()).collect()];
        let parts = division.clone().map_or_else(|| all(&train), |(rows, validation)| vec![rows, validation]);
        let test = test.filter(|_| division.is_none());
        test.as_ref().map_or(Ok(()), |test| check_fits(test, most))?;
        let samples = self.samples(train, &parts, false, &mut crc)?;
        let parts = test.as_ref().map(all);
        let test = test.zip(parts).map(|(test, parts)| self.samples(test, &parts, true, &mut crc)).transpose()?;
        let data = match division {
            Some((rows, validation)) if !self.split_by_trainer => {
                let test = Some(samples.select(&validation)?);
                TrainingData { samples: samples.select(&rows)?, division: None, test, most }
            }
            division => TrainingData { samples, division, test, most },
        };
        if let (Some(validation), Target::Labels(y)) = (data.validation(), &data.samples.y)
            && let Target::Labels(validated) = &validation.samples.y
        {
            let some =
                |y: &Array1<usize>, rows: Option<&[usize]>| rows.map_or(y.clone(), |rows| y.select(Axis(0), rows));
            let trained = data.division.as_ref().map(|(rows, _)| rows.as_slice());
            self.warn_of_unseen(&some(y, trained), &some(validated, validation.rows));
        }
        Ok((data, crc.finalize()))
    }

    /// Samples for the network, in memory if they are there or are to be. Checks and adds up the
    /// numbers of these rows, which are all, part after part.
    fn samples(
        &self,
        all: Rows,
        parts_of_all: &[Vec<usize>],
        into_memory: bool,
        crc: &mut crc32fast::Hasher,
    ) -> Result<Samples> {
        let y = self.target_of(&all)?;
        let in_memory = into_memory || matches!(all.x, Numbers::Memory(_));
        let mut x = in_memory.then(|| Array2::zeros((all.x.rows(), all.x.columns())));
        for rows in parts_of_all {
            let y = y.select(rows);
            self.check_scaled(&all, rows, &y)?;
            for part in parts(rows.len(), all.x.columns()) {
                let rows = &rows[part];
                let numbers = all.part(rows)?;
                self.add_numbers(crc, &numbers);
                let scaled = self.inputs_of(&all.origin, rows, &numbers)?;
                if let Some(x) = &mut x {
                    rows.iter().zip(scaled.outer_iter()).for_each(|(&row, scaled)| x.row_mut(row).assign(&scaled));
                }
            }
            self.add_targets(crc, &y);
        }
        let x = match (x, all.x) {
            (None, Numbers::File(file)) => X::File { file, scales: self.scales().to_vec() },
            (x, _) => X::Memory(x.expect("what is not left in a file")),
        };
        Ok(Samples { x, y })
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

/// Refuses a test set that does not fit into memory, where it is in f32.
fn check_fits(test: &Rows, most: ByteSize) -> Result {
    let Numbers::File(file) = &test.x else { return Ok(()) };
    let found = ByteSize((file.rows() as u64).saturating_mul(4 * file.columns() as u64));
    if found <= most {
        return Ok(());
    }
    Err(format!(
        "{}: the test images, which validate, would take {found} in memory, more than {most} (--memory); --validation \
         PART validates with a part of the training images",
        test.origin
    )
    .into())
}

/// A function from the name of a class to its index.
fn label_of(classes: &[String]) -> impl Fn(&str) -> Option<usize> {
    let labels: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(i, class)| (class.as_str(), i)).collect();
    move |class| labels.get(class).copied()
}
