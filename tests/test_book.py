"""Real builds of the book, as strict as the ones that readers make."""

import re
import subprocess
from pathlib import Path

import pytest
import repository

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
    for name in (
        "index",
        "status",
        "measurement",
        "training",
        "roofline",
        "tiles",
        "one-token",
        "more-gpus",
    ):
        assert re.search(made + where, text_of(built_book / f"{name}.html")), name


def test_cells_run_again_only_where_a_number_may_change(small_book):
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

    # Another constant in the package is another number on the page.
    module = small_book.folder / "attnmem" / "timeline.py"
    module.write_text(module.read_text().replace("SOFTMAX_OPS = 5", "SOFTMAX_OPS = 7"))
    third = small_book.build()
    assert third.returncode == 0, third.stdout
    assert EXECUTING in third.stdout
    assert "operations: 7" in text_of(small_book.html / "index.html")


def test_failing_cells_and_broken_references_fail_the_build_and_all_are_shown(small_book):
    """Every warning fails a build. One build, as each would take as long as all."""
    page = small_book.pages / "index.md"
    good = page.read_text()
    call = 'print("operations:", SOFTMAX_OPS)'
    mistakes = {
        "failing": good.replace(call, "first_mistake"),
        "index": good.replace(call, "second_mistake"),
        "doc": "# A page\n\n{doc}`nowhere`\n",
        "link": "# A page\n\n[](nowhere)\n",
        "glue": "# A page\n\n{glue:text}`nothing`\n",
    }
    mistakes["index"] += "\n```{toctree}\nfailing\ndoc\nlink\nglue\n```\n"
    for name, text in mistakes.items():
        (small_book.pages / f"{name}.md").write_text(text)
    done = small_book.build()
    assert done.returncode != 0
    output = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)  # tracebacks are coloured
    for name in mistakes:
        assert re.search(rf"/{name}\.md.*: WARNING: ", output), output
    for name in ("first_mistake", "second_mistake"):
        assert f"NameError: name '{name}' is not defined" in output


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://github.com/owner/book.git", "https://github.com/owner/book"),
        ("https://name:secret@gitlab.com/a/b/c", "https://gitlab.com/a/b/c"),
        ("git@github.com:owner/book.git", "https://github.com/owner/book"),
        ("ssh://git@codeberg.org:22/owner/book", "https://codeberg.org/owner/book"),
        ("/home/someone/book", None),
        ("../book.git", None),
        ("file:///srv/book.git", None),
        ("https://localhost/owner/book", None),
        ("git@server:owner/book.git", None),
        ("http://10.0.0.7:3000/owner/book", None),
        ("https://git.company.internal/owner/book", None),
        ("", None),
    ],
)
def test_a_repository_s_address_is_one_that_all_can_open(remote, page):
    assert repository.public(remote) == page


def test_a_workflow_knows_where_its_repository_is(tmp_path):
    workflow = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "owner/book"}
    assert repository.address(tmp_path, workflow) == "https://github.com/owner/book"
    assert repository.address(tmp_path, {}) is None


def test_a_page_links_to_the_repository_if_it_has_an_address(small_book, monkeypatch):
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    page = small_book.pages / "index.md"
    page.write_text("# A page\n\nClone {repository}`its repository`.\n")
    configuration = small_book.folder / "conf.py"  # the book's own takes seconds to import
    configuration.write_text(
        'import sys\nsys.path.append("book/_ext")\nextensions = ["myst_parser", "repository"]\n'
    )

    def clone(remote: str) -> str:
        subprocess.run(["git", "init", "-q", small_book.folder], check=True)
        config = ["git", "-C", str(small_book.folder), "config", "remote.origin.url", remote]
        subprocess.run(config, check=True)
        done = small_book.build()
        assert done.returncode == 0, done.stdout
        return (small_book.html / "index.html").read_text()

    private = clone("/srv/secret/book.git")
    assert "Clone its repository." in private
    assert "secret" not in private
    link = '<a class="reference external" href="https://github.com/owner/book">its repository</a>'
    assert link in clone("git@github.com:owner/book.git")
