//! Matrices in panels: groups of columns, each stored row by row, one cache line a row.
//!
//! ```text
//! a matrix of r rows and 40 columns of f32:      panel 0          panel 1          panel 2
//!                                                 columns 0…15     16…31            32…39, padding
//!                                          row 0  ▭▭▭▭▭▭▭▭ line    ▭▭▭▭▭▭▭▭ line    ▭▭▭▭░░░░ line
//!                                          row 1  ▭▭▭▭▭▭▭▭         ▭▭▭▭▭▭▭▭         ▭▭▭▭░░░░
//!                                           ⋮
//! ```
//!
//! The lines of a panel lie one behind the other. The last panel is padded with columns of zeros,
//! and the rows with further rows up to a multiple of the numbers in a line, so that a block of
//! that order can always be transposed as a whole.
//!
//! What the padding holds reaches no other number of a product: each column of C comes from the
//! same column of B, and the number of k is told. In θ and what is shaped like it, the padding
//! stays 0.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::ArrayView2;

use crate::kernels::number::Number;

/// Lines as the numbers in them.
pub(crate) fn numbers<F: Number>(lines: &[F::Line]) -> &[F] {
    // SAFETY: a line consists of LINE numbers and nothing else, as the trait promises.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * F::LINE) }
}

/// Lines as the numbers in them, to be written.
pub(crate) fn numbers_mut<F: Number>(lines: &mut [F::Line]) -> &mut [F] {
    // SAFETY: as above; any bits of numbers are bits of a line.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * F::LINE) }
}

/// The number of panels that so many columns take.
pub(crate) fn panels_of<F: Number>(columns: usize) -> usize {
    columns.div_ceil(F::LINE)
}

/// The panels that a range of columns lies in.
pub(crate) fn panel_range<F: Number>(columns: &Range<usize>) -> Range<usize> {
    columns.start / F::LINE..panels_of::<F>(columns.end)
}

/// A matrix in panels. Padding is zero when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Panels<F: Number> {
    lines: Vec<F::Line>,
    panels: usize,
    /// With padding.
    rows: usize,
    /// Lines from one panel to the next.
    stride: usize,
}

/// Lines from one panel of so many rows to the next. Caches place a line by the low bits of its
/// address, so panels a power of 2 apart would have their lines of the same rows in the same few
/// places: a block of rows then pushes itself out of a cache that could hold it several times over.
fn stride(rows: usize) -> usize {
    match rows {
        0..=16 => rows,
        17..=128 => rows + 6,
        _ => rows.next_multiple_of(64) + 70,
    }
}

impl<F: Number> Panels<F> {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        let (panels, rows) = (panels_of::<F>(columns), rows.next_multiple_of(F::LINE));
        let stride = stride(rows);
        Self { lines: vec![F::ZEROS; panels * stride], panels, rows, stride }
    }

    /// A copy of an array.
    pub(crate) fn of(array: ArrayView2<F>) -> Self {
        let mut panels = Self::zeros(array.nrows(), array.ncols());
        let stride = panels.stride;
        let numbers = numbers_mut::<F>(&mut panels.lines);
        for ((r, c), &number) in array.indexed_iter() {
            numbers[(c / F::LINE * stride + r) * F::LINE + c % F::LINE] = number;
        }
        panels
    }

    /// The numbers of panels and rows, padding included.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.panels, self.rows)
    }

    pub(crate) fn view(&self) -> PanelsRef<'_, F> {
        PanelsRef {
            first: self.lines.as_ptr(),
            stride: self.stride,
            panels: self.panels,
            rows: self.rows,
            borrowed: PhantomData,
        }
    }

    pub(crate) fn view_mut(&mut self) -> PanelsMut<'_, F> {
        PanelsMut {
            first: self.lines.as_mut_ptr(),
            stride: self.stride,
            panels: self.panels,
            rows: self.rows,
            borrowed: PhantomData,
        }
    }
}

/// Some rows of some panels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanelsRef<'a, F: Number> {
    first: *const F::Line,
    /// Lines from one panel to the next.
    stride: usize,
    panels: usize,
    rows: usize,
    borrowed: PhantomData<&'a F::Line>,
}

/// Some rows of some panels, to be written.
#[derive(Debug)]
pub(crate) struct PanelsMut<'a, F: Number> {
    first: *mut F::Line,
    stride: usize,
    panels: usize,
    rows: usize,
    borrowed: PhantomData<&'a mut F::Line>,
}

impl<'a, F: Number> PanelsRef<'a, F> {
    /// # Safety
    /// The lines first + p stride + r for p < panels, r < rows are allocated and nobody writes them
    /// during 'a.
    pub(crate) unsafe fn from_raw(first: *const F::Line, stride: usize, panels: usize, rows: usize) -> Self {
        Self { first, stride, panels, rows, borrowed: PhantomData }
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Lines from one panel to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn as_ptr(&self) -> *const F::Line {
        self.first
    }

    /// The rows of one panel.
    #[inline]
    #[track_caller]
    pub(crate) fn panel(&self, panel: usize) -> &'a [F::Line] {
        assert!(panel < self.panels, "panel {panel} of {}", self.panels);
        // SAFETY: the lines of a panel lie one behind the other, and the view has them for 'a.
        unsafe { std::slice::from_raw_parts(self.first.add(panel * self.stride), self.rows) }
    }

    /// A part of the view.
    #[inline]
    #[track_caller]
    pub(crate) fn part(&self, panels: Range<usize>, rows: Range<usize>) -> Self {
        assert_part(&panels, &rows, self.panels, self.rows);
        // `wrapping_add`, since an empty part may begin behind the last line.
        let first = self.first.wrapping_add(panels.start * self.stride + rows.start);
        Self { first, panels: panels.len(), rows: rows.len(), ..*self }
    }
}

impl<F: Number> PanelsMut<'_, F> {
    /// # Safety
    /// The lines first + p stride + r for p < panels, r < rows are allocated and nobody else reads
    /// or writes them during 'a.
    pub(crate) unsafe fn from_raw(first: *mut F::Line, stride: usize, panels: usize, rows: usize) -> Self {
        Self { first, stride, panels, rows, borrowed: PhantomData }
    }

    /// Lines as one panel.
    pub(crate) fn of_lines(lines: &mut [F::Line]) -> PanelsMut<'_, F> {
        let (first, rows) = (lines.as_mut_ptr(), lines.len());
        PanelsMut { first, stride: rows, panels: 1, rows, borrowed: PhantomData }
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut F::Line {
        self.first
    }

    pub(crate) fn view(&self) -> PanelsRef<'_, F> {
        PanelsRef {
            first: self.first,
            stride: self.stride,
            panels: self.panels,
            rows: self.rows,
            borrowed: PhantomData,
        }
    }

    /// The rows of one panel, to be written.
    #[inline]
    #[track_caller]
    pub(crate) fn panel(&mut self, panel: usize) -> &mut [F::Line] {
        assert!(panel < self.panels, "panel {panel} of {}", self.panels);
        // SAFETY: the lines of a panel lie one behind the other, and the view has them alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(panel * self.stride), self.rows) }
    }

    /// A part of the view.
    #[inline]
    #[track_caller]
    pub(crate) fn part(&mut self, panels: Range<usize>, rows: Range<usize>) -> PanelsMut<'_, F> {
        assert_part(&panels, &rows, self.panels, self.rows);
        let first = self.first.wrapping_add(panels.start * self.stride + rows.start);
        PanelsMut { first, stride: self.stride, panels: panels.len(), rows: rows.len(), borrowed: PhantomData }
    }
}

#[inline]
#[track_caller]
fn assert_part(panels: &Range<usize>, rows: &Range<usize>, of_panels: usize, of_rows: usize) {
    let inside = |range: &Range<usize>, len| range.start <= range.end && range.end <= len;
    let fits = inside(panels, of_panels) && inside(rows, of_rows);
    assert!(fits, "panels {panels:?} and rows {rows:?} of {of_panels} panels with {of_rows} rows");
}
