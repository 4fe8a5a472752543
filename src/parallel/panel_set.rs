//! Matrices in panels that several threads write at once, region by region, checked at run time.
//!
//! A [`PanelSet`] owns a list of matrices whose shapes never change. A [`RegionTable`] cuts some of
//! them into disjoint tiles, once. [`PanelSet::share`] lends the set to the threads of one phase,
//! and a thread that [claims](SharedPanels::claim) a tile gets views of the regions that the tile
//! writes, and of all matrices that no tile of the table writes.
//!
//! What makes this sound is what [`tiles`](crate::parallel::tiles) has for arrays by rows:
//!
//! 1. Regions of different tiles do not overlap and lie inside their matrices:
//!    [`RegionTable::new`] panics otherwise.
//! 2. A tile is claimed once at a time, and a set is shared with one table at a time.
//! 3. A guard gives a mutable view of its own regions only, and takes `&mut self` for it.
//! 4. A guard gives shared views only of matrices that no tile of the table writes, for as long as
//!    the set is shared; and of its own regions, together with a mutable view of its region of
//!    another matrix, for as long as the guard is borrowed.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::kernels::number::Number;
use crate::kernels::panels::{Panels, PanelsMut, PanelsRef};

/// A list of matrices in panels.
#[derive(Debug)]
pub(crate) struct PanelSet<F: Number> {
    matrices: Vec<Panels<F>>,
    /// Tells sets apart, so that a table is used only with the set that it was made for.
    id: u64,
}

/// Some rows of some panels of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) matrix: usize,
    pub(crate) panels: Range<usize>,
    pub(crate) rows: Range<usize>,
}

/// Disjoint tiles of the matrices of a set, each of one region or several.
#[derive(Debug)]
pub(crate) struct RegionTable {
    set: u64,
    tiles: Vec<RegionTile>,
    /// Whether any tile writes the matrix, for each of the first matrices.
    written: Vec<bool>,
}

#[derive(Debug)]
struct RegionTile {
    regions: Vec<Region>,
    claimed: Claim,
}

/// True while a guard of the tile exists. Alone on its cache line, since several threads write it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Claim(AtomicBool);

impl<F: Number> PanelSet<F> {
    pub(crate) fn new(matrices: Vec<Panels<F>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { matrices, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn len(&self) -> usize {
        self.matrices.len()
    }

    /// Appends a matrix. Tables that were made before do not write it.
    pub(crate) fn push(&mut self, matrix: Panels<F>) {
        self.matrices.push(matrix);
    }

    pub(crate) fn get(&self, matrix: usize) -> PanelsRef<'_, F> {
        self.matrices[matrix].view()
    }

    pub(crate) fn get_mut(&mut self, matrix: usize) -> PanelsMut<'_, F> {
        self.matrices[matrix].view_mut()
    }

    pub(crate) fn copied(&self, matrix: usize) -> Panels<F> {
        self.matrices[matrix].clone()
    }

    /// # Panics
    /// If the shapes differ.
    pub(crate) fn replace(&mut self, matrix: usize, by: Panels<F>) {
        assert_eq!(self.matrices[matrix].shape(), by.shape(), "the shape of a matrix in a set");
        self.matrices[matrix] = by;
    }

    /// Lends the set to the threads of a phase.
    ///
    /// # Panics
    /// If the table was made for another set.
    pub(crate) fn share<'a>(&'a mut self, table: &'a RegionTable) -> SharedPanels<'a, F> {
        assert_eq!(table.set, self.id, "the set of a region table");
        SharedPanels { matrices: self.matrices.as_mut_ptr(), len: self.matrices.len(), table, lent: PhantomData }
    }
}

impl RegionTable {
    /// # Panics
    /// If regions of two tiles overlap, or a region reaches beyond its matrix, or a tile has two
    /// regions of one matrix.
    pub(crate) fn new<F: Number>(set: &PanelSet<F>, tiles: Vec<Vec<Region>>) -> Self {
        let mut written = vec![false; set.len()];
        let mut by_matrix: Vec<Vec<&Region>> = vec![Vec::new(); set.len()];
        for region in tiles.iter().flatten() {
            let (panels, rows) = set.matrices[region.matrix].shape();
            let inside = region.panels.end <= panels && region.rows.end <= rows;
            assert!(inside, "{region:?} of a matrix with {panels} panels of {rows} rows");
            for earlier in &by_matrix[region.matrix] {
                assert!(!region.overlaps(earlier), "{earlier:?} and {region:?} overlap");
            }
            by_matrix[region.matrix].push(region);
            written[region.matrix] = true;
        }
        for regions in &tiles {
            let twice = |(i, region): (usize, &Region)| regions[..i].iter().any(|r| r.matrix == region.matrix);
            assert!(!regions.iter().enumerate().any(twice), "two regions of one matrix in {regions:?}");
        }
        let tiles = tiles.into_iter().map(|regions| RegionTile { regions, claimed: Claim::default() }).collect();
        Self { set: set.id, tiles, written }
    }

    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }
}

impl Region {
    fn overlaps(&self, other: &Self) -> bool {
        let overlap = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        overlap(&self.panels, &other.panels) && overlap(&self.rows, &other.rows)
    }
}

/// A set, lent to the threads of a phase.
pub(crate) struct SharedPanels<'a, F: Number> {
    matrices: *mut Panels<F>,
    len: usize,
    table: &'a RegionTable,
    lent: PhantomData<&'a mut [Panels<F>]>,
}

// SAFETY: lines are written through the guard of a tile, which one thread holds and whose regions
// no other tile overlaps, and are read from matrices that no tile writes.
unsafe impl<F: Number> Sync for SharedPanels<'_, F> {}

impl<'a, F: Number> SharedPanels<'a, F> {
    /// Claims a tile for the calling thread.
    ///
    /// # Panics
    /// If it is claimed already.
    #[track_caller]
    pub(crate) fn claim(&self, tile: usize) -> RegionGuard<'_, 'a, F> {
        let of_tile = &self.table.tiles[tile];
        // Paired with the `Release` of the guard's drop: what the tile's last holder wrote is
        // visible to this one.
        let was = of_tile.claimed.0.swap(true, Ordering::Acquire);
        assert!(!was, "tile {tile} is claimed already");
        RegionGuard { shared: self, tile: of_tile }
    }

    /// First line, lines from panel to panel, panels and rows of a matrix.
    fn raw(&self, matrix: usize) -> (*mut F::Line, usize, usize, usize) {
        assert!(matrix < self.len, "matrix {matrix} of {}", self.len);
        // SAFETY: `matrix` is within the slice that `share` borrowed for 'a. Only the header is
        // read through this reference, and no `&mut` to it exists while `self` does.
        let matrix = unsafe { &*self.matrices.add(matrix) };
        let view = matrix.view();
        (view.as_ptr().cast_mut(), view.stride(), view.panels(), view.rows())
    }
}

/// A claimed tile, whose regions the holder alone may write. Dropping it gives the tile up.
pub(crate) struct RegionGuard<'s, 'a, F: Number> {
    shared: &'s SharedPanels<'a, F>,
    tile: &'s RegionTile,
}

impl<'s, F: Number> RegionGuard<'s, '_, F> {
    /// A matrix that no tile of this phase writes.
    ///
    /// # Panics
    /// If one does.
    #[track_caller]
    pub(crate) fn read(&self, matrix: usize) -> PanelsRef<'s, F> {
        let written = self.shared.table.written.get(matrix).copied().unwrap_or(false);
        assert!(!written, "matrix {matrix} is being written");
        let (first, stride, panels, rows) = self.shared.raw(matrix);
        // SAFETY: the matrix has these lines, and nobody writes them while the set is shared.
        unsafe { PanelsRef::from_raw(first, stride, panels, rows) }
    }

    /// Whether any tile of this phase writes the matrix.
    pub(crate) fn is_written(&self, matrix: usize) -> bool {
        self.shared.table.written.get(matrix).copied().unwrap_or(false)
    }

    /// The tile's region of a matrix.
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    pub(crate) fn region(&self, matrix: usize) -> &'s Region {
        let found = self.tile.regions.iter().find(|region| region.matrix == matrix);
        found.unwrap_or_else(|| panic!("matrix {matrix} does not belong to {:?}", self.tile.regions))
    }

    /// The tile's region of a matrix, to be written.
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    pub(crate) fn write(&mut self, matrix: usize) -> PanelsMut<'_, F> {
        let (first, stride, panels, rows) = self.raw_region(matrix);
        // SAFETY: this guard is the only one of its tile, no other tile's region overlaps it, and
        // `&mut self` keeps every other view of it away.
        unsafe { PanelsMut::from_raw(first, stride, panels, rows) }
    }

    /// Parts of the matrices `from`, to be read: of a matrix that this phase writes, only what lies
    /// in the tile's own region; and the tile's region of another one, to be written.
    ///
    /// # Panics
    /// If a part may be written by another tile, or is of the matrix `to`, or the tile has no
    /// region of that.
    #[track_caller]
    pub(crate) fn read_and_write<const N: usize>(
        &mut self,
        from: [Region; N],
        to: usize,
    ) -> ([PanelsRef<'_, F>; N], PanelsMut<'_, F>) {
        let from = from.map(|part| {
            assert_ne!(part.matrix, to, "a matrix cannot be read and written at once");
            let (first, stride, panels, rows) = self.raw_readable(&part);
            // SAFETY: the matrix has these lines. Nobody writes them while the set is shared; or
            // they are in a region that this guard alone may write, and what is written below is
            // another matrix.
            unsafe { PanelsRef::from_raw(first, stride, panels, rows) }
        });
        (from, self.write(to))
    }

    /// First line, lines from panel to panel, panels and rows of a part that may be read.
    #[track_caller]
    fn raw_readable(&self, part: &Region) -> (*const F::Line, usize, usize, usize) {
        let (first, stride, panels, rows) = self.shared.raw(part.matrix);
        let inside = |a: &Range<usize>, b: &Range<usize>| b.start <= a.start && a.start <= a.end && a.end <= b.end;
        let exists = inside(&part.panels, &(0..panels)) && inside(&part.rows, &(0..rows));
        assert!(exists, "{part:?} of a matrix with {panels} panels of {rows} rows");
        if self.is_written(part.matrix) {
            let own = self.region(part.matrix);
            let is_own = inside(&part.panels, &own.panels) && inside(&part.rows, &own.rows);
            assert!(is_own, "{part:?} reaches beyond the tile's {own:?}");
        }
        let first = first.wrapping_add(part.panels.start * stride + part.rows.start);
        (first, stride, part.panels.len(), part.rows.len())
    }

    /// The tile's regions of several different matrices, to be written.
    ///
    /// # Panics
    /// If the tile has no region of one of them, or two of them are the same.
    #[track_caller]
    pub(crate) fn write_all<const N: usize>(&mut self, matrices: [usize; N]) -> [PanelsMut<'_, F>; N] {
        let differ = (1..N).all(|i| !matrices[..i].contains(&matrices[i]));
        assert!(differ, "matrices {matrices:?} to be written at once");
        matrices.map(|matrix| {
            let (first, stride, panels, rows) = self.raw_region(matrix);
            // SAFETY: as in `write`, and the matrices differ.
            unsafe { PanelsMut::from_raw(first, stride, panels, rows) }
        })
    }

    #[track_caller]
    fn raw_region(&self, matrix: usize) -> (*mut F::Line, usize, usize, usize) {
        let Region { panels, rows, .. } = self.region(matrix);
        let (first, stride, ..) = self.shared.raw(matrix);
        // The table has made sure that the region lies inside; `wrapping`, since an empty one may
        // begin behind the last line.
        (first.wrapping_add(panels.start * stride + rows.start), stride, panels.len(), rows.len())
    }
}

impl<F: Number> Drop for RegionGuard<'_, '_, F> {
    fn drop(&mut self) {
        self.tile.claimed.0.store(false, Ordering::Release);
    }
}
