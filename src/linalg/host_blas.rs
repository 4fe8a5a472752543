//! A BLAS that is not known to be OpenBLAS: that of the system, Intel's MKL, or with the feature
//! `blas` alone one that the host program links. Its products are checked; its threads are the
//! host's to set, since no function for that is common to all libraries.

use std::sync::OnceLock;

use crate::error::Result;
use crate::linalg::self_test;

/// Holds nothing: see the head of this file.
#[derive(Debug)]
pub(crate) struct OneBlasThread(());

/// # Errors
/// [`Error::BlasWrong`](crate::Error::BlasWrong) if the library multiplies wrongly. The products
/// are checked once in a process.
pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
    static USABLE: OnceLock<Result<()>> = OnceLock::new();
    USABLE.get_or_init(|| self_test::run(description())).clone()?;
    Ok(OneBlasThread(()))
}

pub(crate) fn description() -> &'static str {
    if cfg!(feature = "intel-mkl-system") {
        "Intel's MKL"
    } else if cfg!(feature = "netlib-system") {
        "the system's CBLAS"
    } else {
        "a CBLAS of the host program"
    }
}
