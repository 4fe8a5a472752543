//! H v of a native network is, bit for bit, the program that its equations say: every number one
//! chain of `mul_add` through both products, written out here on plain vectors.

use crate::common;

use common::{Real, flat, uniform};
use gemmprop::{
    Bias, Dataset, Generator, Mlp, Parameters, Products, SoftmaxCrossEntropy, SquaredError, TwiceDifferentiable,
    curvature::Hessian,
};
use ndarray::{Array2, ArrayView2};
use rand::{RngExt, SeedableRng};

/// The standard library's `mul_add`.
trait Fused: Real {
    fn fma(a: Self, b: Self, c: Self) -> Self;
}

impl Fused for f32 {
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        f32::mul_add(a, b, c)
    }
}

impl Fused for f64 {
    fn fma(a: f64, b: f64, c: f64) -> f64 {
        f64::mul_add(a, b, c)
    }
}

/// w row by row, and c, which is empty where there is no constant.
struct Layer<F> {
    inputs: usize,
    neurons: usize,
    w: Vec<F>,
    c: Vec<F>,
}

impl<F: Fused> Layer<F> {
    fn row(&self, neuron: usize) -> Vec<F> {
        self.w[neuron * self.inputs..][..self.inputs].to_vec()
    }

    fn column(&self, input: usize) -> Vec<F> {
        (0..self.neurons).map(|neuron| self.w[neuron * self.inputs + input]).collect()
    }

    fn constant(&self, neuron: usize) -> F {
        *self.c.get(neuron).unwrap_or(&F::ZERO)
    }
}

fn layers<F: Fused>(theta: &Parameters<F>) -> Vec<Layer<F>> {
    let layer = |w: ArrayView2<F>, c: Vec<F>| {
        let (neurons, inputs) = w.dim();
        Layer { inputs, neurons, w: w.iter().copied().collect(), c }
    };
    let hidden = theta.w().iter().zip(theta.c()).map(|(w, c)| layer(w.view(), c.to_vec()));
    hidden.chain([layer(theta.alpha(), theta.b().to_vec())]).collect()
}

fn chain<F: Fused>(start: F, a: &[F], b: &[F]) -> F {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(start, |sum, (&a, &b)| F::fma(a, b, sum))
}

/// a where z > 0.
fn masked<F: Fused>(a: F, z: F) -> F {
    if z > F::ZERO { a } else { F::ZERO }
}

/// z, δ, R z and R δ of one sample: of each t from 0 to T+1, where z[T+1] is ŷ and δ[0] nothing.
struct Sample<F> {
    z: Vec<Vec<F>>,
    r_z: Vec<Vec<F>>,
    delta: Vec<Vec<F>>,
    r_delta: Vec<Vec<F>>,
}

fn sample<F: Fused, L: TwiceDifferentiable<F>>(
    [theta, v]: [&[Layer<F>]; 2],
    x: &[F],
    (loss, y): (&L, &[L::Target]),
    s: F,
) -> Sample<F> {
    let head = theta.len() - 1;
    let (mut z, mut r_z) = (vec![x.to_vec()], vec![vec![F::ZERO; x.len()]]);
    for (t, (theta, v)) in theta.iter().zip(v).enumerate() {
        let (mut above, mut r_above) = (Vec::new(), Vec::new());
        for j in 0..theta.neurons {
            let u = chain(theta.constant(j), &theta.row(j), &z[t]);
            let first = chain(v.constant(j), &v.row(j), &z[t]);
            let r_u = if t == 0 { first } else { chain(first, &theta.row(j), &r_z[t]) };
            above.push(if t == head { u } else { masked(u, u) });
            r_above.push(if t == head { r_u } else { masked(r_u, u) });
        }
        z.push(above);
        r_z.push(r_above);
    }
    let (y_hat, r_y_hat) = (&z[head + 1], &r_z[head + 1]);
    let (mut d, mut r_d) = (vec![F::ZERO; y_hat.len()], vec![F::ZERO; y_hat.len()]);
    loss.value_and_derivative(y_hat, y, &mut d);
    loss.second_derivative(y_hat, y, r_y_hat, &mut r_d);
    d.iter_mut().chain(&mut r_d).for_each(|d| *d = s * *d);
    let (mut delta, mut r_delta) = (vec![d], vec![r_d]);
    for t in (1..=head).rev() {
        let (above, r_above) = (&delta[head - t], &r_delta[head - t]);
        let inputs = 0..theta[t].inputs;
        let below = inputs.clone().map(|i| masked(chain(F::ZERO, above, &theta[t].column(i)), z[t][i]));
        let r_below = inputs.map(|i| {
            let first = chain(F::ZERO, above, &v[t].column(i));
            masked(chain(first, r_above, &theta[t].column(i)), z[t][i])
        });
        let (below, r_below) = (below.collect(), r_below.collect());
        delta.push(below);
        r_delta.push(r_below);
    }
    for all in [&mut delta, &mut r_delta] {
        all.push(Vec::new());
        all.reverse();
    }
    Sample { z, r_z, delta, r_delta }
}

/// Σ over the samples in blocks of 2048: of a number of w[t] a chain through both products, of a
/// constant's the sum of 64 samples, and those in double precision.
fn sums<F: Fused>(theta: &[Layer<F>], samples: &[Sample<F>]) -> Vec<f64> {
    let mut sums = Vec::new();
    for (t, layer) in theta.iter().enumerate() {
        for (j, i) in (0..layer.neurons).flat_map(|j| (0..layer.inputs).map(move |i| (j, i))) {
            let of_block = |block: &[Sample<F>]| {
                let sum = block.iter().fold(F::ZERO, |sum, b| F::fma(b.r_delta[t + 1][j], b.z[t][i], sum));
                let rest = if t == 0 { &[] } else { block };
                rest.iter().fold(sum, |sum, b| F::fma(b.delta[t + 1][j], b.r_z[t][i], sum))
            };
            sums.push(in_order(samples.chunks(2048).map(of_block)));
        }
        for j in 0..layer.c.len() {
            let of_64 = |block: &[Sample<F>]| block.iter().fold(F::ZERO, |sum, b| sum + b.r_delta[t + 1][j]);
            let of_block = |block: &[Sample<F>]| {
                F::from_f64(block.chunks(64).map(|block| of_64(block).to_f64()).fold(0.0, |sum, b| sum + b))
            };
            sums.push(in_order(samples.chunks(2048).map(of_block)));
        }
    }
    sums
}

fn in_order<F: Fused>(blocks: impl Iterator<Item = F>) -> f64 {
    blocks.reduce(|sum, block| sum + block).unwrap().to_f64()
}

fn numbers<F: Fused>(mlp: &Mlp<F>, seed: u64) -> Parameters<F> {
    let (mut p, mut generator) = (mlp.zero_gradient(), Generator::seed_from_u64(seed));
    p.iter_mut().for_each(|p| *p = F::from_f64(generator.random_range(-1.0..1.0)));
    p
}

fn is_the_program<F: Fused, L: TwiceDifferentiable<F>>(
    widths: &[usize],
    bias: Bias,
    y: &Array2<L::Target>,
    loss: &L,
    seed: u64,
) {
    let n = y.nrows();
    let mlp = common::network::<F>(widths, bias, seed).with_products(Products::Native).unwrap();
    let (x, v) = (uniform::<F>(n, widths[0], seed + 1), numbers(&mlp, seed + 2));
    let mut hv = numbers(&mlp, seed + 3);
    Hessian::new(&mlp, Dataset::new(x.view(), y.view()), loss).unwrap().apply(&v, &mut hv).unwrap();

    let (theta, v) = (layers(mlp.parameters()), layers(&v));
    let s = F::from_f64(1.0 / n as f64);
    let rows = x.outer_iter().zip(y.outer_iter());
    let samples: Vec<_> = rows.map(|(x, y)| sample([&theta, &v], &x.to_vec(), (loss, &y.to_vec()), s)).collect();
    let expected = sums(&theta, &samples);
    for (i, (found, expected)) in flat(&hv).iter().zip(&expected).enumerate() {
        // == and not the bits, since the sign of 0 is left open.
        assert!(found == expected, "{widths:?} {bias:?} n {n} [{i}]: {found:e}, by the equations {expected:e}");
    }
    assert_eq!(expected.len(), mlp.parameters().count());
    assert!(expected.iter().any(|&hv| hv != 0.0), "{widths:?} {bias:?} n {n} seed {seed}: nothing to compare");
}

fn of_both_types(widths: &[usize], bias: Bias, n: usize, seed: u64) {
    let m = widths[widths.len() - 1];
    if m > 1 && seed.is_multiple_of(2) {
        let labels = Array2::from_shape_fn((n, 1), |(i, _)| i * 5 % m);
        is_the_program::<f32, _>(widths, bias, &labels, &SoftmaxCrossEntropy, seed);
        is_the_program::<f64, _>(widths, bias, &labels, &SoftmaxCrossEntropy, seed);
    } else {
        is_the_program::<f32, _>(widths, bias, &uniform(n, m, seed + 4), &SquaredError, seed);
        is_the_program::<f64, _>(widths, bias, &uniform(n, m, seed + 4), &SquaredError, seed);
    }
}

#[test]
fn products_are_chains_on_random_shapes() {
    let mut generator = Generator::seed_from_u64(1);
    for seed in 0..120 {
        // A first layer of 24 or more, so that hardly any network has no neuron that is on.
        let mut widths = vec![generator.random_range(1..50)];
        for t in 0..generator.random_range(0..4) {
            widths.push(generator.random_range(if t == 0 { 24..50 } else { 8..50 }));
        }
        widths.push(generator.random_range(1..36));
        let bias = [Bias::Input, Bias::EveryLayer, Bias::None][generator.random_range(0..3)];
        of_both_types(&widths, bias, generator.random_range(1..90), seed);
    }
}

/// Phases that are cut by neurons, samples side by side and neurons side by side, tall batches, and
/// more samples than one chain.
#[test]
fn products_are_chains_where_work_is_cut() {
    for (seed, (widths, n)) in [
        (&[140, 150, 160, 40][..], 70),
        (&[150, 140, 21], 300),
        (&[20, 300, 40, 3], 33),
        (&[300, 30], 129),
        (&[3, 24, 9, 2], 2048 + 37),
        (&[5, 17], 4096 + 3),
        (&[2, 24, 24, 1], 1500),
    ]
    .into_iter()
    .enumerate()
    {
        of_both_types(widths, Bias::EveryLayer, n, seed as u64);
        of_both_types(widths, Bias::Input, n, seed as u64 + 1);
    }
}
