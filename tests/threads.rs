//! How many threads compute, and whose they are. This runs in a process of its own, since the
//! crate's workers are created once and their number is global.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::ThreadId;
use std::time::Duration;

use gemmprop::{Bias, Loss, Mlp, Result, Sgd, SquaredError, set_threads};
use ndarray::Array2;
use rayon::prelude::*;

/// The squared error, which records the threads that call it.
#[derive(Default)]
struct Asked(Mutex<HashSet<ThreadId>>);

impl Loss<f32> for Asked {
    type Target = f32;

    fn target_len(&self, outputs: usize) -> Result<usize> {
        Loss::<f32>::target_len(&SquaredError, outputs)
    }

    fn check(&self, row: usize, y: &[f32], outputs: usize) -> Result<()> {
        SquaredError.check(row, y, outputs)
    }

    fn value_and_derivative(&self, y_hat: &[f32], y: &[f32], d: &mut [f32]) -> f32 {
        self.0.lock().unwrap().insert(std::thread::current().id());
        SquaredError.value_and_derivative(y_hat, y, d)
    }
}

/// Trains for some steps of a few tiles each, with work enough for helpers. Returns who has
/// computed, and a number that depends on all of θ.
fn train(epochs: usize) -> (HashSet<ThreadId>, f64) {
    let x = Array2::from_shape_fn((2048, 64), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
    let y = Array2::from_shape_fn((2048, 64), |(i, k)| ((i + k) % 7) as f32);
    let mut mlp = Mlp::<f32>::he(&[64, 64, 64], Bias::Input, 1).unwrap();
    let loss = Asked::default();
    Sgd::new(512, 1e-4, 1).unwrap().train(&mut mlp, x.view(), y.view(), &loss, epochs).unwrap();
    (loss.0.into_inner().unwrap(), mlp.parameters().iter().map(|&p| f64::from(p)).sum())
}

#[test]
fn threads_are_made_whoever_trains_first_and_are_as_many_as_set() {
    // The first to train are all workers of a pool, while others of its jobs wait: each may take
    // another's job while it waits.
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let sums: Vec<f64> = pool.install(|| (0..32).into_par_iter().map(|_| train(1).1).collect());
        done.send(sums).unwrap();
    });
    let sums = ended.recv_timeout(Duration::from_secs(60)).expect("a deadlock");

    let here = HashSet::from([std::thread::current().id()]);
    set_threads(Some(1));
    let (asked, sum) = train(20);
    assert_eq!(asked, here, "the caller alone");
    let one_epoch = train(1).1;
    assert!(sums.iter().all(|&other| other == one_epoch));
    for threads in [Some(2), None, Some(64)] {
        set_threads(threads);
        let (asked, other) = train(20);
        let cores = std::thread::available_parallelism().unwrap().get();
        let most = threads.unwrap_or_else(rayon::current_num_threads).min(cores);
        assert!(asked.len() <= most && asked.is_superset(&here), "{} threads for {threads:?}", asked.len());
        assert_eq!(other, sum, "{threads:?}");
    }
    // Helpers that remain from the last call are too many now.
    set_threads(Some(1));
    assert_eq!(train(1).0, here);
}
