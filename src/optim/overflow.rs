//! Bounds that prove a step finite before it is made.

use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::optim::optimizer::Optimizer;
use crate::optim::rule::Rule;

/// Upper bounds of the absolute values of θ and of the moments, carried from step to step.
///
/// A step updates θ in place, so one that overflows would leave an infinity and no way back. Each
/// step therefore first proves that it cannot overflow. Let S be the sum of the squares of all its
/// z and δ. Each number of BG is a scalar product of a column of Δ and one of Z, or the sum of a
/// column of Δ, so by the Cauchy–Schwarz inequality it is at most S/2 or √(BS), and so are all its
/// partial sums. These bounds are loose by many orders of magnitude, but the largest `f32` is
/// further away still: a step that fails them has all but diverged, and only such a step is made
/// on a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OverflowBounds {
    theta: f64,
    moments: [f64; 2],
}

impl OverflowBounds {
    /// The largest absolute values of θ and of each array of moments.
    pub(crate) fn of<F: Scalar>(theta: &Parameters<F>, moments: &[Parameters<F>]) -> Self {
        let of_moment = |i: usize| moments.get(i).map_or(0.0, largest);
        Self { theta: largest(theta), moments: [of_moment(0), of_moment(1)] }
    }

    /// From the largest absolute values themselves.
    pub(crate) fn of_largest(theta: f64, moments: &[f64]) -> Self {
        let of_moment = |i: usize| moments.get(i).copied().unwrap_or(0.0);
        Self { theta, moments: [of_moment(0), of_moment(1)] }
    }

    /// The bounds of a θ of finite numbers and of moments of 0.
    pub(crate) fn of_any_finite<F: Scalar>() -> Self {
        Self { theta: F::MAX, moments: [0.0; 2] }
    }

    /// The bounds after a step with a batch of `samples` samples whose z and δ have the sum of
    /// squares S; `None` if a number might overflow. A factor of 2 is left for rounding errors,
    /// which stay below half of any sum of up to 2²² numbers.
    pub(crate) fn after<F: Scalar>(self, rule: &Rule, samples: usize, squares: f64) -> Option<Self> {
        let limit = F::MAX / 2.0;
        let sums = 2.0 * (0.5 * squares).max((samples as f64 * squares).sqrt());
        let g = sums / samples as f64;
        let Rule { optimizer, eta, decay, step, .. } = *rule;
        let [first, second] = self.moments;
        // The factor on m in Adam, η / (1 − β₁ᵏ), which is formed before the product.
        let mut rate = eta;
        let (moments, change) = match optimizer {
            Optimizer::Sgd => ([0.0; 2], g),
            Optimizer::Momentum { mu } => ([mu * first + g, 0.0], mu * first + g),
            Optimizer::Nesterov { mu } => ([mu * first + g, 0.0], g + mu * (mu * first + g)),
            Optimizer::Adam { beta1, beta2, epsilon } => {
                let correction1 = 1.0 - libm::pow(beta1, step as f64);
                rate = eta / correction1;
                let first = beta1 * first + (1.0 - beta1) * g;
                // At most m̂/ε; and m̂ for ε > 1, as η m̂ is formed before it is divided.
                ([first, beta2 * second + g * g], first / correction1 / epsilon.min(1.0))
            }
        };
        // Biases that do not decay keep their bound.
        let theta = rule.beta_of_biases().max(decay.beta) * self.theta + eta * change;
        // A finite number stays finite if less than half a unit in the last place of the largest
        // number is added to it: rounding takes that away before it leaves the range.
        let theta_is_finite = theta < limit || (self.theta.is_finite() && eta * change < 0.25 * F::EPSILON * F::MAX);
        // ‖ΔᵀZ‖ ≤ ‖Δ‖ ‖Z‖ over all layers; the square of ‖g‖ is summed in double precision.
        let samples = samples as f64;
        let squared_norm = (0.25 * squares * squares + samples * squares) / (samples * samples);
        let norm_is_finite = (rule.clip.is_none() && !rule.norm) || squared_norm < f64::MAX / 2.0;
        // The comparison is false for NaN.
        let rest_is_finite = [sums, rate, eta * change, moments[0], moments[1]].iter().all(|&bound| bound < limit);
        // The bounds have rounding errors themselves.
        let round_up = |bound: f64| (bound * (1.0 + 1e-6)).min(F::MAX);
        (rest_is_finite && theta_is_finite && norm_is_finite)
            .then(|| Self { theta: round_up(theta), moments: moments.map(round_up) })
    }
}

/// max |p|, in double precision.
pub(crate) fn largest<F: Scalar>(p: &Parameters<F>) -> f64 {
    // Array by array, which is many times faster than one iterator over all of them.
    let larger = |most: f64, p: &F| most.max(p.to_f64().abs());
    let most = p.w.iter().fold(0.0, |most, w| w.iter().fold(most, larger));
    p.c.iter().fold(most, |most, c| c.iter().fold(most, larger))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::rule::WeightDecay;

    fn rule(optimizer: Optimizer, norm: bool) -> Rule {
        let decay = WeightDecay { beta: 1.0, pending: 0.0 };
        Rule { optimizer, eta: 0.5, decay, decay_biases: true, step: 1, clip: None, sam: None, norm }
    }

    /// θ and the moments of the documented equations, from their largest numbers and the largest g,
    /// which is 2: S = 4 with B = 4, where √(BS) is larger than S/2.
    #[test]
    fn bounds_follow_the_equations_of_the_optimizers() {
        let adam = |epsilon| Optimizer::Adam { beta1: 0.5, beta2: 0.25, epsilon };
        for (optimizer, moments, theta, after) in [
            (Optimizer::Sgd, [0.0, 0.0], 4.0, [0.0, 0.0]),
            (Optimizer::Momentum { mu: 0.5 }, [6.0, 0.0], 5.5, [5.0, 0.0]),
            (Optimizer::Nesterov { mu: 0.5 }, [6.0, 0.0], 5.25, [5.0, 0.0]),
            (adam(0.25), [6.0, 8.0], 19.0, [4.0, 6.0]),
            (adam(4.0), [6.0, 8.0], 7.0, [4.0, 6.0]),
        ] {
            let bounds = OverflowBounds { theta: 3.0, moments };
            let found = bounds.after::<f64>(&rule(optimizer, false), 4, 4.0).unwrap();
            // Rounded up by a millionth.
            let up = |bound: f64| bound * (1.0 + 1e-6);
            assert_eq!(found, OverflowBounds { theta: up(theta), moments: after.map(up) }, "{optimizer:?}");
        }
        // Where S/2 is larger: 2 · 32 / 4.
        let found =
            OverflowBounds { theta: 3.0, moments: [0.0; 2] }.after::<f64>(&rule(Optimizer::Sgd, false), 4, 64.0);
        assert_eq!(found.unwrap().theta, 11.0 * (1.0 + 1e-6));
    }

    /// The square of ‖g‖ is at most (S²/4 + BS)/B².
    #[test]
    fn a_norm_that_may_overflow_is_refused_where_it_is_asked_for() {
        let bounds = OverflowBounds { theta: 1.0, moments: [0.0; 2] };
        let largest = |norm, samples, squares| bounds.after::<f64>(&rule(Optimizer::Sgd, norm), samples, squares);
        let squares = 2.5e154;
        assert!(largest(true, 1, squares).is_none() && largest(false, 1, squares).is_some());
        assert!(largest(true, 2, squares).is_some());
    }
}
