//! Where threads run: each member of a crew on a core of its own.
//!
//! Linux may wake a helper on the very core that its caller computes on, above all where all cores have been busy lately (it
//! then saves itself the search for an idle one), and leave both there for tens of milliseconds. A helper that finds another
//! member on its core moves itself away: it takes the members' cores out of its affinity mask, which makes the kernel
//! move it at once, and puts the mask back, which moves nothing. Elsewhere than on Linux this file does nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// The cores on which the members of a crew have said to be; those beyond the 512th are not looked at.
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

    /// A helper's: it moves away if somebody is there already.
    pub(crate) fn settle(&self) -> Occupied<'_> {
        let seat = self.stay();
        if seat.core.is_some() {
            return seat;
        }
        system::leave(|core| core < 64 * self.0.len() && self.taken(core));
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

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The core that this thread runs on.
    pub(super) fn current() -> Option<usize> {
        Some(sched_getcpu())
    }

    /// Moves this thread to a core that is not taken, if it may run on one. A failure leaves it where it is.
    pub(super) fn leave(taken: impl Fn(usize) -> bool) {
        let Ok(allowed) = sched_getaffinity(None) else { return };
        let mut free = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core) && !taken(core)).for_each(|core| free.set(core));
        if free.count() > 0 && sched_setaffinity(None, &free).is_ok() {
            // It was the mask of this thread a moment ago.
            _ = sched_setaffinity(None, &allowed);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn current() -> Option<usize> {
        None
    }

    pub(super) fn leave(_: impl Fn(usize) -> bool) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn who_finds_a_core_taken_moves_away_and_keeps_its_mask() {
        let before = sched_getaffinity(None).unwrap();
        let cores = Cores::default();
        let first = cores.stay();
        let taken = first.core.expect("few machines have 512 cores");
        let second = cores.settle();
        if before.count() > 1 {
            // The kernel may move a thread back at any time, and then there is no seat.
            assert_ne!(second.core, Some(taken));
        } else {
            assert_eq!(second.core, None, "there is nowhere to go");
        }
        assert!(sched_getaffinity(None).unwrap() == before, "the mask is put back");
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
