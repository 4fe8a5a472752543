//! What `train` learns and says, and what it refuses before it begins.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use gemmprop::{
    Bias, Dataset, Generator, LearningRate, Mlp, Optimizer, SoftmaxCrossEntropy, Trainer, TrainingSettings,
    checkpoint::Checkpoints, data,
};
use ndarray::{Array1, Array2, Axis};
use ndarray_npy::write_npy;
use rand::{RngExt, SeedableRng};

use super::{FLOWERS, Folder, idx_images, json, newest, number_after, table};

#[test]
fn classes_of_a_table_are_learned_with_the_defaults_and_predicted() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 300);
    let run = folder.fine(
        "train --csv flowers.csv --target species --validation 0.2 --checkpoint run --history h.csv --plot c.svg",
    );
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains(r#"loss: softmax, as "species" has 3 classes"#), "{}", run.stderr);
    assert!(run.stderr.contains("240 samples to train on, 60 to validate with; network 2-128-64-3"), "{}", run.stderr);
    assert!(number_after(&run.stderr, "accuracy ") > 0.9, "{}", run.stderr);
    assert_eq!(fs::read_to_string(folder.path("h.csv")).unwrap().lines().count(), 201);
    assert!(fs::read_to_string(folder.path("c.svg")).unwrap().starts_with("<svg"));
    folder.fine("train --csv flowers.csv --resume --checkpoint run --history h.json --plot c.png");
    assert!(fs::read_to_string(folder.path("h.json")).unwrap().starts_with('['));
    assert!(fs::read(folder.path("c.png")).unwrap().starts_with(b"\x89PNG"));

    // Other columns in another order, and one that is not known.
    folder.flowers("others.csv", &["species", "width", "name", "length"], 90);
    let refused =
        r#"others.csv: column: expected only those that the run has learned from, found "name"; --drop "name""#;
    folder.refused("predict --checkpoint run --csv others.csv", 1, refused);
    let run = folder.fine("predict --checkpoint run --csv others.csv --drop name");
    assert!(number_after(&run.stderr, "accuracy ") > 0.9, "{}", run.stderr);
    folder.flowers("unknown.csv", &["width", "length"], 90);
    let unknown = folder.fine("predict --checkpoint run --csv unknown.csv");
    assert_eq!(unknown.stdout, run.stdout);
    assert_eq!(unknown.stderr, "");

    // The network gives the same result for inputs standardised according to the checkpoint's note.
    folder.flowers("ordered.csv", &FLOWERS, 90);
    let mut x = data::csv_classes::<f64>(folder.path("ordered.csv"), "species").unwrap().x;
    let scales = folder.task("run")["inputs"].clone();
    for (mut column, scale) in x.columns_mut().into_iter().zip(scales.as_array().unwrap()) {
        let (mean, deviation) = (scale[0].as_f64().unwrap(), scale[1].as_f64().unwrap());
        column.mapv_inplace(|x| (x - mean) / deviation);
    }
    let y_hat = folder.model("run").predict(x.mapv(|x| x as f32).view()).unwrap();
    let mut lines = run.stdout.lines();
    assert_eq!(lines.next(), Some("species,probability"));
    for y_hat in y_hat.outer_iter() {
        let exps: Vec<f64> = y_hat.iter().map(|&y| f64::from(y).exp()).collect();
        let best = (0..3).max_by(|&a, &b| exps[a].total_cmp(&exps[b])).unwrap();
        let (class, probability) = lines.next().unwrap().split_once(',').unwrap();
        assert_eq!(class, ["aster", "lily", "rose"][best]);
        let probability: f64 = probability.parse().unwrap();
        assert!((probability - exps[best] / exps.iter().sum::<f64>()).abs() < 1e-5);
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn numbers_of_any_size_are_learned_with_the_defaults() {
    let folder = Folder::new();
    let mut generator = Generator::seed_from_u64(2);
    let mut text = "area,rooms,price\n".to_owned();
    for _ in 0..300 {
        let (area, rooms) = (generator.random_range(30.0..200.0_f64), generator.random_range(1..8));
        writeln!(text, "{area:.1},{rooms},{:.2}", 3000.0 * area + 10_000.0 * f64::from(rooms)).unwrap();
    }
    fs::write(folder.path("houses.csv"), text).unwrap();
    let run = folder.fine("train --csv houses.csv --target price --validation 0.2 --checkpoint run");
    assert!(run.stderr.contains("loss: squared"), "{}", run.stderr);
    // The prices' deviation is about 150 000.
    assert!(number_after(&run.stderr, "RMSE ") < 10_000.0, "{}", run.stderr);
    let run = folder.fine("predict --checkpoint run --csv houses.csv");
    folder.fine("predict --checkpoint run --csv houses.csv --output y.npy");
    let numbers: Array2<f32> = data::npy(folder.path("y.npy")).unwrap();
    let (header, lines) = run.stdout.split_once('\n').unwrap();
    assert_eq!(header, "price");
    assert_eq!(
        lines.lines().map(|line| line.parse().unwrap()).collect::<Vec<f32>>(),
        numbers.into_raw_vec_and_offset().0
    );
}

#[test]
fn arrays_of_numpy_are_learned() {
    let folder = Folder::new();
    let mut generator = Generator::seed_from_u64(3);
    let x = Array2::from_shape_simple_fn((200, 2), || generator.random_range(-1.0..1.0_f32));
    let labels: Array1<i64> = x.outer_iter().map(|x| i64::from(x[0] > x[1])).collect();
    write_npy(folder.path("x.npy"), &x).unwrap();
    write_npy(folder.path("labels.npy"), &labels).unwrap();
    write_npy(folder.path("y.npy"), &x.map(|x| 3.0 * x)).unwrap();
    let run = folder.fine(
        "train --data x.npy --targets labels.npy --loss logistic --optimizer nesterov --schedule cosine --checkpoint run",
    );
    assert!(run.stderr.contains("network 2-128-64-1"), "{}", run.stderr);
    folder.fine("predict --checkpoint run --data x.npy --output classes.npy");
    let classes = data::npy_labels(folder.path("classes.npy")).unwrap();
    let right = classes.iter().zip(&labels).filter(|&(&class, &label)| class as i64 == label).count();
    assert!(right > 190, "{right} of 200");

    let run = folder.fine("train --data x.npy --targets y.npy --widths none --epochs 3 --checkpoint numbers");
    assert!(run.stderr.contains("loss: squared, as the targets are floating-point"), "{}", run.stderr);
    assert!(run.stderr.contains("network 2-2"), "{}", run.stderr);
    assert!(folder.fine("predict --checkpoint numbers --data x.npy").stdout.starts_with("y0,y1\n"));
    folder.refused(
        "train --data x.npy --targets y.npy --loss softmax",
        1,
        "y.npy: expected one class for each row, found 2 numbers",
    );
    write_npy(folder.path("few.npy"), &Array1::from(vec![0_i64, 1])).unwrap();
    let few = "few.npy: expected a target for each of the 200 rows of x.npy, found 2 targets";
    folder.refused("train --data x.npy --targets few.npy", 1, few);
}

#[test]
fn images_and_labels_are_learned() {
    let folder = Folder::new();
    idx_images(&folder, "train", 200);
    idx_images(&folder, "t10k", 40);
    let run = folder.fine("train --idx . --checkpoint run");
    assert!(run.stderr.contains("200 samples to train on, 40 to validate with; network 4-128-64-4"), "{}", run.stderr);
    let run = folder.fine("predict --checkpoint run --idx .");
    assert!(run.stderr.contains("of 40 samples") && number_after(&run.stderr, "accuracy ") == 1.0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 41);
    let run = folder.fine("train --idx . --validation 0.5 --epochs 1");
    assert!(run.stderr.contains("100 samples to train on, 100 to validate with"), "{}", run.stderr);
}

#[test]
fn an_epoch_without_a_loss_is_not_the_best() {
    let folder = Folder::new();
    let train = "train --csv a.csv --target y --standardize=no --validation 0.5 --rate 0.01";
    // A number that overflows in the network, in a row that validates: in one of them.
    let run = (0..20).find_map(|huge| {
        let row =
            |i: usize| format!("{},{}\n", if i == huge { "3e38".into() } else { i.to_string() }, ["a", "b"][i % 2]);
        fs::write(folder.path("a.csv"), format!("x,y\n{}", (0..20).map(row).collect::<String>())).unwrap();
        let run = folder.run(&format!("{train} --early-stopping 3"));
        (run.code == Some(0) && run.stderr.contains("validation loss NaN")).then_some(run)
    });
    let summary = run.expect("a loss that is NaN").stderr;
    let summary = summary.lines().last().unwrap();
    assert!(summary.contains("validation loss NaN") && !summary.contains("best epoch"), "{summary}");
    folder.fine(&format!("{train} --epochs 2 --checkpoint run"));
    let shown = folder.fine("inspect --checkpoint run").stdout;
    assert!(shown.contains("\n  last: epoch 2, ") && !shown.contains("best:"), "{shown}");
}

#[test]
fn flat_minima_are_sought_if_asked_for() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let train = "train --csv flowers.csv --target species --epochs 3";
    folder.fine(&format!("{train} --checkpoint run"));
    folder.fine(&format!("{train} --sam 0.05 --checkpoint flat"));
    let saved = Checkpoints::open(folder.path("flat")).unwrap().resume::<f32, _>(SoftmaxCrossEntropy).unwrap();
    assert_eq!(saved.value.training().sam, Some(0.05));
    assert_ne!(folder.model("flat"), folder.model("run"));
}

/// The commands of the program in a text, each on a line of its own.
fn commands(text: &str) -> Vec<String> {
    let command = |line: &str| {
        let rest = line.trim_start().strip_prefix("gemmprop ")?;
        ["train ", "predict ", "evaluate "].iter().any(|name| rest.starts_with(name)).then(|| rest.to_owned())
    };
    text.lines().filter_map(command).collect()
}

#[test]
fn the_commands_of_the_help_and_of_the_readme_work_as_they_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let help = |flag| Folder::new().fine(flag).stdout;
    for text in [help("-h"), help("--help"), fs::read_to_string(root.join("README.md")).unwrap()] {
        let folder = Folder::new();
        fs::create_dir(folder.path("examples")).unwrap();
        for name in ["examples/flowers.csv", "flowers.csv"] {
            fs::copy(root.join("examples/flowers.csv"), folder.path(name)).unwrap();
        }
        let [train, predict, evaluate] = &commands(&text)[..] else { panic!("{text}") };
        let run = folder.fine(train);
        assert!(run.stderr.contains("150 samples to train on; network 4-128-64-3"), "{}", run.stderr);
        let run = folder.fine(predict);
        assert!(number_after(&run.stderr, "accuracy ") > 0.95, "{}", run.stderr);
        assert_eq!(run.stdout.lines().count(), 151);
        let run = folder.fine(evaluate);
        assert!(number_after(&run.stdout, "accuracy ") > 0.95, "{}", run.stdout);
    }
    let help = help("train --help").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("times F when more than N epochs in a row bring nothing better"), "{help}");
}

#[test]
fn a_class_that_no_sample_is_left_of_to_train_on_is_named() {
    let folder = Folder::new();
    let class = |i: usize| if i % 20 == 7 { "rare" } else { ["a", "b"][i % 2] };
    folder.write("a.csv", table("x,t", (0..40).map(|i| format!("{i},{}", class(i)))));
    let mut warned = 0;
    for seed in 0..12 {
        let train = format!("train --csv a.csv --target t --widths none --validation 0.5 --epochs 1 --seed {seed}");
        let run = folder.fine(&format!("{train} --checkpoint run{seed}"));
        let warning = r#"warning: there is no sample to train on of the class: "rare" (2 to validate with)"#;
        warned += usize::from(run.stderr.contains(warning));
        assert_eq!(run.stderr.contains("warning"), run.stderr.contains(warning), "{}", run.stderr);
    }
    assert!((1..12).contains(&warned), "{warned}");
}

/// Of classes of one size, each weight is 1: n / (k n/k).
#[test]
fn balanced_classes_count_alike() {
    let folder = Folder::new();
    folder.flowers("equal.csv", &FLOWERS, 90);
    let rows = |i: usize| format!("{i},{}", if i.is_multiple_of(9) { "rare" } else { "common" });
    folder.write("unequal.csv", table("x,species", (0..36).map(rows)));
    for name in ["equal", "unequal"] {
        let train = format!("train --csv {name}.csv --target species --epochs 4 --checkpoint {name}");
        folder.fine(&format!("{train}-plain"));
        folder.fine(&format!("{train} --class-weight balanced"));
        assert_eq!(folder.model(name) == folder.model(&format!("{name}-plain")), name == "equal");
    }
    // Those that are left to train on are weighted.
    let train = "train --csv unequal.csv --target species --epochs 4 --validation 0.2 --checkpoint";
    folder.fine(&format!("{train} part"));
    folder.fine(&format!("{train} balanced --class-weight balanced"));
    assert_ne!(folder.model("balanced"), folder.model("part"));
    // The weights of 4 and of 32 of 36 samples, of 2 classes.
    folder.fine("train --csv unequal.csv --target species --epochs 4 --standardize=no --class-weight balanced --checkpoint bits");
    let x = Array2::from_shape_fn((36, 1), |(i, _)| i as f32);
    let rare = Array1::from_shape_fn(36, |i| i % 9 == 0);
    let weights = rare.mapv(|rare| if rare { 36.0 / (2.0 * 4.0) } else { 36.0 / (2.0 * 32.0) });
    let training = TrainingSettings {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::constant(0.001),
        epochs: 4,
        batch: 32,
        ..TrainingSettings::default()
    };
    let mlp = Mlp::he(&[1, 128, 64, 2], Bias::EveryLayer, 0).unwrap();
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let y = rare.mapv(usize::from).insert_axis(Axis(1));
    trainer.fit(Dataset::new(x.view(), y.view()).weights(weights.view()), None, &mut ()).unwrap();
    assert_eq!(folder.model("bits"), *trainer.model());
    // Resuming weighs as the run began.
    folder.fine("train --csv unequal.csv --target species --epochs 2 --class-weight balanced --checkpoint run");
    folder.fine("train --csv unequal.csv --resume --checkpoint run --epochs 4");
    assert_eq!(folder.model("run"), folder.model("unequal"));
    let numbers = "train --csv unequal.csv --target x --drop species --class-weight balanced";
    folder.write("numbers.csv", "x,y\n1,1.5\n2,2.5\n");
    folder.refused("train --csv numbers.csv --target y --class-weight balanced", 1, "expected classes");
    folder.refused(&format!("{numbers} --resume --checkpoint run"), 2, "cannot be used with");
}

#[test]
fn results_come_as_json_and_nothing_else_is_said_if_asked_for() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let run = folder.fine(
        "train --csv flowers.csv --target species --validation 0.2 --epochs 3 --checkpoint run --json --quiet --history h.json",
    );
    assert_eq!(run.stderr, "");
    let lines: Vec<serde_json::Value> = run.stdout.lines().map(json).collect();
    assert_eq!(lines[..3], json(&fs::read_to_string(folder.path("h.json")).unwrap()).as_array().unwrap()[..]);
    assert_eq!((lines.len(), &lines[3]["ended"], &lines[3]["epochs"]), (4, &"completed".into(), &3.into()));
    let plain = folder.fine("predict --checkpoint run --csv flowers.csv --quiet");
    assert_eq!(plain.stderr, "");
    let run = folder.fine("predict --checkpoint run --csv flowers.csv --json");
    let rows = run.stdout.lines().map(json);
    let rows = rows.map(|row| format!("{},{}", row["species"].as_str().unwrap(), row["probability"]));
    assert!(rows.eq(plain.stdout.lines().skip(1)), "{}", run.stdout);
}

#[test]
fn what_does_not_fit_is_refused_with_a_line_that_says_why() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 30);
    folder.flowers("short.csv", &["length", "species"], 30);
    fs::write(folder.path("bad.csv"), "length,width,species\n1,2,rose\n1,x,lily\n").unwrap();
    fs::write(folder.path("other.csv"), "length,width,species\n1,2,oak\n").unwrap();
    fs::write(folder.path("twice.csv"), "length,width,species,width\n1,2,lily,3\n").unwrap();
    let train = "train --csv flowers.csv --target species --epochs 1";
    folder.fine(&format!("{train} --checkpoint run"));

    // Flags: 2.
    folder.refused("", 2, "Usage: gemmprop");
    folder.refused("train", 2, "Usage: gemmprop train");
    folder.refused("train --csv flowers.csv", 2, "--target COLUMN");
    folder.refused("train --csv flowers.csv", 2, "Usage: gemmprop train ");
    folder.refused("train --data x.npy", 2, "--targets Y.npy");
    folder.refused("evaluate --checkpoint run --data x.npy", 2, "--targets Y.npy");
    folder.refused("export --checkpoint run --onnx flowers.txt", 2, "expected a file that ends in .onnx");
    folder.refused("train --csv flowers.csv --idx . --target species", 2, "cannot be used with");
    folder.refused(&format!("{train} --resume"), 2, "--checkpoint");
    let resume = format!("{train} --resume --checkpoint run --batch 3");
    folder.refused(&resume, 2, "'--resume' cannot be used with '--batch <N>'");
    folder.refused(&format!("{train} --rate 0"), 2, "expected a number above 0");
    folder.refused(&format!("{train} --sam 0"), 2, "expected a number above 0");
    folder.refused(&format!("{train} --schedule fast"), 2, "expected constant, cosine");
    folder.refused(&format!("{train} --plot c.gif"), 2, ".svg or .png");
    folder.refused("predict --csv flowers.csv", 2, "--checkpoint");

    // Files: 1.
    folder.refused("train --csv none.csv --target species", 1, "error: none.csv: ");
    folder.refused(
        "train --csv flowers.csv --target color",
        1,
        r#"flowers.csv: column: expected "color", found "length", "width""#,
    );
    folder.refused(
        "train --csv bad.csv --target species",
        1,
        r#"bad.csv:3: column "width": expected a number, found "x""#,
    );
    folder.refused("train --idx .", 1, "error: .: files: expected images and labels");
    folder.refused(&format!("{train} --loss logistic"), 1, "expected 2 classes, found 3");
    folder.refused(&format!("{train} --plot none/c.svg"), 1, "error: none: there is no such folder");
    folder.refused(&format!("{train} --checkpoint run"), 1, "--resume");
    folder.refused(&format!("{train} --resume --checkpoint none"), 1, "none");
    fs::create_dir(folder.path("empty")).unwrap();
    folder.refused(&format!("{train} --resume --checkpoint empty"), 1, "expected a whole checkpoint, found none");
    folder.refused(
        "train --csv short.csv --resume --checkpoint run",
        1,
        r#"short.csv: column: expected "width", found "#,
    );
    folder.refused(
        "train --csv other.csv --resume --checkpoint run",
        1,
        r#"other.csv:2: column "species": expected a known class, found "oak""#,
    );
    folder.refused(
        "train --csv twice.csv --resume --checkpoint run",
        1,
        r#"twice.csv:1: column "width": expected a name for"#,
    );
    folder.refused("train --csv flowers.csv --target length --resume --checkpoint run", 1, r#"expected "species""#);
    folder.refused("predict --checkpoint run --csv short.csv", 1, r#"short.csv: column: expected "width", found "#);
    let bad = r#"bad.csv:3: column "width": expected a number, found "x""#;
    folder.refused("predict --checkpoint run --csv bad.csv", 1, bad);
    folder.refused("predict --checkpoint run --idx .", 1, "expected --csv");
    folder.refused(
        "train --csv flowers.csv --target species --rate 1e30 --optimizer sgd",
        1,
        "a smaller --rate may help",
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_written_is_found_before_training_and_none_that_is_read_is_overwritten() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let text = fs::read(folder.path("flowers.csv")).unwrap();
    fs::create_dir(folder.path("folder.csv")).unwrap();
    std::os::unix::fs::symlink("flowers.csv", folder.path("link.csv")).unwrap();
    let train = "train --csv flowers.csv --target species --epochs 1";
    let refused = |line: &str, text: &str| {
        let run = folder.run(line);
        // The data have not been reported yet.
        assert_eq!((run.code, run.stderr.lines().count()), (Some(1), 1), "{line}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{line}: {}", run.stderr);
    };
    if cfg!(target_os = "linux") {
        // Not even root can make a file there.
        refused(&format!("{train} --history /proc/h.csv"), "/proc/h.csv: ");
        refused(&format!("{train} --plot /proc/c.svg"), "/proc/c.svg: ");
    }
    refused(&format!("{train} --history folder.csv"), "folder.csv: expected a file to write, found a folder");
    let lost = "expected a file to write, found one to read";
    for history in ["flowers.csv", "./flowers.csv", "link.csv"] {
        refused(&format!("{train} --history {history}"), lost);
    }
    folder.fine(&format!("{train} --checkpoint run --history h.csv --plot c.svg"));
    for output in ["flowers.csv", "link.csv"] {
        // Before anything is read, even the checkpoint.
        refused(&format!("predict --checkpoint none --csv flowers.csv --output {output}"), lost);
    }
    let file = newest(&folder.path("run"));
    fs::copy(&file, folder.path("network.npy")).unwrap();
    refused("predict --checkpoint network.npy --csv flowers.csv --output network.npy", lost);
    assert_eq!(fs::read(folder.path("flowers.csv")).unwrap(), text);
    assert_eq!(fs::read(&file).unwrap(), fs::read(folder.path("network.npy")).unwrap());
    let left = fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = left.collect();
    left.sort();
    assert_eq!(left, ["c.svg", "flowers.csv", "folder.csv", "h.csv", "link.csv", "network.npy", "run"]);
}
