//! The figure that `train --plot` draws.

use std::fs;

use super::{BLUE, Folder, VERMILION, lines, table};

/// The heights of losses are linear in their logarithms. Two training losses give the scale.
#[test]
fn a_learning_curve_has_the_losses_of_the_history() {
    let folder = Folder::new();
    folder.write("a.csv", table("x,y", (0..12).map(|i| format!("{i},{}.5", 2 * i))));
    folder.fine("train --csv a.csv --target y --epochs 4 --validation 0.25 --plot c.svg --history h.csv");
    let figure = fs::read_to_string(folder.path("c.svg")).unwrap();
    let history = fs::read_to_string(folder.path("h.csv")).unwrap();
    let losses = |column: usize| {
        let loss = |line: &str| line.split(',').nth(column).unwrap().parse::<f64>().unwrap().ln();
        history.lines().skip(1).map(loss).collect::<Vec<f64>>()
    };
    let (training, validation) = (losses(2), losses(3));
    let [curve] = &lines(&figure, BLUE, 6)[..] else { panic!("{figure}") };
    let scale = (curve[3][1] - curve[0][1]) / (training[3] - training[0]);
    assert!(scale < -50.0 && curve.len() == 4, "{figure}");
    let dashes = lines(&figure, VERMILION, 6);
    // A line of dashes, whose last one may end before the last epoch.
    let last = *dashes.last().unwrap().last().unwrap();
    let part = (last[0] - curve[2][0]) / (curve[3][0] - curve[2][0]);
    let loss = validation[2] + part * (validation[3] - validation[2]);
    let ends = [(dashes[0][0], curve[0][0], validation[0]), (last, last[0], loss)];
    assert!((0.5..=1.0).contains(&part), "{part}");
    let points = curve.iter().zip(&training).map(|(&point, &loss)| (point, point[0], loss));
    for ([x, y], expected_x, loss) in points.chain(ends) {
        // All are rounded to a pixel.
        let expected_y = curve[0][1] + scale * (loss - training[0]);
        assert!((x - expected_x).abs() <= 1.0 && (y - expected_y).abs() <= 3.0, "{x}, {y}: {expected_x}, {expected_y}");
    }
}

/// A validation loss that overflows after some epochs.
#[test]
fn a_learning_curve_leaves_out_losses_that_are_not_finite() {
    let folder = Folder::new();
    let row = |i: usize| format!("{},{}.25", if i == 3 { "1e38".to_owned() } else { (i % 7).to_string() }, i % 5);
    folder.write("a.csv", table("x,y", (0..20).map(row)));
    // A seed by which the large number validates; the square of what it gives is infinite.
    let run = (0..20).map(|seed| {
        folder.run(&format!("train --csv a.csv --target y --standardize=no --validation 0.5 --epochs 5 --seed {seed} --plot c.svg --history h.csv"))
    });
    let run = run.filter(|run| run.code == Some(0)).find(|run| run.stderr.contains("validation loss inf"));
    let run = run.expect("a seed");
    assert!(!run.stderr.contains("best epoch"), "{}", run.stderr);
    let figure = fs::read_to_string(folder.path("c.svg")).unwrap();
    let words = figure.split(['<', '>']).filter(|text| text.contains("left out") || text.contains("infinite")).count();
    assert!(words > 0, "the caption says it");
    assert!(!figure.contains("NaN,") && !figure.contains("inf,"));
    // The training losses, in their colour, still fill the height: they are not a flat line at the
    // bottom.
    let heights = figure.split("<polyline").filter(|line| line.contains("#0072B2")).filter_map(|line| {
        let (_, points) = line.split_once("points=\"")?;
        let y = points
            .split('"')
            .next()?
            .split_whitespace()
            .filter_map(|point| point.split_once(',')?.1.parse::<f64>().ok());
        let (low, high) = y.fold((f64::INFINITY, 0.0_f64), |(low, high), y| (low.min(y), high.max(y)));
        Some(high - low)
    });
    assert!(heights.fold(0.0, f64::max) > 500.0);
}
