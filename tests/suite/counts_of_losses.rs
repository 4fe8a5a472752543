//! Multiplications of whole gradients ∇θ ℓ and of a step of SGD: those of ∂ŷ/∂θ (`counts.rs`), the
//! loss's own, and one for each parameter where a factor 1/B, or −η/B, is applied.
//!
//! With widths d[0] … d[T], d[T+1] = m outputs and E = Σ d[t] d[t+1], the head included, forward
//! makes E and backward 2E − d[0]d[1]. Rung 1 makes a forward and a chain-rule pass for each
//! output.

use crate::common;

use gemmprop::rungs::count::{Counted, multiplications};
use gemmprop::{
    Bias, Logistic, Loss, Mlp, Products, Sgd, SoftmaxCrossEntropy, SquaredError,
    rungs::{Trace, batched, matrix_vector, naive, per_neuron},
};
use ndarray::{Array1, Array2};
use proptest::prelude::*;

fn network(widths: &[usize], constant: Bias) -> Mlp<Counted> {
    Mlp::he(widths, constant, 1).unwrap()
}

fn inputs(rows: usize, columns: usize) -> Array2<Counted> {
    Array2::from_shape_fn((rows, columns), |(i, j)| Counted(((i * 31 + j * 17) % 13) as f64 - 6.0))
}

fn count<R: Send>(work: impl FnOnce() -> R + Send) -> u64 {
    multiplications(work).1
}

fn forward_formula(widths: &[usize]) -> u64 {
    widths.windows(2).map(|d| (d[0] * d[1]) as u64).sum()
}

fn backward_formula(widths: &[usize]) -> u64 {
    2 * forward_formula(widths) - (widths[0] * widths[1]) as u64
}

/// ∇θ ℓ by the four rungs and a step, given how many multiplications the loss makes.
fn loss_gradients<L: Loss<Counted>>(
    mlp: &Mlp<Counted>,
    x: &Array2<Counted>,
    y: &Array2<L::Target>,
    loss: &L,
    of_loss: u64,
) {
    let (widths, batch) = (mlp.widths(), x.nrows() as u64);
    let (forward, backward) = (forward_formula(widths), backward_formula(widths));
    let (parameters, outputs) = (mlp.parameters().count() as u64, mlp.outputs() as u64);
    let (x_0, y_0) = (x.row(0), y.row(0).to_slice().unwrap());
    let g = || mlp.zero_gradient();
    // One pass for each output, each weighted by its ∂.
    let by_edge = count(|| naive::loss_gradient(mlp, x_0, y_0, loss, &mut g()).unwrap());
    // `counts.rs` holds one pass against its formula.
    let of_output = count(|| naive::output_gradient(mlp, x_0, 0, &mut g()).unwrap()) + parameters;
    assert_eq!(by_edge, outputs * of_output + of_loss, "naive {widths:?}");
    let by_neuron = count(|| per_neuron::loss_gradient(mlp, x_0, y_0, loss, &mut g()).unwrap());
    assert_eq!(by_neuron, forward + backward + of_loss, "per_neuron {widths:?}");
    let by_matrix = count(|| matrix_vector::loss_gradient(mlp, x_0, y_0, loss, &mut g()).unwrap());
    assert_eq!(by_matrix, forward + backward + of_loss, "matrix_vector {widths:?}");
    // Where θ is small beside the batch a step looks at it, and otherwise sums up the squares of
    // all z and δ.
    let numbers = batch * (widths[0] + 2 * widths[1..].iter().sum::<usize>()) as u64;
    let squares = if 2 * parameters > numbers { numbers } else { 0 };
    let of_batch = batch * (forward + backward + of_loss);
    for products in common::both_products() {
        let mlp = mlp.clone().with_products(products).unwrap();
        // The factor 1/B, or −η/B: once for each parameter over BLAS, once for each output of a
        // sample on the native engine. Neither multiplies by 1.
        let factors = if products == Products::Native { batch * outputs } else { parameters };
        let by_batch = count(|| batched::loss_gradient(&mlp, x.view(), y.view(), loss, &mut g()).unwrap());
        assert_eq!(by_batch, of_batch + if batch == 1 { 0 } else { factors }, "batched {products:?} {widths:?}");
        let mut stepped = mlp.clone();
        let by_step =
            count(|| Sgd::new(x.nrows(), 0.1, 0).unwrap().step(&mut stepped, x.view(), y.view(), loss).unwrap());
        assert_eq!(by_step, of_batch + factors + squares, "step {products:?} {widths:?}");
    }
}

fn all_losses(widths: &[usize], constant: Bias, batch: usize) {
    let mlp = network(widths, constant);
    let x = inputs(batch, widths[0]);
    let outputs = mlp.outputs();
    // m squares and the half.
    loss_gradients(&mlp, &x, &inputs(batch, outputs), &SquaredError, outputs as u64 + 1);
    if outputs == 1 {
        // (1 − y) ŷ or y ŷ.
        loss_gradients(&mlp, &x, &Array2::from_elem((batch, 1), Counted(1.0)), &Logistic, 1);
    } else {
        // Exponentials and quotients only.
        loss_gradients(&mlp, &x, &Array2::from_elem((batch, 1), 0), &SoftmaxCrossEntropy, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loss_gradients_and_steps_make_exactly_as_many_multiplications_as_their_formulas_say(
        widths in prop::collection::vec(1..=17_usize, 2..=7),
        constant in prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]),
        batch in 1..=9_usize,
    ) {
        all_losses(&widths, constant, batch);
    }

    /// F ≤ edges + nodes ≤ 5F. Edges are F plus one for each constant's, at most one for each node
    /// above the input; each of those nodes has one edge at least, so they are at most F, and so
    /// are the inputs; constants are at most T + 1 ≤ F.
    #[test]
    fn a_forward_pass_is_linear_in_edges_and_nodes(
        widths in prop::collection::vec(1..=40_usize, 2..=9),
        constant in prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]),
    ) {
        let mlp = network(&widths, constant);
        let forward = count(|| Trace::new(&mlp, inputs(1, widths[0]).row(0)).unwrap());
        let (edges, nodes) = mlp.graph_size();
        let size = (edges + nodes) as u64;
        prop_assert!(forward <= size && size <= 5 * forward, "{forward} multiplications, size {size}");
        let theta = mlp.parameters();
        let constants = theta.c().iter().map(Array1::len).sum::<usize>() + theta.b().len();
        prop_assert_eq!(forward, (edges - constants) as u64);
    }
}

/// A rung counted is the rung that runs: the same numbers come out as in f64 (whose products may be
/// summed in another order).
#[test]
fn counting_does_not_change_the_result() {
    let widths = [5, 7, 4, 3];
    let counted = network(&widths, Bias::Input);
    let plain = Mlp::<f64>::he(&widths, Bias::Input, 1).unwrap();
    let x = inputs(1, 5);
    let x_plain = x.mapv(|x| x.0);
    let (mut g, mut g_plain) = (counted.zero_gradient(), plain.zero_gradient());
    naive::output_gradient(&counted, x.row(0), 2, &mut g).unwrap();
    naive::output_gradient(&plain, x_plain.row(0), 2, &mut g_plain).unwrap();
    assert_eq!(common::flat(&g), common::flat(&g_plain), "rung 1, bit for bit");
}
