//! Edge of stability.
//!
//! Claimed: full-batch descent with learning rate η can only stay where λmax(H) ≤ 2/η, so a larger
//! η ends in a flatter minimum (Wu, Ma and E 2018), and λmax is driven up to that bound (Cohen et
//! al. 2021).
//! Varied: η, and the seed of the initialisation.
//! Held fixed: data, network, loss (½ ‖ŷ − y‖² on one-hot targets), the training loss at which to
//! stop, the largest number of steps.
//! Data: the first 200 digits; f64; 64-32-32-10. Seeds 0, 1, 2. Its 3466 parameters are more than
//! the 2000 numbers to fit, so that there are minima of loss 0, which the claim is about.

use gemmprop::SquaredError;
use serde::{Deserialize, Serialize};

use crate::run::{End, Recipe, Run, Stop, digits, in_parallel, lambda_max, mean_loss, network};
use crate::{Context, Outcome};
use report::page::{Entry, Table};
use report::plot::{Axis, Figure, Marker, Panel, Scale, Series, Stroke, colour};
use report::results::Results;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    eta: f64,
    two_over_eta: f64,
    lambda_max: Option<f64>,
    train_loss: Option<f64>,
    steps: u64,
    converged: bool,
    seed: u64,
    /// Before the first step.
    lambda_max_at_start: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Moment {
    eta: f64,
    two_over_eta: f64,
    step: u64,
    lambda_max: f64,
    train_loss: f64,
}

/// η and λmax as Wu, Ma and E 2018 found them (their table 1, FashionMNIST), with another network
/// on other data and PyTorch's mean squared error, which is a fifth of ½ ‖ŷ − y‖² for ten outputs:
/// η is as much larger.
const REFERENCE: [(f64, f64); 4] = [(0.01, 53.5), (0.05, 39.3), (0.1, 19.6), (0.5, 3.9)];

pub(crate) fn experiment(context: &mut Context) -> Outcome {
    let quick = context.quick;
    let data = digits().0.first(200);
    let y = data.one_hot();
    let stop = if quick { Stop { loss: 0.02, steps: 1000 } } else { Stop { loss: 1e-3, steps: 100_000 } };
    let etas: &[f64] =
        if quick { &[0.05, 0.2, 1.0] } else { &[0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0] };
    let seeds = if quick { 1 } else { 3 };
    let jobs: Vec<(f64, u64)> = etas.iter().flat_map(|&eta| (0..seeds).map(move |seed| (eta, seed))).collect();
    let start_run = |eta, seed| Run::new(network(seed), SquaredError, &Recipe::sgd(eta, data.len(), seed), data.len());
    let sharp = |run: &Run<f64, SquaredError>| lambda_max(run.mlp(), data.x.view(), y.view(), &SquaredError);
    let loss = |run: &Run<f64, SquaredError>| mean_loss(run.mlp(), data.x.view(), y.view(), &SquaredError);

    let rows: Vec<Row> = in_parallel(
        "edge",
        &jobs,
        |(eta, seed)| format!("η {eta}, seed {seed}"),
        |&(eta, seed)| {
            let mut run = start_run(eta, seed);
            let lambda_max_at_start = sharp(&run);
            let end = run.until(data.x.view(), y.view(), &stop);
            let there = end != End::Diverged;
            Row {
                eta,
                two_over_eta: 2.0 / eta,
                lambda_max: there.then(|| sharp(&run)),
                train_loss: there.then(|| loss(&run)),
                steps: run.steps(),
                converged: end == End::Reached,
                seed,
                lambda_max_at_start,
            }
        },
    );
    let about = format!(
        "Full-batch gradient descent on the first {} of smartcore's digits; network 64-32-32-10 with a constant on every layer, He initialisation, \
         mean of ½ ‖ŷ − y‖² on one-hot targets, f64.",
        data.len()
    );
    let stops = format!("Stopped at a training loss of {}, or after {} steps. Seeds: {seeds}.", stop.loss, stop.steps);
    context.keep("edge_of_stability", &rows, &format!("{about} {stops}"))?;

    let courses = if quick { [0.1, 0.2, 0.4] } else { [0.1, 0.2, 0.3] };
    let (last, every) = if quick { (400, 40) } else { (20_000, 200) };
    let moments: Vec<Moment> = in_parallel(
        "course",
        &courses,
        |eta| format!("η {eta}"),
        |&eta| {
            let (mut run, mut moments) = (start_run(eta, 0), Vec::new());
            loop {
                let (step, two_over_eta) = (run.steps(), 2.0 / eta);
                moments.push(Moment { eta, two_over_eta, step, lambda_max: sharp(&run), train_loss: loss(&run) });
                let next = Stop { loss: 0.0, steps: step + every };
                if step >= last || run.until(data.x.view(), y.view(), &next) == End::Diverged {
                    return moments;
                }
            }
        },
    )
    .concat();
    context.keep("edge_of_stability_course", &moments, &format!("{about} Seed 0."))
}

pub(crate) fn entry(results: &Results, name: &str) -> Outcome<Entry> {
    let facts = results.facts(name);
    if name == "edge_of_stability_course" {
        return Ok(Entry { figure: course_figure(&results.read(name)?, facts), tables: vec![] });
    }
    let rows = results.read(name)?;
    Ok(Entry { figure: figure(&rows, facts), tables: vec![table(&rows)] })
}

fn figure(rows: &[Row], facts: &str) -> Figure {
    let points = |converged: bool| {
        let those = rows.iter().filter(move |row| row.converged == converged);
        those.filter_map(|row| Some((row.eta, row.lambda_max?))).collect::<Vec<_>>()
    };
    let bound = rows.iter().map(|row| (row.eta, row.two_over_eta)).collect();
    let diverged: Vec<String> = rows
        .iter()
        .filter(|row| row.lambda_max.is_none())
        .map(|row| format!("{} (seed {})", row.eta, row.seed))
        .collect();
    let starts = rows.iter().map(|row| row.lambda_max_at_start);
    let (least, most) = starts.fold((f64::INFINITY, 0.0_f64), |(a, b), x| (a.min(x), b.max(x)));
    Figure {
        name: "edge_of_stability",
        title: "Full-batch descent: sharpness at the end, against 2/η".to_owned(),
        panels: vec![Panel {
            title: "Where descent ended".to_owned(),
            x: Axis { label: "learning rate η", scale: Scale::Log },
            y: Axis { label: "λmax of the Hessian of the training loss", scale: Scale::Log },
            series: vec![
                Series {
                    label: "2/η".to_owned(),
                    colour: colour::GREY,
                    stroke: Stroke::Dashed,
                    line: bound,
                    ..Series::default()
                },
                Series {
                    label: "reached the training loss asked for".to_owned(),
                    colour: colour::BLUE,
                    marker: Marker::Circle,
                    marks: points(true),
                    ..Series::default()
                },
                Series {
                    label: "not there after the last step".to_owned(),
                    colour: colour::ORANGE,
                    marker: Marker::Cross,
                    marks: points(false),
                    ..Series::default()
                },
                Series {
                    label: "Wu, Ma & E 2018, other data, network and loss".to_owned(),
                    colour: colour::PURPLE,
                    marker: Marker::Diamond,
                    marks: REFERENCE.to_vec(),
                    ..Series::default()
                },
            ],
        }],
        caption: format!(
            "A mark for each run. λmax by Lanczos to five digits; before the first step it is {least:.1} to {most:.1}. Diverged: {}. {facts}",
            if diverged.is_empty() { "none".to_owned() } else { format!("η = {}", diverged.join(", ")) }
        ),
    }
}

fn course_figure(moments: &[Moment], facts: &str) -> Figure {
    let colours = [colour::BLUE, colour::GREEN, colour::VERMILION];
    let mut etas: Vec<f64> = moments.iter().map(|moment| moment.eta).collect();
    etas.dedup();
    let mut curves = Vec::new();
    let mut losses = Vec::new();
    for (&eta, colour) in etas.iter().zip(colours) {
        let of: Vec<&Moment> = moments.iter().filter(|moment| moment.eta == eta).collect();
        let line = |value: fn(&Moment) -> f64| of.iter().map(|moment| (moment.step as f64, value(moment))).collect();
        curves.push(Series { label: format!("η = {eta}"), colour, line: line(|m| m.lambda_max), ..Series::default() });
        curves.push(Series {
            label: format!("2/η = {:.1}", 2.0 / eta),
            colour,
            stroke: Stroke::Dashed,
            line: line(|m| m.two_over_eta),
            ..Series::default()
        });
        losses.push(Series { label: format!("η = {eta}"), colour, line: line(|m| m.train_loss), ..Series::default() });
    }
    let steps = || Axis { label: "steps", scale: Scale::Linear };
    Figure {
        name: "edge_of_stability_course",
        title: "Full-batch descent: sharpness on the way, against 2/η".to_owned(),
        panels: vec![
            Panel {
                title: "Sharpness".to_owned(),
                x: steps(),
                y: Axis { label: "λmax of the Hessian of the training loss", scale: Scale::Log },
                series: curves,
            },
            Panel {
                title: "Training loss".to_owned(),
                x: steps(),
                y: Axis { label: "mean of ½ ‖ŷ − y‖²", scale: Scale::Log },
                series: losses,
            },
        ],
        caption: facts.to_owned(),
    }
}

fn table(rows: &[Row]) -> Table {
    let header = ["full-batch descent: η", "seed", "2/η", "λmax", "λmax · η/2", "training loss", "steps", "converged"];
    let number = |value: Option<f64>, digits: usize| value.map_or("diverged".to_owned(), |v| format!("{v:.digits$}"));
    let row = |row: &Row| {
        vec![
            row.eta.to_string(),
            row.seed.to_string(),
            format!("{:.2}", row.two_over_eta),
            number(row.lambda_max, 2),
            number(row.lambda_max.map(|l| l / row.two_over_eta), 3),
            number(row.train_loss, 5),
            row.steps.to_string(),
            row.converged.to_string(),
        ]
    };
    Table { header: header.map(str::to_owned).to_vec(), rows: rows.iter().map(row).collect() }
}
