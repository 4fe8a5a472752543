// The matrix form of each step: products of matrices with all their numbers, and what the current
// neuron, edge or sample has to do with them marked.

/// A matrix as a table. at(r, c) is the path of an entry, or its text where it is none.
function matrix({ name, rows, columns, at, mark = () => "", pick = null, tint = true }) {
  const value = (r, k) => (at(r, k).includes(".") ? lookUp(at(r, k)) : 0);
  const sizes = range(rows).flatMap((r) => range(columns).map((k) => Math.abs(value(r, k))));
  const most = Math.max(...sizes, 1e-30);
  const cell = (r, k) => {
    const path = at(r, k);
    const chosen = pick ? ` data-pick="${pick(r, k)}"` : "";
    if (!path.includes(".")) return `<td class="${mark(r, k)}"${chosen}>${path}</td>`;
    const v = lookUp(path);
    const strength = tint ? Math.round((40 * Math.abs(v)) / most) : 0;
    return (
      `<td class="n ${mark(r, k)} ${v < 0 ? "neg" : "pos"}" style="--a:${strength}%" data-at="${path}" data-form="brief"` +
      ` title="${minus(String(v))}"${chosen}>${brief(v)}</td>`
    );
  };
  const body = range(rows).map((r) => `<tr>${range(columns).map((k) => cell(r, k)).join("")}</tr>`);
  return `<table class="matrix"><caption>${name}<span class="vh">, ${rows} by ${columns}</span></caption><tbody>${body.join("")}</tbody></table>`;
}

const row_ = (path, n, more) => matrix({ rows: 1, columns: n, at: (_, k) => `${path}.${k}`, ...more });
const column_ = (path, n, more) => matrix({ rows: n, columns: 1, at: (r) => `${path}.${r}`, ...more });
const sign = (text) => `<span class="sign">${text}</span>`;
const line = (...parts) => `<div class="line">${parts.join("")}</div>`;
/// A product A B = C with B above C and A to its left: row and column of an entry meet at it.
const falk = (a, b, c, after = "") =>
  `<div class="falk"><div class="corner">row of the left<br>times column above</div><div>${b}</div><div></div><div>${a}</div><div>${c}</div><div class="after">${after}</div></div>`;

const wAt = (t, name = "theta") => (r, k) => here(`${name}.w.${t}.${r}.${k}`);
const flip = (at) => (r, k) => at(k, r);
const atRow = (i) => (r) => (r === i ? "hot" : "");
const atColumn = (i) => (_, k) => (k === i ? "hot" : "");
const transposed = (name) => `${name}<sup>⊤</sup>`;
const ofBatch = (what) => (b, k) => here(`batch.${b}.${what}.${k}`);
const isOff = (t) => (b, k) => (lookUp(here(`batch.${b}.mask.${t - 1}.${k}`)) ? "" : "off");
const both = (...marks) => (r, k) => marks.map((mark) => mark(r, k)).join(" ");
const deltaOfBatch = (t) => (t > head() ? (b) => here(`batch.${b}.dy`) : ofBatch(`delta.${t - 1}`));
const upper = { u: "<i>U</i>", z: "<i>Z</i>", delta: "<i>Δ</i>" };
const upperDelta = (t) => (t > head() ? `${upper.delta}<sub><i>ŷ</i></sub>` : `${upper.delta}[${t}]`);

/// Z[t], with the constant 1 as its last column where layer t has one.
function inputs(t) {
  const [n, constant] = [widths()[t], hasConstant(t)];
  const at = (b, k) => (k < n ? ofBatch(`z.${t}`)(b, k) : "1");
  const name = `${upper.z}[${t}]${constant ? ", 1" : ""}`;
  return matrix({ name, rows: stop().batch.length, columns: n + (constant ? 1 : 0), at, mark: atRow(state.sample), pick: pickSample });
}

/// w[t] transposed, with the weights of the constant as its last row.
function withConstant(t, mark, pick = null) {
  const [n, constant] = [widths()[t], hasConstant(t)];
  const at = (r, k) => (r < n ? wAt(t)(k, r) : here(`theta.c.${t}.${k}`));
  const [upright, row] = t === head() ? [w(t), c(t)] : [transposed(w(t)), transposed(c(t))];
  return matrix({ name: constant ? `${upright}, ${row}` : upright, rows: n + (constant ? 1 : 0), columns: widths()[t + 1], at, mark, pick });
}

const matrixForms = {
  input() {
    const n = widths()[0];
    if (state.rung < 4) return line(column_(ofSample("z.0"), n, { name: `<i>x</i> = ${z(0)}` }));
    const B = stop().batch.length;
    return line(matrix({ name: `<i>X</i> = ${upper.z}[0]`, rows: B, columns: n, at: ofBatch("z.0"), mark: atRow(state.sample), pick: pickSample }));
  },

  layer(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const i = neuronAt(t + 1);
    const constant = hasConstant(t);
    if (state.rung < 4) {
      const mark = atRow(i);
      const offs = both(mark, (r) => (sample().mask[t][r] ? "" : "off"));
      return line(
        matrix({ name: w(t), rows: m, columns: n, at: wAt(t), mark, pick: pickNeuron }),
        column_(ofSample(`z.${t}`), n, { name: z(t), mark: () => "hot" }),
        constant ? sign("+") + column_(here(`theta.c.${t}`), m, { name: c(t), mark, pick: pickNeuron }) : "",
        sign("="),
        column_(ofSample(`u.${t}`), m, { name: u(t + 1), mark, pick: pickNeuron }),
        sign("→"),
        column_(ofSample(`z.${t + 1}`), m, { name: z(t + 1), mark: offs, pick: pickNeuron }),
      );
    }
    const B = stop().batch.length;
    const mark = (b, k) => (b === state.sample && k === i ? "hot" : "");
    const product = falk(
      inputs(t),
      withConstant(t, atColumn(i), (_, k) => `neuron,${k}`),
      matrix({ name: `${upper.u}[${t + 1}]`, rows: B, columns: m, at: ofBatch(`u.${t}`), mark, pick: pickBoth }),
    );
    return product + line(sign("→"), matrix({ name: `${upper.z}[${t + 1}]`, rows: B, columns: m, at: ofBatch(`z.${t + 1}`), mark: both(mark, isOff(t + 1)), pick: pickBoth }));
  },

  head(t) {
    const n = widths()[t];
    if (state.rung < 4) {
      return line(
        row_(here(`theta.w.${t}.0`), n, { name: transposed(w(t)), mark: () => "hot" }),
        column_(ofSample(`z.${t}`), n, { name: z(t), mark: () => "hot" }),
        sign("+"),
        column_(here(`theta.c.${t}`), 1, { name: c(t) }),
        sign("="),
        matrix({ name: yHat, rows: 1, columns: 1, at: () => ofSample("y_hat"), mark: () => "hot" }),
      );
    }
    const B = stop().batch.length;
    const mark = atRow(state.sample);
    return falk(
      inputs(t),
      withConstant(t, () => "hot"),
      matrix({ name: "<i>Ŷ</i>", rows: B, columns: 1, at: (b) => here(`batch.${b}.y_hat`), mark, pick: pickSample }),
    );
  },

  loss() {
    const samples = state.rung < 4 ? [0] : range(stop().batch.length);
    const rows = samples.length;
    const of = (name, what) => matrix({ name, rows, columns: 1, at: (b) => here(`batch.${b}.${what}`), mark: (b) => (b === sampleIndex() ? "hot" : ""), pick: rows > 1 ? pickSample : null });
    return line(of(state.rung < 4 ? yHat : "<i>Ŷ</i>", "y_hat"), of("<i>y</i>", "y"), sign("→"), of("ℓ", "loss"), of(by("ℓ", yHat), "dy"));
  },

  delta(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const j = neuronAt(t);
    if (state.rung < 4) {
      const mark = atRow(j);
      const above = t === head() ? matrix({ name: delta(t + 1), rows: 1, columns: 1, at: () => ofSample("dy"), mark: () => "hot" }) : column_(ofSample(`delta.${t}`), m, { name: delta(t + 1), mark: () => "hot" });
      return line(
        matrix({ name: t === head() ? w(t) : transposed(w(t)), rows: n, columns: m, at: flip(wAt(t)), mark, pick: pickNeuron }),
        above,
        sign("⊙"),
        column_(ofSample(`mask.${t - 1}`), n, { name: "mask", mark, pick: pickNeuron, tint: false }),
        sign("="),
        column_(ofSample(`delta.${t - 1}`), n, { name: delta(t), mark: both(mark, (r) => (sample().mask[t - 1][r] ? "" : "off")), pick: pickNeuron }),
      );
    }
    const B = stop().batch.length;
    return falk(
      matrix({ name: upperDelta(t + 1), rows: B, columns: m, at: deltaOfBatch(t + 1), mark: atRow(state.sample), pick: pickSample }),
      matrix({ name: t === head() ? transposed(w(t)) : w(t), rows: m, columns: n, at: wAt(t), mark: atColumn(j), pick: (_, k) => `neuron,${k}` }),
      matrix({ name: `${upperDelta(t)}`, rows: B, columns: n, at: deltaOfBatch(t), mark: both((b, k) => (b === state.sample && k === j ? "hot" : ""), isOff(t)), pick: pickBoth }),
    );
  },

  gradient(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const { i, j } = state.rung === 4 ? edgeOf(t) : { i: neuronAt(t + 1) };
    const name = by("ℓ", w(t));
    const constants = (parameters) => hasConstant(t) ? column_(here(`${parameters}.c.${t}`), m, { name: by("ℓ", c(t)), mark: atRow(i) }) : "";
    if (state.rung < 4) {
      const above = t === head() ? () => ofSample("dy") : (r) => ofSample(`delta.${t}.${r}`);
      return falk(
        matrix({ name: delta(t + 1), rows: m, columns: 1, at: above, mark: atRow(i), pick: pickNeuron }),
        row_(ofSample(`z.${t}`), n, { name: transposed(z(t)), mark: () => "hot" }),
        matrix({ name, rows: m, columns: n, at: wAt(t, "gradient"), mark: atRow(i), pick: pickNeuron }),
        constants("gradient"),
      );
    }
    const B = stop().batch.length;
    return falk(
      matrix({ name: transposed(upperDelta(t + 1)), rows: m, columns: B, at: flip(deltaOfBatch(t + 1)), mark: atRow(i), pick: pickNeuron }),
      matrix({ name: `${upper.z}[${t}]`, rows: B, columns: n, at: ofBatch(`z.${t}`), mark: atColumn(j) }),
      matrix({ name: `<i>G</i>[${t}]`, rows: m, columns: n, at: wAt(t, "mean_gradient"), mark: (r, k) => (r === i && k === j ? "hot" : ""), pick: (r, k) => `entry,${t},${r},${k}` }),
      constants("mean_gradient"),
    );
  },

  update(t) {
    const [n, m] = [widths()[t], widths()[t + 1]];
    const chosen = edgeOf(t);
    const mark = (r, k) => (r === chosen.i && k === chosen.j ? "hot" : "");
    const pick = (r, k) => `entry,${t},${r},${k}`;
    const show = (name, parameters) => matrix({ name, rows: m, columns: n, at: wAt(t, parameters), mark, pick });
    const constant = (name, parameters) => hasConstant(t) ? column_(here(`${parameters}.c.${t}`), m, { name, mark: (r) => (chosen.j === null && r === chosen.i ? "hot" : ""), pick: (r) => `entry,${t},${r},` }) : "";
    return line(
      show(w(t), "theta"), constant(c(t), "theta"),
      sign("− <i>η</i>"),
      show(`<i>G</i>[${t}]`, "mean_gradient"), constant("", "mean_gradient"),
      sign("→"),
      show(`${w(t)}, new`, "theta_after"), constant("", "theta_after"),
    );
  },
};

const pickNeuron = (r) => `neuron,${r}`;
const pickSample = (b) => `sample,${b}`;
const pickBoth = (b, k) => `both,${b},${k}`;
