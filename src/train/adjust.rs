//! What can be changed of a run between two calls, and its clone.

use crate::error::Result;
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::optim::learning_rate::LearningRate;
use crate::train::dataset::Dataset;
use crate::train::settings::TrainingSettings;
use crate::train::trainer::Trainer;

/// A clone goes on with the same bits; it has buffers of its own, made at its first step.
impl<F: Scalar, L: Clone> Clone for Trainer<F, L> {
    fn clone(&self) -> Self {
        // All fields by name, so that a new one cannot be forgotten here.
        let Self { model, loss, training, moments, generator, position, history, best, order, engine: _ } = self;
        Self {
            model: model.clone(),
            loss: loss.clone(),
            training: training.clone(),
            moments: moments.clone(),
            generator: generator.clone(),
            position: position.clone(),
            history: history.clone(),
            best: best.clone(),
            order: order.clone(),
            engine: None,
        }
    }
}

impl<F: Scalar, L: Loss<F>> Trainer<F, L> {
    /// The mean loss of the model over data, as by [`Model::evaluate`](crate::Model::evaluate) with
    /// the loss that it is trained with.
    ///
    /// # Errors
    /// As [`Model::evaluate`](crate::Model::evaluate).
    pub fn evaluate(&self, data: Dataset<'_, F, L::Target>) -> Result<f64> {
        self.model.evaluate(data, &self.loss)
    }

    /// Changes the number of epochs in all, so that a run can continue after its last one. With
    /// early stopping, it continues from the parameters of the best epoch. A run that has stopped
    /// early continues with new patience if `epochs` is more than it has done. A cosine schedule
    /// stretches to the new number.
    pub fn set_epochs(&mut self, epochs: usize) {
        if self.position.stopped_early && epochs > self.position.epoch {
            self.position.stopped_early = false;
            self.position.lowest.since = 0;
        }
        self.training.epochs = epochs;
    }

    /// Changes the learning rate from the next step on: to another schedule, or to a number, which
    /// is then [constant](LearningRate::constant). Steps and epochs count on in the new schedule;
    /// plateaus are counted anew. The change is part of the run, and stored with its checkpoints.
    ///
    /// ```
    /// # use gemmprop::{Bias, Dataset, Mlp, SquaredError, Trainer, TrainingSettings};
    /// # use gemmprop::ndarray::array;
    /// # let (x, y) = (array![[0.0], [1.0], [2.0]], array![1.0, 3.0, 5.0]);
    /// # let mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
    /// let mut trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default())?;
    /// for epoch in 0..20 {
    ///     let eta = 0.2 / (1.0 + 0.1 * f64::from(epoch)); // a schedule of one's own
    ///     trainer.set_learning_rate(eta)?;
    ///     trainer.partial_fit(Dataset::new(&x, &y), None, ())?;
    /// }
    /// assert_eq!(trainer.history().records[10].learning_rate, 0.1);
    /// # Ok::<(), gemmprop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Hyperparameter`](crate::Error::Hyperparameter) for a schedule that is out of its
    /// range, or too large for the weight decay; nothing is changed then.
    pub fn set_learning_rate(&mut self, learning_rate: impl Into<LearningRate>) -> Result<()> {
        let training = TrainingSettings { learning_rate: learning_rate.into(), ..self.training.clone() };
        training.check()?;
        training.check_in::<F>()?;
        self.training = training;
        (self.position.plateaus, self.position.plateau.since) = (0, 0);
        Ok(())
    }

    /// Forgets all records of the [history](Self::history) but the newest `kept`, so that it does
    /// not grow without end in a long run. Epochs keep their numbers.
    pub fn trim_history(&mut self, kept: usize) {
        let records = &mut self.history.records;
        records.drain(..records.len().saturating_sub(kept));
    }
}
