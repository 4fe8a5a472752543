//! The steps of a walk through each rung, and the multiplications of each step: counted in the
//! crate's own code, which runs with numbers that count.
//!
//! What one layer costs is counted on networks that consist of that layer alone, or of all layers
//! from it on. Sums of these are compared with the counts of whole gradients.

use gemmprop::rungs::count::{Counted, multiplications};
use gemmprop::rungs::{Trace, batched, matrix_vector, naive, per_neuron};
use gemmprop::{Bias, Loss, Mlp, Parameters, Products, Result};
use ndarray::{Array1, Array2, ArrayView2};
use serde::Serialize;

/// A step of the walk: an equation, or one line of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// `input`, `layer`, `head`, `loss`, `delta`, `gradient` or `update`.
    what: &'static str,
    /// The t of `z[t]`, `w[t]` or `δ[t]`.
    t: usize,
    /// The neuron that is computed, or none for all of a layer.
    neuron: Option<usize>,
    /// The multiplications of this step, and of all steps up to it.
    count: u64,
    total: u64,
}

/// What the edge-by-edge method costs.
#[derive(Debug, Serialize)]
pub(crate) struct EdgeByEdge {
    /// The chain rule from one edge of `w[t]`, or from a constant's, to ∂ℓ/∂w.
    edge: Vec<u64>,
    constant: Vec<u64>,
    /// ∂ℓ/∂w of all edges, without the forward pass and the loss.
    all: u64,
}

/// The multiplications of ∇θ ℓ, as the rungs make them.
#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    /// Of one sample.
    naive: u64,
    per_neuron: u64,
    matrix_vector: u64,
    /// Of a batch.
    batched: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    edges: usize,
    nodes: usize,
    parameters: usize,
    forward: Vec<Step>,
    per_neuron: Vec<Step>,
    matrix_vector: Vec<Step>,
    batched: Vec<Step>,
    naive: EdgeByEdge,
    totals: Totals,
}

/// Writes ∂ŷ_k/∂θ, summed over the samples in rows.
type Rung = fn(&Mlp<Counted>, ArrayView2<Counted>, &mut Parameters<Counted>) -> Result<()>;

const NAIVE: Rung = |mlp, x, g| naive::output_gradient(mlp, x.row(0), 0, g).map(drop);
const PER_NEURON: Rung = |mlp, x, g| per_neuron::output_gradient(mlp, x.row(0), 0, g).map(drop);
const MATRIX_VECTOR: Rung = |mlp, x, g| matrix_vector::output_gradient(mlp, x.row(0), 0, g).map(drop);
const BATCHED: Rung = |mlp, x, g| batched::output_gradient(mlp, x, 0, g);

fn count(work: impl FnOnce() -> Result<()> + Send) -> Result<u64> {
    let (done, count) = multiplications(work);
    done.map(|()| count)
}

fn network(widths: &[usize], bias: Bias) -> Result<Mlp<Counted>> {
    Mlp::he(widths, bias, 1)?.with_products(Products::Native)
}

fn samples(batch: usize, width: usize) -> Array2<Counted> {
    Array2::from_shape_fn((batch, width), |(row, j)| Counted((row + 2 * j) as f64 - 1.0))
}

/// The forward pass of networks with these widths.
fn forward(widths: &[usize], batch: usize) -> Result<u64> {
    let (mlp, x) = (network(widths, Bias::Input)?, samples(batch, widths[0]));
    let by_batch = count(|| batched::forward(&mlp, x.view()).map(drop))?;
    let by_neuron = count(|| Trace::new(&mlp, x.row(0)).map(drop))?;
    let by_matrix = count(|| matrix_vector::forward(&mlp, x.row(0)).map(drop))?;
    assert_eq!((by_neuron * batch as u64, by_neuron), (by_batch, by_matrix), "forward {widths:?}");
    Ok(by_batch)
}

/// The backward pass alone.
fn backward(rung: Rung, widths: &[usize], bias: Bias, batch: usize) -> Result<u64> {
    let (mlp, x) = (network(widths, bias)?, samples(batch, widths[0]));
    Ok(count(|| rung(&mlp, x.view(), &mut mlp.zero_gradient()))? - forward(widths, batch)?)
}

/// What a walk through whole layers costs: forward and gradient of each layer t = 0 … T, and δ[t]
/// of t = 1 … T.
struct Layers {
    forward: Vec<u64>,
    delta: Vec<u64>,
    gradient: Vec<u64>,
}

fn layers(rung: Rung, widths: &[usize], batch: usize) -> Result<Layers> {
    let head = widths.len() - 2;
    let mut found = Layers { forward: Vec::new(), delta: vec![0], gradient: Vec::new() };
    for t in 0..=head {
        let alone = &widths[t..t + 2];
        found.forward.push(forward(alone, batch)?);
        found.gradient.push(backward(rung, alone, Bias::Input, batch)?);
        if t > 0 {
            let from = |t: usize| backward(rung, &widths[t..], Bias::Input, batch);
            found.delta.push(from(t - 1)? - found.gradient[t - 1] - from(t)?);
        }
    }
    Ok(found)
}

/// The steps of one walk, with a running total.
struct Walk {
    steps: Vec<Step>,
    total: u64,
}

impl Walk {
    fn add(&mut self, what: &'static str, t: usize, count: u64) {
        self.total += count;
        self.steps.push(Step { what, t, neuron: None, count, total: self.total });
    }

    /// One step for each of `neurons`, which have equal parts in the multiplications.
    fn add_each(&mut self, what: &'static str, t: usize, count: u64, neurons: usize) {
        assert_eq!(count % neurons as u64, 0, "{what} {t}: each of {neurons} neurons costs the same");
        for neuron in 0..neurons {
            self.add(what, t, count / neurons as u64);
            self.steps.last_mut().expect("a step").neuron = Some(neuron);
        }
    }
}

/// A walk through the forward pass, and on through backward pass and update if there is a rung for
/// it. `single` takes the neurons of a layer one by one.
fn walk(widths: &[usize], rung: Option<Rung>, batch: usize, single: bool, of_loss: u64) -> Result<Walk> {
    let head = widths.len() - 2;
    let costs = layers(rung.unwrap_or(PER_NEURON), widths, batch)?;
    let mut walk = Walk { steps: Vec::new(), total: 0 };
    let add = |walk: &mut Walk, what, t: usize, count, neurons: usize| match single {
        true => walk.add_each(what, t, count, neurons),
        false => walk.add(what, t, count),
    };
    walk.add("input", 0, 0);
    for t in 0..head {
        add(&mut walk, "layer", t, costs.forward[t], widths[t + 1]);
    }
    walk.add("head", head, costs.forward[head]);
    walk.add("loss", head, of_loss);
    if rung.is_none() {
        return Ok(walk);
    }
    for t in (0..=head).rev() {
        if t == head {
            walk.add("gradient", t, costs.gradient[t]);
        } else {
            add(&mut walk, "gradient", t, costs.gradient[t], widths[t + 1]);
        }
        if t > 0 {
            add(&mut walk, "delta", t, costs.delta[t], widths[t]);
        }
    }
    let backward_done = walk.total;
    for t in 0..=head {
        walk.add("update", t, 0);
    }
    assert_eq!(walk.total, backward_done);
    Ok(walk)
}

fn edge_by_edge(widths: &[usize], parameters: u64) -> Result<EdgeByEdge> {
    let head = widths.len() - 2;
    let from = |t: usize, bias| backward(NAIVE, &widths[t..], bias, 1);
    // ∂ŷ/∂w of all edges of the model; the derivative of the loss then multiplies each.
    let mut found = EdgeByEdge { edge: vec![], constant: vec![], all: from(0, Bias::Input)? + parameters };
    let by_loss = 1;
    for t in 0..=head {
        let above = if t < head { from(t + 1, Bias::None)? } else { 0 };
        let each = |count: u64, edges: usize| {
            assert_eq!(count % edges as u64, 0, "all edges of w[{t}] cost the same");
            count / edges as u64
        };
        found.edge.push(each(from(t, Bias::None)? - above, widths[t] * widths[t + 1]) + by_loss);
        let with_constant = from(t, Bias::Input)? - from(t, Bias::None)?;
        found.constant.push(each(with_constant, widths[t + 1]) + by_loss);
    }
    Ok(found)
}

pub(crate) fn counts<L: Loss<Counted, Target = Counted>>(widths: &[usize], batch: usize, loss: &L) -> Result<Counts> {
    let mlp = network(widths, Bias::Input)?;
    let (edges, nodes) = mlp.graph_size();
    let x = samples(batch, widths[0]);
    let y = Array1::from_elem(batch, Counted(1.0));
    let (x_0, y_0, g) = (x.row(0), &[Counted(1.0)][..], || mlp.zero_gradient());
    let of_loss = multiplications(|| loss.value_and_derivative(&[Counted(0.5)], y_0, &mut [Counted(0.0)])).1;
    let totals = Totals {
        naive: count(|| naive::loss_gradient(&mlp, x_0, y_0, loss, &mut g()).map(drop))?,
        per_neuron: count(|| per_neuron::loss_gradient(&mlp, x_0, y_0, loss, &mut g()).map(drop))?,
        matrix_vector: count(|| matrix_vector::loss_gradient(&mlp, x_0, y_0, loss, &mut g()).map(drop))?,
        batched: count(|| batched::loss_gradient(&mlp, x.view(), y.view(), loss, &mut g()).map(drop))?,
    };
    // Each ∂ℓ/∂ŷ is multiplied by 1/B, which makes the sum over the batch a mean.
    let of_losses = batch as u64 * (of_loss + 1);
    let forward = walk(widths, None, 1, false, of_loss)?;
    let per_neuron = walk(widths, Some(PER_NEURON), 1, true, of_loss)?;
    let matrix_vector = walk(widths, Some(MATRIX_VECTOR), 1, false, of_loss)?;
    let batched = walk(widths, Some(BATCHED), batch, false, of_losses)?;
    let naive = edge_by_edge(widths, mlp.parameters().count() as u64)?;
    let walked = [forward.total + naive.all, per_neuron.total, matrix_vector.total, batched.total];
    assert_eq!(walked, [totals.naive, totals.per_neuron, totals.matrix_vector, totals.batched], "steps add up");
    Ok(Counts {
        edges,
        nodes,
        parameters: mlp.parameters().count(),
        forward: forward.steps,
        per_neuron: per_neuron.steps,
        matrix_vector: matrix_vector.steps,
        batched: batched.steps,
        naive,
        totals,
    })
}
