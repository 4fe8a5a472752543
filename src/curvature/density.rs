//! Spectral density and trace by stochastic Lanczos quadrature. The equations stand in
//! [`lanczos`](crate::curvature::lanczos).

use ndarray::{Array1, ArrayView1};
use rand::RngExt;

use crate::curvature::krylov::{Krylov, in_range, norm};
use crate::curvature::operator::Operator;
use crate::error::Error;
use crate::linalg::blas::one_blas_thread;
use crate::random::Generator;

/// The mean of random samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The standard error of the mean, due to the random probes alone; infinite for a single
    /// sample, which tells nothing about it.
    pub standard_error: f64,
    /// An estimate of the error of the quadratures, which more probes do not reduce: the mean
    /// distance of each probe's from that of half as many nodes. It is not a bound: for a function
    /// that is not smooth over the spectrum, such as ln with eigenvalues near 0, the quadrature can
    /// be off by several times as much. 0 if the quadrature is exact, infinite for a single step,
    /// which tells nothing about it.
    pub quadrature_error: f64,
}

impl Estimate {
    /// The estimate from samples, each with the error of its quadrature.
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
    /// The nodes of each probe, from the bottom up: θ and its weight s\[0\]². The weights of a
    /// probe add up to 1.
    pub probes: Vec<Vec<(f64, f64)>>,
    /// The quadratures after half of each probe's steps: none for a probe whose quadrature is
    /// exact, and one without nodes for a probe of a single step.
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

    /// The density at each point of the grid, with each node spread to a normal distribution of
    /// standard deviation sigma.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless sigma is finite and positive.
    pub fn smoothed(&self, grid: ArrayView1<f64>, sigma: f64) -> Result<Array1<f64>, Error> {
        in_range(sigma.is_finite() && sigma > 0.0, "sigma", "a finite, positive number", sigma)?;
        let height = 1.0 / (sigma * std::f64::consts::TAU.sqrt());
        let spread = |distance: f64| libm::exp(-0.5 * (distance * distance));
        Ok(grid.mapv(|x| height * self.mean(|value| spread((x - value) / sigma)).value))
    }
}

/// tr A as the mean of zᵀ A z over `probes` vectors z of random signs. The diagonal of A adds
/// nothing to the standard error, and no quadrature is needed.
///
/// # Errors
/// As [`extremes`](crate::curvature::lanczos::extremes), for an order or probes of 0.
pub fn trace<O: Operator + ?Sized>(operator: &mut O, probes: usize, seed: u64) -> Result<Estimate, O::Error> {
    let n = operator.order() as f64;
    // After one step θ = zᵀ A z/n, with weight 1.
    Ok(Estimate { quadrature_error: 0.0, ..density(operator, probes, 1, seed)?.mean(|theta| n * theta) })
}

/// The spectral density, from `probes` random probes of `steps` steps each.
///
/// # Errors
/// As [`extremes`](crate::curvature::lanczos::extremes), for an order, probes or steps of 0.
pub fn density<O: Operator + ?Sized>(
    operator: &mut O,
    probes: usize,
    steps: usize,
    seed: u64,
) -> Result<Density, O::Error> {
    let mut krylov = Krylov::new(operator, steps)?;
    in_range(probes > 0, "probes", "at least 1", 0.0)?;
    let _one = one_blas_thread()?;
    let mut generator = Generator::new(seed);
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
                coarse = nodes(&krylov)?;
            }
            if m == steps {
                break false;
            }
        };
        density.probes.push(nodes(&krylov)?);
        density.coarse.push((!exact).then_some(coarse));
    }
    Ok(density)
}

/// The quadrature after the steps that were made.
fn nodes(krylov: &Krylov) -> Result<Nodes, Error> {
    let (theta, s) = krylov.ritz()?;
    Ok(theta.iter().zip(s.row(0)).map(|(&theta, s)| (theta, s * s)).collect())
}
