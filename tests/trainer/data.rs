//! What is made of the data: sample weights and standardisation.

use super::*;

/// On small whole numbers the gradient is exact, so that a step with it has the same bits, roots and all.
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
                let mlp = common::integer_network::<F>(&[5, 7, 8, 3], Constant::EveryLayer, 4);
                let training = Training { optimizer, clip_norm, ..Training::default() };
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

/// δ = 0 adds 0 to each sum, whatever z is.
#[test]
fn a_sample_of_weight_0_has_no_influence() {
    let (mlp, x, y) = setting::<f32>();
    let weights = Array1::from_shape_fn(70, |i| if i % 3 == 0 { 0.0 } else { 1.25_f32 });
    for optimizer in optimizers() {
        let run = |x: ArrayView2<f32>, y: &Array1<usize>| {
            let training = Training {
                optimizer,
                learning_rate: LearningRate::constant(0.01),
                batch: 16,
                epochs: 3,
                ..Training::default()
            };
            let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
            trainer.fit(Dataset::new(x, y.view()).weights(weights.view()), None, &mut ()).unwrap();
            let losses: Vec<f64> = trainer.history().records.iter().map(|record| record.loss).collect();
            (trainer.into_model(), losses)
        };
        let (mut other_x, mut other_y) = (x.clone(), y.clone());
        for i in (0..70).step_by(3) {
            other_x.row_mut(i).mapv_inplace(|x| 3.0 - 50.0 * x);
            other_y[i] = (y[i] + 1) % 3;
        }
        assert_eq!(run(x.view(), &y), run(other_x.view(), &other_y), "{optimizer:?}");
    }
}

/// ½ (3·10³⁸)² overflows in f32, and ∞ · 0 would be NaN.
#[test]
fn a_sample_of_weight_0_has_no_influence_even_if_its_loss_overflows() {
    let mlp = Mlp::<f32>::from_weights(&[1, 1], Constant::Absent, 0, |_, _, _| 0.0).unwrap();
    let mut trainer = Trainer::new(mlp, SquaredError, Training::default()).unwrap();
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
    let training = Training { standardize: true, epochs: 2, batch: 16, ..Training::default() };
    let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let standardizer = trainer.model().standardizer.clone().unwrap();
    assert_eq!(standardizer, Standardizer::fit(x.view()).unwrap());
    let z = standardizer.transform(x.view()).unwrap();
    for (j, (x, z)) in x.columns().into_iter().zip(z.columns()).enumerate() {
        if j == 3 {
            assert_eq!(standardizer.factor()[j], F::ONE);
            // The mean is rounded: as f64 in a sum of 70, then to F.
            assert!(z.iter().all(|z| z.to_f64().abs() <= 0.3 * (F::U + common::gamma(71, f64::EPSILON))));
            continue;
        }
        let (mean, factor) = (standardizer.mean()[j].to_f64(), standardizer.factor()[j].to_f64());
        // Each z is off by the rounding of the mean, and three times by its own.
        let most = x.iter().fold(0.0_f64, |most, x| most.max(x.to_f64().abs()));
        let off = |z: f64| factor * mean.abs() * F::U + common::gamma(3, F::U) * z.abs();
        let of_sums = factor * common::gamma(75, f64::EPSILON) * most;
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

    // Training on the transformed data is the same, and the model does to x what was done in training.
    for shuffle in [true, false] {
        let training = Training { shuffle, validation_fraction: None, ..training.clone() };
        let new = |standardize| {
            let training = Training { standardize, ..training.clone() };
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

/// It is fitted on the first data, and stays.
#[test]
fn the_standardisation_stays_that_of_the_first_data() {
    let (mlp, x, y) = setting::<f64>();
    let mut trainer =
        Trainer::new(mlp, SoftmaxCrossEntropy, Training { standardize: true, ..Training::default() }).unwrap();
    trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let fitted = trainer.model().standardizer.clone();
    let other = x.mapv(|x| 3.0 * x + 1.0);
    trainer.partial_fit(Dataset::new(other.view(), y.view()), None, &mut ()).unwrap();
    trainer.step(Dataset::new(other.view(), y.view())).unwrap();
    assert_eq!(trainer.model().standardizer, fitted);
}

/// The squares of ±10²⁰⁰ are beyond f64, their deviation is not: either it is right, or it is refused.
#[test]
fn a_column_whose_squares_overflow_is_not_silently_multiplied_by_0() {
    let x = array![[1e200], [-1e200]];
    match Standardizer::fit(x.view()) {
        Ok(fitted) => assert_eq!(fitted.transform(x.view()).unwrap(), array![[1.0], [-1.0]], "{fitted:?}"),
        Err(error) => assert!(matches!(error, Error::NotFinite { .. }), "{error:?}"),
    }
}

/// 1/s of numbers of 10⁻⁴⁴ is beyond f32.
#[test]
fn a_scale_that_is_not_finite_is_what_the_error_shows() {
    let error = Standardizer::fit(array![[1.0, 0.0], [2.0, 1e-44_f32]].view()).unwrap_err();
    let Error::NotFinite { what: "mean and scale", column: 1, found, .. } = error else { panic!("{error:?}") };
    assert!(!found.is_finite(), "{error}");
}

#[test]
fn a_failed_first_call_leaves_no_standardisation_behind() {
    let (x, y) = (array![[1e30_f32], [2e30]], array![3e38_f32, -3e38]);
    let (good, targets) = (array![[1.0_f32], [2.0]], array![1.0_f32, 2.0]);
    let training = Training { standardize: true, batch: 2, ..Training::default() };
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
    let training = Training { standardize: true, epochs: 1, ..Training::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let model = trainer.into_model();
    let standardizer = model.standardizer.clone();
    let mut trainer = Trainer::new(model, SoftmaxCrossEntropy, training).unwrap();
    let other = x.mapv(|x| 3.0 * x + 1.0);
    trainer.fit(Dataset::new(other.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().standardizer, standardizer);
}
