//! The operations of a gradient pass on a tile: gather, forward, loss and backward.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::kernels::number::Number;
use crate::kernels::operands::{End, Left, Product, Right, Start};
use crate::kernels::panels::{numbers, numbers_mut, panel_range, panels_of};
use crate::kernels::table::Table;
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::plan::{Operation, Phase, Plan, Shape, TileShape};
use crate::parallel::panel_set::{PanelSet, Region, RegionGuard};
use crate::parallel::per_tile::{store, sum};
use crate::parallel::team::ActiveTeam;
use crate::steps::samples::{AnySamples, Outputs};

/// What all tiles of a pass read beside the matrices.
pub(crate) struct Pass<'a, 's, F: Scalar> {
    pub(crate) layers: Layers,
    pub(crate) theta: Theta,
    pub(crate) samples: &'a AnySamples<'s, F>,
    /// The batch's first sample.
    pub(crate) first: usize,
    /// s, the factor on ∂ℓ/∂Ŷ.
    pub(crate) scale: F,
    /// Whether the squares of what is written are summed up.
    pub(crate) watched: bool,
}

impl<F: Scalar> Pass<'_, '_, F> {
    /// Runs all phases, tile by tile. Returns Σ ℓ, or 0 without a loss.
    pub(crate) fn run(&self, plan: &Plan, team: &ActiveTeam, set: &mut PanelSet<F>) -> f64 {
        self.run_phases(0..plan.phases.len(), plan, team, set, || ());
        sum(&plan.losses)
    }

    /// Runs some phases, and calls `between` on this thread after each tile that it has run.
    pub(crate) fn run_phases(
        &self,
        phases: Range<usize>,
        plan: &Plan,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        mut between: impl FnMut(),
    ) {
        for phase in &plan.phases[phases] {
            let shared = set.share(&phase.table);
            let tile = |index| {
                let guard = shared.claim(index);
                self.tile(plan, phase, index, guard);
            };
            team.for_each_tile_and_between(phase.tiles.len(), phase.flops, &tile, &mut between);
        }
    }

    pub(crate) fn tile(&self, plan: &Plan, phase: &Phase, index: usize, guard: RegionGuard<F>) {
        let TileShape { samples, neurons } = phase.tiles[index].clone();
        let mut tile = Tile { guard, shape: &plan.shape, layers: self.layers, samples, neurons, kernels: F::kernels() };
        for &operation in &phase.operations {
            match operation {
                Operation::Gather => self.gather(&mut tile),
                Operation::Forward(t) => self.forward(t, &mut tile),
                Operation::Loss => self.loss(&mut tile, &plan.losses),
                Operation::Backward(t) => self.backward(t, &mut tile),
            }
        }
        if self.watched {
            let [of_z, of_delta] = tile.squares(&phase.operations);
            store(&phase.squares[0][index], of_z);
            store(&phase.squares[1][index], of_delta);
        }
    }

    /// Z[0] = the rows of x, standardised.
    fn gather(&self, tile: &mut Tile<F>) {
        let (samples, first) = (self.samples, self.first + tile.samples.start);
        let (rows, columns) = (tile.samples.len(), tile.shape.widths[0]);
        let mut z = tile.guard.write(self.layers.z(0));
        for panel in 0..z.panels() {
            let range = panel * F::LINE..((panel + 1) * F::LINE).min(columns);
            let lines = numbers_mut::<F>(z.panel(panel)).chunks_exact_mut(F::LINE).take(rows);
            match samples.x.to_slice() {
                // Most calls: whole lines are copied.
                Some(x) if samples.weights.is_none() && range.len() == F::LINE => {
                    for (r, line) in lines.enumerate() {
                        line.copy_from_slice(&x[samples.row(first + r) * columns + range.start..][..F::LINE]);
                        standardize(samples.standardize, &range, line);
                    }
                }
                _ => {
                    let numbers = lines.enumerate();
                    numbers.for_each(|(r, line)| self.gather_numbers(samples.row(first + r), &range, line));
                }
            }
        }
        if tile.shape.has_transposed(0) {
            tile.transpose_samples(0);
        }
    }

    /// The numbers of a row of x in a range of columns, standardised; 0 if the row has no weight.
    fn gather_numbers(&self, row: usize, columns: &Range<usize>, line: &mut [F]) {
        let (samples, line) = (self.samples, &mut line[..columns.len()]);
        if !samples.is_present(row) {
            return line.fill(F::ZERO);
        }
        let x = samples.x.row(row);
        line.iter_mut().zip(columns.clone()).for_each(|(z, i)| *z = x[i]);
        standardize(samples.standardize, columns, line);
    }

    /// Z[t+1] = ReLU(w[t] Z[t] + c[t]); Ŷ, for t = T, without ReLU.
    fn forward(&self, t: usize, tile: &mut Tile<F>) {
        let (layers, depth) = (self.layers, tile.shape.widths[t]);
        let neurons = tile.neurons(t + 1);
        let samples = tile.samples.clone();
        let (w, c) = (tile.guard.read(self.theta.w(t)), tile.guard.read(self.theta.c(t)));
        let c = if c.rows() == 0 { None } else { Some(&c.panel(0)[panel_range::<F>(&neurons)]) };
        let end = if t < tile.shape.depth() { End::Relu } else { End::Store };
        let kernels = tile.kernels;
        if tile.shape.is_by_samples(t) {
            let from = Region { matrix: layers.zt(t), panels: panel_range::<F>(&samples), rows: 0..depth };
            let ([z], mut zt) = tile.guard.read_and_write([from], layers.zt(t + 1));
            let (columns, panels) = (samples.len(), zt.panels());
            kernels.product(Product {
                a: Left::Rows(w.part(0..w.panels(), neurons.clone())),
                b: Right::Panels(z),
                c: zt.part(0..panels, 0..neurons.len()),
                columns,
                depth,
                start: c.map_or(Start::Zero, |c| Start::Rows(numbers::<F>(c))),
                end,
            });
            tile.transpose_neurons(t + 1);
        } else {
            let from = Region { matrix: layers.z(t), panels: 0..panels_of::<F>(depth), rows: samples.clone() };
            let ([z], mut u) = tile.guard.read_and_write([from], layers.z(t + 1));
            let panels = u.panels();
            kernels.product(Product {
                a: Left::Rows(z),
                b: Right::Transposed(w.part(0..w.panels(), neurons.start..neurons.end.next_multiple_of(F::LINE))),
                c: u.part(0..panels, 0..samples.len()),
                columns: neurons.len(),
                depth,
                start: c.map_or(Start::Zero, Start::Columns),
                end,
            });
            if tile.shape.has_transposed(t + 1) {
                tile.transpose_samples(t + 1);
            }
        }
    }

    /// s ∂ℓ/∂Ŷ
    fn loss(&self, tile: &mut Tile<F>, losses: &[AtomicU64]) {
        if panels_of::<F>(tile.outputs()) == 1 {
            self.narrow_loss(tile, losses);
        } else {
            self.wide_loss(tile, losses);
        }
    }

    /// Of outputs that lie in one panel, where those of a sample are neighbours.
    fn narrow_loss(&self, tile: &mut Tile<F>, losses: &[AtomicU64]) {
        let (outputs, samples) = (tile.outputs(), tile.samples.clone());
        let own = |matrix| Region { matrix, panels: 0..1, rows: samples.clone() };
        let ([y_hat], mut d) = tile.guard.read_and_write([own(self.layers.y_hat())], self.layers.d_y_hat());
        let (y_hat, d) = (numbers(y_hat.panel(0)), numbers_mut(d.panel(0)));
        let of = Outputs { samples, y_hat, d, stride: F::LINE, outputs, scale: self.scale };
        self.samples.loss.losses(self.first, of, losses);
    }

    /// Of more outputs, which are first brought together.
    fn wide_loss(&self, tile: &mut Tile<F>, losses: &[AtomicU64]) {
        let (outputs, samples) = (tile.outputs(), tile.samples.clone());
        let (layers, lines) = (self.layers, panels_of::<F>(outputs));
        tile.outputs_to_rows();
        let region = tile.guard.region(layers.y_hat_rows()).clone();
        let ([y_hat], mut d) = tile.guard.read_and_write([region], layers.d_y_hat_rows());
        let (y_hat, d) = (numbers(y_hat.panel(0)), numbers_mut(d.panel(0)));
        let of = Outputs { samples, y_hat, d, stride: lines * F::LINE, outputs, scale: self.scale };
        self.samples.loss.losses(self.first, of, losses);
        tile.rows_to_derivatives();
    }

    /// Δ[t] = (Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
    fn backward(&self, t: usize, tile: &mut Tile<F>) {
        let (layers, depth) = (self.layers, tile.shape.widths[t + 1]);
        let (neurons, samples) = (tile.neurons(t), tile.samples.clone());
        let panels = panel_range::<F>(&neurons);
        let above = Region { matrix: layers.delta(t + 1), panels: 0..panels_of::<F>(depth), rows: samples.clone() };
        let z = Region { matrix: layers.z(t), panels: panels.clone(), rows: samples.clone() };
        let w = tile.guard.read(self.theta.w(t));
        let kernels = tile.kernels;
        let ([above, z], mut delta) = tile.guard.read_and_write([above, z], layers.delta(t));
        kernels.product(Product {
            a: Left::Rows(above),
            b: Right::Panels(w.part(panels.clone(), 0..depth)),
            c: delta.part(0..panels.len(), 0..samples.len()),
            columns: neurons.len(),
            depth,
            start: Start::Zero,
            end: End::Mask(z),
        });
    }
}

/// z ← (z − mean) · factor in double precision, for numbers of these columns.
fn standardize<F: Scalar>(by: Option<(&[f64], &[f64])>, columns: &Range<usize>, z: &mut [F]) {
    if let Some((mean, factor)) = by {
        let columns = z.iter_mut().zip(mean[columns.clone()].iter().zip(&factor[columns.clone()]));
        columns.for_each(|(z, (&mean, &factor))| *z = F::from_f64((z.to_f64() - mean) * factor));
    }
}

/// A tile that this thread works on.
pub(crate) struct Tile<'s, 'a, F: Number> {
    pub(crate) guard: RegionGuard<'s, 'a, F>,
    pub(crate) shape: &'s Shape,
    pub(crate) layers: Layers,
    pub(crate) samples: Range<usize>,
    pub(crate) neurons: Option<Range<usize>>,
    pub(crate) kernels: &'static Table<F>,
}

impl<F: Scalar> Tile<'_, '_, F> {
    /// The tile's neurons of layer t.
    pub(crate) fn neurons(&self, t: usize) -> Range<usize> {
        self.neurons.clone().unwrap_or(0..self.shape.widths[t])
    }

    pub(crate) fn outputs(&self) -> usize {
        self.shape.widths[self.shape.depth() + 1]
    }

    /// Ŷ, sample by sample.
    pub(crate) fn outputs_to_rows(&mut self) {
        let lines = panels_of::<F>(self.outputs());
        let own = Region { matrix: self.layers.y_hat(), panels: 0..lines, rows: self.samples.clone() };
        let ([y_hat], mut rows) = self.guard.read_and_write([own], self.layers.y_hat_rows());
        let rows = rows.panel(0);
        for panel in 0..lines {
            y_hat.panel(panel).iter().enumerate().for_each(|(r, &line)| rows[r * lines + panel] = line);
        }
    }

    /// ∂ℓ/∂Ŷ in panels, from what it is sample by sample.
    pub(crate) fn rows_to_derivatives(&mut self) {
        let (lines, samples) = (panels_of::<F>(self.outputs()), self.samples.len());
        let region = self.guard.region(self.layers.d_y_hat_rows()).clone();
        let ([rows], mut d) = self.guard.read_and_write([region], self.layers.d_y_hat());
        let rows = rows.panel(0);
        for panel in 0..lines {
            let d = d.panel(panel).iter_mut().take(samples).enumerate();
            d.for_each(|(r, line)| *line = rows[r * lines + panel]);
        }
    }

    /// Z[t]ᵀ from Z[t]
    pub(crate) fn transpose_samples(&mut self, t: usize) {
        let (kernels, region) = (self.kernels, self.guard.region(self.layers.z(t)).clone());
        let ([z], zt) = self.guard.read_and_write([region], self.layers.zt(t));
        kernels.transpose(z, zt);
    }

    /// Z[t] from Z[t]ᵀ
    pub(crate) fn transpose_neurons(&mut self, t: usize) {
        let (kernels, region) = (self.kernels, self.guard.region(self.layers.zt(t)).clone());
        let ([zt], z) = self.guard.read_and_write([region], self.layers.z(t));
        kernels.transpose(zt, z);
    }

    /// The sums of the squares of all z, and of all δ, that these operations have written.
    fn squares(&mut self, operations: &[Operation]) -> [f64; 2] {
        let (layers, samples) = (self.layers, self.samples.len());
        let mut sums = [0.0; 2];
        for &operation in operations {
            let (matrix, which) = match operation {
                Operation::Gather => (layers.z(0), 0),
                Operation::Forward(t) => (layers.z(t + 1), 0),
                Operation::Loss => (layers.d_y_hat(), 1),
                Operation::Backward(t) => (layers.delta(t), 1),
            };
            let written = self.guard.write(matrix);
            let view = written.view();
            sums[which] += self.kernels.squares(view.part(0..view.panels(), 0..samples));
        }
        sums
    }
}
