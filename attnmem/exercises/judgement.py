"""What is said to an answer."""

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from attnmem.exercises.language import _

NO_ANSWER = "no answer yet: put yours in place of the dots"

# Readers round to three digits. 1 MB and 1 MiB are ten times farther apart than that.
TOLERANCE = 0.005

UNITS = {
    "1 kB is 1000 bytes, 1 KiB is 1024": 1.024,
    "1 MB is 10⁶ bytes, 1 MiB is 2²⁰": 1.024**2,
    "1 GB is 10⁹ bytes, 1 GiB is 2³⁰": 1.024**3,
    "look at the unit that is asked for, one step of k, M, G away": 1000,
    "look at the unit that is asked for, two steps of k, M, G away": 10**6,
    "look at the unit that is asked for, three steps of k, M, G away": 10**9,
    "a byte has 8 bits": 8,
}


class Judgement(NamedTuple):
    """Whether an answer is right, and what there is to say about it."""

    passed: bool
    message: str


def kind_of(answer: Any) -> str:
    """What an answer is, where it should be something else.

    >>> kind_of("4 GB"), kind_of(len)
    ("str '4 GB'", 'a function')
    """
    if inspect.isroutine(answer):
        return _("a function")
    text = repr(answer)
    return f"{type(answer).__name__} {text}" if len(text) < 40 else type(answer).__name__


def off_by(answer: float, right: float, factors: Mapping[str, float] | None = None) -> str:
    """How far an answer is off: by a factor that has a name, if there is one in ``factors``.

    >>> off_by(24, 2, {"the number of heads": 12})
    'too large by a factor of 12: the number of heads'
    """
    if not answer > 0 or right <= 0:  # of what is no number, neither holds
        return _("{0:g} is not right").format(answer)
    way, ratio = ("too large", answer / right) if answer > right else ("too small", right / answer)
    way = _(way)
    for name, factor in {**(factors or {}), **UNITS}.items():
        if factor > 1 and math.isclose(ratio, factor, rel_tol=TOLERANCE / 5):
            return _("{0} by a factor of {1:.4g}: {2}").format(way, factor, _(name))
    if ratio < 1.01:
        return _("{0}, by {1:.4g}").format(way, abs(answer - right))
    return _("{0}, by a factor of {1:.4g}").format(way, ratio)
