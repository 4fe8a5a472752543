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

use crate::kernels::number::Number;
use crate::kernels::panels::{PanelsMut, PanelsRef, panels_of};
use crate::kernels::tile::{Extension, Operands, TileEnd, TileStart};

/// C = end(start + A B), or with A Bᵀ.
#[derive(Debug)]
pub(crate) struct Product<'a, F: Number> {
    pub(crate) a: Left<'a, F>,
    pub(crate) b: Right<'a, F>,
    pub(crate) c: PanelsMut<'a, F>,
    /// The columns of C that are not padding.
    pub(crate) columns: usize,
    /// The number of k.
    pub(crate) depth: usize,
    pub(crate) start: Start<'a, F>,
    pub(crate) end: End<'a, F>,
}

/// A (rows × k), and which way it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Left<'a, F: Number> {
    /// The rows of A are those of the panels.
    Rows(PanelsRef<'a, F>),
    /// The rows of A are the columns of the panels, from a first one that begins a panel.
    Columns(PanelsRef<'a, F>),
}

/// B (k × columns), and which way it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Right<'a, F: Number> {
    /// As panels of its columns.
    Panels(PanelsRef<'a, F>),
    /// As panels of its rows: it is transposed block by block.
    Transposed(PanelsRef<'a, F>),
}

/// Where the chains start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a, F: Number> {
    Zero,
    /// At the number of the row.
    Rows(&'a [F]),
    /// At the number of the column, in lines that belong to the panels of C.
    Columns(&'a [F::Line]),
    /// At what C holds.
    C,
}

/// What becomes of a sum.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a, F: Number> {
    /// C = sum
    Store,
    /// C = ReLU(sum)
    Relu,
    /// C = sum where the number at the same place is positive, else 0.
    Mask(PanelsRef<'a, F>),
    /// C = β C + sum, or C + sum for β = 1. The start must be zero, B must not be transposed, and k
    /// is at most [`ADD_DEPTH`].
    AddTo(F),
}

/// The k of a block: a panel of B, with so many lines, takes half of an L1 cache of 32 KiB.
const DEPTH: usize = 256;

/// The largest k with which [`End::AddTo`] goes: its sums have no place but the registers.
pub(crate) const ADD_DEPTH: usize = 512;

/// Lines of a block of A: 192 KiB of an L2 cache.
const BLOCK_LINES: usize = 3072;

/// Lines of B that are transposed at once, 16 KiB.
const TRANSPOSED_LINES: usize = 256;

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
            (Left::Columns(a), Right::Panels(b)) => product.blocked::<E, true>(a, b),
            (Left::Rows(a), Right::Transposed(b)) => product.transposed::<E>(a, b),
            (Left::Columns(_), Right::Transposed(_)) => unreachable!("a product that nothing needs"),
        }
    }
}

impl<F: Number> Product<'_, F> {
    #[track_caller]
    fn assert_shapes(&self) {
        let (rows, columns, depth) = (self.c.rows(), self.columns, self.depth);
        let (deep, panels) = (panels_of::<F>(depth), panels_of::<F>(columns));
        let has = |m: PanelsRef<F>, panels, rows| m.panels() >= panels && m.rows() >= rows;
        let a_fits = match self.a {
            Left::Rows(a) => has(a, deep, rows),
            Left::Columns(a) => has(a, panels_of::<F>(rows), depth),
        };
        let b_fits = match self.b {
            Right::Panels(b) => has(b, panels, depth),
            // The padding is transposed, too.
            Right::Transposed(b) => has(b, deep, panels * F::LINE),
        };
        let start_fits = match self.start {
            Start::Rows(bias) => bias.len() >= rows,
            Start::Columns(bias) => bias.len() >= panels,
            Start::Zero | Start::C => true,
        };
        let end_fits = match self.end {
            End::Mask(z) => has(z, panels, rows),
            End::AddTo(_) => {
                depth <= ADD_DEPTH && matches!(self.start, Start::Zero) && matches!(self.b, Right::Panels(_))
            }
            End::Store | End::Relu => true,
        };
        let fits = a_fits && b_fits && self.c.panels() >= panels && start_fits && end_fits;
        assert!(fits, "a product of {rows} × {depth} and {depth} × {columns}: {self:?}");
    }

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
                    // SAFETY: the shapes were checked.
                    unsafe {
                        let b = b.as_ptr().add(panel * b.stride() + k);
                        let of = Block { row, height, k, depth, panel, vectors, is_last };
                        self.column::<E, ALONG_COLUMNS>(a, b, self.b_stride(), &of);
                    }
                    v += vectors;
                }
                row += height;
            }
            k += depth;
            if k >= self.depth {
                return;
            }
        }
    }

    fn b_stride(&self) -> usize {
        match self.b {
            Right::Panels(b) | Right::Transposed(b) => b.stride(),
        }
    }

    /// The rows of a block in some panels of C, whose columns of B begin at `b`.
    #[inline(always)]
    unsafe fn column<E: Extension<F>, const ALONG_COLUMNS: bool>(
        &mut self,
        a: PanelsRef<F>,
        b: *const F::Line,
        b_stride: usize,
        block: &Block,
    ) {
        let most = E::most_rows(block.vectors);
        // SAFETY: the shapes were checked.
        unsafe {
            let mut operands = self.operands::<ALONG_COLUMNS>(a, b, b_stride, block);
            if ALONG_COLUMNS {
                // A tile stays within a line of A.
                for first in (0..block.height).step_by(F::LINE) {
                    let a = a.as_ptr().add((block.row + first) / F::LINE * a.stride() + block.k);
                    operands.a = a.cast();
                    let rows = F::LINE.min(block.height - first);
                    tiles_of_rows::<F, E, ALONG_COLUMNS>(&mut operands, rows, most, block.vectors);
                }
            } else {
                tiles_of_rows::<F, E, ALONG_COLUMNS>(&mut operands, block.height, most, block.vectors);
            }
        }
    }

    /// The operands of a block's first tile.
    #[inline(always)]
    unsafe fn operands<const ALONG_COLUMNS: bool>(
        &mut self,
        a: PanelsRef<F>,
        b: *const F::Line,
        b_stride: usize,
        block: &Block,
    ) -> Operands<F> {
        let row = block.row;
        let start = match self.start {
            _ if block.k > 0 => TileStart::C,
            Start::Zero => TileStart::Zero,
            Start::C => TileStart::C,
            Start::Rows(bias) => TileStart::Rows(bias[row..].as_ptr()),
            Start::Columns(bias) => TileStart::Columns(bias[block.panel..].as_ptr().cast()),
        };
        // SAFETY: the shapes were checked, and Z has the panels and rows of C.
        unsafe {
            let end = match self.end {
                _ if !block.is_last => TileEnd::Store,
                End::Store => TileEnd::Store,
                End::Relu => TileEnd::Relu,
                End::Mask(z) => {
                    TileEnd::Mask(z.as_ptr().add(block.panel * z.stride() + row).cast(), z.stride() * F::LINE)
                }
                End::AddTo(beta) if beta == F::UNIT => TileEnd::Add,
                End::AddTo(beta) => TileEnd::AddTo(beta),
            };
            // Along columns, the caller sets A for each line of rows.
            let first_a = if ALONG_COLUMNS { a.as_ptr() } else { a.as_ptr().add(block.k / F::LINE * a.stride() + row) };
            let c_stride = self.c.stride();
            let c = self.c.as_mut_ptr().add(block.panel * c_stride + row);
            Operands {
                depth: block.depth,
                a: first_a.cast(),
                a_stride: a.stride() * F::LINE,
                b: b.cast(),
                b_stride: b_stride * F::LINE,
                c: c.cast(),
                c_stride: c_stride * F::LINE,
                start,
                end,
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
                    let of = Block { row: 0, height, k, depth, panel, vectors, is_last: k + depth == self.depth };
                    self.column::<E, false>(a, buffer, block, &of);
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

/// Multiplies tile after tile of `rows` rows, and moves the operands on behind them. The rows are
/// shared out evenly, so that no tile is low.
///
/// # Safety
/// The CPU has the extension; the operands cover the rows.
#[inline(always)]
unsafe fn tiles_of_rows<F: Number, E: Extension<F>, const ALONG_COLUMNS: bool>(
    operands: &mut Operands<F>,
    rows: usize,
    most: usize,
    vectors: usize,
) {
    // 32-bit divisions are several times faster.
    let (rows, most) = (rows as u32, most as u32);
    let tiles = if rows <= most { 1 } else { rows.div_ceil(most) };
    let (low, higher) = if tiles == 1 { (rows, 0) } else { (rows / tiles, rows % tiles) };
    for tile in 0..tiles {
        let height = (low + u32::from(tile < higher)) as usize;
        // SAFETY: the caller's.
        unsafe {
            E::tile::<ALONG_COLUMNS>(height, vectors, operands);
            operands.advance(height, if ALONG_COLUMNS { height } else { height * F::LINE });
        }
    }
}

/// Some rows of some panels of C, and some k.
struct Block {
    row: usize,
    height: usize,
    k: usize,
    depth: usize,
    panel: usize,
    /// The vectors beside each other from the first of that panel on.
    vectors: usize,
    is_last: bool,
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
