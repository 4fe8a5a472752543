//! Helpers are optional and always belong to the crate: a run ends in a pool
//! that is busy, blocked, or far larger than the machine, and while it runs a loss, an observer and
//! the rest of the program may use rayon, call the crate, block, or panic.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use gemmprop::BatchEnd;
use gemmprop::{
    Bias, Dataset, LearningRate, Loss, Mlp, Observer, Optimizer, Result, Sgd, SquaredError, Trainer, TrainingSettings,
};
use ndarray::Array2;

/// A few steps of a network that is large enough for helpers to be invited. Returns a number that
/// depends on all of θ.
fn train() -> f64 {
    let widths = [64, 256, 256, 1];
    let x = Array2::from_shape_fn((320, 64), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    let y = Array2::from_shape_fn((320, 1), |(i, _)| (i % 7) as f32);
    let mut mlp = Mlp::<f32>::he(&widths, Bias::Input, 1).unwrap();
    Sgd::new(64, 1e-3, 1).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 3).unwrap();
    mlp.parameters().iter().map(|&p| f64::from(p)).sum()
}

/// Fails instead of hanging, if `work` does not end within a minute.
fn must_end<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    ended.recv_timeout(Duration::from_secs(60)).expect("a deadlock")
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Every worker of the caller's pool but its own waits for something that only comes when the
/// training has ended.
#[test]
fn a_run_ends_in_a_pool_whose_other_workers_are_blocked() {
    let alone = pool(1).install(train);
    let blocked = must_end(|| {
        let pool = pool(3);
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let blocking = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    pool.install(|| {
                        blocking.wait();
                        _ = gate.lock().unwrap().recv();
                    });
                });
            }
            let result = pool.install(|| {
                blocking.wait();
                train()
            });
            drop(release);
            result
        })
    });
    assert_eq!(blocked, alone);
}

/// The caller is no worker, and all workers of the global pool are blocked until it has ended.
#[test]
fn a_run_ends_when_all_workers_of_the_global_pool_are_blocked() {
    let alone = pool(1).install(train);
    let result = must_end(|| {
        let workers = rayon::current_num_threads();
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
        let blocking = std::sync::Arc::new(std::sync::Barrier::new(workers + 1));
        for _ in 0..workers {
            let (gate, blocking) = (gate.clone(), blocking.clone());
            rayon::spawn(move || {
                blocking.wait();
                _ = gate.lock().unwrap().recv();
            });
        }
        blocking.wait();
        let result = train();
        drop(release);
        result
    });
    assert_eq!(result, alone);
}

/// The crate's own workers are blocked, by a loss of another run: helpers never come.
#[test]
fn a_run_ends_when_no_helper_ever_comes() {
    let alone = pool(1).install(train);
    let result = must_end(|| {
        let over = AtomicBool::new(false);
        let blocked = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let main = scope.spawn(|| {
                let this = std::thread::current().id();
                train_with(&Meddling(|| {
                    // A helper's tile does not end by itself.
                    let helps = std::thread::current().id() != this;
                    if helps {
                        blocked.store(true, Ordering::Relaxed);
                    }
                    while !over.load(Ordering::Relaxed) && helps {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }))
            });
            while !blocked.load(Ordering::Relaxed) && !main.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let result = train();
            over.store(true, Ordering::Relaxed);
            main.join().unwrap();
            result
        })
    });
    assert_eq!(result, alone);
}

#[test]
fn a_run_ends_with_64_threads_on_few_cores() {
    let alone = pool(1).install(train);
    assert_eq!(must_end(|| pool(64).install(train)), alone);
}

#[test]
fn runs_end_inside_each_worker_of_a_busy_pool() {
    let alone = pool(1).install(train);
    let results = must_end(|| {
        pool(4).install(|| {
            use rayon::prelude::*;
            (0..32).into_par_iter().map(|_| train()).collect::<Vec<f64>>()
        })
    });
    assert!(results.iter().all(|&result| result == alone));
}

/// The squared error, with something done on the way that a caller's own loss may do.
struct Meddling<W>(W);

impl<W: Fn() + Send + Sync> Loss<f32> for Meddling<W> {
    type Target = f32;

    fn target_len(&self, outputs: usize) -> Result<usize> {
        Loss::<f32>::target_len(&SquaredError, outputs)
    }

    fn check(&self, row: usize, y: &[f32], outputs: usize) -> Result<()> {
        SquaredError.check(row, y, outputs)
    }

    fn value_and_derivative(&self, y_hat: &[f32], y: &[f32], d: &mut [f32]) -> f32 {
        (self.0)();
        SquaredError.value_and_derivative(y_hat, y, d)
    }
}

/// Samples whose loss is made in several tiles of rows at once.
fn samples(count: usize) -> (Array2<f32>, Array2<f32>) {
    let x = Array2::from_shape_fn((count, 256), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    let y = Array2::from_shape_fn((count, 256), |(i, k)| ((i + k) % 7) as f32);
    (x, y)
}

/// Three steps with that loss.
fn train_with(loss: &impl Loss<f32, Target = f32>) -> f64 {
    let (x, y) = samples(3 * 256);
    let mut mlp = Mlp::<f32>::he(&[256, 256, 256], Bias::Input, 1).unwrap();
    Sgd::new(256, 1e-4, 1).unwrap().train(&mut mlp, x.view(), y.view(), loss, 1).unwrap();
    mlp.parameters().iter().map(|&p| f64::from(p)).sum()
}

#[test]
fn a_loss_may_wait_for_rayon() {
    let expected = train_with(&SquaredError);
    for threads in [1, 2, 3, 4, 8, 64] {
        let found = must_end(move || {
            // Each half long enough for the other to be stolen meanwhile.
            let nap = || std::thread::sleep(Duration::from_micros(20));
            pool(threads).install(|| train_with(&Meddling(|| _ = rayon::join(nap, nap))))
        });
        assert_eq!(found, expected, "{threads} threads");
    }
}

#[test]
fn a_loss_may_wait_for_a_job_that_it_spawns() {
    let expected = train_with(&SquaredError);
    let found = must_end(|| {
        train_with(&Meddling(|| {
            let (done, ended) = mpsc::channel();
            rayon::spawn(move || done.send(()).unwrap());
            ended.recv().unwrap();
        }))
    });
    assert_eq!(found, expected);
}

#[test]
fn a_loss_may_call_the_crate_and_block() {
    let expected = train_with(&SquaredError);
    let (calls, lock) = (AtomicUsize::new(0), std::sync::Mutex::new(()));
    let other = Mlp::<f32>::he(&[64, 256, 256, 1], Bias::Input, 1).unwrap();
    let x = Array2::from_elem((200, 64), 0.5_f32);
    let found = train_with(&Meddling(|| {
        let _one_at_a_time = lock.lock().unwrap();
        if calls.fetch_add(1, Ordering::Relaxed) % 100 == 0 {
            other.predict(x.view()).unwrap();
            train();
        }
    }));
    assert_eq!(found, expected);
    assert!(calls.load(Ordering::Relaxed) >= 3 * 256);
}

/// A payload whose drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload was dropped");
    }
}

/// All tiles panic at once, with any payload: the caller gets one of the panics, and what it lent
/// is no longer borrowed.
#[test]
fn a_loss_may_panic_with_any_payload() {
    let (x, y) = samples(4096);
    let mut mlp = Mlp::<f32>::he(&[256, 256], Bias::Input, 1).unwrap();
    let before = mlp.clone();
    let mut sgd = Sgd::new(4096, 1e-4, 1).unwrap();
    for _ in 0..20 {
        let loss = Meddling(|| panic_any(Bomb));
        let step = || sgd.step(&mut mlp, x.view(), y.view(), &loss);
        let payload = catch_unwind(AssertUnwindSafe(step)).unwrap_err();
        assert!(payload.is::<Bomb>());
        std::mem::forget(payload);
        assert_eq!(mlp, before);
    }
    sgd.step(&mut mlp, x.view(), y.view(), &SquaredError).unwrap();
    assert_ne!(mlp, before);
}

/// An observer that reports each batch.
struct Tell<T>(T);

impl<T: FnMut(&BatchEnd) -> ControlFlow<()>> Observer<f32> for Tell<T> {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        (self.0)(batch)
    }
}

/// A training run that only its observer stops.
fn train_until(mut stop: impl FnMut() -> bool) {
    let (x, y) = samples(2048);
    let mlp = Mlp::<f32>::he(&[256, 256, 256], Bias::Input, 1).unwrap();
    let training = TrainingSettings {
        epochs: usize::MAX,
        batch: 256,
        learning_rate: LearningRate::constant(1e-6),
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let mut observer = Tell(|_: &BatchEnd| if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut observer).unwrap();
}

/// A host's rayon jobs run while two trainers do, however long the jobs take: the trainers run
/// until the jobs are done.
#[test]
fn jobs_of_the_program_do_not_wait_for_training() {
    must_end(|| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| train_until(|| done.load(Ordering::Relaxed)));
            }
            for _ in 0..100 {
                std::thread::sleep(Duration::from_millis(1));
                assert_eq!(rayon::join(|| 1, || 2), (1, 2));
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

/// Two trainers at once whose observers wait for rayon.
#[test]
fn an_observer_may_wait_for_rayon() {
    must_end(|| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut batches = 0;
                    train_until(|| {
                        batches += 1;
                        let (a, b) = rayon::join(|| 1, || 2);
                        a + b == 3 && batches == 200
                    });
                });
            }
        });
    });
}

/// Sharpness-aware steps ask for the loss twice, the second time at another point.
#[test]
fn parameters_are_where_they_were_when_a_loss_panics_anywhere_in_a_step() {
    let (x, y) = samples(64);
    for optimizer in [Optimizer::Sgd, Optimizer::Momentum { mu: 0.9 }, Optimizer::adam()] {
        for sam in [None, Some(0.05)] {
            let calls_of_a_step = if sam.is_some() { 128 } else { 64 };
            for last in [0, 63, 64, 100, 127].into_iter().filter(|&last| last < calls_of_a_step) {
                let calls = AtomicUsize::new(0);
                let loss = Meddling(|| assert!(calls.fetch_add(1, Ordering::Relaxed) != last, "call {last}"));
                let mlp = Mlp::<f32>::he(&[256, 32, 256], Bias::Input, 1).unwrap();
                let training = TrainingSettings { optimizer, sam, batch: 64, ..TrainingSettings::default() };
                let mut trainer = Trainer::new(mlp.clone(), loss, training).unwrap();
                let step = || trainer.step(Dataset::new(x.view(), y.view()));
                assert!(catch_unwind(AssertUnwindSafe(step)).is_err(), "{optimizer:?} {sam:?} {last}");
                assert_eq!(trainer.model().mlp, mlp, "{optimizer:?} {sam:?}: the loss panicked at call {last}");
            }
        }
    }
}
