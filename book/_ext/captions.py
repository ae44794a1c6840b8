"""The directive ``table-caption``: a number and a caption under a table that a cell has printed.

    ```{table-caption} tab-peaks
    Peaks of one layer; recorded on …
    ```

A caption in a cell's metadata would belong to the key of the execution cache, and to one language.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class table_caption(nodes.Part, nodes.TextElement):  # noqa: N801 (docutils names nodes like this)
    """The caption; Sphinx numbers it as a table."""


class TableCaption(SphinxDirective):
    """Its argument is the label, its content the caption."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The caption, with its label."""
        caption = table_caption()
        self.options["name"] = self.arguments[0]
        self.add_name(caption)
        self.set_source_info(caption)
        paragraph: Any
        (paragraph,) = self.parse_content_to_nodes()
        caption.rawsource = paragraph.rawsource  # what is translated: not yet with its values
        caption += paragraph.children
        return [caption]


def visit(translator: Any, node: table_caption) -> None:
    """A paragraph that begins with the number."""
    translator.body.append(translator.starttag(node, "p", CLASS="table-caption"))
    translator.add_fignumber(node)


def depart(translator: Any, node: table_caption) -> None:
    """The end of the paragraph."""
    translator.body.append("</p>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""

    def title(node: Any) -> str:
        return node.astext()

    app.add_enumerable_node(table_caption, "table", title, html=(visit, depart))
    app.add_directive("table-caption", TableCaption)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
