//! A step allocates nothing once its buffers exist, and the buffers are as large as the docs say.

#![allow(
    unsafe_code,
    reason = "a counting allocator is unsafe to write; the crate's own unsafe stands in few files of src/"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gemmprop::{
    Bias, Dataset, Gradients, LearningRate, Mlp, Model, Optimizer, Products, Sgd, SoftmaxCrossEntropy, SquaredError,
    Standardizer, Trainer, TrainingSettings,
};
use ndarray::{Array1, Array2, s};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often a helper may have been called in that time: it stays for at least 3 ms, unless a call
/// ends.
fn calls_of_a_helper(time: Duration) -> usize {
    1 + time.as_millis() as usize / 3
}

fn network(widths: &[usize], bias: Bias, products: Products) -> Mlp<f32> {
    Mlp::he(widths, bias, 1).unwrap().with_products(products).unwrap()
}

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Settings that take every path through an update.
fn trainings() -> Vec<TrainingSettings> {
    let momentum = [Optimizer::Momentum { mu: 0.9 }, Optimizer::Nesterov { mu: 0.9 }];
    let mut trainings = Vec::new();
    for optimizer in [Optimizer::Sgd, Optimizer::adam()].into_iter().chain(momentum) {
        for clip_norm in [None, Some(1e-3), Some(1e3)] {
            for (sam, standardize) in [(None, false), (None, true), (Some(0.05), false), (Some(0.05), true)] {
                let learning_rate = LearningRate::constant(1e-3);
                let training = TrainingSettings {
                    optimizer,
                    learning_rate,
                    clip_norm,
                    standardize,
                    ..TrainingSettings::default()
                };
                trainings.push(TrainingSettings { sam, weight_decay: 0.1, batch: 64, ..training });
            }
        }
    }
    trainings
}

/// Steps of changing sizes on the calling thread allocate nothing after two of each size.
fn small_steps_of_a_trainer(products: Products) {
    let (x, y) = (Array2::from_shape_fn((32, 16), |(i, j)| (i * j % 7) as f32), Array1::from_elem(32, 1.0_f32));
    for training in trainings() {
        let mlp = network(&[16, 16, 16, 1], Bias::Input, products);
        let mut trainer = Trainer::new(mlp, SquaredError, training.clone()).unwrap();
        let mut step = |rows: usize| {
            trainer.step(Dataset::new(x.slice(s![..rows, ..]), y.slice(s![..rows]))).unwrap();
        };
        for rows in [32, 32, 7, 7, 1, 1] {
            step(rows);
        }
        assert_eq!(allocations(|| (0..100).for_each(|i| step([32, 7, 1][i % 3]))), 0, "{training:?}");
    }
}

/// An epoch: the record, and a helper's job and a block of rayon's queue for each helper, however
/// many steps it has.
fn epochs_of_a_trainer(products: Products) {
    let steps = 30;
    let (x, y) = (Array2::from_elem((steps * 64, 64), 0.5_f32), Array1::from_elem(steps * 64, 3_usize));
    for training in trainings() {
        let mlp = network(&[64, 256, 256, 10], Bias::EveryLayer, products);
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap();
        let mut epoch = || {
            trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
        };
        epoch();
        epoch();
        let (helpers, start) = (rayon::current_num_threads() - 1, Instant::now());
        let found = allocations(epoch);
        let calls = helpers * calls_of_a_helper(start.elapsed());
        assert!(found <= 1 + 2 * calls, "{found} allocations in {steps} steps with {helpers} helpers, {training:?}");
    }
}

/// Small steps on the calling thread: nothing at all, for changing batch sizes too.
fn small_steps(products: Products) {
    let (x, y) = (Array2::from_elem((40, 16), 0.5_f32), Array1::from_elem(40, 1.0_f32));
    let mut mlp = network(&[16, 16, 16, 1], Bias::Input, products);
    let mut sgd = Sgd::new(32, 1e-3, 1).unwrap();
    let mut step = |rows: usize| {
        sgd.step(&mut mlp, x.slice(s![..rows, ..]), y.slice(s![..rows]), &SquaredError).unwrap();
    };
    for rows in [32, 7, 1] {
        step(rows);
    }
    assert_eq!(allocations(|| (0..1000).for_each(|i| step([32, 7, 1][i % 3]))), 0, "small steps");
    // The batch has enough samples for the gradient to be stored first, and too little work for a
    // helper to be invited.
    let (x, y) = (Array2::from_elem((256, 4), 0.5_f32), Array1::from_elem(256, 1.0_f32));
    let mut mlp = network(&[4, 4, 1], Bias::Input, products);
    let mut step = || sgd.step(&mut mlp, x.view(), y.view(), &SquaredError).unwrap();
    step();
    assert_eq!(allocations(|| (0..100).for_each(|_| _ = step())), 0, "tall steps");
}

/// Wide steps with helpers: rayon boxes the job of a helper that has to be invited, and its queues
/// grow now and then; an epoch of many steps invites each helper once.
fn epochs(products: Products) {
    let steps = 60;
    let (x, y) = (Array2::from_elem((steps * 64, 64), 0.5_f32), Array1::from_elem(steps * 64, 3_usize));
    let mut mlp = network(&[64, 256, 256, 10], Bias::EveryLayer, products);
    let mut sgd = Sgd::new(64, 1e-3, 1).unwrap();
    let mut epoch = || {
        sgd.train(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy, 1).unwrap();
    };
    epoch();
    epoch();
    // The history that `train` gives back is one; a helper's job and a block of rayon's queue are
    // two more for each helper.
    let (helpers, start) = (rayon::current_num_threads() - 1, Instant::now());
    let found = allocations(&mut epoch);
    assert!(
        found <= 1 + 2 * helpers * calls_of_a_helper(start.elapsed()),
        "{found} allocations in {steps} steps with {helpers} helpers"
    );
}

/// Few rows on the calling thread, with and without standardisation: nothing at all.
fn predictions(products: Products) {
    let x = Array2::from_shape_fn((40, 16), |(i, j)| (i * j % 7) as f32);
    let mut model = Model::from(network(&[16, 16, 16, 3], Bias::EveryLayer, products));
    for standardizer in [None, Some(Standardizer::fit(x.view()).unwrap())] {
        model.standardizer = standardizer;
        let mut predictor = model.predictor(16).unwrap();
        let mut y_hat = Array2::zeros((40, 3));
        let mut predict = |rows: usize| {
            predictor.predict_into(x.slice(s![..rows, ..]), y_hat.slice_mut(s![..rows, ..])).unwrap();
        };
        for rows in [1, 8, 40] {
            predict(rows);
        }
        assert_eq!(allocations(|| (0..300).for_each(|i| predict([1, 8, 40][i % 3]))), 0, "predictions, {products:?}");
    }
}

/// Gradients of changing sizes on the calling thread, of a model with standardisation and weights:
/// nothing at all.
fn gradients(products: Products) {
    let (x, y) = (Array2::from_shape_fn((32, 16), |(i, j)| (i * j % 7) as f32), Array1::from_elem(32, 1.0_f32));
    let weights = Array1::from_shape_fn(32, |i| (i % 3) as f32);
    let mlp = network(&[16, 16, 16, 1], Bias::EveryLayer, products);
    let model = Model { mlp, standardizer: Some(Standardizer::fit(&x).unwrap()) };
    let mut gradients = Gradients::new(&model.mlp);
    let mut step = |rows: usize| {
        let data = Dataset::new(x.slice(s![..rows, ..]), y.slice(s![..rows])).weights(weights.slice(s![..rows]));
        gradients.compute(&model, data, &SquaredError).unwrap();
    };
    for rows in [32, 7, 1] {
        step(rows);
    }
    assert_eq!(allocations(|| (0..300).for_each(|i| step([32, 7, 1][i % 3]))), 0, "gradients, {products:?}");
}

/// Over BLAS: capacity × (d[0] + 2 (d[1] + … + m)) numbers, and tables of a few kilobytes.
fn buffers_have_the_stated_size() {
    let products = Products::Blas;
    let (x, y) = (Array2::from_elem((64, 64), 0.5_f32), Array1::from_elem(64, 3_usize));
    let mut mlp = network(&[64, 256, 256, 10], Bias::EveryLayer, products);
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let mut sgd = Sgd::new(64, 1e-3, 1).unwrap();
    sgd.step(&mut mlp, x.view(), y.view(), &SoftmaxCrossEntropy).unwrap();
    let bytes = LIVE_BYTES.load(Ordering::Relaxed) - before;
    let stated = 64 * (64 + 2 * (256 + 256 + 10)) * size_of::<f32>();
    assert!((stated..stated + 16_384).contains(&bytes), "{bytes} bytes, stated {stated}");
}

fn main() {
    // Rayon's workers start when the pool is first used, each when the system schedules it, and
    // allocate then. The test waits for that before it counts.
    rayon::broadcast(|_| ());
    for products in [Products::Blas, Products::Native] {
        small_steps(products);
        epochs(products);
        small_steps_of_a_trainer(products);
        epochs_of_a_trainer(products);
        predictions(products);
        gradients(products);
    }
    buffers_have_the_stated_size();
}
