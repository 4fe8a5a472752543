//! Counts the multiplications of the code that actually runs.
//!
//! Every rung is generic over its number type. Run with [`Counted`] it is the same code, in which
//! each `*` adds one to a counter and a product of matrices is written out as loops. With `f32` and
//! `f64` nothing is counted and nothing costs.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt::{self, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

#[cfg(feature = "blas")]
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

use crate::kernels::number::Number;
use crate::kernels::table::{HasKernels, Table, portable};
#[cfg(feature = "blas")]
use crate::linalg::products::{Kernels, assert_gemm_shapes, assert_gemv_shapes};
use crate::linalg::scalar::Scalar;

thread_local! {
    static MULTIPLICATIONS: Cell<u64> = const { Cell::new(0) };
}

/// An `f64` whose multiplications are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Counted(pub f64);

/// Runs `work` on one thread; returns its result and how many multiplications of [`Counted`]
/// numbers it made.
///
/// # Panics
/// If the operating system gives no thread.
pub fn multiplications<R: Send>(work: impl FnOnce() -> R + Send) -> (R, u64) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread to count on");
    pool.install(|| {
        MULTIPLICATIONS.set(0);
        let result = work();
        (result, MULTIPLICATIONS.get())
    })
}

impl Mul for Counted {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        MULTIPLICATIONS.set(MULTIPLICATIONS.get() + 1);
        Self(self.0 * other.0)
    }
}

impl Add for Counted {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Counted {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Div for Counted {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }
}

impl Neg for Counted {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for Counted {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Sum for Counted {
    fn sum<I: Iterator<Item = Self>>(numbers: I) -> Self {
        numbers.fold(Self(0.0), |sum, a| sum + a)
    }
}

impl Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// SAFETY: a line is one number, since padding would be counted.
unsafe impl Number for Counted {
    type Line = Self;
    const LINE: usize = 1;
    const ZEROS: Self = Self(0.0);
    const NOUGHT: Self = Self(0.0);
    const UNIT: Self = Self(1.0);
    fn fused(self, b: Self, c: Self) -> Self {
        MULTIPLICATIONS.set(MULTIPLICATIONS.get() + 1);
        Self(self.0.mul_add(b.0, c.0))
    }
    fn rounded(value: f64) -> Self {
        Self(value)
    }
    fn widened(self) -> f64 {
        self.0
    }
}

impl HasKernels for Counted {
    fn kernels() -> &'static Table<Self> {
        static TABLE: Table<Counted> = portable();
        &TABLE
    }
}

impl Scalar for Counted {
    const ZERO: Self = Self(0.0);
    const ONE: Self = Self(1.0);
    const MAX: f64 = f64::MAX;
    const EPSILON: f64 = f64::EPSILON;
    fn from_f64(value: f64) -> Self {
        Self(value)
    }
    fn to_f64(self) -> f64 {
        self.0
    }
    fn exp(self) -> Self {
        Self(Scalar::exp(self.0))
    }
    fn ln(self) -> Self {
        Self(Scalar::ln(self.0))
    }
    fn ln_1p(self) -> Self {
        Self(Scalar::ln_1p(self.0))
    }
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }
    fn abs(self) -> Self {
        Self(self.0.abs())
    }
    fn max(self, b: Self) -> Self {
        Self(self.0.max(b.0))
    }
    fn min(self, b: Self) -> Self {
        Self(self.0.min(b.0))
    }
    fn mul_add(self, b: Self, c: Self) -> Self {
        MULTIPLICATIONS.set(MULTIPLICATIONS.get() + 1);
        Self(self.0.mul_add(b.0, c.0))
    }
    fn is_finite(self) -> bool {
        self.0.is_finite()
    }
}

#[cfg(feature = "blas")]
/// α s + β c, without the multiplications by 1 and 0, which BLAS does not make either.
fn scaled(alpha: Counted, s: Counted, beta: Counted, c: Counted) -> Counted {
    let s = if alpha == Counted::ONE { s } else { alpha * s };
    if beta == Counted::ZERO {
        s
    } else if beta == Counted::ONE {
        c + s
    } else {
        beta * c + s
    }
}

#[cfg(feature = "blas")]
/// Σ aᵢ bᵢ
fn dot(a: ArrayView1<Counted>, b: ArrayView1<Counted>) -> Counted {
    let mut sum = Counted::ZERO;
    for (&a, &b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

#[cfg(feature = "blas")]
/// The products that BLAS computes, as loops in which each multiplication is counted.
impl Kernels for Counted {
    fn gemm(alpha: Self, a: ArrayView2<Self>, b: ArrayView2<Self>, beta: Self, mut c: ArrayViewMut2<Self>) {
        assert_gemm_shapes(a.dim(), b.dim(), c.dim());
        for ((i, j), c) in c.indexed_iter_mut() {
            *c = scaled(alpha, dot(a.row(i), b.column(j)), beta, *c);
        }
    }

    fn gemv(alpha: Self, a: ArrayView2<Self>, x: ArrayView1<Self>, beta: Self, mut y: ArrayViewMut1<Self>) {
        assert_gemv_shapes(a.dim(), x.len(), y.len());
        for (row, y) in a.outer_iter().zip(&mut y) {
            *y = scaled(alpha, dot(row, x), beta, *y);
        }
    }

    fn ger(alpha: Self, x: ArrayView1<Self>, y: ArrayView1<Self>, mut a: ArrayViewMut2<Self>) {
        assert_gemm_shapes((x.len(), 1), (1, y.len()), a.dim());
        for ((i, j), a) in a.indexed_iter_mut() {
            *a = scaled(alpha, x[i] * y[j], Self::ONE, *a);
        }
    }

    fn dot(x: &[Self], y: &[Self]) -> Self {
        dot(x.into(), y.into())
    }
}
