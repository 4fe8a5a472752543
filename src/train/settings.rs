//! How a network is to be trained: the settings of a [`Trainer`](crate::Trainer), checked when it
//! is made.

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::optim::hyperparameter::{check, check_not_0, check_positive};
use crate::optim::learning_rate::{LearningRate, SchedulePoint};
use crate::optim::optimizer::Optimizer;
use crate::optim::rule::{Rule, WeightDecay};

/// How to train. Start from the default and change what matters:
///
/// ```
/// use gemmprop::{LearningRate, Optimizer, TrainingSettings};
///
/// let training = TrainingSettings {
///     optimizer: Optimizer::adam(),
///     learning_rate: LearningRate::cosine(1e-3, 0.0).warm_up(100),
///     epochs: 25,
///     ..TrainingSettings::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(default))] // settings that an older version did not have
pub struct TrainingSettings {
    /// The optimiser. Plain gradient descent by default.
    pub optimizer: Optimizer,
    /// η. 0.1 throughout by default.
    pub learning_rate: LearningRate,
    /// λ of the decoupled weight decay, which acts on all of θ and is exact however small ηλ is
    /// ([`Optimizer`](crate::Optimizer) has the equations). 0 by default.
    pub weight_decay: f64,
    /// Whether the weight decay acts on the constants c and b too, as in the formula, rather than
    /// on the matrices w and alpha alone. True by default.
    pub decay_biases: bool,
    /// E, the number of epochs in all. 10 by default.
    pub epochs: usize,
    /// B, the number of samples in a batch. If the last batch of an epoch is smaller, it is
    /// averaged over its own size. 32 by default.
    pub batch: usize,
    /// Whether each epoch takes the samples in a new order, rather than in that of the data. True
    /// by default.
    pub shuffle: bool,
    /// The number of samples in the blocks of a shuffle, for data that are read faster in blocks
    /// than sample by sample. Each epoch takes the blocks in a new order, and shuffles the samples
    /// of 64 blocks at a time. Where all samples of a block are of one kind, the number of a kind
    /// in a batch of B has 1 + (B − 1)/64 times the variance that a shuffle of all samples gives:
    /// shorter blocks, or data that were shuffled once, avoid that. With None, the default, all
    /// samples are one block.
    pub shuffle_block: Option<usize>,
    /// The seed of the shuffles and of the validation split. 0 by default. It may equal the seed of
    /// the network, which draws from another stream.
    pub seed: u64,
    /// The norm, over all of θ, that g is scaled down to if it is longer (Pascanu et al. 2013).
    /// None by default.
    pub clip_norm: Option<f64>,
    /// ρ of sharpness-aware minimisation (SAM, Foret et al. 2021), which seeks flat minima: g is
    /// taken at θ + ρ g/‖g‖ instead of θ, at the cost of a second pass. The recorded losses are
    /// those at θ; the recorded norm is that of the g used. None by default.
    pub sam: Option<f64>,
    /// Whether the inputs are standardised. The standardisation is fitted on the training samples
    /// of the first call (with [`Trainer::step`](crate::Trainer::step), on the first batch). Each
    /// sample counts once, whatever its weight, and not at all if that is 0. False by default.
    pub standardize: bool,
    /// The fraction of the samples that is kept from training for validation, if no validation set
    /// is given. None by default.
    pub validation_fraction: Option<f64>,
    /// The number of epochs in a row without a new lowest loss after which training ends. The loss
    /// is the validation loss if there is one, otherwise the training loss. With this setting, the
    /// parameters of the best epoch are put back when training ends, early or not. None by default.
    pub early_stopping: Option<usize>,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::Sgd,
            learning_rate: LearningRate::constant(0.1),
            weight_decay: 0.0,
            decay_biases: true,
            epochs: 10,
            batch: 32,
            shuffle: true,
            shuffle_block: None,
            seed: 0,
            clip_norm: None,
            sam: None,
            standardize: false,
            validation_fraction: None,
            early_stopping: None,
        }
    }
}

impl TrainingSettings {
    /// Refuses settings that are out of their range.
    pub(crate) fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        self.learning_rate.check()?;
        let decay_is_valid = WeightDecay::is_valid(self.learning_rate.largest(), self.weight_decay);
        check(decay_is_valid, "weight_decay", "a number from 0 to below 1/learning_rate", self.weight_decay)?;
        if self.batch == 0 {
            return Err(Error::EmptyBatch);
        }
        check(self.shuffle_block != Some(0), "shuffle_block", "at least 1 sample", 0.0)?;
        if let Some(norm) = self.clip_norm {
            check_positive("clip_norm", norm)?;
        }
        if let Some(rho) = self.sam {
            check_positive("sam", rho)?;
        }
        if let Some(fraction) = self.validation_fraction {
            check(fraction > 0.0 && fraction < 1.0, "validation_fraction", "a number between 0 and 1", fraction)?;
        }
        check(self.early_stopping != Some(0), "early_stopping", "at least 1 epoch", 0.0)
    }

    /// Refuses settings that are out of their range once they are rounded to the network's type.
    pub(crate) fn check_in<F: Scalar>(&self) -> Result<()> {
        self.optimizer.check_in::<F>()?;
        check_not_0::<F>("learning_rate", self.learning_rate.largest())?;
        self.clip_norm.map_or(Ok(()), |norm| check_not_0::<F>("clip_norm", norm))?;
        self.sam.map_or(Ok(()), |rho| check_not_0::<F>("sam", rho))
    }

    /// The rule of the step at a point of the run. `pending_decay` is that of [`WeightDecay`]
    /// before the step; `norm` asks for ‖g‖ even if the step does not need it.
    pub(crate) fn rule<F: Scalar>(&self, point: &SchedulePoint, pending_decay: f64, norm: bool) -> Rule {
        let eta = self.learning_rate.at(point);
        Rule {
            optimizer: self.optimizer,
            eta,
            decay: WeightDecay::next::<F>(eta, self.weight_decay, pending_decay),
            decay_biases: self.decay_biases,
            step: point.steps + 1,
            clip: self.clip_norm,
            sam: self.sam,
            norm,
        }
    }
}
