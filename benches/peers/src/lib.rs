//! Shared by the peers written in Rust: the training that a file describes, and the lines
//! exchanged with the driver (`benches/figures/peers.rs`).
//!
//! ```text
//! driver       peer
//!              its name and version                     once, when it has started
//! load FILE    the losses of the first ten steps        a network and its data; see `Task::read`
//! run N        the seconds that N more steps took
//! ```
//!
//! A step takes the next batch, and ends with the loss as a number here, as in a loop that monitors
//! its training.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Read, Write};
use std::time::Instant;

use ndarray::{Array1, Array2, ArrayView2, Axis};

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const FIRST_STEPS: usize = 10;

/// A network and what it is trained on.
pub struct Task {
    pub widths: Vec<usize>,
    pub batch: usize,
    pub eta: f64,
    /// (widths[t+1], widths[t]), the layout of `nn.Linear`, and its bias.
    pub layers: Vec<(Array2<f32>, Array1<f32>)>,
    /// All batches, samples in rows.
    pub x: Array2<f32>,
    pub y: Array2<f32>,
}

impl Task {
    /// The file: a line `batch batches eta widths…`, then numbers as little-endian f32: weights and
    /// bias of each layer, x, y.
    fn read(path: &str) -> Result<Self> {
        let mut file = std::io::BufReader::new(std::fs::File::open(path)?);
        let mut header = String::new();
        file.read_line(&mut header)?;
        let fields: Vec<&str> = header.split_whitespace().collect();
        let [batch, batches, eta, widths @ ..] = &fields[..] else { return Err("a header that is too short".into()) };
        let (batch, batches, eta): (usize, usize, f64) = (batch.parse()?, batches.parse()?, eta.parse()?);
        let widths = widths.iter().map(|d| d.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;

        let mut matrix = |rows: usize, columns: usize| -> Result<Array2<f32>> {
            let mut bytes = vec![0; 4 * rows * columns];
            file.read_exact(&mut bytes)?;
            let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Ok(Array2::from_shape_vec((rows, columns), numbers)?)
        };
        let mut layers = Vec::new();
        for d in widths.windows(2) {
            layers.push((matrix(d[1], d[0])?, matrix(1, d[1])?.into_flat()));
        }
        let samples = batches * batch;
        let (x, y) = (matrix(samples, widths[0])?, matrix(samples, widths[widths.len() - 1])?);
        Ok(Self { widths, batch, eta, layers, x, y })
    }

    /// x and y of one batch after the other.
    pub fn batches(&self) -> impl Iterator<Item = (ArrayView2<'_, f32>, ArrayView2<'_, f32>)> {
        self.x.axis_chunks_iter(Axis(0), self.batch).zip(self.y.axis_chunks_iter(Axis(0), self.batch))
    }
}

/// A library that trains.
pub trait Peer: Sized {
    fn load(task: Task) -> Result<Self>;

    /// One step with batch `i`; the loss before it.
    fn step(&mut self, i: usize) -> Result<f64>;

    /// Makes this number of steps, from the first batch on.
    fn run(&mut self, steps: usize, batches: usize) -> Result {
        for i in 0..steps {
            black_box(self.step(i % batches)?);
        }
        Ok(())
    }
}

/// Answers the driver until it closes the line.
pub fn serve<P: Peer>(version: &str) -> Result {
    let mut loaded: Option<(P, usize)> = None;
    answer(version)?;
    for line in std::io::stdin().lines() {
        let line = line?;
        match (line.split_once(' '), &mut loaded) {
            (Some(("load", path)), _) => {
                // Dropped before the next is read, since both together may be too large.
                drop(loaded.take());
                let task = Task::read(path)?;
                let batches = task.batches().count();
                let mut peer = P::load(task)?;
                let losses = (0..FIRST_STEPS).map(|i| Ok(peer.step(i % batches)?.to_string()));
                answer(&losses.collect::<Result<Vec<_>>>()?.join(" "))?;
                loaded = Some((peer, batches));
            }
            (Some(("run", steps)), Some((peer, batches))) => {
                let steps = steps.parse()?;
                let start = Instant::now();
                peer.run(steps, *batches)?;
                answer(&start.elapsed().as_secs_f64().to_string())?;
            }
            _ => return Err(format!("not understood: {line}").into()),
        }
    }
    Ok(())
}

fn answer(line: &str) -> Result {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The version of a dependency that was compiled in.
pub fn version_of(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).expect("a dependency");
    rest.split_once('"').expect("closed").0
}
