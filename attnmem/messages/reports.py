"""Public reports of runs that ran out of memory, each with what recomputes its size."""

import datetime
import math
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cattrs

from attnmem.messages.answer import Explanation, explain
from attnmem.messages.forms import Message, Range, parse, size_range

Verdict = Literal["fits", "mistaken", "segment", "open"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report, and what it was.

    ``where`` is repository and number on GitHub, ``date`` that of the post. Its size is in the
    ``message`` that its program printed, or said in ``words``, such as ``"86 GB"``; ``binary``: its
    GB are GiB; ``at_least``: so many and more. ``kind`` is that of the tensor, ``tensor`` has the
    factors that we multiply to get it, ``letters`` the same in letters, ``mistaken`` those that its
    author may have multiplied. ``read_off``: nobody says how long the sequence was, so its length,
    or a part of it, is chosen by the size. ``given`` are the sizes that the report says, or the
    program that it names: what :func:`attnmem.messages.answer.explain` is asked with.
    """

    where: str
    date: datetime.date
    kind: str
    answer: str
    message: str = ""
    words: str = ""
    binary: bool = False
    at_least: bool = False
    read_off: bool = False
    letters: str = ""
    tensor: tuple[int, ...] = ()
    mistaken: tuple[int, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it can be read."""
        return f"https://github.com/{self.where.replace('#', '/issues/')}"

    @cached_property
    def parsed(self) -> Message | None:
        """The message in bytes; ``None`` if the size is said in words."""
        return parse(self.message) if self.message else None

    @property
    def size(self) -> Range:
        """What a tensor can have to be what the report says."""
        if self.parsed:
            return self.parsed.tensor
        number, unit = self.words.split()
        binary = self.binary or "i" in unit
        said = size_range(number, unit) if binary else _decimal(number, unit)
        return Range(said.low, 2**63) if self.at_least else said

    @property
    def bytes(self) -> int:
        """What we compute; 0 without a tensor."""
        return math.prod(self.tensor) if self.tensor else 0

    @property
    def verdict(self) -> Verdict:
        """Whether what we compute has the size of the report, or why not."""
        if self.bytes in self.size:
            return "fits"
        if self.mistaken and math.prod(self.mistaken) in self.size:
            return "mistaken"
        return "segment" if self.parsed and self.parsed.shared else "open"

    def explained(self) -> Explanation:
        """What :func:`attnmem.messages.answer.explain` says to its message and sizes.

        Raises ``ValueError`` where the size is said in words.
        """
        return explain(self.message, **self.given)


def _decimal(number: str, unit: str) -> Range:
    """A size with a unit of powers of 1000, rounded as it is printed."""
    scale = 1000 ** (1 + "KMGT".index(unit[0]))
    half = 10 ** -len(number.partition(".")[2]) / 2
    low, high = (scale * (float(number) + side * half) for side in (-1, 1))
    return Range(math.ceil(low), math.floor(high))


def _all() -> tuple[Report, ...]:
    converter = cattrs.Converter()
    converter.register_structure_hook(datetime.date, lambda day, _: day)  # TOML has dates
    text = Path(__file__).with_name("reports.toml").read_text("utf-8")
    return tuple(converter.structure(row, Report) for row in tomllib.loads(text)["report"])


REPORTS = _all()
