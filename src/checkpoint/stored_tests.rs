//! What a file that somebody else has changed can do: its checksum is right, and its contents are
//! not ours.

use std::ops::ControlFlow;

use ndarray::{Array1, Array2};
use rand::RngExt;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::checkpoint::archive::Archive;
use crate::checkpoint::state::{contents, json};
use crate::network::loss::SoftmaxCrossEntropy;
use crate::optim::learning_rate::LearningRate;
use crate::optim::optimizer::Optimizer;
use crate::random::Generator;
use crate::train::dataset::Dataset;
use crate::train::observer::{BatchEnd, Observer};

/// Stops after the ninth batch, whatever the settings have become.
struct Nine(usize);

impl Observer<f64> for Nine {
    fn batch(&mut self, _: &BatchEnd) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 < 9 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// A run in its second epoch, with everything that a file can hold.
fn written() -> Contents {
    let mlp = Mlp::<f64>::he(&[6, 5, 3], Bias::Input, 1).unwrap();
    let training = TrainingSettings {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::on_plateau(0.1, 0.5, 1).warm_up(3),
        batch: 7,
        standardize: true,
        validation_fraction: Some(0.25),
        early_stopping: Some(3),
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let (x, y) = data();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut Nine(0)).unwrap();
    assert!(trainer.position.epoch == 1 && trainer.position.batch > 0 && trainer.best.is_some());
    contents(&trainer, &Notes::from([("a".into(), "b".into())]))
}

/// The run that is in a file with these contents.
fn run(contents: &Contents) -> Result<Trainer<f64, SoftmaxCrossEntropy>, CheckpointError> {
    let stored = Stored { contents: contents.clone(), path: "forged".into() };
    stored.saved(Vec::new())?.value.trainer(SoftmaxCrossEntropy)
}

fn data() -> (Array2<f64>, Array1<usize>) {
    (Array2::from_shape_fn((50, 6), |(i, j)| ((i * 7 + j * 3) % 11) as f64), Array1::from_shape_fn(50, |i| i % 3))
}

/// A run or an error: no panic, no endless loop. The run must go on, be written, and be read again,
/// too. Returns whether there is one.
fn resumes_or_refuses(forged: &Contents) -> bool {
    let stored = Stored { contents: forged.clone(), path: "forged".into() };
    let (x, y) = data();
    _ = stored.model::<f64>().map(|model| model.predict(x.view()));
    let Ok(mut trainer) = run(forged) else { return false };
    _ = trainer.partial_fit(Dataset::new(x.view(), y.view()), None, &mut ());
    _ = trainer.step(Dataset::new(x.view(), y.view()));
    if trainer.steps() <= MOST_STEPS {
        run(&contents(&trainer, &Notes::new())).unwrap();
    }
    true
}

/// Another number, or something else, in place of one of the numbers in a text.
fn with_another_number(text: &str, generator: &mut Generator) -> String {
    const OTHERS: [&str; 21] = [
        "0",
        "1",
        "2",
        "3",
        "7",
        "-1",
        "0.5",
        "4294967295",
        "4294967296",
        "9007199254740991",
        "9007199254740992",
        "9223372036854775807",
        "18446744073709551614",
        "18446744073709551615",
        "1e308",
        "-1e308",
        "5e-324",
        "null",
        "\"inf\"",
        "\"NaN\"",
        "\"1152921504606846975\"",
    ];
    let is_part = |c: char| c.is_ascii_digit() || "-+.e".contains(c);
    let starts: Vec<usize> = text.char_indices().filter(|&(_, c)| c.is_ascii_digit()).map(|(i, _)| i).collect();
    let Some(&at) = starts.get(generator.random_range(0..starts.len().max(1))) else { return text.to_owned() };
    let start = text[..at].rfind(|c| !is_part(c)).map_or(0, |i| i + 1);
    let end = text[at..].find(|c| !is_part(c)).map_or(text.len(), |i| at + i);
    format!("{}{}{}", &text[..start], OTHERS[generator.random_range(0..OTHERS.len())], &text[end..])
}

fn change(forged: &mut Contents, generator: &mut Generator) {
    let of_facts = generator.random_bool(0.6);
    if of_facts {
        let at = generator.random_range(0..forged.facts.len());
        let fact = forged.facts.values_mut().nth(at).unwrap();
        if generator.random_bool(0.8) {
            *fact = with_another_number(fact, generator);
        } else if !fact.is_empty() {
            let mut bytes = std::mem::take(fact).into_bytes();
            let at = generator.random_range(0..bytes.len());
            bytes[at] = b"0123456789-e.,\"[]{}:nul"[generator.random_range(0..23)];
            *fact = String::from_utf8_lossy(&bytes).into_owned();
        }
        return;
    }
    let at = generator.random_range(0..forged.tensors.len());
    let (name, tensor) = forged.tensors.iter_mut().nth(at).map(|(name, tensor)| (name.clone(), tensor)).unwrap();
    match generator.random_range(0..8) {
        0 => drop(forged.tensors.remove(&name)),
        1 => tensor.dtype = [Dtype::F32, Dtype::F64, Dtype::I64, Dtype::BOOL][generator.random_range(0..4)],
        2 => {
            let dimension = generator.random_range(0..tensor.shape.len());
            tensor.shape[dimension] = generator.random_range(0..9);
        }
        3 => tensor.shape.push(1),
        _ if tensor.bytes.len() >= 8 => {
            let values = [0, 1, u64::MAX, 1 << 63, 1 << 53].into_iter().chain([
                f64::INFINITY.to_bits(),
                f64::NAN.to_bits(),
                f64::MAX.to_bits(),
                5e-324_f64.to_bits(),
            ]);
            let value = values.into_iter().nth(generator.random_range(0..9)).unwrap();
            let at = generator.random_range(0..tensor.bytes.len() / 8) * 8;
            tensor.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        _ => {}
    }
    if let Some(tensor) = forged.tensors.get_mut(&name) {
        // As long as type and shape say: the archive has seen to that.
        let size = tensor.dtype.bitsize() / 8;
        tensor.bytes.resize(size * tensor.shape.iter().product::<usize>(), 0);
    }
}

#[test]
fn ten_thousand_forged_files_make_no_panic() {
    let whole = written();
    let mut generator = Generator::seed_from_u64(1);
    let mut runs = 0;
    for _ in 0..10_000 {
        let mut forged = whole.clone();
        (0..generator.random_range(1..4)).for_each(|_| change(&mut forged, &mut generator));
        runs += usize::from(resumes_or_refuses(&forged));
    }
    assert!((1_000..9_000).contains(&runs), "{runs} of them are runs that go on");
}

/// Each of these would count over the end of its type within an epoch or two, or is what no run can
/// have been through.
#[test]
fn counters_that_no_run_has_are_refused_by_name() {
    let whole = written();
    let position: serde_json::Value = serde_json::from_str(&whole.facts["position"]).unwrap();
    let fails = |contents: &Contents, text: &str| {
        let error = run(contents).unwrap_err();
        assert!(
            matches!(error, CheckpointError::Mismatch { .. }) && error.to_string() == format!("forged: {text}"),
            "{error}"
        );
    };
    let max = u64::MAX;
    for (path, value, text) in [
        ("/epoch", max, format!("expected 1 epochs, as in the history, found {max}")),
        ("/epoch", 0, "expected 1 epochs, as in the history, found 0".into()),
        ("/steps", max, format!("expected from 9 to {MOST_STEPS} steps, found {max}")),
        ("/steps", 8, format!("expected from 9 to {MOST_STEPS} steps, found 8")),
        ("/batch", max, format!("expected from {max} to {MOST_STEPS} steps, found 9")),
        ("/batch", 6, format!("expected from 12 to {MOST_STEPS} steps, found 9")),
        ("/samples", max, format!("expected at most 50 samples, the number of rows, found {max}")),
        ("/samples", 7, "expected fewer than 1 batches of an epoch, found 3".into()),
        (
            "/plateaus",
            u32::MAX.into(),
            format!("expected at most 1 plateaus, as there were epochs, found {}", u32::MAX),
        ),
        (
            "/plateau/since",
            max,
            format!("expected at most 1 epochs since a plateau, as there were epochs, found {max}"),
        ),
        (
            "/least/since",
            max,
            format!("expected at most 1 epochs since the lowest loss, as there were epochs, found {max}"),
        ),
    ] {
        let mut forged = whole.clone();
        let mut position = position.clone();
        *position.pointer_mut(path).unwrap() = value.into();
        forged.facts.insert("position".into(), position.to_string());
        fails(&forged, &format!("position: {text}"));
    }
    for decay in [1e300, -2.0] {
        let (mut forged, mut position) = (whole.clone(), position.clone());
        position["decay"] = decay.into();
        forged.facts.insert("position".into(), position.to_string());
        fails(&forged, &format!("position: expected a weight decay that is less than a step's, found {decay}"));
    }
    for (path, value, found) in [
        ("/seconds", serde_json::json!(-1.0), "-1"),
        ("/least/loss", "NaN".into(), "NaN"),
        ("/plateau/loss", "NaN".into(), "NaN"),
    ] {
        let mut forged = whole.clone();
        let mut position = position.clone();
        *position.pointer_mut(path).unwrap() = value;
        forged.facts.insert("position".into(), position.to_string());
        let error = run(&forged).unwrap_err().to_string();
        assert!(error.starts_with("forged: position: ") && error.ends_with(&format!(", found {found}")), "{error}");
    }
    for word in [1 << 60, u128::MAX] {
        let mut forged = whole.clone();
        let mut generator: StreamPosition = serde_json::from_str(&forged.facts["generator"]).unwrap();
        generator.word = word.to_string();
        forged.facts.insert("generator".into(), json(&generator));
        fails(&forged, &format!("generator: expected a position in its stream, found {word}"));
    }
    for (name, value, text) in [
        // A history may have been trimmed, but its last epoch is where the run stands.
        ("history.epoch", 2, "position: expected 2 epochs, as in the history, found 1".to_owned()),
        ("history.epoch", max, format!("position: expected {max} epochs, as in the history, found 1")),
        ("history.steps", max, format!("position: expected from {max} to {MOST_STEPS} steps, found 9")),
    ] {
        let mut forged = whole.clone();
        forged.tensors.get_mut(name).unwrap().bytes = value.to_le_bytes().to_vec();
        fails(&forged, &text);
    }
}

/// As an older version wrote it.
#[test]
fn a_standardisation_in_the_numbers_of_the_network_is_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Archive::create(directory.path()).unwrap();
    let standardizer = Standardizer { mean: Array1::from(vec![0.5]), factor: Array1::from(vec![2.0]) };
    let mlp = Mlp::<f32>::he(&[1, 2], Bias::Input, 1).unwrap();
    let model = Model { mlp, standardizer: Some(standardizer) };
    let trainer = Trainer::new(model.clone(), SoftmaxCrossEntropy, TrainingSettings::default()).unwrap();
    checkpoints.write(0, &contents(&trainer, &Notes::new())).unwrap();
    let mut contents = checkpoints.newest().unwrap().contents;
    for (name, number) in [("standardizer.mean", 0.5_f32), ("standardizer.factor", 2.0)] {
        contents.tensors.insert(name.into(), Tensor::new([number].iter(), vec![1]));
    }
    checkpoints.write(1, &contents).unwrap();
    assert_eq!(Stored::newest(checkpoints.newest().unwrap()).unwrap().value.model::<f32>().unwrap(), model);
}

/// A run goes on with the products that it was begun with; one of before there was a choice with
/// BLAS, if there is one.
#[test]
fn products_are_kept() {
    for products in [Products::Auto, Products::Native] {
        let mlp = Mlp::<f64>::he(&[2, 3, 1], Bias::Input, 1).unwrap().with_products(products).unwrap();
        let trainer = Trainer::new(mlp, crate::SquaredError, TrainingSettings::default()).unwrap();
        let mut contents = contents(&trainer, &Notes::new());
        let model = |contents: &Contents| Stored { contents: contents.clone(), path: "kept".into() }.model::<f64>();
        let kept = |contents: &Contents| model(contents).unwrap().mlp.products();
        assert_eq!(kept(&contents), products);
        contents.facts.remove("products");
        assert_eq!(kept(&contents), if cfg!(feature = "blas") { Products::Blas } else { Products::Auto });
        contents.facts.insert("products".into(), "\"blas\"".into());
        assert_eq!(model(&contents).is_ok(), cfg!(feature = "blas"));
    }
}

/// As an older version named the place of the biases, and the one without any.
#[test]
fn the_older_name_of_the_bias_is_read_too() {
    for (older, bias) in [("input", Bias::Input), ("every_layer", Bias::EveryLayer), ("absent", Bias::None)] {
        let mlp = Mlp::<f64>::he(&[2, 3, 1], bias, 1).unwrap();
        let trainer = Trainer::new(mlp, crate::SquaredError, TrainingSettings::default()).unwrap();
        let mut contents = contents(&trainer, &Notes::new());
        assert!(contents.facts.remove("bias").is_some());
        contents.facts.insert("constant".into(), json(&older));
        let stored = Stored { contents, path: "older".into() };
        assert_eq!(stored.model::<f64>().unwrap(), *trainer.model());
    }
}

#[test]
fn whatever_is_missing_or_of_another_shape_is_refused_by_name() {
    let whole = written();
    assert_eq!(run(&whole).unwrap().history.records.len(), 1);
    // A file of before may lack the loss's name, and who computed the products.
    for name in whole.facts.keys().filter(|name| !["note.a", "loss", "products"].contains(&name.as_str())) {
        let mut contents = whole.clone();
        contents.facts.remove(name);
        let error = run(&contents).unwrap_err();
        assert!(error.to_string().contains(name.as_str()), "{name}: {error}");
    }
    for name in whole.tensors.keys() {
        let mut contents = whole.clone();
        contents.tensors.get_mut(name).unwrap().shape.insert(0, 1);
        let error = run(&contents).unwrap_err();
        assert!(error.to_string().contains(name.as_str()), "{name}: {error}");
        contents.tensors.remove(name);
        // Without the first of them there is no such part.
        let optional = ["best.0.weight", "standardizer.mean"].contains(&name.as_str());
        assert!(optional || run(&contents).unwrap_err().to_string().contains(name.as_str()), "{name}");
    }
}

/// Any bits, and none beside NaN.
fn long_history(epochs: usize) -> History {
    let odd = [f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(0x7ff8_0000_dead_beef), -0.0, 5e-324, 0.1, f64::MAX];
    let number = |i: usize| odd[i % odd.len()];
    let record = |i: usize| Record {
        epoch: i + 1,
        steps: 3 * i as u64,
        loss: number(i),
        validation_loss: (!i.is_multiple_of(3)).then(|| number(i / 3)),
        learning_rate: number(i + 1),
        gradient_norm: number(i + 2),
        seconds: number(i + 3),
    };
    History { records: (0..epochs).map(record).collect() }
}

#[test]
fn a_history_is_data_and_comes_back_with_the_same_bits() {
    let bits = |records: &[Record]| -> Vec<_> {
        let of = |r: &Record| {
            let numbers = [r.loss, r.learning_rate, r.gradient_norm, r.seconds].map(f64::to_bits);
            (r.epoch, r.steps, numbers, r.validation_loss.map(f64::to_bits))
        };
        records.iter().map(of).collect()
    };
    let mut lengths = Vec::new();
    for epochs in [0, 1, 50, 50_000] {
        let mut trainer = run(&written()).unwrap();
        trainer.history = long_history(epochs);
        (trainer.position.epoch, trainer.position.steps) = (epochs, 1_000_000);
        (trainer.position.plateau.since, trainer.position.lowest.since) = (0, 0);
        let contents = contents(&trainer, &Notes::new());
        let facts = contents.facts.iter().filter(|(name, _)| *name != "position");
        lengths.push(facts.map(|(_, fact)| fact.len()).sum::<usize>());
        let read = run(&contents).unwrap();
        assert_eq!(bits(&read.history.records), bits(&trainer.history.records));
    }
    // Readers of safetensors bound the size of the facts. The position has the number of epochs.
    assert_eq!(lengths, [lengths[0]; 4]);
}

#[test]
fn a_history_in_the_form_of_before_is_read() {
    let (mut contents, expected) = (written(), run(&written()).unwrap().history);
    contents.tensors.retain(|name, _| !name.starts_with("history."));
    contents.facts.insert("history".into(), expected.to_csv());
    contents.facts.insert("format".into(), FORMAT_1.into());
    contents.facts.remove("loss");
    assert_eq!(run(&contents).unwrap().history, expected);
}

/// A validation loss of −∞ is the lowest there can be, and no other improves on it after the run is
/// resumed either.
#[test]
fn a_least_loss_that_is_infinite_comes_back() {
    let mut trainer = run(&written()).unwrap();
    trainer.position.lowest.loss = Some(f64::NEG_INFINITY);
    assert_eq!(run(&contents(&trainer, &Notes::new())).unwrap().position, trainer.position);
}

/// Later versions may count more than this one does.
#[test]
fn a_position_with_a_field_too_many_is_read() {
    let mut contents = written();
    let position = contents.facts.get_mut("position").unwrap();
    position.insert_str(1, r#""of a later version":1.5,"#);
    run(&contents).unwrap();
}
