//! The native engine: training steps, losses and predictions without BLAS, on matrices in panels.
//!
//! ```text
//! step(batch):                                         `step`: NativeEngine::descend
//!     for each phase of the plan:                      `plan`
//!         for each tile of the phase, on any thread:   `pass`: what the operations compute
//!             gather     Z[0] = rows of x, standardised
//!             F[t]       Z[t+1] = ReLU(w[t] Z[t] + c[t])          t = 0 … T; head: no ReLU
//!             loss       Σ ℓ and s ∂ℓ/∂Ŷ                          s = −η/B or 1/B
//!             B[t]       Δ[t] = (Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]        t = T … 1
//!     for each tile of θ, on any thread:               `update`
//!         U[t]           G = Δ[t+1]ᵀ Z[t];  w[t] ← the optimiser's rule
//! ```
//!
//! What each number of a product is, is defined at the head of [`kernels`](crate::kernels): neither
//! tiles nor threads nor the CPU change it, so tiles are cut as speed wants it. Only ‖g‖ is summed
//! tile by tile of θ. These are cut by shapes alone, so it has the same bits everywhere as well.

pub(crate) mod matrices;
pub(crate) mod pass;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod step;
#[cfg(feature = "internals")]
pub(crate) mod tile_times;
pub(crate) mod update;
