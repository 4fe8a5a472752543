//! Optimisers: the rule of a step, its coefficients, and a bound that proves it finite.

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;

/// How a step follows from the gradient g = (1/B) Σ ∇θ ℓ.
///
/// | optimiser | step k = 1, 2, … | source |
/// |---|---|---|
/// | [`Sgd`](Optimizer::Sgd) | θ ← (1 − ηλ) θ − η g | Robbins and Monro 1951 |
/// | [`Momentum`](Optimizer::Momentum) | v ← μ v + g; θ ← (1 − ηλ) θ − η v | Polyak 1964 |
/// | [`Nesterov`](Optimizer::Nesterov) | v ← μ v + g; θ ← (1 − ηλ) θ − η (g + μ v) | Nesterov 1983; Sutskever et al. 2013 |
/// | [`Adam`](Optimizer::Adam) | m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; θ ← (1 − ηλ) θ − η m̂ / (√v̂ + ε) | Kingma and Ba 2015 |
///
/// with m̂ = m / (1 − β₁ᵏ) and v̂ = v / (1 − β₂ᵏ), squares and roots number by number, and m = v =
/// 0 at the start. The weight decay λ is decoupled from the gradient: with Adam this is AdamW
/// (Loshchilov and Hutter 2019, *Decoupled weight decay regularization*). η stands outside the
/// velocity, so that a change of the learning rate acts at once. β₁ and β₂ are the nearest numbers
/// of the network's type, wherever they occur: m and v are means whose weights add up to 1.
///
/// **Weight decay that rounding would swallow is saved up.** 1 − ηλ, rounded to the network's type,
/// may be another factor, or 1: in `f32` an ηλ of 10⁻⁷ would decay 19 % too much, and one of 10⁻⁹
/// not at all. What is still to be decayed is therefore kept as a logarithm, in double precision,
/// and applied where the type can tell it:
///
/// ```text
/// p ← p − ln(1 − ηλ)                      p = 0 at the start
/// p < 256 ε:  β = 1                        ε: from 1 to the next larger number of the type, 1.2·10⁻⁷ or 2.2·10⁻¹⁶
/// else:       β = e⁻ᵖ, rounded to the type;  p ← p + ln β
/// ```
///
/// and the table's 1 − ηλ is β. The product of all β is that of all 1 − ηλ to within a factor of
/// e^±256ε, whatever their number: the rounding of each β is made good by the next. Where ηλ ≥ 256
/// ε, this is 1 − ηλ in each step. A factor of 1 − 256 ε or less moves each number by 128 units in
/// its last place or more, so that the rounding of their product does not swallow it either.
///
/// With any of them, g can be taken where the loss is largest nearby, at θ + ρ g/‖g‖ (sharpness-aware minimisation, SAM, Foret et al.
/// 2021): [`Training::sam`](crate::Training::sam).
///
/// Two steps deserve a note. Nesterov's gradient at the point ahead, θ − ημv, is taken here at that point throughout: θ *is* the point
/// ahead, as in Sutskever's rewriting. And λ acts on all of θ, constants included.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
pub enum Optimizer {
    /// Plain gradient descent.
    #[default]
    Sgd,
    /// Heavy-ball momentum.
    Momentum {
        /// μ, from 0 to below 1; 0.9 is usual.
        mu: f64,
    },
    /// Nesterov's accelerated gradient.
    Nesterov {
        /// μ, from 0 to below 1; 0.9 is usual.
        mu: f64,
    },
    /// Adam; with weight decay AdamW.
    Adam {
        /// β₁, from 0 to below 1.
        beta1: f64,
        /// β₂, from 0 to below 1.
        beta2: f64,
        /// ε > 0.
        epsilon: f64,
    },
}

impl Optimizer {
    /// Adam with the paper's β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸; it wants an η of about 10⁻³.
    #[must_use]
    pub fn adam() -> Self {
        Self::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }

    /// How many numbers it keeps for each parameter.
    pub(crate) fn moments(self) -> usize {
        match self {
            Self::Sgd => 0,
            Self::Momentum { .. } | Self::Nesterov { .. } => 1,
            Self::Adam { .. } => 2,
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        for (name, found) in self.decays().into_iter().flatten() {
            if !(0.0..1.0).contains(&found) {
                return Err(Error::Hyperparameter { name, expected: "a number from 0 to below 1", found });
            }
        }
        match self {
            Self::Adam { epsilon, .. } if !(epsilon.is_finite() && epsilon > 0.0) => {
                Err(Error::Hyperparameter { name: "epsilon", expected: "a finite, positive number", found: epsilon })
            }
            _ => Ok(()),
        }
    }

    /// What its moments are multiplied with from step to step, by name.
    fn decays(self) -> [Option<(&'static str, f64)>; 2] {
        match self {
            Self::Sgd => [None; 2],
            Self::Momentum { mu } | Self::Nesterov { mu } => [Some(("mu", mu)), None],
            Self::Adam { beta1, beta2, .. } => [Some(("beta1", beta1)), Some(("beta2", beta2))],
        }
    }

    /// Refuses numbers that a network's type rounds to what they must not be.
    pub(crate) fn check_in<F: Scalar>(self) -> Result<()> {
        for (name, found) in self.decays().into_iter().flatten() {
            if F::from_f64(found) == F::ONE {
                let expected = "a number that the network's type can tell from 1";
                return Err(Error::Hyperparameter { name, expected, found });
            }
        }
        match self {
            Self::Adam { epsilon, .. } => check_not_0::<F>("epsilon", epsilon),
            _ => Ok(()),
        }
    }
}

/// Refuses a number that is 0 in the network's type.
pub(crate) fn check_not_0<F: Scalar>(name: &'static str, found: f64) -> Result<()> {
    if F::from_f64(found) == F::ZERO {
        return Err(Error::Hyperparameter {
            name,
            expected: "a number that the network's type can tell from 0",
            found,
        });
    }
    Ok(())
}

/// The weight decay of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Decay {
    /// What θ is multiplied with: a number of the network's type.
    pub(crate) beta: f64,
    /// −ln of what is still to be multiplied with after the step, if it is made.
    pub(crate) pending: f64,
}

impl Decay {
    /// By 1 − ηλ, and what is pending from the steps before: see the equations of [`Optimizer`].
    pub(crate) fn next<F: Scalar>(eta: f64, lambda: f64, pending: f64) -> Self {
        let all = pending - (-eta * lambda).ln_1p();
        if all < 256.0 * F::EPSILON {
            return Self { beta: 1.0, pending: all };
        }
        // The power by its two factors: without anything pending, β is 1 − ηλ to the last bit.
        let beta = F::from_f64((1.0 - eta * lambda) * (-pending).exp()).to_f64();
        // A β of 0 leaves nothing to be decayed.
        Self { beta, pending: if beta > 0.0 { all + beta.ln() } else { 0.0 } }
    }

    /// Can this be pending between two steps? What is not saved up is a rounding of β, which is never below the least number.
    #[cfg(feature = "files")]
    pub(crate) fn can_be_pending(pending: f64) -> bool {
        pending.abs() < 1.0
    }
}

/// SingleStep step's rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) optimizer: Optimizer,
    pub(crate) eta: f64,
    pub(crate) decay: Decay,
    /// k, the number of this step over the life of the moments, from 1.
    pub(crate) step: u64,
    /// The norm that g is scaled down to if it is longer.
    pub(crate) clip: Option<f64>,
    /// ρ of sharpness-aware minimisation.
    pub(crate) sam: Option<f64>,
    /// Is ‖g‖ asked for, of a rule that does not need it?
    pub(crate) norm: bool,
}

/// What an optimiser remembers from step to step.
#[derive(Debug, Clone)]
pub(crate) struct Moments<F> {
    /// v, or m and v, in the shape of θ.
    pub(crate) arrays: Vec<Parameters<F>>,
    /// Bounds of all numbers of θ and of the moments, if these are watched for overflow.
    pub(crate) bounds: Option<OverflowBounds>,
}

impl<F: Scalar> Moments<F> {
    /// Of plain gradient descent, for a θ that is finite and otherwise unknown: to look at all of
    /// it would take a step of one sample about as long as to multiply with it.
    pub(crate) fn none() -> Self {
        Self { arrays: Vec::new(), bounds: Some(OverflowBounds { theta: F::MAX, moments: [0.0; 2] }) }
    }

    /// The same of a caller that looks at θ itself.
    pub(crate) fn unwatched() -> Self {
        Self { arrays: Vec::new(), bounds: None }
    }

    /// Zero, and watched.
    pub(crate) fn new(optimizer: Optimizer, theta: &Parameters<F>) -> Self {
        let mut moments = Self { arrays: vec![theta.zeros_like(); optimizer.moments()], bounds: None };
        moments.reset_bounds(theta);
        moments
    }

    /// After θ has been changed otherwise than by a step.
    pub(crate) fn reset_bounds(&mut self, theta: &Parameters<F>) {
        self.bounds = Some(OverflowBounds::new(theta, self));
    }
}

/// The numbers of a [`Rule`] in the network's own precision, made once a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients<F> {
    optimizer: Optimizer,
    /// What g is scaled by: 1, or less where it is clipped.
    scale: F,
    /// β of the weight decay: 1 − ηλ, or 1 while that is saved up.
    keep: F,
    eta: F,
    /// μ or β₁, and β₂
    decay: [F; 2],
    /// 1 − β₁ and 1 − β₂
    rest: [F; 2],
    /// η / (1 − β₁ᵏ), and √(1 − β₂ᵏ)
    unbiased: [F; 2],
    epsilon: F,
}

impl Rule {
    pub(crate) fn coefficients<F: Scalar>(&self, scale: f64) -> Coefficients<F> {
        let number = F::from_f64;
        let (decay, epsilon) = match self.optimizer {
            Optimizer::Sgd => ([0.0; 2], 0.0),
            Optimizer::Momentum { mu } | Optimizer::Nesterov { mu } => ([mu, 0.0], 0.0),
            Optimizer::Adam { beta1, beta2, epsilon } => ([beta1, beta2], epsilon),
        };
        // As the type has them, so that β + (1 − β) = 1 and 1 − βᵏ is what they add up to.
        let decay = decay.map(|beta| number(beta).to_f64());
        let bias = decay.map(|beta| 1.0 - beta.powf(self.step as f64));
        Coefficients {
            optimizer: self.optimizer,
            scale: number(scale),
            keep: number(self.decay.beta),
            eta: number(self.eta),
            decay: decay.map(number),
            rest: decay.map(|beta| number(1.0 - beta)),
            unbiased: [number(self.eta / bias[0]), number(bias[1].sqrt())],
            epsilon: number(epsilon),
        }
    }
}

impl<F: Scalar> Coefficients<F> {
    /// The step of some parameters w with gradient g: one pass. `first` and `second` are their moments, and empty where the optimiser
    /// has none.
    pub(crate) fn apply(&self, g: &[F], first: &mut [F], second: &mut [F], w: &mut [F]) {
        let Self {
            scale, keep, eta, decay: [mu, beta2], rest: [rest1, rest2], unbiased: [rate, root], epsilon, ..
        } = *self;
        let beta1 = mu;
        match self.optimizer {
            Optimizer::Sgd => {
                for (w, &g) in w.iter_mut().zip(g) {
                    *w = keep * *w - eta * (scale * g);
                }
            }
            Optimizer::Momentum { .. } => {
                for ((w, v), &g) in w.iter_mut().zip(first).zip(g) {
                    *v = mu * *v + scale * g;
                    *w = keep * *w - eta * *v;
                }
            }
            Optimizer::Nesterov { .. } => {
                for ((w, v), &g) in w.iter_mut().zip(first).zip(g) {
                    let g = scale * g;
                    *v = mu * *v + g;
                    *w = keep * *w - eta * (g + mu * *v);
                }
            }
            Optimizer::Adam { .. } => {
                for (((w, m), v), &g) in w.iter_mut().zip(first).zip(second).zip(g) {
                    let g = scale * g;
                    *m = beta1 * *m + rest1 * g;
                    *v = beta2 * *v + rest2 * (g * g);
                    *w = keep * *w - rate * *m / (v.sqrt() / root + epsilon);
                }
            }
        }
    }
}

/// Upper bounds of the absolute values of θ and of the moments, carried from step to step.
///
/// An update that overflows leaves an infinity in θ, and θ before it is gone: it was updated in place. So each step first proves that it
/// cannot overflow. With S the sum of the squares of all its z and δ, each number of BG is a scalar product of a column of Δ and one of
/// Z, or the sum of a column of Δ, and by Cauchy and Schwarz no larger than S/2 or √(BS); and so are all its partial sums. These
/// bounds are loose by many orders of magnitude, and the largest `f32` is larger by more: a step for which they fail has all but
/// diverged. Only such a step is made on a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OverflowBounds {
    theta: f64,
    moments: [f64; 2],
}

impl OverflowBounds {
    /// What the numbers are now.
    fn new<F: Scalar>(theta: &Parameters<F>, moments: &Moments<F>) -> Self {
        let of = |i: usize| moments.arrays.get(i).map_or(0.0, largest);
        Self { theta: largest(theta), moments: [of(0), of(1)] }
    }

    /// The bounds after a step with a batch of so many samples whose z and δ have the sum of squares S; `None` if a number might
    /// overflow. A factor of 2 is left for rounding, which stays below 2⁻¹ of any sum of up to 2²² numbers.
    pub(crate) fn after<F: Scalar>(self, rule: &Rule, samples: usize, squares: f64) -> Option<Self> {
        let limit = F::MAX / 2.0;
        let of_sums = 2.0 * (0.5 * squares).max((samples as f64 * squares).sqrt());
        let g = of_sums / samples as f64;
        let Rule { optimizer, eta, decay, step, .. } = *rule;
        let [first, second] = self.moments;
        // What m is multiplied with first, in Adam.
        let mut rate = eta;
        let (moments, change) = match optimizer {
            Optimizer::Sgd => ([0.0; 2], g),
            Optimizer::Momentum { mu } => ([mu * first + g, 0.0], mu * first + g),
            Optimizer::Nesterov { mu } => ([mu * first + g, 0.0], g + mu * (mu * first + g)),
            Optimizer::Adam { beta1, beta2, epsilon } => {
                let bias = 1.0 - beta1.powf(step as f64);
                rate = eta / bias;
                let first = beta1 * first + (1.0 - beta1) * g;
                // TrainValidation by ε, or multiplied by η alone on the way there.
                ([first, beta2 * second + g * g], first / bias / epsilon.min(1.0))
            }
        };
        let theta = decay.beta * self.theta + eta * change;
        // Whatever number is added to, as long as it is finite, less than half a unit in the last
        // place of the largest one is rounded away before it leaves the range.
        let theta_fine = theta < limit || (self.theta.is_finite() && eta * change < 0.25 * F::EPSILON * F::MAX);
        // ‖ΔᵀZ‖ ≤ ‖Δ‖ ‖Z‖ over all layers; its square is summed up in double precision.
        let of_norm = (0.25 * squares * squares + samples as f64 * squares) / (samples as f64).powi(2);
        let norm_fine = (rule.clip.is_none() && !rule.norm) || of_norm < f64::MAX / 2.0;
        // The comparison is false for NaN.
        let fine = [of_sums, rate, eta * change, moments[0], moments[1]].iter().all(|&bound| bound < limit);
        // The bounds are rounded too.
        let up = |bound: f64| (bound * (1.0 + 1e-6)).min(F::MAX);
        (fine && theta_fine && norm_fine).then(|| Self { theta: up(theta), moments: moments.map(up) })
    }
}

/// max |p|, in double precision.
pub(crate) fn largest<F: Scalar>(theta: &Parameters<F>) -> f64 {
    // Array by array, which is many times faster than one iterator over all of them.
    let of = |most: f64, p: &F| most.max(p.to_f64().abs());
    let most = theta.w.iter().fold(0.0, |most, w| w.iter().fold(most, of));
    theta.c.iter().fold(most, |most, c| c.iter().fold(most, of))
}
