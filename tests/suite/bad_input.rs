//! What every public call makes of bad or odd input. `docs/bad-input.md` is written from here, and
//! the results are compared with it.
//!
//! `BLESS=1 cargo test --test suite bad_input` rewrites the page.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gemmprop::{
    Bias, Dataset, LearningRate, Logistic, Mlp, Model, Optimizer, Parameters, Products, Result, Sgd,
    SoftmaxCrossEntropy, SquaredError, Standardizer, Trainer, TrainingSettings,
    curvature::Hessian,
    rungs::{Trace, batched, matrix_vector, naive, per_neuron},
};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, ShapeBuilder, array, s};

/// All that calls on data are given.
#[derive(Clone, Copy)]
struct Case<'a> {
    x: ArrayView2<'a, f32>,
    /// Targets with as many columns as the network has outputs.
    y: ArrayView2<'a, f32>,
    labels: ArrayView1<'a, usize>,
    weights: ArrayView1<'a, f32>,
    mlp: &'a Mlp<f32>,
    /// The network of the same shape with one output.
    one: &'a Mlp<f32>,
}

impl<'a> Case<'a> {
    fn data(&self) -> Dataset<'a, f32, f32> {
        Dataset::new(self.x, self.y).weights(self.weights)
    }

    /// The targets of the network with one output.
    fn y_one(&self) -> ArrayView1<'a, f32> {
        self.y.index_axis_move(Axis(1), 0)
    }

    fn standardized(&self) -> Result<Model<f32>> {
        // Fitted on sound numbers, so that it is the call in question that refuses its input.
        let columns = self.mlp.inputs();
        let x = Array2::from_shape_fn((5, columns), |(i, j)| (i * (j % 7 + 2) % 5) as f32);
        Ok(Model { mlp: self.mlp.clone(), standardizer: Some(Standardizer::fit(x.view())?) })
    }

    fn trainer(&self, training: TrainingSettings) -> Result<Trainer<f32, SquaredError>> {
        Trainer::new(self.mlp.clone(), SquaredError, training)
    }
}

/// The numbers that a call gives or leaves behind.
type Call = (&'static str, fn(&Case) -> Result<Vec<f64>>);

fn numbers<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> Vec<f64> {
    numbers.into_iter().map(|&number| f64::from(number)).collect()
}

fn settings() -> TrainingSettings {
    TrainingSettings { epochs: 2, batch: 4, learning_rate: LearningRate::constant(1e-3), ..TrainingSettings::default() }
}

/// All settings that read the data in another way.
fn all_settings() -> TrainingSettings {
    TrainingSettings { optimizer: Optimizer::adam(), standardize: true, validation_fraction: Some(0.3), ..settings() }
}

fn of_trace(trace: &Trace<f32, ndarray::Ix1>) -> Vec<f64> {
    numbers((0..=1).flat_map(|t| trace.z(t)).chain(trace.u(1)).chain(trace.y_hat()))
}

/// θ and the losses.
fn of_trainer(trainer: &Trainer<f32, SquaredError>) -> Vec<f64> {
    let losses = trainer.history().records.iter().flat_map(|record| [Some(record.loss), record.validation_loss]);
    numbers(trainer.model().mlp.parameters().iter()).into_iter().chain(losses.flatten()).collect()
}

/// A gradient of one sample, by a rung.
macro_rules! of_one {
    ($rung:ident::output_gradient) => {
        |case| {
            let mut g = case.mlp.zero_gradient();
            $rung::output_gradient(case.mlp, case.x.row(case.x.nrows() - 1), 1, &mut g)?;
            Ok(numbers(g.iter()))
        }
    };
    ($rung:ident::loss_gradient) => {
        |case| {
            let mut g = case.mlp.zero_gradient();
            let (x, y) = (case.x.row(case.x.nrows() - 1), case.y.row(case.y.nrows() - 1).to_vec());
            let loss = $rung::loss_gradient(case.mlp, x, &y, &SquaredError, &mut g)?;
            Ok(numbers(g.iter().chain([&loss])))
        }
    };
}

/// Calls on one sample, the last of the case.
const ON_ONE_SAMPLE: &[Call] = &[
    ("Trace::new", |case| Ok(of_trace(&Trace::new(case.mlp, case.x.row(case.x.nrows() - 1))?))),
    ("naive::output_gradient", of_one!(naive::output_gradient)),
    ("naive::loss_gradient", of_one!(naive::loss_gradient)),
    ("per_neuron::output_gradient", of_one!(per_neuron::output_gradient)),
    ("per_neuron::loss_gradient", of_one!(per_neuron::loss_gradient)),
    ("matrix_vector::forward", |case| Ok(of_trace(&matrix_vector::forward(case.mlp, case.x.row(case.x.nrows() - 1))?))),
    ("matrix_vector::output_gradient", of_one!(matrix_vector::output_gradient)),
    ("matrix_vector::loss_gradient", of_one!(matrix_vector::loss_gradient)),
];

/// Calls that read x alone.
const ON_X: &[Call] = &[
    ("batched::forward", |case| {
        let trace = batched::forward(case.mlp, case.x)?;
        Ok(numbers((0..=1).flat_map(|t| trace.z(t)).chain(trace.u(1)).chain(trace.y_hat())))
    }),
    ("batched::output_gradient", |case| {
        let mut g = case.mlp.zero_gradient();
        batched::output_gradient(case.mlp, case.x, 1, &mut g)?;
        Ok(numbers(g.iter()))
    }),
    ("Mlp::predict", |case| Ok(numbers(&case.mlp.predict(case.x)?))),
    ("Mlp::predict_one", |case| Ok(numbers(&case.one.predict_one(case.x)?))),
    ("Mlp::classify", |case| Ok(case.mlp.classify(case.x)?.iter().map(|&class| class as f64).collect())),
    ("Model::predict", |case| Ok(numbers(&case.standardized()?.predict(case.x)?))),
    ("Model::predict_one", |case| Ok(numbers(&Model::from(case.one.clone()).predict_one(case.x)?))),
    ("Model::classify", |case| Ok(case.standardized()?.classify(case.x)?.iter().map(|&class| class as f64).collect())),
];

const STANDARDIZER: &[Call] = &[
    ("Standardizer::fit", |case| {
        let fitted = Standardizer::fit(case.x)?;
        Ok(fitted.mean().iter().chain(fitted.factor()).copied().collect())
    }),
    ("Standardizer::transform", |case| {
        let fitted = case.standardized()?.standardizer.expect("just fitted");
        Ok(numbers(&fitted.transform(case.x)?))
    }),
];

/// Calls that read x and y.
const ON_DATA: &[Call] = &[
    ("batched::loss_gradient", |case| {
        let mut g = case.mlp.zero_gradient();
        let loss = batched::loss_gradient(case.mlp, case.x, case.y, &SquaredError, &mut g)?;
        Ok(numbers(g.iter()).into_iter().chain([loss]).collect())
    }),
    ("Sgd::train", |case| {
        let mut mlp = case.mlp.clone();
        let losses = Sgd::new(4, 1e-3, 1)?.train(&mut mlp, case.x, case.y, &SquaredError, 2)?;
        Ok(numbers(mlp.parameters().iter()).into_iter().chain(losses).collect())
    }),
    ("Sgd::step", |case| {
        let mut mlp = case.mlp.clone();
        let loss = Sgd::new(4, 1e-3, 1)?.step(&mut mlp, case.x, case.y, &SquaredError)?;
        Ok(numbers(mlp.parameters().iter()).into_iter().chain([loss]).collect())
    }),
    ("Hessian::new", hessian),
];

/// Calls that also read weights if there are any.
const ON_WEIGHTED_DATA: &[Call] = &[
    ("Model::evaluate", |case| Ok(vec![Model::from(case.mlp.clone()).evaluate(case.data(), &SquaredError)?])),
    ("Trainer::fit", |case| {
        let mut trainer = case.trainer(settings())?;
        trainer.fit(case.data(), Some(case.data()), &mut ())?;
        Ok(of_trainer(&trainer))
    }),
    ("Trainer::partial_fit", |case| {
        let mut trainer = case.trainer(settings())?;
        trainer.partial_fit(case.data(), Some(case.data()), &mut ())?;
        Ok(of_trainer(&trainer))
    }),
    ("Trainer::step", |case| {
        let mut trainer = case.trainer(settings())?;
        let loss = trainer.step(case.data())?;
        Ok(of_trainer(&trainer).into_iter().chain([loss]).collect())
    }),
    ("Trainer::fit with Adam, standardisation and a split", |case| {
        let mut trainer = case.trainer(all_settings())?;
        trainer.fit(case.data(), None, &mut ())?;
        Ok(of_trainer(&trainer))
    }),
];

/// Calls whose targets are one number or one label per sample.
const ON_ONE_NUMBER: &[Call] = &[
    ("Sgd::step, one output", |case| {
        let mut mlp = case.one.clone();
        let loss = Sgd::new(4, 1e-3, 1)?.step(&mut mlp, case.x, case.y_one(), &SquaredError)?;
        Ok(numbers(mlp.parameters().iter()).into_iter().chain([loss]).collect())
    }),
    ("Sgd::step, labels", |case| {
        let mut mlp = case.mlp.clone();
        let loss = Sgd::new(4, 1e-3, 1)?.step(&mut mlp, case.x, case.labels, &SoftmaxCrossEntropy)?;
        Ok(numbers(mlp.parameters().iter()).into_iter().chain([loss]).collect())
    }),
    ("Trainer::fit, labels", |case| {
        let mut trainer = Trainer::new(case.mlp.clone(), SoftmaxCrossEntropy, all_settings())?;
        trainer.fit(Dataset::new(case.x, case.labels).weights(case.weights), None, &mut ())?;
        Ok(numbers(trainer.model().mlp.parameters().iter()))
    }),
];

fn hessian(case: &Case) -> Result<Vec<f64>> {
    let mut hessian = Hessian::new(case.mlp, case.data(), &SquaredError)?;
    let (g, mut hg) = (hessian.gradient().clone(), case.mlp.zero_gradient());
    hessian.apply(&g, &mut hg)?;
    Ok(numbers(g.iter().chain(hg.iter())).into_iter().chain([hessian.loss()]).collect())
}

#[cfg(feature = "curvature")]
fn landscape(case: &Case) -> Result<Vec<f64>> {
    use gemmprop::curvature::sharpness::Landscape;
    let mut landscape = Landscape::new(case.mlp, case.data(), &SquaredError)?;
    let direction = case.mlp.parameters().clone();
    let plane = landscape.plane([&direction, &direction], &[0.0, 0.5], &[0.0, 1.0])?;
    let sharpness = [landscape.box_sharpness(1e-3, 3)?, landscape.adaptive_sharpness(0.1, 2)?];
    Ok(plane.into_iter().chain(sharpness).collect())
}

/// A view of this shape into a larger array.
type Layout<T> = (&'static str, fn(&Array2<T>, (usize, usize)) -> ArrayView2<'_, T>);

fn layouts<T>() -> [Layout<T>; 12] {
    [
        ("rows of a wider array", |a, (n, d)| a.slice(s![..n, 1..=d])),
        ("transposed", |a, (n, d)| a.slice(s![..d, ..n]).reversed_axes()),
        ("rows reversed", |a, (n, d)| a.slice(s![..n;-1, ..d])),
        ("columns reversed", |a, (n, d)| a.slice(s![..n, ..d;-1])),
        ("both reversed", |a, (n, d)| a.slice(s![..n;-1, ..d;-1])),
        ("transposed and both reversed", |a, (n, d)| a.slice(s![..d;-1, ..n;-1]).reversed_axes()),
        ("every second row", |a, (n, d)| a.slice(s![..2 * n;2, ..d])),
        ("every second column", |a, (n, d)| a.slice(s![..n, ..2 * d;2])),
        ("every second column from the last", |a, (n, d)| a.slice(s![..n, ..2 * d;-2])),
        ("one row for all", |a, shape| strided(a, shape, [0, 1])),
        ("one column for all", |a, shape| strided(a, shape, [1, 0])),
        ("one number for all", |a, shape| strided(a, shape, [0, 0])),
    ]
}

/// A view with these strides, from the first number on.
fn strided<T>(a: &Array2<T>, shape: (usize, usize), strides: [usize; 2]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape(shape.strides(strides.into()), a.as_slice().expect("row-major")).expect("large enough")
}

fn copied<T: Copy>(view: ArrayView2<T>) -> Array2<T> {
    Array2::from_shape_vec(view.dim(), view.iter().copied().collect()).unwrap()
}

fn network(widths: &[usize]) -> Mlp<f32> {
    Mlp::he(widths, Bias::EveryLayer, 3).unwrap()
}

/// What comes of a call: its numbers, or the text of its error or panic.
fn outcome(call: impl FnOnce() -> Result<Vec<f64>>) -> std::result::Result<Vec<u64>, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(numbers)) => Ok(numbers.iter().map(|number| number.to_bits()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panics: {}", text.unwrap_or("without a text")))
        }
    }
}

/// All calls on data, group by group.
const GROUPS: [(&str, &[Call]); 6] = [
    ("on one sample", ON_ONE_SAMPLE),
    ("on x", ON_X),
    ("standardisation", STANDARDIZER),
    ("on x and y", ON_DATA),
    ("with weights", ON_WEIGHTED_DATA),
    ("with one number a sample", ON_ONE_NUMBER),
];

fn all_calls() -> Vec<Call> {
    let calls = GROUPS.map(|(_, calls)| calls).concat();
    #[cfg(feature = "curvature")]
    let calls = [calls, vec![("Landscape", landscape as fn(&Case) -> Result<Vec<f64>>)]].concat();
    calls
}

/// The calls that give other numbers for views than for their contiguous copies, and which.
fn that_depend_on_layout(layout: usize, (samples, inputs): (usize, usize), calls: &[Call]) -> Vec<String> {
    let size = 2 * samples.max(inputs).max(2) + 1;
    let number = |seed: usize| {
        Array2::from_shape_fn((size, size), |(i, j)| ((i * 37 + j * 11 + seed) % 101) as f32 / 50.5 - 1.0)
    };
    let (x, y, weights) = (number(0), number(50), number(77).mapv(|w| w + 1.0));
    let labels = Array2::from_shape_fn((size, size), |(i, j)| (i * 3 + j) % 2);
    let view = layouts()[layout].1;
    let (x, y, weights) = (view(&x, (samples, inputs)), view(&y, (samples, 2)), view(&weights, (samples, 2)));
    let (weights, labels) = (weights.column(1), layouts()[layout].1(&labels, (samples, 2)).index_axis_move(Axis(1), 1));
    let (x_copy, y_copy) = (copied(x), copied(y));
    let (weights_copy, labels_copy) = (Array1::from_vec(weights.to_vec()), Array1::from_vec(labels.to_vec()));
    let (mlp, one) = (network(&[inputs, 4, 2]), network(&[inputs, 4, 1]));
    let (x_c, y_c, weights_c, labels_c) = (x_copy.view(), y_copy.view(), weights_copy.view(), labels_copy.view());
    let copy = Case { x: x_c, y: y_c, labels: labels_c, weights: weights_c, mlp: &mlp, one: &one };
    let cases = [
        ("x", Case { x, ..copy }),
        ("y", Case { y, ..copy }),
        ("labels", Case { labels, ..copy }),
        ("weights", Case { weights, ..copy }),
        ("all", Case { x, y, labels, weights, ..copy }),
    ];
    let mut depend = Vec::new();
    for &(name, call) in calls {
        let expected = outcome(|| call(&copy));
        for (which, case) in &cases {
            let found = outcome(|| call(case));
            if found != expected {
                depend.push(format!("{name}, {which} so: {}", found.err().unwrap_or("other numbers".into())));
            }
        }
    }
    depend
}

#[test]
fn a_view_of_any_layout_gives_the_bits_of_a_contiguous_copy() {
    for (layout, (name, _)) in layouts::<f32>().iter().enumerate() {
        for shape in [(6, 5), (1, 5), (6, 1), (1, 1), (150, 3)] {
            let found = that_depend_on_layout(layout, shape, &all_calls());
            assert!(found.is_empty(), "{name}, {shape:?}: {found:#?}");
        }
    }
}

/// A word for numbers, whose digits may depend on the kernels; the text of an error.
fn text(call: impl FnOnce() -> Result<Vec<f64>>) -> String {
    match outcome(call) {
        Ok(numbers) => {
            let any = |is: fn(f64) -> bool| numbers.iter().any(|&bits| is(f64::from_bits(bits)));
            let what = [(any(f64::is_nan), "**NaN**"), (any(f64::is_infinite), "**infinite numbers**")];
            what.into_iter().find(|what| what.0).map_or("finite numbers", |what| what.1).into()
        }
        Err(text) => text.replace('|', "\\|"),
    }
}

/// A table of inputs and what comes of them in which calls.
struct Table<'a> {
    page: &'a mut String,
    groups: Vec<(&'static str, &'static [Call])>,
}

impl<'a> Table<'a> {
    fn new(page: &'a mut String, title: &str, groups: &[(&'static str, &'static [Call])]) -> Self {
        write!(page, "\n## {title}\n\n| input | what happens | in |\n|---|---|---|\n").unwrap();
        Self { page, groups: groups.to_vec() }
    }

    /// Calls with the same outcome share a row, and a group that is in it as a whole goes by its
    /// name.
    fn row(&mut self, input: &str, outcome_of: impl Fn(Call) -> Option<String>) {
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        for (group, calls) in &self.groups {
            let mut of_group: Vec<(String, Vec<String>)> = Vec::new();
            for &call in *calls {
                let Some(outcome) = outcome_of(call) else { continue };
                let name = format!("`{}`", call.0);
                match of_group.iter_mut().find(|(of, _)| *of == outcome) {
                    Some((_, names)) => names.push(name),
                    None => of_group.push((outcome, vec![name])),
                }
            }
            for (outcome, mut names) in of_group {
                if names.len() == calls.len() {
                    names = vec![format!("*{group}*")];
                }
                match rows.iter_mut().find(|(of, _)| *of == outcome) {
                    Some((_, all)) => all.extend(names),
                    None => rows.push((outcome, names)),
                }
            }
        }
        let everywhere: Vec<_> = self.groups.iter().map(|(group, _)| format!("*{group}*")).collect();
        for (outcome, names) in rows {
            let names = if names == everywhere { "*all*".into() } else { names.join(", ") };
            writeln!(self.page, "| {input} | {outcome} | {names} |").unwrap();
        }
    }
}

/// Every weight is 1, every bias 0, so that it is plain what overflows; and native products, since
/// what an overflow becomes, ∞ or NaN, depends on the order of a sum.
fn ones(widths: &[usize]) -> Mlp<f32> {
    let mlp = Mlp::from_weights(widths, Bias::EveryLayer, 0, |_, _, _| 1.0).unwrap();
    mlp.with_products(Products::Native).unwrap()
}

fn of_x(page: &mut String) {
    let mut table = Table::new(page, "x", &GROUPS);
    let base = Array2::from_shape_fn((6, 3), |(i, j)| (i * (j + 2) % 5) as f32);
    let mut with = |input: &str, x: ArrayView2<f32>, inputs: usize| {
        let (mlp, one) = (ones(&[inputs, 4, 2]), ones(&[inputs, 4, 1]));
        let y = Array2::from_shape_fn((x.nrows(), 2), |(i, j)| ((i + j) % 3) as f32);
        let labels = Array1::from_shape_fn(x.nrows(), |i| i % 2);
        let weights = Array1::from_elem(x.nrows(), 1.0);
        let case = Case { x, y: y.view(), labels: labels.view(), weights: weights.view(), mlp: &mlp, one: &one };
        // Calls on one sample do not apply to 0 rows.
        let there = |name: &str| x.nrows() > 0 || ON_ONE_SAMPLE.iter().all(|call| call.0 != name);
        table.row(input, |(name, call)| there(name).then(|| text(|| call(&case))));
    };
    with("6 rows, 3 columns", base.view(), 3);
    with("0 rows", base.slice(s![..0, ..]), 3);
    with("1 row", base.slice(s![..1, ..]), 3);
    with("2 columns for 3 inputs", base.slice(s![.., ..2]), 3);
    with("0 columns for 3 inputs", base.slice(s![.., ..0]), 3);
    with("131,073 columns for as many inputs", Array2::from_elem((6, 131_073), 1e-3).view(), 131_073);
    for (name, number) in [
        ("NaN", f32::NAN),
        ("inf", f32::INFINITY),
        ("−inf", f32::NEG_INFINITY),
        ("10⁻⁴⁵, subnormal", 1e-45),
        ("10⁻³⁸", 1e-38),
        ("10³⁸", 1e38),
        ("−10³⁸", -1e38),
    ] {
        let mut x = base.clone();
        x[(5, 1)] = number;
        with(&format!("{name} at [5, 1]"), x.view(), 3);
    }
    let mut x = base.clone();
    x.column_mut(1).fill(0.1);
    with("a constant column", x.view(), 3);
    x.column_mut(1).fill(1e38);
    with("a constant column of 10³⁸", x.view(), 3);
    x.column_mut(1).assign(&base.column(2));
    with("two equal columns", x.view(), 3);
}

fn of_y(page: &mut String) {
    let mut table = Table::new(page, "y and labels", &GROUPS[3..]);
    let x = Array2::from_shape_fn((6, 3), |(i, j)| (i * (j + 2) % 5) as f32);
    let base = Array2::from_shape_fn((6, 2), |(i, j)| ((i + j) % 3) as f32);
    let mut with = |input: &str, y: ArrayView2<f32>, labels: ArrayView1<usize>| {
        let (mlp, one) = (ones(&[3, 4, 2]), ones(&[3, 4, 1]));
        let weights = Array1::from_elem(6, 1.0);
        let case = Case { x: x.view(), y, labels, weights: weights.view(), mlp: &mlp, one: &one };
        table.row(input, |(_, call)| Some(text(|| call(&case))));
    };
    let labels = array![0, 1, 0, 1, 0, 1];
    with("5 for 6 samples", base.slice(s![..5, ..]), labels.slice(s![..5]));
    with("none", base.slice(s![..0, ..]), labels.slice(s![..0]));
    with("1 column for 2 outputs", base.slice(s![.., ..1]), labels.view());
    for (name, number) in [("NaN", f32::NAN), ("inf", f32::INFINITY), ("10⁻⁴⁵, subnormal", 1e-45), ("10³⁸", 1e38)]
    {
        let mut y = base.clone();
        y[(5, 0)] = number;
        with(&format!("{name} at [5, 0]"), y.view(), labels.view());
    }
    with("label 2 of 2 classes at [3]", base.view(), array![0, 1, 0, 2, 0, 1].view());
    with("label 2⁶⁴ − 1 at [3]", base.view(), array![0, 1, 0, usize::MAX, 0, 1].view());
}

fn of_weights(page: &mut String) {
    let mut table = Table::new(page, "weights", &GROUPS[4..5]);
    let x = Array2::from_shape_fn((6, 3), |(i, j)| (i * (j + 2) % 5) as f32);
    let y = Array2::from_shape_fn((6, 2), |(i, j)| ((i + j) % 3) as f32);
    let (mlp, one, labels) = (ones(&[3, 4, 2]), ones(&[3, 4, 1]), Array1::zeros(6));
    let mut with = |input: &str, weights: ArrayView1<f32>| {
        let case = Case { x: x.view(), y: y.view(), labels: labels.view(), weights, mlp: &mlp, one: &one };
        table.row(input, |(_, call)| Some(text(|| call(&case))));
    };
    with("5 for 6 samples", Array1::ones(5).view());
    with("all 0", Array1::zeros(6).view());
    for (name, number) in
        [("−1", -1.0), ("NaN", f32::NAN), ("inf", f32::INFINITY), ("10⁻⁴⁵, subnormal", 1e-45), ("10³⁸", 1e38)]
    {
        let mut weights = Array1::ones(6);
        weights[3] = number;
        with(&format!("{name} at [3]"), weights.view());
    }
}

fn of_layouts(page: &mut String) {
    let mut table = Table::new(page, "Views of x, y, labels and weights", &GROUPS);
    for (layout, (name, _)) in layouts::<f32>().iter().enumerate() {
        table.row(name, |call| {
            let found = that_depend_on_layout(layout, (6, 5), &[call]);
            Some(if found.is_empty() { "the bits of a contiguous copy".into() } else { found.join("; ") })
        });
    }
}

/// Calls without data: a name, an input, and what it comes to.
type Other = (&'static str, fn() -> Result<Vec<f64>>);

fn of_others(page: &mut String, title: &str, others: &[Other]) {
    write!(page, "\n## {title}\n\n| call | what happens |\n|---|---|\n").unwrap();
    for (call, other) in others {
        writeln!(page, "| `{call}` | {} |", text(other)).unwrap();
    }
}

const HUGE: [usize; 3] = [1_000_000_000, 1_000_000_000, 1];
const BEYOND: [usize; 2] = [usize::MAX, 2];

fn theta(widths: &[usize]) -> Parameters<f32> {
    Parameters::zeros(widths, Bias::Input).unwrap()
}

fn made(mlp: Result<Mlp<f32>>) -> Result<Vec<f64>> {
    mlp.map(|mlp| numbers(mlp.parameters().iter()))
}

const NETWORKS: &[Other] = &[
    ("Mlp::he(&[])", || made(Mlp::he(&[], Bias::Input, 1))),
    ("Mlp::he(&[3])", || made(Mlp::he(&[3], Bias::Input, 1))),
    ("Mlp::he(&[3, 0, 1])", || made(Mlp::he(&[3, 0, 1], Bias::Input, 1))),
    ("Mlp::he(&[0, 1])", || made(Mlp::he(&[0, 1], Bias::Input, 1))),
    ("Mlp::he(&[1, 1])", || made(Mlp::he(&[1, 1], Bias::Input, 1))),
    ("Mlp::he(&[10⁹, 10⁹, 1])", || made(Mlp::he(&HUGE, Bias::Input, 1))),
    ("Mlp::he(&[2⁶⁴ − 1, 2])", || made(Mlp::he(&BEYOND, Bias::Input, 1))),
    ("Mlp::from_weights(&[10⁹, 10⁹, 1])", || made(Mlp::from_weights(&HUGE, Bias::Input, 1, |_, _, _| 0.0))),
    ("Mlp::from_weights(weights of NaN)", || {
        let mlp = Mlp::<f32>::from_weights(&[3, 1], Bias::Input, 1, |_, _, _| f64::NAN)?;
        Ok(numbers(&mlp.predict(Array2::zeros((1, 3)).view())?))
    }),
    ("Parameters::zeros(&[10⁹, 10⁹, 1])", || Parameters::<f32>::zeros(&HUGE, Bias::Input).map(|_| vec![])),
    ("Parameters::zeros(&[2⁶⁴ − 1, 2])", || Parameters::<f32>::zeros(&BEYOND, Bias::Input).map(|_| vec![])),
    ("Mlp::from_parameters(&[3, 2, 1], θ of [3, 1])", || {
        made(Mlp::from_parameters(&[3, 2, 1], Bias::Input, theta(&[3, 1])))
    }),
    ("Mlp::from_parameters(&[10⁹, 10⁹, 1], θ of [3, 1])", || {
        made(Mlp::from_parameters(&HUGE, Bias::Input, theta(&[3, 1])))
    }),
    ("Mlp::set_parameters(θ of [3, 1]) of [3, 2, 1]", || {
        network(&[3, 2, 1]).set_parameters(&theta(&[3, 1])).map(|()| vec![])
    }),
    ("Parameters::zip_mut_with(θ of [3, 1]) of [3, 2, 1]", || {
        theta(&[3, 2, 1]).zip_mut_with(&theta(&[3, 1]), |_, _| ()).map(|()| vec![])
    }),
    ("Parameters::scaled_add(θ of [3, 1]) of [3, 2, 1]", || {
        theta(&[3, 2, 1]).scaled_add(1.0, &theta(&[3, 1])).map(|()| vec![])
    }),
    ("Mlp::predict_one, 2 outputs", || Ok(numbers(&network(&[3, 2]).predict_one(Array2::zeros((1, 3)).view())?))),
    ("Model::predict, standardisation of 2 inputs for 3", || {
        let standardizer = Some(Standardizer::fit(array![[1.0, 2.0], [3.0, 4.0]].view())?);
        Ok(numbers(&Model { mlp: network(&[3, 1]), standardizer }.predict(Array2::zeros((1, 2)).view())?))
    }),
    ("Trainer::new, standardisation of 2 inputs for 3", || {
        let standardizer = Some(Standardizer::fit(array![[1.0, 2.0], [3.0, 4.0]].view())?);
        let model = Model { mlp: network(&[3, 1]), standardizer };
        Trainer::new(model, SquaredError, settings()).map(|_| vec![])
    }),
    ("Standardizer, 0 columns", || {
        let x = Array2::<f32>::zeros((3, 0));
        Ok(numbers(&Standardizer::fit(x.view())?.transform(x.view())?))
    }),
    ("batched::loss_gradient, g of another network", || {
        let (mut g, x) = (theta(&[3, 1]), Array2::zeros((2, 3)));
        batched::loss_gradient(&network(&[3, 2, 1]), x.view(), array![0.0, 0.0].view(), &SquaredError, &mut g)
            .map(|loss| vec![loss])
    }),
    ("naive::output_gradient, output 1 of 1", || {
        let mlp = network(&[3, 1]);
        naive::output_gradient(&mlp, Array1::zeros(3).view(), 1, &mut mlp.zero_gradient()).map(|_| vec![])
    }),
];

fn trainer_of(training: TrainingSettings) -> Result<Vec<f64>> {
    let (x, y) = (Array2::from_shape_fn((6, 3), |(i, j)| (i * (j + 2) % 5) as f32), Array1::zeros(6));
    let mut trainer = Trainer::new(ones(&[3, 1]), SquaredError, training)?;
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ())?;
    Ok(of_trainer(&trainer))
}

fn sgd_of(batch: usize, eta: f64, epochs: usize) -> Result<Vec<f64>> {
    let (x, y) = (Array2::from_shape_fn((6, 3), |(i, j)| (i * (j + 2) % 5) as f32), Array1::zeros(6));
    let mut mlp = ones(&[3, 1]);
    let losses = Sgd::new(batch, eta, 1)?.train(&mut mlp, x.view(), y.view(), &SquaredError, epochs)?;
    Ok(numbers(mlp.parameters().iter()).into_iter().chain(losses).collect())
}

fn rate(eta: f64) -> TrainingSettings {
    TrainingSettings { learning_rate: LearningRate::constant(eta), ..settings() }
}

const SETTINGS: &[Other] = &[
    ("Sgd, batch 0", || sgd_of(0, 1e-3, 1)),
    ("Sgd, batch 100 of 6 samples", || sgd_of(100, 1e-3, 1)),
    ("Sgd, batch 2⁶⁴ − 1", || sgd_of(usize::MAX, 1e-3, 1)),
    ("Sgd, learning rate 0", || sgd_of(4, 0.0, 1)),
    ("Sgd, learning rate −1", || sgd_of(4, -1.0, 1)),
    ("Sgd, learning rate NaN", || sgd_of(4, f64::NAN, 1)),
    ("Sgd, learning rate inf", || sgd_of(4, f64::INFINITY, 1)),
    ("Sgd, learning rate 10³⁰⁰, one step", || sgd_of(6, 1e300, 1)),
    ("Sgd, learning rate 10³⁰, two steps", || sgd_of(6, 1e30, 2)),
    ("Sgd, 0 epochs", || sgd_of(4, 1e-3, 0)),
    ("Sgd::weight_decay(−1)", || Sgd::<f32>::new(4, 0.1, 1)?.weight_decay(-1.0).map(|_| vec![])),
    ("Sgd::weight_decay(NaN)", || Sgd::<f32>::new(4, 0.1, 1)?.weight_decay(f64::NAN).map(|_| vec![])),
    ("Trainer, batch 0", || trainer_of(TrainingSettings { batch: 0, ..settings() })),
    ("Trainer, batch 100 of 6 samples", || trainer_of(TrainingSettings { batch: 100, ..settings() })),
    ("Trainer, batch 2⁶⁴ − 1", || trainer_of(TrainingSettings { batch: usize::MAX, ..settings() })),
    ("Trainer, 0 epochs", || trainer_of(TrainingSettings { epochs: 0, ..settings() })),
    ("Trainer, learning rate 0", || trainer_of(rate(0.0))),
    ("Trainer, learning rate −1", || trainer_of(rate(-1.0))),
    ("Trainer, learning rate NaN", || trainer_of(rate(f64::NAN))),
    ("Trainer, learning rate inf", || trainer_of(rate(f64::INFINITY))),
    ("Trainer, learning rate 10⁻³⁰⁰", || trainer_of(rate(1e-300))),
    ("Trainer, learning rate 10³⁰⁰", || trainer_of(rate(1e300))),
    ("Trainer, cosine, 0 epochs", || {
        trainer_of(TrainingSettings { epochs: 0, learning_rate: LearningRate::cosine(0.1, 0.0), ..settings() })
    }),
    ("Trainer, weight_decay NaN", || trainer_of(TrainingSettings { weight_decay: f64::NAN, ..settings() })),
    ("Trainer, validation_fraction NaN", || {
        trainer_of(TrainingSettings { validation_fraction: Some(f64::NAN), ..settings() })
    }),
    ("Trainer, validation_fraction 10⁻³⁰⁰", || {
        trainer_of(TrainingSettings { validation_fraction: Some(1e-300), ..settings() })
    }),
    ("Trainer, validation_fraction 0.99 of 6 samples", || {
        trainer_of(TrainingSettings { validation_fraction: Some(0.99), ..settings() })
    }),
    ("Trainer, early_stopping 0", || trainer_of(TrainingSettings { early_stopping: Some(0), ..settings() })),
    ("Trainer, clip_norm 0", || trainer_of(TrainingSettings { clip_norm: Some(0.0), ..settings() })),
    ("Trainer, clip_norm NaN", || trainer_of(TrainingSettings { clip_norm: Some(f64::NAN), ..settings() })),
    ("Trainer, sam NaN", || trainer_of(TrainingSettings { sam: Some(f64::NAN), ..settings() })),
    ("Trainer, momentum 1", || {
        trainer_of(TrainingSettings { optimizer: Optimizer::Momentum { mu: 1.0 }, ..settings() })
    }),
    ("Trainer, Logistic for 2 outputs", || Trainer::new(ones(&[3, 2]), Logistic, settings()).map(|_| vec![])),
    ("Trainer, SoftmaxCrossEntropy for 1 output", || {
        Trainer::new(ones(&[3, 1]), SoftmaxCrossEntropy, settings()).map(|_| vec![])
    }),
];

const HEADER: &str = "\
# Bad and odd input

What every call of the library that takes data or settings makes of bad and odd input. The number
type is `f32`, and the networks have 3 inputs, 4 hidden neurons and 2 outputs (or 1) with all weights
1, unless the table says otherwise. A text in the tables is that of the returned `gemmprop::Error`;
when a call returns an error, nothing has been changed, except by the steps before one that diverges.

`BLESS=1 cargo test --test suite bad_input` writes this page, and every test run compares it with what
happens.

The calls on data, in groups:

";

#[test]
#[cfg_attr(not(repository), ignore = "the package is without docs/")]
fn the_page_on_bad_input_says_what_happens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bad-input.md");
    let mut page = HEADER.to_owned();
    for (group, calls) in GROUPS {
        let names: Vec<_> = calls.iter().map(|(name, _)| format!("`{name}`")).collect();
        writeln!(page, "- *{group}*: {}", names.join(", ")).unwrap();
    }
    of_x(&mut page);
    of_y(&mut page);
    of_weights(&mut page);
    of_layouts(&mut page);
    of_others(&mut page, "Networks and parameters", NETWORKS);
    of_others(&mut page, "Settings", SETTINGS);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = kept.lines().map(Some).chain(std::iter::repeat(None)).zip(page.lines());
    for (kept, found) in lines {
        assert_eq!(kept, Some(found), "to write the page anew: BLESS=1 cargo test --test suite bad_input");
    }
    assert_eq!(kept, page);
}
