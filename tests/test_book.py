"""Real builds of the book, as strict as the ones that readers make."""

import re
from pathlib import Path

import pytest

EXECUTING = " s  index\n"  # what a build prints of a page whose cells it runs: how long


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text())


def test_the_whole_book_builds_without_a_warning(built_book):
    pages = {page.stem for page in built_book.glob("*.html")}
    assert pages >= {
        "index",
        "setup",
        "attention",
        "memory",
        "measurement",
        "intensity",
    }
    assert pages >= {"training", "summary", "search", "api", "bibliography", "glossary"}


def test_no_page_says_that_something_was_skipped_or_undefined(built_book):
    for page in built_book.glob("*.html"):
        text = text_of(page)
        assert not re.search(r"skipp|not available|\bnan\b.*MB|Traceback", text), page.name


def test_gpu_tables_carry_their_provenance(built_book):
    made = r"(recorded|measured live)( by an older version of this code)? on "
    where = r"NVIDIA .*, driver [\d.]+, CUDA [\d.]+, torch .*, 20\d\d-"
    for name in ("index", "status", "measurement", "training", "summary"):
        assert re.search(made + where, text_of(built_book / f"{name}.html")), name


def test_numbers_that_a_build_executed_are_kept(small_book):
    first = small_book.build()
    assert first.returncode == 0, first.stdout
    assert EXECUTING in first.stdout
    assert "operations: 5" in text_of(small_book.html / "index.html")

    page = small_book.pages / "index.md"
    page.write_text(page.read_text().replace("Some prose.", "Other prose."))
    second = small_book.build()
    assert second.returncode == 0, second.stdout
    assert EXECUTING not in second.stdout
    assert "Other prose." in text_of(small_book.html / "index.html")
    assert "operations: 5" in text_of(small_book.html / "index.html")


def test_another_constant_in_the_package_is_another_number_on_the_page(small_book):
    assert small_book.build().returncode == 0
    module = small_book.folder / "attnmem" / "timeline.py"
    module.write_text(module.read_text().replace("SOFTMAX_OPS = 5", "SOFTMAX_OPS = 7"))
    again = small_book.build()
    assert again.returncode == 0, again.stdout
    assert EXECUTING in again.stdout
    assert "operations: 7" in text_of(small_book.html / "index.html")


def test_every_failing_cell_fails_the_build_and_is_shown(small_book):
    page = small_book.pages / "index.md"
    other = page.read_text().replace('print("operations:", SOFTMAX_OPS)', "first_mistake")
    (small_book.pages / "other.md").write_text(other)
    page.write_text(
        page.read_text().replace('print("operations:", SOFTMAX_OPS)', "second_mistake")
        + "\n```{toctree}\nother\n```\n"
    )
    done = small_book.build()
    assert done.returncode != 0
    output = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)  # tracebacks are coloured
    for name in ("first_mistake", "second_mistake"):
        assert f"NameError: name '{name}' is not defined" in output


@pytest.mark.parametrize("text", ["{doc}`nowhere`", "[](nowhere)", "{glue:text}`nothing`"])
def test_a_broken_reference_fails_the_build(small_book, text):
    page = small_book.pages / "index.md"
    page.write_text(page.read_text().replace("Some prose.", text))
    done = small_book.build()
    assert done.returncode != 0
    assert "WARNING" in done.stdout
