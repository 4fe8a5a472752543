//! What is made of the data: sample weights and standardisation.

use super::*;

/// On small whole numbers and with η a power of 2 the gradient is exact, also where its terms are
/// scaled by η/B, so that a step with it has the same bits, roots and all.
fn weights_are_repetitions<F: common::Real>() {
    let counts = [1, 2, 0, 3, 0, 1, 0, 1];
    let repeated: Vec<usize> = (0..8).flat_map(|i| std::iter::repeat_n(i, counts[i])).collect();
    assert_eq!(repeated.len(), 8, "the same B, so that the means are the same");
    let weights = Array1::from_shape_fn(8, |i| F::from_f64(counts[i] as f64));
    let x = common::integers::<F>(8, 5, 1);
    let y = common::integers::<F>(8, 3, 2);
    let rows = |a: &Array2<F>| a.select(ndarray::Axis(0), &repeated);
    let (x_repeated, y_repeated) = (rows(&x), rows(&y));
    for optimizer in optimizers() {
        for clip_norm in [None, Some(0.5), Some(1e30)] {
            let step = |data: Dataset<F, F>| {
                let mlp = common::integer_network::<F>(&[5, 7, 8, 3], Bias::EveryLayer, 4);
                let learning_rate = LearningRate::constant(1.0 / 128.0);
                let training = TrainingSettings { optimizer, learning_rate, clip_norm, ..TrainingSettings::default() };
                let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
                let loss = trainer.step(data).unwrap();
                (loss, model_bits(trainer.model()))
            };
            let expected = step(Dataset::new(x_repeated.view(), y_repeated.view()));
            let found = step(Dataset::new(x.view(), y.view()).weights(weights.view()));
            assert_eq!(found, expected, "{optimizer:?} {clip_norm:?}");
        }
    }
}

#[test]
fn whole_weights_are_repetitions() {
    weights_are_repetitions::<f32>();
    weights_are_repetitions::<f64>();
}

/// Whatever its numbers are: in losses, steps, standardisation, validation; in an order or where it
/// lies; also if its z overflows.
#[test]
fn a_sample_of_weight_0_has_no_influence() {
    let (mlp, x, y) = setting::<f32>();
    let weights = Array1::from_shape_fn(70, |i| if i % 3 == 0 { 0.0 } else { 1.25_f32 });
    let run = |training: &TrainingSettings, x: ArrayView2<f32>, y: &Array1<usize>| {
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
        let data = Dataset::new(x, y.view()).weights(weights.view());
        trainer.fit(data, Some(data), &mut ()).unwrap();
        trainer.step(data).unwrap();
        state(&trainer)
    };
    for optimizer in optimizers() {
        for (standardize, shuffle, sam) in
            [(false, true, None), (false, false, None), (true, false, None), (true, true, Some(0.1))]
        {
            let learning_rate = LearningRate::constant(0.01);
            let base =
                TrainingSettings { optimizer, learning_rate, standardize, shuffle, sam, ..TrainingSettings::default() };
            let training = TrainingSettings { batch: 16, epochs: 3, ..base };
            let expected = run(&training, x.view(), &y);
            for scale in [50.0, 1e30, f32::MAX] {
                let (mut other_x, mut other_y) = (x.clone(), y.clone());
                for i in (0..70).step_by(3) {
                    other_x.row_mut(i).mapv_inplace(|x| scale * x.signum());
                    other_y[i] = (y[i] + 1) % 3;
                }
                assert_eq!(run(&training, other_x.view(), &other_y), expected, "{training:?} {scale}");
            }
        }
    }
}

#[test]
fn samples_of_weight_0_alone_are_none_to_standardise_by() {
    let (x, y, weights) = (array![[1.0], [2.0]], array![1.0, 3.0], array![0.0, 0.0]);
    let mut trainer = Trainer::new(
        linear::<f64>(1.0),
        SquaredError,
        TrainingSettings { standardize: true, ..TrainingSettings::default() },
    )
    .unwrap();
    let data = Dataset::new(x.view(), y.view());
    assert_eq!(trainer.fit(data.weights(weights.view()), None, &mut ()), Err(Error::NoSamples));
    assert_eq!(trainer.fit(data, None, &mut ()), Ok(StopReason::Completed));
}

/// ½ (3·10³⁸)² overflows in f32, and ∞ · 0 would be NaN.
#[test]
fn a_sample_of_weight_0_has_no_influence_even_if_its_loss_overflows() {
    let mlp = Mlp::<f32>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default()).unwrap();
    let (x, y, weights) = (array![[1.0], [1.0]], array![3e38, 1.0], array![0.0, 2.0]);
    let loss = trainer.step(Dataset::new(x.view(), y.view()).weights(weights.view())).unwrap();
    assert_eq!(loss, 0.5);
}

fn standardized_columns<F: common::Real>() {
    let (mlp, mut x, y) = setting::<F>();
    // Far from 0, in other units, and always the same.
    x.column_mut(1).mapv_inplace(|x| x + F::from_f64(100.0));
    x.column_mut(2).mapv_inplace(|x| x * F::from_f64(1024.0));
    x.column_mut(3).fill(F::from_f64(0.3));
    let training = TrainingSettings { standardize: true, epochs: 2, batch: 16, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let standardizer = trainer.model().standardizer.clone().unwrap();
    assert_eq!(standardizer, Standardizer::fit(x.view()).unwrap());
    let z = standardizer.transform(x.view()).unwrap();
    for (j, (x, z)) in x.columns().into_iter().zip(z.columns()).enumerate() {
        if j == 3 {
            assert_eq!(standardizer.factor()[j].to_f64(), 1.0);
            assert!(z.iter().all(|z| z.to_f64() == 0.0));
            continue;
        }
        let (mean, factor): (f64, f64) = (standardizer.mean()[j].to_f64(), standardizer.factor()[j].to_f64());
        // Each z is rounded to F, and twice before in double precision; the mean is off by a
        // rounding, and by what a compensated sum has lost.
        let most = x.iter().fold(0.0_f64, |most, x| most.max(x.to_f64().abs()));
        let off = |z: f64| (F::U + common::gamma(3, f64::EPSILON)) * z.abs();
        let of_sums = factor * f64::EPSILON * (mean.abs() + 70.0 * 70.0 * f64::EPSILON * most);
        let n = z.len() as f64;
        let sum: f64 = z.iter().map(|z| z.to_f64()).sum();
        let bound = z.iter().map(|z| off(z.to_f64())).sum::<f64>() / n + 2.0 * of_sums;
        assert!(bound < 1e-3 && (sum / n).abs() <= bound, "column {j}: mean {}, bound {bound:e}", sum / n);
        let squares: f64 = z.iter().map(|z| z.to_f64() * z.to_f64()).sum();
        let moved = |z: f64| (2.0 * z.abs() + off(z) + of_sums) * (off(z) + of_sums);
        // s too is that of rounded numbers: as much again.
        let bound =
            2.0 * z.iter().map(|z| moved(z.to_f64())).sum::<f64>() / n + 2.0 * F::U + common::gamma(75, f64::EPSILON);
        assert!(
            bound < 1e-3 && (squares / n - 1.0).abs() <= bound,
            "column {j}: variance {}, bound {bound:e}",
            squares / n
        );
    }

    // Training on the transformed data is the same, and the model does to x what was done in
    // training.
    for shuffle in [true, false] {
        let training = TrainingSettings { shuffle, validation_fraction: None, ..training.clone() };
        let new = |standardize| {
            let training = TrainingSettings { standardize, ..training.clone() };
            Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap()
        };
        let (mut inside, mut outside) = (new(true), new(false));
        let validation = Dataset::new(x.slice(s![..30, ..]), y.slice(s![..30]));
        inside.fit(Dataset::new(x.view(), y.view()), Some(validation), &mut ()).unwrap();
        let validation = Dataset::new(z.slice(s![..30, ..]), y.slice(s![..30]));
        outside.fit(Dataset::new(z.view(), y.view()), Some(validation), &mut ()).unwrap();
        assert_eq!(inside.model().mlp, outside.model().mlp);
        assert_eq!(state(&inside).records, state(&outside).records);
        assert_eq!(inside.model().predict(x.view()), outside.model().predict(z.view()));
        assert_eq!(inside.model().classify(x.view()), outside.model().classify(z.view()));
        assert!(outside.model().standardizer.is_none());
    }
}

#[test]
fn standardised_columns_have_mean_0_and_variance_1_and_train_as_such() {
    standardized_columns::<f32>();
    standardized_columns::<f64>();
}

/// The standardisation is fitted on the first data and does not change.
#[test]
fn the_standardisation_stays_that_of_the_first_data() {
    let (mlp, x, y) = setting::<f64>();
    let mut trainer =
        Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings { standardize: true, ..TrainingSettings::default() })
            .unwrap();
    trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let fitted = trainer.model().standardizer.clone();
    let other = x.mapv(|x| 3.0 * x + 1.0);
    trainer.partial_fit(Dataset::new(other.view(), y.view()), None, &mut ()).unwrap();
    trainer.step(Dataset::new(other.view(), y.view())).unwrap();
    assert_eq!(trainer.model().standardizer, fitted);
}

/// Squares of these are beyond f64 on either side, and 1/s of the last one is beyond f32; their
/// deviations are not.
#[test]
fn a_column_whose_squares_overflow_or_vanish_is_standardised_all_the_same() {
    for unit in [2_f64.powi(700), 2_f64.powi(-700), 2_f64.powi(-1000)] {
        let x = array![[unit], [-unit]];
        let fitted = Standardizer::fit(x.view()).unwrap();
        assert_eq!(fitted.transform(x.view()).unwrap(), array![[1.0], [-1.0]], "{fitted:?}");
    }
    let x = array![[0.0], [2_f32.powi(-149)]];
    assert_eq!(Standardizer::fit(x.view()).unwrap().transform(x.view()).unwrap(), array![[-1.0], [1.0]]);
}

/// 1/s is beyond f64.
#[test]
fn a_scale_that_is_not_finite_is_what_the_error_shows() {
    let error = Standardizer::fit(array![[1.0, 0.0], [2.0, 5e-324]].view()).unwrap_err();
    let Error::NotFinite { what: "mean and scale", column: 1, found, .. } = error else { panic!("{error:?}") };
    assert!(!found.is_finite(), "{error}");
}

#[test]
fn a_number_that_is_not_finite_is_named_with_its_row() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let x = array![[1.0, 0.5], [2.0, bad], [3.0, f64::NAN]];
        let error = Standardizer::fit(x.view()).unwrap_err();
        let Error::NotFinite { what: "x", row: Some(1), column: 1, found } = error else { panic!("{error:?}") };
        assert_eq!(found.to_bits(), bad.to_bits());
    }
}

/// Sums of equal numbers round, by many times √n ε where there are many.
fn equal_numbers_are_a_constant_column<F: common::Real>() {
    for value in [0.1, -1.0 / 3.0, 1e-30, 12_345_678.9, 1e30, 0.0] {
        for n in [1, 2, 3, 7, 1000, 4097] {
            let x = Array2::from_elem((n, 1), F::from_f64(value));
            let fitted = Standardizer::fit(x.view()).unwrap();
            assert_eq!(fitted.factor()[0].to_f64(), 1.0, "{n} of {value}");
            assert_eq!(fitted.mean()[0].to_f64(), F::from_f64(value).to_f64(), "{n} of {value}");
            assert!(fitted.transform(x.view()).unwrap().iter().all(|&z| z == F::ZERO));
        }
    }
}

#[test]
fn a_column_of_equal_numbers_is_shifted_to_0_and_not_scaled() {
    equal_numbers_are_a_constant_column::<f32>();
    equal_numbers_are_a_constant_column::<f64>();
}

/// However little, a column varies if its numbers are not all the same: Σ z² = n, so that no z is
/// above √n.
fn the_least_variation_is_scaled_to_1<F: common::Real>() {
    for value in [1.0, 0.1, 16_777_216.0, 1e16, -3e30] {
        for n in [2, 3, 1000] {
            let mut x = Array2::from_elem((n, 1), F::from_f64(value));
            // The next number away from 0.
            x[(n - 1, 0)] = F::from_f64(x[(0, 0)].to_f64() * (1.0 + 2.0 * F::U));
            assert!(x[(n - 1, 0)] != x[(0, 0)]);
            let z = Standardizer::fit(x.view()).unwrap().transform(x.view()).unwrap();
            let squares: f64 = z.iter().map(|z| z.to_f64() * z.to_f64()).sum();
            // Each distance from the mean is exact; quotient, square, root, inverse, product, and
            // twice the rounding of z.
            let bound = common::gamma(10, f64::EPSILON) + 2.0 * common::gamma(1, F::U);
            assert!((squares / n as f64 - 1.0).abs() <= bound, "{n} of {value}: {squares}");
        }
    }
}

#[test]
fn a_column_that_varies_by_a_rounding_has_variance_1() {
    the_least_variation_is_scaled_to_1::<f32>();
    the_least_variation_is_scaled_to_1::<f64>();
}

#[test]
fn large_numbers_close_together_are_shifted_exactly() {
    let x = array![[16_777_216.0_f32], [16_777_218.0]];
    assert_eq!(Standardizer::fit(x.view()).unwrap().transform(x.view()).unwrap(), array![[-1.0], [1.0]]);
    // Dates, symmetric around the middle of the month.
    let x = Array2::from_shape_fn((28, 1), |(i, _)| 20_240_101.0 + i as f64);
    let z = Standardizer::fit(x.view()).unwrap().transform(x.view()).unwrap();
    assert!((0..28).all(|i| z[(i, 0)] == -z[(27 - i, 0)] && z[(i, 0)] != 0.0), "{z}");
    // In f32 these are every second number.
    let x = Array2::from_shape_fn((28, 1), |(i, _)| 20_240_100.0 + 2.0 * i as f32);
    let z = Standardizer::fit(x.view()).unwrap().transform(x.view()).unwrap();
    assert!((0..28).all(|i| z[(i, 0)] == -z[(27 - i, 0)] && z[(i, 0)] != 0.0), "{z}");
}

#[test]
fn a_failed_first_call_leaves_no_standardisation_behind() {
    let (x, y) = (array![[1e30_f32], [2e30]], array![3e38_f32, -3e38]);
    let (good, targets) = (array![[1.0_f32], [2.0]], array![1.0_f32, 2.0]);
    let training = TrainingSettings { standardize: true, batch: 2, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(linear::<f32>(1.0), SquaredError, training).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap_err();
    assert_eq!(trainer.model().standardizer, None);
    trainer.fit(Dataset::new(good.view(), targets.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().standardizer.as_ref().unwrap().mean()[0], 1.5);
}

/// What a model was standardised with stays, when it is trained on.
#[test]
fn a_model_is_trained_on_with_its_standardisation() {
    let (mlp, x, y) = setting::<f32>();
    let training = TrainingSettings { standardize: true, epochs: 1, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let model = trainer.into_model();
    let standardizer = model.standardizer.clone();
    let mut trainer = Trainer::new(model, SoftmaxCrossEntropy, training).unwrap();
    let other = x.mapv(|x| 3.0 * x + 1.0);
    trainer.fit(Dataset::new(other.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().standardizer, standardizer);
}
