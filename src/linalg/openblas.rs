//! The OpenBLAS that this crate links: its settings, which are global to the process, the builds
//! that are refused, and the guard that keeps it on one thread.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

// The crate that links the library where build.rs does not.
#[cfg(feature = "openblas-static")]
use openblas_src as _;

use crate::error::{Error, Result};
use crate::linalg::self_test;

unsafe extern "C" {
    fn openblas_set_num_threads(threads: c_int);
    fn openblas_get_num_threads() -> c_int;
    fn openblas_get_parallel() -> c_int;
    fn openblas_get_config() -> *const c_char;
    fn openblas_get_corename() -> *const c_char;
}

fn set_threads(threads: i32) {
    // SAFETY: takes a number by value; OpenBLAS clamps it to its own limits.
    unsafe { openblas_set_num_threads(threads) }
}

fn threads() -> i32 {
    // SAFETY: reads a global of the library.
    unsafe { openblas_get_num_threads() }
}

/// How the library was built to run several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threading {
    Serial,
    Pthreads,
    OpenMp,
}

fn threading() -> Threading {
    // SAFETY: reads a constant of the library.
    match unsafe { openblas_get_parallel() } {
        0 => Threading::Serial,
        1 => Threading::Pthreads,
        _ => Threading::OpenMp,
    }
}

/// Version, build options and kernel, such as `OpenBLAS 0.3.21 … MAX_THREADS=64 kernel Zen`.
///
/// Asked for once: each call of `openblas_get_config` writes its answer into the same buffer of the
/// process, so two threads that call it at the same time spoil each other's answer.
pub(crate) fn description() -> &'static str {
    static DESCRIPTION: OnceLock<String> = OnceLock::new();
    DESCRIPTION.get_or_init(|| {
        // SAFETY: both return pointers to NUL-terminated strings that live as long as the process.
        // The first is written only during the call that returns it, and `OnceLock` lets one thread
        // of this crate make that call, once.
        let (config, core) =
            unsafe { (CStr::from_ptr(openblas_get_config()), CStr::from_ptr(openblas_get_corename())) };
        format!("{} kernel {}", config.to_string_lossy().trim(), core.to_string_lossy())
    })
}

/// The calls of this crate that compute at the moment, and the number of threads that the host had
/// set before the first of them.
struct Holders {
    count: usize,
    threads_before: i32,
}

static HOLDERS: Mutex<Holders> = Mutex::new(Holders { count: 0, threads_before: 1 });

fn holders() -> MutexGuard<'static, Holders> {
    HOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps OpenBLAS on one thread until dropped.
#[derive(Debug)]
pub(crate) struct OneBlasThread(());

/// Sets OpenBLAS's number of threads to 1, if no other call of this crate has done so.
///
/// # Errors
/// [`Error::BlasThreads`] if the library does not obey, as OpenMP builds may not;
/// [`Error::BlasLocking`], [`Error::BlasIntegers`] and [`Error::BlasWrong`] for a library that
/// cannot be used at all. After an error the number of threads is what it was.
pub(crate) fn one_blas_thread() -> Result<OneBlasThread> {
    let mut holders = holders();
    if holders.count == 0 {
        let before = threads();
        if before != 1 {
            set_threads(1);
        }
        if let Err(error) = check() {
            set_threads(before);
            return Err(error);
        }
        holders.threads_before = before;
    }
    holders.count += 1;
    Ok(OneBlasThread(()))
}

impl Drop for OneBlasThread {
    fn drop(&mut self) {
        let mut holders = holders();
        holders.count -= 1;
        if holders.count == 0 && holders.threads_before != 1 {
            set_threads(holders.threads_before);
        }
    }
}

/// Checks that the library now has one thread, every time, and that its build can be used, once.
fn check() -> Result<()> {
    static USABLE: OnceLock<Result<()>> = OnceLock::new();
    match threads() {
        1 => USABLE.get_or_init(check_build).clone(),
        found => Err(Error::BlasThreads { config: description().to_owned(), found }),
    }
}

fn check_build() -> Result<()> {
    let omp_threads = std::env::var("OMP_NUM_THREADS").ok();
    match refusal(threading(), description(), omp_threads.as_deref()) {
        Some(error) => Err(error),
        None => self_test::run(description()),
    }
}

/// Returns why a build is refused: it cannot be held to one thread, or several threads cannot call
/// it, or its integers have another width than the crate's. `omp_threads` is the environment
/// variable `OMP_NUM_THREADS`.
fn refusal(threading: Threading, config: &str, omp_threads: Option<&str>) -> Option<Error> {
    let config = config.to_owned();
    if config.contains("USE64BITINT") {
        return Some(Error::BlasIntegers { config });
    }
    match threading {
        Threading::Pthreads => None,
        // It may report one thread, and still take its number from the OpenMP runtime (OpenBLAS
        // issue 5806).
        Threading::OpenMp => {
            let one = omp_threads.is_some_and(|n| n.trim() == "1");
            (!one).then_some(Error::BlasThreads { config, found: 1 })
        }
        // Without locks around its buffers, calls from several threads overwrite one another's
        // operands (OpenBLAS issue 2126). Versions before 0.3.28 do not say whether they have them.
        Threading::Serial => (!config.contains("USE_LOCKING")).then_some(Error::BlasLocking { config }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_description_is_the_same_for_threads_that_ask_at_once() {
        let ask = || (0..2000).map(|_| description()).collect::<HashSet<_>>();
        let found = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<HashSet<_>>()
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn builds_that_cannot_be_trusted_are_refused() {
        let config = "OpenBLAS 0.3.21 Zen".to_owned();
        assert_eq!(refusal(Threading::Pthreads, &config, None), None);
        for (omp, obeys) in
            [(None, false), (Some("2"), false), (Some(""), false), (Some("1"), true), (Some(" 1 "), true)]
        {
            let expected = (!obeys).then(|| Error::BlasThreads { config: config.clone(), found: 1 });
            assert_eq!(refusal(Threading::OpenMp, &config, omp), expected, "OMP_NUM_THREADS {omp:?}");
        }
        // It would read 64 bits of each of our 32-bit lengths.
        let wide = "OpenBLAS 0.3.21 USE64BITINT Zen MAX_THREADS=64".to_owned();
        assert_eq!(refusal(Threading::Pthreads, &wide, None), Some(Error::BlasIntegers { config: wide.clone() }));
        assert_eq!(refusal(Threading::Serial, &config, None), Some(Error::BlasLocking { config: config.clone() }));
        assert_eq!(refusal(Threading::Serial, "OpenBLAS 0.3.28 USE_LOCKING Zen SINGLE_THREADED", None), None);
    }
}
