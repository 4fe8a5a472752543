//! The products by CBLAS calls, whichever library provides them.
//!
//! CBLAS is called directly. ndarray's own dispatch would use another kernel for small shapes, with
//! other rounding errors and another speed.
//!
//! A CBLAS matrix is a pointer, a flag "transposed" and a *leading dimension*: the distance between
//! the starts of two neighbouring rows. The functions before the macro read these off ndarray
//! views, and panic on views that CBLAS cannot express.

#![allow(unsafe_code)]

use cblas_sys::{
    CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_ddot, cblas_dgemm, cblas_dgemv, cblas_dger, cblas_sdot, cblas_sgemm,
    cblas_sgemv, cblas_sger,
};
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

use crate::linalg::products::{Kernels, assert_gemm_shapes, assert_gemv_shapes};

/// The length of one call of `dot`: lengths are `i32` in CBLAS, and a vector may be a whole layer
/// of a tall batch.
const MAX_DOT: usize = 1 << 30;

#[track_caller]
fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or_else(|_| panic!("CBLAS counts in 32 bits, found a length of {n}"))
}

/// Returns the leading dimension of a row-major matrix, or `None` if these strides are not those of
/// one. The stride along an axis of length 0 or 1 is never used, and ndarray lets it be anything.
fn row_major(shape: (usize, usize), strides: (isize, isize)) -> Option<i32> {
    let columns_adjoin = shape.1 <= 1 || strides.1 == 1;
    let rows_apart = if shape.0 <= 1 { shape.1.max(1) as isize } else { strides.0 };
    (columns_adjoin && rows_apart >= shape.1.max(1) as isize).then(|| int(rows_apart as usize))
}

fn pair(strides: &[isize]) -> (isize, isize) {
    (strides[0], strides[1])
}

/// Returns how CBLAS reads an input: as stored or transposed, and its leading dimension.
#[track_caller]
fn operand<F>(a: &ArrayView2<F>) -> (CBLAS_TRANSPOSE, i32) {
    let (shape, strides) = (a.dim(), pair(a.strides()));
    if let Some(ld) = row_major(shape, strides) {
        (CBLAS_TRANSPOSE::CblasNoTrans, ld)
    } else if let Some(ld) = row_major((shape.1, shape.0), (strides.1, strides.0)) {
        (CBLAS_TRANSPOSE::CblasTrans, ld)
    } else {
        panic!("BLAS operand of shape {shape:?} has strides {strides:?}: neither rows nor columns adjoin")
    }
}

/// Returns the leading dimension of an output, which has no flag "transposed" and so must be
/// row-major.
#[track_caller]
fn output<F>(c: &ArrayViewMut2<F>) -> i32 {
    row_major(c.dim(), pair(c.strides()))
        .unwrap_or_else(|| panic!("BLAS output of shape {:?} has strides {:?}: not row-major", c.dim(), c.strides()))
}

/// Returns the increment of a vector. CBLAS reads a vector of negative increment from its other
/// end, so only positive ones are accepted.
#[track_caller]
fn increment(len: usize, stride: isize) -> i32 {
    if len <= 1 {
        return 1;
    }
    assert!(stride > 0, "BLAS vector with stride {stride}");
    int(stride as usize)
}

macro_rules! kernels {
    ($f:ty, $gemm:ident, $gemv:ident, $ger:ident, $dot:ident) => {
        impl Kernels for $f {
            fn gemm(alpha: $f, a: ArrayView2<$f>, b: ArrayView2<$f>, beta: $f, mut c: ArrayViewMut2<$f>) {
                assert_gemm_shapes(a.dim(), b.dim(), c.dim());
                let ((m, k), n) = (a.dim(), b.ncols());
                if m == 0 || n == 0 {
                    return;
                }
                let ((trans_a, lda), (trans_b, ldb), ldc) = (operand(&a), operand(&b), output(&c));
                let (layout, m, n, k) = (CBLAS_LAYOUT::CblasRowMajor, int(m), int(n), int(k));
                let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                // SAFETY: the shapes match (asserted), and each leading dimension was read off the
                // view of its pointer, so CBLAS touches only elements of the three views; `c` is
                // borrowed mutably and so overlaps neither `a` nor `b`.
                unsafe {
                    $gemm(layout, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
                }
            }

            fn gemv(alpha: $f, a: ArrayView2<$f>, x: ArrayView1<$f>, beta: $f, mut y: ArrayViewMut1<$f>) {
                assert_gemv_shapes(a.dim(), x.len(), y.len());
                if y.is_empty() {
                    return;
                }
                let (trans, lda) = operand(&a);
                // CBLAS wants the shape of the matrix as it is stored.
                let stored_as_is = matches!(trans, CBLAS_TRANSPOSE::CblasNoTrans);
                let (rows, cols) = if stored_as_is { a.dim() } else { (a.ncols(), a.nrows()) };
                let (layout, rows, cols) = (CBLAS_LAYOUT::CblasRowMajor, int(rows), int(cols));
                let (inc_x, inc_y) = (increment(x.len(), x.strides()[0]), increment(y.len(), y.strides()[0]));
                let (a, x, y) = (a.as_ptr(), x.as_ptr(), y.as_mut_ptr());
                // SAFETY: as for gemm; both increments are the positive strides of their views.
                unsafe {
                    $gemv(layout, trans, rows, cols, alpha, a, lda, x, inc_x, beta, y, inc_y);
                }
            }

            fn ger(alpha: $f, x: ArrayView1<$f>, y: ArrayView1<$f>, mut a: ArrayViewMut2<$f>) {
                assert_gemm_shapes((x.len(), 1), (1, y.len()), a.dim());
                if a.is_empty() {
                    return;
                }
                let lda = output(&a);
                let (layout, rows, cols) = (CBLAS_LAYOUT::CblasRowMajor, int(a.nrows()), int(a.ncols()));
                let (inc_x, inc_y) = (increment(x.len(), x.strides()[0]), increment(y.len(), y.strides()[0]));
                let (x, y, a) = (x.as_ptr(), y.as_ptr(), a.as_mut_ptr());
                // SAFETY: as for gemv; `a` is borrowed mutably and so overlaps neither vector.
                unsafe {
                    $ger(layout, rows, cols, alpha, x, inc_x, y, inc_y, a, lda);
                }
            }

            fn dot(x: &[$f], y: &[$f]) -> $f {
                assert_eq!(x.len(), y.len(), "dot: lengths of x and y");
                let pieces = x.chunks(MAX_DOT).zip(y.chunks(MAX_DOT));
                // SAFETY: both pieces are contiguous and have the length that CBLAS is given.
                let dot = |(x, y): (&[$f], &[$f])| unsafe { $dot(int(x.len()), x.as_ptr(), 1, y.as_ptr(), 1) };
                pieces.map(dot).sum()
            }
        }
    };
}

kernels!(f32, cblas_sgemm, cblas_sgemv, cblas_sger, cblas_sdot);
kernels!(f64, cblas_dgemm, cblas_dgemv, cblas_dger, cblas_ddot);
