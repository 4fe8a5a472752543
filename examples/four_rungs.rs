//! One gradient, four ways: the same numbers, and what they cost.
//!
//! ```text
//! cargo run --release --example four_rungs
//! ```

use gemmprop::rungs::count::{Counted, multiplications};
use gemmprop::{
    Bias, Mlp, Parameters, Result, Scalar,
    rungs::{batched, matrix_vector, naive, per_neuron},
};
use ndarray::{Array1, Axis};

/// Writes ∂ŷ/∂θ at x into g.
type Rung<F> = fn(&Mlp<F>, &Array1<F>, &mut Parameters<F>) -> Result<()>;

fn rungs<F: Scalar>() -> [(&'static str, Rung<F>); 4] {
    [
        ("edge by edge", |mlp, x, g| naive::output_gradient(mlp, x.view(), 0, g).map(drop)),
        ("neuron by neuron", |mlp, x, g| per_neuron::output_gradient(mlp, x.view(), 0, g).map(drop)),
        ("matrix-vector", |mlp, x, g| matrix_vector::output_gradient(mlp, x.view(), 0, g).map(drop)),
        ("batched GEMM", |mlp, x, g| batched::output_gradient(mlp, x.view().insert_axis(Axis(0)), 0, g)),
    ]
}

fn main() -> Result<()> {
    let widths = [16, 32, 32, 32, 1];
    let mlp = Mlp::<f64>::he(&widths, Bias::Input, 1)?;
    let x = Array1::from_shape_fn(widths[0], |j| (j as f64).sin());
    let (edges, nodes) = mlp.graph_size();
    println!("widths {widths:?}: {edges} edges, {nodes} nodes\n");
    println!("{:<18}{:>18}{:>26}", "rung", "multiplications", "largest difference");

    let mut oracle = mlp.zero_gradient();
    naive::output_gradient(&mlp, x.view(), 0, &mut oracle)?;
    // The same code, with numbers that count.
    let counting = Mlp::<Counted>::he(&widths, Bias::Input, 1)?;
    let counting_x = x.mapv(Counted);
    for ((name, rung), (_, counting_rung)) in rungs::<f64>().into_iter().zip(rungs::<Counted>()) {
        let mut g = mlp.zero_gradient();
        rung(&mlp, &x, &mut g)?;
        let difference = g.iter().zip(oracle.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let mut g = counting.zero_gradient();
        let (outcome, count) = multiplications(|| counting_rung(&counting, &counting_x, &mut g));
        outcome?;
        println!("{name:<18}{count:>18}{difference:>26.1e}");
    }
    Ok(())
}
