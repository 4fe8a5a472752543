//! Learning rates: the η of each step of a run, as an observer sees it, against the formula of its
//! schedule.

use crate::common;

use std::f64::consts::PI;
use std::ops::ControlFlow;

use gemmprop::{
    BatchEnd, Bias, Dataset, Error, LearningRate, Mlp, Observer, Optimizer, SquaredError, Trainer, TrainingSettings,
};
use ndarray::{Array1, Array2, array};

/// Collects the reports that it receives, and stops after `stop_after` batches of a call.
#[derive(Default)]
struct Seen {
    batches: Vec<BatchEnd>,
    stop_after: Option<usize>,
}

impl Observer<f64> for Seen {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        self.batches.push(*batch);
        match &mut self.stop_after {
            Some(1) => ControlFlow::Break(()),
            Some(left) => {
                *left -= 1;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Continue(()),
        }
    }
}

const SAMPLES: usize = 11;

fn data() -> (Array2<f64>, Array1<f64>) {
    (common::uniform(SAMPLES, 2, 1), Array1::from_shape_fn(SAMPLES, |i| i as f64 / 8.0))
}

fn trainer(learning_rate: LearningRate, epochs: usize) -> Trainer<f64, SquaredError> {
    let mlp = common::network::<f64>(&[2, 3, 1], Bias::Input, 1);
    Trainer::new(mlp, SquaredError, TrainingSettings { learning_rate, epochs, batch: 3, ..TrainingSettings::default() })
        .unwrap()
}

/// η of all steps of a run of 4 batches an epoch; as (k, e, done part of e, η).
fn rates(learning_rate: LearningRate, epochs: usize) -> Vec<(usize, usize, f64, f64)> {
    let (x, y) = data();
    let mut trainer = trainer(learning_rate, epochs);
    let mut seen = Seen::default();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut seen).unwrap();
    assert_eq!(seen.batches.len(), 4 * epochs);
    // η of the record is the epoch's last.
    for (record, batches) in trainer.history().records.iter().zip(seen.batches.chunks(4)) {
        assert_eq!(record.learning_rate, batches[3].learning_rate);
    }
    let step = |(k, batch): (usize, &BatchEnd)| {
        assert_eq!((batch.epoch, batch.batch, batch.batches, batch.epochs), (k / 4 + 1, k % 4 + 1, 4, epochs));
        assert_eq!(batch.samples, if k % 4 == 3 { 2 } else { 3 });
        (k, k / 4, (k % 4) as f64 / 4.0, batch.learning_rate)
    };
    seen.batches.iter().enumerate().map(step).collect()
}

/// Two evaluations of a formula of a few operations and one power or cosine, each good to an ulp or
/// two: 8 ulp apart at most.
#[track_caller]
fn assert_near(found: f64, expected: f64, scale: f64) {
    assert!((found - expected).abs() <= 8.0 * f64::EPSILON * scale, "{found} {expected}");
}

#[test]
fn a_constant_rate_stays() {
    assert!(rates(LearningRate::constant(0.0625), 3).iter().all(|&(.., eta)| eta == 0.0625));
}

#[test]
fn a_piece_holds_until_the_next_begins() {
    for (k, epoch, _, eta) in rates(LearningRate::piecewise([(0, 0.0625), (2, 0.25), (3, 0.01), (9, 1.0)]), 5) {
        assert_eq!(eta, [0.0625, 0.0625, 0.25, 0.01, 0.01][epoch], "step {k}");
    }
}

#[test]
fn pieces_that_leave_an_epoch_without_a_rate_are_refused() {
    let refused = |rates: &[(usize, f64)]| {
        let training = TrainingSettings {
            learning_rate: LearningRate::piecewise(rates.iter().copied()),
            ..TrainingSettings::default()
        };
        Trainer::new(common::network::<f64>(&[2, 3, 1], Bias::Input, 1), SquaredError, training).unwrap_err()
    };
    for rates in [
        &[][..],
        &[(1, 0.1)],
        &[(0, 0.1), (2, 0.1), (2, 0.2)],
        &[(0, 0.1), (3, 0.1), (2, 0.1)],
        &[(0, 0.1), (1, f64::NAN)],
        &[(0, 0.1), (1, f64::INFINITY)],
        &[(0, 0.1), (1, 0.0)],
        &[(0, -0.1)],
    ] {
        assert!(matches!(refused(rates), Error::Hyperparameter { .. }), "{rates:?}");
    }
    let training = TrainingSettings {
        learning_rate: LearningRate::piecewise([(0, 0.1), (9, 4.0)]),
        weight_decay: 0.25,
        ..TrainingSettings::default()
    };
    let mlp = common::network::<f64>(&[2, 3, 1], Bias::Input, 1);
    // The largest rate, and not the first, bounds the weight decay.
    let error = Trainer::new(mlp, SquaredError, training).unwrap_err();
    assert!(matches!(error, Error::Hyperparameter { name: "weight_decay", .. }), "{error}");
}

#[test]
fn a_step_multiplies_after_every_so_many_epochs() {
    for (k, epoch, _, eta) in rates(LearningRate::step(0.0625, 2, 0.5), 7) {
        // Powers of two: exact.
        assert_eq!(eta, 0.0625 * [1.0, 0.5, 0.25, 0.125][epoch / 2], "step {k}");
    }
    for (_, epoch, _, eta) in rates(LearningRate::step(0.05, 1, 0.7), 4) {
        let expected = (0..epoch).fold(0.05, |eta, _| eta * 0.7);
        assert_near(eta, expected, expected);
    }
}

#[test]
fn a_cosine_falls_with_every_step_from_the_first_rate_towards_the_least() {
    let (first, least, epochs) = (0.05, 0.01, 5);
    let found = rates(LearningRate::cosine(first, least), epochs);
    assert_eq!(found[0].3, first);
    for (_, epoch, part, eta) in &found {
        // cos² of half the angle, not the cosine of the whole: another way to the same number.
        let half = PI * (*epoch as f64 + part) / (2.0 * epochs as f64);
        assert_near(*eta, least + (first - least) * half.cos() * half.cos(), first);
    }
    assert!(found.windows(2).all(|pair| pair[1].3 < pair[0].3));
    // Exactly half way, where the cosine is 0 but for the rounding of π.
    assert_near(rates(LearningRate::cosine(0.05, 0.0), 2)[4].3, 0.025, 0.05);
}

#[test]
fn a_cosine_stays_at_its_least_after_the_last_epoch() {
    let (x, y) = data();
    let mut trainer = trainer(LearningRate::cosine(0.05, 0.0625 / 8.0), 2);
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let mut seen = Seen::default();
    trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut seen).unwrap();
    assert_eq!(seen.batches.len(), 4);
    assert!(seen.batches.iter().all(|batch| batch.learning_rate == 0.0625 / 8.0), "{:?}", seen.batches);
}

/// A trainer with a cosine schedule over this number of epochs, none of them done.
fn cosine_of(epochs: usize, least: f64) -> Trainer<f64, SquaredError> {
    trainer(LearningRate::cosine(0.05, least), epochs)
}

#[test]
fn a_cosine_that_ends_at_0_does_not_silently_train_with_that() {
    let (x, y) = data();
    let data = Dataset::new(x.view(), y.view());
    for epochs in [0, 1, 3] {
        let mut trainer = cosine_of(epochs, 0.0);
        assert_eq!(trainer.fit(data, None, &mut ()), Ok(gemmprop::StopReason::Completed));
        let before = trainer.model().clone();
        for error in [trainer.partial_fit(data, None, &mut ()).unwrap_err(), trainer.step(data).unwrap_err()] {
            assert!(matches!(error, Error::Hyperparameter { name: "learning_rate", found: 0.0, .. }), "{error:?}");
        }
        assert_eq!((trainer.model(), trainer.history().records.len()), (&before, epochs));
        // With more epochs it resumes.
        trainer.set_epochs(epochs + 1);
        assert_eq!(trainer.partial_fit(data, None, &mut ()), Ok(gemmprop::StopReason::Completed));
    }
}

#[test]
fn a_cosine_of_no_epochs_is_at_its_least() {
    let (x, y) = data();
    let mut trainer = cosine_of(0, 0.0625 / 8.0);
    let mut seen = Seen::default();
    trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut seen).unwrap();
    assert!(seen.batches.iter().all(|batch| batch.learning_rate == 0.0625 / 8.0), "{:?}", seen.batches);
}

/// 10⁻³⁰, then 10⁻⁴⁰, then 10⁻⁵⁰, which is 0 in f32; and a warm-up whose first steps are 0.
#[test]
fn a_rate_that_vanishes_in_the_type_of_the_network_is_refused_when_it_comes() {
    let new = |learning_rate, optimizer| {
        let mlp = common::network::<f32>(&[2, 3, 1], Bias::Input, 1);
        let training =
            TrainingSettings { learning_rate, optimizer, epochs: 5, batch: 3, ..TrainingSettings::default() };
        Trainer::new(mlp, SquaredError, training).unwrap()
    };
    let (x, y) = (common::uniform::<f32>(SAMPLES, 2, 1), Array1::from_elem(SAMPLES, 0.5_f32));
    let data = Dataset::new(x.view(), y.view());
    for optimizer in [Optimizer::Sgd, Optimizer::adam()] {
        let mut trainer = new(LearningRate::step(1e-30, 1, 1e-10), optimizer);
        let error = trainer.fit(data, None, &mut ()).unwrap_err();
        assert!(matches!(error, Error::Hyperparameter { name: "learning_rate", .. }), "{error:?}");
        assert_eq!((trainer.history().records.len(), trainer.steps()), (2, 8));
        // Steps 0 to 3 have the rates 1, 2⁻⁶⁰, 3⁻⁶⁰ and 4⁻⁶⁰ = 7.5·10⁻³⁷; step 5 has 2.0·10⁻⁴⁷.
        let mut trainer = new(LearningRate::inverse_scaling(1.0, 60.0), optimizer);
        trainer.fit(data, None, &mut ()).unwrap_err();
        assert_eq!(trainer.steps(), 4);
        let mut trainer = new(LearningRate::constant(1e-40).warm_up(1_000_000), optimizer);
        trainer.fit(data, None, &mut ()).unwrap_err();
        trainer.step(data).unwrap_err();
        assert_eq!(trainer.steps(), 0);
    }
}

#[test]
fn inverse_scaling_divides_by_a_power_of_the_steps() {
    for (k, .., eta) in rates(LearningRate::inverse_scaling(0.05, 0.5), 4) {
        let expected = 0.05 / (k as f64 + 1.0).sqrt();
        assert_near(eta, expected, expected);
    }
    for (k, .., eta) in rates(LearningRate::inverse_scaling(0.05, 1.0), 4) {
        assert_near(eta, 0.05 / (k as f64 + 1.0), 0.05 / (k as f64 + 1.0));
    }
    assert!(rates(LearningRate::inverse_scaling(0.05, 0.0), 2).iter().all(|&(.., eta)| eta == 0.05));
}

#[test]
fn a_warm_up_multiplies_any_schedule_over_its_first_steps() {
    for schedule in [
        LearningRate::constant(0.0625),
        LearningRate::step(0.0625, 1, 0.5),
        LearningRate::cosine(0.0625, 0.0),
        LearningRate::inverse_scaling(0.0625, 0.5),
        LearningRate::on_plateau(0.0625, 0.5, 100),
        LearningRate::piecewise([(0, 0.0625), (1, 0.125)]),
    ] {
        for steps in [0, 1, 6, 100] {
            let cold = rates(schedule.clone(), 3);
            for ((k, .., eta), (.., cold)) in rates(schedule.clone().warm_up(steps), 3).into_iter().zip(cold) {
                let expected = if (k as u64) < steps { cold * (k + 1) as f64 / steps as f64 } else { cold };
                assert_eq!(eta, expected, "{schedule:?}, step {k} of {steps}");
            }
        }
    }
}

/// θ = 0 and y = 0 in training, so θ stays, and the validation loss of an epoch is ½ y² of the y
/// that it is given.
fn rates_by_epoch(learning_rate: LearningRate, validation_losses: &[f64]) -> Vec<f64> {
    let mlp = Mlp::<f64>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let training = TrainingSettings { learning_rate, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let (x, zero) = (array![[1.0]], array![0.0]);
    for &loss in validation_losses {
        let y = array![(2.0 * loss).sqrt()];
        let validation = Dataset::new(x.view(), y.view());
        trainer.partial_fit(Dataset::new(x.view(), zero.view()), Some(validation), &mut ()).unwrap();
    }
    trainer.history().records.iter().map(|record| record.learning_rate).collect()
}

#[test]
fn a_plateau_is_patience_and_one_more_epochs_without_a_new_least_validation_loss() {
    // ½ (2k)² = 2k²: exact.
    let losses = [8.0, 8.0, 2.0, 2.0, 8.0, 2.0, 2.0, 2.0, 0.5, 8.0, 8.0];
    // Patience 0: each epoch that does not improve (2nd, 4th … 8th, 10th …) lowers the next one's.
    let expected = [0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7].map(|j| 0.5_f64.powi(j));
    assert_eq!(rates_by_epoch(LearningRate::on_plateau(1.0, 0.5, 0), &losses), expected);
    // Patience 1: two in a row: the 4th and 5th, the 6th and 7th, then the 10th and 11th.
    let expected = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2].map(|j| 0.5_f64.powi(j));
    assert_eq!(rates_by_epoch(LearningRate::on_plateau(1.0, 0.5, 1), &losses), expected);
    // Patience 4: the 4th to the 8th, five in a row.
    let expected = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1].map(|j| 0.5_f64.powi(j));
    assert_eq!(rates_by_epoch(LearningRate::on_plateau(1.0, 0.5, 4), &losses), expected);
    assert!(rates_by_epoch(LearningRate::on_plateau(1.0, 0.5, 5), &losses).iter().all(|&eta| eta == 1.0));
}

/// x = 1, and both the weight and the bias move: δ ← (1 − 2η) δ. At η = 4 the loss grows, at 1
/// it stays, at ½ it is 0 at once.
#[test]
fn without_validation_the_training_loss_tells_a_plateau() {
    let mlp = Mlp::<f64>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let training = TrainingSettings {
        learning_rate: LearningRate::on_plateau(4.0, 0.5, 0),
        epochs: 6,
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    trainer.fit(Dataset::new(array![[1.0]].view(), array![1.0].view()), None, &mut ()).unwrap();
    let found: Vec<_> = trainer.history().records.iter().map(|record| (record.loss, record.learning_rate)).collect();
    // δ: −1, 7, −49, 147, −147, 0. An epoch that shows a larger loss has already been made with the
    // rate that it began with.
    let expected = [(0.5, 4.0), (24.5, 4.0), (1200.5, 2.0), (10804.5, 1.0), (10804.5, 0.5), (0.0, 0.25)];
    assert_eq!(found, expected);
}

/// A run that is stopped and resumed has the rates of one that is not.
#[test]
fn a_stopped_run_goes_on_with_the_rates_of_the_schedule() {
    let (x, y) = data();
    for schedule in [
        LearningRate::cosine(0.05, 0.0).warm_up(5),
        LearningRate::inverse_scaling(0.05, 0.5),
        LearningRate::step(0.05, 1, 0.5),
        LearningRate::piecewise([(0, 0.05), (2, 0.07)]),
    ] {
        let once: Vec<f64> = rates(schedule.clone(), 3).iter().map(|rate| rate.3).collect();
        for stop in 1..6 {
            let mut trainer = trainer(schedule.clone(), 3);
            let mut found = Vec::new();
            while found.len() < once.len() {
                let mut seen = Seen { stop_after: Some(stop), ..Seen::default() };
                trainer.fit(Dataset::new(x.view(), y.view()), None, &mut seen).unwrap();
                found.extend(seen.batches.iter().map(|batch| batch.learning_rate));
            }
            assert_eq!(found, once);
        }
    }
}

/// The rate η of one step, measured on a linear model: with x = 0 and a target one below ŷ = b, δ =
/// 1 and b falls by η.
fn rate_of_a_step(trainer: &mut Trainer<f64, SquaredError>) -> f64 {
    let x = array![[0.0, 0.0]];
    let b = |trainer: &Trainer<f64, SquaredError>| trainer.model().mlp.parameters().b()[0];
    let before = b(trainer);
    let y = array![before - 1.0];
    trainer.step(Dataset::new(x.view(), y.view())).unwrap();
    before - b(trainer)
}

/// A step by itself belongs to no epoch, and comes at the η of the point that the run has reached,
/// also within an epoch.
#[test]
fn a_single_step_has_the_rate_of_the_point_that_the_run_has_reached() {
    let (x, y) = (Array2::<f64>::zeros((8, 2)), Array1::<f64>::zeros(8));
    for stop in [1, 2, 3, 4, 6] {
        let mlp = Mlp::<f64>::from_weights(&[2, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
        let training = TrainingSettings {
            learning_rate: LearningRate::cosine(1.0, 0.0),
            epochs: 10,
            batch: 2,
            ..TrainingSettings::default()
        };
        let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
        let mut seen = Seen { stop_after: Some(stop), ..Seen::default() };
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut seen).unwrap();
        // 4 batches an epoch, so the run has come to epoch stop/4 of 10.
        let expected = 0.5 * (1.0 + (PI * stop as f64 / 40.0).cos());
        // b is up to 1, and the difference is rounded with its ulp.
        assert_near(rate_of_a_step(&mut trainer), expected, 1.0);
    }
}

#[test]
fn single_steps_count_for_warm_up_and_inverse_scaling() {
    let linear = |learning_rate| {
        let mlp = Mlp::<f64>::from_weights(&[2, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
        Trainer::new(mlp, SquaredError, TrainingSettings { learning_rate, ..TrainingSettings::default() }).unwrap()
    };
    let mut warming = linear(LearningRate::constant(0.5).warm_up(4));
    let mut falling = linear(LearningRate::inverse_scaling(0.5, 1.0));
    for k in 1..=6 {
        // b stays below 2, and the difference is rounded with its ulp.
        assert_near(rate_of_a_step(&mut warming), 0.5 * (k as f64 / 4.0).min(1.0), 2.0);
        assert_near(rate_of_a_step(&mut falling), 0.5 / k as f64, 2.0);
    }
    assert_eq!((warming.steps(), falling.steps()), (6, 6));
}

#[track_caller]
fn refused(learning_rate: LearningRate, text: &str) {
    let mlp = common::network::<f64>(&[2, 3, 1], Bias::Input, 1);
    let training = TrainingSettings { learning_rate, optimizer: Optimizer::adam(), ..TrainingSettings::default() };
    let error = Trainer::new(mlp, SquaredError, training).unwrap_err();
    assert!(matches!(error, Error::Hyperparameter { .. }), "{error:?}");
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_is_no_schedule_is_refused_with_its_range() {
    let positive = "expected a finite, positive number";
    for (eta, name) in [(0.0, "0"), (-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        for schedule in [
            LearningRate::constant(eta),
            LearningRate::step(eta, 1, 0.5),
            LearningRate::cosine(eta, 0.0),
            LearningRate::inverse_scaling(eta, 0.5),
            LearningRate::on_plateau(eta, 0.5, 3),
            LearningRate::constant(eta).warm_up(10),
        ] {
            refused(schedule, &format!("learning_rate: {positive}, found {name}"));
        }
    }
    for (factor, name) in [(0.0, "0"), (-1.0, "-1"), (1.5, "1.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let text = format!("factor: expected a number above 0 and up to 1, found {name}");
        refused(LearningRate::step(0.1, 1, factor), &text);
        refused(LearningRate::on_plateau(0.1, factor, 1), &text);
    }
    refused(LearningRate::step(0.1, 0, 0.5), "every: expected at least 1 epoch, found 0");
    for (least, name) in [(-0.1, "-0.1"), (0.2, "0.2"), (f64::NAN, "NaN")] {
        let text = format!("least: expected a number from 0 to the first learning rate, found {name}");
        refused(LearningRate::cosine(0.1, least), &text);
    }
    for (power, name) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let text = format!("power: expected a finite number from 0, found {name}");
        refused(LearningRate::inverse_scaling(0.1, power), &text);
    }
}

/// The ends of the ranges are in them.
#[test]
fn the_ends_of_the_ranges_are_accepted() {
    for schedule in [
        LearningRate::step(0.1, 1, 1.0),
        LearningRate::cosine(0.1, 0.1),
        LearningRate::cosine(0.1, 0.0),
        LearningRate::inverse_scaling(0.1, 0.0),
        LearningRate::on_plateau(0.1, 1.0, 0),
    ] {
        assert!(rates(schedule, 2).iter().all(|&(.., eta)| eta > 0.0 && eta <= 0.1));
    }
}
