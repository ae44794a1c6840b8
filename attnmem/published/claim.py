"""A number that somebody printed, beside the same number computed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

Verdict = Literal["matches", "fitted", "superseded", "erratum", "unexplained"]


@dataclass(frozen=True)
class Claim:
    """One printed number: what it says, where, and how we compute it.

    A number agrees if ours, rounded like theirs, is theirs. ``published`` and what ``compute`` and
    ``mistaken`` return are in ``unit``, and so is ``last``, one unit in the last printed place.
    ``mistaken`` computes the number as its authors may have. ``note`` says what has to be assumed,
    ``cell`` which of the numbers in a printed row it is.

    The evidence that no arithmetic gives is named: ``fitted`` is the constant of ``compute`` that
    was read off the printed numbers, because no program explains it; ``superseded`` and
    ``acknowledged`` are addresses, of what has changed since the number was right, and of an
    author who says that it is wrong.

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
    mistaken: Callable[[], float] | None = None
    note: str = ""
    fitted: str = ""
    superseded: str = ""
    acknowledged: str = ""
    cell: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether our number is theirs, or what explains that it is not.

        Raises what ``compute`` and ``mistaken`` raise.
        """
        if self._is_published(self.compute()):
            return "fitted" if self.fitted else "matches"
        explained = self.mistaken and self._is_published(self.mistaken())
        if explained and self.superseded:
            return "superseded"
        return "erratum" if explained or self.acknowledged else "unexplained"

    def _is_published(self, value: float) -> bool:
        return abs(value - self.published) <= self.last / 2 * (1 + 1e-9)


Source = tuple[str, str]  # authors, year and title; address
Cells = Mapping[str, Callable[[], float]]  # name of a cell -> what computes it, in bytes or FLOPs

# How many bytes, or FLOPs, the unit of a printed number has.
K, M, G = (f"{name[0]}iB (printed as {name})" for name in ("KB", "MB", "GB"))
UNITS = {K: 2**10, M: 2**20, G: 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"kFLOPs": 10**3, "MFLOPs": 10**6, "GFLOPs": 10**9}


def row(
    what: str,
    source: Source,
    where: str,
    unit: str,
    printed: str,
    cells: Cells,
    *,
    mistaken: Cells | None = None,
    last: float | None = None,
    **evidence: str,
) -> list[Claim]:
    """Claims of a printed row: its numbers as they are printed, and its cells in their order.

    ``last`` is derived from the decimals where it is not given.
    """

    def scaled(cells: Cells, name: str) -> Callable[[], float]:
        return lambda: cells[name]() / UNITS.get(unit, 1)

    return [
        Claim(
            what=what,
            cell=name,
            source=", ".join(filter(None, (source[0], where))),
            url=source[1],
            published=float(text),
            last=last or 10.0 ** -len(text.partition(".")[2]),
            unit=unit,
            compute=scaled(cells, name),
            mistaken=scaled(mistaken, name) if mistaken else None,
            **evidence,
        )
        for text, name in zip(printed.split(), cells, strict=True)
    ]


def over(lengths: Iterable[int], compute: Callable[[int], float]) -> Cells:
    """A cell for each number of tokens."""
    return {f"N = {n}": partial(compute, n) for n in lengths}
