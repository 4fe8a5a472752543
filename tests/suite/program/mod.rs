//! The program `gemmprop`, as it is used: files in, exit codes and messages out; what it
//! predicts is what its network predicts; and stopped and resumed, it ends with the bits of a run
//! that was never stopped.

#![cfg(feature = "cli")]

mod data;
mod evaluate;
mod from_disk;
mod inspect_export;
mod learning_curve;
mod predict;
mod runs;
mod train;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gemmprop::{
    Bias, Dataset, Generator, LearningRate, Mlp, Model, SquaredError, Trainer, TrainingSettings,
    checkpoint::{Checkpoints, Notes},
};
use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

/// A folder in which the program runs.
struct Folder(TempDir);

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

/// How a run of the program ended.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
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

/// Images of 2 × 2 pixels in a folder, of which the label says the brightest, and their labels.
fn idx_images(folder: &Folder, name: &str, images: usize) {
    let pixel = |i: usize, at: usize| if at == i % 4 { 255 } else { (i * 31 + at * 17) as u8 % 100 };
    let mut bytes = [0, 0, 8, 3].to_vec();
    [images as u32, 2, 2].iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    (0..images).for_each(|i| bytes.extend((0..4).map(|at| pixel(i, at))));
    folder.write(&format!("{name}-images-idx3-ubyte"), &bytes);
    bytes = [0, 0, 8, 1].to_vec();
    bytes.extend((images as u32).to_be_bytes());
    bytes.extend((0..images).map(|i| (i % 4) as u8));
    folder.write(&format!("{name}-labels-idx1-ubyte"), &bytes);
}

/// The points of each line of a figure with this colour and width.
fn lines(figure: &str, colour: &str, width: usize) -> Vec<Vec<[f64; 2]>> {
    let drawn = format!("stroke=\"{colour}\" stroke-width=\"{width}\" points=\"");
    let point = |text: &str| {
        let (x, y) = text.split_once(',').unwrap();
        [x, y].map(|number| number.parse().unwrap())
    };
    let lines = figure.split("<polyline").filter_map(|line| line.split_once(&drawn)?.1.split('"').next());
    lines.map(|points| points.split_whitespace().map(point).collect()).collect()
}

/// The colours of the first two series of a figure.
const BLUE: &str = "#0072B2";
const VERMILION: &str = "#D55E00";

/// A line for each of these rows, under a header.
fn table(header: &str, rows: impl Iterator<Item = String>) -> String {
    rows.fold(format!("{header}\n"), |text, row| text + &row + "\n")
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A checkpoint as the program made them before it standardised by itself, of a network with these
/// weights.
fn older(folder: &Folder, name: &str, loss: &str, classes: &[&str], weight: f32, standardize: bool) -> Model<f32> {
    let outputs = classes.len().max(1);
    let mlp = Mlp::from_weights(&[2, outputs], Bias::None, 0, |_, _, _| f64::from(weight)).unwrap();
    let training = TrainingSettings {
        standardize,
        epochs: 1,
        learning_rate: LearningRate::constant(1e-9),
        ..TrainingSettings::default()
    };
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
