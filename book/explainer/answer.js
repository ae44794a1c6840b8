/* Which tensors have the size that a message names, as attnmem/messages/answer.py says it. */

const LIMITS = DATA.limits;

const say = (name, values = {}) =>
  DATA.sentences[name].replace(/\{(\w+)\}/g, (place, key) => values[key] ?? place);

/* The answer to a text, and to what its reader knows; `refused` says why there is none. */
function explain(text, known) {
  const message = parse(text);
  if (message.refused) return message;
  const tried = shapes(known);
  const candidates = tried.filter(({ bytes }) => within(bytes, message.tensor)).toSorted(inRank);
  const odds = oddsOf(message.tensor, tried);
  const ways = [...odds]
    .filter(([, odd]) => odd >= LIMITS.counts)
    .map(([way]) => candidates.filter((shape) => wayOf(shape) === way));
  const sure = sureness(message, candidates, [...odds.values()], ways);
  const answered = ["likely", "one of several", "a guess"].includes(sure);
  const attention = answered && ways.some(([first]) => first.kind.attention);
  const kind = message.shared && sure === "by chance" ? "any" : sure;
  const other = attention ? "" : say("other");
  const lines = [asked(message), say(kind, { ways: ways.length, other })];
  if (answered) {
    const cures = new Set(ways.map(([first]) => first.kind.cure));
    lines.push(...ways.flatMap(wayLines), ...[...cures].map((cure) => say("cure", { cure })));
  }
  lines.push(...notes(message, known));
  return { message, candidates, odds, sure, answered, attention, lines };
}

function inRank(a, b) {
  if (a.rare !== b.rare) return a.rare - b.rare;
  if (a.bytes !== b.bytes) return a.bytes < b.bytes ? -1 : 1;
  const pairs = a.factors.flat().map((x, i) => [x, b.factors.flat()[i]]);
  const [x, y] = pairs.find(([x, y]) => x !== y);
  return x < y ? -1 : 1;
}

function sureness({ shared }, candidates, odds, ways) {
  if (!candidates.length) return "nothing";
  const known = sum(odds);
  if (shared || known < LIMITS.nothing || !ways.length) return "by chance";
  if (ways.length > LIMITS.too_many) return "too many";
  if (Math.max(...odds) >= LIMITS.likely) return "likely";
  return known >= LIMITS.likely ? "one of several" : "a guess";
}

function wayLines(found) {
  const [{ kind, models }] = found;
  const of = models.length ? ` (${models.join(", ")})` : "";
  const rest = found.length - LIMITS.shown;
  const more = rest > 0 ? [say("more", { rest })] : [];
  const some = found.slice(0, LIMITS.shown).map((shape) => `  ${shapeText(shape)}`);
  return [`- ${kind.name}, ${kind.formula}${of}`, ...some, ...more];
}

const span = (low, high) =>
  low === high ? count(high) : say("span", { low: count(low), high: count(high) });

function asked({ shared, backend, tensor: { low, high } }) {
  return say(shared ? "segment" : "tensor", { backend, size: `${span(low, high)} B` });
}

/* What the rest of the message says, and what a reader's heads and batch would mean. */
function notes({ tried, tensor, shared, unused, reserved, free, capacity }, known) {
  const found = [];
  if (capacity && tried.low > capacity.high) found.push(say("capacity"));
  else if (free && tried.high <= free.low) found.push(say("free"));
  if (unused && unused.low >= tried.high) {
    const little = reserved && BigInt(LIMITS.few) * unused.low < reserved.low;
    found.push(say(little ? "little" : "pieces", { unused: printedSize(unused.low) }));
  }
  if (known.heads && known.batch && !known.seq_len && !shared)
    for (const e of widthsOf(known)) {
      const perPair = BigInt(known.batch) * BigInt(known.heads) * BigInt(e);
      const low = isqrt(most(0n, ceilDiv(tensor.low, perPair) - 1n)) + 1n;
      const high = isqrt(tensor.high / perPair);
      if (low <= high)
        found.push(say("length", { kind: SCORES.name, bits: 8 * e, span: span(low, high) }));
    }
  return found;
}

/* The whole part of a square root. */
function isqrt(n) {
  let x = BigInt(Math.floor(Math.sqrt(Number(n))));
  while (x * x > n) x--;
  while ((x + 1n) * (x + 1n) <= n) x++;
  return x;
}

/* Bytes as PyTorch prints them: two places, and what lies between two goes to the even one. */
function printedSize(size) {
  if (size <= 1024n) return `${size} bytes`;
  const power = size <= 2n ** 20n ? 1n : size <= 2n ** 30n ? 2n : 3n;
  const scale = 1024n ** power;
  const twice = (200n * size) / scale;
  const exact = (200n * size) % scale === 0n;
  const up = twice % 2n === 1n && (!exact || ((twice - 1n) / 2n) % 2n === 1n);
  const digits = String((twice / 2n) + BigInt(up)).padStart(3, "0");
  return `${digits.slice(0, -2)}.${digits.slice(-2)} ${" KMG"[power]}iB`;
}
