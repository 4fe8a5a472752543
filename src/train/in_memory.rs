//! Epochs on data in memory.

use std::ops::ControlFlow;

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::steps::policy::Batches;
use crate::train::dataset::TrainValidation;
use crate::train::epoch::EpochSteps;
use crate::train::observer::Observer;
use crate::train::trainer::{EpochData, Trainer};

impl<F: Scalar, L: Loss<F>> EpochData<F, L> for TrainValidation<'_, F, L::Target> {
    type Error = Error;

    fn samples(&self) -> usize {
        self.train.samples()
    }

    fn rows(&self) -> usize {
        self.train.data.samples()
    }

    fn train_rows(&self) -> Option<&[usize]> {
        self.train.rows.as_deref()
    }

    fn descend(
        &self,
        trainer: &mut Trainer<F, L>,
        batch: usize,
        observer: &mut impl Observer<F>,
    ) -> Result<ControlFlow<()>> {
        let samples = self.train.samples();
        let batches = samples.div_ceil(batch);
        let Trainer { model, loss, training, moments, position, order, engine, .. } = trainer;
        let all_in_order = !training.shuffle && self.train.rows.is_none();
        let order = order.as_ref().filter(|_| !all_in_order).map(|order| order.rows.as_slice());
        let prepared = self.train.data.prepared();
        let data = prepared.samples(order, model.standardizer.as_ref(), loss);
        let range = position.batch..batches;
        let mut steps = EpochSteps::new(training, position, observer, batches);
        let native = is_native(&model.mlp, batch, samples);
        let engine = Engine::kept(engine, &model.mlp, batch, native);
        let made = engine.descend(model.mlp.theta_mut(), moments, Batches { samples, batch }, range, &data, &mut steps);
        let flow = steps.flow();
        match made {
            Ok(()) => Ok(flow),
            Err(diverged) => Err(diverged.error(Some(position.epoch), position.last_loss)),
        }
    }

    fn validation_loss(&self, trainer: &mut Trainer<F, L>, native: bool) -> Result<Option<f64>> {
        Ok(self.validation.as_ref().map(|validation| trainer.mean_loss(validation, native)))
    }
}
