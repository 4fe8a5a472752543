// The first way, edge by edge: the chain rule from one edge forward to the output, as loops and as
// matrices.

const d = (of) => `∂${of}/∂<i>w</i>`;
/// z at the edge's lower end, or 1 where that is the constant.
const lower = () => (edge().j === null ? null : ofSample(`z.${edge().t}.${edge().j}`));
const lowerNumber = () => (lower() ? num(lower()) : "1");
const isOn = (t, i) => sample().mask[t - 1][i] === 1;
const duPath = (k) => here(edgePath(`naive.du.${k}`));
const chainOut = () => here(edgePath("naive.dy"));

function firstLines() {
  const { t, i } = edge();
  const name = lower() ? z(t, edge().j) : "the constant";
  if (t === head()) return [sum(`${d(yHat)} =`, num(chainOut()), lower() ? `${name}, as ${yHat} is linear in it` : "", "result")];
  return [
    sum(`${d(u(t + 1, i))} =`, lowerNumber(), name),
    sum(`${d(z(t + 1, i))} =`, isOn(t + 1, i) ? lowerNumber() : "0", isOn(t + 1, i) ? `${u(t + 1, i)} &gt; 0: on` : `${u(t + 1, i)} ≤ 0: off, and all paths end here`),
  ];
}

const chainCode = (...lines) => code(`${key("for each")} edge <i>w</i> = ${w(edge().t, "i", "j")}`, ...lines.map((l) => `  ${l}`));

function spreadLines() {
  const { i } = edge();
  const first = isOn(1, i) ? lowerNumber() : "0";
  return range(widths()[2]).map((k) =>
    sum(
      `${d(u(2, k))} =`,
      `${factor(here(`theta.w.1.${k}.${i}`))} · ${first} = ${num(duPath(k))}`,
      isOn(2, k) ? "on" : "off",
      isOn(2, k) ? "" : "faint",
    ),
  );
}

function outLines() {
  const { t, i } = edge();
  if (t === 1) {
    return [
      sum(`${d(yHat)} =`, `${factor(here(`theta.w.2.0.${i}`))} · ${isOn(2, i) ? lowerNumber() : "0"}`, `${w(2, 0, i)} ${d(z(2, i))}`),
      sum("=", num(chainOut()), "", "result"),
    ];
  }
  const term = (k) => (isOn(2, k) ? factor(duPath(k)) : "0");
  return [
    ...range(widths()[2]).map((k) => sum(k ? "+" : `${d(yHat)} =`, `${factor(here(`theta.w.2.0.${k}`))} · ${term(k)}`, `${w(2, 0, k)} ${d(z(2, k))}`, isOn(2, k) ? "" : "faint")),
    sum("=", num(chainOut()), "", "result"),
  ];
}

Object.assign(loopForms, {
  edge() {
    const { t } = edge();
    const lines = t === head()
      ? [`${d(yHat)} ← ${z(t, "j")}`]
      : [`${d(u(t + 1, "i"))} ← ${z(t, "j")}`, `${d(z(t + 1, "i"))} ← ${d(u(t + 1, "i"))} ${key("if")} ${u(t + 1, "i")} &gt; 0 ${key("else")} 0`];
    return chainCode(...lines) + `<p class="which"><i>w</i> = ${edgeName()}:</p>` + rows(firstLines());
  },
  spread() {
    const n = widths()[2];
    return (
      chainCode(
        `${key("for")} k ${key("in")} ${upTo(n)}`,
        `  ${d(u(2, "k"))} ← ${w(1, "k", "i")} ${d(z(1, "i"))}`,
        `  ${d(z(2, "k"))} ← ${d(u(2, "k"))} ${key("if")} ${u(2, "k")} &gt; 0 ${key("else")} 0`,
      ) + `<p class="which"><i>w</i> = ${edgeName()}:</p>` + rows(spreadLines())
    );
  },
  out() {
    const lines = edge().t === 1
      ? [`${d(yHat)} ← ${w(2, 0, "i")} ${d(z(2, "i"))}`]
      : [`${d(yHat)} ← 0`, `${key("for")} k ${key("in")} ${upTo(widths()[2])}`, `  ${d(yHat)} ← ${d(yHat)} + ${w(2, 0, "k")} ${d(z(2, "k"))}`];
    return chainCode(...lines) + `<p class="which"><i>w</i> = ${edgeName()}:</p>` + rows(outLines());
  },
  product() {
    return (
      chainCode(`${d("ℓ")} ← ${by("ℓ", yHat)} ${d(yHat)}`) +
      `<p class="which"><i>w</i> = ${edgeName()}:</p>` +
      rows(sum(`${d("ℓ")} =`, product(ofSample("dy"), chainOut()), `${by("ℓ", yHat)} ${d(yHat)}`), sum("=", num(here(edgePath("naive.gradient"))), "", "result"))
    );
  },
  all() {
    return chainCode("<i>the whole chain again</i>") + `<p class="which">Each of the ${number("counts.parameters", "plain", String)} parameters has had its own way to the output:</p>` + everyGradient();
  },
});

function everyGradient() {
  return line(
    ...range(head() + 1).map((t) => {
      const [n, m] = [widths()[t], widths()[t + 1]];
      const mark = (r, k) => (t === edge().t && r === edge().i && k === edge().j ? "hot" : "");
      const pick = (r, k) => `entry,${t},${r},${k}`;
      const constants = hasConstant(t)
        ? column_(here(`naive.gradient.c.${t}`), m, { name: by("ℓ", c(t)), mark: (r) => (t === edge().t && edge().j === null && r === edge().i ? "hot" : ""), pick: (r) => `entry,${t},${r},` })
        : "";
      return matrix({ name: by("ℓ", w(t)), rows: m, columns: n, at: wAt(t, "naive.gradient"), mark, pick }) + constants;
    }),
  );
}

/// The factors of the chain rule as matrices, of which the steps so far are multiplied.
function chainMatrices(what) {
  const { t, i, j } = edge();
  const order = ["edge", "spread", "out", "product"].indexOf(what);
  const [n, last] = [widths()[Math.min(t + 1, head())], widths()[head()]];
  const derivative = (layer, path, off) =>
    matrix({ name: d(z(layer)), rows: widths()[layer], columns: 1, at: path, mark: (r) => (off(r) ? "off" : "hot") });
  const only = (layer) => derivative(layer, (r) => (r === i && isOn(layer, i) ? (lower() ?? "1") : "0"), (r) => r !== i || !isOn(layer, i));
  const alphaRow = row_(here("theta.w.2.0"), last, { name: transposed(w(head())), mark: (_, k) => (order >= 2 ? "hot" : "") });
  const result = (name, path) => matrix({ name, rows: 1, columns: 1, at: () => path, mark: () => "hot" });
  if (t === head()) {
    const before = matrix({ name: `${by(yHat, w(t))}`, rows: 1, columns: last, at: (_, k) => here(`naive.dy.w.${t}.0.${k}`), mark: (_, k) => (k === j ? "hot" : "") });
    return line(before) + (order === 3 ? line(result(by("ℓ", yHat), ofSample("dy")), sign("·"), result(d(yHat), chainOut()), sign("="), result(d("ℓ"), here(edgePath("naive.gradient")))) : "");
  }
  const parts = [];
  if (t === 0) {
    const columnOfEdge = matrix({ name: w(1), rows: last, columns: n, at: wAt(1), mark: (_, k) => (k === i ? "hot" : "faint") });
    const second = order < 1 ? "" : sign("=") + matrix({ name: d(u(2)), rows: last, columns: 1, at: duPath, mark: (r) => (isOn(2, r) ? "hot" : "off") }) + sign("⊙") + column_(here("batch.0.mask.1"), last, { name: "mask", tint: false });
    parts.push(line(columnOfEdge, only(1), second));
  } else if (order < 2) {
    parts.push(line(only(2)));
  }
  if (order >= 2) {
    const z2 = t === 0 ? derivative(2, (r) => (isOn(2, r) ? duPath(r) : "0"), (r) => !isOn(2, r)) : only(2);
    parts.push(line(alphaRow, sign("·"), z2, sign("="), result(d(yHat), chainOut())));
  }
  if (order === 3) parts.push(line(result(by("ℓ", yHat), ofSample("dy")), sign("·"), result(d(yHat), chainOut()), sign("="), result(d("ℓ"), here(edgePath("naive.gradient")))));
  return parts.join("");
}

for (const what of ["edge", "spread", "out", "product"]) matrixForms[what] = () => chainMatrices(what);

matrixForms.all = () =>
  `<p>For an edge of ${w(0)}, the chain rule is a product of matrices, with <i>M</i>[<i>t</i>] the diagonal of the mask:</p>` +
  `<p class="formula">${d(yHat)} = <span class="brace">${transposed("<i>α</i>")} <i>M</i>[2] ${w(1)} <i>M</i>[1]</span> ${d(u(1))}</p>` +
  `<p>Edge by edge, it is multiplied from the right, again for each edge. From the left, the braced part is the same for all edges, and is ${transposed("<i>δ</i>[1]")} but for the factor ${by("ℓ", yHat)}: computed once, it serves them all. <b>That is backpropagation</b>, the other three ways.</p>`;
