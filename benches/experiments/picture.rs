//! The lecture's picture.
//!
//! Claimed: a small batch ends in a wide valley, a large one in a narrow one, and the test loss
//! lies shifted against the training loss (the lecture's drawing; Keskar et al. 2017, figure 3).
//! Varied: the place, θ(α) = (1 − α) θ_small + α θ_large with α from −1 to 2; and around each
//! solution the plane of two random directions, scaled to the network's weights neuron by neuron
//! (Li et al. 2018).
//! Held fixed: data, network, cross-entropy, η, the initialisation of a pair, and the training loss
//! at which both stopped.
//! Data: 1437 digits to train on, 360 to test on; f64; 64-32-32-10; B = 8 and B = n. Seeds 0, 1, 2
//! for the line, 0 for the planes.

use gemmprop::curvature::sharpness::{Landscape, filter_normalised};
use gemmprop::{Dataset, Mlp, Parameters, SoftmaxCrossEntropy};
use serde::{Deserialize, Serialize};

use crate::run::{End, Recipe, Run, Set, Stop, digits, error_rate, in_parallel, lambda_max, mean, mean_loss, network};
use crate::{Context, Outcome};
use report::page::Entry;
use report::plot::{Axis, Figure, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::results::Results;

const ETA: f64 = 0.1;
const SMALL: usize = 8;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LinePoint {
    seed: u64,
    alpha: f64,
    train_loss: f64,
    test_loss: f64,
    train_error: f64,
    test_error: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PlanePoint {
    batch: usize,
    alpha: f64,
    beta: f64,
    train_loss: f64,
}

pub(crate) fn experiment(context: &mut Context) -> Outcome {
    let (mut train, test) = digits();
    let quick = context.quick;
    if quick {
        train = train.first(300);
    }
    let stop = if quick { Stop { loss: 0.1, steps: 3000 } } else { Stop { loss: 0.01, steps: 60_000 } };
    let n = train.len();
    let seeds = if quick { 1 } else { 3 };
    let jobs: Vec<(usize, u64)> =
        [n, SMALL].iter().flat_map(|&batch| (0..seeds).map(move |seed| (batch, seed))).collect();
    let loss = SoftmaxCrossEntropy;
    let nets: Vec<(Mlp<f64>, bool)> = in_parallel(
        "picture",
        &jobs,
        |(batch, seed)| format!("B {batch}, seed {seed}"),
        |&(batch, seed)| {
            let mut run = Run::new(network(seed), loss, &Recipe::sgd(ETA, batch, seed), n);
            let end = run.until(train.x.view(), train.rows(), &stop);
            (run.mlp().clone(), end == End::Reached)
        },
    );
    let reached = nets.iter().all(|(_, reached)| *reached);
    let pairs: Vec<(u64, &Mlp<f64>, &Mlp<f64>)> =
        (0..seeds).map(|seed| (seed, &nets[(seeds + seed) as usize].0, &nets[seed as usize].0)).collect();

    let line: Vec<LinePoint> =
        in_parallel("line", &pairs, |(seed, ..)| format!("seed {seed}"), |pair| along(pair, &train, &test)).concat();
    let about = format!(
        "{n} of smartcore's digits, 360 others as the test set; network 64-32-32-10 with a constant on every layer, He initialisation, softmax \
         cross-entropy, plain SGD with η = {ETA}, f64, stopped at training loss {}{}. The small batch: {SMALL}; the large one: all {n}.",
        stop.loss,
        if reached { "" } else { " (not all got there)" }
    );
    let pairs_text =
        format!("Pairs from the same initialisation: {seeds}; their mean, in a band from the least to the greatest.");
    context.keep("interpolation", &line, &format!("{about} {pairs_text}"))?;

    let ends = [(SMALL, pairs[0].1), (n, pairs[0].2)];
    let half = if quick { 4 } else { 15 };
    let grid: Vec<f64> = (-half..=half).map(|i| f64::from(i) / f64::from(half)).collect();
    let plane: Vec<PlanePoint> = in_parallel(
        "landscape",
        &ends,
        |(batch, _)| format!("B {batch}"),
        |&(batch, mlp)| {
            // The same random numbers for both.
            let [d, e] = [100, 101].map(|seed| {
                let random = Mlp::from_weights(mlp.widths(), mlp.bias(), seed, |_, _, generator| normal(generator));
                filter_normalised(random.expect("valid widths").parameters(), mlp).expect("a direction of this network")
            });
            let mut landscape =
                Landscape::new(mlp, Dataset::new(train.x.view(), train.rows()), &loss).expect("valid data");
            let losses = landscape.plane([&d, &e], &grid, &grid).expect("directions of this network");
            let point = |((i, j), &train_loss)| PlanePoint { batch, alpha: grid[i], beta: grid[j], train_loss };
            losses.indexed_iter().map(point).collect::<Vec<_>>()
        },
    )
    .concat();
    let sharp =
        ends.map(|(batch, mlp)| format!("B = {batch}: {:.2}", lambda_max(mlp, train.x.view(), train.rows(), &loss)));
    context.keep("landscape", &plane, &format!("{about} Seed 0. λmax(H): {}.", sharp.join(", ")))
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let facts = results.facts(name);
    let figure = if name == "interpolation" {
        line_figure(&results.read(name)?, facts)
    } else {
        plane_figure(&results.read(name)?, facts)
    };
    Ok(Entry { figure, tables: vec![] })
}

/// A normal number by the method of Box and Muller, from the crate's generator.
fn normal(generator: &mut gemmprop::Generator) -> f64 {
    use rand::RngExt;
    let (a, b): (f64, f64) = (generator.random(), generator.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn along((seed, small, large): &(u64, &Mlp<f64>, &Mlp<f64>), train: &Set<f64>, test: &Set<f64>) -> Vec<LinePoint> {
    let point = |i: i32| {
        let alpha = f64::from(i) / 20.0;
        let mut mlp = (*small).clone();
        let (from, to): (&Parameters<f64>, &Parameters<f64>) = (small.parameters(), large.parameters());
        let numbers = from.iter().zip(to.iter());
        mlp.parameters_mut().iter_mut().zip(numbers).for_each(|(p, (a, b))| *p = (1.0 - alpha) * a + alpha * b);
        LinePoint {
            seed: *seed,
            alpha,
            train_loss: mean_loss(&mlp, train.x.view(), train.rows(), &SoftmaxCrossEntropy),
            test_loss: mean_loss(&mlp, test.x.view(), test.rows(), &SoftmaxCrossEntropy),
            train_error: error_rate(&mlp, train),
            test_error: error_rate(&mlp, test),
        }
    };
    (-20..=40).map(point).collect()
}

fn line_figure(points: &[LinePoint], facts: &str) -> Figure {
    let curve = |label: &str, colour, stroke, value: fn(&LinePoint) -> f64| {
        let mut points: Vec<(f64, f64)> = points.iter().map(|point| (point.alpha, value(point))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut series = Series { label: label.to_owned(), colour, stroke, ..Series::default() };
        for same in points.chunk_by(|a, b| a.0 == b.0) {
            let values = same.iter().map(|p| p.1);
            let (least, most) = values.clone().fold((f64::INFINITY, 0.0_f64), |(a, b), x| (a.min(x), b.max(x)));
            series.line.push((same[0].0, mean(values)));
            series.band.push((same[0].0, least, most));
        }
        series
    };
    let x = || Axis { label: "α (0: small batch, 1: full batch)", scale: Scale::Linear };
    Figure {
        name: "interpolation",
        title: "Along the line from a small batch's solution to that of the full batch".to_owned(),
        panels: vec![
            Panel {
                title: "Loss".to_owned(),
                x: x(),
                y: Axis { label: "mean cross-entropy (nats)", scale: Scale::Log },
                series: vec![
                    curve("training", colour::BLUE, Stroke::Solid, |p| p.train_loss),
                    curve("test", colour::VERMILION, Stroke::Dashed, |p| p.test_loss),
                ],
            },
            Panel {
                title: "Error".to_owned(),
                x: x(),
                y: Axis { label: "share of samples classified wrongly", scale: Scale::Linear },
                series: vec![
                    curve("training", colour::BLUE, Stroke::Solid, |p| p.train_error),
                    curve("test", colour::VERMILION, Stroke::Dashed, |p| p.test_error),
                ],
            },
        ],
        caption: facts.to_owned(),
    }
}

/// Upper edges of the levels, and their colours, from dark to light (viridis).
const LEVELS: [(f64, RGBColor); 7] = [
    (0.02, RGBColor(0x44, 0x01, 0x54)),
    (0.05, RGBColor(0x44, 0x3a, 0x83)),
    (0.1, RGBColor(0x31, 0x68, 0x8e)),
    (0.3, RGBColor(0x21, 0x90, 0x8d)),
    (1.0, RGBColor(0x35, 0xb7, 0x79)),
    (3.0, RGBColor(0x8f, 0xd7, 0x44)),
    (f64::INFINITY, RGBColor(0xfd, 0xe7, 0x25)),
];

fn plane_figure(points: &[PlanePoint], facts: &str) -> Figure {
    let mut batches: Vec<usize> = points.iter().map(|point| point.batch).collect();
    batches.dedup();
    // The grid goes from −1 to 1 on both axes.
    let half = ((points.len() / batches.len()) as f64).sqrt() / 2.0 - 0.5;
    let step = 1.0 / half;
    let panel = |&batch: &usize| {
        let mut least = 0.0;
        let levels = LEVELS.map(|(most, colour)| {
            let on_level = |p: &&PlanePoint| p.train_loss >= least && p.train_loss < most;
            let any = points.iter().any(|p| on_level(&p));
            let inside = |p: &&PlanePoint| p.batch == batch && on_level(p);
            let cell = |p: &PlanePoint| {
                let h = step / 2.0;
                [(p.alpha - h, p.beta - h), (p.alpha + h, p.beta + h)]
            };
            let cells: Vec<_> = points.iter().filter(inside).map(cell).collect();
            let label = if most.is_finite() { format!("below {most}") } else { "more".to_owned() };
            least = most;
            any.then(|| Series { label, colour, cells, ..Series::default() })
        });
        Panel {
            title: format!("Training loss around B = {batch}"),
            x: Axis { label: "α, first direction", scale: Scale::Linear },
            y: Axis { label: "β, second direction", scale: Scale::Linear },
            series: levels.into_iter().flatten().collect(),
        }
    };
    Figure {
        name: "landscape",
        title: "The training loss around two solutions".to_owned(),
        panels: batches.iter().map(panel).collect(),
        caption: format!(
            "Loss in nats at θ + α d + β e: d and e random, the same numbers for both, and scaled so that each neuron's weights have the norm of the \
             network's own and its constant (constants stay). {facts}"
        ),
    }
}
