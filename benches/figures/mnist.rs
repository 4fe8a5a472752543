//! MNIST's digits from a folder of the user: the accuracies of the optimisers and their times,
//! compared with PyTorch and scikit-learn if `ci/peers` has installed them.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gemmprop::data::{Images, idx_folder};
use gemmprop::{Bias, Dataset, LearningRate, Mlp, Optimizer, SoftmaxCrossEntropy, Trainer, TrainingSettings};
use ndarray::{Axis, concatenate, s};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::learning::accuracy;
use report::page::Table;
use report::plot::{Axis as FigureAxis, Figure, Marker, Panel, Scale, Series, colour};
use report::progress::Progress;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WIDTHS: [usize; 4] = [784, 512, 512, 10];
const SEEDS: u64 = 3;
/// The seeds of the first recipe, here and in PyTorch: three seeds cannot tell 0.955 from 0.957.
const MANY_SEEDS: u64 = 16;
const FIRST: &str = "SGD, η 0.1";

/// A network that has been trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    library: String,
    recipe: String,
    seed: u64,
    epochs: usize,
    test_accuracy: f64,
    seconds: f64,
}

/// Our ways to train, each for 25 epochs, of batches of 32 where nothing else is said.
fn recipes() -> [(&'static str, TrainingSettings); 4] {
    let base = TrainingSettings { epochs: 25, batch: 32, ..TrainingSettings::default() };
    [
        (FIRST, base.clone()),
        ("SGD, η 0.2, cosine", TrainingSettings { learning_rate: LearningRate::cosine(0.2, 0.0), ..base.clone() }),
        (
            "Nesterov 0.9, η 0.05, cosine",
            TrainingSettings {
                optimizer: Optimizer::Nesterov { mu: 0.9 },
                learning_rate: LearningRate::cosine(0.05, 0.0),
                ..base.clone()
            },
        ),
        (
            "AdamW, η 0.001, λ 0.5, cosine, batch 16",
            TrainingSettings {
                optimizer: Optimizer::adam(),
                learning_rate: LearningRate::cosine(1e-3, 0.0),
                weight_decay: 0.5,
                batch: 16,
                ..base
            },
        ),
    ]
}

/// The recipes of other libraries: the library, and the recipe as its script and the table name it.
const PEERS: [(&str, &str, &str); 4] = [
    ("torch", "sgd", FIRST),
    ("torch", "adamw", "AdamW, η 0.001, λ 0.5, cosine, batch 16"),
    ("sklearn", "sgd", FIRST),
    ("sklearn", "adam", "Adam, η 0.001"),
];

/// The folder's test files where it has them; else the last fifth of the samples.
fn split(folder: &Path) -> Result<(Images<f32>, Images<f32>)> {
    let found = idx_folder::<f32>(folder)?;
    if let Some(test) = found.test {
        return Ok((found.train, test));
    }
    let Images { x, labels } = found.train;
    let train = x.nrows() * 4 / 5;
    let part = |range: std::ops::Range<usize>| Images {
        x: x.slice(s![range.clone(), ..]).to_owned(),
        labels: labels.slice(s![range]).to_owned(),
    };
    Ok((part(0..train), part(train..x.nrows())))
}

/// For the peers: inputs and labels, those to train on first.
fn write(path: &Path, train: &Images<f32>, test: &Images<f32>) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(file, "{} {} {}", train.x.nrows(), test.x.nrows(), train.x.ncols())?;
    let x = concatenate(Axis(0), &[train.x.view(), test.x.view()])?;
    x.iter().try_for_each(|x| file.write_all(&x.to_le_bytes()))?;
    let mut labels = train.labels.iter().chain(&test.labels);
    labels.try_for_each(|&label| file.write_all(&(label as u64).to_le_bytes()))?;
    Ok(file.flush()?)
}

/// w and alpha ~ N(0, 2/d), as PyTorch's script has them: with He's gain on the last layer too.
fn initialised(seed: u64) -> gemmprop::Result<Mlp<f32>> {
    Mlp::from_weights(&WIDTHS, Bias::Input, seed, |_, d, generator| {
        let normal: f64 = StandardNormal.sample(generator);
        normal * (2.0 / d as f64).sqrt()
    })
}

/// Every recipe with its seeds, in turns. `peers` is where the Python environment of `ci/peers` is.
pub(crate) fn measure(folder: &Path, peers: &Path, quick: bool) -> Result<Vec<Row>> {
    let (train, test) = split(folder)?;
    let python = peers.join("python/bin/python");
    let script = Path::new(report::ROOT).join("benches/peers/python/mnist.py");
    let file = peers.join("mnist.bin");
    if python.exists() {
        write(&file, &train, &test)?;
    } else {
        eprintln!("{} is not there: without peers, which ci/peers installs", python.display());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let seeds = if quick { 1 } else { MANY_SEEDS };
    let belongs = |seed: u64, recipe: &str, library: &str| seed <= SEEDS || (recipe == FIRST && library != "sklearn");
    let progress = Progress::new("mnist", seeds as usize);
    let mut rows = Vec::new();
    for seed in 1..=seeds {
        progress.begin(format!("seed {seed}"));
        for (recipe, training) in recipes().into_iter().filter(|(recipe, _)| belongs(seed, recipe, "gemmprop")) {
            let epochs = if quick { 1 } else { training.epochs };
            let mut trainer =
                Trainer::new(initialised(seed)?, SoftmaxCrossEntropy, TrainingSettings { seed, epochs, ..training })?;
            let start = Instant::now();
            pool.install(|| trainer.fit(Dataset::new(train.x.view(), train.labels.view()), None, &mut ()))?;
            let seconds = start.elapsed().as_secs_f64();
            let test_accuracy = accuracy(&trainer.model().classify(test.x.view())?, test.labels.view());
            rows.push(Row { library: "gemmprop".into(), recipe: recipe.into(), seed, epochs, test_accuracy, seconds });
        }
        let there = python.exists() && !quick;
        for (library, recipe, name) in PEERS.iter().filter(|(library, _, name)| there && belongs(seed, name, library)) {
            // Waits until the threads of the previous library sleep.
            std::thread::sleep(Duration::from_millis(250));
            let mut command = Command::new(&python);
            command.arg(&script).args([library, recipe]).arg(seed.to_string()).arg(&file);
            let output = command.envs([("OMP_NUM_THREADS", "2"), ("OPENBLAS_NUM_THREADS", "2")]).output()?;
            let line = String::from_utf8(output.stdout)?;
            let Some([version, test_accuracy, seconds]) =
                line.trim().split(',').collect::<Vec<_>>().first_chunk().copied()
            else {
                eprintln!("{library}: {}", String::from_utf8_lossy(&output.stderr));
                continue;
            };
            let (test_accuracy, seconds) = (test_accuracy.parse()?, seconds.parse()?);
            rows.push(Row {
                library: version.to_owned(),
                recipe: name.to_string(),
                seed,
                epochs: 25,
                test_accuracy,
                seconds,
            });
        }
        progress.end();
    }
    Ok(rows)
}

/// The rows of each library and recipe, in their order.
fn groups(rows: &[Row]) -> Vec<(&str, &str, Vec<&Row>)> {
    let mut groups: Vec<(&str, &str, Vec<&Row>)> = Vec::new();
    for row in rows {
        match groups
            .iter_mut()
            .find(|(library, recipe, _)| (*library, *recipe) == (row.library.as_str(), row.recipe.as_str()))
        {
            Some((_, _, group)) => group.push(row),
            None => groups.push((&row.library, &row.recipe, vec![row])),
        }
    }
    groups
}

pub(crate) fn figure(rows: &[Row], facts: &str) -> Figure {
    // The colour shows the library, and the mark the recipe.
    let colours = [colour::VERMILION, colour::BLUE, colour::GREY];
    let marks = [Marker::Diamond, Marker::Square, Marker::Cross, Marker::Circle, Marker::Triangle];
    let (mut libraries, mut recipes) = (Vec::new(), Vec::new());
    let number = |known: &mut Vec<String>, name: &str| {
        known.iter().position(|known| known == name).unwrap_or_else(|| {
            known.push(name.to_owned());
            known.len() - 1
        })
    };
    let series = groups(rows).into_iter().map(|(library, recipe, group)| {
        let colour = colours[number(&mut libraries, library) % colours.len()];
        let marker = marks[number(&mut recipes, recipe) % marks.len()];
        let marks = group.iter().map(|row| (row.seconds, row.test_accuracy)).collect();
        Series { label: format!("{library}: {recipe}"), colour, marker, marks, ..Series::default() }
    });
    let series: Vec<Series> = series.collect();
    Figure {
        name: "mnist",
        title: "MNIST's digits: accuracy and the time it took".to_owned(),
        panels: vec![Panel {
            title: "784-512-512-10, a point for each seed".to_owned(),
            x: FigureAxis { label: "time of training, seconds", scale: Scale::Log },
            y: FigureAxis { label: "accuracy on the test set", scale: Scale::Linear },
            series,
        }],
        caption: format!(
            "f32, 25 epochs, batch 32 unless named, inputs 0 to 1, He initialisation of all layers (scikit-learn: its own, and a bias on every layer). PyTorch eager. \
             All recipes but the first were chosen by their accuracy on these test digits. Two threads each, one after another. {facts}"
        ),
    }
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let header =
        ["library", "recipe", "seeds", "test accuracy, mean", "± standard error", "least", "most", "seconds, mean"];
    let table = groups(rows).into_iter().map(|(library, recipe, group)| {
        let accuracies: Vec<f64> = group.iter().map(|row| row.test_accuracy).collect();
        let n = accuracies.len() as f64;
        let mean = accuracies.iter().sum::<f64>() / n;
        let squares: f64 = accuracies.iter().map(|accuracy| (accuracy - mean).powi(2)).sum();
        let (least, most) = accuracies.iter().fold((1.0_f64, 0.0_f64), |(a, b), &x| (a.min(x), b.max(x)));
        let seconds = group.iter().map(|row| row.seconds).sum::<f64>() / n;
        vec![
            library.to_owned(),
            recipe.to_owned(),
            group.len().to_string(),
            format!("{mean:.4}"),
            format!("{:.4}", (squares / (n * (n - 1.0).max(1.0))).sqrt()),
            format!("{least:.4}"),
            format!("{most:.4}"),
            format!("{seconds:.2}"),
        ]
    });
    Table { header: header.map(str::to_owned).to_vec(), rows: table.collect() }
}
