//! The learning rate over the steps of a run.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// The learning rate η over the steps of a run: a schedule, and a warm-up if there is one.
///
/// | schedule | η at step k = 0, 1, … of epoch e = 0 … E−1 | source |
/// |---|---|---|
/// | [`constant`](LearningRate::constant) | η₀ | |
/// | [`step`](LearningRate::step) | η₀ γ^⌊e/n⌋ | |
/// | [`cosine`](LearningRate::cosine) | η₁ + ½ (η₀ − η₁)(1 + cos(π e/E)), e with its fraction | Loshchilov and Hutter 2017 |
/// | [`inverse_scaling`](LearningRate::inverse_scaling) | η₀ / (k + 1)^p | Robbins and Monro 1951 |
/// | [`on_plateau`](LearningRate::on_plateau) | η₀ γʲ, j the number of plateaus so far | |
///
/// A [`warm_up`](LearningRate::warm_up) of n steps multiplies any of them by min(1, (k + 1)/n) (Goyal et al. 2017).
///
/// **StepPolicy and epochs.** k counts all steps of a trainer, those of
/// [`Trainer::step`](crate::Trainer::step) too: warm-up and inverse scaling go on with each. e
/// counts epochs, which single steps belong to none of: between them a step, a cosine or a plateau
/// schedule stands still. E is [`Training::epochs`](crate::Training::epochs). After E epochs, as
/// [`partial_fit`](crate::Trainer::partial_fit) can make them, a cosine stays at its least rate η₁;
/// where that is 0, a further epoch or step is an error
/// ([`Error::Hyperparameter`]), as a rate of 0 would train nothing.
/// The same goes for any schedule whose rate has become 0 in the network's type.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct LearningRate {
    eta: f64,
    schedule: Schedule,
    warm_up: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
enum Schedule {
    Constant,
    Step { every: usize, factor: f64 },
    Cosine { least: f64 },
    InverseScaling { power: f64 },
    OnPlateau { factor: f64, patience: usize },
}

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// StepPolicy made over the life of the trainer.
    pub(crate) steps: u64,
    /// Epochs done, and the part done of the one that runs.
    pub(crate) epoch: usize,
    pub(crate) part: f64,
    /// Epochs in all.
    pub(crate) epochs: usize,
    /// Plateaus so far.
    pub(crate) plateaus: u32,
    /// Weight decay that is still to be applied, as a logarithm.
    pub(crate) decay: f64,
}

impl LearningRate {
    fn new(eta: f64, schedule: Schedule) -> Self {
        Self { eta, schedule, warm_up: 0 }
    }

    /// η₀ throughout.
    #[must_use]
    pub fn constant(eta: f64) -> Self {
        Self::new(eta, Schedule::Constant)
    }

    /// Multiplied by `factor` after `every` epochs.
    #[must_use]
    pub fn step(eta: f64, every: usize, factor: f64) -> Self {
        Self::new(eta, Schedule::Step { every, factor })
    }

    /// Half a cosine, from η₀ down to `least` at the end of the last epoch; `least` from there on,
    /// unless that is 0: then training beyond the last epoch is refused.
    /// [`set_epochs`](crate::Trainer::set_epochs) stretches it.
    #[must_use]
    pub fn cosine(eta: f64, least: f64) -> Self {
        Self::new(eta, Schedule::Cosine { least })
    }

    /// η₀ / (k + 1)^`power`.
    #[must_use]
    pub fn inverse_scaling(eta: f64, power: f64) -> Self {
        Self::new(eta, Schedule::InverseScaling { power })
    }

    /// Multiplied by `factor` whenever `patience` epochs, and one more, have not brought the loss below its least value so far: the
    /// validation loss where there is one, else the training loss.
    #[must_use]
    pub fn on_plateau(eta: f64, factor: f64, patience: usize) -> Self {
        Self::new(eta, Schedule::OnPlateau { factor, patience })
    }

    /// Growing linearly to its value over the first `steps` steps.
    #[must_use]
    pub fn warm_up(self, steps: u64) -> Self {
        Self { warm_up: steps, ..self }
    }

    /// The largest η there will be.
    pub(crate) fn most(&self) -> f64 {
        self.eta
    }

    /// The epochs without a new least loss that this schedule bears.
    pub(crate) fn patience(&self) -> Option<usize> {
        match self.schedule {
            Schedule::OnPlateau { patience, .. } => Some(patience),
            _ => None,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let check = |fine: bool, name, expected, found| {
            if fine { Ok(()) } else { Err(Error::Hyperparameter { name, expected, found }) }
        };
        let factor =
            |factor: f64| check(factor > 0.0 && factor <= 1.0, "factor", "a number above 0 and up to 1", factor);
        check(self.eta.is_finite() && self.eta > 0.0, "learning_rate", "a finite, positive number", self.eta)?;
        match self.schedule {
            Schedule::Constant => Ok(()),
            Schedule::Step { every, factor: by } => {
                check(every > 0, "every", "at least 1 epoch", every as f64)?;
                factor(by)
            }
            Schedule::Cosine { least } => {
                check((0.0..=self.eta).contains(&least), "least", "a number from 0 to the first learning rate", least)
            }
            Schedule::InverseScaling { power } => {
                check(power.is_finite() && power >= 0.0, "power", "a finite number from 0", power)
            }
            Schedule::OnPlateau { factor: by, .. } => factor(by),
        }
    }

    /// η now.
    pub(crate) fn at(&self, now: &Now) -> f64 {
        let eta = match self.schedule {
            Schedule::Constant => self.eta,
            Schedule::Step { every, factor } => self.eta * factor.powf((now.epoch / every) as f64),
            Schedule::Cosine { least } if now.epoch >= now.epochs => least,
            Schedule::Cosine { least } => {
                let done = (now.epoch as f64 + now.part) / now.epochs as f64;
                // ½ (1 + cos πd), which is 0 before d is 1 where it is a sum.
                least + (self.eta - least) * (0.5 * PI * done).cos().powi(2)
            }
            Schedule::InverseScaling { power } => self.eta / (now.steps as f64 + 1.0).powf(power),
            Schedule::OnPlateau { factor, .. } => self.eta * factor.powf(f64::from(now.plateaus)),
        };
        if now.steps < self.warm_up { eta * (now.steps as f64 + 1.0) / self.warm_up as f64 } else { eta }
    }
}
