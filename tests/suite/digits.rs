//! Real data: handwritten digits by softmax, and red wine by squared error with a scalar ŷ.

use gemmprop::{Bias, Mlp, Sgd, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array1, Array2, Axis, s};

const TRAIN: usize = 1437;

/// 1797 digits in file order, pixels from 0 to 1.
fn digits() -> (Array2<f32>, Array1<usize>) {
    let data = smartcore::dataset::digits::load_dataset();
    let x = Array2::from_shape_vec((data.num_samples, data.num_features), data.data.clone()).unwrap();
    assert_eq!(x.dim(), (1797, 64));
    (x / 16.0, data.target.iter().map(|&label| label as usize).collect())
}

/// Trained on the first 1437, the share of the last 360 that is right.
fn test_accuracy(x: &Array2<f32>, labels: &Array1<usize>, constant: Bias, seed: u64) -> f64 {
    let mut mlp = Mlp::<f32>::he(&[64, 64, 64, 10], constant, seed).unwrap();
    let (train, labels_of) = (x.slice(s![..TRAIN, ..]), labels.slice(s![..TRAIN]));
    Sgd::new(32, 0.1, seed).unwrap().train(&mut mlp, train, labels_of, &SoftmaxCrossEntropy, 60).unwrap();
    let classes = mlp.classify(x.slice(s![TRAIN.., ..])).unwrap();
    let right = classes.iter().zip(labels.slice(s![TRAIN..])).filter(|(class, label)| class == label);
    right.count() as f64 / (x.nrows() - TRAIN) as f64
}

/// PyTorch, the same model and split: 0.914; scikit-learn: 0.903 to 0.919.
#[test]
fn handwritten_digits_are_learned() {
    let (x, labels) = digits();
    for constant in [Bias::EveryLayer, Bias::Input] {
        let accuracies: Vec<f64> = (1..=5).map(|seed| test_accuracy(&x, &labels, constant, seed)).collect();
        let mean = accuracies.iter().sum::<f64>() / 5.0;
        println!("{constant:?}: mean test accuracy {mean:.4} of {accuracies:.4?}");
        assert!(mean >= 0.905, "{constant:?}: {mean:.4} of {accuracies:?}");
    }
}

/// 1599 red wines, 11 measurements each, standardised with the mean and deviation of the first
/// 1200; the tasters' score.
#[test]
fn red_wine_is_predicted_better_than_by_its_mean() {
    let data = linfa_datasets::winequality();
    let (n, d) = data.records.dim();
    let mut x = Array2::from_shape_vec((n, d), data.records.iter().copied().collect()).unwrap();
    let y: Array1<f64> = data.targets.iter().map(|&score| score as f64).collect();
    // The file lists similar wines together: every fourth is kept for the test.
    let (train, test): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| i % 4 != 0);
    for mut column in x.columns_mut() {
        let of_train = column.select(Axis(0), &train);
        let (mean, deviation) = (of_train.mean().unwrap(), of_train.std(0.0));
        column.map_inplace(|v| *v = (*v - mean) / deviation);
    }
    let mean = y.select(Axis(0), &train).mean().unwrap();
    let mut mlp = Mlp::<f64>::he(&[d, 32, 32, 1], Bias::EveryLayer, 1).unwrap();
    let (x_train, y_train) = (x.select(Axis(0), &train), y.select(Axis(0), &train));
    let losses =
        Sgd::new(32, 0.01, 1).unwrap().train(&mut mlp, x_train.view(), y_train.view(), &SquaredError, 60).unwrap();
    let y_hat = mlp.predict(x.select(Axis(0), &test).view()).unwrap();
    let squared = |residual: f64| residual * residual;
    let error = test.iter().zip(&y_hat).map(|(&i, y_hat)| squared(y[i] - y_hat)).sum::<f64>() / test.len() as f64;
    let baseline = test.iter().map(|&i| squared(y[i] - mean)).sum::<f64>() / test.len() as f64;
    println!(
        "mean squared error on {} wines: {error:.3}, of the mean score {baseline:.3}; last epoch's loss {:.3}",
        test.len(),
        losses[59]
    );
    // Linear regression explains about a third of the variance (Cortez et al. 2009).
    assert!(error < 0.75 * baseline, "{error} against {baseline}");
}
