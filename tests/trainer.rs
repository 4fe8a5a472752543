//! The trainer: what it repeats bit for bit, where it stops, and what it keeps.

mod common;

use gemmprop::{Constant, Dataset, LearningRate, Mlp, Optimizer, Sgd, SoftmaxCrossEntropy, Trainer, Training};
use ndarray::{Array1, Array2};

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
