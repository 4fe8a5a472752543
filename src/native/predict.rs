//! Prediction on the native engine: forward passes that share one set of matrices.

use ndarray::{Array2, ArrayView2};

use crate::kernels::panels::{numbers, panels_of};
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::pass::Pass;
use crate::native::plan::{Plan, Until};
use crate::network::mlp::Mlp;
use crate::parallel::panel_set::PanelSet;
use crate::parallel::team::with_team;
use crate::steps::blocks::ranges;
use crate::steps::samples::Samples;

/// Samples that go through a phase together: enough for several cores, few enough that their layers
/// stay in a shared cache.
const PREDICT_ROWS: usize = 512;

/// ŷ for each row of x.
pub(crate) fn predict<F: Scalar>(mlp: &Mlp<F>, x: ArrayView2<F>) -> Array2<F> {
    let samples = x.nrows();
    let mut y_hat = Array2::from_elem((samples, mlp.outputs()), F::ZERO);
    let block = samples.div_ceil(samples.div_ceil(PREDICT_ROWS));
    let mut set = PanelSet::new(Vec::new());
    let layers = Layers::push(&mut set, mlp.widths(), block);
    let theta = Theta::push(&mut set, mlp.parameters());
    theta.load(&mut set, mlp.parameters());
    let plan = |samples| Plan::new(&set, layers, mlp.widths(), samples, Until::Output);
    let (full, rest) = (plan(block), samples % block);
    let ragged = (rest > 0).then(|| plan(rest));
    let no_loss = |_, _: &[F], _: &mut [F]| 0.0;
    let data = Samples { x, order: None, standardize: None, weights: None, loss: no_loss };
    with_team(samples.div_ceil(block) * full.workload(), |team| {
        for rows in ranges(samples, block) {
            let plan = if rows.len() == block { &full } else { ragged.as_ref().unwrap_or(&full) };
            let pass = Pass { layers, theta, samples: &data.any(), first: rows.start, scale: F::ONE, watched: false };
            team.step(plan.workload(), || pass.run(plan, team, &mut set));
            let of_block = set.get(layers.y_hat());
            for panel in 0..panels_of::<F>(mlp.outputs()) {
                let lines = numbers::<F>(of_block.panel(panel)).chunks_exact(F::LINE);
                for (line, row) in lines.zip(rows.clone()) {
                    let outputs = panel * F::LINE..((panel + 1) * F::LINE).min(mlp.outputs());
                    outputs.zip(line).for_each(|(k, &number)| y_hat[(row, k)] = number);
                }
            }
        }
    });
    y_hat
}
