//! The BLAS's threads: one, and why.
//!
//! OpenBLAS's own threading splits a product by the number of threads, which changes the order of the
//! sums and so the last bits. Every product here runs on one BLAS thread, and *tiles* are spread over the cores
//! ([`team`](crate::parallel::team)). Tiles depend on shapes alone, so results are bit-identical for any number of threads.
//!
//! OpenBLAS keeps its number of threads in a global of the process. While a call of this crate computes, it is 1; when the
//! last such call ends, it is what it was before the first ([`one_blas_thread`]). A host program whose own threads call BLAS
//! meanwhile runs single-threaded there, and one that sets the number meanwhile finds its setting undone.
//! With another BLAS provider (feature `blas` alone) the host sees to it itself.
//!
//! SingleStep thread also keeps out of the code in which OpenBLAS has corrupted products that several threads asked for at once: its
//! own threading, in pthread builds before 0.3.34 (issue 5836) and otherwise in 0.3.28 to 0.3.30 (pull request 4741). Builds
//! that may not obey, that have no locks, or that count in other integers are refused; and before the first call a few products
//! are checked, for a library that is linked wrongly has been known to answer with zeros.

#[cfg(feature = "blas")]
use std::sync::OnceLock;

#[cfg(feature = "blas")]
use crate::error::{Error, Result};

/// The build of BLAS, looked at once: does it compute, and can it be called from several threads?
#[cfg(feature = "blas")]
fn checked() -> Result<()> {
    static CHECKED: OnceLock<Result<()>> = OnceLock::new();
    let check = || {
        policy::refused()?;
        match crate::linalg::blas::wrong_product() {
            Some(product) => Err(Error::BlasWrong { config: policy::description().to_owned(), product }),
            None => Ok(()),
        }
    };
    CHECKED.get_or_init(check).clone()
}

#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
mod policy {
    use crate::error::{Error, Result};
    use crate::linalg::blas::openblas::{self, Parallel};
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
    /// [`Error::BlasThreads`] if the library does not obey, as OpenMP builds may not; [`Error::BlasLocking`],
    /// [`Error::BlasIntegers`] and [`Error::BlasWrong`] for a library that cannot be used at all.
    pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.count == 0 {
            let before = openblas::threads();
            if before != 1 {
                openblas::set_threads(1);
            }
            let found = openblas::threads();
            let usable = if found == 1 { super::checked() } else { Err(obeys_not(found)) };
            if let Err(error) = usable {
                openblas::set_threads(before);
                return Err(error);
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

    fn obeys_not(found: i32) -> Error {
        Error::BlasThreads { config: openblas::description().to_owned(), found }
    }

    /// Builds that cannot be held to one thread, or not be called from several.
    pub(super) fn refused() -> Result<()> {
        let omp_threads = std::env::var("OMP_NUM_THREADS").ok();
        refusal(openblas::parallel(), openblas::description(), omp_threads.as_deref()).map_or(Ok(()), Err)
    }

    pub(super) fn refusal(parallel: Parallel, config: &str, omp_threads: Option<&str>) -> Option<Error> {
        let config = config.to_owned();
        if config.contains("USE64BITINT") {
            return Some(Error::BlasIntegers { config });
        }
        match parallel {
            Parallel::Pthreads => None,
            // It may report 1 and take its number from the OpenMP runtime all the same (OpenBLAS issue 5806).
            Parallel::OpenMp => {
                let one = omp_threads.is_some_and(|n| n.trim() == "1");
                (!one).then_some(Error::BlasThreads { config, found: 1 })
            }
            // Without locks around its buffers, calls from several threads overwrite one another's operands (issue 2126).
            // Versions before 0.3.28 do not say whether they have them.
            Parallel::Serial => (!config.contains("USE_LOCKING")).then_some(Error::BlasLocking { config }),
        }
    }

    pub(super) fn description() -> &'static str {
        openblas::description()
    }
}

#[cfg(not(any(feature = "openblas-system", feature = "openblas-static")))]
mod policy {
    use crate::error::Result;

    /// Nothing to hold: ndarray's kernels have one thread, and another provider's threads are the host's to set.
    #[derive(Debug)]
    pub(crate) struct OneBlasThread(());

    #[cfg_attr(
        not(feature = "blas"),
        expect(clippy::unnecessary_wraps, reason = "the builds with BLAS of the same function can fail")
    )]
    pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
        #[cfg(feature = "blas")]
        super::checked()?;
        Ok(OneBlasThread(()))
    }

    #[cfg(feature = "blas")]
    #[expect(clippy::unnecessary_wraps, reason = "OpenBLAS builds can be refused")]
    pub(super) fn refused() -> Result<()> {
        Ok(())
    }

    pub(super) fn description() -> &'static str {
        if cfg!(feature = "blas") { "a CBLAS of the host program's" } else { "matrixmultiply (no BLAS)" }
    }
}

pub(crate) use policy::one_blas_thread;

/// What computes the products: OpenBLAS's version, build and kernel, or what stands in for it. For captions and bug reports.
#[must_use]
pub fn blas_description() -> &'static str {
    policy::description()
}

#[cfg(all(test, any(feature = "openblas-system", feature = "openblas-static")))]
mod tests {
    use super::policy::refusal;
    use crate::error::Error;
    use crate::linalg::blas::openblas::Parallel;

    #[test]
    fn the_description_is_the_same_for_threads_that_ask_at_once() {
        let asked = || (0..2000).map(|_| super::blas_description()).collect::<std::collections::HashSet<_>>();
        let found = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(asked)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<std::collections::HashSet<_>>()
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn builds_that_cannot_be_trusted_are_refused() {
        let config = "OpenBLAS 0.3.21 Zen".to_owned();
        assert_eq!(refusal(Parallel::Pthreads, &config, None), None);
        for (omp, obeys) in
            [(None, false), (Some("2"), false), (Some(""), false), (Some("1"), true), (Some(" 1 "), true)]
        {
            let expected = (!obeys).then(|| Error::BlasThreads { config: config.clone(), found: 1 });
            assert_eq!(refusal(Parallel::OpenMp, &config, omp), expected, "OMP_NUM_THREADS {omp:?}");
        }
        // It would read the upper halves of our lengths from wherever they lie.
        let wide = "OpenBLAS 0.3.21 USE64BITINT Zen MAX_THREADS=64".to_owned();
        assert_eq!(refusal(Parallel::Pthreads, &wide, None), Some(Error::BlasIntegers { config: wide.clone() }));
        assert_eq!(refusal(Parallel::Serial, &config, None), Some(Error::BlasLocking { config: config.clone() }));
        assert_eq!(refusal(Parallel::Serial, "OpenBLAS 0.3.28 USE_LOCKING Zen SINGLE_THREADED", None), None);
    }
}
