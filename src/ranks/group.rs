//! What training on several ranks needs of their communication.

/// Processes that train together: [`Alone`], which is one, or with the feature `mpi` the ranks of a
/// `World`.
///
/// Sealed: only this crate implements what it requires.
pub trait Group<F>: Collective<F> {}

impl<F, G: Collective<F>> Group<F> for G {}

/// Collective operations: each rank calls the same ones in the same order.
pub trait Collective<F> {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// N, the number of ranks.
    fn ranks(&self) -> usize;

    /// `all` = the numbers of all ranks, one after another, each of which gives equally many.
    fn gather(&self, own: &[f64], all: &mut [f64]);

    /// The bytes that rank `from` has, on every rank.
    fn broadcast(&self, from: usize, bytes: &mut [u8]);

    /// Sends the next `sent_to[r]` numbers to each other rank r in turn, and writes what that has
    /// sent here to the next `received_from[r]` numbers of `received`. Those that stand there for
    /// this rank itself stay.
    fn exchange(&self, sent: &[F], sent_to: &[usize], received: &mut [F], received_from: &[usize]);

    /// `all` = the numbers of all ranks, one after another, of which rank r gives `counts[r]`.
    fn concatenate(&self, own: &[F], all: &mut [F], counts: &[usize]);

    /// `sums` = the sums over all ranks, number by number, added up in any order, of what
    /// `compute` gives. It returns whether it has given as many numbers as there are sums; if not,
    /// it has given none, on every rank. `own` is room for those of this rank.
    fn add_up(&self, own: &mut [F], sums: &mut [F], compute: &mut dyn FnMut(&mut dyn Sums<F>) -> bool);

    /// Notes that all ranks know of a failure, which ends the call of each.
    fn all_have_failed(&self) {}
}

/// Numbers of this rank that are added to those of the others, while it computes further ones.
pub trait Sums<F> {
    /// Takes further numbers, which lie before those taken so far.
    fn prepend(&mut self, numbers: &[F]);

    /// Lets the sums that have begun go on.
    fn go_on(&mut self) {}
}

/// Numbers in the place where they belong: the last ones of a slice, and further ones before them.
#[derive(Debug)]
pub(crate) struct Prepended<'a, F> {
    pub(crate) numbers: &'a mut [F],
    /// How many of the last ones are there.
    pub(crate) filled: usize,
}

impl<F: Copy> Sums<F> for Prepended<'_, F> {
    fn prepend(&mut self, numbers: &[F]) {
        let end = self.numbers.len() - self.filled;
        self.numbers[end - numbers.len()..end].copy_from_slice(numbers);
        self.filled += numbers.len();
    }
}

/// A single process, which trains as so many ranks would: with the same parts of the data, and with
/// the same bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl<F: Copy> Collective<F> for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn gather(&self, own: &[f64], all: &mut [f64]) {
        all.copy_from_slice(own);
    }

    fn broadcast(&self, _from: usize, _bytes: &mut [u8]) {}

    fn exchange(&self, _sent: &[F], _sent_to: &[usize], _received: &mut [F], _received_from: &[usize]) {}

    fn concatenate(&self, own: &[F], all: &mut [F], _counts: &[usize]) {
        all.copy_from_slice(own);
    }

    fn add_up(&self, _own: &mut [F], sums: &mut [F], compute: &mut dyn FnMut(&mut dyn Sums<F>) -> bool) {
        compute(&mut Prepended { numbers: sums, filled: 0 });
    }
}
