"""What pages compute and do not teach: the claims of their text, and the form of their cells."""

import importlib
import re
from typing import Any

import pytest
import torch
from conftest import CHAPTERS, PAGES, cells

from attnmem.lessons import attention

# Where the exercises begin, cells are a starter and a solution.
LESSON = re.compile(r"\A(.*?)(?=^## Exercises\n|\Z)", re.M | re.S)


@pytest.mark.parametrize("chapter", [*CHAPTERS, "index", "messages", "status"])
def test_what_the_text_claims_of_its_numbers_holds(chapter):
    claims = importlib.import_module(f"attnmem.lessons.{chapter.replace('-', '_')}").claims()
    assert claims
    assert [claim for claim, holds in claims.items() if not holds] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_one_hidden_cell_at_most_and_at_its_top(page):
    tags = [cell.tags for cell in cells(page.read_text())]
    assert "remove-cell" not in tags[1:]


def test_what_a_reader_sees_before_the_exercises_is_code_worth_reading():
    visible = formats = 0
    for page in PAGES:
        for cell in cells(LESSON.match(page.read_text())[1]):
            if cell.tags in ("", "remove-output"):
                lines = [line for line in cell.code.splitlines() if line.strip()]
                visible += len(lines)
                formats += sum(
                    bool(re.search(r'\bTable\(|\{[^{}"]*:[^{}"]*\}"?', x)) for x in lines
                )
    assert formats <= 0.1 * visible


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_loop_is_an_assignment(page):
    code = "".join(cell.code for cell in cells(page.read_text()))
    assert not re.search(r"\bfor [\w, ]+ in \[[^\[\],]*\]\s*(?:$|[\]})])", code, re.M)


def test_the_sentence_of_the_attention_page_is_the_one_in_its_pictures():
    (page,) = (page for page in PAGES if page.stem == "attention")
    visible = [cell.code for cell in cells(page.read_text()) if not cell.tags]
    names: dict[str, Any] = {}
    exec("\n".join(visible[:2]), names)
    for name, expected in zip("qkv", attention.sentence(), strict=True):
        assert torch.equal(names[name], expected)
