//! The losses to their last digits: against the same quantities in a number type of 320 bits, at
//! margins from 10⁻³⁰ to 10³⁰, for all labels, in both number types.
//!
//! To first order, with u the unit roundoff and η the smallest positive number; library functions
//! are good to 4 ulp, 8u (libm promises 1). A bound holds for the exact value of the numbers that
//! the loss is given; 1.01 has the second order.
//!
//! ```text
//! e = e^−t           (8 + t) u e, of which t is the rounding of the difference t itself;
//!                    logistic, where there is none: 8u e
//! rest = Σ e         u S,  S = Σ e (t + 8 + m);   Σ = 1 + rest:  u (S + Σ)
//! e/Σ                u (t + 10 + S/Σ) e/Σ
//! rest/Σ             u (S/rest + S/Σ + 2) rest/Σ
//! ln(1 + rest)       u (8 ln(1 + rest) + S/Σ)
//! ```

use crate::common;

use std::collections::HashMap;

use common::Real;
use dashu_float::FBig;
use dashu_float::round::mode::HalfEven;
use gemmprop::{Generator, Logistic, Loss, SoftmaxCrossEntropy, SquaredError, TwiceDifferentiable};
use rand::{RngExt, SeedableRng};

type Big = FBig<HalfEven>;

/// The sum of 10³⁰ and 10⁻³⁰ has 253 bits.
const BITS: usize = 320;

fn big(a: f64) -> Big {
    Big::try_from(a).expect("finite").with_precision(BITS).value()
}

fn abs(a: &Big) -> Big {
    if *a < big(0.0) { -a.clone() } else { a.clone() }
}

/// e^−t; 0 where that is far below the smallest number of any type.
fn exponential(t: &Big, known: &mut HashMap<String, Big>) -> Big {
    if *t > big(2000.0) {
        return big(0.0);
    }
    known.entry(t.to_string()).or_insert_with(|| (-t.clone()).exp().with_precision(BITS).value()).clone()
}

/// ln(1 + a); of 0, whose precision has no end, too.
fn logarithm(a: &Big) -> Big {
    if *a == big(0.0) { big(0.0) } else { a.ln_1p() }
}

/// A number type with its smallest positive number.
trait Smallest: Real {
    const ETA: f64;
}

impl Smallest for f32 {
    const ETA: f64 = 1.401_298_464_324_817e-45;
}

impl Smallest for f64 {
    const ETA: f64 = 5e-324;
}

/// |found − exact| ≤ u `of_u` + η `of_eta`; or beyond the largest number, where the exact one is.
#[track_caller]
fn assert_close<F: Smallest>(what: &str, found: F, exact: &Big, of_u: &Big, of_eta: f64) {
    let found = found.to_f64();
    if !found.is_finite() {
        let largest = big(F::MAX) * big(1.0 - 100.0 * F::U);
        assert!(
            !found.is_nan() && abs(exact) > largest,
            "{what}: {found} for {exact:e}",
            exact = exact.to_f64().value()
        );
        return;
    }
    let bound = big(1.01 * F::U) * of_u + big(F::ETA) * big(of_eta);
    let error = abs(&(big(found) - exact));
    assert!(
        error <= bound,
        "{what}: {found:e} for {:e}, off by {:e}, bound {:e}",
        exact.to_f64().value(),
        error.to_f64().value(),
        bound.to_f64().value()
    );
}

/// Both signs of the magnitudes, and 0.
fn grid(magnitudes: &[f64]) -> Vec<f64> {
    magnitudes.iter().flat_map(|&a| [a, -a]).chain([0.0]).collect()
}

const MAGNITUDES: [f64; 30] = [
    1e-30, 1e-20, 1e-10, 1e-5, 1e-3, 0.02, 0.1, 0.3, 0.7, 1.0, 2.0, 5.0, 9.0, 16.0, 18.0, 20.0, 30.0, 36.0, 40.0, 60.0,
    87.0, 100.0, 104.0, 300.0, 700.0, 740.0, 1e3, 1e10, 1e20, 1e30,
];

fn squared<F: Smallest>() {
    for y_hat in grid(&MAGNITUDES) {
        for y in grid(&[1e-30, 1e-5, 1.0, 3.0, 1e20, 1e30]) {
            let (y_hat, y) = (F::from_f64(y_hat), F::from_f64(y));
            let mut d = [F::ZERO; 2];
            let value = SquaredError.value_and_derivative(&[y_hat, y_hat], &[y, y], &mut d);
            let exact = big(y_hat.to_f64()) - big(y.to_f64());
            let what = format!("{y_hat:?} {y:?}");
            assert_close(&what, d[0], &exact, &abs(&exact), 0.0);
            // Two equal halves of squares; the difference rounds, its square, their sum.
            let square = &exact * &exact;
            assert_close(&what, value, &square, &(big(5.0) * &square), 4.0);
        }
    }
}

#[test]
fn the_squared_error_keeps_its_digits() {
    squared::<f32>();
    squared::<f64>();
}

fn logistic<F: Smallest>() {
    let mut known = HashMap::new();
    for a in grid(&MAGNITUDES) {
        for y in [0.0, 1.0, 0.25, 0.9, 1e-30, 1.0 - F::U] {
            let (a, y) = (F::from_f64(a), F::from_f64(y));
            let mut d = [F::ZERO];
            let value = Logistic.value_and_derivative(&[a], &[y], &mut d);
            let what = format!("{a:?} {y:?}");
            let (size, one) = (abs(&big(a.to_f64())), big(1.0));
            let e = exponential(&size, &mut known);
            let tail = &e / (&one + &e);
            let positive = a > F::ZERO;
            // Of −ŷ and 1 − y where ŷ > 0.
            let y = if positive { &one - big(y.to_f64()) } else { big(y.to_f64()) };
            let exact = if positive { &y - &tail } else { &tail - &y };
            assert_close(&what, d[0], &exact, &(big(12.0) * (&y + &tail)), 8.0);
            if y == big(0.0) {
                assert_close(&what, d[0], &exact, &(big(10.0) * abs(&exact)), 8.0);
            }
            let exact = &y * &size + logarithm(&e);
            assert_close(&what, value, &exact, &(big(20.0) * &exact), 16.0);
            for v in [1.0, -0.3, 1e5] {
                let (v, mut hv) = (F::from_f64(v), [F::ZERO]);
                Logistic.second_derivative(&[a], &[F::ZERO], &[v], &mut hv);
                let exact = &tail / (&one + &e) * big(v.to_f64());
                assert_close(&what, hv[0], &exact, &(big(16.0) * abs(&exact)), 16.0 * (1.0 + v.to_f64().abs()));
            }
        }
    }
}

#[test]
fn the_logistic_loss_keeps_its_digits() {
    logistic::<f32>();
    logistic::<f64>();
}

fn softmax<F: Smallest>(y_hat: &[f64], v: &[f64], known: &mut HashMap<String, Big>) {
    let m = y_hat.len();
    let [y_hat, v] = [y_hat, v].map(|a| a.iter().map(|&a| F::from_f64(a)).collect::<Vec<_>>());
    let (zero, one) = (big(0.0), big(1.0));
    let exactly = |a: &[F]| a.iter().map(|a| big(a.to_f64())).collect::<Vec<_>>();
    let (a, v_big) = (exactly(&y_hat), exactly(&v));
    let top = (0..m).fold(0, |top, k| if a[k] > a[top] { k } else { top });
    let t: Vec<Big> = a.iter().map(|b| &a[top] - b).collect();
    let e: Vec<Big> = t.iter().map(|t| exponential(t, known)).collect();
    let sum_of = |f: &dyn Fn(usize) -> Big| (0..m).fold(zero.clone(), |sum, k| sum + f(k));
    let others = |of: usize| sum_of(&|k| if k == of { zero.clone() } else { e[k].clone() });
    let (rest, sum) = (others(top), one + others(top));
    let p: Vec<Big> = e.iter().map(|e| e / &sum).collect();
    let roundings = |k: usize| &t[k] + big((m + 8) as f64);
    let s = sum_of(&|k| if k == top || e[k] == zero { zero.clone() } else { &e[k] * roundings(k) });
    let of_p = |k: usize| if e[k] == zero { zero.clone() } else { &p[k] * (&t[k] + big(10.0) + &s / &sum) };
    for (label, margin) in t.iter().enumerate() {
        let what = format!("{y_hat:?} label {label}");
        let mut d = vec![F::ZERO; m];
        let value = SoftmaxCrossEntropy.value_and_derivative(&y_hat, &[label], &mut d);
        for k in 0..m {
            if k != label {
                assert_close(&what, d[k], &p[k], &of_p(k), 8.0 * m as f64);
            } else if k == top {
                // rest/Σ, with S/rest once more.
                let exact = -(&rest / &sum);
                let bound = (&s + &rest * (&s / &sum + big(2.0))) / &sum;
                assert_close(&what, d[k], &exact, &bound, 8.0 * m as f64);
            } else {
                let exact = -(others(k) / &sum);
                assert_close(&what, d[k], &exact, &(of_p(k) - &exact), 8.0 * m as f64);
            }
        }
        let of_rest = logarithm(&rest);
        let exact = margin + &of_rest;
        let bound = &exact * big(2.0) + &of_rest * big(8.0) + &s / &sum;
        assert_close(&what, value, &exact, &bound, 8.0 * m as f64);
    }
    // p_k Σ_j p_j (v_k − v_j). With w = v − v_top: w_k and the mean, Σ e w/Σ, are each off by their
    // own roundings.
    let w: Vec<Big> = v_big.iter().map(|v| v - &v_big[top]).collect();
    let mean = sum_of(&|k| &p[k] * abs(&w[k]));
    let of_mean = sum_of(&|k| {
        if e[k] == zero { zero.clone() } else { &p[k] * abs(&w[k]) * (roundings(k) + big(5.0) + &s / &sum) }
    });
    let largest = v.iter().fold(1.0, |largest: f64, v| largest.max(v.to_f64().abs()));
    let mut hv = vec![F::ZERO; m];
    SoftmaxCrossEntropy.second_derivative(&y_hat, &[0], &v, &mut hv);
    for k in 0..m {
        let exact = &p[k] * sum_of(&|j| &p[j] * (&v_big[k] - &v_big[j]));
        let size = abs(&w[k]) + &mean;
        let bound = of_p(k) * &size + &p[k] * (size * big(3.0) + &of_mean);
        assert_close(&format!("{y_hat:?} v {v:?} [{k}]"), hv[k], &exact, &bound, 32.0 * m as f64 * largest);
    }
}

fn softmax_grid<F: Smallest>() {
    let mut known = HashMap::new();
    let directions = [[0.3, 0.1], [1.0, -1.0], [1e-20, 3.0], [5.0, 5.0]];
    let mut directions = directions.iter().cycle();
    for a in grid(&MAGNITUDES) {
        for b in grid(&[1e-30, 1e-3, 0.7, 18.0, 40.0, 700.0, 1e30]) {
            softmax::<F>(&[a, b], directions.next().expect("for ever"), &mut known);
        }
    }
    let few = grid(&[1e-30, 0.1, 3.0, 18.0, 95.0]);
    for &a in &few {
        for &b in &few {
            for &c in &few {
                softmax::<F>(&[a, b, c], &[0.3, 0.1, -0.7], &mut known);
            }
        }
    }
    let mut generator = Generator::seed_from_u64(1);
    for scale in [1e-30, 1e-3, 1.0, 5.0, 30.0, 200.0, 1e30] {
        for _ in 0..8 {
            let [y_hat, v] = [scale, 1.0].map(|scale| [0; 10].map(|_| scale * generator.random_range(-1.0..1.0)));
            softmax::<F>(&y_hat, &v, &mut known);
        }
    }
}

#[test]
fn softmax_cross_entropy_keeps_its_digits() {
    softmax_grid::<f32>();
    softmax_grid::<f64>();
}

/// Whatever the reference says: the label's own derivative does not vanish before the others', nor
/// half of a product.
#[test]
fn what_a_margin_leaves_is_shared_by_both_sides() {
    let mut d = [0.0_f32; 2];
    SoftmaxCrossEntropy.value_and_derivative(&[18.0, 0.0], &[0], &mut d);
    assert!(d[0] == -d[1] && d[1] > 0.0, "{d:?}");
    let mut hv = [0.0_f32; 2];
    SoftmaxCrossEntropy.second_derivative(&[20.0, 0.0], &[0], &[0.3, 0.1], &mut hv);
    assert!(hv[0] > 0.0 && (hv[0] + hv[1]).abs() <= 8.0 * f32::EPSILON * hv[0], "{hv:?}");
}
