//! Fork–join with the threads of the operating system; `tests/fork_join.rs` explores the orders in
//! which threads can meet.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::parallel::fork_join::{End, ForkJoin};

/// Runs `work` while three helpers try to claim tiles.
fn with_helpers<R>(fork_join: &ForkJoin, work: impl FnOnce() -> R) -> R {
    /// Stops them also when `work` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fork_join.help(End::Back);
                    std::thread::yield_now();
                }
            });
        }
        let _stop = Stop(&stop);
        work()
    })
}

fn wait(_round: u32) {
    std::thread::yield_now();
}

#[test]
fn each_tile_is_run_once_whoever_helps() {
    let fork_join = ForkJoin::default();
    with_helpers(&fork_join, || {
        for call in 0..2_000 {
            let tiles = call % 17;
            let times: Vec<AtomicUsize> = (0..tiles).map(|_| AtomicUsize::new(0)).collect();
            let own = fork_join.run(tiles, &|tile| _ = times[tile].fetch_add(1, Ordering::Relaxed), || (), wait);
            assert!(own <= tiles && times.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{call}: {times:?}");
        }
    });
}

#[test]
fn a_panic_in_a_tile_reaches_the_caller_and_leaves_everything_usable() {
    let fork_join = ForkJoin::default();
    let done = AtomicUsize::new(0);
    let work = |tile: usize| {
        assert!(tile != 1, "tile one");
        done.fetch_add(1, Ordering::Relaxed);
    };
    let panic = catch_unwind(AssertUnwindSafe(|| fork_join.run(4, &work, || (), wait))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"tile one"));
    assert_eq!(done.load(Ordering::Relaxed), 3, "the other tiles are done");
    assert_eq!(fork_join.run(1, &work, || (), wait), 1);
    assert_eq!(done.load(Ordering::Relaxed), 4);
}

/// A payload whose drop panics, as a caller's may.
struct Bomb(usize);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped payload {}", self.0);
    }
}

/// The caller may not leave the frame that tiles borrow from while one of them runs, whatever the
/// payloads do when they are dropped.
#[test]
fn of_several_panics_the_first_is_resumed_and_the_others_are_forgotten() {
    let fork_join = ForkJoin::default();
    with_helpers(&fork_join, || {
        for call in 0..200 {
            let first = AtomicUsize::new(usize::MAX);
            let work = |tile: usize| {
                _ = first.compare_exchange(usize::MAX, tile, Ordering::Relaxed, Ordering::Relaxed);
                panic_any(Bomb(tile));
            };
            let panic = catch_unwind(AssertUnwindSafe(|| fork_join.run(16, &work, || (), wait))).unwrap_err();
            let bomb = panic.downcast::<Bomb>().expect("the payload of a tile");
            assert!(bomb.0 < 16, "call {call}");
            std::mem::forget(bomb);
        }
    });
}

#[test]
#[should_panic(expected = "running already")]
fn calls_do_not_nest() {
    let fork_join = ForkJoin::default();
    fork_join.run(1, &|_| _ = fork_join.run(1, &|_| (), || (), wait), || (), wait);
}
