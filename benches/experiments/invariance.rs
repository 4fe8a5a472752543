//! Invariance.
//!
//! Claimed: raw sharpness says nothing by itself, since a rescaled ReLU network is the same
//! function with another Hessian (Dinh et al. 2017).
//! Varied: k in (w[0], c[0], w[1]) → (2ᵏ w[0], 2ᵏ c[0], 2⁻ᵏ w[1]), from −6 to 6.
//! Held fixed: the function. Its outputs must be the same to the last bit, which is checked.
//! Data: 1437 digits; f64; 64-32-32-10, trained by SGD with η = 0.1, B = 32 to a training loss of
//! 0.01. Seed 0.

use gemmprop::{Mlp, SoftmaxCrossEntropy};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::run::{Recipe, Run, Stop, digits, in_parallel, network, sharpness};
use crate::{Context, Outcome};
use report::page::{Entry, Table};
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, colour};
use report::results::Results;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    k: i32,
    outputs_bitwise_equal: bool,
    lambda_max: f64,
    trace: f64,
    trace_error: f64,
    phi: f64,
    adaptive_lambda_max: f64,
    asam: f64,
}

pub(crate) fn experiment(context: &mut Context) -> Outcome {
    let (mut train, test) = digits();
    if context.quick {
        train = train.first(300);
    }
    let target = if context.quick { 0.1 } else { 0.01 };
    let mut run = Run::new(network(0), SoftmaxCrossEntropy, &Recipe::sgd(0.1, 32, 0), train.len());
    run.until(train.x.view(), train.rows(), &Stop { loss: target, steps: 60_000 });
    let mlp = run.mlp();
    let outputs = |mlp: &Mlp<f64>| {
        let bits = |y: Array2<f64>| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
        [&train, &test].map(|set| bits(mlp.predict(set.x.view()).expect("finite data")))
    };
    let before = outputs(mlp);
    let ks: Vec<i32> = (-6..=6).collect();
    let rows: Vec<Row> = in_parallel(
        "invariance",
        &ks,
        |k| format!("k = {k}"),
        |&k| {
            let scaled = rescaled(mlp, k);
            let outputs_bitwise_equal = outputs(&scaled) == before;
            assert!(outputs_bitwise_equal, "k = {k}: a rescaled network computes something else");
            let sharp = sharpness(&scaled, train.x.view(), train.rows(), &SoftmaxCrossEntropy);
            Row {
                k,
                outputs_bitwise_equal,
                lambda_max: sharp.lambda_max,
                trace: sharp.trace.value,
                trace_error: sharp.trace.standard_error,
                phi: sharp.phi,
                adaptive_lambda_max: sharp.adaptive,
                asam: sharp.asam,
            }
        },
    );
    let about = format!(
        "{} of smartcore's digits; network 64-32-32-10 with a constant on every layer, softmax cross-entropy, f64, trained by SGD with η = 0.1, B = 32, \
         seed 0, to training loss {target}.",
        train.len()
    );
    context.keep("invariance", &rows, &about)
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let rows = results.read(name)?;
    Ok(Entry { figure: figure(&rows, results.facts(name)), tables: vec![table(&rows)] })
}

fn rescaled(mlp: &Mlp<f64>, k: i32) -> Mlp<f64> {
    let mut scaled = mlp.clone();
    let mut theta = scaled.parameters_mut();
    let c = 2f64.powi(k);
    for ((w, _), factor) in theta.layers_mut().zip([c, 1.0 / c]) {
        w.mapv_into(|w| w * factor);
    }
    for c_0 in theta.c_mut().take(1) {
        c_0.mapv_into(|c_0| c_0 * c);
    }
    scaled
}

type Look = (&'static str, RGBColor, Marker, fn(&Row) -> f64);

fn figure(rows: &[Row], facts: &str) -> Figure {
    let measures: [Look; 5] = [
        ("λmax(H)", colour::BLUE, Marker::Circle, |row| row.lambda_max),
        ("trace H", colour::GREEN, Marker::Square, |row| row.trace),
        ("Keskar's φ", colour::ORANGE, Marker::Triangle, |row| row.phi),
        ("λmax(|D|H|D|)", colour::VERMILION, Marker::Diamond, |row| row.adaptive_lambda_max),
        ("ASAM-type", colour::PURPLE, Marker::Plus, |row| row.asam),
    ];
    let series = measures.map(|(label, colour, marker, value)| {
        let own = rows.iter().find(|row| row.k == 0).map_or(1.0, value);
        let points: Vec<(f64, f64)> = rows.iter().map(|row| (f64::from(row.k), value(row) / own)).collect();
        Series { label: label.to_owned(), colour, marker, marks: points.clone(), line: points, ..Series::default() }
    });
    Figure {
        name: "invariance",
        title: "One function, many sharpnesses".to_owned(),
        panels: vec![Panel {
            title: "First layer times 2ᵏ, second layer times 2⁻ᵏ".to_owned(),
            x: Axis { label: "k", scale: Scale::Whole },
            y: Axis { label: "measure, relative to the network as trained", scale: Scale::Log },
            series: series.to_vec(),
        }],
        caption: format!(
            "The outputs of all {} networks on the training and the test set are the same to the last bit. φ at ε = 0.001; ASAM-type: the largest loss \
             within ‖δ ⊘ |θ|‖ ≤ 0.5, 10 steps; trace: 50 probes. {facts}",
            rows.len()
        ),
    }
}

fn table(rows: &[Row]) -> Table {
    let header = ["k", "outputs equal", "λmax", "trace", "φ", "adaptive λmax", "ASAM-type"];
    let row = |row: &Row| {
        vec![
            row.k.to_string(),
            if row.outputs_bitwise_equal { "to the bit" } else { "no" }.to_owned(),
            format!("{:.4}", row.lambda_max),
            format!("{:.2} ± {:.2}", row.trace, row.trace_error),
            format!("{:.4}", row.phi),
            format!("{:.6}", row.adaptive_lambda_max),
            format!("{:.6}", row.asam),
        ]
    };
    Table { header: header.map(str::to_owned).to_vec(), rows: rows.iter().map(row).collect() }
}
