//! Steps on several ranks: what was measured, a model of it, and what the model says of more ranks.
//!
//! ```text
//! T(N) = k (F/(N r) + u P + 2 m P (N − 1)/N + l log₂ N)
//! ```
//!
//! F is the number of operations of a step and P that of parameters. r, operations a second, is
//! that of one thread of a trainer by itself with the same network; k = N/min(N, cores), since more
//! ranks than cores take turns. u, m and l are fitted: seconds a parameter for what every rank does
//! with all of the gradient, seconds a number that is moved, and seconds a message. Exact and fast
//! sums have u in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::step::short;
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};

/// A line of `ci/cluster --measure`: one of several rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `trainer`, `exact`, `fast`, or PyTorch's `ddp`.
    how: String,
    ranks: usize,
    threads: usize,
    widths: String,
    batch: usize,
    step_us: f64,
    waiting_us: Option<f64>,
    moving_us: Option<f64>,
    round: usize,
}

/// A network and its batch.
type Shape = (String, usize);

/// What was measured of one setting: medians over the rounds, in seconds.
#[derive(Debug, Clone, Copy)]
struct Median {
    step: f64,
    waiting: f64,
    moving: f64,
}

type Medians = BTreeMap<(Shape, String, usize, usize), Median>;

fn medians(rows: &[Row]) -> Medians {
    let mut of: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let key = ((row.widths.clone(), row.batch), row.how.clone(), row.ranks, row.threads);
        of.entry(key).or_default().push(row);
    }
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        let middle = [(numbers.len() - 1) / 2, numbers.len() / 2];
        middle.iter().map(|&i| numbers[i]).sum::<f64>() / 2.0 * 1e-6
    };
    let all = |rows: &[&Row], number: fn(&Row) -> f64| median(rows.iter().map(|row| number(row)).collect());
    let of_setting = |rows: Vec<&Row>| Median {
        step: all(&rows, |row| row.step_us),
        waiting: all(&rows, |row| row.waiting_us.unwrap_or(0.0)),
        moving: all(&rows, |row| row.moving_us.unwrap_or(0.0)),
    };
    of.into_iter().map(|(key, rows)| (key, of_setting(rows))).collect()
}

/// The shapes in the order of their measurement.
fn shapes(rows: &[Row]) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for row in rows {
        let shape = (row.widths.clone(), row.batch);
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes
}

fn widths(shape: &Shape) -> Vec<f64> {
    shape.0.split('-').map(|d| d.parse().expect("widths are numbers")).collect()
}

/// P, with a constant on every layer.
fn parameters(shape: &Shape) -> f64 {
    widths(shape).windows(2).map(|d| (d[0] + 1.0) * d[1]).sum()
}

/// F for a batch of one: forward, ∂w, and ∂z of all layers but the first.
fn operations(shape: &Shape) -> f64 {
    let edges: Vec<f64> = widths(shape).windows(2).map(|d| d[0] * d[1]).collect();
    2.0 * (3.0 * edges.iter().sum::<f64>() - edges[0])
}

/// The model of one reduction.
#[derive(Debug, Clone, Copy)]
struct Model {
    /// Seconds a parameter, a number that is moved, and a message.
    u: f64,
    m: f64,
    l: f64,
}

const CORES: f64 = 2.0;

impl Model {
    /// What u, m and l are multiplied with.
    fn factors(shape: &Shape, ranks: usize) -> [f64; 3] {
        let (n, p) = (ranks as f64, parameters(shape));
        let k = n / n.min(CORES);
        [k * p, k * 2.0 * p * (n - 1.0) / n, k * n.log2()]
    }

    /// F/(N r), times k.
    fn compute(shape: &Shape, ranks: usize, rate: f64) -> f64 {
        operations(shape) * shape.1 as f64 / rate / (ranks as f64).min(CORES)
    }

    fn step(self, shape: &Shape, ranks: usize, rate: f64) -> f64 {
        let [u, m, l] = Self::factors(shape, ranks);
        Self::compute(shape, ranks, rate) + self.u * u + self.m * m + self.l * l
    }

    /// Those of both, exact and fast, which have u in common: least squares of the relative errors.
    /// A number that would be negative is 0.
    fn fit(points: &[Point]) -> [Self; 2] {
        let mut kept = [true; 5];
        loop {
            let found = Self::solve(points, kept);
            match (0..5).filter(|&i| kept[i]).min_by(|&i, &j| found[i].total_cmp(&found[j])) {
                Some(i) if found[i] < 0.0 => kept[i] = false,
                _ => {
                    let [u, exact_m, exact_l, fast_m, fast_l] = found;
                    return [Self { u, m: exact_m, l: exact_l }, Self { u, m: fast_m, l: fast_l }];
                }
            }
        }
    }

    /// The normal equations of the numbers that are kept, by elimination.
    fn solve(points: &[Point], kept: [bool; 5]) -> [f64; 5] {
        let mut a = [[0.0; 6]; 5];
        for Point { shape, ranks, is_fast, rate, step } in points {
            let [u, m, l] = Self::factors(shape, *ranks).map(|f| f / step);
            let f = if *is_fast { [u, 0.0, 0.0, m, l] } else { [u, m, l, 0.0, 0.0] };
            let rest = (step - Self::compute(shape, *ranks, *rate)) / step;
            for i in 0..5 {
                for j in 0..5 {
                    a[i][j] += f[i] * f[j];
                }
                a[i][5] += f[i] * rest;
            }
        }
        for i in 0..5 {
            if !kept[i] {
                a.iter_mut().for_each(|row| row[i] = 0.0);
                a[i] = [0.0; 6];
                a[i][i] = 1.0;
            }
        }
        for i in 0..5 {
            for j in 0..5 {
                if i != j {
                    let factor = a[j][i] / a[i][i];
                    let row = a[i];
                    a[j].iter_mut().zip(row).for_each(|(to, from)| *to -= factor * from);
                }
            }
        }
        [0, 1, 2, 3, 4].map(|i| a[i][5] / a[i][i])
    }
}

/// A step that was measured, in seconds, and the speed of a rank by itself.
struct Point {
    shape: Shape,
    ranks: usize,
    is_fast: bool,
    rate: f64,
    step: f64,
}

/// What the figure and the tables are made of.
struct Fitted {
    medians: Medians,
    shapes: Vec<Shape>,
    models: [(&'static str, Model); 2],
}

impl Fitted {
    fn new(rows: &[Row]) -> Self {
        let (medians, shapes) = (medians(rows), shapes(rows));
        let mut points = Vec::new();
        for ((shape, how, ranks, _), found) in &medians {
            if let "exact" | "fast" = how.as_str() {
                let (shape, is_fast, rate) = (shape.clone(), how == "fast", Self::rate_of(&medians, shape));
                points.push(Point { shape, ranks: *ranks, is_fast, rate, step: found.step });
            }
        }
        let [exact, fast] = Model::fit(&points);
        Self { models: [("exact", exact), ("fast", fast)], medians, shapes }
    }

    fn rate_of(medians: &Medians, shape: &Shape) -> f64 {
        let alone = &medians[&(shape.clone(), "trainer".to_owned(), 1, 1)];
        operations(shape) * shape.1 as f64 / alone.step
    }

    /// u, m and l of both models.
    fn numbers(&self) -> String {
        let of = |(how, Model { m, l, .. }): (&str, Model)| format!("{how} m {:.1} ns, l {:.0} µs", m * 1e9, l * 1e6);
        format!("u {:.1} ns; {}", self.models[0].1.u * 1e9, self.models.map(of).join("; "))
    }

    fn get(&self, shape: &Shape, how: &str, ranks: usize, threads: usize) -> Option<Median> {
        self.medians.get(&(shape.clone(), how.to_owned(), ranks, threads)).copied()
    }
}

/// A network between machines: bandwidth of a rank in bytes a second, and seconds a message. These
/// are assumed, not measured.
const NETWORKS: [(&str, f64, f64, RGBColor); 2] =
    [("10 Gbit/s, 20 µs", 1.25e9, 20e-6, colour::VERMILION), ("100 Gbit/s, 2 µs", 12.5e9, 2e-6, colour::BLUE)];

const RANKS: [usize; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// A step of N ranks, each on a core of a machine of its own: what a rank computes, as it was
/// measured here, and what it moves and how often it sends, by the network. The exact sum sends
/// N − 1 messages for each of its two exchanges, the fast one log₂ N.
fn predicted(fitted: &Fitted, shape: &Shape, exact: bool, batch: f64, ranks: usize, network: (f64, f64)) -> f64 {
    let rate = Fitted::rate_of(&fitted.medians, shape);
    let (n, p) = (ranks as f64, parameters(shape));
    let model = fitted.models[usize::from(!exact)].1;
    let messages = if exact { 2.0 * (n - 1.0) } else { 2.0 * n.log2() } + n.log2();
    let own = operations(shape) * batch / n / rate + model.u * p;
    own + 2.0 * 4.0 * p * (n - 1.0) / n / network.0 + messages * network.1
}

/// The numbers of ranks that can share a batch.
fn sharing(shape: &Shape) -> impl Iterator<Item = usize> + Clone + use<> {
    let batch = shape.1;
    RANKS.into_iter().filter(move |&ranks| ranks <= batch)
}

/// Of the numbers of ranks that can share a batch: the largest that is at least half as fast as
/// linear, and the fastest, each with its speed-up.
fn best(fitted: &Fitted, shape: &Shape, exact: bool, network: (f64, f64)) -> [(usize, f64); 2] {
    let step = |ranks: usize| predicted(fitted, shape, exact, shape.1 as f64, ranks, network);
    let speedup = |ranks: usize| (ranks, step(1) / step(ranks));
    let all = sharing(shape).map(speedup);
    let half = all.clone().filter(|&(ranks, speedup)| speedup >= 0.5 * ranks as f64).last();
    let fastest = all.max_by(|a, b| a.1.total_cmp(&b.1));
    [half, fastest].map(|found| found.expect("one rank is as fast as itself"))
}

pub(crate) fn figure(rows: &[Row], facts: &str) -> Figure {
    let fitted = Fitted::new(rows);
    let marks = [Marker::Square, Marker::Cross, Marker::Circle, Marker::Diamond];
    let equal = Series { colour: colour::GREY, line: vec![(1e-4, 1.0), (4.0, 1.0)], ..Series::default() };
    let mut residuals = vec![Series { label: "as the model says".to_owned(), ..equal }];
    for (shape, marker) in fitted.shapes.iter().zip(marks) {
        let rate = Fitted::rate_of(&fitted.medians, shape);
        for (&(how, model), colour) in fitted.models.iter().zip([colour::BLUE, colour::VERMILION]) {
            let points = [1, 2, 4].into_iter().filter_map(|ranks| {
                let found = fitted.get(shape, how, ranks, 1)?.step;
                Some((found, found / model.step(shape, ranks, rate)))
            });
            let label = if how == "exact" { short(&shape.0, shape.1) } else { String::new() };
            residuals.push(Series { label, colour, marker, marks: points.collect(), ..Series::default() });
        }
    }
    let linear = RANKS.map(|n| (n as f64, n as f64)).to_vec();
    let mut predictions =
        vec![Series { label: "linear".to_owned(), colour: colour::GREY, line: linear, ..Series::default() }];
    for (shape, marker) in fitted.shapes.iter().zip(marks).skip(1).step_by(2) {
        for (name, bandwidth, latency, colour) in NETWORKS {
            for (exact, stroke) in [(true, Stroke::Solid), (false, Stroke::Dashed)] {
                let step = |ranks: usize| predicted(&fitted, shape, exact, shape.1 as f64, ranks, (bandwidth, latency));
                let line: Vec<_> = sharing(shape).map(|ranks| (ranks as f64, step(1) / step(ranks))).collect();
                let label = if exact { format!("{}, {name}", short(&shape.0, shape.1)) } else { String::new() };
                predictions.push(Series {
                    label,
                    colour,
                    stroke,
                    marker,
                    marks: line.clone(),
                    line,
                    ..Series::default()
                });
            }
        }
    }
    Figure {
        name: "scale",
        title: "Training on several ranks".to_owned(),
        panels: vec![
            Panel {
                title: "1, 2 and 4 ranks on 2 cores".to_owned(),
                x: Axis { label: "a step as measured (s)", scale: Scale::Log },
                y: Axis { label: "measured ÷ model", scale: Scale::Linear },
                series: residuals,
            },
            Panel {
                title: "One batch for all ranks, predicted".to_owned(),
                x: Axis { label: "ranks, a core of a machine each", scale: Scale::Log },
                y: Axis { label: "time of one rank ÷ time", scale: Scale::Log },
                series: predictions,
            },
        ],
        caption: format!(
            "f32, plain SGD, one thread a rank; medians of {} rounds. Left: blue is exact, red is fast. Right: dashed is fast. The model is fitted to what was measured: {}. Predictions have the \
             time that a rank computes from here, and assume the networks that are named. {facts}",
            rows.iter().map(|row| row.round).max().unwrap_or(0),
            fitted.numbers()
        ),
    }
}

/// What was measured, with the residual of the model.
pub(crate) fn table(rows: &[Row]) -> Table {
    let fitted = Fitted::new(rows);
    let header =
        ["network", "ranks × threads", "how", "step", "waiting", "moving", "model", "÷ model", "÷ one process"];
    let micros = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
    let mut table = Vec::new();
    for shape in &fitted.shapes {
        let rate = Fitted::rate_of(&fitted.medians, shape);
        let two = fitted.get(shape, "trainer", 1, 2).map_or(f64::NAN, |two| two.step);
        for (how, ranks, threads) in [
            ("trainer", 1, 1),
            ("trainer", 1, 2),
            ("exact", 1, 1),
            ("exact", 2, 1),
            ("exact", 4, 1),
            ("fast", 2, 1),
            ("fast", 4, 1),
            ("ddp", 1, 2),
            ("ddp", 2, 1),
        ] {
            let Some(found) = fitted.get(shape, how, ranks, threads) else { continue };
            let model = fitted.models.iter().find(|(name, _)| *name == how);
            let model = model.map(|(_, model)| model.step(shape, ranks, rate));
            let communicates = matches!(how, "exact" | "fast");
            let of_ranks = |seconds: f64| if communicates { micros(seconds) } else { "–".to_owned() };
            table.push(vec![
                short(&shape.0, shape.1),
                format!("{ranks} × {threads}"),
                how.to_owned(),
                micros(found.step),
                of_ranks(found.waiting),
                of_ranks(found.moving),
                model.map_or("–".to_owned(), micros),
                model.map_or("–".to_owned(), |model| format!("{:.2}", found.step / model)),
                format!("{:.2}", two / found.step),
            ]);
        }
    }
    Table { rows: table, header: header.map(str::to_owned).to_vec() }
}

/// How many ranks can share one batch with profit.
pub(crate) fn predictions(rows: &[Row]) -> Table {
    let fitted = Fitted::new(rows);
    let header = ["network", "how", "between machines", "half of linear up to", "fastest with"];
    let mut table = Vec::new();
    for shape in &fitted.shapes {
        for (how, _) in fitted.models {
            for (name, bandwidth, latency, _) in NETWORKS {
                let found = best(&fitted, shape, how == "exact", (bandwidth, latency));
                let [half, fastest] = found.map(|(ranks, speedup)| format!("{ranks} ranks: {speedup:.1} ×"));
                table.push(vec![short(&shape.0, shape.1), how.to_owned(), name.to_owned(), half, fastest]);
            }
        }
    }
    Table { rows: table, header: header.map(str::to_owned).to_vec() }
}
