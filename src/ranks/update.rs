//! The update of a step whose gradient is stored: θ ← the rule of the optimiser, number by number.
//!
//! Every rank computes all of it from the same gradient, and so has the same θ.

use crate::linalg::scalar::{Scalar, all_finite};
use crate::network::parameters::Parameters;
use crate::optim::rule::Rule;
use crate::optim::uphill;
use crate::steps::policy::NotFinite;

/// Numbers that stay in cache from their copy to the look whether they are finite.
const BLOCK: usize = 4096;

/// θ and the moments after a step, which take the place of those before it if they are finite.
#[derive(Debug)]
pub(crate) struct After<F> {
    theta: Parameters<F>,
    moments: Vec<Parameters<F>>,
}

impl<F: Scalar> After<F> {
    pub(crate) fn new(theta: &Parameters<F>, moments: &[Parameters<F>]) -> Self {
        Self { theta: theta.zeros_like(), moments: moments.iter().map(Parameters::zeros_like).collect() }
    }

    /// Whether this has the shape of θ and as many moments.
    pub(crate) fn fits(&self, theta: &Parameters<F>, moments: &[Parameters<F>]) -> bool {
        self.theta.has_shape_of(theta) && self.moments.len() == moments.len()
    }

    /// θ and the moments ← the rule with the gradient g, in the order of θ. Returns ‖g‖ if the rule
    /// needs it or asks for it.
    ///
    /// # Errors
    /// If any of them would not be finite; they are unchanged then.
    pub(crate) fn update(
        &mut self,
        rule: &Rule,
        g: &[F],
        theta: &mut Parameters<F>,
        moments: &mut [Parameters<F>],
    ) -> Result<Option<f64>, NotFinite> {
        let norm = (rule.clip.is_some() || rule.norm).then(|| norm(g));
        norm.map_or(Ok(0.0), |norm| NotFinite::check("gradient's norm", norm))?;
        let scale = match (rule.clip, norm) {
            (Some(limit), Some(norm)) if norm > limit => limit / norm,
            _ => 1.0,
        };
        if !self.apply(rule, scale, g, theta, moments) {
            NotFinite::check_all("parameters", &self.theta)?;
            self.moments.iter().try_for_each(|moment| NotFinite::check_all("optimizer's moments", moment))?;
        }
        std::mem::swap(theta, &mut self.theta);
        moments.iter_mut().zip(&mut self.moments).for_each(|(moment, after)| std::mem::swap(moment, after));
        Ok(norm)
    }

    /// Writes what follows from θ, the moments and `scale` g. Returns whether all of it is finite.
    fn apply(&mut self, rule: &Rule, scale: f64, g: &[F], theta: &Parameters<F>, moments: &[Parameters<F>]) -> bool {
        let mut finite = true;
        let of_w = rule.coefficients(scale);
        let of_c = of_w.of_biases();
        let mut rest = g;
        let layers = self.theta.w.len();
        for array in 0..2 * layers {
            let after = slice_mut(&mut self.theta, array);
            let (g, others) = rest.split_at(after.len());
            rest = others;
            let mut after_moments = self.moments.iter_mut().map(|moment| slice_mut(moment, array));
            let (first, second) = (after_moments.next(), after_moments.next());
            let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
            let mut before_moments = moments.iter().map(|moment| slice(moment, array));
            let (first_before, second_before) = (before_moments.next(), before_moments.next());
            let coefficients = if array % 2 == 0 { &of_w } else { &of_c };
            for start in (0..g.len()).step_by(BLOCK) {
                let block = start..(start + BLOCK).min(g.len());
                let next = |to: &mut [F], from: Option<&[F]>| {
                    if let Some(from) = from {
                        to[block.clone()].copy_from_slice(&from[block.clone()]);
                    }
                };
                next(after, Some(slice(theta, array)));
                next(first, first_before);
                next(second, second_before);
                let of_moment = |moment: &'_ [F]| block.start.min(moment.len())..block.end.min(moment.len());
                let (of_first, of_second) = (of_moment(first), of_moment(second));
                let (first, second) = (&mut first[of_first], &mut second[of_second]);
                let after = &mut after[block.clone()];
                coefficients.apply(&g[block], first, second, after);
                finite &= all_finite(after) && all_finite(first) && all_finite(second);
            }
        }
        finite
    }
}

/// w[t] for an even number, c[t] for an odd one, as [`Parameters::slices`] has them.
fn slice<F: Scalar>(parameters: &Parameters<F>, array: usize) -> &[F] {
    let t = array / 2;
    let found = match array % 2 {
        0 => parameters.w[t].as_slice(),
        _ => parameters.c[t].as_slice(),
    };
    found.expect("in one piece")
}

fn slice_mut<F: Scalar>(parameters: &mut Parameters<F>, array: usize) -> &mut [F] {
    let t = array / 2;
    let found = match array % 2 {
        0 => parameters.w[t].as_slice_mut(),
        _ => parameters.c[t].as_slice_mut(),
    };
    found.expect("in one piece")
}

/// ‖g‖, whose squares are added up in eight sums side by side.
fn norm<F: Scalar>(g: &[F]) -> f64 {
    let mut sums = [0.0; 8];
    let (chunks, rest) = g.as_chunks::<8>();
    for g in chunks.iter().map(|chunk| &chunk[..]).chain([rest]) {
        sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += g.to_f64() * g.to_f64());
    }
    sums.iter().sum::<f64>().sqrt()
}

/// The point θ + ρ g/‖g‖ of sharpness-aware minimisation.
///
/// # Errors
/// For a gradient whose norm is not finite.
pub(crate) fn move_uphill<F: Scalar>(
    rho: f64,
    g: &mut [F],
    theta: &Parameters<F>,
    into: &mut Parameters<F>,
) -> Result<(), NotFinite> {
    let mut length = NotFinite::check("gradient's norm", norm(g))?;
    if !uphill::is_in_range::<F>(rho, length) {
        let most = g.iter().fold(F::ZERO, |most, g| most.max(g.abs()));
        if most > F::ZERO {
            g.iter_mut().for_each(|g| *g = *g / most);
        }
        length = norm(g);
    }
    let step = uphill::step::<F>(rho, length);
    let mut rest = &*g;
    for (into, theta) in into.slices_mut().zip(theta.slices()) {
        let (g, others) = rest.split_at(theta.len());
        rest = others;
        into.iter_mut().zip(theta).zip(g).for_each(|((into, &theta), &g)| *into = theta + step * g);
    }
    Ok(())
}
