//! Checkpoints: a run that is written, read and continued has the bits of one that was not.

#![cfg(feature = "files")]

use crate::common;

use std::ops::ControlFlow;

use gemmprop::{
    BatchEnd, Bias, Dataset, LearningRate, Loss, Model, Observer, Optimizer, SoftmaxCrossEntropy, SquaredError,
    StopReason, Trainer, TrainingSettings,
    checkpoint::{CheckpointError, Checkpoints, Notes},
};
use ndarray::{Array1, Array2};

/// Data whose last batch is ragged, and labels.
fn data<F: common::Real>() -> (Array2<F>, Array1<usize>) {
    (common::uniform(70, 6, 2), Array1::from_shape_fn(70, |i| (i * i) % 3))
}

/// Stops each time that this number of batches (the first field) has passed.
struct Every(usize, usize);

impl<F: gemmprop::Scalar> Observer<F> for Every {
    fn batch(&mut self, _: &BatchEnd) -> ControlFlow<()> {
        self.1 += 1;
        if self.1.is_multiple_of(self.0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Everything that is equal in two equal runs, which excludes the wall time.
fn state<F: common::Real>(trainer: &Trainer<F, SoftmaxCrossEntropy>) -> (Model<F>, Vec<String>) {
    let timeless = |record: &gemmprop::Record| {
        let mut record = *record;
        record.seconds = 0.0;
        format!("{record:?}")
    };
    (trainer.model().clone(), trainer.history().records.iter().map(timeless).collect())
}

fn goes_on<F: common::Real>(training: &TrainingSettings, constant: Bias, every: usize) {
    let (x, y) = data::<F>();
    let train = Dataset::new(x.view(), y.view());
    let new = || {
        let mlp = common::network::<F>(&[6, 20, 9, 3], constant, 1);
        Trainer::new(mlp, SoftmaxCrossEntropy, training.clone()).unwrap()
    };
    let mut once = new();
    let ended = once.fit(train, None, &mut ()).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let notes = Notes::from([("classes".to_owned(), "a, b, c".to_owned())]);
    checkpoints.save(&new(), &notes).unwrap();
    loop {
        let saved = checkpoints.resume::<F, _>(SoftmaxCrossEntropy).unwrap();
        assert!(saved.damaged.is_empty());
        assert_eq!(saved.notes, notes);
        assert_eq!(saved.blas, gemmprop::blas_description());
        let mut trainer = saved.value;
        let outcome = trainer.fit(train, None, &mut Every(every, 0)).unwrap();
        let path = checkpoints.save(&trainer, &notes).unwrap();
        if outcome != StopReason::Observer {
            assert_eq!(outcome, ended);
            assert_eq!(state(&trainer), state(&once), "{training:?}");
            assert_eq!(checkpoints.model::<F>().unwrap().value, trainer.into_model());
            assert_eq!(Model::<F>::load(path).unwrap(), once.into_model());
            return;
        }
    }
}

fn trainings() -> Vec<TrainingSettings> {
    let base = TrainingSettings { batch: 16, seed: 3, epochs: 4, ..TrainingSettings::default() };
    vec![
        base.clone(),
        TrainingSettings {
            optimizer: Optimizer::Momentum { mu: 0.9 },
            weight_decay: 1e-2,
            shuffle: false,
            ..base.clone()
        },
        TrainingSettings {
            optimizer: Optimizer::Nesterov { mu: 0.8 },
            learning_rate: LearningRate::on_plateau(1.5, 0.5, 0),
            validation_fraction: Some(0.2),
            standardize: true,
            ..base.clone()
        },
        TrainingSettings {
            optimizer: Optimizer::adam(),
            learning_rate: LearningRate::cosine(0.05, 0.001).warm_up(5),
            clip_norm: Some(0.3),
            early_stopping: Some(2),
            validation_fraction: Some(0.3),
            epochs: 30,
            ..base.clone()
        },
        TrainingSettings { sam: Some(0.1), ..base.clone() },
        // In f32 the decay is accumulated for six steps and applied in the seventh.
        TrainingSettings { weight_decay: 5e-5, ..base.clone() },
        TrainingSettings {
            optimizer: Optimizer::adam(),
            sam: Some(0.1),
            clip_norm: Some(0.3),
            standardize: true,
            ..base
        },
    ]
}

#[test]
fn a_run_goes_on_from_any_batch_with_the_same_bits() {
    let constants = [Bias::Input, Bias::EveryLayer, Bias::None, Bias::EveryLayer];
    for (training, constant) in trainings().iter().zip(constants.into_iter().cycle()) {
        for every in [1, 3, 5, 7] {
            goes_on::<f32>(training, constant, every);
            goes_on::<f64>(training, constant, every);
        }
    }
}

/// The notes and the run come from one read: later changes to the file do not matter.
#[test]
fn what_was_read_gives_its_notes_and_then_its_run() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let (x, y) = data::<f32>();
    let mlp = common::network::<f32>(&[6, 20, 9, 3], Bias::Input, 1);
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings::default()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut Every(4, 0)).unwrap();
    let notes = Notes::from([("loss".to_owned(), "softmax".to_owned())]);
    checkpoints.save(&trainer, &notes).unwrap();
    let saved = checkpoints.read().unwrap();
    directory.close().unwrap();
    assert_eq!((saved.notes, saved.blas.as_str()), (notes, gemmprop::blas_description()));
    let mut resumed = saved.value.trainer::<f32, _>(SoftmaxCrossEntropy).unwrap();
    for trainer in [&mut resumed, &mut trainer] {
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    }
    assert_eq!(state(&resumed), state(&trainer));
}

#[test]
fn a_run_that_is_over_can_be_given_more_epochs() {
    let (x, y) = data::<f32>();
    let train = Dataset::new(x.view(), y.view());
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let run = |epochs| {
        let mlp = common::network::<f32>(&[6, 20, 9, 3], Bias::Input, 1);
        let mut trainer =
            Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings { epochs, ..TrainingSettings::default() }).unwrap();
        trainer.fit(train, None, &mut ()).unwrap();
        trainer
    };
    checkpoints.save(&run(3), &Notes::new()).unwrap();
    let mut trainer = checkpoints.resume::<f32, _>(SoftmaxCrossEntropy).unwrap().value;
    trainer.set_epochs(5);
    trainer.fit(train, None, &mut ()).unwrap();
    assert_eq!(state(&trainer), state(&run(5)));
}

/// If the newest checkpoint is damaged, the one before is used, and the damage is reported.
#[test]
fn a_damaged_newest_falls_back_to_the_one_before_and_says_so() {
    let (x, y) = data::<f64>();
    let train = Dataset::new(x.view(), y.view());
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let mlp = common::network::<f64>(&[6, 20, 9, 3], Bias::Input, 1);
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, trainings()[3].clone()).unwrap();
    let mut once = None;
    let mut newest = None;
    for _ in 0..2 {
        once = Some(state(&trainer));
        trainer.fit(train, None, &mut Every(3, 0)).unwrap();
        newest = Some(checkpoints.save(&trainer, &Notes::new()).unwrap());
    }
    let newest = newest.unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let saved = checkpoints.resume::<f64, _>(SoftmaxCrossEntropy).unwrap();
    assert_eq!(Some(state(&saved.value)), once);
    assert_eq!(saved.damaged.len(), 1);
    assert_eq!(saved.damaged[0].path.file_name(), newest.file_name());
}

#[test]
fn a_checkpoint_of_another_kind_is_refused_with_both_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let mlp = common::network::<f64>(&[6, 20, 9, 3], Bias::Input, 1);
    checkpoints
        .save(&Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings::default()).unwrap(), &Notes::new())
        .unwrap();
    let error = checkpoints.resume::<f32, _>(SoftmaxCrossEntropy).unwrap_err();
    assert!(matches!(&error, CheckpointError::Mismatch { .. }));
    assert!(error.to_string().ends_with("0.weight: expected F32 [20, 6], found F64 [20, 6]"), "{error}");
    drop(checkpoints);
    assert!(matches!(Checkpoints::create(directory.path()).unwrap_err(), CheckpointError::Used { .. }));
}

/// A run trained with one loss does not resume with another by mistake, although the network's
/// number of outputs suits both.
#[test]
fn a_run_does_not_go_on_with_another_loss() {
    /// A custom loss with type parameters.
    #[derive(Debug)]
    struct Own<T>(T);

    impl<F: gemmprop::Scalar, T: Send + Sync> Loss<F> for Own<T> {
        type Target = F;

        fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
            SquaredError.value_and_derivative(y_hat, y, d)
        }
    }

    fn saved<L: Loss<f32>>(loss: L) -> (tempfile::TempDir, Checkpoints) {
        let directory = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::create(directory.path()).unwrap();
        let mlp = common::network::<f32>(&[2, 3, 1], Bias::Input, 1);
        checkpoints.save(&Trainer::new(mlp, loss, TrainingSettings::default()).unwrap(), &Notes::new()).unwrap();
        (directory, checkpoints)
    }

    let (_guard, squared) = saved(SquaredError);
    squared.resume::<f32, _>(SquaredError).unwrap();
    let error = squared.resume::<f32, _>(gemmprop::Logistic).unwrap_err();
    assert!(matches!(error, CheckpointError::Mismatch { .. }));
    assert!(error.to_string().ends_with(": loss: expected squared_error, found logistic"), "{error}");
    let error = squared.resume::<f32, _>(Own(1.0)).unwrap_err();
    assert!(error.to_string().ends_with(": loss: expected squared_error, found Own"), "{error}");
    let error = squared.resume::<f32, _>(SoftmaxCrossEntropy).unwrap_err();
    assert!(error.to_string().ends_with(": loss: expected squared_error, found softmax_cross_entropy"), "{error}");
    let (_guard, own) = saved(Own(SquaredError));
    own.resume::<f32, _>(Own(SquaredError)).unwrap();
    let error = own.resume::<f32, _>(SquaredError).unwrap_err();
    assert!(error.to_string().ends_with(": loss: expected Own, found squared_error"), "{error}");
}

/// If two trainers resumed one run, one would overwrite what the other has learned.
#[test]
fn one_run_at_a_time_goes_on_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = Checkpoints::create(directory.path()).unwrap();
    let mlp = common::network::<f32>(&[6, 20, 9, 3], Bias::Input, 1);
    let trainer = Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings::default()).unwrap();
    first.save(&trainer, &Notes::new()).unwrap();
    let second = Checkpoints::open(directory.path()).unwrap();
    let in_use = |error: CheckpointError| matches!(error, CheckpointError::InUse { directory: found } if found == directory.path());
    assert!(in_use(second.resume::<f32, _>(SoftmaxCrossEntropy).unwrap_err()));
    assert!(in_use(second.save(&trainer, &Notes::new()).unwrap_err()));
    assert!(in_use(Checkpoints::create(directory.path()).unwrap_err()));
    // Reading is still allowed.
    assert_eq!(&second.model::<f32>().unwrap().value, trainer.model());
    second.read().unwrap();
    drop(first);
    second.resume::<f32, _>(SoftmaxCrossEntropy).unwrap();
    let third = Checkpoints::open(directory.path()).unwrap();
    assert!(in_use(third.lock().unwrap_err()));
    drop(second);
    third.lock().unwrap();
}

/// A network that has hardly been trained also predicts, so taking it by mistake would go
/// unnoticed.
#[test]
fn a_prediction_does_not_fall_back_to_an_older_network() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    let (x, y) = data::<f32>();
    let mlp = common::network::<f32>(&[6, 20, 9, 3], Bias::Input, 1);
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings::default()).unwrap();
    let untrained = trainer.model().clone();
    let older = checkpoints.save(&trainer, &Notes::new()).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    let newest = checkpoints.save(&trainer, &Notes::new()).unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() - 1]).unwrap();
    let error = checkpoints.model::<f32>().unwrap_err();
    let length = bytes.len();
    let expected = format!(
        "{}: expected {length} bytes by its header, found {}; the newest whole checkpoint is {}, for a caller that names it",
        newest.display(),
        length - 1,
        older.display(),
    );
    assert_eq!(error.to_string(), expected);
    let CheckpointError::NewestDamaged { damaged, whole } = error else { panic!("{error}") };
    assert_eq!((damaged.len(), &damaged[0].path), (1, &newest));
    assert_eq!(Model::load(whole).unwrap(), untrained);
}

/// A file that version 0.1.0 wrote before the history was data: 2 epochs and 2 batches.
#[test]
fn a_file_of_the_format_before_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("step-000000000010.safetensors"),
        include_bytes!("checkpoint/format-1.safetensors"),
    )
    .unwrap();
    let checkpoints = Checkpoints::open(directory.path()).unwrap();
    let saved = checkpoints.resume::<f64, _>(SoftmaxCrossEntropy).unwrap();
    assert_eq!(saved.notes["classes"], "a, b, c");
    let mut trainer = saved.value;
    let records = trainer.history().records.clone();
    let losses: Vec<_> = records.iter().map(|record| (record.epoch, record.loss, record.validation_loss)).collect();
    assert_eq!(
        losses,
        [
            (1, 1.608_285_462_417_734_3, Some(1.504_812_821_854_277_3)),
            (2, 1.517_934_871_667_474, Some(1.448_025_837_243_495)),
        ]
    );
    assert_eq!(trainer.steps(), 10);
    let x = Array2::from_shape_fn((20, 2), |(i, j)| ((i * 7 + j * 3) % 11) as f64);
    let y = Array1::from_shape_fn(20, |i| i % 3);
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.history().records[..2], records);
    // When it is written again, it has the current format.
    checkpoints.save(&trainer, &Notes::new()).unwrap();
    assert_eq!(checkpoints.resume::<f64, _>(SoftmaxCrossEntropy).unwrap().value.history(), trainer.history());
}

#[test]
fn a_file_of_another_program_is_not_called_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let header = br#"{"__metadata__":{"format":"pt"},"0.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#;
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat()).unwrap();
    let error = Model::<f32>::load(&path).unwrap_err();
    assert!(matches!(&error, CheckpointError::Foreign { path: found } if *found == path));
    let text = "expected a checkpoint of this crate, found a safetensors file that another program wrote";
    assert_eq!(error.to_string(), format!("{}: {text}", path.display()));
}

/// ½ (1.3 · 10¹⁵⁴)² = 8.45 · 10³⁰⁷ is finite, and three times that is not: the sum of the losses is
/// infinite, for which JSON has no number.
#[test]
fn a_run_whose_losses_add_up_to_infinity_can_be_resumed() {
    let (x, y) = (Array2::<f64>::zeros((4, 1)), Array1::from_elem(4, 1.3e154));
    let training = TrainingSettings {
        batch: 1,
        epochs: 1,
        learning_rate: LearningRate::constant(1e-300),
        ..TrainingSettings::default()
    };
    let mlp = gemmprop::Mlp::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    let data = Dataset::new(x.view(), y.view());
    assert_eq!(trainer.fit(data, None, &mut Every(3, 0)), Ok(StopReason::Observer));
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::create(directory.path()).unwrap();
    checkpoints.save(&trainer, &Notes::new()).unwrap();
    let mut resumed = checkpoints.resume::<f64, _>(SquaredError).unwrap().value;
    trainer.fit(data, None, &mut ()).unwrap();
    resumed.fit(data, None, &mut ()).unwrap();
    assert_eq!(resumed.model(), trainer.model());
    assert_eq!(resumed.history().records[0].loss, f64::INFINITY);
}

/// The lines of the module's documentation, run by a Python that has PyTorch: the environment
/// variable `PYTHON` names it.
#[test]
#[ignore = "needs Python with PyTorch and safetensors; ci/peers has them and runs it"]
fn pytorch_computes_the_same_from_a_checkpoint_by_the_documented_lines() {
    let python = std::env::var_os("PYTHON").expect("PYTHON: the path of a Python with PyTorch");
    let source = include_str!("../../src/checkpoint/state.rs");
    let (_, rest) = source.split_once("//! ```python\n").unwrap();
    let (lines, _) = rest.split_once("//! ```\n").unwrap();
    let line = |line: &str| format!("{}\n", line.strip_prefix("//! ").unwrap_or(""));
    let documented: String = lines.lines().map(line).collect();
    let directory = tempfile::tempdir().unwrap();
    let x = common::uniform::<f32>(64, 784, 3);
    let y = Array1::from_shape_fn(64, |i| i % 10);
    for standardize in [false, true] {
        let mlp = common::network::<f32>(&[784, 512, 512, 10], Bias::Input, 1);
        let training = TrainingSettings { standardize, epochs: 1, ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
        let run = directory.path().join("run");
        _ = std::fs::remove_dir_all(&run);
        Checkpoints::create(&run).unwrap().save(&trainer, &Notes::new()).unwrap();
        ndarray_npy::write_npy(directory.path().join("x.npy"), &x).unwrap();
        let program = format!(
            "import numpy, torch\nx = torch.from_numpy(numpy.load('x.npy'))\n{documented}\n\
             numpy.save('y_hat.npy', net(x).detach().numpy())\n"
        );
        let output =
            std::process::Command::new(&python).args(["-c", &program]).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: Array2<f32> = ndarray_npy::read_npy(directory.path().join("y_hat.npy")).unwrap();
        let ours = trainer.model().predict(x.view()).unwrap();
        // Both round: forward error bounds of the same sums in another order (γ of the longest sum,
        // on the absolute values).
        let mut magnitude = x.mapv(f32::abs);
        if let Some(standardizer) = &trainer.model().standardizer {
            magnitude = standardizer.transform(x.view()).unwrap().mapv(f32::abs);
        }
        let theta = trainer.model().mlp.parameters();
        for (w, c) in theta.w().iter().zip(theta.c()) {
            magnitude = magnitude.dot(&w.mapv(f32::abs).t());
            if !c.is_empty() {
                magnitude += &c.mapv(f32::abs);
            }
        }
        magnitude = magnitude.dot(&theta.alpha().mapv(f32::abs).t()) + theta.b().mapv(f32::abs);
        let terms = 2 * (785 + 512 + 513 + 3);
        let bound = magnitude.mapv(|m| common::gamma(terms, <f32 as common::Real>::U) as f32 * m);
        for ((ours, theirs), bound) in ours.iter().zip(&theirs).zip(&bound) {
            assert!((ours - theirs).abs() <= *bound, "{ours} and {theirs}, at most {bound} apart");
        }
    }
}
