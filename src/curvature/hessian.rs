//! Products of the Hessian of a mean loss with a direction, exact and without the Hessian: the R-operator.
//!
//! ```text
//! L(θ) = (1/n) Σ w_i ℓ(ŷ_i, y_i)                          w_i = 1 unless given; R f = d/ds f(θ + s v) at s = 0, v = [v[0], v_c[0], …] like θ
//! R Z[0] = 0
//! R Z[t+1] = (Z[t] v[t]ᵀ + R Z[t] w[t]ᵀ + 1 v_c[t]ᵀ) ⊙ 1[Z[t+1] > 0]           the head, t = T, without the mask: R Ŷ
//! R ∂ℓ/∂ŷ = w_i (∂²ℓ/∂ŷ²) R ŷ                             each sample's, the last row of the R Δ
//! R Δ[t] = (Δ[t+1] v[t] + R Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
//! (H v)[t] = (1/n) (R Δ[t+1]ᵀ Z[t] + Δ[t+1]ᵀ R Z[t])       (H v)_c[t] = (1/n) R Δ[t+1]ᵀ 1
//! ```
//!
//! Pearlmutter 1994, *Fast exact multiplication by the Hessian*. The masks stay, for ReLU″ = 0 almost everywhere: where a u
//! is exactly 0, H is that of the side which ReLU′(0) = 0 chooses.
//!
//! Z and Δ are made once and kept. A product then costs 6E − 4 d\[0\] d\[1\] multiplications a sample, E = Σ d\[t\] d\[t+1\] with the
//! head's; a gradient costs 3E − d\[0\] d\[1\]. R Z and R Δ are laid out as Z and Δ are, so both run on the tiles of the same plan.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, CowArray, Ix1, Ix2, Slice, s};

use crate::engine::engine::Samples;
use crate::engine::plan::{LayerSlots, Op, Plan, Update, tiles};
use crate::engine::update::BatchLayers;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::row_major;
use crate::linalg::rows::{self, slice_range};
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, curvature, sample_loss};
use crate::network::mlp::{Mlp, Parameters};
use crate::parallel::team::{ActiveTeam, Team};
use crate::parallel::tiles::{SharedTiles, Tile};
use crate::train::dataset::{Dataset, weighted};
use crate::train::model::ModelRef;

/// Samples that go through a product together, at the most: R Z and R Δ have as many rows, and not one for each sample.
pub(crate) const BLOCK: usize = 2048;

/// The Hessian of the mean loss of a model over data, as an operator; the loss and the gradient come with it.
///
/// It is that of what a [`Trainer`](crate::Trainer) descends: of the inputs as the model standardises them, and with the data's weights.
/// It borrows the model, so θ cannot change under it. In memory, beside what it borrows: Z and Δ of all samples, 2 (d\[1\] + … +
/// d\[T\] + m) numbers each, and as much again for up to 2048 of them.
///
/// ```
/// use gemmprop::{Constant, Dataset, Hessian, Mlp, SoftmaxCrossEntropy};
/// use ndarray::array;
///
/// let mlp = Mlp::<f64>::he(&[2, 16, 2], Constant::Input, 1)?;
/// let (x, labels) = (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![0, 1, 1, 0]);
/// let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy)?;
/// // gᵀ H g: how the loss bends along its gradient.
/// let (g, mut hg) = (hessian.gradient().clone(), mlp.zero_gradient());
/// hessian.apply(&g, &mut hg)?;
/// let bend: f64 = g.iter().zip(hg.iter()).map(|(g, hg)| g * hg).sum();
/// assert!(bend.is_finite() && hessian.loss() > 0.0);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct Hessian<'a, F, L: Loss<F>>
where
    F: Scalar,
{
    mlp: &'a Mlp<F>,
    inputs: Inputs<'a, F, L::Target>,
    loss: &'a L,
    block: usize,
    /// Z[0] (never touched, it lies in x), …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], … of each block of samples; `block` rows each.
    passes: Vec<Vec<Array2<F>>>,
    /// The same of R, of one block.
    tangents: Vec<Array2<F>>,
    /// Of a whole block and of the last one, if that is smaller.
    plans: Vec<Plan>,
    update: Update,
    team: Team,
    value: f64,
    gradient: Parameters<F>,
}

/// Data as a network reads them.
#[derive(Debug)]
pub(crate) struct Inputs<'a, F, T> {
    x: CowArray<'a, F, Ix2>,               // (n, d[0]), row-major, standardised
    y: CowArray<'a, T, Ix2>,               // (n, targets of a sample), row-major
    weights: Option<CowArray<'a, F, Ix1>>, // (n), in one piece
}

impl<'a, F: Scalar, T: Copy + Send + Sync> Inputs<'a, F, T> {
    /// Checks the data, and standardises them as the model does.
    pub(crate) fn new<L: Loss<F, Target = T>>(model: &ModelRef<F>, data: Dataset<'a, F, T>, loss: &L) -> Result<Self> {
        data.check(model.mlp, loss)?;
        let Dataset { x, y, weights } = data;
        let mut x = match model.standardizer {
            Some(standardizer) => standardizer.transform(x)?.into(),
            None => row_major(x),
        };
        // Absent samples: their z could be infinite, and ∞ · 0 is NaN.
        for (row, _) in weights.into_iter().flatten().enumerate().filter(|&(_, &weight)| weight == F::ZERO) {
            x.row_mut(row).fill(F::ZERO);
        }
        Ok(Self { x, y: row_major(y), weights: weights.map(row_major) })
    }

    pub(crate) fn len(&self) -> usize {
        self.x.nrows()
    }

    fn weights(&self) -> Option<&[F]> {
        self.weights.as_ref().map(|weights| weights.as_slice().expect("in one piece"))
    }

    /// Some samples, counted from the first of them.
    pub(crate) fn samples<'s, L: Loss<F, Target = T>>(
        &'s self,
        rows: Range<usize>,
        loss: &'s L,
    ) -> Samples<'s, F, impl Fn(usize, &[F], &mut [F]) -> f64 + Sync + 's> {
        let y = self.y.slice_axis(Axis(0), rows.clone().into());
        let weights = self.weights().map(|weights| &weights[rows.clone()]);
        let x = self.x.slice_axis(Axis(0), rows.into());
        Samples { x, order: None, standardize: None, weights: None, loss: weighted(sample_loss(loss, y), weights) }
    }

    /// Writes w_i (∂²ℓ/∂ŷ²) v of sample i.
    fn curvature<'s, L: Loss<F, Target = T>>(
        &'s self,
        loss: &'s L,
    ) -> impl Fn(usize, &[F], &[F], &mut [F]) + Sync + 's {
        let (curvature, weights) = (curvature(loss, self.y.view()), self.weights());
        move |i, y_hat, v, hv| match weights.map(|weights| weights[i]) {
            // Not a product, as it is none in the gradient.
            Some(weight) if weight == F::ZERO => hv.fill(F::ZERO),
            weight => {
                curvature(i, y_hat, v, hv);
                if let Some(weight) = weight {
                    hv.iter_mut().for_each(|hv| *hv = weight * *hv);
                }
            }
        }
    }
}

impl<'a, F: Scalar, L: Loss<F>> Hessian<'a, F, L> {
    /// Makes the forward and backward passes that all products share. The model is a [`&Model`](crate::Model), or an
    /// [`&Mlp`](Mlp) that reads x as it is.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
    /// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit; [`Error::Length`](crate::Error::Length),
    /// [`Error::Outputs`](crate::Error::Outputs), [`Error::Label`](crate::Error::Label) or [`Error::Target`](crate::Error::Target) for
    /// such a y; [`Error::Length`](crate::Error::Length) or [`Error::Weight`](crate::Error::Weight) for such weights;
    /// [`Error::Undefined`] for a loss that is not finite; [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn new(model: impl Into<ModelRef<'a, F>>, data: Dataset<'a, F, L::Target>, loss: &'a L) -> Result<Self> {
        let model = model.into();
        let (mlp, inputs) = (model.mlp, Inputs::new(&model, data, loss)?);
        let _one = one_blas_thread()?;
        let (widths, samples) = (mlp.widths(), inputs.len());
        let block = samples.min(BLOCK);
        let layers = || -> Vec<Array2<F>> {
            LayerSlots::columns(widths).map(|d| Array2::from_elem((block, d), F::ZERO)).collect()
        };
        let tangents = layers();
        let shapes: Vec<_> = tangents.iter().map(Array2::dim).collect();
        let sizes = [block, samples % block].into_iter().filter(|&samples| samples > 0);
        let mut hessian = Self {
            mlp,
            block,
            passes: tiles(samples, block).map(|_| layers()).collect(),
            tangents,
            plans: sizes.map(|samples| Plan::step(widths, &shapes, samples)).collect(),
            update: Update::new(mlp.parameters()),
            team: Team::default(),
            value: 0.0,
            gradient: mlp.zero_gradient(),
            loss,
            inputs,
        };
        hessian.pass();
        let found = hessian.value;
        if found.is_finite() {
            Ok(hessian)
        } else {
            Err(Error::Undefined { what: "loss", at: "the parameters", found })
        }
    }

    /// Fills Z and Δ, and with them the loss and the gradient.
    fn pass(&mut self) {
        let Self { mlp, inputs, loss, block, passes, plans, update, team, gradient, .. } = self;
        let n = inputs.len();
        let (theta, mean) = (mlp.parameters(), F::from_f64(1.0 / n as f64));
        let data = inputs.samples(0..n, *loss);
        let work = |plan: &Plan| plan.workload() + update.workload(plan.samples);
        let sum: f64 = team.enter(passes.len() * work(&plans[0]), |team| {
            let blocks = tiles(n, *block).zip(passes);
            let sums = blocks.map(|(rows, layers)| {
                let plan = schedule_of(plans, rows.len());
                team.step(work(plan), || {
                    let sum = plan.run(team, layers, theta, &data, rows.start, false);
                    let beta = if rows.start == 0 { F::ZERO } else { F::ONE };
                    let z_0 = Some(inputs.x.slice(s![rows.clone(), ..]));
                    update.run(team, &BatchLayers { layers, z_0, samples: rows.len() }, (mean, beta), gradient);
                    sum
                })
            });
            sums.sum()
        });
        self.value = sum / n as f64;
    }

    /// The network.
    #[must_use]
    pub fn mlp(&self) -> &'a Mlp<F> {
        self.mlp
    }

    /// L(θ), the mean w ℓ.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.value
    }

    /// ∇L(θ)
    #[must_use]
    pub fn gradient(&self) -> &Parameters<F> {
        &self.gradient
    }

    /// `hv` = H v.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a `v` or `hv` of another network; [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn apply(&mut self, v: &Parameters<F>, hv: &mut Parameters<F>) -> Result<()> {
        let theta = self.mlp.parameters();
        theta.check_shape_of("v", v)?;
        theta.check_shape_of("hv", hv)?;
        let _one = one_blas_thread()?;
        let Self { inputs, loss, block, passes, tangents, plans, update, team, .. } = self;
        let (second, mean) = (inputs.curvature(*loss), F::from_f64(1.0 / inputs.len() as f64));
        let work = |plan: &Plan| 2 * (plan.workload() + update.workload(plan.samples));
        team.enter(passes.len() * work(&plans[0]), |team| {
            for (rows, layers) in tiles(inputs.len(), *block).zip(passes) {
                let plan = schedule_of(plans, rows.len());
                let beta = if rows.start == 0 { F::ZERO } else { F::ONE };
                let pass = Pass { theta, v, z_0: inputs.x.slice(s![rows.clone(), ..]), layers };
                team.step(work(plan), || {
                    pass.tangents(plan, team, tangents, |r, y_hat, v, hv| second(rows.start + r, y_hat, v, hv));
                    pass.product(update, team, tangents, (mean, beta), hv);
                });
            }
        });
        Ok(())
    }
}

fn schedule_of(plans: &[Plan], samples: usize) -> &Plan {
    plans.iter().find(|plan| plan.samples == samples).expect("a whole block or the last")
}

/// What is known of a block before its product.
struct Pass<'a, F> {
    theta: &'a Parameters<F>,
    v: &'a Parameters<F>,
    z_0: ArrayView2<'a, F>, // (samples, d[0])
    layers: &'a [Array2<F>],
}

impl<F: Scalar> Pass<'_, F> {
    fn slots(&self) -> LayerSlots {
        LayerSlots { depth: self.theta.depth() }
    }

    /// Z[t] of the block.
    fn z(&self, t: usize) -> ArrayView2<'_, F> {
        if t == 0 {
            self.z_0.view()
        } else {
            slice_range(&self.layers[self.slots().z(t)], Axis(0), &Some(0..self.z_0.nrows()))
        }
    }

    /// Fills R Z, R Ŷ, R ∂ℓ/∂Ŷ and R Δ; `second(r, ŷ, v, hv)` writes (∂²ℓ/∂ŷ²) v of sample r of the block into hv.
    fn tangents(
        &self,
        plan: &Plan,
        team: &ActiveTeam,
        into: &mut [Array2<F>],
        second: impl Fn(usize, &[F], &[F], &mut [F]) + Sync,
    ) {
        let (slots, Self { theta, v, layers, .. }) = (self.slots(), self);
        for phase in plan.phases.iter().filter(|phase| phase.ops != [Op::Gather]) {
            let into = SharedTiles::new(into, &phase.tiles);
            team.for_each_tile(phase.tiles.len(), 2 * phase.flops, &|index| {
                let mut tile = into.claim(index);
                let Tile { rows, columns, .. } = tile.tile().clone();
                let kept = |name: usize| layers[name].slice_axis(Axis(0), Slice::from(rows.clone()));
                let z = |t: usize| if t == 0 { self.z_0.slice(s![rows.clone(), ..]) } else { kept(slots.z(t)) };
                let mask = |t: usize, r: ArrayViewMut2<F>| rows::mask(slice_range(&z(t), Axis(1), &columns), r);
                for &op in &phase.ops {
                    match op {
                        // R Z[0] = 0.
                        Op::Gather => {}
                        Op::Forward(t) => {
                            let [v, w] = [v, theta].map(|p| slice_range(&p.w[t], Axis(0), &columns).reversed_axes());
                            if t == 0 {
                                rows::product(F::ONE, z(0), v, F::ZERO, tile.write(slots.z(1)));
                            } else {
                                let ([r_z], mut r_u) = tile.read_and_write([slots.z(t)], slots.z(t + 1));
                                rows::product(F::ONE, z(t), v, F::ZERO, r_u.view_mut());
                                rows::product(F::ONE, r_z, w, F::ONE, r_u);
                            }
                            let v_c = &self.v.c[t];
                            if !v_c.is_empty() {
                                rows::add_constant(slice_range(v_c, Axis(0), &columns), tile.write(slots.z(t + 1)));
                            }
                            if t < slots.depth {
                                mask(t + 1, tile.write(slots.z(t + 1)));
                            }
                        }
                        Op::Loss => {
                            let y_hat = kept(slots.z(slots.depth + 1));
                            let (y_hat, m) = (y_hat.to_slice().expect("whole rows"), y_hat.ncols());
                            let ([r_y_hat], r_d) =
                                tile.read_and_write([slots.z(slots.depth + 1)], slots.delta(slots.depth + 1));
                            rows::losses(r_y_hat, r_d, |r, r_y_hat, r_d| {
                                second(rows.start + r, &y_hat[r * m..][..m], r_y_hat, r_d);
                                0.0
                            });
                        }
                        Op::Backward(t) => {
                            let ([r_above], mut r_delta) = tile.read_and_write([slots.delta(t + 1)], slots.delta(t));
                            let [v, w] = [v, theta].map(|p| slice_range(&p.w[t], Axis(1), &columns));
                            rows::product(F::ONE, kept(slots.delta(t + 1)), v, F::ZERO, r_delta.view_mut());
                            rows::product(F::ONE, r_above, w, F::ONE, r_delta.view_mut());
                            mask(t, r_delta);
                        }
                    }
                }
            });
        }
    }

    /// hv ← a (R Δᵀ Z + Δᵀ R Z) + β hv, over the tiles of an update.
    fn product(
        &self,
        update: &Update,
        team: &ActiveTeam,
        tangents: &[Array2<F>],
        (a, beta): (F, F),
        hv: &mut Parameters<F>,
    ) {
        let (slots, samples) = (self.slots(), self.z_0.nrows());
        let (w, c) = (SharedTiles::new(&mut hv.w, &update.w), SharedTiles::new(&mut hv.c, &update.c));
        team.for_each_tile(update.w.len(), 2 * samples * update.flops, &|index| {
            let (mut w, mut c) = (w.claim(index), c.claim(index));
            let Tile { arrays, rows, .. } = w.tile().clone();
            let t = arrays.start;
            let [delta, r_delta] =
                [self.layers, tangents].map(|of| of[slots.delta(t + 1)].slice(s![..samples, rows.clone()]));
            rows::gradient(a, r_delta, self.z(t), beta, w.write(t), c.write(t));
            if t > 0 {
                let r_z = tangents[slots.z(t)].slice(s![..samples, ..]);
                rows::gradient(a, delta, r_z, F::ONE, w.write(t), ArrayViewMut1::from(&mut []));
            }
        });
    }
}
