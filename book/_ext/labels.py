r"""What tables of cells and displayed formulas say in words, in the language of the edition.

A cell runs once, for all languages, so the words are replaced in what it has shown: those of a
table's heading or entry, and of a formula's ``\text{}``. They are the catalogue ``labels``.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.gettext import MsgOrigin
from translated import catalogue

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


def depend(app: Sphinx, document: nodes.document) -> None:
    """A page is made again when a word changes."""
    (folder,) = app.config.locale_dirs
    path = Path(folder, app.config.language, "LC_MESSAGES", "labels.po")
    if path.exists():
        app.env.note_dependency(str(path))


def name_all(app: Sphinx, document: nodes.document, page: str) -> None:
    """Replace the words of a page; or collect them."""
    collecting, look_up = app.builder.name == "gettext", catalogue(app, "labels")

    def name(found: re.Match[str]) -> str:
        measured = MEASURED.match(found["words"])
        before = measured[0] if measured else ""
        words = found["words"].removeprefix(before)
        if collecting and WORD.search(MARKUP.sub("", words)):
            collected = app.builder.catalogs["labels"]  # type: ignore[attr-defined]
            collected.add(words, MsgOrigin(page, 0))
        return found["before"] + before + look_up(words)

    for kind, pattern in ((nodes.raw, ENTRY), (nodes.math_block, IN_FORMULA)):
        for node in document.findall(kind):
            node[:] = [nodes.Text(pattern.sub(name, node.astext()))]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-read", depend)
    app.connect("doctree-resolved", name_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
