//! Who computes the products of a network.

use std::fmt::{self, Display};

/// Who computes the products of matrices: OpenBLAS, or the kernels of this crate.
///
/// | | speed | bits |
/// |---|---|---|
/// | `Blas` | that of the library, which copies its operands: little work beside large products, much beside small ones | the same for any number of threads, on one CPU with one build of the library |
/// | `Native` | copies nothing, so narrow layers and small batches are fast as well | the same for any number of threads, on every CPU, and of a sample alone and in any batch |
///
/// Native products are fast on x86-64 with AVX2 and FMA and on aarch64, and slow on other CPUs.
///
/// The native engine copies θ into its own order and back once a call: single steps of a wide
/// network are faster over BLAS, or as an epoch.
///
/// It is a setting of the network ([`Mlp::with_products`](crate::Mlp::with_products)), for its
/// training, its predictions and its Hessian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
pub enum Products {
    /// `Native` for networks and batches for which OpenBLAS is clearly slower, and `Blas` for the
    /// others. Without the feature `blas`, `Native`.
    #[default]
    Auto,
    /// A BLAS library, by the feature `blas`.
    Blas,
    /// The kernels of this crate, which need no library.
    Native,
}

/// The name that checkpoints have: `auto`, `blas` or `native`.
impl Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Blas => "blas",
            Self::Native => "native",
        })
    }
}
