//! Spectra of a symmetric operator of which only the products v ↦ A v are known: extreme eigenvalues, trace, density.
//!
//! ```text
//! β v[j+1] = A v[j] − Σ_{i ≤ j} h[i,j] v[i]     the v[j]: columns of V, (n, m), orthonormal
//! h = Vᵀ A V, tridiagonal but for rounding      (m, m)
//! h s = θ s,   x = V s                          θ a Ritz value, x its Ritz vector
//! ‖A x − θ x‖ = β |s[m−1]|                      and A has an eigenvalue λ with |λ − θ| ≤ ‖A x − θ x‖
//!
//! tr A = E zᵀ A z                               z of independent signs ±1
//! tr f(A) / n ≈ mean over z of Σ_i s_i[0]² f(θ_i)     v[0] = z/√n: Gauss quadrature, exact for f of degree 2m − 1 with this z
//! ```
//!
//! C. Lanczos 1950, *An iteration method for the solution of the eigenvalue problem of linear differential and integral
//! operators*; every v\[j\] is orthogonalised against all before it, twice. The bound is Parlett's, *The Symmetric Eigenvalue
//! Problem*, 1980 (SIAM 1998), ch. 4. Trace: Hutchinson 1990, *A stochastic estimator of the trace of the influence matrix for
//! Laplacian smoothing splines*. Density: Ubaru, Chen and Saad 2017, *Fast estimation of tr(f(A)) via stochastic Lanczos
//! quadrature*; of the Hessians of networks, Ghorbani, Krishnan and Xiao 2019, *An investigation into neural net optimization
//! via Hessian eigenvalue density*, and Yao et al. 2020, *PyHessian*.
//!
//! **Repeated eigenvalues.** The Krylov space of one vector meets an eigenspace in one direction, and shows its eigenvalue once.
//! Copies are looked for from a new random start; the Ritz pairs that have converged stay in V, unchanged, the others go. Such
//! blocks follow until one adds nothing to what is asked for, though it has had as many steps as the first, or has spanned an
//! invariant subspace. What h lacks then, x_iᵀ A v\[j\] with the x_i kept, is in the bounds.
//!
//! **The operator** writes A v into its second argument, which holds zeros. It must be symmetric; that is not checked, and the
//! results for another mean nothing. What it returns as an error comes through. Its own calls of BLAS run on one thread.
//!
//! ```
//! use gemmprop::lanczos::{Options, extremes};
//!
//! let diagonal = ndarray::array![3.0, -5.0, 1.0];
//! let spectrum = extremes(3, |v, mut av| Ok(av.assign(&(&v * &diagonal))), &Options::default())?;
//! assert!((spectrum.largest[0].value - 3.0).abs() < 1e-12 && (spectrum.smallest[0].value + 5.0).abs() < 1e-12);
//! # Ok::<(), gemmprop::Error>(())
//! ```

use ndarray::linalg::general_mat_vec_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayViewMut1, Axis, s};
use ndarray_linalg::{EighInto, UPLO};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::Error;
use crate::threads::one_blas_thread;

type Operator<'a, E> = &'a mut dyn FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>;

/// What [`extremes`] looks for, and how far it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many eigenvalues from the top.
    pub largest: usize,
    /// How many from the bottom, the most negative ones.
    pub smallest: usize,
    /// Stop when all error bounds are at most this times max |θ|.
    pub tolerance: f64,
    /// Stop after so many products in any case. Each keeps a vector of length n in memory.
    pub steps: usize,
    /// Count an eigenvalue as often as it occurs. About doubles the products; looked at if more than one is asked for at an end.
    pub repeated: bool,
    /// Of the random start vectors.
    pub seed: u64,
}

impl Default for Options {
    /// One at each end, to six digits, in at most 200 products.
    fn default() -> Self {
        Self { largest: 1, smallest: 1, tolerance: 1e-6, steps: 200, repeated: true, seed: 0 }
    }
}

/// An approximate eigenvalue and eigenvector.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigenpair {
    /// θ
    pub value: f64,
    /// A bound on ‖A x − θ x‖, thus on the distance from θ to the nearest eigenvalue of A. That is a theorem for symmetric A, up to
    /// rounding: add about nε‖A‖, and the error of the products themselves. That no eigenvalue further out has been missed is no
    /// theorem, but what random start vectors make very likely.
    pub error: f64,
    /// x, of norm 1.
    pub vector: Array1<f64>,
}

/// The ends of a spectrum.
#[derive(Debug, Clone, PartialEq)]
pub struct Extremes {
    /// From the top down. As many as asked for, unless n or the number of products is smaller.
    pub largest: Vec<Eigenpair>,
    /// From the bottom up: the most negative first.
    pub smallest: Vec<Eigenpair>,
    /// Products A v made.
    pub products: usize,
    /// Whether all that was asked for is there, within the tolerance; with [`Options::repeated`], copies as well.
    pub converged: bool,
}

/// The mean of random samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error; infinite for a single sample, which does not tell.
    pub standard_error: f64,
}

impl Estimate {
    fn of(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        // Welford's mean: of equal samples it is exactly their value.
        let value = samples.iter().zip(1..).fold(0.0, |mean, (x, i)| mean + (x - mean) / f64::from(i));
        let deviations = samples.iter().map(|x| x - value).collect();
        let of_many = norm(&deviations) / (count * (count - 1.0)).sqrt();
        Self { value, standard_error: if count > 1.0 { of_many } else { f64::INFINITY } }
    }
}

/// The spectral density Σ δ(λ − λ_i)/n as quadratures, one for each random probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Density {
    /// Of each probe the nodes, from the bottom up: θ and its weight s\[0\]². The weights of a probe add up to 1.
    pub probes: Vec<Vec<(f64, f64)>>,
}

impl Density {
    /// (1/n) tr f(A), the mean of f over the spectrum.
    pub fn mean(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let of_probe = |nodes: &Vec<_>| nodes.iter().map(|&(theta, weight)| weight * f(theta)).sum();
        Estimate::of(&self.probes.iter().map(of_probe).collect::<Vec<f64>>())
    }

    /// The density at each point of the grid, with each node spread to a normal distribution of standard deviation sigma.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless sigma is finite and positive.
    pub fn smoothed(&self, grid: ArrayView1<f64>, sigma: f64) -> Result<Array1<f64>, Error> {
        in_range(sigma.is_finite() && sigma > 0.0, "sigma", "a finite, positive number", sigma)?;
        let height = 1.0 / (sigma * std::f64::consts::TAU.sqrt());
        Ok(grid.mapv(|x| height * self.mean(|value| (-0.5 * ((x - value) / sigma).powi(2)).exp()).value))
    }
}

/// The largest and the smallest eigenvalues of the symmetric operator `apply` of order n, with bounds on their errors.
///
/// # Errors
/// Those of `apply`; [`Error::Operator`] for a product that is not finite; [`Error::Hyperparameter`] for n or steps of 0, or a
/// tolerance that is negative or NaN; [`Error::Eigenvalues`]; [`Error::BlasThreads`].
pub fn extremes<E: From<Error>>(
    n: usize,
    mut apply: impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
    options: &Options,
) -> Result<Extremes, E> {
    let Options { tolerance, steps, repeated, seed, .. } = *options;
    let mut krylov = Krylov::new(n, steps)?;
    in_range(tolerance >= 0.0, "tolerance", "a number from 0 on", tolerance)?;
    let _one = one_blas_thread()?;
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let [largest, smallest] = [options.largest, options.smallest].map(|count| count.min(n));
    let most = largest.max(smallest);
    // The θ at the end of the block before, the number of steps of the first, when the next θ are due, and max |θ| so far.
    let (mut before, mut first, mut due, mut size) = (Vec::new(), 0, 1, 0.0_f64);
    let mut beta = krylov.start(&mut generator);
    loop {
        beta = krylov.step(beta, &mut apply)?;
        let m = krylov.m;
        let (invariant, last) = (beta <= krylov.negligible(), krylov.products == steps || m == n);
        if !invariant && !last && m < due {
            continue;
        }
        // The eigenproblem is of order m³: not at every step when m is large.
        due = m + 1 + m / 16;
        let (theta, s) = krylov.ritz()?;
        size = size.max(theta[0].abs()).max(theta[m - 1].abs());
        let allowed = tolerance * size;
        let error = |i: usize| krylov.residual(beta, s.column(i));
        let (top, bottom) = (m - largest.min(m)..m, 0..smallest.min(m));
        let settled = m == n || (m >= most && top.clone().chain(bottom.clone()).all(|i| error(i) <= allowed));
        let new = |now: f64, before: Option<&f64>| before.is_none_or(|before| (now - before).abs() > allowed);
        let block_was_new = || {
            (1..=largest).any(|i| new(theta[m - i], before.iter().nth_back(i - 1)))
                || (0..smallest).any(|i| new(theta[i], before.get(i)))
        };
        let done = settled && (m == n || !repeated || most < 2 || !block_was_new());
        if done || last {
            let vector = |i: usize| krylov.basis.slice(s![..m, ..]).t().dot(&s.column(i));
            let pair = |i: usize| Eigenpair { value: theta[i], error: error(i), vector: vector(i) };
            let (largest, smallest) = (top.rev().map(pair).collect(), bottom.map(pair).collect());
            return Ok(Extremes { largest, smallest, products: krylov.products, converged: done });
        }
        // A copy is as far from the rest as the first of its kind, so it needs no more steps than that to show itself. Where as
        // few lead to the whole space, they are the better ones.
        let length = if before.is_empty() { m } else { first };
        if invariant || (settled && length < n - m) {
            let which: Vec<usize> = (0..m).filter(|&i| invariant || error(i) <= allowed).collect();
            let errors = which.iter().map(|&i| error(i)).collect();
            krylov.keep(&s.select(Axis(1), &which), errors);
            (first, due, before) = (length, krylov.m + length, theta.to_vec());
            beta = krylov.start(&mut generator);
        }
    }
}

/// tr A as the mean of zᵀ A z over so many vectors z of random signs. The diagonal of A adds nothing to the standard error.
///
/// # Errors
/// As [`extremes`], for n or probes of 0.
pub fn trace<E: From<Error>>(
    n: usize,
    apply: impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
    probes: usize,
    seed: u64,
) -> Result<Estimate, E> {
    // After one step θ = zᵀ A z/n, with weight 1.
    Ok(density(n, apply, probes, 1, seed)?.mean(|theta| n as f64 * theta))
}

/// The spectral density, from so many random probes of so many steps each.
///
/// # Errors
/// As [`extremes`], for n, probes or steps of 0.
pub fn density<E: From<Error>>(
    n: usize,
    mut apply: impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
    probes: usize,
    steps: usize,
    seed: u64,
) -> Result<Density, E> {
    let mut krylov = Krylov::new(n, steps)?;
    in_range(probes > 0, "probes", "at least 1", 0.0)?;
    let _one = one_blas_thread()?;
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let probe = |_| {
        (krylov.m, krylov.scale) = (0, 0.0);
        krylov.w.map_inplace(|w| *w = if generator.random() { 1.0 } else { -1.0 });
        let mut beta = norm(&krylov.w);
        // In an invariant subspace the quadrature is exact.
        while krylov.m == 0 || (krylov.m < steps.min(n) && beta > krylov.negligible()) {
            beta = krylov.step(beta, &mut apply)?;
        }
        let (theta, s) = krylov.ritz()?;
        Ok(theta.iter().zip(s.row(0)).map(|(&theta, s)| (theta, s * s)).collect())
    };
    Ok(Density { probes: (0..probes).map(probe).collect::<Result<_, E>>()? })
}

/// An orthonormal basis that grows by Lanczos steps, h, and room for both.
struct Krylov {
    basis: Array2<f64>, // (steps, n), the v[j] in its first m rows
    h: Array2<f64>,     // (steps, steps), of which (m, m)
    kept: Vec<f64>,     // ‖A x − θ x‖ of the kept Ritz vectors, which are the first of the basis
    w: Array1<f64>,     // (n), orthogonal to the basis: the direction of the next v
    m: usize,
    scale: f64, // the largest |h| and β met: at most ‖A‖, and soon of its size
    products: usize,
}

impl Krylov {
    fn new(n: usize, steps: usize) -> Result<Self, Error> {
        in_range(n > 0, "n", "at least 1", 0.0)?;
        in_range(steps > 0, "steps", "at least 1", 0.0)?;
        let most = steps.min(n);
        let (basis, h, w) = (Array2::zeros((most, n)), Array2::zeros((most, most)), Array1::zeros(n));
        Ok(Self { basis, h, kept: Vec::new(), w, m: 0, scale: 0.0, products: 0 })
    }

    /// A β up to this is taken for 0: rounding errors of a product add up to about √n ε‖A‖. Noise a little above it is a random
    /// direction like any other. Directions of subnormal numbers would not be orthogonal.
    fn negligible(&self) -> f64 {
        ((self.w.len() as f64).sqrt() * f64::EPSILON * self.scale).max(f64::MIN_POSITIVE / f64::EPSILON)
    }

    /// A random direction; returns its norm.
    fn start(&mut self, generator: &mut ChaCha8Rng) -> f64 {
        self.w.map_inplace(|w| *w = StandardNormal.sample(generator));
        self.orthogonalise();
        norm(&self.w)
    }

    /// w ← w − V Vᵀ w, once for the numbers and once more for their rounding; returns what has been taken off, Vᵀ w.
    fn orthogonalise(&mut self) -> Array1<f64> {
        let v = self.basis.slice(s![..self.m, ..]);
        let mut taken = Array1::zeros(self.m);
        for _ in 0..2 {
            let h = v.dot(&self.w);
            general_mat_vec_mul(-1.0, &v.t(), &h, 1.0, &mut self.w);
            taken += &h;
        }
        taken
    }

    /// v[m] = w/β and w = A v[m] without its part in the basis; returns the next β, the norm of w.
    fn step<E: From<Error>>(&mut self, beta: f64, apply: Operator<E>) -> Result<f64, E> {
        let m = self.m;
        self.basis.row_mut(m).zip_mut_with(&self.w, |v, w| *v = w / beta);
        self.w.fill(0.0);
        apply(self.basis.row(m), self.w.view_mut())?;
        // With n w finite, sums of n such numbers and norms are.
        if let Some(component) = self.w.iter().position(|w| !(w * self.w.len() as f64).is_finite()) {
            return Err(Error::Operator { product: self.products, component, found: self.w[component] }.into());
        }
        (self.products, self.m) = (self.products + 1, m + 1);
        if self.m == self.w.len() {
            self.kept.clear(); // V is square, and h all of A
        }
        let column = self.orthogonalise();
        self.h.slice_mut(s![m, ..=m]).assign(&column);
        self.h.slice_mut(s![..=m, m]).assign(&column);
        let beta = norm(&self.w);
        self.scale = column.fold(self.scale.max(beta), |scale, h| scale.max(h.abs()));
        Ok(beta)
    }

    /// Goes on with these Ritz vectors alone, and leaves them as they are.
    fn keep(&mut self, s: &Array2<f64>, errors: Vec<f64>) {
        let (v, h) = (self.basis.slice(s![..self.m, ..]), self.h.slice(s![..self.m, ..self.m]));
        let (x, h) = (s.t().dot(&v), s.t().dot(&h).dot(s));
        (self.m, self.kept) = (errors.len(), errors);
        self.basis.slice_mut(s![..self.m, ..]).assign(&x);
        self.h.slice_mut(s![..self.m, ..self.m]).assign(&h);
    }

    /// θ in ascending order, and their s in columns.
    fn ritz(&self) -> Result<(Array1<f64>, Array2<f64>), Error> {
        // A copy with strides of its own: ndarray-linalg refuses the strides that a slice of 1 × 1 has.
        let entry = |(i, j): (usize, usize)| if i == j || i.min(j) >= self.kept.len() { self.h[(i, j)] } else { 0.0 };
        let h = Array2::from_shape_fn((self.m, self.m), entry);
        h.eigh_into(UPLO::Lower).map_err(|error| Error::Eigenvalues { order: self.m, reason: error.to_string() })
    }

    /// A bound on ‖A x − θ x‖ for x = V s.
    fn residual(&self, beta: f64, s: ArrayView1<f64>) -> f64 {
        let fixed = self.kept.len();
        let left_out = self.h.slice(s![..fixed, fixed..self.m]).dot(&s.slice(s![fixed..]));
        let outside =
            self.kept.iter().zip(&s).fold(beta * s[self.m - 1].abs(), |sum, (error, s)| sum + error * s.abs());
        outside + norm(&left_out)
    }
}

/// ‖v‖ without overflow or underflow on the way.
fn norm(v: &Array1<f64>) -> f64 {
    let largest = v.fold(f64::MIN_POSITIVE, |largest, v| largest.max(v.abs()));
    largest * (v / largest).pow2().sum().sqrt()
}

fn in_range(is: bool, name: &'static str, expected: &'static str, found: f64) -> Result<(), Error> {
    if is { Ok(()) } else { Err(Error::Hyperparameter { name, expected, found }) }
}
