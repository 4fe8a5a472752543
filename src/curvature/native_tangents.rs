//! Products with the Hessian on the native engine: the tangent pass on panels.
//!
//! The equations stand in [`Hessian`](crate::curvature::Hessian). Each number is one chain (as
//! defined at the head of [`kernels`](crate::kernels)) that goes through both products of its
//! equation, first along the direction and then along what the direction has moved; in a layer of
//! which one of them is 0 it goes through the other alone. With s = 1/n:
//!
//! ```text
//! R u[t+1]_j  = chain(start v_c[t]_j,  v[t]_ji, z[t]_i;      then w[t]_ji, R z[t]_i)
//! R ∂         = s (∂²ℓ/∂ŷ²) R ŷ                              and ∂ has the factor s, too
//! R δ[t]_i    = chain(start 0,         δ[t+1]_j, v[t]_ji;    then R δ[t+1]_j, w[t]_ji)
//! (H v)[t]_ji = chain(start 0,         R δ[t+1]_bj, z[t]_bi; then δ[t+1]_bj, R z[t]_bi)
//! ```
//!
//! The last one is over the samples b of a block; the sums of blocks are added in order. A block
//! has as many samples as one chain of a gradient, so the gradient is that of the engine.

use std::ops::Range;

use crate::curvature::inputs::BLOCK;
use crate::kernels::operands::{End, Left, Product, Right, Start};
use crate::kernels::panels::{PanelsMut, PanelsRef, numbers, numbers_mut, panel_range, panels_of};
use crate::kernels::sums::SAMPLE_BLOCK;
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::pass::{Pass, Tile};
use crate::native::plan::{Operation, Part, Phase, Plan, Shape, TileShape, Until, UpdateTiles};
use crate::native::update::{Place, Sink, Update};
use crate::network::parameters::Parameters;
use crate::parallel::panel_set::{PanelSet, Region, RegionGuard, RegionTable};
use crate::parallel::team::max_threads;
use crate::parallel::team::{ActiveTeam, Team};
use crate::parallel::workload::Workload;
use crate::steps::blocks::ranges;
use crate::steps::samples::AnySamples;

const _: () = assert!(BLOCK == SAMPLE_BLOCK, "a block is one chain");

/// Z and Δ of all samples, once [`gradient`](Self::gradient) has made them, and what products with
/// the Hessian need beside them.
#[derive(Debug)]
pub(crate) struct NativePasses<F: Scalar> {
    widths: Vec<usize>,
    samples: usize,
    set: PanelSet<F>,
    theta: Theta,
    v: Theta,
    /// The gradient, and later H v.
    sum: Theta,
    /// The layers of each block of samples.
    blocks: Vec<Layers>,
    /// R Z and R Δ of one block, without R Z[0] = 0.
    tangents: Layers,
    /// What is cut for a whole block and for the last block, if that is smaller.
    cuts: Vec<Cut>,
    team: Team,
}

/// What is cut for blocks of one size.
#[derive(Debug)]
struct Cut {
    /// Of the tangent pass.
    plan: Plan,
    tiles: UpdateTiles,
    /// Of the tiles that write the sum.
    table: RegionTable,
}

impl Cut {
    /// The work of a product with the Hessian.
    fn workload(&self) -> Workload {
        2 * (self.plan.workload() + self.tiles.workload())
    }
}

impl<F: Scalar> NativePasses<F> {
    /// Matrices for `samples` samples of a network with these parameters.
    pub(crate) fn new(widths: &[usize], theta: &Parameters<F>, samples: usize) -> Self {
        let (mut set, from) = (PanelSet::new(Vec::new()), theta);
        let [theta, v, sum] = [(); 3].map(|()| Theta::push(&mut set, from));
        theta.load(&mut set, from);
        let block = samples.min(BLOCK);
        let mut sizes = vec![block, samples % block];
        sizes.retain(|&samples| samples > 0);
        let transposed = |t, samples: usize| Shape::new(widths, samples.into()).has_transposed(t);
        let blocks = ranges(samples, block)
            .map(|rows| Layers::push_some(&mut set, widths, rows.len(), &|t| [true, transposed(t, rows.len())]));
        let blocks = blocks.collect();
        let any_transposed = |t| sizes.iter().any(|&samples| transposed(t, samples));
        let tangents = Layers::push_some(&mut set, widths, block, &|t| [t > 0, t > 0 && any_transposed(t)]);
        let biases: Vec<bool> = from.c.iter().map(|c| !c.is_empty()).collect();
        let cut = |&samples: &usize| {
            let depth = widths.len() - 2;
            let forward = (0..=depth).map(Operation::Forward);
            let backward = (1..=depth).rev().map(Operation::Backward);
            let operations = forward.chain([Operation::Loss]).chain(backward).collect();
            let tiles = UpdateTiles::new::<F>(widths, &biases, samples);
            let plan = Plan::of(&set, tangents, Shape::new(widths, samples.into()), operations, max_threads());
            Cut { plan, table: tiles.table(&set, &[sum]), tiles }
        };
        let cuts = sizes.iter().map(cut).collect();
        Self { widths: widths.to_vec(), samples, theta, v, sum, blocks, tangents, cuts, set, team: Team::default() }
    }

    /// Makes Z and Δ of all samples. `into` = s Σ ∂ℓ/∂θ. Returns Σ ℓ.
    pub(crate) fn gradient(&mut self, data: &AnySamples<F>, s: F, into: &mut Parameters<F>) -> f64 {
        let Self { widths, samples, set, theta, sum, blocks, cuts, team, .. } = self;
        let blocks = || ranges(*samples, BLOCK).zip(&*blocks);
        // Each plan is for one block's layers, and runs once.
        let plan = |(rows, &layers): (Range<usize>, &Layers)| {
            Plan::new(set, layers, widths, data.size(rows.len()), Until::Gradient)
        };
        let plans: Vec<Plan> = blocks().map(plan).collect();
        let work = |plan: &Plan| plan.workload() + cut_of(cuts, plan.samples()).tiles.workload();
        let loss = team.enter(plans.len() * work(&plans[0]), |team| {
            let losses = blocks().zip(&plans).map(|((rows, &layers), plan)| {
                team.step(work(plan), || {
                    let first = rows.start;
                    let pass = Pass { layers, theta: *theta, samples: data, first, scale: s, watched: false };
                    let loss = pass.run(plan, team, set);
                    let Cut { tiles, table, .. } = cut_of(cuts, rows.len());
                    let sink = Sink::Store { into: *sum, add: first > 0 };
                    Update { layers, tiles, samples: rows.len() }.run(team, set, table, &sink, None);
                    loss
                })
            });
            losses.sum()
        });
        sum.store(set, into);
        loss
    }

    /// `hv` = H v, where `curvature(i, ŷ, v, hv)` writes (∂²ℓ/∂ŷ²) v of sample i into hv, and s is
    /// the factor that the gradient had.
    pub(crate) fn apply(&mut self, v: &Parameters<F>, curvature: &Curvature<F>, s: F, hv: &mut Parameters<F>) {
        let Self { samples, set, theta, sum, blocks, tangents, cuts, team, .. } = self;
        self.v.load(set, v);
        let v = self.v;
        cuts.iter_mut().for_each(|cut| cut.plan.follow(set, 0));
        team.enter(blocks.len() * cuts[0].workload(), |team| {
            for (rows, &layers) in ranges(*samples, BLOCK).zip(&*blocks) {
                let cut = cut_of(cuts, rows.len());
                let first = rows.start;
                let pass = TangentPass { layers, tangents: *tangents, theta: *theta, v, first, s, curvature };
                team.step(cut.workload(), || {
                    pass.run(&cut.plan, team, set);
                    pass.product(cut, team, set, *sum);
                });
            }
        });
        sum.store(set, hv);
    }
}

fn cut_of(cuts: &[Cut], samples: usize) -> &Cut {
    cuts.iter().find(|cut| cut.plan.samples() == samples).expect("a whole block or the last")
}

/// Writes (∂²ℓ/∂ŷ²) v of a sample, given its number, ŷ and v. An object, so that all of this is
/// compiled once and not for each loss.
pub(crate) type Curvature<'a, F> = dyn Fn(usize, &[F], &[F], &mut [F]) + Sync + 'a;

/// A tangent pass over one block of samples.
struct TangentPass<'a, F> {
    /// Z and Δ, of which the loss's derivative has the factor s.
    layers: Layers,
    /// R Z and R Δ.
    tangents: Layers,
    theta: Theta,
    /// The direction.
    v: Theta,
    /// The block's first sample.
    first: usize,
    s: F,
    curvature: &'a Curvature<'a, F>,
}

impl<F: Scalar> TangentPass<'_, F> {
    /// Fills R Z and R Δ.
    fn run(&self, plan: &Plan, team: &ActiveTeam, set: &mut PanelSet<F>) {
        for phase in &plan.phases {
            let shared = set.share(&phase.table);
            team.for_each_tile(phase.tiles.len(), 2 * phase.flops, &|index| {
                self.tile(plan, phase, index, shared.claim(index));
            });
        }
    }

    fn tile(&self, plan: &Plan, phase: &Phase, index: usize, guard: RegionGuard<F>) {
        let TileShape { samples, neurons } = phase.tiles[index].clone();
        let (shape, kernels) = (&plan.shape, F::kernels());
        let mut tile = Tile { guard, shape, layers: self.tangents, samples, neurons, kernels };
        for &operation in &phase.operations {
            match operation {
                Operation::Forward(t) => self.forward(t, &mut tile),
                Operation::Loss => self.loss(&mut tile),
                Operation::Backward(t) => self.backward(t, &mut tile),
                Operation::Gather => unreachable!("R Z[0] = 0"),
            }
        }
    }

    /// R Z[t+1] = (Z[t] v[t]ᵀ + R Z[t] w[t]ᵀ + 1 v_c[t]ᵀ) ⊙ 1[Z[t+1] > 0]; R Ŷ, for t = T, without
    /// the mask.
    fn forward(&self, t: usize, tile: &mut Tile<F>) {
        let (samples, neurons, depth) = (tile.samples.clone(), tile.neurons(t + 1), tile.shape.widths[t]);
        let (is_by_samples, has_mask) = (tile.shape.is_by_samples(t), t < tile.shape.depth());
        let at = |of: Layers, t| if is_by_samples { of.zt(t) } else { of.z(t) };
        let v_c = tile.guard.read(self.v.c(t));
        let v_c = (v_c.rows() > 0).then(|| &v_c.panel(0)[panel_range::<F>(&neurons)]);
        let weights = |rows: Range<usize>| {
            [self.v, self.theta].map(|of| {
                let matrix = tile.guard.read(of.w(t));
                matrix.part(0..matrix.panels(), rows.clone())
            })
        };
        let z_above = tile.guard.read(at(self.layers, t + 1));
        let mask = |panels, rows| if has_mask { End::Mask(z_above.part(panels, rows)) } else { End::Store };
        let from = [self.layers, self.tangents].map(|of| at(of, t));
        let to = at(self.tangents, t + 1);
        let chain = if is_by_samples {
            let panels = panel_range::<F>(&samples);
            Chain {
                from,
                part: (panels.clone(), 0..depth),
                weights: weights(neurons.clone()),
                operands: |z, w| (Left::Rows(w), Right::Panels(z)),
                shape: [neurons.len(), samples.len(), depth],
                start: v_c.map_or(Start::Zero, |c| Start::Rows(numbers::<F>(c))),
                end: mask(panels, neurons.clone()),
            }
        } else {
            Chain {
                from,
                part: (0..panels_of::<F>(depth), samples.clone()),
                weights: weights(neurons.start..neurons.end.next_multiple_of(F::LINE)),
                operands: |z, w| (Left::Rows(z), Right::Transposed(w)),
                shape: [samples.len(), neurons.len(), depth],
                start: v_c.map_or(Start::Zero, Start::Columns),
                end: mask(panel_range::<F>(&neurons), samples.clone()),
            }
        };
        // R Z[0] = 0
        if t == 0 {
            chain.first(tile, to);
        } else {
            chain.both(tile, to);
        }
        if is_by_samples {
            tile.transpose_neurons(t + 1);
        } else if tile.shape.has_transposed(t + 1) {
            tile.transpose_samples(t + 1);
        }
    }

    /// R ∂ℓ/∂Ŷ = s (∂²ℓ/∂ŷ²) R ŷ of each sample.
    fn loss(&self, tile: &mut Tile<F>) {
        let (outputs, samples) = (tile.outputs(), tile.samples.clone());
        let lines = panels_of::<F>(outputs);
        let [layers, tangents] = [self.layers, self.tangents];
        // Outputs in several panels are first brought together; those of the gradient's pass are.
        let [y_hat, r_y_hat, r_d] = if lines > 1 {
            tile.outputs_to_rows();
            [layers.y_hat_rows(), tangents.y_hat_rows(), tangents.d_y_hat_rows()]
        } else {
            [layers.y_hat(), tangents.y_hat(), tangents.d_y_hat()]
        };
        let rows = samples.start * lines..samples.end * lines;
        let y_hat = tile.guard.read(y_hat).part(0..1, rows.clone());
        let ([r_y_hat], mut r_d) = tile.guard.read_and_write([Region { matrix: r_y_hat, panels: 0..1, rows }], r_d);
        let row = lines * F::LINE;
        let given =
            numbers::<F>(y_hat.panel(0)).chunks_exact(row).zip(numbers::<F>(r_y_hat.panel(0)).chunks_exact(row));
        let numbers = given.zip(numbers_mut::<F>(r_d.panel(0)).chunks_exact_mut(row));
        for (((y_hat, r_y_hat), r_d), i) in numbers.zip(self.first + samples.start..) {
            let r_d = &mut r_d[..outputs];
            (self.curvature)(i, &y_hat[..outputs], &r_y_hat[..outputs], r_d);
            if self.s != F::ONE {
                r_d.iter_mut().for_each(|r_d| *r_d = self.s * *r_d);
            }
        }
        if lines > 1 {
            tile.rows_to_derivatives();
        }
    }

    /// R Δ[t] = (Δ[t+1] v[t] + R Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
    fn backward(&self, t: usize, tile: &mut Tile<F>) {
        let (samples, neurons, depth) = (tile.samples.clone(), tile.neurons(t), tile.shape.widths[t + 1]);
        let panels = panel_range::<F>(&neurons);
        let chain = Chain {
            from: [self.layers, self.tangents].map(|of| of.delta(t + 1)),
            part: (0..panels_of::<F>(depth), samples.clone()),
            weights: [self.v, self.theta].map(|of| tile.guard.read(of.w(t)).part(panels.clone(), 0..depth)),
            operands: |delta, w| (Left::Rows(delta), Right::Panels(w)),
            shape: [samples.len(), neurons.len(), depth],
            start: Start::Zero,
            end: End::Mask(tile.guard.read(self.layers.z(t)).part(panels, samples)),
        };
        chain.both(tile, self.tangents.delta(t));
    }

    /// `into` = R Δᵀ Z + Δᵀ R Z, or += for a later block than the first.
    fn product(&self, cut: &Cut, team: &ActiveTeam, set: &mut PanelSet<F>, into: Theta) {
        let Cut { plan, tiles, table } = cut;
        let update = Update { layers: self.layers, tiles, samples: plan.samples() };
        let sink = Sink::Store { into, add: self.first > 0 };
        let shared = set.share(table);
        team.for_each_tile(table.len(), 2 * tiles.flops, &|index| {
            let mut guard = shared.claim(index);
            for part in &tiles.tiles[index] {
                self.part(&update, part, &mut guard, &sink);
            }
        });
    }

    fn part(&self, update: &Update, part: &Part, guard: &mut RegionGuard<F>, sink: &Sink<F>) {
        let (t, samples) = (part.t, 0..update.samples);
        let [delta, r_delta] = [self.layers, self.tangents].map(|of| guard.read(of.delta(t + 1)));
        let [of_rows, r_of_rows] = [delta, r_delta].map(|of| of.part(panel_range::<F>(&part.rows), samples.clone()));
        let [z, r_z] = [self.layers, self.tangents].map(|of| guard.read(of.z(t)));
        let z = z.part(part.panels.clone(), samples.clone());
        let take = |guard: &mut RegionGuard<F>, place: &Place, g: &[F::Line]| sink.take(guard, place, numbers(g));
        if t == 0 {
            update.chunks([[r_of_rows, z]], part, |place, g| take(guard, place, g));
        } else {
            let r_z = r_z.part(part.panels.clone(), samples);
            update.chunks([[r_of_rows, z], [of_rows, r_z]], part, |place, g| take(guard, place, g));
        }
        update.bias(r_delta, part, |place, g| take(guard, place, g));
    }
}

/// The operands of a product, A and B, of a layer's numbers and its weights.
type Operands<'p, F> = (Left<'p, F>, Right<'p, F>);

/// C = end(start + A B + A′ B′), each number one chain through both products: of a layer with the
/// direction, and of its tangent with θ.
struct Chain<'p, F: Scalar> {
    /// The matrices of the layer and of its tangent.
    from: [usize; 2],
    /// Panels and rows of these two.
    part: (Range<usize>, Range<usize>),
    /// Of the direction and of θ.
    weights: [PanelsRef<'p, F>; 2],
    operands: for<'o> fn(PanelsRef<'o, F>, PanelsRef<'o, F>) -> Operands<'o, F>,
    /// The numbers of C's rows, of its columns and of k.
    shape: [usize; 3],
    start: Start<'p, F>,
    end: End<'p, F>,
}

impl<F: Scalar> Chain<'_, F> {
    /// Writes C into the tile's region of a matrix.
    fn both(self, tile: &mut Tile<F>, to: usize) {
        let [layer, tangent] = self.parts();
        let layer = tile.guard.read(layer.matrix).part(layer.panels, layer.rows);
        let kernels = tile.kernels;
        let ([tangent], mut c) = tile.guard.read_and_write([tangent], to);
        let operands = (self.operands)(layer, self.weights[0]);
        kernels.product(self.product(operands, &mut c, self.start, End::Store));
        let operands = (self.operands)(tangent, self.weights[1]);
        kernels.product(self.product(operands, &mut c, Start::C, self.end));
    }

    /// The same where the tangent is 0.
    fn first(self, tile: &mut Tile<F>, to: usize) {
        let [layer, _] = self.parts();
        let layer = tile.guard.read(layer.matrix).part(layer.panels, layer.rows);
        let operands = (self.operands)(layer, self.weights[0]);
        let kernels = tile.kernels;
        kernels.product(self.product(operands, &mut tile.guard.write(to), self.start, self.end));
    }

    /// The parts of the layer and of its tangent.
    fn parts(&self) -> [Region; 2] {
        let (panels, rows) = &self.part;
        self.from.map(|matrix| Region { matrix, panels: panels.clone(), rows: rows.clone() })
    }

    fn product<'o>(
        &self,
        (a, b): Operands<'o, F>,
        c: &'o mut PanelsMut<F>,
        start: Start<'o, F>,
        end: End<'o, F>,
    ) -> Product<'o, F> {
        let ([rows, columns, depth], panels) = (self.shape, c.panels());
        Product { a, b, c: c.part(0..panels, 0..rows), columns, depth, start, end }
    }
}
