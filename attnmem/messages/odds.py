"""How likely each way is to have a size: Bayes' rule, and what we don't know has its weight."""

import math
from collections.abc import Iterable

from attnmem.messages.forms import Range
from attnmem.messages.shapes import Shape

#: Sizes are compared with those that are up to so many times smaller or larger.
NEAR = 4
#: A round size is one of these times a power of two. Tensors that we don't know like them, too.
ROUND = range(1, 16, 2)


def odds(size: Range, tried: Iterable[Shape]) -> dict[tuple[str, ...], float]:
    """The probability of each way that has a shape in ``size``, likely ones first.

    Ways (:attr:`attnmem.messages.shapes.Shape.way`) with shapes of that magnitude have half of the
    weight before, each as ``Kind.common`` says, and within a way each step of ``rare`` halves it.
    The other half is for tensors that we don't know: a half of it on round sizes, the rounder the
    more, a half spread evenly over the logarithm of the size. What is missing to 1 is theirs.

    >>> odds(Range(99, 100), [])
    {}
    """
    low, high = max(1, size.low), size.high
    ways: dict[tuple[str, ...], list[Shape]] = {}
    for shape in tried:
        if high <= shape.bytes * NEAR and shape.bytes <= high * NEAR:
            ways.setdefault(shape.way, []).append(shape)
    common = {way: near[0].kind.common for way, near in ways.items()}
    weights = {
        way: common[way] / sum(common.values()) * _share(size, near) / 2
        for way, near in ways.items()
    }
    spread = (math.log(high + 1) - math.log(low)) / (2 * math.log(NEAR))
    total = _round_share(size) / 4 + spread / 4 + sum(weights.values())
    found = {way: weight / total for way, weight in weights.items() if weight}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _round_share(size: Range) -> float:
    """What part of the weight of round sizes of that magnitude lies on those in ``size``."""
    near = [
        (m << k, 1 / m)
        for m in ROUND
        for k in range(64)
        if size.high <= (m << k) * NEAR and m << k <= size.high * NEAR
    ]
    return sum(w for x, w in near if x in size) / (sum(w for _, w in near) or 1)


def _share(size: Range, near: list[Shape]) -> float:
    """What part of a way's weight lies on shapes of that size."""
    weights = [2**-shape.rare for shape in near]
    hits = [w for w, shape in zip(weights, near, strict=True) if shape.bytes in size]
    return sum(hits) / sum(weights)
