//! Generalisation, and SAM.
//!
//! Claimed: flat minima generalise better (Hochreiter and Schmidhuber 1997; the lecture).
//! Varied: η, B, and the seed of initialisation and order; in a second series SAM's ρ (Foret et al.
//! 2021), beside the same run without it.
//! Held fixed: data, network, cross-entropy, plain SGD, and the training loss at which to stop.
//! Data: 1437 digits to train on, 360 to test on; f64; 64-32-32-10. Seeds 0 … 9, with SAM too.
//!
//! Asked: Kendall's τ of each measure of sharpness with the test error (and, beside it, with the
//! test loss), over all runs that reached the loss, and within one η: the mean over the η of the τ
//! among the runs of that η. Intervals by resampling seeds. The verdict is that of
//! `statistics::verdict`, on the test error.

use serde::{Deserialize, Serialize};

use crate::batch::{self, marks_and_means};
use crate::run::{Job, Recipe, Row, Stop, digits, in_parallel, mean, measured};
use crate::{Context, Outcome};
use report::page::{Entry, Table};
use report::plot::{Axis, Figure, Marker, Panel, Scale, Series, colour};
use report::results::Results;
use report::statistics::{Drawn, Interval, bootstrap, kendall, verdict};

/// The name of a measure and its value.
type Measure = (&'static str, fn(&Row) -> Option<f64>);

const NAMES: &[&str] = &["λmax(H)", "trace H", "λmax(|D|H|D|)", "φ", "ASAM-type"];

fn measures() -> [Measure; 5] {
    [
        (NAMES[0], |row| row.lambda_max),
        (NAMES[1], |row| row.trace),
        (NAMES[2], |row| row.adaptive_lambda_max),
        (NAMES[3], |row| row.phi),
        (NAMES[4], |row| row.asam),
    ]
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Judged {
    measure: String,
    target: String,
    runs: usize,
    seeds: usize,
    tau: Option<f64>,
    tau_low: Option<f64>,
    tau_high: Option<f64>,
    within_eta: Option<f64>,
    within_eta_low: Option<f64>,
    within_eta_high: Option<f64>,
    verdict: String,
}

pub(crate) fn experiment(context: &mut Context) -> Outcome {
    let (mut train, test) = digits();
    let quick = context.quick;
    if quick {
        train = train.first(300);
    }
    let stop = if quick { Stop { loss: 0.1, steps: 4000 } } else { Stop { loss: 0.01, steps: 60_000 } };
    let seeds = if quick { 3 } else { 10 };
    let (etas, batches): (&[f64], &[usize]) =
        if quick { (&[0.1, 0.4], &[8, 64]) } else { (&[0.05, 0.1, 0.2, 0.4], &[8, 32, 128, 512]) };
    let rhos: &[f64] = if quick { &[0.05] } else { &[0.02, 0.05, 0.1] };
    let sam_batches: &[usize] = if quick { &[8] } else { &[32] };
    let mut jobs = Vec::new();
    for &batch in batches.iter().rev() {
        for &eta in etas {
            jobs.extend((0..seeds).map(|seed| Job {
                control: "SGD",
                recipe: Recipe::sgd(eta, batch, seed),
                stop,
                non_uniformity: false,
            }));
        }
    }
    for &rho in rhos {
        for &batch in sam_batches {
            jobs.extend((0..seeds).map(|seed| Job {
                control: "SAM",
                recipe: Recipe { rho: Some(rho), ..Recipe::sgd(0.1, batch, seed) },
                stop,
                non_uniformity: false,
            }));
        }
    }
    let text = |job: &Job| {
        let Recipe { eta, batch, seed, .. } = job.recipe;
        format!("{}: η {eta}, B {batch}, seed {seed}", job.control)
    };
    let rows: Vec<Row> = in_parallel("generalise", &jobs, text, |job| measured(&train, &test, job).0);
    let (sgd, mut sam): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.control == "SGD");
    sam.extend(sgd.iter().filter(|row| row.eta == 0.1 && sam_batches.contains(&row.batch)).cloned());
    let mut judged = judge(&sgd, "test error", |row| row.test_error);
    judged.extend(judge(&sgd, "test loss", |row| row.test_loss));
    let about = format!(
        "{} of smartcore's digits, 360 others as the test set (the last in the file: other writers; an error of 1 is 0.0028); network 64-32-32-10 \
         with a constant on every layer, He initialisation, softmax cross-entropy, plain SGD, f64, stopped at training loss {}.",
        train.len(),
        stop.loss
    );
    context.keep("generalisation", &sgd, &about)?;
    context.keep("verdicts", &judged, &about)?;
    context.keep("sam", &sam, &about)
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let facts = results.facts(name);
    if name == "verdicts" {
        let judged = results.read(name)?;
        return Ok(Entry { figure: verdicts_figure(&judged, facts), tables: vec![verdict_table(&judged)] });
    }
    let rows = results.read(name)?;
    Ok(match name {
        "sam" => Entry { figure: sam_figure(&rows, facts), tables: vec![batch::table(&rows), gains(&rows)] },
        _ => Entry { figure: figure(&rows, facts), tables: vec![batch::table(&rows)] },
    })
}

/// η, the sharpness, and the quantity that it is to predict.
type Point = (f64, f64, f64);

fn judge(rows: &[Row], target: &str, value: fn(&Row) -> Option<f64>) -> Vec<Judged> {
    let reached: Vec<&Row> = rows.iter().filter(|row| row.reached).collect();
    let judge = |(measure, sharpness): Measure| {
        let mut clusters: Vec<Vec<Point>> = Vec::new();
        for seed in 0..=reached.iter().map(|row| row.seed).max().unwrap_or(0) {
            let of_seed = reached.iter().filter(|row| row.seed == seed);
            clusters.push(of_seed.filter_map(|row| Some((row.eta, sharpness(row)?, value(row)?))).collect());
        }
        clusters.retain(|cluster| !cluster.is_empty());
        let (tau, within) = (bootstrap(&clusters, over_all), bootstrap(&clusters, within_eta));
        let of = |interval: Option<Interval>, part: fn(Interval) -> f64| interval.map(part);
        Judged {
            measure: measure.to_owned(),
            target: target.to_owned(),
            runs: reached.len(),
            seeds: clusters.len(),
            tau: of(tau, |i| i.value),
            tau_low: of(tau, |i| i.low),
            tau_high: of(tau, |i| i.high),
            within_eta: of(within, |i| i.value),
            within_eta_low: of(within, |i| i.low),
            within_eta_high: of(within, |i| i.high),
            verdict: verdict(tau, within).to_string(),
        }
    };
    measures().map(judge).to_vec()
}

fn over_all(points: &[Drawn<Point>]) -> Option<f64> {
    let plane = |&Drawn { cluster, draw, value: (_, x, y) }: &_| Drawn { cluster, draw, value: (x, y) };
    kendall(&points.iter().map(plane).collect::<Vec<_>>())
}

/// The mean over the η of τ among the runs of that η.
fn within_eta(points: &[Drawn<Point>]) -> Option<f64> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.value.0.total_cmp(&b.value.0));
    let taus: Vec<f64> = points.chunk_by(|a, b| a.value.0 == b.value.0).filter_map(over_all).collect();
    (!taus.is_empty()).then(|| mean(taus))
}

fn figure(rows: &[Row], facts: &str) -> Figure {
    let looks = [
        (colour::BLUE, Marker::Circle),
        (colour::GREEN, Marker::Square),
        (colour::ORANGE, Marker::Triangle),
        (colour::VERMILION, Marker::Cross),
    ];
    let mut etas: Vec<f64> = rows.iter().map(|row| row.eta).collect();
    etas.sort_by(f64::total_cmp);
    etas.dedup();
    let mut batches: Vec<usize> = rows.iter().map(|row| row.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let reached = || rows.iter().filter(|row| row.reached);
    let panel = |&eta: &f64| Panel {
        title: format!("η = {eta}"),
        x: Axis { label: "λmax(H)", scale: Scale::Log },
        y: Axis { label: "test error, share of samples", scale: Scale::Linear },
        series: (batches.iter().zip(looks))
            .map(|(&batch, (colour, marker))| Series {
                label: format!("B = {batch}"),
                colour,
                marker,
                marks: reached()
                    .filter(|row| row.eta == eta && row.batch == batch)
                    .filter_map(|row| Some((row.lambda_max?, row.test_error?)))
                    .collect(),
                ..Series::default()
            })
            .collect(),
    };
    Figure {
        name: "generalisation",
        title: "Sharpness and test error, a mark for each run".to_owned(),
        panels: etas.iter().map(panel).collect(),
        caption: format!("{} of {} runs reached the training loss. {facts}", reached().count(), rows.len()),
    }
}

/// τ of each measure with its interval.
fn verdicts_figure(judged: &[Judged], facts: &str) -> Figure {
    let panel = |target: &str| {
        let those = || judged.iter().filter(|judged| judged.target == target).enumerate();
        let series =
            |label: &str, colour, marker| Series { label: label.to_owned(), colour, marker, ..Series::default() };
        let mut all = series("over all runs", colour::BLUE, Marker::Circle);
        let mut within = series("among runs of one η", colour::VERMILION, Marker::Diamond);
        let add = |series: &mut Series, at: f64, values: [Option<f64>; 3]| {
            if let [Some(value), Some(low), Some(high)] = values {
                series.marks.push((value, at));
                series.bars.push([(low, at), (high, at)]);
            }
        };
        for (i, j) in those() {
            add(&mut all, i as f64 - 0.12, [j.tau, j.tau_low, j.tau_high]);
            add(&mut within, i as f64 + 0.12, [j.within_eta, j.within_eta_low, j.within_eta_high]);
        }
        let zero = Series {
            stroke: report::plot::Stroke::Dashed,
            line: vec![(0.0, -0.6), (0.0, NAMES.len() as f64 - 0.4)],
            ..series("no correlation", colour::GREY, Marker::Circle)
        };
        Panel {
            title: format!("With the {target}"),
            x: Axis { label: "Kendall's τ", scale: Scale::Linear },
            y: Axis { label: "", scale: Scale::Names(NAMES.iter().map(|&name| name.to_owned()).collect()) },
            series: vec![all, within, zero],
        }
    };
    Figure {
        name: "verdicts",
        title: "Does sharpness go with the error and the loss on the test set?".to_owned(),
        panels: vec![panel("test error"), panel("test loss")],
        caption: format!(
            "{} runs. τ above 0: sharper minima generalise worse. Bars: 95 % intervals from 2000 bootstrap resamples of the {} seeds. φ at ε = 0.001; \
             ASAM-type: the largest loss within ‖δ ⊘ |θ|‖ ≤ 0.5. Verdicts on the test error: {}. {facts}",
            judged[0].runs,
            judged[0].seeds,
            (judged.iter().filter(|judged| judged.target == "test error"))
                .map(|judged| format!("{}: {}", judged.measure, judged.verdict))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

fn verdict_table(judged: &[Judged]) -> Table {
    let header = ["sharpness", "with", "τ over all", "95 %", "τ within one η", "95 %", "verdict"];
    let number = |x: Option<f64>| x.map_or("–".to_owned(), |x| format!("{x:+.2}"));
    let row = |j: &Judged| {
        vec![
            j.measure.clone(),
            j.target.clone(),
            number(j.tau),
            format!("{} … {}", number(j.tau_low), number(j.tau_high)),
            number(j.within_eta),
            format!("{} … {}", number(j.within_eta_low), number(j.within_eta_high)),
            j.verdict.clone(),
        ]
    };
    Table { header: header.map(str::to_owned).to_vec(), rows: judged.iter().map(row).collect() }
}

fn sam_figure(rows: &[Row], facts: &str) -> Figure {
    let panel = |title: &str, label, value: fn(&Row) -> Option<f64>| Panel {
        title: title.to_owned(),
        x: Axis { label: "SAM's ρ (0: plain SGD)", scale: Scale::Linear },
        y: Axis { label, scale: Scale::Linear },
        series: vec![marks_and_means(
            "a run; their mean",
            (colour::BLUE, Marker::Circle),
            rows.iter().filter(|row| row.reached).filter_map(|row| Some((row.rho, value(row)?))),
        )],
    };
    Figure {
        name: "sam",
        title: "Sharpness-aware minimisation beside plain SGD".to_owned(),
        panels: vec![
            panel("Sharpness", "λmax(H)", |row| row.lambda_max),
            panel("Training loss at the stop", "mean cross-entropy, training (nats)", |row| row.train_loss),
            panel("Test loss", "mean cross-entropy, test (nats)", |row| row.test_loss),
            panel("Test error", "share of samples", |row| row.test_error),
        ],
        caption: format!("η = 0.1, B = {}. {facts}", rows[0].batch),
    }
}

/// What SAM changes, in pairs of the same batch and seed: the mean difference and its interval, by
/// resampling pairs.
fn gains(rows: &[Row]) -> Table {
    let header = ["SAM − SGD, in pairs", "pairs", "mean difference", "95 %"];
    let mut rhos: Vec<f64> = rows.iter().map(|row| row.rho).filter(|&rho| rho > 0.0).collect();
    rhos.sort_by(f64::total_cmp);
    rhos.dedup();
    let measures: [Measure; 3] =
        [("λmax(H)", |row| row.lambda_max), ("test error", |row| row.test_error), ("test loss", |row| row.test_loss)];
    let mut lines = Vec::new();
    for rho in rhos {
        for (name, value) in measures {
            let pairs: Vec<Vec<f64>> = (rows.iter().filter(|row| row.rho == rho && row.reached))
                .filter_map(|sam| {
                    let same =
                        |row: &&Row| row.rho == 0.0 && row.reached && (row.batch, row.seed) == (sam.batch, sam.seed);
                    Some(vec![value(sam)? - value(rows.iter().find(same)?)?])
                })
                .collect();
            if let Some(Interval { value, low, high }) =
                bootstrap(&pairs, |values| (!values.is_empty()).then(|| mean(values.iter().map(|drawn| drawn.value))))
            {
                let (n, name) = (pairs.len().to_string(), format!("{name}, ρ = {rho}"));
                lines.push(vec![name, n, format!("{value:+.4}"), format!("{low:+.4} … {high:+.4}")]);
            }
        }
    }
    Table { header: header.map(str::to_owned).to_vec(), rows: lines }
}
