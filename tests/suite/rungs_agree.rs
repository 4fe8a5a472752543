//! The four rungs compute the same gradient: on random networks within the rounding bounds of
//! `common`, on small whole numbers bit for bit.

use crate::common;

use std::cell::Cell;
use std::ops::AddAssign;

use common::{BoundedLoss, Bounds, Forward, Real, Reference, Seed, assert_within, first_violation, flat};
use gemmprop::{
    Bias, Logistic, Loss, Mlp, Parameters, Sgd, SoftmaxCrossEntropy, SquaredError,
    rungs::{Trace, batched, matrix_vector, naive, per_neuron},
};
use ndarray::{Array1, Array2, Axis, Ix1};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A random network and a batch for it.
#[derive(Debug, Clone)]
struct Case {
    widths: Vec<usize>,
    constant: Bias,
    batch: usize,
    seed: u64,
}

fn width() -> impl Strategy<Value = usize> {
    // Beside widths drawn at random: the smallest, those around a kernel's tile of 8, those around
    // the size at which a fast path could hand over to another, and one more than a power of two.
    prop_oneof![4 => 1..=20_usize, 2 => 21..=129_usize, 2 => prop::sample::select(vec![1, 7, 8, 45, 46, 129])]
}

fn case() -> impl Strategy<Value = Case> {
    let constant = prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]);
    let outputs = prop_oneof![1 => Just(1_usize), 1 => 2..=6_usize];
    let hidden =
        prop_oneof![1 => Just(0_usize), 9 => 1..=6_usize].prop_flat_map(|depth| prop::collection::vec(width(), depth));
    let batch = prop_oneof![1 => Just(1_usize), 6 => 2..=70_usize];
    (width(), hidden, outputs, constant, batch, any::<u64>()).prop_map(
        |(inputs, hidden, outputs, constant, batch, seed)| {
            let widths = [inputs].into_iter().chain(hidden).chain([outputs]).collect();
            Case { widths, constant, batch, seed }
        },
    )
}

/// What a run of many cases has met.
#[derive(Debug, Default)]
struct Tally {
    samples: Cell<usize>,
    /// Those whose masks no rounding can flip, and which are compared.
    kept: Cell<usize>,
    /// Those compared with rung 1 as well.
    with_naive: Cell<usize>,
}

fn add<T: Copy + AddAssign>(cell: &Cell<T>, more: T) {
    let mut sum = cell.get();
    sum += more;
    cell.set(sum);
}

/// Writes the gradient of sample i.
type Rung<'a, F> = &'a dyn Fn(usize, &mut Parameters<F>);

/// The samples of a case that can be compared, and the network.
struct Kept<F> {
    mlp: Mlp<F>,
    reference: Reference,
    x: Array2<F>,
    forwards: Vec<Forward>,
    /// How many of the samples rung 1, which is quadratic, can be asked for in reasonable time.
    with_naive: usize,
}

fn keep<F: Real>(case: &Case) -> Kept<F> {
    let mlp = common::network::<F>(&case.widths, case.constant, case.seed);
    let reference = Reference::new(&mlp);
    let x = common::uniform::<F>(case.batch, mlp.inputs(), case.seed ^ 1);
    let (kept, forwards): (Vec<usize>, Vec<Forward>) =
        (0..case.batch).filter_map(|i| Some((i, reference.forward(x.row(i))?))).unzip();
    let edges = mlp.graph_size().0;
    let with_naive = (4_000_000 / (edges * edges * mlp.outputs())).min(kept.len());
    Kept { reference, x: x.select(Axis(0), &kept), forwards, with_naive, mlp }
}

impl<F: Real> Kept<F> {
    /// u, z and ŷ of every forward pass are within e of the exact ones, with the same masks.
    fn forward_passes_agree(&self) {
        let traces = batched::forward(&self.mlp, self.x.view()).unwrap();
        let predicted = self.mlp.predict(self.x.view()).unwrap();
        for (i, (x, exact)) in self.x.outer_iter().zip(&self.forwards).enumerate() {
            let close = |what: &str, found: Array1<F>, exact: &[f64], e: &[f64]| {
                let found: Vec<f64> = found.iter().map(|a| a.to_f64()).collect();
                assert_within(what, &found, e, exact, e);
            };
            let trace_is_close = |trace: &Trace<F, Ix1>| {
                for t in 1..=self.mlp.depth() {
                    close("u", trace.u(t).clone(), &exact.u[t - 1], &exact.e_u[t - 1]);
                    close("z", trace.z(t).clone(), &exact.z[t], &exact.e_z[t]);
                }
                close("y_hat", trace.y_hat().clone(), &exact.y_hat, &exact.e_y_hat);
            };
            trace_is_close(&Trace::new(&self.mlp, x).unwrap());
            trace_is_close(&matrix_vector::forward(&self.mlp, x).unwrap());
            for t in 1..=self.mlp.depth() {
                close("u of the batch", traces.u(t).row(i).to_owned(), &exact.u[t - 1], &exact.e_u[t - 1]);
                close("z of the batch", traces.z(t).row(i).to_owned(), &exact.z[t], &exact.e_z[t]);
            }
            close("y_hat of the batch", traces.y_hat().row(i).to_owned(), &exact.y_hat, &exact.e_y_hat);
            close("predicted", predicted.row(i).to_owned(), &exact.y_hat, &exact.e_y_hat);
        }
    }

    /// Rungs 1, 2 and 3 sample by sample. Returns the mean of rung 2's gradients over the batch,
    /// and the mean bounds.
    fn samples_agree(&self, seeds: &[Seed], rungs: [Rung<F>; 3]) -> (Vec<f64>, Bounds) {
        let batch = self.forwards.len();
        let mut sum = vec![0.0; self.mlp.parameters().count()];
        let mut sum_of_bounds = self.reference.no_bounds();
        let mut g = self.mlp.zero_gradient();
        let mut gradient = |rung: usize, i: usize| {
            rungs[rung](i, &mut g);
            flat(&g)
        };
        for (i, (forward, seed)) in self.forwards.iter().zip(seeds).enumerate() {
            let mut bounds = self.reference.no_bounds();
            self.reference.add_bounds(forward, seed, batch, &mut bounds);
            self.reference.add_bounds(forward, seed, batch, &mut sum_of_bounds);
            let by_neuron = gradient(1, i);
            let by_matrix = gradient(2, i);
            assert_within("per_neuron, matrix_vector", &by_neuron, &bounds.fast, &by_matrix, &bounds.fast);
            if i < self.with_naive {
                let by_edge = gradient(0, i);
                assert_within("naive, per_neuron", &by_edge, &bounds.naive, &by_neuron, &bounds.fast);
            }
            sum.iter_mut().zip(&by_neuron).for_each(|(sum, g)| *sum += g);
        }
        let mean = sum.iter().map(|g| g / batch as f64).collect();
        (mean, sum_of_bounds.mean(batch))
    }

    /// ∂ŷ_k/∂θ
    fn output_gradients_agree(&self, k: usize) {
        let batch = self.forwards.len();
        let seeds = vec![Seed::unit(k, self.mlp.outputs()); batch];
        let (mlp, x) = (&self.mlp, |i: usize| self.x.row(i));
        let (mean, bounds) = self.samples_agree(
            &seeds,
            [
                &|i, g| drop(naive::output_gradient(mlp, x(i), k, g).unwrap()),
                &|i, g| drop(per_neuron::output_gradient(mlp, x(i), k, g).unwrap()),
                &|i, g| drop(matrix_vector::output_gradient(mlp, x(i), k, g).unwrap()),
            ],
        );
        let mut g = mlp.zero_gradient();
        batched::output_gradient(mlp, self.x.view(), k, &mut g).unwrap();
        // The batch gives the sum; here and there the division rounds once, as the bound's mean
        // does.
        let by_batch: Vec<f64> = flat(&g).iter().map(|g| g / batch as f64).collect();
        assert_within("per_neuron, batched", &mean, &bounds.fast, &by_batch, &bounds.fast);
    }

    /// ∇θ ℓ, the value of ℓ, and a step of SGD.
    fn loss_gradients_agree<L: BoundedLoss<F>>(&self, loss: &L, y: &Array2<<L as Loss<F>>::Target>) {
        let batch = self.forwards.len();
        let target = |i: usize| y.row(i).to_slice().unwrap();
        let seeds: Vec<Seed> = (0..batch).map(|i| loss.seed(self.reference.u, &self.forwards[i], target(i))).collect();
        let value_is_close =
            |found: f64, value: f64, error: f64| assert_within("loss", &[found], &[error], &[value], &[error]);
        let (mlp, x) = (&self.mlp, |i: usize| self.x.row(i));
        let sample = |i: usize, value: F| value_is_close(value.to_f64(), seeds[i].loss, seeds[i].loss_error);
        let (mean, bounds) = self.samples_agree(
            &seeds,
            [
                &|i, g| sample(i, naive::loss_gradient(mlp, x(i), target(i), loss, g).unwrap()),
                &|i, g| sample(i, per_neuron::loss_gradient(mlp, x(i), target(i), loss, g).unwrap()),
                &|i, g| sample(i, matrix_vector::loss_gradient(mlp, x(i), target(i), loss, g).unwrap()),
            ],
        );
        let mut g = mlp.zero_gradient();
        let value = batched::loss_gradient(mlp, self.x.view(), y.view(), loss, &mut g).unwrap();
        assert_within("per_neuron, batched", &mean, &bounds.fast, &flat(&g), &bounds.fast);
        let mean_of = |f: fn(&Seed) -> f64| seeds.iter().map(f).sum::<f64>() / batch as f64;
        let (mean_loss, mean_error) = (mean_of(|seed| seed.loss), mean_of(|seed| seed.loss_error));
        // The sum of the losses and its division are made in f64.
        let mean_error = mean_error + common::gamma(batch + 1, f64::EPSILON) * (mean_loss + mean_error);
        value_is_close(value, mean_loss, mean_error);

        // θ − η g in one product: its factor −η/B rounds once more, and so does the sum with θ.
        let eta = 0.125;
        let mut stepped = mlp.clone();
        let value = Sgd::new(batch, eta, 0).unwrap().step(&mut stepped, self.x.view(), y.view(), loss).unwrap();
        value_is_close(value, mean_loss, mean_error);
        let theta = flat(mlp.parameters());
        let expected: Vec<f64> = theta.iter().zip(&mean).map(|(theta, g)| theta - eta * g).collect();
        let of_update = common::gamma(batch + 4, self.reference.u);
        let of_step: Vec<f64> = (0..theta.len())
            .map(|p| eta * bounds.fast[p] + of_update * (theta[p].abs() + eta * (bounds.magnitude[p] + bounds.fast[p])))
            .collect();
        assert_within("step", &flat(stepped.parameters()), &of_step, &expected, &of_step);
    }

    fn all_agree(&self, seed: u64) {
        let (batch, outputs) = (self.forwards.len(), self.mlp.outputs());
        self.forward_passes_agree();
        self.output_gradients_agree(seed as usize % outputs);
        self.loss_gradients_agree(&SquaredError, &common::uniform(batch, outputs, seed ^ 2));
        if outputs == 1 {
            let y = common::uniform::<F>(batch, 1, seed ^ 3).mapv(|y| if y > F::ZERO { F::ONE } else { F::ZERO });
            self.loss_gradients_agree(&Logistic, &y);
        } else {
            self.loss_gradients_agree(&SoftmaxCrossEntropy, &Array2::from_shape_fn((batch, 1), |(i, _)| i % outputs));
        }
    }
}

fn rungs_agree<F: Real>() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&case(), |case| {
        let kept = keep::<F>(&case);
        add(&tally.samples, case.batch);
        add(&tally.kept, kept.forwards.len());
        add(&tally.with_naive, kept.with_naive);
        if !kept.forwards.is_empty() {
            kept.all_agree(case.seed);
        }
        Ok(())
    });
    println!("{tally:?}");
    run.unwrap();
    // In f32 a mask of a deep, wide network can hardly be proved: its bound on u is the product of
    // all |w| below.
    assert!(2 * tally.kept.get() > tally.samples.get(), "most samples were left out: {tally:?}");
    assert!(tally.with_naive.get() > 100, "the oracle was hardly asked: {tally:?}");
}

#[test]
fn the_four_rungs_agree_on_random_networks_in_f32() {
    rungs_agree::<f32>();
}

#[test]
fn the_four_rungs_agree_on_random_networks_in_f64() {
    rungs_agree::<f64>();
}

/// The three shapes that are compared most.
#[test]
fn the_bounds_are_far_below_the_gradient_and_a_hundred_times_the_bound_is_caught() {
    for (widths, batch, below) in [(&[8, 8, 1][..], 32, 1e-4), (&[64, 64, 64, 1], 32, 2e-3), (&[129, 46, 10], 70, 2e-3)]
    {
        let case = Case { widths: widths.to_vec(), constant: Bias::EveryLayer, batch, seed: 5 };
        let kept = keep::<f32>(&case);
        let batch = kept.forwards.len();
        assert!(batch > 0);
        let y = common::uniform::<f32>(batch, kept.mlp.outputs(), 6);
        let mut bounds = kept.reference.no_bounds();
        for (i, forward) in kept.forwards.iter().enumerate() {
            let seed = SquaredError.seed(kept.reference.u, forward, y.row(i).to_slice().unwrap());
            kept.reference.add_bounds(forward, &seed, batch, &mut bounds);
        }
        let bounds = bounds.mean(batch);
        let mut g = kept.mlp.zero_gradient();
        batched::loss_gradient(&kept.mlp, kept.x.view(), y.view(), &SquaredError, &mut g).unwrap();
        let g = flat(&g);
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        println!("{widths:?}: bound/gradient {:.1e}, kept {batch}", norm(&bounds.fast) / norm(&g));
        assert!(norm(&bounds.fast) < below * norm(&g), "{widths:?}: {:e}", norm(&bounds.fast) / norm(&g));
        assert_eq!(first_violation(&g, &bounds.fast, &g, &bounds.fast), None);
        for p in 0..g.len() {
            let mut wrong = g.clone();
            wrong[p] += 100.0 * bounds.fast[p].max(f64::from(f32::MIN_POSITIVE));
            assert_eq!(first_violation(&g, &bounds.fast, &wrong, &bounds.fast), Some(p));
        }
    }
}

/// Sums of small whole numbers below 2²⁴ are exact in f32 in any order; so is the division by a
/// power of two. Then the four rungs have nothing to differ in.
fn integers_agree<F: Real>(case: &Case) {
    let mlp = common::integer_network::<F>(&case.widths, case.constant, case.seed);
    let (batch, outputs) = (case.batch, mlp.outputs());
    let x = common::integers::<F>(batch, mlp.inputs(), case.seed ^ 1);
    let y = common::integers::<F>(batch, outputs, case.seed ^ 2);
    let target = |i: usize| y.row(i).to_slice().unwrap();

    let mut sum = mlp.zero_gradient();
    for i in 0..batch {
        for k in 0..outputs {
            let mut g = [(); 4].map(|()| mlp.zero_gradient());
            naive::output_gradient(&mlp, x.row(i), k, &mut g[0]).unwrap();
            per_neuron::output_gradient(&mlp, x.row(i), k, &mut g[1]).unwrap();
            matrix_vector::output_gradient(&mlp, x.row(i), k, &mut g[2]).unwrap();
            batched::output_gradient(&mlp, x.row(i).insert_axis(Axis(0)), k, &mut g[3]).unwrap();
            assert!(g[1..].iter().all(|g_rung| *g_rung == g[0]), "∂ŷ_{k}/∂θ, sample {i} of {case:?}");
        }
        let mut g = [(); 4].map(|()| mlp.zero_gradient());
        naive::loss_gradient(&mlp, x.row(i), target(i), &SquaredError, &mut g[0]).unwrap();
        per_neuron::loss_gradient(&mlp, x.row(i), target(i), &SquaredError, &mut g[1]).unwrap();
        matrix_vector::loss_gradient(&mlp, x.row(i), target(i), &SquaredError, &mut g[2]).unwrap();
        let row = |a: &Array2<F>| a.select(Axis(0), &[i]);
        batched::loss_gradient(&mlp, row(&x).view(), row(&y).view(), &SquaredError, &mut g[3]).unwrap();
        assert!(g[1..].iter().all(|g_rung| *g_rung == g[0]), "∇θℓ, sample {i} of {case:?}");
        sum.iter_mut().zip(g[0].iter()).for_each(|(sum, &g)| *sum += g);
    }

    // The premise: no sum of absolute values reaches 2²⁴, forward or along all paths backward, and
    // neither does 16 (θ − g/16).
    let reference = Reference::exact(&mlp);
    let mut bounds = reference.no_bounds();
    let exact = f64::from(1 << 24);
    for (i, x) in x.outer_iter().enumerate() {
        let forward = reference.forward(x).expect("no rounding");
        assert!(reference.largest_partial_sum(&forward) < exact, "not small enough to be exact: {case:?}");
        let seed = BoundedLoss::<F>::seed(&SquaredError, 0.0, &forward, target(i));
        reference.add_bounds(&forward, &seed, batch, &mut bounds);
    }
    assert!(bounds.paths.iter().all(|&sum| sum + 16.0 < exact), "not small enough to be exact: {case:?}");

    // The mean over a batch whose size is a power of two.
    let (mut mean, part) = (sum.clone(), F::from_f64(1.0 / batch as f64));
    mean.iter_mut().for_each(|g| *g = part * *g);
    let mut g = mlp.zero_gradient();
    batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, &mut g).unwrap();
    assert!(g == mean, "mean of {case:?}");

    // One epoch of one batch, by hand from the oracle's gradients: θ − (η/B) Σ, with η/B = 2⁻⁴;
    // whatever the shuffle.
    let mut by_hand = mlp.clone();
    let step = F::from_f64(1.0 / 16.0);
    by_hand.parameters_mut().iter_mut().zip(sum.iter()).for_each(|(p, &g)| *p = *p - step * g);
    let mut trained = mlp.clone();
    let mut sgd = Sgd::new(batch, batch as f64 / 16.0, case.seed).unwrap();
    sgd.train(&mut trained, x.view(), y.view(), &SquaredError, 1).unwrap();
    assert!(trained == by_hand, "a step of {case:?}");
}

#[test]
fn on_small_whole_numbers_the_four_rungs_and_a_step_of_sgd_agree_bit_for_bit() {
    let constant = prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]);
    let narrow = (prop::collection::vec(1..=6_usize, 1..=3), 1..=3_usize);
    let wide = (prop::collection::vec(1..=70_usize, 1..=2), 1..=3_usize);
    let batch = prop::sample::select(vec![1, 2, 4, 8, 16]);
    let cases = (prop_oneof![narrow, wide], constant, batch, any::<u64>()).prop_map(
        |((mut widths, outputs), constant, batch, seed)| {
            widths.push(outputs);
            Case { widths, constant, batch, seed }
        },
    );
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&cases, |case| {
            integers_agree::<f32>(&case);
            integers_agree::<f64>(&case);
            Ok(())
        })
        .unwrap();
}
