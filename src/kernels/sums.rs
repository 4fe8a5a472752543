//! Sums over samples: the gradient of a bias.

#![allow(unsafe_code)]

use crate::kernels::number::Number;
use crate::kernels::panels::{PanelsRef, numbers, numbers_mut};
use crate::kernels::tile::Extension;

/// Samples of one chain of a gradient.
pub(crate) const SAMPLE_BLOCK: usize = 2048;

/// Samples of a bias's gradient that are added in the network's own type.
pub(crate) const BIAS_BLOCK: usize = 64;

/// `sums` = the sums of the columns, over the rows in order. As the head of the folder says: blocks
/// of [`BIAS_BLOCK`] rows are summed in the type itself; if there are several, they are added in
/// double precision.
///
/// # Safety
/// The CPU has the extension.
///
/// # Panics
/// If there are not as many lines as panels.
#[inline(always)]
pub(crate) unsafe fn bias_sums<F: Number, E: Extension<F>>(columns: PanelsRef<F>, sums: &mut [F::Line]) {
    assert_eq!(columns.panels(), sums.len(), "panels and lines of their sums");
    for (panel, sum) in sums.iter_mut().enumerate() {
        let lines = columns.panel(panel);
        // SAFETY: the caller's.
        unsafe {
            if lines.len() <= BIAS_BLOCK {
                block_sums::<F, E>(lines, sum);
            } else {
                long_sums::<F, E>(lines, sum);
            }
        }
    }
}

/// The sums over several blocks.
#[inline(always)]
unsafe fn long_sums<F: Number, E: Extension<F>>(lines: &[F::Line], sum: &mut F::Line) {
    const MOST: usize = 16;
    let (mut totals, mut of_block) = ([0.0; MOST], F::ZEROS);
    for block in lines.chunks(BIAS_BLOCK) {
        // SAFETY: the caller's.
        unsafe { block_sums::<F, E>(block, &mut of_block) };
        let of_block = numbers::<F>(std::slice::from_ref(&of_block));
        totals.iter_mut().zip(of_block).for_each(|(total, sum)| *total += sum.widened());
    }
    let sum = numbers_mut::<F>(std::slice::from_mut(sum));
    sum.iter_mut().zip(totals).for_each(|(sum, total)| *sum = F::rounded(total));
}

/// The sums over one block: 0 + the first + …
#[inline(always)]
unsafe fn block_sums<F: Number, E: Extension<F>>(lines: &[F::Line], sum: &mut F::Line) {
    const MOST: usize = 16;
    let (from, to) = (lines.as_ptr().cast::<F>(), (&raw mut *sum).cast::<F>());
    // SAFETY: the lines have LINE numbers each, and the CPU has the extension.
    unsafe {
        // All vectors of a line side by side.
        let mut acc = [E::zero(); MOST];
        for row in 0..lines.len() {
            for (v, acc) in acc.iter_mut().enumerate().take(F::LINE / E::WIDTH) {
                *acc = E::add(*acc, E::load(from.add(row * F::LINE + v * E::WIDTH)));
            }
        }
        for (v, acc) in acc.into_iter().enumerate().take(F::LINE / E::WIDTH) {
            E::store(to.add(v * E::WIDTH), acc);
        }
    }
}

/// Σ a² in the numbers' own type, down each column; infinite where a sum overflows. Its order
/// depends on the vector extension, so it serves for bounds alone.
///
/// # Safety
/// The CPU has the extension.
#[inline(always)]
pub(crate) unsafe fn squares<F: Number, E: Extension<F>>(of: PanelsRef<F>) -> f64 {
    let mut total = 0.0;
    let mut lanes = F::ZEROS;
    for panel in 0..of.panels() {
        let lines = of.panel(panel);
        let from = lines.as_ptr().cast::<F>();
        let to = (&raw mut lanes).cast::<F>();
        // SAFETY: the lines have LINE numbers each, and the CPU has the extension.
        unsafe {
            for v in (0..F::LINE).step_by(E::WIDTH) {
                let mut acc = [E::zero(); 4];
                for row in 0..lines.len() {
                    let a = E::load(from.add(row * F::LINE + v));
                    acc[row % 4] = E::mul_add(a, a, acc[row % 4]);
                }
                E::store(to.add(v), E::add(E::add(acc[0], acc[1]), E::add(acc[2], acc[3])));
            }
        }
        total += numbers::<F>(std::slice::from_ref(&lanes)).iter().map(|a| a.widened()).sum::<f64>();
    }
    total
}
