//! What is done with an input of each format. An input may be refused; what is read must agree with
//! an independent look at its bytes, and nothing may panic.

use std::fs;
use std::path::Path;

use gemmprop::checkpoint::{CheckpointError, Checkpoints, Notes, Stored};
use gemmprop::{
    Bias, Dataset, LearningRate, Logistic, Loss, Mlp, Model, Optimizer, Products, Scalar, SoftmaxCrossEntropy,
    SquaredError, Trainer, TrainingSettings, data,
};
use ndarray::{Array1, Array2};
use safetensors::tensor::Metadata;
use serde::{Serialize, de::DeserializeOwned};

/// The name of a checkpoint, as which every input is written.
pub(crate) const FILE: &str = "step-000000000001.safetensors";

/// A kind of input.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    /// Also the name of the folder with its seeds.
    pub(crate) name: &'static str,
    /// Reads an input, which is also in this file. Whether it was accepted.
    pub(crate) read: fn(&Path, &[u8]) -> bool,
}

pub(crate) const FORMATS: [Format; 7] = [
    Format { name: "npy", read: npy },
    Format { name: "npz", read: npz },
    Format { name: "csv", read: csv },
    Format { name: "idx", read: idx },
    Format { name: "checkpoint", read: checkpoint },
    Format { name: "forged", read: forged },
    Format { name: "settings", read: settings },
];

/// Whether f32 is what f64 rounds to.
fn rounds(single: &Array2<f32>, double: &Array2<f64>) -> bool {
    single.dim() == double.dim()
        && single.iter().zip(double).all(|(s, &d)| s.to_bits() == (d as f32).to_bits() || d.is_nan())
}

fn labels_of(numbers: &Array2<f64>, labels: &Array1<usize>) -> bool {
    numbers.len() == labels.len() && numbers.iter().zip(labels).all(|(&number, &label)| number == label as f64)
}

/// A message of every error, which must not panic either.
fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

fn npy(path: &Path, bytes: &[u8]) -> bool {
    let (double, single) = (told(data::npy::<f64>(path)), told(data::npy::<f32>(path)));
    let (any, labels) = (told(data::npy_any(path)), told(data::npy_labels(path)));
    assert_eq!(double.is_some(), single.is_some());
    assert_eq!(double.is_some(), any.is_some());
    let Some((double, any)) = double.zip(any) else {
        assert!(labels.is_none());
        return false;
    };
    assert!(rounds(&single.expect("as above"), &double));
    assert!(double.iter().zip(&any.numbers).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert!(labels.is_none_or(|labels| labels_of(&double, &labels)));
    let header = match bytes[6] {
        1 => 10 + usize::from(bytes[8]) + 256 * usize::from(bytes[9]),
        _ => 12 + u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize,
    };
    let found = bytes.len() - header;
    assert!([1, 2, 4, 8].iter().any(|size| double.len() * size == found), "{} numbers of {found} bytes", double.len());
    true
}

fn npz(path: &Path, _: &[u8]) -> bool {
    let mut accepted = false;
    for name in ["x", "y"] {
        let (double, single) = (told(data::npz::<f64>(path, name)), told(data::npz::<f32>(path, name)));
        let labels = told(data::npz_labels(path, name));
        assert_eq!(double.is_some(), single.is_some());
        accepted |= double.is_some();
        match double {
            Some(double) => {
                assert!(rounds(&single.expect("as above"), &double));
                assert!(labels.is_none_or(|labels| labels_of(&double, &labels)));
            }
            None => assert!(labels.is_none()),
        }
    }
    accepted
}

fn csv(path: &Path, bytes: &[u8]) -> bool {
    let numbers = told(data::csv_numbers::<f64>(path, "class"));
    let classes = told(data::csv_classes::<f64>(path, "class"));
    let texts = told(data::csv_texts::<f64>(path, "class", &[""; 0]));
    _ = told(data::csv_texts::<f32>(path, "class", &["a"]));
    let columns = told(data::csv_columns::<f64, _>(path, &["a"], "class", data::class_of(&["x", "y"])));
    if let Some(columns) = columns {
        assert_eq!((columns.x.nrows(), columns.x.ncols()), (columns.lines.len(), 1));
    }
    let Some(texts) = texts else {
        assert!(numbers.is_none() && classes.is_none());
        return false;
    };
    let lines = 1 + bytes.iter().filter(|byte| b"\r\n".contains(byte)).count();
    assert!(texts.lines.is_sorted_by(|a, b| a < b) && texts.lines.iter().all(|line| (1..=lines).contains(line)));
    assert!(texts.x.iter().all(|x| x.is_finite()) && texts.x.nrows() == texts.y.as_slice().len());
    let read = texts.y.as_slice().iter().map(|text| text.parse::<f64>().ok().filter(|number| number.is_finite()));
    let read: Option<Vec<f64>> = read.collect();
    assert_eq!(numbers.as_ref().map(|table| table.y.iter().copied().collect()), read);
    assert_eq!(classes.is_none(), texts.y.as_slice().iter().any(String::is_empty));
    if let Some(classes) = classes {
        let named = classes.y.labels.iter().map(|&label| &classes.y.names[label]);
        assert!(named.eq(texts.y.as_slice()) && classes.x == texts.x);
    }
    true
}

fn idx(path: &Path, bytes: &[u8]) -> bool {
    let (images, labels) = (told(data::idx_images::<f64>(path)), told(data::idx_labels(path)));
    let single = told(data::idx_images::<f32>(path));
    assert_eq!(images.is_some(), single.is_some());
    assert!(images.is_none() || labels.is_none(), "a file has one number of dimensions");
    let accepted = images.is_some() || labels.is_some();
    if accepted && !bytes.starts_with(b"\x1f\x8b") {
        let found = &bytes[4 + 4 * usize::from(bytes[3])..];
        let same = |numbers: Vec<f64>, scale: f64| {
            numbers.len() == found.len() && numbers.iter().zip(found).all(|(&x, &byte)| x == f64::from(byte) / scale)
        };
        assert!(images.as_ref().is_none_or(|images| same(images.iter().copied().collect(), 255.0)));
        assert!(labels.is_none_or(|labels| same(labels.iter().map(|&label| label as f64).collect(), 1.0)));
    }
    assert!(images.zip(single).is_none_or(|(images, single)| rounds(&single, &images)));
    accepted
}

/// Both ways to a checkpoint agree on whether it can be used.
fn checkpoint(path: &Path, _: &[u8]) -> bool {
    let loaded = told(Stored::load(path));
    let folder = path.parent().expect("a file is in a folder");
    let read = Checkpoints::open(folder).expect("the file has the name of one").read();
    let same = match (&loaded, &read) {
        (Some(loaded), Ok(read)) => loaded.notes == read.notes,
        (None, Err(error)) => matches!(error, CheckpointError::NoneWhole { .. } | CheckpointError::Mismatch { .. }),
        _ => false,
    };
    assert!(same, "{loaded:?} and {read:?}");
    let Some(stored) = loaded else { return false };
    let (double, single) = (told(stored.value.model::<f64>()), told(stored.value.model::<f32>()));
    assert!(double.is_none() || single.is_none(), "a file has one type of numbers");
    _ = told(stored.value.best_model::<f64>());
    double.is_some_and(predicts) || single.is_some_and(predicts)
}

/// A model that was read predicts, or says what keeps it from doing so.
fn predicts<F: Scalar>(model: Model<F>) -> bool {
    let x = Array2::from_shape_fn((2, model.mlp.inputs()), |(i, j)| F::from_f64((i + j % 3) as f64));
    _ = told(model.predict(x.view()));
    true
}

/// The input with the checksum that it ought to have, as far as there is a header: what somebody
/// writes who means harm, or another version of this crate.
fn with_its_checksum(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let (header, data) = bytes[8..].split_at_checked(length)?;
    let metadata: Metadata = serde_json::from_slice(header).ok()?;
    let mut header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let facts = metadata.metadata().clone().unwrap_or_default();
    let mut facts: Vec<_> = facts.into_iter().filter(|(key, _)| key != "checksum").collect();
    facts.sort();
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut crc = crc32fast::Hasher::new();
    let mut piece = |bytes: &[u8]| {
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    };
    piece(facts.len().to_string().as_bytes());
    for (key, value) in &facts {
        piece(key.as_bytes());
        piece(value.as_bytes());
    }
    for (name, info) in &tensors {
        piece(name.as_bytes());
        piece(info.dtype.to_string().as_bytes());
        piece(format!("{:?}", info.shape).as_bytes());
        piece(data.get(info.data_offsets.0..info.data_offsets.1)?);
    }
    let facts = header.as_object_mut()?.entry("__metadata__").or_insert_with(|| serde_json::json!({}));
    facts.as_object_mut()?.insert("checksum".into(), format!("{:08x}", crc.finalize()).into());
    let header = serde_json::to_vec(&header).expect("what was JSON is JSON");
    Some([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// A run from a forged checkpoint resumes, goes on and can be saved again, or is refused.
fn forged(path: &Path, bytes: &[u8]) -> bool {
    let Some(bytes) = with_its_checksum(bytes) else { return false };
    fs::write(path, &bytes).expect("a file can be written");
    if !checkpoint(path, &bytes) {
        return false;
    }
    let stored = Stored::load(path).expect("as above").value;
    resumes::<f64>(&stored, path) || resumes::<f32>(&stored, path)
}

fn resumes<F: Scalar>(stored: &Stored, path: &Path) -> bool {
    let Ok(Model { mlp, .. }) = stored.model::<F>() else { return false };
    let x = Array2::from_shape_fn((6, mlp.inputs()), |(i, j)| F::from_f64(((i * 3 + j) % 5) as f64 - 2.0));
    let labels = Array1::from_shape_fn(6, |i| i % 2);
    let numbers = Array2::from_shape_fn((6, mlp.outputs()), |(i, j)| F::from_f64(((i + j) % 2) as f64));
    let with_labels = Dataset::new(x.view(), labels.view());
    let with_numbers = Dataset::new(x.view(), numbers.view());
    goes_on(stored, path, SoftmaxCrossEntropy, with_labels)
        || goes_on(stored, path, SquaredError, with_numbers)
        || goes_on(stored, path, Logistic, with_numbers)
}

fn goes_on<F: Scalar, L: Loss<F>>(stored: &Stored, path: &Path, loss: L, samples: Dataset<F, L::Target>) -> bool {
    let Some(mut run) = told(stored.trainer::<F, L>(loss)) else { return false };
    _ = told(run.partial_fit(samples, None, &mut ()));
    _ = told(run.step(samples));
    // Below those of a step that cannot be counted, what is saved can be read.
    if run.steps() < 1 << 53 {
        fs::remove_file(path).expect("the file is there");
        let folder = Checkpoints::create(path.parent().expect("a file is in a folder")).expect("it is empty");
        let saved = folder.save(&run, &Notes::new()).expect("a run can be saved");
        let again = Model::<F>::load(&saved).expect("a saved run can be read");
        assert!(bits(&again) == bits(run.model()));
        fs::remove_file(saved).expect("the file is there");
    }
    true
}

fn bits<F: Scalar>(model: &Model<F>) -> Vec<u64> {
    model.mlp.parameters().iter().map(|p| p.to_f64().to_bits()).collect()
}

/// Settings as JSON, as checkpoints have them: what is read can be written and read again, and
/// trains or is refused.
fn settings(_: &Path, bytes: &[u8]) -> bool {
    fn again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
        let setting: T = told(serde_json::from_slice(bytes))?;
        let json = serde_json::to_vec(&setting).expect("a setting can be written");
        assert_eq!(serde_json::from_slice::<T>(&json).expect("what was written can be read"), setting);
        Some(setting)
    }
    let (rate, rule) = (again::<LearningRate>(bytes), again::<Optimizer>(bytes));
    let (bias, products) = (again::<Bias>(bytes), again::<Products>(bytes));
    let mlp = Mlp::<f64>::he(&[2, 3, 1], bias.unwrap_or(Bias::Input), 1).expect("a small network");
    let whole = again::<TrainingSettings>(bytes);
    let part = TrainingSettings {
        learning_rate: rate.clone().unwrap_or(LearningRate::constant(0.1)),
        optimizer: rule.unwrap_or(Optimizer::Sgd),
        ..TrainingSettings::default()
    };
    let accepted = whole.is_some() || rate.is_some() || rule.is_some() || bias.is_some() || products.is_some();
    let x = Array2::from_shape_fn((6, 2), |(i, j)| ((i * 3 + j) % 5) as f64 - 2.0);
    let y = Array1::from_shape_fn(6, |i| i as f64);
    if accepted && let Some(mut run) = told(Trainer::new(mlp, SquaredError, whole.unwrap_or(part))) {
        _ = told(run.partial_fit(Dataset::new(x.view(), y.view()), None, &mut ()));
        _ = told(run.step(Dataset::new(x.view(), y.view())));
    }
    accepted
}
