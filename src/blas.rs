//! The products that everything else is made of, and every line of the crate that needs `unsafe`.
//!
//! ```text
//! gemm   C ← α A B + β C       A: (m, k)   B: (k, n)   C: (m, n)
//! gemv   y ← α A x + β y       A: (m, n)   x: (n)      y: (m)
//! ger    A ← α x yᵀ + A        A: (m, n)   x: (m)      y: (n)
//! ```
//!
//! With the feature `blas` these are CBLAS calls for `f32` and `f64`, reached directly: ndarray's own dispatch falls back to
//! another kernel for small shapes, which has other rounding and another speed. Without it ndarray's kernels run.
//! A transposed operand is a transposed view (`a.t()`); nothing is copied. β = 0 overwrites, NaN included.
//!
//! [`SharedRows`] lets several threads write different rows of one list of arrays, checked at run time.

// The one file in which it may stand; Cargo.toml denies it everywhere else.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicIsize, Ordering};

use ndarray::{Array, ArrayView, ArrayView1, ArrayView2, ArrayViewMut, ArrayViewMut1, ArrayViewMut2, Axis, RemoveAxis};

/// The three products. Public in a private module, which seals [`Scalar`](crate::Scalar).
pub trait Kernels: Copy + Send + Sync + 'static {
    /// C ← α A B + β C.
    fn gemm(alpha: Self, a: ArrayView2<Self>, b: ArrayView2<Self>, beta: Self, c: ArrayViewMut2<Self>);
    /// y ← α A x + β y.
    fn gemv(alpha: Self, a: ArrayView2<Self>, x: ArrayView1<Self>, beta: Self, y: ArrayViewMut1<Self>);
    /// A ← α x yᵀ + A.
    fn ger(alpha: Self, x: ArrayView1<Self>, y: ArrayView1<Self>, a: ArrayViewMut2<Self>);
}

/// Panics with all three shapes unless C = A B makes sense.
#[track_caller]
pub(crate) fn assert_gemm_shapes(a: (usize, usize), b: (usize, usize), c: (usize, usize)) {
    assert!(a.1 == b.0 && c == (a.0, b.1), "gemm: A {a:?} times B {b:?} does not give C {c:?}");
}

/// Panics with all three shapes unless y = A x makes sense.
#[track_caller]
pub(crate) fn assert_gemv_shapes(a: (usize, usize), x: usize, y: usize) {
    assert!(a == (y, x), "gemv: A {a:?} times x ({x}) does not give y ({y})");
}

#[cfg(feature = "blas")]
mod cblas {
    //! Arguments of a CBLAS call, taken from ndarray views.
    use super::*;
    use cblas_sys::{
        CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_dgemm, cblas_dgemv, cblas_dger, cblas_sgemm, cblas_sgemv, cblas_sger,
    };

    #[track_caller]
    fn int(n: usize) -> i32 {
        i32::try_from(n).unwrap_or_else(|_| panic!("CBLAS counts in 32 bits, found a length of {n}"))
    }

    /// Leading dimension of a row-major matrix with these shape and strides, or `None` if it is not one.
    /// The stride along an axis of length 1 or 0 is never used, and ndarray lets it be anything.
    fn row_major(shape: (usize, usize), strides: (isize, isize)) -> Option<i32> {
        let columns_adjoin = shape.1 <= 1 || strides.1 == 1;
        let rows_apart = if shape.0 <= 1 { shape.1.max(1) as isize } else { strides.0 };
        (columns_adjoin && rows_apart >= shape.1.max(1) as isize).then(|| int(rows_apart as usize))
    }

    fn pair(strides: &[isize]) -> (isize, isize) {
        (strides[0], strides[1])
    }

    /// How CBLAS reads a view: as it lies or transposed, with its leading dimension.
    #[track_caller]
    fn operand<F>(a: &ArrayView2<F>) -> (CBLAS_TRANSPOSE, i32) {
        let (shape, strides) = (a.dim(), pair(a.strides()));
        if let Some(ld) = row_major(shape, strides) {
            (CBLAS_TRANSPOSE::CblasNoTrans, ld)
        } else if let Some(ld) = row_major((shape.1, shape.0), (strides.1, strides.0)) {
            (CBLAS_TRANSPOSE::CblasTrans, ld)
        } else {
            panic!("BLAS operand of shape {shape:?} has strides {strides:?}: neither rows nor columns adjoin")
        }
    }

    /// Leading dimension of an output, which must lie row by row.
    #[track_caller]
    fn output<F>(c: &ArrayViewMut2<F>) -> i32 {
        row_major(c.dim(), pair(c.strides())).unwrap_or_else(|| {
            panic!("BLAS output of shape {:?} has strides {:?}: not row-major", c.dim(), c.strides())
        })
    }

    /// Increment of a vector. CBLAS reads a negative one from the other end, so only positive ones pass.
    #[track_caller]
    fn increment(len: usize, stride: isize) -> i32 {
        if len <= 1 {
            return 1;
        }
        assert!(stride > 0, "BLAS vector with stride {stride}");
        int(stride as usize)
    }

    macro_rules! kernels {
        ($f:ty, $gemm:ident, $gemv:ident, $ger:ident) => {
            impl Kernels for $f {
                fn gemm(alpha: $f, a: ArrayView2<$f>, b: ArrayView2<$f>, beta: $f, mut c: ArrayViewMut2<$f>) {
                    assert_gemm_shapes(a.dim(), b.dim(), c.dim());
                    let ((m, k), n) = (a.dim(), b.ncols());
                    if m == 0 || n == 0 {
                        return;
                    }
                    let ((ta, lda), (tb, ldb), ldc) = (operand(&a), operand(&b), output(&c));
                    // SAFETY: the shapes fit (asserted), each leading dimension was read off the view that the pointer
                    // comes from, so CBLAS touches only elements of the three views; `c` is borrowed mutably, so it
                    // overlaps neither `a` nor `b`.
                    unsafe {
                        $gemm(
                            CBLAS_LAYOUT::CblasRowMajor,
                            ta,
                            tb,
                            int(m),
                            int(n),
                            int(k),
                            alpha,
                            a.as_ptr(),
                            lda,
                            b.as_ptr(),
                            ldb,
                            beta,
                            c.as_mut_ptr(),
                            ldc,
                        );
                    }
                }

                fn gemv(alpha: $f, a: ArrayView2<$f>, x: ArrayView1<$f>, beta: $f, mut y: ArrayViewMut1<$f>) {
                    assert_gemv_shapes(a.dim(), x.len(), y.len());
                    if y.is_empty() {
                        return;
                    }
                    let (trans, lda) = operand(&a);
                    let (rows, cols) =
                        if matches!(trans, CBLAS_TRANSPOSE::CblasNoTrans) { a.dim() } else { (a.ncols(), a.nrows()) };
                    // SAFETY: as for gemm; `rows` and `cols` are those of the stored matrix, and both increments are the
                    // positive strides of their views.
                    unsafe {
                        $gemv(
                            CBLAS_LAYOUT::CblasRowMajor,
                            trans,
                            int(rows),
                            int(cols),
                            alpha,
                            a.as_ptr(),
                            lda,
                            x.as_ptr(),
                            increment(x.len(), x.strides()[0]),
                            beta,
                            y.as_mut_ptr(),
                            increment(y.len(), y.strides()[0]),
                        );
                    }
                }

                fn ger(alpha: $f, x: ArrayView1<$f>, y: ArrayView1<$f>, mut a: ArrayViewMut2<$f>) {
                    assert_gemm_shapes((x.len(), 1), (1, y.len()), a.dim());
                    if a.is_empty() {
                        return;
                    }
                    let lda = output(&a);
                    // SAFETY: as for gemm; `a` is borrowed mutably and so overlaps neither vector.
                    unsafe {
                        $ger(
                            CBLAS_LAYOUT::CblasRowMajor,
                            int(a.nrows()),
                            int(a.ncols()),
                            alpha,
                            x.as_ptr(),
                            increment(x.len(), x.strides()[0]),
                            y.as_ptr(),
                            increment(y.len(), y.strides()[0]),
                            a.as_mut_ptr(),
                            lda,
                        );
                    }
                }
            }
        };
    }

    kernels!(f32, cblas_sgemm, cblas_sgemv, cblas_sger);
    kernels!(f64, cblas_dgemm, cblas_dgemv, cblas_dger);
}

#[cfg(not(feature = "blas"))]
mod portable {
    //! ndarray's own kernels (the matrixmultiply crate): no C library.
    use super::*;

    macro_rules! kernels {
        ($f:ty) => {
            impl Kernels for $f {
                fn gemm(alpha: $f, a: ArrayView2<$f>, b: ArrayView2<$f>, beta: $f, mut c: ArrayViewMut2<$f>) {
                    assert_gemm_shapes(a.dim(), b.dim(), c.dim());
                    ndarray::linalg::general_mat_mul(alpha, &a, &b, beta, &mut c);
                }
                fn gemv(alpha: $f, a: ArrayView2<$f>, x: ArrayView1<$f>, beta: $f, mut y: ArrayViewMut1<$f>) {
                    assert_gemv_shapes(a.dim(), x.len(), y.len());
                    ndarray::linalg::general_mat_vec_mul(alpha, &a, &x, beta, &mut y);
                }
                fn ger(alpha: $f, x: ArrayView1<$f>, y: ArrayView1<$f>, mut a: ArrayViewMut2<$f>) {
                    assert_gemm_shapes((x.len(), 1), (1, y.len()), a.dim());
                    for (mut row, &x) in a.outer_iter_mut().zip(x) {
                        row.scaled_add(alpha * x, &y);
                    }
                }
            }
        };
    }

    kernels!(f32);
    kernels!(f64);
}

/// The settings of the OpenBLAS that is linked, which are global to the process.
#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
pub(crate) mod openblas {
    // The crate that links the library.
    use openblas_src as _;
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        fn openblas_set_num_threads(threads: c_int);
        fn openblas_get_num_threads() -> c_int;
        fn openblas_get_parallel() -> c_int;
        fn openblas_get_config() -> *const c_char;
        fn openblas_get_corename() -> *const c_char;
    }

    pub(crate) fn set_threads(threads: i32) {
        // SAFETY: takes a number by value; OpenBLAS clamps it to its own limits.
        unsafe { openblas_set_num_threads(threads) }
    }

    pub(crate) fn threads() -> i32 {
        // SAFETY: reads a global of the library.
        unsafe { openblas_get_num_threads() }
    }

    /// True for a build that parallelises by OpenMP and takes its number of threads from there.
    pub(crate) fn is_openmp() -> bool {
        // SAFETY: reads a constant of the library.
        unsafe { openblas_get_parallel() == 2 }
    }

    /// Version, build options and kernel, such as `OpenBLAS 0.3.21 … MAX_THREADS=64 kernel Zen`.
    pub(crate) fn description() -> String {
        // SAFETY: both return pointers to constant, NUL-terminated strings of the library.
        let (config, core) =
            unsafe { (CStr::from_ptr(openblas_get_config()), CStr::from_ptr(openblas_get_corename())) };
        format!("{} kernel {}", config.to_string_lossy().trim(), core.to_string_lossy())
    }
}

/// A table of disjoint tiles of a list of arrays, with the run-time borrow of each.
#[derive(Debug)]
pub(crate) struct TileTable {
    tiles: Vec<Tile>,
    borrows: Vec<Borrow>,
}

/// The rows `rows` (axis 0) of the arrays `arrays` of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) arrays: Range<usize>,
    pub(crate) rows: Range<usize>,
}

/// −1 while the tile is written, else its number of readers. Alone on its cache line, since several threads write it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Borrow(AtomicIsize);

impl TileTable {
    /// # Panics
    /// If two tiles share a row of an array.
    pub(crate) fn new(tiles: Vec<Tile>) -> Self {
        let overlap = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        for (i, a) in tiles.iter().enumerate() {
            for b in &tiles[..i] {
                assert!(!(overlap(&a.arrays, &b.arrays) && overlap(&a.rows, &b.rows)), "tiles {b:?} and {a:?} overlap");
            }
        }
        let borrows = tiles.iter().map(|_| Borrow::default()).collect();
        Self { tiles, borrows }
    }

    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }

    pub(crate) fn tile(&self, tile: usize) -> &Tile {
        &self.tiles[tile]
    }
}

/// A list of arrays whose rows several threads write at once: a `RefCell` whose borrows are the tiles of a [`TileTable`].
///
/// A tile is borrowed for writing by at most one thread, and the whole for reading only while no tile is being written.
/// Both are checked, so a fault in the scheduling panics and never becomes a data race.
pub(crate) struct SharedRows<'a, F, D> {
    arrays: *mut Array<F, D>,
    len: usize,
    table: &'a TileTable,
    lent: PhantomData<&'a mut [Array<F, D>]>,
}

// SAFETY: all access to the elements goes through `write` and `read`, which keep the writer of a tile alone with it; the
// arrays' headers are only read. `F` crosses threads by reference and by value.
unsafe impl<F: Send + Sync, D: Send + Sync> Sync for SharedRows<'_, F, D> {}

impl<'a, F, D: RemoveAxis> SharedRows<'a, F, D> {
    /// # Panics
    /// If an array is not row-major, or a tile reaches beyond the list or an array of it.
    pub(crate) fn new(arrays: &'a mut [Array<F, D>], table: &'a TileTable) -> Self {
        assert!(arrays.iter().all(|a| a.is_standard_layout()), "shared arrays are row-major");
        for tile in &table.tiles {
            for i in tile.arrays.clone() {
                let rows = arrays[i].len_of(Axis(0));
                assert!(
                    tile.rows.start <= tile.rows.end && tile.rows.end <= rows,
                    "{tile:?} of an array of {rows} rows"
                );
            }
        }
        Self { arrays: arrays.as_mut_ptr(), len: arrays.len(), table, lent: PhantomData }
    }

    fn array(&self, i: usize) -> &Array<F, D> {
        assert!(i < self.len, "array {i} of {}", self.len);
        // SAFETY: `i` is within the slice that `new` borrowed for 'a. Only headers are read through this reference: the
        // elements lie elsewhere on the heap, and no `&mut` to a header exists while `self` does.
        unsafe { &*self.arrays.add(i) }
    }

    /// Borrows one tile for writing.
    ///
    /// # Panics
    /// If the tile is borrowed already.
    #[track_caller]
    pub(crate) fn write(&self, tile: usize) -> WriteTile<'_, 'a, F, D> {
        let was = self.table.borrows[tile].0.compare_exchange(0, -1, Ordering::Acquire, Ordering::Relaxed);
        assert!(was.is_ok(), "tile {tile} is to be written and already borrowed: {was:?}");
        WriteTile { of: self, tile }
    }

    /// Borrows everything for reading.
    ///
    /// # Panics
    /// If a tile is being written.
    #[track_caller]
    pub(crate) fn read(&self) -> ReadAll<'_, 'a, F, D> {
        for (tile, borrow) in self.table.borrows.iter().enumerate() {
            let was = borrow.0.fetch_add(1, Ordering::Acquire);
            assert!(was >= 0, "tile {tile} is to be read and is being written");
        }
        ReadAll { of: self }
    }
}

/// One tile, borrowed for writing.
pub(crate) struct WriteTile<'s, 'a, F, D> {
    of: &'s SharedRows<'a, F, D>,
    tile: usize,
}

impl<F, D: RemoveAxis> WriteTile<'_, '_, F, D> {
    fn pointer(&self, i: usize) -> (D, *mut F) {
        let tile = &self.of.table.tiles[self.tile];
        assert!(tile.arrays.contains(&i), "array {i} does not belong to {tile:?}");
        let array = self.of.array(i);
        let mut shape = array.raw_dim();
        shape[0] = tile.rows.len();
        let row = array.len() / array.len_of(Axis(0)).max(1);
        // SAFETY: `new` checked that the tile's rows lie within this row-major array, so the offset stays inside it.
        (shape, unsafe { array.as_ptr().cast_mut().add(tile.rows.start * row) })
    }

    /// The tile's rows of array `i`.
    pub(crate) fn rows(&self, i: usize) -> ArrayView<'_, F, D> {
        let (shape, pointer) = self.pointer(i);
        // SAFETY: these rows belong to this borrow alone, and `&self` keeps `rows_mut` and `pair` away meanwhile.
        unsafe { ArrayView::from_shape_ptr(shape, pointer) }
    }

    /// The tile's rows of array `i`, to be written.
    pub(crate) fn rows_mut(&mut self, i: usize) -> ArrayViewMut<'_, F, D> {
        let (shape, pointer) = self.pointer(i);
        // SAFETY: these rows belong to this borrow alone, and `&mut self` keeps every other view of them away.
        unsafe { ArrayViewMut::from_shape_ptr(shape, pointer) }
    }

    /// The tile's rows of array `from`, to be read, beside those of another array `to`, to be written.
    pub(crate) fn pair(&mut self, from: usize, to: usize) -> (ArrayView<'_, F, D>, ArrayViewMut<'_, F, D>) {
        assert_ne!(from, to, "an array cannot be read and written at once");
        let ((from_shape, from), (to_shape, to)) = (self.pointer(from), self.pointer(to));
        // SAFETY: as for `rows` and `rows_mut`; they are two arrays, whose elements do not overlap.
        unsafe { (ArrayView::from_shape_ptr(from_shape, from), ArrayViewMut::from_shape_ptr(to_shape, to)) }
    }
}

impl<F, D> Drop for WriteTile<'_, '_, F, D> {
    fn drop(&mut self) {
        self.of.table.borrows[self.tile].0.store(0, Ordering::Release);
    }
}

/// All tiles, borrowed for reading.
pub(crate) struct ReadAll<'s, 'a, F, D> {
    of: &'s SharedRows<'a, F, D>,
}

impl<F, D: RemoveAxis> ReadAll<'_, '_, F, D> {
    /// Array `i`, whole.
    pub(crate) fn array(&self, i: usize) -> ArrayView<'_, F, D> {
        self.of.array(i).view()
    }
}

impl<F, D> Drop for ReadAll<'_, '_, F, D> {
    fn drop(&mut self) {
        for borrow in &self.of.table.borrows {
            borrow.0.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, Array2, array};

    fn table(rows: &[Range<usize>]) -> TileTable {
        TileTable::new(rows.iter().map(|rows| Tile { arrays: 0..2, rows: rows.clone() }).collect())
    }

    #[test]
    fn tiles_write_their_own_rows() {
        let table = table(&[0..1, 1..3]);
        let mut arrays = [Array2::<f64>::zeros((3, 2)), Array2::zeros((3, 1))];
        let shared = SharedRows::new(&mut arrays, &table);
        let mut first = shared.write(0);
        let mut second = shared.write(1);
        first.rows_mut(0).fill(1.0);
        second.rows_mut(0).fill(2.0);
        let (from, mut to) = second.pair(0, 1);
        to.column_mut(0).assign(&from.column(1));
        assert_eq!(first.rows(0), array![[1.0, 1.0]]);
        drop((first, second));
        assert_eq!(shared.read().array(1), array![[0.0], [2.0], [2.0]]);
        assert_eq!(arrays[0], array![[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]);
    }

    #[test]
    fn one_dimensional_arrays_have_rows_too() {
        let table = TileTable::new(vec![Tile { arrays: 0..1, rows: 2..5 }]);
        let mut arrays = [Array1::<f32>::zeros(6)];
        SharedRows::new(&mut arrays, &table).write(0).rows_mut(0).fill(1.0);
        assert_eq!(arrays[0], array![0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "already borrowed")]
    fn a_tile_has_one_writer() {
        let table = table(&[0..3]);
        let mut arrays = [Array2::<f64>::zeros((3, 2)), Array2::zeros((3, 1))];
        let shared = SharedRows::new(&mut arrays, &table);
        let _first = shared.write(0);
        shared.write(0);
    }

    #[test]
    #[should_panic(expected = "being written")]
    fn nobody_reads_while_a_tile_is_written() {
        let table = table(&[0..1, 1..3]);
        let mut arrays = [Array2::<f64>::zeros((3, 2)), Array2::zeros((3, 1))];
        let shared = SharedRows::new(&mut arrays, &table);
        let _writer = shared.write(1);
        shared.read();
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_tiles_are_refused() {
        table(&[0..2, 1..3]);
    }

    #[test]
    #[should_panic(expected = "of an array of 3 rows")]
    fn tiles_beyond_an_array_are_refused() {
        let table = table(&[0..4]);
        SharedRows::new(&mut [Array2::<f64>::zeros((3, 2)), Array2::zeros((3, 1))], &table);
    }

    #[test]
    #[should_panic(expected = "gemm: A (2, 3) times B (2, 2) does not give C (2, 2)")]
    fn wrong_shapes_panic_with_all_of_them() {
        let (a, b, mut c) = (Array2::<f64>::zeros((2, 3)), Array2::zeros((2, 2)), Array2::zeros((2, 2)));
        f64::gemm(1.0, a.view(), b.view(), 0.0, c.view_mut());
    }

    /// Every layout the crate uses, against sums written out, on integers: all of it is exact.
    #[test]
    fn products_of_all_layouts() {
        for (m, k, n) in [(1, 1, 1), (1, 7, 1), (7, 1, 8), (8, 7, 1), (1, 5, 9), (45, 46, 33), (16, 129, 8)] {
            let value = |i: usize, j: usize| ((i * 7 + j * 3) % 11) as f64 - 5.0;
            let a = Array2::from_shape_fn((m, k), |(i, j)| value(i, j));
            let b = Array2::from_shape_fn((k, n), |(i, j)| value(j, i + 2));
            let c = Array2::from_shape_fn((m, n), |(i, j)| value(i + j, j));
            let expected = Array2::from_shape_fn((m, n), |(i, j)| {
                2.0 * (0..k).map(|l| a[(i, l)] * b[(l, j)]).sum::<f64>() - 3.0 * c[(i, j)]
            });
            let (a_t, b_t) = (a.t().as_standard_layout().into_owned(), b.t().as_standard_layout().into_owned());
            for (a, b) in [(a.view(), b.view()), (a.view(), b_t.t()), (a_t.t(), b.view()), (a_t.t(), b_t.t())] {
                let mut out = c.clone();
                f64::gemm(2.0, a, b, -3.0, out.view_mut());
                assert_eq!(out, expected, "gemm {m} {k} {n}");
                let mut nan = Array2::from_elem((m, n), f64::NAN);
                f64::gemm(1.0, a, b, 0.0, nan.view_mut());
                assert!(nan.iter().all(|v| v.is_finite()), "beta = 0 overwrites");
                let mut y = c.column(0).to_owned();
                f64::gemv(2.0, a, b.column(0), -3.0, y.view_mut());
                assert_eq!(y, expected.column(0), "gemv {m} {k}");
                let mut nan = Array1::from_elem(m, f64::NAN);
                f64::gemv(1.0, a, b.column(0), 0.0, nan.view_mut());
                assert!(nan.iter().all(|v| v.is_finite()), "beta = 0 overwrites");
            }
            let mut out = c.clone();
            f64::ger(2.0, a.column(0), b.row(0), out.view_mut());
            assert_eq!(
                out,
                Array2::from_shape_fn((m, n), |(i, j)| c[(i, j)] + 2.0 * a[(i, 0)] * b[(0, j)]),
                "ger {m} {n}"
            );
        }
    }
}
