//! What a file that somebody else has changed can do: its checksum is right, and its contents are not ours.

use std::ops::ControlFlow;

use ndarray::{Array1, Array2};
use proptest::prelude::*;

use super::*;
use crate::dataset::Dataset;
use crate::learning_rate::LearningRate;
use crate::loss::SoftmaxCrossEntropy;
use crate::observer::{Batch, Observer};
use crate::optimizer::Optimizer;

/// Stops after the ninth batch, whatever the settings have become.
struct Nine(usize);

impl Observer<f64> for Nine {
    fn batch(&mut self, _: &Batch) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 < 9 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// A run in its second epoch, with everything that a file can hold.
fn written(checkpoints: &Checkpoints) -> Contents {
    let mlp = Mlp::<f64>::he(&[6, 5, 3], Constant::Input, 1).unwrap();
    let training = Training {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::on_plateau(0.1, 0.5, 1).warm_up(3),
        batch: 7,
        standardize: true,
        validation_fraction: Some(0.25),
        early_stopping: Some(3),
        ..Training::default()
    };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let (x, y) = data();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut Nine(0)).unwrap();
    assert!(trainer.position.epoch == 1 && trainer.position.batch > 0 && trainer.best.is_some());
    checkpoints.save(&trainer, &Notes::from([("a".into(), "b".into())])).unwrap();
    checkpoints.newest().unwrap().0
}

fn data() -> (Array2<f64>, Array1<usize>) {
    (Array2::from_shape_fn((50, 6), |(i, j)| ((i * 7 + j * 3) % 11) as f64), Array1::from_shape_fn(50, |i| i % 3))
}

/// A run or an error: no panic, no endless loop. The run must go on, too.
fn resumes_or_refuses(checkpoints: &Checkpoints, contents: &Contents) {
    checkpoints.write(u64::MAX, contents).unwrap();
    if let Ok(saved) = checkpoints.resume::<f64, _>(SoftmaxCrossEntropy) {
        let mut trainer = saved.value;
        trainer.training.epochs = trainer.training.epochs.min(100);
        let (x, y) = data();
        _ = trainer.fit(Dataset::new(x.view(), y.view()), None, &mut Nine(0));
    }
    _ = checkpoints.model::<f64>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_fact_makes_no_panic(fact in 0_usize..9, at in 0.0..1.0, by in prop::sample::select(b"0123456789-e.,\"[]{}:nul".to_vec())) {
        let directory = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::create(directory.path()).unwrap();
        let mut contents = written(&checkpoints);
        let text = contents.facts.values_mut().nth(fact).unwrap();
        let mut bytes = std::mem::take(text).into_bytes();
        let i = (at * bytes.len() as f64) as usize;
        bytes[i] = by;
        *text = String::from_utf8_lossy(&bytes).into_owned();
        resumes_or_refuses(&checkpoints, &contents);
    }
}

/// As an older version wrote it.
#[test]
fn a_standardisation_in_the_numbers_of_the_network_is_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let standardizer = Standardizer { mean: Array1::from(vec![0.5]), factor: Array1::from(vec![2.0]) };
    let mlp = Mlp::<f32>::he(&[1, 2], Constant::Input, 1).unwrap();
    let model = Model { mlp, standardizer: Some(standardizer) };
    let trainer = Trainer::new(model.clone(), SoftmaxCrossEntropy, Training::default()).unwrap();
    checkpoints.save(&trainer, &Notes::new()).unwrap();
    let mut contents = checkpoints.newest().unwrap().0;
    for (name, number) in [("standardizer.mean", 0.5_f32), ("standardizer.factor", 2.0)] {
        contents.tensors.insert(name.into(), tensor([number].iter(), vec![1]));
    }
    checkpoints.write(1, &contents).unwrap();
    assert_eq!(checkpoints.model::<f32>().unwrap().value, model);
}

#[test]
fn whatever_is_missing_or_of_another_shape_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let whole = written(&checkpoints);
    for name in whole.facts.keys().filter(|name| *name != "note.a") {
        let mut contents = whole.clone();
        contents.facts.remove(name);
        checkpoints.write(u64::MAX, &contents).unwrap();
        let error = checkpoints.resume::<f64, _>(SoftmaxCrossEntropy).unwrap_err();
        assert!(error.to_string().contains(name.as_str()), "{name}: {error}");
    }
    for name in whole.tensors.keys() {
        let mut contents = whole.clone();
        let tensor = contents.tensors.get_mut(name).unwrap();
        tensor.shape.insert(0, 1);
        checkpoints.write(u64::MAX, &contents).unwrap();
        let error = checkpoints.resume::<f64, _>(SoftmaxCrossEntropy).unwrap_err();
        assert!(error.to_string().contains(name.as_str()), "{name}: {error}");
    }
}
