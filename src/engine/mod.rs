//! The engine over BLAS, a training step as phases of batched products over fixed tiles; and the
//! choice between it and the [native](crate::native) one (`choice`), behind one door (`door`).
//!
//! ```text
//! step(batch):                                       `step`: BlasEngine::descend
//!     for each phase of the plan:                    `plan`: Plan::run
//!         for each tile of the phase, on any thread:
//!             for each operation of the phase:       `pass`: what each of them computes
//!                 gather       Z[0] = rows of x, standardised
//!                 F[t]         Z[t+1] = ReLU(Z[t] w[t]ᵀ + 1 c[t]ᵀ)     t = 0 … T; head: no ReLU
//!                 loss         Σ ℓ and ∂ℓ/∂Ŷ
//!                 B[t]         Δ[t] = (Δ[t+1] w[t]) ⊙ 1[Z[t] > 0]        t = T … 1
//!     with SAM: the same once more at θ + ρ g/‖g‖    `sam`
//!     for each tile of θ, on any thread:             `update`: the rule of the optimiser
//!         w[t] ← −(η/B) Δ[t+1]ᵀ Z[t] + β w[t]        plain descent is one product
//! ```
//!
//! Each phase ends when all of its tiles are done. Tiles depend on shapes alone (`cut`,
//! `parameter_tiles`), so the bits do not depend on the number of threads. All buffers are made
//! once. `predict` lets either engine run the forward operations alone, `predictor` again and
//! again.

#[cfg(feature = "blas")]
mod blas_predict;
pub(crate) mod choice;
#[cfg(feature = "blas")]
pub(crate) mod cut;
pub(crate) mod door;
pub(crate) mod gradient;
#[cfg(feature = "blas")]
pub(crate) mod layers;
#[cfg(feature = "blas")]
pub(crate) mod parameter_tiles;
#[cfg(feature = "blas")]
pub(crate) mod pass;
#[cfg(feature = "blas")]
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod predictor;
#[cfg(feature = "blas")]
pub(crate) mod sam;
#[cfg(feature = "blas")]
pub(crate) mod step;
#[cfg(feature = "blas")]
pub(crate) mod update;
