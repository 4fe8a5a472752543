//! The program `gemmprop`, as it is used: files in, exit codes and messages out; what it
//! predicts is what its network predicts; and stopped and resumed, it ends with the bits of a run
//! that was never stopped.

#![cfg(feature = "cli")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gemmprop::{
    Bias, Dataset, Generator, LearningRate, Mlp, Model, Optimizer, SoftmaxCrossEntropy, SquaredError, Trainer,
    Training,
    checkpoint::{Checkpoints, Notes},
    data,
};
use ndarray::{Array1, Array2, Axis};
use ndarray_npy::write_npy;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::common::gamma;
use crate::onnx::evaluate;

/// A folder in which the program runs.
struct Folder(TempDir);

/// How a run of the program ended.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmprop"));
        command.current_dir(self.0.path()).args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Run {
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let run = Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) };
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run
    }

    /// Runs the program, which must succeed.
    fn fine(&self, line: &str) -> Run {
        let run = self.run(line);
        assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
        run
    }

    /// Runs the program, which must fail with this code and one line that contains this text.
    fn refused(&self, line: &str, code: i32, text: &str) {
        let run = self.run(line);
        assert_eq!(run.code, Some(code), "{line}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{line}: {}", run.stderr);
        if code == 1 {
            assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", run.stderr);
        }
    }

    /// The task that the newest checkpoint records.
    fn task(&self, name: &str) -> serde_json::Value {
        let saved = Checkpoints::open(self.path(name)).unwrap().model::<f32>().unwrap();
        serde_json::from_str(&saved.notes["task"]).unwrap()
    }

    /// A file of this text.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn model(&self, name: &str) -> Model<f32> {
        Checkpoints::open(self.path(name)).unwrap().model().unwrap().value
    }

    /// Three kinds that two measurements tell apart; their columns in this order.
    fn flowers(&self, name: &str, columns: &[&str], rows: usize) {
        let mut generator = Generator::seed_from_u64(1);
        let mut text = columns.join(",") + "\n";
        for row in 0..rows {
            let kind = row % 3;
            let length = 4.0 + 2.0 * kind as f32 + generator.random_range(-1.0..1.0_f32);
            let width = 20.0 - 7.0 * kind as f32 + generator.random_range(-4.0..4.0_f32);
            let fields = columns.iter().map(|&column| match column {
                "length" => length.to_string(),
                "width" => width.to_string(),
                "species" => ["rose", "lily", "aster"][kind].to_owned(),
                _ => format!("no. {row}"),
            });
            writeln!(text, "{}", fields.collect::<Vec<_>>().join(",")).unwrap();
        }
        fs::write(self.path(name), text).unwrap();
    }
}

const FLOWERS: [&str; 3] = ["length", "width", "species"];

fn number_after(text: &str, word: &str) -> f64 {
    let (_, rest) = text.rsplit_once(word).unwrap_or_else(|| panic!("no {word:?} in {text}"));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().unwrap()
}

fn newest(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")).max().unwrap()
}

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
    let idx = |name: &str, images: usize| {
        let pixel = |i: usize, at: usize| if at == i % 4 { 255 } else { (i * 31 + at * 17) as u8 % 100 };
        let mut bytes = [0, 0, 8, 3].to_vec();
        [images as u32, 2, 2].iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        (0..images).for_each(|i| bytes.extend((0..4).map(|at| pixel(i, at))));
        fs::write(folder.path(&format!("{name}-images-idx3-ubyte")), &bytes).unwrap();
        bytes = [0, 0, 8, 1].to_vec();
        bytes.extend((images as u32).to_be_bytes());
        bytes.extend((0..images).map(|i| (i % 4) as u8));
        fs::write(folder.path(&format!("{name}-labels-idx1-ubyte")), &bytes).unwrap();
    };
    idx("train", 200);
    idx("t10k", 40);
    let run = folder.fine("train --idx . --checkpoint run");
    assert!(run.stderr.contains("200 samples to train on, 40 to validate with; network 4-128-64-4"), "{}", run.stderr);
    let run = folder.fine("predict --checkpoint run --idx .");
    assert!(run.stderr.contains("of 40 samples") && number_after(&run.stderr, "accuracy ") == 1.0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 41);
    let run = folder.fine("train --idx . --validation 0.5 --epochs 1");
    assert!(run.stderr.contains("100 samples to train on, 100 to validate with"), "{}", run.stderr);
}

/// A run that takes some seconds.
#[cfg(unix)]
const LONG: &str = "train --csv flowers.csv --target species --validation 0.2 --epochs 300 --batch 8 --schedule cosine --seed 5 \
                    --early-stopping 300";

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_again_and_again_ends_with_the_bits_of_one_that_is_not() {
    use std::io::{BufRead, BufReader, Read};

    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 600);
    folder.fine(&format!("{LONG} --checkpoint whole --history whole.csv"));
    let begin = format!("{LONG} --checkpoint stopped --history stopped.csv");
    let mut line = begin.clone();
    let (mut stops, mut too_late) = (0, 0);
    loop {
        let mut child = folder.command(&line).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        // Reads up to the first report of an epoch.
        let mut text = String::new();
        while !text.lines().last().is_some_and(|line| line.starts_with("epoch ")) {
            if stderr.read_line(&mut text).unwrap() == 0 {
                break;
            }
        }
        if stops < 3 {
            let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
            assert!(kill.success());
        }
        stderr.read_to_string(&mut text).unwrap();
        let code = child.wait().unwrap().code();
        if code == Some(0) && stops == 3 {
            break;
        }
        if code == Some(0) {
            // On a machine that was busy elsewhere, it had come to its end before the signal.
            too_late += 1;
            assert!(too_late < 20, "stopped {stops} times, then at its end before the signal, {too_late} times over");
            fs::remove_dir_all(folder.path("stopped")).unwrap();
            fs::remove_file(folder.path("stopped.csv")).unwrap();
            (stops, line) = (0, begin.clone());
            continue;
        }
        assert_eq!(code, Some(130), "{text}");
        assert!(text.contains("stopped by Ctrl-C") && text.contains("checkpoint in "), "{text}");
        assert!(folder.path("stopped.csv").exists());
        stops += 1;
        line = "train --csv flowers.csv --resume --checkpoint stopped --history stopped.csv".to_owned();
    }
    assert_eq!(folder.model("stopped"), folder.model("whole"));
    let losses = |name| {
        let text = fs::read_to_string(folder.path(name)).unwrap();
        // Everything but the time, which is last.
        text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(losses("stopped.csv"), losses("whole.csv"));
    let predictions = |name| folder.fine(&format!("predict --checkpoint {name} --csv flowers.csv")).stdout;
    assert_eq!(predictions("stopped"), predictions("whole"));
}

/// Before the second save, which is due after 10 s.
#[cfg(unix)]
#[test]
fn a_run_that_is_killed_at_once_can_be_resumed_and_ends_with_the_same_bits() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 600);
    folder.fine(&format!("{LONG} --checkpoint whole"));
    let first = folder.path("killed").join(format!("step-{:012}.safetensors", 1));
    loop {
        let mut child = folder.command(&format!("{LONG} --checkpoint killed")).stderr(Stdio::null()).spawn().unwrap();
        while !first.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended before its first checkpoint");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if newest(&folder.path("killed")) == first {
            break;
        }
        // On a machine that was busy elsewhere, it had come to its end.
        fs::remove_dir_all(folder.path("killed")).unwrap();
    }
    folder.fine("train --csv flowers.csv --resume --checkpoint killed");
    assert_eq!(folder.model("killed"), folder.model("whole"));
}

#[test]
fn a_run_that_has_stopped_early_is_over_until_it_gets_more_epochs() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let train = "train --csv flowers.csv --target species --validation 0.3 --rate 0.03 --early-stopping 2 --epochs 400";
    let run = folder.fine(&format!("{train} --checkpoint run"));
    assert!(run.stderr.contains("then nothing had got better"), "{}", run.stderr);
    let (model, file) = (folder.model("run"), newest(&folder.path("run")));
    let run = folder.fine("train --csv flowers.csv --resume --checkpoint run");
    assert!(run.stderr.contains("nothing to do, nothing had got better"), "{}", run.stderr);
    assert_eq!((folder.model("run"), newest(&folder.path("run"))), (model, file.clone()));
    folder.fine("train --csv flowers.csv --resume --checkpoint run --epochs 401");
    assert!(newest(&folder.path("run")) > file);
}

/// Decimals so near to the middle of two f32 that they round to one as they are, and to the other
/// by way of f64.
#[test]
fn a_resumed_run_reads_the_same_numbers() {
    let folder = Folder::new();
    let mut text = "a,b,y\n".to_owned();
    for row in 0..64 {
        // 1 + 2^-24, and a little.
        let middle = "1.00000005960464477539062500000001";
        writeln!(text, "{middle},{row},{}{middle}", ["", "-"][row % 2]).unwrap();
    }
    fs::write(folder.path("a.csv"), text).unwrap();
    let train = "train --csv a.csv --target y --standardize=no --optimizer sgd --rate 0.0001";
    folder.fine(&format!("{train} --epochs 4 --checkpoint whole"));
    folder.fine(&format!("{train} --epochs 2 --checkpoint run"));
    let run = folder.fine("train --csv a.csv --resume --checkpoint run --epochs 4");
    assert_eq!(folder.model("run"), folder.model("whole"));
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

/// The other data have the same number of rows and columns, so that nothing else would show the
/// difference.
#[test]
fn a_run_that_is_resumed_with_other_samples_says_so() {
    let folder = Folder::new();
    let text: String = (0..64).map(|row| format!("{row},{}\n", row % 7)).collect();
    fs::write(folder.path("a.csv"), format!("x,y\n{text}")).unwrap();
    folder.fine("train --csv a.csv --target y --loss squared --epochs 2 --checkpoint run");
    let other = "warning: these are not the samples that the run began with";
    for (changed, epochs) in [("63,0", 3), ("63.5,0", 4), ("63,0.5", 5)] {
        fs::write(folder.path("a.csv"), format!("x,y\n{}", text.replace("63,0", changed))).unwrap();
        let run = folder.fine(&format!("train --csv a.csv --resume --checkpoint run --epochs {epochs}"));
        assert_eq!(run.stderr.contains(other), changed != "63,0", "{}", run.stderr);
    }
}

#[test]
fn a_run_that_diverges_leaves_its_last_good_parameters_and_its_history() {
    let folder = Folder::new();
    let mut text = "x,y\n".to_owned();
    (0..32).for_each(|x| writeln!(text, "{x},{}", f64::from(x) * 1.5 + f64::from(x % 5) + 0.25).unwrap());
    fs::write(folder.path("a.csv"), text).unwrap();
    // One step an epoch.
    let train = "train --csv a.csv --target y --widths none --optimizer sgd --rate 3 --epochs 5000";
    let line = format!("{train} --checkpoint run --history h.csv --plot c.svg");
    folder.refused(&line, 1, "a smaller --rate may help");
    let epochs = fs::read_to_string(folder.path("h.csv")).unwrap().lines().count() - 1;
    assert!(epochs > 10, "{epochs}");
    assert!(folder.path("c.svg").exists());
    let saved = Checkpoints::open(folder.path("run")).unwrap().resume::<f32, _>(SquaredError).unwrap();
    assert_eq!(saved.value.steps(), epochs as u64);
    let theta = saved.value.model().mlp.parameters();
    assert!(theta.w().iter().flatten().chain(theta.c().iter().flatten()).all(|w| w.is_finite()));
    // At once: no epoch, and a header all the same.
    let train =
        "train --csv a.csv --target y --optimizer sgd --rate 1e30 --batch 8 --checkpoint none --history none.csv";
    folder.refused(train, 1, "a smaller --rate may help");
    let history = fs::read_to_string(folder.path("none.csv")).unwrap();
    assert!(history.starts_with("epoch,steps,loss,") && history.lines().count() == 1, "{history}");
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
fn rows_without_a_known_answer_are_predicted_and_not_scored() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --checkpoint run");
    let all = folder.fine("predict --checkpoint run --csv flowers.csv");
    let text = fs::read_to_string(folder.path("flowers.csv")).unwrap();
    // Every lily without its name, every second aster as something else.
    let some = text.replace("lily", "").replacen("aster", "oak", 15);
    fs::write(folder.path("some.csv"), some).unwrap();
    let run = folder.fine("predict --checkpoint run --csv some.csv");
    assert_eq!(run.stdout, all.stdout);
    assert!(run.stderr.starts_with("accuracy ") && run.stderr.contains("of 45 samples; of 90"), "{}", run.stderr);
    assert!(number_after(&run.stderr, "accuracy ") > 0.9, "{}", run.stderr);
    let none = text.replace("lily", "").replace("aster", "").replace("rose", "fir");
    fs::write(folder.path("none.csv"), none).unwrap();
    let run = folder.fine("predict --checkpoint run --csv none.csv");
    assert_eq!(run.stdout, all.stdout);
    assert!(run.stderr.starts_with("0 of 90 samples scored"), "{}", run.stderr);

    fs::write(folder.path("numbers.csv"), "x,y\n1,1.5\n2,2.5\n3,3.5\n").unwrap();
    folder.fine("train --csv numbers.csv --target y --epochs 1 --loss squared --checkpoint numbers");
    fs::write(folder.path("gap.csv"), "x,y\n1,1.5\n2,\n3,3.5\n").unwrap();
    let run = folder.fine("predict --checkpoint numbers --csv gap.csv");
    assert!(run.stderr.starts_with("RMSE ") && run.stderr.contains("of 2 samples; of 3"), "{}", run.stderr);
    let refused = r#"gap.csv:3: column "y": expected a number, found """#;
    folder.refused("train --csv gap.csv --resume --checkpoint numbers --epochs 2", 1, refused);
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

#[test]
fn more_epochs_go_on_from_a_run_that_was_done_and_from_the_one_before_a_damaged_file() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --epochs 4 --checkpoint whole");
    folder.fine("train --csv flowers.csv --target species --epochs 2 --checkpoint run");
    let more = "train --csv flowers.csv --resume --checkpoint run --epochs 4";
    folder.fine(more);
    assert_eq!(folder.model("run"), folder.model("whole"));
    assert!(folder.fine(more).stderr.contains("nothing to do, 4 epochs were done before"));

    let file = newest(&folder.path("run"));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let run = folder.fine(more);
    let name = file.file_name().unwrap().to_str().unwrap();
    let warning = run.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap();
    assert!(warning.contains(name) && warning.contains("instead"), "{warning}");
    assert_eq!(folder.model("run"), folder.model("whole"));
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

#[test]
fn whoever_reads_only_the_first_lines_is_no_error() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 30_000);
    folder.fine("train --csv flowers.csv --target species --epochs 1 --widths 4 --checkpoint run");
    let mut child = folder.command("predict --checkpoint run --csv flowers.csv");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.starts_with("accuracy ") && stderr.lines().count() == 1, "{stderr}");
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

/// A line for each of these rows, under a header.
fn table(header: &str, rows: impl Iterator<Item = String>) -> String {
    rows.fold(format!("{header}\n"), |text, row| text + &row + "\n")
}

/// The offset is such that all sums are whole numbers below 2^53, and so exact: the standardised
/// numbers have the same bits.
#[test]
fn an_offset_of_a_column_changes_nothing() {
    const OFFSET: i64 = 1_700_000_000;
    let folder = Folder::new();
    for (name, x, y) in [("plain", 0, 0), ("x", OFFSET, 0), ("y", 0, OFFSET), ("both", OFFSET, OFFSET)] {
        let row = |i: i64| format!("{},{}", x + i, y + 3 * (i - 20).abs());
        folder.write(&format!("{name}.csv"), table("x,y", (0..64).map(row)));
        folder.fine(&format!("train --csv {name}.csv --target y --loss squared --epochs 30 --checkpoint {name}"));
        assert_eq!(folder.model(name), folder.model("plain"), "{name}");
    }
    let predicted = |run: &str| {
        let run = folder.fine(&format!("predict --checkpoint {run} --csv {run}.csv"));
        run.stdout.lines().skip(1).map(|line| line.parse().unwrap()).collect::<Vec<f64>>()
    };
    let plain = predicted("plain");
    assert_eq!(predicted("x"), plain);
    for (both, plain) in predicted("both").iter().zip(&plain) {
        // The mean is added with one rounding, to numbers below 2^31.
        let rounding = f64::from(1_u32 << 31) * f64::EPSILON;
        assert!((both - OFFSET as f64 - plain).abs() <= rounding, "{both} {plain}");
    }
}

#[test]
fn classes_are_those_that_occur_and_many_whole_numbers_are_none() {
    let folder = Folder::new();
    let x: Array2<f64> = (0..60).map(|i| f64::from(i % 3)).collect::<Array1<_>>().insert_axis(Axis(1));
    write_npy(folder.path("x.npy"), &x).unwrap();
    let targets = |name: &str, y: &dyn Fn(i64) -> i64| {
        let y: Array1<i64> = (0..60).map(y).collect();
        write_npy(folder.path(&format!("{name}.npy")), &y).unwrap();
        folder.write(&format!("{name}.csv"), table("x,y", (0..60).map(|i| format!("{},{}", i % 3, y[i as usize]))));
    };
    targets("far", &|i| [-1, 3, 1_000_000_000_000][i as usize % 3]);
    targets("prices", &|i| 100_000 + 997 * i);
    targets("ids", &|i| i / 2);
    targets("grades", &|i| i % 20);
    // One rule for both formats.
    for (name, loss, network) in [
        ("far", "softmax, as WHAT 3 classes", "1-128-64-3"),
        ("prices", "squared, as WHAT whole numbers of 60 values in 60 rows", "1-128-64-1"),
        ("ids", "squared, as WHAT whole numbers of 30 values in 60 rows", "1-128-64-1"),
        ("grades", "softmax, as WHAT 20 classes", "1-128-64-20"),
    ] {
        for (data, what) in [
            (format!("train --csv {name}.csv --target y"), r#""y" has"#),
            (format!("train --data x.npy --targets {name}.npy"), "the targets are"),
        ] {
            let run = folder.fine(&format!("{data} --epochs 1"));
            let loss = format!("loss: {};", loss.replace("WHAT", what));
            assert!(
                run.stderr.contains(&loss) && run.stderr.contains(&format!("network {network}\n")),
                "{}",
                run.stderr
            );
        }
    }
    // The classes come back as they were.
    folder.fine("train --data x.npy --targets far.npy --rate 0.01 --checkpoint far");
    let run = folder.fine("predict --checkpoint far --data x.npy");
    assert!(
        run.stdout.starts_with("class,probability\n-1,") && run.stdout.contains("\n1000000000000,"),
        "{}",
        run.stdout
    );
    folder.fine("predict --checkpoint far --data x.npy --output y.npy");
    assert_eq!(fs::read(folder.path("y.npy")).unwrap(), fs::read(folder.path("far.npy")).unwrap());
    // A resumed run accepts its own classes and no others.
    let resume = "train --data x.npy --resume --checkpoint far --epochs 201 --targets";
    folder.fine(&format!("{resume} far.npy"));
    folder.refused(&format!("{resume} grades.npy"), 1, r#"grades.npy[0]: expected a known class, found 0"#);
}

#[test]
fn a_column_that_may_be_numbers_or_classes_is_refused_with_the_cure() {
    let folder = Folder::new();
    let refused = |texts: &[&str], text: &str| {
        folder.write("a.csv", table("x,t", texts.iter().enumerate().map(|(i, text)| format!("{i},\"{text}\""))));
        folder.refused("train --csv a.csv --target t", 1, text);
        if !texts.contains(&"") {
            let run = folder.fine("train --csv a.csv --target t --loss softmax --epochs 1");
            assert!(!run.stderr.contains("loss: "), "{}", run.stderr);
        }
    };
    let cure = "or --loss softmax takes all texts of the column as classes";
    refused(
        &["0.5", "1.5", "NA"],
        r#"a.csv:4: column "t": expected a number, as it is a column of numbers, found "NA""#,
    );
    refused(&["0.5", "1.5", "NA"], cure);
    refused(&["1", "2", "1", "2", "nan"], r#"a.csv:6: column "t": expected a number"#);
    refused(&["1", "", "1", "2", "1", "2"], r#"a.csv:3: column "t": expected a number"#);
    refused(&["1", "2", "1", "2", "inf"], r#"found "inf""#);
    refused(&["0,5", "1,5", "2,5"], r#"a.csv:2: column "t": expected a number with a decimal point"#);
    refused(&["7", "1,5", "7", "1,5"], r#"a.csv:3: column "t": expected a number with a decimal point"#);
    refused(&["1.5", "2.5", "many", "many"], r#"a.csv:4: column "t""#);
    let names = r#"a.csv: column "t": expected classes, of 2 rows or more on average, found 3 texts in 3 rows"#;
    refused(&["Ann", "Bob", "Eve"], names);
    refused(&["Ann", "Bob", "Eve"], "--loss softmax takes them all the same");

    // Clearly classes.
    let grades = ["1", "2", "3a", "3b"].repeat(2);
    folder.write("a.csv", table("x,t", grades.iter().enumerate().map(|(i, text)| format!("{i},{text}"))));
    let run = folder.fine("train --csv a.csv --target t --epochs 1");
    assert!(run.stderr.contains(r#"softmax, as "t" has 4 classes"#), "{}", run.stderr);
    folder.write("a.csv", "x,t\n1,a\n2,a\n3,a\n");
    folder.refused("train --csv a.csv --target t", 1, r#"a.csv: column "t": expected 2 classes or more, found 1: "a""#);
}

/// A class that two samples have, for the first seeds: sometimes both validate.
/// From 2^53 on, two whole numbers may be one in double precision.
#[test]
fn labels_that_double_precision_cannot_tell_apart_are_refused() {
    let folder = Folder::new();
    write_npy(folder.path("x.npy"), &Array2::<f64>::from_shape_fn((40, 1), |(i, _)| i as f64)).unwrap();
    let y: Array1<i64> = (0..40).map(|i| [1 << 53, (1 << 53) + 1, 1, 2][i % 4]).collect();
    write_npy(folder.path("y.npy"), &y).unwrap();
    let run = folder.run("train --data x.npy --targets y.npy --loss softmax --epochs 1");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("y.npy"), "{}", run.stderr);
}

/// A rate that has become 0 ends a run, and the state of the run is saved.
#[test]
fn a_run_that_an_error_ends_keeps_what_it_has() {
    let folder = Folder::new();
    folder.write("a.csv", table("x,t", (0..40).map(|i| format!("{i},{}", ["a", "b"][i % 2]))));
    let run = folder.run(
        "train --csv a.csv --target t --widths none --schedule step:1,0.1 --epochs 60 --history h.csv --plot p.svg --checkpoint run",
    );
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("learning_rate: "), "{}", run.stderr);
    let epochs = fs::read_to_string(folder.path("h.csv")).unwrap().lines().count() - 1;
    assert!((30..60).contains(&epochs) && folder.path("p.svg").exists(), "{epochs}");
    // Two steps an epoch, and all of them are in the checkpoint.
    let newest = fs::read_dir(folder.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).max().unwrap();
    assert_eq!(newest.to_str(), Some(format!("step-{:012}.safetensors", 2 * epochs).as_str()));
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

#[test]
fn prediction_takes_no_older_checkpoint_unless_it_is_named() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --epochs 3 --checkpoint run");
    let file = newest(&folder.path("run"));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let first = folder.path("run").join(format!("step-{:012}.safetensors", 1));
    let run = folder.run("predict --checkpoint run --csv flowers.csv");
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    let names = |text: &str| run.stderr.contains(text);
    assert!(names(file.file_name().unwrap().to_str().unwrap()) && names("expected"), "{}", run.stderr);
    let cure = format!("--checkpoint {}", first.canonicalize().unwrap().display());
    assert!(names(&cure) || names(&format!("--checkpoint {}", first.display())), "{}", run.stderr);
    let run = folder.fine(&format!("predict --csv flowers.csv --checkpoint {}", first.display()));
    assert_eq!(run.stdout.lines().count(), 91);
    folder.refused(&format!("predict --csv flowers.csv --checkpoint {}", file.display()), 1, "expected ");
}

#[cfg(unix)]
#[test]
fn each_input_is_opened_once_and_may_be_a_pipe() {
    use std::io::Write as _;

    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let text = fs::read(folder.path("flowers.csv")).unwrap();
    let piped = |line: &str| {
        let mut child = folder.command(line);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    folder.fine("train --csv flowers.csv --target species --validation 0.2 --epochs 2 --checkpoint file");
    piped("train --csv /dev/stdin --target species --validation 0.2 --epochs 2 --checkpoint pipe");
    assert_eq!(folder.model("pipe"), folder.model("file"));
    piped("train --csv /dev/stdin --resume --epochs 3 --checkpoint pipe");
    let predicted = folder.fine("predict --csv flowers.csv --checkpoint pipe").stdout;
    assert_eq!(piped("predict --csv /dev/stdin --checkpoint pipe"), predicted);

    // Named pipes, for arrays.
    let x = Array2::from_shape_fn((60, 2), |(i, j)| (i * (j + 1) % 7) as f64);
    write_npy(folder.path("x.npy"), &x).unwrap();
    write_npy(folder.path("y.npy"), &(0..60).map(|i| i % 3).collect::<Array1<i64>>()).unwrap();
    let fifos = |line: &str, names: &[&str]| {
        let writers: Vec<_> = names
            .iter()
            .map(|name| {
                let (file, fifo) = (folder.path(&format!("{name}.npy")), folder.path(&format!("{name}.fifo")));
                _ = fs::remove_file(&fifo);
                assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
                std::thread::spawn(move || fs::write(fifo, fs::read(file).unwrap()).unwrap())
            })
            .collect();
        let run = folder.fine(line);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        run
    };
    let run = fifos("train --data x.fifo --targets y.fifo --epochs 2 --checkpoint fifo", &["x", "y"]);
    assert!(run.stderr.contains("as the targets are 3 classes"), "{}", run.stderr);
    fifos("predict --data x.fifo --checkpoint fifo --output z.npy", &["x"]);
}

#[test]
fn what_is_wrong_with_data_is_said_with_the_row_of_the_file() {
    let folder = Folder::new();
    let mut x = Array2::from_shape_fn((40, 3), |(i, j)| (i * (j + 1) % 7) as f64);
    let y = Array1::from_shape_fn(40, |i| i as f64 + 0.5);
    write_npy(folder.path("x.npy"), &x).unwrap();
    write_npy(folder.path("y.npy"), &y).unwrap();
    folder.fine("train --data x.npy --targets y.npy --epochs 1 --checkpoint run");
    write_npy(folder.path("narrow.npy"), &x.slice(ndarray::s![.., ..2]).to_owned()).unwrap();
    let narrow = "narrow.npy: expected 3 columns, as the run has learned from, found 2 columns";
    folder.refused("predict --checkpoint run --data narrow.npy", 1, narrow);
    folder.refused("train --data narrow.npy --targets y.npy --resume --checkpoint run --epochs 2", 1, narrow);
    for found in [f64::NAN, f64::INFINITY] {
        let mut y = y.clone();
        y[23] = found;
        write_npy(folder.path("bad.npy"), &y).unwrap();
        // Whatever the shuffle of the division.
        let train = "train --data x.npy --targets bad.npy --validation 0.3";
        folder.refused(train, 1, &format!("error: bad.npy[23]: expected a finite number, found {found}"));
        x[(17, 1)] = found;
        write_npy(folder.path("bad.npy"), &x).unwrap();
        let text = format!("error: bad.npy[17, 1]: expected a finite number, found {found}");
        folder.refused("train --data bad.npy --targets y.npy --validation 0.3", 1, &text);
        folder.refused("predict --checkpoint run --data bad.npy", 1, &text);
    }
    write_npy(folder.path("half.npy"), &y).unwrap();
    let class = "half.npy[0]: expected a class, found 0.5";
    folder.refused("train --data x.npy --targets half.npy --loss softmax", 1, class);
    folder
        .write("a.csv", table("a,b,y", (0..40).map(|i| format!("{i},{},{i}.5", if i == 31 { "1e300" } else { "1" }))));
    let huge = r#"a.csv:33: column "b": expected a number that the network's f32 can hold, found 1e300"#;
    folder.refused("train --csv a.csv --target y --standardize=no --validation 0.4", 1, huge);
    folder.write("a.csv", table("a,y", (0..40).map(|i| format!("{i},{}", if i == 31 { "1e300" } else { "1.5" }))));
    let huge = r#"a.csv:33: column "y": expected a number that the network's f32 can hold, found "1e300""#;
    folder.refused("train --csv a.csv --target y --standardize=no --validation 0.4", 1, huge);
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

#[cfg(target_os = "linux")]
#[test]
fn paths_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let name = |ending: &str| OsStr::from_bytes(&[b"\xff.", ending.as_bytes()].concat()).to_owned();
    fs::rename(folder.path("flowers.csv"), folder.0.path().join(name("csv"))).unwrap();
    let fine = |line: &str, paths: &[(&str, &str)]| {
        let mut command = folder.command(line);
        paths.iter().for_each(|&(flag, ending)| {
            command.arg(flag).arg(name(ending));
        });
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let files = [("--csv", "csv"), ("--history", "json"), ("--plot", "svg"), ("--checkpoint", "run")];
    fine("train --target species --epochs 1", &files);
    fine("predict", &[("--csv", "csv"), ("--checkpoint", "run"), ("--output", "npy")]);
    for ending in ["json", "svg", "npy"] {
        assert!(folder.0.path().join(name(ending)).exists(), "{ending}");
    }
}

#[test]
fn a_column_is_left_out_if_asked_for_and_an_index_has_to_be() {
    let folder = Folder::new();
    let rows = |columns: &str| table(columns, (0..20).map(|i| format!("{i},no. {i},{},{}.5", i % 5, i % 7)));
    folder.write("named.csv", rows("index,name,x,y"));
    folder.write("first.csv", rows(",name,x,y"));
    folder.write("second.csv", rows("Unnamed: 0,name,x,y"));
    let name = r#"named.csv:2: column "name": expected a number, found "no. 0"; --drop "name" leaves the column out"#;
    folder.refused("train --csv named.csv --target y", 1, name);
    folder.refused("train --csv first.csv --target y --drop name", 1, r#"--drop """#);
    folder.refused("train --csv second.csv --target y --drop name", 1, r#"--drop "Unnamed: 0" leaves it out"#);
    folder.refused("train --csv named.csv --target y --drop color", 1, r#"expected "color""#);
    folder.refused("train --csv named.csv --target y --drop name --resume --checkpoint run", 2, "cannot be used with");
    for (file, index) in [("named.csv", "index"), ("first.csv", ""), ("second.csv", "Unnamed: 0")] {
        let mut command = folder.command("train --target y --drop name --epochs 1 --csv");
        let output = command.arg(file).args(["--checkpoint", file.trim_end_matches(".csv"), "--drop", index]).output();
        let output = output.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains("network 1-128-64-1"), "{stderr}");
    }
    // The run knows which columns it has learned from, and which it has left out.
    let named = folder.fine("predict --checkpoint named --csv named.csv").stdout;
    folder.refused("predict --checkpoint named --csv first.csv", 1, r#"found ""; --drop """#);
    let first = folder.command("predict --checkpoint named --csv first.csv").args(["--drop", ""]).output().unwrap();
    assert_eq!(String::from_utf8(first.stdout).unwrap(), named);
    folder.refused("predict --checkpoint named --csv named.csv --drop x", 1, r#"--drop "x": expected a column that"#);
    folder.write("alone.csv", "y\n1.5\n2.5\n");
    folder.refused("train --csv alone.csv --target y", 1, "alone.csv: columns: expected ");
}

/// A run that takes long enough for all that is done to it meanwhile.
#[cfg(unix)]
struct Running {
    child: std::process::Child,
    stderr: std::io::BufReader<std::process::ChildStderr>,
    text: String,
}

#[cfg(unix)]
impl Running {
    const LINE: &str = "train --csv flowers.csv --target species --validation 0.2 --epochs 10000000 --batch 8 --rate 0.03 --seed 5 --standardize=no";

    fn new(folder: &Folder, more: &str) -> Self {
        Self::of(folder.command(&format!("{} {more}", Self::LINE)))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, text: String::new() }
    }

    /// Reads until a line contains this text.
    fn says(&mut self, text: &str) -> &str {
        use std::io::BufRead;

        loop {
            let start = self.text.len();
            assert!(self.stderr.read_line(&mut self.text).unwrap() > 0, "{text}: {}", self.text);
            if self.text[start..].contains(text) {
                return &self.text[start..];
            }
        }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit code and the complete output.
    fn ends(mut self) -> (Option<i32>, String) {
        use std::io::Read;

        self.stderr.read_to_string(&mut self.text).unwrap();
        (self.child.wait().unwrap().code(), self.text)
    }
}

#[cfg(unix)]
#[test]
fn signals_stop_a_run_and_its_best_network_predicts() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    // If SIGHUP, number 1, is ignored where the tests were started, the program ignores it too, and
    // there is nothing to test. Others may be ignored beside it, as in the background of a script.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let nohup = mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|ignored| ignored & 1 == 1));
    let all = [("-INT", 130, "Ctrl-C"), ("-TERM", 143, "SIGTERM"), ("-HUP", 129, "SIGHUP")];
    for (signal, code, name) in all.into_iter().filter(|(signal, ..)| !(nohup && *signal == "-HUP")) {
        let files = format!("--checkpoint run{signal} --history h{signal}.csv --plot c{signal}.svg");
        let mut run = Running::new(&folder, &format!("--early-stopping 10000000 {files}"));
        run.says("epoch 1/");
        run.signal(signal);
        let (ended, text) = run.ends();
        assert_eq!(ended, Some(code), "{text}");
        let (summary, best) = text.rsplit_once("; predict takes the network of the best epoch, ").unwrap();
        assert!(summary.contains(&format!("stopped by {name} after ")), "{text}");
        // The best epoch by the history.
        let history = fs::read_to_string(folder.path(&format!("h{signal}.csv"))).unwrap();
        let loss = |line: &str| line.split(',').nth(3).unwrap().parse::<f64>().unwrap();
        let least = history.lines().enumerate().skip(1).min_by(|a, b| loss(a.1).total_cmp(&loss(b.1))).unwrap();
        assert_eq!(best.trim(), least.0.to_string());
        assert!(folder.path(&format!("c{signal}.svg")).exists());

        // Its network.
        let stored = Checkpoints::open(folder.path(&format!("run{signal}"))).unwrap().read().unwrap().value;
        let network: Model<f32> = stored.best_model().unwrap().unwrap();
        let table = data::csv_classes::<f32>(folder.path("flowers.csv"), "species").unwrap();
        let classes = network.classify(table.x.view()).unwrap();
        let run = folder.fine(&format!("predict --checkpoint run{signal} --csv flowers.csv"));
        let predicted = run.stdout.lines().skip(1).map(|line| line.split_once(',').unwrap().0);
        assert!(predicted.eq(classes.iter().map(|&class| table.y.names[class].as_str())));
        let differs = stored.model::<f32>().unwrap() != network;
        assert_eq!(run.stderr.contains("predicting with the network of its best epoch"), differs, "{}", run.stderr);
    }
}

/// A signal that nohup has set to be ignored stays ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_ignored_stops_nothing() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    let program = folder.command("");
    let mut command = Command::new("sh");
    command.current_dir(folder.0.path()).args(["-c", r#"trap "" HUP; exec "$0" "$@""#]);
    let mut run = Running::of({
        command.arg(program.get_program()).args(Running::LINE.split_whitespace()).stdin(Stdio::null());
        command
    });
    run.says("epoch 1/");
    run.signal("-HUP");
    run.says("epoch ");
    run.says("epoch ");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(143));
}

#[cfg(unix)]
#[test]
fn one_run_at_a_time_has_a_folder_and_prediction_goes_on_beside_it() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    let mut run = Running::new(&folder, "--checkpoint run");
    run.says("epoch 1/");
    // The refusal comes at once: the data do not even exist.
    for line in
        ["train --csv none.csv --target species --checkpoint run", "train --csv none.csv --resume --checkpoint run"]
    {
        folder.refused(line, 1, "expected no run that writes here");
    }
    folder.fine("predict --checkpoint run --csv flowers.csv");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(143));
    folder.fine("train --csv flowers.csv --resume --checkpoint run --epochs 1");
}

/// A folder in the place of the file that is written first makes each try fail, root's too.
#[cfg(unix)]
#[test]
fn a_state_that_cannot_be_kept_is_said_and_tried_again_and_the_run_goes_on() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    let mut run = Running::new(&folder, "--checkpoint run --history h.csv --plot c.svg");
    run.says("epoch 1/");
    let first = folder.path("run").join(format!("step-{:012}.safetensors", 1));
    assert!(first.exists());
    fs::create_dir(folder.path("run/.writing")).unwrap();
    let warning = run.says("warning: ");
    assert!(warning.contains("the run goes on and tries to keep its state again"), "{warning}");
    fs::remove_dir(folder.path("run/.writing")).unwrap();
    run.says("checkpoints can be written again");
    assert!(newest(&folder.path("run")) > first);
    fs::create_dir(folder.path("run/.writing")).unwrap();
    run.signal("-INT");
    let (code, text) = run.ends();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("stopped by Ctrl-C after"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("error: the run's last state could not be kept: "), "{text}");
    assert!(folder.path("h.csv").exists() && folder.path("c.svg").exists());

    // Where none has been written, nothing would be lost.
    fs::create_dir_all(folder.path("new/.writing")).unwrap();
    folder.refused("train --csv flowers.csv --target species --checkpoint new", 1, ".writing");
}

/// A checkpoint as the program made them before it standardised by itself, of a network with these
/// weights.
fn older(folder: &Folder, name: &str, loss: &str, classes: &[&str], weight: f32, standardize: bool) -> Model<f32> {
    let outputs = classes.len().max(1);
    let mlp = Mlp::from_weights(&[2, outputs], Bias::None, 0, |_, _, _| f64::from(weight)).unwrap();
    let training =
        Training { standardize, epochs: 1, learning_rate: LearningRate::constant(1e-9), ..Training::default() };
    let (x, y) = (ndarray::array![[1.0, 2.0], [3.0, 8.0]], Array2::zeros((2, outputs)));
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    if standardize {
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    }
    let task = serde_json::json!({
        "loss": loss, "classes": classes, "columns": ["a", "b"], "target": "t",
        "scale": if classes.is_empty() { vec![(5.0, 2.0)] } else { vec![] },
        "validation": null, "seed": 0, "checksum": 0,
    });
    let notes = Notes::from([("task".to_owned(), task.to_string())]);
    Checkpoints::create(folder.path(name)).unwrap().save(&trainer, &notes).unwrap();
    trainer.into_model()
}

#[test]
fn a_run_of_an_older_version_still_predicts() {
    let folder = Folder::new();
    let model = older(&folder, "run", "Squared", &[], 0.75, true);
    folder.write("a.csv", "b,a\n2,1\n8,3\n9.5,-4\n");
    let y_hat = model.predict(ndarray::array![[1.0, 2.0], [3.0, 8.0], [-4.0, 9.5]].view()).unwrap();
    let predicted = folder.fine("predict --checkpoint run --csv a.csv").stdout;
    let expected = y_hat.iter().map(|&y| f64::from(y) * 2.0 + 5.0);
    assert!(predicted.lines().skip(1).map(|line| line.parse::<f64>().unwrap() as f32).eq(expected.map(|y| y as f32)));
}

#[test]
fn of_equal_outputs_the_first_is_the_class() {
    let folder = Folder::new();
    let model = older(&folder, "equal", "Softmax", &["a", "b", "c"], 0.5, false);
    folder.write("a.csv", "a,b\n1,2\n-3,4\n");
    assert_eq!(model.classify(ndarray::array![[1.0, 2.0], [-3.0, 4.0]].view()).unwrap(), ndarray::array![0, 0]);
    let predicted = folder.fine("predict --checkpoint equal --csv a.csv").stdout;
    assert!(predicted.lines().skip(1).all(|line| line.starts_with("a,0.333")), "{predicted}");
}

#[test]
fn outputs_that_are_not_finite_are_refused_with_their_row() {
    let folder = Folder::new();
    older(&folder, "huge", "Softmax", &["a", "b", "c"], f32::MAX, false);
    folder.write("a.csv", "a,b\n0.1,0.2\n\n0.1,-0.2\n30,5\n");
    let run = folder.run("predict --checkpoint huge --csv a.csv");
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("error: a.csv:5: "), "{}", run.stderr);
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

/// A checkpoint of a network without hidden layers and biases, with these weights.
fn linear(folder: &Folder, name: &str, task: &serde_json::Value, widths: [usize; 2], weight: fn(usize, usize) -> f64) {
    let mut mlp = Mlp::<f32>::he(&widths, Bias::None, 0).unwrap();
    for ((i, j), alpha) in mlp.parameters_mut().alpha_mut().indexed_iter_mut() {
        *alpha = weight(i, j) as f32;
    }
    mlp.parameters_mut().b_mut().fill(0.0);
    let trainer = Trainer::<f32, _>::new(mlp, SquaredError, Training::default()).unwrap();
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

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
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
    let run = folder.fine("evaluate --checkpoint numbers --csv a.csv");
    assert!(run.stdout.contains("\n  MAE  0.50000 (95 %: "), "{}", run.stdout);
    // R² is that of a mean which the answers do not have.
    folder.write("a.csv", "a,t\n1,0.1\n2,0.1\n3,0.1\n");
    let run = folder.fine("evaluate --checkpoint numbers --csv a.csv --json");
    assert!(json(&run.stdout)["numbers"][0]["r2"]["value"].is_null(), "{}", run.stdout);
}

#[test]
fn a_table_is_read_as_people_have_it() {
    let folder = Folder::new();
    let rows: Vec<[String; 3]> =
        (0..30).map(|i| [format!("{}", i % 7), format!("{}.5", i % 5), format!("no; {}, or\t{0}", i % 2)]).collect();
    let file = |name: &str, separator: &str, end: &str, head: &str| {
        let line =
            |fields: &[String]| fields.iter().map(|field| format!("\"{field}\"")).collect::<Vec<_>>().join(separator);
        let names = ["a", "b; of, all", "t"].map(str::to_owned);
        let lines: Vec<String> = [names].iter().chain(&rows).map(|row| line(row)).collect();
        folder.write(name, format!("{head}{}{end}", lines.join(end)));
        folder.fine(&format!("train --csv {name} --target t --epochs 2 --checkpoint {name}.run"));
        folder.model(&format!("{name}.run"))
    };
    let plain = file("plain.csv", ",", "\n", "");
    assert_eq!(file("semicolons.csv", ";", "\r\n", "\u{feff}"), plain);
    assert_eq!(file("tabs.csv", "\t", "\n", ""), plain);
    assert_eq!(file("excel.csv", ";", "\r\n", "\u{feff}sep=;\r\n"), plain);
    folder.write("pipes.csv", "a|t\n1|x\n2|y\n1|x\n2|y\n");
    let pipes = r#"pipes.csv: column: expected "t", found "a|t"; --separator tells what separates the fields"#;
    folder.refused("train --csv pipes.csv --target t --epochs 1", 1, pipes);
    folder.fine("train --csv pipes.csv --separator | --target t --epochs 1 --checkpoint pipes");
    folder.refused("predict --csv pipes.csv --separator tab --checkpoint pipes", 1, r#"expected "a", found "a|t""#);
    folder.refused("train --csv pipes.csv --separator || --target t", 2, "expected one ASCII character, or tab");
}

#[test]
fn texts_and_missing_values_become_what_was_chosen_and_it_is_remembered() {
    let folder = Folder::new();
    // Of 4 numbers, whose mean is 3; texts a, b with the shares 3/4 and 1/4.
    folder.write("raw.csv", "n,kind,t\n1,a,x\n,b,y\n5,a,x\n2,a,y\nNA,,x\n4,,y\n");
    folder.write("hand.csv", "n,kind=a,kind=b,t\n1,1,0,x\n3,0,1,y\n5,1,0,x\n2,1,0,y\n3,0.75,0.25,x\n4,0.75,0.25,y\n");
    let train = "--target t --epochs 3 --standardize=no --checkpoint";
    let run = folder.fine(&format!("train --csv raw.csv --one-hot kind --missing mean {train} raw"));
    assert!(run.stderr.contains("network 3-128-64-2"), "{}", run.stderr);
    folder.fine(&format!("train --csv hand.csv {train} hand"));
    assert_eq!(folder.model("raw"), folder.model("hand"));
    let predicted = |run: &str| folder.fine(&format!("predict --checkpoint {run} --csv {run}.csv")).stdout;
    assert_eq!(predicted("raw"), predicted("hand"));
    let run = folder.fine("train --csv raw.csv --resume --checkpoint raw --epochs 4");
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    // Columns that are 1 or 0 keep that, others are scaled.
    folder.fine("train --csv raw.csv --one-hot kind --missing mean --target t --epochs 1 --checkpoint scaled");
    let scales = folder.task("scaled")["inputs"].clone();
    assert_eq!((&scales[1], &scales[2]), (&serde_json::json!([0.0, 1.0]), &serde_json::json!([0.0, 1.0])));
    assert_eq!(scales[0][0].as_f64(), Some(3.0));

    folder.write("other.csv", "kind,n\na,1\nc,2\n");
    let other = r#"other.csv:3: column "kind": expected one of the 2 texts that are known, found "c""#;
    folder.refused("predict --checkpoint raw --csv other.csv", 1, other);
    let missing = r#"raw.csv:3: column "n": expected a number, found ""; --missing mean"#;
    folder.refused(&format!("train --csv raw.csv --one-hot kind {train} none"), 1, missing);
    let texts =
        r#"raw.csv:2: column "kind": expected a number, found "a"; --drop "kind" leaves the column out, and --one-hot"#;
    folder.refused(&format!("train --csv raw.csv --missing mean {train} none2"), 1, texts);
    folder.write("whole.csv", "n,kind,t\n1,a,x\n2,b,y\n5,a,x\n2,a,y\n");
    folder.fine(&format!("train --csv whole.csv --one-hot kind {train} whole"));
    folder.refused(
        "predict --checkpoint whole --csv raw.csv",
        1,
        r#"raw.csv:3: column "n": expected a number, found """#,
    );
    folder.write("empty.csv", "n,m,t\n1,,x\n2,,y\n1,,x\n2,,y\n");
    let empty = r#"empty.csv: column "m": expected a number in a row that is trained on, found none; --drop "m""#;
    folder.refused(&format!("train --csv empty.csv --missing mean {train} none3"), 1, empty);
    folder.refused(&format!("train --csv raw.csv --one-hot color {train} none4"), 1, r#"expected "color""#);
    folder.refused(&format!("train --csv raw.csv --one-hot t {train} none5"), 1, r#"--one-hot "t": expected an input"#);
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
    // The weights of 4 and of 32 of 36 samples, of 2 classes.
    folder.fine("train --csv unequal.csv --target species --epochs 4 --standardize=no --class-weight balanced --checkpoint bits");
    let x = Array2::from_shape_fn((36, 1), |(i, _)| i as f32);
    let rare = Array1::from_shape_fn(36, |i| i % 9 == 0);
    let weights = rare.mapv(|rare| if rare { 36.0 / (2.0 * 4.0) } else { 36.0 / (2.0 * 32.0) });
    let training = Training {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::constant(0.001),
        epochs: 4,
        batch: 32,
        ..Training::default()
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
fn a_checkpoint_is_shown_and_exported() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --widths 5 --epochs 3 --checkpoint run");
    let text = folder.fine("inspect --checkpoint run").stdout;
    for part in [
        "network 2-5-3, 33 parameters in f32",
        "layer 1: weights 3 x 5, norm ",
        "column \"width\": a number",
        "bias: every_layer; products: ",
        "inputs are standardised\n\ntraining by softmax_cross_entropy: 9 steps\n  batch: 32\n  decay_biases: true\n",
        "3 epochs of 3",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown = json(&folder.fine("inspect --checkpoint run --json").stdout);
    let model = folder.model("run");
    for (i, (w, c)) in model.mlp.parameters().layers().enumerate() {
        let norm = |numbers: &mut dyn Iterator<Item = &f32>| numbers.map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        assert_eq!(shown["layers"][i]["weight"], serde_json::json!(w.shape()));
        for (what, norm) in [("weight_norm", norm(&mut w.iter())), ("bias_norm", norm(&mut c.iter()))] {
            assert_eq!(shown["layers"][i][what].as_f64(), Some(norm));
        }
    }
    assert_eq!(shown["run"]["history"].as_array().map(Vec::len), Some(3));

    let run = folder.fine("export --checkpoint run --onnx flowers.onnx");
    assert_eq!(run.stderr, "flowers.onnx: x has 2 columns: \"length\", \"width\"\n");
    let bytes = fs::read(folder.path("flowers.onnx")).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("Softmax") && has("Sub") && has(r#"["aster","lily","rose"]"#));
    folder.refused("export --checkpoint run --onnx none/a.onnx", 1, "none: there is no such folder");
    folder.refused("inspect --checkpoint none", 1, "none");
}

/// Scales before and behind a linear network become its weights and those of the standardiser.
#[test]
fn what_is_exported_predicts_what_the_program_does() {
    let folder = Folder::new();
    // Whole numbers, which f32 has exactly, far from 0 and on different scales.
    let x = Array2::from_shape_fn((40, 2), |(i, j)| [1e5 + (i * i % 17) as f32, 3.0 * (i % 7) as f32][j]);
    let rows = |i: usize| format!("{},{},{}", x[(i, 0)], x[(i, 1)], 5000 + 300 * (i * i % 17) + 77 * (i % 7));
    folder.write("a.csv", table("a,b,y", (0..40).map(rows)));
    folder.fine("train --csv a.csv --target y --loss squared --widths none --epochs 30 --rate 0.05 --checkpoint run");
    folder.fine("export --checkpoint run --onnx a.onnx");
    let (exported, _) = evaluate(&fs::read(folder.path("a.onnx")).unwrap(), x.view());
    let predicted = folder.fine("predict --checkpoint run --csv a.csv").stdout;
    let predicted: Vec<f64> = predicted.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    let (task, model) = (folder.task("run"), folder.model("run"));
    let scale = |what: &str, i: usize| [0, 1].map(|part| task[what][i][part].as_f64().unwrap());
    let ([mean, deviation], theta) = (scale("scale", 0), model.mlp.parameters());
    let alpha = theta.alpha();
    assert!(mean > 5000.0 && deviation > 1000.0);
    for ((x, &exported), predicted) in x.outer_iter().zip(&exported).zip(predicted) {
        // With ŷ = s (Σ α z + b) + m: each z, s α and s b + m is rounded once to f32, and so are n
        // products and sums, in both; what is done in f64 is less than two roundings more.
        let terms = x.iter().zip(alpha.row(0)).enumerate().map(|(i, (&x, &alpha))| {
            let [mean, deviation] = scale("inputs", i);
            (f64::from(alpha) * (f64::from(x) - mean) / deviation).abs()
        });
        let size = deviation * (terms.sum::<f64>() + f64::from(theta.b()[0]).abs()) + mean.abs();
        let bound = gamma(2 * (2 + 1) + 4 + 2, f64::from(f32::EPSILON) / 2.0) * size;
        assert!((exported - predicted).abs() <= bound, "{exported} {predicted} {bound}");
    }
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
