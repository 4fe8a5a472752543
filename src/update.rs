//! The last phase of a step: θ ← what the rule makes of it and of the gradient, over tiles of rows of all w[t] and c[t].
//!
//! ```text
//! plain      w ← −(η/B) Δᵀ Z + β w                 one product: no gradient is stored; β = 1 − ηλ, see `optimizer`
//! tall       G ← (1/B) Δᵀ Z, w ← β w − η G          plain too: of many samples, where the pass costs next to nothing and ‖G‖ comes free
//! moments    G ← (1/B) Δᵀ Z                         of a chunk of rows, which stays in cache,
//!            m, v, w ← rule(G, m, v, w)             and is used at once: one pass over the parameters
//! clipped    G ← (1/B) Δᵀ Z, ‖G‖                    all of it, for its norm is needed first;
//!            m, v, w ← rule(s G, m, v, w)           s = min(1, c / ‖G‖)
//! sharpness  w ← w + ρ G / ‖G‖, another pass through the layers, w back, and one of the above
//! ```

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{Array1, Array2, ArrayView2, Axis, Ix1, Ix2, s};

use crate::blas::{Claimed, SharedTiles, Tile};
use crate::network::Parameters;
use crate::optimizer::{Moments, Numbers, Optimizer, Rule, largest};
use crate::rows::{self, part};
use crate::scalar::Scalar;
use crate::schedule::{Names, PER_NUMBER, Update, chunk_rows, sum, tiles, zeros};
use crate::threads::Assembled;

/// What the gradient of a batch is made of: Z and Δ in the first rows of the layers, Z[0] perhaps where it lies.
pub(crate) struct Batch<'a, F> {
    pub(crate) layers: &'a [Array2<F>],
    pub(crate) z_0: Option<ArrayView2<'a, F>>,
    pub(crate) samples: usize,
}

impl<F: Scalar> Batch<'_, F> {
    /// Some columns of Δ[t+1], and Z[t]: their product is the gradient of those rows of w[t].
    fn operands(&self, t: usize, neurons: Range<usize>) -> (ArrayView2<'_, F>, ArrayView2<'_, F>) {
        let names = Names { depth: self.layers.len() / 2 - 1 };
        let batch = Some(0..self.samples);
        let delta = &self.layers[names.delta(t + 1)];
        let z = match &self.z_0 {
            Some(z) if t == 0 => z.view(),
            _ => part(&self.layers[names.z(t)], Axis(0), &batch),
        };
        if neurons.len() == delta.ncols() {
            (part(delta, Axis(0), &batch), z)
        } else {
            (delta.slice(s![..self.samples, neurons]), z)
        }
    }
}

/// What rules beyond plain descent need.
#[derive(Debug)]
pub(crate) struct Beyond<F> {
    /// Tiles of the moments.
    moments: [Update; 2],
    /// A place for each tile's gradient: for a chunk of its rows, or for all of them.
    gradient: Parameters<F>,
    of_gradient: Update,
    /// Is there room for all of it?
    whole: bool,
    /// θ while it is moved away, for sharpness-aware minimisation.
    saved: Option<(Parameters<F>, Update)>,
    /// Σ g² of each tile.
    squares: Vec<AtomicU64>,
}

impl<F: Scalar> Beyond<F> {
    fn new(update: &Update, theta: &Parameters<F>, whole: bool) -> Self {
        let (mut gradient, mut tiles) = (Parameters { w: Vec::new(), c: Vec::new() }, (Vec::new(), Vec::new()));
        for tile in 0..update.w.len() {
            let (w, c) = (update.w.tile(tile), update.c.tile(tile));
            let columns = theta.w[w.arrays.start].ncols();
            let most = if whole { usize::MAX } else { chunk_rows(columns) };
            let (w_rows, c_rows) = (w.rows.len().min(most), c.rows.len().min(most));
            gradient.w.push(Array2::from_elem((w_rows, columns), F::ZERO));
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
            saved: None,
            squares: zeros(update.w.len()),
        }
    }
}

/// θ, or arrays like it, shared by tiles.
struct Shared<'a, F> {
    w: SharedTiles<'a, F, Ix2>,
    c: SharedTiles<'a, F, Ix1>,
}

impl<'a, F: Scalar> Shared<'a, F> {
    fn new(parameters: &'a mut Parameters<F>, tiles: &'a Update) -> Self {
        Self { w: SharedTiles::new(&mut parameters.w, &tiles.w), c: SharedTiles::new(&mut parameters.c, &tiles.c) }
    }

    fn claim(&self, tile: usize) -> Own<'_, 'a, F> {
        Own { w: self.w.claim(tile), c: self.c.claim(tile) }
    }
}

/// A tile of it that this thread alone may write.
struct Own<'s, 'a, F> {
    w: Claimed<'s, 'a, F, Ix2>,
    c: Claimed<'s, 'a, F, Ix1>,
}

impl<F: Scalar> Own<'_, '_, F> {
    /// Some of the tile's rows: of w, and of c where there is one.
    fn rows(&mut self, rows: &Range<usize>) -> [&mut [F]; 2] {
        let array = self.w.tile().arrays.start;
        let w = self.w.write(array);
        let columns = w.ncols();
        let [w, c] = [w.into_slice(), self.c.write(array).into_slice()].map(|p| p.expect("rows lie one after another"));
        [&mut w[rows.start * columns..rows.end * columns], if c.is_empty() { c } else { &mut c[rows.clone()] }]
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

/// Is the batch much taller than the layers are wide? To store the gradient and to pass over the
/// parameters takes a few operations for each of them, and the step 6 for each of them and each
/// sample. Shapes alone decide, so that a step has the same bits with the norm of its gradient and
/// without.
fn is_tall<F: Scalar>(theta: &Parameters<F>, samples: usize) -> bool {
    samples >= TALL && theta.w.iter().all(|w| samples >= 4 * w.nrows().max(w.ncols()))
}

/// Below so many samples even the pass over a small network is no trifle.
const TALL: usize = 256;

/// Is given a tile, some of its rows, and their gradient: of w, and of c where there is one.
type Visit<'a, F> = dyn Fn(usize, &Range<usize>, [&mut [F]; 2]) + Sync + 'a;

impl Update {
    /// w[t] ← a Δ[t+1]ᵀ Z[t] + β w[t] and c[t] ← a Δ[t+1]ᵀ 1 + β c[t].
    pub(crate) fn run<F: Scalar>(
        &self,
        crew: &Assembled,
        batch: &Batch<F>,
        (a, beta): (F, F),
        into: &mut Parameters<F>,
    ) {
        let into = Shared::new(into, self);
        crew.for_each_tile(self.w.len(), batch.samples * self.flops, &|index| {
            let Own { mut w, mut c } = into.claim(index);
            let Tile { arrays, rows, .. } = w.tile().clone();
            let t = arrays.start;
            let (delta, z) = batch.operands(t, rows);
            rows::gradient(a, delta, z, beta, w.write(t), c.write(t));
        });
    }

    /// One step by a rule. Returns ‖g‖, if the rule asks for it or needs it.
    pub(crate) fn step<F: Scalar>(
        &self,
        crew: &Assembled,
        batch: &Batch<F>,
        rule: &Rule,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        beyond: &mut Option<Beyond<F>>,
    ) -> Option<f64> {
        let plain = rule.optimizer == Optimizer::Sgd && rule.clip.is_none() && !is_tall(theta, batch.samples);
        let descend = |theta: &mut Parameters<F>| {
            let a = F::from_f64(-rule.eta / batch.samples as f64);
            self.run(crew, batch, (a, F::from_f64(rule.decay.beta)), theta);
        };
        if plain && !rule.norm {
            descend(theta);
            return None;
        }
        let beyond = self.beyond(rule, theta, beyond);
        let Beyond { moments: of_moments, gradient, of_gradient, squares, .. } = beyond;
        let gradient = Shared::new(gradient, of_gradient);
        let squares = squares.as_slice();
        if plain {
            self.chunks(crew, batch, &gradient, Some(squares), &|_, _, _| ());
            descend(theta);
            return Some(sum(squares).sqrt());
        }
        let mut arrays = moments.arrays.iter_mut().zip(of_moments).map(|(array, tiles)| Shared::new(array, tiles));
        let (first, second) = (arrays.next(), arrays.next());
        let theta = Shared::new(theta, self);
        let apply = |numbers: &Numbers<F>, tile: usize, rows: &Range<usize>, g: [&mut [F]; 2]| {
            let mut theta = theta.claim(tile);
            let [mut first, mut second] = [&first, &second].map(|array| array.as_ref().map(|array| array.claim(tile)));
            let none = || [&mut [][..], &mut [][..]];
            let first = first.as_mut().map_or_else(none, |array| array.rows(rows));
            let second = second.as_mut().map_or_else(none, |array| array.rows(rows));
            for (((g, first), second), theta) in g.into_iter().zip(first).zip(second).zip(theta.rows(rows)) {
                numbers.apply(g, first, second, theta);
            }
        };
        match rule.clip {
            None => {
                let (numbers, squares) = (rule.numbers(1.0), rule.norm.then_some(squares));
                self.chunks(crew, batch, &gradient, squares, &|tile, rows, g| apply(&numbers, tile, rows, g));
                squares.map(|squares| sum(squares).sqrt())
            }
            Some(most) => {
                self.chunks(crew, batch, &gradient, Some(squares), &|_, _, _| ());
                let norm = sum(squares).sqrt();
                let numbers = rule.numbers(if norm > most { most / norm } else { 1.0 });
                self.pass(crew, &|tile, rows| apply(&numbers, tile, rows, gradient.claim(tile).rows(rows)));
                Some(norm)
            }
        }
    }

    /// What this rule needs, kept from the last step or made.
    fn beyond<'b, F: Scalar>(
        &self,
        rule: &Rule,
        theta: &Parameters<F>,
        beyond: &'b mut Option<Beyond<F>>,
    ) -> &'b mut Beyond<F> {
        // Of plain descent as well: a product for each chunk of a tile, and not for all of it,
        // copies Z as often.
        let whole = rule.clip.is_some() || rule.sam.is_some() || rule.optimizer == Optimizer::Sgd;
        if beyond.as_ref().is_none_or(|beyond| beyond.whole != whole) {
            *beyond = None;
        }
        beyond.get_or_insert_with(|| Beyond::new(self, theta, whole))
    }

    /// θ ← θ + ρ g / ‖g‖; θ as it was is kept for [`move_back`](Self::move_back). Returns ‖g‖; if that is not finite, θ has not moved.
    pub(crate) fn move_uphill<F: Scalar>(
        &self,
        crew: &Assembled,
        batch: &Batch<F>,
        (rule, rho): (&Rule, f64),
        theta: &mut Parameters<F>,
        beyond: &mut Option<Beyond<F>>,
    ) -> f64 {
        let Beyond { gradient, of_gradient, squares, saved, .. } = self.beyond(rule, theta, beyond);
        let (saved, of_saved) = saved.get_or_insert_with(|| (theta.zeros_like(), self.like()));
        self.chunks(crew, batch, &Shared::new(gradient, of_gradient), Some(squares), &|_, _, _| ());
        let norm = sum(squares).sqrt();
        if !norm.is_finite() {
            return norm;
        }
        // Only g's direction counts: where ‖g‖ or ρ/‖g‖ leaves the range of the numbers, g is first made of ordinary length.
        let fine = norm > LEAST_NORM && (LEAST_NORMAL / F::MAX..F::MAX).contains(&(rho / norm));
        let length = if fine { norm } else { scale_to_1(gradient) };
        // A gradient of 0 has no direction.
        let step = F::from_f64(if length > 0.0 { rho / length } else { 0.0 });
        let gradient = Shared::new(gradient, of_gradient);
        let (theta, saved) = (Shared::new(theta, self), Shared::new(saved, of_saved));
        self.pass(crew, &|tile, rows| {
            let (mut theta, mut saved, mut gradient) = (theta.claim(tile), saved.claim(tile), gradient.claim(tile));
            for ((theta, saved), g) in theta.rows(rows).into_iter().zip(saved.rows(rows)).zip(gradient.rows(rows)) {
                saved.copy_from_slice(theta);
                theta.iter_mut().zip(g).for_each(|(theta, g)| *theta += step * *g);
            }
        });
        norm
    }

    /// θ as it was before [`move_uphill`](Self::move_uphill).
    pub(crate) fn move_back<F: Scalar>(
        &self,
        crew: &Assembled,
        theta: &mut Parameters<F>,
        beyond: &mut Option<Beyond<F>>,
    ) {
        let Some((saved, of_saved)) = beyond.as_mut().and_then(|beyond| beyond.saved.as_mut()) else { return };
        let (theta, saved) = (Shared::new(theta, self), Shared::new(saved, of_saved));
        self.pass(crew, &|tile, rows| {
            let (mut theta, mut saved) = (theta.claim(tile), saved.claim(tile));
            let both = theta.rows(rows).into_iter().zip(saved.rows(rows));
            both.for_each(|(theta, saved)| theta.copy_from_slice(saved));
        });
    }

    /// `work(tile, all its rows)` for each tile: a pass over the parameters without a product.
    fn pass(&self, crew: &Assembled, work: &(dyn Fn(usize, &Range<usize>) + Sync)) {
        crew.for_each_tile(self.w.len(), PER_NUMBER * self.flops / 2, &|tile| {
            work(tile, &(0..self.w.tile(tile).rows.len()));
        });
    }

    /// `visit(tile, rows of it, their gradient)` for each chunk of each tile; Σ g² of each tile where it is asked for.
    fn chunks<F: Scalar>(
        &self,
        crew: &Assembled,
        batch: &Batch<F>,
        gradient: &Shared<F>,
        squares: Option<&[AtomicU64]>,
        visit: &Visit<F>,
    ) {
        let mean = F::from_f64(1.0 / batch.samples as f64);
        crew.for_each_tile(self.w.len(), (batch.samples + PER_NUMBER / 2) * self.flops, &|index| {
            let Tile { arrays, rows: of_tile, .. } = self.w.tile(index);
            let mut own = gradient.claim(index);
            let at_once = own.w.tile().rows.len();
            let mut sum = 0.0;
            for rows in tiles(of_tile.len(), at_once) {
                let neurons = of_tile.start + rows.start..of_tile.start + rows.end;
                let (delta, z) = batch.operands(arrays.start, neurons);
                let mut w = own.w.write(index);
                let w = w.slice_axis_mut(Axis(0), (0..rows.len()).into());
                let mut c = own.c.write(index);
                let c = if c.is_empty() { c } else { c.slice_axis_mut(Axis(0), (0..rows.len()).into()) };
                rows::gradient(mean, delta, z, F::ZERO, w, c);
                let g = own.rows(&(0..rows.len()));
                if squares.is_some() {
                    sum += rows::squares(g[0]) + rows::squares(g[1]);
                }
                visit(index, &rows, g);
            }
            if let Some(squares) = squares {
                squares[index].store(sum.to_bits(), Ordering::Relaxed);
            }
        });
    }
}
