//! Rung 2, and with native products rungs 3 and 4, are, bit for bit, the program that their
//! equations say: every u, δ and gradient a chain of `mul_add` in one order, written out here on
//! plain vectors.

use std::fmt::Debug;

use gemmprop::rungs::{Trace, batched, matrix_vector, per_neuron};
use gemmprop::{Bias, Generator, Loss, Mlp, Parameters, Products, Scalar, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

/// The standard library's `mul_add`, which `Scalar` cannot be trusted with here.
trait Real: Scalar {
    fn fma(a: Self, b: Self, c: Self) -> Self;
    fn bits(self) -> u64;
}

impl Real for f32 {
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        f32::mul_add(a, b, c)
    }
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Real for f64 {
    fn fma(a: f64, b: f64, c: f64) -> f64 {
        f64::mul_add(a, b, c)
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// One layer: w row by row, and c, which is empty where there is no constant.
struct Layer<F> {
    w: Vec<F>,
    c: Vec<F>,
}

fn layers<F: Real>(theta: &Parameters<F>) -> Vec<Layer<F>> {
    let hidden = theta.w().iter().zip(theta.c()).map(|(w, c)| Layer { w: w.iter().copied().collect(), c: c.to_vec() });
    let head = Layer { w: theta.alpha().iter().copied().collect(), c: theta.b().to_vec() };
    hidden.chain([head]).collect()
}

/// u[1], …, u[T], ŷ.
fn forward<F: Real>(layers: &[Layer<F>], x: &[F]) -> Vec<Vec<F>> {
    let mut z = x.to_vec();
    let mut all = Vec::new();
    for layer in layers {
        let mut u = Vec::new();
        for i in 0..layer.w.len() / z.len() {
            let mut sum = *layer.c.get(i).unwrap_or(&F::ZERO);
            for (j, &z_j) in z.iter().enumerate() {
                sum = F::fma(layer.w[i * z.len() + j], z_j, sum);
            }
            u.push(sum);
        }
        z = relu(&u);
        all.push(u);
    }
    all
}

fn relu<F: Real>(u: &[F]) -> Vec<F> {
    u.iter().map(|&u| if u > F::ZERO { u } else { F::ZERO }).collect()
}

/// The gradient in the order of θ, for δ_ŷ = `dy`.
fn backward<F: Real>(layers: &[Layer<F>], x: &[F], u: &[Vec<F>], dy: &[F]) -> Vec<F> {
    let mut above = dy.to_vec();
    let mut gradient: Vec<F> = Vec::new();
    for (t, layer) in layers.iter().enumerate().rev() {
        let z = if t == 0 { x.to_vec() } else { relu(&u[t - 1]) };
        let mut of_layer = Vec::new();
        for &delta_i in &above {
            for &z_j in &z {
                of_layer.push(F::fma(delta_i, z_j, F::ZERO));
            }
        }
        of_layer.extend(above[..layer.c.len()].iter().map(|&delta_i| F::ZERO + delta_i));
        let mut delta = vec![F::ZERO; z.len()];
        for j in 0..z.len() {
            for (i, &delta_i) in above.iter().enumerate() {
                delta[j] = F::fma(layer.w[i * z.len() + j], delta_i, delta[j]);
            }
            if z[j] <= F::ZERO {
                delta[j] = F::ZERO;
            }
        }
        above = delta;
        of_layer.append(&mut gradient);
        gradient = of_layer;
    }
    gradient
}

fn assert_bits<'a, F: Real + Debug>(what: &str, found: impl IntoIterator<Item = &'a F>, expected: &[F]) {
    let found: Vec<F> = found.into_iter().copied().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.bits(), expected.bits(), "{what}[{i}]: {found:?}, {expected:?}");
    }
}

/// The trace, ∂ŷ_k/∂θ of the last output, and ∇θ ℓ of one sample.
fn is_the_program<F: Real, L: Loss<F>>(mlp: &Mlp<F>, x: ArrayView1<F>, loss: &L, y: &[L::Target]) {
    let layers = layers(mlp.parameters());
    let x = x.to_vec();
    let u = forward(&layers, &x);
    let (hidden, y_hat) = (&u[..mlp.depth()], &u[mlp.depth()]);
    let of_trace = |trace: &Trace<F, ndarray::Ix1>| {
        for (t, u) in hidden.iter().enumerate() {
            assert_bits("u", trace.u(t + 1), u);
            assert_bits("z", trace.z(t + 1), &relu(u));
        }
        assert_bits("y_hat", trace.y_hat(), y_hat);
    };
    let view = ArrayView1::from(&x);
    of_trace(&Trace::new(mlp, view).unwrap());

    let mut g = mlp.zero_gradient();
    let k = mlp.outputs() - 1;
    let mut dy = vec![F::ZERO; mlp.outputs()];
    dy[k] = F::ONE;
    of_trace(&per_neuron::output_gradient(mlp, view, k, &mut g).unwrap());
    assert_bits("∂ŷ_k/∂θ", g.iter(), &backward(&layers, &x, &u, &dy));

    let value = loss.value_and_derivative(y_hat, y, &mut dy);
    assert_bits("ℓ", &[per_neuron::loss_gradient(mlp, view, y, loss, &mut g).unwrap()], &[value]);
    assert_bits("∇θ ℓ", g.iter(), &backward(&layers, &x, &u, &dy));

    // Rungs 3 and 4 on the native engine.
    let mlp = &mlp.clone().with_products(Products::Native).unwrap();
    of_trace(&matrix_vector::forward(mlp, view).unwrap());
    assert_bits("ℓ", &[matrix_vector::loss_gradient(mlp, view, y, loss, &mut g).unwrap()], &[value]);
    assert_bits("∇θ ℓ, rung 3", g.iter(), &backward(&layers, &x, &u, &dy));
    let (batch, targets) = (view.insert_axis(Axis(0)), ArrayView2::from_shape((1, y.len()), y).unwrap());
    let trace = batched::forward(mlp, batch).unwrap();
    assert_bits("ŷ, rung 4", trace.y_hat(), y_hat);
    hidden.iter().enumerate().for_each(|(t, u)| assert_bits("u, rung 4", trace.u(t + 1), u));
    batched::loss_gradient(mlp, batch, targets, loss, &mut g).unwrap();
    assert_bits("∇θ ℓ, rung 4", g.iter(), &backward(&layers, &x, &u, &dy));
    assert_bits("ŷ, predicted", &mlp.predict(batch).unwrap(), y_hat);
}

/// The mean gradient of a batch: the derivative of the loss times 1/B, and chains over the samples.
fn batches_are_chains<F: Real>(widths: &[usize], bias: Bias, samples: usize, seed: u64) {
    let mlp = random_network::<F>(widths, bias, seed).with_products(Products::Native).unwrap();
    let mut generator = Generator::seed_from_u64(seed);
    let mut uniform =
        |columns| Array2::from_shape_simple_fn((samples, columns), || F::from_f64(generator.random_range(-1.0..1.0)));
    let (x, y) = (uniform(widths[0]), uniform(mlp.outputs()));
    let layers = layers(mlp.parameters());
    let mean = F::from_f64(1.0 / samples as f64);
    let mut expected = vec![F::ZERO; mlp.parameters().count()];
    let mut value = 0.0;
    for (x, y) in x.outer_iter().zip(y.outer_iter()) {
        let u = forward(&layers, &x.to_vec());
        let y_hat = &u[mlp.depth()];
        let mut dy = vec![F::ZERO; mlp.outputs()];
        value += SquaredError.value_and_derivative(y_hat, &y.to_vec(), &mut dy).to_f64();
        if samples > 1 {
            dy.iter_mut().for_each(|d| *d = mean * *d);
        }
        accumulate(&layers, &x.to_vec(), &u, &dy, &mut expected);
    }
    let mut g = mlp.zero_gradient();
    let found = batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, &mut g).unwrap();
    assert_bits("gradient of a batch", g.iter(), &expected);
    // Σ ℓ is summed in groups.
    assert!((found - value / samples as f64).abs() <= 1e-12 * value, "{found}");
    let y_hat = mlp.predict(x.view()).unwrap();
    for (x, y_hat) in x.outer_iter().zip(y_hat.outer_iter()) {
        assert_bits("ŷ of a row of a batch", y_hat, &forward(&layers, &x.to_vec())[mlp.depth()]);
    }
}

/// Adds the gradient of a sample to the chains.
fn accumulate<F: Real>(layers: &[Layer<F>], x: &[F], u: &[Vec<F>], dy: &[F], sums: &mut [F]) {
    let mut above = dy.to_vec();
    let mut end = sums.len();
    for (t, layer) in layers.iter().enumerate().rev() {
        let z = if t == 0 { x.to_vec() } else { relu(&u[t - 1]) };
        let start = end - layer.w.len() - layer.c.len();
        let (w, c) = sums[start..end].split_at_mut(layer.w.len());
        for (i, &delta_i) in above.iter().enumerate() {
            for (j, &z_j) in z.iter().enumerate() {
                w[i * z.len() + j] = F::fma(delta_i, z_j, w[i * z.len() + j]);
            }
        }
        c.iter_mut().zip(&above).for_each(|(c, &delta)| *c += delta);
        let mut delta = vec![F::ZERO; z.len()];
        for j in 0..z.len() {
            for (i, &above) in above.iter().enumerate() {
                delta[j] = F::fma(layer.w[i * z.len() + j], above, delta[j]);
            }
            if z[j] <= F::ZERO {
                delta[j] = F::ZERO;
            }
        }
        (above, end) = (delta, start);
    }
}

fn random_network<F: Real>(widths: &[usize], bias: Bias, seed: u64) -> Mlp<F> {
    let mut mlp = Mlp::<F>::he(widths, bias, seed).unwrap();
    let mut generator = Generator::seed_from_u64(seed);
    for (mut w, mut c) in mlp.parameters_mut().layers_mut() {
        c.map_inplace(|c| *c = F::from_f64(generator.random_range(-0.5..0.5)));
        if seed.is_multiple_of(2) {
            w.row_mut(0).fill(F::ZERO);
        }
    }
    mlp
}

/// Some x are 0 or −0, and for every other seed the first row of each w is 0: sums of zeros of both
/// signs occur. Softmax of an output that is far above the others gives a ∂ of −0.
fn random_shapes_agree<F: Real>(widths: &[usize], bias: Bias, seed: u64) {
    let mlp = random_network::<F>(widths, bias, seed);
    let mut generator = Generator::seed_from_u64(seed ^ 1);
    for _ in 0..3 {
        let x = (0..widths[0]).map(|_| match generator.random_range(0..8) {
            0 => F::ZERO,
            1 => -F::ZERO,
            _ => F::from_f64(generator.random_range(-1.0..1.0)),
        });
        let x: Vec<F> = x.collect();
        let y: Vec<F> = (0..mlp.outputs()).map(|_| F::from_f64(generator.random_range(-1.0..1.0))).collect();
        is_the_program(&mlp, ArrayView1::from(&x), &SquaredError, &y);
        if mlp.outputs() > 1 {
            let label = seed as usize % mlp.outputs();
            is_the_program(&mlp, ArrayView1::from(&x), &SoftmaxCrossEntropy, &[label]);
            let mut sure = mlp.clone();
            sure.parameters_mut().b_mut()[label] = F::from_f64(1e4);
            is_the_program(&sure, ArrayView1::from(&x), &SoftmaxCrossEntropy, &[label]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rungs_are_chains_of_mul_add_on_random_shapes(
        widths in prop::collection::vec(prop_oneof![3 => 1..=20_usize, 1 => 21..=130_usize], 2..=6),
        bias in prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]),
        seed in any::<u64>(),
    ) {
        random_shapes_agree::<f32>(&widths, bias, seed);
        random_shapes_agree::<f64>(&widths, bias, seed);
    }

    #[test]
    fn batches_are_chains_of_mul_add_on_random_shapes(
        widths in prop::collection::vec(prop_oneof![3 => 1..=20_usize, 1 => 21..=130_usize], 2..=5),
        bias in prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]),
        // Up to a block of a bias's sum.
        samples in prop_oneof![1..=64_usize, prop::sample::select(vec![1, 2, 4, 5, 7, 8, 15, 16, 17, 31, 33, 45, 46, 64])],
        seed in any::<u64>(),
    ) {
        batches_are_chains::<f32>(&widths, bias, samples, seed);
        batches_are_chains::<f64>(&widths, bias, samples, seed);
    }
}

/// Layers that are phases of their own, cut into rectangles.
#[test]
fn batches_through_wide_layers_are_chains_of_mul_add() {
    for (widths, samples) in [(&[200, 300, 257, 3][..], 40), (&[130, 600, 20, 1], 64), (&[500, 129, 46, 45], 63)] {
        batches_are_chains::<f32>(widths, Bias::EveryLayer, samples, 3);
        batches_are_chains::<f64>(widths, Bias::Input, samples, 3);
    }
}

fn digits_agree<F: Real>() {
    let data = smartcore::dataset::digits::load_dataset();
    let pixels = data.data.iter().map(|&pixel| F::from_f64(f64::from(pixel) / 16.0)).collect();
    let x = Array2::from_shape_vec((data.num_samples, data.num_features), pixels).unwrap();
    let mut mlp = Mlp::<F>::he(&[64, 64, 64, 10], Bias::EveryLayer, 1).unwrap();
    for (i, (_, mut c)) in mlp.parameters_mut().layers_mut().enumerate() {
        c.fill(F::from_f64(0.1 * (i + 1) as f64));
    }
    for (x, &label) in x.outer_iter().zip(&data.target).step_by(9) {
        is_the_program(&mlp, x, &SoftmaxCrossEntropy, &[label as usize]);
    }
}

#[test]
fn rungs_are_chains_of_mul_add_on_handwritten_digits() {
    digits_agree::<f32>();
    digits_agree::<f64>();
}
