"""Beside the text: notes in the margin, and how long a page takes.

    ```{margin} In the package
    {py:func}`attnmem.roofline.limited_by`
    ```

Such a note is a fold that is open and beside the text where a page is wide (`_static/margins.js`,
`_static/book.css`). The role ``minutes`` names a page, and is the time to read it.
"""

import math
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.directives.admonitions import Admonition
from sphinx.locale import _
from sphinx.util.docutils import SphinxRole

# Slower than a novel, which is read at two to three hundred: there are formulas and figures.
WORDS_A_MINUTE = 150
# What is no prose: the header, code, and everything from the exercises on.
OTHER = re.compile(
    r"\A---\n.*?\n---\n|^```\{(?:code-cell|literalinclude)\}.*?^```$|^## Exercises\n.*", re.M | re.S
)


def minutes(text: str) -> int:
    """How long the source of a page takes to read before its exercises, in steps of five."""
    words = re.findall(r"\w[\w'’-]*", OTHER.sub("", text))
    return 5 * math.ceil(len(words) / WORDS_A_MINUTE / 5)


class Margin(Admonition):
    """Its argument is the title, its content the note."""

    def run(self) -> list[nodes.Node]:
        """A fold that belongs into the margin."""
        self.options |= {"class": ["margin"], "collapsible": "closed"}
        return super().run()


class Minutes(SphinxRole):
    """The time to read a page, which is its text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """A number and its unit."""
        path = self.env.doc2path(self.text)
        self.env.note_dependency(path)
        return [nodes.Text(_("%d minutes") % minutes(Path(path).read_text()))], []


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("margin", Margin)
    app.add_role("minutes", Minutes())
    app.add_js_file("margins.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
