//! What stands in place of BLAS in a build without it: no products, and no threads to guard.

use crate::error::Result;

/// What a number type needs of BLAS: nothing.
pub trait Kernels {}

impl<F> Kernels for F {}

/// Holds nothing: the native kernels never start a thread.
#[derive(Debug)]
pub(crate) struct OneBlasThread(());

#[expect(clippy::unnecessary_wraps, reason = "the function of the same name in a build with BLAS can fail")]
pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
    Ok(OneBlasThread(()))
}

pub(crate) fn description() -> &'static str {
    "no BLAS"
}
