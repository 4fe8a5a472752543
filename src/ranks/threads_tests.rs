//! Ranks that are threads of one process, for tests.

use std::any::Any;
use std::sync::{Barrier, Mutex};
use std::thread;

use crate::ranks::group::{Collective, Prepended, Sums};

type Slot = Mutex<Option<Box<dyn Any + Send>>>;

/// One of so many threads.
#[derive(Debug)]
pub(crate) struct Thread<'a> {
    pub(crate) rank: usize,
    slots: &'a [Slot],
    barrier: &'a Barrier,
}

/// Calls `work` on so many threads, and returns what it returns on each.
pub(crate) fn on_threads<T: Send>(ranks: usize, work: impl Fn(&Thread) -> T + Sync) -> Vec<T> {
    let slots: Vec<Slot> = (0..ranks).map(|_| Mutex::new(None)).collect();
    let barrier = Barrier::new(ranks);
    thread::scope(|scope| {
        let start = |rank| {
            let (slots, barrier, work) = (&slots, &barrier, &work);
            scope.spawn(move || work(&Thread { rank, slots, barrier }))
        };
        let threads: Vec<_> = (0..ranks).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

impl Thread<'_> {
    /// What every rank has put there.
    fn all<T: Clone + Send + 'static>(&self, own: T) -> Vec<T> {
        *self.slots[self.rank].lock().unwrap() = Some(Box::new(own));
        self.barrier.wait();
        let of =
            |slot: &Slot| slot.lock().unwrap().as_ref().unwrap().downcast_ref::<T>().expect("the same call").clone();
        let all = self.slots.iter().map(of).collect();
        self.barrier.wait();
        all
    }
}

impl<F: Copy + Send + std::ops::Add<Output = F> + 'static> Collective<F> for Thread<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.slots.len()
    }

    fn gather(&self, own: &[f64], all: &mut [f64]) {
        all.copy_from_slice(&self.all(own.to_vec()).concat());
    }

    fn broadcast(&self, from: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.all(bytes.to_vec())[from]);
    }

    fn exchange(&self, sent: &[F], sent_to: &[usize], received: &mut [F], received_from: &[usize]) {
        let all = self.all((sent.to_vec(), sent_to.to_vec()));
        let mut at = 0;
        for (rank, ((sent, to), &expected)) in all.iter().zip(received_from).enumerate() {
            let start: usize = to[..self.rank].iter().sum();
            if rank == self.rank {
                assert_eq!(to[rank], 0);
            } else {
                assert_eq!(to[self.rank], expected);
                received[at..at + expected].copy_from_slice(&sent[start..start + expected]);
            }
            at += expected;
        }
        assert_eq!(at, received.len());
    }

    fn concatenate(&self, own: &[F], all: &mut [F], counts: &[usize]) {
        let of_ranks = self.all(own.to_vec());
        assert!(of_ranks.iter().map(Vec::len).eq(counts.iter().copied()));
        all.copy_from_slice(&of_ranks.concat());
    }

    /// From the last rank to the first: another order than the tree's.
    fn add_up(&self, own: &mut [F], sums: &mut [F], compute: &mut dyn FnMut(&mut dyn Sums<F>) -> bool) {
        let mut filled = Prepended { numbers: own, filled: 0 };
        let is_whole = compute(&mut filled);
        assert_eq!(filled.filled, if is_whole { sums.len() } else { 0 });
        if !is_whole {
            return;
        }
        let of_ranks = self.all(own.to_vec());
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = of_ranks.iter().rev().map(|numbers| numbers[i]).reduce(|a, b| a + b).expect("there is a rank");
        }
    }
}
