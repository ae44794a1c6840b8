/* Pictures: what is alive at the peak, and memory over the run. */

const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, attributes = {}, text = "") {
  const space = parent.namespaceURI === SVG || name === "svg" ? SVG : parent.namespaceURI;
  const made = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return parent.appendChild(made);
}

function canvas(parent, height, label) {
  const width = Math.max(280, parent.clientWidth || 700);
  parent.replaceChildren();
  const svg = element(parent, "svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": label,
  });
  return [svg, width];
}

/* Whether a size grows with the square of N. */
const isSquare = (sum) =>
  DATA.sums[sum].slice(1).some(([, ...places]) => {
    const rows = places.filter((place) => /^(?:[NM]|ceil\([NM])/.test(DATA.factors[place]));
    return rows.length > 1;
  });

function drawBars(parent, tensors, label) {
  const row = 26;
  const [svg, width] = canvas(parent, row * tensors.length + 4, label);
  const names = Math.min(0.45 * width, 8 + 7 * Math.max(...tensors.map((t) => t.name.length)));
  const room = width - names - 84;
  const most = Number(tensors.reduce((a, t) => (t.bytes > a ? t.bytes : a), 0n));
  tensors.forEach(({ name, sum, bytes }, i) => {
    const y = row * i + 2;
    const long = Math.max(1, (room * Number(bytes)) / most);
    const cut = Math.floor(names / 7);
    const text = name.length > cut ? `${name.slice(0, cut - 5)}…${name.slice(-4)}` : name;
    element(svg, "text", { x: names - 8, y: y + 16, "text-anchor": "end" }, text);
    element(svg, "rect", {
      x: names, y: y + 3, width: long, height: row - 8, rx: 2,
      class: isSquare(sum) ? "square" : "linear",
    });
    element(svg, "text", { x: names + long + 6, y: y + 16, class: "number" }, roughly(bytes));
  });
}

function drawTimeline(parent, timeline, peak, card, label) {
  const height = 210;
  const [svg, width] = canvas(parent, height, label);
  const [left, right, top, bottom] = [8, 8, 28, 24];
  const most = Number(peak);
  const x = (i) => left + ((width - left - right) * i) / timeline.length;
  const y = (bytes) => height - bottom - ((height - top - bottom) * Number(bytes)) / most;
  const base = y(0);
  const path = timeline.map(({ live }, i) => `H${x(i + 0.5).toFixed(1)}V${y(live).toFixed(1)}`);
  const line = `M${left} ${base}${path.join("")}H${width - right}`;
  element(svg, "path", { d: `${line}V${base}Z`, class: "area" });
  const dO = timeline.findIndex((event) => event.label === "dO");
  if (dO > 0) {
    element(svg, "line", { x1: x(dO), x2: x(dO), y1: top - 8, y2: base, class: "mark" });
    element(svg, "text", { x: x(dO) + 4, y: height - 6 }, "backward");
  }
  element(svg, "text", { x: left, y: height - 6 }, "forward");
  if (card.memory < most) {
    const at = y(card.memory);
    element(svg, "line", { x1: left, x2: width - right, y1: at, y2: at, class: "limit" });
    element(svg, "text", { x: left + 4, y: at - 5 }, `${card.name}, ${gib(card)}`);
  }
  element(svg, "line", { x1: left, x2: width - right, y1: base, y2: base, class: "axis" });
  element(svg, "path", { d: line, class: "line" });
  const at = timeline.findIndex((event) => event.live === peak);
  const late = x(at) > 0.6 * width;
  element(svg, "circle", { cx: x(at + 0.75), cy: top, r: 4, class: "peak" });
  const anchor = late ? "end" : "start";
  const place = { x: x(at + 0.5) + (late ? -4 : 12), y: top - 10, "text-anchor": anchor };
  element(svg, "text", place, `peak ${roughly(peak)}`);
}
