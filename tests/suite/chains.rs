//! Rung 2 is, bit for bit, the program that its equations say: every u, δ and gradient a chain of
//! `mul_add` in one order, written out here on plain vectors.

use std::fmt::Debug;

use gemmprop::rungs::{Trace, per_neuron};
use gemmprop::{Bias, Generator, Loss, Mlp, Parameters, Scalar, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array2, ArrayView1};
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
            for j in 0..z.len() {
                sum = F::fma(layer.w[i * z.len() + j], z[j], sum);
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
            for i in 0..above.len() {
                delta[j] = F::fma(layer.w[i * z.len() + j], above[i], delta[j]);
            }
            if !(z[j] > F::ZERO) {
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
}

/// Some x are 0 or −0, and for every other seed the first row of each w is 0: sums of zeros of both
/// signs occur. Softmax of an output that is far above the others gives a ∂ of −0.
fn random_shapes_agree<F: Real>(widths: &[usize], bias: Bias, seed: u64) {
    let mut mlp = Mlp::<F>::he(widths, bias, seed).unwrap();
    let mut generator = Generator::seed_from_u64(seed);
    for (mut w, mut c) in mlp.parameters_mut().layers_mut() {
        c.map_inplace(|c| *c = F::from_f64(generator.random_range(-0.5..0.5)));
        if seed % 2 == 0 {
            w.row_mut(0).fill(F::ZERO);
        }
    }
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
    fn rung_2_is_chains_of_mul_add_on_random_shapes(
        widths in prop::collection::vec(prop_oneof![3 => 1..=20_usize, 1 => 21..=130_usize], 2..=6),
        bias in prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]),
        seed in any::<u64>(),
    ) {
        random_shapes_agree::<f32>(&widths, bias, seed);
        random_shapes_agree::<f64>(&widths, bias, seed);
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
fn rung_2_is_chains_of_mul_add_on_handwritten_digits() {
    digits_agree::<f32>();
    digits_agree::<f64>();
}
