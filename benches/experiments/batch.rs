//! Batch size, and its controls.
//!
//! Claimed: small batches find flatter minima (Keskar et al. 2017). And why: where SGD stays, (1 − ηa)² + η² (n − B)/(B (n − 1)) s² ≤ 1 with the
//! sharpness a = λmax(H) and the non-uniformity s = √λmax((1/n) Σ H_i² − H²) (Wu, Ma and E 2018, for minima of all ℓ_i at once).
//! Varied: the batch B from 4 to n, and the seed of initialisation and order. As controls: η ∝ B, with runs to the same training loss; B at
//! equal numbers of updates; B at equal numbers of epochs (there the training losses differ).
//! Held fixed: data, network, cross-entropy, plain SGD, η unless named, and the training loss at which to stop.
//! Data: 1437 digits to train on, 360 to test on; f64; 64-32-32-10. Seeds 0 … 4. s with all 1437 H_i, in the first series.

use plotters::style::RGBColor;

use crate::page::{Entry, Table};
use crate::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};
use crate::run::{Job, Recipe, Row, Stop, digits, in_parallel, mean, measured};
use crate::{Context, Outcome};

const ETA: f64 = 0.1;

pub(crate) const FIXED: &str = "fixed η, equal loss";
const SCALED: &str = "η ∝ B, equal loss";
const UPDATES: &str = "equal updates";
const EPOCHS: &str = "equal epochs";

pub(crate) fn experiment(context: &Context) -> Outcome {
    let (mut train, test) = digits();
    let quick = context.quick;
    if quick {
        train = train.first(300);
    }
    let n = train.len();
    let (target, cap) = if quick { (0.1, 3000) } else { (0.01, 60_000) };
    let (seeds, batches): (u64, Vec<usize>) =
        if quick { (1, vec![8, 64, n]) } else { (5, vec![4, 8, 16, 32, 64, 128, 256, 512, n]) };
    let reach = Stop { loss: target, steps: cap };
    let job = |control, eta, batch, seed, stop| Job {
        control,
        recipe: Recipe::sgd(eta, batch, seed),
        stop,
        non_uniformity: control == FIXED,
    };
    // The slowest first: full batches.
    let mut jobs = Vec::new();
    for &batch in batches.iter().rev() {
        for seed in 0..seeds {
            jobs.push(job(FIXED, ETA, batch, seed, reach));
            let per_epoch = n.div_ceil(batch) as u64;
            let (updates, epochs) = if quick { (300, 10) } else { (4000, 60) };
            jobs.push(job(SCALED, ETA * batch as f64 / 32.0, batch, seed, reach));
            jobs.push(job(UPDATES, ETA, batch, seed, Stop { loss: 0.0, steps: updates }));
            jobs.push(job(EPOCHS, ETA, batch, seed, Stop { loss: 0.0, steps: epochs * per_epoch }));
        }
    }
    let text = |job: &Job| format!("{}: B {}, seed {}", job.control, job.recipe.batch, job.recipe.seed);
    let mut rows: Vec<Row> = in_parallel("batch size", &jobs, text, |job| measured(&train, &test, job).0);
    rows.sort_by_key(|row| (row.batch, row.seed));
    let (fixed, controls): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.control == FIXED);
    context.csv("batch_size", &fixed)?;
    context.csv("controls", &controls)?;
    let about = format!(
        "{n} of smartcore's digits, 360 others as the test set (the last in the file: other writers); network 64-32-32-10 with a constant on every \
         layer, He initialisation, softmax cross-entropy, plain SGD, f64. Seeds: {seeds}, a mark for each, the line through their means."
    );
    let all: Vec<Row> = fixed.iter().chain(&controls).cloned().collect();
    Ok(vec![
        Entry { figure: figure(&fixed, n, target, [&about, &context.facts()]), tables: vec![table(&fixed)] },
        Entry { figure: controls_figure(&all, target, [&about, &context.facts()]), tables: vec![table(&controls)] },
    ])
}

/// A mark for each run, and a line through the means over the seeds.
pub(crate) fn marks_and_means(
    label: &str,
    (colour, marker): (RGBColor, Marker),
    points: impl Iterator<Item = (f64, f64)>,
) -> Series {
    let mut marks: Vec<(f64, f64)> = points.collect();
    marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line = marks.chunk_by(|a, b| a.0 == b.0).map(|same| (same[0].0, mean(same.iter().map(|p| p.1)))).collect();
    Series { label: label.to_owned(), colour, marker, marks, line, ..Series::default() }
}

fn of<'a>(rows: &'a [Row], control: &'a str, value: fn(&Row) -> Option<f64>) -> impl Iterator<Item = (f64, f64)> + 'a {
    let those = rows.iter().filter(move |row| row.control == control);
    those.filter_map(move |row| Some((row.batch as f64, value(row)?)))
}

const B: Axis = Axis { label: "batch size B", scale: Scale::Log };

fn figure(rows: &[Row], n: usize, target: f64, [about, facts]: [&str; 2]) -> Figure {
    let reached: Vec<Row> = rows.iter().filter(|row| row.reached).cloned().collect();
    let series = |label: &str, look, value| marks_and_means(label, look, of(&reached, FIXED, value));
    let bound: Vec<(f64, f64)> = (0..=60)
        .map(|i| 4.0 * (n as f64 / 4.0 * 0.97).powf(f64::from(i) / 60.0))
        .map(|b| (b, (b * (n - 1) as f64 / (n as f64 - b)).sqrt() / ETA))
        .collect();
    let unreached = rows.len() - reached.len();
    Figure {
        name: "batch_size",
        title: format!("Batch size at equal training loss ({target}) and fixed η = {ETA}"),
        panels: vec![
            Panel {
                title: "Sharpness".to_owned(),
                x: B,
                y: Axis { label: "measure of the training loss's curvature", scale: Scale::Log },
                series: vec![
                    series("trace H", (colour::GREEN, Marker::Square), |row| row.trace),
                    series("s", (colour::PURPLE, Marker::Cross), |row| row.non_uniformity),
                    series("λmax(H)", (colour::BLUE, Marker::Circle), |row| row.lambda_max),
                    series("λmax(|D|H|D|)", (colour::VERMILION, Marker::Diamond), |row| row.adaptive_lambda_max),
                    Series {
                        label: "largest stable s".to_owned(),
                        colour: colour::PURPLE,
                        stroke: Stroke::Dashed,
                        line: bound,
                        ..Series::default()
                    },
                    Series {
                        label: "2/η".to_owned(),
                        colour: colour::GREY,
                        stroke: Stroke::Dashed,
                        line: vec![(4.0, 2.0 / ETA), (n as f64, 2.0 / ETA)],
                        ..Series::default()
                    },
                ],
            },
            Panel {
                title: "Stability".to_owned(),
                x: B,
                y: Axis { label: "factor of a step on a squared deviation", scale: Scale::Log },
                series: vec![
                    series("at the end", (colour::PURPLE, Marker::Cross), |row| row.stability),
                    Series {
                        label: "stable below 1".to_owned(),
                        colour: colour::GREY,
                        stroke: Stroke::Dashed,
                        line: vec![(4.0, 1.0), (n as f64, 1.0)],
                        ..Series::default()
                    },
                ],
            },
            Panel {
                title: "On the test set".to_owned(),
                x: B,
                y: Axis { label: "share of samples, or nats", scale: Scale::Log },
                series: vec![
                    series("test loss (nats)", (colour::ORANGE, Marker::Square), |row| row.test_loss),
                    series("test error (share)", (colour::SKY, Marker::Circle), |row| row.test_error),
                ],
            },
        ],
        caption: format!(
            "{about} {unreached} of {} runs did not reach the loss and are left out. Largest stable s: √(B (n − 1)/(n − B))/η, beyond which in one dimension no \
             a is stable (Wu, Ma & E 2018); s is of all {n} Hessians of single samples. Stability: (1 − ηa)² + η² (n − B)/(B (n − 1)) s², as if a = λmax(H) and s \
             were along one direction; there no minimum of all ℓ_i holds above 1. Trace: 50 probes. {facts}",
            rows.len()
        ),
    }
}

fn controls_figure(rows: &[Row], target: f64, [about, facts]: [&str; 2]) -> Figure {
    let looks = [
        (FIXED, colour::BLUE, Marker::Circle),
        (SCALED, colour::VERMILION, Marker::Diamond),
        (UPDATES, colour::GREEN, Marker::Square),
        (EPOCHS, colour::PURPLE, Marker::Cross),
    ];
    let panel = |title: &str, label, value: fn(&Row) -> Option<f64>| {
        let series = looks.map(|(control, colour, marker)| {
            let fair: Vec<Row> = rows
                .iter()
                .filter(|row| row.reached || row.control == UPDATES || row.control == EPOCHS)
                .cloned()
                .collect();
            marks_and_means(control, (colour, marker), of(&fair, control, value))
        });
        Panel { title: title.to_owned(), x: B, y: Axis { label, scale: Scale::Log }, series: series.to_vec() }
    };
    Figure {
        name: "controls",
        title: "What is left of the effect of the batch size under other controls".to_owned(),
        panels: vec![
            panel("Sharpness", "λmax(H)", |row| row.lambda_max),
            panel("Training loss", "mean cross-entropy (nats)", |row| row.train_loss),
            panel("Test error", "share of samples", |row| row.test_error),
        ],
        caption: format!(
            "{about} Equal loss: {target}. η = {ETA}, but η = {ETA} B/32 where it grows with B; equal updates: {} steps; equal epochs: {:.0}. Runs that \
             diverged or did not reach the loss are left out: see the table. {facts}",
            rows.iter().find(|row| row.control == UPDATES).map_or(0, |row| row.steps),
            rows.iter().find(|row| row.control == EPOCHS).map_or(0.0, |row| row.epochs),
        ),
    }
}

/// Means over the seeds of each kind of run.
pub(crate) fn table(rows: &[Row]) -> Table {
    let header = [
        "runs",
        "η",
        "B",
        "ρ",
        "reached",
        "steps",
        "train loss",
        "λmax",
        "trace",
        "adaptive λmax",
        "φ",
        "s",
        "stability",
        "test loss",
        "test error",
    ];
    let key = |row: &Row| (row.control, row.eta.to_bits(), row.batch, row.rho.to_bits());
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| key(row));
    let line = |same: &[&Row]| {
        // Runs to a loss count if they came there.
        let any = same.iter().any(|row| row.reached);
        let there: Vec<&&Row> = same.iter().filter(|row| row.reached || !any).collect();
        let average = |value: fn(&Row) -> Option<f64>, digits: usize| {
            let values: Vec<f64> = there.iter().filter_map(|row| value(row)).collect();
            if values.is_empty() { "–".to_owned() } else { format!("{:.digits$}", mean(values)) }
        };
        vec![
            same[0].control.to_owned(),
            same[0].eta.to_string(),
            same[0].batch.to_string(),
            same[0].rho.to_string(),
            format!("{}/{}", same.iter().filter(|row| row.reached).count(), same.len()),
            average(|row| Some(row.steps as f64), 0),
            average(|row| row.train_loss, 5),
            average(|row| row.lambda_max, 2),
            average(|row| row.trace, 1),
            average(|row| row.adaptive_lambda_max, 2),
            average(|row| row.phi, 3),
            average(|row| row.non_uniformity, 1),
            average(|row| row.stability, 2),
            average(|row| row.test_loss, 4),
            average(|row| row.test_error, 4),
        ]
    };
    let rows = rows.chunk_by(|a, b| key(a) == key(b)).map(line).collect();
    Table { header: header.map(str::to_owned).to_vec(), rows }
}
