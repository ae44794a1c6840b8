/* Numbers and sums as a reader writes them. */

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

const exactly = (bytes) => `${WHOLE.format(bytes)} B`;

/* A number in steps of 1000: 1.74 GB. */
function roughly(value, units = UNITS) {
  let rest = Number(value);
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${SHORT.format(rest)}\u00a0${units[unit]}`;
}

const flopsText = (flops) =>
  roughly(flops, ["FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs", "EFLOPs"]);

function secondsText(seconds) {
  return roughly(1e9 * seconds, ["ns", "µs", "ms", "s"]);
}

/* "P, dP and dS" */
const list = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");

/* Of ceil(N/64), N and 64; of another factor, itself and 1. */
function part(factor) {
  const [, size, parts] = factor.match(/^ceil\((\w)\/(\d+)\)$/) ?? [null, factor, 1];
  return [size, Number(parts)];
}

const inOrder = (factors) => factors.toSorted().join(" ");

const shares = (of) => of("G") !== of("H");

/* The letters of the book: what each is, and its bytes for one. */
function unitsOf(of) {
  const e = Number(of("e"));
  const heads = shares(of)
    ? [["Q", "B H N d", e], ["K", "B G N d", e], ["V", "B G N d", e], ["O", "B H N d", e]]
    : [["X", "B H N d", e]];
  return [["S", "B H N N", e], ...heads, ["L", "B H N", 4], ["N²", "N N", 1]];
}

/* The terms of the sum of tensors, such as 4S and 6X, each with its tensors and bytes, as
   attnmem/prediction/formula.py writes them. `ones`: the sizes that are 1 wherever this holds. */
function termsOf({ alive, ones }, of) {
  const found = new Map();
  for (const { name: label, sum } of alive) {
    const [below, ...terms] = DATA.sums[sum];
    const merged = new Map();
    for (const [above, ...places] of terms) {
      let coefficient = above / below;
      const product = places.reduce((x, place) => x * of(DATA.factors[place]), BigInt(above));
      const factors = [];
      for (const place of places) {
        const factor = DATA.factors[place] === "G" && !shares(of) ? "H" : DATA.factors[place];
        const [size, parts] = part(factor);
        if (factor.startsWith("rest") && of(factor) === 128n) coefficient *= 128;
        else if (factor === "e") coefficient *= Number(of("e"));
        else if (factor === "flash_head_dim" && of(factor) === of("d")) factors.push("d");
        else if (parts > 1 && of(size) % BigInt(parts) === 0n) {
          factors.push(size);
          coefficient /= parts;
        } else factors.push(factor);
      }
      const key = inOrder(factors);
      const before = merged.get(key) ?? { factors, coefficient: 0, parts: 0n };
      before.coefficient += coefficient;
      before.parts += (24n * product) / BigInt(below); // denominators are 1, 2, 3, 4 or 8
      merged.set(key, before);
    }
    for (const { factors, coefficient, parts } of merged.values()) {
      const term = inUnits(factors, coefficient, ones, of);
      const key = `${String(term.place).padStart(2)} ${term.name} ${term.rest}`;
      const before = found.get(key) ?? { ...term, key, count: 0, parts: 0n, labels: [] };
      before.count += term.count;
      before.parts += parts;
      before.labels.push(label);
      found.set(key, before);
    }
  }
  const sorted = [...found.values()].toSorted((a, b) => (a.key < b.key ? -1 : 1));
  return sorted.map(({ name, rest, count, labels, parts }) => ({
    text: termText(count, name, rest),
    labels,
    bytes: parts / 24n,
  }));
}

const LETTERS = "BHGNMdve";
const rank = (factor) =>
  `${factor.length > 1 ? 1 : 0}${LETTERS.indexOf(part(factor)[0]) + 1}${factor}`;
const byRank = (factors) => factors.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1));

function inUnits(factors, coefficient, ones, of) {
  const own = factors.filter((factor) => factor in OF_KERNELS);
  const plain = inOrder(factors.filter((factor) => !(factor in OF_KERNELS)));
  for (const [place, [name, letters, size]] of unitsOf(of).entries()) {
    const count = coefficient / size;
    const unit = inOrder(letters.split(" ").filter((letter) => !ones.includes(letter)));
    if (unit && plain === unit && Number.isInteger(8 * count))
      return { place, count, name, rest: own.map((x) => `·${x}`).join("") };
  }
  const parts = factors.reduce((product, x) => product * part(x)[1], 1);
  const up = Number.isInteger(coefficient / parts);
  const text = byRank(factors).map((x) => factorText(x, up)).join("·");
  const rest = text.replace(/([HNd])·\1/g, "$1²");
  const count = up ? coefficient / parts : coefficient;
  return { place: 99 - Boolean(factors.length), count, name: "", rest };
}

function factorText(factor, up) {
  const [size, parts] = part(factor);
  if (factor.startsWith("rest")) return "(N mod 128)";
  if (parts === 1) return factor;
  const small = String(parts).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
  return up ? `⌈${size}⌉${small}` : `⌈${size}/${parts}⌉`;
}

function termText(count, name, rest) {
  const number = String(Number(count.toPrecision(6)));
  if (name) return (count === 1 ? "" : number) + name + rest;
  return rest ? `${number}·${rest}` : number;
}

function formulaOf(terms) {
  return terms.map((term) => term.text).join(" + ").replaceAll("+ -", "− ") || "0";
}
