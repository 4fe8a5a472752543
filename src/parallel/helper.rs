//! The helper's side of a team: what a worker does from waking up until it sleeps again.
//!
//! ```text
//! spawn_helpers(wanted)            the caller, when a phase has fewer helpers than wanted
//!   while spawned < wanted and the pool has a worker to spare:
//!     spawned += 1, and a worker begins run_helper
//!
//! run_helper(affinity)              the worker
//!   started += 1
//!   affinity ← the caller's; if another member occupies this core, move to a free one
//!   loop
//!     run tiles until there is none to claim
//!     leave, unless
//!       a phase is running: the next one comes at once
//!       a call is running, and the last phase was less than IDLE_TIMEOUT ago
//!       this is one of the first LINGER_ROUNDS after a call, and the team is not dismissed
//!     wait a round: spin in the first SPIN_ROUNDS, then yield the core
//!   started −= 1, spawned −= 1      the worker sleeps in its pool
//! ```
//!
//! To wake a sleeping worker takes 20 to 60 µs, so a helper stays for an epoch and not for a step,
//! and lingers after a call, since a loop of single steps makes the next one at once.
//!
//! A worker that is given `run_helper` *inside* a tile leaves it at once. This happens to a loss
//! that waits in `rayon::join`, which runs whatever job its pool has. Such a helper could not
//! return to its tile before the call ends, and the call would not end before the tile.
//!
//! All counters and flags here are `Relaxed`: they are hints for when to spawn, wait and leave.
//! Memory is ordered by the [`fork_join`](crate::parallel::fork_join) alone, and no phase waits for
//! a helper that has claimed no tile.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::parallel::cores::{Affinity, OccupiedCores};
use crate::parallel::fork_join::{End, ForkJoin};
use crate::parallel::pool;

/// Rounds of waiting, 20 to 40 ns each, before a waiting thread yields its core to others.
const SPIN_ROUNDS: u32 = 2_000;

/// Rounds that a helper stays after a call: up to about 100 µs, in which a loop of single steps
/// makes the next one.
const LINGER_ROUNDS: u32 = 4_000;

/// How long a helper stays without a phase while a call runs, because steps are computed alone or
/// an observer takes its time.
const IDLE_TIMEOUT: Duration = Duration::from_millis(3);

thread_local! {
    /// Whether this thread is inside [`TeamState::run_helper`].
    pub(super) static IS_HELPER: Cell<bool> = const { Cell::new(false) };
}

/// The state that the caller and its helpers share.
#[derive(Default)]
pub(crate) struct TeamState {
    pub(crate) fork_join: ForkJoin,
    /// A call is running, so helpers wait for its next phase.
    pub(crate) in_call: AtomicBool,
    /// No further call will come, so helpers leave after the present one.
    pub(crate) dismissed: AtomicBool,
    /// Helpers that have been spawned and have not left, whether or not a worker runs them yet.
    pub(crate) spawned: AtomicUsize,
    /// Those of the spawned helpers that a worker runs.
    pub(crate) started: AtomicUsize,
    /// The cores of the caller and of the started helpers.
    pub(crate) cores: OccupiedCores,
}

impl TeamState {
    /// Spawns helpers until there are `wanted`, or until the pool has no worker to spare.
    pub(crate) fn spawn_helpers(self: &Arc<Self>, wanted: usize, affinity: Affinity) {
        while self.spawned.load(Ordering::Relaxed) < wanted {
            let state = Arc::clone(self);
            // Before the spawn: the helper counts itself out when it leaves.
            self.spawned.fetch_add(1, Ordering::Relaxed);
            if !pool::try_spawn(move || state.run_helper(affinity)) {
                self.spawned.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Returns whether a helper has been spawned that no worker runs yet.
    pub(crate) fn has_pending_helpers(&self) -> bool {
        self.started.load(Ordering::Relaxed) < self.spawned.load(Ordering::Relaxed)
    }

    /// The job of a helper, see the head of this file.
    pub(crate) fn run_helper(&self, affinity: Affinity) {
        let inside_a_tile = IS_HELPER.replace(true);
        if !inside_a_tile {
            self.started.fetch_add(1, Ordering::Relaxed);
            self.help_until_idle(affinity);
            self.started.fetch_sub(1, Ordering::Relaxed);
            IS_HELPER.set(false);
        }
        self.spawned.fetch_sub(1, Ordering::Relaxed);
    }

    fn help_until_idle(&self, affinity: Affinity) {
        let _core = self.cores.occupy_free(affinity);
        let (mut rounds, mut idle_since) = (0, None);
        loop {
            if self.fork_join.help(End::Back) {
                (rounds, idle_since) = (0, None);
                continue;
            }
            let stay = if self.fork_join.is_running() {
                idle_since = None;
                true
            } else if self.in_call.load(Ordering::Relaxed) {
                // The clock is read only after a while of waiting.
                rounds < SPIN_ROUNDS || idle_since.get_or_insert_with(Instant::now).elapsed() < IDLE_TIMEOUT
            } else {
                rounds < LINGER_ROUNDS && !self.dismissed.load(Ordering::Relaxed)
            };
            if !stay {
                return;
            }
            wait(rounds);
            rounds = rounds.saturating_add(1);
        }
    }
}

/// One round of waiting, the `round`th in a row.
pub(crate) fn wait(round: u32) {
    if round < SPIN_ROUNDS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
