"""Which tensors have the size that a message names, how sure that is, and what helps."""

import itertools
import math
import textwrap
from dataclasses import dataclass
from typing import Literal

import torch

from attnmem.messages.forms import Message, parse
from attnmem.messages.odds import odds
from attnmem.messages.shapes import SCORES, Known, Shape, shapes
from attnmem.prediction.allocator import printed_size
from attnmem.workload import ceil_div

#: With more ways than this, naming some of them would only mislead.
TOO_MANY = 4
#: From which probability on a way counts, from which it is likely; and all, to say anything.
COUNTS, LIKELY, NOTHING = 0.1, 0.7, 0.5
#: Of one way, so many shapes are shown.
SHOWN = 3
WIDTH = 49  # characters of a line: a phone shows no more
ASK = "If you know heads, tokens, batch or vocabulary, say them."

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

    def __str__(self) -> str:
        lines = [_asked(self.message), self._verdict()]
        if self.answered:
            lines += itertools.chain.from_iterable(map(_way, self.ways.values()))
            lines += [f"What to do: what-to-do.html#{cure}" for cure in self.cures]
        wrapped = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
        return "\n".join(wrapped.fill(line) for line in [*lines, *self.notes])

    def _verdict(self) -> str:
        ways = len(self.ways)
        other = "" if self.attention else ", and not attention"
        segment = "Any tensor of such a size asks for this: it says nothing of attention."
        return {
            "likely": f"Likely{other}:",
            "one of several": f"One of {ways} ways{other}:",
            "a guess": f"A guess{other}:",
            "by chance": segment
            if self.message.shared
            else f"Says nothing: other tensors have this size as easily as attention's. {ASK}",
            "too many": f"Says nothing: common tensors have this size in {ways} ways. {ASK}",
            "nothing": "Nothing of attention has this size, at the lengths and batches that we "
            f"tried. {ASK}",
        }[self.sure]


def _way(found: list[Shape]) -> list[str]:
    first, rest = found[0], len(found) - SHOWN
    of = f" ({', '.join(first.models)})" if first.models else ""
    more = [f"  and {rest} more"] if rest > 0 else []
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


def _asked(said: Message) -> str:
    low, high = said.tensor.low, said.tensor.high
    size = f"{high:,} B" if low == high else f"{low:,} to {high:,} B"
    segment = "a segment that such tensors share: " if said.shared else "a tensor of "
    return f"{said.backend} ran out of memory for {segment}{size}."


def _notes(said: Message, known: Known) -> tuple[str, ...]:
    """What the rest of the message says, and what a reader's heads and batch would mean."""
    notes = []
    if said.capacity and said.tried.low > said.capacity.high:
        notes.append("It is more than the whole card has: no setting of the allocator helps.")
    elif said.free and said.tried.high <= said.free.low:
        notes.append(
            "More was free than was asked for: another limit than the card's memory stopped it, "
            "or another process took it at that moment."
        )
    if said.unused and said.unused.low >= said.tried.high:
        notes.append(
            f"PyTorch held {printed_size(said.unused.low)} unused, more than was asked for, but in "
            "pieces. What to do: what-to-do.html#what-to-do-fragmentation"
        )
    if known.heads and known.batch and not known.seq_len and not said.shared:
        for e in known.widths:
            per_pair = known.batch * known.heads * e
            low = math.isqrt(max(0, ceil_div(said.tensor.low, per_pair) - 1)) + 1
            high = math.isqrt(said.tensor.high // per_pair)
            if low <= high:
                span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
                notes.append(f"{SCORES.name} of {8 * e} bit would have {span} tokens: has yours?")
    return tuple(notes)
