"""Reading rows of data from a file of this folder, and one of them by its name."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """What it is called, once in its list."""


T = TypeVar("T", bound=Named)


def rows(kind: str) -> list[dict[str, Any]]:
    """The rows of ``<kind>s.toml``: key -> value, as far as a row has it."""
    found = tomllib.loads(Path(__file__).with_name(f"{kind}s.toml").read_text("utf-8"))
    return found[kind]  # type: ignore[no-any-return]


def by_name(things: Sequence[T], name: str, kind: str) -> T:
    """The one of ``things`` called ``name``; ``kind`` is the word for one of them.

    Raises ``LookupError``, with near misses, if there is none. It names the module that defines the
    class of ``things``.
    """
    names = [thing.name for thing in things]
    if name in names:
        return things[names.index(name)]
    near = difflib.get_close_matches(name, names, cutoff=0.3) or names
    raise LookupError(
        f"no {kind} {name!r} in {type(things[0]).__module__}; did you mean {' or '.join(near)}?"
    )
