//! Which engine computes a network: the rule of [`Products::Auto`].
//!
//! The native engine takes whatever OpenBLAS is clearly slower at. Measured on AVX2 (Zen 3,
//! OpenBLAS 0.3.21, one thread, `f32`), the time of a step over BLAS divided by that of the native
//! engine: `docs/figures/step.csv` has both. What follows from it:
//!
//! - up to [`FEW`] samples, a step reads the weights and does little else; OpenBLAS reads them row
//!   by row, as they lie, and is faster;
//! - a call with few samples in all does not pay for the copies of θ into panels and back;
//! - layers of [`WIDE`] neurons or more under batches of [`LARGE`] samples or more are what BLAS is
//!   made for, and it does them.
//!
//! On a CPU without FMA the native kernels are slow, and BLAS computes everything.

use std::sync::LazyLock;

use crate::kernels::few::FEW;
use crate::kernels::table::PORTABLE;
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::products::Products;

/// Samples of a call, whatever its batches are, that make up for two copies of θ.
const MADE_UP: usize = 256;

/// The narrowest layer of a network that is wide, and the batch that is large, for BLAS.
const WIDE: usize = 1024;
const LARGE: usize = 256;

/// Whether the native engine computes a call of `samples` samples of this network, in batches of
/// `batch`.
pub(crate) fn is_native<F: Scalar>(mlp: &Mlp<F>, batch: usize, samples: usize) -> bool {
    match (mlp.products(), *ASKED) {
        (Products::Native, _) | (Products::Auto, Products::Native) => true,
        (Products::Blas, _) => false,
        (Products::Auto, Products::Blas) => !cfg!(feature = "blas"),
        (Products::Auto, Products::Auto) => !cfg!(feature = "blas") || native_is_faster(mlp, batch, samples),
    }
}

fn native_is_faster<F: Scalar>(mlp: &Mlp<F>, batch: usize, samples: usize) -> bool {
    let hidden = &mlp.widths()[..mlp.depth() + 1];
    let is_for_blas = batch >= LARGE && hidden.iter().all(|&d| d >= WIDE);
    F::kernels().name != PORTABLE && batch > FEW && samples >= MADE_UP && !is_for_blas
}

/// What the environment variable `GEMMPROP_PRODUCTS` (`blas`, `native`) puts in place of
/// [`Products::Auto`], for tests.
static ASKED: LazyLock<Products> = LazyLock::new(|| match std::env::var("GEMMPROP_PRODUCTS").as_deref() {
    Ok("blas") => Products::Blas,
    Ok("native") => Products::Native,
    Ok(other) => panic!("GEMMPROP_PRODUCTS={other}: expected blas or native"),
    Err(_) => Products::Auto,
});
