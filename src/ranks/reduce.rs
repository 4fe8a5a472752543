//! The gradient over all chunks of a batch, on every rank, from the chunks of each.
//!
//! Exactly: each rank adds up what it can of the tree, and sends to every rank r the r-th part of
//! the numbers. Rank r completes the tree for its part, and all parts go to all ranks. Where every
//! rank has one node, that moves as much as the ring of an all-reduce: each rank sends and receives
//! twice its gradient, less one part each time.
//!
//! Fast: one gradient of all chunks of a rank, added up by the group in an order of its own, the
//! layers above while those below are computed.

use std::ops::Range;

use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::ranks::deal::part;
use crate::ranks::group::{Collective, Sums};
use crate::ranks::tree::{Node, levels, nodes_of, sum_of_chunks, sum_of_nodes};

/// Which sums the ranks make of their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// In the fixed tree.
    Exact,
    /// In any order.
    Fast,
}

/// The buffers of a reduction.
#[derive(Debug)]
pub(crate) struct Reducer<F> {
    chunks: usize,
    reduction: Reduction,
    /// The nodes that each rank computes.
    nodes: Vec<Vec<Node>>,
    /// Gradients of chunks and of nodes, one for each level.
    buffers: Vec<Parameters<F>>,
    /// For each other rank, its part of each own node.
    sent: Vec<F>,
    /// Of each rank, this one among them, the own part of each of its nodes.
    received: Vec<F>,
    /// The own part of the sum, and room for the levels of the tree.
    sum: Vec<F>,
    spare: Vec<F>,
    /// The gradient, in the order of θ.
    pub(crate) g: Vec<F>,
}

/// Copies some of the numbers, counted in the order of θ.
fn copy_range<F: Scalar>(from: &Parameters<F>, range: Range<usize>, into: &mut [F]) {
    let (mut start, mut rest) = (0, into);
    for numbers in from.slices() {
        let end = start + numbers.len();
        let shared = range.start.clamp(start, end)..range.end.clamp(start, end);
        let (to, after) = rest.split_at_mut(shared.len());
        to.copy_from_slice(&numbers[shared.start - start..shared.end - start]);
        (start, rest) = (end, after);
    }
}

impl<F: Scalar> Reducer<F> {
    /// Buffers for gradients that are shaped like θ.
    pub(crate) fn new(group: &impl Collective<F>, chunks: usize, reduction: Reduction, theta: &Parameters<F>) -> Self {
        let (ranks, count) = (group.ranks(), theta.count());
        let of_rank = |rank| {
            let (mut nodes, each) = (Vec::new(), chunks / ranks);
            nodes_of(0..chunks, &(rank * each..(rank + 1) * each), &mut nodes);
            nodes
        };
        let nodes: Vec<_> = (0..ranks).map(of_rank).collect();
        let own = &nodes[group.rank()];
        let most = own.iter().map(Node::len).max().expect("a rank has chunks");
        let is_exact = reduction == Reduction::Exact;
        let part = if is_exact && ranks > 1 { part(count, ranks, group.rank()).len() } else { 0 };
        // Of each node, the numbers that no other rank gets.
        let kept = if ranks > 1 { part } else { count };
        let numbers = |of_exact: usize, of_fast: usize| vec![F::ZERO; if is_exact { of_exact } else { of_fast }];
        Self {
            chunks,
            reduction,
            buffers: vec![theta.zeros_like(); if is_exact { levels(most) } else { 1 }],
            sent: numbers((count - kept) * own.len(), count),
            received: numbers(part * nodes.iter().map(Vec::len).sum::<usize>(), 0),
            sum: numbers(part, 0),
            spare: numbers(part * levels(chunks), 0),
            g: vec![F::ZERO; count],
            nodes,
        }
    }

    /// Whether this is for the same reduction of gradients of the same shape.
    pub(crate) fn fits(&self, chunks: usize, reduction: Reduction, theta: &Parameters<F>) -> bool {
        (self.chunks, self.reduction) == (chunks, reduction) && self.buffers[0].has_shape_of(theta)
    }

    /// The part of a reduction that a rank does by itself. `gradient(c, into)` writes the gradient
    /// of chunk c.
    pub(crate) fn add_up_own(
        &mut self,
        group: &impl Collective<F>,
        mut gradient: impl FnMut(usize, &mut Parameters<F>),
    ) {
        let Self { nodes, buffers, sent, received, g, .. } = self;
        let (own, ranks, count) = (group.rank(), group.ranks(), g.len());
        let before: usize = nodes[..own].iter().map(Vec::len).sum();
        for (j, node) in nodes[own].iter().enumerate() {
            sum_of_chunks(node.clone(), buffers, &mut gradient);
            if ranks == 1 {
                copy_range(&buffers[0], 0..count, g);
                continue;
            }
            let mut start = 0;
            for rank in 0..ranks {
                let numbers = part(count, ranks, rank);
                let len = numbers.len();
                if rank == own {
                    copy_range(&buffers[0], numbers, &mut received[(before + j) * len..][..len]);
                } else {
                    copy_range(&buffers[0], numbers, &mut sent[start + j * len..][..len]);
                    start += len * nodes[own].len();
                }
            }
        }
    }

    /// All of a reduction whose sums may be made in any order. `gradient(into, sums)` writes that
    /// of all chunks of this rank into the first, for its own use, and gives it to the second; or,
    /// on every rank, it returns false and gives nothing.
    pub(crate) fn add_up_meanwhile(
        &mut self,
        group: &impl Collective<F>,
        mut gradient: impl FnMut(&mut Parameters<F>, &mut dyn Sums<F>) -> bool,
    ) {
        let Self { buffers, sent, g, .. } = self;
        group.add_up(sent, g, &mut |sums| gradient(&mut buffers[0], sums));
    }

    /// Completes g on every rank.
    pub(crate) fn add_up_ranks(&mut self, group: &impl Collective<F>) {
        let Self { nodes, sent, received, sum, spare, g, .. } = self;
        let (ranks, own, count) = (group.ranks(), group.rank(), g.len());
        if ranks == 1 {
            return;
        }
        let counts: Vec<usize> = (0..ranks).map(|rank| part(count, ranks, rank).len()).collect();
        let mut sent_to: Vec<usize> = counts.iter().map(|count| count * nodes[own].len()).collect();
        sent_to[own] = 0;
        let received_from: Vec<usize> = nodes.iter().map(|nodes| counts[own] * nodes.len()).collect();
        group.exchange(sent, &sent_to, received, &received_from);
        let all = || nodes.iter().flatten();
        let place = |node: &Node| all().position(|given| given == node);
        let given = |node: &Node| place(node).map(|at| &received[at * counts[own]..(at + 1) * counts[own]]);
        sum_of_nodes(0..self.chunks, &given, sum, spare);
        group.concatenate(sum, g, &counts);
    }
}
