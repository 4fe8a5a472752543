//! Shapes far from square: a layer with more columns than a chunk of a gradient has, and batches of
//! up to a million samples.

use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Optimizer, Parameters, Scalar, SquaredError, Trainer, TrainingSettings,
    rungs::{batched, per_neuron},
};
use ndarray::{Array1, Array2};

fn value(i: usize, j: usize) -> f64 {
    ((i * 31 + j * 17) % 97) as f64 / 48.5 - 0.9
}

fn optimizers() -> [Optimizer; 4] {
    [Optimizer::Sgd, Optimizer::Momentum { mu: 0.9 }, Optimizer::Nesterov { mu: 0.9 }, Optimizer::adam()]
}

/// One step from the same network.
fn stepped<F: Scalar>(columns: usize, training: TrainingSettings) -> (Parameters<F>, Parameters<F>, f64) {
    let mlp = Mlp::<F>::he(&[columns, 4, 1], Bias::Input, 1).unwrap();
    let before = mlp.parameters().clone();
    let x = Array2::from_shape_fn((8, columns), |(i, j)| F::from_f64(value(i, j)));
    let y = Array1::from_shape_fn(8, |i| F::from_f64(value(i, 3)));
    let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings { batch: 8, epochs: 1, ..training }).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let norm = trainer.history().records[0].gradient_norm;
    (before, trainer.model().mlp.parameters().clone(), norm)
}

/// Each number moves by its optimiser's first step: −η g, or for Adam −η g/(|g| + ε), with the
/// gradient of the loop over neurons.
fn every_column_is_stepped<F: Scalar>(columns: usize, clip_norm: Option<f64>, unit: f64) {
    let eta = 0.5;
    let x = Array2::from_shape_fn((8, columns), |(i, j)| F::from_f64(value(i, j)));
    let mlp = Mlp::<F>::he(&[columns, 4, 1], Bias::Input, 1).unwrap();
    let mut gradient = vec![0.0; mlp.parameters().count()];
    let (mut g, mut least) = (mlp.zero_gradient(), f64::INFINITY);
    for i in 0..8 {
        let y = [F::from_f64(value(i, 3))];
        let trace = per_neuron::output_gradient(&mlp, x.row(i), 0, &mut g).unwrap();
        least = trace.u(1).iter().fold(least, |least, u| least.min(u.to_f64().abs()));
        per_neuron::loss_gradient(&mlp, x.row(i), &y, &SquaredError, &mut g).unwrap();
        gradient.iter_mut().zip(g.iter()).for_each(|(sum, g)| *sum += g.to_f64() / 8.0);
    }
    // Sums of `columns` numbers of size below 1, so that no mask hangs on a rounding.
    assert!(least > columns as f64 * unit, "{least}");
    let exact = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    let scale = clip_norm.map_or(1.0, |most| (most / exact).min(1.0));
    let largest = gradient.iter().fold(0.0_f64, |largest, g| largest.max(g.abs()));
    // Relative to the largest number: forward and backward sums of up to `columns` products, and
    // the few roundings of a step.
    let tolerance = 4.0 * columns as f64 * unit * largest;
    for optimizer in optimizers() {
        let training = TrainingSettings {
            optimizer,
            learning_rate: LearningRate::constant(eta),
            clip_norm,
            ..TrainingSettings::default()
        };
        let (before, after, norm) = stepped::<F>(columns, training);
        assert!((norm - exact).abs() <= tolerance * (gradient.len() as f64).sqrt(), "{optimizer:?}: {norm}, {exact}");
        for (i, ((before, after), g)) in before.iter().zip(after.iter()).zip(&gradient).enumerate() {
            let (found, g) = (before.to_f64() - after.to_f64(), scale * g);
            let rounding = 2.0 * unit * (before.to_f64().abs() + eta);
            match optimizer {
                // m̂ = g and √v̂ = |g|. Where g is all rounding, either sign is right.
                Optimizer::Adam { epsilon, .. } if g.abs() > 2.0 * tolerance => {
                    let expected = eta * g / (g.abs() + epsilon);
                    // The derivative of that in g, at the nearest g; and the roundings of β, m, v,
                    // the root and the quotient.
                    let slope = eta * epsilon / (g.abs() - tolerance + epsilon).powi(2);
                    let bound = slope * tolerance + rounding + 16.0 * unit * eta;
                    assert!((found - expected).abs() <= bound, "{i}: {found}, {expected} ± {bound}");
                }
                Optimizer::Adam { .. } => {}
                // v = g, and Nesterov's step is g + μ v.
                _ => {
                    let times = if matches!(optimizer, Optimizer::Nesterov { .. }) { 1.9 } else { 1.0 };
                    let expected = eta * times * g;
                    assert!((found - expected).abs() <= eta * times * tolerance + rounding, "{i}: {found}, {expected}");
                }
            }
        }
    }
}

#[test]
fn every_column_of_a_wide_layer_is_stepped() {
    for columns in [8_192, 8_193, 20_000, 131_072, 131_073] {
        every_column_is_stepped::<f64>(columns, None, f64::EPSILON / 2.0);
        every_column_is_stepped::<f64>(columns, Some(1e-2), f64::EPSILON / 2.0);
    }
    every_column_is_stepped::<f32>(131_073, None, f64::from(f32::EPSILON) / 2.0);
}

/// A linear network with all weights 0, so that ŷ = 0 and δ = −y exactly: the gradient is −(1/B) Σ
/// y x, and for the biases −(1/B) Σ y. Numbers of one sign, whose sums lose most.
fn sums_of_many_samples_keep_their_digits(samples: usize, inputs: usize, outputs: usize) {
    let mlp = Mlp::<f32>::from_weights(&[inputs, outputs], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let positive = |i: usize, j: usize| (1.0 + ((i * 31 + j * 17) % 97) as f32 / 128.0) / 3.0;
    let x = Array2::from_shape_fn((samples, inputs), |(i, j)| positive(i, j));
    let y = Array2::from_shape_fn((samples, outputs), |(i, k)| positive(i, k + 5));
    let mut g = mlp.zero_gradient();
    batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, &mut g).unwrap();
    let unit = f64::from(f32::EPSILON) / 2.0;
    let relative = |found: f32, exact: f64| (f64::from(found) - exact).abs() / exact.abs();
    // Eight lanes of eight additions each, their sum, the factor 1/B and two roundings; blocks are
    // added up in f64.
    let of_constants = 19.0 * unit;
    // Blocks of 2048 samples in a product, a product for each: a sum of as many parts. OpenBLAS's
    // blocks of matrices are smaller.
    let of_weights = (2048.0 + samples as f64 / 2048.0 + 3.0) * unit;
    for k in 0..outputs {
        let exact = -y.column(k).iter().map(|&y| f64::from(y)).sum::<f64>() / samples as f64;
        let found = relative(g.b()[k], exact);
        assert!(found <= of_constants, "b[{k}] of {samples}: off by {found}, bound {of_constants}");
        for j in 0..inputs {
            let products = y.column(k).iter().zip(x.column(j)).map(|(&y, &x)| f64::from(y) * f64::from(x)).sum::<f64>();
            let found = relative(g.alpha()[(k, j)], -products / samples as f64);
            assert!(found <= of_weights, "alpha[{k}, {j}] of {samples}: off by {found}, bound {of_weights}");
        }
    }
}

#[test]
fn gradients_of_a_million_samples_keep_their_digits() {
    for (inputs, outputs) in [(4, 1), (1, 3), (3, 17)] {
        sums_of_many_samples_keep_their_digits(1_000_000, inputs, outputs);
        sums_of_many_samples_keep_their_digits(32_768, inputs, outputs);
    }
}
