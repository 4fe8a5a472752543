// Numbers and symbols as text. A number is always written with the path at which the trace has it.

const minus = (text) => text.replace(/-/g, "−");

/// For a cell: two decimals, three if it is small, or else its order of magnitude.
function brief(v) {
  const size = Math.abs(v);
  if (Number.isInteger(v)) return minus(String(v + 0));
  if (size < 0.000995) return minus(v.toExponential(0));
  if (size < 0.00995) return minus(v.toFixed(3));
  return minus(v.toFixed(size < 9.95 ? 2 : size < 99.5 ? 1 : 0));
}

/// For a line of arithmetic: four decimals, or three digits of what is small.
function full(v) {
  const size = Math.abs(v);
  if (Number.isInteger(v)) return minus(String(v + 0));
  return minus(size < 0.00995 ? v.toExponential(2) : v.toFixed(4));
}

const number = (path, form, format) =>
  `<span class="n" data-at="${path}" data-form="${form}" title="${minus(String(lookUp(path)))}">${format(lookUp(path))}</span>`;
/// The number at this path, to be read.
const num = (path) => number(path, "full", full);
/// The same for a negative factor, which needs brackets.
const factor = (path) => (lookUp(path) < 0 ? `(${num(path)})` : num(path));

const sub = (...indices) => `<sub>${indices.map((i) => (typeof i === "number" ? i + 1 : i)).join(",")}</sub>`;
const u = (t, ...i) => `<i>u</i>[${t}]${i.length ? sub(...i) : ""}`;
const z = (t, ...i) => `<i>z</i>[${t}]${i.length ? sub(...i) : ""}`;
const delta = (t, ...i) =>
  t > head() ? `<i>δ</i><sub><i>ŷ</i></sub>` : `<i>δ</i>[${t}]${i.length ? sub(...i) : ""}`;
/// An entry of w[t], or of alpha, which has one row.
const w = (t, ...i) => (t === head() ? `<i>α</i>${i.length ? sub(i[1]) : ""}` : `<i>w</i>[${t}]${i.length ? sub(...i) : ""}`);
const c = (t, ...i) => (t === head() ? "<i>b</i>" : `<i>c</i>[${t}]${i.length ? sub(...i) : ""}`);
const yHat = "<i>ŷ</i>";
const by = (over, under) => `∂${over}/∂${under}`;
const plain = (html) => html.replace(/<sub>/g, " ").replace(/<sup>⊤<\/sup>/g, " transposed").replace(/<[^>]*>/g, "").replace(/&ensp;|\s+/g, " ").trim();

/// The edge that the user points at.
const edgeName = ({ t, i, j } = edge()) => (j === null ? c(t, i) : w(t, i, j));
const edgePath = (parameters, { t, i, j } = edge()) => `${parameters}.${j === null ? `c.${t}.${i}` : `w.${t}.${i}.${j}`}`;
