//! Long runs, many at once, and many one after the other: memory and threads stay as they are, and
//! so do the bits. This is a process of its own, whose memory and threads are counted.
//!
//! `TIMES=100` makes everything a hundred times as long: a run of a million steps. The speed at its
//! beginning and at its end is printed and not judged. `docs/proof.md` has the results.

#![cfg(target_os = "linux")]

use std::ops::ControlFlow;
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Model, Observer, Optimizer, Products, Record, SquaredError, Trainer,
    TrainingSettings,
};
use ndarray::{Array1, Array2};

/// The tests run one after the other, since they count what the process has.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn times() -> usize {
    std::env::var("TIMES").map_or(1, |times| times.parse().expect("TIMES: a number"))
}

fn engines() -> &'static [Products] {
    if cfg!(feature = "blas") { &[Products::Blas, Products::Native] } else { &[Products::Native] }
}

/// A number of `/proc/self/status`: `VmRSS`, the memory that the process has, in KiB, or `Threads`.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Growth below this is none: an allocator keeps pages, and a thread that has just begun touches
/// its stack. A leak of one byte a step of the long run, or of a tenth of a trainer, is more.
const NOTHING: u64 = 1 << 10;

const BATCH: usize = 8;

fn trainer(widths: &[usize], seed: u64, products: Products, epochs: usize) -> Trainer<f32, SquaredError> {
    let optimizer = if seed.is_multiple_of(2) { Optimizer::Sgd } else { Optimizer::adam() };
    let training = TrainingSettings {
        epochs,
        batch: BATCH,
        seed,
        optimizer,
        learning_rate: LearningRate::constant(1e-4),
        ..TrainingSettings::default()
    };
    let mlp = Mlp::he(widths, Bias::Input, seed).unwrap().with_products(products).unwrap();
    Trainer::new(mlp, SquaredError, training).unwrap()
}

fn data(samples: usize, inputs: usize) -> (Array2<f32>, Array1<f32>) {
    let x = Array2::from_shape_fn((samples, inputs), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    (x, Array1::from_shape_fn(samples, |i| (i % 7) as f32))
}

fn bits(trainer: &Trainer<f32, SquaredError>) -> Vec<u32> {
    trainer.model().mlp.parameters().iter().map(|p| p.to_bits()).collect()
}

/// Of each epoch: when it ended, and the memory then.
struct Watch(Vec<(Instant, u64)>);

impl Observer<f32> for Watch {
    fn epoch(&mut self, _: &Record, _: &Model<f32>) -> ControlFlow<()> {
        self.0.push((Instant::now(), status("VmRSS")));
        ControlFlow::Continue(())
    }
}

#[test]
fn a_long_run_needs_no_more_memory_and_has_the_same_bits_twice() {
    let _alone = alone();
    let epochs = 10 * times();
    let (x, y) = data(1000 * BATCH, 8);
    for &products in engines() {
        // Adam, whose bits depend on the number of each step, and plain descent.
        for seed in [1, 2] {
            let run = || {
                let mut trainer = trainer(&[8, 16, 1], seed, products, epochs);
                let mut watch = Watch(Vec::with_capacity(epochs));
                trainer.fit(Dataset::new(x.view(), y.view()), None, &mut watch).unwrap();
                assert_eq!(trainer.steps(), 1000 * epochs as u64);
                (bits(&trainer), watch.0)
            };
            let (first, watched) = run();
            let (begun, ended) = (watched[1].1, watched[epochs - 1].1);
            assert!(ended <= begun + NOTHING, "{products:?}: {begun} KiB, and {ended} after {epochs} epochs");
            let speed =
                |of: &[(Instant, u64)]| 1000.0 * (of.len() - 1) as f64 / (of[of.len() - 1].0 - of[0].0).as_secs_f64();
            let tenth = epochs.div_ceil(10).max(2);
            println!(
                "{products:?}, seed {seed}: {} steps; {begun} KiB, then {ended}; {:.0} steps a second, then {:.0}",
                1000 * epochs,
                speed(&watched[..tenth]),
                speed(&watched[epochs - tenth..])
            );
            assert!(first == run().0, "{products:?}: other bits the second time");
        }
    }
}

/// The seconds that the processors have worked for this process: other work on the machine is not
/// among them.
#[cfg(feature = "files")]
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In hundredths, user and system.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// `TIMES=1300` takes an hour each time.
#[cfg(feature = "files")]
#[test]
fn a_long_run_from_files_needs_no_more_memory_and_has_the_same_bits_twice() {
    use gemmprop::SoftmaxCrossEntropy;
    use gemmprop::data::{FileSource, RowsFile};

    let _alone = alone();
    // A thread computes and another reads; what helpers wait for would be in their seconds.
    gemmprop::set_threads(Some(1));
    let (samples, batch, epochs) = (3200, 128, 4 * times());
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let labels = Array1::from_shape_fn(samples, |i| (i * 10 / samples) as u8);
    ndarray_npy::write_npy(path("x.npy"), &data(samples, 784).0).unwrap();
    ndarray_npy::write_npy(path("labels.npy"), &labels).unwrap();
    let files = FileSource::new(RowsFile::open(path("x.npy")).unwrap(), RowsFile::open(path("labels.npy")).unwrap());
    let files = files.unwrap();
    let run = || {
        let training = TrainingSettings {
            epochs,
            batch,
            learning_rate: LearningRate::constant(1e-4),
            shuffle_block: Some(64),
            ..TrainingSettings::default()
        };
        let mlp = Mlp::<f32>::he(&[784, 512, 512, 10], Bias::EveryLayer, 1).unwrap();
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
        let mut watched = Vec::with_capacity(epochs);
        let started = Instant::now();
        let watch = gemmprop::on_epoch(|_, _| {
            watched.push((cpu_seconds(), status("VmRSS")));
            ControlFlow::Continue(())
        });
        trainer.fit_source(&files, None, watch).unwrap();
        assert_eq!(trainer.steps(), (samples / batch * epochs) as u64);
        let bits: Vec<_> = trainer.model().mlp.parameters().iter().map(|p| p.to_bits()).collect();
        (bits, watched, started.elapsed())
    };
    let (first, watched, took) = run();
    let (begun, ended) = (watched[1].1, watched[epochs - 1].1);
    assert!(ended <= begun + NOTHING, "{begun} KiB, and {ended} after {epochs} epochs");
    let tenth = epochs.div_ceil(10).max(2);
    let cost = |of: &[(f64, u64)]| (of[of.len() - 1].0 - of[0].0) / (of.len() - 1) as f64;
    println!(
        "from files: {epochs} epochs in {:.0} s; {begun} KiB, then {ended}; {:.3} CPU seconds an epoch, then {:.3}",
        took.as_secs_f64(),
        cost(&watched[..tenth]),
        cost(&watched[epochs - tenth..])
    );
    assert!(first == run().0, "other bits the second time");
    gemmprop::set_threads(None);
}

/// Each engine, optimiser and shape in each thread, which all begin at once.
#[test]
fn of_64_trainers_in_64_threads_each_has_the_bits_that_it_has_alone() {
    let _alone = alone();
    let shapes: [&[usize]; 4] = [&[8, 16, 1], &[8, 64, 64, 1], &[8, 200, 1], &[8, 17, 33, 5, 1]];
    let (x, y) = data(20 * BATCH, 8);
    let run = |of: usize| {
        let products = engines()[of % engines().len()];
        let mut trainer = trainer(shapes[of / 4 % 4], of as u64 / 2, products, 2);
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
        bits(&trainer)
    };
    let lone: Vec<_> = (0..64).map(run).collect();
    let start = Barrier::new(64);
    std::thread::scope(|scope| {
        for (of, lone) in lone.iter().enumerate() {
            let (run, start) = (&run, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..5 * times() {
                    assert!(run(of) == *lone, "trainer {of}, round {round}");
                }
            });
        }
    });
}

#[test]
fn trainers_that_are_dropped_leave_neither_memory_nor_threads() {
    let _alone = alone();
    // Large enough for a helper to be called.
    let (x, y) = data(4 * BATCH, 128);
    let make = |of: usize| {
        let mut trainer = trainer(&[128, 256, 256, 1], of as u64 / 2, engines()[of % engines().len()], 1);
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    };
    (0..20).for_each(make);
    let (memory, threads) = (status("VmRSS"), status("Threads"));
    let made = 100 * times();
    (0..made).for_each(make);
    let after = (status("VmRSS"), status("Threads"));
    println!("{made} trainers: {memory} KiB and {threads} threads, then {} and {}", after.0, after.1);
    // A trainer has 400 KiB of parameters alone, 100 of them 40,000. The allocator may keep what a
    // few have had, since a helper frees what another thread allocates, and the other way round.
    assert!(after.0 <= memory + 8 * NOTHING, "{memory} KiB, and {} after {made} trainers", after.0);
    assert!(after.1 <= threads, "{threads} threads, and {} after {made} trainers", after.1);
}
