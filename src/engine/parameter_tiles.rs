//! Tiles of θ: rows of w[t], and beside them the same rows of c[t]. Each is updated by one thread.

use std::ops::Range;

use ndarray::{Array2, ArrayViewMut1, ArrayViewMut2, Ix1, Ix2, s};

use crate::engine::cut::{split, tile_count};
use crate::linalg::rows;
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::parallel::tiles::{SharedTiles, Tile, TileGuard, TileTable};
use crate::parallel::workload::{Workload, workload};
use crate::steps::top_down::pieces;

/// Rows of w[t] that pieces of a gradient are multiples of.
pub(crate) const PIECE_UNIT: usize = 16;

/// The tiles of all w[t] and c[t]. Those of c[t] are empty where layer t has no bias.
#[derive(Debug)]
pub(crate) struct ParameterTiles {
    w: TileTable,
    c: TileTable,
    /// Floating-point operations of the gradient of one sample.
    flops: usize,
}

impl ParameterTiles {
    pub(crate) fn new<F: Scalar>(theta: &Parameters<F>) -> Self {
        let mut tiles = Vec::new();
        for (t, (w, c)) in theta.w.iter().zip(&theta.c).enumerate() {
            // 32 samples stand for every batch size, so that a smaller last batch has the same
            // tiles.
            for rows in split(w.nrows(), tile_count(64 * w.len()).min(w.nrows().div_ceil(16))) {
                let c_rows = if c.is_empty() { 0..0 } else { rows.clone() };
                let tile = |rows| Tile { arrays: t..t + 1, rows, columns: None };
                tiles.push((rows.start as f64 / w.nrows() as f64, tile(rows), tile(c_rows)));
            }
        }
        // The upper rows of all layers come before the lower ones. Forward tiles have been claimed
        // in that order, so a core meets the weights that it has in cache.
        tiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (w_tiles, c_tiles) = tiles.into_iter().map(|(_, w, c)| (w, c)).unzip();
        Self::from_tiles(theta, w_tiles, c_tiles)
    }

    /// Tiles of w[t] alone, piece by piece from the last rows to the first, for a gradient that is
    /// used so: of each piece as many as there are threads, or fewer if it has few rows.
    pub(crate) fn top_down<F: Scalar>(theta: &Parameters<F>, threads: usize) -> Self {
        let (mut w_tiles, mut c_tiles) = (Vec::new(), Vec::new());
        for (t, w) in theta.w.iter().enumerate().rev() {
            for piece in pieces(t, w.nrows(), PIECE_UNIT) {
                for rows in split(piece.len(), threads.min(piece.len().div_ceil(PIECE_UNIT))) {
                    let tile = |rows| Tile { arrays: t..t + 1, rows, columns: None };
                    w_tiles.push(tile(piece.start + rows.start..piece.start + rows.end));
                    c_tiles.push(tile(0..0));
                }
            }
        }
        Self::from_tiles(theta, w_tiles, c_tiles)
    }

    pub(crate) fn from_tiles<F: Scalar>(theta: &Parameters<F>, w_tiles: Vec<Tile>, c_tiles: Vec<Tile>) -> Self {
        let flops = 2 * theta.w.iter().map(Array2::len).sum::<usize>();
        let w = TileTable::new(theta.w.iter().map(Array2::dim).collect(), w_tiles);
        let c = TileTable::new(theta.c.iter().map(|c| (c.len(), 1)).collect(), c_tiles);
        Self { w, c, flops }
    }

    /// A copy of these tiles for further arrays shaped like θ, to be claimed independently.
    pub(crate) fn like(&self) -> Self {
        Self { w: self.w.like(), c: self.c.like(), flops: self.flops }
    }

    pub(crate) fn len(&self) -> usize {
        self.w.len()
    }

    /// The layer t of a tile, and its rows of w[t].
    pub(crate) fn layer_rows(&self, tile: usize) -> (usize, Range<usize>) {
        let Tile { arrays, rows, .. } = self.w.tile(tile);
        (arrays.start, rows.clone())
    }

    /// The tiles of these rows of w[t], where they lie one after another.
    pub(crate) fn of_rows(&self, t: usize, rows: &Range<usize>) -> Range<usize> {
        let is_of = |tile: &usize| {
            let (of, own) = self.layer_rows(*tile);
            of == t && rows.contains(&own.start)
        };
        let first = (0..self.len()).find(is_of).unwrap_or(self.len());
        first..first + (first..self.len()).take_while(is_of).count()
    }

    /// The number of rows of c[t] in a tile: as many as of w[t], or 0.
    pub(crate) fn c_rows(&self, tile: usize) -> usize {
        self.c.tile(tile).rows.len()
    }

    /// All of a tile.
    pub(crate) fn whole(&self, tile: usize) -> Block {
        let (t, rows) = self.layer_rows(tile);
        Block { rows: 0..rows.len(), columns: 0..self.w.columns(t) }
    }

    /// Floating-point operations of the gradient of `samples` samples.
    pub(crate) fn flops(&self, samples: usize) -> usize {
        samples * self.flops
    }

    /// The work with `samples` samples that can be shared.
    pub(crate) fn workload(&self, samples: usize) -> Workload {
        workload(self.len(), self.flops(samples))
    }

    /// Whether these tiles were made for a θ with these biases; the caller compares the widths.
    pub(crate) fn fits<F: Scalar>(&self, theta: &Parameters<F>) -> bool {
        (0..self.c.len()).all(|tile| {
            let Tile { arrays, rows, .. } = self.c.tile(tile);
            theta.c[arrays.start].is_empty() == rows.is_empty()
        })
    }
}

/// θ, or arrays shaped like it, whose tiles several threads write.
pub(crate) struct SharedParameters<'a, F> {
    w: SharedTiles<'a, F, Ix2>,
    c: SharedTiles<'a, F, Ix1>,
}

impl<'a, F: Scalar> SharedParameters<'a, F> {
    pub(crate) fn new(parameters: &'a mut Parameters<F>, tiles: &'a ParameterTiles) -> Self {
        Self { w: SharedTiles::new(&mut parameters.w, &tiles.w), c: SharedTiles::new(&mut parameters.c, &tiles.c) }
    }

    pub(crate) fn claim(&self, tile: usize) -> ParameterTile<'_, 'a, F> {
        ParameterTile { w: self.w.claim(tile), c: self.c.claim(tile) }
    }
}

/// A tile of θ that this thread alone may write.
pub(crate) struct ParameterTile<'s, 'a, F> {
    w: TileGuard<'s, 'a, F, Ix2>,
    c: TileGuard<'s, 'a, F, Ix1>,
}

impl<F: Scalar> ParameterTile<'_, '_, F> {
    /// All of the tile.
    pub(crate) fn write(&mut self) -> ParameterBlock<'_, F> {
        let array = self.w.tile().arrays.start;
        ParameterBlock { w: self.w.write(array), c: self.c.write(array) }
    }

    /// A block of the tile.
    pub(crate) fn block(&mut self, block: &Block) -> ParameterBlock<'_, F> {
        let ParameterBlock { mut w, mut c } = self.write();
        w.slice_collapse(s![block.rows.clone(), block.columns.clone()]);
        let of_c = if c.is_empty() || block.columns.start > 0 { 0..0 } else { block.rows.clone() };
        c.slice_collapse(s![of_c]);
        ParameterBlock { w, c }
    }
}

/// Some rows and columns of a tile, counted from its first row.
pub(crate) struct Block {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

/// A block of w[t], and the numbers of c[t] in its rows. A block that does not begin with the first
/// column has none of them, so that blocks of the same rows share no number.
pub(crate) struct ParameterBlock<'a, F> {
    pub(crate) w: ArrayViewMut2<'a, F>,
    pub(crate) c: ArrayViewMut1<'a, F>,
}

impl<F: Scalar> ParameterBlock<'_, F> {
    /// The numbers of c[t].
    pub(crate) fn c(&mut self) -> &mut [F] {
        self.c.as_slice_mut().expect("numbers of c lie one beside the other")
    }

    /// Σ p²
    pub(crate) fn squares(&mut self) -> f64 {
        let mut sum = 0.0;
        for_each_run([self.w.view_mut()], |[w]| sum += rows::squares(w));
        sum + rows::squares(self.c())
    }
}

/// Calls `work` on the numbers of several matrices of one shape, in runs that are contiguous in all
/// of them.
pub(crate) fn for_each_run<F, const N: usize>(of: [ArrayViewMut2<F>; N], mut work: impl FnMut([&mut [F]; N])) {
    let mut of = of;
    if of.iter().all(|a| a.is_standard_layout()) {
        return work(of.map(|a| a.into_slice().expect("standard layout")));
    }
    for row in 0..of[0].nrows() {
        work(of.each_mut().map(|a| rows::slice_mut(a.row_mut(row))));
    }
}
