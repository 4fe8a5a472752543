//! A step of all ranks: each computes the gradient of its part of the batch, all get the sum, and
//! each makes the same update.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::optim::moments::Moments;
use crate::optim::rule::Rule;
use crate::ranks::agree::{Agreement, alone};
use crate::ranks::deal::Deal;
use crate::ranks::group::Collective;
use crate::ranks::reduce::{Reducer, Reduction};
use crate::ranks::update::{After, move_uphill};
use crate::steps::policy::NotFinite;

/// How data and batches are cut, and how gradients are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// C
    pub(crate) chunks: usize,
    pub(crate) reduction: Reduction,
}

impl Cut {
    /// The chunks of a rank.
    pub(crate) fn own<F>(self, group: &impl Collective<F>) -> Range<usize> {
        let each = self.chunks / group.ranks();
        group.rank() * each..(group.rank() + 1) * each
    }
}

/// The buffers of steps, which are kept between calls.
#[derive(Debug)]
pub(crate) struct Buffers<F> {
    reducer: Reducer<F>,
    after: After<F>,
    uphill: Option<Parameters<F>>,
    /// Σ ℓ of each own chunk.
    losses: Vec<f64>,
}

impl<F: Scalar> Buffers<F> {
    fn new(group: &impl Collective<F>, cut: Cut, theta: &Parameters<F>, moments: &Moments<F>) -> Self {
        let own = if cut.reduction == Reduction::Exact { cut.own(group).len() } else { 1 };
        Self {
            reducer: Reducer::new(group, cut.chunks, cut.reduction, theta),
            after: After::new(theta, &moments.arrays),
            uphill: None,
            losses: vec![0.0; own],
        }
    }

    /// The buffers kept from the last call, or new ones if those do not fit.
    pub(crate) fn kept<'b>(
        kept: &'b mut Option<Self>,
        group: &impl Collective<F>,
        cut: Cut,
        theta: &Parameters<F>,
        moments: &Moments<F>,
    ) -> &'b mut Self {
        let fits = |kept: &Self| {
            kept.reducer.fits(cut.chunks, cut.reduction, theta) && kept.after.fits(theta, &moments.arrays)
        };
        if !kept.as_ref().is_some_and(fits) {
            *kept = Some(Self::new(group, cut, theta, moments));
        }
        kept.as_mut().expect("just made")
    }
}

/// One step, about to be made.
pub(crate) struct Step<'a, F, G> {
    pub(crate) agreement: &'a Agreement<'a, G>,
    pub(crate) cut: Cut,
    pub(crate) deal: &'a Deal,
    /// The number of its batch.
    pub(crate) k: usize,
    pub(crate) rule: &'a Rule,
    pub(crate) buffers: &'a mut Buffers<F>,
}

impl<F: Scalar, G: Collective<F>> Step<'_, F, G> {
    /// Makes it. `compute(θ, samples, a, into)` writes a Σ ∂ℓ/∂θ over those samples of this rank,
    /// and returns Σ ℓ; if that is NaN, it may have written anything. Returns Σ ℓ over all ranks
    /// before the update, and ‖g‖ if the rule has it.
    ///
    /// # Errors
    /// On every rank if `compute` panics on one. On every rank alike, in the second result, if
    /// something is not finite; θ and the moments are unchanged then.
    pub(crate) fn make(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        compute: &mut impl FnMut(&Parameters<F>, Range<usize>, F, &mut Parameters<F>) -> f64,
    ) -> Result<Result<(f64, Option<f64>), NotFinite>> {
        let sum = match NotFinite::check("loss", self.gradient(theta, compute)?) {
            Ok(sum) => sum,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(rho) = self.rule.sam {
            let mut uphill = self.buffers.uphill.take().unwrap_or_else(|| theta.zeros_like());
            if let Err(error) = move_uphill(rho, &mut self.buffers.reducer.g, theta, &mut uphill) {
                return Ok(Err(error));
            }
            let there = NotFinite::check("loss at the point uphill", self.gradient(&uphill, compute)?);
            self.buffers.uphill = Some(uphill);
            if let Err(error) = there {
                return Ok(Err(error));
            }
        }
        let Buffers { reducer, after, .. } = &mut *self.buffers;
        Ok(after.update(self.rule, &reducer.g, theta, &mut moments.arrays).map(|norm| (sum, norm)))
    }

    /// The mean gradient at θ of all ranks. Returns Σ ℓ; if that is not finite, there is no
    /// gradient.
    fn gradient(
        &mut self,
        theta: &Parameters<F>,
        compute: &mut impl FnMut(&Parameters<F>, Range<usize>, F, &mut Parameters<F>) -> f64,
    ) -> Result<f64> {
        let Self { agreement, cut, deal, k, .. } = *self;
        let group = agreement.group;
        let Buffers { reducer, losses, .. } = &mut *self.buffers;
        let mean = F::from_f64(1.0 / deal.batch_samples(k) as f64);
        let first = cut.own(group).start;
        let own = alone(|| {
            let mut of = |samples: Range<usize>, into: &mut Parameters<F>| {
                if samples.is_empty() {
                    into.slices_mut().for_each(|numbers| numbers.fill(F::ZERO));
                    return 0.0;
                }
                compute(theta, samples, mean, into)
            };
            match cut.reduction {
                Reduction::Exact => reducer.add_up_own(group, |chunk, into| {
                    losses[chunk - first] = of(deal.chunk(k, chunk - first), into);
                }),
                Reduction::Fast => reducer.compute_own(|into| losses[0] = of(deal.batches(k..k + 1), into)),
            }
            Ok(())
        });
        // In the order of the chunks, since those of a rank lie one after another.
        let ((), losses) = agreement.agree::<F, (), Error>(own, losses)?;
        let sum: f64 = losses.iter().sum();
        if sum.is_finite() {
            reducer.add_up_ranks(group);
        }
        Ok(sum)
    }
}
