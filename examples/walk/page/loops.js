// The loop form of each step: the loops as text, and their lines with the numbers of the current
// neuron. Products and sums are left as they are written; results are those of the trace.

const code = (...lines) => `<pre class="code">${lines.join("\n")}</pre>`;
const rows = (...lines) => `<div class="sums">${lines.flat(Infinity).filter(Boolean).join("")}</div>`;
/// A line of arithmetic: what it begins with, the numbers, and what they are called.
const sum = (lead, numbers, names = "", kind = "") =>
  `<div class="${kind}"><span class="lead">${lead}</span><span>${numbers}</span><span class="names">${names}</span></div>`;
const product = (a, b) => `${factor(a)} · ${factor(b)}`;
const upTo = (n) => `1 … ${n}`;
const key = (word) => `<b>${word}</b>`;
/// The loop over the samples of a batch around the others.
const overBatch = (...lines) =>
  state.rung < 4 ? lines : [`${key("for")} b ${key("in")} ${upTo(stop().batch.length)}`, ...lines.map((l) => `  ${l}`)];
const heading = (text) => `<p class="which">${text}${state.rung === 4 ? `, sample ${state.sample + 1}` : ""}:</p>`;

const loopForms = {
  input() {
    const n = widths()[0];
    return (
      code(...overBatch(`${key("for")} j ${key("in")} ${upTo(n)}`, `  ${z(0, "j")} ← <i>x</i><sub>j</sub>`)) +
      heading("Row " + number(ofSample("row"), "row", (v) => String(v + 1)) + " of the data") +
      rows(range(n).map((j) => sum(`${z(0, j)} =`, num(ofSample(`z.0.${j}`)))))
    );
  },

  layer(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const i = neuronAt(t + 1);
    const start = hasConstant(t) ? [c(t, "i"), num(here(`theta.c.${t}.${i}`)), c(t, i)] : ["0", "0", ""];
    const off = !sample().mask[t][i];
    return (
      code(
        ...overBatch(
          `${key("for")} i ${key("in")} ${upTo(m)}`,
          `  ${u(t + 1, "i")} ← ${start[0]}`,
          `  ${key("for")} j ${key("in")} ${upTo(n)}`,
          `    ${u(t + 1, "i")} ← ${u(t + 1, "i")} + ${w(t, "i", "j")} ${z(t, "j")}`,
          `  ${z(t + 1, "i")} ← ${u(t + 1, "i")} ${key("if")} ${u(t + 1, "i")} &gt; 0 ${key("else")} 0`,
        ),
      ) +
      heading(`Neuron <i>i</i> = ${i + 1}`) +
      rows(
        sum(`${u(t + 1, i)} =`, start[1], start[2]),
        range(n).map((j) => sum("+", product(here(`theta.w.${t}.${i}.${j}`), ofSample(`z.${t}.${j}`)), `${w(t, i, j)} ${z(t, j)}`)),
        sum("=", num(ofSample(`u.${t}.${i}`)), "", "result"),
        sum(`${z(t + 1, i)} =`, num(ofSample(`z.${t + 1}.${i}`)), off ? `${u(t + 1, i)} ≤ 0: the neuron is off` : `${u(t + 1, i)} &gt; 0: the neuron is on`, "result"),
      )
    );
  },

  head(t) {
    const n = widths()[t];
    return (
      code(...overBatch(`${yHat} ← <i>b</i>`, `${key("for")} j ${key("in")} ${upTo(n)}`, `  ${yHat} ← ${yHat} + ${w(t, 0, "j")} ${z(t, "j")}`)) +
      (state.rung === 4 ? heading("The output") : "") +
      rows(
        sum(`${yHat} =`, num(here(`theta.c.${t}.0`)), "<i>b</i>"),
        range(n).map((j) => sum("+", product(here(`theta.w.${t}.0.${j}`), ofSample(`z.${t}.${j}`)), `${w(t, 0, j)} ${z(t, j)}`)),
        sum("=", num(ofSample("y_hat")), "", "result"),
      )
    );
  },

  loss() {
    const [y, guess] = [num(ofSample("y")), num(ofSample("y_hat"))];
    const squared = trace().loss === "squared_error";
    const lines = squared
      ? [`ℓ ← ½ (${yHat} − <i>y</i>)²`, `${delta(head() + 1)} ← ${yHat} − <i>y</i>`]
      : [`ℓ ← ln(1 + e<sup><i>ŷ</i></sup>) − <i>y</i> ${yHat}`, `${delta(head() + 1)} ← 1/(1 + e<sup>−<i>ŷ</i></sup>) − <i>y</i>`];
    const f = factor(ofSample("y_hat"));
    const powers = (sign) => `e<sup>${sign}${sign ? f : guess}</sup>`;
    return (
      code(...overBatch(...lines)) +
      heading(squared ? "The squared error" : "The logistic loss") +
      rows(
        sum("ℓ =", squared ? `½ (${guess} − ${y})²` : `ln(1 + ${powers("")}) − ${y} · ${f}`),
        sum("=", num(ofSample("loss")), "", "result"),
        sum(`${by("ℓ", yHat)} =`, squared ? `${guess} − ${y}` : `1/(1 + ${powers("−")}) − ${y}`),
        sum("=", num(ofSample("dy")), `${delta(head() + 1)}, where the way back begins`, "result"),
        state.rung === 4 && sum("mean ℓ =", num(here("mean_loss")), "over the batch", "result"),
      )
    );
  },

  delta(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const j = neuronAt(t);
    const off = !sample().mask[t - 1][j];
    const top = t === head();
    const above = (i) => (top ? ofSample("dy") : ofSample(`delta.${t}.${i}`));
    return (
      code(
        ...overBatch(
          `${key("for")} j ${key("in")} ${upTo(n)}`,
          `  ${delta(t, "j")} ← 0`,
          top ? `  ${delta(t, "j")} ← ${w(t, 0, "j")} ${delta(t + 1)}` : `  ${key("for")} i ${key("in")} ${upTo(m)}`,
          top ? "" : `    ${delta(t, "j")} ← ${delta(t, "j")} + ${w(t, "i", "j")} ${delta(t + 1, "i")}`,
          `  ${key("if")} ${z(t, "j")} = 0: ${delta(t, "j")} ← 0`,
        ).filter((l, k) => l.trim() && !(top && k === (state.rung < 4 ? 1 : 2))),
      ) +
      heading(`Neuron <i>j</i> = ${j + 1}`) +
      rows(
        off
          ? sum(`${delta(t, j)} =`, num(ofSample(`delta.${t - 1}.${j}`)), `${z(t, j)} = 0: nothing passes a neuron that is off`, "result")
          : [
              range(m).map((i) => sum(i ? "+" : `${delta(t, j)} =`, product(here(`theta.w.${t}.${i}.${j}`), above(i)), `${w(t, i, j)} ${delta(t + 1, i)}`)),
              sum("=", num(ofSample(`delta.${t - 1}.${j}`)), `${z(t, j)} &gt; 0: it passes`, "result"),
            ],
      )
    );
  },
};

Object.assign(loopForms, {
  gradient(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const i = neuronAt(t + 1);
    const above = t === head() ? ofSample("dy") : ofSample(`delta.${t}.${i}`);
    const name = (...k) => by("ℓ", w(t, ...k));
    const one = m === 1;
    if (state.rung === 4) return gradientOfBatch(edgeOf(t));
    return (
      code(
        ...(one ? [] : [`${key("for")} i ${key("in")} ${upTo(m)}`]),
        ...[
          `${key("for")} j ${key("in")} ${upTo(n)}`,
          `  ${name("i", "j")} ← ${delta(t + 1, "i")} ${z(t, "j")}`,
          hasConstant(t) && `${by("ℓ", c(t, "i"))} ← ${delta(t + 1, "i")}`,
        ].filter(Boolean).map((l) => (one ? l : `  ${l}`)),
      ) +
      (one ? "" : heading(`The edges into neuron <i>i</i> = ${i + 1}`)) +
      rows(
        range(n).map((j) => sum(`${name(i, j)} =`, `${product(above, ofSample(`z.${t}.${j}`))} = ${num(here(`gradient.w.${t}.${i}.${j}`))}`, `${delta(t + 1, i)} ${z(t, j)}`)),
        hasConstant(t) && sum(`${by("ℓ", c(t, i))} =`, num(here(`gradient.c.${t}.${i}`)), `${delta(t + 1, i)}, as the constant is 1`),
      )
    );
  },

  update(t) {
    const { i, j } = edgeOf(t);
    const [n, m] = [widths()[t], widths()[t + 1]];
      const own = { t, i, j };
    const eta = number("eta", "plain", String);
    return (
      code(
        ...(m > 1 ? [`${key("for")} i ${key("in")} ${upTo(m)}`] : []),
        ...[
          `${key("for")} j ${key("in")} ${upTo(n)}`,
          `  ${w(t, "i", "j")} ← ${w(t, "i", "j")} − <i>η</i> <i>G</i>[${t}]${sub("i", "j")}`,
        ].map((l) => (m > 1 ? `  ${l}` : l)),
      ) +
      `<p class="which">${edgeName(own)}, with <i>η</i> = ${eta} and the mean gradient of the ${stop().batch.length} samples of the batch:</p>` +
      rows(
        sum(`${edgeName(own)} =`, num(here(edgePath("theta", own)))),
        sum("−", `${eta} · ${factor(here(edgePath("mean_gradient", own)))}`, `<i>η</i> · mean of ${by("ℓ", edgeName(own))}`),
        sum("=", num(here(edgePath("theta_after", own))), "", "result"),
      )
    );
  },
});

/// G[t]_ij as the mean over the batch; for j null, that of a constant.
function gradientOfBatch({ t, i, j }) {
  const [n, m] = [widths()[t], widths()[t + 1]];
  const B = stop().batch.length;
  const above = (b) => here(t === head() ? `batch.${b}.dy` : `batch.${b}.delta.${t}.${i}`);
  const below = (b) => (j === null ? "1" : factor(here(`batch.${b}.z.${t}.${j}`)));
  const G = (...k) => `<i>G</i>[${t}]${sub(...k)}`;
  const loops = [
    `${key("for")} j ${key("in")} ${upTo(n)}`,
    `  ${G("i", "j")} ← 0`,
    `  ${key("for")} b ${key("in")} ${upTo(B)}`,
    `    ${G("i", "j")} ← ${G("i", "j")} + 1/<i>B</i> <i>Δ</i><sub>b,i</sub> ${upper.z}[${t}]<sub>b,j</sub>`,
  ];
  const lead = (b) => (b ? "+" : `1/${B} · (`);
  return (
    code(...(m > 1 ? [`${key("for")} i ${key("in")} ${upTo(m)}`, ...loops.map((l) => `  ${l}`)] : loops)) +
    `<p class="which">The mean of ${by("ℓ", edgeName({ t, i, j }))}:</p>` +
    rows(
      range(B).map((b) => sum(lead(b), `${factor(above(b))} · ${below(b)}${b === B - 1 ? " )" : ""}`, `sample ${b + 1}`)),
      sum("=", num(here(edgePath("mean_gradient", { t, i, j }))), "", "result"),
    )
  );
}
