//! Fork–join: the tiles of one call, run by the caller and by any helpers that are there.
//!
//! ```text
//! caller: run(tiles, work)                       any helper, at any time: help(End::Back)
//!   running: false → true                          return if the ticket is empty
//!   job ← work, done ← 0                           claim the last tile by compare-exchange;
//!   ticket ← 0..tiles                                begin again if that failed
//!   claim and run the first tile, until empty      run job(tile)
//!   wait until done = tiles                        done += 1
//!   running: true → false
//!   resume the first panic, if there was one
//! ```
//!
//! The caller claims from the front and helpers from the back, so that with one helper each core
//! meets the same tiles again in the next call, in its own cache.
//!
//! # States
//!
//! The *ticket* holds the tiles that nobody has claimed, `front..back`, in one word. A tile is
//! *unclaimed* while it is in the ticket, *claimed* by the thread whose compare-exchange took it
//! out, and *done* when that thread has added it to `done`. So a fork–join is in one of five
//! states:
//!
//! ```text
//! state        running   ticket      done          the job is accessed by
//! IDLE         false     empty       anything      nobody
//! PREPARING    true      empty       anything      the caller, which writes it
//! OPEN         true      not empty   < tiles       threads with a claimed tile, which read it
//! DRAINING     true      empty       < tiles       threads with a claimed tile, which read it
//! COMPLETE     true      empty       = tiles       nobody
//! ```
//!
//! They follow one another in this order, by: the swap of `running`, the store of the ticket, the
//! last claim, the last addition to `done`, the store to `running`. (A call without tiles is
//! COMPLETE as soon as it is prepared.)
//!
//! # Orderings
//!
//! ```text
//! release                   acquire                            hands over
//! ticket.store    in run    ticket.compare_exchange  in claim  job and done = 0, to who claims
//! done.fetch_add  in help   done.load                in run    what the tile wrote, to the caller
//! running.store   in run    running.swap             in run    the job's cell, to the next caller
//! ```
//!
//! - `ticket`: a successful exchange reads the last value of the word. That is the caller's store
//!   or the result of other exchanges since, which continue its release sequence, whatever their
//!   own ordering; so `Acquire` on success is enough to see the job. The load before the exchange,
//!   and a failed exchange, only predict the value to compare with: `Relaxed` is enough.
//! - `done`: an addition continues the release sequences of those before it, so the caller's load
//!   of the full count acquires from every tile. The store of 0 is `Relaxed`: the additions of the
//!   last call precede it, since their count was full, and those of this call follow a claim, which
//!   has acquired it.
//! - `panicked` is `Relaxed`: it is written before the addition to `done` of that tile, and read
//!   after the load of the full count.
//! - `is_running` is a hint for how long to wait, and `Relaxed`.
//!
//! # Why it is correct
//!
//! **Every tile runs exactly once.** A claim replaces the whole word by one without the claimed
//! tile, so no two claims of a call are of the same tile, and each is followed by one call of the
//! job. The caller claims until the ticket is empty, so no tile is left, even if nobody helps. A
//! thread that has been asleep since it read the ticket succeeds only if the word is the same
//! again. Then its claim is a claim on the present call like any other, for it reads the job after
//! the exchange; and while the ticket is empty no exchange succeeds, since none is tried with an
//! empty ticket to compare with.
//!
//! **The caller's frame outlives every use of it.** The job, and with it all that `work` borrows,
//! is used only between a claim and the addition to `done` for that tile. `run` does not return
//! before it has read the full count, and does not unwind either, since it aborts instead. After
//! its addition a helper uses nothing but the `ForkJoin`, which its own reference keeps alive.
//!
//! **A panic neither unwinds over the frame nor is lost.** The panic of a tile is caught in `help`,
//! the first payload kept, and the tile counted as done: otherwise the caller would wait for ever.
//! The caller resumes that payload when the call is COMPLETE. Later payloads are forgotten and not
//! dropped, since a drop may panic in turn. Anything else that unwinds between a claim and its
//! addition, or in `run` before the count is full, aborts the process.
//!
//! **No wake-up is lost,** because no thread sleeps for another. Helpers poll the ticket and the
//! caller polls `done`. The caller waits only for claimed tiles, and the thread that has claimed
//! one needs nothing from the others to finish it. A helper that sees a new ticket late or never,
//! or that still sleeps in its pool, costs its help and nothing else.
//!
//! `tests/fork_join.rs` has loom explore the orders in which threads can meet here.

#![allow(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use crate::parallel::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, UnsafeCell};

/// Runs the tiles of one call at a time on several threads.
pub(crate) struct ForkJoin {
    /// A [`Ticket`] in one word.
    ticket: OwnLine<AtomicU64>,
    /// The number of tiles of this call that are done.
    done: OwnLine<AtomicUsize>,
    /// A call is between its first and its last line.
    running: AtomicBool,
    job: UnsafeCell<Job>,
    /// The payload of the first tile that panicked, and whether there is one.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    panicked: AtomicBool,
}

/// Alone on its cache line, and on the one that processors fetch with it: every claim writes the
/// ticket and every end of a tile the count, and threads that wait read them all the time.
#[repr(align(128))]
struct OwnLine<T>(T);

/// The unclaimed tiles, `front..back`.
#[derive(Clone, Copy)]
struct Ticket {
    front: u32,
    back: u32,
}

impl Ticket {
    fn to_word(self) -> u64 {
        u64::from(self.front) << 32 | u64::from(self.back)
    }

    fn from_word(word: u64) -> Self {
        Self { front: (word >> 32) as u32, back: word as u32 }
    }

    fn is_empty(self) -> bool {
        self.front == self.back
    }

    /// Takes a tile off one end of a ticket that is not empty.
    fn take(&mut self, end: End) -> u32 {
        match end {
            End::Front => {
                self.front += 1;
                self.front - 1
            }
            End::Back => {
                self.back -= 1;
                self.back
            }
        }
    }
}

/// Which end of the tiles a thread claims from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// The `work` of a call, without its lifetime.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: the job is written in the state PREPARING by the caller alone, and read in OPEN and
// DRAINING after a claim, which sees that write. What it points to is Sync.
unsafe impl Send for ForkJoin {}
// SAFETY: as above.
unsafe impl Sync for ForkJoin {}

/// Aborts the process if it is dropped and not disarmed, as by unwinding.
struct AbortOnUnwind;

impl AbortOnUnwind {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl Default for ForkJoin {
    fn default() -> Self {
        let nothing: &'static (dyn Fn(usize) + Sync) = &|_| ();
        Self {
            ticket: OwnLine(AtomicU64::new(0)),
            done: OwnLine(AtomicUsize::new(0)),
            running: AtomicBool::new(false),
            job: UnsafeCell::new(Job(nothing)),
            panic: Mutex::new(None),
            panicked: AtomicBool::new(false),
        }
    }
}

impl ForkJoin {
    /// The largest number of tiles of a call.
    pub(crate) const MAX_TILES: usize = u32::MAX as usize;

    /// Calls `work(tile)` once for each tile below `tiles`, on this thread and on those that help,
    /// and returns how many of them this thread has run. Calls `between` on it after each of these,
    /// and `wait(round)`, with rounds from 0, while other threads run the last tiles.
    ///
    /// # Panics
    /// If another call is running. Resumes the panic of the first tile that panicked, after all
    /// tiles are done.
    pub(crate) fn run(
        &self,
        tiles: usize,
        work: &(dyn Fn(usize) + Sync),
        mut between: impl FnMut(),
        mut wait: impl FnMut(u32),
    ) -> usize {
        assert!(tiles <= Self::MAX_TILES, "{tiles} tiles");
        assert!(!self.running.swap(true, Ordering::Acquire), "a call is running already");
        let guard = AbortOnUnwind;

        // PREPARING
        // SAFETY: only the lifetime changes. The reference is used after a claim alone, and this
        // function neither returns nor unwinds before every claimed tile is done.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        // SAFETY: `running` makes this the only call. All tiles of the last call were done when it
        // ended, and no tile can be claimed yet, so nobody reads the job.
        self.job.with_mut(|job| unsafe { *job = Job(work) });
        self.done.0.store(0, Ordering::Relaxed);

        // OPEN
        self.ticket.0.store(Ticket { front: 0, back: tiles as u32 }.to_word(), Ordering::Release);
        let mut own = 0;
        while self.help(End::Front) {
            own += 1;
            between();
        }

        // DRAINING
        let mut round = 0;
        while self.done.0.load(Ordering::Acquire) < tiles {
            wait(round);
            round = round.saturating_add(1);
        }

        // COMPLETE
        guard.disarm();
        let panic = match self.panicked.swap(false, Ordering::Relaxed) {
            true => self.panic.lock().unwrap_or_else(PoisonError::into_inner).take(),
            false => None,
        };
        self.running.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        own
    }

    /// Returns whether a call was running a moment ago.
    #[allow(dead_code, reason = "not in the model of the tests")]
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Claims a tile and runs it; returns false if there was none to claim.
    pub(crate) fn help(&self, end: End) -> bool {
        let Some(tile) = self.claim(end) else { return false };
        let guard = AbortOnUnwind;
        // SAFETY: the claim has acquired the job, and `run` waits for this tile, so the job and
        // what it borrows stay.
        let work = self.job.with(|job| unsafe { &*(*job).0 });
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(tile as usize))) {
            self.keep_first(panic);
        }
        self.done.0.fetch_add(1, Ordering::Release);
        guard.disarm();
        true
    }

    /// Takes a tile out of the ticket; `None` if there is no unclaimed one.
    fn claim(&self, end: End) -> Option<u32> {
        let mut seen = self.ticket.0.load(Ordering::Relaxed);
        loop {
            let mut ticket = Ticket::from_word(seen);
            if ticket.is_empty() {
                return None;
            }
            let tile = ticket.take(end);
            let word = ticket.to_word();
            match self.ticket.0.compare_exchange_weak(seen, word, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(tile),
                Err(now) => seen = now,
            }
        }
    }

    /// Keeps the first payload of a call, and forgets later ones: dropping one may panic.
    fn keep_first(&self, panic: Box<dyn Any + Send>) {
        let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        match *first {
            None => *first = Some(panic),
            Some(_) => std::mem::forget(panic),
        }
        self.panicked.store(true, Ordering::Relaxed);
    }
}
