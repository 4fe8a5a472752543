//! The caller's side of a team: how many threads share a call's tiles, and which steps are shared.
//!
//! **How many.** As many threads as [`set_threads`] says; otherwise as rayon has in the pool that
//! the caller runs in, or in its global one (`RAYON_NUM_THREADS`, or the size that a host has built
//! it with). Never more than the calling thread may run on, which is looked up at each call, and
//! never more than a phase has tiles. The caller is one of them, the others are *helpers*: workers
//! of the crate's own pool ([`pool`](crate::parallel::pool)).
//!
//! **Helpers are optional.** A phase ends when its *tiles* are done
//! ([`fork_join`](crate::parallel::fork_join)), not when certain threads have met: the caller alone
//! can finish everything, a helper may start late or never, and there is no barrier that could
//! deadlock. A call from inside a helper's tile is computed by its caller alone.
//!
//! **Work decides, not shape.** A helper is woken for [`WAKE_FLOPS`] of work or more, where calls
//! in quick succession count together: a loop of single steps gets the helpers that an epoch gets.
//! Phases that are too small are not shared ([`workload`](crate::parallel::workload)). Whether the
//! other ones are shared while helpers are there is found by measuring
//! ([`pace`](crate::parallel::pace)). The tiles are the same either way, and so are the bits.
//!
//! ```text
//! Team::enter(workload, work)             once a call
//!   work alone, if the workload is small or there is one thread
//!   dismiss helpers that linger from the last call, if they no longer suit
//!   spawn the helpers that are missing
//!   ActiveTeam::step(workload, work)      once a step
//!     share the step? as SmallSteps or LargeSteps have measured; spawn helpers that have left
//!     ActiveTeam::for_each_tile(work)     once a phase
//!       shared: ForkJoin::run; otherwise a loop
//!     record the time of the step
//!   helpers linger for the next call
//! ```

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::parallel::cores::{self, Affinity};
use crate::parallel::fork_join::ForkJoin;
use crate::parallel::helper::{IS_HELPER, TeamState, wait};
use crate::parallel::pace::{LargeSteps, SmallSteps};
use crate::parallel::workload::{Workload, workload};

/// Floating-point operations below which waking a helper costs more than it saves, about 50 µs of a
/// core: of a call, or of calls in quick succession.
const WAKE_FLOPS: usize = 4_000_000;

/// Calls are in quick succession if no further apart than this, about as long as a helper lingers.
const MAX_GAP: Duration = Duration::from_micros(100);

/// Floating-point operations from which a step is a large one, some 100 µs of a core: timing its
/// phases costs nothing beside them.
const LARGE_FLOPS: usize = 10_000_000;

/// Phases before which a caller yields its core once while a helper is pending. A helper that was
/// woken on the caller's own core could not run, and so not move away, before the caller's time
/// slice ends, after milliseconds.
const MAX_YIELDS: u32 = 64;

/// The number that [`set_threads`] has set; 0 for none.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The team of [`with_team`], so that the helpers of one call linger for the next.
    static TEAM: Cell<Team> = Cell::default();
}

/// Sets the number of threads that calls of this crate compute on, in the whole process and from
/// the next call on. `None`, as at the start, stands for the number that rayon has where the call
/// is made: in the pool that the calling thread belongs to, or in the global one, whose size the
/// environment variable `RAYON_NUM_THREADS` sets.
///
/// In either case a call uses no more threads than its own may run on by its affinity, and only its
/// own for work that is too small. Results do not depend on the number of threads.
///
/// # Panics
/// For 0 threads.
pub fn set_threads(threads: Option<usize>) {
    assert!(threads != Some(0), "threads: expected at least 1, found 0");
    THREADS.store(threads.unwrap_or(0), Ordering::Relaxed);
}

/// Returns how many threads a call from this thread may have, however much work it is.
pub(crate) fn max_threads() -> usize {
    if IS_HELPER.get() {
        return 1;
    }
    let cores = cores::available_to_thread();
    match THREADS.load(Ordering::Relaxed) {
        // On one core rayon is not asked, which would start its global pool.
        0 if cores > 1 => rayon::current_num_threads().min(cores),
        0 => 1,
        set => set.min(cores),
    }
}

/// The helpers of one engine, and what was learned about sharing its steps.
#[derive(Default)]
pub(crate) struct Team {
    /// Created when helpers are first spawned.
    state: Option<Arc<TeamState>>,
    /// Where the helpers were last told to run.
    affinity: Affinity,
    last_call: Option<LastCall>,
    small_steps: SmallSteps,
    large_steps: LargeSteps,
}

/// The last call that had phases worth sharing.
#[derive(Debug, Clone, Copy)]
struct LastCall {
    ended: Instant,
    /// Its work, and that of the calls in quick succession before it.
    flops: usize,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("last_call", &self.last_call).finish_non_exhaustive()
    }
}

impl Team {
    /// Runs a call: `work`, whose phases helpers share if its `workload` is worth waking them.
    pub(crate) fn enter<R>(&mut self, workload: Workload, work: impl FnOnce(&ActiveTeam) -> R) -> R {
        if workload.flops == 0 {
            return work(&ActiveTeam::alone());
        }
        let flops = match self.last_call {
            Some(last) if last.ended.elapsed() <= MAX_GAP => last.flops.saturating_add(workload.flops),
            _ => workload.flops,
        };
        let threads = if flops < WAKE_FLOPS { 1 } else { max_threads() };
        let helpers = threads.min(workload.tiles) - 1;
        let result = if helpers == 0 { work(&ActiveTeam::alone()) } else { self.with_helpers(helpers, threads, work) };
        self.last_call = Some(LastCall { ended: Instant::now(), flops });
        result
    }

    fn with_helpers<R>(&mut self, wanted: usize, threads: usize, work: impl FnOnce(&ActiveTeam) -> R) -> R {
        let affinity = cores::affinity();
        // Helpers that linger must be no more than there may be now, and on the caller's cores.
        let suits = |state: &TeamState| state.spawned.load(Ordering::Relaxed) < threads && self.affinity == affinity;
        if !self.state.as_deref().is_some_and(suits) {
            self.dismiss();
            self.affinity = affinity;
        }
        let state = self.state.get_or_insert_default();
        let _call = CallGuard::new(state);
        let _core = state.cores.occupy_current();
        let team = ActiveTeam {
            helpers: Some(Helpers { state, wanted, affinity }),
            small_steps: Cell::new(self.small_steps),
            large_steps: Cell::new(self.large_steps),
            ..ActiveTeam::alone()
        };
        // Steps are shared unless they decide otherwise.
        team.share.set(true);
        team.spawn_missing_helpers();
        let result = work(&team);
        (self.small_steps, self.large_steps) = (team.small_steps.get(), team.large_steps.get());
        result
    }

    /// Tells all helpers to leave.
    fn dismiss(&mut self) {
        if let Some(state) = self.state.take() {
            state.dismissed.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Tells helpers that a call is running, until dropped: also when the call panics.
struct CallGuard<'a>(&'a TeamState);

impl<'a> CallGuard<'a> {
    fn new(state: &'a TeamState) -> Self {
        state.in_call.store(true, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.0.in_call.store(false, Ordering::Relaxed);
    }
}

/// [`Team::enter`] with a team that this thread keeps, for calls that have no engine to keep one.
pub(crate) fn with_team<R>(workload: Workload, work: impl FnOnce(&ActiveTeam) -> R) -> R {
    let mut team = TEAM.take();
    let result = team.enter(workload, work);
    TEAM.set(team);
    result
}

/// A team during a call.
pub(crate) struct ActiveTeam<'a> {
    /// `None` for a caller alone.
    helpers: Option<Helpers<'a>>,
    /// Whether the phases of the present step are shared.
    share: Cell<bool>,
    /// Whether they are timed for `large_steps`.
    timed: Cell<bool>,
    /// How often the caller will still yield its core to a pending helper.
    yields_left: Cell<u32>,
    small_steps: Cell<SmallSteps>,
    large_steps: Cell<LargeSteps>,
    /// The time of the present step that was no work of this team.
    waited: Cell<Duration>,
}

struct Helpers<'a> {
    state: &'a Arc<TeamState>,
    wanted: usize,
    /// Where they may run.
    affinity: Affinity,
}

impl ActiveTeam<'_> {
    /// A caller without helpers.
    pub(crate) fn alone() -> Self {
        Self {
            helpers: None,
            share: Cell::new(false),
            timed: Cell::new(false),
            yields_left: Cell::new(0),
            small_steps: Cell::default(),
            large_steps: Cell::default(),
            waited: Cell::default(),
        }
    }

    /// Calls `wait`, whose time does not count as that of the step: that of other ranks, say.
    pub(crate) fn wait_for<R>(&self, wait: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = wait();
        self.waited.set(self.waited.get() + start.elapsed());
        result
    }

    /// Spawns the helpers that have not been spawned yet, or have left since.
    fn spawn_missing_helpers(&self) {
        if let Some(Helpers { state, wanted, affinity }) = &self.helpers
            && state.spawned.load(Ordering::Relaxed) < *wanted
        {
            state.spawn_helpers(*wanted, *affinity);
            self.yields_left.set(MAX_YIELDS);
        }
    }

    /// Returns whether a helper is pending for which the caller will still yield its core.
    fn awaits_helpers(&self) -> bool {
        self.yields_left.get() > 0 && self.helpers.as_ref().is_some_and(|helpers| helpers.state.has_pending_helpers())
    }

    /// Runs a step, and decides whether its phases are shared.
    pub(crate) fn step<R>(&self, workload: Workload, work: impl FnOnce() -> R) -> R {
        if self.helpers.is_none() || workload.flops == 0 {
            return work();
        }
        self.waited.set(Duration::ZERO);
        if workload.flops >= LARGE_FLOPS {
            self.large_step(workload.flops, work)
        } else {
            self.small_step(workload.flops, work)
        }
    }

    fn small_step<R>(&self, flops: usize, work: impl FnOnce() -> R) -> R {
        let mut small_steps = self.small_steps.get();
        self.share.set(small_steps.share());
        if small_steps.share() {
            // Before the clock starts.
            self.spawn_missing_helpers();
        }
        // A step that yields to a pending helper tells nothing about the next ones.
        let counts = !self.awaits_helpers();
        let start = Instant::now();
        let result = work();
        if counts {
            let working = start.elapsed() - self.waited.get();
            small_steps.record(working.as_nanos() as f64 / flops as f64);
            self.small_steps.set(small_steps);
        }
        result
    }

    fn large_step<R>(&self, flops: usize, work: impl FnOnce() -> R) -> R {
        let (mut large_steps, start) = (self.large_steps.get(), Instant::now());
        self.share.set(large_steps.share(start));
        self.large_steps.set(large_steps);
        if self.share.get() {
            self.spawn_missing_helpers();
        }
        let counts = !self.awaits_helpers();
        self.timed.set(counts && self.share.get());
        let result = work();
        self.timed.set(false);
        if counts {
            // Read again: the phases have been recorded meanwhile.
            let (mut large_steps, end) = (self.large_steps.get(), Instant::now());
            large_steps.record_step(end, end - start - self.waited.get(), flops as f64);
            self.large_steps.set(large_steps);
        }
        result
    }

    /// Runs a phase: calls `work(tile)` once for each tile below `tiles`, and returns when all are
    /// done. `flops` is the work of all tiles.
    pub(crate) fn for_each_tile(&self, tiles: usize, flops: usize, work: &(dyn Fn(usize) + Sync)) {
        self.for_each_tile_and_between(tiles, flops, work, || ());
    }

    /// The same with a call of `between` on this thread after each tile that it has run.
    pub(crate) fn for_each_tile_and_between(
        &self,
        tiles: usize,
        flops: usize,
        work: &(dyn Fn(usize) + Sync),
        mut between: impl FnMut(),
    ) {
        match &self.helpers {
            Some(helpers) if self.share.get() && workload(tiles, flops).flops > 0 => {
                self.spawn_missing_helpers();
                if self.awaits_helpers() {
                    self.yields_left.set(self.yields_left.get() - 1);
                    std::thread::yield_now();
                }
                let fork_join = &helpers.state.fork_join;
                if self.timed.get() {
                    self.timed_phase(fork_join, tiles, work, between);
                } else {
                    fork_join.run(tiles, work, between, wait);
                }
            }
            _ => (0..tiles).for_each(|tile| {
                work(tile);
                between();
            }),
        }
    }

    fn timed_phase(&self, fork_join: &ForkJoin, tiles: usize, work: &(dyn Fn(usize) + Sync), between: impl FnMut()) {
        let (start, mut waiting_since) = (Instant::now(), None);
        let own = fork_join.run(tiles, work, between, |round| {
            waiting_since.get_or_insert_with(Instant::now);
            wait(round);
        });
        let total = start.elapsed();
        let computing = waiting_since.map_or(total, |since| since - start);
        let mut large_steps = self.large_steps.get();
        large_steps.record_phase(computing, total, own, tiles);
        self.large_steps.set(large_steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::ThreadPoolBuilder;

    #[test]
    fn the_caller_sets_the_number_of_threads() {
        let cores = cores::available_to_thread();
        let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for size in [1, 2, 3, 64] {
            assert_eq!(pool(size).install(max_threads), size.min(cores));
        }
        std::thread::scope(|scope| {
            // In another thread, since an affinity belongs to a thread.
            scope.spawn(|| {
                cores::bind_to_current_core();
                assert_eq!(max_threads(), 1, "a thread bound to one core has no helpers");
            });
        });
        assert_eq!(cores::available_to_thread(), cores, "and another thread as many as before");
    }

    /// A loss that waits in `rayon::join` inside a tile runs any job of its pool, which may be that
    /// of a helper.
    #[test]
    fn inside_a_tile_nobody_becomes_a_helper_nor_has_one() {
        let state = TeamState::default();
        state.in_call.store(true, Ordering::Relaxed);
        let ran = AtomicUsize::new(0);
        let in_a_tile = |_| {
            IS_HELPER.set(true);
            state.spawned.fetch_add(1, Ordering::Relaxed);
            // A helper would run the other tiles, inside this one.
            state.run_helper(cores::affinity());
            assert_eq!((ran.fetch_add(1, Ordering::Relaxed), max_threads()), (0, 1));
            IS_HELPER.set(false);
        };
        let tile = |tile: usize| if tile == 0 { in_a_tile(tile) } else { _ = ran.fetch_add(1, Ordering::Relaxed) };
        state.fork_join.run(4, &tile, || (), wait);
        assert_eq!(ran.load(Ordering::Relaxed), 4);
        assert_eq!((state.spawned.load(Ordering::Relaxed), state.started.load(Ordering::Relaxed)), (0, 0));
    }
}
