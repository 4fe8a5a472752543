//! Helpers: which threads share a call's tiles with its caller, how many, and for how long. All of the policy stands here.
//!
//! **How many.** As many threads as [`set_threads`] says; else as rayon has in the pool that the caller stands in, or in its
//! global one (`RAYON_NUM_THREADS`, or the size that a host has built it with). Never more than the calling thread may run on,
//! looked up at each call, and never more than a phase has tiles. The caller is one of them, the others are *helpers*.
//!
//! **Whose threads.** Helpers are workers of a rayon pool that belongs to this crate, made when a call first wants one. A host's
//! workers are never occupied: its own jobs run as if nothing were, and an observer or a loss may use rayon, call this
//! crate, or block. The pool has a worker more than can be helpers at a time, so that a job which a loss spawns on a helper finds
//! one that runs it.
//!
//! **Helpers are welcome, never needed.** A [`Team`] belongs to one engine. A phase ends when its *tiles* are done
//! ([`fork_join`](crate::parallel::fork_join)), not when its threads have met: the caller alone can finish everything, a helper may come
//! late or never, and no barrier can deadlock.
//!
//! ```text
//! a helper's stay
//!   1  its affinity becomes the caller's; if another member is on its core, it moves to one that is free
//!   2  while the call is open:     run tiles; in between spin for SPIN rounds, then yield the core;
//!                                  leave after IDLE without a phase
//!   3  after the call has ended:   for LINGER rounds the same, since a loop of single steps comes back at once
//!   4  leave: the worker sleeps in its pool, and the next phase that misses it calls it again
//! ```
//!
//! To wake a sleeping worker takes 20 to 60 µs, so stays last for an epoch and not for a step. A stay that a worker is given
//! *inside* a tile (a loss that waits in `rayon::join` takes whatever its pool has to do) ends at once: it would not return to the
//! tile before its call ends, which waits for the tile. And a call from inside a helper's tile computes by itself.
//!
//! **Work decides, not width.** Below [`INVITE_FLOPS`] no helper is invited, below [`SHARE_FLOPS`] a phase is not shared. Calls
//! in quick succession count together: a loop of single steps gets the helpers that an epoch gets. Whether steps are
//! shared while helpers are there is found by measuring ([`pace`](crate::parallel::pace)). The tiles are the same either way, so the bits
//! are too.

use std::cell::Cell;
use std::ops::{Add, Mul};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::parallel::cores::{self, Affinity, OccupiedCores};
use crate::parallel::fork_join::{End, ForkJoin};
use crate::parallel::pace::{LargeSteps, SmallSteps};

/// Floating-point operations below which waking a helper costs more than it brings: about 50 µs of a core. Of a whole call, or of
/// calls in quick succession, as those of a caller's own loop over single steps.
const INVITE_FLOPS: usize = 4_000_000;

/// Floating-point operations below which handing a tile to an awake helper (two cache misses each way, under 1 µs) does not pay.
const SHARE_FLOPS: usize = 150_000;

/// Floating-point operations of a step, some 100 µs of a core, from which it is a large one: its phases can be timed at no cost.
const LARGE_FLOPS: usize = 10_000_000;

/// Rounds of waiting, 20 to 40 ns each, before a waiting thread yields its core to whoever wants it.
const SPIN: u32 = 2_000;

/// Rounds that a helper stays when a call has ended: up to about 100 µs, in which a loop of single steps comes back.
const LINGER: u32 = 4_000;

/// How long a helper stays without a phase while a call is open: steps that go alone, or an observer that takes its time.
const IDLE: Duration = Duration::from_millis(3);

/// Phases at whose beginning a caller yields its core once while a helper is missing. SingleStep that was woken on the caller's own core
/// could not run, and move away, before the caller's time slice ends, after milliseconds.
const MAKE_WAY: u32 = 64;

/// Calls no further apart than this are in quick succession: about as long as a helper lingers.
const SUCCESSION: Duration = Duration::from_micros(100);

/// What [`set_threads`] has set; 0 for nothing.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Helpers that stay somewhere, of all teams.
static STAYS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// For calls that have no place to keep a team: the helpers of one find the next.
    static TEAM: Cell<Team> = Cell::default();
    /// Is this thread a helper, and here for a stay?
    static STAYING: Cell<bool> = const { Cell::new(false) };
}

/// On how many threads calls of this crate compute, in the whole process and from the next call on; `None`, as at the start,
/// for as many as rayon has where the call is made: in the pool that the calling thread belongs to, or in the global one, whose
/// size the environment variable `RAYON_NUM_THREADS` sets.
///
/// Either way there are never more than the calling thread may run on by its affinity, and none but the caller's for work that
/// is too small. Results do not depend on it.
///
/// # Panics
/// For 0 threads.
pub fn set_threads(threads: Option<usize>) {
    assert!(threads != Some(0), "threads: expected at least 1, found 0");
    THREADS.store(threads.unwrap_or(0), Ordering::Relaxed);
}

/// How many threads a call from here has, however much work it is.
fn threads() -> usize {
    if STAYING.get() {
        return 1;
    }
    let cores = cores::available_to_thread();
    match THREADS.load(Ordering::Relaxed) {
        // SingleStep core needs no look at rayon, which would start its global pool.
        0 if cores > 1 => rayon::current_num_threads().min(cores),
        0 => 1,
        set => set.min(cores),
    }
}

/// The crate's own workers; none if the system gives no threads.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let builder = || ThreadPoolBuilder::new().num_threads(cores::available_to_process());
    let made = move || {
        let pool = builder().thread_name(|index| format!("gemmprop-{index}")).build().ok()?;
        // A worker that is still starting when it is first called would be waited for in vain.
        pool.broadcast(|_| ());
        Some(pool)
    };
    // In a thread of its own, which only waits. A worker of the host's would take other jobs of its pool meanwhile, and one that
    // trains would come here again and wait for ever.
    POOL.get_or_init(|| std::thread::Builder::new().spawn(made).ok()?.join().ok()?).as_ref()
}

/// Work of phases that would be shared: its floating-point operations, and the most tiles that one of them has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Workload {
    pub(crate) flops: usize,
    tiles: usize,
}

/// The work of one phase; nothing of a phase that would not be shared.
pub(crate) fn workload(tiles: usize, flops: usize) -> Workload {
    let shared = tiles > 1 && tiles <= ForkJoin::MOST_TILES && flops >= SHARE_FLOPS;
    if shared { Workload { flops, tiles } } else { Workload::default() }
}

/// SingleStep after the other.
impl Add for Workload {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { flops: self.flops.saturating_add(other.flops), tiles: self.tiles.max(other.tiles) }
    }
}

/// The same again and again.
impl Mul<Workload> for usize {
    type Output = Workload;
    fn mul(self, work: Workload) -> Workload {
        Workload { flops: work.flops.saturating_mul(self), ..work }
    }
}

impl std::iter::Sum for Workload {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// SingleStep engine's helpers.
#[derive(Default)]
pub(crate) struct Team {
    /// StepReport when helpers are invited for the first time.
    shared: Option<Arc<TeamState>>,
    /// Where the helpers were last told to run.
    allowed: Affinity,
    /// When the last call that could have been shared ended, and the work of it and of those in quick succession before it.
    before: Option<(Instant, usize)>,
    pace: SmallSteps,
    balance: LargeSteps,
}

/// What the caller and its helpers have in common.
#[derive(Default)]
struct TeamState {
    fork_join: ForkJoin,
    /// A call is running: helpers stay.
    open: AtomicBool,
    /// No call will come any more: helpers leave at once.
    over: AtomicBool,
    /// Helpers invited and not yet gone, whether or not their pool has found a worker for them.
    invited: AtomicUsize,
    /// Those of them that have come.
    arrived: AtomicUsize,
    /// Of the caller and of the helpers that have come.
    cores: OccupiedCores,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("before", &self.before).finish_non_exhaustive()
    }
}

impl TeamState {
    /// Invites helpers until there are `wanted`, or as many as the pool has workers to spare for.
    fn invite(self: &Arc<Self>, wanted: usize, allowed: Affinity) {
        let Some(pool) = pool() else { return };
        let most = pool.current_num_threads() - 1;
        while self.invited.load(Ordering::Relaxed) < wanted {
            if STAYS.fetch_add(1, Ordering::Relaxed) >= most {
                STAYS.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            self.invited.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(self);
            pool.spawn(move || shared.be_helped(allowed));
        }
    }

    /// Has a helper been invited that has not come?
    fn misses_helpers(&self) -> bool {
        self.arrived.load(Ordering::Relaxed) < self.invited.load(Ordering::Relaxed)
    }

    /// A worker's stay with this team.
    fn be_helped(&self, allowed: Affinity) {
        // Inside a tile there is no staying.
        if !STAYING.replace(true) {
            self.arrived.fetch_add(1, Ordering::Relaxed);
            self.stay(allowed);
            self.arrived.fetch_sub(1, Ordering::Relaxed);
            STAYING.set(false);
        }
        self.invited.fetch_sub(1, Ordering::Relaxed);
        STAYS.fetch_sub(1, Ordering::Relaxed);
    }

    fn stay(&self, allowed: Affinity) {
        let _core = self.cores.occupy_free(allowed);
        let (mut rounds, mut idle_since) = (0, None);
        loop {
            if self.fork_join.help(End::Back) {
                (rounds, idle_since) = (0, None);
                continue;
            }
            let stays = if self.fork_join.is_running() {
                // The phase after this one comes at once.
                idle_since = None;
                true
            } else if self.open.load(Ordering::Relaxed) {
                // The clock is read only by those who have waited for a while.
                rounds < SPIN || idle_since.get_or_insert_with(Instant::now).elapsed() < IDLE
            } else {
                rounds < LINGER && !self.over.load(Ordering::Relaxed)
            };
            if !stays {
                return;
            }
            wait(rounds);
            rounds = rounds.saturating_add(1);
        }
    }
}

/// SingleStep round of waiting.
fn wait(round: u32) {
    if round < SPIN {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Team {
    /// Runs `work`, whose phases helpers may share if the [`workload`] work in all of them is worth their coming.
    pub(crate) fn enter<R>(&mut self, workload: Workload, work: impl FnOnce(&ActiveTeam) -> R) -> R {
        if workload.flops == 0 {
            return work(&ActiveTeam::alone());
        }
        let recent = match self.before {
            Some((ended, recent)) if ended.elapsed() <= SUCCESSION => recent.saturating_add(workload.flops),
            _ => workload.flops,
        };
        let threads = if recent < INVITE_FLOPS { 1 } else { threads() };
        let helpers = threads.min(workload.tiles) - 1;
        let result = if helpers == 0 { work(&ActiveTeam::alone()) } else { self.with_helpers(helpers, threads, work) };
        self.before = Some((Instant::now(), recent));
        result
    }

    fn with_helpers<R>(&mut self, helpers: usize, threads: usize, work: impl FnOnce(&ActiveTeam) -> R) -> R {
        /// Lets the helpers go, also when `work` panics.
        struct Close<'a>(&'a TeamState);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.open.store(false, Ordering::Relaxed);
            }
        }
        let allowed = cores::affinity();
        // Helpers that linger from the last call, more than there may be now, or on other cores.
        let fit = |shared: &TeamState| shared.invited.load(Ordering::Relaxed) < threads && self.allowed == allowed;
        if !self.shared.as_deref().is_some_and(fit) {
            self.dismiss();
            self.allowed = allowed;
        }
        let shared = self.shared.get_or_insert_default();
        shared.open.store(true, Ordering::Relaxed);
        let _close = Close(shared);
        let _core = shared.cores.occupy_current();
        let team = ActiveTeam {
            helpers: Some(Helpers { shared, wanted: helpers, allowed }),
            share: Cell::new(true),
            timed: Cell::new(false),
            makes_way: Cell::new(0),
            pace: Cell::new(self.pace),
            balance: Cell::new(self.balance),
        };
        team.complete();
        let result = work(&team);
        (self.pace, self.balance) = (team.pace.get(), team.balance.get());
        result
    }
}

impl Team {
    /// Tells all helpers to leave.
    fn dismiss(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.over.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// [`Team::enter`] with a team that this thread keeps, for calls that have no place to keep one.
pub(crate) fn with_team<R>(workload: Workload, work: impl FnOnce(&ActiveTeam) -> R) -> R {
    let mut team = TEAM.take();
    let result = team.enter(workload, work);
    TEAM.set(team);
    result
}

/// A team at work.
pub(crate) struct ActiveTeam<'a> {
    /// None for a caller by itself.
    helpers: Option<Helpers<'a>>,
    /// Is this step shared?
    share: Cell<bool>,
    /// Are its phases timed for `balance`?
    timed: Cell<bool>,
    /// How often the caller will still let a helper that has not come go first.
    makes_way: Cell<u32>,
    pace: Cell<SmallSteps>,
    balance: Cell<LargeSteps>,
}

struct Helpers<'a> {
    shared: &'a Arc<TeamState>,
    wanted: usize,
    /// Where they may run.
    allowed: Affinity,
}

impl ActiveTeam<'_> {
    /// The caller by itself.
    pub(crate) fn alone() -> Self {
        let (share, timed) = (Cell::new(false), Cell::new(false));
        let (pace, balance) = (Cell::default(), Cell::default());
        Self { helpers: None, share, timed, makes_way: Cell::new(0), pace, balance }
    }

    /// Invites the helpers that are not there.
    fn complete(&self) {
        if let Some(Helpers { shared, wanted, allowed }) = &self.helpers
            && shared.invited.load(Ordering::Relaxed) < *wanted
        {
            shared.invite(*wanted, *allowed);
            self.makes_way.set(MAKE_WAY);
        }
    }

    /// Is a helper on its way, and the caller still patient?
    fn expects_helpers(&self) -> bool {
        self.makes_way.get() > 0 && self.helpers.as_ref().is_some_and(|helpers| helpers.shared.misses_helpers())
    }

    /// Runs one step, of this [`workload`] work; decides whether its phases are shared.
    pub(crate) fn step<R>(&self, workload: Workload, work: impl FnOnce() -> R) -> R {
        if self.helpers.is_none() || workload.flops == 0 {
            return work();
        }
        if workload.flops >= LARGE_FLOPS {
            self.large_step(workload.flops, work)
        } else {
            self.small_step(workload.flops, work)
        }
    }

    fn small_step<R>(&self, flops: usize, work: impl FnOnce() -> R) -> R {
        let mut pace = self.pace.get();
        self.share.set(pace.share());
        if pace.share() {
            // Before the clock starts.
            self.complete();
        }
        let counts = !self.expects_helpers();
        let start = Instant::now();
        let result = work();
        if counts {
            pace.record(start.elapsed().as_nanos() as f64 / flops as f64);
            self.pace.set(pace);
        }
        result
    }

    fn large_step<R>(&self, flops: usize, work: impl FnOnce() -> R) -> R {
        let (mut balance, start) = (self.balance.get(), Instant::now());
        self.share.set(balance.share(start));
        self.balance.set(balance);
        if self.share.get() {
            self.complete();
        }
        let counts = !self.expects_helpers();
        self.timed.set(counts && self.share.get());
        let result = work();
        self.timed.set(false);
        if counts {
            let (mut balance, end) = (self.balance.get(), Instant::now());
            balance.record_step(end, end - start, flops as f64);
            self.balance.set(balance);
        }
        result
    }

    /// Runs `work` for each tile below `tiles`, each once; ends when all are done. `flops` is the work of all of them.
    pub(crate) fn for_each_tile(&self, tiles: usize, flops: usize, work: &(dyn Fn(usize) + Sync)) {
        match &self.helpers {
            Some(helpers) if self.share.get() && workload(tiles, flops).flops > 0 => {
                self.complete();
                if self.expects_helpers() {
                    self.makes_way.set(self.makes_way.get() - 1);
                    std::thread::yield_now();
                }
                let fork_join = &helpers.shared.fork_join;
                if self.timed.get() {
                    self.timed_phase(fork_join, tiles, work);
                } else {
                    fork_join.run(tiles, work, wait);
                }
            }
            _ => (0..tiles).for_each(work),
        }
    }

    fn timed_phase(&self, fork_join: &ForkJoin, tiles: usize, work: &(dyn Fn(usize) + Sync)) {
        let (start, mut waiting) = (Instant::now(), None);
        let own = fork_join.run(tiles, work, |round| {
            waiting.get_or_insert_with(Instant::now);
            wait(round);
        });
        let all = start.elapsed();
        let computing = waiting.map_or(all, |waiting| waiting - start);
        let mut balance = self.balance.get();
        balance.record_phase(computing, all, own, tiles);
        self.balance.set(balance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_the_users_to_say() {
        let cores = cores::available_to_thread();
        let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for size in [1, 2, 3, 64] {
            assert_eq!(pool(size).install(threads), size.min(cores));
        }
        std::thread::scope(|scope| {
            // A thread of its own, since the mask is the thread's.
            scope.spawn(|| {
                cores::bind_to_current_core();
                assert_eq!(threads(), 1, "on one core there is nobody to share with");
            });
        });
        assert_eq!(cores::available_to_thread(), cores, "and elsewhere there are as many as before");
    }

    /// A loss that waits in `rayon::join` inside a tile takes whatever its pool has to do, and that may be another stay.
    #[test]
    fn inside_a_tile_there_is_no_staying_and_no_helper() {
        let shared = TeamState::default();
        shared.open.store(true, Ordering::Relaxed);
        let ran = AtomicUsize::new(0);
        let in_a_tile = |_| {
            STAYING.set(true);
            shared.invited.fetch_add(1, Ordering::Relaxed);
            STAYS.fetch_add(1, Ordering::Relaxed);
            // A stay would run the tiles that are left, inside this one.
            shared.be_helped(cores::affinity());
            assert_eq!((ran.fetch_add(1, Ordering::Relaxed), threads()), (0, 1));
            STAYING.set(false);
        };
        let tile = |tile: usize| if tile == 0 { in_a_tile(tile) } else { _ = ran.fetch_add(1, Ordering::Relaxed) };
        shared.fork_join.run(4, &tile, wait);
        assert_eq!(ran.load(Ordering::Relaxed), 4);
        assert_eq!((shared.invited.load(Ordering::Relaxed), shared.arrived.load(Ordering::Relaxed)), (0, 0));
    }
}
