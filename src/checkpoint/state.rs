//! A training run as a file: everything that is needed to resume it with the same bits, in a form
//! that PyTorch can read.
//!
//! ```text
//! in the file                           content
//! 0.weight, 2.weight, …                 w[0], w[1], …, alpha, each (d[t+1], d[t])
//! 0.bias, 2.bias, …                     c[0], c[1], …, b, where there is one
//! moment1.0.weight, moment2.0.weight, … the optimiser's v, or its m and v
//! best.0.weight, …                      θ of the best epoch, with early stopping
//! standardizer.mean, .factor            of the inputs: z = (x − mean) · factor
//! history.epoch, history.loss, …        the fields of the records, a number for each epoch;
//!                                       history.validated: which have a validation loss
//! metadata                              settings, position, the generator of the shuffles, the
//!                                       loss's name, the versions of crate and BLAS, the caller's
//!                                       notes, the checksum
//! ```
//!
//! The names and layouts are those of `nn.Sequential(nn.Linear, nn.ReLU, nn.Linear, …)`:
//!
//! ```python
//! import glob
//! from torch import nn
//! from safetensors.torch import load_file
//!
//! tensors = load_file(sorted(glob.glob("run/step-*.safetensors"))[-1])
//! net = nn.Sequential(
//!     nn.Linear(784, 512), nn.ReLU(),
//!     nn.Linear(512, 512, bias=False), nn.ReLU(),
//!     nn.Linear(512, 10),
//! )
//! net.load_state_dict({name: t for name, t in tensors.items() if name[0].isdigit()})
//! if "standardizer.mean" in tensors:
//!     x = (x - tensors["standardizer.mean"]) * tensors["standardizer.factor"]
//!     x = x.to(net[0].weight.dtype)
//! ```
//!
//! A hidden layer has `bias=False` where `z[t]` has no constant; with
//! [`Bias::EveryLayer`](crate::Bias::EveryLayer) each layer has its bias.

use std::collections::BTreeMap;

use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::checkpoint::format::{Contents, Dtype, OURS, Tensor};
use crate::linalg::blas::blas_description;
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::parameters::Parameters;
use crate::network::standardizer::Standardizer;
use crate::optim::moments::Moments;
use crate::random::Generator;
use crate::train::history::{History, Record};
use crate::train::model::Model;
use crate::train::trainer::Trainer;

/// The format that is written. It counts up when the meaning of a file changes.
pub(crate) const FORMAT: &str = "2";
/// The format before, which is still read. It had the history as text among the facts, whose size
/// readers of safetensors limit.
pub(crate) const FORMAT_1: &str = "1";

/// The caller's own facts, kept with a checkpoint: names of classes, for example.
pub type Notes = BTreeMap<String, String>;

/// Where the generator is in its stream.
#[derive(Serialize, Deserialize)]
pub(crate) struct StreamPosition {
    seed: [u8; 32],
    stream: u64,
    /// A number of 68 bits, for which JSON has no type.
    pub(crate) word: String,
}

impl StreamPosition {
    /// No run draws as many words.
    const MOST_WORDS: u128 = 1 << 60;

    fn of(generator: &Generator) -> Self {
        let Generator(chacha) = generator;
        Self { seed: chacha.get_seed(), stream: chacha.get_stream(), word: chacha.get_word_pos().to_string() }
    }

    /// The generator at this position; `None` if that is not a position that a run can reach.
    pub(crate) fn generator(&self) -> Option<Generator> {
        let word = self.word.parse().ok().filter(|&word| word < Self::MOST_WORDS)?;
        let mut generator = Generator::from_seed(self.seed);
        generator.set_stream(self.stream);
        generator.0.set_word_pos(word);
        Some(generator)
    }
}

/// The names of weight and bias of a linear layer in `nn.Sequential`, where each ReLU counts as a
/// layer.
pub(crate) fn layer_names(prefix: &str, t: usize) -> [String; 2] {
    ["weight", "bias"].map(|name| format!("{prefix}{}.{name}", 2 * t))
}

/// The name of the tensor with a field of the records.
pub(crate) fn history_name(field: &str) -> String {
    format!("history.{field}")
}

/// The tensors and facts of a run.
pub(crate) fn contents<F: Scalar, L: Loss<F>>(trainer: &Trainer<F, L>, notes: &Notes) -> Contents {
    let mut contents = Contents::default();
    // All fields by name, so that a new one cannot be forgotten here. The order follows from the
    // generator, and the engine has buffers only.
    let Trainer { model, loss, training, moments, generator, position, history, best, order: _, engine: _ } = trainer;
    put_model(&mut contents, model);
    // The bounds are reset when the moments are read.
    let Moments { arrays, bounds: _ } = moments;
    for (i, moment) in arrays.iter().enumerate() {
        put_parameters(&mut contents, &format!("moment{}.", i + 1), moment);
    }
    if let Some(best) = best {
        put_parameters(&mut contents, "best.", best);
    }
    put_history(&mut contents, history);
    // Settings and position are written by serde, with all their fields.
    let facts = [
        ("loss", loss.name().into_owned()),
        ("training", json(training)),
        ("position", json(position)),
        ("generator", json(&StreamPosition::of(generator))),
    ];
    contents.facts.extend(facts.map(|(name, fact)| (name.to_owned(), fact)));
    contents.facts.extend(notes.iter().map(|(name, note)| (format!("note.{name}"), note.clone())));
    contents
}

/// A model without its run: what predictions need, and nothing else.
pub(crate) fn model_contents<F: Scalar>(model: &Model<F>) -> Contents {
    let mut contents = Contents::default();
    put_model(&mut contents, model);
    contents
}

/// The network, its standardisation, and what a reader of any of our files needs to know.
fn put_model<F: Scalar>(contents: &mut Contents, Model { mlp, standardizer }: &Model<F>) {
    put_parameters(contents, "", mlp.parameters());
    if let Some(Standardizer { mean, factor }) = standardizer {
        contents.tensors.insert("standardizer.mean".into(), Tensor::new(mean.iter(), vec![mean.len()]));
        contents.tensors.insert("standardizer.factor".into(), Tensor::new(factor.iter(), vec![factor.len()]));
    }
    let facts = [
        ("format", FORMAT.to_owned()),
        (OURS, env!("CARGO_PKG_VERSION").to_owned()),
        ("blas", blas_description().to_owned()),
        ("bias", json(&mlp.bias())),
        ("products", json(&mlp.products())),
    ];
    contents.facts.extend(facts.map(|(name, fact)| (name.to_owned(), fact)));
}

fn put_parameters<F: Scalar>(contents: &mut Contents, prefix: &str, theta: &Parameters<F>) {
    for (t, (w, c)) in theta.w.iter().zip(&theta.c).enumerate() {
        let [weight, bias] = layer_names(prefix, t);
        contents.tensors.insert(weight, Tensor::new(w.iter(), w.shape().to_vec()));
        if !c.is_empty() {
            contents.tensors.insert(bias, Tensor::new(c.iter(), vec![c.len()]));
        }
    }
}

/// A tensor for each field of the records, of one number an epoch.
fn put_history(contents: &mut Contents, History { records }: &History) {
    let shape = vec![records.len()];
    let mut put = |name: &str, dtype, bytes| {
        contents.tensors.insert(history_name(name), Tensor { dtype, shape: shape.clone(), bytes });
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

pub(crate) fn json(fact: &impl Serialize) -> String {
    serde_json::to_string(fact).expect("settings, positions and names can be written as JSON")
}
