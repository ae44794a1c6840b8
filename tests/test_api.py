"""The reference is whole: every public name is documented, and says where the book teaches it."""

import importlib
import inspect
import pkgutil
import re

import pytest
from conftest import CHAPTERS, ROOT

import attnmem
from attnmem.programs import PROGRAMS

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(attnmem.__path__, "attnmem.")
    if not module.name.endswith("__main__")
)
NAMES = [
    pytest.param(thing, id=f"{name}.{thing.__name__}")
    for name in MODULES
    for _, thing in inspect.getmembers(importlib.import_module(name))
    if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == name
    if not thing.__name__.startswith("_")
]


@pytest.mark.parametrize("thing", NAMES)
def test_a_docstring_names_the_section_that_teaches_it(thing):
    # That the section exists is seen by the build: a reference to nowhere fails it. The programs,
    # whose listing stands in that section, leave it to their module to name it.
    documented = importlib.import_module(thing.__module__) if thing in PROGRAMS[1:] else thing
    reference = r"(?i)\b(taught|shown|used) in\s+:(ref|doc|numref):`"
    assert re.search(reference, inspect.getdoc(documented) or "")


def test_every_module_stands_in_the_reference():
    reference = (ROOT / "book" / "en" / "api.md").read_text()
    named = set(re.findall(r"automodule:: (\S+)", reference))
    chapters = {
        name
        for name in MODULES
        if re.fullmatch(r"attnmem\.exercises\.(?!kinds|task|verdict).*", name)
    }
    assert named == set(MODULES) - chapters


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapters_link_to_the_reference(chapter):
    page = (ROOT / "book" / "en" / f"{chapter}.md").read_text()
    assert len(re.findall(r"\{py:(?:func|class|meth|mod|data)\}`", page)) >= 3


def test_there_are_examples():
    # Each is run: pytest collects them.
    examples = [
        name for name in MODULES if ">>> " in inspect.getsource(importlib.import_module(name))
    ]
    assert len(examples) >= 10
