//! Where threads run: each member of a team on a core of its own, among those that the caller may run on.
//!
//! Linux may wake a helper on the very core that its caller computes on, above all where all cores have been busy lately (it
//! then saves itself the search for an idle one), and leave both there for tens of milliseconds. A helper that finds another
//! member on its core moves itself away: it takes the members' cores out of its affinity mask, which makes the kernel
//! move it at once, and then sets the caller's mask, which moves nothing. Helpers are threads of this crate, so no mask of a
//! host's thread is ever changed. Elsewhere than on Linux nothing is moved.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
pub(crate) use system::run_on_one_core;
pub(crate) use system::{Allowed, allowed};

/// The cores on which the members of a team have said to be; those beyond the 512th are not looked at.
#[derive(Debug, Default)]
pub(crate) struct Cores([AtomicU64; 8]);

/// A core that a member stands on, until dropped.
#[derive(Debug)]
pub(crate) struct Occupied<'a> {
    cores: &'a Cores,
    core: Option<usize>,
}

impl Cores {
    fn taken(&self, core: usize) -> bool {
        self.0[core / 64].load(Ordering::Relaxed) >> (core % 64) & 1 == 1
    }

    /// Takes a core; false if somebody had it.
    fn take(&self, core: usize) -> bool {
        let bit = 1 << (core % 64);
        self.0[core / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// The caller's own: it stays where it is.
    pub(crate) fn stay(&self) -> Occupied<'_> {
        let core = system::current().filter(|&core| core < 64 * self.0.len() && self.take(core));
        Occupied { cores: self, core }
    }

    /// A helper's: it may run where `allowed` says, and moves away if somebody is there already.
    pub(crate) fn settle(&self, allowed: Allowed) -> Occupied<'_> {
        system::allow(allowed);
        let seat = self.stay();
        if seat.core.is_some() {
            return seat;
        }
        system::leave(allowed, |core| core < 64 * self.0.len() && self.taken(core));
        self.stay()
    }
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.core {
            self.cores.0[core / 64].fetch_and(!(1 << (core % 64)), Ordering::Relaxed);
        }
    }
}

/// On how many cores this thread can run now, by its affinity and by the quota of its control group.
pub(crate) fn of_this_thread() -> usize {
    system::allowed_here().map_or_else(of_the_machine, |allowed| allowed.min(of_the_machine())).max(1)
}

/// On how many cores threads of this process can run at once, whatever the calling thread is bound to. Looked up once.
pub(crate) fn of_the_machine() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| {
        let count = || std::thread::available_parallelism().map_or(1, usize::from);
        // In a thread that is bound to nothing. The answer includes the quota, which costs the reading of some files.
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
    pub(crate) type Allowed = Option<CpuSet>;

    thread_local! {
        /// The mask that this helper was last given.
        static GIVEN: Cell<Allowed> = const { Cell::new(None) };
    }

    /// Where the calling thread may run.
    pub(crate) fn allowed() -> Allowed {
        sched_getaffinity(None).ok()
    }

    pub(super) fn allowed_here() -> Option<usize> {
        allowed().map(|set| set.count() as usize)
    }

    /// The core that this thread runs on.
    pub(super) fn current() -> Option<usize> {
        Some(sched_getcpu())
    }

    /// Lets this helper run there.
    pub(super) fn allow(allowed: Allowed) {
        if let Some(set) = allowed
            && GIVEN.replace(allowed) != allowed
        {
            _ = sched_setaffinity(None, &set);
        }
    }

    /// Moves this helper to an allowed core that is not taken, if there is one. A failure leaves it where it is.
    pub(super) fn leave(allowed: Allowed, taken: impl Fn(usize) -> bool) {
        let Some(allowed) = allowed else { return };
        let mut free = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core) && !taken(core)).for_each(|core| free.set(core));
        if free.count() > 0 && sched_setaffinity(None, &free).is_ok() {
            _ = sched_setaffinity(None, &allowed);
        }
    }

    /// Lets this thread run on every core that its process may use.
    pub(super) fn unbind() {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
        _ = sched_setaffinity(None, &all);
    }

    /// Binds this thread to the core it is on.
    #[cfg(test)]
    pub(crate) fn run_on_one_core() {
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    /// Nothing is known, and nothing set.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub(crate) struct Allowed;

    pub(crate) fn allowed() -> Allowed {
        Allowed
    }

    pub(super) fn allowed_here() -> Option<usize> {
        std::thread::available_parallelism().ok().map(usize::from)
    }

    pub(super) fn current() -> Option<usize> {
        None
    }

    pub(super) fn allow(_: Allowed) {}

    pub(super) fn leave(_: Allowed, _: impl Fn(usize) -> bool) {}

    pub(super) fn unbind() {}

    #[cfg(test)]
    pub(crate) fn run_on_one_core() {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn a_helper_that_finds_its_core_taken_moves_away_and_may_run_where_its_caller_may() {
        let before = sched_getaffinity(None).unwrap();
        let cores = Cores::default();
        let first = cores.stay();
        let taken = first.core.expect("few machines have 512 cores");
        let second = cores.settle(allowed());
        if before.count() > 1 {
            // The kernel may move a thread back at any time, and then there is no seat: not for ever.
            let moved = (0..1000).any(|_| second.core.is_some() || cores.settle(allowed()).core.is_some());
            assert!(moved, "it stays on core {taken}");
        } else {
            assert_eq!(second.core, None, "there is nowhere to go");
        }
        assert!(sched_getaffinity(None).unwrap() == before, "the caller's mask");
        drop(second);
        assert!(cores.taken(taken), "a seat that was not had is not given up");
        drop(first);
        assert!(!cores.taken(taken));
    }

    #[test]
    fn a_core_has_one_holder() {
        let cores = Cores::default();
        assert!(cores.take(70) && !cores.take(70) && cores.take(7));
        drop(Occupied { cores: &cores, core: Some(70) });
        assert!(cores.take(70) && cores.taken(7));
    }
}
