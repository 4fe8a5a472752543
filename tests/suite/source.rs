//! Samples that are read when they are needed: their runs have the bits of runs on data in memory.

#![cfg(feature = "files")]

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gemmprop::checkpoint::Checkpoints;
use gemmprop::data::{FileSource, ReadError, RowsFile};
use gemmprop::{
    BatchEnd, Bias, Dataset, Error, FitError, LearningRate, Logistic, Loss, Mlp, Optimizer, SoftmaxCrossEntropy,
    Source, SquaredError, StopReason, Trainer, TrainingSettings, on_batch,
};
use ndarray::{Array1, Array2, ArrayViewMut1, ArrayViewMut2, s};
use proptest::prelude::*;

use crate::common::{self, Real};

const N: usize = 300;

/// Bits of θ, and of what the history has but for the time.
fn outcome<F: Real, L: Loss<F>>(trainer: &Trainer<F, L>) -> Vec<u64> {
    let theta = trainer.model().mlp.parameters().iter().map(|p| p.to_f64().to_bits());
    let records = trainer.history().records.iter().flat_map(|record| {
        let validation = record.validation_loss.unwrap_or(-1.0);
        [record.loss, validation, record.learning_rate, record.gradient_norm].map(f64::to_bits)
    });
    theta.chain(records).collect()
}

fn inputs<F: Real>() -> Array2<F> {
    common::uniform(N, 9, 1)
}

fn trainings() -> Vec<TrainingSettings> {
    let base = TrainingSettings {
        epochs: 3,
        batch: 16,
        learning_rate: LearningRate::constant(0.05),
        ..TrainingSettings::default()
    };
    vec![
        base.clone(),
        TrainingSettings { shuffle: false, ..base.clone() },
        TrainingSettings { shuffle_block: Some(7), standardize: true, ..base.clone() },
        TrainingSettings {
            validation_fraction: Some(0.2),
            standardize: true,
            optimizer: Optimizer::adam(),
            ..base.clone()
        },
        TrainingSettings { sam: Some(0.05), clip_norm: Some(0.1), batch: 45, shuffle_block: Some(N), ..base.clone() },
        TrainingSettings {
            batch: 1000,
            optimizer: Optimizer::Momentum { mu: 0.9 },
            weight_decay: 0.01,
            ..base.clone()
        },
        TrainingSettings { batch: 1, epochs: 1, early_stopping: Some(1), validation_fraction: Some(0.5), ..base },
    ]
}

fn run_both<F: Real, L: Loss<F, Target: Default> + Clone, S: Source<F, L::Target>>(
    mlp: &Mlp<F>,
    loss: &L,
    training: &TrainingSettings,
    data: Dataset<'_, F, L::Target>,
    source: &S,
) -> [Vec<u64>; 2] {
    let new = || Trainer::new(mlp.clone(), loss.clone(), training.clone()).unwrap();
    let (mut expected, mut found) = (new(), new());
    expected.fit(data, None, ()).unwrap();
    found.fit_source(source, None, ()).unwrap();
    [outcome(&expected), outcome(&found)]
}

fn a_source_has_the_bits_of_memory<F: Real>() {
    let (x, y) = (inputs::<F>(), common::uniform::<F>(N, 2, 2));
    let labels = Array1::from_shape_fn(N, |i| i % 3);
    let weights = Array1::from_shape_fn(N, |i| F::from_f64((i % 4) as f64));
    for products in common::both_products() {
        for training in trainings() {
            let mlp = common::network::<F>(&[9, 20, 11, 2], Bias::EveryLayer, 3).with_products(products).unwrap();
            let data = Dataset::new(&x, &y).weights(&weights);
            let [expected, found] = run_both(&mlp, &SquaredError, &training, data, &data);
            assert_eq!(found, expected, "{products:?} {training:?}");
            let mlp = common::network::<F>(&[9, 20, 3], Bias::Input, 3).with_products(products).unwrap();
            let data = Dataset::new(&x, &labels);
            let [expected, found] = run_both(&mlp, &SoftmaxCrossEntropy, &training, data, &data);
            assert_eq!(found, expected, "{products:?} {training:?}");
        }
    }
}

#[test]
fn runs_have_the_bits_of_data_in_memory_in_single_precision() {
    a_source_has_the_bits_of_memory::<f32>();
}

#[test]
fn runs_have_the_bits_of_data_in_memory_in_double_precision() {
    a_source_has_the_bits_of_memory::<f64>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn runs_of_random_shapes_have_the_bits_of_data_in_memory(
        samples in 2_usize..400,
        batch in 1_usize..70,
        inputs in 1_usize..40,
        block in 1_usize..90,
        standardize: bool,
        stop in 0_usize..30,
    ) {
        let (x, y) = (common::uniform::<f32>(samples, inputs, 1), common::uniform::<f32>(samples, 1, 2));
        let data = Dataset::new(&x, &y);
        let training = TrainingSettings { epochs: 2, batch, standardize, shuffle_block: Some(block), ..TrainingSettings::default() };
        let training = TrainingSettings { learning_rate: LearningRate::constant(1e-3), ..training };
        let new = || Trainer::new(common::network(&[inputs, 8, 1], Bias::Input, 3), SquaredError, training.clone());
        let (mut expected, mut found) = (new().unwrap(), new().unwrap());
        expected.fit(data, None, ()).unwrap();
        let mut steps = 0;
        let stopped = found.fit_source(&data, None, on_batch(|_: &BatchEnd| {
            steps += 1;
            if steps == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })).unwrap();
        if stopped == StopReason::Observer {
            found.fit_source(&data, None, ()).unwrap();
        }
        prop_assert_eq!(outcome(&found), outcome(&expected));
    }
}

/// More samples than a chunk has, so that several are read, and then data of which a chunk holds
/// one batch.
#[test]
fn runs_of_many_chunks_have_the_bits_of_data_in_memory() {
    for (samples, inputs, batch) in [(64 * 3 * 5 + 1, 2, 3), (50, 300_000, 7)] {
        let (x, y) = (common::uniform::<f32>(samples, inputs, 1), common::uniform::<f32>(samples, 1, 2));
        let data = Dataset::new(&x, &y);
        let learning_rate = LearningRate::constant(1e-7);
        let training =
            TrainingSettings { epochs: 2, batch, learning_rate, standardize: true, ..TrainingSettings::default() };
        let mlp = common::network::<f32>(&[inputs, 2, 1], Bias::Input, 3);
        let [expected, found] = run_both(&mlp, &SquaredError, &training, data, &data);
        assert_eq!(found, expected, "{samples} {inputs} {batch}");
    }
}

/// A `.npy` file of rows.
fn write_npy(path: &Path, dtype: &str, shape: &str, numbers: impl IntoIterator<Item = Vec<u8>>) {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.into_bytes());
    bytes.extend(numbers.into_iter().flatten());
    fs::write(path, bytes).unwrap();
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        let x = inputs::<f32>();
        write_npy(&files.path("x.npy"), ">f4", "(300, 9)", x.iter().map(|x| x.to_be_bytes().to_vec()));
        write_npy(&files.path("labels.npy"), "<i8", "(300,)", (0..N).map(|i| (i as i64 % 3).to_le_bytes().to_vec()));
        write_npy(&files.path("weights.npy"), "<f8", "(300,)", (0..N).map(|i| (i % 4) as f64).map(f64_bytes));
        let mut idx = vec![0, 0, 8, 3];
        [N as u32, 3, 3].iter().for_each(|d| idx.extend(d.to_be_bytes()));
        idx.extend((0..9 * N).map(|i| (i * 89 % 251) as u8));
        fs::write(files.path("images"), idx).unwrap();
        let mut idx = vec![0, 0, 8, 1];
        idx.extend((N as u32).to_be_bytes());
        idx.extend((0..N).map(|i| (i % 3) as u8));
        fs::write(files.path("labels"), idx).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> Result<RowsFile, ReadError> {
        RowsFile::open(self.path(name))
    }

    fn source(&self) -> FileSource {
        FileSource::new(self.open("x.npy").unwrap(), self.open("labels.npy").unwrap()).unwrap()
    }
}

fn f64_bytes(number: f64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

#[test]
fn files_have_the_bits_of_data_in_memory() {
    let files = Files::new();
    let weights = Array1::from_shape_fn(N, |i| (i % 4) as f32);
    let images = gemmprop::data::idx_images::<f32>(files.path("images")).unwrap();
    let labels = gemmprop::data::npy_labels(files.path("labels.npy")).unwrap();
    let x = inputs::<f32>();
    let mlp = common::network::<f32>(&[9, 20, 3], Bias::Input, 3);
    for training in trainings() {
        let source = files.source().weights(files.open("weights.npy").unwrap()).unwrap();
        let data = Dataset::new(&x, &labels).weights(&weights);
        let [expected, found] = run_both(&mlp, &SoftmaxCrossEntropy, &training, data, &source);
        assert_eq!(found, expected, "{training:?}");
        let source = FileSource::new(files.open("images").unwrap(), files.open("labels").unwrap()).unwrap();
        let data = Dataset::new(&images, &labels);
        let [expected, found] = run_both(&mlp, &SoftmaxCrossEntropy, &training, data, &source);
        assert_eq!(found, expected, "{training:?}");
    }
    // Numbers as targets, from the same file.
    let source = FileSource::new(files.open("x.npy").unwrap(), files.open("weights.npy").unwrap()).unwrap();
    let mlp = common::network::<f32>(&[9, 20, 1], Bias::Input, 3);
    let y = weights.mapv(f32::from);
    let [expected, found] = run_both(&mlp, &SquaredError, &trainings()[2], Dataset::new(&x, &y), &source);
    assert_eq!(found, expected);
}

#[test]
fn a_checkpoint_is_resumed_from_files() {
    let files = Files::new();
    let source = files.source();
    let training = TrainingSettings {
        epochs: 3,
        batch: 16,
        shuffle_block: Some(20),
        standardize: true,
        ..TrainingSettings::default()
    };
    let mlp = common::network::<f32>(&[9, 20, 3], Bias::Input, 3);
    let mut expected = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    expected.fit_source(&source, None, ()).unwrap();

    let mut steps = 0;
    let mut first = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let stop = on_batch(|_: &BatchEnd| {
        steps += 1;
        if steps == 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(first.fit_source(&source, None, stop).unwrap(), StopReason::Observer);
    let folder = files.path("run");
    Checkpoints::create(&folder).unwrap().save(&first, &Default::default()).unwrap();
    let mut resumed = Checkpoints::open(&folder).unwrap().resume::<f32, _>(SoftmaxCrossEntropy).unwrap().value;
    resumed.fit_source(&source, None, ()).unwrap();
    assert_eq!(outcome(&resumed), outcome(&expected));
}

#[test]
fn bad_samples_are_named_by_their_row() {
    let mut x = inputs::<f32>();
    x[[217, 4]] = f32::NAN;
    let labels = Array1::from_shape_fn(N, |i| if i == 31 { 7 } else { i % 3 });
    let good = Array1::from_shape_fn(N, |i| i % 3);
    let weights = Array1::from_shape_fn(N, |i| if i == 99 { -1.0 } else { 1.0_f32 });
    let fine = inputs::<f32>();
    let mlp = common::network::<f32>(&[9, 4, 3], Bias::Input, 3);
    for shuffle in [true, false] {
        // The first chunks have 2, 4, 8 … 128 samples.
        let training = TrainingSettings { shuffle, epochs: 1, batch: 2, ..TrainingSettings::default() };
        let error = |data: Dataset<'_, f32, usize>| {
            let mut trainer = Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
            match trainer.fit_source(&data, None, ()).unwrap_err() {
                FitError::Training(error) => error,
            }
        };
        match error(Dataset::new(&x, &good)) {
            Error::NotFinite { what: "x", row: Some(217), column: 4, found } if found.is_nan() => {}
            other => panic!("{other}"),
        }
        assert_eq!(error(Dataset::new(&fine, &labels)), Error::Label { row: Some(31), classes: 3, found: 7 });
        let weighted = Dataset::new(&fine, &good).weights(&weights);
        assert_eq!(error(weighted), Error::Weight { row: 99, found: -1.0 });
    }
}

#[test]
fn the_steps_before_a_bad_sample_stay_and_the_run_continues() {
    let (fine, labels) = (common::uniform::<f32>(2000, 3, 1), Array1::from_shape_fn(2000, |i| i % 3));
    let mut x = fine.clone();
    x[[1900, 0]] = f32::INFINITY;
    let mlp = common::network::<f32>(&[3, 4, 3], Bias::Input, 3);
    let training = TrainingSettings { shuffle: false, epochs: 1, batch: 10, ..TrainingSettings::default() };
    let new = || Trainer::new(mlp.clone(), SoftmaxCrossEntropy, training.clone()).unwrap();
    let (mut trainer, mut expected) = (new(), new());
    trainer.fit_source(&Dataset::new(&x, &labels), None, ()).unwrap_err();
    // Chunks have 1, 2, 4 … 64, 64 batches, and the bad one is in batch 190.
    assert_eq!(trainer.steps(), 127);
    trainer.fit_source(&Dataset::new(&fine, &labels), None, ()).unwrap();
    expected.fit(Dataset::new(&fine, &labels), None, ()).unwrap();
    assert_eq!(outcome(&trainer), outcome(&expected));
}

/// A source of 2,000 samples, in which something happens at one of them.
struct Fails<A> {
    act: A,
}

impl<A: Fn(usize) -> Result<(), ReadError> + Sync> Source<f32, f32> for Fails<A> {
    type Error = ReadError;

    fn samples(&self) -> usize {
        2000
    }

    fn read(
        &self,
        rows: &[usize],
        mut x: ArrayViewMut2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        weights: ArrayViewMut1<'_, f32>,
    ) -> Result<(), ReadError> {
        assert!(weights.is_empty() && rows.is_sorted_by(|a, b| a < b));
        assert!(x.dim() == (rows.len(), 1) && y.dim() == (rows.len(), 1));
        x.fill(0.5);
        y.fill(1.0);
        rows.iter().try_for_each(|&row| (self.act)(row))
    }
}

/// A source that fails at the n-th sample of its validation part, until it is mended.
struct Breaks<'a> {
    data: Dataset<'a, f32, f32>,
    at: Mutex<Option<usize>>,
}

impl Source<f32, f32> for Breaks<'_> {
    type Error = std::io::Error;

    fn samples(&self) -> usize {
        self.data.samples()
    }

    fn read(
        &self,
        rows: &[usize],
        x: ArrayViewMut2<f32>,
        y: ArrayViewMut2<f32>,
        weights: ArrayViewMut1<f32>,
    ) -> Result<(), std::io::Error> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = &mut *at {
            if *left < rows.len() {
                return Err(std::io::Error::other("on purpose"));
            }
            *left -= rows.len();
        }
        self.data.read(rows, x, y, weights).map_err(|error| match error {})
    }
}

/// Wherever reading fails in an epoch, its validation included, the run goes on from there.
#[test]
fn a_source_may_fail_anywhere() {
    let (x, y) = (common::uniform(60, 3, 1), Array1::from_shape_fn(60, |i| (i % 7) as f32));
    let data = Dataset::new(&x, &y);
    let mlp = Mlp::he(&[3, 5, 1], Bias::EveryLayer, 1).unwrap();
    let training =
        TrainingSettings { epochs: 2, batch: 9, validation_fraction: Some(0.3), ..TrainingSettings::default() };
    let new = || Trainer::new(mlp.clone(), SquaredError, training.clone()).unwrap();
    let mut expected = new();
    expected.fit(data, None, ()).unwrap();
    for at in 0..120 {
        let source = Breaks { data, at: Mutex::new(Some(at)) };
        let mut trainer = new();
        assert!(trainer.fit_source(&source, None, ()).is_err(), "after {at} samples");
        *source.at.lock().unwrap() = None;
        trainer.fit_source(&source, None, ()).unwrap();
        assert_eq!(outcome(&trainer), outcome(&expected), "after {at} samples");
    }
}

fn linear() -> Trainer<f32, SquaredError> {
    let training = TrainingSettings { epochs: 2, batch: 10, ..TrainingSettings::default() };
    Trainer::new(common::network::<f32>(&[1, 1], Bias::None, 3), SquaredError, training).unwrap()
}

#[test]
fn a_panic_of_a_source_reaches_the_caller() {
    let source = Fails { act: |row| if row == 1500 { panic!("row 1500") } else { Ok(()) } };
    let found = std::panic::catch_unwind(|| linear().fit_source(&source, None, ())).unwrap_err();
    assert_eq!(found.downcast_ref::<&str>(), Some(&"row 1500"));
}

#[test]
fn an_error_of_a_source_reaches_the_caller() {
    let path = PathBuf::from("far away");
    let act = |row| match row {
        1500 => Err(ReadError::Length { path: path.clone(), expected: 2, found: 1 }),
        _ => Ok(()),
    };
    let error = linear().fit_source(&Fails { act }, None, ()).unwrap_err();
    assert_eq!(error.to_string(), "far away: expected 2 bytes, found 1");
}

/// The source panics in samples that are read ahead, and the observer stops the run before them.
#[test]
fn a_panic_that_nobody_waits_for_is_no_panic_of_the_run() {
    let panics = Mutex::new(false);
    let source = Fails {
        act: |_| {
            let mut panics = panics.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *panics, true) { panic!("not wanted") } else { Ok(()) }
        },
    };
    let training = TrainingSettings { epochs: 1, batch: 1, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(common::network::<f32>(&[1, 1], Bias::None, 3), SquaredError, training).unwrap();
    let stop = on_batch(|_: &BatchEnd| ControlFlow::Break(()));
    assert_eq!(trainer.fit_source(&source, None, stop).unwrap(), StopReason::Observer);
    assert_eq!(trainer.steps(), 1);
}

/// Nobody waits for the other when an observer stops the run, or panics.
#[test]
fn a_run_that_is_stopped_ends_its_reader() {
    let read = Mutex::new(0);
    let source = Fails {
        act: |_| {
            *read.lock().unwrap() += 1;
            Ok(())
        },
    };
    let mut trainer = linear();
    let stopped = trainer.fit_source(&source, None, on_batch(|_: &BatchEnd| ControlFlow::Break(()))).unwrap();
    assert_eq!(stopped, StopReason::Observer);
    assert!(*read.lock().unwrap() <= 3 * 640, "no more than is read ahead");
    let panics = on_batch(|_: &BatchEnd| -> ControlFlow<()> { panic!("seen enough") });
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trainer.fit_source(&source, None, panics)));
    assert_eq!(unwound.unwrap_err().downcast_ref::<&str>(), Some(&"seen enough"));
}

/// A file that another program makes shorter, or removes, while it is read.
#[cfg(unix)]
#[test]
fn a_file_that_shrinks_is_an_error() {
    let files = Files::new();
    let source = files.source();
    let length = fs::metadata(files.path("x.npy")).unwrap().len();
    let mlp = common::network::<f32>(&[9, 20, 3], Bias::Input, 3);
    let training = TrainingSettings { epochs: 1000, batch: 2, ..TrainingSettings::default() };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let mut batches = 0;
    let cut = on_batch(|_: &BatchEnd| {
        batches += 1;
        if batches == 200 {
            File::options().write(true).open(files.path("x.npy")).unwrap().set_len(2000).unwrap();
        }
        ControlFlow::Continue(())
    });
    match trainer.fit_source(&source, None, cut).unwrap_err() {
        FitError::Source(ReadError::Length { expected, found: 2000, .. }) if expected == length => {}
        other => panic!("{other}"),
    }
    // What is removed is still there for those who have opened it.
    let files = Files::new();
    let source = files.source();
    fs::remove_file(files.path("x.npy")).unwrap();
    let mlp = common::network::<f32>(&[9, 20, 3], Bias::Input, 3);
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings::default()).unwrap();
    trainer.fit_source(&source, None, ()).unwrap();
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let files = Files::new();
    let text = |name: &str| {
        files.open(name).unwrap_err().to_string().replace(&format!("{}/", files.folder.path().display()), "")
    };
    File::create(files.path("text.csv")).unwrap().write_all(b"a,b\n1,2\n").unwrap();
    assert_eq!(text("text.csv"), r#"text.csv: kind of file: expected a .npy or an IDX file, found "a,""#);
    fs::write(files.path("images.gz"), b"\x1f\x8b\x08").unwrap();
    assert_eq!(text("images.gz"), "images.gz: compression: expected none, to read parts of it, found gzip");
    write_npy(&files.path("short.npy"), "<f4", "(4, 2)", [vec![0; 28]]);
    let header = fs::metadata(files.path("short.npy")).unwrap().len() - 28;
    assert_eq!(text("short.npy"), format!("short.npy: expected {} bytes, found {}", header + 32, header + 28));
    write_npy(&files.path("huge.npy"), "<f4", "(4611686018427387904, 4)", []);
    assert!(text("huge.npy").starts_with("huge.npy: shape: expected an array that fits"), "{}", text("huge.npy"));
    let shape = "(1000000000000000000, 0)";
    write_npy(&files.path("nothing.npy"), "<f4", shape, []);
    let expected = "nothing.npy: shape: expected at least one number in a row, found [1000000000000000000, 0]";
    assert_eq!(text("nothing.npy"), expected);
    fs::write(files.path("empty"), b"").unwrap();
    assert!(text("empty").starts_with("empty: "), "{}", text("empty"));
    let columns = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((columns.len() as u16).to_le_bytes());
    bytes.extend(columns.iter().chain(&[0; 16]));
    fs::write(files.path("columns.npy"), bytes).unwrap();
    let expected = "columns.npy: order: expected samples in rows, to read some of them, \
                    found columns; np.ascontiguousarray(x) has rows";
    assert_eq!(text("columns.npy"), expected);

    write_npy(&files.path("few.npy"), "<f4", "(2,)", [vec![0; 8]]);
    let error = FileSource::new(files.open("x.npy").unwrap(), files.open("few.npy").unwrap()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("few.npy: targets: expected 300, one for each row of"), "{message}");

    // Labels of a file that has none, and a network of another width.
    let mut trainer =
        Trainer::new(common::network::<f32>(&[9, 3], Bias::None, 3), SoftmaxCrossEntropy, TrainingSettings::default())
            .unwrap();
    write_npy(
        &files.path("half.npy"),
        "<f4",
        "(300,)",
        (0..N).map(|i| if i == 8 { 0.5_f32 } else { 1.0 }.to_le_bytes().to_vec()),
    );
    let source = FileSource::new(files.open("x.npy").unwrap(), files.open("half.npy").unwrap()).unwrap();
    match trainer.fit_source(&source, None, ()).unwrap_err() {
        FitError::Source(ReadError::Label { row: 8, found: 0.5, .. }) => {}
        other => panic!("{other}"),
    }
    let mut trainer =
        Trainer::new(common::network::<f32>(&[8, 3], Bias::None, 3), SoftmaxCrossEntropy, TrainingSettings::default())
            .unwrap();
    let message = trainer.fit_source(&files.source(), None, ()).unwrap_err().to_string();
    assert!(message.ends_with("x.npy: columns: expected 8, found 9"), "{message}");
    assert_eq!(trainer.steps(), 0);
}

/// The order of an epoch: samples of one input, whose batches are looked at by the losses that they
/// have.
fn order(samples: usize, shuffle_block: Option<usize>, seed: u64) -> Vec<usize> {
    /// Notes the rows that it reads.
    struct Noting(Mutex<Vec<usize>>);
    impl Source<f64, f64> for Noting {
        type Error = Infallible;
        fn samples(&self) -> usize {
            self.0.lock().unwrap().capacity()
        }
        fn read(
            &self,
            rows: &[usize],
            mut x: ArrayViewMut2<'_, f64>,
            mut y: ArrayViewMut2<'_, f64>,
            _weights: ArrayViewMut1<'_, f64>,
        ) -> Result<(), Infallible> {
            x.fill(0.0);
            rows.iter().zip(y.iter_mut()).for_each(|(&row, y)| *y = row as f64);
            Ok(())
        }
    }
    let source = Noting(Mutex::new(Vec::with_capacity(samples)));
    let learning_rate = LearningRate::constant(1e-300);
    let training =
        TrainingSettings { epochs: 1, batch: 1, learning_rate, shuffle_block, seed, ..TrainingSettings::default() };
    let mlp = common::network::<f64>(&[1, 1], Bias::None, 3);
    let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
    trainer
        .fit_source(
            &source,
            None,
            on_batch(|end: &BatchEnd| {
                // ½ (0 − row)²
                source.0.lock().unwrap().push((2.0 * end.loss).sqrt().round() as usize);
                ControlFlow::Continue(())
            }),
        )
        .unwrap();
    source.0.into_inner().unwrap()
}

#[test]
fn blocks_are_shuffled_as_the_docs_say() {
    for (samples, block) in [(1000, 5), (999, 7), (64, 1), (50, 60)] {
        let order = order(samples, Some(block), 1);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..samples), "each sample once");
        // 64 blocks at a time, with all their samples.
        let mut all: Vec<usize> = order.iter().map(|row| row / block).collect();
        all.dedup();
        let blocks = samples.div_ceil(block);
        if blocks > 128 && samples % block == 0 {
            for together in order.chunks(64 * block) {
                let mut of: Vec<usize> = together.iter().map(|row| row / block).collect();
                of.sort_unstable();
                of.dedup();
                assert_eq!(of.len(), together.len() / block);
                assert!(of[of.len() - 1] - of[0] >= of.len(), "blocks from everywhere");
            }
        }
        assert!(all.len() > blocks || block == 1 || blocks == 1, "blocks are mixed");
    }
    assert_eq!(order(50, Some(60), 1), order(50, None, 1), "one block");
    assert_ne!(order(50, Some(10), 1), order(50, Some(10), 2));
    let refused = TrainingSettings { shuffle_block: Some(0), ..TrainingSettings::default() };
    let error = Trainer::new(common::network::<f64>(&[1, 1], Bias::None, 3), SquaredError, refused).unwrap_err();
    assert!(error.to_string().starts_with("shuffle_block: expected at least 1 sample"), "{error}");
}

#[test]
fn a_logistic_run_validates_in_memory() {
    let (x, y) = (inputs::<f64>(), Array1::from_shape_fn(N, |i| (i % 2) as f64));
    let (train, held) = (s![..200, ..], s![200.., ..]);
    let (train_y, held_y) = (y.slice(s![..200]), y.slice(s![200..]));
    let data = Dataset::new(x.slice(train), train_y);
    let validation = Dataset::new(x.slice(held), held_y);
    let new = || {
        let mlp = common::network::<f64>(&[9, 5, 1], Bias::Input, 3);
        Trainer::new(
            mlp,
            Logistic,
            TrainingSettings { early_stopping: Some(2), epochs: 20, ..TrainingSettings::default() },
        )
        .unwrap()
    };
    let (mut expected, mut found) = (new(), new());
    let reasons = (expected.fit(data, Some(validation), ()), found.fit_source(&data, Some(validation), ()));
    assert_eq!(reasons.0.unwrap(), reasons.1.unwrap());
    assert_eq!(outcome(&found), outcome(&expected));
}

#[test]
fn a_run_that_diverges_says_where_as_in_memory() {
    let (x, y) = (common::uniform::<f32>(3000, 3, 1), common::uniform::<f32>(3000, 1, 2));
    let data = Dataset::new(&x, &y);
    let learning_rate = LearningRate::constant(3.0);
    let training = TrainingSettings { epochs: 5, batch: 10, learning_rate, ..TrainingSettings::default() };
    let new = || Trainer::new(common::network::<f32>(&[3, 1], Bias::Input, 3), SquaredError, training.clone()).unwrap();
    let expected = new().fit(data, None, ()).unwrap_err();
    let FitError::Training(found) = new().fit_source(&data, None, ()).unwrap_err();
    assert!(matches!(expected, Error::Diverged { at: Some((1, step)), .. } if step > 64), "{expected}");
    assert_eq!(found.to_string(), expected.to_string());
}

#[test]
fn rows_of_a_file_are_read_in_any_order_into_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let all = Array2::from_shape_fn((9, 3), |(i, j)| (10 * i + j) as f32 + 0.1);
    ndarray_npy::write_npy(&path, &all).unwrap();
    let file = RowsFile::open(&path).unwrap();
    let rows = [5, 6, 7, 2, 2, 8, 0];
    let expected = all.select(ndarray::Axis(0), &rows);
    let mut found = Array2::<f32>::zeros((7, 3));
    file.read(&rows, &mut found).unwrap();
    assert_eq!(found, expected);
    let mut in_columns = Array2::<f64>::zeros(ndarray::ShapeBuilder::f((7, 3)));
    file.read(&rows, &mut in_columns).unwrap();
    assert_eq!(in_columns, expected.mapv(f64::from));
    let error = file.read(&[0], &mut Array2::<f32>::zeros((1, 2))).unwrap_err();
    assert!(error.to_string().contains("x.npy: columns: expected 2, found 3"), "{error}");
    let outside = std::panic::catch_unwind(|| file.read(&[9], &mut Array2::<f32>::zeros((1, 3))));
    assert!(outside.is_err());
}
