/* Which tensors programs have that run transformers, as attnmem/messages/shapes.py has them. What
   the reader knows: heads, seq_len, batch, vocabulary, bytes; null for what he doesn't say. */

const [SCORES, MASK, LOGITS, MLP, TABLE] = DATA.kinds;

const lengthsOf = (known, common) => (known.seq_len ? [known.seq_len] : common);
const batchesOf = (known) => (known.batch ? [known.batch] : DATA.batches);
const widthsOf = (known) => (known.bytes ? [known.bytes] : DATA.widths);
const isOr = (given, own) => given === null || given === own;
const inOrder = (numbers) => [...new Set(numbers)].toSorted((a, b) => a - b);
const longestOf = ({ lengths }) => Math.max(...lengths);
const takes = (family, n) => (family.fixed ? family.lengths.includes(n) : n <= longestOf(family));

/* All shapes to try. Equal ones of several models are one, with all their names. */
const made = new Map();
function shapes(known) {
  const { heads, seq_len, batch, vocabulary, bytes } = known;
  const key = [heads, seq_len, batch, vocabulary, bytes].join();
  if (!made.has(key)) made.set(key, merged(allShapes(known)));
  return made.get(key);
}

function merged(all) {
  const found = new Map();
  for (const shape of all) {
    const key = [shape.kind.name, ...shape.factors].join();
    const same = found.get(key);
    if (!same) found.set(key, shape);
    else {
      same.models = [...new Set([...same.models, ...shape.models])];
      same.rare = Math.min(same.rare, shape.rare);
    }
  }
  return [...found.values()];
}

function shapeOf(kind, name, rare, sizes) {
  const factors = Object.entries(sizes);
  let bytes = factors.reduce((product, [, size]) => product * BigInt(size), 1n);
  if (kind === SCORES || kind === MASK) bytes *= BigInt(sizes.tokens);
  return { kind, factors, bytes, models: name ? [name] : [], rare };
}

function* allShapes(known) {
  const { families, images, lengths } = DATA;
  for (const family of families) yield* ofFamily(family, known);
  for (const image of images)
    if (isOr(known.heads, image.heads))
      for (const n of lengthsOf(known, image.lengths))
        yield* scores(image.name, image.heads, n, known.batch ? [known.batch] : [1, 2], known, 1);
  if (known.heads || known.seq_len)
    for (const h of known.heads ? [known.heads] : inOrder(families.map((family) => family.heads)))
      for (const n of lengthsOf(known, lengths))
        yield* scores("", h, n, batchesOf(known), known, 4);
  const theirs = families.filter((family) => family.vocabularies.includes(known.vocabulary));
  if (known.vocabulary && !theirs.some((family) => takes(family, known.seq_len ?? 1)))
    for (const n of lengthsOf(known, lengths)) yield* logits("", known.vocabulary, n, known, 4);
  const common = families.flatMap((family) => family.common.filter((n) => n >= 1024));
  for (const n of lengthsOf(known, inOrder(common)))
    for (const bytes of known.bytes ? [known.bytes] : [1, ...DATA.widths])
      yield shapeOf(MASK, "", 3, { tokens: n, bytes });
}

function* ofFamily(family, known) {
  const { name, heads, width, mlp_width, vocabularies, common } = family;
  for (const n of lengthsOf(known, common).filter((n) => takes(family, n))) {
    const shorter = Math.max(0, Math.log2(longestOf(family) / n));
    if (isOr(known.heads, heads)) {
      yield* scores(name, heads, n, batchesOf(known), known, shorter);
      if (mlp_width)
        for (const sequences of batchesOf(known))
          for (const bytes of widthsOf(known)) {
            const sizes = { sequences, tokens: n, wide: mlp_width, bytes };
            yield shapeOf(MLP, name, shorter + rareBatch(sequences) + 3, sizes);
          }
    }
    for (const words of vocabularies)
      if (isOr(known.vocabulary, words)) yield* logits(name, words, n, known, shorter);
  }
  for (const words of vocabularies)
    for (const bytes of widthsOf(known))
      if (width && isOr(known.vocabulary, words))
        yield shapeOf(TABLE, name, 2, { words, wide: width, bytes });
}

function* scores(name, heads, tokens, batches, known, rare) {
  for (const sequences of batches)
    for (const bytes of widthsOf(known))
      yield shapeOf(SCORES, name, rare + rareBatch(sequences), { sequences, heads, tokens, bytes });
}

function* logits(name, words, tokens, known, rare) {
  for (const sequences of batchesOf(known))
    for (const bytes of widthsOf(known))
      yield shapeOf(LOGITS, name, rare + rareBatch(sequences), { sequences, tokens, words, bytes });
}

function rareBatch(batch) {
  const odd = BigInt(batch) & (BigInt(batch) - 1n); // no power of two
  return Math.log2(batch) / 2 + (odd ? 1 : 0);
}

/* What tells a shape from others that need another answer. */
function wayOf({ kind, factors, models }) {
  const heads = Object.fromEntries(factors).heads;
  return [kind.name, ...(heads ? [heads] : models)].join();
}

/* "8 sequences, 12 heads, 1,024 tokens, 32 bit" */
function shapeText({ factors }) {
  const words = factors.slice(0, -1).map(([name, size]) => {
    return `${count(size)} ${size > 1 ? name : name.replace(/s$/, "")}`;
  });
  return [...words, `${8 * factors.at(-1)[1]} bit`].join(", ");
}
