//! A training process is killed at random moments, again and again, and always leaves a checkpoint
//! from which a new process resumes; in the end the bits are those of an undisturbed run.
//!
//! 200 kills, or as many as the environment variable `KILLS` says.

#![cfg(all(feature = "files", unix))]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gemmprop::BatchEnd;
use gemmprop::{
    Bias, Dataset, Generator, LearningRate, Mlp, Model, Observer, Optimizer, SoftmaxCrossEntropy, StopReason, Trainer,
    TrainingSettings,
    checkpoint::{CheckpointError, Checkpoints, Notes},
};
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};

const DIRECTORY: &str = "GEMMPROP_KILLED_DIRECTORY";
const RUN: &str = "GEMMPROP_KILLED_RUN";
/// The file that a process creates before anything else.
const BEGUN: &str = "GEMMPROP_KILLED_BEGUN";

type Run = Trainer<f32, SoftmaxCrossEntropy>;

/// Several seconds of training, by different rules.
fn new(run: usize) -> Run {
    let base = TrainingSettings { epochs: 12, batch: 32, seed: run as u64, ..TrainingSettings::default() };
    let training = match run % 4 {
        0 => base,
        1 => TrainingSettings { optimizer: Optimizer::adam(), learning_rate: LearningRate::cosine(1e-3, 0.0), ..base },
        2 => TrainingSettings {
            optimizer: Optimizer::Momentum { mu: 0.9 },
            learning_rate: LearningRate::on_plateau(0.05, 0.5, 1),
            validation_fraction: Some(0.1),
            standardize: true,
            ..base
        },
        _ => TrainingSettings {
            optimizer: Optimizer::Nesterov { mu: 0.9 },
            learning_rate: LearningRate::constant(0.01),
            clip_norm: Some(0.5),
            sam: Some(0.05),
            validation_fraction: Some(0.1),
            early_stopping: Some(4),
            ..base
        },
    };
    let mlp = Mlp::he(&[32, 96, 64, 5], Bias::EveryLayer, run as u64).unwrap();
    Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap()
}

fn data() -> (Array2<f32>, Array1<usize>) {
    let mut generator = Generator::seed_from_u64(1);
    let x = Array2::from_shape_simple_fn((2000, 32), || generator.random_range(-1.0..1.0_f32));
    let labels = x.outer_iter().map(|x| (x[0].abs() * 5.0) as usize % 5).collect();
    (x, labels)
}

/// Stops for a checkpoint after every few batches.
struct Often(usize);

impl Observer<f32> for Often {
    fn batch(&mut self, _: &BatchEnd) -> ControlFlow<()> {
        self.0 += 1;
        if self.0.is_multiple_of(5) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The process to be killed, which is this test program again. It resumes from the last checkpoint,
/// or starts the run.
#[test]
#[ignore = "the other test runs it in processes of its own"]
fn train_from_the_last_checkpoint_to_the_end() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    std::fs::write(std::env::var_os(BEGUN).unwrap(), "").unwrap();
    let run = std::env::var(RUN).unwrap().parse().unwrap();
    let (checkpoints, mut trainer) = match Checkpoints::open(&directory) {
        Ok(checkpoints) => {
            let saved = checkpoints.resume(SoftmaxCrossEntropy).unwrap();
            assert!(saved.damaged.is_empty(), "{:?}", saved.damaged);
            (checkpoints, saved.value)
        }
        // Killed before the first checkpoint.
        Err(CheckpointError::NoneWhole { damaged, .. }) if damaged.is_empty() => {
            (Checkpoints::create(&directory).unwrap(), new(run))
        }
        Err(error) => panic!("{error}"),
    };
    let (x, y) = data();
    loop {
        let ended = trainer.fit(Dataset::new(x.view(), y.view()), None, &mut Often(0)).unwrap();
        checkpoints.save(&trainer, &Notes::new()).unwrap();
        if ended != StopReason::Observer {
            return;
        }
    }
}

fn begin(directory: &Path, begun: &Path, run: usize) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "train_from_the_last_checkpoint_to_the_end", "--ignored"])
        .env(DIRECTORY, directory)
        .env(BEGUN, begun)
        .env(RUN, run.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How long each process lives after it has been started and linked: at random, up to a limit that
/// fits itself to the machine. It doubles when a process was killed before it got further than the
/// last, and shrinks when one got further: most do, and need several lives to come to the end.
struct Lives {
    generator: Generator,
    limit: Duration,
}

impl Lives {
    /// Far more than a whole run takes, so that one which hangs is told from one that is slow.
    const LONGEST: Duration = Duration::from_secs(300);

    fn next(&mut self) -> Duration {
        self.generator.random_range(Duration::ZERO..self.limit)
    }

    fn learn(&mut self, got_further: bool) {
        self.limit = if got_further { self.limit * 3 / 4 } else { self.limit * 2 };
        assert!(self.limit < Self::LONGEST, "however long it lives, a process gets no further than the last");
    }
}

/// One run, killed at random until it completes. Returns the number of kills.
fn killed_until_done(run: usize, expected: &Model<f32>, lives: &mut Lives) -> usize {
    let (directory, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let begun = beside.path().join("begun");
    let mut kills = 0;
    // As of the last checkpoint, if there is one.
    let mut steps = None;
    loop {
        let mut child = begin(directory.path(), &begun, run);
        let (started, life) = (Instant::now(), lives.next());
        let mut until = None;
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            let now = Instant::now();
            if until.is_none() && begun.exists() {
                until = Some(now + life);
            }
            let hangs = until.is_none() && now > started + Lives::LONGEST;
            if hangs || until.is_some_and(|until| now >= until) {
                // SIGKILL, on Unix: nothing of the process can clean up.
                child.kill().unwrap();
                assert!(!hangs, "a process has not begun after {:?}", Lives::LONGEST);
                break None;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        let output = child.wait_with_output().unwrap();
        if let Some(status) = ended {
            assert!(status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            lives.learn(true);
            break;
        }
        std::fs::remove_file(&begun).unwrap();
        let before = steps;
        match Checkpoints::open(directory.path()) {
            Ok(checkpoints) => {
                // Those before the first checkpoint show nothing.
                kills += 1;
                let saved = checkpoints.resume::<f32, _>(SoftmaxCrossEntropy).unwrap();
                assert!(saved.damaged.is_empty(), "after {kills} kills: {:?}", saved.damaged);
                steps = Some(saved.value.steps());
                assert!(steps >= before, "after {kills} kills: {steps:?} steps, {before:?} before");
            }
            Err(error) => assert!(before.is_none(), "after {kills} kills: {error}"),
        }
        lives.learn(steps > before);
    }
    let checkpoints = Checkpoints::open(directory.path()).unwrap();
    let saved = checkpoints.model::<f32>().unwrap();
    assert_eq!(&saved.value, expected, "run {run} after {kills} kills");
    kills
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_bits() {
    let wanted: usize = std::env::var("KILLS").map_or(200, |kills| kills.parse().expect("KILLS: a number"));
    let (x, y) = data();
    let undisturbed: Vec<Model<f32>> = (0..4)
        .map(|run| {
            let mut trainer = new(run);
            trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            trainer.into_model()
        })
        .collect();
    let mut lives = Lives { generator: Generator::seed_from_u64(7), limit: Duration::from_millis(120) };
    let mut kills = 0;
    for run in 0.. {
        if kills >= wanted {
            break;
        }
        // A process may complete before it is killed, but then the limit shrinks.
        assert!(run < 10 + wanted, "{kills} kills in {run} runs");
        kills += killed_until_done(run % 4, &undisturbed[run % 4], &mut lives);
    }
    println!("{kills} kills");
}
