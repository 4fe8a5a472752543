//! Products of the Hessian of a mean loss with a direction, exact and without the Hessian: the
//! R-operator.
//!
//! ```text
//! L(θ) = (1/n) Σ w_i ℓ(ŷ_i, y_i)                  w_i = 1 unless given
//! R f = d/ds f(θ + s v) at s = 0                  v = [v[0], v_c[0], …], shaped like θ
//! R Z[0] = 0
//! R Z[t+1] = (Z[t] v[t]ᵀ + R Z[t] w[t]ᵀ + 1 v_c[t]ᵀ) ⊙ 1[Z[t+1] > 0]   R Ŷ (t = T) has no mask
//! R ∂ℓ/∂ŷ = w_i (∂²ℓ/∂ŷ²) R ŷ                             each sample's, the last row of the R Δ
//! R Δ[t] = (Δ[t+1] v[t] + R Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]
//! (H v)[t] = (1/n) (R Δ[t+1]ᵀ Z[t] + Δ[t+1]ᵀ R Z[t])       (H v)_c[t] = (1/n) R Δ[t+1]ᵀ 1
//! ```
//!
//! Pearlmutter 1994, *Fast exact multiplication by the Hessian*. The masks stay, for ReLU″ = 0
//! almost everywhere: where a u is exactly 0, H is that of the side which ReLU′(0) = 0 chooses.
//!
//! Z and Δ are made once and kept. A product then costs 6E − 4 d\[0\] d\[1\] multiplications a
//! sample, E = Σ d\[t\] d\[t+1\] with the head's; a gradient costs 3E − d\[0\] d\[1\]. R Z and R Δ
//! are laid out as Z and Δ are, so both run on the tiles of the same plan.

use std::ops::Range;

use ndarray::{Array2, Axis, CowArray, Ix1, Ix2, s};

use crate::curvature::tangents::TangentPass;
use crate::engine::layers::BatchLayers;
use crate::engine::parameter_tiles::ParameterTiles;
use crate::engine::pass::GradientPass;
use crate::engine::plan::{LayerSlots, Plan};
use crate::engine::update::Update;
use crate::error::{Error, Result};
use crate::linalg::blas::one_blas_thread;
use crate::linalg::layout::row_major;
use crate::linalg::scalar::Scalar;
use crate::network::loss::{Loss, SampleLoss, curvature, sample_loss};
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::parallel::team::Team;
use crate::steps::blocks::ranges;
use crate::steps::samples::Samples;
use crate::train::dataset::{Dataset, weighted};
use crate::train::model::ModelRef;

/// The largest number of samples that go through a product together, which is the number of rows of
/// R Z and R Δ.
pub(crate) const BLOCK: usize = 2048;

/// The Hessian of the mean loss of a model over data, as an operator; the loss and the gradient
/// come with it.
///
/// The loss is the one that a [`Trainer`](crate::Trainer) minimises: with inputs standardised by
/// the model, and with the weights of the data. It borrows the model, so θ cannot change under it.
/// In memory, beside what it borrows: Z and Δ of all samples, 2 (d\[1\] + … + d\[T\] + m) numbers
/// each, and as much again for up to 2048 of them.
///
/// ```
/// use gemmprop::{Bias, Dataset, Mlp, SoftmaxCrossEntropy, curvature::Hessian};
/// use ndarray::array;
///
/// let mlp = Mlp::<f64>::he(&[2, 16, 2], Bias::Input, 1)?;
/// let (x, labels) = (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![0, 1, 1, 0]);
/// let data = Dataset::new(x.view(), labels.view());
/// let mut hessian = Hessian::new(&mlp, data, &SoftmaxCrossEntropy)?;
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
    /// Z[0] (never touched, it lies in x), …, Z[T], Ŷ, ∂ℓ/∂Ŷ, Δ[T], … of each block of samples;
    /// `block` rows each.
    passes: Vec<Vec<Array2<F>>>,
    /// The arrays R Z, R Ŷ, R ∂ℓ/∂Ŷ and R Δ of one block.
    tangents: Vec<Array2<F>>,
    /// The plans of a whole block and of the last block, if that is smaller.
    plans: Vec<Plan>,
    tiles: ParameterTiles,
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

    /// A block of the samples, counted from its first.
    pub(crate) fn samples<'s, L: Loss<F, Target = T>>(
        &'s self,
        rows: Range<usize>,
        loss: &'s L,
    ) -> Samples<'s, F, impl SampleLoss<F> + 's> {
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
            // Assigned and not multiplied by 0, as in the gradient.
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
    /// Makes the forward and backward passes that all products share. The model is a
    /// [`&Model`](crate::Model), or an [`&Mlp`](Mlp) that reads x as it is.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::NoSamples`](crate::Error::NoSamples) or
    /// [`Error::NotFinite`](crate::Error::NotFinite) for an x that does not fit;
    /// [`Error::Length`](crate::Error::Length), [`Error::Outputs`](crate::Error::Outputs),
    /// [`Error::Label`](crate::Error::Label) or [`Error::Target`](crate::Error::Target) for such a
    /// y; [`Error::Length`](crate::Error::Length) or [`Error::Weight`](crate::Error::Weight) for
    /// such weights; [`Error::Undefined`] for a loss that is not finite;
    /// [`Error::BlasThreads`](crate::Error::BlasThreads).
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
            passes: ranges(samples, block).map(|_| layers()).collect(),
            tangents,
            plans: sizes.map(|samples| Plan::gradient(widths, &shapes, samples)).collect(),
            tiles: ParameterTiles::new(mlp.parameters()),
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
        let Self { mlp, inputs, loss, block, passes, plans, tiles, team, gradient, .. } = self;
        let n = inputs.len();
        let (theta, mean) = (mlp.parameters(), F::from_f64(1.0 / n as f64));
        let data = inputs.samples(0..n, *loss);
        let work = |plan: &Plan| plan.workload() + tiles.workload(plan.samples);
        let sum: f64 = team.enter(passes.len() * work(&plans[0]), |team| {
            let blocks = ranges(n, *block).zip(passes);
            let sums = blocks.map(|(rows, layers)| {
                let plan = plan_of(plans, rows.len());
                team.step(work(plan), || {
                    let sum = plan.run(team, layers, &GradientPass::new(plan, theta, &data, rows.start, false));
                    let beta = if rows.start == 0 { F::ZERO } else { F::ONE };
                    let z_0 = Some(inputs.x.slice(s![rows.clone(), ..]));
                    let batch = BatchLayers { layers, z_0, samples: rows.len() };
                    Update { tiles, team, batch: &batch }.product(mean, beta, gradient);
                    sum
                })
            });
            sums.sum()
        });
        self.value = sum / n as f64;
    }

    /// The network whose parameters are θ.
    #[must_use]
    pub fn mlp(&self) -> &'a Mlp<F> {
        self.mlp
    }

    /// L(θ), the mean w ℓ.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.value
    }

    /// The gradient ∇L(θ).
    #[must_use]
    pub fn gradient(&self) -> &Parameters<F> {
        &self.gradient
    }

    /// `hv` = H v.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a `v` or `hv` of another network;
    /// [`Error::BlasThreads`](crate::Error::BlasThreads).
    pub fn apply(&mut self, v: &Parameters<F>, hv: &mut Parameters<F>) -> Result<()> {
        let theta = self.mlp.parameters();
        theta.check_shape_of("v", v)?;
        theta.check_shape_of("hv", hv)?;
        let _one = one_blas_thread()?;
        let Self { inputs, loss, block, passes, tangents, plans, tiles, team, .. } = self;
        let (curvature, mean) = (inputs.curvature(*loss), F::from_f64(1.0 / inputs.len() as f64));
        let work = |plan: &Plan| 2 * (plan.workload() + tiles.workload(plan.samples));
        team.enter(passes.len() * work(&plans[0]), |team| {
            for (rows, layers) in ranges(inputs.len(), *block).zip(passes) {
                let plan = plan_of(plans, rows.len());
                let beta = if rows.start == 0 { F::ZERO } else { F::ONE };
                let z_0 = inputs.x.slice(s![rows.clone(), ..]);
                let curvature = |r, y_hat: &[F], v: &[F], hv: &mut [F]| curvature(rows.start + r, y_hat, v, hv);
                let pass = TangentPass { theta, v, z_0, layers, curvature };
                team.step(work(plan), || {
                    plan.run(team, tangents, &pass);
                    pass.product(tiles, team, tangents, (mean, beta), hv);
                });
            }
        });
        Ok(())
    }
}

fn plan_of(plans: &[Plan], samples: usize) -> &Plan {
    plans.iter().find(|plan| plan.samples == samples).expect("a whole block or the last")
}
