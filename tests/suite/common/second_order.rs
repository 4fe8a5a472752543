//! H v in plain loops and double precision, with a bound on what rounding can do to it.
//!
//! All numbers of an R pass are sums of products along paths, and the masks are given. Every number
//! type rounds each path at most K times, so a product is off by at most γ(K) times the same sum
//! over |w|, |v| and |x|, where the seeds stand for what they are sums of:
//!
//! ```text
//! ½‖ŷ − y‖²      |∂| ≤ |ŷ| + |y|          |R ∂| = |R ŷ|
//! ½ Σ y ŷ²      |∂| ≤ |y| |ŷ|           |R ∂| = |y| |R ŷ|
//! logistic       |∂| ≤ σ + y               |R ∂| = σ(1 − σ) |R ŷ|
//! softmax        |∂| ≤ p + e_y             |R ∂| ≤ p ⊙ (|R ŷ| + pᵀ |R ŷ|)
//! ```
//!
//! A path goes through each layer once up and once down, where a number is a sum of two products
//! and a constant, 2d + 4 roundings; then through 2n + 6 of the sum over samples and its mean, and
//! 4 (m + 16) of the loss: its exponentials, of arguments of at most 8 in size and to 4 ulp, a sum
//! and two products.
//!
//! A chain of fused multiply-adds has fewer: 2d on the way through a layer; 2n of the sums over
//! samples, since blocks of them are shorter by more than what adding them up rounds; and two of
//! the factor 1/n, which the loss's derivatives then have from the start.

use gemmprop::{Loss, Mlp, Parameters, Scalar, TwiceDifferentiable};
use ndarray::{Array1, Array2, ArrayView2};

use super::{Real, gamma};

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

impl Kind {
    /// Exact on whole numbers, and for any ŷ.
    pub(crate) fn is_polynomial(self) -> bool {
        matches!(self, Self::Squared | Self::Weighted)
    }

    /// ∂ and R ∂ at ŷ; or, of sizes, what bounds their terms. A softmax's y is the label.
    fn seeds(self, y: &[f64], y_hat: &[f64], [of_y_hat, r]: [&[f64]; 2], sign: f64) -> [Vec<f64>; 2] {
        let p: Vec<f64> = match self {
            Self::Squared => {
                let term = |y: f64| if sign > 0.0 { y.abs() } else { -y };
                return [of_y_hat.iter().zip(y).map(|(a, &y)| a + term(y)).collect(), r.to_vec()];
            }
            Self::Weighted => {
                let weight = |y: f64| if sign > 0.0 { y.abs() } else { y };
                return [of_y_hat, r].map(|a| a.iter().zip(y).map(|(a, &y)| weight(y) * a).collect());
            }
            Self::Logistic => {
                let s = 1.0 / (1.0 + (-y_hat[0]).exp());
                return [vec![s + sign * y[0]], vec![s / (1.0 + y_hat[0].exp()) * r[0]]];
            }
            Self::Softmax => {
                let sum: f64 = y_hat.iter().map(|a| a.exp()).sum();
                y_hat.iter().map(|a| a.exp() / sum).collect()
            }
        };
        let mean: f64 = p.iter().zip(r).map(|(p, r)| p * r).sum();
        let d = p.iter().enumerate().map(|(k, p)| p + sign * f64::from(k as f64 == y[0]));
        [d.collect(), p.iter().zip(r).map(|(p, r)| p * (r + sign * mean)).collect()]
    }
}

/// One sample: adds its H v to `into`. Returns ŷ.
fn add_sample(
    [theta, v]: [&Layers; 2],
    x: &[f64],
    masks: &[Vec<bool>],
    seeds: impl Fn(&[f64], &[f64]) -> [Vec<f64>; 2],
    into: &mut [f64],
) -> Vec<f64> {
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
    z.pop().unwrap()
}

/// H v and how far a product in the number type F may be off; 0 where all of it is exact, as for
/// small whole numbers and an n that is a power of two. The masks are those of the crate's forward
/// pass.
pub(crate) fn product<F: Real>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    (kind, y): (Kind, &Array2<f64>),
    v: &Parameters<F>,
    whole: bool,
) -> (Vec<f64>, Vec<f64>) {
    let (theta, v) = (layers(mlp.parameters()), layers(v));
    let (theta_sizes, v_sizes) = (sizes(&theta), sizes(&v));
    let trace = gemmprop::rungs::batched::forward(mlp, x).unwrap();
    let (mut hv, mut size) = (vec![0.0; mlp.parameters().count()], vec![0.0; mlp.parameters().count()]);
    for (r, y) in y.outer_iter().enumerate() {
        let y = y.to_vec();
        let x: Vec<f64> = x.row(r).iter().map(|x| x.to_f64()).collect();
        let masks: Vec<Vec<bool>> =
            (1..=mlp.depth()).map(|t| trace.z(t).row(r).iter().map(|&z| z > F::ZERO).collect()).collect();
        let seeds = |y_hat: &[f64], r: &[f64]| kind.seeds(&y, y_hat, [y_hat, r], -1.0);
        let y_hat = add_sample([&theta, &v], &x, &masks, seeds, &mut hv);
        assert!(kind.is_polynomial() || y_hat.iter().all(|a| a.abs() <= 4.0), "{y_hat:?} is beyond the bounds");
        let x: Vec<f64> = x.iter().map(|x| x.abs()).collect();
        let seeds = |of_y_hat: &[f64], r: &[f64]| kind.seeds(&y, &y_hat, [of_y_hat, r], 1.0);
        add_sample([&theta_sizes, &v_sizes], &x, &masks, seeds, &mut size);
    }
    let n = y.nrows();
    let of_layers: usize = mlp.widths().iter().map(|d| 2 * (2 * d + 4)).sum();
    let gamma = gamma(of_layers + 2 * n + 6 + 4 * (mlp.outputs() + 16), F::U);
    let exact = |size: f64| whole && kind.is_polynomial() && n.is_power_of_two() && size < 1.0 / F::U;
    let bound = size.iter().map(|&size| if exact(size) { 0.0 } else { gamma * size / n as f64 }).collect();
    (hv.iter().map(|h| h / n as f64).collect(), bound)
}
