//! What rounding can do to a gradient: a bound for each number of it, rigorous and computed beside
//! it.
//!
//! A gradient of backpropagation is a long computation in a short number type. The functions here
//! compute it again, in double precision and plain loops, and carry along how far from the exact
//! number any computation in the network's own type may be: in whatever order it adds up, with or
//! without fused multiply–adds. A gradient that is further away is wrong.
//!
//! ```
//! use gemmprop::rungs::{batched, bounds};
//! use gemmprop::{Bias, Mlp, SquaredError};
//! use ndarray::array;
//!
//! let mlp = Mlp::<f32>::he(&[2, 16, 1], Bias::Input, 1)?;
//! let (x, y) = (array![[0.5, -1.0], [2.0, 0.25]], array![1.0, -1.0]);
//! let mut g = mlp.zero_gradient();
//! batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, &mut g)?;
//! let exact = bounds::loss_gradient(&mlp, x.view(), y.view(), &SquaredError)?;
//! assert_eq!(exact.gradient.first_outside(&g)?, None);
//! // A number that is off by a thousandth is caught.
//! g.alpha_mut().map_inplace(|g| *g *= 1.001);
//! assert!(exact.gradient.first_outside(&g)?.is_some());
//! # Ok::<(), gemmprop::Error>(())
//! ```
//!
//! # The equations
//!
//! This is running error analysis (Higham 2002, *Accuracy and Stability of Numerical Algorithms*,
//! 2nd ed., §3.3) with the bound of inner products for any order (§3.1, §4.2). With u the unit
//! roundoff of the type, 2⁻²⁴ or 2⁻⁵³, and γ(k) = ku/(1 − ku): a number that goes through k
//! roundings is off by γ(k) times itself at most, so a sum by γ(k) times the sum of the sizes of
//! its terms, where none goes through more than k.
//!
//! A star is the exact value, a hat that of a computation, a bar that of the loops in double
//! precision. Both of these round by u or less, so one bound e holds for both: |ẑ − z*| ≤ e and
//! |z̄ − z*| ≤ e, hence |ẑ| ≤ |z̄| + 2e, here written ⌈z⌉.
//!
//! ```text
//! forward    e[t+1] = |w| e[t] + γ(n+1) (|w| ⌈z[t]⌉ + |c|)      n: the z[t] that are not 0
//! masks      on where u > 2e, off where u < −2e: z is then 0 in every computation
//!            uncertain else
//! loss       what the loss makes of e, and its own rounding: BoundedLoss
//! backward   g[t] = |w|ᵀ g[t+1] + γ(n) |w|ᵀ ⌈δ[t+1]⌉            n: the δ[t+1] that are not 0
//!            behind the mask; where that is uncertain, |wᵀδ[t+1]| + 2g
//! gradient   (1/B) Σ ( g ⌈z⌉ + (|δ| + g) e + γ(B+3) ⌈δ⌉ ⌈z⌉ )
//! update     η times that, and γ(3) (|βθ| + η ⌈g⌉), for what an optimiser makes of g
//!            in plain descent, γ(B+6) η ⌈δ⌉⌈z⌉ and γ(B+2) |βθ|: BLAS adds up on top of θ
//! R forward  as forward, of the two sums v z and w R z; R backward likewise
//! H v        as gradient, of the two terms R δ zᵀ and δ R zᵀ, with γ(2B+4)
//! ```
//!
//! With [`Products::Native`](crate::Products::Native) the sums are the chains that
//! `docs/kernels.md` describes, and shorter: γ(n) forward, since a chain starts from c; for B
//! samples, min(B, 2048) + ⌈B/2048⌉ − 1 in place of B; 3 in place of B + 2, since θ is added once.
//! The bounds are then those of native products alone. With `Blas` and `Auto` they hold for any
//! order, that of native products too. Rung 1 adds up along paths from the other end, and has a
//! bound of its own, [`GradientBounds::naive`].
//!
//! A mask that rounding decides ([`UncertainMask`]) is no error of a computation, and widens the
//! bounds: they stay true, but may be as large as the gradient that comes through that neuron. The
//! result lists such masks.
//!
//! **Exact** are ReLU, masks, products with 0 and sums with 0, and a constant that starts a chain.
//! **Counted** are the evaluation of the bounds themselves in double precision, and underflow, as a
//! loss of the smallest normal number by each product: so results may be flushed to 0. Not counted
//! are underflow in rung 1, and that by a factor η of plain descent below 2⁻²³ (`f32`) or 2⁻⁵²
//! (`f64`). **Assumed** are rounding to nearest, no overflow, an exponential and a logarithm good
//! to 4 ulp, as those of the crate libm are, and BLAS products of the usual kind, not Strassen's.
//! θ, x and y are taken as they are, thus x as the network reads it, standardised if it is.
//!
//! One gradient costs as much as rung 2 several times over, on one thread.

use ndarray::{Array2, ArrayView2, Ix2};

use crate::error::{Error, Result};
use crate::linalg::layout::copied;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Targets, check_targets};
use crate::network::mlp::{Mlp, check_outputs};
use crate::network::parameters::Parameters;
use crate::rungs::rounding::or_none;
use crate::rungs::sample_bounds::{Mask, Network, Numbers, Pass, Sums, add_naive, widened};
use crate::rungs::step_bounds::{Fused, uphill};
use crate::rungs::tangent_bounds::{Tangents, roundings};
use crate::rungs::trace::Trace;

pub use crate::rungs::loss_bounds::{BoundedLoss, LossBounds};
pub use crate::rungs::rounding::{Bounded, Outside, gamma};
pub use crate::rungs::step_bounds::{GradientBounds, StepBounds, UncertainMask};

/// The forward pass of a batch with its bounds.
#[derive(Debug, Clone)]
pub struct ForwardBounds {
    /// u, z and ŷ of all neurons, and how far those of any rung, and predictions, may be from the
    /// exact ones.
    pub trace: Bounded<Trace<f64, Ix2>>,
    /// The masks that rounding decides.
    pub uncertain: Vec<UncertainMask>,
}

/// H v with its bounds.
#[derive(Debug, Clone)]
pub struct HessianBounds {
    /// H v, and how far that of [`Hessian::apply`](crate::curvature::Hessian::apply) may be from
    /// the exact one.
    pub product: Bounded<Parameters<f64>>,
    /// The masks that rounding decides.
    pub uncertain: Vec<UncertainMask>,
}

/// u, z and ŷ of a batch x, (B, `d[0]`), with their bounds.
///
/// # Errors
/// [`Error::Shape`], [`Error::NoSamples`] or [`Error::NotFinite`] for an x that does not fit;
/// [`Error::Output`] for a ŷ that is not finite.
pub fn forward<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Result<ForwardBounds> {
    mlp.check_batch(x)?;
    let (network, samples) = (Network::new(mlp, x.nrows()), x.nrows());
    let passes: Vec<Pass> = (0..samples).map(|row| network.forward(sample(x, row))).collect();
    let rows = |of: &dyn Fn(&Pass) -> &Numbers| {
        let width = of(&passes[0]).value.len();
        let array = |part: fn(&Numbers) -> &Vec<f64>| {
            Array2::from_shape_fn((samples, width), |(row, j)| part(of(&passes[row]))[j])
        };
        Bounded { value: array(|numbers| &numbers.value), bound: array(|numbers| &numbers.bound) }
    };
    let [mut value, mut bound] = [(); 2].map(|()| Trace { u: Vec::new(), z: Vec::new(), y_hat: Array2::zeros((0, 0)) });
    for t in 0..=mlp.depth() {
        if t > 0 {
            let u = rows(&|pass| &pass.u[t - 1]);
            value.u.push(u.value);
            bound.u.push(u.bound);
        }
        let z = rows(&|pass| &pass.z[t]);
        value.z.push(z.value);
        bound.z.push(z.bound);
    }
    let y_hat = rows(&|pass| &pass.y_hat);
    (value.y_hat, bound.y_hat) = (y_hat.value, y_hat.bound);
    check_outputs(value.y_hat.view())?;
    let uncertain = passes.iter().enumerate().flat_map(|(row, pass)| uncertain(row, pass)).collect();
    Ok(ForwardBounds { trace: Bounded { value, bound }, uncertain })
}

/// Σ over the batch of ∂ŷ_k/∂θ, with its bounds.
///
/// # Errors
/// As [`forward`].
///
/// # Panics
/// If there is no output k.
pub fn output_gradient<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>, k: usize) -> Result<GradientBounds> {
    assert!(k < mlp.outputs(), "output {k} of a network with {}", mlp.outputs());
    mlp.check_batch(x)?;
    let network = Network::new(mlp, x.nrows());
    let seed = |_: usize, _: &Pass| {
        let mut dy = Numbers::exact(vec![0.0; mlp.outputs()]);
        dy.value[k] = 1.0;
        (dy, Bounded { value: 0.0, bound: 0.0 })
    };
    gradient(&network, x, seed, 1.0)
}

/// (1/B) Σ ∇θ ℓ(ŷ, y), the mean over the batch, with its bounds, and the mean ℓ.
///
/// # Errors
/// As [`forward`]; [`Error::Length`], [`Error::Outputs`], [`Error::Label`] or [`Error::Target`] for
/// a y that does not fit; [`Error::Diverged`] for a loss of NaN.
pub fn loss_gradient<'y, F: Scalar, L: BoundedLoss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: impl Targets<'y, L::Target>,
    loss: &L,
) -> Result<GradientBounds>
where
    L::Target: 'y,
{
    let y = checked(mlp, x, y.rows(), loss)?;
    mean_gradient(&Network::new(mlp, x.nrows()), x, y.view(), loss)
}

/// The gradient that sharpness-aware minimisation steps with
/// ([`TrainingSettings::sam`](crate::TrainingSettings::sam)), that at θ + ρ g/‖g‖, with its bounds;
/// the loss is that at θ. Computations go to points of their own, each within a bound of that one,
/// and the gradient's bounds hold for all of them. Rung 1 is not served.
///
/// # Errors
/// As [`loss_gradient`].
pub fn sam_gradient<'y, F: Scalar, L: BoundedLoss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: impl Targets<'y, L::Target>,
    loss: &L,
    rho: f64,
) -> Result<GradientBounds>
where
    L::Target: 'y,
{
    let y = checked(mlp, x, y.rows(), loss)?;
    let mut network = Network::new(mlp, x.nrows());
    let here = mean_gradient(&network, x, y.view(), loss)?;
    uphill::<F>(&mut network, &here.gradient, rho);
    let mut there = mean_gradient(&network, x, y.view(), loss)?;
    there.loss = here.loss;
    there.naive.iter_mut().for_each(|naive| *naive = f64::INFINITY);
    there.uncertain.extend(here.uncertain);
    there.uncertain.sort_unstable();
    there.uncertain.dedup();
    Ok(there)
}

/// H v with its bounds, where H is the Hessian of the mean loss of the batch, as
/// [`Hessian`](crate::curvature::Hessian) has it.
///
/// # Errors
/// As [`loss_gradient`], and [`Error::Shape`] for a `v` of another network.
pub fn hessian_product<'y, F: Scalar, L: BoundedLoss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: impl Targets<'y, L::Target>,
    loss: &L,
    v: &Parameters<F>,
) -> Result<HessianBounds>
where
    L::Target: 'y,
{
    let y = checked(mlp, x, y.rows(), loss)?;
    let y = y.view();
    mlp.parameters().check_shape_of("v", v)?;
    let network = Network::new(mlp, x.nrows());
    let tangents = Tangents { network: &network, v: widened(v) };
    let (mut sums, mut found) = (Sums::new(&network), Vec::new());
    let scale = x.nrows() as f64;
    for row in 0..x.nrows() {
        let pass = network.forward(sample(x, row));
        check_finite(row, &pass)?;
        let y = targets(&y, row);
        let r_z = tangents.forward(&pass);
        let dy = loss.bounds(&pass.y_hat, y).derivative;
        let r_dy = loss.second_derivative_bounds(&pass.y_hat, y, &r_z[mlp.depth() + 1]);
        let [dy, r_dy] = [dy, r_dy].map(|dy| network.scaled(dy, scale));
        let deltas = network.backward(&pass, dy, scale);
        let r_deltas = tangents.backward(&pass, &deltas, r_dy, scale);
        tangents.add(&pass, &r_z, [&deltas, &r_deltas], network.tiny * scale, &mut sums);
        found.extend(uncertain(row, &pass));
    }
    let product = sums.divided(scale).bounded(&network, roundings(network.order, x.nrows()));
    Ok(HessianBounds { product, uncertain: found })
}

/// The targets of a row of what [`checked`] returns.
fn targets<'a, T>(y: &'a ArrayView2<T>, row: usize) -> &'a [T] {
    y.row(row).to_slice().expect("row-major targets")
}

/// Refuses a batch that does not fit; y, row by row.
fn checked<F: Scalar, L: BoundedLoss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: ArrayView2<L::Target>,
    loss: &L,
) -> Result<Array2<L::Target>> {
    mlp.check_batch(x)?;
    check_targets(loss, y, x.nrows(), mlp.outputs())?;
    Ok(copied(y))
}

fn mean_gradient<F: Scalar, L: BoundedLoss<F>>(
    network: &Network,
    x: ArrayView2<F>,
    y: ArrayView2<L::Target>,
    loss: &L,
) -> Result<GradientBounds> {
    let seed = |row: usize, pass: &Pass| {
        let bounds = loss.bounds(&pass.y_hat, targets(&y, row));
        (network.scaled(bounds.derivative, x.nrows() as f64), bounds.value)
    };
    gradient(network, x, seed, x.nrows() as f64)
}

/// Σ over the batch of what the backward pass makes of a sample's ∂, divided by `scale`. `seed`
/// gives ∂ and ℓ of a row.
fn gradient<F: Scalar>(
    network: &Network,
    x: ArrayView2<F>,
    seed: impl Fn(usize, &Pass) -> (Numbers, Bounded<f64>),
    scale: f64,
) -> Result<GradientBounds> {
    let (samples, mut sums) = (x.nrows(), Sums::new(network));
    let (mut loss, mut found) = (Bounded { value: 0.0, bound: 0.0 }, Vec::new());
    for row in 0..samples {
        let pass = network.forward(sample(x, row));
        check_finite(row, &pass)?;
        let (dy, value) = seed(row, &pass);
        let deltas = network.backward(&pass, dy, scale);
        for (t, delta) in (0..=network.depth()).rev().zip(&deltas) {
            sums.add(t, delta, &pass.z[t], network.tiny * scale);
            sums.add_bias(t, delta);
        }
        add_naive(network, &pass, &deltas, samples, &mut sums);
        sums.end_of_sample();
        found.extend(uncertain(row, &pass));
        loss.value += value.value / scale;
        loss.bound += value.bound / scale;
    }
    if loss.value.is_nan() {
        return Err(Error::Diverged { what: "loss", at: None, found: loss.value, last: None });
    }
    // The losses are added up and divided in double precision.
    let of_sum = gamma(samples + 2, f64::EPSILON) * (loss.value.abs() + 2.0 * loss.bound);
    loss.bound = or_none((loss.bound + of_sum) * network.evaluation);
    let (sums, order) = (sums.divided(scale), network.order);
    let gradient = sums.bounded(network, [order.samples(samples, 1), order.bias(samples)]);
    let Sums { handed_on, size, mut naive, .. } = sums;
    naive.iter_mut().for_each(|naive| *naive = or_none(*naive));
    let fused = Some(Fused { handed_on, size, samples, order, evaluation: network.evaluation });
    Ok(GradientBounds { loss, gradient, naive, uncertain: found, fused })
}

/// A row of x in double precision, which is exact.
fn sample<F: Scalar>(x: ArrayView2<F>, row: usize) -> Vec<f64> {
    x.row(row).iter().map(|x| x.to_f64()).collect()
}

/// Refuses an output that is not finite.
fn check_finite(row: usize, pass: &Pass) -> Result<()> {
    match pass.y_hat.value.iter().position(|y_hat| !y_hat.is_finite()) {
        Some(output) => Err(Error::Output { row: Some(row), output, found: pass.y_hat.value[output] }),
        None => Ok(()),
    }
}

fn uncertain(sample: usize, pass: &Pass) -> impl Iterator<Item = UncertainMask> {
    let of_layer = move |(t, masks): (usize, &Vec<Mask>)| {
        let uncertain = masks.iter().enumerate().filter(|&(_, &mask)| mask == Mask::Uncertain);
        let named = uncertain.map(|(neuron, _)| UncertainMask { sample, layer: t + 1, neuron });
        named.collect::<Vec<_>>()
    };
    pass.masks.iter().enumerate().flat_map(of_layer)
}
