"""The kinds of exercises: what is asked for, and how an answer is judged."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnmem.exercises.judgement import NO_ANSWER, TOLERANCE, Judgement, kind_of, off_by
from attnmem.exercises.language import _
from attnmem.exercises.task import WORKLOADS, Task
from attnmem.workload import Workload

# A function is exact, but for the rounding of some operations on floating-point numbers.
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

    def judge(self, answer: Any) -> Judgement:
        """Compare to three digits; whole numbers below a hundred must be equal."""
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            expected = _("expected a number of {0}, got {1}").format(_(self.unit), kind_of(answer))
            return Judgement(False, expected)
        if answer == self.right or (not self.exact and self._near(answer, self.right)):
            return Judgement(True, f"{self.right:,.10g} {_(self.unit)}".rstrip())
        for message, value in self.mistakes.items():
            if self._near(answer, value):
                return Judgement(False, message)
        return Judgement(False, off_by(answer, self.right, self.factors))

    @staticmethod
    def _near(answer: float, value: float) -> bool:
        if float(value).is_integer() and abs(value) < 100:
            return answer == value
        return math.isclose(answer, value, rel_tol=TOLERANCE)


def named(workloads: Sequence[Workload]) -> dict[str, Any]:
    """Workloads as the inputs of a :class:`Function`."""
    return {str(w): w for w in workloads}


@dataclass(frozen=True)
class Function:
    """A function is asked for, of a workload or else of what ``argument`` says; some are tried.

    ``inputs`` makes them anew each time: what a message calls one -> the argument. ``mistakes``:
    what to say to a function that gives the same as this one on all of them. ``factors``: by what
    it may be off on all of them, name -> function of the same argument.
    """

    right: Callable[[Any], float]
    mistakes: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)
    argument: str = "workload"
    inputs: Callable[[], Mapping[str, Any]] = lambda: named(WORKLOADS)
    factors: Mapping[str, Callable[[Any], float]] = field(default_factory=lambda: SIZES)

    def judge(self, answer: Any) -> Judgement:
        """Compare on all inputs, in their order."""
        if not callable(answer):
            expected = _("expected a function of a {0}, got {1}")
            return Judgement(False, expected.format(_(self.argument), kind_of(answer)))
        given = []
        for argument in self.inputs().values():
            result = answer(argument)
            if result is ...:
                return Judgement(False, NO_ANSWER)
            if isinstance(result, bool) or not isinstance(result, int | float):
                returned = _("it must return a number, and returned {0}").format(kind_of(result))
                return Judgement(False, returned)
            given.append(result)
        if self._same(given, self.right):
            right = _("right on {0} {1}s").format(len(given), _(self.argument))
            return Judgement(True, right)
        return Judgement(False, self._complaint(given))

    def _complaint(self, given: Sequence[float]) -> str:
        for message, function in self.mistakes.items():
            if self._same(given, function):
                return message
        for name, factor in self.factors.items():
            for way, power in (("too large", 1), ("too small", -1)):
                if self._same(given, self._times(factor, power)):
                    return _("{0} by a factor of {1}").format(_(way), _(name))
        return next(
            _("for {0}: {1}").format(_(name), off_by(got, right))
            for name, got, right in zip(self.inputs(), given, self._all(self.right), strict=True)
            if not math.isclose(got, right, rel_tol=EXACT)
        )

    def _times(self, factor: Callable[[Any], float], power: int) -> Callable[[Any], float]:
        return lambda argument: self.right(argument) * factor(argument) ** power

    def _all(self, function: Callable[[Any], float]) -> list[float]:
        return [function(argument) for argument in self.inputs().values()]

    def _same(self, given: Sequence[float], function: Callable[[Any], float]) -> bool:
        pairs = zip(given, self._all(function), strict=True)
        return all(math.isclose(got, value, rel_tol=EXACT) for got, value in pairs)


@dataclass(frozen=True)
class Choice:
    """One of some words is asked for, or several as a set, or one for each of several cases."""

    right: Any
    mistakes: Mapping[Hashable, str] = field(default_factory=dict)
    hint: str = "read the section again"

    def judge(self, answer: Any) -> Judgement:
        """Compare; sets and dictionaries also say where they differ."""
        if isinstance(self.right, set):
            answer = set(answer) if isinstance(answer, list | tuple | set | frozenset) else answer
        if type(answer) is not type(self.right):
            wanted = type(self.right).__name__
            expected = _("expected a {0}, got {1}").format(wanted, kind_of(answer))
            return Judgement(False, expected)
        if answer == self.right:
            return Judgement(True, "right")
        if isinstance(answer, set):
            key: Hashable = frozenset(answer)
        elif isinstance(answer, dict):
            wrong = [case for case in self.right if answer.get(case) != self.right[case]]
            named = [_(self.mistakes[case]) for case in wrong if case in self.mistakes]
            cases = ", ".join(map(str, wrong))
            return Judgement(False, " ".join([_("not right for: {0}.").format(cases), *named]))
        else:
            key = answer
        wrong_so = _("not right; {0}").format(_(self.hint))
        return Judgement(False, self.mistakes.get(key, wrong_so))


@dataclass(frozen=True)
class Other:
    """Something else is asked for. ``complaint`` says what is wrong with an answer, or nothing.

    ``right`` is what to say to an answer without a complaint. A complaint is ``NO_ANSWER``
    where the answer still has its dots.
    """

    complaint: Callable[[Any], str]
    right: str

    def judge(self, answer: Any) -> Judgement:
        """Pass on the complaint, if there is one."""
        complaint = self.complaint(answer)
        return Judgement(not complaint, complaint or self.right)


Exercise = Number | Function | Choice | Task | Other
