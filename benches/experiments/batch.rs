//! Batch size, and its controls.
//!
//! Claimed: small batches find flatter minima (Keskar et al. 2017). And why: where SGD stays, (1 −
//! ηa)² + η² (n − B)/(B (n − 1)) s² ≤ 1 with the sharpness a = λmax(H) and the non-uniformity s =
//! √λmax((1/n) Σ H_i² − H²) (Wu, Ma and E 2018, for minima of all ℓ_i at once).
//! Varied: the batch B from 4 to n, and the seed of initialisation and order. As controls: η ∝ B,
//! with runs to the same training loss; B at equal numbers of updates; B at equal numbers of epochs
//! (there the training losses differ).
//! Held fixed: data, network, cross-entropy, plain SGD, η unless named, and the training loss at
//! which to stop.
//! Data: 1437 digits to train on, 360 to test on; f64; 64-32-32-10. Seeds 0 … 4. s with all 1437
//! H_i, in the first series.

use crate::run::{Job, Recipe, Row, Stop, digits, in_parallel, mean, measured};
use crate::{Context, Outcome};
use report::page::{Entry, Table};
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::results::Results;

const ETA: f64 = 0.1;

pub(crate) const FIXED: &str = "fixed η, equal loss";
const SCALED: &str = "η ∝ B, equal loss";
const UPDATES: &str = "equal updates";
const EPOCHS: &str = "equal epochs";

pub(crate) fn experiment(context: &mut Context) -> Outcome {
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
        data: "digits",
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
    let mut rows: Vec<Row> = in_parallel("batch size", &jobs, text, |job| measured(&train, &test, job));
    rows.sort_by_key(|row| (row.batch, row.seed));
    let (fixed, controls): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.control == FIXED);
    let about = format!(
        "{n} of smartcore's digits, 360 others as the test set (the last in the file: other writers); network 64-32-32-10 with a constant on every \
         layer, He initialisation, softmax cross-entropy, plain SGD, f64. Equal loss: the training loss asked for is {target}."
    );
    context.keep("batch_size", &fixed, &about)?;
    context.keep("controls", &controls, &about)
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let (facts, rows) = (results.facts(name), results.read::<Row>(name)?);
    let tables = vec![table(&rows)];
    if name == "batch_size" {
        return Ok(Entry { figure: figure(&rows, facts), tables });
    }
    let all = [results.read("batch_size")?, rows].concat();
    Ok(Entry { figure: controls_figure(&all, facts), tables })
}

/// The means over the seeds, joined by a line, and bars from the smallest to the largest, all moved
/// to the right by a factor.
pub(crate) fn means_and_ranges(
    label: &str,
    (colour, marker): (RGBColor, Marker),
    shift: f64,
    points: impl Iterator<Item = (f64, f64)>,
) -> Series {
    let mut points: Vec<(f64, f64)> = points.map(|(x, y)| (x * shift, y)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut series = Series { label: label.to_owned(), colour, marker, ..Series::default() };
    for same in points.chunk_by(|a, b| a.0 == b.0) {
        let (x, values) = (same[0].0, same.iter().map(|p| p.1));
        let (least, most) = values.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), y| (a.min(y), b.max(y)));
        series.marks.push((x, mean(values)));
        series.bars.push([(x, least), (x, most)]);
    }
    series.line = series.marks.clone();
    series
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

pub(crate) const B: Axis = Axis { label: "batch size B", scale: Scale::Log };

fn figure(rows: &[Row], facts: &str) -> Figure {
    let n = rows.iter().map(|row| row.batch).max().unwrap_or(0) as f64;
    let least = rows.iter().map(|row| row.batch).min().unwrap_or(0) as f64;
    let reached: Vec<Row> = rows.iter().filter(|row| row.reached).cloned().collect();
    let series = |label: &str, look, value| means_and_ranges(label, look, 1.0, of(&reached, FIXED, value));
    let level = |label: &str, y: f64| Series {
        label: label.to_owned(),
        colour: colour::GREY,
        stroke: Stroke::Dashed,
        line: vec![(least, y), (n, y)],
        ..Series::default()
    };
    // The largest stable s: √(B (n − 1)/(n − B))/η, which has no end at B = n.
    let bound = (0..=60).map(|i| least * (0.9 * n / least).powf(f64::from(i) / 60.0));
    let bound = Series {
        label: "largest stable s".to_owned(),
        line: bound.map(|b| (b, (b * (n - 1.0) / (n - b)).sqrt() / ETA)).collect(),
        ..level("", 0.0)
    };
    let panel =
        |title: &str, label, scale, series| Panel { title: title.to_owned(), x: B, y: Axis { label, scale }, series };
    let (blue, green) = ((colour::BLUE, Marker::Circle), (colour::GREEN, Marker::Square));
    let (vermilion, purple) = ((colour::VERMILION, Marker::Diamond), (colour::PURPLE, Marker::Cross));
    let (orange, sky) = ((colour::ORANGE, Marker::Triangle), (colour::SKY, Marker::Plus));
    Figure {
        name: "batch_size",
        title: format!("Batch size at fixed η = {ETA}, stopped at one training loss"),
        panels: vec![
            panel(
                "Curvature",
                "eigenvalue or trace",
                Scale::Log,
                vec![
                    level("2/η", 2.0 / ETA),
                    series("trace H", green, |row| row.trace),
                    series("λmax(H)", blue, |row| row.lambda_max),
                    series("λmax(|D|H|D|)", vermilion, |row| row.adaptive_lambda_max),
                ],
            ),
            panel("Non-uniformity", "s", Scale::Log, vec![bound, series("s", purple, |row| row.non_uniformity)]),
            panel(
                "Stability",
                "factor of a squared deviation",
                Scale::Linear,
                vec![level("stable below 1", 1.0), series("at the end", purple, |row| row.stability)],
            ),
            panel(
                "Training loss at the stop",
                "mean cross-entropy, training",
                Scale::Linear,
                vec![series("", blue, |row| row.train_loss)],
            ),
            panel(
                "Test loss",
                "mean cross-entropy, test",
                Scale::Linear,
                vec![series("", orange, |row| row.test_loss)],
            ),
            panel("Test error", "share of samples", Scale::Linear, vec![series("", sky, |row| row.test_error)]),
        ],
        caption: format!(
            "Marks: means over {} seeds; bars: from the least to the greatest. {} of {} runs did not reach the loss and are left out. Losses in nats. \
             Largest stable s: √(B (n − 1)/(n − B))/η, beyond which in one dimension no a is stable (Wu, Ma & E 2018); s is of all {n} Hessians of \
             single samples. Stability: (1 − ηa)² + η² (n − B)/(B (n − 1)) s², as if a = λmax(H) and s were along one direction; there no minimum of \
             all ℓ_i holds above 1. Trace: 50 probes. {facts}",
            seeds(rows),
            rows.len() - reached.len(),
            rows.len(),
        ),
    }
}

fn seeds(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.seed + 1).max().unwrap_or(0)
}

fn controls_figure(rows: &[Row], facts: &str) -> Figure {
    let looks = [
        (FIXED, colour::BLUE, Marker::Circle),
        (SCALED, colour::VERMILION, Marker::Diamond),
        (UPDATES, colour::GREEN, Marker::Square),
        (EPOCHS, colour::PURPLE, Marker::Cross),
    ];
    let fair: Vec<Row> =
        rows.iter().filter(|row| row.reached || row.control == UPDATES || row.control == EPOCHS).cloned().collect();
    let panel = |title: &str, label, scale, value: fn(&Row) -> Option<f64>| {
        // Beside each other, so that no bar hides another.
        let series = looks.iter().zip(-2..).map(|(&(control, colour, marker), i)| {
            means_and_ranges(control, (colour, marker), 1.07_f64.powi(i), of(&fair, control, value))
        });
        Panel { title: title.to_owned(), x: B, y: Axis { label, scale }, series: series.collect() }
    };
    Figure {
        name: "controls",
        title: "What is left of the effect of the batch size under other controls".to_owned(),
        panels: vec![
            panel("Sharpness", "λmax(H)", Scale::Log, |row| row.lambda_max),
            panel("Training loss", "mean cross-entropy, training (nats)", Scale::Log, |row| row.train_loss),
            panel("Test error", "share of samples", Scale::Log, |row| row.test_error),
            panel("Test loss", "mean cross-entropy, test (nats)", Scale::Log, |row| row.test_loss),
        ],
        caption: format!(
            "Marks: means over {} seeds; bars: from the least to the greatest. η = {ETA}, but η = {ETA} B/32 where it grows with B; equal updates: {} steps; \
             equal epochs: {:.0}. Runs that diverged or did not reach the loss are left out: see the table. {facts}",
            seeds(rows),
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
    let key = |row: &Row| (row.control.clone(), row.eta.to_bits(), row.batch, row.rho.to_bits());
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| key(row));
    let line = |same: &[&Row]| {
        // Runs to a given loss count only if they reached it.
        let any = same.iter().any(|row| row.reached);
        let there: Vec<&&Row> = same.iter().filter(|row| row.reached || !any).collect();
        let average = |value: fn(&Row) -> Option<f64>, digits: usize| {
            let values: Vec<f64> = there.iter().filter_map(|row| value(row)).collect();
            if values.is_empty() { "–".to_owned() } else { format!("{:.digits$}", mean(values)) }
        };
        vec![
            same[0].control.clone(),
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
