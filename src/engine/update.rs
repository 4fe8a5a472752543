//! The last phase of a step: θ ← what the rule makes of it and of the gradient, over tiles of rows of all w[t] and c[t].
//!
//! ```text
//! plain      w ← −(η/B) Δᵀ Z + β w                 one product: no gradient is stored; β = 1 − ηλ, see `optimizer`
//! tall       G ← (1/B) Δᵀ Z, w ← β w − η G          plain too: of many samples, where the pass costs next to nothing and ‖G‖
//!                                                   comes free
//! moments    G ← (1/B) Δᵀ Z                         of a chunk, which stays in cache,
//!            m, v, w ← rule(G, m, v, w)             and is used at once: one pass over the parameters
//! clipped    G ← (1/B) Δᵀ Z, ‖G‖                    all of it, for its norm is needed first;
//!            m, v, w ← rule(s G, m, v, w)           s = min(1, c / ‖G‖)
//! sharpness  w̃ = w + ρ G / ‖G‖, another pass through the layers with w̃, and one of the above to w
//! ```

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Ix1, Ix2, s};

use crate::engine::plan::{LayerSlots, PER_NUMBER, Update, chunk, is_tall, sum, tiles, zeros};
use crate::linalg::blas::{Claimed, SharedTiles, Tile};
use crate::linalg::rows::{self, slice_range};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Parameters;
use crate::optim::moments::Moments;
use crate::optim::optimizer::Optimizer;
use crate::optim::overflow::largest;
use crate::optim::rule::{Coefficients, Rule};
use crate::parallel::team::ActiveTeam;

/// What the gradient of a batch is made of: Z and Δ in the first rows of the layers, Z[0] perhaps where it lies.
pub(crate) struct BatchLayers<'a, F> {
    pub(crate) layers: &'a [Array2<F>],
    pub(crate) z_0: Option<ArrayView2<'a, F>>,
    pub(crate) samples: usize,
}

impl<F: Scalar> BatchLayers<'_, F> {
    /// Some columns of Δ[t+1], and Z[t]: their product is the gradient of those rows of w[t].
    fn operands(&self, t: usize, neurons: Range<usize>) -> (ArrayView2<'_, F>, ArrayView2<'_, F>) {
        let slots = LayerSlots { depth: self.layers.len() / 2 - 1 };
        let batch = Some(0..self.samples);
        let delta = &self.layers[slots.delta(t + 1)];
        let z = match &self.z_0 {
            Some(z) if t == 0 => z.view(),
            _ => slice_range(&self.layers[slots.z(t)], Axis(0), &batch),
        };
        if neurons.len() == delta.ncols() {
            (slice_range(delta, Axis(0), &batch), z)
        } else {
            (delta.slice(s![..self.samples, neurons]), z)
        }
    }
}

/// What rules beyond plain descent work with.
#[derive(Debug)]
pub(crate) struct Scratch<F> {
    /// Tiles of the moments.
    moments: [Update; 2],
    /// A place for each tile's gradient: for a chunk of it, or for all of it.
    gradient: Parameters<F>,
    of_gradient: Update,
    /// Is there room for all of it?
    whole: bool,
    /// θ + ρ g / ‖g‖, for sharpness-aware minimisation.
    uphill: Option<(Parameters<F>, Update)>,
    /// Σ g² of each tile.
    squares: Vec<AtomicU64>,
}

impl<F: Scalar> Scratch<F> {
    fn new(update: &Update, theta: &Parameters<F>, whole: bool) -> Self {
        let (mut gradient, mut tiles) = (Parameters { w: Vec::new(), c: Vec::new() }, (Vec::new(), Vec::new()));
        for tile in 0..update.w.len() {
            let (w, c) = (update.w.tile(tile), update.c.tile(tile));
            let columns = theta.w[w.arrays.start].ncols();
            let (most_rows, most_columns) = if whole { (usize::MAX, columns) } else { chunk(columns) };
            let (w_rows, c_rows) = (w.rows.len().min(most_rows), c.rows.len().min(most_rows));
            gradient.w.push(Array2::from_elem((w_rows, columns.min(most_columns)), F::ZERO));
            gradient.c.push(Array1::from_elem(c_rows, F::ZERO));
            let of = |rows| Tile { arrays: tile..tile + 1, rows: 0..rows, columns: None };
            tiles.0.push(of(w_rows));
            tiles.1.push(of(c_rows));
        }
        Self {
            moments: [update.like(), update.like()],
            of_gradient: Update::of(&gradient, tiles.0, tiles.1),
            gradient,
            whole,
            uphill: None,
            squares: zeros(update.w.len()),
        }
    }
}

/// Some rows and columns of a tile, counted from its first row.
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// A block of w, and the numbers of c that belong to its rows: none where there is no constant, and none in blocks that do not begin
/// with the first column.
struct ParameterBlock<'a, F> {
    w: ArrayViewMut2<'a, F>,
    c: ArrayViewMut1<'a, F>,
}

impl<F: Scalar> ParameterBlock<'_, F> {
    /// Σ p²
    fn squares(&mut self) -> f64 {
        let mut sum = 0.0;
        for_each_run([self.w.view_mut()], |[w]| sum += rows::squares(w));
        sum + rows::squares(slice(&mut self.c))
    }
}

/// `work` on the numbers of some matrices of one shape, in runs that lie one beside the other in all of them.
fn for_each_run<F, const N: usize>(mut of: [ArrayViewMut2<F>; N], mut work: impl FnMut([&mut [F]; N])) {
    if of.iter().all(|a| a.is_standard_layout()) {
        return work(of.map(|a| a.into_slice().expect("standard layout")));
    }
    for row in 0..of[0].nrows() {
        work(of.each_mut().map(|a| rows::slice_mut(a.row_mut(row))));
    }
}

fn slice<'a, F>(c: &'a mut ArrayViewMut1<F>) -> &'a mut [F] {
    c.as_slice_mut().expect("numbers of c lie one beside the other")
}

/// θ, or arrays like it, shared by tiles.
struct SharedParameters<'a, F> {
    w: SharedTiles<'a, F, Ix2>,
    c: SharedTiles<'a, F, Ix1>,
}

impl<'a, F: Scalar> SharedParameters<'a, F> {
    fn new(parameters: &'a mut Parameters<F>, tiles: &'a Update) -> Self {
        Self { w: SharedTiles::new(&mut parameters.w, &tiles.w), c: SharedTiles::new(&mut parameters.c, &tiles.c) }
    }

    fn claim(&self, tile: usize) -> ParameterTile<'_, 'a, F> {
        ParameterTile { w: self.w.claim(tile), c: self.c.claim(tile) }
    }
}

/// A tile of it that this thread alone may write.
struct ParameterTile<'s, 'a, F> {
    w: Claimed<'s, 'a, F, Ix2>,
    c: Claimed<'s, 'a, F, Ix1>,
}

impl<F: Scalar> ParameterTile<'_, '_, F> {
    fn block(&mut self, block: &Block) -> ParameterBlock<'_, F> {
        let array = self.w.tile().arrays.start;
        let (mut w, mut c) = (self.w.write(array), self.c.write(array));
        w.slice_collapse(s![block.rows.clone(), block.columns.clone()]);
        let of_c = if c.is_empty() || block.columns.start > 0 { 0..0 } else { block.rows.clone() };
        c.slice_collapse(s![of_c]);
        ParameterBlock { w, c }
    }
}

/// A norm above this has all its digits: where squares underflow they are off by 2⁻¹⁰⁷⁵ each, nothing beside 10⁻²⁸⁰ = 2⁻⁹³⁰.
const LEAST_NORM: f64 = 1e-140;

/// Over the largest number, no less than the least one that has all its digits: 2⁻¹²⁶ goes with 2¹²⁸, and 2⁻¹⁰²² with 2¹⁰²⁴.
const LEAST_NORMAL: f64 = 4.0;

/// g ← g / max |g|. Returns ‖g‖ after that, from 1 to √n; 0 if g is.
fn scale_to_1<F: Scalar>(g: &mut Parameters<F>) -> f64 {
    let most = F::from_f64(largest(g));
    if most > F::ZERO {
        g.iter_mut().for_each(|g| *g = *g / most);
    }
    g.iter().map(|g| g.to_f64() * g.to_f64()).sum::<f64>().sqrt()
}

/// Is the gradient of plain descent stored before it is used? To pass over the parameters takes a few operations for each of them,
/// where the step takes 6 for each of them and each sample. Shapes alone decide, so that a step has the same bits with the norm of
/// its gradient and without.
fn stores_gradient<F: Scalar>(theta: &Parameters<F>, samples: usize) -> bool {
    samples >= LEAST_STORED && theta.w.iter().all(|w| is_tall(samples, w.nrows().max(w.ncols())))
}

/// Below this many samples even the pass over a small network is no trifle.
const LEAST_STORED: usize = 256;

/// Is given a tile, a block of it, and the block's gradient.
type Visit<'a, F> = dyn Fn(usize, &Block, ParameterBlock<F>) + Sync + 'a;

impl Update {
    /// w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t] and c[t] ← a Δ[t+1]ᵀ 1 + β c[t].
    pub(crate) fn run<F: Scalar>(
        &self,
        team: &ActiveTeam,
        batch: &BatchLayers<F>,
        (a, beta): (F, F),
        into: &mut Parameters<F>,
    ) {
        let into = SharedParameters::new(into, self);
        team.for_each_tile(self.w.len(), batch.samples * self.flops, &|index| {
            let ParameterTile { mut w, mut c } = into.claim(index);
            let Tile { arrays, rows, .. } = w.tile().clone();
            let t = arrays.start;
            let (delta, z) = batch.operands(t, rows);
            rows::gradient(a, delta, z, beta, w.write(t), c.write(t));
        });
    }

    /// SingleStep step by a rule. Returns ‖g‖, if the rule asks for it or needs it.
    pub(crate) fn step<F: Scalar>(
        &self,
        team: &ActiveTeam,
        batch: &BatchLayers<F>,
        rule: &Rule,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        scratch: &mut Option<Scratch<F>>,
    ) -> Option<f64> {
        let plain = rule.optimizer == Optimizer::Sgd && rule.clip.is_none() && !stores_gradient(theta, batch.samples);
        let descend = |theta: &mut Parameters<F>| {
            let a = F::from_f64(-rule.eta / batch.samples as f64);
            self.run(team, batch, (a, F::from_f64(rule.decay.beta)), theta);
        };
        if plain && !rule.norm {
            descend(theta);
            return None;
        }
        let Scratch { moments: of_moments, gradient, of_gradient, squares, .. } = self.scratch(rule, theta, scratch);
        let gradient = SharedParameters::new(gradient, of_gradient);
        let squares = squares.as_slice();
        if plain {
            self.chunks(team, batch, &gradient, Some(squares), &|_, _, _| ());
            descend(theta);
            return Some(sum(squares).sqrt());
        }
        let mut arrays =
            moments.arrays.iter_mut().zip(of_moments).map(|(array, tiles)| SharedParameters::new(array, tiles));
        let (first, second) = (arrays.next(), arrays.next());
        let theta = SharedParameters::new(theta, self);
        let apply = |numbers: &Coefficients<F>, tile: usize, block: &Block, mut g: ParameterBlock<F>| {
            let mut theta = theta.claim(tile);
            let mut theta = theta.block(block);
            let [mut first, mut second] = [&first, &second].map(|array| array.as_ref().map(|array| array.claim(tile)));
            let [mut first, mut second] = [&mut first, &mut second].map(|own| own.as_mut().map(|own| own.block(block)));
            match (&mut first, &mut second) {
                (Some(first), Some(second)) => {
                    let of = [g.w, first.w.view_mut(), second.w.view_mut(), theta.w.view_mut()];
                    for_each_run(of, |[g, first, second, theta]| numbers.apply(g, first, second, theta));
                    let [first, second] = [&mut first.c, &mut second.c].map(slice);
                    numbers.apply(slice(&mut g.c), first, second, slice(&mut theta.c));
                }
                (Some(first), None) => {
                    let of = [g.w, first.w.view_mut(), theta.w.view_mut()];
                    for_each_run(of, |[g, first, theta]| numbers.apply(g, first, &mut [], theta));
                    numbers.apply(slice(&mut g.c), slice(&mut first.c), &mut [], slice(&mut theta.c));
                }
                _ => {
                    for_each_run([g.w, theta.w.view_mut()], |[g, theta]| numbers.apply(g, &mut [], &mut [], theta));
                    numbers.apply(slice(&mut g.c), &mut [], &mut [], slice(&mut theta.c));
                }
            }
        };
        match rule.clip {
            None => {
                let (numbers, squares) = (rule.coefficients(1.0), rule.norm.then_some(squares));
                self.chunks(team, batch, &gradient, squares, &|tile, block, g| apply(&numbers, tile, block, g));
                squares.map(|squares| sum(squares).sqrt())
            }
            Some(most) => {
                self.chunks(team, batch, &gradient, Some(squares), &|_, _, _| ());
                let norm = sum(squares).sqrt();
                let numbers = rule.coefficients(if norm > most { most / norm } else { 1.0 });
                self.pass(team, &|tile, block| apply(&numbers, tile, block, gradient.claim(tile).block(block)));
                Some(norm)
            }
        }
    }

    /// What this rule works with, kept from the last step or made.
    fn scratch<'b, F: Scalar>(
        &self,
        rule: &Rule,
        theta: &Parameters<F>,
        scratch: &'b mut Option<Scratch<F>>,
    ) -> &'b mut Scratch<F> {
        // Of plain descent as well: a product for each chunk of a tile, and not for all of it, copies Z as often.
        let whole = rule.clip.is_some() || rule.sam.is_some() || rule.optimizer == Optimizer::Sgd;
        if scratch.as_ref().is_none_or(|scratch| scratch.whole != whole) {
            *scratch = None;
        }
        scratch.get_or_insert_with(|| Scratch::new(self, theta, whole))
    }

    /// ‖g‖, and θ + ρ g / ‖g‖; if the norm is not finite, that is a point without meaning.
    pub(crate) fn uphill<'b, F: Scalar>(
        &self,
        team: &ActiveTeam,
        batch: &BatchLayers<F>,
        (rule, rho): (&Rule, f64),
        theta: &Parameters<F>,
        scratch: &'b mut Option<Scratch<F>>,
    ) -> (f64, &'b Parameters<F>) {
        let Scratch { gradient, of_gradient, squares, uphill, .. } = self.scratch(rule, theta, scratch);
        let (uphill, of_uphill) = uphill.get_or_insert_with(|| (theta.zeros_like(), self.like()));
        self.chunks(team, batch, &SharedParameters::new(gradient, of_gradient), Some(squares), &|_, _, _| ());
        let norm = sum(squares).sqrt();
        if !norm.is_finite() {
            return (norm, uphill);
        }
        // Only g's direction counts: where ‖g‖ or ρ/‖g‖ leaves the range of the numbers, g is first made of ordinary length.
        let fine = norm > LEAST_NORM && (LEAST_NORMAL / F::MAX..F::MAX).contains(&(rho / norm));
        let length = if fine { norm } else { scale_to_1(gradient) };
        // A gradient of 0 has no direction.
        let step = F::from_f64(if length > 0.0 { rho / length } else { 0.0 });
        let gradient = SharedParameters::new(gradient, of_gradient);
        let shared = SharedParameters::new(uphill, of_uphill);
        self.pass(team, &|tile, block| {
            let (mut uphill, mut gradient) = (shared.claim(tile), gradient.claim(tile));
            let (mut uphill, mut g) = (uphill.block(block), gradient.block(block));
            let Tile { arrays, rows, .. } = self.w.tile(tile);
            let (w, c) = (&theta.w[arrays.start], &theta.c[arrays.start]);
            let move_up = |uphill: &mut [F], theta: &[F], g: &[F]| {
                let numbers = uphill.iter_mut().zip(theta).zip(g);
                numbers.for_each(|((uphill, &theta), &g)| *uphill = theta + step * g);
            };
            // A tile has whole rows of θ, which lie one after another.
            let w = w.slice(s![rows.clone(), ..]);
            let w = w.to_slice().expect("rows lie one after another");
            for_each_run([uphill.w.view_mut(), g.w.view_mut()], |[uphill, g]| move_up(uphill, w, g));
            if !c.is_empty() {
                let c = c.slice(s![rows.clone()]);
                move_up(slice(&mut uphill.c), c.to_slice().expect("in one piece"), slice(&mut g.c));
            }
        });
        (norm, uphill)
    }

    /// `work(tile, all of it)` for each tile: a pass over the parameters without a product.
    fn pass(&self, team: &ActiveTeam, work: &(dyn Fn(usize, &Block) + Sync)) {
        team.for_each_tile(self.w.len(), PER_NUMBER * self.flops / 2, &|index| {
            let tile = self.w.tile(index);
            work(index, &Block { rows: 0..tile.rows.len(), columns: 0..self.w.columns(tile.arrays.start) });
        });
    }

    /// `visit(tile, block, its gradient)` for each chunk of each tile; Σ g² of each tile where it is asked for.
    fn chunks<F: Scalar>(
        &self,
        team: &ActiveTeam,
        batch: &BatchLayers<F>,
        gradient: &SharedParameters<F>,
        squares: Option<&[AtomicU64]>,
        visit: &Visit<F>,
    ) {
        let mean = F::from_f64(1.0 / batch.samples as f64);
        team.for_each_tile(self.w.len(), (batch.samples + PER_NUMBER / 2) * self.flops, &|index| {
            let Tile { arrays, rows: of_tile, .. } = self.w.tile(index);
            let mut own = gradient.claim(index);
            let (most_rows, most_columns) = own.w.write(index).dim();
            let mut sum = 0.0;
            for rows in tiles(of_tile.len(), most_rows) {
                let neurons = of_tile.start + rows.start..of_tile.start + rows.end;
                let (delta, z) = batch.operands(arrays.start, neurons);
                for columns in tiles(z.ncols(), most_columns) {
                    let block = Block { rows: rows.clone(), columns };
                    // The buffer holds one block, in its first rows and columns.
                    let in_buffer = Block { rows: 0..rows.len(), columns: 0..block.columns.len() };
                    let mut g = own.block(&in_buffer);
                    if block.columns.start > 0 {
                        g.c.slice_collapse(s![0..0]);
                    }
                    let z = slice_range(&z, Axis(1), &Some(block.columns.clone()));
                    rows::gradient(mean, delta, z, F::ZERO, g.w.view_mut(), g.c.view_mut());
                    if squares.is_some() {
                        sum += g.squares();
                    }
                    visit(index, &block, g);
                }
            }
            if let Some(squares) = squares {
                squares[index].store(sum.to_bits(), Ordering::Relaxed);
            }
        });
    }
}
