//! Multiplications, counted in the code that runs, equal the closed formulas exactly.
//!
//! With layer widths d₀ … d_T, E = Σ d_t d_{t+1} over the hidden layers' matrices and m outputs:
//!
//! - forward: E + m d_T
//! - backward: 2E − d₀d₁ + 2 m d_T (the gradient of the input itself is not formed; without a
//!   hidden layer m d₀)
//! - naive, ∂ŷ_k/∂θ, structural zeros skipped: 2 d_{T−1} d_T + Σ_{t≤T−2} d_t d_{t+1} (1 + d_{t+2} +
//!   Σ_{s=t+2}^{T−1} d_s d_{s+1} + d_T)
//!
//! The edge of a bias is not multiplied by the constant 1: it adds nothing forward and backward; in
//! the naive method it costs what the others of its layer do but for that one multiplication.

use gemmprop::rungs::count::{Counted, multiplications};
use gemmprop::{
    Bias, Mlp,
    rungs::{Trace, batched, matrix_vector, naive, per_neuron},
};
use ndarray::Array2;
use proptest::prelude::*;

/// `widths` are d₀ … d_T, m.
struct Formulas<'a> {
    widths: &'a [usize],
    constant: Bias,
}

impl Formulas<'_> {
    fn depth(&self) -> usize {
        self.widths.len() - 2
    }

    /// d_t d_{t+1}
    fn edges(&self, t: usize) -> usize {
        self.widths[t] * self.widths[t + 1]
    }

    fn head(&self) -> usize {
        self.edges(self.depth())
    }

    fn forward(&self) -> usize {
        (0..self.depth()).map(|t| self.edges(t)).sum::<usize>() + self.head()
    }

    fn backward(&self) -> usize {
        2 * self.forward() - self.edges(0)
    }

    fn naive(&self) -> usize {
        let d = self.widths;
        let last = self.depth();
        (0..last)
            .map(|t| {
                // What lies between u[t+1] and one output, for an edge into layer t+1.
                let above = match t + 1 == last {
                    true => 1,
                    false => d[t + 2] + (t + 2..last).map(|s| self.edges(s)).sum::<usize>() + d[last],
                };
                let constant = match self.constant {
                    Bias::Input => t == 0,
                    Bias::EveryLayer => true,
                    Bias::None => false,
                };
                self.edges(t) * (1 + above) + usize::from(constant) * d[t + 1] * above
            })
            .sum()
    }
}

fn inputs(widths: &[usize], batch: usize) -> Array2<Counted> {
    Array2::from_shape_fn((batch, widths[0]), |(i, j)| Counted(((i * 5 + j * 3) % 7) as f64 - 3.0))
}

fn check(widths: &[usize], constant: Bias, batch: usize) {
    let formulas = Formulas { widths, constant };
    let mlp = Mlp::<Counted>::he(widths, constant, 3).unwrap();
    let x = inputs(widths, batch);
    let mut g = mlp.zero_gradient();
    let forward = multiplications(|| Trace::new(&mlp, x.row(0)).map(drop)).1 as usize;
    assert_eq!(forward, formulas.forward(), "forward {widths:?} {constant:?}");
    let by_matrices = multiplications(|| matrix_vector::forward(&mlp, x.row(0)).map(drop)).1 as usize;
    assert_eq!(by_matrices, forward, "matrix-vector forward {widths:?} {constant:?}");
    let whole_batch = multiplications(|| batched::forward(&mlp, x.view()).map(drop)).1 as usize;
    assert_eq!(whole_batch, batch * forward, "batched forward {widths:?} {constant:?}");
    let predicted = multiplications(|| mlp.predict(x.view()).map(drop)).1 as usize;
    assert_eq!(predicted, batch * forward, "predict {widths:?} {constant:?}");

    // Each of these first makes a forward pass.
    let k = mlp.outputs() - 1;
    let mut backward_of =
        |name: &str, samples: usize, rung: &mut (dyn FnMut(&mut gemmprop::Parameters<Counted>) + Send)| {
            let count = multiplications(|| rung(&mut g)).1 as usize;
            let expected = if name == "naive" { formulas.naive() } else { formulas.backward() };
            assert_eq!(count - samples * forward, samples * expected, "{name} {widths:?} {constant:?} B {samples}");
        };
    backward_of("naive", 1, &mut |g| drop(naive::output_gradient(&mlp, x.row(0), k, g).unwrap()));
    backward_of("per neuron", 1, &mut |g| drop(per_neuron::output_gradient(&mlp, x.row(0), k, g).unwrap()));
    backward_of("matrix-vector", 1, &mut |g| drop(matrix_vector::output_gradient(&mlp, x.row(0), k, g).unwrap()));
    backward_of("batched", batch, &mut |g| batched::output_gradient(&mlp, x.view(), k, g).unwrap());
}

fn constants() -> impl Strategy<Value = Bias> {
    prop_oneof![Just(Bias::Input), Just(Bias::EveryLayer), Just(Bias::None)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn counts_equal_the_closed_formulas(
        widths in prop::collection::vec(1_usize..12, 2..8), constant in constants(), batch in 1_usize..9,
    ) {
        check(&widths, constant, batch);
    }
}

/// d₀ … d_T of the design's table, with one output; naive and backward.
#[test]
fn the_four_of_the_table() {
    for (hidden, naive, backward) in
        [(&[3, 4][..], 24, 20), (&[3, 4, 5], 172, 62), (&[2, 3, 4, 5], 352, 80), (&[64, 32, 32, 16], 1_183_744, 5_152)]
    {
        let widths: Vec<usize> = hidden.iter().copied().chain([1]).collect();
        let formulas = Formulas { widths: &widths, constant: Bias::None };
        assert_eq!((formulas.naive(), formulas.backward()), (naive, backward), "{widths:?}");
        check(&widths, Bias::None, 2);
    }
}

/// Forward makes one multiplication for each edge that is not a constant's: at most edges + nodes,
/// for any shape.
#[test]
fn forward_is_linear_in_edges_and_nodes() {
    for widths in [&[1, 1][..], &[5, 1], &[7, 30, 2, 9], &[40, 40, 40, 40, 40, 1]] {
        let mlp = Mlp::<Counted>::he(widths, Bias::None, 1).unwrap();
        let (edges, nodes) = mlp.graph_size();
        let count = multiplications(|| Trace::new(&mlp, inputs(widths, 1).row(0)).map(drop)).1 as usize;
        // The head's b is a constant's edge for each output.
        assert_eq!(count, edges - mlp.outputs());
        assert!(count <= edges + nodes);
    }
}
