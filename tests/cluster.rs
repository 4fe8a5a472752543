//! Training on the ranks of MPI, by one of the words that `ci/cluster` gives this program under
//! `mpirun`. Without one it does nothing, as in a plain `cargo test`.
//!
//! ```text
//! bits CHUNKS             trains by several settings, and prints a digest of each run
//! alone CHUNKS            the same in one process, without MPI
//! fast                    a fast step against its bound, with a digest of each rank's
//! run FOLDER              trains, with a checkpoint after every 7 batches, or goes on from one
//! fails FOLDER HOW RANK   the same, until that rank fails
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use gemmprop::checkpoint::{Checkpoints, Notes};
use gemmprop::ranks::{Alone, DataParallel, Group, World, part_of_rank};
use gemmprop::rungs::bounds::{self, StepBounds};
use gemmprop::{
    Bias, Dataset, Generator, LearningRate, Mlp, Optimizer, Products, Scalar, SoftmaxCrossEntropy, StopReason, Trainer,
    TrainingSettings, on_batch,
};
use ndarray::{Array1, Array2, s};
use sha2::{Digest, Sha256};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The error that all ranks get must be one that `World::run` can make.
#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

const CHUNKS: usize = 8;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["alone", chunks] => bits(&Alone, 0, 1, chunks.parse()?),
        ["bits", chunks] => {
            let chunks = chunks.parse()?;
            World::run(|world| bits(world, world.rank(), world.ranks(), chunks))
        }
        ["fast"] => World::run(fast),
        ["run", folder] => World::run(|world| run(world, Path::new(folder), None)),
        ["fails", folder, how, rank] => {
            let rank: usize = rank.parse()?;
            World::run(|world| run(world, Path::new(folder), (world.rank() == rank).then_some(how)))
        }
        _ => Ok(()),
    };
    done.map_err(|Failed(reason)| reason.into())
}

/// This rank's part of the samples.
struct Part<F> {
    x: Array2<F>,
    labels: Array1<usize>,
}

impl<F: Scalar> Part<F> {
    fn new(samples: usize, chunks: usize, rank: usize, ranks: usize) -> Self {
        let mut generator = Generator::new(3);
        let x = Array2::from_shape_simple_fn((samples, 12), || F::from_f64(generator.normal()));
        let labels: Array1<usize> = x.outer_iter().map(|x| (x[0].to_f64().abs() * 5.0) as usize % 5).collect();
        let rows = part_of_rank(samples, chunks, rank, ranks);
        Self { x: x.slice(s![rows.clone(), ..]).to_owned(), labels: labels.slice(s![rows]).to_owned() }
    }

    fn data(&self) -> Dataset<'_, F, usize> {
        Dataset::new(&self.x, &self.labels)
    }
}

fn settings() -> Vec<(&'static str, TrainingSettings)> {
    let base = TrainingSettings {
        epochs: 3,
        batch: 40,
        learning_rate: LearningRate::constant(0.05),
        ..TrainingSettings::default()
    };
    vec![
        ("descent", base.clone()),
        (
            "Adam",
            TrainingSettings { optimizer: Optimizer::adam(), weight_decay: 0.01, standardize: true, ..base.clone() },
        ),
        (
            "SAM",
            TrainingSettings {
                optimizer: Optimizer::Momentum { mu: 0.9 },
                sam: Some(0.05),
                clip_norm: Some(0.5),
                validation_fraction: Some(0.2),
                early_stopping: Some(2),
                ..base
            },
        ),
    ]
}

fn digest<F: Scalar>(trainer: &Trainer<F, SoftmaxCrossEntropy>) -> String {
    let mut sha = Sha256::new();
    trainer.model().mlp.parameters().iter().for_each(|p| sha.update(p.to_f64().to_bits().to_le_bytes()));
    for record in &trainer.history().records {
        let numbers = [record.loss, record.validation_loss.unwrap_or(-1.0), record.gradient_norm];
        numbers.iter().for_each(|number| sha.update(number.to_bits().to_le_bytes()));
    }
    sha.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn bits<G>(group: &G, rank: usize, ranks: usize, chunks: usize) -> Result<(), Failed>
where
    G: Group<f32> + Group<f64>,
{
    for (name, training) in settings() {
        for products in [Products::Blas, Products::Native] {
            run_bits::<f32, G>(group, (rank, ranks, chunks), (name, &training), products)?;
            run_bits::<f64, G>(group, (rank, ranks, chunks), (name, &training), products)?;
        }
    }
    Ok(())
}

fn run_bits<F: Scalar, G: Group<F>>(
    group: &G,
    (rank, ranks, chunks): (usize, usize, usize),
    (name, training): (&str, &TrainingSettings),
    products: Products,
) -> Result<(), Failed> {
    let part = Part::<F>::new(601, chunks, rank, ranks);
    let mlp = Mlp::he(&[12, 40, 24, 5], Bias::EveryLayer, 1)?.with_products(products)?;
    let mut run = DataParallel::exact(Trainer::new(mlp, SoftmaxCrossEntropy, training.clone())?, group, chunks)?;
    run.fit(part.data(), None, ())?;
    if rank == 0 {
        println!("{name}, {products:?}, {}: {}", std::any::type_name::<F>(), digest(run.trainer()));
    }
    Ok(())
}

/// A fast step, of networks whose sums begin before all of their gradient is there, against the
/// bound of rounding for any order of sums; and the same bits on every rank. Of 3 samples, some
/// ranks have none. In single precision, a sign that rounding may change makes the bounds of so
/// many neurons wide.
fn fast(world: &World) -> Result<(), Failed> {
    for (widths, samples) in [(&[12, 700, 600, 5][..], 40), (&[12, 700, 600, 5], 3), (&[12, 40, 24, 5], 601)] {
        for products in [Products::Blas, Products::Native] {
            fast_step(world, widths, samples, products)?;
        }
    }
    Ok(())
}

fn fast_step(world: &World, widths: &[usize], samples: usize, products: Products) -> Result<(), Failed> {
    let mlp = Mlp::<f64>::he(widths, Bias::EveryLayer, 1)?.with_products(products)?;
    let whole = Part::<f64>::new(samples, CHUNKS, 0, 1);
    let gradient = bounds::loss_gradient(&mlp, whole.x.view(), &whole.labels, &SoftmaxCrossEntropy)?;
    let bound = StepBounds::new(Optimizer::Sgd)?.step(&mlp, &gradient, 0.1, 0.0)?;
    let training = TrainingSettings {
        epochs: 1,
        batch: samples,
        learning_rate: LearningRate::constant(0.1),
        ..TrainingSettings::default()
    };
    let mut run = DataParallel::fast(Trainer::new(mlp, SoftmaxCrossEntropy, training)?, world, CHUNKS)?;
    run.fit(Part::<f64>::new(samples, CHUNKS, world.rank(), world.ranks()).data(), None, ())?;
    let numbers = run.trainer().model().mlp.parameters().iter().zip(bound.value.iter().zip(bound.bound.iter()));
    for (found, (value, bound)) in numbers {
        let off = (found - value).abs();
        if off.is_nan() || off > *bound {
            return Err(Failed(format!("{products:?}, {widths:?}: {found} for {value} ± {bound}")));
        }
    }
    println!("{products:?}, {widths:?}, {samples} samples: {}", digest(run.trainer()));
    Ok(())
}

/// Trains with checkpoints, and goes on where the newest one is.
fn run(world: &World, folder: &Path, fails: Option<&str>) -> Result<(), Failed> {
    let part = Part::<f32>::new(601, CHUNKS, world.rank(), world.ranks());
    let training = TrainingSettings {
        epochs: 40,
        batch: 24,
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::cosine(1e-3, 0.0),
        validation_fraction: Some(0.1),
        standardize: true,
        ..TrainingSettings::default()
    };
    let mlp = Mlp::<f32>::he(&[12, 40, 24, 5], Bias::EveryLayer, 1)?;
    // Every rank reads the checkpoint, and rank 0 writes the next ones.
    let checkpoints = Checkpoints::open(folder);
    let trainer = match &checkpoints {
        Ok(checkpoints) => checkpoints.read()?.value.trainer(SoftmaxCrossEntropy)?,
        Err(_) => Trainer::new(mlp, SoftmaxCrossEntropy, training)?,
    };
    let mut run = DataParallel::exact(trainer, world, CHUNKS)?;
    let checkpoints = match checkpoints {
        Ok(checkpoints) if world.rank() == 0 => {
            checkpoints.lock()?;
            Some(checkpoints)
        }
        Ok(_) => None,
        Err(_) if world.rank() == 0 => Some(Checkpoints::create(folder)?),
        Err(_) => None,
    };
    let broken = Array2::from_elem(part.x.dim(), f32::NAN);
    loop {
        let steps = run.trainer().steps();
        let is_time = fails.filter(|_| steps >= 70);
        let mut data = part.data();
        match is_time {
            Some("data") => data = Dataset::new(&broken, &part.labels),
            Some("alone") => return Err(Failed("failed by itself".to_owned())),
            Some("panic") => panic!("panicked by itself"),
            Some("killed") => std::process::abort(),
            _ => {}
        }
        let mut batches = 0;
        let observer = on_batch(|_| {
            batches += 1;
            assert!(is_time != Some("observer") || batches < 3, "failed on purpose");
            if batches == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let ended = run.fit(data, None, observer)?;
        run.on_rank_0(|trainer| {
            let checkpoints = checkpoints.as_ref().expect("made on rank 0");
            if fails.is_some() && trainer.steps() > 70 && is_time == Some("saving") {
                return Err(Failed("cannot be saved".to_owned()));
            }
            checkpoints.save(trainer, &Notes::default())?;
            Ok(())
        })?;
        if ended != StopReason::Observer {
            break;
        }
    }
    if world.rank() == 0 {
        println!("{} steps: {}", run.trainer().steps(), digest(run.trainer()));
    }
    Ok(())
}
