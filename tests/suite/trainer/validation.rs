//! Validation, early stopping, and the best epoch that is put back.

use super::*;

use gemmprop::rungs::bounds;
use ndarray::Axis;

/// Trains on noise, so that the validation loss soon rises.
fn overfitting(training: TrainingSettings) -> (Trainer<f64, SoftmaxCrossEntropy>, StopReason) {
    let (mlp, x, y) = setting::<f64>();
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let ended = trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    (trainer, ended)
}

fn best_epoch(records: &[Record]) -> usize {
    let losses = records.iter().map(|record| record.validation_loss.unwrap_or(record.loss));
    // The first of several equal losses counts.
    losses.enumerate().reduce(|best, new| if new.1 < best.1 { new } else { best }).unwrap().0 + 1
}

#[test]
fn early_stopping_stops_in_time_and_puts_the_best_epoch_back() {
    let mut early = 0;
    for optimizer in optimizers() {
        for (patience, fraction) in [(1, Some(0.3)), (2, Some(0.3)), (4, Some(0.2)), (3, None)] {
            let eta = if optimizer == Optimizer::adam() { 0.03 } else { 0.3 };
            let training = TrainingSettings {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                batch: 16,
                epochs: 25,
                validation_fraction: fraction,
                early_stopping: Some(patience),
                ..TrainingSettings::default()
            };
            let (trainer, ended) = overfitting(training.clone());
            let records = &trainer.history().records;
            let best = best_epoch(records);
            let since = records.len() - best;
            if ended == StopReason::EarlyStopping {
                assert_eq!(since, patience);
                early += 1;
            } else {
                // The epochs have run out; the best one is put back all the same.
                assert!(ended == StopReason::Completed && records.len() == 25 && since < patience);
            }
            // At no epoch before had it been so long.
            assert!((1..records.len()).all(|n| n - best_epoch(&records[..n]) < patience));
            let (expected, _) =
                overfitting(TrainingSettings { epochs: best, early_stopping: None, ..training.clone() });
            assert_eq!(trainer.model(), expected.model(), "{training:?}, best {best}");
        }
    }
    assert!(early >= 8, "{early} of 16 stopped early");
}

#[test]
fn a_run_that_has_stopped_early_does_not_go_on_by_itself() {
    let training = TrainingSettings {
        learning_rate: LearningRate::constant(0.3),
        epochs: 100,
        validation_fraction: Some(0.3),
        early_stopping: Some(2),
        ..TrainingSettings::default()
    };
    let (mut trainer, ended) = overfitting(training);
    assert_eq!(ended, StopReason::EarlyStopping);
    let before = state(&trainer);
    let (_, x, y) = setting::<f64>();
    assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap(), StopReason::EarlyStopping);
    assert_eq!(state(&trainer), before);
}

/// A run may be set to more epochs than it has done, also if these are fewer than planned.
#[test]
fn a_run_that_has_stopped_early_goes_on_when_it_is_given_more_epochs_than_it_has_done() {
    let training = TrainingSettings {
        learning_rate: LearningRate::constant(0.3),
        epochs: 100,
        validation_fraction: Some(0.3),
        early_stopping: Some(2),
        ..TrainingSettings::default()
    };
    let (mut trainer, ended) = overfitting(training);
    let (_, x, y) = setting::<f64>();
    let data = Dataset::new(x.view(), y.view());
    let done = trainer.history().records.len();
    assert!(ended == StopReason::EarlyStopping && done < 90);
    for epochs in [1, done] {
        trainer.set_epochs(epochs);
        assert_eq!(trainer.fit(data, None, &mut ()), Ok(StopReason::EarlyStopping));
        assert_eq!(trainer.history().records.len(), done);
    }
    trainer.set_epochs(done + 1);
    assert_eq!(trainer.fit(data, None, &mut ()), Ok(StopReason::Completed));
    assert_eq!(trainer.history().records.len(), done + 1);
}

/// The steps are so small that θ keeps its bits: all validate the same network.
#[test]
fn the_validation_loss_has_the_same_bits_for_all_batch_sizes() {
    let (mlp, x, y) = setting::<f64>();
    let (x_new, y_new) = (common::uniform::<f64>(300, 6, 9), Array1::from_shape_fn(300, |i| i % 3));
    let run = |batch| {
        let learning_rate = LearningRate::constant(1e-300);
        let training = TrainingSettings { learning_rate, batch, epochs: 1, ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
        let validation = Some(Dataset::new(x_new.view(), y_new.view()));
        trainer.fit(Dataset::new(x.view(), y.view()), validation, &mut ()).unwrap();
        assert_eq!(trainer.model().mlp, mlp);
        trainer.history().records[0].validation_loss.unwrap().to_bits()
    };
    let expected = run(1);
    for batch in [2, 7, 32, 70] {
        assert_eq!(run(batch), expected, "{batch}");
    }
}

/// Trained towards y = 1 and validated against −1: epoch 1 is the best, of the first call and of
/// all.
#[test]
fn the_best_epoch_is_put_back_by_a_later_call_too() {
    let mlp = Mlp::<f64>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let training = TrainingSettings { epochs: 3, early_stopping: Some(100), ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let (x, y, opposite) = (array![[1.0]], array![1.0], array![-1.0]);
    let mut fit = |epochs| {
        trainer.set_epochs(epochs);
        let validation = Some(Dataset::new(x.view(), opposite.view()));
        assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), validation, &mut ()).unwrap(), StopReason::Completed);
        assert_eq!(best_epoch(&trainer.history().records), 1);
        common::flat(trainer.model().mlp.parameters())
    };
    // η = 0.1: θ after epoch 1.
    assert_eq!(fit(3), [0.1, 0.1]);
    // The best of epochs 4 to 6 is none: the network is still that of the smallest loss of the run.
    assert_eq!(fit(6), [0.1, 0.1]);
}

/// |mean of the trainer − mean by hand| ≤ both errors of each ℓ, and the n + 1 roundings of a mean
/// in f64.
fn validation_is_the_mean_over_predictions<F: common::Real>() {
    let (mlp, x, y) = setting::<F>();
    let (x_new, y_new) = (common::uniform::<F>(37, 6, 9), Array1::from_shape_fn(37, |i| i % 3));
    let weights = Array1::from_shape_fn(37, |i| F::from_f64((i % 4) as f64 / 2.0));
    for weighted in [false, true] {
        let training = TrainingSettings { batch: 16, standardize: true, epochs: 3, ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
        let validation = Dataset::new(x_new.view(), y_new.view());
        let validation = if weighted { validation.weights(weights.view()) } else { validation };
        trainer.fit(Dataset::new(x.view(), y.view()), Some(validation), &mut ()).unwrap();
        let model = trainer.model();
        let z = model.standardizer.as_ref().unwrap().transform(x_new.view()).unwrap();
        let y_hat = model.predict(x_new.view()).unwrap().mapv(|y| y.to_f64());
        let (mut mean, mut bound) = (0.0, 0.0);
        for (i, (z, y_hat)) in z.outer_iter().zip(y_hat.outer_iter()).enumerate() {
            let weight = if weighted { weights[i].to_f64() } else { 1.0 };
            let largest = y_hat.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let sum: f64 = y_hat.iter().map(|y| (y - largest).exp()).sum();
            mean += weight * (sum.ln() + largest - y_hat[y_new[i]]) / 37.0;
            let y = Array1::from_elem(1, y_new[i]);
            let loss =
                bounds::loss_gradient(&model.mlp, z.insert_axis(Axis(0)), &y, &SoftmaxCrossEntropy).unwrap().loss;
            bound += weight * (2.0 * loss.bound + common::gamma(40, f64::EPSILON) * loss.value) / 37.0;
        }
        let found = trainer.history().records[2].validation_loss.unwrap();
        assert!(bound < 1e-3 * mean && (found - mean).abs() <= bound, "{found} {mean} {bound:e}");
    }
}

#[test]
fn the_validation_loss_is_the_mean_loss_of_the_predictions() {
    validation_is_the_mean_over_predictions::<f32>();
    validation_is_the_mean_over_predictions::<f64>();
}

/// Which samples a split keeps is seen by changing one at a time: a kept one moves no parameter and
/// the validation loss; another one moves parameters.
#[test]
fn samples_kept_for_validation_have_no_influence_on_training() {
    for (n, fraction, expected) in [(10, 0.3, 3), (10, 0.01, 1), (9, 0.5, 5), (12, 0.9, 11), (2, 0.5, 1)] {
        let x = common::uniform::<f64>(n, 6, 2);
        let y = Array1::from_shape_fn(n, |i| i % 3);
        let run = |x: ArrayView2<f64>, y: &Array1<usize>| {
            let training = TrainingSettings {
                validation_fraction: Some(fraction),
                standardize: true,
                batch: 4,
                epochs: 2,
                seed: 5,
                ..TrainingSettings::default()
            };
            let mlp = common::network(&[6, 20, 9, 3], Bias::EveryLayer, 1);
            let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
            trainer.fit(Dataset::new(x, y.view()), None, &mut ()).unwrap();
            let batches = (n - expected).div_ceil(4);
            assert_eq!(trainer.steps() as usize, 2 * batches);
            (model_bits(trainer.model()), trainer.history().records[1].validation_loss.unwrap())
        };
        let (theta, loss) = run(x.view(), &y);
        let mut kept = 0;
        for i in 0..n {
            let (mut other_x, mut other_y) = (x.clone(), y.clone());
            other_x.row_mut(i).mapv_inplace(|x| 1.5 - 2.0 * x);
            other_y[i] = (y[i] + 1) % 3;
            let (other_theta, other_loss) = run(other_x.view(), &other_y);
            if other_theta == theta {
                kept += 1;
                assert_ne!(other_loss, loss);
            }
        }
        assert_eq!(kept, expected, "{fraction} of {n}");
    }
}

/// Passes of another size in between change no bit of what comes after: weights of 0 make them
/// steps that move nothing.
#[test]
fn the_validation_loss_does_not_depend_on_the_sizes_of_earlier_batches() {
    let (mlp, x, y) = setting::<f64>();
    let zero = Array1::zeros(70);
    let run = |before: Option<usize>| {
        let training =
            TrainingSettings { batch: 8, epochs: 3, validation_fraction: Some(0.5), ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
        if let Some(rows) = before {
            let batch = Dataset::new(x.slice(s![..rows, ..]), y.slice(s![..rows])).weights(zero.slice(s![..rows]));
            trainer.step(batch).unwrap();
            assert_eq!(trainer.model().mlp, mlp);
        }
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
        trainer.history().records.iter().map(|record| (record.loss, record.validation_loss)).collect::<Vec<_>>()
    };
    let expected = run(None);
    for rows in [3, 20, 70] {
        assert_eq!(run(Some(rows)), expected, "after a step with {rows}");
    }
}
