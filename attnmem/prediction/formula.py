"""The peak of any program as a formula that readers know, such as 2S + 4X; found, and proven."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from attnmem.prediction.conditions import CONDITIONS, all_hold, holds
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
    """The tensors alive at the peak of a run, in the order in which they were allocated."""

    labels: tuple[str, ...]
    sizes: tuple[int, ...]


PeakAt = Callable[[Workload], Peak]  # traces a program with other sizes; raises what it raises

SAMPLES, PROOFS, TRIES = 14, 12, 90
FURTHER = 60  # samples for what is a sum of many terms
LONGEST = 2**17  # tokens: how far along N a formula is followed


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
            _term(count, unit): labels
            for (_, *unit), (count, labels) in sorted(found.items(), key=lambda item: item[0])
        }

    def _in_units(self, m: Monomial, c: Fraction) -> tuple[int, Fraction, tuple[str, str]]:
        """A term as how many of S, X …: the place of that in a sum, the number, and its text."""
        own = [x for x in m if x in OF_KERNELS]
        plain = ordered(x for x in m if x not in OF_KERNELS)
        for place, (name, of, size) in enumerate(_units(self.w)):
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
        text = "·".join(_factor(x, up) for x in m)
        return 99 - bool(m), c / (parts if up else 1), ("", text)

    def __str__(self) -> str:
        if self.reason:
            return f"no closed form: {self.reason}"
        return " + ".join(self.terms) or "0"

    __repr__ = __str__

    @property
    def where(self) -> str:
        """The sizes for which the text of the formula holds, as far as they are like these."""
        sizes, found = Sizes(self.w), dict.fromkeys(self.conditions)
        for factor in {x for _, size in self.tensors for m in size.terms for x in m}:
            of, parts = part(factor)
            if whole(factor, sizes) != factor:
                found[f"{of} % {parts} == 0" if parts > 1 else f"{factor} == d"] = None
        found |= {f"{x} == {value}": None for x, value in self._fixed.items() if x != "e"}
        return ", ".join(sorted(found))

    @cached_property
    def along_n(self) -> tuple[tuple[int, int, "Formula"], ...]:
        """The pieces along N, the other sizes being those of ``w``: first N, last N, formula.

        From N = 1 to 131,072 tokens, where that can be traced in time; up to eight pieces. Between
        two lengths at which a piece holds it is taken to hold.
        """
        if self.reason or not self._peak_at:
            return ()
        here = self._reach()
        found = [here]
        for step in (-1, 1):
            first, last, _ = here
            while len(found) < 8:
                n = first - 1 if step < 0 else last + 1
                if not 1 <= n <= LONGEST:
                    break
                formula = of_peak(self._peak_at, replace(self.w, seq_len=n))
                if not formula:
                    break
                first, last, _ = piece = formula._reach()
                found.append(piece)
        return tuple(sorted(found, key=lambda piece: piece[0]))

    def _reach(self) -> tuple[int, int, "Formula"]:
        n = self.w.seq_len
        return self._farthest(n, 1), self._farthest(n, LONGEST), self

    def _farthest(self, holds_at: int, end: int) -> int:
        """The farthest N towards ``end`` at which the formula holds, by doubling and bisection."""
        step = 1 if end > holds_at else -1
        fails_at, jump = end + step, 1
        while (n := holds_at + step * jump) * step < fails_at * step:
            if self._holds_at(n):
                holds_at, jump = n, 2 * jump
            else:
                fails_at = n
        while abs(fails_at - holds_at) > 1:
            n = (holds_at + fails_at) // 2
            if self._holds_at(n):
                holds_at = n
            else:
                fails_at = n
        return holds_at

    def _holds_at(self, n: int) -> bool:
        w = replace(self.w, seq_len=n)
        try:
            peak = self._peak_at(w) if self._peak_at else None
        except Exception:  # whatever a program raises, it does not take this length
            return False
        return peak is not None and sum(peak.sizes) == self.at(w)


def of_peak(peak_at: PeakAt, w: Workload) -> Formula:
    """The formula of the peak that ``peak_at`` finds for a workload, from what it finds near ``w``.

    Other sizes are drawn at random, from a fixed seed. Where the tensors alive at the peak are the
    same, each must have a size that is a sum of products of B, H, N, d. If no sum has it, sizes
    with one condition in common with ``w`` are looked at alone.
    """
    search = _Search(peak_at, w)
    formula = search.formula(())
    for condition in search.dividing():
        if formula:
            return formula
        formula = search.formula((condition,)) or formula
    if not formula:
        formula = search.formula(tuple(search.dividing())) or formula
    return formula


class _Search:
    def __init__(self, peak_at: PeakAt, w: Workload) -> None:
        self.peak_at, self.w = peak_at, w
        self.peak = peak_at(w)
        self.found = {w: self.peak}  # those with the same tensors alive
        self.tried = {w}
        self.chance = random.Random(0)

    def samples(self, conditions: Sequence[str], count: int, fresh: bool = False) -> list[Workload]:
        """So many workloads with the same tensors at the peak, if there are."""
        some = [] if fresh else [w for w in self.found if all_hold(conditions, w)]
        for _ in range(TRIES):
            if len(some) >= count:
                break
            w = _near(self.w, self.chance)
            if w in self.tried or not all_hold(conditions, w):
                continue
            self.tried.add(w)
            try:
                peak = self.peak_at(w)
            except Exception:  # whatever a program raises, it does not take these sizes
                continue
            if peak.labels == self.peak.labels:
                self.found[w] = peak
                some.append(w)
        return some[:count]

    def dividing(self) -> list[str]:
        """The conditions that hold for ``w`` and not for all others that were found."""
        sizes = Sizes(self.w)
        here = [next(c for c in pair if holds(c, sizes)) for pair in CONDITIONS]
        return [c for c in here if not all(all_hold([c], w) for w in self.found)]

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
        if len(some) < 4:
            return Formula(self.w, reason="at no other sizes are the same tensors alive at the peak")
        if missing:
            return Formula(self.w, reason=f"no sum of products of sizes has that of {missing[0]}")
        tensors = tuple(zip(self.peak.labels, [x for x in sums if x is not None], strict=True))
        others = self.samples(conditions, PROOFS, fresh=True)
        for other in others:
            sizes = Sizes(other)
            for (label, size), found in zip(tensors, self.found[other].sizes, strict=True):
                if size.at(sizes) != found:
                    return Formula(self.w, reason=f"a sum for {label} fails at other sizes")
        every = free | _twins(points)
        fixed = {x: points[0][x] for x in "BHGNMdve" if x not in every}
        return Formula(
            self.w, tensors, conditions, len(others), _fixed=fixed, _peak_at=self.peak_at
        )


def _twins(points: Sequence[Sizes]) -> set[str]:
    return {x for x in "GMv" if len({p[x] for p in points}) > 1}


def _near(w: Workload, chance: random.Random) -> Workload:
    """Sizes near those of ``w``: some of any value, some multiples of it, some the same."""

    def other(size: int, least: int, most: int) -> int:
        return chance.choice(
            (size, size * chance.randint(1, 2), chance.randint(least, most))
            + tuple(part * chance.randint(1, max(1, most // part)) for part in (8, 64))
        )

    heads = chance.choice((w.heads, 2 * w.heads, chance.randint(1, 9)))
    of_keys: dict[str, int] = {}
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
        seq_len=other(w.seq_len, w.seq_len // 2 + 1, 2 * w.seq_len + 8),
        head_dim=other(w.head_dim, 1, 2 * w.head_dim + 8),
        **of_keys,
    )


def _units(w: Workload) -> Iterator[tuple[str, Monomial, int]]:
    """The letters of the book: what each is, and its bytes for one."""
    e, m = w.element_bytes, "M" if w.kv_len else "N"
    yield "S", ("B", "H", "N", m), e
    of_keys = w.kv_len or w.kv_heads or w.value_dim
    v, g = "v" if w.value_dim else "d", "G" if w.kv_heads else "H"
    yield "Q" if of_keys else "X", ("B", "H", "N", "d"), e
    if of_keys:
        yield "K", ("B", g, m, "d"), e
        yield "V", ("B", g, m, v), e
        yield "O", ("B", "H", "N", v), e
    yield "L", ("B", "H", "N"), 4
    yield "NM" if w.kv_len else "N²", ("N", m), 1


def _term(count: Fraction, unit: Sequence[str]) -> str:
    name, rest = unit
    number = str(count.numerator) if count.denominator == 1 else f"{float(count):g}"
    if name:
        return ("" if count == 1 and name else number) + name + rest
    return f"{number}·{rest}" if rest else number


def _factor(factor: str, up: bool) -> str:
    of, parts = part(factor)
    if parts == 1:
        return factor
    small = str(parts).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    return f"⌈{of}⌉{small}" if up else f"⌈{of}/{parts}⌉"
