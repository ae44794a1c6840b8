"""What the pages of the book compute and do not teach: a module a page.

Each has ``numbers()``, what the text of its page looks up; functions that build its tables; and
``claims()``, the sentences of the text that would be wrong with other numbers, which a test reads.
"""

from collections.abc import Mapping
from typing import Any


def glue_all(values: Mapping[str, Any]) -> None:
    """Make values, name -> number, text or figure, known to the page that is being built."""
    from myst_nb import glue  # the package does not need what builds the book

    for name, value in values.items():
        glue(name, value, display=False)
