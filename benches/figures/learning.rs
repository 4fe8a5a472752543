//! Learning curves on real data: handwritten digits by softmax, red wine by squared error.

use std::collections::BTreeMap;

use gemmprop::{Bias, Loss, Mlp, Sgd, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use serde::{Deserialize, Serialize};

use report::page::Table;
use report::plot::{Axis, Figure, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::progress::Progress;

const SEEDS: u64 = 5;
const EPOCHS: usize = 60;
const BATCH: usize = 32;

/// Samples in rows, the first ones to train on and the rest to test on, in the order of the file.
struct Data<T> {
    x: Array2<f32>,
    y: Array1<T>,
    train: usize,
}

impl<T> Data<T> {
    fn train(&self) -> (ArrayView2<'_, f32>, ArrayView1<'_, T>) {
        (self.x.slice(s![..self.train, ..]), self.y.slice(s![..self.train]))
    }
    fn test(&self) -> (ArrayView2<'_, f32>, ArrayView1<'_, T>) {
        (self.x.slice(s![self.train.., ..]), self.y.slice(s![self.train..]))
    }
}

/// The state after an epoch, of the digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DigitsEpoch {
    seed: u64,
    epoch: usize,
    train_loss: f64,
    train_accuracy: f64,
    test_loss: f64,
    test_accuracy: f64,
}

/// The state after an epoch, of the wine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WineEpoch {
    seed: u64,
    epoch: usize,
    train_loss: f64,
    test_loss: f64,
}

/// Trains one network per seed, and evaluates it after each epoch.
fn train<L: Loss<f32>, R>(
    name: &str,
    widths: &[usize],
    eta: f64,
    data: &Data<L::Target>,
    loss: &L,
    look: impl Fn(&Mlp<f32>, u64, usize) -> R,
) -> Vec<R> {
    let progress = Progress::new(name, SEEDS as usize);
    let mut curves = Vec::new();
    for seed in 0..SEEDS {
        progress.begin(format!("seed {seed}, {EPOCHS} epochs"));
        let mut mlp = Mlp::<f32>::he(widths, Bias::EveryLayer, seed).expect("valid widths");
        let mut sgd = Sgd::new(BATCH, eta, seed).expect("valid hyperparameters");
        for epoch in 1..=EPOCHS {
            let (x, y) = data.train();
            sgd.train(&mut mlp, x, y, loss, 1).expect("valid data, and no divergence");
            curves.push(look(&mlp, seed, epoch));
        }
        progress.end();
    }
    curves
}

/// Mean loss over some samples.
fn mean_loss<L: Loss<f32>>(mlp: &Mlp<f32>, loss: &L, (x, y): (ArrayView2<f32>, ArrayView1<L::Target>)) -> f64 {
    let y_hat = mlp.predict(x).expect("valid data");
    let mut derivative = vec![0.0; mlp.outputs()];
    let sum: f64 = (y_hat.outer_iter().zip(y))
        .map(|(y_hat, &y)| f64::from(loss.value_and_derivative(&y_hat.to_vec(), &[y], &mut derivative)))
        .sum();
    sum / y_hat.nrows() as f64
}

/// How often a class is the label's.
pub(crate) fn accuracy(classes: &Array1<usize>, labels: ArrayView1<usize>) -> f64 {
    classes.iter().zip(labels).filter(|(class, label)| class == label).count() as f64 / labels.len() as f64
}

const DIGITS_WIDTHS: [usize; 4] = [64, 64, 64, 10];
const DIGITS_ETA: f64 = 0.1;

pub(crate) fn digits() -> Vec<DigitsEpoch> {
    let set = smartcore::dataset::digits::load_dataset();
    let x = Array2::from_shape_vec((set.num_samples, set.num_features), set.data).expect("a full table") / 16.0;
    let data = Data { x, y: set.target.iter().map(|&label| label as usize).collect(), train: 1437 };
    train("digits", &DIGITS_WIDTHS, DIGITS_ETA, &data, &SoftmaxCrossEntropy, |mlp, seed, epoch| {
        let train_loss = mean_loss(mlp, &SoftmaxCrossEntropy, data.train());
        let test_loss = mean_loss(mlp, &SoftmaxCrossEntropy, data.test());
        let accuracy = |(x, y): (ArrayView2<f32>, _)| accuracy(&mlp.classify(x).expect("finite data"), y);
        let (train_accuracy, test_accuracy) = (accuracy(data.train()), accuracy(data.test()));
        DigitsEpoch { seed, epoch, train_loss, train_accuracy, test_loss, test_accuracy }
    })
}

const WINE_WIDTHS: [usize; 4] = [11, 32, 32, 1];
const WINE_ETA: f64 = 0.01;

fn wine_data() -> Data<f32> {
    let set = linfa_datasets::winequality();
    // Number by number: the data set's ndarray is an older one.
    let x = Array2::from_shape_vec(set.records.dim(), set.records.iter().copied().collect());
    let (mut x, train) = (x.expect("a full table"), 1279);
    // The scaling uses the training samples alone, since the test samples are not known yet.
    for mut column in x.columns_mut() {
        let known = column.slice(s![..train]);
        let (mean, deviation) = (known.mean().expect("samples"), known.std(0.0));
        column.map_inplace(|x| *x = (*x - mean) / deviation);
    }
    let y = set.targets.iter().map(|&quality| quality as f32).collect();
    Data { x: x.mapv(|x| x as f32), y, train }
}

pub(crate) fn wine() -> Vec<WineEpoch> {
    let data = wine_data();
    train("wine", &WINE_WIDTHS, WINE_ETA, &data, &SquaredError, |mlp, seed, epoch| WineEpoch {
        seed,
        epoch,
        train_loss: mean_loss(mlp, &SquaredError, data.train()),
        test_loss: mean_loss(mlp, &SquaredError, data.test()),
    })
}

/// The test loss of a model that always says the mean of what it was trained on.
fn trivial_wine() -> f64 {
    let data = wine_data();
    let mean = data.train().1.mean().expect("samples");
    data.test().1.mapv(|y| f64::from(0.5 * (mean - y).powi(2))).mean().expect("samples")
}

/// Mean over the seeds, in a band from the smallest to the largest.
fn curve(label: &str, colour: RGBColor, values: impl Iterator<Item = (usize, f64)>) -> Series {
    let mut by_epoch = BTreeMap::<usize, Vec<f64>>::new();
    values.for_each(|(epoch, value)| by_epoch.entry(epoch).or_default().push(value));
    let mut series = Series { label: label.to_owned(), colour, ..Series::default() };
    for (epoch, values) in by_epoch {
        let (least, greatest) =
            values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, g), &v| (l.min(v), g.max(v)));
        series.line.push((epoch as f64, mean(values.into_iter())));
        series.band.push((epoch as f64, least, greatest));
    }
    series
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

const EPOCH_AXIS: Axis = Axis { label: "epoch", scale: Scale::Whole };
const TRAIN: RGBColor = colour::BLUE;
const TEST: RGBColor = colour::VERMILION;

/// Mean over the seeds after the last epoch.
fn last(curves: &[DigitsEpoch], value: impl Fn(&DigitsEpoch) -> f64) -> f64 {
    mean(curves.iter().filter(|e| e.epoch == EPOCHS).map(value))
}

pub(crate) fn digits_figure(curves: &[DigitsEpoch], facts: &str) -> Figure {
    let series = |label, colour, value: fn(&DigitsEpoch) -> f64| {
        curve(label, colour, curves.iter().map(move |e| (e.epoch, value(e))))
    };
    Figure {
        name: "digits",
        title: "Handwritten digits, learned".to_owned(),
        panels: vec![
            Panel {
                title: "Softmax cross-entropy".to_owned(),
                x: EPOCH_AXIS,
                y: Axis { label: "mean loss of a sample (nats)", scale: Scale::Log },
                series: vec![series("train", TRAIN, |e| e.train_loss), series("test", TEST, |e| e.test_loss)],
            },
            Panel {
                title: "Accuracy".to_owned(),
                x: EPOCH_AXIS,
                y: Axis { label: "share of samples classified correctly", scale: Scale::Linear },
                series: vec![series("train", TRAIN, |e| e.train_accuracy), series("test", TEST, |e| e.test_accuracy)],
            },
        ],
        caption: format!(
            "1797 images of 8 × 8 pixels: trained on the first 1437 in file order, tested on the last 360. Network \
             64-64-64-10 with a constant on every layer, He initialisation, SGD with batch {BATCH} and η = {DIGITS_ETA}, {EPOCHS} epochs, \
             f32. Mean of {SEEDS} seeds, in a band from the least to the greatest. Test accuracy after the last epoch: {:.3}. {facts}",
            last(curves, |e| e.test_accuracy),
        ),
    }
}

pub(crate) fn digits_table(curves: &[DigitsEpoch]) -> Table {
    let header = ["after the last epoch", "train", "test"].map(str::to_owned).to_vec();
    let row = |name: &str, train, test| vec![name.to_owned(), format!("{train:.4}"), format!("{test:.4}")];
    let rows = vec![
        row("digits: cross-entropy", last(curves, |e| e.train_loss), last(curves, |e| e.test_loss)),
        row("digits: accuracy", last(curves, |e| e.train_accuracy), last(curves, |e| e.test_accuracy)),
    ];
    Table { header, rows }
}

pub(crate) fn wine_figure(curves: &[WineEpoch], facts: &str) -> Figure {
    let trivial = trivial_wine();
    let baseline = Series {
        label: "test, if the mean of the training set is always said".to_owned(),
        colour: colour::GREY,
        stroke: Stroke::Dashed,
        line: vec![(1.0, trivial), (EPOCHS as f64, trivial)],
        ..Series::default()
    };
    Figure {
        name: "wine",
        title: "The quality of red wine, learned".to_owned(),
        panels: vec![Panel {
            title: "Squared error".to_owned(),
            x: EPOCH_AXIS,
            y: Axis { label: "mean of ½ (ŷ − y)²", scale: Scale::Log },
            series: vec![
                curve("train", TRAIN, curves.iter().map(|e| (e.epoch, e.train_loss))),
                curve("test", TEST, curves.iter().map(|e| (e.epoch, e.test_loss))),
                baseline,
            ],
        }],
        caption: format!(
            "1599 wines, 11 measurements of each (standardised), quality from 3 to 8: trained on the first 1279 in file order, \
             tested on the last 320. Network 11-32-32-1 with a constant on every layer, He initialisation, SGD with batch {BATCH} \
             and η = {WINE_ETA}, {EPOCHS} epochs, f32. Mean of {SEEDS} seeds, in a band from the least to the greatest. Test loss after the \
             last epoch: {:.3}; the mean of the training set has {trivial:.3}. {facts}",
            mean(curves.iter().filter(|e| e.epoch == EPOCHS).map(|e| e.test_loss)),
        ),
    }
}
