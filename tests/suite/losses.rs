//! The losses: derivatives against difference quotients, values where a naive formula overflows,
//! and NaN, which must come through.

use gemmprop::{
    Bias, Logistic, Loss, Mlp, Products, Scalar, Sgd, SoftmaxCrossEntropy, SquaredError, TwiceDifferentiable,
};
use ndarray::array;

/// A step for which truncation and rounding are of one size, and a power of two, so that ŷ ± h is
/// nearly exact.
const STEP: f64 = 1.0 / 8192.0;

/// How much a loss may differ from its difference quotients.
struct Smoothness {
    /// Bounds on |∂³ℓ/∂ŷ_k³| and |∂³(∂ℓ/∂ŷ_i)/∂ŷ_k³|: a central difference is off by h²/6 times
    /// that.
    third: f64,
    fourth: f64,
    /// Roundings in ℓ, as multiples of ½ε(1 + |ŷ| + |ℓ|), and in ∂ℓ/∂ŷ, of ½ε(1 + |∂|). The largest
    /// that there are: an exponential, a logarithm, 3 sums, and ŷ ± h itself.
    roundings: f64,
}

fn derivatives_are_difference_quotients<L: TwiceDifferentiable<f64>>(
    loss: &L,
    y_hat: &[f64],
    y: &[L::Target],
    smooth: &Smoothness,
) {
    let m = y_hat.len();
    let at = |k: usize, h: f64| {
        let (mut moved, mut d) = (y_hat.to_vec(), vec![f64::NAN; m]);
        moved[k] += h;
        (loss.value_and_derivative(&moved, y, &mut d), d)
    };
    let (value, d) = at(0, 0.0);
    let scale = y_hat.iter().fold(1.0 + value, |scale, y_hat| scale + y_hat.abs());
    for k in 0..m {
        let ((up, d_up), (down, d_down)) = (at(k, STEP), at(k, -STEP));
        let rounding = smooth.roundings * f64::EPSILON / STEP;
        let (quotient, bound) = ((up - down) / (2.0 * STEP), STEP * STEP / 6.0 * smooth.third + rounding * scale);
        assert!((d[k] - quotient).abs() <= bound, "∂ℓ/∂ŷ_{k} = {} and {quotient} at {y_hat:?}, bound {bound:e}", d[k]);

        // Column k of the second derivative.
        let (mut e_k, mut column) = (vec![0.0; m], vec![f64::NAN; m]);
        e_k[k] = 1.0;
        loss.second_derivative(y_hat, y, &e_k, &mut column);
        for i in 0..m {
            let quotient = (d_up[i] - d_down[i]) / (2.0 * STEP);
            let bound = STEP * STEP / 6.0 * smooth.fourth + rounding * (1.0 + d[i].abs());
            let found = column[i];
            assert!((found - quotient).abs() <= bound, "∂²ℓ/∂ŷ_{k}∂ŷ_{i} = {found} and {quotient} at {y_hat:?}");
        }
    }
}

#[test]
fn the_squared_errors_derivatives_are_difference_quotients() {
    // A parabola: no truncation. ŷ ± h squared is of the size of ℓ.
    let smooth = Smoothness { third: 0.0, fourth: 0.0, roundings: 8.0 };
    for (y_hat, y) in [(vec![0.3], vec![-1.25]), (vec![0.0, 2.5, -7.0], vec![1.0, 2.5, 3.0])] {
        derivatives_are_difference_quotients(&SquaredError, &y_hat, &y, &smooth);
    }
}

/// σ″ = σ(1 − σ)(1 − 2σ) is at most 1/(6√3) in size, and σ‴ = σ(1 − σ)(1 − 6σ(1 − σ)) at most 1/8.
const SIGMOID: Smoothness = Smoothness { third: 0.0963, fourth: 0.125, roundings: 8.0 };

#[test]
fn the_logistic_losss_derivatives_are_difference_quotients() {
    for y_hat in [-30.0, -3.0, -0.5, 0.0, 1e-3, 0.7, 4.0, 25.0] {
        for y in [0.0, 1.0, 0.25] {
            derivatives_are_difference_quotients(&Logistic, &[y_hat], &[y], &SIGMOID);
        }
    }
}

/// p_k is a sigmoid of ŷ_k, and p_i = (1 − p_k) times a share that does not depend on ŷ_k: the
/// sigmoid's bounds hold.
#[test]
fn softmax_cross_entropys_derivatives_are_difference_quotients() {
    for y_hat in [vec![0.0, 0.0], vec![1.0, -2.0, 0.5], vec![12.0, 11.5, -8.0, 3.0], vec![-4.0, -4.0, -4.0, 6.0, 6.0]] {
        for label in 0..y_hat.len() {
            derivatives_are_difference_quotients(&SoftmaxCrossEntropy, &y_hat, &[label], &SIGMOID);
        }
    }
}

/// The second derivative is applied to any direction, linearly: p ⊙ (v − pᵀv) for softmax, which
/// kills the direction 1.
#[test]
fn softmax_cross_entropys_second_derivative_kills_a_common_shift() {
    let mut hv = [f64::NAN; 3];
    TwiceDifferentiable::<f64>::second_derivative(&SoftmaxCrossEntropy, &[1.0, -2.0, 0.5], &[0], &[8.0; 3], &mut hv);
    // v − pᵀv is the rounding of a weighted mean of eights: 8 roundings of 8.
    assert!(hv.iter().all(|hv| hv.abs() <= 8.0 * 8.0 * f64::EPSILON), "{hv:?}");
}

fn evaluate<F: Scalar, L: Loss<F>>(loss: &L, y_hat: &[f64], y: &[L::Target]) -> (f64, Vec<f64>) {
    let y_hat: Vec<F> = y_hat.iter().map(|&a| F::from_f64(a)).collect();
    let mut d = vec![F::ZERO; y_hat.len()];
    let value = loss.value_and_derivative(&y_hat, y, &mut d);
    (value.to_f64(), d.iter().map(|d| d.to_f64()).collect())
}

/// At ±10⁴ e^ŷ overflows in both number types and e^−ŷ underflows to 0, so the results are whole
/// numbers, exactly.
fn stable_at_ten_thousand<F: Scalar>() {
    let logistic = |y_hat: f64, y: f64| evaluate::<F, _>(&Logistic, &[y_hat], &[F::from_f64(y)]);
    assert_eq!(logistic(1e4, 0.0), (1e4, vec![1.0]));
    assert_eq!(logistic(1e4, 1.0), (0.0, vec![0.0]));
    assert_eq!(logistic(-1e4, 0.0), (0.0, vec![0.0]));
    assert_eq!(logistic(-1e4, 1.0), (1e4, vec![-1.0]));
    assert_eq!(logistic(1e4, 0.5), (5e3, vec![0.5]));
    let softmax = |y_hat: [f64; 3], label: usize| evaluate::<F, _>(&SoftmaxCrossEntropy, &y_hat, &[label]);
    assert_eq!(softmax([1e4, -1e4, 0.0], 0), (0.0, vec![0.0, 0.0, 0.0]));
    assert_eq!(softmax([1e4, -1e4, 0.0], 1), (2e4, vec![1.0, -1.0, 0.0]));
    assert_eq!(softmax([-1e4, -1e4, 0.0], 1), (1e4, vec![0.0, -1.0, 1.0]));
    for y_hat in [1e4, -1e4] {
        let mut hv = [F::from_f64(7.0)];
        TwiceDifferentiable::<F>::second_derivative(&Logistic, &[F::from_f64(y_hat)], &[F::ZERO], &[F::ONE], &mut hv);
        assert_eq!(hv, [F::ZERO]);
        let (y_hat, v) = ([y_hat, -y_hat].map(F::from_f64), [F::ONE, F::ZERO]);
        let mut hv = [F::from_f64(7.0); 2];
        TwiceDifferentiable::<F>::second_derivative(&SoftmaxCrossEntropy, &y_hat, &[0], &v, &mut hv);
        assert_eq!(hv, [F::ZERO; 2]);
    }
}

#[test]
fn losses_do_not_overflow_where_their_exponentials_would() {
    stable_at_ten_thousand::<f32>();
    stable_at_ten_thousand::<f64>();
}

/// Where ŷ is far on the right side, ℓ ≈ e^−|ŷ| is tiny and still right: ln(1 + e) is not 0.
#[test]
fn a_small_loss_keeps_its_digits() {
    let exact = (-40.0_f64).exp();
    for (value, _) in [evaluate::<f64, _>(&Logistic, &[40.0], &[1.0]), evaluate::<f64, _>(&Logistic, &[-40.0], &[0.0])]
    {
        // ln(1 + e) = e − e²/2 + …; exponential and logarithm round within 4 ulp each.
        assert!((value - exact).abs() <= 8.0 * f64::EPSILON * exact + exact * exact, "{value:e}");
    }
}

fn nan_comes_through<F: Scalar>() {
    let is_nan = |(value, _): (f64, Vec<f64>)| value.is_nan();
    assert!(is_nan(evaluate::<F, _>(&SquaredError, &[0.0, f64::NAN], &[F::ZERO, F::ZERO])));
    for y in [F::ZERO, F::ONE] {
        assert!(is_nan(evaluate::<F, _>(&Logistic, &[f64::NAN], &[y])));
    }
    for place in 0..3 {
        for label in 0..3 {
            let mut y_hat = [1.0, 3.0, 2.0];
            y_hat[place] = f64::NAN;
            let (value, d) = evaluate::<F, _>(&SoftmaxCrossEntropy, &y_hat, &[label]);
            assert!(value.is_nan() && d.iter().all(|d| d.is_nan()), "NaN at {place}, label {label}: {value}, {d:?}");
        }
    }
}

#[test]
fn a_nan_in_y_hat_gives_a_loss_of_nan() {
    nan_comes_through::<f32>();
    nan_comes_through::<f64>();
}

/// max(u, 0) would swallow it. A NaN in one weight makes its neuron NaN in every forward pass, and
/// ŷ with it, which is refused.
#[test]
fn a_nan_passes_through_relu() {
    use gemmprop::{
        Error,
        rungs::{Trace, batched, matrix_vector},
    };
    let mut mlp = Mlp::<f32>::he(&[3, 20, 20, 2], Bias::Input, 1).unwrap();
    mlp.parameters_mut().w_mut().next().unwrap()[(4, 1)] = f32::NAN;
    let x = ndarray::Array2::from_elem((9, 3), 0.5);
    let is_of = |error, of: Option<usize>| matches!(error, Error::Output { row, output: 0, found } if row == of && found.is_nan());
    assert!(is_of(Trace::new(&mlp, x.row(0)).unwrap_err(), None));
    assert!(is_of(matrix_vector::forward(&mlp, x.row(0)).unwrap_err(), None));
    assert!(is_of(batched::forward(&mlp, x.view()).unwrap_err(), Some(0)));
    assert!(is_of(mlp.predict(x.view()).unwrap_err(), Some(0)));
}

/// The network returns its inputs, so that ŷ = x.
#[test]
fn the_class_is_that_of_the_largest_output_and_of_equal_ones_the_first() {
    let mut entry = 0..9;
    let unit = |_, _, _: &mut _| f64::from(entry.next().unwrap() % 4 == 0);
    let mlp = Mlp::<f32>::from_weights(&[3, 3], Bias::None, 0, unit).unwrap();
    let x = array![[1.0, 3.0, 2.0], [2.0, 1.0, 2.0], [-3.0, -2.0, -1.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]];
    assert_eq!(mlp.predict(x.view()).unwrap(), x);
    assert_eq!(mlp.classify(x.view()).unwrap(), array![1, 0, 2, 0, 0]);
    let mlp = Mlp::<f64>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 1.0).unwrap();
    assert_eq!(mlp.classify(array![[-0.5], [0.0], [0.5]].view()).unwrap(), array![0, 1, 1]);
    assert!(mlp.classify(array![[f64::NAN]].view()).is_err());
}

/// A generic loss of one's own, by what `Scalar` has and the trait's defaults: Σ |ŷₖ − yₖ| up to a
/// threshold, from which on it stays.
struct Capped;

impl<F: Scalar> Loss<F> for Capped {
    type Target = F;

    fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
        let terms = y_hat.iter().zip(y).zip(d).map(|((&y_hat, &y), d)| {
            let mut e = y_hat;
            e -= y;
            *d = if e.abs() < F::ONE { e.max(-F::ONE).min(F::ONE) / e.abs() } else { F::ZERO };
            e.abs().min(F::ONE)
        });
        terms.sum()
    }
}

/// A loss with a parameter.
struct Of<T>(T);

impl<F: Scalar, L: Loss<F>> Loss<F> for Of<L> {
    type Target = L::Target;

    fn value_and_derivative(&self, y_hat: &[F], y: &[L::Target], d: &mut [F]) -> F {
        self.0.value_and_derivative(y_hat, y, d)
    }
}

/// So that a checkpoint tells them apart.
#[test]
fn a_loss_without_a_name_has_that_of_its_type() {
    assert_eq!(Loss::<f64>::name(&Capped), "Capped");
    assert_eq!(Loss::<f64>::name(&Of(Capped)), "Of");
}

/// They stand in checkpoints.
#[test]
fn losses_have_the_names_that_they_had() {
    let names =
        [Loss::<f64>::name(&SquaredError), Loss::<f64>::name(&Logistic), Loss::<f64>::name(&SoftmaxCrossEntropy)];
    assert_eq!(names, ["squared_error", "logistic", "softmax_cross_entropy"]);
}

/// Squared error that says it takes long.
struct Costly;

impl<F: Scalar> Loss<F> for Costly {
    type Target = F;

    fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
        SquaredError.value_and_derivative(y_hat, y, d)
    }

    fn cost(&self) -> usize {
        1_000_000
    }
}

/// Over BLAS, a sum of losses may be added up in other parts.
#[test]
fn what_a_loss_costs_changes_no_bit_natively() {
    let x = ndarray::Array2::from_shape_fn((70, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32 / 11.0);
    let y = ndarray::Array1::from_shape_fn(70, |i| (i % 5) as f32);
    let mlp = Mlp::he(&[4, 8, 1], Bias::Input, 1).unwrap().with_products(Products::Native).unwrap();
    fn run<L: Loss<f32, Target = f32>>(
        mlp: &Mlp<f32>,
        (x, y): (&ndarray::Array2<f32>, &ndarray::Array1<f32>),
        loss: &L,
    ) -> (Vec<u64>, Vec<u32>) {
        let mut mlp = mlp.clone();
        let losses = Sgd::new(64, 0.05, 1).unwrap().train(&mut mlp, x, y, loss, 3).unwrap();
        let bits = |p: &f32| p.to_bits();
        (losses.into_iter().map(f64::to_bits).collect(), mlp.parameters().iter().map(bits).collect())
    }
    assert!(run(&mlp, (&x, &y), &Costly) == run(&mlp, (&x, &y), &SquaredError));
}

#[test]
fn one_method_is_a_loss() {
    fn check<F: Scalar>() {
        let number = F::from_f64;
        let [y_hat, y] = [[2.5, 1.0, -7.0], [2.0, 1.25, 3.0]].map(|numbers| numbers.map(number));
        let mut d = [F::ZERO; 3];
        assert!(Capped.value_and_derivative(&y_hat, &y, &mut d) == number(1.75));
        assert!(d == [number(1.0), number(-1.0), number(0.0)]);
        assert!(Capped.value(&y_hat, &y) == number(1.75));
        assert_eq!(number(1.75).to_string(), "1.75");
        // 2.5 lies between e^0.9 and e.
        assert!(number(2.5).ln() > number(0.9) && number(2.5).ln() < number(1.0));
    }
    check::<f32>();
    check::<f64>();
    check::<gemmprop::rungs::count::Counted>();
    let mut mlp = Mlp::<f32>::he(&[1, 8, 1], Bias::EveryLayer, 1).unwrap();
    let (x, y) = (ndarray::array![[0.0], [0.1], [0.2]], ndarray::array![0.2, 0.3, 0.4]);
    let losses = Sgd::new(3, 0.01, 1).unwrap().train(&mut mlp, &x, &y, &Capped, 500).unwrap();
    assert!(losses[499] < 0.5 * losses[0], "{losses:?}");
    // A NaN among the targets, over which `min` passes, is refused by default.
    let y = ndarray::array![0.2, f32::NAN, 0.4];
    let error = mlp.evaluate(gemmprop::Dataset::new(&x, &y), &Capped).unwrap_err();
    assert!(matches!(error, gemmprop::Error::Target { row: Some(1), .. }), "{error}");
}

/// `value` has the bits of `value_and_derivative`, at all margins.
#[test]
fn a_loss_without_its_derivative_has_the_same_bits() {
    fn check<F: Scalar, L: Loss<F>>(loss: &L, y_hat: &[f64], y: &[L::Target]) {
        let y_hat: Vec<F> = y_hat.iter().map(|&y_hat| F::from_f64(y_hat)).collect();
        let beside = loss.value_and_derivative(&y_hat, y, &mut vec![F::ZERO; y_hat.len()]);
        assert_eq!(loss.value(&y_hat, y).to_f64().to_bits(), beside.to_f64().to_bits(), "{} at {y_hat:?}", loss.name());
        assert_eq!((&loss).value(&y_hat, y).to_f64().to_bits(), beside.to_f64().to_bits());
    }
    fn of<F: Scalar>() {
        let margins = (-400..400).map(|i| f64::from(i) * 0.3).chain([1e-30, -1e-30, 1e30, -1e30]);
        for margin in margins {
            for y in [0.0, 0.3, 1.0] {
                check::<F, _>(&Logistic, &[margin], &[F::from_f64(y)]);
            }
            check::<F, _>(&SquaredError, &[margin, 0.7, -margin], &[0.3, -margin, margin].map(F::from_f64));
            for label in 0..4 {
                check::<F, _>(&SoftmaxCrossEntropy, &[0.1, margin, -margin / 3.0, 0.7], &[label]);
            }
        }
    }
    of::<f32>();
    of::<f64>();
}
