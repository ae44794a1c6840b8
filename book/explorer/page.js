/* The page: what is chosen, in its fields and in the address, and what is shown of it. */

const root = document.getElementById("explorer");
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
function longestOf(given, program, training, card) {
  const { B, H, G, d, dtype } = given;
  const key = [B, H, G, d, dtype, program, training, card.name].join();
  if (!known.has(key)) known.set(key, longest(given, program, training, card.memory));
  return known.get(key);
}

/* All that is said of a case; `refused` alone if there is nothing else to say. */
function answer(given) {
  const of = sizesOf(given);
  const training = given.mode === "training";
  const card = CARDS.find(({ name }) => name === given.card);
  const found = run(of, given.program, training);
  const rows = Object.keys(DATA.programs).map((program) => {
    const { refused, reserved } = run(of, program, training);
    return { program, refused, reserved, longest: longestOf(given, program, training, card) };
  });
  const fits = rows.filter(({ refused, reserved }) => !refused && reserved <= card.memory);
  return { given, of, training, card, rows, fits, ...found };
}

const percent = (some, all) => `${Math.round(100 * (Number(some) / Number(all)))} %`;
const of32 = (dtype) => ({ float16: "16-bit floats", bfloat16: "bfloat16", float32: "32-bit floats" })[dtype];

/* One sentence for what there is, one for whether it fits, one for what would. */
function sentences({ given, card, requested, reserved, alive, refused, rows, fits, training }) {
  const { program, N } = given;
  const others = fits.filter((row) => row.program !== program).map((row) => row.program);
  const instead = others.length
    ? `At these sizes ${list(others)} would fit.`
    : "At these sizes no program of the list fits.";
  if (refused) return [`${program} does not take these sizes: ${refused}.`, others.length ? instead : ""];
  const largest = alive.reduce((a, t) => (t.bytes > a ? t.bytes : a), 0n);
  const large = alive.filter((tensor) => 2n * tensor.bytes > largest);
  const share = percent(large.reduce((sum, t) => sum + t.bytes, 0n), requested);
  const what = `${count(N)} tokens need ${roughly(requested)} in ${training ? "training" : "inference"}, ${share} of it for ${list(large.map((t) => t.name))}.`;
  const most = rows.find((row) => row.program === program).longest;
  const upTo = most ? `up to ${count(most)} tokens` : "at no length";
  if (reserved <= card.memory) return [what, `It fits an ${card.name}, ${upTo}.`];
  return [what, `It does not fit an ${card.name} of ${roughly(card.memory)}: there it runs ${upTo}.`, instead];
}

function rowsInto(name, rows) {
  at(name).replaceChildren();
  for (const cells of rows) {
    const row = element(at(name), "tr");
    cells.forEach((cell, i) => {
      const made = element(row, i ? "td" : "th", i ? {} : { scope: "row" });
      made.append(cell);
    });
  }
}

function show(found) {
  const { given, of, training, card, refused } = found;
  at("answer").replaceChildren();
  for (const sentence of sentences(found).filter(Boolean)) element(at("answer"), "p", {}, sentence);
  root.dataset.state = refused ? "refused" : found.reserved <= card.memory ? "fits" : "too-large";
  at("numbers").hidden = Boolean(refused);
  rowsInto("programs", found.rows.map((row) => {
    const link = document.createElement("a");
    link.href = `#${address({ ...given, program: row.program })}`;
    link.textContent = row.program;
    if (row.program === given.program) link.setAttribute("aria-current", "true");
    if (row.refused) return [link, "–", row.refused, row.longest ? count(row.longest) : "–"];
    const yes = row.reserved <= card.memory;
    return [link, roughly(row.reserved), yes ? "fits" : "too large", row.longest === null ? "–" : count(row.longest)];
  }));
  at("programs-caption").textContent =
    `All programs at these sizes, on an ${card.name}, in ${given.mode}`;
  if (refused) return;
  showNumbers(found);
  const terms = termsOf(found.alive, of);
  at("formula").textContent = formulaOf(terms);
  rowsInto("terms", terms.map((t) => [t.text, list(t.labels), exactly(t.bytes)]));
  rowsInto("alive", found.alive.map((t) => [t.name, exactly(t.bytes), percent(t.bytes, found.requested)]));
  rowsInto("timeline-table", found.timeline.map((event, i) => [
    String(i + 1), `${event.freed ? "frees " : ""}${event.label}`, exactly(event.bytes), exactly(event.live),
  ]));
  draw(found);
}

function showNumbers(found) {
  const { given, of, card, requested, allocated, reserved, saved, workspaces, flops, bytes, steps } = found;
  const own = 2n * of("B") * of("N") * of("d") * of("e") * (of("H") + of("G"));
  const kept = own + saved;
  const seconds = leastSeconds(steps, card);
  const rows = [
    ["Requested", requested, "the sum of the tensors alive at the peak"],
    ["Allocated", allocated, "in blocks: what max_memory_allocated() shows"],
    ["Reserved", reserved, "in segments: what the driver must give"],
  ].map(([name, size, what]) => [name, roughly(size), exactly(size), what]);
  const beside = `${workspaces} × ${exactly(card.workspace)}, in none of the three`;
  rows.push(["Workspaces of cuBLAS", roughly(BigInt(workspaces) * card.workspace), exactly(BigInt(workspaces) * card.workspace), beside]);
  if (given.mode === "training")
    rows.push(["Kept for backward", roughly(BigInt(given.layers) * kept), exactly(BigInt(given.layers) * kept),
      `${count(given.layers)} × (${exactly(own)} for Q, K, V, O + ${exactly(saved)})`]);
  rowsInto("memory", rows);
  const sheet = `its data sheet: ${count(card.bandwidth / 1e9)} GB/s, ${count(card.matrix / 1e12)} TFLOP/s of 16-bit products`;
  rowsInto("speed", [
    ["Arithmetic", flopsText(flops), `${count(flops)} FLOPs`],
    ["Traffic", roughly(bytes), `${exactly(bytes)}, if nothing stays in a cache`],
    ["Intensity", `${SHORT.format(Number(flops) / Number(bytes))} FLOP/B`, "arithmetic over traffic"],
    ["Least time", secondsText(seconds), `on an ${card.name} by ${sheet}`],
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
  const name = DATA.models.find(([, , H, G, d]) => H === given.H && G === given.G && d === given.d)?.[0];
  if (field("model").value && name === undefined) field("model").value = "";
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
