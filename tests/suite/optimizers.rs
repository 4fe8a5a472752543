//! Each optimiser, step by step, against its published formula in plain loops over one flat list of
//! f64.
//!
//! ```text
//! Polyak 1964               v ← μ v + g,  θ ← θ − η v
//! Sutskever et al. 2013     v ← μ v + g,  θ ← θ − η (g + μ v)                       η outside of v
//! Kingma and Ba 2015, 1     m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,
//!                           θ ← θ − η m̂ / (√v̂ + ε),  m̂ = m / (1 − β₁ᵏ),  v̂ = v / (1 − β₂ᵏ)
//! Loshchilov and Hutter 2019, 2     in all of them, θ ← … − ηλ θ with the θ before the step
//! Pascanu et al. 2013       before all of it, g ← g c/‖g‖ if ‖g‖ > c
//! Foret et al. 2021         before that, g ← ∇L(θ + ρ g/‖g‖)
//! ```
//!
//! Twice: on dyadic numbers, where nothing is rounded and whole trajectories agree bit for bit,
//! with the per-neuron rung's gradient in f64; and on random ones, where `rungs::bounds` carries a
//! bound along with m and v.

use crate::common;

use common::{Real, flat, gamma, in_f64};
use gemmprop::rungs::bounds::{self, GradientBounds, StepBounds};
use gemmprop::{Bias, Dataset, LearningRate, Loss, Mlp, Optimizer, Sgd, SquaredError, Trainer, TrainingSettings};
use ndarray::{Array2, ArrayView2, Axis};

const CONSTANTS: [Bias; 3] = [Bias::Input, Bias::EveryLayer, Bias::None];

/// (1/B) Σ ∇θ ℓ by the oracle, in f64.
fn oracle<F: Real>(mlp: &Mlp<F>, x: ArrayView2<F>, y: ArrayView2<F>) -> Vec<f64> {
    let mlp = in_f64(mlp);
    let mut sum = vec![0.0; mlp.parameters().count()];
    let mut g = mlp.zero_gradient();
    for (x, y) in x.outer_iter().zip(y.outer_iter()) {
        let (x, y) = (x.mapv(|x| x.to_f64()), y.mapv(|y| y.to_f64()));
        gemmprop::rungs::per_neuron::loss_gradient(&mlp, x.view(), y.as_slice().unwrap(), &SquaredError, &mut g)
            .unwrap();
        sum.iter_mut().zip(g.iter()).for_each(|(sum, g)| *sum += g);
    }
    sum.iter_mut().for_each(|sum| *sum /= x.nrows() as f64);
    sum
}

// ------------------------------------------------------------------------------------------------
// exact arithmetic

/// The exponent of the lowest bit that is set.
fn lowest(a: f64) -> i32 {
    let (exponent, mantissa) = ((a.to_bits() >> 52 & 0x7FF) as i32, a.to_bits() & ((1 << 52) - 1));
    assert!(exponent > 0, "0 or subnormal");
    exponent - 1075 + (mantissa | 1 << 52).trailing_zeros() as i32
}

/// A sum whose terms are multiples of 2^lowest with absolute values that add up to `total`: in any
/// order all its partial sums are numbers of p bits if total < 2^(p + lowest).
#[derive(Clone, Copy)]
struct Sum {
    value: f64,
    total: f64,
    lowest: i32,
}

impl Sum {
    fn of(terms: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let mut sum = Self { value: 0.0, total: 0.0, lowest: i32::MAX };
        for term in terms {
            let term = term?;
            sum.value += term;
            sum.total += term.abs();
            sum.lowest = sum.lowest.min(if term == 0.0 { i32::MAX } else { lowest(term) });
        }
        Some(sum)
    }

    fn exact(self, bits: i32) -> Option<f64> {
        let fits = self.total == 0.0 || self.total < 2_f64.powi(bits.saturating_add(self.lowest).min(1000));
        fits.then_some(self.value)
    }
}

/// a b, if that is a number of at most this number of bits.
fn product(a: f64, b: f64, bits: i32) -> Option<f64> {
    let p = a * b;
    let exact = a.mul_add(b, -p) == 0.0;
    (exact && (p == 0.0 || p.abs() < 2_f64.powi(bits + lowest(p)))).then_some(p)
}

/// g as a sum over the batch, entry by entry; `None` if something on the way to it needs more than
/// this number of bits. Plain loops.
fn exact_gradient(mlp: &Mlp<f64>, x: &Array2<f64>, y: &Array2<f64>, bits: i32) -> Option<Vec<Sum>> {
    let theta = mlp.parameters();
    let w: Vec<_> = theta.w().iter().map(|w| w.view()).chain([theta.alpha()]).collect();
    let c: Vec<_> = theta.c().iter().map(|c| c.view()).chain([theta.b()]).collect();
    let mut terms: Vec<Vec<Option<f64>>> = vec![Vec::new(); theta.count()];
    for (x, y) in x.outer_iter().zip(y.outer_iter()) {
        let mut z = vec![x.to_vec()];
        for (t, (w, c)) in w.iter().zip(&c).enumerate() {
            let mut u = Vec::new();
            for (i, w) in w.outer_iter().enumerate() {
                let products = w.iter().zip(&z[t]).map(|(&w, &z)| product(w, z, 53));
                u.push(Sum::of(products.chain([Some(c.get(i).copied().unwrap_or(0.0))]))?.exact(bits)?);
            }
            if t < mlp.depth() {
                u.iter_mut().for_each(|u| *u = u.max(0.0));
            }
            z.push(u);
        }
        let y_hat = z.pop().unwrap();
        let mut delta = Vec::new();
        for (&y_hat, &y) in y_hat.iter().zip(y) {
            delta.push(Sum::of([Some(y_hat), Some(-y)])?.exact(bits)?);
        }
        let mut end = terms.len();
        for t in (0..w.len()).rev() {
            let start = end - w[t].len() - c[t].len();
            for (i, &delta) in delta.iter().enumerate() {
                for (j, &z) in z[t].iter().enumerate() {
                    terms[start + i * w[t].ncols() + j].push(product(delta, z, 53));
                }
                if !c[t].is_empty() {
                    terms[start + w[t].len() + i].push(Some(delta));
                }
            }
            end = start;
            let mut below = Vec::new();
            for (j, &z) in z[t].iter().enumerate() {
                let column = w[t].column(j);
                let products = column.iter().zip(&delta).map(|(&w, &delta)| product(w, delta, 53));
                // A masked number may be anything.
                below.push(if z > 0.0 { Sum::of(products)?.exact(bits)? } else { 0.0 });
            }
            delta = below;
        }
    }
    terms.into_iter().map(Sum::of).collect()
}

/// θ and v after one step by the formulas above, if nothing is rounded on the way. B and η are
/// powers of two.
fn exact_step(
    training: &TrainingSettings,
    eta: f64,
    batch: usize,
    g: &[Sum],
    v: &mut [f64],
    (theta, keep): (&mut [f64], &[f64]),
    bits: i32,
) -> Option<()> {
    for (((sum, v), theta), &keep) in g.iter().zip(v).zip(theta).zip(keep) {
        let g = sum.exact(bits)? / batch as f64;
        let kept = product(keep, *theta, bits)?;
        let direction = match training.optimizer {
            Optimizer::Sgd => {
                // In plain descent the batch is added up on top of θ, so that all of it has to fit.
                let a = eta / batch as f64;
                let lowest =
                    sum.lowest.saturating_add(a.log2() as i32).min(if kept == 0.0 { i32::MAX } else { lowest(kept) });
                Sum { value: 0.0, total: kept.abs() + a * sum.total, lowest }.exact(bits)?;
                g
            }
            Optimizer::Momentum { mu } => {
                *v = Sum::of([product(mu, *v, bits), Some(g)])?.exact(bits)?;
                *v
            }
            Optimizer::Nesterov { mu } => {
                *v = Sum::of([product(mu, *v, bits), Some(g)])?.exact(bits)?;
                Sum::of([Some(g), product(mu, *v, bits)])?.exact(bits)?
            }
            _ => unreachable!("has roots"),
        };
        *theta = Sum::of([Some(kept), product(-eta, direction, bits)])?.exact(bits)?;
    }
    Some(())
}

/// The factor 1 − ηλ of each number of θ, or 1 for c and b if these do not decay.
fn keep<F: Real>(mlp: &Mlp<F>, training: &TrainingSettings, eta: f64) -> Vec<f64> {
    let decayed = 1.0 - eta * training.weight_decay;
    let of_biases = if training.decay_biases { decayed } else { 1.0 };
    let layers = mlp.parameters().layers();
    layers.flat_map(|(w, c)| [vec![decayed; w.len()], vec![of_biases; c.len()]].concat()).collect()
}

fn integers<F: Real>(widths: &[usize], constant: Bias) -> Mlp<F> {
    common::integer_network(widths, constant, 5)
}

/// Steps with new batches for as long as nothing is rounded. Returns how many there were.
fn exact_trajectory<F: Real>(mlp: Mlp<F>, batch: usize, training: &TrainingSettings, eta: f64) -> usize {
    let bits = if F::U == f64::U { 53 } else { 24 };
    let (widths, constant) = (&mlp.widths().to_vec(), mlp.bias());
    let mut trainer = Trainer::new(mlp, SquaredError, training.clone()).unwrap();
    let mut reference = in_f64(&trainer.model().mlp);
    let mut v = vec![0.0; reference.parameters().count()];
    let keep = keep(&reference, training, eta);
    for step in 0..6 {
        // A third of the numbers are not 0, so that the magnitudes grow slowly.
        let sparse = |columns, seed| {
            common::integers::<F>(batch, columns, seed).mapv(|x| if x.to_f64().abs() == 1.0 { x } else { F::ZERO })
        };
        let (x, y) = (sparse(widths[0], 10 + step), sparse(widths[widths.len() - 1], 20 + step));
        let (x64, y64) = (x.mapv(|x| x.to_f64()), y.mapv(|y| y.to_f64()));
        let Some(g) = exact_gradient(&reference, &x64, &y64, bits) else { return step as usize };
        let mut theta = flat(reference.parameters());
        if exact_step(training, eta, batch, &g, &mut v, (&mut theta, &keep), bits).is_none() {
            return step as usize;
        }
        let g: Vec<f64> = g.iter().map(|g| g.value / batch as f64).collect();
        assert_eq!(g, oracle(&reference, x64.view(), y64.view()), "the loops above and the oracle");
        trainer.step(Dataset::new(x.view(), y.view())).unwrap();
        let found = flat(trainer.model().mlp.parameters());
        assert!(found == theta, "{training:?} {widths:?} {constant:?} B {batch}, step {step}");
        reference.parameters_mut().iter_mut().zip(&theta).for_each(|(to, &from)| *to = from);
    }
    6
}

#[test]
fn descent_with_and_without_momentum_is_exact_where_arithmetic_is() {
    let shapes: [&[usize]; 7] = [&[1, 1], &[7, 1], &[45, 8], &[129, 7, 1], &[7, 8, 1], &[8, 46, 7], &[5, 7, 8, 1]];
    for optimizer in [Optimizer::Sgd, Optimizer::Momentum { mu: 0.5 }, Optimizer::Nesterov { mu: 0.5 }] {
        let mut steps = [0; 2];
        for widths in shapes {
            for constant in CONSTANTS {
                for batch in [1, 2, 8] {
                    // 1 − ηλ = ½; a bound on ‖g‖ that is never met must not change a bit.
                    for (lambda, clip_norm) in [(0.0, None), (2.0, None), (0.0, Some(1e30)), (2.0, Some(1e30))] {
                        let eta = 0.25;
                        let training = TrainingSettings {
                            optimizer,
                            learning_rate: LearningRate::constant(eta),
                            weight_decay: lambda,
                            clip_norm,
                            ..TrainingSettings::default()
                        };
                        let found = [
                            exact_trajectory::<f32>(integers(widths, constant), batch, &training, eta),
                            exact_trajectory::<f64>(integers(widths, constant), batch, &training, eta),
                        ];
                        assert!(found[0] >= 1 && found[1] >= 2, "{widths:?} B {batch} {training:?}: {found:?} steps");
                        steps.iter_mut().zip(found).for_each(|(sum, steps)| *sum += steps);
                    }
                }
            }
        }
        println!("{optimizer:?}: {steps:?} exact steps in {} trajectories", shapes.len() * 3 * 3 * 4);
    }
}

/// 1 − ηλ = ½ for w and alpha, and 1 for c and b: clipped, where the gradient is stored first, and
/// not; of one tile and of several; over both engines.
#[test]
fn biases_that_do_not_decay_are_exact_where_arithmetic_is() {
    let shapes: [&[usize]; 4] = [&[7, 1], &[45, 8], &[7, 8, 1], &[5, 7, 8, 1]];
    for optimizer in [Optimizer::Sgd, Optimizer::Momentum { mu: 0.5 }, Optimizer::Nesterov { mu: 0.5 }] {
        for (widths, constant) in shapes.into_iter().zip(CONSTANTS.into_iter().cycle()) {
            for (&products, clip_norm) in common::products().iter().flat_map(|p| [(p, None), (p, Some(1e30))]) {
                for batch in [1, 8, 300] {
                    let eta = 0.25;
                    let (learning_rate, decay_biases) = (LearningRate::constant(eta), false);
                    let training = TrainingSettings {
                        optimizer,
                        learning_rate,
                        weight_decay: 2.0,
                        clip_norm,
                        ..TrainingSettings::default()
                    };
                    let training = TrainingSettings { decay_biases, ..training };
                    let mlp = integers::<f64>(widths, constant).with_products(products).unwrap();
                    // η/B is a power of two.
                    let batch = if batch == 300 { 512 } else { batch };
                    let found = exact_trajectory(mlp, batch, &training, eta);
                    // Sums over more samples have more bits.
                    let least = if batch > 8 { 1 } else { 2 };
                    assert!(found >= least, "{widths:?} B {batch} {training:?}: {found} steps");
                }
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------
// running bounds

/// A batch with its gradient.
struct Chosen<F> {
    x: Array2<F>,
    y: Array2<F>,
    g: GradientBounds,
}

/// Samples of which no mask can flip, out of as many as it takes; and uphill, where they lead
/// together, none either.
fn batch_for<F: Real>(mlp: &Mlp<F>, sam: Option<f64>, batch: usize, seed: u64) -> Chosen<F> {
    let choose = |seed| {
        let x = common::uniform::<F>(4 * batch + 8, mlp.inputs(), seed);
        let mut chosen = common::certain_rows(mlp, x.view());
        chosen.truncate(batch);
        assert_eq!(chosen.len(), batch);
        let (x, y) = (x.select(Axis(0), &chosen), common::uniform(batch, mlp.outputs(), seed + 1));
        let g = match sam {
            None => bounds::loss_gradient(mlp, x.view(), y.view(), &SquaredError),
            Some(rho) => bounds::sam_gradient(mlp, x.view(), y.view(), &SquaredError, rho),
        };
        let g = g.unwrap();
        g.uncertain.is_empty().then_some(Chosen { x, y, g })
    };
    (0..100).find_map(|attempt| choose(seed + 1000 * attempt)).expect("masks that cannot flip uphill")
}

/// θ after each of some steps: within the bound of the one that starts at the θ before it, with
/// moments carried along.
fn follows_the_formula<F: Real>(mlp: Mlp<F>, batch: usize, training: &TrainingSettings, eta: f64) {
    let (widths, constant) = (&mlp.widths().to_vec(), mlp.bias());
    let keep = keep(&mlp, training, eta);
    let mut trainer = Trainer::new(mlp, SquaredError, training.clone()).unwrap();
    let count = trainer.model().mlp.parameters().count();
    let mut of_steps = StepBounds::new(training.optimizer).unwrap().decay_biases(training.decay_biases);
    let mut clips = 0;
    let steps = if count > 100_000 { 2 } else { 4 };
    for step in 0..steps {
        let Chosen { x, y, mut g } = batch_for(&trainer.model().mlp, training.sam, batch, 100 + 2 * step as u64);
        let before = trainer.model().mlp.clone();
        if let Some(most) = training.clip_norm {
            let norm = g.gradient.norm();
            assert!((norm.value - most).abs() > norm.bound, "too close to tell whether it is clipped");
            clips += usize::from(norm.value > most);
            g = g.clip_norm::<F>(most);
        }
        let expected = of_steps.step(&before, &g, eta, training.weight_decay).unwrap();
        trainer.step(Dataset::new(x.view(), y.view())).unwrap();
        let what = format!("{training:?} {widths:?} {constant:?} B {batch}, step {step}, θ");
        let outside = expected.first_outside(trainer.model().mlp.parameters()).unwrap();
        assert_eq!(outside, None, "{what}");
        // The bounds say something: for nearly all of θ they are far below what a step does; less
        // so by two passes.
        let part = if training.sam.is_some() { 0.05 } else { 0.02 };
        let moved = flat(&expected.value).into_iter().zip(flat(before.parameters())).zip(&keep);
        let typical = moved.map(|((to, from), keep)| (to - keep * from).abs()).sum::<f64>() / count as f64;
        let wide = flat(&expected.bound).into_iter().filter(|&bound| 2.0 * bound > part * typical).count();
        assert!(wide <= count / 10, "{what}: {wide} of {count} bounds are wide");
    }
    assert!(
        training.clip_norm.is_none_or(|most| if most < 1.0 { clips > 0 } else { clips == 0 }),
        "{clips} {training:?}"
    );
}

fn optimizers() -> [(Optimizer, f64); 5] {
    [
        (Optimizer::Sgd, 0.05),
        (Optimizer::Momentum { mu: 0.9 }, 0.05),
        (Optimizer::Nesterov { mu: 0.9 }, 0.05),
        (Optimizer::adam(), 0.01),
        (Optimizer::Adam { beta1: 0.5, beta2: 0.75, epsilon: 1e-3 }, 0.01),
    ]
}

/// With and without weight decay and a point uphill, and unclipped, clipped always, clipped never.
fn settings() -> Vec<(TrainingSettings, f64)> {
    let mut settings = Vec::new();
    for (optimizer, eta) in optimizers() {
        for weight_decay in [0.0, 0.3] {
            for clip_norm in [None, Some(0.05), Some(1e6)] {
                for sam in [None, Some(0.3)] {
                    let learning_rate = LearningRate::constant(eta);
                    let training = TrainingSettings {
                        optimizer,
                        learning_rate,
                        weight_decay,
                        clip_norm,
                        ..TrainingSettings::default()
                    };
                    settings.push((TrainingSettings { sam, ..training }, eta));
                }
            }
        }
    }
    settings
}

#[test]
fn every_optimizer_follows_its_formula_within_a_running_bound() {
    let shapes: [(&[usize], usize); 6] =
        [(&[1, 1], 1), (&[7, 8, 1], 1), (&[8, 7, 3], 5), (&[45, 46, 2], 7), (&[1, 129, 7, 1], 8), (&[46, 1, 45], 3)];
    for (training, eta) in settings() {
        for (i, (widths, batch)) in shapes.into_iter().enumerate() {
            follows_the_formula(common::network::<f32>(widths, CONSTANTS[i % 3], 3), batch, &training, eta);
            follows_the_formula(common::network::<f64>(widths, CONSTANTS[(i + 1) % 3], 3), batch, &training, eta);
        }
    }
}

/// An update of 300 × 1100 is two tiles of 160 and 140 rows, and a chunk is 128 rows of 1100: each
/// tile has two chunks, the second one a ragged one (`chunk_rows` of src/engine/schedule.rs).
#[test]
fn a_layer_of_several_chunks_follows_the_formula_too() {
    for (training, eta) in settings() {
        if training.weight_decay > 0.0 {
            let mlp = common::network::<f64>(&[1100, 300, 2], Bias::EveryLayer, 3);
            follows_the_formula(mlp, 3, &training, eta);
        }
    }
}

#[test]
fn biases_that_do_not_decay_follow_the_formula_of_every_optimizer() {
    let shapes: [(&[usize], usize); 3] = [(&[7, 8, 1], 1), (&[45, 46, 2], 7), (&[46, 1, 45], 3)];
    let settings = settings().into_iter().filter(|(training, _)| training.weight_decay > 0.0);
    for (training, eta) in settings {
        let training = TrainingSettings { decay_biases: false, ..training };
        for (i, (widths, batch)) in shapes.into_iter().enumerate() {
            for &products in common::products() {
                let bias = [Bias::Input, Bias::EveryLayer][i % 2];
                let mlp = common::network::<f32>(widths, bias, 3).with_products(products).unwrap();
                follows_the_formula(mlp, batch, &training, eta);
            }
        }
    }
}

/// ‖g‖ of the record is the last step's, before it is clipped.
fn norm_is_recorded<F: Real>(training: &TrainingSettings) {
    for (widths, batch) in [(&[7, 8, 1][..], 1), (&[45, 46, 3], 9)] {
        let mlp = common::network::<F>(widths, Bias::Input, 3);
        let Chosen { x, y, g, .. } = batch_for(&mlp, training.sam, batch, 7);
        let norm = g.gradient.norm();
        let part = if training.sam.is_some() { 5e-3 } else { 1e-3 };
        let training = TrainingSettings { batch, epochs: 1, ..training.clone() };
        let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
        trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
        let found = trainer.history().records[0].gradient_norm;
        assert!(2.0 * norm.bound < part * norm.value, "{norm:?}");
        assert!((found - norm.value).abs() <= 2.0 * norm.bound, "{found} {norm:?}");
    }
}

#[test]
fn the_history_has_the_norm_of_the_gradient() {
    for (training, _) in settings() {
        norm_is_recorded::<f32>(&training);
        norm_is_recorded::<f64>(&training);
    }
}

/// Σ δx = 3 and Σ δ = 4 over two samples: g = (3, 4)/2, ‖g‖ = 2.5, and with c = 1.25 the factor is
/// ½: all exact.
fn clipping_is_exact<F: Real>() {
    let number = F::from_f64;
    let x = ndarray::array![[number(1.0)], [number(0.0)]];
    let y = ndarray::array![[number(-3.0)], [number(-1.0)]];
    // θ = 0, so that δ = −y.
    let step = |optimizer, clip: f64| {
        let mlp = Mlp::<F>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.0).unwrap();
        let learning_rate = LearningRate::constant(0.5);
        let training =
            TrainingSettings { optimizer, learning_rate, clip_norm: Some(clip), ..TrainingSettings::default() };
        let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
        trainer.step(Dataset::new(x.view(), y.view())).unwrap();
        flat(trainer.model().mlp.parameters())
    };
    for (optimizer, factor) in
        [(Optimizer::Sgd, 1.0), (Optimizer::Momentum { mu: 0.5 }, 1.0), (Optimizer::Nesterov { mu: 0.5 }, 1.5)]
    {
        let expected = |scale: f64| vec![-0.5 * factor * scale * 1.5, -0.5 * factor * scale * 2.0];
        assert_eq!(step(optimizer, 1.25), expected(0.5), "{optimizer:?}");
        assert_eq!(step(optimizer, 2.5), expected(1.0), "{optimizer:?}, ‖g‖ = c");
        assert_eq!(step(optimizer, 2.6), expected(1.0), "{optimizer:?}, ‖g‖ < c");
    }
}

#[test]
fn a_gradient_is_scaled_by_c_over_its_norm_and_left_alone_up_to_c() {
    clipping_is_exact::<f32>();
    clipping_is_exact::<f64>();
}

// ------------------------------------------------------------------------------------------------
// weight decay

/// A loss that is always 0: all gradients are 0, and θ moves by its decay alone.
#[derive(Debug)]
struct Flat;

impl<F: Real> Loss<F> for Flat {
    type Target = F;

    fn target_len(&self, outputs: usize) -> gemmprop::Result<usize> {
        Ok(outputs)
    }

    fn check(&self, _row: usize, _y: &[F], _outputs: usize) -> gemmprop::Result<()> {
        Ok(())
    }

    fn value_and_derivative(&self, _y_hat: &[F], _y: &[F], d: &mut [F]) -> F {
        d.fill(F::ZERO);
        F::ZERO
    }
}

/// (1 − ηλ)ᴺ of θ, whatever ηλ is in F. What is still saved up is below 256 ε; and each β that is
/// applied, one for every 256 ε of decay at the most, rounds once.
fn decay_is_exact<F: Real>(eta: f64, lambda: f64, steps: usize) {
    let epsilon = 2.0 * F::U;
    let [x, y] = [(); 2].map(|()| Array2::from_elem((1000, 1), F::ZERO));
    let new = || Mlp::<F>::from_weights(&[1, 1], Bias::None, 0, |_, _, _| 0.7).unwrap();
    let start = new().parameters().alpha()[(0, 0)].to_f64();
    let decay = -(steps as f64) * (-eta * lambda).ln_1p();
    let applied = (decay / (256.0 * epsilon)) as usize + 1;
    let bound = (256.0 * epsilon).exp_m1() + gamma(applied.min(steps) + 1, F::U) + 8.0 * f64::EPSILON;
    let check = |what: &dyn std::fmt::Debug, mlp: &Mlp<F>| {
        let found = mlp.parameters().alpha()[(0, 0)].to_f64() / start;
        let error = (found / (-decay).exp() - 1.0).abs();
        assert!(
            error <= bound,
            "{what:?} η {eta:e} λ {lambda:e}: 1 − {:e}, expected 1 − {:e}",
            1.0 - found,
            -(-decay).exp_m1()
        );
    };
    let mut mlp = new();
    let mut sgd = Sgd::new(1, eta, 1).unwrap().weight_decay(lambda).unwrap();
    sgd.train(&mut mlp, x.view(), y.view(), &Flat, steps / 1000).unwrap();
    check(&"Sgd", &mlp);
    assert_eq!(mlp.parameters().b()[0], F::ZERO);
    for (optimizer, _) in optimizers() {
        for clip_norm in [None, Some(1.0)] {
            let training = TrainingSettings {
                optimizer,
                learning_rate: LearningRate::constant(eta),
                weight_decay: lambda,
                clip_norm,
                batch: 1,
                epochs: steps / 1000,
                ..TrainingSettings::default()
            };
            let mut trainer = Trainer::new(new(), Flat, training).unwrap();
            trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
            check(&(optimizer, clip_norm), &trainer.model().mlp);
        }
    }
}

/// With gradients of 0, w and alpha shrink and c and b stay, whatever is clipped or uphill; also
/// where the decay is so small that it is applied in one step of several.
#[test]
fn biases_stay_where_they_do_not_decay() {
    let [x, y] = [(); 2].map(|()| Array2::from_elem((40, 3), 0.0));
    let bits = |mlp: &Mlp<f32>, keep: &dyn Fn(f32) -> f32| -> Vec<(Vec<u32>, Vec<u32>)> {
        let layers = mlp.parameters().layers();
        layers
            .map(|(w, c)| (w.iter().map(|w| keep(*w).to_bits()).collect(), c.iter().map(|c| c.to_bits()).collect()))
            .collect()
    };
    for &products in common::products() {
        let new = || common::network::<f32>(&[3, 5, 3], Bias::EveryLayer, 1).with_products(products).unwrap();
        // 1 − ηλ = ½.
        let expected = bits(&new(), &|w| w / 2.0);
        let mut mlp = new();
        let sgd = Sgd::new(40, 0.5, 1).unwrap().weight_decay(1.0).unwrap().decay_biases(false);
        sgd.clone().step(&mut mlp, &x, &y, &Flat).unwrap();
        assert_eq!(bits(&mlp, &|w| w), expected, "Sgd::step");
        let mut mlp = new();
        sgd.clone().train(&mut mlp, &x, &y, &Flat, 1).unwrap();
        assert_eq!(bits(&mlp, &|w| w), expected, "Sgd::train");
        for (optimizer, _) in optimizers() {
            for (clip_norm, sam) in [(None, None), (Some(1.0), None), (None, Some(0.1))] {
                let training =
                    TrainingSettings { optimizer, clip_norm, sam, weight_decay: 1.0, ..TrainingSettings::default() };
                let training = TrainingSettings { learning_rate: 0.5.into(), decay_biases: false, ..training };
                let mut trainer = Trainer::new(new(), Flat, training.clone()).unwrap();
                trainer.step(Dataset::new(&x, &y)).unwrap();
                assert_eq!(bits(&trainer.model().mlp, &|w| w), expected, "{training:?}");
            }
        }
    }
}

#[test]
fn weight_decay_is_exact_however_small_it_is() {
    // 1 − 10⁻⁷ is 1 − 1.19·10⁻⁷ in f32, 1 − 10⁻⁹ is 1; 1 − 10⁻¹⁶ is 1 − 1.11·10⁻¹⁶ in f64, 1 −
    // 10⁻¹⁷ is 1.
    decay_is_exact::<f32>(1e-3, 1e-4, 20_000);
    decay_is_exact::<f32>(1e-3, 1e-6, 100_000);
    decay_is_exact::<f64>(1e-3, 1e-13, 20_000);
    decay_is_exact::<f64>(1e-3, 1e-14, 50_000);
    // Applied at each step.
    decay_is_exact::<f32>(0.1, 1e-2, 2000);
    decay_is_exact::<f64>(0.1, 1e-2, 2000);
}
