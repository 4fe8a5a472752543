// Tests docs/backprop.html in Chromium: node walk.mjs CHROMIUM PAGE [PICTURE]; see ci/walk.
//
// Every number on the page names its place in the trace, and must be what stands there, in the form
// of the page. Where the page writes a result out as a sum of products, the sum is computed here and
// may differ from the result by the rounding of f32 at most.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, file, picture] = process.argv.slice(2);
const address = pathToFileURL(resolve(file)).href;
const began = Date.now();

const profile = mkdtempSync(join(tmpdir(), "walk-"));
const flags = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"];
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: flags.map((flag) => `--${flag}`),
  viewport: { width: 1280, height: 900 },
  colorScheme: "light",
});
const complaints = [];
const page = await context.newPage();
page.setDefaultTimeout(5000);
page.on("console", (message) => complaints.push(`console: ${message.text()}`));
page.on("pageerror", (error) => complaints.push(`error: ${error.stack}`));
page.on("request", (request) => request.url().startsWith(address) || complaints.push(`request: ${request.url()}`));

await page.addInitScript({ content: `window.look = ${wrongNumbers}` });

/// Opens the page.
async function load(place = "") {
  await page.goto("about:blank");
  await page.goto(address + place);
}

/// Goes to a place on the page: problem, rung, training steps made, and step of the walk, from 1.
async function open(...place) {
  const hash = `#${place.join("/")}`;
  if (!page.url().startsWith(address)) return load(hash);
  await page.evaluate((hash) => {
    history.replaceState(null, "", hash);
    fromAddress();
    draw();
  }, hash);
}

/// The place that the address of the page names.
const place = async () => (await page.evaluate(() => location.hash.slice(1))).split("/").map((part, k) => (k ? Number(part) : part));
const key = (name) => page.keyboard.press(name);

/// What is wrong with the numbers that are shown, how many there are, and the sums that they make.
/// This runs in the page, where it is called `look`.
function wrongNumbers() {
  window.parsed ??= JSON.parse(document.getElementById("trace").textContent);
  const trace = window.parsed.find((t) => location.hash.startsWith(`#${t.name}/`));
  const at = (path) => path.split(".").reduce((value, key) => value[key], trace);
  const minus = (text) => text.replaceAll("-", "−");
  // A number that is rounded to so many decimals, or if it is too small for them to so many digits.
  const rounded = (v, decimals, digits) => {
    if (v === 0 || Number.isInteger(v)) return minus(String(v === 0 ? 0 : v));
    const plain = Number(v).toFixed(decimals);
    return minus(Math.abs(v) < digits[0] ? v.toExponential(digits[1]) : plain);
  };
  const forms = {
    full: (v) => rounded(v, 4, [0.00995, 2]),
    brief: (v) => {
      const size = Math.abs(v);
      return rounded(v, size < 0.00995 ? 3 : size < 9.95 ? 2 : size < 99.5 ? 1 : 0, [0.000995, 0]);
    },
    plain: (v) => minus(String(v)),
    row: (v) => String(v + 1),
  };
  const wrong = [];
  const shown = [...document.querySelectorAll("[data-at]")];
  for (const element of shown) {
    const value = at(element.dataset.at);
    if (typeof value !== "number" || !Number.isFinite(value)) wrong.push(`${element.dataset.at} is ${value}`);
    else {
      const expected = forms[element.dataset.form](value);
      const text = element.firstChild.data;
      if (text !== expected) wrong.push(`${element.dataset.at}: ${text} is shown, expected ${expected}`);
      const whole = element.querySelector("title")?.textContent ?? element.getAttribute("title");
      if (whole !== minus(String(value))) wrong.push(`${element.dataset.at}: ${whole} is its title`);
    }
  }
  const said = document.getElementById("say").textContent;
  for (const part of ["say", "equation", "loops", "matrices", "net"]) {
    const text = document.getElementById(part).textContent;
    if (!text.trim() || /undefined|NaN|null|\[object/.test(text)) wrong.push(`${part}: ${text}`);
  }
  return { wrong, count: shown.length, said, sums: [...sums(at), ...products(at)] };

  /// Each sum of the loop form, as its terms, which are lists of factors, and its result.
  function sums(at) {
    if (step().what === "loss") return [];
    const found = [];
    let terms = [];
    let mean = 1;
    for (const row of document.querySelectorAll("#loops .sums > div")) {
      const lead = row.children[0].textContent;
      const [factors, results] = [[], []];
      for (const node of row.children[1].childNodes) {
        const side = results.begun ? results : factors;
        // A bracket and its number are in a text node and an element.
        if (node.nodeType === Node.ELEMENT_NODE) side.push(at(node.dataset.at));
        else {
          const literal = node.data.split("=")[0].replace(/[()·\s]/g, "");
          if (literal) factors.push(Number(literal));
          results.begun ||= node.data.includes("=");
        }
      }
      if (results.begun) found.push({ terms: [factors], result: results[0] });
      else if (row.className === "result") {
        if (terms.length) found.push({ terms, result: factors[0], slack: step().what === "update" ? ofUpdate() : 0 });
        terms = [];
      } else {
        mean = Number(lead.match(/1\/(\d+)/)?.[1] ?? mean);
        terms.push([...factors, 1 / mean, lead === "−" ? -1 : 1]);
      }
    }
    return found;

    // An update's gradient is a sum itself, whose terms may cancel.
    function ofUpdate() {
      const { t, i, j } = edgeOf(step().t);
      const { batch } = stop();
      const terms = batch.map((b) => (t === head() ? b.dy : b.delta[t][i]) * (j === null ? 1 : b.z[t][j]));
      return (trace.eta / batch.length) * terms.reduce((a, b) => a + Math.abs(b), 0);
    }
  }

  /// Each entry of the products in the matrix form, likewise.
  function products(at) {
    const { what } = step();
    const cells = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => (cell.dataset.at ? at(cell.dataset.at) : Number(cell.textContent))));
    const found = [];
    const compare = (a, b, c, plus = null, scale = 1) => {
      const [left, right] = [cells(a), cells(b)];
      for (const [r, row] of [...c.rows].entries()) {
        for (const [k, cell] of [...row.cells].entries()) {
          const terms = left[r].map((v, q) => [v, right[q][k], scale]);
          if (plus) terms.push([cells(plus)[r][k]]);
          const masked = what === "delta" && cell.classList.contains("off");
          found.push({ terms: masked ? [] : terms, result: cells(c)[r][k] });
        }
      }
    };
    for (const falk of document.querySelectorAll("#matrices .falk")) {
      const [b, a, c] = falk.querySelectorAll("table");
      compare(a, b, c, null, what === "gradient" && state.rung === 4 ? 1 / stop().batch.length : 1);
    }
    for (const line of document.querySelectorAll("#matrices > .line")) {
      const tables = [...line.querySelectorAll("table")];
      const signs = [...line.querySelectorAll(".sign")].map((sign) => sign.textContent);
      if (state.rung === 4 || what === "update" || !signs.includes("=")) continue;
      // The result of a product is the last table but for the layer's outputs and the chain's mask.
      const last = { layer: -2, spread: -2 }[what] ?? (signs.at(-1) === "⊙" ? -2 : -1);
      const plus = signs[0] === "+" ? tables[2] : null;
      compare(tables[0], tables[1], tables.at(last), plus);
    }
    return found;
  }
}

/// The bound of a chain of as many fused multiply-adds in f32 as there are terms, or samples in a
/// mean, with the roundings of factors before it.
function checkSum({ terms, result, slack = 0 }, where) {
  const products = terms.map((factors) => factors.reduce((a, b) => a * b, 1));
  const exact = products.reduce((a, b) => a + b, 0);
  const size = products.reduce((a, b) => a + Math.abs(b), 0);
  const n = terms.length + (slack ? 10 : 3);
  const unit = 2 ** -24;
  const bound = ((n * unit) / (1 - n * unit)) * (size + slack);
  assert.ok(Math.abs(exact - result) <= bound, `${where}: ${exact} is the sum of what is written, and ${result} its result`);
}

let [numbers, summed, visited] = [0, 0, 0];
function judge({ wrong, count, sums }, where) {
  assert.deepEqual(wrong, [], where);
  assert.ok(count > 12, `${where}: ${count} numbers`);
  for (const sum of sums) checkSum(sum, where);
  numbers += count;
  summed += sums.length;
  visited += 1;
}

/// Checks what is shown now.
const check = async (where) => judge(await page.evaluate(() => look()), where);

/// Every step of every way at some stops, by the page's own way to go to a step.
async function everyStep() {
  for (const [problem, stops] of [["xor", [0, 15]], ["spirals", [2200]]]) {
    for (const rung of [1, 2, 3, 4]) {
      for (const made of stops) {
        await open(problem, rung, made, 1);
        const views = await page.evaluate(() => steps().map((_, k) => (go(k), look())));
        assert.ok(views.length > 10, `${problem}, rung ${rung}: ${views.length} steps`);
        views.forEach((view, k) => {
          const where = `${problem}, rung ${rung}, after ${made} steps, step ${k + 1}`;
          judge(view, where);
          assert.notEqual(view.said, views[k - 1]?.said, `${where}: a reader hears of it`);
        });
      }
    }
  }
}

/// Every edge in turn, as ] takes them, in steps of its chain; and other neurons and samples.
async function everyEdge() {
  for (const [problem, made, parameters] of [["xor", 15, 22], ["spirals", 2200, 97]]) {
    for (const what of problem === "xor" ? ["edge", "out", "product"] : ["out"]) {
      await open(problem, 1, made, 6);
      const views = await page.evaluate(
        ([what, parameters]) =>
          range(parameters).map(() => {
            go(Math.max(steps().findIndex((s) => s.what === what), 5));
            const view = { ...look(), edge: JSON.stringify(edge()) };
            another(1);
            return view;
          }),
        [what, parameters],
      );
      views.forEach((view, k) => judge(view, `${problem}, ${what} of edge ${k}`));
      assert.equal(new Set(views.map((view) => view.edge)).size, parameters, `${problem}: it comes to every edge`);
    }
    await open(problem, 4, made, 1);
    const views = await page.evaluate(() => steps().flatMap((_, k) => [1, 1, -1].map((by) => (go(k), another(by), look()))));
    views.forEach((view, k) => judge(view, `${problem}, rung 4, view ${k}`));
  }
}

/// A whole training step by the keyboard alone.
async function byKeys() {
  await open("xor", 2, 15, 1);
  const count = await page.evaluate(() => steps().length);
  for (let at = 1; at <= count; at++) {
    assert.deepEqual(await place(), ["xor", 2, 15, at]);
    await key("ArrowRight");
  }
  assert.deepEqual(await place(), ["xor", 2, 20, 1], "after the update comes the next stop");
  await key("End");
  await key("ArrowLeft");
  assert.equal((await place())[3], count - 1, "← is one step back");
  await open("xor", 1, 15, 8);
  const edge = await page.evaluate(() => JSON.stringify(edge()));
  await key("]");
  assert.notEqual(await page.evaluate(() => JSON.stringify(edge())), edge);
  await key("[");
  assert.equal(await page.evaluate(() => JSON.stringify(edge())), edge);
}

/// The slider, by keys and by setting it: what is shown is what was trained by then.
async function slider() {
  await open("spirals", 3, 0, 9);
  const range = page.locator("#training");
  await range.focus();
  const stops = await page.evaluate(() => traces[1].stops.map((s) => [s.step, s.loss]));
  for (const [k, [made, loss]] of stops.entries()) {
    assert.deepEqual(await place(), ["spirals", 3, made, 9]);
    await check(`slider at ${k}`);
    const text = await range.getAttribute("aria-valuetext");
    assert.ok(text.startsWith(`training step ${made + 1}, mean loss `) && Math.abs(text.split(" ").at(-1).replace("−", "-") - loss) < 0.005 * loss, text);
    await key("ArrowRight");
  }
  await key("Home");
  assert.deepEqual(await place(), ["spirals", 3, 0, 9]);
  await range.fill("5");
  assert.deepEqual(await place(), ["spirals", 3, stops[5][0], 9]);
  const heat = () => page.evaluate(() => document.getElementById("plane").toDataURL());
  const early = await heat();
  await range.fill(String(stops.length - 1));
  assert.ok((await heat()) !== early, "the plane changes with training");
  const curve = await page.locator("#curve").boundingBox();
  await page.mouse.click(curve.x + curve.width - 8, curve.y + 40);
  assert.equal((await place())[2], 6000, "a click on the curve goes there");
}

async function keysAndClicks() {
  await load("#spirals/3/2200/9");
  assert.deepEqual(await place(), ["spirals", 3, 2200, 9], "a page opens where its address says");
  await page.evaluate(() => (location.hash = "#xor/4/15/2"));
  await page.waitForFunction(() => state.problem === 0 && state.rung === 4, null, { timeout: 5000 });
  await load();
  assert.equal((await place())[0], "xor", "it begins with XOR");
  for (const rung of [1, 2, 3, 4]) {
    await key(String(rung));
    assert.equal((await place())[1], rung);
    assert.ok(await page.locator(`#rungs input[value="${rung}"]`).isChecked());
  }
  await key("s");
  assert.equal((await place())[0], "spirals");
  await key("x");
  assert.equal((await place())[0], "xor");
  await key("End");
  const last = (await place())[3];
  assert.equal(last, await page.evaluate(() => steps().length));
  await key("ArrowRight");
  assert.deepEqual((await place()).slice(2), [1, 1], "after the update comes the next training step");
  await key("ArrowLeft");
  assert.deepEqual((await place()).slice(2), [0, last], "and back");
  await key("Home");
  await key("PageDown");
  assert.deepEqual((await place()).slice(2), [1, 1]);
  await key("PageUp");
  assert.ok(await page.getByRole("button", { name: "Step back" }).isDisabled(), "there is nothing before the first step");
  await page.getByRole("button", { name: "Step on" }).click();
  assert.equal((await place())[3], 2);
  await page.getByRole("button", { name: "First step" }).click();
  assert.equal((await place())[3], 1);
  await page.evaluate(() => document.activeElement.blur());
  await key(" ");
  await page.waitForFunction(() => state.step >= 1);
  assert.equal(await page.locator("#play").getAttribute("aria-pressed"), "true");
  await key(" ");
  assert.equal(await page.locator("#play").getAttribute("aria-pressed"), "false");
  // The way by its radio buttons: arrow keys choose, and do not step.
  await page.locator("#rungs input:checked").focus();
  const before = await place();
  await key("ArrowLeft");
  assert.deepEqual([(await place())[1], (await place())[3]], [before[1] - 1, before[3]]);
  await page.evaluate(() => document.activeElement.blur());

  await open("spirals", 1, 2500, 7);
  await page.locator('[data-edge="1,4,2"]').dispatchEvent("click");
  assert.deepEqual(await page.evaluate(() => [edge(), step().t]), [{ t: 1, i: 4, j: 2 }, 1], "a click on an edge takes it");
  assert.equal(await page.locator("#net .edge.chosen").count(), 1);
  await check("after a click on an edge");
  await open("spirals", 2, 2500, 1);
  await page.locator("#steps button", { hasText: "δ[2]" }).first().click();
  assert.deepEqual(await page.evaluate(() => [step().what, step().t, step().neuron]), ["delta", 2, 0]);
  await page.locator('#matrices td[data-pick="neuron,6"]').first().click();
  assert.deepEqual(await page.evaluate(() => [step().what, step().t, step().neuron]), ["delta", 2, 6], "a click on a cell goes to its neuron");
  await open("spirals", 4, 2500, 2);
  await page.locator('#matrices td[data-pick="both,2,5"]').first().click();
  assert.deepEqual(await page.evaluate(() => [sampleIndex(), neuronAt(1)]), [2, 5]);
  await check("after a click on a cell");
}

/// Paths of the chosen edge: as many edges are lit as the trace has neurons that are on.
async function paths() {
  await open("spirals", 1, 2500, 8);
  const found = await page.evaluate(() => {
    const [first, second] = sample().mask;
    const lit = [...document.querySelectorAll("#net .edge.lit")].length;
    const broken = [...document.querySelectorAll("#net .edge.broken")].length;
    return { what: step().what, on: first[edge().i], through: second.filter((m) => m).length, all: second.length, lit, broken };
  });
  assert.equal(found.what, "out");
  assert.equal(found.on, 1);
  assert.deepEqual([found.lit, found.broken], [found.all + found.through, found.all - found.through]);
}

/// The places to which the text of the lecture leads are on the page.
async function lecture() {
  const text = readFileSync(join(dirname(file), "lecture.md"), "utf8");
  const links = [...text.matchAll(/backprop\.html#([^)]*)/g)].map((match) => match[1]);
  assert.ok(links.length > 15);
  for (const link of links) {
    await open(link);
    assert.equal(await page.evaluate(() => location.hash.slice(1)), link);
  }
}

const luminance = ([r, g, b]) => {
  const [R, G, B] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * R + 0.7152 * G + 0.0722 * B;
};

/// Both colour schemes, and that text stands out: the ratios are those of WCAG, level AA.
async function schemes() {
  const papers = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await load("#spirals/4/2800/9");
    const colours = await page.evaluate(() =>
      Object.fromEntries(["paper", "card", "ink", "soft", "pos", "neg", "forward", "backward", "update"].map((name) => [name, channels(css(`--${name}`))])),
    );
    const body = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
    assert.deepEqual(body, colours.paper);
    papers.push(luminance(colours.paper));
    for (const [name, colour] of Object.entries(colours)) {
      if (["paper", "card"].includes(name)) continue;
      for (const ground of ["paper", "card"]) {
        const [low, high] = [luminance(colour), luminance(colours[ground])].sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        assert.ok(ratio >= (name === "ink" ? 7 : 4.5), `${colorScheme}: ${name} on ${ground} has the contrast ${ratio.toFixed(2)}`);
      }
    }
    await check(`${colorScheme} colours`);
  }
  assert.ok(papers[0] > 0.8 && papers[1] < 0.05);
  // A page that is open follows a change.
  const dark = await page.evaluate(() => document.getElementById("plane").toDataURL());
  await page.emulateMedia({ colorScheme: "light" });
  // The plane is drawn again in the other colours, or this waits in vain.
  await page.waitForFunction((dark) => document.getElementById("plane").toDataURL() !== dark, dark);
}

/// Narrow and wide: nothing is wider than the window, and the drawing is that of its width.
async function widths() {
  for (const width of [320, 390, 768, 1280, 1920]) {
    await page.setViewportSize({ width, height: 844 });
    await load();
    for (const [problem, rung, at] of [["xor", 1, 8], ["spirals", 2, 20], ["spirals", 4, 9], ["spirals", 4, 12]]) {
      await open(problem, rung, problem === "xor" ? 15 : 2800, at);
      await check(`${problem}, rung ${rung}, ${width} wide`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${problem}, rung ${rung}: ${wide} wide in a window of ${width}`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
}

/// What a screen reader has: names of controls, the step as it changes, captions of matrices.
async function spoken() {
  await open("spirals", 3, 2800, 9);
  assert.equal(await page.locator("#say").getAttribute("aria-live"), "polite");
  assert.ok(await page.evaluate(() => [...document.querySelectorAll("button, input")].every((e) => e.textContent.trim() || e.ariaLabel || e.labels?.[0]?.textContent.trim())));
  assert.ok(await page.evaluate(() => [...document.querySelectorAll("#matrices table")].every((t) => /by/.test(t.caption.textContent))));
  assert.ok(await page.evaluate(() => [...document.querySelectorAll("svg[role=img], canvas")].every((e) => document.getElementById(e.getAttribute("aria-labelledby")).textContent.trim())));
  assert.equal(await page.locator('#steps [aria-current="step"]').count(), 1);
}

/// The page without its controls at the bottom, as wide as a README.
async function takePicture() {
  await page.setViewportSize({ width: 1080, height: 1200 });
  await page.emulateMedia({ colorScheme: "light" });
  await load("#spirals/3/2500/9");
  const end = await page.evaluate(() => {
    document.querySelector("footer").style.display = "none";
    return document.querySelector(".forms").getBoundingClientRect().bottom;
  });
  await page.screenshot({ path: picture, clip: { x: 0, y: 0, width: 1080, height: end + 16 } });
}

try {
  for (const test of [everyStep, everyEdge, byKeys, slider, keysAndClicks, paths, schemes, widths, spoken, lecture]) await test();
  assert.deepEqual([...new Set(complaints)], []);
  if (picture) await takePicture();
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
const seconds = ((Date.now() - began) / 1000).toFixed(0);
console.log(`walk: ${visited} views, ${numbers} numbers as in the trace, ${summed} sums and products checked, in ${seconds} s`);
