"""Looking up one of a list by its name."""

import difflib
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Named(Protocol):
    """Anything with a name.

    Used in :ref:`memory-case`.
    """

    @property
    def name(self) -> str:
        """What it is called, once in its list."""


T = TypeVar("T", bound=Named)


def find_by_name(things: Sequence[T], name: str, kind: str) -> T:
    """The one of ``things`` called ``name``; ``kind`` is the word for one of them.

    Raises ``LookupError``, with near misses, if there is none. It names the module that defines the
    class of ``things``.

    Used in :ref:`memory-case`.
    """
    names = [thing.name for thing in things]
    if name in names:
        return things[names.index(name)]
    near = difflib.get_close_matches(name, names, cutoff=0.3) or names
    raise LookupError(
        f"no {kind} {name!r} in {type(things[0]).__module__}; did you mean {' or '.join(near)}?"
    )
