//! Runs on several ranks, of which one fails, or is not as the others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::Array2;

use super::ranks_tests::{Data, outcome, trainer};
use super::threads_tests::on_threads;
use super::{Alone, DataParallel};
use crate::Error;
use crate::network::loss::SoftmaxCrossEntropy;
use crate::network::mlp::Mlp;
use crate::network::parameters::Bias;
use crate::network::products::Products;
use crate::optim::learning_rate::LearningRate;
use crate::optim::optimizer::Optimizer;
use crate::train::dataset::Dataset;
use crate::train::observer::{on_batch, on_epoch};
use crate::train::settings::TrainingSettings;
use crate::train::trainer::Trainer;

/// What a rank does to fail.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    Data,
    BatchObserver,
    LastBatchObserver,
    EpochObserver,
    Loss,
}

/// A failure of one rank ends the call on all, with the steps before it, from which it goes on.
#[test]
fn a_failure_of_one_rank_ends_all_and_the_run_can_go_on() {
    let training =
        TrainingSettings { epochs: 3, batch: 16, validation_fraction: Some(0.1), ..TrainingSettings::default() };
    let (chunks, train) = (6, Data::<f64>::new(60, 5, false, 8));
    let mlp = Mlp::he(&[5, 8, 3], Bias::EveryLayer, 5).unwrap();
    let start = Trainer::new(mlp, Failing::default(), training.clone()).unwrap();
    let expected = {
        let mut run = DataParallel::exact(start.clone(), &Alone, chunks).unwrap();
        run.fit(train.part(chunks, 0, 1), None, ()).unwrap();
        outcome(run.trainer())
    };
    let all = [Fails::Data, Fails::BatchObserver, Fails::LastBatchObserver, Fails::EpochObserver, Fails::Loss];
    for (fails, failing) in all.into_iter().flat_map(|fails| (0..3).map(move |rank| (fails, rank))) {
        let stopped = on_threads(3, |group| {
            let is_failing = group.rank == failing;
            let mut part = train.part(chunks, group.rank, 3);
            let broken = Array2::from_elem((part.samples(), 5), f64::NAN);
            if is_failing && fails == Fails::Data {
                part = Dataset { x: broken.view(), ..part };
            }
            let trainer = start.clone();
            trainer.loss.panics_at.set(if is_failing && fails == Fails::Loss { Some(30) } else { None });
            let mut run = DataParallel::exact(trainer, group, chunks).unwrap();
            let observer = (
                on_batch(|end| {
                    let at = if fails == Fails::BatchObserver { 2 } else { end.batches };
                    let observes = matches!(fails, Fails::BatchObserver | Fails::LastBatchObserver);
                    assert!(!(observes && is_failing && end.epoch == 2 && end.batch == at), "on purpose");
                }),
                on_epoch(|record, _| {
                    assert!(!(fails == Fails::EpochObserver && is_failing && record.epoch == 2), "on purpose");
                }),
            );
            let done = catch_unwind(AssertUnwindSafe(|| run.fit(part, None, observer)));
            match (is_failing, fails, done) {
                (true, Fails::Data, Ok(Err(Error::NotFinite { what: "x", row: Some(0), .. }))) => {}
                (true, _, Err(_)) if fails != Fails::Data => {}
                (false, _, Ok(Err(Error::Rank { rank, reason }))) => {
                    assert_eq!(rank, failing);
                    let expected = if fails == Fails::Data { "x[0, 0]: " } else { "panicked: on purpose" };
                    assert!(reason.starts_with(expected), "{reason}");
                }
                (.., done) => panic!("rank {}, {fails:?}: {:?}", group.rank, done.map_err(drop)),
            }
            run.into_trainer()
        });
        for mut trainer in stopped {
            trainer.loss.panics_at.set(None);
            trainer.order = None;
            let mut run = DataParallel::exact(trainer, &Alone, chunks).unwrap();
            run.fit(train.part(chunks, 0, 1), None, ()).unwrap();
            assert_eq!(outcome(run.trainer()), expected, "{fails:?} of rank {failing}");
        }
    }
}

/// A loss that panics in a step whose sums go on while it is computed.
#[test]
fn a_failure_of_a_fast_rank_ends_all_and_the_run_can_go_on() {
    let training = TrainingSettings { epochs: 2, batch: 16, ..TrainingSettings::default() };
    let train = Data::<f64>::new(60, 5, false, 8);
    let mlp = Mlp::he(&[5, 8, 3], Bias::EveryLayer, 5).unwrap();
    let start = Trainer::new(mlp, Failing::default(), training).unwrap();
    let fit = |trainer: Trainer<f64, Failing>, failing: Option<usize>| {
        on_threads(3, |group| {
            let trainer = trainer.clone();
            trainer.loss.panics_at.set(if failing == Some(group.rank) { Some(30) } else { None });
            let mut run = DataParallel::fast(trainer, group, 3).unwrap();
            let done = catch_unwind(AssertUnwindSafe(|| run.fit(train.part(3, group.rank, 3), None, ())));
            match (failing, done) {
                (None, Ok(Ok(_))) => {}
                (Some(failing), Err(_)) if failing == group.rank => {}
                (Some(failing), Ok(Err(Error::Rank { rank, reason }))) if failing != group.rank => {
                    assert_eq!((rank, reason.as_str()), (failing, "panicked: on purpose"));
                }
                (_, done) => panic!("rank {}: {:?}", group.rank, done.map_err(drop)),
            }
            run.into_trainer()
        })
    };
    let expected = outcome(&fit(start.clone(), None)[0]);
    for failing in 0..3 {
        let stopped = fit(start.clone(), Some(failing));
        let bits: Vec<_> = stopped.iter().map(outcome).collect();
        assert_eq!((&bits[1], &bits[2]), (&bits[0], &bits[0]));
        let mut trainer = stopped.into_iter().next().expect("there are three");
        // Of a batch, a rank has 5 or 6 samples.
        assert_eq!(trainer.steps(), 5);
        trainer.order = None;
        for trainer in fit(trainer, None) {
            assert_eq!(outcome(&trainer), expected, "after a failure of rank {failing}");
        }
    }
}

/// Softmax that panics at its n-th call.
#[derive(Debug, Default)]
struct Failing {
    panics_at: std::sync::Arc<PanicsAt>,
}

#[derive(Debug, Default)]
struct PanicsAt(std::sync::Mutex<Option<usize>>);

impl PanicsAt {
    fn set(&self, calls: Option<usize>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = calls;
    }

    fn count(&self) {
        let mut left = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(calls) = &mut *left {
            *calls -= 1;
            assert!(*calls > 0, "on purpose");
        }
    }
}

/// A clone fails by itself.
impl Clone for Failing {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl crate::Loss<f64> for Failing {
    type Target = usize;

    fn target_len(&self, outputs: usize) -> crate::Result<usize> {
        crate::Loss::<f64>::target_len(&SoftmaxCrossEntropy, outputs)
    }

    fn check(&self, row: usize, target: &[usize], outputs: usize) -> crate::Result<()> {
        crate::Loss::<f64>::check(&SoftmaxCrossEntropy, row, target, outputs)
    }

    fn value_and_derivative(&self, y_hat: &[f64], target: &[usize], dy: &mut [f64]) -> f64 {
        self.panics_at.count();
        SoftmaxCrossEntropy.value_and_derivative(y_hat, target, dy)
    }
}

#[test]
fn trainers_that_are_not_equal_are_refused() {
    let train = Data::<f32>::new(40, 5, false, 1);
    let start = trainer::<f32>(&[5, 3], TrainingSettings::default(), Products::Auto);
    type Change = fn(&mut Trainer<f32, SoftmaxCrossEntropy>);
    let change: [(&str, Change); 4] = [
        ("settings", |trainer| trainer.training.batch += 1),
        ("position", |trainer| trainer.position.steps += 1),
        ("parameters", |trainer| trainer.model.mlp.theta_mut().b_mut()[1] += 1e-6),
        ("moments", |trainer| trainer.moments.arrays[0].b_mut()[0] += 1e-9),
    ];
    for (expected, change) in change {
        on_threads(2, |group| {
            let mut trainer = start.clone();
            let training =
                TrainingSettings { optimizer: Optimizer::Momentum { mu: 0.9 }, ..TrainingSettings::default() };
            trainer = Trainer::new(trainer.into_model(), SoftmaxCrossEntropy, training).unwrap();
            if group.rank == 1 {
                change(&mut trainer);
            }
            let mut run = DataParallel::exact(trainer, group, 2).unwrap();
            let refused = run.fit(train.part(2, group.rank, 2), None, ()).unwrap_err();
            assert_eq!(refused, Error::OtherRun { rank: 1, what: expected });
        });
    }
}

#[test]
fn a_number_of_chunks_that_ranks_cannot_share_is_refused() {
    on_threads(2, |group| {
        for found in [0, 1, 3] {
            let trainer = trainer::<f32>(&[5, 3], TrainingSettings::default(), Products::Auto);
            let refused = DataParallel::exact(trainer, group, found).unwrap_err();
            assert_eq!(refused, Error::Chunks { ranks: 2, found });
        }
    });
}

/// Steps that diverge do so on all ranks alike, and leave θ as it was.
#[test]
fn a_divergence_is_that_of_all_ranks() {
    let learning_rate = LearningRate::constant(1e30);
    let start =
        trainer::<f32>(&[5, 9, 3], TrainingSettings { learning_rate, ..TrainingSettings::default() }, Products::Auto);
    let train = Data::<f32>::new(60, 5, false, 1);
    let errors = on_threads(2, |group| {
        let mut run = DataParallel::exact(start.clone(), group, 4).unwrap();
        let error = run.fit(train.part(4, group.rank, 2), None, ()).unwrap_err();
        assert!(run.trainer().model().mlp.parameters().all_finite());
        error
    });
    assert!(matches!(errors[0], Error::Diverged { .. }), "{}", errors[0]);
    // The loss is NaN, which equals nothing.
    assert_eq!(errors[0].to_string(), errors[1].to_string());
}

#[test]
fn what_fails_on_rank_0_fails_on_all() {
    on_threads(3, |group| {
        let mut run =
            DataParallel::exact(trainer::<f32>(&[5, 3], TrainingSettings::default(), Products::Auto), group, 3)
                .unwrap();
        run.on_rank_0(|_| {
            assert_eq!(group.rank, 0);
            Ok::<_, Error>(())
        })
        .unwrap();
        let failed = run.on_rank_0(|_| Err(Error::NoSamples)).unwrap_err();
        if group.rank == 0 {
            assert_eq!(failed, Error::NoSamples);
        } else {
            assert_eq!(failed, Error::Rank { rank: 0, reason: Error::NoSamples.to_string() });
        }
    });
}
