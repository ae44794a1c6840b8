"""The peak of any program as a formula that readers know, such as 2S + 4X; found, and proven."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from attnmem.prediction.conditions import CONDITIONS, all_hold, holds
from attnmem.prediction.letters import factor, term, units
from attnmem.prediction.symbolic import (
    OF_KERNELS,
    Monomial,
    Polynomial,
    Sizes,
    fit,
    free_sizes,
    ordered,
    part,
    whole,
)
from attnmem.workload import Workload


class Peak(NamedTuple):
    """The tensors alive at the peak of a run, in the order in which they were allocated.

    ``steps``: how many the run takes.
    """

    labels: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    steps: int = 0

    @property
    def equal(self) -> list[int]:
        """For each tensor, the first that has its size."""
        return [self.sizes.index(size) for size in self.sizes]


PeakAt = Callable[[Workload], Peak]  # traces a program with other sizes; raises what it raises

SAMPLES, PROOFS, TRIES, LEAST = 14, 12, 90, 6
FURTHER = 60  # samples for what is a sum of many terms
LONG = 100  # steps: a program that takes more is not traced at longer sequences
LONGEST = 2**17  # tokens: how far along N a formula is followed
PIECES = 4  # to each side


@dataclass(frozen=True, repr=False)
class Formula:
    """The peak of a program as a sum, at the sizes of ``w`` and at all like them.

    ``tensors``: what is alive at the peak: a label and its size. ``conditions``: what must hold of
    other sizes. ``proven``: at how many other sizes, drawn at random and not those that it was
    found from, a trace has the same tensors and each has this size. ``reason``: why there is no
    closed form; "" if there is one.

    Letters are those of the book: S, X and L are the bytes of scores, of one of Q, K, V, O, and of
    a number in 32 bit for each row. Where K, V or O have sizes of their own, Q, K, V and O stand
    for their bytes. What kernels round up is written so: ⌈N⌉₁₂₈ is N, up to a multiple of 128.
    """

    w: Workload
    tensors: tuple[tuple[str, Polynomial], ...] = ()
    conditions: tuple[str, ...] = ()
    proven: int = 0
    reason: str = ""
    _fixed: Mapping[str, int] = field(default_factory=dict)  # sizes that were never others
    _peak_at: PeakAt | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return not self.reason

    @cached_property
    def total(self) -> Polynomial:
        """The sum of the tensors' sizes."""
        return sum((size for _, size in self.tensors), Polynomial({}))

    def at(self, w: Workload) -> int:
        """The value in bytes at other sizes."""
        return self.total.at(Sizes(w))

    @property
    def terms(self) -> dict[str, tuple[str, ...]]:
        """Each term of the sum, and the tensors that are in it: ``{"2S": ("S", "P"), …}``."""
        found: dict[tuple[int, str, str], tuple[Fraction, tuple[str, ...]]] = {}
        sizes = Sizes(self.w)
        for label, size in self.tensors:
            for monomial, coefficient in size.where_whole(sizes).terms.items():
                place, count, unit = self._in_units(monomial, coefficient)
                before, labels = found.get((place, *unit), (Fraction(0), ()))
                found[(place, *unit)] = before + count, (*labels, label)
        return {
            term(count, unit): labels
            for (_, *unit), (count, labels) in sorted(found.items(), key=lambda item: item[0])
        }

    def _in_units(self, m: Monomial, c: Fraction) -> tuple[int, Fraction, tuple[str, str]]:
        """A term as how many of S, X …: the place of that in a sum, the number, and its text."""
        own = [x for x in m if x in OF_KERNELS]
        plain = ordered(x for x in m if x not in OF_KERNELS)
        for place, (name, of, size) in enumerate(units(self.w)):
            free = [x for x in of if x not in self._fixed]
            count = c / size
            for x in of:
                count /= self._fixed.get(x, 1)
            if plain == ordered(free) and free and 8 % count.denominator == 0:
                return place, count, (name, "".join(f"·{x}" for x in own))
        parts = Fraction(1)
        for x in m:
            parts *= part(x)[1]
        up = (c / parts).denominator == 1
        text = "·".join(factor(x, up) for x in m)
        for x in "HNd":
            text = text.replace(f"{x}·{x}", f"{x}²")
        return 99 - bool(m), c / (parts if up else 1), ("", text)

    def __str__(self) -> str:
        if self.reason:
            return f"no closed form: {self.reason}"
        return " + ".join(self.terms).replace("+ -", "− ") or "0"

    __repr__ = __str__

    @property
    def where(self) -> str:
        """The sizes for which the text of the formula holds, as far as they are like these."""
        sizes, multiples, found = Sizes(self.w), dict[str, int](), list[str]()
        for condition in self.conditions:
            of, _, multiple = condition.removesuffix(" == 0").partition(" % ")
            if multiple and condition.endswith(" == 0"):
                multiples[of] = max(int(multiple), multiples.get(of, 1))
            else:
                found.append(condition)
        for name in sorted({x for _, size in self.tensors for m in size.terms for x in m}):
            of, parts = part(name)
            if parts > 1 and whole(name, sizes) != name:
                multiples[of] = max(parts, multiples.get(of, 1))
            elif whole(name, sizes) != name:
                found.append(f"{name} == {whole(name, sizes)}")
        found += [f"{of} % {parts} == 0" for of, parts in multiples.items()]
        found += [f"{x} == {value}" for x, value in self._fixed.items() if x != "e"]
        return ", ".join(found)

    @cached_property
    def along_n(self) -> tuple[tuple[int, int, "Formula"], ...]:
        """The pieces along N, the other sizes being those of ``w``: first N, last N, formula.

        From N = 1 to 131,072 tokens, up to four pieces to each side. A piece is taken to hold
        between two lengths at which it does; where a run takes many steps, only a part is traced.
        """
        if self.reason or not self._peak_at:
            return ()
        n = self.w.seq_len
        first, last = self._farthest(n, 1), self._farthest(n, LONGEST)
        below = [*self._pieces(first - 1, 1)]
        above = self._pieces(last + 1, LONGEST) if self._holds_at(last) <= 4 * LONG else ()
        return (*reversed(below), (first, last, self), *above)

    def _pieces(self, n: int, end: int) -> Iterator[tuple[int, int, "Formula"]]:
        """From N = ``n`` on, towards ``end``."""
        for _ in range(PIECES):
            if not self._peak_at or not 1 <= n <= LONGEST:
                return
            try:
                formula = of_peak(self._peak_at, replace(self.w, seq_len=n))
            except Exception:  # the program does not take this length
                return
            if not formula:
                return
            far = formula._farthest(n, end)
            yield (*sorted((n, far)), formula)  # type: ignore[misc]
            n = far + (1 if end > 1 else -1)

    def _farthest(self, holds_at: int, end: int) -> int:
        """The farthest N towards ``end`` at which the formula holds, by doubling and bisection."""
        step = 1 if end > holds_at else -1
        fails_at, jump = end + step, 1
        while (n := holds_at + step * jump) * step < fails_at * step:
            steps = self._holds_at(n)
            if not steps:
                fails_at = n
            elif steps > 4 * LONG:
                return n
            else:
                holds_at, jump = n, 2 * jump
        while abs(fails_at - holds_at) > 1:
            n = (holds_at + fails_at) // 2
            holds_at, fails_at = (n, fails_at) if self._holds_at(n) else (holds_at, n)
        return holds_at

    def _holds_at(self, n: int) -> int:
        """Whether the formula holds at this length: how many steps the run takes, or 0."""
        w = replace(self.w, seq_len=n)
        try:
            peak = self._peak_at(w) if self._peak_at else Peak()
        except Exception:  # whatever a program raises, it does not take this length
            return 0
        return peak.steps if sum(peak.sizes) == self.at(w) else 0


def of_peak(peak_at: PeakAt, w: Workload) -> Formula:
    """The formula of the peak that ``peak_at`` finds for a workload, from what it finds near ``w``.

    Other sizes are drawn at random, from a fixed seed. Where the tensors alive at the peak are the
    same, each must have a size that is a sum of products of B, H, N, d. If no sum has it, sizes
    with one condition in common with ``w`` are looked at alone.
    """
    search = _Search(peak_at, w)
    formula = found = search.formula(())
    for conditions, alike in search.narrower():
        if formula and all(c > 0 for c in formula.total.terms.values()):
            return formula
        search.alike = alike
        formula = search.formula(conditions)
        found = found or formula
    return formula or found


class _Search:
    def __init__(self, peak_at: PeakAt, w: Workload) -> None:
        self.peak_at, self.w = peak_at, w
        self.peak = peak_at(w)
        self.found = {w: self.peak}  # those with the same tensors alive
        self.tried = {w}
        self.alike = False  # whether tensors of equal size must be so elsewhere
        self.chance = random.Random(0)

    def is_like(self, w: Workload, conditions: Sequence[str]) -> bool:
        return all_hold(conditions, w) and (
            not self.alike or self.found[w].equal == self.peak.equal
        )

    def samples(self, conditions: Sequence[str], count: int, fresh: bool = False) -> list[Workload]:
        """So many workloads with the same tensors at the peak, if there are."""
        some = [] if fresh else [w for w in self.found if self.is_like(w, conditions)]
        for _ in range(TRIES):
            if len(some) >= count:
                break
            w = _near(self.w, self.chance, longer=self.peak.steps <= LONG)
            if w in self.tried or not all_hold(conditions, w):
                continue
            self.tried.add(w)
            try:
                peak = self.peak_at(w)
            except Exception:  # whatever a program raises, it does not take these sizes
                continue
            if peak.labels == self.peak.labels:
                self.found[w] = peak
                some += [w] if self.is_like(w, conditions) else []
        return some[:count]

    def narrower(self) -> Iterator[tuple[tuple[str, ...], bool]]:
        """Conditions that hold for ``w`` and not for all others that were found; then no more."""
        sizes = Sizes(self.w)
        here = [next(c for c in pair if holds(c, sizes)) for pair in CONDITIONS]
        alone = [c for c in here if not all(all_hold([c], w) for w in self.found)]
        if self.peak.steps <= LONG:
            yield from (((condition,), False) for condition in reversed(alone))
            yield tuple(alone), False
        yield (), True

    def formula(self, conditions: tuple[str, ...]) -> Formula:
        count = SAMPLES
        while True:
            some = self.samples(conditions, count)
            points = [Sizes(w) for w in some]
            free = free_sizes(points)
            columns = zip(*(self.found[w].sizes for w in some), strict=True)
            sums = fit(points, columns, free)
            missing = [x for x, size in zip(self.peak.labels, sums, strict=True) if size is None]
            if not missing or count == FURTHER or len(some) < count:
                break
            count = FURTHER
        if len(some) < LEAST:
            return Formula(self.w, reason="the same tensors are alive at few other sizes")
        if missing:
            return Formula(self.w, reason=f"no sum of products of sizes has that of {missing[0]}")
        tensors = tuple(zip(self.peak.labels, [x for x in sums if x is not None], strict=True))
        others = self.samples(conditions, PROOFS, fresh=True)
        if len(others) < LEAST:
            return Formula(self.w, reason="the same tensors are alive at few other sizes")
        for other in others:
            sizes = Sizes(other)
            for (label, size), found in zip(tensors, self.found[other].sizes, strict=True):
                if size.at(sizes) != found:
                    return Formula(self.w, reason=f"a sum for {label} fails at other sizes")
        every_point = [*points, *map(Sizes, others)]
        multiples = {x: math.gcd(*(p[x] for p in every_point)) for x in sorted(free & {*"NMdv"})}
        conditions += tuple(f"{x} % {size} == 0" for x, size in multiples.items() if size >= 8)
        every = free | _twins(points)
        own = {"G": self.w.kv_heads, "M": self.w.kv_len, "v": self.w.value_dim}
        fixed = {x: points[0][x] for x in "BHGNMdve" if x not in every and own.get(x, 1)}
        return Formula(
            self.w, tensors, conditions, len(others), _fixed=fixed, _peak_at=self.peak_at
        )


def _twins(points: Sequence[Sizes]) -> set[str]:
    return {x for x in "GMv" if len({p[x] for p in points}) > 1}


def _near(w: Workload, chance: random.Random, longer: bool) -> Workload:
    """Sizes near those of ``w``: some of any value, some multiples of it, some the same."""
    times = 2 if longer else 1

    def other(size: int, least: int, most: int) -> int:
        whole = (part * chance.randint(1, max(1, most // part)) for part in (8, 64))
        some = chance.randint(least, most)
        return chance.choice((size, size * chance.randint(1, 2), some, some + 1, *whole))

    heads = chance.choice((w.heads, 2 * w.heads, chance.randint(1, 9)))
    of_keys: dict[str, Any] = {}
    if w.kv_heads:
        of_keys["kv_heads"] = chance.choice((w.kv_heads, 2 * w.kv_heads, chance.randint(1, 4)))
        heads = of_keys["kv_heads"] * chance.choice((w.groups, chance.randint(1, 5)))
    if w.kv_len:
        of_keys["kv_len"] = other(w.kv_len, w.kv_len // 2 + 1, 2 * w.kv_len + 8)
    if w.value_dim:
        of_keys["value_dim"] = other(w.value_dim, 1, 2 * w.value_dim + 8)
    return replace(
        w,
        batch=chance.choice((w.batch, 2 * w.batch, chance.randint(1, 5))),
        heads=heads,
        seq_len=min(other(w.seq_len, w.seq_len // 2 + 1, 2 * w.seq_len + 8), times * w.seq_len + 8),
        head_dim=other(w.head_dim, 1, 2 * w.head_dim + 8),
        **of_keys,
    )
