//! What a run decides before each step, and what it is told after it.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::optim::rule::Rule;

/// The batches of an epoch; the last one may be smaller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batches {
    pub(crate) samples: usize,
    pub(crate) batch: usize,
}

impl Batches {
    pub(crate) fn count(self) -> usize {
        self.samples.div_ceil(self.batch)
    }
}

/// Decides on the steps of a run, and receives a report of each.
pub(crate) trait StepPolicy<F> {
    /// The rule of step `step` of the epoch, which comes next.
    fn rule(&mut self, step: usize) -> Rule;
    /// Called after each step with its report.
    fn step_done(&mut self, report: &StepReport) -> ControlFlow<()>;
}

/// A step that has been made.
#[derive(Debug)]
pub(crate) struct StepReport {
    pub(crate) step: usize,
    pub(crate) samples: usize,
    /// Σ ℓ over the batch, before the update.
    pub(crate) sum: f64,
    /// ‖g‖, if the rule asked for it or needed it.
    pub(crate) norm: Option<f64>,
}

/// A step that was not made, since something in it or after it is not finite. θ and the moments are
/// as before it.
#[derive(Debug)]
pub(crate) struct Diverged {
    pub(crate) step: usize,
    pub(crate) cause: NotFinite,
}

/// The quantity of a step that would not have been finite, with its value.
#[derive(Debug)]
pub(crate) struct NotFinite {
    pub(crate) what: &'static str,
    pub(crate) found: f64,
}

impl NotFinite {
    /// Refuses a number that is not finite.
    pub(crate) fn check(what: &'static str, found: f64) -> Result<f64, Self> {
        if found.is_finite() { Ok(found) } else { Err(Self { what, found }) }
    }

    /// Refuses parameters, or what is shaped like them, of which a number is not finite.
    pub(crate) fn check_all<F: Scalar>(what: &'static str, parameters: &Parameters<F>) -> Result<(), Self> {
        if parameters.all_finite() {
            return Ok(());
        }
        let found = parameters.iter().find(|p| !p.is_finite()).expect("one is not finite");
        Err(Self { what, found: found.to_f64() })
    }
}

impl Diverged {
    /// The user's error: in an epoch, counted from 0, or in a step by itself; with the loss of the
    /// step before.
    pub(crate) fn error(&self, epoch: Option<usize>, last: Option<f64>) -> Error {
        let Self { step, cause: NotFinite { what, found } } = *self;
        Error::Diverged { what, at: epoch.map(|epoch| (epoch + 1, step + 1)), found, last }
    }
}
