"""Numbers of bytes as exact polynomials of B, H, N, d, found from their values at some sizes."""

import functools
import itertools
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from attnmem.prediction.kernels.fused import (
    efficient_splits,
    flash_head_dim,
    flash_splits,
)
from attnmem.workload import Workload, ceil_div, dtype_name

Monomial = tuple[str, ...]  # factors, a power as often as it says

#: Kernels cut rows and columns into parts of so many: ⌈N/64⌉ and so on are sizes, too.
PARTS = {"N": (8, 32, 64, 128), "M": (8, 32, 64, 128), "d": (8, 32, 64, 128), "v": (8, 32, 64, 128)}

#: Sizes that kernels work out by rules of their own: functions of that name in ``kernels.fused``.
OF_KERNELS: dict[str, Callable[[Workload], int]] = {
    "flash_head_dim": lambda w: flash_head_dim(w.head_dim),
    "flash_splits": lambda w: flash_splits(
        w.batch * w.heads, w.seq_len, w.key_shape[2], w.head_dim
    ),
    "efficient_splits": lambda w: efficient_splits(w.batch * w.heads, w.key_shape[2]),
}


class Sizes(dict[str, Any]):
    """The sizes of a workload by their letters, and what follows from them, when it is asked for.

    B, H, N, d of Q; G, M, v: the heads, length and head dimension of V; e: bytes of an element;
    ``dtype``: its name; ``ceil(N/64)``: how many parts of 64 cover N; ``min(H, N)``; and those of
    :data:`OF_KERNELS`.

    >>> Sizes(Workload(batch=1, heads=12, seq_len=100, head_dim=64, dtype="float16"))["ceil(N/64)"]
    2
    """

    def __init__(self, w: Workload) -> None:
        b, h, n, d = w.shape
        _, g, m, v = w.value_shape
        named = {"B": b, "H": h, "N": n, "d": d, "G": g, "M": m, "v": v, "e": w.element_bytes}
        super().__init__(named | {"dtype": dtype_name(w.dtype)})
        self.workload = w

    def __missing__(self, name: str) -> int:
        if name in OF_KERNELS:
            self[name] = OF_KERNELS[name](self.workload)
        elif name == "min(H, N)":
            self[name] = min(self["H"], self["N"])
        else:
            of, _, parts = name.removeprefix("ceil(").removesuffix(")").partition("/")
            self[name] = ceil_div(self[of], int(parts))
        return int(self[name])


@dataclass(frozen=True)
class Polynomial:
    """A sum of coefficient × monomial, exactly. A size of this kind is a whole number of bytes.

    >>> sizes = Sizes(Workload(batch=1, heads=12, seq_len=100, head_dim=64, dtype="float16"))
    >>> Polynomial({("B", "H", "N"): Fraction(4), (): Fraction(16)}).at(sizes)
    4816
    """

    terms: Mapping[Monomial, Fraction]

    def at(self, sizes: Mapping[str, Any]) -> int:
        """The value at these sizes."""
        return int(sum(c * product(m, sizes) for m, c in self.terms.items()))

    def __add__(self, other: "Polynomial") -> "Polynomial":
        sums = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            sums[monomial] = sums.get(monomial, Fraction(0)) + coefficient
        return Polynomial(sums)

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def where_whole(self, sizes: Mapping[str, Any]) -> "Polynomial":
        """The same where parts come out even as they do at ``sizes``: N/64 for ⌈N/64⌉."""
        found = Polynomial({})
        for monomial, coefficient in self.terms.items():
            factors = [whole(factor, sizes) for factor in monomial]
            parts = math.prod(part(x)[1] for x, y in zip(monomial, factors, strict=True) if x != y)
            found += Polynomial({ordered(factors): coefficient / parts})
        return found


def whole(factor: str, sizes: Mapping[str, Any]) -> str:
    """The size that ``factor`` is, up to its parts, where nothing is rounded up: N for ⌈N/64⌉."""
    if factor == "flash_head_dim":
        return "d" if sizes[factor] == sizes["d"] else factor
    of, parts = part(factor)
    return of if sizes[of] % parts == 0 else factor


def part(factor: str) -> tuple[str, int]:
    """Of ``ceil(N/64)``, N and 64; of another factor, itself and 1."""
    if not factor.startswith("ceil("):
        return factor, 1
    of, _, parts = factor[5:-1].partition("/")
    return of, int(parts)


def ordered(factors: Iterable[str]) -> Monomial:
    """A monomial in the order of the book: B·H·N·d."""
    return tuple(sorted(factors, key=lambda x: (len(x) > 1, "BHGNMdve".find(part(x)[0]), x)))


def product(monomial: Monomial, sizes: Mapping[str, Any]) -> int:
    """The value of a monomial."""
    return math.prod(sizes[factor] for factor in monomial)


@functools.cache
def monomials(free: frozenset[str]) -> tuple[Monomial, ...]:
    """What one tensor's size may be, the simplest first, of the sizes that are ``free``."""
    rows: list[Monomial] = [(), ("N",), ("M",), ("N", "N"), ("N", "M"), ("M", "M")]
    dims: list[Monomial] = [(), ("d",), ("v",)]
    parts = {of: [f"ceil({of}/{size})" for size in sizes] for of, sizes in PARTS.items()}
    cut_rows: list[Monomial] = [(x,) for x in parts["N"] + parts["M"]]
    cut_rows += [("N", x) for x in (parts["N"][0], parts["M"][0])]
    cut_dims: list[Monomial] = [(x,) for x in parts["d"] + parts["v"]]
    heads: list[Monomial] = [(), ("H",), ("G",)]
    square: list[Monomial] = [("d", "d"), ("v", "v"), ("d", "v")]
    plain = [*itertools.product([*heads, ("H", "H")], rows, [*dims, *square])]
    cut = [*itertools.product(heads, rows + cut_rows, dims + cut_dims)]
    found: dict[Monomial, None] = {}
    dim, *splits = OF_KERNELS
    cut += itertools.product(heads, [("N",), *cut_rows], [(dim,)])
    for beside in ((), *((name,) for name in splits)):
        for middle in itertools.chain(plain, cut):
            for b, e in itertools.product(((), ("B",)), ((), ("e",))):
                m = ordered(itertools.chain(b, *middle, e, beside))
                if all(x in OF_KERNELS or part(x)[0] in free for x in m):
                    found[m] = None
    return tuple(found)


def fit(
    points: Sequence[Mapping[str, Any]], columns: Iterable[Sequence[int]], free: Iterable[str]
) -> list[Polynomial | None]:
    """For each column of values at ``points``, the polynomial that has them; ``None``: not found.

    First one monomial is tried, then sums. ``free``: the sizes that are not the same at all points.
    """
    wanted, free = [tuple(column) for column in columns], frozenset(free)
    allowed = monomials(free)
    found: dict[tuple[int, ...], Polynomial] = {tuple([0] * len(points)): Polynomial({})}
    few = points[:8]
    by_ratio: dict[tuple[int, ...], Monomial] = {}
    for monomial in allowed:
        by_ratio.setdefault(_ratio([product(monomial, p) for p in few]), monomial)
    for column in wanted:
        if column not in found and (one := by_ratio.get(_ratio(column[: len(few)]))) is not None:
            single = Polynomial({one: Fraction(column[0], product(one, points[0]))})
            if _agrees(single, points, column):
                found[column] = single
    for kind in (_simple, _padded, _tiled):
        if not (missing := [column for column in dict.fromkeys(wanted) if column not in found]):
            break
        of_heads = (m for m in allowed if set(m) <= set("NMdv") or _of_all_heads(m, free))
        terms = [m for m in of_heads if kind(m)]
        matrix = [[product(m, p) for m in terms] for p in points]
        for column, solution in zip(missing, _solve(matrix, missing), strict=True):
            total = Polynomial({m: c for m, c in zip(terms, solution, strict=True) if c})
            if len(total.terms) <= MOST_TERMS and _agrees(total, points, column):
                found[column] = total
    return [found.get(column) for column in wanted]


def free_sizes(points: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The sizes that are not the same at all points; of K and V, if they are not always those of Q.

    >>> w = Workload(batch=1, heads=12, seq_len=100, head_dim=64, dtype="float16")
    >>> other = Workload(batch=1, heads=12, seq_len=200, head_dim=64, dtype="float16")
    >>> sorted(free_sizes([Sizes(w), Sizes(other)]))
    ['N']
    """
    differ = {x for x in "BHGNMdve" if len({p[x] for p in points}) > 1}
    twins = (("G", "H"), ("M", "N"), ("v", "d"))
    return frozenset(differ) - {x for x, of in twins if all(p[x] == p[of] for p in points)}


def _agrees(p: Polynomial, points: Sequence[Mapping[str, Any]], column: Sequence[int]) -> bool:
    return all(
        sum(c * product(m, point) for m, c in p.terms.items()) == value
        for point, value in zip(points, column, strict=True)
    )


def _ratio(values: Sequence[int]) -> tuple[int, ...]:
    common = math.gcd(*values) or 1
    return tuple(value // common for value in values)


def _simple(m: Monomial) -> bool:
    """Sums of tensors, of all heads or of none."""
    return set(m) <= set("BHGNMdve")


def _padded(m: Monomial) -> bool:
    """Sums of tensors, some with a padded head dimension."""
    return set(m) <= {*"BHGNMdve", "ceil(d/8)", "ceil(v/8)"}


def _tiled(m: Monomial) -> bool:
    """Sums of what kernels cut in parts."""
    coarse = all(part(x)[1] > 8 for x in m if x not in OF_KERNELS and len(x) > 1)
    return coarse and not {"e", "flash_splits"} & set(m) and m.count("N") < 2


def _of_all_heads(m: Monomial, free: Container[str]) -> bool:
    return ("B" in m or "B" not in free) and ("H" in m or "G" in m or "H" not in free)


MOST_TERMS = 4  # more would be an accident
PRIME = 2**61 - 1


def _solve(matrix: list[list[int]], columns: Sequence[Sequence[int]]) -> list[list[Fraction]]:
    """For each column a solution modulo a prime, in small numbers; of the first terms, if it can.

    Numbers of bytes are far smaller than the prime. Whether it is a solution, ``_agrees`` says.
    """
    rows = [
        [x % PRIME for x in (*row, *values)]
        for row, values in zip(matrix, zip(*columns, strict=True), strict=True)
    ]
    width = len(matrix[0])
    pivots: list[int] = []
    for at in range(width):
        top = len(pivots)
        place = next((i for i in range(top, len(rows)) if rows[i][at]), None)
        if place is None:
            continue
        rows[top], rows[place] = rows[place], rows[top]
        inverse = pow(rows[top][at], -1, PRIME)
        lead = rows[top] = [x * inverse % PRIME for x in rows[top]]
        for i, row in enumerate(rows):
            if i != top and (factor := row[at]):
                rows[i] = [(x - factor * y) % PRIME for x, y in zip(row, lead, strict=True)]
        pivots.append(at)
    found = [[Fraction(0)] * width for _ in columns]
    for row, at in zip(rows, pivots, strict=False):
        for solution, value in zip(found, row[width:], strict=True):
            solution[at] = _small(value)
    return found


def _small(value: int) -> Fraction:
    for below in (1, 2, 4, 8, 3):
        above = value * below % PRIME
        above -= PRIME * (above > PRIME // 2)
        if abs(above) < 2**40:
            return Fraction(above, below)
    return Fraction(0)
