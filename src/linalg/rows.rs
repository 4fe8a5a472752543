//! The products of a batched step on some rows of a batch and some neurons of a layer, and what
//! stands between them.
//!
//! ```text
//! U = Z wᵀ + 1 cᵀ                            Z: (rows, d[t])         U: (rows, d[t+1])
//! Δ[t] = (Δ[t+1] w) ⊙ 1[Z[t] > 0]            Δ[t]: (rows, d[t])      w: (d[t+1], d[t])
//! w ← a Δᵀ Z + β w,  c ← a Δᵀ 1 + β c        Δ: (B, rows of w)       Z: (B, d[t])
//! ```
//!
//! Each operand is a tile: a range of rows of a row-major array, with all its columns or a range of
//! them. A tile of whole rows lies in one piece of memory and is worked on as one slice; any other
//! one row by row, each row as a slice.
//!
//! A tile's bits depend on its shape alone: the functions here choose the order of their sums by
//! the shapes of their operands, never by how many threads there are.

use std::ops::Range;

use ndarray::{ArrayRef, ArrayView, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Dimension, Slice};

use crate::kernels::number::{masked, relu};
use crate::linalg::scalar::Scalar;

/// Returns a range along one axis, or the whole array for `None`.
///
/// A range that leaves nothing out is not sliced: a slice costs 10 ns, and a step of a small
/// network has a dozen of them in two microseconds.
pub(crate) fn slice_range<'a, F, D: Dimension>(
    array: &'a ArrayRef<F, D>,
    axis: Axis,
    range: &Option<Range<usize>>,
) -> ArrayView<'a, F, D> {
    match range {
        Some(range) if *range != (0..array.len_of(axis)) => array.slice_axis(axis, Slice::from(range.clone())),
        _ => array.view(),
    }
}

/// C ← a A B + β C by the cheapest product: a result of one column or row is a gemv and a product
/// over one sample a ger, since reading each matrix once is all the work there is.
pub(crate) fn product<F: Scalar>(a: F, left: ArrayView2<F>, right: ArrayView2<F>, beta: F, mut c: ArrayViewMut2<F>) {
    if right.ncols() == 1 {
        F::gemv(a, left, right.column(0), beta, c.column_mut(0));
    } else if left.nrows() == 1 {
        F::gemv(a, right.reversed_axes(), left.row(0), beta, c.row_mut(0));
    } else if left.ncols() == 1 && beta != F::ZERO {
        // A ger only adds, so β comes first. With β = 0 a gemm makes one pass less.
        if beta != F::ONE {
            c.map_inplace(|c| *c = beta * *c);
        }
        F::ger(a, left.column(0), right.row(0), c);
    } else {
        F::gemm(a, left, right, beta, c);
    }
}

/// Returns a row of a tile as a slice.
#[track_caller]
fn slice<F>(row: ArrayView1<'_, F>) -> &[F] {
    row.to_slice().expect("tiles lie row by row")
}

/// Returns a row of a tile as a slice, to be written.
#[track_caller]
pub(crate) fn slice_mut<F>(row: ArrayViewMut1<'_, F>) -> &mut [F] {
    row.into_slice().expect("tiles lie row by row")
}

/// Z[0]_r = x[row(r)], the batch's rows of the samples; or, with `standardize` = (mean, factor),
/// (x[row(r)] − mean) ⊙ factor, computed in double precision and then rounded. A row without a
/// sample (`None`) is 0.
pub(crate) fn gather<F: Scalar>(
    x: ArrayView2<F>,
    row: impl Fn(usize) -> Option<usize>,
    standardize: Option<(&[f64], &[f64])>,
    mut z: ArrayViewMut2<F>,
) {
    let columns = x.ncols();
    let standardized = |x: F, mean: f64, factor: f64| F::from_f64((x.to_f64() - mean) * factor);
    // Most calls: both lie in one piece of memory, and a row is copied as a slice.
    if let (Some(x), Some(z)) = (x.to_slice(), z.as_slice_mut()) {
        for (r, z) in z.chunks_exact_mut(columns).enumerate() {
            let Some(row) = row(r) else {
                z.fill(F::ZERO);
                continue;
            };
            let x = &x[row * columns..][..columns];
            match standardize {
                None => z.copy_from_slice(x),
                Some((mean, factor)) => {
                    let columns = z.iter_mut().zip(x).zip(mean.iter().zip(factor));
                    columns.for_each(|((z, &x), (&mean, &factor))| *z = standardized(x, mean, factor));
                }
            }
        }
    } else {
        for (r, mut z) in z.outer_iter_mut().enumerate() {
            let Some(row) = row(r) else {
                z.fill(F::ZERO);
                continue;
            };
            z.assign(&x.row(row));
            if let Some((mean, factor)) = standardize {
                let columns = z.iter_mut().zip(mean.iter().zip(factor));
                columns.for_each(|(z, (&mean, &factor))| *z = standardized(*z, mean, factor));
            }
        }
    }
}

/// Sums that [`squares`] and [`lane_sum`] keep side by side: no addition waits for the one before
/// it, and the compiler can use vector registers.
const LANES: usize = 8;

/// Returns Σ a², summed in double precision, where the square of an `f32` cannot overflow.
pub(crate) fn squares<F: Scalar>(numbers: &[F]) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let add = |(sum, &a): (&mut f64, &F)| *sum += a.to_f64() * a.to_f64();
    chunks.iter().for_each(|chunk| sums.iter_mut().zip(chunk).for_each(add));
    sums.iter_mut().zip(rest).for_each(add);
    sums.iter().sum()
}

/// Returns Σ a² over a tile, summed by `dot` in the network's own precision: as fast as the tile
/// can be read, and infinite where a sum overflows.
pub(crate) fn squares_of<F: Scalar>(tile: ArrayView2<F>) -> f64 {
    let square = |row: &[F]| F::dot(row, row).to_f64();
    match tile.to_slice() {
        Some(whole) => square(whole),
        None => tile.outer_iter().map(|row| square(slice(row))).sum(),
    }
}

/// Calls `work(row)` for each row of a tile, or `work(tile)` for a tile in one piece of memory.
fn for_each_row<F: Scalar>(mut tile: ArrayViewMut2<F>, work: impl Fn(&mut [F])) {
    match tile.as_slice_mut() {
        Some(whole) => work(whole),
        None => tile.outer_iter_mut().for_each(|row| work(slice_mut(row))),
    }
}

/// Calls `work(fixed, row)` for each row of a tile, with the same `fixed` for all of them.
fn for_each_row_with<F: Scalar>(fixed: &[F], mut tile: ArrayViewMut2<F>, work: impl Fn(&[F], &mut [F])) {
    match tile.as_slice_mut() {
        Some(whole) => whole.chunks_exact_mut(fixed.len()).for_each(|row| work(fixed, row)),
        None => tile.outer_iter_mut().for_each(|row| work(fixed, slice_mut(row))),
    }
}

/// Returns the column of an array with one column that lies in one piece of memory, as Δ of a
/// single output does; `None` for other arrays.
fn single_column<F>(a: ArrayView2<'_, F>) -> Option<&[F]> {
    if a.ncols() == 1 { a.to_slice() } else { None }
}

/// U = Z wᵀ, which [`add_bias`] or [`add_bias_relu`] completes.
pub(crate) fn weighted_inputs<F: Scalar>(z: ArrayView2<F>, w: ArrayView2<F>, u: ArrayViewMut2<F>) {
    product(F::ONE, z, w.reversed_axes(), F::ZERO, u);
}

/// U ← U + 1 cᵀ. An empty c adds nothing: the layer has no constant.
pub(crate) fn add_bias<F: Scalar>(c: ArrayView1<F>, u: ArrayViewMut2<F>) {
    if let [c] = *slice(c) {
        for_each_row(u, |u| u.iter_mut().for_each(|u| *u += c));
    } else if !c.is_empty() {
        for_each_row_with(slice(c), u, |c, u| u.iter_mut().zip(c).for_each(|(u, &c)| *u += c));
    }
}

/// U ← ReLU(U + 1 cᵀ) in one pass. An empty c adds nothing.
pub(crate) fn add_bias_relu<F: Scalar>(c: ArrayView1<F>, u: ArrayViewMut2<F>) {
    if c.is_empty() {
        for_each_row(u, |u| u.iter_mut().for_each(|u| *u = relu(*u)));
    } else {
        for_each_row_with(slice(c), u, |c, u| u.iter_mut().zip(c).for_each(|(u, &c)| *u = relu(*u + c)));
    }
}

/// Calls `loss(r, ŷ_r, ∂_r)` for each row r: it writes the derivative ∂_r = ∂ℓ/∂ŷ_r into `dy` and
/// returns the loss of that sample. Returns the sum of the losses, added in the order of the rows.
pub(crate) fn losses<F: Scalar>(
    y_hat: ArrayView2<F>,
    mut dy: ArrayViewMut2<F>,
    loss: impl Fn(usize, &[F], &mut [F]) -> f64,
) -> f64 {
    let outputs = y_hat.ncols();
    let (y_hat, dy) = (y_hat.to_slice().expect("whole rows"), dy.as_slice_mut().expect("whole rows"));
    let mut sum = 0.0;
    for (r, (y_hat, dy)) in y_hat.chunks_exact(outputs).zip(dy.chunks_exact_mut(outputs)).enumerate() {
        sum += loss(r, y_hat, dy);
    }
    sum
}

/// Δ[t] = (Δ[t+1] w) ⊙ 1[Z[t] > 0]. `above` is Δ[t+1] for the tile's rows, `w` and `z` have the
/// columns of the tile `delta`.
pub(crate) fn deltas<F: Scalar>(above: ArrayView2<F>, w: ArrayView2<F>, z: ArrayView2<F>, mut delta: ArrayViewMut2<F>) {
    match single_column(above) {
        // A single output: an outer product, masked as it is written, in one pass instead of three.
        Some(above) if above.len() > 1 => {
            let w = slice(w.row(0));
            for ((&above, z), delta) in above.iter().zip(z.outer_iter()).zip(delta.outer_iter_mut()) {
                let row = slice_mut(delta).iter_mut().zip(slice(z)).zip(w);
                row.for_each(|((delta, &z), &w)| *delta = masked(above * w, z));
            }
        }
        _ => {
            product(F::ONE, above, w, F::ZERO, delta.view_mut());
            mask(z, delta);
        }
    }
}

/// Δ ← Δ ⊙ 1[Z > 0]
pub(crate) fn mask<F: Scalar>(z: ArrayView2<F>, mut delta: ArrayViewMut2<F>) {
    let row = |z: &[F], delta: &mut [F]| delta.iter_mut().zip(z).for_each(|(delta, &z)| *delta = masked(*delta, z));
    match (z.to_slice(), delta.as_slice_mut()) {
        (Some(z), Some(delta)) => row(z, delta),
        _ => z.outer_iter().zip(delta.outer_iter_mut()).for_each(|(z, delta)| row(slice(z), slice_mut(delta))),
    }
}

/// Samples that [`column_sums`] adds in the network's own precision; the sums of such blocks are
/// added in double precision. A sum of n equal numbers is off by up to n/2 roundings, and a batch
/// may have a million samples.
const SUM_BLOCK: usize = 64;

/// Samples over which one gemv of [`gradient`] sums. A gemv keeps one sum for each number of its
/// result, so a tall batch is split into several; a gemm splits its sums into blocks by itself.
const PRODUCT_BLOCK: usize = 2048;

/// w ← a Δᵀ Z + β w and c ← a Δᵀ 1 + β c, each with its own β, for the rows of w and c that belong
/// to the columns of Δ.
/// An empty c is left out.
pub(crate) fn gradient<F: Scalar>(
    a: F,
    delta: ArrayView2<F>,
    z: ArrayView2<F>,
    [beta, beta_of_c]: [F; 2],
    mut w: ArrayViewMut2<F>,
    c: ArrayViewMut1<F>,
) {
    let samples = delta.nrows();
    if samples > PRODUCT_BLOCK && (w.nrows() == 1 || w.ncols() == 1) {
        for first in (0..samples).step_by(PRODUCT_BLOCK) {
            let block = Some(first..(first + PRODUCT_BLOCK).min(samples));
            let (delta, z) = (slice_range(&delta, Axis(0), &block), slice_range(&z, Axis(0), &block));
            // The first block scales w, the later ones add to it.
            let beta = if first == 0 { beta } else { F::ONE };
            product(a, delta.reversed_axes(), z, beta, w.view_mut());
        }
    } else {
        product(a, delta.reversed_axes(), z, beta, w);
    }
    if !c.is_empty() {
        column_sums(a, delta, beta_of_c, c);
    }
}

/// c ← a Δᵀ 1, by itself.
pub(crate) fn bias_gradient<F: Scalar>(a: F, delta: ArrayView2<F>, c: ArrayViewMut1<F>) {
    column_sums(a, delta, F::ZERO, c);
}

/// c ← a Δᵀ 1 + β c, [`COLUMN_BLOCK`] columns at a time: blocks of [`SUM_BLOCK`] samples in order,
/// each summed in registers, and the sums of the blocks added in double precision.
fn column_sums<F: Scalar>(a: F, delta: ArrayView2<F>, beta: F, c: ArrayViewMut1<F>) {
    // A factor of 1 costs no multiplication, and β = 0 overwrites, even NaN.
    let finish = |c: &mut F, sum: F| {
        let scaled = if a == F::ONE { sum } else { a * sum };
        *c = if beta == F::ZERO {
            scaled
        } else if beta == F::ONE {
            *c + scaled
        } else {
            beta * *c + scaled
        };
    };
    let c = slice_mut(c);
    if let Some(delta) = single_column(delta) {
        let block_sum = |delta: &[F]| lane_sum(delta).to_f64();
        finish(&mut c[0], F::from_f64(delta.chunks(SUM_BLOCK).map(block_sum).sum()));
        return;
    }
    for (c, delta) in c.chunks_mut(COLUMN_BLOCK).zip(delta.axis_chunks_iter(Axis(1), COLUMN_BLOCK)) {
        if delta.nrows() <= SUM_BLOCK {
            let sums = block_column_sums(delta);
            c.iter_mut().zip(&sums).for_each(|(c, &sum)| finish(c, sum));
            continue;
        }
        let mut totals = [0.0; COLUMN_BLOCK];
        for block in delta.axis_chunks_iter(Axis(0), SUM_BLOCK) {
            totals.iter_mut().zip(&block_column_sums(block)).for_each(|(total, sum)| *total += sum.to_f64());
        }
        c.iter_mut().zip(&totals).for_each(|(c, &total)| finish(c, F::from_f64(total)));
    }
}

/// Columns whose sums the compiler keeps in registers.
const COLUMN_BLOCK: usize = 16;

/// Returns the sums of at most [`COLUMN_BLOCK`] columns, added in the order of the samples.
fn block_column_sums<F: Scalar>(delta: ArrayView2<F>) -> [F; COLUMN_BLOCK] {
    let mut sums = [F::ZERO; COLUMN_BLOCK];
    for delta in delta.outer_iter() {
        let delta = slice(delta);
        match <&[F; COLUMN_BLOCK]>::try_from(delta) {
            // A length that the compiler knows, so that it needs no loop.
            Ok(delta) => sums.iter_mut().zip(delta).for_each(|(sum, &delta)| *sum += delta),
            Err(_) => sums.iter_mut().zip(delta).for_each(|(sum, &delta)| *sum += delta),
        }
    }
    sums
}

/// Returns the sum of at most [`SUM_BLOCK`] numbers: [`LANES`] sums, then the sum of these.
fn lane_sum<F: Scalar>(numbers: &[F]) -> F {
    let mut sums = [F::ZERO; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| sums.iter_mut().zip(chunk).for_each(|(sum, &a)| *sum += a));
    sums.iter_mut().zip(rest).for_each(|(sum, &a)| *sum += a);
    sums.into_iter().fold(F::ZERO, |total, sum| total + sum)
}
