//! The learning rate over the steps of a run.

use std::f64::consts::PI;
use std::fmt::{self, Display};

use crate::error::Result;
use crate::optim::hyperparameter::{check, check_positive};

/// The learning rate η over the steps of a run: a schedule, and a warm-up if there is one.
///
/// ```text
/// schedule          η at step k = 0, 1, … of epoch e = 0 … E−1
/// constant          η₀
/// step              η₀ γ^⌊e/n⌋
/// cosine            η₁ + ½ (η₀ − η₁)(1 + cos(π e/E))      Loshchilov and Hutter 2017
/// inverse_scaling   η₀ / (k + 1)^p                        Robbins and Monro 1951
/// on_plateau        η₀ γʲ                                 j: the number of plateaus so far
/// piecewise         the η that is given from the last epoch ≤ e on
/// ```
///
/// In the cosine, e includes the fraction of the epoch that is done. A
/// [`warm_up`](LearningRate::warm_up) of n steps multiplies any of them by min(1, (k + 1)/n) (Goyal
/// et al. 2017).
///
/// **Steps and epochs.** k counts all steps of a trainer, including those of
/// [`Trainer::step`](crate::Trainer::step), so each of them advances warm-up and inverse scaling. e
/// counts epochs, and single steps belong to none: they do not advance a step, cosine, plateau or
/// piecewise schedule. E is [`TrainingSettings::epochs`](crate::TrainingSettings::epochs). After E
/// epochs, which [`partial_fit`](crate::Trainer::partial_fit) can exceed, a cosine schedule stays
/// at its lowest rate η₁. A rate of 0 would train nothing, so an epoch or a step at a rate that is
/// 0 in the network's type is refused with [`Error::Hyperparameter`](crate::Error::Hyperparameter),
/// whatever the schedule.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct LearningRate {
    eta: f64,
    schedule: Schedule,
    warm_up: u64,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
enum Schedule {
    Constant,
    Step {
        every: usize,
        factor: f64,
    },
    Cosine {
        least: f64,
    },
    InverseScaling {
        power: f64,
    },
    OnPlateau {
        factor: f64,
        patience: usize,
    },
    /// Epochs, ascending from 0, each with the η from there on.
    Piecewise {
        rates: Vec<(usize, f64)>,
    },
}

/// The point of a run at which a schedule is evaluated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedulePoint {
    /// k, the number of steps made by the trainer.
    pub(crate) steps: u64,
    /// Epochs finished.
    pub(crate) epoch: usize,
    /// The fraction of the running epoch that is done.
    pub(crate) fraction: f64,
    /// E, the number of epochs the run is to have.
    pub(crate) epochs: usize,
    /// Plateaus so far.
    pub(crate) plateaus: u32,
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

    /// η₀, multiplied by γ = `factor` after every n = `every` epochs.
    #[must_use]
    pub fn step(eta: f64, every: usize, factor: f64) -> Self {
        Self::new(eta, Schedule::Step { every, factor })
    }

    /// Half a cosine, from η₀ down to η₁ = `least` at the end of the last epoch, and `least` from
    /// there on; if that is 0, training beyond the last epoch is refused.
    /// [`set_epochs`](crate::Trainer::set_epochs) stretches the cosine.
    #[must_use]
    pub fn cosine(eta: f64, least: f64) -> Self {
        Self::new(eta, Schedule::Cosine { least })
    }

    /// η₀ / (k + 1)^`power`.
    #[must_use]
    pub fn inverse_scaling(eta: f64, power: f64) -> Self {
        Self::new(eta, Schedule::InverseScaling { power })
    }

    /// η₀, multiplied by γ = `factor` after more than `patience` epochs in a row without a new
    /// lowest loss: the validation loss if there is one, otherwise the training loss.
    #[must_use]
    pub fn on_plateau(eta: f64, factor: f64, patience: usize) -> Self {
        Self::new(eta, Schedule::OnPlateau { factor, patience })
    }

    /// The η that is given from each epoch on, until the next of the epochs. The first is epoch 0,
    /// and they ascend.
    ///
    /// ```
    /// use gemmprop::LearningRate;
    ///
    /// let learning_rate = LearningRate::piecewise([(0, 0.1), (30, 0.02), (45, 0.05)]);
    /// ```
    #[must_use]
    pub fn piecewise(rates: impl IntoIterator<Item = (usize, f64)>) -> Self {
        let rates: Vec<_> = rates.into_iter().collect();
        // A NaN stays, so that it is refused.
        let larger = |most: f64, &(_, eta): &(usize, f64)| if eta <= most { most } else { eta };
        Self::new(rates.iter().fold(0.0, larger), Schedule::Piecewise { rates })
    }

    /// Lets η grow linearly to its value over the first `steps` steps.
    #[must_use]
    pub fn warm_up(self, steps: u64) -> Self {
        Self { warm_up: steps, ..self }
    }

    /// The largest η, which no step exceeds.
    pub(crate) fn largest(&self) -> f64 {
        self.eta
    }

    /// The number of epochs without a new lowest loss that a plateau schedule tolerates.
    pub(crate) fn patience(&self) -> Option<usize> {
        match self.schedule {
            Schedule::OnPlateau { patience, .. } => Some(patience),
            _ => None,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let check_factor =
            |factor: f64| check(factor > 0.0 && factor <= 1.0, "factor", "a number above 0 and up to 1", factor);
        check_positive("learning_rate", self.eta)?;
        match self.schedule {
            Schedule::Piecewise { ref rates } => self.check_rates(rates),
            Schedule::Constant => Ok(()),
            Schedule::Step { every, factor } => {
                check(every > 0, "every", "at least 1 epoch", every as f64)?;
                check_factor(factor)
            }
            Schedule::Cosine { least } => {
                check((0.0..=self.eta).contains(&least), "least", "a number from 0 to the first learning rate", least)
            }
            Schedule::InverseScaling { power } => {
                check(power.is_finite() && power >= 0.0, "power", "a finite number from 0", power)
            }
            Schedule::OnPlateau { factor, .. } => check_factor(factor),
        }
    }

    /// Refuses pieces that leave an epoch without a rate.
    fn check_rates(&self, rates: &[(usize, f64)]) -> Result<()> {
        let first = rates.first().map_or(f64::NAN, |&(epoch, _)| epoch as f64);
        check(first == 0.0, "piecewise", "a first rate from epoch 0 on", first)?;
        for pair in rates.windows(2) {
            check(pair[0].0 < pair[1].0, "piecewise", "epochs in ascending order", pair[1].0 as f64)?;
        }
        rates.iter().try_for_each(|&(_, eta)| {
            check_positive("learning_rate", eta)?;
            check(eta <= self.eta, "piecewise", "a rate up to the largest", eta)
        })
    }

    /// η at a point of the run.
    pub(crate) fn at(&self, point: &SchedulePoint) -> f64 {
        let SchedulePoint { steps, epoch, fraction, epochs, plateaus } = *point;
        let eta = match &self.schedule {
            Schedule::Constant => self.eta,
            Schedule::Step { every, factor } => self.eta * libm::pow(*factor, (epoch / every) as f64),
            Schedule::Cosine { least } if epoch >= epochs => *least,
            Schedule::Cosine { least } => {
                let done = (epoch as f64 + fraction) / epochs as f64;
                // ½ (1 + cos πd) as cos²(πd/2), because the sum is rounded to 0 before d is 1.
                let cosine = libm::cos(0.5 * PI * done);
                least + (self.eta - least) * (cosine * cosine)
            }
            Schedule::InverseScaling { power } => self.eta / libm::pow(steps as f64 + 1.0, *power),
            Schedule::OnPlateau { factor, .. } => self.eta * libm::pow(*factor, f64::from(plateaus)),
            Schedule::Piecewise { rates } => {
                let piece = rates.iter().rev().find(|&&(from, _)| from <= epoch);
                piece.expect("the first begins at 0").1
            }
        };
        if steps < self.warm_up { eta * (steps as f64 + 1.0) / self.warm_up as f64 } else { eta }
    }
}

/// A number is a [constant](LearningRate::constant) learning rate.
impl From<f64> for LearningRate {
    fn from(eta: f64) -> Self {
        Self::constant(eta)
    }
}

/// The schedule in words: "0.1", or "0.1, cosine to 0, warm-up of 20 steps".
impl Display for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { eta, schedule, warm_up } = self;
        match schedule {
            Schedule::Constant => write!(f, "{eta}"),
            Schedule::Step { every, factor } => write!(f, "{eta}, times {factor} every {every} epochs"),
            Schedule::Cosine { least } => write!(f, "{eta}, cosine to {least}"),
            Schedule::InverseScaling { power } => write!(f, "{eta}, divided by step^{power}"),
            Schedule::OnPlateau { factor, patience } => {
                write!(f, "{eta}, times {factor} after more than {patience} epochs without a new lowest loss")
            }
            Schedule::Piecewise { rates } => {
                for (i, (epoch, eta)) in rates.iter().enumerate() {
                    write!(f, "{}{eta} from epoch {epoch}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }?;
        if *warm_up > 0 { write!(f, ", warm-up of {warm_up} steps") } else { Ok(()) }
    }
}
