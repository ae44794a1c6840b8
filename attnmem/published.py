"""A number that somebody printed, beside the same number computed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claim:
    """One printed number: what it says, where, and how we compute it.

    A number agrees if ours, rounded like theirs, is theirs.
    ``last`` is one unit in the last printed place. ``note`` says what has to be assumed, or, for an
    erratum, what explains the printed number; then ``mistaken`` computes it that way.
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
        """Whether our number is theirs, or their number is explained, or neither."""
        if self._is_published(self.compute()):
            return "matches"
        explained = self.mistaken and self._is_published(self.mistaken())
        return "erratum" if explained else "unexplained"

    def _is_published(self, value: float) -> bool:
        return abs(value - self.published) <= self.last / 2 * (1 + 1e-9)


def rows(claims: Iterable[Claim], source: str) -> list[dict[str, str]]:
    """The claims of sources that begin with ``source``, as the rows of a table.

    Raises ``LookupError`` if there is none.
    """
    found = [claim for claim in claims if claim.source.startswith(source)]
    if not found:
        raise LookupError(f"no published numbers from {source!r} in attnmem.claims")
    return [
        {
            "claim": claim.what,
            "where": claim.source.removeprefix(source).lstrip(", "),
            "printed": f"{claim.published:g} {claim.unit}",
            "computed": f"{claim.compute():.4g}",
            "verdict": claim.verdict,
            "note": claim.note,
        }
        for claim in found
    ]
