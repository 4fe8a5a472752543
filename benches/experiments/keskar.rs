//! Keskar's table.
//!
//! Claimed: Adam with large batches (10 % of the data) finds sharper minima than with small ones
//! (256 of 60 000), and these generalise worse (Keskar et al. 2017, tables 2 and 3, network F1).
//! Varied: the batch, and the seed of initialisation and order.
//! Held fixed: data, network (F1's five hidden layers, but without batch normalisation),
//! cross-entropy, Adam with its usual settings, and the training loss at which to stop, which the
//! paper does not fix.
//! Data: MNIST, f32, hidden layers of 512 as in F1, where a folder is given: its own test set, or
//! else the last fifth. And always the digits, f64, scaled down to hidden layers of 64. The small
//! batch is 1/225 of the training set, as 256 is of 60 000. Seeds 0 … 4 on the digits, 0, 1, 2 on
//! MNIST.

use std::time::Instant;

use gemmprop::curvature::sharpness::Landscape;
use gemmprop::data::idx_folder;
use gemmprop::{Bias, Dataset, Mlp, Optimizer, Scalar, SoftmaxCrossEntropy};
use serde::{Deserialize, Serialize};

use crate::run::{End, ITERATIONS, Recipe, Run, Set, Stop, digits, error_rate, in_parallel, mean, mean_loss};
use crate::{Context, Outcome};
use report::page::{Entry, Table};
use report::plot::{Axis, Figure, Marker, Panel, Scale, Series, colour};
use report::results::Results;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    data: String,
    /// "small" or "large".
    kind: String,
    batch: usize,
    seed: u64,
    steps: u64,
    reached: bool,
    train_loss: f64,
    train_accuracy: f64,
    test_loss: f64,
    test_accuracy: f64,
    /// Keskar's φ in percent, at ε = 10⁻³ and at ε = 5·10⁻⁴.
    phi_1e3: f64,
    phi_5e4: f64,
    seconds: f64,
}

const ETA: f64 = 1e-3;

pub(crate) fn experiment(context: &mut Context) -> Outcome {
    let quick = context.quick;
    let stop = if quick { Stop { loss: 0.1, steps: 500 } } else { Stop { loss: 1e-3, steps: 30_000 } };
    let seeds = if quick { [1, 1] } else { [5, 3] };
    let (mut train, test) = digits();
    if quick {
        train = train.first(300);
    }
    let mut about = vec![format!("digits: {} and {}, f64, 64-64-64-64-64-64-10", train.len(), test.len())];
    let mut rows = table_of("digits", 64, (&train, &test), &stop, seeds[0]);
    if let Some(folder) = &context.mnist {
        let found = idx_folder::<f32>(folder)?;
        let set = |images: gemmprop::data::Images<f32>| Set { x: images.x, labels: images.labels };
        let (mut train, test) = match (set(found.train), found.test) {
            (train, Some(test)) => (train, set(test)),
            (all, None) => (all.first(all.len() * 4 / 5), all.rest(all.len() * 4 / 5)),
        };
        if quick {
            train = train.first(1000);
        }
        about.push(format!("MNIST: {} and {}, f32, 784-512-512-512-512-512-10", train.len(), test.len()));
        rows.extend(table_of("MNIST", 512, (&train, &test), &stop, seeds[1]));
    }
    let about = format!(
        "Samples to train and to test on, and networks: {}; a constant on every layer, He initialisation, softmax cross-entropy. Adam with η = {ETA}, stopped \
         at training loss {}; small batch: 1/225 of the training set, large: 1/10. Seeds: {} (digits), {} (MNIST), a mark for each.",
        about.join("; "),
        stop.loss,
        seeds[0],
        seeds[1]
    );
    context.keep("keskar", &rows, &about)
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let rows = results.read(name)?;
    Ok(Entry { figure: figure(&rows, results.facts(name)), tables: vec![table(&rows)] })
}

fn table_of<F: Scalar>(
    data: &'static str,
    width: usize,
    (train, test): (&Set<F>, &Set<F>),
    stop: &Stop,
    seeds: u64,
) -> Vec<Row> {
    let n = train.len();
    let kinds = [("large", n / 10), ("small", (n as f64 / 225.0).round() as usize)];
    let jobs: Vec<_> =
        kinds.iter().flat_map(|&(kind, batch)| (0..seeds).map(move |seed| (kind, batch, seed))).collect();
    in_parallel(
        data,
        &jobs,
        |(kind, batch, seed)| format!("{kind} batch, {batch}, seed {seed}"),
        |&(kind, batch, seed)| {
            let (start, loss) = (Instant::now(), SoftmaxCrossEntropy);
            let widths = [train.x.ncols(), width, width, width, width, width, 10];
            let mlp = Mlp::he(&widths, Bias::EveryLayer, seed).expect("valid widths");
            let recipe = Recipe { optimizer: Optimizer::adam(), ..Recipe::sgd(ETA, batch, seed) };
            let mut run = Run::new(mlp, loss, &recipe, n);
            let end = run.until(train.x.view(), train.rows(), stop);
            let mlp = run.mlp();
            let mut landscape =
                Landscape::new(mlp, Dataset::new(train.x.view(), train.rows()), &loss).expect("valid data");
            let mut phi = |epsilon| landscape.box_sharpness(epsilon, ITERATIONS).expect("a valid ε");
            Row {
                data: data.to_owned(),
                kind: kind.to_owned(),
                batch,
                seed,
                steps: run.steps(),
                reached: end == End::Reached,
                train_loss: mean_loss(mlp, train.x.view(), train.rows(), &loss),
                train_accuracy: 1.0 - error_rate(mlp, train),
                test_loss: mean_loss(mlp, test.x.view(), test.rows(), &loss),
                test_accuracy: 1.0 - error_rate(mlp, test),
                phi_1e3: phi(1e-3),
                phi_5e4: phi(5e-4),
                seconds: start.elapsed().as_secs_f64(),
            }
        },
    )
}

fn figure(rows: &[Row], facts: &str) -> Figure {
    let looks = [
        ("digits", "small", colour::SKY, Marker::Circle),
        ("digits", "large", colour::ORANGE, Marker::Square),
        ("MNIST", "small", colour::BLUE, Marker::Diamond),
        ("MNIST", "large", colour::VERMILION, Marker::Cross),
    ];
    let series = looks.iter().filter_map(|&(data, kind, colour, marker)| {
        let of: Vec<&Row> = rows.iter().filter(|row| (row.data.as_str(), row.kind.as_str()) == (data, kind)).collect();
        let label = format!("{data}, B = {}", of.first()?.batch);
        let marks = of.iter().map(|row| (row.phi_1e3, row.test_accuracy)).collect();
        Some(Series { label, colour, marker, marks, ..Series::default() })
    });
    Figure {
        name: "keskar",
        title: "Keskar's comparison: Adam with small and with large batches".to_owned(),
        panels: vec![Panel {
            title: "Keskar's sharpness and the accuracy on the test set".to_owned(),
            x: Axis { label: "φ, percent", scale: Scale::Log },
            y: Axis { label: "test accuracy, share of samples", scale: Scale::Linear },
            series: series.collect(),
        }],
        caption: format!(
            "φ: Keskar's, full space, ε = 0.001, a lower bound by {ITERATIONS} steps of projected ascent. {facts}"
        ),
    }
}

fn table(rows: &[Row]) -> Table {
    let header = [
        "data",
        "batch",
        "seeds",
        "reached",
        "steps",
        "φ(1e-3) mean",
        "least … most",
        "φ(5e-4) mean",
        "least … most",
        "train accuracy",
        "test accuracy",
        "least … most",
        "test loss",
    ];
    let line = |same: &[Row]| {
        let average = |value: fn(&Row) -> f64| mean(same.iter().map(value));
        let range = |value: fn(&Row) -> f64, digits: usize| {
            let values = same.iter().map(value);
            let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
            format!("{least:.digits$} … {most:.digits$}")
        };
        vec![
            same[0].data.clone(),
            format!("{} ({})", same[0].kind, same[0].batch),
            same.len().to_string(),
            same.iter().filter(|row| row.reached).count().to_string(),
            format!("{:.0}", average(|row| row.steps as f64)),
            format!("{:.3}", average(|row| row.phi_1e3)),
            range(|row| row.phi_1e3, 3),
            format!("{:.3}", average(|row| row.phi_5e4)),
            range(|row| row.phi_5e4, 3),
            format!("{:.4}", average(|row| row.train_accuracy)),
            format!("{:.4}", average(|row| row.test_accuracy)),
            range(|row| row.test_accuracy, 4),
            format!("{:.4}", average(|row| row.test_loss)),
        ]
    };
    let rows = rows.chunk_by(|a, b| (&a.data, &a.kind) == (&b.data, &b.kind)).map(line).collect();
    Table { header: header.map(str::to_owned).to_vec(), rows }
}
