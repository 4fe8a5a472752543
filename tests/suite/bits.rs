//! The same bits for any number of threads: parameters and losses after 20 steps, of the largest
//! networks after 4, for the shapes that are benchmarked and for random ones, in both number types,
//! inside and outside a caller's pool, and with many trainers at once.

use gemmprop::{Bias, Loss, Mlp, Scalar, Sgd, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};

/// The shapes of the step benchmark: widths with input and output, and the batch.
const SHAPES: [(&[usize], usize); 11] = [
    (&[16, 16, 16, 1], 32),
    (&[45, 45, 45, 1], 32),
    (&[46, 46, 46, 1], 32),
    (&[64, 64, 64, 1], 32),
    (&[64, 256, 256, 1], 64),
    (&[784, 512, 512, 1], 128),
    (&[784, 512, 512, 10], 128),
    (&[784, 300, 100, 1], 1),
    (&[1024, 1024, 1024, 1024, 1], 32),
    (&[1024, 1024, 1024, 1024, 1], 256),
    (&[2048, 2048, 2048, 2048, 1], 512),
];

/// Of two epochs, each with a ragged last batch where the batch has more than one sample. Twenty
/// steps of the two largest shapes would take minutes, and a single one has tiles of every kind for
/// every thread.
fn steps(widths: &[usize], batch: usize) -> usize {
    if widths[0] * batch > 1 << 17 { 4 } else { 20 }
}

/// Everything a run leaves behind, as bits: losses of the epochs, then θ.
type Bits = Vec<u64>;

/// Trains for two epochs.
fn run<F: Scalar>(widths: &[usize], batch: usize, seed: u64) -> Bits {
    fn descend<F: Scalar, L: Loss<F>>(
        widths: &[usize],
        batch: usize,
        seed: u64,
        y: &Array2<L::Target>,
        loss: &L,
    ) -> Bits {
        let x = Array2::from_shape_fn((y.nrows(), widths[0]), |(i, j)| {
            F::from_f64(((i * 31 + j * 17) % 97) as f64 / 48.5 - 1.0)
        });
        let mut mlp = Mlp::<F>::he(widths, Bias::EveryLayer, seed).unwrap();
        let losses = Sgd::new(batch, 1e-3, seed).unwrap().train(&mut mlp, x.view(), y.view(), loss, 2).unwrap();
        let theta = mlp.parameters().iter().map(|p| p.to_f64().to_bits());
        losses.iter().map(|loss| loss.to_bits()).chain(theta).collect()
    }
    let samples = steps(widths, batch) / 2 * batch - batch / 3;
    match widths[widths.len() - 1] {
        1 => {
            let y = Array2::from_shape_fn((samples, 1), |(i, _)| F::from_f64((i % 7) as f64 / 3.0 - 1.0));
            descend::<F, SquaredError>(widths, batch, seed, &y, &SquaredError)
        }
        classes => {
            let y = Array2::from_shape_fn((samples, 1), |(i, _)| i % classes);
            descend::<F, SoftmaxCrossEntropy>(widths, batch, seed, &y, &SoftmaxCrossEntropy)
        }
    }
}

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn same_for_any_number_of_threads<F: Scalar>(widths: &[usize], batch: usize, seed: u64) {
    let alone = in_pool(1, || run::<F>(widths, batch, seed));
    for threads in [2, 3, 8, 64] {
        assert!(in_pool(threads, || run::<F>(widths, batch, seed)) == alone, "{widths:?} B {batch}: {threads} threads");
    }
    assert!(run::<F>(widths, batch, seed) == alone, "{widths:?} B {batch}: outside a pool");
}

#[test]
fn the_benchmarked_shapes_in_f32() {
    for &(widths, batch) in &SHAPES {
        same_for_any_number_of_threads::<f32>(widths, batch, 1);
    }
}

#[test]
fn the_benchmarked_shapes_in_f64() {
    for &(widths, batch) in &SHAPES {
        same_for_any_number_of_threads::<f64>(widths, batch, 2);
    }
}

#[test]
fn fifty_random_shapes() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    for case in 0..50 {
        let hidden = rng.random_range(0..5);
        let mut widths: Vec<usize> = (0..hidden + 1).map(|_| rng.random_range(1..400)).collect();
        widths.push(if rng.random_bool(0.5) { 1 } else { rng.random_range(2..20) });
        let batch = rng.random_range(1..200);
        same_for_any_number_of_threads::<f32>(&widths, batch, case);
        same_for_any_number_of_threads::<f64>(&widths, batch, case);
    }
}

/// Single steps of a caller's loop are the steps of an epoch, whatever batch sizes came before.
#[test]
fn single_steps_and_epochs_agree() {
    let (widths, batch) = (&[64, 256, 256, 1], 64);
    let x = Array2::from_shape_fn((batch, widths[0]), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    let y = Array1::from_shape_fn(batch, |i| (i % 7) as f32);
    let mut by_epoch = Mlp::<f32>::he(widths, Bias::Input, 1).unwrap();
    let mut by_step = by_epoch.clone();
    // One batch an epoch: the shuffle permutes within the batch, so it is undone by training on the
    // order that it makes.
    let mut sgd = Sgd::new(1, 1e-3, 0).unwrap();
    for rows in [7, 64, 1, 64, 33] {
        let mut scratch = by_step.clone();
        sgd.step(&mut scratch, x.slice(ndarray::s![..rows, ..]), y.slice(ndarray::s![..rows]), &SquaredError).unwrap();
    }
    for row in 0..batch {
        let (x, y) = (x.slice(ndarray::s![row..row + 1, ..]), y.slice(ndarray::s![row..row + 1]));
        let one = Sgd::new(1, 1e-3, 0).unwrap().train(&mut by_epoch, x, y, &SquaredError, 1).unwrap()[0];
        let other = sgd.step(&mut by_step, x, y, &SquaredError).unwrap();
        assert_eq!(one.to_bits(), other.to_bits());
    }
    assert_eq!(by_epoch, by_step);
}

/// Trainers of different shapes on many threads at once, so that NN, NT and TN products overlap:
/// OpenBLAS's threaded code has corrupted such results (its issue 5836), and the number of its
/// threads is a global that each of them sets and puts back.
#[test]
fn many_trainers_at_once_compute_what_each_computes_alone() {
    let shapes: [(&[usize], usize); 8] = [
        (&[16, 16, 16, 1], 32),
        (&[64, 64, 64, 1], 32),
        (&[46, 46, 46, 1], 32),
        (&[129, 200, 90, 3], 77),
        (&[64, 256, 256, 1], 64),
        (&[300, 300, 10], 96),
        (&[784, 300, 100, 1], 1),
        (&[40, 1], 500),
    ];
    let lone: Vec<Bits> = shapes.iter().map(|(widths, batch)| run::<f32>(widths, *batch, 5)).collect();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (widths, batch) = shapes[thread % shapes.len()];
            let lone = &lone[thread % shapes.len()];
            scope.spawn(move || {
                // 16 threads × 25 runs × 20 steps: 8000 steps.
                for round in 0..25 {
                    assert!(run::<f32>(widths, batch, 5) == *lone, "{widths:?} B {batch}, round {round}");
                }
            });
        }
    });
}
