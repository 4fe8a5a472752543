//! The number types a network can be made of.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

use crate::kernels::table::HasKernels;
#[cfg(not(feature = "blas"))]
use crate::linalg::no_blas::Kernels;
#[cfg(feature = "blas")]
use crate::linalg::products::Kernels;

/// A real number type: `f32`, `f64`, and [`Counted`](crate::rungs::count::Counted), an `f64` that
/// counts its multiplications.
///
/// It has what a loss needs, so a generic loss is bound by nothing else. `num_traits::Float` has
/// functions of the same names, which take exponentials and logarithms from the C library of the
/// system; those here have the same bits everywhere. Where a type is bound by both traits,
/// `Scalar::exp(a)` names the one of this crate.
///
/// Sealed: only this crate implements what it requires, native kernels, and with the feature `blas`
/// the products `gemm`, `gemv`, `ger` and `dot`.
pub trait Scalar:
    HasKernels
    + Kernels
    + Debug
    + Display
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + Sum
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The largest finite number, in double precision.
    const MAX: f64;
    /// The distance from 1 to the next number, in double precision.
    const EPSILON: f64;
    /// Converts, rounding to the nearest number of this type.
    fn from_f64(value: f64) -> Self;
    /// Converts to double precision, without rounding.
    fn to_f64(self) -> f64;
    /// eᵃ
    fn exp(self) -> Self;
    /// ln a
    fn ln(self) -> Self;
    /// ln(1 + a), accurate near 0.
    fn ln_1p(self) -> Self;
    /// √a
    fn sqrt(self) -> Self;
    /// |a|
    fn abs(self) -> Self;
    /// The larger of a and b; the other one if one of them is NaN.
    fn max(self, b: Self) -> Self;
    /// The smaller of a and b; the other one if one of them is NaN.
    fn min(self, b: Self) -> Self;
    /// a b + c with one rounding, where `self` is a. Its bits are the same with and without an
    /// instruction of the CPU for it.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// False for NaN and the infinities.
    fn is_finite(self) -> bool;
}

macro_rules! scalar {
    ($f:ty, $exp:path, $ln:path, $ln_1p:path) => {
        impl Scalar for $f {
            const ZERO: $f = 0.0;
            const ONE: $f = 1.0;
            const MAX: f64 = <$f>::MAX as f64;
            const EPSILON: f64 = <$f>::EPSILON as f64;
            fn from_f64(value: f64) -> $f {
                value as $f
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> $f {
                $exp(self)
            }
            fn ln(self) -> $f {
                $ln(self)
            }
            fn ln_1p(self) -> $f {
                $ln_1p(self)
            }
            fn sqrt(self) -> $f {
                <$f>::sqrt(self)
            }
            fn abs(self) -> $f {
                <$f>::abs(self)
            }
            fn max(self, b: $f) -> $f {
                <$f>::max(self, b)
            }
            fn min(self, b: $f) -> $f {
                <$f>::min(self, b)
            }
            // Always, so that it becomes one instruction in a function that is compiled for it.
            #[inline(always)]
            fn mul_add(self, b: $f, c: $f) -> $f {
                <$f>::mul_add(self, b, c)
            }
            fn is_finite(self) -> bool {
                <$f>::is_finite(self)
            }
        }
    };
}

// From the crate libm, which has the same bits on every CPU and system. The methods of the standard
// library call the C library of the system. Square roots are rounded exactly everywhere.
scalar!(f32, libm::expf, libm::logf, libm::log1pf);
scalar!(f64, libm::exp, libm::log, libm::log1p);

/// False if there is a NaN or an infinity. All data pass through here before each call, so it has
/// to run at the speed of memory: x − x is 0 for finite numbers and NaN for all others, and sums of
/// that, side by side, vectorise.
#[expect(clippy::eq_op, reason = "x − x is not 0 for NaN and the infinities")]
pub(crate) fn all_finite<F: Scalar>(x: &[F]) -> bool {
    const LANES: usize = 16;
    let mut sums = [F::ZERO; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x - x);
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += x - x);
    sums.iter().all(|&sum| sum == F::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_found_wherever_it_stands() {
        for len in [1, 15, 16, 17, 40] {
            let mut x = vec![f32::MAX; len];
            assert!(all_finite(&x));
            for i in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[i] = bad;
                    assert!(!all_finite(&x), "{bad} at {i} of {len}");
                    x[i] = f32::MIN;
                }
            }
        }
    }
}
