//! A training step in other libraries: each is a process of its own, and they take turns with ours.
//! `ci/peers` builds them.

use std::error::Error;
use std::io::{BufRead, BufReader, BufWriter, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use gemmprop::{Bias, Mlp, Sgd, SquaredError};
use ndarray::{Array2, ArrayView2, Axis};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::step::{median, short};
use report::page::Table;
use report::plot::{Axis as FigureAxis, Figure, Marker, Panel, RGBColor, Scale, Series, Stroke, colour};
use report::progress::Progress;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A peer on a shape.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) peer: String,
    pub(crate) version: String,
    pub(crate) widths: String,
    pub(crate) batch: usize,
    pub(crate) threads: usize,
    pub(crate) step_seconds: f64,
}

/// Widths, input and output included, and batch.
pub(crate) type Shape = (&'static [usize], usize);

const SHAPES: [Shape; 8] = [
    (&[16, 16, 16, 1], 32),
    (&[64, 64, 64, 1], 32),
    (&[784, 300, 100, 1], 1),
    (&[64, 256, 256, 1], 64),
    (&[784, 512, 512, 1], 128),
    (&[1024, 1024, 1024, 1024, 1], 32),
    (&[1024, 1024, 1024, 1024, 1], 256),
    (&[2048, 2048, 2048, 2048, 1], 512),
];

/// The number of batches in the data, which are used in this order again and again.
const BATCHES: usize = 8;

/// The number of steps whose losses are compared.
const FIRST_STEPS: usize = 10;

/// The wait until the threads of the last peer sleep: OpenBLAS's spin for 107 ms, those of an
/// OpenMP runtime for up to 200 ms.
const PAUSE: Duration = Duration::from_millis(250);

/// Seconds of steps that wake a peer's own threads and fill the caches, before those that count.
const WARM_UP: f64 = 0.02;
const WINDOW: f64 = 0.1;

/// The one by whose times the others are divided: gemmprop over BLAS, by single steps.
const OURS: &str = "gemmprop";
const OURS_BY_EPOCHS: &str = "gemmprop, epoch";
const NATIVE: &str = "gemmprop, native";
const NATIVE_BY_EPOCHS: &str = "gemmprop, native, epoch";

/// All of ours, with what their program is told.
const ALL_OURS: [(&str, &[&str]); 4] =
    [(OURS, &[]), (OURS_BY_EPOCHS, &["epoch"]), (NATIVE, &["native"]), (NATIVE_BY_EPOCHS, &["native", "epoch"])];

/// The libraries in the order of the table, which also shows those that are missing.
const NAMES: [&str; 12] = [
    OURS,
    OURS_BY_EPOCHS,
    NATIVE,
    NATIVE_BY_EPOCHS,
    "PyTorch",
    "PyTorch, compiled",
    "JAX",
    "JAX, scan",
    "scikit-learn",
    "candle",
    "burn",
    "LIBXSMM",
];

struct Peer {
    name: &'static str,
    version: String,
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
    /// Seconds per step on the shape that is loaded: a first guess, then one for each round.
    guess: f64,
    seconds: Vec<f64>,
}

impl Peer {
    fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut peer = Self { name, version: String::new(), child, answers, guess: 0.0, seconds: Vec::new() };
        peer.version = peer.answer()?;
        Ok(peer)
    }

    fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{request}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        Ok(self.answers.next().ok_or("its process has ended")??)
    }

    /// Seconds per step, over this number of steps.
    fn run(&mut self, steps: usize) -> Result<f64> {
        Ok(self.ask(&format!("run {steps}"))?.parse::<f64>()? / steps as f64)
    }

    /// Loads a task, and checks that the peer does what the task says.
    fn load(&mut self, task: &Task, file: &Path, expected: &[f64]) -> Result {
        let answer = self.ask(&format!("load {}", file.display()))?;
        let losses = answer.split(' ').map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
        let near = |(found, expected): (&f64, &f64)| (found - expected).abs() <= task.tolerance(*expected);
        if losses.len() != expected.len() || !losses.iter().zip(expected).all(near) {
            return Err(format!("on {} its losses are {losses:?} and not {expected:?}", task.name()).into());
        }
        self.run(BATCHES)?;
        self.guess = self.run(BATCHES)?;
        self.guess = self.run(steps(WARM_UP, self.guess))?;
        // Both numbers of steps that follow, since a peer may compile anew for a number.
        self.run(steps(WARM_UP, self.guess))?;
        self.run(steps(WINDOW, self.guess))?;
        self.seconds.clear();
        Ok(())
    }

    fn measure(&mut self) -> Result {
        std::thread::sleep(PAUSE);
        self.run(steps(WARM_UP, self.guess))?;
        let seconds = self.run(steps(WINDOW, self.guess))?;
        self.seconds.push(seconds);
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of steps that take about this long: whole epochs, or less than one.
fn steps(seconds: f64, step: f64) -> usize {
    let steps = (seconds / step) as usize;
    if steps < BATCHES { steps.max(1) } else { steps - steps % BATCHES }
}

/// A network and its data.
struct Task {
    widths: &'static [usize],
    batch: usize,
    eta: f64,
    mlp: Mlp<f32>,
    x: Array2<f32>,
    y: Array2<f32>,
}

impl Task {
    fn new((widths, batch): Shape) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(0);
        let mut number = || generator.random_range(-1.0..1.0_f32);
        let mut mlp = Mlp::he(widths, Bias::EveryLayer, 0).expect("valid widths");
        // Not 0, so that a peer without them would be found out.
        mlp.parameters_mut().layers_mut().for_each(|(_, mut c)| c.mapv_inplace(|_| 0.1 * number()));
        let samples = BATCHES * batch;
        let x = Array2::from_shape_simple_fn((samples, widths[0]), &mut number);
        let y = Array2::from_shape_simple_fn((samples, widths[widths.len() - 1]), &mut number);
        // ‖z[t]‖² is about d/3 in each of the layers, which is then also the curvature that each
        // brings in: this η is a tenth of what a network of four of them could bear.
        let widest = *widths.iter().max().expect("not empty");
        Self { widths, batch, eta: 0.1 / widest as f64, mlp, x, y }
    }

    fn name(&self) -> String {
        format!("{} B {}", joined(self.widths), self.batch)
    }

    /// The file that `benches/peers/src/lib.rs` describes.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        let widths: Vec<String> = self.widths.iter().map(usize::to_string).collect();
        writeln!(file, "{} {BATCHES} {} {}", self.batch, self.eta, widths.join(" "))?;
        // θ is ordered as the file is: a layer's weights, then its bias.
        for number in self.mlp.parameters().iter().chain(&self.x).chain(&self.y) {
            file.write_all(&number.to_le_bytes())?;
        }
        file.flush()
    }

    /// The losses of the first steps, in f64.
    fn losses(&self) -> gemmprop::Result<Vec<f64>> {
        let mut mlp = Mlp::<f64>::he(self.widths, Bias::EveryLayer, 0)?;
        mlp.parameters_mut().iter_mut().zip(self.mlp.parameters().iter()).for_each(|(to, &from)| *to = from.into());
        let mut sgd = Sgd::new(self.batch, self.eta, 0)?;
        let batch = |all: &Array2<f32>, i: usize| {
            let chunk: ArrayView2<f32> = all.axis_chunks_iter(Axis(0), self.batch).nth(i % BATCHES).expect("a batch");
            chunk.mapv(f64::from)
        };
        let step = |i| sgd.step(&mut mlp, batch(&self.x, i).view(), batch(&self.y, i).view(), &SquaredError);
        (0..FIRST_STEPS).map(step).collect()
    }

    /// How far a loss in f32 may be from the same in f64. ŷ and y are about 1 in size. The rounding
    /// errors of a sum of n terms add up as a random walk, whatever the order: √n of 2⁻²⁴. A step's
    /// sums have in turn as many terms as the layers have neurons and the batch samples, and the
    /// steps follow each other; so far is ŷ off, and ℓ = ½ (ŷ − y)² by |ŷ − y| times that. A peer
    /// that left out the biases would be off by a thousand times that and more.
    fn tolerance(&self, loss: f64) -> f64 {
        let terms = FIRST_STEPS * (self.widths.iter().sum::<usize>() + self.batch);
        (2.0 * loss).sqrt() * (terms as f64).sqrt() / 2f64.powi(24)
    }
}

fn joined(widths: &[usize]) -> String {
    widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

/// The outcome of a comparison.
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    /// How it was measured, and what is left out.
    pub(crate) about: String,
    pub(crate) left_out: Vec<String>,
}

/// The shapes, and how many times the peers take turns on each.
pub(crate) fn plan(quick: bool) -> (&'static [Shape], usize) {
    if quick { (&SHAPES[..6], 3) } else { (&SHAPES, 9) }
}

/// Times all peers that there are in `programs`. Others may be missing, gemmprop may not.
pub(crate) fn measure(programs: &Path, quick: bool) -> Result<Measured> {
    let (shapes, rounds) = plan(quick);
    let mut peers = Peers::ours(programs)?;
    peers.start_others(programs)?;
    let rows = peers.compare(shapes, rounds)?;
    let mut about = format!("Each time is the median of {rounds} rounds.");
    peers.left_out.iter().for_each(|peer| about += &format!(" Left out: {peer}."));
    Ok(Measured { rows, about, left_out: std::mem::take(&mut peers.left_out) })
}

/// Runs gemmprop's own part alone, on the smallest shapes: its programs start, and find the right
/// losses.
pub(crate) fn check_ours(programs: &Path) -> Result {
    let rows = Peers::ours(programs)?.compare(&SHAPES[..4], 1)?;
    rows.iter().for_each(|row| println!("{}, {} B {}: the losses are right", row.peer, row.widths, row.batch));
    Ok(())
}

/// The peers that take part, and the reasons why others do not.
pub(crate) struct Peers {
    threads: usize,
    running: Vec<Peer>,
    pub(crate) left_out: Vec<String>,
}

impl Peers {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, running: Vec::new(), left_out: Vec::new() }
    }

    fn ours(programs: &Path) -> Result<Self> {
        let mut peers = Self::new(std::thread::available_parallelism()?.get());
        for (name, arguments) in ALL_OURS {
            peers.start(name, Command::new(programs.join("release/gemmprop")).args(arguments))?;
        }
        Ok(peers)
    }

    fn start_others(&mut self, programs: &Path) -> Result {
        let program = |file: &str| Command::new(programs.join(file));
        self.start_with_blas("PyTorch", &mut python(programs, "with_torch.py"))?;
        self.start_with_blas("PyTorch, compiled", python(programs, "with_torch.py").arg("compile"))?;
        self.start_with_blas("JAX", &mut python(programs, "with_jax.py"))?;
        self.start_with_blas("JAX, scan", python(programs, "with_jax.py").arg("scan"))?;
        self.start_with_blas("scikit-learn", &mut python(programs, "with_sklearn.py"))?;
        self.start("candle", &mut program("release/candle"))?;
        self.start("burn", &mut program("release/burn"))?;
        self.start_with_blas("LIBXSMM", &mut program("c/libxsmm"))
    }

    /// Starts a peer that uses OpenMP or a BLAS with threads of its own.
    pub(crate) fn start_with_blas(&mut self, name: &'static str, command: &mut Command) -> Result {
        let threads = self.threads.to_string();
        self.start(name, command.env("OMP_NUM_THREADS", &threads).env("OPENBLAS_NUM_THREADS", &threads))
    }

    fn start(&mut self, name: &'static str, command: &mut Command) -> Result {
        match Peer::start(name, command.env("RAYON_NUM_THREADS", self.threads.to_string())) {
            Ok(peer) => self.running.push(peer),
            Err(error) => self.leave_out(name, &*error)?,
        }
        Ok(())
    }

    /// Reports a peer that cannot take part; a comparison without gemmprop would compare nothing.
    fn leave_out(&mut self, name: &str, error: &dyn Error) -> Result {
        let peer = format!("{name}: {error}");
        if ALL_OURS.iter().any(|(ours, _)| *ours == name) {
            return Err(peer.into());
        }
        eprintln!("{peer}");
        self.left_out.push(peer);
        Ok(())
    }

    /// Lets all peers do something, and leaves out those that fail.
    fn all(&mut self, mut act: impl FnMut(&mut Peer) -> Result) -> Result {
        let mut failed = Vec::new();
        self.running.retain_mut(|peer| act(peer).map_err(|error| failed.push((peer.name, error))).is_ok());
        failed.iter().try_for_each(|(name, error)| self.leave_out(name, &**error))
    }

    pub(crate) fn compare(&mut self, shapes: &[Shape], rounds: usize) -> Result<Vec<Row>> {
        let progress = Progress::new("peers", shapes.len());
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("task");
        let mut rows = Vec::new();
        for &shape in shapes {
            let task = Task::new(shape);
            progress.begin(task.name());
            task.write(&file)?;
            let expected = task.losses()?;
            self.all(|peer| peer.load(&task, &file, &expected))?;
            for _ in 0..rounds {
                self.all(Peer::measure)?;
            }
            rows.extend(self.running.iter().map(|peer| Row {
                peer: peer.name.to_owned(),
                version: peer.version.clone(),
                widths: joined(task.widths),
                batch: task.batch,
                threads: self.threads,
                step_seconds: median(peer.seconds.clone()),
            }));
            progress.end();
        }
        Ok(rows)
    }
}

fn python(programs: &Path, script: &str) -> Command {
    let mut command = Command::new(programs.join("python/bin/python"));
    // -B: leaves no compiled files among the sources.
    command.arg("-B").arg(Path::new(report::ROOT).join("benches/peers/python").join(script));
    command
}

/// The rows, by shape and peer.
struct Compared<'a>(&'a [Row]);

impl<'a> Compared<'a> {
    /// Widths and batch, in the order in which they were measured.
    fn shapes(&self) -> Vec<(&'a str, usize)> {
        let mut shapes: Vec<(&str, usize)> = self.0.iter().map(|row| (row.widths.as_str(), row.batch)).collect();
        shapes.dedup();
        shapes
    }

    /// A peer's row on a shape.
    fn row(&self, peer: &str, (widths, batch): (&str, usize)) -> Option<&'a Row> {
        self.0.iter().find(|row| row.peer == peer && row.batch == batch && row.widths == widths)
    }

    /// The time of a peer on a shape, divided by ours.
    fn ratio(&self, peer: &str, shape: (&str, usize)) -> Option<f64> {
        Some(self.row(peer, shape)?.step_seconds / self.row(OURS, shape)?.step_seconds)
    }

    /// The peers with any row, and their versions.
    fn peers(&self) -> Vec<(&'a str, &'a str)> {
        let mut peers = Vec::new();
        for row in self.0 {
            if !peers.contains(&(row.peer.as_str(), row.version.as_str())) {
                peers.push((row.peer.as_str(), row.version.as_str()));
            }
        }
        peers
    }
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let compared = Compared(rows);
    let cell = |peer, shape| match (compared.row(peer, shape), compared.ratio(peer, shape)) {
        (Some(row), Some(ratio)) => format!("{} ({ratio:.2})", time(row.step_seconds)),
        (Some(row), None) => time(row.step_seconds),
        (None, _) => "missing".to_owned(),
    };
    let header = ["widths", "batch"].into_iter().chain(NAMES);
    let rows = compared.shapes().into_iter().map(|(widths, batch)| {
        let cells = NAMES.map(|peer| cell(peer, (widths, batch)));
        [widths.to_owned(), batch.to_string()].into_iter().chain(cells).collect()
    });
    Table { header: header.map(str::to_owned).collect(), rows: rows.collect() }
}

pub(crate) fn figure(rows: &[Row], facts: &str) -> Figure {
    let compared = Compared(rows);
    let shapes = compared.shapes();
    let mut series = vec![Series {
        label: "gemmprop over BLAS".to_owned(),
        colour: colour::GREY,
        stroke: Stroke::Dashed,
        line: vec![(1.0, -0.6), (1.0, shapes.len() as f64 - 0.4)],
        ..Series::default()
    }];
    for (peer, _) in compared.peers() {
        let Some((colour, marker)) = look(peer) else { continue };
        let ratios = shapes.iter().enumerate();
        let marks = ratios.filter_map(|(i, &shape)| Some((compared.ratio(peer, shape)?, i as f64))).collect();
        series.push(Series { label: peer.to_owned(), colour, marker, marks, ..Series::default() });
    }
    // Ours is among the facts.
    let others = compared.peers().into_iter().map(|(_, version)| version).filter(|version| !version.starts_with(OURS));
    Figure {
        name: "peers",
        title: "The same training step in other libraries".to_owned(),
        panels: vec![Panel {
            title: "Time of a step ÷ gemmprop's; below 1 is faster".to_owned(),
            x: FigureAxis { label: "step ÷ gemmprop's", scale: Scale::Log },
            y: FigureAxis {
                label: "",
                scale: Scale::Names(shapes.iter().map(|&(widths, batch)| short(widths, batch)).collect()),
            },
            series,
        }],
        caption: format!(
            "f32, a bias on every layer, ReLU, squared error, plain SGD. Each library is called step by step, and the loss is fetched after \
             each step: PyTorch eager or compiled, a jitted step in JAX, `partial_fit` in scikit-learn (epoch: many steps in one \
             call of `train`; JAX, scan: in one call of a compiled loop). gemmprop computes over BLAS or, native, in its own kernels. Every library is a process of its own with as many threads as there are cores. They took turns: {} ms of silence, \
             {} ms of warm-up, {} ms of steps. Before, the losses of the first {FIRST_STEPS} steps agreed. 1024×4-1 stands for \
             1024-1024-1024-1024-1, B for the batch. {}. {facts}",
            PAUSE.as_millis(),
            WARM_UP * 1e3,
            WINDOW * 1e3,
            others.collect::<Vec<_>>().join(", "),
        ),
    }
}

pub(crate) fn time(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{:.1} µs", seconds * 1e6) } else { format!("{:.2} ms", seconds * 1e3) }
}

/// A peer in the figure; ours is its line at 1.
fn look(peer: &str) -> Option<(RGBColor, Marker)> {
    Some(match peer {
        OURS => return None,
        "PyTorch" => (colour::BLUE, Marker::Circle),
        "PyTorch, compiled" => (colour::BLUE, Marker::Diamond),
        "JAX" => (colour::GREEN, Marker::Square),
        "JAX, scan" => (colour::GREEN, Marker::Diamond),
        "scikit-learn" => (colour::PURPLE, Marker::Cross),
        "candle" => (colour::ORANGE, Marker::Triangle),
        "burn" => (colour::SKY, Marker::Plus),
        "LIBXSMM" => (colour::PURPLE, Marker::Circle),
        NATIVE => (colour::VERMILION, Marker::Cross),
        NATIVE_BY_EPOCHS => (colour::VERMILION, Marker::Square),
        _ => (colour::VERMILION, Marker::Diamond),
    })
}
