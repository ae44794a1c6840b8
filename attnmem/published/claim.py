"""A number that somebody printed, beside the same number computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claim:
    """One printed number: what it says, where, and how we compute it.

    A number agrees if ours, rounded like theirs, is theirs. ``published`` and what ``compute`` and
    ``mistaken`` return are in ``unit``, and so is ``last``, one unit in the last printed place.
    ``note`` says what has to be assumed, or, for an erratum, what explains the printed number; then
    ``mistaken`` computes it that way.

    >>> size = "scores of one head, N = 2048, f16"
    >>> source = "a table", "https://example.org"
    >>> Claim(size, *source, 8.4, 0.1, "MB", lambda: 2048**2 * 2 / 1e6).verdict
    'matches'
    >>> Claim(size, *source, 8.0, 0.1, "MB", lambda: 2048**2 * 2 / 1e6).verdict
    'unexplained'
    """

    what: str
    source: str
    url: str
    published: float
    last: float
    unit: str
    compute: Callable[[], float]
    note: str = ""
    mistaken: Callable[[], float] | None = None

    @property
    def verdict(self) -> Literal["matches", "erratum", "unexplained"]:
        """Whether our number is theirs, or their number is explained, or neither.

        Raises what ``compute`` and ``mistaken`` raise.
        """
        if self._is_published(self.compute()):
            return "matches"
        explained = self.mistaken and self._is_published(self.mistaken())
        return "erratum" if explained else "unexplained"

    def _is_published(self, value: float) -> bool:
        return abs(value - self.published) <= self.last / 2 * (1 + 1e-9)
