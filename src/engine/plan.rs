//! The plan of a pass through the layers: which operations share a phase, and the tiles that each
//! phase is cut into.
//!
//! The product of a wide layer is cut by columns (`cut` says when), and needs the whole layer
//! before it: it is a phase by itself. Consecutive layers whose w[t] is small beside the rows of a
//! tile share a phase, in which a tile of rows goes through all of them: narrow layers, and layers
//! of any width under a batch that is much taller. The rows of such a tile are few enough to stay
//! in cache from layer to layer.
//!
//! A plan knows shapes and order. What its operations compute is said by an implementation of
//! [`Operations`]: the [gradient pass](crate::engine::pass), and the tangent pass of the Hessian.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Ix2};

use crate::engine::cut::{MOST_TALL_TILES, NARROW, NARROW_VECTOR, PER_NUMBER, is_tall, split, tall_rows, tile_count};
use crate::linalg::scalar::Scalar;
use crate::parallel::per_tile::{store, sum, zeros};
use crate::parallel::team::ActiveTeam;
use crate::parallel::tiles::{SharedTiles, Tile, TileGuard, TileTable};
use crate::parallel::workload::{Workload, workload};
use crate::steps::samples::BatchSize;

/// Where an array lies in the list of layers: Z[0], …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], …, Δ[1]. This is the
/// order in which a step writes them, so that consecutive operations write neighbours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSlots {
    pub(crate) depth: usize,
}

impl LayerSlots {
    /// Z[t] for t = 0 … T, and Ŷ for t = T+1.
    pub(crate) fn z(self, t: usize) -> usize {
        t
    }

    /// Δ[t] for t = 1 … T, and ∂ℓ/∂Ŷ for t = T+1.
    pub(crate) fn delta(self, t: usize) -> usize {
        2 * self.depth + 3 - t
    }

    pub(crate) fn y_hat(self) -> usize {
        self.z(self.depth + 1)
    }

    /// ∂ℓ/∂Ŷ
    pub(crate) fn d_y_hat(self) -> usize {
        self.delta(self.depth + 1)
    }

    /// The number of columns of each array, in this order, for a network with these widths.
    pub(crate) fn columns(widths: &[usize]) -> impl Iterator<Item = usize> {
        widths.iter().chain(widths[1..].iter().rev()).copied()
    }
}

/// An operation on a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Z[0]
    Gather,
    /// Z[t+1] from Z[t], or Ŷ from Z[T].
    Forward(usize),
    /// ∂ℓ/∂Ŷ from Ŷ.
    Loss,
    /// Δ[t] from Δ[t+1] and Z[t].
    Backward(usize),
}

impl Operation {
    /// The slot of the array that this operation writes.
    fn writes(self, slots: LayerSlots) -> usize {
        match self {
            Self::Gather => slots.z(0),
            Self::Forward(t) => slots.z(t + 1),
            Self::Loss => slots.d_y_hat(),
            Self::Backward(t) => slots.delta(t),
        }
    }
}

/// What the operations of a plan compute on a tile.
pub(crate) trait Operations<F>: Sync {
    /// How many products each product of the plan stands for.
    const PRODUCTS: usize;
    /// Whether Z[0] has to be written. Otherwise a phase that only gathers is left out, and
    /// `gather` writes nothing.
    fn gathers(&self) -> bool;
    fn gather(&self, tile: &mut LayerTile<F>);
    fn forward(&self, t: usize, tile: &mut LayerTile<F>);
    /// Returns Σ ℓ over the rows of the tile.
    fn loss(&self, tile: &mut LayerTile<F>) -> f64;
    fn backward(&self, t: usize, tile: &mut LayerTile<F>);
    /// The sum of the squares of all that a tile holds after its phase, if the pass is watched for
    /// overflow.
    fn squares(&self, tile: &mut LayerTile<F>) -> Option<f64>;
}

/// A tile of the layers, claimed by the thread that works on it.
pub(crate) struct LayerTile<'s, 'a, F> {
    claimed: TileGuard<'s, 'a, F, Ix2>,
    /// The arrays, by their slots, that it belongs to.
    pub(crate) arrays: Range<usize>,
    /// The samples of the tile, counted from the first of the batch.
    pub(crate) rows: Range<usize>,
    /// The neurons of the tile, if they are not all of the layer's.
    pub(crate) columns: Option<Range<usize>>,
}

impl<'s, 'a, F> LayerTile<'s, 'a, F> {
    fn claim(layers: &'s SharedTiles<'a, F, Ix2>, index: usize) -> Self {
        let claimed = layers.claim(index);
        let Tile { arrays, rows, columns } = claimed.tile().clone();
        Self { claimed, arrays, rows, columns }
    }

    /// The tile's numbers of one array.
    pub(crate) fn write(&mut self, slot: usize) -> ArrayViewMut2<'_, F> {
        self.claimed.write(slot)
    }

    /// The tile's rows of the arrays `from`, all columns of them, and the tile's numbers of the
    /// array `to`.
    pub(crate) fn read_and_write<const N: usize>(
        &mut self,
        from: [usize; N],
        to: usize,
    ) -> ([ArrayView2<'_, F>; N], ArrayViewMut2<'_, F>) {
        self.claimed.read_and_write(from, to)
    }
}

/// Operations that a tile goes through without waiting for another.
#[derive(Debug)]
struct Phase {
    operations: Vec<Operation>,
    tiles: TileTable,
    flops: usize,
    /// The sum of squares of each tile, as the bits of an f64.
    squares: Vec<AtomicU64>,
}

/// The phases of a pass through the layers, for a batch of one size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) size: BatchSize,
    phases: Vec<Phase>,
    /// Σ ℓ of each tile of the phase with the loss, as the bits of an f64.
    losses: Vec<AtomicU64>,
}

impl Plan {
    /// A pass forward and backward. `shapes` are those of all arrays of the list of layers, in its
    /// order.
    pub(crate) fn gradient(widths: &[usize], shapes: &[(usize, usize)], size: BatchSize) -> Self {
        let backward = (1..=widths.len() - 2).rev().map(Operation::Backward);
        Self::new(widths, shapes, size, forward(widths).chain([Operation::Loss]).chain(backward))
    }

    /// A pass forward that ends with the loss.
    pub(crate) fn loss(widths: &[usize], shapes: &[(usize, usize)], size: BatchSize) -> Self {
        Self::new(widths, shapes, size, forward(widths).chain([Operation::Loss]))
    }

    /// A pass forward that ends with Ŷ; the list of layers may end with it, too.
    pub(crate) fn forward(widths: &[usize], shapes: &[(usize, usize)], samples: usize) -> Self {
        Self::new(widths, shapes, samples.into(), forward(widths))
    }

    fn new(
        widths: &[usize],
        shapes: &[(usize, usize)],
        size: BatchSize,
        operations: impl Iterator<Item = Operation>,
    ) -> Self {
        let slots = LayerSlots { depth: widths.len() - 2 };
        let mut losses = 0;
        let phases = PhaseDraft::of(widths, size, operations).into_iter().map(|draft| {
            let tiles = draft.tiles(slots, size.samples);
            if draft.operations.contains(&Operation::Loss) {
                losses = tiles.len();
            }
            let squares = zeros(tiles.len());
            let PhaseDraft { operations, flops, .. } = draft;
            Phase { operations, tiles: TileTable::new(shapes.to_vec(), tiles), flops, squares }
        });
        Self { size, phases: phases.collect(), losses: zeros(losses) }
    }

    /// The work that can be shared.
    pub(crate) fn workload(&self) -> Workload {
        self.phases.iter().map(|phase| workload(phase.tiles.len(), phase.flops)).sum()
    }

    /// Runs all phases, tile by tile. Returns Σ ℓ, or 0 without a loss.
    pub(crate) fn run<F: Scalar, O: Operations<F>>(
        &self,
        team: &ActiveTeam,
        layers: &mut [Array2<F>],
        operations: &O,
    ) -> f64 {
        self.run_phases(0..self.phases.len(), team, layers, operations, || ());
        self.loss_sum()
    }

    /// Σ ℓ of the last pass, once its loss is computed.
    pub(crate) fn loss_sum(&self) -> f64 {
        sum(&self.losses)
    }

    /// How many phases it takes until this operation is done.
    pub(crate) fn phases_until(&self, operation: Operation) -> usize {
        1 + self.phases.iter().position(|phase| phase.operations.contains(&operation)).expect("in one of them")
    }

    /// Runs some phases, and calls `between` on this thread after each tile that it has run.
    pub(crate) fn run_phases<F: Scalar, O: Operations<F>>(
        &self,
        phases: Range<usize>,
        team: &ActiveTeam,
        layers: &mut [Array2<F>],
        operations: &O,
        mut between: impl FnMut(),
    ) {
        for phase in &self.phases[phases] {
            if phase.operations == [Operation::Gather] && !operations.gathers() {
                continue;
            }
            let layers = SharedTiles::new(layers, &phase.tiles);
            let tile = |index| {
                let mut tile = LayerTile::claim(&layers, index);
                for &operation in &phase.operations {
                    match operation {
                        Operation::Gather => operations.gather(&mut tile),
                        Operation::Forward(t) => operations.forward(t, &mut tile),
                        Operation::Loss => store(&self.losses[index], operations.loss(&mut tile)),
                        Operation::Backward(t) => operations.backward(t, &mut tile),
                    }
                }
                if let Some(squares) = operations.squares(&mut tile) {
                    store(&phase.squares[index], squares);
                }
            };
            team.for_each_tile_and_between(phase.tiles.len(), O::PRODUCTS * phase.flops, &tile, &mut between);
        }
    }

    /// The sum of the squares of all numbers that the last watched pass has written.
    pub(crate) fn squares(&self) -> f64 {
        self.phases.iter().map(|phase| sum(&phase.squares)).sum()
    }
}

/// The operations of a forward pass.
fn forward(widths: &[usize]) -> impl Iterator<Item = Operation> {
    [Operation::Gather].into_iter().chain((0..widths.len() - 1).map(Operation::Forward))
}

/// How the tiles of a phase are cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// By the columns of the one array that the phase writes.
    Columns(usize),
    /// By rows. If the batch is tall beside a layer of the phase, the tiles are small enough to
    /// stay in cache, and `tall` is the width of the widest such layer.
    Rows { tall: Option<usize> },
}

/// A phase before it is cut.
struct PhaseDraft {
    operations: Vec<Operation>,
    flops: usize,
    cut: Cut,
}

impl PhaseDraft {
    /// Groups operations to phases: a product that is cut by columns stands alone, all others join
    /// the phase before them.
    fn of(widths: &[usize], size: BatchSize, operations: impl Iterator<Item = Operation>) -> Vec<Self> {
        let mut phases: Vec<Self> = Vec::new();
        for operation in operations {
            let cut = cut(operation, widths, size.samples);
            let flops = flops(operation, cut, widths, size);
            match (phases.last_mut(), cut) {
                (
                    Some(Self { operations, flops: of_phase, cut: Cut::Rows { tall: before } }),
                    Cut::Rows { tall: with_this },
                ) => {
                    operations.push(operation);
                    *of_phase += flops;
                    *before = with_this.max(*before);
                }
                _ => phases.push(Self { operations: vec![operation], flops, cut }),
            }
        }
        phases
    }

    fn tiles(&self, slots: LayerSlots, samples: usize) -> Vec<Tile> {
        let written = self.operations.iter().map(|operation| operation.writes(slots));
        let arrays = written.clone().min().unwrap_or(0)..written.max().map_or(0, |last| last + 1);
        let row_tile = |rows| Tile { arrays: arrays.clone(), rows, columns: None };
        match self.cut {
            Cut::Columns(columns) => split(columns, tile_count(self.flops))
                .map(|columns| Tile { arrays: arrays.clone(), rows: 0..samples, columns: Some(columns) })
                .collect(),
            // A kernel takes 8 samples at once, so tiles have at least as many.
            Cut::Rows { tall: None } => {
                split(samples, tile_count(self.flops).min(samples.div_ceil(8))).map(row_tile).collect()
            }
            Cut::Rows { tall: Some(width) } => {
                let rows = tall_rows(width).max(samples.div_ceil(MOST_TALL_TILES));
                split(samples, samples.div_ceil(rows).max(tile_count(self.flops))).map(row_tile).collect()
            }
        }
    }
}

/// The number of multiplications of the product of layer t.
fn product(t: usize, widths: &[usize], samples: usize) -> usize {
    samples * widths[t] * widths[t + 1]
}

/// How an operation is cut: by columns if its layer is wide and the batch is not tall beside it.
fn cut(operation: Operation, widths: &[usize], samples: usize) -> Cut {
    let layer = |t: usize, columns: usize| {
        // With a single sample the matrix is read and not copied, so its size alone tells whether
        // two cores read it faster.
        let narrow = product(t, widths, samples) <= if samples == 1 { NARROW_VECTOR } else { NARROW };
        let wider = widths[t].max(widths[t + 1]);
        match (narrow, is_tall(samples, wider)) {
            (true, _) => Cut::Rows { tall: None },
            (false, true) => Cut::Rows { tall: Some(wider) },
            (false, false) => Cut::Columns(columns),
        }
    };
    match operation {
        Operation::Forward(t) if t < widths.len() - 2 => layer(t, widths[t + 1]),
        // With one output, Δ is an outer product, computed in one pass.
        Operation::Backward(t) if widths[t + 1] > 1 => layer(t, widths[t]),
        // The columns of the head are few.
        _ => Cut::Rows { tall: None },
    }
}

/// The cost of an operation, in floating-point operations. Tiles of rows add the biases and
/// apply the masks on top of their products; tiles of columns do so too, but their products are
/// large.
fn flops(operation: Operation, cut: Cut, widths: &[usize], size: BatchSize) -> usize {
    let samples = size.samples;
    let by_rows = matches!(cut, Cut::Rows { .. });
    let pass_over = |columns: usize| if by_rows { PER_NUMBER * samples * columns } else { 0 };
    match operation {
        Operation::Gather => pass_over(widths[0]),
        Operation::Forward(t) => 2 * product(t, widths, samples) + pass_over(widths[t + 1]),
        Operation::Loss => size.loss_flops(),
        Operation::Backward(t) => 2 * product(t, widths, samples) + pass_over(widths[t]),
    }
}
