//! Tests of the provider of products that is compiled.

use ndarray::{Array1, Array2};

use super::Kernels;

#[test]
#[should_panic(expected = "gemm: A (2, 3) times B (2, 2) does not give C (2, 2)")]
fn wrong_shapes_panic_with_all_of_them() {
    let (a, b, mut c) = (Array2::<f64>::zeros((2, 3)), Array2::zeros((2, 2)), Array2::zeros((2, 2)));
    f64::gemm(1.0, a.view(), b.view(), 0.0, c.view_mut());
}

/// Every layout the crate uses, against sums written out, on integers: all of it is exact.
#[test]
fn products_of_all_layouts() {
    for (m, k, n) in [(1, 1, 1), (1, 7, 1), (7, 1, 8), (8, 7, 1), (1, 5, 9), (45, 46, 33), (16, 129, 8)] {
        let value = |i: usize, j: usize| ((i * 7 + j * 3) % 11) as f64 - 5.0;
        let a = Array2::from_shape_fn((m, k), |(i, j)| value(i, j));
        let b = Array2::from_shape_fn((k, n), |(i, j)| value(j, i + 2));
        let c = Array2::from_shape_fn((m, n), |(i, j)| value(i + j, j));
        let expected = Array2::from_shape_fn((m, n), |(i, j)| {
            2.0 * (0..k).map(|l| a[(i, l)] * b[(l, j)]).sum::<f64>() - 3.0 * c[(i, j)]
        });
        let (a_t, b_t) = (a.t().as_standard_layout().into_owned(), b.t().as_standard_layout().into_owned());
        for (a, b) in [(a.view(), b.view()), (a.view(), b_t.t()), (a_t.t(), b.view()), (a_t.t(), b_t.t())] {
            let mut out = c.clone();
            f64::gemm(2.0, a, b, -3.0, out.view_mut());
            assert_eq!(out, expected, "gemm {m} {k} {n}");
            let mut nan = Array2::from_elem((m, n), f64::NAN);
            f64::gemm(1.0, a, b, 0.0, nan.view_mut());
            assert!(nan.iter().all(|v| v.is_finite()), "beta = 0 overwrites");
            let mut y = c.column(0).to_owned();
            f64::gemv(2.0, a, b.column(0), -3.0, y.view_mut());
            assert_eq!(y, expected.column(0), "gemv {m} {k}");
            let mut nan = Array1::from_elem(m, f64::NAN);
            f64::gemv(1.0, a, b.column(0), 0.0, nan.view_mut());
            assert!(nan.iter().all(|v| v.is_finite()), "beta = 0 overwrites");
        }
        let mut out = c.clone();
        f64::ger(2.0, a.column(0), b.row(0), out.view_mut());
        assert_eq!(out, Array2::from_shape_fn((m, n), |(i, j)| c[(i, j)] + 2.0 * a[(i, 0)] * b[(0, j)]), "ger {m} {n}");
    }
}
