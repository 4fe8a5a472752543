//! Tiles of arrays that several threads write at once, checked at run time.
//!
//! A [`TileTable`] cuts a list of arrays of known shapes into disjoint tiles, once. [`SharedTiles`]
//! borrows such arrays mutably and is shared between threads. A thread claims a tile, and the
//! [`TileGuard`] it gets hands out views of that tile alone.
//!
//! What makes this sound, with `&mut` split at run time where the compiler cannot follow it:
//!
//! 1. Tiles do not overlap and lie inside their arrays: [`TileTable::new`] panics otherwise.
//! 2. A tile has one guard at a time: [`SharedTiles::claim`] panics otherwise.
//! 3. A guard gives a mutable view of its own tile only, and takes `&mut self` for it.
//! 4. A guard gives shared views only of arrays that no tile of the table writes, or of rows all of
//!    which belong to its own tile; and never of the array that the mutable view is of.
//!
//! A fault in the scheduling therefore panics, and never becomes a data race.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array, ArrayView, ArrayViewMut, Axis, RemoveAxis, ShapeBuilder, StrideShape};

/// The part of a list of arrays that one thread writes alone: some rows (axis 0) of some of the
/// arrays, with all columns of each or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) arrays: Range<usize>,
    pub(crate) rows: Range<usize>,
    /// `None` for all columns, however many each array has.
    pub(crate) columns: Option<Range<usize>>,
}

/// Disjoint tiles of a list of arrays of known shapes.
#[derive(Debug)]
pub(crate) struct TileTable {
    /// Rows, and numbers in a row, of each array.
    shapes: Vec<(usize, usize)>,
    tiles: Vec<Tile>,
    /// Whether any tile writes the array, for each array.
    written: Vec<bool>,
    claims: Vec<Claim>,
}

/// True while a guard of the tile exists. Alone on its cache line, since several threads write it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Claim(AtomicBool);

impl TileTable {
    /// # Panics
    /// If two tiles overlap, or a tile reaches beyond an array.
    pub(crate) fn new(shapes: Vec<(usize, usize)>, tiles: Vec<Tile>) -> Self {
        for (i, tile) in tiles.iter().enumerate() {
            for &shape in &shapes[tile.arrays.clone()] {
                assert!(tile.is_inside(shape), "{tile:?} of an array of shape {shape:?}");
            }
            for earlier in &tiles[..i] {
                assert!(!tile.overlaps(earlier), "tiles {earlier:?} and {tile:?} overlap");
            }
        }
        let written = (0..shapes.len()).map(|i| tiles.iter().any(|tile| tile.arrays.contains(&i))).collect();
        let claims = tiles.iter().map(|_| Claim::default()).collect();
        Self { shapes, tiles, written, claims }
    }

    /// Returns a table of the same tiles for other arrays of these shapes, with claims of its own.
    pub(crate) fn like(&self) -> Self {
        Self::new(self.shapes.clone(), self.tiles.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }

    pub(crate) fn tile(&self, tile: usize) -> &Tile {
        &self.tiles[tile]
    }

    /// The length of a row of an array.
    pub(crate) fn columns(&self, array: usize) -> usize {
        self.shapes[array].1
    }
}

impl Tile {
    fn is_inside(&self, (rows, columns): (usize, usize)) -> bool {
        let inside = |range: &Range<usize>, len| range.start <= range.end && range.end <= len;
        inside(&self.rows, rows) && self.columns.as_ref().is_none_or(|range| inside(range, columns))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let overlap = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        let columns_overlap = match (&self.columns, &other.columns) {
            (Some(a), Some(b)) => overlap(a, b),
            _ => true,
        };
        overlap(&self.arrays, &other.arrays) && overlap(&self.rows, &other.rows) && columns_overlap
    }
}

/// A list of arrays, borrowed mutably, whose tiles several threads write at once.
///
/// While it is borrowed, an array is either written, tile by tile, or read by all threads.
pub(crate) struct SharedTiles<'a, F, D> {
    arrays: *mut Array<F, D>,
    table: &'a TileTable,
    borrowed: PhantomData<&'a mut [Array<F, D>]>,
}

// SAFETY: elements are written through the guard of a tile, which one thread holds and no other
// tile overlaps, and are read from arrays that no tile writes; the arrays' headers are only read.
// `F` crosses threads by reference and by value.
unsafe impl<F: Send + Sync, D: Send + Sync> Sync for SharedTiles<'_, F, D> {}

impl<'a, F, D: RemoveAxis> SharedTiles<'a, F, D> {
    /// # Panics
    /// If the arrays are not of the table's shapes, or not row-major.
    pub(crate) fn new(arrays: &'a mut [Array<F, D>], table: &'a TileTable) -> Self {
        assert_eq!(arrays.len(), table.shapes.len(), "arrays of a tile table");
        for (array, &(rows, columns)) in arrays.iter().zip(&table.shapes) {
            let fits = array.len_of(Axis(0)) == rows && array.len() == rows * columns && array.is_standard_layout();
            assert!(fits, "an array of shape {:?} for tiles of {:?}", array.shape(), (rows, columns));
        }
        Self { arrays: arrays.as_mut_ptr(), table, borrowed: PhantomData }
    }

    fn array(&self, i: usize) -> &Array<F, D> {
        assert!(i < self.table.shapes.len(), "array {i} of {}", self.table.shapes.len());
        // SAFETY: `i` is within the slice that `new` borrowed for 'a. Only headers are read through
        // this reference: the elements lie elsewhere on the heap, and no `&mut` to a header exists
        // while `self` does.
        unsafe { &*self.arrays.add(i) }
    }

    /// Claims a tile for the calling thread.
    ///
    /// # Panics
    /// If it is claimed already.
    #[track_caller]
    pub(crate) fn claim(&self, tile: usize) -> TileGuard<'_, 'a, F, D> {
        // Paired with the `Release` of the guard's drop: what the tile's last holder wrote is
        // visible to this one.
        let was = self.table.claims[tile].0.swap(true, Ordering::Acquire);
        assert!(!was, "tile {tile} is claimed already");
        TileGuard { shared: self, tile }
    }
}

/// A claimed tile, which the holder alone may write. Dropping it gives the tile up.
pub(crate) struct TileGuard<'s, 'a, F, D> {
    shared: &'s SharedTiles<'a, F, D>,
    tile: usize,
}

impl<F, D: RemoveAxis> TileGuard<'_, '_, F, D> {
    pub(crate) fn tile(&self) -> &Tile {
        &self.shared.table.tiles[self.tile]
    }

    /// Returns shape, strides and first element of the tile's rows of array `i`, restricted to
    /// `columns` if given.
    fn raw_view(&self, i: usize, columns: Option<&Range<usize>>) -> (StrideShape<D>, *mut F) {
        let (rows, array) = (&self.tile().rows, self.shared.array(i));
        let (_, row_len) = self.shared.table.shapes[i];
        let (mut shape, mut strides) = (array.raw_dim(), array.raw_dim());
        for (stride, &s) in strides.slice_mut().iter_mut().zip(array.strides()) {
            *stride = s.unsigned_abs();
        }
        shape[0] = rows.len();
        let mut offset = rows.start * row_len;
        if let Some(columns) = columns {
            shape[1] = columns.len();
            offset += columns.start;
        }
        // SAFETY: the table was checked against this array's shape, and the array is row-major, so
        // the tile lies inside it. Callers that read another array check that it has these rows.
        (shape.strides(strides), unsafe { array.as_ptr().cast_mut().add(offset) })
    }

    /// Returns the tile's part of array `i`, to be written.
    ///
    /// # Panics
    /// If the tile has no part in it.
    pub(crate) fn write(&mut self, i: usize) -> ArrayViewMut<'_, F, D> {
        assert!(self.tile().arrays.contains(&i), "array {i} does not belong to {:?}", self.tile());
        let (shape, pointer) = self.raw_view(i, self.tile().columns.as_ref());
        // SAFETY: this guard is the only one of its tile, no other tile overlaps it, and `&mut
        // self` keeps every other view of it away.
        unsafe { ArrayViewMut::from_shape_ptr(shape, pointer) }
    }

    /// Returns the tile's rows of the arrays `from`, with all columns, to be read; and the tile's
    /// part of another array `to`, to be written.
    ///
    /// # Panics
    /// If another tile may write those rows, or an array of `from` does not have them, or the tile
    /// has no part in `to`.
    pub(crate) fn read_and_write<const N: usize>(
        &mut self,
        from: [usize; N],
        to: usize,
    ) -> ([ArrayView<'_, F, D>; N], ArrayViewMut<'_, F, D>) {
        assert!(self.tile().arrays.contains(&to), "array {to} does not belong to {:?}", self.tile());
        let from = from.map(|from| {
            assert_ne!(from, to, "an array cannot be read and written at once");
            self.assert_readable(from);
            let (shape, pointer) = self.raw_view(from, None);
            // SAFETY: the array has these rows, and no other thread writes them (both asserted).
            // The view that is written is of another array.
            unsafe { ArrayView::from_shape_ptr(shape, pointer) }
        });
        let (shape, pointer) = self.raw_view(to, self.tile().columns.as_ref());
        // SAFETY: as in `write`.
        (from, unsafe { ArrayViewMut::from_shape_ptr(shape, pointer) })
    }

    /// Panics unless array `i` has the tile's rows and no other tile may write them: either no tile
    /// writes the array, or this tile has these rows in full.
    fn assert_readable(&self, i: usize) {
        let (tile, table) = (self.tile(), self.shared.table);
        let own = tile.arrays.contains(&i) && tile.columns.is_none();
        assert!(own || !table.written[i], "the rows of array {i} are being written");
        let (rows, has) = (&tile.rows, table.shapes[i].0);
        assert!(rows.end <= has, "rows {rows:?} of array {i}, which has {has}");
    }
}

impl<F, D> Drop for TileGuard<'_, '_, F, D> {
    fn drop(&mut self) {
        self.shared.table.claims[self.tile].0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
