//! Prediction on the native engine: forward passes that share one set of matrices.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::panels::{numbers, panels_of};
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::pass::Pass;
use crate::native::plan::{Plan, Until};
use crate::network::mlp::Mlp;
use crate::parallel::panel_set::PanelSet;
use crate::parallel::team::with_team;
use crate::steps::blocks::{even_block, ranges};
use crate::steps::samples::Samples;

/// Samples that go through a phase together: enough for several cores, few enough that their layers
/// stay in a shared cache.
const PREDICT_ROWS: usize = 512;

/// Matrices of forward passes, with θ as it was when they were made.
#[derive(Debug)]
pub(crate) struct NativePredictor<F: Scalar> {
    widths: Vec<usize>,
    /// The largest number of rows that pass through the layers together.
    capacity: usize,
    set: PanelSet<F>,
    layers: Layers,
    theta: Theta,
    /// One for each number of rows met so far.
    plans: Vec<Plan>,
}

/// The number of plans above which all are made anew. Those of one call are at most two.
const MOST_PLANS: usize = 16;

impl<F: Scalar> NativePredictor<F> {
    /// For calls of about so many rows.
    pub(crate) fn new(mlp: &Mlp<F>, rows: usize) -> Self {
        let capacity = even_block(rows, PREDICT_ROWS);
        let mut set = PanelSet::new(Vec::new());
        let layers = Layers::push(&mut set, mlp.widths(), capacity);
        let theta = Theta::push(&mut set, mlp.parameters());
        theta.load(&mut set, mlp.parameters());
        Self { widths: mlp.widths().to_vec(), capacity, set, layers, theta, plans: Vec::new() }
    }

    /// The index of the plan for so many rows.
    fn plan(&mut self, rows: usize) -> usize {
        Plan::find_or_push(&mut self.plans, &self.set, (self.layers, &self.widths), rows.into(), Until::Output)
    }

    /// ŷ for each row of x.
    pub(crate) fn predict(&mut self, x: ArrayView2<F>, mut y_hat: ArrayViewMut2<F>) {
        let samples = x.nrows();
        let block = even_block(samples, self.capacity);
        if self.plans.len() > MOST_PLANS {
            self.plans.clear();
        }
        let full = self.plan(block);
        let ragged = if samples.is_multiple_of(block) { full } else { self.plan(samples % block) };
        let no_loss = |_, _: &[F], _: &mut [F]| 0.0;
        let data = Samples { x, order: None, standardize: None, weights: None, loss: no_loss, cost: 0 };
        let Self { set, layers, theta, plans, widths, .. } = self;
        let outputs = widths[widths.len() - 1];
        with_team(samples.div_ceil(block) * plans[full].workload(), |team| {
            for rows in ranges(samples, block) {
                let plan = if rows.len() == block { &plans[full] } else { &plans[ragged] };
                let (samples, first) = (&data.any(), rows.start);
                let pass = Pass { layers: *layers, theta: *theta, samples, first, scale: F::ONE, watched: false };
                team.step(plan.workload(), || pass.run(plan, team, set));
                let of_block = set.get(layers.y_hat());
                for panel in 0..panels_of::<F>(outputs) {
                    let lines = numbers::<F>(of_block.panel(panel)).chunks_exact(F::LINE);
                    for (line, row) in lines.zip(rows.clone()) {
                        let outputs = panel * F::LINE..((panel + 1) * F::LINE).min(outputs);
                        outputs.zip(line).for_each(|(k, &number)| y_hat[(row, k)] = number);
                    }
                }
            }
        });
    }
}
