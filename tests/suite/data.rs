//! Files: each format is read as it was written, and a damaged file gives an error that names what
//! was expected and found.
#![cfg(feature = "files")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use gemmprop::data::{self, ReadError};
use ndarray::{Array1, Array2, Array3, ShapeBuilder, arr0, array};
use ndarray_npy::{NpzWriter, WritableElement, WriteNpyExt, write_npy};
use proptest::prelude::*;
use tempfile::TempDir;

/// A temporary folder, and files in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

/// The error's text, without the folder.
fn message<T: std::fmt::Debug>(result: Result<T, ReadError>, folder: &Folder) -> String {
    result.unwrap_err().to_string().replace(&format!("{}/", folder.0.path().display()), "")
}

fn npy_bytes<T: WriteNpyExt>(array: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    bytes
}

/// A version 1 file with this header and these numbers.
fn raw_npy(header: &str, numbers: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len() + 1).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(numbers);
    bytes
}

fn raw_header(dtype: &str, shape: &str) -> String {
    format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}")
}

fn npz_bytes(compressed: bool) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut npz = if compressed { NpzWriter::new_compressed(&mut bytes) } else { NpzWriter::new(&mut bytes) };
    npz.add_array("x", &array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.5_f32]]).unwrap();
    npz.add_array("y", &array![2_u8, 0, 1]).unwrap();
    npz.finish().unwrap();
    bytes.into_inner()
}

fn idx_bytes(shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(shape.len()).unwrap()];
    bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes, reads both number types, C and Fortran order, one and two dimensions, and labels.
fn npy_round_trip<A: WritableElement + Copy + Into<f64>>(values: [A; 6], are_labels: bool) {
    let folder = Folder::new();
    let path = folder.path("a.npy");
    let c = Array2::from_shape_vec((2, 3), values.to_vec()).unwrap();
    // Of the same entries, in the other order.
    let mut fortran = Array2::from_elem((2, 3).f(), values[0]);
    fortran.assign(&c);
    for x in [c, fortran] {
        write_npy(&path, &x).unwrap();
        let read = data::npy::<f64>(&path).unwrap();
        assert_eq!(read, x.mapv(Into::into));
        assert!(read.is_standard_layout());
        assert_eq!(data::npy::<f32>(&path).unwrap(), x.mapv(|x| x.into() as f32));
    }
    let y = Array1::from(values.to_vec());
    write_npy(&path, &y).unwrap();
    let y = y.mapv(Into::into);
    assert_eq!(data::npy::<f64>(&path).unwrap(), y.clone().insert_axis(ndarray::Axis(1)));
    if are_labels {
        assert_eq!(data::npy_labels(&path).unwrap(), y.mapv(|y| y as usize));
    } else {
        let row = y.iter().position(|&y| y < 0.0 || y.fract() != 0.0).unwrap();
        let error = data::npy_labels(&path).unwrap_err();
        assert!(matches!(error, ReadError::Label { row: r, found, .. } if r == row && found == y[row]), "{error}");
    }
}

#[test]
fn npy_of_every_dtype() {
    npy_round_trip([0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0], true);
    npy_round_trip([0.25_f32, -1.5, f32::MAX, f32::MIN_POSITIVE, 4.0, 5.0], false);
    npy_round_trip([0.0_f64, 1.0, 2.0, 3.0, 4.0, 5.0], true);
    npy_round_trip([0.1_f64, -1.5, 1e300, 5e-324, 4.0, 5.0], false);
    npy_round_trip([0_i8, 1, 2, 3, 4, i8::MAX], true);
    npy_round_trip([0_i8, 1, i8::MIN, 3, 4, 5], false);
    npy_round_trip([0_i16, 1, 2, 3, 4, i16::MAX], true);
    npy_round_trip([0_i16, 1, i16::MIN, 3, 4, 5], false);
    npy_round_trip([0_i32, 1, 2, 3, 4, i32::MAX], true);
    npy_round_trip([0_i32, 1, i32::MIN, 3, 4, 5], false);
    npy_round_trip([0_u8, 1, 2, 3, 4, u8::MAX], true);
    npy_round_trip([0_u16, 1, 2, 3, 4, u16::MAX], true);
    npy_round_trip([0_u32, 1, 2, 3, 4, u32::MAX], true);
    npy_round_trip([false, true, true, false, false, true], true);
}

#[test]
fn npy_of_eight_byte_integers() {
    let folder = Folder::new();
    let path = folder.path("a.npy");
    write_npy(&path, &array![0_i64, -7, i64::MIN]).unwrap();
    assert_eq!(data::npy::<f64>(&path).unwrap(), array![[0.0], [-7.0], [i64::MIN as f64]]);
    write_npy(&path, &array![3_i64, (1 << 53) - 1]).unwrap();
    assert_eq!(data::npy_labels(&path).unwrap(), array![3, (1 << 53) - 1]);
    write_npy(&path, &array![3_u64, (1 << 53) - 1]).unwrap();
    assert_eq!(data::npy::<f32>(&path).unwrap(), array![[3.0], [((1_u64 << 53) - 1) as f32]]);
    assert_eq!(data::npy_labels(&path).unwrap(), array![3, (1 << 53) - 1]);
    write_npy(&path, &array![3_u64, u64::MAX]).unwrap();
    let text = "a.npy: label 1: expected a whole number from 0 to below 2^53, found 1.8446744073709552e19";
    assert_eq!(message(data::npy_labels(&path), &folder), text);
}

#[test]
fn a_label_of_2_to_53_and_one_is_not_rounded_into_range() {
    let folder = Folder::new();
    let path = folder.path("a.npy");
    write_npy(&path, &array![(1_u64 << 53) + 1]).unwrap();
    assert!(matches!(data::npy_labels(&path), Err(ReadError::Label { row: 0, .. })));
}

#[test]
fn labels_that_are_none() {
    let folder = Folder::new();
    for bad in [-1.0, 0.5, f64::NAN, f64::INFINITY] {
        let path = folder.write("a.npy", npy_bytes(&array![0.0, bad]));
        let text = format!("a.npy: label 1: expected a whole number from 0 to below 2^53, found {bad:?}");
        assert_eq!(message(data::npy_labels(&path), &folder), text);
    }
}

#[test]
fn npy_of_another_kind() {
    let folder = Folder::new();
    let dtypes = "expected f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 or b1";
    for dtype in ["<c8", "|O", "<U3", "|S5", "<M8", "<f44", "<f16", ">", "", "<<f4", "<\u{e9}"] {
        let path = folder.write("a.npy", raw_npy(&raw_header(dtype, "(1,)"), &[0; 8]));
        let text = format!("a.npy: dtype: {dtypes}, found {dtype:?}; x.astype('<f4') makes one of them");
        assert_eq!(message(data::npy::<f32>(&path), &folder), text);
    }
    let structure = "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (1,), }";
    let path = folder.write("a.npy", raw_npy(structure, &[0; 8]));
    let text = "a.npy: header: expected dtype, order and shape of plain numbers, \
                found \"{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': Fal\"…";
    assert_eq!(message(data::npy::<f32>(&path), &folder), text);

    let path = folder.write("a.npy", npy_bytes(&Array3::<f32>::zeros((2, 3, 4))));
    let text = "a.npy: shape: expected 1 or 2 dimensions, found 3 in [2, 3, 4]";
    assert_eq!(message(data::npy::<f32>(&path), &folder), text);
    let path = folder.write("a.npy", npy_bytes(&arr0(1.0)));
    assert_eq!(message(data::npy::<f32>(&path), &folder), "a.npy: shape: expected 1 or 2 dimensions, found 0 in []");
    let path = folder.write("a.npy", npy_bytes(&array![[1], [0]]));
    assert_eq!(message(data::npy_labels(&path), &folder), "a.npy: shape: expected 1 dimension, found 2 in [2, 1]");

    let path = folder.write("a.npy", b"\x93NUMPY\x04\x00");
    assert_eq!(message(data::npy::<f32>(&path), &folder), "a.npy: version: expected 1, 2 or 3, found 4");
    let path = folder.write("a.npy", "a,b\n1,2\n");
    let text = r#"a.npy: magic number: expected "\x93NUMPY", found "a,b\n1,""#;
    assert_eq!(message(data::npy::<f32>(&path), &folder), text);
}

#[test]
fn npy_too_short_or_too_long() {
    let folder = Folder::new();
    let bytes = npy_bytes(&array![[1.0, 2.0], [3.0, 4.0]]);
    let length = bytes.len();
    for end in 0..length {
        let path = folder.write("a.npy", &bytes[..end]);
        let error = data::npy::<f64>(&path).unwrap_err();
        assert!(matches!(error, ReadError::Length { found, expected, .. } if found == end as u64 && expected > found));
    }
    let path = folder.write("a.npy", &bytes[..length - 3]);
    let text = format!("a.npy: expected {length} bytes, found {}", length - 3);
    assert_eq!(message(data::npy::<f64>(&path), &folder), text);
    let path = folder.write("a.npy", [&bytes[..], &[0; 5]].concat());
    let text = format!("a.npy: expected {length} bytes, found {}", length + 5);
    assert_eq!(message(data::npy::<f64>(&path), &folder), text);
}

#[test]
fn npy_headers_that_claim_too_much() {
    let folder = Folder::new();
    let max = usize::MAX;
    let shapes = [
        "(1000000000000000,)",
        "(1000000000, 1000000)",
        &format!("({max},)"),
        &format!("({max}, {max})"),
        "(-1,)",
        "(1.5,)",
    ];
    for shape in shapes.into_iter().chain([&*format!("({max}0,)"), &*"9".repeat(5000)]) {
        for dtype in ["<f4", "<f8", "|u1"] {
            let path = folder.write("a.npy", raw_npy(&raw_header(dtype, shape), &[0; 100]));
            let error = data::npy::<f32>(&path).unwrap_err();
            assert!(matches!(error, ReadError::Length { .. } | ReadError::Content { .. }), "{error}");
        }
    }
    // No numbers in it, and yet not to be represented.
    let path = folder.write("a.npy", raw_npy(&raw_header("<f4", &format!("(0, {max})")), &[]));
    let text = format!("a.npy: shape: expected an array that fits into memory, found [0, {max}]");
    assert_eq!(message(data::npy::<f32>(&path), &folder), text);
    // A header of 4 GiB, in version 2.
    let path = folder.write("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}\n");
    let text = "a.npy: header: expected at most 10000 bytes, found 4294967295";
    assert_eq!(message(data::npy::<f32>(&path), &folder), text);
    // Nested: a parser that tries alternatives needs 2^30 steps, and one that recurses a deep
    // stack.
    for (open, close, depth) in [("[", "]", 30), ("{", "}", 30), ("(", ",)", 30), ("(", "", 9000), ("[", "", 9000)] {
        let path = folder.write("a.npy", raw_npy(&(open.repeat(depth) + &close.repeat(depth)), &[]));
        assert!(matches!(data::npy::<f32>(&path), Err(ReadError::Content { what: "header", .. })));
    }
}

#[test]
fn npy_of_version_2() {
    let folder = Folder::new();
    let header = raw_header("<f4", "(1, 2)") + "\n";
    let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
    bytes.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend([1.5_f32, -2.0].map(f32::to_le_bytes).concat());
    let path = folder.write("a.npy", bytes);
    assert_eq!(data::npy::<f64>(&path).unwrap(), array![[1.5, -2.0]]);
}

#[test]
fn npz_stored_and_compressed() {
    let folder = Folder::new();
    for compressed in [false, true] {
        let path = folder.write("a.npz", npz_bytes(compressed));
        assert_eq!(data::npz::<f64>(&path, "x").unwrap(), array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]]);
        assert_eq!(data::npz::<f32>(&path, "y").unwrap(), array![[2.0], [0.0], [1.0]]);
        assert_eq!(data::npz_labels(&path, "y").unwrap(), array![2, 0, 1]);
        let text = r#"a.npz: array: expected "z", found "x", "y""#;
        assert_eq!(message(data::npz::<f32>(&path, "z"), &folder), text);
        let text = "a.npz/x.npy: shape: expected 1 dimension, found 2 in [3, 2]";
        assert_eq!(message(data::npz_labels(&path, "x"), &folder), text);
    }
    let path = folder.write("a.npz", "no archive");
    assert!(matches!(data::npz::<f32>(&path, "x"), Err(ReadError::Io { .. })));
}

/// Headers that NumPy's own readers accept.
#[test]
fn npy_headers_of_other_writers() {
    let folder = Folder::new();
    let numbers = [1.5_f32, -2.0].map(f32::to_le_bytes).concat();
    for header in [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}",
        r#"{"descr": "<f4", "fortran_order": False, "shape": (1, 2)}"#,
        r#"{'shape': (1, 2), "fortran_order": False, 'descr': "<f4"}"#,
        "{'fortran_order':False,'shape':(1,2),'descr':'<f4'}",
        "  {  'shape' : ( 1 , 2 , ) , 'descr' : '<f4' , 'fortran_order' : True , }  ",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 2L)}",
        "{'descr': 'f4', 'fortran_order': False, 'shape': (1, 2)}",
        "{'descr': '=f4', 'fortran_order': False, 'shape': (1, 2)}",
    ] {
        let path = folder.write("a.npy", raw_npy(header, &numbers));
        assert_eq!(data::npy::<f64>(&path).unwrap(), array![[1.5, -2.0]], "{header}");
        assert!(!data::npy_any(&path).unwrap().whole);
    }
    // Its numbers are the signs ', < and f: what is guessed from the bytes is guessed wrong.
    let header = format!(r#"{{"shape": (3L,), {}"fortran_order": False, "descr": "|u1"}}"#, " ".repeat(300));
    let path = folder.write("a.npy", raw_npy(&header, &[39, 60, 102]));
    let array = data::npy_any(&path).unwrap();
    assert_eq!((array.numbers.clone(), array.whole), (array![[39.0], [60.0], [102.0]], true));
    assert_eq!(array.labels().unwrap(), array![39, 60, 102]);
}

#[test]
fn npy_of_the_other_byte_order() {
    let folder = Folder::new();
    let read = |dtype: &str, bytes: &[u8]| {
        let path = folder.write("a.npy", raw_npy(&raw_header(dtype, "(2,)"), bytes));
        let array = data::npy_any(path).unwrap();
        (array.numbers.into_raw_vec_and_offset().0, array.whole)
    };
    assert_eq!(read(">f4", &[1.5_f32, -0.1].map(f32::to_be_bytes).concat()), (vec![1.5, f64::from(-0.1_f32)], false));
    assert_eq!(read(">f8", &[1e300, -0.1].map(f64::to_be_bytes).concat()), (vec![1e300, -0.1], false));
    assert_eq!(read(">i2", &[258_i16, -2].map(i16::to_be_bytes).concat()), (vec![258.0, -2.0], true));
    assert_eq!(read(">i8", &[1_i64 << 40, -2].map(i64::to_be_bytes).concat()), (vec![2_f64.powi(40), -2.0], true));
    assert_eq!(read(">u4", &[u32::MAX, 1].map(u32::to_be_bytes).concat()), (vec![4_294_967_295.0, 1.0], true));
    assert_eq!(read(">f2", &[0x3c, 0x00, 0xc0, 0x01]), (vec![1.0, -2.0 - 2_f64.powi(-9)], false));
    assert_eq!(read("|b1", &[0, 2]), (vec![0.0, 1.0], true));
}

/// All of them: a half's bits count the numbers from 0 up, which lie 2^-24 apart in the first two
/// binades and twice as far in each next.
#[test]
fn npy_of_half_precision() {
    let folder = Folder::new();
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let path = folder.write("a.npy", raw_npy(&raw_header("<f2", "(65536,)"), &bytes));
    let halves = data::npy::<f64>(&path).unwrap().into_raw_vec_and_offset().0;
    let mut expected = 0.0;
    for bits in 0..0x7c00 {
        assert_eq!(halves[bits].to_bits(), f64::to_bits(expected), "{bits:#x}");
        assert_eq!(halves[bits + 0x8000].to_bits(), f64::to_bits(-expected), "{bits:#x}");
        expected += 2_f64.powi((bits as i32 >> 10).max(1) - 25);
    }
    assert_eq!((halves[0x3c00], halves[0x7bff], expected), (1.0, 65504.0, 65536.0));
    assert_eq!((halves[0x7c00], halves[0xfc00]), (f64::INFINITY, f64::NEG_INFINITY));
    assert!(halves[0x7c01..0x8000].iter().chain(&halves[0xfc01..]).all(|half| half.is_nan()));
    let y = folder.write("y.npy", raw_npy(&raw_header("<f2", "(2,)"), &[0x00, 0x40, 0x00, 0x3e]));
    let text = "y.npy: label 1: expected a whole number from 0 to below 2^53, found 1.5";
    assert_eq!(message(data::npy_labels(y), &folder), text);
}

/// The sizes in the directory and before the array say 4 GiB less 2; the array's own header is what
/// counts.
#[test]
fn npz_with_a_size_that_is_none() {
    let folder = Folder::new();
    for compressed in [false, true] {
        let mut bytes = npz_bytes(compressed);
        for (signature, size) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
            for at in (0..bytes.len() - 46).rev().filter(|&at| bytes[at..].starts_with(signature)).collect::<Vec<_>>() {
                bytes[at + size..at + size + 4].copy_from_slice(&0xffff_fffe_u32.to_le_bytes());
            }
        }
        let path = folder.write("a.npz", bytes);
        let read = data::npz::<f64>(&path, "x");
        assert!(read.is_err() || read.unwrap() == array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]]);
    }
}

/// A directory of 2^40 files at 2^41, in zip's 64-bit extension.
#[test]
fn npz_with_more_files_than_bytes() {
    let folder = Folder::new();
    let mut bytes = b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([1_u64 << 40, 1 << 40, 46 << 40, 1 << 41].map(u64::to_le_bytes).concat());
    bytes.extend(b"PK\x06\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0");
    bytes.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    let path = folder.write("a.npz", bytes);
    assert!(matches!(data::npz::<f32>(&path, "x"), Err(ReadError::Io { .. })));
}

const TABLE: &str = "age, height,class\n 1,2.5,b\n3,-4e1, a \n5,6,b\n";

#[test]
fn csv_of_numbers() {
    let folder = Folder::new();
    let path = folder.write("a.csv", TABLE.replace('b', "7").replace(" a ", "-8.5"));
    let table = data::csv_numbers::<f64>(&path, "class").unwrap();
    assert_eq!(table.columns, ["age", "height"]);
    assert_eq!(table.x, array![[1.0, 2.5], [3.0, -40.0], [5.0, 6.0]]);
    assert_eq!(table.y, array![[7.0], [-8.5], [7.0]]);
    let table = data::csv_numbers::<f32>(&path, "age").unwrap();
    assert_eq!(table.columns, ["height", "class"]);
    assert_eq!(table.x, array![[2.5, 7.0], [-40.0, -8.5], [6.0, 7.0]]);
    assert_eq!(table.y, array![[1.0], [3.0], [5.0]]);
}

#[test]
fn csv_of_classes() {
    let folder = Folder::new();
    let classes = |texts: &[&str]| {
        let rows: String = texts.iter().map(|text| format!("{text},1\n")).collect();
        let y = data::csv_classes::<f32>(folder.write("a.csv", format!("y,x\n{rows}")), "y").unwrap().y;
        (y.names, y.labels.to_vec())
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(classes(&["b", "a", "ä", "b"]), (owned(&["a", "b", "ä"]), vec![1, 0, 2, 1]));
    assert_eq!(classes(&["10", "9", "-1", "10"]), (owned(&["-1", "9", "10"]), vec![2, 1, 0, 2]), "by value");
    assert_eq!(classes(&["10", "9", "x"]), (owned(&["10", "9", "x"]), vec![0, 1, 2]), "as text");
    assert_eq!(classes(&["1.5", "1"]), (owned(&["1", "1.5"]), vec![1, 0]));
    assert_eq!(classes(&["\"a,\"\"b\"\"\"", "a"]), (owned(&["a", "a,\"b\""]), vec![1, 0]));
    // Three samples, one of the class "u\n4,v\n5,u", if the rest of the file were taken for a
    // field.
    let path = folder.write("a.csv", "a,y\n1,u\n2,v\n3,\"u\n4,v\n5,u\n");
    let text = r#"a.csv:4: expected a quote at the end of a field that begins with one, found no other after "\"u""#;
    assert_eq!(message(data::csv_classes::<f32>(&path, "y"), &folder), text);
    let path = folder.write("a.csv", "x,y\n1,a\n2,\n");
    let text = r#"a.csv:3: column "y": expected a class, found """#;
    assert_eq!(message(data::csv_classes::<f32>(&path, "y"), &folder), text);
}

#[test]
fn csv_whose_target_is_text_until_it_is_known_what_it_is() {
    let folder = Folder::new();
    let path = folder.write("a.csv", ",x,note,y\n0,1,a,7\n\n1,2,b, -1.5\n2,3,c,NA\n3,4,d,\n");
    let table = data::csv_texts::<f64>(&path, "y", &["", "note"]).unwrap();
    assert_eq!((table.columns, table.x), (vec!["x".to_owned()], array![[1.0], [2.0], [3.0], [4.0]]));
    assert_eq!(table.y.as_slice(), ["7", "-1.5", "NA", ""]);
    let text = r#"a.csv:5: column "y": expected a number, found "NA""#;
    assert_eq!(message(table.y.numbers::<f32>(), &folder), text);
    assert_eq!(message(table.y.classes(), &folder), r#"a.csv:6: column "y": expected a class, found """#);
    let error = Err::<(), _>(table.y.error(1, "a whole number"));
    assert_eq!(message(error, &folder), r#"a.csv:4: column "y": expected a whole number, found "-1.5""#);

    let path = folder.write("a.csv", "x,y\n1,10\n2,9\n3,10\n");
    let table = data::csv_texts::<f32>(&path, "y", &[""; 0]).unwrap();
    assert_eq!(table.y.numbers::<f64>().unwrap(), array![[10.0], [9.0], [10.0]]);
    assert_eq!(table.y.classes().unwrap(), data::csv_classes::<f32>(&path, "y").unwrap().y);
    for (without, text) in [
        ("z", r#"a.csv: column: expected "z", found "x", "y""#),
        ("x", r#"a.csv: columns: expected features beside "y", found none"#),
    ] {
        assert_eq!(message(data::csv_texts::<f32>(&path, "y", &[without]), &folder), text);
    }
}

#[test]
fn csv_by_names_of_columns() {
    let folder = Folder::new();
    // Neither text nor UTF-8 matters in a column that is not asked for.
    let text = [&b"age, note ,height,class\n 1,x,2.5,b\n3,\xff,-4e1, a \n5,,6,b\n"[..]].concat();
    let path = folder.write("a.csv", text);
    let class = data::class_of(&["b", "a"]);
    let table = data::csv_columns::<f64, _>(&path, &["height", "age"], "class", &class).unwrap();
    assert_eq!(table.columns, ["height", "age"]);
    assert_eq!(table.x, array![[2.5, 1.0], [-40.0, 3.0], [6.0, 5.0]]);
    assert_eq!(table.y, Some(vec![0, 1, 0]));
    let table = data::csv_columns::<f64, _>(&path, &["age".to_owned()], "species", &class).unwrap();
    assert_eq!((table.x, table.y), (array![[1.0], [3.0], [5.0]], None));
    let table = data::csv_columns::<f32, _>(&path, &["age"], "height", data::number::<f64>).unwrap();
    assert_eq!(table.y, Some(vec![2.5, -40.0, 6.0]));
    for (features, target, text) in [
        (["age", "weight"], "class", r#"a.csv: column: expected "weight", found "age", "note", "height", "class""#),
        (["age", "note"], "class", r#"a.csv:2: column "note": expected a number, found "x""#),
        (["age", "height"], "age", r#"a.csv:2: column "age": expected a known class, found "1""#),
        (["age", "height"], "note", r#"a.csv:2: column "note": expected a known class, found "x""#),
    ] {
        assert_eq!(message(data::csv_columns::<f32, _>(&path, &features, target, &class), &folder), text);
    }
    for (content, text) in [
        ("a,y,a\n1,b,2\n", r#"a.csv:1: column "a": expected a name for one column, found it twice"#),
        ("a,y\n1,b,2\n", "a.csv:2: expected 2 fields, as many as column names, found 3"),
        ("a,y\n", "a.csv: rows: expected at least one, found none"),
    ] {
        let path = folder.write("a.csv", content);
        assert_eq!(message(data::csv_columns::<f32, _>(&path, &["a"], "y", &class), &folder), text);
    }
}

/// Rounded as it is, it would be the next number after 1.
#[test]
fn csv_rounds_by_way_of_f64_in_every_reader() {
    let folder = Folder::new();
    let path = folder.write("a.csv", "a,y\n1.00000005960464477539062500000001,7\n");
    assert_eq!(data::csv_numbers::<f32>(&path, "y").unwrap().x, array![[1.0]]);
    assert_eq!(data::csv_classes::<f32>(&path, "y").unwrap().x, array![[1.0]]);
    let table = data::csv_columns::<f32, _>(&path, &["a"], "a", data::number::<f32>).unwrap();
    assert_eq!((table.x, table.y), (array![[1.0]], Some(vec![1.0])));
}

#[test]
fn csv_that_is_none() {
    let folder = Folder::new();
    let many = "7".repeat(1000) + "x";
    for (content, text) in [
        (&b""[..], "a.csv: file: expected a line of column names, found an empty file"),
        (b"\n\n", "a.csv: file: expected a line of column names, found an empty file"),
        (b"a,y\n", "a.csv: rows: expected at least one, found none"),
        (b"a,b\n1,2\n", r#"a.csv: column: expected "y", found "a", "b""#),
        (b"a b\n1 2\n", r#"a.csv: column: expected "y", found "a b""#),
        (b"y\n1\n", r#"a.csv: columns: expected features beside "y", found none"#),
        (
            b",a,y\n0,1,2\n",
            "a.csv: columns: expected a name for each, found none for column 1; \
             is it an index that pandas wrote? to_csv(\u{2026}, index=False) leaves it out",
        ),
        (b"\xff\xfea\0,\0y\0\n\0", "a.csv: file: expected UTF-8, found UTF-16"),
        (b"a,y\r\n1,2\r\n1,\0\r\n", "a.csv:3: expected text, found a byte of 0"),
        // Quotes that enclose no field. The line is that of the quote, or of the first of two.
        (
            b"a,y\n1,2\n2,\"3\n4,5\n6,7\n",
            r#"a.csv:3: expected a quote at the end of a field that begins with one, found no other after "\"3""#,
        ),
        (
            b"a,\"y",
            r#"a.csv:1: expected a quote at the end of a field that begins with one, found no other after "\"y""#,
        ),
        (
            b"a,y\n1,2\n2,\"3\n4,5\n\"6\",7\n",
            r#"a.csv:3: expected a field that ends with its second quote, found "6\",7" behind it"#,
        ),
        (b"a,y\n\"1\" x,2\n", r#"a.csv:2: expected a field that ends with its second quote, found "x,2" behind it"#),
        (
            b"a,y\n1,2\n3\",2\n",
            r#"a.csv:3: expected quotes around a whole field or none, and two in it for one, found "\",2""#,
        ),
        (
            b"a,y\n1, \"2\"\n",
            r#"a.csv:2: expected quotes around a whole field or none, and two in it for one, found "\"2\"""#,
        ),
        (b"a,y,a\n1,2,3\n", r#"a.csv:1: column "a": expected a name for one column, found it twice"#),
        (b"a,y\n1,2\nx,3\n", r#"a.csv:3: column "a": expected a number, found "x""#),
        (b"a,y\n1,2\n1,\n", r#"a.csv:3: column "y": expected a number, found """#),
        (b"a,y\n1,2\n3,nan\n", r#"a.csv:3: column "y": expected a finite number, found "nan""#),
        (b"a,y\n-inf,2\n", r#"a.csv:2: column "a": expected a finite number, found "-inf""#),
        (b"a,y\n1e40,2\n", r#"a.csv:2: column "a": expected a finite number, found "1e40""#),
        (b"a,y\n1,2\n1\n", "a.csv:3: expected 2 fields, as many as column names, found 1"),
        (b"a,y\n1,2,3\n", "a.csv:2: expected 2 fields, as many as column names, found 3"),
        (b"a,y\n1,\xff2\n", r#"a.csv:2: column "y": expected UTF-8, found "�2""#),
        (b"a,\xff\n1,2\n", r#"a.csv:1: expected UTF-8, found "�""#),
        // Lines as an editor counts them.
        (b"\n\na,y\n\n1,2\n\n\nx,2\n", r#"a.csv:8: column "a": expected a number, found "x""#),
        (b"a,y\r\n1,2\r\nx,2\r\n", r#"a.csv:3: column "a": expected a number, found "x""#),
        (b"a,y\r\n\r\n1,2\r\n\r\nx,2\r\n", r#"a.csv:5: column "a": expected a number, found "x""#),
        (b"a,y\n\"1\",2\nx,2", r#"a.csv:3: column "a": expected a number, found "x""#),
        (b"\"a\nb\",y\n1,2\nx,2\n", r#"a.csv:4: column "a\nb": expected a number, found "x""#),
        // Line ends of every kind, also in one file, and in quoted fields.
        (b"a,y\r1,2\rx,2\r", r#"a.csv:3: column "a": expected a number, found "x""#),
        (b"\r\ra,y\r\r1,2\r\r\rx,2", r#"a.csv:8: column "a": expected a number, found "x""#),
        (b"a,y\r1,2\n\r\n3,4\r\n\rx,2", r#"a.csv:6: column "a": expected a number, found "x""#),
        (b"a,y\n\"1\r\n\",2\n\"\r3\n\r\",4\nx,2", r#"a.csv:8: column "a": expected a number, found "x""#),
        (b"a,y\r\n\"1\r\n\",2\r\n\"x\ry\",2", r#"a.csv:4: column "a": expected a number, found "x\ry""#),
        (
            b"a,y\r1,2\r2,\"3\r4,5\r",
            r#"a.csv:3: expected a quote at the end of a field that begins with one, found no other after "\"3""#,
        ),
        (b"\xef\xbb\xbf\na,y,a\n", r#"a.csv:2: column "a": expected a name for one column, found it twice"#),
        (b"\xef\xbb\xbf\"a\",y\nx,2\n", r#"a.csv:2: column "a": expected a number, found "x""#),
        (b"\xef\xbb\xbfa,y\nx,2\n", r#"a.csv:2: column "a": expected a number, found "x""#),
        (b"\xef\xbb\xbf\na,y\nx,2\n", r#"a.csv:3: column "a": expected a number, found "x""#),
        (
            format!("a,y\n{many},2\n").as_bytes(),
            &format!("a.csv:2: column \"a\": expected a number, found \"{}\"…", &many[..60]),
        ),
    ] {
        let path = folder.write("a.csv", content);
        assert_eq!(
            message(data::csv_numbers::<f32>(&path, "y"), &folder),
            text,
            "{:?}",
            content.escape_ascii().to_string()
        );
    }
    let error = data::csv_numbers::<f32>(folder.write("a.csv", "a,y\n\n1,b\n"), "y").unwrap_err();
    assert!(
        matches!(&error, ReadError::Line { line: 3, column: Some(column), expected, found, .. }
        if column == "y" && expected == "a number" && found == "\"b\""),
        "{error}"
    );
}

#[test]
fn idx_plain_and_compressed() {
    let folder = Folder::new();
    let images = idx_bytes(&[2, 2, 3], &[0, 51, 102, 153, 204, 255, 1, 2, 3, 4, 5, 6]);
    let labels = idx_bytes(&[3], &[7, 0, 255]);
    for [images, labels] in [[gzip(&images), gzip(&labels)], [images, labels]] {
        let path = folder.write("images", images);
        let expected = array![
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            [1.0 / 255.0, 2.0 / 255.0, 3.0 / 255.0, 4.0 / 255.0, 5.0 / 255.0, 6.0 / 255.0]
        ];
        assert_eq!(data::idx_images::<f64>(&path).unwrap(), expected);
        assert_eq!(data::idx_images::<f32>(&path).unwrap(), expected.mapv(|x| x as f32));
        let text = "images: shape: expected 1 dimension, found 3 in [2, 2, 3]";
        assert_eq!(message(data::idx_labels(&path), &folder), text);
        let path = folder.write("labels", labels);
        assert_eq!(data::idx_labels(&path).unwrap(), array![7, 0, 255]);
        let text = "labels: shape: expected 2 dimensions or more, found 1 in [3]";
        assert_eq!(message(data::idx_images::<f32>(&path), &folder), text);
    }
}

#[test]
fn idx_that_is_none() {
    let folder = Folder::new();
    let bytes = idx_bytes(&[2, 3], &[1; 6]);
    let max = u32::MAX;
    for (bytes, text) in [
        (&bytes[..15], "a: expected 18 bytes, found 15"),
        (&[&bytes[..], &[0; 4]].concat(), "a: expected 18 bytes, found 22"),
        (&bytes[..7], "a: expected 12 bytes, found 7"),
        (&bytes[..2], "a: expected 4 bytes, found 2"),
        (&gzip(&bytes[..15]), "a: expected 18 bytes, found 15"),
        (&gzip(&[&bytes[..], &[0; 4]].concat()), "a: expected 18 bytes, found 22"),
        (
            b"\0\0\x0d\x02",
            "a: magic number: expected 00 00 08 (unsigned bytes) and the number of dimensions, found [00, 00, 0d, 02]",
        ),
        (&idx_bytes(&[1 << 30, 1 << 20], &[0; 9]), "a: expected 1125899906842636 bytes, found 21"),
        (
            &idx_bytes(&[max; 3], &[0; 9]),
            &format!("a: shape: expected an array that fits into memory, found {:?}", [max; 3]),
        ),
        (
            &idx_bytes(&[0, max, max, max], &[]),
            &format!("a: shape: expected an array that fits into memory, found {:?}", [0, max, max, max]),
        ),
    ] {
        let path = folder.write("a", bytes);
        assert_eq!(message(data::idx_images::<f32>(&path), &folder), text);
    }
    // gzip's own damage: cut, with a wrong checksum, with something behind it.
    let packed = gzip(&bytes);
    let mut wrong = packed.clone();
    wrong[packed.len() - 6] ^= 1;
    for bytes in [&packed[..packed.len() - 4], &wrong, &[&packed[..], b"more"].concat()] {
        let error = data::idx_images::<f32>(folder.write("a", bytes)).unwrap_err();
        assert!(matches!(error, ReadError::Io { .. }), "{error}");
    }
}

/// Pairs of this many samples.
fn write_pair(folder: &Folder, images: &str, labels: &str, samples: u8) {
    let bytes = idx_bytes(&[samples.into(), 1, 2], &vec![samples; 2 * usize::from(samples)]);
    folder.write(images, if images.ends_with(".gz") { gzip(&bytes) } else { bytes });
    let bytes = idx_bytes(&[samples.into()], &vec![samples; samples.into()]);
    folder.write(labels, if labels.ends_with(".gz") { gzip(&bytes) } else { bytes });
}

#[test]
fn a_folder_with_train_and_test() {
    let folder = Folder::new();
    write_pair(&folder, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", 3);
    write_pair(&folder, "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte.gz", 2);
    folder.write("README.md", "idx3-ubyte");
    fs::create_dir(folder.path("other-images-idx3-ubyte")).unwrap();
    let found = data::idx_folder::<f32>(folder.0.path()).unwrap();
    assert_eq!((found.train.x.dim(), found.train.labels), ((3, 2), array![3, 3, 3]));
    let test = found.test.unwrap();
    assert_eq!((test.x.dim(), test.labels), ((2, 2), array![2, 2]));
    // An unpacked file takes precedence over the packed one.
    write_pair(&folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", 4);
    assert_eq!(data::idx_folder::<f32>(folder.0.path()).unwrap().train.x.dim(), (4, 2));
}

#[test]
fn a_folder_with_one_pair() {
    for (images, labels) in [
        ("mnist10k-images-idx3-ubyte", "mnist10k-labels-idx1-ubyte"),
        ("images-idx3-ubyte", "labels.idx1-ubyte.gz"),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ] {
        let folder = Folder::new();
        write_pair(&folder, images, labels, 2);
        let found = data::idx_folder::<f64>(folder.0.path()).unwrap();
        assert_eq!((found.train.x.dim(), found.test), ((2, 2), None));
    }
}

#[test]
fn a_folder_that_does_not_fit() {
    let expected = ": files: expected images and labels (*-images-idx3-ubyte, *-labels-idx1-ubyte) of train and t10k, \
                    or one such pair, found ";
    let unfit = |folder: &Folder, found: &str| {
        let error = data::idx_folder::<f32>(folder.0.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}{expected}{found}", folder.0.path().display()));
    };
    let folder = Folder::new();
    unfit(&folder, "none");
    write_pair(&folder, "a-images-idx3-ubyte", "a-labels-idx1-ubyte", 2);
    write_pair(&folder, "b-images-idx3-ubyte", "b-labels-idx1-ubyte", 2);
    unfit(&folder, r#""a-images-idx3-ubyte", "a-labels-idx1-ubyte", "b-images-idx3-ubyte", "b-labels-idx1-ubyte""#);
    let folder = Folder::new();
    write_pair(&folder, "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 2);
    unfit(&folder, r#""t10k-labels-idx1-ubyte", "train-images-idx3-ubyte""#);

    let folder = Folder::new();
    write_pair(&folder, "images-idx3-ubyte", "labels-idx1-ubyte", 2);
    folder.write("labels-idx1-ubyte", idx_bytes(&[3], &[0; 3]));
    let text = "labels-idx1-ubyte: labels: expected 2, one for each image, found 3";
    assert_eq!(message(data::idx_folder::<f32>(folder.0.path()), &folder), text);
}

#[test]
fn no_file() {
    let folder = Folder::new();
    let path = folder.path("none");
    let errors = every_reader(&path);
    assert_eq!(errors.len(), 11);
    for error in errors.into_iter().chain([data::idx_folder::<f32>(&path).err()]) {
        let error = error.unwrap();
        let not_found = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
        assert!(matches!(&error, ReadError::Io { path: p, source } if *p == path && not_found(source)), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

fn every_reader(path: &Path) -> Vec<Option<ReadError>> {
    vec![
        data::npy::<f32>(path).err(),
        data::npy_labels(path).err(),
        data::npy_any(path).err(),
        data::npz::<f32>(path, "x").err(),
        data::npz_labels(path, "y").err(),
        data::csv_numbers::<f32>(path, "class").err(),
        data::csv_classes::<f32>(path, "class").err(),
        data::csv_texts::<f32>(path, "class", &["age"]).err(),
        data::csv_columns::<f32, _>(path, &["height"], "class", data::class_of(&["a", "b"])).err(),
        data::idx_images::<f32>(path).err(),
        data::idx_labels(path).err(),
    ]
}

/// What comes through a pipe can be read once, and not be gone back in.
#[cfg(target_os = "linux")]
#[test]
fn every_reader_reads_from_a_pipe() {
    use std::os::fd::AsRawFd;
    let numbers = TABLE.replace('b', "7").replace(" a ", "8");
    let labels = idx_bytes(&[3], &[1, 2, 3]);
    type Read = fn(&Path) -> Result<usize, ReadError>;
    let readers: [(&[u8], Read); 13] = [
        (&npy_bytes(&array![[1.0], [2.0], [3.0]]), |path| Ok(data::npy::<f32>(path)?.nrows())),
        (&npy_bytes(&array![1, 2, 3]), |path| Ok(data::npy_labels(path)?.len())),
        (&npy_bytes(&array![1, 2, 3]), |path| Ok(data::npy_any(path)?.numbers.nrows())),
        (&npz_bytes(false), |path| Ok(data::npz::<f32>(path, "x")?.nrows())),
        (&npz_bytes(true), |path| Ok(data::npz::<f32>(path, "x")?.nrows())),
        (&npz_bytes(true), |path| Ok(data::npz_labels(path, "y")?.len())),
        (numbers.as_bytes(), |path| Ok(data::csv_numbers::<f32>(path, "class")?.x.nrows())),
        (TABLE.as_bytes(), |path| Ok(data::csv_classes::<f32>(path, "class")?.x.nrows())),
        (TABLE.as_bytes(), |path| Ok(data::csv_texts::<f32>(path, "class", &["age"])?.x.nrows())),
        (TABLE.as_bytes(), |path| {
            Ok(data::csv_columns::<f32, _>(path, &["age"], "height", data::number::<f32>)?.x.nrows())
        }),
        (&idx_bytes(&[3, 1, 1], &[1, 2, 3]), |path| Ok(data::idx_images::<f32>(path)?.nrows())),
        (&labels, |path| Ok(data::idx_labels(path)?.len())),
        (&gzip(&labels), |path| Ok(data::idx_labels(path)?.len())),
    ];
    for (i, (bytes, read)) in readers.into_iter().enumerate() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // They fit into what a pipe holds.
        writer.write_all(bytes).unwrap();
        drop(writer);
        let rows = read(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())));
        assert_eq!(rows.unwrap(), 3, "reader {i}");
    }
}

/// One file of each kind.
fn valid_files() -> Vec<Vec<u8>> {
    let images = idx_bytes(&[3, 2, 2], &[9; 12]);
    vec![
        npy_bytes(&array![[1.0_f32, 2.0], [3.0, 4.0]]),
        npy_bytes(&array![3_u8, 0, 7]),
        npz_bytes(false),
        npz_bytes(true),
        TABLE.into(),
        gzip(&images),
        images,
        idx_bytes(&[3], &[1, 2, 3]),
    ]
}

/// No panic, whatever the readers make of it.
fn read_by_all(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    every_reader(file.path());
}

#[test]
fn a_valid_file_cut_anywhere() {
    for bytes in valid_files() {
        (0..bytes.len()).for_each(|end| read_by_all(&bytes[..end]));
    }
}

#[test]
fn a_valid_file_with_any_byte_at_its_extremes() {
    for bytes in valid_files() {
        for at in 0..bytes.len() {
            for value in [0, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                read_by_all(&bytes);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>, magic in 0_usize..6) {
        let magic = [&b""[..], b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x1f\x8b\x08\0", b"\0\0\x08", b"a,class\n"][magic];
        read_by_all(&[magic, &bytes].concat());
    }

    #[test]
    fn any_header(text in "[-{}()\\[\\]'\":,0-9a-zA-Z<>|\\\\ +._]{0,60}", data: Vec<u8>) {
        read_by_all(&raw_npy(&text, &data));
    }

    #[test]
    fn any_shape(dtype in "[<|>=][fiucb][1-9]", shape: Vec<usize>, fortran: bool, data: Vec<u8>) {
        let shape: String = shape.iter().map(|d| format!("{d},")).collect();
        let header = raw_header(&dtype, &format!("({shape})"));
        let header = if fortran { header.replace("False", "True") } else { header };
        read_by_all(&raw_npy(&header, &data));
    }

    #[test]
    fn any_byte_of_a_valid_file(file in 0_usize..8, at: prop::sample::Index, value: u8) {
        let mut bytes = valid_files().swap_remove(file);
        let at = at.index(bytes.len());
        bytes[at] = value;
        read_by_all(&bytes);
    }

    #[test]
    fn any_text(text in "[-0-9a,\"\r\n .e]{0,80}") {
        read_by_all(format!("a,class\n{text}").as_bytes());
    }

    /// What is written is read: quotes, blanks and line ends in names and classes included.
    #[test]
    fn any_table(rows in prop::collection::vec(("[a-z\"',\n\r;é][a-z \"',\n\r;é]{0,5}[a-z]", -1e30_f32..1e30), 1..20)) {
        let folder = Folder::new();
        let mut writer = csv::Writer::from_writer(File::create(folder.path("a.csv")).unwrap());
        writer.write_record(["class", "x\n, \"y\""]).unwrap();
        rows.iter().for_each(|(class, x)| writer.write_record([class, &x.to_string()]).unwrap());
        drop(writer);
        let table = data::csv_classes::<f32>(folder.path("a.csv"), "class").unwrap();
        prop_assert_eq!(table.columns, ["x\n, \"y\""]);
        for (i, (class, x)) in rows.iter().enumerate() {
            prop_assert_eq!(&table.y.names[table.y.labels[i]], class.trim());
            prop_assert!((table.x[(i, 0)] - x).abs() <= x.abs() * f32::EPSILON);
        }
    }
}

#[test]
fn classes_are_those_that_occur() {
    let classes = data::label_classes(&array![10, 9, 1_000_000_000_000, 10]);
    assert_eq!(
        (classes.names, classes.labels),
        (vec!["9".into(), "10".into(), "1000000000000".into()], array![1, 0, 2, 1])
    );
    let none = data::label_classes(&Array1::from(Vec::new()));
    assert_eq!((none.names.len(), none.labels.len()), (0, 0));
}

#[test]
fn csv_of_each_separator() {
    let folder = Folder::new();
    let plain = data::csv_texts::<f64>(folder.write("a.csv", "a,b,y\n1,2,x\n3,4,z\n"), "y", &[""; 0]).unwrap();
    for text in [
        "a;b;y\n1;2;x\n3;4;z\n",
        "a\tb\ty\n1\t2\tx\n3\t4\tz\n",
        "sep=;\r\na;b;y\r\n1;2;x\r\n3;4;z\r\n",
        "\u{feff}sep=\t\na\tb\ty\n1\t2\tx\n3\t4\tz\n",
        "\"a\";b;\"y\"\n\"1\";2;x\n3;4;z\n",
    ] {
        let table = data::csv_texts::<f64>(folder.write("a.csv", text), "y", &[""; 0]).unwrap();
        assert_eq!((&table.columns, &table.x), (&plain.columns, &plain.x), "{text:?}");
        assert_eq!(table.y.as_slice(), plain.y.as_slice(), "{text:?}");
    }
    // What stands in names, as often as the separator, or within quotes, separates nothing.
    for (text, columns) in [
        ("m, s; kg, s;y\n1;2;x\n", ["m, s", "kg, s", "y"]),
        ("\"a;;;\",b,y\n1,2,x\n", ["a;;;", "b", "y"]),
        ("\"a;b;c;d\",y,z\n\"1;2;3;4\",5,6\n", ["a;b;c;d", "y", "z"]),
        ("a;b,c,y\n1,2,3\n", ["a;b", "c", "y"]),
    ] {
        assert_eq!(data::csv_table(folder.write("a.csv", text), None).unwrap().columns(), columns);
    }
    let path = folder.write("a.csv", "a|b\n1|2,5\n");
    let table = data::csv_table(&path, Some('|')).unwrap();
    assert_eq!(
        (table.columns(), table.text(0, 1), table.lines()),
        (&["a".to_owned(), "b".to_owned()][..], "2,5", &[2][..])
    );
    assert_eq!(table.column("b").unwrap(), 1);
    assert_eq!(message(table.column("c"), &folder), r#"a.csv: column: expected "c", found "a", "b""#);
    let error = Err::<(), _>(table.error(0, 1, "a number"));
    assert_eq!(message(error, &folder), r#"a.csv:2: column "b": expected a number, found "2,5""#);
    for separator in ['"', '\n', '\0', 'é'] {
        assert!(data::csv_table(&path, Some(separator)).is_err(), "{separator:?}");
    }
    let path = folder.write("a.csv", "sep=;\na;b\n1;2\n1;x;\n");
    assert_eq!(
        message(data::csv_table(&path, None), &folder),
        "a.csv:4: expected 2 fields, as many as column names, found 3"
    );
}
