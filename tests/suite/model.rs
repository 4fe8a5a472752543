//! The mean loss of a model over data: that of the oracle's samples, for any number of threads.

use crate::common;

use gemmprop::{
    Bias, Dataset, Error, Loss, Mlp, Model, Products, Scalar, SoftmaxCrossEntropy, SquaredError, Standardizer, Trainer,
    TrainingSettings, rungs::per_neuron,
};
use ndarray::{Array1, Array2, ArrayView2, array, s};

/// More than one block, and a ragged one.
const SAMPLES: usize = 5003;

/// Small whole numbers, on which all arithmetic is exact, whatever the order.
fn setting() -> (Mlp<f32>, Array2<f32>, Array2<f32>, Array1<f32>) {
    let widths = [5, 40, 40, 2];
    let x = common::integers(SAMPLES, widths[0], 1);
    let weights = Array1::from_shape_fn(SAMPLES, |i| (i % 4) as f32);
    (common::integer_network(&widths, Bias::EveryLayer, 3), x, common::integers(SAMPLES, 2, 2), weights)
}

fn by_the_oracle(mlp: &Mlp<f32>, x: ArrayView2<f32>, y: ArrayView2<f32>, weights: &Array1<f32>) -> f64 {
    let mut g = mlp.zero_gradient();
    let samples = x.outer_iter().zip(y.outer_iter()).zip(weights);
    let losses = samples.map(|((x, y), &weight)| {
        f64::from(weight * per_neuron::loss_gradient(mlp, x, &y.to_vec(), &SquaredError, &mut g).unwrap())
    });
    losses.sum::<f64>() / x.nrows() as f64
}

#[test]
fn the_mean_loss_is_that_of_the_samples() {
    let (mlp, x, y, weights) = setting();
    let model = Model::from(mlp.clone());
    for n in [1, 7, 2048, 2049, SAMPLES] {
        let (x, y, weights) = (x.slice(s![..n, ..]), y.slice(s![..n, ..]), weights.slice(s![..n]).to_owned());
        let plain = Dataset::new(x, y);
        let loss = by_the_oracle(&mlp, x, y, &Array1::ones(n));
        assert_eq!(model.evaluate(plain, &SquaredError).unwrap(), loss, "{n} samples");
        let loss = by_the_oracle(&mlp, x, y, &weights);
        assert_eq!(
            model.evaluate(plain.weights(weights.view()), &SquaredError).unwrap(),
            loss,
            "{n} samples, weighted"
        );
    }
}

/// A loss beyond the number type is infinite, and a sample of weight 0 says nothing, also where the
/// network overflows on it. A loss that is no number is an error.
#[test]
fn a_mean_loss_beyond_the_number_type_is_infinite_and_one_that_is_none_is_an_error() {
    struct NotANumber;

    impl<F: Scalar> Loss<F> for NotANumber {
        type Target = F;

        fn value_and_derivative(&self, y_hat: &[F], _: &[F], _: &mut [F]) -> F {
            (y_hat[0] - y_hat[0]) / F::ZERO
        }
    }

    for products in [Products::Auto, Products::Native] {
        let mlp = Mlp::<f32>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 4.0).unwrap();
        let mlp = mlp.with_products(products).unwrap();
        let (x, y) = (array![[1e30], [f32::MAX], [1.0]], Array1::zeros(3));
        let data = Dataset::new(&x, &y);
        let weights = array![1.0, 0.0, 1.0];
        assert_eq!(mlp.evaluate(data.weights(&weights), &SquaredError).unwrap(), f64::INFINITY);
        let error = mlp.evaluate(data, &SquaredError).unwrap_err();
        assert!(matches!(error, Error::Output { .. }), "{error}");
        let error = mlp.evaluate(Dataset::new(&array![[1.0]], &array![0.0]), &NotANumber).unwrap_err();
        assert!(matches!(error, Error::Diverged { what: "loss", .. }), "{error}");
    }
}

/// These sums are rounded, so their order shows in the bits.
#[test]
fn the_mean_loss_has_the_same_bits_for_any_number_of_threads() {
    let (_, x, _, weights) = setting();
    let standardizer = Some(Standardizer::fit(x.view()).unwrap());
    let model = Model { mlp: common::network::<f32>(&[5, 200, 200, 3], Bias::Input, 1), standardizer };
    let labels = Array1::from_shape_fn(SAMPLES, |i| i % 3);
    let data = Dataset::new(x.view(), labels.view()).weights(weights.view());
    let losses = [1, 2, 3, 8].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| model.evaluate(data, &SoftmaxCrossEntropy).unwrap().to_bits())
    });
    assert!(losses.iter().all(|&loss| loss == losses[0]), "{losses:?}");
}

/// What a trainer records as the validation loss of an epoch is the loss of its model then,
/// standardised and weighted alike. In exact numbers: x of as many 0 as 2 becomes ∓1, and a network
/// that meets its targets does not learn.
#[test]
fn the_validation_loss_is_the_loss_of_the_model() {
    let (mlp, .., weights) = setting();
    let weights = weights.slice(s![..4096]);
    let x = Array2::from_shape_fn((4096, 5), |(i, j)| (i >> (2 * j) & 1) as f32 * 2.0);
    let met = mlp.predict(x.mapv(|x| x - 1.0).view()).unwrap();
    let y = &met + 1.0;
    let training = TrainingSettings { epochs: 1, standardize: true, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp.clone(), SquaredError, training).unwrap();
    let validation = Dataset::new(x.view(), y.view()).weights(weights);
    trainer.fit(Dataset::new(x.view(), met.view()), Some(validation), &mut ()).unwrap();
    assert_eq!(trainer.model().mlp, mlp);
    // Two outputs that miss by 1 each, and weights of 1.5 on average.
    assert_eq!(trainer.model().evaluate(validation, &SquaredError).unwrap(), 1.5);
    assert_eq!(trainer.history().records[0].validation_loss, Some(1.5));
}

/// Small whole numbers, on which both engines are exact.
#[test]
fn a_predictor_writes_what_predict_returns() {
    let (mlp, x, ..) = setting();
    for (products, capacity) in
        [(Products::Auto, 64), (Products::Native, 64), (Products::Native, 7), (Products::Auto, usize::MAX)]
    {
        let model = Model::from(mlp.clone().with_products(products).unwrap());
        let mut predictor = model.predictor(capacity).unwrap();
        for n in (1..=20).chain([64, 65, 130, 1000]) {
            let x = x.slice(s![..n, ..]);
            let mut y_hat = Array2::from_elem((n, 2), f32::NAN);
            predictor.predict_into(x, y_hat.view_mut()).unwrap();
            assert_eq!(y_hat, model.predict(x).unwrap(), "{products:?}, {n} rows, buffers for {capacity}");
        }
    }
}

#[test]
fn a_predictor_standardises_and_keeps_its_parameters() {
    let (mlp, x, ..) = setting();
    let mut model = Model::from(mlp.with_products(Products::Native).unwrap());
    model.standardizer = Some(Standardizer::fit(x.view()).unwrap());
    let mut predictor = model.predictor(32).unwrap();
    let expected = model.predict(x.view()).unwrap();
    model.mlp = common::integer_network(&[5, 40, 40, 2], Bias::EveryLayer, 4);
    let mut y_hat = Array2::zeros((SAMPLES, 2));
    // Other strides than rows in one piece, on both sides.
    let wide = Array2::from_shape_fn((SAMPLES, 10), |(i, j)| x[(i, j / 2)]);
    for x in [x.view(), wide.slice(s![.., ..;2])] {
        predictor.predict_into(x, y_hat.view_mut()).unwrap();
        assert_eq!(y_hat, expected);
        y_hat = Array2::zeros((2, SAMPLES)).reversed_axes();
    }
}

/// What overflowed lies in the buffers, and 0 · ∞ in their padding.
#[test]
fn a_predictor_goes_on_after_an_overflow() {
    for products in [Products::Auto, Products::Native] {
        let mlp = Mlp::<f32>::he(&[3, 19, 17, 2], Bias::EveryLayer, 1).unwrap().with_products(products).unwrap();
        let x = Array2::from_shape_fn((21, 3), |(i, j)| ((i * 5 + j * 3) % 7) as f32 - 3.0);
        let expected = mlp.predict(x.view()).unwrap();
        let mut predictor = mlp.predictor(21).unwrap();
        let mut y_hat = Array2::zeros((21, 2));
        predictor.predict_into(x.view(), y_hat.view_mut()).unwrap();
        let before = y_hat.clone();
        let error = predictor.predict_into((&x * 1e38).view(), y_hat.view_mut()).unwrap_err();
        assert!(matches!(error, Error::Output { .. }), "{error}");
        predictor.predict_into(x.view(), y_hat.view_mut()).unwrap();
        assert_eq!(y_hat, before);
        if products == Products::Native {
            assert_eq!(y_hat, expected);
        }
    }
}

#[test]
fn a_predictor_refuses_what_does_not_fit() {
    let (mlp, mut x, ..) = setting();
    assert!(matches!(mlp.predictor(0), Err(Error::NoSamples)));
    let mut model = Model::from(mlp);
    model.standardizer = Some(Standardizer::fit(x.view()).unwrap());
    let mut predictor = model.predictor(16).unwrap();
    let mut y_hat = Array2::zeros((100, 2));
    let mut refused = |x: ArrayView2<f32>, rows: usize| {
        predictor.predict_into(x, y_hat.slice_mut(s![..rows, ..])).unwrap_err().to_string()
    };
    assert_eq!(refused(x.slice(s![..3, ..4]), 3), model.predict(x.slice(s![..3, ..4])).unwrap_err().to_string());
    let message = refused(x.slice(s![..3, ..]), 2);
    assert!(message.contains("y_hat") && message.contains("[3, 2]") && message.contains("[2, 2]"), "{message}");
    // Rows are counted from the first of the call, whatever block they are in.
    for bad in [f32::NAN, f32::MAX] {
        x[(70, 3)] = bad;
        let x = x.slice(s![..100, ..]);
        let message = refused(x, 100);
        assert!(message.contains("70"), "{message}");
        assert_eq!(message, model.predict(x).unwrap_err().to_string());
    }
}
