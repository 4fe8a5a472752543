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

/// A Bᵀ for an A of few rows. B is transposed square by square; C's sums wait in memory from one
/// panel of k to the next.
///
/// # Safety
/// The CPU has the extension, and the shapes were checked.
#[inline(always)]
pub(crate) unsafe fn rows<F: Number, E: Extension<F>>(product: &mut Product<F>, a: PanelsRef<F>, b: PanelsRef<F>) {
    let (rows, panels) = (product.c.rows(), panels_of::<F>(product.columns));
    let (stride, in_line) = (product.c.stride(), F::LINE / E::WIDTH);
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
        let mut square = [const { MaybeUninit::<F::Line>::uninit() }; VECTORS];
        let square: *mut F::Line = square.as_mut_ptr().cast();
        for k_panel in 0..panels_of::<F>(product.depth) {
            let depth = F::LINE.min(product.depth - k_panel * F::LINE);
            for panel in 0..panels {
                E::transpose(b.as_ptr().add(k_panel * b.stride() + panel * F::LINE), square);
                for row in 0..rows {
                    let a = a.as_ptr().add(k_panel * a.stride() + row).cast::<F>();
                    let c = c.add(panel * stride + row).cast::<F>();
                    let mut acc = [E::zero(); VECTORS];
                    for (v, acc) in acc.iter_mut().enumerate().take(in_line) {
                        *acc = E::load(c.add(v * E::WIDTH));
                    }
                    for k in 0..depth {
                        let a = E::broadcast(a.add(k));
                        for (v, acc) in acc.iter_mut().enumerate().take(in_line) {
                            *acc = E::mul_add(a, E::load(square.add(k).cast::<F>().add(v * E::WIDTH)), *acc);
                        }
                    }
                    for (v, acc) in acc.into_iter().enumerate().take(in_line) {
                        E::store(c.add(v * E::WIDTH), acc);
                    }
                }
            }
        }
        if let End::Relu = product.end {
            for (panel, row) in places(panels, rows) {
                let c = c.add(panel * stride + row).cast::<F>();
                for v in 0..in_line {
                    E::store(c.add(v * E::WIDTH), E::relu(E::load(c.add(v * E::WIDTH))));
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
    let (rows, depth, in_line) = (product.c.rows(), product.depth, F::LINE / E::WIDTH);
    let scales = beta != F::UNIT;
    // SAFETY: the caller's.
    unsafe {
        let beta = E::broadcast(&raw const beta);
        for panel in 0..panels_of::<F>(product.columns) {
            let b = b.as_ptr().add(panel * b.stride()).cast::<F>();
            let c = product.c.as_mut_ptr().add(panel * product.c.stride());
            for row in 0..rows {
                let a = a.as_ptr().add(row / F::LINE * a.stride()).cast::<F>().add(row % F::LINE);
                let c = c.add(row).cast::<F>();
                let mut sum = [E::zero(); VECTORS];
                for k in 0..depth {
                    let a = E::broadcast(a.add(k * F::LINE));
                    for (v, sum) in sum.iter_mut().enumerate().take(in_line) {
                        *sum = E::mul_add(a, E::load(b.add(k * F::LINE + v * E::WIDTH)), *sum);
                    }
                }
                for (v, sum) in sum.into_iter().enumerate().take(in_line) {
                    let before = E::load(c.add(v * E::WIDTH));
                    let before = if scales { E::mul(beta, before) } else { before };
                    E::store(c.add(v * E::WIDTH), E::add(before, sum));
                }
            }
        }
    }
}
