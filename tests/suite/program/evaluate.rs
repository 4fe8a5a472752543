//! The command `evaluate`.

use std::fs;
use std::process::Command;

use gemmprop::{
    Bias, Generator, Mlp, SquaredError, Trainer, TrainingSettings,
    checkpoint::{Checkpoints, Notes},
};
use rand::{RngExt, SeedableRng};

use super::{BLUE, Folder, json, lines, number_after, table};

/// A checkpoint of a network without hidden layers and biases, with these weights.
fn linear(folder: &Folder, name: &str, task: &serde_json::Value, widths: [usize; 2], weight: fn(usize, usize) -> f64) {
    let mut mlp = Mlp::<f32>::he(&widths, Bias::None, 0).unwrap();
    for ((i, j), alpha) in mlp.parameters_mut().alpha_mut().indexed_iter_mut() {
        *alpha = weight(i, j) as f32;
    }
    mlp.parameters_mut().b_mut().fill(0.0);
    let trainer = Trainer::<f32, _>::new(mlp, SquaredError, TrainingSettings::default()).unwrap();
    let notes = Notes::from([("task".to_owned(), task.to_string())]);
    Checkpoints::create(folder.path(name)).unwrap().save(&trainer, &notes).unwrap();
}

/// A network that takes a row for the class whose column has a 1, and one that gives its input.
fn measured(folder: &Folder) {
    let task = |loss: &str, classes: &[&str], columns: &[&str]| {
        serde_json::json!({
            "loss": loss, "classes": classes, "columns": columns, "target": "t", "inputs": [], "scale": [],
            "validation": null, "seed": 0, "checksum": 0,
        })
    };
    let classes = ["x", "y", "z"];
    linear(folder, "classes", &task("Softmax", &classes, &["a", "b", "c"]), [3, 3], |i, j| f64::from(u8::from(i == j)));
    linear(folder, "numbers", &task("Squared", &[], &["a"]), [1, 1], |_, _| 1.0);
}

/// Rows that are taken for these classes (a column each) and are of these.
fn taken(pairs: &[(usize, usize)]) -> String {
    let flag = |yes: bool| u8::from(yes).to_string();
    table(
        "a,b,c,t",
        pairs.iter().map(|&(class, taken_for)| {
            let [a, b, c] = [0, 1, 2].map(|i| flag(i == taken_for));
            format!("{a},{b},{c},{}", ["x", "y", "z"][class])
        }),
    )
}

#[test]
fn classes_are_measured_as_by_hand() {
    let folder = Folder::new();
    measured(&folder);
    folder.write("a.csv", taken(&[(0, 0), (0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (2, 0)]));
    let run = folder.fine("evaluate --checkpoint classes --csv a.csv --json --plot c.svg");
    let found = &json(&run.stdout)["classes"];
    assert_eq!(found["confusion"], serde_json::json!([[3, 1, 0], [0, 2, 0], [1, 0, 0]]));
    assert_eq!((found["samples"].as_u64(), found["accuracy"]["value"].as_f64()), (Some(7), Some(5.0 / 7.0)));
    let of = |i: usize, what: &str| found["classes"][i][what].as_f64();
    assert_eq!([0, 1, 2].map(|i| of(i, "precision")), [Some(0.75), Some(2.0 / 3.0), None]);
    assert_eq!([0, 1, 2].map(|i| of(i, "recall")), [Some(0.75), Some(1.0), Some(0.0)]);
    let figure = fs::read_to_string(folder.path("c.svg")).unwrap();
    assert!(figure.contains("Confusion matrix") && figure.contains("Accuracy 0.7143"));
    assert!(figure.contains(": true against predicted. Number of"), "nothing of a legend: {figure}");
    // A square for each pair of classes, row by row, with its count in the middle.
    let number = |tag: &str, name: &str| number_after(tag, &format!(" {name}=\""));
    let cells: Vec<[f64; 4]> = figure
        .lines()
        .filter(|line| line.starts_with("<rect "))
        .skip(1) // the background
        .map(|tag| ["x", "y", "width", "height"].map(|name| number(tag, name)))
        .collect();
    let counts = figure.lines().zip(figure.lines().skip(1)).filter(|(tag, _)| tag.starts_with("<text "));
    let counts: Vec<_> = counts.filter_map(|(tag, words)| Some((tag, words.parse::<usize>().ok()?))).collect();
    assert_eq!(counts.iter().map(|&(_, count)| count).collect::<Vec<_>>(), [3, 1, 0, 0, 2, 0, 1, 0, 0]);
    assert_eq!(cells.len(), 9);
    let [left, top, side, _] = cells[0];
    for (i, (&[x, y, width, height], (tag, _))) in cells.iter().zip(counts).enumerate() {
        let place =
            [(left + side * (i % 3) as f64, x), (top + side * (i / 3) as f64, y), (side, width), (side, height)];
        // Each edge is rounded to a pixel, and the side lies between two of them.
        assert!(side > 100.0 && place.iter().all(|(expected, found)| (expected - found).abs() <= 4.0), "{cells:?}");
        let middle = [(x + width / 2.0, number(tag, "x")), (y + height / 2.0, number(tag, "y"))];
        assert!(middle.iter().all(|(expected, found)| (expected - found).abs() <= 1.5), "{middle:?}");
        assert!(x + width < 2560.0 && y + height < 1430.0, "{cells:?}");
    }
    // White where no sample of the class is, and the full colour where all of them are.
    let shades = figure.lines().filter(|line| line.starts_with("<rect ")).skip(1);
    let shades: Vec<_> = shades.map(|tag| tag.split_once(" fill=\"").unwrap().1.split('"').next().unwrap()).collect();
    assert_eq!([shades[2], shades[3], shades[4], shades[6]], ["#FFFFFF", "#FFFFFF", BLUE, BLUE]);

    let run = folder.fine("evaluate --checkpoint classes --csv a.csv");
    assert!(run.stdout.starts_with("accuracy 0.7143 (95 %: "), "{}", run.stdout);
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in
        [vec!["x", "4", "4", "0.7500", "0.7500"], vec!["z", "1", "0", "undefined", "0.0000"], vec!["x", "3", "1", "0"]]
    {
        assert!(rows.contains(&row), "{row:?}: {}", run.stdout);
    }

    // Without errors, every sample of the rows is without errors.
    folder.write("a.csv", taken(&[(0, 0), (1, 1), (2, 2)]));
    let run = folder.fine("evaluate --checkpoint classes --csv a.csv --json");
    assert_eq!(json(&run.stdout)["classes"]["accuracy"]["interval"], serde_json::json!([1.0, 1.0]));
    // The share of 1000 rows that are right has the deviation s = √(0.8 · 0.2 / 1000), so its 2.5 %
    // quantile lies 1.96 s below. The quantile of 1000 draws has the deviation
    // √(0.025 · 0.975 / 1000) / 0.0584 s = 0.085 s; five of those, and half a step of the share.
    let pairs: Vec<_> = (0..1000).map(|i| (i % 3, if i % 5 == 0 { (i + 1) % 3 } else { i % 3 })).collect();
    folder.write("a.csv", taken(&pairs));
    let run = folder.fine("evaluate --checkpoint classes --csv a.csv --json");
    let accuracy = &json(&run.stdout)["classes"]["accuracy"];
    assert_eq!(accuracy["value"].as_f64(), Some(0.8));
    let s = (0.8 * 0.2 / 1000.0_f64).sqrt();
    for (i, side) in [(0, -1.0), (1, 1.0)] {
        let end = accuracy["interval"][i].as_f64().unwrap();
        assert!((end - (0.8 + side * 1.96 * s)).abs() <= 5.0 * 0.085 * s + 0.0005, "{end}");
    }

    let unknown = r#"a.csv:3: column "t": expected a known class, found "oak""#;
    folder.write("a.csv", "a,b,c,t\n1,0,0,x\n1,0,0,oak\n");
    folder.refused("evaluate --checkpoint classes --csv a.csv", 1, unknown);
    folder.write("a.csv", "a,b,c\n1,0,0\n");
    folder.refused("evaluate --checkpoint classes --csv a.csv", 1, r#"a.csv: expected a column "t" to compare with"#);
}

#[test]
fn numbers_are_measured_as_by_hand() {
    let folder = Folder::new();
    measured(&folder);
    folder.write("a.csv", "a,t\n1,1\n2,2\n3,3\n6,4\n");
    let run = folder.fine("evaluate --checkpoint numbers --csv a.csv --json --plot n.png");
    let found = &json(&run.stdout)["numbers"][0];
    let value = |what: &str| found[what]["value"].as_f64().unwrap();
    assert_eq!((value("mae"), value("rmse")), (0.5, 1.0));
    // 1 − 4/5, with a rounding of the quotient and one of the difference.
    assert!((value("r2") - 0.2).abs() <= f64::EPSILON, "{found}");
    for what in ["r2", "mae", "rmse"] {
        let [low, high] = [0, 1].map(|i| found[what]["interval"][i].as_f64().unwrap());
        assert!(low <= value(what) && value(what) <= high, "{found}");
    }
    assert!(fs::read(folder.path("n.png")).unwrap().starts_with(b"\x89PNG"));
    // Marks at (true, predicted), between the ends of the line on which both are equal.
    folder.fine("evaluate --checkpoint numbers --csv a.csv --plot n.svg");
    let figure = fs::read_to_string(folder.path("n.svg")).unwrap();
    let [equal] = &lines(&figure, "#888888", 6)[..] else { panic!("{figure}") };
    // The first is that of the legend.
    let marks = &lines(&figure, BLUE, 5)[1..];
    assert_eq!(marks.len(), 4, "{figure}");
    for (mark, point) in marks.iter().zip([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 6.0]]) {
        // A square on its corner. Its corners and the ends of the line are rounded to a pixel.
        for (i, at) in [mark[0][0], mark[1][1]].into_iter().enumerate() {
            let expected = equal[0][i] + (point[i] - 1.0) / 5.0 * (equal[1][i] - equal[0][i]);
            assert!((at - expected).abs() <= 2.0, "{point:?}: {at} {expected}");
        }
    }
    let run = folder.fine("evaluate --checkpoint numbers --csv a.csv");
    assert!(run.stdout.contains("\n  MAE  0.50000 (95 %: "), "{}", run.stdout);
    // R² is that of a mean which the answers do not have.
    folder.write("a.csv", "a,t\n1,0.1\n2,0.1\n3,0.1\n");
    let run = folder.fine("evaluate --checkpoint numbers --csv a.csv --json");
    assert!(json(&run.stdout)["numbers"][0]["r2"]["value"].is_null(), "{}", run.stdout);
}

/// What scikit-learn makes of the same pairs.
const SCIKIT_LEARN: &str = r#"
import csv, json, sys
from sklearn.metrics import *
def columns(name):
    rows = list(csv.DictReader(open(name)))
    return [{key: row[key] for key in row} for row in rows]
rows = columns("classes.csv")
y, taken = [row["t"] for row in rows], ["xyz"[[row[key] for key in "abc"].index("1")] for row in rows]
numbers = columns("numbers.csv")
z, z_hat = [float(row["t"]) for row in numbers], [float(row["a"]) for row in numbers]
each = dict(labels=["x", "y", "z"], average=None)
json.dump({
    "confusion": confusion_matrix(y, taken, labels=each["labels"]).tolist(),
    "accuracy": accuracy_score(y, taken),
    "precision": precision_score(y, taken, **each).tolist(),
    "recall": recall_score(y, taken, **each).tolist(),
    "r2": r2_score(z, z_hat), "mae": mean_absolute_error(z, z_hat), "mse": mean_squared_error(z, z_hat),
}, sys.stdout)
"#;

#[test]
#[ignore = "needs Python with scikit-learn; ci/exchange has it and runs it"]
fn evaluation_agrees_with_scikit_learn() {
    const ROWS: usize = 500;
    let folder = Folder::new();
    measured(&folder);
    let mut generator = Generator::seed_from_u64(4);
    let mut taken_for =
        |class: usize| if generator.random_range(0..3) > 0 { class } else { generator.random_range(0..3) };
    folder.write("classes.csv", taken(&(0..ROWS).map(|i| (i % 3, taken_for(i % 3))).collect::<Vec<_>>()));
    // Whole numbers, which the network's f32 has exactly.
    let row = |i: usize| format!("{},{}", i * i % 101, (i * i + 3 * i) % 101);
    folder.write("numbers.csv", table("a,t", (0..ROWS).map(row)));
    let python = std::env::var("PYTHON").expect("ci/exchange sets it");
    let output = Command::new(python).current_dir(folder.0.path()).args(["-c", SCIKIT_LEARN]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = json(&String::from_utf8(output.stdout).unwrap());
    let evaluate = |name: &str| {
        json(&folder.fine(&format!("evaluate --checkpoint {name} --csv {name}.csv --json")).stdout)[name].clone()
    };
    let ours = evaluate("classes");
    assert_eq!((&ours["confusion"], &ours["accuracy"]["value"]), (&theirs["confusion"], &theirs["accuracy"]));
    for (i, what) in (0..3).flat_map(|i| [(i, "precision"), (i, "recall")]) {
        assert_eq!(ours["classes"][i][what], theirs[what][i], "{what} of class {i}");
    }
    let ours = evaluate("numbers")[0].clone();
    let value = |what: &str| ours[what]["value"].as_f64().unwrap();
    let their = |what: &str| theirs[what].as_f64().unwrap();
    // Sums of as many terms, in both programs, and some roundings more.
    let rounding = 4.0 * ROWS as f64 * f64::EPSILON;
    assert!((value("mae") - their("mae")).abs() <= rounding * their("mae"));
    assert!((value("rmse").powi(2) - their("mse")).abs() <= rounding * their("mse"));
    assert!((value("r2") - their("r2")).abs() <= rounding * (1.0 - their("r2")).abs().max(1.0));
}
