r"""What tables of cells and displayed formulas say in words, in the language of the edition.

A cell runs once, for all languages, so the words are replaced in what it has shown: those of a
table's heading or entry, and of a formula's ``\text{}``. They are the catalogue ``labels``.
"""

import re
from pathlib import Path

from babel.messages.pofile import read_po
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.gettext import MsgOrigin

# What stands in an entry, without the link or paragraph around it; it is HTML.
ENTRY = re.compile(
    r"(?P<before><t[hd]\b[^>]*>(?:<p>|<a [^>]*>|\s)*)(?P<words>.*?)(?=(?:</a>|</p>|\s)*</t[hd]>)",
    re.S,
)
IN_FORMULA = re.compile(r"(?P<before>\\text\{\s*)(?P<words>[^}]+?)(?=\s*\})")
MARKUP = re.compile(r"<code>.*?</code>|<[^>]*>|&\w+;")
# What is no name alone, such as flash_sdpa or torch 2.13.0+cpu.
WORD = re.compile(r"(?<![\w#+./:-])[a-z]{2,}(?![\w#+./:-])|[a-z]{2}: ")
# A time and its share of a limit: only what limits is said in words.
MEASURED = re.compile(r"[\d,]+ µs, \d+%, ")

SAID: dict[str, str] = {}  # words -> what the edition says


def catalogue(app: Sphinx) -> Path:
    """The file of the edition's words."""
    (folder,) = app.config.locale_dirs
    return Path(folder, app.config.language, "LC_MESSAGES", "labels.po")


def load(app: Sphinx) -> None:
    """Read what the edition says."""
    SAID.clear()
    if catalogue(app).exists():
        with catalogue(app).open("rb") as file:
            found = read_po(file)
        SAID.update({str(m.id): str(m.string) for m in found if m.id and m.string and not m.fuzzy})


def depend(app: Sphinx, document: nodes.document) -> None:
    """A page is made again when a word changes."""
    if catalogue(app).exists():
        app.env.note_dependency(str(catalogue(app)))


def name_all(app: Sphinx, document: nodes.document, page: str) -> None:
    """Replace the words of a page; or collect them."""
    collecting = app.builder.name == "gettext"

    def name(found: re.Match[str]) -> str:
        measured = MEASURED.match(found["words"])
        before = measured[0] if measured else ""
        words = found["words"].removeprefix(before)
        if collecting and WORD.search(MARKUP.sub("", words)):
            collected = app.builder.catalogs["labels"]  # type: ignore[attr-defined]
            collected.add(words, MsgOrigin(page, 0))
        return found["before"] + before + SAID.get(words, words)

    for kind, pattern in ((nodes.raw, ENTRY), (nodes.math_block, IN_FORMULA)):
        for node in document.findall(kind):
            node[:] = [nodes.Text(pattern.sub(name, node.astext()))]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("builder-inited", load)
    app.connect("doctree-read", depend)
    app.connect("doctree-resolved", name_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
