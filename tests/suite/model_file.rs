//! A model as a file of its own: it predicts as it did, and has nothing of its training.

#![cfg(feature = "files")]

use crate::common;

use gemmprop::checkpoint::{CheckpointError, Checkpoints, Notes, Stored};
use gemmprop::{
    Bias, Dataset, Model, Optimizer, Products, SoftmaxCrossEntropy, Standardizer, Trainer, TrainingSettings,
};
use ndarray::{Array1, Array2};

fn models<F: common::Real>() -> Vec<Model<F>> {
    let x = common::uniform::<F>(20, 4, 1);
    let mut models = Vec::new();
    for (bias, products) in
        [(Bias::Input, Products::Auto), (Bias::EveryLayer, Products::Native), (Bias::None, Products::Auto)]
    {
        for standardizer in [None, Some(Standardizer::fit(&x).unwrap())] {
            let mlp = common::network::<F>(&[4, 7, 5, 3], bias, 3).with_products(products).unwrap();
            models.push(Model { mlp, standardizer });
        }
    }
    models
}

fn comes_back<F: common::Real>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    for model in models::<F>() {
        model.save(&path).unwrap();
        assert_eq!(Model::<F>::load(&path).unwrap(), model);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes, model.to_bytes().unwrap());
        assert_eq!(Model::<F>::from_bytes(&bytes).unwrap(), model);
    }
    // Nothing else is left in the folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_model_comes_back_from_its_file_and_from_its_bytes() {
    comes_back::<f32>();
    comes_back::<f64>();
}

/// A trained run: Adam, whose moments are twice the parameters, early stopping and a history.
fn trained() -> Trainer<f32, SoftmaxCrossEntropy> {
    let (x, y) = (common::uniform::<f32>(60, 4, 1), Array1::from_shape_fn(60, |i| i % 3));
    let training = TrainingSettings {
        optimizer: Optimizer::adam(),
        learning_rate: 0.01.into(),
        standardize: true,
        early_stopping: Some(9),
        ..TrainingSettings::default()
    };
    let mlp = common::network::<f32>(&[4, 30, 30, 3], Bias::EveryLayer, 1);
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    trainer.fit(Dataset::new(&x, &y), None, ()).unwrap();
    trainer
}

#[test]
fn what_is_loaded_from_a_checkpoint_is_its_model() {
    let (trainer, folder) = (trained(), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoints::create(folder.path()).unwrap().save(&trainer, &Notes::new()).unwrap();
    let model = Model::<f32>::load(&checkpoint).unwrap();
    assert_eq!(model, *trainer.model());
    assert_eq!(Model::<f32>::from_bytes(&std::fs::read(&checkpoint).unwrap()).unwrap(), model);

    // Without moments, the best epoch and a history, it is a quarter of the checkpoint.
    let path = folder.path().join("net.safetensors");
    model.save(&path).unwrap();
    let [whole, alone] = [&checkpoint, &path].map(|path| std::fs::read(path).unwrap());
    assert!(4 * alone.len() < whole.len() + 4096, "{} and {} bytes", alone.len(), whole.len());
    let names = safetensors_names(&alone);
    assert_eq!(
        names,
        ["0.bias", "0.weight", "2.bias", "2.weight", "4.bias", "4.weight", "standardizer.factor", "standardizer.mean"]
    );
}

/// The names of the tensors, by the header of the format alone.
fn safetensors_names(bytes: &[u8]) -> Vec<String> {
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let mut names: Vec<String> = header
        .match_indices(":{\"dtype\"")
        .map(|(at, _)| header[..at].rsplit('"').nth(1).unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_not_a_run() {
    let (trainer, folder) = (trained(), tempfile::tempdir().unwrap());
    let path = folder.path().join("net.safetensors");
    trainer.model().save(&path).unwrap();
    let stored = Stored::load(&path).unwrap().value;
    assert_eq!(stored.best_model::<f32>().unwrap(), None);
    let error = stored.trainer::<f32, _>(SoftmaxCrossEntropy).unwrap_err().to_string();
    assert!(
        error.ends_with("contents: expected a run, found a model without its run, which Model::load reads"),
        "{error}"
    );
}

#[test]
fn other_numbers_damage_and_places_without_a_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let model = models::<f32>().remove(1);
    model.save(&path).unwrap();
    let error = Model::<f64>::load(&path).unwrap_err();
    assert!(matches!(&error, CheckpointError::Mismatch { .. }), "{error}");
    assert!(error.to_string().ends_with("0.weight: expected F64 [7, 4], found F32 [7, 4]"), "{error}");

    let mut bytes = model.to_bytes().unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = Model::<f32>::from_bytes(&bytes).unwrap_err();
    assert!(matches!(&error, CheckpointError::Damaged(damaged) if damaged.path.as_os_str() == "bytes"), "{error}");
    let error = Model::<f32>::from_bytes(&bytes[..100]).unwrap_err();
    assert!(matches!(&error, CheckpointError::Damaged(_)), "{error}");

    assert!(matches!(model.save(folder.path().join("..")), Err(CheckpointError::Io { .. })));
    let error = model.save(folder.path().join("none/net.safetensors")).unwrap_err();
    assert!(matches!(&error, CheckpointError::Io { path, .. } if path.starts_with(folder.path())), "{error}");
    let x = Array2::<f32>::zeros((1, 4));
    assert_eq!(Model::load(&path).unwrap().predict(&x).unwrap(), model.predict(&x).unwrap());
}
