"""Every exercise: it is whole on its page, its solution passes, and mistakes are named."""

import re
from collections import Counter

import pytest
from conftest import CHAPTERS, ROOT, cells
from wrong_answers import WRONG, repeated

from attnmem.exercises import EXERCISES, check, judge
from attnmem.exercises.kinds import Choice, Number
from attnmem.programs import one_liner


def listed(exercise):
    """The mistakes that an exercise lists: answers that make one, and what is said to them."""
    if not isinstance(exercise, Choice):
        for message, mistake in getattr(exercise, "mistakes", {}).items():
            # Readers round to three digits.
            rounded = [float(f"{mistake:.3g}")] if isinstance(exercise, Number) else []
            yield [mistake, *rounded], message
    elif isinstance(exercise.right, dict):
        for case, right in exercise.right.items():
            others = set(exercise.right.values()) - {right}
            message = f"not right for: {case}. {exercise.mistakes[case]}"
            yield [exercise.right | {case: other} for other in others], message
    else:
        yield from (([answer], message) for answer, message in exercise.mistakes.items())


LISTED = [
    pytest.param(name, *mistake, id=f"{name}-{number}")
    for name, exercise in EXERCISES.items()
    for number, mistake in enumerate(listed(exercise))
]


@pytest.mark.parametrize(("name", "answers", "message"), LISTED)
def test_a_listed_mistake_is_told_what_is_listed_for_it(name, answers, message):
    assert answers
    for answer in answers:
        assert judge(name, answer) == (False, message)


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong(name, answer, message):
    passed, said = judge(name, answer)
    assert not passed
    assert re.search(message, said), said


def test_every_chapter_has_at_least_four_exercises():
    per_chapter = Counter(name.rpartition("-")[0] for name in EXERCISES)
    assert set(per_chapter) == set(CHAPTERS)
    assert min(per_chapter.values()) >= 4


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_whole_on_its_page(name):
    """Statement, starter cell, hint and solution, in this order. Both cells are run elsewhere."""
    page = (ROOT / "book" / "en" / f"{name.rpartition('-')[0]}.md").read_text()
    start = page.index(f"```{{admonition}} {name}: ")
    after = page.find(":class: exercise", page.index(":class: exercise", start) + 1)
    text = page[start : after if after > 0 else len(page)]
    starter, *_, solution = cells(text)
    assert "remove-output" in starter.tags
    assert f'check("{name}", ' in starter.code
    assert "{admonition} Hint\n:class: hint\n:collapsible: closed" in text
    assert "hide-cell" in solution.tags


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_passes_on_its_page(built_book, name):
    page = (built_book / f"{name.rpartition('-')[0]}.html").read_text()
    assert f"\n{name}: pass" in re.sub(r"<[^>]+>", "\n", page)


def test_a_peak_is_told_with_the_sizes_that_it_is_of():
    assert "f16[1, 12, 4096, 64]: peak " in judge("memory-4", one_liner).message
    sizes = "bf16[2, 32, 1, 128], bf16[2, 8, 8192, 128]: peak "
    assert sizes in judge("one-token-3", repeated).message


def test_dots_are_no_answer(capsys):
    check(next(iter(EXERCISES)), ...)
    assert "no answer yet" in capsys.readouterr().out


def test_an_unknown_exercise_is_answered_with_near_ones():
    with pytest.raises(LookupError, match=r"no exercise 'memory-11'; did you mean .*memory-1"):
        check("memory-11", 1)
