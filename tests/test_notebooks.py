"""What readers download: every chapter as a notebook and as a script, and the exercises."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import streams
from conftest import CHAPTERS, PAGES, ROOT, cells
from jupyter_cache.executors import utils
from myst_nb.core.utils import coalesce_streams
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


def test_a_line_that_is_printed_in_pieces_is_one_line(monkeypatch):
    monkeypatch.setattr(utils, "executenb", None)  # as it was, at the end
    streams.setup(None)
    cell = nbformat.v4.new_code_cell("print('a', end='  ', flush=True)\nprint('b', flush=True)")
    book = nbformat.v4.new_notebook(cells=[cell])
    done = utils.single_nb_execution(book, cwd=None, timeout=60, allow_errors=False).nb
    (output,) = coalesce_streams(done.cells[0].outputs)  # what MyST-NB does with it
    assert output.text == "a  b\n"


def test_every_chapter_is_among_the_downloads():
    assert set(NAMES) >= set(CHAPTERS)


def code(cells: list[nbformat.NotebookNode]) -> list[str]:
    return [cell.source for cell in cells if cell.cell_type == "code"]


def by_exercise(cells: list[nbformat.NotebookNode]) -> dict[str, list[str]]:
    """The code of a notebook's text, under no name, and that of each of its exercises."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for cell in cells:
        if cell.cell_type == "code":
            found[name].append(cell.source)
        else:
            for name in re.findall(r"^> \*\*([\w-]+-\d+): ", cell.source, re.M):
                found[name] = []
    return found


def seen(name: str) -> dict[str, list[str]]:
    """The same of a page: of the cells that a reader sees."""
    page = (ROOT / "book" / "en" / f"{name}.md").read_text()
    parts = re.split(r"^```\{admonition\} ([\w-]+-\d+): ", page, flags=re.M)
    return {
        exercise: [cell.code.strip("\n") for cell in cells(text) if cell.tags != "remove-cell"]
        for exercise, text in zip(["", *parts[1::2]], parts[::2], strict=True)
    }


# Exercises that begin with a program to change: it is judged, and does not pass.
CHANGED = {"tiles-3", "one-token-3", "more-gpus-2"}


def unanswered(printed: str) -> list[str]:
    """The exercises whose starters are judged as they should be, in order."""
    found = re.findall(r"^([\w-]+): not yet: (no answer yet)?", printed, re.M)
    return [name for name, empty in found if bool(empty) == (name not in CHANGED)]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_and_a_script_are_the_code_of_their_page(built_book, name):
    made = notebook(built_book, name).cells
    assert by_exercise(made) == seen(name)
    script = ast.parse((built_book / f"{name}.py").read_text())
    assert ast.unparse(script) == ast.unparse(ast.parse("\n".join(code(made))))


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_page_runs_cell_by_cell_where_only_the_package_is_installed(tmp_path, name):
    """Each exercise in a session of its own: its starter, then its solution, which passes."""
    text, *parts = seen(name).values()
    exercises = [exercise for exercise in EXERCISES if exercise.startswith(f"{name}-")]
    assert list(seen(name)) == ["", *exercises]
    printed = paste([text, *([IMPORTS, *part] for part in parts)], tmp_path)
    assert unanswered(printed) == exercises
    assert re.findall(r"^([\w-]+): pass", printed, re.M) == exercises


def test_the_notebook_to_fill_in_runs_cell_by_cell(built_book, tmp_path):
    printed = paste([code(notebook(built_book, "exercises").cells)], tmp_path)
    assert unanswered(printed) == list(EXERCISES)


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


def test_a_notebook_has_the_tables_that_are_folded(built_book):
    text = "".join(cell.source for cell in notebook(built_book, "messages").cells)
    assert text.count("<table>") == 4
    assert '<a href="https://github.com/dogkeeper886/ollama37/issues/63">ollama37#63</a>' in text


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
