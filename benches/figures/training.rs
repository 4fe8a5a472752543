//! A step of the trainer, with each optimiser and each option, compared with the engine's plain
//! step.

use std::time::Instant;

use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Optimizer, Sgd, SoftmaxCrossEntropy, SquaredError, Trainer, TrainingSettings,
};
use gemmprop::{Loss, Targets};
use ndarray::{Array1, Array2};
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

use crate::step::{ENGINES, median};
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};
use report::progress::Progress;

/// One shape, trained in one way with a number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `blas` or `native`.
    engine: String,
    optimizer: String,
    widths: String,
    batch: usize,
    threads: usize,
    /// The trainer's time per step: an epoch, divided by its steps.
    step_seconds: f64,
    /// The time of the engine alone: a step of an epoch of `Sgd::train`.
    engine_seconds: f64,
    /// The median over the rounds of one divided by the other, each of the same round.
    ratio: f64,
}

const THREADS: [usize; 2] = [1, 2];

/// The ways to train, the engine's own first.
const WAYS: [&str; 9] = [
    "sgd",
    "sgd, shuffled",
    "sgd, shuffled and standardized",
    "sgd, clipped",
    "momentum",
    "nesterov",
    "adam",
    "adamw",
    "adamw, clipped",
];

fn training(way: &str, batch: usize) -> TrainingSettings {
    // The rate is so small that the work stays the same.
    let base = TrainingSettings {
        batch,
        learning_rate: LearningRate::constant(1e-9),
        shuffle: way.contains("shuffled"),
        standardize: way.contains("standardized"),
        clip_norm: way.contains("clipped").then_some(1e-3),
        ..TrainingSettings::default()
    };
    let optimizer = match way.split(',').next() {
        Some("momentum") => Optimizer::Momentum { mu: 0.9 },
        Some("nesterov") => Optimizer::Nesterov { mu: 0.9 },
        Some("adam" | "adamw") => Optimizer::adam(),
        _ => Optimizer::Sgd,
    };
    TrainingSettings { optimizer, weight_decay: if way.starts_with("adamw") { 1e-2 } else { 0.0 }, ..base }
}

/// A shape with its data, and all that is timed on it with one number of threads.
struct Timed<L: Loss<f32>, Y> {
    engine: usize,
    widths: Vec<usize>,
    batch: usize,
    batches: usize,
    epochs: usize,
    loss: L,
    x: Array2<f32>,
    y: Y,
    mlp: Mlp<f32>,
    sgd: Sgd<f32>,
    trainers: Vec<Trainer<f32, L>>,
    /// The times of a step: the engine's, and then that of each way.
    seconds: Vec<Vec<f64>>,
}

/// What can be trained on, whatever its targets are.
trait Subject {
    fn measure(&mut self);
    fn rows(&self, threads: usize) -> Vec<Row>;
}

/// Targets of a run.
trait OfRun<T> {
    fn all(&self) -> impl Targets<'_, T>;
}

impl OfRun<f32> for Array2<f32> {
    fn all(&self) -> impl Targets<'_, f32> {
        self.view()
    }
}

impl OfRun<usize> for Array1<usize> {
    fn all(&self) -> impl Targets<'_, usize> {
        self.view()
    }
}

impl<L: Loss<f32> + Clone, Y> Timed<L, Y> {
    fn new(
        engine: usize,
        (widths, batch): (&[usize], usize),
        loss: L,
        y: impl FnOnce(usize) -> Y,
        quick: bool,
    ) -> Self {
        let edges: usize = widths.windows(2).map(|d| d[0] * d[1]).sum();
        let steps = ((if quick { 1e9 } else { 4e9 }) / (6 * batch * edges) as f64) as usize;
        // An epoch has one step whose norm is recorded, so that a short one would cost more.
        let batches = steps.clamp(if quick { 8 } else { 32 }, 64);
        let x =
            Array2::from_shape_fn((batches * batch, widths[0]), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
        let mlp = Mlp::he(widths, Bias::EveryLayer, 1).and_then(|mlp| mlp.with_products(ENGINES[engine].1));
        let mlp = mlp.expect("valid widths, and a BLAS");
        let trainer = |way| Trainer::new(mlp.clone(), loss.clone(), training(way, batch)).expect("valid settings");
        Self {
            engine,
            widths: widths.to_vec(),
            batch,
            batches,
            epochs: (steps / batches).max(1),
            trainers: WAYS.map(trainer).into(),
            loss,
            y: y(x.nrows()),
            x,
            mlp,
            sgd: Sgd::new(batch, 1e-9, 1).expect("valid"),
            seconds: vec![Vec::new(); 1 + WAYS.len()],
        }
    }
}

impl<L: Loss<f32> + Clone, Y: OfRun<L::Target>> Subject for Timed<L, Y> {
    fn measure(&mut self) {
        let Self { batches, epochs, loss, x, y, mlp, sgd, trainers, seconds, .. } = self;
        let (epochs, steps) = (*epochs, (*batches * *epochs) as f64);
        let long = mlp.parameters().count() > 1_000_000;
        let mut time = |what: usize, run: &mut dyn FnMut(usize)| {
            // The first epoch wakes the threads and fills the caches, unless an epoch is so long
            // that this does not matter.
            if !long {
                run(1);
            }
            let start = Instant::now();
            run(epochs);
            seconds[what].push(start.elapsed().as_secs_f64() / steps);
        };
        {
            time(0, &mut |epochs| {
                sgd.train(mlp, x.view(), y.all(), loss, epochs).expect("a finite loss");
            });
            for (i, trainer) in trainers.iter_mut().enumerate() {
                time(1 + i, &mut |epochs| {
                    trainer.set_epochs(trainer.history().records.len() + epochs);
                    trainer.fit(Dataset::new(x.view(), y.all()), None, &mut ()).expect("a finite loss");
                });
            }
        }
    }

    fn rows(&self, threads: usize) -> Vec<Row> {
        let engine = &self.seconds[0];
        let row = |(&optimizer, seconds): (&&'static str, &Vec<f64>)| Row {
            engine: ENGINES[self.engine].0.to_owned(),
            optimizer: optimizer.to_owned(),
            widths: self.widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-"),
            batch: self.batch,
            threads,
            step_seconds: median(seconds.clone()),
            engine_seconds: median(engine.clone()),
            ratio: median(seconds.iter().zip(engine).map(|(step, engine)| step / engine).collect()),
        };
        WAYS.iter().zip(&self.seconds[1..]).map(row).collect()
    }
}

/// All shapes take turns, and all ways within a shape.
pub(crate) fn measure(quick: bool) -> Vec<Row> {
    let pools = THREADS.map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"));
    let targets = |outputs: usize| move |n| Array2::from_shape_fn((n, outputs), |(i, j)| ((i + j) % 3) as f32 - 1.0);
    let labels = |n| Array1::from_shape_fn(n, |i| i % 10);
    let of_engine = |engine| -> Vec<Box<dyn Subject + Send>> {
        let mut subjects: Vec<Box<dyn Subject + Send>> = vec![
            Box::new(Timed::new(engine, (&[16, 16, 16, 1], 32), SquaredError, targets(1), quick)),
            Box::new(Timed::new(engine, (&[64, 64, 64, 1], 32), SquaredError, targets(1), quick)),
            Box::new(Timed::new(engine, (&[784, 512, 512, 10], 128), SoftmaxCrossEntropy, labels, quick)),
        ];
        if !quick {
            let widths = &[1024, 1024, 1024, 1024, 1];
            subjects.push(Box::new(Timed::new(engine, (widths, 256), SquaredError, targets(1), quick)));
        }
        subjects
    };
    let mut subjects = THREADS.map(|_| (0..ENGINES.len()).flat_map(of_engine).collect::<Vec<_>>());
    // Both engines with 9 ways to train on 4 shapes take minutes.
    let rounds = 3;
    let progress = Progress::new("training", rounds);
    for round in 1..=rounds {
        progress.begin(format!("round {round}"));
        for (pool, subjects) in pools.iter().zip(&mut subjects) {
            pool.install(|| subjects.iter_mut().for_each(|subject| subject.measure()));
        }
        progress.end();
    }
    let rows = THREADS.iter().zip(&subjects);
    rows.flat_map(|(&threads, subjects)| subjects.iter().flat_map(move |subject| subject.rows(threads))).collect()
}

/// Trainer ÷ engine for each way and shape, on each engine, with two threads.
pub(crate) fn figure(rows: &[Row], facts: &str) -> Figure {
    let panel = |(engine, title): (&str, &str)| Panel {
        title: title.to_owned(),
        x: Axis { label: "time of a step, trainer ÷ engine", scale: Scale::Linear },
        y: Axis { label: "", scale: Scale::Names(WAYS.map(str::to_owned).to_vec()) },
        series: series(rows, engine),
    };
    Figure {
        name: "training",
        title: "What optimisers and comforts cost".to_owned(),
        panels: [("blas", "Over OpenBLAS, 2 threads"), ("native", "Native, 2 threads")].map(panel).into(),
        caption: format!(
            "f32, epochs of 32 to 64 batches, medians of the ratios of interleaved measurements. The engine's step: a step of an \
             epoch of Sgd::train, which shuffles. All of the trainer's steps are watched for overflow. {facts}"
        ),
    }
}

/// The ratios of one engine.
fn series(rows: &[Row], engine: &str) -> Vec<Series> {
    let chosen = || rows.iter().filter(|row| row.threads == 2 && row.engine == engine);
    let mut shapes: Vec<(&str, usize)> = chosen().map(|row| (row.widths.as_str(), row.batch)).collect();
    shapes.dedup();
    let looks = [
        (colour::VERMILION, Marker::Diamond),
        (colour::BLUE, Marker::Circle),
        (colour::GREEN, Marker::Square),
        (colour::PURPLE, Marker::Cross),
    ];
    let of_shape = |(i, (&(widths, batch), (colour, marker)))| {
        let rows = chosen().filter(|row| (row.widths.as_str(), row.batch) == (widths, batch));
        let place = |way: &str| WAYS.iter().position(|&known| known == way).unwrap_or(0) as f64;
        // The shapes of a way beside each other.
        let shift = 0.15 * (i as f64 - 1.5);
        let marks = rows.map(|row| (row.ratio, place(&row.optimizer) + shift)).collect();
        Series { label: format!("{widths}, batch {batch}"), colour, marker, marks, ..Series::default() }
    };
    let mut series: Vec<Series> = shapes.iter().zip(looks).enumerate().map(of_shape).collect();
    let level = vec![(1.0, -0.6), (1.0, WAYS.len() as f64 - 0.4)];
    let (label, stroke) = ("the engine's plain step".to_owned(), Stroke::Dashed);
    series.push(Series { label, colour: colour::GREY, stroke, line: level, ..Series::default() });
    series
}

/// Every row with two threads.
pub(crate) fn table(rows: &[Row]) -> Table {
    let header = ["engine", "optimizer", "widths", "batch", "trainer", "engine", "ratio", "ratio, 1 thread"];
    let table = rows.iter().filter(|row| row.threads == 2).map(|row| {
        let micros = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
        let key = |row: &Row| (row.engine.clone(), row.optimizer.clone(), row.widths.clone(), row.batch);
        let one = rows.iter().find(|other| other.threads == 1 && key(other) == key(row)).expect("both are measured");
        vec![
            row.engine.clone(),
            row.optimizer.clone(),
            row.widths.clone(),
            row.batch.to_string(),
            micros(row.step_seconds),
            micros(row.engine_seconds),
            format!("{:.2}", row.ratio),
            format!("{:.2}", one.ratio),
        ]
    });
    Table { header: header.map(str::to_owned).to_vec(), rows: table.collect() }
}
