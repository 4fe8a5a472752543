//! How sharp a minimum is: operators for the spectra of the Hessian, the largest loss near by, the
//! loss along lines and planes.
//!
//! ```text
//! H v                                                     λ_max, trace, density: by lanczos
//! |D| H |D| v,  D = diag(θ)                               the same, invariant under rescaled layers
//! φ = 100 (max L(θ + y) − L(θ)) / (1 + L(θ))              |y_i| ≤ ε (|θ_i| + 1)
//! max L(θ + δ) − L(θ)                                     ‖δ ⊘ |θ|‖₂ ≤ ρ
//! L(θ + α d),  L(θ + α d + β e)
//! ```
//!
//! Dinh et al. 2017, *Sharp minima can generalize for deep nets*: (w\[t\], c\[t\], w\[t+1\]) → (k
//! w\[t\], k c\[t\], w\[t+1\]/k) with k > 0 leaves a ReLU network's function as it was, yet changes
//! H and φ. |D| H |D| and the maximum over ‖δ ⊘ |θ|‖₂ ≤ ρ stay: each derivative is taken in units
//! of its parameter. With k a power of two they stay to the last bit, but for underflow.
//!
//! φ: Keskar et al. 2017, *On large-batch training for deep learning: generalization gap and sharp
//! minima*, whose box of the full space this is. δ ⊘ |θ|: Kwon et al. 2021, *ASAM: adaptive
//! sharpness-aware minimization*. Lines, planes and directions scaled neuron by neuron: Li et al.
//! 2018, *Visualizing the loss landscape of neural nets*.
//!
//! ```
//! use gemmprop::curvature::lanczos::{Options, density, extremes, trace};
//! use gemmprop::curvature::sharpness::{Landscape, adaptive_operator, operator};
//! use gemmprop::{Bias, Dataset, Mlp, SoftmaxCrossEntropy, curvature::Hessian};
//! use ndarray::array;
//!
//! let mlp = Mlp::<f64>::he(&[2, 16, 2], Bias::Input, 1)?;
//! let (x, labels) = (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![0, 1, 1, 0]);
//! let data = Dataset::new(&x, &labels);
//! let mut hessian = Hessian::new(&mlp, data, &SoftmaxCrossEntropy)?;
//! let options = Options::default();
//! let top = extremes(&mut operator(&mut hessian), &options)?.largest[0].value;
//! let adaptive = extremes(&mut adaptive_operator(&mut hessian), &options)?.largest[0].value;
//! let trace = trace(&mut operator(&mut hessian), 10, 1)?;
//! let density = density(&mut operator(&mut hessian), 4, 20, 1)?;
//! assert!(top > 0.0 && adaptive > 0.0 && trace.value.is_finite() && density.probes.len() == 4);
//!
//! let mut landscape = Landscape::new(&mlp, data, &SoftmaxCrossEntropy)?;
//! assert!(landscape.box_sharpness(1e-3, 10)? > 0.0);
//! # Ok::<(), gemmprop::Error>(())
//! ```

use ndarray::{Array2, ArrayView1, ArrayViewMut1};

use crate::curvature::hessian::Hessian;
use crate::curvature::inputs::{BLOCK, Inputs};
use crate::curvature::lanczos::Operator;
use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, TwiceDifferentiable};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::steps::blocks::ranges;
use crate::train::dataset::Dataset;
use crate::train::model::ModelRef;

/// v ↦ H v as [`lanczos`](crate::curvature::lanczos) takes it, of [`Parameters::count`] numbers in
/// the order of θ. Of an `f32` network the products have the errors of `f32`, some 10⁻⁷ ‖H‖ and
/// more, and the eigenvalues too. A `v` or `av` of another length is [`Error::Shape`].
pub fn operator<F: Scalar, L: TwiceDifferentiable<F>>(hessian: &mut Hessian<'_, F, L>) -> impl Operator<Error = Error> {
    scaled_operator(hessian, |_| 1.0)
}

/// v ↦ |D| H |D| v with D = diag(θ), like [`operator`]: its eigenvalues are the same for all
/// rescalings of a network.
pub fn adaptive_operator<F: Scalar, L: TwiceDifferentiable<F>>(
    hessian: &mut Hessian<'_, F, L>,
) -> impl Operator<Error = Error> {
    scaled_operator(hessian, f64::abs)
}

/// v ↦ S H S v, S the diagonal matrix of the `scale` of each parameter.
fn scaled_operator<'h, 'a, F: Scalar, L: TwiceDifferentiable<F>>(
    hessian: &'h mut Hessian<'a, F, L>,
    scale: fn(f64) -> f64,
) -> Scaled<'h, 'a, F, L> {
    let theta = hessian.mlp().parameters();
    Scaled { v: theta.zeros_like(), hv: theta.zeros_like(), hessian, scale }
}

struct Scaled<'h, 'a, F: Scalar, L: Loss<F>> {
    hessian: &'h mut Hessian<'a, F, L>,
    scale: fn(f64) -> f64,
    v: Parameters<F>,
    hv: Parameters<F>,
}

impl<F: Scalar, L: TwiceDifferentiable<F>> Operator for Scaled<'_, '_, F, L> {
    type Error = Error;

    fn order(&self) -> usize {
        self.v.count()
    }

    fn epsilon(&self) -> f64 {
        F::EPSILON
    }

    fn apply(&mut self, from: ArrayView1<f64>, mut to: ArrayViewMut1<f64>) -> Result<()> {
        for (what, found) in [("v", from.len()), ("av", to.len())] {
            if found != self.order() {
                return Err(Error::Shape { what, expected: vec![self.order()], found: vec![found] });
            }
        }
        let Self { hessian, scale, v, hv } = self;
        let theta = hessian.mlp().parameters();
        let scales = || theta.iter().map(|theta| scale(theta.to_f64()));
        v.iter_mut().zip(scales()).zip(from).for_each(|((v, scale), from)| *v = F::from_f64(scale * from));
        hessian.apply(v, hv)?;
        to.iter_mut().zip(scales()).zip(hv.iter()).for_each(|((to, scale), hv)| *to = scale * hv.to_f64());
        Ok(())
    }
}

/// The largest size, and the root of the sum of squares in units of it: neither over- nor
/// underflows on the way.
fn norm<I: Iterator<Item = f64>>(numbers: impl Fn() -> I) -> (f64, f64) {
    let largest = numbers().fold(0.0, |largest: f64, a| largest.max(a.abs()));
    let square = |a: f64| a * a;
    (largest, numbers().map(|a| square(a / largest)).sum::<f64>().sqrt())
}

/// The direction with each neuron's incoming weights, its row of `w[t]` and its number of `c[t]`,
/// scaled to the norm of the network's own. Where the direction has only zeros they stay.
///
/// # Errors
/// [`Error::Shape`] for a direction of another network.
pub fn filter_normalised<F: Scalar>(direction: &Parameters<F>, mlp: &Mlp<F>) -> Result<Parameters<F>> {
    let theta = mlp.parameters();
    theta.check_shape_of("direction", direction)?;
    let norm = |p: &Parameters<F>, t: usize, i: usize| {
        let (largest, norm) = norm(|| p.w[t].row(i).into_iter().chain(p.c[t].get(i)).map(|p| p.to_f64()));
        if largest > 0.0 { largest * norm } else { 0.0 }
    };
    let mut normalised = direction.clone();
    for (t, (w, c)) in normalised.w.iter_mut().zip(&mut normalised.c).enumerate() {
        for (i, mut row) in w.outer_iter_mut().enumerate() {
            let (own, found) = (norm(theta, t, i), norm(direction, t, i));
            if found > 0.0 {
                let numbers = row.iter_mut().chain(c.get_mut(i));
                numbers.for_each(|d| *d = F::from_f64(own * (d.to_f64() / found)));
            }
        }
    }
    Ok(normalised)
}

/// The mean loss over data as a function of θ, around the θ of a model: what a
/// [`Trainer`](crate::Trainer) descends, with the model's standardisation and the data's weights.
#[derive(Debug)]
pub struct Landscape<'a, F: Scalar, L: Loss<F>> {
    theta: &'a Parameters<F>,
    inputs: Inputs<'a, F, L::Target>,
    loss: &'a L,
    engine: Engine<F>,
    /// The gradient of one block of the samples.
    part: Parameters<F>,
}

impl<'a, F: Scalar, L: Loss<F>> Landscape<'a, F, L> {
    /// The loss of a model over data. The arguments are those of [`Hessian::new`].
    ///
    /// # Errors
    /// Those of [`Hessian::new`].
    pub fn new(model: impl Into<ModelRef<'a, F>>, data: Dataset<'a, F, L::Target>, loss: &'a L) -> Result<Self> {
        let model = model.into();
        let (mlp, inputs) = (model.mlp, Inputs::new(&model, data, loss)?);
        let engine = Engine::new(mlp, inputs.len().min(BLOCK), is_native(mlp, inputs.len().min(BLOCK), inputs.len()));
        Ok(Self { theta: mlp.parameters(), inputs, loss, engine, part: mlp.zero_gradient() })
    }

    /// Keskar's φ with the box |y_i| ≤ ε(|θ_i| + 1) of the full space; the paper's ε are 10⁻³ and
    /// 5·10⁻⁴.
    ///
    /// The maximum is searched by projected sign ascent: y ← y + s ε(|θ| + 1) ⊙ sign(∇L), cut to
    /// the box (sign(0) = 1), with s = 2 at first, which leads to a corner, and halved whenever L
    /// does not grow. Each of the `iterations` costs one gradient; the paper makes 10 iterations of
    /// L-BFGS-B. The result is exact for the best point met: **a lower bound** of φ, and never
    /// negative.
    ///
    /// It is ∞ if the loss overflows somewhere in the box.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless ε is finite, positive and large enough to change a number
    /// of θ, and there is an iteration; [`Error::Undefined`] if the loss is not finite at θ or NaN
    /// at a point of the box; [`Error::BlasThreads`].
    pub fn box_sharpness(&mut self, epsilon: f64, iterations: usize) -> Result<f64> {
        positive("epsilon", epsilon)?;
        positive("iterations", iterations as f64)?;
        let theta = self.theta;
        let (mut best, mut g) = (theta.clone(), theta.zeros_like());
        let (mut trial, mut g_trial) = (theta.clone(), theta.zeros_like());
        let start = self.start(&mut g)?;
        let (mut value, mut step) = (start, 2.0);
        for iteration in 0..iterations {
            for (((trial, best), theta), g) in trial.iter_mut().zip(best.iter()).zip(theta.iter()).zip(g.iter()) {
                let theta = theta.to_f64();
                let most = epsilon * (theta.abs() + 1.0);
                let y = best.to_f64() - theta + if *g < F::ZERO { -step } else { step } * most;
                *trial = F::from_f64(theta + y.max(-most).min(most));
            }
            if iteration == 0 && trial == *theta {
                return Err(vanishes("epsilon", epsilon));
            }
            let found = self.trial(&trial, &mut g_trial)?;
            if found == f64::INFINITY {
                return Ok(found);
            }
            if found > value {
                value = found;
                std::mem::swap(&mut best, &mut trial);
                std::mem::swap(&mut g, &mut g_trial);
            } else {
                step /= 2.0;
            }
        }
        Ok(100.0 * (value - start) / (1.0 + start))
    }

    /// max L(θ + δ) − L(θ) over ‖δ ⊘ |θ|‖₂ ≤ ρ; a parameter that is 0 stays 0.
    ///
    /// The first step goes to the maximum of the linearised loss, δ = ρ θ² ⊙ g/‖|θ| ⊙ g‖₂, which is
    /// ASAM's; each further one takes g at the point that the one before has reached. The result is
    /// exact for the best point met: **a lower bound** of the maximum, and never negative. It is ∞
    /// if the loss overflows there.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless ρ is finite, positive and large enough to change a number
    /// of θ, and there is a step; [`Error::Undefined`] if the loss is not finite at θ or NaN at a
    /// point on the way, or |θ| ⊙ g is not finite; [`Error::BlasThreads`].
    pub fn adaptive_sharpness(&mut self, rho: f64, steps: usize) -> Result<f64> {
        positive("rho", rho)?;
        positive("steps", steps as f64)?;
        let theta = self.theta;
        let (mut point, mut g) = (theta.clone(), theta.zeros_like());
        let start = self.start(&mut g)?;
        let mut best = start;
        for _ in 0..steps {
            let scaled = || theta.iter().zip(g.iter()).map(|(theta, g)| theta.to_f64() * g.to_f64());
            if let Some(found) = scaled().find(|a| !a.is_finite()) {
                return Err(Error::Undefined { what: "|θ| ⊙ ∇L", at: "a point on the way", found });
            }
            let (largest, norm) = norm(scaled);
            if largest == 0.0 {
                // At a stationary point there is no direction of ascent.
                break;
            }
            for ((point, theta), scaled) in point.iter_mut().zip(theta.iter()).zip(scaled()) {
                *point = F::from_f64(theta.to_f64() * (1.0 + rho / norm * (scaled / largest)));
            }
            if point == *theta {
                return Err(vanishes("rho", rho));
            }
            best = best.max(self.trial(&point, &mut g)?);
            if best == f64::INFINITY {
                break;
            }
        }
        Ok(best - start)
    }

    /// L(θ + α d) for each α; values that leave the range of the number type are ∞ or NaN.
    ///
    /// # Errors
    /// [`Error::Shape`] for a direction of another network; [`Error::BlasThreads`].
    pub fn line(&mut self, direction: &Parameters<F>, alphas: &[f64]) -> Result<Vec<f64>> {
        Ok(self.plane([direction, direction], alphas, &[0.0])?.into_raw_vec_and_offset().0)
    }

    /// L(θ + α d + β e) for each α (rows) and β (columns).
    ///
    /// # Errors
    /// Those of [`line`](Self::line).
    pub fn plane(&mut self, [d, e]: [&Parameters<F>; 2], alphas: &[f64], betas: &[f64]) -> Result<Array2<f64>> {
        let theta = self.theta;
        theta.check_shape_of("direction", d)?;
        theta.check_shape_of("direction", e)?;
        let _one = one_blas_thread()?;
        let Self { inputs, loss, engine, .. } = self;
        let n = inputs.len();
        let data = inputs.samples(0..n, *loss);
        let mut point = theta.clone();
        Ok(Array2::from_shape_fn((alphas.len(), betas.len()), |(i, j)| {
            let numbers = theta.iter().zip(d.iter()).zip(e.iter());
            for (point, ((theta, d), e)) in point.iter_mut().zip(numbers) {
                *point = F::from_f64(theta.to_f64() + alphas[i] * d.to_f64() + betas[j] * e.to_f64());
            }
            engine.loss(&point, n, n.min(BLOCK), &data) / n as f64
        }))
    }

    /// L(θ), and `g` = ∇L(θ).
    fn start(&mut self, g: &mut Parameters<F>) -> Result<f64> {
        let found = self.value_and_gradient(self.theta, g)?;
        if found.is_finite() { Ok(found) } else { Err(Error::Undefined { what: "loss", at: "the parameters", found }) }
    }

    /// L at a trial point, which may be ∞, and `g` = its gradient there.
    fn trial(&mut self, point: &Parameters<F>, g: &mut Parameters<F>) -> Result<f64> {
        let found = self.value_and_gradient(point, g)?;
        if found.is_nan() { Err(Error::Undefined { what: "loss", at: "a point on the way", found }) } else { Ok(found) }
    }

    /// L at a point, and `g` = its gradient there.
    fn value_and_gradient(&mut self, point: &Parameters<F>, g: &mut Parameters<F>) -> Result<f64> {
        let _one = one_blas_thread()?;
        let Self { inputs, loss, engine, part, .. } = self;
        let (samples, mean) = (inputs.len(), F::from_f64(1.0 / inputs.len() as f64));
        let mut sum = 0.0;
        g.iter_mut().for_each(|g| *g = F::ZERO);
        for rows in ranges(samples, BLOCK) {
            sum += engine.gradient(point, rows.len(), &inputs.samples(rows, *loss), mean, part);
            g.iter_mut().zip(part.iter()).for_each(|(g, &part)| *g += part);
        }
        Ok(sum / samples as f64)
    }
}

fn vanishes(name: &'static str, found: f64) -> Error {
    Error::Hyperparameter { name, expected: "a distance that the network's type can tell from 0", found }
}

fn positive(name: &'static str, found: f64) -> Result<()> {
    let is = found.is_finite() && found > 0.0;
    if is { Ok(()) } else { Err(Error::Hyperparameter { name, expected: "a finite, positive number", found }) }
}
