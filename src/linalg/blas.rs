//! BLAS's threads: one, and why.
//!
//! OpenBLAS's own threading splits a product by the number of threads, which changes the order of
//! the sums and so the last bits. Every product of this crate runs on one BLAS thread, and *tiles*
//! are spread over the cores instead ([`team`](crate::parallel::team)). Tiles depend on shapes
//! alone, so results are bit-identical for any number of threads.
//!
//! OpenBLAS keeps its number of threads in a global of the process. While a call of this crate
//! computes, it is 1; when the last such call ends, it is what it was before the first
//! ([`one_blas_thread`]). A host program whose own threads call BLAS meanwhile runs single-threaded
//! there, and one that sets the number meanwhile finds its setting undone. With another provider of
//! BLAS (the feature `blas` alone), the host sets the number itself.
//!
//! A single thread also avoids the code in which OpenBLAS has corrupted products that several
//! threads asked for at once: its own threading, in pthread builds before 0.3.34 (OpenBLAS issue
//! 5836) and otherwise in 0.3.28 to 0.3.30 (pull request 4741). Builds that may not obey, that have
//! no locks, or that have 64-bit integers are refused, and a few products are checked before the
//! first call (`self_test`).
//!
//! `openblas`, `host_blas` and `no_blas` have the same two functions and the same guard; one of
//! them is compiled.

#[cfg(all(feature = "blas", not(any(feature = "openblas-system", feature = "openblas-static"))))]
use crate::linalg::host_blas as provider;
#[cfg(not(feature = "blas"))]
use crate::linalg::no_blas as provider;
#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
use crate::linalg::openblas as provider;

pub(crate) use provider::one_blas_thread;

/// The BLAS: OpenBLAS's version, build and kernel, or what stands in for it. For captions and bug
/// reports, beside [`native_kernels`](crate::native_kernels).
#[must_use]
pub fn blas_description() -> &'static str {
    provider::description()
}
