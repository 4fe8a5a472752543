//! The thread policy, all of it, and why.
//!
//! **One BLAS thread.** OpenBLAS's own threading splits a product by the number of threads, which changes the order of the
//! sums and so the last bits. Every product here runs on one BLAS thread, and rayon spreads *tiles* over the cores. Tiles
//! depend on shapes alone, so results are bit-identical for any number of threads.
//!
//! OpenBLAS keeps its number of threads in a global of the process. While a call of this crate computes, it is 1; when the
//! last such call ends, it is what it was before the first ([`one_blas_thread`]). A host program whose own threads call BLAS meanwhile runs
//! single-threaded there, and one that sets the number meanwhile finds its setting undone.
//! With another BLAS provider (feature `blas` alone) the host sees to it itself.
//!
//! **Work decides, not width.** Handing work to another thread costs tens of microseconds. Below [`PARALLEL_FLOPS`] a phase
//! runs on the calling thread; the tiles are the same, so the bits are too.

/// Floating-point operations below which a phase stays on the calling thread: about 50 µs of one core, what waking a
/// sleeping worker costs at worst.
pub(crate) const PARALLEL_FLOPS: usize = 4_000_000;

/// Runs `work` for each tile below `tiles`, each once, on any thread of the current rayon pool.
pub(crate) fn for_each_tile(tiles: usize, flops: usize, work: impl Fn(usize) + Sync + Send) {
    use rayon::prelude::*;
    if tiles == 1 || flops < PARALLEL_FLOPS || rayon::current_num_threads() == 1 {
        (0..tiles).for_each(work);
    } else {
        (0..tiles).into_par_iter().with_max_len(1).for_each(work);
    }
}

#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
mod policy {
    use crate::blas::openblas;
    use crate::error::{Error, Result};
    use std::sync::{Mutex, PoisonError};

    /// Calls that now compute, and the number of threads that the host had set before the first of them.
    struct Holders {
        count: usize,
        before: i32,
    }

    static HOLDERS: Mutex<Holders> = Mutex::new(Holders { count: 0, before: 1 });

    /// Keeps OpenBLAS on one thread until dropped.
    #[derive(Debug)]
    pub(crate) struct OneBlasThread(());

    /// # Errors
    /// [`Error::BlasThreads`] if the library does not obey, as OpenMP builds may not.
    pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.count == 0 {
            let before = openblas::threads();
            if before != 1 {
                openblas::set_threads(1);
            }
            let found = openblas::threads();
            // An OpenMP build may report 1 and take its number from the OpenMP runtime all the same (OpenBLAS issue 5806).
            let omp_says_one = std::env::var("OMP_NUM_THREADS").is_ok_and(|n| n.trim() == "1");
            if found != 1 || (openblas::is_openmp() && !omp_says_one) {
                openblas::set_threads(before);
                return Err(Error::BlasThreads { config: openblas::description(), found });
            }
            holders.before = before;
        }
        holders.count += 1;
        Ok(OneBlasThread(()))
    }

    impl Drop for OneBlasThread {
        fn drop(&mut self) {
            let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
            holders.count -= 1;
            if holders.count == 0 && holders.before != 1 {
                openblas::set_threads(holders.before);
            }
        }
    }

    pub(super) fn description() -> String {
        openblas::description()
    }
}

#[cfg(not(any(feature = "openblas-system", feature = "openblas-static")))]
mod policy {
    use crate::error::Result;

    /// Nothing to hold: ndarray's kernels have one thread, and another provider's threads are the host's to set.
    #[derive(Debug)]
    pub(crate) struct OneBlasThread(());

    #[expect(clippy::unnecessary_wraps, reason = "the OpenBLAS build of the same function can fail")]
    pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
        Ok(OneBlasThread(()))
    }

    pub(super) fn description() -> String {
        if cfg!(feature = "blas") { "a CBLAS of the host program's" } else { "matrixmultiply (no BLAS)" }.to_owned()
    }
}

pub(crate) use policy::one_blas_thread;

/// What computes the products: OpenBLAS's version, build and kernel, or what stands in for it. For captions and bug reports.
#[must_use]
pub fn blas_description() -> String {
    policy::description()
}
