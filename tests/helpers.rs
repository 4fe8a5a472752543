//! Helpers are welcome and never needed: a run ends in a pool that is busy, blocked, or far larger than the machine.

use std::sync::mpsc;
use std::time::Duration;

use gemmprop::{Constant, Mlp, Sgd, SquaredError};
use ndarray::Array2;

/// A few steps of a network that is large enough for helpers to be invited. Returns a number that depends on all of θ.
fn train() -> f64 {
    let widths = [64, 256, 256, 1];
    let x = Array2::from_shape_fn((320, 64), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    let y = Array2::from_shape_fn((320, 1), |(i, _)| (i % 7) as f32);
    let mut mlp = Mlp::<f32>::he(&widths, Constant::Input, 1).unwrap();
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

/// Every worker but the caller's waits for something that only comes when the training has ended.
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

/// The caller is no worker, and all workers of the global pool are blocked until it has ended: helpers never come.
#[test]
fn a_run_ends_when_no_helper_ever_comes() {
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
