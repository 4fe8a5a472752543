//! Checkpoints of a run, and when it pauses for one.

use std::ops::ControlFlow;
use std::time::Instant;

use gemmprop::{
    BatchEnd, Loss, Observer, Trainer,
    checkpoint::{Checkpoints, Notes},
};

use crate::message::{Result, chain, say, warn};
use crate::signals;

/// Writes checkpoints. Once one has been written, a failure does not end the run, since the next
/// save tries again.
pub(crate) struct Keeper<'a> {
    pub(crate) checkpoints: Option<&'a Checkpoints>,
    pub(crate) notes: Notes,
    /// Whether a checkpoint has been written.
    pub(crate) kept: bool,
    /// Why the last one could not be written.
    pub(crate) failure: Option<String>,
}

impl Keeper<'_> {
    pub(crate) fn keep<L: Loss<f32>>(&mut self, trainer: &Trainer<f32, L>, last: bool) -> Result {
        let Some(checkpoints) = self.checkpoints else { return Ok(()) };
        match checkpoints.save(trainer, &self.notes) {
            Ok(_) => {
                if self.failure.take().is_some() {
                    say("checkpoints can be written again");
                }
                self.kept = true;
            }
            // Nothing would be lost by ending the run here.
            Err(error) if !self.kept && !last => return Err(error.into()),
            Err(error) => {
                let failure = Some(chain(&error));
                // The warning is given once for each failure, not at every attempt.
                if !last && self.failure != failure {
                    let failure = failure.as_deref().unwrap_or_default();
                    warn(format!("warning: {failure}; the run goes on and tries to keep its state again"));
                }
                self.failure = failure;
            }
        }
        Ok(())
    }
}

/// Stops a run for a checkpoint, or for good.
pub(crate) struct Stop {
    pub(crate) until: Option<Instant>,
}

impl Observer<f32> for Stop {
    fn batch(&mut self, _batch: &BatchEnd) -> ControlFlow<()> {
        let stop = signals::received().is_some() || self.until.is_some_and(|until| Instant::now() >= until);
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
