// The drawing of the network: neurons as rows of cells with u, z and δ, edges between them, and
// those of the current step lit up.

const layout = { narrow: false, width: 0, height: 0, cell: 46, top: 34 };
/// The widths of the drawings, which are looked up only where they may have changed: to ask for one
/// makes a browser lay out the whole page.
const boxes = {};

/// Where the cells of a neuron lie. Column 0 is the input, T + 1 the output; a row beyond the last
/// neuron is that of the constant 1.
function place(column, row) {
  const last = head() + 1;
  const rows = (k) => widths()[k] + (k < last && hasConstant(k) ? 1 : 0);
  const cells = column === 0 ? 1 : 3;
  const wide = layout.narrow ? layout.cell : layout.cell * cells;
  const tall = layout.narrow ? 13 * cells + 3 : 26;
  const left = layout.narrow
    ? ((layout.width - layout.cell) * column) / last
    : column === 0
      ? 0
      : layout.cell + ((layout.width - layout.cell) * column) / last - 3 * layout.cell;
  const space = layout.height - layout.top;
  const pitch = space / Math.max(...range(last + 1).map(rows));
  const y = layout.top + space / 2 + (row - (rows(column) - 1) / 2) * pitch;
  return { left, right: left + wide, y, tall, wide };
}

function measure() {
  for (const name of ["net", "plane", "curve"]) boxes[name] = document.getElementById(name).parentElement.clientWidth;
}

function layOut() {
  const box = boxes.net;
  layout.narrow = box < 600;
  layout.width = box - 4;
  layout.cell = layout.narrow ? Math.min(54, box / 7) : 46;
  const rows = Math.max(...widths()) + 1;
  layout.top = layout.narrow ? 50 : 34;
  layout.height = layout.narrow ? layout.top + rows * 50 : 372;
}

/// Which edges the current step uses, and what their width shows: [t, i, j] → class, or none.
function litEdges() {
  const { what, t, neuron } = step();
  const layerOf = (t, test = () => true) => (edge) => edge.t === t && test(edge);
  const own = (edge) => neuron === null || edge.i === neuron;
  if (state.rung === 1 && !["input", "layer", "head", "loss", "update"].includes(what)) return chainEdges(what);
  switch (what) {
    case "layer":
    case "head":
    case "gradient":
      return layerOf(t, own);
    case "delta":
      return layerOf(t, (edge) => edge.j !== null && (neuron === null || edge.j === neuron));
    case "update":
      return layerOf(t);
    default:
      return () => false;
  }
}

const same = (a, b) => a.t === b.t && a.i === b.i && a.j === b.j;

/// The paths from the chosen edge to the output, as far as the chain has come. Where a neuron is
/// off, the path is broken.
function chainEdges(what) {
  const chosen = edge();
  const on = (t, i) => sample().mask[t - 1][i] === 1;
  return (e) => {
    if (same(e, chosen)) return "chosen";
    if (e.j === null || what === "edge" || e.t <= chosen.t) return false;
    if (e.t === chosen.t + 1 && e.j === chosen.i) return on(chosen.t + 1, chosen.i) ? "lit" : "broken";
    if (chosen.t === 0 && e.t === 2 && what !== "spread") return on(1, chosen.i) && on(2, e.j) ? "lit" : "broken";
    return false;
  };
}

/// The edges' widths show θ, or in steps that compute gradients those.
function edgeValues() {
  const { what } = step();
  if (what === "gradient") return state.rung === 4 ? "mean_gradient" : "gradient";
  if (what === "all") return "naive.gradient";
  return what === "update" ? "theta_after" : "theta";
}

function edgeLines() {
  const lit = litEdges();
  const values = stop();
  const source = edgeValues();
  const theta = source.split(".").reduce((at, key) => at[key], values);
  const gradients = source.endsWith("gradient");
  const lines = [];
  for (const t of range(head() + 1)) {
    const shown = gradients && !(step().what === "all" || step().t === t) ? values.theta : theta;
    const largest = Math.max(...shown.w[t].flat().map(Math.abs), ...shown.c[t].map(Math.abs), 1e-12);
    const each = shown.w[t].flatMap((row, i) => row.map((v, j) => ({ t, i, j, v })));
    each.push(...shown.c[t].map((v, i) => ({ t, i, j: null, v })));
    for (const e of each) {
      const from = place(t, e.j ?? widths()[t]);
      const to = place(t + 1, e.i);
      const found = step().what === "all" || lit(e);
      const kind = found === true ? "lit" : found || "";
      const line = `M${from.right},${from.y}L${to.left},${to.y}`;
      const size = (0.4 + 3.2 * (Math.abs(e.v) / largest)).toFixed(2);
      const chosen = state.rung === 1 && same(e, edge());
      lines.push({
        order: kind === "chosen" || chosen ? 2 : kind ? 1 : 0,
        html:
          `<path class="edge ${e.v < 0 ? "neg" : "pos"} ${chosen ? "chosen" : kind}" style="stroke-width:${size}" d="${line}"/>` +
          `<path class="hit" data-edge="${e.t},${e.i},${e.j ?? ""}" d="${line}"><title>${plain(edgeName(e))}</title></path>`,
      });
    }
  }
  return lines.sort((a, b) => a.order - b.order).map((l) => l.html).join("");
}

/// The cells of a neuron: what each shows, or null while the walk has not come to it.
function cellsOf(column, i) {
  const last = head() + 1;
  if (column === 0) return [done("input", 0) ? ofSample(`z.0.${i}`) : null];
  if (column === last) {
    return [
      done("head", head()) ? ofSample("y_hat") : null,
      done("loss", head()) ? ofSample("y") : null,
      done("loss", head()) ? ofSample("dy") : null,
    ];
  }
  const known = done("layer", column - 1, i);
  const third = state.rung === 1 ? chainValue(column, i) : done("delta", column, i) ? ofSample(`delta.${column - 1}.${i}`) : null;
  return [known ? ofSample(`u.${column - 1}.${i}`) : null, known ? ofSample(`z.${column}.${i}`) : null, third];
}

/// ∂u[t]_i/∂w on the way of the chosen edge.
function chainValue(column, i) {
  const { what } = step();
  if (phaseOf(what) !== "backward" || what === "all") return null;
  const { t, i: own, j } = edge();
  if (column === t + 1 && t < head()) return i === own ? (j === null ? "one" : ofSample(`z.${t}.${j}`)) : null;
  if (t === 0 && column === 2 && what !== "edge") {
    return here(edgePath(`naive.du.${i}`));
  }
  return null;
}

function headings() {
  const last = head() + 1;
  return range(last + 1)
    .flatMap((column) => {
      const third = state.rung === 1 ? (column < 3 ? `∂u/∂w` : "") : `δ[${column}]`;
      const names = column === 0 ? ["z[0]"] : column === last ? ["ŷ", "y", "∂ℓ/∂ŷ"] : [`u[${column}]`, `z[${column}]`, third];
      const { left, wide } = place(column, 0);
      return names.map((name, k) => {
        const x = layout.narrow ? left + wide / 2 : left + layout.cell * (k + 0.5);
        const y = layout.narrow ? 12 + 14 * k : 16;
        return `<text class="heading" x="${x}" y="${y}">${name}</text>`;
      });
    })
    .join("");
}

function neuron(column, i) {
  const { left, y, tall, wide } = place(column, i);
  const cells = cellsOf(column, i);
  const hidden = column > 0 && column <= head();
  const off = hidden && done("layer", column - 1, i) && sample().mask[column - 1][i] === 0;
  const texts = cells.map((path, k) => {
    const x = layout.narrow ? left + wide / 2 : left + layout.cell * (k + 0.5);
    const dy = layout.narrow ? y - tall / 2 + 13 * (k + 0.5) + 2 : y;
    const tone = k === 2 ? "third" : k === 1 && hidden ? "out" : "";
    if (path === null) return "";
    if (path === "one") return `<text class="${tone}" x="${x}" y="${dy}">1</text>`;
    const v = lookUp(path);
    return `<text class="n ${tone}" data-at="${path}" data-form="brief" x="${x}" y="${dy}">${brief(v)}<title>${minus(String(v))}</title></text>`;
  });
  const bars =
    layout.narrow || cells.length < 2
      ? ""
      : [1, 2].map((k) => `<path class="bar" d="M${left + layout.cell * k},${y - tall / 2}v${tall}"/>`).join("");
  const { what, t, neuron: one } = step();
  const at = { input: 0, layer: t + 1, head: head() + 1, loss: head() + 1, delta: t }[what];
  const now = at === column && (one === null || one === i);
  return (
    `<g class="neuron ${off ? "off" : ""} ${now ? "now" : ""}" data-neuron="${column},${i}">` +
    `<rect x="${left}" y="${y - tall / 2}" width="${wide}" height="${tall}" rx="7"/>${bars}${texts.join("")}</g>`
  );
}

function constantNode(t) {
  const { left, y, wide } = place(t, widths()[t]);
  const tall = 22;
  const from = layout.narrow || t === 0 ? left : left + 2 * layout.cell;
  const size = layout.narrow || t === 0 ? wide : layout.cell;
  return `<g class="neuron constant"><rect x="${from}" y="${y - tall / 2}" width="${size}" height="${tall}" rx="11"/><text x="${from + size / 2}" y="${y}">1</text></g>`;
}

function drawNet() {
  layOut();
  const svg = document.getElementById("net");
  svg.setAttribute("viewBox", `-2 0 ${layout.width + 4} ${layout.height}`);
  svg.style.height = `${layout.height}px`;
  const neurons = range(widths().length).flatMap((column) => range(widths()[column]).map((i) => neuron(column, i)));
  const constants = range(head() + 1).filter(hasConstant).map(constantNode);
  svg.innerHTML = `<g class="${["input", "loss"].includes(step().what) ? "calm" : "lively"}">${edgeLines()}</g>${headings()}${constants.join("")}${neurons.join("")}`;
  const which = state.rung === 4 ? `sample ${state.sample + 1} of the batch` : "the first sample of the batch";
  const wide = { theta: "the weights", theta_after: "the weights after the step" }[edgeValues()] ?? "in the lit layer, the gradient";
  document.getElementById("net-text").textContent = `The network ${widths().join("-")} and ${which}. Widths of edges: ${wide}.`;
}
