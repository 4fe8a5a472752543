//! What `ci/sanitize` runs under Miri, the thread sanitizer and valgrind: the fork–join, the tiles
//! of matrices and the kernels with their own tests, and short trainings on two threads.

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/kernels/mod.rs"]
mod kernels;

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/parallel/fork_join.rs"]
mod fork_join;

#[path = "../../src/parallel/fork_join_tests.rs"]
mod fork_join_tests;

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/parallel/panel_set.rs"]
mod panel_set;

#[path = "../../src/parallel/panel_set_tests.rs"]
mod panel_set_tests;

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/parallel/sync.rs"]
mod sync;

/// The names that these files have in the crate.
mod parallel {
    pub(crate) use crate::{fork_join, panel_set, sync};
}

use gemmprop::curvature::Hessian;
use gemmprop::{
    Bias, Dataset, LearningRate, Mlp, Optimizer, Products, Scalar, SoftmaxCrossEntropy, Trainer, TrainingSettings,
    set_threads,
};
use ndarray::{Array1, Array2};

/// Trains for a few steps, the last of each epoch smaller; then predicts, and multiplies with the
/// Hessian.
fn train<F: Scalar>(products: Products, training: &TrainingSettings) {
    // Under Miri a multiplication takes a microsecond. Elsewhere, layers are wide enough for phases
    // that two threads share.
    let (widths, batch): (&[usize], usize) = if cfg!(miri) { (&[3, 17, 3], 4) } else { (&[64, 200, 256, 3], 64) };
    let Ok(mlp) = Mlp::<F>::he(widths, Bias::EveryLayer, 1).unwrap().with_products(products) else {
        return println!("no {products:?} in this build");
    };
    let samples = 2 * batch + 1;
    let x =
        Array2::from_shape_fn((samples, widths[0]), |(i, j)| F::from_f64(((i * 31 + j * 17) % 97) as f64 / 48.5 - 1.0));
    let labels = Array1::from_shape_fn(samples, |i| i % 3);
    let training = TrainingSettings { epochs: 2, batch, standardize: true, ..training.clone() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let data = || Dataset::new(x.view(), labels.view());
    trainer.fit(data(), Some(data()), &mut ()).unwrap();
    assert_eq!(trainer.steps(), 6);
    let model = trainer.into_model();
    assert!(model.predict(x.view()).unwrap().iter().all(|y| y.is_finite()));
    let mut hessian = Hessian::new(&model, data(), &SoftmaxCrossEntropy).unwrap();
    let (g, mut hg) = (hessian.gradient().clone(), model.mlp.zero_gradient());
    hessian.apply(&g, &mut hg).unwrap();
    assert!(hg.iter().all(|hg| hg.is_finite()));
}

fn trainings() -> [TrainingSettings; 4] {
    let eta = |eta| TrainingSettings { learning_rate: LearningRate::constant(eta), ..TrainingSettings::default() };
    [
        eta(0.01),
        TrainingSettings { clip_norm: Some(0.1), optimizer: Optimizer::Momentum { mu: 0.9 }, ..eta(0.01) },
        TrainingSettings { optimizer: Optimizer::adam(), weight_decay: 0.01, ..eta(0.001) },
        TrainingSettings { sam: Some(0.05), ..eta(0.01) },
    ]
}

#[test]
fn native_training() {
    set_threads(Some(2));
    trainings().iter().for_each(|training| train::<f32>(Products::Native, training));
    train::<f64>(Products::Native, &trainings()[0]);
}

#[test]
fn training_over_blas() {
    set_threads(Some(2));
    trainings().iter().for_each(|training| train::<f32>(Products::Blas, training));
    train::<f64>(Products::Blas, &trainings()[0]);
}
