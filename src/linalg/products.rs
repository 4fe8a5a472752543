//! The four products that the engine over BLAS is made of.
//!
//! ```text
//! gemm   C ← α A B + β C       A: (m, k)   B: (k, n)   C: (m, n)
//! gemv   y ← α A x + β y       A: (m, n)   x: (n)      y: (m)
//! ger    A ← α x yᵀ + A        A: (m, n)   x: (m)      y: (n)
//! dot    xᵀ y                  x: (n)      y: (n)
//! ```
//!
//! A transposed operand is a transposed view (`a.t()`); nothing is copied. β = 0 overwrites the
//! output, even where it holds NaN.
//!
//! `cblas` implements [`Kernels`] for `f32` and `f64`. In a build without the feature `blas`,
//! `no_blas` stands in place of both files, and nothing is required.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

/// The four products. A public trait in a private module, which seals [`Scalar`](crate::Scalar).
pub trait Kernels: Copy + Send + Sync + 'static {
    /// C ← α A B + β C.
    fn gemm(alpha: Self, a: ArrayView2<Self>, b: ArrayView2<Self>, beta: Self, c: ArrayViewMut2<Self>);
    /// y ← α A x + β y.
    fn gemv(alpha: Self, a: ArrayView2<Self>, x: ArrayView1<Self>, beta: Self, y: ArrayViewMut1<Self>);
    /// A ← α x yᵀ + A.
    fn ger(alpha: Self, x: ArrayView1<Self>, y: ArrayView1<Self>, a: ArrayViewMut2<Self>);
    /// xᵀ y.
    fn dot(x: &[Self], y: &[Self]) -> Self;
}

/// Panics, naming all three shapes, unless A B has the shape of C.
#[track_caller]
pub(crate) fn assert_gemm_shapes(a: (usize, usize), b: (usize, usize), c: (usize, usize)) {
    assert!(a.1 == b.0 && c == (a.0, b.1), "gemm: A {a:?} times B {b:?} does not give C {c:?}");
}

/// Panics, naming all three shapes, unless A x has the length of y.
#[track_caller]
pub(crate) fn assert_gemv_shapes(a: (usize, usize), x: usize, y: usize) {
    assert!(a == (y, x), "gemv: A {a:?} times x ({x}) does not give y ({y})");
}

#[cfg(test)]
#[path = "products_tests.rs"]
mod tests;
