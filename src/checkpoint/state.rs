//! A training run as a file: all that it needs to go on with the same bits, in a form that PyTorch can read.
//!
//! | in the file | what |
//! |---|---|
//! | `0.weight`, `2.weight`, … | `w[0]`, `w[1]`, …, alpha, each `(d[t+1], d[t])` |
//! | `0.bias`, `2.bias`, … | `c[0]`, `c[1]`, …, b, where there is one |
//! | `moment1.0.weight`, `moment2.0.weight`, … | the optimiser's v, or its m and v |
//! | `best.0.weight`, … | θ of the best epoch, with early stopping |
//! | `standardizer.mean`, `standardizer.factor` | what is done to x: (x − mean) · factor |
//! | `history.epoch`, `history.loss`, … | the fields of the [`Record`]s, a number for each epoch; `history.validated` says which have a validation loss |
//! | metadata | settings, name of the loss, position, the generator of the shuffles, versions of crate and BLAS, the caller's notes, checksum |
//!
//! The names and layouts are those of `nn.Sequential(nn.Linear, nn.ReLU, nn.Linear, …)`:
//!
//! ```python
//! import glob
//! from torch import nn
//! from safetensors.torch import load_file
//!
//! tensors = load_file(sorted(glob.glob("run/step-*.safetensors"))[-1])
//! net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 10))
//! net.load_state_dict({name: t for name, t in tensors.items() if name[0].isdigit()})
//! if "standardizer.mean" in tensors:
//!     x = ((x - tensors["standardizer.mean"]) * tensors["standardizer.factor"]).to(net[0].weight.dtype)
//! ```
//!
//! A hidden layer has `bias=False` where `z[t]` has no constant; with [`Constant::EveryLayer`] each layer has its bias.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use ndarray::{Array1, Array2};
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::archive::{CheckpointError, Checkpoints, Contents, Damaged, Dtype, OURS, Tensor, read};
use crate::linalg::scalar::Scalar;
use crate::linalg::threads::blas_description;
use crate::network::loss::Loss;
use crate::network::mlp::{Constant, Mlp, Parameters};
use crate::network::standardizer::Standardizer;
use crate::optim::rule::WeightDecay;
use crate::random::Generator;
use crate::train::history::{History, Record};
use crate::train::model::Model;
use crate::train::position::Position;
use crate::train::trainer::Trainer;
use crate::train::training::Training;

/// What this file writes; a change of its meaning counts up. The one before had the history as text among the facts, whose size readers
/// of safetensors bound.
const FORMAT: &str = "2";
const BEFORE: &str = "1";

/// No run makes as many steps: numbers up to it can be counted up without overflow.
const MOST_STEPS: u64 = 1 << 53;
/// Nor draws as many words.
const MOST_WORDS: u128 = 1 << 60;

/// A caller's own facts, kept with a checkpoint: names of classes, say.
pub type Notes = BTreeMap<String, String>;

/// What was read from a checkpoint.
#[derive(Debug)]
pub struct Saved<T> {
    /// The run, or its model.
    pub value: T,
    /// What the caller had added.
    pub notes: Notes,
    /// The file.
    pub path: PathBuf,
    /// Newer files that could not be used. A caller should say so.
    pub damaged: Vec<Damaged>,
    /// The BLAS it was written with, as [`blas_description`] had it, and the version of this crate. The bits go on as they would have
    /// with the same ones only.
    pub blas: String,
    /// See [`blas`](Self::blas).
    pub version: String,
}

impl<T> Saved<T> {
    fn with<U>(self, make: impl FnOnce(T) -> Result<U, CheckpointError>) -> Result<Saved<U>, CheckpointError> {
        let Self { value, notes, path, damaged, blas, version } = self;
        Ok(Saved { value: make(value)?, notes, path, damaged, blas, version })
    }
}

/// A whole checkpoint as it was read, whose loss the notes may tell.
#[derive(Debug)]
pub struct Stored {
    contents: Contents,
    path: PathBuf,
}

/// Where the generator stands in its stream.
#[derive(Serialize, Deserialize)]
struct StreamPosition {
    seed: [u8; 32],
    stream: u64,
    /// A number of 68 bits, for which JSON has no type.
    word: String,
}

impl Checkpoints {
    /// Writes the run as it is now: under another name, synced and renamed, so that a file of this name is whole. The one before
    /// is kept.
    ///
    /// # Errors
    /// [`CheckpointError`]; earlier checkpoints are as they were.
    pub fn save<F: Scalar, L: Loss<F>>(
        &self,
        trainer: &Trainer<F, L>,
        notes: &Notes,
    ) -> Result<PathBuf, CheckpointError> {
        self.write(trainer.position.steps, &contents(trainer, notes))
    }

    /// The newest checkpoint that is whole, for a caller that chooses the loss by its notes; else [`resume`](Self::resume) does it all. Who
    /// wants to go on with the run calls [`lock`](Self::lock) before.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn read(&self) -> Result<Saved<Stored>, CheckpointError> {
        let (contents, path, damaged) = self.newest()?;
        Stored { contents, path }.saved(damaged)
    }

    /// The newest run that is whole, to go on with, after [`lock`](Self::lock). The loss is the caller's, as its code is; so are the data.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found; [`CheckpointError::Mismatch`] for a loss of another [name](Loss::name) than the
    /// run has been trained with.
    pub fn resume<F: Scalar, L: Loss<F>>(&self, loss: L) -> Result<Saved<Trainer<F, L>>, CheckpointError> {
        self.lock()?;
        self.read()?.with(|stored| stored.trainer(loss))
    }

    /// The model of the newest checkpoint. SingleStep before it may be of a network that has hardly been trained, so it is not taken in its place;
    /// [`Model::load`] takes the one that it is given.
    ///
    /// # Errors
    /// [`CheckpointError::NewestDamaged`] if an older one only is whole; otherwise [`CheckpointError`], with what was expected and found.
    pub fn model<F: Scalar>(&self) -> Result<Saved<Model<F>>, CheckpointError> {
        let saved = self.read()?;
        if !saved.damaged.is_empty() {
            return Err(CheckpointError::NewestDamaged { damaged: saved.damaged, whole: saved.path });
        }
        saved.with(|stored| stored.model())
    }
}

impl<F: Scalar> Model<F> {
    /// The model in one checkpoint, wherever that file has been moved to.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn load(path: impl Into<PathBuf>) -> Result<Saved<Self>, CheckpointError> {
        Stored::load(path)?.with(|stored| stored.model())
    }
}

/// Coefficients that are 4 bytes long are kept as `f32`, all others as `f64`.
fn dtype<F: Scalar>() -> Dtype {
    if size_of::<F>() == 4 { Dtype::F32 } else { Dtype::F64 }
}

fn tensor<'a, F: Scalar>(numbers: impl Iterator<Item = &'a F>, shape: Vec<usize>) -> Tensor {
    let dtype = dtype::<F>();
    let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size_of::<F>());
    for number in numbers {
        // Exact both ways.
        match dtype {
            Dtype::F32 => bytes.extend((number.to_f64() as f32).to_le_bytes()),
            _ => bytes.extend(number.to_f64().to_le_bytes()),
        }
    }
    Tensor { dtype, shape, bytes }
}

fn numbers<F: Scalar>(tensor: &Tensor) -> Vec<F> {
    match tensor.dtype {
        Dtype::F32 => {
            let (numbers, _) = tensor.bytes.as_chunks::<4>();
            numbers.iter().map(|&bytes| F::from_f64(f64::from(f32::from_le_bytes(bytes)))).collect()
        }
        _ => {
            let (numbers, _) = tensor.bytes.as_chunks::<8>();
            numbers.iter().map(|&bytes| F::from_f64(f64::from_le_bytes(bytes))).collect()
        }
    }
}

/// The names that a linear layer has in `nn.Sequential`, where a ReLU has a number too.
fn names(prefix: &str, t: usize) -> [String; 2] {
    ["weight", "bias"].map(|name| format!("{prefix}{}.{name}", 2 * t))
}

fn put<F: Scalar>(contents: &mut Contents, prefix: &str, theta: &Parameters<F>) {
    for (t, (w, c)) in theta.w.iter().zip(&theta.c).enumerate() {
        let [weight, bias] = names(prefix, t);
        contents.tensors.insert(weight, tensor(w.iter(), w.shape().to_vec()));
        if !c.is_empty() {
            contents.tensors.insert(bias, tensor(c.iter(), vec![c.len()]));
        }
    }
}

/// The name of a field of the records.
fn column(name: &str) -> String {
    format!("history.{name}")
}

fn put_history(contents: &mut Contents, History { records }: &History) {
    let shape = vec![records.len()];
    let mut put = |name: &str, dtype, bytes| {
        contents.tensors.insert(column(name), Tensor { dtype, shape: shape.clone(), bytes });
    };
    // PyTorch has had unsigned types of this size for a short time only.
    let counts = |of: fn(&Record) -> u64| records.iter().flat_map(|record| of(record).to_le_bytes()).collect();
    put("epoch", Dtype::I64, counts(|record| record.epoch as u64));
    put("steps", Dtype::I64, counts(|record| record.steps));
    let numbers = |of: fn(&Record) -> f64| records.iter().flat_map(|record| of(record).to_le_bytes()).collect();
    put("loss", Dtype::F64, numbers(|record| record.loss));
    put("validation_loss", Dtype::F64, numbers(|record| record.validation_loss.unwrap_or(0.0)));
    put("learning_rate", Dtype::F64, numbers(|record| record.learning_rate));
    put("gradient_norm", Dtype::F64, numbers(|record| record.gradient_norm));
    put("seconds", Dtype::F64, numbers(|record| record.seconds));
    put("validated", Dtype::BOOL, records.iter().map(|record| record.validation_loss.is_some().into()).collect());
}

fn json(fact: &impl Serialize) -> String {
    serde_json::to_string(fact).expect("settings and positions have a text")
}

/// All that a run needs to go on.
fn contents<F: Scalar, L: Loss<F>>(trainer: &Trainer<F, L>, notes: &Notes) -> Contents {
    let mut contents = Contents::default();
    let Trainer {
        model: Model { mlp, standardizer }, loss, training, moments, generator, position, history, best, ..
    } = trainer;
    put(&mut contents, "", mlp.parameters());
    for (i, moment) in moments.arrays.iter().enumerate() {
        put(&mut contents, &format!("moment{}.", i + 1), moment);
    }
    if let Some(best) = best {
        put(&mut contents, "best.", best);
    }
    if let Some(Standardizer { mean, factor }) = standardizer {
        contents.tensors.insert("standardizer.mean".into(), tensor(mean.iter(), vec![mean.len()]));
        contents.tensors.insert("standardizer.factor".into(), tensor(factor.iter(), vec![factor.len()]));
    }
    put_history(&mut contents, history);
    let stream = StreamPosition {
        seed: generator.get_seed(),
        stream: generator.get_stream(),
        word: generator.get_word_pos().to_string(),
    };
    let facts = [
        ("format", FORMAT.to_owned()),
        (OURS, env!("CARGO_PKG_VERSION").to_owned()),
        ("blas", blas_description().to_owned()),
        ("loss", loss.name().into_owned()),
        ("constant", json(&mlp.constant())),
        ("training", json(training)),
        ("position", json(position)),
        ("generator", json(&stream)),
    ];
    contents.facts.extend(facts.map(|(name, fact)| (name.to_owned(), fact)));
    contents.facts.extend(notes.iter().map(|(name, note)| (format!("note.{name}"), note.clone())));
    contents
}

impl Stored {
    /// SingleStep checkpoint, wherever that file has been moved to.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn load(path: impl Into<PathBuf>) -> Result<Saved<Self>, CheckpointError> {
        let path = path.into();
        Self { contents: read(&path)?, path }.saved(Vec::new())
    }

    /// The run, to go on with; its data are the caller's.
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
        let model: Model<F> = self.model()?;
        let training: Training = self.json("training")?;
        let mut trainer = Trainer::new(model, loss, training)
            .map_err(|error| self.mismatch("settings", "such as can be trained with", &error.to_string()))?;
        let shape = trainer.model.mlp.widths().to_vec();
        let constant = trainer.model.mlp.constant();
        for i in 0..trainer.moments.arrays.len() {
            trainer.moments.arrays[i] = self.parameters(&format!("moment{}.", i + 1), &shape, constant)?;
        }
        trainer.moments.reset_bounds(trainer.model.mlp.parameters());
        if self.contents.tensors.contains_key("best.0.weight") {
            trainer.best = Some(self.parameters("best.", &shape, constant)?);
        }
        trainer.history = History { records: self.records()? };
        trainer.position = self.position(&trainer.history.records, trainer.training.batch)?;
        let StreamPosition { seed, stream, word } = self.json("generator")?;
        let position = word.parse().ok().filter(|&word| word < MOST_WORDS);
        let position = position.ok_or_else(|| self.mismatch("generator", "a position in its stream", &word))?;
        let mut generator = Generator::from_seed(seed);
        generator.set_stream(stream);
        generator.set_word_pos(position);
        trainer.generator = generator;
        Ok(trainer)
    }

    /// A record for each epoch, in order.
    fn records(&self) -> Result<Vec<Record>, CheckpointError> {
        let records = if self.fact("format")? == BEFORE {
            let records: Result<Vec<Record>, _> =
                csv::Reader::from_reader(self.fact("history")?.as_bytes()).deserialize().collect();
            records.map_err(|error| self.mismatch("history", "a record for each epoch", &error.to_string()))?
        } else {
            self.columns()?
        };
        let mut steps = 0;
        for (i, record) in records.iter().enumerate() {
            if record.epoch != i + 1 {
                return Err(self.mismatch("history.epoch", &(i + 1).to_string(), &record.epoch.to_string()));
            }
            if record.steps < steps {
                let expected = format!("at least {steps}, as before epoch {}", i + 1);
                return Err(self.mismatch("history.steps", &expected, &record.steps.to_string()));
            }
            steps = record.steps;
        }
        Ok(records)
    }

    fn columns(&self) -> Result<Vec<Record>, CheckpointError> {
        let epochs = self.contents.tensors.get("history.epoch").map(|tensor| tensor.shape.as_slice());
        let count = if let Some(&[count]) = epochs { count } else { 0 };
        let column = |name: &str, dtype| Ok(self.array(&column(name), dtype, &[count])?.bytes.as_slice());
        let eight = |name, dtype| Ok(column(name, dtype)?.as_chunks::<8>().0);
        let (epoch, steps) = (eight("epoch", Dtype::I64)?, eight("steps", Dtype::I64)?);
        let (loss, validation_loss) = (eight("loss", Dtype::F64)?, eight("validation_loss", Dtype::F64)?);
        let (learning_rate, gradient_norm) = (eight("learning_rate", Dtype::F64)?, eight("gradient_norm", Dtype::F64)?);
        let (seconds, validated) = (eight("seconds", Dtype::F64)?, column("validated", Dtype::BOOL)?);
        let record = |i: usize| Record {
            // What is no number of an epoch is none of the next one either.
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

    /// Where the run stands, which its history and its batches must allow: a trainer counts up from there without looking.
    fn position(&self, records: &[Record], batch: usize) -> Result<Position, CheckpointError> {
        let position: Position = self.json("position")?;
        let Position {
            epoch,
            batch: done,
            samples,
            rows,
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
        let epochs = records.len();
        check(epoch == epochs, &format!("{epochs} epochs, as in the history"), &epoch)?;
        let least_steps = records.last().map_or(0, |record| record.steps).saturating_add(done as u64);
        let expected = format!("from {least_steps} to {MOST_STEPS} steps");
        check((least_steps..=MOST_STEPS).contains(&steps), &expected, &steps)?;
        let batches = samples.div_ceil(batch);
        check(done == 0 || done < batches, &format!("less than {batches} batches of an epoch"), &done)?;
        check(samples <= rows, &format!("at most {rows} samples, of so many rows"), &samples)?;
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

    /// A tensor of so many rows and columns, or of one axis.
    fn tensor<F: Scalar>(&self, name: &str, shape: &[usize]) -> Result<Vec<F>, CheckpointError> {
        Ok(numbers(self.array(name, dtype::<F>(), shape)?))
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
        constant: Constant,
    ) -> Result<Parameters<F>, CheckpointError> {
        let (mut w, mut c) = (Vec::new(), Vec::new());
        for (t, d) in widths.windows(2).enumerate() {
            let [weight, bias] = names(prefix, t);
            let shape = (d[1], d[0]);
            let weight = self.tensor(&weight, &[d[1], d[0]])?;
            w.push(Array2::from_shape_vec(shape, weight).expect("as many numbers as the shape has"));
            let has_constant = t + 2 == widths.len() || constant.at(t);
            c.push(if has_constant { Array1::from(self.tensor(&bias, &[d[1]])?) } else { Array1::from(Vec::new()) });
        }
        Ok(Parameters { w, c })
    }

    /// d[0], …, m, as the shapes of the weights have it.
    fn widths(&self) -> Result<Vec<usize>, CheckpointError> {
        let mut widths = Vec::new();
        for t in 0.. {
            let [weight, bias] = names("", t);
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

    /// The model as it was when the checkpoint was written.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], with what was expected and found.
    pub fn model<F: Scalar>(&self) -> Result<Model<F>, CheckpointError> {
        self.model_of("")
    }

    /// The model of the best epoch so far, in a run with [early stopping](Training::early_stopping) that has been through one; at the end of
    /// such a run it is the model.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], with what was expected and found.
    pub fn best_model<F: Scalar>(&self) -> Result<Option<Model<F>>, CheckpointError> {
        const BEST: &str = "best.";
        let [weight, _] = names(BEST, 0);
        self.contents.tensors.contains_key(&weight).then(|| self.model_of(BEST)).transpose()
    }

    fn model_of<F: Scalar>(&self, prefix: &str) -> Result<Model<F>, CheckpointError> {
        let (widths, constant) = (self.widths()?, self.json("constant")?);
        let theta = self.parameters(prefix, &widths, constant)?;
        let mlp = Mlp::from_parameters(&widths, constant, theta)
            .map_err(|error| self.mismatch("network", "its tensors", &error.to_string()))?;
        let standardizer = if self.contents.tensors.contains_key("standardizer.mean") {
            // Older versions wrote them as the network's numbers.
            let row = |name| {
                let row = self.tensor(name, &widths[..1]);
                let row = row.or_else(|error| {
                    let narrow = self.tensor::<f32>(name, &widths[..1]).map_err(|_| error)?;
                    Ok(narrow.into_iter().map(f64::from).collect())
                });
                row.map(Array1::<f64>::from)
            };
            Some(Standardizer { mean: row("standardizer.mean")?, factor: row("standardizer.factor")? })
        } else {
            None
        };
        Ok(Model { mlp, standardizer })
    }

    fn saved(self, damaged: Vec<Damaged>) -> Result<Saved<Self>, CheckpointError> {
        let format = self.fact("format")?;
        if ![BEFORE, FORMAT].contains(&format) {
            return Err(self.mismatch("format", FORMAT, format));
        }
        let (blas, version) = (self.fact("blas")?.to_owned(), self.fact(OURS)?.to_owned());
        let notes = self.contents.facts.iter();
        let note = |(name, note): (&String, &String)| Some((name.strip_prefix("note.")?.to_owned(), note.clone()));
        let notes = notes.filter_map(note).collect();
        Ok(Saved { notes, path: self.path.clone(), damaged, blas, version, value: self })
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
