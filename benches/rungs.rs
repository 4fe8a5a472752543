//! The four rungs as one list, and networks on which they must agree bit for bit.

use gemmprop::{
    Bias, Generator, Mlp, Parameters, Scalar,
    rungs::{batched, matrix_vector, naive, per_neuron},
};
use ndarray::{Array2, ArrayView2, s};
use rand::RngExt;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// Samples of one call of the batched rung.
pub const BATCH: usize = 64;

/// T, the number of hidden layers: from 3 on, the naive method costs (size of the graph)².
const DEPTH: usize = 4;

/// One way to compute the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    Naive,
    PerNeuron,
    MatrixVector,
    BatchedGemm,
}

impl Rung {
    pub const ALL: [Self; 4] = [Self::Naive, Self::PerNeuron, Self::MatrixVector, Self::BatchedGemm];

    /// The name of the rung in the CSV files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::PerNeuron => "per_neuron",
            Self::MatrixVector => "matrix_vector",
            Self::BatchedGemm => "batched_gemm",
        }
    }

    /// Samples of one call.
    pub fn batch(self) -> usize {
        if self == Self::BatchedGemm { BATCH } else { 1 }
    }

    /// `g` = Σ ∂ŷ/∂θ over the call's samples, the first rows of x. The same code is timed with
    /// `f32` and counted with `Counted`.
    pub fn gradient<F: Scalar>(self, mlp: &Mlp<F>, x: ArrayView2<F>, g: &mut Parameters<F>) {
        match self {
            Self::Naive => naive::output_gradient(mlp, x.row(0), 0, g).map(drop),
            Self::PerNeuron => per_neuron::output_gradient(mlp, x.row(0), 0, g).map(drop),
            Self::MatrixVector => matrix_vector::output_gradient(mlp, x.row(0), 0, g).map(drop),
            Self::BatchedGemm => batched::output_gradient(mlp, x.slice(s![..BATCH, ..]), 0, g),
        }
        .expect("network, batch and gradient belong together");
    }
}

/// `T` hidden layers as wide as the input, and one output.
pub fn equal_widths(n: usize) -> Vec<usize> {
    let mut widths = vec![n; DEPTH + 1];
    widths.push(1);
    widths
}

/// A network and a batch of small integers, on which the arithmetic of `f32` is exact in any order
/// of the sums: whatever a rung computes wrongly shows, and rounding never does.
///
/// Each hidden neuron has three weights of ±1 on average (more would make the sums outgrow 2²⁴ on
/// the way up) and zeros else; the head's are all ±1. No rung knows that: each multiplies by all of
/// them.
pub fn integers<F: Scalar>(widths: &[usize]) -> (Mlp<F>, Array2<F>) {
    let sign = |generator: &mut Generator| if generator.random_bool(0.5) { 1.0 } else { -1.0 };
    let weight = |t, fan_in: usize, generator: &mut Generator| {
        let share = if t == widths.len() - 2 { 1.0 } else { (3.0 / fan_in as f64).min(1.0) };
        if generator.random_bool(share) { sign(generator) } else { 0.0 }
    };
    let candidate = |seed| {
        let mut mlp = Mlp::from_weights(widths, Bias::Input, seed, weight).expect("valid widths");
        let mut generator = Generator::seed_from_u64(seed + 1);
        for (_, mut c) in mlp.parameters_mut().layers_mut() {
            c.map_inplace(|c| *c = F::from_f64(sign(&mut generator)));
        }
        let number = || F::from_f64(f64::from(generator.random_range(-3..=3)));
        let x = Array2::from_shape_simple_fn((BATCH, widths[0]), number);
        (mlp, x)
    };
    // Few neurons may all be switched off, and a gradient of zeros would agree with anything.
    let shows = |(mlp, x): &(Mlp<F>, Array2<F>)| {
        let mut g = mlp.zero_gradient();
        Rung::PerNeuron.gradient(mlp, x.view(), &mut g);
        g.iter().filter(|&&g| g != F::ZERO).count() > g.count() / 10
    };
    (0..1000).map(candidate).find(shows).expect("most networks show a gradient")
}

/// Asserts that these rungs give the same gradient, bit for bit: on the first sample that of the
/// first rung listed, and summed over the batch that of backpropagation neuron by neuron, itself
/// one of the list.
pub fn assert_agreement(rungs: &[Rung], mlp: &Mlp<f32>, x: ArrayView2<f32>) {
    let mut reference = mlp.zero_gradient();
    rungs[0].gradient(mlp, x, &mut reference);
    let mut sum = mlp.zero_gradient();
    let mut g = mlp.zero_gradient();
    for row in 0..BATCH {
        Rung::PerNeuron.gradient(mlp, x.slice(s![row.., ..]), &mut g);
        if row == 0 {
            assert_eq!(g, reference, "{} and per_neuron at {:?}", rungs[0].name(), mlp.widths());
        }
        sum.iter_mut().zip(g.iter()).for_each(|(sum, g)| *sum += g);
    }
    for &rung in &rungs[1..] {
        g.iter_mut().for_each(|g| *g = f32::NAN);
        rung.gradient(mlp, x, &mut g);
        let expected = if rung == Rung::BatchedGemm { &sum } else { &reference };
        assert_eq!(&g, expected, "{} at {:?}", rung.name(), mlp.widths());
    }
}
