//! How a network is to be trained: the settings of a [`Trainer`](crate::Trainer), checked when it is made.

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::optim::learning_rate::{LearningRate, Now};
use crate::optim::optimizer::{Decay, Optimizer, Rule, check_not_0};

/// How to train. Start from the default and change what matters:
///
/// ```
/// use gemmprop::{LearningRate, Optimizer, Training};
///
/// let training = Training {
///     optimizer: Optimizer::adam(),
///     learning_rate: LearningRate::cosine(1e-3, 0.0).warm_up(100),
///     epochs: 25,
///     ..Training::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(default))] // settings that an older version did not have
pub struct Training {
    /// The rule of a step. Plain descent by default.
    pub optimizer: Optimizer,
    /// η. 0.1 throughout by default.
    pub learning_rate: LearningRate,
    /// λ of the decoupled weight decay, for all of θ, exact however small ηλ is
    /// ([`Optimizer`](crate::Optimizer) has the equations). 0 by default.
    pub weight_decay: f64,
    /// Epochs in all. 10 by default.
    pub epochs: usize,
    /// B. A last, smaller batch is averaged over its own size. 32 by default.
    pub batch: usize,
    /// A new order for each epoch, or the data's own. True by default.
    pub shuffle: bool,
    /// Of the shuffles and of the split. 0 by default. The network's own seed may be the same: they draw from other streams.
    pub seed: u64,
    /// The norm, over all of θ, that g is scaled down to if it is longer (Pascanu et al. 2013). None by default.
    pub clip_norm: Option<f64>,
    /// ρ of sharpness-aware minimisation (SAM, Foret et al. 2021), which seeks flat minima: g is taken at θ + ρ g/‖g‖ instead of θ, at the cost
    /// of a second pass. The losses recorded are those at θ; the norm is that of the g used. None by default.
    pub sam: Option<f64>,
    /// Are the inputs standardised, as fitted on the training part of the first data seen (with
    /// [`Trainer::step`](crate::Trainer::step), on the first batch)? Each sample counts once,
    /// whatever its weight, and not at all if that is 0. False by default.
    pub standardize: bool,
    /// The part of the samples that are kept from training for validation, if no validation set is given. None by default.
    pub validation_fraction: Option<f64>,
    /// After how many epochs without a new least loss (the validation loss where there is one) training ends. The parameters of the
    /// best epoch are then put back, and also when training ends otherwise. None by default.
    pub early_stopping: Option<usize>,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::Sgd,
            learning_rate: LearningRate::constant(0.1),
            weight_decay: 0.0,
            epochs: 10,
            batch: 32,
            shuffle: true,
            seed: 0,
            clip_norm: None,
            sam: None,
            standardize: false,
            validation_fraction: None,
            early_stopping: None,
        }
    }
}

impl Training {
    pub(crate) fn check(&self) -> Result<()> {
        let check = |fine: bool, name, expected, found| {
            if fine { Ok(()) } else { Err(Error::Hyperparameter { name, expected, found }) }
        };
        self.optimizer.check()?;
        self.learning_rate.check()?;
        let keeps = self.weight_decay >= 0.0 && self.learning_rate.most() * self.weight_decay < 1.0;
        check(keeps, "weight_decay", "a number from 0 to below 1/learning_rate", self.weight_decay)?;
        if self.batch == 0 {
            return Err(Error::EmptyBatch);
        }
        if let Some(norm) = self.clip_norm {
            check(norm.is_finite() && norm > 0.0, "clip_norm", "a finite, positive number", norm)?;
        }
        if let Some(rho) = self.sam {
            check(rho.is_finite() && rho > 0.0, "sam", "a finite, positive number", rho)?;
        }
        if let Some(part) = self.validation_fraction {
            check(part > 0.0 && part < 1.0, "validation_fraction", "a number between 0 and 1", part)?;
        }
        if self.early_stopping == Some(0) {
            check(false, "early_stopping", "at least 1 epoch", 0.0)?;
        }
        Ok(())
    }

    /// Refuses settings that the type of a network rounds to what they must not be.
    pub(crate) fn check_in<F: Scalar>(&self) -> Result<()> {
        self.optimizer.check_in::<F>()?;
        check_not_0::<F>("learning_rate", self.learning_rate.most())?;
        self.clip_norm.map_or(Ok(()), |norm| check_not_0::<F>("clip_norm", norm))?;
        self.sam.map_or(Ok(()), |rho| check_not_0::<F>("sam", rho))
    }

    /// The rule of the next step.
    pub(crate) fn rule<F: Scalar>(&self, now: &Now, norm: bool) -> Rule {
        let eta = self.learning_rate.at(now);
        Rule {
            optimizer: self.optimizer,
            eta,
            decay: Decay::next::<F>(eta, self.weight_decay, now.decay),
            step: now.steps + 1,
            clip: self.clip_norm,
            sam: self.sam,
            norm,
        }
    }
}
