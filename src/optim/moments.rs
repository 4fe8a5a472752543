//! The optimiser's moments.

use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::optim::optimizer::Optimizer;
use crate::optim::overflow::OverflowBounds;

/// What an optimiser carries from step to step.
#[derive(Debug, Clone)]
pub(crate) struct Moments<F> {
    /// v, or m and v, each in the shape of θ.
    pub(crate) arrays: Vec<Parameters<F>>,
    /// Bounds of θ and of the moments, if steps are to be refused before they overflow.
    pub(crate) bounds: Option<OverflowBounds>,
}

impl<F: Scalar> Moments<F> {
    /// The state of plain gradient descent on a finite θ whose size is unknown: to look at all of
    /// θ would take a step of one sample about as long as to multiply with it.
    pub(crate) fn none() -> Self {
        Self { arrays: Vec::new(), bounds: Some(OverflowBounds::of_any_finite::<F>()) }
    }

    /// The state of plain gradient descent for a caller that looks for overflow in θ itself.
    pub(crate) fn unwatched() -> Self {
        Self { arrays: Vec::new(), bounds: None }
    }

    /// Moments of 0, with bounds.
    pub(crate) fn new(optimizer: Optimizer, theta: &Parameters<F>) -> Self {
        let mut moments = Self { arrays: vec![theta.zeros_like(); optimizer.moments()], bounds: None };
        moments.reset_bounds(theta);
        moments
    }

    /// Takes the bounds from θ and the moments as they are, after θ was changed by something other
    /// than a step.
    pub(crate) fn reset_bounds(&mut self, theta: &Parameters<F>) {
        self.bounds = Some(OverflowBounds::of(theta, &self.arrays));
    }
}
