//! The plan of a pass through the layers: which operations share a phase, and the tiles that each
//! phase is cut into.
//!
//! A product with enough work is a phase by itself, cut into rectangles of neurons and samples.
//! Consecutive layers with less work, and layers under a batch that is much taller than they are
//! wide, share a phase, in which a tile of samples goes through all of them.
//!
//! Tiles depend on shapes and, for rectangles, on the number of threads. No number depends on them:
//! a product's are chains, whatever the tile.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::kernels::few::FEW;
use crate::kernels::number::Number;
use crate::kernels::panels::{panel_range, panels_of};
use crate::native::matrices::{Layers, MANY, Theta};
use crate::parallel::panel_set::{PanelSet, Region, RegionTable};
use crate::parallel::per_tile::{sum, zeros};
use crate::parallel::team::max_threads;
use crate::parallel::workload::{Workload, workload};
use crate::steps::samples::{BatchSize, GROUP};
use crate::steps::top_down::pieces;

/// An operation on a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Z[0]
    Gather,
    /// Z[t+1] from Z[t], or Ŷ from Z[T].
    Forward(usize),
    /// s ∂ℓ/∂Ŷ from Ŷ.
    Loss,
    /// Δ[t] from Δ[t+1] and Z[t].
    Backward(usize),
}

/// The widths of a network and the size of a batch: what all decisions are made by.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) widths: Vec<usize>,
    pub(crate) size: BatchSize,
    /// For each layer, whether its forward product is computed with samples side by side, from
    /// Z[t]ᵀ; otherwise with neurons side by side, from Z[t], for which w[t] is transposed block by
    /// block.
    by_samples: Vec<bool>,
}

impl Shape {
    pub(crate) fn new(widths: &[usize], size: BatchSize) -> Self {
        let samples = size.samples;
        let head = widths.len() - 2;
        let mut by_samples = Vec::new();
        for (t, &width) in widths[..=head].iter().enumerate() {
            // Vectors of few samples would be mostly padding. Beside many samples, to transpose
            // w[t] costs less than to transpose Z. The head takes Z[T] as the layer below leaves
            // it, since it has too few neurons to make up for a transposition.
            let few_or_many = samples <= FEW || samples >= MANY * width;
            by_samples.push(if t == head && t > 0 { by_samples[t - 1] } else { !few_or_many });
        }
        Self { widths: widths.to_vec(), size, by_samples }
    }

    /// T
    pub(crate) fn depth(&self) -> usize {
        self.widths.len() - 2
    }

    /// Whether the forward product of layer t is computed from Z[t]ᵀ, and its result first comes as
    /// Z[t+1]ᵀ.
    pub(crate) fn is_by_samples(&self, t: usize) -> bool {
        self.by_samples[t]
    }

    /// Whether Z[t]ᵀ is written.
    pub(crate) fn has_transposed(&self, t: usize) -> bool {
        self.by_samples.get(t).copied().unwrap_or(false) || t > 0 && self.by_samples[t - 1]
    }

    /// Floating-point operations of the product of layer t.
    fn product(&self, t: usize) -> usize {
        2 * self.size.samples * self.widths[t] * self.widths[t + 1]
    }
}

/// A tile of a phase: samples, and neurons if they are not all of the layer's.
#[derive(Debug, Clone)]
pub(crate) struct TileShape {
    pub(crate) samples: Range<usize>,
    pub(crate) neurons: Option<Range<usize>>,
}

/// Operations that a tile goes through without waiting for another.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) operations: Vec<Operation>,
    pub(crate) tiles: Vec<TileShape>,
    pub(crate) table: RegionTable,
    pub(crate) flops: usize,
    /// The sums of squares of z and of δ of each tile, as the bits of an f64.
    pub(crate) squares: [Vec<AtomicU64>; 2],
}

/// The phases of a pass through the layers, for a batch of one size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) phases: Vec<Phase>,
    /// Σ ℓ of each group of samples, as the bits of an f64.
    pub(crate) losses: Vec<AtomicU64>,
    layers: Layers,
    /// The number of threads that rectangles are cut for, if there are any.
    threads: Option<usize>,
}

/// How far a plan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Until {
    Output,
    Loss,
    Gradient,
}

/// Floating-point operations from which a product is a phase of its own.
const WIDE: usize = 2_000_000;

/// Samples for each neuron of a layer's wider side from which a batch is tall.
const TALL: usize = 4;

/// Numbers of one layer in a tile of a tall batch: with those of the next layer they stay in the L2
/// cache.
const TALL_TILE: usize = 16 * 1024;

/// The largest number of tiles of a phase.
const MOST_TILES: usize = 1024;

/// Floating-point operations of a tile, roughly, and the number of tiles that is enough.
const TILE: usize = 500_000;
const ENOUGH_TILES: usize = 64;

/// The largest number of rectangles for each thread: enough to share a product evenly, also where a
/// core is slower than another. Larger ones read their operands less often: on one thread, a single
/// one is 15 % faster than 16 at 784-512-512 with 128 samples.
const TILES_PER_THREAD: usize = 4;

/// The cost of copying, masking or gathering one number, in floating-point operations of a product.
pub(crate) const PER_NUMBER: usize = 8;

impl Plan {
    pub(crate) fn new<F: Number>(
        set: &PanelSet<F>,
        layers: Layers,
        widths: &[usize],
        size: BatchSize,
        until: Until,
    ) -> Self {
        Self::for_threads(set, layers, widths, size, until, max_threads())
    }

    /// The plan for this number of threads.
    pub(crate) fn for_threads<F: Number>(
        set: &PanelSet<F>,
        layers: Layers,
        widths: &[usize],
        size: BatchSize,
        until: Until,
        threads: usize,
    ) -> Self {
        let depth = widths.len() - 2;
        let mut operations = vec![Operation::Gather];
        operations.extend((0..=depth).map(Operation::Forward));
        if until >= Until::Loss {
            operations.push(Operation::Loss);
        }
        if until >= Until::Gradient {
            operations.extend((1..=depth).rev().map(Operation::Backward));
        }
        Self::of(set, layers, Shape::new(widths, size), operations, threads)
    }

    /// The plan of these operations, one after the other.
    pub(crate) fn of<F: Number>(
        set: &PanelSet<F>,
        layers: Layers,
        shape: Shape,
        operations: Vec<Operation>,
        threads: usize,
    ) -> Self {
        let mut drafts: Vec<(Vec<Operation>, usize, bool)> = Vec::new();
        for operation in operations {
            let (flops, is_wide) = (shape.flops(operation), shape.is_wide(operation));
            match drafts.last_mut() {
                Some((operations, sum, false)) if !is_wide => {
                    operations.push(operation);
                    *sum += flops;
                }
                _ => drafts.push((vec![operation], flops, is_wide)),
            }
        }
        let threads = drafts.iter().any(|&(_, _, is_wide)| is_wide).then_some(threads);
        let phase = |(operations, flops, is_wide): (Vec<Operation>, usize, bool)| {
            let tiles = match threads {
                Some(threads) if is_wide => shape.rectangles(operations[0], flops, threads),
                _ => shape.rows(&operations, flops),
            };
            let regions = tiles.iter().map(|tile| shape.regions::<F>(layers, &operations, tile)).collect();
            let table = RegionTable::new(set, regions);
            let squares = [zeros(tiles.len()), zeros(tiles.len())];
            Phase { operations, tiles, table, flops, squares }
        };
        let phases = drafts.into_iter().map(phase).collect();
        Self { phases, losses: zeros(shape.size.samples.div_ceil(GROUP)), shape, layers, threads }
    }

    /// How many phases it takes until this operation is done.
    pub(crate) fn phases_until(&self, operation: Operation) -> usize {
        1 + self.phases.iter().position(|phase| phase.operations.contains(&operation)).expect("in one of them")
    }

    /// Cuts the phases anew if there is another number of threads by now, or if a loss costs
    /// something else. A plan is kept as long as its engine, and the caller may set the number, and
    /// come with another loss, at any time.
    pub(crate) fn follow<F: Number>(&mut self, set: &PanelSet<F>, cost: usize) {
        let Shape { widths, size, .. } = &self.shape;
        if size.cost != cost || self.threads.is_some_and(|threads| threads != max_threads()) {
            let shape = Shape::new(widths, BatchSize { cost, ..*size });
            let operations = self.phases.iter().flat_map(|phase| &phase.operations).copied().collect();
            *self = Self::of(set, self.layers, shape, operations, max_threads());
        }
    }

    pub(crate) fn samples(&self) -> usize {
        self.shape.size.samples
    }

    /// The index of the plan for a batch of this size among some that go until the same operation:
    /// one that is there, or a new one.
    pub(crate) fn find_or_push<F: Number>(
        plans: &mut Vec<Self>,
        set: &PanelSet<F>,
        (layers, widths): (Layers, &[usize]),
        size: BatchSize,
        until: Until,
    ) -> usize {
        if let Some(found) = plans.iter().position(|plan| plan.samples() == size.samples) {
            plans[found].follow(set, size.cost);
            return found;
        }
        plans.push(Self::new(set, layers, widths, size, until));
        plans.len() - 1
    }

    /// The sum of the squares of all z and δ that the last watched pass has written, where δ was
    /// multiplied by `scale`.
    pub(crate) fn squares(&self, scale: f64) -> f64 {
        let [of_z, of_delta] = [0, 1].map(|i| self.phases.iter().map(|phase| sum(&phase.squares[i])).sum::<f64>());
        of_z + of_delta / scale / scale
    }

    /// The work that can be shared.
    pub(crate) fn workload(&self) -> Workload {
        self.phases.iter().map(|phase| workload(phase.tiles.len(), phase.flops)).sum()
    }
}

/// 0 … len in at most `count` ranges of about equal length, whole multiples of `unit`.
pub(crate) fn split(len: usize, count: usize, unit: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let size = len.div_ceil(count.max(1)).next_multiple_of(unit).max(unit);
    (0..len).step_by(size).map(move |start| start..(start + size).min(len))
}

impl Shape {
    fn flops(&self, operation: Operation) -> usize {
        let pass_over = |t: usize| PER_NUMBER * self.size.samples * self.widths[t];
        match operation {
            Operation::Gather => pass_over(0),
            Operation::Forward(t) => self.product(t) + pass_over(t + 1),
            Operation::Loss => self.size.loss_flops(),
            Operation::Backward(t) => self.product(t) + pass_over(t),
        }
    }

    /// Whether an operation is a phase of its own.
    fn is_wide(&self, operation: Operation) -> bool {
        match operation {
            Operation::Forward(t) | Operation::Backward(t) => {
                let wider = self.widths[t].max(self.widths[t + 1]);
                self.product(t) >= WIDE && self.size.samples < TALL * wider && self.widths[t + 1] > GROUP
            }
            _ => false,
        }
    }

    /// The tiles of a product: rectangles of about equal sides, in whole squares of GROUP.
    fn rectangles(&self, operation: Operation, flops: usize, threads: usize) -> Vec<TileShape> {
        let columns = match operation {
            Operation::Forward(t) => self.widths[t + 1],
            Operation::Backward(t) => self.widths[t],
            _ => unreachable!("{operation:?} is not a product"),
        };
        let most = if threads == 1 { 1 } else { TILES_PER_THREAD * threads };
        let count = (flops / TILE).clamp(1, most);
        let by_neurons = count.min(columns.div_ceil(4 * GROUP));
        let by_samples = count.div_ceil(by_neurons).min(self.size.samples.div_ceil(4 * GROUP));
        let by_neurons = by_neurons.min(count.div_ceil(by_samples));
        let mut tiles = Vec::new();
        for neurons in split(columns, by_neurons, GROUP) {
            for samples in split(self.size.samples, by_samples, GROUP) {
                tiles.push(TileShape { samples, neurons: Some(neurons.clone()) });
            }
        }
        tiles
    }

    /// The tiles of operations by samples.
    fn rows(&self, operations: &[Operation], flops: usize) -> Vec<TileShape> {
        let count = (flops / TILE).clamp(1, ENOUGH_TILES);
        let widest = operations.iter().map(|&operation| match operation {
            Operation::Gather => self.widths[0],
            Operation::Forward(t) | Operation::Backward(t) => self.widths[t].max(self.widths[t + 1]),
            Operation::Loss => 1,
        });
        let rows = (TALL_TILE / widest.max().unwrap_or(1)).max(4 * GROUP);
        let count = count.max((self.size.samples / rows).min(MOST_TILES));
        split(self.size.samples, count, GROUP).map(|samples| TileShape { samples, neurons: None }).collect()
    }

    /// What a tile writes.
    fn regions<F: Number>(&self, layers: Layers, operations: &[Operation], tile: &TileShape) -> Vec<Region> {
        let samples = tile.samples.start..tile.samples.end.next_multiple_of(F::LINE);
        let neurons = |t: usize| {
            let Range { start, end } = tile.neurons.clone().unwrap_or(0..self.widths[t]);
            start..end.next_multiple_of(F::LINE)
        };
        let mut regions = Vec::new();
        let mut by_neuron = |matrix: usize, t: usize| {
            regions.push(Region { matrix, panels: panel_range::<F>(&neurons(t)), rows: samples.clone() });
        };
        let mut transposed = Vec::new();
        let mut by_sample = |t: usize| {
            if self.has_transposed(t) {
                let panels = panel_range::<F>(&samples);
                transposed.push(Region { matrix: layers.zt(t), panels, rows: neurons(t) });
            }
        };
        let mut rows = Vec::new();
        for &operation in operations {
            match operation {
                Operation::Gather => {
                    by_neuron(layers.z(0), 0);
                    by_sample(0);
                }
                Operation::Forward(t) => {
                    by_neuron(layers.z(t + 1), t + 1);
                    by_sample(t + 1);
                }
                Operation::Loss => {
                    by_neuron(layers.d_y_hat(), self.depth() + 1);
                    let panels = panels_of::<F>(self.widths[self.depth() + 1]);
                    if panels > 1 {
                        let lines = samples.start * panels..samples.end * panels;
                        for matrix in [layers.y_hat_rows(), layers.d_y_hat_rows()] {
                            rows.push(Region { matrix, panels: 0..1, rows: lines.clone() });
                        }
                    }
                }
                Operation::Backward(t) => by_neuron(layers.delta(t), t),
            }
        }
        regions.extend(transposed);
        regions.extend(rows);
        regions
    }
}

/// A part of a layer's parameters: some rows of some panels of w[t], and with the first panel the
/// numbers of c[t] for these rows.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) t: usize,
    pub(crate) panels: Range<usize>,
    pub(crate) rows: Range<usize>,
    /// Whether numbers of c[t] belong to the part.
    pub(crate) has_bias: bool,
}

impl Part {
    /// What of matrices shaped like θ the part is.
    fn regions<F: Number>(&self, theta: Theta) -> Vec<Region> {
        let w = Region { matrix: theta.w(self.t), panels: self.panels.clone(), rows: self.rows.clone() };
        let c = Region { matrix: theta.c(self.t), panels: 0..1, rows: panel_range::<F>(&self.rows) };
        match (self.panels.is_empty(), self.has_bias) {
            (false, true) => vec![w, c],
            (false, false) => vec![w],
            (true, _) => vec![c],
        }
    }
}

/// The tiles of θ for a batch of one size, each of one part or several.
#[derive(Debug)]
pub(crate) struct UpdateTiles {
    pub(crate) tiles: Vec<Vec<Part>>,
    pub(crate) flops: usize,
}

impl UpdateTiles {
    /// The tiles of a network with biases on these layers.
    pub(crate) fn new<F: Number>(widths: &[usize], biases: &[bool], samples: usize) -> Self {
        let flops: usize = widths.windows(2).map(|d| 2 * samples * d[0] * d[1]).sum();
        let mut parts = Vec::new();
        for (t, d) in widths.windows(2).enumerate() {
            // Little work is one tile.
            let count = if flops <= WIDE { 1 } else { (2 * samples * d[0] * d[1] / TILE).clamp(1, ENOUGH_TILES) };
            let panels = panels_of::<F>(d[0]);
            let by_panels = count.min(panels);
            for rows in split(d[1], count.div_ceil(by_panels).min(d[1].div_ceil(GROUP)), GROUP) {
                for panels in split(panels, by_panels, 1) {
                    let has_bias = biases[t] && panels.start == 0;
                    parts.push(Part { t, panels, rows: rows.clone(), has_bias });
                }
            }
        }
        let tiles = if flops <= WIDE { vec![parts] } else { parts.into_iter().map(|part| vec![part]).collect() };
        Self { tiles, flops }
    }

    /// Tiles of one part each, from the last number of θ to the first, for a gradient that is used
    /// so: of each layer its biases by themselves, and then rows of w[t] from the last.
    pub(crate) fn top_down<F: Number>(widths: &[usize], biases: &[bool], samples: usize) -> Self {
        let mut tiles = Vec::new();
        for (t, d) in widths.windows(2).enumerate().rev() {
            if biases[t] {
                tiles.push(vec![Part { t, panels: 0..0, rows: 0..d[1], has_bias: true }]);
            }
            let panels = panels_of::<F>(d[0]);
            for rows in pieces(t, d[1], GROUP) {
                let count = (2 * samples * d[0] * rows.len() / TILE).clamp(1, ENOUGH_TILES);
                for panels in split(panels, count.min(panels), 1) {
                    tiles.push(vec![Part { t, panels, rows: rows.clone(), has_bias: false }]);
                }
            }
        }
        Self { tiles, flops: widths.windows(2).map(|d| 2 * samples * d[0] * d[1]).sum() }
    }

    /// The tiles of layer t, where those of a layer lie one after another.
    pub(crate) fn of_layer(&self, t: usize) -> Range<usize> {
        let is_other = |parts: &Vec<Part>| parts[0].t != t;
        let first = self.tiles.iter().take_while(|parts| is_other(parts)).count();
        first..first + self.tiles[first..].iter().take_while(|parts| !is_other(parts)).count()
    }

    /// The table of tiles that write all of these, each shaped like θ.
    pub(crate) fn table<F: Number>(&self, set: &PanelSet<F>, written: &[Theta]) -> RegionTable {
        let of_part = |part: &Part| written.iter().flat_map(|&theta| part.regions::<F>(theta)).collect::<Vec<_>>();
        RegionTable::new(set, self.tiles.iter().map(|parts| parts.iter().flat_map(of_part).collect()).collect())
    }

    /// The work that can be shared.
    pub(crate) fn workload(&self) -> Workload {
        workload(self.tiles.len(), self.flops)
    }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;

    #[test]
    fn a_plan_follows_the_number_of_threads() {
        let widths = [512; 3];
        let mut set = PanelSet::<f32>::new(Vec::new());
        let layers = Layers::push(&mut set, &widths, 128);
        let in_pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut plan = in_pool(1).install(|| Plan::new(&set, layers, &widths, 128.into(), Until::Gradient));
        let tiles = |plan: &Plan| plan.phases.iter().map(|phase| phase.tiles.len()).collect::<Vec<_>>();
        let operations = |plan: &Plan| plan.phases.iter().map(|phase| phase.operations.clone()).collect::<Vec<_>>();
        let (alone, before) = (tiles(&plan), operations(&plan));
        in_pool(2).install(|| {
            plan.follow(&set, 0);
            // On a machine with one core there is nothing to follow.
            let expected = if max_threads() == 1 { alone } else { vec![2, 8, 8, 1, 8] };
            assert_eq!((tiles(&plan), operations(&plan)), (expected, before));
        });
        in_pool(1).install(|| plan.follow(&set, 0));
        assert_eq!(tiles(&plan), [2, 1, 1, 1, 1]);
    }

    /// Also one that costs more than can be counted.
    #[test]
    fn a_costly_loss_is_work_to_share() {
        let widths = [4, 8, 1];
        let mut set = PanelSet::<f32>::new(Vec::new());
        let layers = Layers::push(&mut set, &widths, 128);
        let plan = |cost| Plan::new(&set, layers, &widths, BatchSize { samples: 128, cost }, Until::Gradient);
        let tiles = |cost| plan(cost).phases.iter().map(|phase| phase.tiles.len()).collect::<Vec<_>>();
        assert_eq!((tiles(0), plan(0).workload().flops), (vec![1], 0));
        assert_eq!(tiles(20_000), [4]);
        assert_eq!(tiles(usize::MAX), [8]);
        assert!(plan(20_000).workload().flops >= 128 * 20_000);
        // Of a loss that says something else each time there is one plan.
        let mut plans = vec![plan(0)];
        for cost in [20_000, 0, 20_000, usize::MAX] {
            let of = (layers, &widths[..]);
            let size = BatchSize { samples: 128, cost };
            assert_eq!(Plan::find_or_push(&mut plans, &set, of, size, Until::Gradient), 0);
            assert_eq!((plans.len(), plans[0].shape.size, plans[0].phases[0].tiles.len()), (1, size, tiles(cost)[0]));
        }
        assert!((1000 * plan(usize::MAX).workload()).flops >= plan(usize::MAX).workload().flops);
    }
}
