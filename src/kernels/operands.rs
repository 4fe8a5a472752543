//! What a product reads and writes.

use crate::kernels::number::Number;
use crate::kernels::panels::{PanelsMut, PanelsRef, panels_of};

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

/// The largest k with which [`End::AddTo`] goes. C holds what the sums are added to, so they stay
/// in registers to the end, and all k are one block: here, a panel of B that fills an L1 cache.
pub(crate) const ADD_DEPTH: usize = 512;

impl<F: Number> Product<'_, F> {
    /// # Panics
    /// If the operands do not fit.
    #[track_caller]
    pub(crate) fn assert_shapes(&self) {
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
}
