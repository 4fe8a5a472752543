//! Time and multiplications of the four rungs against the size of the graph.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gemmprop::rungs::count::{Counted, multiplications};
use serde::{Deserialize, Serialize};

use crate::fit::Line;
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::progress::Progress;
use rungs::{BATCH, Rung, assert_agreement, equal_widths, integers};

/// How much is measured.
pub(crate) struct Plan {
    widths: &'static [usize],
    /// Above this width the naive rung takes too long.
    widest_naive: usize,
    /// Measurements of a point, or 3 where a call takes over a second; the median counts.
    measurements: usize,
    /// Each measurement repeats its call for at least this long.
    duration: Duration,
}

pub(crate) const FULL: Plan = Plan {
    widths: &[6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512],
    widest_naive: 128,
    measurements: 7,
    duration: Duration::from_millis(30),
};

pub(crate) const QUICK: Plan = Plan {
    widths: &[6, 16, 48, 128, 256, 512],
    widest_naive: 128,
    measurements: 3,
    duration: Duration::from_millis(10),
};

/// One rung at one width.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Point {
    method: Rung,
    widths: String,
    edges: usize,
    nodes: usize,
    batch: usize,
    /// Per sample.
    multiplications: u64,
    /// Per sample.
    seconds: f64,
}

impl Point {
    /// The width of the hidden layers.
    fn n(&self) -> usize {
        self.widths.split('-').next().and_then(|n| n.parse().ok()).expect("widths")
    }
}

/// How many times as fast as the naive rung.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Speedup {
    method: Rung,
    widths: String,
    edges: usize,
    nodes: usize,
    speedup: f64,
}

/// Edges and nodes of the graph: what everything is plotted against.
trait OnGraph {
    fn size(&self) -> f64;
}

impl OnGraph for Point {
    fn size(&self) -> f64 {
        (self.edges + self.nodes) as f64
    }
}

impl OnGraph for Speedup {
    fn size(&self) -> f64 {
        (self.edges + self.nodes) as f64
    }
}

/// Times and counts every rung at every width.
pub(crate) fn measure(plan: &Plan) -> Vec<Point> {
    let rungs = |n: usize| if n <= plan.widest_naive { &Rung::ALL[..] } else { &Rung::ALL[1..] };
    let progress = Progress::new("complexity", plan.widths.iter().map(|&n| rungs(n).len() + 1).sum());
    let mut points = Vec::new();
    for &n in plan.widths {
        let widths = equal_widths(n);
        let named = widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
        let (mlp, x) = integers::<f32>(&widths);
        let (edges, nodes) = mlp.graph_size();
        progress.begin(format!("{named}: do all rungs agree?"));
        assert_agreement(rungs(n), &mlp, x.view());
        progress.end();
        let mut g = mlp.zero_gradient();
        for &rung in rungs(n) {
            progress.begin(format!("{named}: {}", rung.name()));
            let seconds = median_seconds(plan, || rung.gradient(&mlp, x.view(), black_box(&mut g)));
            let count = count(rung, &widths);
            let batch = rung.batch();
            assert_eq!(count % batch as u64, 0, "each sample costs the same");
            points.push(Point {
                method: rung,
                widths: named.clone(),
                edges,
                nodes,
                batch,
                multiplications: count / batch as u64,
                seconds: seconds / batch as f64,
            });
            progress.end();
        }
    }
    points
}

/// Multiplications of one call, counted while the timed code runs.
fn count(rung: Rung, widths: &[usize]) -> u64 {
    let (mlp, x) = integers::<Counted>(widths);
    let mut g = mlp.zero_gradient();
    multiplications(|| rung.gradient(&mlp, x.view(), &mut g)).1
}

/// Median time of one call.
fn median_seconds(plan: &Plan, mut call: impl FnMut()) -> f64 {
    let mut calls = 1_u32;
    let mut time = |calls: u32| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed()
    };
    // Until a measurement is long enough: that one is the first.
    let first = loop {
        let elapsed = time(calls);
        if elapsed >= plan.duration {
            break elapsed;
        }
        // Straight to the number needed, but not by a factor that one hiccup could spoil.
        let factor = plan.duration.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        calls = (f64::from(calls) * factor.clamp(1.3, 8.0)).ceil() as u32;
    };
    let measurements = if first > Duration::from_secs(1) { 3 } else { plan.measurements };
    let measured = std::iter::once(first).chain((1..measurements).map(|_| time(calls)));
    let mut seconds: Vec<f64> = measured.map(|elapsed| elapsed.as_secs_f64() / f64::from(calls)).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// naive ÷ each other rung, where both were timed.
pub(crate) fn speedups(points: &[Point]) -> Vec<Speedup> {
    let naive = |widths: &str| points.iter().find(|point| point.method == Rung::Naive && point.widths == widths);
    let fast = points.iter().filter(|point| point.method != Rung::Naive);
    fast.filter_map(|point| {
        let &Point { method, edges, nodes, seconds, .. } = point;
        let speedup = naive(&point.widths)?.seconds / seconds;
        Some(Speedup { method, widths: point.widths.clone(), edges, nodes, speedup })
    })
    .collect()
}

/// A rung looks the same in all figures.
fn look(rung: Rung) -> (&'static str, RGBColor, Marker) {
    match rung {
        Rung::Naive => ("naive", colour::VERMILION, Marker::Diamond),
        Rung::PerNeuron => ("per neuron", colour::BLUE, Marker::Circle),
        Rung::MatrixVector => ("matrix–vector", colour::GREEN, Marker::Square),
        Rung::BatchedGemm => ("batched GEMM", colour::PURPLE, Marker::Cross),
    }
}

fn expected_slope(rung: Rung) -> f64 {
    if rung == Rung::Naive { 2.0 } else { 1.0 }
}

/// One quantity of a rung's points against the size of the graph, with its fit.
fn fitted(points: &[Point], rung: Rung, y: impl Fn(&Point) -> f64) -> (Vec<(f64, f64)>, Line) {
    let marks: Vec<_> = points.iter().filter(|p| p.method == rung).map(|p| (p.size(), y(p))).collect();
    let line = Line::through_logarithms(&marks);
    (marks, line)
}

const SIZE_AXIS: Axis = Axis { label: "edges + nodes of the graph", scale: Scale::Log };

/// One panel: the rungs with their fits, and guides of slopes 2 (above) and 1 (below).
fn panel(points: &[Point], title: &str, label: &'static str, y: impl Fn(&Point) -> f64) -> Panel {
    let mut series = Vec::new();
    let mut ends = Vec::new();
    for rung in Rung::ALL {
        let (marks, line) = fitted(points, rung, &y);
        let (name, colour, marker) = look(rung);
        let ends_of_line = [marks[0], marks[marks.len() - 1]];
        series.push(Series {
            label: format!("{name}: {line}"),
            colour,
            marker,
            line: ends_of_line.map(|(x, _)| (x, line.at(x))).to_vec(),
            marks,
            ..Series::default()
        });
        ends.push(ends_of_line);
    }
    let guide = |slope: f64, factor: f64, [(from, _), (to, y)]: [(f64, f64); 2]| Series {
        label: if slope == 2.0 { "guides: slopes 2 and 1".to_owned() } else { String::new() },
        colour: colour::GREY,
        stroke: Stroke::Dashed,
        line: [from, to].map(|x| (x, factor * y * (x / to).powf(slope))).to_vec(),
        ..Series::default()
    };
    series.push(guide(2.0, 4.0, ends[0]));
    series.push(guide(1.0, 0.25, ends[3]));
    Panel { title: title.to_owned(), x: SIZE_AXIS, y: Axis { label, scale: Scale::Log }, series }
}

/// The facts of the measurement that the points do not show.
pub(crate) fn about(plan: &Plan) -> String {
    format!("Each time is the median of {} measurements, or of 3 where a call takes over a second.", plan.measurements)
}

pub(crate) fn figure(points: &[Point], facts: &str) -> Figure {
    let widest = |rung| points.iter().filter(|p| p.method == rung).map(Point::n).max().unwrap_or(0);
    Figure {
        name: "complexity",
        title: "One gradient, four ways: what a sample costs".to_owned(),
        panels: vec![
            panel(points, "Time: slopes ± standard error", "seconds per sample", |p| p.seconds),
            panel(points, "Multiplications: slopes ± standard error", "multiplications per sample", |p| {
                p.multiplications as f64
            }),
        ],
        caption: format!(
            "∂ŷ/∂θ with its forward pass, networks n-n-n-n-n-1 with n = {} to {} (naive to {}), a constant 1 appended to the input. Time: \
             f32; batched GEMM: a batch of {BATCH}, over {BATCH}, and the only rung that uses more than one \
             thread. Multiplications: counted while the same code runs{}. Before timing, all rungs gave the same gradient \
             bit for bit, on networks of small integers where f32 is exact. Slopes: least squares over all points, ± one \
             standard error. Expected: naive 2, the others 1. {} {facts}",
            points[0].n(),
            widest(Rung::BatchedGemm),
            widest(Rung::Naive),
            if same_counts(points) { "; the three faster rungs make equally many" } else { "" },
            deviations(points),
        ),
    }
}

/// Whether all rungs but the naive one make equally many multiplications, so that their marks
/// coincide.
fn same_counts(points: &[Point]) -> bool {
    let mut fast = points.iter().filter(|p| p.method != Rung::Naive);
    fast.all(|p| {
        points.iter().all(|q| q.method == Rung::Naive || p.n() != q.n() || p.multiplications == q.multiplications)
    })
}

/// Graphs from this width on are large: the fixed costs of a call weigh little.
const LARGE: usize = 128;

/// Which slopes are not within 0.15 of the expected one; and what they are on large graphs alone.
fn deviations(points: &[Point]) -> String {
    let mut off = Vec::new();
    for rung in Rung::ALL {
        let (time, count) = slopes(points, rung);
        let large: Vec<_> = points.iter().filter(|p| p.n() >= LARGE).cloned().collect();
        let enough = large.iter().filter(|p| p.method == rung).count() > 2;
        let on_large = enough.then(|| slopes(&large, rung));
        for (quantity, line, on_large) in
            [("time", time, on_large.map(|l| l.0)), ("multiplications", count, on_large.map(|l| l.1))]
        {
            if (line.slope - expected_slope(rung)).abs() > 0.15 {
                let on_large = on_large.map_or(String::new(), |line| format!("; from n = {LARGE} on {line}"));
                off.push(format!("{} in {quantity} ({line}{on_large})", look(rung).0));
            }
        }
    }
    match off.len() {
        0 => "All are within 0.15 of that.".to_owned(),
        _ => format!("Not within 0.15 of that: {}.", off.join(", ")),
    }
}

/// The fitted slopes of time and of multiplications.
fn slopes(points: &[Point], rung: Rung) -> (Line, Line) {
    (fitted(points, rung, |p| p.seconds).1, fitted(points, rung, |p| p.multiplications as f64).1)
}

pub(crate) fn speedup_figure(speedups: &[Speedup], facts: &str) -> Figure {
    let series = Rung::ALL[1..].iter().map(|&rung| {
        let marks: Vec<_> = speedups.iter().filter(|s| s.method == rung).map(|s| (s.size(), s.speedup)).collect();
        let (name, colour, marker) = look(rung);
        let label = format!("naive ÷ {name}: {:.0} at the largest", marks[marks.len() - 1].1);
        Series { label, colour, marker, line: marks.clone(), marks, ..Series::default() }
    });
    Figure {
        name: "speedup",
        title: "How many times faster than the naive method".to_owned(),
        panels: vec![Panel {
            title: "Time of the naive rung ÷ time of another".to_owned(),
            x: SIZE_AXIS,
            y: Axis { label: "speed-up", scale: Scale::Log },
            series: series.collect(),
        }],
        caption: format!(
            "The times of the figure before, per sample, on the networks that the naive rung was timed on. f32; batched GEMM \
             in batches of {BATCH}. {facts}"
        ),
    }
}

/// The largest graph of each rung, its slopes, and the speed-up on the largest graph that the naive
/// rung was timed on.
pub(crate) fn table(points: &[Point], speedups: &[Speedup]) -> Table {
    let header =
        ["method", "largest graph", "time / sample", "mult. / sample", "slope, time", "slope, mult.", "naive ÷ it"];
    let rows = Rung::ALL.iter().map(|&rung| {
        let largest = points.iter().rfind(|p| p.method == rung).expect("every rung is timed");
        let (time, count) = slopes(points, rung);
        let speedup = speedups.iter().rfind(|s| s.method == rung);
        vec![
            rung.name().to_owned(),
            format!("{} ({} edges)", largest.widths, largest.edges),
            duration(largest.seconds),
            largest.multiplications.to_string(),
            time.to_string(),
            count.to_string(),
            speedup.map_or("1".to_owned(), |s| format!("{:.0} at {}", s.speedup, s.widths)),
        ]
    });
    Table { header: header.map(str::to_owned).to_vec(), rows: rows.collect() }
}

/// In the unit that leaves one to three digits before the point.
fn duration(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{seconds:.2} s"),
        1e-3.. => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.2} µs", seconds * 1e6),
    }
}
