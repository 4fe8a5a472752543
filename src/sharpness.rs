//! How sharp a minimum is: operators for the spectra of the Hessian, the largest loss near by, the loss along lines and planes.
//!
//! ```text
//! H v                                                     λ_max, trace, density: by lanczos
//! |D| H |D| v,  D = diag(θ)                               the same, blind to rescaled layers
//! φ = 100 (max L(θ + y) − L(θ)) / (1 + L(θ))              |y_i| ≤ ε (|θ_i| + 1)
//! max L(θ + δ) − L(θ)                                     ‖δ ⊘ |θ|‖₂ ≤ ρ
//! L(θ + α d),  L(θ + α d + β e)
//! ```
//!
//! Dinh et al. 2017, *Sharp minima can generalize for deep nets*: (w\[t\], c\[t\], w\[t+1\]) → (k w\[t\], k c\[t\], w\[t+1\]/k) with k > 0
//! leaves a ReLU network's function as it was, yet changes H and φ. |D| H |D| and the maximum over ‖δ ⊘ |θ|‖₂ ≤ ρ stay: each
//! derivative is taken in units of its parameter. With k a power of two they stay to the last bit, but for underflow.
//!
//! φ: Keskar et al. 2017, *On large-batch training for deep learning: generalization gap and sharp minima*, whose box of the full
//! space this is. δ ⊘ |θ|: Kwon et al. 2021, *ASAM: adaptive sharpness-aware minimization*. Lines, planes and directions scaled
//! neuron by neuron: Li et al. 2018, *Visualizing the loss landscape of neural nets*.
//!
//! ```
//! use gemmprop::lanczos::{Options, density, extremes, trace};
//! use gemmprop::sharpness::{Landscape, adaptive_operator, operator};
//! use gemmprop::{Constant, Hessian, Mlp, SoftmaxCrossEntropy};
//! use ndarray::array;
//!
//! let mlp = Mlp::<f64>::he(&[2, 16, 2], Constant::Input, 1)?;
//! let (x, labels) = (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![0, 1, 1, 0]);
//! let n = mlp.parameters().count();
//! let mut hessian = Hessian::new(&mlp, x.view(), labels.view(), &SoftmaxCrossEntropy)?;
//! let top = extremes(n, operator(&mut hessian), &Options::default())?.largest[0].value;
//! let adaptive = extremes(n, adaptive_operator(&mut hessian), &Options::default())?.largest[0].value;
//! let trace = trace(n, operator(&mut hessian), 10, 1)?;
//! let density = density(n, operator(&mut hessian), 4, 20, 1)?;
//! assert!(top > 0.0 && adaptive > 0.0 && trace.value.is_finite() && density.probes.len() == 4);
//!
//! let mut landscape = Landscape::new(&mlp, x.view(), labels.view(), &SoftmaxCrossEntropy)?;
//! assert!(landscape.box_sharpness(1e-3, 10)? > 0.0);
//! # Ok::<(), gemmprop::Error>(())
//! ```

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, CowArray, Ix2, s};

use crate::engine::{Engine, Samples};
use crate::error::{Error, Result};
use crate::hessian::{BLOCK, Hessian, row_major};
use crate::loss::{Loss, Targets, check_targets, seed};
use crate::network::{Mlp, Parameters};
use crate::scalar::Scalar;
use crate::schedule::tiles;
use crate::threads::one_blas_thread;

/// v ↦ H v as [`lanczos`](crate::lanczos) takes it: n = [`Parameters::count`] numbers in the order of θ. Of an `f32` network the
/// products have the errors of `f32`, some 10⁻⁷ ‖H‖ and more, and the eigenvalues too.
pub fn operator<F: Scalar, L: Loss<F>>(
    hessian: &mut Hessian<'_, F, L>,
) -> impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<()> {
    scaled_operator(hessian, |_| 1.0)
}

/// v ↦ |D| H |D| v with D = diag(θ): its eigenvalues are the same for all rescalings of a network.
pub fn adaptive_operator<F: Scalar, L: Loss<F>>(
    hessian: &mut Hessian<'_, F, L>,
) -> impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<()> {
    scaled_operator(hessian, f64::abs)
}

/// v ↦ S H S v, S the diagonal matrix of the `scale` of each parameter.
fn scaled_operator<F: Scalar, L: Loss<F>>(
    hessian: &mut Hessian<'_, F, L>,
    scale: fn(f64) -> f64,
) -> impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<()> {
    let theta = hessian.mlp().parameters();
    let (mut v, mut hv) = (theta.zeros_like(), theta.zeros_like());
    move |from, mut to| {
        let scales = || theta.iter().map(|theta| scale(theta.to_f64()));
        v.iter_mut().zip(scales()).zip(from).for_each(|((v, scale), from)| *v = F::from_f64(scale * from));
        hessian.apply(&v, &mut hv)?;
        to.iter_mut().zip(scales()).zip(hv.iter()).for_each(|((to, scale), hv)| *to = scale * hv.to_f64());
        Ok(())
    }
}

/// The direction with each neuron's incoming weights, its row of `w[t]` and its number of `c[t]`, scaled to the norm of the network's own.
/// Where the direction has only zeros they stay.
///
/// # Errors
/// [`Error::Shape`] for a direction of another network.
pub fn filter_normalised<F: Scalar>(direction: &Parameters<F>, mlp: &Mlp<F>) -> Result<Parameters<F>> {
    let theta = mlp.parameters();
    theta.check_shape_of("direction", direction)?;
    let norm = |p: &Parameters<F>, t: usize, i: usize| {
        let numbers = p.w[t].row(i).into_iter().chain(p.c[t].get(i)).map(|p| p.to_f64());
        numbers.map(|p| p * p).sum::<f64>().sqrt()
    };
    let mut normalised = direction.clone();
    for (t, (w, c)) in normalised.w.iter_mut().zip(&mut normalised.c).enumerate() {
        for (i, mut row) in w.outer_iter_mut().enumerate() {
            let (own, found) = (norm(theta, t, i), norm(direction, t, i));
            let scale = if found > 0.0 { own / found } else { 0.0 };
            let numbers = row.iter_mut().chain(c.get_mut(i));
            numbers.for_each(|d| *d = F::from_f64(scale * d.to_f64()));
        }
    }
    Ok(normalised)
}

/// The mean loss over data as a function of θ, around the θ of a network.
#[derive(Debug)]
pub struct Landscape<'a, F: Scalar, L: Loss<F>> {
    theta: &'a Parameters<F>,
    x: CowArray<'a, F, Ix2>,         // (n, d[0]), row-major
    y: CowArray<'a, L::Target, Ix2>, // (n, targets of a sample), row-major
    loss: &'a L,
    engine: Engine<F>,
    /// The gradient of some of the samples.
    part: Parameters<F>,
}

impl<'a, F: Scalar, L: Loss<F>> Landscape<'a, F, L> {
    /// # Errors
    /// Those of [`Hessian::new`].
    pub fn new(mlp: &'a Mlp<F>, x: ArrayView2<'a, F>, y: impl Targets<'a, L::Target>, loss: &'a L) -> Result<Self> {
        mlp.check_batch(x)?;
        let (x, y) = (row_major(x), row_major(y.rows()));
        check_targets(loss, y.view(), x.nrows(), mlp.outputs())?;
        let engine = Engine::new(mlp, x.nrows().min(BLOCK));
        Ok(Self { theta: mlp.parameters(), x, y, loss, engine, part: mlp.zero_gradient() })
    }

    /// Keskar's φ with the box |y_i| ≤ ε(|θ_i| + 1) of the full space; the paper's ε are 10⁻³ and 5·10⁻⁴.
    ///
    /// The maximum is searched by projected sign ascent: y ← y + s ε(|θ| + 1) ⊙ sign(∇L), cut to the box (sign(0) = 1), with s = 2 at
    /// first, which leads to a corner, and halved whenever L does not grow. So many iterations, one gradient each; the
    /// paper makes 10 of L-BFGS-B. What comes back is exact for the best point met: **a lower bound** of φ, and never negative.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless ε is finite and positive; [`Error::BlasThreads`].
    pub fn box_sharpness(&mut self, epsilon: f64, iterations: usize) -> Result<f64> {
        positive("epsilon", epsilon)?;
        let theta = self.theta;
        let (mut best, mut g) = (theta.clone(), theta.zeros_like());
        let (mut trial, mut g_trial) = (theta.clone(), theta.zeros_like());
        let start = self.value_and_gradient(&best, &mut g)?;
        let (mut value, mut step) = (start, 2.0);
        for _ in 0..iterations {
            for (((trial, best), theta), g) in trial.iter_mut().zip(best.iter()).zip(theta.iter()).zip(g.iter()) {
                let theta = theta.to_f64();
                let most = epsilon * (theta.abs() + 1.0);
                let y = best.to_f64() - theta + if *g < F::ZERO { -step } else { step } * most;
                *trial = F::from_f64(theta + y.max(-most).min(most));
            }
            let found = self.value_and_gradient(&trial, &mut g_trial)?;
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
    /// The first step goes to the maximum of the linearised loss, δ = ρ θ² ⊙ g/‖|θ| ⊙ g‖₂, which is ASAM's; each further one takes
    /// g at the point that the one before has reached. What comes back is exact for the best point met: **a lower bound**
    /// of the maximum, and never negative.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless ρ is finite and positive and there is a step; [`Error::BlasThreads`].
    pub fn adaptive_sharpness(&mut self, rho: f64, steps: usize) -> Result<f64> {
        positive("rho", rho)?;
        positive("steps", steps as f64)?;
        let theta = self.theta;
        let (mut point, mut g) = (theta.clone(), theta.zeros_like());
        let start = self.value_and_gradient(&point, &mut g)?;
        let mut best = start;
        for _ in 0..steps {
            let scaled = || theta.iter().zip(g.iter()).map(|(theta, g)| theta.to_f64() * g.to_f64());
            let norm = scaled().map(|a| a * a).sum::<f64>().sqrt();
            // 0 at a stationary point: there is no direction to go.
            let factor = if norm > 0.0 { rho / norm } else { 0.0 };
            for ((point, theta), scaled) in point.iter_mut().zip(theta.iter()).zip(scaled()) {
                *point = F::from_f64(theta.to_f64() * (1.0 + factor * scaled));
            }
            best = best.max(self.value_and_gradient(&point, &mut g)?);
        }
        Ok(best - start)
    }

    /// L(θ + α d) for each α.
    ///
    /// # Errors
    /// [`Error::Shape`] for a direction of another network; [`Error::BlasThreads`].
    pub fn line(&mut self, direction: &Parameters<F>, alphas: &[f64]) -> Result<Vec<f64>> {
        Ok(self.plane([direction, direction], alphas, &[0.0])?.into_raw_vec_and_offset().0)
    }

    /// L(θ + α d + β e) for each α (rows) and β (columns).
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn plane(&mut self, [d, e]: [&Parameters<F>; 2], alphas: &[f64], betas: &[f64]) -> Result<Array2<f64>> {
        let theta = self.theta;
        theta.check_shape_of("direction", d)?;
        theta.check_shape_of("direction", e)?;
        let _one = one_blas_thread()?;
        let Self { x, y, loss, engine, .. } = self;
        let data = Samples { x: x.view(), order: None, standardize: None, weights: None, seed: seed(*loss, y.view()) };
        let mut point = theta.clone();
        Ok(Array2::from_shape_fn((alphas.len(), betas.len()), |(i, j)| {
            let numbers = theta.iter().zip(d.iter()).zip(e.iter());
            for (point, ((theta, d), e)) in point.iter_mut().zip(numbers) {
                *point = F::from_f64(theta.to_f64() + alphas[i] * d.to_f64() + betas[j] * e.to_f64());
            }
            engine.loss(&point, (x.nrows(), x.nrows().min(BLOCK)), &data) / x.nrows() as f64
        }))
    }

    /// L at a point, and `g` = its gradient there.
    fn value_and_gradient(&mut self, point: &Parameters<F>, g: &mut Parameters<F>) -> Result<f64> {
        let _one = one_blas_thread()?;
        let Self { x, y, loss, engine, part, .. } = self;
        let (samples, mean) = (x.nrows(), F::from_f64(1.0 / x.nrows() as f64));
        let mut sum = 0.0;
        g.iter_mut().for_each(|g| *g = F::ZERO);
        for rows in tiles(samples, BLOCK) {
            let y = y.slice_axis(Axis(0), rows.clone().into());
            let x = x.slice(s![rows.clone(), ..]);
            let data = Samples { x, order: None, standardize: None, weights: None, seed: seed(*loss, y) };
            sum += engine.gradient(point, rows.len(), &data, mean, part);
            g.iter_mut().zip(part.iter()).for_each(|(g, &part)| *g += part);
        }
        Ok(sum / samples as f64)
    }
}

fn positive(name: &'static str, found: f64) -> Result<()> {
    let is = found.is_finite() && found > 0.0;
    if is { Ok(()) } else { Err(Error::Hyperparameter { name, expected: "a finite, positive number", found }) }
}
