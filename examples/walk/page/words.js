// The equation of each step and what it says, in a sentence that a screen reader also gets.

const relu = (x) => `ReLU(${x})`;
const mask = (t) => (state.rung === 4 ? `1[${upper.z}[${t}] &gt; 0]` : `1[${z(t)} &gt; 0]`);

function equation({ what, t }) {
  const batch = state.rung === 4;
  const Z = (t) => (batch ? `${upper.z}[${t}]` : z(t));
  const U = (t) => (batch ? `${upper.u}[${t}]` : u(t));
  const D = (t) => (batch ? upperDelta(t) : delta(t));
  switch (what) {
    case "input":
      return batch ? `${upper.z}[0] = <i>X</i>` : `${z(0)} = <i>x</i>`;
    case "layer":
      return (
        (batch
          ? `${U(t + 1)} = ${Z(t)} ${transposed(w(t))}${hasConstant(t) ? ` + 1 ${transposed(c(t))}` : ""}`
          : `${U(t + 1)} = ${w(t)} ${Z(t)}${hasConstant(t) ? ` + ${c(t)}` : ""}`) + `, &ensp;${Z(t + 1)} = ${relu(U(t + 1))}`
      );
    case "head":
      return batch ? `<i>Ŷ</i> = ${Z(t)} <i>α</i> + <i>b</i>` : `${yHat} = ${transposed("<i>α</i>")} ${Z(t)} + <i>b</i>`;
    case "loss":
      return `${D(t + 1)} = ${by("ℓ", batch ? "<i>Ŷ</i>" : yHat)}`;
    case "delta":
      if (t === head()) return `${D(t)} = (${D(t + 1)} ${batch ? transposed("<i>α</i>") : "<i>α</i>"}) ⊙ ${mask(t)}`;
      return batch ? `${D(t)} = (${D(t + 1)} ${w(t)}) ⊙ ${mask(t)}` : `${D(t)} = (${transposed(w(t))} ${D(t + 1)}) ⊙ ${mask(t)}`;
    case "gradient":
      return batch
        ? `<i>G</i>[${t}] = 1/<i>B</i> ${transposed(D(t + 1))} ${Z(t)}`
        : `${by("ℓ", w(t))} = ${D(t + 1)} ${transposed(z(t))}${hasConstant(t) ? `, &ensp;${by("ℓ", c(t))} = ${D(t + 1)}` : ""}`;
    case "update":
      return `${w(t)} ← ${w(t)} − <i>η</i> <i>G</i>[${t}]`;
    default:
      return chainEquation(what, t);
  }
}

function chainEquation(what, t) {
  const dW = (x) => by(x, "<i>w</i>");
  switch (what) {
    case "edge":
      return t === head() ? `${by(yHat, w(t, 0, "j"))} = ${z(t, "j")}` : `${by(u(t + 1, "i"), w(t, "i", "j"))} = ${z(t, "j")}`;
    case "spread":
      return `${dW(u(2, "k"))} = ${w(1, "k", "i")} ${dW(z(1, "i"))}`;
    case "out":
      return t === 0 ? `${dW(yHat)} = Σ<sub>k</sub> ${w(2, 0, "k")} ${dW(z(2, "k"))}` : `${dW(yHat)} = ${w(2, 0, "i")} ${dW(z(2, "i"))}`;
    case "product":
      return `${dW("ℓ")} = ${by("ℓ", yHat)} ${dW(yHat)}`;
    default:
      return `${by("ℓ", "<i>θ</i>")}, edge by edge`;
  }
}

function sentence({ what, t, neuron }) {
  const n = neuronAt(what === "delta" ? t : t + 1);
  const p = (path) => num(path);
  const batch = state.rung === 4;
  const who = batch ? "each sample of the batch" : "the sample";
  switch (what) {
    case "input":
      return batch ? "The samples of the batch are the rows of a matrix; all go through the network at once." : "The sample enters: the first layer's outputs are the sample itself.";
    case "layer": {
      const i = neuron === null ? `For ${who}, each neuron of layer ${t + 1}` : `Neuron ${n + 1} of layer ${t + 1}`;
      return `${i} adds up its inputs, weighted${hasConstant(t) ? ", and its constant" : ""}. What is positive passes; what is not becomes 0. Here ${u(t + 1, n)} = ${p(ofSample(`u.${t}.${n}`))}, so ${z(t + 1, n)} = ${p(ofSample(`z.${t + 1}.${n}`))}.`;
    }
    case "head":
      return `The output is linear: no ReLU follows it. ${yHat} = ${p(ofSample("y_hat"))}, and ${sample().y ? "1" : "0"} is what it should say${trace().loss === "logistic" ? ": the more positive, the surer of class 1" : ""}.`;
    case "loss":
      return `How wrong is it? ℓ = ${p(ofSample("loss"))}. And which way should ${yHat} move? ${by("ℓ", yHat)} = ${p(ofSample("dy"))}: ${sample().dy < 0 ? "up" : sample().dy > 0 ? "down" : "nowhere"}.`;
    case "delta": {
      const j = neuron === null ? `Each neuron of layer ${t}` : `Neuron ${n + 1} of layer ${t}`;
      const off = !sample().mask[t - 1][n];
      return `${j} collects what the layer above sends back along its edges, weighted as on the way forward. ${off ? `Here ${u(t, n)} ≤ 0: the neuron was off, and ${delta(t, n)} = 0` : `Here ${delta(t, n)} = ${p(ofSample(`delta.${t - 1}.${n}`))}`}.`;
    }
    case "gradient":
      return `${state.rung === 2 && t < head() ? `For the edges into neuron ${n + 1}` : "For each edge"}, the derivative is what comes back at its upper end times what went in at its lower end: ${by("ℓ", w(t, "i", "j"))} = ${delta(t + 1, "i")} ${z(t, "j")}.${batch ? " The product of the matrices also adds up over the samples." : ""}`;
    case "update": {
      const own = edgeOf(t);
      const many = batch ? "" : ` The mean is over the ${stop().batch.length} samples of the batch, of which the walk has shown the first.`;
      return `Each weight takes a small step against its gradient: ${edgeName(own)} from ${p(here(edgePath("theta", own)))} to ${p(here(edgePath("theta_after", own)))}.${many}`;
    }
    default:
      return chainSentence(what, t);
  }
}

function chainSentence(what, t) {
  const name = edgeName();
  switch (what) {
    case "edge":
      return t === head()
        ? `${name} touches the output directly: a little more of it changes ${yHat} by its ${edge().j === null ? "constant, 1" : "input"}.`
        : `Take one weight, ${name}, alone. A little more of it changes ${u(t + 1, edge().i)} by what comes in at its lower end, and passes if that neuron is on${isOn(t + 1, edge().i) ? ", as it is" : "; it is off"}.`;
    case "spread":
      return "From that neuron, the change spreads along every edge to the layer above: as many paths as there are neurons. Neurons that are off end theirs.";
    case "out":
      return t === 0 ? `All paths meet at the output, and their sum is ${d(yHat)} = ${num(chainOut())}.` : `One path leads on to the output: ${d(yHat)} = ${num(chainOut())}.`;
    case "product":
      return `By the chain rule, the loss changes by ${d("ℓ")} = ${num(here(edgePath("naive.gradient")))}. For this one weight, that took ${number(costOfEdge(), "plain", String)} multiplications.`;
    default:
      return `All of it again for every other weight, though their paths overlap: ${number("counts.naive.all", "plain", String)} multiplications. To share what overlaps is backpropagation.`;
  }
}

const costOfEdge = () => `counts.naive.${edge().j === null ? "constant" : "edge"}.${edge().t}`;

/// The files of the crate that compute this step as loops and as matrices.
function files({ what }) {
  const forward = phaseOf(what) === "forward" && what !== "loss";
  if (what === "update") return ["", state.rung === 4 ? "train/sgd.rs" : ""];
  if (what === "loss") return ["network/loss.rs", ""];
  const loops = forward ? "trace.rs" : ["naive.rs", "per_neuron.rs", "per_neuron.rs", ""][state.rung - 1];
  const matrices = state.rung === 4 ? "batched.rs" : state.rung === 1 && !forward ? "" : "matrix_vector.rs";
  return [state.rung === 4 ? "" : loops, matrices].map((file) => file && `rungs/${file}`);
}

/// The multiplications of this step and so far.
function cost() {
  const { what, count } = step();
  const table = ["forward", "per_neuron", "matrix_vector", "batched"][state.rung - 1];
  const plainNumber = (path) => number(path, "plain", String);
  if (what === "update") return state.rung === 4 ? "no multiplication of its own: the engine makes it part of the product that gives <i>G</i>" : "";
  if (count === undefined) {
    if (what === "all") return `<b>${plainNumber("counts.naive.all")}</b> multiplications for all edges`;
    return `<b>${plainNumber(costOfEdge())}</b> multiplications for this edge`;
  }
  const k = state.step;
  return `<b>${plainNumber(`counts.${table}.${k}.count`)}</b> multiplication${count === 1 ? "" : "s"}, ${plainNumber(`counts.${table}.${k}.total`)} so far`;
}

function totals() {
  const names = ["naive", "per_neuron", "matrix_vector", "batched"];
  const { counts } = trace();
  const most = Math.max(...names.map((name) => counts.totals[name]));
  const B = stop().batch.length;
  const rowsOf = names.map((name, k) => {
    const count = counts.totals[name];
    return (
      `<tr class="${k + 1 === state.rung ? "current" : ""}"><th scope="row">${k + 1} ${rungNames[k][0]}</th><td class="how">${rungNames[k][1]}</td>` +
      `<td class="count">${number(`counts.totals.${name}`, "plain", String)}</td><td class="of">${k === 3 ? `${B} samples` : "1 sample"}</td>` +
      `<td class="bar" aria-hidden="true"><span style="width:${(100 * count) / most}%">${"<b></b>".repeat(k === 3 ? B : 1)}</span></td></tr>`
    );
  });
  return (
    `<table><thead><tr><th scope="col">Way</th><th scope="col" class="how"></th><th scope="col" class="count">Multiplications</th><th scope="col" class="of">for</th><td></td></tr></thead><tbody>${rowsOf.join("")}</tbody></table>` +
    `<p>Forward pass, loss and gradient of this network, ${number("counts.edges", "plain", String)} edges and ${number("counts.nodes", "plain", String)} nodes with those of the constants, counted in the code as it ran. Edge by edge, the cost grows with the square of the network's size; the other three ways it grows with the size itself. The second and the third make the same multiplications and their results have the same bits; the fourth also scales each ${by("ℓ", yHat)} by 1/<i>B</i>. What matrices change is the speed at which a processor makes them.</p>`
  );
}
