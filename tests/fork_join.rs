//! Every order in which the threads of a fork–join can meet, explored by loom:
//! `src/parallel/fork_join.rs` as it stands, over loom's atomics, cells and threads in place of the
//! standard library's. Loom reports a data race, a job read after its call has ended, a tile run
//! twice or never, and a wait that never ends.

#[path = "../src/parallel/fork_join.rs"]
mod fork_join;

mod parallel {
    /// What `src/parallel/sync.rs` takes from the standard library.
    pub(crate) mod sync {
        pub(crate) use loom::cell::UnsafeCell;
        pub(crate) use loom::sync::Mutex;
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;

use loom::cell::Cell;
use loom::thread;

use fork_join::{End, ForkJoin};

/// What a tile writes: a cell that loom watches for two threads that reach it unordered.
struct Tiles(Vec<Cell<usize>>);

#[expect(unsafe_code, reason = "loom's cells are for one thread, and are here to find out if two meet")]
// SAFETY: a concurrent access is what loom detects; it ends the test.
unsafe impl Sync for Tiles {}

impl Tiles {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| Cell::new(0)).collect())
    }

    fn add(&self, tile: usize) {
        self.0[tile].set(self.0[tile].get() + 1);
    }

    fn assert_run_once(&self) {
        assert!(self.0.iter().all(|tile| tile.get() == 1));
    }
}

fn wait(_round: u32) {
    thread::yield_now();
}

/// A model in which `helpers` threads try to help `attempts` times each, whenever that is.
fn explore(helpers: usize, attempts: usize, caller: impl Fn(&ForkJoin) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // The bound on preemptions. A few suffice to find all known faults of such protocols, and the
    // number of orders explodes with more.
    model.preemption_bound = Some(3);
    model.check(move || {
        let fork_join = Arc::new(ForkJoin::default());
        let threads: Vec<_> = (0..helpers)
            .map(|_| {
                let fork_join = Arc::clone(&fork_join);
                thread::spawn(move || (0..attempts).for_each(|_| _ = fork_join.help(End::Back)))
            })
            .collect();
        caller(&fork_join);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Each call lends another frame, so a helper that is late, or asleep between reading a ticket and
/// claiming, must not reach the frame of a call that has ended.
fn calls(tiles: &[usize]) -> impl Fn(&ForkJoin) + Sync + Send + 'static {
    let tiles = tiles.to_vec();
    move |fork_join| {
        for &count in &tiles {
            let tiles = Tiles::new(count);
            let own = fork_join.run(count, &|tile| tiles.add(tile), || (), wait);
            assert!(own <= count);
            tiles.assert_run_once();
        }
    }
}

#[test]
fn one_helper_and_two_calls() {
    explore(1, 3, calls(&[2, 2]));
}

#[test]
fn one_helper_and_calls_of_unequal_numbers_of_tiles() {
    explore(1, 2, calls(&[1, 3, 0, 1]));
}

#[test]
fn two_helpers_and_one_call() {
    explore(2, 1, calls(&[2]));
}

/// A payload that must not be dropped while tiles run.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("a payload was dropped");
    }
}

#[test]
fn panics_end_the_call_when_all_tiles_are_done() {
    std::panic::set_hook(Box::new(|_| ()));
    explore(1, 2, |fork_join| {
        let tiles = Tiles::new(2);
        let work = |tile: usize| {
            tiles.add(tile);
            panic_any(Payload);
        };
        let panic = catch_unwind(AssertUnwindSafe(|| fork_join.run(2, &work, || (), wait))).unwrap_err();
        assert!(panic.is::<Payload>());
        std::mem::forget(panic);
        tiles.assert_run_once();
        // The next call works like any other.
        calls(&[1])(fork_join);
    });
}
