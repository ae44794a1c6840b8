import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import explorer
import pytest
from filelock import FileLock
from hypothesis import settings

pytest_plugins = ["visiting"]

# There is a worker for each core: more threads in each would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["LANGUAGE"] = "en"  # in which check answers
os.environ["TORCH_CUBLAS_WORKSPACE_CACHE"] = "1"  # from PyTorch 2.15 on: as a trace expects it

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "_build" / "explorer"
PAGES = sorted((ROOT / "book" / "en").glob("*.md"))
CHAPTERS = (
    "attention",
    "memory",
    "measurement",
    "intensity",
    "roofline",
    "training",
    "what-to-do",
    "more-cures",
    "tiles",
    "one-token",
    "more-gpus",
    "published",
    "summary",
)


class Cell(NamedTuple):
    """A code cell of a page."""

    tags: str
    code: str


def cells(text: str) -> list[Cell]:
    """The code cells in the text of a page, or of a part of it."""
    found = re.findall(
        r"^```\{code-cell\} python3\n(:tags: \[(.*?)\]\n)?(.*?)^```$", text, re.M | re.S
    )
    return [Cell(tags, code) for _, tags, code in found]


# Some properties run attention: a slow machine is not a defect, and CI must not be a lottery.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the book: one worker builds it while the others do what needs no book."""
    items.sort(key=lambda item: "built_book" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what is imported: each measurement calls it, for 0.2 s."""
    gc.freeze()


class Book:
    """A copy of the book's sources that a test may change and build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = folder / "book" / "en"
        self.html = folder / "_build" / "html" / "en"
        for name in ("attnmem", "book"):
            shutil.copytree(
                ROOT / name,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "reference"),
            )
        shutil.copy(ROOT / "conf.py", folder)
        if KEPT.exists():
            shutil.copytree(KEPT, folder / "_build" / "explorer")

    def build(self) -> subprocess.CompletedProcess:
        """Build it in English."""
        return build(self.folder, "en")


def build(folder: Path, edition: str) -> subprocess.CompletedProcess:
    """Build as `nox -s docs` does, with the folder's own package."""
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *sphinx_options(edition)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "NO_COLOR": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def sphinx_options(edition: str) -> list[str]:
    """The options that noxfile.py builds with: the tests must be as strict."""
    import noxfile

    return noxfile.edition(edition)


@pytest.fixture
def small_book(tmp_path: Path) -> Book:
    """A book of one short page with a number from the package in it."""
    book = Book(tmp_path)
    for page in book.pages.glob("*.md"):
        page.unlink()
    (book.pages / "index.md").write_text(
        "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n# A page\n\nSome prose.\n\n"
        "```{code-cell} python3\nfrom attnmem.timeline import SOFTMAX_OPS\n\n"
        'print("operations:", SOFTMAX_OPS)\n```\n'
    )
    return book


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()  # a worker's is a folder in that of its run
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def kept(shared_folder: Path) -> dict[str, Any]:
    """What the explorer's page has of the package, as builds of the book keep it."""
    with FileLock(shared_folder / "explorer.lock"):
        return explorer.found(KEPT)


@pytest.fixture(scope="session")
def built_book(shared_folder: Path, kept: object) -> Path:
    """The HTML of the whole book, built once for all workers."""
    shared = shared_folder / "book"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            book = Book(shared)
            done = book.build()
            assert done.returncode == 0, done.stdout
    return shared / "_build" / "html" / "en"


@pytest.fixture(scope="session")
def in_chinese(shared_folder: Path, built_book: Path) -> Path:
    """The HTML of the Chinese edition: its cells ran for the English one."""
    with FileLock(shared_folder / "chinese.lock"):
        made = built_book.parent / "zh"
        if not made.exists():
            done = build(shared_folder / "book", "zh")
            assert done.returncode == 0, done.stdout
            assert not re.search(r"^ *[\d.]+ s  ", done.stdout, re.M), "cells ran a second time"
    return made
