"""Which tensors programs have that run transformers: their kinds, and shapes that are common."""

import functools
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cattrs

from attnmem.catalog import MODELS

#: Batches that people take.
BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 64, 128)
#: Sides of images in pixels; the longer is at most twice the shorter.
SIDES = (512, 640, 704, 768, 832, 896, 1024, 1152, 1216, 1280, 1344, 1536, 2048)
#: Larger models run on many cards at once, which share each tensor.
FEW_CARDS = 100_000_000_000
#: Sequences of a model that we don't know, in tokens.
LENGTHS = tuple(2**power for power in range(7, 18))
#: Bytes of an element: 16 and 32 bit.
WIDTHS = (2, 4)


@dataclass(frozen=True)
class Kind:
    """What a tensor is for.

    ``cure`` is the section of "What to do" that helps against it. ``common``: how often it is what
    does not fit, compared with scores and logits, which at usual sizes are a step's largest.
    """

    name: str
    formula: str
    cure: str
    attention: bool = True
    common: float = 1


SCORES = Kind("scores", "B·H·N²·e", "what-to-do-kernel")
MASK = Kind("a mask", "N²·e", "what-to-do-lost", common=0.25)
LOGITS = Kind("logits", "B·N·vocabulary·e", "what-to-do-loss", attention=False)
MLP = Kind(
    "the MLP's inner layer", "B·N·width·e", "what-to-do-checkpoint", attention=False, common=0.25
)
TABLE = Kind(
    "the table of words", "vocabulary·width·e", "what-to-do-first", attention=False, common=0.25
)

KINDS = (SCORES, MASK, LOGITS, MLP, TABLE)


@dataclass(frozen=True)
class Family:
    """A model, by what decides the sizes of its tensors. ``None``: it has no such tensor.

    ``lengths``: the sequences that it is made for, in tokens. ``width`` is that of its hidden
    states, ``mlp_width`` that between the two layers of its MLP, ``vocabularies`` how many words it
    knows, with and without padding. ``fixed``: it takes no other lengths, not even shorter ones.
    """

    name: str
    heads: int
    lengths: tuple[int, ...]
    width: int | None = None
    mlp_width: int | None = None
    vocabularies: tuple[int, ...] = ()
    source: str = ""
    fixed: bool = False

    @property
    def common(self) -> tuple[int, ...]:
        """Its lengths, with halves, quarters and eighths of 128 tokens at least."""
        parts = (1,) if self.fixed else (1, 2, 4, 8)
        return tuple(
            sorted({n // part for n in self.lengths for part in parts if n // part >= 128})
        )

    def takes(self, n: int) -> bool:
        """Whether it can read ``n`` tokens."""
        return n in self.lengths if self.fixed else n <= max(self.lengths)


@dataclass(frozen=True)
class Shape:
    """A tensor of a kind: its factors by name, their product in bytes, and whose it would be.

    ``rare`` orders shapes: 0 for one sequence of the length that a model is made for; halving the
    length or quadrupling the batch makes it 1 rarer, a batch that is no power of two 1 more.
    """

    kind: Kind
    factors: tuple[tuple[str, int], ...]
    bytes: int
    models: tuple[str, ...]
    rare: float

    @property
    def way(self) -> tuple[str, ...]:
        """What tells it from others that need another answer: its kind, and heads or the model."""
        heads = dict(self.factors).get("heads")
        return self.kind.name, *((str(heads),) if heads else self.models)

    def __str__(self) -> str:
        words = [
            f"{size:,} {name if size > 1 else name.removesuffix('s')}"
            for name, size in self.factors
            if name != "bytes"
        ]
        return f"{', '.join(words)}, {8 * dict(self.factors)['bytes']} bit"


@dataclass(frozen=True)
class Known:
    """What the reader knows of his program; ``None`` for what he doesn't say."""

    heads: int | None = None
    seq_len: int | None = None
    batch: int | None = None
    vocabulary: int | None = None
    bytes: int | None = None

    def lengths(self, common: Iterable[int]) -> tuple[int, ...]:
        """The lengths to try, of a model with such common ones."""
        return (self.seq_len,) if self.seq_len else tuple(common)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batches to try."""
        return (self.batch,) if self.batch else BATCHES

    @property
    def widths(self) -> tuple[int, ...]:
        """The bytes of an element to try."""
        return (self.bytes,) if self.bytes else WIDTHS


@functools.cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(Path(__file__).with_name("families.toml").read_text("utf-8"))


def families() -> tuple[Family, ...]:
    """The models of ``families.toml``, and those of the catalogue that a few cards can run."""
    listed = [cattrs.structure(row, Family) for row in _rows()["family"]]
    known = [
        Family(
            model.name,
            model.heads,
            (model.context,),
            model.heads * model.head_dim,
            model.mlp_width,
            (model.vocabulary,) if model.vocabulary else (),
            model.source,
        )
        for model in MODELS
        if model.parameters < FEW_CARDS
    ]
    return (*listed, *known)


def images() -> tuple[Family, ...]:
    """Image models, with the numbers of tokens that images of common sides give."""
    pairs = [(a, b) for a, b in itertools.combinations_with_replacement(SIDES, 2) if b <= 2 * a]
    found = []
    for row in _rows()["image"]:
        token = row["pixels"]
        lengths = tuple(sorted({a // token * (b // token) for a, b in pairs}))
        found.append(Family(row["name"], row["heads"], lengths, source=row["source"]))
    return tuple(found)


@functools.cache
def shapes(known: Known) -> tuple[Shape, ...]:
    """All shapes to try. Equal ones of several models are one, with all their names."""
    found: dict[tuple[Kind, tuple[tuple[str, int], ...]], Shape] = {}
    for shape in _all(known):
        same = found.get((shape.kind, shape.factors))
        if same:
            models = tuple(dict.fromkeys(same.models + shape.models))
            rare = min(same.rare, shape.rare)
            shape = Shape(shape.kind, shape.factors, shape.bytes, models, rare)
        found[shape.kind, shape.factors] = shape
    return tuple(found.values())


def _shape(kind: Kind, name: str, rare: float, **factors: int) -> Shape:
    """A shape from its factors, where ``tokens`` counts twice if each meets each."""
    product = math.prod(factors.values())
    if kind in (SCORES, MASK):
        product *= factors["tokens"]
    return Shape(kind, tuple(factors.items()), product, (name,) if name else (), rare)


def _all(known: Known) -> Iterator[Shape]:
    for family in families():
        yield from _of(family, known, family.common)
    for image in images():
        if known.heads in (None, image.heads):
            # With and without guidance, which doubles the batch.
            few = (known.batch,) if known.batch else (1, 2)
            for n in known.lengths(image.lengths):
                yield from _scores(image.name, image.heads, n, few, known.widths, 1.0)
    if known.heads or known.seq_len:
        heads = [known.heads] if known.heads else sorted({f.heads for f in families()})
        for h, n in itertools.product(heads, known.lengths(LENGTHS)):
            yield from _scores("", h, n, known.batches, known.widths, 4.0)
    theirs = [f for f in families() if known.vocabulary in f.vocabularies]
    if known.vocabulary and not any(f.takes(known.seq_len or 1) for f in theirs):
        for n in known.lengths(LENGTHS):
            yield from _logits("", known.vocabulary, n, known, 4.0)
    masks = known.lengths(sorted({n for f in families() for n in f.common if n >= 1024}))
    for n, e in itertools.product(masks, known.widths if known.bytes else (1, *WIDTHS)):
        yield _shape(MASK, "", 3.0, tokens=n, bytes=e)


def _of(family: Family, known: Known, common: Iterable[int]) -> Iterator[Shape]:
    """The tensors of a language model."""
    longest = max(family.lengths)
    for n in filter(family.takes, known.lengths(common)):
        shorter = max(0.0, math.log2(longest / n))
        if known.heads in (None, family.heads):
            yield from _scores(family.name, family.heads, n, known.batches, known.widths, shorter)
            if family.mlp_width:
                for b, e in itertools.product(known.batches, known.widths):
                    rare = shorter + _rare(b) + 3
                    sizes = {"sequences": b, "tokens": n, "wide": family.mlp_width, "bytes": e}
                    yield _shape(MLP, family.name, rare, **sizes)
        for words in family.vocabularies:
            if known.vocabulary in (None, words):
                yield from _logits(family.name, words, n, known, shorter)
    for words, e in itertools.product(family.vocabularies, known.widths):
        if family.width and known.vocabulary in (None, words):
            yield _shape(TABLE, family.name, 2.0, words=words, wide=family.width, bytes=e)


def _scores(
    name: str, heads: int, n: int, batches: Iterable[int], widths: Iterable[int], rare: float
) -> Iterator[Shape]:
    for b, e in itertools.product(batches, widths):
        yield _shape(SCORES, name, rare + _rare(b), sequences=b, heads=heads, tokens=n, bytes=e)


def _logits(name: str, words: int, n: int, known: Known, rare: float) -> Iterator[Shape]:
    for b, e in itertools.product(known.batches, known.widths):
        yield _shape(LOGITS, name, rare + _rare(b), sequences=b, tokens=n, words=words, bytes=e)


def _rare(batch: int) -> float:
    return math.log2(batch) / 2 + (batch & (batch - 1) > 0)
