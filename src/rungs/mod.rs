//! One gradient four ways, from the chain rule written out to batched products.
//!
//! Each module is to be read beside its equations. All four give ∂ŷ/∂θ (`output_gradient`) and ∇θ ℓ
//! (`loss_gradient`).
//!
//! | module | method | multiplications | products |
//! |---|---|---|---|
//! | [`naive`] | edge by edge, the chain rule forward | O((edges + nodes)²) | loops |
//! | [`per_neuron`] | backpropagation, neuron by neuron | O(edges + nodes) | loops |
//! | [`matrix_vector`] | δ\[t\] = (w\[t\]ᵀ δ\[t+1\]) ⊙ mask | O(edges + nodes) | gemv, ger |
//! | [`batched`] | Δ\[t\] = (Δ\[t+1\] w\[t\]) ⊙ mask, G = ΔᵀZ | O(edges + nodes) a sample | gemm |
//!
//! With native products, the last three are the same chains of fused multiply-adds and have the
//! same bits; the first adds up in another order.
//!
//! [`count`] counts the multiplications of any of them while it runs. [`bounds`] bounds what
//! rounding does to each number that they compute, and to the steps and products with the Hessian
//! that follow.

pub mod batched;
pub mod bounds;
pub mod count;
mod loss_bounds;
pub mod matrix_vector;
pub mod naive;
pub mod per_neuron;
mod rounding;
mod sample_bounds;
mod step_bounds;
mod tangent_bounds;
mod trace;

pub use trace::Trace;
