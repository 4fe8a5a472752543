//! The loops around a tile: C = A B, blocked for the caches.
//!
//! ```text
//! for each block of k:                         a panel of B stays in the L1 cache
//!     for each block of rows:                  a block of A stays in the L2 cache
//!         for each panel of C, or a few:
//!             for each tile of rows:           C stays in registers
//!                 tile
//! ```
//!
//! Between two blocks of k the sums are kept in C, and the next block's chains start from them.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use crate::kernels::few::{self, FEW};
use crate::kernels::number::Number;
use crate::kernels::operands::{End, Left, Product, Right, Start};
use crate::kernels::panels::{PanelsMut, PanelsRef};
use crate::kernels::tile::{Extension, Operands, TileEnd, TileStart};

/// The k of a block: a panel of B, with so many lines, takes half of an L1 cache of 32 KiB.
const DEPTH: usize = 256;

/// Lines of a block of A: 192 KiB of an L2 cache.
const BLOCK_LINES: usize = 3072;

/// Lines of B that are transposed at once, 16 KiB.
const TRANSPOSED_LINES: usize = 256;

/// The least number of lines of B that are asked for with each line of k. To ask sooner than needed
/// costs nothing.
const LEAST_AHEAD: usize = 2;

/// Multiplies.
///
/// # Safety
/// The CPU has the extension.
///
/// # Panics
/// If the operands do not fit.
#[inline(always)]
pub(crate) unsafe fn run<F: Number, E: Extension<F>>(product: &mut Product<F>) {
    product.assert_shapes();
    // SAFETY: the shapes fit, and the caller vouches for the CPU.
    unsafe {
        match (product.a, product.b) {
            (Left::Rows(a), Right::Panels(b)) => product.blocked::<E, false>(a, b),
            (Left::Columns(a), Right::Panels(b)) => match product.end {
                End::AddTo(beta) if product.depth <= FEW => few::add::<F, E>(product, (a, b), beta),
                _ => product.blocked::<E, true>(a, b),
            },
            (Left::Rows(a), Right::Transposed(b))
                if product.c.rows() <= FEW && matches!(product.end, End::Store | End::Relu) =>
            {
                few::rows::<F, E>(product, a, b);
            }
            (Left::Rows(a), Right::Transposed(b)) => product.transposed::<E>(a, b),
            (Left::Columns(_), Right::Transposed(_)) => unreachable!("a product that nothing needs"),
        }
    }
}

impl<F: Number> Product<'_, F> {
    /// The vectors of C's columns.
    fn vectors<E: Extension<F>>(&self) -> usize {
        self.columns.div_ceil(E::WIDTH)
    }

    #[inline(always)]
    unsafe fn blocked<E: Extension<F>, const ALONG_COLUMNS: bool>(&mut self, a: PanelsRef<F>, b: PanelsRef<F>) {
        let rows = self.c.rows();
        let is_one_block = self.depth <= DEPTH || matches!(self.end, End::AddTo(_));
        let block = match is_one_block {
            true => self.depth.next_multiple_of(F::LINE).max(1),
            // Blocks of about equal depth.
            false => self.depth.div_ceil(self.depth.div_ceil(DEPTH)).next_multiple_of(F::LINE),
        };
        // Divisions are avoided where the operands are small, since they would be a noticeable part
        // of a small product.
        let most_rows = match rows * block <= BLOCK_LINES * F::LINE {
            true => rows,
            false => (BLOCK_LINES * F::LINE / block).next_multiple_of(F::LINE),
        };
        let mut k = 0;
        loop {
            let depth = block.min(self.depth - k);
            let is_last = k + depth == self.depth;
            let mut row = 0;
            while row < rows {
                // Blocks of about equal height.
                let left = rows - row;
                let height = match left <= most_rows {
                    true => left,
                    false => left.div_ceil(left.div_ceil(most_rows)).next_multiple_of(F::LINE).min(left),
                };
                let mut v = 0;
                while v < self.vectors::<E>() {
                    let vectors = E::vectors(height, self.vectors::<E>() - v);
                    let panel = v * E::WIDTH / F::LINE;
                    v += vectors;
                    // What comes next: further panels, further rows, further k; and behind those,
                    // probably, a product of the neighbouring rows or columns.
                    let next = if v < self.vectors::<E>() {
                        Place { row, k, panel: v * E::WIDTH / F::LINE }
                    } else if row + height < rows {
                        Place { row: row + height, k, panel: 0 }
                    } else if !is_last {
                        Place { row: 0, k: k + depth, panel: 0 }
                    } else {
                        Place { row: rows, k: 0, panel: v * E::WIDTH / F::LINE }
                    };
                    // SAFETY: the shapes were checked.
                    unsafe {
                        let at = Place { row, k, panel };
                        let of = Block { at, height, depth, vectors, is_last, next };
                        let b_at = |place: &Place| b.as_ptr().wrapping_add(place.panel * b.stride() + place.k);
                        self.column::<E, ALONG_COLUMNS>(a, [b_at(&of.at), b_at(&of.next)], b.stride(), &of);
                    }
                }
                row += height;
            }
            k += depth;
            if k >= self.depth {
                return;
            }
        }
    }

    /// The rows of a block in some panels of C, whose columns of B, and those that come next,
    /// begin at `b`.
    #[inline(always)]
    unsafe fn column<E: Extension<F>, const ALONG_COLUMNS: bool>(
        &mut self,
        a: PanelsRef<F>,
        b: [*const F::Line; 2],
        b_stride: usize,
        block: &Block,
    ) {
        // SAFETY: the shapes were checked.
        unsafe {
            let operands = self.operands::<E, ALONG_COLUMNS>(a, b, b_stride, block);
            E::strip::<ALONG_COLUMNS>(block.vectors, block.height, &operands);
        }
    }

    /// The operands of a block's first tile.
    #[inline(always)]
    unsafe fn operands<E: Extension<F>, const ALONG_COLUMNS: bool>(
        &mut self,
        a: PanelsRef<F>,
        b: [*const F::Line; 2],
        b_stride: usize,
        block: &Block,
    ) -> Operands<F> {
        let Place { row, k, panel } = block.at;
        let start = match self.start {
            _ if k > 0 => TileStart::C,
            Start::Zero => TileStart::Zero,
            Start::C => TileStart::C,
            Start::Rows(bias) => TileStart::Rows(bias[row..].as_ptr()),
            Start::Columns(bias) => TileStart::Columns(bias[panel..].as_ptr().cast()),
        };
        // SAFETY: the shapes were checked, and Z has the panels and rows of C.
        unsafe {
            let end = match self.end {
                _ if !block.is_last => TileEnd::Store,
                End::Store => TileEnd::Store,
                End::Relu => TileEnd::Relu,
                End::Mask(z) => TileEnd::Mask(z.as_ptr().add(panel * z.stride() + row).cast(), z.stride() * F::LINE),
                End::AddTo(beta) if beta == F::UNIT => TileEnd::Add,
                End::AddTo(beta) => TileEnd::AddTo(beta),
            };
            let a_at = |place: &Place| {
                let (panel, line) = if ALONG_COLUMNS { (place.row, place.k) } else { (place.k, place.row) };
                a.as_ptr().wrapping_add(panel / F::LINE * a.stride() + line).cast()
            };
            let c_stride = self.c.stride();
            let c = self.c.as_mut_ptr().add(panel * c_stride + row);
            // All tiles together ask for the next lines of B, unless these are the same.
            let tiles = block.height.div_ceil(E::MOST_ROWS[block.vectors.ilog2() as usize]);
            let (ahead_b, next_b_lines) =
                if b[0] == b[1] { (0, 0) } else { (F::LINE.div_ceil(tiles).max(LEAST_AHEAD), block.depth) };
            Operands {
                depth: block.depth,
                a: a_at(&block.at),
                a_stride: a.stride() * F::LINE,
                b: b[0].cast(),
                b_stride: b_stride * F::LINE,
                c: c.cast(),
                c_stride: c_stride * F::LINE,
                start,
                end,
                next_a: a_at(&block.next),
                next_b: b[1].cast(),
                ahead_b,
                next_b_lines,
            }
        }
    }

    /// A Bᵀ: blocks of B are transposed into a buffer in the L1 cache, and used for all rows.
    #[inline(always)]
    unsafe fn transposed<E: Extension<F>>(&mut self, a: PanelsRef<F>, b: PanelsRef<F>) {
        let height = self.c.rows();
        let mut buffer = [const { MaybeUninit::<F::Line>::uninit() }; TRANSPOSED_LINES];
        let buffer: *mut F::Line = buffer.as_mut_ptr().cast();
        let mut v = 0;
        while v < self.vectors::<E>() {
            let vectors = E::vectors(height, self.vectors::<E>() - v);
            let (panel, panels) = (v * E::WIDTH / F::LINE, (vectors * E::WIDTH).div_ceil(F::LINE));
            let block = TRANSPOSED_LINES / panels / F::LINE * F::LINE;
            let mut k = 0;
            loop {
                let depth = block.min(self.depth - k);
                // SAFETY: the shapes were checked, with the padding of both.
                unsafe {
                    for p in 0..panels {
                        for square in 0..depth.div_ceil(F::LINE) {
                            let from = (k / F::LINE + square) * b.stride() + (panel + p) * F::LINE;
                            E::transpose(b.as_ptr().add(from), buffer.add(p * block + square * F::LINE));
                        }
                    }
                    let at = Place { row: 0, k, panel };
                    let is_last = k + depth == self.depth;
                    let next = if is_last { Place { k: 0, ..at } } else { Place { k: k + depth, ..at } };
                    let of = Block { at, height, depth, vectors, is_last, next };
                    self.column::<E, false>(a, [buffer; 2], block, &of);
                }
                k += depth;
                if k >= self.depth {
                    break;
                }
            }
            v += vectors;
        }
    }
}

/// A first row and panel of C, and a first k.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    k: usize,
    panel: usize,
}

/// Some rows of some panels of C, and some k.
struct Block {
    at: Place,
    height: usize,
    depth: usize,
    /// The vectors beside each other from the first of the panel on.
    vectors: usize,
    /// Whether these are the last k.
    is_last: bool,
    /// Where the next block is.
    next: Place,
}

/// `to` = `from`ᵀ, whole squares of LINE lines at a time.
///
/// # Safety
/// The CPU has the extension.
///
/// # Panics
/// If the shapes do not fit.
#[inline(always)]
pub(crate) unsafe fn transpose<F: Number, E: Extension<F>>(from: PanelsRef<F>, mut to: PanelsMut<F>) {
    let (panels, squares) = (from.panels(), from.rows() / F::LINE);
    let fits = from.rows() == squares * F::LINE && to.panels() == squares && to.rows() == panels * F::LINE;
    assert!(fits, "the transpose of {from:?} does not give {to:?}");
    let (from_stride, to_stride, to) = (from.stride(), to.stride(), to.as_mut_ptr());
    for panel in 0..panels {
        for square in 0..squares {
            // SAFETY: both have the square, and nobody else has what is written.
            unsafe {
                let from = from.as_ptr().add(panel * from_stride + square * F::LINE);
                E::transpose(from, to.add(square * to_stride + panel * F::LINE));
            }
        }
    }
}
