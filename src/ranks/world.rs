//! The ranks of a program that `mpirun` has started.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::{self, Debug, Display};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::request::{LocalScope, Request};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};

use crate::error::{Error, Result};
use crate::ranks::group::{Collective, Prepended, Sums};

/// All ranks of a program that `mpirun` has started: a [`Group`](crate::ranks::Group). A program
/// that was started by itself is one rank.
///
/// ```no_run
/// use gemmprop::ranks::{DataParallel, World, part_of_rank};
/// # use gemmprop::{Bias, Dataset, Mlp, SquaredError, Trainer, TrainingSettings};
/// # use gemmprop::ndarray::{Array1, Array2, s};
///
/// fn main() -> Result<(), gemmprop::Error> {
///     World::run(|world| {
/// #       let (x, y) = (Array2::<f32>::zeros((64, 8)), Array1::<f32>::zeros(64));
///         let own = part_of_rank(64, 8, world.rank(), world.ranks());
///         let (x, y) = (x.slice(s![own.clone(), ..]), y.slice(s![own]));
///         let mlp = Mlp::he(&[8, 32, 1], Bias::Input, 1)?;
///         let trainer = Trainer::new(mlp, SquaredError, TrainingSettings::default())?;
///         let mut run = DataParallel::exact(trainer, world, 8)?;
///         run.fit(Dataset::new(x, y), None, ())?;
///         if world.rank() == 0 {
///             println!("{}", run.trainer().history().records[9]);
///         }
///         Ok(())
///     })
/// }
/// ```
pub struct World {
    communicator: SimpleCommunicator,
    all_have_failed: Cell<bool>,
    times: Cell<CommunicationTimes>,
    // Finalises MPI when it is dropped, which waits for the other ranks.
    _universe: Universe,
}

impl Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("rank", &self.rank()).field("ranks", &self.ranks()).finish()
    }
}

/// What a rank has spent on communication so far.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CommunicationTimes {
    /// In messages of a few bytes, for which every rank waits: mostly the time until the slowest
    /// rank has done its work.
    pub waiting: Duration,
    /// In messages with gradients.
    pub moving: Duration,
}

impl World {
    /// Starts MPI, calls `work`, and ends MPI when it has returned on every rank. If it fails on
    /// all of them together, as calls of [`DataParallel`](crate::ranks::DataParallel) do, or on the
    /// only one, each returns its error. If it fails on one of several by itself, by an error or a
    /// panic, the others may wait for that rank for ever: the error is written to standard error,
    /// and all ranks are ended.
    ///
    /// # Errors
    /// That of `work`; [`Error::Mpi`] if MPI has been started before.
    pub fn run<T, E: Display + From<Error>>(work: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        let world = Self::new()?;
        let done = catch_unwind(AssertUnwindSafe(|| work(&world)));
        let reason = match &done {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("panicked".to_owned()),
        };
        let all_know = world.ranks() == 1 || world.all_have_failed.get();
        if let (Some(reason), false) = (reason, all_know) {
            world.end_all(&reason);
        }
        drop(world);
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The number of this rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.communicator.rank() as usize
    }

    /// N, the number of ranks.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.communicator.size() as usize
    }

    /// What this rank has spent on communication so far.
    #[must_use]
    pub fn communication(&self) -> CommunicationTimes {
        self.times.get()
    }

    /// Calls `work`, whose time is added to one of those.
    fn timed(&self, of: impl FnOnce(&mut CommunicationTimes) -> &mut Duration, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        let mut times = self.times.get();
        *of(&mut times) += start.elapsed();
        self.times.set(times);
    }

    fn new() -> Result<Self> {
        // Calls are made by one thread, beside which helpers compute.
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Funneled) else {
            return Err(Error::Mpi { expected: "to start it", found: "it started before" });
        };
        if threading < Threading::Funneled {
            return Err(Error::Mpi { expected: "MPI_THREAD_FUNNELED", found: "MPI_THREAD_SINGLE" });
        }
        Ok(Self {
            communicator: universe.world(),
            all_have_failed: Cell::new(false),
            times: Cell::default(),
            _universe: universe,
        })
    }

    #[expect(clippy::print_stderr, reason = "the process ends here")]
    fn end_all(&self, reason: &str) -> ! {
        eprintln!("rank {}: {reason}", self.rank());
        self.communicator.abort(1)
    }
}

/// The counts, and where the numbers of each rank begin, as MPI takes them.
fn displaced(counts: &[usize]) -> (Vec<i32>, Vec<i32>) {
    let count = |count: usize| i32::try_from(count).expect("at most 2³¹ − 1 numbers, as MPI counts");
    let starts = counts.iter().scan(0, |end, counts| {
        let start = *end;
        *end += counts;
        Some(count(start))
    });
    (counts.iter().map(|&counts| count(counts)).collect(), starts.collect())
}

/// Numbers of a sum, but for the last one, which has the rest. Fewer would cost more by the latency
/// of another message than they hide. Every rank has to begin the same sums, in however many pieces
/// its gradient comes, so where they begin depends on this alone.
const PIECE: usize = 1 << 18;

/// Sums that MPI makes while this rank computes. MPI gets on with them only while it is called.
struct Running<'s, 'a, F> {
    world: &'s World,
    scope: &'s LocalScope<'a>,
    /// The numbers of this rank, and the sums, of which none has begun.
    own: Prepended<'a, F>,
    sums: &'a mut [F],
    requests: VecDeque<Request<'a, [F], &'s LocalScope<'a>>>,
}

impl<F: Equivalence> Running<'_, '_, F> {
    /// Begins the next sum.
    fn begin(&mut self) {
        let Self { world, scope, own, sums, requests } = self;
        let at = sums.len() - PIECE;
        let (before, numbers) = mem::take(&mut own.numbers).split_at_mut(at);
        let (sums_before, sums_of) = mem::take(sums).split_at_mut(at);
        (own.numbers, *sums) = (before, sums_before);
        own.filled -= PIECE;
        world.timed(
            |times| &mut times.moving,
            || {
                let (communicator, sum) = (&world.communicator, SystemOperation::sum());
                requests.push_back(communicator.immediate_all_reduce_into(*scope, &*numbers, sums_of, sum));
            },
        );
    }

    /// Adds up the rest, with nothing to compute meanwhile, and waits for all.
    fn finish(&mut self) {
        let Self { world, own, sums, requests, .. } = self;
        debug_assert_eq!(own.filled, sums.len(), "all numbers");
        world.timed(
            |times| &mut times.moving,
            || {
                world.communicator.all_reduce_into(&*own.numbers, *sums, SystemOperation::sum());
                requests.drain(..).for_each(Request::wait_without_status);
            },
        );
    }
}

/// A panic between sums that have begun cannot be told to the other ranks, which wait for the next
/// ones, and MPI has the numbers still: all ranks are ended.
impl<F> Drop for Running<'_, '_, F> {
    fn drop(&mut self) {
        if !self.requests.is_empty() {
            self.world.end_all("panicked while the ranks added up a gradient");
        }
    }
}

impl<F: Equivalence + Copy> Sums<F> for Running<'_, '_, F> {
    fn prepend(&mut self, numbers: &[F]) {
        self.own.prepend(numbers);
        // The last ones are added up without a request, since nothing is left to compute.
        while self.own.filled >= PIECE && self.sums.len() > PIECE {
            self.begin();
        }
    }

    fn go_on(&mut self) {
        let Self { world, requests, .. } = self;
        world.timed(
            |times| &mut times.moving,
            || {
                while let Some(request) = requests.pop_front() {
                    if let Err(request) = request.test() {
                        return requests.push_front(request);
                    }
                }
            },
        );
    }
}

impl<F: Equivalence + Copy> Collective<F> for World {
    fn rank(&self) -> usize {
        self.rank()
    }

    fn ranks(&self) -> usize {
        self.ranks()
    }

    fn gather(&self, own: &[f64], all: &mut [f64]) {
        self.timed(|times| &mut times.waiting, || self.communicator.all_gather_into(own, all));
    }

    fn broadcast(&self, from: usize, bytes: &mut [u8]) {
        self.communicator.process_at_rank(from as i32).broadcast_into(bytes);
    }

    fn exchange(&self, sent: &[F], sent_to: &[usize], received: &mut [F], received_from: &[usize]) {
        let (to, to_starts) = displaced(sent_to);
        let (mut from, from_starts) = displaced(received_from);
        from[self.rank()] = 0;
        let sent = Partition::new(sent, to, to_starts);
        let mut received = PartitionMut::new(received, from, from_starts);
        self.timed(|times| &mut times.moving, || self.communicator.all_to_all_varcount_into(&sent, &mut received));
    }

    fn concatenate(&self, own: &[F], all: &mut [F], counts: &[usize]) {
        let (counts, starts) = displaced(counts);
        let mut all = PartitionMut::new(all, counts, starts);
        self.timed(|times| &mut times.moving, || self.communicator.all_gather_varcount_into(own, &mut all));
    }

    fn add_up(&self, own: &mut [F], sums: &mut [F], compute: &mut dyn FnMut(&mut dyn Sums<F>) -> bool) {
        mpi::request::scope(|scope| {
            let own = Prepended { numbers: own, filled: 0 };
            let mut running = Running { world: self, scope, own, sums, requests: VecDeque::new() };
            if compute(&mut running) {
                running.finish();
            }
        });
    }

    fn all_have_failed(&self) {
        self.all_have_failed.set(true);
    }
}
