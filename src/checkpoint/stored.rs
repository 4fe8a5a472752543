//! Reading a checkpoint: a run or its model from the contents of a file, with everything refused
//! that no run can have written.

use std::fmt::Display;
use std::path::PathBuf;

use ndarray::{Array1, Array2};
use serde::de::DeserializeOwned;

use crate::checkpoint::archive::{Newest, read};
use crate::checkpoint::error::{CheckpointError, Damaged};
use crate::checkpoint::format::{Contents, Dtype, OURS, Tensor, dtype};
use crate::checkpoint::state::{FORMAT, FORMAT_1, Notes, StreamPosition, history_name, layer_names};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::mlp::Mlp;
use crate::network::parameters::{Bias, Parameters};
use crate::network::products::Products;
use crate::network::standardizer::Standardizer;
use crate::optim::rule::WeightDecay;
use crate::train::history::{History, Record};
use crate::train::model::Model;
use crate::train::position::Position;
use crate::train::settings::TrainingSettings;
use crate::train::trainer::Trainer;

/// No run makes as many steps, and numbers up to this can be counted up without overflow.
const MOST_STEPS: u64 = 1 << 53;

/// What was read from a checkpoint.
#[derive(Debug)]
pub struct Saved<T> {
    /// The run, or its model.
    pub value: T,
    /// The caller's notes.
    pub notes: Notes,
    /// The file.
    pub path: PathBuf,
    /// Newer files that could not be used. A caller should report them.
    pub damaged: Vec<Damaged>,
    /// The BLAS that the checkpoint was written with, as
    /// [`blas_description`](crate::blas_description) had it. A resumed run has the bits of an
    /// uninterrupted one with the same version of this crate and the same BLAS; with
    /// [`Products::Native`](crate::Products::Native), also with another BLAS or none.
    pub blas: String,
    /// The version of this crate that the checkpoint was written with.
    pub version: String,
}

impl<T> Saved<T> {
    /// Replaces the value by what `make` makes of it.
    pub(crate) fn with<U>(
        self,
        make: impl FnOnce(T) -> Result<U, CheckpointError>,
    ) -> Result<Saved<U>, CheckpointError> {
        let Self { value, notes, path, damaged, blas, version } = self;
        Ok(Saved { value: make(value)?, notes, path, damaged, blas, version })
    }
}

/// A whole checkpoint as it was read, before the loss of its run is chosen.
#[derive(Debug)]
pub struct Stored {
    contents: Contents,
    path: PathBuf,
}

impl Stored {
    /// Reads one checkpoint, wherever that file has been moved to.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn load(path: impl Into<PathBuf>) -> Result<Saved<Self>, CheckpointError> {
        let path = path.into();
        Self { contents: read(&path)?, path }.saved(Vec::new())
    }

    /// The checkpoint with these contents, which errors call by this path.
    pub(crate) fn from_contents(contents: Contents, path: &str) -> Result<Saved<Self>, CheckpointError> {
        Self { contents, path: path.into() }.saved(Vec::new())
    }

    /// The newest checkpoint of an archive.
    pub(crate) fn newest(newest: Newest) -> Result<Saved<Self>, CheckpointError> {
        let Newest { contents, path, damaged } = newest;
        Self { contents, path }.saved(damaged)
    }

    fn saved(self, damaged: Vec<Damaged>) -> Result<Saved<Self>, CheckpointError> {
        let format = self.fact("format")?;
        if ![FORMAT_1, FORMAT].contains(&format) {
            return Err(self.mismatch("format", FORMAT, format));
        }
        let (blas, version) = (self.fact("blas")?.to_owned(), self.fact(OURS)?.to_owned());
        let notes = self.contents.facts.iter();
        let note = |(name, note): (&String, &String)| Some((name.strip_prefix("note.")?.to_owned(), note.clone()));
        let notes = notes.filter_map(note).collect();
        Ok(Saved { notes, path: self.path.clone(), damaged, blas, version, value: self })
    }

    /// The run, to be resumed with the caller's loss and data.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], with what was expected and found.
    pub fn trainer<F: Scalar, L: Loss<F>>(&self, loss: L) -> Result<Trainer<F, L>, CheckpointError> {
        // Files of the format before may not have it.
        if let Some(expected) = self.contents.facts.get("loss")
            && *expected != loss.name()
        {
            return Err(self.mismatch("loss", expected, &loss.name()));
        }
        if !["training", "position", "generator"].iter().any(|fact| self.contents.facts.contains_key(*fact)) {
            return Err(self.mismatch("contents", "a run", "a model without its run, which Model::load reads"));
        }
        let model: Model<F> = self.model()?;
        let training: TrainingSettings = self.json("training")?;
        let fresh = Trainer::new(model, loss, training)
            .map_err(|error| self.mismatch("settings", "such as can be trained with", &error.to_string()))?;
        // All fields by name, so that a new one cannot be forgotten here.
        let Trainer { model, loss, training, mut moments, order, engine, .. } = fresh;
        let (widths, bias) = (model.mlp.widths(), model.mlp.bias());
        for (i, moment) in moments.arrays.iter_mut().enumerate() {
            *moment = self.parameters(&format!("moment{}.", i + 1), widths, bias)?;
        }
        moments.reset_bounds(model.mlp.parameters());
        let has_best = self.contents.tensors.contains_key("best.0.weight");
        let best = has_best.then(|| self.parameters("best.", widths, bias)).transpose()?;
        let history = History { records: self.records()? };
        let position = self.position(&history.records, training.batch)?;
        let stream: StreamPosition = self.json("generator")?;
        let generator = stream.generator();
        let generator =
            generator.ok_or_else(|| self.mismatch("generator", "a position in its stream", &stream.word))?;
        Ok(Trainer { model, loss, training, moments, generator, position, history, best, order, engine })
    }

    /// The model as it was when the checkpoint was written.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], with what was expected and found.
    pub fn model<F: Scalar>(&self) -> Result<Model<F>, CheckpointError> {
        self.model_with_prefix("")
    }

    /// The model of the best epoch so far, if the run has [early
    /// stopping](TrainingSettings::early_stopping) and has finished an epoch. At the end of such a
    /// run, it equals [`model`](Self::model).
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], with what was expected and found.
    pub fn best_model<F: Scalar>(&self) -> Result<Option<Model<F>>, CheckpointError> {
        const BEST: &str = "best.";
        let [weight, _] = layer_names(BEST, 0);
        self.contents.tensors.contains_key(&weight).then(|| self.model_with_prefix(BEST)).transpose()
    }

    fn model_with_prefix<F: Scalar>(&self, prefix: &str) -> Result<Model<F>, CheckpointError> {
        // Older checkpoints call it "constant".
        let name = if self.contents.facts.contains_key("constant") { "constant" } else { "bias" };
        let (widths, bias) = (self.widths()?, self.json(name)?);
        let theta = self.parameters(prefix, &widths, bias)?;
        // Before there was a choice, BLAS computed all products.
        let products = match self.contents.facts.contains_key("products") {
            true => self.json("products")?,
            false if cfg!(feature = "blas") => Products::Blas,
            false => Products::Auto,
        };
        let mlp = Mlp::from_parameters(&widths, bias, theta)
            .and_then(|mlp| mlp.with_products(products))
            .map_err(|error| self.mismatch("network", "its tensors", &error.to_string()))?;
        let has_standardizer = self.contents.tensors.contains_key("standardizer.mean");
        let standardizer = has_standardizer.then(|| self.standardizer(widths[0])).transpose()?;
        Ok(Model { mlp, standardizer })
    }

    fn standardizer(&self, columns: usize) -> Result<Standardizer, CheckpointError> {
        let row = |name| {
            // Older versions wrote them in the network's type.
            let row = self.tensor(name, &[columns]).or_else(|error| {
                let narrow = self.tensor::<f32>(name, &[columns]).map_err(|_| error)?;
                Ok(narrow.into_iter().map(f64::from).collect())
            });
            row.map(Array1::<f64>::from)
        };
        Ok(Standardizer { mean: row("standardizer.mean")?, factor: row("standardizer.factor")? })
    }

    /// A record for each epoch, in order.
    fn records(&self) -> Result<Vec<Record>, CheckpointError> {
        let records = if self.fact("format")? == FORMAT_1 {
            let records: Result<Vec<Record>, _> =
                csv::Reader::from_reader(self.fact("history")?.as_bytes()).deserialize().collect();
            records.map_err(|error| self.mismatch("history", "a record for each epoch", &error.to_string()))?
        } else {
            self.records_of_tensors()?
        };
        let mut steps = 0;
        // The first ones may have been forgotten.
        let first = records.first().map_or(1, |record| record.epoch.max(1));
        for (i, record) in records.iter().enumerate() {
            let epoch = first.saturating_add(i);
            if record.epoch != epoch {
                return Err(self.mismatch("history.epoch", &epoch.to_string(), &record.epoch.to_string()));
            }
            if record.steps < steps {
                let expected = format!("at least {steps}, as before epoch {epoch}");
                return Err(self.mismatch("history.steps", &expected, &record.steps.to_string()));
            }
            steps = record.steps;
        }
        Ok(records)
    }

    fn records_of_tensors(&self) -> Result<Vec<Record>, CheckpointError> {
        let epochs = self.contents.tensors.get("history.epoch").map(|tensor| tensor.shape.as_slice());
        let count = if let Some(&[count]) = epochs { count } else { 0 };
        let column = |name: &str, dtype| Ok(self.array(&history_name(name), dtype, &[count])?.bytes.as_slice());
        let eight = |name, dtype| Ok(column(name, dtype)?.as_chunks::<8>().0);
        let (epoch, steps) = (eight("epoch", Dtype::I64)?, eight("steps", Dtype::I64)?);
        let (loss, validation_loss) = (eight("loss", Dtype::F64)?, eight("validation_loss", Dtype::F64)?);
        let (learning_rate, gradient_norm) = (eight("learning_rate", Dtype::F64)?, eight("gradient_norm", Dtype::F64)?);
        let (seconds, validated) = (eight("seconds", Dtype::F64)?, column("validated", Dtype::BOOL)?);
        let record = |i: usize| Record {
            // A number that is too large for usize is refused as a wrong epoch.
            epoch: usize::try_from(u64::from_le_bytes(epoch[i])).unwrap_or(usize::MAX),
            steps: u64::from_le_bytes(steps[i]),
            loss: f64::from_le_bytes(loss[i]),
            validation_loss: (validated[i] != 0).then(|| f64::from_le_bytes(validation_loss[i])),
            learning_rate: f64::from_le_bytes(learning_rate[i]),
            gradient_norm: f64::from_le_bytes(gradient_norm[i]),
            seconds: f64::from_le_bytes(seconds[i]),
        };
        Ok((0..count).map(record).collect())
    }

    /// Where the run stands. It must agree with the history and the batches, because a trainer
    /// counts up from there without further checks.
    fn position(&self, records: &[Record], batch: usize) -> Result<Position, CheckpointError> {
        let position: Position = self.json("position")?;
        let Position {
            epoch,
            batch: done,
            last_step,
            samples,
            rows,
            chunks,
            loss_sum: _,
            steps,
            last_loss: _,
            seconds,
            plateau,
            plateaus,
            pending_decay,
            lowest,
            stopped_early: _,
        } = position;
        let check = |fine: bool, expected: &str, found: &dyn Display| {
            if fine { Ok(()) } else { Err(self.mismatch("position", expected, &found.to_string())) }
        };
        // An epoch has a step at least.
        let (epochs, recorded_steps) = records.last().map_or((epoch, epoch as u64), |last| (last.epoch, last.steps));
        check(epoch == epochs, &format!("{epochs} epochs, as in the history"), &epoch)?;
        let least_steps = recorded_steps.max(epoch as u64).saturating_add(done as u64);
        let expected = format!("from {least_steps} to {MOST_STEPS} steps");
        check((least_steps..=MOST_STEPS).contains(&steps), &expected, &steps)?;
        let batches = samples.div_ceil(batch);
        let is_over = last_step.is_some();
        let expected = if is_over {
            format!("all {batches} batches of an epoch")
        } else {
            format!("fewer than {batches} batches of an epoch")
        };
        check(if is_over { done > 0 && done == batches } else { done == 0 || done < batches }, &expected, &done)?;
        check(chunks != Some(0), "at least one chunk", &0)?;
        check(samples <= rows, &format!("at most {rows} samples, the number of rows"), &samples)?;
        for (what, count) in [
            ("plateaus", plateaus as usize),
            ("epochs since a plateau", plateau.since),
            ("epochs since the lowest loss", lowest.since),
        ] {
            check(count <= epochs, &format!("at most {epochs} {what}, as there were epochs"), &count)?;
        }
        for loss in [plateau.loss, lowest.loss].into_iter().flatten() {
            check(!loss.is_nan(), "a lowest loss that is a number", &loss)?;
        }
        check(seconds.is_finite() && seconds >= 0.0, "a number of seconds", &seconds)?;
        check(WeightDecay::can_be_pending(pending_decay), "a weight decay that is less than a step's", &pending_decay)?;
        Ok(position)
    }

    fn mismatch(&self, what: &str, expected: &str, found: &str) -> CheckpointError {
        let what = format!("{}: {what}", self.path.display());
        CheckpointError::Mismatch { what, expected: expected.to_owned(), found: found.to_owned() }
    }

    fn fact(&self, name: &str) -> Result<&str, CheckpointError> {
        let fact = self.contents.facts.get(name).map(String::as_str);
        fact.ok_or_else(|| self.mismatch("metadata", name, "no such entry"))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, CheckpointError> {
        let fact = self.fact(name)?;
        serde_json::from_str(fact).map_err(|error| self.mismatch(name, "what this version writes", &error.to_string()))
    }

    /// The numbers of a tensor of the network's type and of this shape.
    fn tensor<F: Scalar>(&self, name: &str, shape: &[usize]) -> Result<Vec<F>, CheckpointError> {
        Ok(self.array(name, dtype::<F>(), shape)?.numbers())
    }

    fn array(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&Tensor, CheckpointError> {
        let show = |dtype: Dtype, shape: &[usize]| format!("{dtype:?} {shape:?}");
        let expected = show(dtype, shape);
        match self.contents.tensors.get(name) {
            None => Err(self.mismatch(name, &expected, "no such tensor")),
            Some(tensor) if tensor.dtype != dtype || tensor.shape != shape => {
                Err(self.mismatch(name, &expected, &show(tensor.dtype, &tensor.shape)))
            }
            Some(tensor) => Ok(tensor),
        }
    }

    fn parameters<F: Scalar>(
        &self,
        prefix: &str,
        widths: &[usize],
        bias: Bias,
    ) -> Result<Parameters<F>, CheckpointError> {
        let (mut w, mut c) = (Vec::new(), Vec::new());
        for (t, d) in widths.windows(2).enumerate() {
            let [weight, of_bias] = layer_names(prefix, t);
            let shape = (d[1], d[0]);
            let weight = self.tensor(&weight, &[d[1], d[0]])?;
            w.push(Array2::from_shape_vec(shape, weight).expect("as many numbers as the shape has"));
            let has_bias = t + 2 == widths.len() || bias.at(t);
            c.push(if has_bias { Array1::from(self.tensor(&of_bias, &[d[1]])?) } else { Array1::from(Vec::new()) });
        }
        Ok(Parameters { w, c })
    }

    /// d[0], …, m, from the shapes of the weights.
    fn widths(&self) -> Result<Vec<usize>, CheckpointError> {
        let mut widths = Vec::new();
        for t in 0.. {
            let [weight, bias] = layer_names("", t);
            match self.contents.tensors.get(&weight).map(|tensor| tensor.shape.as_slice()) {
                // The last one always has a bias.
                None if t > 0 && !self.contents.tensors.contains_key(&bias) => break,
                Some(&[rows, columns]) if rows > 0 && columns > 0 => {
                    if t == 0 {
                        widths.push(columns);
                    }
                    widths.push(rows);
                }
                other => return Err(self.mismatch(&weight, "a matrix", &format!("{other:?}"))),
            }
        }
        Ok(widths)
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
