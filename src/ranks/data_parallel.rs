//! A [`Trainer`] on several ranks.

use std::cell::RefCell;
use std::fmt::{Debug, Display};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::loss::Loss;
use crate::network::parameters::Parameters;
use crate::ranks::agree::{Agreement, alone};
use crate::ranks::group::Group;
use crate::ranks::parts::{Call, Parts};
use crate::ranks::reduce::Reduction;
use crate::ranks::step::{Buffers, Cut};
use crate::ranks::together::Together;
use crate::train::dataset::Dataset;
use crate::train::from_source::ReadAhead;
use crate::train::observer::Observer;
use crate::train::source::{FitError, Source};
use crate::train::trainer::{StopReason, Trainer};

/// A [`Trainer`] whose batches are shared by the ranks of a [`Group`], each of which has a part of
/// the data.
///
/// The data of all ranks, one after another, are cut into C parts, C/N for each of N ranks, and
/// each batch takes from every part what its size is of the whole. What a batch has of a part is a
/// chunk, and g is the sum of the gradients of all C chunks, divided by B. In all else this is the
/// trainer's run: every setting means the same, and every rank has all of θ, the moments, the
/// history and the position, with equal bits.
///
/// * [`exact`](Self::exact): chunks are added up in one fixed tree, so every N that divides C gives
///   the same bits, [`Alone`](crate::ranks::Alone) included; if the ranks' data are
///   [cut alike](part_of_rank). With C = 1 they are those of the trainer by itself.
/// * [`fast`](Self::fast): the same batches; each rank computes one gradient of all its chunks, and
///   MPI adds up those of the ranks: the layers above while those below are computed, if they are
///   large. The results differ by rounding from the exact ones.
///
/// Calls are collective: each rank makes the same ones in the same order. One that fails on a rank,
/// by an error or by a panic of a loss, a source or an observer, ends on all of them: that rank has
/// its error, or its panic goes on, and the others have [`Error::Rank`]. The steps before have been
/// made on every rank, and the run can be stored and resumed from there.
///
/// ```
/// use gemmprop::ranks::{Alone, DataParallel};
/// use gemmprop::{Bias, Dataset, Mlp, SquaredError, Trainer, TrainingSettings};
/// use ndarray::array;
///
/// let (x, y) = (array![[0.0], [1.0], [2.0], [3.0]], array![1.0, 3.0, 5.0, 7.0]);
/// let mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 0)?;
/// let training = TrainingSettings { epochs: 500, batch: 2, ..TrainingSettings::default() };
/// let mut run = DataParallel::exact(Trainer::new(mlp, SquaredError, training)?, &Alone, 2)?;
/// run.fit(Dataset::new(&x, &y), None, ())?; // this rank's part of the data
/// assert!((run.trainer().model().predict_one(&x)?[2] - 5.0).abs() < 1e-5);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct DataParallel<'g, F: Scalar, L, G> {
    trainer: Trainer<F, L>,
    group: &'g G,
    cut: Cut,
    buffers: RefCell<Option<Buffers<F>>>,
}

/// The rows of `samples` rows that a rank is to have, if the bits are not to depend on the number
/// of ranks: its C/N of C = `chunks` parts, whose sizes differ by at most one.
///
/// # Panics
/// Unless `rank` is below `ranks`, and `chunks` a multiple of `ranks`.
#[must_use]
pub fn part_of_rank(samples: usize, chunks: usize, rank: usize, ranks: usize) -> std::ops::Range<usize> {
    assert!(rank < ranks, "rank {rank} of {ranks}");
    assert!(chunks > 0 && chunks.is_multiple_of(ranks), "{chunks} chunks for {ranks} ranks");
    crate::ranks::deal::part_of_rank(samples, chunks, rank, ranks)
}

impl<'g, F: Scalar, L: Loss<F>, G: Group<F>> DataParallel<'g, F, L, G> {
    /// A run with the same bits for every number of ranks that divides C = `chunks`. The trainers
    /// of all ranks are equal: made by the same settings, or from the same checkpoint.
    ///
    /// # Errors
    /// [`Error::Chunks`] unless C is a multiple of the number of ranks.
    pub fn exact(trainer: Trainer<F, L>, group: &'g G, chunks: usize) -> Result<Self> {
        Self::new(trainer, group, Cut { chunks, reduction: Reduction::Exact })
    }

    /// A run whose gradients the group adds up in whatever order is fastest.
    ///
    /// # Errors
    /// As [`exact`](Self::exact).
    pub fn fast(trainer: Trainer<F, L>, group: &'g G, chunks: usize) -> Result<Self> {
        Self::new(trainer, group, Cut { chunks, reduction: Reduction::Fast })
    }

    fn new(trainer: Trainer<F, L>, group: &'g G, cut: Cut) -> Result<Self> {
        let ranks = group.ranks();
        if cut.chunks == 0 || !cut.chunks.is_multiple_of(ranks) {
            return Err(Error::Chunks { ranks, found: cut.chunks });
        }
        Ok(Self { trainer, group, cut, buffers: RefCell::new(None) })
    }

    /// [`Trainer::fit`] with this rank's part of the data, and of the validation set. A rank may
    /// have no samples, as long as another has some.
    ///
    /// # Errors
    /// As `Trainer::fit`, where rows are those of this rank; [`Error::Rank`] if another one has
    /// failed; [`Error::OtherRun`] if the trainers are not equal.
    pub fn fit<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: impl Observer<F>,
    ) -> Result<StopReason> {
        self.in_memory(train, validation, observer, true)
    }

    /// [`Trainer::partial_fit`] with this rank's part of the data.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn partial_fit<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: impl Observer<F>,
    ) -> Result<StopReason> {
        self.in_memory(train, validation, observer, false)
    }

    /// [`Trainer::fit_source`] with this rank's part of the samples: a source of its own, or a
    /// [`SourcePart`](crate::SourcePart) of one that all ranks can read.
    ///
    /// # Errors
    /// As `Trainer::fit_source`, and as [`fit`](Self::fit).
    pub fn fit_source<'a, S: Source<F, L::Target>>(
        &mut self,
        source: &'a S,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: impl Observer<F>,
    ) -> Result<StopReason, FitError<S::Error>>
    where
        L::Target: Default,
    {
        if self.cut.chunks == 1 {
            return self.trainer.fit_source(source, validation, observer);
        }
        self.collective(observer, |trainer, call, mut observer| {
            let inputs = trainer.model.mlp.inputs();
            let targets = trainer.loss.target_len(trainer.model.mlp.outputs())?;
            let data = ReadAhead { source, inputs, targets };
            trainer.run(|trainer| Parts::new(trainer, call, data, validation), &mut observer)
        })
    }

    /// Calls `work` with the trainer on rank 0 alone, to store the run, say. If it fails there, the
    /// call fails on every rank.
    ///
    /// # Errors
    /// That of `work` on rank 0, and [`Error::Rank`] on the others.
    pub fn on_rank_0<E: Display + From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Trainer<F, L>) -> Result<(), E>,
    ) -> Result<(), E> {
        let agreement = Agreement::new(self.group, 0);
        let is_first = self.group.rank() == 0;
        agreement.conclude::<F, _, E>(alone(|| if is_first { work(&mut self.trainer) } else { Ok(()) }))
    }

    /// The trainer, which is equal on every rank between calls.
    #[must_use]
    pub fn trainer(&self) -> &Trainer<F, L> {
        &self.trainer
    }

    /// The trainer, to be changed alike on every rank.
    pub fn trainer_mut(&mut self) -> &mut Trainer<F, L> {
        &mut self.trainer
    }

    /// Ends the run and returns its trainer.
    #[must_use]
    pub fn into_trainer(self) -> Trainer<F, L> {
        self.trainer
    }

    fn in_memory<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: impl Observer<F>,
        to_the_end: bool,
    ) -> Result<StopReason> {
        if self.cut.chunks == 1 {
            return self.trainer_alone(train, validation, observer, to_the_end);
        }
        self.collective(observer, |trainer, call, mut observer| {
            let prepare = |trainer: &mut Trainer<F, L>| {
                if train.samples() > 0 {
                    trainer.check(&train)?;
                }
                Parts::new(trainer, call, train, validation)
            };
            if to_the_end { trainer.run(prepare, &mut observer) } else { trainer.run_epoch(prepare, &mut observer) }
        })
    }

    /// One chunk is on one rank, and is the whole batch.
    fn trainer_alone<'a>(
        &mut self,
        train: Dataset<'a, F, L::Target>,
        validation: Option<Dataset<'a, F, L::Target>>,
        observer: impl Observer<F>,
        to_the_end: bool,
    ) -> Result<StopReason> {
        let trainer = &mut self.trainer;
        if to_the_end {
            trainer.fit(train, validation, observer)
        } else {
            trainer.partial_fit(train, validation, observer)
        }
    }

    /// A call on all ranks, with the observers of all.
    fn collective<E: Display + From<Error>, O: Observer<F>>(
        &mut self,
        observer: O,
        call: impl FnOnce(&mut Trainer<F, L>, &Call<'_, F, G>, Together<'_, G, O>) -> Result<StopReason, E>,
    ) -> Result<StopReason, E> {
        let Self { trainer, group, cut, buffers } = self;
        let agreement = Agreement::new(*group, cut.own(*group).len());
        let done = alone(|| {
            check_same(&agreement, trainer)?;
            let observer = Together { agreement: &agreement, observer };
            call(trainer, &Call { agreement: &agreement, cut: *cut, buffers }, observer)
        });
        let stopped = agreement.conclude::<F, _, E>(done)?;
        agreement.ended()?;
        Ok(stopped)
    }
}

/// Refuses ranks whose trainers are not equal.
fn check_same<F: Scalar, L, G: Group<F>>(agreement: &Agreement<G>, trainer: &Trainer<F, L>) -> Result<()> {
    let Trainer { model, training, moments, generator, position, .. } = trainer;
    let mut position = position.clone();
    // It is the time of each rank.
    position.seconds = 0.0;
    let shapes = (model.mlp.widths(), model.mlp.products(), &model.standardizer);
    let compared = [
        ("settings", digest_of(|into| format!("{training:?} {shapes:?}").hash(into))),
        ("position", digest_of(|into| format!("{position:?} {generator:?}").hash(into))),
        ("parameters", digest_of(|into| hash_bits(model.mlp.parameters(), into))),
        ("moments", digest_of(|into| moments.arrays.iter().for_each(|moment| hash_bits(moment, into)))),
    ];
    for (what, digest) in compared {
        // Exact in a double.
        let own = [digest];
        let ((), all) = agreement.agree::<F, (), Error>(Ok(Ok(())), &own)?;
        let numbers = all.len() / agreement.group.ranks();
        if let Some(rank) = all.chunks(numbers).position(|of_rank| of_rank[0] != all[0]) {
            return Err(Error::OtherRun { rank, what });
        }
    }
    Ok(())
}

/// 48 bits of a hash.
fn digest_of(hash: impl FnOnce(&mut DefaultHasher)) -> f64 {
    let mut hasher = DefaultHasher::new();
    hash(&mut hasher);
    (hasher.finish() >> 16) as f64
}

fn hash_bits<F: Scalar>(parameters: &Parameters<F>, into: &mut DefaultHasher) {
    parameters.iter().for_each(|p| p.to_f64().to_bits().hash(into));
}
