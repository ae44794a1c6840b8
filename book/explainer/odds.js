/* How likely each way is to have a size, as attnmem/messages/odds.py has it. */

const NEAR = BigInt(DATA.near);
const isNear = (bytes, high) => high <= bytes * NEAR && bytes <= high * NEAR;
const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);

/* The probability of each way that has a shape in `size`, likely ones first. */
function oddsOf({ low, high }, tried) {
  const ways = new Map();
  for (const shape of tried.filter(({ bytes }) => isNear(bytes, high))) {
    const way = wayOf(shape);
    if (!ways.has(way)) ways.set(way, []);
    ways.get(way).push(shape);
  }
  const size = range(most(1n, low), high);
  const common = sum([...ways.values()].map(([first]) => first.kind.common));
  const weights = [...ways].map(([way, near]) => [
    way,
    ((near[0].kind.common / common) * share(size, near)) / 2,
  ]);
  const wide = Math.log(Number(high + 1n)) - Math.log(Number(size.low));
  const spread = wide / (2 * Math.log(DATA.near));
  const total = roundShare(size) / 4 + spread / 4 + sum(weights.map(([, weight]) => weight));
  const found = weights.filter(([, weight]) => weight).map(([way, x]) => [way, x / total]);
  return new Map(found.toSorted(([, a], [, b]) => b - a));
}

/* What part of the weight of round sizes of that magnitude lies on those in `size`. */
function roundShare(size) {
  let hits = 0;
  let all = 0;
  for (const m of DATA.round)
    for (let k = 0n; k < 64n; k++) {
      const round = BigInt(m) << k;
      if (!isNear(round, size.high)) continue;
      all += 1 / m;
      if (within(round, size)) hits += 1 / m;
    }
  return hits / (all || 1);
}

/* What part of a way's weight lies on shapes of that size. */
function share(size, near) {
  const hits = near.filter(({ bytes }) => within(bytes, size));
  return sum(hits.map(({ rare }) => 2 ** -rare)) / sum(near.map(({ rare }) => 2 ** -rare));
}
