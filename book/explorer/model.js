/* What a program allocates at any sizes, and what PyTorch's allocator takes for it. Bytes and FLOPs
   are BigInt: none is lost. The lists of programs come from traces: attnmem/lessons/explorer.py. */

const DATA = JSON.parse(document.getElementById("explorer-data").textContent);
const ELEMENT = { float16: 2, bfloat16: 2, float32: 4 };

const ceil = (size, part) => (size + part - 1n) / part;
const roundUp = (size, multiple) => ceil(size, multiple) * multiple;
const least = (a, b) => (a < b ? a : b);

/* Sizes that kernels work out by their own rules, as attnmem/prediction/kernels/fused.py does. */
const OF_KERNELS = {
  flash_head_dim: (of) => roundUp(of("d"), of("d") <= 128n ? 32n : 64n),
  efficient_splits: (of) => {
    const most = least(ceil(of("M"), 64n), 200n / (of("B") * of("H")));
    return most < 1n ? 1n : most;
  },
  flash_splits: (of) => {
    const d = of("d");
    const blocks = Number(ceil(of("M"), d <= 64n ? 256n : d <= 128n ? 128n : 64n));
    const tiles = Number(of("B") * of("H") * ceil(of("N"), 64n));
    const slots = 2 * DATA.multiprocessors;
    if (tiles >= 0.8 * slots) return 1n;
    const efficiency = new Map();
    for (let splits = 1; splits <= Math.min(128, slots, blocks); splits++) {
      if (splits > 1 && Math.ceil(blocks / splits) === Math.ceil(blocks / (splits - 1))) continue;
      const waves = (tiles * splits) / slots;
      efficiency.set(splits, waves / Math.ceil((tiles * splits) / slots));
    }
    const best = Math.max(...efficiency.values());
    const good = [...efficiency.keys()].filter((splits) => efficiency.get(splits) >= 0.85 * best);
    return BigInt(Math.min(...good));
  },
};

/* The sizes of a case by their names, such as N, ceil(N/64) and flash_splits. */
function sizesOf({ B, H, N, d, G, dtype }) {
  const named = { B, H, N, d, G, M: N, v: d, e: ELEMENT[dtype] };
  const found = new Map(Object.entries(named).map(([name, size]) => [name, BigInt(size)]));
  found.set("dtype", dtype);
  const of = (name) => {
    if (!found.has(name)) {
      const [, kind, size, parts] = name.match(/^(ceil|rest)\((\w)\/(\d+)\)$/) ?? [];
      if (kind === "ceil") found.set(name, ceil(of(size), BigInt(parts)));
      else if (kind === "rest") found.set(name, ((of(size) - 1n) % BigInt(parts)) + 1n);
      else if (name === "min(H, N)") found.set(name, least(of("H"), of("N")));
      else found.set(name, OF_KERNELS[name](of));
    }
    return found.get(name);
  };
  return of;
}

const RELATIONS = {
  "==": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
};

/* Whether a condition such as "d % 8 == 0" holds. */
function holds(condition, of) {
  const [, left, divisor, relation, right] = condition.match(
    /^(.+?)(?: % (\d+))? (==|!=|<=|>) (.+)$/,
  );
  const value = divisor ? of(left) % BigInt(divisor) : of(left);
  const than = right.startsWith("'")
    ? right.slice(1, -1)
    : /^\d+$/.test(right)
      ? BigInt(right)
      : of(right);
  return RELATIONS[relation](value, than);
}

/* The value of a sum of products: its denominator, then numerators and factors of its terms. */
function valueOf([below, ...terms], of) {
  let sum = 0n;
  for (const [count, ...factors] of terms)
    sum += factors.reduce((product, x) => product * of(DATA.factors[x]), BigInt(count));
  return sum / BigInt(below);
}

/* Do what happens in turns: the first, those between, and the last. Between, a turn that begins in
   a state that was there before goes as that did, and so do those after it: they are left out. */
function inTurns([first, between, last], many, act, state) {
  act(first);
  const seen = new Map();
  for (let turn = 0; turn < many - 2; turn++) {
    const before = state();
    if (seen.has(before)) {
      const period = turn - seen.get(before);
      turn += Math.floor((many - 2 - turn) / period) * period;
      seen.clear();
      if (turn >= many - 2) break;
    }
    seen.set(before, turn);
    act(between);
  }
  act(last);
}

/* Why a card does not take a kernel that an H100 would take. */
function refusedOn(card, { dtype, d }, program, training) {
  const found = card.refusals.find(
    ([name, type, mode, first, last]) =>
      name === program && type === dtype && mode === training && first <= d && d <= last,
  );
  const why = found && found.at(-1).replace("head_dim", `head_dim ${d}`);
  return found && `on the ${card.name}, ${why}`;
}

/* A run of a program. Of a case that it does not take, only why: `refused`. */
function run(of, program, training) {
  if (of("G") !== of("H") && !DATA.grouped.includes(program))
    return { refused: "K has fewer heads than Q, and the program is called without enable_gqa: repeat K and V" };
  const piece = DATA.programs[program][Number(training)].find((piece) =>
    piece.if.every((place) => holds(DATA.conditions[place], of)),
  );
  if (piece.refused) return { refused: piece.refused };
  const known = new Map();
  const value = (sum) => {
    if (!known.has(sum)) known.set(sum, valueOf(DATA.sums[sum], of));
    return known.get(sum);
  };
  const many = () => Number(of("ceil(N/128)"));
  const allocator = new CachingAllocator();
  const live = [];
  const timeline = [];
  let bytes = 0n;
  let requested = 0n;
  let alive = [];
  const happen = (event) => {
    let tensor;
    if (event < 0) {
      [tensor] = live.splice(-1 - event, 1);
      bytes -= tensor.bytes;
      allocator.release(tensor.block);
    } else {
      const [label, sum] = DATA.tensors[event];
      tensor = { label: DATA.labels[label], sum, bytes: value(sum) };
      bytes += tensor.bytes;
      tensor.block = allocator.allocate(tensor.bytes);
      live.push(tensor);
    }
    timeline.push({ label: tensor.label, freed: event < 0, bytes: tensor.bytes, live: bytes });
    if (bytes > requested) {
      requested = bytes;
      alive = [...live];
    }
  };
  const act = (events) => {
    for (const event of events)
      if (Array.isArray(event)) inTurns(event, many(), act, () => allocator.state(live));
      else happen(event);
  };
  act(piece.events);
  const steps = [];
  const take = (places, times) => {
    for (const place of places) {
      if (Array.isArray(place))
        place.forEach((turn, i) => take(turn, i === 1 ? times * BigInt(many() - 2) : times));
      else steps.push(stepOf(DATA.steps[place], times, of, value));
    }
  };
  take(piece.steps, 1n);
  const saved = value(piece.saved);
  return {
    requested,
    allocated: allocator.peakAllocated,
    reserved: allocator.reserved,
    saved,
    kept: training ? ownBytes(of) + saved : 0n,
    workspaces: piece.workspaces,
    alive: numbered(alive),
    ones: piece.if.map((place) => DATA.conditions[place].match(/^(\w) == 1$/)?.[1] ?? ""),
    timeline,
    steps,
    flops: steps.reduce((sum, step) => sum + step.times * step.flops, 0n),
    bytes: steps.reduce((sum, step) => sum + step.times * step.bytes, 0n),
  };
}

/* A step that is taken so many times; `element`: bytes of one of a matrix product, 0 of others. */
function stepOf([name, stage, element, flops, read, written, special], times, of, value) {
  return {
    name: DATA.labels[name],
    stage: DATA.labels[stage],
    times,
    element: element === 1 ? Number(of("e")) : element,
    flops: value(flops),
    bytes: value(read) + value(written),
    special: value(special),
  };
}

/* The bytes of Q, K, V and O. */
const ownBytes = (of) => 2n * of("B") * of("N") * of("d") * of("e") * (of("H") + of("G"));

/* What some layers need: one at its peak, and what the others keep for their backward passes. */
const layersNeed = ({ reserved, kept }, layers) => reserved + BigInt(layers - 1) * kept;

/* Tensors with names of their own: of equal labels the second is "S 2". */
function numbered(tensors) {
  const names = new Set();
  return tensors.map(({ label, sum, bytes }) => {
    let name = label;
    for (let count = 2; names.has(name); count++) name = `${label} ${count}`;
    names.add(name);
    return { label, name, sum, bytes };
  });
}

/* The least time in seconds that a card allows the steps, each held up by one of its parts. */
function leastSeconds(steps, card) {
  return steps.reduce((sum, step) => {
    const matrix = step.element === 2;
    const parts = [
      [step.bytes, card.bandwidth],
      [step.flops, matrix ? card.matrix : card.vector],
      [step.special, card.special],
    ];
    const longest = Math.max(...parts.map(([work, rate]) => (rate ? Number(work) / rate : 0)));
    return sum + Number(step.times) * longest;
  }, 0);
}

/* The longest sequence with which some layers fit into `memory`; 0: none, null: refused. */
function longest(given, program, training, memory, layers = 1) {
  const need = (N) => {
    const found = run(sizesOf({ ...given, N }), program, training);
    return found.refused ? null : layersNeed(found, layers);
  };
  const fits = (N) => need(N) <= memory;
  if (need(2) === null) return null;
  let tooLong = need(1) === null ? 2 : 1;
  if (!fits(tooLong)) return 0;
  while (fits(tooLong)) tooLong *= 2;
  let low = tooLong / 2;
  let high = tooLong;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle)) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
