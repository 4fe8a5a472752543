//! An ONNX file says what the model computes: its bytes are read by the rules of Protocol Buffers
//! alone, with the numbers of the fields written out here once more, and the graph is evaluated in
//! plain loops.

#![cfg(feature = "onnx")]

use std::collections::BTreeMap;
use std::{fs, io};

use crate::common::{self, Real};

use gemmprop::exchange::{ExchangeError, OnnxExport, OutputFunction};
use gemmprop::{Bias, Error, Mlp, Model, Standardizer};
use ndarray::{Array2, ArrayView2};

/// A message: the numbers of its fields, with what they hold.
struct Message<'a>(Vec<(u64, Field<'a>)>);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Seven bits a byte, the lowest first; the eighth says that there are more.
fn varint(bytes: &mut &[u8]) -> u64 {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (number, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    number.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

impl<'a> Message<'a> {
    fn parse(mut bytes: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let field = match tag & 7 {
                0 => Field::Number(varint(&mut bytes)),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (field, rest) = bytes.split_at(length);
                    bytes = rest;
                    Field::Bytes(field)
                }
                kind => panic!("fields of kind {kind} are not used"),
            };
            fields.push((tag >> 3, field));
        }
        Self(fields)
    }

    fn numbers(&self, field: u64) -> Vec<i64> {
        let of_field = self.0.iter().filter(|(number, _)| *number == field);
        of_field.map(|(_, value)| if let Field::Number(value) = value { *value as i64 } else { panic!() }).collect()
    }

    fn number(&self, field: u64) -> i64 {
        let [number] = self.numbers(field)[..] else { panic!("field {field}: {:?}", self.numbers(field)) };
        number
    }

    fn bytes(&self, field: u64) -> Vec<&'a [u8]> {
        let of_field = self.0.iter().filter(|(number, _)| *number == field);
        of_field.map(|(_, value)| if let Field::Bytes(value) = value { *value } else { panic!() }).collect()
    }

    fn texts(&self, field: u64) -> Vec<&'a str> {
        self.bytes(field).into_iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect()
    }

    fn text(&self, field: u64) -> &'a str {
        let [text] = self.texts(field)[..] else { panic!("field {field}: {:?}", self.texts(field)) };
        text
    }

    fn messages(&self, field: u64) -> Vec<Self> {
        self.bytes(field).into_iter().map(Self::parse).collect()
    }

    fn message(&self, field: u64) -> Self {
        let mut messages = self.messages(field);
        assert_eq!(messages.len(), 1, "field {field}");
        messages.remove(0)
    }
}

const FLOAT: i64 = 1;
const DOUBLE: i64 = 11;

/// `TensorProto` as a matrix, and its type. What has one dimension is a row.
fn tensor(message: &Message) -> (Array2<f64>, i64) {
    let (data_type, raw) = (message.number(2), message.bytes(9)[0]);
    let numbers: Vec<f64> = match data_type {
        FLOAT => raw.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect(),
        DOUBLE => raw.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
        other => panic!("type {other}"),
    };
    let dim = match message.numbers(1)[..] {
        [rows, columns] => (rows as usize, columns as usize),
        [columns] => (1, columns as usize),
        ref other => panic!("{other:?}"),
    };
    (Array2::from_shape_vec(dim, numbers).unwrap(), data_type)
}

/// The name, the type and the dimensions of an input or output.
fn value_info<'a>(message: &Message<'a>) -> (&'a str, i64, Vec<String>) {
    let of_tensor = message.message(2).message(1);
    let dimensions = of_tensor.message(2).messages(1);
    let text = |dimension: &Message| match dimension.texts(2)[..] {
        [name] => name.to_owned(),
        _ => dimension.number(1).to_string(),
    };
    (message.text(1), of_tensor.number(1), dimensions.iter().map(text).collect())
}

/// One operator on double precision; a cast to FLOAT rounds.
fn apply(node: &Message, inputs: &[&(Array2<f64>, i64)]) -> (Array2<f64>, i64) {
    let &(ref x, mut data_type) = inputs[0];
    let attribute = node.messages(5).first().map(|attribute| {
        assert_eq!(attribute.number(20), 2, "an attribute of type INT");
        (attribute.text(1), attribute.number(3))
    });
    let other = |i: usize| {
        assert_eq!(inputs[i].1, data_type, "operands of one type");
        &inputs[i].0
    };
    let row = |f: fn(f64, f64) -> f64| Array2::from_shape_fn(x.dim(), |(i, j)| f(x[(i, j)], other(1)[(0, j)]));
    let y = match (node.text(4), attribute) {
        ("Cast", Some(("to", to))) => {
            data_type = to;
            if to == FLOAT { x.mapv(|x| f64::from(x as f32)) } else { x.clone() }
        }
        ("Sub", None) => row(|x, mean| x - mean),
        ("Mul", None) => row(|x, factor| x * factor),
        ("Gemm", Some(("transB", 1))) => {
            let w = other(1);
            assert_eq!(x.ncols(), w.ncols());
            Array2::from_shape_fn((x.nrows(), w.nrows()), |(i, j)| {
                let sum: f64 = (0..x.ncols()).map(|k| x[(i, k)] * w[(j, k)]).sum();
                sum + if inputs.len() == 3 { other(2)[(0, j)] } else { 0.0 }
            })
        }
        ("Relu", None) => x.mapv(|x| x.max(0.0)),
        ("Sigmoid", None) => x.mapv(|x| 1.0 / (1.0 + (-x).exp())),
        ("Softmax", Some(("axis", -1))) => {
            let mut y = x.clone();
            for mut y in y.outer_iter_mut() {
                let largest = y.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                y.mapv_inplace(|y| (y - largest).exp());
                let sum: f64 = y.iter().sum();
                y.mapv_inplace(|y| y / sum);
            }
            y
        }
        (operator, attribute) => panic!("{operator} with {attribute:?}"),
    };
    (y, data_type)
}

/// What the graph of a file makes of x, and the operators on the way.
pub(crate) fn evaluate<F: Real>(bytes: &[u8], x: ArrayView2<F>) -> (Array2<f64>, Vec<String>) {
    let graph = Message::parse(bytes).message(7);
    let data_type = if size_of::<F>() == 4 { FLOAT } else { DOUBLE };
    let (input, of_input, columns) = value_info(&graph.message(11));
    assert_eq!((of_input, columns), (data_type, vec!["batch".to_owned(), x.ncols().to_string()]));
    let mut values = BTreeMap::from([(input, (x.mapv(|x| x.to_f64()), data_type))]);
    values.extend(graph.messages(5).iter().map(|constant| (constant.text(8), tensor(constant))));
    let mut operators = Vec::new();
    for node in graph.messages(1) {
        let inputs: Vec<_> = node.texts(1).into_iter().map(|name| &values[name]).collect();
        let y = apply(&node, &inputs);
        operators.push(node.text(4).to_owned());
        assert!(values.insert(node.text(2), y).is_none(), "each value is computed once");
    }
    let (output, of_output, columns) = value_info(&graph.message(12));
    let (y, found) = values.remove(output).unwrap();
    assert_eq!((of_output, columns), (found, vec!["batch".to_owned(), y.ncols().to_string()]));
    assert_eq!(found, data_type);
    (y, operators)
}

fn expected_operators(depth: usize, is_double: bool, standardized: bool, output: OutputFunction) -> Vec<String> {
    let standardize: &[&str] = match (standardized, is_double) {
        (false, _) => &[],
        (true, true) => &["Sub", "Mul"],
        (true, false) => &["Cast", "Sub", "Mul", "Cast"],
    };
    let output: &[&str] = match output {
        OutputFunction::Identity => &[],
        OutputFunction::Softmax => &["Softmax"],
        OutputFunction::Sigmoid => &["Sigmoid"],
    };
    [standardize, &["Gemm", "Relu"].repeat(depth), &["Gemm"], output].concat().into_iter().map(str::to_owned).collect()
}

/// A model of each kind, in turn.
fn models<F: Real>() -> Vec<Model<F>> {
    let mut models = Vec::new();
    for (seed, widths) in (1..).zip([&[3, 1][..], &[1, 1, 1], &[1, 7, 2], &[7, 45, 1, 129, 7], &[129, 45, 2], &[20, 4]])
    {
        for bias in [Bias::Input, Bias::EveryLayer, Bias::None] {
            let mlp = common::network::<F>(widths, bias, seed);
            // Columns of large numbers that differ little: a mean in f32 would shift them.
            let mut x = common::uniform::<F>(50, widths[0], seed + 1);
            x.indexed_iter_mut().for_each(|((_, j), x)| *x = F::from_f64(x.to_f64() + 3e4 * j as f64));
            models.push(Model { mlp: mlp.clone(), standardizer: Some(Standardizer::fit(x.view()).unwrap()) });
            models.push(Model::from(mlp));
        }
    }
    models
}

fn says_what_the_model_computes<F: Real>() {
    for model in models::<F>() {
        let (inputs, outputs) = (model.mlp.inputs(), model.mlp.outputs());
        let mut x = common::uniform::<F>(9, inputs, 8);
        if model.standardizer.is_some() {
            x.indexed_iter_mut().for_each(|((_, j), x)| *x = F::from_f64(x.to_f64() + 3e4 * j as f64));
        }
        let plain = model.to_onnx(&OnnxExport::default()).unwrap();
        let (y_hat, operators) = evaluate(&plain, x.view());
        let is_double = size_of::<F>() == 8;
        let depth = model.mlp.depth();
        let standardized = model.standardizer.is_some();
        assert_eq!(operators, expected_operators(depth, is_double, standardized, OutputFunction::Identity));
        let z = model.standardizer.as_ref().map_or(x.clone(), |standardizer| standardizer.transform(x.view()).unwrap());
        let (bounds, ours) = (common::output_bounds(&model.mlp, z.view()), model.predict(x.view()).unwrap());
        for ((e, y_hat), ours) in bounds.outer_iter().zip(y_hat.outer_iter()).zip(ours.outer_iter()) {
            let e = e.to_vec();
            let ours: Vec<f64> = ours.iter().map(|y| y.to_f64()).collect();
            common::assert_within("ŷ", y_hat.as_slice().unwrap(), &e, &ours, &e);
        }
        for output in [OutputFunction::Softmax, OutputFunction::Sigmoid] {
            if outputs == 1 && output == OutputFunction::Softmax {
                continue;
            }
            let bytes = model.to_onnx(&OnnxExport { output, ..OnnxExport::default() }).unwrap();
            let (p, operators) = evaluate(&bytes, x.view());
            assert_eq!(operators, expected_operators(depth, is_double, standardized, output));
            // The same ŷ, to which the last node has been applied.
            for (p, y_hat) in p.outer_iter().zip(y_hat.outer_iter()) {
                let sum: f64 = y_hat.iter().map(|y| y.exp()).sum();
                for (p, y_hat) in p.iter().zip(y_hat) {
                    let expected = match output {
                        OutputFunction::Softmax => y_hat.exp() / sum,
                        _ => 1.0 / (1.0 + (-y_hat).exp()),
                    };
                    // A few roundings and those of exp, of numbers up to 700 and thus of 10 bits.
                    assert!((p - expected).abs() <= expected * common::gamma(outputs + 2000, f64::EPSILON));
                }
            }
        }
    }
}

#[test]
fn the_graph_says_what_the_model_computes_in_f32() {
    says_what_the_model_computes::<f32>();
}

#[test]
fn the_graph_says_what_the_model_computes_in_f64() {
    says_what_the_model_computes::<f64>();
}

#[test]
fn the_file_says_where_it_comes_from_and_how_to_use_it() {
    let model = Model::from(common::network::<f32>(&[4, 5, 3], Bias::EveryLayer, 1));
    let classes = vec!["setosa".to_owned(), "versi \"é\"\n".into(), String::new()];
    let export = OnnxExport { output: OutputFunction::Softmax, classes: classes.clone() };
    let bytes = model.to_onnx(&export).unwrap();
    let file = Message::parse(&bytes);
    assert_eq!((file.number(1), file.text(2), file.text(3)), (7, "gemmprop", env!("CARGO_PKG_VERSION")));
    let operators = file.message(8);
    assert_eq!((operators.text(1), operators.number(2)), ("", 13));
    let entry = file.message(14);
    assert_eq!(entry.text(1), "classes");
    assert_eq!(serde_json::from_str::<Vec<String>>(entry.text(2)).unwrap(), classes);
    let graph = file.message(7);
    let float = |columns: usize| (FLOAT, vec!["batch".to_owned(), columns.to_string()]);
    let (input, output) = (graph.message(11), graph.message(12));
    assert_eq!(value_info(&input), ("x", float(4).0, float(4).1));
    assert_eq!(value_info(&output), ("y", float(3).0, float(3).1));
    assert_eq!((input.text(3), output.text(3)), ("samples in rows", "softmax(ŷ)"));
    let constants: Vec<_> = graph.messages(5).iter().map(|constant| constant.text(8)).collect();
    assert_eq!(constants, ["w_0", "c_0", "alpha", "b"]);
    let names: Vec<_> = graph.messages(1).iter().map(|node| node.text(3)).collect();
    assert_eq!(names, ["Gemm_0", "Relu_1", "Gemm_2", "Softmax_3"]);
    // Without names of classes there is no entry, and equal models make equal bytes.
    let without = OnnxExport { classes: Vec::new(), ..export };
    assert_eq!(Message::parse(&model.to_onnx(&without).unwrap()).messages(14).len(), 0);
    assert_eq!(model.to_onnx(&without).unwrap(), model.clone().to_onnx(&without).unwrap());
}

fn refused(model: &Model<f64>, export: &OnnxExport, text: &str) -> ExchangeError {
    let error = model.to_onnx(export).unwrap_err();
    assert_eq!(error.to_string(), text);
    error
}

#[test]
fn what_has_no_meaning_is_refused() {
    let one = Model::from(common::network::<f64>(&[2, 3, 1], Bias::Input, 1));
    let softmax = OnnxExport { output: OutputFunction::Softmax, ..OnnxExport::default() };
    let text = "output: expected a network with 2 outputs or more for softmax, found 1";
    assert!(matches!(refused(&one, &softmax, text), ExchangeError::Softmax { found: 1 }));
    let names = |count| OnnxExport { classes: vec!["name".into(); count], ..OnnxExport::default() };
    let text = "classes: expected 2 names, one for each class of the output, found 1";
    assert!(matches!(refused(&one, &names(1), text), ExchangeError::Classes { expected: 2, found: 1 }));
    assert!(one.to_onnx(&names(2)).is_ok());
    let mut three = Model::from(common::network::<f64>(&[2, 3, 3], Bias::Input, 1));
    refused(&three, &names(2), "classes: expected 3 names, one for each class of the output, found 2");
    three.mlp.parameters_mut().c_mut().next().unwrap()[1] = f64::NAN;
    let error = refused(&three, &names(0), "parameters[7]: expected a finite number, found NaN");
    assert!(matches!(error, ExchangeError::Model(Error::NotFinite { column: 7, .. })));
    let standardizer = Some(Standardizer::fit(common::uniform::<f64>(5, 3, 1).view()).unwrap());
    let other = Model { standardizer, ..one };
    let error = refused(&other, &names(0), "standardizer: expected shape [2], found [3]");
    assert!(matches!(error, ExchangeError::Model(Error::Shape { .. })));
}

#[test]
fn a_file_is_replaced_and_nothing_else_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net.onnx");
    let export = OnnxExport::default();
    for seed in 1..3 {
        let model = Model::from(Mlp::<f32>::he(&[2, 3], Bias::None, seed).unwrap());
        model.write_onnx(&path, &export).unwrap();
        assert_eq!(fs::read(&path).unwrap(), model.to_onnx(&export).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
    let before = fs::read(&path).unwrap();
    let model = Model::from(Mlp::<f32>::he(&[2, 1], Bias::None, 1).unwrap());
    let softmax = OnnxExport { output: OutputFunction::Softmax, ..OnnxExport::default() };
    assert!(model.write_onnx(&path, &softmax).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    // What cannot be renamed is removed, and the error names the path.
    let taken = directory.path().join("taken");
    fs::create_dir(&taken).unwrap();
    for refused in [directory.path().join("absent").join("net.onnx"), taken] {
        let error = model.write_onnx(&refused, &export).unwrap_err();
        assert!(matches!(error, ExchangeError::Io { .. }));
        assert!(error.to_string().starts_with(&*refused.to_string_lossy()), "{error}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    for nameless in ["", "..", "/"] {
        let error = model.write_onnx(nameless, &export).unwrap_err();
        let ExchangeError::Io { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::InvalidInput, "nothing is tried: {source}");
    }
}
