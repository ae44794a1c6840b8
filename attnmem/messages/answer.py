"""Which tensors have the size that a message names, how sure that is, and what helps."""

import itertools
import math
import textwrap
from dataclasses import dataclass
from typing import Literal

import torch

from attnmem.messages.forms import Message, Range, parse
from attnmem.messages.odds import odds
from attnmem.messages.shapes import SCORES, Known, Shape, shapes
from attnmem.prediction.allocator import printed_size
from attnmem.workload import ceil_div

#: With more ways than this, naming some of them would only mislead.
TOO_MANY = 4
#: From which probability on a way counts, from which it is likely; and all, to say anything.
COUNTS, LIKELY, NOTHING = 0.1, 0.7, 0.5
#: Unused bytes explain nothing where they are less than one in so many that are reserved.
FEW = 20
#: Of one way, so many shapes are shown.
SHOWN = 3
WIDTH = 49  # characters of a line: a phone shows no more
ASK = "If you know heads, tokens, batch or vocabulary, say them."

#: What an answer says, here and on the book's page, with places to fill in.
SENTENCES = {
    "tensor": "{backend} ran out of memory for a tensor of {size}.",
    "segment": "{backend} ran out of memory for a segment that such tensors share: {size}.",
    "span": "{low} to {high}",
    "other": ", and not attention",
    "likely": "Likely{other}:",
    "one of several": "One of {ways} ways{other}:",
    "a guess": "A guess{other}:",
    "any": "Any tensor of such a size asks for this: it says nothing of attention. It is the last "
    "drop: look at what else the card holds. What to do: what-to-do.html#what-to-do-first",
    "by chance": "Says nothing: other tensors have this size as easily as attention's. " + ASK,
    "too many": "Says nothing: common tensors have this size in {ways} ways. " + ASK,
    "nothing": "No tensor that we know has this size: of attention, the MLP, the loss or a table "
    "of words, with what you said, and else at common lengths and batches. Heads, tokens, batch "
    "and vocabulary all help.",
    "more": "  and {rest} more of the same kind",
    "cure": "What to do: what-to-do.html#{cure}",
    "capacity": "It is more than the whole card has: no setting of the allocator helps.",
    "free": "More was free than was asked for: another limit than the card's memory stopped it, "
    "or another process took it at that moment.",
    "pieces": "PyTorch held at least {unused} unused, more than was asked for, but in pieces. "
    "What to do: what-to-do.html#what-to-do-fragmentation",
    "little": "PyTorch held at least {unused} unused, a small part of what it had reserved: that "
    "is not why memory ran out.",
    "length": "{kind} of {bits} bit would have {span} tokens: has yours?",
}

Sureness = Literal["likely", "one of several", "a guess", "by chance", "too many", "nothing"]


@dataclass(frozen=True)
class Explanation:
    """The answer to a message.

    ``candidates`` are all shapes of the size, the most common first. ``odds`` has the probability
    of each way (:func:`attnmem.messages.odds.odds`), ``notes`` what else the message says.
    """

    message: Message
    candidates: tuple[Shape, ...]
    odds: dict[tuple[str, ...], float]
    notes: tuple[str, ...]

    @property
    def ways(self) -> dict[tuple[str, ...], list[Shape]]:
        """The candidates by kind of tensor and model: each way wants an answer of its own."""
        likely = [way for way, odd in self.odds.items() if odd >= COUNTS]
        return {way: [s for s in self.candidates if s.way == way] for way in likely}

    @property
    def sure(self) -> Sureness:
        """A word on how sure the answer is.

        "likely" and "one of several" (ways) count, "a guess" may help. "by chance" means that what
        we don't know has this size as well as what we know, "too many" that too many ways fit,
        "nothing" that none does: then there is no answer.
        """
        if not self.candidates:
            return "nothing"
        known = sum(self.odds.values())
        if self.message.shared or known < NOTHING or not self.ways:
            return "by chance"
        if len(self.ways) > TOO_MANY:
            return "too many"
        if max(self.odds.values()) >= LIKELY:
            return "likely"
        return "one of several" if known >= LIKELY else "a guess"

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.sure in ("likely", "one of several", "a guess")

    @property
    def cures(self) -> tuple[str, ...]:
        """The sections of "What to do" that help, by their labels; none without an answer."""
        found = [shapes[0].kind.cure for shapes in self.ways.values()] if self.answered else []
        return tuple(dict.fromkeys(found))

    @property
    def attention(self) -> bool:
        """Whether attention is in the answer."""
        return self.answered and any(found[0].kind.attention for found in self.ways.values())

    @property
    def lines(self) -> list[str]:
        """The answer in words: what was asked for, how sure we are, then the ways and the rest."""
        found = [_asked(self.message), self._verdict()]
        if self.answered:
            found += itertools.chain.from_iterable(map(_way, self.ways.values()))
            found += [SENTENCES["cure"].format(cure=cure) for cure in self.cures]
        return [*found, *self.notes]

    def __str__(self) -> str:
        wrapped = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
        return "\n".join(map(wrapped.fill, self.lines))

    def _verdict(self) -> str:
        said = "any" if self.message.shared and self.sure == "by chance" else self.sure
        other = "" if self.attention else SENTENCES["other"]
        return SENTENCES[said].format(ways=len(self.ways), other=other)


def _way(found: list[Shape]) -> list[str]:
    first, rest = found[0], len(found) - SHOWN
    of = f" ({', '.join(first.models)})" if first.models else ""
    more = [SENTENCES["more"].format(rest=rest)] if rest > 0 else []
    title = f"- {first.kind.name}, {first.kind.formula}{of}"
    return [title, *(f"  {shape}" for shape in found[:SHOWN]), *more]


def explain(
    message: str | Message,
    *,
    heads: int | None = None,
    seq_len: int | None = None,
    batch: int | None = None,
    vocabulary: int | None = None,
    dtype: torch.dtype | str | None = None,
) -> Explanation:
    """Which tensors have the size that an out-of-memory message names.

    Tried are the scores of attention, masks, logits, the MLP's inner layer and tables of words, of
    models and images that are common (``attnmem/messages/families.toml`` and the catalogue). What
    you know of your program replaces what is common: ``heads``, ``seq_len`` (tokens; of an image
    model H·W of its tokens), ``batch``, ``vocabulary``, ``dtype``.

    Raises ``ValueError`` for a text without a message (:func:`attnmem.messages.forms.parse`), a
    size that is no positive integer, and an unknown ``dtype``.

    >>> answer = explain("CUDA out of memory. Tried to allocate 3.00 GiB", heads=12, seq_len=8192)
    >>> answer.sure, answer.cures
    ('likely', ('what-to-do-kernel',))
    """
    given = {"heads": heads, "seq_len": seq_len, "batch": batch, "vocabulary": vocabulary}
    for name, value in given.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    known = Known(**given, bytes=_itemsize(dtype))
    said = parse(message) if isinstance(message, str) else message
    tried = shapes(known)
    hits = [shape for shape in tried if shape.bytes in said.tensor]
    hits.sort(key=lambda shape: (shape.rare, shape.bytes, shape.factors))
    return Explanation(said, tuple(hits), odds(said.tensor, tried), _notes(said, known))


def _itemsize(dtype: torch.dtype | str | None) -> int | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return None
    if not isinstance(found, torch.dtype):
        raise ValueError(
            f"dtype must be a torch dtype or its name, such as 'float16', got {dtype!r}"
        )
    return found.itemsize


def _span(size: Range) -> str:
    low, high = f"{size.low:,}", f"{size.high:,}"
    return high if low == high else SENTENCES["span"].format(low=low, high=high)


def _asked(said: Message) -> str:
    what = SENTENCES["segment" if said.shared else "tensor"]
    return what.format(backend=said.backend, size=f"{_span(said.tensor)} B")


def _notes(said: Message, known: Known) -> tuple[str, ...]:
    """What the rest of the message says, and what a reader's heads and batch would mean."""
    notes = []
    if said.capacity and said.tried.low > said.capacity.high:
        notes.append(SENTENCES["capacity"])
    elif said.free and said.tried.high <= said.free.low:
        notes.append(SENTENCES["free"])
    if said.unused and said.unused.low >= said.tried.high:
        little = said.reserved and FEW * said.unused.low < said.reserved.low
        sentence = SENTENCES["little" if little else "pieces"]
        notes.append(sentence.format(unused=printed_size(said.unused.low)))
    if known.heads and known.batch and not known.seq_len and not said.shared:
        for e in known.widths:
            per_pair = known.batch * known.heads * e
            low = math.isqrt(max(0, ceil_div(said.tensor.low, per_pair) - 1)) + 1
            high = math.isqrt(said.tensor.high // per_pair)
            if low <= high:
                span = _span(Range(low, high))
                notes.append(SENTENCES["length"].format(kind=SCORES.name, bits=8 * e, span=span))
    return tuple(notes)
