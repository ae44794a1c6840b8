/* What an out-of-memory message says, as attnmem/messages/forms.py reads it. Bytes are BigInt.
   Patterns, models and sentences come from there, too: attnmem/lessons/explainer.py. */

const DATA = JSON.parse(document.getElementById("explainer-data").textContent);
const ROUNDING = Object.fromEntries(
  Object.entries(DATA.rounding).map(([name, size]) => [name, BigInt(size)]),
);

const ceilDiv = (size, part) => (size > 0n ? (size + part - 1n) / part : 0n);
const roundUp = (size, multiple) => ceilDiv(size, multiple) * multiple;
const most = (a, b) => (a > b ? a : b);
const range = (low, high) => ({ low, high });
const within = (size, { low, high }) => low <= size && size <= high;

/* What a printed size stands for: half a unit of its last place to each side. */
function sizeRange(number, unit) {
  const [whole, places = ""] = number.replaceAll(",", "").split(".");
  if (unit.toLowerCase() === "bytes") return range(BigInt(whole), BigInt(whole));
  const scale = 1024n ** BigInt(1 + "KMGT".indexOf(unit[0].toUpperCase()));
  const halves = 2n * 10n ** BigInt(places.length);
  const said = 2n * BigInt(whole + places);
  return range(ceilDiv((said - 1n) * scale, halves), ((said + 1n) * scale) / halves);
}

/* The tensors behind what is printed, and whether it is a segment that small ones share. */
const RULES = {
  as_printed: (tried) => [tried, false],
  behind_segment: (tried) => {
    const { small, large, buffer_small, buffer_large } = ROUNDING;
    if (within(buffer_small, tried) && tried.high < 2n * buffer_small)
      return [range(1n, small), true];
    if (within(buffer_large, tried) && tried.high < buffer_large + buffer_small)
      return [range(small + 1n, buffer_large), true];
    const [first, last] = multiples(buffer_small, tried);
    if (large <= first && first <= last) return [range(first - buffer_small + 1n, last), false];
    return behindFirstSegment(tried);
  },
  behind_either: (tried) => {
    const [later, shared] = RULES.behind_segment(tried);
    const [first, small] = behindFirstSegment(tried);
    const low = later.low < first.low ? later.low : first.low;
    return [range(low, most(later.high, first.high)), shared || small];
  },
  behind_metal: ({ low, high }) => [range(most(1n, low - ROUNDING.metal + 1n), high), false],
};

function behindFirstSegment(tried) {
  const [first, last] = multiples(ROUNDING.first, tried);
  if (first > last) return [tried, false];
  const small = last <= ROUNDING.small;
  return [range(small ? 1n : first - ROUNDING.first + 1n, last), small];
}

const multiples = (step, { low, high }) => [roundUp(low, step), (high / step) * step];

/* The first message in a text; `refused` says why there is none. */
function parse(whole) {
  // What Python calls white space: \s has one more, and five fewer.
  const text = whole.replace(/(?:[^\S\ufeff]|[\x1c-\x1f\x85])+/g, " ").trim();
  const [tried, rule, refused] = triedIn(text);
  if (!tried) return { refused };
  if (!tried.high) return { refused: "zero" };
  const [tensor, shared] = RULES[rule](tried);
  const found = {};
  for (const [name, patterns] of Object.entries(DATA.state)) found[name] = stateIn(patterns, text);
  const { allocated, reserved, unused } = found;
  if (allocated && unused)
    found.reserved = range(allocated.low + unused.low, allocated.high + unused.high);
  else if (allocated && reserved) {
    const least = most(0n, reserved.low - allocated.high);
    found.unused = range(least, most(0n, reserved.high - allocated.low));
  }
  return { backend: backendOf(text), tried, tensor, shared, ...found };
}

function triedIn(text) {
  const shape = new RegExp(DATA.shape, "i").exec(text);
  if (shape) {
    if (!Object.hasOwn(DATA.itemsize, shape[2])) return [null, "", "type"];
    const sizes = (shape[1].match(/\d+/g) ?? []).map(BigInt);
    const size = sizes.reduce((product, x) => product * x, BigInt(DATA.itemsize[shape[2]]));
    return [range(size, size), "as_printed"];
  }
  for (const [pattern, rule] of DATA.tried) {
    const found = new RegExp(pattern, "i").exec(text);
    if (found) return [sizeRange(found[1], found[2]), rule];
  }
  return [null, "", "none"];
}

function stateIn(patterns, text) {
  for (const pattern of patterns) {
    const found = new RegExp(pattern, "i").exec(text);
    if (found) return sizeRange(found[1], found[2]);
  }
  return null;
}

function backendOf(text) {
  for (const [pattern, name] of DATA.backend) {
    const found = new RegExp(pattern).exec(text);
    if (found) return name ?? found[1];
  }
  return "GPU";
}
