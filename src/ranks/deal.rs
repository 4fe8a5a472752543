//! How samples are dealt to batches: from C parts of the data, evenly and in a fixed order.
//!
//! Part c has n_c samples, n in all. Sample i of it lies at (2i + 1)/(2 n_c) of its part. All
//! samples are taken in the order of these fractions, those of the first part first where they are
//! equal, and each batch is the next B. So each batch has of every part what its size is of the
//! whole, up to one sample, and every batch but the last has B samples, whatever the sizes of the
//! parts. Which samples a batch has depends on the C sizes alone.

use std::cmp::Ordering;
use std::ops::Range;

use crate::steps::policy::Batches;

/// 0 … len in `parts` ranges, whose lengths differ by at most 1, the longer ones first. Ranges of
/// neighbouring ranges, cut so again, are those of the whole.
pub(crate) fn part(len: usize, parts: usize, index: usize) -> Range<usize> {
    let (each, longer) = (len / parts, len % parts);
    let start = index * each + index.min(longer);
    start..start + each + usize::from(index < longer)
}

/// The parts of a rank, which lie one after another.
pub(crate) fn part_of_rank(len: usize, parts: usize, rank: usize, ranks: usize) -> Range<usize> {
    let each = parts / ranks;
    part(len, parts, rank * each).start..part(len, parts, (rank + 1) * each - 1).end
}

/// For each batch, where the samples of some of the parts lie in an order that has them batch by
/// batch, and part by part within a batch.
#[derive(Debug)]
pub(crate) struct Deal {
    /// The parts of this rank.
    parts: usize,
    /// Where the samples of each part of each batch begin, and where the last ones end.
    starts: Vec<usize>,
    /// The number of samples of all parts.
    pub(crate) batches: Batches,
}

impl Deal {
    /// The samples of the parts `own`, in batches of `batch` samples of all parts, which have so
    /// many `samples` each.
    pub(crate) fn new(samples: &[usize], own: Range<usize>, batch: usize) -> Self {
        let batches = Batches { samples: samples.iter().sum(), batch };
        let mut starts = vec![0];
        let mut before = vec![0; samples.len()];
        for k in 1..=batches.count() {
            let after = first(samples, (k * batch).min(batches.samples));
            for c in own.clone() {
                starts.push(starts.last().expect("one is there") + after[c] - before[c]);
            }
            before = after;
        }
        Self { parts: own.len(), starts, batches }
    }

    /// Where the samples of batch k lie that come from part `part` of this rank.
    pub(crate) fn chunk(&self, k: usize, part: usize) -> Range<usize> {
        let at = k * self.parts + part;
        self.starts[at]..self.starts[at + 1]
    }

    /// Where the samples of these batches lie.
    pub(crate) fn batches(&self, k: Range<usize>) -> Range<usize> {
        self.starts[k.start * self.parts]..self.starts[k.end * self.parts]
    }

    /// The number of samples that all ranks have in batch k.
    pub(crate) fn batch_samples(&self, k: usize) -> usize {
        let Batches { samples, batch } = self.batches;
        batch.min(samples - k * batch)
    }

    /// The most samples of a part in a batch.
    pub(crate) fn largest_chunk(&self) -> usize {
        self.starts.windows(2).map(|starts| starts[1] - starts[0]).max().unwrap_or(0)
    }

    /// The most samples of this rank in a batch.
    pub(crate) fn largest_batch(&self) -> usize {
        (0..self.batches.count()).map(|k| self.batches(k..k + 1).len()).max().unwrap_or(0)
    }

    /// The samples of the parts, each in an order, as the batches have them.
    pub(crate) fn order(&self, of_parts: &[Vec<usize>], order: &mut Vec<usize>) {
        let mut rests: Vec<&[usize]> = of_parts.iter().map(Vec::as_slice).collect();
        for k in 0..self.batches.count() {
            for (part, rest) in rests.iter_mut().enumerate() {
                let (taken, left) = rest.split_at(self.chunk(k, part).len());
                order.extend(taken);
                *rest = left;
            }
        }
    }
}

/// How many of the first `taken` samples come from each part.
fn first(samples: &[usize], taken: usize) -> Vec<usize> {
    let all: usize = samples.iter().sum();
    // (2i + 1)/n_c against (2j + 1)/n_d
    let wide = |n: usize| n as u128;
    let compare = |&(i, c): &(usize, usize), &(j, d): &(usize, usize)| -> Ordering {
        let (left, right) = ((2 * wide(i) + 1) * wide(samples[d]), (2 * wide(j) + 1) * wide(samples[c]));
        left.cmp(&right).then(c.cmp(&d))
    };
    // Nearly right, and put right from there.
    let mut counts: Vec<usize> = samples.iter().map(|&n| (wide(n) * wide(taken) / wide(all)) as usize).collect();
    let mut sum: usize = counts.iter().sum();
    loop {
        let next = (0..samples.len()).filter(|&c| counts[c] < samples[c]).map(|c| (counts[c], c)).min_by(compare);
        let last = (0..samples.len()).filter(|&c| counts[c] > 0).map(|c| (counts[c] - 1, c)).max_by(compare);
        match (next, last) {
            (Some((_, c)), _) if sum < taken => (counts[c], sum) = (counts[c] + 1, sum + 1),
            (Some(next), Some(last)) if compare(&next, &last).is_lt() => {
                counts[next.1] += 1;
                counts[last.1] -= 1;
            }
            _ => return counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_part_is_taken_in_batches_as_it_lies() {
        let deal = Deal::new(&[10], 0..1, 4);
        assert_eq!((0..3).map(|k| deal.chunk(k, 0)).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
    }

    #[test]
    fn equal_parts_give_equally_many() {
        let deal = Deal::new(&[8, 8, 8, 8], 1..3, 8);
        assert_eq!((deal.chunk(0, 0), deal.chunk(0, 1), deal.chunk(3, 1)), (0..2, 2..4, 14..16));
    }

    proptest! {
        /// Against the definition: all samples sorted by their fractions.
        #[test]
        fn batches_are_the_next_samples_in_the_order_of_their_fractions(
            samples in prop::collection::vec(0_usize..40, 1..9),
            batch in 1_usize..50,
            from in 0_usize..9,
            len in 1_usize..9,
        ) {
            let all: usize = samples.iter().sum();
            prop_assume!(all > 0);
            let mut sorted: Vec<(f64, usize, usize)> = Vec::new();
            for (c, &n) in samples.iter().enumerate() {
                sorted.extend((0..n).map(|i| ((2 * i + 1) as f64 / (2 * n) as f64, c, i)));
            }
            // Equal fractions of such small numbers are equal as f64: the same quotient, rounded.
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let own = from.min(samples.len() - 1)..(from + len).min(samples.len()).max(from.min(samples.len() - 1) + 1);
            let deal = Deal::new(&samples, own.clone(), batch);
            let of_parts: Vec<Vec<usize>> = own.clone().map(|c| (0..samples[c]).map(|i| 100 * c + i).collect()).collect();
            let mut order = Vec::new();
            deal.order(&of_parts, &mut order);
            prop_assert_eq!(order.len(), own.clone().map(|c| samples[c]).sum::<usize>());
            for (k, taken) in sorted.chunks(batch).enumerate() {
                prop_assert_eq!(deal.batch_samples(k), taken.len());
                for (part, c) in own.clone().enumerate() {
                    let expected: Vec<usize> = taken.iter().filter(|t| t.1 == c).map(|t| 100 * c + t.2).collect();
                    prop_assert_eq!(&order[deal.chunk(k, part)], &expected);
                }
            }
        }

        #[test]
        fn parts_of_neighbouring_parts_are_those_of_the_whole(len in 0_usize..200, ranks in 1_usize..6, each in 1_usize..6) {
            let parts = ranks * each;
            for rank in 0..ranks {
                let (start, end) = (part(len, parts, rank * each).start, part(len, parts, rank * each + each - 1).end);
                prop_assert_eq!(&(start..end), &part_of_rank(len, parts, rank, ranks));
                for j in 0..each {
                    let within = part(end - start, each, j);
                    prop_assert_eq!(start + within.start..start + within.end, part(len, parts, rank * each + j));
                }
            }
        }
    }
}
