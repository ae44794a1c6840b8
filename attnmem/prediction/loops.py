"""The list of a program that goes over tiles, in turns: the first, those between, and the last."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from attnmem.prediction.listing import Work, workspaces
from attnmem.prediction.recorder import Recorder
from attnmem.prediction.symbolic import Polynomial, Sizes, fit
from attnmem.prediction.trace import Trace, trace
from attnmem.tiles import attention
from attnmem.workload import Workload, ceil_div

TILE = attention.BLOCK[0]
#: The rows of the last tile: a size beside those of :class:`attnmem.prediction.symbolic.Sizes`.
REST = f"rest(N/{TILE})"
SAMPLES = 40  # as many numbers decide a sum, with some to spare

Mark = tuple[str, int, int]  # "(": a loop, "|": a turn of it, ")": its end; events and steps so far


@dataclass(frozen=True)
class Turns:
    """What :func:`attnmem.tiles.attention.tiled_attention` does where its loops take turns.

    ``events`` and ``steps`` have loops in them, a list of three lists each: what happens in the
    first turn, in each of those between, and in the last, over :data:`REST` rows. An event is a
    label and the bytes that are allocated, or the place of what is freed among what is alive, in
    the order of allocation. Where one tile holds all (``one``) there are no loops.
    """

    element_bytes: int
    one: bool
    events: list[Any]
    steps: list[Any]
    saved: Polynomial
    workspaces: int

    @property
    def conditions(self) -> tuple[str, ...]:
        """The sizes for which this holds."""
        return f"e == {self.element_bytes}", f"ceil(N/{TILE}) {'==' if self.one else '!='} 1"


def followed(w: Workload, training: bool) -> tuple[Trace, list[Mark]]:
    """A trace of tiled attention, and where each turn of its loops begins."""
    marks: list[Mark] = []
    cut = attention._cut

    def marked(x: torch.Tensor, size: int | None) -> Iterator[slice]:
        modes = _get_current_dispatch_mode_stack()
        recorder = next(mode for mode in modes if isinstance(mode, Recorder))

        def mark(kind: str) -> None:
            marks.append((kind, len(recorder.events), len(recorder.steps)))

        mark("(")
        for rows in cut(x, size):
            mark("|")
            yield rows
        mark(")")

    with mock.patch.object(attention, "_cut", marked):
        return trace(attention.tiled_attention, w, training), marks


def turns(element_bytes: int, training: bool, *, one: bool) -> Turns:
    """What tiled attention does where Q has elements of so many bytes, in one tile or in more.

    From traces of three turns. Raises ``ValueError`` where a number is no sum of sizes.
    """
    chance = random.Random(0)
    found = [_draw(chance, element_bytes, 1 if one else 3) for _ in range(SAMPLES)]
    points = [_sizes(w) for w in found]
    columns = []
    for w in found:
        t, marks = followed(w, training)
        allocated = [size for _, size, _, _ in t.lifetimes]
        work = [x for s in t.steps for x in (s.flops, s.bytes_read, s.bytes_written, s.special)]
        columns.append([*allocated, *work, t.saved_bytes])
    sums = fit(points, zip(*columns, strict=True), "BHNd" if one else "BHNMd")
    if missing := sums.count(None):
        raise ValueError(f"{missing} numbers of tiled_attention are no sums of sizes")
    named = [_named(x, one) for x in sums if x is not None]
    allocations = len(allocated)
    steps = [
        (Work(s.name, s.stage, s.matrix, *named[at : at + 4]), s.dtype.itemsize * s.matrix)
        for s, at in zip(t.steps, range(allocations, len(named), 4), strict=False)
    ]
    return Turns(
        element_bytes,
        one,
        nested([*_events(t, named)], [(kind, at) for kind, at, _ in marks]),
        nested(steps, [(kind, at) for kind, _, at in marks]),
        named[-1],
        workspaces(t),
    )


def nested(items: Sequence[Any], marks: Sequence[tuple[str, int]]) -> list[Any]:
    """Items with loops among them, each a list of its turns; a loop of one turn is none.

    >>> nested("abcdefg", [("(", 1), ("|", 1), ("|", 3), ("|", 5), (")", 6)])
    ['a', [['b', 'c'], ['d', 'e'], ['f']], 'g']
    """
    top: list[Any] = []
    open_lists, at = [top], 0
    for kind, place in marks:
        open_lists[-1] += items[at:place]
        at = place
        if kind == "(":
            open_lists.append([])
            continue
        if len(open_lists) % 2 and len(open_lists) > 1:  # a turn has been going on
            turn = open_lists.pop()
            open_lists[-1].append(turn)
        if kind == "|":
            open_lists.append([])
        else:
            loop = open_lists.pop()
            open_lists[-1] += loop[0] if len(loop) == 1 else [loop]
    return [*top, *items[at:]]


def _events(t: Trace, sums: Sequence[Polynomial]) -> Iterator[tuple[str, Polynomial] | int]:
    alive: list[int] = []
    waiting = iter(sums)
    for event, block in zip(t.timeline, t._blocks, strict=True):
        if event.bytes > 0:
            alive.append(block)
            yield event.label, next(waiting)
        else:
            place = alive.index(block)
            alive.pop(place)
            yield place


def _draw(chance: random.Random, element_bytes: int, tiles: int) -> Workload:
    return Workload(
        batch=chance.choice((1, 2, 3, 5)),
        heads=chance.choice((1, 2, 3, 7)),
        seq_len=TILE * (tiles - 1) + chance.choice((1, TILE, chance.randint(1, TILE))),
        head_dim=chance.choice((1, 64, chance.randint(1, 300))),
        dtype={2: torch.float16, 4: torch.float32}[element_bytes],
    )


def _sizes(w: Workload) -> Sizes:
    """The sizes of a workload, where N stands for the rows of the last tile, and M for N."""
    sizes = Sizes(w)
    sizes["N"] = w.seq_len - TILE * (ceil_div(w.seq_len, TILE) - 1)
    return sizes


def _named(p: Polynomial, one: bool) -> Polynomial:
    """A sum in the names that its sizes have elsewhere."""
    names = {} if one else {"N": REST, "M": "N"}
    if any("ceil" in x for m in p.terms for x in m):
        raise ValueError(f"tiles of tiled_attention must not be cut into parts, got {p}")
    return Polynomial({tuple(names.get(x, x) for x in m): c for m, c in p.terms.items()})
