//! The fixed tree in which the gradients of C chunks are added up.
//!
//! ```text
//! node(a..b) = the gradient of chunk a                     b = a + 1
//!            = node(a..m) + node(m..b)                     m = a + ⌈(b − a)/2⌉
//! ```
//!
//! It depends on C alone. A rank has neighbouring chunks; it computes the largest nodes that have
//! only these, and what is above them is added up between the ranks. So the sum has the same bits
//! for any number of ranks.

use std::ops::Range;

use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;

/// Some chunks in a row.
pub(crate) type Node = Range<usize>;

/// The two nodes whose sum is this one.
fn halves(node: &Node) -> (Node, Node) {
    let middle = node.start + node.len().div_ceil(2);
    (node.start..middle, middle..node.end)
}

/// The largest nodes of the tree below `node` whose chunks are all among `own`, in order.
pub(crate) fn nodes_of(node: Node, own: &Range<usize>, nodes: &mut Vec<Node>) {
    if own.start <= node.start && node.end <= own.end {
        nodes.push(node);
    } else if node.start < own.end && own.start < node.end {
        let (left, right) = halves(&node);
        nodes_of(left, own, nodes);
        nodes_of(right, own, nodes);
    }
}

/// The number of levels below a node of so many chunks, itself included.
pub(crate) fn levels(chunks: usize) -> usize {
    chunks.next_power_of_two().ilog2() as usize + 1
}

/// The sum of a node into the first of the buffers, of which there is one for each level;
/// `gradient(c, into)` writes that of a chunk.
pub(crate) fn sum_of_chunks<F: Scalar>(
    node: Node,
    buffers: &mut [Parameters<F>],
    gradient: &mut impl FnMut(usize, &mut Parameters<F>),
) {
    if node.len() == 1 {
        gradient(node.start, &mut buffers[0]);
        return;
    }
    let (left, right) = halves(&node);
    sum_of_chunks(left, buffers, gradient);
    let (sum, below) = buffers.split_first_mut().expect("one for each level");
    sum_of_chunks(right, below, gradient);
    sum.slices_mut().zip(below[0].slices()).for_each(|(sum, right)| add(sum, right));
}

/// The sum of a node into `sum`, from those of the nodes in `given`; `spare` has room for as many
/// numbers on each further level.
pub(crate) fn sum_of_nodes<'n, F: Scalar>(
    node: Node,
    given: &impl Fn(&Node) -> Option<&'n [F]>,
    sum: &mut [F],
    spare: &mut [F],
) {
    if let Some(numbers) = given(&node) {
        sum.copy_from_slice(numbers);
        return;
    }
    let (left, right) = halves(&node);
    if let (Some(left), Some(right)) = (given(&left), given(&right)) {
        sum.iter_mut().zip(left.iter().zip(right)).for_each(|(sum, (&left, &right))| *sum = left + right);
        return;
    }
    sum_of_nodes(left, given, sum, spare);
    if let Some(numbers) = given(&right) {
        add(sum, numbers);
        return;
    }
    let (of_right, below) = spare.split_at_mut(sum.len());
    sum_of_nodes(right, given, of_right, below);
    add(sum, of_right);
}

fn add<F: Scalar>(sum: &mut [F], other: &[F]) {
    sum.iter_mut().zip(other).for_each(|(sum, &other)| *sum += other);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes of all ranks are all chunks, and their sum by the tree is that of the chunks.
    #[test]
    fn nodes_of_ranks_add_up_to_the_tree() {
        for chunks in 1..40_usize {
            let number = |chunk: usize| 1.0_f32 / (chunk * chunk + 1) as f32;
            let mut whole = vec![Parameters::<f32>::zeros(&[1, 1], Default::default()).unwrap(); levels(chunks)];
            sum_of_chunks(0..chunks, &mut whole, &mut |chunk, into| into.iter_mut().for_each(|p| *p = number(chunk)));
            for ranks in (1..=chunks).filter(|ranks| chunks % ranks == 0) {
                let each = chunks / ranks;
                let mut given: Vec<(Node, [f32; 1])> = Vec::new();
                for rank in 0..ranks {
                    let mut nodes = Vec::new();
                    nodes_of(0..chunks, &(rank * each..(rank + 1) * each), &mut nodes);
                    assert_eq!(nodes.iter().map(Node::len).sum::<usize>(), each);
                    for node in nodes {
                        let mut buffers = whole.clone();
                        let mut gradient =
                            |chunk, into: &mut Parameters<f32>| into.iter_mut().for_each(|p| *p = number(chunk));
                        sum_of_chunks(node.clone(), &mut buffers, &mut gradient);
                        given.push((node, [buffers[0].alpha()[(0, 0)]]));
                    }
                }
                let find = |node: &Node| given.iter().find(|(given, _)| given == node).map(|(_, sum)| sum.as_slice());
                let (mut sum, mut spare) = ([0.0], vec![0.0; levels(chunks)]);
                sum_of_nodes(0..chunks, &find, &mut sum, &mut spare);
                assert_eq!(sum[0].to_bits(), whole[0].alpha()[(0, 0)].to_bits(), "{ranks} ranks, {chunks} chunks");
            }
        }
    }
}
