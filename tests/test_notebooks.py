"""What readers download: every chapter as a notebook and as a script, and the exercises."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from conftest import CHAPTERS, PAGES, cells
from pasting import paste

from attnmem.exercises import EXERCISES

NAMES = [
    page.stem
    for page in PAGES
    if any(cell.tags != "remove-cell" for cell in cells(page.read_text()))
]
# What an exercise may count on.
IMPORTS = "import torch\nfrom attnmem.exercises import check\n"


def notebook(folder: Path, name: str) -> nbformat.NotebookNode:
    found = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(found)
    return found


def test_every_chapter_is_among_the_downloads():
    assert set(NAMES) >= set(CHAPTERS)


def code(cells: list[nbformat.NotebookNode]) -> list[str]:
    return [cell.source for cell in cells if cell.cell_type == "code"]


def by_exercise(cells: list[nbformat.NotebookNode]) -> dict[str, list[str]]:
    """The code of a page's text, under no name, and that of each of its exercises."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for cell in cells:
        if cell.cell_type == "code":
            found.setdefault(name, [IMPORTS]).append(cell.source)
        else:
            name = (re.findall(r"^> \*\*([\w-]+-\d+): ", cell.source, re.M) or [name])[-1]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_the_code_of_its_notebook(built_book, name):
    script = ast.parse((built_book / f"{name}.py").read_text())
    pasted = ast.parse("\n".join(code(notebook(built_book, name).cells)))
    assert ast.unparse(script) == ast.unparse(pasted)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_cell_by_cell_where_only_the_package_is_installed(
    built_book, tmp_path, name
):
    """Each exercise in a session of its own: its starter, then its solution, which passes."""
    parts = by_exercise(notebook(built_book, name).cells)
    exercises = [exercise for exercise in EXERCISES if exercise.startswith(f"{name}-")]
    assert list(parts) == ["", *exercises]
    printed = paste(list(parts.values()), tmp_path)
    assert re.findall(r"^([\w-]+): not yet: no answer yet", printed, re.M) == exercises
    assert re.findall(r"^([\w-]+): pass", printed, re.M) == exercises


def test_the_notebook_to_fill_in_runs_cell_by_cell(built_book, tmp_path):
    printed = paste([code(notebook(built_book, "exercises").cells)], tmp_path)
    unanswered = re.findall(r"^([\w-]+): not yet: no answer yet", printed, re.M)
    assert unanswered == list(EXERCISES)


@pytest.mark.parametrize("name", [*NAMES, "exercises"])
def test_the_text_of_a_notebook_needs_no_book(built_book, name):
    for cell in notebook(built_book, name).cells:
        if cell.cell_type == "markdown":
            left = re.findall(r"\{[a-z:-]+\}`|^`{3,}\{|^\([\w-]+\)=$", cell.source, re.M)
            assert left == [], cell.source
            images = set(re.findall(r"\(attachment:([^)]+)\)", cell.source))
            assert images == set(cell.get("attachments", {}))
        else:
            assert "glue" not in cell.source


def test_the_notebook_to_fill_in_has_no_solutions(built_book):
    cells = code(notebook(built_book, "exercises").cells)
    assert sum("check(" in cell for cell in cells) == len(EXERCISES)


def test_a_page_links_to_its_files(built_book):
    for name in NAMES:
        page = (built_book / f"{name}.html").read_text()
        for ending in ("ipynb", "py"):
            assert f'<a href="{name}.{ending}" download>' in page
            assert (built_book / f"{name}.{ending}").stat().st_size > 500
    assert 'href="exercises.ipynb"' in (built_book / "index.html").read_text()
