// Controls, keys, the address, and drawing all of it again after each change.

const byId = (id) => document.getElementById(id);
const clamp = (v, from, to) => Math.max(from, Math.min(to, v));

function choices(name, labels, chosen, first) {
  const each = labels.map(
    ([label, hint], k) =>
      `<label title="${hint}"><input type="radio" name="${name}" value="${k + first}" ${k + first === chosen ? "checked" : ""}><span>${label}</span></label>`,
  );
  byId(name).insertAdjacentHTML("beforeend", `<div class="segments">${each.join("")}</div>`);
}

const chipNames = {
  input: () => "<i>x</i>", layer: (t) => `${u(t + 1)}, ${z(t + 1)}`, head: () => yHat, loss: () => "ℓ",
  delta: (t) => delta(t), gradient: (t) => `∂${w(t)}`, update: (t) => w(t),
  edge: (t) => (t === head() ? `∂${yHat}` : `∂${u(t + 1)}`), spread: () => `∂${u(2)}`, out: () => `∂${yHat}`, product: () => "∂ℓ", all: () => "all edges",
};

/// The steps as buttons, one for each equation; the neurons of a layer share one.
function drawSteps() {
  const groups = [];
  steps().forEach((s, k) => {
    const last = groups[groups.length - 1];
    if (last && last.what === s.what && last.t === s.t) last.to = k;
    else groups.push({ what: s.what, t: s.t, from: k, to: k });
  });
  const button = (g) => {
    const current = g.from <= state.step && state.step <= g.to;
    const past = g.to < state.step;
    const share = current ? (state.step - g.from + 1) / (g.to - g.from + 1) : past ? 1 : 0;
    return `<li><button type="button" data-step="${g.from}" ${current ? 'aria-current="step"' : ""} style="--share:${Math.round(100 * share)}%">${chipNames[g.what](g.t)}</button></li>`;
  };
  const phase = (name) => {
    const own = groups.filter((g) => phaseOf(g.what) === name);
    return `<div class="phase ${name}"><h2>${phases[name]}${name === "backward" && state.rung === 1 ? ` of ${edgeName()}` : ""}</h2><ol>${own.map(button).join("")}</ol></div>`;
  };
  byId("steps").innerHTML = Object.keys(phases).map(phase).join("");
}

function draw() {
  const { what, t } = step();
  const phase = phaseOf(what);
  document.body.dataset.phase = phase;
  byId("equation").innerHTML = `<span class="badge">${phases[phase]}</span> ${equation(step())}`;
  byId("cost").innerHTML = cost();
  // A number stays in the line of what it is.
  const said = sentence(step()).replaceAll(" = ", "\u00a0=\u00a0");
  if (byId("say").innerHTML !== said) byId("say").innerHTML = said;
  byId("loops").innerHTML = loopForms[what](t);
  byId("matrices").innerHTML = matrixForms[what](t);
  [byId("loops-file").textContent, byId("matrices-file").textContent] = files(step());
  byId("totals").innerHTML = totals();
  drawSteps();
  drawNet();
  drawPlane();
  drawCurve();
  const { stops } = trace();
  const last = stops[stops.length - 1].step;
  byId("where").textContent = `${phases[phase]}, step ${state.step + 1} of ${steps().length}`;
  byId("training-text").innerHTML = `Training step <b>${stop().step + 1}</b><span class="wide"> of ${last + 1}, mean loss ${num(here("loss"))}</span>`;
  const slider = byId("training");
  slider.max = stops.length - 1;
  slider.value = state.stop;
  slider.setAttribute("aria-valuetext", `training step ${stop().step + 1}, mean loss ${full(stop().loss)}`);
  for (const name of ["problem", "rung"]) {
    document.querySelector(`input[name=${name}s][value="${state[name]}"]`).checked = true;
  }
  byId("first").disabled = byId("back").disabled = state.step === 0 && state.stop === 0;
  byId("next").disabled = atEnd();
  const address = `#${trace().name}/${state.rung}/${stop().step}/${state.step + 1}`;
  if (location.hash !== address) history.replaceState(null, "", address);
}

const atEnd = () => state.step === steps().length - 1 && state.stop === trace().stops.length - 1;

/// Goes to a step; past the last one lies the next stop in training, before the first the one
/// before.
function go(to) {
  if (to >= steps().length && state.stop < trace().stops.length - 1) {
    state.stop += 1;
    state.step = 0;
  } else if (to < 0 && state.stop > 0) {
    state.stop -= 1;
    state.step = steps().length - 1;
  } else {
    state.step = clamp(to, 0, steps().length - 1);
  }
  draw();
}

/// Another problem or way, at the same equation where the other has it.
function choose(name, value) {
  const before = step();
  state[name] = value;
  state.stop = clamp(state.stop, 0, trace().stops.length - 1);
  if (name === "problem") {
    state.stop = 0;
    state.edge = state.neuron = null;
    state.sample = 0;
  }
  const same = steps().findIndex((s) => s.what === before.what && s.t === before.t);
  const phase = steps().findIndex((s) => phaseOf(s.what) === phaseOf(before.what));
  state.step = Math.max(same, same < 0 ? phase : 0, 0);
  draw();
}

function chooseEdge(t, i, j) {
  const before = step();
  state.edge = { t, i, j };
  state.neuron = i;
  if (state.rung === 1) {
    const same = steps().findIndex((s) => s.what === before.what);
    const first = steps().findIndex((s) => s.what === "edge");
    state.step = phaseOf(before.what) === "forward" ? first : before.what === "update" ? state.step : same < 0 ? first : same;
    state.step = clamp(state.step, 0, steps().length - 1);
  }
  draw();
}

function pick(text) {
  const [kind, ...numbers] = text.split(",");
  const [a, b, e] = numbers.map((n) => (n === "" ? null : Number(n)));
  if (kind === "entry") return chooseEdge(a, b, e);
  if (kind === "neuron") state.neuron = a;
  if (kind === "sample") state.sample = a;
  if (kind === "both") [state.sample, state.neuron] = [a, b];
  // Where the neurons are steps, the step of this neuron.
  const { what, t } = step();
  const own = steps().findIndex((s) => s.what === what && s.t === t && s.neuron === state.neuron);
  if (own >= 0) state.step = own;
  draw();
}

/// All edges in the order of θ, for the keys that go through them.
function edges() {
  return range(head() + 1).flatMap((t) => [
    ...range(widths()[t + 1]).flatMap((i) => range(widths()[t]).map((j) => ({ t, i, j }))),
    ...(hasConstant(t) ? range(widths()[t + 1]).map((i) => ({ t, i, j: null })) : []),
  ]);
}

function another(by) {
  const { what, t } = step();
  if (state.rung === 1 || what === "update" || (state.rung === 4 && what === "gradient")) {
    const own = state.rung === 1 && what !== "update" ? edges() : edges().filter((e) => e.t === t);
    const now = state.rung === 1 && what !== "update" ? edge() : edgeOf(t);
    const at = own.findIndex((e) => same(e, now));
    const to = own[(Math.max(at, 0) + by + own.length) % own.length];
    return chooseEdge(to.t, to.i, to.j);
  }
  if (state.rung === 4 && ["input", "head", "loss"].includes(what)) {
    const B = stop().batch.length;
    return pick(`sample,${(state.sample + by + B) % B}`);
  }
  const layer = { delta: t, layer: t + 1, gradient: t + 1 }[what];
  if (layer) pick(`neuron,${(neuronAt(layer) + by + widths()[layer]) % widths()[layer]}`);
}

let timer = null;
function play(on) {
  clearTimeout(timer);
  timer = null;
  if (on && !atEnd()) {
    const tick = () => {
      go(state.step + 1);
      timer = atEnd() ? null : setTimeout(tick, pace());
      if (!timer) play(false);
    };
    timer = setTimeout(tick, 300);
  }
  byId("play").innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${timer ? "M4 3h3v10H4zM9 3h3v10H9z" : "M5 3v10l7-5z"}"/></svg> ${timer ? "Pause" : "Play"}`;
  byId("play").setAttribute("aria-pressed", String(timer !== null));
}
const pace = () => (step().neuron === null ? 2400 : 900);

function toStop(to) {
  state.stop = clamp(to, 0, trace().stops.length - 1);
  draw();
}

const keys = {
  ArrowRight: () => go(state.step + 1), ArrowLeft: () => go(state.step - 1),
  Home: () => go(0), End: () => go(steps().length - 1),
  PageDown: () => toStop(state.stop + 1), PageUp: () => toStop(state.stop - 1),
  " ": () => play(!timer),
  1: () => choose("rung", 1), 2: () => choose("rung", 2), 3: () => choose("rung", 3), 4: () => choose("rung", 4),
  x: () => choose("problem", 0), s: () => choose("problem", 1),
  "[": () => another(-1), "]": () => another(1),
};

/// Whether the focused element needs this key itself.
function ownKey(target, key) {
  if (target.matches("input")) return key.startsWith("Arrow") || key.startsWith("Page") || key === "Home" || key === "End" || key === " ";
  if (target.matches("button, summary")) return key === " ";
  return target.matches(".scroll") && target.scrollWidth > target.clientWidth && key.startsWith("Arrow");
}

function fromAddress() {
  const [name, rung, training, at] = location.hash.slice(1).split("/");
  const problem = traces.findIndex((t) => t.name === name);
  if (problem < 0) return;
  state.edge = state.neuron = null;
  state.sample = 0;
  state.problem = problem;
  state.rung = clamp(Number(rung) || 2, 1, 4);
  const found = trace().stops.findLastIndex((s) => s.step <= (Number(training) || 0));
  state.stop = Math.max(found, 0);
  state.step = clamp((Number(at) || 1) - 1, 0, steps().length - 1);
}

function start() {
  fromAddress();
  choices("problems", traces.map((t) => [t.title, `the network ${t.widths.join("-")}`]), state.problem, 0);
  choices("rungs", rungNames, state.rung, 1);
  byId("choices").addEventListener("change", (event) => choose(event.target.name.slice(0, -1), Number(event.target.value)));
  byId("first").addEventListener("click", () => (state.step === 0 ? toStop(0) : go(0)));
  byId("back").addEventListener("click", () => go(state.step - 1));
  byId("next").addEventListener("click", () => go(state.step + 1));
  byId("play").addEventListener("click", () => play(!timer));
  byId("training").addEventListener("input", (event) => toStop(Number(event.target.value)));
  byId("curve").addEventListener("click", (event) => toStop(stopAt(event.clientX)));
  document.addEventListener("click", ({ target }) => {
    const found = target.closest("[data-step], [data-pick], [data-edge], [data-neuron]");
    if (!found) return;
    const { step: to, pick: text, edge, neuron } = found.dataset;
    if (to !== undefined) go(Number(to));
    else if (text !== undefined) pick(text);
    else if (edge !== undefined) pick(`entry,${edge}`);
    else pick(`neuron,${neuron.split(",")[1]}`);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || ownKey(event.target, event.key)) return;
    event.preventDefault();
    if (event.key !== " ") play(false);
    keys[event.key]();
  });
  window.addEventListener("hashchange", () => {
    fromAddress();
    draw();
  });
  window.addEventListener("resize", () => {
    measure();
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const name in colours) delete colours[name];
    draw();
  });
  play(false);
  measure();
  draw();
}

start();
