//! Number types, and the products of matrices and vectors that everything else is made of.

pub(crate) mod array_products;
pub(crate) mod blas;
#[cfg(feature = "blas")]
mod cblas;
pub(crate) mod fused;
#[cfg(all(feature = "blas", not(any(feature = "openblas-system", feature = "openblas-static"))))]
mod host_blas;
pub(crate) mod layout;
#[cfg(not(feature = "blas"))]
mod no_blas;
#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
mod openblas;
#[cfg(feature = "blas")]
pub(crate) mod products;
#[cfg(feature = "blas")]
pub(crate) mod rows;
pub(crate) mod scalar;
#[cfg(feature = "blas")]
mod self_test;
