//! The time of a step on several ranks, and what of it is communication: one line of CSV from rank
//! 0. `ci/cluster --measure` starts it by `mpirun`, or by itself for a trainer in one process.
//!
//! ```text
//! scale exact|fast|trainer THREADS BATCH SECONDS WIDTH...
//! ```

use std::time::{Duration, Instant};

use gemmprop::ranks::{DataParallel, World, part_of_rank};
use gemmprop::{
    Bias, Dataset, Error, LearningRate, Mlp, SquaredError, StopReason, Trainer, TrainingSettings, on_batch,
};
use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What is measured.
struct Setting {
    how: String,
    threads: usize,
    batch: usize,
    seconds: f64,
    widths: Vec<usize>,
}

/// Batches in an epoch.
const BATCHES: usize = 8;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, threads, batch, seconds, widths @ ..] = arguments.as_slice() else {
        panic!("scale exact|fast|trainer THREADS BATCH SECONDS WIDTH...")
    };
    let number = |text: &String| text.parse::<usize>().unwrap_or_else(|_| panic!("expected a number, found {text}"));
    let setting = Setting {
        how: how.clone(),
        threads: number(threads),
        batch: number(batch),
        seconds: seconds.parse().expect("a number of seconds"),
        widths: widths.iter().map(number).collect(),
    };
    gemmprop::set_threads(Some(setting.threads));
    if how == "trainer" { trainer(&setting) } else { World::run(|world| ranks(world, &setting)) }
}

fn training(setting: &Setting) -> TrainingSettings {
    // So slow that nothing changes but the last digits: the steps are to be alike.
    let learning_rate = LearningRate::constant(1e-6);
    TrainingSettings { epochs: usize::MAX, batch: setting.batch, learning_rate, ..TrainingSettings::default() }
}

fn data(setting: &Setting, rows: std::ops::Range<usize>) -> (Array2<f32>, Array2<f32>) {
    let mut generator = ChaCha8Rng::seed_from_u64(rows.start as u64);
    let (inputs, outputs) = (setting.widths[0], *setting.widths.last().expect("a width"));
    let mut random =
        |columns| Array2::from_shape_simple_fn((rows.len(), columns), || generator.random_range(-1.0..1.0_f32));
    (random(inputs), random(outputs))
}

fn mlp(setting: &Setting) -> Result<Mlp<f32>, Error> {
    Mlp::he(&setting.widths, Bias::EveryLayer, 1)
}

fn report(setting: &Setting, ranks: usize, step: Duration, waiting: Duration, moving: Duration) {
    let widths: Vec<String> = setting.widths.iter().map(usize::to_string).collect();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{},{ranks},{},{},{},{:.1},{:.1},{:.1}",
        setting.how,
        setting.threads,
        widths.join("-"),
        setting.batch,
        micros(step),
        micros(waiting),
        micros(moving)
    );
}

/// The middle of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn trainer(setting: &Setting) -> Result<(), Error> {
    let (x, y) = data(setting, 0..BATCHES * setting.batch);
    let mut trainer = Trainer::new(mlp(setting)?, SquaredError, training(setting))?;
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < setting.seconds || times.len() < 3 {
        let mut last = Instant::now();
        trainer.partial_fit(
            Dataset::new(&x, &y),
            None,
            on_batch(|end| {
                // The last step of an epoch has another norm to compute.
                if end.batch > 1 && end.batch < BATCHES {
                    times.push(last.elapsed());
                }
                last = Instant::now();
            }),
        )?;
    }
    report(setting, 1, median(times), Duration::ZERO, Duration::ZERO);
    Ok(())
}

fn ranks(world: &World, setting: &Setting) -> Result<(), Error> {
    let ranks = world.ranks();
    let (x, y) = data(setting, part_of_rank(BATCHES * setting.batch, ranks, world.rank(), ranks));
    let new = if setting.how == "fast" { DataParallel::fast } else { DataParallel::exact };
    // One chunk would be the trainer itself.
    let chunks = if ranks == 1 { 2 } else { ranks };
    let mut run = new(Trainer::new(mlp(setting)?, SquaredError, training(setting))?, world, chunks)?;
    let (mut times, mut waited, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    loop {
        let mut last = (Instant::now(), world.communication());
        let observer = on_batch(|end| {
            let now = (Instant::now(), world.communication());
            if end.batch > 1 && end.batch < BATCHES {
                times.push(now.0 - last.0);
                waited.push(now.1.waiting - last.1.waiting);
                moved.push(now.1.moving - last.1.moving);
            }
            last = now;
        });
        let is_over = world.rank() == 0 && start.elapsed().as_secs_f64() >= setting.seconds;
        let stop = gemmprop::on_epoch(move |_, _| {
            if is_over { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
        });
        if run.partial_fit(Dataset::new(&x, &y), None, (observer, stop))? == StopReason::Observer {
            break;
        }
    }
    if world.rank() == 0 {
        report(setting, ranks, median(times), median(waited), median(moved));
    }
    Ok(())
}
