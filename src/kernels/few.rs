//! Products for a few samples, which do little more than read the weights once: in the order in
//! which they lie in memory, without tiles.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use crate::kernels::number::Number;
use crate::kernels::operands::{End, Product, Start};
use crate::kernels::panels::{PanelsRef, panels_of};

use crate::kernels::tile::Extension;

/// The largest number of samples that are few.
pub(crate) const FEW: usize = 4;

/// The largest number of vectors in a line.
const VECTORS: usize = 16;

/// The most squares of B that are transposed together: with the vectors of so many panels side by
/// side, no FMA waits for the one before it.
const SQUARES: usize = 4;

/// A Bᵀ for an A of few rows. B is read in the order in which it lies in memory, and transposed
/// some squares at a time; C's sums wait in memory from one panel of k to the next.
///
/// # Safety
/// The CPU has the extension, and the shapes were checked.
#[inline(always)]
pub(crate) unsafe fn rows<F: Number, E: Extension<F>>(product: &mut Product<F>, a: PanelsRef<F>, b: PanelsRef<F>) {
    let (rows, panels) = (product.c.rows(), panels_of::<F>(product.columns));
    let stride = product.c.stride();
    let c = product.c.as_mut_ptr();
    // SAFETY: the caller's.
    unsafe {
        for (panel, row) in places(panels, rows) {
            let line = c.add(panel * stride + row);
            match product.start {
                Start::Zero => *line = F::ZEROS,
                Start::Columns(bias) => *line = bias[panel],
                Start::Rows(bias) => fill(line, bias[row]),
                Start::C => {}
            }
        }
        for k in (0..product.depth).step_by(F::LINE) {
            let mut panel = 0;
            while panel + SQUARES <= panels {
                squares::<F, E, SQUARES>(product, a, b, k, panel);
                panel += SQUARES;
            }
            for panel in panel..panels {
                squares::<F, E, 1>(product, a, b, k, panel);
            }
        }
        if let End::Relu = product.end {
            for (panel, row) in places(panels, rows) {
                let c = c.add(panel * stride + row).cast::<F>();
                for v in 0..F::LINE / E::WIDTH {
                    E::store(c.add(v * E::WIDTH), E::relu(E::load(c.add(v * E::WIDTH))));
                }
            }
        }
    }
}

/// C += the share of a panel of k, from its first k on, in N panels.
#[inline(always)]
unsafe fn squares<F: Number, E: Extension<F>, const N: usize>(
    product: &mut Product<F>,
    a: PanelsRef<F>,
    b: PanelsRef<F>,
    k: usize,
    panel: usize,
) {
    let (rows, stride, in_line) = (product.c.rows(), product.c.stride(), F::LINE / E::WIDTH);
    let (k_panel, depth) = (k / F::LINE, F::LINE.min(product.depth - k));
    let mut transposed = [[const { MaybeUninit::<F::Line>::uninit() }; VECTORS]; N];
    // SAFETY: the caller's. A line of C has all vectors of a line.
    unsafe {
        for (n, square) in transposed.iter_mut().enumerate() {
            let from = b.as_ptr().add(k_panel * b.stride() + (panel + n) * F::LINE);
            E::transpose(from, square.as_mut_ptr().cast());
        }
        let b = transposed.as_ptr().cast::<F>();
        for row in 0..rows {
            let a = a.as_ptr().add(k_panel * a.stride() + row).cast::<F>();
            let c = product.c.as_mut_ptr().add(panel * stride + row).cast::<F>();
            let at = |n: usize, v: usize| n * stride * F::LINE + v * E::WIDTH;
            let mut acc = [[E::zero(); VECTORS]; N];
            for (n, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate().take(in_line) {
                    *acc = E::load(c.add(at(n, v)));
                }
            }
            for k in 0..depth {
                let a = E::broadcast(a.add(k));
                for (n, acc) in acc.iter_mut().enumerate() {
                    let b = b.add((n * VECTORS + k) * F::LINE);
                    for (v, acc) in acc.iter_mut().enumerate().take(in_line) {
                        *acc = E::mul_add(a, E::load(b.add(v * E::WIDTH)), *acc);
                    }
                }
            }
            for (n, acc) in acc.into_iter().enumerate() {
                for (v, acc) in acc.into_iter().enumerate().take(in_line) {
                    E::store(c.add(at(n, v)), acc);
                }
            }
        }
    }
}

fn places(panels: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..panels).flat_map(move |panel| (0..rows).map(move |row| (panel, row)))
}

unsafe fn fill<F: Number>(line: *mut F::Line, number: F) {
    for i in 0..F::LINE {
        // SAFETY: a line has LINE numbers.
        unsafe { *line.cast::<F>().add(i) = number };
    }
}

/// C = β C + A B for few k, with A along its columns: row after row of C is read and written once.
///
/// # Safety
/// The CPU has the extension, and the shapes were checked.
#[inline(always)]
pub(crate) unsafe fn add<F: Number, E: Extension<F>>(
    product: &mut Product<F>,
    (a, b): (PanelsRef<F>, PanelsRef<F>),
    beta: F,
) {
    // SAFETY: the caller's.
    unsafe {
        match (product.depth, beta == F::UNIT) {
            (1, true) => add_depth::<F, E, 1, false>(product, (a, b), beta),
            (1, false) => add_depth::<F, E, 1, true>(product, (a, b), beta),
            (2, true) => add_depth::<F, E, 2, false>(product, (a, b), beta),
            (2, false) => add_depth::<F, E, 2, true>(product, (a, b), beta),
            (3, true) => add_depth::<F, E, 3, false>(product, (a, b), beta),
            (3, false) => add_depth::<F, E, 3, true>(product, (a, b), beta),
            (FEW, true) => add_depth::<F, E, FEW, false>(product, (a, b), beta),
            (FEW, false) => add_depth::<F, E, FEW, true>(product, (a, b), beta),
            (depth, _) => unreachable!("{depth} are not few"),
        }
    }
}

/// [`add`] for a number of k that the compiler knows, so that B's lines stay in registers.
#[inline(always)]
unsafe fn add_depth<F: Number, E: Extension<F>, const DEPTH: usize, const SCALES: bool>(
    product: &mut Product<F>,
    (a, b): (PanelsRef<F>, PanelsRef<F>),
    beta: F,
) {
    let (rows, in_line) = (product.c.rows(), F::LINE / E::WIDTH);
    // SAFETY: the caller's.
    unsafe {
        let beta = E::broadcast(&raw const beta);
        for panel in 0..panels_of::<F>(product.columns) {
            let from = b.as_ptr().add(panel * b.stride()).cast::<F>();
            let mut b = [[E::zero(); VECTORS]; DEPTH];
            for (k, b) in b.iter_mut().enumerate() {
                for (v, b) in b.iter_mut().enumerate().take(in_line) {
                    *b = E::load(from.add(k * F::LINE + v * E::WIDTH));
                }
            }
            let mut c = product.c.as_mut_ptr().add(panel * product.c.stride()).cast::<F>();
            for first in (0..rows).step_by(F::LINE) {
                let a = a.as_ptr().add(first / F::LINE * a.stride()).cast::<F>();
                for row in 0..F::LINE.min(rows - first) {
                    let a: [E::Vector; DEPTH] = std::array::from_fn(|k| E::broadcast(a.add(k * F::LINE + row)));
                    for v in 0..in_line {
                        let mut sum = E::zero();
                        for (a, b) in a.iter().zip(&b) {
                            sum = E::mul_add(*a, b[v], sum);
                        }
                        let before = E::load(c.add(v * E::WIDTH));
                        let before = if SCALES { E::mul(beta, before) } else { before };
                        E::store(c.add(v * E::WIDTH), E::add(before, sum));
                    }
                    c = c.add(F::LINE);
                }
            }
        }
    }
}
