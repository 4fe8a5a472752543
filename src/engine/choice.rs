//! Which engine computes a network: the rule of [`Products::Auto`].

use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::products::Products;

/// Whether the native engine computes batches of up to `samples` samples of this network.
pub(crate) fn is_native<F: Scalar>(mlp: &Mlp<F>, _samples: usize) -> bool {
    match mlp.products() {
        Products::Native => true,
        Products::Blas => false,
        Products::Auto => !cfg!(feature = "blas"),
    }
}
