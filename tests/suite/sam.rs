//! Sharpness-aware minimisation: θ ← θ − η ∇L(θ + ρ g/‖g‖), θ put back exactly before the step.
//!
//! Steps of every optimiser with it, one after another, are checked against the formulas in
//! `optimizers.rs`.

use crate::common;

use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Optimizer, Parameters, SoftmaxCrossEntropy, SquaredError, Trainer,
    TrainingSettings, rungs::batched,
};
use ndarray::{Array1, array};

/// ŷ = alpha x + b with x = (2, 2): g = r (2, 2, 1) has the length 3 |r|, so that with ρ = 3/2 the
/// point uphill is θ + sign(r) (1, 1, ½), and everything is exact.
fn a_step_of_a_linear_model<F: common::Real>() {
    let number = F::from_f64;
    let mut theta = Parameters::zeros(&[2, 1], Bias::None).unwrap();
    theta.alpha_mut().assign(&array![[number(1.0), number(-1.0)]]);
    let mlp = Mlp::from_parameters(&[2, 1], Bias::None, theta).unwrap();
    let (x, y) = (array![[number(2.0), number(2.0)]], array![number(-2.0)]);
    for optimizer in [Optimizer::Sgd, Optimizer::Momentum { mu: 0.5 }] {
        let training = TrainingSettings {
            optimizer,
            sam: Some(1.5),
            learning_rate: LearningRate::constant(0.125),
            ..TrainingSettings::default()
        };
        let mut trainer = Trainer::new(mlp.clone(), SquaredError, training).unwrap();
        // r = 0 − (−2) = 2: uphill at (2, 0, ½), where ŷ = 4½ and r = 6½; g there is (13, 13, 6½).
        let loss = trainer.step(Dataset::new(x.view(), y.view())).unwrap();
        assert_eq!(loss, 2.0, "the loss is that at θ");
        let found = common::flat(trainer.model().mlp.parameters());
        assert_eq!(found, [1.0 - 13.0 / 8.0, -1.0 - 13.0 / 8.0, -6.5 / 8.0], "{optimizer:?}");
    }
}

#[test]
fn a_step_is_that_of_the_gradient_uphill() {
    a_step_of_a_linear_model::<f32>();
    a_step_of_a_linear_model::<f64>();
}

/// ŷ = alpha x + b at θ = 0 with x = (2s, 2s) and r > 0: the point uphill is ρ (x, 1)/‖(x, 1)‖, g
/// there (r + ρ ‖(x, 1)‖) (x, 1), and all terms are positive. u is that of the number type, and
/// each number on the way is rounded at most 12 times.
fn is_made_uphill<F: common::Real>(s: f64, r: f64, rho: f64, eta: f64) {
    let theta = Parameters::zeros(&[2, 1], Bias::None).unwrap();
    let mlp = Mlp::from_parameters(&[2, 1], Bias::None, theta).unwrap();
    let (x, y) = (array![[F::from_f64(2.0 * s), F::from_f64(2.0 * s)]], array![F::from_f64(-r)]);
    let training =
        TrainingSettings { sam: Some(rho), learning_rate: LearningRate::constant(eta), ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    trainer.step(Dataset::new(x.view(), y.view())).unwrap();
    let found = common::flat(trainer.model().mlp.parameters());
    let length = s * (8.0 + 1.0 / s / s).sqrt();
    for (found, z) in found.into_iter().zip([2.0 * s, 2.0 * s, 1.0]) {
        let expected = -eta * ((r + rho * length) * z);
        let bound = common::gamma(12, F::U) * expected.abs();
        assert!((found - expected).abs() <= bound, "{found:e} and {expected:e}: s {s:e}, r {r:e}, ρ {rho}");
    }
}

/// ρ/‖g‖ is ∞ for short gradients, as a saturated softmax has, and has lost its digits for long
/// ones.
#[test]
fn gradients_of_any_length_lead_uphill_by_the_radius() {
    // ‖g‖ = 3r = 1.4 · 10⁻⁴⁰ and ρ/‖g‖ = 3.6 · 10³⁸; and down to the smallest positive r.
    for power in [-134, -140, -149] {
        is_made_uphill::<f32>(1.0, 2_f64.powi(power), 0.05, 0.125);
    }
    // ρ/‖g‖ is 8 · 10⁻⁴², which f32 has 13 bits for; and 2⁻¹⁰⁵⁰, with 24.
    is_made_uphill::<f32>(2_f64.powi(67), 2_f64.powi(58), 0.001, 2_f64.powi(-100));
    is_made_uphill::<f64>(2_f64.powi(524), 2_f64.powi(-15), 1.1 * 2_f64.powi(-540), 0.125);
    // r² is 2⁻⁸⁰⁰; then 1.7 · 2⁻¹⁰⁷⁰, with 5 bits; then 0, and down to the smallest r.
    for r in [2_f64.powi(-400), 1.3 * 2_f64.powi(-535), 2_f64.powi(-600), 2_f64.powi(-1074)] {
        is_made_uphill::<f64>(1.0, r, 0.05, 0.125);
    }
}

/// Several tiles and layers. The step is so small that θ keeps its bits, if it was put back
/// exactly; and the velocity is the gradient uphill, which batched gradients give too, in sums of
/// another order.
#[test]
fn the_gradient_of_a_deep_network_is_taken_uphill_and_theta_put_back() {
    let mlp = common::network::<f64>(&[45, 300, 129, 7], Bias::EveryLayer, 1);
    let (x, y) = (common::uniform::<f64>(64, 45, 2), Array1::from_shape_fn(64, |i| i % 7));
    let (rho, eta) = (0.25, 1e-30);
    let training = TrainingSettings {
        sam: Some(rho),
        learning_rate: LearningRate::constant(eta),
        epochs: 1,
        batch: 64,
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().mlp, mlp);

    let mut uphill = mlp.clone();
    let mut g = mlp.zero_gradient();
    batched::loss_gradient(&mlp, x.view(), y.view(), &SoftmaxCrossEntropy, &mut g).unwrap();
    let norm = common::flat(&g).iter().map(|g| g * g).sum::<f64>().sqrt();
    uphill.parameters_mut().iter_mut().zip(g.iter()).for_each(|(theta, g)| *theta += rho / norm * g);
    batched::loss_gradient(&uphill, x.view(), y.view(), &SoftmaxCrossEntropy, &mut g).unwrap();
    let expected = common::flat(&g).iter().map(|g| g * g).sum::<f64>().sqrt();
    let found = trainer.history().records[0].gradient_norm;
    // Not at θ: there the norm is another by many times what rounding could do.
    assert!((found - expected).abs() < 1e-9 * expected, "{found} and {expected}");
    assert!((norm - expected).abs() > 1e-3 * expected, "{norm} and {expected} can be told apart");
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let (x, y) = (common::uniform::<f32>(150, 45, 2), Array1::from_shape_fn(150, |i| i % 7));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mlp = common::network::<f32>(&[45, 300, 129, 7], Bias::EveryLayer, 1);
            let training = TrainingSettings {
                optimizer: Optimizer::adam(),
                learning_rate: LearningRate::constant(1e-2),
                sam: Some(0.1),
                clip_norm: Some(0.5),
                epochs: 3,
                batch: 64,
                ..TrainingSettings::default()
            };
            let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
            trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            trainer.into_model()
        })
    };
    let expected = run(1);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads), expected, "{threads} threads");
    }
}

#[test]
fn a_radius_that_is_none_is_refused() {
    for sam in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mlp = common::network::<f32>(&[2, 1], Bias::Input, 1);
        let error = Trainer::new(mlp, SquaredError, TrainingSettings { sam: Some(sam), ..TrainingSettings::default() })
            .unwrap_err();
        assert!(error.to_string().starts_with("sam: expected a finite, positive number"), "{error}");
    }
}
