//! Rung 4's three products, on some rows of a batch or of a weight matrix.
//!
//! ```text
//! U = Z wᵀ + 1 cᵀ                            Z: (rows, d[t])         U: (rows, d[t+1])
//! Δ[t] = (Δ[t+1] w) ⊙ 1[Z[t] > 0]            Δ[t]: (rows, d[t])      w: (d[t+1], d[t])
//! w ← a Δᵀ Z + β w,  c ← a Δᵀ 1 + β c        Δ: (B, rows of w)       Z: (B, d[t])
//! ```
//!
//! A product whose result is a single row or column is a gemv, and one over a single sample (B = 1) is a ger: reading
//! a matrix once is all the work there is.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis};

use crate::scalar::{Scalar, masked, relu};

/// C ← a A B + β C by the cheapest of the three products.
fn product<F: Scalar>(a: F, left: ArrayView2<F>, right: ArrayView2<F>, beta: F, mut c: ArrayViewMut2<F>) {
    if right.ncols() == 1 {
        F::gemv(a, left, right.column(0), beta, c.column_mut(0));
    } else if left.nrows() == 1 {
        F::gemv(a, right.reversed_axes(), left.row(0), beta, c.row_mut(0));
    } else if left.ncols() == 1 && beta == F::ONE {
        F::ger(a, left.column(0), right.row(0), c);
    } else {
        F::gemm(a, left, right, beta, c);
    }
}

/// U = Z wᵀ, without the constant's column.
pub(crate) fn weighted_inputs<F: Scalar>(z: ArrayView2<F>, w: ArrayView2<F>, u: ArrayViewMut2<F>) {
    product(F::ONE, z, w.reversed_axes(), F::ZERO, u);
}

/// U ← U + 1 cᵀ; nothing for an empty c.
pub(crate) fn add_constant<F: Scalar>(c: ArrayView1<F>, mut u: ArrayViewMut2<F>) {
    if !c.is_empty() {
        for mut u in u.outer_iter_mut() {
            u.zip_mut_with(&c, |u, &c| *u += c);
        }
    }
}

/// U ← ReLU(U + 1 cᵀ) in one pass.
pub(crate) fn add_constant_relu<F: Scalar>(c: ArrayView1<F>, mut u: ArrayViewMut2<F>) {
    if c.is_empty() {
        u.map_inplace(|u| *u = relu(*u));
    } else {
        for mut u in u.outer_iter_mut() {
            u.zip_mut_with(&c, |u, &c| *u = relu(*u + c));
        }
    }
}

/// Δ[t] = Δ[t+1] w, before the mask.
pub(crate) fn weighted_deltas<F: Scalar>(delta_above: ArrayView2<F>, w: ArrayView2<F>, delta: ArrayViewMut2<F>) {
    product(F::ONE, delta_above, w, F::ZERO, delta);
}

/// Δ ← Δ ⊙ 1[Z > 0]
pub(crate) fn mask<F: Scalar>(z: ArrayView2<F>, mut delta: ArrayViewMut2<F>) {
    delta.zip_mut_with(&z, |delta, &z| *delta = masked(*delta, z));
}

/// w ← a Δᵀ Z + β w and c ← a Δᵀ 1 + β c, for the rows of w and c that belong to the columns of Δ.
pub(crate) fn gradient<F: Scalar>(
    a: F,
    delta: ArrayView2<F>,
    z: ArrayView2<F>,
    beta: F,
    w: ArrayViewMut2<F>,
    c: ArrayViewMut1<F>,
) {
    product(a, delta.reversed_axes(), z, beta, w);
    if !c.is_empty() {
        column_sums(a, delta, beta, c);
    }
}

/// c ← a Δᵀ 1 + β c, samples in order. Sums of a few columns at a time stay in registers.
fn column_sums<F: Scalar>(a: F, delta: ArrayView2<F>, beta: F, mut c: ArrayViewMut1<F>) {
    const COLUMNS: usize = 32;
    for (mut c, delta) in c.axis_chunks_iter_mut(Axis(0), COLUMNS).zip(delta.axis_chunks_iter(Axis(1), COLUMNS)) {
        let mut sums = [F::ZERO; COLUMNS];
        for delta in delta.outer_iter() {
            for (sum, &delta) in sums.iter_mut().zip(delta) {
                *sum += delta;
            }
        }
        for (c, &sum) in c.iter_mut().zip(&sums) {
            let scaled = if a == F::ONE { sum } else { a * sum };
            *c = if beta == F::ZERO {
                scaled
            } else if beta == F::ONE {
                *c + scaled
            } else {
                beta * *c + scaled
            };
        }
    }
}
