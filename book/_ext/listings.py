"""Listings of the package: docstrings with names where the reference has links."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ROLE = re.compile(r":[a-z:]+:`~?(?:[\w.]+\.)?([\w/-]+)`")


def plain(code: str) -> str:
    """Code whose docstrings name what they refer to as it is typed."""
    return ROLE.sub(r"``\1``", code)


class Plain(SphinxTransform):
    """Makes the listings of a page plain."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Change what ``literalinclude`` has taken from the package."""
        for block in self.document.findall(nodes.literal_block):
            if "source" in block and str(block["source"]).endswith(".py"):
                block.rawsource = plain(block.rawsource)
                block.children = [nodes.Text(plain(block.astext()))]
                block.children[0].parent = block


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_transform(Plain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
