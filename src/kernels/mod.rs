//! Matrix products without BLAS: one storage form, one tile, and the same bits on every CPU.
//!
//! # The chain
//!
//! Every number that the native engine computes by a product is a *chain*: with `fma(a, b, c)` =
//! a b + c, rounded once,
//!
//! ```text
//! acc = start;  for k = 0, 1, …:  acc = fma(a[k], b[k], acc)
//!
//! forward    u[t+1]_j  = chain(start c[t]_j,  w[t]_ji, z[t]_i)          over the inputs i
//! backward   δ[t]_i    = chain(start 0,       δ[t+1]_j, w[t]_ji)        over the neurons j
//! gradient   g[t]_ji   = chain(start 0,       δ[t+1]_bj, z[t]_bi)       over the samples b
//! ```
//!
//! - The derivative of the loss is multiplied by the factor of the sum (1/B, or −η/B for plain
//!   descent) before the backward pass, so that δ and g have it already.
//! - Samples are summed in blocks of [`SAMPLE_BLOCK`](sums::SAMPLE_BLOCK): a chain for each, added
//!   in order. (One chain over a million samples would lose half of a `f32`'s digits.)
//! - The gradient of a bias, whose numbers have no factors, is summed in the type itself over
//!   [`BIAS_BLOCK`](sums::BIAS_BLOCK) samples; such blocks are added in double precision.
//! - Plain descent is w ← β w + g: a product, which β = 1 leaves out, and an addition. (A chain
//!   that started from w would round the share of each sample at the size of w.)
//!
//! No sum is ever divided otherwise: not by tiles, threads, caches or vector registers. These hold
//! different numbers of C side by side, never parts of one. So the bits depend neither on them nor
//! on the CPU: an FMA instruction and [`mul_add`](f32::mul_add) in software round alike. The error
//! of a chain over n numbers is at most γ(n) = n u/(1 − n u) times the sum of the absolute values,
//! |start| + Σ |a\[k\] b\[k\]|, where u is the unit roundoff.
//!
//! # The storage form
//!
//! A matrix lies in *panels*: columns are taken in groups of as many as fill a cache line, and each
//! group is stored row by row, one line a row ([`panels`]). In that form all three products are the
//! same C = A B, in which B and C are read and written line by line and A number by number:
//!
//! ```text
//! forward    Zᵀ[t+1] (j × b) = w[t]   (j × i)  Zᵀ[t] (i × b)      A along its rows
//! backward   Δ[t]    (b × i) = Δ[t+1] (b × j)  w[t]  (j × i)      A along its rows
//! gradient   G[t]    (j × i) = Δᵀ[t+1](j × b)  Z[t]  (b × i)      A along its columns
//! ```
//!
//! So w is neither copied nor transposed; only Z exists in both directions. (Where samples are few
//! or very many, the forward product is Z\[t+1\] = Z\[t\] w\[t\]ᵀ instead, whose B is transposed
//! block by block in the L1 cache. The chains are the same.) `docs/kernels.md` explains all of
//! this, with a drawing.
//!
//! # The files
//!
//! [`tile`] multiplies one tile in registers, and a strip of tiles below each other; [`product`]
//! has the loops around it, and a file for each vector extension says how a register is loaded,
//! multiplied and stored. [`table`] chooses the extension.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod few;
#[cfg(test)]
mod kernels_tests;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod number;
pub(crate) mod operands;
pub(crate) mod panels;
pub(crate) mod portable;
pub(crate) mod product;
pub(crate) mod sums;
pub(crate) mod table;
pub(crate) mod tile;
