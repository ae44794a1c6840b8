"""The kinds of exercises: what is asked for, and how an answer is judged."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnmem.exercises.task import WORKLOADS, Task
from attnmem.exercises.verdict import NO_ANSWER, TOLERANCE, Verdict, kind_of, off_by
from attnmem.workload import Workload

# A formula is exact, but for the rounding of some operations on floating-point numbers.
EXACT = 1e-9

SIZES: dict[str, Callable[[Workload], int]] = {
    "B, the batch": lambda w: w.batch,
    "H, the number of heads": lambda w: w.heads,
    "N, the sequence length": lambda w: w.seq_len,
    "d, the head dimension": lambda w: w.head_dim,
    "e, the bytes of an element": lambda w: w.element_bytes,
}


@dataclass(frozen=True)
class Number:
    """A number is asked for, to three digits or, if ``exact``, to the last.

    ``mistakes``: what a wrong one says of how it came about. ``factors``: name -> factor.
    """

    right: float
    unit: str
    mistakes: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    exact: bool = False

    def judge(self, answer: Any) -> Verdict:
        """Compare to three digits; whole numbers below a hundred must be equal."""
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            return Verdict(False, f"expected a number of {self.unit}, got {kind_of(answer)}")
        if answer == self.right or (not self.exact and self._near(answer, self.right)):
            return Verdict(True, f"{self.right:,.10g} {self.unit}".rstrip())
        for message, value in self.mistakes.items():
            if self._near(answer, value):
                return Verdict(False, message)
        return Verdict(False, off_by(answer, self.right, self.factors))

    @staticmethod
    def _near(answer: float, value: float) -> bool:
        if float(value).is_integer() and abs(value) < 100:
            return answer == value
        return math.isclose(answer, value, rel_tol=TOLERANCE)


@dataclass(frozen=True)
class Formula:
    """A function of a workload is asked for; it is tried on ``workloads``.

    ``mistakes``: what to say to a function that gives the same as this one on all of them.
    """

    right: Callable[[Workload], float]
    mistakes: Mapping[str, Callable[[Workload], float]] = field(default_factory=dict)
    workloads: tuple[Workload, ...] = WORKLOADS

    def judge(self, answer: Any) -> Verdict:
        """Compare on all workloads."""
        if not callable(answer):
            return Verdict(False, f"expected a function of a Workload, got {kind_of(answer)}")
        given = []
        for w in self.workloads:
            result = answer(w)
            if result is ...:
                return Verdict(False, NO_ANSWER)
            if isinstance(result, bool) or not isinstance(result, int | float):
                return Verdict(False, f"it must return a number, and returned {kind_of(result)}")
            given.append(result)

        def same(function: Callable[[Workload], float]) -> bool:
            pairs = zip(self.workloads, given, strict=True)
            return all(math.isclose(got, function(w), rel_tol=EXACT) for w, got in pairs)

        if same(self.right):
            return Verdict(True, f"right on {len(self.workloads)} workloads")
        for message, function in self.mistakes.items():
            if same(function):
                return Verdict(False, message)
        for name, size in SIZES.items():
            for way, power in (("large", 1), ("small", -1)):
                if same(self._times(size, power)):
                    return Verdict(False, f"too {way} by a factor of {name}")
        w, got = next(
            (w, got)
            for w, got in zip(self.workloads, given, strict=True)
            if not math.isclose(got, self.right(w), rel_tol=EXACT)
        )
        return Verdict(False, f"for {w}: {off_by(got, self.right(w))}")

    def _times(self, size: Callable[[Workload], int], power: int) -> Callable[[Workload], float]:
        return lambda w: self.right(w) * size(w) ** power


@dataclass(frozen=True)
class Function:
    """A function of one argument is asked for; it is tried on several.

    ``inputs`` makes them anew each time: what a message calls one -> the argument. ``mistakes``:
    what to say to a function that gives the same as this one on all of them.
    """

    right: Callable[[Any], float]
    inputs: Callable[[], Mapping[str, Any]]
    mistakes: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)

    def judge(self, answer: Any) -> Verdict:
        """Compare on all inputs, in their order."""
        if not callable(answer):
            return Verdict(False, f"expected a function, got {kind_of(answer)}")
        given = {}
        for name, argument in self.inputs().items():
            result = answer(argument)
            if result is ...:
                return Verdict(False, NO_ANSWER)
            if isinstance(result, bool) or not isinstance(result, int | float):
                return Verdict(False, f"it must return a number, and returned {kind_of(result)}")
            given[name] = result
        right = self._all(self.right)
        if given == right:
            return Verdict(True, f"right on {len(right)} inputs")
        for message, function in self.mistakes.items():
            if given == self._all(function):
                return Verdict(False, message)
        name = next(name for name in right if given[name] != right[name])
        return Verdict(False, f"for {name}: {off_by(given[name], right[name])}")

    def _all(self, function: Callable[[Any], float]) -> dict[str, float]:
        return {name: function(argument) for name, argument in self.inputs().items()}


@dataclass(frozen=True)
class Choice:
    """One of some words is asked for, or several as a set, or one for each of several cases."""

    right: Any
    mistakes: Mapping[Hashable, str] = field(default_factory=dict)
    hint: str = "read the section again"

    def judge(self, answer: Any) -> Verdict:
        """Compare; sets and dictionaries also say where they differ."""
        if isinstance(self.right, set):
            answer = set(answer) if isinstance(answer, list | tuple | set | frozenset) else answer
        if type(answer) is not type(self.right):
            wanted = type(self.right).__name__
            return Verdict(False, f"expected a {wanted}, got {kind_of(answer)}")
        if answer == self.right:
            return Verdict(True, "right")
        if isinstance(answer, set):
            key: Hashable = frozenset(answer)
        elif isinstance(answer, dict):
            wrong = [case for case in self.right if answer.get(case) != self.right[case]]
            named = [self.mistakes[case] for case in wrong if case in self.mistakes]
            cases = ", ".join(map(str, wrong))
            return Verdict(False, " ".join([f"not right for: {cases}.", *named]))
        else:
            key = answer
        return Verdict(False, self.mistakes.get(key, f"not right; {self.hint}"))


@dataclass(frozen=True)
class Other:
    """Something else is asked for. ``complaint`` says what is wrong with an answer, or nothing.

    ``right`` is what to say to an answer without a complaint. A complaint is ``NO_ANSWER``
    where the answer still has its dots.
    """

    complaint: Callable[[Any], str]
    right: str

    def judge(self, answer: Any) -> Verdict:
        """Pass on the complaint, if there is one."""
        complaint = self.complaint(answer)
        return Verdict(not complaint, complaint or self.right)


Exercise = Number | Formula | Function | Choice | Task | Other
