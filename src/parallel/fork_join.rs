//! Fork–join: one call's tiles, run by the caller and by whoever helps.
//!
//! ```text
//! caller                                        helper, any number of them, at any time
//!   job ← work, done ← 0                          loop:
//!   ticket ← (call + 1, 0, tiles)                   ticket: is there an unclaimed tile? else leave
//!   claim tiles from the front, run each            claim the last one by compare-exchange
//!   wait until done = tiles                         run it
//!   resume the first panic, if there was one        done ← done + 1
//! ```
//!
//! **States.** The ticket is one word: the number of the call and the unclaimed tiles `front..back`. A tile is *unclaimed*,
//! then *claimed* by exactly one thread (the compare-exchange that took it out of the ticket), then *done*. The call ends when
//! all its tiles are done. The caller runs everything itself if nobody helps, so it waits for no thread to come, only for tiles
//! that somebody has begun; and who comes late finds nothing to claim.
//!
//! **Why a helper never reads a stale job.** The number of the call is part of the word that the compare-exchange compares, so
//! a helper that slept since an earlier call fails and looks again. A claim that succeeds has read a ticket which descends from
//! the caller's store (`Release`) through successful exchanges only, which continue its release sequence; the claim is
//! `Acquire`, so the job written before that store is visible. The job is not written again before this tile is done.
//!
//! **Why the caller may return.** Each `done` is added with `Release` after the tile has run, and the caller reads the full
//! count with `Acquire`: all that tiles have written is visible to it, and nobody will touch the job, nor what it borrows.
//!
//! **Panics.** Nothing may unwind between a claim and its `done`, nor out of the caller's frame while a tile is claimed: others
//! hold references into it. A panic of a tile is caught; the first payload is kept and resumed in the caller when all tiles are
//! done. Later payloads are forgotten and not dropped, since dropping one may panic in turn. Should something
//! unwind all the same, the process is aborted.
//!
//! The caller claims from the front and helpers from the back, so that with one helper each core meets the same tiles again in
//! the next call, in its own cache.

#![allow(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use crate::parallel::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, UnsafeCell};

/// Tiles of one call at a time, which several threads run.
pub(crate) struct ForkJoin {
    ticket: OwnLine<AtomicU64>,
    done: OwnLine<AtomicUsize>,
    running: AtomicBool,
    job: UnsafeCell<Job>,
    /// The payload of the first tile that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    panicked: AtomicBool,
}

/// Alone on its cache line, and on the one that is fetched with it: every claim writes the ticket and every end of a tile the
/// count, and the threads that wait read them all the time.
#[repr(align(128))]
struct OwnLine<T>(T);

/// The unclaimed tiles, `front..back`, and the number of the call they belong to, in one word.
#[derive(Clone, Copy)]
struct Ticket {
    call: u64,
    front: u64,
    back: u64,
}

impl Ticket {
    const TILE_BITS: u32 = 20;
    const MAX_TILES: usize = (1 << Self::TILE_BITS) - 1;

    fn word(self) -> u64 {
        self.call << (2 * Self::TILE_BITS) | self.front << Self::TILE_BITS | self.back
    }

    fn of(word: u64) -> Self {
        let tile = |word: u64| word & Self::MAX_TILES as u64;
        Self { call: word >> (2 * Self::TILE_BITS), front: tile(word >> Self::TILE_BITS), back: tile(word) }
    }
}

/// Which end of the tiles a thread claims from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: `job` is written in `run` while no tile is claimed or claimable, and read after a claim. What it points to is Sync.
unsafe impl Send for ForkJoin {}
// SAFETY: as above.
unsafe impl Sync for ForkJoin {}

/// Aborts the process if it is dropped, which only unwinding does.
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
    /// The most tiles that one call can have.
    pub(crate) const MAX_TILES: usize = Ticket::MAX_TILES;

    /// Runs `work` for each tile below `tiles`, each once, on this thread and on those that help; `wait(round)` is called
    /// while the last tiles are being done elsewhere. Returns how many tiles this thread has run.
    ///
    /// # Panics
    /// If another call is running, or as the first tile that panicked, after all tiles are done.
    pub(crate) fn run(&self, tiles: usize, work: &(dyn Fn(usize) + Sync), mut wait: impl FnMut(u32)) -> usize {
        assert!(tiles <= Self::MAX_TILES, "{tiles} tiles");
        assert!(!self.running.swap(true, Ordering::Acquire), "a call is running already");
        // SAFETY: only the lifetime changes. The reference is used after a claim alone, and this function neither returns nor
        // unwinds before every claimed tile is done.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let guard = AbortOnUnwind;
        // SAFETY: `running` makes this the only call; every tile of the one before was done when it ended and no tile is
        // claimable now, so nobody reads the job.
        self.job.with_mut(|job| unsafe { *job = Job(work) });
        self.done.0.store(0, Ordering::Relaxed);
        let call = Ticket::of(self.ticket.0.load(Ordering::Relaxed)).call + 1;
        self.ticket.0.store(Ticket { call, front: 0, back: tiles as u64 }.word(), Ordering::Release);
        let mut own = 0;
        while self.help(End::Front) {
            own += 1;
        }
        let mut round = 0;
        while self.done.0.load(Ordering::Acquire) < tiles {
            wait(round);
            round = round.saturating_add(1);
        }
        guard.disarm();
        // Written before the `done` of the tile that panicked.
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

    /// Is a call running? As of a moment ago.
    #[allow(dead_code, reason = "not in the model of the tests")]
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Claims one tile and runs it; false if there was none.
    pub(crate) fn help(&self, end: End) -> bool {
        let mut seen = self.ticket.0.load(Ordering::Acquire);
        loop {
            let mut ticket = Ticket::of(seen);
            if ticket.front == ticket.back {
                return false;
            }
            let tile = match end {
                End::Front => ticket.front,
                End::Back => ticket.back - 1,
            };
            match end {
                End::Front => ticket.front += 1,
                End::Back => ticket.back -= 1,
            }
            let claim = self.ticket.0.compare_exchange_weak(seen, ticket.word(), Ordering::Acquire, Ordering::Acquire);
            let Err(now) = claim else {
                let guard = AbortOnUnwind;
                // SAFETY: the claim read the ticket that `run` stored after writing the job (or one that other claims made of
                // it), and `run` waits for this tile, so the job is there and stays.
                let work = self.job.with(|job| unsafe { &*(*job).0 });
                // A tile that panics is done too: else everybody would wait for it.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(tile as usize))) {
                    self.keep_first(panic);
                }
                self.done.0.fetch_add(1, Ordering::Release);
                guard.disarm();
                return true;
            };
            seen = now;
        }
    }

    /// Keeps the payload if it is the first of this call, and forgets it otherwise: its `drop` may panic.
    fn keep_first(&self, panic: Box<dyn Any + Send>) {
        let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        match *first {
            None => *first = Some(panic),
            Some(_) => std::mem::forget(panic),
        }
        self.panicked.store(true, Ordering::Relaxed);
    }
}
