//! Number types, and the products of matrices and vectors that everything else is made of.

pub(crate) mod blas;
pub(crate) mod layout;
pub(crate) mod rows;
pub(crate) mod scalar;
pub(crate) mod threads;
