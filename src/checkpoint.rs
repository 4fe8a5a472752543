//! A training run as a file: all that it needs to go on with the same bits, in a form that PyTorch can read.
//!
//! | in the file | what |
//! |---|---|
//! | `0.weight`, `2.weight`, … | `w[0]`, `w[1]`, …, alpha, each `(d[t+1], d[t])` |
//! | `0.bias`, `2.bias`, … | `c[0]`, `c[1]`, …, b, where there is one |
//! | `moment1.0.weight`, `moment2.0.weight`, … | the optimiser's v, or its m and v |
//! | `best.0.weight`, … | θ of the best epoch, with early stopping |
//! | `standardizer.mean`, `standardizer.factor` | what is done to x: (x − mean) · factor, both in double precision |
//! | metadata | settings, position, the generator of the shuffles, history, versions of crate and BLAS, the caller's notes, checksum |
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
use std::path::PathBuf;

use ndarray::{Array1, Array2};
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::archive::{CheckpointError, Checkpoints, Contents, Damaged, Dtype, Tensor, read};
use crate::history::{History, Record};
use crate::loss::Loss;
use crate::model::Model;
use crate::network::{Constant, Mlp, Parameters};
use crate::position::Position;
use crate::random::Generator;
use crate::scalar::Scalar;
use crate::standardizer::Standardizer;
use crate::threads::blas_description;
use crate::trainer::Trainer;
use crate::training::Training;

/// What this file writes; a change of its meaning counts up.
const FORMAT: &str = "1";

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
        let mut contents = Contents::default();
        let Trainer {
            model: Model { mlp, standardizer }, training, moments, generator, position, history, best, ..
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
        let stream = StreamPosition {
            seed: generator.get_seed(),
            stream: generator.get_stream(),
            word: generator.get_word_pos().to_string(),
        };
        let facts = [
            ("format", FORMAT.to_owned()),
            ("gemmprop", env!("CARGO_PKG_VERSION").to_owned()),
            ("blas", blas_description().to_owned()),
            ("constant", json(&mlp.constant())),
            ("training", json(training)),
            ("position", json(position)),
            ("generator", json(&stream)),
            ("history", history.to_csv()),
        ];
        contents.facts.extend(facts.map(|(name, fact)| (name.to_owned(), fact)));
        contents.facts.extend(notes.iter().map(|(name, note)| (format!("note.{name}"), note.clone())));
        self.write(position.steps, &contents)
    }

    /// The newest checkpoint that is whole, for a caller that chooses the loss by its notes; else [`resume`](Self::resume) does it all.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn read(&self) -> Result<Saved<Stored>, CheckpointError> {
        let (contents, path, damaged) = self.newest()?;
        Stored { contents, path }.saved(damaged)
    }

    /// The newest run that is whole, to go on with. The loss is the caller's, as its code is; so are the data.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn resume<F: Scalar, L: Loss<F>>(&self, loss: L) -> Result<Saved<Trainer<F, L>>, CheckpointError> {
        self.read()?.with(|stored| stored.trainer(loss))
    }

    /// The model of the newest run that is whole.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn model<F: Scalar>(&self) -> Result<Saved<Model<F>>, CheckpointError> {
        self.read()?.with(|stored| stored.model())
    }
}

impl<F: Scalar> Model<F> {
    /// The model in one checkpoint, wherever that file has been moved to.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn load(path: impl Into<PathBuf>) -> Result<Saved<Self>, CheckpointError> {
        let path = path.into();
        Stored { contents: read(&path)?, path }.saved(Vec::new())?.with(|stored| stored.model())
    }
}

/// Numbers that are 4 bytes long are kept as `f32`, all others as `f64`.
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

fn json(fact: &impl Serialize) -> String {
    serde_json::to_string(fact).expect("settings and positions have a text")
}

impl Stored {
    /// The run, to go on with; its data are the caller's.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], with what was expected and found.
    pub fn trainer<F: Scalar, L: Loss<F>>(&self, loss: L) -> Result<Trainer<F, L>, CheckpointError> {
        let model: Model<F> = self.model()?;
        let training: Training = self.json("training")?;
        let epochs = training.epochs;
        let mut trainer = Trainer::new(model, loss, training)
            .map_err(|error| self.mismatch("settings", "such as can be trained with", &error.to_string()))?;
        let shape = trainer.model.mlp.widths().to_vec();
        let constant = trainer.model.mlp.constant();
        for i in 0..trainer.moments.arrays.len() {
            trainer.moments.arrays[i] = self.parameters(&format!("moment{}.", i + 1), &shape, constant)?;
        }
        trainer.moments.watch_again(trainer.model.mlp.parameters());
        if self.contents.tensors.contains_key("best.0.weight") {
            trainer.best = Some(self.parameters("best.", &shape, constant)?);
        }
        let position: Position = self.json("position")?;
        let batches = position.samples.div_ceil(trainer.training.batch);
        if position.batch > 0 && position.batch >= batches {
            let found = format!("batch {} of {batches} in epoch {} of {epochs}", position.batch, position.epoch);
            return Err(self.mismatch("position", "a batch of the epoch", &found));
        }
        trainer.position = position;
        let StreamPosition { seed, stream, word } = self.json("generator")?;
        let word = word.parse().map_err(|_| self.mismatch("generator", "a position in its stream", &word))?;
        let mut generator = Generator::from_seed(seed);
        generator.set_stream(stream);
        generator.set_word_pos(word);
        trainer.generator = generator;
        let records: Result<Vec<Record>, _> =
            csv::Reader::from_reader(self.fact("history")?.as_bytes()).deserialize().collect();
        let records =
            records.map_err(|error| self.mismatch("history", "a record for each epoch", &error.to_string()))?;
        trainer.history = History { records };
        Ok(trainer)
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
        let show = |dtype: Dtype, shape: &[usize]| format!("{dtype:?} {shape:?}");
        let expected = show(dtype::<F>(), shape);
        match self.contents.tensors.get(name) {
            None => Err(self.mismatch(name, &expected, "no such tensor")),
            Some(tensor) if tensor.dtype != dtype::<F>() || tensor.shape != shape => {
                Err(self.mismatch(name, &expected, &show(tensor.dtype, &tensor.shape)))
            }
            Some(tensor) => Ok(numbers(tensor)),
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
            let [weight, _] = names("", t);
            match self.contents.tensors.get(&weight).map(|tensor| tensor.shape.as_slice()) {
                None if t > 0 => break,
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

    fn model<F: Scalar>(&self) -> Result<Model<F>, CheckpointError> {
        let (widths, constant) = (self.widths()?, self.json("constant")?);
        let theta = self.parameters("", &widths, constant)?;
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
        if format != FORMAT {
            return Err(self.mismatch("format", FORMAT, format));
        }
        let (blas, version) = (self.fact("blas")?.to_owned(), self.fact("gemmprop")?.to_owned());
        let notes = self.contents.facts.iter();
        let note = |(name, note): (&String, &String)| Some((name.strip_prefix("note.")?.to_owned(), note.clone()));
        let notes = notes.filter_map(note).collect();
        Ok(Saved { notes, path: self.path.clone(), damaged, blas, version, value: self })
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
