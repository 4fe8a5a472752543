//! The bounds of `rungs::bounds` are the ones of which `bounds.rs` shows that they hold: SHA-256 of
//! their values and bounds are constants. A bound that is wider than it was still holds, and no
//! other test would notice. Where the equations of `rungs::bounds` change, so do the digests.

use crate::common;

use common::{Real, flat};
use gemmprop::rungs::bounds::{self, Bounded, BoundedLoss, GradientBounds, StepBounds};
use gemmprop::{Bias, Logistic, Mlp, Optimizer, Parameters, Products, SoftmaxCrossEntropy, SquaredError};
use ndarray::{Array2, ArrayView2};
use sha2::{Digest, Sha256};

const OPTIMIZERS: [Optimizer; 4] = [
    Optimizer::Sgd,
    Optimizer::Momentum { mu: 0.9 },
    Optimizer::Nesterov { mu: 0.9 },
    Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
];

struct Numbers(Sha256);

impl Numbers {
    fn add(&mut self, numbers: impl IntoIterator<Item = f64>) {
        numbers.into_iter().for_each(|number| self.0.update(number.to_bits().to_le_bytes()));
    }

    fn parameters(&mut self, of: &Bounded<Parameters<f64>>) {
        self.add(flat(&of.value));
        self.add(flat(&of.bound));
    }

    fn gradient(&mut self, of: &GradientBounds) {
        self.add([of.loss.value, of.loss.bound]);
        self.parameters(&of.gradient);
        self.add(flat(&of.naive));
        self.add(of.uncertain.iter().flat_map(|mask| [mask.sample, mask.layer, mask.neuron].map(|i| i as f64)));
    }

    /// The first eight digits are enough to tell bounds apart.
    fn digest(self) -> String {
        self.0.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn numbers(add: impl FnOnce(&mut Numbers)) -> String {
    let mut numbers = Numbers(Sha256::new());
    add(&mut numbers);
    numbers.digest()
}

fn forward<F: Real>(mlp: &Mlp<F>, x: ArrayView2<F>) -> String {
    let of = bounds::forward(mlp, x).unwrap();
    numbers(|numbers| {
        for trace in [&of.trace.value, &of.trace.bound] {
            (1..=mlp.depth()).for_each(|t| numbers.add(trace.u(t).iter().copied().chain(trace.z(t).iter().copied())));
            numbers.add(trace.y_hat().iter().copied());
        }
    })
}

/// The gradient, clipped and at the point of SAM; two steps of each optimiser; H v.
fn with_loss<F: Real, L: BoundedLoss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: &Array2<L::Target>,
    loss: &L,
) -> [String; 4] {
    let of_gradient = bounds::loss_gradient(mlp, x, y.view(), loss).unwrap();
    let gradient = numbers(|numbers| numbers.gradient(&of_gradient));
    let clipped = of_gradient.clip_norm::<F>(0.01);
    let other = numbers(|numbers| {
        numbers.gradient(&clipped);
        numbers.gradient(&bounds::sam_gradient(mlp, x, y.view(), loss, 0.05).unwrap());
    });
    let steps = numbers(|numbers| {
        for optimizer in OPTIMIZERS {
            for (g, decay_biases) in [(&of_gradient, false), (&clipped, true)] {
                let mut steps = StepBounds::new(optimizer).unwrap().decay_biases(decay_biases);
                (0..2).for_each(|_| numbers.parameters(&steps.step(mlp, g, 0.125, 0.25).unwrap()));
            }
        }
    });
    let mut v = mlp.zero_gradient();
    v.iter_mut().enumerate().for_each(|(i, v)| *v = F::from_f64(((i * 37) % 29) as f64 / 14.5 - 1.0));
    let product = bounds::hessian_product(mlp, x, y.view(), loss, &v).unwrap().product;
    [gradient, other, steps, numbers(|numbers| numbers.parameters(&product))]
}

/// Every loss, bias and order of sums, and more samples than are in one chain.
fn digests<F: Real>() -> Vec<(&'static str, String)> {
    let network = |widths: &[usize], bias, products, seed| {
        common::network::<F>(widths, bias, seed).with_products(products).unwrap()
    };
    let mut found = Vec::new();
    let mut of = |name, mlp: &Mlp<F>, x: &Array2<F>, of_loss: [String; 4]| {
        let output = bounds::output_gradient(mlp, x.view(), mlp.outputs() - 1).unwrap();
        let first = [forward(mlp, x.view()), numbers(|numbers| numbers.gradient(&output))];
        found.push((name, first.into_iter().chain(of_loss).collect::<Vec<_>>().join(" ")));
    };
    let (mlp, x) = (network(&[5, 7, 6, 2], Bias::EveryLayer, Products::Auto, 3), common::uniform::<F>(9, 5, 4));
    let y = common::uniform::<F>(9, 2, 5);
    of("squared error, any order", &mlp, &x, with_loss(&mlp, x.view(), &y, &SquaredError));
    let mlp = mlp.with_products(Products::Native).unwrap();
    of("squared error, native", &mlp, &x, with_loss(&mlp, x.view(), &y, &SquaredError));
    let labels = Array2::from_shape_fn((9, 1), |(i, _)| i % 2);
    of("softmax, native", &mlp, &x, with_loss(&mlp, x.view(), &labels, &SoftmaxCrossEntropy));
    // Where p is far below ½, the bound of ∂ goes with p.
    let mut sure = network(&[5, 7, 4], Bias::EveryLayer, Products::Auto, 10);
    sure.parameters_mut().alpha_mut().map_inplace(|alpha| *alpha = *alpha * F::from_f64(8.0));
    let labels = Array2::from_shape_fn((9, 1), |(i, _)| i % 4);
    of("softmax, sure of its class", &sure, &x, with_loss(&sure, x.view(), &labels, &SoftmaxCrossEntropy));
    let mlp = network(&[5, 8, 1], Bias::Input, Products::Auto, 6);
    let y = Array2::from_shape_fn((9, 1), |(i, _)| F::from_f64([0.0, 1.0, 0.25][i % 3]));
    of("logistic, any order", &mlp, &x, with_loss(&mlp, x.view(), &y, &Logistic));
    let (mlp, x) = (network(&[2, 3, 1], Bias::None, Products::Native, 7), common::uniform::<F>(2_050, 2, 8));
    let y = common::uniform::<F>(2_050, 1, 9);
    of("two chains of samples", &mlp, &x, with_loss(&mlp, x.view(), &y, &SquaredError));
    // Of α = 0 and b = 0, whose bound after a step is that of the step alone: it loses digits to
    // underflow in single precision.
    let mut mlp = network(&[2, 3, 1], Bias::None, Products::Auto, 11);
    mlp.parameters_mut().alpha_mut().fill(F::ZERO);
    mlp.parameters_mut().b_mut().fill(F::ZERO);
    let small = F::from_f64(f64::from(f32::MAX).powf(-0.97));
    let (x, y) = (common::uniform::<F>(9, 2, 12), common::uniform::<F>(9, 1, 13).mapv(|y| small * y));
    of("what underflows", &mlp, &x, with_loss(&mlp, x.view(), &y, &SquaredError));
    found
}

fn are<F: Real>(expected: &[&str]) {
    let found = digests::<F>();
    let printed: Vec<String> = found.iter().map(|(name, digest)| format!("    \"{digest}\", // {name}")).collect();
    assert!(found.iter().map(|(_, digest)| digest).eq(expected.iter()), "found\n{}", printed.join("\n"));
}

#[test]
fn the_bounds_of_single_precision_are_what_they_were() {
    are::<f32>(&SINGLE);
}

#[test]
fn the_bounds_of_double_precision_are_what_they_were() {
    are::<f64>(&DOUBLE);
}

/// Of: the forward pass; an output's gradient; a loss's; that clipped, and that of SAM; steps; H v.
const SINGLE: [&str; 7] = [
    "c4bbb02a 06475e98 224157a4 ce6a0570 98b4cb5f d0826c69", // squared error, any order
    "131d391e dab7f4af 22e5f7bf 68d45d62 1773171d 72a96808", // squared error, native
    "131d391e dab7f4af 52446651 35ff1a33 f7d3ce82 d6b154c1", // softmax, native
    "305274db 0186ded5 8ece2c6d 08eab5c3 70a49625 0e2e22ca", // softmax, sure of its class
    "e297eaf3 bc9effb7 8eb062fb e69c752c 8d9d19df d585dffd", // logistic, any order
    "5c500fe3 e58ffc76 9fddd760 37e884bd c3414932 b584f936", // two chains of samples
    "7dc38835 15a9043c cad735b8 3c2d6a59 29c5adb9 6fa110d6", // what underflows
];
const DOUBLE: [&str; 7] = [
    "7526e7ee 28a8b69a c2adada9 d7834a1a 707e1a76 b9197f92", // squared error, any order
    "8aecec8e 758ce050 a660a8a3 2df8c0f8 26f8e174 47de7f60", // squared error, native
    "8aecec8e 758ce050 75a7fb65 72ca8727 0cd7531e 9cd19b42", // softmax, native
    "4e9922d9 b4c9f25a 1c6769e1 8673bbeb 02c2d661 2066e961", // softmax, sure of its class
    "dd77f02b 900e21aa 54037648 0b6d49c7 deb30533 3b4deb96", // logistic, any order
    "31faab37 863c5a1f 97592169 46d876ff 2262ae82 e25253cc", // two chains of samples
    "085c4e74 188fb252 094446d3 66bcd09f 8c7481bd ed9c669a", // what underflows
];
