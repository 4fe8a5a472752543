//! The last phase of a step: θ ← what the optimiser's rule makes of it and of the gradient, tile by
//! tile.
//!
//! ```text
//! plain      w ← β w + G,  G = Δᵀ Z, Δ scaled by −η/B         in one product; nothing is stored
//! by rule    G = Δᵀ Z, Δ scaled by 1/B                        chunk by chunk; each stays in cache,
//!            m, v, w ← rule(G, m, v, w)                       and is used at once
//! stored     G and ‖G‖; then m, v, w ← rule(s G, m, v, w)     s = min(1, c / ‖G‖)
//! ```

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::kernels::number::Number;
use crate::kernels::operands::{ADD_DEPTH, End, Left, Product, Right, Start};
use crate::kernels::panels::{PanelsMut, PanelsRef, numbers, numbers_mut, panel_range};
use crate::kernels::sums::SAMPLE_BLOCK;
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::plan::{PER_NUMBER, Part, UpdateTiles};
use crate::network::parameters::Parameters;
use crate::optim::rule::Coefficients;
use crate::parallel::panel_set::{PanelSet, RegionGuard, RegionTable};
use crate::parallel::per_tile::store;
use crate::parallel::team::ActiveTeam;
use crate::steps::top_down::TopDown;

/// Rows of a panel whose gradient is computed at once: with as many of θ and the moments they stay
/// in the L1 cache.
const CHUNK: usize = 96;

/// What becomes of the gradient.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sink<F> {
    /// w ← β w + g
    Plain { theta: Theta, beta: F, beta_of_biases: F },
    /// θ and the moments ← the rule of an optimiser: its coefficients for w, and those for c.
    Rule { theta: Theta, moments: [Option<Theta>; 2], coefficients: [Coefficients<F>; 2] },
    /// `into` = g, or += g.
    Store { into: Theta, add: bool },
}

impl<F: Scalar> Sink<F> {
    /// Takes the gradient g of the numbers at a place of the tile.
    pub(crate) fn take(&self, guard: &mut RegionGuard<F>, place: &Place, g: &[F]) {
        match self {
            Self::Plain { theta, beta, beta_of_biases } => {
                let beta = if place.of_bias { *beta_of_biases } else { *beta };
                plain(beta, g, place.of(&mut guard.write(place.matrix(*theta))));
            }
            Self::Store { into, add } => {
                let mut into = guard.write(place.matrix(*into));
                let into = place.of(&mut into);
                if *add {
                    into.iter_mut().zip(g).for_each(|(into, &g)| *into += g);
                } else {
                    into.copy_from_slice(g);
                }
            }
            Self::Rule { theta, moments: [None, _], coefficients } => {
                coefficients[usize::from(place.of_bias)].apply(
                    g,
                    &mut [],
                    &mut [],
                    place.of(&mut guard.write(place.matrix(*theta))),
                );
            }
            Self::Rule { theta, moments: [Some(m), None], coefficients } => {
                let [mut m, mut w] = guard.write_all([*m, *theta].map(|of| place.matrix(of)));
                coefficients[usize::from(place.of_bias)].apply(g, place.of(&mut m), &mut [], place.of(&mut w));
            }
            Self::Rule { theta, moments: [Some(m), Some(v)], coefficients } => {
                let [mut m, mut v, mut w] = guard.write_all([*m, *v, *theta].map(|of| place.matrix(of)));
                coefficients[usize::from(place.of_bias)].apply(g, place.of(&mut m), place.of(&mut v), place.of(&mut w));
            }
        }
    }
}

/// Some rows of a panel in a tile's region of w[t] or c[t].
pub(crate) struct Place {
    t: usize,
    of_bias: bool,
    panel: usize,
    rows: Range<usize>,
}

impl Place {
    fn matrix(&self, of: Theta) -> usize {
        if self.of_bias { of.c(self.t) } else { of.w(self.t) }
    }

    fn of<'a, F: Number>(&self, region: &'a mut PanelsMut<F>) -> &'a mut [F] {
        numbers_mut(&mut region.panel(self.panel)[self.rows.clone()])
    }
}

/// w ← β w + g
fn plain<F: Scalar>(beta: F, g: &[F], w: &mut [F]) {
    let numbers = w.iter_mut().zip(g);
    if beta == F::ONE {
        numbers.for_each(|(w, &g)| *w += g);
    } else {
        numbers.for_each(|(w, &g)| *w = beta * *w + g);
    }
}

/// A function that receives a claimed tile, a place of it, and the gradient there.
type WithGradient<'a, F> = dyn Fn(&mut RegionGuard<F>, &Place, &[F]) + Sync + 'a;

/// An update from the layers of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Update<'a> {
    pub(crate) layers: Layers,
    pub(crate) tiles: &'a UpdateTiles,
    pub(crate) samples: usize,
}

impl Update<'_> {
    /// Computes the gradient of all of θ and gives it to a sink. The table's tiles write what the
    /// sink writes. `squares` receives Σ g² of each tile.
    pub(crate) fn run<F: Scalar>(
        &self,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        table: &RegionTable,
        sink: &Sink<F>,
        squares: Option<&[AtomicU64]>,
    ) {
        self.run_tiles(0..table.len(), team, set, table, sink, squares, || ());
    }

    /// The same for some tiles, with a call of `between` on this thread after each that it has run.
    #[expect(clippy::too_many_arguments, reason = "of one caller")]
    fn run_tiles<F: Scalar>(
        &self,
        tiles: Range<usize>,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        table: &RegionTable,
        sink: &Sink<F>,
        squares: Option<&[AtomicU64]>,
        between: impl FnMut(),
    ) {
        let shared = set.share(table);
        let tile = |index| {
            let (index, mut of_tile) = (tiles.start + index, 0.0);
            self.tile(index, &mut shared.claim(index), sink, squares.is_some().then_some(&mut of_tile));
            if let Some(squares) = squares {
                store(&squares[index], of_tile);
            }
        };
        let flops = self.tiles.flops / table.len() * tiles.len();
        team.for_each_tile_and_between(tiles.len(), flops, &tile, between);
    }

    /// Stores the gradient of layer t in `gradient` and in `into`, from its last number to its
    /// first. So are the tiles, of one part each.
    pub(crate) fn layer_top_down<F: Scalar>(
        &self,
        t: usize,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        table: &RegionTable,
        (gradient, into): (Theta, &mut Parameters<F>),
        top_down: &mut dyn TopDown<F>,
    ) {
        let sink = Sink::Store { into: gradient, add: false };
        let mut first = self.tiles.of_layer(t).start;
        // The tiles of the same rows lie one after another.
        let place = |parts: &[Part]| (parts[0].rows.clone(), parts[0].has_bias);
        for tiles in self.tiles.tiles[self.tiles.of_layer(t)].chunk_by(|a, b| place(a) == place(b)) {
            self.run_tiles(first..first + tiles.len(), team, set, table, &sink, None, || top_down.meanwhile());
            first += tiles.len();
            top_down.take(match place(&tiles[0]) {
                (_, true) => gradient.store_biases(set, t, into),
                (rows, false) => gradient.store_rows(set, t, rows, into),
            });
        }
    }

    /// The gradient of a tile, whose Σ g² is added to `sum`.
    pub(crate) fn tile<F: Scalar>(
        &self,
        index: usize,
        guard: &mut RegionGuard<F>,
        sink: &Sink<F>,
        mut sum: Option<&mut f64>,
    ) {
        for part in &self.tiles.tiles[index] {
            self.part(part, guard, sink, sum.as_deref_mut());
        }
    }

    /// The gradient of a part, whose Σ g² is added to `sum`.
    pub(crate) fn part<F: Scalar>(
        &self,
        part: &Part,
        guard: &mut RegionGuard<F>,
        sink: &Sink<F>,
        mut sum: Option<&mut f64>,
    ) {
        let delta = guard.read(self.layers.delta(part.t + 1));
        let z = guard.read(self.layers.z(part.t)).part(part.panels.clone(), 0..self.samples);
        let of_rows = delta.part(panel_range::<F>(&part.rows), 0..self.samples);
        match *sink {
            Sink::Plain { theta, beta, .. } if sum.is_none() && self.samples <= ADD_DEPTH => {
                plain_product(of_rows, z, beta, guard.write(theta.w(part.t)), part.rows.len());
            }
            _ => self.chunks([[of_rows, z]], part, |place, g| {
                if let Some(sum) = &mut sum {
                    **sum += squares::<F>(g);
                }
                sink.take(guard, place, numbers(g));
            }),
        }
        self.bias(delta, part, |place, g| {
            if let Some(sum) = &mut sum {
                **sum += squares::<F>(g);
            }
            sink.take(guard, place, numbers(g));
        });
    }

    /// Calls `take(place, gradient)` for each line of a part of c[t].
    pub(crate) fn bias<F: Scalar>(&self, delta: PanelsRef<F>, part: &Part, mut take: impl FnMut(&Place, &[F::Line])) {
        if part.has_bias {
            for (place, panel) in panel_range::<F>(&part.rows).enumerate() {
                let mut g = [F::ZEROS];
                F::kernels().bias_sums(delta.part(panel..panel + 1, 0..self.samples), &mut g);
                take(&Place { t: part.t, of_bias: true, panel: 0, rows: place..place + 1 }, &g);
            }
        }
    }

    /// Calls `take(place, gradient)` for chunk after chunk of a part of w[t], whose gradient is the
    /// sum of terms Δᵀ Z.
    pub(crate) fn chunks<'p, F: Scalar, const TERMS: usize>(
        &self,
        terms: [[PanelsRef<'p, F>; 2]; TERMS],
        part: &Part,
        mut take: impl FnMut(&Place, &[F::Line]),
    ) {
        let mut buffer = [F::ZEROS; CHUNK];
        for panel in 0..part.panels.len() {
            for first in (0..part.rows.len()).step_by(CHUNK) {
                let rows = first..(first + CHUNK).min(part.rows.len());
                let g = &mut buffer[..rows.len()];
                let of_chunk = |[delta, z]: [PanelsRef<'p, F>; 2]| {
                    let of_rows = delta.part(panel_range::<F>(&rows), 0..self.samples);
                    [of_rows, z.part(panel..panel + 1, 0..self.samples)]
                };
                gradient(&terms.map(of_chunk), g);
                take(&Place { t: part.t, of_bias: false, panel, rows }, g);
            }
        }
    }

    /// Gives a gradient that was stored before to a sink.
    pub(crate) fn take_stored<F: Scalar>(
        &self,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        table: &RegionTable,
        gradient: Theta,
        sink: &Sink<F>,
    ) {
        self.for_each_stored(team, set, table, gradient, &|guard, place, g| sink.take(guard, place, g));
    }

    /// `uphill` ← θ + step · g
    pub(crate) fn move_uphill<F: Scalar>(
        &self,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        table: &RegionTable,
        (theta, gradient, uphill): (Theta, Theta, Theta),
        step: F,
    ) {
        self.for_each_stored(team, set, table, gradient, &|guard, place, g| {
            let region = guard.region(place.matrix(uphill));
            let from = guard.read(place.matrix(theta)).part(region.panels.clone(), region.rows.clone());
            let from = numbers::<F>(&from.panel(place.panel)[place.rows.clone()]);
            let mut to = guard.write(place.matrix(uphill));
            let to = place.of(&mut to).iter_mut().zip(from.iter().zip(g));
            to.for_each(|(to, (&from, &g))| *to = from + step * g);
        });
    }

    /// Calls `work(guard, place, gradient)` for all places of all tiles.
    fn for_each_stored<F: Scalar>(
        &self,
        team: &ActiveTeam,
        set: &mut PanelSet<F>,
        table: &RegionTable,
        gradient: Theta,
        work: &WithGradient<F>,
    ) {
        let shared = set.share(table);
        let flops = self.tiles.flops / self.samples * PER_NUMBER;
        team.for_each_tile(table.len(), flops, &|index| {
            let mut guard = shared.claim(index);
            for part in &self.tiles.tiles[index] {
                let g = guard.read(gradient.w(part.t)).part(part.panels.clone(), part.rows.clone());
                for panel in 0..part.panels.len() {
                    let place = Place { t: part.t, of_bias: false, panel, rows: 0..part.rows.len() };
                    work(&mut guard, &place, numbers(g.panel(panel)));
                }
                if part.has_bias {
                    let lines = panel_range::<F>(&part.rows);
                    let place = Place { t: part.t, of_bias: true, panel: 0, rows: 0..lines.len() };
                    let g = guard.read(gradient.c(part.t));
                    work(&mut guard, &place, numbers(&g.panel(0)[lines]));
                }
            }
        });
    }
}

/// w ← β w + Δᵀ Z, on some rows.
fn plain_product<F: Scalar>(delta: PanelsRef<F>, z: PanelsRef<F>, beta: F, mut w: PanelsMut<F>, rows: usize) {
    let (panels, depth) = (w.panels(), z.rows());
    F::kernels().product(Product {
        a: Left::Columns(delta),
        b: Right::Panels(z),
        c: w.part(0..panels, 0..rows),
        columns: panels * F::LINE,
        depth,
        start: Start::Zero,
        end: End::AddTo(beta),
    });
}

/// g = Σ Δᵀ Z over the terms, as many rows of one panel as g has lines: a chain through all terms
/// for each block of samples.
fn gradient<F: Scalar>(terms: &[[PanelsRef<F>; 2]], g: &mut [F::Line]) {
    let rows = terms[0][1].rows();
    let product = |first: usize, g: &mut [F::Line]| {
        let samples = first..(first + SAMPLE_BLOCK).min(rows);
        let mut start = Start::Zero;
        for [delta, z] in terms {
            F::kernels().product(Product {
                a: Left::Columns(delta.part(0..delta.panels(), samples.clone())),
                b: Right::Panels(z.part(0..1, samples.clone())),
                c: PanelsMut::<F>::of_lines(g),
                columns: F::LINE,
                depth: samples.len(),
                start,
                end: End::Store,
            });
            start = Start::C;
        }
    };
    product(0, g);
    if rows > SAMPLE_BLOCK {
        let mut block = [F::ZEROS; CHUNK];
        let block = &mut block[..g.len()];
        for first in (SAMPLE_BLOCK..rows).step_by(SAMPLE_BLOCK) {
            product(first, block);
            let numbers = numbers_mut::<F>(g).iter_mut().zip(numbers::<F>(block));
            numbers.for_each(|(sum, &block)| *sum += block);
        }
    }
}

/// Σ a² in double precision: for each place in a line over the lines in order, then over the
/// places.
fn squares<F: Scalar>(lines: &[F::Line]) -> f64 {
    const MOST: usize = 16;
    let mut sums = [0.0; MOST];
    for line in numbers::<F>(lines).chunks_exact(F::LINE) {
        sums.iter_mut().zip(line).for_each(|(sum, a)| *sum += a.to_f64() * a.to_f64());
    }
    sums[..F::LINE].iter().sum()
}
