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
//! One thread also keeps out of the code in which OpenBLAS has corrupted products that several threads asked for at once: its own
//! threading, in pthread builds before 0.3.34 (issue 5836) and otherwise in 0.3.28 to 0.3.30 (pull request 4741). OpenMP builds
//! that may not obey, and serial builds without locks, are refused; and before the first call a few products are checked, for
//! a library that is linked wrongly has been known to answer with zeros.
//!
//! **Helpers are welcome, never needed.** A [`Crew`] belongs to one engine. While it computes it invites workers of the
//! current rayon pool, as many as there are cores to run them. A phase ends when its *tiles* are done, not when its threads have met:
//! the caller alone can finish everything, a helper may come late or never (a busy pool, a caller's own rayon job), and no
//! barrier can deadlock. Sleeping workers are what costs, 20 to 60 µs a wake-up, so helpers stay for an epoch and, after it, for
//! [`LINGER`] rounds, in which the next single step finds them awake. Who waits spins for [`SPIN`] rounds and then yields. Each
//! sees to it that it has a core of its own ([`cores`](crate::cores)): two on one core are slower than one alone.
//!
//! **Work decides, not width.** Below [`INVITE_FLOPS`] no helper is invited, below [`SHARE_FLOPS`] a phase is not shared. Calls in
//! quick succession count together: a loop of single steps gets the helpers that an epoch gets. Steps below [`PACED_FLOPS`] are
//! shared only while that is found to be faster ([`pace`](crate::pace)). The tiles are the same either way, so the bits are too.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fork_join::{End, ForkJoin};
use crate::cores::Cores;
#[cfg(feature = "blas")]
use crate::error::{Error, Result};
use crate::pace::Pace;

/// Floating-point operations below which waking a helper costs more than it brings: about 50 µs of a core. Of a whole call, or of
/// calls in quick succession, as those of a caller's own loop over single steps.
const INVITE_FLOPS: usize = 4_000_000;

/// Floating-point operations below which handing a tile to an awake helper (two cache misses each way, under 1 µs) does not pay.
const SHARE_FLOPS: usize = 150_000;

/// Floating-point operations of a step, about a millisecond of a core, from which sharing it always pays.
const PACED_FLOPS: usize = 100_000_000;

/// Rounds of waiting, 20 to 40 ns each, before a waiting thread yields its core to whoever wants it.
const SPIN: u32 = 2_000;

/// Rounds that a helper stays when a call has ended: up to about 100 µs, in which a loop of single steps comes back.
const LINGER: u32 = 4_000;

/// Phases at whose beginning a caller yields its core once while a helper is missing. One that was woken on the caller's own core
/// could not run, and move away, before the caller's time slice ends, after milliseconds.
const MAKE_WAY: u32 = 64;

/// Calls no further apart than this are in quick succession: about as long as a helper lingers.
const SUCCESSION: Duration = Duration::from_micros(100);

/// One engine's helpers.
#[derive(Default)]
pub(crate) struct Crew {
    /// Made when helpers are invited for the first time.
    shared: OnceLock<Arc<Shared>>,
    /// When the last call that could have been shared ended, and the work of it and of those in quick succession before it.
    before: Option<(Instant, usize)>,
    pace: Pace,
}

#[derive(Default)]
struct Shared {
    lent: ForkJoin,
    /// A call is running: helpers stay.
    open: AtomicBool,
    /// No call will come any more: helpers leave at once, for they keep others from their worker.
    over: AtomicBool,
    /// Helpers invited and not yet gone, whether or not the pool has found time for them.
    members: AtomicUsize,
    /// Those of them that have come.
    arrived: AtomicUsize,
    /// Of the caller and of the helpers that have come.
    cores: Cores,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("before", &self.before).finish_non_exhaustive()
    }
}

impl Shared {
    /// Has a helper been invited that has not come?
    fn misses_helpers(&self) -> bool {
        self.arrived.load(Ordering::Relaxed) < self.members.load(Ordering::Relaxed)
    }
}

/// One round of waiting.
fn wait(round: u32) {
    if round < SPIN {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Threads that can run at once: more helpers than that would take turns on the cores and be waited for.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

impl Crew {
    /// Runs `work`, whose phases helpers may share if the [`shareable`] `flops` of all of them are worth their coming.
    pub(crate) fn assemble<R>(&mut self, flops: usize, work: impl FnOnce(&Assembled) -> R) -> R {
        // With nothing to share the pool is not even looked at, which would start it.
        let helpers = if flops == 0 { 0 } else { rayon::current_num_threads().min(cores()) - 1 };
        if helpers == 0 {
            return work(&Assembled::alone());
        }
        let recent = match self.before {
            Some((ended, recent)) if ended.elapsed() <= SUCCESSION => recent.saturating_add(flops),
            _ => flops,
        };
        let result = if recent < INVITE_FLOPS { work(&Assembled::alone()) } else { self.with_helpers(helpers, work) };
        self.before = Some((Instant::now(), recent));
        result
    }

    fn with_helpers<R>(&mut self, helpers: usize, work: impl FnOnce(&Assembled) -> R) -> R {
        /// Lets the helpers go, also when `work` panics.
        struct Close<'a>(&'a Shared);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.open.store(false, Ordering::SeqCst);
            }
        }
        let shared = self.shared.get_or_init(Arc::default);
        shared.open.store(true, Ordering::SeqCst);
        let _close = Close(shared);
        let _core = shared.cores.stay();
        for _ in shared.members.load(Ordering::SeqCst)..helpers {
            shared.members.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(shared);
            rayon::spawn(move || help(&shared));
        }
        let (makes_way, pace) = (Cell::new(MAKE_WAY), Cell::new(self.pace));
        let crew = Assembled { shared: Some(shared), share: Cell::new(true), makes_way, pace };
        let result = work(&crew);
        self.pace = crew.pace.get();
        result
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.get() {
            shared.over.store(true, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static CREW: Cell<Crew> = Cell::default();
}

/// The work of a phase that would be shared, and 0 of one that would not.
pub(crate) fn shareable(tiles: usize, flops: usize) -> usize {
    if tiles > 1 && tiles <= ForkJoin::MOST_TILES && flops >= SHARE_FLOPS { flops } else { 0 }
}

/// [`Crew::assemble`] with a crew that this thread keeps, for calls that have no place to keep one: the helpers of one call find the
/// next.
pub(crate) fn assemble<R>(flops: usize, work: impl FnOnce(&Assembled) -> R) -> R {
    let mut crew = CREW.take();
    let result = crew.assemble(flops, work);
    CREW.set(crew);
    result
}

/// A helper's stay.
fn help(shared: &Shared) {
    let _core = shared.cores.settle();
    shared.arrived.fetch_add(1, Ordering::Relaxed);
    let mut idle = 0;
    loop {
        if shared.lent.help(End::Back) {
            idle = 0;
        } else if shared.open.load(Ordering::SeqCst) || (idle < LINGER && !shared.over.load(Ordering::Relaxed)) {
            wait(idle);
            idle = idle.saturating_add(1);
        } else {
            // Either the next call sees that one is gone, or its opening is seen here.
            shared.arrived.fetch_sub(1, Ordering::Relaxed);
            shared.members.fetch_sub(1, Ordering::SeqCst);
            if !shared.open.load(Ordering::SeqCst) {
                return;
            }
            shared.members.fetch_add(1, Ordering::SeqCst);
            shared.arrived.fetch_add(1, Ordering::Relaxed);
            idle = 0;
        }
    }
}

/// A crew at work.
pub(crate) struct Assembled<'a> {
    shared: Option<&'a Shared>,
    /// Is this step shared?
    share: Cell<bool>,
    pace: Cell<Pace>,
    /// How often the caller will still let a helper that has not come go first.
    makes_way: Cell<u32>,
}

impl Assembled<'_> {
    /// The caller by itself.
    pub(crate) fn alone() -> Self {
        let (share, pace) = (Cell::new(false), Cell::default());
        Self { shared: None, share, pace, makes_way: Cell::new(0) }
    }

    /// Runs one step, of so many [`shareable`] floating-point operations; decides whether its phases are shared.
    pub(crate) fn step<R>(&self, flops: usize, work: impl FnOnce() -> R) -> R {
        let missing = |shared: &Shared| self.makes_way.get() > 0 && shared.misses_helpers();
        match self.shared {
            Some(shared) if flops > 0 && flops < PACED_FLOPS && !missing(shared) => {}
            _ => {
                self.share.set(true);
                return work();
            }
        }
        let mut pace = self.pace.get();
        self.share.set(pace.share());
        let start = Instant::now();
        let result = work();
        pace.took(start.elapsed().as_nanos() as f64 / flops as f64);
        self.pace.set(pace);
        result
    }

    /// Runs `work` for each tile below `tiles`, each once; ends when all are done. `flops` is the work of all of them.
    pub(crate) fn for_each_tile(&self, tiles: usize, flops: usize, work: &(dyn Fn(usize) + Sync)) {
        match self.shared {
            Some(shared) if self.share.get() && shareable(tiles, flops) > 0 => {
                if self.makes_way.get() > 0 && shared.misses_helpers() {
                    self.makes_way.set(self.makes_way.get() - 1);
                    std::thread::yield_now();
                }
                shared.lent.run(tiles, work, wait);
            }
            _ => (0..tiles).for_each(work),
        }
    }
}

/// The build of BLAS, looked at once: does it compute, and can it be called from several threads?
#[cfg(feature = "blas")]
fn checked() -> Result<()> {
    static CHECKED: OnceLock<Result<()>> = OnceLock::new();
    let check = || {
        policy::refused()?;
        match crate::blas::wrong_product() {
            Some(product) => Err(Error::BlasWrong { config: policy::description().to_owned(), product }),
            None => Ok(()),
        }
    };
    CHECKED.get_or_init(check).clone()
}

#[cfg(any(feature = "openblas-system", feature = "openblas-static"))]
mod policy {
    use crate::blas::openblas::{self, Parallel};
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
    /// [`Error::BlasThreads`] if the library does not obey, as OpenMP builds may not; [`Error::BlasLocking`] and
    /// [`Error::BlasWrong`] for a library that cannot be used at all.
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
    use crate::blas::openblas::Parallel;
    use crate::error::Error;

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
        assert_eq!(refusal(Parallel::Serial, &config, None), Some(Error::BlasLocking { config: config.clone() }));
        assert_eq!(refusal(Parallel::Serial, "OpenBLAS 0.3.28 USE_LOCKING Zen SINGLE_THREADED", None), None);
    }
}
