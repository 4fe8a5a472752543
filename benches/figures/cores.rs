//! A native step on more cores than the machine has: each tile is timed alone, and the schedule is
//! simulated.

use std::collections::BinaryHeap;
use std::time::Instant;

use gemmprop::{Bias, Mlp, PhaseTimes, Products, Sgd, SquaredError, tile_times};
use ndarray::{Array2, s};
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

use crate::step::short;
use report::page::Table;
use report::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};
use report::progress::Progress;

/// A shape on a number of workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    widths: String,
    batch: usize,
    workers: usize,
    /// The largest number of tiles of a phase.
    tiles: usize,
    /// The times of all tiles together.
    work_seconds: f64,
    /// A step by the simulation.
    step_seconds: f64,
    /// The simulated time of a step on one worker ÷ that on these.
    speedup: f64,
    /// A step of the fastest epoch, where the machine has that many cores.
    measured_seconds: Option<f64>,
}

const SHAPES: [(&[usize], usize); 4] = [
    (&[64, 256, 256, 1], 64),
    (&[784, 512, 512, 1], 128),
    (&[1024, 1024, 1024, 1024, 1], 256),
    (&[2048, 2048, 2048, 2048, 1], 512),
];

const WORKERS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// Up to so many workers, a step is measured as well.
const MEASURED: usize = 2;

/// The time of a phase. A worker that is free takes the next tile, the caller (worker 0) from the
/// front and the others from the back, as `parallel/fork_join.rs` has it.
fn phase_seconds(seconds: &[f64], workers: usize) -> f64 {
    // The heap gives the largest first: who is free earliest has the largest negative time.
    let mut free: BinaryHeap<Free> = (0..workers.min(seconds.len())).map(|worker| Free { at: 0.0, worker }).collect();
    let (mut front, mut back, mut end) = (0, seconds.len(), 0.0_f64);
    while front < back {
        let Free { at, worker } = free.pop().expect("there is a worker");
        let tile = if worker == 0 { front } else { back - 1 };
        (front, back) = if worker == 0 { (front + 1, back) } else { (front, back - 1) };
        let at = at + seconds[tile];
        end = end.max(at);
        free.push(Free { at, worker });
    }
    end
}

/// When a worker is free. The greatest is the earliest.
#[derive(Debug, PartialEq)]
struct Free {
    at: f64,
    worker: usize,
}

impl Eq for Free {}

impl PartialOrd for Free {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Free {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.total_cmp(&self.at).then(other.worker.cmp(&self.worker))
    }
}

fn step_seconds(phases: &[PhaseTimes], workers: usize) -> f64 {
    phases.iter().map(|phase| phase_seconds(&phase.seconds, workers)).sum()
}

pub(crate) fn measure(quick: bool) -> Vec<Row> {
    let shapes = if quick { &SHAPES[..2] } else { &SHAPES[..] };
    let progress = Progress::new("cores", shapes.len());
    let mut rows = Vec::new();
    for &(widths, batch) in shapes {
        let name = widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
        progress.begin(short(&name, batch));
        rows.extend(of_shape(widths, batch, &name, quick));
        progress.end();
    }
    rows
}

fn of_shape(widths: &[usize], batch: usize, name: &str, quick: bool) -> Vec<Row> {
    let edges: usize = widths.windows(2).map(|d| d[0] * d[1]).sum();
    // A measurement is 0.2 s of steps at 100 GFLOP/s (quick: 0.02), in epochs of a tenth of that,
    // but long enough for the copies of θ before and after.
    let steps = (if quick { 2e9 } else { 2e10 }) / (6 * batch * edges) as f64;
    let batches = ((steps / 10.0) as usize).clamp(8, 32);
    let epochs = (steps as usize / batches).clamp(3, 100);
    let x = Array2::from_shape_fn((batches * batch, widths[0]), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    let y = Array2::from_shape_fn((x.nrows(), 1), |(i, _)| (i % 3) as f32 - 1.0);
    let mlp = Mlp::<f32>::he(widths, Bias::Input, 1).and_then(|mlp| mlp.with_products(Products::Native));
    let mlp = mlp.expect("valid widths");
    let mut measured = [f64::INFINITY; MEASURED];
    let mut simulated: Vec<Option<Vec<PhaseTimes>>> = vec![None; WORKERS.len()];
    // The measurements take turns, so that what disturbs the machine disturbs all of them. What it
    // disturbs least counts: a tile that was interrupted would hold up a whole phase of many
    // workers.
    for _ in 0..if quick { 2 } else { 5 } {
        for (threads, measured) in (1..).zip(&mut measured) {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let (mut trained, mut sgd) = (mlp.clone(), Sgd::new(batch, 1e-9, 1).expect("valid"));
            for _ in 0..epochs {
                let start = Instant::now();
                let trained = pool.install(|| sgd.train(&mut trained, x.view(), y.view(), &SquaredError, 1));
                trained.expect("a finite loss");
                *measured = measured.min(start.elapsed().as_secs_f64() / batches as f64);
            }
        }
        for (&workers, shortest) in WORKERS.iter().zip(&mut simulated) {
            let of_batch = s![..batch, ..];
            let of_batch = (x.slice(of_batch), y.slice(of_batch));
            let rounds = (steps as usize / WORKERS.len()).clamp(2, 200);
            let found = tile_times(&mlp, of_batch, &SquaredError, workers, rounds).expect("it fits");
            match shortest {
                None => *shortest = Some(found),
                Some(shortest) => shortest.iter_mut().zip(found).for_each(|(shortest, found)| {
                    let tiles = shortest.seconds.iter_mut().zip(found.seconds);
                    tiles.for_each(|(shortest, found)| *shortest = shortest.min(found));
                }),
            }
        }
    }
    let simulated: Vec<Vec<PhaseTimes>> = simulated.into_iter().flatten().collect();
    let alone = step_seconds(&simulated[0], 1);
    let row = |(&workers, phases): (&usize, &Vec<PhaseTimes>)| {
        let seconds = step_seconds(phases, workers);
        Row {
            widths: name.to_owned(),
            batch,
            workers,
            tiles: phases.iter().map(|phase| phase.seconds.len()).max().unwrap_or(0),
            work_seconds: step_seconds(phases, 1),
            step_seconds: seconds,
            speedup: alone / seconds,
            measured_seconds: measured.get(workers - 1).copied(),
        }
    };
    WORKERS.iter().zip(&simulated).map(row).collect()
}

/// The speed-up against the workers.
pub(crate) fn figure(rows: &[Row], facts: &str) -> Figure {
    let mut shapes: Vec<(&str, usize)> = rows.iter().map(|row| (row.widths.as_str(), row.batch)).collect();
    shapes.dedup();
    let looks = [
        (colour::GREEN, Marker::Square),
        (colour::PURPLE, Marker::Cross),
        (colour::BLUE, Marker::Circle),
        (colour::VERMILION, Marker::Diamond),
    ];
    let linear = |factor: f64| [1.0, 64.0].map(|n| (n, n * factor)).to_vec();
    let mut series = vec![
        Series { label: "linear".to_owned(), colour: colour::GREY, line: linear(1.0), ..Series::default() },
        Series {
            label: "0.85 of linear".to_owned(),
            colour: colour::GREY,
            stroke: Stroke::Dashed,
            line: linear(0.85),
            ..Series::default()
        },
    ];
    for (&(widths, batch), (colour, marker)) in shapes.iter().zip(looks) {
        let of = rows.iter().filter(|row| (row.widths.as_str(), row.batch) == (widths, batch));
        let line: Vec<_> = of.clone().map(|row| (row.workers as f64, row.speedup)).collect();
        let label = short(widths, batch);
        series.push(Series { label, colour, marker, marks: line.clone(), line, ..Series::default() });
    }
    let mut measured = Series { label: "measured".to_owned(), marker: Marker::Plus, ..Series::default() };
    for row in rows {
        let alone = rows.iter().find(|one| one.workers == 1 && (&one.widths, one.batch) == (&row.widths, row.batch));
        if let (Some(seconds), Some(alone)) = (row.measured_seconds, alone.and_then(|row| row.measured_seconds)) {
            measured.marks.push((row.workers as f64, alone / seconds));
        }
    }
    series.push(measured);
    Figure {
        name: "cores",
        title: "A native step on more cores".to_owned(),
        panels: vec![Panel {
            title: "Speed-up, simulated from the time of each tile alone".to_owned(),
            x: Axis { label: "cores", scale: Scale::Log },
            y: Axis { label: "time on one core ÷ time on as many", scale: Scale::Log },
            series,
        }],
        caption: format!(
            "f32, plain SGD, in the tiles that a step has with so many threads, each timed alone on one core: the shortest of many \
             times. The simulation gives a free core the next tile and waits at the end of each phase. It leaves out that cores \
             share the memory's bandwidth and the last cache, that their clocks fall when all compute, and what it costs to hand \
             over a tile. {facts}"
        ),
    }
}

/// The simulation beside what was measured, and at 16 and 64 workers.
pub(crate) fn table(rows: &[Row]) -> Table {
    let header = [
        "widths",
        "batch",
        "1: simulated",
        "measured",
        "2: simulated",
        "measured",
        "speed-up at 16",
        "at 64",
        "tiles at 64",
    ];
    let micros = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
    let alone = rows.iter().filter(|row| row.workers == 1);
    let table = alone.map(|one| {
        let with = |workers: usize| {
            let same = |row: &&Row| row.workers == workers && (&row.widths, row.batch) == (&one.widths, one.batch);
            rows.iter().find(same).expect("all numbers of workers are simulated")
        };
        let measured = |row: &Row| row.measured_seconds.map_or("–".to_owned(), micros);
        vec![
            one.widths.clone(),
            one.batch.to_string(),
            micros(one.step_seconds),
            measured(one),
            micros(with(2).step_seconds),
            measured(with(2)),
            format!("{:.1}", with(16).speedup),
            format!("{:.1}", with(64).speedup),
            with(64).tiles.to_string(),
        ]
    });
    Table { rows: table.collect(), header: header.map(str::to_owned).to_vec() }
}
