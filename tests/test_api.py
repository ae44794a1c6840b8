"""The reference is whole: every module stands in it, and names the sections that teach it."""

import importlib
import inspect
import pkgutil
import re

import pytest
from conftest import CHAPTERS, ROOT

import attnmem

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(attnmem.__path__, "attnmem.")
    if not module.name.endswith("__main__")
)


def page_of(built_book, module: str) -> str:
    return (built_book / "reference" / f"{module}.html").read_text()


def test_every_public_name_of_every_module_stands_in_the_reference(built_book):
    for module in MODULES:
        page = page_of(built_book, module)
        for name, thing in inspect.getmembers(importlib.import_module(module)):
            own = getattr(thing, "__module__", None) == module and not name.startswith("_")
            if own and (inspect.isfunction(thing) or inspect.isclass(thing)):
                assert inspect.getdoc(thing), f"{module}.{name}"
                assert f'id="{module}.{name}"' in page


def test_the_reference_says_where_a_name_is_taught(built_book):
    page = page_of(built_book, "attnmem.programs")
    assert re.search(r'Taught in <a [^>]*href="\.\./attention\.html#attention-function"', page)


def test_the_reference_tells_nothing_of_the_machine_that_built_it(built_book):
    for module in MODULES:
        assert str(ROOT.parent) not in page_of(built_book, module), module
        assert "PosixPath" not in page_of(built_book, module), module


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapters_link_to_the_reference(chapter):
    page = (ROOT / "book" / "en" / f"{chapter}.md").read_text()
    assert len(re.findall(r"\{py:(?:func|class|meth|mod|data)\}`", page)) >= 3
