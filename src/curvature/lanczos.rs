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
//! **The operator** knows its order and must be symmetric. Of a symmetric one the two sides of the diagonal of h, which are computed
//! from different products, differ by rounding; of any other by more. The difference is in the bounds on the errors, and one that no
//! rounding explains is refused. Calls of BLAS that the operator makes run on one thread.
//!
//! ```
//! use gemmprop::lanczos::{Options, extremes, from_fn};
//!
//! let diagonal = ndarray::array![3.0, -5.0, 1.0];
//! let mut operator = from_fn(3, |v, mut av| Ok::<(), gemmprop::Error>(av.assign(&(&v * &diagonal))));
//! let spectrum = extremes(&mut operator, &Options::default())?;
//! assert!((spectrum.largest[0].value - 3.0).abs() < 1e-12 && (spectrum.smallest[0].value + 5.0).abs() < 1e-12);
//! # Ok::<(), gemmprop::Error>(())
//! ```

use ndarray::linalg::general_mat_vec_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};
use ndarray_linalg::{EighInto, UPLO};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::Error;
use crate::linalg::blas::one_blas_thread;

/// A symmetric operator A of which the products with vectors are known.
pub trait Operator {
    /// What a product may fail with; it comes through.
    type Error: From<Error>;

    /// How many numbers a vector has.
    fn order(&self) -> usize;

    /// `av` = A v. Both have [`order`](Self::order) numbers; `av` holds zeros before.
    ///
    /// # Errors
    /// The operator's own.
    fn apply(&mut self, v: ArrayView1<f64>, av: ArrayViewMut1<f64>) -> Result<(), Self::Error>;

    /// Products are good to about this times ‖A‖: the machine epsilon of the numbers that they are computed in.
    fn epsilon(&self) -> f64 {
        f64::EPSILON
    }
}

/// An operator of this order whose products a function writes into its second argument, which holds zeros.
pub fn from_fn<A, E>(order: usize, apply: A) -> FromFn<A>
where
    A: FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
{
    FromFn { order, apply }
}

/// See [`from_fn`].
#[derive(Debug, Clone)]
pub struct FromFn<A> {
    order: usize,
    apply: A,
}

impl<A, E: From<Error>> Operator for FromFn<A>
where
    A: FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
{
    type Error = E;

    fn order(&self) -> usize {
        self.order
    }

    fn apply(&mut self, v: ArrayView1<f64>, av: ArrayViewMut1<f64>) -> Result<(), E> {
        (self.apply)(v, av)
    }
}

/// What [`extremes`] looks for, and how far it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many eigenvalues from the top.
    pub largest: usize,
    /// How many from the bottom, the most negative ones.
    pub smallest: usize,
    /// Stop when all error bounds are at most this times max |θ|, or at most what rounding leaves of them.
    pub tolerance: f64,
    /// Stop after so many products in any case. Each that is made keeps a vector of length n in memory.
    pub steps: usize,
    /// Count an eigenvalue as often as it occurs. About doubles the products; looked at if more than one is asked for at an end.
    pub repeated: bool,
    /// Of the random start vectors.
    pub seed: u64,
}

impl Default for Options {
    /// SingleStep at each end, to six digits, in at most 200 products.
    fn default() -> Self {
        Self { largest: 1, smallest: 1, tolerance: 1e-6, steps: 200, repeated: true, seed: 0 }
    }
}

/// An approximate eigenvalue and eigenvector.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigenpair {
    /// θ
    pub value: f64,
    /// A bound on ‖A x − θ x‖, thus on the distance from θ to the nearest eigenvalue of A. That is a theorem for symmetric A, up to the
    /// errors of the products and of adding up; it is never below mε‖A‖, with m the order of h and the operator's
    /// [`epsilon`](Operator::epsilon). That no eigenvalue further out has been missed is no theorem, but what random start vectors make
    /// very likely.
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
    /// Whether all that was asked for is there, within the tolerance; with [`Options::repeated`], copies as well: a block that had as
    /// many steps as the first has found no more.
    pub converged: bool,
}

/// The mean of random samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error, of the random probes alone; infinite for a single sample, which does not tell.
    pub standard_error: f64,
    /// How far the quadratures may be off, which more probes do not change: the mean distance of each probe's from that of half as many
    /// nodes. An estimate and no bound: of a function that is not smooth over the spectrum, as ln where eigenvalues are near
    /// 0, the quadrature can be off by several times that. 0 where it is exact, infinite for a single step, which does not tell.
    pub quadrature_error: f64,
}

impl Estimate {
    /// Of samples, each with its quadrature's error.
    fn of(samples: &[(f64, f64)]) -> Self {
        let count = samples.len() as f64;
        // Welford's mean: of equal samples it is exactly their value.
        let mean = |of: fn(&(f64, f64)) -> f64| {
            samples.iter().map(of).zip(1..).fold(0.0, |mean, (x, i)| mean + (x - mean) / f64::from(i))
        };
        let value = mean(|sample| sample.0);
        let of_many = norm(&samples.iter().map(|sample| sample.0 - value).collect()) / (count * (count - 1.0)).sqrt();
        let standard_error = if count > 1.0 { of_many } else { f64::INFINITY };
        // A mean of infinities is NaN in Welford's form.
        let quadrature_error = if samples.iter().any(|sample| sample.1 == f64::INFINITY) {
            f64::INFINITY
        } else {
            mean(|sample| sample.1)
        };
        Self { value, standard_error, quadrature_error }
    }
}

/// Nodes of a quadrature, from the bottom up: θ and its weight s\[0\]². The weights add up to 1.
type Nodes = Vec<(f64, f64)>;

/// The spectral density Σ δ(λ − λ_i)/n as quadratures, one for each random probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Density {
    /// Of each probe the nodes, from the bottom up: θ and its weight s\[0\]². The weights of a probe add up to 1.
    pub probes: Vec<Vec<(f64, f64)>>,
    /// The quadratures after half of each probe's steps; none of an exact one, and no nodes of one of a single step.
    coarse: Vec<Option<Nodes>>,
}

impl Density {
    /// (1/n) tr f(A), the mean of f over the spectrum.
    pub fn mean(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let quadrature = |nodes: &Nodes| nodes.iter().map(|&(theta, weight)| weight * f(theta)).sum::<f64>();
        let of_probe = |(nodes, coarse): (&Nodes, &Option<Nodes>)| {
            let value = quadrature(nodes);
            let error = match coarse {
                None => 0.0,
                Some(coarse) if coarse.is_empty() => f64::INFINITY,
                Some(coarse) => (value - quadrature(coarse)).abs(),
            };
            (value, error)
        };
        Estimate::of(&self.probes.iter().zip(&self.coarse).map(of_probe).collect::<Vec<_>>())
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

/// The largest and the smallest eigenvalues of a symmetric operator, with bounds on their errors.
///
/// # Errors
/// Those of the operator; [`Error::Operator`] for a product that is not finite; [`Error::NotSymmetric`];
/// [`Error::Hyperparameter`] for an order or steps of 0, or a tolerance that is negative or NaN; [`Error::Memory`];
/// [`Error::Eigenvalues`]; [`Error::BlasThreads`].
pub fn extremes<O: Operator + ?Sized>(operator: &mut O, options: &Options) -> Result<Extremes, O::Error> {
    let Options { tolerance, steps, repeated, seed, .. } = *options;
    let mut krylov = Krylov::new(operator, steps)?;
    let n = krylov.n;
    in_range(tolerance >= 0.0, "tolerance", "a number from 0 on", tolerance)?;
    let _one = one_blas_thread()?;
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let [largest, smallest] = [options.largest, options.smallest].map(|count| count.min(n));
    let most = largest.max(smallest);
    // The θ at the end of the block before, the number of steps of the first, the order of h at which this one has had as many, when
    // the next θ are due, and max |θ| so far.
    let (mut before, mut first, mut whole, mut due, mut size) = (Vec::new(), 0, 0, 1, 0.0_f64);
    let mut beta = krylov.start(&mut generator);
    loop {
        beta = krylov.step(beta, operator)?;
        let m = krylov.m();
        let (invariant, last) = (beta <= krylov.negligible(), krylov.products == steps || m == n);
        if !invariant && !last && m < due {
            continue;
        }
        // The eigenproblem is of order m³: not at every step when m is large.
        due = m + 1 + m / 16;
        let (theta, s) = krylov.ritz()?;
        size = size.max(theta[0].abs()).max(theta[m - 1].abs());
        let rounding = krylov.rounding();
        let allowed = (tolerance * size).max(rounding);
        let error = |i: usize| krylov.residual(beta, s.column(i)).max(rounding);
        let (top, bottom) = (m - largest.min(m)..m, 0..smallest.min(m));
        let settled = m >= most && top.clone().chain(bottom.clone()).all(|i| error(i) <= allowed);
        let new = |now: f64, before: Option<&f64>| before.is_none_or(|before| (now - before).abs() > allowed);
        let block_was_new = || {
            (1..=largest).any(|i| new(theta[m - i], before.iter().nth_back(i - 1)))
                || (0..smallest).any(|i| new(theta[i], before.get(i)))
        };
        // What a block has not shown says nothing before it has had as many steps as the first, or all that there are.
        let block_adds_nothing = || (invariant || m >= whole) && !block_was_new();
        let done = settled && (m == n || !repeated || most < 2 || block_adds_nothing());
        if done || last {
            let vector = |i: usize| krylov.basis().t().dot(&s.column(i));
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
            (first, before) = (length, theta.to_vec());
            whole = krylov.m() + length;
            due = whole;
            beta = krylov.start(&mut generator);
        }
    }
}

/// tr A as the mean of zᵀ A z over so many vectors z of random signs. The diagonal of A adds nothing to the standard error, and no
/// quadrature is needed.
///
/// # Errors
/// As [`extremes`], for an order or probes of 0.
pub fn trace<O: Operator + ?Sized>(operator: &mut O, probes: usize, seed: u64) -> Result<Estimate, O::Error> {
    let n = operator.order() as f64;
    // After one step θ = zᵀ A z/n, with weight 1.
    Ok(Estimate { quadrature_error: 0.0, ..density(operator, probes, 1, seed)?.mean(|theta| n * theta) })
}

/// The spectral density, from so many random probes of so many steps each.
///
/// # Errors
/// As [`extremes`], for an order, probes or steps of 0.
pub fn density<O: Operator + ?Sized>(
    operator: &mut O,
    probes: usize,
    steps: usize,
    seed: u64,
) -> Result<Density, O::Error> {
    let mut krylov = Krylov::new(operator, steps)?;
    in_range(probes > 0, "probes", "at least 1", 0.0)?;
    let _one = one_blas_thread()?;
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut density = Density { probes: Vec::new(), coarse: Vec::new() };
    for _ in 0..probes {
        krylov.forget();
        krylov.w.map_inplace(|w| *w = if generator.random() { 1.0 } else { -1.0 });
        let mut beta = norm(&krylov.w);
        let mut coarse = Nodes::new();
        // In an invariant subspace the quadrature is exact, and so it is in the whole space.
        let exact = loop {
            beta = krylov.step(beta, operator)?;
            let m = krylov.m();
            if m == krylov.n || beta <= krylov.negligible() {
                break true;
            }
            if m == steps / 2 {
                coarse = krylov.nodes()?;
            }
            if m == steps {
                break false;
            }
        };
        density.probes.push(krylov.nodes()?);
        density.coarse.push((!exact).then_some(coarse));
    }
    Ok(density)
}

/// An orthonormal basis that grows by Lanczos steps, and h.
struct Krylov {
    n: usize,
    epsilon: f64,
    /// The v[j], one after the other: (m, n).
    basis: Vec<f64>,
    /// The columns of h down to its diagonal: h[j][i] = v[i]ᵀ A v[j] for i ≤ j.
    h: Vec<Array1<f64>>,
    /// The β that each v[j] was divided by.
    beta: Vec<f64>,
    kept: Vec<f64>, // ‖A x − θ x‖ of the kept Ritz vectors, which are the first of the basis
    w: Array1<f64>, // (n), orthogonal to the basis: the direction of the next v
    scale: f64,     // the largest |h| and β met: at most ‖A‖, and soon of its size
    products: usize,
}

/// Coefficients of h on both sides of the diagonal that differ by more than this, of the largest number in h, are no rounding: 10⁻³, where
/// the products of a network in `f32` are good to some 10⁻⁶.
const ASYMMETRY: f64 = 1e-3;

impl Krylov {
    fn new<O: Operator + ?Sized>(operator: &O, steps: usize) -> Result<Self, Error> {
        let (n, epsilon) = (operator.order(), operator.epsilon());
        in_range(n > 0, "order", "at least 1", 0.0)?;
        in_range(steps > 0, "steps", "at least 1", 0.0)?;
        let mut w = Vec::new();
        w.try_reserve_exact(n).map_err(|_| Error::Memory { what: "a vector", numbers: n })?;
        w.resize(n, 0.0);
        let (basis, h, beta, kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { n, epsilon, basis, h, beta, kept, w: w.into(), scale: 0.0, products: 0 })
    }

    /// The order of h.
    fn m(&self) -> usize {
        self.h.len()
    }

    fn basis(&self) -> ArrayView2<'_, f64> {
        ArrayView2::from_shape((self.m(), self.n), &self.basis).expect("m vectors")
    }

    /// Begins anew, in the memory that it has.
    fn forget(&mut self) {
        self.basis.clear();
        self.h.clear();
        self.beta.clear();
        self.kept.clear();
        self.scale = 0.0;
    }

    /// A β up to this is taken for 0: rounding errors of a product add up to about √n ε‖A‖. Noise a little above it is a random
    /// direction like any other. Directions of subnormal numbers would not be orthogonal.
    fn negligible(&self) -> f64 {
        ((self.n as f64).sqrt() * f64::EPSILON * self.scale).max(f64::MIN_POSITIVE / f64::EPSILON)
    }

    /// What is left of the errors of h when all else is exact: those of the products, and of its eigenvalues.
    fn rounding(&self) -> f64 {
        self.m() as f64 * self.epsilon * self.scale
    }

    /// A random direction; returns its norm.
    fn start(&mut self, generator: &mut ChaCha8Rng) -> f64 {
        self.w.map_inplace(|w| *w = StandardNormal.sample(generator));
        self.orthogonalise();
        norm(&self.w)
    }

    /// w ← w − V Vᵀ w, once for the numbers and once more for their rounding; returns what has been taken off, Vᵀ w.
    fn orthogonalise(&mut self) -> Array1<f64> {
        let v = ArrayView2::from_shape((self.basis.len() / self.n, self.n), &self.basis).expect("whole vectors");
        let mut taken = Array1::zeros(v.nrows());
        for _ in 0..2 {
            let h = v.dot(&self.w);
            general_mat_vec_mul(-1.0, &v.t(), &h, 1.0, &mut self.w);
            taken += &h;
        }
        taken
    }

    /// v[m] = w/β and w = A v[m] without its part in the basis; returns the next β, the norm of w.
    fn step<O: Operator + ?Sized>(&mut self, beta: f64, operator: &mut O) -> Result<f64, O::Error> {
        let (m, n) = (self.m(), self.n);
        // Room for some more, or at least for this one.
        let room = self.basis.try_reserve(n).or_else(|_| self.basis.try_reserve_exact(n));
        room.map_err(|_| Error::Memory { what: "the basis", numbers: n.saturating_mul(m + 1) })?;
        self.basis.extend(self.w.iter().map(|w| w / beta));
        self.w.fill(0.0);
        operator.apply(ArrayView1::from(&self.basis[m * n..]), self.w.view_mut())?;
        // With n w finite, sums of n such numbers and norms are.
        if let Some(component) = self.w.iter().position(|w| !(w * n as f64).is_finite()) {
            return Err(Error::Operator { product: self.products, component, found: self.w[component] }.into());
        }
        self.products += 1;
        let column = self.orthogonalise();
        let next = norm(&self.w);
        self.scale = column.fold(self.scale.max(next), |scale, h| scale.max(h.abs()));
        self.h.push(column);
        self.beta.push(beta);
        let other = (0..m).map(|i| self.asymmetry(m, i).abs()).fold(0.0, f64::max);
        if other > ASYMMETRY * self.scale {
            let Self { products, scale, .. } = *self;
            return Err(Error::NotSymmetric { product: products - 1, difference: other, size: scale }.into());
        }
        Ok(next)
    }

    /// v[i]ᵀ A v[j] − v[j]ᵀ A v[i] for i < j, of which the first was computed at step j and the second is known from step i: β next to
    /// the diagonal, 0 further away. Of a kept x_i its size is all that is known: it is at most ‖A x_i − θ x_i‖.
    fn asymmetry(&self, j: usize, i: usize) -> f64 {
        let (found, fixed) = (self.h[j][i], self.kept.len());
        if j < fixed {
            0.0
        } else if i < fixed {
            (found.abs() - self.kept[i]).max(0.0)
        } else if i + 1 == j {
            found - self.beta[j]
        } else {
            found
        }
    }

    /// h in full, `fixed` of its vectors left as they are.
    fn symmetric(&self, fixed: usize) -> Array2<f64> {
        let entry = |(i, j): (usize, usize)| if i == j || i.min(j) >= fixed { self.h[i.max(j)][i.min(j)] } else { 0.0 };
        Array2::from_shape_fn((self.m(), self.m()), entry)
    }

    /// Goes on with these Ritz vectors alone, and leaves them as they are.
    fn keep(&mut self, s: &Array2<f64>, errors: Vec<f64>) {
        // Some columns at a time: a copy of the whole basis might not fit.
        const COLUMNS: usize = 4096;
        let mut v = ArrayViewMut2::from_shape((self.h.len(), self.n), &mut self.basis).expect("m vectors");
        for mut v in v.axis_chunks_iter_mut(Axis(1), COLUMNS) {
            let x = s.t().dot(&v);
            v.slice_mut(s![..errors.len(), ..]).assign(&x);
        }
        let h = s.t().dot(&self.symmetric(0)).dot(s);
        self.h = (0..errors.len()).map(|j| h.slice(s![..=j, j]).to_owned()).collect();
        self.basis.truncate(errors.len() * self.n);
        self.beta.truncate(errors.len());
        self.kept = errors;
    }

    /// θ in ascending order, and their s in columns.
    fn ritz(&self) -> Result<(Array1<f64>, Array2<f64>), Error> {
        // In the whole space h is all of A, and the kept vectors are no longer left as they are.
        let fixed = if self.m() == self.n { 0 } else { self.kept.len() };
        let h = self.symmetric(fixed);
        h.eigh_into(UPLO::Lower).map_err(|error| Error::Eigenvalues { order: self.m(), reason: error.to_string() })
    }

    /// The quadrature after the steps made.
    fn nodes(&self) -> Result<Nodes, Error> {
        let (theta, s) = self.ritz()?;
        Ok(theta.iter().zip(s.row(0)).map(|(&theta, s)| (theta, s * s)).collect())
    }

    /// A bound on ‖A x − θ x‖ for x = V s: what h lacks on the side of the diagonal that it is not made from, what it leaves out
    /// beside the kept pairs, and what lies outside of the basis.
    fn residual(&self, beta: f64, s: ArrayView1<f64>) -> f64 {
        let m = self.m();
        let lacks = norm(&(0..m).map(|j| (0..j).map(|i| self.asymmetry(j, i) * s[i]).sum()).collect());
        if m == self.n {
            return lacks;
        }
        let fixed = self.kept.len();
        let left_out = norm(&(0..fixed).map(|i| (fixed..m).map(|j| self.h[j][i] * s[j]).sum()).collect());
        let outside = self.kept.iter().zip(&s).fold(beta * s[m - 1].abs(), |sum, (error, s)| sum + error * s.abs());
        outside + left_out + lacks
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
