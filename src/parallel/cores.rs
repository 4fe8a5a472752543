//! Where threads run: each member of a team on a core of its own, among those that the caller may
//! run on.
//!
//! Linux may wake a helper on the very core that its caller computes on, above all where all cores
//! have been busy lately (it then saves itself the search for an idle one), and leave both there
//! for tens of milliseconds. A helper that finds another member of its team on its core moves away:
//! it removes the members' cores from its affinity mask, which makes the kernel move it at once,
//! and then sets the caller's mask, which moves nothing. Helpers are threads of this crate, so the
//! mask of a host's thread is never changed. On other systems than Linux nothing is moved.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
pub(crate) use system::bind_to_current_core;
pub(crate) use system::{Affinity, affinity};

/// The cores that the members of a team occupy, one bit each. Cores from the 512th on are not
/// tracked. A hint for where to run, which orders no other memory, so `Relaxed` suffices.
#[derive(Debug, Default)]
pub(crate) struct OccupiedCores([AtomicU64; 8]);

/// A member's place: the core that it occupies until this is dropped, or `None` if the core is not
/// known or was occupied already.
#[derive(Debug)]
pub(crate) struct CoreGuard<'a> {
    occupied: &'a OccupiedCores,
    core: Option<usize>,
}

impl OccupiedCores {
    fn tracks(&self, core: usize) -> bool {
        core < 64 * self.0.len()
    }

    fn contains(&self, core: usize) -> bool {
        self.0[core / 64].load(Ordering::Relaxed) >> (core % 64) & 1 == 1
    }

    /// Returns whether the core was free.
    fn insert(&self, core: usize) -> bool {
        let bit = 1 << (core % 64);
        self.0[core / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn remove(&self, core: usize) {
        self.0[core / 64].fetch_and(!(1 << (core % 64)), Ordering::Relaxed);
    }

    /// Occupies the core that this thread is on, if it is free. For the caller, which never moves.
    pub(crate) fn occupy_current(&self) -> CoreGuard<'_> {
        let core = system::current_core().filter(|&core| self.tracks(core) && self.insert(core));
        CoreGuard { occupied: self, core }
    }

    /// Occupies a free core of `affinity`, and moves this thread there if its own is occupied. For
    /// helpers.
    pub(crate) fn occupy_free(&self, affinity: Affinity) -> CoreGuard<'_> {
        system::set_affinity(affinity);
        let current = self.occupy_current();
        if current.core.is_some() {
            return current;
        }
        system::move_away(affinity, |core| self.tracks(core) && self.contains(core));
        self.occupy_current()
    }
}

impl Drop for CoreGuard<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.core {
            self.occupied.remove(core);
        }
    }
}

/// The number of cores that this thread can run on now, by its affinity and by the quota of its
/// control group.
pub(crate) fn available_to_thread() -> usize {
    system::cores_in_affinity().map_or_else(available_to_process, |cores| cores.min(available_to_process())).max(1)
}

/// The number of cores that threads of this process can run on at once, whatever the calling thread
/// is bound to. Looked up once.
pub(crate) fn available_to_process() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| {
        let count = || std::thread::available_parallelism().map_or(1, usize::from);
        // Asked in a thread that is bound to nothing. The answer includes the quota, for which some
        // files are read.
        let unbound = std::thread::Builder::new().spawn(move || {
            system::unbind();
            count()
        });
        unbound.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(count)
    })
}

#[cfg(target_os = "linux")]
mod system {
    use std::cell::Cell;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The cores that a thread may run on; `None` where the system does not say.
    pub(crate) type Affinity = Option<CpuSet>;

    thread_local! {
        /// The affinity that this helper was last given, so that an equal one costs no system call.
        static LAST_SET: Cell<Affinity> = const { Cell::new(None) };
    }

    /// The affinity of the calling thread.
    pub(crate) fn affinity() -> Affinity {
        sched_getaffinity(None).ok()
    }

    pub(super) fn cores_in_affinity() -> Option<usize> {
        affinity().map(|set| set.count() as usize)
    }

    pub(super) fn current_core() -> Option<usize> {
        Some(sched_getcpu())
    }

    pub(super) fn set_affinity(affinity: Affinity) {
        if let Some(set) = affinity
            && LAST_SET.replace(affinity) != affinity
        {
            _ = sched_setaffinity(None, &set);
        }
    }

    /// Moves this thread to a core of `affinity` that is not occupied, if there is one. A failure
    /// leaves it where it is.
    pub(super) fn move_away(affinity: Affinity, occupied: impl Fn(usize) -> bool) {
        let Some(affinity) = affinity else { return };
        let mut free = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|&core| affinity.is_set(core) && !occupied(core)).for_each(|core| free.set(core));
        if free.count() > 0 && sched_setaffinity(None, &free).is_ok() {
            _ = sched_setaffinity(None, &affinity);
        }
    }

    /// Lets this thread run on every core that its process may use.
    pub(super) fn unbind() {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
        _ = sched_setaffinity(None, &all);
    }

    #[cfg(test)]
    pub(crate) fn bind_to_current_core() {
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    /// Nothing is known, and nothing set.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub(crate) struct Affinity;

    pub(crate) fn affinity() -> Affinity {
        Affinity
    }

    pub(super) fn cores_in_affinity() -> Option<usize> {
        std::thread::available_parallelism().ok().map(usize::from)
    }

    pub(super) fn current_core() -> Option<usize> {
        None
    }

    pub(super) fn set_affinity(_: Affinity) {}

    pub(super) fn move_away(_: Affinity, _: impl Fn(usize) -> bool) {}

    pub(super) fn unbind() {}

    #[cfg(test)]
    pub(crate) fn bind_to_current_core() {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn a_helper_on_an_occupied_core_moves_away_and_has_its_callers_affinity() {
        let before = sched_getaffinity(None).unwrap();
        let occupied = OccupiedCores::default();
        let first = occupied.occupy_current();
        let core = first.core.expect("few machines have 512 cores");
        let second = occupied.occupy_free(affinity());
        if before.count() > 1 {
            // The kernel may move a thread back at any time, and then no core is found; not always.
            let moved = (0..1000).any(|_| second.core.is_some() || occupied.occupy_free(affinity()).core.is_some());
            assert!(moved, "it stays on core {core}");
        } else {
            assert_eq!(second.core, None, "there is no other core");
        }
        assert!(sched_getaffinity(None).unwrap() == before, "the caller's affinity");
        drop(second);
        assert!(occupied.contains(core), "a guard that occupies no core frees none");
        drop(first);
        assert!(!occupied.contains(core));
    }

    #[test]
    fn a_core_has_one_occupant() {
        let occupied = OccupiedCores::default();
        assert!(occupied.insert(70) && !occupied.insert(70) && occupied.insert(7));
        drop(CoreGuard { occupied: &occupied, core: Some(70) });
        assert!(occupied.insert(70) && occupied.contains(7));
    }
}
