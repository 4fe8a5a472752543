//! A training step compared with its bare BLAS calls, in time and in GFLOP/s.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gemmprop::{Bias, Mlp, Sgd, SquaredError, rungs::per_neuron};
use ndarray::{Array2, s};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};

use crate::bare::{Bare, BareScalar, with_blas_threads};
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::progress::Progress;
use rungs::integers;

/// One shape in one number type with a number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `epoch`: a step of many in one call of `train`. `step`: a call of `step`. `predict`: a call
    /// of `predict`, a forward pass.
    mode: String,
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
    /// Peak GFLOP/s of as many cores as there are threads.
    peak_gflops: f64,
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

/// The shapes of the table; the quick run leaves out those that take seconds.
fn shapes(quick: bool) -> Vec<(Set, Shape)> {
    let table: &[(&[usize], usize)] = &[
        (&[16, 16, 16, 1], 32),
        (&[45, 45, 45, 1], 32),
        (&[46, 46, 46, 1], 32),
        (&[64, 64, 64, 1], 32),
        (&[64, 256, 256, 1], 64),
        (&[784, 300, 100, 1], 1),
        (&[784, 512, 512, 1], 128),
        (&[784, 512, 512, 10], 128),
        (&[1024, 1024, 1024, 1024, 1], 32),
        (&[1024, 1024, 1024, 1024, 1], 256),
        (&[2048, 2048, 2048, 2048, 1], 512),
    ];
    let table =
        table.iter().take(if quick { 8 } else { 11 }).map(|(widths, batch)| (Set::Table, Shape::new(widths, *batch)));
    let widths: &[usize] = if quick { &[32, 128, 512] } else { &[16, 32, 64, 128, 256, 512, 1024, 2048] };
    let batches: &[usize] = if quick { &[4, 32, 256] } else { &[1, 4, 16, 64, 256, 1024] };
    let swept = widths.iter().map(|&n| (n, SWEPT.0)).chain(batches.iter().map(|&batch| (SWEPT.1, batch)));
    table.chain(swept.map(|(n, batch)| (Set::Sweeps, Shape::new(&[n, n, n, 1], batch)))).collect()
}

const THREADS: [usize; 2] = [1, 2];

/// Shapes of the table that are measured in f64 too, by their first width and batch: one of each
/// size.
const IN_F64: [(usize, usize); 5] = [(16, 32), (64, 32), (784, 128), (1024, 32), (1024, 256)];

/// How long OpenBLAS's own threads keep a core busy after a call before they sleep: 2²⁸ ticks of
/// the CPU's clock counter, 107 ms at 2.5 GHz. Other computations meanwhile share that core with
/// them.
const BLAS_THREADS_SPIN: Duration = Duration::from_millis(120);

/// Measures every shape in f32, and some of the table in f64. The shapes take turns as well, so
/// that each one's measurements are spread over the whole run: a machine that is busy for half a
/// minute spoils no median.
pub(crate) fn measure(quick: bool) -> [(Set, Vec<Row>); 2] {
    let pools = THREADS.map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"));
    let (peak_f32, peak_f64) = (f32::peak_gflops(), f64::peak_gflops());
    let mut subjects: Vec<(Set, Box<dyn Subject>)> = Vec::new();
    for (set, shape) in shapes(quick) {
        assert_step_is_right::<f32>(&shape, &pools);
        subjects.push((set, Box::new(Timed::<f32>::new(&shape, peak_f32, quick))));
        if set == Set::Table && !quick && IN_F64.contains(&(shape.widths[0], shape.batch)) {
            assert_step_is_right::<f64>(&shape, &pools);
            subjects.push((set, Box::new(Timed::<f64>::new(&shape, peak_f64, quick))));
        }
    }
    let rounds = if quick { 3 } else { 7 };
    let progress = Progress::new("step", rounds);
    for round in 1..=rounds {
        progress.begin(format!("round {round} of {} shapes", subjects.len()));
        subjects.iter_mut().for_each(|(_, subject)| subject.measure(&pools));
        progress.end();
    }
    [Set::Table, Set::Sweeps].map(|set| {
        let of_set = subjects.iter().filter(|(its, _)| *its == set);
        (set, of_set.flat_map(|(_, subject)| subject.rows()).collect())
    })
}

/// A shape in one number type.
trait Subject {
    /// All variants in turn.
    fn measure(&mut self, pools: &[ThreadPool; 2]);
    /// The medians.
    fn rows(&self) -> Vec<Row>;
}

struct Timed<F> {
    shape: Shape,
    /// GFLOP/s of a core.
    peak: f64,
    /// In a measurement; and the batches that they go through, again and again.
    steps: usize,
    batches: usize,
    x: Array2<F>,
    y: Array2<F>,
    bare: Bare<F>,
    mlp: Mlp<F>,
    /// One for each number of threads.
    trainers: [Sgd<F>; 2],
    /// The times of a step, for each [`Kind`] and number of threads.
    seconds: [[Vec<f64>; 2]; 5],
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Epoch,
    Single,
    Predict,
    BareStep,
    BareForward,
}

impl<F: BareScalar> Timed<F> {
    fn new(shape: &Shape, peak: f64, quick: bool) -> Self {
        // 20 ms of steps at 100 GFLOP/s (quick: 10), but at least one; the data of an epoch at most
        // 64 batches.
        let wanted = if quick { 0.01 } else { 0.02 };
        let steps = ((wanted * 1e11 / shape.flops()) as usize).clamp(1, 8192).next_power_of_two();
        let batches = steps.min(64);
        let x = Array2::from_shape_fn((batches * shape.batch, shape.widths[0]), |(i, j)| {
            F::from_f64(((i * 31 + j * 17) % 97) as f64 / 48.5 - 1.0)
        });
        let outputs = shape.widths[shape.widths.len() - 1];
        let y = Array2::from_shape_fn((x.nrows(), outputs), |(i, j)| F::from_f64(((i + j) % 3) as f64 - 1.0));
        Self {
            shape: shape.clone(),
            peak,
            steps,
            batches,
            x,
            y,
            bare: Bare::new(&shape.widths, shape.batch),
            mlp: Mlp::he(&shape.widths, Bias::Input, 1).expect("valid widths"),
            // So small a learning rate that the work stays the same.
            trainers: THREADS.map(|_| Sgd::new(shape.batch, 1e-9, 1).expect("valid")),
            seconds: Default::default(),
        }
    }

    fn run(&mut self, kind: Kind, steps: usize, trainer: usize) {
        let rows = |step: usize| {
            let first = step % self.batches * self.shape.batch;
            s![first..first + self.shape.batch, ..]
        };
        let (x, y, mlp) = (&self.x, &self.y, &mut self.mlp);
        match kind {
            Kind::Epoch => {
                let batches = self.batches.min(steps);
                let (x, y) =
                    (x.slice(s![..batches * self.shape.batch, ..]), y.slice(s![..batches * self.shape.batch, ..]));
                let trained = self.trainers[trainer].train(mlp, x, y, &SquaredError, steps / batches);
                trained.expect("a finite loss");
            }
            Kind::Single => (0..steps).for_each(|i| {
                let (x, y) = (x.slice(rows(i)), y.slice(rows(i)));
                self.trainers[trainer].step(mlp, x, y, &SquaredError).expect("a finite loss");
            }),
            Kind::Predict => (0..steps).for_each(|i| {
                black_box(mlp.predict(x.slice(rows(i))).expect("finite"));
            }),
            Kind::BareStep => (0..steps).for_each(|_| F::step(&mut self.bare)),
            Kind::BareForward => (0..steps).for_each(|_| F::forward(&mut self.bare)),
        }
    }

    /// Wakes the threads and fills the caches, unless a step is so long that this does not matter,
    /// and then measures.
    fn time(&mut self, kind: Kind, trainer: usize) {
        if self.shape.flops() < 1e10 {
            // Half a measurement: a virtual machine's second core takes milliseconds to wake up.
            self.run(kind, (self.steps / 2).max(2), trainer);
        }
        let start = Instant::now();
        self.run(kind, self.steps, trainer);
        let seconds = start.elapsed().as_secs_f64() / self.steps as f64;
        self.seconds[kind as usize][trainer].push(seconds);
    }

    fn median(&self, kind: Kind, trainer: usize) -> f64 {
        median(self.seconds[kind as usize][trainer].clone())
    }
}

impl<F: BareScalar> Subject for Timed<F> {
    fn measure(&mut self, pools: &[ThreadPool; 2]) {
        for (i, pool) in pools.iter().enumerate() {
            pool.install(|| [Kind::Epoch, Kind::Single, Kind::Predict].map(|kind| self.time(kind, i)));
            with_blas_threads(THREADS[i] as i32, || [Kind::BareStep, Kind::BareForward].map(|kind| self.time(kind, i)));
        }
        std::thread::sleep(BLAS_THREADS_SPIN);
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let (step, forward) = (self.shape.flops(), self.shape.forward_flops());
        for (mode, kind, bare, flops) in [
            ("epoch", Kind::Epoch, Kind::BareStep, step),
            ("step", Kind::Single, Kind::BareStep, step),
            ("predict", Kind::Predict, Kind::BareForward, forward),
        ] {
            for (i, &threads) in THREADS.iter().enumerate() {
                let seconds = self.median(kind, i);
                rows.push(Row {
                    mode: mode.to_owned(),
                    widths: self.shape.name(),
                    batch: self.shape.batch,
                    dtype: F::DTYPE.to_owned(),
                    threads,
                    step_seconds: seconds,
                    gemm_seconds: (0..=i).map(|i| self.median(bare, i)).fold(f64::INFINITY, f64::min),
                    gflops: flops / seconds / 1e9,
                    peak_gflops: self.peak * threads as f64,
                });
            }
        }
        rows
    }
}

pub(crate) fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Asserts that the step to be timed is the step: on a network of small integers, where the
/// arithmetic is exact, bit for bit that of backpropagation neuron by neuron. All targets but those
/// of a few samples, spread over the batch, are hit exactly, so that these alone need to be gone
/// through by loops.
fn assert_step_is_right<F: BareScalar>(shape: &Shape, pools: &[ThreadPool; 2]) {
    let (mlp, some) = integers::<F>(&shape.widths);
    let x = Array2::from_shape_fn((shape.batch, shape.widths[0]), |(i, j)| some[(i % some.nrows(), j)]);
    let mut y = mlp.predict(x.view()).expect("finite");
    let missed: Vec<usize> = (0..shape.batch).step_by(shape.batch.div_ceil(3)).collect();
    let mut expected = mlp.clone();
    let mut g = mlp.zero_gradient();
    for &row in &missed {
        y[(row, 0)] += F::ONE;
        let target: &[F] = y.row(row).to_slice().expect("row-major");
        per_neuron::loss_gradient(&mlp, x.row(row), target, &SquaredError, &mut g).expect("fits");
        expected.parameters_mut().iter_mut().zip(g.iter()).for_each(|(theta, &g)| *theta = *theta - g);
    }
    for pool in pools {
        let mut stepped = mlp.clone();
        // η = B: the mean's 1/B and it cancel exactly.
        let mut sgd = Sgd::new(shape.batch, shape.batch as f64, 1).expect("valid");
        pool.install(|| sgd.step(&mut stepped, x.view(), y.view(), &SquaredError)).expect("fits");
        assert!(stepped == expected, "the step of {} B {} differs from the oracle's", shape.name(), shape.batch);
    }
}

/// A quantity of the rows of one kind, against another.
fn points(rows: &[&Row], x: impl Fn(&Row) -> f64, y: impl Fn(&Row) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = rows.iter().map(|row| (x(row), y(row))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn chosen<'a>(rows: &'a [Row], mode: &str, dtype: &str, threads: usize) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.mode == mode && row.dtype == dtype && row.threads == threads).collect()
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

/// GFLOP/s per core against width and against batch, under the peak.
pub(crate) fn gflops_figure(rows: &[Row], facts: &str) -> Figure {
    let panel = |title: &str, label, x: fn(&Row) -> f64, fits: fn(&Row) -> bool| {
        let per_core = |row: &Row| row.gflops / row.threads as f64;
        let bare = |row: &Row| row.shape().flops() / row.gemm_seconds / 1e9 / row.threads as f64;
        let of = |threads| {
            let mut rows = chosen(rows, "epoch", "f32", threads);
            rows.retain(|row| fits(row));
            rows
        };
        let (two, one) = (of(2), of(1));
        let step = points(&two, x, per_core);
        let height = two[0].peak_gflops / 2.0;
        let ends = [step[0].0, step[step.len() - 1].0].map(|x| (x, height));
        Panel {
            title: title.to_owned(),
            x: Axis { label, scale: Scale::Log },
            y: Axis { label: "GFLOP/s per core", scale: Scale::Linear },
            series: vec![
                level("peak of multiply–adds", colour::GREY, Stroke::Solid, ends),
                marked("step, 1 thread", colour::PURPLE, Marker::Cross, points(&one, x, per_core)),
                marked("bare calls, 1 thread", colour::GREEN, Marker::Square, points(&one, x, bare)),
                marked("step, 2 threads", colour::VERMILION, Marker::Diamond, step),
                marked("bare calls, 2 threads", colour::BLUE, Marker::Circle, points(&two, x, bare)),
                from_zero(&points(&one, x, bare)),
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
             the first. Bare calls: the step's products alone, each as one call (B = 1: gemv and ger), with as many BLAS threads, or \
             with one where that is faster.{} {facts}",
            uncopied(rows, facts)
        ),
    }
}

/// Why a step may be faster than its own products. The permission is that of OpenBLAS's file
/// kernel/x86_64/sgemm_small_kernel_permit_skylakex.c, which three kinds of kernels share.
fn uncopied(rows: &[Row], facts: &str) -> String {
    const PERMITTED: usize = 1_000_000;
    let avx512 =
        ["kernel SkylakeX", "kernel Cooperlake", "kernel SapphireRapids"].iter().any(|kernel| facts.contains(kernel));
    let faster = |row: &&Row| {
        let Shape { widths, batch } = row.shape();
        let product = batch * widths[0] * widths[1];
        row.step_seconds < 0.8 * row.gemm_seconds && (PERMITTED + 1..=2 * PERMITTED).contains(&product)
    };
    match chosen(rows, "epoch", "f32", 1).into_iter().find(faster) {
        Some(row) if avx512 => format!(
            " The step is faster than the bare calls at {}, where one product makes {} multiplications: up to 10⁶ of them OpenBLAS's \
             AVX-512 kernels multiply without copying the operands, and the step's tiles have half as many.",
            row.name(),
            row.batch * row.shape().widths[0] * row.shape().widths[1]
        ),
        _ => String::new(),
    }
}

/// Step ÷ bare calls, and the speed-up by the second thread, for each shape of the table.
pub(crate) fn ratio_figure(rows: &[Row], facts: &str) -> Figure {
    let mut shapes: Vec<String> = rows.iter().map(Row::name).collect();
    shapes.dedup();
    let place = |row: &Row, shift: f64| shapes.iter().position(|name| *name == row.name()).unwrap_or(0) as f64 + shift;
    // The number types and ways of a shape beside each other.
    let series = |label: &str, colour, marker, shift: f64, rows: Vec<&Row>, value: &dyn Fn(&Row) -> f64| Series {
        label: label.to_owned(),
        colour,
        marker,
        marks: rows.into_iter().map(|row| (value(row), place(row, shift))).collect(),
        ..Series::default()
    };
    let ratio = |row: &Row| row.step_seconds / row.gemm_seconds;
    let speedup = |row: &Row| {
        let same = |one: &&Row| {
            (&one.mode, &one.widths, one.batch, &one.dtype, one.threads)
                == (&row.mode, &row.widths, row.batch, &row.dtype, 1)
        };
        rows.iter().find(same).expect("both numbers of threads are measured").step_seconds / row.step_seconds
    };
    let kinds = [
        ("epoch, f32", colour::VERMILION, Marker::Diamond, -0.18, "epoch", "f32"),
        ("single steps, f32", colour::BLUE, Marker::Circle, 0.0, "step", "f32"),
        ("epoch, f64", colour::GREEN, Marker::Cross, 0.18, "epoch", "f64"),
    ];
    let panel = |title: &str, label, levels: &[f64], value: &dyn Fn(&Row) -> f64| {
        let of = |&(label, colour, marker, shift, mode, dtype): &(&str, _, _, _, _, _)| {
            series(label, colour, marker, shift, chosen(rows, mode, dtype, 2), value)
        };
        let mut all: Vec<Series> = kinds.iter().map(of).filter(|series| !series.marks.is_empty()).collect();
        let ends = |x: f64| [(x, -0.6), (x, shapes.len() as f64 - 0.4)];
        all.extend(levels.iter().map(|&x| level("", colour::GREY, Stroke::Dashed, ends(x))));
        Panel {
            title: title.to_owned(),
            x: Axis { label, scale: Scale::Linear },
            y: Axis { label: "", scale: Scale::Names(shapes.clone()) },
            series: all,
        }
    };
    Figure {
        name: "step",
        title: "A training step beside its bare BLAS calls".to_owned(),
        panels: vec![
            panel("Step ÷ bare calls, 2 threads", "below 1: faster than bare calls", &[1.0], &ratio),
            panel("Speed-up by the second thread", "time with 1 thread ÷ with 2", &[1.0, 2.0], &speedup),
        ],
        caption: format!(
            "1024×4-1 stands for 1024-1024-1024-1024-1, B for the batch. Medians of interleaved measurements. A step has what the bare calls \
             leave out: gathering the batch, ReLU, loss, masks. The bare calls take the better of OpenBLAS with 1 and 2 threads. Before timing, \
             each step gave the oracle's bits. {facts}"
        ),
    }
}

/// Every shape of the table, with two threads.
pub(crate) fn table(rows: &[Row]) -> Table {
    let header = [
        "widths",
        "batch",
        "dtype",
        "bare calls",
        "epoch",
        "÷ bare",
        "single step",
        "÷ bare",
        "2 threads ÷ 1",
        "of peak",
        "predict",
        "÷ bare",
    ];
    let of = |mode: &str, threads: usize, row: &Row| {
        let same = |other: &&Row| {
            (other.mode.as_str(), other.threads, &other.dtype, &other.widths, other.batch)
                == (mode, threads, &row.dtype, &row.widths, row.batch)
        };
        rows.iter().find(same).expect("every variant is measured")
    };
    let in_table = |row: &&Row| row.mode == "epoch" && row.threads == 2;
    let table = rows.iter().filter(in_table).map(|row| {
        let micros = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
        let ratio = |row: &Row| format!("{:.2}", row.step_seconds / row.gemm_seconds);
        let (single, predict) = (of("step", 2, row), of("predict", 2, row));
        vec![
            row.widths.clone(),
            row.batch.to_string(),
            row.dtype.clone(),
            micros(row.gemm_seconds),
            micros(row.step_seconds),
            ratio(row),
            micros(single.step_seconds),
            ratio(single),
            format!("{:.2}", of("epoch", 1, row).step_seconds / row.step_seconds),
            format!("{:.0} %", 100.0 * row.gflops / row.peak_gflops),
            micros(predict.step_seconds),
            ratio(predict),
        ]
    });
    Table { header: header.map(str::to_owned).to_vec(), rows: table.collect() }
}
