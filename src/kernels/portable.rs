//! Any CPU: numbers one by one, with `mul_add`. A build for any x86-64 calls a function of the C
//! library for each: right in any case, but against 0.02 ns at AVX2's peak, glibc's takes 3 ns where
//! it finds an FMA instruction, and 350 ns in single precision where it does not.

#![allow(unsafe_code)]

use crate::kernels::number::{Number, masked, relu};
use crate::kernels::tile::{Extension, Operands, tile};

/// See the head of this file. A vector is a single number.
pub(crate) struct Portable;

unsafe fn portable_tile<F: Number, const ROWS: usize, const VECTORS: usize, const ALONG_COLUMNS: bool>(
    o: &Operands<F>,
) {
    // SAFETY: the caller's; no extension is needed.
    unsafe { tile::<F, Portable, ROWS, VECTORS, ALONG_COLUMNS>(o) }
}

impl<F: Number> Extension<F> for Portable {
    type Vector = F;
    const WIDTH: usize = 1;

    fn vectors(_rows: usize, _left: usize) -> usize {
        F::LINE
    }

    // More would be compiled for a long time, and would not be faster.
    fn most_rows(_vectors: usize) -> usize {
        1
    }

    #[inline(always)]
    unsafe fn tile<const ALONG_COLUMNS: bool>(rows: usize, vectors: usize, o: &Operands<F>) {
        // SAFETY: the caller's.
        unsafe {
            match (vectors, rows) {
                (1, 1) => portable_tile::<F, 1, 1, ALONG_COLUMNS>(o),
                (8, 1) => portable_tile::<F, 1, 8, ALONG_COLUMNS>(o),
                (16, 1) => portable_tile::<F, 1, 16, ALONG_COLUMNS>(o),
                (vectors, rows) => unreachable!("a tile of {rows} rows and {vectors} vectors"),
            }
        }
    }

    unsafe fn zero() -> F {
        F::NOUGHT
    }

    unsafe fn broadcast(a: *const F) -> F {
        // SAFETY: the caller's.
        unsafe { *a }
    }

    unsafe fn load(a: *const F) -> F {
        // SAFETY: the caller's.
        unsafe { *a }
    }

    unsafe fn store(a: *mut F, v: F) {
        // SAFETY: the caller's.
        unsafe { *a = v }
    }

    unsafe fn mul_add(a: F, b: F, c: F) -> F {
        a.fused(b, c)
    }

    unsafe fn mul(a: F, b: F) -> F {
        a * b
    }

    unsafe fn add(a: F, b: F) -> F {
        a + b
    }

    unsafe fn relu(u: F) -> F {
        relu(u)
    }

    unsafe fn masked(a: F, z: F) -> F {
        masked(a, z)
    }

    unsafe fn transpose(from: *const F::Line, to: *mut F::Line) {
        let (from, to) = (from.cast::<F>(), to.cast::<F>());
        for i in 0..F::LINE {
            for j in 0..F::LINE {
                // SAFETY: both have LINE lines of LINE numbers.
                unsafe { *to.add(j * F::LINE + i) = *from.add(i * F::LINE + j) };
            }
        }
    }
}
