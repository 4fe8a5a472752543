//! The optimisers: their equations and hyperparameters.

use std::fmt::{self, Display};

use crate::error::Result;
use crate::linalg::scalar::Scalar;
use crate::optim::hyperparameter::{check, check_not_0, check_not_1, check_positive};

/// How a step follows from the gradient g = (1/B) Σ ∇θ ℓ.
///
/// ```text
///            step k = 1, 2, …
/// Sgd        θ ← (1 − ηλ) θ − η g                        Robbins and Monro 1951
/// Momentum   v ← μ v + g
///            θ ← (1 − ηλ) θ − η v                        Polyak 1964
/// Nesterov   v ← μ v + g
///            θ ← (1 − ηλ) θ − η (g + μ v)                Nesterov 1983; Sutskever et al. 2013
/// Adam       m ← β₁ m + (1 − β₁) g
///            v ← β₂ v + (1 − β₂) g²
///            θ ← (1 − ηλ) θ − η m̂ / (√v̂ + ε)             Kingma and Ba 2015
/// ```
///
/// with m̂ = m / (1 − β₁ᵏ) and v̂ = v / (1 − β₂ᵏ), squares and roots taken element by element, and
/// m = v = 0 at the start. The weight decay λ is decoupled from the gradient: with Adam this is
/// AdamW (Loshchilov and Hutter 2019, *Decoupled weight decay regularization*). η is not part of
/// the velocity v, so a change of the learning rate takes effect at once. β₁ and β₂ are rounded to
/// the network's type wherever they occur, so that m and v are means whose weights add up to 1.
///
/// **Weight decay too small for the type is accumulated.** 1 − ηλ, rounded to the network's type,
/// may be a different factor, or 1: in `f32`, an ηλ of 10⁻⁷ would decay 19 % too much, and one of
/// 10⁻⁹ not at all. The decay that is still to be applied is therefore kept as a logarithm p in
/// double precision, and applied once it is large enough for the type:
///
/// ```text
/// p ← p − ln(1 − ηλ)                      p = 0 at the start
/// p < 256 ε:  β = 1
/// else:       β = e⁻ᵖ, rounded to the type;  p ← p + ln β
/// ```
///
/// where ε is the distance from 1 to the next larger number of the type, 1.2·10⁻⁷ or 2.2·10⁻¹⁶, and
/// β stands in for 1 − ηλ above. After any number of steps, the product of all β equals that of all
/// 1 − ηλ to within a factor of e^±256ε, since each β makes up for the rounding of the one before.
/// Where ηλ ≥ 256 ε, β is 1 − ηλ in each step. A factor of 1 − 256 ε or less moves each parameter
/// by at least 128 units in its last place, so the rounding of the product is negligible too.
///
/// With any optimiser, g can be taken at the point nearby where the loss is largest, θ + ρ g/‖g‖
/// (sharpness-aware minimisation, SAM, Foret et al. 2021):
/// [`TrainingSettings::sam`](crate::TrainingSettings::sam).
///
/// Two conventions differ between libraries. Nesterov's gradient is that at the point ahead,
/// θ − ημv; here θ itself *is* the point ahead, as in Sutskever's form. And λ acts on all of θ,
/// constants included, unless
/// [`TrainingSettings::decay_biases`](crate::TrainingSettings::decay_biases) is false: then c and b
/// have β = 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Optimizer {
    /// Plain gradient descent, the only rule of [`Sgd`](crate::Sgd).
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
    /// Adam with the paper's β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸. A usual learning rate is 10⁻³.
    #[must_use]
    pub fn adam() -> Self {
        Self::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }

    /// The number of moment arrays, each in the shape of θ.
    pub(crate) fn moments(self) -> usize {
        match self {
            Self::Sgd => 0,
            Self::Momentum { .. } | Self::Nesterov { .. } => 1,
            Self::Adam { .. } => 2,
        }
    }

    /// Refuses hyperparameters that are out of their range.
    pub(crate) fn check(self) -> Result<()> {
        for (name, found) in self.moment_decays().into_iter().flatten() {
            check((0.0..1.0).contains(&found), name, "a number from 0 to below 1", found)?;
        }
        match self {
            Self::Adam { epsilon, .. } => check_positive("epsilon", epsilon),
            _ => Ok(()),
        }
    }

    /// Refuses hyperparameters that are out of their range once they are rounded to the network's
    /// type.
    pub(crate) fn check_in<F: Scalar>(self) -> Result<()> {
        for (name, found) in self.moment_decays().into_iter().flatten() {
            check_not_1::<F>(name, found)?;
        }
        match self {
            Self::Adam { epsilon, .. } => check_not_0::<F>("epsilon", epsilon),
            _ => Ok(()),
        }
    }

    /// Name and value of the factors that the moments are multiplied by in each step.
    fn moment_decays(self) -> [Option<(&'static str, f64)>; 2] {
        match self {
            Self::Sgd => [None; 2],
            Self::Momentum { mu } | Self::Nesterov { mu } => [Some(("mu", mu)), None],
            Self::Adam { beta1, beta2, .. } => [Some(("beta1", beta1)), Some(("beta2", beta2))],
        }
    }
}

/// The name and its hyperparameters: "Adam, beta1 0.9, beta2 0.999, epsilon 1e-8".
impl Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sgd => f.write_str("SGD"),
            Self::Momentum { mu } => write!(f, "momentum, mu {mu}"),
            Self::Nesterov { mu } => write!(f, "Nesterov, mu {mu}"),
            Self::Adam { beta1, beta2, epsilon } => {
                write!(f, "Adam, beta1 {beta1}, beta2 {beta2}, epsilon {epsilon:e}")
            }
        }
    }
}
