//! Generalisation, and SAM.
//!
//! Claimed: flat minima generalise better (Hochreiter and Schmidhuber 1997; the lecture).
//! Varied: η, B, and the seed of initialisation and order; in a second series SAM's ρ (Foret et al.
//! 2021), beside the same run without it.
//! Held fixed: data, network, cross-entropy, plain SGD, and the training loss at the stop, which is
//! the same to nine digits (`exact`).
//! Data: MNIST where a folder is given, 2000 digits averaged to 14 × 14 pixels to train on and 8000
//! others to test on, 196-32-32-10, seeds 0 … 19. And always the digits, 1437 to train on and 360
//! to test on, 64-32-32-10, seeds 0 … 9. f64; native products, so that training has the same bits
//! on every CPU.
//!
//! Asked: Kendall's τ of each of five measures of sharpness with the test error and with the test
//! loss, over all runs that reached the loss; within one η, the mean over the η of the τ among the
//! runs of that η; and within one η and one B likewise. Intervals by resampling seeds. The verdicts
//! are those of `statistics::verdict`, ten for each data set. Beside them, for no verdict: the
//! partial τ within one η given the training loss, and the τ of the training loss itself in place
//! of a measure, which show whether the losses are equal enough.

use std::time::Instant;

use gemmprop::{Bias, Mlp, Products};
use serde::{Deserialize, Serialize};

use crate::batch::{self, marks_and_means, means_and_ranges};
use crate::run::{Job, Recipe, Row, Set, Stop, digits, in_parallel, mean, pooled_mnist, row};
use crate::{Context, Outcome, exact};
use report::machine;
use report::page::{Entry, Table};
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, colour};
use report::results::{Journal, Results};
use report::statistics::{CONFIDENCE, Drawn, Interval, RESAMPLES, bootstrap, kendall, partial, verdict};

/// The name of a measure and its value.
type Measure = (&'static str, fn(&Row) -> Option<f64>);

const NAMES: [&str; 5] = ["λmax(H)", "trace H", "λmax(|D|H|D|)", "φ", "ASAM-type"];

/// In place of a measure, to see whether the losses are equal enough; it gets no verdict.
const TRAIN_LOSS: Measure = ("training loss", |row| row.train_loss);

fn measures() -> [Measure; 5] {
    [
        (NAMES[0], |row| row.lambda_max),
        (NAMES[1], |row| row.trace),
        (NAMES[2], |row| row.adaptive_lambda_max),
        (NAMES[3], |row| row.phi),
        (NAMES[4], |row| row.asam),
    ]
}

const TARGETS: [Measure; 2] = [("test error", |row| row.test_error), ("test loss", |row| row.test_loss)];

/// τ of a measure with what it is to predict, with intervals.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Judged {
    data: String,
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
    within_eta_and_b: Option<f64>,
    within_eta_and_b_low: Option<f64>,
    within_eta_and_b_high: Option<f64>,
    /// Within one η, given the training loss.
    partial: Option<f64>,
    partial_low: Option<f64>,
    partial_high: Option<f64>,
    verdict: String,
}

/// Data to train on and to test on, and the seeds of their runs.
struct Data {
    name: &'static str,
    train: Set<f64>,
    test: Set<f64>,
    seeds: u64,
}

pub(crate) fn experiment(context: &mut Context) -> Outcome {
    let quick = context.quick;
    let mut sets = Vec::new();
    let mut add = |name, (mut train, test): (Set<f64>, Set<f64>), seeds| {
        if quick {
            train = train.first(300);
        }
        sets.push(Data { name, train, test, seeds: if quick { 3 } else { seeds } });
    };
    if let Some(folder) = &context.mnist {
        add("MNIST", pooled_mnist(folder)?, 20);
    }
    add("digits", digits(), 10);
    let loss = if quick { 0.1 } else { 0.01 };
    let jobs: Vec<(&Data, Job)> =
        sets.iter().flat_map(|data| data.jobs(quick, loss).into_iter().map(move |job| (data, job))).collect();
    let sgd_and_sam = runs(&jobs, &context.results, quick)?;
    let (sgd, mut sam): (Vec<Row>, Vec<Row>) = sgd_and_sam.into_iter().partition(|row| row.control == SGD);
    let pairs: Vec<Row> = sgd.iter().filter(|row| sam.iter().any(|sam| are_a_pair(sam, row))).cloned().collect();
    sam.extend(pairs);
    let asked: Vec<(&str, Measure, Measure)> = (sets.iter())
        .flat_map(|data| TARGETS.map(|target| (data.name, target)))
        .flat_map(|(data, target)| {
            measures().into_iter().chain([TRAIN_LOSS]).map(move |measure| (data, measure, target))
        })
        .collect();
    let text = |(data, measure, target): &(&str, Measure, Measure)| format!("{data}, {}, {}", measure.0, target.0);
    let judged = in_parallel("judge", &asked, text, |&(data, measure, target)| judge(&sgd, data, measure, target));
    let sets: Vec<String> = sets.iter().map(Data::described).collect();
    let about = format!(
        "{} Networks with a constant on every layer, He initialisation, softmax cross-entropy, plain SGD, f64, native products; the training loss at the \
         stop is {loss} to nine digits.",
        sets.join(" ")
    );
    context.keep("generalisation", &sgd, &about)?;
    context.keep("verdicts", &judged, &about)?;
    context.keep("sam", &sam, &about)
}

const SGD: &str = "SGD";
const SAM: &str = "SAM";

impl Data {
    fn described(&self) -> String {
        let Self { name, train, test, seeds } = self;
        let (inputs, n, m) = (train.x.ncols(), train.len(), test.len());
        let origin = match *name {
            "digits" => "smartcore's digits, the test set by other writers",
            _ => "averaged over squares of 2 × 2 pixels",
        };
        format!("{name} ({origin}): {n} to train on, {m} others to test on, {inputs}-32-32-10, {seeds} seeds.")
    }

    /// The slowest first.
    fn jobs(&self, quick: bool, loss: f64) -> Vec<Job> {
        let stop = Stop { loss, steps: if quick { 4000 } else { 60_000 } };
        let (etas, batches): (&[f64], &[usize]) =
            if quick { (&[0.1, 0.4], &[64, 8]) } else { (&[0.05, 0.1, 0.2, 0.4], &[512, 128, 32, 8]) };
        let (rhos, sam_batch): (&[f64], usize) = if quick { (&[0.05], 8) } else { (&[0.02, 0.05, 0.1], 32) };
        let job = |control, recipe| Job { data: self.name, control, recipe, stop, non_uniformity: false };
        let mut jobs = Vec::new();
        for seed in 0..self.seeds {
            for &batch in batches {
                jobs.extend(etas.iter().map(|&eta| job(SGD, Recipe::sgd(eta, batch, seed))));
            }
            let sam = |&rho: &f64| job(SAM, Recipe { rho: Some(rho), ..Recipe::sgd(0.1, sam_batch, seed) });
            jobs.extend(rhos.iter().map(sam));
        }
        jobs
    }
}

/// Trains and measures all, or what is left of it after a run of the same commit that was ended.
fn runs(jobs: &[(&Data, Job)], results: &Results, quick: bool) -> Outcome<Vec<Row>> {
    let commit = machine::commit();
    let name = format!("generalisation-{commit}{}.csv", if quick { "-quick" } else { "" });
    let path = results.directory().join(name);
    // Nobody knows what changes those rows are of.
    if path.exists() && (commit.ends_with("dirty") || commit == "unknown") {
        std::fs::remove_file(&path)?;
    }
    let (journal, before): (Journal, Vec<Row>) = Journal::open(&path)?;
    let text = |(data, job): &(&Data, Job)| {
        let Recipe { eta, batch, seed, rho, .. } = job.recipe;
        format!("{}, {}: η {eta}, B {batch}, ρ {}, seed {seed}", data.name, job.control, rho.unwrap_or(0.0))
    };
    let rows = in_parallel("generalise", jobs, text, |(data, job)| {
        if let Some(row) = before.iter().find(|row| is_of(row, job)) {
            return row.clone();
        }
        let (start, widths) = (Instant::now(), [data.train.x.ncols(), 32, 32, 10]);
        let mlp =
            Mlp::he(&widths, Bias::EveryLayer, job.recipe.seed).and_then(|mlp| mlp.with_products(Products::Native));
        let mlp = mlp.expect("valid widths");
        let trained = exact::train(mlp, &job.recipe, &data.train, &job.stop);
        let row = row(&trained, &data.train, &data.test, job, start);
        journal.keep(&row).expect("a row that can be written");
        row
    });
    std::fs::remove_file(path)?;
    Ok(rows)
}

fn is_of(row: &Row, job: &Job) -> bool {
    let Recipe { eta, batch, seed, rho, .. } = job.recipe;
    let found = (row.data.as_str(), row.control.as_str(), row.eta, row.batch, row.seed, row.rho);
    found == (job.data, job.control, eta, batch, seed, rho.unwrap_or(0.0))
}

/// Whether a run without SAM differs from one with it in nothing else.
fn are_a_pair(sam: &Row, sgd: &Row) -> bool {
    let key = |row: &Row| (row.data.clone(), row.eta.to_bits(), row.batch, row.seed);
    key(sam) == key(sgd)
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let facts = results.facts(name);
    if name == "verdicts" {
        let judged = results.read(name)?;
        return Ok(Entry { figure: verdicts_figure(&judged, facts), tables: vec![verdict_table(&judged)] });
    }
    // The figures show the larger data, the tables all.
    let rows: Vec<Row> = results.read(name)?;
    let shown: Vec<Row> = rows.iter().filter(|row| row.data == rows[0].data).cloned().collect();
    let mut tables: Vec<Table> = rows.chunk_by(|a, b| a.data == b.data).map(batch::table).collect();
    let figure = if name == "sam" {
        tables.push(gains(&rows));
        sam_figure(&shown, facts)
    } else {
        figure(&shown, facts)
    };
    Ok(Entry { figure, tables })
}

/// A run: its settings, its sharpness x, what x is to predict, and its training loss.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    eta: f64,
    batch: usize,
    x: f64,
    y: f64,
    train_loss: f64,
}

fn judge(rows: &[Row], data: &str, (measure, sharpness): Measure, (target, value): Measure) -> Judged {
    let mut clusters: Vec<Vec<Point>> = Vec::new();
    for row in rows.iter().filter(|row| row.reached && row.data == data) {
        let seed = usize::try_from(row.seed).expect("a small number");
        clusters.resize(clusters.len().max(seed + 1), Vec::new());
        if let (Some(x), Some(y), Some(train_loss)) = (sharpness(row), value(row), row.train_loss) {
            clusters[seed].push(Point { eta: row.eta, batch: row.batch, x, y, train_loss });
        }
    }
    clusters.retain(|cluster| !cluster.is_empty());
    let interval = |statistic: fn(&[Drawn<Point>]) -> Option<f64>| bootstrap(&clusters, CONFIDENCE, statistic);
    let [all, eta, both, partial] = [over_all, within_eta, within_eta_and_b, partial_within_eta].map(interval);
    let of = |interval: Option<Interval>, part: fn(Interval) -> f64| interval.map(part);
    let value = |interval: Interval| interval.value;
    let low = |interval: Interval| interval.low;
    let high = |interval: Interval| interval.high;
    Judged {
        data: data.to_owned(),
        measure: measure.to_owned(),
        target: target.to_owned(),
        runs: clusters.iter().map(Vec::len).sum(),
        seeds: clusters.len(),
        tau: of(all, value),
        tau_low: of(all, low),
        tau_high: of(all, high),
        within_eta: of(eta, value),
        within_eta_low: of(eta, low),
        within_eta_high: of(eta, high),
        within_eta_and_b: of(both, value),
        within_eta_and_b_low: of(both, low),
        within_eta_and_b_high: of(both, high),
        partial: of(partial, value),
        partial_low: of(partial, low),
        partial_high: of(partial, high),
        verdict: if measure == TRAIN_LOSS.0 { "none".to_owned() } else { verdict([all, eta, both]).to_string() },
    }
}

fn tau(points: &[Drawn<Point>], plane: fn(&Point) -> (f64, f64)) -> Option<f64> {
    let plane = |drawn: &Drawn<Point>| Drawn { cluster: drawn.cluster, draw: drawn.draw, value: plane(&drawn.value) };
    kendall(&points.iter().map(plane).collect::<Vec<_>>())
}

fn over_all(points: &[Drawn<Point>]) -> Option<f64> {
    tau(points, |p| (p.x, p.y))
}

/// The mean over the η of τ among the runs of that η.
fn within_eta(points: &[Drawn<Point>]) -> Option<f64> {
    within(points, |p| (p.eta, 0), over_all)
}

/// The mean over all η and B of τ among the runs of that η and that B.
fn within_eta_and_b(points: &[Drawn<Point>]) -> Option<f64> {
    within(points, |p| (p.eta, p.batch), over_all)
}

/// The mean over the η of the partial τ among the runs of that η, given the training loss.
fn partial_within_eta(points: &[Drawn<Point>]) -> Option<f64> {
    let given_loss = |points: &[Drawn<Point>]| {
        let of_x = tau(points, |p| (p.x, p.train_loss));
        partial(over_all(points), of_x, tau(points, |p| (p.y, p.train_loss)))
    };
    within(points, |p| (p.eta, 0), given_loss)
}

/// The mean of a statistic over groups of points.
fn within(
    points: &[Drawn<Point>],
    group: fn(&Point) -> (f64, usize),
    statistic: impl Fn(&[Drawn<Point>]) -> Option<f64>,
) -> Option<f64> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| {
        let ((a, i), (b, j)) = (group(&a.value), group(&b.value));
        a.total_cmp(&b).then(i.cmp(&j))
    });
    let groups = points.chunk_by(|a, b| group(&a.value) == group(&b.value));
    let found: Vec<f64> = groups.filter_map(statistic).collect();
    (!found.is_empty()).then(|| mean(found))
}

const LOOKS: [(RGBColor, Marker); 4] = [
    (colour::BLUE, Marker::Circle),
    (colour::GREEN, Marker::Square),
    (colour::ORANGE, Marker::Triangle),
    (colour::VERMILION, Marker::Cross),
];

fn figure(rows: &[Row], facts: &str) -> Figure {
    let mut etas: Vec<f64> = rows.iter().map(|row| row.eta).collect();
    etas.sort_by(f64::total_cmp);
    etas.dedup();
    let mut batches: Vec<usize> = rows.iter().map(|row| row.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let reached: Vec<&Row> = rows.iter().filter(|row| row.reached).collect();
    let against_batch = (etas.iter().zip(LOOKS).zip(-2..)).map(|((&eta, look), i)| {
        let of = reached.iter().filter(|row| row.eta == eta);
        let points = of.filter_map(|row| Some((row.batch as f64, row.lambda_max?)));
        means_and_ranges(&format!("η = {eta}"), look, 1.07_f64.powi(i), points)
    });
    let by_batch = |point: &dyn Fn(&Row) -> Option<(f64, f64)>| {
        let series = batches.iter().zip(LOOKS).map(|(&batch, (colour, marker))| Series {
            label: format!("B = {batch}"),
            colour,
            marker,
            marks: reached.iter().filter(|row| row.batch == batch).filter_map(|row| point(row)).collect(),
            ..Series::default()
        });
        series.collect::<Vec<_>>()
    };
    let seeds_alone = |row: &Row| {
        let same = || reached.iter().filter(|other| (other.eta, other.batch) == (row.eta, row.batch));
        let [x, y] = [mean(same().filter_map(|row| row.lambda_max)), mean(same().filter_map(|row| row.test_error))];
        Some((row.lambda_max? / x, row.test_error? - y))
    };
    let panel = |title: &str, (x, scale), y, series| Panel {
        title: title.to_owned(),
        x: Axis { label: x, scale },
        y: Axis { label: y, scale: Scale::Linear },
        series,
    };
    let sharpness = || ("λmax(H)", Scale::Log);
    let (error, loss) = ("test error, share of samples", "test loss (nats)");
    Figure {
        name: "generalisation",
        title: format!("{}: sharpness and generalisation at the same training loss", rows[0].data),
        panels: vec![
            Panel {
                title: "Sharpness by batch size".to_owned(),
                x: batch::B,
                y: Axis { label: "λmax(H)", scale: Scale::Log },
                series: against_batch.collect(),
            },
            panel("All runs", sharpness(), error, by_batch(&|row| Some((row.lambda_max?, row.test_error?)))),
            panel("All runs", sharpness(), loss, by_batch(&|row| Some((row.lambda_max?, row.test_loss?)))),
            panel(
                "Same η and B, only the seed differs",
                ("λmax(H), in units of the mean of its η and B", Scale::Linear),
                "test error − mean of its η and B",
                by_batch(&seeds_alone),
            ),
        ],
        caption: format!(
            "A mark for each run; above on the left, means over the seeds with bars from the least to the greatest. {} of {} runs reached the training \
             loss. {facts}",
            reached.len(),
            rows.len()
        ),
    }
}

/// τ of each measure with its interval.
fn verdicts_figure(judged: &[Judged], facts: &str) -> Figure {
    let judged: Vec<&Judged> = judged.iter().filter(|judged| judged.measure != TRAIN_LOSS.0).collect();
    let panel = |those: &[&Judged]| {
        let series =
            |label: &str, (colour, marker)| Series { label: label.to_owned(), colour, marker, ..Series::default() };
        let mut all = series("all runs", (colour::BLUE, Marker::Circle));
        let mut within = series("runs of one η", (colour::VERMILION, Marker::Diamond));
        let mut both = series("runs of one η and one B", (colour::GREEN, Marker::Square));
        let add = |series: &mut Series, at: f64, values: [Option<f64>; 3]| {
            if let [Some(value), Some(low), Some(high)] = values {
                series.marks.push((value, at));
                series.bars.push([(low, at), (high, at)]);
            }
        };
        for (i, j) in those.iter().enumerate() {
            add(&mut all, i as f64 - 0.2, [j.tau, j.tau_low, j.tau_high]);
            add(&mut within, i as f64, [j.within_eta, j.within_eta_low, j.within_eta_high]);
            add(&mut both, i as f64 + 0.2, [j.within_eta_and_b, j.within_eta_and_b_low, j.within_eta_and_b_high]);
        }
        let zero = Series {
            stroke: report::plot::Stroke::Dashed,
            line: vec![(0.0, -0.6), (0.0, NAMES.len() as f64 - 0.4)],
            ..series("no correlation", (colour::GREY, Marker::Circle))
        };
        Panel {
            title: format!("{}, with the {}", those[0].data, those[0].target),
            x: Axis { label: "Kendall's τ", scale: Scale::Linear },
            y: Axis { label: "", scale: Scale::Names(NAMES.iter().map(|&name| name.to_owned()).collect()) },
            series: vec![all, within, both, zero],
        }
    };
    let panels = judged.chunk_by(|a, b| (&a.data, &a.target) == (&b.data, &b.target)).map(panel);
    let counts = judged.chunk_by(|a, b| a.data == b.data).map(|those| {
        let Judged { data, runs, seeds, .. } = those[0];
        format!("{data}: {runs} runs of {seeds} seeds reached the loss.")
    });
    Figure {
        name: "verdicts",
        title: "Does sharpness go with the error and the loss on the test set?".to_owned(),
        panels: panels.collect(),
        caption: format!(
            "{} τ above 0: sharper minima generalise worse. Bars: intervals of {} %, corrected for ten verdicts, from {RESAMPLES} bootstrap resamples of the \
             seeds. φ at ε = 0.001; ASAM-type: the largest loss within ‖δ ⊘ |θ|‖ ≤ 0.5. {facts}",
            counts.collect::<Vec<_>>().join(" "),
            100.0 * CONFIDENCE
        ),
    }
}

fn verdict_table(judged: &[Judged]) -> Table {
    let header =
        ["data", "sharpness", "with", "τ, all runs", "τ, one η", "τ, one η and B", "partial τ, one η", "verdict"];
    let text = |values: [Option<f64>; 3]| match values {
        [Some(value), Some(low), Some(high)] => format!("{value:+.2} ({low:+.2} … {high:+.2})"),
        _ => "–".to_owned(),
    };
    let row = |j: &Judged| {
        vec![
            j.data.clone(),
            j.measure.clone(),
            j.target.clone(),
            text([j.tau, j.tau_low, j.tau_high]),
            text([j.within_eta, j.within_eta_low, j.within_eta_high]),
            text([j.within_eta_and_b, j.within_eta_and_b_low, j.within_eta_and_b_high]),
            text([j.partial, j.partial_low, j.partial_high]),
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
            panel("Test loss", "mean cross-entropy, test (nats)", |row| row.test_loss),
            panel("Test error", "share of samples", |row| row.test_error),
        ],
        caption: format!("η = 0.1, B = {}, the same training loss. {facts}", rows[0].batch),
    }
}

/// What SAM changes, in pairs of the same batch and seed: the mean difference and its interval, by
/// resampling pairs.
fn gains(rows: &[Row]) -> Table {
    let header = ["SAM − SGD, in pairs", "pairs", "mean difference", "95 %"];
    let measures: [Measure; 3] = [measures()[0], TARGETS[0], TARGETS[1]];
    let mut lines = Vec::new();
    let mut sam: Vec<&Row> = rows.iter().filter(|row| row.rho > 0.0 && row.reached).collect();
    // Stable: the data stay in their order.
    sam.sort_by(|a, b| a.rho.total_cmp(&b.rho));
    sam.sort_by_key(|row| rows.iter().position(|other| other.data == row.data));
    for same in sam.chunk_by(|a, b| (&a.data, a.rho) == (&b.data, b.rho)) {
        for (name, value) in measures {
            let difference = |sam: &&Row| {
                let sgd = rows.iter().find(|row| row.rho == 0.0 && row.reached && are_a_pair(sam, row))?;
                Some(vec![value(sam)? - value(sgd)?])
            };
            let pairs: Vec<Vec<f64>> = same.iter().filter_map(difference).collect();
            let statistic =
                |values: &[Drawn<f64>]| (!values.is_empty()).then(|| mean(values.iter().map(|drawn| drawn.value)));
            if let Some(Interval { value, low, high }) = bootstrap(&pairs, 0.95, statistic) {
                let (n, name) = (pairs.len().to_string(), format!("{}, {name}, ρ = {}", same[0].data, same[0].rho));
                lines.push(vec![name, n, format!("{value:+.4}"), format!("{low:+.4} … {high:+.4}")]);
            }
        }
    }
    Table { header: header.map(str::to_owned).to_vec(), rows: lines }
}
