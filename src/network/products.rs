//! Who computes the products of a network.

/// Who computes the products of matrices: OpenBLAS, or the kernels of this crate.
///
/// | | speed | bits |
/// |---|---|---|
/// | `Blas` | as fast as the library for layers from a thousand neurons on | the same for any number of threads on one CPU |
/// | `Native` | faster for narrow layers and small batches | the same on every CPU, too, and for a sample alone and in any batch |
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
