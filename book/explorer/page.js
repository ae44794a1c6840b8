/* The page: what is chosen, in its fields and in the address, and what is shown of it. */

const root = document.getElementById("explore");
const form = root.querySelector("form");
const at = (name) => root.querySelector(`[data-show="${name}"]`);
const field = (name) => form.elements[name];

const CARDS = DATA.cards.map(([name, memory, workspace, bandwidth, matrix, vector, special]) => ({
  name, memory: BigInt(memory), workspace: BigInt(workspace), bandwidth, matrix, vector, special,
}));
const LIMITS = { B: 4096, H: 1024, G: 1024, N: 2 ** 20, d: 1024, layers: 1024 };
const CALLED = {
  B: "Batch", H: "Heads", G: "Heads of K and V", N: "Tokens", d: "Head dimension", layers: "Layers",
};
const STOPS = [1, 2];
while (STOPS.at(-1) < LIMITS.N) STOPS.push(1.5 * STOPS.at(-1), 2 * STOPS.at(-1));
const ROWS = 200; // of the table of events: only tiles have more
const CHOICES = ["program", "mode", "dtype", "card"];

/* The number in a field, or what is wrong with it. */
function numberIn(name) {
  const text = field(name).value.trim();
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= LIMITS[name]) return [value, ""];
  const got = text === "" ? "" : ` Not “${text.slice(0, 20)}”.`;
  return [null, `${CALLED[name]}: a whole number from 1 to ${count(LIMITS[name])}.${got}`];
}

/* The case in the fields, and a message for each field that has none. */
function read() {
  const found = {};
  const wrong = {};
  for (const name of CHOICES) found[name] = field(name).value;
  for (const name of Object.keys(LIMITS)) [found[name], wrong[name]] = numberIn(name);
  if (found.H && found.G && found.H % found.G)
    wrong.G = `${CALLED.G}: a number that divides the ${found.H} heads.`;
  for (const [name, message] of Object.entries(wrong)) {
    field(name).toggleAttribute("aria-invalid", Boolean(message));
    if (message) field(name).setAttribute("aria-invalid", "true");
    at(`wrong-${name}`).textContent = message;
  }
  const messages = Object.values(wrong).filter(Boolean);
  return messages.length ? { messages } : { given: found };
}

const known = new Map();
function longestOf({ B, H, G, d, dtype, layers }, program, training, card) {
  const key = [B, H, G, d, dtype, layers, program, training, card.name].join();
  if (!known.has(key))
    known.set(key, longest({ B, H, G, d, dtype }, program, training, card.memory, layers));
  return known.get(key);
}

/* All that is said of a case; of one that the program does not take, why: `refused`. */
function answer(given) {
  const of = sizesOf(given);
  const training = given.mode === "training";
  const card = CARDS.find(({ name }) => name === given.card);
  const rows = Object.keys(DATA.programs).map((program) => {
    const found = run(of, program, training);
    const need = found.refused ? null : layersNeed(found, given.layers);
    const most = longestOf(given, program, training, card);
    return { program, found, need, most, fits: need !== null && need <= card.memory };
  });
  const own = rows.find(({ program }) => program === given.program);
  return { given, of, training, card, rows, own, ...own.found };
}

function percent(some, all) {
  const whole = Math.round((100 * Number(some)) / Number(all));
  return whole === 100 && some < all ? "over 99 %" : `${whole} %`;
}
const called = (card) => `the ${card.name} (${Number(card.memory / 2n ** 30n)} GiB)`;

/* What there is, whether it fits, and what would. */
function sentences({ given, card, requested, kept, alive, refused, rows, own, training }) {
  const { program, N, layers } = given;
  const others = rows.filter((row) => row.fits && row.program !== program);
  const farthest = rows.reduce((a, row) => (row.most > a.most ? row : a));
  const instead = others.length
    ? `At these sizes ${list(others.map((row) => row.program))} would fit.`
    : `No program of the list would; ${farthest.program} goes farthest, to ${count(farthest.most)} tokens.`;
  if (refused) return [`${program} does not take these sizes: ${refused}.`, instead];
  const largest = alive.reduce((a, t) => (t.bytes > a ? t.bytes : a), 0n);
  const large = alive
    .filter((tensor) => 2n * tensor.bytes >= largest)
    .toSorted((a, b) => Number(b.bytes > a.bytes) - Number(a.bytes > b.bytes))
    .slice(0, 4);
  const share = percent(large.reduce((sum, t) => sum + t.bytes, 0n), requested);
  const names = list(large.map((tensor) => tensor.name));
  const said = [`${count(N)} tokens need ${roughly(requested)} in ${given.mode}, ${share} of it for ${names}.`];
  if (training && layers > 1)
    said.push(`What the other ${count(layers - 1)} layers keep for backward adds ${roughly(BigInt(layers - 1) * kept)}.`);
  const reach = own.most ? `up to ${count(own.most)} tokens` : "at no length";
  const beside = layers > 1 ? "; weights and the rest of the model come on top" : "";
  if (own.fits) return [...said, `It fits ${called(card)}, ${reach}${beside}.`];
  return [...said, `It does not fit ${called(card)}: there it runs ${reach}.`, instead];
}

function rowsInto(name, rows) {
  at(name).replaceChildren();
  for (const cells of rows) {
    const row = element(at(name), "tr");
    cells.forEach((cell, i) => {
      const number = /^(?:over )?[\d,.]+(?: \S+)?$/.test(cell) ? { class: "number" } : {};
      element(row, i ? "td" : "th", i ? number : { scope: "row" }).append(cell);
    });
  }
}

function show(found) {
  const { given, of, card, refused, own, rows } = found;
  at("answer").replaceChildren();
  for (const sentence of sentences(found)) element(at("answer"), "p", {}, sentence);
  root.dataset.state = refused ? "refused" : own.fits ? "fits" : "too-large";
  for (const part of root.querySelectorAll("[data-show=numbers]")) part.hidden = Boolean(refused);
  rowsInto("programs", rows.map(({ program, found, need, most, fits }) => {
    const link = document.createElement("a");
    link.href = `#${address({ ...given, program })}`;
    link.textContent = program;
    if (program === given.program) link.setAttribute("aria-current", "true");
    const reach = most === null ? "–" : count(most);
    return need === null ? [link, "–", found.refused, reach] : [link, roughly(need), fits ? "fits" : "too large", reach];
  }));
  at("programs-caption").textContent = `${given.mode === "training" && given.layers > 1 ? `Peak of one layer and what ${count(given.layers - 1)} others keep` : "Reserved peak"}, in ${given.mode}, on ${called(card)}`;
  if (refused) return;
  showNumbers(found);
  const terms = termsOf(found.alive, of);
  at("formula").textContent = formulaOf(terms);
  rowsInto("terms", terms.map((t) => [t.text, list(t.labels), exactly(t.bytes)]));
  rowsInto("alive", found.alive.map((t) => [t.name, exactly(t.bytes), percent(t.bytes, found.requested)]));
  const more = found.timeline.length - ROWS;
  const events = found.timeline.slice(0, ROWS).map((event, i) => [
    String(i + 1), `${event.freed ? "frees " : ""}${event.label}`, exactly(event.bytes), exactly(event.live),
  ]);
  rowsInto("timeline-table", more > 0 ? [...events, ["…", `and ${count(more)} more`, "", ""]] : events);
  draw(found);
}

function showNumbers(found) {
  const { given, of, card, requested, allocated, reserved, saved, kept, workspaces, flops, bytes, steps } = found;
  const layers = BigInt(given.layers);
  const seconds = leastSeconds(steps, card);
  const rows = [
    ["Requested", requested, "the sum of the tensors alive at the peak"],
    ["Allocated", allocated, "in blocks: what max_memory_allocated() shows"],
    ["Reserved", reserved, "in segments: what the driver must give"],
  ].map(([name, size, what]) => [name, roughly(size), exactly(size), what]);
  const beside = BigInt(workspaces) * card.workspace;
  rows.push(["Workspaces", roughly(beside), exactly(beside), "of cuBLAS, in none of the three"]);
  if (given.mode === "training")
    rows.push(["Kept for backward", roughly(layers * kept), exactly(layers * kept),
      `${layers > 1n ? `by ${count(layers)} layers, each ` : ""}Q, K, V, O and ${exactly(saved)}`]);
  rowsInto("memory", rows);
  const sheet = `its data sheet: ${count(card.bandwidth / 1e9)} GB/s, ${count(card.matrix / 1e12)} TFLOP/s of 16-bit products`;
  rowsInto("speed", [
    ["Arithmetic", flopsText(flops), `${count(flops)} FLOPs`],
    ["Traffic", roughly(bytes), `${exactly(bytes)}, if nothing stays in a cache`],
    ["Intensity", `${SHORT.format(Number(flops) / Number(bytes))} FLOP/B`, "arithmetic over traffic"],
    ["Least time", secondsText(seconds), `on the ${card.name}, by ${sheet}`],
  ]);
}

let shown = null;
function draw({ given, alive, timeline, requested, card }) {
  const largest = alive.toSorted((a, b) => (a.bytes < b.bytes ? 1 : -1)).slice(0, 3);
  drawBars(at("bars"), alive, `Alive at the peak, the largest first: ${largest.map((t) => `${t.name} ${roughly(t.bytes)}`).join(", ")}.`);
  const when = timeline.findIndex((event) => event.live === requested);
  drawTimeline(at("timeline"), timeline, requested, card,
    `Memory over the ${timeline.length} events of ${given.program}: it rises to ${roughly(requested)} at event ${when + 1}, where ${timeline[when].label} is allocated.`);
}

/* The case as it stands in the address. */
function address(given) {
  return new URLSearchParams([...CHOICES, ...Object.keys(LIMITS)].map((name) => [name, given[name]])).toString();
}

/* Put the case of the address into the fields; what it does not say stays. */
function readAddress() {
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (CHOICES.includes(name) && ![...form.querySelectorAll(`[name=${name}]`)].some((x) => x.value === value || [...(x.options ?? [])].some((o) => o.value === value)))
      continue;
    if (field(name)) field(name).value = value;
  }
}

function update() {
  const { messages, given } = read();
  root.toggleAttribute("data-wrong", Boolean(messages));
  at("results").hidden = Boolean(messages);
  if (messages) {
    at("answer").replaceChildren();
    for (const message of messages) element(at("answer"), "p", {}, message);
    root.dataset.state = "wrong";
    shown = null;
    return;
  }
  const nearest = STOPS.reduce((a, b) => (Math.abs(b - given.N) < Math.abs(a - given.N) ? b : a));
  form.elements.slider.value = STOPS.indexOf(nearest);
  form.elements.slider.setAttribute("aria-valuetext", `${count(given.N)} tokens`);
  const like = DATA.models.filter(([, layers, H, G, d]) =>
    H === given.H && G === given.G && d === given.d && layers === given.layers);
  if (!like.some(([name]) => name === field("model").value)) field("model").value = like[0]?.[0] ?? "";
  shown = answer(given);
  show(shown);
  history.replaceState(null, "", `#${address(given)}`);
}

/* A preset: the sizes of a model, and its context. */
function choose(name) {
  const [, layers, H, G, d, N] = DATA.models.find(([other]) => other === name);
  for (const [key, value] of Object.entries({ layers, H, G, d, N })) field(key).value = value;
}

for (const [name, options] of [
  ["program", Object.keys(DATA.programs)],
  ["card", CARDS.map((card) => card.name)],
  ["model", DATA.models.map(([model]) => model)],
])
  for (const option of options) element(field(name), "option", { value: option }, option);
for (const [i, card] of CARDS.entries())
  field("card").options[i].textContent = `${card.name}, ${Number(card.memory / 2n ** 30n)} GiB`;
field("card").value = "RTX 4090";
form.elements.slider.max = STOPS.length - 1;

let heads = field("H").value;
form.addEventListener("input", ({ target }) => {
  if (target.name === "slider") field("N").value = STOPS[target.value];
  if (target.name === "model" && target.value) choose(target.value);
  if (target.name === "H" && field("G").value === heads) field("G").value = target.value;
  heads = field("H").value;
  update();
});
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  if (!location.hash.includes("=")) return;
  readAddress();
  update();
});
new ResizeObserver(() => shown && !shown.refused && draw(shown)).observe(at("bars"));
readAddress();
heads = field("H").value;
root.hidden = false;
update();

/* For those who want numbers, and for the tests. */
window.explorer = { run, sizesOf, longest, leastSeconds, termsOf, formulaOf, CARDS, DATA };
