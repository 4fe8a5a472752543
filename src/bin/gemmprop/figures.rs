//! What a run and its evaluation draw, and the history as a file.

use std::path::Path;

use gemmprop::History;
use ndarray::{Array2, ArrayView2};

use crate::arguments::Train;
use crate::message::{Result, say};
use crate::output::replace;
use crate::plot::{Axis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};
use crate::score::ClassQuality;
use crate::task::Task;

/// The history, if it was asked for.
pub(crate) fn write_history(history: &History, arguments: &Train) -> Result {
    let Some(path) = &arguments.history else { return Ok(()) };
    let json = path.extension().is_some_and(|ending| ending == "json");
    replace(path, if json { history.to_json() } else { history.to_csv() }.as_bytes())
}

/// The learning curve, if it was asked for.
pub(crate) fn write_plot(history: &History, arguments: &Train, task: &Task) -> Result {
    let Some(path) = &arguments.plot else { return Ok(()) };
    if history.records.is_empty() {
        say(format!("{}: not drawn, as no epoch is complete", path.display()));
        return Ok(());
    }
    let figure = learning_curve(history, task);
    draw(&figure, path)
}

fn draw(figure: &Figure, path: &Path) -> Result {
    if path.extension().is_some_and(|ending| ending == "png") {
        replace(path, &figure.png()?)
    } else {
        replace(path, figure.svg()?.as_bytes())
    }
}

fn learning_curve(history: &History, task: &Task) -> Figure {
    let training = history.records.iter().map(|record| (record.epoch as f64, record.loss)).collect();
    let validation = history.records.iter().filter_map(|record| Some((record.epoch as f64, record.validation_loss?)));
    let few = history.records.len() <= 40;
    let series = |label: &str, colour, marker, stroke, line: Vec<(f64, f64)>| {
        let marks = if few { line.clone() } else { Vec::new() };
        Series { label: label.to_owned(), colour, marker, marks, stroke, line, ..Series::default() }
    };
    let mut all = vec![
        series("training, mean over the epoch", colour::BLUE, Marker::Circle, Stroke::Solid, training),
        series("validation, after the epoch", colour::VERMILION, Marker::Diamond, Stroke::Dashed, validation.collect()),
    ];
    all.retain(|series| !series.line.is_empty());
    // The figure leaves out what is not finite.
    let points = || all.iter().flat_map(|series| &series.line);
    let positive = points().all(|&(_, loss)| loss > 0.0 || !loss.is_finite());
    let left_out = match points().filter(|(_, loss)| !loss.is_finite()).count() {
        0 => String::new(),
        1 => " 1 loss that is infinite or NaN is left out.".to_owned(),
        more => format!(" {more} losses that are infinite or NaN are left out."),
    };
    let of = task.target.as_ref().map_or(String::new(), |target| format!(" of {target:?}"));
    let units =
        if task.scale.is_empty() { "" } else { " The target is standardised: a loss of 0.5 is that of its mean." };
    Figure {
        name: "curve",
        title: "Learning curve".to_owned(),
        panels: vec![Panel {
            title: format!("{:?} loss{of}", task.loss),
            x: Axis { label: "epoch", scale: Scale::Whole },
            y: Axis { label: "loss", scale: if positive { Scale::Log } else { Scale::Linear } },
            series: all,
        }],
        caption: format!(
            "Mean loss of a sample. In training each batch is measured before its update, so the first epochs look worse than they end.{units}{left_out}"
        ),
    }
}

/// The most classes whose counts are written into the figure.
const MOST_COUNTED: usize = 20;

/// How often each class was taken for each other, in shades of the share of the class.
pub(crate) fn draw_confusion(path: &Path, task: &Task, quality: &ClassQuality) -> Result {
    let shade = |share: f64| {
        let mixed = |full: u8| (255.0 + (f64::from(full) - 255.0) * share).round() as u8;
        RGBColor(mixed(colour::BLUE.0), mixed(colour::BLUE.1), mixed(colour::BLUE.2))
    };
    let classes = quality.classes.len();
    let mut series = Vec::new();
    for (row, counts) in quality.confusion.iter().enumerate() {
        let of = quality.classes[row].samples.max(1) as f64;
        for (column, &count) in counts.iter().enumerate() {
            let ((x, y), share) = ((column as f64, row as f64), count as f64 / of);
            let words = vec![((x, y), count.to_string())];
            series.push(Series {
                colour: shade(share),
                cells: vec![[(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)]],
                ..Series::default()
            });
            let ink = if share > 0.5 { RGBColor(255, 255, 255) } else { RGBColor(0x22, 0x22, 0x22) };
            if classes <= MOST_COUNTED {
                series.push(Series { colour: ink, words, ..Series::default() });
            }
        }
    }
    let names = || Scale::Names(quality.classes.iter().map(|class| class.class.clone()).collect());
    let of = task.target.as_ref().map_or(String::new(), |target| format!(" of {target:?}"));
    let accuracy = quality.accuracy.value.map_or(String::new(), |accuracy| format!(" Accuracy {accuracy:.4}."));
    let figure = Figure {
        name: "confusion",
        title: "Confusion matrix".to_owned(),
        panels: vec![Panel {
            title: format!("Samples{of}"),
            x: Axis { label: "predicted", scale: names() },
            y: Axis { label: "true", scale: names() },
            series,
        }],
        caption: format!(
            "Number of samples of each class (rows) that were taken for each class (columns). The shade is the share of \
             the class, from none (white) to all.{accuracy}"
        ),
    };
    draw(&figure, path)
}

/// Predicted numbers over the true ones.
pub(crate) fn draw_numbers(path: &Path, task: &Task, y: &Array2<f64>, y_hat: ArrayView2<f64>) -> Result {
    const MOST: usize = 2000;
    let every = y.nrows().div_ceil(MOST).max(1);
    let panels = task.outputs(y.ncols()).into_iter().zip(y.columns()).zip(y_hat.columns()).map(|((name, y), y_hat)| {
        let marks: Vec<(f64, f64)> = y.iter().copied().zip(y_hat.iter().copied()).step_by(every).collect();
        let (low, high) =
            y.iter().chain(&y_hat).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &y| (l.min(y), h.max(y)));
        let line = vec![(low, low), (high, high)];
        let samples = Series { label: "samples".to_owned(), colour: colour::BLUE, marks, ..Series::default() };
        let equal = Series { label: "equal".to_owned(), colour: colour::GREY, line, ..Series::default() };
        Panel {
            title: format!("{name:?}"),
            x: Axis { label: "true", scale: Scale::Linear },
            y: Axis { label: "predicted", scale: Scale::Linear },
            series: vec![equal, samples],
        }
    });
    let shown = if every > 1 { format!(" One sample of every {every} is shown.") } else { String::new() };
    let figure = Figure {
        name: "predicted",
        title: "Predicted numbers".to_owned(),
        panels: panels.collect(),
        caption: format!("Predictions over answers: on the line, both are equal.{shown}"),
    };
    draw(&figure, path)
}
