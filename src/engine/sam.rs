//! Sharpness-aware minimisation: the point θ + ρ g/‖g‖, at which the gradient of the step is taken.
//!
//! Foret et al. 2021, *Sharpness-aware minimization for efficiently improving generalization*.

use std::ops::Range;

use ndarray::s;

use crate::engine::parameter_tiles::{ParameterBlock, SharedParameters, for_each_run};
use crate::engine::update::{Scratch, Update};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::optim::overflow::largest;
use crate::optim::rule::Rule;
use crate::optim::uphill;

/// g ← g / max |g|. Returns ‖g‖ after that, from 1 to √n; 0 if g is.
fn scale_to_1<F: Scalar>(g: &mut Parameters<F>) -> f64 {
    let most = F::from_f64(largest(g));
    if most > F::ZERO {
        g.iter_mut().for_each(|g| *g = *g / most);
    }
    g.iter().map(|g| g.to_f64() * g.to_f64()).sum::<f64>().sqrt()
}

impl<F: Scalar> Update<'_, F> {
    /// ‖g‖, and the point θ + ρ g/‖g‖; that point has no meaning if the norm is not finite.
    pub(crate) fn uphill<'b>(
        &self,
        rho: f64,
        rule: &Rule,
        theta: &Parameters<F>,
        scratch: &'b mut Scratch<F>,
    ) -> (f64, &'b Parameters<F>) {
        let buffers = scratch.buffers(self.tiles, rule, theta);
        let norm = self.gradient_norm(buffers);
        let (uphill, uphill_tiles) = buffers.uphill.get_or_insert_with(|| (theta.zeros_like(), self.tiles.like()));
        if !norm.is_finite() {
            return (norm, uphill);
        }
        let fine = uphill::is_in_range::<F>(rho, norm);
        let length = if fine { norm } else { scale_to_1(&mut buffers.gradient) };
        let step = uphill::step::<F>(rho, length);
        let gradient = SharedParameters::new(&mut buffers.gradient, &buffers.gradient_tiles);
        let shared = SharedParameters::new(uphill, uphill_tiles);
        let tiles = self.tiles;
        self.for_each_tile(&|tile, block| {
            let (mut uphill, mut gradient) = (shared.claim(tile), gradient.claim(tile));
            move_uphill(step, theta, tiles.layer_rows(tile), gradient.block(block), uphill.block(block));
        });
        (norm, uphill)
    }
}

/// `uphill` ← θ + `step` g, on the rows of w[t] and c[t] that belong to one tile.
fn move_uphill<F: Scalar>(
    step: F,
    theta: &Parameters<F>,
    (t, rows): (usize, Range<usize>),
    mut g: ParameterBlock<F>,
    mut uphill: ParameterBlock<F>,
) {
    let moved = |uphill: &mut [F], theta: &[F], g: &[F]| {
        let numbers = uphill.iter_mut().zip(theta).zip(g);
        numbers.for_each(|((uphill, &theta), &g)| *uphill = theta + step * g);
    };
    // A tile has whole rows of θ, which lie one after another.
    let w = theta.w[t].slice(s![rows.clone(), ..]);
    let w = w.to_slice().expect("rows lie one after another");
    for_each_run([uphill.w.view_mut(), g.w.view_mut()], |[uphill, g]| moved(uphill, w, g));
    let c = &theta.c[t];
    if !c.is_empty() {
        let c = c.slice(s![rows]);
        moved(uphill.c(), c.to_slice().expect("in one piece"), g.c());
    }
}
