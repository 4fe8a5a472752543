//! Spectra of a symmetric operator of which only the products v ↦ A v are known: extreme
//! eigenvalues, trace, density.
//!
//! ```text
//! β v[j+1] = A v[j] − Σ_{i ≤ j} h[i,j] v[i]     the v[j]: columns of V, (n, m), orthonormal
//! h = Vᵀ A V, tridiagonal but for rounding      (m, m)
//! h s = θ s,   x = V s                          θ a Ritz value, x its Ritz vector
//! ‖A x − θ x‖ = β |s[m−1]|        A has an eigenvalue λ with |λ − θ| ≤ ‖A x − θ x‖
//!
//! tr A = E zᵀ A z                               z of independent signs ±1
//! tr f(A) / n ≈ mean over z of Σ_i s_i[0]² f(θ_i)     v[0] = z/√n: Gauss quadrature, exact with
//!                                                     this z for f of degree 2m − 1
//! ```
//!
//! C. Lanczos 1950, *An iteration method for the solution of the eigenvalue problem of linear
//! differential and integral operators*; every v\[j\] is orthogonalised against all before it,
//! twice. The bound is Parlett's, *The Symmetric Eigenvalue Problem*, 1980 (SIAM 1998), ch. 4.
//! Trace: Hutchinson 1990, *A stochastic estimator of the trace of the influence matrix for
//! Laplacian smoothing splines*. Density: Ubaru, Chen and Saad 2017, *Fast estimation of tr(f(A))
//! via stochastic Lanczos quadrature*; of the Hessians of networks, Ghorbani, Krishnan and Xiao
//! 2019, *An investigation into neural net optimization via Hessian eigenvalue density*, and Yao et
//! al. 2020, *PyHessian*.
//!
//! **Repeated eigenvalues.** The Krylov space of one vector meets an eigenspace in one direction,
//! and shows its eigenvalue once. Copies are looked for from a new random start; the Ritz pairs
//! that have converged stay in V, unchanged, the others go. Such blocks follow until one adds
//! nothing to what is asked for, though it has had as many steps as the first, or has spanned an
//! invariant subspace. What h lacks then, x_iᵀ A v\[j\] with the x_i kept, is in the bounds.
//!
//! **The operator** knows its order and must be symmetric. The two sides of the diagonal of h are
//! computed from different products. For a symmetric operator they differ by rounding, for any
//! other by more. The difference enters the bounds on the errors, and one too large for rounding is
//! refused. Calls of BLAS that the operator makes run on one thread.
//!
//! ```
//! use gemmprop::curvature::lanczos::{Options, extremes, from_fn};
//!
//! let diagonal = ndarray::array![3.0, -5.0, 1.0];
//! let mut operator = from_fn(3, |v, mut av| {
//!     av.assign(&(&v * &diagonal));
//!     Ok::<(), gemmprop::Error>(())
//! });
//! let spectrum = extremes(&mut operator, &Options::default())?;
//! assert!((spectrum.largest[0].value - 3.0).abs() < 1e-12);
//! assert!((spectrum.smallest[0].value + 5.0).abs() < 1e-12);
//! # Ok::<(), gemmprop::Error>(())
//! ```

use std::ops::Range;

use ndarray::{Array1, Array2, Axis};

pub use crate::curvature::density::{Density, Estimate, density, trace};
use crate::curvature::krylov::{Krylov, in_range};
pub use crate::curvature::operator::{FromFn, Operator, from_fn};
use crate::error::Error;
use crate::linalg::blas::one_blas_thread;
use crate::random::Generator;

/// The eigenvalues that [`extremes`] computes, and when it stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The number of largest eigenvalues.
    pub largest: usize,
    /// The number of smallest eigenvalues, the most negative ones.
    pub smallest: usize,
    /// Stop when all error bounds are at most this times max |θ|, or at most what rounding leaves
    /// of them.
    pub tolerance: f64,
    /// The largest number of products. Each product keeps a vector of length n in memory.
    pub steps: usize,
    /// Count an eigenvalue as often as it occurs, which about doubles the products. It has an
    /// effect only if more than one eigenvalue is requested at an end.
    pub repeated: bool,
    /// The seed of the random start vectors.
    pub seed: u64,
}

impl Default for Options {
    /// One eigenvalue at each end, to six digits, in at most 200 products.
    fn default() -> Self {
        Self { largest: 1, smallest: 1, tolerance: 1e-6, steps: 200, repeated: true, seed: 0 }
    }
}

/// An approximate eigenvalue and eigenvector.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigenpair {
    /// The Ritz value θ.
    pub value: f64,
    /// A bound on ‖A x − θ x‖, thus on the distance from θ to the nearest eigenvalue of A. That is
    /// a theorem for symmetric A, up to the errors of the products and of adding up; it is never
    /// below mε‖A‖, with m the order of h and the operator's [`epsilon`](Operator::epsilon). That
    /// no eigenvalue further out has been missed is not a theorem, but random start vectors make it
    /// very likely.
    pub error: f64,
    /// The Ritz vector x, of norm 1.
    pub vector: Array1<f64>,
}

/// The ends of a spectrum.
#[derive(Debug, Clone, PartialEq)]
pub struct Extremes {
    /// The largest eigenvalues in descending order: as many as requested, unless n or the number of
    /// products is smaller.
    pub largest: Vec<Eigenpair>,
    /// The smallest eigenvalues in ascending order: the most negative first.
    pub smallest: Vec<Eigenpair>,
    /// Products A v made.
    pub products: usize,
    /// Whether all requested eigenvalues have converged within the tolerance; with
    /// [`Options::repeated`], copies as well: a block that had as many steps as the first has found
    /// no more.
    pub converged: bool,
}

/// The largest and the smallest eigenvalues of a symmetric operator, with bounds on their errors.
///
/// # Errors
/// Those of the operator; [`Error::Operator`] for a product that is not finite;
/// [`Error::NotSymmetric`]; [`Error::Hyperparameter`] for an order or steps of 0, or a tolerance
/// that is negative or NaN; [`Error::Memory`]; [`Error::Eigenvalues`]; [`Error::BlasThreads`].
pub fn extremes<O: Operator + ?Sized>(operator: &mut O, options: &Options) -> Result<Extremes, O::Error> {
    let mut krylov = Krylov::new(operator, options.steps)?;
    in_range(options.tolerance >= 0.0, "tolerance", "a number from 0 on", options.tolerance)?;
    let _one = one_blas_thread()?;
    let mut generator = Generator::new(options.seed);
    let mut blocks = Blocks::new(options, krylov.n);
    let mut beta = krylov.start(&mut generator);
    loop {
        beta = krylov.step(beta, operator)?;
        let invariant = beta <= krylov.negligible();
        let last = krylov.products == options.steps || krylov.m() == krylov.n;
        if !invariant && !last && krylov.m() < blocks.due {
            continue;
        }
        let ritz = blocks.ritz_pairs(&krylov, beta)?;
        let settled = blocks.are_settled(&ritz);
        let done = settled && blocks.complete(&ritz, invariant);
        if done || last {
            return Ok(blocks.extremes(&ritz, done));
        }
        // A copy is as far from the rest as the first of its kind, so it needs no more steps than
        // the first to show itself. If as few steps lead to the whole space, they are better.
        let length = if blocks.before.is_empty() { krylov.m() } else { blocks.first };
        if invariant || (settled && length < krylov.n - krylov.m()) {
            let kept: Vec<usize> = (0..krylov.m()).filter(|&i| invariant || ritz.error(i) <= ritz.allowed).collect();
            let errors = kept.iter().map(|&i| ritz.error(i)).collect();
            let (vectors, values) = (ritz.s.select(Axis(1), &kept), ritz.theta.to_vec());
            krylov.keep(&vectors, errors);
            blocks.next(length, values, krylov.m());
            beta = krylov.start(&mut generator);
        }
    }
}

/// The Ritz pairs at one order of h.
struct RitzPairs<'a> {
    krylov: &'a Krylov,
    beta: f64,
    /// The Ritz values in ascending order.
    theta: Array1<f64>,
    /// The coordinates of the Ritz vectors in the basis, in columns.
    s: Array2<f64>,
    /// The largest error of a pair that has converged.
    allowed: f64,
}

impl RitzPairs<'_> {
    /// A bound on ‖A x − θ x‖ of pair i.
    fn error(&self, i: usize) -> f64 {
        self.krylov.residual(self.beta, self.s.column(i)).max(self.krylov.rounding())
    }
}

/// The blocks of Lanczos steps, each from a random start, in which copies of eigenvalues are found.
struct Blocks {
    largest: usize,
    smallest: usize,
    tolerance: f64,
    /// Whether copies are looked for at all.
    repeated: bool,
    /// The number of steps of the first block; 0 while it lasts.
    first: usize,
    /// All θ at the end of the block before; empty in the first.
    before: Vec<f64>,
    /// The order of h at which this block has had as many steps as the first.
    whole: usize,
    /// The order of h at which the Ritz pairs are computed next.
    due: usize,
    /// max |θ| so far.
    size: f64,
}

impl Blocks {
    fn new(options: &Options, n: usize) -> Self {
        let (largest, smallest) = (options.largest.min(n), options.smallest.min(n));
        Self {
            largest,
            smallest,
            tolerance: options.tolerance,
            repeated: options.repeated && largest.max(smallest) > 1,
            first: 0,
            before: Vec::new(),
            whole: 0,
            due: 1,
            size: 0.0,
        }
    }

    /// Solves the eigenproblem of h. It is of order m³, so it is not due at every step when m is
    /// large.
    fn ritz_pairs<'k>(&mut self, krylov: &'k Krylov, beta: f64) -> Result<RitzPairs<'k>, Error> {
        let m = krylov.m();
        self.due = m + 1 + m / 16;
        let (theta, s) = krylov.ritz()?;
        self.size = self.size.max(theta[0].abs()).max(theta[m - 1].abs());
        let allowed = (self.tolerance * self.size).max(krylov.rounding());
        Ok(RitzPairs { krylov, beta, theta, s, allowed })
    }

    /// Where the pairs that are asked for stand in m: those from the top, and those from the
    /// bottom.
    fn asked_for(&self, m: usize) -> [Range<usize>; 2] {
        [m - self.largest.min(m)..m, 0..self.smallest.min(m)]
    }

    /// Whether all pairs that are asked for have converged.
    fn are_settled(&self, ritz: &RitzPairs) -> bool {
        let (m, [top, bottom]) = (ritz.theta.len(), self.asked_for(ritz.theta.len()));
        m >= self.largest.max(self.smallest) && top.chain(bottom).all(|i| ritz.error(i) <= ritz.allowed)
    }

    /// Whether no copy can be missing. A block says nothing by what it has not shown before it has
    /// had as many steps as the first, or as many as there are.
    fn complete(&self, ritz: &RitzPairs, invariant: bool) -> bool {
        let (m, n) = (ritz.theta.len(), ritz.krylov.n);
        m == n || !self.repeated || ((invariant || m >= self.whole) && !self.has_new(ritz))
    }

    /// Whether a θ that is asked for has changed since the block before.
    fn has_new(&self, ritz: &RitzPairs) -> bool {
        let (theta, before, m) = (&ritz.theta, &self.before, ritz.theta.len());
        let new = |now: f64, before: Option<&f64>| before.is_none_or(|before| (now - before).abs() > ritz.allowed);
        (1..=self.largest).any(|i| new(theta[m - i], before.iter().nth_back(i - 1)))
            || (0..self.smallest).any(|i| new(theta[i], before.get(i)))
    }

    /// Begins the next block, of `length` steps at least, with `kept` pairs in the basis.
    fn next(&mut self, length: usize, theta: Vec<f64>, kept: usize) {
        (self.first, self.before) = (length, theta);
        self.whole = kept + length;
        self.due = self.whole;
    }

    fn extremes(&self, ritz: &RitzPairs, converged: bool) -> Extremes {
        let [top, bottom] = self.asked_for(ritz.theta.len());
        let vector = |i: usize| ritz.krylov.basis().t().dot(&ritz.s.column(i));
        let pair = |i: usize| Eigenpair { value: ritz.theta[i], error: ritz.error(i), vector: vector(i) };
        let products = ritz.krylov.products;
        Extremes { largest: top.rev().map(pair).collect(), smallest: bottom.map(pair).collect(), products, converged }
    }
}
