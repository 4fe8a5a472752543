//! Numbers, and how many of them fill a cache line.

#![allow(unsafe_code)]

use std::fmt::Debug;
use std::ops::{Add, Mul};

/// A number type that the kernels compute with. (Its names are not those of
/// [`Scalar`](crate::Scalar), so that both can be in scope.) A public trait in a private module,
/// which seals [`Scalar`](crate::Scalar).
///
/// # Safety
/// `Line` consists of [`LINE`](Self::LINE) numbers one beside the other, and of nothing else.
pub unsafe trait Number:
    Copy + PartialOrd + Debug + Add<Output = Self> + Mul<Output = Self> + Send + Sync + 'static
{
    /// The numbers that fill a cache line.
    type Line: Copy + Debug + Send + Sync + 'static;
    /// How many they are.
    const LINE: usize;
    /// A line of zeros.
    const ZEROS: Self::Line;
    /// 0
    const NOUGHT: Self;
    /// 1
    const UNIT: Self;
    /// a b + c, where a is `self`, rounded once.
    fn fused(self, b: Self, c: Self) -> Self;
    /// Converts, rounding to the nearest number of this type.
    fn rounded(value: f64) -> Self;
    /// Converts to double precision, without rounding.
    fn widened(self) -> f64;
}

/// One cache line of numbers.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct CacheLine<A>(A);

macro_rules! number {
    ($f:ty, $line:literal) => {
        // SAFETY: the numbers fill the alignment of 64 bytes, so there is no padding.
        unsafe impl Number for $f {
            type Line = CacheLine<[$f; $line]>;
            const LINE: usize = $line;
            const ZEROS: Self::Line = CacheLine([0.0; $line]);
            const NOUGHT: $f = 0.0;
            const UNIT: $f = 1.0;
            #[inline]
            fn fused(self, b: $f, c: $f) -> $f {
                <$f>::mul_add(self, b, c)
            }
            #[inline]
            fn rounded(value: f64) -> $f {
                value as $f
            }
            #[inline]
            fn widened(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

number!(f32, 16);
number!(f64, 8);

/// Returns ReLU(u), and NaN for NaN, for which the comparison is false. (`max(u, 0)` would turn NaN
/// into 0 and hide an error.)
#[inline]
pub(crate) fn relu<F: Number>(u: F) -> F {
    if u <= F::NOUGHT { F::NOUGHT } else { u }
}

/// Returns a ReLU′(u), with ReLU′(u) read off z = ReLU(u): a where z > 0, and 0 elsewhere.
/// ReLU′(0) = 0.
#[inline]
pub(crate) fn masked<F: Number>(a: F, z: F) -> F {
    if z > F::NOUGHT { a } else { F::NOUGHT }
}
