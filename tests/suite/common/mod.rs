//! What the tests share: random networks, comparisons within the bounds of `rungs::bounds`, so that
//! no test needs a guessed tolerance, and what has to be small for sums of whole numbers to be
//! exact.

#![allow(dead_code, reason = "with fewer features there are fewer tests that use it")]

pub(crate) mod exact;
pub(crate) mod second_order;

use gemmprop::rungs::Trace;
use gemmprop::rungs::bounds::{self, Bounded, BoundedLoss};
use gemmprop::{Bias, Generator, Logistic, Mlp, Parameters, Products, Scalar, SoftmaxCrossEntropy};
use ndarray::{Array2, ArrayView1, ArrayView2};
use rand::{RngExt, SeedableRng};

/// Those whose products this build can compute.
pub(crate) fn products() -> &'static [Products] {
    if cfg!(feature = "blas") { &[Products::Blas, Products::Native] } else { &[Products::Native] }
}

pub(crate) use gemmprop::rungs::bounds::gamma;

/// The number types of the networks, with their unit roundoff.
pub(crate) trait Real: Scalar {
    const U: f64;
}

impl Real for f32 {
    const U: f64 = f32::EPSILON as f64 / 2.0;
}

impl Real for f64 {
    const U: f64 = Self::EPSILON / 2.0;
}

/// The engines that this build has.
pub(crate) fn both_products() -> Vec<Products> {
    if cfg!(feature = "blas") { vec![Products::Native, Products::Blas] } else { vec![Products::Native] }
}

/// He's weights, and biases drawn from ±½ so that they take part.
pub(crate) fn network<F: Real>(widths: &[usize], constant: Bias, seed: u64) -> Mlp<F> {
    let mut mlp = Mlp::he(widths, constant, seed).unwrap();
    let mut generator = Generator::seed_from_u64(seed ^ 0xC0);
    for (_, mut c) in mlp.parameters_mut().layers_mut() {
        c.map_inplace(|c| *c = F::from_f64(generator.random_range(-0.5..0.5)));
    }
    mlp
}

/// Small whole numbers for all parameters, on which f32 is exact.
pub(crate) fn integer_network<F: Real>(widths: &[usize], constant: Bias, seed: u64) -> Mlp<F> {
    let mut theta = Parameters::zeros(widths, constant).unwrap();
    let mut generator = Generator::seed_from_u64(seed);
    theta.iter_mut().for_each(|p| *p = F::from_f64(f64::from(generator.random_range(-1..=1))));
    Mlp::from_parameters(widths, constant, theta).unwrap()
}

pub(crate) fn uniform<F: Real>(rows: usize, columns: usize, seed: u64) -> Array2<F> {
    let mut generator = Generator::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, columns), || F::from_f64(generator.random_range(-1.0..1.0)))
}

pub(crate) fn integers<F: Real>(rows: usize, columns: usize, seed: u64) -> Array2<F> {
    let mut generator = Generator::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, columns), || F::from_f64(f64::from(generator.random_range(-3..=3))))
}

/// All numbers in the order of θ, in double precision (which is exact).
pub(crate) fn flat<F: Scalar>(p: &Parameters<F>) -> Vec<f64> {
    p.iter().map(|p| p.to_f64()).collect()
}

/// The same network in f64; exact.
pub(crate) fn in_f64<F: Scalar>(mlp: &Mlp<F>) -> Mlp<f64> {
    let mut theta = Parameters::zeros(mlp.widths(), mlp.bias()).unwrap();
    theta.iter_mut().zip(mlp.parameters().iter()).for_each(|(to, from)| *to = from.to_f64());
    Mlp::from_parameters(mlp.widths(), mlp.bias(), theta).unwrap()
}

/// The rows of x whose masks no rounding can flip.
pub(crate) fn certain_rows<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Vec<usize> {
    let uncertain = bounds::forward(mlp, x).unwrap().uncertain;
    (0..x.nrows()).filter(|&row| uncertain.iter().all(|mask| mask.sample != row)).collect()
}

/// How far the outputs of each row may be from the exact ones.
pub(crate) fn output_bounds<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Array2<f64> {
    bounds::forward(mlp, x).unwrap().trace.bound.y_hat().clone()
}

/// The probabilities of classes of ŷ that are known to within e, and how far those of any program
/// that computes in F may be from the exact ones: by the derivatives of the losses, σ(ŷ) − 0 and
/// p − e_y for the k other than y; and 12 roundings, for programs that subtract from 1, or divide 1
/// by what was added to it.
pub(crate) fn probabilities<F: Real>(y_hat: &[f64], e: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (m, y_hat) = (y_hat.len(), Bounded { value: y_hat.to_vec(), bound: e.to_vec() });
    let of = |k: usize| {
        let d = match m {
            1 => BoundedLoss::<F>::bounds(&Logistic, &y_hat, &[F::ZERO]).derivative,
            _ => BoundedLoss::<F>::bounds(&SoftmaxCrossEntropy, &y_hat, &[(k + 1) % m]).derivative,
        };
        (d.value[k], d.bound[k] + gamma(12, F::U))
    };
    (0..m).map(of).unzip()
}

/// Adds |∂||w|…|w||z|, the sums of sizes along the paths of one sample, for the ∂ given, in the
/// order of θ. Returns the largest |w| |z| + |c| of the forward pass. If all of these are whole
/// numbers below 2²⁴, no sum of any rung rounds. Exact itself, in f64.
pub(crate) fn add_sizes(mlp: &Mlp<f64>, x: ArrayView1<f64>, dy: &[f64], into: &mut [f64]) -> f64 {
    let trace = Trace::new(mlp, x).unwrap();
    let layers: Vec<_> = mlp.parameters().layers().collect();
    let mut largest = 0.0_f64;
    let mut paths: Vec<f64> = dy.iter().map(|d| d.abs()).collect();
    let mut end = into.len();
    for (t, (w, c)) in layers.into_iter().enumerate().rev() {
        let z = trace.z(t);
        let start = end - w.len() - c.len();
        let mut below = vec![0.0; z.len()];
        for (i, w) in w.outer_iter().enumerate() {
            let sum: f64 = w.iter().zip(z).map(|(w, z)| (w * z).abs()).sum();
            largest = largest.max(sum + c.get(i).map_or(0.0, |c| c.abs()));
            for (j, w) in w.iter().enumerate() {
                into[start + i * z.len() + j] += paths[i] * z[j].abs();
                below[j] += if z[j] > 0.0 { w.abs() * paths[i] } else { 0.0 };
            }
        }
        (0..c.len()).for_each(|i| into[start + w.len() + i] += paths[i]);
        (paths, end) = (below, start);
    }
    largest
}

/// The first entry where two numbers are further apart than the bounds on both allow. A NaN is.
pub(crate) fn first_violation(a: &[f64], bound_a: &[f64], b: &[f64], bound_b: &[f64]) -> Option<usize> {
    assert!(a.len() == b.len() && a.len() == bound_a.len() && a.len() == bound_b.len());
    (0..a.len()).find(|&i| {
        // The difference rounds, and the sum of the bounds does.
        let inside = (a[i] - b[i]).abs() <= (bound_a[i] + bound_b[i]) * (1.0 + 4.0 * f64::EPSILON);
        !inside
    })
}

#[track_caller]
pub(crate) fn assert_within(what: &str, a: &[f64], bound_a: &[f64], b: &[f64], bound_b: &[f64]) {
    if let Some(i) = first_violation(a, bound_a, b, bound_b) {
        panic!("{what}[{i}]: {} and {} differ by {:e}, bound {:e}", a[i], b[i], a[i] - b[i], bound_a[i] + bound_b[i]);
    }
}
