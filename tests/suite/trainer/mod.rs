//! The trainer: what it repeats bit for bit, where it stops, and what it keeps.

use crate::common;
mod data;
mod divergence;
mod refusals;
mod validation;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gemmprop::BatchEnd;
use gemmprop::rungs::count::{Counted, multiplications};
use gemmprop::{
    Bias, Dataset, Error, LearningRate, Mlp, Model, Observer, Optimizer, Record, Scalar, Sgd, SoftmaxCrossEntropy,
    SquaredError, Standardizer, StopReason, Trainer, TrainingSettings, on_batch, on_epoch,
};
use ndarray::{Array1, Array2, ArrayView2, array, s};
use proptest::prelude::*;

const MOMENTUM: Optimizer = Optimizer::Momentum { mu: 0.9 };
const NESTEROV: Optimizer = Optimizer::Nesterov { mu: 0.9 };

fn optimizers() -> [Optimizer; 4] {
    [Optimizer::Sgd, MOMENTUM, NESTEROV, Optimizer::adam()]
}

/// Everything that is equal in two equal runs, the floating-point numbers as bits; this excludes
/// the wall time.
#[derive(Debug, Clone, PartialEq)]
struct State {
    model: Vec<u64>,
    records: Vec<(usize, u64, u64, Option<u64>, u64, u64)>,
}

fn model_bits<F: common::Real>(model: &Model<F>) -> Vec<u64> {
    let fitted = model.standardizer.iter().flat_map(|fitted| fitted.mean().into_iter().chain(fitted.factor()));
    let fitted = fitted.map(|p| p.to_f64().to_bits());
    model.mlp.parameters().iter().map(|p| p.to_f64().to_bits()).chain(fitted).collect()
}

fn state<F: common::Real, L: gemmprop::Loss<F>>(trainer: &Trainer<F, L>) -> State {
    let record = |record: &Record| {
        let Record { epoch, steps, loss, validation_loss, learning_rate, gradient_norm, .. } = *record;
        let bits = f64::to_bits;
        (epoch, steps, bits(loss), validation_loss.map(bits), bits(learning_rate), bits(gradient_norm))
    };
    State { model: model_bits(trainer.model()), records: trainer.history().records.iter().map(record).collect() }
}

/// Settings that between them use everything.
fn trainings() -> Vec<TrainingSettings> {
    let mut trainings = Vec::new();
    for optimizer in optimizers() {
        for clip_norm in [None, Some(0.25)] {
            for sam in [None, Some(0.1)] {
                for (validation_fraction, standardize) in [(None, false), (Some(0.2), true)] {
                    trainings.push(TrainingSettings {
                        optimizer,
                        learning_rate: LearningRate::cosine(0.02, 0.001).warm_up(3),
                        weight_decay: 0.01,
                        epochs: 3,
                        batch: 16,
                        seed: 3,
                        clip_norm,
                        sam,
                        standardize,
                        validation_fraction,
                        ..TrainingSettings::default()
                    });
                }
            }
        }
    }
    trainings
}

/// A linear network ŷ = w x.
fn linear<F: common::Real>(w: f64) -> Mlp<F> {
    Mlp::from_weights(&[1, 1], Bias::None, 0, |_, _, _| w).unwrap()
}

/// A network, data whose last batch is ragged, and labels.
fn setting<F: common::Real>() -> (Mlp<F>, Array2<F>, Array1<usize>) {
    let mlp = common::network(&[6, 20, 9, 3], Bias::EveryLayer, 1);
    (mlp, common::uniform(70, 6, 2), Array1::from_shape_fn(70, |i| (i * i) % 3))
}

fn plain_descent_is_sgd<F: common::Real>() {
    let (mut expected, x, y) = setting::<F>();
    let mlp = expected.clone();
    let mut sgd = Sgd::new(16, 0.1, 3).unwrap().weight_decay(0.01).unwrap();
    let losses = sgd.train(&mut expected, x.view(), y.view(), &SoftmaxCrossEntropy, 4).unwrap();
    let training =
        TrainingSettings { batch: 16, seed: 3, weight_decay: 0.01, epochs: 4, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().mlp, expected);
    assert_eq!(trainer.history().records.iter().map(|record| record.loss).collect::<Vec<_>>(), losses);
}

#[test]
fn plain_descent_has_the_bits_of_sgd() {
    plain_descent_is_sgd::<f32>();
    plain_descent_is_sgd::<f64>();
}

/// Batches much taller than the layers are wide, whose steps take another path; the last one is
/// ragged, and tall in one case.
fn plain_descent_in_tall_batches_is_sgd<F: common::Real>(samples: usize, batch: usize) {
    let (x, y) = (common::uniform::<F>(samples, 6, 2), Array1::from_shape_fn(samples, |i| (i * i) % 3));
    let mlp = common::network::<F>(&[6, 20, 9, 3], Bias::EveryLayer, 1);
    let mut expected = mlp.clone();
    let mut sgd = Sgd::new(batch, 0.1, 3).unwrap().weight_decay(0.01).unwrap();
    let losses = sgd.train(&mut expected, x.view(), y.view(), &SoftmaxCrossEntropy, 3).unwrap();
    let training = TrainingSettings { batch, seed: 3, weight_decay: 0.01, epochs: 3, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().mlp, expected, "{batch} of {samples}");
    assert_eq!(trainer.history().records.iter().map(|record| record.loss).collect::<Vec<_>>(), losses);
}

#[test]
fn plain_descent_has_the_bits_of_sgd_in_tall_batches_too() {
    for (samples, batch) in [(300, 300), (300, 256), (600, 300), (556, 300), (255, 255)] {
        plain_descent_in_tall_batches_is_sgd::<f32>(samples, batch);
        plain_descent_in_tall_batches_is_sgd::<f64>(samples, batch);
    }
}

/// Each step of an epoch of one batch is its last, whose norm is recorded.
#[test]
fn a_full_batch_run_makes_each_gradient_once() {
    let (x, y) = (common::uniform::<f64>(300, 6, 2).mapv(Counted), Array2::from_elem((300, 2), Counted(0.5)));
    let mlp = Mlp::<Counted>::he(&[6, 20, 9, 2], Bias::EveryLayer, 1).unwrap();
    let (_, by_sgd) = multiplications(|| {
        let mut mlp = mlp.clone();
        Sgd::new(300, 0.1, 3).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 4).unwrap()
    });
    let (_, found) = multiplications(|| {
        let training = TrainingSettings { batch: 300, epochs: 4, ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp.clone(), SquaredError, training).unwrap();
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap()
    });
    // A trainer sums up the squares of all z and δ in each step; `Sgd` looks at θ in place of that.
    let squares = 4 * 300 * (6 + 2 * (20 + 9 + 2));
    assert_eq!(found, by_sgd + squares);
}

/// An observer that panics after its third batch, or stops the run there.
struct Third {
    batches: usize,
    panics: bool,
}

impl Observer<f32> for Third {
    fn batch(&mut self, _: &BatchEnd) -> ControlFlow<()> {
        self.batches += 1;
        match (self.batches, self.panics) {
            (3, true) => panic!("the third batch"),
            (3, false) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The steps before a panic have been made, and the run resumes behind them.
#[test]
fn a_run_whose_observer_panics_is_as_one_that_it_stops() {
    let (mlp, x, y) = setting::<f32>();
    let data = || Dataset::new(x.view(), y.view());
    for (products, optimizer) in common::both_products().into_iter().flat_map(|p| optimizers().map(|o| (p, o))) {
        let mlp = mlp.clone().with_products(products).unwrap();
        let training = TrainingSettings { optimizer, batch: 8, epochs: 2, ..TrainingSettings::default() };
        let new = || Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
        let (mut panicked, mut stopped) = (new(), new());
        let fit = || panicked.fit(data(), None, &mut Third { batches: 0, panics: true });
        assert!(catch_unwind(AssertUnwindSafe(fit)).is_err());
        stopped.fit(data(), None, &mut Third { batches: 0, panics: false }).unwrap();
        assert_eq!(state(&panicked), state(&stopped), "{products:?} {optimizer:?}");
        panicked.fit(data(), None, &mut ()).unwrap();
        stopped.fit(data(), None, &mut ()).unwrap();
        assert_eq!(state(&panicked), state(&stopped), "{products:?} {optimizer:?}, resumed");
    }
}

/// What follows the last batch of an epoch may fail as well: the next call, of this process or of
/// another, does the rest, and the epoch has its record.
#[test]
fn an_epoch_whose_last_batch_was_made_is_ended_by_the_next_call() {
    let (mlp, x, y) = setting::<f64>();
    let training = TrainingSettings {
        batch: 8,
        epochs: 3,
        optimizer: MOMENTUM,
        early_stopping: Some(9),
        ..TrainingSettings::default()
    };
    let new = || Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    let mut expected = new();
    expected.fit(Dataset::new(&x, &y), None, ()).unwrap();
    let fails = on_batch(|end| assert!(end.epoch < 2 || end.batch < end.batches, "on purpose"));
    let mut trainer = new();
    let fit = || trainer.fit(Dataset::new(&x, &y), None, fails);
    assert!(catch_unwind(AssertUnwindSafe(fit)).is_err());
    assert_eq!((trainer.history().records.len(), trainer.steps()), (1, 2 * expected.steps() / 3));
    #[cfg(feature = "files")]
    let mut trainer = {
        use gemmprop::checkpoint::{Checkpoints, Notes};
        let folder = tempfile::tempdir().unwrap();
        Checkpoints::create(folder.path()).unwrap().save(&trainer, &Notes::new()).unwrap();
        Checkpoints::open(folder.path()).unwrap().resume::<f64, _>(SoftmaxCrossEntropy).unwrap().value
    };
    let mut epochs = Vec::new();
    trainer.fit(Dataset::new(&x, &y), None, on_epoch(|record, _| epochs.push(record.epoch))).unwrap();
    assert_eq!(epochs, [2, 3]);
    assert_eq!(state(&trainer), state(&expected));
}

#[test]
fn each_optimizer_learns() {
    for optimizer in
        [Optimizer::Sgd, Optimizer::Momentum { mu: 0.9 }, Optimizer::Nesterov { mu: 0.9 }, Optimizer::adam()]
    {
        for clip_norm in [None, Some(0.5)] {
            let (mlp, x, y) = setting::<f32>();
            let eta = if optimizer == Optimizer::adam() { 1e-2 } else { 0.1 };
            let training = TrainingSettings {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                clip_norm,
                batch: 16,
                epochs: 60,
                ..TrainingSettings::default()
            };
            let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
            trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            let records = &trainer.history().records;
            assert!(
                records[59].loss < 0.5 * records[0].loss,
                "{optimizer:?} {clip_norm:?} {} {}",
                records[0].loss,
                records[59].loss
            );
        }
    }
}

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Layers wide enough for tiles by rows, by columns, and of an update in several chunks.
fn same_for_any_number_of_threads<F: common::Real>() {
    let x = common::uniform::<F>(70, 64, 2);
    let y = Array1::from_shape_fn(70, |i| (i * i) % 3);
    let weights = Array1::from_shape_fn(70, |i| F::from_f64((i % 5) as f64 / 2.0));
    for training in trainings() {
        let run = || {
            let mlp = common::network::<F>(&[64, 300, 200, 3], Bias::EveryLayer, 1);
            let training = TrainingSettings { epochs: 2, batch: 32, ..training.clone() };
            let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
            let data = Dataset::new(x.view(), y.view()).weights(weights.view());
            trainer.fit(data, None, &mut ()).unwrap();
            state(&trainer)
        };
        let alone = in_pool(1, run);
        for threads in [2, 3, 8] {
            assert!(in_pool(threads, run) == alone, "{threads} threads: {training:?}");
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    same_for_any_number_of_threads::<f32>();
    same_for_any_number_of_threads::<f64>();
}

/// Stops after the next `batches` batches, or at the end of an epoch.
struct Stop {
    batches: usize,
    at_epoch: bool,
}

impl<F: Scalar> Observer<F> for Stop {
    fn batch(&mut self, _: &BatchEnd) -> ControlFlow<()> {
        self.batches = self.batches.saturating_sub(1);
        if self.batches == 0 && !self.at_epoch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn epoch(&mut self, _: &Record, _: &Model<F>) -> ControlFlow<()> {
        if self.at_epoch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn stops_and_goes_on<F: common::Real>(training: &TrainingSettings, stops: &[(usize, bool)]) {
    let (mlp, x, y) = setting::<F>();
    let data = Dataset::new(x.view(), y.view());
    let new = || Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    let mut once = new();
    let ended = once.fit(data, None, &mut ()).unwrap();
    let mut trainer = new();
    for &(batches, at_epoch) in stops {
        let before = trainer.steps();
        let outcome = trainer.fit(data, None, &mut Stop { batches, at_epoch }).unwrap();
        if outcome == StopReason::Observer && !at_epoch {
            assert_eq!(trainer.steps(), before + batches as u64);
        }
    }
    assert_eq!(trainer.fit(data, None, &mut ()).unwrap(), ended);
    assert_eq!(state(&trainer), state(&once), "{training:?} {stops:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_run_that_is_stopped_anywhere_and_goes_on_has_the_bits_of_one_that_is_not(
        which in 0..32_usize,
        stops in proptest::collection::vec((1..8_usize, any::<bool>()), 1..6),
        early_stopping in proptest::option::of(1..3_usize),
    ) {
        let training = TrainingSettings { early_stopping, ..trainings()[which].clone() };
        stops_and_goes_on::<f32>(&training, &stops);
        stops_and_goes_on::<f64>(&training, &stops);
    }
}

#[test]
fn epoch_by_epoch_is_the_whole_run() {
    for training in trainings() {
        let (mlp, x, y) = setting::<f32>();
        let data = Dataset::new(x.view(), y.view());
        let mut once = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
        once.fit(data, None, &mut ()).unwrap();
        let mut by_epoch = Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap();
        for epoch in 1..=training.epochs {
            assert_eq!(by_epoch.partial_fit(data, None, &mut ()).unwrap(), StopReason::Completed);
            assert_eq!(by_epoch.history().records.len(), epoch);
        }
        assert_eq!(state(&by_epoch), state(&once), "{training:?}");
        // Nothing is left to be done.
        assert_eq!(by_epoch.fit(data, None, &mut ()).unwrap(), StopReason::Completed);
        assert_eq!(state(&by_epoch), state(&once));
    }
}

/// Batches in the data's own order are steps with its slices.
#[test]
fn without_shuffling_the_batches_are_the_data_in_order() {
    for optimizer in optimizers() {
        for clip_norm in [None, Some(0.25)] {
            let (mlp, x, y) = setting::<f64>();
            let training = TrainingSettings {
                optimizer,
                clip_norm,
                learning_rate: LearningRate::constant(0.02),
                batch: 16,
                epochs: 2,
                shuffle: false,
                ..TrainingSettings::default()
            };
            let new =
                |training: &TrainingSettings| Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
            let mut by_epoch = new(&training);
            by_epoch.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            let mut by_step = new(&training);
            for step in 0..10 {
                let rows = s![step % 5 * 16..(step % 5 * 16 + 16).min(70)];
                let batch = Dataset::new(x.slice(s![step % 5 * 16..(step % 5 * 16 + 16).min(70), ..]), y.slice(rows));
                by_step.step(batch).unwrap();
                assert_eq!(by_step.steps(), step as u64 + 1);
            }
            assert_eq!(model_bits(by_epoch.model()), model_bits(by_step.model()), "{training:?}");
            assert_eq!(by_epoch.steps(), 10);
            let mut shuffled = new(&TrainingSettings { shuffle: true, ..training.clone() });
            shuffled.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            assert_ne!(model_bits(by_epoch.model()), model_bits(shuffled.model()));
        }
    }
}

/// The same number of training samples from other rows: with a split, 13 of 15 and 13 of 14.
#[test]
fn the_rest_of_an_epoch_is_of_the_same_rows() {
    let (mlp, x, y) = setting::<f32>();
    let training = TrainingSettings { batch: 4, validation_fraction: Some(0.1), ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let of = |n| Dataset::new(x.slice(s![..n, ..]), y.slice(s![..n]));
    trainer.fit(of(15), None, &mut Stop { batches: 1, at_epoch: false }).unwrap();
    let error = trainer.fit(of(14), None, &mut ()).unwrap_err();
    assert_eq!(error, Error::UnfinishedEpoch { expected: (13, 15), found: (13, 14) });
    assert_eq!(trainer.partial_fit(of(15), None, &mut ()).unwrap(), StopReason::Completed);
}

/// Stopped by the observer in the very last batch, or after the epoch at which patience ends, a run
/// is over: the best epoch is put back.
#[test]
fn a_run_that_is_stopped_at_its_end_is_over() {
    let (mlp, x, y) = setting::<f32>();
    let training = TrainingSettings { batch: 16, epochs: 3, early_stopping: Some(3), ..TrainingSettings::default() };
    let data = Dataset::new(x.view(), y.view());
    let mut once = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    assert_eq!(once.fit(data, None, &mut ()).unwrap(), StopReason::Completed);
    for at_epoch in [false, true] {
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
        let mut stop = Stop { batches: 15, at_epoch };
        let calls = if at_epoch { 3 } else { 1 };
        let ended: Vec<StopReason> = (0..calls).map(|_| trainer.fit(data, None, &mut stop).unwrap()).collect();
        assert_eq!(ended.last(), Some(&StopReason::Completed), "{ended:?}");
        assert_eq!(model_bits(trainer.model()), model_bits(once.model()));
    }
}

/// Fewer epochs than begun: the network in the middle of the epoch stays, and the run resumes from
/// there.
#[test]
fn a_run_with_fewer_epochs_than_begun_keeps_its_place() {
    let (mlp, x, y) = setting::<f32>();
    let training = TrainingSettings { batch: 16, epochs: 6, early_stopping: Some(5), ..TrainingSettings::default() };
    let data = Dataset::new(x.view(), y.view());
    let mut once = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    once.fit(data, None, &mut ()).unwrap();
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(data, None, &mut Stop { batches: 17, at_epoch: false }).unwrap();
    trainer.set_epochs(2);
    trainer.fit(data, None, &mut ()).unwrap();
    trainer.set_epochs(6);
    trainer.fit(data, None, &mut ()).unwrap();
    assert_eq!(model_bits(trainer.model()), model_bits(once.model()));
}
