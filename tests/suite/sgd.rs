//! SGD: what a run repeats bit for bit, where it converges to, and how it gives up.

use crate::common;

use gemmprop::{Bias, Error, Mlp, Parameters, Scalar, Sgd, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array1, Array2, Axis, array};
use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// A network, data whose last batch is ragged, and labels.
fn setting<F: common::Real>() -> (Mlp<F>, Array2<F>, Array1<usize>) {
    let mlp = common::network(&[6, 20, 9, 3], Bias::EveryLayer, 1);
    (mlp, common::uniform(70, 6, 2), Array1::from_shape_fn(70, |i| (i * i) % 3))
}

fn training_goes_on_where_it_stopped<F: common::Real>() {
    let (mut once, x, y) = setting::<F>();
    let mut twice = once.clone();
    let history = Sgd::new(16, 0.1, 3).unwrap().train(&mut once, x.view(), y.view(), &SoftmaxCrossEntropy, 10).unwrap();
    let mut sgd = Sgd::new(16, 0.1, 3).unwrap();
    let mut halves = sgd.train(&mut twice, x.view(), y.view(), &SoftmaxCrossEntropy, 5).unwrap();
    // Nothing of the first half may leak: a step of another size in between leaves the shuffles
    // alone.
    sgd.step(&mut twice.clone(), x.view(), y.view(), &SoftmaxCrossEntropy).unwrap();
    halves.extend(sgd.train(&mut twice, x.view(), y.view(), &SoftmaxCrossEntropy, 5).unwrap());
    assert_eq!(once, twice);
    assert_eq!(history, halves);
    assert_eq!(history.len(), 10);
}

#[test]
fn five_epochs_and_five_more_are_ten_bit_for_bit() {
    training_goes_on_where_it_stopped::<f32>();
    training_goes_on_where_it_stopped::<f64>();
}

#[test]
fn no_epochs_change_nothing() {
    let (mut mlp, x, y) = setting::<f32>();
    let before = mlp.clone();
    let mut sgd = Sgd::new(16, 0.1, 3).unwrap();
    assert_eq!(sgd.train(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy, 0), Ok(vec![]));
    assert_eq!(mlp, before);
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_seed_other_ones() {
    let run = |seed| {
        let (mut mlp, x, y) = setting::<f32>();
        let mut sgd = Sgd::new(16, 0.1, seed).unwrap();
        let history = sgd.train(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy, 3).unwrap();
        (mlp, history)
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4).0, run(5).0);
    let he = |seed| Mlp::<f32>::he(&[6, 20, 9, 3], Bias::Input, seed).unwrap();
    assert_eq!(he(4), he(4));
    assert_ne!(he(4), he(5));
}

/// The shuffles of a seed are those of its stream 2, which the weights, of stream 0, have no part
/// in; and the same in every release.
#[test]
fn the_first_epoch_is_in_the_order_of_its_own_stream() {
    let (mut mlp, x, y) = setting::<f64>();
    let (mut by_hand, mut order) = (mlp.clone(), (0..x.nrows()).collect::<Vec<_>>());
    Sgd::new(16, 0.1, 3).unwrap().train(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy, 1).unwrap();

    let mut generator = ChaCha8Rng::seed_from_u64(3);
    generator.set_stream(2);
    order.shuffle(&mut generator);
    let mut sgd = Sgd::new(16, 0.1, 0).unwrap();
    for batch in order.chunks(16) {
        let (x, y) = (x.select(Axis(0), batch), y.select(Axis(0), batch));
        sgd.step(&mut by_hand, x.view(), y.view(), &SoftmaxCrossEntropy).unwrap();
    }
    assert_eq!(mlp, by_hand);
}

/// Views of any layout are the same data: every second row, columns reversed, column-major.
#[test]
fn the_layout_of_the_callers_arrays_does_not_matter() {
    use ndarray::{ShapeBuilder, s};
    let (mlp, x, y) = setting::<f32>();
    let train = |x, y| {
        let mut trained = mlp.clone();
        Sgd::new(16, 0.1, 3).unwrap().train(&mut trained, x, y, &SoftmaxCrossEntropy, 2).unwrap();
        let predicted = trained.predict(x).unwrap();
        (trained, predicted)
    };
    let expected = train(x.view(), y.view());
    let mut column_major = Array2::zeros(x.raw_dim().f());
    column_major.assign(&x);
    assert_eq!(train(column_major.view(), y.view()), expected, "column-major");
    let mut wide = Array2::from_elem((140, 6), f32::NAN);
    wide.slice_mut(s![..;2, ..;-1]).assign(&x);
    let mut labels = Array1::from_elem(140, 99);
    labels.slice_mut(s![..;2]).assign(&y);
    assert_eq!(train(wide.slice(s![..;2, ..;-1]), labels.slice(s![..;2])), expected, "strided");
}

/// Without a hidden layer and with the whole data as batch, θ ← θ − η∇ with ∇ = H(θ − θ*), H =
/// X̃ᵀX̃/n (X̃: x and the constant 1), contracts towards the least-squares solution θ* by 1 −
/// ηλ_min per step, and a perturbation of r per step leaves r/(ηλ_min).
#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
#[test]
fn a_linear_model_converges_to_the_least_squares_solution_of_lapack() {
    use common::flat;
    use gemmprop::Optimizer;
    use gemmprop::rungs::bounds::{self, StepBounds};
    use ndarray_linalg::LeastSquaresSvd;

    let (samples, inputs, eta, epochs) = (120, 5, 0.5, 400);
    let x = common::uniform::<f64>(samples, inputs, 1);
    let noise = common::uniform::<f64>(samples, 1, 2);
    let y = Array2::from_shape_fn((samples, 1), |(i, _)| 2.0 * x[(i, 0)] - x[(i, 3)] + 0.5 + 0.3 * noise[(i, 0)]);
    let with_constant = Array2::from_shape_fn((samples, inputs + 1), |(i, j)| if j < inputs { x[(i, j)] } else { 1.0 });
    let solved = with_constant.least_squares(&y.column(0).to_owned()).unwrap();
    let best = solved.solution;

    let mut mlp = Mlp::<f64>::he(&[inputs, 1], Bias::Input, 3).unwrap();
    let distance = |mlp: &Mlp<f64>| {
        let differences = mlp.parameters().iter().zip(&best).map(|(theta, best)| (theta - best).powi(2));
        differences.sum::<f64>().sqrt()
    };
    let start = distance(&mlp);
    Sgd::new(samples, eta, 4).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, epochs).unwrap();

    let curvature = |singular: f64| singular * singular / samples as f64;
    let (steepest, flattest) = (curvature(solved.singular_values[0]), curvature(solved.singular_values[inputs]));
    assert!(eta * steepest < 1.0, "η is small enough for the theory");
    // Rounding of a step, at the end of the run where it matters.
    let g = bounds::loss_gradient(&mlp, x.view(), y.view(), &SquaredError).unwrap();
    let of_step = StepBounds::new(Optimizer::Sgd).unwrap().step(&mlp, &g, eta, 0.0).unwrap();
    let of_step = flat(&of_step.bound).iter().map(|error| error * error).sum::<f64>().sqrt();
    // LAPACK's own solution is backward stable: off by a modest multiple of cond² u; 100 is for n
    // and the dimension.
    let condition = steepest / flattest;
    let of_lapack = 100.0 * condition * f64::EPSILON * best.dot(&best).sqrt();
    let bound = start * (1.0 - eta * flattest).powi(epochs as i32) + of_step / (eta * flattest) + of_lapack;
    let found = distance(&mlp);
    println!("‖θ − θ*‖ = {found:e}, bound {bound:e}, at the start {start}");
    assert!(bound < 1e-9 && found <= bound, "‖θ − θ*‖ = {found:e}, bound {bound:e}");
}

fn bits<F: Scalar>(mlp: &Mlp<F>) -> Vec<u64> {
    mlp.parameters().iter().map(|p| p.to_f64().to_bits()).collect()
}

/// η = 10 on a parabola of curvature 1 and more: |ŷ − y| grows ninefold a step and overflows.
#[test]
fn a_run_that_diverges_says_when_and_leaves_the_network_as_before_that_batch() {
    let (x, y) = (array![[1.0_f32], [2.0], [-1.0]], array![1.0_f32, 0.0, 3.0]);
    let mut mlp = Mlp::<f32>::he(&[1, 1], Bias::Input, 1).unwrap();
    let mut replayed = mlp.clone();
    let error = Sgd::new(3, 10.0, 1).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 1000).unwrap_err();
    let Error::Diverged { what: "loss", at: Some((failed, 1)), found, last: Some(last) } = error else {
        panic!("{error:?}")
    };
    let epoch = failed - 1;
    assert!(epoch > 3 && !found.is_finite(), "{error}");
    assert!(mlp.parameters().iter().all(|p| p.is_finite()), "{mlp:?}");
    let text = format!("loss: expected a finite number, found {found} in batch 1 of epoch {failed}");
    assert_eq!(error.to_string(), format!("{text}; the loss of the step before was {last:e}"));

    // The epochs before it have been made, and no other.
    let history = Sgd::new(3, 10.0, 1).unwrap().train(&mut replayed, x.view(), y.view(), &SquaredError, epoch).unwrap();
    assert_eq!(bits(&replayed), bits(&mlp));
    assert!(history.iter().all(|loss| loss.is_finite()));
    assert_eq!(history.last(), Some(&last));
    // A second try fails at once, and still nothing moves.
    let error = Sgd::new(3, 10.0, 2).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 1).unwrap_err();
    assert!(matches!(error, Error::Diverged { at: Some((1, 1)), .. }), "{error:?}");
    assert_eq!(bits(&replayed), bits(&mlp));
}

type One = (Array2<f32>, Array1<f32>);

/// A network ŷ = w x + b with b = 0.
fn linear(w: f64) -> Mlp<f32> {
    Mlp::from_weights(&[1, 1], Bias::None, 0, |_, _, _| w).unwrap()
}

/// The loss is finite and the step is not: g = −10¹⁰, and η g = 10⁴⁰.
#[test]
fn a_step_after_which_parameters_would_be_infinite_is_refused_and_not_made() {
    let (good, bad): (One, One) = ((array![[0.0]], array![0.0]), (array![[1.0]], array![1e10]));
    let mut mlp = linear(0.0);
    let mut sgd = Sgd::new(1, 1e30, 1).unwrap();
    for _ in 0..2 {
        sgd.step(&mut mlp, good.0.view(), good.1.view(), &SquaredError).unwrap();
        let error = sgd.step(&mut mlp, bad.0.view(), bad.1.view(), &SquaredError).unwrap_err();
        let Error::Diverged { what: "parameters", at: None, found, last: Some(0.0) } = error else {
            panic!("{error:?}")
        };
        assert!(!found.is_finite());
        assert_eq!(mlp, linear(0.0));
    }
    let (x, y) = (array![[0.0], [1.0]], array![0.0, 1e10_f32]);
    let mut sgd = Sgd::new(1, 1e30, 1).unwrap();
    let error = sgd.train(&mut mlp, x.view(), y.view(), &SquaredError, 1).unwrap_err();
    assert!(matches!(error, Error::Diverged { what: "parameters", at: Some((1, _)), .. }), "{error:?}");
    assert_eq!(mlp, linear(0.0));
}

/// θ is the caller's between two steps, and may be near the end of the range: g = −1/10 and η g =
/// −3·10³⁷ then lead out of it, and 0 and 3·10²⁸, which is rounded away, do not.
#[test]
fn a_step_watches_parameters_that_the_caller_has_changed() {
    let near = 3.39e38;
    let (x, delta) = (array![[1e-20_f32]], -1e19_f32);
    let small = array![[0.0_f32]];
    let mut sgd = Sgd::new(1, 3e38, 1).unwrap();
    for w in [1.0, near, 1.0, near] {
        let mut mlp = linear(w);
        sgd.step(&mut mlp, small.view(), array![0.0].view(), &SquaredError).unwrap();
        assert_eq!(mlp, linear(w), "nothing to learn");
        let y_hat = mlp.predict(x.view()).unwrap()[(0, 0)];
        let outcome = sgd.step(&mut mlp, x.view(), array![y_hat - delta].view(), &SquaredError);
        // b, whose gradient is δ itself, is beyond the range in any case.
        assert!(matches!(outcome, Err(Error::Diverged { what: "parameters", .. })), "{w}: {outcome:?}");
        assert_eq!(mlp, linear(w));
    }
    let mut sgd = Sgd::new(1, 3e9, 1).unwrap();
    let mut mlp = linear(near);
    let y_hat = mlp.predict(x.view()).unwrap()[(0, 0)];
    sgd.step(&mut mlp, x.view(), array![y_hat - delta].view(), &SquaredError).unwrap();
    assert_eq!(mlp.parameters().alpha()[(0, 0)], near as f32);
}

#[test]
fn an_infinity_among_the_parameters_is_found_by_training_also_where_no_loss_shows_it() {
    // ReLU(−∞ · 1) = 0.
    let mut mlp = Mlp::<f32>::from_weights(&[1, 2, 1], Bias::None, 0, |_, _, _| 1.0).unwrap();
    mlp.parameters_mut().w_mut().next().unwrap()[(0, 0)] = f32::NEG_INFINITY;
    let before = bits(&mlp);
    let mut sgd = Sgd::new(1, 0.1, 1).unwrap();
    // Steps enough for a look at all parameters.
    let (x, y) = (Array2::ones((8, 1)), Array1::zeros(8));
    let error = sgd.train(&mut mlp, x.view(), y.view(), &SquaredError, 1).unwrap_err();
    assert!(matches!(error, Error::Diverged { what: "parameters", at: Some((1, 1)), .. }), "{error:?}");
    assert_eq!(bits(&mlp), before);
}

#[test]
fn a_rate_that_is_0_in_the_type_of_the_network_is_refused() {
    let error = Sgd::<f32>::new(1, 1e-60, 1).unwrap_err();
    assert!(error.to_string().starts_with("eta: expected a number that the network's type can tell from 0"), "{error}");
    Sgd::<f64>::new(1, 1e-60, 1).unwrap();
}

/// Whatever step of an epoch the shuffle puts the bad sample in, that step is named, and those
/// before it have been made.
#[test]
fn the_step_that_diverges_is_counted_from_0_within_its_epoch() {
    let x = Array2::from_elem((8, 1), 1.0_f32);
    for bad in 0..8 {
        // ŷ − y = −3·10³⁸ has a square that f32 cannot hold.
        let y = Array1::from_shape_fn(8, |i| if i == bad { 3e38_f32 } else { 0.0 });
        let mut mlp = Mlp::<f32>::he(&[1, 1], Bias::None, 1).unwrap();
        let mut sgd = Sgd::new(1, 0.01, 9).unwrap();
        let error = sgd.train(&mut mlp, x.view(), y.view(), &SquaredError, 1).unwrap_err();
        let Error::Diverged { at: Some((1, batch)), .. } = error else { panic!("{error:?}") };
        let step = batch - 1;
        // Epochs are shuffled, so `step` is where the shuffle puts the sample: that many steps have
        // been made, all with y = 0.
        let mut replayed = Mlp::<f32>::he(&[1, 1], Bias::None, 1).unwrap();
        let mut sgd = Sgd::new(1, 0.01, 9).unwrap();
        let zero = Array1::zeros(1);
        for _ in 0..step {
            sgd.step(&mut replayed, x.slice(ndarray::s![..1, ..]), zero.view(), &SquaredError).unwrap();
        }
        assert_eq!(bits(&replayed), bits(&mlp), "sample {bad}, step {step}");
    }
}

/// The first step moves w by η δ x = −10⁴, with a δ of 10³⁷ that no bound proves harmless; in the
/// second δ is infinite. Nothing that the second has left may count against the first when the
/// steps are made again.
#[test]
fn a_step_before_one_that_diverges_is_made() {
    let mut theta = Parameters::<f32>::zeros(&[1, 1, 1], Bias::None).unwrap();
    theta.iter_mut().zip([1.0, 1e23, 0.0]).for_each(|(theta, value)| *theta = value);
    let (x, y) = (array![[1e-30_f32], [1e-30]], array![1e14_f32, 1.8e19]);
    for products in common::both_products() {
        let before = Mlp::from_parameters(&[1, 1, 1], Bias::None, theta.clone()).unwrap();
        let before = before.with_products(products).unwrap();
        let mut at_once = before.clone();
        // This seed leaves the two in their order.
        let error = Sgd::new(1, 1e-3, 0).unwrap().train(&mut at_once, x.view(), y.view(), &SquaredError, 1);
        let found = error.unwrap_err();
        assert!(matches!(found, Error::Diverged { at: Some((1, 2)), .. }), "{products:?}: {found}");
        let mut by_step = before.clone();
        let (x, y) = (x.slice(ndarray::s![..1, ..]), y.slice(ndarray::s![..1]));
        Sgd::new(1, 1e-3, 0).unwrap().step(&mut by_step, x, y, &SquaredError).unwrap();
        assert_eq!(bits(&at_once), bits(&by_step), "{products:?}");
        assert_ne!(bits(&at_once), bits(&before));
    }
}

/// A NaN among the parameters is found by the loss, in `train` and in `step`, and nothing is
/// written.
#[test]
fn a_nan_in_the_parameters_is_reported_and_spreads_no_further() {
    let (mut mlp, x, y) = setting::<f32>();
    mlp.parameters_mut().w_mut().nth(1).unwrap()[(2, 3)] = f32::NAN;
    let before = bits(&mlp);
    let mut sgd = Sgd::new(16, 0.1, 3).unwrap();
    let error = sgd.train(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy, 1).unwrap_err();
    assert!(matches!(error, Error::Diverged { at: Some((1, 1)), found, .. } if found.is_nan()), "{error:?}");
    let error = sgd.step(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(error, Error::Diverged { found, .. } if found.is_nan()), "{error:?}");
    assert_eq!(bits(&mlp), before);
}

/// On small whole numbers, with η/B and 1 − ηλ powers of two, all arithmetic is exact: the fused
/// update is the oracle's, bit for bit.
fn weight_decay_is_exact<F: common::Real>(widths: &[usize], batch: usize, constant: Bias) {
    // η = B/4 and 1 − ηλ = ½.
    let (eta, lambda) = (batch as f64 / 4.0, 2.0 / batch as f64);
    let mlp = common::integer_network::<F>(widths, constant, 5);
    let (x, y) =
        (common::integers::<F>(batch, widths[0], 6), common::integers::<F>(batch, widths[widths.len() - 1], 7));
    let mut expected: Vec<f64> = mlp.parameters().iter().map(|theta| 0.5 * theta.to_f64()).collect();
    let mut g = mlp.zero_gradient();
    for (x, y) in x.outer_iter().zip(y.outer_iter()) {
        gemmprop::rungs::per_neuron::loss_gradient(&mlp, x, y.to_slice().unwrap(), &SquaredError, &mut g).unwrap();
        expected.iter_mut().zip(g.iter()).for_each(|(theta, g)| *theta -= 0.25 * g.to_f64());
    }
    assert!(expected.iter().all(|theta| theta.abs() < 1e6), "whole quarters up to 2²⁴ are exact in f32");
    let mut trained = mlp.clone();
    let mut sgd = Sgd::new(batch, eta, 1).unwrap().weight_decay(lambda).unwrap();
    sgd.step(&mut trained, x.view(), y.view(), &SquaredError).unwrap();
    assert_eq!(common::flat(trained.parameters()), expected, "{widths:?} B {batch} {constant:?}");
}

#[test]
fn weight_decay_is_the_beta_of_the_update() {
    for constant in [Bias::Input, Bias::EveryLayer, Bias::None] {
        for batch in [1, 2, 8, 33] {
            for widths in [&[3, 1][..], &[5, 7, 1], &[4, 8, 3], &[7, 45, 2]] {
                weight_decay_is_exact::<f32>(widths, batch, constant);
                weight_decay_is_exact::<f64>(widths, batch, constant);
            }
        }
    }
}
