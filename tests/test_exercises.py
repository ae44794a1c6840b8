"""Every exercise: its solution passes, typical mistakes are named, and it is whole on its page."""

import importlib
import re
from collections import Counter

import pytest
from conftest import CHAPTERS, ROOT, cells

from attnmem.exercises import EXERCISES, check, judge

WRONG = [
    pytest.param(*case, id=f"{case[0]}-{number}")
    for chapter in CHAPTERS
    for number, case in enumerate(importlib.import_module(f"wrong_answers.{chapter}").WRONG)
]


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_a_wrong_answer_is_told_its_mistake(name, answer, message):
    passed, said = judge(name, answer)
    assert not passed
    assert re.search(message, said), said


def test_two_typical_mistakes_of_every_exercise_are_tested():
    tested = Counter(case.values[0] for case in WRONG)
    assert {name for name in EXERCISES if tested[name] < 2} == set()


def test_every_chapter_has_at_least_four_exercises():
    per_chapter = Counter(name.rpartition("-")[0] for name in EXERCISES)
    assert set(per_chapter) == set(CHAPTERS)
    assert min(per_chapter.values()) >= 4


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_whole_on_its_page_and_its_solution_passes(name, capsys):
    """Statement, starter cell, hint and solution, in this order; then the solution alone."""
    page = (ROOT / "book" / "en" / f"{name.rpartition('-')[0]}.md").read_text()
    start = page.index(f"```{{admonition}} {name}: ")
    after = page.find(":class: exercise", page.index(":class: exercise", start) + 1)
    text = page[start : after if after > 0 else len(page)]
    starter, *_, solution = cells(text)
    assert "remove-output" in starter.tags
    assert f'check("{name}", ' in starter.code
    assert "{admonition} Hint\n:class: hint\n:collapsible: closed" in text
    assert "hide-cell" in solution.tags
    namespace = {}
    exec("import torch\nfrom attnmem.exercises import check", namespace)
    exec(starter.code, namespace)
    assert "no answer yet" in capsys.readouterr().out
    exec(solution.code, namespace)
    assert capsys.readouterr().out.startswith(f"{name}: pass")


def test_dots_are_no_answer(capsys):
    check(next(iter(EXERCISES)), ...)
    assert "no answer yet" in capsys.readouterr().out


def test_an_unknown_exercise_is_answered_with_near_ones():
    with pytest.raises(LookupError, match=r"no exercise 'memory-11'; did you mean .*memory-1"):
        check("memory-11", 1)
