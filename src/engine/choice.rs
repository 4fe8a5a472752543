//! Which engine computes a network: the rule of [`Products::Auto`].
//!
//! The native engine takes what OpenBLAS is clearly slower at. Measured on AVX2 (Zen 3, OpenBLAS
//! 0.3.21, `f32`, epochs of steps, on a machine that others used too; docs/figures/step.csv), in
//! shares of the FMA peak of one thread, BLAS and native:
//!
//! ```text
//! 16-16-16-1     B 32   16 %  25 %        512-512-512-1   B 1    18 %  16 %
//! 46-46-46-1     B 32   23 %  40 %        512-512-512-1   B 8    33 %  43 %
//! 64-64-64-1     B 32   35 %  45 %        512-512-512-1   B 32   59 %  64 %
//! 128-128-128-1  B 128  50 %  62 %        784-512-512-1   B 128  61 %  57 %
//! 64-256-256-1   B 64   53 %  70 %        1024⁴-1         B 256  68 %  59 %
//! ```
//!
//! So it takes narrow layers, and small batches; but not up to [`FEW`] samples, where a step reads
//! the weights and does little else, and not calls with few samples in all, which do not make up
//! for the copies of θ into panels and back.
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

/// The most weights of a layer that is narrow, and the largest batch that is small.
const NARROW: usize = 256 * 256;
const SMALL: usize = 16;

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
    let is_narrow = mlp.widths().windows(2).all(|d| d[0] * d[1] <= NARROW);
    F::kernels().name != PORTABLE && batch > FEW && samples >= MADE_UP && (is_narrow || batch <= SMALL)
}

/// What the environment variable `GEMMPROP_PRODUCTS` (`blas`, `native`) puts in place of
/// [`Products::Auto`], for tests.
static ASKED: LazyLock<Products> = LazyLock::new(|| match std::env::var("GEMMPROP_PRODUCTS").as_deref() {
    Ok("blas") => Products::Blas,
    Ok("native") => Products::Native,
    Ok(other) => panic!("GEMMPROP_PRODUCTS={other}: expected blas or native"),
    Err(_) => Products::Auto,
});
