//! A mini-batch gradient is an unbiased estimate of the full one: over an epoch exactly, over many
//! shuffles in the mean.

use crate::common;

use std::sync::Mutex;

use common::{Real, assert_within, flat, in_f64};
use gemmprop::{
    Bias, Error, Generator, Loss, Mlp, Scalar, Sgd, SoftmaxCrossEntropy, SquaredError,
    rungs::{
        Trace, batched,
        bounds::{self, BoundedLoss},
        per_neuron,
    },
};
use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;

fn shuffled(samples: usize, generator: &mut Generator) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(generator);
    order
}

/// ∇θ of the mean ℓ of these samples.
fn gradient<F: Real, L: Loss<F>>(
    mlp: &Mlp<F>,
    x: &Array2<F>,
    y: &Array2<L::Target>,
    loss: &L,
    samples: &[usize],
) -> Vec<f64> {
    let mut g = mlp.zero_gradient();
    let (x, y) = (x.select(Axis(0), samples), y.select(Axis(0), samples));
    batched::loss_gradient(mlp, x.view(), y.view(), loss, &mut g).unwrap();
    flat(&g)
}

/// Σ (b/n) ḡ over the batches of an epoch at fixed θ is the full gradient. Each of the two is off
/// by its bound.
fn an_epoch_averages_to_the_full_gradient<F: Real, L: BoundedLoss<F>>(
    outputs: usize,
    loss: &L,
    y: &Array2<<L as Loss<F>>::Target>,
) {
    // 197 = 6 · 32 + 5.
    let batch = 32;
    let mlp = common::network::<F>(&[10, 16, 12, outputs], Bias::Input, 3);
    let x = common::uniform::<F>(y.nrows(), 10, 4);
    let mut kept = common::certain_rows(&mlp, x.view());
    assert!(kept.len() > 190 && !kept.len().is_multiple_of(batch), "{} samples", kept.len());
    let (x_kept, y_kept) = (x.select(Axis(0), &kept), y.select(Axis(0), &kept));
    let bounds = bounds::loss_gradient(&mlp, x_kept.view(), y_kept.view(), loss).unwrap();
    let bounds = flat(&bounds.gradient.bound);

    let full = gradient(&mlp, &x, y, loss, &kept);
    kept.shuffle(&mut Generator::seed_from_u64(5));
    let mut mean = vec![0.0; full.len()];
    for samples in kept.chunks(batch) {
        let weight = samples.len() as f64 / kept.len() as f64;
        let g = gradient(&mlp, &x, y, loss, samples);
        mean.iter_mut().zip(&g).for_each(|(mean, g)| *mean += weight * g);
    }
    assert_within("epoch", &mean, &bounds, &full, &bounds);

    // The weights matter: by the plain mean over batches the last, small one counts six times too
    // much.
    let batches = kept.chunks(batch).len() as f64;
    let mut plain = vec![0.0; full.len()];
    for samples in kept.chunks(batch) {
        plain.iter_mut().zip(&gradient(&mlp, &x, y, loss, samples)).for_each(|(plain, g)| *plain += g / batches);
    }
    assert!(common::first_violation(&plain, &bounds, &full, &bounds).is_some());
}

#[test]
fn the_batches_of_an_epoch_average_to_the_full_gradient_a_ragged_last_one_by_its_size() {
    let labels = Array2::from_shape_fn((197, 1), |(i, _)| i % 5);
    an_epoch_averages_to_the_full_gradient::<f32, _>(5, &SoftmaxCrossEntropy, &labels);
    an_epoch_averages_to_the_full_gradient::<f64, _>(5, &SoftmaxCrossEntropy, &labels);
    an_epoch_averages_to_the_full_gradient::<f32, _>(1, &SquaredError, &common::uniform(197, 1, 6));
    an_epoch_averages_to_the_full_gradient::<f64, _>(1, &SquaredError, &common::uniform(197, 1, 6));
}

/// With whole numbers below 2²⁴ nothing rounds: batches of 8 and a last one of 4, each mean times
/// its size, add up to the sum of all samples' gradients by rung 2, bit for bit.
#[test]
fn on_whole_numbers_the_batches_of_an_epoch_add_up_bit_for_bit() {
    let mlp = common::integer_network::<f32>(&[6, 9, 7, 2], Bias::EveryLayer, 3);
    let (x, y) = (common::integers::<f32>(60, 6, 4), common::integers::<f32>(60, 2, 5));
    let (wide, mut sizes) = (in_f64(&mlp), vec![0.0; mlp.parameters().count()]);
    let mut sum = vec![0.0; mlp.parameters().count()];
    let mut g = mlp.zero_gradient();
    for (x, y) in x.outer_iter().zip(y.outer_iter()) {
        let (wide_x, y) = (x.mapv(f64::from), y.to_slice().unwrap());
        let y_hat = Trace::new(&wide, wide_x.view()).unwrap().y_hat().clone();
        let d: Vec<f64> = y_hat.iter().zip(y).map(|(y_hat, &y)| y_hat - f64::from(y)).collect();
        assert!(common::add_sizes(&wide, wide_x.view(), &d, &mut sizes) < f64::from(1 << 24));
        per_neuron::loss_gradient(&mlp, x, y, &SquaredError, &mut g).unwrap();
        sum.iter_mut().zip(flat(&g)).for_each(|(sum, g)| *sum += g);
    }
    assert!(sizes.iter().all(|&sum| sum < f64::from(1 << 24)), "small enough to be exact");

    let order = shuffled(60, &mut Generator::seed_from_u64(6));
    let mut by_batches = vec![0.0; sum.len()];
    for samples in order.chunks(8) {
        let g = gradient(&mlp, &x, &y, &SquaredError, samples);
        by_batches.iter_mut().zip(g).for_each(|(sum, g)| *sum += samples.len() as f64 * g);
    }
    assert!(sum.iter().any(|&g| g != 0.0));
    assert_eq!(by_batches, sum);
}

/// Mean and variance of many estimates, number by number.
struct Estimates {
    mean: Vec<f64>,
    variance: Vec<f64>,
    count: usize,
}

impl Estimates {
    fn of(estimates: impl Iterator<Item = Vec<f64>>) -> Self {
        let (mut sum, mut squares, mut count) = (Vec::new(), Vec::new(), 0);
        for g in estimates {
            sum.resize(g.len(), 0.0);
            squares.resize(g.len(), 0.0);
            sum.iter_mut().zip(&g).for_each(|(sum, g)| *sum += g);
            squares.iter_mut().zip(&g).for_each(|(squares, g)| *squares += g * g);
            count += 1;
        }
        let k = count as f64;
        let mean: Vec<f64> = sum.iter().map(|sum| sum / k).collect();
        let variance = squares.iter().zip(&mean).map(|(s, m)| (s / k - m * m) * k / (k - 1.0)).collect();
        Self { mean, variance, count }
    }

    /// max |mean − full| / (s/√k). Numbers that never vary (dead neurons) have to be right as they
    /// are.
    fn largest_z(&self, full: &[f64]) -> f64 {
        let mut largest = 0.0_f64;
        for ((mean, variance), full) in self.mean.iter().zip(&self.variance).zip(full) {
            let error = (mean - full).abs();
            // f64: what rounding leaves is far below the spread of a number that varies at all.
            if *variance > 1e-20 {
                largest = largest.max(error / (variance / self.count as f64).sqrt());
            } else {
                assert!(error < 1e-9, "a constant estimate of {full} by {mean}");
            }
        }
        largest
    }

    /// ‖mean − full‖² in units of its expectation, Σ s²/k.
    fn squared_error(&self, full: &[f64]) -> f64 {
        let error: f64 = self.mean.iter().zip(full).map(|(mean, full)| (mean - full) * (mean - full)).sum();
        error / (self.variance.iter().sum::<f64>() / self.count as f64)
    }
}

/// The first batch of each of k independent shuffles: by the central limit theorem the mean is
/// normal around the full gradient with standard deviation s/√k. |z| > 5 has probability 6 · 10⁻⁷
/// for one number, 10⁻⁴ for all 177; and the seed is fixed.
#[test]
fn the_mean_of_single_batches_converges_to_the_full_gradient_like_one_over_root_k() {
    let (samples, batch) = (50, 8);
    let mlp = common::network::<f64>(&[6, 12, 6, 3], Bias::Input, 1);
    let x = common::uniform::<f64>(samples, 6, 2);
    let y = Array2::from_shape_fn((samples, 1), |(i, _)| (i * i) % 3);
    let all: Vec<usize> = (0..samples).collect();
    let full = gradient(&mlp, &x, &y, &SoftmaxCrossEntropy, &all);
    let mut generator = Generator::seed_from_u64(7);
    for k in [64, 256, 1024, 4096, 16384] {
        let estimates = Estimates::of(
            (0..k).map(|_| gradient(&mlp, &x, &y, &SoftmaxCrossEntropy, &shuffled(samples, &mut generator)[..batch])),
        );
        let (z, squared) = (estimates.largest_z(&full), estimates.squared_error(&full));
        println!("k {k}: largest z {z:.2}, squared error {squared:.2} of its expectation");
        assert!(z <= 5.0, "k = {k}: z = {z}");
        // The error shrinks like 1/√k: ‖mean − full‖²/(Σs²/k) is a weighted χ² of mean 1 and
        // variance at most 2 for every k. Five standard deviations above 1 are allowed.
        assert!(squared <= 1.0 + 5.0 * 2.0_f64.sqrt(), "k = {k}: {squared}");
    }

    // A sampler that never draws the last fifth is caught.
    let biased = Estimates::of((0..4096).map(|_| {
        let order: Vec<usize> = shuffled(samples, &mut generator).into_iter().filter(|&i| i < 40).collect();
        gradient(&mlp, &x, &y, &SoftmaxCrossEntropy, &order[..batch])
    }));
    assert!(biased.largest_z(&full) > 5.0, "bias goes unnoticed");
}

/// A loss whose targets are the samples' numbers, and which writes down when each comes.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<usize>>);

impl Loss<f64> for Recorder {
    type Target = usize;

    fn target_len(&self, _outputs: usize) -> Result<usize, Error> {
        Ok(1)
    }

    fn check(&self, _row: usize, _y: &[usize], _outputs: usize) -> Result<(), Error> {
        Ok(())
    }

    fn value_and_derivative(&self, _y_hat: &[f64], y: &[usize], d: &mut [f64]) -> f64 {
        self.0.lock().unwrap().push(y[0]);
        d.fill(0.0);
        0.0
    }
}

/// What `train` itself draws: each epoch every sample once, in an order in which every sample is as
/// likely at every place. Σ (found − expected)²/expected over 10 × 10 cells is χ² with 81 degrees
/// of freedom (rows and columns have fixed sums): mean 81, standard deviation √162, and five of
/// them are allowed.
#[test]
fn each_epoch_takes_every_sample_once_in_an_order_drawn_uniformly() {
    let (samples, epochs) = (10, 3000);
    let mut mlp = Mlp::<f64>::he(&[1, 1], Bias::Input, 0).unwrap();
    let x = Array2::from_elem((samples, 1), f64::ZERO);
    let y = Array1::from_iter(0..samples);
    let recorder = Recorder::default();
    // Batches of one: the order within a larger batch would be the engine's affair.
    Sgd::new(1, 0.1, 11).unwrap().train(&mut mlp, x.view(), y.view(), &recorder, epochs).unwrap();
    let drawn = recorder.0.into_inner().unwrap();
    assert_eq!(drawn.len(), samples * epochs);
    let mut cells = Array2::<f64>::zeros((samples, samples));
    for epoch in drawn.chunks(samples) {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, y.to_vec(), "every sample once");
        epoch.iter().enumerate().for_each(|(place, &sample)| cells[(place, sample)] += 1.0);
    }
    let expected = epochs as f64 / samples as f64;
    let chi_squared: f64 = cells.iter().map(|found| (found - expected) * (found - expected) / expected).sum();
    println!("χ² {chi_squared:.1}, expected 81 ± 12.7");
    assert!((chi_squared - 81.0).abs() <= 5.0 * 162.0_f64.sqrt(), "χ² = {chi_squared}");
    assert!(drawn[..samples] != drawn[samples..2 * samples], "a fresh order each epoch");
}
