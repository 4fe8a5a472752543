//! ∂ŷ/∂θ against central differences. While no mask flips, ŷ is affine in each single weight (the
//! layers above are linear, and the weight occurs once), so the difference quotient has no
//! truncation error at any step h: only rounding, which is bounded.
//!
//! Equal masks at both ends are equal masks between them: u[1] is affine in the weight, so an entry
//! with one sign at both ends keeps it between; then z[1] is affine there, and so on upwards.

use crate::common;

use std::cell::Cell;

use common::{assert_within, flat};
use gemmprop::{
    Bias, Mlp,
    rungs::{Trace, batched, bounds, matrix_vector, naive, per_neuron},
};
use ndarray::{Array1, Axis};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// θ ± h must be exact, else the quotient is taken at another h: weights are rounded to multiples
/// of 2⁻²⁰, and h is 2⁻⁴, large enough for masks to flip now and then.
const STEP: f64 = 1.0 / 16.0;
const GRID: f64 = 1_048_576.0;

/// ŷ at θ + h e_p with its error bound, and the masks; None if rounding could flip one of them.
fn moved(mlp: &Mlp<f64>, x: &Array1<f64>, p: usize, h: f64) -> Option<(Array1<f64>, Vec<f64>, Vec<bool>)> {
    let mut mlp = mlp.clone();
    *mlp.parameters_mut().iter_mut().nth(p).unwrap() += h;
    let bounds = bounds::forward(&mlp, x.view().insert_axis(Axis(0))).unwrap();
    if !bounds.uncertain.is_empty() {
        return None;
    }
    let trace = Trace::new(&mlp, x.view()).unwrap();
    let masks = (1..=mlp.depth()).flat_map(|t| trace.z(t).iter().map(|&z| z > 0.0)).collect();
    Some((trace.y_hat().clone(), bounds.trace.bound.y_hat().row(0).to_vec(), masks))
}

#[test]
fn each_entry_of_the_output_gradients_is_a_central_difference() {
    let constant = prop::sample::select(vec![Bias::Input, Bias::EveryLayer, Bias::None]);
    let widths = prop::collection::vec(1..=9_usize, 2..=6);
    let (compared, flipped) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(widths, constant, any::<u64>()), |(widths, constant, seed)| {
            let mut mlp = common::network::<f64>(&widths, constant, seed);
            mlp.parameters_mut().iter_mut().for_each(|p| *p = (*p * GRID).round() / GRID);
            let x = common::uniform::<f64>(1, mlp.inputs(), seed ^ 1).row(0).to_owned();
            let batch = x.view().insert_axis(Axis(0));
            let bounds_of = |k| bounds::output_gradient(&mlp, batch, k).unwrap();
            let bounds: Vec<_> = (0..mlp.outputs()).map(bounds_of).collect();
            if !bounds[0].uncertain.is_empty() {
                return Ok(());
            }
            let bounds: Vec<_> = bounds.into_iter().map(|of| [flat(&of.naive), flat(&of.gradient.bound)]).collect();
            let gradients: Vec<[Vec<f64>; 4]> = (0..mlp.outputs())
                .map(|k| {
                    let mut g = [(); 4].map(|()| mlp.zero_gradient());
                    naive::output_gradient(&mlp, x.view(), k, &mut g[0]).unwrap();
                    per_neuron::output_gradient(&mlp, x.view(), k, &mut g[1]).unwrap();
                    matrix_vector::output_gradient(&mlp, x.view(), k, &mut g[2]).unwrap();
                    batched::output_gradient(&mlp, x.view().insert_axis(Axis(0)), k, &mut g[3]).unwrap();
                    g.map(|g| flat(&g))
                })
                .collect();
            for p in 0..mlp.parameters().count() {
                let (up, down) = (moved(&mlp, &x, p, STEP), moved(&mlp, &x, p, -STEP));
                let (Some((up, e_up, masks_up)), Some((down, e_down, masks_down))) = (up, down) else {
                    flipped.set(flipped.get() + 1);
                    continue;
                };
                if masks_up != masks_down {
                    flipped.set(flipped.get() + 1);
                    continue;
                }
                compared.set(compared.get() + 1);
                for (k, rungs) in gradients.iter().enumerate() {
                    let quotient = (up[k] - down[k]) / (2.0 * STEP);
                    // Both ŷ are off by e, and their difference rounds once; the division by a
                    // power of two does not.
                    let of_quotient = (e_up[k] + e_down[k]) / (2.0 * STEP) + f64::EPSILON * quotient.abs();
                    for (rung, g) in rungs.iter().enumerate() {
                        let of_gradient = bounds[k][rung.min(1)][p];
                        let name = format!("rung {}, ∂ŷ_{k}/∂θ_{p} of {widths:?}", rung + 1);
                        assert_within(&name, &[g[p]], &[of_gradient], &[quotient], &[of_quotient]);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    println!("{} weights compared, {} left out because a mask flipped", compared.get(), flipped.get());
    assert!(compared.get() > 3 * flipped.get(), "too few masks hold");
}
