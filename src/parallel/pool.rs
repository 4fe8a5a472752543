//! Whose threads help: the workers of a rayon pool that belongs to this crate, created when a call
//! first wants one.
//!
//! The workers of a host's pool are never occupied: its jobs run as if this crate were not there,
//! and an observer or a loss may use rayon, call this crate, or block. One worker of the pool is
//! kept free of helping, so that a job which a loss spawns on a helper finds a worker that runs it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::parallel::cores;

/// Workers that help, of all teams: jobs of [`try_spawn`] that have not ended.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Spawns the job of a helper; returns whether a worker was to spare.
pub(crate) fn try_spawn(job: impl FnOnce() + Send + 'static) -> bool {
    let Some(pool) = pool() else { return false };
    if HELPERS.fetch_add(1, Ordering::Relaxed) >= pool.current_num_threads() - 1 {
        HELPERS.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    pool.spawn(move || {
        job();
        HELPERS.fetch_sub(1, Ordering::Relaxed);
    });
    true
}

/// Returns the pool, or `None` if the system gives no threads.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    // Built in a thread of its own, for which this one only waits. A worker of a host's pool that
    // waited inside rayon would run other jobs meanwhile, and one that trains would come here again
    // and wait for itself.
    POOL.get_or_init(|| std::thread::Builder::new().spawn(build).ok()?.join().ok()?).as_ref()
}

fn build() -> Option<ThreadPool> {
    let builder = ThreadPoolBuilder::new().num_threads(cores::available_to_process());
    let pool = builder.thread_name(|index| format!("gemmprop-{index}")).build().ok()?;
    // Returns when all workers run: the first call would wait in vain for one that still starts.
    pool.broadcast(|_| ());
    Some(pool)
}
