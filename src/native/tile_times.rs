//! The time that each tile of a step takes alone: what the benches simulate a step on more cores
//! from than the machine has.

use std::time::Instant;

use crate::kernels::panels::Panels;
use crate::linalg::scalar::Scalar;
use crate::native::matrices::{Layers, Theta};
use crate::native::pass::Pass;
use crate::native::plan::{Plan, Until, UpdateTiles};
use crate::native::update::{Sink, Update};
use crate::network::mlp::Mlp;
use crate::parallel::panel_set::PanelSet;
use crate::steps::samples::AnySamples;

/// A phase of a step of plain descent, after which all threads meet.
#[derive(Debug, Clone)]
pub struct PhaseTimes {
    /// The operations of the phase.
    pub name: String,
    /// The shortest time of each tile, in the order in which threads take them.
    pub seconds: Vec<f64>,
}

/// Runs steps of plain descent on the calling thread alone, in the tiles that `threads` threads
/// would have, and times each tile `rounds` times. θ stays as it is: η is 0.
pub(crate) fn measure<F: Scalar>(
    mlp: &Mlp<F>,
    samples: usize,
    data: &AnySamples<F>,
    threads: usize,
    rounds: usize,
) -> Vec<PhaseTimes> {
    let mut set = PanelSet::new(Vec::<Panels<F>>::new());
    let layers = Layers::push(&mut set, mlp.widths(), samples);
    let theta = Theta::push(&mut set, mlp.parameters());
    theta.load(&mut set, mlp.parameters());
    let plan = Plan::for_threads(&set, layers, mlp.widths(), data.size(samples), Until::Gradient, threads);
    let biases: Vec<bool> = mlp.parameters().c.iter().map(|c| !c.is_empty()).collect();
    let tiles = UpdateTiles::new::<F>(mlp.widths(), &biases, samples);
    let table = tiles.table(&set, &[theta]);
    let pass = Pass { layers, theta, samples: data, first: 0, scale: F::ZERO, watched: false };
    let update = Update { layers, tiles: &tiles, samples };
    let sink = Sink::Plain { theta, beta: F::ONE, beta_of_biases: F::ONE };

    let counts = plan.phases.iter().map(|phase| phase.tiles.len()).chain([table.len()]);
    let mut seconds: Vec<Vec<f64>> = counts.map(|tiles| vec![f64::INFINITY; tiles]).collect();
    for _ in 0..rounds {
        for (phase, seconds) in plan.phases.iter().zip(&mut seconds) {
            let shared = set.share(&phase.table);
            for (index, seconds) in seconds.iter_mut().enumerate() {
                let start = Instant::now();
                pass.tile(&plan, phase, index, shared.claim(index));
                *seconds = seconds.min(start.elapsed().as_secs_f64());
            }
        }
        let shared = set.share(&table);
        for (index, seconds) in seconds[plan.phases.len()].iter_mut().enumerate() {
            let start = Instant::now();
            update.tile(index, &mut shared.claim(index), &sink, None);
            *seconds = seconds.min(start.elapsed().as_secs_f64());
        }
    }
    let names = plan.phases.iter().map(|phase| format!("{:?}", phase.operations)).chain(["Update".to_owned()]);
    names.zip(seconds).map(|(name, seconds)| PhaseTimes { name, seconds }).collect()
}
