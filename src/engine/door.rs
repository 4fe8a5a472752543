//! Both engines behind one door.

use std::ops::Range;

#[cfg(feature = "blas")]
use crate::engine::step::BlasEngine;
use crate::linalg::scalar::Scalar;
use crate::native::step::NativeEngine;
use crate::network::loss::SampleLoss;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::optim::moments::Moments;
use crate::steps::policy::{Batches, Diverged, StepPolicy};
use crate::steps::samples::Samples;
use crate::steps::top_down::TopDown;

/// The engine of a network: buffers for all batches up to a capacity, and steps that run on them.
#[derive(Debug)]
#[cfg_attr(feature = "blas", expect(clippy::large_enum_variant, reason = "there is one in a run"))]
pub(crate) enum Engine<F: Scalar> {
    #[cfg(feature = "blas")]
    Blas(BlasEngine<F>),
    Native(NativeEngine<F>),
}

impl<F: Scalar> Engine<F> {
    /// Buffers for batches of up to `capacity` samples of this network. Whether the engine is
    /// `native` is for [`is_native`](crate::engine::choice::is_native) to say.
    pub(crate) fn new(mlp: &Mlp<F>, capacity: usize, native: bool) -> Self {
        #[cfg(feature = "blas")]
        if !native {
            return Self::Blas(BlasEngine::new(mlp, capacity));
        }
        debug_assert!(native, "without BLAS, all is native");
        Self::Native(NativeEngine::new(mlp, capacity))
    }

    /// The engine kept from the last call, or a new one if that does not fit the network or the
    /// batch.
    pub(crate) fn kept<'e>(kept: &'e mut Option<Self>, mlp: &Mlp<F>, batch: usize, native: bool) -> &'e mut Self {
        let fits = match kept {
            #[cfg(feature = "blas")]
            Some(Self::Blas(engine)) => !native && engine.fits(mlp, batch),
            Some(Self::Native(engine)) => native && engine.fits(mlp, batch),
            None => false,
        };
        if !fits {
            *kept = Some(Self::new(mlp, batch, native));
        }
        kept.as_mut().expect("just made")
    }

    /// The number of all z and δ of a batch.
    pub(crate) fn numbers(&self, samples: usize) -> usize {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas(engine) => engine.numbers(samples),
            Self::Native(engine) => engine.numbers(samples),
        }
    }

    /// `into` = a Σ ∂ℓ/∂θ over `samples` samples. Returns Σ ℓ; if that is NaN, nothing has been
    /// written.
    pub(crate) fn gradient<L: SampleLoss<F>>(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &Samples<F, L>,
        a: F,
        into: &mut Parameters<F>,
    ) -> f64 {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas(engine) => engine.gradient(theta, samples, &data.any(), a, into),
            Self::Native(engine) => engine.gradient(theta, samples, &data.any(), a, into),
        }
    }

    /// The same for a gradient that is used while it is computed. `top_down` decides whether it is
    /// written. Without it, as [`gradient`](Self::gradient).
    pub(crate) fn gradient_top_down<L: SampleLoss<F>>(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        data: &Samples<F, L>,
        a: F,
        into: &mut Parameters<F>,
        top_down: Option<&mut dyn TopDown<F>>,
    ) -> f64 {
        let Some(top_down) = top_down else { return self.gradient(theta, samples, data, a, into) };
        match self {
            #[cfg(feature = "blas")]
            Self::Blas(engine) => engine.gradient_top_down(theta, samples, &data.any(), a, into, top_down),
            Self::Native(engine) => engine.gradient_top_down(theta, samples, &data.any(), a, into, top_down),
        }
    }

    /// Σ ℓ over `samples` samples, `batch` of them at a time. The caller says how many, since the
    /// capacity depends on what came before.
    pub(crate) fn loss<L: SampleLoss<F>>(
        &mut self,
        theta: &Parameters<F>,
        samples: usize,
        batch: usize,
        data: &Samples<F, L>,
    ) -> f64 {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas(engine) => engine.loss(theta, samples, batch, &data.any()),
            Self::Native(engine) => engine.loss(theta, samples, batch, &data.any()),
        }
    }

    /// Makes the steps `steps` of an epoch, counted from 0, with the batches of these numbers. Each
    /// is followed by an update of θ as the policy says, for as long as it says so.
    ///
    /// # Errors
    /// The first step whose Σ ℓ is not finite, or, if overflow is watched, after which θ or the
    /// moments would not be.
    pub(crate) fn descend<L: SampleLoss<F>>(
        &mut self,
        theta: &mut Parameters<F>,
        moments: &mut Moments<F>,
        batches: Batches,
        steps: Range<usize>,
        data: &Samples<F, L>,
        policy: &mut impl StepPolicy<F>,
    ) -> Result<(), Diverged> {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas(engine) => engine.descend(theta, moments, batches, steps, &data.any(), policy),
            Self::Native(engine) => engine.descend(theta, moments, batches, steps, &data.any(), policy),
        }
    }
}
