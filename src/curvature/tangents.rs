//! Products with the Hessian on the engine over BLAS: the tangent pass, the derivative of a
//! gradient pass as θ moves in a direction v, on the tiles of the same plan.
//!
//! The equations stand in [`Hessian`](crate::curvature::Hessian), whose products these are the
//! passes of. R Z, R Ŷ, R ∂ℓ/∂Ŷ and R Δ lie in the slots of Z, Ŷ, ∂ℓ/∂Ŷ and Δ, so each operation
//! writes where that of the gradient pass does.

use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Slice, s};

use crate::curvature::inputs::BLOCK;
use crate::engine::layers::BatchLayers;
use crate::engine::parameter_tiles::{ParameterBlock, ParameterTiles, SharedParameters};
use crate::engine::pass::GradientPass;
use crate::engine::plan::{LayerSlots, LayerTile, Operations, Plan};
use crate::engine::update::Update;
use crate::linalg::rows::{self, slice_range};
use crate::linalg::scalar::Scalar;
use crate::network::loss::SampleLoss;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::parallel::team::{ActiveTeam, Team};
use crate::parallel::workload::Workload;
use crate::steps::blocks::ranges;
use crate::steps::samples::Samples;

/// Z and Δ of all samples, once [`gradient`](Self::gradient) has made them, and what products with
/// the Hessian need beside them.
#[derive(Debug)]
pub(crate) struct BlasPasses<F> {
    samples: usize,
    /// Z[0] (never touched, it lies in x), …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], … of each block of samples;
    /// as many rows each as the first block has samples.
    layers: Vec<Vec<Array2<F>>>,
    /// The arrays R Z, R Ŷ, R ∂ℓ/∂Ŷ and R Δ of one block.
    tangents: Vec<Array2<F>>,
    /// The plans of a whole block and of the last block, if that is smaller.
    plans: Vec<Plan>,
    tiles: ParameterTiles,
    team: Team,
}

impl<F: Scalar> BlasPasses<F> {
    /// Arrays for `samples` samples of this network.
    pub(crate) fn new(mlp: &Mlp<F>, samples: usize) -> Self {
        let (widths, block) = (mlp.widths(), samples.min(BLOCK));
        let layers = || -> Vec<Array2<F>> {
            LayerSlots::columns(widths).map(|d| Array2::from_elem((block, d), F::ZERO)).collect()
        };
        let tangents = layers();
        let shapes: Vec<_> = tangents.iter().map(Array2::dim).collect();
        let sizes = [block, samples % block].into_iter().filter(|&samples| samples > 0);
        Self {
            samples,
            layers: ranges(samples, block).map(|_| layers()).collect(),
            tangents,
            plans: sizes.map(|samples| Plan::gradient(widths, &shapes, samples.into())).collect(),
            tiles: ParameterTiles::new(mlp.parameters()),
            team: Team::default(),
        }
    }

    /// Makes Z and Δ of all samples. `into` = a Σ ∂ℓ/∂θ. Returns Σ ℓ.
    pub(crate) fn gradient<L: SampleLoss<F>>(
        &mut self,
        theta: &Parameters<F>,
        data: &Samples<F, L>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64 {
        let Self { samples, layers, plans, tiles, team, .. } = self;
        let work = |plan: &Plan| plan.workload() + tiles.workload(plan.size.samples);
        team.enter(layers.len() * work(&plans[0]), |team| {
            let blocks = ranges(*samples, BLOCK).zip(layers);
            let sums = blocks.map(|(rows, layers)| {
                let plan = plan_of(plans, rows.len());
                team.step(work(plan), || {
                    let sum = plan.run(team, layers, &GradientPass::new(plan, theta, &data.any(), rows.start, false));
                    let beta = if rows.start == 0 { F::ZERO } else { F::ONE };
                    let z_0 = Some(data.x.slice(s![rows.clone(), ..]));
                    let batch = BatchLayers { layers, z_0, samples: rows.len() };
                    Update { tiles, team, batch: &batch }.product(a, [beta; 2], into);
                    sum
                })
            });
            sums.sum()
        })
    }

    /// `hv` = a Σ (∂²ℓ/∂θ²) v over the samples with inputs x, where `curvature(i, ŷ, v, hv)` writes
    /// (∂²ℓ/∂ŷ²) v of sample i into hv.
    pub(crate) fn apply<C>(
        &mut self,
        theta: &Parameters<F>,
        v: &Parameters<F>,
        x: ArrayView2<F>,
        curvature: C,
        a: F,
        hv: &mut Parameters<F>,
    ) where
        C: Fn(usize, &[F], &[F], &mut [F]) + Sync,
    {
        let Self { samples, layers, tangents, plans, tiles, team } = self;
        let work = |plan: &Plan| -> Workload { 2 * (plan.workload() + tiles.workload(plan.size.samples)) };
        team.enter(layers.len() * work(&plans[0]), |team| {
            for (rows, layers) in ranges(*samples, BLOCK).zip(layers) {
                let plan = plan_of(plans, rows.len());
                let beta = if rows.start == 0 { F::ZERO } else { F::ONE };
                let z_0 = x.slice(s![rows.clone(), ..]);
                let curvature = |r, y_hat: &[F], v: &[F], hv: &mut [F]| curvature(rows.start + r, y_hat, v, hv);
                let pass = TangentPass { theta, v, z_0, layers, curvature };
                team.step(work(plan), || {
                    plan.run(team, tangents, &pass);
                    pass.product(tiles, team, tangents, (a, beta), hv);
                });
            }
        });
    }
}

fn plan_of(plans: &[Plan], samples: usize) -> &Plan {
    plans.iter().find(|plan| plan.size.samples == samples).expect("a whole block or the last")
}

/// A tangent pass over one block of samples. `curvature(r, ŷ, v, hv)` writes (∂²ℓ/∂ŷ²) v of sample
/// r of the block into hv.
struct TangentPass<'a, F, C> {
    theta: &'a Parameters<F>,
    /// The direction.
    v: &'a Parameters<F>,
    z_0: ArrayView2<'a, F>, // (samples, d[0])
    /// The layers as the gradient pass has filled them.
    layers: &'a [Array2<F>],
    curvature: C,
}

impl<F: Scalar, C> TangentPass<'_, F, C> {
    fn slots(&self) -> LayerSlots {
        LayerSlots { depth: self.theta.depth() }
    }

    /// The tile's rows of an array of the gradient pass.
    fn rows(&self, slot: usize, tile: &LayerTile<F>) -> ArrayView2<'_, F> {
        self.layers[slot].slice_axis(Axis(0), Slice::from(tile.rows.clone()))
    }

    /// The tile's rows of Z[t].
    fn z_rows(&self, t: usize, tile: &LayerTile<F>) -> ArrayView2<'_, F> {
        if t == 0 { self.z_0.slice(s![tile.rows.clone(), ..]) } else { self.rows(self.slots().z(t), tile) }
    }

    /// Z[t] of the block.
    fn z(&self, t: usize) -> ArrayView2<'_, F> {
        if t == 0 {
            self.z_0.view()
        } else {
            slice_range(&self.layers[self.slots().z(t)], Axis(0), &Some(0..self.z_0.nrows()))
        }
    }

    /// v[t] and w[t], of the tile's neurons along this axis.
    fn weights(&self, t: usize, axis: Axis, tile: &LayerTile<F>) -> [ArrayView2<'_, F>; 2] {
        [self.v, self.theta].map(|p| slice_range(&p.w[t], axis, &tile.columns))
    }

    /// hv ← a (R Δᵀ Z + Δᵀ R Z) + β hv, over the tiles of θ.
    fn product(
        &self,
        tiles: &ParameterTiles,
        team: &ActiveTeam,
        tangents: &[Array2<F>],
        (a, beta): (F, F),
        hv: &mut Parameters<F>,
    ) where
        C: Sync,
    {
        let (slots, samples) = (self.slots(), self.z_0.nrows());
        let hv = SharedParameters::new(hv, tiles);
        team.for_each_tile(tiles.len(), 2 * tiles.flops(samples), &|index| {
            let (t, rows) = tiles.layer_rows(index);
            let mut tile = hv.claim(index);
            let ParameterBlock { mut w, c } = tile.write();
            let [delta, r_delta] =
                [self.layers, tangents].map(|of| of[slots.delta(t + 1)].slice(s![..samples, rows.clone()]));
            rows::gradient(a, r_delta, self.z(t), [beta; 2], w.view_mut(), c);
            if t > 0 {
                let r_z = tangents[slots.z(t)].slice(s![..samples, ..]);
                rows::gradient(a, delta, r_z, [F::ONE; 2], w, ArrayViewMut1::from(&mut []));
            }
        });
    }
}

impl<F: Scalar, C: Fn(usize, &[F], &[F], &mut [F]) + Sync> Operations<F> for TangentPass<'_, F, C> {
    const PRODUCTS: usize = 2;

    /// R Z[0] = 0, and is never read.
    fn gathers(&self) -> bool {
        false
    }

    fn gather(&self, _tile: &mut LayerTile<F>) {}

    /// R Z[t+1] = (Z[t] v[t]ᵀ + R Z[t] w[t]ᵀ + 1 v_c[t]ᵀ) ⊙ 1[Z[t+1] > 0]; R Ŷ, for t = T, without
    /// the mask
    fn forward(&self, t: usize, tile: &mut LayerTile<F>) {
        let slots = self.slots();
        let [v, w] = self.weights(t, Axis(0), tile).map(ArrayView2::reversed_axes);
        let z = self.z_rows(t, tile);
        if t == 0 {
            rows::product(F::ONE, z, v, F::ZERO, tile.write(slots.z(1)));
        } else {
            let ([r_z], mut r_u) = tile.read_and_write([slots.z(t)], slots.z(t + 1));
            rows::product(F::ONE, z, v, F::ZERO, r_u.view_mut());
            rows::product(F::ONE, r_z, w, F::ONE, r_u);
        }
        let v_c = &self.v.c[t];
        if !v_c.is_empty() {
            let v_c = slice_range(v_c, Axis(0), &tile.columns);
            rows::add_bias(v_c, tile.write(slots.z(t + 1)));
        }
        if t < slots.depth {
            let z_above = self.z_rows(t + 1, tile);
            mask(z_above, tile, slots.z(t + 1));
        }
    }

    /// R ∂ℓ/∂ŷ = (∂²ℓ/∂ŷ²) R ŷ of each sample
    fn loss(&self, tile: &mut LayerTile<F>) -> f64 {
        let (slots, first) = (self.slots(), tile.rows.start);
        let y_hat = self.rows(slots.y_hat(), tile);
        let (y_hat, outputs) = (y_hat.to_slice().expect("whole rows"), y_hat.ncols());
        let ([r_y_hat], r_dy) = tile.read_and_write([slots.y_hat()], slots.d_y_hat());
        rows::losses(r_y_hat, r_dy, |r, r_y_hat, r_dy| {
            (self.curvature)(first + r, &y_hat[r * outputs..][..outputs], r_y_hat, r_dy);
            0.0
        })
    }

    /// R Δ[t] = (Δ[t+1] v[t] + R Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
    fn backward(&self, t: usize, tile: &mut LayerTile<F>) {
        let slots = self.slots();
        let [v, w] = self.weights(t, Axis(1), tile);
        let (above, z) = (self.rows(slots.delta(t + 1), tile), self.z_rows(t, tile));
        let ([r_above], mut r_delta) = tile.read_and_write([slots.delta(t + 1)], slots.delta(t));
        rows::product(F::ONE, above, v, F::ZERO, r_delta.view_mut());
        rows::product(F::ONE, r_above, w, F::ONE, r_delta);
        mask(z, tile, slots.delta(t));
    }

    fn squares(&self, _tile: &mut LayerTile<F>) -> Option<f64> {
        None
    }
}

/// The tile's numbers of an array ← 0 where Z is not positive; z has the tile's rows and all
/// neurons.
fn mask<F: Scalar>(z: ArrayView2<F>, tile: &mut LayerTile<F>, slot: usize) {
    let columns = tile.columns.clone();
    let numbers: ArrayViewMut2<F> = tile.write(slot);
    rows::mask(slice_range(&z, Axis(1), &columns), numbers);
}
