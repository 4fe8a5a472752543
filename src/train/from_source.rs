//! Epochs on samples that are read when they are needed.
//!
//! The order of an epoch is cut into chunks of whole batches. While a chunk is trained on, a second
//! thread reads the next one. The engine gets each chunk as data in memory, of which it takes so
//! many steps, so steps, losses and history have the bits that all data in memory would give.

use std::io;
use std::ops::{ControlFlow, Range};
use std::panic::resume_unwind;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::engine::choice::is_native;
use crate::engine::door::Engine;
use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::standardizer::Means;
use crate::random::{Stream, generator};
use crate::steps::blocks::{loss_block, ranges};
use crate::steps::policy::{Batches, Diverged};
use crate::train::dataset::{Dataset, SplitRows, Subset, split_rows};
use crate::train::epoch::{EpochSteps, FromStep};
use crate::train::observer::Observer;
use crate::train::source::{Chunk, FitError, Source};
use crate::train::trainer::{EpochData, StopReason, Trainer};

/// Numbers of x in a chunk: 16 MB in `f32`. There are two chunks.
const CHUNK_NUMBERS: usize = 1 << 22;

/// Batches in a chunk at most. θ is copied into panels and back for each chunk, and so many steps
/// make up for that.
const CHUNK_BATCHES: usize = 64;

/// The number of samples in a chunk of whole batches.
pub(crate) fn chunk_samples(batch: usize, inputs: usize) -> usize {
    batch * (CHUNK_NUMBERS / batch.saturating_mul(inputs)).clamp(1, CHUNK_BATCHES)
}

/// The chunks of an epoch, which continues with sample `begun`. For the first one the training
/// waits, so that has one batch, and each of the next ones twice as many as the one before.
fn chunks(begun: usize, samples: usize, batch: usize, inputs: usize) -> Vec<Range<usize>> {
    let most = chunk_samples(batch, inputs);
    let (mut chunks, mut start, mut len) = (Vec::new(), begun, batch);
    while start < samples {
        let end = (start + len).min(samples);
        chunks.push(start..end);
        (start, len) = (end, (2 * len).min(most));
    }
    chunks
}

impl<F: Scalar, L: Loss<F>> Trainer<F, L>
where
    L::Target: Default,
{
    /// [`fit`](Self::fit) on samples that are read when they are needed, from files or from
    /// wherever the caller has them, and need not fit into memory. Every setting means the same,
    /// and the same samples give the same bits. The samples of the next few batches are read on
    /// another thread while this one trains; there are two such parts, of 16 MB in `f32` or of one
    /// batch each. The order of an epoch takes another 8 bytes for each sample.
    ///
    /// With [`TrainingSettings::validation_fraction`](crate::TrainingSettings::validation_fraction)
    /// the source also gives the samples to validate with. A standardisation that is still to be
    /// fitted takes two passes over the source before the first step.
    /// [`TrainingSettings::shuffle_block`](crate::TrainingSettings::shuffle_block) is for sources
    /// that read neighbouring samples faster than distant ones.
    ///
    /// # Errors
    /// [`FitError::Source`] if samples cannot be read; [`FitError::Training`] as for `fit`, but
    /// samples are checked when they are read: steps with those before have been made, and the run
    /// can be continued from there.
    pub fn fit_source<'a, S: Source<F, L::Target>>(
        &mut self,
        source: &'a S,
        validation: Option<Dataset<'a, F, L::Target>>,
        mut observer: impl Observer<F>,
    ) -> Result<StopReason, FitError<S::Error>> {
        self.run(|trainer| SourceData::new(trainer, source, validation), &mut observer)
    }

    /// [`partial_fit`](Self::partial_fit) on samples that are read when they are needed: one epoch,
    /// as by [`fit_source`](Self::fit_source).
    ///
    /// # Errors
    /// As `fit_source`.
    pub fn partial_fit_source<'a, S: Source<F, L::Target>>(
        &mut self,
        source: &'a S,
        validation: Option<Dataset<'a, F, L::Target>>,
        mut observer: impl Observer<F>,
    ) -> Result<StopReason, FitError<S::Error>> {
        self.run_epoch(|trainer| SourceData::new(trainer, source, validation), &mut observer)
    }
}

/// Starts the thread that reads ahead. The system refuses one where a user has as many as may be.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    reader: impl FnOnce() + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, ()>> {
    #[cfg(test)]
    if tests::REFUSED.get() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    thread::Builder::new().spawn_scoped(scope, reader)
}

/// A source whose samples are read on another thread while those before are used.
pub(crate) struct ReadAhead<'a, S> {
    pub(crate) source: &'a S,
    /// The widths of x and y.
    pub(crate) inputs: usize,
    pub(crate) targets: usize,
}

impl<S> ReadAhead<'_, S> {
    /// Reads the samples `row(i)` of each range of i in turn, and hands them on, each range while
    /// the next one is read.
    pub(crate) fn for_each_part<F, T, L>(
        &self,
        row: impl Fn(usize) -> usize + Sync,
        ranges: impl Iterator<Item = Range<usize>> + Clone + Send,
        (loss, outputs): (&L, usize),
        mut take: impl FnMut(Range<usize>, &Chunk<F, T>) -> Result<ControlFlow<()>>,
    ) -> Result<(), FitError<S::Error>>
    where
        F: Scalar,
        T: Copy + Default + Send + Sync,
        L: Loss<F, Target = T>,
        S: Source<F, T>,
    {
        let check = |data: &Dataset<F, T>| data.check_for(self.inputs, outputs, loss);
        let read = |chunk: &mut Chunk<F, T>, range: Range<usize>| chunk.read(self.source, range.map(&row), check);
        thread::scope(|scope| {
            let (to_read, emptied) = channel::<Chunk<F, T>>();
            let (filled, to_take) = sync_channel(1);
            for _ in 0..2 {
                to_read.send(Chunk::new(self.inputs, self.targets)).expect("the receiver is here");
            }
            let (planned, read) = (ranges.clone(), &read);
            let reader = spawn(scope, move || {
                for range in planned {
                    // The other side is gone if it has failed, or was stopped.
                    let Ok(mut chunk) = emptied.recv() else { return };
                    let found = read(&mut chunk, range).map(|()| chunk);
                    let failed = found.is_err();
                    if filled.send(found).is_err() || failed {
                        return;
                    }
                }
            });
            let Ok(reader) = reader else {
                return read_in_turn(Chunk::new(self.inputs, self.targets), read, ranges, take);
            };
            let mut waits_in_vain = false;
            let take_all = || {
                for range in ranges {
                    let Ok(chunk) = to_take.recv() else {
                        waits_in_vain = true;
                        break;
                    };
                    let chunk = chunk?;
                    if take(range, &chunk)?.is_break() {
                        break;
                    }
                    // After the last part nobody reads.
                    let _ = to_read.send(chunk);
                }
                Ok(())
            };
            let taken = take_all();
            drop((to_read, to_take));
            match reader.join() {
                // A panic in what nobody waits for any more is as an error there: of no effect.
                Err(panic) if waits_in_vain => resume_unwind(panic),
                _ => taken,
            }
        })
    }
}

/// What [`ReadAhead::for_each_part`] does where the system has no thread for it: reads each range
/// on this thread, before it is handed on.
fn read_in_turn<C, E: From<Error>>(
    mut chunk: C,
    read: impl Fn(&mut C, Range<usize>) -> Result<(), E>,
    ranges: impl Iterator<Item = Range<usize>>,
    mut take: impl FnMut(Range<usize>, &C) -> Result<ControlFlow<()>>,
) -> Result<(), E> {
    for range in ranges {
        read(&mut chunk, range.clone())?;
        if take(range, &chunk)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A source, cut into samples to train on and to validate with.
struct SourceData<'a, F, T, S> {
    of: ReadAhead<'a, S>,
    /// The rows to train on and those to validate with, if the source gives both.
    split: Option<SplitRows>,
    validation: Option<Subset<'a, F, T>>,
}

impl<'a, F: Scalar, T: Copy + Default + Send + Sync, S: Source<F, T>> SourceData<'a, F, T, S> {
    /// Refuses data that do not fit, and fits the standardisation if that is still to be done.
    fn new<L: Loss<F, Target = T>>(
        trainer: &mut Trainer<F, L>,
        source: &'a S,
        validation: Option<Dataset<'a, F, T>>,
    ) -> Result<Self, FitError<S::Error>> {
        if source.samples() == 0 {
            return Err(Error::NoSamples.into());
        }
        validation.as_ref().map_or(Ok(()), |validation| trainer.check(validation))?;
        let split = match trainer.training.validation_fraction {
            Some(fraction) if validation.is_none() => {
                let generator = generator(trainer.training.seed, Stream::Split);
                Some(split_rows(source.samples(), fraction, generator)?)
            }
            _ => None,
        };
        let (inputs, outputs) = (trainer.model.mlp.inputs(), trainer.model.mlp.outputs());
        let targets = trainer.loss.target_len(outputs)?;
        let validation = validation.map(|data| Subset { data, rows: None });
        let data = Self { of: ReadAhead { source, inputs, targets }, split, validation };
        trainer.check_unfinished(data.train_samples(), source.samples(), None)?;
        if trainer.training.standardize && trainer.model.standardizer.is_none() {
            data.standardize(trainer)?;
        }
        Ok(data)
    }

    fn train_samples(&self) -> usize {
        self.split.as_ref().map_or(self.of.source.samples(), |split| split.train.len())
    }

    /// Fits the standardisation in two passes over the samples to train on.
    fn standardize<L: Loss<F, Target = T>>(&self, trainer: &mut Trainer<F, L>) -> Result<(), FitError<S::Error>> {
        let checked = (&trainer.loss, trainer.model.mlp.outputs());
        let rows = self.split.as_ref().map(|split| split.train.as_slice());
        let row = |i: usize| rows.map_or(i, |rows| rows[i]);
        let parts = ranges(self.train_samples(), chunk_samples(1, self.of.inputs));
        let mut means = Means::new(self.of.inputs);
        self.of.for_each_part(row, parts.clone(), checked, |_, chunk| {
            let subset = Subset { data: chunk.dataset(), rows: None };
            subset.present().for_each(|i| means.add(subset.data.x.row(i)));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut scales = means.end().map_err(|column| column.error())?;
        self.of.for_each_part(row, parts, checked, |_, chunk| {
            let subset = Subset { data: chunk.dataset(), rows: None };
            subset.present().for_each(|i| scales.add(subset.data.x.row(i)));
            Ok(ControlFlow::Continue(()))
        })?;
        trainer.model.standardizer = Some(scales.end()?);
        Ok(())
    }
}

impl<F, L, S> EpochData<F, L> for SourceData<'_, F, L::Target, S>
where
    F: Scalar,
    L: Loss<F>,
    L::Target: Default,
    S: Source<F, L::Target>,
{
    type Error = FitError<S::Error>;

    fn samples(&self) -> usize {
        self.train_samples()
    }

    fn rows(&self) -> usize {
        self.of.source.samples()
    }

    fn train_rows(&self) -> Option<&[usize]> {
        self.split.as_ref().map(|split| split.train.as_slice())
    }

    fn descend(
        &self,
        trainer: &mut Trainer<F, L>,
        batch: usize,
        observer: &mut impl Observer<F>,
    ) -> Result<ControlFlow<()>, Self::Error> {
        let samples = self.train_samples();
        let Trainer { model, loss, training, moments, position, order, engine, .. } = trainer;
        let order = order.as_ref().expect("made for the epoch").rows.as_slice();
        let outputs = model.mlp.outputs();
        let native = is_native(&model.mlp, batch, samples);
        let epoch = position.epoch;
        let parts = chunks(position.batch * batch, samples, batch, self.of.inputs).into_iter();
        let mut steps = EpochSteps::new(training, position, observer, samples.div_ceil(batch));
        self.of.for_each_part(
            |i| order[i],
            parts,
            (&*loss, outputs),
            |part, chunk| {
                let first = part.start / batch;
                let batches = Batches { samples: part.len(), batch };
                let prepared = chunk.dataset().prepared();
                let data = prepared.samples(Some(&chunk.order), model.standardizer.as_ref(), loss);
                let mut steps = FromStep { first, steps: &mut steps };
                let engine = Engine::kept(engine, &model.mlp, batch, native);
                let theta = model.mlp.theta_mut();
                let made = engine.descend(theta, moments, batches, 0..batches.count(), &data, &mut steps);
                let FromStep { steps, .. } = steps;
                made.map_err(|Diverged { step, cause }| {
                    Diverged { step: first + step, cause }.error(Some(epoch), steps.last_loss())
                })?;
                Ok(steps.flow())
            },
        )?;
        Ok(steps.flow())
    }

    fn validation_loss(&self, trainer: &mut Trainer<F, L>, native: bool) -> Result<Option<f64>, Self::Error> {
        let Some(SplitRows { validation: rows, .. }) = &self.split else {
            return Ok(self.validation.as_ref().map(|validation| trainer.mean_loss(validation, native)));
        };
        let Trainer { model, loss, engine, .. } = trainer;
        let block = loss_block(rows.len());
        let engine = Engine::kept(engine, &model.mlp, block, native);
        let mut sum = 0.0;
        // Block by block, as data in memory: the sum is another if several are added up first.
        let blocks = ranges(rows.len(), block);
        self.of.for_each_part(
            |i| rows[i],
            blocks,
            (&*loss, model.mlp.outputs()),
            |block, chunk| {
                let prepared = chunk.dataset().prepared();
                let data = prepared.samples(None, model.standardizer.as_ref(), loss);
                sum += engine.loss(model.mlp.parameters(), block.len(), block.len(), &data);
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(Some(sum / rows.len() as f64))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ops::ControlFlow;

    use ndarray::{Array1, Array2};

    use crate::network::loss::SquaredError;
    use crate::network::mlp::Mlp;
    use crate::network::parameters::Bias;
    use crate::optim::learning_rate::LearningRate;
    use crate::train::dataset::Dataset;
    use crate::train::observer::on_batch;
    use crate::train::settings::TrainingSettings;
    use crate::train::trainer::{StopReason, Trainer};

    thread_local! {
        /// Whether the system has no thread for a reader that this thread starts.
        pub(super) static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn without_a_thread_for_the_reader_samples_are_read_on_this_one() {
        let x = Array2::from_shape_fn((100, 3), |(i, j)| ((i * (j + 2)) % 11) as f64);
        let y = Array1::from_shape_fn(100, |i| (i % 7) as f64);
        let data = Dataset::new(&x, &y);
        let training = TrainingSettings {
            epochs: 3,
            batch: 4,
            learning_rate: LearningRate::constant(0.001),
            standardize: true,
            validation_fraction: Some(0.2),
            ..TrainingSettings::default()
        };
        let trainer = || Trainer::new(Mlp::he(&[3, 5, 1], Bias::Input, 1).unwrap(), SquaredError, training.clone());
        let (mut expected, mut found) = (trainer().unwrap(), trainer().unwrap());
        expected.fit(data, None, ()).unwrap();
        REFUSED.set(true);
        // Stopped within a part that was read, and continued.
        let mut batches = 0;
        let stop = on_batch(|_| {
            batches += 1;
            if batches == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(found.fit_source(&data, None, stop).unwrap(), StopReason::Observer);
        assert_eq!(found.fit_source(&data, None, ()).unwrap(), StopReason::Completed);
        REFUSED.set(false);
        assert_eq!(found.model(), expected.model());
        let losses = |trainer: &Trainer<f64, _>| -> Vec<_> {
            trainer.history().records.iter().map(|record| (record.loss, record.validation_loss)).collect()
        };
        assert_eq!(losses(&found), losses(&expected));
    }
}
