//! How arrays lie in memory. The products and the losses read operands row by row in one piece; a caller's view may be transposed,
//! reversed, broadcast, or a part of something larger.

use ndarray::{Array, ArrayView, CowArray, Dimension};

/// The same numbers row by row, copied only if they lie otherwise.
pub(crate) fn row_major<A: Clone, D: Dimension>(a: ArrayView<'_, A, D>) -> CowArray<'_, A, D> {
    if a.is_standard_layout() { a.into() } else { copied(a).into() }
}

/// A copy that lies row by row. (`to_owned` keeps the order of what it copies, negative strides included.)
pub(crate) fn copied<A: Clone, D: Dimension>(a: ArrayView<'_, A, D>) -> Array<A, D> {
    Array::from_shape_vec(a.raw_dim(), a.iter().cloned().collect()).expect("as many numbers as the shape has")
}
