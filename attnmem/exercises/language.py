"""What is said to an answer, in the reader's language: gettext's catalogues in ``attnmem/locale``.

Texts are written in English where they are needed, as constants, which are all looked up when an
answer has been judged (:func:`attnmem.exercises.judge`), or as patterns, which are looked up by
:func:`_` before their values are put in.
"""

import gettext
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

LOCALE = Path(__file__).parent.parent / "locale"
LANGUAGE: ContextVar[str | None] = ContextVar("language", default="en")


def _(text: str) -> str:
    """A text in the language that is spoken; itself, where that has no other for it."""
    language = LANGUAGE.get()
    found = gettext.translation("exercises", LOCALE, language and [language], fallback=True)
    return found.gettext(text) if text else text


@contextmanager
def speaking(language: str | None) -> Iterator[None]:
    """Say things in a language, such as ``"zh_CN"``; ``None``: in that of the environment."""
    before = LANGUAGE.set(language)
    try:
        yield
    finally:
        LANGUAGE.reset(before)
