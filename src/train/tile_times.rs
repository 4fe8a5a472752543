//! The door of the benches to [`tile_times`](crate::native::tile_times).

use ndarray::ArrayView2;

use crate::error::Result;
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::native::tile_times::{PhaseTimes, measure};
use crate::network::loss::{Loss, check_targets, sample_loss};
use crate::network::mlp::Mlp;
use crate::steps::samples::Samples;

/// The time of each tile of a native step with the batch x, y, cut for `threads` threads, on this
/// thread alone; the shortest of `rounds`.
///
/// # Errors
/// As [`Sgd::step`](crate::Sgd::step).
pub fn tile_times<F: Scalar, L: Loss<F>>(
    mlp: &Mlp<F>,
    (x, y): (ArrayView2<F>, ArrayView2<L::Target>),
    loss: &L,
    threads: usize,
    rounds: usize,
) -> Result<Vec<PhaseTimes>> {
    mlp.check_batch(x)?;
    check_targets(loss, y, x.nrows(), mlp.outputs())?;
    let y = row_major(y);
    let (cost, loss) = (loss.cost(), sample_loss(loss, y.view()));
    let data = Samples { x, order: None, standardize: None, weights: None, loss, cost };
    Ok(measure(mlp, x.nrows(), &data.any(), threads, rounds))
}
