//! The Hessian of what was trained: inputs as the model standardises them, data with their weights.
//! Small whole numbers, on which all arithmetic is exact.

use crate::common;

use common::{flat, integer_network, integers};
use gemmprop::{
    Bias, Dataset, Error, LearningRate, Mlp, Model, Optimizer, Parameters, SoftmaxCrossEntropy, SquaredError, Trainer,
    TrainingSettings, TwiceDifferentiable, curvature::Hessian,
};
use ndarray::{Array1, Array2, Axis, array};

/// Standardised these are ±1: each column is as often at mean + s as at mean − s.
fn far_away() -> Array2<f64> {
    Array2::from_shape_fn((8, 3), |(i, j)| 1000.0 * (j as f64 + 1.0) + if i >> j & 1 == 1 { 512.0 } else { -512.0 })
}

fn weights() -> Array1<f64> {
    array![3.0, 0.0, 1.0, 2.0, 0.0, 4.0, 1.0, 5.0]
}

/// Each row as often as its weight says: 16 of them.
fn repeated<T: Clone>(rows: &Array2<T>) -> Array2<T> {
    let often: Vec<usize> = weights().iter().enumerate().flat_map(|(i, &w)| vec![i; w as usize]).collect();
    assert_eq!(often.len(), 16);
    rows.select(Axis(0), &often)
}

fn direction(mlp: &Mlp<f64>) -> Parameters<f64> {
    let mut v = mlp.zero_gradient();
    v.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7 + i / 5) % 3) as f64 - 1.0);
    v
}

/// Loss, gradient and a product, times the number of samples.
fn sums<'a, L: TwiceDifferentiable<f64>>(
    model: &'a Model<f64>,
    data: Dataset<'a, f64, L::Target>,
    loss: &'a L,
) -> (f64, Vec<f64>, Vec<f64>) {
    let n = data.samples() as f64;
    let mut hessian = Hessian::new(model, data, loss).unwrap();
    let mut hv = model.mlp.zero_gradient();
    hessian.apply(&direction(&model.mlp), &mut hv).unwrap();
    let times_n = |p: &Parameters<f64>| flat(p).iter().map(|p| n * p).collect();
    (n * hessian.loss(), times_n(hessian.gradient()), times_n(&hv))
}

/// One step of plain descent, of a rate that is a power of two, is θ − η ∇L.
#[test]
fn its_gradient_is_the_trainers() {
    let (x, y, weights) = (far_away(), integers::<f64>(8, 2, 3), weights());
    let eta = 1.0 / 16.0;
    for standardize in [false, true] {
        for weighted in [false, true] {
            for &products in common::products() {
                let mlp = integer_network::<f64>(&[3, 4, 2], Bias::Input, 5).with_products(products).unwrap();
                let data = Dataset::new(x.view(), y.view());
                let data = if weighted { data.weights(weights.view()) } else { data };
                let training = TrainingSettings {
                    optimizer: Optimizer::default(),
                    learning_rate: LearningRate::constant(eta),
                    epochs: 1,
                    batch: 8,
                    shuffle: false,
                    standardize,
                    ..TrainingSettings::default()
                };
                let mut trainer = Trainer::new(mlp.clone(), SquaredError, training).unwrap();
                trainer.fit(data, None, &mut ()).unwrap();
                let standardizer = trainer.model().standardizer.clone();
                assert_eq!(standardizer.is_some(), standardize);
                let before = Model { mlp, standardizer };
                let hessian = Hessian::new(&before, data, &SquaredError).unwrap();
                let (start, g) = (flat(before.mlp.parameters()), flat(hessian.gradient()));
                let expected: Vec<f64> = start.iter().zip(&g).map(|(start, g)| start - eta * g).collect();
                assert_eq!(flat(trainer.model().mlp.parameters()), expected, "{standardize} {weighted} {products:?}");
                assert!(g.iter().any(|&g| g != 0.0));
            }
        }
    }
}

/// The result is that of inputs that were standardised before and a network that reads them as they
/// are.
#[test]
fn inputs_are_standardised_as_the_model_does() {
    let (x, y) = (far_away(), integers::<f64>(8, 2, 3));
    let standardizer = gemmprop::Standardizer::fit(x.view()).unwrap();
    let z = standardizer.transform(x.view()).unwrap();
    assert!(z.iter().all(|z| z.abs() == 1.0));
    for &products in common::products() {
        let mlp = integer_network::<f64>(&[3, 4, 2], Bias::EveryLayer, 5).with_products(products).unwrap();
        let raw = Model { mlp: mlp.clone(), standardizer: None };
        let model = Model { mlp, standardizer: Some(standardizer.clone()) };
        let found = sums(&model, Dataset::new(x.view(), y.view()), &SquaredError);
        assert_eq!(found, sums(&raw, Dataset::new(z.view(), y.view()), &SquaredError));
        assert_ne!(found, sums(&raw, Dataset::new(x.view(), y.view()), &SquaredError));
    }
}

/// A weight of k is a sample k times; one of 0 is none, even where its loss overflows.
#[test]
fn a_weight_is_a_number_of_samples() {
    for &products in common::products() {
        let network = integer_network::<f64>(&[3, 4, 2], Bias::EveryLayer, 5).with_products(products).unwrap();
        a_weight_is_a_number_of_samples_for(&Model::from(network));
    }
}

fn a_weight_is_a_number_of_samples_for(model: &Model<f64>) {
    fn check<L: TwiceDifferentiable<f64>>(
        model: &Model<f64>,
        y: &Array2<L::Target>,
        loss: &L,
    ) -> [(f64, Vec<f64>, Vec<f64>); 2] {
        let x = integers::<f64>(8, 3, 4);
        let (w, often) = (weights(), (repeated(&x), repeated(y)));
        // Weights of a column of something larger.
        let columns = Array2::from_shape_fn((8, 2), |(i, _)| w[i]);
        let strided = sums(model, Dataset::new(x.view(), y.view()).weights(columns.column(1)), loss);
        let found = sums(model, Dataset::new(x.view(), y.view()).weights(w.view()), loss);
        assert_eq!(strided, found);
        let mut beyond = x.clone();
        beyond.row_mut(1).fill(1e200);
        assert_eq!(sums(model, Dataset::new(beyond.view(), y.view()).weights(w.view()), loss), found);
        [found, sums(model, Dataset::new(often.0.view(), often.1.view()), loss)]
    }
    let [found, expected] = check(model, &integers::<f64>(8, 2, 3), &SquaredError);
    assert_eq!(found, expected);
    // Exponentials are not exact, but their products with small whole numbers nearly are: sums of
    // up to 16 of them round.
    let [found, expected] = check(model, &Array2::from_shape_fn((8, 1), |(i, _)| i % 2), &SoftmaxCrossEntropy);
    let close = |a: &[f64], b: &[f64], size: f64| {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= common::gamma(64, f64::EPSILON / 2.0) * size)
    };
    // No sum over the samples is of numbers larger than these.
    assert!(close(&[found.0], &[expected.0], expected.0), "{} {}", found.0, expected.0);
    let largest = |a: &[f64]| 1e3 * a.iter().fold(1.0, |largest: f64, a| largest.max(a.abs()));
    assert!(close(&found.1, &expected.1, largest(&expected.1)));
    assert!(close(&found.2, &expected.2, largest(&expected.2)));
}

#[test]
fn weights_that_are_none_are_refused() {
    let (x, y) = (integers::<f64>(4, 3, 1), integers::<f64>(4, 2, 2));
    let mlp = integer_network::<f64>(&[3, 2], Bias::Input, 1);
    let refused = |weights: Array1<f64>| {
        let data = Dataset::new(x.view(), y.view()).weights(weights.view());
        Hessian::new(&mlp, data, &SquaredError).map(drop).unwrap_err()
    };
    assert_eq!(refused(array![1.0]), Error::Length { what: "weights", expected: 4, found: 1 });
    assert_eq!(refused(array![1.0, 1.0, -2.0, 1.0]), Error::Weight { row: 2, found: -2.0 });
}
