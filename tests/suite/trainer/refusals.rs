//! Data and settings that are refused, and what a refusal leaves as it was.

use super::*;

#[test]
fn data_that_do_not_fit_are_refused_and_change_nothing() {
    let (mlp, x, y) = setting::<f32>();
    let training = TrainingSettings { batch: 16, standardize: true, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let before = state(&trainer);
    let good = Dataset::new(x.view(), y.view());
    let mut bad_weight = [-1.0, f32::NAN, f32::INFINITY].map(|bad| {
        let mut weights = Array1::from_elem(70, 1.0_f32);
        weights[7] = bad;
        weights
    });
    bad_weight[0][9] = f32::NAN;
    let short = Array1::from_elem(69, 1.0_f32);
    let mut bad_x = x.clone();
    bad_x[(3, 4)] = f32::NAN;
    let mut bad_y = y.clone();
    bad_y[5] = 3;
    let cases = [
        (good.weights(short.view()), "weights: expected 70 samples, one for each row of x; found 69"),
        (good.weights(bad_weight[0].view()), "weights[7]: expected a finite number from 0, found -1"),
        (good.weights(bad_weight[1].view()), "weights[7]: expected a finite number from 0, found NaN"),
        (good.weights(bad_weight[2].view()), "weights[7]: expected a finite number from 0, found inf"),
        (Dataset::new(bad_x.view(), y.view()), "x[3, 4]: expected a finite number, found NaN"),
        (Dataset::new(x.view(), bad_y.view()), "y[5]: expected a label below 3, found 3"),
        (Dataset::new(x.slice(s![..9, ..]), y.view()), "y: expected 9 samples, one for each row of x; found 70"),
        (Dataset::new(x.slice(s![..0, ..]), y.slice(s![..0])), "expected at least one sample, found none"),
        (Dataset::new(x.slice(s![.., ..5]), y.view()), "x: expected shape [70, 6], found [70, 5]"),
    ];
    for (case, text) in cases {
        assert_eq!(trainer.fit(case, None, &mut ()).unwrap_err().to_string(), text);
        assert_eq!(trainer.fit(good, Some(case), &mut ()).unwrap_err().to_string(), text);
        assert_eq!(trainer.partial_fit(case, None, &mut ()).unwrap_err().to_string(), text);
        assert_eq!(trainer.step(case).unwrap_err().to_string(), text);
        assert_eq!(state(&trainer), before);
        assert_eq!(trainer.steps(), 0);
    }
}

#[test]
fn the_rest_of_an_epoch_wants_as_many_samples() {
    let (mlp, x, y) = setting::<f32>();
    let mut trainer =
        Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings { batch: 16, ..TrainingSettings::default() }).unwrap();
    let whole = Dataset::new(x.view(), y.view());
    trainer.fit(whole, None, &mut Stop { batches: 2, at_epoch: false }).unwrap();
    let before = state(&trainer);
    let other = Dataset::new(x.slice(s![..60, ..]), y.slice(s![..60]));
    for error in
        [trainer.fit(other, None, &mut ()).unwrap_err(), trainer.partial_fit(other, None, &mut ()).unwrap_err()]
    {
        let text =
            "the rest of the epoch: expected 70 samples to train on in 70 rows, as it began with, found 60 in 60";
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(state(&trainer), before);
    // A new epoch may have other weights.
    assert_eq!(trainer.partial_fit(whole, None, &mut ()).unwrap(), StopReason::Completed);
    assert_eq!(trainer.partial_fit(other, None, &mut ()).unwrap(), StopReason::Completed);
    assert_eq!(trainer.steps(), 5 + 4);
}

#[test]
fn a_split_leaves_samples_to_train_on() {
    for (n, fraction) in [(1, 0.5), (3, 0.9), (2, 0.75)] {
        let (mlp, x, y) = setting::<f32>();
        let training = TrainingSettings { validation_fraction: Some(fraction), ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
        let data = Dataset::new(x.slice(s![..n, ..]), y.slice(s![..n]));
        let error = trainer.fit(data, None, &mut ()).unwrap_err().to_string();
        let samples = if n == 1 { "1 sample".into() } else { format!("{n} samples") };
        assert_eq!(
            error,
            format!("validation_fraction: expected a part of {samples} that leaves some to train on, found {n}")
        );
    }
}

#[test]
fn settings_out_of_their_range_are_refused_with_it() {
    let base = TrainingSettings::default;
    let below_1 = "expected a number from 0 to below 1, found";
    let adam =
        |beta1, beta2, epsilon| TrainingSettings { optimizer: Optimizer::Adam { beta1, beta2, epsilon }, ..base() };
    let decay = |weight_decay| TrainingSettings { weight_decay, learning_rate: LearningRate::constant(0.5), ..base() };
    let clip = |norm| TrainingSettings { clip_norm: Some(norm), ..base() };
    let part = |part| TrainingSettings { validation_fraction: Some(part), ..base() };
    let momentum = |mu| TrainingSettings { optimizer: Optimizer::Momentum { mu }, ..base() };
    let nesterov = |mu| TrainingSettings { optimizer: Optimizer::Nesterov { mu }, ..base() };
    let cases = [
        (momentum(1.0), format!("mu: {below_1} 1")),
        (momentum(-0.1), format!("mu: {below_1} -0.1")),
        (nesterov(f64::NAN), format!("mu: {below_1} NaN")),
        (nesterov(1.5), format!("mu: {below_1} 1.5")),
        (adam(1.0, 0.9, 1e-8), format!("beta1: {below_1} 1")),
        (adam(0.9, 1.0, 1e-8), format!("beta2: {below_1} 1")),
        (adam(0.9, f64::NAN, 1e-8), format!("beta2: {below_1} NaN")),
        (adam(0.9, 0.9, 0.0), "epsilon: expected a finite, positive number, found 0".into()),
        (adam(0.9, 0.9, f64::INFINITY), "epsilon: expected a finite, positive number, found inf".into()),
        (decay(2.0), "weight_decay: expected a number from 0 to below 1/learning_rate, found 2".into()),
        (decay(-1.0), "weight_decay: expected a number from 0 to below 1/learning_rate, found -1".into()),
        (decay(f64::NAN), "weight_decay: expected a number from 0 to below 1/learning_rate, found NaN".into()),
        (TrainingSettings { batch: 0, ..base() }, "batch: expected at least 1 sample, found 0".into()),
        (clip(0.0), "clip_norm: expected a finite, positive number, found 0".into()),
        (clip(f64::INFINITY), "clip_norm: expected a finite, positive number, found inf".into()),
        (clip(f64::NAN), "clip_norm: expected a finite, positive number, found NaN".into()),
        (part(0.0), "validation_fraction: expected a number between 0 and 1, found 0".into()),
        (part(1.0), "validation_fraction: expected a number between 0 and 1, found 1".into()),
        (part(f64::NAN), "validation_fraction: expected a number between 0 and 1, found NaN".into()),
        (
            TrainingSettings { early_stopping: Some(0), ..base() },
            "early_stopping: expected at least 1 epoch, found 0".into(),
        ),
    ];
    for (training, text) in cases {
        let (mlp, _, _) = setting::<f32>();
        assert_eq!(Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap_err().to_string(), text);
    }
    let one_output = common::network::<f32>(&[6, 1], Bias::Input, 1);
    let error = Trainer::new(one_output, SoftmaxCrossEntropy, base()).unwrap_err().to_string();
    assert_eq!(error, "loss: expected a network with 2 outputs or more, found 1 output");
}

#[test]
fn settings_that_vanish_in_the_type_of_the_network_are_refused() {
    let refused = |training: TrainingSettings| {
        let (mlp, ..) = setting::<f32>();
        Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap_err().to_string()
    };
    let text =
        refused(TrainingSettings { learning_rate: LearningRate::constant(1e-60), ..TrainingSettings::default() });
    assert!(text.starts_with("learning_rate: expected a number that the network's type can tell from 0"), "{text}");
    let text = refused(TrainingSettings { clip_norm: Some(1e-60), ..TrainingSettings::default() });
    assert!(text.starts_with("clip_norm: expected"), "{text}");
    let text = refused(TrainingSettings { sam: Some(1e-60), ..TrainingSettings::default() });
    assert!(text.starts_with("sam: expected a number that the network's type can tell from 0"), "{text}");
}

/// A velocity with μ = 1 never ends, and a mean of squares with β₂ = 1 stays 0.
#[test]
fn decays_that_the_type_of_the_network_rounds_to_1_are_refused() {
    let near = 1.0 - 1e-9;
    let cases = [
        (Optimizer::Momentum { mu: near }, "mu"),
        (Optimizer::Nesterov { mu: near }, "mu"),
        (Optimizer::Adam { beta1: near, beta2: 0.9, epsilon: 1e-8 }, "beta1"),
        (Optimizer::Adam { beta1: 0.9, beta2: near, epsilon: 1e-8 }, "beta2"),
        (Optimizer::Adam { beta1: 0.9, beta2: 0.9, epsilon: 1e-60 }, "epsilon"),
    ];
    for (optimizer, expected) in cases {
        let training = TrainingSettings { optimizer, ..TrainingSettings::default() };
        let error = Trainer::new(linear::<f32>(1.0), SquaredError, training.clone()).unwrap_err();
        let Error::Hyperparameter { name, .. } = error else { panic!("{error:?}") };
        assert_eq!(name, expected);
        Trainer::new(linear::<f64>(1.0), SquaredError, training).unwrap();
    }
}
