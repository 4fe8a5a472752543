//! BLAS is reached, for every layout that the engine uses: this program brings its own CBLAS, which
//! counts its calls and multiplies by loops. A program's own symbols take precedence over those of
//! a shared library, so every product of the crate comes here.

#![cfg(all(feature = "blas", target_os = "linux"))]
#![allow(
    unsafe_code,
    reason = "the C interface of BLAS takes pointers; the crate's own unsafe stands in few files of src/"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use gemmprop::{
    Bias, Mlp, SquaredError,
    rungs::{batched, per_neuron},
};
use ndarray::{Array1, Array2};

static CALLS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

fn count(call: &str) {
    *CALLS.lock().unwrap().entry(call.to_owned()).or_default() += 1;
}

/// CBLAS's constants: row-major order, and operands as they lie or transposed.
const ROW_MAJOR: i32 = 101;
const AS_IT_LIES: i32 = 111;

fn letter(trans: i32) -> char {
    if trans == AS_IT_LIES { 'N' } else { 'T' }
}

/// Element (i, j) of op(A).
unsafe fn at(a: *const f64, ld: i32, trans: i32, i: usize, j: usize) -> f64 {
    let (i, j) = if trans == AS_IT_LIES { (i, j) } else { (j, i) };
    // SAFETY: the caller keeps (i, j) inside op(A).
    unsafe { *a.add(i * ld as usize + j) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cblas_dgemm(
    layout: i32,
    ta: i32,
    tb: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: f64,
    a: *const f64,
    lda: i32,
    b: *const f64,
    ldb: i32,
    beta: f64,
    c: *mut f64,
    ldc: i32,
) {
    assert_eq!(layout, ROW_MAJOR);
    count(&format!("gemm {}{}", letter(ta), letter(tb)));
    for i in 0..m as usize {
        for j in 0..n as usize {
            // SAFETY: CBLAS's contract, which the crate checks its arguments against.
            unsafe {
                let sum: f64 = (0..k as usize).map(|l| at(a, lda, ta, i, l) * at(b, ldb, tb, l, j)).sum();
                let c = c.add(i * ldc as usize + j);
                *c = alpha * sum + if beta == 0.0 { 0.0 } else { beta * *c };
            }
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cblas_dgemv(
    layout: i32,
    trans: i32,
    m: i32,
    n: i32,
    alpha: f64,
    a: *const f64,
    lda: i32,
    x: *const f64,
    incx: i32,
    beta: f64,
    y: *mut f64,
    incy: i32,
) {
    assert_eq!(layout, ROW_MAJOR);
    count(&format!("gemv {}", letter(trans)));
    let (rows, columns) = if trans == AS_IT_LIES { (m, n) } else { (n, m) };
    for i in 0..rows as usize {
        // SAFETY: as above.
        unsafe {
            let sum: f64 = (0..columns as usize).map(|j| at(a, lda, trans, i, j) * *x.add(j * incx as usize)).sum();
            let y = y.add(i * incy as usize);
            *y = alpha * sum + if beta == 0.0 { 0.0 } else { beta * *y };
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cblas_dger(
    layout: i32,
    m: i32,
    n: i32,
    alpha: f64,
    x: *const f64,
    incx: i32,
    y: *const f64,
    incy: i32,
    a: *mut f64,
    lda: i32,
) {
    assert_eq!(layout, ROW_MAJOR);
    count("ger");
    for i in 0..m as usize {
        for j in 0..n as usize {
            // SAFETY: as above.
            unsafe { *a.add(i * lda as usize + j) += alpha * *x.add(i * incx as usize) * *y.add(j * incy as usize) }
        }
    }
}

/// The calls that one gradient and one step of such a batch make, after a check against rung 2,
/// which makes none.
fn calls(widths: &[usize], batch: usize) -> BTreeMap<String, usize> {
    let mlp = Mlp::<f64>::he(widths, Bias::EveryLayer, 1).unwrap();
    let x = Array2::from_shape_fn((batch, widths[0]), |(i, j)| ((i * 31 + j * 17) % 13) as f64 - 6.0);
    let y = Array2::from_shape_fn((batch, widths[widths.len() - 1]), |(i, j)| ((i + j) % 5) as f64);
    let mut expected = mlp.zero_gradient();
    let mut one = mlp.zero_gradient();
    for (x, y) in x.outer_iter().zip(y.outer_iter()) {
        per_neuron::loss_gradient(&mlp, x, y.to_slice().unwrap(), &SquaredError, &mut one).unwrap();
        expected.iter_mut().zip(one.iter()).for_each(|(sum, g)| *sum += g / batch as f64);
    }
    CALLS.lock().unwrap().clear();
    let mut g = mlp.zero_gradient();
    batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, &mut g).unwrap();
    let calls = CALLS.lock().unwrap().clone();
    let largest = expected.iter().fold(0.0_f64, |largest, g| largest.max(g.abs()));
    for (g, expected) in g.iter().zip(expected.iter()) {
        assert!((g - expected).abs() <= 1e-9 * largest, "{g} and {expected}");
    }
    let mut stepped = mlp.clone();
    gemmprop::Sgd::new(batch, 0.125, 1).unwrap().step(&mut stepped, x.view(), y.view(), &SquaredError).unwrap();
    for ((stepped, theta), g) in stepped.parameters().iter().zip(mlp.parameters().iter()).zip(expected.iter()) {
        assert!((stepped - (theta - 0.125 * g)).abs() <= 1e-9 * largest);
    }
    CALLS.lock().unwrap().clear();
    mlp.predict(x.view()).unwrap();
    let predicted: usize = CALLS.lock().unwrap().values().sum();
    assert!(predicted >= widths.len() - 1, "predict reaches BLAS in each layer");
    calls
}

fn only(calls: &BTreeMap<String, usize>) -> Vec<&str> {
    calls.keys().map(String::as_str).collect()
}

/// One test, since the calls are counted globally.
#[test]
fn every_product_of_the_engine_reaches_blas() {
    // Before the first result the crate checks what it is linked with; those calls are not the
    // engine's.
    Mlp::<f64>::he(&[1, 1], Bias::Input, 1).unwrap().predict(Array2::zeros((1, 1)).view()).unwrap();
    // ndarray's own dispatch would send shapes of at most 7 to another kernel.
    for widths in [&[5, 6, 7, 3][..], &[16, 16, 16, 2], &[129, 45, 46, 10], &[300, 200, 150, 10]] {
        let calls = calls(widths, 33);
        // Forward Z wᵀ, backward Δ w, gradient Δᵀ Z, for each of three layers, in one tile or more;
        // backward stops at the first.
        assert_eq!(only(&calls), ["gemm NN", "gemm NT", "gemm TN"], "{widths:?}");
        assert!(calls["gemm NT"] >= 3 && calls["gemm NN"] >= 2 && calls["gemm TN"] >= 3, "{calls:?}");
    }
    // One output: the head is gemv, forward Z alphaᵀ and gradient Zᵀ ∂.
    assert_eq!(only(&calls(&[20, 30, 1], 33)), ["gemm NT", "gemm TN", "gemv N", "gemv T"]);
    // One sample: all of it is gemv, but for the gradient with β = 0, an outer product that gemm
    // writes. (Its column lies both ways at once, and is passed as it lies.)
    assert_eq!(only(&calls(&[20, 30, 10], 1)), ["gemm NN", "gemv N", "gemv T"]);
    // In a step (β = 1) it is ger.
    CALLS.lock().unwrap().clear();
    let mut mlp = Mlp::<f64>::he(&[20, 30, 10], Bias::Input, 1).unwrap();
    let (x, y) = (Array2::from_elem((1, 20), 1.0), Array2::from_elem((1, 10), 1.0));
    gemmprop::Sgd::new(1, 0.1, 1).unwrap().step(&mut mlp, x.view(), y.view(), &SquaredError).unwrap();
    assert_eq!(only(&CALLS.lock().unwrap().clone()), ["gemv N", "gemv T", "ger"]);
    // Rung 3, and rungs 1 and 2, which reach none.
    CALLS.lock().unwrap().clear();
    let x = Array1::from_elem(20, 1.0);
    let mut g = mlp.zero_gradient();
    gemmprop::rungs::naive::output_gradient(&mlp, x.view(), 0, &mut g).unwrap();
    per_neuron::output_gradient(&mlp, x.view(), 0, &mut g).unwrap();
    assert!(CALLS.lock().unwrap().is_empty(), "the oracle reaches no BLAS");
    gemmprop::rungs::matrix_vector::output_gradient(&mlp, x.view(), 0, &mut g).unwrap();
    assert_eq!(only(&CALLS.lock().unwrap().clone()), ["gemv N", "gemv T", "ger"]);
}
