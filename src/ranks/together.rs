//! An observer on every rank: if one of them stops the run or fails, it ends on all.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::ranks::agree::{Agreement, alone};
use crate::ranks::group::Collective;
use crate::train::history::Record;
use crate::train::model::Model;
use crate::train::observer::{BatchEnd, Observer};

/// The observers of all ranks.
pub(crate) struct Together<'a, G, O> {
    pub(crate) agreement: &'a Agreement<'a, G>,
    pub(crate) observer: O,
}

impl<G, O> Together<'_, G, O> {
    fn ask<F: Scalar>(&mut self, ask: impl FnOnce(&mut O) -> ControlFlow<()>) -> ControlFlow<()>
    where
        G: Collective<F>,
    {
        let own = alone(|| Ok::<_, Error>(ask(&mut self.observer)));
        let stops = matches!(own, Ok(Ok(ControlFlow::Break(()))));
        let agreed: Result<_> = self.agreement.agree(own, &[f64::from(u8::from(stops))]);
        let goes_on = match agreed {
            Ok((_, all)) => all.iter().all(|&stops| stops == 0.0),
            Err(error) => {
                self.agreement.end_with(error);
                false
            }
        };
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl<F: Scalar, G: Collective<F>, O: Observer<F>> Observer<F> for Together<'_, G, O> {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        self.ask::<F>(|observer| observer.batch(batch))
    }

    fn epoch(&mut self, record: &Record, model: &Model<F>) -> ControlFlow<()> {
        self.ask::<F>(|observer| observer.epoch(record, model))
    }
}
