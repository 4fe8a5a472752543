//! What rounding does to a loss and its derivatives.
//!
//! With u the unit roundoff of the type, e the bound of ŷ and E its largest. The exponentials of
//! the crate libm are good to 4 ulp, 8u (it promises 1). Since |ŷ − ŷ*| ≤ 2E for any two of the
//! exact, the reference's and a computed ŷ, a σ, a p or a product of them is at most e^4E times its
//! value in double precision.

use crate::linalg::scalar::Scalar;
use crate::network::loss::{Logistic, Loss, SoftmaxCrossEntropy, SquaredError, TwiceDifferentiable};
use crate::rungs::rounding::{Bounded, gamma, gamma_of, most};

/// ∂ℓ/∂ŷ and ℓ of a sample with their bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct LossBounds {
    /// ∂ℓ/∂ŷ, (m).
    pub derivative: Bounded<Vec<f64>>,
    /// ℓ
    pub value: Bounded<f64>,
}

/// A loss whose sensitivity to ŷ, and whose own rounding in F, are known. A caller's own loss
/// implements it to have bounds on its gradients.
pub trait BoundedLoss<F: Scalar>: TwiceDifferentiable<F> {
    /// ∂ℓ/∂ŷ and ℓ at `y_hat.value`, in double precision, and how far they, and those that F gives
    /// at a ŷ within `y_hat.bound` of the exact one, may be from those at the exact one.
    fn bounds(&self, y_hat: &Bounded<Vec<f64>>, y: &[Self::Target]) -> LossBounds;

    /// (∂²ℓ/∂ŷ²) v, likewise, where `v` is known as `y_hat` is.
    fn second_derivative_bounds(
        &self,
        y_hat: &Bounded<Vec<f64>>,
        y: &[Self::Target],
        v: &Bounded<Vec<f64>>,
    ) -> Bounded<Vec<f64>>;
}

/// u, half the distance from 1 to the next number.
pub(crate) fn unit_roundoff<F: Scalar>() -> f64 {
    F::EPSILON / 2.0
}

/// ∂ and ℓ in double precision.
fn in_f64<L: Loss<f64>>(loss: &L, y_hat: &[f64], y: &[L::Target]) -> (Vec<f64>, f64) {
    let mut d = vec![0.0; y_hat.len()];
    let value = loss.value_and_derivative(y_hat, y, &mut d);
    (d, value)
}

impl<F: Scalar> BoundedLoss<F> for SquaredError {
    /// ∂ = ŷ − y: ∂²ℓ/∂ŷ² = 1 hands e on, and the subtraction rounds once. ℓ = ½ Σ ∂²: |∂| e + e²/2
    /// for each, and m + 3 roundings.
    fn bounds(&self, y_hat: &Bounded<Vec<f64>>, y: &[F]) -> LossBounds {
        let u = unit_roundoff::<F>();
        let y: Vec<f64> = y.iter().map(|y| y.to_f64()).collect();
        let (d, value) = in_f64(self, &y_hat.value, &y);
        let of = |(&d, &e): (&f64, &f64)| e + gamma(1, u) * most(d, e);
        let bound: Vec<f64> = d.iter().zip(&y_hat.bound).map(of).collect();
        let moved: f64 = d.iter().zip(&bound).map(|(&d, &e)| most(d, e) * 2.0 * e).sum();
        let of_value = moved + gamma(d.len() + 3, u) * (value + moved);
        LossBounds { derivative: Bounded { value: d, bound }, value: Bounded { value, bound: of_value } }
    }

    /// v itself.
    fn second_derivative_bounds(
        &self,
        _y_hat: &Bounded<Vec<f64>>,
        _y: &[F],
        v: &Bounded<Vec<f64>>,
    ) -> Bounded<Vec<f64>> {
        v.clone()
    }
}

impl<F: Scalar> BoundedLoss<F> for Logistic {
    /// ∂ = σ(ŷ) − y. |σ′| ≤ ¼, and σ′ = σ(ŷ) σ(−ŷ) changes by a factor of e^2E at most. The smaller
    /// of σ(ŷ) and σ(−ŷ) is e/(1 + e): 8u, then an addition and a quotient, 12 roundings with some
    /// to spare for the second order; then the difference, 1; 1 − y rounds if y is neither 0 nor 1.
    /// ℓ = (1 − y) ŷ + ln(1 + e^−ŷ) or its mirror: |∂| ≤ 1 hands e on; terms up to |ŷ| and ln 2,
    /// with logarithm and exponential 12 roundings, and 8 more of the exponential.
    fn bounds(&self, y_hat: &Bounded<Vec<f64>>, y: &[F]) -> LossBounds {
        let (u, y) = (unit_roundoff::<F>(), y[0].to_f64());
        let (a, e) = (y_hat.value[0], y_hat.bound[0]);
        let (d, value) = in_f64(self, &y_hat.value, &[y]);
        let [less, more] = sigmoids(a);
        let growth = Scalar::exp(4.0 * e);
        let handed_on = (e / 4.0).min(less * more * growth * e);
        let own = gamma(12, u) * (less * growth).min(1.0);
        let of_label = if y == 0.0 || y == 1.0 { 0.0 } else { gamma(1, u) };
        let bound = handed_on + own + of_label + gamma(1, u) * most(d[0], handed_on + own + of_label);
        let of_value = e + gamma(20, u) * (most(a, e) + 1.0);
        LossBounds { derivative: Bounded { value: d, bound: vec![bound] }, value: Bounded { value, bound: of_value } }
    }

    /// h v with h = σ(ŷ) σ(−ŷ): |h′| ≤ h, and e/(1 + e)/(1 + e) v has 8 + 2 + 1 + 1 roundings, 14
    /// with some to spare.
    fn second_derivative_bounds(
        &self,
        y_hat: &Bounded<Vec<f64>>,
        _y: &[F],
        v: &Bounded<Vec<f64>>,
    ) -> Bounded<Vec<f64>> {
        let e = y_hat.bound[0];
        let [less, more] = sigmoids(y_hat.value[0]);
        let (h, most_h) = (less * more, (less * more * Scalar::exp(4.0 * e)).min(0.25));
        let bound = most_h * (v.bound[0] + (e + gamma(14, unit_roundoff::<F>())) * v.most(0));
        Bounded { value: vec![h * v.value[0]], bound: vec![bound] }
    }
}

/// σ(−|a|) and σ(|a|)
fn sigmoids(a: f64) -> [f64; 2] {
    let e = Scalar::exp(-a.abs());
    [e / (1.0 + e), 1.0 / (1.0 + e)]
}

/// p = softmax(ŷ), and what its rounding depends on.
struct Softmax {
    top: usize,
    p: Vec<f64>,
    /// ŷ_top − ŷ
    below: Vec<f64>,
    /// E
    worst: f64,
    /// e^4E
    growth: f64,
    u: f64,
}

impl Softmax {
    fn new<F: Scalar>(y_hat: &Bounded<Vec<f64>>) -> Self {
        let a = &y_hat.value;
        let top = (0..a.len()).fold(0, |top, k| if a[k] > a[top] { k } else { top });
        let below: Vec<f64> = a.iter().map(|&b| a[top] - b).collect();
        let sum: f64 = below.iter().map(|&t| Scalar::exp(-t)).sum();
        let p = below.iter().map(|&t| Scalar::exp(-t) / sum).collect();
        let worst = y_hat.bound.iter().fold(0.0, |a: f64, &b| a.max(b));
        Self { top, p, below, worst, growth: Scalar::exp(4.0 * worst), u: unit_roundoff::<F>() }
    }

    /// p_k at most.
    fn most(&self, k: usize) -> f64 {
        (self.p[k] * self.growth).min(1.0)
    }

    /// The relative error of a p that is computed: t for the rounding of the difference t, which
    /// may be 4E larger, and 8 of its exponential; as much for the sum, to which a term contributes
    /// t e^−t ≤ 0.37 for its t, with m additions: 1.37 m + 8; a quotient; 2 to spare for the second
    /// order.
    fn of_p(&self, k: usize) -> f64 {
        gamma_of(self.below[k] + 4.0 * self.worst + 1.37 * self.p.len() as f64 + 19.0, self.u)
    }

    /// The relative error of 1 − p_y as it is computed: the mean error of the p that it is the sum
    /// of, and m + 2 roundings more. Where y is not the largest, p_y is at most ½, and the
    /// difference is as good as p.
    fn of_rest(&self, y: usize) -> f64 {
        let rest = self.p.iter().enumerate().filter(|&(k, _)| k != y);
        let (mut sum, mut t) = (0.0, 0.0);
        for (k, p) in rest {
            sum += p;
            t += p * self.below[k];
        }
        let mean = if sum > 0.0 { t / sum } else { 0.0 };
        let mean = mean * self.growth * self.growth + 4.0 * self.worst;
        let of_y = if y == self.top { 0.0 } else { self.of_p(y) };
        of_y + gamma_of(mean + 2.37 * self.p.len() as f64 + 21.0, self.u)
    }
}

impl<F: Scalar> BoundedLoss<F> for SoftmaxCrossEntropy {
    /// ∂ = p − e_y. A row of diag(p) − ppᵀ has the 1-norm 2p(1 − p) ≤ ½, and p changes by a factor
    /// of e^4E at most. ℓ = ln Σ + ŷ_top − ŷ_y: its derivative has the 1-norm 2(1 − p_y) ≤ 2; the
    /// sum's relative error is the logarithm's absolute one, and ŷ_top − ŷ_y ≤ 2 max |ŷ|.
    fn bounds(&self, y_hat: &Bounded<Vec<f64>>, y: &[usize]) -> LossBounds {
        let (softmax, u) = (Softmax::new::<F>(y_hat), unit_roundoff::<F>());
        let (d, value) = in_f64(self, &y_hat.value, y);
        let (m, worst, y) = (d.len(), softmax.worst, y[0]);
        let of = |k: usize| {
            let (size, own) = if k == y {
                ((d[y].abs() * softmax.growth).min(1.0), softmax.of_rest(y))
            } else {
                (softmax.most(k), softmax.of_p(k))
            };
            // Without the growth where e is large.
            (worst / 2.0).min(2.0 * worst * size) + own * size
        };
        let bound = (0..m).map(of).collect();
        let largest = y_hat.value.iter().fold(0.0, |a: f64, b| a.max(b.abs())) + 2.0 * worst;
        let of_value = 2.0 * worst + gamma(2 * m + 20, u) * (1.0 + 2.0 * largest + Scalar::ln(m as f64));
        LossBounds { derivative: Bounded { value: d, bound }, value: Bounded { value, bound: of_value } }
    }

    /// f_k = p_k (d_k − pᵀd) with d = v − v_top, and P = Σ p |d|. v's own error goes through as v
    /// does. Along ŷ, |∂f_k| ≤ 2E p_k (|d_k| + 2P). p_k is rounded as in ∂, the two differences
    /// once each, and a term of pᵀd as its p with m + 2 roundings more.
    fn second_derivative_bounds(
        &self,
        y_hat: &Bounded<Vec<f64>>,
        _y: &[usize],
        v: &Bounded<Vec<f64>>,
    ) -> Bounded<Vec<f64>> {
        let softmax = Softmax::new::<F>(y_hat);
        let Softmax { top, ref p, worst, u, .. } = softmax;
        let m = p.len();
        let of_d = |k: usize| if k == top { 0.0 } else { v.bound[k] + v.bound[top] };
        let d: Vec<f64> = v.value.iter().map(|v_k| v_k - v.value[top]).collect();
        let most_d = |k: usize| d[k].abs() + 2.0 * of_d(k);
        let mean: f64 = p.iter().zip(&d).map(|(p, d)| p * d).sum();
        let all = |of: &dyn Fn(usize) -> f64| (0..m).map(|k| softmax.most(k) * of(k)).sum::<f64>();
        let (size, moved) = (all(&most_d), all(&of_d));
        let of_mean = all(&|k| (softmax.of_p(k) + gamma(m + 3, u)) * most_d(k));
        let bound = |k: usize| {
            let handed_on = of_d(k) + moved + 2.0 * worst * (most_d(k) + 2.0 * size);
            softmax.most(k) * (handed_on + (softmax.of_p(k) + gamma(3, u)) * (most_d(k) + size) + of_mean)
        };
        Bounded { value: (0..m).map(|k| p[k] * (d[k] - mean)).collect(), bound: (0..m).map(bound).collect() }
    }
}

/// A loss that is borrowed or shared is that loss.
impl<F: Scalar, L: BoundedLoss<F> + ?Sized> BoundedLoss<F> for &L {
    fn bounds(&self, y_hat: &Bounded<Vec<f64>>, y: &[Self::Target]) -> LossBounds {
        (**self).bounds(y_hat, y)
    }

    fn second_derivative_bounds(
        &self,
        y_hat: &Bounded<Vec<f64>>,
        y: &[Self::Target],
        v: &Bounded<Vec<f64>>,
    ) -> Bounded<Vec<f64>> {
        (**self).second_derivative_bounds(y_hat, y, v)
    }
}
