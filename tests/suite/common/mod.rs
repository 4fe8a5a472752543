//! What the tests share: random networks, and rounding bounds derived from the computed values
//! (running error analysis; Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., §3.1
//! and §3.3), so that no test needs a guessed tolerance.
//!
//! Written for exact θ and x, with u the unit roundoff of the number type and γ(k) = ku/(1 − ku). A
//! star is the exact value, a hat what a rung computed, a bar what [`Reference`] computed in f64.
//! Every rung rounds with u, in an order of its own, and the reference with 2⁻⁵³ ≤ u, so one bound
//! e holds for all: |ẑ − z*| ≤ e and |z̄ − z*| ≤ e, hence |ẑ| ≤ |z̄| + 2e.
//!
//! ```text
//! forward    e[t+1] = |w| e[t] + γ(n+1) (|w| (|z̄[t]| + 2e[t]) + |c|)
//!            n: the number of entries of z[t] that are not exactly 0
//! masks      agree for certain where |ū| > 2e; below −2e, z is exactly 0 in every rung,
//!            so its e is 0
//! backward   g[t] = mask ⊙ (|w|ᵀ g[t+1] + γ(n) |w|ᵀ (|δ̄[t+1]| + 2g[t+1]))
//! gradient   |δ̂ẑ − δ*z*| ≤ g (|z̄| + 2e) + (|δ̄| + g) e,
//!            and γ(B+3) (|δ̄| + 2g) (|z̄| + 2e) for the product, the sum and the mean
//! ```
//!
//! A mean or a step may multiply ∂ by its factor before δ goes down, rather than the gradient after
//! it. The factor's own rounding is common to all numbers and in γ(B+3); that of the product with
//! each ∂_k is in the seed's error.
//!
//! Where θ itself is known only to within E, of each number, as at a point uphill that each rung
//! went to by itself, w̄ is off by E too: w ẑ by E (|z̄| + 2e) more, wᵀ δ̂ by Eᵀ (|δ̄| + 2g), and
//! |w| + E stands for |w| in what is rounded.
//!
//! The edge-by-edge rung adds up the same paths from the other end, so its intermediate values are
//! not δ. For it each path carries its own roundings: γ(K) p (|z̄| + 2e) with p[t] = mask ⊙ |w|ᵀ
//! p[t+1], and the seed's error along the same paths.
//!
//! Underflow is left out: weights and inputs here are of order 1, and the smallest products are far
//! from 10⁻³⁸.

#![allow(dead_code, reason = "with fewer features there are fewer tests that use it")]

pub(crate) mod second_order;

use gemmprop::{Bias, Generator, Loss, Mlp, Parameters, Products, Scalar};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use rand::{RngExt, SeedableRng};

/// Those whose products this build can compute.
pub(crate) fn products() -> &'static [Products] {
    if cfg!(feature = "blas") { &[Products::Blas, Products::Native] } else { &[Products::Native] }
}

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

/// γ(k) = ku/(1 − ku)
pub(crate) fn gamma(k: usize, u: f64) -> f64 {
    let ku = k as f64 * u;
    ku / (1.0 - ku)
}

/// The bounds are evaluated in f64. All their terms are positive, so the relative error of that is
/// at most γ of the number of operations on the longest path, below 10⁴ here, and of the comparison
/// itself: 10⁴ · 2⁻⁵³ < 2 · 10⁻¹².
const EVALUATION: f64 = 1.0 + 2e-12;

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

/// ∂ = ∂ℓ/∂ŷ and ℓ at the reference's ŷ, and how far any rung's may be from the exact ones.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    pub(crate) value: Vec<f64>,
    pub(crate) error: Vec<f64>,
    pub(crate) loss: f64,
    pub(crate) loss_error: f64,
}

impl Seed {
    /// e_k, exactly: the seed of ∂ŷ_k/∂θ.
    pub(crate) fn unit(k: usize, outputs: usize) -> Self {
        let value = (0..outputs).map(|i| if i == k { 1.0 } else { 0.0 }).collect();
        Self { value, error: vec![0.0; outputs], loss: 0.0, loss_error: 0.0 }
    }
}

/// A loss whose sensitivity to ŷ and whose own rounding are known.
pub(crate) trait BoundedLoss<F: Real>: Loss<F> + Loss<f64> {
    /// The target as the loss takes it in f64.
    fn target(y: &[<Self as Loss<F>>::Target]) -> Vec<<Self as Loss<f64>>::Target>;

    /// Bounds on the errors of ∂ and ℓ, given ∂, ℓ and ŷ of the reference and e of ŷ.
    fn errors(u: f64, d: &[f64], loss: f64, y_hat: &[f64], e: &[f64]) -> (Vec<f64>, f64);

    fn seed(&self, u: f64, forward: &Forward, y: &[<Self as Loss<F>>::Target]) -> Seed {
        let mut value = vec![0.0; forward.y_hat.len()];
        let loss = Loss::<f64>::value_and_derivative(self, &forward.y_hat, &Self::target(y), &mut value);
        let (error, loss_error) = Self::errors(u, &value, loss, &forward.y_hat, &forward.e_y_hat);
        let scaled = |(d, error): (&f64, f64)| error + gamma(1, u) * (d.abs() + 2.0 * error);
        let error = value.iter().zip(error).map(scaled).collect();
        Seed { value, error, loss, loss_error }
    }
}

impl<F: Real> BoundedLoss<F> for gemmprop::SquaredError {
    fn target(y: &[F]) -> Vec<f64> {
        y.iter().map(|y| y.to_f64()).collect()
    }

    /// ∂ = ŷ − y: ∂² ℓ/∂ŷ² = 1 hands e on, and the subtraction rounds once. ℓ = ½ Σ ∂²: |∂| e +
    /// e²/2, and m + 3 roundings.
    fn errors(u: f64, d: &[f64], loss: f64, _y_hat: &[f64], e: &[f64]) -> (Vec<f64>, f64) {
        let error: Vec<f64> = d.iter().zip(e).map(|(d, e)| e + gamma(1, u) * (d.abs() + 2.0 * e)).collect();
        let moved: f64 = d.iter().zip(&error).map(|(d, e)| (d.abs() + 2.0 * e) * 2.0 * e).sum();
        (error, moved + gamma(d.len() + 3, u) * (loss + moved))
    }
}

impl<F: Real> BoundedLoss<F> for gemmprop::Logistic {
    fn target(y: &[F]) -> Vec<f64> {
        y.iter().map(|y| y.to_f64()).collect()
    }

    /// ∂ = σ(ŷ) − y: |σ′| ≤ ¼. Evaluation: the exponential is good to 4 ulp (libm promises 1), then
    /// 1 +, the quotient and the difference, all of numbers up to 1: 8 roundings with one to spare.
    /// ℓ = (1 − y) ŷ + ln(1 + e^−ŷ) or its mirror: |∂| ≤ 1 hands e on;
    /// terms up to |ŷ| and ln 2, with logarithm and exponential 10 roundings.
    fn errors(u: f64, _d: &[f64], _loss: f64, y_hat: &[f64], e: &[f64]) -> (Vec<f64>, f64) {
        (vec![e[0] / 4.0 + gamma(8, u)], e[0] + gamma(12, u) * (y_hat[0].abs() + 2.0 * e[0] + 1.0))
    }
}

impl<F: Real> BoundedLoss<F> for gemmprop::SoftmaxCrossEntropy {
    fn target(y: &[usize]) -> Vec<usize> {
        y.to_vec()
    }

    /// ∂ = p − e_y: a row of diag(p) − ppᵀ has 1-norm 2p(1 − p) ≤ ½. Evaluation, with a = largest −
    /// ŷ: e^−a has the relative error (a + 4) u, and a e^−a ≤ 0.37; the sum, at least 1, has m such
    /// terms and m − 1 additions; then a quotient and a difference. Together (0.37 + 4) + (0.37m +
    /// 4 + m) + 2 ≤ 2m + 12 roundings of numbers up to 1. ℓ = ln Σ + a_y: |∂₁| + … ≤ 2 hands e on;
    /// the sum's relative error is ln's absolute one, and a_y ≤ 2 max |ŷ|.
    fn errors(u: f64, d: &[f64], _loss: f64, y_hat: &[f64], e: &[f64]) -> (Vec<f64>, f64) {
        let worst = e.iter().fold(0.0, |a: f64, &b| a.max(b));
        let largest = y_hat.iter().fold(0.0, |a: f64, b| a.max(b.abs())) + 2.0 * worst;
        let error = vec![worst / 2.0 + gamma(2 * d.len() + 12, u); d.len()];
        (error, 2.0 * worst + gamma(2 * d.len() + 12, u) * (1.0 + 2.0 * largest + (d.len() as f64).ln()))
    }
}

/// A forward pass of the reference whose masks every rung shares.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    /// ū[1], …, ū[T] with their e, at 0 … T−1.
    pub(crate) u: Vec<Vec<f64>>,
    pub(crate) e_u: Vec<Vec<f64>>,
    /// z̄[0], …, z̄[T] with their e.
    pub(crate) z: Vec<Vec<f64>>,
    pub(crate) e_z: Vec<Vec<f64>>,
    pub(crate) y_hat: Vec<f64>,
    pub(crate) e_y_hat: Vec<f64>,
}

/// Σ over the samples of what each one's gradient may be off, in the order of θ.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Rungs 2 to 4.
    pub(crate) fast: Vec<f64>,
    /// Rung 1.
    pub(crate) naive: Vec<f64>,
    /// |δ̂||ẑ|ᵀ at most.
    pub(crate) magnitude: Vec<f64>,
    /// The gradient with |w| for w along all paths: no partial sum of any rung is larger.
    pub(crate) paths: Vec<f64>,
}

impl Bounds {
    /// 1/B of all of it.
    pub(crate) fn mean(mut self, batch: usize) -> Self {
        for numbers in [&mut self.fast, &mut self.naive, &mut self.magnitude, &mut self.paths] {
            numbers.iter_mut().for_each(|b| *b /= batch as f64);
        }
        self
    }
}

/// A network in f64, with the bounds for the number type that it has in truth.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) u: f64,
    /// w[0], …, w[T−1], alpha
    w: Vec<Array2<f64>>,
    /// c[0], …, c[T−1], b
    c: Vec<Array1<f64>>,
    /// E of both, 0 where θ is exact.
    e_w: Vec<Array2<f64>>,
    e_c: Vec<Array1<f64>>,
}

impl Reference {
    pub(crate) fn new<F: Real>(mlp: &Mlp<F>) -> Self {
        let theta = mlp.parameters();
        let matrix = |w: ArrayView2<F>| w.mapv(|w| w.to_f64());
        let vector = |c: ArrayView1<F>| c.mapv(|c| c.to_f64());
        let hidden_w = theta.w().iter().map(|w| matrix(w.view()));
        let hidden_c = theta.c().iter().map(|c| vector(c.view()));
        let w: Vec<_> = hidden_w.chain([matrix(theta.alpha())]).collect();
        let c: Vec<_> = hidden_c.chain([vector(theta.b())]).collect();
        let e_w = w.iter().map(|w| Array2::zeros(w.dim())).collect();
        let e_c = c.iter().map(|c| Array1::zeros(c.len())).collect();
        Self { u: F::U, w, c, e_w, e_c }
    }

    /// A reference for networks in F whose θ is that of `mlp` to within `errors`, in the order of
    /// θ. It does not serve rung 1, `Bounds::naive`.
    pub(crate) fn near<F: Real>(mlp: &Mlp<f64>, errors: &[f64]) -> Self {
        let mut reference = Self { u: F::U, ..Self::new(mlp) };
        let of_theta = reference.e_w.iter_mut().zip(&mut reference.e_c).flat_map(|(w, c)| w.iter_mut().chain(c));
        assert_eq!(of_theta.zip(errors).map(|(to, &e)| *to = e).count(), errors.len());
        reference
    }

    /// A reference for exact arithmetic: all errors are 0.
    pub(crate) fn exact<F: Real>(mlp: &Mlp<F>) -> Self {
        Self { u: 0.0, ..Self::new(mlp) }
    }

    /// No partial sum of a forward pass is larger: the largest |w[t]| |z̄[t]| + |c[t]|.
    pub(crate) fn largest_partial_sum(&self, forward: &Forward) -> f64 {
        let mut largest = 0.0_f64;
        for ((w, c), z) in self.w.iter().zip(&self.c).zip(&forward.z) {
            for (i, w) in w.outer_iter().enumerate() {
                let sum: f64 = w.iter().zip(z).map(|(w, z)| (w * z).abs()).sum();
                largest = largest.max(sum + c.get(i).map_or(0.0, |c| c.abs()));
            }
        }
        largest
    }

    /// None if rounding could flip a mask: such a sample has to be left out of a comparison.
    pub(crate) fn forward<F: Real>(&self, x: ArrayView1<F>) -> Option<Forward> {
        let depth = self.w.len() - 1;
        let mut found = Forward {
            u: Vec::new(),
            e_u: Vec::new(),
            z: vec![x.iter().map(|x| x.to_f64()).collect()],
            e_z: vec![vec![0.0; x.len()]],
            y_hat: Vec::new(),
            e_y_hat: Vec::new(),
        };
        for t in 0..=depth {
            let (u, e) = self.affine(t, &found.z[t], &found.e_z[t]);
            if t == depth {
                (found.y_hat, found.e_y_hat) = (u, e);
                break;
            }
            // e = 0: nothing came in, so u is c = 0 or 0 in every rung.
            if u.iter().zip(&e).any(|(u, &e)| u.abs() <= 2.0 * e * EVALUATION && e > 0.0) {
                return None;
            }
            found.z.push(u.iter().map(|&u| if u > 0.0 { u } else { 0.0 }).collect());
            found.e_z.push(u.iter().zip(&e).map(|(&u, &e)| if u > 0.0 { e } else { 0.0 }).collect());
            found.u.push(u);
            found.e_u.push(e);
        }
        Some(found)
    }

    /// ŷ and its e, for every x: ReLU does not enlarge an error, so that no mask has to be certain.
    pub(crate) fn outputs<F: Real>(&self, x: ArrayView1<F>) -> (Vec<f64>, Vec<f64>) {
        let mut z: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        let mut e = vec![0.0; z.len()];
        for t in 0..self.w.len() {
            (z, e) = self.affine(t, &z, &e);
            if t + 1 < self.w.len() {
                for (u, e) in z.iter_mut().zip(&mut e) {
                    *e = if *u < -2.0 * *e { 0.0 } else { *e };
                    *u = u.max(0.0);
                }
            }
        }
        (z, e)
    }

    /// w[t] z + c[t] and its e.
    fn affine(&self, t: usize, z: &[f64], e_z: &[f64]) -> (Vec<f64>, Vec<f64>) {
        // A product with 0 and the addition of 0 are exact.
        let terms = z.iter().zip(e_z).filter(|&(&z, &e)| z != 0.0 || e != 0.0).count();
        let gamma = gamma(terms + 1, self.u);
        let row = |(i, w): (usize, ArrayView1<f64>)| {
            let (mut u, mut handed_on, mut magnitude) = (0.0, 0.0, 0.0);
            for (((w, e_w), z), e) in w.iter().zip(self.e_w[t].row(i)).zip(z).zip(e_z) {
                u += w * z;
                handed_on += w.abs() * e + e_w * (z.abs() + 2.0 * e);
                magnitude += (w.abs() + e_w) * (z.abs() + 2.0 * e);
            }
            if let (Some(c), Some(e_c)) = (self.c[t].get(i), self.e_c[t].get(i)) {
                u += c;
                handed_on += e_c;
                magnitude += c.abs() + e_c;
            }
            (u, handed_on + gamma * magnitude)
        };
        self.w[t].outer_iter().enumerate().map(row).unzip()
    }

    /// No error yet.
    pub(crate) fn no_bounds(&self) -> Bounds {
        let count = self.w.iter().map(Array2::len).sum::<usize>() + self.c.iter().map(Array1::len).sum::<usize>();
        let zeros = vec![0.0; count];
        Bounds { fast: zeros.clone(), naive: zeros.clone(), magnitude: zeros.clone(), paths: zeros }
    }

    /// Adds one sample's bounds, one of a batch of `batch`, for the seed that it had.
    pub(crate) fn add_bounds(&self, forward: &Forward, seed: &Seed, batch: usize, into: &mut Bounds) {
        let depth = self.w.len() - 1;
        let outputs = seed.value.len();
        let (mut delta, mut g) = (seed.value.clone(), seed.error.clone());
        let mut paths: Vec<f64> = delta.iter().zip(&g).map(|(delta, g)| delta.abs() + 2.0 * g).collect();
        let mut seed_paths = g.clone();
        // Roundings of rung 1 along a path: its products and sums above, the product with ∂, the
        // sum over outputs, the mean.
        let mut roundings = outputs + batch + 6;
        let mut end = into.fast.len();
        for t in (0..=depth).rev() {
            let (z, e) = (&forward.z[t], &forward.e_z[t]);
            let start = end - self.w[t].len() - self.c[t].len();
            let (of_product, of_path) = (gamma(batch + 3, self.u), gamma(roundings, self.u));
            let mut entry = |at: usize, i: usize, z: f64, e: f64| {
                let (z_hat, delta_hat) = (z.abs() + 2.0 * e, delta[i].abs() + 2.0 * g[i]);
                let of_z = (delta[i].abs() + g[i]) * e;
                into.fast[at] += (g[i] * z_hat + of_z + of_product * delta_hat * z_hat) * EVALUATION;
                into.naive[at] += ((of_path * paths[i] + seed_paths[i]) * z_hat + of_z) * EVALUATION;
                into.magnitude[at] += delta_hat * z_hat;
                into.paths[at] += paths[i] * z_hat;
            };
            let columns = z.len();
            for i in 0..self.w[t].nrows() {
                for (j, (&z, &e)) in z.iter().zip(e).enumerate() {
                    entry(start + i * columns + j, i, z, e);
                }
            }
            for i in 0..self.c[t].len() {
                entry(start + self.w[t].len() + i, i, 1.0, 0.0);
            }
            end = start;
            if t > 0 {
                let terms = delta.iter().zip(&g).filter(|&(&delta, &g)| delta != 0.0 || g != 0.0).count();
                let of_sum = gamma(terms, self.u);
                let most: Vec<f64> = delta.iter().zip(&g).map(|(delta, g)| delta.abs() + 2.0 * g).collect();
                let bound: Vec<f64> = g.iter().zip(&most).map(|(g, most)| g + of_sum * most).collect();
                let of_theta: Vec<f64> = most.iter().map(|most| (1.0 + of_sum) * most).collect();
                let (w, sizes) = (&self.w[t], self.w[t].mapv(f64::abs));
                delta = down(w, z, &delta);
                g = down(&sizes, z, &bound);
                let of_theta = down(&self.e_w[t], z, &of_theta);
                g.iter_mut().zip(of_theta).for_each(|(g, of_theta)| *g += of_theta);
                paths = down(&sizes, z, &paths);
                seed_paths = down(&sizes, z, &seed_paths);
                roundings += z.len();
            }
        }
    }
}

/// mask ⊙ (wᵀ v)
fn down(w: &Array2<f64>, z: &[f64], v: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; z.len()];
    for (w, &v) in w.outer_iter().zip(v) {
        sum.iter_mut().zip(w).for_each(|(sum, &w)| *sum += w * v);
    }
    sum.iter_mut().zip(z).for_each(|(sum, &z)| *sum = if z > 0.0 { *sum } else { 0.0 });
    sum
}

/// The first entry where two numbers are further apart than the bounds on both allow. A NaN is.
pub(crate) fn first_violation(a: &[f64], bound_a: &[f64], b: &[f64], bound_b: &[f64]) -> Option<usize> {
    assert!(a.len() == b.len() && a.len() == bound_a.len() && a.len() == bound_b.len());
    (0..a.len()).find(|&i| {
        let inside = (a[i] - b[i]).abs() <= (bound_a[i] + bound_b[i]) * EVALUATION;
        !inside
    })
}

#[track_caller]
pub(crate) fn assert_within(what: &str, a: &[f64], bound_a: &[f64], b: &[f64], bound_b: &[f64]) {
    if let Some(i) = first_violation(a, bound_a, b, bound_b) {
        panic!("{what}[{i}]: {} and {} differ by {:e}, bound {:e}", a[i], b[i], a[i] - b[i], bound_a[i] + bound_b[i]);
    }
}
