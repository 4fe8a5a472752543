//! How arrays lie in memory. The products and the losses read operands row by row, without gaps; a
//! caller's view may be transposed, reversed, broadcast, or a part of a larger array.

use ndarray::{Array, ArrayView, CowArray, Dimension};

/// Returns the array in row-major order, copied only if it lies otherwise.
pub(crate) fn row_major<A: Clone, D: Dimension>(a: ArrayView<'_, A, D>) -> CowArray<'_, A, D> {
    if a.is_standard_layout() { a.into() } else { copied(a).into() }
}

/// Returns a copy in row-major order. (`to_owned` would keep the order of its input, negative
/// strides included.)
pub(crate) fn copied<A: Clone, D: Dimension>(a: ArrayView<'_, A, D>) -> Array<A, D> {
    Array::from_shape_vec(a.raw_dim(), a.iter().cloned().collect()).expect("as many numbers as the shape has")
}
