//! The last phase of a step: θ ← what the optimiser's rule makes of it and of the gradient, tile by
//! tile.
//!
//! ```text
//! fused      w ← −(η/B) Δᵀ Z + β w         plain descent in one product: no gradient is stored
//! chunked    G ← (1/B) Δᵀ Z                  chunk by chunk; each stays in cache,
//!            m, v, w ← rule(G, m, v, w)      and is used at once: one pass over the parameters
//! clipped    G ← (1/B) Δᵀ Z, ‖G‖             all of it, since its norm is needed first
//!            m, v, w ← rule(s G, m, v, w)    s = min(1, c / ‖G‖)
//! ```
//!
//! β = 1 − ηλ is the weight decay, as [`Optimizer`] has it; of c it may be 1. Plain descent is
//! fused unless the batch is tall: there, a pass over the parameters costs next to nothing beside
//! the product, and ‖G‖ comes with it for free.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use ndarray::{Array1, Array2, Axis, s};

use crate::engine::cut::{PER_NUMBER, chunk, is_tall};
use crate::engine::layers::BatchLayers;
use crate::engine::parameter_tiles::{
    Block, PIECE_UNIT, ParameterBlock, ParameterTiles, SharedParameters, for_each_run,
};
use crate::linalg::rows::{self, slice_range};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::{Parameters, in_one_piece};
use crate::optim::moments::Moments;
use crate::optim::optimizer::Optimizer;
use crate::optim::rule::{Coefficients, Rule};
use crate::parallel::per_tile::{store, sum, zeros};
use crate::parallel::team::ActiveTeam;
use crate::parallel::tiles::Tile;
use crate::steps::blocks::ranges;
use crate::steps::top_down::{TopDown, pieces};

/// The buffers of the rules that are not fused, allocated when a step first needs them.
#[derive(Debug)]
pub(crate) struct Scratch<F> {
    buffers: Option<Buffers<F>>,
}

impl<F> Default for Scratch<F> {
    fn default() -> Self {
        Self { buffers: None }
    }
}

#[derive(Debug)]
pub(crate) struct Buffers<F> {
    /// For each tile, a place for its gradient: for all of it, or for one chunk after another.
    pub(crate) gradient: Parameters<F>,
    pub(crate) gradient_tiles: ParameterTiles,
    whole: bool,
    moment_tiles: [ParameterTiles; 2],
    /// Σ g² of each tile, as the bits of an f64.
    pub(crate) squares: Vec<AtomicU64>,
    /// The point uphill of sharpness-aware minimisation.
    pub(crate) uphill: Option<(Parameters<F>, ParameterTiles)>,
}

impl<F: Scalar> Scratch<F> {
    /// The buffers for this rule.
    pub(crate) fn buffers(&mut self, tiles: &ParameterTiles, rule: &Rule, theta: &Parameters<F>) -> &mut Buffers<F> {
        // Plain descent, too, stores the whole gradient: chunks would copy Z once for each of them.
        let whole = rule.clip.is_some() || rule.sam.is_some() || rule.optimizer == Optimizer::Sgd;
        if self.buffers.as_ref().is_some_and(|buffers| buffers.whole != whole) {
            self.buffers = None;
        }
        self.buffers.get_or_insert_with(|| Buffers::new(tiles, theta, whole))
    }
}

impl<F: Scalar> Buffers<F> {
    fn new(tiles: &ParameterTiles, theta: &Parameters<F>, whole: bool) -> Self {
        let mut gradient = Parameters { w: Vec::new(), c: Vec::new() };
        let (mut w_tiles, mut c_tiles) = (Vec::new(), Vec::new());
        for tile in 0..tiles.len() {
            let (t, rows) = tiles.layer_rows(tile);
            let columns = theta.w[t].ncols();
            let (most_rows, most_columns) = if whole { (usize::MAX, columns) } else { chunk(columns) };
            let (w_rows, c_rows) = (rows.len().min(most_rows), tiles.c_rows(tile).min(most_rows));
            gradient.w.push(Array2::from_elem((w_rows, columns.min(most_columns)), F::ZERO));
            gradient.c.push(Array1::from_elem(c_rows, F::ZERO));
            let of_buffer = |rows| Tile { arrays: tile..tile + 1, rows: 0..rows, columns: None };
            w_tiles.push(of_buffer(w_rows));
            c_tiles.push(of_buffer(c_rows));
        }
        Self {
            gradient_tiles: ParameterTiles::from_tiles(&gradient, w_tiles, c_tiles),
            gradient,
            whole,
            moment_tiles: [tiles.like(), tiles.like()],
            squares: zeros(tiles.len()),
            uphill: None,
        }
    }
}

/// Below this many samples, even a pass over the parameters of a small network costs too much
/// beside the fused product.
const LEAST_STORED: usize = 256;

/// Whether plain descent stores its gradient before it uses it. The pass over the parameters takes
/// a few operations for each of them, the step takes 6 for each of them and each sample. Shapes
/// alone decide, so a step has the same bits whether or not its norm is asked for.
fn stores_gradient<F: Scalar>(theta: &Parameters<F>, samples: usize) -> bool {
    samples >= LEAST_STORED && theta.w.iter().all(|w| is_tall(samples, w.nrows().max(w.ncols())))
}

/// An update from the layers of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Update<'a, F> {
    pub(crate) tiles: &'a ParameterTiles,
    pub(crate) team: &'a ActiveTeam<'a>,
    pub(crate) batch: &'a BatchLayers<'a, F>,
}

impl<F: Scalar> Update<'_, F> {
    /// One step by a rule. Returns ‖g‖ if the rule needs it or asks for it.
    pub(crate) fn step(
        &self,
        rule: &Rule,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        scratch: &mut Scratch<F>,
    ) -> Option<f64> {
        let is_plain = rule.optimizer == Optimizer::Sgd && rule.clip.is_none();
        if is_plain && !stores_gradient(theta, self.batch.samples) {
            let norm = rule.norm.then(|| self.gradient_norm(scratch.buffers(self.tiles, rule, theta)));
            self.fused(rule, theta);
            return norm;
        }
        let buffers = scratch.buffers(self.tiles, rule, theta);
        match rule.clip {
            None => self.chunked(rule, theta, moments, buffers),
            Some(limit) => Some(self.clipped(limit, rule, theta, moments, buffers)),
        }
    }

    /// w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t] and c[t] ← a Δ[t+1]ᵀ 1 + β c[t], each with its own β.
    pub(crate) fn product(&self, a: F, betas: [F; 2], into: &mut Parameters<F>) {
        self.product_of(0..self.tiles.len(), a, betas, into);
    }

    /// The gradient of layer t, times a, from its last number to its first, piece by piece. So are
    /// the tiles.
    pub(crate) fn layer_top_down(&self, t: usize, a: F, into: &mut Parameters<F>, top_down: &mut dyn TopDown<F>) {
        let neurons = 0..into.c[t].len();
        if !neurons.is_empty() {
            rows::bias_gradient(a, self.batch.operands(t, neurons).0, into.c[t].view_mut());
            top_down.take(in_one_piece(into.c[t].as_slice()));
        }
        for piece in pieces(t, into.w[t].nrows(), PIECE_UNIT) {
            self.product_of(self.tiles.of_rows(t, &piece), a, [F::ZERO; 2], into);
            top_down.take(in_one_piece(into.w[t].slice(s![piece, ..]).to_slice()));
            top_down.meanwhile();
        }
    }

    /// The product of some tiles.
    fn product_of(&self, tiles: Range<usize>, a: F, betas: [F; 2], into: &mut Parameters<F>) {
        let into = SharedParameters::new(into, self.tiles);
        let flops = self.tiles.flops(self.batch.samples) * tiles.len() / self.tiles.len();
        self.team.for_each_tile(tiles.len(), flops, &|index| {
            let tile = tiles.start + index;
            let mut own = into.claim(tile);
            let ParameterBlock { w, c } = own.write();
            let (t, rows) = self.tiles.layer_rows(tile);
            let (delta, z) = self.batch.operands(t, rows);
            rows::gradient(a, delta, z, betas, w, c);
        });
    }

    fn fused(&self, rule: &Rule, theta: &mut Parameters<F>) {
        let a = F::from_f64(-rule.eta / self.batch.samples as f64);
        self.product(a, [rule.decay.beta, rule.beta_of_biases()].map(F::from_f64), theta);
    }

    fn chunked(
        &self,
        rule: &Rule,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        buffers: &mut Buffers<F>,
    ) -> Option<f64> {
        let Buffers { gradient, gradient_tiles, moment_tiles, squares, .. } = buffers;
        let gradient = SharedParameters::new(gradient, gradient_tiles);
        let state = OptimizerState::new(theta, self.tiles, moments, moment_tiles);
        let (coefficients, squares) = (rule.coefficients(1.0), rule.norm.then_some(&squares[..]));
        self.for_each_chunk(&gradient, squares, &|tile, block, g| state.apply(&coefficients, tile, block, g));
        squares.map(|squares| sum(squares).sqrt())
    }

    fn clipped(
        &self,
        limit: f64,
        rule: &Rule,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        buffers: &mut Buffers<F>,
    ) -> f64 {
        let norm = self.gradient_norm(buffers);
        let coefficients = rule.coefficients(if norm > limit { limit / norm } else { 1.0 });
        let Buffers { gradient, gradient_tiles, moment_tiles, .. } = buffers;
        let gradient = SharedParameters::new(gradient, gradient_tiles);
        let state = OptimizerState::new(theta, self.tiles, moments, moment_tiles);
        self.for_each_tile(&|tile, block| state.apply(&coefficients, tile, block, gradient.claim(tile).block(block)));
        norm
    }

    /// Fills the buffers with the gradient, as far as they hold it, and returns ‖g‖.
    pub(crate) fn gradient_norm(&self, buffers: &mut Buffers<F>) -> f64 {
        let Buffers { gradient, gradient_tiles, squares, .. } = buffers;
        self.for_each_chunk(&SharedParameters::new(gradient, gradient_tiles), Some(squares), &|_, _, _| ());
        sum(squares).sqrt()
    }

    /// Calls `work(tile, all of it)` for each tile: a pass over the parameters without a product.
    pub(crate) fn for_each_tile(&self, work: &(dyn Fn(usize, &Block) + Sync)) {
        let flops = self.tiles.flops(PER_NUMBER / 2);
        self.team.for_each_tile(self.tiles.len(), flops, &|tile| work(tile, &self.tiles.whole(tile)));
    }

    /// Calls `visit(tile, block, the block's gradient)` for each chunk of each tile, and writes Σ
    /// g² of each tile to `squares`.
    fn for_each_chunk(&self, gradient: &SharedParameters<F>, squares: Option<&[AtomicU64]>, visit: &Visit<F>) {
        let Self { tiles, team, batch } = *self;
        let flops = tiles.flops(batch.samples + PER_NUMBER / 2);
        team.for_each_tile(tiles.len(), flops, &|tile| {
            let mut sum = 0.0;
            for_each_chunk_of(tile, tiles, batch, gradient, |block, mut g| {
                if squares.is_some() {
                    sum += g.squares();
                }
                visit(tile, block, g);
            });
            if let Some(squares) = squares {
                store(&squares[tile], sum);
            }
        });
    }
}

/// A function that receives a tile, a block of it, and the block's gradient.
type Visit<'a, F> = dyn Fn(usize, &Block, ParameterBlock<F>) + Sync + 'a;

/// Calls `visit(block, its gradient)` for each chunk of one tile, computed in the tile's part of
/// the buffer.
fn for_each_chunk_of<F: Scalar>(
    tile: usize,
    tiles: &ParameterTiles,
    batch: &BatchLayers<F>,
    buffer: &SharedParameters<F>,
    mut visit: impl FnMut(&Block, ParameterBlock<F>),
) {
    let mean = F::from_f64(1.0 / batch.samples as f64);
    let (t, tile_rows) = tiles.layer_rows(tile);
    let mut buffer = buffer.claim(tile);
    let (most_rows, most_columns) = buffer.write().w.dim();
    for rows in ranges(tile_rows.len(), most_rows) {
        let neurons = tile_rows.start + rows.start..tile_rows.start + rows.end;
        let (delta, z) = batch.operands(t, neurons);
        for columns in ranges(z.ncols(), most_columns) {
            let block = Block { rows: rows.clone(), columns };
            // The buffer holds one chunk at a time, in its first rows and columns.
            let mut g = buffer.block(&Block { rows: 0..rows.len(), columns: 0..block.columns.len() });
            if block.columns.start > 0 {
                g.c.slice_collapse(s![0..0]);
            }
            let z = slice_range(&z, Axis(1), &Some(block.columns.clone()));
            rows::gradient(mean, delta, z, [F::ZERO; 2], g.w.view_mut(), g.c.view_mut());
            visit(&block, g);
        }
    }
}

/// θ and the moments of the optimiser, whose tiles several threads write.
struct OptimizerState<'a, F> {
    theta: SharedParameters<'a, F>,
    /// v, or m.
    first: Option<SharedParameters<'a, F>>,
    /// v of Adam.
    second: Option<SharedParameters<'a, F>>,
}

impl<'a, F: Scalar> OptimizerState<'a, F> {
    fn new(
        theta: &'a mut Parameters<F>,
        tiles: &'a ParameterTiles,
        moments: &'a mut Moments<F>,
        moment_tiles: &'a [ParameterTiles; 2],
    ) -> Self {
        let mut shared = moments.arrays.iter_mut().zip(moment_tiles).map(|(m, tiles)| SharedParameters::new(m, tiles));
        let (first, second) = (shared.next(), shared.next());
        Self { theta: SharedParameters::new(theta, tiles), first, second }
    }

    /// The optimiser's rule on a block, with its gradient.
    fn apply(&self, coefficients: &Coefficients<F>, tile: usize, block: &Block, mut g: ParameterBlock<F>) {
        let mut theta = self.theta.claim(tile);
        let mut theta = theta.block(block);
        let mut first = self.first.as_ref().map(|first| first.claim(tile));
        let mut first = first.as_mut().map(|first| first.block(block));
        let mut second = self.second.as_ref().map(|second| second.claim(tile));
        let mut second = second.as_mut().map(|second| second.block(block));
        let of_biases = coefficients.of_biases();
        match (&mut first, &mut second) {
            (Some(first), Some(second)) => {
                let w = [g.w.view_mut(), first.w.view_mut(), second.w.view_mut(), theta.w.view_mut()];
                for_each_run(w, |[g, first, second, theta]| coefficients.apply(g, first, second, theta));
                of_biases.apply(g.c(), first.c(), second.c(), theta.c());
            }
            (Some(first), None) => {
                let w = [g.w.view_mut(), first.w.view_mut(), theta.w.view_mut()];
                for_each_run(w, |[g, first, theta]| coefficients.apply(g, first, &mut [], theta));
                of_biases.apply(g.c(), first.c(), &mut [], theta.c());
            }
            _ => {
                let w = [g.w.view_mut(), theta.w.view_mut()];
                for_each_run(w, |[g, theta]| coefficients.apply(g, &mut [], &mut [], theta));
                of_biases.apply(g.c(), &mut [], &mut [], theta.c());
            }
        }
    }
}
