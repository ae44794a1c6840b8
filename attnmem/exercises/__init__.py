"""Checks that tell a reader what is wrong with an answer; the exercises stand in the chapters."""

import difflib
from typing import Any

from attnmem.exercises import (
    attention,
    intensity,
    measurement,
    memory,
    more_cures,
    more_gpus,
    one_token,
    published,
    roofline,
    summary,
    tiles,
    training,
    what_to_do,
)
from attnmem.exercises.judgement import NO_ANSWER, Judgement
from attnmem.exercises.kinds import Exercise
from attnmem.exercises.language import _, speaking

CHAPTERS = (
    attention,
    memory,
    measurement,
    intensity,
    roofline,
    training,
    what_to_do,
    more_cures,
    tiles,
    one_token,
    more_gpus,
    published,
    summary,
)
EXERCISES: dict[str, Exercise] = {
    f"{chapter.__name__.rpartition('.')[2].replace('_', '-')}-{number}": exercise
    for chapter in CHAPTERS
    for number, exercise in enumerate(chapter.EXERCISES, start=1)
}


def judge(name: str, answer: Any, language: str | None = "en") -> Judgement:
    """Whether ``answer`` solves the exercise called ``name``, such as ``"memory-3"``, and why.

    ``answer`` is what the exercise asks for: a number, a word, or a function. Its dots, ``...``,
    are no answer yet. The message is in ``language``, such as ``"zh_CN"``; ``None``: in that of the
    environment, as gettext finds it. Raises ``LookupError``, with near misses, for an unknown
    ``name``; whatever a function that is the answer raises is passed on.

    >>> judge("memory-1", 4.2).message
    'too small, by a factor of 1.023'
    """
    if name not in EXERCISES:
        near = difflib.get_close_matches(name, EXERCISES, cutoff=0.5) or EXERCISES
        raise LookupError(f"no exercise {name!r}; did you mean {' or '.join(near)}?")
    with speaking(language):
        if answer is ...:
            return Judgement(False, _(NO_ANSWER))
        passed, message = EXERCISES[name].judge(answer)
        return Judgement(passed, _(message))


def check(name: str, answer: Any, language: str | None = None) -> None:
    """Print whether ``answer`` solves the exercise called ``name``. See :func:`judge`.

    The answer is in the language of the environment (``LANGUAGE``, ``LC_ALL``, ``LANG``), or in
    ``language``.

    >>> check("memory-1", ...)
    memory-1: not yet: no answer yet: put yours in place of the dots
    """
    passed, message = judge(name, answer, language)
    with speaking(language):
        print((_("{0}: pass: {1}") if passed else _("{0}: not yet: {1}")).format(name, message))
