// What the network makes of the plane, and its loss in the course of training.

/// The colours of the style, which like the widths are looked up only where they may have changed.
const colours = {};
const css = (name) => (colours[name] ??= getComputedStyle(document.documentElement).getPropertyValue(name).trim());
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

function channels(colour) {
  const n = parseInt(colour.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

/// The levels of the map as colours: class 0, the paper between, class 1.
function heat(levels, cells) {
  const image = new ImageData(cells, cells);
  const [zero, middle, one] = ["--plane-0", "--plane-half", "--plane-1"].map((name) => channels(css(name)));
  levels.forEach((level, k) => {
    const share = (level + 0.5) / 2048 - 1;
    const to = share < 0 ? zero : one;
    const colour = middle.map((m, i) => m + (to[i] - m) * Math.abs(share));
    image.data.set([...colour, 255], 4 * k);
  });
  return image;
}

/// Calls line(x1, y1, x2, y2) for each piece of the border between the classes, in cells.
function border(levels, cells, line) {
  const at = (x, y) => levels[y * cells + x] + 0.5 - 2048;
  for (let y = 0; y + 1 < cells; y++) {
    for (let x = 0; x + 1 < cells; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const cuts = [];
      corners.forEach(([ax, ay], k) => {
        const [bx, by] = corners[(k + 1) % 4];
        const [a, b] = [at(ax, ay), at(bx, by)];
        if (a < 0 !== b < 0) cuts.push([ax + ((bx - ax) * a) / (a - b), ay + ((by - ay) * a) / (a - b)]);
      });
      for (let k = 0; k + 1 < cuts.length; k += 2) line(...cuts[k], ...cuts[k + 1]);
    }
  }
}

function drawPlane() {
  const canvas = document.getElementById("plane");
  const { x, y, extent, cells } = trace();
  const side = boxes.plane;
  const dots = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * dots);
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots);
  const digits = [...stop().map].map((letter) => letters.indexOf(letter));
  const levels = range(cells * cells).map((k) => 64 * digits[2 * k] + digits[2 * k + 1]);
  const small = document.createElement("canvas");
  small.width = small.height = cells;
  small.getContext("2d").putImageData(heat(levels, cells), 0, 0);
  const pitch = side / (cells - 1);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, -pitch / 2, -pitch / 2, pitch * cells, pitch * cells);
  pen.strokeStyle = css("--ink");
  pen.lineWidth = 1.6;
  pen.lineCap = "round";
  pen.beginPath();
  border(levels, cells, (x1, y1, x2, y2) => {
    pen.moveTo(x1 * pitch, y1 * pitch);
    pen.lineTo(x2 * pitch, y2 * pitch);
  });
  pen.stroke();
  const across = (v) => ((v - extent[0]) / (extent[1] - extent[0])) * side;
  const spot = (row, radius) => {
    pen.beginPath();
    pen.arc(across(x[row][0]), side - across(x[row][1]), radius, 0, 7);
  };
  x.forEach((_, row) => {
    spot(row, x.length > 10 ? 3.4 : 6);
    pen.fillStyle = css(y[row] ? "--pos" : "--neg");
    pen.fill();
    pen.strokeStyle = css("--card");
    pen.lineWidth = 1.2;
    pen.stroke();
  });
  stop().batch.forEach(({ row }, b) => {
    const current = b === sampleIndex();
    if (state.rung < 4 && !current) return;
    spot(row, (x.length > 10 ? 6 : 9) + (current ? 1.5 : 0));
    pen.strokeStyle = css("--ink");
    pen.lineWidth = current ? 2.6 : 1.2;
    pen.stroke();
  });
  document.getElementById("plane-text").innerHTML =
    `<span class="pos">●</span> 1 &ensp;<span class="neg">●</span> 0 &ensp;` +
    `◯ ${state.rung === 4 ? "batch" : "sample"} &ensp;` +
    `${number(here("right"), "plain", String)} of ${x.length} right`;
}

function drawCurve() {
  const svg = document.getElementById("curve");
  const [width, height, low] = [boxes.curve, 92, 18];
  const { curve } = trace();
  const last = curve[curve.length - 1][0];
  const most = Math.max(...curve.map(([, loss]) => loss));
  const across = (steps) => 6 + ((width - 14) * steps) / last;
  const up = (loss) => 8 + (height - low - 10) * (1 - loss / most);
  const path = curve.map(([steps, loss], k) => `${k ? "L" : "M"}${across(steps).toFixed(1)},${up(loss).toFixed(1)}`).join("");
  const ends = [[0, "start"], [last, "end"]];
  const ticks = ends.map(([n, anchor]) => `<text class="heading" style="text-anchor:${anchor}" x="${across(n)}" y="${height - 7}">${n}</text>`);
  const dot = stop();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.style.height = `${height}px`;
  svg.innerHTML =
    `<path class="axis" d="M4,${height - low}H${width - 4}"/>${ticks.join("")}<path class="loss" d="${path}"/>` +
    `<path class="tick" d="M${across(dot.step)},4V${height - low}"/><circle cx="${across(dot.step)}" cy="${up(dot.loss)}" r="5"/>`;
  document.getElementById("curve-text").innerHTML =
    `Mean loss ${num(here("loss"))} after ${number(here("step"), "plain", String)} steps`;
}

/// The stop that is nearest to where the curve was clicked.
function stopAt(clientX) {
  const box = document.getElementById("curve").getBoundingClientRect();
  const { stops } = trace();
  const last = stops[stops.length - 1].step;
  const at = ((clientX - box.left - 6) / (box.width - 14)) * last;
  const off = stops.map(({ step }) => Math.abs(step - at));
  return off.indexOf(Math.min(...off));
}
