//! A self-test of the linked BLAS: a library that is linked wrongly has been known to answer with
//! zeros. Runs once in a process, before the first call, and takes microseconds.

use ndarray::{Array1, Array2};

use crate::error::{Error, Result};
use crate::linalg::products::Kernels;

/// The order of the matrices: beyond the sizes for which libraries have special code for small
/// operands.
const N: usize = 40;

/// Multiplies small integers, on which all arithmetic is exact.
///
/// # Errors
/// [`Error::BlasWrong`] with the first wrong product; `config` describes the library in it.
pub(crate) fn run(config: &str) -> Result<()> {
    match wrong_product(|value| value as f32).or_else(|| wrong_product(f64::from)) {
        Some(product) => Err(Error::BlasWrong { config: config.to_owned(), product }),
        None => Ok(()),
    }
}

/// The matrix A of the test: A_ij = value(i, j), small integers without a pattern that a wrong
/// stride would reproduce.
fn value(i: usize, j: usize) -> i32 {
    ((i * 7 + j * 3) % 11) as i32 - 5
}

/// Returns the name of the first wrong product, if there is one. `number` converts to `F`.
fn wrong_product<F: Kernels + PartialEq + Default>(number: impl Fn(i32) -> F) -> Option<&'static str> {
    let stored = Array2::from_shape_fn((N, N), |(i, j)| number(value(i, j)));
    let stored_transposed = Array2::from_shape_fn((N, N), |(i, j)| number(value(j, i)));
    // Two views of the same A: BLAS reads the second one with the flag "transposed".
    let (a, a_t) = (stored.view(), stored_transposed.t());
    let x = Array1::from_shape_fn(N, |i| number(value(i, 1)));

    let square = |i: usize, j: usize| -> i32 { (0..N).map(|l| value(i, l) * value(l, j)).sum() };
    let expected = Array2::from_shape_fn((N, N), |(i, j)| number(square(i, j)));
    let mut c = Array2::default((N, N));
    for (name, left, right) in [("gemm NN", a, a), ("gemm NT", a, a_t), ("gemm TN", a_t, a)] {
        F::gemm(number(1), left, right, number(0), c.view_mut());
        if c != expected {
            return Some(name);
        }
    }

    // x is column 1 of A, so A x is column 1 of A A.
    let expected = Array1::from_shape_fn(N, |i| number(square(i, 1)));
    let mut y = Array1::default(N);
    for (name, left) in [("gemv N", a), ("gemv T", a_t)] {
        F::gemv(number(1), left, x.view(), number(0), y.view_mut());
        if y != expected {
            return Some(name);
        }
    }

    c.fill(number(0));
    F::ger(number(1), x.view(), x.view(), c.view_mut());
    let expected = Array2::from_shape_fn((N, N), |(i, j)| number(value(i, 1) * value(j, 1)));
    (c != expected).then_some("ger")
}
