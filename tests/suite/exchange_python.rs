//! The programs that networks go to and come from, run by a Python that the environment variable
//! `PYTHON` names: `ci/exchange` sets it up and runs these tests.

#![cfg(feature = "onnx")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{self, Real};
use crate::exchange::all_compute_the_same;

use gemmprop::exchange::{OnnxExport, OutputFunction};
use gemmprop::{Bias, Dataset, Mlp, Model, SoftmaxCrossEntropy, Standardizer, Trainer, TrainingSettings};
use ndarray::{Array1, Array2, ArrayView1};
use ndarray_npy::{ReadableElement, WritableElement, read_npy, write_npy};

/// Runs a script of `exchange/` on a folder, with this on its standard input.
fn python(script: &str, folder: &Path, input: &str) {
    let python = std::env::var_os("PYTHON").expect("PYTHON: the path of a Python with the libraries");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/exchange").join(script);
    let text = folder.join("input");
    fs::write(&text, input).unwrap();
    let mut command = Command::new(python);
    command.arg(script).arg(folder).stdin(Stdio::from(fs::File::open(&text).unwrap()));
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    println!("{out}");
}

/// A model with samples, which goes to onnxruntime as `name.onnx`.
struct Case<F> {
    name: String,
    model: Model<F>,
    output: OutputFunction,
    x: Array2<F>,
}

impl<F: Real + WritableElement + ReadableElement> Case<F> {
    fn write(&self, folder: &Path) {
        let classes = match self.output {
            OutputFunction::Identity => Vec::new(),
            _ => (0..self.model.mlp.outputs().max(2)).map(|class| format!("class {class}")).collect(),
        };
        let path = folder.join(format!("{}.onnx", self.name));
        self.model.write_onnx(path, &OnnxExport { output: self.output, classes }).unwrap();
        write_npy(folder.join(format!("{}_x.npy", self.name)), &self.x).unwrap();
    }

    /// Both are within the bounds of the exact outputs. Returns how far they are apart, relative to
    /// the largest |ŷ| of all samples. (The ŷ of one sample may be small because large numbers
    /// cancel. Probabilities, of ŷ up to 1, are relative to 1.)
    fn compare(&self, folder: &Path) -> f64 {
        let theirs: Array2<F> = read_npy(folder.join(format!("{}_y.npy", self.name))).unwrap();
        let model = &self.model;
        let z = model.standardizer.as_ref().map(|standardizer| standardizer.transform(self.x.view()).unwrap());
        let (z, ours) = (z.unwrap_or_else(|| self.x.clone()), model.predict(self.x.view()).unwrap());
        let bounds = common::output_bounds(&model.mlp, z.view());
        let numbers = |a: ArrayView1<F>| a.iter().map(|a| a.to_f64()).collect::<Vec<f64>>();
        assert_eq!(theirs.dim(), ours.dim());
        let least = if self.output == OutputFunction::Identity { 0.0 } else { 1.0 };
        let largest = ours.iter().fold(least, |a: f64, y| a.max(y.to_f64().abs()));
        let mut worst = 0.0_f64;
        for ((e, theirs), ours) in bounds.outer_iter().zip(theirs.outer_iter()).zip(ours.outer_iter()) {
            let (theirs, ours, e) = (numbers(theirs), numbers(ours), e.to_vec());
            let (ours, bound) = match self.output {
                OutputFunction::Identity => (ours, e),
                OutputFunction::Softmax => common::probabilities::<F>(&ours, &e),
                OutputFunction::Sigmoid => {
                    let of_each = ours.iter().zip(&e).map(|(&y, &e)| {
                        let (p, bound) = common::probabilities::<F>(&[y], &[e]);
                        (p[0], bound[0])
                    });
                    of_each.unzip()
                }
            };
            common::assert_within(&self.name, &theirs, &bound, &ours, &bound);
            let apart = theirs.iter().zip(&ours).fold(0.0_f64, |a, (theirs, ours)| a.max((theirs - ours).abs()));
            worst = worst.max(apart);
        }
        worst / largest
    }
}

/// Odd widths and all places of biases, with and without a standardisation of large numbers.
fn cases<F: Real>() -> Vec<Case<F>> {
    let mut cases = Vec::new();
    for (seed, widths) in
        (1..).zip([&[3, 1][..], &[7, 10], &[1, 1, 1], &[129, 45, 7, 2], &[7, 129, 1, 45, 3], &[784, 300, 100, 10]])
    {
        for (i, bias) in [Bias::Input, Bias::EveryLayer, Bias::None].into_iter().enumerate() {
            for (j, output) in
                [OutputFunction::Identity, OutputFunction::Softmax, OutputFunction::Sigmoid].into_iter().enumerate()
            {
                let mlp = common::network::<F>(widths, bias, seed);
                if mlp.outputs() == 1 && output == OutputFunction::Softmax {
                    continue;
                }
                let mut x = common::uniform::<F>(33, widths[0], seed + 9);
                let standardized = (i + j) % 2 == 0;
                if standardized {
                    x.indexed_iter_mut().for_each(|((_, j), x)| *x = F::from_f64(x.to_f64() + 1e3 * j as f64));
                }
                let standardizer = standardized.then(|| Standardizer::fit(x.view()).unwrap());
                let name = format!("{seed}_{i}_{j}");
                cases.push(Case { name, model: Model { mlp, standardizer }, output, x });
            }
        }
    }
    cases
}

/// The handwritten digits, pixels from 0 to 16, learned, with ŷ and with probabilities.
fn digits() -> ([Case<f32>; 2], Array1<usize>) {
    let data = smartcore::dataset::digits::load_dataset();
    let x = Array2::from_shape_vec((data.num_samples, data.num_features), data.data.clone()).unwrap();
    let labels: Array1<usize> = data.target.iter().map(|&label| label as usize).collect();
    let training = TrainingSettings { standardize: true, epochs: 10, ..TrainingSettings::default() };
    let mlp = Mlp::<f32>::he(&[64, 64, 64, 10], Bias::EveryLayer, 1).unwrap();
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(Dataset::new(x.view(), labels.view()), None, &mut ()).unwrap();
    let cases = [("digits", OutputFunction::Softmax), ("digits_y_hat", OutputFunction::Identity)];
    let cases =
        cases.map(|(name, output)| Case { name: name.into(), model: trainer.model().clone(), output, x: x.clone() });
    (cases, labels)
}

/// Writes the models, lets onnxruntime compute them, and returns the largest distance.
fn worst<F: Real + WritableElement + ReadableElement>(folder: &Path, cases: &[Case<F>]) -> f64 {
    cases.iter().for_each(|case| case.write(folder));
    python("onnx_models.py", folder, "");
    cases.iter().map(|case| case.compare(folder)).fold(0.0, f64::max)
}

#[test]
#[ignore = "needs Python with onnx and onnxruntime; ci/exchange has them and runs it"]
fn onnxruntime_computes_what_the_model_does() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [of_f32, of_f64, of_digits] = folders.each_ref().map(tempfile::TempDir::path);
    let (digits, labels) = digits();
    let digits = worst(of_digits, &digits);
    let (narrow, wide) = (worst(of_f32, &cases::<f32>()), worst(of_f64, &cases::<f64>()));
    println!("relative to the largest |ŷ|: digits {digits:.1e}, f32 {narrow:.1e}, f64 {wide:.1e}");
    // A millionth, and as many roundings of double precision.
    assert!(digits.max(narrow) <= 1e-6 && wide <= 1e-6 * <f64 as Real>::U / <f32 as Real>::U);
    // And it is the right network.
    let p: Array2<f32> = read_npy(of_digits.join("digits_y.npy")).unwrap();
    let right = p.outer_iter().zip(&labels).filter(|(p, label)| p.iter().all(|&other| other <= p[**label])).count();
    assert!(right as f64 > 0.95 * labels.len() as f64, "{right} of {}", labels.len());
}

/// The first lines of Python in the documentation of a file.
fn documented(source: &str) -> String {
    let (_, rest) = source.split_once("/// ```python\n").unwrap();
    let (lines, _) = rest.split_once("/// ```\n").unwrap();
    lines
        .lines()
        .map(|line| format!("{}\n", line.trim_start().trim_start_matches("///").trim_start_matches(' ')))
        .collect()
}

#[test]
#[ignore = "needs Python with scikit-learn and safetensors; ci/exchange has them and runs it"]
fn networks_of_other_libraries_compute_what_they_did_there() {
    let place = tempfile::tempdir().unwrap();
    let lines = documented(include_str!("../../src/exchange/scikit_learn.rs"));
    python("libraries.py", place.path(), &lines);
    assert_eq!(all_compute_the_same(place.path()), 2 * (9 + 4 * (3 + 2)));
}
