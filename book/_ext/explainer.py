"""The directive ``explainer``: a box for an out-of-memory message, which a browser answers.

The parts of ``book/explainer`` and what :func:`attnmem.lessons.explainer.data` finds are put into
the page itself, so that it works opened as a file, where browsers load no modules. Sections that an
answer may lead to stand beside it as links, which Sphinx checks and gives their titles.
"""

from typing import Any

from docutils import nodes
from inlined import Inlined, as_json
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util.docutils import SphinxDirective

from attnmem.lessons import explainer

BOX = Inlined("explainer", ("forms.js", "shapes.js", "odds.js", "answer.js", "page.js"))

WITHOUT = _(
    "Here would be a box for your message. It is a script, and scripts are off; in a shell, "
    '<code>attnmem explain "…"</code> says the same, and <code>attnmem explain -</code> reads a '
    "log on standard input."
)


def data() -> str:
    """What the script knows, as JSON that may stand in a page."""
    return as_json(explainer.data())


def html() -> str:
    """The box, and what it needs."""
    return BOX.html(data(), f"<p>{WITHOUT}</p>")


class Explainer(SphinxDirective):
    """Has neither arguments nor content."""

    def run(self) -> list[nodes.Node]:
        """The links, then the page's own HTML."""
        for path in BOX.parts():
            self.env.note_dependency(str(path))
        links = nodes.paragraph(translatable=False)  # titles, which the pages have
        for label in explainer.cures():
            link = pending_xref("", nodes.inline(label, label), refdomain="std", reftype="ref")
            link.attributes |= {"reftarget": label, "refexplicit": False, "refwarn": True}
            link["refdoc"] = self.env.docname
            links += link
        return [
            nodes.raw("", '<div id="explain-cures" hidden>', format="html"),
            links,
            nodes.raw("", f"</div>\n{html()}", format="html"),
        ]


def style(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The page looks like the explorer's."""
    if name == "messages":
        app.add_css_file("explorer.css")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("explainer", Explainer)
    app.connect("html-page-context", style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
