/* What is said of a case: sentences, numbers, tables. */

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
    const refused = refusedOn(card, given, program, training);
    const found = refused ? { refused } : run(of, program, training);
    const need = found.refused ? null : layersNeed(found, given.layers);
    const most = refused ? null : longestOf(given, program, training, card);
    return { program, found, need, most, fits: need !== null && need <= card.memory };
  });
  const own = rows.find(({ program }) => program === given.program);
  return { given, of, training, card, rows, own, ...own.found };
}

function percent(some, all) {
  const whole = Math.round((100 * Number(some)) / Number(all));
  return whole === 100 && some < all ? "over 99\u00a0%" : `${whole}\u00a0%`;
}
const gib = (card) => `${Number(card.memory / 2n ** 30n)} GiB`;
const called = (card) => `the ${card.name} (${gib(card)}, ${roughly(card.memory)})`;
const tokens = (n) => (n === 1 ? "1 token" : `${count(n)} tokens`);

/* The largest tensors, four at most: those that have half of the largest, or more. */
function largestOf(alive) {
  const sorted = alive.toSorted((a, b) => Number(b.bytes > a.bytes) - Number(a.bytes > b.bytes));
  return sorted.filter(({ bytes }) => 2n * bytes >= sorted[0].bytes).slice(0, 4);
}

const MODES = { inference: "in inference", training: "in training" };

/* What there is, whether it fits, and what would. */
function sentences({ given, card, requested, kept, alive, refused, rows, own, training }) {
  const { program, N, layers, mode } = given;
  const others = rows.filter((row) => row.fits && row.program !== program);
  const farthest = rows.reduce((a, row) => (row.most > a.most ? row : a));
  const instead = others.length
    ? `At these sizes ${list(others.map((row) => row.program))} would fit.`
    : `None would: ${farthest.program} goes farthest, to ${tokens(farthest.most)}.`;
  if (refused) return [`${program} does not take this case: ${refused}.`, instead];
  const large = largestOf(alive);
  const share = percent(large.reduce((sum, t) => sum + t.bytes, 0n), requested);
  const names = list(large.map(({ name }) => name));
  const [all, how] = [roughly(requested), MODES[mode]];
  const said = [
    N === 1
      ? `1 token needs ${all} ${how}, ${share} of it for ${names}.`
      : `${count(N)} tokens need ${all} ${how}, ${share} of it for ${names}.`,
  ];
  const several = layers > 1;
  if (training && several) {
    const adds = roughly(BigInt(layers - 1) * kept);
    said.push(`What the other ${count(layers - 1)} layers keep for backward adds ${adds}.`);
  }
  const reach = own.most ? `up to ${tokens(own.most)}` : "at no length";
  const where = called(card);
  if (!own.fits) return [...said, `It does not fit ${where}: there it runs ${reach}.`, instead];
  const fits = several
    ? `Attention alone fits ${where}, ${reach}; weights and the rest of the model come on top.`
    : `It fits ${where}, ${reach}.`;
  return [...said, fits];
}

function rowsInto(name, rows) {
  at(name).replaceChildren();
  for (const cells of rows) {
    const row = element(at(name), "tr");
    cells.forEach((cell, i) => {
      const number = /^(?:–|(?:over )?[\d,.]+(?:\s[^\s，]+)?)$/.test(cell) ? { class: "number" } : {};
      element(row, i ? "td" : "th", i ? number : { scope: "row" }).append(cell);
    });
  }
}

function show(found) {
  at("answer").replaceChildren();
  const { given, refused } = found;
  for (const sentence of sentences(found)) {
    const said = element(at("answer"), "p");
    for (const part of sentence.split(NAMES)) // each other program is a link to its case
      if (!(part in DATA.programs) || part === given.program) said.append(part);
      else linkTo(said, part, { ...given, program: part });
  }
  if (refused && given.G !== given.H) {
    const link = linkTo(element(at("answer"), "p"), "Repeat K and V", { ...given, G: given.H });
    link.after(` to ${count(given.H)} heads, and see what ${given.program} needs then.`);
  }
  root.dataset.state = found.refused ? "refused" : found.own.fits ? "fits" : "too-large";
  for (const part of root.querySelectorAll("[data-show=numbers]"))
    part.hidden = Boolean(found.refused);
  showPrograms(found);
  if (found.refused) return;
  showMemory(found);
  showSpeed(found);
  const { alive, timeline, requested } = found;
  const terms = termsOf(found, found.of);
  at("formula").textContent = formulaOf(terms);
  rowsInto("terms", terms.map((term) => [term.text, list(term.labels), exactly(term.bytes)]));
  rowsInto("alive", alive.map((t) => [t.name, exactly(t.bytes), percent(t.bytes, requested)]));
  const events = timeline.slice(0, ROWS).map(({ freed, label, bytes, live }, i) => [
    count(i + 1),
    freed ? `frees ${label}` : label,
    exactly(bytes),
    exactly(live),
  ]);
  const more = timeline.length - ROWS;
  if (more > 0) events.push(["…", `and ${count(more)} more`, "", ""]);
  rowsInto("timeline-table", events);
  draw(found);
}

const NAMES = new RegExp(`\\b(${Object.keys(DATA.programs).join("|")})\\b`);
const linkTo = (parent, text, given) =>
  element(parent, "a", { href: `#${address(given)}` }, text);

function showPrograms({ given, card, rows, training }) {
  const { layers, mode } = given;
  rowsInto("programs", rows.map(({ program, found, need, most, fits }) => {
    const link = linkTo(document.createElement("span"), program, { ...given, program });
    if (program === given.program) link.setAttribute("aria-current", "true");
    const reach = most === null ? "–" : count(most);
    if (need === null) return [link, "–", found.refused, reach];
    return [link, roughly(need), fits ? "it fits" : "too large", reach];
  }));
  const what =
    training && layers > 1
      ? `Peak of one layer and what ${count(layers - 1)} others keep`
      : "Reserved peak";
  at("programs-caption").textContent = `${what}, ${MODES[mode]}, on ${called(card)}`;
}

function showMemory({ given, card, requested, allocated, reserved, saved, kept, workspaces }) {
  const layers = BigInt(given.layers);
  const rows = [
    ["Requested", requested, "the sum of the tensors alive at the peak"],
    ["Allocated", allocated, "in blocks: what max_memory_allocated() shows, less the workspaces"],
    ["Reserved", reserved, "in segments: what the driver must give, less the workspaces"],
    ["Workspaces", BigInt(workspaces) * card.workspace, "of cuBLAS, in none of the three"],
  ];
  const each = layers > 1n ? `by ${count(layers)} layers, each ` : "";
  if (given.mode === "training")
    rows.push(["Kept for backward", layers * kept, `${each}Q, K, V, O and ${exactly(saved)}`]);
  rowsInto("memory", rows.map(([name, size, what]) => [name, roughly(size), exactly(size), what]));
}

function showSpeed({ card, flops, bytes, steps }) {
  const rates = `${count(card.bandwidth / 1e9)} GB/s, ${count(card.matrix / 1e12)} TFLOP/s`;
  const sheet = `the ${card.name}, by its data sheet: ${rates} of f16 products`;
  const intensity = SHORT.format(Number(flops) / Number(bytes));
  rowsInto("speed", [
    ["Arithmetic", flopsText(flops), `exactly ${count(flops)} FLOPs`],
    ["Traffic", roughly(bytes), `${exactly(bytes)}, if nothing stays in a cache`],
    ["Intensity", `${intensity}\u00a0FLOP/B`, "arithmetic over traffic"],
    ["Least time", secondsText(leastSeconds(steps, card)), `on ${sheet}`],
  ]);
}

function draw({ given, alive, timeline, requested, card }) {
  const largest = list(largestOf(alive).map((t) => `${t.name} with ${roughly(t.bytes)}`));
  drawBars(at("bars"), alive, `Alive at the peak, the largest: ${largest}.`);
  const place = timeline.findIndex((event) => event.live === requested);
  const when = `at event ${count(place + 1)}, where ${timeline[place].label} is allocated`;
  const events = `the ${count(timeline.length)} events of ${given.program}`;
  const label = `Memory over ${events}: it rises to ${roughly(requested)} ${when}.`;
  drawTimeline(at("timeline"), timeline, requested, card, label);
}
