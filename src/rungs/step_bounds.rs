//! What rounding does to the steps of an optimiser.

use crate::error::Result;
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::optim::hyperparameter::{check, check_positive};
use crate::optim::optimizer::Optimizer;
use crate::optim::rule::WeightDecay;
use crate::rungs::rounding::{Bounded, OF_MEAN, Order, gamma, most, or_none};
use crate::rungs::sample_bounds::{Network, widened};

/// A number in double precision, and how far it and that of the type may be from the exact one.
#[derive(Debug, Clone, Copy, Default)]
struct Number {
    value: f64,
    bound: f64,
}

impl Number {
    fn most(self) -> f64 {
        most(self.value, self.bound)
    }

    /// `lost` where a product with this number can underflow: one with 0 is 0.
    fn loses(self, lost: f64) -> f64 {
        if self.value == 0.0 && self.bound == 0.0 { 0.0 } else { lost }
    }
}

/// The rounding of a type.
#[derive(Debug, Clone, Copy)]
struct Rounding {
    u: f64,
    /// What a product that underflows can lose.
    tiny: f64,
}

impl Rounding {
    fn gamma(self, k: usize) -> f64 {
        gamma(k, self.u)
    }

    /// a p + b q, where a and b are not negative and are rounded to the type, then two products and
    /// a sum.
    fn combined(self, (a, p): (f64, Number), (b, q): (f64, Number)) -> Number {
        let rounding = self.gamma(3) * (a * p.most() + b * q.most());
        let bound = a * p.bound + b * q.bound + rounding + p.loses(self.tiny) + q.loses(self.tiny);
        Number { value: a * p.value + b * q.value, bound }
    }

    fn square(self, g: Number) -> Number {
        let off = (g.most() + g.value.abs() + g.bound) * g.bound;
        Number { value: g.value * g.value, bound: off + self.gamma(1) * g.most() * g.most() + g.loses(self.tiny) }
    }

    /// m̂/(√v̂ + ε), where m̂ = m/`bias[0]` and v̂ = v/`bias[1]`, whose relative errors are
    /// `of_bias`.
    ///
    /// |√a − √b| = |a − b|/(√a + √b), and no more than √|a − b|. Above: the factor η/(1 − β₁ᵏ),
    /// rounded twice, and its product. Below: the root, the factor 1/√(1 − β₂ᵏ) rounded twice, the
    /// quotient, ε and the sum. Then the quotient of both.
    /// What underflows above is `lost`.
    fn quotient(self, [m, v]: [Number; 2], bias: [f64; 2], of_bias: [f64; 2], epsilon: f64, lost: f64) -> Number {
        let root = v.value.sqrt();
        let least_root = (v.value - v.bound).max(0.0).sqrt();
        let of_root = v.bound.sqrt().min(if least_root > 0.0 { v.bound / least_root } else { f64::INFINITY });
        let corrected = bias[1].sqrt();
        let below = root / corrected + epsilon;
        let most_below = (root + 2.0 * of_root) / corrected + epsilon;
        let of_below = of_root / corrected + (self.gamma(6) + of_bias[1]) * most_below;
        let smallest = epsilon * (1.0 - self.gamma(2));
        let least = (below - 2.0 * of_below).max(smallest);
        let value = m.value / bias[0] / below;
        let of_above = m.bound / bias[0] + (self.gamma(3) + of_bias[0]) * m.most() / bias[0] + m.loses(lost);
        let largest = (m.value.abs() + m.bound) / bias[0] / (below - of_below).max(smallest);
        let quotient = m.most() / bias[0] * (1.0 + self.gamma(3) + of_bias[0]) / least;
        let bound = of_above / least + largest * of_below / least + self.gamma(1) * quotient;
        Number { value, bound: bound + m.loses(lost) }
    }
}

/// A gradient with its bounds, as [`loss_gradient`](crate::rungs::bounds::loss_gradient) makes it:
/// how far rungs 2 to 4, and the gradients of steps, may be from the exact one.
#[derive(Debug, Clone)]
pub struct GradientBounds {
    /// The mean ℓ, and how far the loss of any rung may be from the exact one; 0 for ∂ŷ/∂θ.
    pub loss: Bounded<f64>,
    /// The gradient.
    pub gradient: Bounded<Parameters<f64>>,
    /// How far rung 1 may be from the exact gradient: it adds up in another order. ∞ where that
    /// rung has no such gradient.
    pub naive: Parameters<f64>,
    /// The masks that rounding decides.
    pub uncertain: Vec<UncertainMask>,
    /// What plain descent, which may add the samples up on top of θ, makes of its gradient: `None`
    /// once the gradient is clipped.
    pub(crate) fused: Option<Fused>,
}

/// The parts of the bound of a gradient.
#[derive(Debug, Clone)]
pub(crate) struct Fused {
    pub(crate) handed_on: Parameters<f64>,
    pub(crate) size: Parameters<f64>,
    pub(crate) samples: usize,
    pub(crate) order: Order,
    /// That of the network.
    pub(crate) evaluation: f64,
}

/// A ReLU whose input may be on either side of 0: computations and the exact gradient may differ by
/// all of what comes through that neuron, and the bounds say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UncertainMask {
    /// The row of x.
    pub sample: usize,
    /// t of u\[t\], from 1 to T.
    pub layer: usize,
    /// The neuron.
    pub neuron: usize,
}

/// The factor `length`/‖g‖, or 1 where ‖g‖ is below `length` and `clips`, as the type rounds it.
/// The factor moves by length/‖g‖² as the norm moves, and not below ‖g‖ = length if it clips.
pub(crate) fn scaled<F: Scalar>(g: &Bounded<Parameters<f64>>, length: f64, clips: bool) -> Bounded<Parameters<f64>> {
    let rounding = Rounding { u: F::EPSILON / 2.0, tiny: 4.0 / F::MAX };
    let norm = g.norm();
    let value = if clips { (length / norm.value).min(1.0) } else { length / norm.value };
    let least = (norm.value - 2.0 * norm.bound).max(if clips { length } else { 0.0 });
    let moved = norm.bound * length / least / least;
    let factor = Number { value, bound: moved + rounding.gamma(2) * (value + 2.0 * moved) };
    let mut scaled = g.clone();
    for (value, bound) in scaled.value.iter_mut().zip(scaled.bound.iter_mut()) {
        let g = Number { value: *value, bound: *bound };
        let of_factor = factor.bound * g.most() + rounding.gamma(1) * factor.most() * g.most();
        *bound = or_none(factor.value * g.bound + of_factor + g.loses(rounding.tiny));
        *value *= factor.value;
    }
    scaled
}

impl GradientBounds {
    /// g min(1, c/‖g‖), the gradient that
    /// [`TrainingSettings::clip_norm`](crate::TrainingSettings::clip_norm) steps with in the number
    /// type F.
    #[must_use]
    pub fn clip_norm<F: Scalar>(&self, c: f64) -> Self {
        let infinite = self.naive.zeros_like();
        let mut clipped = Self { gradient: scaled::<F>(&self.gradient, c, true), naive: infinite, ..self.clone() };
        clipped.naive.iter_mut().for_each(|naive| *naive = f64::INFINITY);
        clipped.fused = None;
        clipped
    }
}

/// The steps of an optimiser from m = v = 0: what they do in double precision, and how far those of
/// [`Sgd`](crate::Sgd) and [`Trainer`](crate::Trainer) may be from exact ones.
///
/// Each step begins at the θ that the network has, and carries the bounds of the moments on.
#[derive(Debug, Clone)]
pub struct StepBounds {
    optimizer: Optimizer,
    /// m and v of each number of θ.
    moments: Vec<[Number; 2]>,
    steps: u64,
    pending_decay: f64,
    decay_biases: bool,
}

impl StepBounds {
    /// Before the first step.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`](crate::Error::Hyperparameter) for one that is out of its range.
    pub fn new(optimizer: Optimizer) -> Result<Self> {
        optimizer.check()?;
        Ok(Self { optimizer, moments: Vec::new(), steps: 0, pending_decay: 0.0, decay_biases: true })
    }

    /// Whether weight decay shrinks c and b too, as
    /// [`TrainingSettings::decay_biases`](crate::TrainingSettings::decay_biases) says.
    #[must_use]
    pub fn decay_biases(mut self, decay_biases: bool) -> Self {
        self.decay_biases = decay_biases;
        self
    }

    /// θ after a step with the gradient `g` at the network's θ, with learning rate η and weight
    /// decay λ.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`](crate::Error::Hyperparameter) for η or λ out of their range, and
    /// hyperparameters that are so in the network's type; [`Error::Shape`](crate::Error::Shape) for
    /// a gradient of another network.
    pub fn step<F: Scalar>(
        &mut self,
        mlp: &Mlp<F>,
        g: &GradientBounds,
        eta: f64,
        lambda: f64,
    ) -> Result<Bounded<Parameters<f64>>> {
        self.optimizer.check_in::<F>()?;
        check_positive("eta", eta)?;
        check(WeightDecay::is_valid(eta, lambda), "lambda", "a number from 0 to below 1/eta", lambda)?;
        let mut theta = widened(mlp.parameters());
        theta.check_same_shape(&g.gradient.value)?;
        self.steps += 1;
        self.moments.resize(theta.count(), [Number::default(); 2]);
        let decay = WeightDecay::next::<F>(eta, lambda, self.pending_decay);
        self.pending_decay = decay.pending;
        let rounding = Rounding { u: F::EPSILON / 2.0, tiny: 4.0 / F::MAX };
        let directions = self.directions::<F>(rounding, eta, &g.gradient);
        let mut bound = theta.zeros_like();
        let layers = theta.layers();
        let is_bias = layers.flat_map(|(w, c)| [vec![false; w.len()], vec![true; c.len()]].concat());
        let is_bias: Vec<bool> = is_bias.collect();
        let fused = if self.optimizer == Optimizer::Sgd { g.fused.as_ref() } else { None };
        let of_sums = fused.map(|fused| fused.of_directions(rounding));
        let numbers = theta.iter_mut().zip(bound.iter_mut()).zip(&directions).enumerate();
        for (p, ((theta, bound), d)) in numbers {
            let kept = if self.decay_biases || !is_bias[p] { decay.beta * *theta } else { *theta };
            // β, η and their products are rounded, and the difference: 3.
            let of_theta = rounding.gamma(fused.map_or(3, Fused::of_theta)) * kept.abs();
            let of_direction = match &of_sums {
                Some(of_sums) => of_sums[p],
                None => d.bound + rounding.gamma(3) * d.most(),
            };
            let lost = d.loses(rounding.tiny) + if kept == 0.0 { 0.0 } else { rounding.tiny };
            // Its own evaluation is a few operations on positive numbers.
            *bound = or_none((of_theta + eta * of_direction + lost) * (1.0 + 64.0 * f64::EPSILON));
            *theta = kept - eta * d.value;
        }
        Ok(Bounded { value: theta, bound })
    }

    /// What η is multiplied with, for each number of θ.
    fn directions<F: Scalar>(&mut self, rounding: Rounding, eta: f64, g: &Bounded<Parameters<f64>>) -> Vec<Number> {
        let (optimizer, steps) = (self.optimizer, self.steps);
        let g = g.value.iter().zip(g.bound.iter()).map(|(&value, &bound)| Number { value, bound });
        let direction = |(g, [first, second]): (Number, &mut [Number; 2])| match optimizer {
            Optimizer::Sgd => g,
            Optimizer::Momentum { mu } => {
                *first = rounding.combined((mu, *first), (1.0, g));
                *first
            }
            Optimizer::Nesterov { mu } => {
                *first = rounding.combined((mu, *first), (1.0, g));
                rounding.combined((1.0, g), (mu, *first))
            }
            Optimizer::Adam { beta1, beta2, epsilon } => {
                // As the type has them.
                let betas = [beta1, beta2].map(|beta| F::from_f64(beta).to_f64());
                *first = rounding.combined((betas[0], *first), (1.0 - betas[0], g));
                *second = rounding.combined((betas[1], *second), (1.0 - betas[1], rounding.square(g)));
                let bias = betas.map(|beta| 1.0 - libm::pow(beta, steps as f64));
                // A power is good to 2 ulp (libm promises 1), and kβᵏ/(1 − βᵏ) ≤ 1/(1 − β).
                let of_bias = betas.map(|beta| 4.0 * f64::EPSILON / (1.0 - beta));
                rounding.quotient([*first, *second], bias, of_bias, epsilon, rounding.tiny / eta)
            }
        };
        g.zip(&mut self.moments).map(direction).collect()
    }
}

impl Fused {
    /// How often θ is rounded: β, its product, and one addition; but BLAS may add the samples up on
    /// top of it.
    fn of_theta(&self) -> usize {
        match self.order {
            Order::Any => self.samples + 2,
            Order::Chains => 3,
        }
    }

    /// The bound of g, where the sum over the samples is followed by 3 more roundings, or is added
    /// to θ.
    fn of_directions(&self, rounding: Rounding) -> Vec<f64> {
        let [of_w, of_c] = [self.order.samples(self.samples, 1), self.order.bias(self.samples)]
            .map(|k| rounding.gamma(k + OF_MEAN + 3));
        let of = |gamma: f64| move |(handed_on, size): (&f64, &f64)| (handed_on + gamma * size) * self.evaluation;
        let layers = self.handed_on.layers().zip(self.size.layers());
        let mut bounds = Vec::new();
        for ((handed_w, handed_c), (size_w, size_c)) in layers {
            bounds.extend(handed_w.iter().zip(size_w).map(of(of_w)));
            bounds.extend(handed_c.iter().zip(size_c).map(of(of_c)));
        }
        bounds
    }
}

/// The point θ + ρ g/‖g‖ of sharpness-aware minimisation, and how far that of a computation may be
/// from it.
pub(crate) fn uphill<F: Scalar>(network: &mut Network, g: &Bounded<Parameters<f64>>, rho: f64) {
    let step = scaled::<F>(g, rho, false);
    let gamma = gamma(1, network.u);
    let numbers = network.theta.iter_mut().zip(network.error.iter_mut());
    for ((theta, error), (value, bound)) in numbers.zip(step.value.iter().zip(step.bound.iter())) {
        *error = or_none((bound + gamma * (theta.abs() + most(*value, *bound))) * network.evaluation);
        *theta += value;
    }
}
