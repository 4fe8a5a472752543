//! A step of all ranks: each computes the gradient of its part of the batch, all get the sum, and
//! each makes the same update.

use std::ops::Range;
use std::panic::resume_unwind;

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::optim::moments::Moments;
use crate::optim::rule::Rule;
use crate::ranks::agree::{Agreement, alone};
use crate::ranks::deal::Deal;
use crate::ranks::group::{Collective, Sums};
use crate::ranks::reduce::{Reducer, Reduction};
use crate::ranks::update::{After, move_uphill};
use crate::steps::policy::NotFinite;
use crate::steps::top_down::TopDown;

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
        Self {
            reducer: Reducer::new(group, cut.chunks, cut.reduction, theta),
            after: After::new(theta, &moments.arrays),
            uphill: None,
            losses: vec![0.0; cut.own(group).len()],
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

/// `compute(θ, samples, a, into, top_down)` writes a Σ ∂ℓ/∂θ over those samples of this rank, and
/// returns Σ ℓ, as an engine does; if that is NaN, it may have written anything.
pub(crate) trait Compute<F>:
    FnMut(&Parameters<F>, Range<usize>, F, &mut Parameters<F>, Option<&mut dyn TopDown<F>>) -> f64
{
}

impl<F, C> Compute<F> for C where
    C: FnMut(&Parameters<F>, Range<usize>, F, &mut Parameters<F>, Option<&mut dyn TopDown<F>>) -> f64
{
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
    /// Makes it. Returns Σ ℓ over all ranks before the update, and ‖g‖ if the rule has it.
    ///
    /// # Errors
    /// On every rank if a loss panics on one. On every rank alike, in the second result, if
    /// something is not finite; θ and the moments are unchanged then.
    pub(crate) fn make(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        compute: &mut impl Compute<F>,
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
    fn gradient(&mut self, theta: &Parameters<F>, compute: &mut impl Compute<F>) -> Result<f64> {
        match self.cut.reduction {
            Reduction::Exact => self.exact_gradient(theta, compute),
            Reduction::Fast => self.fast_gradient(theta, compute),
        }
    }

    /// 1/B
    fn mean(&self) -> F {
        F::from_f64(1.0 / self.deal.batch_samples(self.k) as f64)
    }

    /// Those of the chunks, which are then added up in the tree.
    fn exact_gradient(&mut self, theta: &Parameters<F>, compute: &mut impl Compute<F>) -> Result<f64> {
        let mean = self.mean();
        let Self { agreement, cut, deal, k, .. } = *self;
        let group = agreement.group;
        let Buffers { reducer, losses, .. } = &mut *self.buffers;
        let first = cut.own(group).start;
        let own = alone(|| {
            reducer.add_up_own(group, |chunk, into| {
                let samples = deal.chunk(k, chunk - first);
                losses[chunk - first] = gradient_of(compute, theta, samples, mean, into, None);
            });
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

    /// One for each rank. They agree after the pass, and add up what is above while they compute
    /// what is below.
    fn fast_gradient(&mut self, theta: &Parameters<F>, compute: &mut impl Compute<F>) -> Result<f64> {
        let mean = self.mean();
        let Self { agreement, deal, k, .. } = *self;
        let samples = deal.batches(k..k + 1);
        let mut agreed: Option<Result<f64>> = None;
        let (group, Buffers { reducer, .. }) = (agreement.group, &mut *self.buffers);
        reducer.add_up_meanwhile(group, |into, sums| {
            let agree = &mut |own: f64| {
                let all = agreement.agree::<F, (), Error>(Ok(Ok(())), &[own]);
                let sum = agreed.insert(all.map(|((), losses)| losses.iter().sum::<f64>()));
                sum.as_ref().is_ok_and(|sum| sum.is_finite())
            };
            let top_down = &mut Meanwhile { agree, sums };
            let own = alone(|| {
                if group.ranks() > 1 {
                    return Ok(gradient_of(compute, theta, samples.clone(), mean, into, Some(top_down)));
                }
                // There is nothing to be hidden.
                let own = gradient_of(compute, theta, samples.clone(), mean, into, None);
                give_all(own, into, top_down);
                Ok(own)
            });
            match (own, &agreed) {
                (own, None) => agreed = Some(agreement.agree::<F, f64, Error>(own, &[f64::NAN]).map(|(sum, _)| sum)),
                (Ok(_), Some(_)) => {}
                (Err(panic), Some(_)) => {
                    // The others expect sums, and nothing else would reach them.
                    agreement.abandon();
                    resume_unwind(panic);
                }
            }
            agreed.as_ref().is_some_and(|sum| sum.as_ref().is_ok_and(|sum| sum.is_finite()))
        });
        agreed.expect("agreed on")
    }
}

/// What a fast step does while its gradient is computed.
struct Meanwhile<'a, F> {
    /// Takes Σ ℓ of this rank, and returns whether the ranks go on.
    agree: &'a mut dyn FnMut(f64) -> bool,
    sums: &'a mut dyn Sums<F>,
}

impl<F> TopDown<F> for Meanwhile<'_, F> {
    fn passed(&mut self, loss: f64) -> bool {
        (self.agree)(loss)
    }

    fn take(&mut self, numbers: &[F]) {
        self.sums.prepend(numbers);
    }

    fn meanwhile(&mut self) {
        self.sums.go_on();
    }
}

/// [`Compute`], which is not asked for no samples.
fn gradient_of<F: Scalar>(
    compute: &mut impl Compute<F>,
    theta: &Parameters<F>,
    samples: Range<usize>,
    mean: F,
    into: &mut Parameters<F>,
    top_down: Option<&mut dyn TopDown<F>>,
) -> f64 {
    if !samples.is_empty() {
        return compute(theta, samples, mean, into, top_down);
    }
    into.slices_mut().for_each(|numbers| numbers.fill(F::ZERO));
    if let Some(top_down) = top_down {
        give_all(0.0, into, top_down);
    }
    0.0
}

/// Gives all of a gradient that is there, with its Σ ℓ.
fn give_all<F: Scalar>(loss: f64, gradient: &Parameters<F>, top_down: &mut dyn TopDown<F>) {
    if top_down.passed(loss) {
        let slices: Vec<&[F]> = gradient.slices().collect();
        slices.into_iter().rev().for_each(|numbers| top_down.take(numbers));
    }
}
