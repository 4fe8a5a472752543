//! Which engine computes a network: the rule of [`Products::Auto`].

use std::sync::LazyLock;

use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::products::Products;

/// Whether the native engine computes batches of up to `samples` samples of this network.
pub(crate) fn is_native<F: Scalar>(mlp: &Mlp<F>, _samples: usize) -> bool {
    match mlp.products() {
        Products::Native => true,
        Products::Blas => false,
        Products::Auto => match *ASKED {
            Products::Native => true,
            Products::Blas => !cfg!(feature = "blas"),
            Products::Auto => true,
        },
    }
}

/// What the environment variable `GEMMPROP_PRODUCTS` (`blas`, `native`) puts in place of
/// [`Products::Auto`], for tests.
static ASKED: LazyLock<Products> = LazyLock::new(|| match std::env::var("GEMMPROP_PRODUCTS").as_deref() {
    Ok("blas") => Products::Blas,
    Ok("native") => Products::Native,
    Ok(other) => panic!("GEMMPROP_PRODUCTS={other}: expected blas or native"),
    Err(_) => Products::Auto,
});
