//! Steps that would make a NaN or an infinity.

use super::*;

type One = (Array2<f32>, Array1<f32>);

fn sample(x: f32, y: f32) -> One {
    (array![[x]], array![y])
}

fn of((x, y): &One) -> Dataset<'_, f32, f32> {
    Dataset::new(x.view(), y.view())
}

/// Two good steps, the bad one, a good one: the error names the bad one, and all else is as if that
/// had never been tried.
fn is_refused_and_leaves_no_trace(
    training: &TrainingSettings,
    w: f64,
    good: &One,
    bad: &One,
    expected: &str,
    cause: &str,
) {
    let new = || Trainer::new(linear::<f32>(w), SquaredError, training.clone()).unwrap();
    let (mut trainer, mut without) = (new(), new());
    let mut last = 0.0;
    for _ in 0..2 {
        last = trainer.step(of(good)).unwrap();
        without.step(of(good)).unwrap();
    }
    for _ in 0..2 {
        let error = trainer.step(of(bad)).unwrap_err();
        let Error::Diverged { what, at: None, found, last: Some(named) } = error else { panic!("{error:?}") };
        assert_eq!((what, named), (expected, last), "{cause}: {training:?}");
        assert!(!found.is_finite());
        let text = format!("{what}: expected a finite number, found {found} in a single step");
        assert_eq!(error.to_string(), format!("{text}; the loss of the step before was {last}"));
        assert_eq!(model_bits(trainer.model()), model_bits(without.model()), "{cause}: {training:?}");
        assert_eq!(trainer.steps(), 2);
    }
    for _ in 0..2 {
        assert_eq!(trainer.step(of(good)).unwrap(), without.step(of(good)).unwrap());
        assert_eq!(model_bits(trainer.model()), model_bits(without.model()), "{cause}: {training:?}, afterwards");
    }
    // The same within an epoch: batches 0 and 1 are good, 2 is bad.
    let mut trainer =
        Trainer::new(linear::<f32>(w), SquaredError, TrainingSettings { batch: 1, shuffle: false, ..training.clone() })
            .unwrap();
    let x = ndarray::concatenate![ndarray::Axis(0), good.0, good.0, bad.0, good.0];
    let y = ndarray::concatenate![ndarray::Axis(0), good.1, good.1, bad.1, good.1];
    let error = trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap_err();
    assert!(
        matches!(error, Error::Diverged { what, at: Some((1, 3)), last: Some(named), .. } if what == expected && named == last),
        "{cause}: {error:?}"
    );
    assert_eq!(trainer.steps(), 2);
    assert!(trainer.history().records.is_empty());
    let mut without = new();
    (0..2).for_each(|_| {
        without.step(of(good)).unwrap();
    });
    assert_eq!(model_bits(trainer.model()), model_bits(without.model()));
}

#[test]
fn a_step_that_would_diverge_is_refused_and_leaves_no_trace() {
    for optimizer in optimizers() {
        for (clip_norm, sam) in [(None, None), (None, Some(0.05)), (Some(1e30), None), (Some(1e30), Some(0.05))] {
            // ηλ = 10⁻⁵: what three steps decay is saved up, and the fourth applies it. A step that
            // is not made saves up nothing.
            let with = |eta: f64| TrainingSettings {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                weight_decay: 1e-5 / eta,
                clip_norm,
                sam,
                ..TrainingSettings::default()
            };
            let good = sample(1.0, 0.5);
            // ½ (10²⁰)² > 3.4 · 10³⁸
            let cause = "the loss overflows";
            is_refused_and_leaves_no_trace(&with(0.01), 0.25, &good, &sample(1.0, 1e20), "loss", cause);
            if optimizer == Optimizer::adam() {
                // g = 10²⁵ has no square in f32; m̂/√v̂ = 0 would leave θ in order, and v never
                // again.
                let (bad, cause) = (sample(1e15, 1e10), "v overflows");
                is_refused_and_leaves_no_trace(&with(1e-10), 0.0, &good, &bad, "optimizer's moments", cause);
            } else {
                // g = −10¹⁰, and η g = 10⁴⁰; the good sample has g = 0. The loss is 5 · 10¹⁹.
                let (good, bad, cause) = (sample(0.0, 0.0), sample(1.0, 1e10), "the update overflows");
                is_refused_and_leaves_no_trace(&with(1e30), 0.0, &good, &bad, "parameters", cause);
            }
        }
    }
}

/// With sharpness-aware minimisation a step may fail before θ is moved uphill, and when it is
/// there.
#[test]
fn a_step_that_would_diverge_uphill_is_refused_and_leaves_no_trace() {
    for optimizer in optimizers() {
        for clip_norm in [None, Some(1e30)] {
            let with = |rho: f64| TrainingSettings {
                optimizer,
                learning_rate: LearningRate::constant(1e-4),
                clip_norm,
                sam: Some(rho),
                ..TrainingSettings::default()
            };
            let good = sample(1.0, 0.5);
            // The loss is 5 · 10³⁷, or for θ near 0 not much else, and g = −10³⁹.
            let (bad, cause) = (sample(1e20, 1e19), "g overflows");
            is_refused_and_leaves_no_trace(&with(1e-3), 0.0, &good, &bad, "gradient's norm", cause);
            // |θ| < 10, so that the loss is below 10³⁸; uphill ŷ is of the size of 100 · 10¹⁸, and
            // ½ (10²⁰)² > 3.4 · 10³⁸.
            let (bad, cause) = (sample(1e18, 1.0), "the loss overflows uphill");
            is_refused_and_leaves_no_trace(&with(100.0), 0.25, &good, &bad, "loss at the point uphill", cause);
        }
    }
}

/// Adam moves each number by η: 2 · 10³⁸ + 3 · 10³⁸ is beyond f32, and the loss, of ŷ = 2 · 10¹⁸,
/// is not.
#[test]
fn adam_overflows_too_and_leaves_no_trace() {
    let training = TrainingSettings {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::constant(3e38),
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(linear::<f32>(2e38), SquaredError, training).unwrap();
    let before = model_bits(trainer.model());
    let error = trainer.step(of(&sample(1e-20, 4e18))).unwrap_err();
    assert!(
        matches!(error, Error::Diverged { what: "parameters", at: None, found, last: None } if found == f64::INFINITY),
        "{error:?}"
    );
    assert_eq!(model_bits(trainer.model()), before);
}

/// Velocities gather: no gradient of these is too long by itself. η is so small that θ hardly moves
/// and g is −10³⁷ throughout.
#[test]
fn a_velocity_that_grows_beyond_the_number_type_is_refused() {
    // Σ 0.99ᵏ 10³⁷ is 3.38 · 10³⁸ after 41 steps and 3.44 · 10³⁸ after 42, and f32 ends at 3.40 ·
    // 10³⁸. Nesterov looks one step ahead.
    for (optimizer, fine) in [(Optimizer::Momentum { mu: 0.99 }, 41), (Optimizer::Nesterov { mu: 0.99 }, 40)] {
        let training =
            TrainingSettings { optimizer, learning_rate: LearningRate::constant(1e-44), ..TrainingSettings::default() };
        let mut trainer = Trainer::new(linear::<f32>(0.0), SquaredError, training).unwrap();
        for _ in 0..fine {
            trainer.step(of(&sample(1e19, 1e18))).unwrap();
        }
        let before = model_bits(trainer.model());
        let error = trainer.step(of(&sample(1e19, 1e18))).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error:?}");
        assert_eq!(model_bits(trainer.model()), before);
        // Without a gradient v falls, and nothing is in the way.
        trainer.step(of(&sample(1.0, 0.0))).unwrap();
    }
}

/// δ = −2⁶² y₀ scales ŷ, g, v and θ by a power of two, which changes no digit, but for the scaled
/// run each step's squares add up to more than f32 can hold: it goes by way of the copies. Both
/// ways give the same digits, at each step, and neither raises an alarm.
#[test]
fn steps_on_a_copy_are_the_steps_in_place() {
    for optimizer in [Optimizer::Sgd, MOMENTUM, NESTEROV] {
        for clip_norm in [None, Some(0.5)] {
            let scale = 2_f64.powi(62);
            let run = |scale: f64| {
                let training = TrainingSettings {
                    optimizer,
                    learning_rate: LearningRate::constant(0.01),
                    clip_norm: clip_norm.map(|norm: f64| norm * scale),
                    batch: 16,
                    epochs: 20,
                    ..TrainingSettings::default()
                };
                let mlp = Mlp::<f32>::he(&[6, 3], Bias::None, 1).unwrap();
                let mut theta = mlp.parameters().clone();
                theta.iter_mut().for_each(|p| *p = (f64::from(*p) * scale) as f32);
                let mlp = Mlp::from_parameters(&[6, 3], Bias::None, theta).unwrap();
                let x = common::uniform::<f32>(70, 6, 2);
                let y = common::uniform::<f32>(70, 3, 3).mapv(|y| (f64::from(y) * scale) as f32);
                let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
                trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
                assert_eq!(trainer.history().records.len(), 20);
                common::flat(trainer.model().mlp.parameters()).into_iter().map(|p| p / scale).collect::<Vec<_>>()
            };
            assert_eq!(run(1.0), run(scale), "{optimizer:?} {clip_norm:?}");
        }
    }
}

/// Thousands of ordinary steps, with an ε so small that the bounds on what Adam can do fail again
/// and again.
#[test]
fn a_long_run_raises_no_alarm() {
    for optimizer in [
        Optimizer::Sgd,
        MOMENTUM,
        NESTEROV,
        Optimizer::adam(),
        Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-37 },
    ] {
        let (mlp, x, y) = setting::<f32>();
        let training = TrainingSettings {
            optimizer,
            learning_rate: LearningRate::constant(1e-3),
            epochs: 600,
            batch: 7,
            ..TrainingSettings::default()
        };
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
        assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()), Ok(StopReason::Completed));
        assert_eq!(trainer.steps(), 6000);
    }
}

/// One step of `Sgd`, which checks θ in another way: the network after it.
fn by_sgd<F: common::Real>(mlp: &Mlp<F>, x: &Array2<F>, y: &Array2<F>, eta: f64) -> Option<Mlp<F>> {
    let mut mlp = mlp.clone();
    Sgd::new(1, eta, 0).unwrap().step(&mut mlp, x.view(), y.view(), &SquaredError).ok()?;
    Some(mlp)
}

/// Powers of ten, in units of the largest that the number type has.
#[derive(Debug, Clone, Copy)]
struct Scales {
    theta: f64,
    x: f64,
    y: f64,
    eta: f64,
    clip: Option<f64>,
    sam: Option<f64>,
}

/// A step is either made, and θ is finite, or refused, and θ is as before; the next one is made
/// from there, by a trainer that cannot be told from one that was never asked. Plain descent is
/// refused exactly where `Sgd` is.
fn steps_at<F: common::Real>(
    scales: Scales,
    (optimizer, weight_decay): (Optimizer, bool),
    widths: &[usize],
    (batch, seed): (usize, u64),
) -> Result<(), TestCaseError> {
    let largest = F::MAX.log10().floor();
    let eta = 10_f64.powf(scales.eta * largest);
    let scaled = |a: F, power: f64| F::from_f64(a.to_f64() * 10_f64.powf(power * largest));
    let mut mlp = common::network::<F>(widths, Bias::EveryLayer, seed);
    // He's weights may be 4; that times 10³⁸ is beyond f32.
    mlp.parameters_mut().iter_mut().for_each(|p| *p = scaled(F::from_f64(p.to_f64() / 8.0), scales.theta));
    let training = TrainingSettings {
        optimizer,
        learning_rate: LearningRate::constant(eta),
        weight_decay: if weight_decay { 0.25 / eta } else { 0.0 },
        clip_norm: scales.clip.map(|power| 10_f64.powf(power * largest)),
        sam: scales.sam.map(|power| 10_f64.powf(power * largest)),
        ..TrainingSettings::default()
    };
    let new = || Trainer::new(mlp.clone(), SquaredError, training.clone()).unwrap();
    let (mut trainer, mut unasked) = (new(), new());
    for step in 0..6 {
        let shrink = if step % 2 == 1 { 0.25 } else { 0.0 };
        let x = common::uniform::<F>(batch, 3, seed ^ step).mapv(|x| scaled(x, scales.x - shrink));
        let y = common::uniform::<F>(batch, 2, seed ^ step ^ 99).mapv(|y| scaled(y, scales.y - shrink));
        let before = trainer.model().mlp.clone();
        let outcome = trainer.step(Dataset::new(x.view(), y.view()));
        match &outcome {
            Ok(loss) => {
                prop_assert!(loss.is_finite());
                prop_assert!(trainer.model().mlp.parameters().iter().all(|p| p.is_finite()), "{:?}", training);
                prop_assert_eq!(unasked.step(Dataset::new(x.view(), y.view())), Ok(*loss));
            }
            Err(Error::Diverged { found, .. }) => prop_assert!(!found.is_finite()),
            Err(error) => prop_assert!(false, "{:?}", error),
        }
        prop_assert_eq!(&trainer.model().mlp, &unasked.model().mlp);
        prop_assert_eq!(trainer.steps(), unasked.steps());
        if optimizer == Optimizer::Sgd && scales.clip.is_none() && scales.sam.is_none() && !weight_decay {
            let expected = by_sgd(&before, &x, &y, eta);
            prop_assert_eq!(outcome.is_ok(), expected.is_some());
            prop_assert_eq!(&trainer.model().mlp, &expected.unwrap_or(before));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30000))]

    #[test]
    fn no_overflow_is_missed_and_none_is_invented_at_any_scale(
        which in 0..5_usize,
        (theta, x, y, eta) in (-0.5..1.0, -0.5..1.0, -0.5..1.0, -0.5..1.0),
        clip in proptest::option::of(-0.25..1.0),
        sam in proptest::option::of(-0.5..1.0),
        hidden in any::<bool>(),
        weight_decay in any::<bool>(),
        batch in 1..9_usize,
        seed in any::<u64>(),
    ) {
        let mut all = optimizers().to_vec();
        all.push(Optimizer::Adam { beta1: 0.5, beta2: 0.0, epsilon: 1e-30 });
        let scales = Scales { theta, x, y, eta, clip, sam };
        let widths: &[usize] = if hidden { &[3, 5, 2] } else { &[3, 2] };
        steps_at::<f32>(scales, (all[which], weight_decay), widths, (batch, seed))?;
        steps_at::<f64>(scales, (all[which], weight_decay), widths, (batch, seed))?;
    }
}

/// x, ŷ and y are 0, so g = 0 and m = 0; but η/(1 − β₁) = 10³⁹ is beyond f32, and ∞ · 0 is NaN.
#[test]
fn adam_does_not_make_a_nan_of_a_rate_that_overflows_when_its_bias_is_taken_out() {
    let training = TrainingSettings {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::constant(1e38),
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(linear::<f32>(1.0), SquaredError, training).unwrap();
    let _ = trainer.step(of(&sample(0.0, 0.0)));
    assert_eq!(trainer.model().mlp, linear(1.0));
}

/// With ε = 10⁻⁵⁰, which is 0 in f32, the step is 0/0.
#[test]
fn adam_does_not_make_a_nan_of_an_epsilon_below_the_number_type() {
    let optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-50 };
    let Ok(mut trainer) =
        Trainer::new(linear::<f32>(1.0), SquaredError, TrainingSettings { optimizer, ..TrainingSettings::default() })
    else {
        return;
    };
    let _ = trainer.step(of(&sample(0.0, 0.0)));
    assert_eq!(trainer.model().mlp, linear(1.0));
}

/// δ = −10¹⁵⁰ and x = 10¹⁰: the loss is 5 · 10²⁹⁹, g = 10¹⁶⁰, and ‖g‖² is beyond f64. Such a step
/// is refused, or made as it should be.
#[test]
fn a_norm_that_overflows_does_not_silently_clip_to_nothing() {
    let training = TrainingSettings {
        learning_rate: LearningRate::constant(1.0),
        clip_norm: Some(1.0),
        epochs: 1,
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(linear::<f64>(0.0), SquaredError, training).unwrap();
    let (x, y) = (array![[1e10]], array![1e150]);
    match trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()) {
        Err(error) => assert!(matches!(error, Error::Diverged { what: "gradient's norm", .. }), "{error:?}"),
        Ok(_) => {
            let moved: f64 = trainer.model().mlp.parameters().iter().map(|p| p * p).sum();
            assert!((moved - 1.0).abs() < 1e-9, "a step of length 1, found {moved}");
            assert!(trainer.history().records[0].gradient_norm.is_finite());
        }
    }
}

/// Nothing has been learned from that epoch, so it need not be continued.
#[test]
fn an_epoch_that_diverges_in_its_first_step_does_not_hold_the_trainer_to_its_data() {
    let mut trainer = Trainer::new(linear::<f32>(0.0), SquaredError, TrainingSettings::default()).unwrap();
    assert!(trainer.fit(of(&sample(1.0, 1e30)), None, &mut ()).is_err());
    let (x, y) = (array![[1.0], [2.0]], array![1.0, 2.0]);
    assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()), Ok(StopReason::Completed));
}

/// "The model is then as it was before that step": so is its standardisation.
#[test]
fn a_first_step_that_diverges_leaves_no_standardisation_behind() {
    let mut trainer = Trainer::new(
        linear::<f32>(0.0),
        SquaredError,
        TrainingSettings { standardize: true, ..TrainingSettings::default() },
    )
    .unwrap();
    let before = trainer.model().clone();
    trainer.step(of(&sample(7.0, 1e30))).unwrap_err();
    assert_eq!(trainer.model(), &before);
}
