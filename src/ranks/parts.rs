//! The epochs of a run on several ranks, each of which has a part of the data.

use std::cell::RefCell;
use std::ops::{ControlFlow, Range};
use std::panic::resume_unwind;

use rand::Rng;

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::standardizer::Means;
use crate::random::{Generator, Stream, generator_of_part};
use crate::ranks::agree::{Agreement, alone};
use crate::ranks::deal::{Deal, part};
use crate::ranks::group::Collective;
use crate::ranks::reduce::Reduction;
use crate::ranks::rows::Rows;
use crate::ranks::step::{Buffers, Cut, Step};
use crate::steps::blocks::{loss_block, ranges};
use crate::steps::policy::{Diverged, StepPolicy, StepReport};
use crate::train::dataset::{Dataset, split_rows};
use crate::train::epoch::{EpochOrder, EpochSteps};
use crate::train::observer::Observer;
use crate::train::settings::TrainingSettings;
use crate::train::trainer::{EpochData, Trainer};

/// What a call of [`DataParallel`](crate::ranks::DataParallel) has beside its data.
pub(crate) struct Call<'a, F, G> {
    pub(crate) agreement: &'a Agreement<'a, G>,
    pub(crate) cut: Cut,
    pub(crate) buffers: &'a RefCell<Option<Buffers<F>>>,
}

impl<F: Scalar, G: Collective<F>> Call<'_, F, G> {
    fn group(&self) -> &G {
        self.agreement.group
    }

    /// The parts of this rank.
    fn own(&self) -> Range<usize> {
        self.cut.own(self.group())
    }

    /// The same number of each part, of all parts.
    fn of_all_parts<E: std::fmt::Display + From<Error>>(&self, own: &[f64]) -> Result<Vec<f64>, E> {
        let own = own.to_vec();
        Ok(self.agreement.agree::<F, (), E>(Ok(Ok(())), &own)?.1)
    }
}

/// The data of a run: this rank's, and what is to be known of the others'.
pub(crate) struct Parts<'c, 'a, F, T, D, G> {
    call: &'c Call<'c, F, G>,
    data: D,
    validation: Validation<'a, F, T>,
    /// For each own part, the rows to train on.
    train: Vec<Vec<usize>>,
    deal: Deal,
    /// The rows that all ranks have, and the samples that they validate with.
    rows: usize,
    validated: usize,
}

/// For each own part, the rows to validate with: of the data to train on, or of others.
struct Validation<'a, F, T> {
    data: Option<Dataset<'a, F, T>>,
    rows: Vec<Vec<usize>>,
}

/// The rows of each part.
fn cut_rows(samples: usize, parts: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..parts).map(move |index| part(samples, parts, index).collect())
}

impl<'c, 'a, F, T, D, G> Parts<'c, 'a, F, T, D, G>
where
    F: Scalar,
    T: Copy + Send + Sync,
    D: Rows<F, T>,
    G: Collective<F>,
{
    /// Refuses data that do not fit, and fits the standardisation if that is still to be done.
    pub(crate) fn new<L: Loss<F, Target = T>>(
        trainer: &mut Trainer<F, L>,
        call: &'c Call<'c, F, G>,
        data: D,
        validation: Option<Dataset<'a, F, T>>,
    ) -> Result<Self, D::Error> {
        let own = call.own();
        let TrainingSettings { validation_fraction, seed, .. } = trainer.training;
        let validation = validation.filter(|validation| validation.samples() > 0);
        validation.as_ref().map_or(Ok(()), |validation| trainer.check(validation))?;
        let of_validation = [validation.map_or(0.0, |validation| validation.samples() as f64)];
        // A rank may have no sample to validate with, and all of them agree whether there is any.
        let is_given = call.agreement.agree::<F, (), D::Error>(Ok(Ok(())), &of_validation)?.1.iter().any(|&n| n > 0.0);
        let parts = cut_rows(data.samples(), own.len());
        let (train, kept) = match validation_fraction {
            Some(fraction) if !is_given => {
                let split = |(index, rows): (usize, Vec<usize>)| {
                    let stream = generator_of_part(seed, Stream::Split, own.start + index);
                    let split = split_rows(rows.len(), fraction, stream)?;
                    let of = |chosen: Vec<usize>| chosen.into_iter().map(|i| rows[i]).collect::<Vec<_>>();
                    Ok((of(split.train), of(split.validation)))
                };
                parts.enumerate().map(split).collect::<Result<(Vec<_>, Vec<_>)>>()?
            }
            _ => (parts.collect(), cut_rows(validation.map_or(0, |data| data.samples()), own.len()).collect()),
        };
        let counts = |rows: &[Vec<usize>]| rows.iter().map(|rows| rows.len() as f64).collect::<Vec<_>>();
        let samples: Vec<usize> =
            call.of_all_parts::<D::Error>(&counts(&train))?.into_iter().map(|n| n as usize).collect();
        let validated = call.of_all_parts::<D::Error>(&counts(&kept))?.iter().sum::<f64>() as usize;
        let all: usize = samples.iter().sum();
        if all == 0 {
            return Err(Error::NoSamples.into());
        }
        let rows = all + if is_given { 0 } else { validated };
        trainer.check_unfinished(all, rows, Some(call.cut.chunks))?;
        let deal = Deal::new(&samples, own, trainer.training.batch.min(all));
        let validation = Validation { data: validation, rows: kept };
        let parts = Self { call, data, validation, train, deal, rows, validated };
        if trainer.training.standardize && trainer.model.standardizer.is_none() {
            parts.standardize(trainer)?;
        }
        Ok(parts)
    }

    /// Fits the standardisation on the samples to train on of all ranks: part by part, and the sums
    /// of the parts in their order.
    fn standardize<L: Loss<F, Target = T>>(&self, trainer: &mut Trainer<F, L>) -> Result<(), D::Error> {
        let columns = trainer.model.mlp.inputs();
        let means = self.of_parts(
            trainer,
            |dataset, rows, numbers| {
                let mut means = Means::from_numbers(numbers);
                rows.for_each(|row| means.add(dataset.x.row(row)));
                means.to_numbers()
            },
            &Means::new(columns).to_numbers(),
        )?;
        let mut merged = Means::new(columns);
        means.iter().for_each(|part| merged.merge(&Means::from_numbers(part)));
        let scales = merged.end().map_err(|column| column.error())?;
        let sums = self.of_parts(
            trainer,
            |dataset, rows, numbers| {
                let mut part = scales.with_sums(numbers);
                rows.for_each(|row| part.add(dataset.x.row(row)));
                part.sums()
            },
            &scales.sums(),
        )?;
        let mut merged = scales.with_sums(&scales.sums());
        sums.iter().for_each(|part| merged.merge(part));
        trainer.model.standardizer = Some(merged.end()?);
        Ok(())
    }

    /// Some numbers of each part, which begin as `zero`, of all parts: `add(data, rows, numbers)`
    /// adds to them what some rows, those that are not absent, bring.
    fn of_parts<L: Loss<F, Target = T>>(
        &self,
        trainer: &Trainer<F, L>,
        mut add: impl FnMut(&Dataset<F, T>, &mut dyn Iterator<Item = usize>, &[f64]) -> Vec<f64>,
        zero: &[f64],
    ) -> Result<Vec<Vec<f64>>, D::Error> {
        let group = self.call.group();
        let of = (&trainer.loss, trainer.model.mlp.outputs());
        let mut own = Vec::new();
        for rows in &self.train {
            let mut numbers = zero.to_vec();
            let parts = ranges(rows.len(), self.data.at_a_time(1));
            self.data.for_each(rows, parts, of, |_, dataset, rows| {
                let is_present = |row: &usize| dataset.weights.is_none_or(|weights| weights[*row] != F::ZERO);
                numbers = add(dataset, &mut rows.iter().copied().filter(is_present), &numbers);
                Ok(ControlFlow::Continue(()))
            })?;
            own.extend(numbers);
        }
        self.call.of_all_parts::<D::Error>(&[])?;
        let mut all = vec![0.0; own.len() * group.ranks()];
        group.gather(&own, &mut all);
        Ok(all.chunks(zero.len().max(1)).map(<[f64]>::to_vec).collect())
    }

    /// Whether the native engine computes the gradient of a chunk: by its usual size, since the
    /// bits are not to depend on the number of ranks.
    fn is_native<L>(&self, trainer: &Trainer<F, L>, batch: usize) -> bool {
        let Cut { chunks, reduction } = self.call.cut;
        let parts = if reduction == Reduction::Exact { chunks } else { self.call.group().ranks() };
        let samples = batch.div_ceil(parts);
        is_native(&trainer.model.mlp, samples, samples)
    }
}

/// Σ ℓ over the samples `order` of some data, in blocks.
fn sum_of_losses<F, L, D>(trainer: &mut Trainer<F, L>, native: bool, data: &D, order: &[usize]) -> Result<f64, D::Error>
where
    F: Scalar,
    L: Loss<F>,
    D: Rows<F, L::Target>,
{
    if order.is_empty() {
        return Ok(0.0);
    }
    let Trainer { model, loss, engine, .. } = trainer;
    let block = loss_block(order.len());
    let engine = Engine::kept(engine, &model.mlp, block, native);
    let mut sum = 0.0;
    let parts = ranges(order.len(), data.at_a_time(usize::MAX).max(block).min(order.len()));
    data.for_each(order, parts, (&*loss, model.mlp.outputs()), |range, dataset, rows| {
        let prepared = dataset.prepared();
        let samples = prepared.samples(Some(rows), model.standardizer.as_ref(), loss);
        sum += engine.loss(model.mlp.parameters(), range.len(), block, &samples);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sum)
}

impl<F, L, D, G> EpochData<F, L> for Parts<'_, '_, F, L::Target, D, G>
where
    F: Scalar,
    L: Loss<F>,
    D: Rows<F, L::Target>,
    G: Collective<F>,
{
    type Error = D::Error;

    fn samples(&self) -> usize {
        self.deal.batches.samples
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn train_rows(&self) -> Option<&[usize]> {
        None
    }

    fn chunks(&self) -> Option<usize> {
        Some(self.call.cut.chunks)
    }

    fn ordered(&self) -> usize {
        self.train.iter().map(Vec::len).sum()
    }

    /// Each part is shuffled by itself, with a generator of its own.
    fn order(&self, training: &TrainingSettings, mut generator: Generator, mut buffer: Vec<usize>) -> EpochOrder {
        let key = if training.shuffle { generator.next_u64() } else { 0 };
        let first = self.call.own().start;
        let of_part = |(index, rows): (usize, &Vec<usize>)| {
            let generator = generator_of_part(key, Stream::Shuffles, first + index);
            if rows.is_empty() {
                return Vec::new();
            }
            EpochOrder::new(rows.len(), Some(rows), training, generator, Vec::new()).rows
        };
        let of_parts: Vec<_> = self.train.iter().enumerate().map(of_part).collect();
        buffer.clear();
        self.deal.order(&of_parts, &mut buffer);
        EpochOrder { rows: buffer, generator }
    }

    fn descend(
        &self,
        trainer: &mut Trainer<F, L>,
        batch: usize,
        observer: &mut impl Observer<F>,
    ) -> Result<ControlFlow<()>, D::Error> {
        let native = self.is_native(trainer, batch);
        let Trainer { model, loss, training, moments, position, order, engine, .. } = trainer;
        let order = order.as_ref().expect("made for the epoch").rows.as_slice();
        let Call { agreement, cut, buffers } = *self.call;
        let mut buffers = buffers.borrow_mut();
        let buffers = Buffers::kept(&mut buffers, agreement.group, cut, model.mlp.parameters(), moments);
        let capacity = match cut.reduction {
            Reduction::Exact => self.deal.largest_chunk(),
            Reduction::Fast => self.deal.largest_batch(),
        };
        let engine = Engine::kept(engine, &model.mlp, capacity.max(1), native);
        let (epoch, outputs) = (position.epoch, model.mlp.outputs());
        let left = position.batch..self.deal.batches.count();
        let mut steps = EpochSteps::new(training, position, observer, left.end);
        let own_batch = self.deal.largest_batch().max(1);
        let together = (self.data.at_a_time(own_batch) / own_batch).max(1);
        let parts = ranges(left.len(), together.min(left.len()));
        let parts: Vec<_> = parts.map(|k| left.start + k.start..left.start + k.end).collect();
        let places: Vec<_> = parts.iter().map(|k| self.deal.batches(k.clone())).collect();
        let mut next = parts.into_iter();
        let done = alone(|| {
            self.data.for_each(order, places.iter().cloned(), (&*loss, outputs), |range, dataset, rows| {
                let prepared = dataset.prepared();
                for k in next.next().expect("as many as there are ranges") {
                    let rule = steps.rule(k);
                    let mut step = Step { agreement, cut, deal: &self.deal, k, rule: &rule, buffers };
                    let standardizer = model.standardizer.as_ref();
                    let made =
                        step.make(model.mlp.theta_mut(), moments, &mut |theta, samples, mean, into, top_down| {
                            let rows = &rows[samples.start - range.start..samples.end - range.start];
                            let data = prepared.samples(Some(rows), standardizer, loss);
                            engine.gradient_top_down(theta, rows.len(), &data, mean, into, top_down)
                        })?;
                    let last_loss = steps.last_loss();
                    let (sum, norm) =
                        made.map_err(|cause| Diverged { step: k, cause }.error(Some(epoch), last_loss))?;
                    let report = StepReport { step: k, samples: self.deal.batch_samples(k), sum, norm };
                    let flow = steps.step_done(&report);
                    agreement.ended()?;
                    if flow.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        let flow = steps.flow();
        // The steps looked at θ itself.
        moments.reset_bounds(model.mlp.parameters());
        done.unwrap_or_else(|panic| resume_unwind(panic)).map(|()| flow)
    }

    fn validation_loss(&self, trainer: &mut Trainer<F, L>, _native: bool) -> Result<Option<f64>, D::Error> {
        if self.validated == 0 {
            return Ok(None);
        }
        let native = self.is_native(trainer, self.deal.batches.batch);
        let sum = |rows: &Vec<usize>| match &self.validation.data {
            Some(data) => Ok(sum_of_losses(trainer, native, data, rows)?),
            None => sum_of_losses(trainer, native, &self.data, rows),
        };
        let own = self.validation.rows.iter().map(sum).collect::<Result<Vec<_>, D::Error>>()?;
        let all = self.call.of_all_parts::<D::Error>(&own)?;
        Ok(Some(all.iter().sum::<f64>() / self.validated as f64))
    }
}
