//! How much of its rounding bound each operation uses up.

use gemmprop::curvature::Hessian;
use gemmprop::rungs::bounds::{self, Bounded, StepBounds};
use gemmprop::rungs::{Trace, batched};
use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Optimizer, Parameters, Products, Scalar, Sgd, SquaredError, Trainer,
    TrainingSettings,
};
use ndarray::{Array2, Axis as Dimension, Ix2};
use serde::{Deserialize, Serialize};

use crate::exact::{Big, Exact, ExactLoss, distance, first_step};
use crate::step::median;
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};
use report::progress::Progress;

/// An operation on one shape.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    operation: String,
    /// `blas` or `native`.
    engine: String,
    dtype: String,
    /// n of n-n-n-1.
    width: usize,
    batch: usize,
    /// The numbers that are not computed exactly.
    numbers: usize,
    /// |computed − exact| ÷ bound: its median and its largest value over these.
    median: f64,
    largest: f64,
}

const OPERATIONS: [&str; 5] = ["u and ŷ", "gradient", "SGD step", "Adam step", "H v"];

const BATCH: usize = 16;

const ETA: f64 = 0.125;

const ENGINES: [(&str, Products); 2] = [("blas", Products::Blas), ("native", Products::Native)];

pub(crate) fn measure(quick: bool) -> Vec<Row> {
    let widths: &[usize] = if quick { &[1, 8, 46] } else { &[1, 7, 8, 16, 32, 45, 46, 64, 129] };
    let progress = Progress::new("bounds", 2 * widths.len());
    let mut rows = Vec::new();
    for &n in widths {
        progress.begin(format!("n {n}, f32"));
        rows.extend(of_shape::<f32>("f32", n));
        progress.end();
        progress.begin(format!("n {n}, f64"));
        rows.extend(of_shape::<f64>("f64", n));
        progress.end();
    }
    rows
}

/// Random numbers from −1 to 1, the same in each run.
fn uniform<F: Scalar>(rows: usize, columns: usize, seed: usize) -> Array2<F> {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        F::from_f64((state >> 11) as f64 / 2_f64.powi(52) - 1.0)
    })
}

fn of_shape<F: Scalar>(dtype: &str, n: usize) -> Vec<Row> {
    let mut mlp = Mlp::<F>::he(&[n, n, n, 1], Bias::EveryLayer, 1).expect("valid widths");
    for (i, c) in mlp.parameters_mut().layers_mut().enumerate() {
        let (_, mut c) = c;
        let drawn = uniform::<F>(1, c.len(), i);
        c.iter_mut().zip(&drawn).for_each(|(c, &drawn)| *c = F::from_f64(0.5) * drawn);
    }
    // Samples without a mask that rounding decides: its bound would be the gradient itself.
    let x = uniform::<F>(8 * BATCH, n, 7);
    let uncertain = bounds::forward(&mlp, x.view()).expect("fits").uncertain;
    let certain = (0..x.nrows()).filter(|&i| uncertain.iter().all(|mask| mask.sample != i));
    let x = x.select(Dimension(0), &certain.take(BATCH).collect::<Vec<_>>());
    let y = uniform::<F>(x.nrows(), 1, 8);
    let drawn = uniform::<F>(1, mlp.parameters().count(), 9);
    let mut v = mlp.zero_gradient();
    v.iter_mut().zip(&drawn).for_each(|(v, &drawn)| *v = drawn);

    let (exact, wide) = (Exact::new(&mlp), y.mapv(|y| y.to_f64()));
    let traces = x.outer_iter().map(|x| exact.forward(&x.to_vec()));
    let forward = traces.flat_map(|trace| trace.u.into_iter().flatten().chain(trace.y_hat)).collect();
    let (_, gradient) = exact.loss_gradient(x.view(), wide.view(), ExactLoss::Squared);
    let steps = [Optimizer::Sgd, Optimizer::adam()].map(|optimizer| first_step(&mlp, &gradient, optimizer, ETA, 0.0));
    let hv = exact.hessian_product(x.view(), wide.view(), ExactLoss::Squared, &v);
    let [sgd, adam] = steps;
    let exact = [forward, gradient, sgd, adam, hv];
    let measured = ENGINES.into_iter().flat_map(|(engine, products)| {
        let mlp = mlp.clone().with_products(products).expect("both engines");
        let ratios = of_engine(&mlp, [&x, &y], &v, &exact);
        OPERATIONS.into_iter().zip(ratios).map(move |(operation, ratios)| (engine, operation, ratios))
    });
    let row = |(engine, operation, ratios): (&str, &str, Vec<f64>)| Row {
        operation: operation.to_owned(),
        engine: engine.to_owned(),
        dtype: dtype.to_owned(),
        width: n,
        batch: x.nrows(),
        numbers: ratios.len(),
        largest: ratios.iter().fold(0.0, |a, &b| a.max(b)),
        median: if ratios.is_empty() { 0.0 } else { median(ratios) },
    };
    measured.map(row).collect()
}

/// |computed − exact| ÷ bound of each number of each operation that is not exact.
fn of_engine<F: Scalar>(
    mlp: &Mlp<F>,
    [x, y]: [&Array2<F>; 2],
    v: &Parameters<F>,
    exact: &[Vec<Big>; 5],
) -> [Vec<f64>; 5] {
    let of_trace = bounds::forward(mlp, x.view()).expect("fits").trace;
    let trace = batched::forward(mlp, x.view()).expect("fits");
    let bounds = bounds::loss_gradient(mlp, x.view(), y.view(), &SquaredError).expect("fits");
    let mut g = mlp.zero_gradient();
    batched::loss_gradient(mlp, x.view(), y.view(), &SquaredError, &mut g).expect("fits");
    let of_step = |optimizer| {
        StepBounds::new(optimizer).and_then(|mut steps| steps.step(mlp, &bounds, ETA, 0.0)).expect("a step").bound
    };
    let mut sgd = mlp.clone();
    Sgd::new(x.nrows(), ETA, 0)
        .and_then(|mut steps| steps.step(&mut sgd, x.view(), y.view(), &SquaredError))
        .expect("a finite loss");
    let learning_rate = LearningRate::constant(ETA);
    let training = TrainingSettings { optimizer: Optimizer::adam(), learning_rate, ..TrainingSettings::default() };
    let mut adam = Trainer::new(mlp.clone(), SquaredError, training).expect("valid");
    adam.step(Dataset::new(x.view(), y.view())).expect("a finite loss");
    let mut hv = mlp.zero_gradient();
    let mut hessian = Hessian::new(mlp, Dataset::new(x.view(), y.view()), &SquaredError).expect("fits");
    hessian.apply(v, &mut hv).expect("fits");
    let Bounded { bound: of_hv, .. } =
        bounds::hessian_product(mlp, x.view(), y.view(), &SquaredError, v).expect("fits").product;
    let numbers = |p: &Parameters<F>| p.iter().map(|a| a.to_f64()).collect::<Vec<_>>();
    let of_parameters = |p: &Parameters<f64>| p.iter().copied().collect::<Vec<_>>();
    [
        ratios(&flat(&trace), &exact[0], &flat(&of_trace.bound)),
        ratios(&numbers(&g), &exact[1], &of_parameters(&bounds.gradient.bound)),
        ratios(&numbers(sgd.parameters()), &exact[2], &of_parameters(&of_step(Optimizer::Sgd))),
        ratios(&numbers(adam.model().mlp.parameters()), &exact[3], &of_parameters(&of_step(Optimizer::adam()))),
        ratios(&numbers(&hv), &exact[4], &of_parameters(&of_hv)),
    ]
}

/// u and ŷ, sample by sample.
fn flat<F: Scalar>(trace: &Trace<F, Ix2>) -> Vec<f64> {
    let depth = trace.y_hat().ncols();
    assert_eq!(depth, 1, "one output");
    let of_sample = |r: usize| {
        let layers = (1..=2).flat_map(move |t| trace.u(t).row(r).to_vec());
        layers.chain(trace.y_hat().row(r).to_vec())
    };
    (0..trace.y_hat().nrows()).flat_map(of_sample).map(|a| a.to_f64()).collect()
}

fn ratios(found: &[f64], exact: &[Big], bound: &[f64]) -> Vec<f64> {
    let numbers = found.iter().zip(exact).zip(bound);
    let off = numbers.map(|((&found, exact), &bound)| (distance(found, exact), bound));
    off.filter(|&(off, bound)| off > 0.0 || bound > 0.0).map(|(off, bound)| off / bound).collect()
}

/// Panels by number type and engine: the largest and the median ratio of each operation.
pub(crate) fn figure(rows: &[Row], facts: &str) -> Figure {
    let looks = [
        (colour::BLUE, Marker::Circle),
        (colour::VERMILION, Marker::Diamond),
        (colour::GREEN, Marker::Square),
        (colour::PURPLE, Marker::Cross),
        (colour::ORANGE, Marker::Triangle),
    ];
    let panel = |dtype: &str, engine: &str| {
        let of = |operation: &str, value: fn(&Row) -> f64| {
            let rows = rows.iter().filter(|row| (row.dtype.as_str(), row.engine.as_str()) == (dtype, engine));
            let rows = rows.filter(|row| row.operation == operation && value(row) > 0.0);
            rows.map(|row| (row.width as f64, value(row))).collect::<Vec<_>>()
        };
        let mut series = Vec::new();
        for (operation, (colour, marker)) in OPERATIONS.into_iter().zip(looks) {
            let largest = of(operation, |row| row.largest);
            let label = operation.to_owned();
            series.push(Series { label, colour, marker, marks: largest.clone(), line: largest, ..Series::default() });
            let line = of(operation, |row| row.median);
            series.push(Series { colour, stroke: Stroke::Dashed, line, ..Series::default() });
        }
        let widths = || rows.iter().map(|row| row.width as f64);
        let ends = [widths().fold(f64::INFINITY, f64::min), widths().fold(0.0, f64::max)];
        let line = ends.map(|n| (n, 1.0)).to_vec();
        series.push(Series { label: "the bound".to_owned(), colour: colour::GREY, line, ..Series::default() });
        let name = if engine == "blas" { "BLAS" } else { "native" };
        Panel {
            title: format!("{dtype}, {name}"),
            x: Axis { label: "width n", scale: Scale::Log },
            y: Axis { label: "|computed − exact| ÷ bound", scale: Scale::Log },
            series,
        }
    };
    let panels = ["f32", "f64"].into_iter().flat_map(|dtype| ["blas", "native"].map(|engine| panel(dtype, engine)));
    let batch = rows.first().map_or(BATCH, |row| row.batch);
    Figure {
        name: "bounds",
        title: "What rounding does, and its bound".to_owned(),
        panels: panels.collect(),
        caption: format!(
            "Networks n-n-n-1 with a bias on every layer, He's weights, {batch} samples whose masks are certain, squared error. Marks: the \
             largest ratio over all numbers of an operation; dashed: its median. Exact numbers have 160 bits; numbers that are exact for \
             certain are left out. Steps with η = 1/8, Adam's the first. None of them reaches 1: the bounds hold. {facts}"
        ),
    }
}

/// The largest width: median and largest ratio of each operation.
pub(crate) fn table(rows: &[Row]) -> Table {
    let width = rows.iter().map(|row| row.width).max();
    let header = ["operation", "engine", "dtype", "width", "median ÷ bound", "largest ÷ bound"];
    let largest = rows.iter().filter(|row| Some(row.width) == width).map(|row| {
        vec![
            row.operation.clone(),
            row.engine.clone(),
            row.dtype.clone(),
            row.width.to_string(),
            format!("{:.1e}", row.median),
            format!("{:.1e}", row.largest),
        ]
    });
    Table { header: header.map(str::to_owned).to_vec(), rows: largest.collect() }
}
