//! A training step of both engines compared with its bare BLAS calls, and with the peak of
//! multiply–adds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Optimizer, Predictor, Products, Sgd, SquaredError, Trainer, TrainingSettings,
    rungs::per_neuron,
};
use ndarray::{Array2, s};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};

use crate::bare::{Bare, BareScalar, with_blas_threads};
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::progress::Progress;
use rungs::integers;

/// One shape in one number type on one engine with a number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `epoch`: a step of many in one call of `train`. `step`: a call of `step`. `predict`: a call
    /// of `Predictor::predict_into`, a forward pass.
    mode: String,
    /// `blas` or `native`.
    engine: String,
    widths: String,
    batch: usize,
    dtype: String,
    threads: usize,
    step_seconds: f64,
    /// The bare calls of the same step (or forward pass), with as many BLAS threads, or with one if
    /// that is faster.
    gemm_seconds: f64,
    /// GFLOP/s of the step, on all its threads.
    gflops: f64,
    /// GFLOP/s of as many threads that do nothing but multiply and add, measured in the same run.
    peak_gflops: f64,
    /// `gflops` ÷ `peak_gflops`.
    share_of_peak: f64,
}

impl Row {
    fn shape(&self) -> Shape {
        let widths = self.widths.split('-').map(|d| d.parse().expect("widths"));
        Shape { widths: widths.collect(), batch: self.batch }
    }

    /// Short, with the batch.
    fn name(&self) -> String {
        short(&self.widths, self.batch)
    }

    /// The share of the peak of the bare calls.
    fn bare_share(&self) -> f64 {
        self.share_of_peak * self.step_seconds / self.gemm_seconds
    }
}

/// A shape in few letters: n×i stands for i layers of n.
pub(crate) fn short(widths: &str, batch: usize) -> String {
    let widths: Vec<&str> = widths.split('-').collect();
    let same = widths.chunk_by(|a, b| a == b).map(|same| match same.len() {
        1 => same[0].to_owned(),
        n => format!("{}×{n}", same[0]),
    });
    format!("{}, B {batch}", same.collect::<Vec<_>>().join("-"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    widths: Vec<usize>,
    batch: usize,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// The shapes of the table, some of them in both number types.
    Table,
    /// Networks n-n-n-1 of more and more width, and one of them with larger and larger batches.
    Sweeps,
}

/// The batch where the width changes, and the width where the batch does.
const SWEPT: (usize, usize) = (128, 512);

impl Shape {
    fn new(widths: &[usize], batch: usize) -> Self {
        Self { widths: widths.to_vec(), batch }
    }

    fn name(&self) -> String {
        self.widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
    }

    fn forward_flops(&self) -> f64 {
        let edges: usize = self.widths.windows(2).map(|d| d[0] * d[1]).sum();
        (2 * self.batch * edges) as f64
    }

    /// Forward, backward and gradient take 2 operations for each weight and sample; nothing goes
    /// back into the input.
    fn flops(&self) -> f64 {
        let edges: usize = self.widths.windows(2).map(|d| d[0] * d[1]).sum();
        (self.batch * (6 * edges - 2 * self.widths[0] * self.widths[1])) as f64
    }
}

/// The shapes of the table, from small to large; the quick run leaves out those that take seconds.
const TABLE: [(&[usize], usize); 17] = [
    (&[4, 32, 16, 4], WITH_ADAM),
    (&[16, 16, 16, 1], 32),
    (&[45, 45, 45, 1], 32),
    (&[46, 46, 46, 1], 32),
    (&[48, 48, 48, 1], 32),
    (&[64, 64, 64, 1], 32),
    (&[128, 128, 128, 1], 128),
    (&[64, 256, 256, 1], 64),
    (&[784, 300, 100, 1], 1),
    (&[512, 512, 512, 1], 1),
    (&[512, 512, 512, 1], 8),
    (&[512, 512, 512, 1], 32),
    (&[784, 512, 512, 1], 128),
    (&[784, 512, 512, 10], 128),
    (&[1024, 1024, 1024, 1024, 1], 32),
    (&[1024, 1024, 1024, 1024, 1], 256),
    (&[2048, 2048, 2048, 2048, 1], 512),
];

/// The batch of the shape that is trained with Adam, an epoch being a step.
const WITH_ADAM: usize = 10_000;

fn shapes(quick: bool) -> Vec<(Set, Shape)> {
    let table = TABLE.iter().take(if quick { 13 } else { TABLE.len() });
    let table = table.map(|(widths, batch)| (Set::Table, Shape::new(widths, *batch)));
    let widths: &[usize] = if quick { &[32, 128, 512] } else { &[16, 32, 64, 128, 256, 512, 1024, 2048] };
    let batches: &[usize] = if quick { &[4, 32, 256] } else { &[1, 4, 16, 64, 256, 1024] };
    let swept = widths.iter().map(|&n| (n, SWEPT.0)).chain(batches.iter().map(|&batch| (SWEPT.1, batch)));
    table.chain(swept.map(|(n, batch)| (Set::Sweeps, Shape::new(&[n, n, n, 1], batch)))).collect()
}

/// What is measured on both of them, in this order.
pub(crate) const ENGINES: [(&str, Products); 2] = [("blas", Products::Blas), ("native", Products::Native)];

const THREADS: [usize; 2] = [1, 2];

/// Shapes of the table whose epochs are measured in f64 too, by their first width and batch: one of
/// each size.
const IN_F64: [(usize, usize); 6] = [(16, 32), (64, 32), (64, 64), (784, 128), (1024, 32), (1024, 256)];

/// How long OpenBLAS's own threads keep a core busy after a call before they sleep: 2²⁸ ticks of
/// the CPU's clock counter, 107 ms at 2.5 GHz. Other computations meanwhile share that core with
/// them.
const BLAS_THREADS_SPIN: Duration = Duration::from_millis(120);

/// The peak with each number of threads: the best of all rounds, since nothing else disturbed it.
#[derive(Debug, Clone, Copy, Default)]
struct Peaks([f64; 2]);

impl Peaks {
    fn measure<F: BareScalar>(&mut self) {
        for (peak, threads) in self.0.iter_mut().zip(THREADS) {
            *peak = peak.max(F::peak_gflops(threads));
        }
    }
}

/// Measures every shape in f32, and some of the table in f64. The shapes take turns as well, so
/// that each one's measurements are spread over the whole run: a machine that is busy for half a
/// minute spoils no median.
pub(crate) fn measure(quick: bool) -> [(Set, Vec<Row>); 2] {
    let pools = THREADS.map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"));
    let mut subjects: Vec<(Set, Box<dyn Subject>)> = Vec::new();
    for (set, shape) in shapes(quick) {
        assert_step_is_right::<f32>(&shape, &pools);
        let kinds: &'static [Kind] = if set == Set::Table { &Kind::ALL } else { &Kind::OF_EPOCHS };
        subjects.push((set, Box::new(Timed::<f32>::new(&shape, kinds, quick))));
        if set == Set::Table && !quick && IN_F64.contains(&(shape.widths[0], shape.batch)) {
            assert_step_is_right::<f64>(&shape, &pools);
            subjects.push((set, Box::new(Timed::<f64>::new(&shape, &Kind::OF_EPOCHS, quick))));
        }
    }
    let rounds = if quick { 3 } else { 5 };
    let (mut single, mut double) = (Peaks::default(), Peaks::default());
    let progress = Progress::new("step", rounds);
    for round in 1..=rounds {
        progress.begin(format!("round {round} of {} shapes", subjects.len()));
        single.measure::<f32>();
        double.measure::<f64>();
        subjects.iter_mut().for_each(|(_, subject)| subject.measure(&pools));
        progress.end();
    }
    [Set::Table, Set::Sweeps].map(|set| {
        let of_set = subjects.iter().filter(|(its, _)| *its == set);
        (set, of_set.flat_map(|(_, subject)| subject.rows(single, double)).collect())
    })
}

/// A shape in one number type.
trait Subject {
    /// All variants in turn.
    fn measure(&mut self, pools: &[ThreadPool; 2]);
    /// The medians, with the peaks in f32 and f64.
    fn rows(&self, single: Peaks, double: Peaks) -> Vec<Row>;
}

/// What trains a network on one engine.
struct Engine<F: BareScalar> {
    mlp: Mlp<F>,
    /// One for each number of threads.
    sgd: [Sgd<F>; 2],
    adam: Option<[Trainer<F, SquaredError>; 2]>,
    predictor: Predictor<F>,
    y_hat: Array2<F>,
    /// The times of a step, for each [`Kind`] and number of threads.
    seconds: [[Vec<f64>; 2]; 3],
}

impl<F: BareScalar> Engine<F> {
    fn new(shape: &Shape, products: Products) -> Self {
        let mlp = Mlp::he(&shape.widths, Bias::Input, 1).and_then(|mlp| mlp.with_products(products));
        let mlp = mlp.expect("valid widths, and a BLAS");
        // So small a learning rate that the work stays the same.
        let eta = 1e-9;
        let adam = || {
            let training = TrainingSettings {
                optimizer: Optimizer::adam(),
                learning_rate: LearningRate::constant(eta),
                batch: shape.batch,
                ..TrainingSettings::default()
            };
            Trainer::new(mlp.clone(), SquaredError, training).expect("valid settings")
        };
        Self {
            sgd: THREADS.map(|_| Sgd::new(shape.batch, eta, 1).expect("valid")),
            adam: (shape.batch == WITH_ADAM).then(|| THREADS.map(|_| adam())),
            predictor: mlp.predictor(shape.batch).expect("rows"),
            y_hat: Array2::from_elem((shape.batch, mlp.outputs()), F::from_f64(0.0)),
            mlp,
            seconds: Default::default(),
        }
    }
}

struct Timed<F: BareScalar> {
    shape: Shape,
    kinds: &'static [Kind],
    /// In a measurement; and the batches that they go through, again and again.
    steps: usize,
    batches: usize,
    x: Array2<F>,
    y: Array2<F>,
    engines: [Engine<F>; 2],
    bare: Bare<F>,
    /// The times of the bare calls of a step and of a forward pass, for each number of threads.
    bare_seconds: [[Vec<f64>; 2]; 2],
}

/// What is measured of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Epoch,
    Single,
    Predict,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Epoch, Self::Single, Self::Predict];
    const OF_EPOCHS: [Self; 1] = [Self::Epoch];

    /// The name in the CSV file.
    fn mode(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Single => "step",
            Self::Predict => "predict",
        }
    }

    /// The bare calls that it is compared with: of a step or of a forward pass.
    fn bare(self) -> usize {
        usize::from(self == Self::Predict)
    }
}

impl<F: BareScalar> Timed<F> {
    fn new(shape: &Shape, kinds: &'static [Kind], quick: bool) -> Self {
        // 20 ms of steps at 100 GFLOP/s (quick: 10), but at least one; the data of an epoch at most
        // 64 batches.
        let wanted = if quick { 0.01 } else { 0.02 };
        let steps = ((wanted * 1e11 / shape.flops()) as usize).clamp(1, 8192).next_power_of_two();
        // With Adam an epoch is a step.
        let batches = if shape.batch == WITH_ADAM { 1 } else { steps.min(64) };
        let x = Array2::from_shape_fn((batches * shape.batch, shape.widths[0]), |(i, j)| {
            F::from_f64(((i * 31 + j * 17) % 97) as f64 / 48.5 - 1.0)
        });
        let outputs = shape.widths[shape.widths.len() - 1];
        let y = Array2::from_shape_fn((x.nrows(), outputs), |(i, j)| F::from_f64(((i + j) % 3) as f64 - 1.0));
        Self {
            shape: shape.clone(),
            kinds,
            steps,
            batches,
            x,
            y,
            engines: ENGINES.map(|(_, products)| Engine::new(shape, products)),
            bare: Bare::new(&shape.widths, shape.batch),
            bare_seconds: Default::default(),
        }
    }

    fn run(&mut self, kind: Kind, steps: usize, engine: usize, threads: usize) {
        let rows = |step: usize| {
            let first = step % self.batches * self.shape.batch;
            s![first..first + self.shape.batch, ..]
        };
        let (x, y) = (&self.x, &self.y);
        let Engine { mlp, sgd, adam, predictor, y_hat, .. } = &mut self.engines[engine];
        match (kind, adam) {
            (Kind::Epoch, None) => {
                let batches = self.batches.min(steps);
                let (x, y) =
                    (x.slice(s![..batches * self.shape.batch, ..]), y.slice(s![..batches * self.shape.batch, ..]));
                let trained = sgd[threads].train(mlp, x, y, &SquaredError, steps / batches);
                trained.expect("a finite loss");
            }
            (Kind::Epoch, Some(trainers)) => {
                let trainer = &mut trainers[threads];
                trainer.set_epochs(trainer.history().records.len() + steps);
                trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).expect("a finite loss");
            }
            (Kind::Single, None) => (0..steps).for_each(|i| {
                let (x, y) = (x.slice(rows(i)), y.slice(rows(i)));
                sgd[threads].step(mlp, x, y, &SquaredError).expect("a finite loss");
            }),
            (Kind::Single, Some(trainers)) => (0..steps).for_each(|_| {
                trainers[threads].step(Dataset::new(x.view(), y.view())).expect("a finite loss");
            }),
            (Kind::Predict, _) => (0..steps).for_each(|i| {
                predictor.predict_into(x.slice(rows(i)), y_hat.view_mut()).expect("finite");
                black_box(&y_hat);
            }),
        }
    }

    /// Seconds of a step. Before, wakes the threads and fills the caches, unless a step is so long
    /// that this does not matter.
    fn time(&mut self, run: impl Fn(&mut Self, usize)) -> f64 {
        if self.shape.flops() < 1e10 {
            // Half a measurement: a virtual machine's second core takes milliseconds to wake up.
            run(self, (self.steps / 2).max(2));
        }
        let start = Instant::now();
        run(self, self.steps);
        start.elapsed().as_secs_f64() / self.steps as f64
    }

    /// The bare calls of a step (0) or of a forward pass (1).
    fn run_bare(&mut self, what: usize, steps: usize) {
        let calls = if what == 0 { F::step } else { F::forward };
        (0..steps).for_each(|_| calls(&mut self.bare));
    }
}

impl<F: BareScalar> Subject for Timed<F> {
    fn measure(&mut self, pools: &[ThreadPool; 2]) {
        for (threads, pool) in pools.iter().enumerate() {
            for engine in 0..ENGINES.len() {
                for &kind in self.kinds {
                    let seconds = pool.install(|| self.time(|timed, steps| timed.run(kind, steps, engine, threads)));
                    self.engines[engine].seconds[kind as usize][threads].push(seconds);
                }
            }
            let forward = usize::from(self.kinds.contains(&Kind::Predict));
            for what in 0..=forward {
                let run = |timed: &mut Self, steps: usize| timed.run_bare(what, steps);
                let seconds = with_blas_threads(THREADS[threads] as i32, || self.time(run));
                self.bare_seconds[what][threads].push(seconds);
            }
        }
        std::thread::sleep(BLAS_THREADS_SPIN);
    }

    fn rows(&self, single: Peaks, double: Peaks) -> Vec<Row> {
        let peaks = if F::DTYPE == "f32" { single } else { double };
        let (step, forward) = (self.shape.flops(), self.shape.forward_flops());
        let row = |kind: Kind, engine: usize, threads: usize| {
            let seconds = median(self.engines[engine].seconds[kind as usize][threads].clone());
            let bare = (0..=threads).map(|threads| median(self.bare_seconds[kind.bare()][threads].clone()));
            let gflops = if kind == Kind::Predict { forward } else { step } / seconds / 1e9;
            Row {
                mode: kind.mode().to_owned(),
                engine: ENGINES[engine].0.to_owned(),
                widths: self.shape.name(),
                batch: self.shape.batch,
                dtype: F::DTYPE.to_owned(),
                threads: THREADS[threads],
                step_seconds: seconds,
                gemm_seconds: bare.fold(f64::INFINITY, f64::min),
                gflops,
                peak_gflops: peaks.0[threads],
                share_of_peak: gflops / peaks.0[threads],
            }
        };
        let row = &row;
        let of_kind = |&kind: &Kind| [0, 1].into_iter().flat_map(move |e| [0, 1].map(|t| row(kind, e, t)));
        self.kinds.iter().flat_map(of_kind).collect()
    }
}

pub(crate) fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Asserts that the step to be timed is the step: on a network of small integers, where the
/// arithmetic is exact, bit for bit that of backpropagation neuron by neuron. All targets but those
/// of a few samples, spread over the batch, are hit exactly, so that these alone need to be gone
/// through by loops. The batch is the largest power of 2 up to that of the shape: 1/B is exact.
fn assert_step_is_right<F: BareScalar>(shape: &Shape, pools: &[ThreadPool; 2]) {
    let (mlp, some) = integers::<F>(&shape.widths);
    let batch = 1 << shape.batch.ilog2();
    let x = Array2::from_shape_fn((batch, shape.widths[0]), |(i, j)| some[(i % some.nrows(), j)]);
    let mut y = mlp.predict(x.view()).expect("finite");
    let missed: Vec<usize> = (0..batch).step_by(batch.div_ceil(3)).collect();
    let mut expected = mlp.clone();
    let mut g = mlp.zero_gradient();
    for &row in &missed {
        y[(row, 0)] += F::ONE;
        let target: &[F] = y.row(row).to_slice().expect("row-major");
        per_neuron::loss_gradient(&mlp, x.row(row), target, &SquaredError, &mut g).expect("fits");
        expected.parameters_mut().iter_mut().zip(g.iter()).for_each(|(theta, &g)| *theta -= g);
    }
    for (pool, (name, products)) in pools.iter().flat_map(|pool| ENGINES.map(|engine| (pool, engine))) {
        let mut stepped = mlp.clone().with_products(products).expect("a BLAS");
        // η = B: the mean's 1/B and it cancel exactly.
        let mut sgd = Sgd::new(batch, batch as f64, 1).expect("valid");
        pool.install(|| sgd.step(&mut stepped, x.view(), y.view(), &SquaredError)).expect("fits");
        let same = stepped.parameters() == expected.parameters();
        assert!(same, "the {name} step of {} B {batch} differs from the oracle's", shape.name());
    }
}

/// A quantity of the rows of one kind, against another.
fn points(rows: &[&Row], x: impl Fn(&Row) -> f64, y: impl Fn(&Row) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = rows.iter().map(|row| (x(row), y(row))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Epochs in f32.
fn chosen<'a>(rows: &'a [Row], engine: &str, threads: usize) -> Vec<&'a Row> {
    let is_chosen =
        |row: &&Row| row.mode == "epoch" && row.engine == engine && row.dtype == "f32" && row.threads == threads;
    rows.iter().filter(is_chosen).collect()
}

fn marked(label: &str, colour: RGBColor, marker: Marker, points: Vec<(f64, f64)>) -> Series {
    Series { label: label.to_owned(), colour, marker, line: points.clone(), marks: points, ..Series::default() }
}

fn level(label: &str, colour: RGBColor, stroke: Stroke, line: [(f64, f64); 2]) -> Series {
    Series { label: label.to_owned(), colour, stroke, line: line.to_vec(), ..Series::default() }
}

/// Draws nothing, and makes the axis start at 0.
fn from_zero(points: &[(f64, f64)]) -> Series {
    let band = points.iter().map(|&(x, _)| (x, 0.0, 0.0)).collect();
    Series { colour: RGBColor(255, 255, 255), band, ..Series::default() }
}

/// The share of the peak against width and against batch.
pub(crate) fn gflops_figure(rows: &[Row], facts: &str) -> Figure {
    let panel = |title: &str, label, x: fn(&Row) -> f64, fits: fn(&Row) -> bool| {
        let of = |engine, threads| {
            let mut rows = chosen(rows, engine, threads);
            rows.retain(|row| fits(row));
            rows
        };
        let share = |row: &Row| row.share_of_peak;
        let (blas, native) = (of("blas", 1), of("native", 1));
        let two = points(&of("native", 2), x, share);
        let ends = [two[0].0, two[two.len() - 1].0].map(|x| (x, 1.0));
        let bare = points(&blas, x, Row::bare_share);
        Panel {
            title: title.to_owned(),
            x: Axis { label, scale: Scale::Log },
            y: Axis { label: "share of the peak", scale: Scale::Linear },
            series: vec![
                level("peak of multiply–adds", colour::GREY, Stroke::Solid, ends),
                marked("native step, 1 thread", colour::VERMILION, Marker::Diamond, points(&native, x, share)),
                marked("native step, 2 threads", colour::PURPLE, Marker::Cross, two),
                marked("BLAS step, 1 thread", colour::BLUE, Marker::Circle, points(&blas, x, share)),
                marked("BLAS step, 2 threads", colour::SKY, Marker::Plus, points(&of("blas", 2), x, share)),
                from_zero(&bare),
                marked("bare calls, 1 thread", colour::GREEN, Marker::Square, bare),
            ],
        }
    };
    Figure {
        name: "gflops",
        title: "How much of the machine a training step uses".to_owned(),
        panels: vec![
            panel("n-n-n-1, batch 128", "width n", |row| row.shape().widths[0] as f64, |row| row.batch == SWEPT.0),
            panel("512-512-512-1", "batch B", |row| row.batch as f64, |row| row.shape().widths[0] == SWEPT.1),
        ],
        caption: format!(
            "f32, steps of an epoch, medians of interleaved measurements. Operations: 6 B d[t] d[t+1] a layer, 4 B d[0] d[1] for \
             the first. The peak is what as many threads reach that multiply and add in registers, in the widest vectors of the CPU. \
             Bare calls: the step's products alone, each as one call (B = 1: gemv and ger). {facts}",
        ),
    }
}

/// The share of the peak on each shape of the table, and the speed-up by the second thread.
pub(crate) fn share_figure(rows: &[Row], facts: &str) -> Figure {
    let mut shapes: Vec<String> = rows.iter().map(Row::name).collect();
    shapes.dedup();
    let place = |row: &Row| shapes.iter().position(|name| *name == row.name()).unwrap_or(0) as f64;
    let series = |label: &str, colour, marker, rows: Vec<&Row>, value: &dyn Fn(&Row) -> f64| Series {
        label: label.to_owned(),
        colour,
        marker,
        marks: rows.into_iter().map(|row| (value(row), place(row))).collect(),
        ..Series::default()
    };
    let speedup = |row: &Row| {
        let one = chosen(rows, &row.engine, 1).into_iter().find(|one| one.name() == row.name());
        one.expect("both numbers of threads are measured").step_seconds / row.step_seconds
    };
    let share = |row: &Row| row.share_of_peak;
    let both = |threads: usize, value: &dyn Fn(&Row) -> f64| {
        vec![
            series("native step", colour::VERMILION, Marker::Diamond, chosen(rows, "native", threads), value),
            series("BLAS step", colour::BLUE, Marker::Circle, chosen(rows, "blas", threads), value),
        ]
    };
    let limit = |x: f64, stroke| level("", colour::GREY, stroke, [(x, -0.6), (x, shapes.len() as f64 - 0.4)]);
    let panel = |title: &str, label, series| Panel {
        title: title.to_owned(),
        x: Axis { label, scale: Scale::Linear },
        y: Axis { label: "", scale: Scale::Names(shapes.clone()) },
        series,
    };
    let mut shares = both(1, &share);
    shares.push(series("bare BLAS calls", colour::GREEN, Marker::Cross, chosen(rows, "blas", 1), &Row::bare_share));
    // The caption says what it is.
    let peak = limit(1.0, Stroke::Solid);
    shares.push(peak);
    let mut speedups = both(2, &speedup);
    speedups.extend([1.0, 2.0].map(|x| limit(x, Stroke::Dashed)));
    Figure {
        name: "step",
        title: "A training step on both engines".to_owned(),
        panels: vec![
            panel("Share of the peak, 1 thread", "GFLOP/s ÷ peak of multiply–adds", shares),
            panel("Speed-up by the second thread", "time with 1 thread ÷ with 2", speedups),
        ],
        caption: format!(
            "f32, steps of an epoch, those of 4-32-16-4 with Adam, of the others by plain SGD. 1024×4-1 stands for \
             1024-1024-1024-1024-1, B for the batch. Medians of interleaved measurements. A step has what the bare calls leave out: \
             gathering the batch, ReLU, loss, masks. The peak is what a thread reaches that multiplies and adds in registers, in the \
             widest vectors of the CPU. Before timing, each step of SGD gave the oracle's bits. {facts}"
        ),
    }
}

/// Every shape of the table: each engine's epoch, its share of the peak and what a second thread
/// brings, and the single step and prediction, with two threads.
pub(crate) fn table(rows: &[Row]) -> Table {
    let header = ["widths", "batch", "dtype", "bare calls"].map(str::to_owned);
    let of_engine = ["epoch", "÷ bare", "of peak, 1 thread", "of peak, 2", "2 threads ÷ 1", "single step", "predict"];
    let of_engine = ENGINES.iter().flat_map(|(engine, _)| of_engine.map(|column| format!("{engine}: {column}")));
    let micros = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
    let cells = |engine: &str, row: &Row| {
        let of = |mode: &str, threads: usize| {
            let same = |other: &&Row| {
                (other.mode.as_str(), other.engine.as_str(), other.threads, &other.dtype, &other.widths, other.batch)
                    == (mode, engine, threads, &row.dtype, &row.widths, row.batch)
            };
            rows.iter().find(same)
        };
        let epoch = |threads| of("epoch", threads).expect("epochs are measured on both engines");
        let (one, two) = (epoch(1), epoch(2));
        let if_measured = |mode| of(mode, 2).map_or("–".to_owned(), |row| micros(row.step_seconds));
        [
            micros(two.step_seconds),
            format!("{:.2}", two.step_seconds / two.gemm_seconds),
            format!("{:.0} %", 100.0 * one.share_of_peak),
            format!("{:.0} %", 100.0 * two.share_of_peak),
            format!("{:.2}", one.step_seconds / two.step_seconds),
            if_measured("step"),
            if_measured("predict"),
        ]
    };
    let in_table = |row: &&Row| row.mode == "epoch" && row.threads == 2 && row.engine == ENGINES[0].0;
    let table = rows.iter().filter(in_table).map(|row| {
        let first = [row.widths.clone(), row.batch.to_string(), row.dtype.clone(), micros(row.gemm_seconds)];
        first.into_iter().chain(ENGINES.iter().flat_map(|(engine, _)| cells(engine, row))).collect()
    });
    Table { rows: table.collect(), header: header.into_iter().chain(of_engine).collect() }
}
