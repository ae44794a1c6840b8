"""What a program allocates and frees at any sizes: pieces, each with its condition and events."""

import itertools
import math
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch

from attnmem.prediction.allocator import cublas_workspace
from attnmem.prediction.conditions import CONDITIONS, all_hold, holds
from attnmem.prediction.symbolic import Polynomial, Sizes, fit, free_sizes
from attnmem.prediction.trace import Trace, trace
from attnmem.programs import Program
from attnmem.workload import Workload

NOTHING = Polynomial({})


@dataclass(frozen=True)
class Work:
    """A step of a program, as :class:`attnmem.timeline.Step`, with sums in the place of numbers."""

    name: str
    stage: str
    matrix: bool
    flops: Polynomial
    bytes_read: Polynomial
    bytes_written: Polynomial
    special: Polynomial


@dataclass(frozen=True)
class Piece:
    """What happens at all sizes for which ``conditions`` hold.

    ``events``: a label and the bytes that are allocated; or a number, which allocation is freed.
    ``refused``: why a program takes no such sizes.
    """

    conditions: tuple[str, ...]
    events: tuple[tuple[str, Polynomial] | int, ...] = ()
    steps: tuple[Work, ...] = ()
    saved: Polynomial = NOTHING
    workspaces: int = 0
    refused: str = ""

    def sizes(self, w: Workload) -> list[int]:
        """The events of a run with ``w``: bytes, allocations > 0 and releases < 0."""
        sizes, made, found = Sizes(w), list[int](), list[int]()
        for event in self.events:
            if isinstance(event, int):
                found.append(-made[event])
            else:
                made.append(event[1].at(sizes))
                found.append(made[-1])
        return found


@dataclass(frozen=True)
class Listing:
    """The pieces of a program; one of them is meant at any sizes."""

    program: str
    training: bool
    pieces: tuple[Piece, ...]

    def at(self, w: Workload) -> Piece:
        """The piece for ``w``."""
        sizes = Sizes(w)
        return next(p for p in self.pieces if all(holds(c, sizes) for c in p.conditions))


Draw = Callable[[random.Random], Workload]
SAMPLES = 50  # as many numbers decide a sum, with some to spare


def draw(chance: random.Random) -> Workload:
    """Sizes at random, with those among them that kernels treat in a way of their own."""
    rows = (1, 64 * chance.randint(1, 128), chance.randint(2, 200), chance.randint(2, 3000))
    dims = (chance.randint(1, 320), 4 * chance.randint(1, 34), 8 * chance.randint(1, 40), 64)
    return Workload(
        batch=chance.choice((1, 2, 3, 4, 5, 7, 16)),
        heads=chance.choice((1, 2, 3, 4, 6, 8, 12, 16, 32)),
        seq_len=chance.choices(rows, (2, 3, 3, 6))[0],
        head_dim=chance.choices((1, *dims), (1, 3, 3, 6, 2))[0],
        dtype=chance.choice((torch.float16, torch.bfloat16, torch.float32)),
    )


def draw_groups(chance: random.Random) -> Workload:
    """The same, where heads may share keys: for programs that take that."""
    w = draw(chance)
    groups = chance.choice([g for g in range(1, w.heads + 1) if w.heads % g == 0])
    return replace(w, kv_heads=chance.choice((None, groups, groups, groups)))


def listing(
    program: Program,
    training: bool = False,
    device: str = "cuda",
    *,
    draw: Draw = draw,
    samples: int = SAMPLES,
) -> Listing:
    """The listing of ``program``, from traces at sizes that ``draw`` gives, ``samples`` at a time.

    Where runs differ in more than numbers, or no sum has the numbers, the sizes are divided by one
    of :data:`CONDITIONS`. Each piece is checked at further sizes. Raises ``ValueError`` where that
    does not end: these conditions do not tell what the program does.
    """
    found = tuple(_Maker(program, training, device, draw, samples).grow())
    name = getattr(program, "__name__", type(program).__name__)
    return Listing(name, training, found)


def as_json(listing: Listing) -> dict[str, Any]:
    """The listing as what JSON can hold, for a page that evaluates it.

    ``labels`` and ``sizes`` are what events and steps point into. A size is a list of terms, each
    ``[coefficient, factor, …]``: a whole number of bytes (or FLOPs) times sizes by name. Factors
    are B, H, N, d, G (heads of K and V), e (bytes of an element), ``ceil(N/64)``, and the functions
    ``flash_head_dim``, ``flash_splits`` and ``efficient_splits`` of ``kernels.fused``.

    A piece is meant where all its ``conditions`` hold. Its ``events`` are ``[label, size]`` for an
    allocation, and a number k for the release of the k-th allocation, from 0. A step is ``[label,
    stage, is a matrix product, flops, bytes read, bytes written, special functions]``.
    """
    labels: dict[str, int] = {}
    sizes: dict[Polynomial, int] = {}

    def label(name: str) -> int:
        return labels.setdefault(name, len(labels))

    def size(of: Polynomial) -> int:
        return sizes.setdefault(of, len(sizes))

    pieces = [
        {"conditions": piece.conditions, "refused": piece.refused}
        if piece.refused
        else {
            "conditions": piece.conditions,
            "events": [
                e if isinstance(e, int) else [label(e[0]), size(e[1])] for e in piece.events
            ],
            "steps": [
                [
                    label(step.name),
                    step.stage,
                    step.matrix,
                    size(step.flops),
                    size(step.bytes_read),
                    size(step.bytes_written),
                    size(step.special),
                ]
                for step in piece.steps
            ],
            "saved": size(piece.saved),
            "workspaces": piece.workspaces,
        }
        for piece in listing.pieces
    ]
    terms = [[[_number(c), *m] for m, c in found.terms.items()] for found in sizes]
    return {
        "program": listing.program,
        "training": listing.training,
        "labels": list(labels),
        "sizes": terms,
        "pieces": pieces,
    }


def _number(c: Fraction) -> int | float:
    return c.numerator if c.denominator == 1 else float(c)


def workspaces(t: Trace) -> int:
    """How many workspaces PyTorch keeps for cuBLAS from this run on."""
    return t.workspace_bytes() // cublas_workspace((9, 0))


@dataclass(frozen=True)
class _Run:
    """A run at one size: what should be the same at others, and the numbers."""

    shape: Any
    numbers: tuple[int, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass
class _Maker:
    program: Program
    training: bool
    device: str
    draw: Draw
    count: int
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    runs: dict[Workload, _Run] = field(default_factory=dict)

    def run(self, w: Workload) -> _Run:
        if w not in self.runs:
            self.runs[w] = self._run(w)
        return self.runs[w]

    def _run(self, w: Workload) -> _Run:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                t = trace(self.program, w, self.training, self.device)
        except (RuntimeError, ValueError) as error:
            return _Run("refused", refused=_reasons(error))
        allocated = [size for _, size, _, _ in t.lifetimes]
        places = {start: at for at, (_, _, start, _) in enumerate(t.lifetimes)}
        ends = {end: places[start] for _, _, start, end in t.lifetimes}
        events = tuple(
            event.label if event.bytes > 0 else ends[at] for at, event in enumerate(t.timeline)
        )
        steps = tuple((s.name, s.stage, s.matrix) for s in t.steps)
        work = [x for s in t.steps for x in (s.flops, s.bytes_read, s.bytes_written, s.special)]
        return _Run((events, steps, workspaces(t)), (*allocated, *work, t.saved_bytes))

    def sample(self, conditions: Sequence[str], count: int, fresh: bool = False) -> list[Workload]:
        """So many workloads for which the conditions hold, or fewer if they are rare."""
        known = [] if fresh else [w for w in self.runs if all_hold(conditions, w)][:count]
        found = dict.fromkeys(known)
        for _ in range(5000):
            if len(found) >= count:
                break
            w = self.draw(self.chance)
            if all_hold(conditions, w) and not (fresh and w in self.runs):
                found[w] = None
        return list(found)

    def grow(self, conditions: tuple[str, ...] = ()) -> Iterator[Piece]:
        """The pieces of all sizes for which the conditions hold."""
        samples = self.sample(conditions, self.count)
        if not samples:
            return
        if piece := self.piece(conditions, samples):
            yield piece
            return
        shapes = {self.run(w).shape for w in samples}
        pairs = [pair for pair in CONDITIONS if self.divides(pair, samples)]
        if not pairs:
            raise ValueError(f"no condition tells apart what happens where {conditions} hold")
        rank = self.disorder if len(shapes) > 1 else self.unsolved
        best = min(pairs, key=lambda pair: rank(pair, conditions, samples))
        for condition in best:
            yield from self.grow((*conditions, condition))

    def divides(self, pair: tuple[str, str], samples: Sequence[Workload]) -> bool:
        return all(any(all_hold([c], w) for w in samples) for c in pair)

    def disorder(
        self, pair: tuple[str, str], _: tuple[str, ...], samples: Sequence[Workload]
    ) -> tuple[float, float]:
        """How mixed the runs are in both halves: in whether they are refused, and altogether."""
        halves = [[self.run(w) for w in samples if all_hold([c], w)] for c in pair]
        refused = sum(_entropy(not run.numbers for run in half) for half in halves)
        return refused, sum(_entropy(run.shape for run in half) for half in halves)

    def unsolved(
        self, pair: tuple[str, str], conditions: tuple[str, ...], _: Sequence[Workload]
    ) -> int:
        """How many numbers of both halves no sum has."""
        halves = [self.sample((*conditions, condition), self.count) for condition in pair]
        return sum(self.sums(half).count(None) for half in halves)

    def sums(self, samples: Sequence[Workload]) -> list[Polynomial | None]:
        """A sum for each number of these runs, which differ in numbers alone."""
        points = [Sizes(w) for w in samples]
        numbers = list(zip(*(self.run(w).numbers for w in samples), strict=True))
        found = fit(points, numbers, free_sizes(points))
        return [
            x if x is not None and all(c > 0 for c in x.terms.values()) else None for x in found
        ]

    def piece(self, conditions: tuple[str, ...], samples: Sequence[Workload]) -> Piece | None:
        """The piece that has the numbers of all samples, and of as many others."""
        first = self.run(samples[0])
        if any(self.run(w).shape != first.shape for w in samples):
            return None
        if first.refused:
            common = [x for x in first.refused if all(x in self.run(w).refused for w in samples)]
            return Piece(conditions, refused="; ".join(common or first.refused))
        sums = [found for found in self.sums(samples) if found is not None]
        if len(sums) < len(first.numbers):
            return None
        for w in self.sample(conditions, self.count, fresh=True):
            run, sizes = self.run(w), Sizes(w)
            if run.shape != first.shape or [x.at(sizes) for x in sums] != list(run.numbers):
                return None
        return _piece(conditions, first.shape, sums)


def _piece(conditions: tuple[str, ...], shape: Any, sums: list[Polynomial]) -> Piece:
    events, steps, workspaces = shape
    waiting = iter(sums)
    allocated = tuple(e if isinstance(e, int) else (e, next(waiting)) for e in events)
    work = tuple(Work(*named, *itertools.islice(waiting, 4)) for named in steps)
    return Piece(conditions, allocated, work, next(waiting), workspaces)


def _entropy(items: Iterable[object]) -> float:
    counts = Counter(items)
    return -sum(n * math.log(n / counts.total()) for n in counts.values())


def _reasons(error: Exception) -> tuple[str, ...]:
    """Why PyTorch takes no kernel, or why the program fails; without the size that was tried."""
    lines = [line for line in str(error).splitlines() if "is not taken: " in line]
    found = [line.partition("is not taken: ")[2] for line in lines if "switched off" not in line]
    found = "; ".join(found).split("; ") if found else str(error).splitlines()[:1]
    return tuple(re.sub(r"(head_dim) \d+| \(in .*\)", r"\1", reason) for reason in found)
