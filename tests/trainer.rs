//! The trainer: what it repeats bit for bit, where it stops, and what it keeps.

mod common;

use std::ops::ControlFlow;

use common::{BoundedLoss, Reference};
use gemmprop::observer::Batch;
use gemmprop::{
    Constant, Dataset, Ended, Error, LearningRate, Mlp, Model, Observer, Optimizer, Record, Sgd, SoftmaxCrossEntropy,
    SquaredError, Standardizer, Trainer, Training,
};
use ndarray::{Array1, Array2, ArrayView2, array, s};
use proptest::prelude::*;

const MOMENTUM: Optimizer = Optimizer::Momentum { mu: 0.9 };
const NESTEROV: Optimizer = Optimizer::Nesterov { mu: 0.9 };

fn optimizers() -> [Optimizer; 4] {
    [Optimizer::Sgd, MOMENTUM, NESTEROV, Optimizer::adam()]
}

/// All that two runs have in common if they are the same, the floating-point numbers as bits; the wall time is none of it.
#[derive(Debug, Clone, PartialEq)]
struct State {
    model: Vec<u64>,
    records: Vec<(usize, u64, u64, Option<u64>, u64, u64)>,
}

fn model_bits<F: common::Real>(model: &Model<F>) -> Vec<u64> {
    let fitted = model.standardizer.iter().flat_map(|fitted| fitted.mean().into_iter().chain(fitted.factor()));
    model.mlp.parameters().iter().chain(fitted).map(|p| p.to_f64().to_bits()).collect()
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
fn trainings() -> Vec<Training> {
    let mut trainings = Vec::new();
    for optimizer in optimizers() {
        for clip_norm in [None, Some(0.25)] {
            for (validation_fraction, standardize) in [(None, false), (Some(0.2), true)] {
                trainings.push(Training {
                    optimizer,
                    learning_rate: LearningRate::cosine(0.02, 0.001).warm_up(3),
                    weight_decay: 0.01,
                    epochs: 3,
                    batch: 16,
                    seed: 3,
                    clip_norm,
                    standardize,
                    validation_fraction,
                    ..Training::default()
                });
            }
        }
    }
    trainings
}

/// A network, data whose last batch is ragged, and labels.
fn setting<F: common::Real>() -> (Mlp<F>, Array2<F>, Array1<usize>) {
    let mlp = common::network(&[6, 20, 9, 3], Constant::EveryLayer, 1);
    (mlp, common::uniform(70, 6, 2), Array1::from_shape_fn(70, |i| (i * i) % 3))
}

fn plain_descent_is_sgd<F: common::Real>() {
    let (mut expected, x, y) = setting::<F>();
    let mlp = expected.clone();
    let mut sgd = Sgd::new(16, 0.1, 3).unwrap().weight_decay(0.01).unwrap();
    let losses = sgd.train(&mut expected, x.view(), y.view(), &SoftmaxCrossEntropy, 4).unwrap();
    let training = Training { batch: 16, seed: 3, weight_decay: 0.01, epochs: 4, ..Training::default() };
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

#[test]
fn each_optimizer_learns() {
    for optimizer in
        [Optimizer::Sgd, Optimizer::Momentum { mu: 0.9 }, Optimizer::Nesterov { mu: 0.9 }, Optimizer::adam()]
    {
        for clip_norm in [None, Some(0.5)] {
            let (mlp, x, y) = setting::<f32>();
            let eta = if optimizer == Optimizer::adam() { 1e-2 } else { 0.1 };
            let training = Training {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                clip_norm,
                batch: 16,
                epochs: 60,
                ..Training::default()
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
            let mlp = common::network::<F>(&[64, 300, 200, 3], Constant::EveryLayer, 1);
            let training = Training { epochs: 2, batch: 32, ..training.clone() };
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

/// Stops after the next so many batches, or at the end of an epoch.
struct Stop {
    batches: usize,
    at_epoch: bool,
}

impl<F: gemmprop::Scalar> Observer<F> for Stop {
    fn batch(&mut self, _: &Batch) -> ControlFlow<()> {
        self.batches = self.batches.saturating_sub(1);
        if self.batches == 0 && !self.at_epoch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn epoch(&mut self, _: &Record, _: &Model<F>) -> ControlFlow<()> {
        if self.at_epoch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn stops_and_goes_on<F: common::Real>(training: &Training, stops: &[(usize, bool)]) {
    let (mlp, x, y) = setting::<F>();
    let data = Dataset::new(x.view(), y.view());
    let new = || Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    let mut once = new();
    let ended = once.fit(data, None, &mut ()).unwrap();
    let mut trainer = new();
    for &(batches, at_epoch) in stops {
        let before = trainer.steps();
        let outcome = trainer.fit(data, None, &mut Stop { batches, at_epoch }).unwrap();
        if outcome == Ended::Observer && !at_epoch {
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
        which in 0..16_usize,
        stops in proptest::collection::vec((1..8_usize, any::<bool>()), 1..6),
        early_stopping in proptest::option::of(1..3_usize),
    ) {
        let training = Training { early_stopping, ..trainings()[which].clone() };
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
            assert_eq!(by_epoch.partial_fit(data, None, &mut ()).unwrap(), Ended::Done);
            assert_eq!(by_epoch.history().records.len(), epoch);
        }
        assert_eq!(state(&by_epoch), state(&once), "{training:?}");
        // Nothing is left to be done.
        assert_eq!(by_epoch.fit(data, None, &mut ()).unwrap(), Ended::Done);
        assert_eq!(state(&by_epoch), state(&once));
    }
}

/// Batches in the data's own order are steps with its slices.
#[test]
fn without_shuffling_the_batches_are_the_data_in_order() {
    for optimizer in optimizers() {
        for clip_norm in [None, Some(0.25)] {
            let (mlp, x, y) = setting::<f64>();
            let training = Training {
                optimizer,
                clip_norm,
                learning_rate: LearningRate::constant(0.02),
                batch: 16,
                epochs: 2,
                shuffle: false,
                ..Training::default()
            };
            let new = |training: &Training| Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
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
            let mut shuffled = new(&Training { shuffle: true, ..training.clone() });
            shuffled.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            assert_ne!(model_bits(by_epoch.model()), model_bits(shuffled.model()));
        }
    }
}

// ---------------------------------------------------------------------------------------------------- validation and early stopping

/// Trains on noise, so that the validation loss soon rises.
fn overfitting(training: Training) -> (Trainer<f64, SoftmaxCrossEntropy>, Ended) {
    let (mlp, x, y) = setting::<f64>();
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let ended = trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    (trainer, ended)
}

fn best_epoch(records: &[Record]) -> usize {
    let losses = records.iter().map(|record| record.validation_loss.unwrap_or(record.loss));
    // The first of equal ones.
    losses.enumerate().reduce(|best, new| if new.1 < best.1 { new } else { best }).unwrap().0 + 1
}

#[test]
fn early_stopping_stops_in_time_and_puts_the_best_epoch_back() {
    let mut early = 0;
    for optimizer in optimizers() {
        for (patience, fraction) in [(1, Some(0.3)), (2, Some(0.3)), (4, Some(0.2)), (3, None)] {
            let eta = if optimizer == Optimizer::adam() { 0.03 } else { 0.3 };
            let training = Training {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                batch: 16,
                epochs: 25,
                validation_fraction: fraction,
                early_stopping: Some(patience),
                ..Training::default()
            };
            let (trainer, ended) = overfitting(training.clone());
            let records = &trainer.history().records;
            let best = best_epoch(records);
            let since = records.len() - best;
            if ended == Ended::Early {
                assert_eq!(since, patience);
                early += 1;
            } else {
                // The epochs have run out; the best one is put back all the same.
                assert!(ended == Ended::Done && records.len() == 25 && since < patience);
            }
            // At no epoch before had it been so long.
            assert!((1..records.len()).all(|n| n - best_epoch(&records[..n]) < patience));
            let (expected, _) = overfitting(Training { epochs: best, early_stopping: None, ..training.clone() });
            assert_eq!(trainer.model(), expected.model(), "{training:?}, best {best}");
        }
    }
    assert!(early >= 8, "{early} of 16 stopped early");
}

#[test]
fn a_run_that_has_stopped_early_does_not_go_on_by_itself() {
    let training = Training {
        learning_rate: LearningRate::constant(0.3),
        epochs: 100,
        validation_fraction: Some(0.3),
        early_stopping: Some(2),
        ..Training::default()
    };
    let (mut trainer, ended) = overfitting(training);
    assert_eq!(ended, Ended::Early);
    let before = state(&trainer);
    let (_, x, y) = setting::<f64>();
    assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap(), Ended::Early);
    assert_eq!(state(&trainer), before);
}

/// Trained towards y = 1 and validated against −1: epoch 1 is the best, of the first call and of all.
#[test]
fn the_best_epoch_is_put_back_by_a_later_call_too() {
    let mlp = Mlp::<f64>::from_weights(&[1, 1], Constant::Absent, 0, |_, _, _| 0.0).unwrap();
    let training = Training { epochs: 3, early_stopping: Some(100), ..Training::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let (x, y, opposite) = (array![[1.0]], array![1.0], array![-1.0]);
    let mut fit = |epochs| {
        trainer.set_epochs(epochs);
        let validation = Some(Dataset::new(x.view(), opposite.view()));
        assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), validation, &mut ()).unwrap(), Ended::Done);
        assert_eq!(best_epoch(&trainer.history().records), 1);
        common::flat(trainer.model().mlp.parameters())
    };
    // η = 0.1: θ after epoch 1.
    assert_eq!(fit(3), [0.1, 0.1]);
    // The best of epochs 4 to 6 is none: the network is still that of the least loss of the run.
    assert_eq!(fit(6), [0.1, 0.1]);
}

/// |mean of the trainer − mean by hand| ≤ both errors of each ℓ, and the n + 1 roundings of a mean in f64.
fn validation_is_the_mean_over_predictions<F: common::Real>() {
    let (mlp, x, y) = setting::<F>();
    let (x_new, y_new) = (common::uniform::<F>(37, 6, 9), Array1::from_shape_fn(37, |i| i % 3));
    let weights = Array1::from_shape_fn(37, |i| F::from_f64((i % 4) as f64 / 2.0));
    for weighted in [false, true] {
        let training = Training { batch: 16, standardize: true, epochs: 3, ..Training::default() };
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
        let validation = Dataset::new(x_new.view(), y_new.view());
        let validation = if weighted { validation.weights(weights.view()) } else { validation };
        trainer.fit(Dataset::new(x.view(), y.view()), Some(validation), &mut ()).unwrap();
        let model = trainer.model();
        let reference = Reference::new(&model.mlp);
        let z = model.standardizer.as_ref().unwrap().transform(x_new.view()).unwrap();
        let y_hat = model.predict(x_new.view()).unwrap().mapv(|y| y.to_f64());
        let (mut mean, mut bound) = (0.0, 0.0);
        for (i, (z, y_hat)) in z.outer_iter().zip(y_hat.outer_iter()).enumerate() {
            let weight = if weighted { weights[i].to_f64() } else { 1.0 };
            let largest = y_hat.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let sum: f64 = y_hat.iter().map(|y| (y - largest).exp()).sum();
            mean += weight * (sum.ln() + largest - y_hat[y_new[i]]) / 37.0;
            let forward = reference.forward(z).expect("no mask that could flip");
            let seed = BoundedLoss::<F>::seed(&SoftmaxCrossEntropy, F::U, &forward, &[y_new[i]]);
            bound += weight * (2.0 * seed.loss_error + common::gamma(40, f64::EPSILON) * seed.loss) / 37.0;
        }
        let found = trainer.history().records[2].validation_loss.unwrap();
        assert!(bound < 1e-3 * mean && (found - mean).abs() <= bound, "{found} {mean} {bound:e}");
    }
}

#[test]
fn the_validation_loss_is_the_mean_loss_of_the_predictions() {
    validation_is_the_mean_over_predictions::<f32>();
    validation_is_the_mean_over_predictions::<f64>();
}

/// Which samples a split keeps is seen by changing one at a time: a kept one moves no parameter and the validation loss; another one
/// moves parameters.
#[test]
fn samples_kept_for_validation_have_no_influence_on_training() {
    for (n, fraction, expected) in [(10, 0.3, 3), (10, 0.01, 1), (9, 0.5, 5), (12, 0.9, 11), (2, 0.5, 1)] {
        let x = common::uniform::<f64>(n, 6, 2);
        let y = Array1::from_shape_fn(n, |i| i % 3);
        let run = |x: ArrayView2<f64>, y: &Array1<usize>| {
            let training = Training {
                validation_fraction: Some(fraction),
                standardize: true,
                batch: 4,
                epochs: 2,
                seed: 5,
                ..Training::default()
            };
            let mlp = common::network(&[6, 20, 9, 3], Constant::EveryLayer, 1);
            let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
            trainer.fit(Dataset::new(x, y.view()), None, &mut ()).unwrap();
            let batches = (n - expected).div_ceil(4);
            assert_eq!(trainer.steps() as usize, 2 * batches);
            (model_bits(trainer.model()), trainer.history().records[1].validation_loss.unwrap())
        };
        let (theta, loss) = run(x.view(), &y);
        let mut kept = 0;
        for i in 0..n {
            let (mut other_x, mut other_y) = (x.clone(), y.clone());
            other_x.row_mut(i).mapv_inplace(|x| 1.5 - 2.0 * x);
            other_y[i] = (y[i] + 1) % 3;
            let (other_theta, other_loss) = run(other_x.view(), &other_y);
            if other_theta == theta {
                kept += 1;
                assert_ne!(other_loss, loss);
            }
        }
        assert_eq!(kept, expected, "{fraction} of {n}");
    }
}

/// Passes of another size in between change no bit of what comes after: weights of 0 make them steps that move nothing.
#[test]
fn the_validation_loss_does_not_depend_on_the_sizes_of_earlier_batches() {
    let (mlp, x, y) = setting::<f64>();
    let zero = Array1::zeros(70);
    let run = |before: Option<usize>| {
        let training = Training { batch: 8, epochs: 3, validation_fraction: Some(0.5), ..Training::default() };
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
        if let Some(rows) = before {
            let batch = Dataset::new(x.slice(s![..rows, ..]), y.slice(s![..rows])).weights(zero.slice(s![..rows]));
            trainer.step(batch).unwrap();
            assert_eq!(trainer.model().mlp, mlp);
        }
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
        trainer.history().records.iter().map(|record| (record.loss, record.validation_loss)).collect::<Vec<_>>()
    };
    let expected = run(None);
    for rows in [3, 20, 70] {
        assert_eq!(run(Some(rows)), expected, "after a step with {rows}");
    }
}

// --------------------------------------------------------------------------------------------------------------------------- weights

/// On small whole numbers the gradient is exact, so that a step with it has the same bits, roots and all.
fn weights_are_repetitions<F: common::Real>() {
    let counts = [1, 2, 0, 3, 0, 1, 0, 1];
    let repeated: Vec<usize> = (0..8).flat_map(|i| std::iter::repeat_n(i, counts[i])).collect();
    assert_eq!(repeated.len(), 8, "the same B, so that the means are the same");
    let weights = Array1::from_shape_fn(8, |i| F::from_f64(counts[i] as f64));
    let x = common::integers::<F>(8, 5, 1);
    let y = common::integers::<F>(8, 3, 2);
    let rows = |a: &Array2<F>| a.select(ndarray::Axis(0), &repeated);
    let (x_repeated, y_repeated) = (rows(&x), rows(&y));
    for optimizer in optimizers() {
        for clip_norm in [None, Some(0.5), Some(1e30)] {
            let step = |data: Dataset<F, F>| {
                let mlp = common::integer_network::<F>(&[5, 7, 8, 3], Constant::EveryLayer, 4);
                let training = Training { optimizer, clip_norm, ..Training::default() };
                let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
                let loss = trainer.step(data).unwrap();
                (loss, model_bits(trainer.model()))
            };
            let expected = step(Dataset::new(x_repeated.view(), y_repeated.view()));
            let found = step(Dataset::new(x.view(), y.view()).weights(weights.view()));
            assert_eq!(found, expected, "{optimizer:?} {clip_norm:?}");
        }
    }
}

#[test]
fn whole_weights_are_repetitions() {
    weights_are_repetitions::<f32>();
    weights_are_repetitions::<f64>();
}

/// δ = 0 adds 0 to each sum, whatever z is.
#[test]
fn a_sample_of_weight_0_has_no_influence() {
    let (mlp, x, y) = setting::<f32>();
    let weights = Array1::from_shape_fn(70, |i| if i % 3 == 0 { 0.0 } else { 1.25_f32 });
    for optimizer in optimizers() {
        let run = |x: ArrayView2<f32>, y: &Array1<usize>| {
            let training = Training {
                optimizer,
                learning_rate: LearningRate::constant(0.01),
                batch: 16,
                epochs: 3,
                ..Training::default()
            };
            let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap();
            trainer.fit(Dataset::new(x, y.view()).weights(weights.view()), None, &mut ()).unwrap();
            let losses: Vec<f64> = trainer.history().records.iter().map(|record| record.loss).collect();
            (trainer.into_model(), losses)
        };
        let (mut other_x, mut other_y) = (x.clone(), y.clone());
        for i in (0..70).step_by(3) {
            other_x.row_mut(i).mapv_inplace(|x| 3.0 - 50.0 * x);
            other_y[i] = (y[i] + 1) % 3;
        }
        assert_eq!(run(x.view(), &y), run(other_x.view(), &other_y), "{optimizer:?}");
    }
}

/// ½ (3·10³⁸)² overflows in f32, and ∞ · 0 would be NaN.
#[test]
fn a_sample_of_weight_0_has_no_influence_even_if_its_loss_overflows() {
    let mlp = Mlp::<f32>::from_weights(&[1, 1], Constant::Absent, 0, |_, _, _| 0.0).unwrap();
    let mut trainer = Trainer::new(mlp, SquaredError, Training::default()).unwrap();
    let (x, y, weights) = (array![[1.0], [1.0]], array![3e38, 1.0], array![0.0, 2.0]);
    let loss = trainer.step(Dataset::new(x.view(), y.view()).weights(weights.view())).unwrap();
    assert_eq!(loss, 0.5);
}

// ------------------------------------------------------------------------------------------------------------------- standardisation

fn standardized_columns<F: common::Real>() {
    let (mlp, mut x, y) = setting::<F>();
    // Far from 0, in other units, and always the same.
    x.column_mut(1).mapv_inplace(|x| x + F::from_f64(100.0));
    x.column_mut(2).mapv_inplace(|x| x * F::from_f64(1024.0));
    x.column_mut(3).fill(F::from_f64(0.3));
    let training = Training { standardize: true, epochs: 2, batch: 16, ..Training::default() };
    let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let standardizer = trainer.model().standardizer.clone().unwrap();
    assert_eq!(standardizer, Standardizer::fit(x.view()).unwrap());
    let z = standardizer.transform(x.view()).unwrap();
    for (j, (x, z)) in x.columns().into_iter().zip(z.columns()).enumerate() {
        if j == 3 {
            assert_eq!(standardizer.factor()[j], F::ONE);
            // The mean is rounded: as f64 in a sum of 70, then to F.
            assert!(z.iter().all(|z| z.to_f64().abs() <= 0.3 * (F::U + common::gamma(71, f64::EPSILON))));
            continue;
        }
        let (mean, factor) = (standardizer.mean()[j].to_f64(), standardizer.factor()[j].to_f64());
        // Each z is off by the rounding of the mean, and three times by its own.
        let most = x.iter().fold(0.0_f64, |most, x| most.max(x.to_f64().abs()));
        let off = |z: f64| factor * mean.abs() * F::U + common::gamma(3, F::U) * z.abs();
        let of_sums = factor * common::gamma(75, f64::EPSILON) * most;
        let n = z.len() as f64;
        let sum: f64 = z.iter().map(|z| z.to_f64()).sum();
        let bound = z.iter().map(|z| off(z.to_f64())).sum::<f64>() / n + 2.0 * of_sums;
        assert!(bound < 1e-3 && (sum / n).abs() <= bound, "column {j}: mean {}, bound {bound:e}", sum / n);
        let squares: f64 = z.iter().map(|z| z.to_f64() * z.to_f64()).sum();
        let moved = |z: f64| (2.0 * z.abs() + off(z) + of_sums) * (off(z) + of_sums);
        // s too is that of rounded numbers: as much again.
        let bound =
            2.0 * z.iter().map(|z| moved(z.to_f64())).sum::<f64>() / n + 2.0 * F::U + common::gamma(75, f64::EPSILON);
        assert!(
            bound < 1e-3 && (squares / n - 1.0).abs() <= bound,
            "column {j}: variance {}, bound {bound:e}",
            squares / n
        );
    }

    // Training on the transformed data is the same, and the model does to x what was done in training.
    for shuffle in [true, false] {
        let training = Training { shuffle, validation_fraction: None, ..training.clone() };
        let new = |standardize| {
            let training = Training { standardize, ..training.clone() };
            Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training).unwrap()
        };
        let (mut inside, mut outside) = (new(true), new(false));
        let validation = Dataset::new(x.slice(s![..30, ..]), y.slice(s![..30]));
        inside.fit(Dataset::new(x.view(), y.view()), Some(validation), &mut ()).unwrap();
        let validation = Dataset::new(z.slice(s![..30, ..]), y.slice(s![..30]));
        outside.fit(Dataset::new(z.view(), y.view()), Some(validation), &mut ()).unwrap();
        assert_eq!(inside.model().mlp, outside.model().mlp);
        assert_eq!(state(&inside).records, state(&outside).records);
        assert_eq!(inside.model().predict(x.view()), outside.model().predict(z.view()));
        assert!(outside.model().standardizer.is_none());
    }
}

#[test]
fn standardised_columns_have_mean_0_and_variance_1_and_train_as_such() {
    standardized_columns::<f32>();
    standardized_columns::<f64>();
}

/// It is fitted on the first data, and stays.
#[test]
fn the_standardisation_stays_that_of_the_first_data() {
    let (mlp, x, y) = setting::<f64>();
    let mut trainer =
        Trainer::new(mlp, SoftmaxCrossEntropy, Training { standardize: true, ..Training::default() }).unwrap();
    trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let fitted = trainer.model().standardizer.clone();
    let other = x.mapv(|x| 3.0 * x + 1.0);
    trainer.partial_fit(Dataset::new(other.view(), y.view()), None, &mut ()).unwrap();
    trainer.step(Dataset::new(other.view(), y.view())).unwrap();
    assert_eq!(trainer.model().standardizer, fitted);
}

/// The squares of ±10²⁰⁰ are beyond f64, their deviation is not: either it is right, or it is refused.
#[test]
fn a_column_whose_squares_overflow_is_not_silently_multiplied_by_0() {
    let x = array![[1e200], [-1e200]];
    match Standardizer::fit(x.view()) {
        Ok(fitted) => assert_eq!(fitted.transform(x.view()).unwrap(), array![[1.0], [-1.0]], "{fitted:?}"),
        Err(error) => assert!(matches!(error, Error::NotFinite { .. }), "{error:?}"),
    }
}

/// 1/s of numbers of 10⁻⁴⁴ is beyond f32.
#[test]
fn a_scale_that_is_not_finite_is_what_the_error_shows() {
    let error = Standardizer::fit(array![[1.0, 0.0], [2.0, 1e-44_f32]].view()).unwrap_err();
    let Error::NotFinite { what: "mean and scale", column: 1, found, .. } = error else { panic!("{error:?}") };
    assert!(!found.is_finite(), "{error}");
}

// ------------------------------------------------------------------------------------------------------------------------- refusals

#[test]
fn data_that_do_not_fit_are_refused_and_change_nothing() {
    let (mlp, x, y) = setting::<f32>();
    let training = Training { batch: 16, standardize: true, ..Training::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let before = state(&trainer);
    let good = Dataset::new(x.view(), y.view());
    let mut bad_weight = [-1.0, f32::NAN, f32::INFINITY].map(|bad| {
        let mut weights = Array1::from_elem(70, 1.0_f32);
        weights[7] = bad;
        weights
    });
    bad_weight[0][9] = f32::NAN;
    let short = Array1::from_elem(69, 1.0_f32);
    let mut bad_x = x.clone();
    bad_x[(3, 4)] = f32::NAN;
    let mut bad_y = y.clone();
    bad_y[5] = 3;
    let cases = [
        (good.weights(short.view()), "weights: expected 70 samples, one for each row of x; found 69"),
        (good.weights(bad_weight[0].view()), "weights[7]: expected a finite number from 0, found -1"),
        (good.weights(bad_weight[1].view()), "weights[7]: expected a finite number from 0, found NaN"),
        (good.weights(bad_weight[2].view()), "weights[7]: expected a finite number from 0, found inf"),
        (Dataset::new(bad_x.view(), y.view()), "x[3, 4]: expected a finite number, found NaN"),
        (Dataset::new(x.view(), bad_y.view()), "y[5]: expected a label below 3, found 3"),
        (Dataset::new(x.slice(s![..9, ..]), y.view()), "y: expected 9 samples, one for each row of x; found 70"),
        (Dataset::new(x.slice(s![..0, ..]), y.slice(s![..0])), "expected at least one sample, found none"),
        (Dataset::new(x.slice(s![.., ..5]), y.view()), "x: expected shape [70, 6], found [70, 5]"),
    ];
    for (case, text) in cases {
        assert_eq!(trainer.fit(case, None, &mut ()).unwrap_err().to_string(), text);
        assert_eq!(trainer.fit(good, Some(case), &mut ()).unwrap_err().to_string(), text);
        assert_eq!(trainer.partial_fit(case, None, &mut ()).unwrap_err().to_string(), text);
        assert_eq!(trainer.step(case).unwrap_err().to_string(), text);
        assert_eq!(state(&trainer), before);
        assert_eq!(trainer.steps(), 0);
    }
}

#[test]
fn the_rest_of_an_epoch_wants_as_many_samples() {
    let (mlp, x, y) = setting::<f32>();
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, Training { batch: 16, ..Training::default() }).unwrap();
    let whole = Dataset::new(x.view(), y.view());
    trainer.fit(whole, None, &mut Stop { batches: 2, at_epoch: false }).unwrap();
    let before = state(&trainer);
    let other = Dataset::new(x.slice(s![..60, ..]), y.slice(s![..60]));
    for error in
        [trainer.fit(other, None, &mut ()).unwrap_err(), trainer.partial_fit(other, None, &mut ()).unwrap_err()]
    {
        let text =
            "the rest of the epoch: expected 70 samples to train on in 70 rows, as it began with, found 60 in 60";
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(state(&trainer), before);
    // A new epoch may have others.
    assert_eq!(trainer.partial_fit(whole, None, &mut ()).unwrap(), Ended::Done);
    assert_eq!(trainer.partial_fit(other, None, &mut ()).unwrap(), Ended::Done);
    assert_eq!(trainer.steps(), 5 + 4);
}

#[test]
fn a_split_leaves_samples_to_train_on() {
    for (n, fraction) in [(1, 0.5), (3, 0.9), (2, 0.75)] {
        let (mlp, x, y) = setting::<f32>();
        let training = Training { validation_fraction: Some(fraction), ..Training::default() };
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
        let data = Dataset::new(x.slice(s![..n, ..]), y.slice(s![..n]));
        let error = trainer.fit(data, None, &mut ()).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("validation_fraction: expected a part of {n} samples that leaves some to train on, found {n}")
        );
    }
}

#[test]
fn settings_out_of_their_range_are_refused_with_it() {
    let base = Training::default;
    let below_1 = "expected a number from 0 to below 1, found";
    let adam = |beta1, beta2, epsilon| Training { optimizer: Optimizer::Adam { beta1, beta2, epsilon }, ..base() };
    let decay = |weight_decay| Training { weight_decay, learning_rate: LearningRate::constant(0.5), ..base() };
    let clip = |norm| Training { clip_norm: Some(norm), ..base() };
    let part = |part| Training { validation_fraction: Some(part), ..base() };
    let momentum = |mu| Training { optimizer: Optimizer::Momentum { mu }, ..base() };
    let nesterov = |mu| Training { optimizer: Optimizer::Nesterov { mu }, ..base() };
    let cases = [
        (momentum(1.0), format!("mu: {below_1} 1")),
        (momentum(-0.1), format!("mu: {below_1} -0.1")),
        (nesterov(f64::NAN), format!("mu: {below_1} NaN")),
        (nesterov(1.5), format!("mu: {below_1} 1.5")),
        (adam(1.0, 0.9, 1e-8), format!("beta1: {below_1} 1")),
        (adam(0.9, 1.0, 1e-8), format!("beta2: {below_1} 1")),
        (adam(0.9, f64::NAN, 1e-8), format!("beta2: {below_1} NaN")),
        (adam(0.9, 0.9, 0.0), "epsilon: expected a finite, positive number, found 0".into()),
        (adam(0.9, 0.9, f64::INFINITY), "epsilon: expected a finite, positive number, found inf".into()),
        (decay(2.0), "weight_decay: expected a number from 0 to below 1/eta, found 2".into()),
        (decay(-1.0), "weight_decay: expected a number from 0 to below 1/eta, found -1".into()),
        (decay(f64::NAN), "weight_decay: expected a number from 0 to below 1/eta, found NaN".into()),
        (Training { batch: 0, ..base() }, "batch: expected at least 1 sample, found 0".into()),
        (clip(0.0), "clip_norm: expected a finite, positive number, found 0".into()),
        (clip(f64::INFINITY), "clip_norm: expected a finite, positive number, found inf".into()),
        (clip(f64::NAN), "clip_norm: expected a finite, positive number, found NaN".into()),
        (part(0.0), "validation_fraction: expected a number between 0 and 1, found 0".into()),
        (part(1.0), "validation_fraction: expected a number between 0 and 1, found 1".into()),
        (part(f64::NAN), "validation_fraction: expected a number between 0 and 1, found NaN".into()),
        (Training { early_stopping: Some(0), ..base() }, "early_stopping: expected at least 1 epoch, found 0".into()),
    ];
    for (training, text) in cases {
        let (mlp, _, _) = setting::<f32>();
        assert_eq!(Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap_err().to_string(), text);
    }
    let one_output = common::network::<f32>(&[6, 1], Constant::Input, 1);
    let error = Trainer::new(one_output, SoftmaxCrossEntropy, base()).unwrap_err().to_string();
    assert_eq!(error, "loss: expected a network with 2 outputs or more, found 1 outputs");
}

// ------------------------------------------------------------------------------------------------------------------------ divergence

/// A linear network ŷ = w x + b.
fn linear<F: common::Real>(w: f64) -> Mlp<F> {
    Mlp::from_weights(&[1, 1], Constant::Absent, 0, |_, _, _| w).unwrap()
}

type One = (Array2<f32>, Array1<f32>);

fn sample(x: f32, y: f32) -> One {
    (array![[x]], array![y])
}

fn of((x, y): &One) -> Dataset<'_, f32, f32> {
    Dataset::new(x.view(), y.view())
}

/// Two good steps, the bad one, a good one: the error names the bad one, and all else is as if that had never been tried.
fn is_refused_and_leaves_no_trace(training: &Training, w: f64, good: &One, bad: &One, expected: &str, cause: &str) {
    let new = || Trainer::new(linear::<f32>(w), SquaredError, training.clone()).unwrap();
    let (mut trainer, mut without) = (new(), new());
    let mut last = 0.0;
    for _ in 0..2 {
        last = trainer.step(of(good)).unwrap();
        without.step(of(good)).unwrap();
    }
    for _ in 0..2 {
        let error = trainer.step(of(bad)).unwrap_err();
        let Error::Diverged { what, at: None, found, last: Some(named) } = error else { panic!("{error:?}") };
        assert_eq!((what, named), (expected, last), "{cause}: {training:?}");
        assert!(!found.is_finite());
        let text = format!("{what}: expected a finite number, found {found} in a single step");
        assert_eq!(error.to_string(), format!("{text}; the loss of the step before was {last}"));
        assert_eq!(model_bits(trainer.model()), model_bits(without.model()), "{cause}: {training:?}");
        assert_eq!(trainer.steps(), 2);
    }
    for _ in 0..2 {
        assert_eq!(trainer.step(of(good)).unwrap(), without.step(of(good)).unwrap());
        assert_eq!(model_bits(trainer.model()), model_bits(without.model()), "{cause}: {training:?}, afterwards");
    }
    // The same within an epoch: batches 0 and 1 are good, 2 is bad.
    let mut trainer =
        Trainer::new(linear::<f32>(w), SquaredError, Training { batch: 1, shuffle: false, ..training.clone() })
            .unwrap();
    let x = ndarray::concatenate![ndarray::Axis(0), good.0, good.0, bad.0, good.0];
    let y = ndarray::concatenate![ndarray::Axis(0), good.1, good.1, bad.1, good.1];
    let error = trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap_err();
    assert!(
        matches!(error, Error::Diverged { what, at: Some((1, 3)), last: Some(named), .. } if what == expected && named == last),
        "{cause}: {error:?}"
    );
    assert_eq!(trainer.steps(), 2);
    assert!(trainer.history().records.is_empty());
    let mut without = new();
    (0..2).for_each(|_| {
        without.step(of(good)).unwrap();
    });
    assert_eq!(model_bits(trainer.model()), model_bits(without.model()));
}

#[test]
fn a_step_that_would_diverge_is_refused_and_leaves_no_trace() {
    for optimizer in optimizers() {
        for clip_norm in [None, Some(1e30)] {
            let with = |eta: f64| Training {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                clip_norm,
                ..Training::default()
            };
            let good = sample(1.0, 0.5);
            // ½ (10²⁰)² > 3.4 · 10³⁸
            let cause = "the loss overflows";
            is_refused_and_leaves_no_trace(&with(0.01), 0.25, &good, &sample(1.0, 1e20), "loss", cause);
            if optimizer == Optimizer::adam() {
                // g = 10²⁵ has no square in f32; m̂/√v̂ = 0 would leave θ in order, and v never again.
                let (bad, cause) = (sample(1e15, 1e10), "v overflows");
                is_refused_and_leaves_no_trace(&with(1e-10), 0.0, &good, &bad, "optimizer's moments", cause);
            } else {
                // g = −10¹⁰, and η g = 10⁴⁰; the good sample has g = 0. The loss is 5 · 10¹⁹.
                let (good, bad, cause) = (sample(0.0, 0.0), sample(1.0, 1e10), "the update overflows");
                is_refused_and_leaves_no_trace(&with(1e30), 0.0, &good, &bad, "parameters", cause);
            }
        }
    }
}

/// Adam moves each number by η: 2 · 10³⁸ + 3 · 10³⁸ is beyond f32, and the loss, of ŷ = 2 · 10¹⁸, is not.
#[test]
fn adam_overflows_too_and_leaves_no_trace() {
    let training =
        Training { optimizer: Optimizer::adam(), learning_rate: LearningRate::constant(3e38), ..Training::default() };
    let mut trainer = Trainer::new(linear::<f32>(2e38), SquaredError, training).unwrap();
    let before = model_bits(trainer.model());
    let error = trainer.step(of(&sample(1e-20, 4e18))).unwrap_err();
    assert!(
        matches!(error, Error::Diverged { what: "parameters", at: None, found, last: None } if found == f64::INFINITY),
        "{error:?}"
    );
    assert_eq!(model_bits(trainer.model()), before);
}

/// Velocities gather: no gradient of these is too long by itself. η is so small that θ hardly moves and g is −10³⁷ throughout.
#[test]
fn a_velocity_that_grows_beyond_the_number_type_is_refused() {
    // Σ 0.99ᵏ 10³⁷ is 3.38 · 10³⁸ after 41 steps and 3.44 · 10³⁸ after 42, and f32 ends at 3.40 · 10³⁸. Nesterov looks one step ahead.
    for (optimizer, fine) in [(Optimizer::Momentum { mu: 0.99 }, 41), (Optimizer::Nesterov { mu: 0.99 }, 40)] {
        let training = Training { optimizer, learning_rate: LearningRate::constant(1e-44), ..Training::default() };
        let mut trainer = Trainer::new(linear::<f32>(0.0), SquaredError, training).unwrap();
        for _ in 0..fine {
            trainer.step(of(&sample(1e19, 1e18))).unwrap();
        }
        let before = model_bits(trainer.model());
        let error = trainer.step(of(&sample(1e19, 1e18))).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error:?}");
        assert_eq!(model_bits(trainer.model()), before);
        // Without a gradient v falls, and nothing is in the way.
        trainer.step(of(&sample(1.0, 0.0))).unwrap();
    }
}

/// δ = −2⁶² y₀ scales ŷ, g, v and θ by a power of two, which changes no digit, but for the scaled run each step's squares add up to more
/// than f32 can hold: it goes by way of the copies. Both ways give the same digits, at each step, and neither raises an alarm.
#[test]
fn steps_on_a_copy_are_the_steps_in_place() {
    for optimizer in [Optimizer::Sgd, MOMENTUM, NESTEROV] {
        for clip_norm in [None, Some(0.5)] {
            let scale = 2_f64.powi(62);
            let run = |scale: f64| {
                let training = Training {
                    optimizer,
                    learning_rate: LearningRate::constant(0.01),
                    clip_norm: clip_norm.map(|norm: f64| norm * scale),
                    batch: 16,
                    epochs: 20,
                    ..Training::default()
                };
                let mlp = Mlp::<f32>::he(&[6, 3], Constant::Absent, 1).unwrap();
                let mut theta = mlp.parameters().clone();
                theta.iter_mut().for_each(|p| *p = (f64::from(*p) * scale) as f32);
                let mlp = Mlp::from_parameters(&[6, 3], Constant::Absent, theta).unwrap();
                let x = common::uniform::<f32>(70, 6, 2);
                let y = common::uniform::<f32>(70, 3, 3).mapv(|y| (f64::from(y) * scale) as f32);
                let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
                trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
                assert_eq!(trainer.history().records.len(), 20);
                common::flat(trainer.model().mlp.parameters()).into_iter().map(|p| p / scale).collect::<Vec<_>>()
            };
            assert_eq!(run(1.0), run(scale), "{optimizer:?} {clip_norm:?}");
        }
    }
}

/// Thousands of ordinary steps, with an ε so small that the bounds on what Adam can do fail again and again.
#[test]
fn a_long_run_raises_no_alarm() {
    for optimizer in [
        Optimizer::Sgd,
        MOMENTUM,
        NESTEROV,
        Optimizer::adam(),
        Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-37 },
    ] {
        let (mlp, x, y) = setting::<f32>();
        let training = Training {
            optimizer,
            learning_rate: LearningRate::constant(1e-3),
            epochs: 600,
            batch: 7,
            ..Training::default()
        };
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
        assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()), Ok(Ended::Done));
        assert_eq!(trainer.steps(), 6000);
    }
}

/// One step of the unwatched trainer of the lecture: the network after it, if that is finite.
fn unwatched<F: common::Real>(mlp: &Mlp<F>, x: &Array2<F>, y: &Array2<F>, eta: f64) -> Option<Mlp<F>> {
    let mut mlp = mlp.clone();
    Sgd::new(1, eta, 0).unwrap().step(&mut mlp, x.view(), y.view(), &SquaredError).ok()?;
    let finite = mlp.parameters().iter().all(|p| p.is_finite());
    finite.then_some(mlp)
}

/// Powers of ten, in units of the largest that the number type has.
#[derive(Debug, Clone, Copy)]
struct Scales {
    theta: f64,
    x: f64,
    y: f64,
    eta: f64,
    clip: Option<f64>,
}

/// A step is either made, and θ is finite, or refused, and θ is as before; the next one is made from there, by a trainer that cannot be
/// told from one that was never asked. Plain descent is refused exactly when the unwatched one fails.
fn steps_at<F: common::Real>(
    scales: Scales,
    (optimizer, weight_decay): (Optimizer, bool),
    widths: &[usize],
    (batch, seed): (usize, u64),
) -> Result<(), TestCaseError> {
    let largest = F::MAX.log10().floor();
    let eta = 10_f64.powf(scales.eta * largest);
    let scaled = |a: F, power: f64| F::from_f64(a.to_f64() * 10_f64.powf(power * largest));
    let mut mlp = common::network::<F>(widths, Constant::EveryLayer, seed);
    // He's weights may be 4; that times 10³⁸ is beyond f32.
    mlp.parameters_mut().iter_mut().for_each(|p| *p = scaled(F::from_f64(p.to_f64() / 8.0), scales.theta));
    let training = Training {
        optimizer,
        learning_rate: LearningRate::constant(eta),
        weight_decay: if weight_decay { 0.25 / eta } else { 0.0 },
        clip_norm: scales.clip.map(|power| 10_f64.powf(power * largest)),
        ..Training::default()
    };
    let new = || Trainer::new(mlp.clone(), SquaredError, training.clone()).unwrap();
    let (mut trainer, mut unasked) = (new(), new());
    for step in 0..6 {
        let shrink = if step % 2 == 1 { 0.25 } else { 0.0 };
        let x = common::uniform::<F>(batch, 3, seed ^ step).mapv(|x| scaled(x, scales.x - shrink));
        let y = common::uniform::<F>(batch, 2, seed ^ step ^ 99).mapv(|y| scaled(y, scales.y - shrink));
        let before = trainer.model().mlp.clone();
        let outcome = trainer.step(Dataset::new(x.view(), y.view()));
        match &outcome {
            Ok(loss) => {
                prop_assert!(loss.is_finite());
                prop_assert!(trainer.model().mlp.parameters().iter().all(|p| p.is_finite()), "{:?}", training);
                prop_assert_eq!(unasked.step(Dataset::new(x.view(), y.view())), Ok(*loss));
            }
            Err(Error::Diverged { found, .. }) => prop_assert!(!found.is_finite()),
            Err(error) => prop_assert!(false, "{:?}", error),
        }
        prop_assert_eq!(&trainer.model().mlp, &unasked.model().mlp);
        prop_assert_eq!(trainer.steps(), unasked.steps());
        if optimizer == Optimizer::Sgd && scales.clip.is_none() && !weight_decay {
            let expected = unwatched(&before, &x, &y, eta);
            prop_assert_eq!(outcome.is_ok(), expected.is_some());
            prop_assert_eq!(&trainer.model().mlp, &expected.unwrap_or(before));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30000))]

    #[test]
    fn no_overflow_is_missed_and_none_is_invented_at_any_scale(
        which in 0..5_usize,
        (theta, x, y, eta) in (-0.5..1.0, -0.5..1.0, -0.5..1.0, -0.5..1.0),
        clip in proptest::option::of(-0.25..1.0),
        hidden in any::<bool>(),
        weight_decay in any::<bool>(),
        batch in 1..9_usize,
        seed in any::<u64>(),
    ) {
        let mut all = optimizers().to_vec();
        all.push(Optimizer::Adam { beta1: 0.5, beta2: 0.0, epsilon: 1e-30 });
        let scales = Scales { theta, x, y, eta, clip };
        let widths: &[usize] = if hidden { &[3, 5, 2] } else { &[3, 2] };
        steps_at::<f32>(scales, (all[which], weight_decay), widths, (batch, seed))?;
        steps_at::<f64>(scales, (all[which], weight_decay), widths, (batch, seed))?;
    }
}

/// x, ŷ and y are 0, so g = 0 and m = 0; but η/(1 − β₁) = 10³⁹ is beyond f32, and ∞ · 0 is NaN.
#[test]
fn adam_does_not_make_a_nan_of_a_rate_that_overflows_when_its_bias_is_taken_out() {
    let training =
        Training { optimizer: Optimizer::adam(), learning_rate: LearningRate::constant(1e38), ..Training::default() };
    let mut trainer = Trainer::new(linear::<f32>(1.0), SquaredError, training).unwrap();
    let _ = trainer.step(of(&sample(0.0, 0.0)));
    assert_eq!(trainer.model().mlp, linear(1.0));
}

/// The same with ε = 10⁻⁵⁰, which is 0 in f32: 0/0.
#[test]
fn adam_does_not_make_a_nan_of_an_epsilon_below_the_number_type() {
    let optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-50 };
    let Ok(mut trainer) = Trainer::new(linear::<f32>(1.0), SquaredError, Training { optimizer, ..Training::default() })
    else {
        return;
    };
    let _ = trainer.step(of(&sample(0.0, 0.0)));
    assert_eq!(trainer.model().mlp, linear(1.0));
}

/// δ = −10¹⁵⁰ and x = 10¹⁰: the loss is 5 · 10²⁹⁹, g = 10¹⁶⁰, and ‖g‖² is beyond f64. Such a step is refused, or made as it should be.
#[test]
fn a_norm_that_overflows_does_not_silently_clip_to_nothing() {
    let training =
        Training { learning_rate: LearningRate::constant(1.0), clip_norm: Some(1.0), epochs: 1, ..Training::default() };
    let mut trainer = Trainer::new(linear::<f64>(0.0), SquaredError, training).unwrap();
    let (x, y) = (array![[1e10]], array![1e150]);
    match trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()) {
        Err(error) => assert!(matches!(error, Error::Diverged { what: "gradient's norm", .. }), "{error:?}"),
        Ok(_) => {
            let moved: f64 = trainer.model().mlp.parameters().iter().map(|p| p * p).sum();
            assert!((moved - 1.0).abs() < 1e-9, "a step of length 1, found {moved}");
            assert!(trainer.history().records[0].gradient_norm.is_finite());
        }
    }
}

/// Nothing has been learned from that epoch, so it need not be gone on with.
#[test]
fn an_epoch_that_diverges_in_its_first_step_does_not_hold_the_trainer_to_its_data() {
    let mut trainer = Trainer::new(linear::<f32>(0.0), SquaredError, Training::default()).unwrap();
    assert!(trainer.fit(of(&sample(1.0, 1e30)), None, &mut ()).is_err());
    let (x, y) = (array![[1.0], [2.0]], array![1.0, 2.0]);
    assert_eq!(trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()), Ok(Ended::Done));
}

/// "The model is then as it was before that step": so is its standardisation.
#[test]
fn a_first_step_that_diverges_leaves_no_standardisation_behind() {
    let mut trainer =
        Trainer::new(linear::<f32>(0.0), SquaredError, Training { standardize: true, ..Training::default() }).unwrap();
    let before = trainer.model().clone();
    trainer.step(of(&sample(7.0, 1e30))).unwrap_err();
    assert_eq!(trainer.model(), &before);
}

/// As many samples to train on, of other rows: with a split 13 of 15 and 13 of 14.
#[test]
fn the_rest_of_an_epoch_is_of_the_same_rows() {
    let (mlp, x, y) = setting::<f32>();
    let training = Training { batch: 4, validation_fraction: Some(0.1), ..Training::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let of = |n| Dataset::new(x.slice(s![..n, ..]), y.slice(s![..n]));
    trainer.fit(of(15), None, &mut Stop { batches: 1, at_epoch: false }).unwrap();
    let error = trainer.fit(of(14), None, &mut ()).unwrap_err();
    assert_eq!(error, Error::Rest { expected: (13, 15), found: (13, 14) });
    assert_eq!(trainer.partial_fit(of(15), None, &mut ()).unwrap(), Ended::Done);
}

/// Stopped by the observer in the very last batch, or after the epoch at which patience ends, a run is over: the best epoch is put back.
#[test]
fn a_run_that_is_stopped_at_its_end_is_over() {
    let (mlp, x, y) = setting::<f32>();
    let training = Training { batch: 16, epochs: 3, early_stopping: Some(3), ..Training::default() };
    let data = Dataset::new(x.view(), y.view());
    let mut once = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    assert_eq!(once.fit(data, None, &mut ()).unwrap(), Ended::Done);
    for at_epoch in [false, true] {
        let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
        let mut stop = Stop { batches: 15, at_epoch };
        let calls = if at_epoch { 3 } else { 1 };
        let ended: Vec<Ended> = (0..calls).map(|_| trainer.fit(data, None, &mut stop).unwrap()).collect();
        assert_eq!(ended.last(), Some(&Ended::Done), "{ended:?}");
        assert_eq!(model_bits(trainer.model()), model_bits(once.model()));
    }
}

/// Fewer epochs than begun: the network in the middle of the epoch stays, and the run goes on from there.
#[test]
fn a_run_with_fewer_epochs_than_begun_keeps_its_place() {
    let (mlp, x, y) = setting::<f32>();
    let training = Training { batch: 16, epochs: 6, early_stopping: Some(5), ..Training::default() };
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

#[test]
fn a_failed_first_call_leaves_no_standardisation_behind() {
    let (x, y) = (array![[1e30_f32], [2e30]], array![3e38_f32, -3e38]);
    let (good, targets) = (array![[1.0_f32], [2.0]], array![1.0_f32, 2.0]);
    let training = Training { standardize: true, batch: 2, ..Training::default() };
    let mut trainer = Trainer::new(linear::<f32>(1.0), SquaredError, training).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap_err();
    assert_eq!(trainer.model().standardizer, None);
    trainer.fit(Dataset::new(good.view(), targets.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().standardizer.as_ref().unwrap().mean()[0], 1.5);
}

/// What a model was standardised with stays, when it is trained on.
#[test]
fn a_model_is_trained_on_with_its_standardisation() {
    let (mlp, x, y) = setting::<f32>();
    let training = Training { standardize: true, epochs: 1, ..Training::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let model = trainer.into_model();
    let standardizer = model.standardizer.clone();
    let mut trainer = Trainer::new(model, SoftmaxCrossEntropy, training).unwrap();
    let other = x.mapv(|x| 3.0 * x + 1.0);
    trainer.fit(Dataset::new(other.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.model().standardizer, standardizer);
}

#[test]
fn settings_that_vanish_in_the_type_of_the_network_are_refused() {
    let refused = |training: Training| {
        let (mlp, ..) = setting::<f32>();
        Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap_err().to_string()
    };
    let text = refused(Training { learning_rate: LearningRate::constant(1e-60), ..Training::default() });
    assert!(text.starts_with("eta: expected a number that the network's type can tell from 0"), "{text}");
    let text = refused(Training { clip_norm: Some(1e-60), ..Training::default() });
    assert!(text.starts_with("clip_norm: expected"), "{text}");
}
