//! H v on whole numbers, in plain loops and double precision, which are exact there; elsewhere
//! within the bounds of `rungs::bounds`.
//!
//! No sum of a product rounds if the same sum over |w|, |v| and |x| is below 1/u, where the seeds
//! stand for what they are sums of:
//!
//! ```text
//! ½‖ŷ − y‖²      |∂| ≤ |ŷ| + |y|          |R ∂| = |R ŷ|
//! ½ Σ y ŷ²      |∂| ≤ |y| |ŷ|           |R ∂| = |y| |R ŷ|
//! ```

use gemmprop::rungs::bounds::{self, Bounded, BoundedLoss, LossBounds};
use gemmprop::{Logistic, SoftmaxCrossEntropy, SquaredError};
use gemmprop::{Loss, Mlp, Parameters, Scalar, TwiceDifferentiable};
use ndarray::{Array1, Array2, ArrayView2};

use super::{Real, flat, gamma};

/// Matrix and bias (perhaps empty) of each layer.
type Layers = Vec<(Array2<f64>, Array1<f64>)>;

fn layers<F: Real>(p: &Parameters<F>) -> Layers {
    let w = p.w().iter().map(|w| w.view()).chain([p.alpha()]);
    let c = p.c().iter().map(|c| c.view()).chain([p.b()]);
    w.zip(c).map(|(w, c)| (w.mapv(|w| w.to_f64()), c.mapv(|c| c.to_f64()))).collect()
}

fn sizes(layers: &Layers) -> Layers {
    layers.iter().map(|(w, c)| (w.mapv(f64::abs), c.mapv(f64::abs))).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Squared,
    Weighted,
    Logistic,
    Softmax,
}

/// ½ Σ y ŷ², a custom loss: its second derivative depends on the target, as those of the
/// crate's losses do not.
#[derive(Debug)]
pub(crate) struct Weighted;

impl<F: Scalar> Loss<F> for Weighted {
    type Target = F;

    fn target_len(&self, outputs: usize) -> gemmprop::Result<usize> {
        Ok(outputs)
    }

    fn check(&self, _row: usize, _y: &[F], _outputs: usize) -> gemmprop::Result<()> {
        Ok(())
    }

    fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
        self.second_derivative(y_hat, y, y_hat, d);
        let mut sum = F::ZERO;
        y_hat.iter().zip(d).for_each(|(&y_hat, d)| sum += F::from_f64(0.5) * y_hat * *d);
        sum
    }
}

impl<F: Scalar> TwiceDifferentiable<F> for Weighted {
    fn second_derivative(&self, _y_hat: &[F], y: &[F], v: &[F], hv: &mut [F]) {
        y.iter().zip(v).zip(hv).for_each(|((&y, &v), hv)| *hv = y * v);
    }
}

impl<F: Real> BoundedLoss<F> for Weighted {
    /// ∂ = y ŷ rounds once, and hands |y| e on; ℓ rounds m + 2 times.
    fn bounds(&self, y_hat: &Bounded<Vec<f64>>, y: &[F]) -> LossBounds {
        let derivative = BoundedLoss::<F>::second_derivative_bounds(self, y_hat, y, y_hat);
        let each = derivative.value.iter().zip(&derivative.bound).zip(y_hat.value.iter().zip(&y_hat.bound));
        let (mut value, mut bound, mut size) = (0.0, 0.0, 0.0);
        for ((d, g), (a, e)) in each {
            value += 0.5 * d * a;
            bound += 0.5 * (g * (a.abs() + 2.0 * e) + d.abs() * e);
            size += 0.5 * (d.abs() + 2.0 * g) * (a.abs() + 2.0 * e);
        }
        LossBounds { derivative, value: Bounded { value, bound: bound + gamma(y.len() + 2, F::U) * size } }
    }

    fn second_derivative_bounds(
        &self,
        _y_hat: &Bounded<Vec<f64>>,
        y: &[F],
        v: &Bounded<Vec<f64>>,
    ) -> Bounded<Vec<f64>> {
        let weights = y.iter().map(|y| y.to_f64());
        let each = weights.zip(v.value.iter().zip(&v.bound));
        let of = |(y, (v, e)): (f64, (&f64, &f64))| (y * v, y.abs() * (e + gamma(1, F::U) * (v.abs() + 2.0 * e)));
        let (value, bound) = each.map(of).unzip();
        Bounded { value, bound }
    }
}

impl Kind {
    /// Exact on whole numbers, and for any ŷ.
    pub(crate) fn is_polynomial(self) -> bool {
        matches!(self, Self::Squared | Self::Weighted)
    }

    /// ∂ and R ∂ at ŷ; or, of sizes, the sizes of their terms.
    fn seeds(self, y: &[f64], [y_hat, r]: [&[f64]; 2], sign: f64) -> [Vec<f64>; 2] {
        let term = |y: f64| if sign > 0.0 { y.abs() } else { y };
        match self {
            Self::Squared => {
                [y_hat.iter().zip(y).map(|(a, &y)| a + if sign > 0.0 { y.abs() } else { -y }).collect(), r.to_vec()]
            }
            Self::Weighted => [y_hat, r].map(|a| a.iter().zip(y).map(|(a, &y)| term(y) * a).collect()),
            Self::Logistic | Self::Softmax => unreachable!("not of whole numbers"),
        }
    }

    /// H v with its bounds.
    fn bounded<F: Real>(
        self,
        mlp: &Mlp<F>,
        x: ArrayView2<F>,
        y: &Array2<f64>,
        v: &Parameters<F>,
    ) -> Bounded<Parameters<f64>> {
        let real = y.mapv(F::from_f64);
        let labels = y.mapv(|y| y as usize);
        let bounds = match self {
            Self::Squared => bounds::hessian_product(mlp, x, real.view(), &SquaredError, v),
            Self::Weighted => bounds::hessian_product(mlp, x, real.view(), &Weighted, v),
            Self::Logistic => bounds::hessian_product(mlp, x, real.view(), &Logistic, v),
            Self::Softmax => bounds::hessian_product(mlp, x, labels.view(), &SoftmaxCrossEntropy, v),
        };
        bounds.unwrap().product
    }
}

/// One sample: adds its H v to `into`.
fn add_sample(
    [theta, v]: [&Layers; 2],
    x: &[f64],
    masks: &[Vec<bool>],
    seeds: impl Fn(&[f64], &[f64]) -> [Vec<f64>; 2],
    into: &mut [f64],
) {
    let depth = theta.len() - 1;
    let (mut z, mut r_z) = (vec![x.to_vec()], vec![vec![0.0; x.len()]]);
    for t in 0..=depth {
        let ((w, c), (v, v_c)) = (&theta[t], &v[t]);
        let (mut u, mut r_u) = (vec![0.0; w.nrows()], vec![0.0; w.nrows()]);
        for i in 0..w.nrows() {
            if t < depth && !masks[t][i] {
                continue;
            }
            for j in 0..w.ncols() {
                u[i] += w[[i, j]] * z[t][j];
                r_u[i] += v[[i, j]] * z[t][j] + w[[i, j]] * r_z[t][j];
            }
            u[i] += c.get(i).unwrap_or(&0.0);
            r_u[i] += v_c.get(i).unwrap_or(&0.0);
        }
        z.push(u);
        r_z.push(r_u);
    }
    let [mut delta, mut r_delta] = seeds(&z[depth + 1], &r_z[depth + 1]);
    let mut end = into.len();
    for t in (0..=depth).rev() {
        let ((w, c), (v, _)) = (&theta[t], &v[t]);
        let start = end - w.len() - c.len();
        let (mut below, mut r_below) = (vec![0.0; w.ncols()], vec![0.0; w.ncols()]);
        for i in 0..w.nrows() {
            for j in 0..w.ncols() {
                into[start + i * w.ncols() + j] += r_delta[i] * z[t][j] + delta[i] * r_z[t][j];
                if t > 0 && masks[t - 1][j] {
                    below[j] += w[[i, j]] * delta[i];
                    r_below[j] += v[[i, j]] * delta[i] + w[[i, j]] * r_delta[i];
                }
            }
            if !c.is_empty() {
                into[start + w.len() + i] += r_delta[i];
            }
        }
        (delta, r_delta, end) = (below, r_below, start);
    }
}

/// H v and how far it, and a product in the number type F, may be from the exact one; 0 where all
/// of it is exact, as for small whole numbers and an n that is a power of two. The masks of whole
/// numbers are those of the crate's forward pass.
pub(crate) fn product<F: Real>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    (kind, y): (Kind, &Array2<f64>),
    v: &Parameters<F>,
    whole: bool,
) -> (Vec<f64>, Vec<f64>) {
    let bounded = kind.bounded(mlp, x, y, v);
    let (value, bound) = (flat(&bounded.value), flat(&bounded.bound));
    let n = y.nrows();
    if !(whole && kind.is_polynomial() && n.is_power_of_two()) {
        return (value, bound);
    }
    let (theta, v) = (layers(mlp.parameters()), layers(v));
    let (theta_sizes, v_sizes) = (sizes(&theta), sizes(&v));
    let trace = gemmprop::rungs::batched::forward(mlp, x).unwrap();
    let (mut hv, mut size) = (vec![0.0; value.len()], vec![0.0; value.len()]);
    for (r, y) in y.outer_iter().enumerate() {
        let y = y.to_vec();
        let x: Vec<f64> = x.row(r).iter().map(|x| x.to_f64()).collect();
        let masks: Vec<Vec<bool>> =
            (1..=mlp.depth()).map(|t| trace.z(t).row(r).iter().map(|&z| z > F::ZERO).collect()).collect();
        add_sample([&theta, &v], &x, &masks, |y_hat, r| kind.seeds(&y, [y_hat, r], -1.0), &mut hv);
        let x: Vec<f64> = x.iter().map(|x| x.abs()).collect();
        add_sample([&theta_sizes, &v_sizes], &x, &masks, |y_hat, r| kind.seeds(&y, [y_hat, r], 1.0), &mut size);
    }
    let exact = |i: usize| size[i] < 1.0 / F::U;
    let of = |i: usize| if exact(i) { (hv[i] / n as f64, 0.0) } else { (value[i], bound[i]) };
    (0..value.len()).map(of).unzip()
}
