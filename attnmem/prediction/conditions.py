"""Conditions on sizes that decide what a program or a kernel does, in words of Python and JS."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnmem.prediction.symbolic import Sizes
from attnmem.workload import Workload

#: What may decide between two pieces: a condition and its opposite.
CONDITIONS = (
    ("e == 2", "e == 4"),
    ("G == H", "G != H"),
    ("min(H, N) == 1", "min(H, N) != 1"),
    ("N == 1", "N != 1"),
    ("H == 1", "H != 1"),
    ("G == 1", "G != 1"),
    ("B == 1", "B != 1"),
    ("d == 1", "d != 1"),
    ("d % 8 == 0", "d % 8 != 0"),
    ("d % 4 == 0", "d % 4 != 0"),
    ("d <= 64", "d > 64"),
    ("d <= 128", "d > 128"),
    ("d <= 256", "d > 256"),
    ("flash_splits == 1", "flash_splits != 1"),
    ("dtype == 'float16'", "dtype != 'float16'"),
)
RELATIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">": operator.gt,
}


def holds(condition: str, sizes: Mapping[str, Any]) -> bool:
    """Whether a condition such as ``d % 8 == 0`` holds; JavaScript says the same of it.

    >>> holds("d % 8 == 0", {"d": 64}), holds("dtype != 'float16'", {"dtype": "float16"})
    (True, False)
    """
    left, relation, right = re.split(" (==|!=|<=|>) ", condition)
    name, _, divisor = left.partition(" % ")
    value = sizes[name] % int(divisor) if divisor else sizes[name]
    than = right.strip("'") if "'" in right else sizes.get(right) or int(right)
    return RELATIONS[relation](value, than)


def all_hold(conditions: Sequence[str], w: Workload) -> bool:
    """Whether all conditions hold for a workload."""
    sizes = Sizes(w)
    return all(holds(condition, sizes) for condition in conditions)
