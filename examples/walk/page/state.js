"use strict";

// The recorded runs, and where on the page one is. Nothing here computes a number of a network:
// what is shown is looked up in the traces by its path, such as stops.3.theta.w.0.1.1.

const traces = JSON.parse(document.getElementById("trace").textContent);
const rungNames = [
  ["Edge by edge", "the chain rule for each weight on its own"],
  ["Neuron by neuron", "one sweep back, loops over the edges"],
  ["Matrix–vector", "the same, a layer at a time"],
  ["Batched GEMM", "the same, all samples of a batch at once"],
];

const state = {
  problem: 0,
  rung: 2,
  stop: 0,
  step: 0,
  // What the user has pointed at: an edge { t, i, j }, w[t] from neuron j to neuron i, or its
  // constant where j is null; a neuron of the layer at hand; and a sample of the batch.
  edge: null,
  neuron: null,
  sample: 0,
};

const trace = () => traces[state.problem];
const stop = () => trace().stops[state.stop];
/// The paths of the training step, and of the sample at hand, which is the first but for rung 4.
const here = (path) => `stops.${state.stop}.${path}`;
const sampleIndex = () => (state.rung === 4 ? state.sample : 0);
const ofSample = (path) => here(`batch.${sampleIndex()}.${path}`);
const sample = () => stop().batch[sampleIndex()];
const lookUp = (path) => path.split(".").reduce((at, key) => at[key], trace());

const widths = () => trace().widths;
/// T, the number of hidden layers, and so the index of alpha among the matrices.
const head = () => widths().length - 2;
const range = (n) => Array.from({ length: n }, (_, i) => i);
const hasConstant = (t) => stop().theta.c[t].length > 0;

/// The steps of the chosen way. Those of the first are a forward pass and the chain of one edge.
function steps() {
  const counts = trace().counts;
  if (state.rung > 1) {
    return counts[["per_neuron", "matrix_vector", "batched"][state.rung - 2]];
  }
  const chain = { 0: ["edge", "spread", "out"], 1: ["edge", "out"], 2: ["edge"] }[edge().t];
  return [
    ...counts.forward,
    ...[...chain, "product", "all"].map((what) => ({ what, t: edge().t, neuron: null })),
    ...range(head() + 1).map((t) => ({ what: "update", t, neuron: null })),
  ];
}

const step = () => steps()[state.step];

const phases = { forward: "Forward pass", backward: "Backward pass", update: "Update" };
function phaseOf(what) {
  if (["input", "layer", "head", "loss"].includes(what)) return "forward";
  return what === "update" ? "update" : "backward";
}

/// Whether the walk has come past this step, or stands on it: then its numbers are shown.
function done(what, t, neuron = null) {
  return steps()
    .slice(0, state.step + 1)
    .some((s) => s.what === what && s.t === t && (neuron === null || s.neuron === null || s.neuron === neuron));
}

/// The neuron of this layer whose line of loops is written out: unless one is chosen, the first
/// that is on.
function neuronAt(layer) {
  if (layer > head()) return 0;
  const chosen = step().neuron ?? state.neuron;
  return chosen === null ? Math.max(sample().mask[layer - 1].indexOf(1), 0) : Math.min(chosen, widths()[layer] - 1);
}

/// The edge of the first way: unless one is chosen, the first of w[0] that the output feels.
function edge() {
  if (state.edge) return state.edge;
  const felt = stop().naive.dy.w[0].flatMap((row, i) => row.map((v, j) => ({ t: 0, i, j, v }))).find(({ v }) => v !== 0);
  return felt ? { t: 0, i: felt.i, j: felt.j } : { t: 0, i: 0, j: 0 };
}

/// The edge of w[t] of which a gradient or an update is written out.
function edgeOf(t) {
  if (state.edge?.t === t) return state.edge;
  const i = neuronAt(t + 1);
  const inputs = sample().z[t];
  return { t, i, j: Math.max(inputs.findIndex((z) => z !== 0), 0) };
}
