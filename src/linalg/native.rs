//! The products by ndarray's own kernels (the matrixmultiply crate), for a build without BLAS and
//! so without any C library; and what stands there in place of the guard over BLAS's threads.

use ndarray::linalg::{general_mat_mul, general_mat_vec_mul};
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

use crate::error::Result;
use crate::linalg::products::{Kernels, assert_gemm_shapes, assert_gemv_shapes};

macro_rules! kernels {
    ($f:ty) => {
        impl Kernels for $f {
            fn gemm(alpha: $f, a: ArrayView2<$f>, b: ArrayView2<$f>, beta: $f, mut c: ArrayViewMut2<$f>) {
                assert_gemm_shapes(a.dim(), b.dim(), c.dim());
                general_mat_mul(alpha, &a, &b, beta, &mut c);
            }

            fn gemv(alpha: $f, a: ArrayView2<$f>, x: ArrayView1<$f>, beta: $f, mut y: ArrayViewMut1<$f>) {
                assert_gemv_shapes(a.dim(), x.len(), y.len());
                general_mat_vec_mul(alpha, &a, &x, beta, &mut y);
            }

            fn ger(alpha: $f, x: ArrayView1<$f>, y: ArrayView1<$f>, mut a: ArrayViewMut2<$f>) {
                assert_gemm_shapes((x.len(), 1), (1, y.len()), a.dim());
                for (mut row, &x) in a.outer_iter_mut().zip(x) {
                    row.scaled_add(alpha * x, &y);
                }
            }

            fn dot(x: &[$f], y: &[$f]) -> $f {
                ArrayView1::from(x).dot(&ArrayView1::from(y))
            }
        }
    };
}

kernels!(f32);
kernels!(f64);

/// Holds nothing: these kernels never start a thread.
#[derive(Debug)]
pub(crate) struct OneBlasThread(());

#[expect(clippy::unnecessary_wraps, reason = "the function of the same name in a build with BLAS can fail")]
pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
    Ok(OneBlasThread(()))
}

pub(crate) fn description() -> &'static str {
    "matrixmultiply (no BLAS)"
}
