//! Training that the caller steers: gradients for a loop of one's own, batches from an iterator, a
//! learning rate that changes, closures as observers, clones, and histories that are trimmed.

use crate::common;

use std::ops::ControlFlow;

use gemmprop::rungs::batched;
use gemmprop::{
    Bias, Dataset, Error, Gradients, LearningRate, Mlp, Model, Optimizer, Products, Record, Sgd, SoftmaxCrossEntropy,
    SquaredError, Standardizer, StopReason, Trainer, TrainingSettings, balanced_class_weights, class_weights, on_batch,
    on_epoch,
};
use ndarray::{Array1, Array2, Axis, array, s};

/// Data whose last batch is ragged, and labels.
fn data<F: common::Real>() -> (Array2<F>, Array1<usize>) {
    (common::uniform(70, 6, 2), Array1::from_shape_fn(70, |i| (i * i) % 3))
}

fn network(bias: Bias) -> Mlp<f32> {
    common::network(&[6, 20, 9, 3], bias, 1)
}

/// Everything that is equal in two equal runs, which excludes the wall time.
fn state(trainer: &Trainer<f32, SoftmaxCrossEntropy>) -> (Model<f32>, Vec<String>) {
    (trainer.model().clone(), trainer.history().records.iter().map(timeless).collect())
}

fn timeless(record: &Record) -> String {
    let mut record = *record;
    record.seconds = 0.0;
    format!("{record:?}")
}

fn trainings() -> Vec<TrainingSettings> {
    let base = TrainingSettings { batch: 16, seed: 3, epochs: 4, ..TrainingSettings::default() };
    vec![
        base.clone(),
        TrainingSettings {
            optimizer: Optimizer::Momentum { mu: 0.9 },
            weight_decay: 1e-2,
            decay_biases: false,
            ..base.clone()
        },
        TrainingSettings {
            optimizer: Optimizer::Nesterov { mu: 0.8 },
            learning_rate: LearningRate::on_plateau(1.5, 0.5, 0),
            standardize: true,
            ..base.clone()
        },
        TrainingSettings {
            optimizer: Optimizer::adam(),
            learning_rate: LearningRate::cosine(0.05, 0.001).warm_up(5),
            clip_norm: Some(0.3),
            early_stopping: Some(30),
            ..base.clone()
        },
        // In f32 the decay is accumulated for six steps and applied in the seventh.
        TrainingSettings { weight_decay: 5e-5, ..base.clone() },
        TrainingSettings { optimizer: Optimizer::adam(), sam: Some(0.1), ..base },
    ]
}

#[test]
fn a_reference_to_an_array_is_its_view() {
    let (x, labels) = data::<f32>();
    let mlp = network(Bias::EveryLayer).with_products(Products::Native).unwrap();
    let model = Model { mlp: mlp.clone(), standardizer: Some(Standardizer::fit(&x).unwrap()) };
    assert_eq!(model.standardizer, Some(Standardizer::fit(x.view()).unwrap()));
    assert_eq!(mlp.predict(&x).unwrap(), mlp.predict(x.view()).unwrap());
    assert_eq!(model.predict(x.view()).unwrap(), model.predict(x.to_shared().view()).unwrap());
    assert_eq!(model.classify(&x).unwrap(), model.classify(x.view()).unwrap());
    let proba = model.predict_proba(&x, &SoftmaxCrossEntropy).unwrap();
    assert_eq!(proba, model.predict_proba(x.view(), &SoftmaxCrossEntropy).unwrap());
    let mut y_hat = Array2::zeros((70, 3));
    mlp.predictor(70).unwrap().predict_into(&x, &mut y_hat).unwrap();
    assert_eq!(y_hat, mlp.predict(&x).unwrap());
    let rows = [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0; 6]];
    assert_eq!(mlp.predict(&rows).unwrap(), mlp.predict(Array2::from(rows.to_vec()).view()).unwrap());

    // Labels and weights, in whatever holds them.
    let vector = labels.to_vec();
    let weights: Array1<f32> = balanced_class_weights(&labels);
    assert_eq!(weights, balanced_class_weights::<f32>(&vector));
    assert_eq!(class_weights(&vector, &[1.0, 2.0, 3.0]).unwrap()[1], 2.0_f32);
    let expected = mlp.evaluate(Dataset::new(x.view(), labels.view()).weights(weights.view()), &SoftmaxCrossEntropy);
    let expected = expected.unwrap();
    for data in [
        Dataset::new(&x, &labels),
        Dataset::new(&x, &vector),
        Dataset::new(x.view(), labels.view()),
        Dataset::new(&x, &vector[..]),
    ] {
        assert_eq!(mlp.evaluate(data.weights(&weights), &SoftmaxCrossEntropy).unwrap(), expected);
        assert_eq!(mlp.evaluate(data.weights(weights.as_slice().unwrap()), &SoftmaxCrossEntropy).unwrap(), expected);
    }
    let [mut one, mut other] = [mlp.clone(), mlp];
    let steps = [Sgd::new(16, 0.1, 1).unwrap(), Sgd::new(16, 0.1, 1).unwrap()];
    let [mut by_reference, mut by_view] = steps;
    let losses = by_reference.train(&mut one, &x, &labels, &SoftmaxCrossEntropy, 2).unwrap();
    assert_eq!(losses, by_view.train(&mut other, x.view(), labels.view(), &SoftmaxCrossEntropy, 2).unwrap());
    assert_eq!(one, other);
}

#[test]
fn accuracy_is_the_share_of_labels_that_are_met() {
    let mlp = Mlp::<f64>::from_weights(&[1, 2], Bias::None, 0, |_, _, _| 1.0).unwrap();
    // Equal outputs: class 0.
    let x = array![[1.0], [2.0], [3.0], [4.0]];
    assert_eq!(mlp.accuracy(&x, &array![0, 0, 0, 1]).unwrap(), 0.75);
    assert_eq!(Model::from(mlp.clone()).accuracy(&x, &[0, 1, 1, 1]).unwrap(), 0.25);
    let error = mlp.accuracy(&x, &[0, 1]).unwrap_err();
    assert_eq!(error, Error::Length { what: "labels", expected: 4, found: 2 });
}

#[test]
fn a_trainer_evaluates_as_its_model() {
    let (x, y) = data::<f32>();
    let training = TrainingSettings { standardize: true, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(network(Bias::Input), SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(Dataset::new(&x, &y), None, ()).unwrap();
    let expected = trainer.model().evaluate(Dataset::new(&x, &y), &SoftmaxCrossEntropy).unwrap();
    assert_eq!(trainer.evaluate(Dataset::new(&x, &y)).unwrap(), expected);
}

/// In buffers that are kept, as in those of one call, for batches of changing sizes.
#[test]
fn gradients_have_the_bits_of_the_batched_rung() {
    let (x, y) = data::<f32>();
    for &products in common::products() {
        let mlp = network(Bias::EveryLayer).with_products(products).unwrap();
        let (mut gradients, mut expected) = (Gradients::new(&mlp), mlp.zero_gradient());
        assert!(gradients.get().iter().all(|&g| g == 0.0));
        for size in [32, 7, 70, 1].into_iter().chain(1..40).chain([32]) {
            let (x, y) = (x.slice(s![..size, ..]), y.slice(s![..size]));
            let loss = gradients.compute(&mlp, Dataset::new(x, y), &SoftmaxCrossEntropy).unwrap();
            let found = batched::loss_gradient(&mlp, x, y, &SoftmaxCrossEntropy, &mut expected).unwrap();
            assert_eq!(loss, found, "{products:?}, {size} samples");
            assert_eq!(*gradients.get(), expected, "{products:?}, {size} samples");
        }
    }
}

/// On small whole numbers, a loop with θ ← θ − η g makes the steps of a trainer, with weights and
/// standardisation: x of as many 0 as 2 becomes ∓1.
#[test]
fn a_loop_of_ones_own_makes_the_steps_of_a_trainer() {
    let x = Array2::from_shape_fn((64, 3), |(i, j)| (i >> j & 1) as f64 * 2.0);
    let (y, weights) = (common::integers::<f64>(64, 2, 5), Array1::from_shape_fn(64, |i| (i % 3 + 1) as f64));
    let data = Dataset::new(&x, &y).weights(&weights);
    for &products in common::products() {
        let mlp = common::integer_network::<f64>(&[3, 8, 2], Bias::EveryLayer, 3).with_products(products).unwrap();
        let training =
            TrainingSettings { learning_rate: 0.25.into(), standardize: true, ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp.clone(), SquaredError, training).unwrap();
        let standardizer = Standardizer::fit(x.slice(s![.., ..])).unwrap();
        let mut model = Model { mlp, standardizer: Some(standardizer) };
        let mut gradients = Gradients::new(&model.mlp);
        for _ in 0..2 {
            let before = gradients.compute(&model, data, &SquaredError).unwrap();
            model.mlp.parameters_mut().scaled_add(-0.25, gradients.get()).unwrap();
            assert_eq!(trainer.step(data).unwrap(), before);
            assert_eq!(trainer.model(), &model);
        }
    }
}

#[test]
fn what_has_no_gradient_is_refused_and_the_last_one_stays() {
    let (mut x, y) = data::<f32>();
    let mlp = network(Bias::EveryLayer);
    let mut gradients = Gradients::new(&mlp);
    gradients.compute(&mlp, Dataset::new(&x, &y), &SoftmaxCrossEntropy).unwrap();
    let before = gradients.get().clone();
    let other = network(Bias::None);
    let error = gradients.compute(&other, Dataset::new(&x, &y), &SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(error, Error::Shape { what: "gradient", .. }), "{error}");
    let error = gradients.compute(&mlp, Dataset::new(&x, y.slice(s![1..])), &SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(error, Error::Length { what: "y", .. }), "{error}");
    let wrong = Model { mlp: mlp.clone(), standardizer: Some(Standardizer::fit(x.slice(s![.., 1..])).unwrap()) };
    let error = gradients.compute(&wrong, Dataset::new(&x, &y), &SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(error, Error::Shape { what: "standardizer", .. }), "{error}");
    x[(5, 2)] = f32::MAX;
    let error = gradients.compute(&mlp, Dataset::new(&x, &y), &SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(error, Error::Output { row: Some(5), .. }), "{error}");
    x[(5, 2)] = f32::NAN;
    let error = gradients.compute(&mlp, Dataset::new(&x, &y), &SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(error, Error::NotFinite { row: Some(5), .. }), "{error}");
    assert_eq!(*gradients.get(), before);
}

#[test]
fn a_clone_goes_on_with_the_same_bits() {
    let (x, y) = data::<f32>();
    let train = Dataset::new(&x, &y);
    for training in trainings() {
        for stop in [1, 3, 5, 7] {
            let mut trainer = Trainer::new(network(Bias::EveryLayer), SoftmaxCrossEntropy, training.clone()).unwrap();
            let mut batches = 0;
            let stop_there = on_batch(|_| {
                batches += 1;
                if batches == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(trainer.fit(train, None, stop_there).unwrap(), StopReason::Observer);
            let mut clone = trainer.clone();
            let stopped = state(&clone);
            trainer.fit(train, None, ()).unwrap();
            assert_eq!(state(&clone), stopped, "what one does, the other does not feel");
            clone.fit(train, None, ()).unwrap();
            assert_eq!(state(&clone), state(&trainer), "{training:?}, stopped after {stop}");
        }
    }
    let mut sgd = Sgd::new(16, 0.1, 3).unwrap().weight_decay(1e-5).unwrap();
    let mut mlp = network(Bias::Input);
    sgd.train(&mut mlp, &x, &y, &SoftmaxCrossEntropy, 1).unwrap();
    let (mut clone, mut other) = (sgd.clone(), mlp.clone());
    let losses = sgd.train(&mut mlp, &x, &y, &SoftmaxCrossEntropy, 3).unwrap();
    assert_eq!(clone.train(&mut other, &x, &y, &SoftmaxCrossEntropy, 3).unwrap(), losses);
    assert_eq!(mlp, other);
}

#[test]
fn a_rate_that_is_set_is_that_of_the_next_steps() {
    let (x, y) = data::<f32>();
    let train = Dataset::new(&x, &y);
    let new = |learning_rate| {
        let training = TrainingSettings { learning_rate, weight_decay: 0.5, ..trainings().swap_remove(1) };
        Trainer::new(network(Bias::Input), SoftmaxCrossEntropy, training).unwrap()
    };
    let mut by_schedule = new(LearningRate::piecewise([(0, 0.05), (1, 0.2), (3, 0.01)]));
    by_schedule.fit(train, None, ()).unwrap();
    let mut by_hand = new(0.05.into());
    for eta in [0.05, 0.2, 0.2, 0.01] {
        by_hand.set_learning_rate(eta).unwrap();
        by_hand.partial_fit(train, None, ()).unwrap();
    }
    assert_eq!(state(&by_hand), state(&by_schedule));
    // What is refused changes nothing.
    let before = by_hand.training().clone();
    for refused in [0.0, -1.0, f64::NAN, f64::INFINITY, 2.0, 1e-60] {
        let error = by_hand.set_learning_rate(refused).unwrap_err();
        assert!(matches!(error, Error::Hyperparameter { .. }), "{error}");
        assert_eq!(*by_hand.training(), before);
    }

    let (mut once, mut other) = (network(Bias::Input), network(Bias::Input));
    let mut sgd = Sgd::new(70, 0.5, 1).unwrap().weight_decay(1.0).unwrap();
    sgd.set_learning_rate(0.125).unwrap();
    sgd.step(&mut once, &x, &y, &SoftmaxCrossEntropy).unwrap();
    let mut sgd = Sgd::new(70, 0.125, 1).unwrap().weight_decay(1.0).unwrap();
    sgd.step(&mut other, &x, &y, &SoftmaxCrossEntropy).unwrap();
    assert_eq!(once, other);
    for refused in [0.0, f64::NAN, 1.0, 1e-60] {
        assert!(matches!(sgd.set_learning_rate(refused), Err(Error::Hyperparameter { .. })), "{refused}");
    }
}

/// A loss that never falls: after 2 epochs without a new lowest one, a plateau.
#[test]
fn plateaus_are_counted_anew_for_a_new_schedule() {
    let x = Array2::<f64>::zeros((4, 1));
    let y = Array1::<f64>::zeros(4);
    let mlp = Mlp::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let plateau = LearningRate::on_plateau(0.5, 0.5, 1);
    let training = TrainingSettings { learning_rate: plateau.clone(), ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let epochs = |trainer: &mut Trainer<f64, _>, count| {
        for _ in 0..count {
            trainer.partial_fit(Dataset::new(&x, &y), None, ()).unwrap();
        }
        trainer.history().records.iter().rev().take(count).map(|record| record.learning_rate).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&mut trainer, 6), [0.125, 0.25, 0.25, 0.5, 0.5, 0.5]);
    trainer.set_learning_rate(plateau).unwrap();
    assert_eq!(epochs(&mut trainer, 4), [0.25, 0.25, 0.5, 0.5]);
}

#[test]
fn closures_observe() {
    let (x, y) = data::<f32>();
    let training = TrainingSettings { batch: 16, epochs: 3, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(network(Bias::Input), SoftmaxCrossEntropy, training).unwrap();
    let (mut batches, mut epochs, mut weights) = (0, Vec::new(), Vec::new());
    let both = (
        on_batch(|batch| batches += batch.samples),
        on_epoch(|record, model: &Model<f32>| {
            epochs.push(record.epoch);
            weights.push(model.mlp.parameters().b()[0]);
        }),
    );
    assert_eq!(trainer.fit(Dataset::new(&x, &y), None, both).unwrap(), StopReason::Completed);
    assert_eq!((batches, epochs), (3 * 70, vec![1, 2, 3]));
    assert_eq!(weights[2], trainer.model().mlp.parameters().b()[0]);
    trainer.set_epochs(9);
    let stop = on_epoch(|record, _| if record.epoch == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    assert_eq!(trainer.fit(Dataset::new(&x, &y), None, stop).unwrap(), StopReason::Observer);
    assert_eq!(trainer.history().records.len(), 5);
}

#[test]
fn a_trimmed_history_has_the_newest_records() {
    let (x, y) = data::<f32>();
    let mut trainer = Trainer::new(
        network(Bias::Input),
        SoftmaxCrossEntropy,
        TrainingSettings { epochs: 5, ..TrainingSettings::default() },
    )
    .unwrap();
    trainer.fit(Dataset::new(&x, &y), None, ()).unwrap();
    let all = trainer.history().records.clone();
    for (kept, left) in [(9, 5), (5, 5), (2, 2), (0, 0)] {
        trainer.trim_history(kept);
        assert_eq!(trainer.history().records, all[5 - left..]);
    }
    trainer.set_epochs(6);
    trainer.fit(Dataset::new(&x, &y), None, ()).unwrap();
    assert_eq!(trainer.history().records[0].epoch, 6);
}

/// A run goes on from a checkpoint with as few records as it had, and with the same bits.
#[cfg(feature = "files")]
#[test]
fn a_trimmed_history_is_stored_as_it_is() {
    use gemmprop::checkpoint::{Checkpoints, Notes};

    let (x, y) = data::<f32>();
    let train = Dataset::new(&x, &y);
    for (kept, training) in [0, 1, 2].into_iter().zip(trainings().into_iter().skip(1)) {
        let mut once = Trainer::new(network(Bias::Input), SoftmaxCrossEntropy, training.clone()).unwrap();
        once.fit(train, None, ()).unwrap();
        once.set_learning_rate(LearningRate::piecewise([(0, 0.3), (6, 0.02)])).unwrap();
        once.trim_history(kept);
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::create(folder.path()).unwrap();
        checkpoints.save(&once, &Notes::new()).unwrap();
        let mut resumed = checkpoints.resume::<f32, _>(SoftmaxCrossEntropy).unwrap().value;
        assert_eq!(state(&resumed), state(&once));
        assert_eq!(resumed.training(), once.training());
        for trainer in [&mut once, &mut resumed] {
            trainer.set_epochs(8);
            trainer.fit(train, None, ()).unwrap();
        }
        assert_eq!(state(&resumed), state(&once), "{training:?}");
        assert_eq!(once.history().records.len(), kept + 4);
    }
}

/// Batches that own their rows, in the order of the data.
fn batches<'a>(
    x: &'a Array2<f32>,
    y: &'a Array1<usize>,
    size: usize,
) -> impl Iterator<Item = (Array2<f32>, Vec<usize>)> {
    let chunks = x.axis_chunks_iter(Axis(0), size).zip(y.axis_chunks_iter(Axis(0), size));
    chunks.map(|(x, y)| (x.to_owned(), y.to_vec()))
}

#[test]
fn batches_of_an_iterator_make_the_epoch_that_they_are_cut_from() {
    let (x, y) = data::<f32>();
    let validation = Dataset::new(&x, &y);
    for training in trainings() {
        // The first batch is what standardisation is fitted on.
        let training = TrainingSettings { shuffle: false, standardize: false, ..training };
        for &products in common::products() {
            let new = || {
                let mlp = network(Bias::EveryLayer).with_products(products).unwrap();
                Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap()
            };
            let (mut whole, mut streamed) = (new(), new());
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                whole.partial_fit(validation, Some(validation), on_batch(|batch| expected.push(*batch))).unwrap();
                let observer = on_batch(|batch| found.push(*batch));
                let ended = streamed.fit_batches(batches(&x, &y, 16), Some(validation), observer).unwrap();
                assert_eq!(ended, StopReason::Completed);
            }
            assert_eq!(found, expected, "{training:?}, {products:?}");
            assert_eq!(state(&streamed), state(&whole), "{training:?}, {products:?}");
            assert_eq!(streamed.steps(), whole.steps());
        }
    }
}

/// Data sets with weights are batches as well; and where the length of the iterator is unknown, the
/// schedule stays at the beginning of the epoch.
#[test]
fn an_iterator_need_not_know_its_length() {
    let (x, y) = data::<f32>();
    let weights = Array1::from_shape_fn(70, |i| (i % 3) as f32);
    let training =
        TrainingSettings { learning_rate: LearningRate::cosine(0.5, 0.0), epochs: 2, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(network(Bias::Input), SoftmaxCrossEntropy, training).unwrap();
    let all = Dataset::new(&x, &y).weights(&weights);
    let mut rates = Vec::new();
    let mut left = 3;
    let unknown = std::iter::from_fn(|| {
        left -= 1;
        (left >= 0).then_some(all)
    });
    trainer.fit_batches(unknown, None, on_batch(|batch| rates.push(batch.learning_rate))).unwrap();
    trainer.fit_batches([all, all], None, on_batch(|batch| rates.push(batch.learning_rate))).unwrap();
    assert_eq!(rates[..3], [0.5; 3]);
    // ½ · ½ (1 + cos πd) at d = ½ and ¾, by a formula of a few roundings.
    let at = |d: f64| 0.25 * (1.0 + (std::f64::consts::PI * d).cos());
    assert!((rates[3] - at(0.5)).abs() <= 4.0 * f64::EPSILON && (rates[4] - at(0.75)).abs() <= 4.0 * f64::EPSILON);
    let record = trainer.history().records[1];
    assert_eq!((record.epoch, record.steps), (2, 5));
    assert!(record.gradient_norm > 0.0);
}

#[test]
fn a_stream_that_is_stopped_has_made_its_steps_and_has_no_record() {
    let (x, y) = data::<f32>();
    let new = || Trainer::new(network(Bias::Input), SoftmaxCrossEntropy, trainings().swap_remove(3)).unwrap();
    let (mut streamed, mut by_steps) = (new(), new());
    let stop = on_batch(|batch| if batch.batch == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    assert_eq!(streamed.fit_batches(batches(&x, &y, 16), None, stop).unwrap(), StopReason::Observer);
    assert_eq!((streamed.steps(), streamed.history().records.len()), (2, 0));
    // The third batch does not fit.
    let error = streamed.fit_batches(batches(&x, &y, 16).chain([(Array2::zeros((2, 5)), vec![0, 1])]), None, ());
    assert!(matches!(error, Err(Error::Shape { what: "x", .. })));
    assert_eq!((streamed.steps(), streamed.history().records.len()), (7, 0));
    streamed.fit_batches(batches(&x, &y, 16), None, ()).unwrap();
    assert_eq!(streamed.history().records[0].steps, 12);
    for (x, y) in batches(&x, &y, 16).take(2) {
        by_steps.step(Dataset::new(&x, &y)).unwrap();
    }
    assert_eq!(by_steps.steps(), 2);

    let none = std::iter::empty::<(Array2<f32>, Vec<usize>)>();
    assert_eq!(new().fit_batches(none, None, ()).unwrap_err(), Error::NoSamples);
    let mut unfinished = new();
    unfinished.fit(Dataset::new(&x, &y), None, on_batch(|_| ControlFlow::Break(()))).unwrap();
    let error = unfinished.fit_batches(batches(&x, &y, 16), None, ()).unwrap_err();
    assert!(matches!(error, Error::UnfinishedEpoch { .. }), "{error}");
    unfinished.partial_fit(Dataset::new(&x, &y), None, ()).unwrap();
    unfinished.fit_batches(batches(&x, &y, 16), None, ()).unwrap();
    assert_eq!(unfinished.history().records.len(), 2);
}

#[test]
fn early_stopping_ends_a_stream_too() {
    let x = Array2::<f32>::zeros((4, 1));
    let y = Array1::<f32>::zeros(4);
    let mlp = Mlp::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let training = TrainingSettings { early_stopping: Some(2), ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let mut epoch = || trainer.fit_batches([Dataset::new(&x, &y)], None, ()).unwrap();
    assert_eq!([epoch(), epoch(), epoch()], [StopReason::Completed, StopReason::Completed, StopReason::EarlyStopping]);
}
