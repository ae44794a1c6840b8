"""What readers download: every chapter as a notebook and as a script, and the exercises."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import CHAPTERS, PAGES, cells

from attnmem.exercises import EXERCISES

NAMES = [
    page.stem
    for page in PAGES
    if any(cell.tags != "remove-cell" for cell in cells(page.read_text()))
]
# What only the build of the book has.
ALONE = "import sys\nsys.modules |= dict.fromkeys(('myst_nb', 'sphinx', 'jupytext'))\n"
# A cell after the other, as if pasted; what one prints of itself is not shown.
PASTE = f"""{ALONE}
import code, json
session = code.InteractiveInterpreter({{"__name__": "__main__"}})
session.showtraceback = lambda: sys.exit("a cell failed: " + repr(sys.exc_info()[1]))
for cell in json.load(sys.stdin):
    assert session.runsource(cell, symbol="exec") is False, cell
"""


def run(*command: str | Path, **options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], text=True, capture_output=True, **options)


def notebook(folder: Path, name: str) -> nbformat.NotebookNode:
    found = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(found)
    return found


def test_every_chapter_is_among_the_downloads():
    assert set(NAMES) >= set(CHAPTERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_runs_where_only_the_package_is_installed(built_book, tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text(ALONE + (built_book / f"{name}.py").read_text())
    done = run(script, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("name", [*NAMES, "exercises"])
def test_the_cells_of_a_notebook_run_when_pasted_one_by_one(built_book, tmp_path, name):
    pasted = [c.source for c in notebook(built_book, name).cells if c.cell_type == "code"]
    assert pasted
    done = run("-c", PASTE, input=json.dumps(pasted), cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    if name == "exercises":
        unanswered = re.findall(r"^([\w-]+): not yet: no answer yet", done.stdout, re.M)
        assert unanswered == sorted(unanswered, key=list(EXERCISES).index)
        assert set(unanswered) == set(EXERCISES)


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
    filled = notebook(built_book, "exercises")
    checks = [c.source for c in filled.cells if c.cell_type == "code" and "check(" in c.source]
    assert len(checks) == len(EXERCISES)


def test_a_page_links_to_its_files(built_book):
    for name in NAMES:
        page = (built_book / f"{name}.html").read_text()
        for ending in ("ipynb", "py"):
            assert f'<a href="{name}.{ending}" download>' in page
            assert (built_book / f"{name}.{ending}").stat().st_size > 500
    assert 'href="exercises.ipynb"' in (built_book / "index.html").read_text()
