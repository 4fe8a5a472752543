//! The rule of one step: the optimiser's equations with their coefficients at that step.

use crate::linalg::scalar::Scalar;
use crate::optim::optimizer::Optimizer;

/// The weight decay of a step; [`Optimizer`] has the equations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WeightDecay {
    /// β, the factor on θ: a number of the network's type.
    pub(crate) beta: f64,
    /// p after the step: minus the logarithm of the decay that is still to be applied.
    pub(crate) pending: f64,
}

impl WeightDecay {
    /// The weight decay of a step with learning rate η, where `pending` is p before the step.
    pub(crate) fn next<F: Scalar>(eta: f64, lambda: f64, pending: f64) -> Self {
        let due = pending - libm::log1p(-eta * lambda);
        if due < 256.0 * F::EPSILON {
            return Self { beta: 1.0, pending: due };
        }
        // As a product of two factors, because with nothing pending β is then 1 − ηλ to the last
        // bit.
        let beta = F::from_f64((1.0 - eta * lambda) * libm::exp(-pending)).to_f64();
        // After a β of 0 there is nothing left to decay.
        Self { beta, pending: if beta > 0.0 { due + libm::log(beta) } else { 0.0 } }
    }

    /// Whether the factor 1 − ηλ at the largest learning rate is above 0 and at most 1.
    pub(crate) fn is_valid(largest_eta: f64, lambda: f64) -> bool {
        lambda >= 0.0 && largest_eta * lambda < 1.0
    }

    /// Whether p can have this value between two steps: it is either below 256 ε or the rounding
    /// error of ln β, and β is never below the smallest positive number of the type.
    #[cfg(feature = "files")]
    pub(crate) fn can_be_pending(pending: f64) -> bool {
        pending.abs() < 1.0
    }
}

/// The rule of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) optimizer: Optimizer,
    pub(crate) eta: f64,
    pub(crate) decay: WeightDecay,
    /// Whether c and b decay too.
    pub(crate) decay_biases: bool,
    /// k, the number of this step over the life of the moments, from 1.
    pub(crate) step: u64,
    /// The norm that g is scaled down to if it is longer.
    pub(crate) clip: Option<f64>,
    /// ρ of sharpness-aware minimisation.
    pub(crate) sam: Option<f64>,
    /// Whether ‖g‖ is to be reported even if the step does not need it.
    pub(crate) norm: bool,
}

impl Rule {
    /// β of c and b.
    pub(crate) fn beta_of_biases(&self) -> f64 {
        if self.decay_biases { self.decay.beta } else { 1.0 }
    }

    /// The coefficients of this step, with g multiplied by `gradient_scale`.
    pub(crate) fn coefficients<F: Scalar>(&self, gradient_scale: f64) -> Coefficients<F> {
        let method = match self.optimizer {
            Optimizer::Sgd => Method::Sgd,
            Optimizer::Momentum { mu } => Method::Momentum { mu: F::from_f64(mu) },
            Optimizer::Nesterov { mu } => Method::Nesterov { mu: F::from_f64(mu) },
            Optimizer::Adam { beta1, beta2, epsilon } => {
                Method::Adam(Adam::new(self.eta, [beta1, beta2], epsilon, self.step))
            }
        };
        Coefficients {
            gradient_scale: F::from_f64(gradient_scale),
            beta: F::from_f64(self.decay.beta),
            beta_of_biases: F::from_f64(self.beta_of_biases()),
            eta: F::from_f64(self.eta),
            method,
        }
    }
}

/// The coefficients of a [`Rule`], rounded to the network's type once a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients<F> {
    /// The factor on g: 1, or less where g is clipped.
    gradient_scale: F,
    /// β of the weight decay, the factor on θ.
    beta: F,
    /// β of c and b.
    beta_of_biases: F,
    /// η
    eta: F,
    method: Method<F>,
}

#[derive(Debug, Clone, Copy)]
enum Method<F> {
    Sgd,
    Momentum { mu: F },
    Nesterov { mu: F },
    Adam(Adam<F>),
}

/// Adam's coefficients at step k, with the corrections of the bias taken out of the loop:
/// η m̂ / (√v̂ + ε) = η / (1 − β₁ᵏ) · m / (√v / √(1 − β₂ᵏ) + ε).
#[derive(Debug, Clone, Copy)]
struct Adam<F> {
    beta1: F,
    beta2: F,
    one_minus_beta1: F,
    one_minus_beta2: F,
    /// η / (1 − β₁ᵏ)
    corrected_eta: F,
    /// √(1 − β₂ᵏ)
    root_of_correction2: F,
    epsilon: F,
}

impl<F: Scalar> Adam<F> {
    fn new(eta: f64, betas: [f64; 2], epsilon: f64, step: u64) -> Self {
        // Rounded to the type first, so that β + (1 − β) = 1 and 1 − βᵏ is the sum of the weights.
        let [beta1, beta2] = betas.map(|beta| F::from_f64(beta).to_f64());
        let [correction1, correction2] = [beta1, beta2].map(|beta| 1.0 - libm::pow(beta, step as f64));
        Self {
            beta1: F::from_f64(beta1),
            beta2: F::from_f64(beta2),
            one_minus_beta1: F::from_f64(1.0 - beta1),
            one_minus_beta2: F::from_f64(1.0 - beta2),
            corrected_eta: F::from_f64(eta / correction1),
            root_of_correction2: F::from_f64(correction2.sqrt()),
            epsilon: F::from_f64(epsilon),
        }
    }
}

impl<F: Scalar> Coefficients<F> {
    /// The coefficients of c and b.
    pub(crate) fn of_biases(&self) -> Self {
        Self { beta: self.beta_of_biases, ..*self }
    }

    /// The step of some parameters θ with gradient g, in one pass. `first` and `second` are their
    /// moments, and empty where the optimiser has none.
    pub(crate) fn apply(&self, g: &[F], first: &mut [F], second: &mut [F], theta: &mut [F]) {
        match &self.method {
            Method::Sgd => self.sgd(g, theta),
            Method::Momentum { mu } => self.momentum(*mu, g, first, theta),
            Method::Nesterov { mu } => self.nesterov(*mu, g, first, theta),
            Method::Adam(adam) => self.adam(adam, g, first, second, theta),
        }
    }

    /// θ ← β θ − η g
    fn sgd(&self, g: &[F], theta: &mut [F]) {
        let Self { gradient_scale, beta, eta, .. } = *self;
        for (theta, &g) in theta.iter_mut().zip(g) {
            *theta = beta * *theta - eta * (gradient_scale * g);
        }
    }

    /// v ← μ v + g; θ ← β θ − η v
    fn momentum(&self, mu: F, g: &[F], v: &mut [F], theta: &mut [F]) {
        let Self { gradient_scale, beta, eta, .. } = *self;
        for ((theta, v), &g) in theta.iter_mut().zip(v).zip(g) {
            *v = mu * *v + gradient_scale * g;
            *theta = beta * *theta - eta * *v;
        }
    }

    /// v ← μ v + g; θ ← β θ − η (g + μ v)
    fn nesterov(&self, mu: F, g: &[F], v: &mut [F], theta: &mut [F]) {
        let Self { gradient_scale, beta, eta, .. } = *self;
        for ((theta, v), &g) in theta.iter_mut().zip(v).zip(g) {
            let g = gradient_scale * g;
            *v = mu * *v + g;
            *theta = beta * *theta - eta * (g + mu * *v);
        }
    }

    /// m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; θ ← β θ − η m̂ / (√v̂ + ε)
    fn adam(&self, adam: &Adam<F>, g: &[F], m: &mut [F], v: &mut [F], theta: &mut [F]) {
        let Self { gradient_scale, beta, .. } = *self;
        let Adam { beta1, beta2, one_minus_beta1, one_minus_beta2, corrected_eta, root_of_correction2, epsilon } =
            *adam;
        for (((theta, m), v), &g) in theta.iter_mut().zip(m).zip(v).zip(g) {
            let g = gradient_scale * g;
            *m = beta1 * *m + one_minus_beta1 * g;
            *v = beta2 * *v + one_minus_beta2 * (g * g);
            *theta = beta * *theta - corrected_eta * *m / (v.sqrt() / root_of_correction2 + epsilon);
        }
    }
}
