//! The products that everything else is made of, and tiles of arrays that several threads write.
//!
//! ```text
//! gemm   C ← α A B + β C       A: (m, k)   B: (k, n)   C: (m, n)
//! gemv   y ← α A x + β y       A: (m, n)   x: (n)      y: (m)
//! ger    A ← α x yᵀ + A        A: (m, n)   x: (m)      y: (n)
//! dot    xᵀ y                   x: (n)      y: (n)
//! ```
//!
//! With the feature `blas` these are CBLAS calls for `f32` and `f64`, reached directly: ndarray's own dispatch falls back to
//! another kernel for small shapes, which has other rounding and another speed. Without it ndarray's kernels run.
//! A transposed operand is a transposed view (`a.t()`); nothing is copied. β = 0 overwrites, NaN included.
//!
//! [`SharedTiles`] lets several threads write different tiles of one list of arrays, checked at run time.

// SingleStep of the few files in which it may stand (`ci/floors` has the list); Cargo.toml denies it everywhere else.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{
    Array, ArrayView, ArrayView1, ArrayView2, ArrayViewMut, ArrayViewMut1, ArrayViewMut2, Axis, RemoveAxis,
    ShapeBuilder, StrideShape,
};

/// The four products. Public in a private module, which seals [`Scalar`](crate::Scalar).
pub trait Kernels: Copy + Send + Sync + 'static {
    /// C ← α A B + β C.
    fn gemm(alpha: Self, a: ArrayView2<Self>, b: ArrayView2<Self>, beta: Self, c: ArrayViewMut2<Self>);
    /// y ← α A x + β y.
    fn gemv(alpha: Self, a: ArrayView2<Self>, x: ArrayView1<Self>, beta: Self, y: ArrayViewMut1<Self>);
    /// A ← α x yᵀ + A.
    fn ger(alpha: Self, x: ArrayView1<Self>, y: ArrayView1<Self>, a: ArrayViewMut2<Self>);
    /// xᵀ y.
    fn dot(x: &[Self], y: &[Self]) -> Self;
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
        CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_ddot, cblas_dgemm, cblas_dgemv, cblas_dger, cblas_sdot, cblas_sgemm,
        cblas_sgemv, cblas_sger,
    };

    /// Coefficients of one `dot`, of which CBLAS counts as many as an `i32` can. A vector may be a whole layer of a tall batch.
    const LONGEST_DOT: usize = 1 << 30;

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
        ($f:ty, $gemm:ident, $gemv:ident, $ger:ident, $dot:ident) => {
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

                fn dot(x: &[$f], y: &[$f]) -> $f {
                    assert_eq!(x.len(), y.len(), "dot: lengths of x and y");
                    let pieces = x.chunks(LONGEST_DOT).zip(y.chunks(LONGEST_DOT));
                    // SAFETY: both pieces have this many numbers, one beside the other.
                    let dot = |(x, y): (&[$f], &[$f])| unsafe { $dot(int(x.len()), x.as_ptr(), 1, y.as_ptr(), 1) };
                    pieces.map(dot).sum()
                }
            }
        };
    }

    kernels!(f32, cblas_sgemm, cblas_sgemv, cblas_sger, cblas_sdot);
    kernels!(f64, cblas_dgemm, cblas_dgemv, cblas_dger, cblas_ddot);
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
                fn dot(x: &[$f], y: &[$f]) -> $f {
                    ArrayView1::from(x).dot(&ArrayView1::from(y))
                }
            }
        };
    }

    kernels!(f32);
    kernels!(f64);
}

/// The first product, if any, that comes out wrong for whole numbers, on which all arithmetic is exact. 40 is beyond the sizes
/// that libraries treat apart as small, and takes microseconds.
#[cfg(feature = "blas")]
pub(crate) fn wrong_product() -> Option<&'static str> {
    use ndarray::{Array1, Array2};

    fn wrong<F: Kernels + PartialEq + Default>(of: impl Fn(i32) -> F) -> Option<&'static str> {
        const N: usize = 40;
        let value = |i: usize, j: usize| ((i * 7 + j * 3) % 11) as i32 - 5;
        let matrix = Array2::from_shape_fn((N, N), |(i, j)| of(value(i, j)));
        let transposed = Array2::from_shape_fn((N, N), |(i, j)| of(value(j, i)));
        let vector = Array1::from_shape_fn(N, |i| of(value(i, 1)));
        let product = |i: usize, j: usize| -> i32 { (0..N).map(|l| value(i, l) * value(l, j)).sum() };
        let expected = Array2::from_shape_fn((N, N), |(i, j)| of(product(i, j)));
        let mut c = Array2::default((N, N));
        let (a, a_t) = (matrix.view(), transposed.t());
        for (name, left, right) in [("gemm NN", a, a), ("gemm NT", a, a_t), ("gemm TN", a_t, a)] {
            F::gemm(of(1), left, right, of(0), c.view_mut());
            if c != expected {
                return Some(name);
            }
        }
        let expected = Array1::from_shape_fn(N, |i| of((0..N).map(|l| value(i, l) * value(l, 1)).sum()));
        let mut y = Array1::default(N);
        for (name, left) in [("gemv N", a), ("gemv T", a_t)] {
            F::gemv(of(1), left, vector.view(), of(0), y.view_mut());
            if y != expected {
                return Some(name);
            }
        }
        c.fill(of(0));
        F::ger(of(1), vector.view(), vector.view(), c.view_mut());
        let expected = Array2::from_shape_fn((N, N), |(i, j)| of(value(i, 1) * value(j, 1)));
        (c != expected).then_some("ger")
    }
    wrong::<f32>(|value| value as f32).or_else(|| wrong::<f64>(f64::from))
}

/// The settings of the OpenBLAS that is linked, which are global to the process.
#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
pub(crate) mod openblas {
    // The crate that links the library.
    use openblas_src as _;
    use std::ffi::{CStr, c_char, c_int};
    use std::sync::OnceLock;

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

    /// How the library was built to use several threads.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Parallel {
        Serial,
        Pthreads,
        OpenMp,
    }

    pub(crate) fn parallel() -> Parallel {
        // SAFETY: reads a constant of the library.
        match unsafe { openblas_get_parallel() } {
            0 => Parallel::Serial,
            1 => Parallel::Pthreads,
            _ => Parallel::OpenMp,
        }
    }

    /// Version, build options and kernel, such as `OpenBLAS 0.3.21 … MAX_THREADS=64 kernel Zen`.
    ///
    /// Asked for once: `openblas_get_config` writes its answer anew into one buffer of the process at each call, so two
    /// threads that ask at once spoil it for each other.
    pub(crate) fn description() -> &'static str {
        static DESCRIPTION: OnceLock<String> = OnceLock::new();
        DESCRIPTION.get_or_init(|| {
            // SAFETY: both return pointers to NUL-terminated strings that live as long as the process; the first is written
            // only during the call that returns it, and `OnceLock` lets one thread of this crate make that call, once.
            let (config, core) =
                unsafe { (CStr::from_ptr(openblas_get_config()), CStr::from_ptr(openblas_get_corename())) };
            format!("{} kernel {}", config.to_string_lossy().trim(), core.to_string_lossy())
        })
    }
}

/// The part of a list of arrays that one thread writes alone: some rows (axis 0) of some of the arrays, all columns of each
/// or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) arrays: Range<usize>,
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Option<Range<usize>>,
}

/// Disjoint tiles of a list of arrays of known shapes, checked once.
#[derive(Debug)]
pub(crate) struct TileTable {
    /// Rows, and numbers in a row, of each array.
    shapes: Vec<(usize, usize)>,
    tiles: Vec<Tile>,
    /// Does a tile write this array?
    written: Vec<bool>,
    claims: Vec<Claim>,
}

/// True while a thread writes the tile. Alone on its cache line, since several threads write it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Claim(AtomicBool);

impl TileTable {
    /// # Panics
    /// If two tiles overlap, or a tile reaches beyond an array.
    pub(crate) fn new(shapes: Vec<(usize, usize)>, tiles: Vec<Tile>) -> Self {
        fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
            a.start < b.end && b.start < a.end
        }
        for (i, a) in tiles.iter().enumerate() {
            for &(rows, columns) in &shapes[a.arrays.clone()] {
                let inside = |r: &Range<usize>, len| r.start <= r.end && r.end <= len;
                let fits = inside(&a.rows, rows) && a.columns.as_ref().is_none_or(|c| inside(c, columns));
                assert!(fits, "{a:?} of an array of shape {:?}", (rows, columns));
            }
            for b in &tiles[..i] {
                let columns = match (&a.columns, &b.columns) {
                    (Some(a), Some(b)) => overlap(a, b),
                    _ => true,
                };
                let disjoint = !(overlap(&a.arrays, &b.arrays) && overlap(&a.rows, &b.rows) && columns);
                assert!(disjoint, "tiles {b:?} and {a:?} overlap");
            }
        }
        let written = (0..shapes.len()).map(|i| tiles.iter().any(|tile| tile.arrays.contains(&i))).collect();
        let claims = tiles.iter().map(|_| Claim::default()).collect();
        Self { shapes, tiles, written, claims }
    }

    /// The same tiles of other arrays of the same shapes.
    pub(crate) fn like(&self) -> Self {
        Self::new(self.shapes.clone(), self.tiles.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }

    pub(crate) fn tile(&self, tile: usize) -> &Tile {
        &self.tiles[tile]
    }

    /// Coefficients in a row of an array.
    pub(crate) fn columns(&self, array: usize) -> usize {
        self.shapes[array].1
    }
}

/// A list of arrays whose tiles several threads write at once.
///
/// For the time of the loan, an array is either written by tiles, each claimed by one thread at a time, or read by all.
/// Claims are checked, so a fault in the scheduling panics and never becomes a data race.
pub(crate) struct SharedTiles<'a, F, D> {
    arrays: *mut Array<F, D>,
    table: &'a TileTable,
    lent: PhantomData<&'a mut [Array<F, D>]>,
}

// SAFETY: elements are written through a claimed tile, which one thread holds and no other tile overlaps, and are read from
// arrays that no tile writes; the arrays' headers are only read. `F` crosses threads by reference and by value.
unsafe impl<F: Send + Sync, D: Send + Sync> Sync for SharedTiles<'_, F, D> {}

impl<'a, F, D: RemoveAxis> SharedTiles<'a, F, D> {
    /// # Panics
    /// If the arrays are not those the table was made for: row-major, and of its shapes.
    pub(crate) fn new(arrays: &'a mut [Array<F, D>], table: &'a TileTable) -> Self {
        assert_eq!(arrays.len(), table.shapes.len(), "arrays of a tile table");
        for (array, &(rows, columns)) in arrays.iter().zip(&table.shapes) {
            let fits = array.len_of(Axis(0)) == rows && array.len() == rows * columns && array.is_standard_layout();
            assert!(fits, "an array of shape {:?} for tiles of {:?}", array.shape(), (rows, columns));
        }
        Self { arrays: arrays.as_mut_ptr(), table, lent: PhantomData }
    }

    fn array(&self, i: usize) -> &Array<F, D> {
        assert!(i < self.table.shapes.len(), "array {i} of {}", self.table.shapes.len());
        // SAFETY: `i` is within the slice that `new` borrowed for 'a. Only headers are read through this reference: the
        // elements lie elsewhere on the heap, and no `&mut` to a header exists while `self` does.
        unsafe { &*self.arrays.add(i) }
    }

    /// Claims one tile.
    ///
    /// # Panics
    /// If it is claimed already.
    #[track_caller]
    pub(crate) fn claim(&self, tile: usize) -> Claimed<'_, 'a, F, D> {
        let was = self.table.claims[tile].0.swap(true, Ordering::Acquire);
        assert!(!was, "tile {tile} is claimed already");
        Claimed { of: self, tile }
    }
}

/// A tile that this thread alone may write.
pub(crate) struct Claimed<'s, 'a, F, D> {
    of: &'s SharedTiles<'a, F, D>,
    tile: usize,
}

impl<F, D: RemoveAxis> Claimed<'_, '_, F, D> {
    pub(crate) fn tile(&self) -> &Tile {
        &self.of.table.tiles[self.tile]
    }

    /// Shape, strides and first element of the tile's part of array `i`; or, if `whole_rows`, of its rows in full.
    fn part(&self, i: usize, whole_rows: bool) -> (StrideShape<D>, *mut F) {
        let (tile, array) = (self.tile(), self.of.array(i));
        let (_, row) = self.of.table.shapes[i];
        let (mut shape, mut strides) = (array.raw_dim(), array.raw_dim());
        for (stride, &s) in strides.slice_mut().iter_mut().zip(array.strides()) {
            *stride = s.unsigned_abs();
        }
        shape[0] = tile.rows.len();
        let mut offset = tile.rows.start * row;
        if let (Some(columns), false) = (&tile.columns, whole_rows) {
            shape[1] = columns.len();
            offset += columns.start;
        }
        // SAFETY: the table was checked against this array's shape, and the array is row-major: the tile lies inside it.
        (shape.strides(strides), unsafe { array.as_ptr().cast_mut().add(offset) })
    }

    /// The tile's part of array `i`, to be written.
    ///
    /// # Panics
    /// If the tile has no part in it.
    pub(crate) fn write(&mut self, i: usize) -> ArrayViewMut<'_, F, D> {
        assert!(self.tile().arrays.contains(&i), "array {i} does not belong to {:?}", self.tile());
        let (shape, pointer) = self.part(i, false);
        // SAFETY: this thread claimed the tile, no other overlaps it, and `&mut self` keeps every other view of it away.
        unsafe { ArrayViewMut::from_shape_ptr(shape, pointer) }
    }

    /// The tile's rows of the arrays `from`, all columns, to be read, beside the tile's part of another array `to`, to be written.
    ///
    /// # Panics
    /// If another tile may be writing those rows.
    pub(crate) fn read_and_write<const N: usize>(
        &mut self,
        from: [usize; N],
        to: usize,
    ) -> ([ArrayView<'_, F, D>; N], ArrayViewMut<'_, F, D>) {
        assert!(self.tile().arrays.contains(&to), "array {to} does not belong to {:?}", self.tile());
        let from = from.map(|from| {
            assert_ne!(from, to, "an array cannot be read and written at once");
            let own = self.tile().arrays.contains(&from) && self.tile().columns.is_none();
            assert!(own || !self.of.table.written[from], "the rows of array {from} are being written");
            let (rows, has) = (&self.tile().rows, self.of.table.shapes[from].0);
            assert!(rows.end <= has, "rows {rows:?} of array {from}, which has {has}");
            let (shape, pointer) = self.part(from, true);
            // SAFETY: the array has these rows. Nobody else writes them: no tile writes this array, or they all belong to this
            // tile. The view that is written is of another array.
            unsafe { ArrayView::from_shape_ptr(shape, pointer) }
        });
        let (shape, pointer) = self.part(to, false);
        // SAFETY: as in `write`.
        (from, unsafe { ArrayViewMut::from_shape_ptr(shape, pointer) })
    }
}

impl<F, D> Drop for Claimed<'_, '_, F, D> {
    fn drop(&mut self) {
        self.of.table.claims[self.tile].0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "blas_tests.rs"]
mod tests;
