//! Any CPU: numbers one by one, with `mul_add`. A build for any x86-64 calls a function of the C
//! library for each: right in any case, but against 0.02 ns at AVX2's peak, glibc's takes 3 ns
//! where it finds an FMA instruction, and 350 ns in single precision where it does not.

#![allow(unsafe_code)]

use crate::kernels::number::{Number, masked, relu};
use crate::kernels::tile::{Extension, Operands, strip};

/// See the head of this file. A vector is a single number.
pub(crate) struct Portable;

unsafe fn compiled<F: Number, const VECTORS: usize, const ALONG_COLUMNS: bool>(rows: usize, o: &Operands<F>) {
    // SAFETY: the caller's; no extension is needed.
    unsafe { strip::<F, Portable, VECTORS, ALONG_COLUMNS>(rows, o) }
}

impl<F: Number> Extension<F> for Portable {
    type Vector = F;
    const WIDTH: usize = 1;

    // More would be compiled for a long time, and would not be faster.
    const MOST_ROWS: &[usize] = &[1; 5];

    fn vectors(_rows: usize, _left: usize) -> usize {
        F::LINE
    }

    unsafe fn strip<const ALONG_COLUMNS: bool>(vectors: usize, rows: usize, o: &Operands<F>) {
        // SAFETY: the caller's.
        unsafe {
            match vectors {
                // Counted numbers have lines of one.
                1 => compiled::<F, 1, ALONG_COLUMNS>(rows, o),
                8 => compiled::<F, 8, ALONG_COLUMNS>(rows, o),
                16 => compiled::<F, 16, ALONG_COLUMNS>(rows, o),
                _ => unreachable!("a tile of {vectors} vectors"),
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
