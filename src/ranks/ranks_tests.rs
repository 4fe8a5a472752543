//! Runs on several ranks, which are threads here; those that fail are in `failure_tests`.

use std::cell::Cell;
use std::ops::ControlFlow;

use ndarray::{Array1, Array2, s};
use proptest::prelude::*;

use super::threads_tests::{Thread, on_threads};
use super::{Alone, DataParallel, Group, part_of_rank};
use crate::linalg::scalar::Scalar;
use crate::network::loss::{SoftmaxCrossEntropy, SquaredError};
use crate::network::mlp::Mlp;
use crate::network::parameters::Bias;
use crate::network::products::Products;
use crate::optim::learning_rate::LearningRate;
use crate::optim::optimizer::Optimizer;
use crate::optim::overflow::OverflowBounds;
use crate::random::Generator;
use crate::rungs::bounds::{StepBounds, loss_gradient};
use crate::train::dataset::Dataset;
use crate::train::observer::on_batch;
use crate::train::settings::TrainingSettings;
use crate::train::trainer::{StopReason, Trainer};
use crate::{Error, Parameters, SourcePart};

/// Samples with labels of 3 classes, and weights of which some are 0.
pub(super) struct Data<F> {
    pub(super) x: Array2<F>,
    pub(super) labels: Array1<usize>,
    weights: Option<Array1<F>>,
}

impl<F: Scalar> Data<F> {
    pub(super) fn new(samples: usize, inputs: usize, weighted: bool, seed: u64) -> Self {
        let mut generator = Generator::new(seed);
        let x = Array2::from_shape_simple_fn((samples, inputs), || F::from_f64(generator.normal() * 3.0 + 1.0));
        let labels = (0..samples).map(|_| (generator.uniform() * 3.0) as usize).collect();
        let weight = |_| F::from_f64((generator.uniform() * 3.0).floor() / 2.0);
        let weights = weighted.then(|| (0..samples).map(weight).collect());
        Self { x, labels, weights }
    }

    /// The part of a rank.
    pub(super) fn part(&self, chunks: usize, rank: usize, ranks: usize) -> Dataset<'_, F, usize> {
        let rows = part_of_rank(self.labels.len(), chunks, rank, ranks);
        let data = Dataset::new(self.x.slice(s![rows.clone(), ..]), self.labels.slice(s![rows.clone()]));
        match &self.weights {
            Some(weights) => data.weights(weights.slice(s![rows])),
            None => data,
        }
    }
}

/// What is to be the same for any number of ranks.
pub(super) fn outcome<F: Scalar, L>(trainer: &Trainer<F, L>) -> Vec<u64> {
    let bits = |parameters: &Parameters<F>| parameters.iter().map(|p| p.to_f64().to_bits()).collect::<Vec<_>>();
    let mut all = bits(trainer.model.mlp.parameters());
    all.extend(trainer.moments.arrays.iter().flat_map(bits));
    all.extend(trainer.best.iter().flat_map(bits));
    if let Some(standardizer) = &trainer.model.standardizer {
        all.extend(standardizer.mean.iter().chain(&standardizer.factor).map(|number| number.to_bits()));
    }
    for record in &trainer.history.records {
        let validation = record.validation_loss.unwrap_or(-1.0);
        all.extend([record.loss, validation, record.learning_rate, record.gradient_norm].map(f64::to_bits));
    }
    all.push(trainer.position.steps);
    all
}

/// A run to its end on so many ranks, all of which must have the same outcome.
fn run<F: Scalar>(
    ranks: usize,
    chunks: usize,
    trainer: &Trainer<F, SoftmaxCrossEntropy>,
    train: &Data<F>,
    validation: Option<&Data<F>>,
) -> Vec<u64>
where
    for<'a> Thread<'a>: Group<F>,
{
    let mut outcomes = on_threads(ranks, |group| {
        let mut run = DataParallel::exact(trainer.clone(), group, chunks).unwrap();
        let rank = group.rank;
        let validation = validation.map(|data| data.part(chunks, rank, ranks));
        run.fit(train.part(chunks, rank, ranks), validation, ()).unwrap();
        outcome(run.trainer())
    });
    let first = outcomes.pop().expect("there is a rank");
    assert!(outcomes.iter().all(|outcome| *outcome == first), "the ranks differ");
    first
}

pub(super) fn trainer<F: Scalar>(
    widths: &[usize],
    training: TrainingSettings,
    products: Products,
) -> Trainer<F, SoftmaxCrossEntropy> {
    let mlp = Mlp::he(widths, Bias::EveryLayer, 5).unwrap().with_products(products).unwrap();
    Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap()
}

fn products(native: bool) -> Products {
    if native || !cfg!(feature = "blas") { Products::Native } else { Products::Blas }
}

fn trainings() -> impl Strategy<Value = TrainingSettings> {
    let optimizer = prop_oneof![
        Just(Optimizer::Sgd),
        Just(Optimizer::Momentum { mu: 0.9 }),
        Just(Optimizer::Nesterov { mu: 0.8 }),
        Just(Optimizer::adam()),
    ];
    let rate = prop_oneof![
        Just(LearningRate::constant(0.01)),
        Just(LearningRate::cosine(0.02, 0.0001).warm_up(3)),
        Just(LearningRate::on_plateau(0.02, 0.5, 0)),
    ];
    let data = (any::<bool>(), any::<bool>(), prop::option::of(0.1..0.4), prop::option::of(1_usize..9));
    let steps = (prop::option::of(0.1..2.0), prop::option::of(0.01..0.1), prop::option::of(1_usize..3), 1_usize..50);
    (optimizer, rate, data, steps).prop_map(|(optimizer, learning_rate, data, steps)| {
        let (shuffle, standardize, validation_fraction, shuffle_block) = data;
        let (clip_norm, sam, early_stopping, batch) = steps;
        TrainingSettings {
            optimizer,
            learning_rate,
            weight_decay: 0.001,
            epochs: 3,
            batch,
            shuffle,
            shuffle_block,
            seed: 9,
            clip_norm,
            sam,
            standardize,
            validation_fraction,
            early_stopping,
            ..TrainingSettings::default()
        }
    })
}

fn same_bits<F: Scalar>(
    training: TrainingSettings,
    (ranks, each, samples): (usize, usize, usize),
    (weighted, validated, native): (bool, bool, bool),
) where
    for<'a> Thread<'a>: Group<F>,
{
    let chunks = ranks * each;
    let trainer = trainer(&[5, 9, 3], training, products(native));
    let train = Data::new(samples, 5, weighted, 1);
    let validation = validated.then(|| Data::new(13, 5, weighted, 2));
    let mut alone = DataParallel::exact(trainer.clone(), &Alone, chunks).unwrap();
    alone.fit(train.part(chunks, 0, 1), validation.as_ref().map(|data| data.part(chunks, 0, 1)), ()).unwrap();
    assert_eq!(run(ranks, chunks, &trainer, &train, validation.as_ref()), outcome(alone.trainer()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_number_of_ranks_has_the_bits_of_one(
        training in trainings(),
        ranks in 1_usize..5,
        each in 1_usize..4,
        samples in 60_usize..140,
        flags in any::<(bool, bool, bool)>(),
        double in any::<bool>(),
    ) {
        let sizes = (ranks, each, samples);
        if double { same_bits::<f64>(training, sizes, flags) } else { same_bits::<f32>(training, sizes, flags) }
    }
}

/// Numbers so small that nothing is rounded: then C chunks give what whole batches give, of the
/// same samples.
#[test]
fn chunks_add_up_to_the_gradient_of_the_batch() {
    let (samples, chunks, batch) = (24, 3, 8);
    let x = Array2::from_shape_fn((samples, 2), |(i, j)| ((i * 7 + j * 3) % 5) as f64 - 2.0);
    let y = Array1::from_shape_fn(samples, |i| (i % 3) as f64);
    let training = TrainingSettings {
        learning_rate: LearningRate::constant(0.0625),
        optimizer: Optimizer::Momentum { mu: 0.5 },
        epochs: 1,
        batch,
        shuffle: false,
        ..TrainingSettings::default()
    };
    let mut mlp = Mlp::<f64>::he(&[2, 3, 1], Bias::EveryLayer, 1).unwrap();
    mlp.theta_mut().iter_mut().for_each(|p| *p = (*p * 4.0).round() / 4.0);
    let trainer = || Trainer::new(mlp.clone(), SquaredError, training.clone()).unwrap();
    let mut run = DataParallel::exact(trainer(), &Alone, chunks).unwrap();
    run.fit(Dataset::new(&x, &y), None, ()).unwrap();
    // Of parts of 8 samples each, the batches have 8/3 of each: the first in the order of
    // (2i + 1)/16, part after part.
    let order: Vec<usize> = (0..samples).map(|i| (i % chunks) * 8 + i / chunks).collect();
    let batches = order.chunks(batch).map(|rows| {
        let of = |rows: &[usize]| (x.select(ndarray::Axis(0), rows), y.select(ndarray::Axis(0), rows));
        of(rows)
    });
    let mut expected = trainer();
    expected.fit_batches(batches, None, ()).unwrap();
    assert_ne!(mlp.parameters(), expected.model().mlp.parameters());
    assert_eq!(run.trainer().model().mlp.parameters(), expected.model().mlp.parameters());
    assert_eq!(run.trainer().history().records[0].loss, expected.history().records[0].loss);
}

/// The gradient of the first step is exact here, so a step of each rule differs from the trainer's
/// by what follows: below 100 roundings of numbers below 8.
#[test]
fn a_step_by_each_rule_is_that_of_the_trainer() {
    let samples = 24;
    let x = Array2::from_shape_fn((samples, 2), |(i, j)| ((i * 7 + j * 3) % 5) as f64 - 2.0);
    let y = Array1::from_shape_fn(samples, |i| (i % 3) as f64);
    let mut mlp = Mlp::<f64>::he(&[2, 3, 1], Bias::EveryLayer, 1).unwrap();
    mlp.theta_mut().iter_mut().for_each(|p| *p = (*p * 4.0).round() / 4.0 + 0.25);
    let base = TrainingSettings {
        batch: samples,
        epochs: 1,
        shuffle: false,
        weight_decay: 0.01,
        ..TrainingSettings::default()
    };
    for training in [
        base.clone(),
        TrainingSettings { decay_biases: false, ..base.clone() },
        TrainingSettings { optimizer: Optimizer::Momentum { mu: 0.9 }, ..base.clone() },
        TrainingSettings { optimizer: Optimizer::Nesterov { mu: 0.9 }, ..base.clone() },
        TrainingSettings { optimizer: Optimizer::adam(), decay_biases: false, ..base.clone() },
        TrainingSettings { clip_norm: Some(0.5), ..base.clone() },
        TrainingSettings { clip_norm: Some(0.5), sam: Some(0.1), ..base },
    ] {
        let trainer = || Trainer::new(mlp.clone(), SquaredError, training.clone()).unwrap();
        let (mut expected, mut run) = (trainer(), DataParallel::exact(trainer(), &Alone, 4).unwrap());
        expected.fit(Dataset::new(&x, &y), None, ()).unwrap();
        run.fit(Dataset::new(&x, &y), None, ()).unwrap();
        let close = |found: f64, expected: f64| (found - expected).abs() <= 100.0 * 8.0 * f64::EPSILON / 2.0;
        let of = |trainer: &Trainer<f64, SquaredError>| trainer.model().mlp.parameters().to_vector();
        assert!(
            of(run.trainer()).iter().zip(of(&expected)).all(|(&found, expected)| close(found, expected)),
            "{training:?}"
        );
        let [found, expected] = [run.trainer(), &expected].map(|trainer| trainer.history().records[0]);
        assert!(found.loss == expected.loss && close(found.gradient_norm, expected.gradient_norm), "{training:?}");
    }
}

/// Without rounding, the standardisation of all ranks is that of all rows; with it, that of the
/// parts is off by a few roundings.
#[test]
fn standardisation_is_that_of_all_ranks() {
    let train = Data::<f32>::new(100, 4, true, 3);
    let training = TrainingSettings { standardize: true, epochs: 1, ..TrainingSettings::default() };
    let mut run = DataParallel::exact(trainer(&[4, 3], training, Products::Auto), &Alone, 7).unwrap();
    run.fit(train.part(7, 0, 1), None, ()).unwrap();
    // What has no weight is absent.
    let weights = train.weights.as_ref().unwrap();
    let present: Vec<usize> = (0..100).filter(|&row| weights[row] > 0.0).collect();
    assert!((1..100).contains(&present.len()));
    let expected = crate::Standardizer::fit(&train.x.select(ndarray::Axis(0), &present)).unwrap();
    let found = run.trainer().model().standardizer.as_ref().unwrap();
    for (found, expected) in found.mean.iter().chain(&found.factor).zip(expected.mean.iter().chain(&expected.factor)) {
        // Sums are good to one rounding, and what follows has some five.
        assert!((found - expected).abs() <= 8.0 * f64::EPSILON * expected.abs(), "{found}, {expected}");
    }
}

/// The exact and the fast gradient are both within the bound of rounding for any order of sums. So
/// are those of layers that are computed in several pieces, and of ranks without a sample.
#[test]
fn fast_steps_are_within_the_bound_of_any_order() {
    for native in [false, true] {
        for ranks in [1, 2, 3, 4] {
            fast_step_within_bound::<f32>(ranks, products(native), &[5, 9, 3], Bias::EveryLayer, 96);
            fast_step_within_bound::<f32>(ranks, products(native), &[5, 9, 3], Bias::Input, 3);
        }
        // In single precision, signs that rounding may change make the bounds of many neurons wide.
        fast_step_within_bound::<f64>(2, products(native), &[5, 523, 1031, 3], Bias::EveryLayer, 24);
        fast_step_within_bound::<f64>(3, products(native), &[5, 129, 2, 600, 3], Bias::None, 24);
    }
}

fn fast_step_within_bound<F: Scalar>(ranks: usize, products: Products, widths: &[usize], bias: Bias, samples: usize) {
    let (chunks, eta) = (12, 0.1);
    let optimizer = Optimizer::Momentum { mu: 0.5 };
    let learning_rate = LearningRate::constant(eta);
    let training = TrainingSettings {
        epochs: 1,
        batch: samples,
        shuffle: false,
        optimizer,
        learning_rate,
        ..TrainingSettings::default()
    };
    let mlp = Mlp::<F>::he(widths, bias, 5).unwrap().with_products(products).unwrap();
    let start = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let train = Data::<F>::new(samples, 5, false, 4);
    let mlp = &start.model().mlp;
    let gradient = loss_gradient(mlp, train.x.view(), &train.labels, &SoftmaxCrossEntropy).unwrap();
    let bound = StepBounds::new(optimizer).unwrap().step(mlp, &gradient, eta, 0.0).unwrap();
    for fast in [false, true] {
        let outcomes = on_threads(ranks, |group| {
            let trainer = start.clone();
            let run = if fast { DataParallel::fast } else { DataParallel::exact };
            let mut run = run(trainer, group, chunks).unwrap();
            run.fit(train.part(chunks, group.rank, ranks), None, ()).unwrap();
            run.into_trainer()
        });
        for trainer in outcomes {
            let numbers = bound.value.iter().zip(bound.bound.iter());
            for (found, (value, bound)) in trainer.model().mlp.parameters().iter().zip(numbers) {
                let off = (found.to_f64() - value).abs();
                assert!(off <= *bound, "{found} for {value} ± {bound}, fast {fast}, {ranks} ranks, {widths:?}");
            }
        }
    }
}

/// A run that is stopped after any batch goes on with any number of ranks.
#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let training = TrainingSettings {
        epochs: 4,
        batch: 20,
        optimizer: Optimizer::adam(),
        validation_fraction: Some(0.2),
        standardize: true,
        early_stopping: Some(9),
        ..TrainingSettings::default()
    };
    let (chunks, train) = (12, Data::<f32>::new(101, 5, true, 6));
    let start = trainer(&[5, 8, 3], training, Products::Auto);
    let expected = run(1, chunks, &start, &train, None);
    for (stop_after, ranks) in [(1_usize, [2, 3]), (4, [4, 1]), (5, [1, 6]), (7, [12, 4])] {
        let stopped = on_threads(ranks[0], |group| {
            let mut run = DataParallel::exact(start.clone(), group, chunks).unwrap();
            // One rank alone says stop.
            let mut batches = 0;
            let stop = on_batch(|_| {
                batches += 1;
                if group.rank == ranks[0] - 1 && batches == stop_after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            let ended = run.fit(train.part(chunks, group.rank, ranks[0]), None, stop).unwrap();
            assert_eq!(ended, StopReason::Observer);
            assert_eq!(run.trainer().steps(), stop_after as u64);
            run.into_trainer()
        });
        // As from a checkpoint: without the order of the epoch.
        let mut resumed = stopped.into_iter().next().unwrap();
        resumed.order = None;
        assert_eq!(run(ranks[1], chunks, &resumed, &train, None), expected, "after {stop_after} batches");
    }
}

/// The rest of an epoch has its batches from as many parts as it began with.
#[test]
fn an_epoch_goes_on_with_its_number_of_chunks() {
    let train = Data::<f32>::new(60, 5, false, 6);
    let start = trainer(&[5, 8, 3], TrainingSettings::default(), Products::Auto);
    let stop = || on_batch(|_| ControlFlow::Break(()));
    let mut run = DataParallel::exact(start.clone(), &Alone, 4).unwrap();
    run.fit(train.part(4, 0, 1), None, stop()).unwrap();
    // What proves the steps of the trainer by itself finite holds for θ as it is now.
    let theta = run.trainer().model.mlp.parameters();
    assert_eq!(run.trainer().moments.bounds, Some(OverflowBounds::of(theta, &[])));
    for chunks in [1, 6] {
        let mut other = DataParallel::exact(run.trainer().clone(), &Alone, chunks).unwrap();
        let refused = other.fit(train.part(chunks, 0, 1), None, ()).unwrap_err();
        assert_eq!(refused, Error::UnfinishedChunks { expected: 4, found: chunks });
    }
    let mut whole = start;
    whole.fit(train.part(1, 0, 1), None, stop()).unwrap();
    let refused = DataParallel::exact(whole, &Alone, 2).unwrap().fit(train.part(2, 0, 1), None, ()).unwrap_err();
    assert_eq!(refused, Error::UnfinishedChunks { expected: 1, found: 2 });
}

/// A rank without samples takes part.
#[test]
fn ranks_may_have_unequal_parts_and_none() {
    let train = Data::<f32>::new(50, 5, false, 2);
    let start =
        trainer::<f32>(&[5, 7, 3], TrainingSettings { batch: 7, ..TrainingSettings::default() }, Products::Auto);
    let outcomes = on_threads(3, |group| {
        let rows = [0..41, 41..41, 41..50][group.rank].clone();
        let data = Dataset::new(train.x.slice(s![rows.clone(), ..]), train.labels.slice(s![rows]));
        let mut run = DataParallel::exact(start.clone(), group, 3).unwrap();
        let samples = Cell::new(0);
        run.fit(data, None, on_batch(|end| samples.set(samples.get() + end.samples))).unwrap();
        assert_eq!(samples.get(), 10 * 50);
        outcome(run.trainer())
    });
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
    let nobody = on_threads(2, |group| {
        let none = Dataset::new(train.x.slice(s![..0, ..]), train.labels.slice(s![..0]));
        DataParallel::exact(start.clone(), group, 2).unwrap().fit(none, None, ()).unwrap_err()
    });
    assert_eq!(nobody, [Error::NoSamples, Error::NoSamples]);
}

/// Samples that are read have the bits of samples in memory.
#[test]
fn ranks_read_their_parts() {
    let training = TrainingSettings {
        batch: 10,
        standardize: true,
        validation_fraction: Some(0.2),
        ..TrainingSettings::default()
    };
    for chunks in [1, 4] {
        let start = trainer::<f32>(&[5, 7, 3], training.clone(), Products::Auto);
        let train = Data::<f32>::new(90, 5, true, 2);
        let expected = run(1, chunks, &start, &train, None);
        for ranks in (1..=chunks).filter(|ranks| chunks % ranks == 0) {
            let outcomes = on_threads(ranks, |group| {
                let mut run = DataParallel::exact(start.clone(), group, chunks).unwrap();
                let whole = train.part(1, 0, 1);
                let rows = part_of_rank(whole.samples(), chunks, group.rank, ranks);
                run.fit_source(&SourcePart::new(&whole, rows), None, ()).unwrap();
                outcome(run.trainer())
            });
            assert!(outcomes.iter().all(|outcome| *outcome == expected), "{ranks} of {chunks}");
        }
    }
}
