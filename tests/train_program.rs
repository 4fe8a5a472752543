//! The program `examples/train`, as it is used: files in, exit codes and messages out; what it predicts is what its network predicts; and
//! stopped and resumed, it ends with the bits of a run that was never stopped.
//!
//! The program is built by `cargo test --features progress` (`ci/test` does that), before the tests run; for this file alone:
//! `cargo build --features progress --example train` first.

#![cfg(all(feature = "files", feature = "progress"))]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gemmprop::{Checkpoints, Generator, Model, SoftmaxCrossEntropy, SquaredError, data};
use ndarray::{Array1, Array2};
use ndarray_npy::write_npy;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

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
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        program.extend(["examples".to_owned(), format!("train{}", std::env::consts::EXE_SUFFIX)]);
        assert!(program.exists(), "{} is not built", program.display());
        let mut command = Command::new(program);
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

    /// Must go well.
    fn fine(&self, line: &str) -> Run {
        let run = self.run(line);
        assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
        run
    }

    /// Must fail with this code and one line that has this text.
    fn refused(&self, line: &str, code: i32, text: &str) {
        let run = self.run(line);
        assert_eq!(run.code, Some(code), "{line}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{line}: {}", run.stderr);
        if code == 1 {
            assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", run.stderr);
        }
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
    let run = folder
        .fine("--csv flowers.csv --target species --validation 0.2 --checkpoint run --history h.csv --plot c.svg");
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains(r#"loss: softmax, as "species" has 3 classes"#), "{}", run.stderr);
    assert!(run.stderr.contains("240 samples to train on, 60 to validate with; network 2-128-64-3"), "{}", run.stderr);
    assert!(number_after(&run.stderr, "accuracy ") > 0.9, "{}", run.stderr);
    assert_eq!(fs::read_to_string(folder.path("h.csv")).unwrap().lines().count(), 201);
    assert!(fs::read_to_string(folder.path("c.svg")).unwrap().starts_with("<svg"));
    folder.fine("--csv flowers.csv --resume --checkpoint run --history h.json --plot c.png");
    assert!(fs::read_to_string(folder.path("h.json")).unwrap().starts_with('['));
    assert!(fs::read(folder.path("c.png")).unwrap().starts_with(b"\x89PNG"));

    // Other columns in another order, and one that is not known.
    folder.flowers("others.csv", &["species", "width", "name", "length"], 90);
    let run = folder.fine("predict --checkpoint run --csv others.csv");
    assert!(number_after(&run.stderr, "accuracy ") > 0.9, "{}", run.stderr);
    folder.flowers("unknown.csv", &["width", "length"], 90);
    let unknown = folder.fine("predict --checkpoint run --csv unknown.csv");
    assert_eq!(unknown.stdout, run.stdout);
    assert_eq!(unknown.stderr, "");

    // The network says the same.
    folder.flowers("ordered.csv", &FLOWERS, 90);
    let x = data::csv_classes::<f32>(folder.path("ordered.csv"), "species").unwrap().x;
    let y_hat = folder.model("run").predict(x.view()).unwrap();
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
    let run = folder.fine("--csv houses.csv --target price --validation 0.2 --checkpoint run");
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
        "--data x.npy --targets labels.npy --loss logistic --optimizer nesterov --schedule cosine --checkpoint run",
    );
    assert!(run.stderr.contains("network 2-128-64-1"), "{}", run.stderr);
    folder.fine("predict --checkpoint run --data x.npy --output classes.npy");
    let classes = data::npy_labels(folder.path("classes.npy")).unwrap();
    let right = classes.iter().zip(&labels).filter(|&(&class, &label)| class as i64 == label).count();
    assert!(right > 190, "{right} of 200");

    let run = folder.fine("--data x.npy --targets y.npy --widths none --epochs 3 --checkpoint numbers");
    assert!(run.stderr.contains("loss: squared, as the targets are floating-point"), "{}", run.stderr);
    assert!(run.stderr.contains("network 2-2"), "{}", run.stderr);
    assert!(folder.fine("predict --checkpoint numbers --data x.npy").stdout.starts_with("y0,y1\n"));
    folder.refused("--data x.npy --targets y.npy --loss softmax", 1, "y.npy: shape: expected 1 dimension, found 2");
    write_npy(folder.path("few.npy"), &Array1::from(vec![0_i64, 1])).unwrap();
    folder.refused("--data x.npy --targets few.npy", 1, "targets: expected 200, one for each row of the data, found 2");
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
    let run = folder.fine("--idx . --checkpoint run");
    assert!(run.stderr.contains("200 samples to train on, 40 to validate with; network 4-128-64-4"), "{}", run.stderr);
    let run = folder.fine("predict --checkpoint run --idx .");
    assert!(run.stderr.contains("of 40 samples") && number_after(&run.stderr, "accuracy ") == 1.0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 41);
    let run = folder.fine("--idx . --validation 0.5 --epochs 1");
    assert!(run.stderr.contains("100 samples to train on, 100 to validate with"), "{}", run.stderr);
}

/// A run that takes some seconds.
#[cfg(unix)]
const LONG: &str = "--csv flowers.csv --target species --validation 0.2 --epochs 300 --batch 8 --schedule cosine --seed 5 \
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
        // To the first report of an epoch.
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
        line = "--csv flowers.csv --resume --checkpoint stopped --history stopped.csv".to_owned();
    }
    assert_eq!(folder.model("stopped"), folder.model("whole"));
    let losses = |name| {
        let text = fs::read_to_string(folder.path(name)).unwrap();
        // All but the time, which is last.
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
    folder.fine("--csv flowers.csv --resume --checkpoint killed");
    assert_eq!(folder.model("killed"), folder.model("whole"));
}

#[test]
fn a_run_that_has_stopped_early_is_over_until_it_gets_more_epochs() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let train = "--csv flowers.csv --target species --validation 0.3 --rate 0.03 --early-stopping 2 --epochs 400";
    let run = folder.fine(&format!("{train} --checkpoint run"));
    assert!(run.stderr.contains("then nothing had got better"), "{}", run.stderr);
    let (model, file) = (folder.model("run"), newest(&folder.path("run")));
    let run = folder.fine("--csv flowers.csv --resume --checkpoint run");
    assert!(run.stderr.contains("nothing to do, nothing had got better"), "{}", run.stderr);
    assert_eq!((folder.model("run"), newest(&folder.path("run"))), (model, file.clone()));
    folder.fine("--csv flowers.csv --resume --checkpoint run --epochs 401");
    assert!(newest(&folder.path("run")) > file);
}

/// Decimals so near to the middle of two f32 that they round to one as they are, and to the other by way of f64.
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
    let train = "--csv a.csv --target y --standardize=no --optimizer sgd --rate 0.0001";
    folder.fine(&format!("{train} --epochs 4 --checkpoint whole"));
    folder.fine(&format!("{train} --epochs 2 --checkpoint run"));
    let run = folder.fine("--csv a.csv --resume --checkpoint run --epochs 4");
    assert_eq!(folder.model("run"), folder.model("whole"));
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

/// Of as many rows and columns, so that nothing else would show it.
#[test]
fn a_run_that_is_resumed_with_other_samples_says_so() {
    let folder = Folder::new();
    let text: String = (0..64).map(|row| format!("{row},{}\n", row % 7)).collect();
    fs::write(folder.path("a.csv"), format!("x,y\n{text}")).unwrap();
    folder.fine("--csv a.csv --target y --loss squared --epochs 2 --checkpoint run");
    let other = "warning: these are not the samples that the run began with";
    for (changed, epochs) in [("63,0", 3), ("63.5,0", 4), ("63,0.5", 5)] {
        fs::write(folder.path("a.csv"), format!("x,y\n{}", text.replace("63,0", changed))).unwrap();
        let run = folder.fine(&format!("--csv a.csv --resume --checkpoint run --epochs {epochs}"));
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
    let train = "--csv a.csv --target y --widths none --optimizer sgd --rate 3 --epochs 5000";
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
    let train = "--csv a.csv --target y --optimizer sgd --rate 1e30 --batch 8 --checkpoint none --history none.csv";
    folder.refused(train, 1, "a smaller --rate may help");
    let history = fs::read_to_string(folder.path("none.csv")).unwrap();
    assert!(history.starts_with("epoch,steps,loss,") && history.lines().count() == 1, "{history}");
}

#[test]
fn an_epoch_without_a_loss_is_not_the_best() {
    let folder = Folder::new();
    // A number that overflows in the network, in a row that validates: in one of them.
    let run = (0..20).find_map(|huge| {
        let row =
            |i: usize| format!("{},{}\n", if i == huge { "3e38".into() } else { i.to_string() }, ["a", "b"][i % 2]);
        fs::write(folder.path("a.csv"), format!("x,y\n{}", (0..20).map(row).collect::<String>())).unwrap();
        let run = folder.run("--csv a.csv --target y --standardize=no --validation 0.5 --early-stopping 3 --rate 0.01");
        (run.code == Some(0) && run.stderr.contains("validation loss NaN")).then_some(run)
    });
    let summary = run.expect("a loss that is NaN").stderr;
    let summary = summary.lines().last().unwrap();
    assert!(summary.contains("validation loss NaN") && !summary.contains("best epoch"), "{summary}");
}

#[test]
fn rows_without_a_known_answer_are_predicted_and_not_scored() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("--csv flowers.csv --target species --checkpoint run");
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
    folder.fine("--csv numbers.csv --target y --epochs 1 --loss squared --checkpoint numbers");
    fs::write(folder.path("gap.csv"), "x,y\n1,1.5\n2,\n3,3.5\n").unwrap();
    let run = folder.fine("predict --checkpoint numbers --csv gap.csv");
    assert!(run.stderr.starts_with("RMSE ") && run.stderr.contains("of 2 samples; of 3"), "{}", run.stderr);
    let refused = r#"gap.csv:3: column "y": expected a number, found """#;
    folder.refused("--csv gap.csv --resume --checkpoint numbers --epochs 2", 1, refused);
}

#[test]
fn flat_minima_are_sought_if_asked_for() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let train = "--csv flowers.csv --target species --epochs 3";
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
    folder.fine("--csv flowers.csv --target species --epochs 4 --checkpoint whole");
    folder.fine("--csv flowers.csv --target species --epochs 2 --checkpoint run");
    let more = "--csv flowers.csv --resume --checkpoint run --epochs 4";
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
    let train = "--csv flowers.csv --target species --epochs 1";
    folder.fine(&format!("{train} --checkpoint run"));

    // Flags: 2.
    folder.refused("", 2, "Usage: train");
    folder.refused("--csv flowers.csv", 2, "--target COLUMN");
    folder.refused("--data x.npy", 2, "--targets Y.npy");
    folder.refused("--csv flowers.csv --idx . --target species", 2, "cannot be used with");
    folder.refused(&format!("{train} --resume"), 2, "--checkpoint");
    let resume = format!("{train} --resume --checkpoint run --batch 3");
    folder.refused(&resume, 2, "'--resume' cannot be used with '--batch <N>'");
    folder.refused(&format!("{train} --rate 0"), 2, "expected a number above 0");
    folder.refused(&format!("{train} --sam 0"), 2, "expected a number above 0");
    folder.refused(&format!("{train} --schedule fast"), 2, "expected constant, cosine");
    folder.refused(&format!("{train} --plot c.gif"), 2, ".svg or .png");
    folder.refused("predict --csv flowers.csv", 2, "--checkpoint");

    // Files: 1.
    folder.refused("--csv none.csv --target species", 1, "error: none.csv: ");
    folder.refused(
        "--csv flowers.csv --target color",
        1,
        r#"flowers.csv: column: expected "color", found "length", "width""#,
    );
    folder.refused("--csv bad.csv --target species", 1, r#"bad.csv:3: column "width": expected a number, found "x""#);
    folder.refused("--idx .", 1, "error: .: files: expected images and labels");
    folder.refused(&format!("{train} --loss logistic"), 1, "expected 2 classes, found 3");
    folder.refused(&format!("{train} --plot none/c.svg"), 1, "error: none: there is no such folder");
    folder.refused(&format!("{train} --checkpoint run"), 1, "--resume");
    folder.refused(&format!("{train} --resume --checkpoint none"), 1, "none");
    fs::create_dir(folder.path("empty")).unwrap();
    folder.refused(&format!("{train} --resume --checkpoint empty"), 1, "expected a whole checkpoint, found none");
    folder.refused("--csv short.csv --resume --checkpoint run", 1, r#"short.csv: column: expected "width", found "#);
    folder.refused(
        "--csv other.csv --resume --checkpoint run",
        1,
        r#"other.csv:2: column "species": expected a known class, found "oak""#,
    );
    folder.refused(
        "--csv twice.csv --resume --checkpoint run",
        1,
        r#"twice.csv:1: column "width": expected a name for"#,
    );
    folder.refused("--csv flowers.csv --target length --resume --checkpoint run", 1, r#"expected "species""#);
    folder.refused("predict --checkpoint run --csv short.csv", 1, r#"short.csv: column: expected "width", found "#);
    let bad = r#"bad.csv:3: column "width": expected a number, found "x""#;
    folder.refused("predict --checkpoint run --csv bad.csv", 1, bad);
    folder.refused("predict --checkpoint run --idx .", 1, "expected --csv");
    folder.refused("--csv flowers.csv --target species --rate 1e30 --optimizer sgd", 1, "a smaller --rate may help");
}

#[test]
fn whoever_reads_only_the_first_lines_is_no_error() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 30_000);
    folder.fine("--csv flowers.csv --target species --epochs 1 --widths 4 --checkpoint run");
    let mut child = folder.command("predict --checkpoint run --csv flowers.csv");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.starts_with("accuracy ") && stderr.lines().count() == 1, "{stderr}");
}

/// What follows `cargo run … --` in a text, the lines that go on joined.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let command = |line: &str| {
        let (_, rest) = line.trim_start().strip_prefix("cargo run ")?.split_once(" --example train -- ")?;
        Some(rest.to_owned())
    };
    text.lines().filter_map(command).collect()
}

#[test]
fn the_help_and_the_readme_have_two_commands_that_work_as_they_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let help = |flag| Folder::new().fine(flag).stdout;
    for text in [help("-h"), help("--help"), fs::read_to_string(root.join("README.md")).unwrap()] {
        let folder = Folder::new();
        fs::create_dir(folder.path("examples")).unwrap();
        fs::copy(root.join("examples/flowers.csv"), folder.path("examples/flowers.csv")).unwrap();
        let [train, predict] = &commands(&text)[..] else { panic!("{text}") };
        let run = folder.fine(train);
        assert!(run.stderr.contains("150 samples to train on; network 4-128-64-3"), "{}", run.stderr);
        let run = folder.fine(predict);
        assert!(number_after(&run.stderr, "accuracy ") > 0.95, "{}", run.stderr);
        assert_eq!(run.stdout.lines().count(), 151);
    }
    let help = help("--help").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("times F when more than N epochs in a row bring nothing better"), "{help}");
}
