//! Networks from other programs: they compute what they computed there, and what is not such a
//! network is refused by name.

#![cfg(feature = "files")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::common::{self, Real};

use gemmprop::data::ReadError;
use gemmprop::exchange::ExchangeError;
use gemmprop::rungs::bounds;
use gemmprop::{Bias, Mlp, SoftmaxCrossEntropy};
use ndarray::{Array1, Array2};
use ndarray_npy::{NpzReader, NpzWriter, ReadableElement};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

/// The networks of a folder that `exchange/libraries.py` has written, each with its data, compute
/// what they did there. Returns their number.
pub(crate) fn all_compute_the_same(folder: &Path) -> usize {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix("_data.npz")?.to_owned()))
        .collect();
    names.sort();
    for name in &names {
        match name.split('_').nth(1).unwrap() {
            "f4" => computes_the_same::<f32>(folder, name),
            "f8" => computes_the_same::<f64>(folder, name),
            other => panic!("{other}"),
        }
    }
    names.len()
}

fn computes_the_same<F: Real + ReadableElement>(folder: &Path, name: &str) {
    let mlp: Mlp<F> = match name.starts_with("sequential") {
        true => Mlp::from_safetensors(folder.join(format!("{name}.safetensors"))).unwrap(),
        false => Mlp::from_npz(folder.join(format!("{name}.npz"))).unwrap(),
    };
    let mut data = NpzReader::new(File::open(folder.join(format!("{name}_data.npz"))).unwrap()).unwrap();
    let [x, y] = ["x", "y"].map(|name| data.by_name::<ndarray::OwnedRepr<F>, ndarray::Ix2>(name).unwrap());
    let (bounds, ours) = (bounds::forward(&mlp, x.view()).unwrap().trace, mlp.predict(x.view()).unwrap());
    assert_eq!(ours.dim(), y.dim());
    for (row, (y, ours)) in y.outer_iter().zip(ours.outer_iter()).enumerate() {
        let [y_hat, e] = [&bounds.value, &bounds.bound].map(|trace| trace.y_hat().row(row).to_vec());
        let numbers = |a: ndarray::ArrayView1<F>| a.iter().map(|a| a.to_f64()).collect::<Vec<f64>>();
        let (theirs, ours) = (numbers(y), numbers(ours));
        common::assert_within(name, &ours, &e, &y_hat, &e);
        if !name.starts_with("classifier") {
            common::assert_within(name, &theirs, &e, &ours, &e);
            continue;
        }
        let (p, error) = common::probabilities::<F>(&y_hat, &e);
        common::assert_within(name, &theirs, &error, &p, &error);
    }
}

#[test]
fn networks_of_pytorch_and_scikit_learn_compute_what_they_did_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/exchange");
    assert_eq!(all_compute_the_same(&folder), 4);
    let bias = |name: &str| Mlp::<f32>::from_safetensors(folder.join(name)).unwrap().bias();
    assert_eq!(bias("sequential_f4_4.safetensors"), Bias::Input);
}

/// What a file holds: the shape, the type and the bytes of each tensor.
type Tensors = BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>;

fn f32s(shape: &[usize], numbers: impl IntoIterator<Item = f32>) -> (Vec<usize>, Dtype, Vec<u8>) {
    (shape.to_vec(), Dtype::F32, numbers.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// The tensors of a network as PyTorch names them, without some of the biases.
fn tensors(mlp: &Mlp<f32>) -> Tensors {
    let mut tensors = Tensors::new();
    for (t, (w, c)) in mlp.parameters().layers().enumerate() {
        tensors.insert(format!("{}.weight", 2 * t), f32s(w.shape(), w.iter().copied()));
        if !c.is_empty() {
            tensors.insert(format!("{}.bias", 2 * t), f32s(c.shape(), c.iter().copied()));
        }
    }
    tensors
}

fn bytes_of(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (shape, dtype, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).unwrap()
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn safetensors(&self, tensors: &Tensors) -> Result<Mlp<f32>, ExchangeError> {
        let path = self.path("net.safetensors");
        fs::write(&path, bytes_of(tensors)).unwrap();
        Mlp::from_safetensors(path)
    }

    /// The text of the error, without the path in front.
    fn refused(&self, tensors: &Tensors) -> (ExchangeError, String) {
        self.without_path("net.safetensors", self.safetensors(tensors).unwrap_err())
    }

    fn without_path(&self, name: &str, error: ExchangeError) -> (ExchangeError, String) {
        let text = error.to_string();
        let prefix = format!("{}: ", self.path(name).display());
        let text = text.strip_prefix(&prefix).unwrap_or_else(|| panic!("{text}")).to_owned();
        (error, text)
    }
}

const DEPTHS: [&[usize]; 4] = [&[3, 2], &[3, 4, 2], &[3, 4, 5, 1], &[1, 1, 1, 1, 1]];

#[test]
fn a_sequential_comes_in_with_its_bits() {
    let place = Place::new();
    for widths in DEPTHS {
        for bias in [Bias::None, Bias::Input, Bias::EveryLayer] {
            let mlp = common::network::<f32>(widths, bias, 1);
            let read = place.safetensors(&tensors(&mlp)).unwrap();
            assert_eq!((read.parameters(), read.widths()), (mlp.parameters(), mlp.widths()));
        }
        // Any layer without its bias computes the same with one of 0.
        let depth = widths.len() - 2;
        let mut mlp = common::network::<f32>(widths, Bias::EveryLayer, 2);
        for without in 0..=depth {
            let mut tensors = tensors(&mlp);
            tensors.remove(&format!("{}.bias", 2 * without));
            let read = place.safetensors(&tensors).unwrap();
            let before = mlp.clone();
            mlp.parameters_mut().layers_mut().nth(without).unwrap().1.fill(0.0);
            let x = common::uniform::<f32>(3, widths[0], 1);
            assert_eq!(read.predict(x.view()).unwrap(), mlp.predict(x.view()).unwrap());
            let expected = match (depth, without) {
                (0, _) => Bias::None,
                (1, 0) => Bias::None,
                (1, _) => Bias::Input,
                (2, 1) => Bias::Input,
                _ => Bias::EveryLayer,
            };
            assert_eq!(read.bias(), expected, "{widths:?} without bias {without}");
            mlp = before;
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_networks_type() {
    let place = Place::new();
    let path = place.path("net.safetensors");
    let mlp = common::network::<f32>(&[3, 4, 2], Bias::EveryLayer, 1);
    fs::write(&path, bytes_of(&tensors(&mlp))).unwrap();
    let error = Mlp::<f64>::from_safetensors(&path).unwrap_err();
    assert!(matches!(error, ExchangeError::Dtype { .. }));
    let (_, text) = place.without_path("net.safetensors", error);
    assert_eq!(text, "0.weight: expected numbers of type F64, found F32");
    // Of one tensor alone, and of what is not a type of this crate.
    for (dtype, bytes) in [(Dtype::F64, 8), (Dtype::BF16, 2), (Dtype::F16, 2), (Dtype::I32, 4)] {
        let mut tensors = tensors(&mlp);
        tensors.insert("2.bias".into(), (vec![2], dtype, vec![0; 2 * bytes]));
        let (error, text) = place.refused(&tensors);
        assert!(matches!(error, ExchangeError::Dtype { .. }));
        assert_eq!(text, format!("2.bias: expected numbers of type F32, found {dtype:?}"));
    }
}

#[test]
fn what_is_not_such_a_sequential_is_refused_by_name() {
    let place = Place::new();
    let whole = tensors(&common::network::<f32>(&[3, 4, 5, 2], Bias::EveryLayer, 1));
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        let (error, text) = place.refused(&tensors);
        let name = format!("{error:?}");
        format!("{}: {text}", name.split(['(', ' ']).next().unwrap())
    };
    let renamed = |from: &'static str, to: &'static str| {
        changed(&|tensors| {
            let tensor = tensors.remove(from).unwrap();
            tensors.insert(to.to_owned(), tensor);
        })
    };
    let without = |names: &[&str]| changed(&|tensors| names.iter().for_each(|&name| drop(tensors.remove(name))));
    let with = |name: &str, shape: &[usize]| {
        changed(&|tensors| drop(tensors.insert(name.to_owned(), f32s(shape, vec![0.5; shape.iter().product()]))))
    };
    let numbering = |expected: &str, found: &str| {
        format!(
            "Numbering: expected \"{expected}\" next, since layers are numbered 0, 2, 4, … with a ReLU between; found \"{found}\""
        )
    };
    let missing = r#"found "0.bias", "2.bias", "2.weight", "4.bias", "4.weight""#;
    assert_eq!(without(&["0.weight"]), format!("Missing: expected the tensor \"0.weight\", {missing}"));
    assert_eq!(without(&["0.weight", "0.bias"]), numbering("0.weight", "2.bias"));
    assert_eq!(without(&["2.weight", "2.bias"]), numbering("2.weight", "4.bias"));
    assert!(without(&["4.weight"]).starts_with("Missing: expected the tensor \"4.weight\", found "));
    let none = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"];
    assert_eq!(without(&none), "Missing: expected the tensor \"0.weight\", found none");
    // Without a ReLU between two layers, and with a dropout.
    assert_eq!(renamed("2.weight", "1.weight"), numbering("2.weight", "1.weight"));
    let dropout = changed(&|tensors| {
        for part in ["weight", "bias"] {
            let tensor = tensors.remove(&format!("4.{part}")).unwrap();
            tensors.insert(format!("5.{part}"), tensor);
        }
    });
    assert_eq!(dropout, numbering("4.weight", "5.bias"));
    assert_eq!(with("1.weight", &[4, 4]), numbering("6.weight", "1.weight"));
    assert_eq!(with("7.bias", &[4]), numbering("6.weight", "7.bias"));
    let extra = |found: &str| format!("Extra: expected only weights and biases of linear layers, found also {found}");
    for name in ["0.bias2", "net.0.weight", "02.weight", "+6.weight", "6.weight.grad", "weight", "", "running_mean"] {
        assert_eq!(with(name, &[1]), extra(&format!("{name:?}")));
    }
    let shape =
        |name: &str, expected: &str, found: &str| format!("Shape: {name}: expected shape {expected}, found {found}");
    assert_eq!(with("0.weight", &[4]), shape("0.weight", "[n, d]", "[4]"));
    assert_eq!(with("0.weight", &[4, 0]), shape("0.weight", "[n, d]", "[4, 0]"));
    assert_eq!(with("0.weight", &[0, 3]), shape("0.weight", "[n, d]", "[0, 3]"));
    assert_eq!(with("0.weight", &[4, 3, 1]), shape("0.weight", "[n, d]", "[4, 3, 1]"));
    assert_eq!(with("2.weight", &[4, 5]), shape("2.weight", "[n, 4]", "[4, 5]"));
    assert_eq!(with("2.bias", &[4]), shape("2.bias", "[5]", "[4]"));
    assert_eq!(with("2.bias", &[5, 1]), shape("2.bias", "[5]", "[5, 1]"));
    assert_eq!(with("0.weight", &[5, 3]), shape("0.bias", "[5]", "[4]"));
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let spoilt = |name: &str, at: usize| {
            changed(&|tensors| {
                tensors.get_mut(name).unwrap().2[4 * at..4 * at + 4].copy_from_slice(&bad.to_le_bytes());
            })
        };
        assert_eq!(spoilt("2.weight", 7), format!("NotFinite: 2.weight[1, 3]: expected a finite number, found {text}"));
        assert_eq!(spoilt("4.bias", 1), format!("NotFinite: 4.bias[1]: expected a finite number, found {text}"));
    }
    assert!(place.safetensors(&whole).is_ok());
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let place = Place::new();
    let path = place.path("net.safetensors");
    let error = Mlp::<f32>::from_safetensors(&path).unwrap_err();
    assert!(matches!(error, ExchangeError::Read(ReadError::Io { .. })));
    fs::write(&path, b"PK\x03\x04 and more of an archive").unwrap();
    let (error, text) = place.without_path("net.safetensors", Mlp::<f32>::from_safetensors(&path).unwrap_err());
    assert!(matches!(error, ExchangeError::Read(ReadError::Content { .. })));
    assert!(text.starts_with("format: expected a safetensors file, found a header of "), "{text}");
    // A checkpoint has all these tensors, and others.
    let trainer = gemmprop::Trainer::new(
        Mlp::<f32>::he(&[3, 2], Bias::None, 1).unwrap(),
        SoftmaxCrossEntropy,
        Default::default(),
    );
    let checkpoints = gemmprop::checkpoint::Checkpoints::create(place.path("run")).unwrap();
    let checkpoint = checkpoints.save(&trainer.unwrap(), &Default::default()).unwrap();
    let text = Mlp::<f32>::from_safetensors(checkpoint).unwrap_err().to_string();
    let expected = "expected the state_dict of a network, found a checkpoint of this crate, which Model::load reads";
    assert!(text.ends_with(expected), "{text}");
    let path = place.path("net.npz");
    fs::write(&path, bytes_of(&tensors(&common::network(&[3, 2], Bias::None, 1)))).unwrap();
    assert!(matches!(Mlp::<f32>::from_npz(&path).unwrap_err(), ExchangeError::Read(_)));
}

/// An array of an `.npz` file.
enum Array {
    F32(Array2<f32>),
    F64(Array2<f64>),
    Vector(Array1<f64>),
}

type Arrays = BTreeMap<String, Array>;

/// The arrays of a network as scikit-learn names and lays them out.
fn arrays(mlp: &Mlp<f64>) -> Arrays {
    let mut arrays = Arrays::new();
    for (t, (w, c)) in mlp.parameters().layers().enumerate() {
        // Every other of the weights in Fortran's order.
        let w = if t % 2 == 0 { w.t().to_owned() } else { w.t().as_standard_layout().into_owned() };
        arrays.insert(format!("coefs_{t}"), Array::F64(w));
        arrays.insert(format!("intercepts_{t}"), Array::Vector(c.to_owned()));
    }
    arrays
}

fn write_npz(path: &Path, arrays: &Arrays) {
    let mut file = NpzWriter::new(File::create(path).unwrap());
    for (name, array) in arrays {
        match array {
            Array::F32(a) => file.add_array(name.as_str(), a),
            Array::F64(a) => file.add_array(name.as_str(), a),
            Array::Vector(a) => file.add_array(name.as_str(), a),
        }
        .unwrap();
    }
    file.finish().unwrap();
}

#[test]
fn scikit_learns_arrays_come_in_transposed_with_their_bits() {
    let place = Place::new();
    let path = place.path("net.npz");
    // Square weights too, which would fit the wrong way round.
    for widths in DEPTHS.into_iter().chain([&[3, 3, 3, 3][..]]) {
        let mlp = common::network::<f64>(widths, Bias::EveryLayer, 1);
        write_npz(&path, &arrays(&mlp));
        let read = Mlp::<f64>::from_npz(&path).unwrap();
        assert_eq!((read.parameters(), read.widths()), (mlp.parameters(), mlp.widths()));
    }
}

#[test]
fn what_is_not_of_scikit_learn_is_refused_by_name() {
    let place = Place::new();
    let path = place.path("net.npz");
    let changed = |change: &dyn Fn(&mut Arrays)| {
        let mut arrays = arrays(&common::network::<f64>(&[3, 4, 2], Bias::EveryLayer, 1));
        change(&mut arrays);
        write_npz(&path, &arrays);
        let (error, text) = place.without_path("net.npz", Mlp::<f64>::from_npz(&path).unwrap_err());
        let name = format!("{error:?}");
        format!("{}: {text}", name.split(['(', ' ']).next().unwrap())
    };
    let without = |name: &str| changed(&|arrays| drop(arrays.remove(name)));
    assert_eq!(
        without("coefs_1"),
        r#"Missing: expected the tensor "coefs_1", found "coefs_0", "intercepts_0", "intercepts_1""#
    );
    assert_eq!(
        without("intercepts_0"),
        r#"Missing: expected the tensor "intercepts_0", found "coefs_0", "coefs_1", "intercepts_1""#
    );
    let with = |name: &str, array: fn() -> Array| changed(&|arrays| drop(arrays.insert(name.to_owned(), array())));
    let matrix: fn() -> Array = || Array::F64(Array2::ones((3, 4)));
    assert_eq!(
        with("coefs_3", matrix),
        r#"Numbering: expected "coefs_2" next, since layers are numbered 0, 1, 2, …; found "coefs_3""#
    );
    let extra = |name: &str| format!("Extra: expected only weights and biases of linear layers, found also {name:?}");
    for name in ["classes_", "coefs_", "coefs_01", "0.weight"] {
        assert_eq!(with(name, matrix), extra(name));
    }
    assert_eq!(
        with("coefs_0", || Array::F64(Array2::ones((0, 4)))),
        "Shape: coefs_0: expected shape [d, n], found [0, 4]"
    );
    assert_eq!(with("coefs_1", matrix), "Shape: coefs_1: expected shape [4, n], found [3, 4]");
    assert_eq!(with("intercepts_1", matrix), "Shape: intercepts_1: expected shape [2], found [3, 4]");
    assert_eq!(
        with("coefs_0", || Array::F32(Array2::ones((3, 4)))),
        "Dtype: coefs_0: expected numbers of type f8, found f4"
    );
    let bad: fn() -> Array =
        || Array::F64(Array2::from_shape_fn((3, 4), |at| if at == (2, 1) { f64::NAN } else { 0.0 }));
    assert_eq!(with("coefs_0", bad), "NotFinite: coefs_0[2, 1]: expected a finite number, found NaN");
}

#[test]
fn no_damage_makes_a_panic() {
    let place = Place::new();
    let files = ["net.safetensors", "net.npz"].map(|name| place.path(name));
    fs::write(&files[0], bytes_of(&tensors(&common::network(&[2, 1], Bias::None, 1)))).unwrap();
    write_npz(&files[1], &arrays(&common::network(&[2, 1], Bias::None, 1)));
    let read = |path: &Path| match path == files[0] {
        true => Mlp::<f32>::from_safetensors(path).map(|_| ()),
        false => Mlp::<f64>::from_npz(path).map(|_| ()),
    };
    for path in &files {
        let whole = fs::read(path).unwrap();
        assert!(read(path).is_ok());
        let (mut flips, mut refused) = (0, 0);
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(path, &bytes).unwrap();
            flips += 1;
            refused += usize::from(read(path).is_err());
            fs::write(path, &whole[..at]).unwrap();
            assert!(read(path).is_err(), "{at} bytes of {}", path.display());
        }
        assert!(refused > flips / 4, "{refused} of {flips} flips of {}", path.display());
    }
}
