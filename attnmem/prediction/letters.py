"""A sum of bytes in the letters of the book: S, X, L, and what kernels round up."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from attnmem.prediction.symbolic import Monomial, part
from attnmem.workload import Workload


def units(w: Workload) -> Iterator[tuple[str, Monomial, int]]:
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


def term(count: Fraction, unit: Sequence[str]) -> str:
    """How many of what: 2S, or 4·B·H·N for what has no letter."""
    name, rest = unit
    number = str(count) if 8 % count.denominator else f"{float(count):g}"
    if name:
        return ("" if count == 1 and name else number) + name + rest
    return f"{number}·{rest}" if rest else number


def factor(name: str, up: bool) -> str:
    """A factor in words: N, ⌈N⌉₁₂₈ (``up``) or ⌈N/128⌉."""
    of, parts = part(name)
    if parts == 1:
        return name
    small = str(parts).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    return f"⌈{of}⌉{small}" if up else f"⌈{of}/{parts}⌉"
