//! A gradient that is used from the head down, while the layers below are still computed.

use std::ops::Range;

/// What is done with a gradient that comes from its last number to its first.
pub(crate) trait TopDown<F> {
    /// The pass is done, with this Σ ℓ. Returns whether the gradient is to be computed.
    fn passed(&mut self, loss: f64) -> bool;

    /// Takes further numbers, which in the order of θ lie before those taken so far.
    fn take(&mut self, numbers: &[F]);

    /// Called now and then between, by the thread that calls the others.
    fn meanwhile(&mut self);
}

/// Rows of w[t] that are computed before they are given away, roughly. With fewer, a product over
/// BLAS spends its time on copies of Z[t].
const ROWS: usize = 512;

/// The same for w[0], whose last piece is used with nothing left to compute.
const LAST_ROWS: usize = 256;

/// The rows of w[t] from the last to the first, in pieces that are whole multiples of `unit`.
pub(crate) fn pieces(t: usize, rows: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let most = if t == 0 { LAST_ROWS } else { ROWS };
    let size = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(unit);
    (0..rows.div_ceil(size)).rev().map(move |piece| piece * size..((piece + 1) * size).min(rows))
}
